//! What is done now and then while the server runs.

use crate::Engine;
use std::{sync::Arc, time::Duration};

/// How often uploads, contents, keys that sign URLs, the audit log and the queues of webhooks are looked through.
const EVERY: Duration = Duration::from_secs(600);

/// Sweeps what crashes left, then sweeps at intervals. Ends with the engine's queue.
pub(crate) fn start(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let stop = engine.queue.stopping();
    let tracker = engine.queue.tracker().clone();
    let upkeep = async move {
        if let Err(error) = engine.sweep_unnamed().await {
            tracing::warn!(%error, "contents that no row names were not all removed; the next start tries again");
        }
        loop {
            if let Err(error) = engine.sweep().await {
                tracing::warn!(%error, "leftovers were not all removed; the next sweep tries again");
            }
            if let Err(error) = engine.tend_signing_keys().await {
                tracing::warn!(%error, "the keys that sign URLs stay as they are; the next sweep tries again");
            }
            if let Err(error) = engine.sweep_audit().await {
                tracing::warn!(%error, "old events of the audit log were not all removed; the next sweep tries again");
            }
            if let Err(error) = engine.sweep_webhooks().await {
                tracing::warn!(%error, "queues of webhooks that are too long were not cut; the next sweep tries again");
            }
            tokio::time::sleep(EVERY).await;
        }
    };
    drop(tracker.spawn(async move { stop.run_until_cancelled(upkeep).await }));
}
