//! Users of the organization.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    openapi::{any_object, time},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::principals::{NewUser, Role, UserChange, UserStatus as Status};
use strata_model::{Error, Fields, Permission};
use strata_engine::principals::User;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const DEFAULT_PAGE: i64 = 50;
const MAX_PAGE: i64 = 1000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_users, create_user)).routes(routes!(get_user, update_user, delete_user))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserRole {
    Admin,
    #[default]
    Member,
    Viewer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserStatus {
    #[default]
    Active,
    Suspended,
    Pending,
}

impl From<UserRole> for Role {
    fn from(role: UserRole) -> Self {
        match role {
            UserRole::Admin => Self::Admin,
            UserRole::Member => Self::Member,
            UserRole::Viewer => Self::Viewer,
        }
    }
}

impl From<UserStatus> for Status {
    fn from(status: UserStatus) -> Self {
        match status {
            UserStatus::Active => Self::Active,
            UserStatus::Suspended => Self::Suspended,
            UserStatus::Pending => Self::Pending,
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct UserParameters {
    /// Users to pass over.
    #[param(minimum = 0)]
    skip: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    #[param(inline)]
    role: Option<UserRole>,
    #[param(inline)]
    status: Option<UserStatus>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UserResponse {
    pub user_id: String,
    pub organization_id: String,
    pub email: String,
    pub user_name: String,
    /// `admin`, `member` or `viewer`: what any key of the user may do at most.
    pub role: String,
    /// `active`, `suspended` or `pending`: keys of others than active users do not work.
    pub status: String,
    pub avatar_url: Option<String>,
    #[schema(schema_with = any_object)]
    pub metadata: Map<String, Value>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
}

impl From<User> for UserResponse {
    fn from(user: User) -> Self {
        Self {
            avatar_url: user.body.get("avatar_url").and_then(Value::as_str).map(str::to_owned),
            metadata: user.body.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default(),
            user_id: user.user_id,
            organization_id: user.organization_id,
            email: user.email,
            user_name: user.name,
            role: user.role,
            status: user.status,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UserListResponse {
    pub users: Vec<UserResponse>,
    pub total: i64,
    pub skip: i64,
    pub limit: i64,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct UserCreateRequest {
    email: String,
    #[schema(min_length = 2, max_length = 100)]
    user_name: String,
    #[serde(default)]
    avatar_url: Option<String>,
    #[serde(default)]
    role: Option<UserRole>,
    #[serde(default)]
    status: Option<UserStatus>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Fields>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UserUpdateRequest {
    #[schema(min_length = 2, max_length = 100)]
    user_name: Option<String>,
    avatar_url: Option<String>,
    role: Option<UserRole>,
    status: Option<UserStatus>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Fields>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GenericSuccessResponse {
    pub message: String,
    pub success: bool,
}

impl GenericSuccessResponse {
    pub(crate) fn new(message: impl Into<String>) -> Json<Self> {
        Json(Self { message: message.into(), success: true })
    }
}

fn body(avatar_url: Option<String>, metadata: Option<Fields>) -> Fields {
    let avatar = avatar_url.map(|url| ("avatar_url".to_owned(), url.into()));
    let metadata = metadata.map(|metadata| ("metadata".to_owned(), metadata.into()));
    avatar.into_iter().chain(metadata).collect()
}

/// List users
///
/// Users of the organization, oldest first.
#[utoipa::path(get, path = "/v1/organizations/users", tag = "OrganizationUsers", params(UserParameters), responses((status = 200, body = UserListResponse)))]
pub async fn list_users(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<UserParameters>,
) -> Result<Json<UserListResponse>, ApiError> {
    caller.may_in_organization(Permission::Read)?;
    let (skip, limit) = (query.skip.unwrap_or(0), query.limit.unwrap_or(DEFAULT_PAGE));
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}, not {limit}")).into());
    }
    let start = usize::try_from(skip).map_err(|_| Error::invalid("skip", "must be 0 or more"))?;
    let mut users = app.users(&caller.0).await?;
    users.retain(|user| query.role.is_none_or(|role| Role::from(role).as_str() == user.role));
    users.retain(|user| query.status.is_none_or(|status| Status::from(status).as_str() == user.status));
    let total = users.len() as i64;
    let users = users.into_iter().skip(start).take(limit as usize).map(UserResponse::from).collect();
    Ok(Json(UserListResponse { users, total, skip, limit }))
}

/// Create a user
///
/// A user can hold keys; there are no passwords. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/users", tag = "OrganizationUsers", responses((status = 200, body = UserResponse)))]
pub async fn create_user(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<UserCreateRequest>,
) -> Result<Json<UserResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let new = NewUser {
        email: request.email,
        name: request.user_name,
        role: request.role.unwrap_or_default().into(),
        status: request.status.unwrap_or_default().into(),
        body: body(request.avatar_url, request.metadata),
    };
    Ok(Json(app.create_user(&caller.0, new).await?.into()))
}

/// Get a user
#[utoipa::path(get, path = "/v1/organizations/users/{user_email}", tag = "OrganizationUsers", responses((status = 200, body = UserResponse)))]
pub async fn get_user(State(app): State<App>, caller: Caller, Path(user_email): Path<String>) -> Result<Json<UserResponse>, ApiError> {
    caller.may_in_organization(Permission::Read)?;
    Ok(Json(app.user(&caller.0, &user_email).await?.into()))
}

/// Change a user
///
/// Fields that are left out stay. A new role or status counts at once for all keys of the user. Needs `admin`.
#[utoipa::path(patch, path = "/v1/organizations/users/{user_email}", tag = "OrganizationUsers", responses((status = 200, body = UserResponse)))]
pub async fn update_user(
    State(app): State<App>,
    caller: Caller,
    Path(user_email): Path<String>,
    Json(request): Json<UserUpdateRequest>,
) -> Result<Json<UserResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let change = UserChange {
        name: request.user_name,
        role: request.role.map(Role::from),
        status: request.status.map(Status::from),
        body: body(request.avatar_url, request.metadata),
    };
    Ok(Json(app.update_user(&caller.0, &user_email, change).await?.into()))
}

/// Delete a user
///
/// Removes the user and all keys of the user. Needs `admin`; the last admin stays.
#[utoipa::path(delete, path = "/v1/organizations/users/{user_email}", tag = "OrganizationUsers", responses((status = 200, body = GenericSuccessResponse)))]
pub async fn delete_user(
    State(app): State<App>,
    caller: Caller,
    Path(user_email): Path<String>,
) -> Result<Json<GenericSuccessResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let user = app.delete_user(&caller.0, &user_email).await?;
    Ok(GenericSuccessResponse::new(format!("user `{}` is deleted", user.email)))
}
