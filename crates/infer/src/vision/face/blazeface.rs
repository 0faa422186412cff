//! BlazeFace (Bazarevsky et al., 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs"), the model for
//! cameras at the back of a phone: 256 by 256 pixels to 896 boxes around faces, each with six points and a score.

use super::align::Point;
use crate::convnet::{Activation, Convolution, Depthwise, Map, Scratch, Window, max_pool};
use crate::weights::Weights;
use strata_model::Result;

/// Pixels of a side of the input.
pub const SIDE: usize = 256;
const POINT: Window = Window::same(1, 1);
/// Blocks before the finer and the coarser boxes are read.
const BLOCKS: usize = 31;
/// Boxes a pixel, and pixels of the input a pixel, of the two maps that boxes are read from.
const FINE: Grid = Grid { boxes: 2, step: 16 };
const COARSE: Grid = Grid { boxes: 6, step: 32 };
/// Numbers a box: its middle and size, and six points.
const NUMBERS: usize = 16;

#[derive(Clone, Copy)]
struct Grid {
    boxes: usize,
    step: usize,
}

/// A box around what may be a face, in pixels of the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// 0 to 1.
    pub score: f32,
    pub middle: Point,
    /// Width and height.
    pub size: [f32; 2],
    /// The eye that is on the left in an upright image, and the other.
    pub eyes: [Point; 2],
    /// Its tip.
    pub nose: Point,
    /// Its middle.
    pub mouth: Point,
}

/// The loaded network.
pub struct BlazeFace {
    stem: Convolution,
    blocks: Vec<Block>,
    last: Block,
    fine: Head,
    coarse: Head,
}

/// A separable convolution.
struct Block {
    depthwise: Depthwise,
    project: Convolution,
    stride: usize,
}

/// What reads boxes from a map.
struct Head {
    scores: Convolution,
    boxes: Convolution,
    grid: Grid,
}

impl BlazeFace {
    /// `Internal` where the file is not the network's.
    pub fn load(bytes: &[u8]) -> Result<Self> {
        let weights = Weights::read(bytes)?;
        let tensor = |number: usize| format!("unknown_{number}");
        // The tensors have no other names than numbers in the order of the layers.
        let stem = convolution(&weights, "unknown", &tensor(0), Window::same(5, 2), Activation::Relu)?;
        let block = |number: usize, stride: usize, activation: Activation| -> Result<Block> {
            let first = 4 * number + 1;
            let kernel = tensor(first);
            let shape = weights.shape(&kernel)?;
            let (side, channels) = (shape.first().copied().unwrap_or(0), shape.get(2).copied().unwrap_or(0));
            let kernel = weights.get(&kernel, &[side, side, channels, 1])?;
            let window = Window::same(side, stride);
            let depthwise = Depthwise::new(window, kernel, vec![0.0; channels], Activation::None)?;
            let project = convolution(&weights, &tensor(first + 2), &tensor(first + 3), POINT, activation)?;
            Ok(Block { depthwise, project, stride })
        };
        let strides = (0..BLOCKS).map(|number| if matches!(number, 7 | 15 | 23) { 2 } else { 1 });
        let blocks = strides.enumerate().map(|(number, stride)| block(number, stride, Activation::None));
        let head = |scores: usize, boxes: usize, grid: Grid| -> Result<Head> {
            let read = |first| convolution(&weights, &tensor(first), &tensor(first + 1), POINT, Activation::None);
            Ok(Head { scores: read(scores)?, boxes: read(boxes)?, grid })
        };
        Ok(Self {
            stem,
            blocks: blocks.collect::<Result<_>>()?,
            last: block(BLOCKS, 2, Activation::Relu)?,
            fine: head(135, 131, FINE)?,
            coarse: head(133, 129, COARSE)?,
        })
    }

    /// The boxes whose score is at least `least`, in any order; several may be around one face. The input is [`SIDE`] by
    /// [`SIDE`] pixels, each `(value - 127.5) / 127.5`.
    pub fn run(&self, input: &Map, least: f32, scratch: &mut Scratch) -> Result<Vec<Found>> {
        let mut map = self.stem.run(input, scratch)?;
        for block in &self.blocks {
            let next = block.run(&map, scratch)?;
            scratch.give(std::mem::replace(&mut map, next));
        }
        let deep = self.last.depthwise.run(&map, scratch)?;
        let coarse = self.last.project.run(&deep, scratch)?;
        let mut found = self.fine.read(&map, least, scratch)?;
        found.extend(self.coarse.read(&coarse, least, scratch)?);
        [map, deep, coarse].into_iter().for_each(|map| scratch.give(map));
        Ok(found)
    }
}

impl Block {
    fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        let deep = self.depthwise.run(input, scratch)?;
        let mut output = self.project.run(&deep, scratch)?;
        scratch.give(deep);
        if self.stride == 1 {
            output.add_within(input)?;
        } else {
            let pooled = max_pool(input, Window::same(2, 2), scratch);
            output.add_within(&pooled)?;
            scratch.give(pooled);
        }
        output.relu();
        Ok(output)
    }
}

impl Head {
    fn read(&self, map: &Map, least: f32, scratch: &mut Scratch) -> Result<Vec<Found>> {
        let scores = self.scores.run(map, scratch)?;
        let boxes = self.boxes.run(map, scratch)?;
        let mut found = Vec::new();
        for (place, (logit, numbers)) in scores.data.iter().zip(boxes.data.chunks_exact(NUMBERS)).enumerate() {
            let score = 1.0 / (1.0 + (-logit).exp());
            if score < least {
                continue;
            }
            let pixel = place / self.grid.boxes;
            let anchor = [pixel % map.width, pixel / map.width].map(|at| (at as f32 + 0.5) * self.grid.step as f32);
            let point = |at: usize| [numbers[at] + anchor[0], numbers[at + 1] + anchor[1]];
            let size = [numbers[2], numbers[3]];
            let (eyes, nose, mouth) = ([point(4), point(6)], point(8), point(10));
            found.push(Found { score, middle: point(0), size, eyes, nose, mouth });
        }
        scratch.give(scores);
        scratch.give(boxes);
        Ok(found)
    }
}

fn convolution(
    weights: &Weights,
    kernel: &str,
    bias: &str,
    window: Window,
    activation: Activation,
) -> Result<Convolution> {
    let shape = weights.shape(kernel)?;
    let outputs = shape.last().copied().unwrap_or(0);
    Convolution::new(window, &weights.get(kernel, &shape)?, weights.get(bias, &[outputs])?, activation)
}
