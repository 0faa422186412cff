//! Pages that hold no text: they are rendered and read, and lines that lie together become blocks.

use crate::Engine;
use std::sync::Arc;
use strata_infer::{Pixels, Registry, TextLine};
use strata_media::{Block, BlockKind, ImageOutput, PageBox, PdfRequest, Rendering, Source};
use strata_model::Result;

/// How far a line may lie below the one before it, as a share of its height, to be of the same block.
const GAP: f32 = 0.9;

/// The blocks of a page with how surely each was read. `dpi` is that of the picture that is read.
pub(super) async fn read(engine: &Arc<Engine>, source: &Source, page: u32, dpi: f32) -> Result<Vec<(Block, f64)>> {
    let rendering = Rendering { dpi, outputs: vec![ImageOutput::original()] };
    let request = PdfRequest { first_page: page, last_page: page, ..PdfRequest::rendered(rendering) };
    let mut pages = engine.media().pdf_pages(source, &request).await?;
    let Some(picture) = pages.next().await?.and_then(|mut page| page.pictures.pop()) else { return Ok(Vec::new()) };
    let reader = engine.text_reader(Registry::default_text_reader()).await?;
    let lines = reader.read(Pixels::new(picture.width, picture.height, picture.bytes)?).await?;
    Ok(blocks(&lines, super::POINTS / dpi))
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
