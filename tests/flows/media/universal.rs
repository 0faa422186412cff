//! Files of every kind lie in one collection and one space, and words find the right one.

use super::{Shelf, damaged::failures, file, jpeg_size, opened, pages::scanned, recordings::wav};
use crate::flows::providers::{server_with, settings};
use crate::support::provider::Provider;
use serde_json::{Value, json};

const VECTOR: &str = "universal_extractor_v1_conse_minilm_l6_v2";
const HOSTED: &str = "mixpeek://universal_extractor@v1/universal_extractor_v1_embedding";
const NOTE: &[u8] = b"The cosine of an angle is the ratio of two sides of a triangle.\x0cA tangent is another one.";

fn article() -> String {
    let body = "Bees carry nectar into their hive and dry it in the comb until it is honey. ".repeat(10);
    format!(
        "<!DOCTYPE html><html><head><title>Bees</title></head><body><script>track()</script>\
         <article><h1>Honey</h1><p>{body}</p></article></body></html>"
    )
}

/// Executes a search for words in the hosted service's vector.
fn found(shelf: &Shelf, collection: &str, words: &str) -> Value {
    let body = json!({
        "collection_identifiers": [collection], "inputs": { "words": words },
        "stages": [{ "stage_name": "search", "stage_type": "filter", "config": { "stage_id": "feature_search", "parameters": {
            "searches": [{
                "feature_uri": HOSTED, "query": { "input_mode": "text", "value": "{{INPUT.words}}" }, "top_k": 5,
            }],
            "final_top_k": 5,
        } } }],
    });
    let answer = shelf.api.post("/v1/retrievers/execute", body).ok();
    answer["documents"][0].clone()
}

#[test]
fn words_find_the_right_one_among_files_of_every_kind() {
    let shelf = Shelf::open();
    let all = shelf.collection(
        "all",
        "universal_extractor",
        json!({ "max_video_segments": 2, "max_document_pages": 5, "output_dimensionality": 3072 }),
    );
    // What there will be is known before anything is.
    let made = shelf.api.get(&format!("/v1/collections/{all}")).ok();
    let index = &made["vector_indexes"][0];
    assert_eq!((&index["name"], made["vector_indexes"].as_array().map(Vec::len)), (&json!(VECTOR), Some(1)), "{made}");
    let properties = &made["output_schema"]["properties"];
    assert_eq!(properties["start_time_s"]["type"], "number", "{made}");
    assert!(properties.get("description").is_none(), "no language model is named: {made}");

    let read = |name: &str| std::fs::read(file(name)).expect("readable");
    let cat = shelf.put_file("image", "scikit-image/chelsea.png");
    let film = shelf.put_file("video", "opencv-doc/Megamind.avi");
    let street = shelf.put_file("video", "opencv-doc/vtest.avi");
    let speech = "pocketsphinx-testdata/goforward.raw";
    let speech = shelf.put("audio", "goforward.wav", &wav(&read(speech), speech));
    let manual = shelf.put_file("pdf", "pdf/R-data.pdf");
    let scan = shelf.put("pdf", "scan.pdf", &scanned(&read("scikit-image/page.png")));
    let photo = shelf.put("pdf", "photo.pdf", &scanned(&read("scikit-image/coffee.png")));
    let note = shelf.put("text", "note.txt", NOTE);
    let page = shelf.put("text", "bees.html", article().as_bytes());
    let objects = [&cat, &film, &street, &speech, &manual, &scan, &photo, &note, &page].map(Clone::clone);
    assert_eq!(shelf.derive(&objects, &[&all]), "COMPLETED");
    shelf.settle(&all);

    let documents = shelf.documents(&all);
    let of = |object: &str| {
        let mut own: Vec<&Value> = documents.iter().filter(|d| d["root_object_id"] == object).collect();
        own.sort_by_key(|d| d["segment_index"].as_u64());
        for (at, document) in own.iter().enumerate() {
            assert_eq!(document["segment_index"], json!(at), "{document}");
            assert_eq!(document["segment_total"], json!(own.len()), "{document}");
            assert_eq!(document["lineage_path"], format!("{}/{all}", shelf.bucket), "{document}");
        }
        assert!(!own.is_empty(), "{object} has documents");
        own
    };
    for (object, modality) in [
        (&cat, "image"),
        (&film, "video"),
        (&street, "video"),
        (&speech, "audio"),
        (&manual, "document"),
        (&scan, "document"),
        (&photo, "document"),
        (&note, "document"),
        (&page, "document"),
    ] {
        assert!(of(object).iter().all(|document| document["modality"] == modality), "{modality}: {:?}", of(object));
    }
    for pictured in [of(&cat)[0], of(&film)[0], of(&street)[1], of(&manual)[0], of(&scan)[0], of(&photo)[0]] {
        let (width, height) = jpeg_size(&opened(&pictured["thumbnail_url"]));
        assert!(width.max(height) <= 640 && width.min(height) > 0, "{pictured}");
    }
    let seconds = |document: &Value| {
        ["start_time_s", "end_time_s", "duration_s"].map(|field| document[field].as_f64().expect("seconds"))
    };
    // The rest of its 80 seconds is left out.
    let places: Vec<[f64; 3]> = of(&street).into_iter().map(seconds).collect();
    assert_eq!(places, [[0.0, 30.0, 30.0], [30.0, 60.0, 30.0]]);
    let [start, end, _] = seconds(of(&film)[0]);
    assert!(start == 0.0 && (11.0..12.0).contains(&end), "{start} to {end}");
    let said = of(&film)[0]["text"].as_str().expect("what is said").to_lowercase();
    assert!(said.contains("by its cover"), "{said}");
    assert!(of(&speech)[0]["text"].as_str().is_some_and(|text| text.to_lowercase().contains("go forward")));
    let pages: Vec<u64> = of(&manual).iter().filter_map(|page| page["page_number"].as_u64()).collect();
    assert!(pages.len() >= 3 && pages.is_sorted() && pages.iter().all(|page| (1..=5).contains(page)), "{pages:?}");
    assert!(of(&manual)[0]["total_pages"].as_u64().is_some_and(|pages| pages > 20), "{}", of(&manual)[0]);
    assert!(of(&scan)[0]["text"].as_str().is_some_and(|text| text.contains("histogram")), "{}", of(&scan)[0]);
    let read: Vec<&str> = of(&note).iter().filter_map(|page| page["text"].as_str()).collect();
    assert_eq!((read.len(), read[1]), (2, "A tangent is another one."));
    let honey = of(&page)[0]["text"].as_str().expect("text");
    assert!(honey.contains("nectar") && !honey.contains("track") && !honey.contains('<'), "{honey}");

    for (words, right) in [
        ("a cat", &cat),
        ("judge somebody by what he does and not by how he looks", &film),
        ("walk straight ahead for some distance", &speech),
        ("importing data from a spreadsheet into R", &manual),
        ("segmentation of an image by markers and a histogram", &scan),
        ("a cup of coffee", &photo),
        ("trigonometry", &note),
        ("how bees make honey", &page),
    ] {
        let hit = found(&shelf, &all, words);
        assert_eq!(hit["root_object_id"], json!(right), "{words}: {hit}");
        if right == &film {
            assert_eq!(hit["_provenance"]["position"]["start_time_s"].as_f64(), Some(0.0), "{hit}");
        }
    }
}

