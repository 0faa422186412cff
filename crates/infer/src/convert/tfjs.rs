//! Weights of TensorFlow.js: a manifest in JSON that names tensors with shape and type, and the bytes of them all one after
//! the other. The manifest stands alone or in a model's file under `weightsManifest`; the graph is not read.

use super::torch::Tensor;
use super::write_safetensors;
use serde::Deserialize;
use std::collections::BTreeMap;
use strata_model::{Error, Result};

#[derive(Deserialize)]
struct Group {
    weights: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    weights_manifest: Vec<Group>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    quantization: Option<Quantization>,
}

/// A number is what stands there times `scale`, plus `min`.
#[derive(Deserialize)]
struct Quantization {
    dtype: String,
    scale: f64,
    min: f64,
}

/// The tensors of `float32`, under their names. `members` are the manifest and the bytes.
pub fn to_safetensors(members: &[Vec<u8>]) -> Result<Vec<u8>> {
    let [manifest, bytes] = members else { return Err(bad("it needs a manifest and one file of bytes")) };
    let groups = match serde_json::from_slice::<Vec<Group>>(manifest) {
        Ok(groups) => groups,
        Err(_) => serde_json::from_slice::<Model>(manifest).map_err(bad)?.weights_manifest,
    };
    let mut rest = bytes.as_slice();
    let mut tensors = BTreeMap::new();
    for entry in groups.into_iter().flat_map(|group| group.weights) {
        let count = entry.shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let kind = entry.quantization.as_ref().map_or(entry.dtype.as_str(), |how| how.dtype.as_str());
        let width = match kind {
            "uint8" | "bool" => 1,
            "uint16" => 2,
            "float32" | "int32" => 4,
            other => return Err(bad(format!("`{}` is of the type `{other}`", entry.name))),
        };
        let length = count.and_then(|count| count.checked_mul(width));
        let taken = length.and_then(|length| rest.split_off(..length));
        let taken = taken.ok_or_else(|| bad(format!("the bytes end before `{}`", entry.name)))?;
        if entry.dtype != "float32" {
            continue;
        }
        let data = match (&entry.quantization, width) {
            (None, _) => taken.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect(),
            (Some(how), 1) => taken.iter().map(|number| how.restore(f64::from(*number))).collect(),
            (Some(how), 2) => {
                let numbers = taken.as_chunks::<2>().0.iter();
                numbers.map(|number| how.restore(f64::from(u16::from_le_bytes(*number)))).collect()
            }
            (Some(_), _) => return Err(bad(format!("`{}` is quantized to four bytes", entry.name))),
        };
        tensors.insert(entry.name, Tensor { shape: entry.shape, data });
    }
    match rest {
        [] => write_safetensors(&tensors),
        rest => Err(bad(format!("{} bytes are of no tensor", rest.len()))),
    }
}

impl Quantization {
    fn restore(&self, number: f64) -> f32 {
        (number * self.scale + self.min) as f32
    }
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::Malformed(format!("these are no weights of TensorFlow.js that can be read: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::weights::Weights;

    const MANIFEST: &str = r#"[{"paths": ["w.bin"], "weights": [
        {"name": "a", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1}},
        {"name": "shape", "shape": [1], "dtype": "int32"},
        {"name": "b", "shape": [1, 1], "dtype": "float32"}]}]"#;

    fn bytes() -> Vec<u8> {
        [&[0, 4][..], &7_i32.to_le_bytes(), &1.5_f32.to_le_bytes()].concat()
    }

    #[test]
    fn quantized_weights_are_restored_and_others_are_taken_as_they_are() {
        for manifest in [MANIFEST.to_owned(), format!(r#"{{"format": "graph-model", "weightsManifest": {MANIFEST}}}"#)]
        {
            let file = to_safetensors(&[manifest.into_bytes(), bytes()]).unwrap();
            let weights = Weights::read(&file).unwrap();
            assert_eq!(weights.get("a", &[2]).unwrap(), [-1.0, 1.0]);
            assert_eq!(weights.get("b", &[1, 1]).unwrap(), [1.5]);
            assert!(weights.get("shape", &[1]).is_err());
        }
    }

    #[test]
    fn bytes_that_are_missing_or_left_over_are_errors() {
        for bytes in [bytes()[..9].to_vec(), [bytes(), vec![0]].concat()] {
            assert!(to_safetensors(&[MANIFEST.into(), bytes]).is_err());
        }
        let huge = MANIFEST.replace("[2]", "[4294967296, 4294967296, 4294967296]");
        assert!(to_safetensors(&[huge.into_bytes(), bytes()]).is_err());
        assert!(to_safetensors(&[b"{}".to_vec(), bytes()]).is_err());
        assert!(to_safetensors(&[]).is_err());
    }
}
