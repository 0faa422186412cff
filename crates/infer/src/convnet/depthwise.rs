//! Convolutions of each channel by itself, over vectors of channels.

use super::{Activation, Map, Scratch, Window};
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};
use std::ops::Range;
use strata_model::{Error, Result};

/// A convolution of each channel by itself.
pub struct Depthwise {
    window: Window,
    /// `[kernel, kernel, channels]`
    weights: Vec<f32>,
    /// `[channels]`
    bias: Vec<f32>,
    activation: Activation,
}

/// Some rows of a map: all that the wanted rows of the output are made of.
pub struct Strip<'m> {
    pub rows: &'m Map,
    /// The row of the whole map that `rows` begins with.
    pub first: usize,
    /// Rows of the whole map.
    pub height: usize,
}

impl Depthwise {
    /// `weights` are `[kernel, kernel, channels]`, `bias` is `[channels]`. `Internal` where they do not fit.
    pub fn new(window: Window, weights: Vec<f32>, bias: Vec<f32>, activation: Activation) -> Result<Self> {
        if bias.is_empty() || weights.len() != window.kernel * window.kernel * bias.len() {
            return Err(Error::internal("the weights of a depthwise convolution do not fit its window and bias"));
        }
        Ok(Self { window, weights, bias, activation })
    }

    pub fn window(&self) -> Window {
        self.window
    }

    pub fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        let height = self.window.positions(input.height);
        self.run_rows(&Strip { rows: input, first: 0, height: input.height }, 0..height, scratch)
    }

    /// Some rows of the output, made of the rows of the input that [`Window::seen`] names.
    pub fn run_rows(&self, input: &Strip, rows: Range<usize>, scratch: &mut Scratch) -> Result<Map> {
        let seen = self.window.seen(rows.clone(), input.height);
        let covered = input.first..input.first + input.rows.height;
        if input.rows.channels != self.bias.len() || seen.start < covered.start || seen.end > covered.end {
            return Err(Error::internal("a depthwise convolution got other channels or rows than it needs"));
        }
        let mut output = scratch.map(rows.len(), self.window.positions(input.rows.width), self.bias.len());
        Rows { layer: self, input, first: rows.start, output: &mut output }.dispatch();
        Ok(output)
    }
}

struct Rows<'a> {
    layer: &'a Depthwise,
    input: &'a Strip<'a>,
    /// The row of the whole output that `output` begins with.
    first: usize,
    output: &'a mut Map,
}

impl SimdOp for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let Self { layer, input, first, output } = self;
        let (map, window) = (input.rows, layer.window);
        let channels = map.channels;
        let whole = channels - channels % ops.len();
        let inner = inner(window, map.width);
        for (number, row) in output.data.chunks_exact_mut(output.width * channels).enumerate() {
            let (from_y, ky) = window.overlap(first + number, input.height);
            let from = &map.data[(from_y - input.first) * map.width * channels..];
            let is_inner = ky.len() == window.kernel && !inner.is_empty();
            if is_inner {
                let (start, _) = window.overlap(inner.start, map.width);
                let from = Inner { layer, from: &from[start * channels..], row: map.width * channels };
                let row = &mut row[inner.start * channels..inner.end * channels];
                match window.kernel {
                    3 => inner_pixels::<_, 3>(ops, &from, row),
                    5 => inner_pixels::<_, 5>(ops, &from, row),
                    _ => {}
                }
            }
            for (x, pixel) in row.chunks_exact_mut(channels).enumerate() {
                let done = if is_inner && inner.contains(&x) { whole } else { 0 };
                if done == channels {
                    continue;
                }
                let (from_x, kx) = window.overlap(x, map.width);
                let from =
                    Edge { layer, from: &from[from_x * channels..], row: map.width * channels, ky: ky.clone(), kx };
                edge_pixel(ops, &from, done, pixel);
            }
        }
    }
}

