//! Batches: objects of a bucket, run through the collections that read it.

mod inspect;
mod lists;
mod tiers;
mod wire;

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query, Tenant},
    openapi::maybe_object,
    tasks::{TaskResponse, task_json},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strata_engine::batches::{NewBatch, Submit};
use strata_model::{Error, Permission, Scope, filter::Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::batch_json;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_by_id))
        .routes(routes!(cancel_by_id))
        .routes(routes!(create))
        .routes(routes!(bulk_submit))
        .routes(routes!(submit_all))
        .routes(routes!(get, patch, delete))
        .routes(routes!(cancel))
        .routes(routes!(delete_documents))
        .routes(routes!(add_objects))
        .routes(routes!(resubmit))
        .routes(routes!(retry))
        .routes(routes!(submit))
        .merge(lists::routes())
        .merge(inspect::routes())
        .merge(tiers::routes())
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct CreateBatchRequest {
    /// Objects of the bucket; or else `filters` choose them.
    object_ids: Option<Vec<String>>,
    filters: Option<Value>,
    /// Collections to run, by id or name; all that read the bucket where it is empty.
    collection_ids: Option<Vec<String>>,
    #[schema(minimum = 1, maximum = 50_000)]
    limit: Option<usize>,
    /// `skip` runs only what changed, `replace` likewise, `force` everything.
    dedup_strategy: Option<String>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    #[schema(max_length = 256)]
    batch_name: Option<String>,
    /// Submit at once.
    auto_submit: Option<bool>,
    /// The same as `auto_submit`.
    trigger_processing: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
struct CreateQuery {
    /// Taken and ignored: objects are always checked.
    skip_validation: Option<bool>,
    auto_submit: Option<bool>,
    trigger_processing: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct SubmitBatchRequest {
    include_processing_history: Option<bool>,
    collection_ids: Option<Vec<String>>,
    webhook_url: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
struct SubmitQuery {
    /// Run everything again, changed or not.
    force: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct AddObjectsToBatchRequest {
    object_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct PatchBatchRequest {
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct RetryBatchRequest {
    /// `transient_only` (the default) leaves those that would fail again; `all` retries every failure.
    retry_mode: Option<String>,
    tier_nums: Option<Vec<u32>>,
    #[schema(minimum = 1, maximum = 10)]
    max_retry_count: Option<u32>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct BulkSubmitBatchesRequest {
    collection_ids: Option<Vec<String>>,
    filters: Option<Value>,
    #[schema(minimum = 1, maximum = 50_000)]
    chunk_size: Option<usize>,
    dedup_strategy: Option<String>,
    #[schema(minimum = 1)]
    max_objects: Option<usize>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
struct ReasonQuery {
    reason: Option<String>,
}

type Answer = Result<axum::Json<Value>, ApiError>;

fn answer(value: Value) -> Answer {
    Ok(axum::Json(value))
}

fn filter(value: Option<&Value>) -> Result<Option<Filter>, ApiError> {
    Ok(value.filter(|v| !v.is_null()).map(|v| Filter::parse(v, "filters")).transpose()?)
}

/// Creates a batch of a bucket's objects: a draft, unless `auto_submit` asks to run it at once.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches", tag = "BucketBatches", operation_id = "create_batch",
    params(("bucket_identifier" = String, Path), CreateQuery), request_body = CreateBatchRequest,
    responses((status = 200, body = Object)))]
async fn create(State(app): State<App>, tenant: Tenant, Path(bucket): Path<String>, Query(query): Query<CreateQuery>, Json(body): Json<CreateBatchRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    if body.batch_name.as_ref().is_some_and(|n| n.chars().count() > 256) {
        return Err(Error::invalid("batch_name", "has at most 256 characters").into());
    }
    let new = NewBatch {
        name: body.batch_name,
        filters: filter(body.filters.as_ref())?,
        object_ids: body.object_ids,
        limit: body.limit,
        collection_ids: body.collection_ids.unwrap_or_default(),
        dedup_strategy: body.dedup_strategy,
        metadata: body.metadata.unwrap_or_default(),
    };
    let batch = app.create_batch(&tenant.scope, &bucket, new).await?;
    if [body.auto_submit, body.trigger_processing, query.auto_submit, query.trigger_processing].contains(&Some(true)) {
        app.submit_batch(&tenant.scope, &bucket, &batch.batch_id, Submit::default()).await?;
    }
    answer(batch_json(&app.batch(&tenant.scope, None, &batch.batch_id).await?))
}

/// Submits a batch: its objects run through every enabled collection that reads the bucket. Answers the task to poll.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/submit", tag = "BucketBatches", operation_id = "submit_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), SubmitQuery), request_body = SubmitBatchRequest,
    responses((status = 200, body = TaskResponse)))]
async fn submit(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Query(query): Query<SubmitQuery>, Json(body): Json<SubmitBatchRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    let submit = Submit {
        collection_ids: body.collection_ids.unwrap_or_default(),
        include_processing_history: body.include_processing_history.unwrap_or(true),
        force: query.force.unwrap_or(false),
    };
    answer(task_json(&app.submit_batch(&tenant.scope, &bucket, &batch, submit).await?))
}

/// A batch by its id alone.
#[utoipa::path(get, path = "/v1/batches/{batch_id}", tag = "Batches", operation_id = "get_batch_by_id", params(("batch_id" = String, Path)),
    responses((status = 200, body = Object)))]
async fn get_by_id(State(app): State<App>, caller: Caller, Path(batch): Path<String>) -> Answer {
    caller.may(Permission::Read)?;
    let scope = app.scope_of_batch(&caller.0, &batch).await?;
    answer(batch_json(&app.batch(&scope, None, &batch).await?))
}

/// Cancels a batch by its id alone.
#[utoipa::path(post, path = "/v1/batches/{batch_id}/cancel", tag = "Batches", operation_id = "cancel_batch_by_id",
    params(("batch_id" = String, Path), ReasonQuery), responses((status = 200, body = TaskResponse)))]
