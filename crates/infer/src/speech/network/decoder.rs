//! The decoder: from the tokens so far and what was heard to how likely each token is to follow.

use super::half::Half;
use super::layers::{Linear, Norm};
use super::tensors::{HEAD, Sizes, Tensors};
use super::{Heard, Past, Sound};
use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp, SimdUnaryOp, f16};
use rten_vecmath::{Gelu, Softmax};
use strata_model::{Error, Result};

pub struct Decoder {
    sizes: Sizes,
    /// `[vocabulary, width]`
    tokens: Vec<f16>,
    /// `[positions, width]`
    places: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    /// What a token is embedded by is what it is told by, too.
    told: Half,
}

struct Layer {
    own_norm: Norm,
    /// To queries, keys and values.
    own: Half,
    own_out: Half,
    cross_norm: Norm,
    query: Half,
    cross_out: Half,
    forward_norm: Norm,
    wide: Half,
    narrow: Half,
}

/// Keys and values of a row's tokens in one layer, each `[tokens, width]`.
#[derive(Default)]
pub struct Kept {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// How much each head of a layer attends to each frame of a row's window, before the normalisation.
#[derive(Default)]
pub struct Scores(pub Vec<Vec<f32>>);

/// Room for what is made of some tokens.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    made: Vec<f32>,
    seen: Vec<f32>,
}

impl Decoder {
    pub fn read(tensors: &mut Tensors, sizes: Sizes) -> Result<Self> {
        let Sizes { width, vocabulary, positions, .. } = sizes;
        let tokens = tensors.take("model.decoder.embed_tokens.weight", &[vocabulary, width])?;
        Ok(Self {
            sizes,
            places: tensors.take("model.decoder.embed_positions.weight", &[positions, width])?,
            layers: (0..sizes.decoder_layers).map(|layer| Layer::read(tensors, layer, width)).collect::<Result<_>>()?,
            norm: Norm::read(tensors, "model.decoder.layer_norm", width)?,
            told: Half::new(width, vocabulary, None, |number, token| tokens[token * width + number]),
            tokens: tokens.into_iter().map(f16::from_f32).collect(),
        })
    }

    /// The logits `[rows, tokens, vocabulary]` of what follows each token.
    pub fn logits(&self, tokens: &[Vec<u32>], past: &mut Past, sound: &Sound) -> Result<Vec<f32>> {
        let x = self.states(tokens, past, sound, |_, _| ())?;
        let mut normed = Vec::new();
        self.norm.write(&x, &mut normed);
        let mut logits = vec![0.0; x.len() / self.sizes.width * self.sizes.vocabulary];
        self.told.multiply(&normed, &mut logits);
        Ok(logits)
    }

    /// The scores `[tokens, frames]` of each head of the layers that are asked for, while one row's tokens are read.
    pub fn scores(&self, tokens: Vec<u32>, sound: &Sound, layers: &[usize]) -> Result<Vec<Scores>> {
        let mut scores: Vec<Scores> = layers.iter().map(|_| Scores::default()).collect();
        let mut past = Past::nothing(1, &self.sizes);
        self.states(&[tokens], &mut past, sound, |layer, of_head| {
            if let Some(place) = layers.iter().position(|asked| *asked == layer) {
                scores[place].0.push(of_head.to_vec());
            }
        })?;
        Ok(scores)
    }

    /// The hidden states `[rows, tokens, width]`. `seen` is told the scores of each layer's heads, in their order, of row
    /// after row.
    fn states(
        &self,
        tokens: &[Vec<u32>],
        past: &mut Past,
        sound: &Sound,
        mut seen: impl FnMut(usize, &[f32]),
    ) -> Result<Vec<f32>> {
        let count = tokens.first().map_or(0, Vec::len);
        if past.tokens + count > self.sizes.positions {
            return Err(Error::internal(format!("a window has more than {} tokens", self.sizes.positions)));
        }
        if tokens.len() != past.rows.len() || tokens.len() != sound.0.len() {
            return Err(Error::internal("the decoder got rows that do not belong together"));
        }
        let mut x = self.embed(tokens, past.tokens)?;
        let mut scratch = Scratch::default();
        for (number, layer) in self.layers.iter().enumerate() {
            layer.attend_to_past(&mut x, past, number, &mut scratch);
            let heard: Vec<&Heard> = sound.0.iter().map(|heard| &**heard).collect();
            for scores in layer.attend_to_sound(&mut x, &heard, number, &mut scratch) {
                seen(number, &scores);
            }
            layer.feed_forward(&mut x, &mut scratch);
        }
        past.tokens += count;
        Ok(x)
    }

