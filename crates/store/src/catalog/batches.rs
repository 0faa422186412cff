//! Rows of batches and tasks. A batch is a set of derivations; until it is final its state is counted from them.

use super::{
    documents::from_json_column,
    filter::{OBJECT_COLUMNS, compile},
    from_sql,
    webhooks::{self, Event, outbox::Of},
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter, types::Value as SqlValue};
use strata_model::{Error, Fields, Result, Scope, filter::Filter};

#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    pub batch_id: String,
    pub namespace_id: String,
    pub bucket_id: Option<String>,
    /// `DRAFT`, `QUEUED`, `COMPLETED`, `COMPLETED_WITH_ERRORS`, `FAILED` or `CANCELED`.
    pub status: String,
    pub task_id: Option<String>,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub task_id: String,
    pub organization_id: String,
    pub namespace_id: Option<String>,
    pub task_type: String,
    pub status: String,
    pub batch_id: Option<String>,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

const BATCH: &str =
    "SELECT batch_id, namespace_id, bucket_id, status, task_id, body, created_at, updated_at FROM batches";
const TASK: &str = "SELECT task_id, organization_id, namespace_id, task_type, status, batch_id, body, created_at, updated_at FROM tasks";

fn batch_row(r: &Row<'_>) -> rusqlite::Result<Batch> {
    Ok(Batch {
        batch_id: r.get(0)?,
        namespace_id: r.get(1)?,
        bucket_id: r.get(2)?,
        status: r.get(3)?,
        task_id: r.get(4)?,
        body: from_json_column(r, 5)?,
        created_at: r.get(6)?,
        updated_at: r.get(7)?,
    })
}

fn task_row(r: &Row<'_>) -> rusqlite::Result<Task> {
    Ok(Task {
        task_id: r.get(0)?,
        organization_id: r.get(1)?,
        namespace_id: r.get(2)?,
        task_type: r.get(3)?,
        status: r.get(4)?,
        batch_id: r.get(5)?,
        body: from_json_column(r, 6)?,
        created_at: r.get(7)?,
        updated_at: r.get(8)?,
    })
}

fn many<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(values, read).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// Writes a batch whole.
pub fn put(tx: &Transaction<'_>, b: &Batch) -> Result<()> {
    let body = serde_json::to_string(&b.body).map_err(Error::internal)?;
    let sql = "INSERT INTO batches (batch_id, namespace_id, bucket_id, status, task_id, body, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (batch_id) DO UPDATE SET status = excluded.status,
         task_id = excluded.task_id, body = excluded.body, updated_at = excluded.updated_at";
    let values =
        params![b.batch_id, b.namespace_id, b.bucket_id, b.status, b.task_id, body, b.created_at, b.updated_at];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}

/// A batch of the scope; of one bucket, if that is given.
pub fn get(connection: &Connection, scope: &Scope, bucket_id: Option<&str>, batch_id: &str) -> Result<Batch> {
    let sql = format!("{BATCH} WHERE batch_id = ?1 AND namespace_id = ?2 AND (?3 IS NULL OR bucket_id = ?3)");
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row(params![batch_id, scope.namespace_id, bucket_id], batch_row).optional());
    found.map_err(from_sql)?.ok_or_else(|| Error::missing("batch", batch_id))
}

/// Batches of the scope, newest first.
pub fn list(connection: &Connection, scope: &Scope, bucket_id: Option<&str>) -> Result<Vec<Batch>> {
    let sql = format!(
        "{BATCH} WHERE namespace_id = ?1 AND (?2 IS NULL OR bucket_id = ?2) ORDER BY created_at DESC, batch_id"
    );
    many(connection, &sql, params![scope.namespace_id, bucket_id], batch_row)
}

/// Batches of every namespace that were submitted and are not final.
pub fn unfinished(connection: &Connection) -> Result<Vec<Batch>> {
    many(connection, &format!("{BATCH} WHERE status = 'QUEUED' ORDER BY created_at"), [], batch_row)
}

pub fn delete(tx: &Transaction<'_>, batch_id: &str) -> Result<()> {
    tx.execute("UPDATE derivations SET batch_id = NULL WHERE batch_id = ?1", [batch_id]).map_err(from_sql)?;
    tx.execute("DELETE FROM batches WHERE batch_id = ?1", [batch_id]).map(drop).map_err(from_sql)
}

