//! Batches: objects of a bucket, run through the collections that read it.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query, Tenant},
    openapi::maybe_object,
    paging::{Paging, PagingFields},
    tasks::{TaskResponse, task_json},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use strata_engine::batches::{BatchView, Estimate, NewBatch, Submit, Tier};
use strata_model::{Error, Permission, Scope, filter::Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_all))
        .routes(routes!(queue))
        .routes(routes!(get_by_id))
        .routes(routes!(cancel_by_id))
        .routes(routes!(create))
        .routes(routes!(list))
        .routes(routes!(bulk_submit))
        .routes(routes!(submit_all))
        .routes(routes!(get, patch, delete))
        .routes(routes!(audit))
        .routes(routes!(cancel))
        .routes(routes!(diagnose))
        .routes(routes!(delete_documents))
        .routes(routes!(estimate))
        .routes(routes!(failed_documents))
        .routes(routes!(logs))
        .routes(routes!(add_objects))
        .routes(routes!(resubmit))
        .routes(routes!(retry))
        .routes(routes!(submit))
        .routes(routes!(cancel_tier))
        .routes(routes!(heal_tier))
        .routes(routes!(retry_tier))
        .routes(routes!(cancel_job))
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

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct ListBatchesRequest {
    /// `DRAFT`, `QUEUED`, `PROCESSING`, `COMPLETED`, `COMPLETED_WITH_ERRORS`, `FAILED` or `CANCELED`.
    status: Option<String>,
    collection_id: Option<String>,
    bucket_id: Option<String>,
    namespace_id: Option<String>,
    #[schema(minimum = 0)]
    offset: Option<i64>,
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    cursor: Option<String>,
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

#[derive(Debug, Deserialize, ToSchema)]
struct HealTierRequest {
    /// `retry` queues the tier's failures again; `cancel` gives the rest of it up.
    action: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
struct FailedQuery {
    tier_num: Option<u32>,
    collection_id: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    #[param(minimum = 0)]
    offset: Option<i64>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
struct TierQuery {
    tier_num: Option<u32>,
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

/// The batch as every answer shows it.
pub(crate) fn batch_json(view: &BatchView) -> Value {
    let (batch, counts) = (&view.batch, &view.counts);
    let body = |key: &str| batch.body.get(key).cloned().unwrap_or(Value::Null);
    let (processed, total) = (counts.finished(), counts.total());
    let failed: Vec<Value> = view
        .failed
        .iter()
        .map(|d| json!({
            "object_id": d.root_object_id.as_deref().unwrap_or(&d.input_id),
            "error": d.error.as_deref().unwrap_or("failed"),
            "error_type": d.error_type.as_deref().unwrap_or("permanent"),
            "timestamp": d.finished_at.as_deref().unwrap_or(&d.created_at),
        }))
        .collect();
    let layers = body("dag_tiers");
    let total_tiers = layers.as_array().map_or(1, |l| l.len().max(1));
    let current = view.tiers.iter().find(|t| !t.counts.is_over()).or(view.tiers.last()).map(|t| t.number);
    let mut answer = json!({
        "batch_id": batch.batch_id,
        "bucket_id": batch.bucket_id.as_deref().unwrap_or_default(),
        "namespace_id": batch.namespace_id,
        "status": view.status,
        "object_ids": view.object_ids,
        "collection_ids": body("collection_ids"),
        "failed_object_count": counts.failed,
        "failed_objects": failed,
        "type": batch.body.get("type").and_then(Value::as_str).unwrap_or("BUCKET"),
        "tier_tasks": view.tiers.iter().map(|t| tier_json(t, batch.task_id.as_deref())).collect::<Vec<_>>(),
        "total_tiers": total_tiers,
        "progress": {
            "processed": processed,
            "total": total,
            "percent": if total == 0 { 0.0 } else { processed as f64 * 100.0 / total as f64 },
            "batch_count": 0,
            "errors": counts.failed,
            "documents_skipped": 0,
            "objects_skipped": counts.reused,
            "objects_failed": counts.failed,
            "documents_written": counts.outputs,
        },
        "documents_written": counts.outputs,
        "documents_resolvable": true,
        "retry_count": batch.body.get("retry_count").and_then(Value::as_u64).unwrap_or(0),
        "max_retries": strata_model::limits::MAX_ATTEMPTS,
        "node_death_resubmit_count": 0,
        "deploy_resubmit_count": 0,
        "max_node_death_resubmits": 0,
        "max_deploy_resubmits": 0,
        "lifecycle": view.status.to_lowercase(),
        "lifecycle_reason": batch.body.get("cancel_reason"),
        "created_at": batch.created_at,
        "updated_at": batch.updated_at,
        "last_activity_at": batch.updated_at,
    });
    // Optional keys whose type admits no null are left out where there is nothing to say.
    let optional = [
        ("batch_name", body("batch_name")),
        ("dedup_strategy", body("dedup_strategy")),
        ("metadata", body("metadata")),
        ("task_id", json!(batch.task_id)),
        ("dag_tiers", layers),
        ("current_tier", json!(current)),
        ("last_retry_at", body("last_retry_at")),
        ("error", json!(view.failed.first().and_then(|d| d.error.clone()))),
    ];
    if let Value::Object(map) = &mut answer {
        map.extend(optional.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_owned(), v)));
    }
    answer
}

fn tier_json(tier: &Tier, task_id: Option<&str>) -> Value {
    json!({
        "tier_num": tier.number,
        "task_id": task_id,
        "status": tier.status,
        "collection_ids": tier.collection_ids,
        "source_type": if tier.number == 0 { "bucket" } else { "collection" },
        "documents_written": tier.counts.outputs,
        "documents_submitted_to_engine": tier.counts.total(),
        "audit": tier_audit(tier),
    })
}

fn tier_audit(tier: &Tier) -> Value {
    let c = &tier.counts;
    json!({
        "tier_num": tier.number,
        "submitted": c.total(),
        "processed": c.completed,
        "failed": c.failed,
        "skipped": c.canceled,
        "lost": 0,
        "balanced": c.is_over(),
        "notes": [],
        "durability": "confirmed",
    })
}

fn estimate_json(estimate: &Estimate) -> Value {
    json!({
        "batch_id": estimate.batch_id,
        "collection_ids": estimate.collection_ids,
        "dedup_strategy": estimate.dedup_strategy,
        "object_count": estimate.object_count,
        "already_extracted_count": estimate.already_extracted,
        "estimated_credits": 0,
        "estimated_usd": 0.0,
        "estimated_repay_credits": 0,
        "features": estimate.features,
        "extractors": estimate.extractors,
        "content_summary": { "derivations_to_run": estimate.to_run },
        "warnings": [],
    })
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

/// Lists a bucket's batches, newest first.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/list", tag = "BucketBatches", operation_id = "list_batches",
    params(("bucket_identifier" = String, Path)), request_body = ListBatchesRequest, responses((status = 200, body = Object)))]
async fn list(State(app): State<App>, tenant: Tenant, Path(bucket): Path<String>, Json(body): Json<ListBatchesRequest>) -> Answer {
    tenant.may(Permission::Read)?;
    let (limit, offset) = page(&body)?;
    let (found, total) = app.batches(&tenant.scope, Some(&bucket), body.status.as_deref(), limit, offset).await?;
    answer(listed(&found, total, limit, offset))
}

fn page(body: &ListBatchesRequest) -> Result<(usize, usize), ApiError> {
    let fields = PagingFields { limit: body.limit, offset: body.offset, cursor: body.cursor.clone(), ..PagingFields::default() };
    let paging = Paging::resolve(&PagingFields::default(), &fields, 100)?;
    Ok((paging.limit, paging.offset))
}

fn listed(found: &[BatchView], total: usize, limit: usize, offset: usize) -> Value {
    let paging = Paging { limit, offset, after: None, include_total: true };
    json!({
        "results": found.iter().map(batch_json).collect::<Vec<_>>(),
        "total_count": total,
        "pagination": crate::paging::PaginationResponse::of(&paging, found.len(), total),
    })
}

/// Lists the batches of every namespace that the key may enter, newest first.
#[utoipa::path(post, path = "/v1/batches/list", tag = "Batches", operation_id = "list_all_batches", request_body = ListBatchesRequest,
    responses((status = 200, body = Object)))]
