//! One error type for every floor below HTTP. A variant says whose fault it is; only `http` turns it into a status.

use serde::Serialize;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One field that did not satisfy the contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Dot path of the field, for example `bucket_schema.properties.title.type`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller sent something that cannot be understood at all (400).
    #[error("{0}")]
    Malformed(String),
    /// The caller sent something understood but not allowed (422).
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldError>),
    /// No key, or a key that does not (or no longer) exist (401).
    #[error("{0}")]
    Unauthenticated(String),
    /// The key may not do this (403).
    #[error("{0}")]
    Forbidden(String),
    /// The thing does not exist for this caller (404).
    #[error("{resource} `{id}` does not exist")]
    Missing { resource: &'static str, id: String },
    /// The thing's present state forbids it: a name taken, a cycle, a running batch (409).
    #[error("{0}")]
    Conflict(String),
    /// A named limit was hit: body or file too large (413).
    #[error("{0}")]
    TooLarge(String),
    /// The organization has as much as its operator lets it have (403).
    #[error(
        "the organization may have {limit} {resource} and would have {current}; delete some, or ask the operator for more"
    )]
    Quota { resource: &'static str, current: u64, limit: u64 },
    /// Too much at once; trying again later helps (429).
    #[error("{message}")]
    Busy { message: String, retry_after_seconds: u64 },
    /// Something this server needs is not there: a model, a provider (503). The message says how to get it.
    #[error("{0}")]
    Unavailable(String),
    /// An outside party failed us: a URL that does not answer (422 where the caller named it).
    #[error("{0}")]
    Upstream(String),
    /// A model's provider, which the operator or the organization chose, failed us or answered nonsense (502).
    #[error("{0}")]
    Provider(String),
    /// The disk is full (507).
    #[error("{0}")]
    Full(String),
    /// Ours. The message is logged, never shown.
    #[error("{0}")]
    Internal(String),
}

fn summary(fields: &[FieldError]) -> String {
    let parts: Vec<String> = fields.iter().map(|f| format!("`{}`: {}", f.field, f.message)).collect();
    parts.join("; ")
}

impl Error {
    /// The same, with `at` before the name of each field: for what was checked as a part of something larger.
    pub fn under(self, at: &str) -> Self {
        match self {
            Self::Invalid(wrong) => Self::Invalid(
                wrong.into_iter().map(|e| FieldError::new(format!("{at}.{}", e.field), e.message)).collect(),
            ),
            other => other,
        }
    }

    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, message)])
    }
    pub fn missing(resource: &'static str, id: impl Into<String>) -> Self {
        Self::Missing { resource, id: id.into() }
    }
    pub fn internal(what: impl std::fmt::Display) -> Self {
        Self::Internal(what.to_string())
    }
    /// Whether running the same work again may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::Unavailable(_)
                | Self::Upstream(_)
                | Self::Provider(_)
                | Self::Full(_)
                | Self::Internal(_)
        )
    }
}
