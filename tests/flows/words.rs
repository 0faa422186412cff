//! Searches by words: sparse vectors of a model, and BM25 in the language of the texts.

use crate::support::{Api, Server, wait_for_task};
use serde_json::{Value, json};

/// A bucket of one text each, and a collection that `extractor` makes of it, worked through.
fn collection(api: &Api, name: &str, texts: &[&str], extractor: Value) -> Value {
    let schema = json!({ "properties": { "content": { "type": "text" } } });
    let bucket = api.post("/v1/buckets", json!({ "bucket_name": name, "bucket_schema": schema }));
    let bucket = bucket.text("/bucket_id").to_owned();
    for text in texts {
        let blob = json!({ "property": "content", "type": "text", "data": text });
        api.post(&format!("/v1/buckets/{bucket}/objects"), json!({ "blobs": [blob] })).ok();
    }
    let source = json!({ "type": "bucket", "bucket_ids": [bucket] });
    let made = api
        .post("/v1/collections", json!({ "collection_name": name, "source": source, "feature_extractor": extractor }));
    let made = made.ok();
    let task = api.post(&format!("/v1/collections/{name}/trigger"), json!({}));
    assert_eq!(wait_for_task(api, task.text("/task_id")), "COMPLETED");
    made
}

/// The best hit of a search.
fn best(api: &Api, collection: &str, search: Value) -> Value {
    let stage = json!({ "stage_name": "find", "config": { "stage_id": "feature_search", "parameters": { "searches": [search] } } });
    let body = json!({ "collection_identifiers": [collection], "stages": [stage], "inputs": {} });
    api.post("/v1/retrievers/execute", body).ok()["documents"][0].clone()
}

#[test]
fn sparse_vectors_find_words_that_a_text_does_not_have() {
    let server = Server::start();
    let api = server.api();
    let texts = ["The river flows into the sea.", "A violin has four strings.", "Bread is baked from flour and yeast."];
    let extractor = json!({ "feature_extractor_name": "splade_extractor", "version": "v1", "input_mappings": { "text": "content" } });
    let made = collection(&api, "sparse", &texts, extractor);
    let uri = made["vector_indexes"][0]["feature_uri"].as_str().expect("a feature URI").to_owned();
    assert_eq!(uri, "mixpeek://splade_extractor@v1/splade_tiny", "{made}");
    let named = |text: &str| best(&api, "sparse", json!({ "feature_uri": uri, "query": text }));
    for (query, wanted) in [("water", texts[0]), ("instrument", texts[1]), ("baking", texts[2])] {
        assert_eq!(named(query)["text"], wanted, "{query}");
    }
    // A text that names no index searches the sparse vectors beside the words.
    let hit = best(&api, "sparse", json!({ "query": "four strings" }));
    let searches = hit["_provenance"]["searches"].as_array().expect("searches");
    let features: Vec<&str> = searches.iter().filter_map(|search| search["feature"].as_str()).collect();
    assert_eq!((hit["text"].as_str(), features), (Some(texts[1]), vec![uri.as_str(), "lexical"]));
    assert_eq!(hit["_provenance"]["position"]["start_char"], 0);
}

#[test]
fn words_are_compared_in_the_language_of_the_texts() {
    let server = Server::start();
    let api = server.api();
    let texts = ["Die Häuser der Stadt stehen am Fluss.", "Der Hund schläft."];
    let extractor = |language: &str| {
        json!({ "feature_extractor_name": "text_extractor", "version": "v1", "input_mappings": { "text": "content" },
            "parameters": { "language": language } })
    };
    let words = |collection: &str, query: &str| best(&api, collection, json!({ "query": query, "lexical": true }));
    collection(&api, "german", &texts, extractor("de"));
    collection(&api, "english", &texts, extractor("en"));
    assert_eq!(words("german", "ein Haus")["text"], texts[0]);
    assert_eq!(words("german", "Hunde")["text"], texts[1]);
    assert_eq!(words("german", "der")["text"], Value::Null, "a stop word finds nothing");
    assert_eq!(words("english", "Haus")["text"], Value::Null);
    assert_eq!(words("english", "der")["text"], texts[1]);
}
