//! Late interaction: a text to one vector for each of its tokens, by a BERT and a linear layer (Khattab and Zaharia, 2020,
//! "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT"; Santhanam et al., 2022,
//! "ColBERTv2"). How well a document answers a query is told by how near, for each vector of the query, the nearest one of
//! the document is, summed (MaxSim). Queries and documents are read in different ways.

use crate::embed::{EmbedConfig, block_on, cut, encode, tokenizer, unit};
use crate::entry::{ModelEntry, Runtime, Task};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::queue::{Answer, Priority};
use crate::registry::Registry;
use crate::worker::{Batch, Batcher, Feed, Steps};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use candle_transformers::models::bert::{BertModel, Config};
use std::collections::HashSet;
use std::sync::Arc;
use strata_model::{Error, Result};
use tokenizers::Tokenizer;

/// Tokens, and so vectors, of every query: a shorter one is filled up, a longer one cut.
pub const QUERY_TOKENS: usize = 32;

/// What tells the model that a text is a query or a document, and what fills queries up.
const QUERY: &str = "[unused0]";
const DOCUMENT: &str = "[unused1]";
const FILLER: &str = "[MASK]";

/// One vector of length 1 for each token that counts, in the order of the text.
pub type TokenVectors = Vec<Vec<f32>>;

/// A loaded model of late interaction.
pub type TokenEmbedder = Loaded<Sides>;

/// What runs a [`TokenEmbedder`].
pub struct Sides {
    documents: Batcher<TokenVectors>,
    /// Apart from the documents, so that a query waits for no batch of them.
    queries: Batcher<TokenVectors>,
}

impl TokenEmbedder {
    /// Loads a model by id or alias, checks its files' SHA-256, starts its worker threads and embeds one word to see
    /// that it works. Blocking, seconds; takes twice the size of the weights in memory meanwhile.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where the model is not installed or damaged (the message says
    /// what to run); `Internal` where the files are not such a network's.
    pub fn load(registry: &Registry, id: &str, config: EmbedConfig) -> Result<Self> {
        let entry = runnable(id, Task::EmbedTokens, Runtime::CandleBert)?;
        let read = |name: &str| registry.read(entry, name);
        Self::of(entry, read("model.safetensors")?, &read("tokenizer.json")?, &read("config.json")?, config)
    }

    /// [`TokenEmbedder::load`] of files that are read already: the weights (safetensors), the tokenizer and the sizes
    /// (JSON).
    pub fn of(
        entry: &'static ModelEntry,
        weights: Vec<u8>,
        tokens: &[u8],
        settings: &[u8],
        config: EmbedConfig,
    ) -> Result<Self> {
        let broken = |why: String| broken(entry.id, why);
        let facts = Facts::of(entry, &[&weights, tokens, settings]);
        let settings: Config = serde_json::from_slice(settings).map_err(|e| broken(format!("its config.json: {e}")))?;
        let max_tokens = entry.max_tokens.min(settings.max_position_embeddings);
        if max_tokens < QUERY_TOKENS {
            return Err(broken(format!("it reads {max_tokens} tokens; a query has {QUERY_TOKENS}")));
        }
        // The marker takes a place of its own.
        let of_documents = tokenizer(tokens, Some(max_tokens - 1))?;
        let of_queries = tokenizer(tokens, Some(QUERY_TOKENS - 1))?;
        let id = |token: &str| {
            of_queries.token_to_id(token).ok_or_else(|| broken(format!("its tokenizer has no `{token}`")))
        };
        let (query, document, filler) = (id(QUERY)?, id(DOCUMENT)?, id(FILLER)?);
        let signs = (b'!'..=b'~').filter(u8::is_ascii_punctuation).map(|sign| char::from(sign).to_string());
        let silent: HashSet<u32> = signs.filter_map(|sign| of_queries.token_to_id(&sign)).collect();
        let network = Network::load(weights, &settings, entry.dimensions).map_err(|e| broken(e.to_string()))?;
        let network = Arc::new(network);
        let shared = network.clone();
        let documents = Steps {
            tokenise: Box::new(move |text| marked(&of_documents, text, document)),
            run: Box::new(move |batch, _| shared.documents(batch, &silent)),
        };
        let filled = move |text: &str| -> Result<Vec<u32>> {
            let mut tokens = marked(&of_queries, text, query)?;
            tokens.resize(QUERY_TOKENS, filler);
            Ok(tokens)
        };
        let queries =
            Steps { tokenise: Box::new(filled), run: Box::new(move |batch, _| network.queries(batch, filler)) };
        // The runtime spreads each operation over the threads there are, so batches go one after the other.
        let feed = Feed { max_batch: config.max_batch, max_wait: config.max_wait, workers: 1 };
        let documents = Batcher::start(entry.id, feed, documents)?;
        let queries = Batcher::start(entry.id, feed, queries)?;
        let embedder = Self::new(facts, Sides { documents, queries });
        block_on(embedder.embed(vec!["ready".to_owned()]))?;
        block_on(embedder.embed_query("ready"))?;
        Ok(embedder)
    }

