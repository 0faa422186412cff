//! One thread that owns one model, and the handle that feeds it. It tokenises, sorts by length, batches across callers
//! and answers; it knows nothing of the model but two functions.

use crate::limits::{MAX_BATCH_ROWS, MAX_BATCH_TOKENS, MAX_INGEST_TEXTS, MAX_QUERY_TEXTS, MAX_TASK_TEXTS};
use crate::queue::{Answer, Job, Next, Priority, Queue};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use strata_model::{Error, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};

/// Token ids of several texts, padded with zeros to the longest.
pub struct Batch {
    pub rows: usize,
    pub columns: usize,
    /// `[rows, columns]`, row by row.
    pub ids: Vec<i32>,
    /// `[rows, columns]`: 1 for a token, 0 for padding.
    pub mask: Vec<i32>,
}

type Tokenise = dyn FnMut(&str) -> Result<Vec<u32>> + Send;
type Run = dyn FnMut(&Batch) -> Answer + Send;

/// What a model does: text to tokens, and a batch to one vector a row. Either may panic.
pub struct Steps {
    pub tokenise: Box<Tokenise>,
    pub run: Box<Run>,
}

/// The owner of a worker thread. When the last handle is dropped the thread answers what is queued and ends.
pub struct Batcher {
    queue: Arc<Queue>,
    query_room: Arc<Semaphore>,
    ingest_room: Arc<Semaphore>,
}

impl Drop for Batcher {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Batcher {
    /// Starts the thread. `name` is the model's id, used in metrics.
    pub fn start(name: &'static str, max_batch: usize, max_wait: Duration, steps: Steps) -> Result<Self> {
        let max_batch = max_batch.clamp(1, MAX_BATCH_ROWS);
        let queue = Arc::new(Queue::new(max_batch, max_wait));
        let mut worker = Worker {
            name,
            max_batch,
            queue: queue.clone(),
            steps,
            open: HashMap::new(),
            next_job: 0,
            pool: Vec::new(),
        };
        std::thread::Builder::new()
            .name(format!("model-{name}"))
            .spawn(move || worker.work())
            .map_err(|e| Error::internal(format!("the worker of model `{name}` cannot start: {e}")))?;
        Ok(Self {
            queue,
            query_room: Arc::new(Semaphore::new(MAX_QUERY_TEXTS)),
            ingest_room: Arc::new(Semaphore::new(MAX_INGEST_TEXTS)),
        })
    }

    /// One vector a text, in order. Dropping the future gives up what has not run yet.
    pub async fn submit(&self, priority: Priority, texts: Vec<String>) -> Answer {
        let mut vectors = Vec::with_capacity(texts.len());
        let mut answers = Vec::new();
        let mut texts = texts.into_iter();
        loop {
            let part: Vec<String> = texts.by_ref().take(MAX_TASK_TEXTS).collect();
            if part.is_empty() {
                break;
            }
            let permit = self.room(priority, part.len()).await?;
            let (reply, answer) = oneshot::channel();
            self.queue.push(priority, Job { texts: part, reply, queued_at: Instant::now(), permit });
            answers.push(answer);
        }
        for answer in answers {
            vectors.extend(answer.await.map_err(|_| Error::internal("the model's worker ended without an answer"))??);
        }
        Ok(vectors)
    }

    async fn room(&self, priority: Priority, texts: usize) -> Result<OwnedSemaphorePermit> {
        let count = u32::try_from(texts).map_err(Error::internal)?;
        match priority {
            Priority::Ingest => self.ingest_room.clone().acquire_many_owned(count).await.map_err(Error::internal),
            Priority::Query => self.query_room.clone().try_acquire_many_owned(count).map_err(|e| match e {
                TryAcquireError::NoPermits => Error::Busy {
                    message: format!("{MAX_QUERY_TEXTS} query texts are already waiting for the model"),
                    retry_after_seconds: 1,
                },
                TryAcquireError::Closed => Error::internal(e),
            }),
        }
    }
}

/// A job whose rows are partly answered.
struct Open {
    job: Job,
    vectors: Vec<Vec<f32>>,
    left: usize,
}

struct Row {
    job: u64,
    position: usize,
    tokens: Vec<u32>,
}

struct Worker {
    name: &'static str,
    max_batch: usize,
    queue: Arc<Queue>,
    steps: Steps,
    open: HashMap<u64, Open>,
    next_job: u64,
    /// Ingest rows, shortest first; batches are cut from the end. It is filled only when empty, so that no row is
    /// passed by for ever.
    pool: Vec<Row>,
}

impl Worker {
    fn work(&mut self) {
        loop {
            match self.queue.next(self.pool.is_empty()) {
                Next::Query(jobs) => {
                    let mut rows = self.tokenise(jobs);
                    while !rows.is_empty() {
                        self.run_batch(&mut rows, Priority::Query);
                    }
                }
                Next::Ingest(jobs) => self.pool = self.tokenise(jobs),
                Next::Pool => {
                    let mut pool = std::mem::take(&mut self.pool);
                    self.run_batch(&mut pool, Priority::Ingest);
                    self.pool = pool;
                }
                Next::Closed => return,
            }
        }
    }

