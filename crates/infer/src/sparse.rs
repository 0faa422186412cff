//! Sparse text embedding: a text to weights of words of a vocabulary, those it has and those it could as well have, by a
//! BERT masked language model (Formal, Piwowarski and Clinchant, 2021, "SPLADE: Sparse Lexical and Expansion Model for
//! First Stage Ranking").

use crate::embed::{EmbedConfig, block_on, cut, encode, tokenizer};
use crate::entry::{Runtime, Task};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::queue::{Answer, Priority};
use crate::registry::Registry;
use crate::worker::{Batch, Batcher, Feed, Steps};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertForMaskedLM, Config};
use strata_model::{Error, Result};

/// Most words of a vector; those of the smallest weights are left out.
const MAX_WORDS: usize = 512;

/// Weights of words: `indices` are tokens of the model's vocabulary, ascending, `values` their weights, above 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseVector {
    pub indices: Vec<u32>,
    pub values: Vec<f32>,
}

/// A loaded sparse embedding model.
pub type SparseEmbedder = Loaded<Batcher<SparseVector>>;

impl SparseEmbedder {
    /// Loads a model by id or alias, checks its files' SHA-256, starts its worker threads and embeds one word to see
    /// that it works. Blocking, a fraction of a second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where the model is not installed or damaged (the message says
    /// what to run); `Internal` where the runtime refuses it.
    pub fn load(registry: &Registry, id: &str, config: EmbedConfig) -> Result<Self> {
        let entry = runnable(id, Task::EmbedSparse, Runtime::CandleBert)?;
        let weights = registry.read(entry, "model.safetensors")?;
        let tokens = registry.read(entry, "tokenizer.json")?;
        let settings = registry.read(entry, "config.json")?;
        let facts = Facts::of(entry, &[&weights, &tokens]);
        let truncating = tokenizer(&tokens, Some(entry.max_tokens))?;
        let network = Network::load(weights, &settings).map_err(|e| broken(entry.id, e))?;
        let steps = Steps {
            tokenise: Box::new(move |text| Ok(encode(&truncating, cut(text))?.get_ids().to_vec())),
            run: Box::new(move |batch, _| network.run(batch)),
        };
        // The runtime spreads each operation over the threads there are, so batches go one after the other.
        let feed = Feed { max_batch: config.max_batch, max_wait: config.max_wait, workers: 1 };
        let embedder = Self::new(facts, Batcher::start(entry.id, feed, steps)?);
        block_on(embedder.embed_query("ready"))?;
        Ok(embedder)
    }

    /// Embeds texts in the background, one vector a text, in order; see
    /// [`TextEmbedder::embed`](crate::TextEmbedder::embed). A text without a word may give a vector without one.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<SparseVector>> {
        self.model.submit(Priority::Ingest, texts).await
    }

    /// Embeds a text that somebody waits for. `Busy` where too many are queued.
    pub async fn embed_query(&self, text: &str) -> Result<SparseVector> {
        self.model.submit_one(Priority::Query, text).await
    }
}

struct Network(BertForMaskedLM);

impl Network {
    fn load(weights: Vec<u8>, settings: &[u8]) -> Result<Self> {
        let config: Config = serde_json::from_slice(settings).map_err(Error::internal)?;
        let tensors = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu);
        // The words' embeddings are the decoder's weights, too, and stand in the file once.
        let tensors = tensors.map_err(Error::internal)?.rename_f(|name| match name {
            "cls.predictions.decoder.weight" => "bert.embeddings.word_embeddings.weight".to_owned(),
            "cls.predictions.decoder.bias" => "cls.predictions.bias".to_owned(),
            other => other.to_owned(),
        });
        BertForMaskedLM::load(tensors, &config).map(Self).map_err(Error::internal)
    }

    fn run(&self, batch: &Batch) -> Answer<SparseVector> {
        let peaks = self.peaks(batch).map_err(Error::internal)?;
        Ok(peaks.into_iter().map(|peaks| sparse(&peaks)).collect())
    }

    /// Of each row and each word of the vocabulary the largest logit over the row's tokens, or 0.
    fn peaks(&self, batch: &Batch) -> candle_core::Result<Vec<Vec<f32>>> {
        let shape = (batch.rows, batch.columns);
        let ids: Vec<u32> = batch.ids.iter().map(|id| id.cast_unsigned()).collect();
        let mask: Vec<f32> = batch.mask.iter().map(|m| *m as f32).collect();
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let logits = self.0.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let visible = logits.relu()?.broadcast_mul(&mask.unsqueeze(D::Minus1)?)?;
        visible.max(1)?.to_vec2()
    }
}

/// The words with a weight, `log(1 + peak)`. The logarithm grows with the peak, so it may be taken of the peaks alone.
fn sparse(peaks: &[f32]) -> SparseVector {
    let mut words: Vec<(u32, f32)> = Vec::new();
    for (index, peak) in (0..).zip(peaks) {
        if *peak > 0.0 && peak.is_finite() {
            words.push((index, peak.ln_1p()));
        }
    }
    if words.len() > MAX_WORDS {
        words.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        words.truncate(MAX_WORDS);
        words.sort_by_key(|(index, _)| *index);
    }
    let (indices, values) = words.into_iter().unzip();
    SparseVector { indices, values }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_the_logarithm_of_a_peak_above_zero() {
        let vector = sparse(&[0.0, 1.0, 0.0, 3.0]);
        assert_eq!((vector.indices, vector.values), (vec![1, 3], vec![1.0_f32.ln_1p(), 3.0_f32.ln_1p()]));
        assert_eq!(sparse(&[0.0, f32::NAN, f32::INFINITY]), SparseVector::default());
    }

    #[test]
    fn of_too_many_words_the_heaviest_are_kept_in_order() {
        let peaks: Vec<f32> = (0..2 * MAX_WORDS).map(|n| n as f32 + 1.0).collect();
        let vector = sparse(&peaks);
        assert_eq!((vector.indices.len(), vector.indices[0]), (MAX_WORDS, MAX_WORDS as u32));
        assert!(vector.indices.is_sorted());
    }
}
