//! Evaluations of retrievers, and the data sets they run on.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{any_object, maybe_object, maybe_time, time},
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use strata_engine::experiments::{
    self, Dataset, Experiment, GenerateDataset, GroundTruth, NewDataset, NewEvaluation, Selection,
};
use strata_model::{Error, Fields, Permission, Result, limits};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const DEFAULT_PAGE: i64 = 20;
const DEFAULT_MIN_INTERACTIONS: i64 = 5;
const DEFAULT_LOOKBACK_DAYS: i64 = 30;
const MAX_LOOKBACK_DAYS: i64 = 365;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_datasets, create_dataset))
        .routes(routes!(get_dataset))
        .routes(routes!(list_evaluations, start_evaluation))
        .routes(routes!(generate_dataset_from_interactions))
        .routes(routes!(get_evaluation))
}

/// A page by its number.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// From 1.
    #[param(minimum = 1)]
    pub page: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    pub page_size: Option<i64>,
}

/// A page, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberedPage {
    pub number: i64,
    pub size: i64,
}

impl PageQuery {
    pub fn read(self) -> Result<NumberedPage> {
        let (number, size) = (self.page.unwrap_or(1), self.page_size.unwrap_or(DEFAULT_PAGE));
        if !(1..=limits::MAX_PAGE as i64).contains(&size) {
            return Err(Error::invalid("page_size", format!("must be from 1 to {}, not {size}", limits::MAX_PAGE)));
        }
        if number < 1 {
            return Err(Error::invalid("page", format!("must be 1 or more, not {number}")));
        }
        Ok(NumberedPage { number, size })
    }
}

impl NumberedPage {
    /// Rows of the page, and rows before it.
    pub fn part(self) -> (usize, usize) {
        let offset = (self.number - 1).saturating_mul(self.size);
        (usize::try_from(self.size).unwrap_or(1), usize::try_from(offset).unwrap_or(usize::MAX))
    }
}

/// A query with what is relevant to it.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
struct GroundTruthQuery {
    /// Unlike that of every other query of the data set.
    query_id: String,
    /// The inputs of an execution.
    #[schema(schema_with = any_object)]
    query_input: Map<String, Value>,
    /// Ids of documents.
    relevant_documents: Vec<String>,
    /// Grades of documents, 0 for one that is not relevant; a relevant one without a grade has 1.
    #[serde(default)]
    relevance_scores: Option<BTreeMap<String, i64>>,
}

impl From<GroundTruthQuery> for GroundTruth {
    fn from(query: GroundTruthQuery) -> Self {
        let GroundTruthQuery { query_id, query_input, relevant_documents, relevance_scores } = query;
        Self { query_id, query_input, relevant_documents, relevance_scores }
    }
}

