//! Lines and blocks of a page by geometry: characters in reading order become lines, lines become blocks, and blocks are
//! told apart by their place and their type. No model is asked.

use super::{Block, BlockKind, LayoutOptions, Line, PageBox};
use std::collections::HashMap;

/// A character as the page has it, in reading order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Glyph {
    pub character: char,
    /// Absent for white space that was put in between.
    pub bounds: Option<PageBox>,
    pub font_size: f32,
    pub bold: bool,
    pub monospaced: bool,
}

/// How many characters each size of type has, over the pages seen so far.
#[derive(Debug, Default)]
pub(super) struct Sizes(HashMap<u32, u64>);

impl Sizes {
    fn add(&mut self, line: &Line) {
        *self.0.entry((line.font_size * 4.0).round() as u32).or_default() += u64::from(line.end - line.start);
    }
    /// The size that most characters have.
    fn body(&self) -> f32 {
        let most = self.0.iter().max_by_key(|(size, count)| (**count, **size));
        most.map_or(10.0, |(size, _)| *size as f32 / 4.0)
    }
}

/// The text of a page, the box of each of its characters, and its lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub text: String,
    pub boxes: Vec<PageBox>,
    pub lines: Vec<Line>,
    /// For each line, whether it lies on the same height as the one before, right of it.
    beside: Vec<bool>,
}

/// A gap wider than this many sizes of type parts a line in two: two cells of a table, or two columns.
const CELL_GAP: f32 = 2.0;
/// Rows with cells that make a table.
const MIN_TABLE_ROWS: usize = 3;
/// The share of a page's height that belongs to headers, and to footers.
const EDGE: f32 = 0.085;
/// Blocks that may still take a line: columns whose lines come in turns.
const OPEN_BLOCKS: usize = 8;

/// Puts characters together into lines.
pub(super) fn lines(glyphs: &[Glyph]) -> Lines {
    let mut made = Lines::default();
    let mut current: Vec<Glyph> = Vec::new();
    let mut beside = false;
    for glyph in glyphs {
        if matches!(glyph.character, '\r' | '\n' | '\u{2028}') {
            made.close(&mut current, beside);
            beside = false;
            continue;
        }
        let last = current.iter().rev().find_map(|g| Some((g.bounds?, g.font_size)));
        if let (Some(here), Some((last, size))) = (glyph.bounds, last) {
            let middle = (here.y0 + here.y1) / 2.0;
            let same_height = middle > last.y0 && middle < last.y1;
            let gap = here.x0 - last.x1;
            if !same_height || gap > CELL_GAP * size.max(4.0) || gap < -20.0 * size.max(4.0) {
                made.close(&mut current, beside);
                beside = same_height && gap > 0.0;
            }
        }
        current.push(*glyph);
    }
    made.close(&mut current, beside);
    made
}

impl Lines {
    fn close(&mut self, glyphs: &mut Vec<Glyph>, beside: bool) {
        let is_blank = |g: &Glyph| g.character.is_whitespace() || g.bounds.is_none();
        while glyphs.last().is_some_and(is_blank) {
            glyphs.pop();
        }
        let blank = glyphs.iter().take_while(|g| is_blank(g)).count();
        let kept = glyphs.drain(..).skip(blank).collect::<Vec<_>>();
        let Some(first) = kept.first().and_then(|g| g.bounds) else { return };
        if !self.text.is_empty() {
            self.text.push('\n');
            self.boxes.push(PageBox { x0: first.x0, y0: first.y0, x1: first.x0, y1: first.y1 });
        }
        let start = self.boxes.len() as u32;
        let (mut bounds, mut last) = (first, first);
        let mut sizes = HashMap::<u32, u32>::new();
        let (mut bold, mut monospaced) = (0usize, 0usize);
        for glyph in &kept {
            // White space without a box stands at the end of what is before it.
            let at = glyph.bounds.unwrap_or(PageBox { x0: last.x1, ..last });
            self.text.push(glyph.character);
            self.boxes.push(at);
            if !glyph.character.is_whitespace() {
                bounds = bounds.with(&at);
                *sizes.entry((glyph.font_size * 4.0).round() as u32).or_default() += 1;
                bold += usize::from(glyph.bold);
                monospaced += usize::from(glyph.monospaced);
            }
            last = at;
        }
        let size =
            sizes.iter().max_by_key(|(size, count)| (**count, **size)).map_or(0.0, |(size, _)| *size as f32 / 4.0);
        let end = self.boxes.len() as u32;
        let letters = kept.iter().filter(|glyph| !glyph.character.is_whitespace()).count();
        let monospaced = monospaced * 2 > letters;
        self.lines.push(Line { start, end, bounds, font_size: size, bold: bold * 2 > kept.len(), monospaced });
        self.beside.push(beside);
    }

