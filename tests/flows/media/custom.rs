//! Extractors that run in other processes: the worked example, over a port and over a socket.

use super::{Shelf, file, opened};
use crate::support::Server;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const FINGERPRINT: &str = "LOUDNESS_FINGERPRINT";

/// The example as a process.
struct Loudness {
    child: Child,
    endpoint: String,
    /// What it printed: the sizes of its batches.
    printed: Arc<Mutex<Vec<String>>>,
}

impl Loudness {
    fn start(endpoint: &str, fingerprint: &str) -> Self {
        let python = std::env::var_os("STRATA_TEST_PYTHON").unwrap_or_else(|| "python3".into());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/extractor/loudness.py");
        let mut child = Command::new(python)
            .args([script, endpoint])
            .env(FINGERPRINT, fingerprint)
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let first = lines.next().expect("it says where it listens");
        let endpoint = first.strip_prefix("listening on ").expect("an address").to_owned();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let kept = printed.clone();
        std::thread::spawn(move || lines.for_each(|line| kept.lock().expect("no panic holds it").push(line)));
        Self { child, endpoint, printed }
    }

    /// How many inputs it was asked for, and in how many requests.
    fn asked(&self) -> (usize, usize) {
        let printed = self.printed.lock().expect("no panic holds it");
        let inputs = printed.iter().filter_map(|line| line.split(' ').next()?.parse::<usize>().ok());
        (inputs.sum(), printed.len())
    }
}

