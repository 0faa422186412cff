//! One vector for a face, near those of the same person: the residual network of dlib (King, 2017, "High Quality Face
//! Recognition with Deep Metric Learning"), in the weights of `face-api`.

use super::align::Point;
use crate::convnet::{Activation, Convolution, Map, Scratch, Window, max_pool, mean_pool};
use crate::weights::Weights;
use strata_model::Result;

/// Pixels of a side of the input.
pub const SIDE: usize = 150;
pub const DIMENSIONS: usize = 128;
/// Residual blocks: name, whether it halves the sides, and channels.
const BLOCKS: [(&str, bool, usize); 14] = [
    ("conv32_1", false, 32),
    ("conv32_2", false, 32),
    ("conv32_3", false, 32),
    ("conv64_down", true, 64),
    ("conv64_1", false, 64),
    ("conv64_2", false, 64),
    ("conv64_3", false, 64),
    ("conv128_down", true, 128),
    ("conv128_1", false, 128),
    ("conv128_2", false, 128),
    ("conv256_down", true, 256),
    ("conv256_1", false, 256),
    ("conv256_2", false, 256),
    ("conv256_down_out", true, 256),
];

/// Where five points of a face are in the input: the corners of the eyes from left to right in an upright image, and the
/// bottom of the nose. They are those of dlib's `get_face_chip_details`, for a padding of a quarter.
pub fn template() -> [Point; 5] {
    const PADDING: f32 = 0.25;
    let mean = [
        [0.120_575_06, 0.213_727_44],
        [0.334_085_06, 0.229_064_24],
        [0.646_060_5, 0.228_967_44],
        [0.859_567_46, 0.213_498_15],
        [0.490_112_3, 0.627_797_5],
    ];
    mean.map(|point: Point| point.map(|part| (part + PADDING) / (1.0 + 2.0 * PADDING) * SIDE as f32))
}

/// The loaded network.
pub struct Recognition {
    stem: Convolution,
    blocks: Vec<Block>,
    vector: Convolution,
}

struct Block {
    first: Convolution,
    second: Convolution,
    halves: bool,
}

impl Recognition {
    /// `Internal` where the file is not the network's.
    pub fn load(bytes: &[u8]) -> Result<Self> {
        let weights = Weights::read(bytes)?;
        let stem = convolution(&weights, "conv32_down", Window::inside(7, 2), [3, 32], Activation::Relu)?;
        let mut blocks = Vec::new();
        let mut before = 32;
        for (name, halves, channels) in BLOCKS {
            let window = if halves { Window::inside(3, 2) } else { Window::same(3, 1) };
            let (first, second) = (format!("{name}/conv1"), format!("{name}/conv2"));
            let first = convolution(&weights, &first, window, [before, channels], Activation::Relu)?;
            let second = convolution(&weights, &second, Window::same(3, 1), [channels, channels], Activation::None)?;
            blocks.push(Block { first, second, halves });
            before = channels;
        }
        let vector = weights.get("fc", &[before, DIMENSIONS])?;
        let vector = Convolution::new(Window::same(1, 1), &vector, vec![0.0; DIMENSIONS], Activation::None)?;
        Ok(Self { stem, blocks, vector })
    }

    /// The vector, of any length, of the face whose points lie on the [`template`]. The input is [`SIDE`] by [`SIDE`] pixels,
    /// each channel less its mean and divided by 255.
    pub fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Vec<f32>> {
        let stem = self.stem.run(input, scratch)?;
        let mut map = max_pool(&stem, Window::inside(3, 2), scratch);
        scratch.give(stem);
        for block in &self.blocks {
            let next = block.run(&map, scratch)?;
            scratch.give(std::mem::replace(&mut map, next));
        }
        let mut vector = vec![0.0; DIMENSIONS];
        self.vector.multiply(&map.mean(), &mut vector)?;
        scratch.give(map);
        Ok(vector)
    }
}

impl Block {
    fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        let first = self.first.run(input, scratch)?;
        let mut second = self.second.run(&first, scratch)?;
        scratch.give(first);
        if !self.halves {
            second.add(input)?;
            second.relu();
            return Ok(second);
        }
        let pooled = mean_pool(input, Window::inside(2, 2), scratch);
        let (height, width) = (pooled.height.max(second.height), pooled.width.max(second.width));
        let mut sum = scratch.map(height, width, second.channels);
        sum.data.fill(0.0);
        sum.add_within(&second)?;
        sum.add_within(&pooled)?;
        sum.relu();
        scratch.give(second);
        scratch.give(pooled);
        Ok(sum)
    }
}

/// A convolution and the scale after it as one.
fn convolution(
    weights: &Weights,
    name: &str,
    window: Window,
    [inputs, outputs]: [usize; 2],
    activation: Activation,
) -> Result<Convolution> {
    let mut kernel = weights.get(&format!("{name}/conv/filters"), &[window.kernel, window.kernel, inputs, outputs])?;
    let mut bias = weights.get(&format!("{name}/conv/bias"), &[outputs])?;
    let scale = weights.get(&format!("{name}/scale/weights"), &[outputs])?;
    let offset = weights.get(&format!("{name}/scale/biases"), &[outputs])?;
    for (place, weight) in kernel.iter_mut().enumerate() {
        *weight *= scale[place % outputs];
    }
    for (place, bias) in bias.iter_mut().enumerate() {
        *bias = *bias * scale[place] + offset[place];
    }
    Convolution::new(window, &kernel, bias, activation)
}
