//! Which stored contents the artifacts of documents are. Derived from `document_blobs`, and written with them.

use super::from_sql;
use rusqlite::{Transaction, params};
use serde_json::Value;
use strata_model::Result;

/// Key of an entry of `document_blobs` that holds the SHA-256 of its content, in hex, where that is stored here.
pub const HASH: &str = "hash";

/// The hashes of the contents that entries of `document_blobs` name.
pub fn hashes(document_blobs: &[Value]) -> impl Iterator<Item = &str> {
    document_blobs.iter().filter_map(|entry| entry.get(HASH).and_then(Value::as_str))
}

/// Notes the artifacts of a document that has none noted.
pub(super) fn add(tx: &Transaction<'_>, seq: i64, document_blobs: &[Value]) -> Result<()> {
    for hash in hashes(document_blobs) {
        tx.prepare_cached("INSERT INTO document_artifacts (document_seq, hash) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .and_then(|mut s| s.execute(params![seq, hash]))
            .map_err(from_sql)?;
    }
    Ok(())
}

/// Makes these all the artifacts that a document has.
pub(super) fn replace(tx: &Transaction<'_>, seq: i64, document_blobs: &[Value]) -> Result<()> {
    tx.prepare_cached("DELETE FROM document_artifacts WHERE document_seq = ?1")
        .and_then(|mut s| s.execute([seq]))
        .map_err(from_sql)?;
    add(tx, seq, document_blobs)
}
