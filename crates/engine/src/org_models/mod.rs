//! Models that organizations bring: text embedding models in archives, which run here as those of the registry do.
//!
//! A model belongs to its organization, and may be used in the namespaces where it is enabled. Its archive is a stored
//! content, checked when it comes and again whenever the model is loaded; a few models are kept loaded.

mod names;
mod uploads;

pub(crate) use names::{is_name, must_be_usable, settled, usable};
pub use strata_store::catalog::models::{ModelUpload, OrgModel};
pub use uploads::{ModelUploadView, NewModel};

use crate::Engine;
use lru::LruCache;
use parking_lot::Mutex;
use serde_json::Value;
use std::{num::NonZeroUsize, sync::Arc};
use strata_infer::{Brought, BroughtFormat, EmbedConfig, TextEmbedder};
use strata_model::{Error, Result, Scope, limits};
use strata_store::catalog::{models, rusqlite::Transaction};

/// Models that are kept loaded.
const MAX_LOADED: NonZeroUsize = NonZeroUsize::new(4).unwrap();
/// Media type of an archive, whichever kind it is.
const ARCHIVE_TYPE: &str = "application/gzip";

/// The models that are loaded, by id, and who works on them.
pub(crate) struct Loaded {
    models: Mutex<LruCache<String, TextEmbedder>>,
    /// Held while one is loaded, which takes memory and seconds.
    loading: Mutex<()>,
    /// Held while an upload is confirmed.
    confirming: tokio::sync::Mutex<()>,
}

impl Default for Loaded {
    fn default() -> Self {
        Self {
            models: Mutex::new(LruCache::new(MAX_LOADED)),
            loading: Mutex::default(),
            confirming: tokio::sync::Mutex::default(),
        }
    }
}

/// The formats that are taken, and the one that is not.
pub const FORMATS: [&str; 4] = ["onnx", "safetensors", "huggingface", "pytorch"];

/// How a format as callers write it is read. `Invalid` for what is not read here.
fn format_of(text: &str) -> Result<BroughtFormat> {
    match text {
        "onnx" => Ok(BroughtFormat::Onnx),
        "safetensors" | "huggingface" => Ok(BroughtFormat::Safetensors),
        "pytorch" => Err(Error::invalid(
            "model_format",
            "`pytorch` files are pickles, which run code when they are read, so they are not; convert the model to \
             `safetensors` or `onnx`",
        )),
        other => Err(Error::invalid("model_format", format!("`{other}` is not one of {}", FORMATS.join(", ")))),
    }
}

impl Engine {
    /// The models of an organization, oldest first.
    pub async fn org_models(&self, organization_id: &str) -> Result<Vec<OrgModel>> {
        let organization_id = organization_id.to_owned();
        self.catalog.read(move |connection| models::list(connection, &organization_id)).await
    }

    /// A model of an organization by id, or as `custom/{name}@{version}`.
    pub async fn org_model(&self, organization_id: &str, identifier: &str) -> Result<OrgModel> {
        let (organization_id, identifier) = (organization_id.to_owned(), identifier.to_owned());
        self.catalog.read(move |connection| models::get(connection, &organization_id, &identifier)).await
    }

    /// The models of an organization, and whether the namespace may use each.
    pub async fn models_for_namespace(&self, scope: &Scope) -> Result<Vec<(OrgModel, bool)>> {
        let scope = scope.clone();
        let read = self.catalog.read(move |connection| {
            let all = models::list(connection, &scope.organization_id)?;
            let each = all.into_iter().map(|model| {
                let is_enabled = models::is_enabled(connection, &scope, &model.model_id)?;
                Ok((model, is_enabled))
            });
            each.collect()
        });
        read.await
    }

    /// A model that the namespace may use. `Missing` where its organization has none of that name, `Conflict` where it is
    /// not enabled there.
    pub async fn usable_model(&self, scope: &Scope, name: &str) -> Result<OrgModel> {
        let (scope, name) = (scope.clone(), name.to_owned());
        self.catalog.read(move |connection| usable(connection, &scope, &name)).await
    }

    /// Whether a name is one that only models have which organizations bring.
    pub fn is_org_model(name: &str) -> bool {
        is_name(name)
    }

    /// Whether the model is in memory.
    pub fn is_org_model_loaded(&self, model_id: &str) -> bool {
        self.brought.models.lock().contains(model_id)
    }

    /// Lets a namespace use a model of its organization.
    pub async fn enable_model(&self, scope: &Scope, identifier: &str) -> Result<OrgModel> {
        let (scope, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        let write = move |tx: &Transaction<'_>| {
            let model = models::get(tx, &scope.organization_id, &identifier)?;
            models::enable(tx, &scope, &model.model_id, &now)?;
            Ok(model)
        };
        self.catalog.write(write).await
    }

