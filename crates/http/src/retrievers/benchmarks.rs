//! Benchmarks: recorded sessions replayed on several retrievers.

use super::evaluations::{NumberedPage, PageQuery};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{maybe_object, maybe_time, time},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_engine::{
    experiments::{BenchmarkFilter, Experiment, NewBenchmark, SampleStrategy, Selection},
    times,
};
use strata_model::{Error, Fields, Permission, Result};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const STATUSES: [&str; 6] =
    ["pending", "building_sessions", "replaying", "computing_metrics", "completed", "failed"];
const DEFAULT_SESSIONS: i64 = 1_000;
const MIN_SESSIONS: i64 = 10;
const MAX_SESSIONS: i64 = 10_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_benchmarks, create_benchmark))
        .routes(routes!(get_benchmark, delete_benchmark))
}

#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct TimeRange {
    #[schema(schema_with = maybe_time)]
    start: Option<String>,
    #[schema(schema_with = maybe_time)]
    end: Option<String>,
}

/// How much types of interactions say about relevance.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct InteractionWeights {
    /// By type; those that are left out keep their usual weight.
    weights: BTreeMap<String, f64>,
}

/// Which sessions are replayed.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct SessionFilter {
    /// Ids or names; the benchmark's own retrievers where it is left out.
    retriever_ids: Option<Vec<String>>,
    /// Sessions whose interactions name one of these as `taxonomy_node_id` or in `taxonomy_node_ids` of their metadata.
    taxonomy_node_ids: Option<Vec<String>>,
    time_range: Option<TimeRange>,
    /// Interactions that a session needs.
    #[schema(minimum = 1, default = 1)]
    min_interactions: Option<i64>,
    /// Sessions that have an interaction of one of these types.
    interaction_types: Option<Vec<String>>,
    /// `random`, `recent` or `stratified`, which keeps the parts of purchases, clicks and so on.
    #[schema(default = "random")]
    sample_strategy: Option<String>,
    interaction_weights: Option<InteractionWeights>,
}

impl SessionFilter {
    fn read(&self) -> Result<BenchmarkFilter> {
        let moment = |text: Option<&String>, at: &str| text.map(|text| times::spelled(text, at)).transpose();
        let range = self.time_range.clone().unwrap_or_default();
        let since = moment(range.start.as_ref(), "session_filter.time_range.start")?;
        let until = moment(range.end.as_ref(), "session_filter.time_range.end")?;
        // As `times::spelled` writes them they are in the order of time.
        if since.as_ref().zip(until.as_ref()).is_some_and(|(since, until)| since > until) {
            return Err(Error::invalid("session_filter.time_range.end", "lies before `start`"));
        }
        let least = self.min_interactions.unwrap_or(1);
        let min_interactions = usize::try_from(least).ok().filter(|least| *least >= 1);
        let min_interactions = min_interactions.ok_or_else(|| {
            Error::invalid("session_filter.min_interactions", format!("must be 1 or more, not {least}"))
        })?;
        let sample_strategy = match self.sample_strategy.as_deref() {
            None | Some("random") => SampleStrategy::Random,
            Some("recent") => SampleStrategy::Recent,
            Some("stratified") => SampleStrategy::Stratified,
            Some(other) => {
                let message = format!("`{other}` is not a strategy; one of random, recent, stratified");
                return Err(Error::invalid("session_filter.sample_strategy", message));
            }
        };
        Ok(BenchmarkFilter {
            retriever_ids: self.retriever_ids.clone().unwrap_or_default(),
            taxonomy_node_ids: self.taxonomy_node_ids.clone().unwrap_or_default(),
            since,
            until,
            min_interactions,
            interaction_types: self.interaction_types.clone().unwrap_or_default(),
            sample_strategy,
            weights: self.interaction_weights.clone().unwrap_or_default().weights,
        })
    }
}

#[derive(Debug, Deserialize, ToSchema)]
struct CreateBenchmarkRequest {
    #[schema(min_length = 1, max_length = 255)]
    benchmark_name: String,
    /// Id or name of the retriever that the others are compared with.
    baseline_retriever_id: String,
    /// Ids or names, 1 to 10 of them.
    candidate_retriever_ids: Vec<String>,
    #[serde(default)]
    session_filter: Option<SessionFilter>,
    /// Most sessions to replay.
    #[serde(default)]
    #[schema(minimum = 10, maximum = 10000, default = 1000)]
    session_count: Option<i64>,
}

/// A benchmark, and once it is over what came of it.
#[derive(Debug, Serialize, ToSchema)]
struct BenchmarkResponse {
    benchmark_id: String,
    benchmark_name: String,
    baseline_retriever_id: String,
    candidate_retriever_ids: Vec<String>,
    #[schema(value_type = Option<SessionFilter>)]
    session_filter: Option<Value>,
    /// Sessions that are replayed; how many were asked for until that is known.
    session_count: i64,
    /// `pending`, `building_sessions`, `replaying`, `computing_metrics`, `completed` or `failed`.
    status: String,
    /// For each retriever, the baseline first: `metrics`, `latency`, and `failed_sessions`.
    #[schema(value_type = Option<Vec<Object>>)]
    results: Option<Value>,
    /// Each candidate beside the baseline, the p-value of the paired t-test and the interval of the difference of nDCG at
    /// 10, and a recommendation.
    #[schema(schema_with = maybe_object)]
    comparison: Option<Value>,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = maybe_time)]
    started_at: Option<String>,
    #[schema(schema_with = maybe_time)]
    completed_at: Option<String>,
    error_message: Option<String>,
}

