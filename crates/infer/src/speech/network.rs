//! Whisper's encoder and decoder as networks for `rten`, built in memory from the published tensors.
//!
//! The decoder keeps the keys and values of earlier tokens, so that a token costs one step and not all steps anew, and
//! gives the attention of the heads that follow the sound, from which words get their times.

use crate::limits::MAX_THREADS;
use crate::onnx::{Attribute, Dimension, Graph};
use candle_core::{DType, Device, Tensor as Candle};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::{Error, Result};

/// Numbers of one attention head, in every published model.
const HEAD: usize = 64;

/// Sizes of a model, all taken from the shapes of its tensors.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub mel_bands: usize,
    /// Numbers of a hidden state.
    pub width: usize,
    /// Frames that the encoder gives for a window of 30 seconds.
    pub frames: usize,
    /// Most tokens of a window, the prompt included.
    pub positions: usize,
    pub vocabulary: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
}

impl Sizes {
    pub fn heads(&self) -> usize {
        self.width / HEAD
    }
    /// Bytes of [`Sound`] for one window.
    pub fn sound_bytes(&self) -> usize {
        self.decoder_layers * 2 * self.frames * self.width * size_of::<f32>()
    }
}

/// A loaded model.
pub struct Network {
    pub sizes: Sizes,
    encoder: Model,
    decoder: Model,
    ports: Ports,
    /// `[vocabulary, width]`.
    tokens: Vec<f32>,
    /// `[positions, width]`.
    places: Vec<f32>,
    options: RunOptions,
}

/// The decoder's inputs and outputs; lists have one for each layer.
struct Ports {
    embedded: NodeId,
    mask: NodeId,
    past: Vec<NodeId>,
    sound: Vec<NodeId>,
    logits: NodeId,
    kept: Vec<NodeId>,
    scores: Vec<NodeId>,
}

/// What the decoder attends to of some windows: for each layer keys `[windows, heads, 64, frames]` and values
/// `[windows, heads, frames, 64]`.
pub struct Sound(Vec<NdTensor<f32, 4>>);

impl Sound {
    /// Several windows in one.
    pub fn of(windows: &[&Sound]) -> Self {
        let layers = windows.first().map_or(0, |first| first.0.len());
        Self((0..layers).map(|layer| stack(windows.iter().map(|window| window.0[layer].view()))).collect())
    }

    /// Only these windows of it, in this order.
    pub fn keep(&self, windows: &[usize]) -> Self {
        let kept = |layer: &NdTensor<f32, 4>| stack(windows.iter().map(|window| layer.slice(*window..window + 1)));
        Self(self.0.iter().map(kept).collect())
    }
}

/// One tensor of several of the same shape but for the first size, one behind the other.
fn stack<'a>(parts: impl Iterator<Item = rten_tensor::NdTensorView<'a, f32, 4>>) -> NdTensor<f32, 4> {
    let (mut data, mut shape) = (Vec::new(), [0; 4]);
    for part in parts {
        let rows = shape[0] + part.size(0);
        shape = part.shape();
        shape[0] = rows;
        data.extend_from_slice(part.to_contiguous().data());
    }
    NdTensor::from_data(shape, data)
}

/// The decoder's memory of the tokens of some rows: for each layer keys and values `[rows, heads, tokens, 64]`.
pub struct Past {
    layers: Vec<NdTensor<f32, 4>>,
    tokens: usize,
}

impl Past {
    /// Only these rows of it, in this order.
    pub fn keep(&mut self, rows: &[usize], sizes: &Sizes) {
        for layer in &mut self.layers {
            let mut kept = empty(rows.len(), sizes);
            let stacked = stack(rows.iter().map(|row| layer.slice(*row..row + 1)));
            kept.append(2, &stacked).expect("the room is for as many tokens as there are positions");
            *layer = kept;
        }
    }
}

fn empty(rows: usize, sizes: &Sizes) -> NdTensor<f32, 4> {
    NdTensor::with_capacity([rows, sizes.heads(), sizes.positions, HEAD], 2)
}

