//! Scheduled backups: one owner, who makes them at intervals and thins them out. `/metrics` tells when the last one was.

use crate::Engine;
use std::{sync::Arc, time::Duration};
use strata_model::{Error, Result};
use strata_store::{
    backup::{self, Made, Order, Repository, retention},
    catalog::copy,
    seams::System,
};
use tokio::time::Instant;

pub use strata_store::backup::{Access, ExtraFile};

/// Files of the data directory that hold keys. Backups have them only where they were asked for.
const KEY_FILES: [&str; 2] = ["admin.key", "secrets.key"];
/// The pause after a backup that failed, if the interval is not shorter.
const RETRY: Duration = Duration::from_secs(300);

/// How often the metrics are told of the last backup.
const TELL: Duration = Duration::from_secs(10);

/// When backups are made, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// A directory, or `s3://bucket/prefix`.
    pub to: String,
    /// How an object store is reached, where the environment does not say it.
    pub access: Access,
    pub every: Duration,
    /// How many stay; at least one does.
    pub keep: usize,
    /// Whether `admin.key` and `secrets.key` go in.
    pub with_keys: bool,
    /// What else goes in: the operator's configuration.
    pub files: Vec<ExtraFile>,
}

/// What a backup of this directory takes: catalog, blobs, `files` and, if wanted, the keys that are there.
pub fn order(data_dir: &std::path::Path, files: Vec<ExtraFile>, with_keys: bool) -> Result<Order> {
    let mut order = Order { data_dir: data_dir.to_owned(), files, version: env!("CARGO_PKG_VERSION").to_owned() };
    if with_keys {
        for name in KEY_FILES {
            match std::fs::read(data_dir.join(name)) {
                Ok(bytes) => order.files.push(ExtraFile { name: name.to_owned(), bytes, private: true }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::Unavailable(format!("cannot read `{name}`: {error}"))),
            }
        }
    }
    Ok(order)
}

/// Starts the owner of scheduled backups, if there is a schedule. It ends with the engine's queue; a backup that is cut
/// off then does not exist.
pub(crate) fn start(engine: &Arc<Engine>) {
    let Some(schedule) = engine.config.backups.clone() else { return };
    let engine = engine.clone();
    let stop = engine.queue.stopping();
    let tracker = engine.queue.tracker().clone();
    drop(tracker.spawn(async move { stop.run_until_cancelled(run(&engine, &schedule)).await }));
}

async fn run(engine: &Engine, schedule: &Schedule) {
    let seams = System::default();
    let mut last = Last::default();
    loop {
        let pause = match turn(engine, schedule, &seams, &mut last).await {
            Ok(pause) => pause,
            Err(error) => {
                metrics::counter!("strata_backups_total", "outcome" => "failed").increment(1);
                tracing::error!(%error, "the scheduled backup failed; it is tried again");
                schedule.every.min(RETRY)
            }
        };
        let due = Instant::now() + pause;
        while Instant::now() < due {
            last.tell();
            tokio::time::sleep_until(due.min(Instant::now() + TELL)).await;
        }
    }
}

/// Makes the backup that is due, if one is; answers how long none is.
async fn turn(engine: &Engine, schedule: &Schedule, seams: &System, last: &mut Last) -> Result<Duration> {
    let repository = Repository::open_or_make_with(&schedule.to, &schedule.access).await?;
    // The last one may be of an earlier run of the server, or of the command line.
    let source = engine.catalog.read(copy::source).await?;
    let listed = repository.manifests().await?;
    let own = listed.iter().filter_map(|listed| listed.manifest.as_ref().ok()).filter(|m| m.source == source);
    last.created_micros = own.map(backup::Manifest::created_micros).max();
    if let Some(created) = last.created_micros {
        let age = Duration::from_micros((engine.catalog.now_micros() - created).max(0).unsigned_abs());
        if age < schedule.every {
            return Ok(schedule.every - age);
        }
    }
    let started = Instant::now();
    let made = one(engine, schedule, &repository, seams).await?;
    metrics::counter!("strata_backups_total", "outcome" => "made").increment(1);
    *last = Last {
        created_micros: Some(engine.catalog.now_micros()),
        took: Some(started.elapsed()),
        written_bytes: Some(made.written_bytes),
    };
    log(&made);
    let pruned = retention::prune(&repository, &made.source, schedule.keep, seams).await?;
    if !pruned.backups.is_empty() {
        tracing::info!(backups = pruned.backups.len(), bytes = pruned.size_bytes, "old backups were removed");
    }
    Ok(schedule.every)
}

async fn one(engine: &Engine, schedule: &Schedule, repository: &Repository, seams: &System) -> Result<Made> {
    let (data_dir, files, with_keys) = (engine.config.data_dir.clone(), schedule.files.clone(), schedule.with_keys);
    let ordering = tokio::task::spawn_blocking(move || order(&data_dir, files, with_keys));
    let order = ordering.await.map_err(Error::internal)??;
    backup::make(&order, repository, seams).await
}

/// The last backup in numbers; what this process has not made is known by its time only.
#[derive(Default)]
struct Last {
    created_micros: Option<i64>,
    took: Option<Duration>,
    written_bytes: Option<u64>,
}

impl Last {
    /// Told again and again, since a server makes backups before anybody gathers its metrics.
    fn tell(&self) {
        if let Some(micros) = self.created_micros {
            metrics::gauge!("strata_backup_last_success_timestamp_seconds").set(micros as f64 / 1e6);
        }
        if let Some(took) = self.took {
            metrics::gauge!("strata_backup_duration_seconds").set(took.as_secs_f64());
        }
        if let Some(written_bytes) = self.written_bytes {
            metrics::gauge!("strata_backup_written_bytes").set(written_bytes as f64);
        }
    }
}

fn log(made: &Made) {
    tracing::info!(
        backup_id = made.backup_id,
        blobs = made.blobs,
        new_blobs = made.new_blobs,
        written_bytes = made.written_bytes,
        "a backup was made"
    );
    if let Some(first) = made.lost.first() {
        tracing::error!(
            count = made.lost.len(),
            first,
            "contents that the catalog names are missing or damaged, and not in the backup; run `strata doctor`"
        );
    }
}
