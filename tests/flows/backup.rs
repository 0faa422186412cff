//! Backups: made while others write and delete, restored elsewhere, and compared answer by answer.

use crate::support::{
    Api, SOON, Server, files_under, hits, object, retriever_body, submit, text_collection, wait_for, wait_for_task,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tempfile::TempDir;

const TEXTS: [&str; 6] = [
    "A violin has four strings.",
    "A trumpet is a brass instrument.",
    "Rain fell all night.",
    "An elephant has a long trunk.",
    "Bread is baked in an oven.",
    "The doctor treats children.",
];
const QUERIES: [&str; 3] = ["wind instrument", "weather", "physician"];
/// Content that goes into a repository in parts.
const LARGE_BYTES: usize = 9 << 20;

fn strata(arguments: &[&str], data: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strata"));
    command.args(arguments).arg("--json");
    if let Some(data) = data {
        command.arg("--data").arg(data);
    }
    for name in ["STRATA_DATA", "STRATA_CONFIG", "STRATA_PROVIDERS"] {
        command.env_remove(name);
    }
    command.output().expect("the binary runs")
}

/// The answer of a command that succeeds.
#[track_caller]
fn succeed(arguments: &[&str], data: Option<&Path>) -> Value {
    let output = strata(arguments, data);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("stdout holds JSON and nothing else")
}

/// What a command says that fails.
#[track_caller]
fn fail(arguments: &[&str], data: Option<&Path>) -> String {
    let output = strata(arguments, data);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A bucket with a few texts that are searched, a large one that is not, and a collection that is written to directly.
struct Library {
    bucket: String,
    texts: String,
    direct: String,
    retriever: String,
}

impl Library {
    fn make(api: &Api) -> Self {
        let bucket = api.post(
            "/v1/buckets",
            json!({
                "bucket_name": "texts",
                "bucket_schema": { "properties": {
                    "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" },
                } },
            }),
        );
        let bucket = bucket.text("/bucket_id").to_owned();
        let texts = text_collection(api, "texts", &bucket);
        let direct = text_collection(api, "direct", &bucket);
        let objects: Vec<String> =
            TEXTS.iter().map(|text| Self::create(api, &bucket, 1900, text).expect("the server is there")).collect();
        let (_, task) = submit(api, &bucket, &objects, &texts);
        assert_eq!(wait_for_task(api, &task), "COMPLETED");
        Self::create(api, &bucket, 1901, &"large ".repeat(LARGE_BYTES / 6)).expect("the server is there");
        let retriever = api.post("/v1/retrievers", retriever_body(api, "finder", &texts));
        Self { retriever: retriever.text("/retriever_id").to_owned(), bucket, texts, direct }
    }

    fn create(api: &Api, bucket: &str, year: u32, text: &str) -> Option<String> {
        let answer = api.try_send("POST", &format!("/v1/buckets/{bucket}/objects"), Some(&object("text", year, text)));
        answer.ok().map(|answer| answer.text("/object_id").to_owned())
    }

    /// Creates objects and documents and deletes some of both, until told to stop.
    fn churn(&self, api: &Api, number: &AtomicU32, stop: &AtomicBool) {
        let objects = format!("/v1/buckets/{}/objects", self.bucket);
        let documents = format!("/v1/collections/{}/documents", self.direct);
        while !stop.load(Ordering::SeqCst) {
            let n = number.fetch_add(1, Ordering::SeqCst);
            let text = format!("Sentence {n} of what is written meanwhile.");
            let id = Self::create(api, &self.bucket, n, &text).expect("the server is there");
            let body = json!({ "collection_id": self.direct, "title": format!("document {n}"), "year": n });
            let document = api.post(&documents, body).text("/document_id").to_owned();
            if n.is_multiple_of(3) {
                api.delete(&format!("{objects}/{id}")).ok();
            }
            if n.is_multiple_of(5) {
                api.delete(&format!("{documents}/{document}")).ok();
            }
        }
    }

    /// What a client sees of everything, byte by byte.
    fn listings(&self, api: &Api) -> Vec<(String, String)> {
        let paths = [
            "/v1/buckets/list".to_owned(),
            "/v1/collections/list".to_owned(),
            "/v1/retrievers/list".to_owned(),
            format!("/v1/buckets/{}/objects/list", self.bucket),
            format!("/v1/collections/{}/documents/list", self.texts),
            format!("/v1/collections/{}/documents/list", self.direct),
        ];
        let searchable = regex::Regex::new(r#""searchable_at":(null|"[^"]*"),"#).expect("an expression");
        let text = |path: String| {
            let response = api.respond("POST", &format!("{path}?page_size=1000"), &[], &json!({}));
            assert_eq!(response.status().as_u16(), 200, "{path}");
            let text = response.text().expect("the answer is whole");
            // When the index came to a document is no part of it.
            (path, searchable.replace_all(&text, "").into_owned())
        };
        paths.into_iter().map(text).collect()
    }

    /// What every query finds; `None` while the index is not complete.
    fn hits(&self, api: &Api) -> Option<Vec<(String, f64)>> {
        hits(api, &self.retriever, &QUERIES)
    }
}

/// Ends the threads that write, even when the test fails.
struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn place(dir: &TempDir, name: &str) -> (PathBuf, String) {
    let path = dir.path().join(name);
    let text = path.to_str().expect("a UTF-8 path").to_owned();
    (path, text)
}

/// Contents below a directory, by their hashes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = files_under(dir).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        (name.len() == 64).then(|| (name, std::fs::read(&path).expect("a content can be read")))
    });
    files.collect()
}

