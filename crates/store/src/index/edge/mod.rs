//! Embedded shards behind [`Index`]: opening, applying, optimising, checkpointing, healing and closing them.
//!
//! Three kinds of thread, all stopped by `close`: appliers take notified collections from a queue ([`apply`]); one
//! maintainer optimises and checkpoints ([`care`]); one rebuilder builds shards for changed specs beside the serving ones
//! ([`rebuild`]). Calls into a shard and their locks are [`super::slot`]'s story.

mod apply;
mod care;
mod config;
mod contention;
mod heal;
mod leftovers;
mod open;
mod rebuild;

pub use config::EdgeConfig;

use super::queue::Queue;
use super::slot::Slot;
use super::{Feed, Hit, Index, Query, Restriction, ShardState, ShardStatus};
use crate::room::Room;
use contention::Contention;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use strata_model::filter::Filter;
use strata_model::{Error, Reader, Result};

/// Embedded Qdrant Edge shards, one per collection, in directories that may vanish at any time the process is down.
pub struct EdgeIndex {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    dir: PathBuf,
    feed: Arc<dyn Feed>,
    config: EdgeConfig,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Collections with changes to apply.
    apply: Queue,
    /// Collections whose spec may have changed.
    rebuild: Queue,
    /// Woken when a shard may need care.
    care: (Mutex<bool>, Condvar),
    stopping: AtomicBool,
    contention: Contention,
    clock: AtomicU64,
    room: Room,
}

/// How much the threads of the index yield to those that answer requests, as `nice` counts it.
const NICENESS: i32 = 5;

/// Lets requests and commits go first where there are too few processors for all: what is acknowledged waits for the
/// index only where its caller does. The threads that build graphs inherit it.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        tracing::debug!(%error, "the index runs at the priority of requests");
    }
}

impl EdgeIndex {
    /// Starts the index. Shards open when they are first used; nothing found in `dir` can make this fail, only a
    /// directory or thread that cannot be made.
    pub fn open(dir: PathBuf, feed: Arc<dyn Feed>, config: EdgeConfig) -> Result<Arc<Self>> {
        fs::create_dir_all(&dir)
            .map_err(|e| Error::Unavailable(format!("the index directory `{}` cannot be made: {e}", dir.display())))?;
        let inner = Arc::new(Inner {
            room: Room::new(dir.clone(), config.reserve_bytes),
            dir,
            feed,
            slots: Mutex::default(),
            apply: Queue::default(),
            rebuild: Queue::default(),
            care: (Mutex::new(false), Condvar::new()),
            stopping: AtomicBool::new(false),
            contention: Contention::default(),
            clock: AtomicU64::new(0),
            config,
        });
        let index = Arc::new(Self { inner: inner.clone(), threads: Mutex::default() });
        for _ in 0..inner.config.appliers.max(1) {
            index.start("index-apply", Inner::run_applier)?;
        }
        index.start("index-care", Inner::run_maintainer)?;
        index.start("index-build", Inner::run_rebuilder)?;
        Ok(index)
    }

    fn start(&self, name: &str, run: fn(&Inner)) -> Result<()> {
        let inner = self.inner.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            yield_to_others();
            run(&inner);
        });
        self.threads.lock().push(thread.map_err(Error::internal)?);
        Ok(())
    }

    /// Optimises and checkpoints a collection now, whatever its tail.
    pub fn optimize(&self, collection_id: &str) -> Result<()> {
        let slot = self.inner.opened(collection_id)?;
        let maintenance = slot.maintenance.lock();
        match self.inner.optimize(&slot, &maintenance).and_then(|()| self.inner.checkpoint(&slot, &maintenance)) {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.inner.heal(&slot, &maintenance, &fault)),
        }
    }
}

impl Drop for EdgeIndex {
    fn drop(&mut self) {
        self.close();
    }
}

