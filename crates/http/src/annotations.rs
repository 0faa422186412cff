//! Annotations: what people decided about documents, in all its versions.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{any_object, maybe_object, maybe_time, time},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use strata_engine::{
    annotations::{Annotation, AnnotationChanges, ChangeOutcome, Judgment, NewAnnotation, Revision, Selection, Versioned},
    times,
};
use strata_model::{Error, Permission, Result};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Most changes of one kind in a request.
const MAX_CHANGES: usize = 1_000;
const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 500;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_annotation))
        .routes(routes!(bulk_annotations))
        .routes(routes!(list_annotations))
        .routes(routes!(annotation_stats))
        .routes(routes!(get_annotation, patch_annotation, delete_annotation))
        .routes(routes!(get_annotation_versions))
        .routes(routes!(get_annotation_at_version))
}

#[derive(Debug, Deserialize, ToSchema)]
struct CreateAnnotationRequest {
    document_id: String,
    /// Id or name of the document's collection.
    #[serde(default)]
    collection_id: Option<String>,
    /// The decision, such as `approved`.
    #[schema(min_length = 1, max_length = 100)]
    label: String,
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    confidence: Option<f64>,
    /// Why it was decided so.
    #[serde(default)]
    #[schema(max_length = 5000)]
    reasoning: Option<String>,
    /// What the use case keeps with it.
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    payload: Option<Map<String, Value>>,
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    /// Id or name of the retriever that found the document.
    #[serde(default)]
    retriever_id: Option<String>,
    #[serde(default)]
    execution_id: Option<String>,
    /// The stage whose result was judged.
    #[serde(default)]
    stage_name: Option<String>,
}

impl From<CreateAnnotationRequest> for NewAnnotation {
    fn from(body: CreateAnnotationRequest) -> Self {
        Self {
            document_id: body.document_id,
            collection_id: body.collection_id,
            judgment: Judgment {
                label: Some(body.label),
                confidence: body.confidence,
                reasoning: body.reasoning,
                payload: body.payload,
                metadata: body.metadata,
            },
            retriever_id: body.retriever_id,
            execution_id: body.execution_id,
            stage_name: body.stage_name,
        }
    }
}

/// What to change; what is left out or null stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct PatchAnnotationRequest {
    #[schema(min_length = 1, max_length = 100)]
    label: Option<String>,
    #[schema(minimum = 0, maximum = 1)]
    confidence: Option<f64>,
    #[schema(max_length = 5000)]
    reasoning: Option<String>,
    #[schema(schema_with = maybe_object)]
    payload: Option<Map<String, Value>>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
}

