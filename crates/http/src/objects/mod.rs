//! Objects: the raw things in buckets, with their fields and their blobs.

pub(crate) mod aggregate;
pub(crate) mod answer;
mod request;
mod rows;

pub(crate) use rows::{ListRowsRequest, mean, pagination};

use crate::{
    App,
    error::{ApiError, kind_of},
    extract::{Json, Path, Query, Tenant},
    openapi::any_object,
    paging::{DEFAULT_PAGE, PaginationResponse, PagingFields},
};
use aggregate::{ObjectAggregationRequest, ObjectAggregationResponse};
use answer::{ObjectResponse, created};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use request::{CreateObjectRequest, UpdateObjectRequest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use strata_engine::{
    buckets::{Policy, Receipt},
    objects::{CreateOptions, ObjectSummary},
};
use strata_model::{Error, Permission, Result};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_objects_get, create_object))
        .routes(routes!(list_objects))
        .routes(routes!(create_objects_batch))
        .routes(routes!(aggregate_objects))
        .routes(routes!(bulk_soft_delete_objects))
        .routes(routes!(get_object, update_object, patch_object, delete_object))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct CreateObjectQuery {
    /// `insert`, `update` or `upsert`: what to do by the bucket's unique key. Its default where this is left out.
    policy: Option<String>,
    /// Derive documents right away.
    auto_process: Option<bool>,
}

impl CreateObjectQuery {
    fn options(&self) -> Result<CreateOptions> {
        let policy = policy(self.policy.as_deref())?;
        Ok(CreateOptions { policy, auto_process: self.auto_process.unwrap_or(false) })
    }
}

