//! Lists of batches: a bucket's, those of every namespace, and what of them waits.

use super::{Answer, answer, wire::batch_json};
use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Tenant},
    paging::{Paging, PagingFields},
};
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use strata_engine::batches::BatchView;
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_all)).routes(routes!(queue)).routes(routes!(list))
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
