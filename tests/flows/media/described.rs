//! A language model is shown films and pictures, and what it writes is kept and found.

use super::{Shelf, damaged::failures, recordings::made_film};
use crate::flows::providers::{server_with, settings};
use crate::support::{
    jpeg_size,
    provider::{Provider, pictures},
};
use serde_json::{Value, json};
use std::process::Command;

const NOTE: &[u8] = b"The cosine of an angle is the ratio of two sides of a triangle.";

/// How bright a JPEG is as a whole, 0 to 255.
fn brightness(jpeg: &[u8]) -> u8 {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("frame.jpg");
    std::fs::write(&path, jpeg).expect("it is written");
    let run = Command::new(super::ffmpeg())
        .arg("-i")
        .arg(&path)
        .args(["-vf", "scale=1:1:flags=area,format=gray", "-f", "rawvideo", "pipe:1"])
        .output()
        .expect("ffmpeg runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    run.stdout[0]
}

/// The text beside the pictures of a request, or alone.
fn told(body: &Value) -> &str {
    let content = &body["messages"][1]["content"];
    content.as_str().or(content[0]["text"].as_str()).expect("a text")
}

#[test]
fn a_language_model_sees_films_and_pictures_and_its_words_find_them() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let shelf = Shelf::on(server);
    let shape = json!({ "type": "object", "properties": {
        "pictures": { "type": "integer" }, "widest": { "type": "integer" },
    } });
    let collection = shelf.collection(
        "seen",
        "multimodal_extractor",
        json!({
            "run_multimodal_embedding": false, "run_description_embedding": true,
            "time_split_interval": 5, "key_frames": 2, "description_prompt": "Say what this is.",
            "generation_config": { "temperature": 0.5, "top_p": 0.9, "max_output_tokens": 200 },
            "response_shape": shape, "llm_provider": "own", "llm_model": "looker",
        }),
    );
    let made = shelf.api.get(&format!("/v1/collections/{collection}")).ok();
    for (field, kind) in [("description", "string"), ("json_output", "object"), ("pictures", "integer")] {
        assert_eq!(made["output_schema"]["properties"][field]["type"], kind, "{made}");
    }
    let vector = "multimodal_extractor_v1_description_embedding";
    assert_eq!(made["vector_indexes"][0]["name"], vector, "{made}");

    // Black until the sixth second.
    let film = made_film("scikit-image/coffee.png", "fade=t=in:st=5:d=1", "10");
    let film = shelf.put("video", "film.mp4", &film);
    let wide = shelf.put_file("image", "opencv-doc/aloeL.jpg");
    let tall = shelf.put_file("image", "scikit-image/cell.png");
    let note = shelf.put("text", "note.txt", NOTE);
    let objects = [film.clone(), wide.clone(), tall.clone(), note.clone()];
    assert_eq!(shelf.derive(&objects, &[&collection]), "COMPLETED");
    shelf.settle(&collection);
    let documents = shelf.documents(&collection);
    let of = |object: &str| {
        let mut own: Vec<&Value> = documents.iter().filter(|d| d["root_object_id"] == object).collect();
        own.sort_by_key(|d| d["segment_index"].as_u64());
        own
    };
    let parts = of(&film);
    assert_eq!(parts.len(), 2, "{documents:?}");
    for (part, start) in parts.iter().zip([0.0, 5.0]) {
        assert_eq!(part["start_time"].as_f64(), Some(start), "the extractor's own: {part}");
        assert_eq!(part["json_output"], json!({ "pictures": 2, "widest": 600, "start_time": -1 }), "{part}");
        assert_eq!((&part["pictures"], &part["widest"]), (&json!(2), &json!(600)), "{part}");
        assert!(part["description"].as_str().is_some_and(|text| text.contains("landscape")), "{part}");
        let models = &part["internal_metadata"]["processing_history"][0]["models"];
        assert!(models.as_array().is_some_and(|models| models.contains(&json!("own/looker"))), "{models}");
    }
    assert_eq!(of(&wide)[0]["json_output"]["widest"], 768, "scaled down: {}", of(&wide)[0]);
    assert!(of(&tall)[0]["description"].as_str().is_some_and(|text| text.contains("violin")), "{}", of(&tall)[0]);
    let text = of(&note)[0];
    assert_eq!((&text["pictures"], &text["description"]), (&json!(0), &Value::Null), "{text}");

    // What was sent is what the film shows.
    let asked: Vec<Value> = provider.seen().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(asked.len(), 9, "twice for each but the text");
    for (said, is_bright) in [("Seconds 0 to 5 of a video", false), ("Seconds 5 to 10 of a video", true)] {
        let about: Vec<&Value> = asked.iter().filter(|body| told(body).starts_with(said)).collect();
        assert_eq!(about.len(), 2, "{said}");
        for frame in about.iter().flat_map(|body| pictures(body)) {
            assert_eq!(jpeg_size(&frame), (600, 400));
            assert_eq!(brightness(&frame) > 50, is_bright, "{said}: {}", brightness(&frame));
        }
    }
    for body in &asked {
        let set = [("temperature", json!(0.5)), ("top_p", json!(0.9)), ("max_tokens", json!(200))];
        assert!(set.iter().all(|(name, value)| body[*name] == *value), "{}", body["temperature"]);
        let instructions = body["messages"][0]["content"].as_str().expect("instructions");
        assert_eq!(instructions == "Say what this is.", body["response_format"].is_null(), "{instructions}");
    }

    let body = json!({
        "collection_identifiers": [collection], "inputs": {},
        "stages": [{ "stage_name": "search", "stage_type": "filter", "config": { "stage_id": "feature_search", "parameters": {
            "searches": [{ "query": { "input_mode": "text", "value": "a musician with a string instrument" }, "feature_uri": vector }],
            "final_top_k": 1,
        } } }],
    });
    let hits = shelf.api.post("/v1/retrievers/execute", body).ok();
    assert_eq!(hits["documents"][0]["root_object_id"], json!(tall), "{hits}");
}

