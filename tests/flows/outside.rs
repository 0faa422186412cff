//! Stages that call servers outside, over real HTTP: what they may reach, and that secrets go there and nowhere else.

use crate::support::{Api, Server};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

const SECRET: &str = "t0p-s3cret";

/// A server that remembers what it was sent and answers it as JSON; `/page` is a page, `/away` a redirect.
struct Outside {
    host: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("an address").to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|read| read > 2) {}
                let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
                kept.lock().expect("no panic holds it").push(head.clone());
                let (status, kind, body) = match path.as_str() {
                    "/robots.txt" => ("404 Not Found", "text/plain", String::new()),
                    "/away" => ("302 Found\r\nLocation: http://169.254.169.254/latest", "text/plain", String::new()),
                    path if path.starts_with("/page") => {
                        let words = "Words that a reader wants to read. ".repeat(30);
                        (
                            "200 OK",
                            "text/html",
                            format!("<title>A page</title><nav>menu</nav><article><p>{words}</p></article>"),
                        )
                    }
                    path if path.starts_with("/fail") => ("500 Oops", "text/plain", format!("you sent {head}")),
                    _ => ("200 OK", "application/json", json!({ "path": path, "head": head }).to_string()),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                drop(reader.get_mut().write_all(answer.as_bytes()));
            }
        });
        Self { host, seen }
    }

    fn seen(&self) -> String {
        self.seen.lock().expect("no panic holds it").join("\n")
    }
}

fn stage(id: &str, parameters: Value) -> Value {
    json!({ "stage_name": id, "config": { "stage_id": id, "parameters": parameters } })
}

fn with_one_document(admin: &Api) -> Api {
    admin
        .post(
            "/v1/namespaces/standalone",
            json!({ "namespace_id": "out", "vector_configs": [{ "name": "v", "dimension": 2 }] }),
        )
        .ok();
    let api = admin.within("out");
    let document = json!({ "document_id": "d1", "vectors": { "v": [1.0, 0.0] }, "payload": { "n": 1, "key": "a b" } });
    api.post(
        "/v1/namespaces/out/documents/upsert",
        json!({ "documents": [document], "options": { "write_token": true } }),
    )
    .ok();
    api
}

fn stages(id: &str, parameters: Value) -> Value {
    json!([stage("attribute_filter", json!({ "field": "n", "value": 1 })), stage(id, parameters)])
}

#[test]
fn an_api_gets_the_secret_and_nobody_else() {
    let outside = Outside::start();
    let server = Server::start_with(&["--allow-private-urls"]);
    let admin = server.api();
    let api = with_one_document(&admin);
    let parameters = |path: &str| {
        json!({
            "url": format!("http://{}{path}/{{DOC.key}}?token={{{{secrets.token}}}}", outside.host), "allowed_domains": [outside.host],
            "headers": { "X-Token": "{{SECRET.token}}" }, "auth": { "type": "bearer", "secret_ref": "token" }, "output_field": "api",
        })
    };
    let body = json!({ "retriever_name": "caller", "stages": stages("api_call", parameters("/items")) });
    let early = api.post("/v1/retrievers", body.clone());
    assert!(
        early.status == 422 && early.body.to_string().contains("the secret `token` does not exist"),
        "{}",
        early.body
    );
    admin.post("/v1/organizations/secrets", json!({ "secret_name": "token", "secret_value": SECRET })).ok();
    let made = api.post("/v1/retrievers", body).ok();
    let retriever = made["retriever_id"].as_str().expect("an id").to_owned();
    let answer = api.post(&format!("/v1/retrievers/{retriever}/execute"), json!({ "inputs": {} })).ok();
    let sent = outside.seen();
    assert!(sent.contains(&format!("GET /items/a%20b?token={SECRET} ")), "{sent}");
    assert!(
        sent.contains(&format!("authorization: Bearer {SECRET}")) && sent.contains(&format!("x-token: {SECRET}")),
        "{sent}"
    );
    assert!(answer["documents"][0]["api"]["head"].to_string().contains("Bearer [secret]"), "{answer}");

    let failing = api
        .post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": stages("api_call", parameters("/fail")) }))
        .ok();
    assert!(failing["warnings"].to_string().contains("answered 500"), "{failing}");
    let mut raising = parameters("/fail");
    raising["on_error"] = json!("raise");
    let raised = api.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": stages("api_call", raising) }));
    assert_eq!(raised.status, 422);
    let execution = answer["execution_id"].as_str().expect("an id");
    let shown = [
        made,
        answer.clone(),
        failing,
        raised.body,
        api.get(&format!("/v1/retrievers/{retriever}/executions/{execution}")).ok(),
        api.post(&format!("/v1/retrievers/{retriever}/execute/explain"), json!({ "inputs": {} })).body,
        api.post("/v1/retrievers/list", json!({})).ok(),
        json!(server.log_text()),
    ];
    for value in shown {
        assert!(!value.to_string().contains(SECRET), "{value}");
    }

    admin.send("PUT", "/v1/organizations/secrets/token", Some(&json!({ "secret_value": "an0ther" }))).ok();
    api.post(&format!("/v1/retrievers/{retriever}/execute"), json!({ "inputs": {} })).ok();
    assert!(outside.seen().contains("Bearer an0ther"), "the new value counts at once");
    admin.delete("/v1/organizations/secrets/token").ok();
    let gone = api.post(&format!("/v1/retrievers/{retriever}/execute"), json!({ "inputs": {} }));
    assert!(gone.status == 422 && gone.body.to_string().contains("the secret `token` does not exist"), "{}", gone.body);
}

