//! Confirming uploads: the bytes are checked once more and become an object.

use super::{MAX_BATCH, map_in};
use crate::{
    Engine,
    buckets::Policy,
    objects::{BlobSource, NewBlob, NewObject, create},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Fields, Result, Scope, id, schema::FieldType};
use strata_store::catalog::{
    batches::{self, Task},
    objects::uploads::{self, Upload},
};

/// Confirmations of one request that run at once.
const AT_ONCE: usize = 8;
const TASK_ID_CHARS: usize = 16;

/// What the caller says when it confirms.
#[derive(Debug, Clone, Default)]
pub struct ConfirmOptions {
    /// The ETag that the `PUT` answered.
    pub etag: Option<String>,
    pub file_size_bytes: Option<u64>,
    /// Derive documents right away.
    pub auto_submit_batch: bool,
    pub policy: Option<Policy>,
    /// Also keep a task that tells the outcome.
    pub with_task: bool,
}

/// A confirmed upload.
#[derive(Debug, Clone)]
pub struct Confirmed {
    pub upload: Upload,
    pub task_id: Option<String>,
    pub batch_id: Option<String>,
}

/// What came of many confirmations.
#[derive(Debug, Clone)]
pub struct BatchConfirmed {
    pub task: Task,
    pub confirmations: usize,
}

impl Engine {
    /// Confirms an upload whose bytes are here. Confirming twice answers the same.
    pub async fn confirm_upload(
        self: &Arc<Self>,
        scope: &Scope,
        bucket: &str,
        upload_id: &str,
        options: ConfirmOptions,
    ) -> Result<Confirmed> {
        let bucket = self.known_bucket(scope, bucket).await?;
        let upload = self.upload(scope, bucket.id(), upload_id).await?;
        let was_done = upload.status == "COMPLETED";
        let upload = match was_done {
            true => upload,
            false => self.complete(scope, &bucket, upload, &options).await?,
        };
        let mut confirmed = Confirmed { upload, task_id: None, batch_id: None };
        if let (true, false, Some(object_id)) = (options.auto_submit_batch, was_done, &confirmed.upload.object_id) {
            confirmed.batch_id = self.process_objects(scope, bucket.id(), vec![object_id.clone()]).await?;
        }
        if options.with_task {
            let task = self.finished_task(
                scope,
                "api_buckets_uploads_confirm",
                "COMPLETED",
                vec![upload_id.into()],
                confirmed.upload.object_id.iter().map(|id| json!(id)).collect(),
                confirmed.batch_id.clone(),
            );
            confirmed.task_id = Some(task.task_id.clone());
            self.catalog.write(move |tx| batches::put_task(tx, &task)).await?;
        }
        Ok(confirmed)
    }

    /// Confirms up to [`MAX_BATCH`] uploads; the task tells what came of each.
    pub async fn confirm_uploads(
        self: &Arc<Self>,
        scope: &Scope,
        bucket: &str,
        confirmations: Vec<(String, ConfirmOptions)>,
    ) -> Result<BatchConfirmed> {
        let count = confirmations.len();
        if count == 0 || count > MAX_BATCH {
            return Err(Error::invalid("confirmations", format!("must have 1 to {MAX_BATCH} entries, not {count}")));
        }
        let bucket = self.known_bucket(scope, bucket).await?;
        let inputs = confirmations.iter().map(|(id, _)| json!(id)).collect();
        let bucket_id = bucket.id();
        let each = confirmations.into_iter().map(|(upload_id, options)| async move {
            match self.confirm_upload(scope, bucket_id, &upload_id, options).await {
                Ok(done) => {
                    (true, json!({ "upload_id": upload_id, "status": "COMPLETED", "object_id": done.upload.object_id, "batch_id": done.batch_id }))
                }
                Err(error @ Error::Internal(_)) => {
                    tracing::error!(%error, upload_id, "an upload could not be confirmed");
                    (false, json!({ "upload_id": upload_id, "status": "FAILED", "error": "an internal error" }))
                }
                Err(error) => (false, json!({ "upload_id": upload_id, "status": "FAILED", "error": error.to_string() })),
            }
        });
        let outcomes: Vec<(bool, Value)> = stream::iter(each).buffered(AT_ONCE).collect().await;
        let failed = outcomes.iter().filter(|(is_done, _)| !is_done).count();
        let status = match failed {
            0 => "COMPLETED",
            failed if failed == count => "FAILED",
            _ => "COMPLETED_WITH_ERRORS",
        };
        let outputs = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        let task = self.finished_task(scope, "api_buckets_uploads_batch_confirm", status, inputs, outputs, None);
        let stored = task.clone();
        self.catalog.write(move |tx| batches::put_task(tx, &stored)).await?;
        Ok(BatchConfirmed { task, confirmations: count })
    }

