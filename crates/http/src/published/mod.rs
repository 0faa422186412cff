//! Published retrievers: how their owners publish them. What the public may do is in [`public`], what it sees in [`view`],
//! keys that are for one retriever in [`keys`].

mod display;
mod keys;
mod public;
mod view;
mod wire;

pub(crate) use public::short_links;
pub(crate) use view::PublicView;

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strata_engine::published::{MAX_PUBLISHED, Publish, Published};
use strata_model::{Error, Permission, limits};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::{
    PublishRetrieverRequest, PublishRetrieverResponse, PublishedRetrieverResponse, UpdatePublishedRetrieverRequest,
};

/// Publications of a page where the caller does not say.
const DEFAULT_PAGE: i64 = 100;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_publish_stats))
        .routes(routes!(list_published_retrievers))
        .routes(routes!(publish_retriever, get_published_retriever, update_published_retriever, unpublish_retriever))
        .routes(routes!(check_name_availability))
        .routes(routes!(reconcile_publish_state))
        .merge(keys::routes())
        .merge(public::routes())
}

async fn shown(app: &App, published: Published) -> Result<PublishedRetrieverResponse, ApiError> {
    let key = match app.public_key(&published).await {
        Ok(key) => Some(key),
        Err(Error::Unavailable(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let metadata = app.public_metadata(&published).await?;
    Ok(PublishedRetrieverResponse::new(published, &app.config().public_url, key, metadata))
}

/// Publish a retriever
///
/// Anybody may execute it then, by its public name and without an account: `POST {public_url}/execute`. Only the fields
/// that `display_config.exposed_fields` names are shown. A retriever is published once; change it with PATCH.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/publish", tag = "PublishedRetrievers",
    params(("retriever_id" = String, Path)), responses((status = 200, body = PublishRetrieverResponse)))]
async fn publish_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Json(body): Json<PublishRetrieverRequest>,
) -> Result<Json<PublishRetrieverResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let retriever = app.retriever(&tenant.scope, &identifier).await?;
    let own = match body.has_display() {
        true => Default::default(),
        false => app.display_config_of(&retriever, body.display_name.as_deref()),
    };
    let (display_name, public_name) = (body.display_name.clone(), body.public_name.clone());
    let new = Publish { display_name, public_name, settings: body.settings(own)? };
    let published = app.publish_retriever(&tenant.scope, &retriever.id, new).await?;
    let base = &app.config().public_url;
    Ok(Json(PublishRetrieverResponse {
        public_url: published.url(base),
        short_url: public::short_url(base, &published.public_name),
        public_api_key: Some(app.public_key(&published).await?),
        public_id: published.public_id,
        public_name: published.public_name,
        retriever_id: published.retriever_id,
    }))
}

/// Get how a retriever is published
///
/// Null where it is not.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/publish", tag = "PublishedRetrievers",
    params(("retriever_id" = String, Path)), responses((status = 200, body = Option<PublishedRetrieverResponse>)))]
async fn get_published_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
) -> Result<Json<Option<PublishedRetrieverResponse>>, ApiError> {
    tenant.may(Permission::Read)?;
    match app.published(&tenant.scope, &identifier).await? {
        Some(published) => Ok(Json(Some(shown(&app, published).await?))),
        None => Ok(Json(None)),
    }
}

/// Change how a retriever is published
///
/// Changes what the body names and leaves the rest. Its public name and id stay.
#[utoipa::path(patch, path = "/v1/retrievers/{retriever_id}/publish", tag = "PublishedRetrievers",
    params(("retriever_id" = String, Path)), responses((status = 200, body = PublishedRetrieverResponse)))]
async fn update_published_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Json(body): Json<UpdatePublishedRetrieverRequest>,
) -> Result<Json<PublishedRetrieverResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let published = app.update_published(&tenant.scope, &identifier, body.change()?).await?;
    Ok(Json(shown(&app, published).await?))
}

#[derive(Debug, Serialize, ToSchema)]
struct UnpublishResponse {
    message: String,
    success: bool,
}

/// Unpublish a retriever
///
/// The public name is free and the public key of no use before this answers. The retriever stays.
#[utoipa::path(delete, path = "/v1/retrievers/{retriever_id}/publish", tag = "PublishedRetrievers",
    params(("retriever_id" = String, Path)), responses((status = 200, body = UnpublishResponse)))]
