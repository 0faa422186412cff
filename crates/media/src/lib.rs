//! Floor 1: what files are, and decoding them. Owns telling a file's type by its content, looking into it, and turning
//! images, pages, sound and video into pixels, samples and text.
//!
//! This crate knows no model, no SQL and no HTTP. Bytes of others are never parsed in the process that asks: a worker of
//! ours reads images and PDFs, `ffmpeg` reads sound, video and the newer kinds of images, and each runs as a child under limits on memory, time,
//! files and output (see [`child`]). What a child says is an answer of known shape or a reason.

pub mod child;
mod decoder;
mod detect;
mod fault;
mod ffmpeg;
mod image;
pub mod limits;
mod pdf;
mod picture;
mod pool;
mod probe;
pub mod segments;
mod wire;

pub use decoder::{Config, Decoder, PdfPages, Source, Tools};
pub use detect::{Family, MediaKind, detect};
pub use ffmpeg::{
    AudioRequest, AudioStream, Frame, FrameRequest, FrameSampling, FrameStream, SceneCut, Silence, SilenceRequest,
    Transcode, VideoCodec,
};
pub use image::{DecodedImage, ImageOutput, ImageRequest};
pub use pdf::{
    Block, BlockKind, Headings, LayoutOptions, Line, OutlineEntry, PageBox, PdfDocument, PdfPage, PdfRequest, Rendering,
};
pub use picture::{Crop, Encoding, Filter, Picture, Resize};
pub use probe::Probe;
