//! A walk through every place where state moves: the server dies there, or the step fails there, under work of all kinds.
//! After each, what was acknowledged is there once, what was begun comes to its end, and `strata doctor` finds nothing.

use crate::support::receiver::Receiver;
use crate::support::{Answer, Api, Random, SOON, Server, ended, object, text_collection, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The places that the server has. A new one is walked by itself; it is named here so that none is lost unnoticed.
const PLACES: [&str; 14] = [
    "blob_written",
    "blob_named",
    "blob_kept",
    "blob_removed",
    "catalog_written",
    "catalog_committed",
    "event_queued",
    "event_sent",
    "derivation_made",
    "derivation_completed",
    "index_applied",
    "index_flushed",
    "index_marked",
    "index_rebuilt",
];

#[derive(Default)]
struct Acknowledged {
    /// Ids by number.
    objects: BTreeMap<u64, String>,
    documents: BTreeMap<u64, String>,
    removed: BTreeSet<u64>,
    /// Removals that were asked for and not acknowledged.
    doubtful: BTreeSet<u64>,
    batches: BTreeMap<String, Vec<u64>>,
    next: u64,
}

struct Walk {
    server: Server,
    bucket: String,
    derived: String,
    direct: String,
    kept: Acknowledged,
    /// Who is told of every object.
    told: Receiver,
}

#[test]
fn the_server_comes_back_whole_from_a_fault_at_every_place() {
    let printed = Command::new(env!("CARGO_BIN_EXE_strata")).arg("fault-points").output().expect("the binary runs");
    let printed = String::from_utf8(printed.stdout).expect("text");
    let places: Vec<&str> = printed.lines().collect();
    assert_eq!(places, PLACES, "the places of the server and of this test");
    let mut random = Random::seeded();
    let mut walk = Walk::begin();
    for action in ["die", "fail"] {
        for place in &places {
            // Not always at the first time, but if it does not come to the later ones, then at the first.
            let later = 2 + random.below(3);
            if !walk.meet(place, action, later) {
                assert!(walk.meet(place, action, 1), "{place} is never reached");
            }
        }
    }
}

impl Walk {
    fn begin() -> Self {
        let mut server = Server::start_with(&["--allow-private-urls", "--webhook-tries", "1000"]);
        let api = server.api();
        let told = Receiver::start();
        let channel = json!({ "channel": "webhook", "configs": { "url": told.url } });
        let hook = json!({ "webhook_name": "walk", "event_types": ["object.created"], "channels": [channel] });
        api.post("/v1/organizations/webhooks", hook).ok();
        let properties =
            json!({ "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" } });
        let body = json!({ "bucket_name": "walk", "bucket_schema": { "properties": properties } });
        let bucket = api.post("/v1/buckets", body).text("/bucket_id").to_owned();
        let derived = text_collection(&api, "derived", &bucket);
        let direct = text_collection(&api, "direct", &bucket);
        server.stop();
        Self { server, bucket, derived, direct, kept: Acknowledged::default(), told }
    }

    /// Works until the fault has been met or the work is done; answers whether it was met.
    fn meet(&mut self, place: &str, action: &str, nth: u64) -> bool {
        let fault = format!("{place}:{action}:{nth}");
        self.server.start_with_fault(&fault);
        self.work();
        self.server.end();
        let met = self.server.log_text().contains(&format!("fault: {} {place}", verb(action)));
        println!("{fault}: {}", if met { "met" } else { "not met" });
        self.server.start_again();
        self.check(&fault);
        self.server.stop();
        self.doctor(&fault);
        self.server.forget_logs();
        met
    }

    /// Something of everything. Whatever does not answer, or answers that it failed, is not acknowledged.
    fn work(&mut self) {
        let api = self.server.api();
        let done = |answer: reqwest::Result<Answer>| answer.ok().filter(|answer| (200..300).contains(&answer.status));
        let (first, kept) = (self.kept.next, &mut self.kept);
        kept.next += 8;
        // Another layout of the index, each time.
        let field = if first % 16 == 0 { ("year", "integer") } else { ("title", "keyword") };
        let indexes = [json!({ "field_name": field.0, "type": field.1 })];
        drop(api.try_send("PATCH", "/v1/namespaces/default", Some(&json!({ "payload_indexes": indexes }))));
        let objects = format!("/v1/buckets/{}/objects", self.bucket);
        for n in first..first + 4 {
            let body = object(&format!("object {n}"), n as u32, &format!("Sentence number {n} of the walk."));
            if let Some(made) = done(api.try_send("POST", &objects, Some(&body))) {
                kept.objects.insert(n, made.text("/object_id").to_owned());
            }
        }
        let fresh: Vec<u64> = (first..first + 4).filter(|n| kept.objects.contains_key(n)).collect();
        let ids: Vec<&String> = fresh.iter().map(|n| &kept.objects[n]).collect();
        let batches = format!("/v1/buckets/{}/batches", self.bucket);
        let body = json!({ "object_ids": ids, "collection_ids": [self.derived] });
        if let Some(made) = done(api.try_send("POST", &batches, Some(&body))) {
            let batch = made.text("/batch_id").to_owned();
            if done(api.try_send("POST", &format!("{batches}/{batch}/submit"), Some(&json!({})))).is_some() {
                wait_for("a batch to end, or the server", SOON, || {
                    let answer = api.try_send("GET", &format!("{batches}/{batch}"), None);
                    answer.map_or(Some(()), |answer| answer.body["status"].as_str().is_some_and(ended).then_some(()))
                });
                kept.batches.insert(batch, fresh.clone());
            }
        }
        let documents = format!("/v1/collections/{}/documents", self.direct);
        for n in first + 4..first + 8 {
            let body = json!({ "collection_id": self.direct, "title": format!("document {n}"), "year": n });
            if let Some(made) = done(api.try_send("POST", &documents, Some(&body))) {
                kept.documents.insert(n, made.text("/document_id").to_owned());
            }
        }
        // The layout changes behind the answers; before the next change it must have come to an end.
        wait_for("the new layout, or the end of the server", SOON, || {
            let health = api.try_send("GET", "/v1/health", None);
            health.map_or(Some(()), |health| (health.body["meta"]["rebuilding"] == json!(0)).then_some(()))
        });
        let gone: Vec<u64> = kept.objects.keys().copied().filter(|n| !kept.removed.contains(n)).take(2).collect();
        for n in gone.into_iter().filter(|_| first > 16) {
            kept.doubtful.insert(n);
            if done(api.try_send("DELETE", &format!("{objects}/{}", kept.objects[&n]), None)).is_some() {
                kept.removed.insert(n);
            }
        }
    }

    fn check(&self, fault: &str) {
        let api = self.server.api();
        wait_for("an unfinished layout to be finished", SOON, || {
            (api.get("/v1/health").body["meta"]["rebuilding"] == json!(0)).then_some(())
        });
        for batch in self.kept.batches.keys() {
            let path = format!("/v1/buckets/{}/batches/{batch}", self.bucket);
            let status = wait_for("a batch to end after the fault", SOON * 2, || {
                let status = api.get(&path).text("/status").to_owned();
                ended(&status).then_some(status)
            });
            assert_eq!(status, "COMPLETED", "{fault}: batch {batch}");
        }
        let there = |n: &u64| !self.kept.removed.contains(n) && !self.kept.doubtful.contains(n);
        let objects = numbers(&api, &format!("/v1/buckets/{}/objects/list", self.bucket), "object_id", fault);
        for (n, id) in &self.kept.objects {
            match there(n) {
                true => assert_eq!(objects.get(n), Some(id), "{fault}: object {n}"),
                false if self.kept.removed.contains(n) => assert_eq!(objects.get(n), None, "{fault}: object {n}"),
                false => {}
            }
        }
        // What was acknowledged is told of, whatever became of it since.
        wait_for("every object to be told of", SOON * 2, || {
            let events = self.told.events("object.created");
            let is_told = |id: &&String| events.iter().any(|event| event["payload"]["object_id"] == id.as_str());
            self.kept.objects.values().all(|id| is_told(&id)).then_some(())
        });
        let documents = numbers(&api, &format!("/v1/collections/{}/documents/list", self.direct), "document_id", fault);
        for (n, id) in &self.kept.documents {
            assert_eq!(documents.get(n), Some(id), "{fault}: document {n}");
        }
        let derived =
            numbers(&api, &format!("/v1/collections/{}/documents/list", self.derived), "root_object_id", fault);
        let batched: BTreeSet<u64> = self.kept.batches.values().flatten().copied().collect();
        for n in batched.iter().filter(|n| there(n)) {
            assert_eq!(derived.get(n), self.kept.objects.get(n), "{fault}: what was made of object {n}");
        }
        // The index has what the catalog has.
        if let Some(n) = batched.iter().rfind(|n| there(n)) {
            let text = format!("Sentence number {n} of the walk.");
            wait_for("the newest sentence to be found", SOON, || {
                let found = search(&api, &self.derived, &text);
                found.first().is_some_and(|hit| hit["year"] == json!(n)).then_some(())
            });
        }
    }

    fn doctor(&self, fault: &str) {
        let run = Command::new(env!("CARGO_BIN_EXE_strata"))
            .args(["doctor", "--data"])
            .arg(self.server.data_dir())
            .output()
            .expect("the binary runs");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{fault}: {said}{}", String::from_utf8_lossy(&run.stderr));
    }
}

fn verb(action: &str) -> &'static str {
    if action == "die" { "the process dies at" } else { "a step fails at" }
}

/// Rows by their numbers, each of which is there once.
fn numbers(api: &Api, path: &str, id_field: &str, fault: &str) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    for row in api.list(path) {
        let n = row["year"].as_u64().expect("each row carries its number");
        let id = row[id_field].as_str().expect("each row has an id").to_owned();
        assert_eq!(found.insert(n, id), None, "{fault}: number {n} is there twice");
    }
    found
}

fn search(api: &Api, collection: &str, text: &str) -> Vec<Value> {
    let query = json!({ "input_mode": "text", "value": text });
    let body = json!({
        "collection_identifiers": [collection],
        "inputs": {},
        "stages": [{ "stage_name": "search", "stage_type": "filter", "config": {
            "stage_id": "feature_search",
            "parameters": { "searches": [{ "query": query, "top_k": 3 }], "final_top_k": 3 },
        } }],
    });
    api.post("/v1/retrievers/execute", body).ok()["documents"].as_array().cloned().unwrap_or_default()
}
