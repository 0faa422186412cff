//! A bounded pool of read connections, served in the order in which they are asked for. Each query sees one snapshot.

use super::{connect, from_sql};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::{
    collections::VecDeque,
    path::Path,
    sync::mpsc::{SendError, SyncSender, sync_channel},
};
use strata_model::Result;

/// Most queries that run at once; others wait their turn.
pub(super) const READERS: usize = 8;

pub(super) struct Readers {
    pool: Mutex<Pool>,
}

struct Pool {
    /// None while somebody waits.
    idle: Vec<Connection>,
    /// Those whose turn is next, first come, first served. A connection goes from who gives it back to who has waited
    /// longest, so that nobody who comes in between can take it.
    waiting: VecDeque<SyncSender<Connection>>,
}

impl Readers {
    pub(super) fn new(path: &Path, count: usize) -> Result<Self> {
        let open = || {
            let connection = connect(path)?;
            connection.pragma_update(None, "query_only", "ON").map_err(from_sql)?;
            Ok(connection)
        };
        let idle = (0..count).map(|_| open()).collect::<Result<_>>()?;
        Ok(Self { pool: Mutex::new(Pool { idle, waiting: VecDeque::new() }) })
    }

    pub(super) fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let lease = self.lease();
        let connection = lease.connection.as_ref().expect("a lease holds its connection until it is dropped");
        let tx = connection.unchecked_transaction().map_err(from_sql)?;
        query(&tx)
    }

    fn lease(&self) -> Lease<'_> {
        Lease { readers: self, connection: Some(self.take()) }
    }

    fn take(&self) -> Connection {
        let turn = {
            let mut pool = self.pool.lock();
            if let Some(connection) = pool.idle.pop() {
                return connection;
            }
            let (sender, turn) = sync_channel(1);
            pool.waiting.push_back(sender);
            turn
        };
        turn.recv().expect("whoever waits is handed a connection before their place is given up")
    }

    fn give_back(&self, mut connection: Connection) {
        let mut pool = self.pool.lock();
        while let Some(next) = pool.waiting.pop_front() {
            match next.send(connection) {
                Ok(()) => return,
                Err(SendError(refused)) => connection = refused,
            }
        }
        pool.idle.push(connection);
    }
}

/// Gives the connection back even when the query panics.
struct Lease<'a> {
    readers: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.readers.give_back(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn until(what: &str, test: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !test() {
            assert!(Instant::now() < deadline, "timed out: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn many_who_ask_again_and_again_overtake_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let readers = Readers::new(&directory.path().join("catalog.db"), 1).unwrap();
        let served = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            let held = readers.lease();
            for n in 0..9 {
                let (readers, served) = (&readers, &served);
                let turns = if n == 4 { 1 } else { 50 };
                threads.spawn(move || {
                    for _ in 0..turns {
                        let _lease = readers.lease();
                        served.lock().push(n);
                    }
                });
                until("the next one to wait", || readers.pool.lock().waiting.len() == n + 1);
            }
            drop(held);
        });
        let served = served.into_inner();
        assert_eq!(served.len(), 8 * 50 + 1);
        assert_eq!(served[..9], [0, 1, 2, 3, 4, 5, 6, 7, 8], "nobody has a second turn before all have had one");
        assert_eq!(readers.pool.lock().idle.len(), 1, "and it is given back");
    }

    #[test]
    fn a_query_that_panics_gives_its_connection_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let readers = Readers::new(&directory.path().join("catalog.db"), 1).unwrap();
        let fails = || readers.with(|_| -> Result<()> { panic!("a query of a test") });
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(fails)).is_err());
        let one = readers.with(|c| c.query_row("SELECT 1", [], |row| row.get::<_, i64>(0)).map_err(from_sql));
        assert_eq!(one.unwrap(), 1);
    }
}
