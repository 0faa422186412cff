//! What was executed lately. The server remembers the last thousand executions of a namespace until it stops.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{any_object, maybe_object, maybe_time, time},
    paging::{ListBody, Paging, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strata_engine::{
    retrieval::{Degraded, LimitEntry, StageReport},
    retrievers::Record,
};
use strata_model::{Error, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_adhoc_executions))
        .routes(routes!(get_adhoc_execution))
        .routes(routes!(list_executions))
        .routes(routes!(list_executions_get))
        .routes(routes!(get_execution))
        .routes(routes!(get_execution_profile))
        .routes(routes!(get_execution_status))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct ListExecutionsRequest {
    /// `{"AND": [{"field": …, "operator": …, "value": …}]}` or `{field: value}`.
    filters: Option<Value>,
    /// `{"field": …, "direction": "asc" | "desc"}`, the most important first.
    sorts: Option<Value>,
    /// `completed`, `degraded` or `failed`.
    status: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct ListAdhocExecutionsRequest {
    /// `completed`, `degraded` or `failed`.
    status: Option<String>,
    /// Only executions from this time on: RFC 3339.
    #[schema(schema_with = maybe_time)]
    start_time: Option<String>,
    /// Only executions up to this time: RFC 3339.
    #[schema(schema_with = maybe_time)]
    end_time: Option<String>,
    /// Answers `total` and no rows.
    count_only: Option<bool>,
}

/// Where a page stands.
#[derive(Debug, Serialize, ToSchema)]
struct PaginationMetadata {
    total: i64,
    limit: i64,
    offset: i64,
    has_next: bool,
}

impl PaginationMetadata {
    fn new(paging: &Paging, returned: usize, total: usize) -> Self {
        Self {
            total: total as i64,
            limit: paging.limit as i64,
            offset: paging.offset as i64,
            has_next: paging.offset + returned < total,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct ListExecutionsResponse {
    results: Vec<ExecutionSummary>,
    pagination: PaginationMetadata,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListAdhocExecutionsResponse {
    results: Vec<AdhocExecution>,
    total: i64,
    pagination: PaginationMetadata,
}

/// An execution of a stored retriever in a list.
#[derive(Debug, Serialize, ToSchema)]
struct ExecutionSummary {
    execution_id: String,
    status: String,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    completed_at: String,
    duration_ms: f64,
    credits_used: f64,
    /// Documents in the largest working set.
    total_processed: i64,
    /// Hits of the page.
    total_returned: i64,
    /// The share of the stages whose results were kept from an earlier execution; null where no stage came to its end.
    cache_hit_rate: Option<f64>,
    /// The same for the same inputs.
    inputs_hash: String,
    /// The beginning of the input that looks like a query.
    query_summary: Option<String>,
}

impl From<Record> for ExecutionSummary {
    fn from(record: Record) -> Self {
        Self {
            cache_hit_rate: record.cache_hit_rate(),
            execution_id: record.execution_id,
            status: record.outcome.as_str().to_owned(),
            created_at: record.created_at,
            completed_at: record.completed_at,
            duration_ms: record.duration_ms,
            credits_used: 0.0,
            total_processed: record.processed as i64,
            total_returned: record.returned as i64,
            inputs_hash: record.inputs_hash,
            query_summary: record.query_summary,
        }
    }
}

/// An execution of a retriever that was sent along.
#[derive(Debug, Serialize, ToSchema)]
struct AdhocExecution {
    execution_id: String,
    /// Always `adhoc`.
    execution_mode: String,
    status: String,
    #[schema(schema_with = time)]
    timestamp: String,
    duration_ms: f64,
    credits_used: f64,
    /// Documents in the largest working set.
    total_processed: i64,
    /// Hits of the page.
    total_returned: i64,
    /// The share of the stages whose results were kept from an earlier execution; null where no stage came to its end.
    cache_hit_rate: Option<f64>,
    /// The beginning of the input that looks like a query.
    query_summary: Option<String>,
    stages_completed: i64,
    total_stages: i64,
    /// Collections as the request named them; empty means every one of the namespace.
    collection_ids: Vec<String>,
    /// The same for the same inputs.
    inputs_hash: String,
    /// Why it failed.
    error: Option<String>,
}

impl From<Record> for AdhocExecution {
    fn from(record: Record) -> Self {
        Self {
            cache_hit_rate: record.cache_hit_rate(),
            execution_mode: "adhoc".into(),
            status: record.outcome.as_str().to_owned(),
            timestamp: record.created_at,
            duration_ms: record.duration_ms,
            credits_used: 0.0,
            total_processed: record.processed as i64,
            total_returned: record.returned as i64,
            query_summary: record.query_summary,
            stages_completed: record.stages.len() as i64,
            total_stages: record.total_stages as i64,
            collection_ids: record.collections,
            inputs_hash: record.inputs_hash,
            error: record.error,
            execution_id: record.execution_id,
        }
    }
}

/// An execution of a stored retriever, without its hits.
#[derive(Debug, Serialize, ToSchema)]
struct ExecutionDetail {
    retriever_id: String,
    execution_id: String,
    status: String,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    completed_at: String,
    /// Why it failed.
    error: Option<String>,
    /// The stage it failed in.
    current_stage: Option<String>,
    stages_completed: i64,
    total_stages: i64,
    /// What each stage did, by its name.
    #[schema(schema_with = any_object)]
    stage_statistics: Value,
    #[schema(schema_with = any_object)]
    budget: Value,
    /// Always empty: hits are not kept.
    #[schema(value_type = Vec<Object>)]
    documents: Vec<Value>,
    /// Always false.
    documents_retained: bool,
    /// `total` hits, of which the page had `returned`.
    #[schema(schema_with = any_object)]
    pagination: Value,
    total_returned: i64,
    warnings: Vec<String>,
    #[schema(value_type = Vec<Object>)]
    degraded: Vec<Degraded>,
    #[schema(value_type = Vec<Object>)]
    limits: Vec<LimitEntry>,
    optimization_applied: bool,
    /// Where a stage has learned fusion: as the execution answered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = maybe_object)]
    learned_fusion_context: Option<Value>,
}

impl From<Record> for ExecutionDetail {
    fn from(record: Record) -> Self {
        Self {
            status: record.outcome.as_str().to_owned(),
            current_stage: None,
            stages_completed: record.stages.len() as i64,
            total_stages: record.total_stages as i64,
            stage_statistics: json!({
                "stages": by_name(&record.stages),
                "total_time_ms": record.duration_ms,
                "credits_used": 0.0,
            }),
            budget: json!({ "credits_used": 0.0, "time_elapsed_ms": record.duration_ms }),
            documents: Vec::new(),
            documents_retained: false,
            pagination: json!({ "total": record.found, "returned": record.returned }),
            total_returned: record.returned as i64,
            optimization_applied: false,
            learned_fusion_context: record.learned_fusion,
            retriever_id: record.retriever_id.unwrap_or_default(),
            execution_id: record.execution_id,
            created_at: record.created_at,
            completed_at: record.completed_at,
            error: record.error,
            warnings: record.warnings,
            degraded: record.degraded,
            limits: record.limits,
        }
    }
}

fn by_name(stages: &[StageReport]) -> Map<String, Value> {
    stages.iter().map(|stage| (stage.name.clone(), json!(stage))).collect()
}

/// Where the time of an execution went.
#[derive(Debug, Serialize, ToSchema)]
struct ExecutionProfile {
    execution_id: String,
    retriever_id: String,
    status: String,
    total_time_ms: f64,
    /// In their order: `stage_name`, `stage_id`, counts, `duration_ms`, `share` of the whole, and what the stage notes.
    #[schema(value_type = Vec<Object>)]
    stages: Vec<Value>,
    /// The stage that took longest.
    bottleneck: Option<String>,
}

impl From<Record> for ExecutionProfile {
    fn from(record: Record) -> Self {
        let total = record.duration_ms;
        let slowest = record.stages.iter().max_by(|a, b| a.duration_ms.total_cmp(&b.duration_ms));
        let stage = |report: &StageReport| {
            let mut json = json!(report);
            json["stage_name"] = report.name.clone().into();
            json["stage_id"] = report.stage_id.into();
            json["share"] = share(report.duration_ms, total).into();
            json
        };
        Self {
            status: record.outcome.as_str().to_owned(),
            total_time_ms: total,
            stages: record.stages.iter().map(stage).collect(),
            bottleneck: slowest.map(|report| report.name.clone()),
            execution_id: record.execution_id,
            retriever_id: record.retriever_id.unwrap_or_default(),
        }
    }
}

/// The part of `total` that `part` is.
fn share(part: f64, total: f64) -> f64 {
    if total > 0.0 { (part / total).min(1.0) } else { 0.0 }
}

/// How an execution ended.
#[derive(Debug, Serialize, ToSchema)]
struct ExecutionStatus {
    execution_id: String,
    retriever_id: String,
    status: String,
    stages_completed: i64,
    total_stages: i64,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    completed_at: String,
    /// Why it failed.
    error: Option<String>,
}

impl From<Record> for ExecutionStatus {
    fn from(record: Record) -> Self {
        Self {
            status: record.outcome.as_str().to_owned(),
            stages_completed: record.stages.len() as i64,
            total_stages: record.total_stages as i64,
            execution_id: record.execution_id,
            retriever_id: record.retriever_id.unwrap_or_default(),
            created_at: record.created_at,
            completed_at: record.completed_at,
            error: record.error,
        }
    }
}

/// States of an execution; those that are remembered have ended.
const STATES: [&str; 5] = ["completed", "degraded", "failed", "processing", "pending"];

/// The state that a list is narrowed to.
fn state(asked: Option<&str>) -> Result<Option<&'static str>, Error> {
    let Some(asked) = asked else { return Ok(None) };
    let known = STATES.into_iter().find(|state| state.eq_ignore_ascii_case(asked));
    known.map(Some).ok_or_else(|| Error::invalid("status", format!("must be one of {}", STATES.join(", "))))
}

fn has_status(record: &Record, status: Option<&str>) -> bool {
    status.is_none_or(|status| status == record.outcome.as_str())
}

/// List executions of a retriever
///
/// The executions that the server remembers, the newest first.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/executions/list", tag = "Retrievers",
    params(("retriever_id" = String, Path), PagingFields), responses((status = 200, body = ListExecutionsResponse)))]
async fn list_executions(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListExecutionsRequest>,
) -> Result<Json<ListExecutionsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let list = ListBody { filters: body.filters, sorts: body.sorts, ..ListBody::default() };
    let (paging, request) = list.resolve(&query)?;
    let status = state(body.status.as_deref())?;
    let keep = |record: &Record| has_status(record, status);
    let page = app.executions(&tenant.scope, &identifier, &request, keep).await?;
    let pagination = PaginationMetadata::new(&paging, page.items.len(), page.total);
    Ok(Json(ListExecutionsResponse {
        results: page.items.into_iter().map(ExecutionSummary::from).collect(),
        pagination,
    }))
}

/// List executions of a retriever, without a filter
///
/// The executions that the server remembers, the newest first.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/executions", tag = "Retrievers",
    params(("retriever_id" = String, Path), PagingFields), responses((status = 200, body = ListExecutionsResponse)))]
