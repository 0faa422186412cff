//! What callers do with collections.

use super::{Collection, SourceKind, load_collection, settings};
use crate::{Engine, listing::ListRequest, payload};
use serde_json::json;
use std::sync::Arc;
use strata_model::{Error, Fields, Result, Scope, filter::Filter, id};
use strata_store::catalog::{
    browse::{self, Selection},
    lineage::{self, Reconciliation, Removed},
    resources::{self, Kind},
};

/// What went with a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedCollection {
    pub collection_id: String,
    pub removed: Removed,
    pub derivations: i64,
    /// Collections that read from it; they keep their documents and make no new ones.
    pub disabled: Vec<String>,
}

/// A collection against its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    pub collection_id: String,
    /// At most one more missing object than was asked for, so that the caller sees whether there are more.
    pub found: Reconciliation,
}

impl Engine {
    /// Makes a collection from a request as clients write it.
    pub async fn create_collection(&self, scope: &Scope, mut request: Fields) -> Result<Collection> {
        self.settle_extractor(&mut request)?;
        let (scope, id, now) = (scope.clone(), self.catalog.new_id(id::COLLECTION, 10), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let made = settings::assemble(tx, &scope, None, &request, &id, &now)?;
                resources::insert(tx, Kind::Collection, &made.to_row()?)?;
                payload::declare(tx, &scope, &made.id)?;
                settle(tx, &made)?;
                Ok(made)
            })
            .await
    }

    /// A collection by id or name.
    pub async fn collection(&self, scope: &Scope, identifier: &str) -> Result<Arc<Collection>> {
        let key = format!("collection {} {identifier}", scope.namespace_id);
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog.recall(key, move |connection| load_collection(connection, &scope, &identifier)).await
    }

    /// The scope's collections that are asked for, of all pages.
    pub async fn collections(&self, scope: &Scope, request: &ListRequest) -> Result<Vec<Collection>> {
        let scope = scope.clone();
        let rows = self.catalog.read(move |connection| resources::list(connection, Kind::Collection, &scope)).await?;
        request.kept(rows, |row| row.view(Kind::Collection)).into_iter().map(Collection::from_row).collect()
    }

    /// How many documents these collections have together.
    pub async fn documents_together(&self, scope: &Scope, collection_ids: Vec<String>) -> Result<i64> {
        let scope = scope.clone();
        self.catalog.read(move |connection| browse::count_together(connection, &scope, &collection_ids)).await
    }

    /// How many documents each of these collections has, in their order.
    pub async fn document_counts(&self, scope: &Scope, collection_ids: Vec<String>) -> Result<Vec<i64>> {
        let scope = scope.clone();
        self.catalog
            .read(move |connection| {
                let all = Filter::all();
                let count = |id: &String| browse::count(connection, &scope, Selection::of(Some(id), &all));
                collection_ids.iter().map(count).collect()
            })
            .await
    }

    /// Changes what `request` names. A new extractor or source changes the schema and the vectors at once; documents
    /// follow at the next trigger.
    pub async fn update_collection(&self, scope: &Scope, identifier: &str, mut request: Fields) -> Result<Collection> {
        self.settle_extractor(&mut request)?;
        let (of, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        let (changed, respec) = self
            .catalog
            .write(move |tx| {
                let current = load_collection(tx, &of, &identifier)?;
                let changed = settings::assemble(tx, &of, Some(&current), &request, &current.id, &now)?;
                resources::update(tx, Kind::Collection, &changed.to_row()?)?;
                settle(tx, &changed)?;
                let respec = changed.vector_indexes != current.vector_indexes;
                Ok((changed, respec))
            })
            .await?;
        if respec {
            self.index.respec(&changed.id);
        }
        Ok(changed)
    }

    /// Removes a collection with its documents, their vectors and its derivations. Collections that read from it are
    /// disabled and keep what they have.
    pub async fn delete_collection(&self, scope: &Scope, identifier: &str) -> Result<DeletedCollection> {
        let (of, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        let deleted = self
            .catalog
            .write(move |tx| {
                let gone = load_collection(tx, &of, &identifier)?;
                let mut disabled = Vec::new();
                for mut reader in super::downstream(tx, &gone.id)? {
                    reader.enabled = false;
                    reader.disabled_reason = json!({
                        "code": "source_collection_deleted",
                        "message": format!("`{}`, which this collection reads from, was deleted", gone.name),
                        "source_collection_id": gone.id,
                        "source_collection_name": gone.name,
                        "disabled_at": now,
                    });
                    reader.updated_at = now.clone();
                    resources::update(tx, Kind::Collection, &reader.to_row()?)?;
                    lineage::set_enabled(tx, &reader.id, false)?;
                    disabled.push(reader.id);
                }
                let (removed, derivations) = lineage::remove_collection(tx, &of, &gone.id)?;
                Ok(DeletedCollection { collection_id: gone.id, removed, derivations, disabled })
            })
            .await?;
        let (index, id) = (self.index.clone(), deleted.collection_id.clone());
        let dropped = tokio::task::spawn_blocking(move || index.drop_collection(&id)).await.map_err(Error::internal)?;
        if let Err(error) = dropped {
            tracing::warn!(%error, collection = deleted.collection_id, "a deleted collection's index files stay until the next start");
        }
        Ok(deleted)
    }

    /// Which objects of its source buckets a collection has documents of, and why not of the others.
    pub async fn reconciliation(&self, scope: &Scope, identifier: &str, limit: usize) -> Result<Reconciled> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog
            .read(move |connection| {
                let collection = load_collection(connection, &scope, &identifier)?;
                let buckets = buckets_above(connection, &scope, &collection)?;
                let found = lineage::reconcile(connection, &scope, &collection.id, &buckets, limit + 1)?;
                Ok(Reconciled { collection_id: collection.id, found })
            })
            .await
    }
}

/// The buckets at the root of a collection, through any number of collections.
fn buckets_above(
    connection: &strata_store::catalog::rusqlite::Connection,
    scope: &Scope,
    collection: &Collection,
) -> Result<Vec<String>> {
    match collection.source.kind {
        SourceKind::None => Ok(Vec::new()),
        SourceKind::Bucket => Ok(collection.source.ids.clone()),
        SourceKind::Collection => {
            let mut buckets = Vec::new();
            for above in lineage::upstream(connection, &collection.source.ids)? {
                if resources::find(connection, Kind::Bucket, scope, &above)?.is_some_and(|b| b.id == above) {
                    buckets.push(above);
                }
            }
            Ok(buckets)
        }
    }
}

/// Writes what a collection's row implies elsewhere.
fn settle(tx: &strata_store::catalog::rusqlite::Transaction<'_>, collection: &Collection) -> Result<()> {
    let kind = if collection.source.kind == SourceKind::Bucket { "bucket" } else { "collection" };
    lineage::put_sources(tx, &collection.id, kind, &collection.source.ids)?;
    lineage::set_enabled(tx, &collection.id, collection.enabled)
}
