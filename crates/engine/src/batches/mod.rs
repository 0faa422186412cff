//! Batches: a set of derivations with a name, a state and a task that clients poll. State and progress are counts over
//! the derivations until the last one ends; then the batch is settled, once.

mod create;
mod estimate;
mod operate;
mod view;

pub use create::{NewBatch, Submit, TriggerOutcome, TriggerRequest};
pub use estimate::Estimate;
pub use strata_store::catalog::batches::{Batch, Task};
pub use view::{BatchView, Tier};

use crate::Engine;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Result, Scope};
use strata_store::catalog::{
    batches::{self as rows},
    derivations::{self, Counts},
    rusqlite::Transaction,
    webhooks::{self, Event},
};

/// How a batch ends, from the counts of its derivations.
pub(crate) fn final_status(counts: &Counts) -> &'static str {
    match (counts.completed, counts.failed, counts.canceled) {
        (0, 0, 1..) => "CANCELED",
        (0, 1.., _) => "FAILED",
        (_, 0, 0) => "COMPLETED",
        (_, _, 1..) if counts.failed == 0 => "CANCELED",
        _ => "COMPLETED_WITH_ERRORS",
    }
}

/// Ends the batch if no work of it is left. Part of the transaction that ended the last derivation.
pub(crate) fn settle_one(tx: &Transaction<'_>, scope: &Scope, batch_id: &str, now: &str) -> Result<()> {
    if derivations::is_busy(tx, batch_id)? {
        return Ok(());
    }
    let Ok(mut batch) = rows::get(tx, scope, None, batch_id) else { return Ok(()) };
    if batch.status != "QUEUED" {
        return Ok(());
    }
    let counts = derivations::counts(tx, batch_id)?;
    batch.status = final_status(&counts).to_owned();
    batch.updated_at = now.to_owned();
    batch.body.insert("counts".into(), json!(counts));
    batch.body.insert("completed_at".into(), Value::from(now));
    rows::put(tx, &batch)?;
    if let Some(task) = &batch.task_id {
        rows::set_task_status(tx, task, &batch.status, now)?;
    }
    if batch.status != "CANCELED" {
        tell_end(tx, &batch)?;
    }
    Ok(())
}

/// Tells whoever wants it what a batch has come to in each of its collections.
fn tell_end(tx: &Transaction<'_>, batch: &Batch) -> Result<()> {
    let event = Event::new("collection.documents.batch_completed", &batch.namespace_id);
    if !webhooks::is_wanted(tx, &event)? {
        return Ok(());
    }
    for (tier, collection_id, counts) in derivations::counts_by_tier(tx, &batch.batch_id)? {
        webhooks::queue(tx, &event, || {
            json!({
                "collection_id": collection_id,
                "batch_id": batch.batch_id,
                "task_id": batch.task_id,
                "tier": tier,
                "status": batch.status,
                "counts": counts,
            })
        })?;
    }
    Ok(())
}

/// Ends every batch that has no work left: those whose inputs were deleted while they waited, and empty ones.
pub(crate) async fn settle(engine: &Arc<Engine>) -> Result<()> {
    let open = engine.catalog.read(rows::unfinished).await?;
    if open.is_empty() {
        return Ok(());
    }
    let (organization, now) = (String::new(), engine.catalog.now());
    engine
        .catalog
        .write(move |tx| {
            for batch in open {
                let scope = Scope::whole(&*organization, &*batch.namespace_id);
                settle_one(tx, &scope, &batch.batch_id, &now)?;
            }
            Ok(())
        })
        .await
}
