//! Namespaces: separate rooms, each with its own buckets, collections and retrievers.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    openapi::time,
    organizations::refuse,
    paging::{ListBody, PaginationResponse, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_engine::{
    namespaces::{Described, NamespaceChange, NamespaceCounts, NamespaceSums, NewNamespace},
    transfers::{Making, making},
};
use strata_model::{Error, Fields, Permission};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_namespaces_get, create_namespace))
        .routes(routes!(list_namespaces))
        .routes(routes!(get_namespace_stats_batch))
        .routes(routes!(get_namespace, patch_namespace, update_namespace, delete_namespace))
        .routes(routes!(ensure_namespace_indexes))
        .routes(routes!(get_namespace_stats))
}

/// An extractor that the namespace is meant for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NamespaceExtractor {
    #[schema(example = "text_extractor")]
    feature_extractor_name: String,
    #[schema(example = "v1")]
    version: Option<String>,
    #[schema(value_type = Option<Object>)]
    params: Option<Fields>,
}

/// A field of documents that gets an index of its own.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PayloadIndexConfig {
    #[schema(min_length = 1, max_length = 255)]
    field_name: String,
    /// `keyword`, `integer`, `float`, `bool`, `geo`, `datetime`, `text` or `uuid`.
    #[serde(rename = "type")]
    #[schema(example = "keyword")]
    kind: String,
    #[schema(value_type = Option<Object>)]
    field_schema: Option<Fields>,
    is_protected: Option<bool>,
}

