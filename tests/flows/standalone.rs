//! Documents that come with their vectors, in namespaces made for them, and what promotion adds.

use crate::support::{Api, Server};
use serde_json::{Value, json};

fn documents(count: u32) -> Vec<Value> {
    let one = |n: u32| {
        let angle = f64::from(n) / f64::from(count) * std::f64::consts::PI;
        json!({
            "document_id": format!("item/{n}"),
            "vectors": { "plane": [angle.cos(), angle.sin()] },
            "payload": { "name": format!("number {n}"), "even": n.is_multiple_of(2), "vectors": "no name for a field" },
            "metadata": { "origin": "test" },
            "acl": { "read": ["everybody"] },
        })
    };
    (0..count).map(one).collect()
}

/// The names that a vector search finds, best first.
fn search(api: &Api, search: Value, filter: Option<Value>) -> Vec<String> {
    let mut stages = vec![json!({
        "stage_name": "search", "stage_type": "filter",
        "config": { "stage_id": "feature_search", "parameters": { "searches": [search], "final_top_k": 3 } },
    })];
    stages.extend(filter.map(|filter| {
        json!({
            "stage_name": "even", "stage_type": "filter",
            "config": { "stage_id": "attribute_filter", "parameters": filter },
        })
    }));
    let made = api.post("/v1/retrievers", json!({ "retriever_name": "plane", "stages": stages }));
    let path = format!("/v1/retrievers/{}", made.text("/retriever_id"));
    let answer = api.post(&format!("{path}/execute"), json!({ "inputs": {} })).ok();
    api.delete(&path).ok();
    let hits = answer["results"].as_array().expect("hits");
    hits.iter().map(|hit| hit["document_id"].as_str().expect("an id").to_owned()).collect()
}

fn along(x: f64, y: f64) -> Value {
    json!({ "feature_uri": "plane", "query": { "input_mode": "vector", "value": [x, y] }, "top_k": 20 })
}

#[test]
fn brought_documents_are_found_replaced_and_read_as_they_came() {
    let server = Server::start();
    let api = server.api();
    let made = api.post("/v1/namespaces/standalone", json!({ "namespace_id": "plane-1" })).ok();
    assert_eq!((&made["mode"], &made["auto_create_indexes"]), (&json!("standalone"), &json!(true)), "{made}");
    let upsert = "/v1/namespaces/plane-1/documents/upsert";
    let done = api.post(upsert, json!({ "documents": documents(8), "options": { "write_token": true } })).ok();
    assert_eq!((&done["inserted"], &done["consistency"]["retriever_visible"]), (&json!(8), &json!("immediate")));
    assert_eq!(done["dropped_payload_fields"]["item/3"], json!(["vectors"]));
    assert!(done["write_token"].is_string());

    let inside = api.within("plane-1");
    assert_eq!(search(&inside, along(1.0, 0.0), None), ["item/0", "item/1", "item/2"]);
    let even = json!({ "field": "even", "operator": "eq", "value": true });
    assert_eq!(search(&inside, along(1.0, 0.0), Some(even)), ["item/0", "item/2"]);

    // The same id again is the same document, with other content.
    let moved = json!({ "document_id": "item/0", "vectors": { "plane": [-1.0, 0.0] }, "payload": { "name": "moved" } });
    api.post(upsert, json!({ "documents": [moved] })).ok();
    assert_eq!(search(&inside, along(-1.0, 0.0), None)[0], "item/0");
    let read = api.get("/v1/namespaces/plane-1/documents/item%2F0?return_vectors=true").ok();
    assert_eq!((&read["payload"], &read["vectors"]["plane"]), (&json!({ "name": "moved" }), &json!([-1.0, 0.0])));
    let read = api.get("/v1/namespaces/plane-1/documents/item%2F1").ok();
    assert_eq!((&read["metadata"]["origin"], &read["acl"]["read"]), (&json!("test"), &json!(["everybody"])), "{read}");
    assert!(read["vectors"].is_null());

    // Ids are the caller's own in each namespace: the same in another is another document.
    api.post("/v1/namespaces/standalone", json!({ "namespace_id": "plane-2" })).ok();
    api.post("/v1/namespaces/plane-2/documents/upsert", json!({ "documents": documents(2) })).ok();
    assert_eq!(search(&inside, along(-1.0, 0.0), None)[0], "item/0");
    assert_eq!(api.get("/v1/namespaces/plane-2/documents/item%2F0").ok()["payload"]["name"], "number 0");
}

