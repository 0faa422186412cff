//! Reading PDFs with PDFium, in a worker. The library is found by its path and loaded when the first PDF comes.

use super::{OutlineEntry, PageBox, PdfDocument as Document, PdfPage, PdfRequest, layout, wire};
use crate::{
    detect::MediaKind,
    fault::Failure,
    limits::{MAX_OUTLINE_DEPTH, MAX_OUTLINE_ENTRIES, MAX_PAGE_CHARS, MAX_PAGE_OBJECTS, MAX_PAGES},
    picture::{self, Encoding, Picture},
    probe::Probe,
};
use pdfium_render::prelude::{
    PdfBitmapFormat, PdfBookmark, PdfColor, PdfDocument, PdfDocumentMetadataTagType, PdfFontWeight, PdfPage as Page,
    PdfPageObjectCommon, PdfPageObjectType, PdfPageObjectsCommon, PdfPageRenderRotation, PdfPageTextChar,
    PdfRenderConfig, Pdfium, PdfiumError, PdfiumInternalError,
};
use std::{fs, path::Path, path::PathBuf};

/// PDFium, once it is needed.
pub(crate) struct Library {
    path: Option<PathBuf>,
    loaded: Option<Pdfium>,
}

/// Files up to this are read at once; of larger ones only the parts that are needed.
const WHOLE_FILE_BYTES: u64 = 64 << 20;

impl Library {
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, loaded: None }
    }

    pub fn get(&mut self) -> Result<&Pdfium, Failure> {
        if self.loaded.is_none() {
            let path = self.path.as_ref().ok_or_else(|| {
                Failure::missing("PDFs are read with PDFium, which is not there: run `strata models pull media_tools`")
            })?;
            let bindings = Pdfium::bind_to_library(path)
                .map_err(|error| Failure::missing(format!("`{}` cannot be loaded: {error:?}", path.display())))?;
            self.loaded = Some(Pdfium::new(bindings));
        }
        self.loaded.as_ref().ok_or_else(|| Failure::ours("PDFium is loaded"))
    }
}

/// An open document, and what is known of its type sizes so far.
pub(crate) struct Open<'a> {
    document: PdfDocument<'a>,
    page_count: u32,
    sizes: layout::Sizes,
}

pub(crate) fn open<'a>(pdfium: &'a Pdfium, path: Option<&Path>, body: &[u8]) -> Result<Open<'a>, Failure> {
    let unreadable = |error: std::io::Error| Failure::ours(format!("the file cannot be read: {error}"));
    let document = match path {
        None => pdfium.load_pdf_from_byte_vec(body.to_vec(), None),
        Some(path) if fs::metadata(path).map_err(unreadable)?.len() <= WHOLE_FILE_BYTES => {
            pdfium.load_pdf_from_byte_vec(fs::read(path).map_err(unreadable)?, None)
        }
        Some(path) => pdfium.load_pdf_from_file(path, None),
    };
    let document = document.map_err(failure)?;
    let page_count = u32::try_from(document.pages().len()).unwrap_or(0);
    if page_count == 0 {
        return Err(Failure::file("the PDF has no pages"));
    }
    if page_count > MAX_PAGES {
        return Err(Failure::limit(format!("the PDF has {page_count} pages; at most {MAX_PAGES} are read")));
    }
    Ok(Open { document, page_count, sizes: layout::Sizes::default() })
}

impl Open<'_> {
    pub fn page_count(&self) -> u32 {
        self.page_count
    }
}

/// What a look into a PDF tells. One that needs a password is described, not refused.
pub(crate) fn probe(pdfium: &Pdfium, path: Option<&Path>, body: &[u8]) -> Result<Probe, Failure> {
    let mut probe = Probe::of(MediaKind::Pdf);
    match open(pdfium, path, body) {
        Ok(open) => probe.page_count = Some(open.page_count),
        Err(failure) if failure.reason == ENCRYPTED => probe.encrypted = true,
        Err(failure) => return Err(failure),
    }
    Ok(probe)
}

