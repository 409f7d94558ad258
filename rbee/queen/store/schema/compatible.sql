-- What the release before need not know of: it is made where it is missing, and gets no version, so that a
-- downgrade goes on with the catalog. `former_credential` is that of a hive which has joined again as
-- `successor`, and by which it proves itself until it first uses that one. `token_authority` has one row:
-- the fingerprint of the CA that the tokens name. `report` is the process of a hive, and the fingerprint in
-- its beats, when it reported the devices that are stored.

CREATE TABLE IF NOT EXISTS former_credentials (
    hive TEXT PRIMARY KEY,
    former_credential TEXT NOT NULL,
    successor TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS token_authority (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    fingerprint TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS reports (
    hive TEXT PRIMARY KEY,
    report TEXT NOT NULL
) STRICT, WITHOUT ROWID;
