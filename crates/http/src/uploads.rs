//! Uploads: files that come by a signed URL and become objects once the caller confirms them.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    objects::{ListRowsRequest, mean, pagination, policy},
    openapi::{any_object, maybe_object, time},
    paging::{PaginationResponse, PagingFields},
    tasks::{TaskResponse, task_json},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use strata_engine::{
    buckets::Policy,
    uploads::{ConfirmOptions, Confirmed, NewUpload, Upload, UploadSummary, UploadView},
};
use strata_model::{Error, Permission};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const DEFAULT_PAGE: usize = 20;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_upload))
        .routes(routes!(create_uploads_batch))
        .routes(routes!(confirm_uploads_batch))
        .routes(routes!(list_uploads))
        .routes(routes!(get_upload, delete_upload))
        .routes(routes!(confirm_upload))
}

/// A file that will come.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateUploadRequest {
    #[schema(min_length = 1, max_length = 255)]
    filename: String,
    /// A media type such as `image/png`.
    content_type: String,
    /// What comes must have this size.
    #[schema(minimum = 1)]
    file_size_bytes: Option<u64>,
    /// Seconds that the URL works; 3600 where it is left out.
    #[schema(minimum = 60, maximum = 86_400)]
    presigned_url_expiration: Option<i64>,
    /// The caller's own description of the blob.
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    /// Make an object of the file when it is confirmed; true where it is left out.
    create_object_on_confirm: Option<bool>,
    /// `metadata` of that object.
    #[schema(schema_with = maybe_object)]
    object_metadata: Option<Map<String, Value>>,
    /// The field of the bucket's schema that the file belongs to; the first of its type where it is left out.
    blob_property: Option<String>,
    blob_type: Option<String>,
    /// SHA-256 in hex. What comes must have it; a confirmed upload of the same content is answered instead.
    #[schema(min_length = 64, max_length = 64)]
    file_hash: Option<String>,
    /// Whether `file_hash` may lead to an older upload; true where it is left out.
    skip_duplicates: Option<bool>,
}

