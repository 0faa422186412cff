//! Models of images, faces and speech, asked directly about real files.

use super::file;
use crate::support::{Answer, Api, Server};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

fn uri(name: &str, media_type: &str) -> String {
    let bytes = std::fs::read(file(name)).expect("readable");
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

fn ask(api: &Api, model: &str, inputs: Value, parameters: Value) -> Answer {
    api.post("/v1/inference", json!({ "model": model, "inputs": inputs, "parameters": parameters }))
}

fn numbers(vector: &Value) -> Vec<f64> {
    vector.as_array().expect("a vector").iter().map(|number| number.as_f64().expect("a number")).collect()
}

fn likeness(one: &Value, other: &Value) -> f64 {
    numbers(one).iter().zip(numbers(other)).map(|(a, b)| a * b).sum()
}

#[test]
fn a_photo_is_named_and_lies_near_the_words_for_it() {
    let server = Server::start();
    let api = server.api();
    let (cat, coffee) = (uri("scikit-image/chelsea.png", "image/png"), uri("scikit-image/coffee.png", "image/png"));
    let vector = ask(&api, "efficientnet_lite0", json!({ "image": cat }), json!({})).ok();
    assert_eq!(numbers(&vector["data"]).len(), 1280);
    let named =
        ask(&api, "efficientnet_lite0", json!({ "images": [cat] }), json!({ "output": "labels", "top_k": 3 })).ok();
    let labels = named["data"][0].as_array().expect("labels");
    assert!(labels.len() == 3 && labels.iter().any(|label| label.to_string().contains("cat")), "{named}");

    let space = "conse_minilm_l6_v2";
    let words = ask(&api, space, json!({ "text": "a cup of coffee" }), json!({})).ok();
    let photos = ask(&api, space, json!({ "images": [cat, coffee] }), json!({})).ok();
    let of = |place: usize| likeness(&words["data"], &photos["data"][place]);
    assert!(of(1) > of(0), "{} and {}", of(0), of(1));

    for (inputs, parameters, field) in [
        (json!({ "text": "a" }), json!({}), "inputs.image"),
        (json!({ "image": "no base64!" }), json!({}), "inputs.image"),
        (json!({ "image": "data:image/png;base64,AAAA" }), json!({}), "inputs.image"),
        (json!({ "images": ["data:image/png;base64,"] }), json!({}), "inputs.images.0"),
        (json!({ "image": "http://127.0.0.1:9/cat.png" }), json!({}), "inputs.image"),
        (json!({ "image": cat }), json!({ "output": "colours" }), "parameters.output"),
        (json!({ "image": cat }), json!({ "output": "labels", "top_k": 0 }), "parameters.top_k"),
    ] {
        let refused = ask(&api, "efficientnet_lite0", inputs, parameters);
        assert!(refused.status == 422 && refused.text("/error/message").contains(field), "{field}: {}", refused.body);
    }
}

#[test]
fn faces_are_found_and_none_is_in_a_wall() {
    let server = Server::start();
    let api = server.api();
    let images = [uri("scikit-image/astronaut.png", "image/png"), uri("scikit-image/brick.png", "image/png")];
    let found = ask(&api, "face_api_resnet_128", json!({ "images": images }), json!({})).ok();
    let face = &found["data"][0][0];
    assert_eq!((numbers(&face["embedding"]).len(), numbers(&face["bbox"]).len()), (128, 4), "{found}");
    assert_eq!(found["data"][1], json!([]));
    let part = ask(&api, "blazeface_back", json!({ "image": images[0] }), json!({}));
    assert!(part.status == 422 && part.text("/error/message").contains("part of others"), "{}", part.body);
}

#[test]
fn a_recording_is_written_down() {
    let server = Server::start();
    let api = server.api();
    let recording = uri("pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-0880.wav", "audio/wav");
    let heard = ask(&api, "whisper_tiny_en", json!({ "audio": recording }), json!({ "word_times": true })).ok();
    let text = heard["data"]["text"].as_str().expect("a text").to_lowercase();
    assert!(text.contains("young man"), "{heard}");
    let segment = &heard["data"]["segments"][0];
    assert!(segment["end"].as_f64() > segment["start"].as_f64() && segment["words"].is_array(), "{heard}");
    let wrong = ask(&api, "whisper_tiny_en", json!({ "audio": recording }), json!({ "language": "tlh" }));
    assert_eq!(wrong.status, 422, "{}", wrong.body);
}

#[test]
fn text_is_read_and_a_clip_is_found_in_its_recording() {
    let server = Server::start();
    let api = server.api();
    let page = uri("scikit-image/page.png", "image/png");
    let told = ask(&api, "pp_ocr_v6_small", json!({ "image": page }), json!({})).ok();
    assert!(told["data"]["text"].as_str().is_some_and(|text| text.contains("histogram of grey values")), "{told}");
    assert_eq!(told["data"]["lines"][0]["corners"].as_array().map(Vec::len), Some(4));

    let part = |number: &str| {
        let name = format!("pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-{number}.wav");
        std::fs::read(file(&name)).expect("readable")[44..].to_vec()
    };
    let sent = |samples: &[u8]| {
        let length = u32::try_from(samples.len()).expect("short");
        let mut wav = b"RIFF".to_vec();
        wav.extend((36 + length).to_le_bytes());
        wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data");
        wav.extend(length.to_le_bytes());
        wav.extend(samples);
        format!("data:audio/wav;base64,{}", STANDARD.encode(wav))
    };
    let reading: Vec<u8> = ["0870", "0880", "0890", "0920", "0930"].iter().flat_map(|number| part(number)).collect();
    let clip = &reading[4 * 32_000..14 * 32_000];
    let inputs = json!({ "audio": sent(clip), "reference": sent(&reading) });
    let told = ask(&api, "strata_acoustic_v1", inputs, json!({})).ok();
    let best = &told["data"]["matches"][0];
    assert!((best["offset"].as_f64().expect("an offset") - 4.0).abs() < 0.5, "{told}");
    let vector = ask(&api, "strata_acoustic_v1", json!({ "audio": sent(clip) }), json!({})).ok();
    assert_eq!(numbers(&vector["data"]).len(), 512);
}
