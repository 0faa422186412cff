//! What comes with every answer, and TLS.

use crate::support::{KEY, Server};
use reqwest::blocking::{Client, Response};

fn get(url: &str) -> Response {
    let client = Client::builder().danger_accept_invalid_certs(true).build().expect("an HTTP client");
    client.get(url).bearer_auth(KEY).send().expect("the server answers")
}

#[test]
fn answers_tell_browsers_to_be_careful() {
    let server = Server::start();
    for path in ["/v1/me", "/v1/nothing", "/docs/", "/openapi.json", "/metrics"] {
        let answer = get(&format!("{}{path}", server.url()));
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(header("strict-transport-security"), "", "without TLS nothing is promised: {path}");
    }
    let docs = get(&format!("{}/docs/", server.url()));
    let policy = docs.headers()["content-security-policy"].to_str().expect("text");
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe-eval"), "{policy}");
}

#[test]
fn https_is_served_with_a_certificate_and_its_key() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("a UTF-8 path").to_owned()
    };
    let certificate = file("certificate.pem", include_str!("../../support/tls/certificate.pem"));
    let key = file("key.pem", include_str!("../../support/tls/key.pem"));
    let server = Server::start_with(&["--tls-cert", &certificate, "--tls-key", &key]);
    assert!(server.url().starts_with("https://"), "{}", server.url());
    let answer = get(&format!("{}/v1/me", server.url()));
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("strict-transport-security"));
    let plain = server.url().replace("https://", "http://");
    assert!(Client::new().get(format!("{plain}/v1/health")).send().is_err(), "nothing is served without TLS");
    assert_eq!(get(&format!("{}/v1/health", server.url())).status(), 200, "and others are served after that");
}
