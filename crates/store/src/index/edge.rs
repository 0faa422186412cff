//! Embedded shards behind [`Index`]: opening, applying, optimising, checkpointing, healing and closing them.
//!
//! Three kinds of thread, all stopped by `close`: appliers take notified collections from a queue; one maintainer
//! optimises and checkpoints; one rebuilder builds shards for changed specs beside the serving ones ([`super::rebuild`]).
//! Calls into a shard and their locks are [`super::slot`]'s story.

use super::manifest;
use super::queue::Queue;
use super::shard::{Fault, Shard, same_layout};
use super::slot::Slot;
use super::{Change, Feed, Hit, Index, Query, Restriction, ShardState, ShardStatus};
use crate::faults::{self, reach};
use crate::room::Room;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use strata_model::filter::Filter;
use strata_model::{Error, Reader, Result};

/// How often one caller tries to open a shard that others close or lose.
const OPEN_ATTEMPTS: usize = 4;

/// How embedded shards are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeConfig {
    /// Changes after which graphs are built for them. Unindexed points are scanned, about 0.1 ms per 1,000.
    pub optimize_tail: u64,
    /// Changes after which a shard is checkpointed; bounds the replay after a kill.
    pub checkpoint_every: u64,
    /// A shard with fewer changes is checkpointed when it was left alone for this long.
    pub checkpoint_idle: Duration,
    /// Shards open at once; each costs some 64 memory maps and more per payload index.
    pub max_open: usize,
    /// Most changes per engine update.
    pub batch: usize,
    /// How long changes gather for one update while nobody waits for them.
    pub gather: Duration,
    /// Changes that opening a shard replays before the first search is answered; more are replayed in the background.
    pub replay_before_search: usize,
    pub appliers: usize,
    /// How long the maintainer may sleep.
    pub tick: Duration,
    /// After a search met a fault, the shard is not replaced again for this long.
    pub heal_interval: Duration,
    /// Beam width of graph searches; `limit` where that is larger.
    pub search_ef: usize,
    /// Keep dense vectors in memory maps instead of memory.
    pub on_disk: bool,
    /// Segments with vectors above this size get a graph.
    pub indexing_kilobytes: usize,
    /// Searches over fewer bytes of vectors than this scan instead of walking the graph.
    pub full_scan_kilobytes: usize,
    pub wal_segment_bytes: usize,
    /// Bytes of the disk that stay free: with less, nothing is applied, built or checkpointed, and searches go on over what
    /// there is.
    pub reserve_bytes: u64,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            optimize_tail: 10_000,
            checkpoint_every: 20_000,
            checkpoint_idle: Duration::from_secs(5),
            max_open: 64,
            batch: 256,
            gather: Duration::from_millis(20),
            replay_before_search: 5_000,
            appliers: 2,
            tick: Duration::from_millis(500),
            heal_interval: Duration::from_secs(60),
            search_ef: 80,
            on_disk: true,
            indexing_kilobytes: 10_000,
            full_scan_kilobytes: 10_000,
            wal_segment_bytes: 1 << 20,
            reserve_bytes: 0,
        }
    }
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

/// Batches an applier gives one collection before it looks at the next.
const TURN_BATCHES: usize = 16;

/// Embedded Qdrant Edge shards, one per collection, in directories that may vanish at any time the process is down.
pub struct EdgeIndex {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) struct Inner {
    pub(super) dir: PathBuf,
    pub(super) feed: Arc<dyn Feed>,
    pub(super) config: EdgeConfig,
    slots: Mutex<BTreeMap<String, Arc<Slot>>>,
    /// Collections with changes to apply.
    apply: Queue,
    /// Collections whose spec may have changed.
    pub(super) rebuild: Queue,
    /// Woken when a shard may need care.
    care: (Mutex<bool>, Condvar),
    pub(super) stopping: AtomicBool,
    clock: AtomicU64,
    pub(super) room: Room,
}

/// What one step of applying came to.
enum Step {
    More,
    Done,
    /// Another thread closed the shard.
    Closed,
    Fault(Fault),
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
        if slot.applied() < seq {
            self.inner.enqueue(&slot);
        }
        let mut progress = slot.progress.lock();
        while progress.applied < seq {
            if self.inner.stopping()
                || slot.gone.load(Ordering::SeqCst)
                || slot.changed.wait_until(&mut progress, deadline).timed_out()
            {
                return progress.applied >= seq;
            }
        }
        true
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

/// Whether a text may be a collection's id, which becomes a directory.
pub(super) fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !text.is_empty() && text.len() <= 200 && text.chars().all(plain)
}

