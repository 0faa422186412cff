//! How models come: an archive by a signed URL, which is checked when the caller confirms it; or at once, with a request.

use super::{ARCHIVE_TYPE, ModelUpload, OrgModel, format_of};
use crate::Engine;
use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{Brought, EmbedConfig, TextEmbedder};
use strata_model::{Error, FieldError, Fields, Result, Scope, id, limits};
use strata_store::{
    catalog::{models, objects, rusqlite::Transaction},
    seams::rfc3339,
};

/// Largest archive, in bytes.
const MAX_ARCHIVE_BYTES: u64 = 2 << 30;
/// Most models of an organization, and uploads that it may be awaiting at once.
const MAX_MODELS: usize = 256;
const MAX_WAITING: i64 = 64;
const MAX_DESCRIPTION: usize = 500;
const MAX_LABEL: usize = 100;
const MIN_SECONDS: i64 = 60;
const MAX_SECONDS: i64 = limits::MAX_PRESIGN_SECONDS;
const ID_CHARS: usize = 16;

/// A model to be.
#[derive(Debug, Clone, Default)]
pub struct NewModel {
    pub name: String,
    pub version: String,
    /// One of [`super::FORMATS`].
    pub model_format: String,
    pub description: Option<String>,
    pub framework: Option<String>,
    pub task_type: Option<String>,
    /// Kept and shown; everything runs in this process.
    pub resource_requirements: Fields,
    /// What comes must have this size.
    pub file_size_bytes: Option<u64>,
    /// Seconds that the URL works; [`limits::PRESIGN_SECONDS`] where it is `None`.
    pub expiration_seconds: Option<i64>,
}

/// An upload, and the URL that takes its archive.
#[derive(Debug, Clone)]
pub struct ModelUploadView {
    pub upload: ModelUpload,
    pub presigned_url: String,
}

impl NewModel {
    /// `Invalid`, with every field that is wrong; `TooLarge` where the archive is announced too large.
    fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        let mut refuse = |field: &str, message: String| wrong.push(FieldError::new(field, message));
        let mut letters = self.name.bytes();
        let is_name = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && (3..=64).contains(&self.name.len());
        if !is_name {
            refuse("name", "must be 3 to 64 letters, digits and `_`, the first a letter".into());
        }
        let numbers: Vec<&str> = self.version.split('.').collect();
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if numbers.len() != 3 || !numbers.iter().all(is_number) || self.version.len() > 32 {
            refuse("version", "must be three numbers, such as `1.0.0`".into());
        }
        for (field, text, most) in [
            ("description", &self.description, MAX_DESCRIPTION),
            ("framework", &self.framework, MAX_LABEL),
            ("task_type", &self.task_type, MAX_LABEL),
        ] {
            if text.as_ref().is_some_and(|text| text.chars().count() > most) {
                refuse(field, format!("must have at most {most} characters"));
            }
        }
        if self.file_size_bytes == Some(0) {
            refuse("file_size_bytes", "must be at least 1".into());
        }
        if self.expiration_seconds.is_some_and(|seconds| !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds)) {
            refuse("presigned_url_expiration", format!("must be {MIN_SECONDS} to {MAX_SECONDS} seconds"));
        }
        if let Err(Error::Invalid(errors)) = format_of(&self.model_format) {
            wrong.extend(errors);
        }
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        match self.file_size_bytes {
            Some(size) if size > MAX_ARCHIVE_BYTES => Err(too_large(size)),
            _ => Ok(()),
        }
    }

    /// What is stored of it.
    fn body(&self) -> Fields {
        let body = json!({
            "name": self.name,
            "version": self.version,
            "model_format": self.model_format,
            "description": self.description,
            "framework": self.framework,
            "task_type": self.task_type,
            "resource_requirements": self.resource_requirements,
            "file_size_bytes": self.file_size_bytes,
        });
        body.as_object().cloned().unwrap_or_default()
    }
}

fn too_large(size_bytes: u64) -> Error {
    Error::TooLarge(format!("the archive of a model has at most {MAX_ARCHIVE_BYTES} bytes, and this one {size_bytes}"))
}

fn text<'b>(body: &'b Fields, key: &str) -> &'b str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Refuses a model whose name and version are taken, and one too many.
fn has_room(tx: &Transaction<'_>, organization_id: &str, name: &str, version: &str) -> Result<()> {
    if models::is_taken(tx, organization_id, name, version)? {
        return Err(models::taken(name, version));
    }
    match models::list(tx, organization_id)?.len() {
        count if count >= MAX_MODELS => {
            Err(Error::Conflict(format!("an organization has at most {MAX_MODELS} models; delete one first")))
        }
        _ => Ok(()),
    }
}

