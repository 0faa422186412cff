//! Clones and snapshots: equal to what they are of, whole or not there, and independent of each other.

use crate::support::{Api, SOON, Server, World, object, submit, wait_for, wait_for_task};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// How ids begin that differ between a namespace and its clone.
const PREFIXES: [&str; 7] = ["ns_", "bkt_", "obj_", "col_", "doc_", "der_", "ret_"];
/// What is another in a clone by its nature.
const DIFFERS: [&str; 10] = [
    // Work that was done stays with the original.
    "batch_stats",
    "presigned_url",
    "searchable_at",
    "is_published",
    "visibility",
    "published",
    "published_at",
    "public_name",
    "public_url",
    "execution_id",
];

/// The value without what differs between a namespace and its clone: ids become their prefix.
fn alike(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| !DIFFERS.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), alike(value))).collect::<Map<_, _>>())
        }
        Value::Array(list) => list.iter().map(alike).collect(),
        Value::String(text) => {
            let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let short = |word| PREFIXES.iter().find(|prefix| str::starts_with(word, **prefix)).copied().unwrap_or(word);
            words.map(short).collect::<String>().into()
        }
        other => other.clone(),
    }
}

/// The ids of everything in a namespace that has one bucket, one retriever and some collections.
struct Place {
    api: Api,
    bucket: String,
    collections: Vec<String>,
    retriever: String,
}

impl Place {
    fn of(admin: &Api, namespace: &str) -> Self {
        let api = admin.within(namespace);
        let only = |kind: &str| {
            let found = api.list(&format!("/v1/{kind}s/list"));
            found.iter().map(|row| row[format!("{kind}_id")].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
        };
        let (mut buckets, collections, mut retrievers) = (only("bucket"), only("collection"), only("retriever"));
        assert_eq!((buckets.len(), retrievers.len()), (1, 1), "one of each");
        Self { bucket: buckets.remove(0), retriever: retrievers.remove(0), collections, api }
    }

    fn documents(&self) -> Vec<Value> {
        let of = |collection: &String| self.api.list(&format!("/v1/collections/{collection}/documents/list"));
        self.collections.iter().flat_map(of).collect()
    }

    fn listings(&self) -> Value {
        json!({
            "buckets": self.api.list("/v1/buckets/list"),
            "objects": self.api.list(&format!("/v1/buckets/{}/objects/list", self.bucket)),
            "collections": self.api.list("/v1/collections/list"),
            "retrievers": self.api.list("/v1/retrievers/list"),
            "documents": self.documents(),
        })
    }

    /// Texts and scores of what a search finds.
    fn hits(&self, query: &str) -> Vec<(Value, Value)> {
        let path = format!("/v1/retrievers/{}/execute", self.retriever);
        let answer = self.api.post(&path, json!({ "inputs": { "query": query } })).ok();
        let hits = answer["results"].as_array().expect("hits").clone();
        hits.iter().map(|hit| (hit["text"].clone(), hit["score"].clone())).collect()
    }

    /// Processes every object again and waits for the end; answers how many derivations ran no model.
    fn process(&self, force: bool) -> Value {
        let objects = self.api.list(&format!("/v1/buckets/{}/objects/list", self.bucket));
        let ids: Vec<String> =
            objects.iter().map(|object| object["object_id"].as_str().expect("an id").to_owned()).collect();
        let body = json!({ "object_ids": ids, "dedup_strategy": if force { "force" } else { "skip" } });
        let batches = format!("/v1/buckets/{}/batches", self.bucket);
        let batch = self.api.post(&batches, body).text("/batch_id").to_owned();
        let task = self.api.post(&format!("{batches}/{batch}/submit"), json!({}));
        assert_eq!(wait_for_task(&self.api, task.text("/task_id")), "COMPLETED");
        find(&self.api.get(&format!("{batches}/{batch}")).ok(), "objects_skipped")
    }
}

/// The first value under `key` at any depth.
fn find(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(fields) => match fields.get(key) {
            Some(found) => found.clone(),
            None => fields.values().map(|inner| find(inner, key)).find(|found| !found.is_null()).unwrap_or_default(),
        },
        Value::Array(list) => {
            list.iter().map(|inner| find(inner, key)).find(|found| !found.is_null()).unwrap_or_default()
        }
        _ => Value::Null,
    }
}

