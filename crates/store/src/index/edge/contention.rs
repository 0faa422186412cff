//! Whether others want the processors that the index works on.
//!
//! The index has much to do after writes that were answered long ago. Niceness alone does not let the threads that answer
//! requests go first: the scheduler lets a thread end its slice before it wakes another, a millisecond or more, and a commit
//! wakes the writer and those who wait for it several times. So work that had to wait for a processor is followed by a pause.

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Work that took this many times its processor time had to wait for a processor, or for a disk.
const STRETCHED: f64 = 1.25;
/// Pauses are this many times as long as the work before them.
const PAUSES: u32 = 6;
/// The longest pause.
const LONGEST: Duration = Duration::from_millis(400);
/// How long after stretched work the processors are taken to be wanted by others.
const MEMORY: Duration = Duration::from_secs(1);

/// What the index's work has shown of others' wants.
#[derive(Default)]
pub(super) struct Contention {
    /// When work last was stretched.
    last: Mutex<Option<Instant>>,
    /// Whether the newest work was.
    newest: AtomicBool,
}

/// Work of the calling thread.
pub(super) struct Work {
    begun: Instant,
    processor: Duration,
}

impl Work {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), processor: processor_time() }
    }
}

/// What the calling thread has had of the processors.
fn processor_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl Contention {
    /// How long to leave the processors to others after `work`, which ends now; `None` where nobody else wants them.
    pub(super) fn pause_after(&self, work: Work) -> Option<Duration> {
        let taken = work.begun.elapsed();
        let worked = processor_time().saturating_sub(work.processor);
        let is_stretched = taken > worked.mul_f64(STRETCHED);
        if is_stretched {
            *self.last.lock() = Some(Instant::now());
        }
        // A thread that yields is sometimes lucky: one work alone that was not stretched says little.
        let was_stretched = self.newest.swap(is_stretched, Ordering::Relaxed);
        (is_stretched || was_stretched).then(|| (taken * PAUSES).min(LONGEST))
    }

    /// Whether others want the processors these days.
    pub(super) fn is_felt(&self) -> bool {
        self.last.lock().is_some_and(|last| last.elapsed() < MEMORY)
    }
}
