//! Feature extractors: what collections can make of their inputs, and the vectors that come of it.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use strata_engine::{
    extract::{self, Definition},
    extractors::Registered,
};
use strata_model::{
    Error, Fields, Permission,
    feature::{Distance, FeatureUri, VectorIndex, VectorKind},
};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(discover_features))
        .routes(routes!(list_feature_extractors))
        .routes(routes!(get_feature_extractor))
        .routes(routes!(list_namespace_extractors, register_extractor))
        .routes(routes!(get_namespace_extractor, remove_extractor))
}

/// A named vector that documents carry.
#[derive(Debug, Serialize, ToSchema)]
pub struct VectorIndexDefinition {
    pub name: String,
    /// What searches ask for.
    #[schema(example = "mixpeek://text_extractor@v1/all_minilm_l6_v2_v1")]
    pub feature_uri: String,
    pub description: String,
    /// Always `single`: one index under the name.
    #[serde(rename = "type")]
    pub kind: String,
    pub index: VectorIndexSettings,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct VectorIndexSettings {
    pub name: String,
    pub description: String,
    /// Numbers of a vector; null for sparse ones.
    pub dimensions: Option<usize>,
    /// `dense`, `sparse` or `multi_dense`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `cosine`, `dot` or `euclidean`.
    pub distance: String,
    pub datatype: String,
    /// What the extractor reads to make the vector; null where callers bring it.
    pub supported_inputs: Option<Vec<String>>,
    /// The model that makes the vector; null where callers bring it.
    pub inference_name: Option<String>,
    pub supports_multi_query: bool,
}

impl From<&VectorIndex> for VectorIndexSettings {
    fn from(vector: &VectorIndex) -> Self {
        let (kind, form) = match vector.kind {
            VectorKind::Dense => ("dense", "Dense vectors"),
            VectorKind::Sparse => ("sparse", "Sparse vectors"),
            VectorKind::MultiDense => ("multi_dense", "Lists of dense vectors"),
        };
        let distance = match vector.distance {
            Distance::Cosine => "cosine",
            Distance::Dot => "dot",
            Distance::Euclidean => "euclidean",
        };
        let model = Some(vector.model.clone()).filter(|model| !model.is_empty());
        let origin = match &model {
            Some(model) => format!("made by the model `{model}`"),
            None => "brought by the caller".to_owned(),
        };
        Self {
            name: vector.name.clone(),
            description: format!("{form}, {origin}"),
            dimensions: vector.dimensions,
            kind: kind.into(),
            distance: distance.into(),
            datatype: "float32".into(),
            supported_inputs: maker(vector).map(input_types),
            inference_name: model,
            supports_multi_query: false,
        }
    }
}

impl From<&VectorIndex> for VectorIndexDefinition {
    fn from(vector: &VectorIndex) -> Self {
        let index = VectorIndexSettings::from(vector);
        Self {
            name: vector.name.clone(),
            feature_uri: vector.feature_uri.clone(),
            description: index.description.clone(),
            kind: "single".into(),
            index,
        }
    }
}

/// The built-in extractor that makes a vector; `None` where callers bring it.
pub(crate) fn maker(vector: &VectorIndex) -> Option<&'static Definition> {
    let Ok(FeatureUri::Extractor { extractor, version, .. }) = FeatureUri::parse(&vector.feature_uri) else {
        return None;
    };
    Definition::find(&format!("{extractor}_{version}"))
}

fn input_types(definition: &Definition) -> Vec<String> {
    definition.input_types.iter().map(|kind| kind.as_str().to_owned()).collect()
}

/// The vectors that an extractor makes with its default parameters.
fn default_vectors(definition: &Definition) -> Vec<VectorIndex> {
    let parameters: Fields = (definition.default_parameters)().as_object().cloned().unwrap_or_default();
    definition.shape(&parameters).map(|shape| shape.vectors).unwrap_or_default()
}

