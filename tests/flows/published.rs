//! Published retrievers and keys for one retriever, where a scenario does not reach: headers, streams, restarts.

use crate::support::{Api, KEY, Server, World};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

/// A request of the public.
fn ask(server: &Server, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut request = Client::new().post(format!("{}{path}", server.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.header("content-type", "application/json").body(body.to_string()).send().expect("the server answers")
}

fn execute(world: &World) -> String {
    format!("/v1/public/retrievers/{}/execute", world.id("public_name"))
}

fn query() -> Value {
    json!({ "inputs": { "query": "a stream" } })
}

#[test]
fn a_key_for_a_retriever_works_until_its_retriever_goes() {
    let server = Server::start();
    let world = World::create(&server.api(), "shop");
    let holder = Api::new(server.url(), &world.retriever_key);
    let path = format!("/v1/retrievers/{}/execute", world.id("retriever_id"));
    let hits = holder.post(&path, query()).ok();
    assert!(hits["results"].as_array().is_some_and(|hits| !hits.is_empty()), "{hits}");
    let me = holder.get("/v1/me").ok();
    assert_eq!((&me["key"]["key_type"], &me["key"]["permissions"]), (&json!("retriever"), &json!(["read"])));
    // Its user sees it among the keys, can stop it, and cannot make more of it.
    let email = me["user_email"].as_str().expect("a user has an e-mail address").to_owned();
    let keys = format!("/v1/organizations/users/{email}/api-keys");
    let listed = server.api().get(&keys).ok();
    let of_retriever = |key: &&Value| key["key_type"] == "retriever";
    assert_eq!(listed["results"].as_array().expect("keys").iter().filter(of_retriever).count(), 1, "{listed}");
    let one = format!("{keys}/{}", world.id("key_id"));
    let more = server.api().send("PATCH", &one, Some(&json!({ "permissions": ["admin"] })));
    assert_eq!(more.status, 409, "{}", more.body);
    assert_eq!(server.api().post(&format!("{one}/rotate"), json!({})).status, 409);
    world.api.delete(&format!("/v1/retrievers/{}", world.id("retriever_id"))).ok();
    assert_eq!(holder.get("/v1/me").status, 401, "the key went with its retriever");
    assert_eq!(ask(&server, &execute(&world), &[], &query()).status(), 404, "and so did the publication");
}

#[test]
fn a_key_of_pages_is_taken_from_their_origins_only() {
    let server = Server::start();
    let world = World::create(&server.api(), "shop");
    let body = json!({ "name": "origin", "allowed_origins": ["https://shop.example"] });
    let made = world.api.post(&format!("/v1/retrievers/{}/api-keys", world.id("retriever_id")), body);
    let bearer = format!("Bearer {}", made.text("/key"));
    let path = format!("/v1/retrievers/{}/execute", world.id("retriever_id"));
    let status = |origin: &[(&str, &str)]| {
        let headers = [&[("authorization", bearer.as_str())], origin].concat();
        ask(&server, &path, &headers, &query()).status().as_u16()
    };
    assert_eq!(status(&[("origin", "https://shop.example")]), 200);
    assert_eq!(status(&[("origin", "https://evil.example")]), 403);
    assert_eq!(status(&[]), 403, "no page, no origin");
}

#[test]
fn a_namespace_takes_the_keys_of_its_retrievers_with_it() {
    let server = Server::start();
    let world = World::create(&server.api(), "shop");
    let holder = Api::new(server.url(), &world.retriever_key);
    holder.get("/v1/me").ok();
    server.api().delete(&format!("/v1/namespaces/{}?force=true", world.id("namespace_id"))).ok();
    assert_eq!(holder.get("/v1/me").status, 401);
    assert_eq!(ask(&server, &execute(&world), &[], &query()).status(), 404);
}

#[test]
fn what_is_published_and_its_keys_outlive_a_crash() {
    let mut server = Server::start();
    let world = World::create(&server.api(), "shop");
    let path = format!("/v1/retrievers/{}/publish", world.id("retriever_id"));
    let before = world.api.get(&path).ok();
    server.kill();
    server.start_again();
    let after = server.api().within(world.id("namespace_id")).get(&path).ok();
    for part in ["public_id", "public_name", "public_api_key", "display_config", "created_at"] {
        assert_eq!(before[part], after[part], "{part}");
    }
    let key = before["public_api_key"].as_str().expect("a key");
    // The key alone says which retriever is meant.
    for headers in [[("x-public-api-key", key)], [("x-public-api-key", world.retriever_key.as_str())]] {
        let answer = ask(&server, "/v1/public/retrievers/execute", &headers, &query());
        assert_eq!(answer.status(), 200);
        let answer: Value = answer.json().expect("JSON");
        assert!(answer["results"].as_array().is_some_and(|hits| !hits.is_empty()), "{answer}");
    }
    for headers in [vec![], vec![("x-public-api-key", "prk_0")], vec![("x-public-api-key", KEY)]] {
        assert_eq!(ask(&server, "/v1/public/retrievers/execute", &headers, &query()).status(), 401, "{headers:?}");
    }
}

#[test]
fn a_stream_shows_the_public_no_more_than_an_answer() {
    let server = Server::start();
    let world = World::create(&server.api(), "shop");
    let change = json!({ "display_config": { "title": "x", "inputs": [], "exposed_fields": ["title"] }, "include_metadata": false });
    world.api.send("PATCH", &format!("/v1/retrievers/{}/publish", world.id("retriever_id")), Some(&change)).ok();
    let mut body = query();
    body["stream"] = true.into();
    let text = ask(&server, &execute(&world), &[], &body).text().expect("text");
    let events: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let last = events.last().expect("events");
    assert_eq!(last["event_type"], "execution_complete", "{text}");
    let hit = last["documents"][0].as_object().expect("a hit");
    let mut names: Vec<&str> = hit.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["document_id", "presigned_url", "presigned_urls", "score", "title"]);
    assert_eq!(events[0]["stage_name"], "stage 1");
    for hidden in
        ["namespace_id", "collection_id", "root_object_id", world.id("collection_id"), world.id("namespace_id")]
    {
        assert!(!text.contains(hidden), "the stream names `{hidden}`: {text}");
    }
}

#[test]
fn who_asks_too_often_is_told_how_long_to_wait() {
    let server = Server::start();
    let world = World::create(&server.api(), "shop");
    let change = json!({ "rate_limit_config": { "requests_per_hour": 1 } });
    world.api.send("PATCH", &format!("/v1/retrievers/{}/publish", world.id("retriever_id")), Some(&change)).ok();
    assert_eq!(ask(&server, &execute(&world), &[], &query()).status(), 200);
    let refused = ask(&server, &execute(&world), &[], &query());
    assert_eq!(refused.status(), 429);
    let header = |name: &str| refused.headers()[name].to_str().expect("text").to_owned();
    let shown = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-window"].map(header);
    assert_eq!(shown, ["1", "0", "3600"], "of all limits the nearest one");
    let wait: u64 = refused.headers()["retry-after"].to_str().expect("text").parse().expect("seconds");
    assert!((3_000..=3_600).contains(&wait), "{wait}");
    assert_eq!(refused.headers()["access-control-allow-origin"], "*", "pages can read the refusal");
}

#[test]
fn guesses_of_a_password_come_to_an_end() {
    let server = Server::start();
    let admin = server.api();
    let world = World::create(&admin, "shop");
    admin.post("/v1/organizations/secrets", json!({ "secret_name": "door", "secret_value": "sesame" })).ok();
    let change = json!({ "password_secret_name": "door" });
    let changed =
        world.api.send("PATCH", &format!("/v1/retrievers/{}/publish", world.id("retriever_id")), Some(&change)).ok();
    let key = changed["public_api_key"].as_str().expect("a key").to_owned();
    let verify = format!("/v1/public/retrievers/{}/verify", world.id("public_name"));
    let guess = |password: &str| ask(&server, &verify, &[], &json!({ "password": password })).status().as_u16();
    let statuses: Vec<u16> = (0..11).map(|n| guess(&n.to_string())).collect();
    assert_eq!(statuses, [[200; 10].as_slice(), &[429]].concat());
    assert_eq!(guess("sesame"), 429, "the right one is not looked at either");
    let with = |header: (&str, &str)| ask(&server, &execute(&world), &[header], &query()).status().as_u16();
    assert_eq!(with(("x-retriever-password", "sesame")), 429);
    assert_eq!(with(("x-public-api-key", &key)), 200, "whoever has the key is not locked out");
}
