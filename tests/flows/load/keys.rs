//! How often keys may ask, and how much an organization may have.

use crate::support::{Api, KEY, SOON, Server, World, wait_for};
use reqwest::blocking::{Client, Response};
use serde_json::json;

fn get(server: &Server, path: &str) -> Response {
    Client::new().get(format!("{}{path}", server.url())).bearer_auth(KEY).send().expect("the server answers")
}

fn number(response: &Response, name: &str) -> u64 {
    let value = response.headers().get(name).unwrap_or_else(|| panic!("no `{name}`: {response:?}"));
    value.to_str().expect("text").parse().expect("a number")
}

#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_again() {
    // One request a second.
    let server = Server::start_configured("[rate_limits]\nmetadata = 60\n");
    let first = get(&server, "/v1/namespaces");
    assert_eq!((first.status().as_u16(), number(&first, "x-ratelimit-limit")), (200, 60));
    assert_eq!((number(&first, "x-ratelimit-remaining"), number(&first, "x-ratelimit-window")), (59, 60));
    assert!(number(&first, "x-ratelimit-reset") > 1_600_000_000);
    let refused = wait_for("the bucket to be empty", SOON, || {
        let response = get(&server, "/v1/namespaces");
        (response.status() == 429).then_some(response)
    });
    assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
    let wait = number(&refused, "retry-after");
    assert!((1..=60).contains(&wait), "{wait}");
    let body: serde_json::Value = refused.json().expect("the envelope");
    assert_eq!(body["error"]["type"], "TooManyRequestsError");
    assert_eq!(body["error"]["details"]["retry_after_seconds"], wait);

    let other = get(&server, "/v1/tasks/task_none");
    assert_ne!(other.status(), 429, "each group is counted apart");
    assert!(other.headers().get("x-ratelimit-limit").is_none(), "and this one is not limited");
    assert_eq!(get(&server, "/v1/health").status(), 200);
    wait_for("a token", SOON, || (get(&server, "/v1/namespaces").status() == 200).then_some(()));
}

#[test]
fn organizations_and_keys_have_limits_of_their_own() {
    let server = Server::start();
    let api = server.api();
    assert_eq!(api.get("/v1/me").ok()["rate_limits"], json!({}));
    let change = json!({ "rate_limit_overrides": { "search": 5, "compute": null } });
    let organization = api.send("PATCH", "/v1/organizations", Some(&change)).ok();
    assert_eq!(organization["rate_limits"]["search"], 5);
    assert_eq!(api.get("/v1/me").ok()["rate_limits"], json!({ "search": 5 }), "it counts at once");
    for wrong in [json!({ "search": 0 }), json!({ "search": "many" }), json!({ "everything": 5 })] {
        let change = json!({ "rate_limit_overrides": wrong });
        assert_eq!(api.send("PATCH", "/v1/organizations", Some(&change)).status, 422, "{change}");
    }
    let email = api.get("/v1/me").text("/user_email").to_owned();
    let keys = format!("/v1/organizations/users/{email}/api-keys");
    let made = api.post(&keys, json!({ "name": "slow", "rate_limit_override": 1 }));
    assert_eq!(made.body["rate_limit_override"], 1, "{}", made.body);
    let slow: Api = api.with_key(made.text("/key"));
    assert_eq!(slow.get("/v1/me").ok()["rate_limits"]["metadata"], 1);
    assert_eq!(slow.get("/v1/me").status, 429);
    assert_eq!(api.get("/v1/me").status, 200, "another key has another bucket");
    let faster = json!({ "rate_limit_override": 100 });
    api.send("PATCH", &format!("{keys}/slow"), Some(&faster)).ok();
    wait_for("the new limit", SOON, || (slow.get("/v1/me").status == 200).then_some(()));
}

