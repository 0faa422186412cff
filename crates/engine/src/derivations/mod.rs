//! Derivations at work: a dispatcher leases what is due, workers run extractors, and one transaction a derivation
//! writes its documents, its lineage and the work that follows from it.
//!
//! The rows are the queue: a crash at any point loses nothing that was acknowledged and repeats nothing visible. A
//! derivation may run twice; its documents have deterministic ids, so its effect happens once.

mod complete;
mod run;

use crate::{Engine, batches};
use parking_lot::Mutex;
use run::{Look, Work};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use strata_model::{Error, Result, limits};
use strata_store::catalog::{
    derivations::{self as rows, Derivation},
    rusqlite::Transaction,
};
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Derivations in flight for each configured worker: enough of them wait for a model together to fill its batches.
const IN_FLIGHT_PER_WORKER: usize = 384;
/// Inputs that are read together.
const READ_TOGETHER: usize = 32;
/// How often the process may die over one input before that input is given up.
const MAX_CRASHES: u32 = 8;
/// The same, before that input runs apart from others under suspicion: when the process dies again, only one of them is
/// blamed.
const SUSPECT: u32 = 2;
/// The longest the dispatcher sleeps without looking.
const IDLE: Duration = Duration::from_secs(30);

/// The dispatcher's side of the queue.
#[derive(Default)]
pub(crate) struct Queue {
    wake: Notify,
    stop: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<HashMap<String, Instant>>,
    /// One that the process died over before is running.
    suspect: AtomicBool,
}

impl Queue {
    /// Work was queued, or a worker came free.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Stops leasing and waits for what is running.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// What the engine waits for when it closes; and what tells all of it to end.
    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// How many derivations are running now.
    pub(crate) fn in_flight(&self) -> usize {
        self.running.lock().len()
    }
}

/// Starts the dispatcher. It lives until [`Queue::stop`].
pub(crate) fn start(engine: &Arc<Engine>) {
    let dispatcher = dispatch(engine.clone());
    drop(engine.queue.tracker.spawn(dispatcher));
}

