//! Answers of executions that a client may already have: `ETag`, `If-None-Match`, `Cache-Control`, `X-Cache`.

use super::execute::ExecuteRetrieverResponse;
use crate::extract::Json;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
/// An answer may be kept, and must be asked about before it is used again.
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// The tags that a client sends in `If-None-Match`, without what marks them as weak.
pub(crate) fn known(headers: &HeaderMap) -> Vec<String> {
    let sent = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|list| list.split(','))
        .map(|tag| {
            let tag = tag.trim();
            tag.strip_prefix("W/").unwrap_or(tag).to_owned()
        })
        .collect()
}

/// The answer, or 304 where the client knows it. `skipped` says that the cache was not to be asked.
pub(super) fn respond(answer: ExecuteRetrieverResponse, skipped: bool, known: &[String]) -> Response {
    let tag = tag(&answer);
    let cache = match (answer.cache_hit, skipped) {
        (true, _) => "HIT",
        (false, true) => "BYPASS",
        (false, false) => "MISS",
    };
    let is_known = known.iter().any(|own| *own == tag || own == "*");
    let mut response = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { Json(answer).into_response() };
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static(cache));
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    if let Ok(value) = HeaderValue::from_str(&format!("W/{tag}")) {
        headers.insert(header::ETAG, value);
    }
    response
}

/// A hash of what was found. Ids and times of the execution do not count, so the tag is a weak one.
fn tag(answer: &ExecuteRetrieverResponse) -> String {
    let found = (
        &answer.status,
        &answer.documents,
        answer.results.is_some(),
        &answer.pagination,
        &answer.facets,
        &answer.warnings,
        &answer.degraded,
        &answer.limits,
        &answer.explain_plan,
    );
    // What is in an answer can always be written.
    let bytes = serde_json::to_vec(&found).unwrap_or_default();
    format!("\"{}\"", &hex::encode(Sha256::digest(bytes))[..32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(id: &str, text: &str) -> ExecuteRetrieverResponse {
        ExecuteRetrieverResponse {
            execution_id: id.into(),
            documents: vec![json!({ "text": text })],
            ..ExecuteRetrieverResponse::default()
        }
    }

    #[test]
    fn a_tag_is_of_what_was_found_alone() {
        assert_eq!(tag(&answer("exec_1", "a")), tag(&answer("exec_2", "a")));
        assert_ne!(tag(&answer("exec_1", "a")), tag(&answer("exec_1", "b")));
    }

    #[test]
    fn what_a_client_knows_is_not_sent_again() {
        let first = respond(answer("exec_1", "a"), false, &[]);
        assert_eq!((first.status(), first.headers()[X_CACHE].to_str().unwrap()), (StatusCode::OK, "MISS"));
        let mut headers = HeaderMap::new();
        let sent = format!("\"other\", {}", first.headers()[header::ETAG].to_str().unwrap());
        headers.insert(header::IF_NONE_MATCH, sent.parse().unwrap());
        let again = respond(answer("exec_2", "a"), true, &known(&headers));
        assert_eq!((again.status(), again.headers()[X_CACHE].to_str().unwrap()), (StatusCode::NOT_MODIFIED, "BYPASS"));
        assert_eq!(respond(answer("exec_3", "b"), false, &known(&headers)).status(), StatusCode::OK);
    }
}
