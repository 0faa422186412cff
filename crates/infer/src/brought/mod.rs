//! Text models that somebody brings: an archive with the weights and the tokenizer of a sentence transformer. What is in it
//! is read and never executed: ONNX graphs and safetensors are data, and a pickle is never opened.

mod archive;
mod bert;
#[cfg(test)]
mod tests;

use crate::embed::{EmbedConfig, Network, Pooling, Run, TextEmbedder, cut, encode, tokenizer};
use crate::limits::{MAX_BROUGHT_TOKENS, MAX_TOKENS};
use crate::loaded::Facts;
use crate::worker::{Batch, Threads};
use archive::Files;
use bert::Bert;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use strata_model::{Error, FieldError, Result, limits::MAX_DIMENSIONS};

/// What metrics call every model that was brought.
const LABEL: &str = "brought";
/// The files of an archive that are read. `model.onnx` may lie in a folder `onnx`, as hubs have it.
const ONNX: &str = "model.onnx";
const ONNX_BELOW: &str = "onnx/model.onnx";
const SAFETENSORS: &str = "model.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "config.json";
const SENTENCES: &str = "sentence_bert_config.json";
const POOLING: &str = "1_Pooling/config.json";
/// Folder of a layer behind the pooling, which is not run.
const DENSE: &str = "2_Dense";
/// Names of the output that has the hidden states.
const OUTPUTS: [&str; 2] = ["last_hidden_state", "token_embeddings"];

/// How the weights of a model that is brought are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BroughtFormat {
    /// `model.onnx`, with the inputs `input_ids`, `attention_mask` and perhaps `token_type_ids`, and the hidden states as
    /// its output `last_hidden_state` or `token_embeddings`. Run by rten.
    Onnx,
    /// `model.safetensors` and `config.json` of a BERT. Run by candle.
    Safetensors,
}

impl BroughtFormat {
    /// The names that are read, those that must be there first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Onnx => &[TOKENIZER, ONNX, ONNX_BELOW, CONFIG, SENTENCES, POOLING],
            Self::Safetensors => &[TOKENIZER, SAFETENSORS, CONFIG, SENTENCES, POOLING],
        }
    }
}

/// A model that was brought, in memory, checked as far as that goes without running it.
#[derive(Debug)]
pub struct Brought {
    format: BroughtFormat,
    model: Vec<u8>,
    tokenizer: Vec<u8>,
    /// `config.json`; empty where there is none.
    config: Vec<u8>,
    max_tokens: usize,
    pooling: Pooling,
    container: &'static str,
}

impl Brought {
    /// Reads an archive, `.tar.gz` or `.zip`, with the files at its root or in one folder. Blocking; a second for 90 MB.
    ///
    /// Errors: `Invalid`, with what is wrong at which name in the archive: it is no archive or a damaged one; a name leads
    /// out of it; an entry is a link or a device; a file is missing, there twice or too large; there are too many; or much
    /// more comes out of it than weights can hold. `Internal` where the disk fails.
    pub fn open(archive: &Path, format: BroughtFormat) -> Result<Self> {
        let mut files = archive::read(archive, format.names())?;
        let mut wrong = Vec::new();
        let model = match format {
            BroughtFormat::Onnx => files.take(ONNX).or_else(|| files.take(ONNX_BELOW)),
            BroughtFormat::Safetensors => files.take(SAFETENSORS),
        };
        let tokens = files.take(TOKENIZER);
        let config = files.take(CONFIG);
        let mut must = |name: &str, is_there: bool| {
            if !is_there {
                wrong.push(FieldError::new(name, "is not in the archive"));
            }
        };
        must(format.names()[1], model.is_some());
        must(TOKENIZER, tokens.is_some());
        must(CONFIG, config.is_some() || format == BroughtFormat::Onnx);
        if files.has_folder(DENSE) {
            wrong.push(FieldError::new(DENSE, "is a layer behind the pooling, which is not run here"));
        }
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        let config = config.unwrap_or_default();
        Ok(Self {
            format,
            max_tokens: max_tokens(&mut files, &config)?,
            pooling: pooling(&mut files)?,
            container: files.container(),
            model: model.unwrap_or_default(),
            tokenizer: tokens.unwrap_or_default(),
            config,
        })
    }

    /// SHA-256, hex, over the files and how they are run.
    pub fn fingerprint(&self) -> String {
        // Stored with models, so the words stay what they are.
        let format = match self.format {
            BroughtFormat::Onnx => "onnx",
            BroughtFormat::Safetensors => "safetensors",
        };
        let pooling = match self.pooling {
            Pooling::Mean => "mean",
            Pooling::First => "first",
        };
        let way = format!("{format} {pooling} {}", self.max_tokens);
        let parts: [&[u8]; 4] = [&self.model, &self.tokenizer, &self.config, way.as_bytes()];
        hex::encode(strata_model::id::sha256_parts(&parts))
    }