impl From<GroundTruth> for GroundTruthQuery {
    fn from(query: GroundTruth) -> Self {
        let GroundTruth { query_id, query_input, relevant_documents, relevance_scores } = query;
        Self { query_id, query_input, relevant_documents, relevance_scores }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
struct CreateDatasetRequest {
    #[schema(min_length = 1, max_length = 200)]
    dataset_name: String,
    #[serde(default)]
    description: Option<String>,
    /// 1 to 10,000 of them.
    queries: Vec<GroundTruthQuery>,
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct EvaluationDataset {
    dataset_id: String,
    dataset_name: String,
    description: Option<String>,
    queries: Vec<GroundTruthQuery>,
    query_count: i64,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    namespace_id: String,
    /// The organization's id.
    internal_id: String,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    updated_at: String,
}

impl EvaluationDataset {
    fn new(tenant: &Tenant, dataset: Dataset) -> Self {
        Self {
            dataset_id: dataset.dataset_id,
            dataset_name: dataset.name,
            description: dataset.description,
            query_count: dataset.queries.len() as i64,
            queries: dataset.queries.into_iter().map(GroundTruthQuery::from).collect(),
            metadata: dataset.metadata,
            namespace_id: dataset.namespace_id,
            internal_id: tenant.scope.organization_id.clone(),
            created_at: dataset.created_at,
            updated_at: dataset.updated_at,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct DatasetListResponse {
    /// Newest first.
    datasets: Vec<EvaluationDataset>,
    total: i64,
    page: i64,
    page_size: i64,
}

/// What to make a data set from.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct GenerateFromInteractionsRequest {
    /// `auto_`, the retriever's id and the time where it is left out.
    dataset_name: Option<String>,
    /// Positive interactions that a query needs to be in the data set.
    #[schema(minimum = 1, default = 5)]
    min_interactions: Option<i64>,
    #[schema(minimum = 1, maximum = 365, default = 30)]
    lookback_days: Option<i64>,
    /// Types that say a document is relevant; click, purchase, positive feedback, bookmark and share where it is left out.
    positive_interaction_types: Option<Vec<String>>,
}

/// What is measured.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct EvaluationConfig {
    /// Cuts at which rankings are measured, each from 1 to 1,000; 1, 5, 10 and 20 where it is left out.
    k_values: Option<Vec<i64>>,
    /// Of `precision`, `recall`, `f1`, `f2`, `map`, `ndcg`, `mrr` and `hit_rate`; all but `f2` and `hit_rate` where it is
    /// left out.
    metrics: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
struct StartEvaluationRequest {
    /// Name or id of a data set.
    #[schema(min_length = 1)]
    dataset_name: String,
    #[serde(default)]
    evaluation_config: Option<EvaluationConfig>,
    /// A completed evaluation on the same data set; the `verdict` tells whether this one is better.
    #[serde(default)]
    baseline_evaluation_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct StartEvaluationResponse {
    /// `GET /v1/tasks/{task_id}` tells when it is over.
    task_id: String,
    evaluation_id: String,
    task_type: String,
    status: String,
    #[schema(schema_with = time)]
    created_at: String,
}

/// How far an evaluation is.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum EvaluationStatus {
    Pending,
    InProgress,
    Completed,
    Failed,
}

impl EvaluationStatus {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ListEvaluationsQuery {
    #[param(inline)]
    status: Option<EvaluationStatus>,
    /// Name or id of a data set.
    dataset_name: Option<String>,
    /// From 1.
    #[param(minimum = 1)]
    page: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
}

/// An evaluation, and once it is over what came of it.
#[derive(Debug, Serialize, ToSchema)]
struct EvaluationRecord {
    evaluation_id: String,
    retriever_id: String,
    dataset_id: String,
    dataset_name: String,
    #[schema(value_type = EvaluationConfig)]
    config: Value,
    /// `pending`, `in_progress`, `completed` or `failed`.
    status: String,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    updated_at: String,
    #[schema(schema_with = maybe_time)]
    completed_at: Option<String>,
    namespace_id: String,
    /// The organization's id.
    internal_id: String,
    query_count: i64,
    /// Each metric at the largest k, its mean over the evaluated queries.
    #[schema(schema_with = maybe_object)]
    overall_metrics: Option<Value>,
    /// The same by k.
    #[schema(schema_with = maybe_object)]
    metrics_by_k: Option<Value>,
    /// Evaluated and skipped ones together.
    #[serde(skip_serializing_if = "Option::is_none")]
    total_queries: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluated_queries: Option<i64>,
    /// Queries without inputs or relevant documents, and those whose execution failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped_queries: Option<i64>,
    error_message: Option<String>,
    /// What came of each query: `query_id`, `status` `evaluated` or `skipped`, `error`, `retrieved_count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    query_results: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline_evaluation_id: Option<String>,
    /// Whether it is better than the baseline: `passed`, `reason`, and each metric beside the baseline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = maybe_object)]
    verdict: Option<Value>,
}

impl From<Experiment> for EvaluationRecord {
    fn from(experiment: Experiment) -> Self {
        let mut body: Fields = experiment.body;
        let mut take = |key: &str| body.remove(key).filter(|value| !value.is_null());
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let number = |value: Option<Value>| value.and_then(|value| value.as_i64());
        Self {
            dataset_id: text(take("dataset_id")).unwrap_or_default(),
            dataset_name: text(take("dataset_name")).unwrap_or_default(),
            config: take("config").unwrap_or_default(),
            completed_at: text(take("completed_at")),
            query_count: number(take("query_count")).unwrap_or_default(),
            overall_metrics: take("overall_metrics"),
            metrics_by_k: take("metrics_by_k"),
            total_queries: number(take("total_queries")),
            evaluated_queries: number(take("evaluated_queries")),
            skipped_queries: number(take("skipped_queries")),
            error_message: text(take("error_message")),
            query_results: take("query_results"),
            baseline_evaluation_id: text(take("baseline_evaluation_id")),
            verdict: take("verdict"),
            evaluation_id: experiment.experiment_id,
            retriever_id: experiment.retriever_id,
            status: experiment.status,
            created_at: experiment.created_at,
            updated_at: experiment.updated_at,
            namespace_id: experiment.namespace_id,
            internal_id: experiment.organization_id,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct EvaluationListResponse {
    /// Newest first.
    evaluations: Vec<EvaluationRecord>,
    total: i64,
    page: i64,
    page_size: i64,
}

/// Create a data set
///
/// Queries with the documents that are relevant to them, to evaluate retrievers on.
#[utoipa::path(post, path = "/v1/retrievers/evaluations/datasets", tag = "RetrieverEvaluations",
    responses((status = 200, body = EvaluationDataset)))]
async fn create_dataset(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<CreateDatasetRequest>,
) -> Result<Json<EvaluationDataset>, ApiError> {
    tenant.may(Permission::Write)?;
    let new = NewDataset {
        name: body.dataset_name,
        description: body.description,
        queries: body.queries.into_iter().map(GroundTruth::from).collect(),
        metadata: body.metadata,
    };
    let made = app.create_dataset(&tenant.scope, new).await?;
    Ok(Json(EvaluationDataset::new(&tenant, made)))
}

/// List data sets
#[utoipa::path(get, path = "/v1/retrievers/evaluations/datasets", tag = "RetrieverEvaluations", params(PageQuery),
    responses((status = 200, body = DatasetListResponse)))]
async fn list_datasets(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PageQuery>,
) -> Result<Json<DatasetListResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let page = query.read()?;
    let (found, total) = app.datasets(&tenant.scope, page.part()).await?;
    let datasets = found.into_iter().map(|dataset| EvaluationDataset::new(&tenant, dataset)).collect();
    Ok(Json(DatasetListResponse { datasets, total: total as i64, page: page.number, page_size: page.size }))
}

/// Get a data set
///
/// By id or name.
#[utoipa::path(get, path = "/v1/retrievers/evaluations/datasets/{dataset_identifier}", tag = "RetrieverEvaluations",
    params(("dataset_identifier" = String, Path)), responses((status = 200, body = EvaluationDataset)))]
async fn get_dataset(
    State(app): State<App>,
    tenant: Tenant,
    Path(dataset): Path<String>,
) -> Result<Json<EvaluationDataset>, ApiError> {
    tenant.may(Permission::Read)?;
    let found = app.dataset(&tenant.scope, &dataset).await?;
    Ok(Json(EvaluationDataset::new(&tenant, found)))
}

/// Make a data set of interactions
///
/// Of each query of the retriever that has enough positive interactions, the documents that these were about.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/evaluations/generate-from-interactions",
    tag = "RetrieverEvaluations", params(("retriever_id" = String, Path)),
    responses((status = 200, body = EvaluationDataset)))]
