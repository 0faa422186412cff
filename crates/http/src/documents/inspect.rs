//! One document from close by: what it came from and what came from it, why searches find it or not, its media.

use super::{document_json, wire::DocumentResponse};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{any_object, time},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_engine::documents::{Below, Diagnosis, Show};
use strata_model::{Error, Fields, Permission};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(validate_document_schema))
        .routes(routes!(get_document_ancestors))
        .routes(routes!(get_document_descendants))
        .routes(routes!(get_document_diagnostics))
        .routes(routes!(download_document_media))
}

#[derive(Debug, Serialize, ToSchema)]
struct SchemaValidationResponse {
    valid: bool,
    errors: Vec<SchemaFault>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SchemaFault {
    /// A dot path.
    field: String,
    message: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentDiagnosticsResponse {
    document_id: String,
    collection_id: String,
    source_object_id: Option<String>,
    visibility_reason: VisibilityReason,
    recent_failures: RecentFailures,
    diagnostic_history: DiagnosticHistory,
}

#[derive(Debug, Serialize, ToSchema)]
struct VisibilityReason {
    /// Whether searches see the document as it is now.
    searchable: bool,
    reason: String,
    source_object_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RecentFailures {
    failures: Vec<RecentFailure>,
    reason: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct RecentFailure {
    source: &'static str,
    /// The object or document that could not be worked through.
    object_id: String,
    status: String,
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DiagnosticHistory {
    /// Newest first.
    entries: Vec<DiagnosticHistoryEntry>,
    reason: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DiagnosticHistoryEntry {
    source: &'static str,
    #[schema(schema_with = time)]
    timestamp: String,
    #[schema(schema_with = any_object)]
    detail: Value,
}

#[derive(Debug, Serialize, ToSchema)]
struct SceneDownloadResponse {
    /// Reads the whole media that the document was made from, for an hour.
    download_url: String,
    /// Always true: the media is stored, nothing has to be made first.
    cached: bool,
    /// Where in the media the document's part begins, in seconds; 0 where it has no such part.
    start_time: f64,
    /// Where it ends; 0 where it has no such part.
    end_time: f64,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct DescendantsParameters {
    /// How many levels to go down, from 1 to 32, or `all`; one where this is left out.
    depth: Option<String>,
}

fn below(depth: Option<&str>) -> Result<Below, Error> {
    match depth {
        None => Ok(Below::Children),
        Some("all") => Ok(Below::All),
        Some(text) => {
            let levels = text.trim().parse().ok().filter(|levels| (1..=MAX_LEVELS).contains(levels));
            let message = || format!("must be from 1 to {MAX_LEVELS}, or `all`, not `{text}`");
            levels.map(Below::Levels).ok_or_else(|| Error::invalid("depth", message()))
        }
    }
}

/// Deepest level below a document that a request names by its number.
const MAX_LEVELS: usize = 32;

/// A derivation, as diagnoses call what they tell about.
const DERIVATION: &str = "derivation";

impl From<Diagnosis> for DocumentDiagnosticsResponse {
    fn from(diagnosis: Diagnosis) -> Self {
        let Diagnosis { shown, touches } = diagnosis;
        let document = shown.document;
        let is_disabled = document.is_disabled();
        let lineage = document.lineage;
        let source_object_id = lineage.source_object_id.or(lineage.root_object_id);
        let reason = match &shown.searchable_at {
            _ if is_disabled => "its object was soft-deleted: the document can be read, and no search finds it",
            Some(_) => "searches see the document as it is now",
            None => "the index has not applied the document's newest change yet; it follows by itself",
        };
        let failed = touches.iter().filter(|touch| touch.status == "failed");
        let failures: Vec<RecentFailure> = failed
            .map(|touch| RecentFailure {
                source: DERIVATION,
                object_id: touch.input_id.clone(),
                status: touch.status.clone(),
                error: touch.error.clone(),
            })
            .collect();
        let entries: Vec<DiagnosticHistoryEntry> = touches
            .into_iter()
            .map(|touch| DiagnosticHistoryEntry {
                source: DERIVATION,
                timestamp: touch.at,
                detail: json!({
                    "derivation_id": touch.derivation_id,
                    "collection_id": touch.collection_id,
                    "input_id": touch.input_id,
                    "status": touch.status,
                    "error": touch.error,
                }),
            })
            .collect();
        let nothing = |is_empty: bool, why: &str| is_empty.then(|| why.to_owned());
        Self {
            document_id: document.document_id,
            collection_id: document.collection_id,
            visibility_reason: VisibilityReason {
                searchable: shown.searchable_at.is_some() && !is_disabled,
                reason: reason.to_owned(),
                source_object_id: source_object_id.clone(),
            },
            source_object_id,
            recent_failures: RecentFailures {
                reason: nothing(failures.is_empty(), "no derivation of the document or its sources has failed"),
                failures,
            },
            diagnostic_history: DiagnosticHistory {
                reason: nothing(entries.is_empty(), "no derivation has read the document or its sources"),
                entries,
            },
        }
    }
}

/// Check fields against a collection's schema
///
/// Says whether a document with the fields of the body would satisfy the collection's `document_schema`, or its output
/// schema where it has none. Nothing is written.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/documents/schema/validate", tag = "CollectionDocuments",
    request_body = Object, responses((status = 200, body = SchemaValidationResponse)))]
async fn validate_document_schema(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Json(fields): Json<Fields>,
) -> Result<Json<SchemaValidationResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let faults = app.validate_fields(&tenant.scope, &collection, fields).await?;
    let errors: Vec<SchemaFault> =
        faults.into_iter().map(|fault| SchemaFault { field: fault.field, message: fault.message }).collect();
    Ok(Json(SchemaValidationResponse { valid: errors.is_empty(), errors }))
}

/// Ancestors of a document
///
/// The documents from which it was made, the first of them first. `root_object_id` names the object above them all.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents/{document_id}/ancestors", tag = "CollectionDocuments",
    responses((status = 200, body = Vec<DocumentResponse>)))]
async fn get_document_ancestors(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
) -> Result<Json<Vec<Fields>>, ApiError> {
    tenant.may(Permission::Read)?;
    let found = app.ancestors(&tenant.scope, Some(&collection), &document, Show::default()).await?;
    Ok(Json(found.into_iter().map(document_json).collect()))
}

/// Descendants of a document
///
/// The documents that were made from it directly, oldest first, at most 100; or those so many levels below it that `depth`
/// says, at most 1,000, the nearest of them.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents/{document_id}/descendants", tag = "CollectionDocuments",
    params(DescendantsParameters), responses((status = 200, body = Vec<DocumentResponse>)))]
