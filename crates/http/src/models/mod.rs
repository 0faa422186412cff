//! The models that run here. Those of the registry belong to the server and serve every organization and namespace alike;
//! an organization may bring others, and enable them in its namespaces.

mod form;
mod namespaces;
mod organization;
mod uploads;
mod wire;

use crate::App;
use serde_json::Value;
use strata_engine::{
    inference::{InstallState, KnownModel, LOCAL, Runtime},
    org_models::OrgModel,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::{ModelFormat, ModelRegistryIdentity, ModelResourceRequirements};

/// Every model of the registry has one version: another one would be another model.
const VERSION: &str = "1.0.0";
/// What a model does that an organization brought, where it does not say so itself.
const EMBED_TEXT: &str = "embed_text";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(organization::list_models))
        .routes(routes!(organization::get_model, organization::delete_model))
        .routes(routes!(organization::download_model))
        .routes(routes!(uploads::create_model_upload))
        .routes(routes!(uploads::confirm_model_upload))
        .routes(routes!(namespaces::list_namespace_models, namespaces::upload_namespace_model))
        .routes(routes!(namespaces::list_available_models))
        .routes(routes!(namespaces::enable_org_model))
        .routes(routes!(namespaces::disable_org_model))
        .routes(routes!(namespaces::get_namespace_model, namespaces::delete_namespace_model))
        .routes(routes!(namespaces::deploy_namespace_model))
}

/// What every view of a model shows.
struct Facts {
    id: String,
    name: String,
    version: String,
    /// What it is called where a model is named.
    known_as: String,
    format: ModelFormat,
    description: Option<String>,
    /// `system` for those of the registry, `customer` for those that organizations bring.
    source: &'static str,
    framework: String,
    task: String,
    license: String,
    /// Of its files or its archive.
    hash: String,
    dimensions: Option<i64>,
    is_deployed: bool,
    validation_status: &'static str,
    resources: ModelResourceRequirements,
    created_at: String,
    updated_at: String,
}

impl Facts {
    /// `made` stands where the model has no files and so no time.
    fn of(model: KnownModel, made: &str) -> Self {
        let (format, framework) = match model.entry.runtime {
            Runtime::RtenOnnx => (ModelFormat::Onnx, "rten"),
            Runtime::RtenWhisper => (ModelFormat::Safetensors, "rten"),
            Runtime::CandleBert | Runtime::CandleClip => (ModelFormat::Safetensors, "candle"),
            Runtime::ConvNet | Runtime::Composed | Runtime::Native => (ModelFormat::Safetensors, LOCAL),
        };
        let task = serde_json::to_value(model.entry.task).ok();
        let since = model.installed_at.unwrap_or_else(|| made.to_owned());
        Self {
            id: model.entry.id.to_owned(),
            name: model.entry.id.to_owned(),
            version: VERSION.to_owned(),
            known_as: model.entry.id.to_owned(),
            format,
            description: Some(model.entry.summary.to_owned()),
            source: "system",
            framework: framework.to_owned(),
            task: task.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
            license: model.entry.licence.to_owned(),
            hash: model.hash,
            dimensions: Some(model.entry.dimensions as i64).filter(|numbers| *numbers > 0),
            is_deployed: model.state == InstallState::Installed && model.entry.loadable,
            validation_status: match model.state {
                InstallState::Installed => "passed",
                InstallState::Missing => "pending",
                InstallState::Damaged => "failed",
            },
            resources: ModelResourceRequirements::default(),
            created_at: since.clone(),
            updated_at: since,
        }
    }

    /// Of a model that an organization brought.
    fn brought(model: &OrgModel) -> Self {
        let text = |key: &str| model.body.get(key).and_then(Value::as_str).map(str::to_owned);
        let format = text("model_format").and_then(|format| ModelFormat::parse(&format)).unwrap_or(ModelFormat::Onnx);
        let runtime = if format == ModelFormat::Onnx { "rten" } else { "candle" };
        let resources = model.body.get("resource_requirements").cloned().unwrap_or_default();
        Self {
            id: model.model_id.clone(),
            name: model.name.clone(),
            version: model.version.clone(),
            known_as: model.full_name(),
            format,
            description: text("description"),
            source: "customer",
            framework: text("framework").unwrap_or_else(|| runtime.to_owned()),
            task: text("task_type").unwrap_or_else(|| EMBED_TEXT.to_owned()),
            license: String::new(),
            hash: model.archive_hash.clone(),
            dimensions: i64::try_from(model.dimensions).ok(),
            is_deployed: true,
            validation_status: "passed",
            resources: serde_json::from_value(resources).unwrap_or_default(),
            created_at: model.created_at.clone(),
            updated_at: model.updated_at.clone(),
        }
    }

    fn registry(&self) -> ModelRegistryIdentity {
        ModelRegistryIdentity {
            registry_id: self.id.clone(),
            shared_model_key: self.known_as.clone(),
            inference_service_id: self.known_as.clone(),
        }
    }
}
