//! Connections of the organization to databases outside.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    openapi::{any_object, maybe_time, time},
    paging::{DEFAULT_PAGE, PaginationResponse, Paging, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::connections::{self, Connection, ConnectionChange, NewConnection};
use strata_model::{Error, Fields, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What a connection's status can be set to.
const STATUSES: [&str; 6] = ["ACTIVE", "SUSPENDED", "ARCHIVED", "DEACTIVATED", "FAILED", "PENDING"];
const MAX_METADATA_KEYS: usize = 100;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_connection))
        .routes(routes!(list_connections))
        .routes(routes!(get_connection, update_connection, delete_connection))
        .routes(routes!(test_connection))
}

#[derive(Deserialize, ToSchema)]
pub struct StorageConnectionCreateRequest {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `postgresql` or `sqlite`.
    provider_type: String,
    /// Of PostgreSQL `host`, `port`, `database`, `schema`, `ssl_mode`, `ssl_root_certificate` and `credentials` with
    /// `username` and `password`; of SQLite `path`, a file in the directory that the server was started with.
    #[schema(schema_with = any_object)]
    provider_config: Fields,
    #[serde(default)]
    #[schema(max_length = 500)]
    description: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Fields>,
    /// Not supported: connections are only read.
    #[serde(default)]
    write_enabled: Option<bool>,
    /// Whether to connect before it is kept, and to refuse it where that fails; yes where it is left out.
    #[serde(default)]
    test_before_save: Option<bool>,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct StorageConnectionUpdateRequest {
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Fields>,
    /// `ACTIVE`, or another word for one that is not used.
    status: Option<String>,
    is_active: Option<bool>,
    /// Not supported: connections are only read.
    write_enabled: Option<bool>,
    /// Keys to set; null removes. Another host, port, database or `ssl_mode` needs `credentials` with them.
    #[schema(value_type = Option<Object>)]
    provider_config: Option<Fields>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ListStorageConnectionsRequest {
    provider_type: Option<String>,
    status: Option<String>,
    is_active: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StorageConnectionModel {
    pub connection_id: String,
    /// The organization.
    pub internal_id: String,
    pub provider_type: String,
    /// With a mask in the place of the password.
    #[schema(schema_with = any_object)]
    pub provider_config: Map<String, Value>,
    pub write_enabled: bool,
    pub name: String,
    pub description: Option<String>,
    pub status: String,
    pub is_active: bool,
    #[schema(schema_with = maybe_time)]
    pub last_used_at: Option<String>,
    /// Why the last use failed; null where it did not.
    pub last_error: Option<String>,
    /// Uses that failed since the last one that did not.
    pub consecutive_failures: i64,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    pub created_by_user_id: String,
    #[schema(schema_with = any_object)]
    pub metadata: Map<String, Value>,
}

impl From<Connection> for StorageConnectionModel {
    fn from(connection: Connection) -> Self {
        let text = |key: &str| connection.body.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            provider_config: connections::masked_config(&connection),
            write_enabled: false,
            description: text("description"),
            status: text("status").unwrap_or_else(|| "ACTIVE".into()),
            is_active: connection.body.get("is_active").and_then(Value::as_bool).unwrap_or(true),
            metadata: connection.body.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default(),
            connection_id: connection.connection_id,
            internal_id: connection.organization_id,
            provider_type: connection.provider_type,
            name: connection.name,
            last_used_at: connection.last_used_at,
            last_error: connection.last_error,
            consecutive_failures: connection.consecutive_failures,
            created_at: connection.created_at,
            updated_at: connection.updated_at,
            created_by_user_id: connection.created_by,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StorageConnectionListResponse {
    pub results: Vec<StorageConnectionModel>,
    pub pagination: PaginationResponse,
    /// Connections before the page was cut.
    pub total: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StorageConnectionDeleteResponse {
    pub message: String,
    pub connection_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StorageConnectionTestResponse {
    pub success: bool,
    pub message: String,
    /// What is there, such as `server_version`.
    #[schema(schema_with = any_object)]
    pub details: Map<String, Value>,
}

fn refuse_writing(write_enabled: Option<bool>) -> Result<(), ApiError> {
    super::refuse(&[("write_enabled", write_enabled == Some(true))])
}

fn check_metadata(metadata: Option<&Fields>) -> Result<(), ApiError> {
    match metadata {
        Some(fields) if fields.len() > MAX_METADATA_KEYS => {
            Err(Error::invalid("metadata", format!("has at most {MAX_METADATA_KEYS} keys")).into())
        }
        _ => Ok(()),
    }
}

fn checked_status(status: Option<String>) -> Result<Option<String>, ApiError> {
    match status {
        Some(word) if !STATUSES.contains(&word.as_str()) => {
            Err(Error::invalid("status", format!("must be one of {}", STATUSES.join(", "))).into())
        }
        other => Ok(other),
    }
}

/// Create a connection
///
/// Credentials are sealed before they are stored and never shown again. Of the providers of the API, this server connects
/// to PostgreSQL, and to SQLite files besides. Needs `admin`; whoever may write retrievers may read through it.
#[utoipa::path(post, path = "/v1/organizations/connections", tag = "OrganizationConnections",
    responses((status = 200, body = StorageConnectionModel)))]
async fn create_connection(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<StorageConnectionCreateRequest>,
) -> Result<Json<StorageConnectionModel>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    refuse_writing(body.write_enabled)?;
    check_metadata(body.metadata.as_ref())?;
    let new = NewConnection {
        name: body.name,
        provider_type: body.provider_type,
        config: body.provider_config,
        description: body.description,
        metadata: body.metadata,
        is_tested: body.test_before_save.unwrap_or(true),
    };
    Ok(Json(app.create_connection(&caller.0, new).await?.into()))
}

/// List connections
///
/// Of the organization, oldest first.
#[utoipa::path(post, path = "/v1/organizations/connections/list", tag = "OrganizationConnections", params(PagingFields),
    responses((status = 200, body = StorageConnectionListResponse)))]
async fn list_connections(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListStorageConnectionsRequest>,
) -> Result<Json<StorageConnectionListResponse>, ApiError> {
    caller.may_in_organization(Permission::Read)?;
    let paging = Paging::resolve(&query, &PagingFields::default(), DEFAULT_PAGE)?;
    let all = app.connections(&caller.0).await?;
    let mut shown: Vec<StorageConnectionModel> = all.into_iter().map(StorageConnectionModel::from).collect();
    shown.retain(|c| body.provider_type.as_ref().is_none_or(|wanted| *wanted == c.provider_type));
    shown.retain(|c| body.status.as_ref().is_none_or(|wanted| *wanted == c.status));
    shown.retain(|c| body.is_active.is_none_or(|wanted| wanted == c.is_active));
    let total = shown.len();
    let results: Vec<_> = shown.into_iter().skip(paging.offset).take(paging.limit).collect();
    let pagination = PaginationResponse::of(&paging, results.len(), total);
    Ok(Json(StorageConnectionListResponse { results, pagination, total: total as i64 }))
}

/// Get a connection
///
/// By id or name.
#[utoipa::path(get, path = "/v1/organizations/connections/{connection_identifier}", tag = "OrganizationConnections",
    params(("connection_identifier" = String, Path)), responses((status = 200, body = StorageConnectionModel)))]
