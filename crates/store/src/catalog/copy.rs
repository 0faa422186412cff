//! A copy of the catalog as it stands at one moment, made while others write to it, and what a copy tells about itself.
//!
//! These functions open the file by its path, so that they work beside the process that serves it, too.

use super::{from_sql, migrate, objects::removal};
use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use serde::{Deserialize, Serialize};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use strata_model::{Error, Result};

/// Pages copied between two looks at whether the copy is still wanted.
const STEP_PAGES: i32 = 2_048;
/// How often a step may find the file locked, and the pause after that.
const MAX_REFUSED: u32 = 200;
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What a catalog holds, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Census {
    pub organizations: u64,
    pub namespaces: u64,
    pub buckets: u64,
    pub collections: u64,
    pub retrievers: u64,
    pub objects: u64,
    pub documents: u64,
}

/// What a copy is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The schema's number.
    pub schema: u64,
    /// What tells one server's catalog from another's; see [`source`].
    pub source: String,
    pub census: Census,
}

/// Copies the catalog at `from`, page by page, to the new file `to`: one snapshot, which writers neither wait for nor
/// change. Blocks. [`Error::Conflict`] when the schema is not this version's, or once `is_unwanted` is set.
pub fn copy(from: &Path, to: &Path, is_unwanted: &AtomicBool) -> Result<()> {
    let source = open(from)?;
    source.busy_timeout(Duration::from_secs(10)).map_err(from_sql)?;
    let snapshot = source.unchecked_transaction().map_err(from_sql)?;
    // The first read takes the snapshot. While it is held the steps see nothing newer; without it, each step after a
    // commit would begin from the first page again.
    check_schema(&snapshot)?;
    let mut target = Connection::open(to).map_err(from_sql)?;
    // It is read once and thrown away.
    target.pragma_update(None, "synchronous", "OFF").map_err(from_sql)?;
    let backup = Backup::new(&source, &mut target).map_err(from_sql)?;
    let mut refused = 0;
    loop {
        if is_unwanted.load(Ordering::Relaxed) {
            return Err(Error::Conflict("the copy of the catalog was given up".into()));
        }
        match backup.step(STEP_PAGES).map_err(from_sql)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if refused == MAX_REFUSED => {
                return Err(Error::Busy { message: "the catalog is busy".into(), retry_after_seconds: 10 });
            }
            _ => {
                refused += 1;
                std::thread::sleep(REFUSED_PAUSE);
            }
        }
    }
}

/// Reads what a copy is. Blocks.
pub fn facts(path: &Path) -> Result<Facts> {
    let connection = open(path)?;
    let schema = migrate::version(&connection)? as u64;
    let source = source(&connection)?;
    let count = |table: &str| -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {table}");
        let found: i64 = connection.query_row(&sql, [], |r| r.get(0)).map_err(from_sql)?;
        Ok(found.unsigned_abs())
    };
    let census = Census {
        organizations: count("organizations")?,
        namespaces: count("namespaces")?,
        buckets: count("buckets")?,
        collections: count("collections")?,
        retrievers: count("retrievers")?,
        objects: count("objects")?,
        documents: count("documents")?,
    };
    Ok(Facts { schema, source, census })
}

/// The first organization's id, which tells one server's catalog from another's; empty where there is none yet.
pub fn source(connection: &Connection) -> Result<String> {
    let sql =
        "SELECT coalesce((SELECT organization_id FROM organizations ORDER BY created_at, organization_id LIMIT 1), '')";
    connection.query_row(sql, [], |r| r.get(0)).map_err(from_sql)
}

/// The contents that a copy refers to, those whose hash begins with `prefix`; see [`removal::referenced`]. Blocks.
pub fn references(path: &Path, prefix: &str) -> Result<Vec<(String, Option<u64>)>> {
    removal::referenced(&open(path)?, prefix)
}

/// Whether a copy holds together, by SQLite's own examination. [`Error::Conflict`] says what is wrong. Blocks.
pub fn examine(path: &Path) -> Result<()> {
    let connection = open(path)?;
    let version = migrate::version(&connection)?;
    migrate::check_known(version as u64)?;
    if version == 0 {
        return Err(Error::Conflict("the catalog is empty, so it is none".into()));
    }
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(from_sql)?;
    if found != "ok" {
        return Err(Error::Conflict(format!("the catalog is damaged: {found}")));
    }
    Ok(())
}

/// Whether [`copy`] would take the catalog at `path`; one of a newer version stays as it is. Blocks.
pub fn check(path: &Path) -> Result<()> {
    migrate::check_file(path)?;
    check_schema(&open(path)?)
}

/// Whether this version of the program reads a catalog of this schema. [`Error::Conflict`] where it is too new.
pub fn check_known(schema: u64) -> Result<()> {
    migrate::check_known(schema)
}

fn check_schema(connection: &Connection) -> Result<()> {
    let version = migrate::version(connection)?;
    migrate::check_known(version as u64)?;
    if version != migrate::LATEST {
        return Err(Error::Conflict(format!(
            "the catalog has schema {version} and this version of strata has {}: use the version that serves it, or start \
             this one on it first",
            migrate::LATEST
        )));
    }
    Ok(())
}

/// Opens a file that is there. It must be writable: reading a catalog in WAL mode writes beside it.
fn open(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(from_sql)?;
    connection.pragma_update(None, "query_only", "ON").map_err(from_sql)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Catalog, seams::System};
    use std::sync::Arc;

    #[test]
    fn a_copy_is_one_snapshot_of_a_catalog_that_is_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("catalog.db"), directory.path().join("copy.db"));
        let catalog = Catalog::open(&from, Arc::new(System::default())).unwrap();
        // Both rows of a pair are always written together.
        let pair = |n: u32| {
            catalog.write_blocking(move |tx| {
                for half in ["a", "b"] {
                    let (name, value) = (format!("{half}{n}"), "x".repeat(2_000));
                    super::super::settings::get_or_set(tx, &name, &value)?;
                }
                Ok(())
            })
        };
        (0..300).for_each(|n| pair(n).unwrap());
        std::thread::scope(|threads| {
            let copying = threads.spawn(|| copy(&from, &to, &AtomicBool::new(false)));
            (300..600).for_each(|n| pair(n).unwrap());
            copying.join().unwrap().unwrap();
        });
        examine(&to).unwrap();
        let copied = open(&to).unwrap();
        let count = |like: &str| -> i64 {
            copied.query_row("SELECT count(*) FROM settings WHERE name LIKE ?1", [like], |r| r.get(0)).unwrap()
        };
        assert_eq!(count("a%"), count("b%"));
        assert!(count("a%") >= 300);
    }

    #[test]
    fn a_copy_that_nobody_wants_any_more_ends() {
        let directory = tempfile::tempdir().unwrap();
        let from = directory.path().join("catalog.db");
        Catalog::open(&from, Arc::new(System::default())).unwrap();
        let given_up = copy(&from, &directory.path().join("copy.db"), &AtomicBool::new(true));
        assert!(matches!(given_up, Err(Error::Conflict(_))));
    }
}
