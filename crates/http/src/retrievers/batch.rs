//! Several queries to one retriever at once.

use super::{
    execute::{ExecuteRetrieverResponse, Style, either, response},
    stream::told,
};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    middleware::request_id,
    openapi::{any_object, maybe_object},
};
use axum::extract::State;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Instant;
use strata_engine::{
    documents::Show,
    retrieval::PageRequest,
    retrievers::{Execute, Outcome, Prepared},
};
use strata_model::{Error, Permission, Scope};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const MAX_QUERIES: usize = 16;
const DEFAULT_CONCURRENCY: i64 = 5;
const MAX_CONCURRENCY: i64 = 20;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(execute_batch_retrievers))
}

#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct BatchQuery {
    /// Whether hits carry signed URLs of their blobs.
    return_presigned_urls: Option<bool>,
    /// Whether hits carry their vectors.
    return_vectors: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchQueryItem {
    /// Values of the retriever's inputs by name.
    #[schema(schema_with = any_object)]
    inputs: Map<String, Value>,
    /// A filter that every document must satisfy besides the stages'.
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    filters: Option<Value>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExecuteBatchRequest {
    /// 1 to 16 of them.
    queries: Vec<BatchQueryItem>,
    /// `limit` or `pagination` of every query.
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    settings: Option<Map<String, Value>>,
    /// Queries that run at once.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 20, default = 5)]
    concurrency: Option<i64>,
    #[serde(default)]
    return_presigned_urls: Option<bool>,
    #[serde(default)]
    return_vectors: Option<bool>,
    /// Not available for batches, and refused.
    #[serde(default)]
    stream: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ExecuteBatchResponse {
    retriever_id: String,
    /// One for each query, in their order.
    results: Vec<BatchResult>,
    total: i64,
    succeeded: i64,
    failed: i64,
    total_time_ms: f64,
}

/// What one query of a batch gave: an answer like that of a single execution, or why there is none.
#[derive(Debug, Serialize, ToSchema)]
struct BatchResult {
    /// Place of the query, from 0.
    index: i64,
    /// Why the query failed; null where it did not.
    error: Option<String>,
    #[serde(flatten)]
    answer: ExecuteRetrieverResponse,
}

/// Execute a retriever for several queries
///
/// Runs up to 16 queries. One that fails is answered with its `error` and `status` `failed`; the others go on.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/execute/batch", tag = "Retrievers",
    params(("retriever_id" = String, Path), BatchQuery), responses((status = 200, body = ExecuteBatchResponse)))]
async fn execute_batch_retrievers(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Query(query): Query<BatchQuery>,
    Json(body): Json<ExecuteBatchRequest>,
) -> Result<Json<ExecuteBatchResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let started = Instant::now();
    let (page, concurrency) = checked(&body)?;
    let prepared = app.prepare_retriever(&tenant.scope, &identifier).await?;
    let show = Style::showing(
        either(body.return_presigned_urls, query.return_presigned_urls),
        either(body.return_vectors, query.return_vectors),
    );
    let mut runs = Vec::with_capacity(body.queries.len());
    for (index, item) in body.queries.into_iter().enumerate() {
        let execute = Execute {
            execution_id: app.new_execution_id(),
            inputs: item.inputs,
            filters: item.filters,
            page: page.clone(),
            skip_cache: false,
            sees_all_writes: false,
        };
        runs.push(one(app.clone(), tenant.scope.clone(), prepared.clone(), index, execute, show.clone()));
    }
    let results: Vec<BatchResult> = stream::iter(runs).buffered(concurrency).collect().await;
    let failed = results.iter().filter(|result| result.error.is_some()).count();
    Ok(Json(ExecuteBatchResponse {
        retriever_id: prepared.retriever.map(|retriever| retriever.id).unwrap_or_default(),
        total: results.len() as i64,
        succeeded: (results.len() - failed) as i64,
        failed: failed as i64,
        results,
        total_time_ms: (started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
    }))
}

/// The page of every query, and how many run at once.
fn checked(body: &ExecuteBatchRequest) -> Result<(PageRequest, usize), Error> {
    if !(1..=MAX_QUERIES).contains(&body.queries.len()) {
        return Err(Error::invalid(
            "queries",
            format!("must hold 1 to {MAX_QUERIES} queries, not {}", body.queries.len()),
        ));
    }
    if body.stream == Some(true) {
        return Err(Error::invalid("stream", "is not available for batches; execute one query with `stream` instead"));
    }
    let concurrency = body.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
    if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
        return Err(Error::invalid("concurrency", format!("must be from 1 to {MAX_CONCURRENCY}, not {concurrency}")));
    }
    let page = match &body.settings {
        Some(settings) => PageRequest::parse(settings)?.0,
        None => PageRequest::default(),
    };
    Ok((page, concurrency as usize))
}

async fn one(app: App, scope: Scope, prepared: Prepared, index: usize, execute: Execute, show: Show) -> BatchResult {
    let execution_id = execute.execution_id.clone();
    let style = Style { show, results: true, ..Style::default() };
    let outcome = match app.execute(&scope, &prepared, execute).await {
        Ok(executed) => response(&app, &scope, &prepared.plan, executed, style).await,
        Err(error) => Err(ApiError(error)),
    };
    let index = index as i64;
    match outcome {
        Ok(answer) => BatchResult { index, error: None, answer },
        Err(ApiError(error)) => {
            let answer = ExecuteRetrieverResponse {
                retriever_id: prepared.retriever.map(|retriever| retriever.id).unwrap_or_default(),
                execution_id,
                status: Outcome::Failed.as_str().into(),
                ..ExecuteRetrieverResponse::default()
            };
            BatchResult { index, error: Some(told(&error, &request_id::current())), answer }
        }
    }
}
