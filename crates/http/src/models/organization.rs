//! Models as an organization has them.

use super::{
    Facts,
    wire::{
        ModelDownloadResponse, OrgModelDeleteResponse, OrgModelDetailResponse, OrgModelDocument, OrgModelListItem,
        OrgModelListResponse,
    },
};
use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
};
use axum::extract::State;
use strata_engine::{Engine, org_models::OrgModel};
use strata_model::{Error, Permission, limits};

/// A model that the organization brought; 409 for one that comes with the server.
async fn brought(app: &App, caller: &Caller, model_id: &str) -> Result<OrgModel, ApiError> {
    if Engine::is_org_model(model_id) {
        return Ok(app.org_model(&caller.0.organization_id, model_id).await?);
    }
    let known = app.model(model_id).await?.entry.id;
    Err(Error::Conflict(format!("`{known}` comes with the server, which has no archive of it")).into())
}

/// List models
///
/// Those that this server knows, installed or not, then those that the organization brought. `strata models pull` installs
/// one of the first kind. Providers' models are asked by `provider/model` and not listed.
#[utoipa::path(get, path = "/v1/models", tag = "Models", responses((status = 200, body = OrgModelListResponse)))]
pub async fn list_models(State(app): State<App>, caller: Caller) -> Result<Json<OrgModelListResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let made = app.organization(&caller.0).await?.created_at;
    let known = app.models().await?.into_iter().map(|model| Facts::of(model, &made));
    let brought = app.org_models(&caller.0.organization_id).await?;
    let item = |facts: Facts| OrgModelListItem {
        registry: facts.registry(),
        model_id: facts.id,
        name: facts.name,
        version: facts.version,
        model_format: facts.format,
        description: facts.description,
        source: facts.source.into(),
        exportable: facts.source == "customer",
        framework: facts.framework,
        task_type: facts.task,
        deployed: facts.is_deployed,
        validation_status: facts.validation_status.into(),
        created_at: facts.created_at,
        updated_at: facts.updated_at,
    };
    let models: Vec<OrgModelListItem> = known.chain(brought.iter().map(Facts::brought)).map(item).collect();
    let (total, organization_id) = (models.len() as i64, caller.0.organization_id);
    Ok(Json(OrgModelListResponse { success: true, models, total, organization_id }))
}

/// Get a model
///
/// By its id or another of its names; one that the organization brought also as `custom/name@version`, with the slash
/// escaped.
#[utoipa::path(get, path = "/v1/models/{model_id}", tag = "Models", params(("model_id" = String, Path)),
    responses((status = 200, body = OrgModelDetailResponse)))]
pub async fn get_model(
    State(app): State<App>,
    caller: Caller,
    Path(model_id): Path<String>,
) -> Result<Json<OrgModelDetailResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let (facts, url) = if Engine::is_org_model(&model_id) {
        let model = app.org_model(&caller.0.organization_id, &model_id).await?;
        (Facts::brought(&model), app.model_archive_url(&model)?)
    } else {
        let model = app.model(&model_id).await?;
        let made = app.organization(&caller.0).await?.created_at;
        (Facts::of(model, &made), String::new())
    };
    let model = OrgModelDocument {
        registry: facts.registry(),
        model_id: facts.id,
        organization_id: caller.0.organization_id,
        name: facts.name,
        version: facts.version,
        description: facts.description,
        source: facts.source.into(),
        exportable: facts.source == "customer",
        license: facts.license,
        s3_archive_url: url,
        model_format: facts.format,
        model_hash: facts.hash,
        validation_status: facts.validation_status.into(),
        validation_errors: Vec::new(),
        deployed: facts.is_deployed,
        framework: facts.framework,
        task_type: facts.task,
        embedding_dim: facts.dimensions,
        resource_requirements: facts.resources,
        created_at: facts.created_at,
        updated_at: facts.updated_at,
    };
    Ok(Json(OrgModelDetailResponse { success: true, model }))
}

/// Delete a model
///
/// One that the organization brought, with its archive. 409 says which collections use it, or that it comes with the
/// server. Needs `admin`.
#[utoipa::path(delete, path = "/v1/models/{model_id}", tag = "Models", params(("model_id" = String, Path)),
    responses((status = 200, body = OrgModelDeleteResponse)))]
pub async fn delete_model(
    State(app): State<App>,
    caller: Caller,
    Path(model_id): Path<String>,
) -> Result<Json<OrgModelDeleteResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let model = brought(&app, &caller, &model_id).await?;
    let model = app.delete_org_model(&caller.0.organization_id, &model.model_id).await?;
    let message = format!("`{}` is deleted", model.full_name());
    Ok(Json(OrgModelDeleteResponse { success: true, model_id: model.model_id, message }))
}

/// Download a model
///
/// A signed URL of the archive as it came. 409 for models that come with the server.
#[utoipa::path(get, path = "/v1/models/{model_id}/download", tag = "Models", params(("model_id" = String, Path)),
    responses((status = 200, body = ModelDownloadResponse)))]
pub async fn download_model(
    State(app): State<App>,
    caller: Caller,
    Path(model_id): Path<String>,
) -> Result<Json<ModelDownloadResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let model = brought(&app, &caller, &model_id).await?;
    let url = app.model_archive_url(&model)?;
    Ok(Json(ModelDownloadResponse {
        success: true,
        model_id: model.model_id,
        download_url: url.clone(),
        presigned_url: url,
        expires_in: limits::PRESIGN_SECONDS,
        model_hash: model.archive_hash,
    }))
}
