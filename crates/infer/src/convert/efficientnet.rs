//! The published checkpoint of EfficientNet-lite0 to safetensors: batch norms are folded into the convolutions before
//! them, kernels are turned from `[outputs, inputs, height, width]` into `[height, width, inputs, outputs]`.

use super::torch::{self, Tensor};
use super::write_safetensors;
use std::collections::BTreeMap;
use strata_model::{Error, Result};

/// What the batch norms add to a variance.
const EPSILON: f32 = 1e-3;

/// Tensors `stem`, `blocks.N.expand`, `blocks.N.depthwise`, `blocks.N.project`, `head` and `classifier`, each with
/// `.weight` and `.bias`.
pub fn to_safetensors(checkpoint: &[u8]) -> Result<Vec<u8>> {
    let tensors = torch::read(checkpoint)?;
    let mut made = BTreeMap::new();
    let mut fold = |to: &str, kernel: &str, norm: &str| fold(&tensors, &mut made, to, kernel, norm);
    fold("stem", "_conv_stem", "_bn0")?;
    for number in 0.. {
        let (from, to) = (format!("_blocks.{number}"), format!("blocks.{number}"));
        if !tensors.contains_key(&format!("{from}._depthwise_conv.weight")) {
            break;
        }
        if tensors.contains_key(&format!("{from}._expand_conv.weight")) {
            fold(&format!("{to}.expand"), &format!("{from}._expand_conv"), &format!("{from}._bn0"))?;
        }
        fold(&format!("{to}.depthwise"), &format!("{from}._depthwise_conv"), &format!("{from}._bn1"))?;
        fold(&format!("{to}.project"), &format!("{from}._project_conv"), &format!("{from}._bn2"))?;
    }
    fold("head", "_conv_head", "_bn1")?;
    let classifier = get(&tensors, "_fc.weight")?;
    made.insert("classifier.weight".to_owned(), turned(classifier, "_fc.weight", None)?);
    made.insert("classifier.bias".to_owned(), get(&tensors, "_fc.bias")?.clone());
    write_safetensors(&made)
}

/// Puts a convolution and the batch norm after it into `made` as one convolution.
fn fold(
    tensors: &BTreeMap<String, Tensor>,
    made: &mut BTreeMap<String, Tensor>,
    to: &str,
    kernel: &str,
    norm: &str,
) -> Result<()> {
    let kernel = format!("{kernel}.weight");
    let weights = get(tensors, &kernel)?;
    let channels = weights.shape.first().copied().unwrap_or_default();
    let of_norm = |part: &str| {
        let name = format!("{norm}.{part}");
        let tensor = get(tensors, &name)?;
        if tensor.shape == [channels] { Ok(&tensor.data) } else { Err(wrong_shape(&name, tensor)) }
    };
    let (gain, offset) = (of_norm("weight")?, of_norm("bias")?);
    let (mean, variance) = (of_norm("running_mean")?, of_norm("running_var")?);
    let scale: Vec<f32> = (0..channels).map(|c| gain[c] / (variance[c] + EPSILON).sqrt()).collect();
    let bias = (0..channels).map(|c| offset[c] - mean[c] * scale[c]).collect();
    made.insert(format!("{to}.weight"), turned(weights, &kernel, Some(&scale))?);
    made.insert(format!("{to}.bias"), Tensor { shape: vec![channels], data: bias });
    Ok(())
}

/// `[outputs, inputs]` or `[outputs, inputs, height, width]` with the outputs last and the inputs before them, each output
/// multiplied by its scale.
fn turned(tensor: &Tensor, name: &str, scale: Option<&[f32]>) -> Result<Tensor> {
    let (outputs, inputs, area, shape) = match *tensor.shape.as_slice() {
        [outputs, inputs] => (outputs, inputs, 1, vec![inputs, outputs]),
        [outputs, inputs, height, width] => (outputs, inputs, height * width, vec![height, width, inputs, outputs]),
        _ => return Err(wrong_shape(name, tensor)),
    };
    let mut data = vec![0.0; tensor.data.len()];
    for (place, weight) in tensor.data.iter().enumerate() {
        let (output, input, at) = (place / (inputs * area), place / area % inputs, place % area);
        data[(at * inputs + input) * outputs + output] = weight * scale.map_or(1.0, |scale| scale[output]);
    }
    Ok(Tensor { shape, data })
}

fn get<'t>(tensors: &'t BTreeMap<String, Tensor>, name: &str) -> Result<&'t Tensor> {
    tensors.get(name).ok_or_else(|| Error::Malformed(format!("`{name}` is missing")))
}

fn wrong_shape(name: &str, tensor: &Tensor) -> Error {
    Error::Malformed(format!("`{name}` has the shape {:?}", tensor.shape))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kernel_is_turned_and_scaled_by_output() {
        let kernel = Tensor { shape: vec![2, 1, 1, 2], data: vec![1.0, 2.0, 3.0, 4.0] };
        let turned = turned(&kernel, "kernel", Some(&[1.0, 10.0])).unwrap();
        assert_eq!(turned, Tensor { shape: vec![1, 2, 1, 2], data: vec![1.0, 30.0, 2.0, 40.0] });
    }
}
