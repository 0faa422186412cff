//! Text embedding: text to one unit vector, by a BERT-like ONNX model, mean pooling over the tokens and L2
//! normalisation (Reimers and Gurevych, 2019, "Sentence-BERT").

use crate::entry::{Runtime, Task};
use crate::limits::{MAX_TEXT_CHARS, MAX_THREADS};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::onnx::{TokenGraph, on};
use crate::queue::{Answer, Priority};
use crate::registry::Registry;
use crate::worker::{Batch, Batcher, Feed, Steps, Threads};
use rten::{NodeId, RunOptions};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use strata_model::{Error, Result};
use tokenizers::{Tokenizer, TruncationParams};

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbedConfig {
    /// Most texts of a batch, 1 to 256. Batches also end at 256 tokens, padding included.
    pub max_batch: usize,
    /// Threads of the runtime, 1 to 64.
    pub threads: usize,
    /// How long a few ingest texts wait for more to fill a batch. Queries never wait.
    pub max_wait: Duration,
}

impl Default for EmbedConfig {
    /// 32 texts, as many threads as the process may use but at most 8, 2 ms. The runtime's own default counts
    /// physical cores of the machine, which is wrong in a container that has a share of them.
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        Self { max_batch: 32, threads, max_wait: Duration::from_millis(2) }
    }
}

/// A loaded text embedding model.
pub type TextEmbedder = Loaded<Texts>;

/// What runs a [`TextEmbedder`].
pub struct Texts {
    max_tokens: usize,
    counter: Tokenizer,
    batcher: Batcher<Vec<f32>>,
}

/// What makes vectors of a batch, on one thread or all.
pub(crate) type Run = Box<dyn Fn(&Batch, Threads) -> Answer<Vec<f32>> + Send + Sync>;

impl TextEmbedder {
    /// Loads a model by id or alias, checks its files' SHA-256, starts its worker threads and embeds one word to see
    /// that it works. Blocking, a fraction of a second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where the model is not installed or damaged (the message says
    /// what to run) or this build cannot run it; `Internal` where the runtime refuses it.
    pub fn load(registry: &Registry, id: &str, config: EmbedConfig) -> Result<Self> {
        let entry = runnable(id, Task::EmbedText, Runtime::RtenOnnx)?;
        let model_bytes = registry.read(entry, "model.onnx")?;
        let tokenizer_bytes = registry.read(entry, "tokenizer.json")?;
        let facts = Facts::of(entry, &[&model_bytes, &tokenizer_bytes]);
        let network = Network::load(entry.id, model_bytes, config.threads, &["last_hidden_state"])?;
        let network = Network { dimensions: Some(entry.dimensions), ..network };
        let run: Run = Box::new(move |batch, threads| network.run(batch, threads));
        Self::start(entry.id, facts, entry.max_tokens, &tokenizer_bytes, config, run)
    }

    /// Starts the threads of a model that is read, `config.threads` of them, and embeds one word to see that it works.
    /// `label` is what metrics call it; of each text it sees `max_tokens`.
    pub(crate) fn start(
        label: &'static str,
        facts: Facts,
        max_tokens: usize,
        tokenizer_bytes: &[u8],
        config: EmbedConfig,
        run: Run,
    ) -> Result<Self> {
        let counter = tokenizer(tokenizer_bytes, None)?;
        let truncating = tokenizer(tokenizer_bytes, Some(max_tokens))?;
        let tokenise = move |text: &str| -> Result<Vec<u32>> {
            let tokens = encode(&truncating, cut(text))?.get_ids().to_vec();
            // A tokenizer that marks no beginning and end makes nothing of an empty text.
            Ok(if tokens.is_empty() { vec![0] } else { tokens })
        };
        let steps = Steps { tokenise: Box::new(tokenise), run };
        let feed = Feed { max_batch: config.max_batch, max_wait: config.max_wait, workers: config.threads };
        let batcher = Batcher::start(label, feed, steps)?;
        let embedder = Self::new(facts, Texts { max_tokens, counter, batcher });
        embedder.embed_query_blocking("ready")?;
        Ok(embedder)
    }

    /// Embeds texts in the background: they share batches with other callers, let queries go first, and wait where
    /// more than 1024 texts are queued. Answers one vector of [`TextEmbedder::dimensions`] numbers and length 1 a
    /// text, in order; no texts give no vectors, and an empty text gives a vector like any other.
    ///
    /// Of each text the first 16,384 characters are tokenised and the first 256 tokens are seen; the rest is cut. A
    /// vector does not depend on the batch it was made in (all_minilm_l6_v2_int8 quantises weights only, not
    /// activations; `tests/models.rs` checks it).
    ///
    /// Errors: `Internal` where the runtime fails or panics. Dropping the future gives up what has not run.
    pub async fn embed(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.model.batcher.submit(Priority::Ingest, texts).await
    }

    /// As [`TextEmbedder::embed`], for texts that somebody waits for: runs before all background work but the batch at
    /// hand. `Busy` where more than 512 query texts are queued.
    pub async fn embed_queries(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        self.model.batcher.submit(Priority::Query, texts).await
    }

    /// [`TextEmbedder::embed_queries`] of one text.
    pub async fn embed_query(&self, text: &str) -> Result<Vec<f32>> {
        self.model.batcher.submit_one(Priority::Query, text).await
    }

    /// [`TextEmbedder::embed`] for threads that may block. Never call it on an async runtime's thread.
    pub fn embed_blocking(&self, texts: Vec<String>) -> Result<Vec<Vec<f32>>> {
        block_on(self.embed(texts))
    }

    /// [`TextEmbedder::embed_query`] for threads that may block. Never call it on an async runtime's thread.
    pub fn embed_query_blocking(&self, text: &str) -> Result<Vec<f32>> {
        block_on(self.embed_query(text))
    }

