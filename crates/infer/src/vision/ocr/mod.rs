//! Reading text in images: lines are found by a network that says of each pixel whether it belongs to one (Liao et al., 2019,
//! "Real-time Scene Text Detection with Differentiable Binarization"), turned level, and read by another, letter by letter
//! (Graves et al., 2006, "Connectionist Temporal Classification"). The networks are those of PP-OCR.

mod detect;
mod order;
mod quad;
mod recognize;

pub use quad::Quad;

use super::pixels::Pixels;
use crate::entry::{Runtime, Task};
use crate::loaded::{Facts, Loaded, broken, runnable};
use crate::pool::Pool;
use crate::queue::Priority;
use crate::registry::Registry;
use detect::Detector;
use recognize::Recognizer;
use strata_model::Result;

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

/// The loaded networks.
pub type TextReader = Loaded<Pool<Networks>>;

/// What a [`TextReader`] runs.
pub struct Networks {
    detector: Detector,
    recognizer: Recognizer,
}

impl TextReader {
    /// Loads the networks by id or alias, checks their files' SHA-256 and looks at one image to see that they work. `threads`
    /// images are read beside each other. Blocking, a fraction of a second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where a file is not installed or damaged (the message says what to
    /// run); `Internal` where the runtime refuses it.
    pub fn load(registry: &Registry, id: &str, threads: usize) -> Result<Self> {
        let entry = runnable(id, Task::RecognizeText, Runtime::RtenOnnx)?;
        let [detector, recognizer, characters] =
            ["detector.onnx", "recognizer.onnx", "characters.txt"].map(|name| registry.read(entry, name));
        let (detector, recognizer, characters) = (detector?, recognizer?, characters?);
        let facts = Facts::of(entry, &[&detector, &recognizer, &characters]);
        let refused = |e| broken(entry.id, e);
        let networks = Networks {
            detector: Detector::load(detector).map_err(refused)?,
            recognizer: Recognizer::load(recognizer, &characters).map_err(refused)?,
        };
        let reader = Self::new(facts, Pool::new(entry.id, threads, networks));
        reader.read_blocking(&Pixels::new(32, 32, vec![255; 32 * 32 * 3])?)?;
        Ok(reader)
    }

    /// The lines of an image in the background, in reading order; none where there is no text.
    pub async fn read(&self, image: Pixels) -> Result<Vec<TextLine>> {
        self.model.run(Priority::Ingest, move |networks, ()| networks.read(&image)).await
    }

    /// As [`TextReader::read`], for an image that somebody waits for: goes before background work. `Busy` where too many
    /// wait already.
    pub async fn read_now(&self, image: Pixels) -> Result<Vec<TextLine>> {
        self.model.run(Priority::Query, move |networks, ()| networks.read(&image)).await
    }

    /// [`TextReader::read`] for threads that may block. Never call it on an async runtime's thread.
    pub fn read_blocking(&self, image: &Pixels) -> Result<Vec<TextLine>> {
        self.model.run_here(|networks, ()| networks.read(image))
    }
}

impl Networks {
    fn read(&self, image: &Pixels) -> Result<Vec<TextLine>> {
        let quads = order::in_reading_order(self.detector.find(image)?);
        let read = self.recognizer.read(image, &quads)?;
        let lines = quads.into_iter().zip(read).map(|(quad, (text, confidence))| TextLine { text, confidence, quad });
        Ok(lines.filter(|line| line.confidence >= MIN_CONFIDENCE && !line.text.trim().is_empty()).collect())
    }
}
