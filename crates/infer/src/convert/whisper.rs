//! Whisper (Radford et al., 2022, "Robust Speech Recognition via Large-Scale Weak Supervision"): the weights of CTranslate2
//! to safetensors under the names that the model is published with. Lossless: tensors are renamed, and projections that
//! were joined are split.

use super::ctranslate2::{self, Number, Variable};
use safetensors::{Dtype, View};
use std::borrow::Cow;
use std::collections::BTreeMap;
use strata_model::{Error, Result};

/// Most layers of an encoder or decoder; the largest published model has 32.
const MAX_LAYERS: usize = 128;

/// The content of `model.bin` to that of `model.safetensors`.
pub fn to_safetensors(file: &[u8]) -> Result<Vec<u8>> {
    let mut renaming = Renaming { variables: ctranslate2::read(file)?, tensors: BTreeMap::new() };
    renaming.encoder()?;
    renaming.decoder()?;
    safetensors::serialize(renaming.tensors, None).map_err(Error::internal)
}

struct Tensor<'a>(Dtype, Variable<'a>);

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.0
    }
    fn shape(&self) -> &[usize] {
        &self.1.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.1.bytes.into()
    }
    fn data_len(&self) -> usize {
        self.1.bytes.len()
    }
}

struct Renaming<'a> {
    variables: BTreeMap<String, Variable<'a>>,
    tensors: BTreeMap<String, Tensor<'a>>,
}

impl<'a> Renaming<'a> {
    fn encoder(&mut self) -> Result<()> {
        for name in ["conv1", "conv2"] {
            self.linear(&format!("encoder/{name}"), &format!("model.encoder.{name}"))?;
        }
        self.put("encoder/position_encodings/encodings", "model.encoder.embed_positions.weight")?;
        self.norm("encoder/layer_norm", "model.encoder.layer_norm")?;
        for layer in 0..self.layers("encoder")? {
            let (from, to) = (format!("encoder/layer_{layer}"), format!("model.encoder.layers.{layer}"));
            self.self_attention(&from, &to)?;
            self.feed_forward(&from, &to)?;
        }
        Ok(())
    }

    fn decoder(&mut self) -> Result<()> {
        self.put("decoder/embeddings/weight", "model.decoder.embed_tokens.weight")?;
        self.put("decoder/position_encodings/encodings", "model.decoder.embed_positions.weight")?;
        self.norm("decoder/layer_norm", "model.decoder.layer_norm")?;
        for layer in 0..self.layers("decoder")? {
            let (from, to) = (format!("decoder/layer_{layer}"), format!("model.decoder.layers.{layer}"));
            self.self_attention(&from, &to)?;
            self.cross_attention(&from, &to)?;
            self.feed_forward(&from, &to)?;
        }
        Ok(())
    }

    fn layers(&self, part: &str) -> Result<usize> {
        let is_there =
            |layer: &usize| self.variables.contains_key(&format!("{part}/layer_{layer}/ffn/linear_0/weight"));
        match (0..=MAX_LAYERS).take_while(is_there).count() {
            count @ 1..=MAX_LAYERS => Ok(count),
            count => Err(Error::Malformed(format!("the {part} has {count} layers; is this a Whisper model?"))),
        }
    }

    fn self_attention(&mut self, from: &str, to: &str) -> Result<()> {
        let (joined, attention) = (format!("{from}/self_attention/linear_0"), format!("{to}.self_attn"));
        for (index, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
            self.split(&joined, (index, 3), &format!("{attention}.{name}"), name != "k_proj")?;
        }
        self.linear(&format!("{from}/self_attention/linear_1"), &format!("{attention}.out_proj"))?;
        self.norm(&format!("{from}/self_attention/layer_norm"), &format!("{attention}_layer_norm"))
    }

    fn cross_attention(&mut self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (format!("{from}/attention"), format!("{to}.encoder_attn"));
        self.linear(&format!("{from}/linear_0"), &format!("{to}.q_proj"))?;
        self.split(&format!("{from}/linear_1"), (0, 2), &format!("{to}.k_proj"), false)?;
        self.split(&format!("{from}/linear_1"), (1, 2), &format!("{to}.v_proj"), true)?;
        self.linear(&format!("{from}/linear_2"), &format!("{to}.out_proj"))?;
        self.norm(&format!("{from}/layer_norm"), &format!("{to}_layer_norm"))
    }

    fn feed_forward(&mut self, from: &str, to: &str) -> Result<()> {
        self.linear(&format!("{from}/ffn/linear_0"), &format!("{to}.fc1"))?;
        self.linear(&format!("{from}/ffn/linear_1"), &format!("{to}.fc2"))?;
        self.norm(&format!("{from}/ffn/layer_norm"), &format!("{to}.final_layer_norm"))
    }

    fn linear(&mut self, from: &str, to: &str) -> Result<()> {
        self.put(&format!("{from}/weight"), &format!("{to}.weight"))?;
        self.put(&format!("{from}/bias"), &format!("{to}.bias"))
    }

    fn norm(&mut self, from: &str, to: &str) -> Result<()> {
        self.put(&format!("{from}/gamma"), &format!("{to}.weight"))?;
        self.put(&format!("{from}/beta"), &format!("{to}.bias"))
    }

    /// One part of a joined projection. The keys' projection has no bias, so that its part of the joined one is zero.
    fn split(&mut self, from: &str, (index, parts): (usize, usize), to: &str, has_bias: bool) -> Result<()> {
        let weight = self.get(&format!("{from}/weight"))?.part(index, parts)?;
        self.insert(format!("{to}.weight"), weight)?;
        let bias = self.get(&format!("{from}/bias"))?.part(index, parts)?;
        if has_bias {
            return self.insert(format!("{to}.bias"), bias);
        }
        match bias.bytes.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(Error::Malformed(format!("`{to}` has a bias, which Whisper has not"))),
        }
    }

    fn put(&mut self, from: &str, to: &str) -> Result<()> {
        let variable = self.get(from)?;
        self.insert(to.to_owned(), variable)
    }

    fn get(&self, name: &str) -> Result<Variable<'a>> {
        let found = self.variables.get(name).cloned();
        found.ok_or_else(|| Error::Malformed(format!("`{name}` is missing; is this a Whisper model?")))
    }

    fn insert(&mut self, name: String, variable: Variable<'a>) -> Result<()> {
        let kind = match variable.number {
            Number::F32 => Dtype::F32,
            Number::F16 => Dtype::F16,
            Number::Integer(_) => {
                return Err(Error::Malformed(format!("`{name}` is quantized; take the model in float16 or float32")));
            }
        };
        self.tensors.insert(name, Tensor(kind, variable));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whisper_is_refused() {
        let file = super::super::ctranslate2::tests::file(&[("encoder/conv1/weight", &[1], &[1.0])]);
        assert!(
            matches!(to_safetensors(&file), Err(Error::Malformed(m)) if m.contains("`encoder/conv1/bias` is missing"))
        );
        assert!(to_safetensors(b"").is_err());
    }
}
