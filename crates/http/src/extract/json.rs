//! JSON bodies. Nothing at all reads as `{}`; what cannot be read says where, what does not fit says which field.

use crate::error::{ApiError, bare};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use strata_model::{Error, limits};

/// A JSON body, of a request or of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &S) -> Result<Self, Response> {
        let kind = content_kind(request.headers());
        let declared =
            request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|length| length > limits::MAX_BODY_BYTES) {
            return Err(too_large().into_response());
        }
        let bytes = match axum::body::to_bytes(request.into_body(), limits::MAX_BODY_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(broken_body(&error).into_response()),
        };
        match kind {
            Kind::Json => {}
            Kind::Other(_) if bytes.is_empty() => {}
            Kind::Form if matches!(bytes.first(), Some(b'{' | b'[' | b' ' | b'\n')) => {}
            Kind::Form => return Err(unsupported("application/x-www-form-urlencoded")),
            Kind::Other(name) => return Err(unsupported(&name)),
        }
        read(&bytes).map(Self).map_err(|error| ApiError(error).into_response())
    }
}

fn unsupported(name: &str) -> Response {
    let message = format!("the content type `{name}` is not understood here; send `application/json`");
    bare(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}

fn too_large() -> ApiError {
    ApiError(Error::TooLarge(format!("a request body holds at most {} bytes", limits::MAX_BODY_BYTES)))
}

fn broken_body(error: &axum::Error) -> ApiError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(at) = source {
        if at.to_string().contains("length limit exceeded") {
            return too_large();
        }
        source = at.source();
    }
    ApiError(Error::Malformed("the request body ended before it was complete".into()))
}

/// Whether a body says that it is JSON lines: a JSON value on each line.
pub(crate) fn is_json_lines(headers: &HeaderMap) -> bool {
    const NAMES: [&str; 6] = [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
        "application/json-lines",
    ];
    matches!(content_kind(headers), Kind::Other(name) if NAMES.contains(&&*name))
}

enum Kind {
    /// `application/json`, `application/*+json`, or nothing said.
    Json,
    /// What `curl -d` says of any body.
    Form,
    Other(String),
}

fn content_kind(headers: &HeaderMap) -> Kind {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Kind::Json };
    let text = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
    let essence = text.split(';').next().unwrap_or_default().trim();
    match essence {
        "" | "application/json" | "text/json" | "application/x-json" => Kind::Json,
        "application/x-www-form-urlencoded" => Kind::Form,
        other if other.starts_with("application/") && other.ends_with("+json") => Kind::Json,
        other => Kind::Other(other.to_owned()),
    }
}

/// What the official MCP server sends as `note` where its caller gave no body. Types that keep any key see it as one.
const NO_BODY: &str = "no JSON body provided";

/// Reads a body. 400 where it is no JSON, 422 where it is JSON of another shape.
pub(crate) fn read<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Error> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::Malformed(format!("the body is not UTF-8: byte {} is wrong", e.valid_up_to())))?;
    let text = match text.trim_start_matches('\u{feff}').trim() {
        "" | "null" => "{}",
        text => text,
    };
    let Survey { holds_long_numbers } = survey(text)?;
    // Serde would read an array into a struct, and pass over numbers that no computer holds in keys that it does not know.
    if text.starts_with('{')
        && !holds_long_numbers
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    // The slow way finds the words for what is wrong; it also takes a repeated key, of which the last one counts.
    let value: Value =
        serde_json::from_str(text).map_err(|e| Error::Malformed(format!("the body is not JSON: {e}")))?;
    if !value.is_object() {
        return Err(Error::invalid("body", "must be an object"));
    }
    let value = if value == json!({ "note": NO_BODY }) { json!({}) } else { value };
    serde_path_to_error::deserialize(value).map_err(|e| super::wrong_type(e, "body"))
}

/// What one look over a text finds.
struct Survey {
    /// Numbers that may be too large: with exponents of three digits or hundreds of digits.
    holds_long_numbers: bool,
}

