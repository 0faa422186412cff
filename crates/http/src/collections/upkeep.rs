//! Documents in line with their sources: running a collection, finding what is missing, following what documents hold.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    organizations::refuse,
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strata_engine::{
    batches::TriggerRequest,
    collections::{MissingObject, SyncOutcome},
};
use strata_model::{Error, Fields, Permission, filter::Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Documents that a look at the schema reads where the caller does not say, and the most it reads.
const DEFAULT_SAMPLE: i64 = 1000;
const MAX_SAMPLE: i64 = 10_000;
/// Discrepancies that a reconciliation lists where the caller does not say, and the most it lists.
const DEFAULT_DISCREPANCIES: i64 = 100;
const MAX_DISCREPANCIES: i64 = 1000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(reconcile_collection))
        .routes(routes!(trigger_collection))
        .routes(routes!(sync_collection_schema))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ReconciliationParameters {
    /// Most discrepancies to list.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct TriggerCollectionRequest {
    /// Only these of the source buckets.
    include_buckets: Option<Vec<String>>,
    /// Only these of the source collections.
    include_collections: Option<Vec<String>>,
    /// Only these objects, or what came of them.
    object_ids: Option<Vec<String>>,
    /// Only inputs that satisfy it.
    #[schema(value_type = Option<Object>)]
    source_filters: Option<Fields>,
    /// `skip` and `replace` run what changed, `force` everything.
    dedup_strategy: Option<String>,
    /// Not supported: change the extractor, and what is out of date runs again.
    #[schema(value_type = Option<Object>)]
    reembed: Option<Fields>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct SchemaSyncRequest {
    /// Documents to read.
    #[schema(minimum = 1, maximum = 10_000)]
    sample_size: Option<i64>,
    /// Look even where `schema_sync_enabled` is off.
    force: Option<bool>,
    /// Bring the collections that read from this one up to its schema too; true unless said otherwise.
    cascade_to_downstream: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionReconciliationResponse {
    pub collection_id: String,
    /// Objects of its source buckets.
    pub source_object_count: i64,
    /// Objects that it has documents of.
    pub produced_object_count: i64,
    pub document_count: i64,
    /// Objects without documents.
    pub delta: i64,
    pub discrepancies: Vec<ReconciliationDiscrepancy>,
    pub discrepancies_truncated: bool,
    pub limit: i64,
}

/// An object without documents.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReconciliationDiscrepancy {
    pub object_id: String,
    pub bucket_id: String,
    /// `no_document`, `failed`, `processing`, `skipped` or `unknown`.
    pub reason: String,
    /// Of the work on it, where there is or was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<MissingObject> for ReconciliationDiscrepancy {
    fn from(missing: MissingObject) -> Self {
        let reason = match missing.status.as_deref() {
            None | Some("completed") => "no_document",
            Some("pending" | "running") => "processing",
            Some("failed") => "failed",
            Some("canceled") => "skipped",
            Some(_) => "unknown",
        };
        Self {
            object_id: missing.object_id,
            bucket_id: missing.bucket_id,
            reason: reason.into(),
            status: missing.status,
            error: missing.error,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct TriggerCollectionResponse {
    /// The first of `batch_ids`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_id: Option<String>,
    /// The task to poll; the first of `task_ids`.
    pub task_id: String,
    pub collection_id: String,
    pub source_bucket_ids: Vec<String>,
    pub source_collection_ids: Vec<String>,
    /// Objects that are run over.
    pub object_count: usize,
    /// Documents that are run over.
    pub document_count: usize,
    /// One for each source bucket, or one for all source collections.
    pub batch_ids: Vec<String>,
    pub task_ids: Vec<String>,
    pub batch_count: usize,
    /// Layers of collections that the work runs through.
    pub total_tiers: usize,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum SchemaSyncAnswer {
    Done(SchemaSyncResponse),
    Skipped(SchemaSyncSkippedResponse),
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SchemaSyncResponse {
    pub success: bool,
    pub collection_id: String,
    pub schema_version: i64,
    pub previous_version: i64,
    pub fields_added: Vec<String>,
    pub fields_total: usize,
    pub documents_sampled: usize,
    pub downstream_collections_updated: Vec<String>,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SchemaSyncSkippedResponse {
    pub success: bool,
    /// Always true.
    pub skipped: bool,
    pub reason: String,
    pub collection_id: String,
    pub schema_version: i64,
    #[schema(format = DateTime)]
    pub last_sync: Option<String>,
}

impl From<SyncOutcome> for SchemaSyncAnswer {
    fn from(outcome: SyncOutcome) -> Self {
        match outcome {
            SyncOutcome::Done(synced) => Self::Done(SchemaSyncResponse {
                success: true,
                message: format!(
                    "{} documents hold {} new fields",
                    synced.documents_sampled,
                    synced.fields_added.len()
                ),
                collection_id: synced.collection_id,
                schema_version: synced.schema_version,
                previous_version: synced.previous_version,
                fields_added: synced.fields_added,
                fields_total: synced.fields_total,
                documents_sampled: synced.documents_sampled,
                downstream_collections_updated: synced.downstream_updated,
            }),
            SyncOutcome::Skipped { collection_id, schema_version, last_sync } => {
                Self::Skipped(SchemaSyncSkippedResponse {
                    success: true,
                    skipped: true,
                    reason: "`schema_sync_enabled` is off; send `force` to look all the same".into(),
                    collection_id,
                    schema_version,
                    last_sync,
                })
            }
        }
    }
}

/// A number within its bounds, or its default.
fn bounded(field: &str, value: Option<i64>, default: i64, most: i64) -> Result<i64, Error> {
    match value.unwrap_or(default) {
        value if (1..=most).contains(&value) => Ok(value),
        value => Err(Error::invalid(field, format!("must be from 1 to {most}, not {value}"))),
    }
}

/// Reconcile a collection
///
/// Which objects of its source buckets have no documents here, and why.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/reconciliation", tag = "Collections",
    params(("collection_identifier" = String, Path, description = "Id or name."), ReconciliationParameters),
    responses((status = 200, body = CollectionReconciliationResponse)))]
pub async fn reconcile_collection(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_identifier): Path<String>,
    Query(query): Query<ReconciliationParameters>,
) -> Result<Json<CollectionReconciliationResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let limit = bounded("limit", query.limit, DEFAULT_DISCREPANCIES, MAX_DISCREPANCIES)?;
    let reconciled = app.reconciliation(&tenant.scope, &collection_identifier, limit as usize).await?;
    let found = reconciled.found;
    Ok(Json(CollectionReconciliationResponse {
        collection_id: reconciled.collection_id,
        source_object_count: found.source_objects,
        produced_object_count: found.produced_objects,
        document_count: found.documents,
        delta: found.source_objects - found.produced_objects,
        discrepancies_truncated: found.missing.len() > limit as usize,
        discrepancies: found.missing.into_iter().take(limit as usize).map(Into::into).collect(),
        limit,
    }))
}

/// Trigger a collection
///
/// Runs its extractor over its sources, then the collections that read from it. What did not change runs no model.
/// Answers the task to poll.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/trigger", tag = "Collections", responses((status = 202, body = TriggerCollectionResponse)))]
pub async fn trigger_collection(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_identifier): Path<String>,
    Json(request): Json<TriggerCollectionRequest>,
) -> Result<(StatusCode, Json<TriggerCollectionResponse>), ApiError> {
    tenant.may(Permission::Write)?;
    refuse(&[("reembed", request.reembed.is_some())])?;
    let asked = TriggerRequest {
        include_buckets: request.include_buckets.unwrap_or_default(),
        include_collections: request.include_collections.unwrap_or_default(),
        object_ids: request.object_ids.unwrap_or_default(),
        source_filters: Filter::parse(&request.source_filters.map_or(Value::Null, Value::Object), "source_filters")?,
        dedup_strategy: request.dedup_strategy,
    };
    let collection_id = app.collection(&tenant.scope, &collection_identifier).await?.id.clone();
    let outcome = app.trigger_collection(&tenant.scope, &collection_id, asked).await?;
    let message = format!("{} objects and {} documents are queued", outcome.object_count, outcome.document_count);
    let answer = TriggerCollectionResponse {
        batch_id: outcome.batch_id,
        task_id: outcome.task_id,
        collection_id,
        source_bucket_ids: outcome.source_bucket_ids,
        source_collection_ids: outcome.source_collection_ids,
        object_count: outcome.object_count,
        document_count: outcome.document_count,
        batch_count: outcome.batch_ids.len(),
        batch_ids: outcome.batch_ids,
        task_ids: outcome.task_ids,
        total_tiers: outcome.total_tiers,
        message,
    };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// Sync a schema
///
/// Adds fields that documents hold and the output schema lacks.
#[utoipa::path(post, path = "/v1/collections/{collection_id}/sync-schema", tag = "CollectionSchema", responses((status = 200, body = SchemaSyncAnswer)))]
pub async fn sync_collection_schema(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_id): Path<String>,
    Json(request): Json<SchemaSyncRequest>,
) -> Result<Json<SchemaSyncAnswer>, ApiError> {
    tenant.may(Permission::Write)?;
    let sample = bounded("sample_size", request.sample_size, DEFAULT_SAMPLE, MAX_SAMPLE)?;
    let (force, cascade) = (request.force.unwrap_or(false), request.cascade_to_downstream.unwrap_or(true));
    Ok(Json(app.sync_schema(&tenant.scope, &collection_id, sample as usize, force, cascade).await?.into()))
}