/// A world with a second tier: a document of each sentence, and one of each of those.
fn world(admin: &Api, name: &str) -> World {
    let world = World::create(admin, name);
    let api = &world.api;
    api.post(
        "/v1/collections",
        json!({
            "collection_name": "second",
            "source": { "type": "collection", "collection_id": world.id("collection_id") },
            "feature_extractor": {
                "feature_extractor_name": "text_extractor", "version": "v1",
                "parameters": { "split_by": "words", "chunk_size": 2 },
                "input_mappings": { "text": "text" },
            },
        }),
    )
    .ok();
    let content = "Rain fills the lake. A dam holds the water back.";
    let made = api.post(&format!("/v1/buckets/{}/objects", world.id("bucket_id")), object("Lakes", 2002, content));
    let objects = [made.text("/object_id").to_owned(), world.id("object_id").to_owned()];
    let (_, task) = submit(api, world.id("bucket_id"), &objects, world.id("collection_id"));
    assert_eq!(wait_for_task(api, &task), "COMPLETED");
    world
}

/// Clones a namespace and waits until the clone is whole.
fn clone_of(admin: &Api, source: &str, name: &str) -> String {
    let asked = admin.post(&format!("/v1/namespaces/{source}/clone"), json!({ "namespace_name": name }));
    let clone = asked.text("/namespace/namespace_id").to_owned();
    assert_eq!(wait_for_task(admin, asked.text("/task_id")), "COMPLETED");
    clone
}

#[test]
fn a_clone_is_equal_but_for_its_ids_and_finds_the_same() {
    let server = Server::start();
    let admin = server.api();
    let world = world(&admin, "original");
    let source = world.id("namespace_id");
    let original = Place::of(&admin, source);
    let asked = admin.post(&format!("/v1/namespaces/{source}/clone"), json!({ "namespace_name": "copy" }));
    let clone = asked.text("/namespace/namespace_id").to_owned();
    assert_eq!(wait_for_task(&admin, asked.text("/task_id")), "COMPLETED");
    let copy = Place::of(&admin, &clone);
    assert_eq!(asked.text("/primary_retriever_id"), copy.retriever);
    let shown = admin.get(&format!("/v1/namespaces/{clone}")).ok();
    assert_eq!((&shown["namespace_ready"], &shown["clone_status"]), (&json!(true), &json!("completed")));
    assert_eq!(shown["source_namespace_id"], source);

    assert_eq!(alike(&copy.listings()), alike(&original.listings()));
    for query in ["a stream", "rain", "a wall in a river"] {
        assert_eq!(copy.hits(query), original.hits(query), "{query}");
    }
    let text = copy.listings().to_string();
    let own: Vec<&String> = [&original.bucket, &original.retriever].into_iter().chain(&original.collections).collect();
    assert!(own.iter().all(|id| !text.contains(id.as_str())), "nothing of the original is named in the clone");

    // Lineage leads to what is in the clone.
    for document in copy.documents() {
        let root = document["root_object_id"].as_str().expect("a root");
        copy.api.get(&format!("/v1/buckets/{}/objects/{root}", copy.bucket)).ok();
        if let Some(parent) = document["source_document_id"].as_str() {
            copy.api.get(&format!("/v1/collections/{}/documents/{parent}", copy.collections[0])).ok();
        }
    }
}

