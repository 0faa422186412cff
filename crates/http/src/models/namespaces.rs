//! Models as a namespace has them: those of the server, and those of its organization that are enabled in it.

use super::{
    Facts, form,
    wire::{
        AvailableOrgModelItem, AvailableOrgModelsResponse, CustomModelDocument, DisableOrgModelResponse,
        EnableOrgModelRequest, EnableOrgModelResponse, ModelDeleteResponse, ModelDeployResponse, ModelDetailResponse,
        ModelListItem, ModelListResponse, ModelUploadResponse, UploadModelForm,
    },
};
use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
};
use axum::{
    body::Body,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use strata_engine::Engine;
use strata_model::{Error, Permission, Scope};

/// Where models are asked.
fn endpoint(app: &App) -> String {
    format!("{}/v1/inference", app.config().public_url)
}

/// The namespace that a path names, and when it was made.
async fn entered(app: &App, caller: &Caller, namespace_id: &str) -> Result<(Scope, String), ApiError> {
    let namespace = app.namespace(&caller.0, namespace_id).await?.namespace;
    Ok((namespace.scope(), namespace.created_at))
}

/// List the models of a namespace
///
/// Those of the server, which are the same in every namespace, then those of the organization that are enabled in this one.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/models", tag = "CustomModels", params(("namespace_id" = String, Path)),
    responses((status = 200, body = ModelListResponse)))]
pub async fn list_namespace_models(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
) -> Result<Json<ModelListResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let (scope, made) = entered(&app, &caller, &namespace_id).await?;
    let endpoint = endpoint(&app);
    let known = app.models().await?.into_iter().map(|model| Facts::of(model, &made));
    let brought = app.models_for_namespace(&scope).await?;
    let enabled = brought.iter().filter(|(_, is_enabled)| *is_enabled).map(|(model, _)| Facts::brought(model));
    let item = |facts: Facts| ModelListItem {
        model_id: facts.id,
        name: facts.name,
        version: facts.version,
        model_format: facts.format,
        source: facts.source.into(),
        framework: facts.framework,
        task_type: facts.task,
        deployed: facts.is_deployed,
        endpoint: endpoint.clone(),
        created_at: facts.created_at,
        updated_at: facts.updated_at,
    };
    let models: Vec<ModelListItem> = known.chain(enabled).map(item).collect();
    let total = models.len() as i64;
    Ok(Json(ModelListResponse { success: true, models, total, namespace_id: scope.namespace_id }))
}

/// Upload a model into a namespace
///
/// The same as `POST /v1/models/uploads` at once, for an archive of at most 64 MiB: the model is the organization's, and
/// enabled in this namespace. 422 says what is wrong with the archive, 409 that the name has this version already. Needs
/// `admin`.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/models", tag = "CustomModels",
    params(("namespace_id" = String, Path)),
    request_body(content = UploadModelForm, content_type = "multipart/form-data"),
    responses((status = 200, body = ModelUploadResponse)))]
pub async fn upload_namespace_model(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ModelUploadResponse>, Response> {
    let refused = |error: ApiError| error.into_response();
    caller.may(Permission::Write).map_err(refused)?;
    let (scope, _) = entered(&app, &caller, &namespace_id).await.map_err(refused)?;
    caller.may(Permission::Admin).map_err(refused)?;
    let fields = form::read(&headers, body).await?;
    let (new, archive) = form::model(&fields).map_err(|error| refused(error.into()))?;
    let model = app.add_namespace_model(&scope, new, archive).await.map_err(|error| refused(error.into()))?;
    let url = app.model_archive_url(&model).map_err(|error| refused(error.into()))?;
    Ok(Json(ModelUploadResponse {
        success: true,
        model_id: model.model_id,
        deployment_status: "deployed".into(),
        endpoint: endpoint(&app),
        model_archive_url: url,
    }))
}

/// List the models that a namespace may use
///
/// Those of the server are enabled everywhere; those of the organization where somebody has enabled them.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/models/available", tag = "CustomModels",
    params(("namespace_id" = String, Path)), responses((status = 200, body = AvailableOrgModelsResponse)))]
pub async fn list_available_models(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
) -> Result<Json<AvailableOrgModelsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let (scope, made) = entered(&app, &caller, &namespace_id).await?;
    let known = app.models().await?.into_iter().map(|model| (Facts::of(model, &made), true));
    let brought = app.models_for_namespace(&scope).await?;
    let brought = brought.iter().map(|(model, is_enabled)| (Facts::brought(model), *is_enabled));
    let item = |(facts, enabled_in_namespace): (Facts, bool)| AvailableOrgModelItem {
        model_id: facts.id,
        name: facts.name,
        version: facts.version,
        model_format: facts.format,
        description: facts.description,
        framework: facts.framework,
        task_type: facts.task,
        enabled_in_namespace,
    };
    let models: Vec<AvailableOrgModelItem> = known.chain(brought).map(item).collect();
    let total = models.len() as i64;
    Ok(Json(AvailableOrgModelsResponse { success: true, models, total, namespace_id: scope.namespace_id }))
}

/// Enable a model in a namespace
///
/// One that the organization brought: collections and retrievers of this namespace may name it from now on. With `deploy` it
/// is loaded, too. Models of the server are enabled everywhere.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/models/org/{model_id}/enable", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)),
    responses((status = 200, body = EnableOrgModelResponse)))]
