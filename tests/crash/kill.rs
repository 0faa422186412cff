//! `kill -9` under creates and ingest. What was acknowledged is there exactly once, what was not is there at most once,
//! and every batch ends. Five rounds; `STRATA_CRASH_ROUNDS` sets another number.

use crate::support::{Api, Random, SOON, Server, ended, object, submit, text_collection, wait_for};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds on one directory: what is in it is looked through after each.
const ROUNDS: u32 = 25;

/// What the server has said yes to, over all rounds.
#[derive(Default)]
struct Acknowledged {
    /// Object ids by their number.
    objects: BTreeMap<u64, String>,
    /// Ids of documents created directly, by their number.
    documents: BTreeMap<u64, String>,
    /// Batches, and the objects in them.
    batches: BTreeMap<String, Vec<String>>,
}

struct Place {
    bucket: String,
    /// Filled by batches.
    derived: String,
    /// Filled by direct creates.
    direct: String,
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    let rounds: u32 = std::env::var("STRATA_CRASH_ROUNDS").map_or(5, |text| text.parse().expect("a number of rounds"));
    let mut random = Random::seeded();
    let (mut before, mut total) = (0, [0; 3]);
    while before < rounds {
        let some = ROUNDS.min(rounds - before);
        let acknowledged = killed(&mut random, before, some);
        before += some;
        let counts = [acknowledged.objects.len(), acknowledged.documents.len(), acknowledged.batches.len()];
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
        let [objects, documents, batches] = total;
        println!(
            "{before} rounds: {objects} objects, {documents} documents, {batches} batches acknowledged; 0 lost, 0 doubled, 0 stuck"
        );
    }
}

/// Some rounds on one directory, and everything that was acknowledged in them, found again.
fn killed(random: &mut Random, before: u32, rounds: u32) -> Acknowledged {
    let mut server = Server::start();
    let place = prepare(&server.api());
    let acknowledged = Mutex::new(Acknowledged::default());
    let number = AtomicU64::new(0);
    for round in before..before + rounds {
        let enough = 5 + random.below(120);
        let api = server.api();
        let done = AtomicU64::new(0);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| create_objects(&api, &place, &acknowledged, &number, &done));
            }
            threads.spawn(|| create_documents(&api, &place, &acknowledged, &number, &done));
            threads.spawn(|| submit_batches(&api, &place, &acknowledged, &done));
            wait_for("enough acknowledged requests", SOON, || (done.load(Ordering::SeqCst) >= enough).then_some(()));
            server.kill();
        });
        server.start_again();
        println!("round {round}: killed after {enough} requests");
        check(&server.api(), &place, &acknowledged.lock().expect("the threads are done"));
    }
    let acknowledged = acknowledged.into_inner().expect("the threads are done");
    every_batch_ends(&server.api(), &place, &acknowledged);
    check(&server.api(), &place, &acknowledged);
    acknowledged
}

fn prepare(api: &Api) -> Place {
    let bucket = api
        .post(
            "/v1/buckets",
            json!({
                "bucket_name": "crash",
                "bucket_schema": { "properties": {
                    "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" },
                } },
            }),
        )
        .text("/bucket_id")
        .to_owned();
    let derived = text_collection(api, "derived", &bucket);
    let direct = text_collection(api, "direct", &bucket);
    Place { bucket, derived, direct }
}

/// Creates until the server is gone. A refusal is no crash and fails the test.
fn create_objects(api: &Api, place: &Place, acknowledged: &Mutex<Acknowledged>, number: &AtomicU64, done: &AtomicU64) {
    let path = format!("/v1/buckets/{}/objects", place.bucket);
    loop {
        let n = number.fetch_add(1, Ordering::SeqCst);
        let body = object(&format!("object {n}"), n as u32, &format!("Sentence number {n} of the crash test."));
        let Ok(answer) = api.try_send("POST", &path, Some(&body)) else { return };
        let id = answer.text("/object_id").to_owned();
        acknowledged.lock().expect("no panic holds it").objects.insert(n, id);
        done.fetch_add(1, Ordering::SeqCst);
    }
}

