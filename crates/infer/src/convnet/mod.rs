//! A small runtime for convolutional networks on the CPU, in safe Rust over the vector instructions of the crates
//! `rten-gemm` and `rten-simd`.
//!
//! Maps hold the channels of a pixel together. So a convolution is a product of matrices whose right side, the weights,
//! is packed once, and a depthwise one runs over whole vectors of channels. It knows layers and nothing of any model.

mod dense;
mod depthwise;
mod pooling;

pub use dense::Convolution;
pub use depthwise::{Depthwise, Strip};
pub use pooling::{max_pool, mean_pool};

use strata_model::{Error, Result};

/// One image, or what a layer made of it: `[height, width, channels]`, row by row, the channels of a pixel together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub data: Vec<f32>,
}

impl Map {
    /// Adds the numbers of another map of the same shape, or of one that is smaller and stands for one with zeros after
    /// its own rows, columns and channels.
    pub fn add_within(&mut self, other: &Self) -> Result<()> {
        if other.height > self.height || other.width > self.width || other.channels > self.channels {
            return Err(Error::internal("a map cannot be added to a smaller one"));
        }
        let (to_row, from_row) = (self.width * self.channels, other.width * other.channels);
        for (to, from) in self.data.chunks_exact_mut(to_row).zip(other.data.chunks_exact(from_row)) {
            for (to, from) in to.chunks_exact_mut(self.channels).zip(from.chunks_exact(other.channels)) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
        Ok(())
    }

    /// Makes every number below 0 to 0.
    pub fn relu(&mut self) {
        self.data.iter_mut().for_each(|number| *number = number.max(0.0));
    }

    /// Adds the numbers of another map of the same shape.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        if (self.height, self.width, self.channels) != (other.height, other.width, other.channels) {
            return Err(Error::internal("two maps of different shapes cannot be added"));
        }
        for (to, from) in self.data.iter_mut().zip(&other.data) {
            *to += from;
        }
        Ok(())
    }

    /// The mean of each channel.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.channels];
        for pixel in self.data.chunks_exact(self.channels) {
            for (sum, number) in sums.iter_mut().zip(pixel) {
                *sum += number;
            }
        }
        let pixels = (self.height * self.width) as f32;
        sums.into_iter().map(|sum| sum / pixels).collect()
    }
}

/// Buffers of maps that are not needed any more, since fresh memory costs more than filling it.
#[derive(Debug, Default)]
pub struct Scratch(Vec<Vec<f32>>);

impl Scratch {
    /// A map with any content.
    pub fn map(&mut self, height: usize, width: usize, channels: usize) -> Map {
        let length = height * width * channels;
        // The smallest that is large enough, or else the largest.
        let misfit = |buffer: &Vec<f32>| (buffer.capacity() < length, buffer.capacity().abs_diff(length));
        let best = (0..self.0.len()).min_by_key(|&place| misfit(&self.0[place]));
        let mut data = best.map(|place| self.0.swap_remove(place)).unwrap_or_default();
        data.resize(length, 0.0);
        Map { height, width, channels, data }
    }

    /// Takes a map back.
    pub fn give(&mut self, map: Map) {
        self.0.push(map.data);
    }
}

/// What is done to every number that a layer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    None,
    Relu,
    Relu6,
}

impl Activation {
    /// Least and greatest number that it lets through.
    fn bounds(self) -> (f32, f32) {
        match self {
            Self::None => (f32::NEG_INFINITY, f32::INFINITY),
            Self::Relu => (0.0, f32::INFINITY),
            Self::Relu6 => (0.0, 6.0),
        }
    }
}

/// How a square window moves over a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub kernel: usize,
    pub stride: usize,
    pub padding: Padding,
}

/// What stands around a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// As many zeros that there are as many positions as the map's side divided by the stride, rounded up; one more after
    /// than before, where they are odd (TensorFlow's `SAME`).
    Same,
    /// Nothing: the window stands only where it is wholly on the map (`VALID`).
    None,
}

impl Window {
    /// A window over zeros at the edges.
    pub const fn same(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: Padding::Same }
    }

    /// A window that stays on the map.
    pub const fn inside(kernel: usize, stride: usize) -> Self {
        Self { kernel, stride, padding: Padding::None }
    }

    /// Positions along a side of the map.
    pub fn positions(self, side: usize) -> usize {
        match self.padding {
            Padding::Same => side.div_ceil(self.stride),
            Padding::None => (side + self.stride).saturating_sub(self.kernel) / self.stride,
        }
    }

    /// Zeros before the first number of a side.
    fn zeros_before(self, side: usize) -> usize {
        match self.padding {
            Padding::Same => {
                let covered = self.positions(side).saturating_sub(1) * self.stride + self.kernel;
                covered.saturating_sub(side) / 2
            }
            Padding::None => 0,
        }
    }

    /// Of the window at a position along a side: the first number under it, and the part of it that is on the map.
    fn overlap(self, position: usize, side: usize) -> (usize, std::ops::Range<usize>) {
        let (start, before) = (position * self.stride, self.zeros_before(side));
        let first = before.saturating_sub(start).min(self.kernel);
        let end = (side + before).saturating_sub(start).clamp(first, self.kernel);
        ((start + first).saturating_sub(before), first..end)
    }

    /// The numbers of a side that are under the window at some of the positions.
    pub fn seen(self, positions: std::ops::Range<usize>, side: usize) -> std::ops::Range<usize> {
        if positions.is_empty() {
            return 0..0;
        }
        let (start, _) = self.overlap(positions.start, side);
        let (last, part) = self.overlap(positions.end - 1, side);
        start..last + part.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_window_stands_over_zeros_at_the_edges() {
        let window = Window::same(3, 2);
        assert_eq!((window.positions(224), window.zeros_before(224)), (112, 0));
        assert_eq!(window.overlap(0, 224), (0, 0..3));
        assert_eq!(window.overlap(111, 224), (222, 0..2));
        assert_eq!(window.seen(2..4, 224), 4..9);
        let window = Window::same(5, 1);
        assert_eq!(window.overlap(0, 7), (0, 2..5));
        assert_eq!(window.overlap(6, 7), (4, 0..3));
        assert_eq!(window.seen(0..7, 7), 0..7);
        let window = Window::inside(3, 2);
        assert_eq!((window.positions(7), window.positions(8), window.positions(2)), (3, 3, 0));
        assert_eq!(window.overlap(2, 7), (4, 0..3));
    }

    #[test]
    fn a_buffer_is_used_again() {
        let mut scratch = Scratch::default();
        let map = scratch.map(4, 4, 2);
        let place = map.data.as_ptr();
        scratch.give(map);
        assert_eq!(scratch.map(2, 2, 2).data.as_ptr(), place);
    }

    #[test]
    fn a_mean_is_over_pixels() {
        let map = Map { height: 1, width: 2, channels: 2, data: vec![1.0, 2.0, 3.0, 6.0] };
        assert_eq!(map.mean(), [2.0, 4.0]);
        assert!(map.clone().add(&Map::default()).is_err());
        let mut wide = Map { height: 1, width: 2, channels: 3, data: vec![1.0; 6] };
        wide.add_within(&map).unwrap();
        assert_eq!(wide.data, [2.0, 3.0, 1.0, 4.0, 7.0, 1.0]);
        assert!(map.clone().add_within(&wide).is_err());
    }
}
