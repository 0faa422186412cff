//! The two ways to the server: plain HTTP, and the official SDK in a Python process beside the test.

use reqwest::{Url, blocking::Client};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// A request, complete.
#[derive(Debug, Default, Serialize)]
pub struct Request {
    pub method: String,
    /// The path with its parameters in braces.
    pub template: String,
    pub path: BTreeMap<String, String>,
    pub query: Map<String, Value>,
    pub headers: BTreeMap<String, String>,
    pub body: Option<Value>,
    /// Instead of all that: a URL to read without a key.
    pub fetch: Option<String>,
    /// Whether the SDK is passed by.
    pub raw: bool,
}

#[derive(Debug, Deserialize)]
pub struct Answer {
    pub status: u16,
    /// Text where it is no JSON.
    pub body: Value,
    /// What kept the SDK from sending the request or from reading the answer.
    pub problem: Option<String>,
}

pub trait Transport {
    fn send(&mut self, request: &Request) -> Answer;
}

impl Request {
    fn url(&self, base: &str) -> Url {
        if let Some(url) = &self.fetch {
            return Url::parse(url).unwrap_or_else(|error| panic!("`{url}`: {error}"));
        }
        let mut url = Url::parse(base).expect("the server's URL");
        let segments = self.template.split('/').skip(1).map(|segment| {
            let name = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            name.map_or(segment, |name| self.path[name].as_str())
        });
        url.path_segments_mut().expect("the server's URL has a path").clear().extend(segments);
        for (name, value) in &self.query {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                url.query_pairs_mut().append_pair(name, &text);
            }
        }
        url
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url("http://server");
        let method = if self.fetch.is_some() { "GET" } else { &self.method };
        write!(f, "{method} {}", url.as_str().trim_start_matches("http://server"))?;
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " {body}"))
    }
}

pub struct Http {
    client: Client,
    url: String,
    key: String,
}

impl Http {
    pub fn new(url: &str, key: &str) -> Self {
        let client = Client::builder().timeout(Duration::from_secs(60)).build().expect("an HTTP client");
        Self { client, url: url.to_owned(), key: key.to_owned() }
    }

    fn try_send(&self, request: &Request) -> reqwest::Result<Answer> {
        let url = request.url(&self.url);
        let mut sent = match request.fetch {
            Some(_) => self.client.get(url),
            None => self.client.request(request.method.parse().expect("a method"), url).bearer_auth(&self.key),
        };
        for (name, value) in &request.headers {
            sent = sent.header(name, value);
        }
        if let Some(body) = &request.body {
            sent = sent.json(body);
        }
        let response = sent.send()?;
        let status = response.status().as_u16();
        let text = response.text()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(Answer { status, body, problem: None })
    }
}

impl Transport for Http {
    fn send(&mut self, request: &Request) -> Answer {
        let failed = |error: reqwest::Error| Answer { status: 0, body: Value::Null, problem: Some(error.to_string()) };
        self.try_send(request).unwrap_or_else(failed)
    }
}

/// `scenarios.py`: takes a request a line, and gives an answer a line.
pub struct Sdk {
    process: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Sdk {
    pub fn start(python: &str, url: &str, key: &str) -> Self {
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/contract/scenarios.py"))
            .args([url, key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("STRATA_TEST_PYTHON is a program");
        let requests = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("stdout is piped"));
        Self { process, requests, answers }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("scenarios.py writes text");
        line
    }
}

impl Transport for Sdk {
    fn send(&mut self, request: &Request) -> Answer {
        let line = serde_json::to_string(request).expect("a request is JSON");
        let mut requests = self.requests.as_ref().expect("open until the end");
        writeln!(requests, "{line}").expect("scenarios.py reads requests");
        let answer = self.line();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("scenarios.py answered `{answer}`: {error}"))
    }
}

impl Drop for Sdk {
    /// Its last line says what went through the SDK and what did not.
    fn drop(&mut self) {
        drop(self.requests.take());
        println!("{}", self.line().trim_end());
        let _ = self.process.wait();
    }
}