async fn unpublish_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
) -> Result<Json<UnpublishResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let name = app.unpublish_retriever(&tenant.scope, &identifier).await?;
    Ok(Json(UnpublishResponse { message: format!("`{name}` is not public any more"), success: true }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct NameQuery {
    /// The public name that is wanted.
    #[param(required = true)]
    name: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PublicNameAvailabilityResponse {
    name: String,
    available: bool,
}

/// Ask whether a public name is free
///
/// The name that the retriever has is free for it.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/publish/availability", tag = "PublishedRetrievers",
    params(("retriever_id" = String, Path), NameQuery), responses((status = 200, body = PublicNameAvailabilityResponse)))]
async fn check_name_availability(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Query(query): Query<NameQuery>,
) -> Result<Json<PublicNameAvailabilityResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let retriever = app.retriever(&tenant.scope, &identifier).await?;
    let name = query.name.ok_or_else(|| Error::invalid("name", "is required"))?;
    let available = app.is_public_name_free(&tenant.scope, &retriever.id, &name).await?;
    Ok(Json(PublicNameAvailabilityResponse { name, available }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ReconcileQuery {
    /// Whether to look only.
    dry_run: Option<bool>,
}

/// What differs between a retriever and how it is published.
#[derive(Debug, Serialize, ToSchema)]
struct ReconcileResponse {
    retriever_id: String,
    public_name: Option<String>,
    /// `not_published`, `consistent`, `drifted` (what differs can be repaired and was not), `broken` (only the owner can
    /// repair it).
    #[schema(example = "consistent")]
    state: String,
    dry_run: bool,
    repaired: bool,
    /// `{code, message}` of what could be repaired.
    #[schema(value_type = Vec<Object>)]
    changes: Vec<Value>,
    /// `{code, message}` of what could not.
    #[schema(value_type = Vec<Object>)]
    issues: Vec<Value>,
}

/// Reconcile a publication with its retriever
///
/// Brings the inputs of the search page in line with those of the retriever, and tells what keeps the public from using
/// it: stages that cannot be executed, collections that are gone, a password that is not in the vault.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/publish/reconcile", tag = "PublishedRetrievers",
    params(("retriever_id" = String, Path), ReconcileQuery), responses((status = 200, body = ReconcileResponse)))]
async fn reconcile_publish_state(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Query(query): Query<ReconcileQuery>,
) -> Result<Json<ReconcileResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let dry_run = query.dry_run.unwrap_or(false);
    let found = app.reconcile_published(&tenant.scope, &identifier, dry_run).await?;
    Ok(Json(ReconcileResponse {
        retriever_id: found.retriever_id,
        public_name: found.public_name,
        state: found.state.to_owned(),
        dry_run,
        repaired: found.is_repaired,
        changes: found.changes,
        issues: found.issues,
    }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct PublishedPage {
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    #[param(minimum = 0)]
    offset: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListPublishedResponse {
    results: Vec<PublishedRetrieverResponse>,
    total: i64,
    limit: i64,
    offset: i64,
}

/// List published retrievers
///
/// Those of the namespace, oldest first.
#[utoipa::path(get, path = "/v1/retrievers/published", tag = "PublishedRetrievers", params(PublishedPage),
    responses((status = 200, body = ListPublishedResponse)))]
async fn list_published_retrievers(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PublishedPage>,
) -> Result<Json<ListPublishedResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (limit, offset) = (query.limit.unwrap_or(DEFAULT_PAGE), query.offset.unwrap_or(0));
    if !(1..=limits::MAX_PAGE as i64).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {}", limits::MAX_PAGE)).into());
    }
    let start = usize::try_from(offset).map_err(|_| Error::invalid("offset", "must be 0 or more"))?;
    let page = app.published_retrievers(&tenant.scope, limit as usize, start).await?;
    let mut results = Vec::with_capacity(page.items.len());
    for published in page.items {
        results.push(shown(&app, published).await?);
    }
    Ok(Json(ListPublishedResponse { results, total: page.total as i64, limit, offset }))
}

#[derive(Debug, Serialize, ToSchema)]
struct PublishStatsResponse {
    current_count: i64,
    max_allowed: i64,
    remaining: i64,
    at_limit: bool,
}

/// Count published retrievers
///
/// How many the namespace has, and may have.
#[utoipa::path(get, path = "/v1/retrievers/publish/stats", tag = "PublishedRetrievers",
    responses((status = 200, body = PublishStatsResponse)))]
async fn get_publish_stats(State(app): State<App>, tenant: Tenant) -> Result<Json<PublishStatsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let count = app.count_published(&tenant.scope).await?;
    let remaining = MAX_PUBLISHED.saturating_sub(count);
    Ok(Json(PublishStatsResponse {
        current_count: count as i64,
        max_allowed: MAX_PUBLISHED as i64,
        remaining: remaining as i64,
        at_limit: remaining == 0,
    }))
}
