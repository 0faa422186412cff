//! What happens around every request: its id, its line in the log, its numbers in the metrics, its time limit, and the
//! envelope around refusals that no handler wrote.

use crate::error::{ApiError, Enveloped, bare};
use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use strata_model::Error;
use tower_http::cors::{Any, CorsLayer};
use tracing::Instrument;

/// The longest a request may take before its answer begins. Uploads take as long as their bytes.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What an answer may load and run when a browser shows it: nothing, and for the page of the API what this server has.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request that is being answered.
pub(crate) mod request_id {
    tokio::task_local! {
        pub(crate) static CURRENT: String;
    }

    /// The id of the current request, or `none` outside of one.
    pub(crate) fn current() -> String {
        CURRENT.try_with(Clone::clone).unwrap_or_else(|_| "none".to_owned())
    }
}

/// Puts everything of this module around `router`.
pub(crate) fn around(router: Router) -> Router {
    router.layer(from_fn(envelope)).layer(cors()).layer(from_fn(observe))
}

/// Any page may call, without cookies: a key in a header is the only credential there is.
fn cors() -> CorsLayer {
    let names = |list: &[&'static str]| list.iter().map(|name| HeaderName::from_static(name)).collect::<Vec<_>>();
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD])
        .allow_headers(names(&[
            "accept",
            "authorization",
            "content-type",
            "idempotency-key",
            "if-none-match",
            "x-change-reason",
            "x-namespace",
            "x-namespace-id",
            "x-public-api-key",
            "x-request-id",
            "x-retriever-password",
            "x-session-id",
        ]))
        .expose_headers(names(&[
            "etag",
            "retry-after",
            "x-cache",
            "x-execution-mode",
            "x-namespace-unresolved",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-ratelimit-window",
            "x-request-id",
        ]))
        .max_age(Duration::from_secs(86_400))
}

async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(readable_id)
        .unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let method = request.method().clone();
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    // A token in a path is a credential and stays out of the log.
    let path = if route.contains("token") { route.to_owned() } else { request.uri().path().to_owned() };
    let span = tracing::info_span!("request", id = %id, %method, %path);
    let answer = guarded(request, next, route);
    let mut response = request_id::CURRENT.scope(id.clone(), answer).instrument(span).await;
    finish_headers(&mut response);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, took) = (response.status().as_u16(), started.elapsed());
    crate::metrics::answered(&method, route, status, took);
    let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
    if route.starts_with("/v1/health") || route == "/metrics" {
        tracing::debug!(request_id = %id, %method, %path, status, duration_ms, "answered");
    } else {
        tracing::info!(request_id = %id, %method, %path, status, duration_ms, "answered");
    }
    response
}

/// Runs the handler: a panic is our fault and says so, and so does taking too long.
async fn guarded(request: Request, next: Next, route: &str) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    let outcome = if takes_bytes(route) { Ok(answer.await) } else { tokio::time::timeout(TIME_LIMIT, answer).await };
    match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            ApiError(Error::Internal(format!("a handler panicked: {}", text.unwrap_or("without a message"))))
                .into_response()
        }
        Err(_) => {
            let message = took_too_long();
            tracing::warn!(request_id = %request_id::current(), "{message}");
            bare(StatusCode::GATEWAY_TIMEOUT, message)
        }
    }
}

/// What is said of an answer that took longer than [`TIME_LIMIT`].
pub(crate) fn took_too_long() -> String {
    format!("the answer took longer than {} seconds; ask for less at once", TIME_LIMIT.as_secs())
}

/// Whether what the caller sends decides how long an answer takes.
fn takes_bytes(route: &str) -> bool {
    route.ends_with("/documents/upsert")
        || route.contains("/uploads")
        || route.contains("/blobs")
        || route.ends_with("/objects")
        || route.ends_with("/{namespace_id}/models")
        || route.contains("/objects/")
}

