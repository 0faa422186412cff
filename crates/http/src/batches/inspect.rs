//! Where a batch stands: its accounts, its failures, and what running it would take.

use super::{
    Answer, answer,
    wire::{estimate_json, tier_audit},
};
use crate::{
    App,
    extract::{Path, Query, Tenant},
    paging::{Paging, PagingFields},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use strata_model::Permission;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(audit))
        .routes(routes!(diagnose))
        .routes(routes!(estimate))
        .routes(routes!(failed_documents))
        .routes(routes!(logs))
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

/// Says why a batch stands where it stands.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/diagnose", tag = "BucketBatches", operation_id = "diagnose_batch",
    params(("bucket_identifier" = String, Path), ("batch_id" = String, Path)), responses((status = 200, body = Object)))]
async fn diagnose(State(app): State<App>, tenant: Tenant, Path((bucket, batch)): Path<(String, String)>) -> Answer {
    tenant.may(Permission::Read)?;
    let view = app.batch(&tenant.scope, Some(&bucket), &batch).await?;
    let failures: Vec<Value> = view.failed.iter().map(|d| json!(d)).collect();
    answer(json!({ "batch_id": batch, "status": view.status, "progress": view.counts, "failures": failures }))
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