pub async fn enable_org_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
    Json(request): Json<EnableOrgModelRequest>,
) -> Result<Json<EnableOrgModelResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let (scope, _) = entered(&app, &caller, &namespace_id).await?;
    if let Some(resources) = &request.resource_overrides {
        resources.check("resource_overrides")?;
    }
    if !Engine::is_org_model(&model_id) {
        let known = app.model(&model_id).await?.entry.id;
        return Err(Error::Conflict(format!("`{known}` comes with the server and is enabled everywhere")).into());
    }
    let model = app.enable_model(&scope, &model_id).await?;
    if request.deploy.unwrap_or(false) {
        app.load_org_model(&scope, &model.model_id).await?;
    }
    let is_loaded = app.is_org_model_loaded(&model.model_id);
    Ok(Json(EnableOrgModelResponse {
        success: true,
        message: format!("`{}` may be named in this namespace", model.full_name()),
        model_id: model.model_id,
        namespace_id: scope.namespace_id,
        deployment_status: if is_loaded { "deployed" } else { "not_deployed" }.into(),
    }))
}

/// Disable a model in a namespace
///
/// 409 says which collections use it.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/models/org/{model_id}/disable", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)),
    responses((status = 200, body = DisableOrgModelResponse)))]
pub async fn disable_org_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
) -> Result<Json<DisableOrgModelResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let (scope, _) = entered(&app, &caller, &namespace_id).await?;
    if !Engine::is_org_model(&model_id) {
        let known = app.model(&model_id).await?.entry.id;
        return Err(Error::Conflict(format!("`{known}` comes with the server and is enabled everywhere")).into());
    }
    let model = app.disable_model(&scope, &model_id).await?;
    Ok(Json(DisableOrgModelResponse {
        success: true,
        message: format!("`{}` may not be named in this namespace any more", model.full_name()),
        model_id: model.model_id,
        namespace_id: scope.namespace_id,
    }))
}

/// Get a model of a namespace
///
/// By its id or another of its names. 409 for one of the organization that is not enabled here.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/models/{model_id}", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)), responses((status = 200, body = ModelDetailResponse)))]
pub async fn get_namespace_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
) -> Result<Json<ModelDetailResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let (scope, made) = entered(&app, &caller, &namespace_id).await?;
    let (facts, url) = if Engine::is_org_model(&model_id) {
        let model = app.usable_model(&scope, &model_id).await?;
        (Facts::brought(&model), app.model_archive_url(&model)?)
    } else {
        (Facts::of(app.model(&model_id).await?, &made), String::new())
    };
    let model = CustomModelDocument {
        model_id: facts.id,
        namespace_id: scope.namespace_id,
        name: facts.name,
        version: facts.version,
        model_archive_url: url,
        model_format: facts.format,
        model_hash: facts.hash,
        deployed: facts.is_deployed,
        framework: facts.framework,
        task_type: facts.task,
        resource_requirements: facts.resources,
        created_at: facts.created_at,
        updated_at: facts.updated_at,
    };
    Ok(Json(ModelDetailResponse { success: true, model }))
}

/// Delete a model of a namespace
///
/// Takes a model of the organization from this namespace. One that was uploaded into this namespace, and that no other may
/// use, is deleted with its archive. 409 says which collections use it.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace_id}/models/{model_id}", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)), responses((status = 200, body = ModelDeleteResponse)))]
pub async fn delete_namespace_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
) -> Result<Json<ModelDeleteResponse>, ApiError> {
    caller.may(Permission::Delete)?;
    let (scope, _) = entered(&app, &caller, &namespace_id).await?;
    if !Engine::is_org_model(&model_id) {
        let known = app.model(&model_id).await?.entry.id;
        return Err(Error::Conflict(format!("`{known}` comes with the server and stays")).into());
    }
    let (model, is_deleted) = app.delete_namespace_model(&scope, &model_id).await?;
    let message = match is_deleted {
        true => format!("`{}` is deleted", model.full_name()),
        false => format!("`{}` may not be named in this namespace any more", model.full_name()),
    };
    Ok(Json(ModelDeleteResponse { success: true, model_id: model.model_id, message }))
}

/// Load a model
///
/// A model is loaded when it is first asked; this loads it before. 503 says which command installs one that is not here;
/// 409 says that one of the organization is not enabled in this namespace.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/models/{model_id}/deploy", tag = "CustomModels",
    params(("namespace_id" = String, Path), ("model_id" = String, Path)), responses((status = 200, body = ModelDeployResponse)))]
pub async fn deploy_namespace_model(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, model_id)): Path<(String, String)>,
) -> Result<Json<ModelDeployResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let (scope, _) = entered(&app, &caller, &namespace_id).await?;
    let (model_id, cached) = if Engine::is_org_model(&model_id) {
        let (model, cached) = app.load_org_model(&scope, &model_id).await?;
        (model.model_id, cached)
    } else {
        let known = app.model(&model_id).await?.entry.id;
        (known.to_owned(), app.load_model(known).await?)
    };
    let message = if cached { "the model was loaded already" } else { "the model is loaded" };
    Ok(Json(ModelDeployResponse {
        success: true,
        model_id,
        namespace_id: scope.namespace_id,
        deployment_status: "deployed".into(),
        cached,
        message: message.into(),
    }))
}
