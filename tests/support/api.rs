//! A JSON client that never hides a status.

use reqwest::blocking::{Body, Client, Response};
use serde_json::Value;
use std::time::Duration;

#[derive(Clone)]
pub struct Api {
    http: Client,
    url: String,
    key: Option<String>,
    namespace: Option<String>,
}

/// Status and body of an answer. A body that is no JSON is a JSON text here.
#[derive(Debug, Clone)]
pub struct Answer {
    pub request: String,
    pub status: u16,
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} answered {}: {}", self.request, self.status, self.body);
        self.body
    }

    /// A text field of the body.
    #[track_caller]
    pub fn text(&self, pointer: &str) -> &str {
        let found = self.body.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("{} answered {} without `{pointer}`: {}", self.request, self.status, self.body))
    }
}

impl Api {
    pub fn new(url: &str, key: &str) -> Self {
        // The certificate of the tests is signed by nobody.
        let http = Client::builder().timeout(Duration::from_secs(60)).danger_accept_invalid_certs(true);
        let http = http.build().expect("an HTTP client");
        Self { http, url: url.to_owned(), key: Some(key.to_owned()), namespace: None }
    }
    pub fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }
    pub fn without_key(&self) -> Self {
        Self { key: None, ..self.clone() }
    }
    /// The same caller at another address: that of a server which was started again.
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }
    pub fn within(&self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None)
    }
    #[track_caller]
    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(&body))
    }
    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None)
    }
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Api::send`], for a server that may be gone.
    pub fn try_send(&self, method: &str, path: &str, body: Option<&Value>) -> reqwest::Result<Answer> {
        match body {
            Some(body) => self.try_send_bytes(method, path, "application/json", body.to_string().into()),
            None => self.finish(method, path, self.request(method, path)),
        }
    }

    /// Any bytes under any content type.
    pub fn try_send_bytes(&self, method: &str, path: &str, content_type: &str, body: Body) -> reqwest::Result<Answer> {
        self.finish(method, path, self.request(method, path).header("content-type", content_type).body(body))
    }

    /// The response itself, to a request with further headers.
    #[track_caller]
    pub fn respond(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        let mut request = self.request(method, path).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn request(&self, method: &str, path: &str) -> reqwest::blocking::RequestBuilder {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("X-Namespace", namespace);
        }
        request
    }

    fn finish(&self, method: &str, path: &str, request: reqwest::blocking::RequestBuilder) -> reqwest::Result<Answer> {
        let response: Response = request.send()?;
        let status = response.status().as_u16();
        let text = response.text()?;
        let body = match text.as_str() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        Ok(Answer { request: format!("{method} {path}"), status, body })
    }

    /// Every row of a listing, page after page.
    #[track_caller]
    pub fn list(&self, path: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let query = cursor.as_ref().map_or(String::new(), |cursor| format!("&cursor={}", escape(cursor)));
            let mark = if path.contains('?') { '&' } else { '?' };
            let answer = self.post(&format!("{path}{mark}page_size=100{query}"), serde_json::json!({})).ok();
            let page = answer["results"].as_array().expect("a listing has `results`").clone();
            let is_empty = page.is_empty();
            rows.extend(page);
            let next = answer.pointer("/pagination/next_cursor").and_then(Value::as_str).map(str::to_owned);
            if next.is_none() || is_empty {
                return rows;
            }
            assert_ne!(next, cursor, "the cursor of {path} goes on");
            cursor = next;
        }
    }
}

/// Escapes a query value.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