impl Index for EdgeIndex {
    fn can_filter(&self, collection_id: &str, reader: &Reader, filter: &Filter) -> Result<bool> {
        self.inner.with_shard(collection_id, |_, shard| Ok(shard.can_filter(reader, filter)))
    }

    fn search(
        &self,
        collection_id: &str,
        reader: &Reader,
        query: &Query,
        restriction: &Restriction,
        limit: usize,
        score_threshold: Option<f32>,
    ) -> Result<Vec<Hit>> {
        if limit == 0 || matches!(restriction, Restriction::Ids(ids) if ids.is_empty()) {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let found = self.inner.with_shard(collection_id, |slot, shard| {
            match shard.search(reader, query, restriction, limit, score_threshold, self.inner.config.search_ef)? {
                Ok(hits) => Ok(hits),
                Err(fault) => Err(self.inner.doubt(slot, fault)),
            }
        });
        metrics::histogram!("strata_index_search_seconds").record(started.elapsed().as_secs_f64());
        found
    }

    fn notify(&self, collection_id: &str) {
        if let Ok(slot) = self.inner.slot(collection_id)
            && !slot.queued.swap(true, Ordering::SeqCst)
        {
            self.inner.apply.push_later(slot, self.inner.config.gather);
        }
    }

    fn respec(&self, collection_id: &str) {
        if let Ok(slot) = self.inner.slot(collection_id) {
            self.inner.enqueue_rebuild(&slot);
        }
    }

    fn applied(&self, collection_id: &str) -> i64 {
        self.inner.slots.lock().get(collection_id).map_or(0, |slot| slot.applied())
    }

    fn wait_applied(&self, collection_id: &str, seq: i64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let Ok(slot) = self.inner.slot(collection_id) else { return false };
        if slot.applied() >= seq {
            return true;
        }
        // Before it is queued, so that a turn that gives way knows of it.
        slot.awaited.fetch_add(1, Ordering::SeqCst);
        self.inner.enqueue(&slot);
        let mut progress = slot.progress.lock();
        while progress.applied < seq
            && !self.inner.stopping()
            && !slot.gone.load(Ordering::SeqCst)
            && !slot.changed.wait_until(&mut progress, deadline).timed_out()
        {}
        slot.awaited.fetch_sub(1, Ordering::SeqCst);
        progress.applied >= seq
    }

    fn drop_collection(&self, collection_id: &str) -> Result<()> {
        let slot = self.inner.slot(collection_id)?;
        self.inner
            .forget(&slot)
            .map_err(|e| Error::Unavailable(format!("the index of `{collection_id}` cannot be removed: {e}")))
    }

    fn status(&self) -> Vec<ShardStatus> {
        let slots: Vec<Arc<Slot>> = self.inner.slots.lock().values().cloned().collect();
        slots.iter().map(|slot| status(slot)).collect()
    }

    fn close(&self) {
        let inner = &self.inner;
        inner.stopping.store(true, Ordering::SeqCst);
        inner.apply.wake_all();
        inner.rebuild.wake_all();
        inner.wake_maintainer();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
        let slots: Vec<Arc<Slot>> = inner.slots.lock().values().cloned().collect();
        for slot in slots {
            let maintenance = slot.maintenance.lock();
            inner.close_shard(&slot, &maintenance);
            // Wakes waiters, who then see that the index stops.
            slot.set(|_| ());
        }
    }
}

fn status(slot: &Slot) -> ShardStatus {
    let info = slot.serving.read().as_ref().and_then(|shard| shard.info().ok());
    let waits = slot.rebuild_queued.load(Ordering::SeqCst) || slot.rebuilding.load(Ordering::SeqCst);
    let progress = slot.progress.lock();
    ShardStatus {
        collection_id: slot.id.clone(),
        state: if waits { ShardState::Rebuilding } else { progress.state },
        applied: progress.applied,
        points: info.as_ref().map_or(progress.points, |i| i.points_count),
        indexed: info.as_ref().map_or(0, |i| i.indexed_vectors_count),
        last_error: progress.last_error.clone(),
    }
}
