//! The audit log: every change leaves one event, reads leave none, and no event holds what was sent.

use crate::support::{Api, KEY, Server, World, text_collection};
use serde_json::{Value, json};

const LOGS: &str = "/v1/organizations/audit/logs";
const SETTINGS: &str = "/v1/organizations/audit/settings";

/// The selected events, newest first.
fn events(api: &Api, query: &str) -> Vec<Value> {
    let page = api.get(&format!("{LOGS}?limit=1000&{query}")).ok();
    let results = page["results"].as_array().expect("events").clone();
    assert_eq!(page["total"], json!(results.len()), "{page}");
    results
}

fn field<'e>(event: &'e Value, name: &str) -> &'e str {
    event[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {event}"))
}

/// A key of the caller's user with these permissions and scopes.
fn key(api: &Api, name: &str, permissions: Value, scopes: Value) -> (String, String) {
    let email = api.get("/v1/me").text("/user_email").to_owned();
    let body = json!({ "name": name, "permissions": permissions, "scopes": scopes });
    let made = api.post(&format!("/v1/organizations/users/{email}/api-keys"), body);
    (made.text("/key_id").to_owned(), made.text("/key").to_owned())
}

#[test]
fn every_change_of_a_world_leaves_its_event_and_reads_leave_none() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "watched");
    let mut found: Vec<(String, String)> = events(&admin, "")
        .iter()
        .map(|event| (field(event, "action").to_owned(), field(event, "resource_id").to_owned()))
        .collect();
    let mut wanted: Vec<(String, String)> = [
        ("annotation_created", "annotation_id"),
        ("api_key_created", "key_id"),
        ("batch_created", "batch_id"),
        ("batch_submitted", "batch_id"),
        ("benchmark_created", "benchmark_id"),
        ("bucket_created", "bucket_id"),
        ("collection_created", "collection_id"),
        ("evaluation_created", "evaluation_id"),
        ("evaluation_dataset_created", "dataset_identifier"),
        ("interaction_created", "interaction_id"),
        ("namespace_created", "namespace_id"),
        ("object_created", "object_id"),
        ("retriever_created", "retriever_id"),
        ("retriever_published", "retriever_id"),
        ("upload_created", "upload_id"),
    ]
    .map(|(action, id)| (action.to_owned(), world.id(id).to_owned()))
    .to_vec();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    for event in events(&admin, "") {
        assert_eq!((field(&event, "status"), field(&event, "actor_type")), ("success", "user"), "{event}");
        assert_eq!(field(&event, "ip_address"), "127.0.0.1");
        assert!(!field(&event, "request_id").is_empty() && !field(&event, "operation_id").is_empty(), "{event}");
        assert!(event["actor_id"].as_str().is_some_and(|id| id.starts_with("usr_")), "{event}");
        let is_in_namespace = !matches!(field(&event, "action"), "namespace_created");
        assert_eq!(event["namespace_id"].is_string(), is_in_namespace, "{event}");
    }
}

#[test]
fn changes_deletions_and_refusals_say_what_they_were_about() {
    let server = Server::start();
    let world = World::create(&server.api(), "changed");
    let document = format!("/v1/collections/{}/documents/{}", world.id("collection_id"), world.id("document_id"));
    let headers = [("X-Request-Id", "mine-7"), ("X-Change-Reason", "a test"), ("User-Agent", "tester/1")];
    let answer = world.api.respond("PATCH", &format!("{document}/acl"), &headers, &json!({ "read": ["a"] }));
    assert_eq!(answer.status().as_u16(), 200);
    let newest = |query: &str| events(&world.api, query).remove(0);
    let event = newest("");
    assert_eq!(field(&event, "action"), "permission_updated");
    assert_eq!(field(&event, "resource_id"), world.id("document_id"));
    assert_eq!((field(&event, "request_id"), field(&event, "reason")), ("mine-7", "a test"));
    assert_eq!((field(&event, "user_agent"), field(&event, "method")), ("tester/1", "PATCH"));
    assert_eq!(
        field(&event, "path"),
        "/v1/collections/{collection_identifier}/documents/{document_id}/acl",
        "names of parameters and no values"
    );
    // A path may have the name; the event has the id.
    world.api.send("PATCH", "/v1/buckets/articles", Some(&json!({ "description": "new words" }))).ok();
    let event = newest("action=bucket_updated");
    assert_eq!(field(&event, "resource_id"), world.id("bucket_id"));
    world.api.delete(&format!("/v1/annotations/{}", world.id("annotation_id"))).ok();
    assert_eq!(field(&newest("action=annotation_deleted"), "resource_id"), world.id("annotation_id"));
    // What is refused is logged, too, with its status.
    assert_eq!(world.api.delete("/v1/buckets/bkt_nobodys").status, 404);
    let event = newest("");
    assert_eq!((field(&event, "status"), &event["status_code"]), ("failure", &json!(404)));
    assert_eq!((field(&event, "action"), field(&event, "resource_id")), ("bucket_deleted", "bkt_nobodys"));
    let before = events(&world.api, "").len();
    assert_eq!(world.api.with_key("sk_nobody").delete("/v1/buckets/bkt_nobodys").status, 401);
    assert_eq!(events(&world.api, "").len(), before, "a stranger's call belongs to no organization");
}

