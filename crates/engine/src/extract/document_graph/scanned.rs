//! Pages that hold no text: they are rendered and read, and lines that lie together become blocks.

use crate::Engine;
use std::{ops::RangeInclusive, sync::Arc};
use strata_infer::{Pixels, Registry, TextLine};
use strata_media::{Block, BlockKind, PageBox, Picture};
use strata_model::Result;

/// Difference of the brightness of two pixels, from 0 to 765, under which nothing can be read.
const FAINT: u16 = 60;
/// How far a line may lie below the one before it, as a share of its height, to be of the same block.
const GAP: f32 = 0.9;

/// Pages in runs that follow each other.
pub(in super::super) fn runs(pages: &[u32]) -> Vec<RangeInclusive<u32>> {
    let mut runs: Vec<RangeInclusive<u32>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end() + 1 == *page => *run = *run.start()..=*page,
            _ => runs.push(*page..=*page),
        }
    }
    runs
}

/// The blocks of a page with how surely each was read. `dpi` is that of its picture.
pub(in super::super) async fn read(engine: &Arc<Engine>, picture: &Picture, dpi: f32) -> Result<Vec<(Block, f64)>> {
    if is_blank(picture) {
        return Ok(Vec::new());
    }
    let reader = engine.text_reader(Registry::default_text_reader()).await?;
    let pixels = Pixels::new(picture.width, picture.height, picture.bytes.clone())?;
    Ok(blocks(&reader.read(pixels).await?, super::POINTS / dpi))
}

/// Whether nothing stands out of a picture: many documents have empty pages.
pub(in super::super) fn is_blank(picture: &Picture) -> bool {
    let mut light = picture.bytes.chunks_exact(3).map(|p| u16::from(p[0]) + u16::from(p[1]) + u16::from(p[2]));
    let first = light.next().unwrap_or(0);
    let (low, high) = light.fold((first, first), |(low, high), light| (low.min(light), high.max(light)));
    high - low < FAINT
}

/// A line's box, in points.
fn bounds(line: &TextLine, scale: f32) -> PageBox {
    let side = |axis: usize, pick: fn(f32, f32) -> f32, start: f32| {
        line.quad.iter().map(|corner| corner[axis] * scale).fold(start, pick)
    };
    PageBox {
        x0: side(0, f32::min, f32::INFINITY).max(0.0),
        y0: side(1, f32::min, f32::INFINITY).max(0.0),
        x1: side(0, f32::max, 0.0),
        y1: side(1, f32::max, 0.0),
    }
}

/// Lines below each other become a block, with the mean of their confidences.
fn blocks(lines: &[TextLine], scale: f32) -> Vec<(Block, f64)> {
    let mut blocks: Vec<(Block, Vec<f32>)> = Vec::new();
    for line in lines {
        let place = bounds(line, scale);
        let height = place.height();
        let continues = |block: &Block| {
            let gap = place.y0 - block.bounds.y1;
            let shared = place.x1.min(block.bounds.x1) - place.x0.max(block.bounds.x0);
            gap < height * GAP && gap > -height && shared > place.width().min(block.bounds.width()) * 0.5
        };
        match blocks.iter_mut().rev().find(|(block, _)| continues(block)) {
            Some((block, confidences)) => {
                block.bounds = block.bounds.with(&place);
                block.text.push('\n');
                block.text.push_str(&line.text);
                confidences.push(line.confidence);
            }
            None => {
                let block = Block {
                    kind: BlockKind::Paragraph,
                    bounds: place,
                    lines: Vec::new(),
                    text: line.text.clone(),
                    font_size: height,
                    bold: false,
                };
                blocks.push((block, vec![line.confidence]));
            }
        }
    }
    let mean = |all: &[f32]| f64::from(all.iter().sum::<f32>()) / all.len().max(1) as f64;
    blocks.into_iter().map(|(block, all)| (block, mean(&all))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, x: f32, y: f32) -> TextLine {
        let quad = [[x, y], [x + 100.0, y], [x + 100.0, y + 10.0], [x, y + 10.0]];
        TextLine { text: text.to_owned(), confidence: 0.8, quad }
    }

    #[test]
    fn a_page_of_one_colour_is_blank() {
        let page = |dot: u8| {
            let mut bytes = vec![250; 300];
            bytes[150..153].fill(dot);
            Picture::rgb8(10, 10, bytes).unwrap()
        };
        assert!(is_blank(&page(245)) && !is_blank(&page(0)));
    }

    #[test]
    fn pages_that_follow_each_other_are_one_run() {
        assert_eq!(runs(&[1, 2, 3, 7, 9, 10]), [1..=3, 7..=7, 9..=10]);
        assert_eq!(runs(&[]), []);
    }

    #[test]
    fn lines_below_each_other_are_one_block() {
        let found = blocks(
            &[line("One", 0.0, 0.0), line("two", 0.0, 14.0), line("Beside", 200.0, 14.0), line("far", 0.0, 90.0)],
            0.5,
        );
        let texts: Vec<&str> = found.iter().map(|(block, _)| block.text.as_str()).collect();
        assert_eq!(texts, ["One\ntwo", "Beside", "far"]);
        let bounds = found[0].0.bounds;
        assert_eq!((bounds.x1, bounds.y1), (50.0, 12.0));
        assert!((found[0].1 - 0.8).abs() < 1e-6);
    }
}
