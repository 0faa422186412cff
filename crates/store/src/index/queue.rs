//! Collections that wait for a thread, each of them once.

use super::slot::Slot;
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// In the order of their times, where those who push agree on one delay.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<(Instant, Arc<Slot>)>>,
    arrived: Condvar,
}

impl Queue {
    /// Its turn is now, after those whose turn it was before.
    pub(super) fn push(&self, slot: Arc<Slot>) {
        let (now, mut waiting) = (Instant::now(), self.waiting.lock());
        let at = waiting.iter().position(|(due, _)| *due > now).unwrap_or(waiting.len());
        waiting.insert(at, (now, slot));
        self.arrived.notify_one();
    }

    /// Its turn is after `delay`.
    pub(super) fn push_later(&self, slot: Arc<Slot>, delay: Duration) {
        self.waiting.lock().push_back((Instant::now() + delay, slot));
        self.arrived.notify_one();
    }

    /// If it waits here, its turn is now.
    pub(super) fn hurry(&self, slot: &Arc<Slot>) {
        let mut waiting = self.waiting.lock();
        let found = waiting.iter().position(|(_, other)| Arc::ptr_eq(other, slot));
        if let Some((due, slot)) = found.and_then(|at| waiting.remove(at)) {
            waiting.push_front((due.min(Instant::now()), slot));
            self.arrived.notify_one();
        }
    }

    /// Waits for the next; `None` when stopping.
    pub(super) fn pop(&self, stopping: &AtomicBool) -> Option<Arc<Slot>> {
        let mut waiting = self.waiting.lock();
        loop {
            if stopping.load(Ordering::SeqCst) {
                return None;
            }
            match waiting.front().map(|(due, _)| *due) {
                Some(due) if due <= Instant::now() => return waiting.pop_front().map(|(_, slot)| slot),
                Some(due) => drop(self.arrived.wait_until(&mut waiting, due)),
                None => self.arrived.wait(&mut waiting),
            }
        }
    }

    /// Wakes all; taking the lock first, so that nobody is between looking and waiting.
    pub(super) fn wake_all(&self) {
        let _waiting = self.waiting.lock();
        self.arrived.notify_all();
    }
}
