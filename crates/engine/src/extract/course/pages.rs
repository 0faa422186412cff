//! The pages of a book: a document for each element with the heading above it, its code and its picture, or for each page.

use super::super::{
    InputFile, Output,
    document_graph::{POINTS, bbox, crop, jpeg, kind_name, scanned},
    image::keep_thumbnail,
    streams,
};
use super::{check_count, file_key, listing};
use crate::Engine;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;
use std::sync::Arc;
use strata_media::{Block, BlockKind, Headings, ImageOutput, PageBox, PdfPage, PdfRequest, Picture, Rendering, Source};
use strata_model::Result;

/// Characters of an element's text, at least; headings and code may be shorter.
const MIN_CHARS: usize = 20;
/// Pages whose pictures are stored beside each other.
const STORED_AT_ONCE: usize = 4;

/// What is wanted of pages.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A document for each element, not for each page.
    pub by_element: bool,
    pub finds_code: bool,
    /// Read pages that hold no text by looking at them.
    pub reads: bool,
    pub pictures: bool,
    /// A document, too, for a page that shows something and says nothing; only where each page is one.
    pub keeps_wordless: bool,
    /// Pages that are read, from the first one on, where no page is named.
    pub max_pages: u32,
    /// Dots an inch at which pages are looked at.
    pub dpi: f32,
}

/// An element that becomes a document.
struct Piece {
    element_type: &'static str,
    bounds: PageBox,
    text: String,
    code: Option<String>,
    title: Option<String>,
}

/// A page as its documents tell of it.
struct Sheet {
    number: u32,
    total: u32,
}

struct Job<'a> {
    engine: &'a Arc<Engine>,
    file: &'a InputFile,
    key: String,
    settings: Settings,
}

/// The documents of a PDF, or of one page of it.
pub async fn documents(
    engine: &Arc<Engine>,
    file: &InputFile,
    page: Option<u32>,
    settings: Settings,
) -> Result<Vec<Output>> {
    let stored = engine.blobs.file(&file.hash).await?;
    let source: Source = stored.path().to_owned().into();
    let total = engine.media().pdf(&source).await?.page_count;
    let job = Job { engine, file, key: file_key(file), settings };
    let rendering = settings.pictures.then(|| Rendering { dpi: settings.dpi, outputs: vec![ImageOutput::original()] });
    let (first_page, last_page) = page.map_or((1, settings.max_pages), |page| (page, page));
    let request = PdfRequest { first_page, last_page, rendering, ..PdfRequest::text() };
    let pages = engine.media().pdf_pages(&source, &request).await?;
    let (mut headings, mut blank) = (Headings::default(), Vec::new());
    let mut outputs = Vec::new();
    {
        let whole = streams::pages(pages).map_ok(|mut page| {
            let picture = page.pictures.pop();
            let sheet = Sheet { number: page.number, total };
            let is_blank = page.text.trim().is_empty();
            blank.extend((is_blank && settings.reads).then_some(page.number));
            let pieces = if is_blank && settings.reads { Vec::new() } else { job.pieces(&page, &mut headings) };
            job.page(sheet, pieces, picture).boxed()
        });
        let mut whole = std::pin::pin!(whole.try_buffered(STORED_AT_ONCE));
        while let Some(page) = whole.next().await {
            outputs.extend(page?);
            check_count(&outputs)?;
        }
    }
    // Only now, when no decoder is held any more: else several files could wait for each other's.
    for run in scanned::runs(&blank) {
        let rendering = Rendering { dpi: settings.dpi, outputs: vec![ImageOutput::original()] };
        let (first_page, last_page) = run.into_inner();
        let request = PdfRequest { first_page, last_page, ..PdfRequest::rendered(rendering) };
        let mut pages = engine.media().pdf_pages(&source, &request).await?;
        while let Some(mut page) = pages.next().await? {
            let Some(picture) = page.pictures.pop() else { continue };
            let blocks = scanned::read(engine, &picture, settings.dpi).await?;
            let pieces = job.scanned(&page, &picture, blocks.into_iter().map(|(block, _)| block).collect());
            outputs.extend(job.page(Sheet { number: page.number, total }, pieces, Some(picture)).await?);
            check_count(&outputs)?;
        }
    }
    outputs.sort_by_key(|output| output.fields.get("page_number").and_then(Value::as_u64));
    Ok(outputs)
}

