//! The threads that run one model, and the handle that feeds them. They tokenise, sort by length, batch across callers
//! and answer; they know nothing of the model but two functions.

use crate::limits::{MAX_BATCH_ROWS, MAX_INGEST_TEXTS, MAX_QUERY_TEXTS, MAX_TASK_TEXTS, MAX_THREADS};
use crate::queue::{Answer, Job, Next, Open, Priority, Queue, Row, cut};
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

/// How many threads a batch runs on. Batches beside each other on one thread each are faster together than one after
/// the other on all: no thread waits for another between two layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    /// The one of this worker; workers are counted from 0.
    Own(usize),
    All,
}

type Tokenise = dyn Fn(&str) -> Result<Vec<u32>> + Send + Sync;
type Run<V> = dyn Fn(&Batch, Threads) -> Answer<V> + Send + Sync;

/// What a model does: text to tokens, and a batch to one vector a row. Either may panic.
pub struct Steps<V> {
    pub tokenise: Box<Tokenise>,
    pub run: Box<Run<V>>,
}

/// How a model is fed.
#[derive(Debug, Clone, Copy)]
pub struct Feed {
    /// Most rows of a batch, 1 to [`MAX_BATCH_ROWS`].
    pub max_batch: usize,
    /// How long a few ingest texts wait for more.
    pub max_wait: Duration,
    /// Batches beside each other, 1 to [`MAX_THREADS`].
    pub workers: usize,
}

/// The owner of a model's threads. When it is dropped they answer what is queued and end.
pub struct Batcher<V: Default + Send + 'static> {
    queue: Arc<Queue<V>>,
    query_room: Arc<Semaphore>,
    ingest_room: Arc<Semaphore>,
}

impl<V: Default + Send + 'static> Drop for Batcher<V> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<V: Default + Send + 'static> Batcher<V> {
    /// Starts the threads. `name` is the model's id, used in metrics.
    pub fn start(name: &'static str, feed: Feed, steps: Steps<V>) -> Result<Self> {
        let max_batch = feed.max_batch.clamp(1, MAX_BATCH_ROWS);
        let batcher = Self {
            queue: Arc::new(Queue::new(max_batch, feed.max_wait)),
            query_room: Arc::new(Semaphore::new(MAX_QUERY_TEXTS)),
            ingest_room: Arc::new(Semaphore::new(MAX_INGEST_TEXTS)),
        };
        let steps = Arc::new(steps);
        for number in 0..feed.workers.clamp(1, MAX_THREADS) {
            let worker = Worker { name, number, max_batch, queue: batcher.queue.clone(), steps: steps.clone() };
            std::thread::Builder::new()
                .name(format!("model-{name}"))
                .spawn(move || worker.work())
                .map_err(|e| Error::internal(format!("a worker of model `{name}` cannot start: {e}")))?;
        }
        Ok(batcher)
    }

