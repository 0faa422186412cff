//! Buckets: where objects live, the schema that they must fit, and the key that makes them unique.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    objects::mean,
    openapi::{any_object, maybe_object, time},
    paging::{ListBody, PaginationResponse, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::buckets::{BucketSpec, BucketSums, BucketView, Receipt};
use strata_model::{Error, Permission};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_buckets_get, create_bucket)).routes(routes!(list_buckets)).routes(routes!(
        get_bucket,
        update_bucket,
        patch_bucket,
        delete_bucket
    ))
}

/// The fields whose values together name one object of the bucket.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UniqueKeyConfig {
    #[schema(min_items = 1)]
    fields: Vec<String>,
    /// `insert`, `update` or `upsert`: what a write does that names no policy.
    default_policy: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct BucketCreateRequest {
    /// Unique in the namespace.
    bucket_name: String,
    description: Option<String>,
    /// `{"properties": {name: {"type": …, "required": …, "default": …, "enum": …}}}`.
    #[schema(schema_with = any_object)]
    bucket_schema: Map<String, Value>,
    unique_key: Option<UniqueKeyConfig>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    /// `standard`, `nearline`, `coldline` or `archive`. Kept; all content of this server is equally near.
    storage_class: Option<String>,
    /// Not supported: bytes are kept by this server.
    #[schema(schema_with = maybe_object)]
    destination: Option<Map<String, Value>>,
    /// Not supported.
    #[schema(schema_with = maybe_object)]
    ingest_filter: Option<Map<String, Value>>,
    /// Not supported.
    #[schema(schema_with = maybe_object)]
    source_adapter: Option<Map<String, Value>>,
}

/// What of a bucket changes; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
pub struct BucketUpdateRequest {
    bucket_name: Option<String>,
    description: Option<String>,
    #[schema(schema_with = maybe_object)]
    bucket_schema: Option<Map<String, Value>>,
    unique_key: Option<UniqueKeyConfig>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    /// `standard`, `nearline`, `coldline` or `archive`.
    storage_class: Option<String>,
    /// Not supported: bytes are kept by this server.
    #[schema(schema_with = maybe_object)]
    destination: Option<Map<String, Value>>,
    /// Not supported.
    #[schema(schema_with = maybe_object)]
    ingest_filter: Option<Map<String, Value>>,
    /// Not supported.
    #[schema(schema_with = maybe_object)]
    source_adapter: Option<Map<String, Value>>,
}

impl From<BucketCreateRequest> for BucketUpdateRequest {
    fn from(new: BucketCreateRequest) -> Self {
        Self {
            bucket_name: Some(new.bucket_name),
            description: new.description,
            bucket_schema: Some(new.bucket_schema),
            unique_key: new.unique_key,
            metadata: new.metadata,
            storage_class: new.storage_class,
            destination: new.destination,
            ingest_filter: new.ingest_filter,
            source_adapter: new.source_adapter,
        }
    }
}