#[test]
fn processing_a_clone_again_changes_nothing() {
    let server = Server::start();
    let admin = server.api();
    let world = world(&admin, "original");
    let copy = Place::of(&admin, &clone_of(&admin, world.id("namespace_id"), "copy"));
    let before = copy.documents();
    let skipped = copy.process(false);
    assert!(skipped.as_u64().is_some_and(|skipped| skipped > 2), "nothing was computed: {skipped}");
    assert_eq!(copy.documents(), before);
    // Work that is done anew names the same documents.
    copy.process(true);
    let ids = |documents: &[Value]| documents.iter().map(|d| d["document_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&copy.documents()), ids(&before));
}

#[test]
fn a_clone_and_its_original_outlive_each_other() {
    let server = Server::start();
    let admin = server.api();
    let world = world(&admin, "original");
    let source = world.id("namespace_id");
    let original = Place::of(&admin, source);
    let (listings, hits) = (original.listings(), original.hits("rain"));
    let first = clone_of(&admin, source, "first");
    admin.delete(&format!("/v1/namespaces/{first}?force=true")).ok();
    assert_eq!((alike(&original.listings()), original.hits("rain")), (alike(&listings), hits.clone()));
    let second = Place::of(&admin, &clone_of(&admin, source, "second"));
    admin.delete(&format!("/v1/namespaces/{source}?force=true")).ok();
    assert_eq!(alike(&second.listings()), alike(&listings));
    assert_eq!(second.hits("rain"), hits);
    let object = second.api.list(&format!("/v1/buckets/{}/objects/list", second.bucket)).remove(0);
    let url = find(&object, "presigned_url");
    let path = url.as_str().and_then(|url| url.find("/v1/blobs/").map(|at| &url[at..]));
    if let Some(path) = path {
        admin.without_key().get(path).ok();
    }
}

#[test]
fn a_clone_is_whole_or_not_there_whenever_the_server_dies() {
    let mut server = Server::start();
    let world = world(&server.api(), "original");
    let source = world.id("namespace_id").to_owned();
    let wanted = alike(&Place::of(&server.api(), &source).listings());
    for commits in [1, 3, 5, 8, 12, 17] {
        server.stop();
        server.start_with_fault(&format!("catalog_committed:die:{commits}"));
        let name = format!("copy {commits}");
        let body = json!({ "namespace_name": name });
        let path = format!("/v1/namespaces/{source}/clone");
        let asked = server.api().try_send("POST", &path, Some(&body)).ok().filter(|answer| answer.status == 200);
        // It dies by itself while it clones, or is stopped in the middle of it.
        server.end();
        server.start_again();
        let admin = server.api();
        let of_that_name = || {
            let all = admin.list("/v1/namespaces/list");
            all.into_iter().find(|namespace| namespace["namespace_name"] == json!(name))
        };
        let whole = wait_for("the clone to be whole or gone", SOON, || match of_that_name() {
            None => Some(None),
            Some(namespace) if namespace["namespace_ready"] == json!(true) => Some(Some(namespace)),
            Some(namespace) => {
                let id = namespace["namespace_id"].as_str().expect("an id");
                let refused = admin.within(id).post("/v1/buckets/list", json!({})).status;
                assert!(matches!(refused, 200 | 404 | 409), "{refused}");
                None
            }
        });
        assert!(asked.is_none() || whole.is_some(), "a clone that was promised is made");
        if let Some(namespace) = whole {
            let id = namespace["namespace_id"].as_str().expect("an id");
            assert_eq!(alike(&Place::of(&admin, id).listings()), wanted, "after {commits} commits");
        }
    }
}

#[test]
fn what_is_asked_of_a_clone_that_cannot_be_is_refused() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "original");
    let path = format!("/v1/namespaces/{}/clone", world.id("namespace_id"));
    let foreign = json!({ "namespace_name": "copy", "source_organization_id": "org_other" });
    assert_eq!(admin.post(&path, foreign).status, 403);
    assert_eq!(admin.post(&path, json!({ "namespace_name": "original" })).status, 409);
    assert_eq!(admin.post(&path, json!({ "namespace_name": "copy", "ttl_seconds": 5 })).status, 422);
    assert_eq!(admin.post("/v1/namespaces/nowhere/clone", json!({ "namespace_name": "copy" })).status, 404);
    let bare = json!({ "namespace_name": "bare", "include_resources": { "collections": false }, "mode": "branch" });
    let asked = admin.post(&path, bare);
    assert_eq!(wait_for_task(&admin, asked.text("/task_id")), "COMPLETED");
    let api = admin.within(asked.text("/namespace/namespace_id"));
    assert_eq!((api.list("/v1/buckets/list").len(), api.list("/v1/collections/list").len()), (1, 0));
}

/// Takes a snapshot and waits for its end.
fn snapshot_of(admin: &Api, namespace: &str) -> String {
    let taken = admin.post(&format!("/v1/namespaces/{namespace}/snapshots"), json!({}));
    let id = taken.text("/snapshot_id").to_owned();
    assert_eq!(wait_for_task(admin, taken.text("/task_id")), "COMPLETED");
    id
}

