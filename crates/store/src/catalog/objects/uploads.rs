//! Rows of uploads: a promise of bytes, the bytes once they came, and the object made of them.

use super::{rows, run, text};
use crate::catalog::{
    documents::from_json_column,
    filter::{Clause, compile, order_by},
    from_sql,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter, types::Value as SqlValue};
use strata_model::{Error, Fields, Result, Scope};

/// A stored upload.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    pub upload_id: String,
    pub bucket_id: String,
    /// `PENDING`, `PROCESSING`, `COMPLETED`, `FAILED` or `CANCELED`.
    pub status: String,
    /// SHA-256 the caller promised, or the one of the bytes that came.
    pub file_hash: Option<String>,
    /// The stored bytes; `None` before they came and after they went.
    pub blob_hash: Option<String>,
    pub object_id: Option<String>,
    /// What the API shows beside the columns: `filename`, `content_type`, `expires_at` …
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

const COLUMNS: &str = "upload_id, bucket_id, status, file_hash, blob_hash, object_id, body, created_at, updated_at";
/// The columns that filters may name; the rest is found in the body.
const FILTER_COLUMNS: &[&str] =
    &["upload_id", "bucket_id", "status", "file_hash", "object_id", "created_at", "updated_at"];
/// Filters and sorts read a column called `fields`.
const FROM: &str = "FROM (SELECT *, body AS fields FROM uploads)";

fn upload(row: &Row<'_>) -> rusqlite::Result<Upload> {
    Ok(Upload {
        upload_id: row.get(0)?,
        bucket_id: row.get(1)?,
        status: row.get(2)?,
        file_hash: row.get(3)?,
        blob_hash: row.get(4)?,
        object_id: row.get(5)?,
        body: from_json_column(row, 6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

/// Writes an upload whole.
pub fn put(tx: &Transaction<'_>, scope: &Scope, u: &Upload) -> Result<()> {
    run(
        tx,
        "INSERT INTO uploads (upload_id, namespace_id, bucket_id, status, file_hash, blob_hash, object_id, body, created_at,
         updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (upload_id) DO UPDATE SET
         status = excluded.status, file_hash = excluded.file_hash, blob_hash = excluded.blob_hash,
         object_id = excluded.object_id, body = excluded.body, updated_at = excluded.updated_at",
        params![
            u.upload_id,
            scope.namespace_id,
            u.bucket_id,
            u.status,
            u.file_hash,
            u.blob_hash,
            u.object_id,
            text(&u.body)?,
            u.created_at,
            u.updated_at,
        ],
    )
    .map(drop)
}

/// An upload of the scope; of one bucket, if that is given.
pub fn get(connection: &Connection, scope: &Scope, bucket_id: Option<&str>, upload_id: &str) -> Result<Upload> {
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads WHERE upload_id = ?1 AND namespace_id = ?2 AND (?3 IS NULL OR bucket_id = ?3)"
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(params![upload_id, scope.namespace_id, bucket_id], upload).optional())
        .map_err(from_sql)?
        .ok_or_else(|| Error::missing("upload", upload_id))
}

/// The scope and the row of an upload that a signed URL names.
pub fn by_signature(connection: &Connection, upload_id: &str) -> Result<(Scope, Upload)> {
    let sql =
        "SELECT n.namespace_id, n.organization_id FROM uploads u JOIN namespaces n ON n.namespace_id = u.namespace_id
         WHERE u.upload_id = ?1";
    let scope = connection
        .prepare_cached(sql)
        .and_then(|mut s| {
            let scope = |r: &Row<'_>| Ok(Scope::whole(r.get::<_, String>(1)?, r.get::<_, String>(0)?));
            s.query_row([upload_id], scope).optional()
        })
        .map_err(from_sql)?
        .ok_or_else(|| Error::missing("upload", upload_id))?;
    let found = get(connection, &scope, None, upload_id)?;
    Ok((scope, found))
}

/// A finished upload of the bucket whose stored bytes have this hash.
pub fn by_hash(connection: &Connection, bucket_id: &str, file_hash: &str) -> Result<Option<Upload>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM uploads WHERE blob_hash = ?2 AND bucket_id = ?1 AND status = 'COMPLETED' ORDER BY created_at LIMIT 1"
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row([bucket_id, file_hash], upload).optional())
        .map_err(from_sql)
}

fn within(scope: &Scope, bucket_id: &str, selection: &super::Selection) -> Clause {
    let mut sql = "namespace_id = ? AND bucket_id = ?".to_owned();
    let mut values = vec![SqlValue::Text(scope.namespace_id.clone()), SqlValue::Text(bucket_id.to_owned())];
    if let Some(search) = selection.search.as_deref().filter(|s| !s.is_empty()) {
        sql.push_str(" AND (upload_id = ? OR instr(lower(json_extract(body, '$.filename')), lower(?)) > 0)");
        values.extend([search, search].map(|s| SqlValue::Text(s.to_owned())));
    }
    let mut clause = compile(&selection.filter, FILTER_COLUMNS);
    values.append(&mut clause.values);
    Clause { sql: format!("{sql} AND {}", clause.sql), values }
}

/// Uploads of a bucket.
pub fn list(
    connection: &Connection,
    scope: &Scope,
    bucket_id: &str,
    selection: &super::Selection,
    page: &super::Page,
) -> Result<Vec<Upload>> {
    let mut clause = within(scope, bucket_id, selection);
    if let Some((created_at, upload_id)) = &page.after {
        clause.sql.push_str(" AND (created_at, upload_id) > (?, ?)");
        clause.values.extend([SqlValue::Text(created_at.clone()), SqlValue::Text(upload_id.clone())]);
    }
    let order = match &page.sort {
        None => Clause { sql: "created_at, upload_id".into(), values: Vec::new() },
        Some((field, descending)) => order_by(field, *descending, FILTER_COLUMNS, "upload_id"),
    };
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE {} ORDER BY {} LIMIT ? OFFSET ?", clause.sql, order.sql);
    clause.values.extend(order.values);
    clause.values.extend([SqlValue::from(page.limit as i64), SqlValue::from(page.offset as i64)]);
    rows(connection, &sql, &clause.values, upload)
}

/// How many uploads of a bucket are selected.
pub fn count(connection: &Connection, scope: &Scope, bucket_id: &str, selection: &super::Selection) -> Result<u64> {
    let clause = within(scope, bucket_id, selection);
    let sql = format!("SELECT count(*) {FROM} WHERE {}", clause.sql);
    let count: i64 = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(params_from_iter(clause.values), |r| r.get(0)))
        .map_err(from_sql)?;
    Ok(count.unsigned_abs())
}

