//! Whisper's encoder and decoder, by hand over the products of matrices of `rten-gemm`.
//!
//! The encoder takes a window's frames in blocks through each layer, so that what is made of a block stays in the cache next to
//! a core. The decoder, which reads all weights for a few rows at a time, has them and what was heard in half precision; it
//! keeps the keys and values of earlier tokens, so that a token costs one step and not all steps anew, and gives the attention
//! of the heads that follow the sound, from which words get their times.

mod decoder;
mod encoder;
mod half;
mod layers;
mod tensors;

use crate::limits::MAX_THREADS;
use decoder::{Decoder, Kept};
use encoder::Encoder;
use half::Half;
use rayon::ThreadPool;
use std::sync::Arc;
use strata_model::{Error, Result};
use tensors::Tensors;

pub use decoder::Scores;
pub use tensors::Sizes;

/// A loaded model.
pub struct Network {
    pub sizes: Sizes,
    /// Where everything that takes time runs.
    pub threads: ThreadPool,
    encoder: Encoder,
    decoder: Decoder,
}

/// What the decoder attends to of some windows.
pub struct Sound(Vec<Arc<Heard>>);

/// Of one window: for each layer and each of its heads.
struct Heard(Vec<Pair>);

/// Keys `[64, frames]` and values `[frames, 64]` of one head.
struct Pair {
    keys: Half,
    values: Half,
}

impl Sound {
    /// Several windows in one.
    pub fn of(windows: &[&Sound]) -> Self {
        Self(windows.iter().flat_map(|window| window.0.iter().cloned()).collect())
    }

    /// Frames of its first window.
    pub fn frames(&self) -> usize {
        self.0.first().and_then(|heard| heard.0.first()).map_or(0, |pair| pair.keys.columns())
    }

    /// Only these windows of it, in this order.
    pub fn keep(&self, windows: &[usize]) -> Self {
        Self(windows.iter().map(|window| self.0[*window].clone()).collect())
    }
}

/// The decoder's memory of the tokens of some rows, for each row and layer.
pub struct Past {
    rows: Vec<Vec<Kept>>,
    tokens: usize,
}

impl Past {
    fn nothing(rows: usize, sizes: &Sizes) -> Self {
        let row = |_| (0..sizes.decoder_layers).map(|_| Kept::default()).collect();
        Self { rows: (0..rows).map(row).collect(), tokens: 0 }
    }

    /// Only these rows of it, each once, in this order.
    pub fn keep(&mut self, rows: &[usize]) {
        self.rows = rows.iter().map(|row| std::mem::take(&mut self.rows[*row])).collect();
    }
}

impl Network {
    /// Builds the network from the content of a `model.safetensors` file with the published names.
    ///
    /// Errors: `Malformed` where a tensor is missing or of a wrong shape; `Internal` where no threads can be started.
    pub fn load(file: &[u8], threads: usize) -> Result<Self> {
        let mut tensors = Tensors::read(file)?;
        let sizes = tensors.sizes()?;
        // The encoder takes what it needs of the decoder's tensors first.
        let encoder = Encoder::read(&mut tensors, sizes)?;
        let decoder = Decoder::read(&mut tensors, sizes)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.clamp(1, MAX_THREADS));
        let threads = pool.thread_name(|number| format!("speech-{number}")).build().map_err(Error::internal)?;
        Ok(Self { sizes, threads, encoder, decoder })
    }

    /// Encodes one window: its features `[2 * frames, mel_bands]`, of at most as many frames as the model has places.
    pub fn encode(&self, features: &[f32]) -> Result<Sound> {
        let heard = self.threads.install(|| self.encoder.run(features))?;
        Ok(Sound(vec![Arc::new(heard)]))
    }

    /// Memory of no token, for `rows` rows.
    pub fn nothing(&self, rows: usize) -> Past {
        Past::nothing(rows, &self.sizes)
    }

    /// Reads the next tokens of each row, as many of every row, and answers the logits `[rows, tokens, vocabulary]` of what
    /// follows each.
    pub fn decode(&self, tokens: &[Vec<u32>], past: &mut Past, sound: &Sound) -> Result<Vec<f32>> {
        self.threads.install(|| self.decoder.logits(tokens, past, sound))
    }

    /// How much the heads of some layers attend to each frame of a window while each of `tokens` is read, before the
    /// normalisation: for each layer and head `[tokens, frames]`.
    pub fn attention(&self, tokens: Vec<u32>, sound: &Sound, layers: &[usize]) -> Result<Vec<Scores>> {
        self.threads.install(|| self.decoder.scores(tokens, sound, layers))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn weights_of_something_else_are_refused() {
        assert!(matches!(Network::load(b"", 1), Err(Error::Malformed(_))));
        let one = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let file = safetensors::serialize([("a", &one)], None).unwrap();
        match Network::load(&file, 1) {
            Err(Error::Malformed(message)) => {
                assert!(message.contains("`model.decoder.embed_tokens.weight`"), "{message}")
            }
            _ => panic!("it was taken"),
        }
    }
}