    /// Tokens that are seen of one text.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The kind of archive it came in, as file names end: `tar.gz` or `zip`.
    pub fn container(&self) -> &'static str {
        self.container
    }
}

/// What `sentence_bert_config.json` says, or the positions that the network has, or else [`MAX_TOKENS`].
fn max_tokens(files: &mut Files, config: &[u8]) -> Result<usize> {
    let number = |json: &Value, key: &str| json.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let sentences = files.take(SENTENCES).map(|bytes| json(SENTENCES, &bytes)).transpose()?;
    let config = if config.is_empty() { Value::Null } else { json(CONFIG, config)? };
    let positions = number(&config, "max_position_embeddings");
    let said = sentences.and_then(|json| number(&json, "max_seq_length")).or(positions).unwrap_or(MAX_TOKENS);
    // `[CLS]` and `[SEP]` are two of them.
    Ok(said.min(positions.unwrap_or(said)).clamp(3, MAX_BROUGHT_TOKENS))
}

/// What `1_Pooling/config.json` says, or else the mean.
fn pooling(files: &mut Files) -> Result<Pooling> {
    let Some(bytes) = files.take(POOLING) else { return Ok(Pooling::Mean) };
    let json = json(POOLING, &bytes)?;
    let modes = json.as_object().into_iter().flatten();
    let modes = modes.filter(|(name, on)| name.starts_with("pooling_mode_") && on.as_bool() == Some(true));
    match modes.map(|(name, _)| name.as_str()).collect::<Vec<_>>().as_slice() {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::First),
        other => {
            let message =
                format!("asks for `{}`; the mean of the tokens or the first one is made here", other.join("`, `"));
            Err(Error::invalid(POOLING, message))
        }
    }
}

fn json(name: &str, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(name, format!("is no JSON: {e}")))
}

impl TextEmbedder {
    /// Loads a model that was brought, starts its threads, and embeds a word to see that it works and how long its vectors
    /// are. `id` is what it is called. Blocking, up to seconds.
    ///
    /// Errors: `Invalid` where the runtime cannot run it, or makes no vectors of it.
    pub fn of(id: &str, model: Brought, config: EmbedConfig) -> Result<Self> {
        // A graph that nobody checked may make the runtime panic.
        let made = catch_unwind(AssertUnwindSafe(|| start(id, model, config)));
        let given_up = || Err(Error::invalid("archive", "the runtime gave up on the model"));
        made.unwrap_or_else(|_| given_up()).map_err(|error| match error {
            invalid @ Error::Invalid(_) => invalid,
            other => Error::invalid("archive", other.to_string()),
        })
    }
}

fn start(id: &str, model: Brought, config: EmbedConfig) -> Result<TextEmbedder> {
    let fingerprint = model.fingerprint();
    let Brought { format, model, tokenizer: tokens, config: settings, max_tokens, pooling, .. } = model;
    let truncating = tokenizer(&tokens, Some(max_tokens)).map_err(|e| Error::invalid(TOKENIZER, e.to_string()))?;
    let word = one(encode(&truncating, cut("ready"))?.get_ids());
    let (dimensions, run, config) = match format {
        BroughtFormat::Onnx => {
            let mut network = Network::load(id, model, config.threads, &OUTPUTS)?;
            network.pooling = pooling;
            let dimensions = length(&network.run(&word, Threads::All)?)?;
            network.dimensions = Some(dimensions);
            let run: Run = Box::new(move |batch, threads| network.run(batch, threads));
            (dimensions, run, config)
        }
        BroughtFormat::Safetensors => {
            let network = Bert::load(model, &settings, pooling)?;
            let dimensions = length(&network.run(&word)?)?;
            // The runtime spreads each operation over the threads there are, so batches go one after the other.
            let run: Run = Box::new(move |batch, _| network.run(batch));
            (dimensions, run, EmbedConfig { threads: 1, ..config })
        }
    };
    let facts = Facts { id: id.to_owned(), fingerprint, dimensions };
    TextEmbedder::start(LABEL, facts, max_tokens, &tokens, config, run)
}

/// A batch of one text.
fn one(tokens: &[u32]) -> Batch {
    let ids: Vec<i32> = tokens.iter().map(|token| token.cast_signed()).collect();
    Batch { rows: 1, columns: ids.len(), mask: vec![1; ids.len()], ids }
}

/// How long the vectors are.
fn length(vectors: &[Vec<f32>]) -> Result<usize> {
    let length = vectors.first().map_or(0, Vec::len);
    match (1..=MAX_DIMENSIONS).contains(&length) {
        true => Ok(length),
        false => Err(Error::invalid("archive", format!("the model makes vectors of {length} numbers"))),
    }
}
