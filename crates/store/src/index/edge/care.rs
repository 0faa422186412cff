//! Background care: graphs for what is new, and checkpoints.

use super::Inner;
use crate::index::shard::Fault;
use crate::index::slot::Slot;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Inner {
    pub(super) fn wake_maintainer(&self) {
        *self.care.0.lock() = true;
        self.care.1.notify_all();
    }

    pub(super) fn run_maintainer(&self) {
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
            (p.unoptimized >= self.tail(), due)
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

    /// Changes after which graphs are built for them.
    pub(super) fn tail(&self) -> u64 {
        let usual = self.config.optimize_tail;
        if self.contention.is_felt() { usual.max(self.config.contended_tail) } else { usual }
    }

    pub(super) fn optimize(&self, slot: &Slot, _maintenance: &MutexGuard<'_, ()>) -> Result<(), Fault> {
        let serving = slot.serving.read();
        let Some(shard) = serving.as_ref() else { return Ok(()) };
        let before = slot.progress.lock().unoptimized;
        let started = Instant::now();
        shard.optimize()?;
        metrics::histogram!("strata_index_optimize_seconds").record(started.elapsed().as_secs_f64());
        slot.set(|p| p.unoptimized = p.unoptimized.saturating_sub(before));
        Ok(())
    }

    pub(super) fn checkpoint(&self, slot: &Slot, _maintenance: &MutexGuard<'_, ()>) -> Result<(), Fault> {
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