/// Uploads of a bucket and their bytes, by status.
pub fn by_status(connection: &Connection, scope: &Scope, bucket_id: &str) -> Result<Vec<(String, u64, u64)>> {
    let sql = "SELECT status, count(*), coalesce(sum(json_extract(body, '$.file_size_bytes')), 0) FROM uploads
         WHERE bucket_id = ? AND namespace_id = ? GROUP BY status ORDER BY status";
    rows(connection, sql, &[bucket_id, &scope.namespace_id], |r| {
        Ok((r.get(0)?, r.get::<_, i64>(1)?.unsigned_abs(), r.get::<_, i64>(2)?.unsigned_abs()))
    })
}

/// Removes an upload; answers the hash its bytes had.
pub fn delete(tx: &Transaction<'_>, scope: &Scope, bucket_id: &str, upload_id: &str) -> Result<Option<String>> {
    let sql = "DELETE FROM uploads WHERE upload_id = ?1 AND bucket_id = ?2 AND namespace_id = ?3 RETURNING blob_hash";
    tx.prepare_cached(sql)
        .and_then(|mut s| s.query_row([upload_id, bucket_id, &scope.namespace_id], |r| r.get(0)).optional())
        .map_err(from_sql)?
        .ok_or_else(|| Error::missing("upload", upload_id))
}

/// Ends uploads that were never confirmed and whose time is over; answers the hashes of bytes they held.
pub fn expire(tx: &Transaction<'_>, now: &str) -> Result<Vec<String>> {
    let condition = "status = 'PENDING' AND json_extract(body, '$.expires_at') < ?1";
    let held: Vec<String> =
        rows(tx, &format!("SELECT blob_hash FROM uploads WHERE {condition} AND blob_hash IS NOT NULL"), &[now], |r| {
            r.get(0)
        })?;
    let sql = format!("UPDATE uploads SET status = 'CANCELED', blob_hash = NULL, updated_at = ?1 WHERE {condition}");
    run(tx, &sql, [now])?;
    Ok(held)
}
