//! Pure text splitting: one text in, chunks out, each with its place in the source.
//!
//! Sizes and overlaps count in the unit that [`SplitBy`] names. Every character of the source that is not white space
//! lies in at least one chunk, and a chunk's text is always the slice of the source that its positions name. This
//! module does no I/O and knows no document; time grows with the length of the source plus the length of the chunks.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;
use strata_model::{Error, FieldError, Result};
use unicode_segmentation::UnicodeSegmentation;

/// Largest chunk, in units.
pub const MAX_CHUNK_SIZE: usize = 10_000;
/// Largest overlap of neighbouring chunks, in units.
pub const MAX_CHUNK_OVERLAP: usize = 5_000;

/// The unit a text is cut in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitBy {
    /// Grapheme clusters: what a reader calls a character.
    Characters,
    Words,
    Sentences,
    /// Separated by at least one blank line.
    Paragraphs,
    /// Separated by form feeds.
    Pages,
    /// Cuts a transcript by time upstream; a plain text has no times and stays whole.
    TimeSegments,
    /// Sections by heading, code blocks apart; the size counts characters and cuts sections that are longer.
    Markdown,
    #[default]
    None,
}

impl SplitBy {
    const ALL: [(&'static str, Self); 8] = [
        ("characters", Self::Characters),
        ("words", Self::Words),
        ("sentences", Self::Sentences),
        ("paragraphs", Self::Paragraphs),
        ("pages", Self::Pages),
        ("time_segments", Self::TimeSegments),
        ("markdown", Self::Markdown),
        ("none", Self::None),
    ];
    /// Reads a `split_by` parameter; an unknown word is refused with field `parameters.split_by`.
    pub fn parse(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, by)| *by).ok_or_else(|| {
            let known = Self::ALL.map(|(name, _)| name).join(", ");
            Error::invalid("parameters.split_by", format!("`{text}` is not a way to split; one of {known}"))
        })
    }
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, by)| *by == self).map_or("none", |(name, _)| name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitConfig {
    pub split_by: SplitBy,
    /// Units per chunk.
    pub chunk_size: usize,
    /// Units that a chunk shares with the one before it; smaller than `chunk_size`.
    pub chunk_overlap: usize,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { split_by: SplitBy::None, chunk_size: 1000, chunk_overlap: 0 }
    }
}