async fn cancel_by_id(State(app): State<App>, caller: Caller, Path(batch): Path<String>, Query(why): Query<ReasonQuery>) -> Answer {
    caller.may(Permission::Write)?;
    let scope = app.scope_of_batch(&caller.0, &batch).await?;
    canceled(&app, &scope, None, &batch, why.reason).await
}

async fn canceled(app: &App, scope: &Scope, bucket: Option<&str>, batch: &str, reason: Option<String>) -> Answer {
    let (count, task) = app.cancel_batch(scope, bucket, batch, None, reason).await?;
    match task {
        Some(task) => {
            let task = app.task(&scope.organization_id, &task.task_id).await?;
            answer(task_json(&task))
        }
        None => answer(json!({
            "task_id": batch, "task_type": "api_buckets_batches_process", "status": "CANCELED",
            "inputs": [batch], "outputs": [],
            "additional_data": { "batch_id": batch, "canceled": count },
        })),
    }
}

/// A batch with its progress, tiers and failures.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}", tag = "BucketBatches", operation_id = "get_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn get(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Read)?;
    answer(batch_json(&app.batch(&tenant.scope, Some(&bucket), &batch).await?))
}

/// Changes a batch's metadata.
#[utoipa::path(patch, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}", tag = "BucketBatches", operation_id = "patch_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), request_body = PatchBatchRequest, responses((status = 200, body = Object)))]
async fn patch(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Json(body): Json<PatchBatchRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    if let Some(metadata) = body.metadata {
        app.patch_batch(&tenant.scope, &bucket, &batch, metadata).await?;
    }
    answer(batch_json(&app.batch(&tenant.scope, Some(&bucket), &batch).await?))
}

/// Removes a batch; the documents it made stay.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}", tag = "BucketBatches", operation_id = "delete_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn delete(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Delete)?;
    app.delete_batch(&tenant.scope, &bucket, &batch).await?;
    answer(json!({ "success": true, "message": format!("batch `{batch}` is deleted") }))
}

/// Cancels what has not run yet. What is complete stays.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/cancel", tag = "BucketBatches", operation_id = "cancel_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), ReasonQuery), responses((status = 200, body = TaskResponse)))]
async fn cancel(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Query(why): Query<ReasonQuery>) -> Answer {
    tenant.may(Permission::Write)?;
    canceled(&app, &tenant.scope, Some(&bucket), &batch, why.reason).await
}

/// Deletes the documents that a batch made, with all that descends from them.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/documents", tag = "BucketBatches", operation_id = "delete_batch_documents",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn delete_documents(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Delete)?;
    let count = app.delete_batch_documents(&tenant.scope, &bucket, &batch).await?;
    answer(json!({ "batch_id": batch, "deleted_count": count, "success": true }))
}

