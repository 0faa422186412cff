//! One request to a provider: its key in a header, tried again where that may help, within a deadline.

use super::providers::Provider;
use crate::{
    fetch::{Answer, Request},
    hiding::Hidden,
};
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde_json::Value;
use std::time::Duration;
use strata_model::{Error, Result};
use tokio::time::{Instant, sleep, timeout_at};

/// Most requests that one call makes.
const MAX_TRIES: u32 = 6;
/// The first pause between two of them; each that follows is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;
/// Characters of a provider's message that are shown.
const MAX_MESSAGE_CHARS: usize = 400;
/// Seconds after which a caller may try again where the provider does not say.
const RETRY_AFTER_SECONDS: u64 = 15;

/// How long a call may take with everything that it repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Somebody waits for the answer.
    Request,
    /// Work in the background, which can also be done later.
    Background,
}

impl Patience {
    fn deadline(self) -> Instant {
        Instant::now()
            + match self {
                Self::Request => Duration::from_secs(40),
                Self::Background => Duration::from_secs(100),
            }
    }
}

/// What one try came to.
enum Outcome {
    Done(Value),
    /// It may work later; perhaps the provider says when.
    Again(Error, Option<Duration>),
    Failed(Error),
}

impl Provider {
    /// Posts JSON to a path below the provider's address and reads the JSON that it answers. Tried again at 408, 429,
    /// at 5xx and where the connection fails, with pauses that grow, as long as the deadline lets it.
    ///
    /// Errors, none of which shows the key: `Busy` where it asks for less at the end; `Provider` where it fails, refuses
    /// the key or answers no JSON; `Invalid` where it refuses the request; `Unavailable` where it may not be reached.
    pub async fn post(&self, path: &str, key: Option<&str>, body: &Value, patience: Patience) -> Result<Value> {
        let deadline = patience.deadline();
        let hidden = Hidden::of(key);
        let work = self.try_until(path, key, body, deadline, &hidden);
        let outcome = timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(Error::Provider(format!("the provider `{}` did not answer in time", self.name))));
        let label = if outcome.is_ok() { "ok" } else { "failed" };
        metrics::counter!("strata_provider_calls_total", "provider" => self.name.clone(), "outcome" => label)
            .increment(1);
        outcome.map_err(|error| hidden.in_error(error))
    }

    async fn try_until(
        &self,
        path: &str,
        key: Option<&str>,
        body: &Value,
        deadline: Instant,
        hidden: &Hidden,
    ) -> Result<Value> {
        let bytes = serde_json::to_vec(body).map_err(Error::internal)?;
        let _place = self.places.acquire().await.map_err(Error::internal)?;
        let mut pause = FIRST_PAUSE;
        for tried in 1.. {
            let request = Request {
                method: Method::POST,
                url: format!("{}{path}", self.url),
                headers: headers(key)?,
                body: Some(bytes.clone().into()),
                domains: Vec::new(),
                follows: false,
                max_bytes: MAX_ANSWER_BYTES,
                timeout: deadline.saturating_duration_since(Instant::now()),
            };
            let outcome = match self.fetcher.send(request).await {
                Ok(answer) => self.judged(&answer),
                // The operator's setting, not the caller's fault.
                Err(Error::Invalid(_)) => Outcome::Failed(Error::Unavailable(format!(
                    "the provider `{}` lies at a private address; `allow_private` of its settings lets it be reached",
                    self.name
                ))),
                Err(Error::Upstream(message)) => {
                    Outcome::Again(Error::Provider(format!("the provider `{}`: {message}", self.name)), None)
                }
                Err(Error::TooLarge(_)) => {
                    Outcome::Failed(Error::Provider(format!("the provider `{}` answered too much", self.name)))
                }
                Err(other) => Outcome::Failed(other),
            };
            let (error, after) = match outcome {
                Outcome::Done(value) => return Ok(value),
                Outcome::Failed(error) => return Err(error),
                Outcome::Again(error, after) => (error, after),
            };
            let wait = after.unwrap_or(pause).max(pause);
            if tried >= MAX_TRIES || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tracing::debug!(provider = %self.name, tried, error = %hidden.in_text(error.to_string()), "a provider is asked again");
            sleep(wait).await;
            pause *= 2;
        }
        Err(Error::internal("a provider was asked without an end"))
    }

    fn judged(&self, answer: &Answer) -> Outcome {
        let name = &self.name;
        let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if (200..300).contains(&answer.status) {
            let broken = || Error::Provider(format!("the provider `{name}` answered something that is no JSON"));
            return json.map_or_else(|| Outcome::Failed(broken()), Outcome::Done);
        }
        let status = answer.status;
        let said = message(json.as_ref()).map_or(String::new(), |message| format!(": {message}"));
        let after = answer.retry_after;
        match status {
            429 => Outcome::Again(
                Error::Busy {
                    message: format!("the provider `{name}` is asked too much{said}"),
                    retry_after_seconds: after.unwrap_or(RETRY_AFTER_SECONDS).max(1),
                },
                after.map(Duration::from_secs),
            ),
            408 | 500.. => Outcome::Again(
                Error::Provider(format!("the provider `{name}` answered {status}{said}")),
                after.map(Duration::from_secs),
            ),
            401 | 403 => {
                Outcome::Failed(Error::Provider(format!("the provider `{name}` refused the key ({status}){said}")))
            }
            400..500 => Outcome::Failed(Error::invalid(
                "model",
                format!("the provider `{name}` refused the request ({status}){said}"),
            )),
            _ => Outcome::Failed(Error::Provider(format!("the provider `{name}` answered {status}"))),
        }
    }
}

fn headers(key: Option<&str>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    if let Some(key) = key {
        let wrong = |_| Error::Unavailable("the provider's key has characters that no key has; set it anew".to_owned());
        let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(wrong)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// What a provider says of its refusal, shortened.
fn message(body: Option<&Value>) -> Option<String> {
    let body = match body? {
        // Some wrap their answer.
        Value::Array(list) => list.first()?,
        other => other,
    };
    let places = ["/error/message", "/error", "/message", "/detail"];
    let text = places.iter().find_map(|place| body.pointer(place)?.as_str())?.trim();
    let short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
    (!short.is_empty()).then_some(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_provider_says_is_found_where_providers_say_it() {
        let said = |body: Value| message(Some(&body));
        assert_eq!(said(json!({"error": {"message": "no such\nmodel"}})).as_deref(), Some("no such model"));
        assert_eq!(said(json!({"error": "bad"})).as_deref(), Some("bad"));
        assert_eq!(said(json!([{"error": {"message": "wrapped"}}])).as_deref(), Some("wrapped"));
        assert_eq!(said(json!({"detail": "x".repeat(1000)})).map(|m| m.len()), Some(MAX_MESSAGE_CHARS));
        assert_eq!(said(json!({"error": {"code": 1}})), None);
        assert_eq!(message(None), None);
    }

    #[test]
    fn a_key_that_is_no_header_is_refused_without_being_shown() {
        let refused = headers(Some("s3cret\n")).unwrap_err().to_string();
        assert!(!refused.contains("s3cret"), "{refused}");
    }
}