/// A vector that callers bring with their documents.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct VectorConfig {
    name: String,
    #[schema(minimum = 1)]
    dimension: i64,
    /// `cosine`, `dot` or `euclidean`.
    metric: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceType {
    Standard,
    Marketplace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceScope {
    Org,
    System,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    Managed,
    Standalone,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateNamespaceRequest {
    /// An id of your own choice.
    namespace_id: Option<String>,
    #[schema(min_length = 3, max_length = 64)]
    namespace_name: String,
    mode: Option<NamespaceMode>,
    /// Only `standard`.
    namespace_type: Option<NamespaceType>,
    /// Only `org`.
    scope: Option<NamespaceScope>,
    description: Option<String>,
    features: Option<Vec<String>>,
    feature_extractors: Option<Vec<NamespaceExtractor>>,
    /// Vectors of the collections here whose extractor makes none.
    vector_configs: Option<Vec<VectorConfig>>,
    /// Fields that are filtered often.
    payload_indexes: Option<Vec<PayloadIndexConfig>>,
    auto_create_indexes: Option<bool>,
    adaptive_indexing: Option<bool>,
    /// Seconds until `expires_at`, which is kept and shown: nothing is deleted when it comes.
    #[schema(minimum = 60)]
    ttl_seconds: Option<i64>,
    /// Kept as sent; this server runs in one process.
    #[schema(value_type = Option<Object>)]
    infrastructure: Option<Fields>,
    /// Not supported.
    #[schema(value_type = Option<Vec<Object>>)]
    trusted_issuers: Option<Vec<Fields>>,
    /// Kept as sent.
    #[schema(value_type = Option<Object>)]
    tiering: Option<Fields>,
    /// Not supported: nothing is billed.
    #[schema(value_type = Option<Object>)]
    spend_budget: Option<Fields>,
    /// Not supported: nothing is billed.
    #[schema(value_type = Option<Object>)]
    cost_cap_override: Option<Fields>,
}

/// What is left out, or null, stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PatchNamespaceRequest {
    #[schema(min_length = 3, max_length = 64)]
    namespace_name: Option<String>,
    description: Option<String>,
    feature_extractors: Option<Vec<NamespaceExtractor>>,
    payload_indexes: Option<Vec<PayloadIndexConfig>>,
    auto_create_indexes: Option<bool>,
    adaptive_indexing: Option<bool>,
    /// Builds the indexes of all collections anew.
    repair_vectors: Option<bool>,
    /// Kept as sent; this server runs in one process.
    #[schema(value_type = Option<Object>)]
    infrastructure: Option<Fields>,
    /// Not supported.
    #[schema(value_type = Option<Vec<Object>>)]
    trusted_issuers: Option<Vec<Fields>>,
    /// Not supported: nothing is billed.
    #[schema(value_type = Option<Object>)]
    spend_budget: Option<Fields>,
    /// Kept as sent.
    #[schema(value_type = Option<Object>)]
    pinned: Option<Fields>,
    /// Kept as sent.
    #[schema(value_type = Option<Object>)]
    tiering: Option<Fields>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Seconds from now until `expires_at`, which is kept and shown: nothing is deleted when it comes.
    #[schema(minimum = 60)]
    ttl_seconds: Option<i64>,
    /// Not supported: nothing is billed.
    #[schema(value_type = Option<Object>)]
    cost_cap_override: Option<Fields>,
}

/// What is left out, or null, stays.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct UpdateNamespaceRequest {
    #[schema(min_length = 3, max_length = 64)]
    namespace_name: Option<String>,
    payload_indexes: Option<Vec<PayloadIndexConfig>>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct NamespaceStatsBatchRequest {
    /// At most 100.
    #[schema(max_items = 100)]
    namespace_ids: Vec<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct DeleteParameters {
    /// Delete it though it holds something.
    force: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct EnsureParameters {
    /// Build the indexes anew instead of completing them.
    force_rebuild: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NamespaceModel {
    /// Always `namespace`.
    pub object: String,
    pub namespace_id: String,
    pub namespace_name: String,
    pub namespace_type: NamespaceType,
    pub scope: NamespaceScope,
    /// `managed` or `standalone`.
    pub mode: String,
    pub description: Option<String>,
    #[schema(value_type = Vec<Object>)]
    pub feature_extractors: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub vector_configs: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub payload_indexes: Vec<Value>,
    pub payload_index_count: usize,
    pub document_count: i64,
    pub document_count_complete: bool,
    pub bucket_count: i64,
    pub collection_count: i64,
    pub object_count: i64,
    pub auto_create_indexes: bool,
    pub adaptive_indexing: bool,
    #[schema(value_type = Option<Object>)]
    pub infrastructure: Option<Fields>,
    #[schema(value_type = Option<Object>)]
    pub tiering: Option<Fields>,
    #[schema(value_type = Option<Object>)]
    pub pinned: Option<Fields>,
    /// Whether the namespace can be used: at once, or, if it is made of another one or of a snapshot, when that is over.
    pub namespace_ready: bool,
    /// How a namespace that is made of another one or of a snapshot stands: `cloning`, `restoring`, `completed` or
    /// `failed`.
    pub clone_status: Option<String>,
    pub clone_error: Option<String>,
    pub clone_phase: Option<String>,
    pub clone_task_id: Option<String>,
    #[schema(format = DateTime)]
    pub clone_dispatched_at: Option<String>,
    /// What it was made of.
    pub source_namespace_id: Option<String>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
}

impl From<Described> for NamespaceModel {
    fn from(Described { namespace, counts }: Described) -> Self {
        let body = &namespace.body;
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let list = |key: &str| body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let object = |key: &str| body.get(key).and_then(Value::as_object).cloned();
        let is_set = |key: &str| body.get(key).and_then(Value::as_bool).unwrap_or(false);
        let payload_indexes = list("payload_indexes");
        let making = making(body);
        Self {
            object: "namespace".into(),
            namespace_type: NamespaceType::Standard,
            scope: NamespaceScope::Org,
            mode: text("mode").unwrap_or_else(|| "managed".into()),
            description: text("description"),
            feature_extractors: list("feature_extractors"),
            vector_configs: list("vector_configs"),
            payload_index_count: payload_indexes.len(),
            payload_indexes,
            document_count: counts.documents,
            document_count_complete: true,
            bucket_count: counts.buckets,
            collection_count: counts.collections,
            object_count: counts.objects,
            auto_create_indexes: is_set("auto_create_indexes"),
            adaptive_indexing: is_set("adaptive_indexing"),
            infrastructure: object("infrastructure"),
            tiering: object("tiering"),
            pinned: object("pinned"),
            namespace_ready: making.as_ref().is_none_or(Making::is_over),
            clone_status: making.as_ref().map(|making| making.status.clone()),
            clone_error: making.as_ref().and_then(|making| making.error.clone()),
            clone_phase: making.as_ref().and_then(|making| making.phase.clone()),
            clone_task_id: making.as_ref().map(|making| making.task_id.clone()),
            clone_dispatched_at: making.as_ref().map(|making| making.dispatched_at.clone()),
            source_namespace_id: making.map(|making| making.source_namespace_id),
            expires_at: text("expires_at"),
            namespace_id: namespace.namespace_id,
            namespace_name: namespace.name,
            created_at: namespace.created_at,
            updated_at: namespace.updated_at,
        }
    }
}

/// How much a namespace holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct NamespaceStatsResponse {
    pub namespace_id: String,
    pub document_count: i64,
    pub document_count_complete: bool,
    pub bucket_count: i64,
    pub collection_count: i64,
    pub object_count: i64,
}

impl From<Described> for NamespaceStatsResponse {
    fn from(Described { namespace, counts }: Described) -> Self {
        Self {
            namespace_id: namespace.namespace_id,
            document_count: counts.documents,
            document_count_complete: true,
            bucket_count: counts.buckets,
            collection_count: counts.collections,
            object_count: counts.objects,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NamespaceStatsBatchResponse {
    /// By namespace id. Those that the key cannot enter are left out.
    pub stats: BTreeMap<String, NamespaceStatsResponse>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListNamespacesResponse {
    pub results: Vec<NamespaceModel>,
    pub pagination: PaginationResponse,
    pub total_count: usize,
    pub stats: NamespaceListStats,
}

/// Sums and means over the namespaces of all pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct NamespaceListStats {
    pub total_feature_extractors: i64,
    pub total_payload_indexes: i64,
    pub total_documents: i64,
    pub total_documents_complete: bool,
    pub total_buckets: i64,
    pub total_collections: i64,
    pub total_objects: i64,
    pub avg_feature_extractors_per_namespace: f64,
    pub avg_payload_indexes_per_namespace: f64,
    pub avg_documents_per_namespace: f64,
    pub avg_buckets_per_namespace: f64,
    pub avg_collections_per_namespace: f64,
    pub avg_objects_per_namespace: f64,
}

impl From<NamespaceSums> for NamespaceListStats {
    fn from(sums: NamespaceSums) -> Self {
        let NamespaceSums { namespaces, feature_extractors, payload_indexes, counts } = sums;
        let mean = |total: i64| total as f64 / namespaces.max(1) as f64;
        let (total_feature_extractors, total_payload_indexes) = (feature_extractors as i64, payload_indexes as i64);
        Self {
            total_feature_extractors,
            total_payload_indexes,
            total_documents: counts.documents,
            total_documents_complete: true,
            total_buckets: counts.buckets,
            total_collections: counts.collections,
            total_objects: counts.objects,
            avg_feature_extractors_per_namespace: mean(total_feature_extractors),
            avg_payload_indexes_per_namespace: mean(total_payload_indexes),
            avg_documents_per_namespace: mean(counts.documents),
            avg_buckets_per_namespace: mean(counts.buckets),
            avg_collections_per_namespace: mean(counts.collections),
            avg_objects_per_namespace: mean(counts.objects),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct NamespaceDeletedResponse {
    pub success: bool,
    pub message: String,
    /// What went with the namespace.
    pub deleted: NamespaceStatsResponse,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EnsureIndexesResponse {
    pub namespace_id: String,
    pub force_rebuild: bool,
    /// Collections whose indexes are brought in line.
    pub collection_ids: Vec<String>,
    pub message: String,
}

/// The fields that a request sets. Null is the same as left out.
pub(crate) fn fields(request: &impl Serialize) -> Result<Fields, Error> {
    match serde_json::to_value(request).map_err(Error::internal)? {
        Value::Object(fields) => Ok(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => Err(Error::internal(format!("a request became `{other}` instead of an object"))),
    }
}

/// What the engine keeps of a request as it is.
fn body(request: &impl Serialize) -> Result<Fields, Error> {
    let mut body = fields(request)?;
    body.retain(|key, _| !matches!(key.as_str(), "namespace_id" | "namespace_name" | "ttl_seconds" | "repair_vectors"));
    Ok(body)
}

/// Whether callers are to be asked about at a service that decides who sees what.
fn has_authorization(infrastructure: Option<&Fields>) -> bool {
    infrastructure.and_then(|i| i.get("authorization")?.get("enabled")?.as_bool()).unwrap_or(false)
}

async fn listed(
    app: &App,
    caller: &Caller,
    query: &PagingFields,
    body: &ListBody,
) -> Result<Json<ListNamespacesResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let (paging, request) = body.resolve(query)?;
    let (page, sums) = app.namespaces(&caller.0, request).await?;
    let pagination = PaginationResponse::of(&paging, page.items.len(), page.total);
    let results: Vec<NamespaceModel> = page.items.into_iter().map(NamespaceModel::from).collect();
    Ok(Json(ListNamespacesResponse { results, pagination, total_count: page.total, stats: sums.into() }))
}

/// List namespaces
///
/// Namespaces that the key may enter, oldest first.
#[utoipa::path(get, path = "/v1/namespaces", tag = "Namespaces", params(PagingFields), responses((status = 200, body = ListNamespacesResponse)))]
pub async fn list_namespaces_get(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PagingFields>,
) -> Result<Json<ListNamespacesResponse>, ApiError> {
    listed(&app, &caller, &query, &ListBody::default()).await
}

/// List namespaces by filter
///
/// Namespaces that the key may enter: searched, filtered, sorted.
#[utoipa::path(post, path = "/v1/namespaces/list", tag = "Namespaces",
    params(
        PagingFields,
        ("include_system" = Option<bool>, Query, description = "Changes nothing: there are no system namespaces."),
        ("view" = Option<String>, Query, description = "Changes nothing: namespaces are shown whole."),
    ),
    responses((status = 200, body = ListNamespacesResponse)))]
pub async fn list_namespaces(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListBody>,
) -> Result<Json<ListNamespacesResponse>, ApiError> {
    listed(&app, &caller, &query, &body).await
}

/// Create a namespace
///
/// Needs a key of the whole organization.
#[utoipa::path(post, path = "/v1/namespaces", tag = "Namespaces", responses((status = 200, body = NamespaceModel)))]
pub async fn create_namespace(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<CreateNamespaceRequest>,
) -> Result<Json<NamespaceModel>, ApiError> {
    caller.may_in_organization(Permission::Write)?;
    refuse(&[
        ("namespace_type", request.namespace_type == Some(NamespaceType::Marketplace)),
        ("scope", request.scope == Some(NamespaceScope::System)),
        ("infrastructure.authorization", has_authorization(request.infrastructure.as_ref())),
        ("trusted_issuers", request.trusted_issuers.as_ref().is_some_and(|issuers| !issuers.is_empty())),
        ("spend_budget", request.spend_budget.is_some()),
        ("cost_cap_override", request.cost_cap_override.is_some()),
    ])?;
    let body = body(&request)?;
    let new = NewNamespace {
        namespace_id: request.namespace_id,
        name: request.namespace_name,
        ttl_seconds: request.ttl_seconds,
        body,
    };
    let namespace = app.create_namespace(&caller.0, new).await?;
    Ok(Json(Described { namespace, counts: NamespaceCounts::default() }.into()))
}

/// Get a namespace
///
/// By id or name, with how much it holds.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_identifier}", tag = "Namespaces", responses((status = 200, body = NamespaceModel)))]
pub async fn get_namespace(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
) -> Result<Json<NamespaceModel>, ApiError> {
    caller.may(Permission::Read)?;
    Ok(Json(app.namespace(&caller.0, &namespace_identifier).await?.into()))
}

/// Change a namespace
///
/// Fields that are left out stay. New payload indexes are built behind; searches go on meanwhile.
#[utoipa::path(patch, path = "/v1/namespaces/{namespace_identifier}", tag = "Namespaces", responses((status = 200, body = NamespaceModel)))]
pub async fn patch_namespace(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Json(request): Json<PatchNamespaceRequest>,
) -> Result<Json<NamespaceModel>, ApiError> {
    caller.may(Permission::Write)?;
    refuse(&[
        ("infrastructure.authorization", has_authorization(request.infrastructure.as_ref())),
        ("trusted_issuers", request.trusted_issuers.as_ref().is_some_and(|issuers| !issuers.is_empty())),
        ("spend_budget", request.spend_budget.is_some()),
        ("cost_cap_override", request.cost_cap_override.is_some()),
    ])?;
    let body = body(&request)?;
    let change = NamespaceChange { name: request.namespace_name, ttl_seconds: request.ttl_seconds, body };
    let changed = app.update_namespace(&caller.0, &namespace_identifier, change).await?;
    if request.repair_vectors == Some(true) {
        app.ensure_indexes(&caller.0, &changed.namespace.namespace_id, true).await?;
    }
    Ok(Json(changed.into()))
}

/// Update a namespace
///
/// Sets the name and the payload indexes; what is left out stays.
#[utoipa::path(put, path = "/v1/namespaces/{namespace_identifier}", tag = "Namespaces", responses((status = 200, body = NamespaceModel)))]
pub async fn update_namespace(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Json(request): Json<UpdateNamespaceRequest>,
) -> Result<Json<NamespaceModel>, ApiError> {
    caller.may(Permission::Write)?;
    let body = body(&request)?;
    let change = NamespaceChange { name: request.namespace_name, ttl_seconds: None, body };
    Ok(Json(app.update_namespace(&caller.0, &namespace_identifier, change).await?.into()))
}

/// Delete a namespace
///
/// Removes the namespace and everything in it. One that holds something goes only with `force`.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace_identifier}", tag = "Namespaces",
    params(("namespace_identifier" = String, Path, description = "Id or name."), DeleteParameters),
    responses((status = 200, body = NamespaceDeletedResponse)))]
pub async fn delete_namespace(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Query(query): Query<DeleteParameters>,
) -> Result<Json<NamespaceDeletedResponse>, ApiError> {
    caller.may(Permission::Delete)?;
    let gone = app.delete_namespace(&caller.0, &namespace_identifier, query.force.unwrap_or(false)).await?;
    let message = format!("namespace `{}` is deleted", gone.namespace.name);
    Ok(Json(NamespaceDeletedResponse { success: true, message, deleted: gone.into() }))
}

/// Ensure indexes
///
/// Brings the indexes of every collection in line with the payload indexes of the namespace. The work goes on behind.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_identifier}/ensure-indexes", tag = "Namespaces",
    params(("namespace_identifier" = String, Path, description = "Id or name."), EnsureParameters),
    responses((status = 200, body = EnsureIndexesResponse)))]
pub async fn ensure_namespace_indexes(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Query(query): Query<EnsureParameters>,
) -> Result<Json<EnsureIndexesResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let force_rebuild = query.force_rebuild.unwrap_or(false);
    let (namespace, collection_ids) = app.ensure_indexes(&caller.0, &namespace_identifier, force_rebuild).await?;
    let work = if force_rebuild { "built anew" } else { "completed" };
    let message = format!("the indexes of {} collections are being {work}", collection_ids.len());
    Ok(Json(EnsureIndexesResponse { namespace_id: namespace.namespace_id, force_rebuild, collection_ids, message }))
}

/// Count what a namespace holds
#[utoipa::path(get, path = "/v1/namespaces/{namespace_identifier}/stats", tag = "Namespaces", responses((status = 200, body = NamespaceStatsResponse)))]
pub async fn get_namespace_stats(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
) -> Result<Json<NamespaceStatsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    Ok(Json(app.namespace(&caller.0, &namespace_identifier).await?.into()))
}

/// Count what several namespaces hold
#[utoipa::path(post, path = "/v1/namespaces/stats/batch", tag = "Namespaces", responses((status = 200, body = NamespaceStatsBatchResponse)))]
pub async fn get_namespace_stats_batch(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<NamespaceStatsBatchRequest>,
) -> Result<Json<NamespaceStatsBatchResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let found = app.namespace_stats(&caller.0, request.namespace_ids).await?;
    let stats = found.into_iter().map(|described| (described.namespace.namespace_id.clone(), described.into()));
    Ok(Json(NamespaceStatsBatchResponse { stats: stats.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_body_holds_what_was_sent_besides_id_name_and_time_to_live() {
        let sent = json!({
            "namespace_name": "films",
            "ttl_seconds": 60,
            "mode": "standalone",
            "payload_indexes": [{ "field_name": "year", "type": "integer" }],
        });
        let request: CreateNamespaceRequest = serde_json::from_value(sent).unwrap();
        let body = body(&request).unwrap();
        assert_eq!(body.keys().collect::<Vec<_>>(), ["mode", "payload_indexes"]);
        assert_eq!((&body["mode"], &body["payload_indexes"][0]["type"]), (&json!("standalone"), &json!("integer")));
    }

    #[test]
    fn only_an_enabled_authorization_service_is_refused() {
        let with = |enabled: bool| json!({ "authorization": { "enabled": enabled } }).as_object().cloned();
        assert!(has_authorization(with(true).as_ref()));
        assert!(!has_authorization(with(false).as_ref()));
        assert!(!has_authorization(None));
    }
}
