//! What data subjects may ask for: a copy of what is known of them, and its erasure.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json},
    openapi::{maybe_object, maybe_time, time},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::subjects::{CATEGORIES, ERASED, Kind, Request, estimated_completion};
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(request_data_export))
        .routes(routes!(request_data_deletion))
        .routes(routes!(list_dsar_requests))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct SubjectRequest {
    /// Whom it is about: the id or e-mail address of a user, or the `user_id` that interactions or the actor that
    /// annotations name. The user of the key where it is left out.
    #[schema(min_length = 1, max_length = 254)]
    subject: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DSARExportResponse {
    pub request_id: String,
    /// `pending`.
    pub status: String,
    #[schema(schema_with = time)]
    pub requested_at: String,
    #[schema(schema_with = time)]
    pub estimated_completion: String,
    /// What is looked through.
    pub data_categories: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DSARDeleteResponse {
    pub request_id: String,
    /// `pending`.
    pub status: String,
    #[schema(schema_with = time)]
    pub requested_at: String,
    #[schema(schema_with = time)]
    pub estimated_completion: String,
    /// What is removed.
    pub data_categories: Vec<String>,
    pub warning: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DSARStatusResponse {
    pub request_id: String,
    /// `export` or `delete`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `pending`, `completed`, `failed`, or `expired` when the copy is gone.
    pub status: String,
    pub subject: String,
    #[schema(schema_with = time)]
    pub requested_at: String,
    #[schema(schema_with = maybe_time)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// How much was removed, by category.
    #[schema(schema_with = maybe_object)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased: Option<Map<String, Value>>,
    /// How much stays, by category: the account and its keys until the user is deleted, and the audit log.
    #[schema(schema_with = maybe_object)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Map<String, Value>>,
    /// How much the copy holds, by category.
    #[schema(schema_with = maybe_object)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported: Option<Map<String, Value>>,
    /// Where the copy can be fetched, for a while: a list makes a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download_url: Option<String>,
    /// When the copy is removed.
    #[schema(schema_with = maybe_time)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn shown(app: &App, request: Request) -> Result<DSARStatusResponse, ApiError> {
    let download_url = app.subject_export_url(&request)?;
    let counts = |key: &str| request.body.get(key).and_then(Value::as_object).cloned();
    Ok(DSARStatusResponse {
        erased: counts("erased"),
        kept: counts("kept"),
        exported: counts("exported"),
        error: request.body.get("error").and_then(Value::as_str).map(str::to_owned),
        request_id: request.request_id,
        kind: request.kind,
        status: request.status,
        subject: request.subject,
        requested_at: request.created_at,
        completed_at: request.completed_at,
        download_url,
        expires_at: request.expires_at,
    })
}

/// Request a copy of a person's data
///
/// What the organization holds of a person, in one JSON file: the account, keys without their secrets, interactions,
/// those of nobody in the person's sessions, annotations, and events of the audit log. It is made behind; the list of
/// requests says where it can be fetched, for seven days. Asking again meanwhile answers the same request. Needs
/// `admin`.
#[utoipa::path(post, path = "/v1/organizations/dsar/export", tag = "DataSubjectAccessRequests",
    responses((status = 200, body = DSARExportResponse)))]
async fn request_data_export(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<SubjectRequest>,
) -> Result<Json<DSARExportResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let request = app.request_subject(&caller.0, Kind::Export, body.subject).await?;
    Ok(Json(DSARExportResponse {
        estimated_completion: estimated_completion(&request),
        request_id: request.request_id,
        status: request.status,
        requested_at: request.created_at,
        data_categories: texts(&CATEGORIES),
    }))
}

/// Request the erasure of a person's data
///
/// Removes a person's interactions, those of nobody in the person's sessions, and annotations, in every namespace;
/// edits of others' annotations forget who made them. The account and its keys stay until the user is deleted, and the
/// audit log is not changed. It is done behind; the list of requests has the receipt. Asking again is harmless. Needs
/// `admin`.
#[utoipa::path(post, path = "/v1/organizations/dsar/delete", tag = "DataSubjectAccessRequests",
    responses((status = 200, body = DSARDeleteResponse)))]
async fn request_data_deletion(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<SubjectRequest>,
) -> Result<Json<DSARDeleteResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let request = app.request_subject(&caller.0, Kind::Delete, body.subject).await?;
    let warning = "this cannot be undone. The account and its keys stay until the user is deleted with \
                   `DELETE /v1/organizations/users/{user_email}`; documents and the audit log stay, and so do backups \
                   and copies that were fetched";
    Ok(Json(DSARDeleteResponse {
        estimated_completion: estimated_completion(&request),
        request_id: request.request_id,
        status: request.status,
        requested_at: request.created_at,
        data_categories: texts(&ERASED),
        warning: warning.to_owned(),
    }))
}

/// List requests of data subjects
///
/// Newest first, the last 1,000, with receipts and with URLs of the copies that are there. Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/dsar/status", tag = "DataSubjectAccessRequests",
    responses((status = 200, body = Vec<DSARStatusResponse>)))]
async fn list_dsar_requests(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Vec<DSARStatusResponse>>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let requests = app.subject_requests(&caller.0).await?;
    let all: Result<Vec<DSARStatusResponse>, ApiError> =
        requests.into_iter().map(|request| shown(&app, request)).collect();
    Ok(Json(all?))
}