impl SplitConfig {
    /// Refuses sizes that cannot work, with the fields `parameters.chunk_size` and `parameters.chunk_overlap`.
    pub fn validate(&self) -> Result<()> {
        let mut wrong = Vec::new();
        if !(1..=MAX_CHUNK_SIZE).contains(&self.chunk_size) {
            wrong.push(FieldError::new("parameters.chunk_size", format!("must be from 1 to {MAX_CHUNK_SIZE}")));
        }
        if self.chunk_overlap > MAX_CHUNK_OVERLAP {
            wrong.push(FieldError::new("parameters.chunk_overlap", format!("must be at most {MAX_CHUNK_OVERLAP}")));
        } else if self.chunk_overlap >= self.chunk_size {
            wrong.push(FieldError::new(
                "parameters.chunk_overlap",
                format!("must be less than `chunk_size` ({})", self.chunk_size),
            ));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChunkKind {
    Section,
    Code,
}

/// One piece of a source text. `text` is the source from `start_byte` to `end_byte`, which are the same places as
/// `start_char` and `end_char` counted in Unicode scalar values; ends are exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub text: String,
    pub start_char: usize,
    pub end_char: usize,
    pub start_byte: usize,
    pub end_byte: usize,
    /// Position among the chunks, from 0.
    pub index: usize,
    /// Headings above the chunk, outermost first; only for markdown.
    pub heading_path: Option<Vec<String>>,
    pub chunk_kind: Option<ChunkKind>,
    /// First word of a fenced block's info string.
    pub code_language: Option<String>,
    /// Page on which the chunk starts, from 1, where the source has form feeds.
    pub page_number: Option<usize>,
}

/// Splits `text`; chunks are trimmed of white space and never empty. Expects a [validated](SplitConfig::validate)
/// configuration.
pub fn split(text: &str, config: &SplitConfig) -> Vec<Chunk> {
    let mut out = Output::new(text, config.split_by, usize::MAX);
    run(text, config, &mut out);
    out.chunks
}

/// [`split`], refusing a text that makes more than `max_chunks` chunks without making them all.
pub fn split_bounded(text: &str, config: &SplitConfig, max_chunks: usize) -> Result<Vec<Chunk>> {
    let mut out = Output::new(text, config.split_by, max_chunks);
    run(text, config, &mut out);
    if out.overflowed {
        return Err(Error::TooLarge(format!(
            "the text makes more than {max_chunks} chunks; raise `chunk_size` or lower `chunk_overlap`"
        )));
    }
    Ok(out.chunks)
}

fn run(text: &str, config: &SplitConfig, out: &mut Output<'_>) {
    let whole = 0..text.len();
    match config.split_by {
        SplitBy::None | SplitBy::TimeSegments => out.push(whole, &Label::default()),
        SplitBy::Characters => windows(text.grapheme_indices(true).map(|(at, _)| at), text.len(), config, out),
        SplitBy::Words => windows(word_starts(text).into_iter(), text.len(), config, out),
        SplitBy::Sentences => {
            let starts = text.split_sentence_bound_indices().filter(|(_, s)| !s.trim().is_empty()).map(|(at, _)| at);
            windows(starts, text.len(), config, out);
        }
        SplitBy::Paragraphs => windows(paragraph_starts(text), text.len(), config, out),
        SplitBy::Pages => {
            let starts = std::iter::once(0).chain(text.match_indices('\u{c}').map(|(at, _)| at + 1));
            windows(starts, text.len(), config, out);
        }
        SplitBy::Markdown => {
            for section in sections(text) {
                section_windows(text, &section, config, out);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Label {
    heading_path: Option<Vec<String>>,
    kind: Option<ChunkKind>,
    language: Option<String>,
}

/// Collects chunks and turns byte offsets into character positions, walking forward only.
struct Output<'t> {
    text: &'t str,
    paged: bool,
    max: usize,
    overflowed: bool,
    starts: Walker,
    ends: Walker,
    chunks: Vec<Chunk>,
}

/// How many characters and form feeds lie before a byte offset. Asking for ascending offsets costs linear time in all.
#[derive(Default)]
struct Walker {
    byte: usize,
    chars: usize,
    pages: usize,
}

impl Walker {
    fn go(&mut self, text: &str, byte: usize) {
        debug_assert!(byte >= self.byte, "chunks come in order");
        let passed = &text[self.byte..byte];
        self.chars += passed.chars().count();
        self.pages += passed.matches('\u{c}').count();
        self.byte = byte;
    }
}

impl<'t> Output<'t> {
    fn new(text: &'t str, by: SplitBy, max: usize) -> Self {
        let paged = by == SplitBy::Pages || text.contains('\u{c}');
        Self {
            text,
            paged,
            max,
            overflowed: false,
            starts: Walker::default(),
            ends: Walker::default(),
            chunks: Vec::new(),
        }
    }

    fn push(&mut self, range: Range<usize>, label: &Label) {
        let part = &self.text[range.clone()];
        let trimmed = part.trim();
        if trimmed.is_empty() || self.overflowed {
            return;
        }
        if self.chunks.len() == self.max {
            self.overflowed = true;
            return;
        }
        let start = range.start + (part.len() - part.trim_start().len());
        let end = start + trimmed.len();
        self.starts.go(self.text, start);
        self.ends.go(self.text, end);
        self.chunks.push(Chunk {
            text: trimmed.to_owned(),
            start_char: self.starts.chars,
            end_char: self.ends.chars,
            start_byte: start,
            end_byte: end,
            index: self.chunks.len(),
            heading_path: label.heading_path.clone(),
            chunk_kind: label.kind,
            code_language: label.language.clone(),
            page_number: self.paged.then_some(self.starts.pages + 1),
        });
    }
}

/// Windows of `chunk_size` units, each `chunk_size - chunk_overlap` units after the one before. `starts` are the
/// ascending byte offsets at which units begin; what lies before the first belongs to it.
fn windows(starts: impl Iterator<Item = usize>, end: usize, config: &SplitConfig, out: &mut Output<'_>) {
    let size = config.chunk_size.max(1);
    let step = size.saturating_sub(config.chunk_overlap).max(1);
    let label = Label::default();
    let mut open: VecDeque<usize> = VecDeque::new();
    let mut closed_units = size;
    for (unit, start) in starts.enumerate() {
        if unit == closed_units {
            if let Some(from) = open.pop_front() {
                out.push(from..start, &label);
            }
            closed_units += step;
        }
        if unit % step == 0 {
            open.push_back(if unit == 0 { 0 } else { start });
        }
        if out.overflowed {
            return;
        }
    }
    // The earliest window that is still open reaches the end; later ones lie inside it.
    if let Some(from) = open.pop_front() {
        out.push(from..end, &label);
    }
}

/// Where words begin. Punctuation goes with the word it touches, so `(` after a space belongs to the next word; a text
/// of nothing but punctuation is one word.
fn word_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut after_space = None;
    for (at, segment) in text.split_word_bound_indices() {
        if segment.chars().any(char::is_alphanumeric) {
            starts.push(after_space.take().unwrap_or(at));
        } else if segment.chars().all(char::is_whitespace) {
            after_space = Some(at + segment.len());
        }
    }
    if starts.is_empty() {
        starts.push(0);
    }
    starts
}

fn paragraph_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut at = 0;
    let mut blank = true;
    text.split_inclusive('\n').filter_map(move |line| {
        let start = at;
        at += line.len();
        let was_blank = std::mem::replace(&mut blank, line.trim().is_empty());
        (was_blank && !blank).then_some(start)
    })
}

struct Section {
    range: Range<usize>,
    label: Label,
}

/// Cuts markdown into sections and code blocks that lie end to end over the whole text. A heading with nothing under
/// it stays with the deeper heading that follows.
fn sections(text: &str) -> Vec<Section> {
    let mut outline = Outline { sections: Vec::new(), path: Vec::new(), start: 0, has_body: false };
    let mut depth = 0_usize;
    let mut heading: Option<(usize, String)> = None;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) if depth == 0 => {
                outline.heading(level as usize, range.start);
                heading = Some((level as usize, String::new()));
                depth += 1;
            }
            Event::End(TagEnd::Heading(_)) if heading.is_some() && depth == 1 => {
                outline.path.extend(heading.take().map(|(level, title)| (level, title.trim().to_owned())));
                depth -= 1;
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => {
                        info.split([' ', ',', '\t']).next().filter(|w| !w.is_empty()).map(str::to_owned)
                    }
                    CodeBlockKind::Indented => None,
                };
                outline.code(range, language);
                depth += 1;
            }
            Event::Start(_) => {
                outline.has_body |= heading.is_none();
                depth += 1;
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(part) | Event::Code(part) => {
                if let Some((_, title)) = &mut heading {
                    title.push_str(&part);
                }
            }
            Event::SoftBreak | Event::HardBreak => {
                if let Some((_, title)) = &mut heading {
                    title.push(' ');
                }
            }
            _ => outline.has_body = true,
        }
    }
    outline.close(text.len());
    outline.sections
}