impl From<PatchAnnotationRequest> for Judgment {
    fn from(body: PatchAnnotationRequest) -> Self {
        Self {
            label: body.label,
            confidence: body.confidence,
            reasoning: body.reasoning,
            payload: body.payload,
            metadata: body.metadata,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
struct BulkAnnotationUpdate {
    annotation_id: String,
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    label: Option<String>,
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    confidence: Option<f64>,
    #[serde(default)]
    #[schema(max_length = 5000)]
    reasoning: Option<String>,
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    payload: Option<Map<String, Value>>,
}

/// Changes, each for itself; at most 1,000 of each kind.
#[derive(Debug, Deserialize, ToSchema)]
struct BulkAnnotationsRequest {
    #[serde(default)]
    create: Option<Vec<CreateAnnotationRequest>>,
    #[serde(default)]
    update: Option<Vec<BulkAnnotationUpdate>>,
    /// Ids of annotations.
    #[serde(default)]
    delete: Option<Vec<String>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BulkAnnotationResult {
    annotation_id: Option<String>,
    /// `create`, `update` or `delete`.
    operation: String,
    success: bool,
    /// Why it failed.
    error: Option<String>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct BulkAnnotationsResponse {
    created_count: i64,
    updated_count: i64,
    deleted_count: i64,
    failed_count: i64,
    /// In the order create, update, delete.
    results: Vec<BulkAnnotationResult>,
}

/// A version that an edit replaced.
#[derive(Debug, Serialize, ToSchema)]
struct AnnotationRevision {
    /// The version that it keeps.
    version: i64,
    /// What the fields that the edit changed held before it.
    #[schema(schema_with = any_object)]
    prior: Map<String, Value>,
    #[schema(schema_with = time)]
    edited_at: String,
    edited_by: String,
    edited_by_type: String,
}

impl From<Revision> for AnnotationRevision {
    fn from(revision: Revision) -> Self {
        Self {
            version: revision.version,
            prior: revision.prior,
            edited_at: revision.edited_at,
            edited_by: revision.edited_by,
            edited_by_type: revision.edited_by_type,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct AnnotationResponse {
    annotation_id: String,
    document_id: String,
    collection_id: Option<String>,
    namespace_id: String,
    label: String,
    confidence: Option<f64>,
    reasoning: Option<String>,
    #[schema(schema_with = maybe_object)]
    payload: Option<Value>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Value>,
    retriever_id: Option<String>,
    execution_id: Option<String>,
    stage_name: Option<String>,
    /// Who made it.
    actor_id: String,
    actor_type: String,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    updated_at: String,
    /// From 1, one more with every edit.
    version: i64,
    /// The versions before this one, oldest first; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    revisions: Option<Vec<AnnotationRevision>>,
}

impl AnnotationResponse {
    fn new(tenant: &Tenant, annotation: Annotation) -> Self {
        let mut fields = annotation.fields;
        let mut text = |key: &str| fields.remove(key).and_then(|value| value.as_str().map(str::to_owned));
        Self {
            reasoning: text("reasoning"),
            execution_id: text("execution_id"),
            stage_name: text("stage_name"),
            actor_type: text("actor_type").unwrap_or_else(|| "system".to_owned()),
            confidence: fields.remove("confidence").and_then(|value| value.as_f64()),
            payload: fields.remove("payload"),
            metadata: fields.remove("metadata"),
            annotation_id: annotation.annotation_id,
            document_id: annotation.document_id,
            collection_id: annotation.collection_id,
            namespace_id: tenant.scope.namespace_id.clone(),
            label: annotation.label,
            retriever_id: annotation.retriever_id,
            actor_id: annotation.actor_id,
            created_at: annotation.created_at,
            updated_at: annotation.updated_at,
            version: annotation.version,
            revisions: None,
        }
    }

    fn whole(tenant: &Tenant, versioned: Versioned) -> Self {
        let revisions = versioned.revisions.into_iter().map(AnnotationRevision::from).collect();
        Self { revisions: Some(revisions), ..Self::new(tenant, versioned.annotation) }
    }
}

/// Which annotations.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct ListAnnotationsRequest {
    document_id: Option<String>,
    collection_id: Option<String>,
    label: Option<String>,
    actor_id: Option<String>,
    retriever_id: Option<String>,
    /// As they stood at this time: RFC 3339.
    #[schema(schema_with = maybe_time)]
    as_of: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ListAnnotationsQuery {
    /// Annotations to pass over.
    #[param(minimum = 0)]
    skip: Option<i64>,
    /// Annotations of the page.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListAnnotationsResponse {
    /// Newest first.
    results: Vec<AnnotationResponse>,
    /// How many there are on all pages.
    total_count: i64,
}

#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct AnnotationStatsQuery {
    document_id: Option<String>,
    collection_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AnnotationStatsResponse {
    total: i64,
    by_label: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AnnotationVersionDescriptor {
    version: i64,
    /// Whether it is what holds now.
    current: bool,
    /// When the edit that made it happened; null for the first version.
    #[schema(schema_with = maybe_time)]
    edited_at: Option<String>,
    edited_by: Option<String>,
    edited_by_type: Option<String>,
    /// What that edit changed.
    changed_fields: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AnnotationVersionsResponse {
    annotation_id: String,
    current_version: i64,
    /// Oldest first.
    versions: Vec<AnnotationVersionDescriptor>,
}

/// Create an annotation
///
/// Keeps a decision about a document. Who made it is taken from the key.
#[utoipa::path(post, path = "/v1/annotations", tag = "Annotations", responses((status = 200, body = AnnotationResponse)))]
async fn create_annotation(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<CreateAnnotationRequest>,
) -> Result<Json<AnnotationResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let made = app.create_annotation(&tenant.scope, &tenant.principal, body.into()).await?;
    Ok(Json(AnnotationResponse::whole(&tenant, Versioned { annotation: made, revisions: Vec::new() })))
}

/// Change many annotations
///
/// Creates, updates and deletes in one request. A change that fails is told in `results` and keeps no other out.
#[utoipa::path(post, path = "/v1/annotations/bulk", tag = "Annotations", responses((status = 200, body = BulkAnnotationsResponse)))]
async fn bulk_annotations(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<BulkAnnotationsRequest>,
) -> Result<Json<BulkAnnotationsResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let create = body.create.unwrap_or_default();
    let update = body.update.unwrap_or_default();
    let delete = body.delete.unwrap_or_default();
    for (field, count) in [("create", create.len()), ("update", update.len()), ("delete", delete.len())] {
        if count > MAX_CHANGES {
            return Err(Error::invalid(field, format!("must hold at most {MAX_CHANGES}, not {count}")).into());
        }
    }
    if !delete.is_empty() {
        tenant.may(Permission::Delete)?;
    }
    let edited = |update: BulkAnnotationUpdate| {
        let BulkAnnotationUpdate { annotation_id, label, confidence, reasoning, payload } = update;
        (annotation_id, Judgment { label, confidence, reasoning, payload, metadata: None })
    };
    let changes = AnnotationChanges {
        create: create.into_iter().map(NewAnnotation::from).collect(),
        update: update.into_iter().map(edited).collect(),
        delete,
    };
    let mut answer = BulkAnnotationsResponse::default();
    for outcome in app.change_annotations(&tenant.scope, &tenant.principal, changes).await? {
        let ChangeOutcome { operation, annotation_id, error } = outcome;
        let count = match (operation, &error) {
            (_, Some(_)) => &mut answer.failed_count,
            ("create", None) => &mut answer.created_count,
            ("update", None) => &mut answer.updated_count,
            (_, None) => &mut answer.deleted_count,
        };
        *count += 1;
        let (success, error) = (error.is_none(), error.map(|error| error.to_string()));
        answer.results.push(BulkAnnotationResult { annotation_id, operation: operation.to_owned(), success, error });
    }
    Ok(Json(answer))
}

/// List annotations
///
/// Newest first. With `as_of` they are shown as they stood at that time; those that were deleted since are gone.
#[utoipa::path(post, path = "/v1/annotations/list", tag = "Annotations", params(ListAnnotationsQuery),
    responses((status = 200, body = ListAnnotationsResponse)))]
async fn list_annotations(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<ListAnnotationsQuery>,
    Json(body): Json<ListAnnotationsRequest>,
) -> Result<Json<ListAnnotationsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (limit, skip) = (query.limit.unwrap_or(DEFAULT_LIMIT), query.skip.unwrap_or(0));
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_LIMIT}, not {limit}")).into());
    }
    let Ok(skip) = usize::try_from(skip) else {
        return Err(Error::invalid("skip", "must be 0 or more").into());
    };
    let selection = Selection {
        document_id: body.document_id,
        collection_id: body.collection_id,
        label: body.label,
        actor_id: body.actor_id,
        retriever_id: body.retriever_id,
        as_of: body.as_of.map(|text| times::spelled(&text, "as_of")).transpose()?,
    };
    let (found, total_count) = app.annotations(&tenant.scope, selection, (limit as usize, skip)).await?;
    let results = found.into_iter().map(|annotation| AnnotationResponse::new(&tenant, annotation)).collect();
    Ok(Json(ListAnnotationsResponse { results, total_count }))
}

/// Count annotations
///
/// How many there are of each label, of a document or a collection where one is named.
#[utoipa::path(get, path = "/v1/annotations/stats", tag = "Annotations", params(AnnotationStatsQuery),
    responses((status = 200, body = AnnotationStatsResponse)))]
async fn annotation_stats(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<AnnotationStatsQuery>,
) -> Result<Json<AnnotationStatsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let AnnotationStatsQuery { document_id, collection_id } = query;
    let selection = Selection { document_id, collection_id, ..Selection::default() };
    let by_label = app.annotation_labels(&tenant.scope, selection).await?;
    Ok(Json(AnnotationStatsResponse { total: by_label.values().sum(), by_label }))
}

