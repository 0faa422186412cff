//! A provider of models that is none: it speaks OpenAI's protocol, embeds by counting words, tells the shapes of
//! pictures, and fails on demand.

use super::jpeg_size;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Length of the vectors of the model `words`.
pub const DIMENSIONS: usize = 16;

/// What it was asked, in order: path, `Authorization`, body.
type Seen = Arc<Mutex<Vec<(String, String, Value)>>>;

pub struct Provider {
    pub url: String,
    seen: Seen,
}

impl Provider {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let seen = Seen::default();
        let kept = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = kept.clone();
                std::thread::spawn(move || answer(stream, &kept));
            }
        });
        Self { url, seen }
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<(String, String, Value)> {
        self.seen.lock().expect("no panic holds it").clone()
    }
}

fn answer(stream: TcpStream, seen: &Seen) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        head.push_str(&std::mem::take(&mut line));
    }
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the whole body comes");
    let body: Value = serde_json::from_slice(&body).expect("the body is JSON");
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let key = header("authorization").unwrap_or_default();
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let before = {
        let mut seen = seen.lock().expect("no panic holds it");
        let before = seen.iter().filter(|(.., earlier)| earlier["model"] == model.as_str()).count();
        seen.push((path.clone(), key.clone(), body.clone()));
        before
    };
    let (status, more, text) = respond(&path, &key, &model, &body, before);
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n{more}Content-Length: {}\r\n\r\n{text}",
        text.len()
    );
    drop(reader.get_mut().write_all(text.as_bytes()));
}

/// Status, further headers and body; `before` counts what was asked of the model earlier.
fn respond(path: &str, key: &str, model: &str, body: &Value, before: usize) -> (&'static str, &'static str, String) {
    let said = |message: String| json!({ "error": { "message": message } }).to_string();
    match model {
        "busy-twice" if before < 2 => return ("429 Too Many Requests", "Retry-After: 0\r\n", said("slow down".into())),
        "always-busy" => return ("429 Too Many Requests", "Retry-After: 77\r\n", said("slow down".into())),
        "broken" => return ("200 OK", "", "<html>not JSON</html>".into()),
        "failing-once" if before < 1 => return ("503 Service Unavailable", "", said("starting".into())),
        "refusing" => return ("401 Unauthorized", "", said(format!("wrong key: {key}"))),
        "unknown" => return ("404 Not Found", "", said(format!("no model `{model}` for {key}"))),
        "picky" if shapes(body).first().is_some_and(|(width, height)| width > height) => {
            return ("400 Bad Request", "", said("wide pictures are not looked at".into()));
        }
        "away" => return ("302 Found", "Location: http://169.254.169.254/latest\r\n", String::new()),
        _ => {}
    }
    match path {
        "/v1/embeddings" => ("200 OK", "", embeddings(model, body).to_string()),
        "/v1/chat/completions" => ("200 OK", "", completion(body).to_string()),
        other => ("404 Not Found", "", said(format!("no `{other}` here"))),
    }
}

fn embeddings(model: &str, body: &Value) -> Value {
    let texts: Vec<&str> = body["input"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let kept = if model == "too-few" { &texts[..texts.len().saturating_sub(1)] } else { &texts[..] };
    let size = if model == "too-short" { DIMENSIONS - 1 } else { DIMENSIONS };
    let rows = kept.iter().enumerate().map(|(i, text)| json!({ "index": i, "embedding": counted(text, size) }));
    // Not in order, as the protocol allows.
    let rows: Vec<Value> = rows.rev().collect();
    let words: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
    json!({ "data": rows, "usage": { "prompt_tokens": words, "total_tokens": words } })
}

/// Counts of words, each in the place that its letters choose.
fn counted(text: &str, size: usize) -> Vec<f32> {
    let mut counts = vec![0.01; size];
    for word in text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let place = word.bytes().fold(7usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        counts[place % size] += 1.0;
    }
    counts
}

/// The JPEGs in the last message of a request.
pub fn pictures(body: &Value) -> Vec<Vec<u8>> {
    let last = body["messages"].as_array().and_then(|messages| messages.last()).cloned().unwrap_or_default();
    let urls = last["content"].as_array().into_iter().flatten().filter_map(|part| part["image_url"]["url"].as_str());
    let decoded = urls.map(|url| {
        let base64 = url.strip_prefix("data:image/jpeg;base64,").expect("the URI of a JPEG");
        STANDARD.decode(base64).expect("base64")
    });
    decoded.collect()
}

/// Their widths and heights.
fn shapes(body: &Value) -> Vec<(u16, u16)> {
    pictures(body).iter().map(|jpeg| jpeg_size(jpeg)).collect()
}

/// What a model with eyes writes: that depends on what it is shown.
fn looked(body: &Value) -> String {
    let shapes = shapes(body);
    let seen = match shapes.first() {
        None => "Nothing is to be seen.",
        Some((width, height)) if width > height => "A wide landscape with mountains and a lake.",
        Some(_) => "A tall portrait of somebody who plays the violin.",
    };
    if body["response_format"].is_null() {
        return seen.to_owned();
    }
    let widest = shapes.iter().map(|(width, _)| width).max();
    json!({ "pictures": shapes.len(), "widest": widest, "start_time": -1, "empty": null }).to_string()
}

fn completion(body: &Value) -> Value {
    let last = body["messages"].as_array().and_then(|messages| messages.last()).cloned().unwrap_or_default();
    let text = last["content"].as_str().map_or_else(|| last["content"][0]["text"].to_string(), str::to_owned);
    let content = match body["response_format"]["type"].as_str() {
        _ if matches!(body["model"].as_str(), Some("looker" | "picky")) => looked(body),
        Some(_) => {
            json!({ "words": text.split_whitespace().count(), "text": "not the text", "none": null }).to_string()
        }
        None => format!("you said: {text}"),
    };
    json!({
        "choices": [{ "message": { "role": "assistant", "content": content }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 },
    })
}
