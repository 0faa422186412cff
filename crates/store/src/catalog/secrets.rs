//! Rows of sealed values, by organization and name. What they hold is not known here.

use super::from_sql;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use strata_model::{Error, Result};

/// Adds a value; a name that is taken is [`Error::Conflict`].
pub fn insert(tx: &Transaction<'_>, organization_id: &str, name: &str, sealed: &[u8], now: &str) -> Result<()> {
    let sql = "INSERT INTO secrets (organization_id, name, sealed, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?4)
               ON CONFLICT DO NOTHING";
    match tx.execute(sql, params![organization_id, name, sealed, now]).map_err(from_sql)? {
        0 => Err(Error::Conflict(format!("a secret named `{name}` exists already; change it with PUT"))),
        _ => Ok(()),
    }
}

/// Replaces a value.
pub fn update(tx: &Transaction<'_>, organization_id: &str, name: &str, sealed: &[u8], now: &str) -> Result<()> {
    let sql = "UPDATE secrets SET sealed = ?3, updated_at = ?4 WHERE organization_id = ?1 AND name = ?2";
    found(tx.execute(sql, params![organization_id, name, sealed, now]).map_err(from_sql)?, name)
}

pub fn delete(tx: &Transaction<'_>, organization_id: &str, name: &str) -> Result<()> {
    let sql = "DELETE FROM secrets WHERE organization_id = ?1 AND name = ?2";
    found(tx.execute(sql, [organization_id, name]).map_err(from_sql)?, name)
}

fn found(rows: usize, name: &str) -> Result<()> {
    if rows == 0 { Err(Error::missing("secret", name)) } else { Ok(()) }
}

/// The sealed value, or `None` where the organization has no secret of this name.
pub fn find(connection: &Connection, organization_id: &str, name: &str) -> Result<Option<Vec<u8>>> {
    let sql = "SELECT sealed FROM secrets WHERE organization_id = ?1 AND name = ?2";
    connection.query_row(sql, [organization_id, name], |row| row.get(0)).optional().map_err(from_sql)
}

/// Names in their order.
pub fn names(connection: &Connection, organization_id: &str) -> Result<Vec<String>> {
    let sql = "SELECT name FROM secrets WHERE organization_id = ?1 ORDER BY name";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let names = statement.query_map([organization_id], |row| row.get(0)).map_err(from_sql)?;
    names.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

pub fn count(connection: &Connection, organization_id: &str) -> Result<usize> {
    let sql = "SELECT count(*) FROM secrets WHERE organization_id = ?1";
    connection.query_row(sql, [organization_id], |row| row.get(0)).map_err(from_sql)
}

/// What a sealed value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Secret,
    Connection,
    Webhook,
}

/// Shows every sealed value of every organization: what it belongs to, the organization, the name of the secret or the
/// id of the connection or webhook, and the value as it is sealed.
pub fn each(connection: &Connection, mut see: impl FnMut(Owner, &str, &str, &[u8])) -> Result<()> {
    for (owner, sql) in [
        (Owner::Secret, "SELECT organization_id, name, sealed FROM secrets ORDER BY 1, 2"),
        (
            Owner::Connection,
            "SELECT organization_id, connection_id, sealed FROM connections WHERE sealed IS NOT NULL ORDER BY 1, 2",
        ),
        (
            Owner::Webhook,
            "SELECT organization_id, webhook_id, sealed FROM webhooks WHERE sealed IS NOT NULL ORDER BY 1, 2",
        ),
    ] {
        let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
        let read = |row: &Row<'_>| -> rusqlite::Result<(String, String, Vec<u8>)> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        };
        for row in statement.query_map([], read).map_err(from_sql)? {
            let (organization_id, name, sealed) = row.map_err(from_sql)?;
            see(owner, &organization_id, &name, &sealed);
        }
    }
    Ok(())
}

/// Whether anything is sealed, of any organization: then the key that sealed it must not be replaced.
pub fn any(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM secrets) OR EXISTS (SELECT 1 FROM connections WHERE sealed IS NOT NULL)
         OR EXISTS (SELECT 1 FROM webhooks WHERE sealed IS NOT NULL)";
    connection.query_row(sql, [], |row| row.get(0)).map_err(from_sql)
}
