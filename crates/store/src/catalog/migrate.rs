//! Numbered migrations. `PRAGMA user_version` holds the number of the last one applied.

use super::from_sql;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::path::Path;
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

/// [`Error::Conflict`] where a newer version of the program has made this schema.
pub(super) fn check_known(version: u64) -> Result<()> {
    if version <= LATEST as u64 {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "the catalog has schema {version} and this version of strata knows 1 to {LATEST}: run the version that wrote it \
         or a newer one, or restore a backup of this version into a new directory; nothing was changed"
    )))
}

/// [`check_known`] of the file at `path`, if there is one. It stays as it is, and so does the log beside it.
pub(super) fn check_file(path: &Path) -> Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(from_sql)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).is_file() {
        // Whoever closes the file last would else write the log into it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(from_sql)?;
    }
    check_known(version(&connection)? as u64)
}

/// Applies what is missing, each migration in a transaction of its own.
pub(super) fn run(connection: &mut Connection) -> Result<()> {
    let version = version(connection)?;
    check_known(version as u64)?;
    for (number, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let tx = connection.transaction().map_err(from_sql)?;
        tx.execute_batch(sql).map_err(from_sql)?;
        tx.pragma_update(None, "user_version", number as i64 + 1).map_err(from_sql)?;
        tx.commit().map_err(from_sql)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file of a directory and its bytes.
    fn files(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
        files.sort_unstable();
        files
    }

    #[test]
    fn a_catalog_of_a_newer_version_is_refused_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let mut connection = Connection::open(&path).unwrap();
        run(&mut connection).unwrap();
        check_file(&path).unwrap();
        connection.pragma_update(None, "user_version", LATEST as i64 + 1).unwrap();
        drop(connection);
        let before = files(directory.path());
        let error = check_file(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("schema {}", LATEST + 1)), "{error}");
        assert!(error.contains(&format!("1 to {LATEST}")), "{error}");
        assert!(files(directory.path()) == before, "nothing was changed");
    }

    #[test]
    fn a_newer_schema_that_stands_only_in_the_log_is_refused_and_stays_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        run(&mut connection).unwrap();
        connection.pragma_update(None, "user_version", LATEST as i64 + 1).unwrap();
        // As a process that was killed leaves it.
        let left = tempfile::tempdir().unwrap();
        for name in ["catalog.db", "catalog.db-wal"] {
            std::fs::copy(directory.path().join(name), left.path().join(name)).unwrap();
        }
        let log = std::fs::read(left.path().join("catalog.db-wal")).unwrap();
        let file = std::fs::read(left.path().join("catalog.db")).unwrap();
        assert!(check_file(&left.path().join("catalog.db")).is_err());
        assert!(std::fs::read(left.path().join("catalog.db-wal")).unwrap() == log);
        assert!(std::fs::read(left.path().join("catalog.db")).unwrap() == file);
    }
}
