//! Signed URLs over the life of the keys that sign them.

use crate::support::{Api, KEY, SOON, Server, wait_for};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use std::{collections::BTreeSet, process::Command};

/// The server under test and a bucket in it.
struct World {
    server: Server,
    api: Api,
    uploads: String,
}

impl World {
    fn new(server: Server) -> Self {
        let schema = json!({ "properties": { "content": { "type": "text" } } });
        server.api().post("/v1/namespaces", json!({ "namespace_name": "files", "feature_extractors": [] })).ok();
        let api = server.api().within("files");
        let made = api.post("/v1/buckets", json!({ "bucket_name": "texts", "bucket_schema": schema }));
        let uploads = format!("/v1/buckets/{}/uploads", made.text("/bucket_id"));
        Self { server, api, uploads }
    }

    /// An upload that waits for its bytes: its id, and the path of the URL that takes them.
    fn upload(&self) -> (String, String) {
        let body = json!({ "filename": "a.txt", "content_type": "text/plain", "create_object_on_confirm": false });
        let made = self.api.post(&self.uploads, body);
        (made.text("/upload_id").to_owned(), path(made.text("/presigned_url")))
    }

    fn put(&self, path: &str, text: &str) -> Response {
        let url = format!("{}{path}", self.server.url());
        Client::new().put(url).body(text.to_owned()).send().expect("the server answers")
    }

    fn get(&self, path: &str) -> Response {
        Client::new().get(format!("{}{path}", self.server.url())).send().expect("the server answers")
    }

    /// The path of the URL that gives the bytes of an upload which are here.
    fn confirmed(&self, upload: &str) -> String {
        let one = format!("{}/{upload}", self.uploads);
        self.api.post(&format!("{one}/confirm"), json!({})).ok();
        path(self.api.get(&format!("{one}?return_presigned_urls=true")).text("/presigned_url"))
    }

    fn rotate(&self) -> Value {
        self.server.api().post("/v1/organizations/signing-keys/rotate", json!({})).ok()
    }
}

/// What follows the address of the server, which changes with each start.
fn path(url: &str) -> String {
    url.find("/v1/").map(|at| url[at..].to_owned()).unwrap_or_else(|| panic!("{url} is no URL of this server"))
}

fn key_of(path: &str) -> &str {
    path.strip_prefix("/v1/blobs/").and_then(|token| token.split('.').next()).expect("a token")
}

fn message(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().expect("the envelope");
    (status, body["error"]["message"].as_str().expect("a message").to_owned())
}

#[test]
fn urls_outlive_the_rotation_of_their_key_and_restarts() {
    let mut world = World::new(Server::start());
    let (first, to_first) = world.upload();
    assert_eq!(key_of(&to_first), "1", "{to_first}");

    let output = Command::new(env!("CARGO_BIN_EXE_strata"))
        .args(["keys", "rotate-signing", "--json"])
        .envs([("STRATA_URL", world.server.url()), ("STRATA_API_KEY", KEY)])
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rotated: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rotated["key_id"], 2, "{rotated}");
    assert!(rotated["keys"][0]["verifies_until"].is_string() && rotated["keys"][1]["verifies_until"].is_null());
    assert!(!rotated.to_string().contains("secret"), "{rotated}");

    assert_eq!(world.put(&to_first, "one").status(), 200, "a URL of the old key works");
    let (second, to_second) = world.upload();
    assert_eq!(key_of(&to_second), "2", "{to_second}");
    assert_eq!(world.put(&to_second, "two").status(), 200);
    let from_first = world.confirmed(&first);
    world.rotate();
    let from_second = world.confirmed(&second);
    assert_eq!((key_of(&from_first), key_of(&from_second)), ("2", "3"));

    world.server.kill();
    world.server.start_again();
    assert_eq!(world.get(&from_first).text().expect("text"), "one", "keys survive a crash");
    assert_eq!(world.get(&from_second).text().expect("text"), "two");
}

#[test]
fn a_key_that_is_not_there_answers_as_an_expired_url_and_a_wrong_signature_does_not() {
    let world = World::new(Server::start());
    let (_, put) = world.upload();
    let token = put.strip_prefix("/v1/blobs/1.").expect("the first key");
    let (status, expired) = message(world.get(&format!("/v1/blobs/77.{token}")));
    assert_eq!((status, expired.as_str()), (403, "this URL has expired; ask for a new one"));
    world.rotate();
    let (status, wrong) = message(world.get(&format!("/v1/blobs/2.{token}")));
    assert_eq!((status, wrong.contains("signature")), (403, true), "{wrong}");
}