impl BucketUpdateRequest {
    fn spec(self) -> Result<BucketSpec, ApiError> {
        let is_sent = [
            ("destination", self.destination.is_some()),
            ("ingest_filter", self.ingest_filter.is_some()),
            ("source_adapter", self.source_adapter.is_some()),
        ];
        Ok(BucketSpec {
            name: self.bucket_name,
            description: self.description,
            schema: self.bucket_schema.map(Value::Object),
            unique_key: self.unique_key.map(serde_json::to_value).transpose().map_err(Error::internal)?,
            metadata: self.metadata,
            storage_class: self.storage_class,
            unsupported: is_sent.into_iter().filter(|(_, sent)| *sent).map(|(name, _)| name).collect(),
        })
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct BucketListQuery {
    /// Text that id, name, description or metadata contain.
    search: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct BucketUpdateQuery {
    /// Take a schema that objects of the bucket do not fit.
    force_schema_break: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct BucketDeleteQuery {
    /// Delete it although its objects are being processed.
    force_foreclose: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BucketResponse {
    pub bucket_id: String,
    pub bucket_name: String,
    pub description: Option<String>,
    #[schema(schema_with = any_object)]
    pub bucket_schema: Value,
    pub unique_key: Option<UniqueKeyConfig>,
    #[schema(schema_with = any_object)]
    pub metadata: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    pub object_count: u64,
    pub failed_object_count: u64,
    pub total_size_bytes: u64,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    /// When the newest object came.
    pub last_upload_at: Option<String>,
    pub status: String,
    pub is_locked: bool,
    pub batch_stats: BatchStatistics,
    pub storage_stats: StorageStatistics,
}

/// The bucket's batches.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchStatistics {
    pub total: u64,
    pub active: u64,
    pub completed: u64,
    pub failed: u64,
}

/// The sizes of the bucket's blobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct StorageStatistics {
    pub total_size_bytes: u64,
    pub avg_size_bytes: u64,
    pub max_size_bytes: u64,
    pub min_size_bytes: u64,
}

impl From<BucketView> for BucketResponse {
    fn from(view: BucketView) -> Self {
        let (bucket, stats) = (view.bucket.resource, view.stats);
        let text = |key: &str| bucket.body.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            description: text("description"),
            bucket_schema: view.bucket.schema.json,
            unique_key: bucket.body.get("unique_key").and_then(|key| UniqueKeyConfig::deserialize(key).ok()),
            metadata: bucket.body.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default(),
            storage_class: text("storage_class"),
            object_count: stats.objects,
            failed_object_count: stats.failed_objects,
            total_size_bytes: stats.total_size_bytes,
            last_upload_at: stats.last_upload_at,
            status: "ACTIVE".into(),
            is_locked: false,
            batch_stats: BatchStatistics {
                total: stats.batches.total,
                active: stats.batches.active,
                completed: stats.batches.completed,
                failed: stats.batches.failed,
            },
            storage_stats: StorageStatistics {
                total_size_bytes: stats.total_size_bytes,
                avg_size_bytes: stats.total_size_bytes.checked_div(stats.blobs).unwrap_or(0),
                max_size_bytes: stats.max_size_bytes,
                min_size_bytes: stats.min_size_bytes,
            },
            bucket_id: bucket.id,
            bucket_name: bucket.name,
            created_at: bucket.created_at,
            updated_at: bucket.updated_at,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListBucketsResponse {
    pub results: Vec<BucketResponse>,
    /// Buckets on all pages.
    pub total_count: u64,
    pub pagination: PaginationResponse,
    pub stats: BucketListStats,
}

/// Sums and averages over the buckets of all pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct BucketListStats {
    pub total_objects: u64,
    pub total_size_bytes: u64,
    pub avg_objects_per_bucket: f64,
    pub avg_size_per_bucket: f64,
}

impl From<BucketSums> for BucketListStats {
    fn from(sums: BucketSums) -> Self {
        let count = sums.buckets as u64;
        Self {
            total_objects: sums.objects,
            total_size_bytes: sums.size_bytes,
            avg_objects_per_bucket: mean(sums.objects, count),
            avg_size_per_bucket: mean(sums.size_bytes, count),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BucketDeleteResponse {
    pub message: String,
    pub success: bool,
    pub bucket_id: String,
    /// What went with it: objects, documents by collection, derivations, blobs and their bytes.
    #[schema(schema_with = any_object)]
    pub receipt: Receipt,
}

async fn page(
    app: &App,
    tenant: &Tenant,
    query: &PagingFields,
    body: &ListBody,
) -> Result<Json<ListBucketsResponse>, ApiError> {
    let (paging, request) = body.resolve(query)?;
    let (found, sums) = app.list_buckets(&tenant.scope, request).await?;
    let found = found.map(BucketResponse::from);
    Ok(Json(ListBucketsResponse {
        pagination: PaginationResponse::of(&paging, found.items.len(), found.total),
        stats: sums.into(),
        total_count: found.total as u64,
        results: found.items,
    }))
}

/// List buckets
///
/// Buckets of the namespace, oldest first.
#[utoipa::path(get, path = "/v1/buckets", tag = "Buckets", params(PagingFields, BucketListQuery),
    responses((status = 200, body = ListBucketsResponse)))]
pub async fn list_buckets_get(
    State(app): State<App>,
    tenant: Tenant,
    Query(paging): Query<PagingFields>,
    Query(query): Query<BucketListQuery>,
) -> Result<Json<ListBucketsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let body = ListBody { search: query.search, ..ListBody::default() };
    page(&app, &tenant, &paging, &body).await
}

/// Find buckets
///
/// Buckets of the namespace that fit, oldest first unless sorted otherwise.
#[utoipa::path(post, path = "/v1/buckets/list", tag = "Buckets", params(PagingFields), request_body = ListBody,
    responses((status = 200, body = ListBucketsResponse)))]
pub async fn list_buckets(
    State(app): State<App>,
    tenant: Tenant,
    Query(paging): Query<PagingFields>,
    Json(body): Json<ListBody>,
) -> Result<Json<ListBucketsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    page(&app, &tenant, &paging, &body).await
}

/// Create a bucket
#[utoipa::path(post, path = "/v1/buckets", tag = "Buckets", request_body = BucketCreateRequest,
    responses((status = 200, body = BucketResponse)))]
