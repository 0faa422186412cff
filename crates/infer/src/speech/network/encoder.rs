//! The encoder: from the features of a window to what the decoder attends to of it.

use super::half::Half;
use super::layers::{Dense, Linear, Norm, product};
use super::tensors::{HEAD, Sizes, Tensors};
use super::{Heard, Pair};
use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::NdTensorView;
use rten_vecmath::{Gelu, Softmax};
use strata_model::{Error, Result};

/// Frames that go through a layer together: few enough that all that is made of them stays in the cache next to a core.
const BLOCK: usize = 60;
/// Frames that a convolution sees.
const KERNEL: usize = 3;

pub struct Encoder {
    sizes: Sizes,
    first: Dense,
    second: Dense,
    /// `[frames, width]`
    places: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    /// For each layer of the decoder keys and values.
    sound: Dense,
}

struct Layer {
    attention_norm: Norm,
    /// To queries, keys and values.
    attention: Dense,
    out: Dense,
    forward_norm: Norm,
    wide: Dense,
    narrow: Dense,
}

/// Room for what is made of some frames.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    scores: Vec<f32>,
    head: Vec<f32>,
    seen: Vec<f32>,
    wide: Vec<f32>,
}

impl Encoder {
    pub fn read(tensors: &mut Tensors, sizes: Sizes) -> Result<Self> {
        let width = sizes.width;
        let first = convolution(tensors, "model.encoder.conv1", sizes.mel_bands, width)?;
        let second = convolution(tensors, "model.encoder.conv2", width, width)?;
        let places = tensors.take("model.encoder.embed_positions.weight", &[sizes.frames, width])?;
        let layers =
            (0..sizes.encoder_layers).map(|layer| Layer::read(tensors, layer, width)).collect::<Result<_>>()?;
        let norm = Norm::read(tensors, "model.encoder.layer_norm", width)?;
        let mut sound = Linear { inputs: width, weights: Vec::new(), bias: Vec::new() };
        for layer in 0..sizes.decoder_layers {
            let attention = format!("model.decoder.layers.{layer}.encoder_attn");
            sound.append(Linear::key_value(tensors, &attention, width)?);
        }
        Ok(Self { sizes, first, second, places, layers, norm, sound: Dense::new(&sound) })
    }

    /// `features` are `[2 * frames, mel_bands]`, of as many frames as the model has places or of fewer.
    pub fn run(&self, features: &[f32]) -> Result<Heard> {
        let Sizes { mel_bands, width, .. } = self.sizes;
        let frames = features.len() / (2 * mel_bands);
        if features.len() != 2 * frames * mel_bands || !(1..=self.sizes.frames).contains(&frames) {
            return Err(Error::internal(format!("the encoder got {} numbers", features.len())));
        }
        let sound = with_edges(features, mel_bands);
        let mut wide = vec![0.0; (2 * frames + 2) * width];
        convolve(&self.first, &sound, mel_bands, 1, &mut wide[width..(2 * frames + 1) * width])?;
        let mut x = vec![0.0; frames * width];
        convolve(&self.second, &wide, width, 2, &mut x)?;
        x.iter_mut().zip(&self.places).for_each(|(x, place)| *x += place);
        for layer in &self.layers {
            layer.run(&mut x, width)?;
        }
        self.heard(&x)
    }

    /// Keys and values for the decoder.
    fn heard(&self, x: &[f32]) -> Result<Heard> {
        let width = self.sizes.width;
        let frames = x.len() / width;
        let outputs = self.sound.outputs();
        let mut all = vec![0.0; frames * outputs];
        let blocks = x.par_chunks(BLOCK * width).zip(all.par_chunks_mut(BLOCK * outputs));
        blocks.try_for_each_init(Scratch::default, |scratch, (x, to)| {
            self.norm.write(x, &mut scratch.normed);
            self.sound.write(rows(&scratch.normed, width), to)
        })?;
        let heads = self.sizes.heads();
        let pair = |place: usize| {
            let key = place / heads * 2 * width + place % heads * HEAD;
            let value = key + width;
            Pair {
                keys: Half::new(HEAD, frames, None, |number, frame| all[frame * outputs + key + number]),
                values: Half::new(frames, HEAD, None, |frame, number| all[frame * outputs + value + number]),
            }
        };
        Ok(Heard((0..self.sizes.decoder_layers * heads).into_par_iter().map(pair).collect()))
    }
}

impl Layer {
    fn read(tensors: &mut Tensors, layer: usize, width: usize) -> Result<Self> {
        let name = format!("model.encoder.layers.{layer}");
        let own = format!("{name}.self_attn");
        let mut attention = Linear::query(tensors, &own, width)?;
        attention.append(Linear::key_value(tensors, &own, width)?);
        Ok(Self {
            attention_norm: Norm::read(tensors, &format!("{own}_layer_norm"), width)?,
            attention: Dense::new(&attention),
            out: Dense::new(&Linear::read(tensors, &format!("{own}.out_proj"), width, width)?),
            forward_norm: Norm::read(tensors, &format!("{name}.final_layer_norm"), width)?,
            wide: Dense::new(&Linear::read(tensors, &format!("{name}.fc1"), width, 4 * width)?),
            narrow: Dense::new(&Linear::read(tensors, &format!("{name}.fc2"), 4 * width, width)?),
        })
    }

