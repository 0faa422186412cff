//! Collections: what documents are made from, by which extractor, and which vectors they carry. What keeps their
//! documents in line with their sources is in the submodule.

mod upkeep;

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    features::{VectorIndexDefinition, VectorIndexSettings, maker},
    namespaces::fields,
    openapi::time,
    paging::{ListBody, PaginationResponse, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use strata_engine::{collections::Collection, extract::Configured};
use strata_model::{Error, Fields, Permission, Scope, feature::VectorIndex};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_collections_get, create_collection))
        .routes(routes!(list_collections))
        .routes(routes!(get_collection, update_collection, delete_collection))
        .routes(routes!(describe_collection_features))
        .merge(upkeep::routes())
}

/// What a collection reads from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SourceConfig {
    /// `bucket`, `collection`, or `direct_upsert`, `signals` or `none` where documents are created directly.
    #[serde(rename = "type")]
    #[schema(example = "bucket")]
    kind: Option<String>,
    /// Ids or names.
    bucket_ids: Option<Vec<String>>,
    bucket_id: Option<String>,
    /// Ids or names.
    collection_ids: Option<Vec<String>>,
    collection_id: Option<String>,
    source_namespace_id: Option<String>,
    inherited_bucket_ids: Option<Vec<String>>,
    /// Only inputs that satisfy `{"filters": …}` are read.
    #[schema(value_type = Option<Object>)]
    source_filters: Option<Fields>,
    #[schema(value_type = Option<Object>)]
    field_map: Option<Fields>,
}

/// The extractor of a collection and how its inputs reach it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FeatureExtractorConfig {
    /// See `GET /v1/collections/features/extractors`.
    #[schema(example = "text_extractor")]
    feature_extractor_name: String,
    #[schema(example = "v1")]
    version: Option<String>,
    #[schema(value_type = Option<Object>)]
    parameters: Option<Fields>,
    /// The same as `parameters`.
    #[schema(value_type = Option<Object>)]
    params: Option<Fields>,
    /// `{input: "field"}`, or an array of `{"input_key": …, "path": …}`.
    input_mappings: Option<Value>,
    /// Fields of the source that every document carries: names, or `{"source_path": …, "target_path": …}`.
    field_passthrough: Option<Vec<Value>>,
    include_all_source_fields: Option<bool>,
}

/// `vector_indexes`, `[{"name": …, "dimension": …}]`, names vectors that documents bring along.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateCollectionRequest {
    #[serde(alias = "name")]
    #[schema(min_length = 3, max_length = 100)]
    collection_name: String,
    description: Option<String>,
    /// Without a source, documents are created directly.
    source: Option<SourceConfig>,
    /// Follows from the sources where it is left out.
    #[schema(value_type = Option<Object>)]
    input_schema: Option<Fields>,
    /// Inputs are passed through as they are where it is left out.
    feature_extractor: Option<FeatureExtractorConfig>,
    /// Kept as sent beside a `feature_extractor`, which alone decides what is made.
    features: Option<Vec<String>>,
    enabled: Option<bool>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Fields>,
    /// Kept as sent.
    #[schema(value_type = Option<Object>)]
    schedule: Option<Fields>,
    /// Kept as sent.
    #[schema(value_type = Option<Vec<Object>>)]
    taxonomy_applications: Option<Vec<Fields>>,
    /// Kept as sent.
    #[schema(value_type = Option<Vec<Object>>)]
    cluster_applications: Option<Vec<Fields>>,
    /// Kept as sent.
    #[schema(value_type = Option<Vec<Object>>)]
    alert_applications: Option<Vec<Fields>>,
    /// Kept as sent.
    #[schema(value_type = Option<Vec<Object>>)]
    retriever_enrichments: Option<Vec<Fields>>,
    /// Kept as sent.
    #[schema(value_type = Option<Object>)]
    retriever_transform: Option<Fields>,
    /// Kept as sent.
    embedding_task: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct CollectionListParameters {
    /// Text that id, name, description or metadata contain.
    search: Option<String>,
    /// Instead of `X-Namespace`: id or name.
    namespace_id: Option<String>,
}

