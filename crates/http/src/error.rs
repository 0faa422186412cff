//! The one table from what went wrong to a status, a type and a body. Nothing else in this crate chooses an error status.

use crate::middleware::request_id;
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use strata_model::{Error, FieldError};
use utoipa::ToSchema;

/// An error on its way to the caller. Handlers answer `Result<_, ApiError>` and use `?` on the engine's results.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// What every answer of status 400 or above holds.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorResponse {
    /// Always `false`.
    pub success: bool,
    /// The HTTP status.
    #[schema(example = 404)]
    pub status: u16,
    pub error: ErrorDetail,
    /// The message once more, where clients of other services look for it.
    pub detail: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// What happened, to which thing, and what to do next.
    #[schema(example = "bucket `films` does not exist")]
    pub message: String,
    /// The class of error. Stable.
    #[serde(rename = "type")]
    #[schema(example = "NotFoundError")]
    pub kind: String,
    /// A finer name, where a caller may want to branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Facts: `validation_errors`, `resource` and `id`, `retryable` and `retry_after_seconds`, `request_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<Map<String, Value>>,
}

/// A row of the table, filled in.
struct Line {
    status: StatusCode,
    kind: &'static str,
    code: Option<String>,
    message: String,
    details: Value,
}

impl Line {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, message: message.into(), details: Value::Null }
    }
    fn with(self, details: Value) -> Self {
        Self { details, ..self }
    }
}

/// A status that stands for one kind of error, for answers that begin as a bare status: `405` of the router, `415` and
/// the like.
pub(crate) fn kind_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "BadRequestError",
        StatusCode::UNAUTHORIZED => "UnauthorizedError",
        StatusCode::FORBIDDEN => "ForbiddenError",
        StatusCode::NOT_FOUND => "NotFoundError",
        StatusCode::REQUEST_TIMEOUT => "TimeoutError",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowedError",
        StatusCode::CONFLICT => "AlreadyExistsError",
        StatusCode::PAYLOAD_TOO_LARGE => "PayloadTooLargeError",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "UnsupportedMediaTypeError",
        StatusCode::UNPROCESSABLE_ENTITY => "ValidationError",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequestsError",
        StatusCode::BAD_GATEWAY => "ProviderError",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
        StatusCode::GATEWAY_TIMEOUT => "TimeoutError",
        StatusCode::INSUFFICIENT_STORAGE => "InsufficientStorageError",
        other if other.is_client_error() => "BadRequestError",
        _ => "InternalServerError",
    }
}

fn line(error: &Error) -> Line {
    let plain = |status: StatusCode| Line::new(status, kind_of(status), error.to_string());
    match error {
        Error::Malformed(_) => plain(StatusCode::BAD_REQUEST),
        Error::Invalid(fields) => {
            plain(StatusCode::UNPROCESSABLE_ENTITY).with(json!({ "validation_errors": validation(fields) }))
        }
        Error::Unauthenticated(_) => plain(StatusCode::UNAUTHORIZED),
        Error::Forbidden(_) => plain(StatusCode::FORBIDDEN),
        Error::Missing { resource, id } => Line {
            code: Some(format!("{}_not_found", resource.to_lowercase().replace([' ', '-'], "_"))),
            ..plain(StatusCode::NOT_FOUND).with(json!({ "resource": resource, "id": id }))
        },
        Error::Conflict(_) => plain(StatusCode::CONFLICT),
        Error::TooLarge(_) => plain(StatusCode::PAYLOAD_TOO_LARGE),
        Error::Busy { retry_after_seconds, .. } => plain(StatusCode::TOO_MANY_REQUESTS).with(json!({
            "retryable": true,
            "retry_after": retry_after_seconds,
            "retry_after_seconds": retry_after_seconds,
        })),
        Error::Quota { resource, current, limit } => Line {
            kind: "QuotaExceededError",
            code: Some("quota_exceeded".into()),
            ..plain(StatusCode::FORBIDDEN).with(json!({ "resource": resource, "current": current, "limit": limit }))
        },
        // Waiting installs no model: official clients would hide this message for minutes if it called itself retryable.
        Error::Unavailable(_) => plain(StatusCode::SERVICE_UNAVAILABLE).with(json!({ "retryable": false })),
        Error::Upstream(_) => Line { kind: "UpstreamError", ..plain(StatusCode::UNPROCESSABLE_ENTITY) },
        Error::Provider(_) => plain(StatusCode::BAD_GATEWAY),
        Error::Full(_) => plain(StatusCode::INSUFFICIENT_STORAGE),
        Error::Internal(_) => {
            let id = request_id::current();
            let message = format!("something went wrong on our side; the server's log names it under request `{id}`");
            Line::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
                .with(json!({ "request_id": id }))
        }
    }
}

