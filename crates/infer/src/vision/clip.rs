//! CLIP (Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision"): one network for
//! images and one for texts, trained so that a picture lies near the words for it.

use super::embed::middle;
use super::pixels::Pixels;
use crate::embed::{block_on, cut, encode, tokenizer, unit};
use crate::entry::{ModelEntry, Runtime, Task};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::pool::Pool;
use crate::queue::Priority;
use crate::registry::Registry;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::clip::text_model::{Activation, ClipTextConfig};
use candle_transformers::models::clip::vision_model::ClipVisionConfig;
use candle_transformers::models::clip::{ClipConfig, ClipModel};
use serde::Deserialize;
use strata_model::{Error, Result};
use tokenizers::Tokenizer;

/// Mean and standard deviation of red, green and blue over the pictures that it was trained on, from 0 to 1.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

const CLASS_EMBEDDING: &str = "vision_model.embeddings.class_embedding";

/// A loaded model.
pub type Clip = Loaded<Pool<Networks>>;

/// What a [`Clip`] runs.
pub struct Networks {
    tokens: Tokenizer,
    model: ClipModel,
    /// Pixels of a side of the square that it sees.
    side: u32,
}

/// `config.json` as the hub has it.
#[derive(Deserialize)]
struct Settings {
    projection_dim: usize,
    text_config: TextSettings,
    vision_config: VisionSettings,
}

#[derive(Deserialize)]
struct TextSettings {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
}

#[derive(Deserialize)]
struct VisionSettings {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
}

impl Settings {
    fn parse(json: &[u8]) -> Result<Self, String> {
        let settings: Self = serde_json::from_slice(json).map_err(|e| format!("its config.json: {e}"))?;
        // Others have the same names and another activation, and would answer nonsense.
        for activation in [&settings.text_config.hidden_act, &settings.vision_config.hidden_act] {
            if activation != "quick_gelu" {
                return Err(format!("its activation is `{activation}`; `quick_gelu` can be run"));
            }
        }
        Ok(settings)
    }

    fn network(&self) -> ClipConfig {
        let (text, vision) = (&self.text_config, &self.vision_config);
        ClipConfig {
            text_config: ClipTextConfig {
                vocab_size: text.vocab_size,
                embed_dim: text.hidden_size,
                activation: Activation::QuickGelu,
                intermediate_size: text.intermediate_size,
                max_position_embeddings: text.max_position_embeddings,
                pad_with: None,
                num_hidden_layers: text.num_hidden_layers,
                num_attention_heads: text.num_attention_heads,
                projection_dim: self.projection_dim,
            },
            vision_config: ClipVisionConfig {
                embed_dim: vision.hidden_size,
                activation: Activation::QuickGelu,
                intermediate_size: vision.intermediate_size,
                num_hidden_layers: vision.num_hidden_layers,
                num_attention_heads: vision.num_attention_heads,
                projection_dim: self.projection_dim,
                num_channels: 3,
                image_size: vision.image_size,
                patch_size: vision.patch_size,
            },
            logit_scale_init_value: 2.6592,
            image_size: vision.image_size,
        }
    }
}

impl Clip {
    /// Loads a model by id or alias, checks its files' SHA-256 and embeds a word and an image to see that it works.
    /// Blocking, seconds; takes twice the size of the weights in memory meanwhile.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where the model is not installed or damaged (the message says
    /// what to run); `Internal` where the files are not such a network's.
    pub fn load(registry: &Registry, id: &str) -> Result<Self> {
        let entry = runnable(id, Task::EmbedImageText, Runtime::CandleClip)?;
        let read = |name: &str| registry.read(entry, name);
        Self::of(entry, read("model.safetensors")?, &read("tokenizer.json")?, &read("config.json")?)
    }