    fn text_of(&self, starts: &[usize], line: &Line) -> &str {
        let at = |character: u32| starts.get(character as usize).copied().unwrap_or(self.text.len());
        &self.text[at(line.start)..at(line.end)]
    }
}

/// Blocks of the lines and of the `figures` of a page of `width` by `height` points.
pub(super) fn blocks(
    page: &Lines,
    figures: &[PageBox],
    (width, height): (f32, f32),
    options: LayoutOptions,
    sizes: &mut Sizes,
) -> Vec<Block> {
    page.lines.iter().for_each(|line| sizes.add(line));
    let body = sizes.body();
    let starts: Vec<usize> = page.text.char_indices().map(|(at, _)| at).collect();
    let tables = tables(page, width);
    let mut groups: Vec<(Vec<usize>, bool)> = Vec::new();
    for (index, line) in page.lines.iter().enumerate() {
        if let Some(table) = tables.iter().find(|t| t.contains(&index)) {
            if table.start == index {
                groups.push((table.clone().collect(), true));
            }
            continue;
        }
        let fits = |group: &&mut (Vec<usize>, bool)| {
            !group.1 && group.0.last().is_some_and(|last| follows(&page.lines[*last], line, options))
        };
        match groups.iter_mut().rev().take(OPEN_BLOCKS).find(fits) {
            // A new item of a list goes with the list, a bullet after plain text does not.
            Some(group) => group.0.push(index),
            None => groups.push((vec![index], false)),
        }
    }
    let mut blocks: Vec<Block> = groups
        .into_iter()
        .map(|(members, is_table)| {
            let lines: Vec<&Line> = members.iter().map(|i| &page.lines[*i]).collect();
            let texts: Vec<&str> = lines.iter().map(|line| page.text_of(&starts, line)).collect();
            let bounds = lines.iter().skip(1).fold(lines[0].bounds, |all, line| all.with(&line.bounds));
            let largest = lines.iter().map(|l| l.font_size).fold(0.0, f32::max);
            let bold = lines.iter().filter(|l| l.bold).count() * 2 > lines.len();
            let kind =
                if is_table { BlockKind::Table } else { kind(&texts, bounds, largest, bold, body, (width, height)) };
            let text = if is_table { rows(page, &members, &texts) } else { texts.join("\n") };
            let lines = members.iter().map(|i| *i as u32).collect();
            Block { kind, bounds, lines, text, font_size: largest, bold }
        })
        .collect();
    blocks.extend(figures.iter().map(|bounds| Block {
        kind: BlockKind::Figure,
        bounds: *bounds,
        lines: Vec::new(),
        text: String::new(),
        font_size: 0.0,
        bold: false,
    }));
    blocks
}

/// Whether `next` goes on where `last` ends.
fn follows(last: &Line, next: &Line, options: LayoutOptions) -> bool {
    let distance = next.bounds.y1 - last.bounds.y1;
    let larger = last.font_size.max(next.font_size);
    let same_line = distance.abs() < larger * 0.4;
    let below = distance > 0.0 && distance <= options.vertical_threshold.max(larger * 1.35);
    let alike = larger <= last.font_size.min(next.font_size) * 1.2 && (last.bold == next.bold || same_line);
    let above_each_other = next.bounds.x0 < last.bounds.x1 && last.bounds.x0 < next.bounds.x1;
    let near = (next.bounds.x0 - last.bounds.x0).abs() <= options.horizontal_threshold;
    let beside = next.bounds.x0 - last.bounds.x1;
    alike && ((below && above_each_other && near) || (same_line && beside.abs() <= options.horizontal_threshold / 2.0))
}