pub(crate) fn describe(pdfium: &Pdfium, path: Option<&Path>, body: &[u8]) -> Result<Document, Failure> {
    let open = open(pdfium, path, body)?;
    let document = &open.document;
    let metadata = document.metadata();
    let tag = |tag| metadata.get(tag).map(|t| t.value().trim().to_owned()).filter(|value| !value.is_empty());
    let page_sizes = document.pages().page_sizes().map_err(failure)?;
    let mut outline = Vec::new();
    if let Some(first) = document.bookmarks().root() {
        outline_from(first, 1, &mut outline);
    }
    Ok(Document {
        page_count: open.page_count,
        page_sizes: page_sizes.iter().map(|size| (size.width().value, size.height().value)).collect(),
        title: tag(PdfDocumentMetadataTagType::Title),
        author: tag(PdfDocumentMetadataTagType::Author),
        subject: tag(PdfDocumentMetadataTagType::Subject),
        keywords: tag(PdfDocumentMetadataTagType::Keywords),
        creator: tag(PdfDocumentMetadataTagType::Creator),
        producer: tag(PdfDocumentMetadataTagType::Producer),
        created: tag(PdfDocumentMetadataTagType::CreationDate),
        outline,
    })
}

/// Entries from `entry` on, with their children; bounded, since a damaged outline may lead back into itself.
fn outline_from(entry: PdfBookmark, level: u32, into: &mut Vec<OutlineEntry>) {
    let mut next = Some(entry);
    while let Some(entry) = next {
        if into.len() >= MAX_OUTLINE_ENTRIES {
            return;
        }
        let page = entry.destination().and_then(|d| d.page_index().ok()).and_then(|i| u32::try_from(i).ok());
        let title = entry.title().unwrap_or_default();
        into.push(OutlineEntry { title, level, page_number: page.map(|index| index + 1) });
        if level < MAX_OUTLINE_DEPTH
            && let Some(child) = entry.first_child()
        {
            outline_from(child, level + 1, into);
        }
        next = entry.next_sibling();
    }
}

/// One page, its number from 1.
pub(crate) fn page(
    open: &mut Open,
    number: u32,
    request: &PdfRequest,
    max_pixels: u64,
) -> Result<(wire::PageReply, Vec<u8>), Failure> {
    let on_page = |failure: Failure| Failure { reason: format!("page {number}: {}", failure.reason), ..failure };
    let index = i32::try_from(number - 1).map_err(|_| Failure::ours("a page number is small"))?;
    let page = open.document.pages().get(index).map_err(failure).map_err(on_page)?;
    let (width, height) = (page.width().value, page.height().value);
    let mut made = PdfPage {
        number,
        width,
        height,
        text: String::new(),
        lines: Vec::new(),
        blocks: Vec::new(),
        char_boxes: Vec::new(),
        pictures: Vec::new(),
    };
    if request.text {
        let place = Placement::of(&page);
        let lines = layout::lines(&glyphs(&page, &place).map_err(on_page)?);
        let figures = figures(&page, &place);
        made.blocks = layout::blocks(&lines, &figures, (width, height), request.layout, &mut open.sizes);
        made.text = lines.text;
        made.lines = lines.lines;
        if request.char_boxes {
            made.char_boxes = lines.boxes;
        }
    }
    if let Some(rendering) = &request.rendering {
        let picture = render(&page, rendering.dpi, max_pixels).map_err(on_page)?;
        for output in &rendering.outputs {
            let made_of = picture::convert(&picture, output.crop, output.size, output.filter, output.encoding);
            made.pictures.push(made_of.map_err(on_page)?);
        }
    }
    Ok(wire::into_wire(made))
}

/// Where the page's own coordinates, from the lower left, lie on the page as it is shown, from the upper left.
struct Placement {
    shown: PageBox,
    rotation: PdfPageRenderRotation,
}

