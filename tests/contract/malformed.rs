//! Bodies, queries and paths that nobody should send, to every operation of the OpenAPI document. The answer is always
//! the caller's fault in the contract's envelope, and never ours.

use crate::support::{Answer, Api, Operation, Server, World};
use serde_json::{Value, json};

/// A world, and the operations with the world's ids in their paths. Deletes come last, so that they spoil nothing.
fn swept(server: &Server) -> (World, Vec<(Operation, String)>) {
    let world = World::create(&server.api(), "swept");
    let known = |name: &str| world.ids.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let mut operations: Vec<(Operation, String)> = Operation::all(&server.api())
        .into_iter()
        .map(|operation| {
            let path = operation.path_with(known);
            (operation, path)
        })
        .collect();
    operations.sort_by_key(|(operation, _)| operation.method == "DELETE");
    (world, operations)
}

fn bytes(api: &Api, operation: &Operation, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let sent = api.try_send_bytes(&operation.method, path, content_type, body.to_vec().into());
    sent.unwrap_or_else(|error| panic!("{} {path}: the server dropped the connection: {error}", operation.method))
}

/// What is wrong with this answer to something malformed, if anything.
fn fault(answer: &Answer, what: &str) -> Option<String> {
    let message = answer.body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    let good = (400..500).contains(&answer.status) && !message.is_empty() && answer.body["detail"] != Value::Null;
    (!good).then(|| format!("{} with {what}: {} {}", answer.request, answer.status, answer.body))
}

#[test]
fn bodies_that_are_not_json_answer_4xx_on_every_operation() {
    let server = Server::start();
    let (world, operations) = swept(&server);
    let deep = [b"[".repeat(20_000), b"]".repeat(20_000)].concat();
    let deep_objects = [br#"{"a":"#.repeat(5_000), b"1".to_vec(), b"}".repeat(5_000)].concat();
    let cases: [(&str, &[u8]); 7] = [
        ("half a body", br#"{"a": "#),
        ("bad UTF-8", b"{\"a\": \"\xff\xfe\"}"),
        ("bad UTF-8 in a name", b"{\"\xc3\x28\": 1}"),
        ("deep arrays", &deep),
        ("deep objects", &deep_objects),
        ("a number that no computer holds", br#"{"a": 1e99999}"#),
        ("text after the end", br#"{"a": 1} x"#),
    ];
    let mut wrong = Vec::new();
    for (operation, path) in operations.iter().filter(|(operation, _)| operation.body.is_some()) {
        for (what, body) in cases {
            wrong.extend(fault(&bytes(&world.api, operation, path, "application/json", body), what));
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn bodies_of_another_content_type_answer_4xx_on_every_operation() {
    let server = Server::start();
    let (world, operations) = swept(&server);
    let mut wrong = Vec::new();
    for (operation, path) in operations.iter().filter(|(operation, _)| operation.body.is_some()) {
        for content_type in ["text/plain", "application/xml", "image/png", "nonsense"] {
            let answer = bytes(&world.api, operation, path, content_type, b"<a>1</a>");
            wrong.extend(fault(&answer, content_type));
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn bodies_of_another_shape_answer_4xx_where_an_object_is_needed() {
    let server = Server::start();
    let (world, operations) = swept(&server);
    let mut wrong = Vec::new();
    for (operation, path) in operations.iter().filter(|(operation, _)| operation.body.is_some()) {
        let takes_object = operation.body.as_ref().is_some_and(|schema| schema["type"] == "object");
        for (what, body) in [("an array", "[]"), ("a text", "\"x\""), ("a number", "7"), ("a boolean", "true")] {
            let answer = bytes(&world.api, operation, path, "application/json", body.as_bytes());
            if takes_object {
                wrong.extend(fault(&answer, what));
            } else if answer.status >= 500 {
                wrong.push(format!("{} with {what}: {}", answer.request, answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn properties_of_another_type_answer_4xx_with_the_name_of_the_property() {
    let server = Server::start();
    let (world, operations) = swept(&server);
    let mut deep = json!(1);
    for _ in 0..60 {
        deep = json!({ "a": deep });
    }
    let values: [(&str, Value, &[&str]); 8] = [
        ("a text", json!("\u{0}\u{202e}x"), &["string"]),
        ("a huge integer", json!(u64::MAX), &["integer", "number"]),
        ("a huge number", json!(1e308), &["number", "integer"]),
        ("a negative number", json!(-1), &["integer", "number"]),
        ("a boolean", json!(true), &["boolean"]),
        ("an array", json!([[[]]]), &["array"]),
        ("an object", json!({ "\u{0}": {} }), &["object"]),
        ("a deep object", deep, &["object"]),
    ];
    let mut wrong = Vec::new();
    for (operation, path) in &operations {
        for (name, kinds) in operation.body_properties() {
            for (what, value, fits) in &values {
                let mut body = operation.sample_body().unwrap_or_else(|| json!({}));
                body[name.as_str()] = value.clone();
                let answer = world.api.send(&operation.method, path, Some(&body));
                let what = format!("{what} as `{name}`");
                if kinds.iter().any(|kind| fits.contains(&kind.as_str())) {
                    // The type is right and only the value is odd: it may be taken or refused.
                    if answer.status >= 500 && answer.status != 503 {
                        wrong.push(format!("{} with {what}: {} {}", answer.request, answer.status, answer.body));
                    }
                } else {
                    let named = answer.body.to_string().contains(&name);
                    let missing = answer.status == 404;
                    wrong.extend(fault(&answer, &what));
                    if !named && !missing {
                        wrong.push(format!(
                            "{} with {what} does not name the property: {}",
                            answer.request, answer.body
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn queries_and_path_parts_that_nobody_should_send_are_never_our_fault() {
    let server = Server::start();
    let (world, operations) = swept(&server);
    let mut wrong = Vec::new();
    for (operation, path) in operations.iter().filter(|(operation, _)| operation.method == "GET") {
        for name in &operation.integer_queries {
            for value in ["abc", "99999999999999999999999", "1.5", "%00"] {
                let answer = world.api.get(&format!("{path}?{name}={value}"));
                wrong.extend(fault(&answer, &format!("{name}={value}")));
            }
        }
        let long = "x".repeat(4000);
        for odd in ["%00", "%ff%fe", "..%2f..%2fetc", "%F0%9F%92%A9", "'%20OR%201=1--", long.as_str()] {
            if operation.path_parameters.is_empty() {
                continue;
            }
            let answer = world.api.get(&operation.path_with(|_| odd.to_owned()));
            if answer.status >= 500 {
                wrong.push(format!("{}: {} {}", answer.request, answer.status, answer.body));
            }
        }
    }
    assert!(wrong.is_empty(), "{} answers are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_path_that_is_not_there_and_a_method_that_is_not_allowed_answer_in_the_envelope() {
    let server = Server::start();
    let api = server.api();
    let missing = api.get("/v1/no/such/path");
    assert_eq!((missing.status, fault(&missing, "nothing")), (404, None));
    let method = api.send("PUT", "/v1/health", None);
    assert_eq!((method.status, fault(&method, "nothing")), (405, None));
}