/// Runs of lines that are rows with cells: at least three rows of two or more cells, one of them narrow, with left edges
/// that come again.
fn tables(page: &Lines, width: f32) -> Vec<std::ops::Range<usize>> {
    let mut rows: Vec<std::ops::Range<usize>> = Vec::new();
    for index in 0..page.lines.len() {
        match rows.last_mut() {
            Some(row) if page.beside[index] => row.end = index + 1,
            _ => rows.push(index..index + 1),
        }
    }
    let has_cells = |row: &std::ops::Range<usize>| {
        row.len() >= 2 && page.lines[row.clone()].iter().any(|cell| cell.bounds.width() < width * 0.3)
    };
    let aligned = |a: &std::ops::Range<usize>, b: &std::ops::Range<usize>| {
        let lefts = |row: &std::ops::Range<usize>| page.lines[row.clone()].iter().map(|c| c.bounds).collect::<Vec<_>>();
        let (a, b) = (lefts(a), lefts(b));
        let near = |x: f32, y: f32| (x - y).abs() < 6.0;
        let matching = a.iter().filter(|x| b.iter().any(|y| near(x.x0, y.x0) || near(x.x1, y.x1))).count();
        matching >= 2
    };
    let mut tables = Vec::new();
    let mut at = 0;
    while at < rows.len() {
        let mut end = at;
        while end < rows.len() && has_cells(&rows[end]) && (end == at || aligned(&rows[end - 1], &rows[end])) {
            end += 1;
        }
        if end - at >= MIN_TABLE_ROWS {
            tables.push(rows[at].start..rows[end - 1].end);
        }
        at = end.max(at + 1);
    }
    tables
}

/// The text of a table: a line for each row, cells separated by tabs.
fn rows(page: &Lines, members: &[usize], texts: &[&str]) -> String {
    let mut text = String::new();
    for (index, cell) in members.iter().zip(texts) {
        if !text.is_empty() {
            text.push(if page.beside[*index] { '\t' } else { '\n' });
        }
        text.push_str(cell);
    }
    text
}

fn kind(
    texts: &[&str],
    bounds: PageBox,
    font_size: f32,
    bold: bool,
    body: f32,
    (width, height): (f32, f32),
) -> BlockKind {
    let few = texts.len() <= 2 && bounds.height() < height * 0.06;
    if few && font_size <= body * 1.3 && bounds.y1 <= height * EDGE {
        return BlockKind::Header;
    }
    if few && font_size <= body * 1.3 && bounds.y0 >= height * (1.0 - EDGE) {
        return BlockKind::Footer;
    }
    let items = texts.iter().filter(|text| begins_item(text)).count();
    let letters = texts.iter().flat_map(|t| t.chars()).filter(|c| c.is_alphabetic()).count();
    let large = font_size >= body * 1.15;
    let short = texts.len() <= 3 && letters >= 2 && texts.iter().map(|t| t.len()).sum::<usize>() <= 200;
    let alone = bold && texts.len() == 1 && bounds.width() < width * 0.7 && font_size >= body * 0.98;
    if short && (large || alone) && !texts[0].ends_with(['.', ',', ';']) {
        return BlockKind::Heading;
    }
    if items > 0 && (begins_item(texts[0]) || items * 2 >= texts.len()) {
        return BlockKind::List;
    }
    BlockKind::Paragraph
}