    /// The embeddings of tokens at the places from `first` on.
    fn embed(&self, tokens: &[Vec<u32>], first: usize) -> Result<Vec<f32>> {
        let width = self.sizes.width;
        let mut data = Vec::with_capacity(tokens.len() * tokens.first().map_or(0, Vec::len) * width);
        for row in tokens {
            for (token, place) in row.iter().zip(self.places[first * width..].chunks_exact(width)) {
                let start = *token as usize * width;
                let token = self.tokens.get(start..start + width);
                let token = token.ok_or_else(|| Error::internal("a token is not of the vocabulary"))?;
                data.extend(token.iter().zip(place).map(|(token, place)| token.to_f32() + place));
            }
        }
        Ok(data)
    }
}

impl Layer {
    fn read(tensors: &mut Tensors, layer: usize, width: usize) -> Result<Self> {
        let name = format!("model.decoder.layers.{layer}");
        let (own, cross) = (format!("{name}.self_attn"), format!("{name}.encoder_attn"));
        let mut all = Linear::query(tensors, &own, width)?;
        all.append(Linear::key_value(tensors, &own, width)?);
        Ok(Self {
            own_norm: Norm::read(tensors, &format!("{own}_layer_norm"), width)?,
            own: half(all),
            own_out: half(Linear::read(tensors, &format!("{own}.out_proj"), width, width)?),
            cross_norm: Norm::read(tensors, &format!("{cross}_layer_norm"), width)?,
            query: half(Linear::query(tensors, &cross, width)?),
            cross_out: half(Linear::read(tensors, &format!("{cross}.out_proj"), width, width)?),
            forward_norm: Norm::read(tensors, &format!("{name}.final_layer_norm"), width)?,
            wide: half(Linear::read(tensors, &format!("{name}.fc1"), width, 4 * width)?),
            narrow: half(Linear::read(tensors, &format!("{name}.fc2"), 4 * width, width)?),
        })
    }

    fn attend_to_past(&self, x: &mut [f32], past: &mut Past, layer: usize, scratch: &mut Scratch) {
        let width = self.own_out.columns();
        let Scratch { normed, made, seen } = scratch;
        self.own_norm.write(x, normed);
        multiply(&self.own, normed, made);
        seen.clear();
        seen.resize(x.len(), 0.0);
        let (count, before) = (x.len() / width / past.rows.len().max(1), past.tokens);
        let mut weights = Vec::new();
        let rows = made.chunks_exact(count * 3 * width).zip(seen.chunks_exact_mut(count * width));
        for (kept, (made, seen)) in past.rows.iter_mut().zip(rows) {
            let Kept { keys, values } = &mut kept[layer];
            for token in made.chunks_exact(3 * width) {
                keys.extend_from_slice(&token[width..2 * width]);
                values.extend_from_slice(&token[2 * width..]);
            }
            for (place, (token, seen)) in made.chunks_exact(3 * width).zip(seen.chunks_exact_mut(width)).enumerate() {
                let end = (before + place + 1) * width;
                for (head, (query, to)) in token.chunks_exact(HEAD).zip(seen.chunks_exact_mut(HEAD)).enumerate() {
                    let (keys, values) = (&keys[head * HEAD..end], &values[head * HEAD..end]);
                    Attend { query, keys, values, width, weights: &mut weights, to }.dispatch();
                }
            }
        }
        multiply(&self.own_out, seen, made);
        add(x, made);
    }

