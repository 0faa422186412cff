//! Real photos, PDFs, recordings and videos become documents, and are found again.

mod asked;
mod course;
mod custom;
mod damaged;
mod described;
mod faces;
mod pages;
mod photos;
mod recordings;
mod stills;
mod universal;

use crate::support::{Api, Server, jpeg_size, wait_for};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Looking and listening takes its time, on few cores beside other tests.
const LATER: Duration = Duration::from_secs(300);

/// A real file, such as `scikit-image/coffee.png`.
fn file(name: &str) -> PathBuf {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a parent").join("test-files");
    let folder = std::env::var_os("STRATA_TEST_FILES").map_or_else(beside, PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "`{}` is missing: run `scripts/fetch-test-files.sh`", path.display());
    path
}

/// A server with a bucket for every kind of file.
struct Shelf {
    server: Server,
    api: Api,
    bucket: String,
}

impl Shelf {
    fn open() -> Self {
        Self::on(Server::start())
    }

    fn on(server: Server) -> Self {
        let api = server.api();
        let kinds = ["image", "pdf", "video", "audio", "text", "excel"];
        let properties: serde_json::Map<String, Value> =
            kinds.iter().map(|kind| ((*kind).to_owned(), json!({ "type": kind }))).collect();
        let bucket =
            api.post("/v1/buckets", json!({ "bucket_name": "shelf", "bucket_schema": { "properties": properties } }));
        let bucket = bucket.text("/bucket_id").to_owned();
        Self { server, api, bucket }
    }

    /// Puts bytes under a name; answers the object's id.
    fn put(&self, property: &str, name: &str, bytes: &[u8]) -> String {
        self.try_put(property, name, bytes).expect("the object is taken")
    }

    fn try_put(&self, property: &str, name: &str, bytes: &[u8]) -> Result<String, Value> {
        let data = match property {
            "text" => format!("data:text/plain;base64,{}", STANDARD.encode(bytes)),
            _ => STANDARD.encode(bytes),
        };
        let blob = json!({ "property": property, "type": property, "data": data, "metadata": { "filename": name } });
        let body = json!({ "blobs": [blob] });
        let answer = self.api.post(&format!("/v1/buckets/{}/objects", self.bucket), body);
        match answer.status {
            200 | 201 => Ok(answer.text("/object_id").to_owned()),
            _ => Err(answer.body),
        }
    }

    /// Puts a real file.
    fn put_file(&self, property: &str, name: &str) -> String {
        let bytes = std::fs::read(file(name)).expect("readable");
        let short = name.rsplit('/').next().unwrap_or(name);
        self.put(property, short, &bytes)
    }

    /// A collection over the bucket.
    fn collection(&self, name: &str, extractor: &str, parameters: Value) -> String {
        let source = json!({ "type": "bucket", "bucket_ids": [self.bucket] });
        self.collection_of(
            name,
            source,
            json!({ "feature_extractor_name": extractor, "version": "v1", "parameters": parameters }),
        )
    }

    fn collection_of(&self, name: &str, source: Value, extractor: Value) -> String {
        let body = json!({ "collection_name": name, "source": source, "feature_extractor": extractor });
        self.api.post("/v1/collections", body).text("/collection_id").to_owned()
    }

    /// Has objects worked on; answers how the work ended.
    fn derive(&self, objects: &[String], collections: &[&str]) -> String {
        let body = json!({ "object_ids": objects, "collection_ids": collections });
        let batch = self.api.post(&format!("/v1/buckets/{}/batches", self.bucket), body).text("/batch_id").to_owned();
        let task = self.api.post(&format!("/v1/buckets/{}/batches/{batch}/submit", self.bucket), json!({}));
        let task = task.text("/task_id").to_owned();
        wait_for("a batch of files to end", LATER, || {
            let status = self.api.get(&format!("/v1/tasks/{task}")).text("/status").to_owned();
            crate::support::ended(&status).then_some(status)
        })
    }

    /// The documents of a collection, with signed URLs.
    fn documents(&self, collection: &str) -> Vec<Value> {
        self.api.list(&format!("/v1/collections/{collection}/documents/list?return_url=true"))
    }

    /// The best hits of one search.
    fn search(&self, collection: &str, query: Value, limit: usize) -> Vec<Value> {
        let body = json!({
            "collection_identifiers": [collection],
            "inputs": {},
            "stages": [{ "stage_name": "search", "stage_type": "filter", "config": {
                "stage_id": "feature_search",
                "parameters": { "searches": [{ "query": query, "top_k": limit }], "final_top_k": limit },
            } }],
        });
        let answer = self.api.post("/v1/retrievers/execute", body).ok();
        answer["documents"].as_array().cloned().expect("documents")
    }

    /// Waits until searches see all of a collection. The newest document is seen last.
    fn settle(&self, collection: &str) {
        let list = format!("/v1/collections/{collection}/documents/list?page_size=1");
        wait_for("all documents to be searchable", LATER, || {
            let newest = json!({ "sort": { "field": "created_at", "direction": "desc" } });
            let page = self.api.post(&list, newest).ok();
            page["results"].get(0).is_none_or(|document| document["searchable_at"].is_string()).then_some(())
        });
    }
}

/// What a signed URL holds.
fn opened(url: &Value) -> Vec<u8> {
    let answer = reqwest::blocking::get(url.as_str().expect("a URL")).expect("it can be reached");
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
    answer.bytes().expect("a body").to_vec()
}

/// The program that makes films and pictures for tests.
fn ffmpeg() -> PathBuf {
    let models = std::env::var_os("STRATA_MODELS").map(PathBuf::from).unwrap_or_default();
    let installed = models.join("ffmpeg/ffmpeg");
    if installed.is_file() { installed } else { "ffmpeg".into() }
}