async fn list_all(State(app): State<App>, caller: Caller, Json(body): Json<ListBatchesRequest>) -> Answer {
    caller.may(Permission::Read)?;
    let (limit, offset) = page(&body)?;
    let mut found: Vec<BatchView> = Vec::new();
    let mut total = 0;
    for scope in app.scopes(&caller.0).await? {
        if body.namespace_id.as_ref().is_some_and(|n| *n != scope.namespace_id) {
            continue;
        }
        let (part, count) = app.batches(&scope, None, body.status.as_deref(), limit + offset, 0).await?;
        found.extend(part);
        total += count;
    }
    found.retain(|b| body.bucket_id.as_ref().is_none_or(|id| b.batch.bucket_id.as_ref() == Some(id)));
    found.sort_by(|a, b| b.batch.created_at.cmp(&a.batch.created_at));
    let found: Vec<BatchView> = found.into_iter().skip(offset).take(limit).collect();
    answer(listed(&found, total, limit, offset))
}

/// How much work waits and runs.
#[utoipa::path(get, path = "/v1/batches/queue", tag = "Batches", operation_id = "get_queue_status", responses((status = 200, body = Object)))]
async fn queue(State(app): State<App>, caller: Caller) -> Answer {
    caller.may(Permission::Read)?;
    let mut waiting = Vec::new();
    for scope in app.scopes(&caller.0).await? {
        for status in ["PROCESSING", "QUEUED"] {
            waiting.extend(app.batches(&scope, None, Some(status), 1000, 0).await?.0);
        }
    }
    let pending: u64 = waiting.iter().map(|b| b.counts.pending).sum();
    let running: u64 = waiting.iter().map(|b| b.counts.running).sum();
    let batches: Vec<Value> = waiting.iter().map(|b| json!({ "batch_id": b.batch.batch_id, "status": b.status, "progress": b.counts })).collect();
    answer(json!({ "pending": pending, "running": running, "batches": batches, "total": batches.len() }))
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

/// The number of a tier that the batch has.
async fn tier_of(app: &App, scope: &Scope, bucket: &str, batch: &str, tier: &str) -> Result<u32, ApiError> {
    let view = app.batch(scope, Some(bucket), batch).await?;
    let number = tier.parse().ok().filter(|number| view.tiers.iter().any(|tier| tier.number == *number));
    Ok(number.ok_or_else(|| Error::missing("tier", tier))?)
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

/// Accounts for every input of a batch: each is completed, failed or skipped; none is lost.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/audit", tag = "BucketBatches", operation_id = "get_batch_audit",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn audit(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Read)?;
    let view = app.batch(&tenant.scope, Some(&bucket), &batch).await?;
    answer(json!({
        "batch_id": batch,
        "status": view.status,
        "tiers": view.tiers.iter().map(tier_audit).collect::<Vec<_>>(),
        "all_balanced": view.counts.is_over(),
        "has_lost_objects": false,
    }))
}

/// Cancels what has not run yet. What is complete stays.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/cancel", tag = "BucketBatches", operation_id = "cancel_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), ReasonQuery), responses((status = 200, body = TaskResponse)))]
async fn cancel(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Query(why): Query<ReasonQuery>) -> Answer {
    tenant.may(Permission::Write)?;
    canceled(&app, &tenant.scope, Some(&bucket), &batch, why.reason).await
}

/// Says why a batch stands where it stands.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/diagnose", tag = "BucketBatches", operation_id = "diagnose_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn diagnose(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Read)?;
    let view = app.batch(&tenant.scope, Some(&bucket), &batch).await?;
    let failures: Vec<Value> = view.failed.iter().map(|d| json!(d)).collect();
    answer(json!({ "batch_id": batch, "status": view.status, "progress": view.counts, "failures": failures }))
}

