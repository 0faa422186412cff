//! What is deleted is gone, with a receipt; what is soft-deleted is no longer found.

use crate::support::{SOON, Server, World, wait_for};
use serde_json::{Value, json};

fn hits(world: &World) -> usize {
    let execute = format!("/v1/retrievers/{}/execute", world.id("retriever_id"));
    let answer = world.api.post(&execute, json!({ "inputs": { "query": "water" } })).ok();
    answer["results"].as_array().expect("hits").len()
}

#[test]
fn a_deleted_object_takes_its_documents_and_its_bytes_with_it() {
    let server = Server::start();
    let world = World::create(&server.api(), "gone");
    wait_for("the document to be searchable", SOON, || (hits(&world) == 1).then_some(()));
    let object = format!("/v1/buckets/{}/objects/{}", world.id("bucket_id"), world.id("object_id"));
    let bytes = |dir: &std::path::Path| -> u64 {
        let mut left = vec![dir.to_owned()];
        let mut size = 0;
        while let Some(path) = left.pop() {
            match std::fs::read_dir(&path) {
                Ok(entries) => left.extend(entries.map(|entry| entry.expect("an entry").path())),
                Err(_) => size += path.metadata().map_or(0, |file| file.len()),
            }
        }
        size
    };
    let blobs = server.data_dir().join("blobs");
    assert_eq!(bytes(&blobs), "Water flows downhill.".len() as u64);
    let receipt = world.api.delete(&format!("{object}?receipt=true")).ok();
    assert_eq!(receipt["documents"][world.id("collection_id")], 1, "{receipt}");
    assert_eq!((&receipt["blobs"], &receipt["bytes"]), (&json!(1), &json!(21)), "{receipt}");
    assert_eq!(bytes(&blobs), 0);
    assert_eq!(hits(&world), 0);
    assert_eq!(world.api.get(&object).status, 404);
    let document = format!("/v1/collections/{}/documents/{}", world.id("collection_id"), world.id("document_id"));
    assert_eq!(world.api.get(&document).status, 404);
}

#[test]
fn a_soft_deleted_object_is_readable_and_found_by_no_search() {
    let server = Server::start();
    let world = World::create(&server.api(), "hidden");
    wait_for("the document to be searchable", SOON, || (hits(&world) == 1).then_some(()));
    let path = format!("/v1/buckets/{}/objects/bulk-soft-delete", world.id("bucket_id"));
    let mark = |state: &str| {
        let body = json!({ "object_ids": [world.id("object_id")], "reason": "a test", "lifecycle_state": state });
        world.api.post(&path, body).ok()
    };
    assert_eq!(mark("disabled"), json!({ "soft_deleted": 1, "requested": 1, "collections": 1 }));
    let suggested = || {
        let typed = world.api.get("/v1/retrievers/typeahead?q=water&fields=text").ok();
        typed["values"].as_array().map_or(0, Vec::len)
    };
    let counted = || {
        let explain = format!("/v1/retrievers/{}/explain", world.id("retriever_id"));
        let explained = world.api.post(&explain, json!({ "inputs": { "query": "water" } })).ok();
        ["documents", "matching_documents"].map(|name| explained["optimization_details"][name].clone())
    };
    assert_eq!((hits(&world), suggested(), counted()), (0, 0, [json!(0), json!(0)]));
    let document = format!("/v1/collections/{}/documents/{}", world.id("collection_id"), world.id("document_id"));
    assert_eq!(world.api.get(&document).ok()["text"], Value::from("Water flows downhill."));
    mark("active");
    assert_eq!((hits(&world), suggested(), counted()), (1, 1, [json!(1), json!(1)]));
}