#[test]
fn images_are_described_where_a_model_is_named_and_large_files_are_refused() {
    let provider = Provider::start();
    let (server, _file) = server_with(&settings(&provider));
    let shelf = Shelf::on(server);
    let extractor = |parameters: Value| {
        json!({
            "feature_extractor_name": "universal_extractor", "version": "v1", "parameters": parameters,
            "input_mappings": { "content": "image" },
        })
    };
    let source = json!({ "type": "bucket", "bucket_ids": [shelf.bucket] });
    let described = shelf.collection_of(
        "described",
        source.clone(),
        extractor(json!({
            "llm_provider": "own", "llm_model": "looker", "extract_text": false, "max_file_download_mb": 1,
        })),
    );
    let made = shelf.api.get(&format!("/v1/collections/{described}")).ok();
    assert_eq!(made["output_schema"]["properties"]["description"]["type"], "string", "{made}");
    let wide = shelf.put_file("image", "opencv-doc/aloeL.jpg");
    let cell = std::fs::read(file("scikit-image/cell.png")).expect("readable");
    let large = shelf.put("image", "large.png", &[&cell[..], &[0; 1 << 20]].concat());
    let ended = shelf.derive(&[wide.clone(), large.clone()], &[&described]);
    assert!(ended.starts_with("COMPLETED"), "{ended}");
    let documents = shelf.documents(&described);
    assert_eq!((documents.len(), &documents[0]["root_object_id"]), (1, &json!(wide)), "{documents:?}");
    assert!(documents[0]["description"].as_str().is_some_and(|text| text.contains("landscape")), "{}", documents[0]);
    assert!(documents[0].get("text").is_none(), "{}", documents[0]);
    let failed = failures(&shelf, &[large]);
    assert!(failed.len() == 1 && failed[0].1.contains("max_file_download_mb"), "{failed:?}");

    for (parameters, says) in [
        (json!({ "output_dimensionality": 768 }), "384"),
        (json!({ "max_video_segments": 0 }), "max_video_segments"),
        (json!({ "task_type": "COOKING" }), "task_type"),
        (json!({ "llm_provider": "own" }), "llm_model"),
    ] {
        let body =
            json!({ "collection_name": "wrong", "source": source, "feature_extractor": extractor(parameters.clone()) });
        let refused = shelf.api.post("/v1/collections", body);
        let message = refused.text("/error/message");
        assert!(refused.status == 422 && message.contains(says), "{parameters}: {}", refused.body);
    }
}

#[test]
fn it_is_listed_with_its_modalities_and_its_vector() {
    let shelf = Shelf::open();
    let one = shelf.api.get("/v1/collections/features/extractors/universal_extractor_v1").ok();
    assert_eq!(one["feature_uri"], "mixpeek://universal_extractor@v1/conse_minilm_l6_v2", "{one}");
    let all = shelf.api.get("/v1/discovery/extractors").ok().to_string();
    assert!(all.contains("\"universal_extractor\""), "{all}");
    let features = shelf.api.get("/v1/collections/features").ok();
    for modality in ["image", "video", "audio", "pdf", "text"] {
        let mut listed = features["modalities"].as_array().expect("modalities").iter();
        let listed = listed.find(|one| one["modality"] == modality).expect("each is listed");
        assert!(listed["features"].to_string().contains("universal_extractor_v1"), "{modality}: {listed}");
    }
}
