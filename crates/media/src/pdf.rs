//! PDFs. What is asked of one, and what comes back; `document` reads it inside a worker, `layout` finds lines and blocks.
//! Boxes are in points (1/72 inch) from the upper left corner of the page as it is shown.

pub(crate) mod document;
mod headings;
mod layout;
pub(crate) mod wire;

use crate::{
    fault::Failure,
    image::ImageOutput,
    limits::{MAX_DPI, MAX_OUTPUTS},
    picture::Picture,
};
pub(crate) use document::Library;
pub use headings::Headings;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// A rectangle of a page, in points from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PageBox {
    pub x0: f32,
    pub y0: f32,
    pub x1: f32,
    pub y1: f32,
}

impl PageBox {
    pub fn width(&self) -> f32 {
        self.x1 - self.x0
    }
    pub fn height(&self) -> f32 {
        self.y1 - self.y0
    }
    /// The smallest rectangle that holds both.
    pub fn with(&self, other: &Self) -> Self {
        Self {
            x0: self.x0.min(other.x0),
            y0: self.y0.min(other.y0),
            x1: self.x1.max(other.x1),
            y1: self.y1.max(other.y1),
        }
    }
}

/// What a PDF says of itself as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PdfDocument {
    pub page_count: u32,
    /// Width and height of each page in points, as it is shown.
    pub page_sizes: Vec<(f32, f32)>,
    pub title: Option<String>,
    pub author: Option<String>,
    pub subject: Option<String>,
    pub keywords: Option<String>,
    pub creator: Option<String>,
    pub producer: Option<String>,
    /// As the file writes it, for example `D:20230120164900Z`.
    pub created: Option<String>,
    pub outline: Vec<OutlineEntry>,
}

/// An entry of the table of contents that readers show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlineEntry {
    pub title: String,
    /// 1 is the highest.
    pub level: u32,
    /// From 1; absent where the entry leads to no page.
    pub page_number: Option<u32>,
}

/// What is wanted of pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PdfRequest {
    /// From 1.
    pub first_page: u32,
    /// The last page that is read; the document's last if it has fewer.
    pub last_page: u32,
    /// Text, lines and blocks.
    pub text: bool,
    /// The box of each character besides.
    pub char_boxes: bool,
    pub layout: LayoutOptions,
    pub rendering: Option<Rendering>,
}

impl PdfRequest {
    /// Text, lines and blocks of all pages.
    pub fn text() -> Self {
        Self {
            first_page: 1,
            last_page: u32::MAX,
            text: true,
            char_boxes: false,
            layout: LayoutOptions::default(),
            rendering: None,
        }
    }

    /// All pages rendered.
    pub fn rendered(rendering: Rendering) -> Self {
        Self { text: false, rendering: Some(rendering), ..Self::text() }
    }

    /// Pages of a document with `page_count`.
    pub(crate) fn range(&self, page_count: u32) -> Result<RangeInclusive<u32>, Failure> {
        if self.first_page == 0 || self.first_page > page_count {
            return Err(Failure::file(format!("there is no page {} among {page_count}", self.first_page)));
        }
        if let Some(rendering) = &self.rendering {
            if !(1.0..=MAX_DPI).contains(&rendering.dpi) {
                return Err(Failure::ours(format!("pages are rendered at 1 to {MAX_DPI} dots an inch")));
            }
            if rendering.outputs.is_empty() || rendering.outputs.len() > MAX_OUTPUTS {
                return Err(Failure::ours(format!("one to {MAX_OUTPUTS} outputs can be made of a page")));
            }
        }
        Ok(self.first_page..=self.last_page.min(page_count))
    }
}

/// When lines belong together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayoutOptions {
    /// Largest distance in points from one line to the next within a block; lines of larger type may be 1.35 of their size
    /// apart.
    pub vertical_threshold: f32,
    /// Largest distance in points between the left edges of the lines of a block, where they do not lie above each other.
    pub horizontal_threshold: f32,
}

impl Default for LayoutOptions {
    fn default() -> Self {
        Self { vertical_threshold: 15.0, horizontal_threshold: 50.0 }
    }
}

/// Pages as pictures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rendering {
    /// Dots an inch, at most 600. A page at 72 has as many pixels as points.
    pub dpi: f32,
    /// What is made of the rendered page. Crops are in its pixels.
    pub outputs: Vec<ImageOutput>,
}

/// A page of a PDF.
#[derive(Debug, Clone, PartialEq)]
pub struct PdfPage {
    /// From 1.
    pub number: u32,
    /// Points.
    pub width: f32,
    /// Points.
    pub height: f32,
    /// All text in reading order, lines separated by `\n`. Empty for a page that is only a picture.
    pub text: String,
    pub lines: Vec<Line>,
    pub blocks: Vec<Block>,
    /// As many as `text` has characters, if they were asked for.
    pub char_boxes: Vec<PageBox>,
    /// As many as the rendering has outputs.
    pub pictures: Vec<Picture>,
}

/// A line of text, or the part of one that lies in one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// First character in the page's text, counted in characters.
    pub start: u32,
    /// One after the last character.
    pub end: u32,
    pub bounds: PageBox,
    /// Points; of most of its characters.
    pub font_size: f32,
    pub bold: bool,
    /// Whether most of its letters are as wide as each other, as those of code are.
    pub monospaced: bool,
}

/// Lines that belong together, or a picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Block {
    pub kind: BlockKind,
    pub bounds: PageBox,
    /// Its lines, as indices into those of the page; none for a figure.
    pub lines: Vec<u32>,
    pub text: String,
    /// Points; of most of its lines.
    pub font_size: f32,
    pub bold: bool,
}

/// What a block looks like, judged by its place, its type and its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    Paragraph,
    /// Type larger than most of the document's, or bold and alone. Its level comes from [`Headings`].
    Heading,
    List,
    Table,
    /// A picture of at least a hundredth of the page.
    Figure,
    /// At the top edge, on pages like it.
    Header,
    /// At the bottom edge.
    Footer,
}
