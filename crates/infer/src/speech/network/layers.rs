//! The layers that encoder and decoder are made of, over rows of numbers.

use super::tensors::{HEAD, Tensors};
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::SimdOp;
use rten_tensor::NdTensorView;
use rten_vecmath::{Normalize, NormalizeOptions, Sum, SumSquareSub};
use strata_model::{Error, Result};

/// Added to the variance, so that a row of equal numbers can be normalised.
const LEAST_VARIANCE: f32 = 1e-5;

/// Weights and bias as they are published: a row of weights for each output.
pub struct Linear {
    pub inputs: usize,
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Linear {
    /// The layer `name` with a bias.
    pub fn read(tensors: &mut Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        let weights = tensors.take(&format!("{name}.weight"), &[outputs, inputs])?;
        Ok(Self { inputs, weights, bias: tensors.take(&format!("{name}.bias"), &[outputs])? })
    }

    /// The projection to queries, in which is the scale of the scores, the root of a head's numbers.
    pub fn query(tensors: &mut Tensors, attention: &str, width: usize) -> Result<Self> {
        let mut query = Self::read(tensors, &format!("{attention}.q_proj"), width, width)?;
        let scale = 1.0 / (HEAD as f32).sqrt();
        query.weights.iter_mut().chain(&mut query.bias).for_each(|number| *number *= scale);
        Ok(query)
    }

    /// The projection to keys, which has no bias, and behind it that to values.
    pub fn key_value(tensors: &mut Tensors, attention: &str, width: usize) -> Result<Self> {
        let mut both = Self {
            inputs: width,
            weights: tensors.take(&format!("{attention}.k_proj.weight"), &[width, width])?,
            bias: vec![0.0; width],
        };
        both.append(Self::read(tensors, &format!("{attention}.v_proj"), width, width)?);
        Ok(both)
    }

    /// Puts the outputs of another layer of the same inputs behind those of this one.
    pub fn append(&mut self, other: Self) {
        self.weights.extend(other.weights);
        self.bias.extend(other.bias);
    }
}

/// A linear layer for many rows at once.
pub struct Dense {
    bias: Vec<f32>,
    weights: PackedBMatrix<f32>,
}

impl Dense {
    pub fn new(layer: &Linear) -> Self {
        let matrix = NdTensorView::from_data([layer.bias.len(), layer.inputs], &layer.weights[..]);
        let gemm: GemmExecutor<f32> = GemmExecutor::new();
        Self { bias: layer.bias.clone(), weights: gemm.prepack_b(matrix.transposed()) }
    }

    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Writes the outputs of rows.
    pub fn write(&self, rows: NdTensorView<f32, 2>, to: &mut [f32]) -> Result<()> {
        product(
            rows,
            GemmInputB::Packed(&self.weights),
            to,
            GemmOptions { bias: self.bias(), ..GemmOptions::default() },
        )
    }

    /// Adds the outputs of rows to what is there.
    pub fn add(&self, rows: NdTensorView<f32, 2>, to: &mut [f32]) -> Result<()> {
        let options = GemmOptions { bias: self.bias(), beta: 1.0, ..GemmOptions::default() };
        product(rows, GemmInputB::Packed(&self.weights), to, options)
    }

    fn bias(&self) -> Option<BiasVector<'_, f32>> {
        Some(BiasVector::Row(&self.bias))
    }
}

/// Writes the product of two matrices.
pub fn product(
    left: NdTensorView<f32, 2>,
    right: GemmInputB<f32>,
    to: &mut [f32],
    options: GemmOptions<f32, f32, f32>,
) -> Result<()> {
    // It cannot go from one thread to another; to make it costs nothing.
    let gemm: GemmExecutor<f32> = GemmExecutor::new();
    gemm.gemm(to, GemmInputA::Unpacked(left), right, options).map_err(Error::internal)
}

/// Brings each row to mean 0 and deviation 1, then to a gain and a bias of each column.
pub struct Norm {
    gain: Vec<f32>,
    bias: Vec<f32>,
}

impl Norm {
    pub fn read(tensors: &mut Tensors, name: &str, width: usize) -> Result<Self> {
        let gain = tensors.take(&format!("{name}.weight"), &[width])?;
        Ok(Self { gain, bias: tensors.take(&format!("{name}.bias"), &[width])? })
    }

    /// Replaces `to` by the rows, normalised.
    pub fn write(&self, rows: &[f32], to: &mut Vec<f32>) {
        to.clear();
        to.extend_from_slice(rows);
        let width = self.gain.len();
        for row in to.chunks_exact_mut(width) {
            let mean = Sum::new(row).dispatch() / width as f32;
            let variance = SumSquareSub::new(row, mean).dispatch() / width as f32;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: 1.0 / (variance + LEAST_VARIANCE).sqrt(),
                element_scale: Some(&self.gain),
                element_bias: Some(&self.bias),
                bias: 0.0,
            };
            Normalize::new_mut(row, options).dispatch();
        }
    }
}