/// A feature extractor.
#[derive(Debug, Serialize, ToSchema)]
pub struct FeatureExtractorResponse {
    pub feature_extractor_name: String,
    pub version: String,
    pub feature_extractor_id: String,
    /// `builtin`, or `custom` for one that runs in another process.
    pub source: String,
    pub description: String,
    pub icon: String,
    pub category: String,
    #[schema(value_type = Object)]
    pub input_schema: Value,
    #[schema(value_type = Object)]
    pub output_schema: Value,
    #[schema(value_type = Object)]
    pub parameter_schema: Value,
    pub supported_input_types: Vec<String>,
    /// Inputs that one run reads, by their type; empty where there is no bound.
    pub max_inputs: BTreeMap<String, i64>,
    #[schema(value_type = Object)]
    pub default_parameters: Value,
    /// The vectors that it makes with its default parameters.
    pub required_vector_indexes: Vec<VectorIndexDefinition>,
    /// Always empty: documents are filtered by any field.
    #[schema(value_type = Vec<Object>)]
    pub required_payload_indexes: Vec<Value>,
    /// Fields in which an output says where in its input it lies.
    pub position_fields: Vec<String>,
    /// What searches ask for; null where it makes no vector by default.
    pub feature_uri: Option<String>,
    pub realtime_available: bool,
    /// Where a custom extractor listens; null for one that is built in.
    pub endpoint: Option<String>,
    /// What a custom extractor says of its code and weights.
    pub fingerprint: Option<String>,
    /// When a custom extractor was registered.
    pub created_at: Option<String>,
    /// When it was last registered anew.
    pub updated_at: Option<String>,
}

impl From<&Registered> for FeatureExtractorResponse {
    fn from(registered: &Registered) -> Self {
        let custom = &registered.custom;
        let description = &custom.description;
        let defaults = custom.default_parameters();
        let parameters = defaults.as_object().cloned().unwrap_or_default();
        let vectors = custom.shape(&parameters).map(|shape| shape.vectors).unwrap_or_default();
        let kinds = description.inputs.values().map(|input| input.kind.as_str().to_owned());
        let inputs: Vec<String> = kinds.collect::<BTreeSet<_>>().into_iter().collect();
        Self {
            feature_extractor_name: description.name.clone(),
            version: description.version.clone(),
            feature_extractor_id: custom.id(),
            source: "custom".into(),
            description: description.description.clone(),
            icon: "box".into(),
            category: description.category.clone(),
            input_schema: custom.input_schema(),
            output_schema: custom.output_schema(),
            parameter_schema: custom.parameter_schema(),
            supported_input_types: inputs,
            max_inputs: BTreeMap::new(),
            default_parameters: defaults,
            required_vector_indexes: vectors.iter().map(VectorIndexDefinition::from).collect(),
            required_payload_indexes: Vec::new(),
            position_fields: Vec::new(),
            feature_uri: vectors.first().map(|vector| vector.feature_uri.clone()),
            realtime_available: false,
            endpoint: Some(registered.endpoint.clone()),
            fingerprint: Some(description.fingerprint.clone()),
            created_at: Some(registered.created_at.clone()),
            updated_at: Some(registered.updated_at.clone()),
        }
    }
}

impl From<&Definition> for FeatureExtractorResponse {
    fn from(definition: &Definition) -> Self {
        let vectors = default_vectors(definition);
        let inputs = input_types(definition);
        let bounded = inputs.iter().filter(|_| !definition.reads_source);
        Self {
            feature_extractor_name: definition.name.into(),
            version: definition.version.into(),
            feature_extractor_id: definition.id(),
            source: "builtin".into(),
            description: definition.description.into(),
            icon: definition.icon.into(),
            category: definition.category.into(),
            input_schema: (definition.input_schema)(),
            output_schema: (definition.output_schema)(),
            parameter_schema: (definition.parameter_schema)(),
            max_inputs: bounded.map(|kind| (kind.clone(), 1)).collect(),
            supported_input_types: inputs,
            default_parameters: (definition.default_parameters)(),
            required_vector_indexes: vectors.iter().map(VectorIndexDefinition::from).collect(),
            required_payload_indexes: Vec::new(),
            position_fields: definition.position_fields.iter().map(|field| (*field).to_owned()).collect(),
            feature_uri: vectors.first().map(|vector| vector.feature_uri.clone()),
            realtime_available: true,
            endpoint: None,
            fingerprint: None,
            created_at: None,
            updated_at: None,
        }
    }
}