    /// The vectors of documents, in the background, in order; see [`TextEmbedder::embed`](crate::TextEmbedder::embed).
    /// Of a document the first tokens are read that have a place, 512 of ColBERTv2, marks included; those of ASCII
    /// punctuation are read and have no vector.
    pub async fn embed(&self, documents: Vec<String>) -> Result<Vec<TokenVectors>> {
        self.model.documents.submit(Priority::Ingest, documents).await
    }

    /// As [`TokenEmbedder::embed`], for documents that somebody waits for. `Busy` where too many are queued.
    pub async fn embed_now(&self, documents: Vec<String>) -> Result<Vec<TokenVectors>> {
        self.model.documents.submit(Priority::Query, documents).await
    }

    /// The [`QUERY_TOKENS`] vectors of each query, in order. `Busy` where too many are queued.
    pub async fn embed_queries(&self, queries: Vec<String>) -> Result<Vec<TokenVectors>> {
        self.model.queries.submit(Priority::Query, queries).await
    }

    /// [`TokenEmbedder::embed_queries`] of one query.
    pub async fn embed_query(&self, query: &str) -> Result<TokenVectors> {
        self.model.queries.submit_one(Priority::Query, query).await
    }
}

/// The tokens of a text with the marker behind the first, which marks the beginning.
fn marked(tokenizer: &Tokenizer, text: &str, marker: u32) -> Result<Vec<u32>> {
    let mut tokens = encode(tokenizer, cut(text))?.get_ids().to_vec();
    tokens.insert(tokens.len().min(1), marker);
    Ok(tokens)
}

struct Network {
    bert: BertModel,
    linear: Linear,
}

impl Network {
    fn load(weights: Vec<u8>, settings: &Config, dimensions: usize) -> candle_core::Result<Self> {
        let tensors = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        let linear = linear_no_bias(settings.hidden_size, dimensions, tensors.pp("linear"))?;
        Ok(Self { bert: BertModel::load(tensors.pp("bert"), settings)?, linear })
    }

    fn documents(&self, batch: &Batch, silent: &HashSet<u32>) -> Answer<TokenVectors> {
        self.vectors(batch, &batch.mask, |token| !silent.contains(&token))
    }

    /// What fills a query up looks at the query's own tokens, and nothing looks at it: so the model was trained.
    fn queries(&self, batch: &Batch, filler: u32) -> Answer<TokenVectors> {
        let mut seen = batch.mask.clone();
        for (ids, seen) in batch.ids.chunks(batch.columns).zip(seen.chunks_mut(batch.columns)) {
            let own = ids.iter().rposition(|id| id.cast_unsigned() != filler).map_or(0, |last| last + 1);
            seen[own..].fill(0);
        }
        self.vectors(batch, &seen, |_| true)
    }

    /// For each row the vectors of those of its tokens that count. `seen`, `[rows, columns]`, is 1 for each token that
    /// the others of its row look at.
    fn vectors(&self, batch: &Batch, seen: &[i32], counts: impl Fn(u32) -> bool) -> Answer<TokenVectors> {
        let all = self.forward(batch, seen).map_err(Error::internal)?;
        let tokens = batch.ids.chunks(batch.columns).zip(batch.mask.chunks(batch.columns));
        let mut rows = Vec::with_capacity(batch.rows);
        for (vectors, (ids, mask)) in all.into_iter().zip(tokens) {
            let mut own = TokenVectors::new();
            for ((vector, id), is_token) in vectors.into_iter().zip(ids).zip(mask) {
                if *is_token != 0 && counts(id.cast_unsigned()) {
                    own.push(unit(vector)?);
                }
            }
            rows.push(own);
        }
        Ok(rows)
    }

    /// What the linear layer makes of each token's hidden state.
    fn forward(&self, batch: &Batch, seen: &[i32]) -> candle_core::Result<Vec<TokenVectors>> {
        let shape = (batch.rows, batch.columns);
        let ids: Vec<u32> = batch.ids.iter().map(|id| id.cast_unsigned()).collect();
        let seen: Vec<f32> = seen.iter().map(|seen| *seen as f32).collect();
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let seen = Tensor::from_vec(seen, shape, &Device::Cpu)?;
        let hidden = self.bert.forward(&ids, &ids.zeros_like()?, Some(&seen))?;
        self.linear.forward(&hidden)?.to_vec3()
    }
}
