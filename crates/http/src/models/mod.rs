//! The models that run here. They belong to the server and serve every organization and namespace alike.

mod wire;

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
};
use axum::extract::State;
use serde_json::Value;
use strata_engine::inference::{InstallState, KnownModel, LOCAL, Runtime};
use strata_model::Permission;
use utoipa_axum::{router::OpenApiRouter, routes};
use wire::{AvailableOrgModelItem, AvailableOrgModelsResponse, CustomModelDocument, ModelDeployResponse, ModelDetailResponse, ModelFormat, ModelListItem, ModelListResponse, ModelRegistryIdentity, OrgModelDetailResponse, OrgModelDocument, OrgModelListItem, OrgModelListResponse};

/// Every model has one version: another one would be another model.
const VERSION: &str = "1.0.0";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_models))
        .routes(routes!(get_model))
        .routes(routes!(list_namespace_models))
        .routes(routes!(list_available_models))
        .routes(routes!(get_namespace_model))
        .routes(routes!(deploy_namespace_model))
}

/// What every view of a model shows.
struct Facts {
    format: ModelFormat,
    framework: &'static str,
    task: String,
    is_deployed: bool,
    validation_status: &'static str,
    since: String,
}

impl Facts {
    /// `made` stands where the model has no files and so no time.
    fn of(model: &KnownModel, made: &str) -> Self {
        let (format, framework) = match model.entry.runtime {
            Runtime::RtenOnnx => (ModelFormat::Onnx, "rten"),
            Runtime::RtenWhisper => (ModelFormat::Safetensors, "rten"),
            Runtime::CandleBert | Runtime::CandleClip => (ModelFormat::Safetensors, "candle"),
            Runtime::ConvNet | Runtime::Composed | Runtime::Native => (ModelFormat::Safetensors, LOCAL),
        };
        let task = serde_json::to_value(model.entry.task).ok();
        Self {
            format,
            framework,
            task: task.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
            is_deployed: model.state == InstallState::Installed && model.entry.loadable,
            validation_status: match model.state {
                InstallState::Installed => "passed",
                InstallState::Missing => "pending",
                InstallState::Damaged => "failed",
            },
            since: model.installed_at.clone().unwrap_or_else(|| made.to_owned()),
        }
    }
}

fn identity(id: &str) -> ModelRegistryIdentity {
    ModelRegistryIdentity { registry_id: id.into(), shared_model_key: id.into(), inference_service_id: id.into() }
}

/// List models
///
/// Those that this server knows, installed or not. `strata models pull` installs one. Providers' models are asked by
/// `provider/model` and not listed.
#[utoipa::path(get, path = "/v1/models", tag = "Models", responses((status = 200, body = OrgModelListResponse)))]
pub async fn list_models(State(app): State<App>, caller: Caller) -> Result<Json<OrgModelListResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let made = app.organization(&caller.0).await?.created_at;
    let item = |model: KnownModel| {
        let facts = Facts::of(&model, &made);
        OrgModelListItem {
            model_id: model.entry.id.into(),
            name: model.entry.id.into(),
            version: VERSION.into(),
            model_format: facts.format,
            description: model.entry.summary.into(),
            source: "system".into(),
            exportable: false,
            framework: facts.framework.into(),
            task_type: facts.task,
            deployed: facts.is_deployed,
            validation_status: facts.validation_status.into(),
            created_at: facts.since.clone(),
            updated_at: facts.since,
            registry: identity(model.entry.id),
        }
    };
    let models: Vec<OrgModelListItem> = app.models().await?.into_iter().map(item).collect();
    let (total, organization_id) = (models.len() as i64, caller.0.organization_id);
    Ok(Json(OrgModelListResponse { success: true, models, total, organization_id }))
}

/// Get a model
///
/// By its id or another of its names.
#[utoipa::path(get, path = "/v1/models/{model_id}", tag = "Models", params(("model_id" = String, Path)),
    responses((status = 200, body = OrgModelDetailResponse)))]
