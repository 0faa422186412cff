//! Files that are made from the code are what the code would make now. `make generated` makes them.

use std::path::Path;
use std::process::Command;

fn strata(arguments: &[&str]) -> std::process::Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_strata")).args(arguments).current_dir(root).output().expect("the binary runs")
}

#[test]
fn compat_md_is_current() {
    let output = strata(&["compat", "--check"]);
    assert!(output.status.success(), "{}run `make generated`", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_openapi_document_is_the_one_that_was_reviewed() {
    let output = strata(&["openapi"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reviewed = include_str!("openapi.json");
    let now = String::from_utf8_lossy(&output.stdout);
    let differs = reviewed.lines().zip(now.lines()).enumerate().find(|(_, (reviewed, now))| reviewed != now);
    if let Some((line, (reviewed, now))) = differs {
        panic!(
            "line {} of tests/contract/openapi.json is `{reviewed}` and would be `{now}`; run `make generated`",
            line + 1
        );
    }
    assert_eq!(reviewed.lines().count(), now.lines().count(), "run `make generated`");
}

#[test]
fn operation_ids_are_unique_and_fit_tool_names() {
    let output = strata(&["openapi"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut seen = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no operationId"));
            let fits = id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
            assert!(fits, "`{id}` of {method} {path} is no tool name");
            assert!(seen.insert(id.to_owned()), "`{id}` names two operations");
        }
    }
}
