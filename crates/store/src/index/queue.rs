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

/// In the order of their times.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<(Instant, Arc<Slot>)>>,
    arrived: Condvar,
}

impl Queue {
    /// Its turn is now, after those whose turn it was before.
    pub(super) fn push(&self, slot: Arc<Slot>) {
        self.push_later(slot, Duration::ZERO);
    }

    /// Its turn is after `delay`.
    pub(super) fn push_later(&self, slot: Arc<Slot>, delay: Duration) {
        let (due, mut waiting) = (Instant::now() + delay, self.waiting.lock());
        insert(&mut waiting, due, slot);
        self.arrived.notify_one();
    }

    /// If it waits here, its turn is after `delay`.
    pub(super) fn postpone(&self, slot: &Arc<Slot>, delay: Duration) {
        let (due, mut waiting) = (Instant::now() + delay, self.waiting.lock());
        let found = waiting.iter().position(|(_, other)| Arc::ptr_eq(other, slot));
        if let Some((_, slot)) = found.and_then(|at| waiting.remove(at)) {
            insert(&mut waiting, due, slot);
        }
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

fn insert(waiting: &mut VecDeque<(Instant, Arc<Slot>)>, due: Instant, slot: Arc<Slot>) {
    let at = waiting.partition_point(|(other, _)| *other <= due);
    waiting.insert(at, (due, slot));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_in_order_of_their_times_and_can_be_moved() {
        let slots: Vec<Arc<Slot>> = ["a", "b", "c", "d"].map(|id| Arc::new(Slot::new(id, "/nowhere".into()))).into();
        let [a, b, c, d] = &slots[..] else { unreachable!() };
        let (queue, never) = (Queue::default(), AtomicBool::new(false));
        let hour = Duration::from_secs(3600);
        queue.push_later(a.clone(), 2 * hour);
        queue.push_later(b.clone(), hour);
        queue.push(c.clone());
        queue.push(d.clone());
        queue.postpone(c, 3 * hour);
        let next = || queue.pop(&never).map(|slot| slot.id.clone());
        assert_eq!(next().as_deref(), Some("d"), "it is the only one whose turn it is");
        for slot in [a, b, c] {
            queue.hurry(slot);
            assert_eq!(next(), Some(slot.id.clone()));
        }
        queue.postpone(a, hour);
        assert!(queue.waiting.lock().is_empty(), "what does not wait is not put there");
    }
}
