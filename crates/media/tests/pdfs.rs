//! PDFs: a long real one, and small ones made here.

#![allow(clippy::unwrap_used)]

mod support;

use strata_media::{
    BlockKind, Encoding, Filter, Headings, ImageOutput, PdfPage, PdfRequest, Rendering, Resize, Source,
};
use strata_model::Error;
use support::{bytes, decoder, source};

async fn pages(source: &Source, request: &PdfRequest) -> Result<Vec<PdfPage>, Error> {
    let mut stream = decoder().pdf_pages(source, request).await?;
    let mut pages = Vec::new();
    while let Some(page) = stream.next().await? {
        pages.push(page);
    }
    Ok(pages)
}

/// A PDF of one page of 200 by 100 points, turned, with `content`.
fn small(rotation: u32, content: &str) -> Vec<u8> {
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        format!(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Rotate {rotation}/Contents 4 0 R\
             /Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>"
        ),
        format!("<</Length {}>>stream\n{content}\nendstream", content.len()),
    ];
    let mut file = String::from("%PDF-1.4\n");
    let mut offsets = Vec::new();
    for (number, object) in objects.iter().enumerate() {
        offsets.push(file.len());
        file.push_str(&format!("{} 0 obj\n{object}\nendobj\n", number + 1));
    }
    let table = file.len();
    file.push_str("xref\n0 5\n0000000000 65535 f \n");
    offsets.iter().for_each(|at| file.push_str(&format!("{at:010} 00000 n \n")));
    file.push_str(&format!("trailer<</Size 5/Root 1 0 R>>\nstartxref\n{table}\n%%EOF\n"));
    file.into_bytes()
}

#[tokio::test]
async fn a_long_document_says_what_it_is() {
    let document = decoder().pdf(&source("pdf/R-intro.pdf")).await.unwrap();
    assert_eq!(document.page_sizes.len(), document.page_count as usize);
    assert!(document.page_count > 100, "{}", document.page_count);
    let chapter = document.outline.iter().find(|e| e.title.contains("Introduction and preliminaries")).unwrap();
    assert_eq!(chapter.level, 1);
    assert!(chapter.page_number.unwrap() > 5);
    assert!(document.outline.iter().any(|entry| entry.level == 2));
    let probe = decoder().probe(&source("pdf/R-intro.pdf")).await.unwrap();
    assert_eq!((probe.page_count, probe.encrypted), (Some(document.page_count), false));
}

#[tokio::test]
async fn text_has_lines_blocks_and_headings() {
    let request = PdfRequest { char_boxes: true, first_page: 1, last_page: 14, ..PdfRequest::text() };
    let pages = pages(&source("pdf/R-intro.pdf"), &request).await.unwrap();
    assert_eq!(pages.len(), 14);
    let mut headings = Headings::default();
    let mut path_of_unix = None;
    for page in &pages {
        assert_eq!(page.char_boxes.len(), page.text.chars().count(), "page {}", page.number);
        for line in &page.lines {
            assert!(line.end > line.start && line.end as usize <= page.char_boxes.len());
            assert!(line.bounds.x0 >= 0.0 && line.bounds.x1 <= page.width && line.bounds.y1 <= page.height);
        }
        for block in &page.blocks {
            headings.see(block);
            if block.text.contains("The most convenient way to use R is") {
                path_of_unix = Some(headings.path().join(" > "));
            }
        }
    }
    let kinds: Vec<BlockKind> = pages.iter().flat_map(|p| &p.blocks).map(|b| b.kind).collect();
    assert!(kinds.contains(&BlockKind::Paragraph) && kinds.contains(&BlockKind::Heading));
    assert!(kinds.contains(&BlockKind::Header), "running titles");
    let path = path_of_unix.unwrap();
    assert!(
        path.contains("1 Introduction and preliminaries") && path.contains("1.4 R and the window system"),
        "{path}"
    );
}

#[tokio::test]
async fn pages_are_rendered() {
    let outputs = vec![ImageOutput::original(), ImageOutput::thumbnail()];
    let rendering = Rendering { dpi: 72.0, outputs };
    let request = PdfRequest { first_page: 9, last_page: 9, ..PdfRequest::rendered(rendering) };
    let pages = pages(&source("pdf/R-intro.pdf"), &request).await.unwrap();
    let [page] = &pages[..] else { panic!("one page") };
    let [whole, thumbnail] = &page.pictures[..] else { panic!("two pictures") };
    assert_eq!((whole.width, whole.height), (page.width.round() as u32, page.height.round() as u32));
    assert_eq!((thumbnail.height, thumbnail.encoding), (640, Encoding::Jpeg(82)));
    let dark = whole.bytes.iter().filter(|b| **b < 128).count();
    assert!(dark * 100 > whole.bytes.len() && dark * 4 < whole.bytes.len(), "black on white: {dark}");
}

