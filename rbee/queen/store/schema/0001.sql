-- The hives. `devices` is JSON, as the API shows it.

CREATE TABLE hives (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    status TEXT NOT NULL CHECK (status IN ('pending', 'online', 'offline')),
    devices TEXT,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    wanted INTEGER NOT NULL CHECK (wanted IN (0, 1))
) STRICT;