impl Engine {
    /// Announces a model. Its archive then comes by the URL, and [`Engine::confirm_model_upload`] makes the model of it.
    ///
    /// Errors: `Invalid` for fields that are wrong and for `pytorch`; `Conflict` where the name and version are taken, or
    /// where there are too many; `TooLarge` where the archive is announced too large.
    pub async fn create_model_upload(&self, organization_id: &str, new: NewModel) -> Result<ModelUploadView> {
        new.check()?;
        let seconds = new.expiration_seconds.unwrap_or(limits::PRESIGN_SECONDS);
        let micros = self.catalog.now_micros();
        let now = rfc3339(micros);
        let upload = ModelUpload {
            upload_id: self.catalog.new_id(id::MODEL_UPLOAD, ID_CHARS),
            organization_id: organization_id.to_owned(),
            status: "PENDING".into(),
            archive_hash: None,
            model_id: None,
            body: new.body(),
            expires_at: rfc3339(micros + seconds * 1_000_000),
            created_at: now.clone(),
            updated_at: now,
        };
        let written = upload.clone();
        let write = move |tx: &Transaction<'_>| {
            has_room(tx, &written.organization_id, &new.name, &new.version)?;
            if models::waiting(tx, &written.organization_id)? >= MAX_WAITING {
                let message = format!("{MAX_WAITING} uploads of models are awaited already; confirm those first");
                return Err(Error::Conflict(message));
            }
            models::put_upload(tx, &written)
        };
        self.catalog.write(write).await?;
        let presigned_url = self.presigned_put(&upload.upload_id, seconds)?;
        Ok(ModelUploadView { upload, presigned_url })
    }

    /// An upload of the organization.
    pub async fn model_upload(&self, organization_id: &str, upload_id: &str) -> Result<ModelUpload> {
        let (organization_id, upload_id) = (organization_id.to_owned(), upload_id.to_owned());
        self.catalog.read(move |connection| models::upload(connection, &organization_id, &upload_id)).await
    }

    /// Takes the archive of a model that a signed URL names; answers its ETag.
    pub(crate) async fn receive_model<S>(&self, upload_id: &str, length: Option<u64>, body: S) -> Result<String>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let id = upload_id.to_owned();
        let upload = self.catalog.read(move |connection| models::upload_by_signature(connection, &id)).await?;
        still_pending(&upload)?;
        let announced = upload.body.get("file_size_bytes").and_then(Value::as_u64);
        let fits = |came: u64| match announced {
            Some(announced) if announced != came => {
                Err(Error::invalid("file_size_bytes", format!("{announced} bytes were announced and {came} came")))
            }
            _ if came == 0 => Err(Error::invalid("body", "is empty")),
            _ => Ok(()),
        };
        length.map_or(Ok(()), fits)?;
        let held = self.blobs.put_stream(body, MAX_ARCHIVE_BYTES).await?;
        let (hash, size_bytes) = (held.hash().to_owned(), held.size_bytes());
        let written = match fits(size_bytes) {
            Err(error) => {
                drop(held);
                Err(error)
            }
            Ok(()) => {
                let (id, now, hash) = (upload_id.to_owned(), self.catalog.now(), hash.clone());
                let write = self.catalog.write(move |tx| {
                    let mut upload = models::upload_by_signature(tx, &id)?;
                    still_pending(&upload)?;
                    objects::put_blob(tx, &hash, size_bytes, ARCHIVE_TYPE, &now)?;
                    let before = upload.archive_hash.replace(hash.clone());
                    upload.updated_at = now;
                    models::put_upload(tx, &upload)?;
                    // Held until the commit is done.
                    Ok((before.filter(|before| *before != hash), held))
                });
                write.await.map(|(before, _held)| before)
            }
        };
        let before = self.or_discard(written, vec![hash.clone()]).await?;
        self.remove_blobs(before.into_iter().collect()).await;
        Ok(hash)
    }

    /// Checks the archive of an upload and makes the model. What is wrong with the archive is no error: the upload is then
    /// `FAILED`, with `validation_errors` in its body, and nothing of it is kept. Confirming twice answers the same.
    ///
    /// `etag` is what the `PUT` answered, and `file_size_bytes` the size that was sent, as the caller has them.
    ///
    /// Errors: `Missing` where there is no such upload; `Conflict` where the archive has not come, where the time of the
    /// upload is over, or where name and version were taken meanwhile.
    pub async fn confirm_model_upload(
        self: &Arc<Self>,
        organization_id: &str,
        upload_id: &str,
        etag: Option<String>,
        file_size_bytes: Option<u64>,
    ) -> Result<ModelUpload> {
        let _one = self.brought.confirming.lock().await;
        let mut upload = self.model_upload(organization_id, upload_id).await?;
        match upload.status.as_str() {
            "PENDING" => {}
            "COMPLETED" | "FAILED" => return Ok(upload),
            status => return Err(Error::Conflict(format!("upload `{upload_id}` is {status}"))),
        }
        let Some(hash) = upload.archive_hash.take() else {
            return Err(Error::Conflict(format!(
                "the archive of upload `{upload_id}` has not come: send it to its URL"
            )));
        };
        // Until the row is committed that names it.
        let held = self.blobs.hold(&hash).await?;
        upload.updated_at = self.catalog.now();
        match self.checked_archive(&upload, &hash, etag, file_size_bytes).await {
            Ok(model) => {
                upload.status = "COMPLETED".into();
                upload.model_id = Some(model.model_id.clone());
                let written = upload.clone();
                let write = move |tx: &Transaction<'_>| {
                    still_pending(&models::upload_by_signature(tx, &written.upload_id)?)?;
                    has_room(tx, &model.organization_id, &model.name, &model.version)?;
                    models::insert(tx, &model)?;
                    models::put_upload(tx, &written)?;
                    Ok(held)
                };
                drop(self.catalog.write(write).await?);
                Ok(upload)
            }
            Err(Error::Invalid(wrong)) => {
                let told: Vec<String> = wrong.into_iter().map(|e| format!("`{}`: {}", e.field, e.message)).collect();
                upload.status = "FAILED".into();
                upload.body.insert("validation_errors".into(), json!(told));
                let written = upload.clone();
                self.catalog.write(move |tx| models::put_upload(tx, &written)).await?;
                drop(held);
                self.remove_blobs(vec![hash]).await;
                Ok(upload)
            }
            Err(other) => Err(other),
        }
    }

    /// The model that an archive makes. `Invalid` where it makes none, or is not the one that was meant.
    async fn checked_archive(
        self: &Arc<Self>,
        upload: &ModelUpload,
        hash: &str,
        etag: Option<String>,
        file_size_bytes: Option<u64>,
    ) -> Result<OrgModel> {
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
        if let Some(other) = etag.filter(|etag| !etag.is_empty() && !etag.eq_ignore_ascii_case(hash)) {
            let message = format!("the archive that came has the SHA-256 `{hash}`, not `{other}`");
            return Err(Error::invalid("etag", message));
        }
        let size_bytes = self.content_size(hash).await?;
        if let Some(other) = file_size_bytes.filter(|size| *size != size_bytes) {
            return Err(Error::invalid("file_size_bytes", format!("{size_bytes} bytes came, not {other}")));
        }
        self.make_model(&upload.organization_id, upload.body.clone(), hash, size_bytes).await
    }

    /// Opens an archive, runs what is in it, and answers the model, not written yet.
    async fn make_model(
        self: &Arc<Self>,
        organization_id: &str,
        mut body: Fields,
        hash: &str,
        size_bytes: u64,
    ) -> Result<OrgModel> {
        let format = format_of(text(&body, "model_format"))?;
        let file = self.blobs.file(hash).await?;
        let engine = self.clone();
        let run = move || {
            let _loading = engine.brought.loading.lock();
            let opened = Brought::open(file.path(), format)?;
            let (container, max_tokens) = (opened.container(), opened.max_tokens());
            let made = TextEmbedder::of("uploaded", opened, EmbedConfig::default())?;
            Ok((container, max_tokens, made.fingerprint().to_owned(), made.dimensions()))
        };
        let ran: Result<_> = tokio::task::spawn_blocking(run).await.map_err(Error::internal)?;
        let (container, max_tokens, fingerprint, dimensions) = ran?;
        body.insert("archive".into(), container.into());
        body.insert("max_tokens".into(), max_tokens.into());
        body.insert("file_size_bytes".into(), size_bytes.into());
        let (name, version) = (text(&body, "name").to_owned(), text(&body, "version").to_owned());
        for column in ["name", "version"] {
            body.remove(column);
        }
        let now = self.catalog.now();
        Ok(OrgModel {
            model_id: self.catalog.new_id(id::MODEL, ID_CHARS),
            organization_id: organization_id.to_owned(),
            name,
            version,
            archive_hash: hash.to_owned(),
            fingerprint,
            dimensions,
            body,
            created_at: now.clone(),
            updated_at: now,
        })
    }

    /// Makes a model of an archive that came with the request, and enables it in the namespace.
    ///
    /// Errors: as those of [`Engine::create_model_upload`]; `Invalid` also for what is wrong with the archive, of which
    /// nothing is kept then.
    pub async fn add_namespace_model(
        self: &Arc<Self>,
        scope: &Scope,
        new: NewModel,
        archive: Bytes,
    ) -> Result<OrgModel> {
        new.check()?;
        let size_bytes = archive.len() as u64;
        let held = self.blobs.put_held(archive).await?;
        let hash = held.hash().to_owned();
        let mut body = new.body();
        body.insert("namespace_id".into(), scope.namespace_id.clone().into());
        let written = match self.make_model(&scope.organization_id, body, &hash, size_bytes).await {
            Err(error) => {
                drop(held);
                Err(error)
            }
            Ok(model) => {
                let (scope, now) = (scope.clone(), self.catalog.now());
                let write = self.catalog.write(move |tx| {
                    has_room(tx, &scope.organization_id, &model.name, &model.version)?;
                    objects::put_blob(tx, &model.archive_hash, size_bytes, ARCHIVE_TYPE, &now)?;
                    models::insert(tx, &model)?;
                    models::enable(tx, &scope, &model.model_id, &now)?;
                    // Held until the commit is done.
                    Ok((model, held))
                });
                write.await.map(|(model, _held)| model)
            }
        };
        self.or_discard(written, vec![hash]).await
    }
}

fn still_pending(upload: &ModelUpload) -> Result<()> {
    match upload.status.as_str() {
        "PENDING" => Ok(()),
        status => Err(Error::Conflict(format!("upload `{}` is {status} and takes no bytes", upload.upload_id))),
    }
}
