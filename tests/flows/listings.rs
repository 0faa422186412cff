//! What lists say besides their rows.

use crate::support::{Api, Server, object};
use serde_json::{Value, json};

/// The `stats` of a list, a row a page.
fn stats(api: &Api, path: &str, body: &Value) -> Value {
    let pages = [0, 1].map(|offset| {
        let answer = api.post(&format!("{path}?limit=1&offset={offset}"), body.clone()).ok();
        assert_eq!(answer["results"].as_array().map(Vec::len), Some(1), "{answer}");
        answer["stats"].clone()
    });
    assert_eq!(pages[0], pages[1], "every page of {path} has the same");
    pages[0].clone()
}

fn have(stats: &Value, wanted: &[(&str, Value)]) {
    for (name, value) in wanted {
        assert_eq!(&stats[*name], value, "`{name}` of {stats}");
    }
}

#[test]
fn stats_are_of_all_pages_and_of_what_is_asked_for() {
    let server = Server::start();
    let admin = server.api();
    let extractors = json!([{ "feature_extractor_name": "passthrough_extractor", "version": "v1" }]);
    for name in ["stats-alpha", "stats-beta"] {
        admin.post("/v1/namespaces", json!({ "namespace_name": name, "feature_extractors": extractors })).ok();
    }
    let api = admin.within("stats-alpha");
    for (name, contents) in [("left bucket", vec!["one", "three"]), ("right bucket", vec!["seven"])] {
        let schema = json!({ "properties": {
            "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" },
        } });
        let made = api.post("/v1/buckets", json!({ "bucket_name": name, "bucket_schema": schema }));
        let objects = format!("/v1/buckets/{}/objects", made.text("/bucket_id"));
        for content in contents {
            api.post(&objects, object(content, 2001, content)).ok();
        }
    }
    let for_bob = json!({ "read": ["bob"] });
    for (name, lists) in [("left shelf", vec![Value::Null, for_bob]), ("right shelf", vec![Value::Null])] {
        let made = api.post("/v1/collections", json!({ "collection_name": name }));
        let documents = format!("/v1/collections/{}/documents", made.text("/collection_id"));
        for list in lists {
            let metadata = if list.is_null() { json!({}) } else { json!({ "_acl": list }) };
            api.post(&documents, json!({ "title": "a book", "internal_metadata": metadata })).ok();
        }
    }
    let schema = json!({ "properties": {} });
    admin.within("stats-beta").post("/v1/buckets", json!({ "bucket_name": "empty", "bucket_schema": schema })).ok();

    let all = json!({});
    have(
        &stats(&api, "/v1/buckets/list", &all),
        &[
            ("total_objects", json!(3)),
            ("total_size_bytes", json!(13)),
            ("avg_objects_per_bucket", json!(1.5)),
            ("avg_size_per_bucket", json!(6.5)),
        ],
    );
    have(
        &stats(&api, "/v1/collections/list", &all),
        &[
            ("total_documents", json!(3)),
            ("avg_documents_per_collection", json!(1.5)),
            ("total_feature_extractors", json!(1)),
        ],
    );
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let key = json!({ "name": "ann", "permissions": ["read"], "principal_id": "ann" });
    let key = admin.post(&format!("/v1/organizations/users/{email}/api-keys"), key);
    let ann = admin.with_key(key.text("/key")).within("stats-alpha");
    have(&stats(&ann, "/v1/collections/list", &all), &[("total_documents", json!(2))]);
    have(
        &stats(&admin, "/v1/namespaces/list", &json!({ "search": "stats-" })),
        &[
            ("total_feature_extractors", json!(2)),
            ("total_buckets", json!(3)),
            ("avg_buckets_per_namespace", json!(1.5)),
            ("total_collections", json!(2)),
            ("total_documents", json!(3)),
            ("total_objects", json!(3)),
        ],
    );
    let left = api.post("/v1/buckets/list?limit=1", json!({ "search": "left" })).ok();
    have(&left["stats"], &[("total_objects", json!(2)), ("total_size_bytes", json!(8))]);
}