#[tokio::test]
async fn turned_pages_have_their_boxes_where_they_are_shown() {
    // A black rectangle under an X, near the lower left corner of the page before it is turned.
    let content = "BT /F 20 Tf 10 10 Td (X) Tj ET";
    let corners = [(0, true, false), (90, true, true), (180, false, true), (270, false, false)];
    for (rotation, left, top) in corners {
        let file = bytes(small(rotation, content));
        let rendering = Rendering { dpi: 72.0, outputs: vec![ImageOutput::original()] };
        let request = PdfRequest { rendering: Some(rendering), ..PdfRequest::text() };
        let page = pages(&file, &request).await.unwrap().remove(0);
        assert_eq!(page.text, "X", "{rotation}");
        let (picture, bounds) = (&page.pictures[0], page.lines[0].bounds);
        assert_eq!(bounds.x1 < page.width / 2.0, left, "{rotation}: {bounds:?}");
        assert_eq!(bounds.y1 < page.height / 2.0, top, "{rotation}: {bounds:?}");
        for (index, pixel) in picture.bytes.chunks_exact(3).enumerate().filter(|(_, pixel)| pixel[0] < 100) {
            let (x, y) = ((index as u32 % picture.width) as f32, (index as u32 / picture.width) as f32);
            let inside = x + 1.5 >= bounds.x0 && x <= bounds.x1 + 1.5 && y + 1.5 >= bounds.y0 && y <= bounds.y1 + 1.5;
            assert!(inside, "{rotation}: ({x}, {y}) {pixel:?} is outside {bounds:?}");
        }
    }
}

#[tokio::test]
async fn a_page_that_is_a_picture_has_no_text_but_a_figure() {
    let content = "q 150 0 0 80 20 10 cm BI /W 2 /H 1 /BPC 8 /CS /RGB /F /AHx ID ff0000 0000ff> EI Q";
    let page = pages(&bytes(small(0, content)), &PdfRequest::text()).await.unwrap().remove(0);
    assert_eq!((page.text.as_str(), page.blocks.len()), ("", 1));
    assert_eq!(page.blocks[0].kind, BlockKind::Figure);
    let bounds = page.blocks[0].bounds;
    assert!((bounds.x0 - 20.0).abs() < 1.0 && (bounds.y0 - 10.0).abs() < 1.0, "{bounds:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_reason() {
    let whole = small(0, "BT /F 20 Tf 10 10 Td (X) Tj ET");
    let error = pages(&bytes(b"%PDF-1.7\nnothing".to_vec()), &PdfRequest::text()).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(_)) && error.to_string().contains("damaged"), "{error}");
    let beyond = PdfRequest { first_page: 2, ..PdfRequest::text() };
    let error = pages(&bytes(whole.clone()), &beyond).await.unwrap_err();
    assert!(error.to_string().contains("no page 2"), "{error}");
    let error = pages(&source("opencv-doc/fruits.jpg"), &PdfRequest::text()).await.unwrap_err();
    assert!(error.to_string().contains("image/jpeg"), "{error}");
    let huge = String::from_utf8(whole).unwrap().replace("[0 0 200 100]", "[0 0 90000 90000]");
    let outputs = vec![ImageOutput::pixels(Resize::Fit { width: 64, height: 64 }, Filter::Bilinear)];
    let rendered = PdfRequest::rendered(Rendering { dpi: 300.0, outputs });
    let error = pages(&bytes(huge.into_bytes()), &rendered).await.unwrap_err();
    assert!(matches!(&error, Error::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn an_encrypted_document_says_so() {
    let file = bytes(include_bytes!("files/encrypted.pdf").to_vec());
    let probe = decoder().probe(&file).await.unwrap();
    assert_eq!((probe.encrypted, probe.page_count), (true, None));
    let error = pages(&file, &PdfRequest::text()).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(_)) && error.to_string().contains("encrypted"), "{error}");
}
