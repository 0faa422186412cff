//! What this server can do: its extractors, its stages, and what its resources take.

use crate::{
    App,
    extract::Json,
    openapi::any_object,
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::OnceLock};
use strata_engine::{extract, retrieval};
use strata_model::Fields;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_all_discovery))
        .routes(routes!(list_extractors))
        .routes(routes!(list_stages))
        .routes(routes!(get_manifest_schema))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DiscoveryResponse {
    pub extractors: Vec<ExtractorDiscovery>,
    pub stages: Vec<StageDiscovery>,
    pub manifest_schema: Option<ManifestSchemaDiscovery>,
}

/// A feature extractor.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExtractorDiscovery {
    pub name: String,
    pub version: String,
    pub description: String,
    /// Kinds of content it reads.
    pub supported_modalities: Vec<String>,
    pub supported_input_types: Vec<String>,
    /// The vectors that it makes with its default parameters.
    #[schema(value_type = Vec<Object>)]
    pub output_features: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub required_vector_indexes: Vec<Value>,
    #[schema(value_type = Object)]
    pub input_schema: Value,
    #[schema(value_type = Object)]
    pub parameter_schema: Value,
    #[schema(value_type = Object)]
    pub output_schema: Value,
    #[schema(value_type = Object)]
    pub default_parameters: Value,
    /// Fields in which an output says where in its input it lies.
    pub position_fields: Vec<String>,
    pub realtime_available: bool,
}

/// A retriever stage.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageDiscovery {
    pub stage_id: String,
    pub description: String,
    pub category: String,
    pub icon: String,
    #[schema(value_type = Option<Object>)]
    pub parameter_schema: Value,
    pub requires_collections: bool,
}

/// What resources take when they are made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ManifestSchemaDiscovery {
    pub manifest_version: String,
    pub resource_types: Vec<String>,
    /// JSON Schema by resource type.
    #[schema(schema_with = any_object)]
    pub schemas: Map<String, Value>,
    /// Resource types that each type needs first.
    pub dependency_graph: BTreeMap<String, Vec<String>>,
}

fn extractors() -> Vec<ExtractorDiscovery> {
    extract::definitions().iter().map(|definition| extractor(definition)).collect()
}

fn extractor(definition: &extract::Definition) -> ExtractorDiscovery {
    let defaults = (definition.default_parameters)();
    let parameters: Fields = defaults.as_object().cloned().unwrap_or_default();
    let vectors = definition.shape(&parameters).map(|shape| shape.vectors).unwrap_or_default();
    let vectors: Vec<Value> = vectors
        .iter()
        .map(|v| json!({ "name": v.name, "feature_uri": v.feature_uri, "dimensions": v.dimensions, "model": v.model }))
        .collect();
    let inputs: Vec<String> = definition.input_types.iter().map(|kind| kind.as_str().to_owned()).collect();
    ExtractorDiscovery {
        name: definition.name.into(),
        version: definition.version.into(),
        description: definition.description.into(),
        supported_modalities: inputs.clone(),
        supported_input_types: inputs,
        output_features: vectors.clone(),
        required_vector_indexes: vectors,
        input_schema: (definition.input_schema)(),
        parameter_schema: (definition.parameter_schema)(),
        output_schema: (definition.output_schema)(),
        default_parameters: defaults,
        position_fields: definition.position_fields.iter().map(|field| (*field).to_owned()).collect(),
        realtime_available: true,
    }
}

fn stages() -> Vec<StageDiscovery> {
    let stage = |definition: &retrieval::StageDefinition| StageDiscovery {
        stage_id: definition.stage_id.into(),
        description: definition.description.into(),
        category: definition.category.as_str().into(),
        icon: definition.icon.into(),
        parameter_schema: (definition.parameter_schema)(),
        requires_collections: definition.category == retrieval::Category::Filter,
    };
    retrieval::registry().iter().map(stage).collect()
}

/// The resources, the paths that make them, and what each needs first.
const RESOURCES: [(&str, &str, &[&str]); 4] = [
    ("namespace", "/v1/namespaces", &[]),
    ("bucket", "/v1/buckets", &["namespace"]),
    ("collection", "/v1/collections", &["namespace", "bucket"]),
    ("retriever", "/v1/retrievers", &["namespace", "collection"]),
];

/// Taken from the server's own OpenAPI document, so that it cannot say anything else.
fn manifest() -> ManifestSchemaDiscovery {
    static MADE: OnceLock<ManifestSchemaDiscovery> = OnceLock::new();
    let make = || {
        let document = serde_json::to_value(crate::openapi()).unwrap_or_default();
        let schema = |path: &str| {
            let body = document["paths"][path]["post"].pointer("/requestBody/content/application~1json/schema")?;
            let name = body.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
            name.map_or(Some(body), |pointer| document.pointer(pointer)).cloned()
        };
        let made = RESOURCES.iter().filter_map(|(kind, path, _)| Some(((*kind).to_owned(), schema(path)?)));
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        ManifestSchemaDiscovery {
            manifest_version: "1.0".into(),
            resource_types: RESOURCES.iter().map(|(kind, ..)| (*kind).to_owned()).collect(),
            schemas: made.collect(),
            dependency_graph: RESOURCES.iter().map(|(kind, _, needs)| ((*kind).to_owned(), owned(needs))).collect(),
        }
    };
    MADE.get_or_init(make).clone()
}

/// Everything at once
///
/// Extractors, stages and the schemas of resources.
#[utoipa::path(get, path = "/v1/discovery", tag = "Discovery", responses((status = 200, body = DiscoveryResponse)))]
pub async fn get_all_discovery() -> Json<DiscoveryResponse> {
    Json(DiscoveryResponse { extractors: extractors(), stages: stages(), manifest_schema: Some(manifest()) })
}

/// List extractors
///
/// The feature extractors that collections can use, with their parameters and the vectors they make.
#[utoipa::path(get, path = "/v1/discovery/extractors", tag = "Discovery", responses((status = 200, body = Vec<ExtractorDiscovery>)))]
pub async fn list_extractors() -> Json<Vec<ExtractorDiscovery>> {
    Json(extractors())
}

/// List stages
///
/// The stages that retrievers can be made of, with their parameters.
#[utoipa::path(get, path = "/v1/discovery/stages", tag = "Discovery", responses((status = 200, body = Vec<StageDiscovery>)))]
pub async fn list_stages() -> Json<Vec<StageDiscovery>> {
    Json(stages())
}

/// Schemas of resources
///
/// What each resource takes when it is made, and which resources it needs first.
#[utoipa::path(get, path = "/v1/discovery/schema", tag = "Discovery", responses((status = 200, body = ManifestSchemaDiscovery)))]
pub async fn get_manifest_schema() -> Json<ManifestSchemaDiscovery> {
    Json(manifest())
}
