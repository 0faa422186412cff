//! Images in the space of a text model (Norouzi et al., 2014, "Zero-Shot Learning by Convex Combination of Semantic
//! Embeddings"): an image's vector is the mean of the text vectors of the classes it most likely shows, each weighted by how
//! likely it is.
//!
//! It knows the 1,000 classes of ImageNet and what is like them in words, and nothing else. What a class is called and how
//! the weights are made was chosen on 22 queries over 30 photos (Debian `opencv-doc`); the 14 queries over 20 photos of
//! scikit-image were written before and are in no choice but that of the filter that scales the image, where the first set
//! sees no difference (`tests/images.rs` has both):
//!
//! | a class's text | classes | temperature | filter | right first of 22, of 14 | mean reciprocal rank |
//! |---|---|---|---|---|---|
//! | a photo of a NAME | 10 | 1 | bicubic | 12, 8 | 0.63, 0.67 |
//! | NAME, and NAME: DEFINITION | 20 | 3 | bicubic | 17, 10 | 0.84, 0.83 |
//! | NAME, and NAME: DEFINITION | 20 | 3 | Hamming | 17, 11 | 0.84, 0.84 |

use super::embed::{ImageEmbedder, Sight};
use super::imagenet::{TABLE, labels};
use super::pixels::Pixels;
use crate::embed::{EmbedConfig, TextEmbedder, unit};
use crate::entry::{ModelEntry, Task};
use crate::loaded::{Facts, Loaded};
use crate::registry::Registry;
use futures::future::try_join_all;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use strata_model::{Error, Result};

/// Classes that an image's vector is made of.
const CLASSES: usize = 20;
/// What the logits are divided by, so that the less likely classes are heard, too.
const TEMPERATURE: f32 = 3.0;
/// Stands for everything in this file that a vector depends on.
const VERSION: &[u8] = b"conse 1: name, name: definition; 20 classes; temperature 3; square in the middle";

/// An image model and a text model with one space.
pub type Conse = Loaded<Parts>;

/// What a [`Conse`] is made of.
pub struct Parts {
    images: ImageEmbedder,
    texts: TextEmbedder,
    /// A unit vector for each class.
    classes: Vec<Vec<f32>>,
}

impl Conse {
    /// Loads both models and the vectors of the classes. These are made once and kept beside the models; they are made
    /// again, in seconds, where they are not there or not what they were. Blocking.
    ///
    /// Errors: as those of [`ImageEmbedder::load`] and [`TextEmbedder::load`].
    pub fn load(registry: &Registry, id: &str, config: EmbedConfig) -> Result<Self> {
        let entry = Registry::resolve_for(id, Task::EmbedImageText)?;
        let (Some(image_model), Some(text_model)) = (entry.needs.first(), entry.needs.get(1)) else {
            return Err(Error::Unavailable(format!("model `{}` is not made of an image and a text model", entry.id)));
        };
        let images = ImageEmbedder::load(registry, image_model, config.threads)?;
        let texts = TextEmbedder::load(registry, text_model, config)?;
        Self::of(entry, images, texts, &registry.path(entry))
    }

    /// As [`Conse::load`] of models that are loaded already; `cache` is a directory for the vectors of the classes. Blocking.
    pub fn of(entry: &'static ModelEntry, images: ImageEmbedder, texts: TextEmbedder, cache: &Path) -> Result<Self> {
        let class_key = strata_model::id::sha256_parts(&[VERSION, TABLE.as_bytes(), texts.fingerprint().as_bytes()]);
        let kept = Kept { path: cache.join("classes.bin"), key: class_key };
        let dimensions = texts.dimensions();
        let classes = match kept.read(dimensions) {
            Some(classes) => classes,
            None => {
                let classes = embed_classes(&texts)?;
                kept.write(&classes);
                classes
            }
        };
        let facts = Facts { dimensions, ..Facts::of(entry, &[&class_key, images.fingerprint().as_bytes()]) };
        Ok(Self::new(facts, Parts { images, texts, classes }))
    }

    /// A unit vector an image, in order, in the background; see [`ImageEmbedder::look`].
    pub async fn embed_images(&self, images: Vec<Pixels>) -> Result<Vec<Vec<f32>>> {
        let sights = try_join_all(images.into_iter().map(|image| self.model.images.look(image))).await?;
        sights.iter().map(|sight| self.vector(sight)).collect()
    }