/// Refuses a text that nests too deep for those who read it recursively.
fn survey(text: &str) -> Result<Survey, Error> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let (mut digits, mut exponent, mut holds_long_numbers) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => (in_string, digits, exponent) = (!in_string, 0, false),
            _ if in_string => {}
            b'0'..=b'9' => {
                digits += 1;
                holds_long_numbers |= digits > if exponent { 2 } else { 300 };
            }
            b'e' | b'E' if digits > 0 => (digits, exponent) = (0, true),
            b'+' | b'-' | b'.' => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > limits::MAX_JSON_DEPTH {
                    let message = format!("the body nests deeper than {} levels", limits::MAX_JSON_DEPTH);
                    return Err(Error::Malformed(message));
                }
                (digits, exponent) = (0, false);
            }
            b']' | b'}' => (depth, digits, exponent) = (depth.saturating_sub(1), 0, false),
            _ => (digits, exponent) = (0, false),
        }
    }
    Ok(Survey { holds_long_numbers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, routing::post};
    use serde::Deserialize;
    use tower::ServiceExt;

    #[derive(Debug, Default, Deserialize, Serialize)]
    struct Wanted {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        parts: Vec<Part>,
    }
    #[derive(Debug, Deserialize, Serialize)]
    struct Part {
        size: u32,
    }

    async fn send(content_type: Option<&str>, body: impl Into<Body>) -> (u16, Value) {
        let app = Router::new().route("/", post(|Json(body): Json<Wanted>| async move { Json(body) }));
        let mut request = Request::post("/");
        if let Some(kind) = content_type {
            request = request.header("content-type", kind);
        }
        let response = app.oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn nothing_reads_as_an_empty_object_whatever_it_calls_itself() {
        for kind in [None, Some("application/json"), Some("multipart/form-data; boundary=x")] {
            assert_eq!(send(kind, "").await.0, 200, "{kind:?}");
        }
        assert_eq!(send(Some("application/json"), "null").await.0, 200);
    }

    #[tokio::test]
    async fn types_that_carry_json_are_taken_and_others_are_not() {
        for kind in [
            None,
            Some("application/json; charset=utf-8"),
            Some("application/merge-patch+json"),
            Some("application/x-www-form-urlencoded"),
        ] {
            assert_eq!(send(kind, r#"{"name": "a"}"#).await.0, 200, "{kind:?}");
        }
        for kind in ["multipart/form-data; boundary=x", "text/plain", "nonsense"] {
            let (status, body) = send(Some(kind), r#"{"name": "a"}"#).await;
            assert_eq!((status, body["error"]["type"].as_str()), (415, Some("UnsupportedMediaTypeError")), "{kind}");
        }
    }

    #[tokio::test]
    async fn what_is_no_json_answers_400_with_the_place() {
        let (status, body) = send(None, "{\"name\":\n \"a\",}").await;
        assert_eq!(status, 400);
        assert!(body["detail"].as_str().unwrap().contains("line 2 column"), "{body}");
        assert_eq!(send(None, &b"{\"name\": \"\xff\"}"[..]).await.0, 400);
        assert_eq!(send(None, r#"{"x": 1e99999}"#).await.0, 400);
        let (status, body) = send(None, "[".repeat(20_000)).await;
        assert_eq!(status, 400);
        assert!(body["detail"].as_str().unwrap().contains("64 levels"), "{body}");
        assert_eq!(
            send(None, format!(r#"{{"name": "{}"}}"#, "[".repeat(100))).await.0,
            200,
            "brackets in texts do not nest"
        );
    }

    #[tokio::test]
    async fn what_does_not_fit_answers_422_with_the_field() {
        let field = |body: &Value| {
            body["error"]["details"]["validation_errors"][0]["field"].as_str().unwrap_or_default().to_owned()
        };
        let (status, body) = send(None, r#"{"parts": [{"size": 1}, {"size": "x"}]}"#).await;
        assert_eq!((status, field(&body).as_str()), (422, "parts.1.size"));
        let (status, body) = send(None, r#"{"parts": [{}]}"#).await;
        assert_eq!((status, field(&body).as_str()), (422, "parts.0.size"));
        assert_eq!(send(None, "[]").await.0, 422);
    }

    #[test]
    fn an_unknown_key_is_named_with_those_that_there_are_where_a_type_asks_for_that() {
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        struct Strict {
            #[serde(alias = "label")]
            name: Option<String>,
            parts: Vec<StrictPart>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct StrictPart {
            #[allow(dead_code)]
            size: u32,
        }
        let fault = |text: &'static str| match read::<Strict>(&Bytes::from_static(text.as_bytes())) {
            Err(Error::Invalid(mut faults)) => (faults.remove(0).field, faults.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(r#"{"nam`e": 1}"#).0, "nam`e");
        assert_eq!(fault(r#"{"parts": [{"size": 1}, {"size": 1, "weight": 2}]}"#).0, "parts.1.weight");
        let Err(Error::Invalid(faults)) = read::<Strict>(&Bytes::from_static(br#"{"title": 1}"#)) else { panic!() };
        assert_eq!(faults[0].message, "is not a key that is taken here; those that are: `label`, `name`, `parts`");
        let taken: Strict = read(&Bytes::from_static(br#"{"label": "x"}"#)).unwrap();
        assert_eq!((taken.name.as_deref(), taken.parts.len()), (Some("x"), 0));
        assert!(read::<Strict>(&Bytes::from_static(br#"{"note": "no JSON body provided"}"#)).is_ok());
        assert_eq!(fault(r#"{"note": "another"}"#).0, "note");
    }

    #[tokio::test]
    async fn of_a_repeated_key_the_last_one_counts() {
        let (status, body) = send(None, r#"{"name": "a", "name": "b"}"#).await;
        assert_eq!((status, body["name"].as_str()), (200, Some("b")));
    }
}
