//! Making the files that a runtime reads out of the formats that weights are published in. Runs only while a model is
//! pulled, on bytes whose SHA-256 has been checked; what comes out is checked again by its own SHA-256.
//!
//! A conversion is a function of its bytes alone: it reads no file, no clock and no environment, never executes what it
//! reads, and computes in IEEE arithmetic in a fixed order, so that it makes the same bytes on every machine.

mod efficientnet;
mod onnx;
mod torch;

use serde::Serialize;
use strata_model::Result;

/// A way of making one file out of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conversion {
    /// The checkpoint of EfficientNet-lite0 to ONNX: `input` `[n, 3, 224, 224]` to `features` `[n, 1280]` and `logits`
    /// `[n, 1000]`.
    EfficientNetLite0,
}

impl Conversion {
    /// Makes the file out of the contents of its members, in their order.
    ///
    /// Errors: `Malformed`, saying what is wrong with the members.
    pub(crate) fn run(self, members: Vec<Vec<u8>>) -> Result<Vec<u8>> {
        match self {
            Self::EfficientNetLite0 => efficientnet::to_onnx(&members.concat()),
        }
    }
}
