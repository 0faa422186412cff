//! `document_graph_extractor`: a PDF becomes one document for each block of its pages, with its text, its box, its kind and
//! the headings above it.

pub(super) mod scanned;

use super::{
    Configured, Definition, FileInput, Input, InputFile, NewArtifact, Output, Shape, embed_texts, parameters as p,
    streams,
};
use crate::{Engine, extract::image::stem};
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::Registry;
use strata_media::{
    Block, BlockKind, Crop, Encoding, Family, Filter, Headings, ImageOutput, LayoutOptions, PageBox, PdfPage,
    PdfRequest, Picture, Rendering, Resize, Source,
    limits::{THUMBNAIL_QUALITY, THUMBNAIL_SIDE},
};
use strata_model::{Error, Fields, Result, limits, schema::FieldType};

const INDEX: &str = "document_graph_extractor_v1_text_embedding";
/// Points in an inch.
pub(super) const POINTS: f32 = 72.0;
/// Thumbnails that are stored beside each other.
const STORED_AT_ONCE: usize = 8;

const PARAMETERS: &[p::Parameter] = &[
    p::boolean("use_layout_detection", true, "Find blocks and their kinds; without it, a page is one block."),
    p::ignored(
        "layout_detector",
        || json!("pymupdf"),
        "Without effect: blocks are found by the geometry of their lines.",
    ),
    p::number("vertical_threshold", Some(15.0), (1.0, 100.0), "Points between lines of a block, at most."),
    p::number(
        "horizontal_threshold",
        Some(50.0),
        (1.0, 200.0),
        "Points between the left edges of lines of a block, at most.",
    ),
    p::integer(
        "min_text_length",
        Some(20),
        (1, 500),
        "Characters of a block's text, at least; headings may be shorter.",
    ),
    p::number(
        "base_confidence",
        Some(0.85),
        (0.0, 1.0),
        "Confidence in text that the file itself holds, where all of it is readable.",
    ),
    p::boolean("run_text_embedding", true, "Make a vector of each block's text."),
    p::boolean("generate_thumbnails", true, "Keep pictures of pages and blocks as JPEGs."),
    p::one_of("thumbnail_mode", "both", &["full_page", "segment", "both"], "Pictures of pages, of blocks, or of both."),
    p::integer("thumbnail_dpi", Some(72), (36, 150), "Dots an inch of those pictures."),
    p::boolean("fast_mode", false, "Read text only; nothing is rendered."),
    p::boolean("run_ocr", true, "Read pages that hold no text by looking at them."),
    p::integer("render_dpi", Some(150), (72, 300), "Dots an inch at which such pages are looked at."),
    p::ignored("min_confidence_for_vlm", p::nothing, "Without effect: no model corrects text here."),
    p::ignored("use_vlm_correction", p::nothing, "Without effect: no model corrects text here."),
    p::ignored("vlm_provider", p::nothing, "Without effect: no model corrects text here."),
    p::ignored("vlm_model", p::nothing, "Without effect: no model corrects text here."),
    p::ignored("llm_api_key", p::nothing, "Without effect: no model corrects text here."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "document_graph_extractor",
    version: "v1",
    code_version: 1,
    description: "Takes a PDF apart into blocks (paragraphs, headings, tables, lists, figures) with text, boxes, heading paths and pictures.",
    icon: "file-search",
    category: "document",
    input_types: &[FieldType::Pdf],
    files: &[FileInput::new("pdf", &[Family::Pdf])],
    input_schema: || json!({ "type": "object", "required": ["pdf"], "properties": { "pdf": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "page_number": { "type": "integer" }, "total_pages": { "type": "integer" }, "block_index": { "type": "integer" },
            "object_type": { "type": "string" }, "heading_level": { "type": "integer" },
            "heading_path": { "type": "array", "items": { "type": "string" } },
            "bbox": { "type": "object" }, "page_width": { "type": "number" }, "page_height": { "type": "number" },
            "text_raw": { "type": "string" }, "text_corrected": { "type": "string" }, "text": { "type": "string" },
            "overall_confidence": { "type": "number" }, "confidence_tag": { "type": "string" },
            "thumbnail_url": { "type": "string" }, "segment_thumbnail_url": { "type": "string" },
            "source_file": { "type": "string" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["page_number", "block_index", "bbox"],
    wordless: &["thumbnail_url", "segment_thumbnail_url", "object_type", "confidence_tag"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    let embeds = p::Read(parameters).is("run_text_embedding");
    let reads = p::Read(parameters).is("run_ocr") && !p::Read(parameters).is("fast_mode");
    let index = || {
        let aliases = ["embedding", "text_embedding"];
        super::multimodal::text_index(INDEX.into(), "document_graph_extractor@v1", &aliases)
    };
    Ok(Shape {
        vectors: if embeds { vec![index()?] } else { Vec::new() },
        fields: vec![
            ("text", FieldType::String),
            ("page_number", FieldType::Integer),
            ("object_type", FieldType::String),
            ("heading_path", FieldType::Array),
            ("bbox", FieldType::Object),
            ("block_index", FieldType::Integer),
            ("total_pages", FieldType::Integer),
            ("thumbnail_url", FieldType::String),
            ("segment_thumbnail_url", FieldType::String),
        ],
        models: [(embeds, Registry::default_text_model()), (reads, Registry::default_text_reader())]
            .into_iter()
            .filter(|(is_wanted, _)| *is_wanted)
            .map(|(_, model)| model.to_owned())
            .collect(),
    })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let _room = engine.heavy().await?;
        let job = Job::new(engine, p::Read(&extractor.parameters));
        let mut outputs = Vec::new();
        for file in input.files_of(&[Family::Pdf], "PDF")? {
            outputs.extend(job.file(file, input.span.page).await?);
        }
        if job.embeds {
            let text = |output: &Output| Some(output.fields.get("text")?.as_str()?.to_owned());
            embed_texts(engine, &mut outputs, INDEX, text).await?;
        }
        Ok(outputs)
    })
}

/// A page, as its documents tell of it.
struct Sheet<'a> {
    file: &'a InputFile,
    total: u32,
    number: u32,
    /// Points.
    width: f32,
    height: f32,
}

/// A block that becomes a document.
struct Piece {
    block: Block,
    level: Option<usize>,
    /// Titles of the headings above it.
    path: Vec<String>,
    /// How surely it was read, if it was read off a picture.
    confidence: Option<f64>,
}

struct Job<'a> {
    engine: &'a Arc<Engine>,
    layout: LayoutOptions,
    finds_blocks: bool,
    min_chars: usize,
    base_confidence: f64,
    embeds: bool,
    /// Dots an inch at which pages without text are read.
    reading_dpi: Option<f32>,
    page_pictures: bool,
    block_pictures: bool,
    thumbnail_dpi: f32,
}

impl<'a> Job<'a> {
    fn new(engine: &'a Arc<Engine>, parameters: p::Read<'_>) -> Self {
        let renders = parameters.is("generate_thumbnails") && !parameters.is("fast_mode");
        let mode = parameters.text("thumbnail_mode").unwrap_or("both");
        let defaults = LayoutOptions::default();
        let points = |name: &str, default: f32| parameters.number(name).map_or(default, |n| n as f32);
        Self {
            engine,
            layout: LayoutOptions {
                vertical_threshold: points("vertical_threshold", defaults.vertical_threshold),
                horizontal_threshold: points("horizontal_threshold", defaults.horizontal_threshold),
            },
            finds_blocks: parameters.is("use_layout_detection"),
            min_chars: parameters.integer("min_text_length").unwrap_or(20) as usize,
            base_confidence: parameters.number("base_confidence").unwrap_or(0.85),
            embeds: parameters.is("run_text_embedding"),
            reading_dpi: (parameters.is("run_ocr") && !parameters.is("fast_mode")).then(|| points("render_dpi", 150.0)),
            page_pictures: renders && mode != "segment",
            block_pictures: renders && mode != "full_page",
            thumbnail_dpi: points("thumbnail_dpi", 72.0),
        }
    }

    async fn file(&self, file: &InputFile, page: Option<u32>) -> Result<Vec<Output>> {
        let stored = self.engine.blobs.file(&file.hash).await?;
        let source: Source = stored.path().to_owned().into();
        let total = self.engine.media().pdf(&source).await?.page_count;
        let (first_page, last_page) = page.map_or((1, u32::MAX), |page| (page, page));
        let (layout, rendering) = (self.layout, self.rendering());
        let request = PdfRequest { first_page, last_page, layout, rendering, ..PdfRequest::text() };
        let pages = self.engine.media().pdf_pages(&source, &request).await?;
        // Headings go from page to page, so pages are described in order; pictures are stored beside each other.
        let (mut headings, mut blank) = (Headings::default(), Vec::new());
        let mut outputs = Vec::new();
        {
            let whole = streams::pages(pages).map_ok(|mut page| {
                let picture = page.pictures.pop().map(|picture| (picture, self.thumbnail_dpi));
                let sheet = Sheet { file, total, number: page.number, width: page.width, height: page.height };
                let is_blank = self.reading_dpi.is_some() && page.text.trim().is_empty();
                let pieces = if is_blank { Vec::new() } else { self.blocks(&page, &mut headings) };
                blank.extend(is_blank.then_some(page.number));
                self.page(sheet, pieces, picture).boxed()
            });
            let mut whole = std::pin::pin!(whole.try_buffered(STORED_AT_ONCE));
            while let Some(page) = whole.next().await {
                outputs.extend(page?);
                check_count(&outputs)?;
            }
        }
        // Only now, when no decoder is held any more: else several files could wait for each other's.
        if let Some(dpi) = self.reading_dpi {
            for run in scanned::runs(&blank) {
                outputs.extend(self.scans(file, &source, total, run, dpi).await?);
                check_count(&outputs)?;
            }
            outputs.sort_by_key(|output| output.fields.get("page_number").and_then(Value::as_u64));
        }
        for (at, output) in outputs.iter_mut().enumerate() {
            output.put("block_index", at);
        }
        Ok(outputs)
    }

    /// Pixels where blocks are cut out of them; else the worker that draws a page makes its thumbnail, since pixels are fifty
    /// times as many bytes on their way here.
    fn rendering(&self) -> Option<Rendering> {
        let output = match (self.block_pictures, self.page_pictures) {
            (true, _) => ImageOutput::original(),
            (false, true) => ImageOutput::thumbnail(),
            (false, false) => return None,
        };
        Some(Rendering { dpi: self.thumbnail_dpi, outputs: vec![output] })
    }

    /// Pages without text, read off their pictures.
    async fn scans(
        &self,
        file: &InputFile,
        source: &Source,
        total: u32,
        run: std::ops::RangeInclusive<u32>,
        dpi: f32,
    ) -> Result<Vec<Output>> {
        let rendering = Rendering { dpi, outputs: vec![ImageOutput::original()] };
        let (first_page, last_page) = run.into_inner();
        let request = PdfRequest { first_page, last_page, ..PdfRequest::rendered(rendering) };
        let mut pages = self.engine.media().pdf_pages(source, &request).await?;
        let mut outputs = Vec::new();
        while let Some(mut page) = pages.next().await? {
            let Some(picture) = page.pictures.pop() else { continue };
            let read = scanned::read(self.engine, &picture, dpi).await?;
            let kept = read.into_iter().filter(|(block, _)| block.text.chars().count() >= self.min_chars);
            let piece =
                |(block, confidence)| Piece { block, level: None, path: Vec::new(), confidence: Some(confidence) };
            let sheet = Sheet { file, total, number: page.number, width: page.width, height: page.height };
            outputs.extend(self.page(sheet, kept.map(piece).collect(), Some((picture, dpi))).await?);
        }
        Ok(outputs)
    }

    /// The blocks of a page that become documents.
    fn blocks(&self, page: &PdfPage, headings: &mut Headings) -> Vec<Piece> {
        if !self.finds_blocks {
            let bounds = PageBox { x0: 0.0, y0: 0.0, x1: page.width, y1: page.height };
            let block = Block {
                kind: BlockKind::Paragraph,
                bounds,
                lines: Vec::new(),
                text: page.text.clone(),
                font_size: 0.0,
                bold: false,
            };
            let piece = Piece { block, level: None, path: Vec::new(), confidence: None };
            return if page.text.trim().is_empty() { Vec::new() } else { vec![piece] };
        }
        let mut kept = Vec::new();
        for block in &page.blocks {
            let level = headings.see(block);
            let chars = block.text.trim().chars().count();
            let is_kept = match block.kind {
                BlockKind::Figure => self.block_pictures,
                BlockKind::Heading => chars > 0,
                _ => chars >= self.min_chars,
            };
            if is_kept {
                let path = headings.path().into_iter().map(str::to_owned).collect();
                kept.push(Piece { block: block.clone(), level, path, confidence: None });
            }
        }
        kept
    }

    /// The documents of a page. The picture is one of all of it, with its dots an inch: pixels, or its thumbnail where no
    /// block is to be cut out of it.
    async fn page(&self, sheet: Sheet<'_>, pieces: Vec<Piece>, picture: Option<(Picture, f32)>) -> Result<Vec<Output>> {
        let file = sheet.file;
        let scale = picture.as_ref().map_or(1.0, |(_, dpi)| f64::from(dpi / POINTS));
        let pictured = self.page_pictures || self.block_pictures;
        let picture = picture.filter(|_| pictured).map(|(picture, _)| Arc::new(picture));
        let of_page = match &picture {
            Some(picture) if self.page_pictures && !pieces.is_empty() => {
                let jpeg = match picture.encoding {
                    Encoding::Jpeg(_) => picture.bytes.clone(),
                    _ => jpeg(picture.clone(), None).await?,
                };
                let new = self.artifact("thumbnail", file, format!("{}-{}.jpg", stem(file), sheet.number));
                Some(self.engine.keep_artifact(new, jpeg).await?)
            }
            _ => None,
        };
        let mut outputs = Vec::with_capacity(pieces.len());
        for (at, piece) in pieces.into_iter().enumerate() {
            let mut output = self.describe(&piece);
            output.put("page_number", sheet.number);
            output.put("total_pages", sheet.total);
            output.put("page_width", sheet.width);
            output.put("page_height", sheet.height);
            output.put("source_file", file.filename.clone());
            if let Some(thumbnail) = &of_page {
                output.attach(thumbnail.clone());
            }
            if let Some(picture) = picture.as_ref().filter(|_| self.block_pictures)
                && let Some(crop) = crop(&piece.block.bounds, scale)
            {
                let jpeg = jpeg(picture.clone(), Some(crop)).await?;
                let name = format!("{}-{}-{at}.jpg", stem(file), sheet.number);
                let new = self.artifact("segment_thumbnail", file, name);
                output.attach(self.engine.keep_artifact(new, jpeg).await?);
            }
            outputs.push(output);
        }
        Ok(outputs)
    }

    fn artifact<'f>(&self, field: &'f str, file: &'f InputFile, filename: String) -> NewArtifact<'f> {
        NewArtifact { field, role: "thumbnail", media_type: "image/jpeg", filename, of: Some(file) }
    }

    fn describe(&self, piece: &Piece) -> Output {
        let block = &piece.block;
        let mut output = Output::default();
        output.put("object_type", kind_name(block.kind));
        output.put("heading_level", piece.level);
        output.put("heading_path", piece.path.clone());
        output.put("bbox", bbox(&block.bounds));
        let text = block.text.trim();
        if !text.is_empty() {
            output.put("text", text);
            output.put("text_raw", text);
            output.put("text_corrected", text);
            let confidence = piece.confidence.unwrap_or_else(|| self.base_confidence * readable(text));
            output.put("is_scanned", piece.confidence.map(|_| true));
            output.put("overall_confidence", (confidence * 1000.0).round() / 1000.0);
            output.put("confidence_tag", tag(confidence));
        }
        output
    }
}

/// What documents call a kind of block.
pub(super) fn kind_name(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Paragraph => "paragraph",
        BlockKind::Heading | BlockKind::Header => "header",
        BlockKind::List => "list",
        BlockKind::Table => "table",
        BlockKind::Figure => "figure",
        BlockKind::Footer => "footer",
    }
}

/// A box in points, to a tenth.
pub(super) fn bbox(bounds: &PageBox) -> Value {
    let round = |x: f32| (f64::from(x) * 10.0).round() / 10.0;
    let PageBox { x0, y0, x1, y1 } = bounds;
    json!({ "x0": round(*x0), "y0": round(*y0), "x1": round(*x1), "y1": round(*y1) })
}

fn check_count(outputs: &[Output]) -> Result<()> {
    let most = limits::MAX_DERIVED_DOCUMENTS;
    match outputs.len() > most {
        true => Err(Error::TooLarge(format!("more than {most} blocks; one input makes {most} documents"))),
        false => Ok(()),
    }
}

/// The share of a text's characters that say something: fonts without a table of their letters give none.
fn readable(text: &str) -> f64 {
    let says = |c: &char| *c != '\u{fffd}' && !('\u{e000}'..='\u{f8ff}').contains(c) && (!c.is_control() || *c == '\n');
    let total = text.chars().count().max(1);
    text.chars().filter(says).count() as f64 / total as f64
}

fn tag(confidence: f64) -> &'static str {
    match confidence {
        c if c >= 0.85 => "A",
        c if c >= 0.7 => "B",
        c if c >= 0.5 => "C",
        _ => "D",
    }
}

