//! Image embedding and classification: an image to one unit vector and to the classes of ImageNet.

use super::efficientnet::{EfficientNet, SIDE, Seen};
use super::imagenet::{Label, labels};
use super::pixels::Pixels;
use crate::convnet::Scratch;
use crate::embed::unit;
use crate::entry::{Runtime, Task};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::pool::Pool;
use crate::queue::Priority;
use crate::registry::Registry;
use futures::future::try_join_all;
use strata_model::{Result, id::sha256_hex};

/// A loaded image model.
pub type ImageEmbedder = Loaded<Pool<EfficientNet, Scratch>>;

/// What a model sees in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Sight {
    /// Unit vector of [`ImageEmbedder::dimensions`] numbers.
    pub embedding: Vec<f32>,
    /// How much speaks for each class of [`labels`].
    pub logits: Vec<f32>,
}

impl Sight {
    /// How likely each class of [`labels`] is; they sum to 1. A `temperature` above 1 makes them more alike.
    pub fn probabilities(&self, temperature: f32) -> Vec<f32> {
        let most = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = self.logits.iter().map(|logit| ((logit - most) / temperature).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.into_iter().map(|power| power / sum).collect()
    }

    /// The `count` most likely classes with their probabilities, most likely first.
    pub fn top(&self, count: usize) -> Vec<(Label, f32)> {
        let mut classes: Vec<(Label, f32)> = labels().iter().copied().zip(self.probabilities(1.0)).collect();
        classes.sort_by(|a, b| b.1.total_cmp(&a.1));
        classes.truncate(count);
        classes
    }
}

impl ImageEmbedder {
    /// Loads a model by id or alias, checks its file's SHA-256 and looks at one image to see that it works. `threads`
    /// images are looked at beside each other. Blocking, a fraction of a second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where the model is not installed or damaged (the message says
    /// what to run) or this build cannot run it; `Internal` where the file is not the network's.
    pub fn load(registry: &Registry, id: &str, threads: usize) -> Result<Self> {
        let entry = runnable(id, Task::EmbedImage, Runtime::ConvNet)?;
        let bytes = registry.read(entry, "model.safetensors")?;
        let facts = Facts { id: entry.id.to_owned(), fingerprint: sha256_hex(&bytes), dimensions: entry.dimensions };
        let network = EfficientNet::load(&bytes).map_err(|e| broken(entry.id, e))?;
        let embedder = Self::new(facts, Pool::new(entry.id, threads, network));
        embedder.look_blocking(Pixels::new(1, 1, vec![127; 3])?)?;
        Ok(embedder)
    }

    /// Looks at an image of any size, in the background. Of it the square in the middle is seen, scaled to 224 by 224
    /// pixels.
    ///
    /// Errors: `Internal` where the runtime fails or panics. Dropping the future gives up what has not begun.
    pub async fn look(&self, image: Pixels) -> Result<Sight> {
        self.model.run(Priority::Ingest, move |network, scratch| sight(network, &image, scratch)).await
    }

    /// As [`ImageEmbedder::look`], for an image that somebody waits for: goes before background work. `Busy` where too
    /// many wait already.
    pub async fn look_now(&self, image: Pixels) -> Result<Sight> {
        self.model.run(Priority::Query, move |network, scratch| sight(network, &image, scratch)).await
    }

    /// [`ImageEmbedder::look`] for threads that may block. Never call it on an async runtime's thread.
    pub fn look_blocking(&self, image: Pixels) -> Result<Sight> {
        self.model.run_here(|network, scratch| sight(network, &image, scratch))
    }

    /// A unit vector an image, in order; see [`ImageEmbedder::look`].
    pub async fn embed(&self, images: Vec<Pixels>) -> Result<Vec<Vec<f32>>> {
        let looks = images.into_iter().map(|image| self.look(image));
        Ok(try_join_all(looks).await?.into_iter().map(|sight| sight.embedding).collect())
    }

    /// Pixels of a side of the square that the model sees: an image of just that size, cut out of the middle and scaled with
    /// the Hamming filter, is what [`ImageEmbedder::look`] makes of a larger one.
    pub const SIDE: u32 = SIDE as u32;
}

fn sight(network: &EfficientNet, image: &Pixels, scratch: &mut Scratch) -> Result<Sight> {
    let input = image.resized(middle(image), SIDE as u32, SIDE as u32)?.to_map(127.0, 128.0);
    let Seen { features, logits } = network.run(&input, scratch)?;
    scratch.give(input);
    Ok(Sight { embedding: unit(features)?, logits })
}

/// The square in the middle that is seen: left, top, width and height in pixels.
pub(crate) fn middle(image: &Pixels) -> [f64; 4] {
    let (width, height) = (f64::from(image.width()), f64::from(image.height()));
    let side = width.min(height);
    [(width - side) / 2.0, (height - side) / 2.0, side, side]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_keep_the_order() {
        let found = Sight { embedding: Vec::new(), logits: vec![1000.0, 999.0, -1000.0] }.probabilities(1.0);
        assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(found[0] > found[1] && found[1] > found[2]);
    }

    #[test]
    fn the_middle_is_a_square_in_the_image() {
        assert_eq!(middle(&Pixels::new(200, 100, vec![0; 60_000]).unwrap()), [50.0, 0.0, 100.0, 100.0]);
    }
}
