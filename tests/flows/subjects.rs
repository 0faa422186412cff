//! Requests of data subjects: the copy holds what is known, the erasure removes it, and twice is harmless.

use crate::support::{Api, SOON, Server, World, wait_for};
use serde_json::{Value, json};

/// Asks, waits until it is done, and answers the request as it stands then.
fn done(api: &Api, kind: &str, body: Value) -> Value {
    let asked = api.post(&format!("/v1/organizations/dsar/{kind}"), body);
    assert_eq!(asked.text("/status"), "pending");
    ended(api, asked.text("/request_id"))
}

/// The request when it waits no longer.
fn ended(api: &Api, id: &str) -> Value {
    wait_for("a request to be done", SOON, || {
        let all = api.get("/v1/organizations/dsar/status").ok();
        let mut requests = all.as_array().expect("requests").iter();
        let found = requests.find(|request| request["request_id"] == json!(id)).cloned();
        found.filter(|request| request["status"] != "pending")
    })
}

fn fetched(request: &Value) -> Value {
    let url = request["download_url"].as_str().unwrap_or_else(|| panic!("no URL in {request}"));
    let body = reqwest::blocking::get(url).expect("an answer").text().expect("a body");
    serde_json::from_str(&body).expect("JSON")
}

fn interact(world: &World, user: Option<&str>, session: Option<&str>) -> String {
    let body = json!({
        "feature_id": world.id("document_id"), "interaction_type": ["click"], "position": 0, "user_id": user,
        "session_id": session,
    });
    world.api.post("/v1/retrievers/interactions", body).text("/interaction_id").to_owned()
}

#[test]
fn a_visitor_is_exported_and_erased() {
    let server = Server::start();
    let world = World::create(&server.api(), "visited");
    let api = &world.api;
    let own = interact(&world, Some("visitor-7"), Some("s1"));
    let nameless = interact(&world, None, Some("s1"));
    let others = [interact(&world, Some("visitor-8"), Some("s2")), interact(&world, None, Some("s2"))];
    let subject = json!({ "subject": "visitor-7" });
    let copy = done(api, "export", subject.clone());
    assert_eq!((&copy["type"], &copy["status"]), (&json!("export"), &json!("completed")), "{copy}");
    let holds = fetched(&copy);
    assert_eq!(holds["subject"], "visitor-7");
    let of = |list: &str| holds[list].as_array().expect("a list").clone();
    assert_eq!((of("interactions").len(), of("session_interactions").len()), (1, 1), "{holds}");
    assert_eq!(holds["interactions"][0]["interaction"]["interaction_id"], json!(own));
    assert_eq!(holds["session_interactions"][0]["interaction"]["interaction_id"], json!(nameless));
    assert!(of("users").is_empty() && of("annotations").is_empty(), "{holds}");
    let receipt = done(api, "delete", subject.clone());
    assert_eq!(receipt["erased"], json!({ "interactions": 1, "session_interactions": 1 }), "{receipt}");
    assert_eq!(receipt["kept"], json!({}));
    for gone in [own, nameless] {
        assert_eq!(api.get(&format!("/v1/retrievers/interactions/{gone}")).status, 404);
    }
    for kept in others {
        api.get(&format!("/v1/retrievers/interactions/{kept}")).ok();
    }
    assert_eq!(done(api, "delete", subject.clone())["erased"], json!({}), "there is nothing left to erase");
    assert!(fetched(&done(api, "export", subject))["interactions"].as_array().expect("a list").is_empty());
    assert_eq!(fetched(&copy)["subject"], "visitor-7", "a copy can be fetched until it expires");
}

#[test]
fn without_a_subject_it_is_about_the_user_of_the_key() {
    let server = Server::start();
    let world = World::create(&server.api(), "self");
    let api = &world.api;
    let me = api.get("/v1/me").text("/user_email").to_owned();
    let holds = fetched(&done(api, "export", json!({})));
    assert_eq!(holds["users"][0]["email"], json!(me), "{holds}");
    assert_eq!(holds["annotations"].as_array().map(Vec::len), Some(1), "{holds}");
    assert!(holds["audit_events"].as_array().is_some_and(|events| events.len() > 10), "{holds}");
    let text = holds.to_string();
    assert!(!text.contains("key_hash") && !text.contains(&world.retriever_key), "{text}");
    let receipt = done(api, "delete", json!({ "subject": me }));
    assert_eq!(receipt["erased"]["annotations"], 1, "{receipt}");
    assert_eq!(receipt["kept"]["users"], 1, "{receipt}");
    assert_eq!(api.get(&format!("/v1/annotations/{}", world.id("annotation_id"))).status, 404);
    api.get("/v1/me").ok();
}

#[test]
fn what_a_crash_cuts_short_goes_on() {
    let mut server = Server::start();
    let world = World::create(&server.api(), "cut");
    for n in 0..20 {
        interact(&world, Some("visitor"), Some(&format!("s{n}")));
    }
    let asked = world.api.post("/v1/organizations/dsar/delete", json!({ "subject": "visitor" }));
    let id = asked.text("/request_id").to_owned();
    server.kill();
    server.start_again();
    let receipt = ended(&server.api(), &id);
    assert_eq!(receipt["erased"]["interactions"], 20, "{receipt}");
}