fn all_extractors() -> Vec<FeatureExtractorResponse> {
    extract::definitions().iter().map(|definition| FeatureExtractorResponse::from(*definition)).collect()
}

fn extractor(identifier: &str) -> Result<Json<FeatureExtractorResponse>, ApiError> {
    let found = Definition::find(identifier).ok_or_else(|| Error::missing("feature extractor", identifier))?;
    Ok(Json(found.into()))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct FeatureDiscoveryResponse {
    pub modalities: Vec<ModalityFeatures>,
    /// Always empty: extractors are built in.
    #[schema(value_type = Vec<Object>)]
    pub custom_features: Vec<Value>,
    /// Always 1: nothing is billed, so full resolution costs no more.
    pub full_res_multiplier: f64,
}

/// What can be made of one kind of content.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModalityFeatures {
    #[schema(example = "text")]
    pub modality: String,
    pub features: Vec<DiscoveredFeature>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DiscoveredFeature {
    pub feature_extractor_name: String,
    pub version: String,
    pub feature_extractor_id: String,
    pub description: String,
    /// The vectors that come of it, as searches ask for them.
    pub feature_uris: Vec<String>,
}

impl From<&Definition> for DiscoveredFeature {
    fn from(definition: &Definition) -> Self {
        Self {
            feature_extractor_name: definition.name.into(),
            version: definition.version.into(),
            feature_extractor_id: definition.id(),
            description: definition.description.into(),
            feature_uris: default_vectors(definition).into_iter().map(|vector| vector.feature_uri).collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ExtractorListResponse {
    pub success: bool,
    pub extractors: Vec<FeatureExtractorResponse>,
    pub total: usize,
    pub namespace_id: String,
    pub builtin_count: usize,
    pub custom_count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExtractorSource {
    Builtin,
    Custom,
    All,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ExtractorParameters {
    /// Where extractors come from; `all` where this is left out.
    #[param(inline)]
    source: Option<ExtractorSource>,
}

/// Discover features
///
/// What can be made of each kind of content.
#[utoipa::path(get, path = "/v1/collections/features", tag = "Features", responses((status = 200, body = FeatureDiscoveryResponse)))]
pub async fn discover_features() -> Json<FeatureDiscoveryResponse> {
    let mut modalities: BTreeMap<String, Vec<DiscoveredFeature>> = BTreeMap::new();
    for definition in extract::definitions() {
        for modality in input_types(definition) {
            modalities.entry(modality).or_default().push(DiscoveredFeature::from(*definition));
        }
    }
    let modalities = modalities.into_iter().map(|(modality, features)| ModalityFeatures { modality, features });
    Json(FeatureDiscoveryResponse {
        modalities: modalities.collect(),
        custom_features: Vec::new(),
        full_res_multiplier: 1.0,
    })
}

/// List feature extractors
///
/// Every extractor that a collection can use, with its parameters and the vectors it makes.
#[utoipa::path(get, path = "/v1/collections/features/extractors", tag = "FeatureExtractors", responses((status = 200, body = Vec<FeatureExtractorResponse>)))]
pub async fn list_feature_extractors() -> Json<Vec<FeatureExtractorResponse>> {
    Json(all_extractors())
}

/// Get a feature extractor
///
/// By id, such as `text_extractor_v1`, or by name.
#[utoipa::path(get, path = "/v1/collections/features/extractors/{feature_extractor_id}", tag = "FeatureExtractors", responses((status = 200, body = FeatureExtractorResponse)))]
pub async fn get_feature_extractor(
    Path(feature_extractor_id): Path<String>,
) -> Result<Json<FeatureExtractorResponse>, ApiError> {
    extractor(&feature_extractor_id)
}

/// List extractors of a namespace
///
/// Those that are built in, which every namespace can use, and those that are registered in this one.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/extractors", tag = "NamespaceExtractors",
    params(
        ("namespace_id" = String, Path, description = "Id or name."),
        ExtractorParameters,
        ("include_disabled" = Option<bool>, Query, description = "Changes nothing: no extractor can be disabled."),
    ),
    responses((status = 200, body = ExtractorListResponse)))]
pub async fn list_namespace_extractors(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
    Query(query): Query<ExtractorParameters>,
) -> Result<Json<ExtractorListResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    let source = query.source.unwrap_or(ExtractorSource::All);
    let mut extractors = match source {
        ExtractorSource::Custom => Vec::new(),
        ExtractorSource::Builtin | ExtractorSource::All => all_extractors(),
    };
    let builtin_count = extractors.len();
    if source != ExtractorSource::Builtin {
        let custom = app.registered_extractors(&namespace.scope()).await?;
        extractors.extend(custom.iter().map(FeatureExtractorResponse::from));
    }
    let total = extractors.len();
    let namespace_id = namespace.namespace_id;
    Ok(Json(ExtractorListResponse {
        success: true,
        extractors,
        total,
        namespace_id,
        builtin_count,
        custom_count: total - builtin_count,
    }))
}

/// Get an extractor of a namespace
///
/// By id, such as `text_extractor_v1`, or by name.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/extractors/{extractor_id}", tag = "NamespaceExtractors", responses((status = 200, body = FeatureExtractorResponse)))]
pub async fn get_namespace_extractor(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, extractor_id)): Path<(String, String)>,
) -> Result<Json<FeatureExtractorResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    match Definition::find(&extractor_id) {
        Some(definition) => Ok(Json(definition.into())),
        None => Ok(Json((&app.registered_extractor(&namespace.scope(), &extractor_id).await?).into())),
    }
}

