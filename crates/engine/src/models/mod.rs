//! The models that the engine runs, each loaded at its first use and kept, and the decoder that brings files to them.
//!
//! A model that is not installed is [`Error::Unavailable`], which names the command that installs it.

mod queries;

pub(crate) use queries::{reads, tells_tokens_apart};

use crate::{Engine, org_models};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use std::{collections::HashMap, num::NonZeroUsize, path::Path, sync::Arc};
use strata_infer::{
    Clip, Conse, CrossEncoder, EmbedConfig, FaceFinder, ImageEmbedder, ModelEntry, Registry, Space, SparseEmbedder,
    Task, TextEmbedder, TextReader, TokenEmbedder, Transcriber,
};
use strata_media::{Decoder, Tools};
use strata_model::{Error, Result, Scope};
use tokio::sync::OwnedSemaphorePermit;

/// Cross-encoders that are kept loaded.
const MAX_CROSS_ENCODERS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// Models of one kind by registry id.
struct Kind<T> {
    loaded: RwLock<HashMap<&'static str, T>>,
    /// Held while one is loaded, which takes seconds.
    loading: Mutex<()>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { loaded: RwLock::default(), loading: Mutex::default() }
    }
}

/// What is loaded.
pub(crate) struct Models {
    registry: Registry,
    texts: Kind<TextEmbedder>,
    sparse: Kind<SparseEmbedder>,
    tokens: Kind<TokenEmbedder>,
    images: Kind<ImageEmbedder>,
    spaces: Kind<Space>,
    faces: Kind<FaceFinder>,
    speech: Kind<Transcriber>,
    readers: Kind<TextReader>,
    /// By the names that they were asked for.
    cross_encoders: Mutex<LruCache<String, CrossEncoder>>,
    loading_cross_encoder: Mutex<()>,
}

impl Models {
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            texts: Kind::default(),
            sparse: Kind::default(),
            tokens: Kind::default(),
            images: Kind::default(),
            spaces: Kind::default(),
            faces: Kind::default(),
            speech: Kind::default(),
            readers: Kind::default(),
            cross_encoders: Mutex::new(LruCache::new(MAX_CROSS_ENCODERS)),
            loading_cross_encoder: Mutex::default(),
        }
    }

    /// Whether a model is in memory.
    pub fn is_loaded(&self, entry: &ModelEntry) -> bool {
        match entry.task {
            Task::EmbedText => self.texts.get(entry.id).is_some(),
            Task::EmbedSparse => self.sparse.get(entry.id).is_some(),
            Task::EmbedTokens => self.tokens.get(entry.id).is_some(),
            Task::EmbedImage => self.images.get(entry.id).is_some(),
            Task::EmbedImageText => self.spaces.get(entry.id).is_some(),
            Task::EmbedFace => self.faces.get(entry.id).is_some(),
            Task::Transcribe => self.speech.get(entry.id).is_some(),
            Task::RecognizeText => self.readers.get(entry.id).is_some(),
            Task::EmbedAudio => true,
            Task::RerankText => self.cross_encoders.lock().contains(entry.id),
            Task::DetectFaces | Task::AlignFaces | Task::DetectVoice | Task::Decode => false,
        }
    }

    fn threads() -> usize {
        EmbedConfig::default().threads
    }

    fn load_text(&self, id: &str) -> Result<TextEmbedder> {
        TextEmbedder::load(&self.registry, id, EmbedConfig::default())
    }
    fn load_image(&self, id: &str) -> Result<ImageEmbedder> {
        ImageEmbedder::load(&self.registry, id, Self::threads())
    }
    /// Shares its parts with whoever uses them alone.
    fn load_space(&self, id: &str) -> Result<Space> {
        let entry = Registry::resolve(id)?;
        if entry.needs.is_empty() {
            return Clip::load(&self.registry, id).map(Space::Clip);
        }
        let part = |place: usize, task| {
            let id = entry.needs.get(place).copied().unwrap_or_default();
            Registry::resolve_for(id, task).map(|part| part.id)
        };
        let (images, texts) = (part(0, Task::EmbedImage)?, part(1, Task::EmbedText)?);
        let images = self.images.get_or_load(images, || self.load_image(images))?;
        let texts = self.texts.get_or_load(texts, || self.load_text(texts))?;
        Conse::of(entry, images, texts, &self.registry.path(entry)).map(Space::Conse)
    }
}