    /// Opens the jobs and answers their rows, shortest first. A job that cannot be tokenised fails alone.
    fn tokenise(&mut self, jobs: Vec<Job>) -> Vec<Row> {
        let mut rows = Vec::new();
        for job in jobs {
            if job.reply.is_closed() {
                continue;
            }
            let tokens =
                guarded(self.name, || job.texts.iter().map(|t| (self.steps.tokenise)(t)).collect::<Result<Vec<_>>>());
            let tokens = match tokens {
                Ok(tokens) => tokens,
                Err(e) => {
                    answer(job, Err(e));
                    continue;
                }
            };
            let id = self.next_job;
            self.next_job += 1;
            let left = tokens.len();
            rows.extend(tokens.into_iter().enumerate().map(|(position, tokens)| Row { job: id, position, tokens }));
            self.open.insert(id, Open { job, vectors: vec![Vec::new(); left], left });
        }
        rows.sort_by_key(|r| r.tokens.len());
        rows
    }

    /// Cuts one batch off the end of `rows`, runs it and answers the jobs it completes, or fails the jobs it is of.
    fn run_batch(&mut self, rows: &mut Vec<Row>, priority: Priority) {
        rows.retain(|r| self.open.get(&r.job).is_some_and(|o| !o.job.reply.is_closed()));
        let Some(longest) = rows.last().map(|r| r.tokens.len()) else {
            self.open.retain(|_, o| !o.job.reply.is_closed());
            return;
        };
        let count = (MAX_BATCH_TOKENS / longest.max(1)).clamp(1, self.max_batch).min(rows.len());
        let part = rows.split_off(rows.len() - count);
        let result = guarded(self.name, || (self.steps.run)(&pad(&part, longest))).and_then(|vectors| {
            if vectors.len() == part.len() {
                Ok(vectors)
            } else {
                Err(Error::internal("the model gave a wrong number of vectors"))
            }
        });
        count_batch(self.name, priority, part.len());
        match result {
            Ok(vectors) => {
                for (row, vector) in part.into_iter().zip(vectors) {
                    self.fill(row, vector);
                }
            }
            Err(e) => {
                for row in part {
                    if let Some(open) = self.open.remove(&row.job) {
                        answer(open.job, Err(Error::internal(&e)));
                    }
                }
            }
        }
    }

    fn fill(&mut self, row: Row, vector: Vec<f32>) {
        let Some(open) = self.open.get_mut(&row.job) else { return };
        open.vectors[row.position] = vector;
        open.left -= 1;
        if open.left == 0
            && let Some(open) = self.open.remove(&row.job)
        {
            answer(open.job, Ok(open.vectors));
        }
    }
}

/// Gives the room back, then answers. A caller that has gone away is no failure.
fn answer(job: Job, with: Answer) {
    let Job { reply, permit, .. } = job;
    drop(permit);
    let _ = reply.send(with);
}

/// Runs a model's function and makes a panic in it an error, so that the worker lives on. A model holds no state
/// between calls, so there is nothing a panic could leave half done.
fn guarded<T>(name: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(panic) => {
            let what = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            metrics::counter!("strata_embed_panics_total", "model" => name.to_owned()).increment(1);
            Err(Error::Internal(format!("model `{name}` panicked: {}", what.as_deref().unwrap_or("no message"))))
        }
    }
}

fn pad(rows: &[Row], columns: usize) -> Batch {
    let mut ids = Vec::with_capacity(rows.len() * columns);
    let mut mask = Vec::with_capacity(rows.len() * columns);
    for row in rows {
        let padding = columns - row.tokens.len();
        ids.extend(row.tokens.iter().map(|&t| t.cast_signed()));
        ids.extend(std::iter::repeat_n(0, padding));
        mask.extend(std::iter::repeat_n(1, row.tokens.len()));
        mask.extend(std::iter::repeat_n(0, padding));
    }
    Batch { rows: rows.len(), columns, ids, mask }
}

