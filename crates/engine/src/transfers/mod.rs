//! Transfers: snapshots of namespaces, and namespaces made of snapshots. A clone is both, one after the other, so there is
//! one way to read a namespace and one to write it, and a clone is of one moment.
//!
//! They run behind, one at a time. Their rows are the queue: what a crash cuts short is begun again from what is on disk,
//! and undone after it was cut short [`MAX_ATTEMPTS`] times. A namespace that is being made can be seen and deleted, and
//! nobody can enter it before it is whole ([`gate`]).

mod gate;
mod make;
mod names;
mod process;
mod take;

pub use gate::{Making, making};
pub(crate) use gate::{check as check_gate, close as close_gate};
pub(crate) use take::{Choice, manifest};

use crate::{Engine, migrations};
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use strata_model::{Error, Result, Scope};
use strata_store::{
    catalog::{
        batches as tasks, documents, principals,
        resources::{self, Kind as Resource},
        rusqlite::Transaction,
        snapshots,
        transfers::{self as rows, Kind, Transfer},
    },
    snapshot::Manifest,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often a transfer may be cut short by the end of the process.
const MAX_ATTEMPTS: u32 = 3;
/// The longest the runner sleeps without looking.
const IDLE: Duration = Duration::from_secs(30);
/// The pause after one that has to wait, or whose end could not be written.
const PAUSE: Duration = Duration::from_secs(5);
/// Key of a transfer's body: whether it makes the namespace anew where it was.
pub(crate) const IN_PLACE: &str = "in_place";
/// Key of a transfer's body: whether the namespace that it makes anew was gone.
pub(crate) const WAS_GONE: &str = "was_gone";
/// Key of a transfer's body: whether what was in its namespace before is removed.
const CLEARED: &str = "cleared";
/// Key of a transfer's body: whether it is to end.
const CANCELED: &str = "canceled";
/// Key of a task's body that names the transfer behind it.
pub(crate) const TRANSFER_ID: &str = "transfer_id";
/// Key of a task's body: phase, what is done (rows or derivations), and how much there is.
pub(crate) const PROGRESS: &str = "progress";

/// Runs transfers.
#[derive(Default)]
pub(crate) struct Runner {
    wake: Notify,
    running: Mutex<Option<(String, CancellationToken)>>,
}

impl Runner {
    /// A transfer was added.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends a transfer where it runs.
    fn cancel(&self, transfer_id: &str) {
        if let Some((_, token)) = self.running.lock().as_ref().filter(|(running, _)| running == transfer_id) {
            token.cancel();
        }
    }
}

/// Gives the place back however the attempt ends.
struct Place<'a>(&'a Runner);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.running.lock().take();
    }
}

/// Starts the runner. It lives until the engine's queue stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let stop = engine.queue.stopping();
    let tracker = engine.queue.tracker().clone();
    let engine = engine.clone();
    let work = async move {
        stop.run_until_cancelled(dispatch(engine.clone())).await;
        if let Err(error) = engine.catalog.write(rows::put_back_running).await {
            tracing::warn!(%error, "a stopped transfer counts as cut short");
        }
    };
    drop(tracker.spawn(work));
}

