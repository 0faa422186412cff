//! The bounded queue between callers and one worker: two priorities, and the rule of whose turn it is.

use crate::limits::{MAX_QUERY_STREAK, POOL_BATCHES};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use strata_model::Result;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Who waits for a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// A person or a search: goes first, is refused when too many wait.
    Query,
    /// Background work: fills the batches, waits for room.
    Ingest,
}

impl Priority {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Ingest => "ingest",
        }
    }
}

/// The answer to a job: one vector a text, in order.
pub type Answer = Result<Vec<Vec<f32>>>;

/// Texts that are answered together. The permit is its room in the queue, given back when the job is dropped.
pub struct Job {
    pub texts: Vec<String>,
    pub reply: oneshot::Sender<Answer>,
    pub queued_at: Instant,
    pub permit: OwnedSemaphorePermit,
}

/// What the worker does next.
pub enum Next {
    /// Answer these at once.
    Query(Vec<Job>),
    /// Add these to the pool.
    Ingest(Vec<Job>),
    /// Run one batch of the pool.
    Pool,
    /// Nobody can ask any more, and everybody was answered.
    Closed,
}

#[derive(Default)]
struct State {
    query: VecDeque<Job>,
    ingest: VecDeque<Job>,
    query_streak: usize,
    closed: bool,
}

pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    max_batch: usize,
    max_wait: Duration,
}

impl Queue {
    pub fn new(max_batch: usize, max_wait: Duration) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), max_batch, max_wait }
    }
    pub fn push(&self, priority: Priority, job: Job) {
        let mut state = self.state.lock();
        match priority {
            Priority::Query => state.query.push_back(job),
            Priority::Ingest => state.ingest.push_back(job),
        }
        self.changed.notify_one();
    }
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }
    /// Blocks until there is something to do. `pool_empty` says whether the worker has no ingest rows at hand.
    ///
    /// Queries go first, but after [`MAX_QUERY_STREAK`] rounds of them ingest gets one. A few ingest texts wait up to
    /// `max_wait` for more; queries never wait.
    pub fn next(&self, pool_empty: bool) -> Next {
        let mut state = self.state.lock();
        loop {
            let ingest_waits = !pool_empty || !state.ingest.is_empty();
            let queries_turn = state.query_streak < MAX_QUERY_STREAK || !ingest_waits;
            if !state.query.is_empty() && queries_turn {
                state.query_streak += 1;
                return Next::Query(take(&mut state.query, self.max_batch));
            }
            if !pool_empty {
                state.query_streak = 0;
                return Next::Pool;
            }
            if let Some(first) = state.ingest.front() {
                let deadline = first.queued_at + self.max_wait;
                let rows: usize = state.ingest.iter().map(|j| j.texts.len()).sum();
                if rows >= self.max_batch || state.closed || !state.query.is_empty() || Instant::now() >= deadline {
                    // The streak goes on until a batch of them has run.
                    return Next::Ingest(take(&mut state.ingest, self.max_batch * POOL_BATCHES));
                }
                self.changed.wait_until(&mut state, deadline);
                continue;
            }
            if state.closed {
                return Next::Closed;
            }
            self.changed.wait(&mut state);
        }
    }
}

/// Whole jobs from the front: at least one, then as many as stay within `max_rows`.
fn take(jobs: &mut VecDeque<Job>, max_rows: usize) -> Vec<Job> {
    let mut rows = 0;
    let mut taken = Vec::new();
    while let Some(job) = jobs.front() {
        rows += job.texts.len();
        if !taken.is_empty() && rows > max_rows {
            break;
        }
        taken.extend(jobs.pop_front());
    }
    taken
}
