//! A bounded pool of read connections. Each query sees one snapshot.

use super::{connect, from_sql};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use std::path::Path;
use strata_model::Result;

/// Most queries that run at once; others wait their turn.
pub(super) const READERS: usize = 8;

pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    returned: Condvar,
}

impl Readers {
    pub(super) fn new(path: &Path, count: usize) -> Result<Self> {
        let open = || {
            let connection = connect(path)?;
            connection.pragma_update(None, "query_only", "ON").map_err(from_sql)?;
            Ok(connection)
        };
        let idle = (0..count).map(|_| open()).collect::<Result<_>>()?;
        Ok(Self { idle: Mutex::new(idle), returned: Condvar::new() })
    }

    pub(super) fn with<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let lease = Lease { pool: self, connection: Some(self.take()) };
        let connection = lease.connection.as_ref().expect("a lease holds its connection until it is dropped");
        let tx = connection.unchecked_transaction().map_err(from_sql)?;
        query(&tx)
    }

    fn take(&self) -> Connection {
        let mut idle = self.idle.lock();
        loop {
            if let Some(connection) = idle.pop() {
                return connection;
            }
            self.returned.wait(&mut idle);
        }
    }
}

/// Gives the connection back even when the query panics.
struct Lease<'a> {
    pool: &'a Readers,
    connection: Option<Connection>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.idle.lock().extend(self.connection.take());
        self.pool.returned.notify_one();
    }
}
