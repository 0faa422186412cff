//! What can be done to a batch after it was submitted: cancel, retry, resubmit, delete.

use super::{create::Submit, settle_one};
use crate::Engine;
use serde_json::json;
use strata_model::{Error, Result, Scope};
use strata_store::catalog::{
    batches::{self as rows, Batch, Task},
    derivations::{self, Derivation},
    resources::{self, Kind},
    rusqlite::Connection,
};

/// A batch, by its bucket's id or name if that is given.
pub(super) fn load(connection: &Connection, scope: &Scope, bucket: Option<&str>, batch_id: &str) -> Result<Batch> {
    let bucket = bucket.map(|b| resources::get(connection, Kind::Bucket, scope, b)).transpose()?;
    rows::get(connection, scope, bucket.as_ref().map(|b| b.id.as_str()), batch_id)
}

impl Engine {
    /// Cancels what is not over, in one tier or in all. Answers how many derivations that was, and the batch's task.
    pub async fn cancel_batch(
        &self,
        scope: &Scope,
        bucket: Option<&str>,
        batch_id: &str,
        tier: Option<u32>,
        reason: Option<String>,
    ) -> Result<(usize, Option<Task>)> {
        let (scope, bucket, batch_id, now) =
            (scope.clone(), bucket.map(str::to_owned), batch_id.to_owned(), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let mut batch = load(tx, &scope, bucket.as_deref(), &batch_id)?;
                let count = derivations::cancel(tx, &batch_id, tier, &now)?;
                if let Some(reason) = reason {
                    batch.body.insert("cancel_reason".into(), json!(reason));
                }
                if batch.status == "DRAFT" {
                    batch.status = "CANCELED".into();
                }
                batch.updated_at = now.clone();
                rows::put(tx, &batch)?;
                settle_one(tx, &scope, &batch_id, &now)?;
                let task = batch.task_id.map(|id| rows::task(tx, &scope.organization_id, &id)).transpose()?;
                Ok((count, task))
            })
            .await
    }

    /// Queues the failed derivations again: only those that may succeed, unless `all`. Answers how many.
    pub async fn retry_batch(
        &self,
        scope: &Scope,
        bucket: &str,
        batch_id: &str,
        tiers: &[u32],
        all: bool,
    ) -> Result<usize> {
        let (scope, bucket, batch_id, now) =
            (scope.clone(), bucket.to_owned(), batch_id.to_owned(), self.catalog.now());
        let tiers: Vec<Option<u32>> =
            if tiers.is_empty() { vec![None] } else { tiers.iter().copied().map(Some).collect() };
        let count = self
            .catalog
            .write(move |tx| {
                let mut batch = load(tx, &scope, Some(&bucket), &batch_id)?;
                let mut count = 0;
                for tier in tiers {
                    count += derivations::retry(tx, &batch_id, tier, all)?;
                }
                if count > 0 {
                    batch.status = "QUEUED".into();
                    batch.updated_at = now.clone();
                    let retries = batch.body.get("retry_count").and_then(serde_json::Value::as_u64).unwrap_or(0) + 1;
                    batch.body.insert("retry_count".into(), json!(retries));
                    batch.body.insert("last_retry_at".into(), json!(now));
                    rows::put(tx, &batch)?;
                    if let Some(task) = &batch.task_id {
                        rows::set_task_status(tx, task, "PENDING", &now)?;
                    }
                }
                Ok(count)
            })
            .await?;
        self.queue.wake();
        Ok(count)
    }

    /// Submits a batch that ended once more: what did not change runs no model.
    pub async fn resubmit_batch(&self, scope: &Scope, bucket: &str, batch_id: &str) -> Result<Task> {
        self.submit_batch(scope, bucket, batch_id, Submit::default()).await
    }

    /// Removes a batch. Its documents stay; a running one is refused.
    pub async fn delete_batch(&self, scope: &Scope, bucket: &str, batch_id: &str) -> Result<()> {
        let (scope, bucket, batch_id) = (scope.clone(), bucket.to_owned(), batch_id.to_owned());
        self.catalog
            .write(move |tx| {
                let batch = load(tx, &scope, Some(&bucket), &batch_id)?;
                if batch.status == "QUEUED" {
                    return Err(Error::Conflict(format!("batch `{batch_id}` is running; cancel it first")));
                }
                rows::delete(tx, &batch_id)
            })
            .await
    }

    /// Removes the documents that a batch's derivations made, with what descends from them; its inputs make them anew
    /// when they are processed again. Answers how many.
    pub async fn delete_batch_documents(&self, scope: &Scope, bucket: &str, batch_id: &str) -> Result<usize> {
        let (at, bucket, batch_id) = (scope.clone(), bucket.to_owned(), batch_id.to_owned());
        let (touched, count) = self
            .catalog
            .write(move |tx| {
                load(tx, &at, Some(&bucket), &batch_id)?;
                let seqs = derivations::document_seqs_of_batch(tx, &batch_id)?;
                derivations::forget_batch(tx, &batch_id)?;
                derivations::remove_documents(tx, &seqs)
            })
            .await?;
        self.indexed(touched, true).await;
        Ok(count)
    }

    /// The failed derivations of a batch.
    pub async fn failed_of_batch(
        &self,
        scope: &Scope,
        bucket: &str,
        batch_id: &str,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<Derivation>> {
        let (scope, bucket, batch_id) = (scope.clone(), bucket.to_owned(), batch_id.to_owned());
        self.catalog
            .read(move |c| {
                load(c, &scope, Some(&bucket), &batch_id)?;
                derivations::failed(c, &batch_id, limit, offset)
            })
            .await
    }

    /// Changes a batch's metadata.
    pub async fn patch_batch(
        &self,
        scope: &Scope,
        bucket: &str,
        batch_id: &str,
        metadata: strata_model::Fields,
    ) -> Result<Batch> {
        let (scope, bucket, batch_id, now) =
            (scope.clone(), bucket.to_owned(), batch_id.to_owned(), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let mut batch = load(tx, &scope, Some(&bucket), &batch_id)?;
                batch.body.insert("metadata".into(), metadata.into());
                batch.updated_at = now;
                rows::put(tx, &batch)?;
                Ok(batch)
            })
            .await
    }
}
