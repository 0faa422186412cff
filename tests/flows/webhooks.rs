//! Webhooks: what happens is told to a real receiver, signed, in order, and again until it was taken.

use crate::support::receiver::{Received, Receiver};
use crate::support::{Api, SOON, Server, World, object, submit, text_collection, wait_for, wait_for_task};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

const SECRET: &str = "a secret of the receiver's";
const TOKEN: &str = "t0ken-of-the-receiver";
const HOOKS: &str = "/v1/organizations/webhooks";

/// A server whose webhooks may reach this machine.
fn server(tries: &str) -> Server {
    Server::start_with(&["--allow-private-urls", "--webhook-tries", tries])
}

fn body(name: &str, url: &str, event_types: &[&str]) -> Value {
    json!({
        "webhook_name": name,
        "event_types": event_types,
        "channels": [{ "channel": "webhook", "configs": {
            "url": url, "headers": { "X-Token": TOKEN }, "signing_secret": SECRET,
        } }],
    })
}

fn hook(api: &Api, name: &str, url: &str, event_types: &[&str]) -> String {
    api.post(HOOKS, body(name, url, event_types)).text("/webhook_id").to_owned()
}

fn health(api: &Api, webhook: &str) -> Value {
    api.get(&format!("{HOOKS}/{webhook}")).ok()["delivery_health"].clone()
}

fn bucket(api: &Api, name: &str) -> String {
    let properties =
        json!({ "title": { "type": "string" }, "year": { "type": "integer" }, "content": { "type": "text" } });
    let made = api.post("/v1/buckets", json!({ "bucket_name": name, "bucket_schema": { "properties": properties } }));
    made.text("/bucket_id").to_owned()
}

fn create(api: &Api, bucket: &str, year: u32) -> String {
    let made = api.post(&format!("/v1/buckets/{bucket}/objects"), object("text", year, &format!("Sentence {year}.")));
    made.text("/object_id").to_owned()
}

/// The ids that events of a receiver name under a key, in the order in which they came first.
fn named(receiver: &Receiver, event_type: &str, key: &str) -> Vec<String> {
    let name = |event: &Value| event["payload"][key].as_str().expect("an id").to_owned();
    receiver.events(event_type).iter().map(name).collect()
}