fn create_documents(
    api: &Api,
    place: &Place,
    acknowledged: &Mutex<Acknowledged>,
    number: &AtomicU64,
    done: &AtomicU64,
) {
    let path = format!("/v1/collections/{}/documents", place.direct);
    loop {
        let n = number.fetch_add(1, Ordering::SeqCst);
        let body = json!({ "collection_id": place.direct, "title": format!("document {n}"), "year": n });
        let Ok(answer) = api.try_send("POST", &path, Some(&body)) else { return };
        let id = answer.text("/document_id").to_owned();
        acknowledged.lock().expect("no panic holds it").documents.insert(n, id);
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Submits what has been created since the last batch.
fn submit_batches(api: &Api, place: &Place, acknowledged: &Mutex<Acknowledged>, done: &AtomicU64) {
    let batches = format!("/v1/buckets/{}/batches", place.bucket);
    loop {
        let objects = {
            let acknowledged = acknowledged.lock().expect("no panic holds it");
            let batched: BTreeSet<&String> = acknowledged.batches.values().flatten().collect();
            let fresh: Vec<String> =
                acknowledged.objects.values().filter(|id| !batched.contains(id)).take(20).cloned().collect();
            fresh
        };
        if objects.is_empty() {
            // Nothing to do yet: ask whether the server is still there.
            if api.try_send("GET", "/v1/health", None).is_err() {
                return;
            }
            continue;
        }
        let body = json!({ "object_ids": objects, "collection_ids": [place.derived] });
        let Ok(made) = api.try_send("POST", &batches, Some(&body)) else { return };
        let batch = made.text("/batch_id").to_owned();
        let Ok(submitted) = api.try_send("POST", &format!("{batches}/{batch}/submit"), Some(&json!({}))) else {
            return;
        };
        submitted.ok();
        acknowledged.lock().expect("no panic holds it").batches.insert(batch, objects);
        done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Everything acknowledged is listed exactly once, and nothing else twice.
fn check(api: &Api, place: &Place, acknowledged: &Acknowledged) {
    let objects = api.list(&format!("/v1/buckets/{}/objects/list", place.bucket));
    once(&objects, "object_id", &acknowledged.objects);
    let documents = api.list(&format!("/v1/collections/{}/documents/list", place.direct));
    once(&documents, "document_id", &acknowledged.documents);
    for batch in acknowledged.batches.keys() {
        api.get(&format!("/v1/buckets/{}/batches/{batch}", place.bucket)).ok();
    }
}

#[track_caller]
fn once(rows: &[Value], id_field: &str, acknowledged: &BTreeMap<u64, String>) {
    let mut by_number: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for row in rows {
        let number = row["year"].as_u64().expect("each row carries its number");
        by_number.entry(number).or_default().push(row[id_field].as_str().expect("each row has an id"));
    }
    for (number, ids) in &by_number {
        assert_eq!(ids.len(), 1, "number {number} is there as {ids:?}");
    }
    for (number, id) in acknowledged {
        assert_eq!(by_number.get(number), Some(&vec![id.as_str()]), "number {number} was acknowledged as {id}");
    }
}

fn every_batch_ends(api: &Api, place: &Place, acknowledged: &Acknowledged) {
    for batch in acknowledged.batches.keys() {
        let path = format!("/v1/buckets/{}/batches/{batch}", place.bucket);
        let status = wait_for("a batch to end after the crashes", SOON * 5, || {
            let status = api.get(&path).text("/status").to_owned();
            ended(&status).then_some(status)
        });
        assert_eq!(status, "COMPLETED", "batch {batch}");
    }
    let documents = api.list(&format!("/v1/collections/{}/documents/list", place.derived));
    let mut by_object: BTreeMap<&str, u32> = BTreeMap::new();
    for document in &documents {
        *by_object.entry(document["root_object_id"].as_str().expect("lineage")).or_default() += 1;
    }
    for object in acknowledged.batches.values().flatten() {
        assert_eq!(by_object.get(object.as_str()), Some(&1), "object {object} has one sentence and so one document");
    }
    // A batch that was submitted before the crash and never acknowledged may have run too; it doubles nothing.
    assert!(by_object.values().all(|count| *count == 1), "no object has two documents: {by_object:?}");
}

#[test]
fn a_batch_cut_off_by_kill_9_is_finished_by_the_next_start() {
    let mut server = Server::start();
    let place = prepare(&server.api());
    let api = server.api();
    let objects: Vec<String> = (0..50)
        .map(|n| {
            let made =
                api.post(&format!("/v1/buckets/{}/objects", place.bucket), object("cut", n, &format!("Text {n}.")));
            made.text("/object_id").to_owned()
        })
        .collect();
    let (batch, _) = submit(&api, &place.bucket, &objects, &place.derived);
    server.kill();
    server.start_again();
    let mut acknowledged = Acknowledged::default();
    acknowledged.batches.insert(batch, objects);
    every_batch_ends(&server.api(), &place, &acknowledged);
}