#[test]
fn an_organization_has_as_much_as_its_quotas_allow() {
    let server = Server::start_configured("[quotas]\ndocuments = 2\nbytes = 100\n");
    let admin = server.api();
    let body = json!({ "namespace_name": "small", "feature_extractors": [] });
    let api = admin.within(admin.post("/v1/namespaces", body).text("/namespace_id"));
    api.post("/v1/collections", json!({ "collection_name": "shelf" })).ok();
    let document = |n: u32| api.post("/v1/collections/shelf/documents", json!({ "title": format!("book {n}") }));
    let first = document(1);
    document(2).ok();
    let refused = document(3);
    assert_eq!((refused.status, refused.text("/error/type")), (403, "QuotaExceededError"));
    assert_eq!(refused.body["error"]["details"], json!({ "resource": "documents", "current": 3, "limit": 2 }));
    let path = format!("/v1/collections/shelf/documents/{}", first.text("/document_id"));
    api.send("PATCH", &path, Some(&json!({ "title": "changed" }))).ok();
    api.delete(&path).ok();
    document(4).ok();

    let schema = json!({ "properties": { "content": { "type": "text" } } });
    let bucket = api.post("/v1/buckets", json!({ "bucket_name": "texts", "bucket_schema": schema }));
    let objects = format!("/v1/buckets/{}/objects", bucket.text("/bucket_id"));
    let object = |text: String| {
        api.post(&objects, json!({ "blobs": [{ "property": "content", "type": "text", "data": text }] }))
    };
    let kept = object("a".repeat(90));
    let refused = object("b".repeat(11));
    assert_eq!((refused.status, refused.text("/error/details/resource")), (403, "bytes"));
    api.delete(&format!("{objects}/{}", kept.text("/object_id"))).ok();
    object("b".repeat(11)).ok();
}

/// A request of the public from an address, as the proxy in front names it.
fn visit(server: &Server, name: &str, address: &str, key: Option<&str>) -> Response {
    let url = format!("{}/v1/public/retrievers/{name}/execute", server.url());
    let mut request =
        Client::new().post(url).header("x-forwarded-for", address).json(&json!({ "inputs": { "query": "a" } }));
    if let Some(key) = key {
        request = request.header("x-public-api-key", key);
    }
    request.send().expect("the server answers")
}

/// The refusal of a request that is sent until it is refused.
fn refused(mut ask: impl FnMut() -> Response) -> (Response, u64) {
    let response = wait_for("the bucket to be empty", SOON, || Some(ask()).filter(|response| response.status() == 429));
    let wait = number(&response, "retry-after");
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(number(&response, "x-ratelimit-remaining"), 0);
    assert!(number(&response, "x-ratelimit-reset") > 1_600_000_000);
    (response, wait)
}

#[test]
fn the_public_has_the_limits_of_keys_for_each_retriever_and_each_address() {
    let server = Server::start_configured("trust_proxy = true\n[rate_limits]\nsearch = 60\n");
    let world = World::create(&server.api(), "shop");
    let publish = format!("/v1/retrievers/{}/publish", world.id("retriever_id"));
    let own = json!({ "rate_limit_config": { "tier": "unlimited" } });
    world.api.send("PATCH", &publish, Some(&own)).ok();
    let change = json!({ "rate_limit_overrides": { "search": 2 } });
    server.api().send("PATCH", "/v1/organizations", Some(&change)).ok();
    let name = world.id("public_name");

    // Each request from an address of its own.
    let mut n = 0;
    let mut next = || {
        n += 1;
        format!("203.0.{}.{}", n / 250, n % 250 + 1)
    };
    let first = visit(&server, name, &next(), None);
    assert_eq!((first.status().as_u16(), number(&first, "x-ratelimit-limit")), (200, 2));
    let (of_retriever, _) = refused(|| visit(&server, name, &next(), None));
    assert_eq!(number(&of_retriever, "x-ratelimit-limit"), 2, "a retriever counts as a key of its organization");
    assert_eq!(visit(&server, name, &next(), Some(&world.retriever_key)).status(), 200, "a key for it has its own");

    // One address, at whatever it asks.
    let (of_address, wait) = refused(|| visit(&server, "nobody", "198.51.100.1", None));
    assert_eq!(number(&of_address, "x-ratelimit-limit"), 60);
    let body: serde_json::Value = of_address.json().expect("the envelope");
    assert_eq!(
        (&body["error"]["type"], &body["error"]["details"]["retry_after_seconds"]),
        (&json!("TooManyRequestsError"), &json!(wait))
    );
    assert_eq!(visit(&server, "nobody", "198.51.100.2", None).status(), 404, "another address has its own limit");
}

#[test]
fn what_the_public_asks_counts_for_the_day_of_the_organization() {
    let mut server = Server::start();
    let world = World::create(&server.api(), "shop");
    let path = format!("/v1/public/retrievers/{}/config", world.id("public_name"));
    server.stop();
    server.start_again_configured("[quotas]\nrequests_per_day = 2\n");
    let config = || Client::new().get(format!("{}{path}", server.url())).send().expect("the server answers");
    assert_eq!((config().status().as_u16(), config().status().as_u16()), (200, 200));
    let response = config();
    assert_eq!((response.status().as_u16(), number(&response, "x-ratelimit-window")), (429, 86_400));
}
