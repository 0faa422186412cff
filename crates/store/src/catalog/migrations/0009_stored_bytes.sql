-- How many bytes the blobs of a bucket's objects have together. Content that two objects share counts twice.
CREATE TABLE stored_bytes (
    bucket_id TEXT PRIMARY KEY REFERENCES buckets (bucket_id) ON DELETE CASCADE,
    bytes     INTEGER NOT NULL
);
INSERT INTO stored_bytes (bucket_id, bytes)
SELECT o.bucket_id, sum(b.size_bytes)
FROM object_blobs r JOIN objects o ON o.object_id = r.object_id JOIN blobs b ON b.hash = r.hash
GROUP BY o.bucket_id;

CREATE TRIGGER object_blobs_added AFTER INSERT ON object_blobs
BEGIN
    INSERT INTO stored_bytes (bucket_id, bytes)
    SELECT o.bucket_id, b.size_bytes FROM objects o, blobs b WHERE o.object_id = NEW.object_id AND b.hash = NEW.hash
    ON CONFLICT (bucket_id) DO UPDATE SET bytes = bytes + excluded.bytes;
END;

-- Where the object goes too, its row is gone already and this finds nothing: `objects_removed` has counted.
CREATE TRIGGER object_blobs_removed AFTER DELETE ON object_blobs
BEGIN
    UPDATE stored_bytes SET bytes = bytes - (SELECT size_bytes FROM blobs WHERE hash = OLD.hash)
    WHERE bucket_id = (SELECT bucket_id FROM objects WHERE object_id = OLD.object_id);
END;

CREATE TRIGGER objects_removed BEFORE DELETE ON objects
BEGIN
    UPDATE stored_bytes
    SET bytes = bytes - (
        SELECT coalesce(sum(b.size_bytes), 0) FROM object_blobs r JOIN blobs b ON b.hash = r.hash
        WHERE r.object_id = OLD.object_id
    )
    WHERE bucket_id = OLD.bucket_id;
END;