/// Waits for the namespace to have ended being made, and says how.
fn made(admin: &Api, namespace: &str) -> Option<String> {
    wait_for("the namespace to be made", SOON, || {
        let shown = admin.get(&format!("/v1/namespaces/{namespace}"));
        match shown.status {
            404 => Some(None),
            _ => match shown.text("/clone_status") {
                status @ ("completed" | "failed") => Some(Some(status.to_owned())),
                _ => None,
            },
        }
    })
}

#[test]
fn a_snapshot_brings_everything_back_after_all_was_deleted() {
    let server = Server::start();
    let admin = server.api();
    let world = world(&admin, "kept");
    let namespace = world.id("namespace_id");
    let place = Place::of(&admin, namespace);
    let (listings, hits) = (place.listings(), place.hits("rain"));
    let snapshot = snapshot_of(&admin, namespace);
    let below = format!("/v1/namespaces/{namespace}/snapshots");
    assert_eq!(admin.post(&format!("{below}/list"), json!({})).ok()["total_count"], 1);

    // Its own content is replaced, and its own ids stay.
    place.api.delete(&format!("/v1/buckets/{}?force_foreclose=true", place.bucket)).ok();
    let restore = format!("{below}/{snapshot}/restore");
    assert_eq!(admin.post(&restore, json!({})).status, 422, "it must be confirmed");
    admin.post(&restore, json!({ "confirm_in_place": true })).ok();
    assert_eq!(made(&admin, namespace).as_deref(), Some("completed"));
    assert_eq!((alike(&place.listings()), place.hits("rain")), (alike(&listings), hits.clone()));

    // The namespace is gone, and comes back.
    admin.delete(&format!("/v1/namespaces/{namespace}?force=true")).ok();
    assert_eq!(admin.get(&format!("/v1/namespaces/{namespace}")).status, 404);
    let report = admin.get(&format!("{below}/{snapshot}")).ok();
    assert_eq!(report["last_restore"]["complete"], true, "{report}");
    admin.post(&restore, json!({ "confirm_in_place": true })).ok();
    assert_eq!(made(&admin, namespace).as_deref(), Some("completed"));
    assert_eq!((alike(&place.listings()), place.hits("rain")), (alike(&listings), hits.clone()));

    // And once more beside it.
    let beside = admin.post(&restore, json!({ "target_namespace_name": "beside" }));
    assert_eq!(made(&admin, beside.text("/target_namespace_id")).as_deref(), Some("completed"));
    let beside = Place::of(&admin, beside.text("/target_namespace_id"));
    assert_eq!((alike(&beside.listings()), beside.hits("rain")), (alike(&listings), hits));

    admin.delete(&format!("{below}/{snapshot}")).ok();
    assert_eq!(admin.get(&format!("{below}/{snapshot}")).status, 404);
}

