//! The audit log: reading it, taking it elsewhere, and for how long it is kept.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    openapi::time,
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::{
    audit::{Event, Selection, Settings, SettingsChange},
    times,
};
use strata_model::{Error, Permission};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const DEFAULT_PAGE: i64 = 50;
const MAX_PAGE: i64 = 1000;
const MAX_EXPORT: usize = 200_000;
const LINES: &str = "application/x-ndjson";
const ARRAY: &str = "application/json";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_audit_logs))
        .routes(routes!(export_audit_logs))
        .routes(routes!(get_audit_log))
        .routes(routes!(get_audit_settings, update_audit_settings))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct AuditParameters {
    /// Only events of this kind of resource, such as `bucket`.
    resource_type: Option<String>,
    /// Only events of this resource.
    resource_id: Option<String>,
    /// Only what this user did, or was done with this key, by id.
    actor_id: Option<String>,
    /// Only this action, such as `bucket_created`.
    action: Option<String>,
    /// Only events from this time on.
    start: Option<String>,
    /// Only events until this time.
    end: Option<String>,
    /// Events to pass over.
    #[param(minimum = 0)]
    skip: Option<i64>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct AuditExportParameters {
    /// Only events of this kind of resource, such as `bucket`.
    resource_type: Option<String>,
    /// Only events of this resource.
    resource_id: Option<String>,
    /// Only what this user did, or was done with this key, by id.
    actor_id: Option<String>,
    /// Only this action, such as `bucket_created`.
    action: Option<String>,
    /// Only events from this time on.
    start: Option<String>,
    /// Only events until this time.
    end: Option<String>,
    /// The newest of them, 200,000 where it is left out.
    #[param(minimum = 1, maximum = 200_000)]
    max_events: Option<i64>,
}

/// What one call left in the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEventResponse {
    pub audit_id: String,
    #[schema(schema_with = time)]
    pub timestamp: String,
    #[schema(example = "bucket")]
    pub resource_type: String,
    /// Its id; where the call made several or was refused, of what they lie in or as the path had it.
    pub resource_id: String,
    #[schema(example = "bucket_created")]
    pub action: String,
    /// The user whose key called.
    pub actor_id: String,
    /// Always `user`.
    pub actor_type: String,
    /// `success` or `failure`.
    pub status: String,
    /// Always null: what was sent is not kept.
    #[schema(value_type = Option<Object>)]
    pub changes: Option<Map<String, Value>>,
    /// What the header `X-Change-Reason` said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    /// What the user is called now, if it is still there; so are the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor_key_name: Option<String>,
    /// The id of the key. The key itself is kept nowhere.
    pub actor_key_id: String,
    pub namespace_id: Option<String>,
    /// The operation, as the OpenAPI document calls it.
    pub operation_id: String,
    pub method: String,
    /// With the names of its parameters.
    pub path: String,
    /// Of the answer; null where the event was written with the change itself, which went well.
    pub status_code: Option<u16>,
    /// The header `X-Request-Id` of the answer.
    pub request_id: String,
}

impl From<Event> for AuditEventResponse {
    fn from(event: Event) -> Self {
        Self {
            audit_id: event.audit_id,
            timestamp: event.created_at,
            resource_type: event.resource_type,
            resource_id: event.resource_id,
            action: event.action,
            actor_id: event.user_id,
            actor_type: "user".into(),
            status: event.status,
            changes: None,
            reason: event.reason,
            ip_address: event.ip_address,
            user_agent: event.user_agent,
            actor_name: event.user_name,
            actor_email: event.email,
            actor_key_name: event.key_name,
            actor_key_id: event.key_id,
            namespace_id: event.namespace_id,
            operation_id: event.operation_id,
            method: event.method,
            path: event.path,
            status_code: event.status_code,
            request_id: event.request_id,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEventListResponse {
    /// Newest first.
    pub results: Vec<AuditEventResponse>,
    pub total: i64,
    pub skip: i64,
    pub limit: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AuditSettings {
    /// Whether reads, searches and executions leave events, too.
    pub read_auditing_enabled: bool,
    /// How long events are kept; null means for ever.
    pub retention_days: Option<u32>,
}

impl From<Settings> for AuditSettings {
    fn from(settings: Settings) -> Self {
        Self { read_auditing_enabled: settings.reads, retention_days: settings.retention_days }
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct AuditSettingsUpdateRequest {
    read_auditing_enabled: Option<bool>,
    /// 0 keeps events for ever.
    #[schema(minimum = 0, maximum = 36500)]
    retention_days: Option<u32>,
}

/// Reads a time of the query.
fn moment(text: Option<&str>, at: &str) -> Result<Option<i64>, Error> {
    text.map(|text| times::moment(text, at)).transpose()
}

/// List audit events
///
/// What was called and what came of it, newest first: every call that changes something, reads of secrets, and other
/// reads where the settings say so. Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/audit/logs", tag = "OrganizationAudit", params(AuditParameters),
    responses((status = 200, body = AuditEventListResponse)))]
async fn list_audit_logs(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<AuditParameters>,
) -> Result<Json<AuditEventListResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let (skip, limit) = (query.skip.unwrap_or(0), query.limit.unwrap_or(DEFAULT_PAGE));
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}, not {limit}")).into());
    }
    let start = usize::try_from(skip).map_err(|_| Error::invalid("skip", "must be 0 or more"))?;
    let selection = Selection {
        start: moment(query.start.as_deref(), "start")?,
        end: moment(query.end.as_deref(), "end")?,
        resource_type: query.resource_type,
        resource_id: query.resource_id,
        actor_id: query.actor_id,
        action: query.action,
        before: None,
    };
    let (events, total) = app.audit_events(&caller.0, selection, (limit as usize, start)).await?;
    let results = events.into_iter().map(AuditEventResponse::from).collect();
    Ok(Json(AuditEventListResponse { results, total, skip, limit }))
}

/// Export audit events
///
/// The selected events, newest first, as JSON lines; as one JSON array where `Accept` asks for `application/json` and
/// not for lines. Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/audit/logs/export", tag = "OrganizationAudit",
    params(AuditExportParameters),
    responses((status = 200, body = String, content_type = "application/x-ndjson")))]