fn count_batch(model: &'static str, priority: Priority, rows: usize) {
    let labels = [("model", model), ("priority", priority.as_str())];
    metrics::counter!("strata_embed_texts_total", &labels).increment(rows as u64);
    metrics::counter!("strata_embed_batches_total", &labels).increment(1);
    metrics::histogram!("strata_embed_batch_rows", &labels).record(rows as f64);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::MAX_QUERY_STREAK;
    use std::sync::mpsc;

    /// A model of one dimension: the vector is the text's length. `run` reports each batch's rows and waits for a go.
    fn gated() -> (Steps, mpsc::Receiver<Vec<usize>>, mpsc::Sender<()>) {
        let (seen, batches) = mpsc::channel();
        let (go, gate) = mpsc::channel();
        let run = move |batch: &Batch| {
            let lengths: Vec<usize> =
                batch.mask.chunks(batch.columns).map(|row| row.iter().filter(|&&m| m == 1).count()).collect();
            seen.send(lengths.clone()).expect("the test listens");
            gate.recv().expect("the test opens the gate");
            Ok(lengths.into_iter().map(|n| vec![n as f32]).collect())
        };
        (Steps { tokenise: Box::new(|t| Ok(vec![7; t.len()])), run: Box::new(run) }, batches, go)
    }

    fn texts(lengths: &[usize]) -> Vec<String> {
        lengths.iter().map(|&n| "x".repeat(n)).collect()
    }

    fn vectors(lengths: &[usize]) -> Vec<Vec<f32>> {
        lengths.iter().map(|&n| vec![n as f32]).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_query_runs_before_the_rest_of_an_ingest_call() {
        let (steps, batches, go) = gated();
        let batcher = Arc::new(Batcher::start("test", 4, Duration::ZERO, steps).unwrap());
        let ingest = tokio::spawn({
            let batcher = batcher.clone();
            async move { batcher.submit(Priority::Ingest, texts(&[5, 1, 9, 3, 2, 8, 6, 7])).await }
        });
        // Longest first, and rows of like length together.
        assert_eq!(batches.recv().unwrap(), [6, 7, 8, 9]);
        let query = batcher.submit(Priority::Query, texts(&[4]));
        let mut query = std::pin::pin!(query);
        assert!(futures_poll(query.as_mut()).is_none());
        go.send(()).unwrap();
        assert_eq!(batches.recv().unwrap(), [4]);
        go.send(()).unwrap();
        assert_eq!(query.await.unwrap(), vectors(&[4]));
        assert_eq!(batches.recv().unwrap(), [1, 2, 3, 5]);
        go.send(()).unwrap();
        assert_eq!(ingest.await.unwrap().unwrap(), vectors(&[5, 1, 9, 3, 2, 8, 6, 7]));
    }

    /// Polls once.
    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn callers_share_a_batch_and_a_streak_of_queries_lets_ingest_through() {
        let (steps, batches, go) = gated();
        let batcher = Batcher::start("test", 1, Duration::ZERO, steps).unwrap();
        let mut calls = Vec::new();
        let submit = |priority, length: usize| Box::pin(batcher.submit(priority, texts(&[length])));
        calls.push(submit(Priority::Query, 1));
        assert!(futures_poll(calls[0].as_mut()).is_none());
        assert_eq!(batches.recv().unwrap(), [1]);
        for _ in 0..MAX_QUERY_STREAK {
            calls.push(submit(Priority::Query, 2));
        }
        calls.insert(1, submit(Priority::Ingest, 3));
        for call in &mut calls[1..] {
            assert!(futures_poll(call.as_mut()).is_none());
        }
        let mut order = vec![1];
        for _ in 0..=MAX_QUERY_STREAK {
            go.send(()).unwrap();
            order.push(batches.recv().unwrap()[0]);
        }
        go.send(()).unwrap();
        for call in calls {
            call.await.unwrap();
        }
        // Eight queries (the first included), then the ingest text, then the last query.
        assert_eq!(order, [1, 2, 2, 2, 2, 2, 2, 2, 3, 2]);
    }

    #[tokio::test]
    async fn a_panic_fails_its_callers_and_the_worker_lives_on() {
        let run = |batch: &Batch| {
            assert!(batch.columns != 3, "three is too many");
            Ok(vec![vec![0.5]; batch.rows])
        };
        let steps = Steps { tokenise: Box::new(|t| Ok(vec![7; t.len()])), run: Box::new(run) };
        let batcher = Batcher::start("test", 8, Duration::ZERO, steps).unwrap();
        let error = batcher.submit(Priority::Query, texts(&[3])).await.unwrap_err();
        assert!(matches!(&error, Error::Internal(m) if m.contains("three is too many")), "{error}");
        assert_eq!(batcher.submit(Priority::Ingest, texts(&[2, 1])).await.unwrap(), [[0.5], [0.5]]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_beyond_the_limit_are_refused_and_a_dropped_call_gives_its_room_back() {
        let (steps, batches, go) = gated();
        let batcher = Batcher::start("test", 64, Duration::ZERO, steps).unwrap();
        let mut full = Box::pin(batcher.submit(Priority::Query, texts(&vec![2; MAX_QUERY_TEXTS])));
        assert!(futures_poll(full.as_mut()).is_none());
        batches.recv().unwrap();
        assert!(matches!(batcher.submit(Priority::Query, texts(&[1])).await, Err(Error::Busy { .. })));
        drop(full);
        go.send(()).unwrap();
        // The worker drops what nobody waits for; room comes back without another batch of twos.
        let mut ingest = Box::pin(batcher.submit(Priority::Ingest, texts(&[5])));
        assert!(futures_poll(ingest.as_mut()).is_none());
        assert_eq!(batches.recv().unwrap(), [5]);
        go.send(()).unwrap();
        ingest.await.unwrap();
        assert_eq!(batcher.query_room.available_permits(), MAX_QUERY_TEXTS);
    }

    #[tokio::test]
    async fn no_texts_give_no_vectors() {
        let (steps, _batches, _go) = gated();
        let batcher = Batcher::start("test", 1, Duration::ZERO, steps).unwrap();
        assert!(batcher.submit(Priority::Ingest, Vec::new()).await.unwrap().is_empty());
    }
}
