//! Retrievers: how they are made, changed and removed. Executing them is in [`execute`] and [`stream`], what was executed
//! in [`executions`], searches and suggestions without a retriever in [`suggest`].

mod batch;
mod benchmarks;
mod evaluations;
mod execute;
mod executions;
mod explain;
mod freshness;
mod interactions;
mod stream;
mod suggest;
mod wire;

pub(crate) use execute::{Asked, ExecuteQuery, ExecuteRetrieverRequest, ExecuteRetrieverResponse, answered};
pub(crate) use freshness::known;
pub(crate) use stream::StreamedEvent;

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    paging::{ListBody, PaginationResponse, PagingFields},
};
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use strata_engine::{retrieval, retrievers::Retriever};
use strata_model::{Fields, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::{RetrieverFields, RetrieverResponse, StageDefinition};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_retrievers_get, create_retriever))
        .routes(routes!(list_retrievers))
        .routes(routes!(list_stages))
        .routes(routes!(get_retriever, patch_retriever, delete_retriever))
        .routes(routes!(clone_retriever))
        .merge(execute::routes())
        .merge(batch::routes())
        .merge(explain::routes())
        .merge(executions::routes())
        .merge(interactions::routes())
        .merge(evaluations::routes())
        .merge(benchmarks::routes())
        .merge(suggest::routes())
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListRetrieversResponse {
    pub results: Vec<RetrieverResponse>,
    /// Retrievers before the page was cut.
    pub total: i64,
    pub pagination: PaginationResponse,
}

/// A retriever that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreateRetrieverResponse {
    #[serde(flatten)]
    pub made: RetrieverResponse,
    /// The same once more, where older clients look for it.
    pub retriever: RetrieverResponse,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PatchRetrieverResponse {
    #[serde(flatten)]
    pub changed: RetrieverResponse,
    /// The same once more.
    pub retriever: RetrieverResponse,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CloneRetrieverResponse {
    pub retriever: RetrieverResponse,
    pub source_retriever_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DeleteRetrieverResponse {
    pub message: String,
    pub success: bool,
    pub retriever_id: String,
}

fn shown(app: &App, retriever: &Retriever) -> RetrieverResponse {
    RetrieverResponse::new(retriever, app.retriever_plan(retriever).ok().as_deref())
}

async fn listed(
    app: &App,
    tenant: &Tenant,
    query: &PagingFields,
    body: &ListBody,
) -> Result<Json<ListRetrieversResponse>, ApiError> {
    let (paging, request) = body.resolve(query)?;
    let page = app.retrievers(&tenant.scope, request).await?;
    let pagination = PaginationResponse::of(&paging, page.items.len(), page.total);
    let results = page.items.iter().map(|retriever| shown(app, retriever)).collect();
    Ok(Json(ListRetrieversResponse { results, total: page.total as i64, pagination }))
}

/// List retrievers
///
/// The retrievers of the namespace, oldest first.
#[utoipa::path(get, path = "/v1/retrievers", tag = "Retrievers", params(PagingFields),
    responses((status = 200, body = ListRetrieversResponse)))]
async fn list_retrievers_get(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PagingFields>,
) -> Result<Json<ListRetrieversResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    listed(&app, &tenant, &query, &ListBody::default()).await
}

/// Search the list of retrievers
///
/// The retrievers of the namespace, narrowed by `search` and `filters`, ordered by `sort`.
#[utoipa::path(post, path = "/v1/retrievers/list", tag = "Retrievers", params(PagingFields),
    responses((status = 200, body = ListRetrieversResponse)))]
async fn list_retrievers(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListBody>,
) -> Result<Json<ListRetrieversResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    listed(&app, &tenant, &query, &body).await
}

/// Create a retriever
///
/// Stores `stages` under `retriever_name`. Whatever is wrong with them and can be known without data is refused with the
/// place. Without `collection_identifiers` it reads every collection of the namespace.
#[utoipa::path(post, path = "/v1/retrievers", tag = "Retrievers", responses((status = 200, body = CreateRetrieverResponse)))]
async fn create_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<RetrieverFields>,
) -> Result<Json<CreateRetrieverResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let made = app.create_retriever(&tenant.scope, body.into_fields()?).await?;
    Ok(Json(CreateRetrieverResponse { made: shown(&app, &made), retriever: shown(&app, &made) }))
}

/// Get a retriever
///
/// By id or name.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}", tag = "Retrievers", params(("retriever_id" = String, Path)),
    responses((status = 200, body = RetrieverResponse)))]
async fn get_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
) -> Result<Json<RetrieverResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let retriever = app.retriever(&tenant.scope, &identifier).await?;
    Ok(Json(shown(&app, &retriever)))
}

/// Change a retriever
///
/// Changes what the body names and leaves the rest; null takes a setting away. Every change is a new `version`.
#[utoipa::path(patch, path = "/v1/retrievers/{retriever_id}", tag = "Retrievers", params(("retriever_id" = String, Path)),
    responses((status = 200, body = PatchRetrieverResponse)))]
async fn patch_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Json(body): Json<RetrieverFields>,
) -> Result<Json<PatchRetrieverResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let changed = app.update_retriever(&tenant.scope, &identifier, body.into_fields()?).await?;
    Ok(Json(PatchRetrieverResponse { changed: shown(&app, &changed), retriever: shown(&app, &changed) }))
}

/// Delete a retriever
#[utoipa::path(delete, path = "/v1/retrievers/{retriever_id}", tag = "Retrievers", params(("retriever_id" = String, Path)),
    responses((status = 200, body = DeleteRetrieverResponse)))]
async fn delete_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
) -> Result<Json<DeleteRetrieverResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let retriever_id = app.delete_retriever(&tenant.scope, &identifier).await?;
    let message = format!("retriever `{retriever_id}` is deleted");
    Ok(Json(DeleteRetrieverResponse { message, success: true, retriever_id }))
}

/// Clone a retriever
///
/// Makes a retriever like this one under another name, but for what the body names.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/clone", tag = "Retrievers", params(("retriever_id" = String, Path)),
    responses((status = 200, body = CloneRetrieverResponse)))]
async fn clone_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Json(body): Json<RetrieverFields>,
) -> Result<Json<CloneRetrieverResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let (made, source_retriever_id) = app.clone_retriever(&tenant.scope, &identifier, body.into_fields()?).await?;
    Ok(Json(CloneRetrieverResponse { retriever: shown(&app, &made), source_retriever_id }))
}

/// List stages
///
/// Every kind of stage that a retriever can have, with the JSON Schema of its parameters.
#[utoipa::path(get, path = "/v1/retrievers/stages", tag = "RetrieverStages", responses((status = 200, body = Vec<StageDefinition>)))]
async fn list_stages() -> Json<Vec<StageDefinition>> {
    Json(retrieval::registry().iter().map(StageDefinition::from).collect())
}

/// A free object of a stored body; empty where there is none.
fn object(body: &Fields, key: &str) -> Map<String, Value> {
    body.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
}