impl Job<'_> {
    /// The elements of a page that become documents.
    fn pieces(&self, page: &PdfPage, headings: &mut Headings) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut codes: Vec<String> = Vec::new();
        // Of a page it is the heading that it begins under, or its first.
        let mut title = last(headings);
        for block in &page.blocks {
            let is_heading = headings.see(block).is_some();
            title = title.or_else(|| last(headings));
            let code = match self.settings.finds_code {
                true => listing::code_in(block, &page.lines, &page.text),
                false => None,
            };
            let chars = block.text.trim().chars().count();
            let is_kept = match block.kind {
                BlockKind::Figure => true,
                // Running heads and page numbers say nothing.
                BlockKind::Header | BlockKind::Footer => false,
                _ => chars >= MIN_CHARS || (chars > 0 && (is_heading || code.is_some())),
            };
            if self.settings.by_element && is_kept {
                pieces.push(Piece {
                    element_type: if code.is_some() { "code" } else { kind_name(block.kind) },
                    bounds: block.bounds,
                    text: block.text.trim().to_owned(),
                    code,
                    title: last(headings),
                });
            } else {
                codes.extend(code);
            }
        }
        if self.settings.by_element {
            return pieces;
        }
        if page.text.trim().is_empty() && !self.settings.pictures {
            return Vec::new();
        }
        let code = (!codes.is_empty()).then(|| codes.join("\n\n"));
        vec![Piece { code, title, ..whole(page, page.text.trim().to_owned()) }]
    }

    /// The elements of a page that was read off its picture.
    fn scanned(&self, page: &PdfPage, picture: &Picture, blocks: Vec<Block>) -> Vec<Piece> {
        if !self.settings.by_element {
            let text = blocks.iter().map(|block| block.text.as_str()).collect::<Vec<_>>().join("\n\n");
            let is_kept = !text.is_empty() || (self.settings.keeps_wordless && !scanned::is_blank(picture));
            return if is_kept { vec![whole(page, text)] } else { Vec::new() };
        }
        let kept = blocks.into_iter().filter(|block| block.text.chars().count() >= MIN_CHARS);
        let piece = |block: Block| Piece {
            element_type: kind_name(block.kind),
            bounds: block.bounds,
            text: block.text,
            code: None,
            title: None,
        };
        kept.map(piece).collect()
    }

    /// The documents of a page. The picture is one of all of it.
    async fn page(&self, sheet: Sheet, pieces: Vec<Piece>, picture: Option<Picture>) -> Result<Vec<Output>> {
        let picture = picture.filter(|_| self.settings.pictures).map(Arc::new);
        let scale = f64::from(self.settings.dpi / POINTS);
        let mut outputs = Vec::with_capacity(pieces.len());
        for (at, piece) in pieces.into_iter().enumerate() {
            let mut output = self.describe(&sheet, at, &piece);
            let part = match self.settings.by_element {
                true => crop(&piece.bounds, scale).map(Some),
                false => Some(None),
            };
            if let (Some(picture), Some(part)) = (&picture, part) {
                let jpeg = jpeg(picture.clone(), part).await?;
                let name = format!("-{}-{at}", sheet.number);
                output.attach(keep_thumbnail(self.engine, self.file, &name, jpeg).await?);
            }
            outputs.push(output);
        }
        Ok(outputs)
    }

    fn describe(&self, sheet: &Sheet, at: usize, piece: &Piece) -> Output {
        let key = format!("{}:page:{}:{at}", self.key, sheet.number);
        let mut output = Output { key: Some(key), ..Output::default() };
        output.put("unit_type", if piece.element_type == "figure" { "figure" } else { "pdf_element" });
        output.put("doc_type", "pdf");
        output.put("element_type", piece.element_type);
        output.put("page_number", sheet.number);
        output.put("total_pages", sheet.total);
        output.put("element_index", at);
        output.put("bbox", bbox(&piece.bounds));
        output.put("title", piece.title.clone());
        if !piece.text.is_empty() {
            output.put("text_content", piece.text.as_str());
        }
        if let Some(code) = &piece.code {
            output.put("code_language", listing::language_of(code));
            output.put("code_content", code.as_str());
        }
        output
    }
}

/// All of a page as one element.
fn whole(page: &PdfPage, text: String) -> Piece {
    let bounds = PageBox { x0: 0.0, y0: 0.0, x1: page.width, y1: page.height };
    Piece { element_type: "page", bounds, text, code: None, title: None }
}

/// The nearest heading.
fn last(headings: &Headings) -> Option<String> {
    headings.path().last().map(|title| (*title).to_owned())
}