fn is_signed(received: &Received) -> bool {
    let mut mac: Hmac<Sha256> = Hmac::new_from_slice(SECRET.as_bytes()).expect("a key of any length");
    mac.update(received.header("x-strata-timestamp").as_bytes());
    mac.update(b".");
    mac.update(&received.body);
    received.header("x-strata-signature") == format!("v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[test]
fn what_happens_is_told_signed_and_in_order() {
    let receiver = Receiver::start();
    let server = server("3");
    let api = server.api();
    let types = [
        "object.created",
        "object.updated",
        "object.deleted",
        "collection.created",
        "collection.updated",
        "collection.deleted",
        "collection.documents.written",
        "collection.documents.batch_completed",
        "document.created",
        "document.updated",
        "document.deleted",
        "annotation.created",
        "resource.executed",
    ];
    let webhook = hook(&api, "all", &format!("{}/in", receiver.url), &types);
    let bucket = bucket(&api, "texts");
    let objects: Vec<String> = (0..3).map(|n| create(&api, &bucket, n)).collect();
    let collection = text_collection(&api, "sentences", &bucket);
    let (batch, task) = submit(&api, &bucket, &objects, &collection);
    assert_eq!(wait_for_task(&api, &task), "COMPLETED");
    let documents = api.list(&format!("/v1/collections/{collection}/documents/list"));
    let ids: Vec<&str> = documents.iter().map(|row| row["document_id"].as_str().expect("an id")).collect();
    let path = format!("/v1/collections/{collection}/documents/{}", ids[0]);
    api.send("PATCH", &path, Some(&json!({ "note": "changed" }))).ok();
    let judged = json!({ "document_id": ids[0], "collection_id": collection, "label": "good" });
    let annotation = api.post("/v1/annotations", judged).text("/annotation_id").to_owned();
    let objects_path = format!("/v1/buckets/{bucket}/objects");
    api.send("PATCH", &format!("{objects_path}/{}", objects[1]), Some(&json!({ "title": "other" }))).ok();
    api.delete(&format!("{objects_path}/{}", objects[2])).ok();
    api.send("PATCH", &format!("/v1/collections/{collection}"), Some(&json!({ "description": "short ones" }))).ok();
    api.delete(&format!("/v1/collections/{collection}")).ok();

    wait_for("the last event", SOON, || (!receiver.events("collection.deleted").is_empty()).then_some(()));
    assert_eq!(named(&receiver, "object.created", "object_id"), objects);
    assert_eq!(named(&receiver, "object.updated", "object_id"), [objects[1].clone()]);
    assert_eq!(named(&receiver, "object.deleted", "object_id"), [objects[2].clone()]);
    assert_eq!(named(&receiver, "collection.created", "collection_id"), std::slice::from_ref(&collection));
    assert!(named(&receiver, "collection.updated", "collection_id").contains(&collection));
    assert_eq!(named(&receiver, "annotation.created", "annotation_id"), [annotation]);
    let mut created = named(&receiver, "document.created", "document_id");
    created.sort_unstable();
    let mut expected: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    expected.sort_unstable();
    assert_eq!(created, expected);
    assert_eq!(named(&receiver, "document.updated", "document_id"), [ids[0].to_owned()]);
    assert_eq!(named(&receiver, "document.deleted", "root_object_id"), [objects[2].clone()]);
    assert_eq!(receiver.events("collection.documents.written").len(), objects.len());
    let ended = receiver.events("collection.documents.batch_completed");
    assert_eq!((ended.len(), &ended[0]["payload"]["batch_id"]), (1, &json!(batch)), "{ended:?}");
    assert_eq!(ended[0]["payload"]["status"], "COMPLETED");
    assert!(named(&receiver, "resource.executed", "task_id").contains(&task));

    let seen = receiver.seen();
    for received in &seen {
        assert!(is_signed(received), "{received:?}");
        assert_eq!((received.path.as_str(), received.header("x-token")), ("/in", TOKEN));
        let event = received.json();
        assert_eq!(event["event_id"], received.header("x-strata-event-id"));
        assert_eq!(event["webhook_id"], webhook.as_str());
        assert!(event["namespace_id"].is_string() && event["created_at"].is_string(), "{event}");
    }
    let times: Vec<String> = seen.iter().map(|received| received.json()["created_at"].to_string()).collect();
    assert!(times.is_sorted(), "events come in the order in which they happened: {times:?}");
    let health = wait_for("the last answer to be written down", SOON, || {
        Some(health(&api, &webhook)).filter(|health| health["waiting"] == 0)
    });
    assert_eq!((&health["status"], &health["failed_tries"]), (&json!("healthy"), &json!(0)));
    let shown = api.post(&format!("{HOOKS}/list"), json!({})).ok().to_string() + &server.log_text();
    assert!(!shown.contains(SECRET) && !shown.contains(TOKEN), "{shown}");
}

#[test]
fn an_event_is_sent_again_until_it_is_taken() {
    let receiver = Receiver::answering(|_, before| match before {
        0 => ("500 Internal Server Error", String::new()),
        _ => ("204 No Content", String::new()),
    });
    let server = server("3");
    let api = server.api();
    let bucket = bucket(&api, "texts");
    let webhook = hook(&api, "stubborn", &receiver.url, &["object.created"]);
    let object = create(&api, &bucket, 1);
    let taken = wait_for("the event to be taken", SOON, || {
        Some(health(&api, &webhook)).filter(|health| health["delivered"] == 1)
    });
    let seen = receiver.seen();
    let tries: Vec<&str> = seen.iter().map(|received| received.header("x-strata-try")).collect();
    assert_eq!(tries, ["1", "2"]);
    assert!(seen.iter().all(is_signed), "each try is signed with its own time");
    assert_eq!(named(&receiver, "object.created", "object_id"), [object], "both tries have the same id");
    assert_eq!((&taken["status"], &taken["failed_tries"]), (&json!("healthy"), &json!(1)));
}

#[test]
fn an_event_that_is_never_taken_is_given_up_and_lets_the_next_one_pass() {
    let poison = OnceLock::new();
    let receiver = Receiver::answering(move |received, _| {
        let id = received.header("x-strata-event-id").to_owned();
        match *poison.get_or_init(|| id.clone()) == id {
            true => ("503 Service Unavailable", String::new()),
            false => ("200 OK", String::new()),
        }
    });
    let server = server("2");
    let api = server.api();
    let bucket = bucket(&api, "texts");
    let webhook = hook(&api, "poisoned", &receiver.url, &["object.created"]);
    let objects: Vec<String> = (0..2).map(|n| create(&api, &bucket, n)).collect();
    let health = wait_for("the second event to be taken", SOON, || {
        Some(health(&api, &webhook)).filter(|health| health["delivered"] == 1)
    });
    assert_eq!((&health["given_up"], &health["waiting"]), (&json!(1), &json!(0)), "{health}");
    assert_eq!(health["last_given_up"].as_array().map(Vec::len), Some(1), "{health}");
    let dead = &health["last_given_up"][0];
    assert_eq!(dead["event_id"], receiver.events("object.created")[0]["event_id"]);
    assert_eq!((&dead["tries"], dead["error"].to_string().contains("503")), (&json!(2), true), "{health}");
    let tries: Vec<String> = receiver.seen().iter().map(|seen| seen.header("x-strata-try").to_owned()).collect();
    assert_eq!(tries, ["1", "2", "1"]);
    assert_eq!(named(&receiver, "object.created", "object_id"), objects);
}

#[test]
fn what_was_queued_when_the_server_was_killed_is_told_after_its_start() {
    let is_open = Arc::new(AtomicBool::new(false));
    let open = is_open.clone();
    let receiver = Receiver::answering(move |_, _| match open.load(Ordering::SeqCst) {
        true => ("200 OK", String::new()),
        false => ("503 Service Unavailable", "Retry-After: 1\r\n".to_owned()),
    });
    let mut server = server("100");
    let api = server.api();
    let bucket = bucket(&api, "texts");
    let webhook = hook(&api, "patient", &receiver.url, &["object.created"]);
    let objects: Vec<String> = (0..5).map(|n| create(&api, &bucket, n)).collect();
    server.kill();
    assert!(receiver.events("object.created").len() <= 1, "the first one holds up the others");
    is_open.store(true, Ordering::SeqCst);
    server.start_again();
    wait_for("all events", SOON, || (receiver.events("object.created").len() == objects.len()).then_some(()));
    assert_eq!(named(&receiver, "object.created", "object_id"), objects);
    let api = server.api();
    wait_for("the queue to be empty", SOON, || (health(&api, &webhook)["waiting"] == 0).then_some(()));
}

#[test]
fn a_webhook_that_is_not_active_or_wants_something_else_hears_nothing() {
    let (receiver, other) = (Receiver::start(), Receiver::start());
    let server = server("3");
    let api = server.api();
    let bucket = bucket(&api, "texts");
    let webhook = hook(&api, "sleeper", &receiver.url, &["object.created"]);
    let set = |is_active: bool| {
        let mut body = body("sleeper", &receiver.url, &["object.created"]);
        body["is_active"] = json!(is_active);
        api.send("PUT", &format!("{HOOKS}/{webhook}"), Some(&body)).ok();
    };
    set(false);
    let mut narrow = body("narrow", &other.url, &["object.created", "resource.executed"]);
    narrow["resource_types"] = json!(["task"]);
    api.post(HOOKS, narrow).ok();
    create(&api, &bucket, 1);
    set(true);
    let heard = create(&api, &bucket, 2);
    let collection = text_collection(&api, "sentences", &bucket);
    let (_, task) = submit(&api, &bucket, std::slice::from_ref(&heard), &collection);
    assert_eq!(wait_for_task(&api, &task), "COMPLETED");
    wait_for("the event of the task", SOON, || (!other.events("resource.executed").is_empty()).then_some(()));
    wait_for("the event of the object", SOON, || (!receiver.events("object.created").is_empty()).then_some(()));
    assert_eq!(named(&receiver, "object.created", "object_id"), [heard]);
    assert!(other.events("object.created").is_empty(), "it wants events about tasks alone");
    api.delete(&format!("{HOOKS}/{webhook}")).ok();
    create(&api, &bucket, 3);
    assert_eq!(api.get(&format!("{HOOKS}/{webhook}")).status, 404);
}

#[test]
fn private_addresses_are_not_reached_and_redirects_lead_nowhere() {
    let receiver = Receiver::start();
    let guarded = Server::start();
    let api = guarded.api();
    let refused = api.post(HOOKS, body("near", &receiver.url, &["object.created"]));
    assert!(refused.status == 422 && refused.body.to_string().contains("not a public address"), "{}", refused.body);
    // What a name means is known when it is asked for.
    let port = receiver.url.rsplit(':').next().expect("a port").to_owned();
    let webhook = hook(&api, "named", &format!("http://localhost:{port}/in"), &["object.created"]);
    create(&api, &bucket(&api, "texts"), 1);
    let failing = wait_for("the refusal to be written down", SOON, || {
        Some(health(&api, &webhook)).filter(|health| health["status"] == "failing")
    });
    assert!(failing["last_error"].as_str().is_some_and(|error| error.contains("not a public address")), "{failing}");
    assert!(receiver.seen().is_empty());

    let away = format!("Location: {}/elsewhere\r\n", receiver.url);
    let sender = Receiver::answering(move |_, _| ("307 Temporary Redirect", away.clone()));
    let server = server("1");
    let api = server.api();
    let webhook = hook(&api, "away", &sender.url, &["object.created"]);
    create(&api, &bucket(&api, "texts"), 1);
    let failing = wait_for("the event to be given up", SOON, || {
        Some(health(&api, &webhook)).filter(|health| health["given_up"] == 1)
    });
    assert!(failing["last_error"].as_str().is_some_and(|error| error.contains("redirects")), "{failing}");
    assert!(receiver.seen().is_empty(), "what was signed for one place is sent to no other");
}

#[test]
fn webhooks_are_the_administrators_alone_and_every_change_is_logged() {
    let server = Server::start();
    let admin = server.api();
    let webhook = hook(&admin, "guarded", "https://hooks.example.com", &["cluster.created"]);
    let world = World::create(&admin, "confined");
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let key = json!({
        "name": "confined",
        "permissions": ["read", "write", "delete", "admin"],
        "scopes": [{ "resource_type": "namespace", "resource_id": world.id("namespace_id") }],
    });
    let made = admin.post(&format!("/v1/organizations/users/{email}/api-keys"), key);
    let secret = ["/api_key", "/key"].iter().find_map(|field| made.body.pointer(field)?.as_str());
    let confined = admin.with_key(secret.expect("a key"));
    let one = format!("{HOOKS}/{webhook}");
    let hook = body("own", "https://hooks.example.com", &["object.created"]);
    let tried = [
        confined.post(HOOKS, hook.clone()),
        confined.post(&format!("{HOOKS}/list"), json!({})),
        confined.get(&one),
        confined.send("PUT", &one, Some(&hook)),
        confined.delete(&one),
    ];
    for answer in tried {
        assert_eq!(answer.status, 403, "{} {}", answer.request, answer.body);
    }
    admin.delete(&one).ok();
    let logged = admin.get(&format!("/v1/organizations/audit/logs?limit=1000&resource_id={webhook}"));
    for action in ["webhook_created", "webhook_deleted"] {
        assert!(logged.body.to_string().contains(action), "{action}: {}", logged.body);
    }
}
