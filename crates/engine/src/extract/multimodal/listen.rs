//! What is said in a recording, word by word, and which segment has which words.

use super::Recording;
use crate::Engine;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{TranscribeOptions, Transcriber, Word, speech::SAMPLE_RATE};
use strata_media::{AudioRequest, segments::Segment};
use strata_model::Result;

/// Seconds of sound that are held and listened to at once. Longer recordings are cut where they are quiet.
const PIECE_SECONDS: usize = 1200;
/// Seconds at the end of a piece in which its quietest moment is looked for.
const SEARCH_SECONDS: usize = 30;
/// Samples of a moment: a fifth of a second.
const MOMENT: usize = SAMPLE_RATE / 5;

/// What is said, with times from the beginning of the file.
#[derive(Debug, Default)]
pub struct Heard {
    /// Code of the language.
    pub language: Option<String>,
    pub words: Vec<Word>,
}

/// Listens to the sound of a recording. `language` is a code; detected where it is `None`.
pub async fn hear(
    engine: &Engine,
    transcriber: &Transcriber,
    recording: &Recording,
    language: Option<&str>,
) -> Result<Heard> {
    let mut heard = Heard::default();
    let request = AudioRequest {
        sample_rate: SAMPLE_RATE as u32,
        start_ms: recording.start_ms,
        max_duration_ms: recording.end_ms - recording.start_ms,
    };
    let mut stream = engine.media().audio(&recording.source, request).await?;
    let mut samples: Vec<f32> = Vec::new();
    let mut before_ms = recording.start_ms;
    loop {
        let more = stream.next().await?;
        let is_end = more.is_none();
        samples.extend(more.unwrap_or_default());
        if !is_end && samples.len() < PIECE_SECONDS * SAMPLE_RATE {
            continue;
        }
        let rest = match is_end {
            true => Vec::new(),
            false => samples.split_off(quietest(&samples)),
        };
        let piece_ms = (samples.len() * 1000 / SAMPLE_RATE) as u64;
        if !samples.is_empty() {
            let piece = std::mem::replace(&mut samples, rest);
            let options = TranscribeOptions { language: language.map(str::to_owned), ..TranscribeOptions::default() };
            let transcript = transcriber.transcribe(piece, options).await?;
            heard.language = heard.language.or(transcript.language);
            let words = transcript.segments.into_iter().flat_map(|segment| segment.words);
            heard.words.extend(words.map(|word| Word {
                start_ms: word.start_ms + before_ms,
                end_ms: word.end_ms + before_ms,
                ..word
            }));
        }
        before_ms += piece_ms;
        if is_end {
            return Ok(heard);
        }
    }
}

/// Where the last seconds of a piece are quietest.
fn quietest(samples: &[f32]) -> usize {
    let from = samples.len().saturating_sub(SEARCH_SECONDS * SAMPLE_RATE);
    let energy = |moment: &[f32]| moment.iter().map(|s| s * s).sum::<f32>();
    let moments = samples[from..].chunks_exact(MOMENT).map(energy).enumerate();
    let quietest = moments.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(at, _)| at);
    (from + quietest * MOMENT + MOMENT / 2).min(samples.len())
}

impl Heard {
    /// The words whose middle lies in a segment.
    pub fn within(&self, segment: &Segment) -> &[Word] {
        let middle = |word: &Word| word.start_ms.midpoint(word.end_ms);
        let start = self.words.partition_point(|word| middle(word) < segment.start_ms);
        let end = self.words.partition_point(|word| middle(word) < segment.end_ms);
        &self.words[start..end.max(start)]
    }
}

/// The text of words.
pub fn text_of(words: &[Word]) -> String {
    let text: String = words.iter().map(|word| word.text.as_str()).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Words with their times in seconds.
pub fn words_json(words: &[Word]) -> Vec<Value> {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let one = |word: &Word| {
        json!({
            "word": word.text.trim(),
            "start": seconds(word.start_ms),
            "end": seconds(word.end_ms),
            "probability": (f64::from(word.probability) * 1000.0).round() / 1000.0,
        })
    };
    words.iter().map(one).collect()
}

/// The code that a parameter names; `None` for `auto`.
pub fn language(asked: Option<&str>) -> Option<&str> {
    asked.filter(|code| !code.is_empty() && *code != "auto")
}

/// The model, loaded, if something is to be written down.
pub async fn listener(engine: &Arc<Engine>, model: &str, wanted: bool) -> Result<Option<Transcriber>> {
    match wanted {
        true => engine.transcriber(model).await.map(Some),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(start_ms: u64, end_ms: u64, text: &str) -> Word {
        Word { start_ms, end_ms, text: text.to_owned(), probability: 0.5 }
    }

    #[test]
    fn each_word_is_in_one_segment() {
        let heard = Heard {
            language: None,
            words: vec![word(0, 400, " One"), word(900, 1200, " two"), word(1300, 1500, ", three.")],
        };
        let segments = [Segment { start_ms: 0, end_ms: 1000 }, Segment { start_ms: 1000, end_ms: 2000 }];
        let texts = segments.map(|segment| text_of(heard.within(&segment)));
        assert_eq!(texts, ["One", "two, three."]);
    }

    #[test]
    fn a_long_recording_is_cut_where_it_is_quiet() {
        let mut samples = vec![0.5; 60 * SAMPLE_RATE];
        let quiet = 50 * SAMPLE_RATE..51 * SAMPLE_RATE;
        samples[quiet.clone()].fill(0.0);
        assert!(quiet.contains(&quietest(&samples)));
        assert_eq!(quietest(&[]), 0);
    }
}
