-- Format 3: the audit trail. Rows are added and never changed; what is in them is opaque to the store (audit/).

CREATE TABLE audit (
    token    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    record   BLOB NOT NULL,
    hash     BLOB NOT NULL,
    tag      BLOB NOT NULL,
    PRIMARY KEY (token, sequence)
) WITHOUT ROWID, STRICT;

-- The last record of each trail that somebody signed, signed once more as the end: without it the end could be cut off.
CREATE TABLE audit_end (
    token    INTEGER PRIMARY KEY,
    sequence INTEGER NOT NULL,
    tag      BLOB NOT NULL
) STRICT;