/// Reads the query parameter `policy`.
pub(crate) fn policy(text: Option<&str>) -> Result<Option<Policy>> {
    text.map(|text| Policy::parse(text, "policy")).transpose()
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct GetObjectQuery {
    /// Give a URL to the content of every blob.
    return_presigned_urls: Option<bool>,
    /// Count the documents that descend from the object.
    include_document_count: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateObjectsBatchRequest {
    #[schema(min_items = 1, max_items = 100)]
    objects: Vec<CreateObjectRequest>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CreateObjectsBatchResponse {
    /// Objects with their `object_index` in the request, and `replayed` where an older one stands for what was sent.
    #[schema(value_type = Vec<ObjectResponse>)]
    pub succeeded: Vec<Map<String, Value>>,
    pub failed: Vec<FailedObjectError>,
    pub total_requested: usize,
    pub succeeded_count: usize,
    pub failed_count: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct FailedObjectError {
    pub object_index: usize,
    pub error: String,
    pub error_type: String,
}

impl FailedObjectError {
    fn of(object_index: usize, error: Error) -> Self {
        let message = match &error {
            // The log names it.
            Error::Internal(_) => "something went wrong on our side".to_owned(),
            shown => shown.to_string(),
        };
        let status = ApiError(error).into_response().status();
        Self { object_index, error: message, error_type: kind_of(status).to_owned() }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListObjectsResponse {
    #[schema(value_type = Vec<ObjectResponse>)]
    pub results: Vec<Map<String, Value>>,
    pub pagination: PaginationResponse,
    pub stats: ObjectListStats,
}

/// Counts over all objects of the bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct ObjectListStats {
    pub total_objects: u64,
    pub total_blobs: u64,
    pub avg_blobs_per_object: f64,
    #[schema(schema_with = any_object)]
    pub objects_by_status: BTreeMap<String, u64>,
}

impl From<ObjectSummary> for ObjectListStats {
    fn from(summary: ObjectSummary) -> Self {
        Self {
            total_objects: summary.objects,
            total_blobs: summary.blobs,
            avg_blobs_per_object: mean(summary.blobs, summary.objects),
            objects_by_status: summary.by_status.into_iter().collect(),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct BulkSoftDeleteRequest {
    #[schema(min_items = 1, max_items = 5000)]
    object_ids: Vec<String>,
    #[schema(max_length = 500)]
    reason: String,
    /// The state to mark them with; `disabled` where it is left out.
    lifecycle_state: Option<String>,
    /// Who asks; `bulk_purge` where it is left out.
    source: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BulkSoftDeleteResponse {
    pub soft_deleted: u64,
    pub requested: u64,
    /// Collections that hold documents of these objects.
    pub collections: u64,
}

async fn page(
    app: &App,
    tenant: &Tenant,
    bucket: &str,
    query: &PagingFields,
    body: &ListRowsRequest,
) -> Result<Json<ListObjectsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (paging, listing) = body.resolve(query, DEFAULT_PAGE)?;
    let found = app.list_objects(&tenant.scope, bucket, listing).await?;
    let summary = app.object_summary(&tenant.scope, bucket).await?;
    let with_urls = body.return_presigned_urls.unwrap_or(false);
    let each = found.rows.into_iter().map(|o| ObjectResponse::of(app, o, with_urls)?.map(body.select.as_deref()));
    Ok(Json(ListObjectsResponse {
        results: each.collect::<Result<_, _>>()?,
        pagination: pagination(&paging, found.next_cursor, found.total),
        stats: summary.into(),
    }))
}

/// List objects
///
/// Objects of the bucket, oldest first. Soft-deleted ones are left out.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/objects", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), PagingFields), responses((status = 200, body = ListObjectsResponse)))]
pub async fn list_objects_get(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(paging): Query<PagingFields>,
) -> Result<Json<ListObjectsResponse>, ApiError> {
    page(&app, &tenant, &bucket, &paging, &ListRowsRequest::default()).await
}

/// Find objects
///
/// Objects of the bucket that fit, oldest first unless sorted otherwise. Soft-deleted ones are left out, unless a filter
/// names `lifecycle_state`.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/objects/list", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), PagingFields), request_body = ListRowsRequest,
    responses((status = 200, body = ListObjectsResponse)))]
pub async fn list_objects(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(paging): Query<PagingFields>,
    Json(body): Json<ListRowsRequest>,
) -> Result<Json<ListObjectsResponse>, ApiError> {
    page(&app, &tenant, &bucket, &paging, &body).await
}

/// Create an object
///
/// Stores the object and the bytes of its blobs. Keys beside those below are its fields and must fit the bucket's schema;
/// keys that answers set themselves, such as `object_id` and `status`, are passed over. With `auto_process` the answer
/// names the `batch_id` that derives documents from it.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/objects", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), CreateObjectQuery), request_body = CreateObjectRequest,
    responses((status = 200, body = ObjectResponse)))]
pub async fn create_object(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<CreateObjectQuery>,
    Json(body): Json<CreateObjectRequest>,
) -> Result<Json<Map<String, Value>>, ApiError> {
    tenant.may(Permission::Write)?;
    let made = app.create_object(&tenant.scope, &bucket, body.new_object("")?, query.options()?).await?;
    Ok(Json(created(&app, made)?))
}

/// Create objects
///
/// Up to 100; each succeeds or fails by itself. Bodies of another shape are refused as a whole.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/objects/batch", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), CreateObjectQuery), request_body = CreateObjectsBatchRequest,
    responses((status = 200, body = CreateObjectsBatchResponse)))]
pub async fn create_objects_batch(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<CreateObjectQuery>,
    Json(body): Json<CreateObjectsBatchRequest>,
) -> Result<Json<CreateObjectsBatchResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let each = body.objects.into_iter().enumerate().map(|(i, object)| object.new_object(&format!("objects.{i}.")));
    let new = each.collect::<Result<Vec<_>>>()?;
    let outcomes = app.create_objects(&tenant.scope, &bucket, new, query.options()?).await?;
    let total_requested = outcomes.len();
    let (mut succeeded, mut failed) = (Vec::new(), Vec::new());
    for (object_index, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Ok(made) => {
                let mut object = created(&app, made)?;
                object.insert("object_index".into(), object_index.into());
                succeeded.push(object);
            }
            Err(error) => failed.push(FailedObjectError::of(object_index, error)),
        }
    }
    let (succeeded_count, failed_count) = (succeeded.len(), failed.len());
    Ok(Json(CreateObjectsBatchResponse { succeeded, failed, total_requested, succeeded_count, failed_count }))
}

/// Get an object
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/objects/{object_identifier}", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), ("object_identifier" = String, Path), GetObjectQuery),
    responses((status = 200, body = ObjectResponse)))]
pub async fn get_object(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, object)): Path<(String, String)>,
    Query(query): Query<GetObjectQuery>,
) -> Result<Json<ObjectResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let found = app.object(&tenant.scope, &bucket, &object).await?;
    let mut answer = ObjectResponse::of(&app, found, query.return_presigned_urls.unwrap_or(false))?;
    if query.include_document_count == Some(true) {
        answer.document_count = Some(app.object_document_count(&tenant.scope, &object).await?);
    }
    Ok(Json(answer))
}