/// Get an annotation
#[utoipa::path(get, path = "/v1/annotations/{annotation_id}", tag = "Annotations", params(("annotation_id" = String, Path)),
    responses((status = 200, body = AnnotationResponse)))]
async fn get_annotation(
    State(app): State<App>,
    tenant: Tenant,
    Path(annotation): Path<String>,
) -> Result<Json<AnnotationResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let found = app.annotation(&tenant.scope, &annotation).await?;
    Ok(Json(AnnotationResponse::whole(&tenant, found)))
}

/// Edit an annotation
///
/// Every edit that changes something is a new version; the one before stays readable.
#[utoipa::path(patch, path = "/v1/annotations/{annotation_id}", tag = "Annotations", params(("annotation_id" = String, Path)),
    responses((status = 200, body = AnnotationResponse)))]
async fn patch_annotation(
    State(app): State<App>,
    tenant: Tenant,
    Path(annotation): Path<String>,
    Json(body): Json<PatchAnnotationRequest>,
) -> Result<Json<AnnotationResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let edited = app.edit_annotation(&tenant.scope, &tenant.principal, &annotation, body.into()).await?;
    Ok(Json(AnnotationResponse::whole(&tenant, edited)))
}

/// Delete an annotation
///
/// With all its versions.
#[utoipa::path(delete, path = "/v1/annotations/{annotation_id}", tag = "Annotations", params(("annotation_id" = String, Path)),
    responses((status = 200, body = Object)))]
