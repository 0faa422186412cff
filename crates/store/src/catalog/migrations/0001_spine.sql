-- The spine. Times are RFC 3339 text in UTC; JSON is text; only types that PostgreSQL has under the same meaning.

CREATE TABLE organizations (
    organization_id TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);

CREATE TABLE users (
    user_id         TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    email           TEXT NOT NULL,
    name            TEXT NOT NULL,
    role            TEXT NOT NULL,
    status          TEXT NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    UNIQUE (organization_id, email)
);

CREATE TABLE api_keys (
    key_id          TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    user_id         TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    -- SHA-256 of the secret; the secret itself is never stored.
    key_hash        TEXT NOT NULL UNIQUE,
    key_prefix      TEXT NOT NULL,
    permissions     TEXT NOT NULL,
    scopes          TEXT NOT NULL,
    status          TEXT NOT NULL,
    expires_at      TEXT,
    last_used_at    TEXT,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);
-- A revoked key's name is free again.
CREATE UNIQUE INDEX api_keys_name ON api_keys (user_id, name) WHERE status = 'active';

CREATE TABLE namespaces (
    namespace_id    TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    name            TEXT NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL,
    UNIQUE (organization_id, name)
);

CREATE TABLE buckets (
    bucket_id    TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    UNIQUE (namespace_id, name)
);

CREATE TABLE collections (
    collection_id TEXT PRIMARY KEY,
    namespace_id  TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    name          TEXT NOT NULL,
    enabled       INTEGER NOT NULL,
    body          TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL,
    UNIQUE (namespace_id, name)
);

-- What a collection reads from: one row a source bucket or collection.
CREATE TABLE collection_sources (
    collection_id TEXT NOT NULL REFERENCES collections (collection_id) ON DELETE CASCADE,
    source_kind   TEXT NOT NULL,
    source_id     TEXT NOT NULL,
    PRIMARY KEY (collection_id, source_id)
);
CREATE INDEX collection_sources_source ON collection_sources (source_id);

CREATE TABLE retrievers (
    retriever_id TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    UNIQUE (namespace_id, name)
);

