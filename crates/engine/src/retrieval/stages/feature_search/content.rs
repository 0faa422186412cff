//! Content as a query: bytes that stand in the request, or that lie at a URL. A picture or a recording is searched with as it
//! is; of anything else the text, of a page the readable part.

use super::super::Run;
use super::query::Query;
use crate::inline;
use crate::retrieval::backend::{Call, Media, Reply};
use crate::retrieval::params::is_absent;
use crate::web::page::{self, Wanted};
use serde_json::Value;
use std::time::Duration;
use strata_media::Family;
use strata_model::{Error, Fields, Result};

/// Largest content that is fetched, in bytes.
const MAX_BYTES: u64 = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Content {
    at: String,
    source: Source,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Url(String),
    Here { bytes: Vec<u8>, media_type: Option<String> },
}

impl Content {
    /// Reads the content of a query: `value`, or the older `content` with `url` or `base64`; `None` where all are empty.
    pub fn read(query: &Fields, at: &str) -> Result<Option<Self>> {
        let given = |fields: &Fields, at: &str| {
            let names = ["value", "content", "url", "base64", "image"];
            let present = |name: &&str| fields.get(*name).filter(|value| !is_absent(value)).cloned();
            names.iter().find_map(|name| Some((format!("{at}.{name}"), present(name)?)))
        };
        let found = match given(query, at) {
            Some((at, Value::Object(inner))) => given(&inner, &at),
            found => found,
        };
        let Some((at, value)) = found else { return Ok(None) };
        let Value::String(text) = value else { return Err(Error::invalid(at, "must be a text")) };
        let text = text.trim();
        let source = if text.is_empty() {
            return Ok(None);
        } else if text.starts_with("data:") {
            let (bytes, media_type) = inline::data_uri(text, &at)?;
            Source::Here { bytes, media_type }
        } else if inline::is_url(text) {
            Source::Url(text.to_owned())
        } else {
            let bytes = inline::base64(text).filter(|bytes| !bytes.is_empty());
            let bytes = bytes.ok_or_else(|| Error::invalid(&*at, "must be a data URI, an HTTP URL or base64"))?;
            Source::Here { bytes, media_type: None }
        };
        Ok(Some(Self { at, source }))
    }

    /// What to search with.
    ///
    /// Errors: `Invalid` where it is nothing that can be searched with, `Upstream` where it cannot be fetched.
    pub async fn look(self, run: &Run<'_>) -> Result<Query> {
        let Self { at, source } = self;
        let reply = match source {
            Source::Url(url) => fetched(run, url).await?,
            Source::Here { bytes, media_type } => Reply {
                status: 200,
                url: "the content".to_owned(),
                media_type: Some(media_type.unwrap_or_else(|| guessed(&bytes))),
                charset: None,
                body: bytes,
                retry_after: None,
            },
        };
        let family = strata_media::detect(&reply.body, reply.body.len() as u64).family();
        if matches!(family, Family::Image | Family::Audio | Family::Video) {
            let hash = strata_model::id::sha256_hex(&reply.body);
            return Ok(Query::Media(Media { family, bytes: reply.body.into(), hash }));
        }
        let wanted = Wanted { min_chars: page::READABLE_CHARS, ..Wanted::default() };
        let reading = tokio::task::spawn_blocking(move || page::read(&reply.url, &reply, wanted));
        // A reader that panics has met a page that it cannot read.
        let page = reading.await.map_err(|_| Error::invalid(&*at, "cannot be read as a page"))?;
        let page = page.map_err(|error| Error::invalid(&*at, error.to_string()))?;
        let text = page.content.get("text").and_then(Value::as_str).map(str::trim).unwrap_or_default();
        match text.is_empty() {
            true => Err(Error::invalid(at, "holds no text")),
            false => Ok(Query::Text(text.to_owned())),
        }
    }
}

fn guessed(bytes: &[u8]) -> String {
    match infer::get(bytes) {
        Some(kind) => kind.mime_type().to_owned(),
        None if std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0')) => "text/plain".to_owned(),
        None => "application/octet-stream".to_owned(),
    }
}

async fn fetched(run: &Run<'_>, url: String) -> Result<Reply> {
    let reply = run.backend.call(Call::get(&url, MAX_BYTES, TIMEOUT)).await?;
    if !(200..300).contains(&reply.status) {
        return Err(Error::Upstream(format!("`{url}` answered {}", reply.status)));
    }
    let media_type = Some(reply.media_type.unwrap_or_else(|| guessed(&reply.body)));
    Ok(Reply { media_type, ..reply })
}
