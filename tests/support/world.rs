//! A namespace with one of everything in it, made as a user would make it.

use super::{Api, SOON, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ids by the name of the path parameter that takes them.
pub struct World {
    pub api: Api,
    pub ids: BTreeMap<&'static str, String>,
    /// A key that is for the retriever alone.
    pub retriever_key: String,
}

impl World {
    /// Makes the world called `name`; `admin` may make namespaces.
    pub fn create(admin: &Api, name: &str) -> Self {
        let namespace = admin
            .post(
                "/v1/namespaces",
                json!({
                    "namespace_name": name,
                    "feature_extractors": [
                        { "feature_extractor_name": "text_extractor", "version": "v1" },
                        { "feature_extractor_name": "passthrough_extractor", "version": "v1" },
                    ],
                }),
            )
            .text("/namespace_id")
            .to_owned();
        let api = admin.within(&namespace);
        let bucket = api
            .post(
                "/v1/buckets",
                json!({
                    "bucket_name": "articles",
                    "bucket_schema": { "properties": {
                        "title": { "type": "string", "required": true },
                        "year": { "type": "integer" },
                        "content": { "type": "text" },
                    } },
                }),
            )
            .text("/bucket_id")
            .to_owned();
        let made = api.post(&format!("/v1/buckets/{bucket}/objects"), object("Rivers", 2001, "Water flows downhill."));
        let object_id = made.text("/object_id").to_owned();
        let upload = api
            .post(
                &format!("/v1/buckets/{bucket}/uploads"),
                json!({ "filename": "later.txt", "content_type": "text/plain", "file_size_bytes": 5, "blob_property": "content", "blob_type": "text" }),
            )
            .text("/upload_id")
            .to_owned();
        let collection = text_collection(&api, "sentences", &bucket);
        let (batch, task) = submit(&api, &bucket, std::slice::from_ref(&object_id), &collection);
        assert_eq!(wait_for_task(&api, &task), "COMPLETED");
        let documents = api.list(&format!("/v1/collections/{collection}/documents/list"));
        let document = documents[0]["document_id"].as_str().expect("a document has an id").to_owned();
        let retriever =
            api.post("/v1/retrievers", retriever_body(&api, "finder", &collection)).text("/retriever_id").to_owned();
        let run =
            api.post(&format!("/v1/retrievers/{retriever}/execute"), json!({ "inputs": { "query": "a stream" } }));
        let execution = run.text("/execution_id").to_owned();
        let key = api.post(&format!("/v1/retrievers/{retriever}/api-keys"), json!({ "name": "page" }));
        let (key_id, retriever_key) = (key.text("/key_id").to_owned(), key.text("/key").to_owned());
        let published = api.post(&format!("/v1/retrievers/{retriever}/publish"), json!({ "display_name": name }));
        let public_name = published.text("/public_name").to_owned();
        let clicked =
            json!({ "feature_id": document, "interaction_type": ["click"], "position": 0, "execution_id": execution });
        let interaction = api.post("/v1/retrievers/interactions", clicked).text("/interaction_id").to_owned();
        let judged = json!({ "document_id": document, "label": "approved" });
        let annotation = api.post("/v1/annotations", judged).text("/annotation_id").to_owned();
        let query =
            json!({ "query_id": "q1", "query_input": { "query": "a stream" }, "relevant_documents": [document] });
        let dataset = json!({ "dataset_name": "streams", "queries": [query] });
        let dataset = api.post("/v1/retrievers/evaluations/datasets", dataset).text("/dataset_id").to_owned();
        let started =
            api.post(&format!("/v1/retrievers/{retriever}/evaluations"), json!({ "dataset_name": "streams" }));
        let evaluation = started.text("/evaluation_id").to_owned();
        assert_eq!(wait_for_task(&api, started.text("/task_id")), "COMPLETED");
        let benchmark = json!({
            "benchmark_name": "alone", "baseline_retriever_id": retriever, "candidate_retriever_ids": [retriever],
        });
        let benchmark = api.post("/v1/retrievers/benchmarks", benchmark).text("/benchmark_id").to_owned();
        wait_for("a benchmark to end", SOON, || {
            let status = api.get(&format!("/v1/retrievers/benchmarks/{benchmark}")).text("/status").to_owned();
            matches!(status.as_str(), "completed" | "failed").then_some(())
        });
        let ids = BTreeMap::from([
            ("namespace_identifier", namespace.clone()),
            ("namespace_id", namespace),
            ("bucket_identifier", bucket.clone()),
            ("bucket_id", bucket),
            ("object_identifier", object_id.clone()),
            ("object_id", object_id),
            ("upload_id", upload),
            ("collection_identifier", collection.clone()),
            ("collection_id", collection),
            ("batch_id", batch),
            ("task_id", task),
            ("document_id", document),
            ("retriever_id", retriever.clone()),
            ("retriever_identifier", retriever),
            ("execution_id", execution),
            ("key_id", key_id),
            ("public_name", public_name),
            ("interaction_id", interaction),
            ("annotation_id", annotation),
            ("dataset_identifier", dataset),
            ("evaluation_id", evaluation),
            ("benchmark_id", benchmark),
            ("version", "1".to_owned()),
        ]);
        Self { api, ids, retriever_key }
    }

    /// With a snapshot, which holds contents that would else go with what refers to them, and the plan of a migration.
    pub fn with_snapshot(mut self) -> Self {
        let namespace = self.id("namespace_id").to_owned();
        let taken = self.api.post(&format!("/v1/namespaces/{namespace}/snapshots"), json!({}));
        self.ids.insert("snapshot_id", taken.text("/snapshot_id").to_owned());
        assert_eq!(wait_for_task(&self.api, taken.text("/task_id")), "COMPLETED");
        let config = json!({
            "migration_type": "copy",
            "source_namespace_id": namespace,
            "target_namespace_name": format!("{namespace} moved"),
        });
        let planned = self.api.post("/v1/namespaces/migrations", json!({ "config": config }));
        self.ids.insert("migration_id", planned.text("/migration_id").to_owned());
        self
    }

    pub fn id(&self, parameter: &str) -> &str {
        self.ids.get(parameter).unwrap_or_else(|| panic!("the world has no `{parameter}`"))
    }
}

/// An object of the bucket `articles`, its text inline.
pub fn object(title: &str, year: u32, content: &str) -> Value {
    json!({
        "title": title,
        "year": year,
        "blobs": [{ "property": "content", "type": "text", "data": content }],
    })
}

/// A collection that makes one document of every sentence.
pub fn text_collection(api: &Api, name: &str, bucket: &str) -> String {
    let made = api.post(
        "/v1/collections",
        json!({
            "collection_name": name,
            "source": { "type": "bucket", "bucket_ids": [bucket] },
            "feature_extractor": {
                "feature_extractor_name": "text_extractor",
                "version": "v1",
                "parameters": { "split_by": "sentences", "chunk_size": 1 },
                "input_mappings": { "text": "content" },
                "field_passthrough": [{ "source_path": "title" }, { "source_path": "year" }],
            },
        }),
    );
    made.text("/collection_id").to_owned()
}

/// A retriever with one semantic search over the collection.
pub fn retriever_body(api: &Api, name: &str, collection: &str) -> Value {
    let made = api.get(&format!("/v1/collections/{collection}"));
    let feature = made.text("/vector_indexes/0/feature_uri").to_owned();
    json!({
        "retriever_name": name,
        "collection_identifiers": [collection],
        "input_schema": { "query": { "type": "string", "required": true } },
        "stages": [{
            "stage_name": "search",
            "stage_type": "filter",
            "config": {
                "stage_id": "feature_search",
                "parameters": {
                    "searches": [{
                        "feature_uri": feature,
                        "query": { "input_mode": "text", "value": "{{INPUT.query}}" },
                        "top_k": 10,
                    }],
                    "final_top_k": 5,
                },
            },
        }],
    })
}

/// Makes a batch and submits it: its id and its task's.
pub fn submit(api: &Api, bucket: &str, objects: &[String], collection: &str) -> (String, String) {
    let body = json!({ "object_ids": objects, "collection_ids": [collection] });
    let batch = api.post(&format!("/v1/buckets/{bucket}/batches"), body).text("/batch_id").to_owned();
    let task = api.post(&format!("/v1/buckets/{bucket}/batches/{batch}/submit"), json!({}));
    (batch, task.text("/task_id").to_owned())
}

/// Waits until the task has ended, and says how.
pub fn wait_for_task(api: &Api, task: &str) -> String {
    wait_for("a task to end", SOON, || {
        let status = api.get(&format!("/v1/tasks/{task}")).text("/status").to_owned();
        ended(&status).then_some(status)
    })
}

pub fn ended(status: &str) -> bool {
    matches!(status, "COMPLETED" | "COMPLETED_WITH_ERRORS" | "FAILED" | "CANCELED")
}
