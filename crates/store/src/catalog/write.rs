//! The one writer. Jobs that arrive while a commit syncs, or while the jobs before them run, are gathered into the next
//! transaction, where each can fail alone, and answered together when that transaction is on disk.

use super::{checkpoint::Checkpointer, from_sql, memo::Memo};
use crate::faults::{Point, reach};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use strata_model::{Error, Result};

/// Most jobs waiting for the writer; a submitter blocks beyond it.
const QUEUE: usize = 1024;
/// Most jobs that share one commit.
const GROUP: usize = 256;

/// Work of one caller inside a transaction that others share.
pub(super) trait Job: Send {
    /// Answers whether its changes are to be kept.
    fn run(&mut self, tx: &Transaction<'_>) -> bool;
    /// Whether it may run again after its changes were undone.
    fn is_repeatable(&self) -> bool;
    /// How long it may wait for others to share its commit.
    fn patience(&self) -> Duration;
    /// What was wrong when it ran last.
    fn fault(&self) -> Option<&Error>;
    /// Tells the caller what came of it: what it answered reaches the caller only when the commit that holds it succeeded.
    fn answer(self: Box<Self>, committed: Result<()>);
}

/// Work that runs once.
struct Once<T, F, R> {
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: R,
}

pub(super) fn once<T, F, R>(work: F, reply: R) -> Box<dyn Job>
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    R: FnOnce(Result<T>) + Send + 'static,
{
    Box::new(Once { work: Some(work), outcome: None, reply })
}

impl<T, F, R> Job for Once<T, F, R>
where
    T: Send,
    F: FnOnce(&Transaction<'_>) -> Result<T> + Send,
    R: FnOnce(Result<T>) + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> bool {
        self.outcome = self.work.take().map(|work| guarded(|| work(tx)));
        matches!(self.outcome, Some(Ok(_)))
    }
    fn is_repeatable(&self) -> bool {
        false
    }
    fn patience(&self) -> Duration {
        Duration::ZERO
    }
    fn fault(&self) -> Option<&Error> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err())
    }
    fn answer(self: Box<Self>, committed: Result<()>) {
        (self.reply)(committed.and(self.outcome.unwrap_or_else(|| Err(super::stopped()))));
    }
}

/// Work on a value that may run again, from whatever state a run left the value in.
struct Again<S, T, F, R> {
    state: S,
    work: F,
    patience: Duration,
    outcome: Option<Result<T>>,
    reply: R,
}

pub(super) fn again<S, T, F, R>(state: S, patience: Duration, work: F, reply: R) -> Box<dyn Job>
where
    S: Send + 'static,
    T: Send + 'static,
    F: Fn(&mut S, &Transaction<'_>) -> Result<T> + Send + 'static,
    R: FnOnce(Result<(S, T)>) + Send + 'static,
{
    Box::new(Again { state, work, patience, outcome: None, reply })
}

impl<S, T, F, R> Job for Again<S, T, F, R>
where
    S: Send,
    T: Send,
    F: Fn(&mut S, &Transaction<'_>) -> Result<T> + Send,
    R: FnOnce(Result<(S, T)>) + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> bool {
        let Self { state, work, outcome, .. } = self;
        *outcome = Some(guarded(|| work(state, tx)));
        matches!(outcome, Some(Ok(_)))
    }
    fn is_repeatable(&self) -> bool {
        true
    }
    fn patience(&self) -> Duration {
        self.patience
    }
    fn fault(&self) -> Option<&Error> {
        self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err())
    }
    fn answer(self: Box<Self>, committed: Result<()>) {
        let Self { state, outcome, reply, .. } = *self;
        let outcome = committed.and(outcome.unwrap_or_else(|| Err(super::stopped())));
        reply(outcome.map(|made| (state, made)));
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::internal("a catalog write panicked; its changes were undone")))
}

pub(super) struct Writer {
    queue: Mutex<Option<SyncSender<Box<dyn Job>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Of the catalog at `path`, over the connection that alone writes it.
    pub(super) fn start(path: &Path, connection: Connection, memo: Arc<Memo>) -> Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let copier = Checkpointer::start(path, &connection)?;
        let thread = std::thread::Builder::new()
            .name("catalog-writer".into())
            .spawn(move || run(connection, copier, &memo, &jobs))
            .map_err(Error::internal)?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn submit(&self, job: Box<dyn Job>) -> Result<()> {
        let queue = self.queue.lock().clone();
        queue.and_then(|q| q.send(job).ok()).ok_or_else(super::stopped)
    }
}

