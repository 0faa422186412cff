//! What versions of the past have left behind opens, and what versions of the future will is refused as it is.

mod copies;
mod fixtures;
mod newer;
mod schemas;

use crate::support::{Api, SOON, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};

/// The texts of the world of the fixtures, sorted.
const TEXTS: [&str; 3] = ["A violin has four strings.", "Bread is baked in an oven.", "Water flows downhill."];

fn strata(arguments: &[&str], data: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
    command.args(arguments);
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    for name in ["STRATA_DATA", "STRATA_CONFIG", "STRATA_PROVIDERS", "STRATA_LISTEN"] {
        command.env_remove(name);
    }
    command.output().expect("the binary runs")
}

/// The answer of a command that succeeds.
#[track_caller]
fn succeed(arguments: &[&str], data: Option<&Path>) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = strata(&arguments, data);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout holds JSON and nothing else")
}

/// What a command says that fails.
#[track_caller]
fn fail(arguments: &[&str], data: Option<&Path>) -> String {
    let output = strata(arguments, data);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap_or_else(|| panic!("a text `{field}` in {row}")).to_owned()
}

/// Whether a namespace shows the world of the fixtures and finds it.
#[track_caller]
fn assert_world(api: &Api, whose: &str) {
    let collections = api.list("/v1/collections/list");
    assert_eq!(collections.len(), 1, "{whose}");
    let documents = format!("/v1/collections/{}/documents/list", text(&collections[0], "collection_id"));
    let mut texts: Vec<String> = api.list(&documents).iter().map(|document| text(document, "text")).collect();
    texts.sort_unstable();
    assert_eq!(texts, TEXTS, "{whose}");
    // By a field that the namespace declares.
    let of_year = json!({ "filters": { "AND": [{ "field": "year", "operator": "eq", "value": 2002 }] } });
    let found = api.post(&documents, of_year).ok();
    assert_eq!(found["results"].as_array().map(Vec::len), Some(1), "{whose}: {found}");
    assert_eq!(found["results"][0]["text"], TEXTS[0], "{whose}");

    let bucket = text(&api.list("/v1/buckets/list")[0], "bucket_id");
    let mut titles: Vec<String> =
        api.list(&format!("/v1/buckets/{bucket}/objects/list")).iter().map(|object| text(object, "title")).collect();
    titles.sort_unstable();
    assert_eq!(titles, ["Bread", "Rivers", "Strings"], "{whose}");

    // The index is in no fixture.
    let execute = format!("/v1/retrievers/{}/execute", text(&api.list("/v1/retrievers/list")[0], "retriever_id"));
    let hits = wait_for(&format!("all hits of {whose}"), SOON, || {
        let answer = api.post(&execute, json!({ "inputs": { "query": "a stream" } }));
        if answer.status == 503 {
            return None;
        }
        let hits = answer.ok()["results"].as_array().expect("hits").clone();
        (hits.len() == TEXTS.len()).then_some(hits)
    });
    assert_eq!(hits[0]["text"], "Water flows downhill.", "{whose}");
}

/// Whether `strata doctor` finds nothing.
#[track_caller]
fn assert_healthy(data: &Path, whose: &str) {
    let checks = succeed(&["doctor"], Some(data));
    let is_good = checks.as_array().is_some_and(|checks| checks.iter().all(|check| check["ok"] == true));
    assert!(is_good, "{whose}: {checks}");
}