    /// Takes a model from a namespace. `Conflict`, saying which, where collections use it.
    pub async fn disable_model(&self, scope: &Scope, identifier: &str) -> Result<OrgModel> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let write = move |tx: &Transaction<'_>| {
            let model = models::get(tx, &scope.organization_id, &identifier)?;
            must_be_unused(&[(scope.namespace_id.clone(), names::users(tx, &scope, &model)?)], &model)?;
            models::disable(tx, &scope, &model.model_id)?;
            Ok(model)
        };
        self.catalog.write(write).await
    }

    /// Removes a model with its archive. `Conflict`, saying where, while collections use it.
    pub async fn delete_org_model(&self, organization_id: &str, identifier: &str) -> Result<OrgModel> {
        let (organization_id, identifier) = (organization_id.to_owned(), identifier.to_owned());
        let write = move |tx: &Transaction<'_>| {
            let model = models::get(tx, &organization_id, &identifier)?;
            let mut users = Vec::new();
            for scope in models::namespaces_of(tx, &organization_id, &model.model_id)? {
                users.push((scope.namespace_id.clone(), names::users(tx, &scope, &model)?));
            }
            must_be_unused(&users, &model)?;
            models::delete(tx, &organization_id, &model.model_id)?;
            Ok(model)
        };
        let model = self.catalog.write(write).await?;
        self.forget_model(&model).await;
        Ok(model)
    }

    /// Takes a model from a namespace, and removes it where it came with that namespace and no other may use it. Answers
    /// whether it was removed.
    pub async fn delete_namespace_model(&self, scope: &Scope, identifier: &str) -> Result<(OrgModel, bool)> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let write = move |tx: &Transaction<'_>| {
            let model = models::get(tx, &scope.organization_id, &identifier)?;
            must_be_unused(&[(scope.namespace_id.clone(), names::users(tx, &scope, &model)?)], &model)?;
            let was_there = models::disable(tx, &scope, &model.model_id)?;
            let came_here = model.body.get("namespace_id").and_then(Value::as_str) == Some(scope.namespace_id.as_str());
            if !was_there && !came_here {
                return Err(Error::missing("model", identifier));
            }
            let is_over = came_here && models::namespaces_of(tx, &scope.organization_id, &model.model_id)?.is_empty();
            if is_over {
                models::delete(tx, &scope.organization_id, &model.model_id)?;
            }
            Ok((model, is_over))
        };
        let (model, is_over) = self.catalog.write(write).await?;
        if is_over {
            self.forget_model(&model).await;
        }
        Ok((model, is_over))
    }

    /// After the commit that removed a model.
    async fn forget_model(&self, model: &OrgModel) {
        self.brought.models.lock().pop(&model.model_id);
        self.remove_blobs(vec![model.archive_hash.clone()]).await;
    }

    /// A URL that reads a model's archive for [`limits::PRESIGN_SECONDS`].
    pub fn model_archive_url(&self, model: &OrgModel) -> Result<String> {
        let ending = model.body.get("archive").and_then(Value::as_str).unwrap_or("tar.gz");
        let filename = format!("{}-{}.{ending}", model.name, model.version);
        self.presigned_get(&model.archive_hash, Some(&filename), ARCHIVE_TYPE, limits::PRESIGN_SECONDS)
    }

    /// Loads a model that the namespace may use; says whether it was loaded already.
    pub async fn load_org_model(self: &Arc<Self>, scope: &Scope, identifier: &str) -> Result<(OrgModel, bool)> {
        let model = self.usable_model(scope, identifier).await?;
        let was_loaded = self.is_org_model_loaded(&model.model_id);
        self.load_brought(model.clone()).await?;
        Ok((model, was_loaded))
    }

    /// A model of texts that the namespace may use, loaded.
    pub(crate) async fn brought_embedder(self: &Arc<Self>, scope: &Scope, name: &str) -> Result<TextEmbedder> {
        let model = self.usable_model(scope, name).await?;
        self.load_brought(model).await
    }

    async fn load_brought(self: &Arc<Self>, model: OrgModel) -> Result<TextEmbedder> {
        if let Some(found) = self.brought.models.lock().get(&model.model_id) {
            return Ok(found.clone());
        }
        let format = format_of(model.body.get("model_format").and_then(Value::as_str).unwrap_or_default())?;
        let file = self.blobs.file(&model.archive_hash).await?;
        let engine = self.clone();
        let load = move || {
            let _loading = engine.brought.loading.lock();
            if let Some(found) = engine.brought.models.lock().get(&model.model_id) {
                return Ok(found.clone());
            }
            let full_name = model.full_name();
            let broken = |why: String| Error::Unavailable(format!("the model `{full_name}` cannot be loaded: {why}"));
            let opened = Brought::open(file.path(), format).map_err(|e| broken(e.to_string()))?;
            let made =
                TextEmbedder::of(&full_name, opened, EmbedConfig::default()).map_err(|e| broken(e.to_string()))?;
            if made.fingerprint() != model.fingerprint {
                return Err(broken("this version runs it in another way; upload it as another version".to_owned()));
            }
            engine.brought.models.lock().put(model.model_id.clone(), made.clone());
            Ok(made)
        };
        tokio::task::spawn_blocking(load).await.map_err(Error::internal)?
    }
}

/// Refuses while collections of these namespaces use the model.
fn must_be_unused(users: &[(String, Vec<String>)], model: &OrgModel) -> Result<()> {
    let told: Vec<String> = users
        .iter()
        .flat_map(|(namespace, names)| {
            names.iter().map(move |name| format!("the collection `{name}` of the namespace `{namespace}`"))
        })
        .collect();
    match told.is_empty() {
        true => Ok(()),
        false => Err(Error::Conflict(format!("the model `{}` is used by {}", model.full_name(), told.join(", ")))),
    }
}
