//! Setting aside a shard that met a fault, for an empty one that is filled anew.

use super::Inner;
use crate::index::shard::Fault;
use crate::index::slot::Slot;
use crate::index::{ShardState, manifest};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use strata_model::Error;

impl Inner {
    /// A search met a fault: no more searches until an applier replaced the shard.
    pub(super) fn doubt(&self, slot: &Arc<Slot>, Fault(reason): Fault) -> Error {
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
    pub(super) fn heal(&self, slot: &Arc<Slot>, _maintenance: &MutexGuard<'_, ()>, Fault(reason): &Fault) -> Error {
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
