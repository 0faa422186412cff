//! Pictures as phones and the web send them become documents like all others, and a damaged one fails alone.

use super::{Shelf, damaged::failures, ffmpeg, file, jpeg_size, opened};
use serde_json::{Value, json};
use std::process::Command;

/// A real picture in another encoding.
fn encoded(name: &str, into: &str, codec: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("temporary directory");
    let made = folder.path().join(into);
    let run = Command::new(ffmpeg())
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-i"])
        .arg(file(name))
        .args(["-frames:v", "1"])
        .args(codec)
        .arg(&made)
        .output()
        .expect("ffmpeg runs");
    assert!(run.status.success(), "{into}: {}", String::from_utf8_lossy(&run.stderr));
    std::fs::read(made).expect("readable")
}

#[test]
fn stills_of_all_kinds_become_documents_with_thumbnails() {
    const CAT: &str = "scikit-image/chelsea.png";
    const DRAWING: &str = "<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 900 450'>\
                           <circle cx='400' cy='200' r='150' fill='red'/></svg>";
    let shelf = Shelf::open();
    let avif = ["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1"];
    let cases = [
        ("cat.avif", encoded(CAT, "cat.avif", &avif), (451, 300), (451, 300)),
        ("cat.jxl", encoded(CAT, "cat.jxl", &["-c:v", "libjxl"]), (451, 300), (451, 300)),
        ("cat.jp2", encoded(CAT, "cat.jp2", &["-c:v", "libopenjpeg"]), (451, 300), (451, 300)),
        ("turned.heic", include_bytes!("../../../crates/media/tests/files/turned_6.heic").to_vec(), (32, 64), (32, 64)),
        ("tiles.heic", include_bytes!("../../../crates/media/tests/files/tiles.heic").to_vec(), (160, 96), (160, 96)),
        ("drawing.svg", DRAWING.as_bytes().to_vec(), (900, 450), (640, 320)),
    ];
    let mut objects: Vec<String> = cases.iter().map(|(name, bytes, ..)| shelf.put("image", name, bytes)).collect();
    let cut = &cases[1].1[..cases[1].1.len() / 2];
    let damaged = shelf.put("image", "cut.jxl", cut);
    objects.push(damaged.clone());

    let images = shelf.collection("images", "image_extractor", json!({}));
    let all = shelf.collection("all", "multimodal_extractor", json!({}));
    let any = shelf.collection("any", "universal_extractor", json!({}));
    let ended = shelf.derive(&objects, &[&images, &all, &any]);
    assert!(ended.starts_with("COMPLETED"), "{ended}");
    shelf.settle(&images);
    let failed = failures(&shelf, &objects);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].0 == damaged && failed[0].1.contains("image/jxl"), "{failed:?}");

    for collection in [&images, &all, &any] {
        let documents = shelf.documents(collection);
        assert_eq!(documents.len(), cases.len(), "{documents:?}");
        for ((name, _, (width, height), size), object) in cases.iter().zip(&objects) {
            let document = documents.iter().find(|d| d["root_object_id"] == json!(object)).expect("there");
            if collection != &any {
                assert_eq!((&document["width"], &document["height"]), (&json!(width), &json!(height)), "{name}");
            }
            let thumbnail = thumbnail_of(document);
            assert_eq!(jpeg_size(&opened(&thumbnail["presigned_url"])), *size, "{name}: {document}");
        }
    }
    let hits = shelf.search(&images, json!({ "input_mode": "text", "value": "a cat" }), 3);
    let cats = &objects[..3];
    assert!(hits.iter().all(|hit| cats.iter().any(|cat| hit["root_object_id"] == json!(cat))), "{hits:?}");
}

fn thumbnail_of(document: &Value) -> &Value {
    let blobs = document["document_blobs"].as_array().expect("artifacts");
    blobs.iter().find(|blob| blob["type"] == "image").expect("a picture")
}

#[test]
fn faces_are_found_in_a_still_of_a_phone() {
    let shelf = Shelf::open();
    let faces = shelf.collection("faces", "face_identity_extractor", json!({}));
    let avif = ["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1"];
    let astronaut = shelf.put("image", "astronaut.avif", &encoded("scikit-image/astronaut.png", "a.avif", &avif));
    assert_eq!(shelf.derive(&[astronaut], &[&faces]), "COMPLETED");
    assert_eq!(shelf.documents(&faces).len(), 1);
}