#[test]
fn what_a_model_refuses_fails_alone_and_says_why() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let shelf = Shelf::on(server);
    let collection = shelf.collection(
        "picky",
        "multimodal_extractor",
        json!({
            "run_multimodal_embedding": false, "run_video_description": true,
            "llm_provider": "own", "llm_model": "picky",
        }),
    );
    let objects = ["opencv-doc/aloeL.jpg", "scikit-image/cell.png"].map(|name| shelf.put_file("image", name));
    let ended = shelf.derive(&objects, &[&collection]);
    assert!(ended.starts_with("COMPLETED"), "{ended}");
    let documents = shelf.documents(&collection);
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(documents[0]["root_object_id"], json!(objects[1]));
    assert!(documents[0]["description"].is_string() && documents[0].get("json_output").is_none(), "{}", documents[0]);
    let failed = failures(&shelf, &objects);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].0 == objects[0] && failed[0].1.contains("wide pictures are not looked at"), "{failed:?}");
}

#[test]
fn who_asks_for_words_names_who_writes_them() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let shelf = Shelf::on(server);
    let named = |mut parameters: Value| {
        parameters["llm_provider"] = json!("own");
        parameters["llm_model"] = json!("looker");
        parameters
    };
    for (parameters, field) in [
        (json!({ "response_shape": "what is seen" }), "llm_model"),
        (json!({ "run_video_description": true }), "llm_model"),
        (json!({ "run_description_embedding": true, "llm_provider": "own" }), "llm_model"),
        (json!({ "run_video_description": true, "llm_provider": "nobody", "llm_model": "x" }), "llm_provider"),
        (named(json!({ "response_shape": 7 })), "response_shape"),
        (named(json!({ "run_video_description": true, "description_prompt": 7 })), "description_prompt"),
        (
            named(json!({ "run_video_description": true, "generation_config": { "temperature": 9 } })),
            "generation_config.temperature",
        ),
        (json!({ "llm_api_key": "sk-direct" }), "llm_api_key"),
    ] {
        let body = json!({
            "collection_name": "nameless", "source": { "type": "bucket", "bucket_ids": [shelf.bucket] },
            "feature_extractor": { "feature_extractor_name": "multimodal_extractor", "version": "v1", "parameters": parameters },
        });
        let refused = shelf.api.post("/v1/collections", body);
        assert!(refused.status == 422 && refused.text("/error/message").contains(field), "{field}: {}", refused.body);
    }
    // Where nothing is asked for, nothing is needed.
    let config = json!({ "generation_config": { "temperature": 0.2 } });
    let plain = shelf.collection("plain", "multimodal_extractor", config);
    let made = shelf.api.get(&format!("/v1/collections/{plain}")).ok();
    assert!(made["output_schema"]["properties"].get("description").is_none(), "{made}");
}
