//! Rows of objects and their blobs. Uploads and removals are in the modules below.

pub mod removal;
pub mod stats;
pub mod uploads;

use super::{
    documents::from_json_column,
    filter::{Clause, OBJECT_COLUMNS, compile, order_by},
    from_sql,
    webhooks::{self, Event},
};
use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, Transaction, params, params_from_iter, types::Value as SqlValue,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use strata_model::{Error, Fields, Result, Scope, filter::Filter, schema::FieldType};

/// A stored object.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub object_id: String,
    pub bucket_id: String,
    pub key_prefix: Option<String>,
    /// A task status of the API: `DRAFT` until something processes it.
    pub status: String,
    pub error: Option<String>,
    /// SHA-256 over fields and blobs.
    pub content_hash: String,
    /// The values of the bucket's unique key, as JSON.
    pub unique_key: Option<String>,
    pub idempotency_key: Option<String>,
    /// Schema fields and other keys of the object's root, `metadata` included.
    pub fields: Fields,
    pub blobs: Vec<ObjectBlob>,
    /// What is neither content nor column: `edges`, `soft_deleted_at` …
    pub body: Fields,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub updated_at: String,
}

/// One blob of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectBlob {
    pub blob_id: String,
    /// The schema field it belongs to.
    pub property: String,
    #[serde(rename = "type")]
    pub blob_type: FieldType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// SHA-256 of the bytes, in hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// The caller's own description of the blob.
    #[serde(default)]
    pub metadata: Fields,
}

const COLUMNS: &str = "object_id, bucket_id, key_prefix, status, error, content_hash, unique_key, idempotency_key, fields, \
     blobs, body, created_at, updated_at";

/// The name under which the moment of a soft delete is kept in an object's body.
pub const SOFT_DELETED: &str = "soft_deleted_at";

/// Which objects of a bucket.
#[derive(Debug, Clone)]
pub struct Selection {
    pub filter: Filter,
    /// Text that the id, the key prefix or any field contains, case folded.
    pub search: Option<String>,
}

impl Selection {
    pub fn all() -> Self {
        Self { filter: Filter::all(), search: None }
    }
}

/// How a list of objects is cut.
#[derive(Debug, Clone)]
pub struct Page {
    pub limit: usize,
    pub offset: usize,
    /// `created_at` and id of the last object of the page before; used with the default order.
    pub after: Option<(String, String)>,
    /// Field and whether descending; `None` is creation order.
    pub sort: Option<(String, bool)>,
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

fn run(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: &[impl ToSql],
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(params_from_iter(values), read).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// Names stored bytes, once.
pub fn put_blob(tx: &Transaction<'_>, hash: &str, size_bytes: u64, media_type: &str, now: &str) -> Result<()> {
    run(
        tx,
        "INSERT INTO blobs (hash, size_bytes, media_type, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![hash, size_bytes as i64, media_type, now],
    )
    .map(drop)
}

/// Adds an object, its blobs' rows and the references between them.
pub fn insert(tx: &Transaction<'_>, scope: &Scope, o: &Object) -> Result<()> {
    run(
        tx,
        "INSERT INTO objects (object_id, namespace_id, bucket_id, key_prefix, status, error, content_hash, unique_key,
         idempotency_key, fields, blobs, body, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            o.object_id,
            scope.namespace_id,
            o.bucket_id,
            o.key_prefix,
            o.status,
            o.error,
            o.content_hash,
            o.unique_key,
            o.idempotency_key,
            text(&o.fields)?,
            text(&o.blobs)?,
            text(&o.body)?,
            o.created_at,
            o.updated_at,
        ],
    )?;
    refer(tx, o)?;
    tell(tx, "object.created", scope, &o.object_id, &o.bucket_id)
}

/// Tells whoever wants it what became of an object.
fn tell(tx: &Transaction<'_>, event_type: &'static str, scope: &Scope, object_id: &str, bucket_id: &str) -> Result<()> {
    webhooks::queue(
        tx,
        &Event::new(event_type, &scope.namespace_id),
        || json!({ "object_id": object_id, "bucket_id": bucket_id }),
    )
}

/// Writes everything but identity and `created_at`. Answers the hashes that the object no longer refers to.
pub fn update(tx: &Transaction<'_>, scope: &Scope, o: &Object) -> Result<Vec<String>> {
    let changed = run(
        tx,
        "UPDATE objects SET key_prefix = ?4, status = ?5, error = ?6, content_hash = ?7, unique_key = ?8, fields = ?9,
         blobs = ?10, body = ?11, updated_at = ?12 WHERE object_id = ?1 AND bucket_id = ?2 AND namespace_id = ?3",
        params![
            o.object_id,
            o.bucket_id,
            scope.namespace_id,
            o.key_prefix,
            o.status,
            o.error,
            o.content_hash,
            o.unique_key,
            text(&o.fields)?,
            text(&o.blobs)?,
            text(&o.body)?,
            o.updated_at,
        ],
    )?;
    if changed == 0 {
        return Err(Error::missing("object", &o.object_id));
    }
    let before: Vec<String> =
        rows(tx, "SELECT DISTINCT hash FROM object_blobs WHERE object_id = ?", &[&o.object_id], |r| r.get(0))?;
    run(tx, "DELETE FROM object_blobs WHERE object_id = ?1", [&o.object_id])?;
    refer(tx, o)?;
    tell(tx, "object.updated", scope, &o.object_id, &o.bucket_id)?;
    Ok(before.into_iter().filter(|hash| o.blobs.iter().all(|b| b.hash != *hash)).collect())
}

fn refer(tx: &Transaction<'_>, o: &Object) -> Result<()> {
    for blob in &o.blobs {
        put_blob(tx, &blob.hash, blob.size_bytes, &blob.media_type, &o.updated_at)?;
        run(
            tx,
            "INSERT INTO object_blobs (object_id, blob_id, hash) VALUES (?1, ?2, ?3)",
            params![o.object_id, blob.blob_id, blob.hash],
        )?;
    }
    Ok(())
}

fn object(row: &Row<'_>) -> rusqlite::Result<Object> {
    Ok(Object {
        object_id: row.get(0)?,
        bucket_id: row.get(1)?,
        key_prefix: row.get(2)?,
        status: row.get(3)?,
        error: row.get(4)?,
        content_hash: row.get(5)?,
        unique_key: row.get(6)?,
        idempotency_key: row.get(7)?,
        fields: from_json_column(row, 8)?,
        blobs: from_json_column(row, 9)?,
        body: from_json_column(row, 10)?,
        created_at: row.get(11)?,
        updated_at: row.get(12)?,
    })
}

fn one(connection: &Connection, condition: &str, values: &[&str]) -> Result<Option<Object>> {
    let sql = format!("SELECT {COLUMNS} FROM objects WHERE {condition} LIMIT 1");
    connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(params_from_iter(values), object).optional())
        .map_err(from_sql)
}

