//! Identifier prefixes and the deterministic ids of derived documents. Random ids come from the store's id seam.

use sha2::{Digest, Sha256};

pub const ORGANIZATION: &str = "org_";
pub const USER: &str = "usr_";
pub const KEY: &str = "key_";
pub const NAMESPACE: &str = "ns_";
pub const BUCKET: &str = "bkt_";
pub const OBJECT: &str = "obj_";
pub const BLOB: &str = "blob_";
pub const UPLOAD: &str = "upl_";
pub const COLLECTION: &str = "col_";
pub const DOCUMENT: &str = "doc_";
pub const BATCH: &str = "btch_";
pub const TASK: &str = "task_";
pub const DERIVATION: &str = "der_";
pub const RETRIEVER: &str = "ret_";
/// A published retriever.
pub const PUBLICATION: &str = "pub_";
pub const EXECUTION: &str = "exec_";
pub const EVENT: &str = "evt_";
/// A webhook.
pub const WEBHOOK: &str = "wh_";
pub const CONNECTION: &str = "conn_";
pub const INTERACTION: &str = "int_";
pub const ANNOTATION: &str = "ann_";
pub const DATASET: &str = "eds_";
pub const EVALUATION: &str = "eval_";
pub const BENCHMARK: &str = "bmk_";
/// A model that an organization brings, and the upload of its archive.
pub const MODEL: &str = "mdl_";
pub const MODEL_UPLOAD: &str = "mup_";
/// A custom extractor.
pub const EXTRACTOR: &str = "ext_";
pub const SNAPSHOT: &str = "snap_";
/// The making of a snapshot, or of a namespace from one.
pub const TRANSFER: &str = "trf_";
/// A migration of a namespace.
pub const MIGRATION: &str = "mig_";

/// SHA-256 of `bytes` as 64 lower-case hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 over a list of parts, each preceded by its length, so that no two lists collide by concatenation.
pub fn sha256_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// The id of the `ordinal`-th document that `extractor_id` makes in `collection_id` from `input_id`: `doc_` and 24
/// hex digits. The same derivation run twice names the same documents.
pub fn derived_document_id(collection_id: &str, input_id: &str, extractor_id: &str, ordinal: usize) -> String {
    let digest = sha256_parts(&[
        collection_id.as_bytes(),
        input_id.as_bytes(),
        extractor_id.as_bytes(),
        &(ordinal as u64).to_le_bytes(),
    ]);
    format!("{DOCUMENT}{}", hex::encode(&digest[..12]))
}

/// As [`derived_document_id`], for a document that its extractor knows by a `key` of its own, whatever comes before it.
pub fn keyed_document_id(collection_id: &str, input_id: &str, extractor_id: &str, key: &str) -> String {
    let parts = [collection_id, input_id, extractor_id, "key", key];
    let digest = sha256_parts(&parts.map(str::as_bytes));
    format!("{DOCUMENT}{}", hex::encode(&digest[..12]))
}

/// The id in a copy of what is called `old` in the original: of the same prefix, the same for the same `copy`, and of no
/// use for guessing either.
pub fn copied_id(copy: &str, old: &str) -> String {
    let prefix = old.find('_').map_or("", |end| &old[..=end]);
    let digest = hex::encode(sha256_parts(&[copy.as_bytes(), old.as_bytes()]));
    let digits = (old.len() - prefix.len()).clamp(16, 32);
    format!("{prefix}{}", &digest[..digits])
}

/// Whether `text` can be an identifier with this prefix.
pub fn has_prefix(text: &str, prefix: &str) -> bool {
    text.starts_with(prefix)
        && text.len() > prefix.len()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