fn closed() -> Error {
    Error::Unavailable("the index is closed".into())
}

/// Opening and using shards.
impl Inner {
    pub(super) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn slot(&self, collection_id: &str) -> Result<Arc<Slot>> {
        if self.stopping() {
            return Err(closed());
        }
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(collection_id) {
            return Ok(slot.clone());
        }
        if !is_id(collection_id) {
            return Err(Error::internal(format!("`{collection_id}` is not a collection id")));
        }
        let slot = Arc::new(Slot::new(collection_id, self.dir.join(collection_id)));
        slots.insert(collection_id.to_owned(), slot.clone());
        Ok(slot)
    }

    /// Runs `call` on the collection's shard, opened first if need be.
    fn with_shard<T>(&self, collection_id: &str, call: impl FnOnce(&Arc<Slot>, &Shard) -> Result<T>) -> Result<T> {
        for _ in 0..OPEN_ATTEMPTS {
            let slot = self.opened(collection_id)?;
            if slot.doubted.lock().is_some() {
                return Err(self.being_rebuilt(&slot));
            }
            let serving = slot.serving.read();
            if let Some(shard) = serving.as_ref() {
                return call(&slot, shard);
            }
        }
        Err(Error::Busy {
            message: format!("the index of `{collection_id}` is opened and closed too often"),
            retry_after_seconds: 1,
        })
    }

    fn being_rebuilt(&self, slot: &Slot) -> Error {
        Error::Unavailable(format!("the index of `{}` was damaged and is being rebuilt; try again", slot.id))
    }

    /// The slot with its shard open and replayed as far as searches must see.
    pub(super) fn opened(&self, collection_id: &str) -> Result<Arc<Slot>> {
        let slot = self.slot(collection_id)?;
        slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        if slot.ready.load(Ordering::SeqCst) {
            return Ok(slot);
        }
        if self.open_and_replay(&slot).inspect_err(|error| slot.fail(error))? {
            self.enqueue(&slot);
        }
        self.evict(&slot);
        Ok(slot)
    }

    /// True: changes are left for the appliers.
    fn open_and_replay(&self, slot: &Arc<Slot>) -> Result<bool> {
        let maintenance = slot.maintenance.lock();
        if slot.ready.load(Ordering::SeqCst) {
            return Ok(false);
        }
        if self.stopping() {
            return Err(closed());
        }
        if slot.gone.load(Ordering::SeqCst) {
            return Err(Error::missing("collection", slot.id.clone()));
        }
        self.open_shard(slot, &maintenance)?;
        let replayed = self.replay(slot, &maintenance)?;
        if slot.serving.read().is_none() {
            return Err(self.being_rebuilt(slot));
        }
        slot.ready.store(true, Ordering::SeqCst);
        Ok(!replayed)
    }

    /// Loads what the directory holds, or starts from nothing.
    fn open_shard(&self, slot: &Arc<Slot>, _maintenance: &MutexGuard<'_, ()>) -> Result<()> {
        let Some(spec) = self.feed.spec(&slot.id)? else {
            return Err(Error::missing("collection", slot.id.clone()));
        };
        let _writer = slot.writer.lock();
        let mut serving = slot.serving.write();
        if serving.is_some() {
            return Ok(());
        }
        let loaded = slot.current_dir().and_then(|dir| match Shard::load(dir.clone(), &self.config) {
            Ok(shard) => Some(shard),
            Err(Fault(reason)) => {
                tracing::warn!(collection_id = slot.id, "the index of `{}` is rebuilt: {reason}", slot.id);
                metrics::counter!("strata_index_set_aside_total").increment(1);
                let _ = manifest::remove(&dir);
                None
            }
        });
        // A shard whose last change the catalog does not have belongs to another catalog, or to a newer state of it.
        let head = self.feed.head(&slot.id)?;
        let loaded = loaded.filter(|shard| {
            let known = shard.applied_at_load <= head;
            if !known {
                tracing::warn!(
                    collection_id = slot.id,
                    "the index of `{}` is ahead of the catalog and is rebuilt",
                    slot.id
                );
            }
            known
        });
        let shard = match loaded {
            Some(shard) => shard,
            None => self.fresh(slot, spec.clone())?,
        };
        if !same_layout(&shard.spec, &spec) {
            self.enqueue_rebuild(slot);
        }
        slot.set(|p| {
            p.applied = shard.applied_at_load;
            p.unoptimized = shard.unoptimized_at_load;
            p.uncheckpointed = 0;
            p.state = ShardState::Loading;
        });
        *serving = Some(shard);
        Ok(())
    }