async fn dispatch(engine: Arc<Engine>) {
    let now = engine.catalog.now();
    match engine.catalog.write(move |tx| rows::recover(tx, MAX_CRASHES, &now)).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "work that was running when the server stopped is due again"),
        Err(error) => tracing::error!(%error, "cannot recover running derivations"),
    }
    let capacity = engine.config.workers.max(1) * IN_FLIGHT_PER_WORKER;
    while !engine.queue.stop.is_cancelled() {
        match turn(&engine, capacity).await {
            Ok(pause) => {
                tokio::select! {
                    () = engine.queue.wake.notified() => {}
                    () = engine.queue.stop.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            Err(error) => {
                tracing::error!(%error, "the dispatcher cannot lease work; it tries again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Leases what there is room for; answers how long nothing more can be due.
async fn turn(engine: &Arc<Engine>, capacity: usize) -> Result<Duration> {
    let running = engine.queue.in_flight();
    metrics::gauge!("strata_derivations_in_flight").set(running as f64);
    // What could not write its result is not begun.
    if engine.check_room().is_err() {
        renew(engine).await?;
        return Ok(Duration::from_secs(5));
    }
    // Leasing costs a commit, so it waits until half of the workers are free.
    if running > capacity / 2 {
        renew(engine).await?;
        return Ok(Duration::from_secs(5));
    }
    let now = engine.catalog.now_micros();
    if engine.catalog.read(rows::next_due).await?.is_some_and(|due| due <= now) {
        let (until, time, limit) = (now + limits::LEASE_SECONDS * 1_000_000, engine.catalog.now(), capacity - running);
        let alone = !engine.queue.suspect.load(Ordering::SeqCst);
        let lease = move |tx: &Transaction<'_>| rows::lease(tx, now, until, &time, limit, SUSPECT, alone);
        let leased = engine.catalog.write(lease).await?;
        engine.queue.suspect.fetch_or(leased.iter().any(|d| d.crashes >= SUSPECT), Ordering::SeqCst);
        let mut works: HashMap<String, Arc<Work>> = HashMap::new();
        let mut ready = Vec::with_capacity(leased.len());
        for derivation in leased {
            let mut work = works.get(&derivation.collection_id).cloned();
            if work.is_none()
                && let Ok(loaded) = Work::load(engine, &derivation).await
            {
                work = Some(Arc::new(loaded));
                works.extend(work.clone().map(|work| (derivation.collection_id.clone(), work)));
            }
            ready.push((Arc::new(derivation), work));
        }
        for together in ready.chunks(READ_TOGETHER) {
            let looks = run::looks(engine, together).await;
            for ((derivation, work), look) in together.iter().zip(looks) {
                spawn(engine, derivation.clone(), work.clone(), look, capacity);
            }
        }
        return Ok(IDLE);
    }
    if running == 0 {
        batches::settle(engine).await?;
    }
    renew(engine).await?;
    let due = engine.catalog.read(rows::next_due).await?;
    let until_due = due.map_or(IDLE, |due| Duration::from_micros((due - now).max(1000).unsigned_abs()));
    Ok(until_due.min(IDLE))
}

/// Runs one derivation. `work` is `None` where it could not be loaded, for a reason that the derivation finds again.
fn spawn(
    engine: &Arc<Engine>,
    derivation: Arc<Derivation>,
    work: Option<Arc<Work>>,
    look: Option<Result<Look>>,
    capacity: usize,
) {
    let engine = engine.clone();
    engine.queue.running.lock().insert(derivation.derivation_id.clone(), Instant::now());
    let queue_tracker = engine.queue.tracker.clone();
    drop(queue_tracker.spawn(async move {
        let id = derivation.derivation_id.clone();
        // A panic in an extractor must fail its own derivation only.
        let worker = tokio::spawn(process(engine.clone(), derivation.clone(), work, look));
        let followed = match worker.await {
            Ok(followed) => followed,
            Err(panic) => {
                let message = format!("the extractor stopped unexpectedly: {panic}");
                tracing::error!(derivation_id = %id, %message, "derivation panicked");
                drop(failed(&engine, &derivation, &Error::Internal(message)).await);
                true
            }
        };
        let left = {
            let mut running = engine.queue.running.lock();
            running.remove(&id);
            running.len()
        };
        let was_suspect = derivation.crashes >= SUSPECT;
        if was_suspect {
            engine.queue.suspect.store(false, Ordering::SeqCst);
        }
        // In between, the dispatcher would find nothing to do.
        if followed || was_suspect || left == 0 || left == capacity / 2 {
            engine.queue.wake();
        }
    }));
}

/// Answers whether the queue has rows that it had not before.
async fn process(
    engine: Arc<Engine>,
    derivation: Arc<Derivation>,
    work: Option<Arc<Work>>,
    look: Option<Result<Look>>,
) -> bool {
    let started = Instant::now();
    let outcome = worked(&engine, &derivation, work, look, started).await;
    let (ended, followed) = match outcome {
        Ok(followed) => ("completed", followed),
        Err(error) => {
            if let Err(error) = failed(&engine, &derivation, &error).await {
                tracing::error!(derivation_id = %derivation.derivation_id, %error, "cannot record a failure; the lease will expire");
            }
            ("failed", true)
        }
    };
    metrics::counter!("strata_derivations_total", "outcome" => ended).increment(1);
    metrics::histogram!("strata_derivation_seconds").record(started.elapsed().as_secs_f64());
    followed
}

async fn worked(
    engine: &Arc<Engine>,
    derivation: &Arc<Derivation>,
    work: Option<Arc<Work>>,
    look: Option<Result<Look>>,
    started: Instant,
) -> Result<bool> {
    let work = match work {
        Some(work) => work,
        None => Arc::new(Work::load(engine, derivation).await?),
    };
    let done = run::run(engine, derivation, &work, look).await?;
    complete::complete(engine, derivation, work, done, started).await
}

/// Puts a derivation back for another try, or fails it for good.
async fn failed(engine: &Arc<Engine>, derivation: &Arc<Derivation>, error: &Error) -> Result<()> {
    let (now, micros) = (engine.catalog.now(), engine.catalog.now_micros());
    let (leased, message) = (derivation.clone(), error.to_string());
    let transient = error.is_transient();
    let again = transient && leased.attempts < limits::MAX_ATTEMPTS;
    let kind = match error {
        Error::Full(_) | Error::TooLarge(_) | Error::Quota { .. } => "resource",
        _ if transient => "transient",
        _ => "permanent",
    };
    tracing::warn!(derivation_id = %leased.derivation_id, input_id = %leased.input_id, attempt = leased.attempts, again, %error, "derivation failed");

    engine
        .catalog
        .write(move |tx| {
            if !rows::held(tx, &leased)? {
                return Ok(());
            }
            if again {
                let backoff = 1_000_000_i64 << leased.attempts.min(6);
                return rows::postpone(tx, &leased.derivation_id, micros + backoff, &message);
            }
            rows::fail(tx, &leased.derivation_id, &message, kind, &now)?;
            complete::after(tx, &leased, &now)
        })
        .await
}

/// Keeps the leases of long work.
async fn renew(engine: &Arc<Engine>) -> Result<()> {
    let old = Duration::from_secs(limits::LEASE_SECONDS.unsigned_abs() / 4);
    let ids: Vec<String> = {
        let mut running = engine.queue.running.lock();
        let due: Vec<String> = running.iter().filter(|(_, at)| at.elapsed() > old).map(|(id, _)| id.clone()).collect();
        for id in &due {
            running.insert(id.clone(), Instant::now());
        }
        due
    };
    if ids.is_empty() {
        return Ok(());
    }
    let until = engine.catalog.now_micros() + limits::LEASE_SECONDS * 1_000_000;
    engine.catalog.write(move |tx| rows::renew(tx, &ids, until)).await
}