/// A custom extractor to be.
#[derive(Debug, Deserialize, ToSchema)]
pub struct RegisterExtractorRequest {
    /// Where it listens: `http://host:port`, or `unix:/path/of/a/socket`. The server is started with the endpoints that
    /// may be named.
    #[schema(example = "http://127.0.0.1:9100")]
    pub endpoint: String,
}

/// Register an extractor
///
/// Asks a process what extractor it is and lets collections of the namespace use it. Registering it again takes note of a
/// new fingerprint, under which objects are derived anew when they are processed.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/extractors", tag = "NamespaceExtractors",
    params(("namespace_id" = String, Path, description = "Id or name.")),
    request_body = RegisterExtractorRequest,
    responses((status = 200, body = FeatureExtractorResponse)))]
pub async fn register_extractor(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
    Json(request): Json<RegisterExtractorRequest>,
) -> Result<Json<FeatureExtractorResponse>, ApiError> {
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    caller.may(Permission::Admin)?;
    Ok(Json((&app.register_extractor(&namespace.scope(), &request.endpoint).await?).into()))
}

/// Remove an extractor
///
/// Forgets a registered extractor. One that a collection uses stays.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace_id}/extractors/{extractor_id}", tag = "NamespaceExtractors",
    params(
        ("namespace_id" = String, Path, description = "Id or name."),
        ("extractor_id" = String, Path, description = "Name, or name and version as in `tone_v1`."),
    ),
    responses((status = 200, body = FeatureExtractorResponse)))]
pub async fn remove_extractor(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, extractor_id)): Path<(String, String)>,
) -> Result<Json<FeatureExtractorResponse>, ApiError> {
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    caller.may(Permission::Admin)?;
    Ok(Json((&app.remove_extractor(&namespace.scope(), &extractor_id).await?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extractor_is_found_under_its_id_and_makes_its_own_vectors() {
        for definition in extract::definitions() {
            assert_eq!(extractor(&definition.id()).unwrap().0.feature_extractor_name, definition.name);
            for vector in default_vectors(definition) {
                assert_eq!(maker(&vector).map(|d| d.name), Some(definition.name));
            }
        }
        assert!(extractor("nobody_v1").is_err());
    }
}
