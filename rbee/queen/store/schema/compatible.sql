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

-- What is served. The release before serves no models, and goes on with its hives. A model's `source`
-- is its path, or its URL without what is secret in it; `fetch` names the fetch of that URL on the hive.
-- `head` and a key's `models` are JSON. `peaks` has the most memory that workers have used: it was `learned`
-- before, without the engine, so that it is not known for which engine its rows hold.

CREATE TABLE IF NOT EXISTS models (
    name TEXT PRIMARY KEY,
    hive_id TEXT NOT NULL,
    source TEXT NOT NULL,
    fetch TEXT,
    state TEXT NOT NULL CHECK (state IN ('fetching', 'ready', 'missing', 'failed')),
    reason TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    path TEXT,
    head TEXT,
    bytes INTEGER,
    sha256 TEXT,
    memory_bytes INTEGER,
    context INTEGER,
    is_served INTEGER NOT NULL CHECK (is_served IN (0, 1)),
    is_pinned INTEGER NOT NULL CHECK (is_pinned IN (0, 1)),
    idle_s INTEGER NOT NULL,
    engine TEXT,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS peaks (
    model TEXT NOT NULL,
    context INTEGER NOT NULL,
    kind TEXT NOT NULL,
    engine TEXT NOT NULL,
    peak_bytes INTEGER NOT NULL,
    PRIMARY KEY (model, context, kind, engine)
) STRICT, WITHOUT ROWID;

DROP TABLE IF EXISTS learned;

CREATE TABLE IF NOT EXISTS keys (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    models TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER,
    is_revoked INTEGER NOT NULL CHECK (is_revoked IN (0, 1)),
    uses INTEGER NOT NULL,
    last_used_ms INTEGER
) STRICT;