/// Adds objects to a batch; those already in it stay once.
pub fn add_objects(tx: &Transaction<'_>, batch_id: &str, object_ids: &[String]) -> Result<()> {
    let mut statement = tx
        .prepare_cached("INSERT INTO batch_objects (batch_id, object_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .map_err(from_sql)?;
    for id in object_ids {
        statement.execute([batch_id, id]).map_err(from_sql)?;
    }
    Ok(())
}

/// The ids of a batch's objects.
pub fn objects(connection: &Connection, batch_id: &str) -> Result<Vec<String>> {
    let mut statement = connection
        .prepare_cached("SELECT object_id FROM batch_objects WHERE batch_id = ?1 ORDER BY rowid")
        .map_err(from_sql)?;
    let found = statement.query_map([batch_id], |r| r.get(0)).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// Those of `object_ids` that are objects of the bucket.
pub fn known_objects(
    connection: &Connection,
    scope: &Scope,
    bucket_id: &str,
    object_ids: &[String],
) -> Result<Vec<String>> {
    let sql = "SELECT 1 FROM objects WHERE object_id = ?1 AND bucket_id = ?2 AND namespace_id = ?3";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let mut known = Vec::with_capacity(object_ids.len());
    for id in object_ids {
        if statement.exists([id, bucket_id, &scope.namespace_id]).map_err(from_sql)? {
            known.push(id.clone());
        }
    }
    Ok(known)
}

/// Writes a task whole.
pub fn put_task(tx: &Transaction<'_>, t: &Task) -> Result<()> {
    let before: Option<String> = tx
        .prepare_cached("SELECT status FROM tasks WHERE task_id = ?1")
        .and_then(|mut s| s.query_row([&t.task_id], |r| r.get(0)).optional())
        .map_err(from_sql)?;
    let body = serde_json::to_string(&t.body).map_err(Error::internal)?;
    let sql = "INSERT INTO tasks (task_id, organization_id, namespace_id, task_type, status, batch_id, body, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (task_id) DO UPDATE SET status = excluded.status,
         body = excluded.body, updated_at = excluded.updated_at";
    let values = params![
        t.task_id,
        t.organization_id,
        t.namespace_id,
        t.task_type,
        t.status,
        t.batch_id,
        body,
        t.created_at,
        t.updated_at
    ];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)?;
    if before.as_ref() == Some(&t.status) { Ok(()) } else { tell_end(tx, t) }
}

pub fn set_task_status(tx: &Transaction<'_>, task_id: &str, status: &str, now: &str) -> Result<()> {
    let sql = format!("{TASK} WHERE task_id = ?1");
    let before = tx.prepare_cached(&sql).and_then(|mut s| s.query_row([task_id], task_row).optional());
    let Some(before) = before.map_err(from_sql)? else { return Ok(()) };
    let sql = "UPDATE tasks SET status = ?2, updated_at = ?3 WHERE task_id = ?1";
    tx.prepare_cached(sql).and_then(|mut s| s.execute([task_id, status, now])).map_err(from_sql)?;
    if before.status == status {
        return Ok(());
    }
    tell_end(tx, &Task { status: status.to_owned(), ..before })
}

/// Tells whoever wants it that a task has come to its end, if it has.
fn tell_end(tx: &Transaction<'_>, t: &Task) -> Result<()> {
    let event_type = match t.status.as_str() {
        "COMPLETED" | "COMPLETED_WITH_ERRORS" => "resource.executed",
        "FAILED" => "resource.execution_failed",
        _ => return Ok(()),
    };
    let namespace_id = t.namespace_id.as_deref();
    let of = Of::Organization { organization_id: &t.organization_id, namespace_id };
    webhooks::queue(tx, &Event { event_type, resource_type: "task", of }, || {
        serde_json::json!({
            "task_id": t.task_id,
            "task_type": t.task_type,
            "status": t.status,
            "batch_id": t.batch_id,
            "resource_type": "task",
            "resource_id": t.task_id,
        })
    })
}

/// A task of the organization.
pub fn task(connection: &Connection, organization_id: &str, task_id: &str) -> Result<Task> {
    let sql = format!("{TASK} WHERE task_id = ?1 AND organization_id = ?2");
    let found =
        connection.prepare_cached(&sql).and_then(|mut s| s.query_row([task_id, organization_id], task_row).optional());
    found.map_err(from_sql)?.ok_or_else(|| Error::missing("task", task_id))
}

/// Tasks of the organization, newest first.
pub fn tasks(connection: &Connection, organization_id: &str) -> Result<Vec<Task>> {
    many(
        connection,
        &format!("{TASK} WHERE organization_id = ?1 ORDER BY created_at DESC, task_id"),
        [organization_id],
        task_row,
    )
}

/// The ids of a bucket's objects that satisfy `filter`, oldest first, at most `limit`.
pub fn choose_objects(
    connection: &Connection,
    scope: &Scope,
    bucket_id: &str,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<String>> {
    let clause = compile(filter, OBJECT_COLUMNS);
    let sql = format!(
        "SELECT object_id FROM objects WHERE namespace_id = ? AND bucket_id = ? AND {} ORDER BY created_at, object_id LIMIT ?",
        clause.sql
    );
    let mut values = vec![SqlValue::Text(scope.namespace_id.clone()), SqlValue::Text(bucket_id.to_owned())];
    values.extend(clause.values);
    values.push(SqlValue::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement.query_map(params_from_iter(values), |r| r.get(0)).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// Those of a batch's objects that satisfy `filter`.
pub fn matching_objects(
    connection: &Connection,
    scope: &Scope,
    batch_id: &str,
    filter: &Filter,
) -> Result<Vec<String>> {
    let clause = compile(filter, OBJECT_COLUMNS);
    let sql = format!(
        "SELECT object_id FROM objects WHERE namespace_id = ? AND object_id IN (SELECT object_id FROM batch_objects WHERE batch_id = ?)
         AND {} ORDER BY created_at, object_id",
        clause.sql
    );
    let mut values = vec![SqlValue::Text(scope.namespace_id.clone()), SqlValue::Text(batch_id.to_owned())];
    values.extend(clause.values);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement.query_map(params_from_iter(values), |r| r.get(0)).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}
