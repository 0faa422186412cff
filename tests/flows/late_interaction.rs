//! Late interaction: documents with a vector for each token, searched by those of the query's tokens, with a model that
//! was pulled from a directory.

use crate::support::{Answer, Api, SOON, Server, colbert, wait_for, wait_for_task};
use serde_json::{Value, json};
use std::process::Command;

const URI: &str = "mixpeek://colbert_extractor@v1/colbertv2_v1";
const INDEX: &str = "colbert_extractor_v1_colbertv2_v1";
/// Texts, and how many vectors each has: of its words, its endings and three marks, and of its signs none.
const TEXTS: [(&str, usize); 4] = [
    ("The rivers flow into the sea.", 10),
    ("A violin has four strings.", 9),
    ("Bread is baked from flour, and yeast!", 10),
    ("The sea is water.", 7),
];

/// A bucket with the texts, and a collection `late` of them; answers the collection.
fn collection(api: &Api) -> Value {
    let schema = json!({ "properties": { "content": { "type": "text" } } });
    let bucket = api.post("/v1/buckets", json!({ "bucket_name": "texts", "bucket_schema": schema }));
    let bucket = bucket.text("/bucket_id").to_owned();
    for (text, _) in TEXTS {
        let blob = json!({ "property": "content", "type": "text", "data": text });
        api.post(&format!("/v1/buckets/{bucket}/objects"), json!({ "blobs": [blob] })).ok();
    }
    let mappings = json!({ "text": "content" });
    let extractor =
        json!({ "feature_extractor_name": "colbert_extractor", "version": "v1", "input_mappings": mappings });
    let source = json!({ "type": "bucket", "bucket_ids": [bucket] });
    let body = json!({ "collection_name": "late", "source": source, "feature_extractor": extractor });
    api.post("/v1/collections", body).ok()
}

fn embedded(api: &Api, text: &str, parameters: Value) -> Answer {
    api.post("/v1/inference", json!({ "feature_uri": URI, "inputs": { "text": text }, "parameters": parameters }))
}

/// Searches by a text, and orders what was found by the stages that follow.
fn found(api: &Api, query: &str, following: Option<Value>) -> Answer {
    let searches = json!([{ "feature_uri": URI, "query": { "input_mode": "text", "value": query } }]);
    let search = json!({ "stage_id": "feature_search", "parameters": { "searches": searches } });
    let stages: Vec<Value> = [search]
        .into_iter()
        .chain(following)
        .map(|config| json!({ "stage_name": config["stage_id"], "config": config }))
        .collect();
    let body = json!({ "collection_identifiers": ["late"], "stages": stages, "inputs": {} });
    api.post("/v1/retrievers/execute", body)
}

fn rows(value: &Value) -> Vec<Vec<f64>> {
    serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value} has no rows of numbers: {error}"))
}

fn max_sim(query: &[Vec<f64>], document: &[Vec<f64>]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let most = |one: &Vec<f64>| document.iter().map(|row| dot(one, row)).fold(f64::NEG_INFINITY, f64::max);
    query.iter().map(most).sum()
}

/// The texts that were found, each with its score.
fn scored(answer: Answer) -> Vec<(String, f64)> {
    let hits = answer.ok()["documents"].as_array().cloned().expect("documents");
    let text = |hit: &Value| hit["text"].as_str().expect("a text").to_owned();
    hits.iter().map(|hit| (text(hit), hit["score"].as_f64().expect("a score"))).collect()
}

#[track_caller]
fn assert_ranked(found: &[(String, f64)], expected: &[(String, f64)]) {
    let texts = |hits: &[(String, f64)]| hits.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>();
    assert_eq!(texts(found), texts(expected));
    let is_near = |((_, a), (_, b)): (&(String, f64), &(String, f64))| (a - b).abs() < 1e-2;
    assert!(found.iter().zip(expected).all(is_near), "{found:?} is not {expected:?}");
}

#[test]
fn texts_are_found_by_the_vectors_of_their_tokens() {
    let server = Server::start_without_models();
    let api = server.api();
    let made = collection(&api);
    let index = &made["vector_indexes"][0];
    assert_eq!((&index["feature_uri"], &index["name"]), (&json!(URI), &json!(INDEX)), "{made}");
    let settings = &index["index"];
    assert_eq!((&settings["type"], &settings["dimensions"]), (&json!("multi_dense"), &json!(128)), "{made}");
    for refused in [found(&api, "water", None), embedded(&api, "water", json!({}))] {
        assert_eq!(refused.status, 503, "{}", refused.body);
        assert!(refused.text("/error/message").contains("strata models pull colbertv2"), "{}", refused.body);
    }

    let files = tempfile::tempdir().expect("temporary directory");
    colbert::write(files.path(), 128);
    let pulled = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["models", "pull", "colbertv2", "--from"])
        .arg(files.path())
        .env("STRATA_MODELS", server.models_dir())
        .output()
        .expect("the binary runs");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let task = api.post("/v1/collections/late/trigger", json!({}));
    assert_eq!(wait_for_task(&api, task.text("/task_id")), "COMPLETED");
    wait_for("the documents to be searchable", SOON, || {
        (scored(found(&api, "water", None)).len() == TEXTS.len()).then_some(())
    });

    let mut documents = Vec::new();
    for listed in api.list("/v1/collections/late/documents/list") {
        let id = listed["document_id"].as_str().expect("an id");
        let document = api.get(&format!("/v1/collections/late/documents/{id}?return_vectors=true")).ok();
        let text = document["text"].as_str().expect("a text").to_owned();
        let vectors = rows(&document["vectors"][INDEX]);
        assert!(vectors.iter().all(|row| row.len() == 128), "{text}");
        documents.push((text, vectors));
    }
    let mut counts: Vec<(&str, usize)> = documents.iter().map(|(text, rows)| (text.as_str(), rows.len())).collect();
    counts.sort_by_key(|(text, _)| TEXTS.iter().position(|(own, _)| own == text));
    assert_eq!(counts, TEXTS);
    let as_document = rows(&embedded(&api, &documents[0].0, json!({})).ok()["data"]);
    assert!((max_sim(&as_document, &documents[0].1) - as_document.len() as f64).abs() < 1e-2, "the same vectors");

    for query in ["the rivers flow", "four strings", "water", "violin"] {
        let asked = rows(&embedded(&api, query, json!({ "embedding_task": "retrieval_query" })).ok()["data"]);
        assert_eq!(asked.len(), 32, "a query is filled up");
        let mut expected: Vec<(String, f64)> =
            documents.iter().map(|(text, rows)| (text.clone(), max_sim(&asked, rows))).collect();
        expected.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        assert_ranked(&scored(found(&api, query, None)), &expected);
        let again = json!({ "stage_id": "maxsim_rerank", "parameters": { "feature_uri": INDEX, "query": query } });
        assert_ranked(&scored(found(&api, query, Some(again))), &expected);
    }
}
