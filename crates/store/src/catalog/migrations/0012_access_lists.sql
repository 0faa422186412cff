-- Who reads a document that has an access list and is not public: a JSON array of principals. NULL: everybody.
ALTER TABLE documents ADD COLUMN readers TEXT;
CREATE INDEX documents_restricted ON documents (namespace_id, collection_id) WHERE readers IS NOT NULL;

UPDATE documents SET readers = (
    SELECT json_group_array(name) FROM (
        SELECT r.value AS name FROM json_each(documents.internal_metadata, '$._acl.read') r
        WHERE r.type = 'text' AND json_type(documents.internal_metadata, '$._acl.read') = 'array'
        UNION
        SELECT w.value FROM json_each(documents.internal_metadata, '$._acl.write') w
        WHERE w.type = 'text' AND json_type(documents.internal_metadata, '$._acl.write') = 'array'
    )
)
WHERE instr(internal_metadata, '"_acl"') > 0
  AND (json_type(internal_metadata, '$._acl.read') <> 'null' OR json_type(internal_metadata, '$._acl.write') <> 'null'
       OR json_type(internal_metadata, '$._acl.public') <> 'null')
  AND json_type(internal_metadata, '$._acl.public') IS NOT 'true';