async fn export_audit_logs(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<AuditExportParameters>,
) -> Result<Response, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let most = query.max_events.map_or(Ok(MAX_EXPORT), usize::try_from).unwrap_or(0);
    if !(1..=MAX_EXPORT).contains(&most) {
        return Err(Error::invalid("max_events", format!("must be from 1 to {MAX_EXPORT}")).into());
    }
    let selection = Selection {
        start: moment(query.start.as_deref(), "start")?,
        end: moment(query.end.as_deref(), "end")?,
        resource_type: query.resource_type,
        resource_id: query.resource_id,
        actor_id: query.actor_id,
        action: query.action,
        before: None,
    };
    let accepts = headers.get(header::ACCEPT).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let is_array = accepts.is_some_and(|accepts| accepts.contains(ARRAY) && !accepts.contains("ndjson"));
    let (kind, name) = if is_array { (ARRAY, "audit.json") } else { (LINES, "audit.ndjson") };
    let shape = if is_array { ["[", ",", "]"] } else { ["", "", ""] };
    let events = parts(app, caller.0.organization_id, selection, most, shape[1]);
    let edge = |text: &'static str| stream::iter([Ok(Bytes::from_static(text.as_bytes()))]);
    let body = Body::from_stream(edge(shape[0]).chain(events).chain(edge(shape[2])));
    let disposition = format!("attachment; filename=\"{name}\"");
    Ok(([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body).into_response())
}

/// The events as JSON, each on a line and behind a separator, which the first has none of; read piece by piece.
fn parts(
    app: App,
    organization_id: String,
    selection: Selection,
    most: usize,
    separator: &'static str,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let begin = (app, organization_id, selection, None::<String>, most);
    stream::try_unfold(begin, move |(app, organization_id, selection, before, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let events = app.audit_part(&organization_id, &selection, before.clone(), left).await?;
        let Some(last) = events.last().map(|event| event.audit_id.clone()) else { return Ok(None) };
        let left = left.saturating_sub(events.len());
        let mut piece = Vec::new();
        for (i, event) in events.into_iter().enumerate() {
            if i > 0 || before.is_some() {
                piece.extend(separator.bytes());
            }
            serde_json::to_writer(&mut piece, &AuditEventResponse::from(event)).map_err(Error::internal)?;
            piece.push(b'\n');
        }
        Ok::<_, Error>(Some((Bytes::from(piece), (app, organization_id, selection, Some(last), left))))
    })
}

/// Get an audit event
///
/// Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/audit/logs/{audit_id}", tag = "OrganizationAudit",
    params(("audit_id" = String, Path)), responses((status = 200, body = AuditEventResponse)))]
async fn get_audit_log(
    State(app): State<App>,
    caller: Caller,
    Path(audit_id): Path<String>,
) -> Result<Json<AuditEventResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    Ok(Json(app.audit_event(&caller.0, &audit_id).await?.into()))
}

/// Get the settings of the audit log
///
/// Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/audit/settings", tag = "OrganizationAudit",
    responses((status = 200, body = AuditSettings)))]
async fn get_audit_settings(State(app): State<App>, caller: Caller) -> Result<Json<AuditSettings>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    Ok(Json(app.audit_settings(&caller.0).await?.into()))
}

/// Change the settings of the audit log
///
/// Whether reads are logged, too, each at the price of a write; and for how many days events are kept, 365 at first.
/// What is older is removed within minutes. Needs `admin`.
#[utoipa::path(patch, path = "/v1/organizations/audit/settings", tag = "OrganizationAudit",
    responses((status = 200, body = AuditSettings)))]
async fn update_audit_settings(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<AuditSettingsUpdateRequest>,
) -> Result<Json<AuditSettings>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let change = SettingsChange { reads: body.read_auditing_enabled, retention_days: body.retention_days };
    Ok(Json(app.change_audit_settings(&caller.0, change).await?.into()))
}
