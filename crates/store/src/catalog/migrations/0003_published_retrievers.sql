-- Retrievers that anybody may execute, under a name that is unique in the server.
CREATE TABLE published_retrievers (
    public_id       TEXT PRIMARY KEY,
    public_name     TEXT NOT NULL UNIQUE,
    retriever_id    TEXT NOT NULL UNIQUE REFERENCES retrievers (retriever_id) ON DELETE CASCADE,
    organization_id TEXT NOT NULL REFERENCES organizations (organization_id),
    namespace_id    TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    active          INTEGER NOT NULL,
    body            TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
);
CREATE INDEX published_retrievers_namespace ON published_retrievers (namespace_id, created_at, public_id);

-- The retriever that a key is for, if it is for one only; the key goes with it.
ALTER TABLE api_keys ADD COLUMN retriever_id TEXT REFERENCES retrievers (retriever_id) ON DELETE CASCADE;
CREATE INDEX api_keys_retriever ON api_keys (retriever_id) WHERE retriever_id IS NOT NULL;
-- A revoked key's name is free again, and each retriever has names of its own.
DROP INDEX api_keys_name;
CREATE UNIQUE INDEX api_keys_name ON api_keys (user_id, coalesce(retriever_id, ''), name) WHERE status = 'active';
