-- Models that organizations bring. Their archives are stored contents; the body has what answers show besides.
CREATE TABLE org_models (
    model_id        TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    name            TEXT NOT NULL,
    version         TEXT NOT NULL,
    archive_hash    TEXT NOT NULL,
    -- What tells its vectors from those of every other model, and how long they are.
    fingerprint     TEXT NOT NULL,
    dimensions      INTEGER NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    UNIQUE (organization_id, name, version)
);
CREATE INDEX org_models_by_archive ON org_models (archive_hash);

-- The namespaces that may use a model.
CREATE TABLE namespace_models (
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    model_id     TEXT NOT NULL REFERENCES org_models (model_id) ON DELETE CASCADE,
    enabled_at   TEXT NOT NULL,
    PRIMARY KEY (namespace_id, model_id)
);
CREATE INDEX namespace_models_by_model ON namespace_models (model_id);

-- Archives of models on their way. The hash is there from when the bytes came until a model was made of them, or they
-- were refused.
CREATE TABLE model_uploads (
    upload_id       TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    -- `PENDING`, `COMPLETED`, `FAILED` or `CANCELED`.
    status          TEXT NOT NULL,
    archive_hash    TEXT,
    model_id        TEXT,
    body            TEXT NOT NULL,
    expires_at      TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);
CREATE INDEX model_uploads_by_archive ON model_uploads (archive_hash) WHERE archive_hash IS NOT NULL;
CREATE INDEX model_uploads_waiting ON model_uploads (organization_id, expires_at) WHERE status = 'PENDING';
