//! Reranking: how relevant a document is to a query, by a cross-encoder (Nogueira and Cho, 2019, "Passage re-ranking with
//! BERT"): an ONNX model that reads query and document together, `[CLS] query [SEP] document [SEP]`, and gives one number.

use crate::embed::cut;
use crate::entry::Task;
use crate::limits::{MAX_PAIR_TOKENS, MAX_WAITING_PAIRS};
use crate::onnx::{TokenGraph, on};
use crate::registry::Registry;
use rten::{NodeId, RunOptions};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use std::sync::Arc;
use strata_model::{Error, Result};
use tokenizers::{Tokenizer, TruncationParams, TruncationStrategy};
use tokio::sync::Semaphore;

/// A loaded cross-encoder. Clones share it.
#[derive(Clone)]
pub struct CrossEncoder {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    tokenizer: Tokenizer,
    /// Stands where a row has no token.
    padding: i32,
    network: Network,
    /// One batch runs at a time, on all threads.
    turn: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for CrossEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CrossEncoder").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

/// The tokens of a pair, and which of the two each is of.
struct Pair {
    ids: Vec<i32>,
    types: Vec<i32>,
}

impl CrossEncoder {
    /// Loads a model by its id or alias in the registry, or by the name of a directory that somebody put beside the
    /// registry's own, and scores one pair to see that it works. A directory holds `model.onnx`, with the inputs
    /// `input_ids`, `attention_mask` and perhaps `token_type_ids` and the output `logits` (or only one), and
    /// `tokenizer.json`. Blocking, up to seconds.
    ///
    /// Errors: `Invalid` for a name that is neither; `Unavailable` where the model is not installed or damaged, saying what
    /// to run, or is not a cross-encoder.
    pub fn load(registry: &Registry, name: &str, threads: usize) -> Result<Self> {
        let files = registry.find(name, Task::RerankText)?;
        let wrong = |e: String| Error::Unavailable(format!("model `{}` is no cross-encoder: {e}", files.id));
        let model = files.read("model.onnx")?;
        let mut tokenizer = Tokenizer::from_bytes(files.read("tokenizer.json")?).map_err(|e| wrong(e.to_string()))?;
        let padding = tokenizer.get_padding().map(|padding| padding.pad_id);
        let padding = padding.or_else(|| ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token)));
        tokenizer.with_padding(None);
        let truncation = TruncationParams {
            max_length: files.max_tokens.unwrap_or(MAX_PAIR_TOKENS),
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        tokenizer.with_truncation(Some(truncation)).map_err(|e| wrong(e.to_string()))?;
        let inner = Inner {
            network: Network::load(model, threads).map_err(wrong)?,
            id: files.id.clone(),
            tokenizer,
            padding: padding.unwrap_or(0).cast_signed(),
            turn: Arc::new(Semaphore::new(1)),
            room: Arc::new(Semaphore::new(MAX_WAITING_PAIRS)),
        };
        let pair = inner.pair("ready", "ready").map_err(|e| wrong(e.to_string()))?;
        inner.run(&[pair]).map_err(|e| Error::Unavailable(format!("model `{}` does not run: {e}", inner.id)))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How relevant each document is to the query, in order: the logistic function of the model's number, from 0 to 1, so
    /// that models of the same kind have scores of the same range. Of a pair as many tokens are seen as the model reads,
    /// the longer of the two texts being cut first.
    ///
    /// `batch` pairs, of like length, run at once, on all threads. Dropping the future ends it after the batch at hand.
    ///
    /// Errors: `Busy` where too many pairs wait already; `Internal` where the runtime fails or panics.
    pub async fn score(&self, query: &str, documents: Vec<String>, batch: usize) -> Result<Vec<f32>> {
        let pairs = u32::try_from(documents.len()).map_err(Error::internal)?;
        let room = self.inner.room.clone().try_acquire_many_owned(pairs).map_err(|_| Error::Busy {
            message: format!("{MAX_WAITING_PAIRS} pairs of texts are already waiting for the model"),
            retry_after_seconds: 1,
        })?;
        // Permits go with the work, which goes on where nobody waits for it any more.
        let room = Arc::new(room);
        let mut scores = vec![0.0; documents.len()];
        let (inner, query, held) = (self.inner.clone(), query.to_owned(), room.clone());
        let tokenise = move || {
            let _held = held;
            let pairs = documents.iter().enumerate().map(|(place, text)| Ok((place, inner.pair(&query, text)?)));
            let mut pairs = pairs.collect::<Result<Vec<_>>>()?;
            pairs.sort_by_key(|(_, pair)| pair.ids.len());
            Ok(pairs)
        };
        let mut pairs: Vec<(usize, Pair)> = tokio::task::spawn_blocking(tokenise).await.map_err(Error::internal)??;
        while !pairs.is_empty() {
            let rest = pairs.split_off(batch.clamp(1, pairs.len()));
            let (places, batch): (Vec<usize>, Vec<Pair>) = std::mem::replace(&mut pairs, rest).into_iter().unzip();
            let turn = self.inner.turn.clone().acquire_owned().await.map_err(Error::internal)?;
            let (inner, held) = (self.inner.clone(), room.clone());
            let run = move || {
                let _held = (turn, held);
                inner.run(&batch)
            };
            let made = tokio::task::spawn_blocking(run).await.map_err(Error::internal)??;
            places.into_iter().zip(made).for_each(|(place, score)| scores[place] = score);
        }
        Ok(scores)
    }

    /// The registry's id, or the name of its directory.
    pub fn id(&self) -> &str {
        &self.inner.id
    }
}

impl Inner {
    fn pair(&self, query: &str, document: &str) -> Result<Pair> {
        let encoding = self.tokenizer.encode_fast((cut(query), cut(document)), true).map_err(Error::internal)?;
        let signed = |numbers: &[u32]| numbers.iter().map(|n| n.cast_signed()).collect();
        Ok(Pair { ids: signed(encoding.get_ids()), types: signed(encoding.get_type_ids()) })
    }