/// A collection. Beside what is listed it shows the settings that were sent: `metadata`, `schedule`,
/// `taxonomy_applications` and the like.
#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionResponse {
    pub collection_id: String,
    pub collection_name: String,
    pub description: Option<String>,
    /// The fields of its inputs.
    #[schema(value_type = Object)]
    pub input_schema: Value,
    /// The fields of its documents, known before there is any.
    #[schema(value_type = Object)]
    pub output_schema: Value,
    #[schema(value_type = Object)]
    pub feature_extractor: Value,
    #[schema(value_type = Object)]
    pub source: Value,
    /// Every vector that its documents may carry.
    pub vector_indexes: Vec<VectorIndexDefinition>,
    pub enabled: bool,
    /// Why it was disabled, where the server did that.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Option<Object>)]
    pub disabled_reason: Value,
    /// Always `active`.
    pub lifecycle_state: String,
    pub document_count: i64,
    pub taxonomy_count: usize,
    /// Grows with every change of a schema.
    pub schema_version: i64,
    #[schema(format = DateTime)]
    pub last_schema_sync: Option<String>,
    pub schema_sync_enabled: bool,
    /// `strict`, `warn` or `off`.
    pub schema_validation: String,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    #[serde(flatten)]
    pub settings: Map<String, Value>,
}

impl CollectionResponse {
    fn of(collection: Collection, document_count: i64) -> Result<Self, Error> {
        let mut settings = collection.kept;
        let syncs_schema = settings.remove("schema_sync_enabled").and_then(|value| value.as_bool());
        let validation = settings.remove("schema_validation").and_then(|value| value.as_str().map(str::to_owned));
        Ok(Self {
            input_schema: collection.input_schema,
            output_schema: collection.output_schema,
            feature_extractor: shown_extractor(collection.extractor.as_ref())?,
            source: collection.source.to_json(),
            vector_indexes: collection.vector_indexes.iter().map(VectorIndexDefinition::from).collect(),
            enabled: collection.enabled,
            disabled_reason: collection.disabled_reason,
            lifecycle_state: "active".into(),
            document_count,
            taxonomy_count: taxonomy_count(&settings),
            schema_version: collection.schema_version,
            last_schema_sync: collection.last_schema_sync,
            schema_sync_enabled: syncs_schema.unwrap_or(true),
            schema_validation: validation.unwrap_or_else(|| "off".into()),
            collection_id: collection.id,
            collection_name: collection.name,
            description: collection.description,
            created_at: collection.created_at,
            updated_at: collection.updated_at,
            settings,
        })
    }
}

fn taxonomy_count(settings: &Fields) -> usize {
    settings.get("taxonomy_applications").and_then(Value::as_array).map_or(0, Vec::len)
}

