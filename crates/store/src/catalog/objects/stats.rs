//! Counts and sums over a bucket's objects, blobs and batches, and what its schema is used for.

use super::rows;
use crate::catalog::{documents::json, filter::Clause, from_sql, lineage};
use rusqlite::{Connection, params};
use strata_model::{Result, Scope};

/// What a bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BucketStats {
    pub objects: u64,
    pub failed_objects: u64,
    pub blobs: u64,
    pub total_size_bytes: u64,
    pub min_size_bytes: u64,
    pub max_size_bytes: u64,
    /// When the newest object came.
    pub last_upload_at: Option<String>,
    pub batches: BatchStats,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchStats {
    pub total: u64,
    pub active: u64,
    pub completed: u64,
    pub failed: u64,
}

fn number(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(i64::unsigned_abs)
}

/// Counts and sizes of one bucket.
pub fn of_bucket(connection: &Connection, bucket_id: &str) -> Result<BucketStats> {
    let mut stats = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(status = 'FAILED'), 0), max(created_at) FROM objects
             WHERE bucket_id = ?1 AND json_extract(body, '$.soft_deleted_at') IS NULL",
        )
        .and_then(|mut s| {
            s.query_row([bucket_id], |r| {
                Ok(BucketStats {
                    objects: number(r, 0)?,
                    failed_objects: number(r, 1)?,
                    last_upload_at: r.get(2)?,
                    ..BucketStats::default()
                })
            })
        })
        .map_err(from_sql)?;
    connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(b.size_bytes), 0), coalesce(min(b.size_bytes), 0), coalesce(max(b.size_bytes), 0)
             FROM objects o JOIN object_blobs ob ON ob.object_id = o.object_id JOIN blobs b ON b.hash = ob.hash
             WHERE o.bucket_id = ?1",
        )
        .and_then(|mut s| {
            s.query_row([bucket_id], |r| {
                stats.blobs = number(r, 0)?;
                stats.total_size_bytes = number(r, 1)?;
                stats.min_size_bytes = number(r, 2)?;
                stats.max_size_bytes = number(r, 3)?;
                Ok(())
            })
        })
        .map_err(from_sql)?;
    stats.batches = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(status NOT IN ('DRAFT', 'COMPLETED', 'COMPLETED_WITH_ERRORS', 'FAILED', 'CANCELED')), 0),
             coalesce(sum(status IN ('COMPLETED', 'COMPLETED_WITH_ERRORS')), 0), coalesce(sum(status = 'FAILED'), 0)
             FROM batches WHERE bucket_id = ?1",
        )
        .and_then(|mut s| {
            s.query_row([bucket_id], |r| {
                Ok(BatchStats { total: number(r, 0)?, active: number(r, 1)?, completed: number(r, 2)?, failed: number(r, 3)? })
            })
        })
        .map_err(from_sql)?;
    Ok(stats)
}

/// How many objects several buckets hold together, and the bytes of their blobs.
pub fn of_buckets(connection: &Connection, bucket_ids: &[String]) -> Result<(u64, u64)> {
    let sql = "WITH ids AS (SELECT value AS bucket_id FROM json_each(?1)) SELECT
         (SELECT count(*) FROM objects WHERE bucket_id IN (SELECT bucket_id FROM ids)
            AND json_extract(body, '$.soft_deleted_at') IS NULL),
         (SELECT coalesce(sum(b.size_bytes), 0)
            FROM objects o JOIN object_blobs ob ON ob.object_id = o.object_id JOIN blobs b ON b.hash = ob.hash
            WHERE o.bucket_id IN (SELECT bucket_id FROM ids))";
    let ids = json(&bucket_ids)?;
    connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([ids], |r| Ok((number(r, 0)?, number(r, 1)?))))
        .map_err(from_sql)
}

/// Objects of a bucket by status.
pub fn by_status(connection: &Connection, bucket_id: &str) -> Result<Vec<(String, u64)>> {
    let sql =
        "SELECT status, count(*) FROM objects WHERE bucket_id = ? AND json_extract(body, '$.soft_deleted_at') IS NULL
         GROUP BY status ORDER BY status";
    rows(connection, sql, &[bucket_id], |r| Ok((r.get(0)?, number(r, 1)?)))
}

/// How many documents descend from an object that are there for the scope's reader.
pub fn documents_of(connection: &Connection, scope: &Scope, object_id: &str) -> Result<u64> {
    let Clause { sql, values } = lineage::of_object(scope, object_id);
    let found = rows(connection, &format!("SELECT count(*) FROM documents WHERE {sql}"), &values, |r| number(r, 0))?;
    Ok(found.first().copied().unwrap_or(0))
}

/// Whether any object of the bucket has (`present`) or lacks the property, as a field or as a blob.
fn any_object(connection: &Connection, bucket_id: &str, property: &str, present: bool) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM objects WHERE bucket_id = ?1 AND ?3 = (
         EXISTS (SELECT 1 FROM json_each(fields) f WHERE f.key = ?2 AND f.type <> 'null')
         OR EXISTS (SELECT 1 FROM json_each(blobs) b WHERE json_extract(b.value, '$.property') = ?2)))";
    connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row(params![bucket_id, property, present], |r| r.get(0)))
        .map_err(from_sql)
}

/// Whether any object of the bucket has a value or a blob under this name.
pub fn uses_property(connection: &Connection, bucket_id: &str, property: &str) -> Result<bool> {
    any_object(connection, bucket_id, property, true)
}

/// Whether any object of the bucket has neither a value nor a blob under this name.
pub fn lacks_property(connection: &Connection, bucket_id: &str, property: &str) -> Result<bool> {
    any_object(connection, bucket_id, property, false)
}

/// Whether derivations over the bucket's objects wait or run.
pub fn is_processing(connection: &Connection, bucket_id: &str) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM derivations d JOIN objects o ON o.object_id = d.root_object_id
         WHERE o.bucket_id = ?1 AND d.status IN ('pending', 'running'))";
    connection.prepare_cached(sql).and_then(|mut s| s.query_row([bucket_id], |r| r.get(0))).map_err(from_sql)
}
