-- Hives on other machines, the tokens that they join with, and who changed what. `machine` is derived from
-- the machine-id, `credential` names the certificate, `labels` is a JSON object, `cordoned` the reason.

ALTER TABLE hives ADD COLUMN machine TEXT;
ALTER TABLE hives ADD COLUMN credential TEXT;
ALTER TABLE hives ADD COLUMN address TEXT;
ALTER TABLE hives ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE hives ADD COLUMN cordoned TEXT;

CREATE UNIQUE INDEX hives_by_machine ON hives (machine);
CREATE UNIQUE INDEX hives_by_credential ON hives (credential);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL,
    hive TEXT,
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    created_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    is_revoked INTEGER NOT NULL DEFAULT 0 CHECK (is_revoked IN (0, 1))
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    text TEXT NOT NULL,
    hive TEXT,
    actor_uid INTEGER,
    actor_credential TEXT,
    job_id TEXT
) STRICT;
