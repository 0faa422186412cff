//! Keys that are for one retriever.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    organizations::{APIKeyCreateResponse, APIKeyListResponse, APIKeyModel, GenericSuccessResponse, with_secret},
};
use axum::extract::State;
use serde::Deserialize;
use strata_engine::principals::NewRetrieverKey;
use strata_model::{Error, Permission};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const MAX_DESCRIPTION: usize = 500;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_retriever_keys, create_retriever_key)).routes(routes!(revoke_retriever_key))
}

#[derive(Debug, Deserialize, ToSchema)]
struct CreateRetrieverAPIKeyRequest {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[serde(default)]
    #[schema(max_length = 500)]
    description: Option<String>,
    #[serde(default)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Origins of the web pages that may send it, such as `https://shop.example` or `https://*.shop.example`. With any
    /// given, a request without an `Origin` is refused.
    #[serde(default)]
    allowed_origins: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct KeyListQuery {
    /// Whether to show keys that no longer work: revoked and expired ones.
    include_revoked: bool,
}

/// List a retriever's keys
///
/// Without their secrets, oldest first.
#[utoipa::path(get, path = "/v1/retrievers/{retriever_id}/api-keys", tag = "RetrieverAPIKeys",
    params(("retriever_id" = String, Path), KeyListQuery), responses((status = 200, body = APIKeyListResponse)))]
async fn list_retriever_keys(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Query(query): Query<KeyListQuery>,
) -> Result<Json<APIKeyListResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let keys = app.retriever_keys(&tenant.scope, &identifier).await?;
    let all = keys.into_iter().map(APIKeyModel::from);
    let results: Vec<APIKeyModel> = all.filter(|key| query.include_revoked || key.works()).collect();
    Ok(Json(APIKeyListResponse { total: results.len() as i64, results }))
}

/// Create a key for a retriever
///
/// The key executes, explains and reads this retriever and does nothing else. The answer holds the secret, this once.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/api-keys", tag = "RetrieverAPIKeys",
    params(("retriever_id" = String, Path)), responses((status = 200, body = APIKeyCreateResponse)))]
async fn create_retriever_key(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Json(body): Json<CreateRetrieverAPIKeyRequest>,
) -> Result<Json<APIKeyCreateResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    if body.description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
        return Err(Error::invalid("description", format!("must have at most {MAX_DESCRIPTION} characters")).into());
    }
    let new = NewRetrieverKey {
        name: body.name,
        description: body.description,
        expires_at: body.expires_at,
        allowed_origins: body.allowed_origins.unwrap_or_default(),
    };
    Ok(with_secret(app.create_retriever_key(&tenant.principal, &tenant.scope, &identifier, new).await?))
}

/// Revoke a retriever's key
///
/// It stops working before this answers, and for good.
#[utoipa::path(delete, path = "/v1/retrievers/{retriever_id}/api-keys/{key_id}", tag = "RetrieverAPIKeys",
    params(("retriever_id" = String, Path), ("key_id" = String, Path)),
    responses((status = 200, body = GenericSuccessResponse)))]
async fn revoke_retriever_key(
    State(app): State<App>,
    tenant: Tenant,
    Path((identifier, key_id)): Path<(String, String)>,
) -> Result<Json<GenericSuccessResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let key = app.revoke_retriever_key(&tenant.principal, &tenant.scope, &identifier, &key_id).await?;
    Ok(GenericSuccessResponse::new(format!("the key `{}` is revoked", key.name)))
}
