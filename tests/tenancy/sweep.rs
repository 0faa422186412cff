//! Tenancy over the whole router: every operation of the OpenAPI document is asked for another tenant's things.

use crate::support::{Api, Operation, Server, World};
use serde_json::{Value, json};

/// Path parameters that name nothing of a tenant: built-in things, or a part of a thing that the path already names.
const NOT_A_TENANTS: [&str; 8] =
    ["feature_extractor_id", "extractor_id", "stage_id", "tier_num", "ray_job_id", "token", "version", "model_id"];

/// Parameters that name people, keys and other things of the whole organization; `keys.rs` looks at those.
const OF_THE_ORGANIZATION: [&str; 6] =
    ["user_email", "key_name", "secret_name", "connection_identifier", "audit_id", "identifier"];

/// What is published is everybody's, by its public name.
const PUBLIC: &str = "/v1/public/";

/// Deletes that succeed whether or not there was something, and so say the same of another's thing and of nobody's.
const IDEMPOTENT: [&str; 1] = ["/v1/retrievers/interactions/{interaction_id}"];

/// A key that may do everything, in one namespace only.
fn confined(admin: &Api, world: &World, name: &str) -> Api {
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let made = admin.post(
        &format!("/v1/organizations/users/{email}/api-keys"),
        json!({
            "name": name,
            "permissions": ["read", "write", "delete"],
            "scopes": [{ "resource_type": "namespace", "resource_id": world.id("namespace_id") }],
        }),
    );
    let secret = ["/api_key", "/key"].iter().find_map(|field| made.body.pointer(field)?.as_str().map(str::to_owned));
    let secret = secret.unwrap_or_else(|| panic!("no key in {}", made.body));
    admin.with_key(&secret).within(world.id("namespace_id"))
}

/// What the victim's namespace holds, to see that nothing of it was touched.
fn inventory(world: &World) -> Value {
    let get = |path: String| world.api.get(&path).ok();
    let list = |path: String| world.api.list(&path);
    json!({
        "namespace": get(format!("/v1/namespaces/{}", world.id("namespace_id"))),
        "bucket": get(format!("/v1/buckets/{}", world.id("bucket_id"))),
        "collection": get(format!("/v1/collections/{}", world.id("collection_id"))),
        "retriever": get(format!("/v1/retrievers/{}", world.id("retriever_id"))),
        "objects": list(format!("/v1/buckets/{}/objects/list", world.id("bucket_id"))),
        "documents": list(format!("/v1/collections/{}/documents/list", world.id("collection_id"))),
        "keys": get(format!("/v1/retrievers/{}/api-keys", world.id("retriever_id"))),
        "published": get(format!("/v1/retrievers/{}/publish", world.id("retriever_id"))),
        "batch": get(format!("/v1/batches/{}", world.id("batch_id")))["status"],
        "annotations": world.api.post("/v1/annotations/list", json!({})).ok(),
        "datasets": get("/v1/retrievers/evaluations/datasets".to_owned()),
        "evaluations": get(format!("/v1/retrievers/{}/evaluations", world.id("retriever_id"))),
        "benchmarks": get("/v1/retrievers/benchmarks".to_owned()),
        "interactions": list("/v1/retrievers/interactions/list".to_owned()),
    })
}

