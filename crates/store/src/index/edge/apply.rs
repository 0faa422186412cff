//! Applying changes, batch by batch.

use super::Inner;
use super::contention::Work;
use crate::faults::{self, reach};
use crate::index::shard::Fault;
use crate::index::slot::Slot;
use crate::index::{Change, ShardState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use strata_model::{Error, Result};

/// Batches an applier gives one collection before it looks at the next.
const TURN_BATCHES: usize = 16;

/// What a turn left to do.
enum Turn {
    Done,
    More,
    /// More, after this time.
    Later(Duration),
}

/// What one step of applying came to.
pub(super) enum Step {
    /// A full batch: there may be more.
    More,
    /// The last batch there was.
    Last,
    /// Nothing, since there was nothing.
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

    fn enqueue_later(&self, slot: &Arc<Slot>, pause: Duration) {
        match slot.queued.swap(true, Ordering::SeqCst) {
            true => self.apply.postpone(slot, pause),
            false => self.apply.push_later(slot.clone(), pause),
        }
        // Who began to wait meanwhile may have hurried it before.
        if slot.awaited.load(Ordering::SeqCst) > 0 {
            self.apply.hurry(slot);
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
                Ok(Turn::Done) => *slot.giving_way.lock() = None,
                Ok(Turn::More) => self.enqueue(&slot),
                Ok(Turn::Later(pause)) => self.enqueue_later(&slot, pause),
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

    /// Some batches of one collection.
    fn take_turn(&self, slot: &Arc<Slot>) -> Result<Turn> {
        self.opened(&slot.id)?;
        let doubt = slot.doubted.lock().clone();
        if let Some(reason) = doubt {
            let maintenance = slot.maintenance.lock();
            self.heal(slot, &maintenance, &Fault(reason));
            return Ok(Turn::More);
        }
        for _ in 0..TURN_BATCHES {
            if self.stopping() {
                return Ok(Turn::Done);
            }
            let work = Work::begin();
            match self.apply(slot)? {
                Step::More => {
                    let pause = self.contention.pause_after(work);
                    if let Some(pause) = pause.filter(|_| self.may_give_way(slot)) {
                        return Ok(Turn::Later(pause));
                    }
                }
                Step::Last => {
                    slot.set(|p| p.state = ShardState::Ready);
                    *slot.giving_way.lock() = None;
                    // What comes meanwhile is applied together.
                    let pause = self.contention.pause_after(work).filter(|_| self.may_give_way(slot));
                    return Ok(pause.map_or(Turn::Done, Turn::Later));
                }
                Step::Done => {
                    slot.set(|p| p.state = ShardState::Ready);
                    return Ok(Turn::Done);
                }
                Step::Closed => return Ok(Turn::More),
                Step::Fault(fault) => {
                    let maintenance = slot.maintenance.lock();
                    self.heal(slot, &maintenance, &fault);
                    return Ok(Turn::More);
                }
            }
        }
        Ok(Turn::More)
    }

    /// Nobody waits for its changes, and they have not given way for long.
    fn may_give_way(&self, slot: &Slot) -> bool {
        let since = *slot.giving_way.lock().get_or_insert_with(Instant::now);
        slot.awaited.load(Ordering::SeqCst) == 0 && since.elapsed() < self.config.give_way
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
            urgent = p.uncheckpointed >= self.config.checkpoint_every || p.unoptimized >= self.tail();
        });
        if urgent {
            self.wake_maintainer();
        }
        Ok(if changes.len() < batch { Step::Last } else { Step::More })
    }
}
