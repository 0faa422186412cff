//! Executions as Server-Sent Events, one and several.

use crate::support::{Api, Server};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A collection of films and a retriever that finds those of one kind, as many as its inputs say.
fn films(api: &Api) -> String {
    let vectors = json!([{ "name": "plane", "dimension": 2 }]);
    let collection = api.post("/v1/collections", json!({ "collection_name": "films", "vector_indexes": vectors }));
    let documents = format!("/v1/collections/{}/documents", collection.text("/collection_id"));
    for (kind, year) in [("space", 1979), ("space", 1972), ("crime", 1995)] {
        api.post(&documents, json!({ "document_id": format!("doc_{year}"), "kind": kind, "year": year })).ok();
    }
    let stage = |name: &str, id: &str, parameters: Value| json!({ "stage_name": name, "config": { "stage_id": id, "parameters": parameters } });
    let of_kind = json!({ "field": "kind", "operator": "eq", "value": "{{INPUT.kind}}" });
    let made = api.post(
        "/v1/retrievers",
        json!({
            "retriever_name": "films",
            "collection_identifiers": ["films"],
            "input_schema": { "kind": { "type": "string", "required": true }, "most": { "type": "string" } },
            "stages": [
                stage("kind", "attribute_filter", of_kind),
                stage("cut", "limit", json!({ "limit": "{{INPUT.most}}" })),
            ],
        }),
    );
    made.text("/retriever_id").to_owned()
}

/// The events of a streamed answer, without the `[DONE]` at its end.
fn events(api: &Api, path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = true.into();
    let response = api.respond("POST", path, &[], &body);
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().expect("text");
    let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{text}");
    data.into_iter().map(|data| serde_json::from_str(data).expect("an event is JSON")).collect()
}

fn kinds<'e>(events: impl IntoIterator<Item = &'e Value>) -> Vec<&'e str> {
    events.into_iter().map(|event| event["event_type"].as_str().expect("an event has a type")).collect()
}

/// The events of one query of a batch.
fn of(events: &[Value], index: usize) -> Vec<&Value> {
    events.iter().filter(|event| event["index"] == index).collect()
}

#[test]
fn a_batch_streams_the_events_of_its_queries_and_counts_them() {
    let server = Server::start();
    let admin = server.api();
    let extractors = json!([{ "feature_extractor_name": "text_extractor", "version": "v1" }]);
    let made = admin.post("/v1/namespaces", json!({ "namespace_name": "streams", "feature_extractors": extractors }));
    let api = admin.within(made.text("/namespace_id"));
    let retriever = films(&api);
    let execute = format!("/v1/retrievers/{retriever}/execute");
    let batch = format!("{execute}/batch");
    let good = ["stage_start", "stage_complete", "stage_start", "stage_complete", "execution_complete"];

    // As many at once as there are, and one after the other.
    let queries = json!([
        { "inputs": { "kind": "space" } },
        { "inputs": { "most": "1" } },
        { "inputs": { "kind": "space", "most": "many" } },
        { "inputs": { "kind": "space", "most": "1" } },
        { "inputs": { "kind": "space" }, "filters": { "year": 1972 } },
    ]);
    for concurrency in [20, 1] {
        let events = events(&api, &batch, json!({ "queries": queries, "concurrency": concurrency }));
        let (last, others) = events.split_last().expect("events");
        let ids: BTreeSet<(u64, &str)> = others
            .iter()
            .map(|event| {
                let index = event["index"].as_u64().unwrap_or_else(|| panic!("no index in {event}"));
                (index, event["execution_id"].as_str().unwrap_or_else(|| panic!("no execution in {event}")))
            })
            .collect();
        assert_eq!(ids.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4], "one id each: {ids:?}");
        assert_eq!(ids.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 5, "and of its own: {ids:?}");
        for (index, wanted) in [(0, 2), (3, 1), (4, 1)] {
            let own = of(others, index);
            assert_eq!(kinds(own.iter().copied()), good, "query {index}: {own:?}");
            assert_eq!((&own[1]["stage_name"], &own[3]["stage_name"]), (&json!("kind"), &json!("cut")), "{own:?}");
            assert_eq!(own[4]["documents"].as_array().map(Vec::len), Some(wanted), "query {index}: {own:?}");
            assert_eq!((&own[4]["retriever_id"], &own[4]["status"]), (&json!(retriever), &json!("completed")));
        }
        let missing = of(others, 1);
        assert_eq!(kinds(missing.iter().copied()), ["execution_error"], "it needs an input: {missing:?}");
        assert!(missing[0]["error"].as_str().is_some_and(|error| error.contains("inputs.kind")), "{missing:?}");
        let failed = of(others, 2);
        let broken = ["stage_start", "stage_complete", "stage_start", "stage_error", "execution_error"];
        assert_eq!(kinds(failed.iter().copied()), broken, "its second stage fails: {failed:?}");
        assert_eq!(failed[3]["stage_name"], "cut");
        if concurrency == 1 {
            assert!(others.is_sorted_by_key(|event| event["index"].as_u64()), "one after the other: {others:?}");
        }
        assert_eq!((&last["event_type"], &last["index"]), (&json!("batch_complete"), &Value::Null), "{last}");
        assert_eq!(last["retriever_id"], json!(retriever), "{last}");
        assert_eq!([&last["total"], &last["succeeded"], &last["failed"]], [&json!(5), &json!(3), &json!(2)], "{last}");
        assert!(last["total_time_ms"].is_f64(), "{last}");
    }

    // One query has the events that it has alone, its number, and the count.
    let one = events(&api, &batch, json!({ "queries": [{ "inputs": { "kind": "crime" } }] }));
    let alone = events(&api, &execute, json!({ "inputs": { "kind": "crime" } }));
    assert_eq!(kinds(&alone), good);
    assert_eq!(kinds(&one), [&good[..], &["batch_complete"]].concat());
    assert_eq!(one[4]["documents"], alone[4]["documents"]);
    assert!(alone.iter().all(|event| event["index"].is_null()), "{alone:?}");

    // What is wrong with the whole request is refused before anything runs.
    let refused = api.post(&batch, json!({ "queries": [], "stream": true }));
    assert_eq!(refused.status, 422, "{}", refused.body);
    let absent = "/v1/retrievers/ret_nothing/execute/batch";
    assert_eq!(api.post(absent, json!({ "queries": [{ "inputs": {} }], "stream": true })).status, 404);
}
