-- Who changed what: one row a call. Ids begin with the time, so a row goes behind the others of its organization, and
-- a time is a range of ids.
CREATE TABLE audit_events (
    organization_id TEXT NOT NULL,
    audit_id        TEXT NOT NULL,
    namespace_id    TEXT,
    user_id         TEXT NOT NULL,
    key_id          TEXT NOT NULL,
    action          TEXT NOT NULL,
    resource_type   TEXT NOT NULL,
    resource_id     TEXT NOT NULL,
    operation_id    TEXT NOT NULL,
    method          TEXT NOT NULL,
    -- With the names of its parameters and not with their values.
    path            TEXT NOT NULL,
    -- `success` or `failure`.
    status          TEXT NOT NULL,
    -- Of the answer. NULL: the row was written with the change itself, and nothing went wrong after that.
    status_code     INTEGER,
    request_id      TEXT NOT NULL,
    ip_address      TEXT,
    user_agent      TEXT,
    reason          TEXT,
    created_at      TEXT NOT NULL,
    PRIMARY KEY (organization_id, audit_id)
) WITHOUT ROWID;

CREATE TABLE audit_settings (
    organization_id TEXT PRIMARY KEY REFERENCES organizations (organization_id),
    reads           INTEGER NOT NULL,
    -- NULL: for ever.
    retention_days  INTEGER
);

-- What data subjects asked for: the queue of the work, and the receipt of what was done.
CREATE TABLE subject_requests (
    request_id      TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    -- `export` or `delete`.
    kind            TEXT NOT NULL,
    subject         TEXT NOT NULL,
    requested_by    TEXT NOT NULL,
    -- `pending`, `completed`, `failed` or `expired`.
    status          TEXT NOT NULL,
    -- How often the work was begun.
    attempts        INTEGER NOT NULL,
    -- The content of an export, until it expires.
    blob_hash       TEXT,
    -- `erased` and `kept`: how many by category. `error`.
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    completed_at    TEXT,
    expires_at      TEXT
);
CREATE INDEX subject_requests_organization ON subject_requests (organization_id, created_at);
CREATE INDEX subject_requests_due ON subject_requests (created_at) WHERE status = 'pending';
CREATE INDEX subject_requests_by_blob ON subject_requests (blob_hash) WHERE blob_hash IS NOT NULL;
