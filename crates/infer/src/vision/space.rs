//! A space of images and texts, whichever model makes it.

use super::clip::Clip;
use super::conse::Conse;
use super::pixels::Pixels;
use strata_model::{Error, Result};

/// A model with one space for images and texts. Clones share it.
#[derive(Debug, Clone)]
pub enum Space {
    Conse(Conse),
    Clip(Clip),
}

impl Space {
    /// The unit vector of an image, in the background.
    pub async fn embed_image(&self, image: Pixels) -> Result<Vec<f32>> {
        match self {
            Self::Conse(conse) => {
                let vectors = conse.embed_images(vec![image]).await?;
                vectors.into_iter().next().ok_or_else(|| Error::internal("the model gave no vector"))
            }
            Self::Clip(clip) => clip.embed_image(image).await,
        }
    }

    /// The unit vector of an image that somebody waits for.
    pub async fn embed_image_now(&self, image: Pixels) -> Result<Vec<f32>> {
        match self {
            Self::Conse(conse) => conse.embed_image_now(image).await,
            Self::Clip(clip) => clip.embed_image_now(image).await,
        }
    }

    /// A unit vector a text, in order, in the background.
    pub async fn embed_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Conse(conse) => conse.texts().embed(texts).await,
            Self::Clip(clip) => clip.embed_texts(texts).await,
        }
    }

    /// A unit vector a text, in order, ahead of background work.
    pub async fn embed_queries(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        match self {
            Self::Conse(conse) => conse.texts().embed_queries(texts).await,
            Self::Clip(clip) => clip.embed_queries(texts).await,
        }
    }

    /// What tells the vectors of its images from those of every other model.
    pub fn fingerprint(&self) -> &str {
        match self {
            Self::Conse(conse) => conse.fingerprint(),
            Self::Clip(clip) => clip.fingerprint(),
        }
    }

    /// The same of its texts.
    pub fn text_fingerprint(&self) -> &str {
        match self {
            Self::Conse(conse) => conse.texts().fingerprint(),
            Self::Clip(clip) => clip.fingerprint(),
        }
    }

    /// Length of every vector.
    pub fn dimensions(&self) -> usize {
        match self {
            Self::Conse(conse) => conse.dimensions(),
            Self::Clip(clip) => clip.dimensions(),
        }
    }
}
