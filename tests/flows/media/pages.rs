//! A long PDF becomes blocks, blocks become chunks, and each knows its page.

use super::{Shelf, file, jpeg_size, opened};
use serde_json::json;

#[test]
fn a_manual_becomes_blocks_and_sentences_with_pages_boxes_and_headings() {
    let shelf = Shelf::open();
    let bytes = std::fs::read(file("pdf/R-intro.pdf")).expect("readable");
    let manual = shelf.put("pdf", "R-intro.pdf", &bytes);
    let blocks = shelf.collection("blocks", "document_graph_extractor", json!({ "thumbnail_mode": "full_page" }));
    let source = json!({ "type": "collection", "collection_ids": [blocks] });
    let extractor = json!({
        "feature_extractor_name": "text_extractor", "version": "v1",
        "parameters": { "split_by": "sentences", "chunk_size": 2 },
        "input_mappings": { "text": "text" },
        "field_passthrough": ["page_number", "bbox", "heading_path"],
    });
    let sentences = shelf.collection_of("sentences", source, extractor);
    assert_eq!(shelf.derive(std::slice::from_ref(&manual), &[&blocks]), "COMPLETED");
    shelf.settle(&blocks);

    let made = shelf.documents(&blocks);
    assert!(made.len() > 500, "{} blocks of a hundred pages", made.len());
    let pages = made[0]["total_pages"].as_u64().expect("how many pages");
    assert!(pages > 100);
    let heading = made.iter().find(|d| d["heading_level"].is_u64()).expect("headings");
    assert_eq!(heading["object_type"], "header");
    for document in &made {
        let page = document["page_number"].as_u64().expect("a page");
        assert!((1..=pages).contains(&page), "{document}");
        let (bbox, width) = (&document["bbox"], document["page_width"].as_f64().expect("a width"));
        assert!(bbox["x0"].as_f64() < bbox["x1"].as_f64() && bbox["x1"].as_f64() <= Some(width + 50.0), "{document}");
    }
    let (width, height) = jpeg_size(&opened(&made[0]["thumbnail_url"]));
    assert!(width <= 640 && height <= 640 && height > width, "an upright page: {width} x {height}");

    let hits = shelf.search(
        &blocks,
        json!({ "input_mode": "text", "value": "how to read data from a file into a data frame" }),
        5,
    );
    let paths: Vec<String> = hits.iter().map(|hit| hit["heading_path"].to_string()).collect();
    assert!(paths.iter().any(|path| path.contains("Reading data from files")), "{paths:?}");

    // The batch has ended when the second tier has.
    let chunks = shelf.documents(&sentences);
    assert!(chunks.len() >= made.len() / 2, "{} chunks", chunks.len());
    let chunk = &chunks[chunks.len() / 2];
    assert_eq!(chunk["lineage_path"], format!("{}/{blocks}/{sentences}", shelf.bucket));
    assert_eq!(chunk["root_object_id"], manual);
    assert!(chunk["page_number"].is_u64() && chunk["bbox"].is_object(), "the place is carried down: {chunk}");
    let tree = shelf.api.get(&format!("/v1/documents/{}/lineage", chunk["document_id"].as_str().expect("an id")));
    assert!(tree.status == 200 || tree.status == 404, "{}", tree.status);

    // Pages as pictures, of the same file.
    let images = shelf.collection("pages", "image_extractor", json!({ "enable_thumbnails": false }));
    assert_eq!(shelf.derive(std::slice::from_ref(&manual), &[&images]), "COMPLETED");
    let pictures = shelf.documents(&images);
    assert_eq!(pictures.len() as u64, pages);
    let mut numbers: Vec<u64> = pictures.iter().filter_map(|d| d["page_number"].as_u64()).collect();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(1..=pages));
}

#[test]
fn a_page_that_is_only_a_picture_is_read() {
    let shelf = Shelf::open();
    let photo = std::fs::read(file("scikit-image/page.png")).expect("readable");
    let scan = shelf.put("pdf", "scan.pdf", &scanned(&photo));
    let blocks = shelf.collection("scans", "document_graph_extractor", json!({}));
    assert_eq!(shelf.derive(std::slice::from_ref(&scan), &[&blocks]), "COMPLETED");
    let made = shelf.documents(&blocks);
    let read: Vec<&str> =
        made.iter().filter(|block| block["is_scanned"] == true).filter_map(|block| block["text"].as_str()).collect();
    let text = read.join(" ").to_lowercase();
    println!("{text}");
    for word in ["markers", "background", "histogram"] {
        assert!(text.contains(word), "{word} in {text}");
    }

    let images = shelf.collection("pictures", "multimodal_extractor", json!({ "run_ocr_embedding": true }));
    let page = shelf.put("image", "page.png", &photo);
    assert_eq!(shelf.derive(std::slice::from_ref(&page), &[&images]), "COMPLETED");
    let made = shelf.documents(&images);
    assert!(made[0]["ocr_text"].as_str().is_some_and(|text| text.contains("histogram")), "{}", made[0]);
}

/// A PDF with one page, which is a JPEG of the photo and nothing else; `ffmpeg` makes the JPEG.
pub(super) fn scanned(photo: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (from, to) = (folder.path().join("a.png"), folder.path().join("a.jpg"));
    std::fs::write(&from, photo).expect("written");
    let scale = ["-vf", "scale=1536:764", "-pix_fmt", "yuvj420p", "-q:v", "2"];
    let run = std::process::Command::new(super::ffmpeg())
        .arg("-i")
        .arg(&from)
        .args(scale)
        .arg(&to)
        .output()
        .expect("ffmpeg runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let jpeg = std::fs::read(&to).expect("made");
    let (width, height) = jpeg_size(&jpeg);
    let page = "q 576 0 0 287 0 0 cm /I Do Q";
    let head = format!(
        "<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB /BitsPerComponent 8 /Filter /DCTDecode /Length {} >>\nstream\n",
        jpeg.len()
    );
    let mut pdf = b"%PDF-1.4\n".to_vec();
    let mut places = Vec::new();
    let objects: [Vec<u8>; 5] = [
        b"<< /Type /Catalog /Pages 2 0 R >>".to_vec(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_vec(),
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 576 287] /Contents 4 0 R /Resources << /XObject << /I 5 0 R >> >> >>".to_vec(),
        format!("<< /Length {} >>\nstream\n{page}\nendstream", page.len()).into_bytes(),
        [head.as_bytes(), &jpeg, b"\nendstream"].concat(),
    ];
    for (number, object) in objects.iter().enumerate() {
        places.push(pdf.len());
        pdf.extend(format!("{} 0 obj\n", number + 1).bytes());
        pdf.extend(object);
        pdf.extend(b"\nendobj\n");
    }
    let table = pdf.len();
    pdf.extend(b"xref\n0 6\n0000000000 65535 f \n");
    places.iter().for_each(|place| pdf.extend(format!("{place:010} 00000 n \n").bytes()));
    pdf.extend(format!("trailer\n<< /Size 6 /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n").bytes());
    pdf
}
