//! Secrets of the organization: kept, replaced and deleted, never shown.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_secrets, create_secret)).routes(routes!(update_secret, delete_secret))
}

#[derive(Deserialize, ToSchema)]
pub struct CreateSecretRequest {
    /// What templates call it: `{{SECRET.name}}`.
    #[schema(min_length = 1, max_length = 100)]
    secret_name: String,
    #[schema(min_length = 1, max_length = 65536)]
    secret_value: String,
}

#[derive(Deserialize, ToSchema)]
pub struct UpdateSecretRequest {
    #[schema(min_length = 1, max_length = 65536)]
    secret_value: String,
}

/// What was done.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SecretResponse {
    pub secret_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SecretsListResponse {
    /// Names in their order.
    pub secrets: Vec<String>,
    pub count: i64,
}

/// List secrets
///
/// Their names. Values are not shown to anybody. Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/secrets", tag = "OrganizationSecrets", responses((status = 200, body = SecretsListResponse)))]
async fn list_secrets(State(app): State<App>, caller: Caller) -> Result<Json<SecretsListResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let secrets = app.secret_names(&caller.0).await?;
    Ok(Json(SecretsListResponse { count: secrets.len() as i64, secrets }))
}

/// Create a secret
///
/// The value is sealed before it is stored. Stages of retrievers that call something outside read it as
/// `{{SECRET.name}}`. Needs `admin`; whoever may write retrievers may use it.
#[utoipa::path(post, path = "/v1/organizations/secrets", tag = "OrganizationSecrets", responses((status = 200, body = SecretResponse)))]
async fn create_secret(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<CreateSecretRequest>,
) -> Result<Json<SecretResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    app.create_secret(&caller.0, &body.secret_name, &body.secret_value).await?;
    Ok(Json(SecretResponse { secret_name: body.secret_name, created: Some(true), ..SecretResponse::default() }))
}

/// Replace a secret's value
///
/// The next execution of a retriever reads the new value. Needs `admin`.
#[utoipa::path(put, path = "/v1/organizations/secrets/{secret_name}", tag = "OrganizationSecrets", params(("secret_name" = String, Path)),
    responses((status = 200, body = SecretResponse)))]
async fn update_secret(
    State(app): State<App>,
    caller: Caller,
    Path(secret_name): Path<String>,
    Json(body): Json<UpdateSecretRequest>,
) -> Result<Json<SecretResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    app.update_secret(&caller.0, &secret_name, &body.secret_value).await?;
    Ok(Json(SecretResponse { secret_name, updated: Some(true), ..SecretResponse::default() }))
}

/// Delete a secret
///
/// Retrievers that read it fail from then on, naming it. Needs `admin`.
#[utoipa::path(delete, path = "/v1/organizations/secrets/{secret_name}", tag = "OrganizationSecrets", params(("secret_name" = String, Path)),
    responses((status = 200, body = SecretResponse)))]
async fn delete_secret(
    State(app): State<App>,
    caller: Caller,
    Path(secret_name): Path<String>,
) -> Result<Json<SecretResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    app.delete_secret(&caller.0, &secret_name).await?;
    Ok(Json(SecretResponse { secret_name, deleted: Some(true), ..SecretResponse::default() }))
}
