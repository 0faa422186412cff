//! Counts and groups over a collection's documents.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    objects::aggregate::{AggregationOperation, AggregationResult, GroupByField, HavingCondition, RangeBucket},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strata_engine::objects::Aggregation;
use strata_model::{Error, Permission, filter::Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Most values that are shown, and how many are where the caller does not say.
const MAX_VALUES: i64 = 10_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(aggregate_documents))
        .routes(routes!(count_documents))
        .routes(routes!(distinct_document_values))
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DocumentAggregationRequest {
    /// May be left out where every function is `count`.
    group_by: Option<Vec<GroupByField>>,
    #[schema(min_items = 1)]
    aggregations: Vec<AggregationOperation>,
    /// Only documents that satisfy it.
    filters: Option<Value>,
    /// Only groups whose metrics satisfy these.
    having: Option<Vec<HavingCondition>>,
    /// An array field; a document counts once for each of its elements.
    unwind: Option<String>,
    /// Groups numbers by ranges.
    range_buckets: Option<Vec<RangeBucket>>,
    /// An alias.
    sort_by: Option<String>,
    /// `desc` or `asc`.
    sort_direction: Option<String>,
    /// Most groups that are shown.
    limit: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentAggregationResponse {
    results: Vec<AggregationResult>,
    /// How many groups there are, those that `limit` cuts off included.
    total_groups: usize,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct CountParameters {
    /// A filter as JSON text; counts only what satisfies it.
    filters: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentCountResponse {
    collection_id: String,
    count: i64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DistinctValuesRequest {
    /// A dot path.
    field: String,
    /// Only documents that satisfy it.
    filters: Option<Value>,
    /// Most values that are shown, 10,000 where this is left out.
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DistinctValuesResponse {
    field: String,
    /// Most frequent first.
    values: Vec<DistinctValue>,
    /// How many values there are, those that `limit` cuts off included.
    total_distinct: i64,
}

#[derive(Debug, Serialize, ToSchema)]
struct DistinctValue {
    value: Value,
    /// How many documents have it.
    count: i64,
}

/// Aggregate documents
///
/// Groups a collection's documents by fields, times or ranges, and computes over each group.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/documents/aggregate", tag = "CollectionDocuments",
    responses((status = 200, body = DocumentAggregationResponse)))]
async fn aggregate_documents(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Json(mut request): Json<DocumentAggregationRequest>,
) -> Result<Json<DocumentAggregationResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let filter = Filter::parse(&request.filters.take().unwrap_or_default(), "filters")?;
    let aggregation = Aggregation::parse(&serde_json::to_value(request).map_err(Error::internal)?)?;
    let (groups, total_groups) = app.aggregate_documents(&tenant.scope, &collection, filter, aggregation).await?;
    let results = groups.into_iter().map(AggregationResult::from).collect();
    Ok(Json(DocumentAggregationResponse { results, total_groups }))
}

/// Count documents
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents/count", tag = "CollectionDocuments",
    params(CountParameters), responses((status = 200, body = DocumentCountResponse)))]
async fn count_documents(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(query): Query<CountParameters>,
) -> Result<Json<DocumentCountResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (collection_id, count) =
        app.count_documents(&tenant.scope, &collection, filter_of(query.filters.as_deref())?).await?;
    Ok(Json(DocumentCountResponse { collection_id, count }))
}

/// The filter that a query holds as JSON text.
fn filter_of(text: Option<&str>) -> Result<Filter, Error> {
    let Some(text) = text else { return Ok(Filter::all()) };
    let json = serde_json::from_str(text).map_err(|e| Error::invalid("filters", format!("is not JSON: {e}")))?;
    Filter::parse(&json, "filters")
}

/// Distinct values of a field
///
/// The values that a field has among a collection's documents, and how many documents have each. Documents without the
/// field do not count.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/documents/distinct", tag = "CollectionDocuments",
    responses((status = 200, body = DistinctValuesResponse)))]
async fn distinct_document_values(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Json(request): Json<DistinctValuesRequest>,
) -> Result<Json<DistinctValuesResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let DistinctValuesRequest { field, filters, limit } = request;
    if field.is_empty() {
        return Err(Error::invalid("field", "must be the name of a field").into());
    }
    let limit = limit.unwrap_or(MAX_VALUES);
    if !(1..=MAX_VALUES).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_VALUES}, not {limit}")).into());
    }
    let filter = Filter::parse(&filters.unwrap_or_default(), "filters")?;
    let (values, total_distinct) =
        app.distinct_values(&tenant.scope, &collection, field.clone(), filter, limit as usize).await?;
    let values = values.into_iter().map(|(value, count)| DistinctValue { value, count }).collect();
    Ok(Json(DistinctValuesResponse { field, values, total_distinct }))
}