    /// [`Clip::load`] of files that are read already: the weights (safetensors), the tokenizer and the sizes (JSON).
    pub fn of(entry: &'static ModelEntry, weights: Vec<u8>, tokens: &[u8], settings: &[u8]) -> Result<Self> {
        let broken = |why: String| broken(entry.id, why);
        let facts = Facts::of(entry, &[&weights, tokens, settings]);
        let settings = Settings::parse(settings).map_err(broken)?;
        if settings.projection_dim != entry.dimensions {
            let wanted = entry.dimensions;
            return Err(broken(format!("its vectors have {} numbers, not {wanted}", settings.projection_dim)));
        }
        let tokens = tokenizer(tokens, Some(settings.text_config.max_position_embeddings))?;
        let side = u32::try_from(settings.vision_config.image_size).map_err(|e| broken(e.to_string()))?;
        let tensors = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu);
        let tensors = tensors.map_err(|e| broken(e.to_string()))?;
        // Where this is missing, the runtime would take chance for it.
        if !tensors.contains_tensor(CLASS_EMBEDDING) {
            return Err(broken(format!("it has no `{CLASS_EMBEDDING}`")));
        }
        let model = ClipModel::new(tensors, &settings.network()).map_err(|e| broken(e.to_string()))?;
        // The runtime spreads each operation over the threads there are, so turns are taken one after the other.
        let clip = Self::new(facts, Pool::new(entry.id, 1, Networks { tokens, model, side }));
        block_on(clip.embed_texts(vec!["ready".to_owned()]))?;
        block_on(clip.embed_image(Pixels::new(1, 1, vec![127; 3])?))?;
        Ok(clip)
    }

    /// The unit vector of an image of any size, in the background. Of it the square in the middle is seen.
    ///
    /// Errors: `Internal` where the runtime fails or panics. Dropping the future gives up what has not begun.
    pub async fn embed_image(&self, image: Pixels) -> Result<Vec<f32>> {
        self.image(Priority::Ingest, image).await
    }

    /// As [`Clip::embed_image`], for an image that somebody waits for: goes before background work. `Busy` where too many
    /// wait already.
    pub async fn embed_image_now(&self, image: Pixels) -> Result<Vec<f32>> {
        self.image(Priority::Query, image).await
    }

    /// A unit vector a text, in order, in the background. Of a text the first tokens are seen that have a place.
    pub async fn embed_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.texts(Priority::Ingest, texts).await
    }

    /// As [`Clip::embed_texts`], for texts that somebody waits for.
    pub async fn embed_queries(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.texts(Priority::Query, texts).await
    }

    async fn image(&self, priority: Priority, image: Pixels) -> Result<Vec<f32>> {
        self.model.run(priority, move |networks, ()| networks.image(&image)).await
    }

    async fn texts(&self, priority: Priority, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for text in texts {
            vectors.push(self.model.run(priority, move |networks, ()| networks.text(&text)).await?);
        }
        Ok(vectors)
    }
}

impl Networks {
    fn image(&self, image: &Pixels) -> Result<Vec<f32>> {
        let seen = image.resized(middle(image), self.side, self.side)?;
        let side = self.side as usize;
        // Channel by channel.
        let channel = |c: usize| {
            let values = seen.rgb().iter().skip(c).step_by(3);
            values.map(move |value| (f32::from(*value) / 255.0 - MEAN[c]) / DEVIATION[c])
        };
        let values: Vec<f32> = (0..3).flat_map(channel).collect();
        let look = || -> candle_core::Result<Vec<f32>> {
            let pixels = Tensor::from_vec(values, (1, 3, side, side), &Device::Cpu)?;
            self.model.get_image_features(&pixels)?.squeeze(0)?.to_vec1()
        };
        unit(look().map_err(Error::internal)?)
    }

    /// Texts go alone: the network takes the end of a text for its last token, which padding would be.
    fn text(&self, text: &str) -> Result<Vec<f32>> {
        let ids = encode(&self.tokens, cut(text))?.get_ids().to_vec();
        let read = || -> candle_core::Result<Vec<f32>> {
            let ids = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
            self.model.get_text_features(&ids)?.squeeze(0)?.to_vec1()
        };
        unit(read().map_err(Error::internal)?)
    }
}