    fn finished_task(
        &self,
        scope: &Scope,
        task_type: &str,
        status: &str,
        inputs: Vec<Value>,
        outputs: Vec<Value>,
        batch_id: Option<String>,
    ) -> Task {
        let now = self.catalog.now();
        let body = json!({ "inputs": inputs, "outputs": outputs });
        Task {
            task_id: self.catalog.new_id(id::TASK, TASK_ID_CHARS),
            organization_id: scope.organization_id.clone(),
            namespace_id: Some(scope.namespace_id.clone()),
            task_type: task_type.into(),
            status: status.into(),
            batch_id,
            body: body.as_object().cloned().unwrap_or_default(),
            created_at: now.clone(),
            updated_at: now,
        }
    }

    async fn complete(
        &self,
        scope: &Scope,
        bucket: &crate::buckets::Bucket,
        upload: Upload,
        options: &ConfirmOptions,
    ) -> Result<Upload> {
        check(&upload, options)?;
        let makes_object = upload.body.get("create_object_on_confirm").and_then(Value::as_bool).unwrap_or(true);
        let ready = match makes_object {
            true => {
                if let (Some(_), None) =
                    (&bucket.unique_key, options.policy.or(bucket.unique_key.as_ref().and_then(|k| k.default_policy)))
                {
                    return Err(Error::invalid(
                        "policy",
                        "is required: the bucket has a unique key and no default policy",
                    ));
                }
                Some(self.ready(scope, bucket, object_of(&upload), options.policy).await?)
            }
            false => None,
        };
        let (scope, now, checked_hash) = (scope.clone(), self.catalog.now(), upload.blob_hash.clone());
        let (upload, ready, committed) = self
            .catalog
            .write(move |tx| {
                let mut upload = uploads::get(tx, &scope, Some(&upload.bucket_id), &upload.upload_id)?;
                // Another confirmation came first; this one makes no second object.
                if upload.status == "COMPLETED" {
                    return Ok((upload, ready, None));
                }
                if upload.blob_hash != checked_hash {
                    return Err(Error::Conflict(format!(
                        "other bytes came for upload `{}` meanwhile; confirm again",
                        upload.upload_id
                    )));
                }
                let committed = ready.as_ref().map(|ready| create::commit(tx, &scope, ready)).transpose()?;
                upload.status = "COMPLETED".into();
                upload.object_id = committed.as_ref().map(|c| c.object.object_id.clone());
                upload.body.insert("verified_at".into(), now.clone().into());
                upload.body.insert("completed_at".into(), now.clone().into());
                upload.updated_at = now;
                uploads::put(tx, &scope, &upload)?;
                Ok((upload, ready, committed))
            })
            .await?;
        drop(ready);
        if let Some(committed) = committed {
            self.remove_blobs(committed.freed).await;
        }
        Ok(upload)
    }
}

fn check(upload: &Upload, options: &ConfirmOptions) -> Result<()> {
    let id = &upload.upload_id;
    if upload.status != "PENDING" {
        return Err(Error::Conflict(format!("upload `{id}` is {} and cannot be confirmed", upload.status)));
    }
    let Some(hash) = &upload.blob_hash else {
        return Err(Error::invalid(
            "upload_id",
            format!("no bytes of `{id}` are here: `PUT` them to its presigned URL first"),
        ));
    };
    if let Some(etag) = &options.etag {
        let bare = etag.trim().trim_start_matches("W/").trim_matches('"');
        if bare != hash {
            return Err(Error::invalid("etag", format!("is not that of the bytes that came, `{hash}`")));
        }
    }
    let size = upload.body.get("file_size_bytes").and_then(Value::as_u64);
    match (options.file_size_bytes, size) {
        (Some(wanted), Some(came)) if wanted != came => {
            Err(Error::invalid("file_size_bytes", format!("{came} bytes came, not {wanted}")))
        }
        _ => Ok(()),
    }
}

/// The object that an upload becomes.
fn object_of(upload: &Upload) -> NewObject {
    let text = |key: &str| upload.body.get(key).and_then(Value::as_str);
    let mut fields = Fields::new();
    if let Some(metadata) = map_in(&upload.body, "object_metadata") {
        fields.insert("metadata".into(), Value::Object(metadata));
    }
    let blob = NewBlob {
        property: text("blob_property").unwrap_or_default().to_owned(),
        blob_type: text("blob_type").and_then(FieldType::parse),
        key_prefix: None,
        source: BlobSource::Upload(upload.upload_id.clone()),
        checksum: None,
        metadata: map_in(&upload.body, "metadata").unwrap_or_default(),
    };
    NewObject { blobs: vec![blob], fields, ..NewObject::default() }
}
