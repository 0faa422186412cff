//! `api_call`: what an HTTP API answers for each document.

use super::outside::{self, OnError, Outcome, Secrets};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::backend::{Call, Rate, Reply};
use crate::retrieval::conditions::FilterTemplate;
use crate::retrieval::params::{Params, Setting, choice, count, is_absent, text, value_or};
use crate::retrieval::template::{Dialect, Variables};
use crate::retrieval::view;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use strata_model::{Error, Result, path};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "api_call",
    aliases: &[],
    category: Category::Apply,
    description: "Calls an HTTP API for each document and adds what it answers.",
    icon: "globe",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Calls under way at once.
const PARALLEL: usize = 8;
const MAX_DOMAINS: usize = 100;
const MAX_HEADERS: usize = 50;
/// Default and largest answer, in bytes.
const DEFAULT_BYTES: usize = 10 << 20;
const MAX_BYTES: u64 = 64 << 20;
/// What is told of the body of a refusal, in characters.
const MAX_TOLD_CHARS: usize = 200;
/// Headers that say how a message is sent, not what it says.
const OF_THE_TRANSPORT: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
    "accept-encoding",
];

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["url", "allowed_domains"],
        "properties": {
            "url": {"type": "string", "description": "Takes templates, secrets among them, as `{{DOC.id}}` or `{DOC.id}`; their values are percent-encoded, unless the URL begins with one."},
            "allowed_domains": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "Hosts that may be called, redirects included; `*.example.com` means every subdomain."},
            "method": {"type": "string", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"], "default": "GET"},
            "auth": {
                "type": "object",
                "description": "Credentials of the call, by the name of a secret.",
                "properties": {
                    "type": {"type": "string", "enum": ["none", "api_key", "bearer", "basic", "custom_header"], "default": "none"},
                    "secret_ref": {"type": "string", "description": "Name of the secret; for `basic` its value is `user:password`."},
                    "location": {"type": "string", "enum": ["header", "query"], "default": "header", "description": "Where an API key stands."},
                    "key": {"type": "string", "description": "Name of the header or the query parameter; `X-API-Key` where left out."},
                },
            },
            "headers": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Takes templates, secrets among them."},
            "body": {"description": "Sent as JSON, or as it is where it is text. Takes templates, secrets among them."},
            "output_field": {"type": "string", "default": "api_response"},
            "response_path": {"type": "string", "description": "Dot path of the part of the answer that is kept; all of it where left out."},
            "timeout": {"type": "integer", "minimum": 1, "maximum": 60, "default": 10, "description": "Seconds that one call may take."},
            "max_response_size": {"type": "integer", "minimum": 1024, "default": DEFAULT_BYTES, "description": "Bytes."},
            "rate_limit": {
                "type": "object",
                "description": "Most calls to one host from this namespace; documents beyond it count as failed.",
                "properties": {"requests_per_minute": {"type": "integer", "minimum": 1}, "requests_per_hour": {"type": "integer", "minimum": 1}},
            },
            "when": {"type": "object", "description": "Only documents that satisfy this filter are called for; others pass."},
            "on_error": {"type": "string", "enum": ["skip", "remove", "raise"], "default": "skip", "description": "What becomes of a document whose call failed: it passes as it is, it is left out, or the stage fails."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credentials {
    None,
    KeyInHeader,
    KeyInQuery,
    Bearer,
    Basic,
}

#[derive(Debug)]
struct Auth {
    how: Credentials,
    /// Name of the secret, and where it stands in the retriever.
    secret: (String, String),
    /// Name of the header or the query parameter.
    key: String,
}

#[derive(Debug)]
struct ApiCall {
    url: Setting<String>,
    domains: Vec<String>,
    method: String,
    auth: Option<Auth>,
    headers: Vec<(String, Setting<String>)>,
    body: Option<Setting<Value>>,
    output_field: Option<Setting<String>>,
    response_path: Option<Setting<String>>,
    timeout: Option<Setting<usize>>,
    max_bytes: Option<Setting<usize>>,
    rate: Rate,
    when: Option<FilterTemplate>,
    on_error: OnError,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let url = params.setting_in(Dialect::Url, &["url"], text)?;
    let stage = ApiCall {
        url: url.ok_or_else(|| Error::invalid(params.place("url"), "is required"))?,
        domains: domains(&mut params)?,
        method: params.fixed(&["method"], method)?.unwrap_or_else(|| "GET".into()),
        auth: auth(&mut params)?,
        headers: headers(&mut params)?,
        body: params.setting_in(Dialect::Request, &["body"], |value, _| Ok(value.clone()))?,
        output_field: params.setting(&["output_field", "result_field"], outside::field)?,
        response_path: params.setting(&["response_path"], text)?,
        timeout: params.setting(&["timeout"], count(1..=60))?,
        max_bytes: params.setting(&["max_response_size"], count(1024..=MAX_BYTES))?,
        rate: params.fixed(&["rate_limit"], rate)?.unwrap_or_default(),
        when: params.filter(&["when"])?,
        on_error: params.fixed(&["on_error"], outside::on_error)?.unwrap_or(OnError::Skip),
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn method(value: &Value, at: &str) -> Result<String> {
    let upper = value.as_str().map(|text| Value::from(text.to_uppercase())).unwrap_or_default();
    let known = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"].map(|name| (name, name));
    choice(&upper, at, &known).map(str::to_owned)
}

/// Domains are part of the retriever, so that its inputs cannot send its secrets elsewhere.
fn domains(params: &mut Params<'_>) -> Result<Vec<String>> {
    let place = params.place("allowed_domains");
    let Some((at, value)) = params.take(&["allowed_domains"]) else {
        return Err(Error::invalid(place, "is required: the hosts that may be called"));
    };
    let list = crate::retrieval::params::texts(&value, &at)?;
    if list.is_empty() || list.len() > MAX_DOMAINS {
        return Err(Error::invalid(at, format!("must name 1 to {MAX_DOMAINS} hosts")));
    }
    list.iter().enumerate().map(|(i, domain)| checked_domain(domain, &format!("{at}.{i}"))).collect()
}

fn checked_domain(text: &str, at: &str) -> Result<String> {
    let wrong = || Error::invalid(at, format!("`{text}` is not a host such as `api.example.com` or `*.example.com`"));
    let (wildcard, host) = match text.trim().strip_prefix("*.") {
        Some(host) => ("*.", host),
        None => ("", text.trim()),
    };
    let is_plain = !host.contains(['/', '@', '?', '#', '*', '{', '\\', ' ']);
    let url = url::Url::parse(&format!("http://{host}/")).ok().filter(|_| is_plain).ok_or_else(wrong)?;
    // Spelled as URLs spell it: in lower case, without what other alphabets have.
    let name = url.host_str().filter(|name| !name.is_empty()).ok_or_else(wrong)?.trim_end_matches('.');
    let port = host.rsplit_once(':').filter(|(before, _)| !before.contains(':') || before.ends_with(']'));
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok()).map_or(String::new(), |port| format!(":{port}"));
    Ok(format!("{wildcard}{name}{port}"))
}

fn auth(params: &mut Params<'_>) -> Result<Option<Auth>> {
    let Some((at, value)) = params.take(&["auth"]) else { return Ok(None) };
    let Value::Object(fields) = value else { return Err(Error::invalid(at, "must be an object")) };
    let mut below = params.below(fields, at);
    let known = [
        ("none", Credentials::None),
        ("api_key", Credentials::KeyInHeader),
        ("bearer", Credentials::Bearer),
        ("basic", Credentials::Basic),
        ("custom_header", Credentials::KeyInHeader),
    ];
    let how = match below.take(&["type"]) {
        Some((at, word)) => choice(&word, &at, &known)?,
        None => Credentials::None,
    };
    let in_query = match below.take(&["location"]) {
        Some((at, word)) => choice(&word, &at, &[("header", false), ("query", true), ("query_param", true)])?,
        None => false,
    };
    let key = match below.take(&["key"]) {
        Some((at, word)) => {
            let key = text(&word, &at)?;
            if !in_query {
                checked_header(&key, &at)?;
            }
            key
        }
        None => "X-API-Key".into(),
    };
    let secret = below.take(&["secret_ref"]);
    let place = below.place("secret_ref");
    below.finish();
    if how == Credentials::None {
        return Ok(None);
    }
    let (at, name) = secret.ok_or_else(|| Error::invalid(place, "is required: the name of a secret"))?;
    let name = text(&name, &at)?;
    let how = if how == Credentials::KeyInHeader && in_query { Credentials::KeyInQuery } else { how };
    Ok(Some(Auth { how, secret: (secret_name(&name, &at)?, at), key }))
}

/// The name in `name`, or in `{{secrets.name}}`.
fn secret_name(text: &str, at: &str) -> Result<String> {
    match crate::retrieval::template::Template::parse(text, at, Dialect::Request)? {
        None => Ok(text.to_owned()),
        Some(template) => match template.references() {
            [only] => only.secret().map(str::to_owned),
            _ => None,
        }
        .ok_or_else(|| Error::invalid(at, "must be the name of a secret")),
    }
}

fn headers(params: &mut Params<'_>) -> Result<Vec<(String, Setting<String>)>> {
    let Some((at, value)) = params.take(&["headers"]) else { return Ok(Vec::new()) };
    let Value::Object(fields) = value else { return Err(Error::invalid(at, "must be an object of names to texts")) };
    if fields.len() > MAX_HEADERS {
        return Err(Error::invalid(at, format!("must have at most {MAX_HEADERS} headers")));
    }
    let names: Vec<String> = fields.iter().filter(|(_, v)| !is_absent(v)).map(|(name, _)| name.clone()).collect();
    let mut below = params.below(fields, at.clone());
    let mut headers = Vec::with_capacity(names.len());
    for name in names {
        checked_header(&name, &format!("{at}.{name}"))?;
        if let Some(setting) = below.setting_in(Dialect::Request, &[&name], header_value)? {
            headers.push((name, setting));
        }
    }
    Ok(headers)
}

fn checked_header(name: &str, at: &str) -> Result<()> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 100 || !name.bytes().all(is_token) {
        return Err(Error::invalid(at, "is not the name of a header"));
    }
    if OF_THE_TRANSPORT.contains(&name.to_lowercase().as_str()) {
        return Err(Error::invalid(at, "is a header that this server sets itself"));
    }
    Ok(())
}

fn header_value(value: &Value, at: &str) -> Result<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return Err(Error::invalid(at, "must be a string")),
    };
    if text.len() > 8 << 10 || text.chars().any(char::is_control) {
        return Err(Error::invalid(at, "must be one line of at most 8192 bytes"));
    }
    Ok(text)
}