/// Deletes the documents that a batch made, with all that descends from them.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/documents", tag = "BucketBatches", operation_id = "delete_batch_documents",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn delete_documents(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Delete)?;
    let count = app.delete_batch_documents(&tenant.scope, &bucket, &batch).await?;
    answer(json!({ "batch_id": batch, "deleted_count": count, "success": true }))
}

/// The dry run: what submitting the batch would have to do, and what is already there.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/estimate-cost", tag = "BucketBatches", operation_id = "estimate_batch_cost",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn estimate(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Read)?;
    answer(estimate_json(&app.estimate_batch(&tenant.scope, &bucket, &batch).await?))
}

/// The inputs that failed, each with its reason.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/failed-documents", tag = "BucketBatches", operation_id = "get_failed_documents",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), FailedQuery), responses((status = 200, body = Object)))]
async fn failed_documents(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Query(query): Query<FailedQuery>) -> Answer {
    tenant.may(Permission::Read)?;
    let fields = PagingFields { limit: query.limit, offset: query.offset, ..PagingFields::default() };
    let paging = Paging::resolve(&fields, &PagingFields::default(), 100)?;
    let mut found = app.failed_of_batch(&tenant.scope, &bucket, &batch, paging.limit, paging.offset).await?;
    found.retain(|d| query.tier_num.is_none_or(|t| d.tier == t) && query.collection_id.as_ref().is_none_or(|c| *c == d.collection_id));
    let failed: Vec<Value> = found.iter().map(|d| json!(d)).collect();
    answer(json!({ "batch_id": batch, "failed_documents": failed, "results": failed, "total": failed.len(), "limit": paging.limit, "offset": paging.offset }))
}