async fn dispatch(engine: Arc<Engine>) {
    loop {
        let pause = match next(&engine).await {
            Ok(pause) => pause,
            Err(error) => {
                tracing::error!(%error, "a transfer could not be begun, or its end not be written; it is tried again");
                PAUSE
            }
        };
        tokio::select! {
            () = engine.transfers.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Runs the oldest transfer that is due; answers how long to wait for the next.
async fn next(engine: &Arc<Engine>) -> Result<Duration> {
    let Some(transfer_id) = engine.catalog.read(rows::due).await? else { return Ok(IDLE) };
    let token = CancellationToken::new();
    *engine.transfers.running.lock() = Some((transfer_id.clone(), token.clone()));
    let _place = Place(&engine.transfers);
    let (id, now) = (transfer_id.clone(), engine.catalog.now());
    let Some(transfer) = engine.catalog.write(move |tx| rows::begin(tx, &id, &now)).await? else {
        return Ok(Duration::ZERO);
    };
    metrics::gauge!("strata_transfers_running").set(1.0);
    let outcome = if is_canceled(&transfer) {
        Err(canceled())
    } else if transfer.attempts > MAX_ATTEMPTS {
        Err(Error::Conflict(format!("the server ended {MAX_ATTEMPTS} times while it ran")))
    } else {
        let work = AssertUnwindSafe(run(engine, &transfer)).catch_unwind();
        tokio::select! {
            done = work => done.unwrap_or_else(|_| Err(Error::internal("a transfer panicked"))),
            () = token.cancelled() => Err(canceled()),
        }
    };
    metrics::gauge!("strata_transfers_running").set(0.0);
    match outcome {
        Ok(()) => Ok(Duration::ZERO),
        Err(Error::Busy { message, .. }) => {
            tracing::info!(transfer_id, message, "a transfer waits");
            engine.catalog.write(move |tx| rows::put_back(tx, &transfer_id)).await?;
            Ok(PAUSE)
        }
        Err(error) => {
            undo(engine, transfer, error).await?;
            Ok(Duration::ZERO)
        }
    }
}

fn canceled() -> Error {
    Error::Conflict("it was canceled".into())
}

/// Does all of a transfer that is not done yet.
async fn run(engine: &Arc<Engine>, transfer: &Transfer) -> Result<()> {
    let id = transfer.snapshot_id.clone();
    let snapshot = engine.catalog.read(move |c| snapshots::find(c, &id)).await?;
    let snapshot = snapshot.ok_or_else(|| Error::missing("snapshot", &transfer.snapshot_id))?;
    let manifest = match manifest(&snapshot)? {
        Some(manifest) => manifest,
        None => take::take(engine, transfer, snapshot).await?,
    };
    let Some(target) = transfer.target_namespace_id.clone() else { return finish(engine, transfer, None, None).await };
    let scope = Scope::whole(&*transfer.organization_id, target);
    let made = make::make(engine, transfer, &scope, &manifest).await?;
    let report = made.report(&manifest);
    if migrations::makes_anew(transfer) {
        process::process(engine, transfer, &scope).await?;
    }
    finish(engine, transfer, Some(scope), Some(report)).await
}

/// Opens the namespace that was made and ends the transfer.
async fn finish(engine: &Arc<Engine>, transfer: &Transfer, scope: Option<Scope>, report: Option<Value>) -> Result<()> {
    if let Some(scope) = scope.clone() {
        // Searches see everything when somebody can ask; what takes too long for that follows soon.
        let heads = engine.catalog.read(move |connection| {
            let collections = resources::list(connection, Resource::Collection, &scope)?;
            let head = |id: String| documents::head(connection, &id).map(|seq| (id, seq));
            collections.into_iter().map(|collection| head(collection.id)).collect::<Result<Vec<_>>>()
        });
        let heads = heads.await?;
        heads.iter().for_each(|(collection, _)| engine.index.respec(collection));
        engine.indexed(heads, true).await;
    }
    let (mut ended, now) = (transfer.clone(), engine.catalog.now());
    let write = engine.catalog.write(move |tx| {
        must_go_on(tx, &ended)?;
        if let Some(scope) = &scope {
            gate::open(tx, scope, &now)?;
        }
        if let Some(report) = report {
            note_report(tx, &ended.snapshot_id, &report, &now)?;
            ended.body.insert("report".into(), report);
        }
        end(tx, &mut ended, "completed", "COMPLETED", &now)
    });
    let free = write.await?;
    engine.remove_blobs(free).await;
    Ok(())
}

/// Writes what came of a restore to its snapshot.
fn note_report(tx: &Transaction<'_>, snapshot_id: &str, report: &Value, now: &str) -> Result<()> {
    let Some(mut snapshot) = snapshots::find(tx, snapshot_id)? else { return Ok(()) };
    snapshot.body.insert("last_restore".into(), report.clone());
    snapshots::update(tx, snapshot_id, &snapshot.status, &snapshot.body, now).map(drop)
}

/// Writes the end of a transfer and its task; answers the contents that a passing snapshot held.
fn end(tx: &Transaction<'_>, ended: &mut Transfer, status: &str, task: &str, now: &str) -> Result<Vec<String>> {
    ended.status = status.to_owned();
    ended.updated_at = now.to_owned();
    rows::update(tx, ended)?;
    rows::forget_names(tx, &ended.transfer_id)?;
    tell(tx, ended, task, None, now)?;
    match snapshots::find(tx, &ended.snapshot_id)? {
        Some(snapshot) if snapshot.is_passing => snapshots::delete_passing(tx, &snapshot.snapshot_id),
        _ => Ok(Vec::new()),
    }
}

/// Removes what a transfer has made so far, and writes why it ended.
async fn undo(engine: &Arc<Engine>, transfer: Transfer, error: Error) -> Result<()> {
    let message = match error {
        Error::Internal(what) => {
            tracing::error!(transfer_id = transfer.transfer_id, "{what}");
            "something went wrong on the server's side; its log says more".to_owned()
        }
        other => other.to_string(),
    };
    let now = engine.catalog.now();
    let write = engine.change_keys(move |tx| {
        let Some(mut ended) = rows::find(tx, &transfer.transfer_id)? else { return Ok((Vec::new(), Vec::new())) };
        ended.body.insert("error".into(), message.clone().into());
        let collections = undo_namespace(tx, &ended, &message, &now)?;
        let (status, task) = if is_canceled(&ended) { ("canceled", "CANCELED") } else { ("failed", "FAILED") };
        let mut free = end(tx, &mut ended, status, task, &now)?;
        if ended.kind == Kind::Snapshot
            && let Some(mut snapshot) = snapshots::find(tx, &ended.snapshot_id)?
        {
            snapshot.body.insert("error".into(), message.into());
            free.extend(snapshots::release(tx, &snapshot.snapshot_id)?);
            snapshots::update(tx, &snapshot.snapshot_id, "failed", &snapshot.body, &now)?;
        }
        Ok((collections, free))
    });
    let (collections, free) = write.await?;
    if let Err(error) = engine.drop_indexes(collections).await {
        tracing::warn!(%error, "an index of a namespace that was not made was not removed");
    }
    engine.remove_blobs(free).await;
    Ok(())
}

/// Removes the namespace that was to be made. One that was to be made anew where it is stays closed, or, if nothing was
/// removed from it yet, is opened again. Answers the collections that are gone.
fn undo_namespace(tx: &Transaction<'_>, ended: &Transfer, message: &str, now: &str) -> Result<Vec<String>> {
    let Some(target) = &ended.target_namespace_id else { return Ok(Vec::new()) };
    let scope = Scope::whole(&*ended.organization_id, &**target);
    let is_set = |key: &str| ended.body.get(key).and_then(Value::as_bool).unwrap_or(false);
    if is_in_place(ended) && is_set(CLEARED) {
        gate::fail(tx, &scope, message, now)?;
        return Ok(Vec::new());
    }
    if is_in_place(ended) && !is_set(WAS_GONE) {
        // What is in it has not been touched.
        gate::open(tx, &scope, now)?;
        return Ok(Vec::new());
    }
    let collections = resources::list(tx, Resource::Collection, &scope)?.into_iter().map(|row| row.id).collect();
    principals::delete_namespace(tx, &scope)?;
    Ok(collections)
}

fn is_in_place(transfer: &Transfer) -> bool {
    transfer.body.get(IN_PLACE).and_then(Value::as_bool).unwrap_or(false)
}

fn is_canceled(transfer: &Transfer) -> bool {
    transfer.body.get(CANCELED).and_then(Value::as_bool).unwrap_or(false)
}

/// Fails where a transfer was canceled, or the namespace that it makes was deleted.
fn must_go_on(tx: &Transaction<'_>, transfer: &Transfer) -> Result<()> {
    if !rows::find(tx, &transfer.transfer_id)?.is_some_and(|t| t.is_open() && !is_canceled(&t)) {
        return Err(canceled());
    }
    match &transfer.target_namespace_id {
        Some(target) if !principals::namespace_id_is_taken(tx, target)? => {
            Err(Error::Conflict("the namespace that it was to make was deleted".into()))
        }
        _ => Ok(()),
    }
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy)]
struct Progress {
    phase: &'static str,
    /// Rows, or derivations.
    done: u64,
    total: u64,
}

/// Says to a transfer's task where it stands. The task goes with its namespace.
fn tell(tx: &Transaction<'_>, transfer: &Transfer, status: &str, progress: Option<Progress>, now: &str) -> Result<()> {
    let mut task = match tasks::task(tx, &transfer.organization_id, &transfer.task_id) {
        Ok(task) => task,
        Err(Error::Missing { .. }) => return Ok(()),
        Err(other) => return Err(other),
    };
    task.status = status.to_owned();
    task.updated_at = now.to_owned();
    if let Some(Progress { phase, done, total }) = progress {
        task.body.insert(PROGRESS.into(), json!({ "phase": phase, "done": done, "total": total }));
    }
    if let Some(error) = transfer.body.get("error").filter(|_| status == "FAILED") {
        task.body.insert("error".into(), error.clone());
    }
    tasks::put_task(tx, &task)
}

/// [`tell`] in a transaction of its own, where the namespace's answer tells of the phase, too.
async fn report(engine: &Arc<Engine>, transfer: &Transfer, progress: Progress) -> Result<()> {
    let (transfer, now) = (transfer.clone(), engine.catalog.now());
    let write = engine.catalog.write(move |tx| {
        must_go_on(tx, &transfer)?;
        if let Some(target) = &transfer.target_namespace_id {
            gate::enter_phase(tx, target, progress.phase)?;
        }
        tell(tx, &transfer, "PROCESSING", Some(progress), &now)
    });
    write.await
}

/// The rows with which a transfer begins.
pub(crate) struct NewTransfer {
    pub transfer: Transfer,
    pub task_type: &'static str,
    /// What the task works on.
    pub inputs: Vec<String>,
}

/// Queues a transfer and its task.
pub(crate) fn queue(tx: &Transaction<'_>, new: &NewTransfer) -> Result<()> {
    let transfer = &new.transfer;
    let body = json!({ TRANSFER_ID: transfer.transfer_id, "inputs": new.inputs });
    let task = tasks::Task {
        task_id: transfer.task_id.clone(),
        organization_id: transfer.organization_id.clone(),
        namespace_id: Some(transfer.source_namespace_id.clone()),
        task_type: new.task_type.to_owned(),
        status: "PENDING".into(),
        batch_id: None,
        body: body.as_object().cloned().unwrap_or_default(),
        created_at: transfer.created_at.clone(),
        updated_at: transfer.created_at.clone(),
    };
    tasks::put_task(tx, &task)?;
    rows::insert(tx, transfer)
}

impl Engine {
    /// Ends a transfer before it is over: what it has made is removed. [`Error::Conflict`] where it is over.
    pub(crate) async fn cancel_transfer(&self, organization_id: &str, transfer_id: &str) -> Result<()> {
        let (organization_id, id, now) = (organization_id.to_owned(), transfer_id.to_owned(), self.catalog.now());
        let cancel = self.catalog.write(move |tx| {
            let found = rows::find(tx, &id)?.filter(|t| t.organization_id == organization_id && t.is_open());
            let mut transfer = found.ok_or_else(|| Error::Conflict("the work is over".into()))?;
            // It stays open until the runner has removed what there is of it, however often the process dies.
            transfer.body.insert(CANCELED.into(), true.into());
            transfer.updated_at.clone_from(&now);
            rows::update(tx, &transfer)?;
            tell(tx, &transfer, "CANCELED", None, &now)
        });
        cancel.await?;
        self.transfers.cancel(transfer_id);
        self.transfers.wake();
        Ok(())
    }
}

/// Reads a manifest's part.
pub(crate) async fn part(engine: &Engine, manifest: &Manifest, number: usize) -> Result<Vec<strata_model::Fields>> {
    let Some(entry) = manifest.parts.get(number).cloned() else {
        return Err(Error::internal("a part that the manifest does not name"));
    };
    let bytes = match engine.blobs.get(&entry.sha256).await {
        Err(Error::Missing { .. }) => {
            return Err(Error::Conflict(format!("part {number} of snapshot `{}` is missing", manifest.snapshot_id)));
        }
        other => other?,
    };
    let snapshot_id = manifest.snapshot_id.clone();
    let reading =
        tokio::task::spawn_blocking(move || strata_store::snapshot::read_part(&bytes, &snapshot_id, number, &entry));
    reading.await.map_err(Error::internal)?
}