impl Network {
    /// Builds the networks from the content of a `model.safetensors` file with the published names.
    ///
    /// Errors: `Malformed` where a tensor is missing or of a wrong shape; `Internal` where the runtime refuses the network.
    pub fn load(file: &[u8], aligned_layers: &[usize], threads: usize) -> Result<Self> {
        let mut tensors = Tensors::read(file)?;
        let sizes = tensors.sizes()?;
        let load = |bytes: Vec<u8>| {
            let mut options = ModelOptions::with_all_ops();
            options.prepack_weights(true);
            options.load(bytes).map_err(Error::internal)
        };
        let tokens = tensors.remove("model.decoder.embed_tokens.weight", &[sizes.vocabulary, sizes.width])?;
        let places = tensors.take("model.decoder.embed_positions.weight", &[sizes.positions, sizes.width])?;
        let encoder = load(Builder::new(sizes, &mut tensors).encoder()?)?;
        let decoder = load(Builder::new(sizes, &mut tensors).decoder(&tokens, aligned_layers)?)?;
        let ids = |name: &'static str, layers: usize| {
            let id = |layer: usize| decoder.node_id(&format!("{name}_{layer}")).map_err(Error::internal);
            (0..layers).map(id).collect::<Result<Vec<_>>>()
        };
        let only = |name: &str| decoder.node_id(name).map_err(Error::internal);
        let scores = aligned_layers.iter().map(|layer| only(&format!("scores_{layer}"))).collect::<Result<_>>()?;
        let ports = Ports {
            embedded: only("embedded")?,
            mask: only("mask")?,
            past: ids("past", 2 * sizes.decoder_layers)?,
            sound: ids("sound", 2 * sizes.decoder_layers)?,
            logits: only("logits")?,
            kept: ids("kept", 2 * sizes.decoder_layers)?,
            scores,
        };
        let pool = ThreadPool::with_num_threads(threads.clamp(1, MAX_THREADS));
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(pool)));
        let tokens = numbers(&tokens).map_err(Error::internal)?;
        Ok(Self { sizes, encoder, decoder, ports, tokens, places, options })
    }

    /// Encodes one window: its features `[mel_bands, 2 * frames]`.
    pub fn encode(&self, features: Vec<f32>) -> Result<Sound> {
        let shape = [1, self.sizes.mel_bands, 2 * self.sizes.frames];
        let features = NdTensor::from_data(shape, features);
        let id = |i: usize| self.encoder.node_id(&format!("sound_{i}")).map_err(Error::internal);
        let outputs = (0..2 * self.sizes.decoder_layers).map(id).collect::<Result<Vec<_>>>()?;
        let input = self.encoder.node_id("features").map_err(Error::internal)?;
        let made = self.encoder.run(vec![(input, features.into())], &outputs, Some(self.options.clone()));
        made.map_err(Error::internal)?.into_iter().map(tensor).collect::<Result<_>>().map(Sound)
    }

    /// Memory of no token, for `rows` rows.
    pub fn nothing(&self, rows: usize) -> Past {
        let layers = (0..2 * self.sizes.decoder_layers).map(|_| empty(rows, &self.sizes)).collect();
        Past { layers, tokens: 0 }
    }

    /// Reads the next tokens of each row, as many of every row, and answers the logits `[rows, tokens, vocabulary]` of what
    /// follows each.
    pub fn decode(&self, tokens: &[Vec<u32>], past: &mut Past, sound: &Sound) -> Result<NdTensor<f32, 3>> {
        let mut outputs = vec![self.ports.logits];
        outputs.extend(&self.ports.kept);
        let mut made = self.run(tokens, past, sound, &outputs)?.into_iter();
        let logits = made.next().ok_or_else(|| Error::internal("the decoder gave nothing"))?;
        past.layers = made.map(tensor).collect::<Result<_>>()?;
        past.tokens += tokens.first().map_or(0, Vec::len);
        logits.try_into().map_err(Error::internal)
    }

    /// How much each head of each aligned layer attends to each frame while it reads each of `tokens`, before the
    /// normalisation: a list of `[1, heads, tokens, frames]`.
    pub fn attention(&self, tokens: Vec<u32>, sound: &Sound) -> Result<Vec<NdTensor<f32, 4>>> {
        let made = self.run(&[tokens], &mut self.nothing(1), sound, &self.ports.scores)?;
        made.into_iter().map(tensor).collect()
    }

    fn run(&self, tokens: &[Vec<u32>], past: &mut Past, sound: &Sound, outputs: &[NodeId]) -> Result<Vec<Value>> {
        let count = tokens.first().map_or(0, Vec::len);
        if past.tokens + count > self.sizes.positions {
            return Err(Error::internal(format!("a window has more than {} tokens", self.sizes.positions)));
        }
        let embedded = self.embed(tokens, past.tokens)?;
        let total = past.tokens + count;
        let hidden = |i: usize| if i % total > past.tokens + i / total { f32::NEG_INFINITY } else { 0.0 };
        let mask = NdTensor::from_data([count, total], (0..count * total).map(hidden).collect::<Vec<_>>());
        let mut inputs: Vec<(NodeId, ValueOrView)> =
            vec![(self.ports.embedded, embedded.into()), (self.ports.mask, mask.into())];
        // Given away, so that the runtime adds to them in place.
        inputs.extend(self.ports.past.iter().zip(past.layers.drain(..)).map(|(id, layer)| (*id, layer.into())));
        inputs.extend(self.ports.sound.iter().zip(&sound.0).map(|(id, layer)| (*id, layer.view().into())));
        self.decoder.run(inputs, outputs, Some(self.options.clone())).map_err(Error::internal)
    }

    /// The embeddings of tokens at the places from `first` on, `[rows, tokens, width]`.
    fn embed(&self, tokens: &[Vec<u32>], first: usize) -> Result<NdTensor<f32, 3>> {
        let width = self.sizes.width;
        let count = tokens.first().map_or(0, Vec::len);
        let mut data = Vec::with_capacity(tokens.len() * count * width);
        for row in tokens {
            for (token, place) in row.iter().zip(first..) {
                let start = *token as usize * width;
                let token = self.tokens.get(start..start + width);
                let token = token.ok_or_else(|| Error::internal("a token is not of the vocabulary"))?;
                data.extend(token.iter().zip(&self.places[place * width..]).map(|(token, place)| token + place));
            }
        }
        Ok(NdTensor::from_data([tokens.len(), count, width], data))
    }
}

