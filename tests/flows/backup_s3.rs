//! Backups in an object store that speaks S3: a real server of its kind, which checks signatures. The interpreter that
//! has it comes from `STRATA_TEST_PYTHON`, which `make test` sets.

use crate::support::{Api, SOON, Server, object, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};

const BUCKET: &str = "backups";
const TEXTS: [&str; 4] =
    ["A violin has four strings.", "Rain fell all night.", "Bread is baked in an oven.", "An elephant has a trunk."];
/// Content that goes up in parts.
const LARGE_BYTES: usize = 9 << 20;

/// The object store, as long as this lives.
struct Store {
    child: Child,
    /// Its end is the store's.
    input: Option<ChildStdin>,
    endpoint: String,
    id: String,
    secret: String,
}

impl Store {
    fn start() -> Self {
        let python = std::env::var("STRATA_TEST_PYTHON").expect(
            "STRATA_TEST_PYTHON names a Python that has the package `moto`; `make test` prepares one and sets it",
        );
        let mut child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/s3.py"))
            .arg(BUCKET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("STRATA_TEST_PYTHON is a program");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped")).read_line(&mut line).expect("the store speaks");
        let said: Value = serde_json::from_str(&line).expect("the store says where it is");
        let text = |key: &str| said[key].as_str().expect("a text").to_owned();
        Self {
            endpoint: text("endpoint"),
            id: text("access_key_id"),
            secret: text("secret_access_key"),
            input: child.stdin.take(),
            child,
        }
    }

    /// Runs a command with these keys in its environment, where there are some.
    fn strata(&self, arguments: &[&str], keys: Option<(&str, &str)>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
        command.args(arguments).arg("--json");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
            command.env_remove(name);
        }
        for name in ["STRATA_DATA", "STRATA_CONFIG", "STRATA_PROVIDERS"] {
            command.env_remove(name);
        }
        if let Some((id, secret)) = keys {
            command.env("AWS_ENDPOINT_URL", &self.endpoint);
            command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        }
        command.output().expect("the binary runs")
    }

    /// The answer of a command that succeeds with the right keys.
    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> Value {
        answer(arguments, &self.strata(arguments, Some((&self.id, &self.secret))))
    }

