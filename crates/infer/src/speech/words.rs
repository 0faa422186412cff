//! Tokens to words, each with its times and probability.

use crate::speech::Word;
use crate::speech::vocabulary::{TIME_STEP_MS, Vocabulary};
use strata_model::Result;

/// Languages that are written without spaces; there every character is a word.
const WITHOUT_SPACES: [&str; 7] = ["zh", "ja", "th", "lo", "my", "km", "yue"];
/// Signs that belong to the word behind them, and to the word before them.
const OPENING: &str = "\"'“¿([{-";
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";
const SENTENCE_ENDS: &str = ".。!！?？";
/// A word lasts no longer than this times the median, where it stands at the edge of a sentence, and the median is taken to
/// be no longer than 700 ms: what is longer holds a pause.
const MAX_STRETCH: u64 = 2;
const MAX_MEDIAN_MS: u64 = 700;

/// Some tokens that make a text of their own.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub text: String,
    pub tokens: usize,
}

/// The words of `tokens`, which are text only.
pub fn split(words: &Vocabulary, tokens: &[u32], language: &str) -> Result<Vec<Piece>> {
    let characters = whole_characters(words, tokens)?;
    if WITHOUT_SPACES.contains(&language) {
        return Ok(characters);
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for part in characters {
        let is_sign = !part.text.trim().is_empty() && part.text.trim().chars().all(|c| c.is_ascii_punctuation());
        match pieces.last_mut() {
            Some(last) if !part.text.starts_with(' ') && !is_sign => {
                last.text.push_str(&part.text);
                last.tokens += part.tokens;
            }
            _ => pieces.push(part),
        }
    }
    Ok(pieces)
}

/// Tokens, joined where a character has its bytes in several.
fn whole_characters(words: &Vocabulary, tokens: &[u32]) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for end in 1..=tokens.len() {
        let text = words.text(&tokens[start..end])?;
        if !text.contains(char::REPLACEMENT_CHARACTER) || end == tokens.len() {
            pieces.push(Piece { text, tokens: end - start });
            start = end;
        }
    }
    Ok(pieces)
}

/// Words with their times. `starts` has the frame in which each token begins, and in which the text ends; `log_probabilities`
/// one number for each token.
pub fn timed(pieces: Vec<Piece>, starts: &[usize], log_probabilities: &[f32]) -> Vec<Timed> {
    let mut words = Vec::new();
    let mut token = 0;
    for Piece { text, tokens } in pieces {
        let end = token + tokens;
        let of_word = &log_probabilities[token..end];
        let probability = of_word.iter().map(|log| log.exp()).sum::<f32>() / tokens.max(1) as f32;
        let ms = |token: usize| starts[token] as u64 * TIME_STEP_MS;
        words.push(Timed { tokens, word: Word { start_ms: ms(token), end_ms: ms(end), text, probability } });
        token = end;
    }
    shorten(&mut words);
    join_signs(&mut words);
    words
}

/// A word, and of how many tokens it is.
#[derive(Debug, Clone)]
pub struct Timed {
    pub tokens: usize,
    pub word: Word,
}

/// Takes pauses out of words at the edges of sentences.
fn shorten(words: &mut [Timed]) {
    let mut durations: Vec<u64> = words.iter().map(|w| w.word.end_ms - w.word.start_ms).filter(|ms| *ms > 0).collect();
    durations.sort_unstable();
    let Some(median) = durations.get(durations.len() / 2) else { return };
    let longest = MAX_STRETCH * (*median).min(MAX_MEDIAN_MS);
    let ends_sentence = |text: &str| !text.is_empty() && text.chars().all(|c| SENTENCE_ENDS.contains(c));
    for i in 0..words.len() {
        let is_end = ends_sentence(&words[i].word.text);
        let is_start = i == 0 || ends_sentence(&words[i - 1].word.text);
        let word = &mut words[i].word;
        if word.end_ms - word.start_ms <= longest {
            continue;
        }
        if is_end {
            word.end_ms = word.start_ms + longest;
        } else if is_start {
            word.start_ms = word.end_ms - longest;
        }
    }
}

/// Makes signs parts of the words that they belong to.
fn join_signs(words: &mut Vec<Timed>) {
    let is_of = |text: &str, signs: &str| !text.is_empty() && text.chars().all(|c| signs.contains(c));
    let mut joined: Vec<Timed> = Vec::with_capacity(words.len());
    let mut opening: Option<Timed> = None;
    for mut next in words.drain(..) {
        if let Some(sign) = opening.take() {
            next.word.text.insert_str(0, &sign.word.text);
            next.tokens += sign.tokens;
        }
        let text = &next.word.text;
        match joined.last_mut() {
            _ if text.starts_with(' ') && is_of(text.trim(), OPENING) => opening = Some(next),
            Some(last) if is_of(text, CLOSING) => {
                last.word.text.push_str(text);
                last.tokens += next.tokens;
            }
            _ => joined.push(next),
        }
    }
    joined.extend(opening);
    *words = joined;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(texts: &[&str]) -> Vec<Piece> {
        texts.iter().map(|text| Piece { text: (*text).to_owned(), tokens: 1 }).collect()
    }

    fn texts(words: &[Timed]) -> Vec<&str> {
        words.iter().map(|word| word.word.text.as_str()).collect()
    }

    #[test]
    fn signs_belong_to_words_and_keep_their_tokens() {
        let starts: Vec<usize> = (0..=6).map(|i| i * 10).collect();
        let words = timed(pieces(&[" He", " (", "the", " man", ")", "."]), &starts, &[0.0; 6]);
        assert_eq!(texts(&words), [" He", " (the", " man)."]);
        assert_eq!(words.iter().map(|word| word.tokens).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!((words[2].word.start_ms, words[2].word.end_ms), (600, 800));
        assert!((words[0].word.probability - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_pause_is_no_part_of_the_first_word_of_a_sentence() {
        let starts = [0, 100, 110, 120, 130, 230, 240];
        let words = timed(pieces(&[" Yes", " it", " is", ".", " No", " it"]), &starts, &[0.0; 6]);
        assert_eq!((words[0].word.start_ms, words[0].word.end_ms), (1_600, 2_000));
        assert_eq!((words[3].word.start_ms, words[3].word.end_ms), (4_200, 4_600));
    }
}
