//! Files that are not what they should be fail alone, and say why.

use super::{Shelf, file};
use serde_json::{Value, json};

#[test]
fn damaged_files_fail_their_own_derivation_and_say_why() {
    let shelf = Shelf::open();
    let read = |name: &str| std::fs::read(file(name)).expect("readable");
    let collections = [
        ("image", shelf.collection("images", "image_extractor", json!({}))),
        ("pdf", shelf.collection("pdfs", "document_graph_extractor", json!({}))),
        ("video", shelf.collection("videos", "multimodal_extractor", json!({}))),
        (
            "audio",
            shelf.collection(
                "sounds",
                "multimodal_extractor",
                json!({ "run_transcription": true, "transcription_model": "whisper_tiny_en" }),
            ),
        ),
    ];
    let whole = [
        ("image", read("opencv-doc/fruits.jpg")),
        ("pdf", read("pdf/R-data.pdf")),
        ("video", read("opencv-doc/Megamind.avi")),
        ("audio", read("pocketsphinx-testdata/cards/001.wav")),
    ];
    for ((property, bytes), (_, collection)) in whole.iter().zip(&collections) {
        let mut objects = vec![shelf.put(property, "whole", bytes)];
        let mut refused = 0;
        let mut random = crate::support::Random::seeded();
        let noise: Vec<u8> = (0..5000).map(|_| random.below(256) as u8).collect();
        let start = |share: usize| bytes[..bytes.len() * share / 1000].to_vec();
        let mut flipped = bytes.clone();
        (0..200).for_each(|_| {
            let at = random.below(flipped.len() as u64) as usize;
            flipped[at] ^= 1 << random.below(8);
        });
        let head_and_noise = [&bytes[..64.min(bytes.len())], &noise].concat();
        for damaged in [start(5), start(500), flipped, noise, head_and_noise, b"plain words".to_vec(), Vec::new()] {
            match shelf.try_put(property, "damaged", &damaged) {
                Ok(object) => objects.push(object),
                // What is certainly something else is refused at once.
                Err(_) => refused += 1,
            }
        }
        let ended = shelf.derive(&objects, &[collection]);
        assert!(ended.starts_with("COMPLETED"), "{property}: {ended}");
        let documents = shelf.documents(collection);
        let of = |object: &String| documents.iter().filter(|d| d["root_object_id"] == json!(object)).count();
        assert!(of(&objects[0]) >= 1, "{property}: the whole one is there");
        let failed = failures(&shelf, &objects);
        println!("{property}: {refused} refused, {} failed of {}", failed.len(), objects.len());
        assert!(failed.iter().all(|(_, reason)| !reason.is_empty()), "{property}: {failed:?}");
        assert!(refused + failed.len() >= 4, "{property}: {failed:?}");
    }
    assert_eq!(shelf.api.get("/v1/health").status, 200);
    let log = shelf.server.log_text();
    assert!(!log.contains("panicked"), "{log}");
}

/// The objects that failed, with the reason.
pub(super) fn failures(shelf: &Shelf, objects: &[String]) -> Vec<(String, String)> {
    let failed = |id: &String| {
        let object = shelf.api.get(&format!("/v1/buckets/{}/objects/{id}", shelf.bucket)).ok();
        let is_failed = object["status"] == "FAILED";
        let reason = object["error"].as_str().map_or_else(|| object["error"].to_string(), str::to_owned);
        (is_failed && object["error"] != Value::Null).then_some((id.clone(), reason))
    };
    objects.iter().filter_map(failed).collect()
}

#[test]
fn an_encrypted_pdf_and_a_huge_picture_are_refused_with_the_reason() {
    let shelf = Shelf::open();
    let pdfs = shelf.collection("pdfs", "document_graph_extractor", json!({}));
    let images = shelf.collection("images", "image_extractor", json!({}));
    let locked = include_bytes!("../../../crates/media/tests/files/encrypted.pdf");
    let locked = shelf.put("pdf", "locked.pdf", locked);
    let huge = shelf.put("image", "huge.bmp", &bitmap_of(60_000, 60_000));
    assert_eq!(shelf.derive(std::slice::from_ref(&locked), &[&pdfs]), "FAILED");
    assert_eq!(shelf.derive(std::slice::from_ref(&huge), &[&images]), "FAILED");
    let failed = failures(&shelf, &[locked, huge]);
    println!("{failed:?}");
    assert_eq!(failed.len(), 2);
    assert!(failed[0].1.contains("password") || failed[0].1.contains("encrypt"), "{}", failed[0].1);
    assert!(failed[1].1.contains("pixels"), "{}", failed[1].1);
}

/// A bitmap that says it is this large, and holds nothing.
fn bitmap_of(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(b"\x01\0\x18\0");
    file.extend([0; 24]);
    file.extend([0; 64]);
    file
}
