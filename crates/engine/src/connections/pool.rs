//! Open connections, a few for each that is used.

use super::{
    config::{Postgres, Provider},
    postgres, sqlite,
};
use crate::retrieval::{Lookup, Rows};
use lru::LruCache;
use parking_lot::Mutex;
use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};
use strata_model::{Error, Fields, Result};
use tokio::sync::Semaphore;
use tokio_postgres::Client;

/// Connections whose pools are kept.
const MAX_POOLS: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Queries of one connection that run at once.
const PARALLEL: usize = 4;
/// How long a query waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// How long an open connection may lie unused before another one is opened instead.
const IDLE: Duration = Duration::from_secs(300);

/// The pools of all connections.
pub(crate) struct Pools {
    by_id: Mutex<LruCache<String, Entry>>,
    /// When the use of a connection was last written down, in microseconds.
    noted: Mutex<LruCache<String, i64>>,
}

struct Entry {
    /// The connection's, when the pool was made.
    updated_at: String,
    pool: Arc<Pool>,
}

impl Default for Pools {
    fn default() -> Self {
        Self { by_id: Mutex::new(LruCache::new(MAX_POOLS)), noted: Mutex::new(LruCache::new(MAX_POOLS)) }
    }
}

impl Pools {
    /// The pool of a connection as it is now.
    pub fn get(&self, connection_id: &str, updated_at: &str) -> Option<Arc<Pool>> {
        self.by_id.lock().get(connection_id).filter(|entry| entry.updated_at == updated_at).map(|e| e.pool.clone())
    }

    pub fn put(&self, connection_id: &str, updated_at: &str, provider: Provider) -> Arc<Pool> {
        let mut pools = self.by_id.lock();
        if let Some(known) = pools.get(connection_id).filter(|entry| entry.updated_at == updated_at) {
            return known.pool.clone();
        }
        let pool = Arc::new(Pool { provider, turns: Arc::new(Semaphore::new(PARALLEL)), idle: Mutex::default() });
        pools.put(connection_id.to_owned(), Entry { updated_at: updated_at.to_owned(), pool: pool.clone() });
        pool
    }

    pub fn forget(&self, connection_id: &str) {
        self.by_id.lock().pop(connection_id);
    }

    /// Whether the use of a connection should be written down now.
    pub fn is_due(&self, connection_id: &str, now: i64, every: i64) -> bool {
        let mut noted = self.noted.lock();
        let is_due = noted.get(connection_id).is_none_or(|last| now - last >= every);
        if is_due {
            noted.put(connection_id.to_owned(), now);
        }
        is_due
    }
}

/// What is open to one database.
pub(crate) struct Pool {
    provider: Provider,
    turns: Arc<Semaphore>,
    /// With the moment since when each is unused.
    idle: Mutex<Vec<(Client, Instant)>>,
}

impl Pool {
    pub async fn look_up(&self, lookup: &Lookup) -> Result<Rows> {
        let busy = || Error::Busy {
            message: "too many queries of this connection run at once; try again".into(),
            retry_after_seconds: TURN.as_secs(),
        };
        let turn = tokio::time::timeout(TURN, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(Error::internal)?;
        match &self.provider {
            Provider::Sqlite(file) => sqlite::look_up(file, lookup, turn).await,
            Provider::Postgres(config) => {
                let client = self.client(config).await?;
                // A client that is not given back is closed; so one whose query did not end in order is used no more.
                let (rows, is_clean) = postgres::look_up(&client, config, lookup).await;
                if is_clean {
                    self.idle.lock().push((client, Instant::now()));
                }
                rows
            }
        }
    }

    async fn client(&self, config: &Postgres) -> Result<Client> {
        let known = {
            let mut idle = self.idle.lock();
            idle.retain(|(client, since)| !client.is_closed() && since.elapsed() < IDLE);
            idle.pop()
        };
        match known {
            Some((client, _)) => Ok(client),
            None => postgres::connect(config).await,
        }
    }
}

/// Connects and asks who is there.
pub async fn test(provider: &Provider) -> Result<Fields> {
    match provider {
        Provider::Sqlite(file) => sqlite::test(file).await,
        Provider::Postgres(config) => postgres::test(config).await,
    }
}