impl Placement {
    fn of(page: &Page) -> Self {
        let rotation = page.rotation().unwrap_or(PdfPageRenderRotation::None);
        let (width, height) = (page.width().value, page.height().value);
        let turned = matches!(rotation, PdfPageRenderRotation::Degrees90 | PdfPageRenderRotation::Degrees270);
        let (width, height) = if turned { (height, width) } else { (width, height) };
        let whole = PageBox { x0: 0.0, y0: 0.0, x1: width, y1: height };
        let edges = page.boundaries();
        let shown = edges.crop().or_else(|_| edges.media()).map_or(whole, |edge| PageBox {
            x0: edge.bounds.left().value,
            y0: edge.bounds.bottom().value,
            x1: edge.bounds.right().value,
            y1: edge.bounds.top().value,
        });
        Self { shown, rotation }
    }

    fn place(&self, left: f32, bottom: f32, right: f32, top: f32) -> PageBox {
        let PageBox { x0, y0, x1, y1 } = self.shown;
        match self.rotation {
            PdfPageRenderRotation::None => PageBox { x0: left - x0, y0: y1 - top, x1: right - x0, y1: y1 - bottom },
            PdfPageRenderRotation::Degrees90 => {
                PageBox { x0: bottom - y0, y0: left - x0, x1: top - y0, y1: right - x0 }
            }
            PdfPageRenderRotation::Degrees180 => {
                PageBox { x0: x1 - right, y0: bottom - y0, x1: x1 - left, y1: top - y0 }
            }
            PdfPageRenderRotation::Degrees270 => {
                PageBox { x0: y1 - top, y0: x1 - right, x1: y1 - bottom, y1: x1 - left }
            }
        }
    }
}

fn glyphs(page: &Page, place: &Placement) -> Result<Vec<layout::Glyph>, Failure> {
    let text = page.text().map_err(failure)?;
    if text.len() > MAX_PAGE_CHARS as i32 {
        let message = format!("it has {} characters; at most {MAX_PAGE_CHARS} are read", text.len());
        return Err(Failure::limit(message));
    }
    let characters = text.chars();
    let mut glyphs = Vec::with_capacity(characters.len());
    // Asked of the first letter of each word: asking takes longer than all else here.
    let (mut monospaced, mut begins_word) = (false, true);
    for glyph in characters.iter() {
        // PDFium writes characters above the basic plane as two surrogates, and unreadable ones as 0.
        let Some(character) = glyph.unicode_char().filter(|c| *c != '\0' && *c != '\u{fffe}' && *c != '\u{2}') else {
            continue;
        };
        let bounds = glyph
            .loose_bounds()
            .ok()
            .map(|b| place.place(b.left().value, b.bottom().value, b.right().value, b.top().value));
        let finite = |b: &PageBox| b.x0.is_finite() && b.y0.is_finite() && b.x1.is_finite() && b.y1.is_finite();
        let bounds = bounds.filter(|b| finite(b) && (b.width() > 0.0 || b.height() > 0.0));
        let font_size = glyph.scaled_font_size().value.clamp(0.0, 10_000.0);
        let bold = glyph.font_weight().is_some_and(is_bold) || glyph.font_is_bold_reenforced();
        if character.is_whitespace() {
            begins_word = true;
        } else if std::mem::take(&mut begins_word) {
            monospaced = is_monospaced(&glyph);
        }
        glyphs.push(layout::Glyph { character, bounds, font_size, bold, monospaced });
    }
    Ok(glyphs)
}

/// Parts of the names of fonts whose letters are as wide as each other.
const MONOSPACED: [&str; 12] = [
    "mono",
    "nimbusmon",
    "courier",
    "consol",
    "menlo",
    "cmtt",
    "cmsltt",
    "lmtt",
    "sftt",
    "ectt",
    "typewriter",
    "sourcecode",
];