/// The manifest of a backup, as it is stored.
fn manifest(repository: &Path, backup_id: &Value) -> Value {
    let backup_id = backup_id.as_str().expect("an id");
    let files = files_under(&repository.join("manifests"));
    let is_wanted = |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(backup_id));
    let file = files.iter().find(is_wanted).expect("the backup has a manifest");
    serde_json::from_slice(&std::fs::read(file).expect("the manifest can be read")).expect("JSON")
}

/// Changes a file without changing its size.
fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).expect("the file can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(file, bytes).expect("the file can be written");
}

#[test]
fn a_backup_under_load_restored_elsewhere_gives_the_same_answers() {
    let mut server = Server::start();
    let api = server.api();
    let library = Library::make(&api);
    let dir = tempfile::tempdir().expect("temporary directory");
    let (repository, to) = place(&dir, "backups");
    let data = server.data_dir();

    let (number, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut under_load = Vec::new();
    std::thread::scope(|threads| {
        let _stop = StopAtEnd(&stop);
        for _ in 0..3 {
            threads.spawn(|| library.churn(&api, &number, &stop));
        }
        for round in 1..=4 {
            // Something was written since the last one, while this one is about to begin.
            wait_for("writes", SOON, || (number.load(Ordering::SeqCst) >= round * 12).then_some(()));
            under_load.push(strata(&["backup", &to], Some(&data)));
        }
    });
    let under_load: Vec<Value> = under_load
        .into_iter()
        .map(|output| {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice(&output.stdout).expect("JSON")
        })
        .collect();
    for made in &under_load {
        assert_eq!(made["lost"], json!([]), "every content that a snapshot names is in the backup: {made}");
    }
    assert!(under_load[0]["written_bytes"].as_u64() > under_load[1]["written_bytes"].as_u64(), "{under_load:?}");

    // A backup of a busy moment is whole: everything that its catalog names is there.
    let (busy, _) = place(&dir, "busy");
    let id = under_load[3]["backup_id"].as_str().expect("an id");
    succeed(&["restore", &to, "--backup", id], Some(&busy));
    let checks = succeed(&["doctor"], Some(&busy));
    assert!(checks.as_array().is_some_and(|checks| checks.iter().all(|check| check["ok"] == true)), "{checks}");

    // Of a quiet moment, every answer is the same.
    let listings = library.listings(&api);
    let hits = wait_for("all texts to be searchable", SOON, || library.hits(&api));
    let last = succeed(&["backup", &to], Some(&data));
    let again = succeed(&["backup", &to], Some(&data));
    assert_eq!((&again["new_blobs"], &again["blobs"]), (&json!(0), &last["blobs"]), "{again}");
    server.stop();
    let (quiet, _) = place(&dir, "quiet");
    let restored = succeed(&["restore", &to], Some(&quiet));
    assert_eq!((&restored["backup_id"], &restored["blobs"]), (&again["backup_id"], &again["blobs"]));

    let of_restored = succeed(&["backup", &to], Some(&quiet));
    let (first, second) =
        (manifest(&repository, &again["backup_id"]), manifest(&repository, &of_restored["backup_id"]));
    assert_eq!(first["catalog"], second["catalog"], "the catalog has come back byte by byte");
    assert_eq!(first["blobs"], second["blobs"]);

    let elsewhere = Server::start_on(|data| drop(succeed(&["restore", &to], Some(data))));
    let api = elsewhere.api();
    for ((path, before), (_, after)) in listings.iter().zip(library.listings(&api)) {
        assert_eq!(*before, after, "{path}");
    }
    wait_for("the same hits", SOON, || library.hits(&api).filter(|after| *after == hits));
    let original = contents(&data.join("blobs"));
    let back = contents(&elsewhere.data_dir().join("blobs"));
    assert!(back.values().any(|bytes| bytes.len() > LARGE_BYTES - 10), "the large content is there");
    for (hash, bytes) in &back {
        assert!(original.get(hash) == Some(bytes), "`{hash}` is what it was");
    }
    let verified = succeed(&["backups", &to, "--verify"], None);
    assert_eq!(verified.as_array().map(Vec::len), Some(7), "{verified}");
}

#[test]
fn damage_in_a_repository_is_noticed_and_nothing_is_restored_over_something() {
    let server = Server::start();
    let bucket = json!({
        "bucket_name": "texts",
        "bucket_schema": { "properties": {
            "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" },
        } },
    });
    let bucket = server.api().post("/v1/buckets", bucket).text("/bucket_id").to_owned();
    for text in TEXTS {
        Library::create(&server.api(), &bucket, 1900, text).expect("the server is there");
    }
    let dir = tempfile::tempdir().expect("temporary directory");
    let (repository, to) = place(&dir, "backups");
    let made = succeed(&["backup", &to], Some(&server.data_dir()));
    assert_eq!(made["new_blobs"], TEXTS.len());
    succeed(&["backups", &to, "--verify"], None);

    let (full, _) = place(&dir, "full");
    std::fs::create_dir(&full).expect("made");
    std::fs::write(full.join("mine"), "precious").expect("written");
    let refused = fail(&["restore", &to], Some(&full));
    assert!(refused.contains("not empty"), "{refused}");
    assert_eq!(files_under(&full), [full.join("mine")]);
    let refused = fail(&["backup", full.to_str().expect("UTF-8")], Some(&server.data_dir()));
    assert!(refused.contains("something else"), "{refused}");
    assert!(fail(&["restore", &to, "--backup", "none"], Some(&dir.path().join("x"))).contains("does not exist"));

    // A content that was changed: named, refused, and left out only where that is asked for.
    let blob = files_under(&repository.join("blobs")).remove(0);
    let hash = blob.file_name().expect("a name").to_string_lossy().into_owned();
    let good = std::fs::read(&blob).expect("readable");
    damage(&blob);
    assert!(fail(&["backups", &to, "--verify"], None).contains(&hash));
    let (target, _) = place(&dir, "target");
    let refused = fail(&["restore", &to], Some(&target));
    assert!(refused.contains(&hash), "{refused}");
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("listed").map(|e| e.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("target")), "nothing is left: {left:?}");
    let (partial, _) = place(&dir, "partial");
    let restored = succeed(&["restore", &to, "--skip-damaged"], Some(&partial));
    assert_eq!((&restored["lost"], &restored["blobs"]), (&json!([hash]), &json!(TEXTS.len() - 1)));
    std::fs::write(&blob, good).expect("written");

    // A piece of the catalog.
    let stored = manifest(&repository, &made["backup_id"]);
    let chunk = stored["catalog"]["chunks"][0].as_str().expect("a chunk");
    let chunk = repository.join("chunks").join(&chunk[..2]).join(chunk);
    let good = std::fs::read(&chunk).expect("readable");
    damage(&chunk);
    assert!(fail(&["backups", &to, "--verify"], None).contains("damaged"));
    assert!(fail(&["restore", &to], Some(&target)).contains("damaged"));
    std::fs::write(&chunk, good).expect("written");

    // The manifest itself.
    let file = files_under(&repository.join("manifests")).remove(0);
    let good = std::fs::read(&file).expect("readable");
    damage(&file);
    assert!(fail(&["backups", &to], None).contains("damaged"));
    assert!(fail(&["restore", &to], Some(&target)).contains("damaged"));
    std::fs::write(&file, good).expect("written");
    succeed(&["restore", &to], Some(&target));
}

