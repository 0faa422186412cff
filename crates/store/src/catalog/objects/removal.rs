//! Removal along lineage: an object goes with every document that descends from it, with the work that made them, and
//! with the bytes that nothing else refers to.

use super::{rows, run};
use crate::catalog::{
    artifacts, documents, from_sql,
    webhooks::{self, Event},
};
use rusqlite::{Connection, OptionalExtension, Transaction};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_model::{Error, Result, Scope};

/// What a delete removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Receipt {
    pub objects: u64,
    /// Documents by collection id.
    pub documents: BTreeMap<String, u64>,
    pub derivations: u64,
    /// Contents that nothing refers to any more.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A removal inside its transaction: what to tell the caller, the index and, after the commit, the blob store.
#[derive(Debug, Clone, Default)]
pub struct Removed {
    pub receipt: Receipt,
    /// The last change of each collection touched.
    pub touched: Vec<(String, i64)>,
    /// Contents that nothing refers to any more, as far as this transaction sees.
    pub hashes: Vec<String>,
}

/// Removes objects of the scope and all that descends from them. An id that is not there is [`Error::Missing`].
pub fn cascade(tx: &Transaction<'_>, scope: &Scope, object_ids: &[String]) -> Result<Removed> {
    let mut removed = Removed::default();
    for object_id in object_ids {
        one(tx, scope, object_id, &mut removed)?;
    }
    settle(tx, &mut removed)?;
    Ok(removed)
}

/// Removes a bucket with everything in it.
pub fn bucket(tx: &Transaction<'_>, scope: &Scope, bucket_id: &str) -> Result<Removed> {
    let mut removed = Removed::default();
    for object_id in super::ids(tx, scope, bucket_id)? {
        one(tx, scope, &object_id, &mut removed)?;
    }
    let uploads: Vec<String> =
        rows(tx, "SELECT blob_hash FROM uploads WHERE bucket_id = ? AND blob_hash IS NOT NULL", &[bucket_id], |r| {
            r.get(0)
        })?;
    removed.hashes.extend(uploads);
    run(tx, "DELETE FROM collection_sources WHERE source_kind = 'bucket' AND source_id = ?1", [bucket_id])?;
    let sql = "DELETE FROM buckets WHERE bucket_id = ?1 AND namespace_id = ?2";
    if run(tx, sql, [bucket_id, &scope.namespace_id])? == 0 {
        return Err(Error::missing("bucket", bucket_id));
    }
    settle(tx, &mut removed)?;
    Ok(removed)
}

fn one(tx: &Transaction<'_>, scope: &Scope, object_id: &str, removed: &mut Removed) -> Result<()> {
    let ids = [object_id, scope.namespace_id.as_str()];
    removed.hashes.extend(rows(
        tx,
        "SELECT hash FROM object_blobs WHERE object_id = ? UNION SELECT blob_hash FROM uploads
         WHERE object_id = ?1 AND namespace_id = ? AND blob_hash IS NOT NULL",
        &ids,
        |r| r.get::<_, String>(0),
    )?);
    run(tx, "UPDATE uploads SET blob_hash = NULL WHERE object_id = ?1 AND namespace_id = ?2", ids)?;
    let sql = "DELETE FROM objects WHERE object_id = ?1 AND namespace_id = ?2 RETURNING bucket_id";
    let gone: Option<String> =
        tx.prepare_cached(sql).and_then(|mut s| s.query_row(ids, |r| r.get(0)).optional()).map_err(from_sql)?;
    let bucket_id = gone.ok_or_else(|| Error::missing("object", object_id))?;
    super::tell(tx, "object.deleted", scope, object_id, &bucket_id)?;
    removed.receipt.objects += 1;
    let descending: Vec<(i64, String, String)> = rows(
        tx,
        "SELECT seq, collection_id, document_blobs FROM documents WHERE root_object_id = ? AND namespace_id = ?",
        &ids,
        |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
    )?;
    let sql = "DELETE FROM derivations WHERE namespace_id = ?2 AND (root_object_id = ?1 OR input_id = ?1)";
    removed.receipt.derivations += run(tx, sql, ids)? as u64;
    let seqs: Vec<i64> = descending.iter().map(|(seq, ..)| *seq).collect();
    for (_, collection, blobs) in descending {
        *removed.receipt.documents.entry(collection).or_default() += 1;
        hashes_in(&blobs, &mut removed.hashes);
    }
    for (collection, change) in documents::remove(tx, &seqs)? {
        removed.touched.retain(|(id, _)| *id != collection);
        removed.touched.push((collection, change));
    }
    Ok(())
}