fn tensor(value: Value) -> Result<NdTensor<f32, 4>> {
    value.try_into().map_err(Error::internal)
}

/// The tensors of a file, to be taken by name.
struct Tensors(HashMap<String, Candle>);

impl Tensors {
    fn read(file: &[u8]) -> Result<Self> {
        let wrong = |e| Error::Malformed(format!("the weights cannot be read: {e}"));
        candle_core::safetensors::load_buffer(file, &Device::Cpu).map(Self).map_err(wrong)
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        let tensor = self.0.get(name).ok_or_else(|| missing(name))?;
        Ok(tensor.dims())
    }

    fn sizes(&self) -> Result<Sizes> {
        let two = |name: &str| match self.shape(name)? {
            [first, second, ..] => Ok((*first, *second)),
            shape => Err(Error::Malformed(format!("`{name}` has the shape {shape:?}"))),
        };
        let layers = |part: &str| {
            let has = |layer: &usize| self.0.contains_key(&format!("model.{part}.layers.{layer}.fc1.weight"));
            (0..).take_while(has).count()
        };
        let (vocabulary, width) = two("model.decoder.embed_tokens.weight")?;
        let sizes = Sizes {
            mel_bands: two("model.encoder.conv1.weight")?.1,
            width,
            frames: two("model.encoder.embed_positions.weight")?.0,
            positions: two("model.decoder.embed_positions.weight")?.0,
            vocabulary,
            encoder_layers: layers("encoder"),
            decoder_layers: layers("decoder"),
        };
        if width % HEAD != 0 || width == 0 || sizes.encoder_layers == 0 || sizes.decoder_layers == 0 {
            return Err(Error::Malformed(format!("these are no weights of Whisper: {sizes:?}")));
        }
        Ok(sizes)
    }

    /// A tensor, which must have this shape, in `f32`.
    fn remove(&mut self, name: &str, shape: &[usize]) -> Result<Candle> {
        let tensor = self.0.remove(name).ok_or_else(|| missing(name))?;
        if tensor.dims() != shape {
            return Err(Error::Malformed(format!("`{name}` has the shape {:?}, expected {shape:?}", tensor.dims())));
        }
        tensor.to_dtype(DType::F32).map_err(Error::internal)
    }

    /// The numbers of a tensor, which must have this shape.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        numbers(&self.remove(name, shape)?).map_err(Error::internal)
    }
}

fn numbers(tensor: &Candle) -> candle_core::Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