impl Drop for Writer {
    /// Lets the thread finish what is queued.
    fn drop(&mut self) {
        self.queue.lock().take();
        if let Some(thread) = self.thread.lock().take() {
            drop(thread.join());
        }
    }
}

fn run(mut connection: Connection, mut copier: Checkpointer, memo: &Memo, jobs: &Receiver<Box<dyn Job>>) {
    let mut next = None;
    while let Some(first) = next.take().or_else(|| jobs.recv().ok()) {
        next = commit(&mut connection, memo, gather(first, jobs), jobs);
        copier.committed(&connection);
    }
}

/// What is queued, and what comes while everything gathered so far may wait.
fn gather(first: Box<dyn Job>, jobs: &Receiver<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
    let mut until = Instant::now() + first.patience();
    let mut group = vec![first];
    while group.len() < GROUP {
        match jobs.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(job) => {
                until = until.min(Instant::now() + job.patience());
                group.push(job);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    group
}

/// Answers a job that came meanwhile and could not be taken along.
fn commit(
    connection: &mut Connection,
    memo: &Memo,
    mut group: Vec<Box<dyn Job>>,
    jobs: &Receiver<Box<dyn Job>>,
) -> Option<Box<dyn Job>> {
    let mut next = None;
    let outcome = transact(connection, &mut group, || {
        next = jobs.try_recv().ok();
        next.take_if(|job| job.is_repeatable())
    });
    let outcome = outcome.and_then(|()| reach(Point::CatalogCommitted).map_err(Error::internal));
    memo.settle();
    if let Err(error) = &outcome {
        tracing::error!(%error, jobs = group.len(), "a catalog commit failed; nothing of it was kept");
    }
    for job in group {
        job.answer(match &outcome {
            Ok(()) => Ok(()),
            Err(Error::Full(message)) => Err(Error::Full(message.clone())),
            Err(error) => Err(Error::internal(error)),
        });
    }
    next
}

/// Savepoints copy every page that a job is the first to change, so jobs that can run again do without: when one of them
/// leaves changes that must go, all of them go, and all run again with savepoints. `more` is what came while they ran, and
/// joins them: a commit costs much more than a job does, so it is better shared than soon.
fn transact(
    connection: &mut Connection,
    group: &mut Vec<Box<dyn Job>>,
    mut more: impl FnMut() -> Option<Box<dyn Job>>,
) -> Result<()> {
    if group.iter().all(|job| job.is_repeatable()) {
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sql)?;
        let mut is_clean = true;
        let mut done = 0;
        while is_clean && done < group.len() {
            let before = tx.total_changes();
            let is_good = group[done].run(&tx) || tx.total_changes() == before;
            // A full or failing disk ends the transaction by itself; what ran after that would commit alone.
            is_clean = is_good && !tx.is_autocommit();
            done += 1;
            if is_clean && done == group.len() && done < GROUP {
                group.extend(more());
            }
        }
        if is_clean {
            reach(Point::CatalogWritten).map_err(Error::internal)?;
            return tx.commit().map_err(from_sql);
        }
        tx.finish().map_err(from_sql)?;
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(from_sql)?;
    let run = |sql| tx.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(from_sql);
    for job in group {
        run("SAVEPOINT job")?;
        let is_good = job.run(&tx);
        if tx.is_autocommit() {
            return Err(ended(&**job));
        }
        if !is_good {
            run("ROLLBACK TO job")?;
        }
        run("RELEASE job")?;
    }
    reach(Point::CatalogWritten).map_err(Error::internal)?;
    tx.commit().map_err(from_sql)
}

/// What to tell all whose transaction a job has ended: SQLite undoes it whole when the disk is full or fails.
fn ended(job: &dyn Job) -> Error {
    match job.fault() {
        Some(Error::Full(message)) => Error::Full(message.clone()),
        Some(error) => Error::internal(error),
        None => Error::internal("a catalog write ended the transaction that it shared"),
    }
}