fn validation(fields: &[FieldError]) -> Vec<Value> {
    let each = fields.iter().map(|f| json!({ "field": f.field, "message": f.message, "loc": f.field.split('.').collect::<Vec<_>>(), "msg": f.message }));
    each.collect()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Error::Internal(what) = &self.0 {
            tracing::error!(request_id = %request_id::current(), "{what}");
        }
        let line = line(&self.0);
        let mut response = envelope(line.status, line.kind, line.code, line.message, line.details);
        if let Error::Busy { retry_after_seconds, .. } = self.0 {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
        }
        if matches!(self.0, Error::Unauthenticated(_)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An error answer for a status alone.
pub(crate) fn bare(status: StatusCode, message: impl Into<String>) -> Response {
    envelope(status, kind_of(status), None, message.into(), Value::Null)
}

/// The answer to a request that there is no room for now. Trying again helps.
pub(crate) fn overloaded(message: String, retry_after_seconds: u64) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let details = json!({ "retryable": true, "retry_after_seconds": retry_after_seconds });
    let mut response = envelope(status, kind_of(status), Some("overloaded".into()), message, details);
    response.headers_mut().insert(header::RETRY_AFTER, retry_after_seconds.into());
    response
}

/// Marks an answer that is in the envelope already.
#[derive(Clone, Copy)]
pub(crate) struct Enveloped;

fn envelope(status: StatusCode, kind: &str, code: Option<String>, message: String, details: Value) -> Response {
    let details = match details {
        Value::Object(map) => Some(map),
        _ => None,
    };
    let detail = message.clone();
    let body = ErrorResponse {
        success: false,
        status: status.as_u16(),
        error: ErrorDetail { message, kind: kind.to_owned(), code, details },
        detail,
    };
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(Enveloped);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(error: Error) -> (StatusCode, axum::http::HeaderMap, Value) {
        let response = ApiError(error).into_response();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn every_kind_has_its_status_and_type() {
        let table = [
            (Error::Malformed("x".into()), 400, "BadRequestError"),
            (Error::Unauthenticated("x".into()), 401, "UnauthorizedError"),
            (Error::Forbidden("x".into()), 403, "ForbiddenError"),
            (Error::Quota { resource: "documents", current: 2, limit: 1 }, 403, "QuotaExceededError"),
            (Error::missing("bucket", "x"), 404, "NotFoundError"),
            (Error::Conflict("x".into()), 409, "AlreadyExistsError"),
            (Error::TooLarge("x".into()), 413, "PayloadTooLargeError"),
            (Error::invalid("a", "x"), 422, "ValidationError"),
            (Error::Upstream("x".into()), 422, "UpstreamError"),
            (Error::Provider("x".into()), 502, "ProviderError"),
            (Error::Busy { message: "x".into(), retry_after_seconds: 7 }, 429, "TooManyRequestsError"),
            (Error::Internal("x".into()), 500, "InternalServerError"),
            (Error::Unavailable("x".into()), 503, "ServiceUnavailableError"),
            (Error::Full("x".into()), 507, "InsufficientStorageError"),
        ];
        for (error, status, kind) in table {
            let (got, _, body) = answer(error).await;
            assert_eq!((got.as_u16(), body["error"]["type"].as_str()), (status, Some(kind)));
            assert_eq!((body["success"].as_bool(), body["status"].as_u64()), (Some(false), Some(u64::from(status))));
            assert_eq!(body["detail"], body["error"]["message"]);
        }
    }

    #[tokio::test]
    async fn details_say_what_a_caller_can_act_on() {
        let (_, _, body) = answer(Error::invalid("a.b", "must be a number")).await;
        assert_eq!(body["error"]["details"]["validation_errors"][0]["field"], "a.b");
        let (_, _, body) = answer(Error::missing("API key", "k")).await;
        assert_eq!(body["error"]["code"], "api_key_not_found");
        let (_, headers, body) = answer(Error::Busy { message: "x".into(), retry_after_seconds: 7 }).await;
        assert_eq!(
            (headers["retry-after"].to_str().ok(), body["error"]["details"]["retry_after_seconds"].as_u64()),
            (Some("7"), Some(7))
        );
        let (_, headers, body) = answer(Error::Unavailable("x".into())).await;
        assert_eq!((headers.get("retry-after"), &body["error"]["details"]["retryable"]), (None, &json!(false)));
    }

    #[tokio::test]
    async fn our_own_faults_are_not_shown() {
        let (_, _, body) = answer(Error::Internal("the password is 1234".into())).await;
        assert!(!body.to_string().contains("1234"), "{body}");
    }
}