#[test]
fn no_event_holds_a_secret() {
    let server = Server::start();
    let api = server.api();
    let secrets = "/v1/organizations/secrets";
    api.post(secrets, json!({ "secret_name": "outside", "secret_value": "hunter2-hunter2" })).ok();
    api.send("PUT", &format!("{secrets}/outside"), Some(&json!({ "secret_value": "hunter3-hunter3" }))).ok();
    api.get(secrets).ok();
    api.delete(&format!("{secrets}/outside")).ok();
    let (key_id, secret) = key(&api, "second", json!(["read"]), json!([]));
    let actions: Vec<String> = events(&api, "").iter().rev().map(|event| field(event, "action").to_owned()).collect();
    assert_eq!(actions, ["secret_created", "secret_updated", "secret_accessed", "secret_deleted", "api_key_created"]);
    let of_secrets = events(&api, "resource_type=secret&resource_id=outside");
    assert_eq!(of_secrets.len(), 3);
    assert_eq!(field(&events(&api, "action=api_key_created")[0], "resource_id"), key_id);
    let text = json!(events(&api, "")).to_string();
    for value in ["hunter2", "hunter3", secret.as_str(), KEY] {
        assert!(!text.contains(value), "{text}");
    }
}

#[test]
fn an_acknowledged_change_has_its_event_after_kill_9() {
    let mut server = Server::start();
    let api = server.api();
    let namespace = json!({ "namespace_name": "killed", "feature_extractors": [
        { "feature_extractor_name": "text_extractor", "version": "v1" },
    ] });
    let namespace = api.post("/v1/namespaces", namespace).text("/namespace_id").to_owned();
    let api = api.within(&namespace);
    let schema = json!({ "properties": { "content": { "type": "text" }, "title": { "type": "string" },
        "year": { "type": "integer" } } });
    let bucket = api.post("/v1/buckets", json!({ "bucket_name": "b", "bucket_schema": schema }));
    let collection = text_collection(&api, "direct", bucket.text("/bucket_id"));
    let mut made = Vec::new();
    for round in 0..3 {
        let api = server.api().within(&namespace);
        for n in 0..5 {
            let body = json!({ "collection_id": collection, "title": format!("document {round} {n}") });
            let answer = api.post(&format!("/v1/collections/{collection}/documents"), body);
            made.push(answer.text("/document_id").to_owned());
        }
        server.kill();
        server.start_again();
        let mut logged: Vec<String> = events(&server.api(), "action=document_created")
            .iter()
            .map(|event| field(event, "resource_id").to_owned())
            .collect();
        logged.reverse();
        assert_eq!(logged, made);
    }
}

