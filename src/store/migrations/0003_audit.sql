-- Format 3: the audit trail. Rows are added and never changed; what is in them is opaque to the store (audit/).

CREATE TABLE audit (
    token    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    record   BLOB NOT NULL,
    hash     BLOB NOT NULL,
    tag      BLOB NOT NULL,
    PRIMARY KEY (token, sequence)
) WITHOUT ROWID, STRICT;
