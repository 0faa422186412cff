//! Requests to servers outside, as stages and extractors compose them.

use crate::{
    Engine,
    fetch::{Request, media_type_of},
    retrieval::{Call, Reply},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use strata_model::{Error, Result};

impl Engine {
    /// Sends a request, and takes an answer of any status. A refusal of the address is [`Error::Invalid`].
    pub(crate) async fn ask(&self, call: Call) -> Result<Reply> {
        let answer = self.fetcher.send(request(call)?).await?;
        let charset = answer.content_type.as_deref().and_then(|header| {
            header.to_lowercase().split_once("charset=").map(|(_, charset)| {
                charset.trim_matches(['"', ' ']).split(';').next().unwrap_or_default().trim().to_owned()
            })
        });
        Ok(Reply {
            status: answer.status,
            url: answer.url.into(),
            media_type: answer.content_type.as_deref().and_then(media_type_of),
            charset,
            body: answer.body.into(),
            retry_after: answer.retry_after,
        })
    }
}

/// A call as the fetcher takes it.
fn request(call: Call) -> Result<Request> {
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let wrong = || Error::invalid("headers", format!("`{name}` is not a header, or its value is none"));
        let name = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        // Else it could be seen in traces.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let method = call.method.parse().map_err(|_| Error::invalid("method", "is not a method"))?;
    Ok(Request {
        method,
        url: call.url,
        headers,
        body: call.body.map(Into::into),
        domains: call.domains,
        follows: true,
        max_bytes: call.max_bytes,
        timeout: call.timeout,
    })
}