fn rate(value: &Value, at: &str) -> Result<Rate> {
    let Value::Object(fields) = value else { return Err(Error::invalid(at, "must be an object")) };
    let bound = |name: &str| match fields.get(name).filter(|v| !is_absent(v)) {
        Some(value) => count(1..=1_000_000)(value, &format!("{at}.{name}")).map(|n| Some(n as u64)),
        None => Ok(None),
    };
    Ok(Rate { per_minute: bound("requests_per_minute")?, per_hour: bound("requests_per_hour")? })
}

impl Stage for ApiCall {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let output = value_or(self.output_field.as_ref(), run.variables, "api_response".to_owned())?;
            let part = match &self.response_path {
                Some(path) => path.value(run.variables)?,
                None => None,
            };
            let hits = run.read(set).await?;
            let mut secrets = Secrets::open(run, &self.secrets()).await?;
            if let Some(Auth { how: Credentials::Basic, secret, .. }) = &self.auth {
                let encoded = secrets.values.get(&secret.0).map(|pair| STANDARD.encode(pair)).unwrap_or_default();
                secrets.hide(&encoded);
            }
            let variables = run.variables.with_secrets(&secrets.values);
            let meant = outside::meant(run, &hits, self.when.as_ref())?;
            let calls = hits.iter().zip(meant).map(|(hit, is_meant)| {
                is_meant.then(|| self.call(&variables.with_doc(&view::field_view(hit)), &secrets))
            });
            let calls: Vec<Option<Result<Call>>> = calls.collect();
            let (backend, part) = (run.backend, part.as_deref());
            let ask = |call: Result<Call>| async move {
                match call {
                    Ok(call) => Outcome::from(backend.call(call).await.and_then(|reply| kept(reply, part))),
                    Err(error) => Outcome::Failed(error),
                }
            };
            let outcomes = outside::ask_each(calls, PARALLEL, self.on_error, ask).await;
            let hits = outside::settle(run, hits, outcomes, &output, self.on_error, &secrets)?;
            Ok(WorkingSet::Read(hits))
        })
    }

    fn secrets(&self) -> Vec<(String, String)> {
        let of = |setting: &Setting<_>| -> Vec<(String, String)> {
            setting.secrets().into_iter().map(|name| (name, setting.at().to_owned())).collect()
        };
        let mut secrets = of(&self.url);
        secrets.extend(self.headers.iter().flat_map(|(_, value)| of(value)));
        if let Some(body) = &self.body {
            secrets.extend(body.secrets().into_iter().map(|name| (name, body.at().to_owned())));
        }
        secrets.extend(self.auth.iter().map(|auth| auth.secret.clone()));
        secrets
    }

    fn reaches_outside(&self) -> bool {
        true
    }
}

