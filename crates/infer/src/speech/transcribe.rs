//! From samples to a transcript: which windows are decoded together, and what becomes of what the decoder tells.

use crate::limits::{MAX_SOUND_BYTES, MAX_WINDOWS_AT_ONCE};
use crate::speech::align::{self, Head};
use crate::speech::decode::{Told, decode, detect_language};
use crate::speech::network::{Scores, Sound};
use crate::speech::vocabulary::TIME_STEP_MS;
use crate::speech::words::{self, Timed};
use crate::speech::{SAMPLE_RATE, Segment, Speech, TranscribeOptions, Transcript, Word, check, voice};
use rayon::prelude::*;
use std::collections::VecDeque;
use std::ops::Range;
use strata_model::Result;

/// Samples of one step of time, 20 ms.
const STEP: usize = SAMPLE_RATE / 1_000 * TIME_STEP_MS as usize;
/// Speech of which the decoder told nothing is decoded once more if it is longer than this, in samples: 1 s.
const MIN_REST: usize = SAMPLE_RATE;
/// A time that the decoder told counts, unless it lies this far behind the last word, in samples: 1 s.
const MAX_PAUSE: usize = SAMPLE_RATE;

/// Tokens between two times.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    /// In steps of 20 ms since the start of the window.
    start: u32,
    end: u32,
    /// Places in [`Told::tokens`], all of text.
    tokens: Range<usize>,
}

/// A decoded window.
struct Window<'a> {
    /// Its samples in the recording.
    range: &'a Range<usize>,
    sound: &'a Sound,
    told: &'a Told,
    prompt: &'a [u32],
    language: &'a str,
}

impl Window<'_> {
    /// Steps of 20 ms.
    fn steps(&self) -> u32 {
        self.range.len().div_ceil(STEP) as u32
    }
}

impl Speech {
    pub(super) fn transcribe(&self, samples: &[f32], options: &TranscribeOptions) -> Result<Transcript> {
        check(samples)?;
        if let Some(language) = &options.language {
            self.vocabulary.prompt(language)?;
        }
        let probabilities = self.voice.probabilities(samples)?;
        let speech = voice::speech(&probabilities, samples.len());
        let whole = 0..samples.len();
        let parts = if options.skip_silence { &speech[..] } else { std::slice::from_ref(&whole) };
        let mut open: VecDeque<Range<usize>> = voice::windows(parts, &probabilities).into();
        open.retain(|window| !window.is_empty());
        let at_once = (MAX_SOUND_BYTES / self.network.sizes.sound_bytes()).clamp(1, MAX_WINDOWS_AT_ONCE);
        let mut transcript = Transcript { language: options.language.clone(), segments: Vec::new() };
        while !open.is_empty() {
            let batch: Vec<Range<usize>> = open.drain(..at_once.min(open.len())).collect();
            let rests = self.batch(samples, &batch, &speech, options.word_times, &mut transcript)?;
            rests.into_iter().rev().for_each(|rest| open.push_front(rest));
        }
        transcript.segments.sort_by_key(|segment| segment.start_ms);
        Ok(transcript)
    }

