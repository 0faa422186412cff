//! Words find photos, and photos find photos.

use super::{Shelf, file, jpeg_size, opened};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const PHOTOS: [&str; 20] = [
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
];

/// Queries with their right photos, written before anything was measured.
const QUERIES: [(&str, &[&str]); 14] = [
    ("a cat", &["chelsea.png"]),
    ("an astronaut in a space suit", &["astronaut.png"]),
    ("a cup of coffee", &["coffee.png"]),
    ("a rocket taking off", &["rocket.jpg"]),
    ("a motorcycle in a garage", &["motorcycle_left.png", "motorcycle_right.png"]),
    ("old coins", &["coins.png"]),
    ("a brick wall", &["brick.png"]),
    ("the surface of the moon", &["moon.png"]),
    ("galaxies in deep space", &["hubble_deep_field.jpg"]),
    ("a man with a camera on a tripod", &["camera.png"]),
    ("a page of printed text", &["page.png", "text.png"]),
    ("green grass", &["grass.png"]),
    ("pebbles on the ground", &["gravel.png"]),
    ("a clock", &["clock_motion.png"]),
];

#[test]
fn words_and_photos_find_photos_with_lineage_and_thumbnails() {
    let shelf = Shelf::open();
    let objects: Vec<String> =
        PHOTOS.iter().map(|name| shelf.put_file("image", &format!("scikit-image/{name}"))).collect();
    let images = shelf.collection("photos", "image_extractor", json!({}));
    assert_eq!(shelf.derive(&objects, &[&images]), "COMPLETED");
    shelf.settle(&images);

    let documents = shelf.documents(&images);
    assert_eq!(documents.len(), PHOTOS.len());
    for document in &documents {
        assert_eq!(document["lineage_path"], format!("{}/{images}", shelf.bucket));
        assert_eq!(document["source_blobs"][0]["blob_property"], "image", "{document}");
        let thumbnail = &document["document_blobs"][0];
        assert_eq!((&thumbnail["field"], &thumbnail["type"]), (&json!("thumbnail"), &json!("image")), "{document}");
        assert_eq!(document["thumbnail_url"], thumbnail["presigned_url"], "the field opens, too");
        let (width, height) = jpeg_size(&opened(&thumbnail["presigned_url"]));
        assert!(width <= 640 && height <= 640 && width.min(height) > 0);
        let history = &document["internal_metadata"]["processing_history"][0];
        assert_eq!(history["feature_extractor_id"], "image_extractor_v1");
        assert_eq!(history["models"], json!(["conse_minilm_l6_v2", "efficientnet_lite0"]));
    }
    let cat = name_of(&objects, "chelsea.png");
    let seen = documents.iter().find(|d| d["root_object_id"] == cat).expect("the cat is there");
    assert!(seen["labels"].as_array().expect("labels").iter().any(|l| l.as_str().unwrap().contains("cat")), "{seen}");

    let found = |hits: &[Value]| {
        let object = hits[0]["root_object_id"].as_str().expect("an object").to_owned();
        PHOTOS[objects.iter().position(|one| *one == object).expect("one of ours")]
    };
    let right = QUERIES.iter().filter(|(query, right)| {
        let hits = shelf.search(&images, json!({ "input_mode": "text", "value": query }), 3);
        right.contains(&found(&hits))
    });
    let right = right.count();
    println!("{right} of {} queries have a right photo first", QUERIES.len());
    assert!(right >= 11, "{right}");

    // The right picture of a pair of stereo pictures is most like the left one.
    let bytes = std::fs::read(file("scikit-image/motorcycle_left.png")).expect("readable");
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    let hits = shelf.search(&images, json!({ "input_mode": "content", "value": uri }), 2);
    let pair = ["motorcycle_left.png", "motorcycle_right.png"].map(|name| name_of(&objects, name));
    let mut both: Vec<&str> = hits.iter().filter_map(|hit| hit["root_object_id"].as_str()).collect();
    both.sort_unstable();
    let mut pair: Vec<&str> = pair.iter().map(String::as_str).collect();
    pair.sort_unstable();
    assert_eq!(both, pair);

    // What is deleted is gone, its thumbnails with it.
    let thumbnail = seen["document_blobs"][0]["presigned_url"].clone();
    shelf.api.delete(&format!("/v1/buckets/{}/objects/{cat}", shelf.bucket)).ok();
    assert_eq!(shelf.documents(&images).len(), PHOTOS.len() - 1);
    let gone = reqwest::blocking::get(thumbnail.as_str().expect("a URL")).expect("an answer");
    assert_eq!(gone.status(), 404);
}

fn name_of(objects: &[String], photo: &str) -> String {
    objects[PHOTOS.iter().position(|name| *name == photo).expect("a photo of ours")].clone()
}

#[test]
fn images_animations_and_texts_share_a_space_and_orientation_is_followed() {
    let shelf = Shelf::open();
    let all = shelf.collection("all", "multimodal_extractor", json!({}));
    let gif = shelf.put_file("image", "scikit-image/no_time_for_that_tiny.gif");
    let coffee = shelf.put_file("image", "scikit-image/coffee.png");
    let text = shelf.put("text", "note.txt", b"The cosine of an angle is the ratio of two sides of a triangle.");
    assert_eq!(shelf.derive(&[gif.clone(), coffee.clone(), text.clone()], &[&all]), "COMPLETED");
    shelf.settle(&all);
    let documents = shelf.documents(&all);
    assert_eq!(documents.len(), 3, "{documents:?}");
    let of = |object: &str| documents.iter().find(|d| d["root_object_id"] == object).expect("there");
    assert!(of(&gif)["duration"].as_f64().is_some_and(|seconds| seconds > 0.0), "{}", of(&gif));
    assert!(of(&text)["text"].as_str().is_some_and(|text| text.starts_with("The cosine")));
    for (query, right) in [("a mug of espresso", &coffee), ("trigonometry", &text)] {
        let hits = shelf.search(&all, json!({ "input_mode": "text", "value": query }), 3);
        assert_eq!(hits[0]["root_object_id"], json!(right), "{query}: {hits:?}");
    }
}
