//! Making the files that a runtime reads out of the formats that weights are published in. Runs only while a model is
//! pulled, on bytes whose SHA-256 has been checked; what comes out is checked again by its own SHA-256.
//!
//! A conversion is a function of its bytes alone: it reads no file, no clock and no environment, never executes what it
//! reads, and computes in IEEE arithmetic in a fixed order, so that it makes the same bytes on every machine.

mod ctranslate2;
mod efficientnet;
mod tfjs;
mod torch;
mod whisper;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use std::collections::BTreeMap;
use strata_model::{Error, Result};
use torch::Tensor;

/// A way of making one file out of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversion {
    /// The checkpoint of EfficientNet-lite0 to safetensors, with the batch norms folded in.
    EfficientNetLite0,
    /// Weights of TensorFlow.js, a manifest or a model's file and the bytes, to safetensors under their names.
    Tfjs,
    /// The weights of Whisper as CTranslate2 writes them to safetensors under their published names.
    Whisper,
}

impl Conversion {
    /// Makes the file out of the contents of its members, in their order.
    ///
    /// Errors: `Malformed`, saying what is wrong with the members.
    pub(crate) fn run(self, members: Vec<Vec<u8>>) -> Result<Vec<u8>> {
        match self {
            Self::EfficientNetLite0 => efficientnet::to_safetensors(&members.concat()),
            Self::Tfjs => tfjs::to_safetensors(&members),
            Self::Whisper => whisper::to_safetensors(&members.concat()),
        }
    }
}

/// A safetensors file of `f32` tensors.
fn write_safetensors(tensors: &BTreeMap<String, Tensor>) -> Result<Vec<u8>> {
    let bytes = |tensor: &Tensor| tensor.data.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<Vec<u8>> = tensors.values().map(bytes).collect();
    let mut views = Vec::new();
    for ((name, tensor), data) in tensors.iter().zip(&data) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), data);
        views.push((name, view.map_err(|e| Error::Malformed(format!("`{name}`: {e}")))?));
    }
    safetensors::serialize(views, None).map_err(|e| Error::Malformed(e.to_string()))
}