    /// One vector a text, in order. Dropping the future gives up what has not run yet.
    pub async fn submit(&self, priority: Priority, texts: Vec<String>) -> Answer<V> {
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

    /// [`Batcher::submit`] of one text.
    pub async fn submit_one(&self, priority: Priority, text: &str) -> Result<V> {
        let vectors = self.submit(priority, vec![text.to_owned()]).await?;
        vectors.into_iter().next().ok_or_else(|| Error::internal("the model gave no vector"))
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

struct Worker<V> {
    name: &'static str,
    number: usize,
    max_batch: usize,
    queue: Arc<Queue<V>>,
    steps: Arc<Steps<V>>,
}

impl<V: Default> Worker<V> {
    fn work(&self) {
        loop {
            match self.queue.next() {
                Next::Query(jobs) => {
                    let mut rows = self.tokenise(jobs);
                    while !rows.is_empty() {
                        self.run(cut(&mut rows, self.max_batch), Priority::Query, Threads::All);
                    }
                }
                Next::Ingest(jobs) => self.queue.fill(self.tokenise(jobs)),
                Next::Batch { rows, alone } => {
                    self.run(rows, Priority::Ingest, if alone { Threads::All } else { Threads::Own(self.number) });
                    self.queue.ran();
                }
                Next::Closed => return,
            }
        }
    }

    /// Opens the jobs and answers their rows, shortest first. A job that cannot be tokenised fails alone.
    fn tokenise(&self, jobs: Vec<Job<V>>) -> Vec<Row<V>> {
        let mut rows = Vec::new();
        for job in jobs {
            if job.reply.is_closed() {
                continue;
            }
            let tokens =
                guarded(self.name, || job.texts.iter().map(|t| (self.steps.tokenise)(t)).collect::<Result<Vec<_>>>());
            match tokens {
                Ok(tokens) => {
                    let job = Arc::new(Open::new(job));
                    let tokens = tokens.into_iter().enumerate();
                    rows.extend(tokens.map(|(position, tokens)| Row { job: job.clone(), position, tokens }));
                }
                Err(e) => job.answer(Err(e)),
            }
        }
        rows.sort_by_key(|r| r.tokens.len());
        rows
    }

    /// Runs one batch and answers the jobs it completes, or fails the jobs it is of.
    fn run(&self, mut rows: Vec<Row<V>>, priority: Priority, threads: Threads) {
        rows.retain(|row| !row.job.is_over());
        if rows.is_empty() {
            return;
        }
        let result = guarded(self.name, || (self.steps.run)(&pad(&rows), threads)).and_then(|vectors| {
            if vectors.len() == rows.len() {
                Ok(vectors)
            } else {
                Err(Error::internal("the model gave a wrong number of vectors"))
            }
        });
        count_batch(self.name, priority, rows.len());
        match result {
            Ok(vectors) => rows.into_iter().zip(vectors).for_each(|(row, vector)| row.job.fill(row.position, vector)),
            Err(e) => rows.into_iter().for_each(|row| row.job.fail(Error::internal(&e))),
        }
    }
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

fn pad<V>(rows: &[Row<V>]) -> Batch {
    let columns = rows.iter().map(|row| row.tokens.len()).max().unwrap_or_default();
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
    fn gated() -> (Steps<Vec<f32>>, mpsc::Receiver<Vec<usize>>, mpsc::Sender<()>) {
        let (seen, batches) = mpsc::channel();
        let (go, gate) = mpsc::channel();
        let gate = parking_lot::Mutex::new(gate);
        let run = move |batch: &Batch, _: Threads| {
            let lengths: Vec<usize> =
                batch.mask.chunks(batch.columns).map(|row| row.iter().filter(|&&m| m == 1).count()).collect();
            seen.send(lengths.clone()).expect("the test listens");
            gate.lock().recv().expect("the test opens the gate");
            Ok(lengths.into_iter().map(|n| vec![n as f32]).collect())
        };
        (Steps { tokenise: Box::new(|t| Ok(vec![7; t.len()])), run: Box::new(run) }, batches, go)
    }

    /// One worker, so that the order of batches is known.
    fn feed(max_batch: usize) -> Feed {
        Feed { max_batch, max_wait: Duration::ZERO, workers: 1 }
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
        let batcher = Arc::new(Batcher::start("test", feed(4), steps).unwrap());
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
        let batcher = Batcher::start("test", feed(1), steps).unwrap();
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
        let run = |batch: &Batch, _: Threads| {
            assert!(batch.columns != 3, "three is too many");
            Ok(vec![vec![0.5]; batch.rows])
        };
        let steps = Steps { tokenise: Box::new(|t| Ok(vec![7; t.len()])), run: Box::new(run) };
        let batcher = Batcher::start("test", feed(8), steps).unwrap();
        let error = batcher.submit(Priority::Query, texts(&[3])).await.unwrap_err();
        assert!(matches!(&error, Error::Internal(m) if m.contains("three is too many")), "{error}");
        assert_eq!(batcher.submit(Priority::Ingest, texts(&[2, 1])).await.unwrap(), [[0.5], [0.5]]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn queries_beyond_the_limit_are_refused_and_a_dropped_call_gives_its_room_back() {
        let (steps, batches, go) = gated();
        let batcher = Batcher::start("test", feed(64), steps).unwrap();
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
        let batcher = Batcher::start("test", feed(1), steps).unwrap();
        assert!(batcher.submit(Priority::Ingest, Vec::new()).await.unwrap().is_empty());
    }
}
