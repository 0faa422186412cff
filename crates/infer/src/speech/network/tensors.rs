//! The published tensors of a model, and the sizes that their shapes tell.

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use strata_model::{Error, Result};

/// Numbers of one attention head, in every published model.
pub const HEAD: usize = 64;

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
    /// Bytes of what the decoder attends to of one window.
    pub fn sound_bytes(&self) -> usize {
        self.decoder_layers * 2 * self.frames * self.width * size_of::<u16>()
    }
}

/// The tensors of a file, to be taken by name.
pub struct Tensors(HashMap<String, Tensor>);

impl Tensors {
    /// Errors: `Malformed` where it is no safetensors file.
    pub fn read(file: &[u8]) -> Result<Self> {
        let wrong = |e| Error::Malformed(format!("the weights cannot be read: {e}"));
        candle_core::safetensors::load_buffer(file, &Device::Cpu).map(Self).map_err(wrong)
    }

    /// Errors: `Malformed` where they are not those of Whisper.
    pub fn sizes(&self) -> Result<Sizes> {
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

    fn shape(&self, name: &str) -> Result<&[usize]> {
        let tensor = self.0.get(name).ok_or_else(|| missing(name))?;
        Ok(tensor.dims())
    }

    /// The numbers of a tensor, which must have this shape.
    ///
    /// Errors: `Malformed` where it has another or is missing.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.0.remove(name).ok_or_else(|| missing(name))?;
        if tensor.dims() != shape {
            return Err(Error::Malformed(format!("`{name}` has the shape {:?}, expected {shape:?}", tensor.dims())));
        }
        let numbers = tensor.to_dtype(DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1());
        numbers.map_err(Error::internal)
    }
}

fn missing(name: &str) -> Error {
    Error::Malformed(format!("`{name}` is missing in the weights"))
}
