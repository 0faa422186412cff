//! Models on their way: an archive that comes by a signed URL and becomes a model once the caller confirms it.

use super::wire::{
    ConfirmModelUploadRequest, ConfirmModelUploadResponse, CreateModelUploadRequest, ModelPresignedURLResponse,
};
use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
};
use axum::extract::State;
use serde_json::Value;
use strata_engine::org_models::NewModel;
use strata_model::Permission;

/// Upload a model
///
/// Announces an archive (`.tar.gz` or `.zip`, at most 2 GiB) with a text embedding model, and answers the URL that takes it
/// by `PUT`. The format `onnx` has `model.onnx` and `tokenizer.json`; `safetensors` and `huggingface` have
/// `model.safetensors`, `tokenizer.json` and `config.json` of a BERT. `pytorch` is refused: its files run code when they are
/// read. 409 says that the name has this version already. Needs `admin`.
#[utoipa::path(post, path = "/v1/models/uploads", tag = "Models", responses((status = 200, body = ModelPresignedURLResponse)))]
pub async fn create_model_upload(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<CreateModelUploadRequest>,
) -> Result<Json<ModelPresignedURLResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let format = request.model_format;
    let new = NewModel::try_from(request)?;
    let (name, version) = (new.name.clone(), new.version.clone());
    let made = app.create_model_upload(&caller.0.organization_id, new).await?;
    Ok(Json(ModelPresignedURLResponse {
        s3_key: format!("models/{}/{}", made.upload.organization_id, made.upload.upload_id),
        upload_id: made.upload.upload_id,
        presigned_url: made.presigned_url,
        required_content_type: "application/gzip".into(),
        expires_at: made.upload.expires_at,
        organization_id: made.upload.organization_id,
        name,
        version,
        model_format: format,
    }))
}

/// Confirm a model
///
/// Opens the archive that came, runs what is in it once, and makes the model. An archive that makes none is answered with
/// `validation_status` `failed` and what is wrong with it, and is not kept. Confirming twice answers the same. 409 says that
/// nothing has come yet. Needs `admin`.
#[utoipa::path(post, path = "/v1/models/uploads/{upload_id}/confirm", tag = "Models", params(("upload_id" = String, Path)),
    responses((status = 200, body = ConfirmModelUploadResponse)))]
pub async fn confirm_model_upload(
    State(app): State<App>,
    caller: Caller,
    Path(upload_id): Path<String>,
    Json(request): Json<ConfirmModelUploadRequest>,
) -> Result<Json<ConfirmModelUploadResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let organization = &caller.0.organization_id;
    // An upload that is not there is told first, to everybody alike.
    app.model_upload(organization, &upload_id).await?;
    caller.may_in_organization(Permission::Admin)?;
    let ConfirmModelUploadRequest { etag, file_size_bytes } = request;
    let upload = app.confirm_model_upload(organization, &upload_id, etag, file_size_bytes).await?;
    let model = match &upload.model_id {
        Some(model_id) => app.org_model(organization, model_id).await.ok(),
        None => None,
    };
    let errors = upload.body.get("validation_errors").and_then(Value::as_array);
    let errors: Option<Vec<String>> =
        errors.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let message = match (&model, &errors) {
        (Some(model), _) => format!("the model is `{}`; enable it in the namespaces that are to use it", model.full_name()),
        (None, Some(_)) => "the archive makes no model and was not kept; upload another".to_owned(),
        (None, None) => "the model was deleted since".to_owned(),
    };
    Ok(Json(ConfirmModelUploadResponse {
        success: errors.is_none(),
        upload_id: upload.upload_id,
        validation_status: if errors.is_none() { "passed" } else { "failed" }.into(),
        validation_errors: errors,
        s3_archive_url: model.as_ref().map(|model| app.model_archive_url(model)).transpose()?,
        model_id: upload.model_id,
        message: Some(message),
    }))
}