/// A caller's own request id, if it is fit for a log.
fn readable_id(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

fn finish_headers(response: &mut Response) {
    let is_of =
        |kind: &[u8]| response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(kind));
    let (is_json, is_page) = (is_of(b"application/json"), is_of(b"text/html"));
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("DENY"));
    if is_json {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    let policy = HeaderValue::from_static(if is_page { PAGE } else { NOTHING });
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
}

/// Refusals of the router and of foreign extractors come as a status and a text: this gives them the envelope.
async fn envelope(request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let response = next.run(request).await;
    let status = response.status();
    let is_fault = status.is_client_error() || status.is_server_error();
    let is_json =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    if !is_fault || is_json || response.extensions().get::<Enveloped>().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, 4096).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let message = match (status, text) {
        // The router adds the header `Allow` when this has passed.
        (StatusCode::METHOD_NOT_ALLOWED, _) => {
            format!("`{method}` is not allowed on `{}`; the header `Allow` names what is", uri.path())
        }
        (status, text) if text.is_empty() => status.canonical_reason().unwrap_or("refused").to_owned(),
        (_, text) => text,
    };
    let mut enveloped = bare(status, message);
    for (name, value) in &parts.headers {
        if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
            enveloped.headers_mut().append(name.clone(), value.clone());
        }
    }
    enveloped
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, routing::get};
    use tower::ServiceExt;

    async fn send(request: Request) -> (Response, serde_json::Value) {
        let routes = Router::new()
            .route("/", get(|| async { "fine" }))
            .route(
                "/panic",
                get(|| async {
                    if true {
                        panic!("secret reason")
                    }
                }),
            )
            .route("/raw", get(|| async { (StatusCode::PAYLOAD_TOO_LARGE, "too much") }));
        let response = around(routes).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or_default();
        (Response::from_parts(parts, Body::empty()), value)
    }

    fn of(method: &str, path: &str) -> Request {
        Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_request_id_goes_in_and_comes_out() {
        let mut request = of("GET", "/");
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("mine-1"));
        assert_eq!(send(request).await.0.headers()["x-request-id"], "mine-1");
        let mut request = of("GET", "/");
        request.headers_mut().insert("x-request-id", HeaderValue::from_static("two words"));
        assert_eq!(send(request).await.0.headers()["x-request-id"].len(), 32, "one unfit for a log is replaced");
    }

    #[tokio::test]
    async fn a_panic_answers_500_without_its_reason() {
        let (response, body) = send(of("GET", "/panic")).await;
        assert_eq!(response.status(), 500);
        assert!(!body.to_string().contains("secret"), "{body}");
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(body["error"]["details"]["request_id"], id);
    }

    #[tokio::test]
    async fn refusals_that_no_handler_wrote_get_the_envelope() {
        let (response, body) = send(of("PUT", "/")).await;
        assert_eq!((response.status().as_u16(), body["error"]["type"].as_str()), (405, Some("MethodNotAllowedError")));
        assert!(response.headers()["allow"].to_str().unwrap().contains("GET"), "{body}");
        let (response, body) = send(of("GET", "/raw")).await;
        assert_eq!((response.status().as_u16(), body["detail"].as_str()), (413, Some("too much")));
        let (response, body) = send(of("GET", "/missing")).await;
        assert_eq!((response.status().as_u16(), body["status"].as_u64()), (404, Some(404)));
    }

    #[tokio::test]
    async fn any_origin_may_ask_before_it_calls() {
        let mut request = of("OPTIONS", "/");
        for (name, value) in [
            ("origin", "https://shop.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,x-namespace,content-type"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let (response, _) = send(request).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert!(!response.headers().contains_key("access-control-allow-credentials"));
        let allowed = response.headers()["access-control-allow-headers"].to_str().unwrap();
        assert!(allowed.contains("x-namespace") && allowed.contains("authorization"), "{allowed}");
    }
}