    /// Answers the scores of each row and head.
    fn attend_to_sound(&self, x: &mut [f32], sound: &[&Heard], layer: usize, scratch: &mut Scratch) -> Vec<Vec<f32>> {
        let width = self.cross_out.columns();
        let heads = width / HEAD;
        let Scratch { normed, made, seen } = scratch;
        self.cross_norm.write(x, normed);
        multiply(&self.query, normed, made);
        let count = x.len() / width / sound.len().max(1);
        let made_by_head = |place: usize| {
            let (row, head) = (place / heads, place % heads);
            let pair = &sound[row].0[layer * heads + head];
            let queries = made[row * count * width..].chunks_exact(width).take(count);
            let query: Vec<f32> = queries.flat_map(|all| &all[head * HEAD..(head + 1) * HEAD]).copied().collect();
            let frames = pair.keys.columns();
            let mut scores = vec![0.0; count * frames];
            pair.keys.multiply(&query, &mut scores);
            let mut weights = scores.clone();
            weights.chunks_exact_mut(frames).for_each(|row| {
                Softmax::new_mut(row).dispatch();
            });
            let mut seen = query;
            pair.values.multiply(&weights, &mut seen);
            (scores, seen)
        };
        let by_head: Vec<(Vec<f32>, Vec<f32>)> = (0..sound.len() * heads).into_par_iter().map(made_by_head).collect();
        seen.clear();
        seen.resize(x.len(), 0.0);
        for (place, (_, of_head)) in by_head.iter().enumerate() {
            let (row, head) = (place / heads, place % heads);
            let tokens = seen[row * count * width..].chunks_exact_mut(width);
            for (to, from) in tokens.zip(of_head.chunks_exact(HEAD)) {
                to[head * HEAD..(head + 1) * HEAD].copy_from_slice(from);
            }
        }
        multiply(&self.cross_out, seen, made);
        add(x, made);
        by_head.into_iter().map(|(scores, _)| scores).collect()
    }

    fn feed_forward(&self, x: &mut [f32], scratch: &mut Scratch) {
        let Scratch { normed, made, seen } = scratch;
        self.forward_norm.write(x, normed);
        multiply(&self.wide, normed, made);
        Gelu {}.map_mut(made);
        multiply(&self.narrow, made, seen);
        add(x, seen);
    }
}

fn half(layer: Linear) -> Half {
    let Linear { inputs, weights, bias } = layer;
    Half::new(inputs, bias.len(), Some(bias), |input, output| weights[output * inputs + input])
}

fn multiply(layer: &Half, rows: &[f32], to: &mut Vec<f32>) {
    to.resize(rows.len() / layer.depth() * layer.columns(), 0.0);
    layer.multiply(rows, to);
}

fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// What one head sees of the tokens so far: `query` is `[64]`, `keys` and `values` are the rows of all tokens, `width` numbers
/// one behind the other, from the head's first number on.
struct Attend<'a> {
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
    width: usize,
    weights: &'a mut Vec<f32>,
    to: &'a mut [f32],
}

impl SimdOp for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let Self { query, keys, values, width, weights, to } = self;
        weights.clear();
        for key in keys.chunks(width) {
            let mut sum = ops.zero();
            for (query, key) in query.chunks_exact(ops.len()).zip(key[..HEAD].chunks_exact(ops.len())) {
                sum = ops.mul_add(ops.load(query), ops.load(key), sum);
            }
            weights.push(ops.sum(sum));
        }
        Softmax::new_mut(weights).eval(isa);
        to.fill(0.0);
        for (weight, value) in weights.iter().zip(values.chunks(width)) {
            let weight = ops.splat(*weight);
            for (to, value) in to.chunks_exact_mut(ops.len()).zip(value[..HEAD].chunks_exact(ops.len())) {
                ops.store(ops.mul_add(weight, ops.load(value), ops.load(to)), to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_sees_the_values_of_the_tokens_by_its_scores() {
        let width = 2 * HEAD;
        let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 100.0;
        let (keys, values): (Vec<f32>, Vec<f32>) = (0..3 * width).map(|i| (number(i), number(7 * i + 3))).unzip();
        let query: Vec<f32> = (0..HEAD).map(|i| number(5 * i)).collect();
        let mut to = vec![9.0; HEAD];
        let (mut weights, keys, values) = (Vec::new(), &keys[HEAD..], &values[HEAD..]);
        Attend { query: &query, keys, values, width, weights: &mut weights, to: &mut to }.dispatch();
        let score = |token: usize| (0..HEAD).map(|i| query[i] * keys[token * width + i]).sum::<f32>().exp();
        let all: f32 = (0..3).map(score).sum();
        for (i, found) in to.iter().enumerate() {
            let sum: f32 = (0..3).map(|token| score(token) / all * values[token * width + i]).sum();
            assert!((found - sum).abs() < 1e-5, "{found} {sum}");
        }
    }
}
