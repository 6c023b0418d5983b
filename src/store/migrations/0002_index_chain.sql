-- Format 2: what no seal covers carries a digest, and the rows of the index name each other, so that damage is told.

-- Over token, uid, revision and entries (sqlite/object.rs). Each object gets its own when the migration ends.
ALTER TABLE object ADD COLUMN digest BLOB NOT NULL DEFAULT x'';

DROP TABLE object_index;

-- Made anew from the objects. The link joins a row to the one after it (sqlite/chain.rs).
CREATE TABLE object_index (
    token  INTEGER NOT NULL,
    field  INTEGER NOT NULL,
    digest BLOB NOT NULL,
    object INTEGER NOT NULL,
    link   BLOB NOT NULL,
    PRIMARY KEY (token, field, digest, object)
) WITHOUT ROWID, STRICT;