impl ApiCall {
    fn call(&self, variables: &Variables, secrets: &Secrets) -> Result<Call> {
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        for (name, value) in &self.headers {
            headers.push((name.clone(), value.needed(variables)?));
        }
        let mut url = self.url.needed(variables)?;
        if let Some(auth) = &self.auth {
            let secret = secrets.values.get(&auth.secret.0).cloned().unwrap_or_default();
            match auth.how {
                Credentials::None => {}
                Credentials::KeyInHeader => headers.push((auth.key.clone(), secret)),
                Credentials::Bearer => headers.push(("Authorization".into(), format!("Bearer {secret}"))),
                Credentials::Basic => {
                    headers.push(("Authorization".into(), format!("Basic {}", STANDARD.encode(secret))))
                }
                Credentials::KeyInQuery => url = with_query(&url, self.url.at(), &auth.key, &secret)?,
            }
        }
        let is_set =
            |headers: &[(String, String)], name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
        let body = match &self.body {
            None => None,
            Some(body) => match body.needed(variables)? {
                Value::String(text) => Some(text.into_bytes()),
                json => {
                    if !is_set(&headers, "content-type") {
                        headers.push(("Content-Type".into(), "application/json".into()));
                    }
                    Some(json.to_string().into_bytes())
                }
            },
        };
        let seconds = value_or(self.timeout.as_ref(), variables, 10)?;
        Ok(Call {
            method: self.method.clone(),
            url,
            headers,
            body,
            domains: self.domains.clone(),
            max_bytes: value_or(self.max_bytes.as_ref(), variables, DEFAULT_BYTES)? as u64,
            timeout: Duration::from_secs(seconds as u64),
            rate: self.rate,
        })
    }
}