    fn fresh(&self, slot: &Slot, spec: super::ShardSpec) -> Result<Shard> {
        self.room.check()?;
        let unavailable =
            |Fault(reason)| Error::Unavailable(format!("a shard for `{}` cannot be made: {reason}", slot.id));
        let dir = slot.new_dir().map_err(|e| unavailable(e.into()))?;
        let shard = Shard::create(dir, spec, &self.config).map_err(unavailable)?;
        slot.make_current(&shard).map_err(unavailable)?;
        Ok(shard)
    }

    /// Applies what a search after opening must see. False: there is more, left to the appliers.
    fn replay(&self, slot: &Arc<Slot>, maintenance: &MutexGuard<'_, ()>) -> Result<bool> {
        let batch = self.config.batch.max(1);
        let mut faults = 0;
        for _ in 0..self.config.replay_before_search.div_ceil(batch).max(1) {
            let step = match self.apply(slot) {
                // Searches see what there is; the rest follows when there is room.
                Err(Error::Full(_)) => break,
                step => step?,
            };
            match step {
                Step::More => {}
                Step::Done => {
                    slot.set(|p| p.state = ShardState::Ready);
                    return Ok(true);
                }
                Step::Closed => return Ok(false),
                Step::Fault(fault) => {
                    let error = self.heal(slot, maintenance, &fault);
                    faults += 1;
                    if faults > 1 {
                        return Err(error);
                    }
                }
            }
        }
        slot.set(|p| p.state = ShardState::Rebuilding);
        Ok(false)
    }

    /// Closes the least recently used shards above the bound. Busy ones are passed over.
    fn evict(&self, keep: &Slot) {
        let mut open: Vec<Arc<Slot>> =
            self.slots.lock().values().filter(|s| s.ready.load(Ordering::SeqCst)).cloned().collect();
        let excess = open.len().saturating_sub(self.config.max_open.max(1));
        if excess == 0 {
            return;
        }
        open.sort_by_key(|slot| slot.used.load(Ordering::Relaxed));
        let unused = open.iter().filter(|slot| slot.id != keep.id && !slot.queued.load(Ordering::SeqCst));
        for slot in unused.take(excess) {
            if let Some(maintenance) = slot.maintenance.try_lock() {
                self.close_shard(slot, &maintenance);
            }
        }
    }

    fn close_shard(&self, slot: &Slot, _maintenance: &MutexGuard<'_, ()>) {
        let _writer = slot.writer.lock();
        slot.ready.store(false, Ordering::SeqCst);
        let Some(shard) = slot.serving.write().take() else { return };
        let points = shard.info().map_or(0, |i| i.points_count);
        let (applied, unoptimized) = {
            let progress = slot.progress.lock();
            (progress.applied, progress.unoptimized)
        };
        // A shard left `open` without its last checkpoint is replayed from the one before.
        match shard.close(applied, unoptimized) {
            Ok(()) => slot.set(|p| (p.state, p.points) = (ShardState::Loading, points)),
            Err(Fault(reason)) => {
                tracing::warn!(collection_id = slot.id, "the index of `{}` did not close well: {reason}", slot.id);
                slot.fail(reason);
            }
        }
    }

    pub(super) fn forget(&self, slot: &Arc<Slot>) -> std::io::Result<()> {
        slot.gone.store(true, Ordering::SeqCst);
        let _maintenance = slot.maintenance.lock();
        let _writer = slot.writer.lock();
        slot.ready.store(false, Ordering::SeqCst);
        drop(slot.serving.write().take());
        let removed = slot.remove_files();
        self.slots.lock().remove(&slot.id);
        slot.changed.notify_all();
        removed
    }
}

/// Applying changes.
impl Inner {
    pub(super) fn enqueue(&self, slot: &Arc<Slot>) {
        match slot.queued.swap(true, Ordering::SeqCst) {
            true => self.apply.hurry(slot),
            false => self.apply.push(slot.clone()),
        }
    }

