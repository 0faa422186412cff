-- The fields that a namespace declares, one row for each of its collections.
CREATE TABLE payload_indexes (
    index_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    collection_id TEXT NOT NULL REFERENCES collections (collection_id) ON DELETE CASCADE,
    field         TEXT NOT NULL,
    -- Documents up to here have their entries; those written after the row was made always have them.
    built_to      INTEGER NOT NULL,
    -- Whether every document has its entries: only then may anything be read from them.
    complete      INTEGER NOT NULL,
    -- Whether some document has several values in the field.
    arrays        INTEGER NOT NULL,
    UNIQUE (collection_id, field)
);

-- The values of such a field in the documented order. `rank`: 0 number, 1 text, 2 boolean, 3 array or object as JSON,
-- 4 null or missing, where `value` is 0.
CREATE TABLE payload_entries (
    index_id     INTEGER NOT NULL REFERENCES payload_indexes (index_id) ON DELETE CASCADE,
    rank         INTEGER NOT NULL,
    value        ANY NOT NULL,
    document_seq INTEGER NOT NULL,
    -- Whether the document stands here in the order by this field; otherwise it is one of several values.
    sorts        INTEGER NOT NULL,
    PRIMARY KEY (index_id, rank, value, document_seq)
) STRICT, WITHOUT ROWID;

-- How many documents a collection has, so that nobody counts a million rows to know.
CREATE TABLE document_counts (
    collection_id TEXT PRIMARY KEY REFERENCES collections (collection_id) ON DELETE CASCADE,
    documents     INTEGER NOT NULL
);
INSERT INTO document_counts SELECT collection_id, count(*) FROM documents GROUP BY collection_id;

-- What was declared before; the entries are made behind.
INSERT OR IGNORE INTO payload_indexes (collection_id, field, built_to, complete, arrays)
SELECT c.collection_id, json_extract(i.value, '$.field_name'), 0, 0, 0
FROM namespaces n JOIN collections c ON c.namespace_id = n.namespace_id, json_each(n.body, '$.payload_indexes') i
WHERE json_extract(i.value, '$.type') NOT IN ('text', 'geo') AND json_extract(i.value, '$.field_name') NOT IN (
    'document_id', 'collection_id', 'root_object_id', 'root_bucket_id', 'source_type', 'source_collection_id',
    'source_document_id', 'source_object_id', 'lineage_path', 'created_at', 'updated_at');
