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

    let chunks = crate::support::wait_for("the second tier", super::LATER, || {
        let chunks = shelf.documents(&sentences);
        (chunks.len() >= made.len() / 2).then_some(chunks)
    });
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
