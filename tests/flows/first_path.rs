//! The first path through the whole product: from objects to answers that say where they come from.

use crate::support::{SOON, Server, object, retriever_body, submit, text_collection, wait_for, wait_for_task};
use base64::Engine as _;
use serde_json::{Value, json};

#[test]
fn objects_become_documents_and_documents_become_answers_with_lineage() {
    let server = Server::start();
    let admin = server.api();
    let namespace = admin.post(
        "/v1/namespaces",
        json!({
            "namespace_name": "first-path",
            "feature_extractors": [{ "feature_extractor_name": "text_extractor", "version": "v1" }],
        }),
    );
    let api = admin.within(namespace.text("/namespace_id"));

    let bucket = api.post(
        "/v1/buckets",
        json!({
            "bucket_name": "articles",
            "bucket_schema": { "properties": {
                "title": { "type": "string", "required": true },
                "year": { "type": "integer" },
                "content": { "type": "text" },
            } },
        }),
    );
    let bucket = bucket.text("/bucket_id");
    let objects = format!("/v1/buckets/{bucket}/objects");
    let inline = api.post(&objects, object("Weather", 1999, "Rain fell all night. The sun came back in the morning."));
    let inline = inline.text("/object_id").to_owned();
    let coded = base64::engine::general_purpose::STANDARD
        .encode("A violin has four strings. A trumpet is a brass instrument played by blowing.");
    let uri = json!({ "property": "content", "type": "text", "data": format!("data:text/plain;base64,{coded}") });
    let by_uri = api.post(&objects, json!({ "title": "Music", "year": 2005, "blobs": [uri] }));
    let by_uri = by_uri.text("/object_id").to_owned();
    assert_eq!(api.post(&objects, json!({ "year": "no number", "blobs": [] })).status, 422, "the schema is enforced");

    let collection = text_collection(&api, "sentences", bucket);
    let described = api.get(&format!("/v1/collections/{collection}")).ok();
    assert!(described["output_schema"]["properties"]["title"].is_object(), "known before any document: {described}");
    let (_, task) = submit(&api, bucket, &[inline.clone(), by_uri.clone()], &collection);
    assert_eq!(wait_for_task(&api, &task), "COMPLETED");

    let documents = api.list(&format!("/v1/collections/{collection}/documents/list"));
    assert_eq!(documents.len(), 4, "one of every sentence: {documents:?}");
    let of = |object: &str| documents.iter().filter(|d| d["root_object_id"] == object).count();
    assert_eq!((of(&inline), of(&by_uri)), (2, 2));
    for document in &documents {
        assert_eq!(document["root_bucket_id"], bucket, "{document}");
        assert_eq!(document["lineage_path"], format!("{bucket}/{collection}"), "{document}");
        assert!(document["title"].is_string() && document["year"].is_i64(), "fields pass through: {document}");
    }

    let retriever = api.post("/v1/retrievers", retriever_body(&api, "finder", &collection));
    let execute = format!("/v1/retrievers/{}/execute", retriever.text("/retriever_id"));
    let hits = wait_for("the documents to be searchable", SOON, || {
        let answer = api.post(&execute, json!({ "inputs": { "query": "brass wind instrument" } })).ok();
        assert_eq!(answer["results"], answer["documents"], "both keys hold the hits");
        answer["results"].as_array().filter(|hits| hits.len() == 4).cloned()
    });
    let best = &hits[0];
    assert!(best["text"].as_str().is_some_and(|text| text.contains("trumpet")), "{best}");
    assert_eq!(best["root_object_id"], Value::from(by_uri.as_str()), "the hit leads back to its object");
    assert_eq!(best["lineage_path"], Value::from(format!("{bucket}/{collection}")));
    let root = api.get(&format!("{objects}/{}", best["root_object_id"].as_str().expect("an id"))).ok();
    assert_eq!(root["title"], "Music");

    assert_eq!(api.post(&execute, json!({ "inputs": {} })).status, 422, "the input schema is enforced");
}

#[test]
fn submitting_again_runs_only_what_changed_and_doubles_nothing() {
    let server = Server::start();
    let world = crate::support::World::create(&server.api(), "again");
    let (api, bucket, collection) = (&world.api, world.id("bucket_id"), world.id("collection_id"));
    let documents = format!("/v1/collections/{collection}/documents/list");
    let before = api.list(&documents);
    let (_, task) = submit(api, bucket, &[world.id("object_id").to_owned()], collection);
    assert_eq!(wait_for_task(api, &task), "COMPLETED");
    let ids = |documents: &[Value]| documents.iter().map(|d| d["document_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&api.list(&documents)), "the same documents under the same ids");
}
