//! Rows of transfers, which take snapshots and make namespaces of them. They are the queue of that work, too; and what the
//! copies are called while it goes on.

use super::{
    documents::{from_json_column, rows},
    from_sql,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use strata_model::{Error, Fields, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A namespace like another one.
    Clone,
    /// A snapshot, and no namespace.
    Snapshot,
    /// A namespace from a snapshot.
    Restore,
    /// A namespace like another one, in which the documents may be made anew.
    Migration,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Clone, Self::Snapshot, Self::Restore, Self::Migration];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
            Self::Migration => "migration",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    pub transfer_id: String,
    pub organization_id: String,
    pub kind: Kind,
    pub source_namespace_id: String,
    pub target_namespace_id: Option<String>,
    pub snapshot_id: String,
    pub task_id: String,
    /// `draft`, `pending`, `running`, `completed`, `failed` or `canceled`.
    pub status: String,
    /// How often it was begun.
    pub attempts: u32,
    pub body: Fields,
    /// RFC 3339.
    pub created_at: String,
    pub updated_at: String,
}

impl Transfer {
    pub fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "running")
    }
}

const SELECT: &str = "SELECT transfer_id, organization_id, kind, source_namespace_id, target_namespace_id, snapshot_id, task_id, \
     status, attempts, body, created_at, updated_at FROM transfers";
const IS_OPEN: &str = "status IN ('pending', 'running')";