async fn delete_annotation(
    State(app): State<App>,
    tenant: Tenant,
    Path(annotation): Path<String>,
) -> Result<Json<Value>, ApiError> {
    tenant.may(Permission::Delete)?;
    app.delete_annotation(&tenant.scope, &annotation).await?;
    let message = format!("annotation `{annotation}` is deleted");
    Ok(Json(json!({ "success": true, "message": message, "annotation_id": annotation })))
}

/// List the versions of an annotation
///
/// Who made each, when, and what it changed.
#[utoipa::path(get, path = "/v1/annotations/{annotation_id}/versions", tag = "Annotations",
    params(("annotation_id" = String, Path)), responses((status = 200, body = AnnotationVersionsResponse)))]
async fn get_annotation_versions(
    State(app): State<App>,
    tenant: Tenant,
    Path(annotation): Path<String>,
) -> Result<Json<AnnotationVersionsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let Versioned { annotation, revisions } = app.annotation(&tenant.scope, &annotation).await?;
    let first = AnnotationVersionDescriptor {
        version: 1,
        current: annotation.version == 1,
        edited_at: None,
        edited_by: None,
        edited_by_type: None,
        changed_fields: Vec::new(),
    };
    // The edit that replaced a version made the next one.
    let later = revisions.into_iter().map(|replaced| AnnotationVersionDescriptor {
        version: replaced.version + 1,
        current: replaced.version + 1 == annotation.version,
        edited_at: Some(replaced.edited_at),
        edited_by: Some(replaced.edited_by),
        edited_by_type: Some(replaced.edited_by_type),
        changed_fields: replaced.prior.keys().cloned().collect(),
    });
    Ok(Json(AnnotationVersionsResponse {
        versions: std::iter::once(first).chain(later).collect(),
        annotation_id: annotation.annotation_id,
        current_version: annotation.version,
    }))
}

/// Get a version of an annotation
///
/// What the annotation said then, whatever edits followed.
#[utoipa::path(get, path = "/v1/annotations/{annotation_id}/versions/{version}", tag = "Annotations",
    params(("annotation_id" = String, Path), ("version" = i64, Path, minimum = 1)),
    responses((status = 200, body = AnnotationResponse)))]
async fn get_annotation_at_version(
    State(app): State<App>,
    tenant: Tenant,
    Path((annotation, version)): Path<(String, i64)>,
) -> Result<Json<AnnotationResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let found = app.annotation_at(&tenant.scope, &annotation, version).await?;
    Ok(Json(AnnotationResponse::whole(&tenant, found)))
}