/// What happened to a batch's inputs, in the words of the failures.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/logs", tag = "BucketBatches", operation_id = "get_batch_logs",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), TierQuery), responses((status = 200, body = Object)))]
async fn logs(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>, Query(query): Query<TierQuery>) -> Answer {
    tenant.may(Permission::Read)?;
    let view = app.batch(&tenant.scope, Some(&bucket), &batch).await?;
    let lines: Vec<Value> = view
        .failed
        .iter()
        .filter(|d| query.tier_num.is_none_or(|t| t == d.tier))
        .map(|d| json!({ "timestamp": d.finished_at, "level": "ERROR", "input_id": d.input_id, "message": d.error }))
        .collect();
    answer(json!({ "batch_id": batch, "logs": lines }))
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

/// Cancels what one tier has not run yet.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/tiers/{tier_num}/cancel", tag = "BucketBatches", operation_id = "cancel_tier",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), ("tier_num" = String, Path), ReasonQuery), responses((status = 200, body = Object)))]
async fn cancel_tier(State(app): State<App>, tenant: Tenant, Path((bucket, batch, tier)): Path<(String, String, String)>, Query(why): Query<ReasonQuery>) -> Answer {
    tenant.may(Permission::Write)?;
    let tier = tier_of(&app, &tenant.scope, &bucket, &batch, &tier).await?;
    let (count, _) = app.cancel_batch(&tenant.scope, Some(&bucket), &batch, Some(tier), why.reason).await?;
    answer(json!({ "batch_id": batch, "tier_num": tier, "canceled": count }))
}

/// Mends a tier: `retry` its failures, or `cancel` what is left of it.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/tiers/{tier_num}/heal", tag = "BucketBatches", operation_id = "heal_tier",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), ("tier_num" = String, Path)), request_body = HealTierRequest, responses((status = 200, body = Object)))]
async fn heal_tier(State(app): State<App>, tenant: Tenant, Path((bucket, batch, tier)): Path<(String, String, String)>, Json(body): Json<HealTierRequest>) -> Answer {
    tenant.may(Permission::Write)?;
    let tier = tier_of(&app, &tenant.scope, &bucket, &batch, &tier).await?;
    let count = match body.action.as_str() {
        "retry" | "resubmit" => app.retry_batch(&tenant.scope, &bucket, &batch, &[tier], true).await?,
        "cancel" | "fail" => app.cancel_batch(&tenant.scope, Some(&bucket), &batch, Some(tier), None).await?.0,
        other => return Err(Error::invalid("action", format!("`{other}` is neither retry nor cancel")).into()),
    };
    answer(json!({ "batch_id": batch, "tier_num": tier, "action": body.action, "affected": count }))
}

/// Queues one tier's failures again.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/tiers/{tier_num}/retry", tag = "BucketBatches", operation_id = "retry_tier",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), ("tier_num" = String, Path)), responses((status = 200, body = Object)))]
async fn retry_tier(State(app): State<App>, tenant: Tenant, Path((bucket, batch, tier)): Path<(String, String, String)>) -> Answer {
    tenant.may(Permission::Write)?;
    let tier = tier_of(&app, &tenant.scope, &bucket, &batch, &tier).await?;
    let count = app.retry_batch(&tenant.scope, &bucket, &batch, &[tier], true).await?;
    answer(json!({ "batch_id": batch, "tier_num": tier, "retried": count }))
}

/// Work runs inside this process, so there are no cluster jobs to cancel: any job id is unknown.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/tiers/{tier_num}/jobs/{ray_job_id}/cancel", tag = "BucketBatches", operation_id = "cancel_job",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path), ("tier_num" = String, Path), ("ray_job_id" = String, Path)), responses((status = 200, body = Object)))]
async fn cancel_job(State(app): State<App>, tenant: Tenant, Path((bucket, batch, tier, job)): Path<(String, String, String, String)>) -> Answer {
    tenant.may(Permission::Write)?;
    tier_of(&app, &tenant.scope, &bucket, &batch, &tier).await?;
    Err(Error::missing("job", job).into())
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