/// The numbers of a matrix, scaled, its columns becoming the rows.
fn transposed(matrix: &Candle, scale: f32) -> Result<Vec<f32>> {
    let scaled = matrix.affine(scale.into(), 0.0).and_then(|matrix| matrix.t()?.contiguous());
    scaled.and_then(|matrix| numbers(&matrix)).map_err(Error::internal)
}

fn missing(name: &str) -> Error {
    Error::Malformed(format!("`{name}` is missing in the weights"))
}

/// A network under construction. Values are named by texts, see [`Graph`].
struct Builder<'t> {
    sizes: Sizes,
    tensors: &'t mut Tensors,
    graph: Graph,
    /// Names of the shapes `[rows, places, heads, 64]` and `[rows, places, width]`.
    split: String,
    joined: String,
}

impl<'t> Builder<'t> {
    fn new(sizes: Sizes, tensors: &'t mut Tensors) -> Self {
        let mut graph = Graph::default();
        // 0 stands for the size that is there.
        let split = graph.integers(&[0, 0, sizes.heads() as i64, HEAD as i64]);
        let joined = graph.integers(&[0, 0, sizes.width as i64]);
        Self { sizes, tensors, graph, split, joined }
    }

    /// `features` `[n, mel_bands, 2 * frames]` to `sound_0`, `sound_1` …, keys and values for each layer of the decoder.
    fn encoder(mut self) -> Result<Vec<u8>> {
        let Sizes { mel_bands, width, frames, .. } = self.sizes;
        let mut x = self.convolution("features", "model.encoder.conv1", mel_bands, 1)?;
        x = self.convolution(&x, "model.encoder.conv2", width, 2)?;
        x = self.transpose(&x, &[0, 2, 1]);
        let places = self.tensors.take("model.encoder.embed_positions.weight", &[frames, width])?;
        let places = self.graph.weights(&[frames, width], &places);
        x = self.add(&x, &places);
        for layer in 0..self.sizes.encoder_layers {
            let name = format!("model.encoder.layers.{layer}");
            let own = format!("{name}.self_attn");
            let normed = self.norm(&x, &format!("{own}_layer_norm"))?;
            let query = self.query(&normed, &own)?;
            let key = self.heads(&normed, &format!("{own}.k_proj"), false, &[0, 2, 3, 1])?;
            let value = self.heads(&normed, &format!("{own}.v_proj"), true, &[0, 2, 1, 3])?;
            let scores = self.graph.node("MatMul", &[&query, &key], &[]);
            x = self.attend(&x, &scores, &value, &own)?;
            x = self.feed_forward(&x, &name)?;
        }
        x = self.norm(&x, "model.encoder.layer_norm")?;
        let heads = Dimension::Of(self.sizes.heads());
        let (head, frames) = (Dimension::Of(HEAD), Dimension::Of(frames));
        let key_shape = vec![Dimension::Any, heads, head, frames];
        let value_shape = vec![Dimension::Any, heads, frames, head];
        let mut outputs = Vec::new();
        for layer in 0..self.sizes.decoder_layers {
            let cross = format!("model.decoder.layers.{layer}.encoder_attn");
            let key = self.heads(&x, &format!("{cross}.k_proj"), false, &[0, 2, 3, 1])?;
            let value = self.heads(&x, &format!("{cross}.v_proj"), true, &[0, 2, 1, 3])?;
            for (made, shape) in [(key, &key_shape), (value, &value_shape)] {
                let name = format!("sound_{}", outputs.len());
                self.graph.node_called(&name, "Identity", &[&made], &[]);
                outputs.push((name, shape.clone()));
            }
        }
        let input = [Dimension::Any, Dimension::Of(mel_bands), Dimension::Of(2 * self.sizes.frames)];
        Ok(self.graph.finish("whisper_encoder", &[("features", &input)], &ports(&outputs)))
    }