/// Whether a letter's font is monospaced: by its own word, or by its name, since many fonts do not say.
fn is_monospaced(glyph: &PdfPageTextChar<'_>) -> bool {
    let name = glyph.font_name().to_ascii_lowercase();
    glyph.font_is_fixed_pitch() || MONOSPACED.iter().any(|part| name.contains(part))
}

fn is_bold(weight: PdfFontWeight) -> bool {
    match weight {
        PdfFontWeight::Weight600
        | PdfFontWeight::Weight700Bold
        | PdfFontWeight::Weight800
        | PdfFontWeight::Weight900 => true,
        PdfFontWeight::Custom(value) => value >= 600,
        _ => false,
    }
}

/// Pictures of at least a hundredth of the page, and smaller than all of it by more than their text would show.
fn figures(page: &Page, place: &Placement) -> Vec<PageBox> {
    let area = page.width().value * page.height().value;
    let mut figures = Vec::new();
    for object in page.objects().iter().take(MAX_PAGE_OBJECTS) {
        if object.object_type() != PdfPageObjectType::Image {
            continue;
        }
        let Ok(b) = object.bounds() else { continue };
        let bounds = place.place(b.left().value, b.bottom().value, b.right().value, b.top().value);
        if bounds.width() * bounds.height() >= area * 0.01 {
            figures.push(bounds);
        }
    }
    figures
}

fn render(page: &Page, dpi: f32, max_pixels: u64) -> Result<Picture, Failure> {
    let side = |points: f32| (points * dpi / 72.0).round().clamp(1.0, 1e6) as i32;
    let (width, height) = (side(page.width().value), side(page.height().value));
    if width as u64 * height as u64 > max_pixels {
        let message = format!("at {dpi} dots an inch it has {width} x {height} pixels; at most {max_pixels} are made");
        return Err(Failure::limit(message));
    }
    let config = PdfRenderConfig::new()
        .set_fixed_size(width, height)
        .set_format(PdfBitmapFormat::BGR)
        .set_reverse_byte_order(true)
        .set_clear_color(PdfColor::WHITE)
        .limit_render_image_cache_size(true)
        .render_form_data(false);
    let bitmap = page.render_with_config(&config).map_err(failure)?;
    let (width, height) = (bitmap.width() as u32, bitmap.height() as u32);
    let raw = bitmap.as_raw_bytes();
    let (row, stride) = (width as usize * 3, raw.len() / (height as usize).max(1));
    if stride < row {
        return Err(Failure::ours("PDFium's picture has other pixels than were asked for"));
    }
    let bytes = if stride == row {
        raw
    } else {
        let mut bytes = Vec::with_capacity(row * height as usize);
        raw.chunks_exact(stride).for_each(|padded| bytes.extend_from_slice(&padded[..row]));
        bytes
    };
    Ok(Picture { width, height, encoding: Encoding::Rgb8, bytes })
}

const ENCRYPTED: &str = "the PDF is encrypted, and without its password it cannot be read";

fn failure(error: PdfiumError) -> Failure {
    match error {
        PdfiumError::PdfiumLibraryInternalError(PdfiumInternalError::PasswordError) => Failure::file(ENCRYPTED),
        PdfiumError::PdfiumLibraryInternalError(PdfiumInternalError::SecurityError) => {
            Failure::file("the PDF is encrypted in a way that is not read")
        }
        PdfiumError::PdfiumLibraryInternalError(PdfiumInternalError::FormatError) => {
            Failure::file("the PDF is damaged: its structure cannot be read")
        }
        PdfiumError::PdfiumLibraryInternalError(error) => Failure::file(format!("PDFium cannot read it: {error:?}")),
        PdfiumError::IoError(error) => Failure::ours(format!("the file cannot be read: {error}")),
        other => Failure::file(format!("PDFium cannot read it: {other:?}")),
    }
}