/// An object of the scope; of one bucket, if that is given.
pub fn get(connection: &Connection, scope: &Scope, bucket_id: Option<&str>, object_id: &str) -> Result<Object> {
    let found = one(connection, "object_id = ?1 AND namespace_id = ?2", &[object_id, &scope.namespace_id])?;
    found.filter(|o| bucket_id.is_none_or(|id| id == o.bucket_id)).ok_or_else(|| Error::missing("object", object_id))
}

/// The oldest object of the bucket with this content that is not soft-deleted.
pub fn by_content(connection: &Connection, bucket_id: &str, content_hash: &str) -> Result<Option<Object>> {
    let condition =
        "bucket_id = ?1 AND content_hash = ?2 AND json_extract(body, '$.soft_deleted_at') IS NULL ORDER BY created_at";
    one(connection, condition, &[bucket_id, content_hash])
}

pub fn by_unique_key(connection: &Connection, bucket_id: &str, unique_key: &str) -> Result<Option<Object>> {
    one(connection, "bucket_id = ?1 AND unique_key = ?2", &[bucket_id, unique_key])
}

pub fn by_idempotency_key(connection: &Connection, bucket_id: &str, key: &str) -> Result<Option<Object>> {
    one(connection, "bucket_id = ?1 AND idempotency_key = ?2", &[bucket_id, key])
}

/// Gives every object of the bucket the unique key that `key_of` reads from it. Two objects with the same one are a
/// conflict that names the second.
pub fn rekey(tx: &Transaction<'_>, bucket_id: &str, key_of: impl Fn(&Fields) -> Option<String>) -> Result<()> {
    run(tx, "UPDATE objects SET unique_key = NULL WHERE bucket_id = ?1", [bucket_id])?;
    let all: Vec<(String, Fields)> = rows(
        tx,
        "SELECT object_id, fields FROM objects WHERE bucket_id = ? ORDER BY created_at, object_id",
        &[bucket_id],
        |r| Ok((r.get(0)?, from_json_column(r, 1)?)),
    )?;
    for (id, fields) in all {
        let Some(key) = key_of(&fields) else { continue };
        if let Some(other) = by_unique_key(tx, bucket_id, &key)? {
            return Err(Error::Conflict(format!(
                "objects `{}` and `{id}` both have the unique key {key}: change or delete one of them first",
                other.object_id
            )));
        }
        run(tx, "UPDATE objects SET unique_key = ?2 WHERE object_id = ?1", [&id, &key])?;
    }
    Ok(())
}

