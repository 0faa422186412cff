//! The command line against a real server: what goes in by `ingest` comes out of `search` and `get`.

use crate::support::{KEY, Server};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use strata_store::catalog::rusqlite::Connection;

/// Runs a client command with `--json` and reads its answer.
fn strata(server: &Server, arguments: &[&str]) -> Value {
    let output = command(server, arguments).arg("--json").output().expect("the binary runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout holds JSON and nothing else")
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
    command.args(arguments).env("STRATA_URL", server.url()).env("STRATA_DATA", server.data_dir());
    command.env_remove("STRATA_API_KEY").env_remove("STRATA_NAMESPACE");
    command
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), content).expect("written");
}

#[test]
fn a_folder_is_ingested_searched_and_shown() {
    let server = Server::start();
    let dir = tempfile::tempdir().expect("temporary directory");
    write(
        dir.path(),
        "words.jsonl",
        "{\"text\":\"a doctor who treats children\",\"lemma\":\"pediatrician\"}\n{\"text\":\"a large grey animal with a trunk\",\"lemma\":\"elephant\"}\n",
    );
    write(dir.path(), "rows.csv", "text,lemma\n\"a vehicle with two wheels, moved by pedals\",bicycle\n");
    write(dir.path(), "note.md", "The harbour is closed in winter.");
    write(dir.path(), "unknown.bin", [0, 1, 2]);
    let folder = dir.path().to_str().expect("a UTF-8 path");

    let report = strata(&server, &["ingest", folder]);
    assert_eq!((&report["objects"], &report["failed"]), (&Value::from(4), &Value::from(0)), "{report}");
    assert_eq!(report["unknown_files"], 1);

    let answer = strata(&server, &["search", "physician", "for", "kids", "--limit", "2"]);
    let best = &answer["results"][0];
    assert_eq!(best["lemma"], "pediatrician", "fields of a record are kept: {answer}");

    let document = strata(&server, &["get", best["document_id"].as_str().expect("an id")]);
    assert_eq!(document["lemma"], "pediatrician");
    let object = strata(&server, &["get", document["root_object_id"].as_str().expect("lineage")]);
    assert_eq!(object["lemma"], "pediatrician");

    strata(&server, &["ingest", folder]);
    let collection = report["collection_ids"][0].as_str().expect("a collection");
    let documents = server.api().list(&format!("/v1/collections/{collection}/documents/list"));
    assert_eq!(documents.len(), 4, "a second run repeats nothing");
}

#[test]
fn a_record_without_text_is_reported_and_the_rest_goes_in() {
    let server = Server::start();
    let dir = tempfile::tempdir().expect("temporary directory");
    write(dir.path(), "x.jsonl", "{\"text\":\"good\"}\n{\"title\":\"no text\"}\nnot json\n");
    let output = command(&server, &["ingest", dir.path().to_str().expect("UTF-8"), "--json"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1), "failures end in a failure code");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["objects"], &report["failed"]), (&Value::from(1), &Value::from(2)), "{report}");
    let origins: Vec<&str> =
        report["failures"].as_array().expect("a list").iter().filter_map(|f| f["origin"].as_str()).collect();
    assert!(origins[0].ends_with("x.jsonl:2") && origins[1].ends_with("x.jsonl:3"), "{origins:?}");
}