#[test]
fn private_addresses_are_out_of_reach_unless_the_operator_says_so() {
    let outside = Outside::start();
    let guarded = Server::start();
    let api = with_one_document(&guarded.api());
    let url = format!("http://{}/page", outside.host);
    for (id, parameters) in [
        ("api_call", json!({ "url": url, "allowed_domains": [outside.host], "on_error": "raise" })),
        ("web_scrape", json!({ "url": url, "on_error": "raise" })),
        ("web_scrape", json!({ "url": "{{DOC.url}}", "on_error": "raise" })),
    ] {
        let refused = api.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": stages(id, parameters) }));
        assert_eq!(refused.status, 422, "{}", refused.body);
    }
    assert_eq!(outside.seen(), "", "nothing was sent");

    let open = Server::start_with(&["--allow-private-urls"]);
    let api = with_one_document(&open.api());
    let page = api
        .post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": [stage("web_scrape", json!({ "url": url }))] }))
        .ok();
    assert_eq!(page["documents"][0]["web_content"]["title"], "A page", "{page}");
    let text = page["documents"][0]["web_content"]["text"].as_str().expect("text");
    assert!(text.contains("a reader wants to read") && !text.contains("menu"), "{text}");
    let away = json!({ "url": format!("http://{}/away", outside.host), "allowed_domains": [outside.host], "on_error": "raise" });
    let away = api.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": stages("api_call", away) }));
    assert!(away.status == 422 && away.body.to_string().contains("allowed_domains"), "{}", away.body);
    let limited = json!({ "url": format!("http://{}/x", outside.host), "allowed_domains": [outside.host], "rate_limit": { "requests_per_minute": 1 }, "on_error": "raise" });
    let body = json!({ "inputs": {}, "stages": stages("api_call", limited) });
    api.post("/v1/retrievers/execute", body.clone()).ok();
    let second = api.post("/v1/retrievers/execute", body);
    assert!(second.status == 429 && second.body.to_string().contains("1 requests a minute"), "{}", second.body);
}

#[test]
fn a_key_that_may_only_read_sends_no_stages_that_reach_outside() {
    let server = Server::start();
    let admin = server.api();
    let api = with_one_document(&admin);
    let email = admin.get("/v1/me").text("/user_email").to_owned();
    let made = admin
        .post(
            &format!("/v1/organizations/users/{email}/api-keys"),
            json!({ "name": "reader", "permissions": ["read"] }),
        )
        .ok();
    let secret = made["key"].as_str().or(made["api_key"].as_str()).expect("a key").to_owned();
    let reader = api.with_key(&secret);
    let call = stages("api_call", json!({ "url": "https://example.com", "allowed_domains": ["example.com"] }));
    assert_eq!(reader.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": call })).status, 403);
    let within = stages("document_enrich", json!({ "retriever_config": { "stages": call }, "output_field": "x" }));
    assert_eq!(reader.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": within })).status, 403);
    let code = stages("code_execution", json!({ "language": "javascript", "code": "return doc.n + 1" }));
    let computed = reader.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": code })).ok();
    assert_eq!(computed["documents"][0]["computed"], 2, "{computed}");
}
