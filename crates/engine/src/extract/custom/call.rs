//! Requests to the processes that custom extractors run in. While one request is under way, the inputs that come meanwhile
//! wait together for the next.

use super::description::Description;
use crate::fetch::{Fetcher, Request};
use parking_lot::Mutex;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use strata_model::{Error, Fields, Result};
use tokio::sync::{Semaphore, oneshot};

/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 << 20;
/// Largest description, in bytes, and the longest time for it.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Characters of a refusal that are shown.
const MAX_MESSAGE_CHARS: usize = 400;

/// Where a custom extractor listens: `http://host:port`, `https://…`, or `unix:/path/of/a/socket`.
pub struct Endpoint {
    /// As it was written, without a slash at the end.
    written: String,
    base: String,
    fetcher: Fetcher,
}

impl Endpoint {
    pub fn parse(text: &str) -> Result<Self> {
        let written = text.trim().trim_end_matches('/').to_owned();
        let (base, socket) = match written.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => ("http://localhost".to_owned(), Some(PathBuf::from(path))),
            None if written.starts_with("http://") || written.starts_with("https://") => (written.clone(), None),
            _ => {
                let message = format!("`{text}` is neither `http://host:port` nor `unix:/path/of/a/socket`");
                return Err(Error::invalid("endpoint", message));
            }
        };
        Ok(Self { written, base, fetcher: Fetcher::to_neighbour(socket.as_deref())? })
    }

    /// What the process says of itself.
    pub async fn describe(&self) -> Result<Description> {
        let request = self.request(Method::GET, "/describe", None, MAX_DESCRIPTION_BYTES, DESCRIBE_TIMEOUT);
        self.ask(request).await
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>, max_bytes: u64, timeout: Duration) -> Request {
        let json = HeaderValue::from_static("application/json");
        Request {
            method,
            url: format!("{}{path}", self.base),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, json)]),
            body: body.map(Into::into),
            domains: Vec::new(),
            follows: false,
            max_bytes,
            timeout,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let written = &self.written;
        let answer = self.fetcher.send(request).await.map_err(|error| match error {
            Error::TooLarge(_) => Error::Invalid(vec![strata_model::FieldError::new(
                "extractor",
                format!("`{written}` answered more than can be taken"),
            )]),
            other => Error::Upstream(format!("the extractor at `{written}` does not answer: {other}")),
        })?;
        let said = || {
            let text: String = String::from_utf8_lossy(&answer.body).chars().take(MAX_MESSAGE_CHARS).collect();
            format!("the extractor at `{written}` answered {}: {text}", answer.status)
        };
        match answer.status {
            200..300 => serde_json::from_slice(&answer.body).map_err(|error| {
                Error::invalid(
                    "extractor",
                    format!("`{written}` answered something that is not the protocol's: {error}"),
                )
            }),
            408 | 429 | 500.. => Err(Error::Upstream(said())),
            _ => Err(Error::invalid("extractor", said())),
        }
    }
}

/// One input on its way.
struct Waiting {
    item: Value,
    told: oneshot::Sender<Result<Vec<Made>>>,
}

/// A document as the other process makes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Made {
    #[serde(default)]
    pub fields: Fields,
    /// By name.
    #[serde(default)]
    pub vectors: Fields,
    #[serde(default)]
    pub artifacts: Vec<MadeArtifact>,
    #[serde(default)]
    pub key: Option<String>,
}

/// A file beside a document.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MadeArtifact {
    pub field: String,
    pub base64: String,
    #[serde(default)]
    pub filename: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    fingerprint: String,
    outputs: Vec<Told>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    Documents { documents: Vec<Made> },
    Failed { error: String },
}

/// The inputs that wait for one extractor.
pub(crate) struct Caller {
    endpoint: Endpoint,
    description: Description,
    waiting: Mutex<Vec<Waiting>>,
    /// One request at a time.
    turn: Semaphore,
}

impl Caller {
    pub fn new(endpoint: Endpoint, description: Description) -> Self {
        Self { endpoint, description, waiting: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// Whether it asks the same process for the same work.
    pub fn is_for(&self, endpoint: &str, description: &Description) -> bool {
        self.endpoint.written == endpoint && self.description == *description
    }

    /// The documents of one input.
    ///
    /// Errors: `Upstream` where the process does not answer or is in trouble, which may be tried again; `Invalid` where it
    /// refuses the input, or answers what is not the protocol's or under another fingerprint.
    pub(super) async fn make(&self, item: Value) -> Result<Vec<Made>> {
        let (told, mut answer) = oneshot::channel();
        self.waiting.lock().push(Waiting { item, told });
        // Whoever waits also waits for a turn, and each turn takes the first of those that wait: none is left.
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = self.take_turn() => answer.await,
        };
        answer.map_err(|_| Error::Upstream("the extractor's answer was lost".into()))?
    }

    async fn take_turn(&self) {
        let Ok(_turn) = self.turn.acquire().await else { return };
        let batch: Vec<Waiting> = {
            let mut waiting = self.waiting.lock();
            let count = waiting.len().min(self.description.max_batch);
            waiting.drain(..count).collect()
        };
        if batch.is_empty() {
            return;
        }
        let (items, told): (Vec<Value>, Vec<_>) = batch.into_iter().map(|one| (one.item, one.told)).unzip();
        let outcomes = self.send(items).await;
        // Whoever does not wait any more is not told.
        match outcomes {
            Ok(outcomes) => told.into_iter().zip(outcomes).for_each(|(told, outcome)| drop(told.send(outcome))),
            Err(error) => told.into_iter().for_each(|told| drop(told.send(Err(again(&error))))),
        }
    }

    async fn send(&self, items: Vec<Value>) -> Result<Vec<Result<Vec<Made>>>> {
        let count = items.len();
        let description = &self.description;
        let body = json!({
            "protocol": description.protocol,
            "extractor": description.name,
            "version": description.version,
            "inputs": items,
        });
        let body = serde_json::to_vec(&body).map_err(Error::internal)?;
        let timeout = Duration::from_secs(description.timeout_seconds);
        let request = self.endpoint.request(Method::POST, "/extract", Some(body), MAX_ANSWER_BYTES, timeout);
        let answer: Answer = self.endpoint.ask(request).await?;
        let wrong = |what: String| Error::invalid("extractor", what);
        if answer.fingerprint != description.fingerprint {
            return Err(wrong(format!(
                "`{}` works with fingerprint `{}`, and `{}` was registered; register it again",
                self.endpoint.written, answer.fingerprint, description.fingerprint
            )));
        }
        if answer.outputs.len() != count {
            let said = answer.outputs.len();
            return Err(wrong(format!("`{}` answered {said} outputs to {count} inputs", self.endpoint.written)));
        }
        let one = |told| match told {
            Told::Documents { documents } => Ok(documents),
            Told::Failed { error } => Err(wrong(error.chars().take(MAX_MESSAGE_CHARS).collect())),
        };
        Ok(answer.outputs.into_iter().map(one).collect())
    }
}

/// The same error for another of those that waited together.
fn again(error: &Error) -> Error {
    match error {
        Error::Invalid(fields) => Error::Invalid(fields.clone()),
        other => Error::Upstream(other.to_string()),
    }
}
