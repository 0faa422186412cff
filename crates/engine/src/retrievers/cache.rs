//! What executions leave for equal ones: snapshots by their key, each with the state of the collections it was made of.
//!
//! A snapshot is used only while every one of those collections is as it was: the same settings, the same last change in
//! the catalog, and the same last change in the index. So the cache never answers what a fresh execution would not.

use super::backend;
use crate::retrieval::{CollectionInfo, Snapshot};
use lru::LruCache;
use parking_lot::Mutex;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use strata_model::{Error, Result, Scope};
use strata_store::catalog::{
    State, documents,
    resources::{self, Kind},
    rusqlite::Connection,
};

/// Most bytes that all snapshots take, about.
const MAX_BYTES: usize = 64 << 20;
/// Most bytes of a snapshot that is kept, about.
const MAX_ENTRY_BYTES: usize = 8 << 20;

/// A collection as an execution has found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub info: CollectionInfo,
    /// The last change in the catalog.
    pub head: i64,
    /// The last change that searches see.
    pub applied: i64,
}

/// What a list of ids and names has meant, and how those collections were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub identifiers: Vec<String>,
    pub found: Vec<Seen>,
}

impl Resolved {
    pub fn infos(&self) -> Vec<CollectionInfo> {
        self.found.iter().map(|seen| seen.info.clone()).collect()
    }
}

/// Resolves ids or names, none of them meaning every collection of the scope; `applied` tells how far the index is.
pub(super) fn resolve(
    connection: &Connection,
    scope: &Scope,
    identifiers: &[String],
    applied: impl Fn(&str) -> i64,
) -> Result<Vec<Seen>> {
    let rows = if identifiers.is_empty() {
        resources::list(connection, Kind::Collection, scope)?
    } else {
        let mut rows: Vec<resources::Resource> = Vec::with_capacity(identifiers.len());
        for identifier in identifiers {
            let row = resources::find(connection, Kind::Collection, scope, identifier)?;
            let row = row.ok_or_else(|| backend::unknown("collection_identifiers", identifier))?;
            if rows.iter().all(|known| known.id != row.id) {
                rows.push(row);
            }
        }
        rows
    };
    let seen = |row: resources::Resource| {
        // The index before the catalog: what it has taken in by now is not newer than what is read next.
        let applied = applied(&row.id);
        let head = documents::head(connection, &row.id)?;
        Ok(Seen { info: backend::info(row)?, head, applied })
    };
    rows.into_iter().map(seen).collect()
}

/// Whether everything means and is what it was.
pub(super) fn is_unchanged(
    connection: &Connection,
    scope: &Scope,
    resolved: &[Resolved],
    applied: impl Fn(&str) -> i64,
) -> Result<bool> {
    for one in resolved {
        match resolve(connection, scope, &one.identifiers, &applied) {
            Ok(now) if now == one.found => {}
            Ok(_) | Err(Error::Invalid(_)) => return Ok(false),
            Err(other) => return Err(other),
        }
    }
    Ok(true)
}

#[derive(Clone)]
pub(super) struct Kept {
    pub snapshot: Arc<Snapshot>,
    pub resolved: Arc<[Resolved]>,
    /// The catalog's when it was last found to be true.
    pub state: State,
    weight: usize,
    expires: Option<Instant>,
}

impl Kept {
    pub fn new(snapshot: Arc<Snapshot>, resolved: Arc<[Resolved]>, state: State, ttl: Option<Duration>) -> Self {
        let weight = snapshot.weight() + 256 * resolved.iter().map(|one| one.found.len() + 1).sum::<usize>();
        let expires = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        Self { snapshot, resolved, state, weight, expires }
    }

    /// Whether searches see of each collection what they saw.
    pub fn is_applied(&self, applied: impl Fn(&str) -> i64) -> bool {
        let mut seen = self.resolved.iter().flat_map(|one| &one.found);
        seen.all(|seen| seen.applied == applied(&seen.info.collection_id))
    }
}

struct Entries {
    /// By namespace, and reader and key.
    by_key: LruCache<(String, String), Kept>,
    bytes: usize,
}

/// Snapshots of all namespaces; the one not used for longest goes first.
pub(super) struct Cache(Mutex<Entries>);

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_key: LruCache::unbounded(), bytes: 0 }))
    }
}

impl Cache {
    /// What is kept under a key and has not expired.
    pub fn get(&self, scope: &Scope, key: &str) -> Option<Kept> {
        let kept = self.0.lock().by_key.get(&place(scope, key)).cloned()?;
        if kept.expires.is_some_and(|at| at <= Instant::now()) {
            self.forget(scope, key);
            return None;
        }
        Some(kept)
    }

    /// Notes that what is kept was found to be true in a later state of the catalog.
    pub fn confirm(&self, scope: &Scope, key: &str, state: State) {
        if let Some(kept) = self.0.lock().by_key.peek_mut(&place(scope, key)) {
            kept.state = state;
        }
    }

    pub fn forget(&self, scope: &Scope, key: &str) {
        let mut entries = self.0.lock();
        if let Some(gone) = entries.by_key.pop(&place(scope, key)) {
            entries.bytes -= gone.weight;
        }
    }

    pub fn put(&self, scope: &Scope, key: String, kept: Kept) {
        if kept.weight > MAX_ENTRY_BYTES {
            return;
        }
        let mut entries = self.0.lock();
        entries.bytes += kept.weight;
        if let Some(old) = entries.by_key.put(place(scope, &key), kept) {
            entries.bytes -= old.weight;
        }
        while entries.bytes > MAX_BYTES
            && let Some((_, oldest)) = entries.by_key.pop_lru()
        {
            entries.bytes -= oldest.weight;
        }
        metrics::gauge!("strata_retrieval_cache_bytes").set(entries.bytes as f64);
    }
}

/// What was found for one reader is nothing for another.
fn place(scope: &Scope, key: &str) -> (String, String) {
    (scope.namespace_id.clone(), format!("{:?} {key}", scope.reader))
}
