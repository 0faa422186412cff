//! Where in a document a block stands: under which headings.

use super::{Block, BlockKind};

/// Keeps the headings that are open while the blocks of a document come by in order. A heading closes those of its size or
/// smaller; of equal size bold counts as larger.
#[derive(Debug, Clone, Default)]
pub struct Headings {
    open: Vec<(f32, bool, String)>,
}

/// Headings within each other, at most.
const MAX_DEPTH: usize = 12;

impl Headings {
    /// Takes the next block. For a heading, its level: 1 is the highest.
    pub fn see(&mut self, block: &Block) -> Option<usize> {
        if block.kind != BlockKind::Heading {
            return None;
        }
        let above = |open: &(f32, bool, String)| {
            open.0 > block.font_size * 1.05
                || ((open.0 - block.font_size).abs() <= block.font_size * 0.05 && open.1 && !block.bold)
        };
        while self.open.last().is_some_and(|last| !above(last)) || self.open.len() >= MAX_DEPTH {
            self.open.pop();
        }
        let title = block.text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.open.push((block.font_size, block.bold, title));
        Some(self.open.len())
    }

    /// Titles of the open headings, the highest first.
    pub fn path(&self) -> Vec<&str> {
        self.open.iter().map(|(_, _, title)| title.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pdf::PageBox;

    fn block(kind: BlockKind, font_size: f32, bold: bool, text: &str) -> Block {
        let bounds = PageBox { x0: 0.0, y0: 0.0, x1: 1.0, y1: 1.0 };
        Block { kind, bounds, lines: vec![], text: text.to_owned(), font_size, bold }
    }

    #[test]
    fn a_heading_closes_its_equals() {
        let mut headings = Headings::default();
        assert_eq!(headings.see(&block(BlockKind::Heading, 20.0, true, "1 One")), Some(1));
        assert_eq!(headings.see(&block(BlockKind::Paragraph, 10.0, false, "text")), None);
        assert_eq!(headings.see(&block(BlockKind::Heading, 14.0, true, "1.1\nSub")), Some(2));
        assert_eq!(headings.see(&block(BlockKind::Heading, 14.0, false, "thin")), Some(3));
        assert_eq!(headings.path(), ["1 One", "1.1 Sub", "thin"]);
        assert_eq!(headings.see(&block(BlockKind::Heading, 14.1, true, "1.2")), Some(2));
        assert_eq!(headings.see(&block(BlockKind::Heading, 20.0, true, "2")), Some(1));
        assert_eq!(headings.path(), ["2"]);
    }
}