/// The contents of the artifacts in a document's `document_blobs`.
fn hashes_in(document_blobs: &str, hashes: &mut Vec<String>) {
    if document_blobs == "[]" {
        return;
    }
    let Ok(Value::Array(blobs)) = serde_json::from_str(document_blobs) else { return };
    hashes.extend(artifacts::hashes(&blobs).map(str::to_owned));
}

/// Keeps of the hashes those that nothing refers to, and counts them.
fn settle(tx: &Transaction<'_>, removed: &mut Removed) -> Result<()> {
    removed.hashes.sort_unstable();
    removed.hashes.dedup();
    removed.hashes = unreferenced(tx, &removed.hashes)?;
    for hash in &removed.hashes {
        let size: Option<i64> = tx
            .prepare_cached("SELECT size_bytes FROM blobs WHERE hash = ?1")
            .and_then(|mut s| s.query_row([hash], |r| r.get(0)).optional())
            .map_err(from_sql)?;
        removed.receipt.blobs += u64::from(size.is_some());
        removed.receipt.bytes += size.unwrap_or(0).unsigned_abs();
    }
    Ok(())
}

const IS_REFERENCED: &str = "EXISTS (SELECT 1 FROM object_blobs WHERE hash = ?1)
     OR EXISTS (SELECT 1 FROM uploads WHERE blob_hash = ?1)
     OR EXISTS (SELECT 1 FROM document_artifacts WHERE hash = ?1)
     OR EXISTS (SELECT 1 FROM org_models WHERE archive_hash = ?1)
     OR EXISTS (SELECT 1 FROM model_uploads WHERE archive_hash = ?1)
     OR EXISTS (SELECT 1 FROM subject_requests WHERE blob_hash = ?1)
     OR EXISTS (SELECT 1 FROM snapshot_contents WHERE hash = ?1)";

/// The contents that something refers to and whose hashes begin with `prefix` (hex digits), in order; with the size in
/// bytes where a row tells it. What is no hash is passed over.
pub fn referenced(connection: &Connection, prefix: &str) -> Result<Vec<(String, Option<u64>)>> {
    let sql = "SELECT r.hash, b.size_bytes FROM (
            SELECT hash FROM object_blobs WHERE hash >= ?1 AND hash < ?2
            UNION SELECT blob_hash FROM uploads WHERE blob_hash >= ?1 AND blob_hash < ?2
            UNION SELECT hash FROM document_artifacts WHERE hash >= ?1 AND hash < ?2
            UNION SELECT archive_hash FROM org_models WHERE archive_hash >= ?1 AND archive_hash < ?2
            UNION SELECT archive_hash FROM model_uploads WHERE archive_hash >= ?1 AND archive_hash < ?2
            UNION SELECT blob_hash FROM subject_requests WHERE blob_hash >= ?1 AND blob_hash < ?2
            UNION SELECT hash FROM snapshot_contents WHERE hash >= ?1 AND hash < ?2
        ) r LEFT JOIN blobs b ON b.hash = r.hash ORDER BY r.hash";
    // `g` sorts behind every hex digit.
    let found: Vec<(String, Option<i64>)> =
        rows(connection, sql, &[prefix, &format!("{prefix}g")], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let hashes = found.into_iter().filter(|(hash, _)| is_hash(hash));
    Ok(hashes.map(|(hash, size_bytes)| (hash, size_bytes.map(i64::unsigned_abs))).collect())
}

