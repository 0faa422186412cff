-- What the extractor of a document knows it by, where the document's id is made of that.
ALTER TABLE documents ADD COLUMN derived_key TEXT;

-- Namespaces as they stood at a moment, kept as contents. The namespace may be gone.
CREATE TABLE snapshots (
    snapshot_id     TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    namespace_id    TEXT NOT NULL,
    namespace_name  TEXT NOT NULL,
    -- `snapshot`, or `transfer`: what a clone or a migration is made of, which goes with its end.
    purpose         TEXT NOT NULL,
    -- `pending`, `in_progress`, `completed` or `failed`.
    status          TEXT NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);
CREATE INDEX snapshots_namespace ON snapshots (organization_id, namespace_id, created_at);

-- The contents that a snapshot holds: its own parts, and what its objects and documents refer to.
CREATE TABLE snapshot_contents (
    snapshot_id TEXT NOT NULL REFERENCES snapshots (snapshot_id) ON DELETE CASCADE,
    hash        TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    -- Whether it is a part or the manifest.
    own         INTEGER NOT NULL,
    PRIMARY KEY (snapshot_id, hash)
) WITHOUT ROWID;
CREATE INDEX snapshot_contents_by_hash ON snapshot_contents (hash);

-- Work that takes a snapshot, or makes a namespace of one.
CREATE TABLE transfers (
    transfer_id         TEXT PRIMARY KEY,
    organization_id     TEXT NOT NULL,
    -- `clone`, `snapshot`, `restore` or `migration`.
    kind                TEXT NOT NULL,
    source_namespace_id TEXT NOT NULL,
    target_namespace_id TEXT,
    snapshot_id         TEXT NOT NULL,
    task_id             TEXT NOT NULL,
    -- `draft`, `pending`, `running`, `completed`, `failed` or `canceled`.
    status              TEXT NOT NULL,
    -- How often it was begun.
    attempts            INTEGER NOT NULL,
    body                TEXT NOT NULL,
    created_at          TEXT NOT NULL,
    updated_at          TEXT NOT NULL
);
CREATE INDEX transfers_due ON transfers (created_at) WHERE status IN ('pending', 'running');
CREATE INDEX transfers_snapshot ON transfers (snapshot_id);
CREATE INDEX transfers_organization ON transfers (organization_id, kind, created_at);

-- What is called how in the namespace that a transfer makes; only while it runs.
CREATE TABLE transfer_ids (
    transfer_id TEXT NOT NULL REFERENCES transfers (transfer_id) ON DELETE CASCADE,
    old_id      TEXT NOT NULL,
    new_id      TEXT NOT NULL,
    PRIMARY KEY (transfer_id, old_id)
) WITHOUT ROWID;