/// The positions along a side where the window is wholly on the map, if there is a fast way for a window of its size.
fn inner(window: Window, side: usize) -> Range<usize> {
    let before = window.zeros_before(side);
    match (side + before).checked_sub(window.kernel) {
        Some(room) if matches!(window.kernel, 3 | 5) => {
            let start = before.div_ceil(window.stride);
            start..(room / window.stride + 1).min(window.positions(side)).max(start)
        }
        _ => 0..0,
    }
}

struct Inner<'a> {
    layer: &'a Depthwise,
    /// The map from the first number under the window on.
    from: &'a [f32],
    /// Numbers from one row of the map to the next.
    row: usize,
}

/// Pixels beside each other whose windows are wholly on the map: of each vector of channels the weights are loaded once.
#[inline(always)]
fn inner_pixels<O: NumOps<f32>, const K: usize>(ops: O, inner: &Inner, pixels: &mut [f32]) {
    let (layer, lanes) = (inner.layer, ops.len());
    let channels = layer.bias.len();
    let (low, high) = layer.activation.bounds();
    let (low, high) = (ops.splat(low), ops.splat(high));
    for at in (0..channels - channels % lanes).step_by(lanes) {
        let mut weights = [[ops.zero(); K]; K];
        for (place, weight) in weights.as_flattened_mut().iter_mut().enumerate() {
            *weight = ops.load(&layer.weights[place * channels + at..]);
        }
        let bias = ops.load(&layer.bias[at..]);
        for (number, pixel) in pixels.chunks_exact_mut(channels).enumerate() {
            let start = number * layer.window.stride * channels + at;
            let mut sum = bias;
            for (ky, weights) in weights.iter().enumerate() {
                let from = &inner.from[ky * inner.row + start..][..(K - 1) * channels + lanes];
                for (kx, weight) in weights.iter().enumerate() {
                    sum = ops.mul_add(ops.load(&from[kx * channels..]), *weight, sum);
                }
            }
            ops.store(ops.min(ops.max(sum, low), high), &mut pixel[at..]);
        }
    }
}

struct Edge<'a> {
    layer: &'a Depthwise,
    /// The map from the first number under the window on.
    from: &'a [f32],
    /// Numbers from one row of the map to the next.
    row: usize,
    /// The part of the window that is on the map.
    ky: Range<usize>,
    kx: Range<usize>,
}

/// One pixel whose window may be partly off the map, from channel `done` on.
#[inline(always)]
fn edge_pixel<O: NumOps<f32>>(ops: O, edge: &Edge, done: usize, pixel: &mut [f32]) {
    let lanes = ops.len();
    let mut at = done;
    while at + 4 * lanes <= pixel.len() {
        edge_vectors::<_, 4>(ops, edge, at, pixel);
        at += 4 * lanes;
    }
    while at + lanes <= pixel.len() {
        edge_vectors::<_, 1>(ops, edge, at, pixel);
        at += lanes;
    }
    for (at, number) in pixel.iter_mut().enumerate().skip(at) {
        *number = edge_number(edge, at);
    }
}

/// `N` vectors of channels of such a pixel: one alone would wait for each of its own sums.
#[inline(always)]
fn edge_vectors<O: NumOps<f32>, const N: usize>(ops: O, edge: &Edge, at: usize, pixel: &mut [f32]) {
    let layer = edge.layer;
    let (kernel, channels) = (layer.window.kernel, layer.bias.len());
    let mut sums: [O::Simd; N] = ops.load_many(&layer.bias[at..]);
    for (down, ky) in edge.ky.clone().enumerate() {
        let mut from = down * edge.row + at;
        let mut weight = (ky * kernel + edge.kx.start) * channels + at;
        for _ in edge.kx.clone() {
            let numbers: [O::Simd; N] = ops.load_many(&edge.from[from..]);
            let weights: [O::Simd; N] = ops.load_many(&layer.weights[weight..]);
            for n in 0..N {
                sums[n] = ops.mul_add(numbers[n], weights[n], sums[n]);
            }
            from += channels;
            weight += channels;
        }
    }
    let (low, high) = layer.activation.bounds();
    let (low, high) = (ops.splat(low), ops.splat(high));
    for (n, sum) in sums.into_iter().enumerate() {
        ops.store(ops.min(ops.max(sum, low), high), &mut pixel[at + n * ops.len()..]);
    }
}