pub async fn get_model(
    State(app): State<App>,
    caller: Caller,
    Path(model_id): Path<String>,
) -> Result<Json<OrgModelDetailResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let model = app.model(&model_id).await?;
    let made = app.organization(&caller.0).await?.created_at;
    let facts = Facts::of(&model, &made);
    let model = OrgModelDocument {
        model_id: model.entry.id.into(),
        organization_id: caller.0.organization_id,
        name: model.entry.id.into(),
        version: VERSION.into(),
        description: model.entry.summary.into(),
        source: "system".into(),
        exportable: false,
        license: model.entry.licence.into(),
        s3_archive_url: String::new(),
        model_format: facts.format,
        model_hash: model.hash,
        validation_status: facts.validation_status.into(),
        validation_errors: Vec::new(),
        deployed: facts.is_deployed,
        framework: facts.framework.into(),
        task_type: facts.task,
        embedding_dim: Some(model.entry.dimensions as i64).filter(|numbers| *numbers > 0),
        created_at: facts.since.clone(),
        updated_at: facts.since,
        registry: identity(model.entry.id),
    };
    Ok(Json(OrgModelDetailResponse { success: true, model }))
}

/// List the models of a namespace
///
/// The same in every namespace.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/models", tag = "CustomModels", params(("namespace_id" = String, Path)),
    responses((status = 200, body = ModelListResponse)))]
pub async fn list_namespace_models(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
) -> Result<Json<ModelListResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    let endpoint = format!("{}/v1/inference", app.config().public_url);
    let item = |model: KnownModel| {
        let facts = Facts::of(&model, &namespace.created_at);
        ModelListItem {
            model_id: model.entry.id.into(),
            name: model.entry.id.into(),
            version: VERSION.into(),
            model_format: facts.format,
            source: "system".into(),
            framework: facts.framework.into(),
            task_type: facts.task,
            deployed: facts.is_deployed,
            endpoint: endpoint.clone(),
            created_at: facts.since.clone(),
            updated_at: facts.since,
        }
    };
    let models: Vec<ModelListItem> = app.models().await?.into_iter().map(item).collect();
    let total = models.len() as i64;
    Ok(Json(ModelListResponse { success: true, models, total, namespace_id: namespace.namespace_id }))
}

/// List the models that a namespace may use
///
/// All of them: none has to be enabled.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/models/available", tag = "CustomModels",
    params(("namespace_id" = String, Path)), responses((status = 200, body = AvailableOrgModelsResponse)))]
pub async fn list_available_models(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
) -> Result<Json<AvailableOrgModelsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    let item = |model: KnownModel| {
        let facts = Facts::of(&model, &namespace.created_at);
        AvailableOrgModelItem {
            model_id: model.entry.id.into(),
            name: model.entry.id.into(),
            version: VERSION.into(),
            model_format: facts.format,
            description: model.entry.summary.into(),
            framework: facts.framework.into(),
            task_type: facts.task,
            enabled_in_namespace: true,
        }
    };
    let models: Vec<AvailableOrgModelItem> = app.models().await?.into_iter().map(item).collect();
    let total = models.len() as i64;
    Ok(Json(AvailableOrgModelsResponse { success: true, models, total, namespace_id: namespace.namespace_id }))
}

/// Get a model of a namespace
///
/// By its id or another of its names.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/models/{model_id}", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)), responses((status = 200, body = ModelDetailResponse)))]
pub async fn get_namespace_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
) -> Result<Json<ModelDetailResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    let model = app.model(&model_id).await?;
    let facts = Facts::of(&model, &namespace.created_at);
    let model = CustomModelDocument {
        model_id: model.entry.id.into(),
        namespace_id: namespace.namespace_id,
        name: model.entry.id.into(),
        version: VERSION.into(),
        model_archive_url: String::new(),
        model_format: facts.format,
        model_hash: model.hash,
        deployed: facts.is_deployed,
        framework: facts.framework.into(),
        task_type: facts.task,
        created_at: facts.since.clone(),
        updated_at: facts.since,
    };
    Ok(Json(ModelDetailResponse { success: true, model }))
}

/// Load a model
///
/// A model is loaded when it is first asked; this loads it before. 503 says which command installs one that is not here.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/models/{model_id}/deploy", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)), responses((status = 200, body = ModelDeployResponse)))]
pub async fn deploy_namespace_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
) -> Result<Json<ModelDeployResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let namespace = app.namespace(&caller.0, &namespace_id).await?.namespace;
    let model_id = app.model(&model_id).await?.entry.id;
    let cached = app.load_model(model_id).await?;
    let message = if cached { "the model was loaded already" } else { "the model is loaded" };
    Ok(Json(ModelDeployResponse {
        success: true,
        model_id: model_id.into(),
        namespace_id: namespace.namespace_id,
        deployment_status: "deployed".into(),
        cached,
        message: message.into(),
    }))
}
