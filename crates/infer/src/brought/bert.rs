//! A BERT in safetensors as the network of a text model that was brought.

use super::{CONFIG, SAFETENSORS};
use crate::embed::Pooling;
use crate::queue::Answer;
use crate::worker::Batch;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use strata_model::{Error, Result};

pub(super) struct Bert {
    model: BertModel,
    pooling: Pooling,
}

impl Bert {
    /// `Invalid` where the settings are those of another network, or the weights do not fit them.
    pub fn load(weights: Vec<u8>, settings: &[u8], pooling: Pooling) -> Result<Self> {
        let config: Config = serde_json::from_slice(settings)
            .map_err(|e| Error::invalid(CONFIG, format!("is not that of a BERT: {e}")))?;
        if let Some(other) = config.model_type.as_deref().filter(|kind| *kind != "bert") {
            let message = format!("is that of a network of the type `{other}`; `bert` is run here, others as ONNX");
            return Err(Error::invalid(CONFIG, message));
        }
        let wrong = |e: candle_core::Error| Error::invalid(SAFETENSORS, e.to_string());
        let tensors = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu).map_err(wrong)?;
        Ok(Self { model: BertModel::load(tensors, &config).map_err(wrong)?, pooling })
    }

    pub fn run(&self, batch: &Batch) -> Answer<Vec<f32>> {
        let (hidden, dimensions) = self.hidden(batch).map_err(Error::internal)?;
        let rows = hidden.chunks(batch.columns * dimensions).zip(batch.mask.chunks(batch.columns));
        rows.map(|(hidden, mask)| self.pooling.vector(hidden, mask, dimensions)).collect()
    }

    /// The hidden states `[rows, columns, dimensions]`, and how many dimensions there are.
    fn hidden(&self, batch: &Batch) -> candle_core::Result<(Vec<f32>, usize)> {
        let shape = (batch.rows, batch.columns);
        let ids: Vec<u32> = batch.ids.iter().map(|id| id.cast_unsigned()).collect();
        let mask: Vec<f32> = batch.mask.iter().map(|m| *m as f32).collect();
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let hidden = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let (_, _, dimensions) = hidden.dims3()?;
        Ok((hidden.flatten_all()?.to_vec1()?, dimensions))
    }
}
