//! Executions whose answers are kept: used again while they are true, and never after.

use crate::support::{Api, Server};
use serde_json::{Value, json};

/// An answer with what its headers say about the cache.
struct Answered {
    status: u16,
    cache: String,
    tag: String,
    body: Value,
}

impl Answered {
    fn titles(&self) -> Vec<&str> {
        let hits = self.body["documents"].as_array().expect("hits");
        hits.iter().map(|hit| hit["title"].as_str().expect("a title")).collect()
    }
}

/// Executes with every acknowledged write in sight.
fn execute(api: &Api, path: &str, more: Value, headers: &[(&str, &str)]) -> Answered {
    let mut body = json!({ "inputs": { "kind": "fruit" }, "consistency": { "mode": "strong" } });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let response = api.respond("POST", path, headers, &body);
    let header = |name: &str| response.headers().get(name).map_or("", |v| v.to_str().expect("text")).to_owned();
    let (cache, tag, control) = (header("x-cache"), header("etag"), header("cache-control"));
    let status = response.status().as_u16();
    let text = response.text().expect("a body");
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") };
    assert_eq!(control, "private, no-cache", "{status} {body}");
    Answered { status, cache, tag, body }
}

/// Executes until an answer is kept, which happens just after it was given.
fn kept(api: &Api, path: &str) -> Answered {
    for _ in 0..100 {
        let answered = execute(api, path, json!({}), &[]);
        if answered.cache == "HIT" {
            return answered;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{path} is never answered from what was kept");
}

#[test]
fn a_kept_answer_is_used_until_anything_it_rests_on_changes() {
    let server = Server::start();
    let api = server.api();
    let collection = api.post("/v1/collections", json!({ "collection_name": "shelf" }));
    let collection = collection.text("/collection_id").to_owned();
    let documents = format!("/v1/collections/{collection}/documents");
    let put = |title: &str| {
        let made =
            api.post(&documents, json!({ "title": title, "kind": "fruit", "text": format!("a {title} to eat") }));
        made.text("/document_id").to_owned()
    };
    let pear = put("pear");
    put("plum");
    let retriever = |limit: u32| {
        json!({
            "retriever_name": "shelf", "collection_identifiers": ["shelf"],
            "input_schema": { "kind": { "type": "string" } },
            "stages": [
                { "stage_name": "find", "config": { "stage_id": "feature_search", "parameters": {
                    "searches": [{ "query": "eat", "lexical": true, "filters": { "field": "kind", "operator": "eq", "value": "{{INPUT.kind}}" } }] } } },
                { "stage_name": "order", "config": { "stage_id": "sort_attribute", "parameters": { "field": "title", "direction": "asc" } } },
                { "stage_name": "cut", "config": { "stage_id": "limit", "parameters": { "limit": limit } } },
            ],
        })
    };
    let made = api.post("/v1/retrievers", retriever(10));
    let path = format!("/v1/retrievers/{}", made.text("/retriever_id"));
    let run = format!("{path}/execute");

    let first = execute(&api, &run, json!({}), &[]);
    assert_eq!((first.status, first.cache.as_str(), first.titles()), (200, "MISS", vec!["pear", "plum"]));
    let second = kept(&api, &run);
    assert_eq!((&second.tag, &second.body["documents"]), (&first.tag, &first.body["documents"]));
    assert_eq!((&second.body["cache_hit"], second.body["cached_at"].is_number()), (&json!(true), true));
    assert_ne!(second.body["execution_id"], first.body["execution_id"]);
    assert_eq!(second.body.pointer("/stage_statistics/stages/find/cache_hit"), Some(&json!(true)));
    let bypass = execute(&api, &run, json!({ "skip_cache": true }), &[]);
    assert_eq!((bypass.cache.as_str(), &bypass.tag), ("BYPASS", &first.tag));
    let known = execute(&api, &run, json!({}), &[("If-None-Match", &first.tag)]);
    assert_eq!((known.status, &known.tag, &known.body), (304, &first.tag, &Value::Null));

    // Whatever is written, the next answer has it.
    let mut tag = first.tag;
    let mut changed = |what: &str, titles: &[&str]| {
        let answered = execute(&api, &run, json!({}), &[("If-None-Match", &tag)]);
        assert_eq!((answered.status, answered.cache.as_str()), (200, "MISS"), "after {what}");
        assert_eq!(answered.titles(), titles, "after {what}");
        assert_eq!(kept(&api, &run).titles(), titles, "after {what}");
        tag = answered.tag;
    };
    put("apple");
    changed("a document was made", &["apple", "pear", "plum"]);
    let pear = format!("{documents}/{pear}");
    api.send("PATCH", &pear, Some(&json!({ "title": "quince" }))).ok();
    changed("a document was changed", &["apple", "plum", "quince"]);
    api.send("PATCH", &pear, Some(&json!({ "kind": "stone" }))).ok();
    changed("a document left the filter", &["apple", "plum"]);
    api.send("PATCH", &path, Some(&json!({ "stages": retriever(1)["stages"] }))).ok();
    changed("the retriever was changed", &["apple"]);
    api.send("PATCH", &path, Some(&json!({ "stages": retriever(10)["stages"] }))).ok();
    kept(&api, &run);
    api.post("/v1/collections", json!({ "collection_name": "other" })).ok();
    assert_eq!(execute(&api, &run, json!({}), &[]).cache, "HIT", "another collection changes nothing");
    api.delete(&pear).ok();
    changed("a document was deleted", &["apple", "plum"]);
}

#[test]
fn nothing_is_answered_from_what_another_namespace_has_found() {
    let server = Server::start();
    let admin = server.api();
    let body = json!({ "stages": [{ "stage_name": "all", "config": { "stage_id": "attribute_filter",
        "parameters": { "field": "kind", "operator": "eq", "value": "fruit" } } }], "collection_identifiers": ["shelf"] });
    let inside = |name: &str| {
        let made = admin.post("/v1/namespaces", json!({ "namespace_name": name, "feature_extractors": [] }));
        let api = admin.within(made.text("/namespace_id"));
        api.post("/v1/collections", json!({ "collection_name": "shelf" })).ok();
        api.post("/v1/collections/shelf/documents", json!({ "kind": "fruit", "title": name })).ok();
        api
    };
    for api in [inside("one"), inside("two")] {
        let titles = |_| {
            let answer = api.post("/v1/retrievers/execute", body.clone()).ok();
            answer["documents"][0]["title"].as_str().expect("a title").to_owned()
        };
        let found: Vec<String> = (0..3).map(titles).collect();
        assert!(found.iter().all(|title| *title == found[0]), "{found:?}");
    }
}
