//! Extractors: what a handler takes from a request. Each refuses in the error envelope.
//!
//! The order of a handler's arguments is the order of the checks: `State`, then [`Caller`] or [`Tenant`], then `Path` and
//! `Query`, and `Json` last; so that a stranger learns nothing about the rest.

mod address;
mod caller;
mod json;
mod lines;
mod query;

pub use address::Address;
pub(crate) use caller::named_namespace;
pub use caller::{Caller, Tenant};
pub use json::Json;
pub(crate) use json::is_json_lines;
pub(crate) use lines::JsonLines;
pub use query::Query;

use crate::error::ApiError;
use axum::{extract::FromRequestParts, http::request::Parts};
use serde::de::DeserializeOwned;
use strata_model::Error;

/// The parts of the path that are parameters.
#[derive(Debug, Clone)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| match rejection.status().is_server_error() {
            true => ApiError(Error::internal(rejection)),
            false => ApiError(Error::Malformed(rejection.body_text())),
        })
    }
}

/// The path of a decoding error in a user's words: `a.b.0.c`.
fn place(path: &serde_path_to_error::Path) -> String {
    let text = path.to_string().replace('[', ".").replace(']', "");
    if text == "." { String::new() } else { text.trim_start_matches('.').to_owned() }
}

/// What to say of a key that a type with `deny_unknown_fields` refused: which keys there are.
fn unknown_key(message: &str) -> Option<String> {
    let expected = message.strip_prefix("unknown field `")?.split_once("`, expected ").map_or("", |(_, keys)| keys);
    let mut known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    known.sort_unstable();
    Some(format!("is not a key that is taken here; those that are: `{}`", known.join("`, `")))
}

/// The place and the message for a value that is not what it must be.
pub(crate) fn wrong_type<E: std::fmt::Display>(error: serde_path_to_error::Error<E>, whole: &str) -> Error {
    let (place, message) = (place(error.path()), error.inner().to_string());
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    if let Some(accepted) = unknown_key(&message) {
        return Error::invalid(if place.is_empty() { whole } else { &place }, accepted);
    }
    match (place.as_str(), missing) {
        ("", Some(field)) => Error::invalid(field, "is required"),
        (at, Some(field)) => Error::invalid(format!("{at}.{field}"), "is required"),
        ("", None) => Error::invalid(whole, message),
        (at, None) => Error::invalid(at, message),
    }
}
