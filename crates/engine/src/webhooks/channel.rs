//! The channels of a webhook: what is shown of one, and what is sealed.

use crate::{Engine, secrets::Place};
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_model::{Error, Fields, Principal, Result};
use strata_store::catalog::webhooks::Webhook;

/// What stands in answers where something is secret. Sent back, it means what is there.
pub const MASK: &str = "********";
/// Seconds that a receiver has for an answer.
const MIN_SECONDS: f64 = 1.0;
const MAX_SECONDS: f64 = 30.0;
const MAX_HEADERS: usize = 20;
const MAX_HEADER_BYTES: usize = 4 << 10;
const MAX_URL_BYTES: usize = 2 << 10;
const MAX_SECRET_BYTES: usize = 1 << 10;
/// Headers that belong to the connection or to the body.
const OURS: [&str; 7] =
    ["host", "content-length", "content-type", "connection", "transfer-encoding", "te", "user-agent"];
/// What headers begin with that say of the event and its signature.
const HEADER_PREFIX: &str = "x-strata-";

/// A place that events go to.
#[derive(Clone, PartialEq)]
pub struct Channel {
    pub url: String,
    /// Sent along; their values are secret.
    pub headers: BTreeMap<String, String>,
    /// The longest that an answer may take.
    pub timeout_seconds: f64,
    /// What bodies are signed with.
    pub signing_secret: Option<String>,
}

impl Channel {
    /// Whether it can be used at all; the address is judged elsewhere.
    pub(super) fn check(&self) -> Result<()> {
        if self.url.len() > MAX_URL_BYTES {
            return Err(Error::invalid("url", format!("must have at most {MAX_URL_BYTES} bytes")));
        }
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&self.timeout_seconds) {
            return Err(Error::invalid("timeout", format!("must be {MIN_SECONDS} to {MAX_SECONDS} seconds")));
        }
        if self.signing_secret.as_ref().is_some_and(|secret| !(1..=MAX_SECRET_BYTES).contains(&secret.len())) {
            return Err(Error::invalid("signing_secret", format!("must have 1 to {MAX_SECRET_BYTES} bytes")));
        }
        let size: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.headers.len() > MAX_HEADERS || size > MAX_HEADER_BYTES {
            let message = format!("must be at most {MAX_HEADERS} headers with {MAX_HEADER_BYTES} bytes together");
            return Err(Error::invalid("headers", message));
        }
        for (name, value) in &self.headers {
            let lower = name.to_lowercase();
            if OURS.contains(&lower.as_str()) || lower.starts_with(HEADER_PREFIX) {
                return Err(Error::invalid("headers", format!("`{name}` is set by this server")));
            }
            if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                return Err(Error::invalid("headers", format!("`{name}` is not a header, or its value is none")));
            }
        }
        Ok(())
    }
}

/// What is sealed of a channel.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Hidden {
    headers: BTreeMap<String, String>,
    signing_secret: Option<String>,
}

impl Hidden {
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.signing_secret.is_none()
    }
}

/// What may be seen of a channel.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    url: String,
    timeout_seconds: f64,
    header_names: Vec<String>,
    is_signed: bool,
}

/// A channel with its secrets, none of them masked.
#[derive(Clone, PartialEq)]
pub(super) struct Kept {
    seen: Seen,
    hidden: Hidden,
}

impl Kept {
    pub fn shown(&self) -> Value {
        json!(self.seen)
    }

    pub fn url(&self) -> &str {
        &self.seen.url
    }

    pub fn timeout_seconds(&self) -> f64 {
        self.seen.timeout_seconds
    }

    pub fn headers(&self) -> &BTreeMap<String, String> {
        &self.hidden.headers
    }

    pub fn signing_secret(&self) -> Option<&str> {
        self.hidden.signing_secret.as_deref()
    }
}

/// The channels with masks replaced by what `known` has at the same URL, so that a secret goes nowhere else.
pub(super) fn settled(channels: &[Channel], known: &[Kept]) -> Result<Vec<Kept>> {
    let one = |(i, channel): (usize, &Channel)| {
        let there = known.iter().find(|kept| kept.seen.url == channel.url);
        let missing = |what: &str| {
            let message = format!("is `{MASK}`, and nothing is known of it at this URL; say it once more");
            Error::invalid(format!("channels.{i}.configs.{what}"), message)
        };
        let mut headers = BTreeMap::new();
        for (name, value) in &channel.headers {
            let value = match value.as_str() {
                MASK => there.and_then(|kept| kept.hidden.headers.get(name)).ok_or_else(|| missing("headers"))?,
                _ => value,
            };
            headers.insert(name.clone(), value.clone());
        }
        let signing_secret = match channel.signing_secret.as_deref() {
            Some(MASK) => {
                let secret = there.and_then(|kept| kept.hidden.signing_secret.clone());
                Some(secret.ok_or_else(|| missing("signing_secret"))?)
            }
            said => said.map(str::to_owned),
        };
        let seen = Seen {
            url: channel.url.clone(),
            timeout_seconds: channel.timeout_seconds,
            header_names: headers.keys().cloned().collect(),
            is_signed: signing_secret.is_some(),
        };
        Ok(Kept { seen, hidden: Hidden { headers, signing_secret } })
    };
    channels.iter().enumerate().map(one).collect()
}