    fn run(&self, pairs: &[Pair]) -> Result<Vec<f32>> {
        let columns = pairs.iter().map(|pair| pair.ids.len()).max().unwrap_or_default();
        let shape = [pairs.len(), columns];
        let filled = |row: &dyn Fn(&Pair) -> Vec<i32>, rest: i32| {
            let mut all = Vec::with_capacity(pairs.len() * columns);
            for pair in pairs {
                all.extend(row(pair));
                all.resize(all.len() + columns - pair.ids.len(), rest);
            }
            NdTensor::from_data(shape, all)
        };
        let ids = filled(&|pair| pair.ids.clone(), self.padding);
        let mask = filled(&|pair| vec![1; pair.ids.len()], 0);
        let types = filled(&|pair| pair.types.clone(), 0);
        self.network.run(pairs.len(), [ids, mask, types])
    }
}

struct Network {
    graph: TokenGraph,
    options: RunOptions,
    output: NodeId,
}

impl Network {
    fn load(bytes: Vec<u8>, threads: usize) -> Result<Self, String> {
        let graph = TokenGraph::load(bytes)?;
        let output = match (graph.model.find_node("logits"), graph.model.output_ids()) {
            (Some(logits), _) => logits,
            (None, [only]) => *only,
            _ => return Err("it has no output `logits`".to_owned()),
        };
        Ok(Self { graph, options: on(threads), output })
    }

    fn run(&self, rows: usize, tokens: [NdTensor<i32, 2>; 3]) -> Result<Vec<f32>> {
        let output = self.graph.run(tokens, self.output, &self.options)?;
        let output: Tensor<f32> = output.try_into().map_err(Error::internal)?;
        let shape = output.shape().to_vec();
        let logits = output.to_vec();
        let scores: Vec<f32> = match logits.len() {
            one if one == rows => logits.iter().map(|logit| logistic(*logit)).collect(),
            // Two classes, the second of which is the relevant one.
            two if two == 2 * rows => logits.chunks(2).map(|pair| logistic(pair[1] - pair[0])).collect(),
            _ => return Err(Error::internal(format!("the model's output has the shape {shape:?} for {rows} pairs"))),
        };
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(Error::internal("the model gave a score that is no number"));
        }
        Ok(scores)
    }
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
