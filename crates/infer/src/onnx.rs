//! ONNX graphs in rten: how they are read, what they are called with and on which threads. What their numbers mean, others
//! know. Errors of reading are for a message that names the model.

use crate::limits::MAX_THREADS;
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::{NdTensor, Tensor};
use std::sync::Arc;
use strata_model::{Error, Result};

pub fn read(bytes: Vec<u8>) -> Result<Model, String> {
    // Without packed weights every run packs them again: a short query took 28 ms instead of 7 (2 threads, AVX2).
    ModelOptions::with_all_ops().prepack_weights(true).load(bytes).map_err(|e| e.to_string())
}

/// Runs on so many threads of its own, 1 to [`MAX_THREADS`].
pub fn on(threads: usize) -> RunOptions {
    let pool = ThreadPool::with_num_threads(threads.clamp(1, MAX_THREADS));
    RunOptions::default().with_thread_pool(Some(Arc::new(pool)))
}

/// A graph that reads tokens.
pub struct TokenGraph {
    pub model: Model,
    ids: NodeId,
    mask: NodeId,
    /// Absent in models without segments.
    types: Option<NodeId>,
}

impl TokenGraph {
    pub fn load(bytes: Vec<u8>) -> Result<Self, String> {
        let model = read(bytes)?;
        Ok(Self {
            ids: model.node_id("input_ids").map_err(|e| e.to_string())?,
            mask: model.node_id("attention_mask").map_err(|e| e.to_string())?,
            types: model.find_node("token_type_ids"),
            model,
        })
    }

    /// Takes ids, which of them are tokens, and of which segment; all `[rows, columns]`.
    pub fn run(&self, tokens: [NdTensor<i32, 2>; 3], output: NodeId, options: &RunOptions) -> Result<Value> {
        let [ids, mask, types] = tokens;
        let mut inputs = vec![(self.ids, ids.into()), (self.mask, mask.into())];
        inputs.extend(self.types.map(|node| (node, types.into())));
        let [made] = self.model.run_n(inputs, [output], Some(options.clone())).map_err(Error::internal)?;
        Ok(made)
    }
}

/// A graph with one input, pictures, and one output. It runs on the threads of its caller.
pub struct PictureGraph {
    model: Model,
    input: NodeId,
    output: NodeId,
}

impl PictureGraph {
    pub fn load(bytes: Vec<u8>) -> Result<Self, String> {
        let model = read(bytes)?;
        let (&[input], &[output]) = (model.input_ids(), model.output_ids()) else {
            return Err("it has not one input and one output".to_owned());
        };
        Ok(Self { model, input, output })
    }

    /// Takes `[pictures, channels, height, width]`.
    pub fn run(&self, pictures: NdTensor<f32, 4>) -> Result<Tensor<f32>> {
        let inputs = vec![(self.input, pictures.into())];
        let [made] = self.model.run_n(inputs, [self.output], None).map_err(Error::internal)?;
        made.try_into().map_err(Error::internal)
    }
}
