//! The one writer. Jobs that arrive while a commit syncs are gathered into the next transaction, each inside a
//! savepoint of its own, and answered together when that transaction is on disk.

use super::{from_sql, memo::Memo};
use parking_lot::Mutex;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};
use strata_model::{Error, Result};

/// Most jobs waiting for the writer; a submitter blocks beyond it.
const QUEUE: usize = 1024;
/// Most jobs that share one commit.
const GROUP: usize = 256;

/// What a job does once its group is committed, or is not.
type Answer = Box<dyn FnOnce(Result<()>) + Send>;
/// Runs inside the transaction; `Err` undoes the savepoint. The answer is given after the commit.
pub(super) type Job = Box<dyn FnOnce(&Transaction<'_>) -> (bool, Answer) + Send>;

/// Packs `work` and `reply` into a job: the value reaches the caller only when the commit that holds it succeeded.
pub(super) fn job<T, F, R>(work: F, reply: R) -> Job
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    R: FnOnce(Result<T>) + Send + 'static,
{
    Box::new(move |tx| {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(tx)))
            .unwrap_or_else(|_| Err(Error::internal("a catalog write panicked; its changes were undone")));
        (outcome.is_ok(), Box::new(move |committed| reply(committed.and(outcome))))
    })
}

pub(super) struct Writer {
    queue: Mutex<Option<SyncSender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, memo: Arc<Memo>) -> Result<Self> {
        let (queue, jobs) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("catalog-writer".into())
            .spawn(move || run(connection, &memo, &jobs))
            .map_err(Error::internal)?;
        Ok(Self { queue: Mutex::new(Some(queue)), thread: Mutex::new(Some(thread)) })
    }

    pub(super) fn submit(&self, job: Job) -> Result<()> {
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

fn run(mut connection: Connection, memo: &Memo, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let group = std::iter::once(first).chain(jobs.try_iter().take(GROUP - 1));
        commit(&mut connection, memo, group.collect());
    }
}

fn commit(connection: &mut Connection, memo: &Memo, group: Vec<Job>) {
    let mut answers: Vec<Answer> = Vec::with_capacity(group.len());
    let outcome = transact(connection, group, &mut answers);
    memo.settle();
    if let Err(error) = &outcome {
        tracing::error!(%error, jobs = answers.len(), "a catalog commit failed; nothing of it was kept");
    }
    for answer in answers {
        answer(match &outcome {
            Ok(()) => Ok(()),
            Err(Error::Full(message)) => Err(Error::Full(message.clone())),
            Err(error) => Err(Error::internal(error)),
        });
    }
}

fn transact(connection: &mut Connection, group: Vec<Job>, answers: &mut Vec<Answer>) -> Result<()> {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let tx = match begun {
        Ok(tx) => tx,
        Err(error) => {
            // The jobs never ran; dropping them tells their callers that the writer gave no answer.
            return Err(from_sql(error));
        }
    };
    let run = |sql| tx.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(from_sql);
    for job in group {
        run("SAVEPOINT job")?;
        let (keep, answer) = job(&tx);
        answers.push(answer);
        if !keep {
            run("ROLLBACK TO job")?;
        }
        run("RELEASE job")?;
    }
    tx.commit().map_err(from_sql)
}
