//! Why a file could not be decoded, in words that the wire can carry.

use serde::{Deserialize, Serialize};
use strata_model::Error;

/// Whose fault a failed decoding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// The file: damaged, encrypted, of a kind that is not decoded.
    File,
    /// The file: it would take more memory, time or pixels than it may.
    Limit,
    /// A tool is not there.
    Missing,
    /// Ours.
    Ours,
}

/// A decoding that did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub fault: Fault,
    pub reason: String,
}

impl Failure {
    pub fn file(reason: impl Into<String>) -> Self {
        Self { fault: Fault::File, reason: reason.into() }
    }
    pub fn limit(reason: impl Into<String>) -> Self {
        Self { fault: Fault::Limit, reason: reason.into() }
    }
    pub fn missing(reason: impl Into<String>) -> Self {
        Self { fault: Fault::Missing, reason: reason.into() }
    }
    pub fn ours(reason: impl Into<String>) -> Self {
        Self { fault: Fault::Ours, reason: reason.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.fault {
            Fault::File => Self::invalid("file", failure.reason),
            Fault::Limit => Self::TooLarge(failure.reason),
            Fault::Missing => Self::Unavailable(failure.reason),
            Fault::Ours => Self::Internal(failure.reason),
        }
    }
}
