//! Shards for changed specs, built by one thread beside those that serve, and swapped in when they have caught up.

use super::Inner;
use crate::faults::{self, reach};
use crate::index::Change;
use crate::index::shard::{Fault, Shard, same_layout};
use crate::index::slot::Slot;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use strata_model::{Error, Result};

impl Inner {
    pub(super) fn enqueue_rebuild(&self, slot: &Arc<Slot>) {
        if !slot.rebuild_queued.swap(true, Ordering::SeqCst) {
            self.rebuild.push(slot.clone());
        }
    }

    pub(super) fn run_rebuilder(&self) {
        while let Some(slot) = self.rebuild.pop(&self.stopping) {
            slot.rebuilding.store(true, Ordering::SeqCst);
            slot.rebuild_queued.store(false, Ordering::SeqCst);
            let done = self.rebuild(&slot);
            slot.rebuilding.store(false, Ordering::SeqCst);
            if let Err(error) = done {
                tracing::warn!(collection_id = slot.id, "`{}` was not rebuilt for its new spec: {error}", slot.id);
                slot.fail(error);
            }
        }
    }

    /// Builds a shard for the collection's present spec beside the serving one and swaps it in when it has caught up.
    fn rebuild(&self, slot: &Arc<Slot>) -> Result<()> {
        if slot.gone.load(Ordering::SeqCst) {
            return Ok(());
        }
        let Some(spec) = self.feed.spec(&slot.id)? else { return Ok(()) };
        self.opened(&slot.id)?;
        if slot.serving.read().as_ref().is_none_or(|shard| same_layout(&shard.spec, &spec)) {
            return Ok(());
        }
        self.room.check()?;
        let failed = |Fault(reason)| Error::Unavailable(reason);
        let dir = slot.new_dir().map_err(|e| failed(e.into()))?;
        let next = Shard::create(dir.clone(), spec, &self.config).map_err(failed)?;
        let done = self.fill_and_swap(slot, next);
        if !matches!(done, Ok(true)) {
            let _ = fs::remove_dir_all(dir);
        }
        // The spec may have changed again. After a failure, the next `respec` tries.
        self.enqueue(slot);
        if done? {
            self.enqueue_rebuild(slot);
        }
        Ok(())
    }

    fn fill_and_swap(&self, slot: &Arc<Slot>, next: Shard) -> Result<bool> {
        let failed = |Fault(reason)| Error::Unavailable(reason);
        let poison = slot.writer.lock().poison.clone();
        let (mut applied, mut count) = self.catch_up(slot, &next, 0, &poison)?;
        while count >= self.config.optimize_tail && !self.stopping() {
            next.optimize().map_err(failed)?;
            (applied, count) = self.catch_up(slot, &next, applied, &poison)?;
        }
        let _maintenance = slot.maintenance.lock();
        let _writer = slot.writer.lock();
        let mut serving = slot.serving.write();
        let (applied, last) = self.catch_up(slot, &next, applied, &poison)?;
        if self.stopping() || slot.gone.load(Ordering::SeqCst) {
            return Ok(false);
        }
        next.checkpoint(applied, count + last).map_err(failed)?;
        reach(faults::Point::IndexRebuilt).map_err(Error::internal)?;
        slot.make_current(&next).map_err(failed)?;
        let old = serving.replace(next);
        slot.ready.store(true, Ordering::SeqCst);
        slot.set(|p| {
            p.applied = applied;
            p.uncheckpointed = 0;
            p.unoptimized = count + last;
            p.last_error = None;
        });
        if let Some(old) = old {
            let dir = old.dir.clone();
            drop(old);
            let _ = fs::remove_dir_all(dir);
        }
        Ok(true)
    }

    /// Applies everything after `applied` to a shard that nobody else uses. Returns the newest change and the count.
    fn catch_up(&self, slot: &Slot, shard: &Shard, mut applied: i64, poison: &BTreeSet<i64>) -> Result<(i64, u64)> {
        let mut count = 0;
        while !self.stopping() && !slot.gone.load(Ordering::SeqCst) {
            let changes = self.feed.changes_after(&slot.id, applied, self.config.batch.max(1))?;
            let Some(last) = changes.last() else { break };
            self.room.check()?;
            let healthy: Vec<&Change> = changes.iter().filter(|c| !poison.contains(&c.document_seq)).collect();
            shard.apply(&healthy).map_err(|Fault(reason)| Error::Unavailable(reason))?;
            applied = last.seq;
            count += changes.len() as u64;
        }
        Ok((applied, count))
    }
}