struct Outline {
    sections: Vec<Section>,
    path: Vec<(usize, String)>,
    start: usize,
    has_body: bool,
}

impl Outline {
    fn titles(&self) -> Option<Vec<String>> {
        Some(self.path.iter().map(|(_, title)| title.clone()).collect())
    }
    fn close(&mut self, at: usize) {
        let label = Label { heading_path: self.titles(), kind: Some(ChunkKind::Section), language: None };
        self.sections.push(Section { range: self.start..at, label });
        self.start = at;
        self.has_body = false;
    }
    fn heading(&mut self, level: usize, at: usize) {
        let deeper = self.path.last().is_some_and(|(above, _)| level > *above);
        if self.has_body || !deeper {
            self.close(at);
        }
        self.path.retain(|(above, _)| *above < level);
    }
    fn code(&mut self, range: Range<usize>, language: Option<String>) {
        // A block inside a list may begin where an earlier one, closed late, has already ended.
        let range = range.start.max(self.start)..range.end.max(self.start);
        self.close(range.start);
        let label = Label { heading_path: self.titles(), kind: Some(ChunkKind::Code), language };
        self.start = range.end;
        self.sections.push(Section { range, label });
    }
}

/// Cuts a section that is longer than `chunk_size` characters, at white space where the last quarter of a piece has any.
fn section_windows(text: &str, section: &Section, config: &SplitConfig, out: &mut Output<'_>) {
    let base = section.range.start;
    let part = &text[section.range.clone()];
    let graphemes: Vec<(usize, &str)> = part.grapheme_indices(true).collect();
    let size = config.chunk_size.max(1);
    let overlap = config.chunk_overlap.min(size - 1);
    let offset = |unit: usize| graphemes.get(unit).map_or(part.len(), |(at, _)| *at);
    let mut start = 0;
    while start < graphemes.len() && !out.overflowed {
        let full = start + size;
        if full >= graphemes.len() {
            out.push(base + offset(start)..base + part.len(), &section.label);
            return;
        }
        let lowest = (start + overlap + 1).max(full - size / 4);
        let end = (lowest..=full).rev().find(|unit| graphemes[*unit - 1].1.trim().is_empty()).unwrap_or(full);
        out.push(base + offset(start)..base + offset(end), &section.label);
        start = end - overlap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(split_by: SplitBy, chunk_size: usize, chunk_overlap: usize) -> SplitConfig {
        SplitConfig { split_by, chunk_size, chunk_overlap }
    }
    fn texts(text: &str, by: SplitBy, size: usize, overlap: usize) -> Vec<String> {
        split(text, &config(by, size, overlap)).into_iter().map(|c| c.text).collect()
    }

    #[test]
    fn units_are_counted_in_their_own_kind() {
        assert_eq!(texts("abcdef", SplitBy::Characters, 4, 2), ["abcd", "cdef"]);
        assert_eq!(texts("e\u{301}e\u{301}x", SplitBy::Characters, 2, 0), ["e\u{301}e\u{301}", "x"]);
        assert_eq!(texts("One two, three (four) five.", SplitBy::Words, 2, 0), ["One two,", "three (four)", "five."]);
        assert_eq!(texts("a b c d e", SplitBy::Words, 3, 1), ["a b c", "c d e"]);
        assert_eq!(
            texts("First one. Second one! Third?", SplitBy::Sentences, 2, 1),
            ["First one. Second one!", "Second one! Third?"]
        );
        assert_eq!(
            texts("p one\nmore\n\n  \np two\r\n\r\np three", SplitBy::Paragraphs, 1, 0),
            ["p one\nmore", "p two", "p three"]
        );
        assert_eq!(texts("whole  text ", SplitBy::None, 1, 0), ["whole  text"]);
        assert_eq!(texts("!?", SplitBy::Words, 1, 0), ["!?"]);
        assert!(texts(" \n ", SplitBy::Sentences, 1, 0).is_empty());
        assert!(texts("", SplitBy::Words, 1, 0).is_empty());
    }

    #[test]
    fn pages_keep_their_numbers() {
        let chunks = split("one\u{c}\u{c}three é\u{c}four", &config(SplitBy::Pages, 1, 0));
        let seen: Vec<_> = chunks.iter().map(|c| (c.text.as_str(), c.page_number)).collect();
        assert_eq!(seen, [("one", Some(1)), ("three é", Some(3)), ("four", Some(4))]);
        assert_eq!((chunks[2].start_char, chunks[2].end_char), (13, 17));
        assert_eq!(split("a b", &config(SplitBy::Words, 1, 0))[0].page_number, None);
    }

    #[test]
    fn markdown_has_heading_paths_and_code_apart() {
        let text = "intro\n\n# Top\n\n## Use *it*\n\nSome text.\n\n```rust ignore\nfn main() {}\n```\n\nAfter.\n\n## Next\n\nEnd.\n";
        let chunks = split(text, &config(SplitBy::Markdown, 1000, 0));
        let seen: Vec<_> = chunks
            .iter()
            .map(|c| (c.text.as_str(), c.heading_path.clone().unwrap_or_default().join("/"), c.chunk_kind))
            .collect();
        assert_eq!(
            seen,
            [
                ("intro", String::new(), Some(ChunkKind::Section)),
                ("# Top\n\n## Use *it*\n\nSome text.", "Top/Use it".into(), Some(ChunkKind::Section)),
                ("```rust ignore\nfn main() {}\n```", "Top/Use it".into(), Some(ChunkKind::Code)),
                ("After.", "Top/Use it".into(), Some(ChunkKind::Section)),
                ("## Next\n\nEnd.", "Top/Next".into(), Some(ChunkKind::Section)),
            ]
        );
        assert_eq!(chunks[2].code_language.as_deref(), Some("rust"));
    }

    #[test]
    fn long_sections_are_cut_at_white_space() {
        assert_eq!(texts("# T\n\naaaa bbbb cccc dddd", SplitBy::Markdown, 12, 0), ["# T\n\naaaa", "bbbb cccc", "dddd"]);
    }

    #[test]
    fn sizes_that_cannot_work_are_refused() {
        assert!(config(SplitBy::Words, 10, 9).validate().is_ok());
        for (size, overlap, field) in [
            (10, 10, "parameters.chunk_overlap"),
            (0, 0, "parameters.chunk_size"),
            (10_000, 5_001, "parameters.chunk_overlap"),
        ] {
            match config(SplitBy::Words, size, overlap).validate() {
                Err(Error::Invalid(list)) => assert_eq!(list[0].field, field),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(split_bounded("a b c", &config(SplitBy::Words, 1, 0), 2), Err(Error::TooLarge(_))));
        assert_eq!(split_bounded("a b c", &config(SplitBy::Words, 1, 0), 3).unwrap().len(), 3);
    }

    fn random_text(state: &mut u64) -> String {
        let mut next = |n: u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) % n
        };
        let pieces = [
            "word",
            "é",
            " ",
            "\n",
            "\n\n",
            "\u{c}",
            ". ",
            "! ",
            "# ",
            "## H\n",
            "```\n",
            "```rs\n",
            "> ",
            "- ",
            "    x",
            "\t",
            "漢字",
            "👩‍👩‍👧",
            "\u{301}",
            "\r\n",
            "(",
            "*",
            "`",
            "|",
            "<b>",
            "1.",
            "===",
        ];
        (0..next(60)).fold(String::new(), |mut text, _| {
            match next(8) {
                0 => text.extend(char::from_u32(next(0x11_0000) as u32)),
                _ => text.push_str(pieces[next(pieces.len() as u64) as usize]),
            }
            text
        })
    }

    #[test]
    fn every_visible_character_lies_in_a_chunk_and_positions_hold() {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = std::env::var("SPLIT_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(clock);
        println!("SPLIT_SEED={seed}");
        let mut state = seed;
        for round in 0..400 {
            let text = random_text(&mut state);
            let chars: Vec<char> = text.chars().collect();
            for (_, by) in SplitBy::ALL {
                let size = 1 + round % 7;
                let chunks = split(&text, &config(by, size, round % size));
                let mut covered = vec![false; chars.len()];
                for (i, chunk) in chunks.iter().enumerate() {
                    assert_eq!(chunk.index, i);
                    assert_eq!(chunk.text, text[chunk.start_byte..chunk.end_byte], "{by:?} {text:?}");
                    assert_eq!(chunk.text, chars[chunk.start_char..chunk.end_char].iter().collect::<String>());
                    covered[chunk.start_char..chunk.end_char].fill(true);
                }
                for (i, c) in chars.iter().enumerate() {
                    assert!(covered[i] || c.is_whitespace(), "seed {seed}: {by:?} lost {c:?} at {i} of {text:?}");
                }
            }
        }
    }
}