    /// Adds what is said in some windows to the transcript; answers the parts of them that have to be decoded once more.
    fn batch(
        &self,
        samples: &[f32],
        ranges: &[Range<usize>],
        speech: &[Range<usize>],
        word_times: bool,
        transcript: &mut Transcript,
    ) -> Result<Vec<Range<usize>>> {
        let of = |range: &Range<usize>| self.features.of(&samples[range.clone()]);
        let features: Vec<Vec<f32>> = self.network.threads.install(|| ranges.par_iter().map(of).collect());
        let sounds = features.iter().map(|features| self.network.encode(features)).collect::<Result<Vec<Sound>>>()?;
        let language = match &mut transcript.language {
            Some(language) => &*language,
            None => transcript.language.insert(detect_language(&self.network, &self.vocabulary, &sounds[0])?.0),
        };
        let prompt = self.vocabulary.prompt(language)?;
        let borrowed: Vec<&Sound> = sounds.iter().collect();
        let told = decode(&self.network, &self.vocabulary, &prompt, &borrowed, ranges[0].start as u64)?;
        let windows = ranges.iter().zip(&sounds).zip(&told);
        let windows: Vec<Window> =
            windows.map(|((range, sound), told)| Window { range, sound, told, prompt: &prompt, language }).collect();
        let made = |window: &Window| {
            let spans = self.spans(window);
            let told_to = spans.last().map(|last| window.range.start + last.end as usize * STEP);
            Ok((told_to, self.segments(window, spans, word_times)?))
        };
        let made = self.network.threads.install(|| windows.par_iter().map(made).collect::<Result<Vec<_>>>())?;
        let mut rests = Vec::new();
        for (window, (told_to, segments)) in windows.iter().zip(made) {
            let last_word = segments.last().and_then(|segment| segment.words.last());
            let heard_to = last_word.map(|word| word.end_ms as usize * SAMPLE_RATE / 1_000);
            rests.extend(told_to.and_then(|told_to| rest(window, told_to, heard_to, speech)));
            transcript.segments.extend(segments);
        }
        Ok(rests)
    }

    /// What was told of a window.
    fn spans(&self, window: &Window) -> Vec<Span> {
        let told = window.told;
        if told.is_silence() {
            return Vec::new();
        }
        let mut spans = spans(&told.tokens, |token| self.vocabulary.kinds.time(token), window.steps());
        if !told.ended && spans.len() > 1 {
            // The last one may be cut.
            spans.pop();
        }
        spans
    }

    fn segments(&self, window: &Window, spans: Vec<Span>, word_times: bool) -> Result<Vec<Segment>> {
        let mut timed = if word_times { self.words(window, &spans)? } else { VecDeque::new() };
        let mut segments = Vec::new();
        for span in spans {
            let words = take(&mut timed, span.tokens.len());
            let text = self.vocabulary.text(&window.told.tokens[span.tokens.clone()])?.trim().to_owned();
            if !text.is_empty() {
                segments.push(segment(&span, text, words, window));
            }
        }
        Ok(segments)
    }

    /// The words of all spans, with times since the start of the window.
    fn words(&self, window: &Window, spans: &[Span]) -> Result<VecDeque<Timed>> {
        let Window { sound, told, prompt, language, .. } = window;
        let places: Vec<usize> = spans.iter().flat_map(|span| span.tokens.clone()).collect();
        let tokens: Vec<u32> = places.iter().map(|place| told.tokens[*place]).collect();
        let log_probabilities: Vec<f32> = places.iter().map(|place| told.log_probabilities[*place]).collect();
        if tokens.is_empty() || self.alignment_heads.is_empty() {
            return Ok(VecDeque::new());
        }
        let mut read = prompt.to_vec();
        read.push(self.vocabulary.kinds.without_times);
        read.extend(&tokens);
        read.push(self.vocabulary.kinds.end);
        let rows = prompt.len()..read.len() - 1;
        let attention = self.network.attention(read, sound, &self.aligned_layers)?;
        let frames = (window.steps() as usize).clamp(1, sound.frames());
        let starts = align::starts(&self.heads(&attention, sound.frames()), frames, rows);
        let pieces = words::split(&self.vocabulary, &tokens, language)?;
        Ok(words::timed(pieces, &starts, &log_probabilities).into())
    }

    /// The heads that follow the sound, of the attention of all layers that have some.
    fn heads<'a>(&self, attention: &'a [Scores], columns: usize) -> Vec<Head<'a>> {
        let mut heads = Vec::new();
        for (layer, Scores(scores)) in self.aligned_layers.iter().zip(attention) {
            let of_layer = self.alignment_heads.iter().filter(|(own, _)| own == layer);
            heads.extend(of_layer.filter_map(|(_, head)| scores.get(*head)).map(|scores| Head { scores, columns }));
        }
        heads
    }
}