impl From<Experiment> for BenchmarkResponse {
    fn from(experiment: Experiment) -> Self {
        let mut body: Fields = experiment.body;
        let mut take = |key: &str| body.remove(key).filter(|value| !value.is_null());
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let candidates = take("candidate_retriever_ids").unwrap_or_default();
        Self {
            benchmark_name: text(take("benchmark_name")).unwrap_or_default(),
            candidate_retriever_ids: serde_json::from_value(candidates).unwrap_or_default(),
            session_filter: take("session_filter"),
            session_count: take("session_count").and_then(|count| count.as_i64()).unwrap_or_default(),
            results: take("results"),
            comparison: take("comparison"),
            started_at: text(take("started_at")),
            completed_at: text(take("completed_at")),
            error_message: text(take("error_message")),
            benchmark_id: experiment.experiment_id,
            baseline_retriever_id: experiment.retriever_id,
            status: experiment.status,
            created_at: experiment.created_at,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ListBenchmarksQuery {
    /// Id or name of a baseline or a candidate.
    retriever_id: Option<String>,
    /// `pending`, `building_sessions`, `replaying`, `computing_metrics`, `completed` or `failed`.
    status: Option<String>,
    /// From 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BenchmarkListResponse {
    /// Newest first.
    benchmarks: Vec<BenchmarkResponse>,
    total: i64,
    page: i64,
    page_size: i64,
}

/// Create a benchmark
///
/// Queues it and answers at once. It replays recorded sessions on the baseline and on each candidate, and compares where
/// they put the documents that users did something with.
#[utoipa::path(post, path = "/v1/retrievers/benchmarks", tag = "RetrieverBenchmarks",
    responses((status = 200, body = BenchmarkResponse)))]
async fn create_benchmark(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<CreateBenchmarkRequest>,
) -> Result<Json<BenchmarkResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let count = body.session_count.unwrap_or(DEFAULT_SESSIONS);
    if !(MIN_SESSIONS..=MAX_SESSIONS).contains(&count) {
        let message = format!("must be from {MIN_SESSIONS} to {MAX_SESSIONS}, not {count}");
        return Err(Error::invalid("session_count", message).into());
    }
    let new = NewBenchmark {
        name: body.benchmark_name,
        baseline: body.baseline_retriever_id,
        candidates: body.candidate_retriever_ids,
        filter: body.session_filter.clone().unwrap_or_default().read()?,
        shown_filter: json!(body.session_filter),
        session_count: count as usize,
    };
    Ok(Json(app.create_benchmark(&tenant.scope, new).await?.into()))
}

/// List benchmarks
#[utoipa::path(get, path = "/v1/retrievers/benchmarks", tag = "RetrieverBenchmarks", params(ListBenchmarksQuery),
    responses((status = 200, body = BenchmarkListResponse)))]
async fn list_benchmarks(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<ListBenchmarksQuery>,
) -> Result<Json<BenchmarkListResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let page: NumberedPage = PageQuery { page: query.page, page_size: query.page_size }.read()?;
    if let Some(status) = query.status.as_ref().filter(|status| !STATUSES.contains(&status.as_str())) {
        let message = format!("`{status}` is not a status; one of {}", STATUSES.join(", "));
        return Err(Error::invalid("status", message).into());
    }
    let selection = Selection { retriever_id: query.retriever_id, status: query.status, dataset: None };
    let (found, total) = app.benchmarks(&tenant.scope, selection, page.part()).await?;
    let benchmarks = found.into_iter().map(BenchmarkResponse::from).collect();
    Ok(Json(BenchmarkListResponse { benchmarks, total, page: page.number, page_size: page.size }))
}

/// Get a benchmark
#[utoipa::path(get, path = "/v1/retrievers/benchmarks/{benchmark_id}", tag = "RetrieverBenchmarks",
    params(("benchmark_id" = String, Path)), responses((status = 200, body = BenchmarkResponse)))]
async fn get_benchmark(
    State(app): State<App>,
    tenant: Tenant,
    Path(benchmark): Path<String>,
) -> Result<Json<BenchmarkResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.benchmark(&tenant.scope, &benchmark).await?.into()))
}

/// Delete a benchmark
///
/// With its results; one that is running ends.
#[utoipa::path(delete, path = "/v1/retrievers/benchmarks/{benchmark_id}", tag = "RetrieverBenchmarks",
    params(("benchmark_id" = String, Path)), responses((status = 204)))]
async fn delete_benchmark(
    State(app): State<App>,
    tenant: Tenant,
    Path(benchmark): Path<String>,
) -> Result<StatusCode, ApiError> {
    tenant.may(Permission::Delete)?;
    app.delete_benchmark(&tenant.scope, &benchmark).await?;
    Ok(StatusCode::NO_CONTENT)
}
