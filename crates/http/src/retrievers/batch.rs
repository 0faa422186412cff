//! Several queries to one retriever at once, answered together or as Server-Sent Events.

use super::{
    execute::{ExecuteRetrieverResponse, Style, either, response},
    stream::{Streamed, StreamedEvent, events_of, told},
};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    middleware::{TIME_LIMIT, request_id, took_too_long},
    openapi::{any_object, maybe_object},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, pin::pin, time::Instant};
use strata_engine::{
    retrieval::{PageRequest, unknown_keys},
    retrievers::{Execute, Outcome, Prepared},
};
use strata_model::{Error, Permission, Scope};
use tokio::time::{Instant as Deadline, timeout_at};
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
    /// `limit` or `pagination` of every query, and `skip_cache`.
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
    /// Answers Server-Sent Events: those of each query as they happen, with its `index`, then `batch_complete` with the
    /// counts, then `[DONE]`. A query that has no answer 60 seconds after the request gets `execution_error`.
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
/// Runs up to 16 queries, `concurrency` of them at once. One that fails is answered with its `error` and `status`
/// `failed`; the others go on. With `stream` the answer is Server-Sent Events.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/execute/batch", tag = "Retrievers",
    params(("retriever_id" = String, Path), BatchQuery),
    responses((status = 200, content((ExecuteBatchResponse = "application/json"), (StreamedEvent = "text/event-stream")))))]
async fn execute_batch_retrievers(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Query(query): Query<BatchQuery>,
    Json(body): Json<ExecuteBatchRequest>,
) -> Result<Response, ApiError> {
    tenant.may(Permission::Read)?;
    let started = Instant::now();
    let Checked { page, skip_cache, warnings, concurrency } = checked(&body)?;
    let prepared = app.prepare_retriever(&tenant.scope, &identifier).await?;
    let show = Style::showing(
        either(body.return_presigned_urls, query.return_presigned_urls),
        either(body.return_vectors, query.return_vectors),
    );
    let execute = |item: BatchQueryItem| Execute {
        execution_id: app.new_execution_id(),
        inputs: item.inputs,
        filters: item.filters,
        page: page.clone(),
        skip_cache,
        sees_all_writes: false,
    };
    let executes = body.queries.into_iter().map(execute).collect();
    let style = Style { show, results: true, warnings, ..Style::default() };
    let batch = Batch { app, scope: tenant.scope, prepared, executes, style, concurrency, started };
    Ok(match body.stream {
        Some(true) => batch.events(),
        Some(false) | None => Json(batch.answer().await).into_response(),
    })
}

/// The queries of a request, ready to be executed.
struct Batch {
    app: App,
    scope: Scope,
    prepared: Prepared,
    /// One for each query, in their order.
    executes: Vec<Execute>,
    style: Style,
    /// Queries that run at once.
    concurrency: usize,
    started: Instant,
}

impl Batch {
    async fn answer(self) -> ExecuteBatchResponse {
        let mut runs = Vec::with_capacity(self.executes.len());
        for (index, execute) in self.executes.into_iter().enumerate() {
            let (app, scope, prepared) = (self.app.clone(), self.scope.clone(), self.prepared.clone());
            runs.push(one(app, scope, prepared, index, execute, self.style.clone()));
        }
        let results: Vec<BatchResult> = stream::iter(runs).buffered(self.concurrency).collect().await;
        let failed = results.iter().filter(|result| result.error.is_some()).count();
        ExecuteBatchResponse {
            retriever_id: self.prepared.retriever.map(|retriever| retriever.id).unwrap_or_default(),
            total: results.len() as i64,
            succeeded: (results.len() - failed) as i64,
            failed: failed as i64,
            results,
            total_time_ms: millis(self.started),
        }
    }