#[test]
fn another_tenants_ids_answer_404_on_every_operation() {
    let server = Server::start();
    let admin = server.api();
    let victim = World::create(&admin, "victim").with_snapshot();
    let other = World::create(&admin, "other");
    let intruder = confined(&admin, &other, "intruder");
    let before = inventory(&victim);
    let mut wrong = Vec::new();
    let mut proven = 0;
    for operation in Operation::all(&admin) {
        let names = &operation.path_parameters;
        if names.is_empty()
            || operation.path.starts_with(PUBLIC)
            || names.iter().any(|name| OF_THE_ORGANIZATION.contains(&name.as_str()))
        {
            continue;
        }
        if names.iter().all(|name| NOT_A_TENANTS.contains(&name.as_str())) {
            continue;
        }
        let stranger = |name: &str| match victim.ids.get(name) {
            Some(id) => id.clone(),
            None if NOT_A_TENANTS.contains(&name) => "1".to_owned(),
            None => panic!("{} has a path parameter `{name}` that this test does not know", operation.path),
        };
        // The same answer for a thing that is another's and a thing that is nobody's: an intruder learns nothing.
        let nobodys = |name: &str| {
            let id = stranger(name);
            let prefix = id.split_once('_').map_or("x", |(prefix, _)| prefix);
            format!("{prefix}_000000000000000000000000")
        };
        let body = operation.sample_body();
        let send = |path: &str| intruder.send(&operation.method, path, body.as_ref());
        let anothers = send(&operation.path_with(stranger));
        let nobodys = send(&operation.path_with(nobodys));
        let unseen = matches!(anothers.status, 400 | 404 | 422) && anothers.status == nobodys.status;
        let is_idempotent = operation.method == "DELETE" && IDEMPOTENT.contains(&operation.path.as_str());
        let found_nothing = anothers.status == nobodys.status && anothers.body["deleted"] == json!(false);
        if anothers.status == 404 || (is_idempotent && found_nothing) {
            proven += 1;
        } else if !(unseen && operation.body.is_some()) {
            wrong.push(format!(
                "{}: {} for another's, {} for nobody's: {}",
                anothers.request, anothers.status, nobodys.status, anothers.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{} operations let a stranger see something:\n{}", wrong.len(), wrong.join("\n"));
    assert!(proven >= 40, "only {proven} operations answered 404");
    assert_eq!(before, inventory(&victim), "nothing of the victim was touched");
}

#[test]
fn another_tenants_ids_in_a_body_are_not_found_either() {
    let server = Server::start();
    let admin = server.api();
    let victim = World::create(&admin, "victim");
    let other = World::create(&admin, "other");
    let intruder = confined(&admin, &other, "intruder");
    let own_bucket = other.id("bucket_id");
    let attempts = [
        (
            "/v1/collections".to_owned(),
            json!({
                "collection_name": "thief",
                "source": { "type": "bucket", "bucket_ids": [victim.id("bucket_id")] },
                "feature_extractor": { "feature_extractor_name": "passthrough_extractor", "version": "v1" },
            }),
        ),
        (
            "/v1/collections".to_owned(),
            json!({
                "collection_name": "thief",
                "source": { "type": "collection", "collection_id": victim.id("collection_id") },
                "feature_extractor": { "feature_extractor_name": "passthrough_extractor", "version": "v1" },
            }),
        ),
        (
            format!("/v1/buckets/{own_bucket}/batches"),
            json!({ "object_ids": [victim.id("object_id")], "collection_ids": [other.id("collection_id")] }),
        ),
        (
            format!("/v1/buckets/{own_bucket}/batches"),
            json!({ "object_ids": [other.id("object_id")], "collection_ids": [victim.id("collection_id")] }),
        ),
        (
            format!("/v1/buckets/{own_bucket}/objects"),
            json!({ "title": "x", "blobs": [{ "property": "content", "type": "text", "upload_id": victim.id("upload_id") }] }),
        ),
        (
            "/v1/retrievers/interactions".to_owned(),
            json!({
                "feature_id": other.id("document_id"), "interaction_type": ["click"], "position": 0,
                "retriever_id": victim.id("retriever_id"), "execution_id": victim.id("execution_id"),
            }),
        ),
        ("/v1/annotations".to_owned(), json!({ "document_id": victim.id("document_id"), "label": "approved" })),
        (
            format!("/v1/retrievers/{}/evaluations", other.id("retriever_id")),
            json!({ "dataset_name": victim.id("dataset_identifier") }),
        ),
        (
            format!("/v1/retrievers/{}/evaluations", other.id("retriever_id")),
            json!({ "dataset_name": "streams", "baseline_evaluation_id": victim.id("evaluation_id") }),
        ),
        ("/v1/retrievers".to_owned(), {
            let set = json!({
                "weight_set_id": "thief", "weights": { "lexical": 1 }, "evaluation_id": victim.id("evaluation_id"),
                "baseline_evaluation_id": victim.id("evaluation_id"), "shipped_at": "2026-01-31T12:00:00Z",
            });
            let parameters = json!({
                "searches": [{ "lexical": true, "query": "{{INPUT.query}}" }], "fusion": "learned",
                "learning_config": { "shipped_weight_set": set },
            });
            let search =
                json!({ "stage_name": "search", "config": { "stage_id": "feature_search", "parameters": parameters } });
            json!({ "retriever_name": "thief", "stages": [search] })
        }),
        (
            "/v1/retrievers/benchmarks".to_owned(),
            json!({
                "benchmark_name": "thief", "baseline_retriever_id": other.id("retriever_id"),
                "candidate_retriever_ids": [victim.id("retriever_id")],
            }),
        ),
        ("/v1/retrievers/execute".to_owned(), {
            let mut body = crate::support::retriever_body(&victim.api, "x", victim.id("collection_id"));
            body["inputs"] = json!({ "query": "a stream" });
            body
        }),
    ];
    for (path, body) in attempts {
        let answer = intruder.post(&path, body.clone());
        let has_hits = answer.body["results"].as_array().is_some_and(|hits| !hits.is_empty());
        let refused =
            matches!(answer.status, 404 | 422) || (path.ends_with("execute") && answer.status == 200 && !has_hits);
        assert!(refused, "{path} with {body} answered {}: {}", answer.status, answer.body);
    }
}

#[test]
fn a_namespace_outside_the_keys_scope_is_not_there() {
    let server = Server::start();
    let admin = server.api();
    let victim = World::create(&admin, "victim");
    let other = World::create(&admin, "other");
    let intruder = confined(&admin, &other, "intruder");
    for namespace in [victim.id("namespace_id"), "victim"] {
        let answer = intruder.within(namespace).post("/v1/buckets/list", json!({}));
        assert!(matches!(answer.status, 403 | 404), "{} {}", answer.status, answer.body);
    }
    let seen = intruder.list("/v1/namespaces/list");
    let names: Vec<&Value> = seen.iter().map(|namespace| &namespace["namespace_name"]).collect();
    assert_eq!(names, ["other"], "a confined key sees its own namespaces only");
}