/// Answers must name an extractor. Documents that are created directly are what the passthrough extractor would make.
fn shown_extractor(extractor: Option<&Configured>) -> Result<Value, Error> {
    match extractor {
        Some(extractor) => Ok(extractor.to_json()),
        None => Ok(Configured::parse(&json!("passthrough_extractor"), &[], "feature_extractor")?.to_json()),
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListCollectionsResponse {
    pub results: Vec<CollectionResponse>,
    pub pagination: PaginationResponse,
    pub total_count: usize,
    pub stats: CollectionListStats,
}

/// Sums and means over the collections of all pages.
#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionListStats {
    pub total_documents: i64,
    pub avg_documents_per_collection: f64,
    pub collections_with_taxonomies: usize,
    pub total_taxonomies: usize,
    /// Different extractors.
    pub total_feature_extractors: usize,
}

impl CollectionListStats {
    /// Of collections that have so many documents together.
    fn of(collections: &[Collection], total_documents: i64) -> Result<Self, Error> {
        let mut extractors = HashSet::new();
        for collection in collections {
            let shown = shown_extractor(collection.extractor.as_ref())?;
            extractors.extend(shown["feature_extractor_id"].as_str().map(str::to_owned));
        }
        let taxonomies = || collections.iter().map(|collection| taxonomy_count(&collection.kept));
        Ok(Self {
            total_documents,
            avg_documents_per_collection: total_documents as f64 / collections.len().max(1) as f64,
            collections_with_taxonomies: taxonomies().filter(|count| *count > 0).count(),
            total_taxonomies: taxonomies().sum(),
            total_feature_extractors: extractors.len(),
        })
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionDeletedResponse {
    pub success: bool,
    pub message: String,
    pub collection_id: String,
    pub deleted: DeletedCounts,
    /// Collections that read from it: they keep their documents and make no new ones.
    pub disabled_collection_ids: Vec<String>,
}

/// What went with a collection.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeletedCounts {
    pub documents: i64,
    pub vectors: i64,
    pub blobs: i64,
    pub bytes: i64,
    pub derivations: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DescribeCollectionFeaturesResponse {
    pub features: Vec<CollectionFeatureDescriptor>,
}

/// A vector that searches over the collection can use.
#[derive(Debug, Serialize, ToSchema)]
pub struct CollectionFeatureDescriptor {
    /// The same as `feature_uri`.
    pub feature_address: String,
    pub feature_uri: String,
    pub feature_extractor_name: String,
    pub version: String,
    pub vector_index: VectorIndexSettings,
    /// Whether it is the collection's first.
    pub primary: bool,
}

/// Vectors that callers bring count as the passthrough extractor's.
fn described(vector: &VectorIndex, primary: bool) -> CollectionFeatureDescriptor {
    let (name, version) = maker(vector).map_or(("passthrough_extractor", "v1"), |made| (made.name, made.version));
    CollectionFeatureDescriptor {
        feature_address: vector.feature_uri.clone(),
        feature_uri: vector.feature_uri.clone(),
        feature_extractor_name: name.into(),
        version: version.into(),
        vector_index: vector.into(),
        primary,
    }
}

async fn listed(
    app: &App,
    scope: &Scope,
    query: &PagingFields,
    body: &ListBody,
) -> Result<Json<ListCollectionsResponse>, ApiError> {
    let (paging, request) = body.resolve(query)?;
    let all = app.collections(scope, &request).await?;
    let ids = all.iter().map(|collection| collection.id.clone()).collect();
    let stats = CollectionListStats::of(&all, app.documents_together(scope, ids).await?)?;
    let page = request.cut(all);
    let pagination = PaginationResponse::of(&paging, page.items.len(), page.total);
    let counts =
        app.document_counts(scope, page.items.iter().map(|collection| collection.id.clone()).collect()).await?;
    let results =
        page.items.into_iter().zip(counts).map(|(collection, count)| CollectionResponse::of(collection, count));
    let results = results.collect::<Result<Vec<_>, Error>>()?;
    Ok(Json(ListCollectionsResponse { results, pagination, total_count: page.total, stats }))
}

async fn shown(app: &App, scope: &Scope, collection: Collection) -> Result<Json<CollectionResponse>, ApiError> {
    let counts = app.document_counts(scope, vec![collection.id.clone()]).await?;
    Ok(Json(CollectionResponse::of(collection, counts.into_iter().sum())?))
}

/// List collections
///
/// Collections of the namespace, oldest first.
#[utoipa::path(get, path = "/v1/collections", tag = "Collections",
    params(
        PagingFields,
        CollectionListParameters,
        ("include_system" = Option<bool>, Query, description = "Changes nothing: there are no system collections."),
    ),
    responses((status = 200, body = ListCollectionsResponse)))]
pub async fn list_collections_get(
    State(app): State<App>,
    tenant: Tenant,
    Query(paging): Query<PagingFields>,
    Query(query): Query<CollectionListParameters>,
) -> Result<Json<ListCollectionsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let scope = match query.namespace_id.as_deref() {
        Some(named) => app.scope(&tenant.principal, Some(named)).await?,
        None => tenant.scope,
    };
    listed(&app, &scope, &paging, &ListBody { search: query.search, ..ListBody::default() }).await
}

/// List collections by filter
///
/// Collections of the namespace: searched, filtered, sorted.
#[utoipa::path(post, path = "/v1/collections/list", tag = "Collections", params(PagingFields), responses((status = 200, body = ListCollectionsResponse)))]
pub async fn list_collections(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListBody>,
) -> Result<Json<ListCollectionsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    listed(&app, &tenant.scope, &query, &body).await
}

