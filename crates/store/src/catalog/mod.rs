//! The catalog: every resource, object, document, vector, derivation, event and key is a row in SQLite.
//!
//! One connection writes, on its own thread; requests that arrive while a commit is syncing share the next one (group
//! commit). A pool of connections reads snapshots. WAL with `synchronous=FULL`: a write that returned is on disk.

pub mod access;
pub mod annotations;
pub mod artifacts;
pub mod audit;
pub mod batches;
pub mod browse;
mod checkpoint;
pub mod connections;
pub mod copy;
pub mod derivations;
pub mod documents;
mod error;
pub mod experiments;
pub mod filter;
pub mod interactions;
pub mod lineage;
mod memo;
mod migrate;
pub mod models;
pub mod namespace_rows;
pub mod objects;
pub mod payload;
mod plan;
pub mod principals;
pub mod publications;
mod read;
pub mod resources;
pub mod secrets;
pub mod settings;
pub mod snapshots;
pub mod subjects;
pub mod transfers;
pub mod usage;
pub mod webhooks;
mod write;

pub use error::from_sql;
pub use memo::State;
pub use rusqlite;

use crate::seams::{self, Seams};
use rusqlite::{Connection, Transaction, config::DbConfig};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strata_model::{Error, Result};
use tokio::sync::Semaphore;

/// The number of the newest schema that this version of the program knows, which it brings every catalog to.
pub const SCHEMA: u64 = migrate::LATEST as u64;

/// A handle to the catalog; cheap to clone.
#[derive(Clone)]
pub struct Catalog {
    writer: Arc<write::Writer>,
    readers: Arc<read::Readers>,
    /// As many as there are readers.
    turns: Arc<Semaphore>,
    memo: Arc<memo::Memo>,
    seams: Arc<dyn Seams>,
    path: Arc<PathBuf>,
}

impl Catalog {
    /// Opens or makes the catalog at `path` and brings its schema up to date. [`Error::Conflict`] where a newer version of
    /// the program has made it; it is untouched then.
    pub fn open(path: &Path, seams: Arc<dyn Seams>) -> Result<Self> {
        // Connecting already changes how the file is written.
        migrate::check_file(path)?;
        let mut connection = connect(path)?;
        migrate::run(&mut connection)?;
        let readers = read::Readers::new(path, read::READERS)?;
        webhooks::register(&connection, seams.clone())?;
        let memo = memo::Memo::new();
        memo.watch(&connection);
        Ok(Self {
            writer: Arc::new(write::Writer::start(path, connection, memo.clone())?),
            memo,
            readers: Arc::new(readers),
            turns: Arc::new(Semaphore::new(read::READERS)),
            seams,
            path: Arc::new(path.to_owned()),
        })
    }