/// A bullet, or a number or letter with a full stop or parenthesis.
fn begins_item(text: &str) -> bool {
    let text = text.trim_start();
    let mut characters = text.chars();
    match characters.next() {
        Some('•' | '◦' | '▪' | '■' | '‣' | '·' | '●' | '○' | '∙' | '\u{f0b7}') => true,
        Some('-' | '–' | '—' | '*' | '+') => characters.next() == Some(' '),
        Some(first) if first.is_ascii_alphanumeric() || first == '(' => {
            let rest = text.trim_start_matches('(');
            let label = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).count();
            let numbered = rest.chars().take(label).all(|c| c.is_ascii_digit()) && label <= 3;
            let lettered = label == 1;
            let mut after = rest.chars().skip(label);
            label > 0
                && (numbered || lettered)
                && matches!((after.next(), after.next()), (Some('.' | ')'), Some(' ') | None))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters of `text` from (`x`, `y`) on, each half as wide as high.
    fn write(glyphs: &mut Vec<Glyph>, x: f32, y: f32, font_size: f32, bold: bool, text: &str) {
        for (i, character) in text.chars().enumerate() {
            let x0 = x + i as f32 * font_size / 2.0;
            let bounds = PageBox { x0, y0: y, x1: x0 + font_size / 2.0, y1: y + font_size };
            glyphs.push(Glyph { character, bounds: Some(bounds), font_size, bold, monospaced: false });
        }
        glyphs.push(Glyph { character: '\n', bounds: None, font_size, bold, monospaced: false });
    }

    fn kinds(glyphs: &[Glyph]) -> Vec<(BlockKind, String)> {
        let page = lines(glyphs);
        assert_eq!(page.boxes.len(), page.text.chars().count());
        let mut sizes = Sizes::default();
        let made = blocks(&page, &[], (600.0, 800.0), LayoutOptions::default(), &mut sizes);
        made.into_iter().map(|b| (b.kind, b.text)).collect()
    }

    #[test]
    fn headings_paragraphs_and_lists_are_told_apart() {
        let mut glyphs = Vec::new();
        write(&mut glyphs, 50.0, 20.0, 8.0, false, "Chapter 1: something");
        write(&mut glyphs, 50.0, 100.0, 16.0, true, "1 Introduction");
        write(&mut glyphs, 50.0, 130.0, 10.0, false, "This is the first line of a paragraph that goes");
        write(&mut glyphs, 50.0, 142.0, 10.0, false, "on here and ends in the second.");
        write(&mut glyphs, 50.0, 170.0, 10.0, false, "• one");
        write(&mut glyphs, 50.0, 182.0, 10.0, false, "• two");
        write(&mut glyphs, 290.0, 780.0, 10.0, false, "7");
        let found = kinds(&glyphs);
        let expected = [
            (BlockKind::Header, "Chapter 1: something"),
            (BlockKind::Heading, "1 Introduction"),
            (BlockKind::Paragraph, "This is the first line of a paragraph that goes\non here and ends in the second."),
            (BlockKind::List, "• one\n• two"),
            (BlockKind::Footer, "7"),
        ];
        assert_eq!(found, expected.map(|(kind, text)| (kind, text.to_owned())));
    }

    #[test]
    fn columns_are_not_mixed() {
        let mut glyphs = Vec::new();
        for row in 0..4 {
            let y = 100.0 + row as f32 * 12.0;
            write(&mut glyphs, 50.0, y, 10.0, false, "left column with a lot of words in it, ok");
            write(&mut glyphs, 320.0, y, 10.0, false, "right column with a lot of words, ok");
        }
        let found = kinds(&glyphs);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|(kind, text)| *kind == BlockKind::Paragraph && text.lines().count() == 4));
    }

    #[test]
    fn rows_of_cells_are_a_table() {
        let mut glyphs = Vec::new();
        for row in 0..4 {
            for column in 0..3 {
                write(&mut glyphs, 50.0 + 120.0 * column as f32, 100.0 + row as f32 * 14.0, 10.0, false, "cell");
                glyphs.pop(); // the row goes on
            }
            glyphs.push(Glyph { character: '\n', bounds: None, font_size: 10.0, bold: false, monospaced: false });
        }
        let rows = "cell\tcell\tcell";
        assert_eq!(kinds(&glyphs), [(BlockKind::Table, [rows; 4].join("\n"))]);
    }

    #[test]
    fn labels_of_items() {
        for text in ["• a", "- a", "1. a", "12) a", "(a) b", "a) b"] {
            assert!(begins_item(text), "{text}");
        }
        for text in ["-1 is less", "1995 was", "A sentence.", "e.g. this", "", "3.14 is"] {
            assert!(!begins_item(text), "{text}");
        }
    }
}