#[test]
fn a_damaged_snapshot_is_noticed_and_restored_by_nobody() {
    let server = Server::start();
    let admin = server.api();
    let world = world(&admin, "kept");
    let namespace = world.id("namespace_id");
    let snapshot = snapshot_of(&admin, namespace);
    let path = format!("/v1/namespaces/{namespace}/snapshots/{snapshot}");
    let verify = |deep: bool| admin.get(&format!("{path}/verify?deep={deep}")).ok();
    let good = verify(true);
    assert_eq!((&good["status"], &good["restorable"]), (&json!("ok"), &json!(true)), "{good}");
    assert!(good["digests_verified"].as_u64() > Some(3), "{good}");

    let shown = admin.get(&format!("{path}?download=true")).ok();
    let artifacts = shown["download"]["artifacts"].as_array().expect("artifacts").clone();
    let are_documents = |artifact: &&Value| artifact["path"].as_str().is_some_and(|path| path.contains("documents"));
    let rows = artifacts.iter().find(are_documents).expect("documents are kept");
    let url = rows["url"].as_str().expect("a URL");
    let at = url.find("/v1/blobs/").expect("a path");
    assert_eq!(admin.without_key().get(&url[at..]).status, 200);
    let hash = rows["sha256"].as_str().expect("a hash");
    let file: PathBuf = server.data_dir().join("blobs").join(&hash[..2]).join(&hash[2..4]).join(hash);
    let mut bytes = std::fs::read(&file).expect("the part is a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("the file can be written");
    let damaged = verify(true);
    assert_eq!((&damaged["status"], &damaged["restorable"]), (&json!("damaged"), &json!(false)));
    let restore = format!("{path}/restore");
    let asked = admin.post(&restore, json!({ "target_namespace_name": "broken" }));
    assert_eq!(wait_for_task(&admin, asked.text("/task_id")), "FAILED");
    assert_eq!(made(&admin, asked.text("/target_namespace_id")), None, "nothing of it is left");
    // Nothing is removed for a snapshot that cannot be read.
    let place = Place::of(&admin, namespace);
    let before = place.listings();
    let asked = admin.post(&restore, json!({ "confirm_in_place": true }));
    assert_eq!(wait_for_task(&admin, asked.text("/task_id")), "FAILED");
    assert_eq!(place.listings(), before);

    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("the file can be written");
    let asked = admin.post(&restore, json!({ "confirm_in_place": true }));
    assert_eq!(wait_for_task(&admin, asked.text("/task_id")), "COMPLETED");
    assert_eq!(alike(&place.listings()), alike(&before));

    std::fs::remove_file(&file).expect("the file can be removed");
    let missing = verify(false);
    assert_eq!(missing["issues"][0]["code"], "content_missing", "{missing}");
}

#[test]
fn a_migration_makes_the_documents_anew_with_other_parameters() {
    let server = Server::start();
    let admin = server.api();
    let world = world(&admin, "original");
    let source = world.id("namespace_id");
    let before = Place::of(&admin, source);
    let migrations = "/v1/namespaces/migrations";
    let config = |kind: &str, parameters: Value| {
        json!({
            "migration_type": kind, "source_namespace_id": source, "target_namespace_name": "whole texts",
            "feature_extractors": [{ "feature_extractor_name": "text_extractor", "parameters": parameters }],
            "filters": { "collection_ids": [world.id("collection_id")] },
        })
    };
    // What cannot be done is said before anything is.
    for wrong in [config("extend", json!({})), config("re_extract", json!({ "chunk_size": "many" }))] {
        let checked = admin.post(&format!("{migrations}/validate"), json!({ "config": wrong })).ok();
        assert_eq!(checked["validation_result"]["valid"], false, "{checked}");
    }
    let whole = config("re_extract", json!({ "split_by": "none" }));
    let checked = admin.post(&format!("{migrations}/validate"), json!({ "config": whole })).ok();
    assert_eq!(checked["validation_result"]["valid"], true, "{checked}");
    assert_eq!(checked["validation_result"]["estimated_resources"]["collections"], 1, "{checked}");

    let made = admin.post(migrations, json!({ "config": whole }));
    assert_eq!(made.text("/status"), "draft");
    let migration = format!("{migrations}/{}", made.text("/migration_id"));
    let started = admin.post(&format!("{migration}/start"), json!({}));
    assert_eq!(wait_for_task(&admin, started.text("/task_id")), "COMPLETED");
    let ended = admin.get(&migration).ok();
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["progress"]["overall_progress_percent"], 100.0);
    let target = ended["additional_data"]["target_namespace_id"].as_str().expect("a target");
    let after = Place::of(&admin, target);
    assert_eq!(after.collections.len(), 1, "the other collection was not asked for");
    let texts: Vec<Value> = after.documents().iter().map(|document| document["text"].clone()).collect();
    assert!(texts.contains(&json!("Rain fills the lake. A dam holds the water back.")), "{texts:?}");
    assert_eq!(after.hits("rain").len(), 2);
    assert_eq!(before.collections.len(), 2, "the original is as it was");

    assert_eq!(admin.post(&format!("{migration}/start"), json!({})).status, 409);
    assert_eq!(admin.post(&format!("{migration}/cancel"), json!({})).status, 409);
    assert_eq!(admin.post(&format!("{migrations}/list"), json!({ "status": "completed" })).ok()["total"], 1);
    assert_eq!(admin.delete(&migration).status, 204);
    assert_eq!(admin.get(&migration).status, 404);
    admin.get(&format!("/v1/namespaces/{target}")).ok();
}