async fn get_connection(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
) -> Result<Json<StorageConnectionModel>, ApiError> {
    caller.may_in_organization(Permission::Read)?;
    Ok(Json(app.connection(&caller.0, &identifier).await?.into()))
}

/// Change a connection
///
/// Fields that are left out stay. The next query uses what was changed. Needs `admin`.
#[utoipa::path(patch, path = "/v1/organizations/connections/{connection_identifier}", tag = "OrganizationConnections",
    params(("connection_identifier" = String, Path)), responses((status = 200, body = StorageConnectionModel)))]
async fn update_connection(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
    Json(body): Json<StorageConnectionUpdateRequest>,
) -> Result<Json<StorageConnectionModel>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    refuse_writing(body.write_enabled)?;
    check_metadata(body.metadata.as_ref())?;
    let mut fields = Fields::new();
    fields.extend(body.description.map(|text| ("description".to_owned(), text.into())));
    fields.extend(body.metadata.map(|metadata| ("metadata".to_owned(), metadata.into())));
    let change = ConnectionChange {
        name: body.name,
        config: body.provider_config,
        body: fields,
        is_active: body.is_active,
        status: checked_status(body.status)?,
    };
    Ok(Json(app.update_connection(&caller.0, &identifier, change).await?.into()))
}

/// Delete a connection
///
/// Retrievers that read through it fail from then on, naming it. Needs `admin`.
#[utoipa::path(delete, path = "/v1/organizations/connections/{connection_identifier}", tag = "OrganizationConnections",
    params(("connection_identifier" = String, Path)), responses((status = 200, body = StorageConnectionDeleteResponse)))]
async fn delete_connection(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
) -> Result<Json<StorageConnectionDeleteResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let connection_id = app.delete_connection(&caller.0, &identifier).await?;
    let message = format!("connection `{connection_id}` is deleted");
    Ok(Json(StorageConnectionDeleteResponse { message, connection_id }))
}

/// Test a connection
///
/// Connects, and says how that went: a connection that cannot be made is an answer, too. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/connections/{connection_identifier}/test", tag = "OrganizationConnections",
    params(("connection_identifier" = String, Path)), responses((status = 200, body = StorageConnectionTestResponse)))]
async fn test_connection(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
) -> Result<Json<StorageConnectionTestResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let tried = app.test_connection(&caller.0, &identifier).await?;
    Ok(Json(StorageConnectionTestResponse { success: tried.is_good, message: tried.message, details: tried.details }))
}