impl From<CreateUploadRequest> for NewUpload {
    fn from(new: CreateUploadRequest) -> Self {
        Self {
            filename: new.filename,
            content_type: new.content_type,
            file_size_bytes: new.file_size_bytes,
            expiration_seconds: new.presigned_url_expiration,
            metadata: new.metadata.unwrap_or_default(),
            create_object_on_confirm: new.create_object_on_confirm.unwrap_or(true),
            object_metadata: new.object_metadata,
            blob_property: new.blob_property,
            blob_type: new.blob_type,
            file_hash: new.file_hash,
            skip_duplicates: new.skip_duplicates.unwrap_or(true),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct BatchUploadRequest {
    #[schema(min_items = 1, max_items = 100)]
    uploads: Vec<CreateUploadRequest>,
    /// `metadata` of every upload, under its own.
    #[schema(schema_with = maybe_object)]
    shared_metadata: Option<Map<String, Value>>,
    /// `object_metadata` of every upload, under its own.
    #[schema(schema_with = maybe_object)]
    shared_object_metadata: Option<Map<String, Value>>,
}

type Metadata = Option<Map<String, Value>>;

/// Both maps; a key that both have is the upload's own.
fn joined(shared: &Metadata, own: Metadata) -> Metadata {
    let Some(shared) = shared else { return own };
    let mut all = shared.clone();
    all.extend(own.unwrap_or_default());
    Some(all)
}

impl BatchUploadRequest {
    fn new_uploads(self) -> Vec<NewUpload> {
        let each = self.uploads.into_iter().map(|upload| CreateUploadRequest {
            metadata: joined(&self.shared_metadata, upload.metadata),
            object_metadata: joined(&self.shared_object_metadata, upload.object_metadata),
            ..upload
        });
        each.map(NewUpload::from).collect()
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ConfirmUploadRequest {
    /// What the `PUT` answered; the bytes that came must have it.
    etag: Option<String>,
    #[schema(minimum = 1)]
    file_size_bytes: Option<u64>,
    /// Derive documents right away.
    auto_submit_batch: Option<bool>,
}

impl ConfirmUploadRequest {
    fn options(self, policy: Option<Policy>, with_task: bool) -> ConfirmOptions {
        ConfirmOptions {
            etag: self.etag,
            file_size_bytes: self.file_size_bytes,
            auto_submit_batch: self.auto_submit_batch.unwrap_or(false),
            policy,
            with_task,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct BatchConfirmRequest {
    #[schema(min_items = 1, max_items = 100)]
    confirmations: Vec<Confirmation>,
}

/// One upload of many to confirm.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Confirmation {
    upload_id: String,
    etag: Option<String>,
    #[schema(minimum = 1)]
    file_size_bytes: Option<u64>,
    auto_submit_batch: Option<bool>,
}

impl Confirmation {
    fn options(self, policy: Option<Policy>) -> (String, ConfirmOptions) {
        let (etag, file_size_bytes, auto_submit_batch) = (self.etag, self.file_size_bytes, self.auto_submit_batch);
        let request = ConfirmUploadRequest { etag, file_size_bytes, auto_submit_batch };
        (self.upload_id, request.options(policy, false))
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ConfirmQuery {
    /// `insert`, `update` or `upsert`: what to do by the bucket's unique key. Its default where this is left out.
    policy: Option<String>,
    /// Also keep a task that tells the outcome.
    #[serde(rename = "async")]
    with_task: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ConfirmBatchQuery {
    /// `insert`, `update` or `upsert`: what to do by the bucket's unique key. Its default where this is left out.
    policy: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct GetUploadQuery {
    /// Give the URL that takes the file while it is awaited, or gives it once it is here.
    return_presigned_urls: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct DeleteUploadQuery {
    /// Taken and ignored: bytes that an object has stay, and bytes that nothing refers to always go.
    delete_s3_object: Option<bool>,
}

/// What is known of the file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UploadFile {
    filename: String,
    content_type: String,
    file_size_bytes: Option<u64>,
    presigned_url_expiration: i64,
    s3_key: String,
    #[schema(schema_with = any_object)]
    metadata: Map<String, Value>,
    create_object_on_confirm: bool,
    #[schema(value_type = Option<Object>)]
    object_metadata: Option<Map<String, Value>>,
    blob_property: Option<String>,
    blob_type: Option<String>,
    skip_duplicates: bool,
    /// SHA-256 of the bytes that came.
    etag: Option<String>,
    #[schema(schema_with = time)]
    expires_at: String,
    verified_at: Option<String>,
    completed_at: Option<String>,
}

impl UploadFile {
    fn of(upload: &Upload) -> Result<Self, Error> {
        serde_json::from_value(Value::Object(upload.body.clone())).map_err(Error::internal)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UploadResponse {
    upload_id: String,
    bucket_id: String,
    /// `PENDING`, `COMPLETED` or `CANCELED`.
    status: String,
    presigned_url: Option<String>,
    #[serde(flatten)]
    file: UploadFile,
    /// Announced, or that of the bytes that came.
    file_hash: Option<String>,
    /// An older upload of the same content is the answer; send no bytes.
    is_duplicate: bool,
    duplicate_of_upload_id: Option<String>,
    skipped_unique_key: bool,
    existing_object_id: Option<String>,
    message: Option<String>,
    #[schema(schema_with = time)]
    created_at: String,
    object_id: Option<String>,
    task_id: Option<String>,
}

impl UploadResponse {
    fn of(upload: Upload, presigned_url: Option<String>) -> Result<Self, ApiError> {
        Ok(Self {
            file: UploadFile::of(&upload)?,
            upload_id: upload.upload_id,
            bucket_id: upload.bucket_id,
            status: upload.status,
            presigned_url,
            file_hash: upload.file_hash,
            is_duplicate: false,
            duplicate_of_upload_id: None,
            skipped_unique_key: false,
            existing_object_id: None,
            message: None,
            created_at: upload.created_at,
            object_id: upload.object_id,
            task_id: None,
        })
    }

    fn created(view: UploadView) -> Result<Self, ApiError> {
        let answer = Self::of(view.upload, view.presigned_url)?;
        if !view.is_duplicate {
            return Ok(answer);
        }
        Ok(Self {
            is_duplicate: true,
            duplicate_of_upload_id: Some(answer.upload_id.clone()),
            existing_object_id: answer.object_id.clone(),
            message: Some("the same content was uploaded before; no bytes need to be sent".into()),
            ..answer
        })
    }

    fn read(app: &App, upload: Upload, with_url: bool) -> Result<Self, ApiError> {
        let url = if with_url { app.upload_url(&upload)? } else { None };
        Self::of(upload, url)
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BatchUploadResponse {
    pub uploads: Vec<UploadResponse>,
    pub total: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListUploadsResponse {
    pub results: Vec<UploadResponse>,
    pub pagination: PaginationResponse,
    pub stats: UploadListStats,
}

/// Counts over all uploads of the bucket.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadListStats {
    pub total_uploads: u64,
    pub total_size_bytes: u64,
    #[schema(schema_with = any_object)]
    pub uploads_by_status: BTreeMap<String, u64>,
    pub avg_file_size_bytes: f64,
    pub unique_buckets: u64,
}

impl From<UploadSummary> for UploadListStats {
    fn from(summary: UploadSummary) -> Self {
        Self {
            total_uploads: summary.uploads,
            total_size_bytes: summary.total_size_bytes,
            uploads_by_status: summary.by_status.into_iter().collect(),
            avg_file_size_bytes: mean(summary.total_size_bytes, summary.uploads),
            unique_buckets: u64::from(summary.uploads > 0),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ConfirmUploadResponse {
    pub upload_id: String,
    pub status: String,
    pub etag: Option<String>,
    pub file_size_bytes: Option<u64>,
    pub file_hash: Option<String>,
    pub verified_at: Option<String>,
    pub completed_at: Option<String>,
    /// The object that the file became.
    pub object_id: Option<String>,
    pub task_id: Option<String>,
    /// The batch that derives documents from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    pub message: Option<String>,
}

impl ConfirmUploadResponse {
    fn of(confirmed: Confirmed) -> Result<Self, ApiError> {
        let upload = confirmed.upload;
        let file = UploadFile::of(&upload)?;
        let message = upload.object_id.as_ref().map(|id| format!("the file is object `{id}`"));
        Ok(Self {
            upload_id: upload.upload_id,
            status: upload.status,
            etag: file.etag,
            file_size_bytes: file.file_size_bytes,
            file_hash: upload.file_hash,
            verified_at: file.verified_at,
            completed_at: file.completed_at,
            object_id: upload.object_id,
            task_id: confirmed.task_id,
            batch_id: confirmed.batch_id,
            message,
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BatchConfirmResponse {
    pub task_id: String,
    pub status: String,
    pub confirmations_count: usize,
    /// Its `outputs` tell what came of each confirmation.
    #[schema(value_type = TaskResponse)]
    pub task: Value,
    pub message: String,
}

/// Create an upload
///
/// Answers a `presigned_url` that takes the bytes by `PUT`, without a key, until it expires. Confirm the upload then.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/uploads", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path)), request_body = CreateUploadRequest,
    responses((status = 200, body = UploadResponse)))]
pub async fn create_upload(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Json(body): Json<CreateUploadRequest>,
) -> Result<Json<UploadResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let made = app.create_upload(&tenant.scope, &bucket, body.into()).await?;
    Ok(Json(UploadResponse::created(made)?))
}

/// Create uploads
///
/// Up to 100, or none where one is refused.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/uploads/batch", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path)), request_body = BatchUploadRequest,
    responses((status = 200, body = BatchUploadResponse)))]
pub async fn create_uploads_batch(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Json(body): Json<BatchUploadRequest>,
) -> Result<Json<BatchUploadResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let made = app.create_uploads(&tenant.scope, &bucket, body.new_uploads()).await?;
    let uploads = made.into_iter().map(UploadResponse::created).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(BatchUploadResponse { total: uploads.len(), uploads }))
}

/// Find uploads
///
/// Uploads of the bucket that fit, oldest first unless sorted otherwise.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/uploads/list", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path), PagingFields), request_body = ListRowsRequest,
    responses((status = 200, body = ListUploadsResponse)))]
pub async fn list_uploads(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListRowsRequest>,
) -> Result<Json<ListUploadsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let (paging, listing) = body.resolve(&query, DEFAULT_PAGE)?;
    let (found, summary) = app.list_uploads(&tenant.scope, &bucket, listing).await?;
    let with_urls = body.return_presigned_urls.unwrap_or(false);
    let each = found.rows.into_iter().map(|upload| UploadResponse::read(&app, upload, with_urls));
    Ok(Json(ListUploadsResponse {
        results: each.collect::<Result<_, _>>()?,
        pagination: pagination(&paging, found.next_cursor, found.total),
        stats: summary.into(),
    }))
}

/// Get an upload
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}/uploads/{upload_id}", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path), ("upload_id" = String, Path), GetUploadQuery),
    responses((status = 200, body = UploadResponse)))]
pub async fn get_upload(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, upload)): Path<(String, String)>,
    Query(query): Query<GetUploadQuery>,
) -> Result<Json<UploadResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let found = app.upload(&tenant.scope, &bucket, &upload).await?;
    Ok(Json(UploadResponse::read(&app, found, query.return_presigned_urls.unwrap_or(false))?))
}

/// Delete an upload
///
/// Removes the upload, and its bytes unless an object has them.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_identifier}/uploads/{upload_id}", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path), ("upload_id" = String, Path), DeleteUploadQuery), responses((status = 204)))]
pub async fn delete_upload(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, upload)): Path<(String, String)>,
    _query: Query<DeleteUploadQuery>,
) -> Result<StatusCode, ApiError> {
    tenant.may(Permission::Delete)?;
    app.delete_upload(&tenant.scope, &bucket, &upload).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Confirm an upload
///
/// Checks that the bytes came and makes the object of them. Confirming twice answers the same.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/uploads/{upload_id}/confirm", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path), ("upload_id" = String, Path), ConfirmQuery),
    request_body = ConfirmUploadRequest, responses((status = 200, body = ConfirmUploadResponse)))]
pub async fn confirm_upload(
    State(app): State<App>,
    tenant: Tenant,
    Path((bucket, upload)): Path<(String, String)>,
    Query(query): Query<ConfirmQuery>,
    Json(body): Json<ConfirmUploadRequest>,
) -> Result<Json<ConfirmUploadResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let options = body.options(policy(query.policy.as_deref())?, query.with_task.unwrap_or(false));
    let confirmed = app.confirm_upload(&tenant.scope, &bucket, &upload, options).await?;
    Ok(Json(ConfirmUploadResponse::of(confirmed)?))
}

/// Confirm uploads
///
/// Up to 100; each succeeds or fails by itself, and the task tells what came of it.
#[utoipa::path(post, path = "/v1/buckets/{bucket_identifier}/uploads/confirm/batch", tag = "BucketUploads",
    params(("bucket_identifier" = String, Path), ConfirmBatchQuery), request_body = BatchConfirmRequest,
    responses((status = 200, body = BatchConfirmResponse)))]
pub async fn confirm_uploads_batch(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<ConfirmBatchQuery>,
    Json(body): Json<BatchConfirmRequest>,
) -> Result<Json<BatchConfirmResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let policy = policy(query.policy.as_deref())?;
    let confirmations = body.confirmations.into_iter().map(|one| one.options(policy)).collect();
    let done = app.confirm_uploads(&tenant.scope, &bucket, confirmations).await?;
    let mut task = task_json(&done.task);
    for key in ["inputs", "outputs"] {
        task[key] = done.task.body.get(key).cloned().unwrap_or_default();
    }
    Ok(Json(BatchConfirmResponse {
        task_id: done.task.task_id.clone(),
        status: done.task.status.clone(),
        confirmations_count: done.confirmations,
        message: format!("{} uploads were confirmed or refused", done.confirmations),
        task,
    }))
}
