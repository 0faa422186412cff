//! Floor 1: models and the runtime that runs them. Owns the registry of known models, their files on disk, and the
//! worker threads that own loaded models.
//!
//! This crate knows no SQL, no HTTP and no document; it never downloads a model unless [`Registry::pull`] is called,
//! and never runs a file whose SHA-256 differs from the one in the registry.

pub mod acoustic;
mod archive;
mod brought;
mod catalog;
mod convert;
mod convnet;
pub mod embed;
pub mod entry;
mod install;
pub mod late_interaction;
pub mod limits;
mod loaded;
mod mel;
mod onnx;
mod pool;
mod queue;
pub mod registry;
pub mod rerank;
pub mod sparse;
pub mod speech;
mod turn;
pub mod vision;
mod weights;
mod worker;

pub use brought::{Brought, BroughtFormat};
pub use convert::Conversion;
pub use embed::{EmbedConfig, TextEmbedder};
pub use entry::{Client, Group, Hub, HubFile, Member, ModelEntry, ModelFile, Origin, Platform, Runtime, Source, Task};
pub use late_interaction::{TokenEmbedder, TokenVectors};
pub use loaded::Loaded;
pub use registry::{FileCheck, FileState, InstallState, ModelStatus, PullReport, Registry, Verify};
pub use rerank::CrossEncoder;
pub use sparse::{SparseEmbedder, SparseVector};
pub use speech::{Segment, TranscribeOptions, Transcriber, Transcript, Word};
pub use vision::clip::Clip;
pub use vision::conse::Conse;
pub use vision::embed::{ImageEmbedder, Sight};
pub use vision::face::{Face, FaceFinder, FaceOptions};
pub use vision::imagenet::Label;
pub use vision::ocr::{TextLine, TextReader};
pub use vision::pixels::Pixels;
pub use vision::space::Space;