/// Create a collection
///
/// Its schemas and vectors are known at once. Nothing runs until it is triggered or a batch is submitted.
#[utoipa::path(post, path = "/v1/collections", tag = "Collections", responses((status = 200, body = CollectionResponse)))]
pub async fn create_collection(
    State(app): State<App>,
    tenant: Tenant,
    Json(request): Json<CreateCollectionRequest>,
) -> Result<Json<CollectionResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let fields = fields(&request)?;
    let has_extractor = fields.contains_key("feature_extractor") || fields.contains_key("feature_extractors");
    if !has_extractor && request.features.is_some_and(|features| !features.is_empty()) {
        let message = "does not choose an extractor here; name one as `feature_extractor`";
        return Err(Error::invalid("features", message).into());
    }
    let collection = app.create_collection(&tenant.scope, fields).await?;
    Ok(Json(CollectionResponse::of(collection, 0)?))
}

/// Get a collection
///
/// By id or name.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}", tag = "Collections", responses((status = 200, body = CollectionResponse)))]
pub async fn get_collection(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_identifier): Path<String>,
) -> Result<Json<CollectionResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let collection = app.collection(&tenant.scope, &collection_identifier).await?;
    shown(&app, &tenant.scope, (*collection).clone()).await
}

/// Change a collection
///
/// Takes the fields of a new collection. What is left out stays; null removes a setting. Another extractor or source
/// changes schema and vectors at once, documents at the next trigger.
#[utoipa::path(patch, path = "/v1/collections/{collection_identifier}", tag = "Collections", request_body = Object, responses((status = 200, body = CollectionResponse)))]
pub async fn update_collection(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_identifier): Path<String>,
    Json(request): Json<Fields>,
) -> Result<Json<CollectionResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let collection = app.update_collection(&tenant.scope, &collection_identifier, request).await?;
    shown(&app, &tenant.scope, collection).await
}

/// Delete a collection
///
/// Removes the collection and its documents. Collections that read from it are disabled and keep what they have.
#[utoipa::path(delete, path = "/v1/collections/{collection_identifier}", tag = "Collections", responses((status = 200, body = CollectionDeletedResponse)))]
pub async fn delete_collection(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_identifier): Path<String>,
) -> Result<Json<CollectionDeletedResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let gone = app.delete_collection(&tenant.scope, &collection_identifier).await?;
    let removed = gone.removed;
    Ok(Json(CollectionDeletedResponse {
        success: true,
        message: format!("collection `{}` is deleted", gone.collection_id),
        collection_id: gone.collection_id,
        deleted: DeletedCounts {
            documents: removed.documents,
            vectors: removed.vectors,
            blobs: removed.blobs,
            bytes: removed.bytes,
            derivations: gone.derivations,
        },
        disabled_collection_ids: gone.disabled,
    }))
}

/// Describe features
///
/// The vectors of the collection, as searches ask for them.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/features", tag = "Collections", responses((status = 200, body = DescribeCollectionFeaturesResponse)))]
pub async fn describe_collection_features(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection_identifier): Path<String>,
) -> Result<Json<DescribeCollectionFeaturesResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let collection = app.collection(&tenant.scope, &collection_identifier).await?;
    let features = collection.vector_indexes.iter().enumerate().map(|(i, vector)| described(vector, i == 0)).collect();
    Ok(Json(DescribeCollectionFeaturesResponse { features }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_the_engine_with_what_it_sets_and_nothing_else() {
        let sent = json!({
            "name": "films",
            "description": null,
            "source": { "type": "none" },
            "vector_indexes": [{ "name": "mine", "dimension": 4 }],
        });
        let request: CreateCollectionRequest = serde_json::from_value(sent).unwrap();
        let fields = fields(&request).unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!((&fields["collection_name"], &fields["source"]["type"]), (&json!("films"), &json!("none")));
        assert_eq!(fields["vector_indexes"][0]["dimension"], 4);
    }
}
