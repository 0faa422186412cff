//! Rows of connections: places outside this server that an organization reads. Their credentials are sealed.

use super::{documents::from_json_column, from_sql};
use rusqlite::{Connection as Db, OptionalExtension, Row, Transaction, params};
use strata_model::{Error, Fields, Result};

/// A stored connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Connection {
    pub connection_id: String,
    pub organization_id: String,
    pub name: String,
    pub provider_type: String,
    /// What may be shown.
    pub body: Fields,
    /// The credentials; `None` where there are none.
    pub sealed: Option<Vec<u8>>,
    pub created_by: String,
    pub last_used_at: Option<String>,
    pub last_error: Option<String>,
    pub consecutive_failures: i64,
    pub created_at: String,
    pub updated_at: String,
}

const COLUMNS: &str = "connection_id, organization_id, name, provider_type, body, sealed, created_by, last_used_at,
    last_error, consecutive_failures, created_at, updated_at";

fn row(row: &Row<'_>) -> rusqlite::Result<Connection> {
    Ok(Connection {
        connection_id: row.get(0)?,
        organization_id: row.get(1)?,
        name: row.get(2)?,
        provider_type: row.get(3)?,
        body: from_json_column(row, 4)?,
        sealed: row.get(5)?,
        created_by: row.get(6)?,
        last_used_at: row.get(7)?,
        last_error: row.get(8)?,
        consecutive_failures: row.get(9)?,
        created_at: row.get(10)?,
        updated_at: row.get(11)?,
    })
}

/// Adds a connection; a name that is taken is [`Error::Conflict`].
pub fn insert(tx: &Transaction<'_>, c: &Connection) -> Result<()> {
    let sql = format!("INSERT INTO connections ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)");
    let values = params![
        c.connection_id,
        c.organization_id,
        c.name,
        c.provider_type,
        text(&c.body)?,
        c.sealed,
        c.created_by,
        c.last_used_at,
        c.last_error,
        c.consecutive_failures,
        c.created_at,
        c.updated_at
    ];
    tx.execute(&sql, values).map_err(|e| taken(e, &c.name)).map(drop)
}

/// Writes name, body, credentials, `last_error`, `consecutive_failures` and `updated_at`.
pub fn update(tx: &Transaction<'_>, c: &Connection) -> Result<()> {
    let sql = "UPDATE connections SET name = ?3, body = ?4, sealed = ?5, last_error = ?6, consecutive_failures = ?7,
               updated_at = ?8 WHERE connection_id = ?1 AND organization_id = ?2";
    let values = params![
        c.connection_id,
        c.organization_id,
        c.name,
        text(&c.body)?,
        c.sealed,
        c.last_error,
        c.consecutive_failures,
        c.updated_at
    ];
    match tx.execute(sql, values).map_err(|e| taken(e, &c.name))? {
        0 => Err(Error::missing("connection", &c.connection_id)),
        _ => Ok(()),
    }
}

/// Writes down how the last use went.
pub fn note_use(tx: &Transaction<'_>, connection_id: &str, now: &str, error: Option<&str>) -> Result<()> {
    let sql = "UPDATE connections SET last_used_at = ?2, last_error = ?3,
               consecutive_failures = CASE WHEN ?3 IS NULL THEN 0 ELSE consecutive_failures + 1 END
               WHERE connection_id = ?1";
    tx.execute(sql, params![connection_id, now, error]).map_err(from_sql).map(drop)
}

pub fn delete(tx: &Transaction<'_>, organization_id: &str, connection_id: &str) -> Result<()> {
    let sql = "DELETE FROM connections WHERE organization_id = ?1 AND connection_id = ?2";
    match tx.execute(sql, [organization_id, connection_id]).map_err(from_sql)? {
        0 => Err(Error::missing("connection", connection_id)),
        _ => Ok(()),
    }
}

/// A connection of the organization by id, or else by name.
pub fn find(db: &Db, organization_id: &str, identifier: &str) -> Result<Option<Connection>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM connections WHERE organization_id = ?1 AND (connection_id = ?2 OR name = ?2)
         ORDER BY connection_id = ?2 DESC LIMIT 1"
    );
    db.query_row(&sql, [organization_id, identifier], row).optional().map_err(from_sql)
}

/// [`find`], where absence is an error.
pub fn get(db: &Db, organization_id: &str, identifier: &str) -> Result<Connection> {
    find(db, organization_id, identifier)?.ok_or_else(|| Error::missing("connection", identifier))
}

/// Every connection of the organization, oldest first.
pub fn list(db: &Db, organization_id: &str) -> Result<Vec<Connection>> {
    let sql =
        format!("SELECT {COLUMNS} FROM connections WHERE organization_id = ?1 ORDER BY created_at, connection_id");
    let mut statement = db.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement.query_map([organization_id], row).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

fn text(body: &Fields) -> Result<String> {
    serde_json::to_string(body).map_err(Error::internal)
}

fn taken(error: rusqlite::Error, name: &str) -> Error {
    match from_sql(error) {
        Error::Conflict(message) if message.contains("UNIQUE") => {
            Error::Conflict(format!("a connection named `{name}` exists already"))
        }
        other => other,
    }
}
