-- What users did with what retrievers found.
CREATE TABLE interactions (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    interaction_id TEXT NOT NULL UNIQUE,
    namespace_id   TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    retriever_id   TEXT,
    execution_id   TEXT,
    session_id     TEXT,
    user_id        TEXT,
    -- The document.
    feature_id     TEXT NOT NULL,
    -- The types of the interaction, sorted, with commas between.
    types          TEXT NOT NULL,
    -- When it happened; `timestamp` says when it was reported.
    occurred_at    TEXT NOT NULL,
    timestamp      TEXT NOT NULL,
    -- The interaction as answers show it.
    fields         TEXT NOT NULL,
    -- What was remembered of the execution: inputs, and the document's place in each search. NULL: nothing.
    traced         TEXT
);
CREATE INDEX interactions_namespace ON interactions (namespace_id, seq);
CREATE INDEX interactions_retriever ON interactions (namespace_id, retriever_id, seq) WHERE retriever_id IS NOT NULL;
CREATE INDEX interactions_execution ON interactions (namespace_id, execution_id) WHERE execution_id IS NOT NULL;
CREATE INDEX interactions_session ON interactions (namespace_id, session_id) WHERE session_id IS NOT NULL;
CREATE INDEX interactions_user ON interactions (namespace_id, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX interactions_feature ON interactions (namespace_id, feature_id);

-- Judgments of documents. `fields` holds label, confidence, reasoning, payload, metadata and what never changes.
CREATE TABLE annotations (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    annotation_id TEXT NOT NULL UNIQUE,
    namespace_id  TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    document_id   TEXT NOT NULL,
    collection_id TEXT,
    label         TEXT NOT NULL,
    actor_id      TEXT NOT NULL,
    retriever_id  TEXT,
    version       INTEGER NOT NULL,
    fields        TEXT NOT NULL,
    created_at    TEXT NOT NULL,
    updated_at    TEXT NOT NULL
);
CREATE INDEX annotations_namespace ON annotations (namespace_id, seq);
CREATE INDEX annotations_document ON annotations (namespace_id, document_id);
CREATE INDEX annotations_label ON annotations (namespace_id, label);

-- The version that an edit replaced: what the changed fields held before.
CREATE TABLE annotation_revisions (
    annotation_id  TEXT NOT NULL REFERENCES annotations (annotation_id) ON DELETE CASCADE,
    version        INTEGER NOT NULL,
    prior          TEXT NOT NULL,
    edited_at      TEXT NOT NULL,
    edited_by      TEXT NOT NULL,
    edited_by_type TEXT NOT NULL,
    PRIMARY KEY (annotation_id, version)
) WITHOUT ROWID;

-- Queries with the documents that are relevant to them.
CREATE TABLE evaluation_datasets (
    dataset_id   TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    UNIQUE (namespace_id, name)
);

-- Evaluations and benchmarks: measurements of retrievers that run behind.
CREATE TABLE experiments (
    experiment_id   TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    namespace_id    TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    -- `evaluation` or `benchmark`.
    kind            TEXT NOT NULL,
    -- Of an evaluation; of a benchmark its baseline.
    retriever_id    TEXT NOT NULL,
    -- `pending`, the phases of the kind, `completed`, `failed`.
    status          TEXT NOT NULL,
    task_id         TEXT,
    -- How often it was begun.
    attempts        INTEGER NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);
CREATE INDEX experiments_namespace ON experiments (namespace_id, kind, created_at);
CREATE INDEX experiments_due ON experiments (created_at) WHERE status NOT IN ('completed', 'failed');