#[test]
fn rotations_at_once_are_all_answered_and_no_url_is_lost() {
    let world = World::new(Server::start());
    let (_, put) = world.upload();
    let ids: BTreeSet<u64> = std::thread::scope(|scope| {
        let rotations: Vec<_> = (0..8).map(|_| scope.spawn(|| world.rotate()["key_id"].as_u64())).collect();
        rotations.into_iter().filter_map(|rotation| rotation.join().expect("a client ends well")).collect()
    });
    assert!(!ids.is_empty() && ids.iter().all(|id| *id > 1), "{ids:?}");
    assert_eq!(world.put(&put, "one").status(), 200);
    assert_eq!(world.upload().1.split('.').count(), 3);
}

#[test]
fn only_who_administers_the_organization_rotates() {
    let world = World::new(Server::start());
    let email = world.server.api().get("/v1/me").text("/user_email").to_owned();
    let keys = format!("/v1/organizations/users/{email}/api-keys");
    let made = world.server.api().post(&keys, json!({ "name": "writer", "permissions": ["read", "write", "delete"] }));
    let writer = world.server.api().with_key(made.text("/key"));
    assert_eq!(writer.post("/v1/organizations/signing-keys/rotate", json!({})).status, 403);
    assert_eq!(key_of(&world.upload().1), "1");
}

#[test]
fn files_are_read_as_often_from_each_address_as_a_key_may_upload() {
    let world = World::new(Server::start_configured("trust_proxy = true\n[rate_limits]\nupload = 60\n"));
    let (upload, to) = world.upload();
    assert_eq!(world.put(&to, "one").status(), 200);
    let from = world.confirmed(&upload);
    let url = format!("{}{from}", world.server.url());
    let read =
        |address: &str| Client::new().get(&url).header("x-forwarded-for", address).send().expect("the server answers");
    let number = |response: &Response, name: &str| -> u64 {
        let value = response.headers().get(name).unwrap_or_else(|| panic!("no `{name}`: {response:?}"));
        value.to_str().expect("text").parse().expect("a number")
    };
    let first = read("198.51.100.1");
    assert_eq!((first.status().as_u16(), number(&first, "x-ratelimit-limit")), (200, 60));
    assert_eq!((number(&first, "x-ratelimit-remaining"), number(&first, "x-ratelimit-window")), (59, 60));
    let refused = wait_for("the bucket to be empty", SOON, || {
        let response = read("198.51.100.1");
        (response.status() == 429).then_some(response)
    });
    assert_eq!(number(&refused, "x-ratelimit-remaining"), 0);
    assert!(number(&refused, "x-ratelimit-reset") > 1_600_000_000);
    assert!((1..=60).contains(&number(&refused, "retry-after")));
    let body: Value = refused.json().expect("the envelope");
    assert_eq!(body["error"]["type"], "TooManyRequestsError", "{body}");
    assert_eq!(read("198.51.100.2").text().expect("text"), "one", "another address has its own limit");
    wait_for("a token", SOON, || (read("198.51.100.1").status() == 200).then_some(()));
}

#[test]
fn files_are_sent_as_often_from_each_address_as_a_key_may_upload() {
    let world = World::new(Server::start_configured("trust_proxy = true\n[rate_limits]\nupload = 60\n"));
    let (upload, to) = world.upload();
    let url = format!("{}{to}", world.server.url());
    let send = |address: &str| {
        let request = Client::new().put(&url).header("x-forwarded-for", address).body("one");
        request.send().expect("the server answers")
    };
    let first = send("198.51.100.1");
    let header = |response: &Response, name: &str| response.headers()[name].to_str().expect("text").to_owned();
    assert_eq!((first.status().as_u16(), header(&first, "x-ratelimit-limit")), (200, "60".to_owned()));
    let refused = wait_for("the bucket to be empty", SOON, || {
        let response = send("198.51.100.1");
        (response.status() == 429).then_some(response)
    });
    assert_eq!(header(&refused, "x-ratelimit-remaining"), "0");
    assert!((1..=60).contains(&header(&refused, "retry-after").parse::<u64>().expect("a number")));
    assert_ne!(send("198.51.100.2").status(), 429, "another address has its own limit");
    assert_eq!(world.get(&world.confirmed(&upload)).text().expect("text"), "one", "what was taken is there");
}
