//! Reading the tensors of a safetensors file by name and shape.

use safetensors::{Dtype, SafeTensors};
use strata_model::{Error, Result};

/// The tensors of one file.
pub struct Weights<'b>(SafeTensors<'b>);

impl<'b> Weights<'b> {
    /// `Internal` where it is no such file.
    pub fn read(bytes: &'b [u8]) -> Result<Self> {
        SafeTensors::deserialize(bytes).map(Self).map_err(Error::internal)
    }

    /// The shape of a tensor; `Internal` where there is none of this name.
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.0.tensor(name).map_err(|e| Error::internal(format!("`{name}`: {e}")))?.shape().to_vec())
    }

    /// The numbers of a tensor; `Internal` where it is not there, not of `f32` or of another shape.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.0.tensor(name).map_err(|e| Error::internal(format!("`{name}`: {e}")))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            let (kind, found) = (tensor.dtype(), tensor.shape());
            return Err(Error::internal(format!("`{name}` is {kind:?} {found:?}, expected F32 {shape:?}")));
        }
        let (numbers, _) = tensor.data().as_chunks::<4>();
        Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
    }
}
