-- What the release before need not know of: it is made where it is missing, and gets no version, so that a
-- downgrade goes on with the catalog. `former_credential` is that of a hive which has joined again as
-- `successor`, and by which it proves itself until it first uses that one.

CREATE TABLE IF NOT EXISTS former_credentials (
    hive TEXT PRIMARY KEY,
    former_credential TEXT NOT NULL,
    successor TEXT NOT NULL
) STRICT, WITHOUT ROWID;
