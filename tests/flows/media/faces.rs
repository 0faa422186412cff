//! Faces are found, cut out and told apart, in pictures and in the frames of a video's segments.

use super::{Shelf, file, jpeg_size, opened};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

#[test]
fn faces_have_boxes_crops_and_vectors_by_which_they_are_found() {
    let shelf = Shelf::open();
    let faces = shelf.collection("faces", "face_identity_extractor", json!({ "include_source_frame_thumbnail": true }));
    let samples: Vec<String> = (1..=6).map(|n| shelf.put_file("image", &format!("face-api/sample{n}.jpg"))).collect();
    let astronaut = shelf.put_file("image", "scikit-image/astronaut.png");
    let brick = shelf.put_file("image", "scikit-image/brick.png");
    let objects: Vec<String> = samples.iter().cloned().chain([astronaut.clone(), brick.clone()]).collect();
    assert_eq!(shelf.derive(&objects, &[&faces]), "COMPLETED");
    shelf.settle(&faces);
    let found = shelf.documents(&faces);
    assert!(found.len() >= 7, "{} faces", found.len());
    assert!(found.iter().all(|face| face["root_object_id"] != json!(brick)), "a wall has no face");
    for face in &found {
        let bbox = &face["bbox"];
        assert!(bbox["x1"].as_f64() < bbox["x2"].as_f64() && bbox["y1"].as_f64() < bbox["y2"].as_f64(), "{face}");
        assert_eq!(face["landmarks"].as_array().map(Vec::len), Some(5));
        assert!((0.0..=1.0).contains(&face["quality_score"].as_f64().expect("a quality")), "{face}");
        assert_eq!(jpeg_size(&opened(&face["face_crop_url"])), (112, 112));
        let (width, height) = jpeg_size(&opened(&face["thumbnail_url"]));
        assert!(width <= 640 && height <= 640);
    }
    assert_eq!(found.iter().filter(|face| face["root_object_id"] == json!(astronaut)).count(), 1);

    // The same face, sent as a picture, finds itself.
    let bytes = std::fs::read(file("scikit-image/astronaut.png")).expect("readable");
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    let hits = shelf.search(&faces, json!({ "input_mode": "content", "value": uri }), 3);
    assert_eq!(hits[0]["root_object_id"], json!(astronaut));

    // A picture without a face is no query here, and text is none either.
    let bytes = std::fs::read(file("scikit-image/brick.png")).expect("readable");
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    let body = |query: serde_json::Value| {
        json!({
            "collection_identifiers": [faces], "inputs": {},
            "stages": [{ "stage_name": "search", "stage_type": "filter", "config": {
                "stage_id": "feature_search",
                "parameters": { "searches": [{ "query": query, "feature_uri": "face_identity_extractor_v1_embedding" }], "final_top_k": 3 },
            } }],
        })
    };
    for query in [json!({ "input_mode": "content", "value": uri }), json!({ "input_mode": "text", "value": "a man" })] {
        let answer = shelf.api.post("/v1/retrievers/execute", body(query));
        assert_eq!(answer.status, 422, "{}", answer.body);
    }
}

#[test]
fn faces_of_a_video_segment_know_their_second() {
    let shelf = Shelf::open();
    let scenes = shelf.collection(
        "scenes",
        "multimodal_extractor",
        json!({ "time_split_interval": 5, "run_multimodal_embedding": false }),
    );
    let faces = shelf.collection_of(
        "faces",
        json!({ "type": "collection", "collection_ids": [scenes] }),
        json!({
            "feature_extractor_name": "face_identity_extractor", "version": "v1",
            "parameters": { "video_sampling_fps": 1.0, "min_face_size": 20 },
            "input_mappings": { "video": "video" },
        }),
    );
    let film = shelf.put_file("video", "opencv-doc/Megamind.avi");
    assert_eq!(shelf.derive(std::slice::from_ref(&film), &[&scenes]), "COMPLETED");
    let made = shelf.documents(&scenes);
    let found = shelf.documents(&faces);
    for face in &found {
        let parent = made.iter().find(|scene| scene["document_id"] == face["source_document_id"]).expect("a parent");
        let (start, end) = (parent["start_time"].as_f64().expect("start"), parent["end_time"].as_f64().expect("end"));
        let time = face["timestamp"].as_f64().expect("a time");
        assert!((start..=end).contains(&time), "{time} in {start} to {end}");
        assert_eq!(face["lineage_path"], format!("{}/{scenes}/{faces}", shelf.bucket));
    }
    println!("{} faces in {} scenes", found.len(), made.len());
}
