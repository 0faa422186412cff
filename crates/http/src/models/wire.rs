//! Models as answers show them.

use crate::openapi::time;
use serde::Serialize;
use utoipa::ToSchema;

/// How the model's weights are stored.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelFormat {
    Safetensors,
    Onnx,
}

/// What the model is known as.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelRegistryIdentity {
    pub registry_id: String,
    pub shared_model_key: String,
    /// What `POST /v1/inference` takes as `inference_name`.
    pub inference_service_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OrgModelListItem {
    pub model_id: String,
    pub name: String,
    pub version: String,
    pub model_format: ModelFormat,
    pub description: String,
    /// Always `system`: models come with the server.
    pub source: String,
    pub exportable: bool,
    /// What runs it.
    pub framework: String,
    pub task_type: String,
    /// Whether its files are here, so that it can be asked.
    pub deployed: bool,
    /// `passed`, `pending` where it is not installed, or `failed` where a file is not what it should be.
    pub validation_status: String,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    pub registry: ModelRegistryIdentity,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OrgModelListResponse {
    pub success: bool,
    pub models: Vec<OrgModelListItem>,
    pub total: i64,
    pub organization_id: String,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub struct OrgModelDocument {
    pub model_id: String,
    pub organization_id: String,
    pub name: String,
    pub version: String,
    pub description: String,
    /// Always `system`.
    pub source: String,
    pub exportable: bool,
    /// SPDX identifier of the licence of the weights.
    pub license: String,
    /// Always empty: there is no archive.
    pub s3_archive_url: String,
    pub model_format: ModelFormat,
    /// SHA-256 over the hashes of its files; empty where they come from a hub.
    pub model_hash: String,
    pub validation_status: String,
    pub validation_errors: Vec<String>,
    pub deployed: bool,
    pub framework: String,
    pub task_type: String,
    /// Numbers of its vectors; left out where it makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    pub registry: ModelRegistryIdentity,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OrgModelDetailResponse {
    pub success: bool,
    pub model: OrgModelDocument,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelListItem {
    pub model_id: String,
    pub name: String,
    pub version: String,
    pub model_format: ModelFormat,
    pub source: String,
    pub framework: String,
    pub task_type: String,
    pub deployed: bool,
    /// Where it is asked.
    pub endpoint: String,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelListResponse {
    pub success: bool,
    pub models: Vec<ModelListItem>,
    pub total: i64,
    pub namespace_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AvailableOrgModelItem {
    pub model_id: String,
    pub name: String,
    pub version: String,
    pub model_format: ModelFormat,
    pub description: String,
    pub framework: String,
    pub task_type: String,
    /// Always `true`.
    pub enabled_in_namespace: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AvailableOrgModelsResponse {
    pub success: bool,
    pub models: Vec<AvailableOrgModelItem>,
    pub total: i64,
    pub namespace_id: String,
}

/// A model as a namespace has it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CustomModelDocument {
    pub model_id: String,
    pub namespace_id: String,
    pub name: String,
    pub version: String,
    /// Always empty: there is no archive.
    pub model_archive_url: String,
    pub model_format: ModelFormat,
    pub model_hash: String,
    pub deployed: bool,
    pub framework: String,
    pub task_type: String,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDetailResponse {
    pub success: bool,
    pub model: CustomModelDocument,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDeployResponse {
    pub success: bool,
    pub model_id: String,
    pub namespace_id: String,
    /// Always `deployed`.
    pub deployment_status: String,
    /// Whether it was in memory already.
    pub cached: bool,
    pub message: String,
}