    /// The vector of an image that somebody waits for; see [`ImageEmbedder::look_now`].
    pub async fn embed_image_now(&self, image: Pixels) -> Result<Vec<f32>> {
        self.vector(&self.model.images.look_now(image).await?)
    }

    /// The vector of what an image model has seen, which need not look again.
    pub fn vector(&self, sight: &Sight) -> Result<Vec<f32>> {
        let mut likely: Vec<(usize, f32)> = sight.probabilities(TEMPERATURE).into_iter().enumerate().collect();
        likely.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut sum = vec![0.0; self.dimensions()];
        for (class, probability) in likely.into_iter().take(CLASSES) {
            let class = self.model.classes.get(class).ok_or_else(|| Error::internal("a class without a vector"))?;
            sum.iter_mut().zip(class).for_each(|(to, from)| *to += probability * from);
        }
        unit(sum)
    }

    /// The image model, for who needs its own vectors, too.
    pub fn images(&self) -> &ImageEmbedder {
        &self.model.images
    }
    /// The text model: texts and queries are embedded by it as they are.
    pub fn texts(&self) -> &TextEmbedder {
        &self.model.texts
    }
}

/// A unit vector for each class: between the one of its name and the one of its name and definition.
fn embed_classes(texts: &TextEmbedder) -> Result<Vec<Vec<f32>>> {
    let names = labels().iter().map(|label| label.name().to_owned());
    let definitions = labels().iter().map(|label| format!("{}: {}", label.name(), label.definition));
    let names = texts.embed_blocking(names.collect())?;
    let definitions = texts.embed_blocking(definitions.collect())?;
    let middle = |(a, b): (Vec<f32>, Vec<f32>)| unit(a.iter().zip(&b).map(|(a, b)| a + b).collect());
    names.into_iter().zip(definitions).map(middle).collect()
}

/// The vectors of the classes in a file: the key, the SHA-256 of the numbers, the numbers. Derived, so that nothing is
/// lost with it.
struct Kept {
    path: PathBuf,
    key: [u8; 32],
}

impl Kept {
    /// `None` where it is not there, made of other models, or damaged.
    fn read(&self, dimensions: usize) -> Option<Vec<Vec<f32>>> {
        let length = 64 + labels().len() * dimensions * 4;
        if std::fs::metadata(&self.path).ok()?.len() != length as u64 {
            return None;
        }
        let bytes = std::fs::read(&self.path).ok()?;
        let (head, numbers) = bytes.split_at_checked(64)?;
        if head[..32] != self.key || head[32..] != Sha256::digest(numbers)[..] {
            return None;
        }
        let (numbers, _) = numbers.as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|number| f32::from_le_bytes(*number)).collect();
        Some(numbers.chunks(dimensions).map(<[f32]>::to_vec).collect())
    }

    /// A disk that refuses costs seconds at the next start and is no reason to fail.
    fn write(&self, classes: &[Vec<f32>]) {
        let numbers: Vec<u8> = classes.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        let bytes = [&self.key[..], &Sha256::digest(&numbers)[..], &numbers[..]].concat();
        if let Err(e) = self.put(&bytes) {
            tracing::warn!(path = %self.path.display(), "`{}` cannot be kept: {e}", self.path.display());
        }
    }

    fn put(&self, bytes: &[u8]) -> std::io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let file = tempfile::NamedTempFile::new_in(dir)?;
        std::fs::write(file.path(), bytes)?;
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let kept = Kept { path: temp.path().join("new/classes.bin"), key: [7; 32] };
        assert!(kept.read(2).is_none());
        let classes = vec![vec![0.6, 0.8]; labels().len()];
        kept.write(&classes);
        assert_eq!(kept.read(2).unwrap(), classes);
        assert!(kept.read(3).is_none());
        assert!(Kept { path: kept.path.clone(), key: [8; 32] }.read(2).is_none());
        let mut bytes = std::fs::read(&kept.path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&kept.path, bytes).unwrap();
        assert!(kept.read(2).is_none());
    }
}
