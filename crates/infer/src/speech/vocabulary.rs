//! Whisper's tokens: text, languages and times, and which of them may follow which.

use crate::speech::rules::Kinds;
use serde::Deserialize;
use strata_model::{Error, Result};
use tokenizers::Tokenizer;

/// Tokens of a vocabulary that knows several languages, at least; those of English models have fewer.
const MULTILINGUAL_TOKENS: usize = 51_865;
/// Times that have a token: 0 to 30 seconds.
pub const TIMES: u32 = 1_501;
/// Milliseconds from the time of one token to that of the next.
pub const TIME_STEP_MS: u64 = 20;

/// The settings published with a model, as `generation_config.json` or as CTranslate2's `config.json`.
#[derive(Debug, Default, Deserialize)]
pub struct Settings {
    /// Layer and head of each head that attends to the sound of the word at hand.
    #[serde(default)]
    pub alignment_heads: Vec<(usize, usize)>,
    /// Tokens that are no speech: signs, notes, names of speakers.
    #[serde(default, alias = "suppress_ids")]
    suppress_tokens: Vec<u32>,
    /// Tokens that no text begins with.
    #[serde(default, alias = "suppress_ids_begin")]
    begin_suppress_tokens: Vec<u32>,
}

impl Settings {
    /// Errors: `Malformed` where it is no such file.
    pub fn read(file: &[u8]) -> Result<Self> {
        serde_json::from_slice(file).map_err(|e| Error::Malformed(format!("the settings cannot be read: {e}")))
    }
}

/// The tokens of one model.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    pub kinds: Kinds,
    start: u32,
    transcribe: u32,
    /// Code and token of each language; of an English model none.
    languages: Vec<(String, u32)>,
}

impl Vocabulary {
    /// Errors: `Malformed` where the tokenizer is not one of Whisper.
    pub fn new(tokenizer: &[u8], settings: &Settings, size: usize) -> Result<Self> {
        let wrong = |e: &dyn std::fmt::Display| Error::Malformed(format!("the tokenizer is not one of Whisper: {e}"));
        let tokenizer = Tokenizer::from_bytes(tokenizer).map_err(|e| wrong(&e))?;
        let token = |text: &str| tokenizer.token_to_id(text).ok_or_else(|| wrong(&format!("it has no `{text}`")));
        let either = |a: &str, b: &str| token(a).or_else(|_| token(b));
        let (start, transcribe, end) =
            (token("<|startoftranscript|>")?, token("<|transcribe|>")?, token("<|endoftext|>")?);
        let without_times = token("<|notimestamps|>")?;
        let no_speech = either("<|nospeech|>", "<|nocaptions|>")?;
        if without_times as usize + TIMES as usize >= size {
            return Err(wrong(&format!("it has more tokens than the model, {size}")));
        }
        let mut never = settings.suppress_tokens.clone();
        never.extend([transcribe, token("<|translate|>")?, start, token("<|startofprev|>")?, token("<|startoflm|>")?]);
        never.extend([no_speech, without_times]);
        let kinds = Kinds { end, without_times, no_speech, never, never_first: settings.begin_suppress_tokens.clone() };
        if kinds.never.iter().chain(&kinds.never_first).any(|token| *token as usize >= size) {
            return Err(Error::Malformed("the settings name a token that the model has not".to_owned()));
        }
        let mut languages = Vec::new();
        if size >= MULTILINGUAL_TOKENS {
            // They stand between the start and the tasks.
            for id in start + 1..token("<|translate|>")? {
                let text = tokenizer.id_to_token(id).unwrap_or_default();
                if let Some(code) = text.strip_prefix("<|").and_then(|text| text.strip_suffix("|>")) {
                    languages.push((code.to_owned(), id));
                }
            }
        }
        Ok(Self { tokenizer, kinds, start, transcribe, languages })
    }

    /// Code and token of each language that the model tells apart; none if it knows only English.
    pub fn languages(&self) -> &[(String, u32)] {
        &self.languages
    }

    /// The token that every prompt starts with.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// What a text in this language starts with.
    ///
    /// Errors: `Invalid` where the model does not know the language.
    pub fn prompt(&self, language: &str) -> Result<Vec<u32>> {
        if self.languages.is_empty() && language == "en" {
            return Ok(vec![self.start]);
        }
        match self.languages.iter().find(|(code, _)| code == language) {
            Some((_, token)) => Ok(vec![self.start, *token, self.transcribe]),
            None if self.languages.is_empty() => {
                Err(Error::invalid("language", format!("the model knows only English (`en`), not `{language}`")))
            }
            None => Err(Error::invalid("language", format!("the model does not know the language `{language}`"))),
        }
    }

    /// The text of tokens; times and other signs are left out.
    ///
    /// Errors: `Internal` where the tokenizer fails.
    pub fn text(&self, tokens: &[u32]) -> Result<String> {
        let words: Vec<u32> = tokens.iter().copied().filter(|token| *token < self.kinds.end).collect();
        self.tokenizer.decode(&words, false).map_err(Error::internal)
    }
}