    fn run_applier(&self) {
        while let Some(slot) = self.apply.pop(&self.stopping) {
            // Cleared first: a notification during the work queues the slot again.
            slot.queued.store(false, Ordering::SeqCst);
            if slot.gone.load(Ordering::SeqCst) {
                continue;
            }
            match self.take_turn(&slot) {
                Ok(true) => self.enqueue(&slot),
                Ok(false) => {}
                Err(Error::Missing { .. }) => {
                    let _ = self.forget(&slot);
                }
                Err(error) => {
                    // A full disk is told once, by who watches it.
                    if !matches!(error, Error::Full(_)) {
                        tracing::warn!(
                            collection_id = slot.id,
                            "changes of `{}` were not applied, trying again: {error}",
                            slot.id
                        );
                        slot.fail(&error);
                    }
                    slot.lagging.store(true, Ordering::SeqCst);
                }
            }
        }
    }

    /// Some batches of one collection. True: there are more.
    fn take_turn(&self, slot: &Arc<Slot>) -> Result<bool> {
        self.opened(&slot.id)?;
        let doubt = slot.doubted.lock().clone();
        if let Some(reason) = doubt {
            let maintenance = slot.maintenance.lock();
            self.heal(slot, &maintenance, &Fault(reason));
            return Ok(true);
        }
        for _ in 0..TURN_BATCHES {
            if self.stopping() {
                return Ok(false);
            }
            match self.apply(slot)? {
                Step::More => {}
                Step::Done => {
                    slot.set(|p| p.state = ShardState::Ready);
                    return Ok(false);
                }
                Step::Closed => return Ok(true),
                Step::Fault(fault) => {
                    let maintenance = slot.maintenance.lock();
                    self.heal(slot, &maintenance, &fault);
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Applies one batch to the serving shard. [`Error::Full`] where the disk has no room for more: that is no fault of the
    /// shard, which serves as it is.
    fn apply(&self, slot: &Slot) -> Result<Step> {
        let mut care = slot.writer.lock();
        let serving = slot.serving.read();
        let Some(shard) = serving.as_ref() else { return Ok(Step::Closed) };
        let after = slot.applied();
        let batch = if after < care.until { 1 } else { self.config.batch.max(1) };
        let changes = self.feed.changes_after(&slot.id, after, batch)?;
        let Some(last) = changes.last() else { return Ok(Step::Done) };
        self.room.check()?;
        let healthy: Vec<&Change> = changes.iter().filter(|c| !care.poison.contains(&c.document_seq)).collect();
        if let Err(fault) = shard.apply(&healthy) {
            care.until = last.seq;
            if let [alone] = healthy[..] {
                tracing::error!(
                    collection_id = slot.id,
                    "document {} of `{}` breaks the index and is left out: {}",
                    alone.document_seq,
                    slot.id,
                    fault.0
                );
                care.poison.insert(alone.document_seq);
            }
            return Ok(Step::Fault(fault));
        }
        if let Err(error) = reach(faults::Point::IndexApplied) {
            return Ok(Step::Fault(error.into()));
        }
        metrics::counter!("strata_index_applied_total").increment(changes.len() as u64);
        let count = changes.len() as u64;
        let mut urgent = false;
        slot.set(|p| {
            p.applied = last.seq;
            p.uncheckpointed += count;
            p.unoptimized += count;
            p.last_write = Some(Instant::now());
            urgent = p.uncheckpointed >= self.config.checkpoint_every || p.unoptimized >= self.config.optimize_tail;
        });
        if urgent {
            self.wake_maintainer();
        }
        Ok(if changes.len() < batch { Step::Done } else { Step::More })
    }

    /// A search met a fault: no more searches until an applier replaced the shard.
    fn doubt(&self, slot: &Arc<Slot>, Fault(reason): Fault) -> Error {
        tracing::error!(collection_id = slot.id, "a search in `{}` failed: {reason}", slot.id);
        let recent = slot.progress.lock().last_heal.is_some_and(|at| at.elapsed() < self.config.heal_interval);
        slot.fail(&reason);
        if recent {
            return Error::Unavailable(format!("the index of `{}` could not answer", slot.id));
        }
        *slot.doubted.lock() = Some(reason);
        self.enqueue(slot);
        self.being_rebuilt(slot)
    }

    /// Sets the serving shard aside for an empty one, which the appliers fill. Returns what to tell a caller.
    fn heal(&self, slot: &Arc<Slot>, _maintenance: &MutexGuard<'_, ()>, Fault(reason): &Fault) -> Error {
        tracing::error!(collection_id = slot.id, "the index of `{}` is set aside and rebuilt: {reason}", slot.id);
        metrics::counter!("strata_index_set_aside_total").increment(1);
        let _writer = slot.writer.lock();
        let mut serving = slot.serving.write();
        if let Some(broken) = serving.take() {
            let dir = broken.dir.clone();
            drop(broken);
            let _ = manifest::remove(&dir);
        }
        let fresh = match self.feed.spec(&slot.id) {
            Ok(Some(spec)) => self.fresh(slot, spec).ok(),
            Ok(None) | Err(_) => None,
        };
        // Without a fresh shard the next use tries to open one.
        if fresh.is_none() {
            slot.ready.store(false, Ordering::SeqCst);
        }
        *serving = fresh;
        *slot.doubted.lock() = None;
        slot.set(|p| {
            p.applied = 0;
            p.state = ShardState::Rebuilding;
            p.last_error = Some(reason.clone());
            (p.uncheckpointed, p.unoptimized) = (0, 0);
            p.last_heal = Some(Instant::now());
        });
        self.enqueue(slot);
        self.being_rebuilt(slot)
    }
}

/// Background care.
impl Inner {
    fn wake_maintainer(&self) {
        *self.care.0.lock() = true;
        self.care.1.notify_all();
    }

    fn run_maintainer(&self) {
        self.remove_leftovers();
        while !self.stopping() {
            {
                let mut asked = self.care.0.lock();
                if !*asked {
                    self.care.1.wait_for(&mut asked, self.config.tick);
                }
                *asked = false;
            }
            let slots: Vec<Arc<Slot>> = self.slots.lock().values().cloned().collect();
            let mut points = 0;
            for slot in &slots {
                if self.stopping() {
                    return;
                }
                if slot.lagging.swap(false, Ordering::SeqCst) {
                    self.enqueue(slot);
                }
                self.maintain(slot);
                points += slot.progress.lock().points;
            }
            metrics::gauge!("strata_index_points").set(points as f64);
            metrics::gauge!("strata_index_open_shards")
                .set(slots.iter().filter(|s| s.ready.load(Ordering::SeqCst)).count() as f64);
        }
    }

    fn maintain(&self, slot: &Arc<Slot>) {
        let (optimize, checkpoint) = {
            let p = slot.progress.lock();
            let idle = p.last_write.is_some_and(|at| at.elapsed() >= self.config.checkpoint_idle);
            let due = p.uncheckpointed >= self.config.checkpoint_every || (p.uncheckpointed > 0 && idle);
            (p.unoptimized >= self.config.optimize_tail, due)
        };
        if !(optimize || checkpoint) || !slot.ready.load(Ordering::SeqCst) {
            return;
        }
        // What was not kept is replayed from the catalog.
        if self.room.check().is_err() {
            return;
        }
        let Some(maintenance) = slot.maintenance.try_lock() else { return };
        let done = if optimize { self.optimize(slot, &maintenance) } else { Ok(()) };
        if let Err(fault) = done.and_then(|()| self.checkpoint(slot, &maintenance)) {
            self.heal(slot, &maintenance, &fault);
        }
    }

    fn optimize(&self, slot: &Slot, _maintenance: &MutexGuard<'_, ()>) -> Result<(), Fault> {
        let serving = slot.serving.read();
        let Some(shard) = serving.as_ref() else { return Ok(()) };
        let before = slot.progress.lock().unoptimized;
        let started = Instant::now();
        shard.optimize()?;
        metrics::histogram!("strata_index_optimize_seconds").record(started.elapsed().as_secs_f64());
        slot.set(|p| p.unoptimized = p.unoptimized.saturating_sub(before));
        Ok(())
    }

    fn checkpoint(&self, slot: &Slot, _maintenance: &MutexGuard<'_, ()>) -> Result<(), Fault> {
        let _writer = slot.writer.lock();
        let serving = slot.serving.read();
        let Some(shard) = serving.as_ref() else { return Ok(()) };
        let (applied, unoptimized) = {
            let progress = slot.progress.lock();
            (progress.applied, progress.unoptimized)
        };
        shard.checkpoint(applied, unoptimized)?;
        let points = shard.info()?.points_count;
        slot.set(|p| (p.uncheckpointed, p.points) = (0, points));
        Ok(())
    }
}
