//! Models as answers show them.

use crate::openapi::time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strata_engine::org_models::NewModel;
use strata_model::{Error, FieldError, Fields, Result};
use utoipa::ToSchema;

/// How the model's weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelFormat {
    Safetensors,
    Onnx,
    /// Refused: these files run code when they are read.
    Pytorch,
    /// Safetensors with a `config.json`.
    Huggingface,
}

impl ModelFormat {
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Safetensors, Self::Onnx, Self::Pytorch, Self::Huggingface];
        all.into_iter().find(|format| format.as_str() == text)
    }
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Onnx => "onnx",
            Self::Pytorch => "pytorch",
            Self::Huggingface => "huggingface",
        }
    }
}

/// What a model would take. Kept and shown: every model runs in the server's own process.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ModelResourceRequirements {
    #[schema(minimum = 0.1, maximum = 64.0)]
    pub num_cpus: f64,
    #[schema(minimum = 0, maximum = 8)]
    pub num_gpus: i64,
    /// Bytes.
    pub memory: i64,
}

impl Default for ModelResourceRequirements {
    fn default() -> Self {
        Self { num_cpus: 1.0, num_gpus: 0, memory: 4 << 30 }
    }
}

impl ModelResourceRequirements {
    /// `Invalid`, with what is out of its bounds.
    pub fn check(&self, at: &str) -> Result<()> {
        let mut wrong = Vec::new();
        if !(0.1..=64.0).contains(&self.num_cpus) {
            wrong.push(FieldError::new(format!("{at}.num_cpus"), "must be from 0.1 to 64"));
        }
        if !(0..=8).contains(&self.num_gpus) {
            wrong.push(FieldError::new(format!("{at}.num_gpus"), "must be from 0 to 8"));
        }
        if self.memory < 0 {
            wrong.push(FieldError::new(format!("{at}.memory"), "must be a number of bytes"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
    }

    /// As it is kept.
    pub fn checked(self, at: &str) -> Result<Fields> {
        self.check(at)?;
        match serde_json::to_value(self).map_err(Error::internal)? {
            Value::Object(fields) => Ok(fields),
            other => Err(Error::internal(format!("{other} is no object"))),
        }
    }
}

/// A model that will come.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateModelUploadRequest {
    #[schema(pattern = "^[a-zA-Z][a-zA-Z0-9_]{2,63}$", example = "my_embedder")]
    pub name: String,
    #[schema(pattern = r"^\d+\.\d+\.\d+$", example = "1.0.0")]
    pub version: String,
    pub model_format: ModelFormat,
    #[schema(max_length = 500)]
    pub description: Option<String>,
    /// What comes must have this size; at most 2 GiB.
    #[schema(minimum = 1)]
    pub file_size_bytes: Option<u64>,
    /// Seconds that the URL works; 3600 where it is left out.
    #[schema(minimum = 60, maximum = 86_400)]
    pub presigned_url_expiration: Option<i64>,
    pub resource_requirements: Option<ModelResourceRequirements>,
    #[schema(max_length = 100)]
    pub framework: Option<String>,
    #[schema(max_length = 100)]
    pub task_type: Option<String>,
    /// Taken from clients that send their default, `customer`.
    #[expect(dead_code, reason = "what organizations bring is always theirs")]
    source: Option<String>,
}

impl TryFrom<CreateModelUploadRequest> for NewModel {
    type Error = Error;

    fn try_from(request: CreateModelUploadRequest) -> Result<Self> {
        Ok(Self {
            name: request.name,
            version: request.version,
            model_format: request.model_format.as_str().to_owned(),
            description: request.description,
            framework: request.framework,
            task_type: request.task_type,
            resource_requirements: request.resource_requirements.unwrap_or_default().checked("resource_requirements")?,
            file_size_bytes: request.file_size_bytes,
            expiration_seconds: request.presigned_url_expiration,
        })
    }
}

/// A model in one request.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "describes a form, which is read field by field")]
pub struct UploadModelForm {
    /// The archive, as a file or in base64.
    file: String,
    #[schema(example = "my_embedder")]
    name: String,
    #[schema(example = "1.0.0")]
    version: String,
    model_format: ModelFormat,
    framework: Option<String>,
    task_type: Option<String>,
    num_cpus: Option<f64>,
    num_gpus: Option<i64>,
    memory_gb: Option<f64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelPresignedURLResponse {
    pub upload_id: String,
    /// Takes the archive by `PUT`, as the body itself.
    pub presigned_url: String,
    pub required_content_type: String,
    pub s3_key: String,
    #[schema(schema_with = time)]
    pub expires_at: String,
    pub organization_id: String,
    pub name: String,
    pub version: String,
    pub model_format: ModelFormat,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ConfirmModelUploadRequest {
    /// What the `PUT` answered; the archive that came must have it.
    pub etag: Option<String>,
    pub file_size_bytes: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ConfirmModelUploadResponse {
    /// Whether there is a model now.
    pub success: bool,
    pub upload_id: String,
    pub model_id: Option<String>,
    /// `passed` or `failed`.
    pub validation_status: String,
    /// What is wrong with the archive, each with the name in it that is meant.
    pub validation_errors: Option<Vec<String>>,
    pub s3_archive_url: Option<String>,
    pub message: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OrgModelDeleteResponse {
    pub success: bool,
    pub model_id: String,
    pub message: String,
}

/// Where an archive can be read.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDownloadResponse {
    pub success: bool,
    pub model_id: String,
    pub download_url: String,
    /// The same.
    pub presigned_url: String,
    /// Seconds that the URL works.
    pub expires_in: i64,
    /// SHA-256 of the archive, hex.
    pub model_hash: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelUploadResponse {
    pub success: bool,
    pub model_id: String,
    /// Always `deployed`: the model ran and can be asked.
    pub deployment_status: String,
    /// Where it is asked.
    pub endpoint: String,
    /// A signed URL of the archive.
    pub model_archive_url: String,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct EnableOrgModelRequest {
    /// Load it, too.
    pub deploy: Option<bool>,
    /// Checked and not used: every model runs in the server's own process.
    pub resource_overrides: Option<ModelResourceRequirements>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct EnableOrgModelResponse {
    pub success: bool,
    pub model_id: String,
    pub namespace_id: String,
    /// `deployed` where it is in memory, else `not_deployed`: it is loaded when it is first asked.
    pub deployment_status: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DisableOrgModelResponse {
    pub success: bool,
    pub model_id: String,
    pub namespace_id: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ModelDeleteResponse {
    pub success: bool,
    pub model_id: String,
    pub message: String,
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
    pub description: Option<String>,
    /// `system` for those that come with the server, `customer` for those that the organization brought.
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
    pub description: Option<String>,
    /// `system` or `customer`.
    pub source: String,
    pub exportable: bool,
    /// SPDX identifier of the licence of the weights; empty where nobody said.
    pub license: String,
    /// A signed URL of the archive; empty where there is none, since the model comes with the server.
    pub s3_archive_url: String,
    pub model_format: ModelFormat,
    /// SHA-256 of the archive, or over the hashes of its files; empty where they come from a hub.
    pub model_hash: String,
    pub validation_status: String,
    pub validation_errors: Vec<String>,
    pub deployed: bool,
    pub framework: String,
    pub task_type: String,
    /// Numbers of its vectors; left out where it makes none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_dim: Option<i64>,
    pub resource_requirements: ModelResourceRequirements,
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
    pub description: Option<String>,
    pub framework: String,
    pub task_type: String,
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
    /// A signed URL of the archive; empty where there is none, since the model comes with the server.
    pub model_archive_url: String,
    pub model_format: ModelFormat,
    pub model_hash: String,
    pub deployed: bool,
    pub framework: String,
    pub task_type: String,
    pub resource_requirements: ModelResourceRequirements,
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
