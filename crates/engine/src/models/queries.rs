//! Vectors of queries: a text, a picture or a recording as the model of an index sees it, ahead of background work.

use crate::{Engine, extract::audio_fingerprint::loudest, org_models};
use std::sync::Arc;
use strata_infer::{FaceOptions, Pixels, Registry, Task, acoustic};
use strata_media::{AudioRequest, Family, ImageOutput, ImageRequest, Source};
use strata_model::{Error, Result, Scope};

/// Of a recording that is searched with, what is listened to at most, in milliseconds, and how many seconds of that count.
const MAX_QUERY_MS: u64 = 120_000;
const QUERY_SECONDS: f64 = 5.0;

/// Whether a model makes vectors of such content.
pub(crate) fn reads(model: &str, family: Family) -> bool {
    let Ok(entry) = Registry::resolve(model) else { return family == Family::Text };
    match entry.task {
        Task::EmbedText | Task::EmbedSparse | Task::EmbedTokens => family == Family::Text,
        Task::EmbedImageText => matches!(family, Family::Text | Family::Image),
        Task::EmbedImage | Task::EmbedFace => family == Family::Image,
        Task::EmbedAudio => matches!(family, Family::Audio | Family::Video),
        _ => false,
    }
}

/// Whether a model gives each token of a text a vector.
pub(crate) fn tells_tokens_apart(model: &str) -> bool {
    Registry::resolve_for(model, Task::EmbedTokens).is_ok()
}

impl Engine {
    /// What tells the vectors that a model makes of texts from all others, wherever it runs.
    pub(crate) async fn query_fingerprint(self: &Arc<Self>, scope: &Scope, model: &str) -> Result<String> {
        if org_models::is_name(model) {
            return Ok(self.usable_model(scope, model).await?.fingerprint);
        }
        match Registry::resolve(model).map(|entry| entry.task) {
            Ok(Task::EmbedImageText) => {
                let space = self.image_text_space(model).await?;
                Ok(space.text_fingerprint().to_owned())
            }
            Ok(_) => Ok(self.embedder(model).await?.fingerprint().to_owned()),
            Err(_) => self.provider_fingerprint(model),
        }
    }

    /// The vector of a text. A provider is asked with the organization's key.
    pub(crate) async fn embed_text_now(self: &Arc<Self>, scope: &Scope, model: &str, text: &str) -> Result<Vec<f32>> {
        match Registry::resolve(model).map(|entry| entry.task) {
            Ok(Task::EmbedImageText) => {
                let vectors = self.image_text_space(model).await?.embed_queries(vec![text.to_owned()]).await?;
                vectors.into_iter().next().ok_or_else(|| Error::internal("the model gave no vector"))
            }
            _ => self.text_embedder(scope, model, None).await?.embed_query(text).await,
        }
    }

    /// The vector of the loudest seconds of a recording.
    pub(crate) async fn embed_recording_now(&self, bytes: Arc<[u8]>) -> Result<Vec<f32>> {
        let request = AudioRequest { sample_rate: acoustic::SAMPLE_RATE, start_ms: 0, max_duration_ms: MAX_QUERY_MS };
        let samples = self.media().audio(&Source::Bytes(bytes), request).await?.collect().await?;
        self.embed_sound(samples).await
    }

    /// The same of samples, [`acoustic::SAMPLE_RATE`] a second.
    pub(crate) async fn embed_sound(&self, samples: Vec<f32>) -> Result<Vec<f32>> {
        let embed = move || loudest(&samples, QUERY_SECONDS);
        let vector = tokio::task::spawn_blocking(embed).await.map_err(Error::internal)?;
        vector.ok_or_else(|| Error::invalid("query", "the recording is silent or too short"))
    }

    /// The vector of a picture, as the model of an index sees it.
    pub(crate) async fn embed_image_now(self: &Arc<Self>, model: &str, bytes: Arc<[u8]>) -> Result<Vec<f32>> {
        let task = Registry::resolve(model)?.task;
        // Faces are small in large pictures, so all pixels are needed.
        let output = match task {
            Task::EmbedFace => ImageOutput::original(),
            _ => crate::extract::image::seen_part(),
        };
        let request = ImageRequest { outputs: vec![output] };
        let mut decoded = self.media().image(&Source::Bytes(bytes), &request).await?;
        let picture = decoded.outputs.pop().ok_or_else(|| Error::internal("a decoder without a picture"))?;
        let pixels = Pixels::new(picture.width, picture.height, picture.bytes)?;
        match task {
            Task::EmbedImage => Ok(self.image_embedder(model).await?.look_now(pixels).await?.embedding),
            Task::EmbedImageText => self.image_text_space(model).await?.embed_image_now(pixels).await,
            Task::EmbedFace => {
                let options = FaceOptions { max_faces: 1, ..FaceOptions::default() };
                let faces = self.face_finder(model).await?.find_now(pixels, options).await?;
                let face = faces.into_iter().next();
                face.map(|face| face.embedding).ok_or_else(|| Error::invalid("query", "no face is in the picture"))
            }
            _ => Err(crate::retrieval::unread(model, Family::Image)),
        }
    }
}