/// Adds objects to a draft.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/objects", tag = "BucketBatches", operation_id = "add_objects_to_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), request_body = AddObjectsToBatchRequest, responses((status = 200, body = Object)))]
async fn add_objects(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Json(body): Json<AddObjectsToBatchRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    app.add_to_batch(&tenant.scope, &bucket, &batch, body.object_ids).await?;
    answer(batch_json(&app.batch(&tenant.scope, Some(&bucket), &batch).await?))
}

/// Submits a batch once more. What did not change runs no model.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/resubmit", tag = "BucketBatches", operation_id = "resubmit_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn resubmit(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Write)?;
    let task = app.resubmit_batch(&tenant.scope, &bucket, &batch).await?;
    answer(json!({ "batch_id": batch, "task_id": task.task_id, "status": task.status }))
}

/// Queues a batch's failures again.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/retry", tag = "BucketBatches", operation_id = "retry_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), request_body = RetryBatchRequest, responses((status = 200, body = Object)))]
async fn retry(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Json(body): Json<RetryBatchRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    let all = match body.retry_mode.as_deref() {
        None | Some("transient_only") => false,
        Some("all") => true,
        Some(other) => return Err(Error::invalid("retry_mode", format!("`{other}` is neither transient_only nor all")).into()),
    };
    let count = app.retry_batch(&tenant.scope, &bucket, &batch, &body.tier_nums.unwrap_or_default(), all).await?;
    let view = app.batch(&tenant.scope, Some(&bucket), &batch).await?;
    answer(json!({ "batch_id": batch, "retried": count, "status": view.status, "task_id": view.batch.task_id }))
}

/// Submits every draft of a bucket.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/submit-all", tag = "BucketBatches", operation_id = "submit_all_drafts",
    params(("bucket_identifier" = String, Path)), responses((status = 200, body = Object)))]
async fn submit_all(State(app): State<App>, tenant: Tenant, Path(bucket): Path<String>) -> Answer {
    tenant.may(Permission::Write)?;
    let (drafts, _) = app.batches(&tenant.scope, Some(&bucket), Some("DRAFT"), 1000, 0).await?;
    let mut submitted = Vec::new();
    for draft in drafts {
        let task = app.submit_batch(&tenant.scope, &bucket, &draft.batch.batch_id, Submit::default()).await?;
        submitted.push(json!({ "batch_id": draft.batch.batch_id, "task_id": task.task_id }));
    }
    answer(json!({ "submitted": submitted.len(), "batches": submitted }))
}

/// Puts a bucket's objects into batches of `chunk_size` and submits them all.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/bulk-submit", tag = "BucketBatches", operation_id = "bulk_submit_batches",
    params(("bucket_identifier" = String, Path)), request_body = BulkSubmitBatchesRequest, responses((status = 200, body = Object)))]
async fn bulk_submit(State(app): State<App>, tenant: Tenant, Path(bucket): Path<String>, Json(body): Json<BulkSubmitBatchesRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    let chunk_size = body.chunk_size.unwrap_or(1000);
    if !(1..=50_000).contains(&chunk_size) {
        return Err(Error::invalid("chunk_size", "must be from 1 to 50000").into());
    }
    let all = NewBatch { filters: filter(body.filters.as_ref())?, limit: body.max_objects, ..NewBatch::default() };
    let objects = app.objects_for_batch(&tenant.scope, &bucket, &all).await?;
    let mut batches = Vec::new();
    for chunk in objects.chunks(chunk_size) {
        let new = NewBatch {
            object_ids: Some(chunk.to_vec()),
            collection_ids: body.collection_ids.clone().unwrap_or_default(),
            dedup_strategy: body.dedup_strategy.clone(),
            ..NewBatch::default()
        };
        let batch = app.create_batch(&tenant.scope, &bucket, new).await?;
        app.submit_batch(&tenant.scope, &bucket, &batch.batch_id, Submit::default()).await?;
        batches.push(json!({ "batch_id": batch.batch_id, "status": "QUEUED", "object_count": chunk.len() }));
    }
    answer(json!({
        "batch_group_id": batches.first().map_or(json!(""), |b| b["batch_id"].clone()),
        "total_objects": objects.len(),
        "total_batches": batches.len(),
        "submitted": batches.len(),
        "failed": 0,
        "chunk_size": chunk_size,
        "batches": batches,
    }))
}