fn with_query(url: &str, at: &str, key: &str, value: &str) -> Result<String> {
    let mut url = url::Url::parse(url).map_err(|error| Error::invalid(at, format!("is no URL: {error}")))?;
    url.query_pairs_mut().append_pair(key, value);
    Ok(url.into())
}

/// The part of an answer that is kept: JSON as such, everything else as text.
fn kept(reply: Reply, part: Option<&str>) -> Result<Value> {
    let text = String::from_utf8_lossy(&reply.body);
    if !(200..300).contains(&reply.status) {
        let told: String = text.chars().take(MAX_TOLD_CHARS).collect();
        return Err(Error::Upstream(format!("`{}` answered {}: {told}", reply.url, reply.status)));
    }
    let is_json = reply.media_type.as_deref().is_some_and(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    let whole = match serde_json::from_str::<Value>(&text) {
        Ok(value) if is_json || value.is_object() || value.is_array() => value,
        Err(error) if is_json && !text.is_empty() => {
            return Err(Error::Upstream(format!("`{}` answered what is no JSON: {error}", reply.url)));
        }
        _ if text.is_empty() => Value::Null,
        _ => text.into_owned().into(),
    };
    match part {
        None => Ok(whole),
        Some(part) => path::get(&whole, part.trim_start_matches("$."))
            .cloned()
            .ok_or_else(|| Error::Upstream(format!("the answer of `{}` has nothing at `{part}`", reply.url))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_hosts() {
        for (text, spelled) in [
            ("API.example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("example.com:80", "example.com:80"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("[::1]:9", "[::1]:9"),
        ] {
            assert_eq!(checked_domain(text, "at").unwrap(), spelled);
        }
        for wrong in ["", "*", "*.*", "https://a.b", "a.b/c", "user@a.b", "a b", "{{INPUT.host}}"] {
            assert!(checked_domain(wrong, "at").is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_json_or_text() {
        let reply = |kind: &str, body: &str| Reply {
            status: 200,
            url: "http://h/".into(),
            media_type: Some(kind.into()),
            charset: None,
            body: body.as_bytes().to_vec(),
            retry_after: None,
        };
        assert_eq!(kept(reply("application/json", "3"), None).unwrap(), json!(3));
        assert_eq!(kept(reply("text/plain", "3"), None).unwrap(), json!("3"));
        assert_eq!(kept(reply("text/plain", "{\"a\": [1, 2]}"), Some("a.1")).unwrap(), json!(2));
        assert_eq!(kept(reply("application/json", "{\"a\": [1]}"), Some("$.a.0")).unwrap(), json!(1));
        assert_eq!(kept(reply("application/json", ""), None).unwrap(), Value::Null);
        assert!(kept(reply("application/json", "{"), None).unwrap_err().to_string().contains("no JSON"));
        assert!(kept(reply("application/json", "{}"), Some("a")).unwrap_err().to_string().contains("nothing at `a`"));
        let refused = Reply { status: 404, ..reply("text/plain", "not here") };
        assert!(kept(refused, None).unwrap_err().to_string().contains("answered 404: not here"));
    }
}
