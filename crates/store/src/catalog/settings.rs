//! Values that belong to the whole server, by name.

use super::from_sql;
use rusqlite::{Connection, OptionalExtension, Transaction};
use strata_model::Result;

pub fn get(connection: &Connection, name: &str) -> Result<Option<String>> {
    connection
        .query_row("SELECT value FROM settings WHERE name = ?1", [name], |r| r.get(0))
        .optional()
        .map_err(from_sql)
}

/// The value, which is `fresh` when there was none.
pub fn get_or_set(tx: &Transaction<'_>, name: &str, fresh: &str) -> Result<String> {
    tx.execute("INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING", [name, fresh])
        .map_err(from_sql)?;
    tx.query_row("SELECT value FROM settings WHERE name = ?1", [name], |r| r.get(0)).map_err(from_sql)
}

/// Puts the value in the place of the one that was there.
pub fn set(tx: &Transaction<'_>, name: &str, value: &str) -> Result<()> {
    let sql =
        "INSERT INTO settings (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.execute(sql, [name, value]).map_err(from_sql)?;
    Ok(())
}
