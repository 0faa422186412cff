//! Whoever a webhook tells: an HTTP server that keeps what it was sent and answers as it is told.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event is JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What is answered: a status line's end, such as `200 OK`, and further header lines, each with its `\r\n`.
pub type Answering = dyn Fn(&Received, usize) -> (&'static str, String) + Send + Sync;

pub struct Receiver {
    pub url: String,
    seen: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// One that takes everything.
    pub fn start() -> Self {
        Self::answering(|_, _| ("200 OK", String::new()))
    }

    /// One that answers what `answer` makes of a request and of how many came before.
    pub fn answering(answer: impl Fn(&Received, usize) -> (&'static str, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kept = seen.clone();
        let answer: Arc<Answering> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &kept, &*answer));
            }
        });
        Self { url, seen }
    }

    /// What was sent so far.
    pub fn seen(&self) -> Vec<Received> {
        self.seen.lock().expect("no panic holds it").clone()
    }

    /// The events of a type, as JSON, each once.
    pub fn events(&self, event_type: &str) -> Vec<Value> {
        let mut events: Vec<Value> = Vec::new();
        for event in self.seen().iter().map(Received::json).filter(|event| event["event_type"] == event_type) {
            if events.iter().all(|known| known["event_id"] != event["event_id"]) {
                events.push(event);
            }
        }
        events
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Received>>, answer: &Answering) {
    let mut reader = BufReader::new(stream);
    let (mut lines, mut line) = (Vec::new(), String::new());
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        lines.push(std::mem::take(&mut line).trim_end().to_owned());
    }
    let Some(first) = lines.first() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let pairs = lines.iter().skip(1).filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    // A server that is killed may break off.
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let received = Received { path, headers, body };
    let (status, more) = {
        let mut seen = seen.lock().expect("no panic holds it");
        let answered = answer(&received, seen.len());
        seen.push(received);
        answered
    };
    let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Length: 0\r\n\r\n");
    drop(reader.get_mut().write_all(text.as_bytes()));
}