async fn list_executions_get(
    state: State<App>,
    tenant: Tenant,
    path: Path<String>,
    query: Query<PagingFields>,
) -> Result<Json<ListExecutionsResponse>, ApiError> {
    list_executions(state, tenant, path, query, Json(ListExecutionsRequest::default())).await
}

/// Get an execution
///
/// What an execution did. Its hits are not kept.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/executions/{execution_id}", tag = "Retrievers",
    params(("retriever_id" = String, Path), ("execution_id" = String, Path)), responses((status = 200, body = ExecutionDetail)))]
async fn get_execution(
    State(app): State<App>,
    tenant: Tenant,
    Path((identifier, execution)): Path<(String, String)>,
) -> Result<Json<ExecutionDetail>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.execution(&tenant.scope, &identifier, &execution).await?.into()))
}

/// Get an execution's profile
///
/// Where the time of an execution went, stage by stage.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/executions/{execution_id}/profile", tag = "Retrievers",
    params(("retriever_id" = String, Path), ("execution_id" = String, Path)), responses((status = 200, body = ExecutionProfile)))]
async fn get_execution_profile(
    State(app): State<App>,
    tenant: Tenant,
    Path((identifier, execution)): Path<(String, String)>,
) -> Result<Json<ExecutionProfile>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.execution(&tenant.scope, &identifier, &execution).await?.into()))
}