    /// `embedded` `[n, t, width]`, `mask` `[t, p + t]`, `past_0` … `[n, heads, p, 64]` and `sound_0` … to `logits`
    /// `[n, t, vocabulary]`, `kept_0` … `[n, heads, p + t, 64]` and for some layers `scores_0` … `[n, heads, t, frames]`.
    fn decoder(mut self, tokens: &Candle, aligned_layers: &[usize]) -> Result<Vec<u8>> {
        let Sizes { width, frames, vocabulary, decoder_layers, .. } = self.sizes;
        let mut x = "embedded".to_owned();
        for layer in 0..decoder_layers {
            let name = format!("model.decoder.layers.{layer}");
            x = self.attend_to_past(&x, &format!("{name}.self_attn"), layer)?;
            x = self.attend_to_sound(&x, &format!("{name}.encoder_attn"), layer)?;
            x = self.feed_forward(&x, &name)?;
        }
        x = self.norm(&x, "model.decoder.layer_norm")?;
        // What a token is embedded by is what it is told by, too.
        let told = self.graph.weights(&[width, vocabulary], &transposed(tokens, 1.0)?);
        self.graph.node_called("logits", "MatMul", &[&x, &told], &[]);

        let (any, heads, head) = (Dimension::Any, Dimension::Of(self.sizes.heads()), Dimension::Of(HEAD));
        let kept = [any, heads, any, head];
        let key = [any, heads, head, Dimension::Of(frames)];
        let value = [any, heads, Dimension::Of(frames), head];
        let scores = [any, heads, any, Dimension::Of(frames)];
        let mut inputs: Vec<(String, Vec<Dimension>)> =
            vec![("embedded".to_owned(), vec![any, any, Dimension::Of(width)]), ("mask".to_owned(), vec![any, any])];
        let mut outputs = vec![("logits".to_owned(), vec![any, any, Dimension::Of(vocabulary)])];
        for i in 0..2 * decoder_layers {
            inputs.push((format!("past_{i}"), kept.to_vec()));
            inputs.push((format!("sound_{i}"), if i % 2 == 0 { key.to_vec() } else { value.to_vec() }));
            outputs.push((format!("kept_{i}"), kept.to_vec()));
        }
        outputs.extend(aligned_layers.iter().map(|layer| (format!("scores_{layer}"), scores.to_vec())));
        Ok(self.graph.finish("whisper_decoder", &ports(&inputs), &ports(&outputs)))
    }

    fn attend_to_past(&mut self, input: &str, own: &str, layer: usize) -> Result<String> {
        let normed = self.norm(input, &format!("{own}_layer_norm"))?;
        let query = self.query(&normed, own)?;
        let mut kept = Vec::new();
        for (part, has_bias) in [("k_proj", false), ("v_proj", true)] {
            let new = self.heads(&normed, &format!("{own}.{part}"), has_bias, &[0, 2, 1, 3])?;
            let (past, name) = (format!("past_{}", 2 * layer + kept.len()), format!("kept_{}", 2 * layer + kept.len()));
            self.graph.node_called(&name, "Concat", &[&past, &new], &[("axis", Attribute::Int(2))]);
            kept.push(name);
        }
        let key = self.transpose(&kept[0], &[0, 1, 3, 2]);
        let scores = self.graph.node("MatMul", &[&query, &key], &[]);
        let scores = self.add(&scores, "mask");
        self.attend(input, &scores, &kept[1], own)
    }

    fn attend_to_sound(&mut self, input: &str, cross: &str, layer: usize) -> Result<String> {
        let normed = self.norm(input, &format!("{cross}_layer_norm"))?;
        let query = self.query(&normed, cross)?;
        let scores = format!("scores_{layer}");
        self.graph.node_called(&scores, "MatMul", &[&query, &format!("sound_{}", 2 * layer)], &[]);
        self.attend(input, &scores, &format!("sound_{}", 2 * layer + 1), cross)
    }

    /// Adds to `input` the values weighted by the scores.
    fn attend(&mut self, input: &str, scores: &str, value: &str, name: &str) -> Result<String> {
        let weights = self.graph.node("Softmax", &[scores], &[("axis", Attribute::Int(-1))]);
        let seen = self.graph.node("MatMul", &[&weights, value], &[]);
        let seen = self.transpose(&seen, &[0, 2, 1, 3]);
        let joined = self.joined.clone();
        let seen = self.graph.node("Reshape", &[&seen, &joined], &[]);
        let width = self.sizes.width;
        let told = self.linear(&seen, &format!("{name}.out_proj"), (width, width), 1.0, true)?;
        Ok(self.add(input, &told))
    }

    /// `[n, heads, t, 64]`. The scale of the scores, the root of 64, is in the weights.
    fn query(&mut self, input: &str, name: &str) -> Result<String> {
        let width = self.sizes.width;
        let all = self.linear(input, &format!("{name}.q_proj"), (width, width), 1.0 / (HEAD as f32).sqrt(), true)?;
        Ok(self.separate(&all, &[0, 2, 1, 3]))
    }