#[test]
fn what_does_not_fit_is_refused_whole_and_a_key_makes_a_repeat_harmless() {
    let server = Server::start();
    let api = server.api();
    let declared = json!([{ "name": "plane", "dimension": 2, "metric": "dot" }]);
    api.post("/v1/namespaces/standalone", json!({ "namespace_id": "strict", "vector_configs": declared })).ok();
    let upsert = "/v1/namespaces/strict/documents/upsert";
    let good = json!({ "document_id": "a", "vectors": { "plane": [1, 2] } });
    for (bad, field) in [
        (json!({ "document_id": "b", "vectors": { "plane": [1, 2, 3] } }), "documents.1.vectors.plane"),
        (json!({ "document_id": "b", "vectors": { "other": [1, 2] } }), "documents.1.vectors.other"),
        (json!({ "document_id": "", "vectors": {} }), "documents.1.document_id"),
        (json!({ "document_id": "b", "vectors": {}, "payload": 7 }), "documents.1.payload"),
        (json!({ "document_id": "b", "vectors": {}, "title": "x" }), "documents.1.title"),
    ] {
        let answer = api.post(upsert, json!({ "documents": [good, bad] }));
        assert_eq!(answer.status, 422, "{field}");
        assert!(answer.body.to_string().contains(field), "{field}: {}", answer.body);
    }
    assert_eq!(api.get("/v1/namespaces/strict/documents/a").status, 404);
    assert_eq!(api.post(upsert, json!({ "documents": [] })).status, 422);

    let keyed = json!({ "documents": [good], "options": { "idempotency_key": "k" } });
    let first = api.post(upsert, keyed.clone()).ok();
    api.post(upsert, json!({ "documents": [{ "document_id": "a", "vectors": { "plane": [5, 5] } }] })).ok();
    assert_eq!(api.post(upsert, keyed).ok()["document_ids"], first["document_ids"]);
    let read = api.get("/v1/namespaces/strict/documents/a?return_vectors=true").ok();
    assert_eq!(read["vectors"]["plane"], json!([5.0, 5.0]), "the repeat wrote nothing");
    let other = json!({ "documents": [{ "document_id": "z", "vectors": {} }], "options": { "idempotency_key": "k" } });
    assert_eq!(api.post(upsert, other).status, 409);
}

#[test]
fn a_promoted_namespace_embeds_queries_for_the_vectors_that_were_brought() {
    let server = Server::start();
    let api = server.api();
    let declared = json!([{ "name": "meaning", "dimension": 384 }, { "name": "plane", "dimension": 2 }]);
    api.post("/v1/namespaces/standalone", json!({ "namespace_id": "books", "vector_configs": declared })).ok();
    let mut meaning = vec![0.0; 384];
    meaning[7] = 1.0;
    let document = json!({ "document_id": "one", "vectors": { "meaning": meaning }, "payload": { "name": "one" } });
    api.post("/v1/namespaces/books/documents/upsert", json!({ "documents": [document] })).ok();

    let check = "/v1/namespaces/books/promote/validate";
    let wrong =
        json!({ "vector_mappings": [{ "existing_index": "plane", "inference_service": "all_minilm_l6_v2_int8" }] });
    let refused = api.post(check, wrong.clone());
    let fault = &refused.body["error"]["details"]["validation_errors"][0]["field"];
    assert_eq!((refused.status, fault), (422, &json!("vector_mappings.0")));
    assert_eq!(api.post(check, json!({})).ok()["suggestions"][0]["existing_index"], "meaning");
    assert_eq!(api.post("/v1/namespaces/books/promote", wrong).status, 422);

    let right = json!({
        "vector_mappings": [{ "existing_index": "meaning", "inference_service": "all_minilm_l6_v2_int8" }],
        "add_vectors": [{ "name": "picture", "dimension": 8 }],
    });
    assert_eq!(api.post(check, right.clone()).ok()["valid"], true);
    let done = api.post("/v1/namespaces/books/promote", right.clone()).ok();
    assert_eq!((&done["previous_mode"], &done["mode"]), (&json!("standalone"), &json!("managed")));
    assert_eq!(done["vector_configs"].as_array().map(Vec::len), Some(3), "{done}");
    assert_eq!(api.post("/v1/namespaces/books/promote", right).status, 409);
    assert_eq!(api.get("/v1/namespaces/books").ok()["mode"], "managed");

    let text =
        json!({ "feature_uri": "meaning", "query": { "input_mode": "text", "value": "a question" }, "top_k": 5 });
    assert_eq!(search(&api.within("books"), text, None), ["one"]);
}