/// Get an execution's status
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/executions/{execution_id}/status", tag = "Retrievers",
    params(("retriever_id" = String, Path), ("execution_id" = String, Path)), responses((status = 200, body = ExecutionStatus)))]
async fn get_execution_status(
    State(app): State<App>,
    tenant: Tenant,
    Path((identifier, execution)): Path<(String, String)>,
) -> Result<Json<ExecutionStatus>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.execution(&tenant.scope, &identifier, &execution).await?.into()))
}

/// List executions of retrievers that are not stored
///
/// The executions that the server remembers, the newest first.
#[utoipa::path(post, path = "/v1/retrievers/executions/list", tag = "AdhocRetrievers", params(PagingFields),
    responses((status = 200, body = ListAdhocExecutionsResponse)))]
async fn list_adhoc_executions(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListAdhocExecutionsRequest>,
) -> Result<Json<ListAdhocExecutionsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (paging, request) = ListBody::default().resolve(&query)?;
    let (since, until) =
        (moment(body.start_time.as_deref(), "start_time")?, moment(body.end_time.as_deref(), "end_time")?);
    let status = state(body.status.as_deref())?;
    let keep = |record: &Record| {
        let at = record.created_at.parse::<jiff::Timestamp>().ok();
        let in_time = since.is_none_or(|since| at >= Some(since)) && until.is_none_or(|until| at <= Some(until));
        has_status(record, status) && in_time
    };
    let page = app.adhoc_executions(&tenant.scope, &request, keep);
    let pagination = PaginationMetadata::new(&paging, page.items.len(), page.total);
    let results = if body.count_only == Some(true) { Vec::new() } else { page.items };
    let results = results.into_iter().map(AdhocExecution::from).collect();
    Ok(Json(ListAdhocExecutionsResponse { results, total: page.total as i64, pagination }))
}

fn moment(text: Option<&str>, at: &str) -> Result<Option<jiff::Timestamp>, Error> {
    let read =
        |text: &str| text.parse().map_err(|_| Error::invalid(at, "must be a time such as `2026-01-31T12:00:00Z`"));
    text.filter(|text| !text.is_empty()).map(read).transpose()
}

/// Get an execution of a retriever that is not stored
#[utoipa::path(get, path = "/v1/retrievers/executions/{execution_id}", tag = "AdhocRetrievers",
    params(("execution_id" = String, Path)), responses((status = 200, body = AdhocExecution)))]
async fn get_adhoc_execution(
    State(app): State<App>,
    tenant: Tenant,
    Path(execution): Path<String>,
) -> Result<Json<AdhocExecution>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.adhoc_execution(&tenant.scope, &execution)?.into()))
}