    fn heads(&mut self, input: &str, name: &str, has_bias: bool, order: &[i64]) -> Result<String> {
        let width = self.sizes.width;
        let all = self.linear(input, name, (width, width), 1.0, has_bias)?;
        Ok(self.separate(&all, order))
    }

    fn separate(&mut self, input: &str, order: &[i64]) -> String {
        let split = self.split.clone();
        let heads = self.graph.node("Reshape", &[input, &split], &[]);
        self.transpose(&heads, order)
    }

    fn feed_forward(&mut self, input: &str, name: &str) -> Result<String> {
        let width = self.sizes.width;
        let normed = self.norm(input, &format!("{name}.final_layer_norm"))?;
        let wide = self.linear(&normed, &format!("{name}.fc1"), (width, 4 * width), 1.0, true)?;
        let wide = self.graph.node("Gelu", &[&wide], &[]);
        let narrow = self.linear(&wide, &format!("{name}.fc2"), (4 * width, width), 1.0, true)?;
        Ok(self.add(input, &narrow))
    }

    fn linear(
        &mut self,
        input: &str,
        name: &str,
        (from, to): (usize, usize),
        scale: f32,
        has_bias: bool,
    ) -> Result<String> {
        let weights = self.tensors.remove(&format!("{name}.weight"), &[to, from])?;
        let weights = self.graph.weights(&[from, to], &transposed(&weights, scale)?);
        let product = self.graph.node("MatMul", &[input, &weights], &[]);
        if !has_bias {
            return Ok(product);
        }
        let mut bias = self.tensors.take(&format!("{name}.bias"), &[to])?;
        bias.iter_mut().for_each(|number| *number *= scale);
        let bias = self.graph.weights(&[to], &bias);
        Ok(self.add(&product, &bias))
    }

    fn convolution(&mut self, input: &str, name: &str, inputs: usize, stride: i64) -> Result<String> {
        let width = self.sizes.width;
        let shape = [width, inputs, 3];
        let weights = self.tensors.take(&format!("{name}.weight"), &shape)?;
        let bias = self.tensors.take(&format!("{name}.bias"), &[width])?;
        let (weights, bias) = (self.graph.weights(&shape, &weights), self.graph.weights(&[width], &bias));
        let attributes = [
            ("kernel_shape", Attribute::Ints(&[3])),
            ("strides", Attribute::Ints(&[stride])),
            ("pads", Attribute::Ints(&[1, 1])),
        ];
        let made = self.graph.node("Conv", &[input, &weights, &bias], &attributes);
        Ok(self.graph.node("Gelu", &[&made], &[]))
    }

    fn norm(&mut self, input: &str, name: &str) -> Result<String> {
        let width = self.sizes.width;
        let gain = self.tensors.take(&format!("{name}.weight"), &[width])?;
        let bias = self.tensors.take(&format!("{name}.bias"), &[width])?;
        let (gain, bias) = (self.graph.weights(&[width], &gain), self.graph.weights(&[width], &bias));
        Ok(self.graph.node("LayerNormalization", &[input, &gain, &bias], &[("axis", Attribute::Int(-1))]))
    }

    fn transpose(&mut self, input: &str, order: &[i64]) -> String {
        self.graph.node("Transpose", &[input], &[("perm", Attribute::Ints(order))])
    }

    fn add(&mut self, a: &str, b: &str) -> String {
        self.graph.node("Add", &[a, b], &[])
    }
}

fn ports(list: &[(String, Vec<Dimension>)]) -> Vec<(&str, &[Dimension])> {
    list.iter().map(|(name, shape)| (&**name, &**shape)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn weights_of_something_else_are_refused() {
        assert!(matches!(Network::load(b"", &[], 1), Err(Error::Malformed(_))));
        let one = Candle::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let file = safetensors::serialize([("a", &one)], None).unwrap();
        match Network::load(&file, &[], 1) {
            Err(Error::Malformed(message)) => {
                assert!(message.contains("`model.decoder.embed_tokens.weight`"), "{message}")
            }
            _ => panic!("it was taken"),
        }
    }

    #[test]
    fn a_transposed_matrix_has_its_columns_as_rows() {
        let matrix = Candle::new(&[[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::Cpu).unwrap();
        assert_eq!(transposed(&matrix, 2.0).unwrap(), [2.0, 8.0, 4.0, 10.0, 6.0, 12.0]);
    }
}