#[test]
fn backups_are_thinned_out_and_keys_go_along_only_where_asked() {
    let server = Server::start();
    let data = server.data_dir();
    let dir = tempfile::tempdir().expect("temporary directory");
    let (_, to) = place(&dir, "backups");
    let kept: Vec<Value> = (0..4).map(|_| succeed(&["backup", &to, "--keep", "2"], Some(&data))).collect();
    assert_eq!(kept[3]["pruned"]["backups"], json!([kept[1]["backup_id"]]));
    let listed = succeed(&["backups", &to], None);
    let ids: Vec<&Value> = listed.as_array().expect("a list").iter().map(|one| &one["backup_id"]).collect();
    assert_eq!(ids, [&kept[2]["backup_id"], &kept[3]["backup_id"]]);
    succeed(&["backups", &to, "--verify"], None);

    let (without, _) = place(&dir, "without");
    succeed(&["restore", &to], Some(&without));
    assert!(!without.join("admin.key").exists());
    let (config, config_text) = place(&dir, "strata.toml");
    std::fs::write(&config, "workers = 2\nsecrets_key = \"s3cret\"\n").expect("written");
    succeed(&["backup", &to, "--with-keys", "--config", &config_text], Some(&data));
    let (with, _) = place(&dir, "with");
    let restored = succeed(&["restore", &to], Some(&with));
    assert_eq!(restored["files"], json!(["config.toml", "admin.key"]));
    for name in ["admin.key", "config.toml"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(with.join(name)).expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let same = |name: &str, other: &Path| std::fs::read(with.join(name)).ok() == std::fs::read(other).ok();
    assert!(same("admin.key", &data.join("admin.key")) && same("config.toml", &config));
}

#[test]
fn the_server_makes_backups_by_itself_and_tells_when() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (_, to) = place(&dir, "backups");
    let server = Server::start_with(&["--backup-to", &to, "--backup-every", "1h", "--backup-keep", "2"]);
    wait_for("the first backup in the metrics", SOON, || {
        let metrics = server.api().get("/metrics").body.to_string();
        metrics.contains("strata_backup_last_success_timestamp_seconds").then_some(())
    });
    let listed = succeed(&["backups", &to, "--verify"], None);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
}