impl Drop for Loudness {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn register(shelf: &Shelf, namespace: &str, endpoint: &str) -> crate::support::Answer {
    shelf.api.post(&format!("/v1/namespaces/{namespace}/extractors"), json!({ "endpoint": endpoint }))
}

/// Recordings of one reader, cut so that no two are alike.
fn recordings(shelf: &Shelf, count: usize) -> Vec<String> {
    let name = "pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-0870.wav";
    let whole = std::fs::read(file(name)).expect("readable");
    (0..count).map(|n| shelf.put("audio", &format!("{n}.wav"), &whole[..whole.len() - 640 * n])).collect()
}

fn config_hash(document: &Value) -> &Value {
    let hash = &document["_internal"]["feature_extractor_config_hash"];
    if hash.is_string() { hash } else { &document["internal_metadata"]["feature_extractor_config_hash"] }
}

#[test]
fn another_process_makes_documents_as_if_it_were_built_in() {
    let mut loudness = Loudness::start("http://127.0.0.1:0", "first");
    let endpoint = loudness.endpoint.clone();
    let shelf = Shelf::on(Server::start_with(&["--extractor-endpoint", &endpoint]));
    assert_eq!(register(&shelf, "default", "http://127.0.0.1:1").status, 403, "the operator names endpoints");
    let registered = register(&shelf, "default", &format!("{endpoint}/")).ok();
    assert_eq!((&registered["source"], &registered["fingerprint"]), (&json!("custom"), &json!("first")));
    let vectors = &registered["required_vector_indexes"];
    assert_eq!(vectors[0]["feature_uri"], "mixpeek://loudness@v1/envelope", "{vectors}");
    let listed = shelf.api.get("/v1/namespaces/default/extractors?source=custom").ok();
    assert_eq!((&listed["custom_count"], &listed["extractors"][0]), (&json!(1), &registered));

    let wrong = json!({ "feature_extractor_name": "loudness", "parameters": { "minutes": 1 } });
    let source = json!({ "type": "bucket", "bucket_ids": [shelf.bucket] });
    let body = json!({ "collection_name": "wrong", "source": source, "feature_extractor": wrong });
    assert_eq!(shelf.api.post("/v1/collections", body).status, 422, "an unknown parameter");

    let passages = shelf.collection("passages", "loudness", json!({ "seconds": 1.5 }));
    let objects = recordings(&shelf, 24);
    assert_eq!(shelf.derive(&objects, &[&passages]), "COMPLETED");
    let (inputs, requests) = loudness.asked();
    println!("{inputs} inputs in {requests} requests");
    assert!(inputs == 24 && requests < 24, "what comes together is asked together: {requests} requests");
    let documents = shelf.documents(&passages);
    let first = documents.iter().find(|d| d["start_time"] == 0.0 && d["root_object_id"] == json!(objects[0]));
    let first = first.expect("the beginning of the first recording");
    assert!(first["decibels"].as_f64().is_some_and(|level| (-60.0..0.0).contains(&level)), "{first}");
    assert_eq!(first["end_time"], 1.5);
    assert!(String::from_utf8(opened(&first["levels_url"])).expect("text").starts_with("0.00 s\t"), "{first}");
    shelf.settle(&passages);
    let spoken = json!({ "input_mode": "text", "value": "speech in recording 7.wav" });
    let found = shelf.search(&passages, spoken, 5);
    assert_eq!(found.len(), 5, "words find captions");

    // The same again asks nobody.
    assert_eq!(shelf.derive(&objects, &[&passages]), "COMPLETED");
    assert_eq!(loudness.asked().0, 24);
    // Other code does not pass for the registered one.
    drop(loudness);
    loudness = Loudness::start(&endpoint, "second");
    let other = shelf.put_file("audio", "pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-0880.wav");
    assert_eq!(shelf.derive(std::slice::from_ref(&other), &[&passages]), "FAILED");
    assert_eq!(register(&shelf, "default", &endpoint).ok()["fingerprint"], "second");
    assert_eq!(shelf.derive(&objects, &[&passages]), "COMPLETED");
    assert_eq!(loudness.asked().0, 1 + 24, "a new fingerprint is new work");
    let anew = shelf.documents(&passages);
    let again = anew.iter().find(|d| d["document_id"] == first["document_id"]).expect("documents keep their ids");
    assert_ne!(config_hash(again), config_hash(first), "{again}");

    // A recording that it cannot read fails alone, with its words.
    let raw = shelf.put(
        "audio",
        "odd.wav",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\0\0\0\0",
    );
    let ended = shelf.derive(&[raw.clone(), other], &[&passages]);
    assert!(ended.starts_with("COMPLETED"), "{ended}");
    let told = shelf.api.get(&format!("/v1/buckets/{}/objects/{raw}", shelf.bucket)).ok();
    assert!(told.to_string().contains("FAILED"), "{told}");

    let path = "/v1/namespaces/default/extractors/loudness";
    assert_eq!(shelf.api.delete(path).status, 409, "a collection uses it");
    shelf.api.delete(&format!("/v1/collections/{passages}")).ok();
    shelf.api.delete(path).ok();
    assert_eq!(shelf.api.get(path).status, 404);
}

#[test]
fn an_extractor_at_a_socket_belongs_to_one_namespace_and_reads_the_seconds_of_a_document() {
    let folder = tempfile::tempdir().expect("a directory");
    let endpoint = format!("unix:{}", folder.path().join("loudness.sock").display());
    let loudness = Loudness::start(&endpoint, "first");
    let shelf = Shelf::on(Server::start_with(&["--extractor-endpoint", &endpoint]));
    register(&shelf, "default", &endpoint).ok();

    let halves = shelf.collection("halves", "loudness", json!({ "seconds": 4 }));
    let above = json!({ "type": "collection", "collection_id": halves });
    let extractor = json!({ "feature_extractor_name": "loudness_v1", "parameters": { "seconds": 1 } });
    let seconds = shelf.collection_of("seconds", above, extractor);
    let objects = recordings(&shelf, 1);
    assert_eq!(shelf.derive(&objects, &[&halves]), "COMPLETED");
    let (above, below) = (shelf.documents(&halves), shelf.documents(&seconds));
    assert!(above.len() >= 2 && below.len() > above.len(), "{} and {}", above.len(), below.len());
    let span = |document: &Value| (document["start_time"].as_f64().unwrap(), document["end_time"].as_f64().unwrap());
    for document in &below {
        let parent = above.iter().find(|parent| parent["document_id"] == document["source_document_id"]);
        let ((start, end), (first, last)) = (span(document), span(parent.expect("a parent")));
        assert!(first <= start && end <= last + 0.01, "{start} to {end} within {first} to {last}");
    }
    assert!(loudness.asked().0 >= 3);
    shelf.api.post("/v1/namespaces", json!({ "namespace_name": "another" })).ok();
    assert_eq!(shelf.api.get("/v1/namespaces/another/extractors/loudness").status, 404);
    let others = shelf.api.get("/v1/namespaces/another/extractors").ok();
    assert_eq!(others["custom_count"], 0);
}