#[test]
fn json_lines_are_written_in_any_number_each_for_itself() {
    const LINES: u32 = 2_500;
    let server = Server::start();
    let api = server.api();
    let declared = json!([{ "name": "plane", "dimension": 2 }]);
    api.post("/v1/namespaces/standalone", json!({ "namespace_id": "lines", "vector_configs": declared })).ok();
    let import = |body: String, path: &str| {
        let answer = api.try_send_bytes("POST", path, "application/x-ndjson; charset=utf-8", body.into());
        answer.expect("the server answers")
    };
    let upsert = "/v1/namespaces/lines/documents/upsert";
    let mut lines: Vec<String> = documents(LINES).iter().map(Value::to_string).collect();
    lines[0] = "{\"document_id\": \"broken\"".into();
    lines[1_200] = json!({ "document_id": "long", "vectors": { "plane": [1, 2, 3] } }).to_string();
    lines[2_000] = String::new();
    let done = import(lines.join("\n"), upsert).ok();
    assert_eq!((&done["inserted"], &done["failed"]), (&json!(LINES - 3), &json!(2)), "{done}");
    assert_eq!(done["consistency"]["retriever_visible"], "immediate");
    let errors = done["errors"].as_array().expect("errors");
    assert_eq!((&errors[0]["line"], &errors[1]["line"]), (&json!(1), &json!(1201)), "{done}");
    assert_eq!(errors[1]["document_id"], "long");
    assert!(errors[1]["error"].to_string().contains("vectors.plane"), "{done}");
    // Each of them has a field that is called as something of every document's.
    assert_eq!(done["warnings"], json!([format!("some payload fields of {} documents were left out", LINES - 3)]));
    let inside = api.within("lines");
    assert_eq!(search(&inside, along(-1.0, 0.0), None)[0], format!("item/{}", LINES - 1));

    // The same lines again are the same documents.
    import(lines.join("\n"), upsert).ok();
    let id = done["collection_id"].as_str().expect("a collection");
    assert_eq!(inside.get(&format!("/v1/collections/{id}/documents/count")).ok()["count"], LINES - 3);

    // Refused lines are told in their order, whatever is wrong with them.
    let (no_id, right) = (json!({ "document_id": "" }), json!({ "document_id": "right" }));
    let errors = import(format!("{no_id}\nnonsense\n{right}"), upsert).ok()["errors"].clone();
    assert_eq!((&errors[0]["line"], &errors[1]["line"]), (&json!(1), &json!(2)), "{errors}");

    // Where nothing can be written, the answer is an error; an empty body is no error.
    let refused = import("[]\n7".into(), upsert);
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.to_string().contains("line 1"), "{}", refused.body);
    assert_eq!(import(String::new(), upsert).ok()["inserted"], 0);
    assert_eq!(import(String::new(), &format!("{upsert}?collection_id=nobody")).status, 404);
    assert_eq!(api.try_send_bytes("POST", upsert, "text/csv", "a,b".into()).expect("an answer").status, 415);
}
