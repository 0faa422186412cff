//! EfficientNet-lite0 (Tan and Le, 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", without
//! squeeze-and-excitation and with ReLU6): a network of inverted residuals (Sandler et al., 2018, "MobileNetV2").

use crate::convnet::{Activation, Convolution, Depthwise, Map, Scratch, Strip, Window};
use crate::weights::Weights;
use strata_model::{Error, Result};

/// Pixels of a side of the input.
pub const SIDE: usize = 224;
pub const FEATURES: usize = 1280;
pub const CLASSES: usize = 1000;

/// Blocks of one kind in a row. The first has the stride, the others have 1.
struct Stage {
    blocks: usize,
    kernel: usize,
    stride: usize,
    expansion: usize,
    channels: usize,
}

const fn stage(blocks: usize, kernel: usize, stride: usize, expansion: usize, channels: usize) -> Stage {
    Stage { blocks, kernel, stride, expansion, channels }
}

const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 1, 16),
    stage(2, 3, 2, 6, 24),
    stage(2, 5, 2, 6, 40),
    stage(3, 3, 2, 6, 80),
    stage(3, 5, 1, 6, 112),
    stage(4, 5, 2, 6, 192),
    stage(1, 3, 1, 6, 320),
];
const STEM_CHANNELS: usize = 32;
const POINT: Window = Window::same(1, 1);

/// Numbers of an expanded map above which it is made in strips, so that it stays in the processor's cache.
const STRIP: usize = 128 << 10;

/// The loaded network.
pub struct EfficientNet {
    stem: Convolution,
    blocks: Vec<Block>,
    head: Convolution,
    classifier: Convolution,
}

/// What the network sees in an image.
pub struct Seen {
    /// [`FEATURES`] numbers, the mean over the last map.
    pub features: Vec<f32>,
    /// One for each of the [`CLASSES`].
    pub logits: Vec<f32>,
}

impl EfficientNet {
    /// `Internal` where the file is not the network's.
    pub fn load(bytes: &[u8]) -> Result<Self> {
        let weights = Weights::read(bytes)?;
        let window = Window::same(3, 2);
        let stem = convolution(&weights, "stem", window, 3, STEM_CHANNELS, Activation::Relu6)?;
        let mut blocks = Vec::new();
        let mut channels = STEM_CHANNELS;
        for stage in &STAGES {
            for position in 0..stage.blocks {
                let stride = if position == 0 { stage.stride } else { 1 };
                blocks.push(Block::load(&weights, blocks.len(), stage, channels, stride)?);
                channels = stage.channels;
            }
        }
        let head = convolution(&weights, "head", POINT, channels, FEATURES, Activation::Relu6)?;
        let bias = weights.get("classifier.bias", &[CLASSES])?;
        let classifier = weights.get("classifier.weight", &[FEATURES, CLASSES])?;
        let classifier = Convolution::new(POINT, &classifier, bias, Activation::None)?;
        Ok(Self { stem, blocks, head, classifier })
    }

    /// Looks at an image of [`SIDE`] by [`SIDE`] pixels, each `(value - 127) / 128`.
    pub fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Seen> {
        if (input.height, input.width) != (SIDE, SIDE) {
            return Err(Error::internal(format!("an image of {} by {} pixels", input.width, input.height)));
        }
        let mut map = self.stem.run(input, scratch)?;
        for block in &self.blocks {
            let next = block.run(&map, scratch)?;
            scratch.give(std::mem::replace(&mut map, next));
        }
        let last = self.head.run(&map, scratch)?;
        scratch.give(map);
        let features = last.mean();
        scratch.give(last);
        let mut logits = vec![0.0; CLASSES];
        self.classifier.multiply(&features, &mut logits)?;
        Ok(Seen { features, logits })
    }
}

/// An inverted residual: expansion, convolution of each channel, projection, and the input added where the shapes are the
/// same.
struct Block {
    expand: Option<Convolution>,
    depthwise: Depthwise,
    project: Convolution,
    is_residual: bool,
}

impl Block {
    fn load(weights: &Weights, number: usize, stage: &Stage, channels: usize, stride: usize) -> Result<Self> {
        let name = |part: &str| format!("blocks.{number}.{part}");
        let wide = channels * stage.expansion;
        let expand = match stage.expansion {
            1 => None,
            _ => Some(convolution(weights, &name("expand"), POINT, channels, wide, Activation::Relu6)?),
        };
        let window = Window::same(stage.kernel, stride);
        let kernel = weights.get(&name("depthwise.weight"), &[stage.kernel, stage.kernel, 1, wide])?;
        let bias = weights.get(&name("depthwise.bias"), &[wide])?;
        let depthwise = Depthwise::new(window, kernel, bias, Activation::Relu6)?;
        let project = convolution(weights, &name("project"), POINT, wide, stage.channels, Activation::None)?;
        Ok(Self { expand, depthwise, project, is_residual: stride == 1 && channels == stage.channels })
    }

    fn run(&self, input: &Map, scratch: &mut Scratch) -> Result<Map> {
        let window = self.depthwise.window();
        let (height, width) = (window.positions(input.height), window.positions(input.width));
        let mut output = scratch.map(height, width, self.project.outputs());
        let rows = self.rows_at_once(input, height);
        let numbers = rows * width * self.project.outputs();
        for (number, output) in output.data.chunks_mut(numbers).enumerate() {
            let rows = number * rows..((number + 1) * rows).min(height);
            let deep = self.deepen(input, rows, scratch)?;
            self.project.multiply(&deep.data, output)?;
            scratch.give(deep);
        }
        if self.is_residual {
            output.add(input)?;
        }
        Ok(output)
    }

    /// Expansion and convolution of each channel, for some rows of the output.
    fn deepen(&self, input: &Map, rows: std::ops::Range<usize>, scratch: &mut Scratch) -> Result<Map> {
        let Some(expand) = &self.expand else {
            let strip = Strip { rows: input, first: 0, height: input.height };
            return self.depthwise.run_rows(&strip, rows, scratch);
        };
        let seen = self.depthwise.window().seen(rows.clone(), input.height);
        let row = input.width * input.channels;
        let mut wide = scratch.map(seen.len(), input.width, expand.outputs());
        expand.multiply(&input.data[seen.start * row..seen.end * row], &mut wide.data)?;
        let strip = Strip { rows: &wide, first: seen.start, height: input.height };
        let deep = self.depthwise.run_rows(&strip, rows, scratch)?;
        scratch.give(wide);
        Ok(deep)
    }

    /// Rows of the output that are made together: those of a strip where the expanded map is large.
    fn rows_at_once(&self, input: &Map, height: usize) -> usize {
        let row = input.width * self.expand.as_ref().map_or(input.channels, Convolution::outputs);
        match row * input.height > 2 * STRIP {
            true => (STRIP / row / self.depthwise.window().stride).clamp(1, height),
            false => height,
        }
    }
}

fn convolution(
    weights: &Weights,
    name: &str,
    window: Window,
    inputs: usize,
    outputs: usize,
    activation: Activation,
) -> Result<Convolution> {
    let kernel = weights.get(&format!("{name}.weight"), &[window.kernel, window.kernel, inputs, outputs])?;
    let bias = weights.get(&format!("{name}.bias"), &[outputs])?;
    Convolution::new(window, &kernel, bias, activation)
}
