//! Where jaw, brows, nose, eyes and mouth are in a face: the 68 points of the iBUG 300-W scheme, by the network of separable
//! convolutions in densely connected blocks of `face-api`.

use super::align::Point;
use crate::convnet::{Activation, Convolution, Depthwise, Map, Scratch, Window};
use crate::weights::Weights;
use strata_model::Result;

/// Pixels of a side of the input.
pub const SIDE: usize = 112;
pub const POINTS: usize = 68;
const CHANNELS: [usize; 4] = [32, 64, 128, 256];

/// The loaded network.
pub struct Landmarks {
    stem: Convolution,
    blocks: Vec<Block>,
    points: Convolution,
}

/// Up to four convolutions; each sees the sum of those before.
struct Block {
    /// Halves the sides. Absent in the first block, where the stem stands for it.
    first: Option<Separable>,
    others: [Separable; 3],
}

struct Separable {
    depthwise: Depthwise,
    point: Convolution,
}

impl Landmarks {
    /// `Internal` where the file is not the network's.
    pub fn load(bytes: &[u8]) -> Result<Self> {
        let weights = Weights::read(bytes)?;
        let kernel = weights.get("dense0/conv0/filters", &[3, 3, 3, CHANNELS[0]])?;
        let bias = weights.get("dense0/conv0/bias", &[CHANNELS[0]])?;
        let stem = Convolution::new(Window::same(3, 2), &kernel, bias, Activation::Relu)?;
        let mut blocks = Vec::new();
        for (number, &channels) in CHANNELS.iter().enumerate() {
            let name = |layer: usize| format!("dense{number}/conv{layer}");
            let first = match number {
                0 => None,
                _ => {
                    let before = CHANNELS[number - 1];
                    Some(Separable::load(&weights, &name(0), 2, before, channels, Activation::Relu)?)
                }
            };
            let other = |layer| Separable::load(&weights, &name(layer), 1, channels, channels, Activation::None);
            blocks.push(Block { first, others: [other(1)?, other(2)?, other(3)?] });
        }
        let kernel = weights.get("fc/weights", &[CHANNELS[3], 2 * POINTS])?;
        let bias = weights.get("fc/bias", &[2 * POINTS])?;
        let points = Convolution::new(Window::same(1, 1), &kernel, bias, Activation::None)?;
        Ok(Self { stem, blocks, points })
    }

    /// The points of the face that fills the input, in its pixels. The input is [`SIDE`] by [`SIDE`] pixels, each channel
    /// less its mean and divided by 255.
    pub fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Vec<Point>> {
        let mut map = self.stem.run(input, scratch)?;
        for block in &self.blocks {
            let next = block.run(&map, scratch)?;
            scratch.give(std::mem::replace(&mut map, next));
        }
        let mut numbers = vec![0.0; 2 * POINTS];
        self.points.multiply(&map.mean(), &mut numbers)?;
        scratch.give(map);
        Ok(numbers.as_chunks::<2>().0.iter().map(|point| point.map(|part| part * SIDE as f32)).collect())
    }
}

impl Block {
    fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        let mut sum = match &self.first {
            Some(first) => first.run(input, scratch)?,
            None => input.clone(),
        };
        for other in &self.others {
            // What the next one sees is without the parts below 0; the sum goes on with them.
            let mut seen = sum.clone();
            seen.relu();
            let next = other.run(&seen, scratch)?;
            sum.add(&next)?;
            scratch.give(next);
            scratch.give(seen);
        }
        sum.relu();
        Ok(sum)
    }
}

impl Separable {
    fn load(
        weights: &Weights,
        name: &str,
        stride: usize,
        inputs: usize,
        outputs: usize,
        activation: Activation,
    ) -> Result<Self> {
        let kernel = weights.get(&format!("{name}/depthwise_filter"), &[3, 3, inputs, 1])?;
        let depthwise = Depthwise::new(Window::same(3, stride), kernel, vec![0.0; inputs], Activation::None)?;
        let kernel = weights.get(&format!("{name}/pointwise_filter"), &[1, 1, inputs, outputs])?;
        let bias = weights.get(&format!("{name}/bias"), &[outputs])?;
        Ok(Self { depthwise, point: Convolution::new(Window::same(1, 1), &kernel, bias, activation)? })
    }

    fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        let deep = self.depthwise.run(input, scratch)?;
        let output = self.point.run(&deep, scratch)?;
        scratch.give(deep);
        Ok(output)
    }
}
