//! API keys of a user.

use super::{checked_limit, refuse, users::GenericSuccessResponse};
use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    me::permission_name,
    openapi::{maybe_time, time},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_engine::principals::{KeyChange, NewKey, PRINCIPAL_ID, RATE_LIMIT, Secret};
use strata_model::{Error, Fields, Permission as Allowed, acl};
use strata_engine::principals::ApiKey;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const ACTIVE: &str = "active";
const MAX_DESCRIPTION: usize = 500;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(update_key, delete_key))
        .routes(routes!(rotate_key))
}

/// What a key may do. `admin` implies the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Read,
    Write,
    Delete,
    Admin,
}

impl From<Permission> for Allowed {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Read => Self::Read,
            Permission::Write => Self::Write,
            Permission::Delete => Self::Delete,
            Permission::Admin => Self::Admin,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyStatus {
    Active,
    Revoked,
    Expired,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceOperation {
    ReadData,
    WriteData,
    DeleteData,
    ExecuteRetriever,
    CreateRetriever,
    DeleteRetriever,
    ExecuteJob,
    CancelJob,
    CreateCluster,
    DeleteCluster,
    ModifyCluster,
    ModifyInfrastructure,
    ManagePermissions,
}

/// Limits a key to a namespace, or one that was made for a retriever to that.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ResourceScopeInput {
    /// `namespace`.
    #[schema(example = "namespace")]
    resource_type: String,
    /// Id or name.
    #[schema(min_length = 1, max_length = 100)]
    resource_id: String,
    /// What the key may do there at most; the same for every scope of a key.
    #[serde(default)]
    operations: Option<Vec<NamespaceOperation>>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct APIKeyCreateRequest {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[serde(default)]
    #[schema(max_length = 500)]
    description: Option<String>,
    /// `["read"]` where this is left out.
    #[serde(default)]
    permissions: Option<Vec<Permission>>,
    /// Namespaces that the key is limited to; without any it may enter all.
    #[serde(default)]
    scopes: Option<Vec<ResourceScopeInput>>,
    /// Requests a minute of each group that this key may send, instead of what its organization says.
    #[serde(default)]
    #[schema(minimum = 1)]
    rate_limit_override: Option<i64>,
    #[serde(default)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// The name under which access lists of documents know the key: with it the key reads what everybody reads and what
    /// names it, and writes accordingly. One that administers and has none reads and writes everything.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 256)]
    principal_id: Option<String>,
    /// Not supported.
    #[serde(default)]
    allowed_origins: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct APIKeyUpdateRequest {
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    permissions: Option<Vec<Permission>>,
    scopes: Option<Vec<ResourceScopeInput>>,
    /// Requests a minute of each group that this key may send, instead of what its organization says.
    #[schema(minimum = 1)]
    rate_limit_override: Option<i64>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// `revoked` stops the key for good.
    status: Option<KeyStatus>,
    /// Not supported.
    allowed_origins: Option<Vec<String>>,
}

/// A key without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct APIKeyModel {
    pub key_id: String,
    /// SHA-256 of the secret.
    pub key_hash: String,
    /// First characters of the secret.
    pub key_prefix: String,
    pub key_type: String,
    pub is_internal: bool,
    pub internal_id: String,
    pub organization_id: String,
    pub user_id: String,
    pub name: String,
    pub description: String,
    pub permissions: Vec<String>,
    #[schema(value_type = Vec<ResourceScopeInput>)]
    pub scopes: Vec<Value>,
    pub rate_limit_override: Option<i64>,
    pub status: KeyStatus,
    #[schema(schema_with = maybe_time)]
    pub expires_at: Option<String>,
    #[schema(schema_with = maybe_time)]
    pub last_used_at: Option<String>,
    #[schema(schema_with = time)]
    pub created_at: String,
    pub created_by: Option<String>,
    #[schema(schema_with = maybe_time)]
    pub revoked_at: Option<String>,
    pub revoked_by: Option<String>,
    /// Origins of the web pages that may send it; null means any, and callers that are no page.
    pub allowed_origins: Option<Vec<String>>,
    /// The name under which access lists of documents know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal_id: Option<String>,
}

impl APIKeyModel {
    /// Whether the key is neither revoked nor expired.
    pub(crate) fn works(&self) -> bool {
        self.status == KeyStatus::Active
    }
}

/// A key with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct APIKeyCreateResponse {
    #[serde(flatten)]
    pub model: APIKeyModel,
    /// The secret.
    pub key: String,
    /// The secret again, under the name that older clients read.
    pub api_key: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct APIKeyListResponse {
    pub results: Vec<APIKeyModel>,
    pub total: i64,
}

impl From<ApiKey> for APIKeyModel {
    fn from(key: ApiKey) -> Self {
        let text = |name: &str| key.body.get(name).and_then(Value::as_str).map(str::to_owned);
        let has_ended = key.expires_at.as_ref().and_then(|at| at.parse::<jiff::Timestamp>().ok()).is_some_and(|at| at <= jiff::Timestamp::now());
        Self {
            description: text("description").unwrap_or_default(),
            created_by: text("created_by"),
            revoked_at: text("revoked_at"),
            revoked_by: text("revoked_by"),
            principal_id: text(PRINCIPAL_ID),
            key_type: key_type(&key).into(),
            allowed_origins: key
                .body
                .get("allowed_origins")
                .and_then(Value::as_array)
                .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            is_internal: false,
            internal_id: key.organization_id.clone(),
            status: match (key.status == ACTIVE, has_ended) {
                (false, _) => KeyStatus::Revoked,
                (true, true) => KeyStatus::Expired,
                (true, false) => KeyStatus::Active,
            },
            permissions: key.permissions.iter().map(|p| permission_name(*p).to_owned()).collect(),
            scopes: key.scopes,
            rate_limit_override: key.body.get(RATE_LIMIT).and_then(Value::as_i64),
            key_id: key.key_id,
            key_hash: key.key_hash,
            key_prefix: key.key_prefix,
            organization_id: key.organization_id,
            user_id: key.user_id,
            name: key.name,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            created_at: key.created_at,
        }
    }
}

/// `retriever` for a key that is for one, else `standard`.
pub(crate) fn key_type(key: &ApiKey) -> &'static str {
    match key.retriever_id {
        Some(_) => "retriever",
        None => "standard",
    }
}

pub(crate) fn with_secret((key, Secret(secret)): (ApiKey, Secret)) -> Json<APIKeyCreateResponse> {
    Json(APIKeyCreateResponse { model: key.into(), key: secret.clone(), api_key: secret })
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct KeyListParameters {
    /// Whether to show keys that no longer work.
    include_revoked: bool,
    /// There are no session keys here; this changes nothing.
    include_session_keys: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct KeyDeleteParameters {
    /// This changes nothing; the last key that administers the organization stays in any case.
    force: Option<bool>,
}

fn described(description: Option<String>, rate_limit: Option<i64>) -> Result<Fields, ApiError> {
    if description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
        return Err(Error::invalid("description", format!("must have at most {MAX_DESCRIPTION} characters")).into());
    }
    let mut body: Fields = description.into_iter().map(|text| ("description".to_owned(), text.into())).collect();
    if let Some(limit) = rate_limit {
        body.insert(RATE_LIMIT.into(), checked_limit(RATE_LIMIT, &limit.into())?.into());
    }
    Ok(body)
}

/// Adds to a key's body the principal that it stands for.
fn named(principal_id: Option<String>, mut body: Fields) -> Result<Fields, ApiError> {
    if let Some(name) = principal_id {
        if !acl::is_name(&name) {
            let message = format!("must have 1 to {} characters", acl::MAX_NAME_CHARS);
            return Err(Error::invalid(PRINCIPAL_ID, message).into());
        }
        body.insert(PRINCIPAL_ID.into(), name.into());
    }
    Ok(body)
}

fn scopes(list: Vec<ResourceScopeInput>) -> Vec<Value> {
    list.into_iter().map(|scope| json!(scope)).collect()
}

/// List a user's keys
///
/// Without their secrets. A key sees the keys of its own user; those of others need `admin`.
#[utoipa::path(get, path = "/v1/organizations/users/{user_email}/api-keys", tag = "OrganizationAPIKeys", params(KeyListParameters), responses((status = 200, body = APIKeyListResponse)))]
pub async fn list_keys(
    State(app): State<App>,
    caller: Caller,
    Path(user_email): Path<String>,
    Query(query): Query<KeyListParameters>,
) -> Result<Json<APIKeyListResponse>, ApiError> {
    caller.may_in_organization(Allowed::Read)?;
    let user = app.user(&caller.0, &user_email).await?;
    if user.user_id != caller.0.user_id {
        caller.may_in_organization(Allowed::Admin)?;
    }
    let keys = app.keys(&caller.0, &user.user_id).await?;
    let shown = keys.into_iter().filter(|key| query.include_revoked || key.status == ACTIVE).map(APIKeyModel::from);
    let results: Vec<APIKeyModel> = shown.collect();
    Ok(Json(APIKeyListResponse { total: results.len() as i64, results }))
}

/// Create a key
///
/// The answer holds the secret, this once. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/users/{user_email}/api-keys", tag = "OrganizationAPIKeys", responses((status = 200, body = APIKeyCreateResponse)))]
pub async fn create_key(
    State(app): State<App>,
    caller: Caller,
    Path(user_email): Path<String>,
    Json(body): Json<APIKeyCreateRequest>,
) -> Result<Json<APIKeyCreateResponse>, ApiError> {
    caller.may_in_organization(Allowed::Admin)?;
    refuse(&[
        ("allowed_origins", body.allowed_origins.as_ref().is_some_and(|list| !list.is_empty())),
    ])?;
    let permissions = body.permissions.unwrap_or_else(|| vec![Permission::Read]);
    let new = NewKey {
        name: body.name,
        permissions: permissions.into_iter().map(Allowed::from).collect(),
        scopes: scopes(body.scopes.unwrap_or_default()),
        expires_at: body.expires_at,
        body: named(body.principal_id, described(body.description, body.rate_limit_override)?)?,
    };
    Ok(with_secret(app.create_key(&caller.0, &user_email, new).await?))
}

/// Change a key
///
/// Fields that are left out stay. The change counts at once. Needs `admin`.
#[utoipa::path(patch, path = "/v1/organizations/users/{user_email}/api-keys/{key_name}", tag = "OrganizationAPIKeys", responses((status = 200, body = APIKeyModel)))]
pub async fn update_key(
    State(app): State<App>,
    caller: Caller,
    Path((user_email, key_name)): Path<(String, String)>,
    Json(body): Json<APIKeyUpdateRequest>,
) -> Result<Json<APIKeyModel>, ApiError> {
    caller.may_in_organization(Allowed::Admin)?;
    refuse(&[
        ("allowed_origins", body.allowed_origins.as_ref().is_some_and(|list| !list.is_empty())),
    ])?;
    let change = KeyChange {
        name: body.name,
        permissions: body.permissions.map(|list| list.into_iter().map(Allowed::from).collect()),
        scopes: body.scopes.map(scopes),
        expires_at: body.expires_at,
        active: body.status.map(|status| status == KeyStatus::Active),
        body: described(body.description, body.rate_limit_override)?,
    };
    Ok(Json(app.update_key(&caller.0, &user_email, &key_name, change).await?.into()))
}

/// Revoke a key
///
/// The key stops working before this answers, and for good. Needs `admin`; the last key that administers the
/// organization stays.
#[utoipa::path(delete, path = "/v1/organizations/users/{user_email}/api-keys/{key_name}", tag = "OrganizationAPIKeys", params(KeyDeleteParameters), responses((status = 200, body = GenericSuccessResponse)))]
pub async fn delete_key(
    State(app): State<App>,
    caller: Caller,
    Path((user_email, key_name)): Path<(String, String)>,
    _query: Query<KeyDeleteParameters>,
) -> Result<Json<GenericSuccessResponse>, ApiError> {
    caller.may_in_organization(Allowed::Admin)?;
    let key = app.revoke_key(&caller.0, &user_email, &key_name).await?;
    Ok(GenericSuccessResponse::new(format!("API key `{}` is revoked", key.name)))
}

/// Rotate a key
///
/// Gives the key a new secret, shown this once; the old one stops working before this answers. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/users/{user_email}/api-keys/{key_name}/rotate", tag = "OrganizationAPIKeys", responses((status = 200, body = APIKeyCreateResponse)))]
pub async fn rotate_key(
    State(app): State<App>,
    caller: Caller,
    Path((user_email, key_name)): Path<(String, String)>,
) -> Result<Json<APIKeyCreateResponse>, ApiError> {
    caller.may_in_organization(Allowed::Admin)?;
    Ok(with_secret(app.rotate_key(&caller.0, &user_email, &key_name).await?))
}
