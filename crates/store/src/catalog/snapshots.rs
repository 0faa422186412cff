//! Rows of snapshots, and which contents each of them holds.

use super::{
    documents::{from_json_column, rows},
    from_sql, objects,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use strata_model::{Error, Fields, Result};

/// A namespace as it stood at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub snapshot_id: String,
    pub organization_id: String,
    pub namespace_id: String,
    pub namespace_name: String,
    /// Made for a clone or a migration, and gone with its end.
    pub is_passing: bool,
    /// `pending`, `in_progress`, `completed` or `failed`.
    pub status: String,
    /// What was asked for, and what is in it.
    pub body: Fields,
    /// RFC 3339.
    pub created_at: String,
    pub updated_at: String,
}

/// A content that a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldContent {
    pub hash: String,
    pub size_bytes: u64,
    /// A part of the snapshot itself, or its manifest.
    pub is_own: bool,
}

const SELECT: &str = "SELECT snapshot_id, organization_id, namespace_id, namespace_name, purpose, status, body, created_at, \
     updated_at FROM snapshots";

fn snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        snapshot_id: row.get(0)?,
        organization_id: row.get(1)?,
        namespace_id: row.get(2)?,
        namespace_name: row.get(3)?,
        is_passing: row.get::<_, String>(4)? == "transfer",
        status: row.get(5)?,
        body: from_json_column(row, 6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

fn json(body: &Fields) -> Result<String> {
    serde_json::to_string(body).map_err(Error::internal)
}

pub fn insert(tx: &Transaction<'_>, s: &Snapshot) -> Result<()> {
    let sql =
        "INSERT INTO snapshots (snapshot_id, organization_id, namespace_id, namespace_name, purpose, status, body,
         created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let purpose = if s.is_passing { "transfer" } else { "snapshot" };
    let values = params![
        s.snapshot_id,
        s.organization_id,
        s.namespace_id,
        s.namespace_name,
        purpose,
        s.status,
        json(&s.body)?,
        s.created_at,
        s.updated_at
    ];
    tx.execute(sql, values).map(drop).map_err(from_sql)
}

/// Writes status and body; answers whether the snapshot is still there.
pub fn update(tx: &Transaction<'_>, snapshot_id: &str, status: &str, body: &Fields, now: &str) -> Result<bool> {
    let sql = "UPDATE snapshots SET status = ?2, body = ?3, updated_at = ?4 WHERE snapshot_id = ?1";
    tx.execute(sql, params![snapshot_id, status, json(body)?, now]).map(|rows| rows > 0).map_err(from_sql)
}

/// A snapshot by its id alone, for the work on it; `None` where it is gone.
pub fn find(connection: &Connection, snapshot_id: &str) -> Result<Option<Snapshot>> {
    let sql = format!("{SELECT} WHERE snapshot_id = ?1");
    connection.query_row(&sql, [snapshot_id], snapshot).optional().map_err(from_sql)
}

/// A snapshot of a namespace of the organization.
pub fn get(connection: &Connection, organization_id: &str, namespace_id: &str, snapshot_id: &str) -> Result<Snapshot> {
    let found = find(connection, snapshot_id)?;
    let is_theirs =
        |s: &Snapshot| s.organization_id == organization_id && s.namespace_id == namespace_id && !s.is_passing;
    found.filter(is_theirs).ok_or_else(|| Error::missing("snapshot", snapshot_id))
}

/// The snapshots of a namespace, newest first.
pub fn list(connection: &Connection, organization_id: &str, namespace_id: &str) -> Result<Vec<Snapshot>> {
    let sql = format!(
        "{SELECT} WHERE organization_id = ?1 AND namespace_id = ?2 AND purpose = 'snapshot'
         ORDER BY created_at DESC, snapshot_id"
    );
    rows(connection, &sql, &[organization_id, namespace_id], snapshot)
}

/// The namespace, by id or name, of which the organization has snapshots, whether it is there or not: the one with the
/// newest.
pub fn namespace(connection: &Connection, organization_id: &str, identifier: &str) -> Result<Option<String>> {
    let sql = "SELECT namespace_id FROM snapshots
         WHERE organization_id = ?1 AND (namespace_id = ?2 OR namespace_name = ?2) AND purpose = 'snapshot'
         ORDER BY namespace_id = ?2 DESC, created_at DESC LIMIT 1";
    connection.query_row(sql, [organization_id, identifier], |r| r.get(0)).optional().map_err(from_sql)
}

/// Notes a stored content as the snapshot's own.
pub fn add_own(tx: &Transaction<'_>, snapshot_id: &str, hash: &str, size_bytes: u64, now: &str) -> Result<()> {
    objects::put_blob(tx, hash, size_bytes, "application/octet-stream", now)?;
    let sql = "INSERT INTO snapshot_contents (snapshot_id, hash, size_bytes, own) VALUES (?1, ?2, ?3, 1)
         ON CONFLICT (snapshot_id, hash) DO UPDATE SET own = 1";
    tx.execute(sql, params![snapshot_id, hash, size_bytes as i64]).map(drop).map_err(from_sql)
}

/// Notes contents that rows of the snapshot refer to; those that no row of the catalog names are passed over.
pub fn add_referenced(tx: &Transaction<'_>, snapshot_id: &str, hashes: &[String]) -> Result<()> {
    let sql = "INSERT INTO snapshot_contents (snapshot_id, hash, size_bytes, own)
         SELECT ?1, hash, size_bytes, 0 FROM blobs WHERE hash = ?2 ON CONFLICT DO NOTHING";
    let mut statement = tx.prepare_cached(sql).map_err(from_sql)?;
    for hash in hashes {
        statement.execute([snapshot_id, hash]).map_err(from_sql)?;
    }
    Ok(())
}

/// What a snapshot holds, by hash: at most `limit` after the hash `after`.
pub fn contents(connection: &Connection, snapshot_id: &str, after: &str, limit: usize) -> Result<Vec<HeldContent>> {
    let sql = format!(
        "SELECT hash, size_bytes, own FROM snapshot_contents WHERE snapshot_id = ?1 AND hash > ?2 ORDER BY hash LIMIT {limit}"
    );
    rows(connection, &sql, &[snapshot_id, after], |r| {
        Ok(HeldContent { hash: r.get(0)?, size_bytes: r.get::<_, i64>(1)?.unsigned_abs(), is_own: r.get(2)? })
    })
}

/// How many contents of objects and documents a snapshot holds, and their bytes.
pub fn referenced(connection: &Connection, snapshot_id: &str) -> Result<(u64, u64)> {
    let sql = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM snapshot_contents WHERE snapshot_id = ?1 AND own = 0";
    let read = |r: &Row<'_>| Ok((r.get::<_, i64>(0)?.unsigned_abs(), r.get::<_, i64>(1)?.unsigned_abs()));
    connection.query_row(sql, [snapshot_id], read).map_err(from_sql)
}

/// Lets go of what a snapshot holds, and answers the hashes: what nothing else refers to can be removed then.
pub fn release(tx: &Transaction<'_>, snapshot_id: &str) -> Result<Vec<String>> {
    let hashes = rows(tx, "SELECT hash FROM snapshot_contents WHERE snapshot_id = ?1", &[snapshot_id], |r| r.get(0))?;
    tx.execute("DELETE FROM snapshot_contents WHERE snapshot_id = ?1", [snapshot_id]).map_err(from_sql)?;
    Ok(hashes)
}

/// [`delete`] of a snapshot whose namespace is likely to be there: answers its own contents only, and what else nothing
/// refers to any more is found by the sweep.
pub fn delete_passing(tx: &Transaction<'_>, snapshot_id: &str) -> Result<Vec<String>> {
    let sql = "SELECT hash FROM snapshot_contents WHERE snapshot_id = ?1 AND own = 1";
    let own = rows(tx, sql, &[snapshot_id], |r| r.get(0))?;
    tx.execute("DELETE FROM snapshots WHERE snapshot_id = ?1", [snapshot_id]).map_err(from_sql)?;
    Ok(own)
}

/// Removes a snapshot; answers what it held.
pub fn delete(tx: &Transaction<'_>, snapshot_id: &str) -> Result<Vec<String>> {
    let hashes = release(tx, snapshot_id)?;
    tx.execute("DELETE FROM snapshots WHERE snapshot_id = ?1", [snapshot_id]).map_err(from_sql)?;
    Ok(hashes)
}