fn transfer(row: &Row<'_>) -> rusqlite::Result<Transfer> {
    let kind: String = row.get(2)?;
    Ok(Transfer {
        transfer_id: row.get(0)?,
        organization_id: row.get(1)?,
        kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(Kind::Snapshot),
        source_namespace_id: row.get(3)?,
        target_namespace_id: row.get(4)?,
        snapshot_id: row.get(5)?,
        task_id: row.get(6)?,
        status: row.get(7)?,
        attempts: row.get(8)?,
        body: from_json_column(row, 9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
    })
}

pub fn insert(tx: &Transaction<'_>, t: &Transfer) -> Result<()> {
    let sql = "INSERT INTO transfers (transfer_id, organization_id, kind, source_namespace_id, target_namespace_id, snapshot_id,
         task_id, status, attempts, body, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let body = serde_json::to_string(&t.body).map_err(Error::internal)?;
    let values = params![
        t.transfer_id,
        t.organization_id,
        t.kind.as_str(),
        t.source_namespace_id,
        t.target_namespace_id,
        t.snapshot_id,
        t.task_id,
        t.status,
        t.attempts,
        body,
        t.created_at,
        t.updated_at
    ];
    tx.execute(sql, values).map(drop).map_err(from_sql)
}

/// Writes what may change: where to, the snapshot, the task, status, attempts and body.
pub fn update(tx: &Transaction<'_>, t: &Transfer) -> Result<()> {
    let sql =
        "UPDATE transfers SET target_namespace_id = ?2, snapshot_id = ?3, task_id = ?4, status = ?5, attempts = ?6,
         body = ?7, updated_at = ?8 WHERE transfer_id = ?1";
    let body = serde_json::to_string(&t.body).map_err(Error::internal)?;
    let values = params![
        t.transfer_id,
        t.target_namespace_id,
        t.snapshot_id,
        t.task_id,
        t.status,
        t.attempts,
        body,
        t.updated_at
    ];
    tx.execute(sql, values).map(drop).map_err(from_sql)
}

/// A transfer by its id alone, for the work on it.
pub fn find(connection: &Connection, transfer_id: &str) -> Result<Option<Transfer>> {
    let sql = format!("{SELECT} WHERE transfer_id = ?1");
    connection.query_row(&sql, [transfer_id], transfer).optional().map_err(from_sql)
}

/// A transfer of the organization and of a kind.
pub fn get(connection: &Connection, organization_id: &str, kind: Kind, transfer_id: &str) -> Result<Transfer> {
    let found = find(connection, transfer_id)?.filter(|t| t.organization_id == organization_id && t.kind == kind);
    found.ok_or_else(|| Error::missing(kind.as_str(), transfer_id))
}

/// Those of a kind of the organization, newest first.
pub fn list(connection: &Connection, organization_id: &str, kind: Kind) -> Result<Vec<Transfer>> {
    let sql = format!("{SELECT} WHERE organization_id = ?1 AND kind = ?2 ORDER BY created_at DESC, transfer_id");
    rows(connection, &sql, &[organization_id, kind.as_str()], transfer)
}

/// The oldest that is not over.
pub fn due(connection: &Connection) -> Result<Option<String>> {
    let sql = format!("SELECT transfer_id FROM transfers WHERE {IS_OPEN} ORDER BY created_at, transfer_id LIMIT 1");
    connection.query_row(&sql, [], |r| r.get(0)).optional().map_err(from_sql)
}

/// Whether work that is not over takes or reads a snapshot.
pub fn is_in_use(connection: &Connection, snapshot_id: &str) -> Result<bool> {
    let sql = format!("SELECT 1 FROM transfers WHERE snapshot_id = ?1 AND {IS_OPEN}");
    connection.prepare_cached(&sql).and_then(|mut s| s.exists([snapshot_id])).map_err(from_sql)
}

/// Whether work that is not over makes a namespace.
pub fn is_target(connection: &Connection, namespace_id: &str) -> Result<bool> {
    let sql = format!("SELECT 1 FROM transfers WHERE target_namespace_id = ?1 AND {IS_OPEN}");
    connection.prepare_cached(&sql).and_then(|mut s| s.exists([namespace_id])).map_err(from_sql)
}

/// Counts one more attempt and answers the transfer; `None` where it is over or gone.
pub fn begin(tx: &Transaction<'_>, transfer_id: &str, now: &str) -> Result<Option<Transfer>> {
    let sql = format!(
        "UPDATE transfers SET status = 'running', attempts = attempts + 1, updated_at = ?2 WHERE transfer_id = ?1 AND {IS_OPEN}"
    );
    tx.execute(&sql, [transfer_id, now]).map_err(from_sql)?;
    Ok(find(tx, transfer_id)?.filter(Transfer::is_open))
}

/// Undoes [`begin`], for an attempt that is to be made later.
pub fn put_back(tx: &Transaction<'_>, transfer_id: &str) -> Result<()> {
    let sql = format!(
        "UPDATE transfers SET status = 'pending', attempts = max(attempts - 1, 0) WHERE transfer_id = ?1 AND {IS_OPEN}"
    );
    tx.execute(&sql, [transfer_id]).map(drop).map_err(from_sql)
}

/// [`put_back`] of all that run, for a server that ends in good order.
pub fn put_back_running(tx: &Transaction<'_>) -> Result<()> {
    let sql = "UPDATE transfers SET status = 'pending', attempts = max(attempts - 1, 0) WHERE status = 'running'";
    tx.execute(sql, []).map(drop).map_err(from_sql)
}

pub fn delete(tx: &Transaction<'_>, transfer_id: &str) -> Result<()> {
    tx.execute("DELETE FROM transfers WHERE transfer_id = ?1", [transfer_id]).map(drop).map_err(from_sql)
}

/// Says what is called how in the copy; the first word counts.
pub fn name(tx: &Transaction<'_>, transfer_id: &str, old_id: &str, new_id: &str) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO transfer_ids (transfer_id, old_id, new_id) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
    )
    .and_then(|mut s| s.execute([transfer_id, old_id, new_id]))
    .map(drop)
    .map_err(from_sql)
}

/// What something is called in the copy; `None` where nothing of that name goes there.
pub fn named(connection: &Connection, transfer_id: &str, old_id: &str) -> Result<Option<String>> {
    connection
        .prepare_cached("SELECT new_id FROM transfer_ids WHERE transfer_id = ?1 AND old_id = ?2")
        .and_then(|mut s| s.query_row([transfer_id, old_id], |r| r.get(0)).optional())
        .map_err(from_sql)
}

pub fn forget_names(tx: &Transaction<'_>, transfer_id: &str) -> Result<()> {
    tx.execute("DELETE FROM transfer_ids WHERE transfer_id = ?1", [transfer_id]).map(drop).map_err(from_sql)
}
