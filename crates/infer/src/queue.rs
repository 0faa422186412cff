//! The bounded queue between callers and the workers of one model: two priorities, the pool that batches are cut from,
//! and the rule of whose turn it is.

use crate::limits::{MAX_BATCH_TOKENS, MAX_QUERY_STREAK, POOL_BATCHES};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
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

/// The answer to a job: what the model makes of each text, in order.
pub type Answer<V> = Result<Vec<V>>;

/// Texts that are answered together. The permit is its room in the queue, given back when the job is dropped.
pub struct Job<V> {
    pub texts: Vec<String>,
    pub reply: oneshot::Sender<Answer<V>>,
    pub queued_at: Instant,
    pub permit: OwnedSemaphorePermit,
}

/// A job whose texts are tokenised. Its rows may be in several batches and at several workers.
pub struct Open<V>(Mutex<Option<Unanswered<V>>>);

struct Unanswered<V> {
    job: Job<V>,
    vectors: Vec<V>,
    left: usize,
}

impl<V: Default> Open<V> {
    pub fn new(job: Job<V>) -> Self {
        let left = job.texts.len();
        Self(Mutex::new(Some(Unanswered {
            job,
            vectors: std::iter::repeat_with(V::default).take(left).collect(),
            left,
        })))
    }

    /// It was answered, or its caller has gone away.
    pub fn is_over(&self) -> bool {
        let mut open = self.0.lock();
        if open.as_ref().is_some_and(|o| o.job.reply.is_closed()) {
            // Its room is for others now.
            *open = None;
        }
        open.is_none()
    }

    /// Takes the vector of one text, and answers with the last.
    pub fn fill(&self, position: usize, vector: V) {
        let mut open = self.0.lock();
        let Some(unanswered) = open.as_mut() else { return };
        unanswered.vectors[position] = vector;
        unanswered.left -= 1;
        if unanswered.left == 0
            && let Some(Unanswered { job, vectors, .. }) = open.take()
        {
            job.answer(Ok(vectors));
        }
    }

    /// Answers with an error, unless it was answered.
    pub fn fail(&self, error: strata_model::Error) {
        if let Some(unanswered) = self.0.lock().take() {
            unanswered.job.answer(Err(error));
        }
    }
}

impl<V> Job<V> {
    /// Gives the room back, then answers. A caller that has gone away is no failure.
    pub fn answer(self, with: Answer<V>) {
        let Self { reply, permit, .. } = self;
        drop(permit);
        let _ = reply.send(with);
    }
}

/// One text of a job.
pub struct Row<V> {
    pub job: Arc<Open<V>>,
    pub position: usize,
    pub tokens: Vec<u32>,
}

/// What a worker does next.
pub enum Next<V> {
    /// Answer these at once.
    Query(Vec<Job<V>>),
    /// Tokenise these and give their rows to [`Queue::fill`].
    Ingest(Vec<Job<V>>),
    /// Run this batch. `alone`: no other batch is running or could be, so that it may have every thread.
    Batch { rows: Vec<Row<V>>, alone: bool },
    /// Nobody can ask any more, and everybody was answered or is being answered.
    Closed,
}

struct State<V> {
    query: VecDeque<Job<V>>,
    ingest: VecDeque<Job<V>>,
    /// Ingest rows, shortest first; batches are cut from the end. It is filled only when empty, so that no row is
    /// passed by for ever.
    pool: Vec<Row<V>>,
    query_streak: usize,
    /// Batches of the pool that are running.
    running: usize,
    closed: bool,
}

impl<V> Default for State<V> {
    fn default() -> Self {
        Self {
            query: VecDeque::new(),
            ingest: VecDeque::new(),
            pool: Vec::new(),
            query_streak: 0,
            running: 0,
            closed: false,
        }
    }
}

pub struct Queue<V> {
    state: Mutex<State<V>>,
    changed: Condvar,
    max_batch: usize,
    max_wait: Duration,
}

impl<V: Default> Queue<V> {
    pub fn new(max_batch: usize, max_wait: Duration) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), max_batch, max_wait }
    }

    pub fn push(&self, priority: Priority, job: Job<V>) {
        let mut state = self.state.lock();
        match priority {
            Priority::Query => state.query.push_back(job),
            Priority::Ingest => state.ingest.push_back(job),
        }
        self.changed.notify_one();
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Adds rows to the pool.
    pub fn fill(&self, rows: Vec<Row<V>>) {
        let mut state = self.state.lock();
        state.pool.extend(rows);
        state.pool.sort_by_key(|row| row.tokens.len());
        self.changed.notify_all();
    }

    /// Says that a batch of the pool was run.
    pub fn ran(&self) {
        self.state.lock().running -= 1;
    }

    /// Blocks until there is something to do.
    ///
    /// Queries go first, but after [`MAX_QUERY_STREAK`] rounds of them ingest gets one. A few ingest texts wait up to
    /// `max_wait` for more; queries never wait.
    pub fn next(&self) -> Next<V> {
        let mut state = self.state.lock();
        loop {
            let ingest_waits = !state.pool.is_empty() || !state.ingest.is_empty();
            let queries_turn = state.query_streak < MAX_QUERY_STREAK || !ingest_waits;
            if !state.query.is_empty() && queries_turn {
                state.query_streak += 1;
                return Next::Query(take(&mut state.query, self.max_batch));
            }
            state.pool.retain(|row| !row.job.is_over());
            if !state.pool.is_empty() {
                state.query_streak = 0;
                let rows = cut(&mut state.pool, self.max_batch);
                let alone = state.running == 0 && state.pool.is_empty() && state.ingest.is_empty();
                state.running += 1;
                return Next::Batch { rows, alone };
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

/// Cuts one batch off the end of `rows`, which stand in order of length: at most `max_rows` rows and
/// [`MAX_BATCH_TOKENS`] tokens with the padding, but at least one row.
pub fn cut<V>(rows: &mut Vec<Row<V>>, max_rows: usize) -> Vec<Row<V>> {
    let longest = rows.last().map_or(1, |row| row.tokens.len().max(1));
    let count = (MAX_BATCH_TOKENS / longest).clamp(1, max_rows).min(rows.len());
    rows.split_off(rows.len() - count)
}

/// Whole jobs from the front: at least one, then as many as stay within `max_rows`.
fn take<V>(jobs: &mut VecDeque<Job<V>>, max_rows: usize) -> Vec<Job<V>> {
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
