//! The tiers of a batch, each ended, mended or repeated alone.

use super::{Answer, ReasonQuery, answer};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::json;
use strata_model::{Error, Permission, Scope};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(cancel_tier))
        .routes(routes!(heal_tier))
        .routes(routes!(retry_tier))
        .routes(routes!(cancel_job))
}

#[derive(Debug, Deserialize, ToSchema)]
struct HealTierRequest {
    /// `retry` queues the tier's failures again; `cancel` gives the rest of it up.
    action: String,
}

/// The number of a tier that the batch has.
async fn tier_of(app: &App, scope: &Scope, bucket: &str, batch: &str, tier: &str) -> Result<u32, ApiError> {
    let view = app.batch(scope, Some(bucket), batch).await?;
    let number = tier.parse().ok().filter(|number| view.tiers.iter().any(|tier| tier.number == *number));
    Ok(number.ok_or_else(|| Error::missing("tier", tier))?)
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