async fn generate_dataset_from_interactions(
    State(app): State<App>,
    tenant: Tenant,
    Path(retriever): Path<String>,
    Json(body): Json<GenerateFromInteractionsRequest>,
) -> Result<Json<EvaluationDataset>, ApiError> {
    tenant.may(Permission::Write)?;
    let min_interactions = body.min_interactions.unwrap_or(DEFAULT_MIN_INTERACTIONS);
    let lookback_days = body.lookback_days.unwrap_or(DEFAULT_LOOKBACK_DAYS);
    let Some(min_interactions) = usize::try_from(min_interactions).ok().filter(|least| *least >= 1) else {
        return Err(Error::invalid("min_interactions", format!("must be 1 or more, not {min_interactions}")).into());
    };
    if !(1..=MAX_LOOKBACK_DAYS).contains(&lookback_days) {
        let message = format!("must be from 1 to {MAX_LOOKBACK_DAYS}, not {lookback_days}");
        return Err(Error::invalid("lookback_days", message).into());
    }
    let asked = GenerateDataset {
        name: body.dataset_name,
        min_interactions,
        lookback_days,
        positive: body.positive_interaction_types,
    };
    let made = app.generate_dataset(&tenant.scope, &retriever, asked).await?;
    Ok(Json(EvaluationDataset::new(&tenant, made)))
}