/// A block's part of the rendered page; `None` where it has no extent.
pub(super) fn crop(bounds: &PageBox, scale: f64) -> Option<Crop> {
    let [left, top] = [bounds.x0, bounds.y0].map(|side| f64::from(side.max(0.0)) * scale);
    let (width, height) = (f64::from(bounds.width()) * scale, f64::from(bounds.height()) * scale);
    (width >= 2.0 && height >= 2.0).then_some(Crop { left, top, width, height })
}

/// A JPEG of a picture, or of a part of it, of the size of thumbnails.
pub(super) async fn jpeg(picture: Arc<Picture>, crop: Option<Crop>) -> Result<Vec<u8>> {
    let size = Resize::Fit { width: THUMBNAIL_SIDE, height: THUMBNAIL_SIDE };
    let make = move || picture.converted(crop, size, Filter::Bicubic, Encoding::Jpeg(THUMBNAIL_QUALITY));
    Ok(tokio::task::spawn_blocking(make).await.map_err(Error::internal)??.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_lowers_the_confidence() {
        assert_eq!(readable("plain\ntext"), 1.0);
        assert_eq!(readable("ab\u{fffd}\u{e001}"), 0.5);
        assert_eq!([0.85, 0.7, 0.5, 0.1].map(tag), ["A", "B", "C", "D"]);
    }
}