#[test]
fn lists_are_narrowed_paged_and_exported() {
    let server = Server::start();
    let api = server.api();
    let namespace = api.post("/v1/namespaces", json!({ "namespace_name": "listed", "feature_extractors": [] }));
    let within = api.within(namespace.text("/namespace_id"));
    let bucket = |n: u32| {
        let schema = json!({ "properties": { "title": { "type": "string" } } });
        json!({ "bucket_name": format!("b{n}"), "bucket_schema": schema })
    };
    let buckets: Vec<String> =
        (0..5).map(|n| within.post("/v1/buckets", bucket(n)).text("/bucket_id").to_owned()).collect();
    let ids = |query: &str| -> Vec<String> {
        events(&api, query).iter().map(|event| field(event, "resource_id").to_owned()).collect()
    };
    let newest_first: Vec<String> = buckets.iter().rev().cloned().collect();
    assert_eq!(ids("resource_type=bucket"), newest_first);
    assert_eq!(ids(&format!("resource_id={}", buckets[2])), buckets[2..3]);
    let all = events(&api, "action=bucket_created");
    let (actor, time) = (field(&all[0], "actor_id").to_owned(), field(&all[2], "timestamp").to_owned());
    assert_eq!(ids(&format!("action=bucket_created&actor_id={actor}")), newest_first);
    assert_eq!(ids(&format!("actor_id={}", field(&all[0], "actor_key_id"))).len(), 6);
    assert!(ids("actor_id=usr_nobody").is_empty());
    assert_eq!(ids(&format!("action=bucket_created&start={time}")), newest_first[..3]);
    assert_eq!(ids(&format!("action=bucket_created&end={time}")), newest_first[2..]);
    let page = api.get(&format!("{LOGS}?action=bucket_created&skip=1&limit=2")).ok();
    assert_eq!((&page["total"], &page["skip"], &page["limit"]), (&json!(5), &json!(1), &json!(2)));
    assert_eq!(page["results"], json!(all[1..3]));
    for wrong in ["limit=0", "limit=1001", "skip=-1", "start=yesterday"] {
        assert_eq!(api.get(&format!("{LOGS}?{wrong}")).status, 422, "{wrong}");
    }
    assert_eq!(api.get(&format!("{LOGS}/{}", field(&all[3], "audit_id"))).ok(), all[3]);
    assert_eq!(api.get("/v1/organizations/audit/logs/audit_none").status, 404);
    let lines = api.get(&format!("{LOGS}/export?action=bucket_created&max_events=4")).ok();
    let lines: Vec<Value> = lines
        .as_str()
        .expect("JSON lines")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON on each line"))
        .collect();
    assert_eq!(lines, all[..4]);
    let accept = [("Accept", "application/json")];
    let array = api.respond("GET", &format!("{LOGS}/export?action=bucket_created"), &accept, &json!({}));
    assert_eq!(array.headers()["content-type"], "application/json");
    let array: Value = serde_json::from_str(&array.text().expect("a body")).expect("JSON");
    assert_eq!(array, json!(all));
}

#[test]
fn settings_have_reads_logged_and_say_how_long_events_are_kept() {
    let server = Server::start();
    let api = server.api();
    assert_eq!(api.get(SETTINGS).ok(), json!({ "read_auditing_enabled": false, "retention_days": 365 }));
    let change = |body: Value| api.send("PATCH", SETTINGS, Some(&body)).ok();
    change(json!({ "read_auditing_enabled": true, "retention_days": 30 }));
    assert_eq!(api.get(SETTINGS).ok(), json!({ "read_auditing_enabled": true, "retention_days": 30 }));
    api.get("/v1/organizations/users").ok();
    assert_eq!(events(&api, "action=user_accessed").len(), 1);
    assert_eq!(change(json!({ "read_auditing_enabled": false, "retention_days": 0 }))["retention_days"], Value::Null);
    let before = events(&api, "").len();
    api.get("/v1/organizations/users").ok();
    assert_eq!(events(&api, "").len(), before);
    assert_eq!(events(&api, "action=audit_settings_updated").len(), 2);
    assert_eq!(api.send("PATCH", SETTINGS, Some(&json!({ "retention_days": 40_000 }))).status, 422);
}

#[test]
fn only_a_key_that_administers_the_organization_reads_the_log() {
    let server = Server::start();
    let api = server.api();
    let namespace = api.post("/v1/namespaces", json!({ "namespace_name": "own", "feature_extractors": [] }));
    let namespace = namespace.text("/namespace_id").to_owned();
    let scopes = json!([{ "resource_type": "namespace", "resource_id": namespace }]);
    let (_, writer) = key(&api, "writer", json!(["read", "write", "delete"]), json!([]));
    let (_, confined) = key(&api, "confined", json!(["admin"]), scopes);
    for secret in [writer, confined] {
        let other = api.with_key(&secret);
        for path in [LOGS, SETTINGS, "/v1/organizations/audit/logs/export", "/v1/organizations/dsar/status"] {
            assert_eq!(other.get(path).status, 403, "{path}");
        }
        assert_eq!(other.get(&format!("{LOGS}/{}", field(&events(&api, "")[0], "audit_id"))).status, 403);
        for path in ["/v1/organizations/dsar/export", "/v1/organizations/dsar/delete"] {
            assert_eq!(other.post(path, json!({})).status, 403, "{path}");
        }
    }
}
