//! Floor 0: the words of Strata. Identifiers, documents and their lineage, schemas, filters, feature URIs, limits
//! and error kinds, as plain values.
//!
//! This crate does no I/O, reads no clock and draws no randomness; nothing here knows SQL, HTTP or a model runtime.

pub mod acl;
mod canonical;
pub mod document;
pub mod error;
pub mod feature;
pub mod filter;
pub mod geo;
pub mod id;
pub mod limits;
pub mod path;
pub mod rates;
pub mod schema;
pub mod scope;

pub use acl::Reader;
pub use canonical::canonical;
pub use error::{Error, FieldError, Result};
pub use scope::{OnlyRetriever, Permission, Principal, Scope};

/// A JSON object: field names to values.
pub type Fields = serde_json::Map<String, serde_json::Value>;
