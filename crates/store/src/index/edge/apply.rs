//! Applying changes, batch by batch.

use super::Inner;
use crate::faults::{self, reach};
use crate::index::shard::Fault;
use crate::index::slot::Slot;
use crate::index::{Change, ShardState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use strata_model::{Error, Result};

/// Batches an applier gives one collection before it looks at the next.
const TURN_BATCHES: usize = 16;

/// What one step of applying came to.
pub(super) enum Step {
    More,
    Done,
    /// Another thread closed the shard.
    Closed,
    Fault(Fault),
}

impl Inner {
    pub(super) fn enqueue(&self, slot: &Arc<Slot>) {
        match slot.queued.swap(true, Ordering::SeqCst) {
            true => self.apply.hurry(slot),
            false => self.apply.push(slot.clone()),
        }
    }

    pub(super) fn run_applier(&self) {
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
    pub(super) fn apply(&self, slot: &Slot) -> Result<Step> {
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
}