/// A caller may write anything where the hash of an artifact is expected.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Those of `hashes` that nothing refers to.
pub fn unreferenced(connection: &Connection, hashes: &[String]) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {IS_REFERENCED}")).map_err(from_sql)?;
    let mut free = Vec::new();
    for hash in hashes {
        if !statement.query_row([hash], |r| r.get::<_, bool>(0)).map_err(from_sql)? {
            free.push(hash.clone());
        }
    }
    Ok(free)
}

/// Forgets contents that nothing refers to; called when their bytes are gone.
pub fn forget_blobs(tx: &Transaction<'_>, hashes: &[String]) -> Result<()> {
    for hash in unreferenced(tx, hashes)? {
        run(tx, "DELETE FROM blobs WHERE hash = ?1", [&hash])?;
    }
    Ok(())
}

/// Contents that nothing refers to and that were named before `before`: what a crash left between a commit and the
/// removal of its bytes.
pub fn stray_blobs(connection: &Connection, before: &str, limit: usize) -> Result<Vec<String>> {
    let referenced = IS_REFERENCED.replace("?1", "b.hash");
    let sql = format!("SELECT hash FROM blobs b WHERE created_at < ? AND NOT ({referenced}) LIMIT {limit}");
    rows(connection, &sql, &[before], |r| r.get(0))
}

/// Those of `hashes` that have no row: their writer died before it named them.
pub fn unnamed(connection: &Connection, hashes: &[String]) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM blobs WHERE hash = ?1").map_err(from_sql)?;
    let mut unnamed = Vec::new();
    for hash in hashes {
        if !statement.exists([hash]).map_err(from_sql)? {
            unnamed.push(hash.clone());
        }
    }
    Ok(unnamed)
}

/// Marks objects as soft-deleted and the documents that descend from them as `state`. Answers how many objects of the
/// bucket were marked, and the last change of each collection touched.
pub fn soft_delete(
    tx: &Transaction<'_>,
    scope: &Scope,
    bucket_id: &str,
    object_ids: &[String],
    mark: &SoftDelete<'_>,
) -> Result<(u64, Vec<(String, i64)>)> {
    let mut marked = 0;
    let mut touched = BTreeMap::new();
    for object_id in object_ids {
        let changed = run(
            tx,
            "UPDATE objects SET body = json_set(body, '$.soft_deleted_at', ?4, '$.soft_delete_reason', ?5, '$.soft_delete_source', ?6),
             fields = json_set(fields, '$.lifecycle_state', ?7), updated_at = ?4
             WHERE object_id = ?1 AND bucket_id = ?2 AND namespace_id = ?3",
            [object_id, bucket_id, &scope.namespace_id, mark.now, mark.reason, mark.source, mark.state],
        )?;
        if changed == 0 {
            continue;
        }
        marked += 1;
        super::tell(tx, "object.updated", scope, object_id, bucket_id)?;
        let descending: Vec<(i64, String, String)> = rows(
            tx,
            "SELECT seq, collection_id, document_id FROM documents WHERE root_object_id = ? AND namespace_id = ?",
            &[object_id.as_str(), &scope.namespace_id],
            |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)),
        )?;
        for (seq, collection, document_id) in descending {
            let change = documents::changed(tx, &collection, seq, false)?;
            webhooks::queue(
                tx,
                &Event::new("document.updated", &scope.namespace_id),
                || json!({ "document_id": document_id, "collection_id": collection, "root_object_id": object_id }),
            )?;
            touched.insert(collection, change);
        }
        run(
            tx,
            "UPDATE documents SET internal_metadata = json_set(internal_metadata, '$.lifecycle_state', ?3), updated_at = ?4
             WHERE root_object_id = ?1 AND namespace_id = ?2",
            [object_id, &scope.namespace_id, mark.state, mark.now],
        )?;
    }
    Ok((marked, touched.into_iter().collect()))
}

/// What a soft delete writes down.
#[derive(Debug, Clone, Copy)]
pub struct SoftDelete<'a> {
    pub state: &'a str,
    pub reason: &'a str,
    pub source: &'a str,
    pub now: &'a str,
}
