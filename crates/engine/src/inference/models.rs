//! The models that run here, as the API shows them.

use crate::Engine;
use std::{path::Path, sync::Arc, time::UNIX_EPOCH};
use strata_infer::{InstallState, ModelEntry, Registry, Task};
use strata_model::{Error, Result, id};
use strata_store::seams::rfc3339;

/// A model of the registry on this machine.
#[derive(Debug, Clone)]
pub struct KnownModel {
    pub entry: &'static ModelEntry,
    pub state: InstallState,
    /// Whether it is in memory.
    pub is_loaded: bool,
    /// When its files came here; `None` where there are none.
    pub installed_at: Option<String>,
    /// SHA-256, hex, over the hashes of its files as the registry has them; empty where a hub's are not known.
    pub hash: String,
}

impl Engine {
    /// The models of the registry, in its order. Tools that decode media are not among them.
    pub async fn models(self: &Arc<Self>) -> Result<Vec<KnownModel>> {
        let engine = self.clone();
        let look = move || {
            let models = Registry::entries().iter().filter(|entry| entry.task != Task::Decode);
            models.map(|entry| engine.known_model(entry)).collect()
        };
        tokio::task::spawn_blocking(look).await.map_err(Error::internal)
    }

    /// One of them, by id or alias.
    pub async fn model(self: &Arc<Self>, identifier: &str) -> Result<KnownModel> {
        let entry = Registry::resolve(identifier).ok().filter(|entry| entry.task != Task::Decode);
        let entry = entry.ok_or_else(|| Error::missing("model", identifier))?;
        let engine = self.clone();
        tokio::task::spawn_blocking(move || engine.known_model(entry)).await.map_err(Error::internal)
    }

    /// Loads a model, so that the first who asks it does not wait; says whether it was loaded already.
    ///
    /// Errors: `Missing` where there is none of that name; `Unavailable`, saying what to run, where it is not installed;
    /// `Conflict` where it is a part of others and loaded with them.
    pub async fn load_model(self: &Arc<Self>, identifier: &str) -> Result<bool> {
        let known = self.model(identifier).await?;
        let id = known.entry.id;
        match known.entry.task {
            Task::EmbedText => drop(self.embedder(id).await?),
            Task::EmbedSparse => drop(self.sparse_embedder(id).await?),
            Task::EmbedTokens => drop(self.token_embedder(id).await?),
            Task::RerankText => drop(self.cross_encoder(id).await?),
            Task::EmbedImage => drop(self.image_embedder(id).await?),
            Task::EmbedImageText => drop(self.image_text_space(id).await?),
            Task::EmbedFace => drop(self.face_finder(id).await?),
            Task::Transcribe => drop(self.transcriber(id).await?),
            Task::RecognizeText => drop(self.text_reader(id).await?),
            // It has no weights.
            Task::EmbedAudio => {}
            Task::DetectFaces | Task::AlignFaces | Task::DetectVoice | Task::Decode => {
                return Err(Error::Conflict(format!("`{id}` is a part of others and loaded with them")));
            }
        }
        Ok(known.is_loaded)
    }

    /// Blocks.
    fn known_model(&self, entry: &'static ModelEntry) -> KnownModel {
        let state = self.registry.state(entry);
        let hashes: Vec<&[u8]> = entry.files_here().map(|file| file.sha256.as_bytes()).collect();
        KnownModel {
            state,
            is_loaded: self.models.is_loaded(entry),
            installed_at: changed_at(&self.registry.path(entry)),
            hash: if hashes.is_empty() { String::new() } else { hex::encode(id::sha256_parts(&hashes)) },
            entry,
        }
    }
}

fn changed_at(path: &Path) -> Option<String> {
    let changed = std::fs::metadata(path).ok()?.modified().ok()?;
    let micros = changed.duration_since(UNIX_EPOCH).ok()?.as_micros();
    Some(rfc3339(i64::try_from(micros).ok()?))
}
