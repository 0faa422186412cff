//! Copying the log (SQLite's WAL) back into the catalog's file. A thread of its own does so beside the writer, whose
//! commits would wait for it. The log starts anew only when a transaction begins while nothing of it is left to copy,
//! which under load is never so: when the log is long, the writer copies the little that is left itself.

use super::{connect, from_sql};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{
    cell::Cell,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};
use strata_model::{Error, Result};

/// Pages that the log grows by before the thread copies them. A page that changes often is copied once for all of them.
const STEP: u32 = 4_000;
/// Pages of the log from which on the writer copies what is left.
const LIMIT: u32 = 16_000;
/// The thread copies once more so many pages before the limit, and the writer tries again after so many beyond it.
const LAST: u32 = 1_000;

thread_local! {
    /// Pages of the log after the last commit of this thread.
    static PAGES: Cell<u32> = const { Cell::new(0) };
}

pub(super) struct Checkpointer {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Held by whoever copies: of two at once, SQLite lets one do nothing.
    turn: Arc<Mutex<()>>,
    /// Pages of the log when it was last copied, or was asked to be.
    copied: u32,
}

impl Checkpointer {
    /// For the catalog at `path`, which `writer` writes.
    pub(super) fn start(path: &Path, writer: &Connection) -> Result<Self> {
        // Replaces what SQLite does by itself.
        writer.wal_hook(Some(|_, pages| {
            PAGES.set(u32::try_from(pages).unwrap_or(0));
            Ok(())
        }));
        let (wake, woken) = sync_channel(1);
        let (connection, turn) = (connect(path)?, Arc::new(Mutex::new(())));
        let own = turn.clone();
        let thread = std::thread::Builder::new()
            .name("catalog-copier".into())
            .spawn(move || run(&connection, &woken, &own))
            .map_err(Error::internal)?;
        Ok(Self { wake: Some(wake), thread: Some(thread), turn, copied: 0 })
    }

    /// Called by the thread of the writer after each commit.
    pub(super) fn committed(&mut self, writer: &Connection) {
        let pages = PAGES.get();
        if pages < self.copied {
            self.copied = 0;
        }
        match next(pages, self.copied) {
            Next::Nothing => return,
            // Full: it has been asked and not begun, and will copy these, too.
            Next::Beside => drop(self.wake.as_ref().map(|wake| wake.try_send(()))),
            Next::Here => {
                let _turn = self.turn.lock();
                copy(writer);
            }
        }
        self.copied = pages;
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake.take();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// The thread is to copy.
    Beside,
    /// The writer is to.
    Here,
}

/// What to do about a log of so many pages that was last copied when it had `copied`.
fn next(pages: u32, copied: u32) -> Next {
    let grown = pages.saturating_sub(copied);
    if pages >= LIMIT && grown >= LAST {
        Next::Here
    } else if pages < LIMIT && (grown >= STEP || (pages >= LIMIT - LAST && copied < LIMIT - LAST)) {
        Next::Beside
    } else {
        Next::Nothing
    }
}

fn run(connection: &Connection, woken: &Receiver<()>, turn: &Mutex<()>) {
    while let Ok(()) = woken.recv() {
        let _turn = turn.lock();
        copy(connection);
    }
}

/// Copies as much as no reader still needs in the log.
fn copy(connection: &Connection) {
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(from_sql) {
        tracing::error!(%error, "the catalog's log could not be copied into its file; it grows until it can");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_copies_only_what_is_left_of_a_long_log() {
        assert_eq!(next(3_999, 0), Next::Nothing);
        assert_eq!(next(4_000, 0), Next::Beside);
        assert_eq!(next(7_999, 4_000), Next::Nothing);
        assert_eq!(next(15_000, 12_100), Next::Beside);
        assert_eq!(next(15_999, 15_010), Next::Nothing);
        assert_eq!(next(16_010, 15_010), Next::Here);
        assert_eq!(next(16_900, 16_010), Next::Nothing, "a reader keeps it");
        assert_eq!(next(17_010, 16_010), Next::Here);
    }

    #[test]
    fn a_log_under_steady_writing_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.db");
        let writer = connect(&path).unwrap();
        writer.execute_batch("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)").unwrap();
        let mut copier = Checkpointer::start(&path, &writer).unwrap();
        let mut longest = 0;
        for _ in 0..400 {
            // 100 pages a commit.
            writer.execute("INSERT INTO t (b) VALUES (randomblob(409600))", []).unwrap();
            copier.committed(&writer);
            longest = longest.max(PAGES.get());
        }
        assert!((LIMIT..LIMIT + 2 * LAST).contains(&longest), "{longest}");
        drop(copier);
        let kept: i64 = writer.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(kept, 400);
    }
}