/// The channels in a webhook's body.
pub(super) fn stored(body: &Fields) -> impl Iterator<Item = Seen> {
    let list = body.get("channels").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|json| serde_json::from_value(json.clone()).ok())
}

/// A channel as answers show it.
pub(super) fn masked(seen: Seen) -> Channel {
    Channel {
        url: seen.url,
        headers: seen.header_names.into_iter().map(|name| (name, MASK.to_owned())).collect(),
        timeout_seconds: seen.timeout_seconds,
        signing_secret: seen.is_signed.then(|| MASK.to_owned()),
    }
}

impl Engine {
    pub(super) async fn sealed_channels(
        &self,
        principal: &Principal,
        webhook_id: &str,
        channels: &[Kept],
    ) -> Result<Option<Vec<u8>>> {
        if channels.iter().all(|kept| kept.hidden.is_empty()) {
            return Ok(None);
        }
        let place = Place::Webhook { organization_id: &principal.organization_id, webhook_id };
        let hidden: Vec<&Hidden> = channels.iter().map(|kept| &kept.hidden).collect();
        let text = serde_json::to_vec(&hidden).map_err(Error::internal)?;
        self.vault.seal(&self.catalog, place, &text).await.map(Some)
    }

    /// The channels of a webhook with their secrets. [`Error::Unavailable`] where this server's key did not seal them.
    pub(super) async fn opened_channels(&self, webhook: &Webhook) -> Result<Vec<Kept>> {
        let seen = stored(&webhook.body);
        let Some(sealed) = &webhook.sealed else {
            return Ok(seen.map(|seen| Kept { seen, hidden: Hidden::default() }).collect());
        };
        let (organization_id, webhook_id) = (&webhook.organization_id, &webhook.webhook_id);
        let place = Place::Webhook { organization_id, webhook_id };
        let opened = self.vault.open(&self.catalog, place, sealed).await?;
        let hidden: Vec<Hidden> = serde_json::from_slice(&opened).map_err(Error::internal)?;
        Ok(seen.zip(hidden).map(|(seen, hidden)| Kept { seen, hidden }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(url: &str, value: &str, secret: Option<&str>) -> Channel {
        Channel {
            url: url.into(),
            headers: BTreeMap::from([("X-Token".to_owned(), value.to_owned())]),
            timeout_seconds: 10.0,
            signing_secret: secret.map(str::to_owned),
        }
    }

    #[test]
    fn a_mask_stands_for_what_is_known_at_the_same_url_and_nowhere_else() {
        let known = settled(&[channel("https://a.example/x", "t0ken", Some("s3cret"))], &[]).unwrap();
        let text = known[0].shown().to_string();
        assert!(!text.contains("t0ken") && !text.contains("s3cret"), "{text}");
        let seen: Seen = serde_json::from_value(known[0].shown()).unwrap();
        let back = masked(seen);
        assert_eq!((back.headers["X-Token"].as_str(), back.signing_secret.as_deref()), (MASK, Some(MASK)));
        assert!(settled(std::slice::from_ref(&back), &known).unwrap() == known);
        let moved = Channel { url: "https://b.example/x".into(), ..back };
        let refused = settled(&[moved], &known).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|error| error.contains("channels.0.configs.headers")));
        let without = settled(&[channel("https://a.example/x", "other", None)], &known).unwrap();
        assert_eq!(without[0].signing_secret(), None);
    }

    #[test]
    fn headers_of_the_server_are_not_the_callers() {
        for name in ["Host", "X-Strata-Signature", "Content-Length", "no header"] {
            let mut wrong = channel("https://a.example", "x", None);
            wrong.headers = BTreeMap::from([(name.to_owned(), "x".to_owned())]);
            assert!(wrong.check().is_err(), "{name}");
        }
        assert!(Channel { timeout_seconds: f64::NAN, ..channel("https://a.example", "x", None) }.check().is_err());
        channel("https://a.example", "x", None).check().unwrap();
    }
}
