-- Extractors that run in other processes. The name is `{name}_{version}`; the body has the endpoint and what it says of
-- itself.
CREATE TABLE extractors (
    extractor_id TEXT PRIMARY KEY,
    namespace_id TEXT NOT NULL REFERENCES namespaces (namespace_id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    body         TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL,
    UNIQUE (namespace_id, name)
);
