//! Speech to text: a recording to what is said in it, when, and in which language, by Whisper (Radford et al., 2022, "Robust
//! Speech Recognition via Large-Scale Weak Supervision").
//!
//! A recording is cut into windows at its pauses, windows are decoded together and each for itself, so that what is said does
//! not depend on what was said before, and words get their times by the decoder's attention. Reads no files but the model's:
//! samples come from elsewhere.

mod align;
mod decode;
mod features;
mod network;
mod rules;
mod transcribe;
mod vocabulary;
mod voice;
mod words;

use crate::entry::{Runtime, Task};
use crate::limits::{MAX_SPEECH_SECONDS, MAX_WAITING_RECORDINGS};
use crate::loaded::{Facts, Loaded, runnable};
use crate::registry::Registry;
use crate::turn::Turn;
use features::Features;
use network::Network;
use strata_model::{Error, Result};
use vocabulary::{Settings, Vocabulary};
use voice::VoiceDetector;

/// Samples of a second in everything here.
pub const SAMPLE_RATE: usize = 16_000;

/// How a recording is transcribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscribeOptions {
    /// Code of the language that is spoken, such as `en`; detected where it is `None`.
    pub language: Option<String>,
    /// Whether words get their times; costs about a tenth of the time.
    pub word_times: bool,
    /// Whether parts in which nobody speaks are left out. Without it, music and noise are decoded, too.
    pub skip_silence: bool,
}

impl Default for TranscribeOptions {
    fn default() -> Self {
        Self { language: None, word_times: true, skip_silence: true }
    }
}

/// What is said in a recording.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// Code of the language; `None` where nobody speaks and none was given.
    pub language: Option<String>,
    /// In order of time.
    pub segments: Vec<Segment>,
}

impl Transcript {
    /// The text of all segments, a space between each.
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// A sentence, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Since the start of the recording.
    pub start_ms: u64,
    pub end_ms: u64,
    /// Without spaces at its ends.
    pub text: String,
    /// In order; none where their times were not asked for.
    pub words: Vec<Word>,
    /// How likely nobody speaks in the window that the segment is of.
    pub no_speech_probability: f32,
    /// Mean logarithm of the probabilities of the tokens of the window that the segment is of.
    pub average_log_probability: f32,
}

/// A word, or where a language is written without spaces a character.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// Since the start of the recording.
    pub start_ms: u64,
    pub end_ms: u64,
    /// With the signs around it and the space before it, so that the texts of all words one after the other are the text.
    pub text: String,
    /// Mean probability of its tokens.
    pub probability: f32,
}

/// A loaded model and the model of voices.
pub type Transcriber = Loaded<Speech>;

/// What runs a [`Transcriber`].
pub struct Speech {
    turn: Turn,
    network: Network,
    vocabulary: Vocabulary,
    /// Layer and head of each head that follows the sound, and those layers.
    alignment_heads: Vec<(usize, usize)>,
    aligned_layers: Vec<usize>,
    voice: VoiceDetector,
    features: Features,
}

impl Transcriber {
    /// Loads a model by id or alias and the model of voices, checking the files' SHA-256. Blocking, about a second.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where a model is not installed or damaged (the message says what to
    /// run) or is no model of speech.
    pub fn load(registry: &Registry, id: &str, threads: usize) -> Result<Self> {
        let entry = runnable(id, Task::Transcribe, Runtime::RtenWhisper)?;
        let of_voices = Registry::resolve(Registry::voice_model())?;
        let (weights, tokenizer) =
            (registry.read(entry, "model.safetensors")?, registry.read(entry, "tokenizer.json")?);
        let settings = registry.read(entry, "config.json")?;
        let voices = registry.read(of_voices, "model.onnx")?;
        let facts = Facts::of(entry, &[&weights, &tokenizer, &settings, &voices]);
        let wrong = |e: Error| match e {
            Error::Malformed(m) => Error::Unavailable(format!("model `{}` is no model of speech: {m}", entry.id)),
            other => other,
        };
        let settings = Settings::read(&settings).map_err(wrong)?;
        let mut aligned_layers: Vec<usize> = settings.alignment_heads.iter().map(|(layer, _)| *layer).collect();
        aligned_layers.sort_unstable();
        aligned_layers.dedup();
        let network = Network::load(&weights, threads).map_err(wrong)?;
        let vocabulary = Vocabulary::new(&tokenizer, &settings, network.sizes.vocabulary).map_err(wrong)?;
        let voice = VoiceDetector::load(voices, threads).map_err(wrong)?;
        let speech = Speech {
            turn: Turn::new("recordings", MAX_WAITING_RECORDINGS),
            features: Features::new(network.sizes.mel_bands),
            alignment_heads: settings.alignment_heads,
            network,
            vocabulary,
            aligned_layers,
            voice,
        };
        Ok(Self::new(facts, speech))
    }

    /// What is said in a recording of one channel and 16,000 samples a second, from -1 to 1. One recording at a time runs,
    /// on all threads; dropping the future gives up one that has not begun.
    ///
    /// Errors: `Malformed` where a sample is not a number; `TooLarge` where the recording is longer than
    /// [`MAX_SPEECH_SECONDS`]; `Invalid` where the model does not know the language; `Busy` where too many wait.
    pub async fn transcribe(&self, samples: Vec<f32>, options: TranscribeOptions) -> Result<Transcript> {
        let speech = self.model.clone();
        self.model.turn.run(move || speech.transcribe(&samples, &options)).await
    }

    /// [`Transcriber::transcribe`] for threads that may block, without a place in the queue.
    pub fn transcribe_blocking(&self, samples: &[f32], options: &TranscribeOptions) -> Result<Transcript> {
        self.model.transcribe(samples, options)
    }

    /// Codes of the languages that the model knows.
    pub fn languages(&self) -> Vec<&str> {
        match self.model.vocabulary.languages() {
            [] => vec!["en"],
            languages => languages.iter().map(|(code, _)| code.as_str()).collect(),
        }
    }
}

/// Errors: `Malformed`, `TooLarge`.
fn check(samples: &[f32]) -> Result<()> {
    if samples.len() / SAMPLE_RATE > MAX_SPEECH_SECONDS {
        return Err(Error::TooLarge(format!("a recording is longer than {MAX_SPEECH_SECONDS} seconds; cut it")));
    }
    match samples.iter().position(|sample| !sample.is_finite()) {
        Some(place) => Err(Error::Malformed(format!("sample {place} of the recording is not a number"))),
        None => Ok(()),
    }
}
