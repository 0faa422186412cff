//! Opening shards, using them, and closing those that are not used.

use super::Inner;
use super::apply::Step;
use crate::index::shard::{Fault, Shard, same_layout};
use crate::index::slot::Slot;
use crate::index::{ShardSpec, ShardState, manifest};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strata_model::{Error, Result};

/// How often one caller tries to open a shard that others close or lose.
const OPEN_ATTEMPTS: usize = 4;

/// Whether a text may be a collection's id, which becomes a directory.
pub(super) fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !text.is_empty() && text.len() <= 200 && text.chars().all(plain)
}

fn closed() -> Error {
    Error::Unavailable("the index is closed".into())
}

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
    pub(super) fn with_shard<T>(
        &self,
        collection_id: &str,
        call: impl FnOnce(&Arc<Slot>, &Shard) -> Result<T>,
    ) -> Result<T> {
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

    pub(super) fn being_rebuilt(&self, slot: &Slot) -> Error {
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

    pub(super) fn fresh(&self, slot: &Slot, spec: ShardSpec) -> Result<Shard> {
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
                Step::Last | Step::Done => {
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

    pub(super) fn close_shard(&self, slot: &Slot, _maintenance: &MutexGuard<'_, ()>) {
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