-- Bytes that are stored. A blob without references is removed after a grace time.
CREATE TABLE blobs (
    hash       TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE objects (
    object_id     TEXT PRIMARY KEY,
    namespace_id  TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    bucket_id     TEXT NOT NULL REFERENCES buckets (bucket_id) ON DELETE CASCADE,
    key_prefix    TEXT,
    status        TEXT NOT NULL,
    error         TEXT,
    -- SHA-256 over fields and blob hashes: what `skip_duplicates` compares.
    content_hash  TEXT NOT NULL,
    unique_key    TEXT,
    idempotency_key TEXT,
    fields        TEXT NOT NULL,
    blobs         TEXT NOT NULL,
    body          TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
);
CREATE INDEX objects_bucket ON objects (bucket_id, created_at, object_id);
CREATE INDEX objects_hash ON objects (bucket_id, content_hash);
CREATE UNIQUE INDEX objects_unique_key ON objects (bucket_id, unique_key) WHERE unique_key IS NOT NULL;
CREATE UNIQUE INDEX objects_idempotency ON objects (bucket_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE object_blobs (
    object_id TEXT NOT NULL REFERENCES objects (object_id) ON DELETE CASCADE,
    blob_id   TEXT NOT NULL,
    hash      TEXT NOT NULL REFERENCES blobs (hash),
    PRIMARY KEY (object_id, blob_id)
);
CREATE INDEX object_blobs_hash ON object_blobs (hash);

CREATE TABLE uploads (
    upload_id    TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    bucket_id    TEXT NOT NULL REFERENCES buckets (bucket_id) ON DELETE CASCADE,
    status       TEXT NOT NULL,
    file_hash    TEXT,
    blob_hash    TEXT REFERENCES blobs (hash),
    object_id    TEXT,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
);
CREATE INDEX uploads_bucket ON uploads (bucket_id, created_at, upload_id);
CREATE INDEX uploads_blob ON uploads (blob_hash) WHERE blob_hash IS NOT NULL;
CREATE INDEX uploads_object ON uploads (object_id) WHERE object_id IS NOT NULL;

CREATE TABLE tasks (
    task_id         TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    namespace_id    TEXT,
    task_type       TEXT NOT NULL,
    status          TEXT NOT NULL,
    batch_id        TEXT,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);
CREATE INDEX tasks_organization ON tasks (organization_id, created_at, task_id);

CREATE TABLE batches (
    batch_id     TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    -- NULL when it runs over documents that no bucket stands behind.
    bucket_id    TEXT REFERENCES buckets (bucket_id) ON DELETE CASCADE,
    -- DRAFT until submitted; then its state is counted from its derivations until it is final.
    status       TEXT NOT NULL,
    task_id      TEXT,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
);
CREATE INDEX batches_bucket ON batches (bucket_id, created_at, batch_id);

CREATE TABLE batch_objects (
    batch_id  TEXT NOT NULL REFERENCES batches (batch_id) ON DELETE CASCADE,
    object_id TEXT NOT NULL,
    PRIMARY KEY (batch_id, object_id)
);

-- One unit of work: this collection's extractor over this input. Queue, lineage edge, cache key and audit record.
CREATE TABLE derivations (
    derivation_id         TEXT PRIMARY KEY,
    namespace_id          TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    collection_id         TEXT NOT NULL REFERENCES collections (collection_id) ON DELETE CASCADE,
    batch_id              TEXT,
    tier                  INTEGER NOT NULL,
    input_kind            TEXT NOT NULL,
    input_id              TEXT NOT NULL,
    root_object_id        TEXT,
    input_hash            TEXT,
    extractor_id          TEXT NOT NULL,
    extractor_fingerprint TEXT,
    status                TEXT NOT NULL,
    attempts              INTEGER NOT NULL,
    -- How often the process died while running it.
    crashes               INTEGER NOT NULL,
    -- Microseconds since the Unix epoch: held by a worker until then, or not to be tried before then.
    lease_until           INTEGER NOT NULL,
    error                 TEXT,
    error_type            TEXT,
    outputs               INTEGER NOT NULL,
    reused                INTEGER NOT NULL,
    created_at            TEXT NOT NULL,
    started_at            TEXT,
    finished_at           TEXT,
    duration_ms           REAL,
    UNIQUE (collection_id, input_id)
);
CREATE INDEX derivations_queue ON derivations (lease_until, tier) WHERE status IN ('pending', 'running');
CREATE INDEX derivations_batch ON derivations (batch_id, status);
CREATE INDEX derivations_reuse ON derivations (input_hash, extractor_fingerprint) WHERE status = 'completed';
CREATE INDEX derivations_input ON derivations (input_id);
CREATE INDEX derivations_root ON derivations (root_object_id);

CREATE TABLE documents (
    seq                  INTEGER PRIMARY KEY AUTOINCREMENT,
    document_id          TEXT NOT NULL,
    namespace_id         TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    collection_id        TEXT NOT NULL REFERENCES collections (collection_id) ON DELETE CASCADE,
    root_object_id       TEXT,
    root_bucket_id       TEXT,
    source_type          TEXT,
    source_collection_id TEXT,
    source_document_id   TEXT,
    source_object_id     TEXT,
    lineage_path         TEXT,
    lineage_chain        TEXT NOT NULL,
    fields               TEXT NOT NULL,
    source_blobs         TEXT NOT NULL,
    document_blobs       TEXT NOT NULL,
    internal_metadata    TEXT NOT NULL,
    content_hash         TEXT,
    derivation_id        TEXT,
    ordinal              INTEGER NOT NULL,
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL,
    -- Ids may be the caller's own, so two namespaces may use the same.
    UNIQUE (namespace_id, document_id)
);
CREATE INDEX documents_collection ON documents (collection_id, seq);
CREATE INDEX documents_derivation ON documents (derivation_id) WHERE derivation_id IS NOT NULL;
CREATE INDEX documents_root ON documents (root_object_id) WHERE root_object_id IS NOT NULL;
CREATE INDEX documents_source ON documents (source_document_id) WHERE source_document_id IS NOT NULL;
-- The documents to look through when the last reference to a content is asked for.
CREATE INDEX documents_artifacts ON documents (seq) WHERE document_blobs <> '[]';

CREATE TABLE vectors (
    document_seq INTEGER NOT NULL REFERENCES documents (seq) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    -- dense: f32 little endian; multi and sparse: JSON.
    kind         TEXT NOT NULL,
    data         BLOB NOT NULL,
    PRIMARY KEY (document_seq, name)
) WITHOUT ROWID;

-- The newest change of each document, in the order in which the index must apply them. A deleted document leaves its
-- row here until the collection goes, so that reading from any sequence, 0 included, ends in the same index.
CREATE TABLE changes (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    collection_id TEXT NOT NULL,
    document_seq  INTEGER NOT NULL UNIQUE,
    deleted       INTEGER NOT NULL
);
CREATE INDEX changes_collection ON changes (collection_id, seq);

CREATE TABLE idempotency (
    scope      TEXT NOT NULL,
    key        TEXT NOT NULL,
    request    TEXT NOT NULL,
    response   TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE TABLE events (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    organization_id TEXT NOT NULL,
    namespace_id    TEXT,
    event_type      TEXT NOT NULL,
    payload         TEXT NOT NULL,
    created_at      TEXT NOT NULL
);
CREATE INDEX events_organization ON events (organization_id, seq);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
