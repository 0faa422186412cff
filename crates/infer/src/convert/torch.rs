//! Reading checkpoints of PyTorch in the format before 1.6: three short pickles (magic, protocol, machine), the pickled
//! dictionary of tensors, the pickled list of storages, then the bytes of each storage behind their number.
//!
//! The pickles are read as data by candle's reader, which calls nothing; what is not a tensor is passed over.

use candle_core::DType;
use candle_core::pickle::{Object, Stack};
use std::collections::BTreeMap;
use std::path::Path;
use strata_model::{Error, Result};

/// `torch.serialization`'s magic number, pickled, and behind it the protocol version 1001, pickled.
const START: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.";

/// A dense tensor, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f32>,
}

/// The `f32` tensors of a checkpoint by their names; tensors of other types are left out.
///
/// Errors: `Malformed` where it is no such checkpoint, a storage is short or too long, or a tensor reaches
/// beyond its storage.
pub fn read(bytes: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let mut rest = bytes.strip_prefix(START).ok_or_else(|| bad("it does not begin like one"))?;
    unpickle(&mut rest)?;
    let Object::Dict(dictionary) = unpickle(&mut rest)? else { return Err(bad("its content is no dictionary")) };
    let Object::List(keys) = unpickle(&mut rest)? else { return Err(bad("it has no list of storages")) };

    let mut wanted = Vec::new();
    let mut sizes = BTreeMap::new();
    for (name, value) in dictionary {
        let Some(tensor) = value.into_tensor_info(name, Path::new("")).map_err(bad)? else { continue };
        let bytes =
            tensor.storage_size.checked_mul(tensor.dtype.size_in_bytes()).ok_or_else(|| bad("a storage is huge"))?;
        sizes.insert(tensor.path.clone(), (tensor.storage_size, bytes));
        if tensor.dtype == DType::F32 {
            wanted.push(tensor);
        }
    }
    let mut storages = BTreeMap::new();
    for key in keys {
        let key = key.unicode().map_err(|_| bad("a storage has no name"))?;
        // The reader puts the name of a folder, here an empty one, before the key.
        let key = format!("/{key}");
        let &(numbers, bytes) = sizes.get(&key).ok_or_else(|| bad("a storage is of no tensor"))?;
        let said = rest.split_off(..8).ok_or_else(|| bad("it ends early"))?;
        if said != (numbers as u64).to_le_bytes() {
            return Err(bad("a storage has another size than its tensor says"));
        }
        storages.insert(key, rest.split_off(..bytes).ok_or_else(|| bad("it ends early"))?);
    }
    let mut tensors = BTreeMap::new();
    for tensor in wanted {
        let storage = storages.get(&tensor.path).ok_or_else(|| bad(format!("`{}` has no storage", tensor.name)))?;
        let (numbers, _) = storage.as_chunks::<4>();
        let shape = tensor.layout.dims().to_vec();
        let count = tensor.layout.shape().elem_count();
        if count > numbers.len() {
            return Err(bad(format!("`{}` is longer than its storage", tensor.name)));
        }
        let mut data = Vec::with_capacity(count);
        for position in 0..count {
            // The reader counts the start in bytes and the strides in numbers.
            let index = tensor.layout.start_offset() / 4 + offset(position, &shape, tensor.layout.stride());
            let number = numbers.get(index).ok_or_else(|| bad(format!("`{}` ends after its storage", tensor.name)))?;
            data.push(f32::from_le_bytes(*number));
        }
        tensors.insert(tensor.name, Tensor { shape, data });
    }
    Ok(tensors)
}

/// How far the number at a position, counted row by row, is from the first.
fn offset(mut position: usize, shape: &[usize], stride: &[usize]) -> usize {
    let mut offset = 0;
    for (size, stride) in shape.iter().zip(stride).rev() {
        offset += position % size * stride;
        position /= size;
    }
    offset
}

/// Reads one pickle off the start of `rest`.
fn unpickle(rest: &mut &[u8]) -> Result<Object> {
    let mut stack = Stack::empty();
    stack.read_loop(rest).map_err(bad)?;
    stack.finalize().map_err(bad)
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::Malformed(format!("this is not a checkpoint that can be read: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A checkpoint of one tensor, `w`: the storage 1, 2, 3, 4 seen as the transpose of its two rows.
    fn checkpoint() -> Vec<u8> {
        let mut bytes = START.to_vec();
        bytes.extend(b"\x80\x02}.");
        bytes.extend(b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n");
        bytes.extend(b"X\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x04NtQK\x00K\x02K\x02\x86K\x01K\x02\x86\x89NtRs.");
        bytes.extend(b"\x80\x02]X\x01\x00\x00\x007a.");
        bytes.extend(4_u64.to_le_bytes());
        bytes.extend([1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()));
        bytes
    }

    #[test]
    fn a_tensor_is_read_by_its_strides() {
        let tensors = read(&checkpoint()).unwrap();
        assert_eq!(tensors["w"], Tensor { shape: vec![2, 2], data: vec![1.0, 3.0, 2.0, 4.0] });
    }

    #[test]
    fn every_checkpoint_that_is_cut_is_an_error() {
        let whole = checkpoint();
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
    }
}
