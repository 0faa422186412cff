-- Which stored contents the artifacts of a document are, so that whether a content is used is one look-up.
CREATE TABLE document_artifacts (
    document_seq INTEGER NOT NULL REFERENCES documents (seq) ON DELETE CASCADE,
    hash         TEXT NOT NULL,
    PRIMARY KEY (document_seq, hash)
) WITHOUT ROWID;

CREATE INDEX document_artifacts_by_hash ON document_artifacts (hash);

INSERT INTO document_artifacts (document_seq, hash)
SELECT DISTINCT d.seq, json_extract(b.value, '$.hash')
FROM documents d, json_each(d.document_blobs) b
WHERE d.document_blobs <> '[]' AND json_extract(b.value, '$.hash') IS NOT NULL;
