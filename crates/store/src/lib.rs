//! Floor 1: where things are kept. The catalog (SQL) and the blobs (content-addressed bytes) are the truth; the index
//! is derived from the catalog and can be thrown away.
//!
//! This crate knows no extractor and no model runtime, and no HTTP but that of the object stores that hold backups.

pub mod backup;
pub mod blobs;
pub mod catalog;
pub mod disk;
pub mod faults;
pub mod index;
pub mod room;
pub mod seams;
pub mod snapshot;

pub use blobs::{BlobFile, Blobs, Held};
pub use catalog::Catalog;