    /// Runs `work` in a transaction and answers when it is on disk. An error from `work` undoes its changes only. Where
    /// the call that is being answered has an entry for the [`audit`] log, its first transaction writes it, too.
    pub async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let entry = audit::due();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let work = audit::along(work, entry.clone());
        self.writer.submit(write::once(work, move |result| drop(reply.send(result))))?;
        let written = answer.await.map_err(|_| stopped())?;
        if let (Some(entry), Ok(_)) = (&entry, &written) {
            entry.note_stored();
        }
        written
    }

    /// [`Catalog::write`] of what is written often, and faster: `work` may run more than once, each time after everything
    /// that it changed in the catalog was undone, and must then come to the same. Answers `state` too. The commit may wait
    /// for as long as `patience`, for others to share it.
    pub async fn write_again<S, T, F>(&self, state: S, patience: Duration, work: F) -> Result<(S, T)>
    where
        S: Send + 'static,
        T: Send + 'static,
        F: Fn(&mut S, &Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let entry = audit::due();
        let (reply, answer) = tokio::sync::oneshot::channel();
        let work = audit::along_again(work, entry.clone());
        self.writer.submit(write::again(state, patience, work, move |result| drop(reply.send(result))))?;
        let written = answer.await.map_err(|_| stopped())?;
        if let (Some(entry), Ok(_)) = (&entry, &written) {
            entry.note_stored();
        }
        written
    }

    /// [`Catalog::write`] for threads outside the async runtime, which answer no call.
    pub fn write_blocking<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.writer.submit(write::once(work, move |result| drop(reply.send(result))))?;
        answer.recv().map_err(|_| stopped())?
    }

    /// Runs `query` on a read connection, off the async runtime.
    pub async fn read<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        // Waiting here costs nothing; waiting for a connection would cost a thread.
        let turn = self.turns.clone().acquire_owned().await.map_err(Error::internal)?;
        let readers = self.readers.clone();
        let read = move || {
            let _turn = turn;
            readers.with(query)
        };
        tokio::task::spawn_blocking(read).await.map_err(Error::internal)?
    }

    /// [`Catalog::read`] of definitions, which are namespaces, buckets, collections and retrievers: an answer is kept
    /// under `key` until any of them changes, so most calls touch no disk and no other thread. `query` must read nothing
    /// else. Errors are not kept.
    pub async fn recall<T, F>(&self, key: String, query: F) -> Result<Arc<T>>
    where
        T: Send + Sync + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        if let Some(known) = self.memo.find(&key) {
            return Ok(known);
        }
        let version = self.memo.version();
        let answer = Arc::new(self.read(query).await?);
        self.memo.keep(key, version, answer.clone());
        Ok(answer)
    }

    /// [`State`] now; taken before the reads that it is to stand for.
    pub fn state(&self) -> State {
        self.memo.state()
    }

    /// Waits until events have been queued, or the ways that they go have changed, since this was last waited for.
    pub async fn outbox_changed(&self) {
        self.memo.outbox_changed().await;
    }

    /// [`Catalog::read`] on the caller's own thread, which must be allowed to block.
    pub fn read_blocking<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.readers.with(query)
    }

    /// The time now, as the catalog spells it.
    pub fn now(&self) -> String {
        seams::rfc3339(self.seams.now_micros())
    }
    pub fn now_micros(&self) -> i64 {
        self.seams.now_micros()
    }
    /// A random number.
    pub fn random(&self) -> u64 {
        let mut bytes = [0; 8];
        self.seams.random(&mut bytes);
        u64::from_le_bytes(bytes)
    }
    /// Random bytes fit for keys and nonces.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.seams.random(&mut bytes);
        bytes
    }
    /// A new random id: `prefix` and `length` characters.
    pub fn new_id(&self, prefix: &str, length: usize) -> String {
        seams::random_id(&*self.seams, prefix, length)
    }
    /// A new random id: `prefix` and `length` hex digits.
    pub fn new_hex_id(&self, prefix: &str, length: usize) -> String {
        seams::random_hex(&*self.seams, prefix, length)
    }
    /// A new id of what there are many of: `prefix` and 24 hex digits, of which the first ten are the time. Documents that
    /// are made one after another, for one, stand beside each other in what the catalog has in the order of ids.
    pub fn new_timed_id(&self, prefix: &str) -> String {
        seams::timed_hex(&*self.seams, prefix)
    }
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn stopped() -> Error {
    Error::internal("the catalog's writer has stopped")
}

fn connect(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path).map_err(from_sql)?;
    for (pragma, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("foreign_keys", "ON")] {
        connection.pragma_update(None, pragma, value).map_err(from_sql)?;
    }
    // Else a statement is prepared again whenever a parameter that its plan looked at changes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(from_sql)?;
    connection.pragma_update(None, "cache_size", -65_536).map_err(from_sql)?;
    connection.pragma_update(None, "temp_store", "MEMORY").map_err(from_sql)?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(from_sql)?;
    connection.set_prepared_statement_cache_capacity(256);
    filter::register(&connection)?;
    Ok(connection)
}