    /// Tokens of the whole text, `[CLS]` and `[SEP]` included, so that a text is seen whole where this is at most
    /// [`TextEmbedder::max_tokens`]. Not cut: the time grows with the text. Runs on the calling thread.
    ///
    /// Errors: `Internal` where the tokenizer fails.
    pub fn count_tokens(&self, text: &str) -> Result<usize> {
        Ok(encode(&self.model.counter, text)?.len())
    }

    /// Tokens the model sees of one text.
    pub fn max_tokens(&self) -> usize {
        self.model.max_tokens
    }
}

/// What the hidden states of a text's tokens become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The one of the first token.
    First,
}

impl Pooling {
    /// One vector of length 1 of the hidden states `[columns, dimensions]`.
    pub fn vector(self, hidden: &[f32], mask: &[i32], dimensions: usize) -> Result<Vec<f32>> {
        match self {
            Self::Mean => pool(hidden, mask, dimensions),
            Self::First => pool(&hidden[..dimensions.min(hidden.len())], &[1], dimensions),
        }
    }
}

/// The ONNX graph and what becomes of its hidden states.
pub(crate) struct Network {
    graph: TokenGraph,
    /// One thread each, one for each worker.
    own: Vec<RunOptions>,
    all: RunOptions,
    output: NodeId,
    /// What the vectors must have, where that is known.
    pub dimensions: Option<usize>,
    pub pooling: Pooling,
}

impl Network {
    /// `outputs` are the names that the hidden states may have; the first that is there is taken.
    pub fn load(id: &str, bytes: Vec<u8>, threads: usize, outputs: &[&str]) -> Result<Self> {
        let graph = TokenGraph::load(bytes).map_err(|e| broken(id, e))?;
        let output = outputs.iter().find_map(|name| graph.model.find_node(name));
        let none = || broken(id, format!("it has no output `{}`", outputs.join("` or `")));
        Ok(Self {
            output: output.ok_or_else(none)?,
            own: (0..threads.clamp(1, MAX_THREADS)).map(|_| on(1)).collect(),
            all: on(threads),
            dimensions: None,
            pooling: Pooling::Mean,
            graph,
        })
    }

    pub fn run(&self, batch: &Batch, threads: Threads) -> Answer<Vec<f32>> {
        let shape = [batch.rows, batch.columns];
        let ids = NdTensor::from_data(shape, batch.ids.clone());
        let mask = NdTensor::from_data(shape, batch.mask.clone());
        let types = NdTensor::<i32, 2>::zeros(shape);
        let options = match threads {
            Threads::Own(worker) => &self.own[worker],
            Threads::All => &self.all,
        };
        let output = self.graph.run([ids, mask, types], self.output, options)?;
        let output: NdTensor<f32, 3> = output.try_into().map_err(Error::internal)?;
        let [rows, columns, dimensions] = output.shape();
        let expected = [batch.rows, batch.columns, self.dimensions.unwrap_or(dimensions)];
        if [rows, columns, dimensions] != expected || dimensions == 0 {
            return Err(Error::internal(format!("the model's output has the shape [{rows}, {columns}, {dimensions}]")));
        }
        let hidden = output.into_data();
        let hidden = hidden.chunks(columns * dimensions);
        let rows = hidden.zip(batch.mask.chunks(columns));
        rows.map(|(hidden, mask)| self.pooling.vector(hidden, mask, dimensions)).collect()
    }
}

/// The mean of the hidden states `[columns, dimensions]` where `mask` is not 0, scaled to length 1.
fn pool(hidden: &[f32], mask: &[i32], dimensions: usize) -> Result<Vec<f32>> {
    let mut sum = vec![0.0_f32; dimensions];
    for (state, _) in hidden.chunks(dimensions).zip(mask).filter(|(_, m)| **m != 0) {
        for (to, from) in sum.iter_mut().zip(state) {
            *to += from;
        }
    }
    // The mean's divisor falls away in the normalisation.
    unit(sum)
}

/// Scaled to length 1.
pub(crate) fn unit(vector: Vec<f32>) -> Result<Vec<f32>> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if !length.is_finite() || length == 0.0 {
        return Err(Error::internal("the model gave a vector without a direction"));
    }
    Ok(vector.into_iter().map(|x| x / length).collect())
}

/// The published tokenizer pads to 128 tokens and cuts there; both are set anew.
pub(crate) fn tokenizer(bytes: &[u8], max_tokens: Option<usize>) -> Result<Tokenizer> {
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(Error::internal)?;
    tokenizer.with_padding(None);
    let truncation = max_tokens.map(|max_length| TruncationParams { max_length, ..TruncationParams::default() });
    tokenizer.with_truncation(truncation).map_err(Error::internal)?;
    Ok(tokenizer)
}

pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<tokenizers::Encoding> {
    tokenizer.encode_fast(text, true).map_err(Error::internal)
}

/// The first [`MAX_TEXT_CHARS`] characters.
pub(crate) fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// Runs a future on this thread. The futures here wait for channels and semaphores only, which need no runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_vector_is_the_direction_of_the_mean_over_tokens_that_are_not_padding() {
        let vector = pool(&[3.0, 0.0, 3.0, 8.0, 99.0, 99.0], &[1, 1, 0], 2).unwrap();
        assert_eq!(vector, [0.6, 0.8]);
        assert!(pool(&[0.0, 0.0], &[1], 2).is_err());
        assert!(pool(&[f32::NAN, 0.0], &[1], 2).is_err());
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = "ü".repeat(MAX_TEXT_CHARS + 5);
        assert_eq!(cut(&text).chars().count(), MAX_TEXT_CHARS);
        assert_eq!(cut("short"), "short");
    }
}