    /// The events of all queries as they happen, then `batch_complete`. The queries may take together what a batch that
    /// is not streamed may: those that are not answered then are told to have failed.
    fn events(self) -> Response {
        // The request is answered, and has no id any more, when the queries run.
        let request_id = request_id::current();
        events_of(move |events| async move {
            let ids: Vec<String> = self.executes.iter().map(|execute| execute.execution_id.clone()).collect();
            let (total, stages) = (ids.len(), self.prepared.plan.stages.len());
            let mut runs = Vec::with_capacity(total);
            for (index, execute) in self.executes.into_iter().enumerate() {
                let streamed = Streamed {
                    app: self.app.clone(),
                    scope: self.scope.clone(),
                    prepared: self.prepared.clone(),
                    execute,
                    style: self.style.clone(),
                    index: Some(index),
                    request_id: request_id.clone(),
                };
                runs.push(streamed.run(events.clone()));
            }
            let ended = answered_by(Deadline::from_std(self.started) + TIME_LIMIT, runs, self.concurrency).await;
            let succeeded = ended.succeeded;
            if !ended.open.is_empty() {
                tracing::warn!(%request_id, open = ended.open.len(), "{}", took_too_long());
            }
            // As in a run: where nobody reads any more, this is not reached.
            for index in ended.open {
                drop(events.unbounded_send(json!({
                    "event_type": "execution_error",
                    "execution_id": ids[index],
                    "index": index,
                    "total_stages": stages,
                    "error": took_too_long(),
                })));
            }
            drop(events.unbounded_send(json!({
                "event_type": "batch_complete",
                "retriever_id": self.prepared.retriever.map(|retriever| retriever.id),
                "total": total,
                "succeeded": succeeded,
                "failed": total - succeeded,
                "total_time_ms": millis(self.started),
            })));
        })
    }
}

/// What came of a batch's runs.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    /// Runs that gave an answer.
    succeeded: usize,
    /// Places of those that had not ended at the deadline.
    open: BTreeSet<usize>,
}

/// Runs all, `concurrency` of them at once, until they have ended or the deadline is there. What ends at that moment
/// counts, so none both answers and is told to have failed.
async fn answered_by<R>(deadline: Deadline, runs: Vec<R>, concurrency: usize) -> Ended
where
    R: Future<Output = bool> + Send,
{
    let mut ended = Ended { succeeded: 0, open: (0..runs.len()).collect() };
    let mut numbered = Vec::with_capacity(runs.len());
    for (index, run) in runs.into_iter().enumerate() {
        numbered.push(async move { (index, run.await) });
    }
    let mut under_way = pin!(stream::iter(numbered).buffer_unordered(concurrency));
    while let Ok(Some((index, is_answered))) = timeout_at(deadline, under_way.next()).await {
        ended.open.remove(&index);
        ended.succeeded += usize::from(is_answered);
    }
    ended
}

fn millis(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// What a request says of all its queries.
struct Checked {
    page: PageRequest,
    skip_cache: bool,
    /// Of every answer.
    warnings: Vec<String>,
    /// Queries that run at once.
    concurrency: usize,
}

/// Keys of `settings`.
const SETTINGS: [&str; 5] = ["limit", "page_size", "pagination", "cursor", "skip_cache"];

fn checked(body: &ExecuteBatchRequest) -> Result<Checked, Error> {
    if !(1..=MAX_QUERIES).contains(&body.queries.len()) {
        return Err(Error::invalid(
            "queries",
            format!("must hold 1 to {MAX_QUERIES} queries, not {}", body.queries.len()),
        ));
    }
    let concurrency = body.concurrency.unwrap_or(DEFAULT_CONCURRENCY);
    if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
        return Err(Error::invalid("concurrency", format!("must be from 1 to {MAX_CONCURRENCY}, not {concurrency}")));
    }
    let concurrency = concurrency as usize;
    let Some(settings) = &body.settings else {
        return Ok(Checked { page: PageRequest::default(), skip_cache: false, warnings: Vec::new(), concurrency });
    };
    let (page, mut warnings) = PageRequest::parse(settings)?;
    warnings.extend(unknown_keys("settings", Some(settings), &SETTINGS));
    let skip_cache = match settings.get("skip_cache") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(skip_cache)) => *skip_cache,
        Some(_) => return Err(Error::invalid("settings.skip_cache", "must be true or false")),
    };
    Ok(Checked { page, skip_cache, warnings, concurrency })
}

async fn one(app: App, scope: Scope, prepared: Prepared, index: usize, execute: Execute, style: Style) -> BatchResult {
    let execution_id = execute.execution_id.clone();
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, future};

    #[tokio::test]
    async fn what_has_not_ended_at_the_deadline_is_open_and_all_else_counts() {
        let runs = || vec![future::ready(true).boxed(), future::pending().boxed(), future::ready(false).boxed()];
        let now = Deadline::now();
        let all = answered_by(now, runs(), 3).await;
        assert_eq!(all, Ended { succeeded: 1, open: BTreeSet::from([1]) });
        let beside = answered_by(now, runs(), 1).await;
        assert_eq!(beside, Ended { succeeded: 1, open: BTreeSet::from([1, 2]) }, "the third waits for the second");
        let none = answered_by(now + TIME_LIMIT, vec![future::ready(true).boxed()], 5).await;
        assert_eq!(none, Ended { succeeded: 1, open: BTreeSet::new() });
    }
}
