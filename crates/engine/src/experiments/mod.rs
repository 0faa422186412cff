//! Experiments: evaluations measure a retriever on a data set, benchmarks replay recorded sessions on several. They run
//! behind, a few at once and one a namespace. Their rows are the queue: what a crash cuts short is begun again, and fails
//! after it was cut short [`MAX_ATTEMPTS`] times.

mod benchmarks;
mod datasets;
mod evaluations;
mod sessions;
mod statistics;

pub use benchmarks::{BenchmarkFilter, NewBenchmark, SampleStrategy};
pub use datasets::{Dataset, GenerateDataset, GroundTruth, NewDataset};
pub use evaluations::{EvaluationConfig, NewEvaluation};
pub use strata_store::catalog::experiments::{Experiment, Selection};

use crate::Engine;
use futures::FutureExt;
use parking_lot::Mutex;
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use strata_model::{Error, Result};
use strata_store::catalog::{
    batches as tasks,
    experiments::{self as rows, Kind},
    rusqlite::Transaction,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most experiments that run at once.
const MAX_RUNNING: usize = 2;
/// How often an experiment may be cut short by the end of the process.
const MAX_ATTEMPTS: i64 = 3;
/// Most namespaces with waiting experiments that the runner looks at for one to begin.
const LOOK_AHEAD: usize = 256;
/// Most bytes of inputs, as JSON, that a data set or the sessions of a benchmark are made from.
const MAX_INPUT_BYTES: usize = 32 << 20;
/// The longest the runner sleeps without looking.
const IDLE: Duration = Duration::from_secs(30);

/// Runs experiments.
#[derive(Default)]
pub(crate) struct Runner {
    wake: Notify,
    /// Namespace and cancellation of each running experiment.
    running: Mutex<HashMap<String, (String, CancellationToken)>>,
}

impl Runner {
    /// An experiment was added.
    fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends an experiment where it runs.
    pub(crate) fn cancel(&self, experiment_id: &str) {
        if let Some((_, token)) = self.running.lock().get(experiment_id) {
            token.cancel();
        }
    }

    /// Takes a place for the experiment; `None` where there is none.
    fn take(&self, experiment_id: &str, namespace_id: &str) -> Option<CancellationToken> {
        let mut running = self.running.lock();
        let is_busy = running.len() >= MAX_RUNNING || running.values().any(|(namespace, _)| namespace == namespace_id);
        if is_busy || running.contains_key(experiment_id) {
            return None;
        }
        let token = CancellationToken::new();
        running.insert(experiment_id.to_owned(), (namespace_id.to_owned(), token.clone()));
        Some(token)
    }
}

/// Starts the runner. It lives until the engine's queue stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let dispatcher = dispatch(engine.clone());
    drop(engine.queue.tracker().spawn(dispatcher));
}

async fn dispatch(engine: Arc<Engine>) {
    let stop = engine.queue.stopping();
    while !stop.is_cancelled() {
        match engine.catalog.read(|connection| rows::due(connection, LOOK_AHEAD)).await {
            Ok(due) => {
                for (experiment_id, namespace_id) in due {
                    if let Some(token) = engine.experiments.take(&experiment_id, &namespace_id) {
                        let attempt = attempt(engine.clone(), experiment_id, token);
                        drop(engine.queue.tracker().spawn(attempt));
                    }
                }
            }
            Err(error) => tracing::error!(%error, "cannot look for experiments; the next look tries again"),
        }
        metrics::gauge!("strata_experiments_running").set(engine.experiments.running.lock().len() as f64);
        tokio::select! {
            () = engine.experiments.wake.notified() => {}
            () = stop.cancelled() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}

/// Gives the place back when the attempt ends, however it does.
struct Place<'a>(&'a Runner, String);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.running.lock().remove(&self.1);
        self.0.wake();
    }
}

async fn attempt(engine: Arc<Engine>, experiment_id: String, token: CancellationToken) {
    let _place = Place(&engine.experiments, experiment_id.clone());
    let stop = engine.queue.stopping();
    let outcome = tokio::select! {
        outcome = AssertUnwindSafe(run(&engine, &experiment_id)).catch_unwind() => outcome,
        // Whoever cancelled it has written its end.
        () = token.cancelled() => return,
        () = stop.cancelled() => {
            let id = experiment_id.clone();
            if let Err(error) = engine.catalog.write(move |tx| rows::put_back(tx, &id)).await {
                tracing::warn!(%error, experiment_id, "a stopped experiment counts as cut short");
            }
            return;
        }
    };
    let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("an experiment panicked")));
    if let Err(error) = outcome {
        tracing::error!(%error, experiment_id, "the end of an experiment could not be written; it runs again later");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Runs an experiment and writes what came of it.
async fn run(engine: &Arc<Engine>, experiment_id: &str) -> Result<()> {
    let id = experiment_id.to_owned();
    let Some(mut experiment) = engine.catalog.write(move |tx| rows::begin(tx, &id)).await? else { return Ok(()) };
    let outcome = if experiment.attempts > MAX_ATTEMPTS {
        Err(Error::Conflict(format!("the server ended {MAX_ATTEMPTS} times while it ran")))
    } else {
        let work = async {
            match experiment.kind {
                Kind::Evaluation => evaluations::run(engine, &mut experiment).await,
                Kind::Benchmark => benchmarks::run(engine, &mut experiment).await,
            }
        };
        let done = AssertUnwindSafe(work).catch_unwind().await;
        done.unwrap_or_else(|_| Err(Error::internal("an experiment panicked")))
    };
    let status = if outcome.is_ok() { "completed" } else { "failed" };
    if let Err(error) = outcome {
        experiment.body.insert("error_message".into(), told(&error, &experiment).into());
    }
    experiment.body.insert("completed_at".into(), engine.catalog.now().into());
    enter(engine, &mut experiment, status).await.map(drop)
}

/// What the experiment says of an error; of ours the log says more.
fn told(error: &Error, experiment: &Experiment) -> String {
    match error {
        Error::Internal(what) => {
            tracing::error!(experiment_id = experiment.experiment_id, "{what}");
            "something went wrong on the server's side; its log says more".to_owned()
        }
        other => other.to_string(),
    }
}

/// Writes the experiment with its next status, and its task's; answers whether it is still there and not over.
async fn enter(engine: &Arc<Engine>, experiment: &mut Experiment, status: &str) -> Result<bool> {
    experiment.status = status.to_owned();
    let (written, now) = (experiment.clone(), engine.catalog.now());
    engine.catalog.write(move |tx| write(tx, &written, &now)).await
}

fn write(tx: &Transaction<'_>, experiment: &Experiment, now: &str) -> Result<bool> {
    let is_open = rows::advance(tx, &experiment.experiment_id, &experiment.status, &experiment.body, now)?;
    if let Some(task_id) = experiment.task_id.as_ref().filter(|_| is_open) {
        let mut task = tasks::task(tx, &experiment.organization_id, task_id)?;
        task.status = match experiment.status.as_str() {
            "pending" => "PENDING",
            "completed" => "COMPLETED",
            "failed" => "FAILED",
            _ => "PROCESSING",
        }
        .to_owned();
        task.updated_at = now.to_owned();
        if let Some(message) = experiment.body.get("error_message").filter(|_| experiment.status == "failed") {
            task.body.insert("error".into(), message.clone());
        }
        tasks::put_task(tx, &task)?;
    }
    Ok(is_open)
}

/// A number that is the same for the same texts, to seed chance with.
fn seed(parts: &[&str]) -> u64 {
    let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let digest = strata_model::id::sha256_parts(&bytes);
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has more than 8 bytes"))
}