    /// `x` is `[frames, width]`.
    fn run(&self, x: &mut [f32], width: usize) -> Result<()> {
        let mut all = vec![0.0; 3 * x.len()];
        let blocks = x.par_chunks(BLOCK * width).zip(all.par_chunks_mut(BLOCK * 3 * width));
        blocks.try_for_each_init(Scratch::default, |scratch, (x, to)| {
            self.attention_norm.write(x, &mut scratch.normed);
            self.attention.write(rows(&scratch.normed, width), to)
        })?;
        let frames = x.len() / width;
        let packed = |head: usize| -> Result<[PackedBMatrix<f32>; 2]> {
            let gemm: GemmExecutor<f32> = GemmExecutor::new();
            let keys = strided(&all[width + head * HEAD..], [frames, HEAD], 3 * width)?;
            let values = strided(&all[2 * width + head * HEAD..], [frames, HEAD], 3 * width)?;
            Ok([gemm.prepack_b(keys.transposed()), gemm.prepack_b(values)])
        };
        let heads = (0..width / HEAD).into_par_iter().map(packed).collect::<Result<Vec<_>>>()?;
        let blocks = x.par_chunks_mut(BLOCK * width).zip(all.par_chunks(BLOCK * 3 * width));
        blocks.try_for_each_init(Scratch::default, |scratch, (x, queries)| {
            self.attend(queries, &heads, frames, scratch)?;
            self.out.add(rows(&scratch.seen, width), x)?;
            self.forward_norm.write(x, &mut scratch.normed);
            scratch.wide.resize(4 * x.len(), 0.0);
            self.wide.write(rows(&scratch.normed, width), &mut scratch.wide)?;
            Gelu {}.map_mut(&mut scratch.wide);
            self.narrow.add(rows(&scratch.wide, 4 * width), x)
        })
    }

    /// Writes into `seen` what each of some frames sees of all. A row of `queries` has keys and values behind the queries.
    fn attend(
        &self,
        queries: &[f32],
        heads: &[[PackedBMatrix<f32>; 2]],
        frames: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let width = heads.len() * HEAD;
        let count = queries.len() / (3 * width);
        scratch.scores.resize(count * frames, 0.0);
        scratch.head.resize(count * HEAD, 0.0);
        scratch.seen.resize(count * width, 0.0);
        for (head, [keys, values]) in heads.iter().enumerate() {
            let query = strided(&queries[head * HEAD..], [count, HEAD], 3 * width)?;
            product(query, GemmInputB::Packed(keys), &mut scratch.scores, GemmOptions::default())?;
            for row in scratch.scores.chunks_exact_mut(frames) {
                Softmax::new_mut(row).dispatch();
            }
            let weights = rows(&scratch.scores, frames);
            product(weights, GemmInputB::Packed(values), &mut scratch.head, GemmOptions::default())?;
            for (to, from) in scratch.seen.chunks_exact_mut(width).zip(scratch.head.chunks_exact(HEAD)) {
                to[head * HEAD..(head + 1) * HEAD].copy_from_slice(from);
            }
        }
        Ok(())
    }
}

/// A convolution as a linear layer over the numbers of neighbouring frames, one frame behind the other.
fn convolution(tensors: &mut Tensors, name: &str, inputs: usize, outputs: usize) -> Result<Dense> {
    let published = tensors.take(&format!("{name}.weight"), &[outputs, inputs, KERNEL])?;
    let bias = tensors.take(&format!("{name}.bias"), &[outputs])?;
    let of_row =
        |row: &[f32]| (0..KERNEL * inputs).map(|at| row[at % inputs * KERNEL + at / inputs]).collect::<Vec<_>>();
    let weights = published.chunks_exact(KERNEL * inputs).flat_map(of_row).collect();
    Ok(Dense::new(&Linear { inputs: KERNEL * inputs, weights, bias }))
}

/// Rows with one of zeros before and one behind.
fn with_edges(rows: &[f32], width: usize) -> Vec<f32> {
    let edge = std::iter::repeat_n(0.0, width);
    edge.clone().chain(rows.iter().copied()).chain(edge).collect()
}

/// `from` has one frame more on either side than `to` is made of.
fn convolve(layer: &Dense, from: &[f32], width: usize, stride: usize, to: &mut [f32]) -> Result<()> {
    let outputs = layer.outputs();
    to.par_chunks_mut(BLOCK * outputs).enumerate().try_for_each(|(block, to)| {
        let seen =
            strided(&from[block * BLOCK * stride * width..], [to.len() / outputs, KERNEL * width], stride * width)?;
        layer.write(seen, to)?;
        Gelu {}.map_mut(to);
        Ok(())
    })
}

fn rows(data: &[f32], columns: usize) -> NdTensorView<'_, f32, 2> {
    NdTensorView::from_data([data.len() / columns, columns], data)
}

/// Rows that begin `stride` numbers one behind the other.
fn strided(data: &[f32], shape: [usize; 2], stride: usize) -> Result<NdTensorView<'_, f32, 2>> {
    NdTensorView::from_slice_with_strides(shape, data, [stride, 1]).map_err(Error::internal)
}
