//! Reading text in images: lines are found by a network that says of each pixel whether it belongs to one (Liao et al., 2019,
//! "Real-time Scene Text Detection with Differentiable Binarization"), turned level, and read by another, letter by letter
//! (Graves et al., 2006, "Connectionist Temporal Classification"). The networks are those of PP-OCR.

mod detect;
mod order;
mod quad;
mod recognize;

pub use quad::Quad;

use super::pixels::Pixels;
use crate::entry::{ModelEntry, Task};
use crate::pool::Pool;
use crate::queue::Priority;
use crate::registry::Registry;
use detect::Detector;
use recognize::Recognizer;
use std::sync::Arc;
use strata_model::{Error, Result};

/// Lines that are read less surely than this are left out.
const MIN_CONFIDENCE: f32 = 0.5;

/// A line of text, or the part of one that stands alone.
#[derive(Debug, Clone, PartialEq)]
pub struct TextLine {
    pub text: String,
    /// Mean probability of its characters, 0 to 1.
    pub confidence: f32,
    /// Where it stands.
    pub quad: Quad,
}

/// The loaded networks. Clones share them.
#[derive(Clone)]
pub struct TextReader {
    inner: Arc<Inner>,
}

struct Inner {
    entry: &'static ModelEntry,
    fingerprint: String,
    detector: Detector,
    recognizer: Recognizer,
    pool: Pool<()>,
}

impl std::fmt::Debug for TextReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextReader").field("model_id", &self.model_id()).finish_non_exhaustive()
    }
}

impl TextReader {
    /// Loads the networks by id or alias, checks their files' SHA-256 and looks at one image to see that they work. `threads`
    /// images are read beside each other. Blocking, a fraction of a second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where a file is not installed or damaged (the message says what to
    /// run); `Internal` where the runtime refuses it.
    pub fn load(registry: &Registry, id: &str, threads: usize) -> Result<Self> {
        let entry = Registry::resolve_for(id, Task::RecognizeText)?;
        let [detector, recognizer, characters] =
            ["detector.onnx", "recognizer.onnx", "characters.txt"].map(|name| registry.read(entry, name));
        let (detector, recognizer, characters) = (detector?, recognizer?, characters?);
        let fingerprint = hex::encode(strata_model::id::sha256_parts(&[&detector, &recognizer, &characters]));
        let refused = |e: String| Error::Internal(format!("model `{}` cannot be loaded: {e}", entry.id));
        let inner = Inner {
            entry,
            fingerprint,
            detector: Detector::load(detector).map_err(refused)?,
            recognizer: Recognizer::load(recognizer, &characters).map_err(refused)?,
            pool: Pool::new(entry.id, threads),
        };
        let reader = Self { inner: Arc::new(inner) };
        reader.read_blocking(&Pixels::new(32, 32, vec![255; 32 * 32 * 3])?)?;
        Ok(reader)
    }

    /// The lines of an image in the background, in reading order; none where there is no text.
    pub async fn read(&self, image: Pixels) -> Result<Vec<TextLine>> {
        let inner = self.inner.clone();
        self.inner.pool.run(Priority::Ingest, move |()| inner.read(&image)).await
    }

    /// As [`TextReader::read`], for an image that somebody waits for: goes before background work. `Busy` where too many
    /// wait already.
    pub async fn read_now(&self, image: Pixels) -> Result<Vec<TextLine>> {
        let inner = self.inner.clone();
        self.inner.pool.run(Priority::Query, move |()| inner.read(&image)).await
    }

    /// [`TextReader::read`] for threads that may block. Never call it on an async runtime's thread.
    pub fn read_blocking(&self, image: &Pixels) -> Result<Vec<TextLine>> {
        self.inner.pool.run_here(|()| self.inner.read(image))
    }

    /// SHA-256, hex, over the networks and their characters.
    pub fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }
    /// The registry's id, also where it was loaded by an alias.
    pub fn model_id(&self) -> &'static str {
        self.inner.entry.id
    }
}

impl Inner {
    fn read(&self, image: &Pixels) -> Result<Vec<TextLine>> {
        let quads = order::in_reading_order(self.detector.find(image)?);
        let read = self.recognizer.read(image, &quads)?;
        let lines = quads.into_iter().zip(read).map(|(quad, (text, confidence))| TextLine { text, confidence, quad });
        Ok(lines.filter(|line| line.confidence >= MIN_CONFIDENCE && !line.text.trim().is_empty()).collect())
    }
}