impl<T: Clone> Kind<T> {
    fn get(&self, id: &str) -> Option<T> {
        self.loaded.read().get(id).cloned()
    }

    /// Blocking, seconds where it is not loaded.
    fn get_or_load(&self, id: &'static str, load: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(found) = self.get(id) {
            return Ok(found);
        }
        let _loading = self.loading.lock();
        if let Some(found) = self.get(id) {
            return Ok(found);
        }
        let made = load()?;
        self.loaded.write().insert(id, made.clone());
        Ok(made)
    }
}

impl Engine {
    pub(crate) fn media(&self) -> &Decoder {
        &self.media
    }

    /// A place among the derivations that take much memory and all cores: videos, recordings, PDFs. Keep it meanwhile.
    pub(crate) async fn heavy(&self) -> Result<OwnedSemaphorePermit> {
        self.heavy.clone().acquire_owned().await.map_err(Error::internal)
    }

    async fn load<T: Clone + Send + 'static>(
        self: &Arc<Self>,
        model: &str,
        task: Task,
        kind: fn(&Models) -> &Kind<T>,
        load: fn(&Models, &str) -> Result<T>,
    ) -> Result<T> {
        let id = Registry::resolve_for(model, task)?.id;
        if let Some(found) = kind(&self.models).get(id) {
            return Ok(found);
        }
        let engine = self.clone();
        let get_or_load = move || kind(&engine.models).get_or_load(id, || load(&engine.models, id));
        tokio::task::spawn_blocking(get_or_load).await.map_err(Error::internal)?
    }

    /// A model of texts.
    pub(crate) async fn embedder(self: &Arc<Self>, model: &str) -> Result<TextEmbedder> {
        self.load(model, Task::EmbedText, |m| &m.texts, Models::load_text).await
    }

    /// A model for sparse vectors of text.
    pub(crate) async fn sparse_embedder(self: &Arc<Self>, model: &str) -> Result<SparseEmbedder> {
        let load = |m: &Models, id: &str| SparseEmbedder::load(&m.registry, id, EmbedConfig::default());
        self.load(model, Task::EmbedSparse, |m| &m.sparse, load).await
    }

    /// A model that gives each token of a text a vector.
    pub(crate) async fn token_embedder(self: &Arc<Self>, model: &str) -> Result<TokenEmbedder> {
        let load = |m: &Models, id: &str| TokenEmbedder::load(&m.registry, id, EmbedConfig::default());
        self.load(model, Task::EmbedTokens, |m| &m.tokens, load).await
    }

    /// A model of images.
    pub(crate) async fn image_embedder(self: &Arc<Self>, model: &str) -> Result<ImageEmbedder> {
        self.load(model, Task::EmbedImage, |m| &m.images, Models::load_image).await
    }

    /// A space of images and texts.
    pub(crate) async fn image_text_space(self: &Arc<Self>, model: &str) -> Result<Space> {
        self.load(model, Task::EmbedImageText, |m| &m.spaces, Models::load_space).await
    }

    /// A model of faces, with those that it needs.
    pub(crate) async fn face_finder(self: &Arc<Self>, model: &str) -> Result<FaceFinder> {
        let load = |m: &Models, id: &str| FaceFinder::load(&m.registry, id, Models::threads());
        self.load(model, Task::EmbedFace, |m| &m.faces, load).await
    }

    /// A model that reads text in images.
    pub(crate) async fn text_reader(self: &Arc<Self>, model: &str) -> Result<TextReader> {
        let load = |m: &Models, id: &str| TextReader::load(&m.registry, id, Models::threads());
        self.load(model, Task::RecognizeText, |m| &m.readers, load).await
    }

    /// A model of speech.
    pub(crate) async fn transcriber(self: &Arc<Self>, model: &str) -> Result<Transcriber> {
        let load = |m: &Models, id: &str| Transcriber::load(&m.registry, id, Models::threads());
        self.load(model, Task::Transcribe, |m| &m.speech, load).await
    }

    /// What tells a model's outputs from those of every other, whatever it does and wherever it runs.
    pub(crate) async fn model_fingerprint(self: &Arc<Self>, scope: &Scope, model: &str) -> Result<String> {
        if org_models::is_name(model) {
            return Ok(self.usable_model(scope, model).await?.fingerprint);
        }
        let Ok(entry) = Registry::resolve(model) else { return self.provider_fingerprint(model) };
        Ok(match entry.task {
            Task::EmbedText => self.embedder(model).await?.fingerprint().to_owned(),
            Task::EmbedSparse => self.sparse_embedder(model).await?.fingerprint().to_owned(),
            Task::EmbedTokens => self.token_embedder(model).await?.fingerprint().to_owned(),
            Task::EmbedImage => self.image_embedder(model).await?.fingerprint().to_owned(),
            Task::EmbedImageText => self.image_text_space(model).await?.fingerprint().to_owned(),
            Task::EmbedFace => self.face_finder(model).await?.fingerprint().to_owned(),
            Task::RecognizeText => self.text_reader(model).await?.fingerprint().to_owned(),
            Task::Transcribe => self.transcriber(model).await?.fingerprint().to_owned(),
            Task::EmbedAudio => strata_infer::acoustic::VERSION.to_owned(),
            Task::RerankText | Task::DetectFaces | Task::AlignFaces | Task::DetectVoice | Task::Decode => {
                return Err(Error::internal(format!("`{model}` makes no output of its own")));
            }
        })
    }

    /// A cross-encoder, loaded at its first use: a model of the registry, or a directory beside its models.
    /// [`Error::Missing`] says that nothing has that name.
    pub(crate) async fn cross_encoder(self: &Arc<Self>, name: &str) -> Result<CrossEncoder> {
        let name = Registry::resolve_for(name, Task::RerankText).map_or(name, |entry| entry.id).to_owned();
        if let Some(found) = self.models.cross_encoders.lock().get(&name) {
            return Ok(found.clone());
        }
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let models = &engine.models;
            let _loading = models.loading_cross_encoder.lock();
            if let Some(found) = models.cross_encoders.lock().get(&name) {
                return Ok(found.clone());
            }
            let made = CrossEncoder::load(&models.registry, &name, Models::threads())?;
            models.cross_encoders.lock().put(name, made.clone());
            Ok(made)
        })
        .await
        .map_err(Error::internal)?
    }
}

/// How many derivations run beside each other that take much: while one waits for its decoder, another computes.
pub(crate) fn heavy_places() -> usize {
    Models::threads() + 1
}

/// A decoder with the tools that are installed among the models, or else on the search path. The program starts itself as
/// its children.
pub(crate) fn decoder(models_dir: &Path) -> Result<Decoder> {
    let tools = Tools::default().completed(&[&models_dir.join("ffmpeg"), &models_dir.join("pdfium")]);
    // The running program, also where its file was replaced by another version.
    let itself = Path::new("/proc/self/exe");
    let program = match itself.exists() {
        true => itself.to_owned(),
        false => std::env::current_exe().map_err(Error::internal)?,
    };
    Ok(Decoder::new(strata_media::Config::new(program, vec![MEDIA_CHILD.into()], tools)))
}

/// The subcommand of the program that hands over to [`strata_media::child::main`].
pub const MEDIA_CHILD: &str = "media-child";