pub async fn create_bucket(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<BucketCreateRequest>,
) -> Result<Json<BucketResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let spec = BucketUpdateRequest::from(body).spec()?;
    Ok(Json(app.create_bucket(&tenant.scope, spec).await?.into()))
}

/// Get a bucket
///
/// By id or name.
#[utoipa::path(get, path = "/v1/buckets/{bucket_identifier}", tag = "Buckets", params(("bucket_identifier" = String, Path)),
    responses((status = 200, body = BucketResponse)))]
pub async fn get_bucket(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
) -> Result<Json<BucketResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.bucket(&tenant.scope, &bucket).await?.into()))
}

async fn change(
    app: &App,
    tenant: &Tenant,
    bucket: &str,
    query: &BucketUpdateQuery,
    body: BucketUpdateRequest,
) -> Result<Json<BucketResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let force = query.force_schema_break.unwrap_or(false);
    Ok(Json(app.change_bucket(&tenant.scope, bucket, body.spec()?, force).await?.into()))
}

/// Update a bucket
///
/// Fields that are left out stay. A schema or unique key that is sent replaces the old one; one that objects of the
/// bucket do not fit is a conflict unless `force_schema_break` is set.
#[utoipa::path(put, path = "/v1/buckets/{bucket_identifier}", tag = "Buckets",
    params(("bucket_identifier" = String, Path), BucketUpdateQuery), request_body = BucketUpdateRequest,
    responses((status = 200, body = BucketResponse)))]
pub async fn update_bucket(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<BucketUpdateQuery>,
    Json(body): Json<BucketUpdateRequest>,
) -> Result<Json<BucketResponse>, ApiError> {
    change(&app, &tenant, &bucket, &query, body).await
}

/// Patch a bucket
///
/// The same as the update.
#[utoipa::path(patch, path = "/v1/buckets/{bucket_identifier}", tag = "Buckets",
    params(("bucket_identifier" = String, Path), BucketUpdateQuery), request_body = BucketUpdateRequest,
    responses((status = 200, body = BucketResponse)))]
pub async fn patch_bucket(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<BucketUpdateQuery>,
    Json(body): Json<BucketUpdateRequest>,
) -> Result<Json<BucketResponse>, ApiError> {
    change(&app, &tenant, &bucket, &query, body).await
}

/// Delete a bucket
///
/// Removes the bucket, its objects, every document that descends from them, and the bytes that nothing else refers to.
/// The receipt counts what went. A conflict while objects are being processed, unless `force_foreclose` is set.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_identifier}", tag = "Buckets",
    params(("bucket_identifier" = String, Path), BucketDeleteQuery), responses((status = 200, body = BucketDeleteResponse)))]
pub async fn delete_bucket(
    State(app): State<App>,
    tenant: Tenant,
    Path(bucket): Path<String>,
    Query(query): Query<BucketDeleteQuery>,
) -> Result<Json<BucketDeleteResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let (bucket_id, receipt) =
        app.delete_bucket(&tenant.scope, &bucket, query.force_foreclose.unwrap_or(false)).await?;
    let message = format!("bucket `{bucket}` is deleted");
    Ok(Json(BucketDeleteResponse { message, success: true, bucket_id, receipt }))
}
