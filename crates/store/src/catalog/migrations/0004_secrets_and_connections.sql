-- Values that only this server's secrets key opens.
CREATE TABLE secrets (
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    name            TEXT NOT NULL,
    sealed          BLOB NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    PRIMARY KEY (organization_id, name)
);

-- Places outside this server that an organization's retrievers may read.
CREATE TABLE connections (
    connection_id        TEXT PRIMARY KEY,
    organization_id      TEXT NOT NULL REFERENCES organizations (organization_id),
    name                 TEXT NOT NULL,
    provider_type        TEXT NOT NULL,
    -- What may be shown.
    body                 TEXT NOT NULL,
    -- The credentials, as JSON; null where there are none.
    sealed               BLOB,
    created_by           TEXT NOT NULL,
    last_used_at         TEXT,
    last_error           TEXT,
    consecutive_failures INTEGER NOT NULL,
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL,
    UNIQUE (organization_id, name)
);