/// What of a window has to be decoded once more: small models end their text although somebody speaks behind it, and of much
/// text there may be no room for all. `told_to` is the last time that the decoder told, which may be late, or the window's end
/// where it told none; `heard_to` the end of the last word, by what the decoder attended to.
fn rest(window: &Window, told_to: usize, heard_to: Option<usize>, speech: &[Range<usize>]) -> Option<Range<usize>> {
    let Window { range, told, .. } = window;
    let end = match heard_to {
        Some(heard_to) if told.ended && heard_to + MAX_PAUSE < told_to => heard_to,
        _ => told_to,
    };
    let untold = match told.ended {
        // In a pause, or where it began too early for the pause to be seen.
        true => speech.iter().filter(|part| part.end > end).map(|part| part.start.max(end)).next(),
        false => Some(end),
    };
    let left = |start: usize| {
        let parts = speech.iter().map(|part| part.end.min(range.end).saturating_sub(part.start.max(start)));
        parts.sum::<usize>()
    };
    let start = untold.filter(|start| *start > range.start + MIN_REST && left(*start) > MIN_REST)?;
    Some(start..range.end)
}

/// The tokens between times; what has no end goes on to the end of the window.
fn spans(tokens: &[u32], time: impl Fn(u32) -> Option<u32>, steps: u32) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut start = 0;
    let mut first = None;
    for (place, token) in tokens.iter().enumerate() {
        match (time(*token), first) {
            (Some(time), None) => start = time.min(steps),
            (Some(time), Some(from)) => {
                spans.push(Span { start, end: time.clamp(start, steps.max(start)), tokens: from..place });
                (start, first) = (time.min(steps), None);
            }
            (None, None) => first = Some(place),
            (None, Some(_)) => {}
        }
    }
    if let Some(from) = first {
        spans.push(Span { start, end: steps.max(start), tokens: from..tokens.len() });
    }
    spans
}

/// Takes words from the front until they have this many tokens.
fn take(timed: &mut VecDeque<Timed>, tokens: usize) -> Vec<Word> {
    let mut words = Vec::new();
    let mut taken = 0;
    while taken < tokens {
        let Some(Timed { tokens, word }) = timed.pop_front() else { break };
        taken += tokens;
        words.push(word);
    }
    words
}

/// A segment with times since the start of the recording. Where there are words, it begins and ends with them.
fn segment(span: &Span, text: String, mut words: Vec<Word>, window: &Window) -> Segment {
    let Window { range, told, .. } = window;
    let offset = (range.start * 1_000 / SAMPLE_RATE) as u64;
    let end = (range.end * 1_000).div_ceil(SAMPLE_RATE) as u64;
    let absolute = |ms: u64| (ms + offset).min(end);
    for word in &mut words {
        (word.start_ms, word.end_ms) = (absolute(word.start_ms), absolute(word.end_ms));
    }
    let start_ms = words.first().map_or(absolute(u64::from(span.start) * TIME_STEP_MS), |word| word.start_ms);
    let end_ms = words.last().map_or(absolute(u64::from(span.end) * TIME_STEP_MS), |word| word.end_ms);
    let (no_speech_probability, average_log_probability) = (told.no_speech_probability, told.average_log_probability);
    Segment { start_ms, end_ms, text, words, no_speech_probability, average_log_probability }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_times_is_a_span_and_the_last_may_have_no_end() {
        let time = |token: u32| token.checked_sub(100);
        let found = spans(&[100, 1, 2, 150, 150, 3, 180, 190, 4, 5], time, 400);
        let span = |start, end, tokens| Span { start, end, tokens };
        assert_eq!(found, [span(0, 50, 1..3), span(50, 80, 5..6), span(90, 400, 8..10)]);
        assert_eq!(spans(&[100, 1, 900], time, 400), [span(0, 400, 1..2)], "no later than the window");
        assert!(spans(&[100, 150], time, 400).is_empty());
    }
}