    /// What a command says that fails with these keys.
    #[track_caller]
    fn fail(&self, arguments: &[&str], keys: (&str, &str)) -> String {
        let output = self.strata(arguments, Some(keys));
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The table of a configuration file that reaches it.
    fn table(&self) -> String {
        let Self { endpoint, id, secret, .. } = self;
        format!("endpoint = \"{endpoint}\"\naccess_key_id = \"{id}\"\nsecret_access_key = \"{secret}\"\n")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn answer(arguments: &[&str], output: &Output) -> Value {
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout holds JSON and nothing else")
}

fn bucket(api: &Api) -> String {
    let properties =
        json!({ "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" } });
    let body = json!({ "bucket_name": "texts", "bucket_schema": { "properties": properties } });
    api.post("/v1/buckets", body).text("/bucket_id").to_owned()
}

fn create(api: &Api, bucket: &str, year: u32, text: &str) {
    api.post(&format!("/v1/buckets/{bucket}/objects"), object("text", year, text)).text("/object_id");
}

/// What a client sees of the objects, but for the signed addresses.
fn objects(api: &Api, bucket: &str) -> Vec<Value> {
    let keys = ["object_id", "title", "year", "created_at", "updated_at", "status"];
    let shown = |row: Value| -> Value { keys.iter().map(|key| ((*key).to_owned(), row[*key].clone())).collect() };
    api.list(&format!("/v1/buckets/{bucket}/objects/list")).into_iter().map(shown).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[test]
fn a_backup_in_an_object_store_grows_is_verified_thinned_out_and_restored() {
    let store = Store::start();
    let to = format!("s3://{BUCKET}/servers/one");
    let server = Server::start();
    let api = server.api();
    let bucket = bucket(&api);
    for (year, text) in (1900..).zip(TEXTS) {
        create(&api, &bucket, year, text);
    }
    create(&api, &bucket, 1950, &"large ".repeat(LARGE_BYTES / 6));
    let data = server.data_dir();
    let backup = |more: &[&str]| {
        let mut arguments = vec!["backup", to.as_str(), "--data", path(&data)];
        arguments.extend(more);
        store.succeed(&arguments)
    };

    let first = backup(&[]);
    assert_eq!((&first["new_blobs"], &first["lost"]), (&json!(TEXTS.len() + 1), &json!([])));
    create(&api, &bucket, 1960, "A trumpet is a brass instrument.");
    let second = backup(&[]);
    assert_eq!((&second["new_blobs"], &second["blobs"]), (&json!(1), &json!(TEXTS.len() + 2)));
    assert!(second["written_bytes"].as_u64() < first["written_bytes"].as_u64(), "{first} {second}");
    let listed = store.succeed(&["backups", &to]);
    let ids: Vec<&Value> = listed.as_array().expect("a list").iter().map(|one| &one["backup_id"]).collect();
    assert_eq!(ids, [&first["backup_id"], &second["backup_id"]]);
    store.succeed(&["backups", &to, "--verify"]);

    // Another prefix of the bucket is another repository.
    let other = store.fail(&["backups", &format!("s3://{BUCKET}/servers")], (&store.id, &store.secret));
    assert!(other.contains("does not exist"), "{other}");

    let third = backup(&["--keep", "1"]);
    assert_eq!(third["pruned"]["backups"], json!([second["backup_id"], first["backup_id"]]));
    let left = store.succeed(&["backups", &to, "--verify"]);
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");

    // Restored with the keys of a configuration file, and nothing in the environment.
    let before = objects(&api, &bucket);
    assert_eq!(before.len(), TEXTS.len() + 2);
    let configuration = data.with_file_name("strata.toml");
    std::fs::write(&configuration, format!("[backup]\n{}", store.table())).expect("written");
    let elsewhere = Server::start_on(|target| {
        let arguments = ["restore", to.as_str(), "--config", path(&configuration), "--data", path(target)];
        let restored = answer(&arguments, &store.strata(&arguments, None));
        assert_eq!(restored["backup_id"], third["backup_id"]);
    });
    assert_eq!(objects(&elsewhere.api(), &bucket), before);
}

#[test]
fn what_an_object_store_refuses_is_told_without_the_keys() {
    let store = Store::start();
    let server = Server::start();
    let data = server.data_dir();
    let to = format!("s3://{BUCKET}/refused");
    let backup = ["backup", to.as_str(), "--data", path(&data)];

    let wrong = "c2VjcmV0LXNlY3JldC1zZWNyZXQ";
    let refused = store.fail(&backup, (&store.id, wrong));
    assert!(refused.contains("SignatureDoesNotMatch") && !refused.contains(wrong), "{refused}");
    let refused = store.fail(&backup, ("AKIANOBODYKNOWSTHIS", wrong));
    assert!(refused.contains("InvalidAccessKeyId") && !refused.contains(wrong), "{refused}");
    let refused = store.fail(&["backup", "s3://elsewhere/x", "--data", path(&data)], (&store.id, &store.secret));
    assert!(refused.contains("no such bucket"), "{refused}");
    let refused = store.fail(&["backups", &to], (&store.id, &store.secret));
    assert!(refused.contains("does not exist"), "{refused}");
    let refused = store.fail(&["backups", &format!("s3://key:{wrong}@{BUCKET}/x")], (&store.id, &store.secret));
    assert!(refused.contains("environment") && !refused.contains(wrong), "{refused}");
    let refused = store.fail(&["backups", "ftp://somewhere/x"], (&store.id, &store.secret));
    assert!(refused.contains("s3://bucket/prefix"), "{refused}");
}

#[test]
fn the_server_makes_its_backups_in_an_object_store() {
    let store = Store::start();
    let to = format!("s3://{BUCKET}/scheduled");
    let server = Server::start_configured(&format!("[backup]\nto = \"{to}\"\nevery = \"1h\"\n{}", store.table()));
    wait_for("the first backup in the metrics", SOON, || {
        let metrics = server.api().get("/metrics").body.to_string();
        metrics.contains("strata_backup_last_success_timestamp_seconds").then_some(())
    });
    let listed = store.succeed(&["backups", &to, "--verify"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert!(!server.log_text().contains(&store.secret), "no key is logged");
}