async fn get_document_descendants(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
    Query(query): Query<DescendantsParameters>,
) -> Result<Json<Vec<Fields>>, ApiError> {
    tenant.may(Permission::Read)?;
    let below = below(query.depth.as_deref())?;
    let found = app.descendants(&tenant.scope, Some(&collection), &document, below, Show::default()).await?;
    Ok(Json(found.into_iter().map(document_json).collect()))
}

/// Diagnose a document
///
/// Whether searches find it and why, and what happened to the work that read it or its sources.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents/{document_id}/diagnostics", tag = "CollectionDocuments",
    responses((status = 200, body = DocumentDiagnosticsResponse)))]
async fn get_document_diagnostics(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
) -> Result<Json<DocumentDiagnosticsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.diagnose_document(&tenant.scope, &collection, &document).await?.into()))
}

/// Download a document's media
///
/// A URL of the first blob of the source object that the document was made from, or of what was made beside it. The URL
/// reads the media whole; `start_time` and `end_time` say which part of it is the document's.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents/{document_id}/download", tag = "CollectionDocuments",
    responses((status = 200, body = SceneDownloadResponse)))]
async fn download_document_media(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
) -> Result<Json<SceneDownloadResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let show = Show { urls: true, ..Show::default() };
    let shown = app.document(&tenant.scope, Some(&collection), &document, show).await?;
    let urls = shown.urls.unwrap_or_default();
    let mut all = urls.source.into_iter().map(|blob| blob.url).chain(urls.artifacts.into_iter().flatten());
    let download_url = all.next().ok_or_else(|| Error::missing("media of document", document))?;
    // By the names that extractors have for it.
    let seconds = |names: [&str; 3]| {
        names.iter().find_map(|name| shown.document.fields.get(*name)?.as_f64()).unwrap_or(0.0)
    };
    Ok(Json(SceneDownloadResponse {
        download_url,
        cached: true,
        start_time: seconds(["start_time", "start_time_sec", "start_time_s"]),
        end_time: seconds(["end_time", "end_time_sec", "end_time_s"]),
    }))
}
