//! Numbered migrations. `PRAGMA user_version` holds the number of the last one applied.

use super::from_sql;
use rusqlite::Connection;
use strata_model::{Error, Result};

const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_spine.sql"),
    include_str!("migrations/0002_payload_indexes.sql"),
    include_str!("migrations/0003_published_retrievers.sql"),
    include_str!("migrations/0004_secrets_and_connections.sql"),
    include_str!("migrations/0005_feedback.sql"),
    include_str!("migrations/0006_document_artifacts.sql"),
    include_str!("migrations/0007_custom_extractors.sql"),
    include_str!("migrations/0008_models.sql"),
    include_str!("migrations/0009_stored_bytes.sql"),
    include_str!("migrations/0010_audit.sql"),
    include_str!("migrations/0011_transfers.sql"),
    include_str!("migrations/0012_access_lists.sql"),
    include_str!("migrations/0013_webhooks.sql"),
];

/// The schema that this version knows.
pub(super) const LATEST: usize = MIGRATIONS.len();

/// The number of the last migration that was applied; 0 in an empty file.
pub(super) fn version(connection: &Connection) -> Result<usize> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(from_sql)?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Applies what is missing, each migration in a transaction of its own.
pub(super) fn run(connection: &mut Connection) -> Result<()> {
    let version = version(connection)?;
    if version > LATEST {
        return Err(Error::internal(format!(
            "this catalog has schema {version}; this version of strata knows {LATEST} at most: use the newer one"
        )));
    }
    for (number, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let tx = connection.transaction().map_err(from_sql)?;
        tx.execute_batch(sql).map_err(from_sql)?;
        tx.pragma_update(None, "user_version", number as i64 + 1).map_err(from_sql)?;
        tx.commit().map_err(from_sql)?;
    }
    Ok(())
}
