-- Format 1. A migration that was released is never edited; a change is the next numbered file.

-- One row. The digest is over the serial number (sqlite/serial.rs).
CREATE TABLE meta (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    next_serial TEXT NOT NULL,
    digest      BLOB NOT NULL
) STRICT;

-- The digest is over every other column (sqlite/token.rs).
CREATE TABLE token (
    id            INTEGER PRIMARY KEY,
    serial        TEXT NOT NULL UNIQUE,
    slot          INTEGER NOT NULL UNIQUE,
    label         TEXT NOT NULL,
    revision      INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    so_envelope   BLOB NOT NULL,
    user_envelope BLOB,
    so_failures   INTEGER NOT NULL,
    user_failures INTEGER NOT NULL,
    last_failure  INTEGER NOT NULL,
    digest        BLOB NOT NULL
) STRICT;

-- `entries` are the object's index entries, 17 bytes each: field, digest. They say which rows of object_index are its own,
-- so that object_index needs no second index.
CREATE TABLE object (
    id         INTEGER PRIMARY KEY,
    token      INTEGER NOT NULL REFERENCES token (id),
    uid        BLOB NOT NULL UNIQUE,
    revision   INTEGER NOT NULL,
    attributes BLOB NOT NULL,
    secret     BLOB,
    entries    BLOB NOT NULL
) STRICT;

CREATE INDEX object_by_token ON object (token);

CREATE TABLE object_index (
    token  INTEGER NOT NULL,
    field  INTEGER NOT NULL,
    digest BLOB NOT NULL,
    object INTEGER NOT NULL,
    PRIMARY KEY (token, field, digest, object)
) WITHOUT ROWID, STRICT;
