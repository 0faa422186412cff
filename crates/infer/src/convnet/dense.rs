//! Convolutions over all channels, as products of matrices.

use super::{Activation, Map, Scratch, Window};
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use rten_tensor::NdTensorView;
use strata_model::{Error, Result};

/// Numbers that are made at once, so that they are still in the processor's cache when they are clamped.
const NEAR: usize = 64 << 10;

/// A convolution over all channels.
pub struct Convolution {
    window: Window,
    inputs: usize,
    bias: Vec<f32>,
    /// `[kernel * kernel * inputs, outputs]`
    weights: PackedBMatrix<f32>,
    activation: Activation,
}

impl Convolution {
    /// `weights` are `[kernel, kernel, inputs, outputs]`, `bias` is `[outputs]`. `Internal` where they do not fit.
    pub fn new(window: Window, weights: &[f32], bias: Vec<f32>, activation: Activation) -> Result<Self> {
        let area = window.kernel * window.kernel;
        let inputs = weights.len() / bias.len().max(1) / area.max(1);
        if weights.is_empty() || inputs * area * bias.len() != weights.len() {
            return Err(Error::internal("the weights of a convolution do not fit its window and bias"));
        }
        let gemm: GemmExecutor<f32> = GemmExecutor::new();
        let packed = gemm.prepack_b(NdTensorView::from_data([area * inputs, bias.len()], weights));
        Ok(Self { window, inputs, bias, weights: packed, activation })
    }

    /// Numbers a pixel of what it makes.
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    pub fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        if input.channels != self.inputs {
            return Err(Error::internal(format!("a convolution of {} channels got {}", self.inputs, input.channels)));
        }
        let (height, width) = (self.window.positions(input.height), self.window.positions(input.width));
        let mut output = scratch.map(height, width, self.outputs());
        if self.window.kernel == 1 && self.window.stride == 1 {
            self.multiply(&input.data, &mut output.data)?;
        } else {
            let mut patches = scratch.map(height, width, self.window.kernel * self.window.kernel * self.inputs);
            self.gather(input, &mut patches);
            self.multiply(&patches.data, &mut output.data)?;
            scratch.give(patches);
        }
        Ok(output)
    }

    /// The layer's product for some pixels: `left` is `[pixels, kernel * kernel * inputs]`, `output` `[pixels, outputs]`.
    pub fn multiply(&self, left: &[f32], output: &mut [f32]) -> Result<()> {
        let columns = self.window.kernel * self.window.kernel * self.inputs;
        // It cannot go from one thread to another; to make it costs nothing.
        let gemm: GemmExecutor<f32> = GemmExecutor::new();
        let rows = (NEAR / self.outputs()).max(1);
        for (left, output) in left.chunks(rows * columns).zip(output.chunks_mut(rows * self.outputs())) {
            let left = NdTensorView::from_data([left.len() / columns, columns], left);
            let options = GemmOptions { bias: Some(BiasVector::Row(&self.bias)), ..GemmOptions::default() };
            let (left, right) = (GemmInputA::Unpacked(left), GemmInputB::Packed(&self.weights));
            gemm.gemm(output, left, right, options).map_err(Error::internal)?;
            if self.activation != Activation::None {
                let (low, high) = self.activation.bounds();
                Clamp { data: output, low, high }.dispatch();
            }
        }
        Ok(())
    }

    /// Writes what the window sees at each position, `[kernel, kernel, inputs]`, zeros outside the map.
    fn gather(&self, input: &Map, patches: &mut Map) {
        let kernel = self.window.kernel;
        let channels = input.channels;
        let positions = patches.data.chunks_exact_mut(kernel * kernel * channels);
        for (position, patch) in positions.enumerate() {
            let (from_y, ky) = self.window.overlap(position / patches.width, input.height);
            let (from_x, kx) = self.window.overlap(position % patches.width, input.width);
            if ky.len() * kx.len() < kernel * kernel {
                patch.fill(0.0);
            }
            for (down, ky) in ky.enumerate() {
                let from = ((from_y + down) * input.width + from_x) * channels;
                let to = (ky * kernel + kx.start) * channels;
                let length = kx.len() * channels;
                patch[to..to + length].copy_from_slice(&input.data[from..from + length]);
            }
        }
    }
}

struct Clamp<'a> {
    data: &'a mut [f32],
    low: f32,
    high: f32,
}

impl SimdOp for Clamp<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (low, high) = (ops.splat(self.low), ops.splat(self.high));
        let mut vectors = self.data.chunks_exact_mut(ops.len());
        for vector in &mut vectors {
            let numbers = ops.load(vector);
            ops.store(ops.min(ops.max(numbers, low), high), vector);
        }
        for number in vectors.into_remainder() {
            *number = number.max(self.low).min(self.high);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The sum that the layer is defined by, at one position of one output.
    fn by_hand(input: &Map, window: Window, weights: &[f32], outputs: usize, at: (usize, usize, usize)) -> f32 {
        let (y, x, output) = at;
        let before = (window.zeros_before(input.height), window.zeros_before(input.width));
        let mut sum = 0.0;
        for ky in 0..window.kernel {
            for kx in 0..window.kernel {
                let from_y = (y * window.stride + ky).checked_sub(before.0).filter(|y| *y < input.height);
                let from_x = (x * window.stride + kx).checked_sub(before.1).filter(|x| *x < input.width);
                let (Some(from_y), Some(from_x)) = (from_y, from_x) else { continue };
                for channel in 0..input.channels {
                    let weight = ((ky * window.kernel + kx) * input.channels + channel) * outputs + output;
                    sum += input.data[(from_y * input.width + from_x) * input.channels + channel] * weights[weight];
                }
            }
        }
        sum
    }

    #[test]
    fn it_is_the_sum_over_the_window() {
        let numbers = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<f32>>();
        let input = Map { height: 7, width: 6, channels: 3, data: numbers(7 * 6 * 3) };
        for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1), (5, 2)] {
            let window = Window::same(kernel, stride);
            let weights = numbers(kernel * kernel * 3 * 5);
            let layer = Convolution::new(window, &weights, vec![0.5; 5], Activation::Relu6).unwrap();
            let output = layer.run(&input, &mut Scratch::default()).unwrap();
            assert_eq!((output.height, output.width), (7_usize.div_ceil(stride), 6_usize.div_ceil(stride)));
            for (place, found) in output.data.iter().enumerate() {
                let at = (place / 5 / output.width, place / 5 % output.width, place % 5);
                let expected = (by_hand(&input, window, &weights, 5, at) + 0.5).clamp(0.0, 6.0);
                assert!((found - expected).abs() < 1e-4, "{window:?} {at:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let window = Window::same(3, 1);
        assert!(Convolution::new(window, &[0.0; 17], vec![0.0; 2], Activation::None).is_err());
        let layer = Convolution::new(window, &[0.0; 18], vec![0.0; 2], Activation::None).unwrap();
        let input = Map { height: 1, width: 1, channels: 2, data: vec![0.0; 2] };
        assert!(layer.run(&input, &mut Scratch::default()).is_err());
    }
}