/// Replace an object
///
/// Its fields become those that are sent. Its blobs are replaced where `blobs` is sent, and stay otherwise. Changed content
/// is to be processed again.
#[utoipa::path(put, path = "/v1/buckets/{bucket_identifier}/objects/{object_identifier}", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), ("object_identifier" = String, Path)), request_body = UpdateObjectRequest,
    responses((status = 200, body = ObjectResponse)))]
pub async fn update_object(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, object)): Path<(String, String)>,
    Json(body): Json<UpdateObjectRequest>,
) -> Result<Json<ObjectResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let changed = app.replace_object(&tenant.scope, &bucket, &object, body.change()?).await?;
    Ok(Json(ObjectResponse::of(&app, changed, false)?))
}

/// Patch an object
///
/// Fields that are sent are merged into those that are there, objects deeply; null removes a field. Blobs that are sent
/// replace those of their property.
#[utoipa::path(patch, path = "/v1/buckets/{bucket_identifier}/objects/{object_identifier}", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), ("object_identifier" = String, Path)), request_body = UpdateObjectRequest,
    responses((status = 200, body = ObjectResponse)))]
pub async fn patch_object(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, object)): Path<(String, String)>,
    Json(body): Json<UpdateObjectRequest>,
) -> Result<Json<ObjectResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let changed = app.patch_object(&tenant.scope, &bucket, &object, body.change()?).await?;
    Ok(Json(ObjectResponse::of(&app, changed, false)?))
}

/// Delete an object
///
/// Removes the object, every document that descends from it, and the bytes that nothing else refers to. Answers nothing,
/// or with `receipt=true` what was removed.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_identifier}/objects/{object_identifier}", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path), ("object_identifier" = String, Path), ReceiptParameters),
    responses((status = 204), (status = 200, body = ObjectReceipt)))]
pub async fn delete_object(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, object)): Path<(String, String)>,
    Query(query): Query<ReceiptParameters>,
) -> Result<Response, ApiError> {
    tenant.may(Permission::Delete)?;
    let receipt = app.delete_object(&tenant.scope, &bucket, &object).await?;
    Ok(match query.receipt {
        Some(true) => Json(ObjectReceipt::from(receipt)).into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    })
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ReceiptParameters {
    /// Whether to answer what was removed.
    receipt: Option<bool>,
}

/// What went with an object.
#[derive(Debug, Serialize, ToSchema)]
pub struct ObjectReceipt {
    pub objects: u64,
    /// Documents by collection id.
    pub documents: BTreeMap<String, u64>,
    pub derivations: u64,
    /// Contents that nothing refers to any more, and their bytes.
    pub blobs: u64,
    pub bytes: u64,
}

impl From<Receipt> for ObjectReceipt {
    fn from(receipt: Receipt) -> Self {
        let Receipt { objects, documents, derivations, blobs, bytes } = receipt;
        Self { objects, documents, derivations, blobs, bytes }
    }
}

/// Soft-delete objects
///
/// Marks objects, and the documents that descend from them, with a state and keeps them. Unknown ids are passed over.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/objects/bulk-soft-delete", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path)), request_body = BulkSoftDeleteRequest,
    responses((status = 200, body = BulkSoftDeleteResponse)))]
pub async fn bulk_soft_delete_objects(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Json(body): Json<BulkSoftDeleteRequest>,
) -> Result<Json<BulkSoftDeleteResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let state = body.lifecycle_state.unwrap_or_else(|| "disabled".into());
    let source = body.source.unwrap_or_else(|| "bulk_purge".into());
    let marked = app.soft_delete_objects(&tenant.scope, &bucket, body.object_ids, state, body.reason, source).await?;
    Ok(Json(BulkSoftDeleteResponse {
        soft_deleted: marked.soft_deleted,
        requested: marked.requested,
        collections: marked.collections,
    }))
}

/// Aggregate objects
///
/// Groups the objects of a bucket by fields and computes over every group.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/objects/aggregate", tag = "BucketObjects",
    params(("bucket_identifier" = String, Path)), request_body = ObjectAggregationRequest,
    responses((status = 200, body = ObjectAggregationResponse)))]
pub async fn aggregate_objects(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Json(body): Json<ObjectAggregationRequest>,
) -> Result<Json<ObjectAggregationResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (filter, aggregation) = body.read()?;
    let (groups, total) = app.aggregate_objects(&tenant.scope, &bucket, filter, aggregation).await?;
    let results = groups.into_iter().map(Into::into).collect();
    Ok(Json(ObjectAggregationResponse { results, total_groups: total as u64 }))
}
