//! Tokens per second of all-MiniLM-L6-v2 under rten, ONNX Runtime and candle, over the same batches.
//!
//! Arguments: the folder of the installed model (`model.onnx`, `tokenizer.json`, `config.json`), the folder that holds
//! `model.safetensors` for candle, and a file of texts, one a line. `ORT_DYLIB_PATH` names ONNX Runtime's library.

use anyhow::{Context, Result, anyhow};
use candle_core::{DType, Device, Tensor as CandleTensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use ort::{session::Session, value::TensorRef};
use rten_tensor::{Tensor, prelude::*};
use std::{path::Path, time::Instant};
use tokenizers::Tokenizer;

const MAX_TOKENS: usize = 256;
/// Each runtime runs this often in turn, and its best counts: the machine's speed comes and goes.
const ROUNDS: usize = 3;
const SECONDS: f64 = 3.0;

/// Token ids of texts of about the same length, padded to the longest.
struct Batch {
    rows: usize,
    columns: usize,
    tokens: usize,
    ids: Vec<i64>,
    mask: Vec<i64>,
}

trait Runtime {
    fn name(&self) -> &str;
    /// The sum of all outputs, so that nothing can be left out.
    fn run(&mut self, batch: &Batch) -> Result<f32>;
}

struct Rten(rten::Model);
struct Ort(Session);
struct Candle(BertModel);

impl Runtime for Rten {
    fn name(&self) -> &str {
        "rten"
    }

    fn run(&mut self, batch: &Batch) -> Result<f32> {
        let tensor = |data: &[i64]| {
            let data: Vec<i32> = data.iter().map(|x| *x as i32).collect();
            Tensor::from_data(&[batch.rows, batch.columns], data)
        };
        let node = |name: &str| self.0.node_id(name);
        let inputs = vec![
            (node("input_ids")?, tensor(&batch.ids).into()),
            (node("attention_mask")?, tensor(&batch.mask).into()),
            (node("token_type_ids")?, Tensor::<i32>::zeros(&[batch.rows, batch.columns]).into()),
        ];
        let [output] = self.0.run_n(inputs, [node("last_hidden_state")?], None)?;
        let output: Tensor<f32> = output.try_into().map_err(|e| anyhow!("{e:?}"))?;
        Ok(output.iter().sum())
    }
}

impl Runtime for Ort {
    fn name(&self) -> &str {
        "onnxruntime"
    }

    fn run(&mut self, batch: &Batch) -> Result<f32> {
        let shape = [batch.rows as i64, batch.columns as i64];
        let types = vec![0_i64; batch.rows * batch.columns];
        let outputs = self.0.run(ort::inputs![
            "input_ids" => TensorRef::from_array_view((shape, batch.ids.as_slice()))?,
            "attention_mask" => TensorRef::from_array_view((shape, batch.mask.as_slice()))?,
            "token_type_ids" => TensorRef::from_array_view((shape, types.as_slice()))?,
        ])?;
        let (_, data) = outputs["last_hidden_state"].try_extract_tensor::<f32>()?;
        Ok(data.iter().sum())
    }
}

impl Runtime for Candle {
    fn name(&self) -> &str {
        "candle"
    }

    fn run(&mut self, batch: &Batch) -> Result<f32> {
        let shape = (batch.rows, batch.columns);
        let ids = CandleTensor::from_slice(&batch.ids, shape, &Device::Cpu)?;
        let mask = CandleTensor::from_slice(&batch.mask, shape, &Device::Cpu)?;
        let output = self.0.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        Ok(output.sum_all()?.to_scalar()?)
    }
}

fn batches(tokenizer: &Tokenizer, texts: &[&str], size: usize) -> Result<Vec<Batch>> {
    let mut rows = Vec::new();
    for text in texts {
        let encoding = tokenizer.encode(*text, true).map_err(|e| anyhow!("{e}"))?;
        rows.push(encoding.get_ids().iter().take(MAX_TOKENS).map(|id| i64::from(*id)).collect::<Vec<_>>());
    }
    rows.sort_by_key(Vec::len);
    let batch = |part: &[Vec<i64>]| {
        let columns = part.iter().map(Vec::len).max().unwrap_or_default();
        let mut batch = Batch { rows: part.len(), columns, tokens: 0, ids: Vec::new(), mask: Vec::new() };
        for row in part {
            batch.tokens += row.len();
            batch.ids.extend(row);
            batch.mask.extend(row.iter().map(|_| 1));
            let end = batch.ids.len() + columns - row.len();
            batch.ids.resize(end, 0);
            batch.mask.resize(end, 0);
        }
        batch
    };
    Ok(rows.chunks(size).map(batch).collect())
}

fn rate(runtime: &mut dyn Runtime, batches: &[Batch]) -> Result<f64> {
    runtime.run(&batches[0])?;
    let start = Instant::now();
    let mut tokens = 0;
    for batch in batches.iter().cycle() {
        runtime.run(batch)?;
        tokens += batch.tokens;
        if start.elapsed().as_secs_f64() > SECONDS {
            break;
        }
    }
    Ok(tokens as f64 / start.elapsed().as_secs_f64())
}

fn candle(model: &Path, weights: &Path) -> Result<Candle> {
    let config: Config = serde_json::from_str(&std::fs::read_to_string(model.join("config.json"))?)?;
    let tensors = candle_core::safetensors::load(weights.join("model.safetensors"), &Device::Cpu)?;
    Ok(Candle(BertModel::load(VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu), &config)?))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, weights, texts] = &arguments[..] else {
        anyhow::bail!("usage: runtimes MODEL_DIR SAFETENSORS_DIR TEXTS")
    };
    let (model, weights) = (Path::new(model), Path::new(weights));
    let text = std::fs::read_to_string(texts).with_context(|| format!("cannot read `{texts}`"))?;
    let texts: Vec<&str> = text.lines().filter(|line| !line.is_empty()).take(512).collect();
    let mut tokenizer = Tokenizer::from_file(model.join("tokenizer.json")).map_err(|e| anyhow!("{e}"))?;
    tokenizer.with_padding(None);
    let threads = std::thread::available_parallelism()?.get();
    let session = Session::builder()?.with_intra_threads(threads)?.commit_from_file(model.join("model.onnx"))?;
    let rten = rten::ModelOptions::with_all_ops().prepack_weights(true).load_file(model.join("model.onnx"))?;
    let mut runtimes: [Box<dyn Runtime>; 3] =
        [Box::new(Rten(rten)), Box::new(Ort(session)), Box::new(candle(model, weights)?)];
    println!("{threads} threads, {} texts", texts.len());
    for size in [1, 8, 32] {
        let batches = batches(&tokenizer, &texts, size)?;
        let mut best = [0.0_f64; 3];
        for _ in 0..ROUNDS {
            for (runtime, best) in runtimes.iter_mut().zip(&mut best) {
                *best = best.max(rate(runtime.as_mut(), &batches)?);
            }
        }
        for (runtime, best) in runtimes.iter().zip(best) {
            println!("batch {size:>2}  {:<12} {best:>6.0} tokens/s", runtime.name());
        }
    }
    Ok(())
}