/// Evaluate a retriever
///
/// Queues an evaluation and answers at once. It executes the retriever for each query of the data set and measures the
/// rankings; nDCG takes grades as gains.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/evaluations", tag = "RetrieverEvaluations",
    params(("retriever_id" = String, Path)), responses((status = 202, body = StartEvaluationResponse)))]
async fn start_evaluation(
    State(app): State<App>,
    tenant: Tenant,
    Path(retriever): Path<String>,
    Json(body): Json<StartEvaluationRequest>,
) -> Result<Response, ApiError> {
    tenant.may(Permission::Write)?;
    let config = body.evaluation_config.unwrap_or_default();
    let new = NewEvaluation {
        dataset: body.dataset_name,
        config: experiments::EvaluationConfig::new(config.k_values, config.metrics)?,
        baseline_evaluation_id: body.baseline_evaluation_id,
    };
    let started = app.start_evaluation(&tenant.scope, &retriever, new).await?;
    let answer = StartEvaluationResponse {
        task_id: started.task_id.unwrap_or_default(),
        evaluation_id: started.experiment_id,
        task_type: "retriever.evaluation".into(),
        status: started.status,
        created_at: started.created_at,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

/// List evaluations of a retriever
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/evaluations", tag = "RetrieverEvaluations",
    params(("retriever_id" = String, Path), ListEvaluationsQuery), responses((status = 200, body = EvaluationListResponse)))]
async fn list_evaluations(
    State(app): State<App>,
    tenant: Tenant,
    Path(retriever): Path<String>,
    Query(query): Query<ListEvaluationsQuery>,
) -> Result<Json<EvaluationListResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let page = PageQuery { page: query.page, page_size: query.page_size }.read()?;
    let selection = Selection {
        status: query.status.map(|status| status.as_str().to_owned()),
        dataset: query.dataset_name,
        ..Selection::default()
    };
    let (found, total) = app.evaluations(&tenant.scope, &retriever, selection, page.part()).await?;
    let evaluations = found.into_iter().map(EvaluationRecord::from).collect();
    Ok(Json(EvaluationListResponse { evaluations, total, page: page.number, page_size: page.size }))
}

/// Get an evaluation
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/evaluations/{evaluation_id}", tag = "RetrieverEvaluations",
    params(("retriever_id" = String, Path), ("evaluation_id" = String, Path)),
    responses((status = 200, body = EvaluationRecord)))]
async fn get_evaluation(
    State(app): State<App>,
    tenant: Tenant,
    Path((retriever, evaluation)): Path<(String, String)>,
) -> Result<Json<EvaluationRecord>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.evaluation(&tenant.scope, &retriever, &evaluation).await?.into()))
}