#[test]
fn keys_and_namespaces_are_kept_from_the_command_line() {
    let server = Server::start();
    let namespace = strata(&server, &["namespaces", "create", "second"]);
    let namespaces = strata(&server, &["namespaces", "list"]);
    assert!(namespaces.as_array().expect("a list").iter().any(|n| n["namespace_name"] == "second"), "{namespaces}");

    let made =
        strata(&server, &["keys", "create", "reader", "--only", namespace["namespace_id"].as_str().expect("an id")]);
    let secret =
        ["api_key", "key"].iter().find_map(|field| made[*field].as_str()).expect("the secret, once").to_owned();
    let reader = server.api().with_key(&secret);
    assert_eq!(reader.get("/v1/me").status, 200);
    strata(&server, &["keys", "revoke", "reader"]);
    assert_eq!(reader.get("/v1/me").status, 401, "a revoked key stops at once");

    strata(&server, &["namespaces", "delete", "second", "--force"]);
    assert_eq!(std::fs::read_to_string(server.data_dir().join("admin.key")).expect("the key file").trim(), KEY);
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_key_file() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::start();
    let mode = std::fs::metadata(server.data_dir().join("admin.key")).expect("the key file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn doctor_finds_a_sound_directory_sound() {
    let mut server = Server::start();
    server.stop();
    let output = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["doctor", "--json", "--data"])
        .arg(server.data_dir())
        .output()
        .expect("the binary runs");
    let checks: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{checks}");
    assert!(checks.as_array().is_some_and(|checks| !checks.is_empty()));
}

/// What `strata doctor` says of the secrets, with more arguments.
fn secrets_of(server: &Server, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["doctor", "--json", "--data"])
        .arg(server.data_dir())
        .args(arguments)
        .env_remove("STRATA_CONFIG")
        .env_remove("STRATA_SECRETS_KEY")
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("hunter2"), "{said}");
    let checks: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let found = checks.as_array().and_then(|checks| checks.iter().find(|check| check["name"] == "secrets"));
    let check = found.unwrap_or_else(|| panic!("{checks}"));
    let is_good = check["ok"] == true;
    assert!(is_good || !output.status.success(), "{checks}");
    (is_good, check["detail"].as_str().expect("a detail").to_owned())
}

#[test]
fn doctor_names_the_secrets_that_do_not_open() {
    let mut server = Server::start();
    for name in ["weather", "maps"] {
        let body = json!({ "secret_name": name, "secret_value": format!("hunter2 of {name}") });
        server.api().post("/v1/organizations/secrets", body).ok();
    }
    server.stop();
    let (is_good, detail) = secrets_of(&server, &[]);
    assert!(is_good && detail.contains("all 2"), "{detail}");

    let another = "ab".repeat(32);
    let (is_good, detail) = secrets_of(&server, &["--secrets-key", &another]);
    assert!(!is_good && detail.contains("2 of 2"), "{detail}");
    assert!(detail.contains("`maps`") && detail.contains("`weather`"), "{detail}");
    let config = server.data_dir().with_file_name("strata.toml");
    std::fs::write(&config, format!("secrets_key = \"{another}\"\n")).expect("written");
    let by_file = secrets_of(&server, &["--config", config.to_str().expect("a UTF-8 path")]);
    assert_eq!(by_file, (is_good, detail), "the file says the same");

    let catalog = Connection::open(server.data_dir().join("catalog.db")).expect("the catalog opens");
    let changed = catalog.execute("UPDATE secrets SET sealed = x'0102' WHERE name = 'maps'", []);
    assert_eq!(changed.expect("changed"), 1);
    drop(catalog);
    let (is_good, detail) = secrets_of(&server, &[]);
    assert!(!is_good && detail.contains("1 of 2") && detail.contains("`maps`"), "{detail}");
    assert!(!detail.contains("`weather`"), "{detail}");

    let key = server.data_dir().join("secrets.key");
    std::fs::remove_file(&key).expect("there is a key");
    let (is_good, detail) = secrets_of(&server, &[]);
    assert!(!is_good && detail.contains("2 of 2") && detail.contains("put it back"), "{detail}");
    assert!(!key.exists(), "a doctor makes no key");
}

#[test]
fn doctor_makes_no_key_where_nothing_is_sealed() {
    let mut server = Server::start();
    server.stop();
    let (is_good, detail) = secrets_of(&server, &[]);
    assert!(is_good && detail.contains("all 0"), "{detail}");
    assert!(!server.data_dir().join("secrets.key").exists());
}