fn within(scope: &Scope, bucket_id: &str, selection: &Selection) -> Clause {
    let mut sql = "namespace_id = ? AND bucket_id = ?".to_owned();
    let mut values = vec![SqlValue::Text(scope.namespace_id.clone()), SqlValue::Text(bucket_id.to_owned())];
    // Soft-deleted objects show themselves only to a filter that asks for their state.
    if !selection.filter.fields().contains(&"lifecycle_state") {
        sql.push_str(" AND json_extract(body, '$.soft_deleted_at') IS NULL");
    }
    if let Some(search) = selection.search.as_deref().filter(|s| !s.is_empty()) {
        sql.push_str(
            " AND (object_id = ? OR instr(lower(coalesce(key_prefix, '')), lower(?)) > 0
             OR EXISTS (SELECT 1 FROM json_tree(fields) WHERE type = 'text' AND instr(lower(value), lower(?)) > 0))",
        );
        values.extend([search, search, search].map(|s| SqlValue::Text(s.to_owned())));
    }
    let mut clause = compile(&selection.filter, OBJECT_COLUMNS);
    values.append(&mut clause.values);
    Clause { sql: format!("{sql} AND {}", clause.sql), values }
}

/// Objects of a bucket.
pub fn list(
    connection: &Connection,
    scope: &Scope,
    bucket_id: &str,
    selection: &Selection,
    page: &Page,
) -> Result<Vec<Object>> {
    let mut clause = within(scope, bucket_id, selection);
    if let Some((created_at, object_id)) = &page.after {
        clause.sql.push_str(" AND (created_at, object_id) > (?, ?)");
        clause.values.extend([SqlValue::Text(created_at.clone()), SqlValue::Text(object_id.clone())]);
    }
    let order = match &page.sort {
        None => Clause { sql: "created_at, object_id".into(), values: Vec::new() },
        Some((field, descending)) => order_by(field, *descending, OBJECT_COLUMNS, "object_id"),
    };
    let sql = format!("SELECT {COLUMNS} FROM objects WHERE {} ORDER BY {} LIMIT ? OFFSET ?", clause.sql, order.sql);
    clause.values.extend(order.values);
    clause.values.extend([SqlValue::from(page.limit as i64), SqlValue::from(page.offset as i64)]);
    rows(connection, &sql, &clause.values, object)
}

/// How many objects of a bucket are selected.
pub fn count(connection: &Connection, scope: &Scope, bucket_id: &str, selection: &Selection) -> Result<u64> {
    let clause = within(scope, bucket_id, selection);
    let sql = format!("SELECT count(*) FROM objects WHERE {}", clause.sql);
    let count: i64 = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(params_from_iter(clause.values), |r| r.get(0)))
        .map_err(from_sql)?;
    Ok(count.unsigned_abs())
}

/// Hands every selected object of a bucket to `visit`, oldest first, one at a time.
pub fn each(
    connection: &Connection,
    scope: &Scope,
    bucket_id: &str,
    selection: &Selection,
    mut visit: impl FnMut(Object) -> Result<()>,
) -> Result<()> {
    let clause = within(scope, bucket_id, selection);
    let sql = format!("SELECT {COLUMNS} FROM objects WHERE {} ORDER BY created_at, object_id", clause.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let mut found = statement.query(params_from_iter(clause.values)).map_err(from_sql)?;
    while let Some(row) = found.next().map_err(from_sql)? {
        visit(object(row).map_err(from_sql)?)?;
    }
    Ok(())
}

/// Ids of every object of a bucket.
pub fn ids(connection: &Connection, scope: &Scope, bucket_id: &str) -> Result<Vec<String>> {
    let sql = "SELECT object_id FROM objects WHERE bucket_id = ? AND namespace_id = ? ORDER BY created_at, object_id";
    rows(connection, sql, &[bucket_id, &scope.namespace_id], |r| r.get(0))
}

/// Sets status and error of objects, for what processes them.
pub fn set_status(
    tx: &Transaction<'_>,
    scope: &Scope,
    object_id: &str,
    status: &str,
    error: Option<&str>,
    now: &str,
) -> Result<()> {
    run(
        tx,
        "UPDATE objects SET status = ?3, error = ?4, updated_at = ?5 WHERE object_id = ?1 AND namespace_id = ?2",
        params![object_id, scope.namespace_id, status, error, now],
    )
    .map(drop)
}
