//! EfficientNet-lite0 (Tan and Le, 2019, "EfficientNet", without squeeze-and-excitation and with ReLU6): the published
//! checkpoint to ONNX. Batch norms are folded into the convolutions before them; padding is TensorFlow's `SAME`.

use super::onnx::{Attribute, Dimension, Graph};
use super::torch::{self, Tensor};
use std::collections::BTreeMap;
use strata_model::{Error, Result};

/// Pixels of a side of the input.
const SIDE: usize = 224;
const FEATURES: usize = 1280;
const CLASSES: usize = 1000;
/// What the batch norms add to a variance.
const EPSILON: f32 = 1e-3;

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

/// `input` `[n, 3, 224, 224]`, `(pixel - 127) / 128`, to `features` `[n, 1280]` and `logits` `[n, 1000]`.
pub fn to_onnx(checkpoint: &[u8]) -> Result<Vec<u8>> {
    let tensors = torch::read(checkpoint)?;
    let mut graph = Graph::default();
    let limits = [graph.weights(&[], &[0.0]), graph.weights(&[], &[6.0])];
    let mut net = Net { tensors, graph, limits, side: SIDE };

    let stem = Convolution { kernel: 3, stride: 2, groups: 1, inputs: 3, outputs: STEM_CHANNELS };
    let mut x = net.convolution("input", "_conv_stem", "_bn0", &stem)?;
    x = net.relu6(&x);
    let mut channels = STEM_CHANNELS;
    let mut number = 0;
    for stage in &STAGES {
        for position in 0..stage.blocks {
            let stride = if position == 0 { stage.stride } else { 1 };
            x = net.block(&x, &format!("_blocks.{number}"), stage, channels, stride)?;
            channels = stage.channels;
            number += 1;
        }
    }
    let head = Convolution { kernel: 1, stride: 1, groups: 1, inputs: channels, outputs: FEATURES };
    x = net.convolution(&x, "_conv_head", "_bn1", &head)?;
    x = net.relu6(&x);
    net.classifier(&x)?;
    let output = |sizes: usize| [Dimension::Any, Dimension::Of(sizes)];
    let pixels = [Dimension::Any, Dimension::Of(3), Dimension::Of(SIDE), Dimension::Of(SIDE)];
    let outputs: &[(&str, &[Dimension])] = &[("features", &output(FEATURES)), ("logits", &output(CLASSES))];
    Ok(net.graph.finish("efficientnet_lite0", &[("input", &pixels)], outputs))
}

struct Convolution {
    kernel: usize,
    stride: usize,
    groups: usize,
    inputs: usize,
    outputs: usize,
}

struct Net {
    tensors: BTreeMap<String, Tensor>,
    graph: Graph,
    /// Names of the constants 0 and 6.
    limits: [String; 2],
    /// Pixels of a side of what was added last.
    side: usize,
}

impl Net {
    /// An inverted residual: expansion, convolution of each channel, projection, and the input added where the shapes
    /// are the same.
    fn block(&mut self, input: &str, name: &str, stage: &Stage, channels: usize, stride: usize) -> Result<String> {
        let wide = channels * stage.expansion;
        let point = |inputs, outputs| Convolution { kernel: 1, stride: 1, groups: 1, inputs, outputs };
        let mut x = input.to_owned();
        if stage.expansion > 1 {
            let (weights, norm) = (format!("{name}._expand_conv"), format!("{name}._bn0"));
            x = self.convolution(&x, &weights, &norm, &point(channels, wide))?;
            x = self.relu6(&x);
        }
        let depth = Convolution { kernel: stage.kernel, stride, groups: wide, inputs: 1, outputs: wide };
        x = self.convolution(&x, &format!("{name}._depthwise_conv"), &format!("{name}._bn1"), &depth)?;
        x = self.relu6(&x);
        let (weights, norm) = (format!("{name}._project_conv"), format!("{name}._bn2"));
        x = self.convolution(&x, &weights, &norm, &point(wide, stage.channels))?;
        let is_same = stride == 1 && channels == stage.channels;
        Ok(if is_same { self.graph.node("Add", &[&x, input], &[]) } else { x })
    }

    fn convolution(&mut self, input: &str, weights: &str, norm: &str, how: &Convolution) -> Result<String> {
        let shape = [how.outputs, how.inputs, how.kernel, how.kernel];
        let kernel = self.take(&format!("{weights}.weight"), &shape)?;
        let channel = [how.outputs];
        let mut of_norm = |part: &str| self.take(&format!("{norm}.{part}"), &channel);
        let (gain, offset) = (of_norm("weight")?, of_norm("bias")?);
        let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
        let scale: Vec<f32> =
            gain.iter().zip(&variance).map(|(gain, variance)| gain / (variance + EPSILON).sqrt()).collect();
        let bias: Vec<f32> = (0..how.outputs).map(|c| offset[c] - mean[c] * scale[c]).collect();
        let of_channel = how.inputs * how.kernel * how.kernel;
        let folded: Vec<f32> = kernel.iter().enumerate().map(|(i, weight)| weight * scale[i / of_channel]).collect();

        let weights = self.graph.weights(&shape, &folded);
        let bias = self.graph.weights(&channel, &bias);
        let pads = self.same_padding(how);
        let attributes = [
            ("strides", Attribute::Ints(&[how.stride as i64; 2])),
            ("kernel_shape", Attribute::Ints(&[how.kernel as i64; 2])),
            ("group", Attribute::Int(how.groups as i64)),
            ("pads", Attribute::Ints(&pads)),
        ];
        Ok(self.graph.node("Conv", &[input, &weights, &bias], &attributes))
    }

    /// Top, left, bottom, right, so that the output's side is the input's divided by the stride, rounded up.
    fn same_padding(&mut self, how: &Convolution) -> [i64; 4] {
        let side = self.side.div_ceil(how.stride);
        let total = ((side - 1) * how.stride + how.kernel).saturating_sub(self.side);
        self.side = side;
        let first = (total / 2) as i64;
        let last = total as i64 - first;
        [first, first, last, last]
    }

    fn relu6(&mut self, input: &str) -> String {
        let [low, high] = &self.limits;
        self.graph.node("Clip", &[input, low, high], &[])
    }

    fn classifier(&mut self, input: &str) -> Result<()> {
        let pooled = self.graph.node("GlobalAveragePool", &[input], &[]);
        self.graph.node_called("features", "Flatten", &[&pooled], &[("axis", Attribute::Int(1))]);
        let weights = self.take("_fc.weight", &[CLASSES, FEATURES])?;
        let bias = self.take("_fc.bias", &[CLASSES])?;
        let weights = self.graph.weights(&[CLASSES, FEATURES], &weights);
        let bias = self.graph.weights(&[CLASSES], &bias);
        self.graph.node_called("logits", "Gemm", &["features", &weights, &bias], &[("transB", Attribute::Int(1))]);
        Ok(())
    }

    /// The numbers of a tensor, which must have this shape.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.tensors.remove(name) {
            Some(tensor) if tensor.shape == shape => Ok(tensor.data),
            Some(tensor) => {
                Err(Error::Malformed(format!("`{name}` has the shape {:?}, expected {shape:?}", tensor.shape)))
            }
            None => Err(Error::Malformed(format!("`{name}` is missing"))),
        }
    }
}