/// One channel of such a pixel, where the last channels are no whole vector.
fn edge_number(edge: &Edge, at: usize) -> f32 {
    let layer = edge.layer;
    let (kernel, channels) = (layer.window.kernel, layer.bias.len());
    let mut sum = layer.bias[at];
    for (down, ky) in edge.ky.clone().enumerate() {
        for (right, kx) in edge.kx.clone().enumerate() {
            let weight = layer.weights[(ky * kernel + kx) * channels + at];
            sum += edge.from[down * edge.row + right * channels + at] * weight;
        }
    }
    let (low, high) = layer.activation.bounds();
    sum.max(low).min(high)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect()
    }

    /// The sum that the layer is defined by, at one position of one channel.
    fn by_hand(input: &Map, layer: &Depthwise, at: (usize, usize, usize)) -> f32 {
        let (y, x, channel) = at;
        let Window { kernel, stride, .. } = layer.window;
        let before = (layer.window.zeros_before(input.height), layer.window.zeros_before(input.width));
        let mut sum = layer.bias[channel];
        for (ky, kx) in (0..kernel * kernel).map(|place| (place / kernel, place % kernel)) {
            let from_y = (y * stride + ky).checked_sub(before.0).filter(|y| *y < input.height);
            let from_x = (x * stride + kx).checked_sub(before.1).filter(|x| *x < input.width);
            if let (Some(from_y), Some(from_x)) = (from_y, from_x) {
                sum += input.data[(from_y * input.width + from_x) * input.channels + channel]
                    * layer.weights[(ky * kernel + kx) * input.channels + channel];
            }
        }
        sum
    }

    #[test]
    fn it_is_the_sum_over_the_window_of_each_channel() {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2), (2, 1), (7, 2)] {
            for (height, width, channels) in [(9, 8, 37), (2, 3, 16), (1, 1, 3)] {
                let window = Window::same(kernel, stride);
                let bias = vec![0.25; channels];
                let layer =
                    Depthwise::new(window, numbers(kernel * kernel * channels), bias, Activation::None).unwrap();
                let input = Map { height, width, channels, data: numbers(height * width * channels) };
                let output = layer.run(&input, &mut Scratch::default()).unwrap();
                for (place, found) in output.data.iter().enumerate() {
                    let pixel = place / channels;
                    let at = (pixel / output.width, pixel % output.width, place % channels);
                    let expected = by_hand(&input, &layer, at);
                    assert!((found - expected).abs() < 1e-4, "{window:?} {at:?}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn rows_alone_are_the_rows_of_the_whole() {
        let window = Window::same(5, 2);
        let layer = Depthwise::new(window, numbers(25 * 20), numbers(20), Activation::Relu6).unwrap();
        let input = Map { height: 11, width: 6, channels: 20, data: numbers(11 * 6 * 20) };
        let mut scratch = Scratch::default();
        let whole = layer.run(&input, &mut scratch).unwrap();
        let seen = window.seen(2..5, 11);
        let rows = input.data[seen.start * 120..seen.end * 120].to_vec();
        let rows = Map { height: seen.len(), data: rows, ..input };
        let part = layer.run_rows(&Strip { rows: &rows, first: seen.start, height: 11 }, 2..5, &mut scratch).unwrap();
        assert_eq!(part.data, whole.data[2 * 60..5 * 60]);
        let short = Strip { rows: &rows, first: seen.start + 1, height: 11 };
        assert!(layer.run_rows(&short, 2..5, &mut scratch).is_err());
    }
}
