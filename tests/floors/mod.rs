//! The floors of the workspace, held by `cargo metadata`: arrows point down only, and some crates must not be known to
//! some floors.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Direct dependencies, without those of tests and builds, of every crate of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    packages
        .iter()
        .map(|package| {
            let list = package["dependencies"].as_array().expect("dependencies");
            (name(package), list.iter().filter(|d| d["kind"].is_null()).map(name).collect())
        })
        .collect()
}

#[test]
fn arrows_between_crates_point_down_only() {
    let allowed = BTreeMap::from([
        ("strata-model", vec![]),
        ("strata-store", vec!["strata-model"]),
        ("strata-infer", vec!["strata-model"]),
        ("strata-media", vec!["strata-model"]),
        ("strata-engine", vec!["strata-model", "strata-store", "strata-infer", "strata-media"]),
        ("strata-http", vec!["strata-model", "strata-engine"]),
        (
            "strata",
            vec!["strata-model", "strata-store", "strata-infer", "strata-media", "strata-engine", "strata-http"],
        ),
    ]);
    for (package, dependencies) in dependencies() {
        let Some(allowed) = allowed.get(package.as_str()) else {
            panic!("`{package}` has no floor: give it one here and in ARCHITECTURE.md");
        };
        for dependency in dependencies.iter().filter(|d| d.starts_with("strata")) {
            assert!(allowed.contains(&dependency.as_str()), "`{package}` must not know `{dependency}`");
        }
    }
}

#[test]
fn each_floor_is_without_the_tools_of_the_others() {
    let forbidden: [(&str, &[&str]); 5] = [
        (
            "strata-model",
            &["tokio", "rusqlite", "axum", "reqwest", "object_store", "qdrant-edge", "rten", "tracing", "parking_lot"],
        ),
        ("strata-store", &["axum", "tower", "tower-http", "utoipa", "rten", "tokenizers", "clap"]),
        ("strata-infer", &["axum", "tower", "tower-http", "utoipa", "rusqlite", "qdrant-edge", "object_store", "clap"]),
        (
            "strata-media",
            &[
                "axum",
                "tower",
                "tower-http",
                "utoipa",
                "rusqlite",
                "qdrant-edge",
                "object_store",
                "reqwest",
                "rten",
                "clap",
            ],
        ),
        (
            "strata-engine",
            &["axum", "tower", "tower-http", "utoipa", "rusqlite", "qdrant-edge", "object_store", "rten", "clap"],
        ),
    ];
    let dependencies = dependencies();
    for (package, forbidden) in forbidden {
        let present = dependencies.get(package).unwrap_or_else(|| panic!("`{package}` is in the workspace"));
        for name in forbidden {
            assert!(!present.contains(*name), "`{package}` must not depend on `{name}`");
        }
    }
    let http = &dependencies["strata-http"];
    for name in ["rusqlite", "qdrant-edge", "object_store", "rten", "clap"] {
        assert!(!http.contains(name), "`strata-http` must not depend on `{name}`");
    }
}

/// The store asks object stores that hold backups over HTTP, and nothing else.
#[test]
fn one_file_of_the_store_knows_http() {
    let output = Command::new("grep")
        .args(["-rlE", "(reqwest|hyper|http_body_util)::", "crates/store/src"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("grep runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "crates/store/src/backup/transport.rs\n");
}
