//! Decoding: what is said in some windows of sound, token by token, and once more with chance where the outcome is bad
//! (Radford et al., 2022, section 4.5).

use crate::speech::network::{Network, Sound};
use crate::speech::rules::{choose, log_sum};
use crate::speech::vocabulary::Vocabulary;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;
use strata_model::{Error, Result};

/// Temperatures that are tried one after the other.
const TEMPERATURES: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
/// A text that is compressed by more than this repeats itself.
const MAX_COMPRESSION: f32 = 2.4;
/// A text with a smaller mean is a guess.
pub const MIN_AVERAGE_LOG_PROBABILITY: f32 = -1.0;
/// A window with a larger probability is silence, if its text is a guess.
pub const MAX_NO_SPEECH_PROBABILITY: f32 = 0.6;

/// What was made of one window.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Text and times, without prompt and end.
    pub tokens: Vec<u32>,
    /// The logarithm of each token's probability.
    pub log_probabilities: Vec<f32>,
    /// Mean over the tokens and the end.
    pub average_log_probability: f32,
    pub no_speech_probability: f32,
    /// False where there was no room for more tokens.
    pub ended: bool,
}

impl Told {
    /// Whether there is nobody speaking in the window.
    pub fn is_silence(&self) -> bool {
        self.no_speech_probability > MAX_NO_SPEECH_PROBABILITY
            && self.average_log_probability < MIN_AVERAGE_LOG_PROBABILITY
    }
}

/// Decodes windows together, each with its own `Sound`. `seed` makes chance repeatable.
pub fn decode(
    network: &Network,
    words: &Vocabulary,
    prompt: &[u32],
    sounds: &[&Sound],
    seed: u64,
) -> Result<Vec<Told>> {
    let mut told = vec![Told::default(); sounds.len()];
    let mut open: Vec<usize> = (0..sounds.len()).collect();
    for temperature in TEMPERATURES {
        let sound = Sound::of(&open.iter().map(|window| sounds[*window]).collect::<Vec<_>>());
        let random = fastrand::Rng::with_seed(seed);
        let tries = Run { network, words, prompt, temperature, random }.windows(sound, open.len())?;
        let mut again = Vec::new();
        for (window, tried) in open.into_iter().zip(tries) {
            if !is_good(&tried, &words.text(&tried.tokens)?) {
                again.push(window);
            }
            told[window] = tried;
        }
        if again.is_empty() {
            break;
        }
        open = again;
    }
    Ok(told)
}

fn is_good(told: &Told, text: &str) -> bool {
    let repeats = compression(text) > MAX_COMPRESSION;
    let guessed = told.average_log_probability < MIN_AVERAGE_LOG_PROBABILITY;
    told.no_speech_probability > MAX_NO_SPEECH_PROBABILITY || !(repeats || guessed)
}

/// Size of a text by its size when compressed.
fn compression(text: &str) -> f32 {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    packed.map_or(0.0, |packed| text.len() as f32 / packed.len().max(1) as f32)
}

/// One try at some windows.
struct Run<'a> {
    network: &'a Network,
    words: &'a Vocabulary,
    prompt: &'a [u32],
    temperature: f32,
    random: fastrand::Rng,
}

impl Run<'_> {
    fn windows(mut self, mut sound: Sound, count: usize) -> Result<Vec<Told>> {
        let sizes = self.network.sizes;
        let mut told = vec![Told::default(); count];
        let mut past = self.network.nothing(count);
        // The windows that go on, and what row each is in.
        let mut open: Vec<usize> = (0..count).collect();
        let mut next: Vec<Vec<u32>> = vec![self.prompt.to_vec(); count];
        // As many as there are places for the text, half being meant for the text before.
        let limit = sizes.positions / 2;
        for step in 0..limit {
            let mut logits = self.network.decode(&next, &mut past, &sound)?;
            let (places, vocabulary) = (next[0].len(), sizes.vocabulary);
            let mut rows = Vec::new();
            for (row, logits) in logits.chunks_exact_mut(places * vocabulary).enumerate() {
                let window = &mut told[open[row]];
                if step == 0 {
                    let first = &logits[..vocabulary];
                    let silence = first[self.words.kinds.no_speech as usize];
                    window.no_speech_probability = (silence - log_sum(first)).exp();
                }
                if self.step(&mut logits[(places - 1) * vocabulary..], window)? {
                    rows.push(row);
                }
            }
            if rows.is_empty() {
                break;
            }
            if rows.len() < open.len() {
                past.keep(&rows);
                sound = sound.keep(&rows);
            }
            open = rows.iter().map(|row| open[*row]).collect();
            next = open.iter().map(|window| told[*window].tokens.last().copied().into_iter().collect()).collect();
        }
        for window in &mut told {
            let count = window.log_probabilities.len().max(1) as f32;
            window.average_log_probability = window.log_probabilities.iter().sum::<f32>() / count;
            window.log_probabilities.truncate(window.tokens.len());
        }
        Ok(told)
    }

    /// Adds the next token of a window; false where it was the end.
    fn step(&mut self, logits: &mut [f32], window: &mut Told) -> Result<bool> {
        self.words.kinds.restrict(logits, &window.tokens);
        let (token, log_probability) = choose(logits, self.temperature, &mut self.random)
            .ok_or_else(|| Error::internal("the decoder gave no number"))?;
        window.log_probabilities.push(log_probability);
        if token == self.words.kinds.end {
            window.ended = true;
            return Ok(false);
        }
        window.tokens.push(token);
        Ok(true)
    }
}

/// The language that the first window of `sound` is in, with its probability.
pub fn detect_language(network: &Network, words: &Vocabulary, sound: &Sound) -> Result<(String, f32)> {
    let [(code, _), ..] = words.languages() else { return Ok(("en".to_owned(), 1.0)) };
    let logits = network.decode(&[vec![words.start()]], &mut network.nothing(1), sound)?;
    let of_languages: Vec<f32> = words.languages().iter().map(|(_, token)| logits[*token as usize]).collect();
    let all = log_sum(&of_languages);
    let best = words.languages().iter().zip(&of_languages).max_by(|a, b| a.1.total_cmp(b.1));
    Ok(best.map_or((code.clone(), 0.0), |((code, _), logit)| (code.clone(), (logit - all).exp())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_repeats_itself_or_is_a_guess_is_tried_again_but_silence_is_not() {
        let told = |average_log_probability, no_speech_probability| Told {
            average_log_probability,
            no_speech_probability,
            ..Told::default()
        };
        let plain = "And Mr. John Dashwood had then leisure to consider how much there might be in his power.";
        assert!(is_good(&told(-0.3, 0.1), plain));
        assert!(!is_good(&told(-0.3, 0.1), &"thank you ".repeat(20)));
        assert!(!is_good(&told(-1.2, 0.1), plain));
        assert!(is_good(&told(-1.2, 0.7), plain));
        assert!(told(-1.2, 0.7).is_silence() && !told(-0.3, 0.7).is_silence());
    }
}
