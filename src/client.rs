//! The HTTP client of the command line: one server, one key, one namespace. It speaks the public API and nothing else.

use anyhow::{Context, Result, anyhow, bail};
use reqwest::Method;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one request may be repeated while the server says it is busy.
const BUSY_LIMIT: Duration = Duration::from_secs(180);
/// Longest wait between two tries.
const BUSY_WAIT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// Which server, as whom. Each command that talks to a server takes these.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArguments {
    /// Address of the server
    #[arg(long, env = "STRATA_URL", value_name = "URL", default_value = crate::settings::DEFAULT_URL)]
    pub url: String,
    /// API key [default: the content of `admin.key` in the data directory]
    #[arg(long, env = "STRATA_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Namespace, by id or name [default: the only one there is]
    #[arg(long, short = 'n', env = "STRATA_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Data directory of a server on this machine, to take its `admin.key` from
    #[arg(long, env = "STRATA_DATA", value_name = "DIR", default_value = crate::settings::DEFAULT_DATA)]
    pub data: PathBuf,
}

/// An answer that was not a success.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub message: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (HTTP {})", self.message, self.status)
    }
}
impl std::error::Error for Refusal {}

/// Whether `error` is the server saying that the thing does not exist.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 404)
}

pub struct Client {
    http: reqwest::blocking::Client,
    base: String,
    key: String,
    namespace: Option<String>,
}

impl Client {
    pub fn open(arguments: &ServerArguments) -> Result<Self> {
        let key = match arguments.api_key.as_deref().filter(|key| !key.is_empty()) {
            Some(key) => key.to_owned(),
            None => key_file(&arguments.data)?,
        };
        let base = arguments.url.trim_end_matches('/');
        Ok(Self {
            http: reqwest::blocking::Client::builder()
                .timeout(REQUEST_TIMEOUT)
                .connect_timeout(Duration::from_secs(5))
                .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
                .build()?,
            base: base.strip_suffix("/v1").unwrap_or(base).to_owned(),
            key: key.trim().to_owned(),
            namespace: arguments.namespace.clone().filter(|namespace| !namespace.is_empty()),
        })
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None)
    }
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body))
    }
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, None)
    }

    /// Sends a file to a signed URL.
    pub fn put_file(&self, url: &str, path: &Path) -> Result<()> {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let response = self.http.put(url).body(file).timeout(UPLOAD_TIMEOUT).send().map_err(|e| self.unreachable(e))?;
        match response.status().as_u16() {
            200..300 => Ok(()),
            status => Err(Refusal { status, message: message(&response.text().unwrap_or_default()) }.into()),
        }
    }

    /// One request; `path` starts after `/v1`. A busy server (429, 503 with `Retry-After`) is asked again: what it
    /// refused with those it has not stored.
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let started = Instant::now();
        let mut backoff = Duration::from_millis(500);
        loop {
            let mut request =
                self.http.request(method.clone(), format!("{}/v1{path}", self.base)).bearer_auth(&self.key);
            if let Some(namespace) = &self.namespace {
                request = request.header("X-Namespace", namespace);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().map_err(|error| self.unreachable(error))?;
            let status = response.status().as_u16();
            let asked = response
                .headers()
                .get("retry-after")
                .and_then(|value| value.to_str().ok())
                .and_then(|text| text.parse::<u64>().ok())
                .map(Duration::from_secs);
            let text = response.text().context("the answer ended early")?;
            if (200..300).contains(&status) {
                return match text.as_str() {
                    "" => Ok(Value::Null),
                    text => serde_json::from_str(text).context("the answer is not JSON"),
                };
            }
            let may_repeat = status == 429 || (status == 503 && asked.is_some());
            if may_repeat && started.elapsed() < BUSY_LIMIT {
                std::thread::sleep(asked.unwrap_or(backoff).min(BUSY_WAIT));
                backoff = (backoff * 2).min(BUSY_WAIT);
                continue;
            }
            return Err(Refusal { status, message: message(&text) }.into());
        }
    }

    fn unreachable(&self, error: reqwest::Error) -> anyhow::Error {
        if error.is_connect() {
            return anyhow!(
                "no server answers at {}\n\nhint: start one with `strata serve`, or set STRATA_URL",
                self.base
            );
        }
        anyhow::Error::new(error)
    }

    /// Every row of a listing, page after page, given to `each` until it says stop.
    pub fn list(&self, path: &str, mut each: impl FnMut(Value) -> Result<Go>) -> Result<()> {
        const PAGE: usize = 100;
        let mut cursor: Option<String> = None;
        loop {
            let query = match &cursor {
                None => format!("{path}?page_size={PAGE}"),
                Some(cursor) => format!("{path}?page_size={PAGE}&cursor={}", percent_encode(cursor)),
            };
            let answer = self.post(&query, &serde_json::json!({}))?;
            let Some(rows) = answer.get("results").and_then(Value::as_array) else {
                bail!("the listing at `{path}` has no `results`");
            };
            for row in rows {
                if each(row.clone())? == Go::Stop {
                    return Ok(());
                }
            }
            let next = answer.pointer("/pagination/next_cursor").and_then(Value::as_str).map(str::to_owned);
            if next.is_none() || next == cursor || rows.is_empty() {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The row of a listing whose `name_field` is `name`.
    pub fn find(&self, path: &str, name_field: &str, name: &str) -> Result<Option<Value>> {
        let mut found = None;
        self.list(path, |row| {
            if text(&row, name_field) == Some(name) {
                found = Some(row);
                return Ok(Go::Stop);
            }
            Ok(Go::On)
        })?;
        Ok(found)
    }
}

/// Longest that one file may take on its way.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// The first key of a data directory on this machine.
fn key_file(data: &Path) -> Result<String> {
    let path = data.join("admin.key");
    std::fs::read_to_string(&path).map_err(|error| {
        anyhow!(
            "no API key is set, and `{}` cannot be read: {error}\n\nhint: set STRATA_API_KEY, or STRATA_DATA to the server's data directory",
            path.display()
        )
    })
}

/// Whether a walk over rows goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    On,
    Stop,
}

/// A text field of an answer.
pub fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// A text field that the contract promises.
pub fn expect_text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    text(value, field).ok_or_else(|| anyhow!("the answer has no `{field}`"))
}

/// Escapes everything that is not unreserved in RFC 3986.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The sentence of an error answer.
fn message(text: &str) -> String {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let sentence = parsed.as_ref().and_then(|body| {
        let of_envelope = body.pointer("/error/message").and_then(Value::as_str);
        of_envelope.or_else(|| body.get("detail").and_then(Value::as_str))
    });
    sentence.unwrap_or(text).chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answer_is_read_by_its_envelope_or_shown_as_it_is() {
        assert_eq!(message(r#"{"error":{"message":"no"},"detail":"other"}"#), "no");
        assert_eq!(message(r#"{"detail":"other"}"#), "other");
        assert_eq!(message("bad gateway"), "bad gateway");
    }

    #[test]
    fn a_cursor_survives_the_query() {
        assert_eq!(percent_encode("a/b=c&d é"), "a%2Fb%3Dc%26d%20%C3%A9");
    }
}
