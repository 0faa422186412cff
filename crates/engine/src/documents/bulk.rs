//! Changing and deleting many documents at once.

use super::{
    Receipt,
    apply::{Change, How},
    last_of_each,
    write::{changed, removed},
};
use crate::{Engine, collections::load_collection};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use strata_model::{Error, Fields, Result, Scope, document::Document, filter::Filter};
use strata_store::catalog::{
    access,
    browse::{self, Selection},
    documents,
    resources::{self, Kind},
    rusqlite::Transaction,
    webhooks::{self, Event},
};

/// Documents that one transaction of a bulk update changes, so that other writers get their turn.
const CHUNK: usize = 500;

/// What became of one item of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemOutcome {
    pub document_id: String,
    /// Why it was not done.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct BulkDeleted {
    pub receipt: Receipt,
    /// One for each document that was named or matched.
    pub outcomes: Vec<ItemOutcome>,
}

/// Most ids that one event names.
const MAX_TOLD: usize = 1_000;

/// Tells whoever wants it what became of several documents of a collection, if there are any.
fn tell<'d>(
    tx: &Transaction<'_>,
    event_type: &'static str,
    scope: &Scope,
    collection_id: &str,
    ids: impl Iterator<Item = &'d str>,
) -> Result<()> {
    let ids: Vec<&str> = ids.collect();
    if ids.is_empty() {
        return Ok(());
    }
    webhooks::queue(tx, &Event::new(event_type, &scope.namespace_id), || {
        json!({
            "collection_id": collection_id,
            "count": ids.len(),
            "document_ids": ids.get(..MAX_TOLD).unwrap_or(&ids),
        })
    })
}

impl Engine {
    /// Removes documents of a collection by id; one that is not there is an outcome, not an error. One that is named
    /// twice is one outcome.
    pub async fn delete_documents(
        &self,
        scope: &Scope,
        collection: &str,
        mut ids: Vec<String>,
        cascade: bool,
        wait: bool,
    ) -> Result<BulkDeleted> {
        let (of, collection) = (scope.clone(), collection.to_owned());
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        self.delete_many(wait, move |tx| {
            let within = resources::get(tx, Kind::Collection, &of, &collection)?.id;
            let found = browse::by_ids(tx, &of, Some(&within), &ids)?;
            let by_id: HashMap<String, Document> = found.into_iter().map(|(d, _)| (d.document_id.clone(), d)).collect();
            let (mut outcomes, mut roots) = (Vec::with_capacity(ids.len()), Vec::with_capacity(by_id.len()));
            for id in &ids {
                let checked = by_id.get(id).ok_or_else(|| Error::missing("document", id));
                let checked =
                    checked.and_then(|document| access::check_change(&of, document).map(|()| document.clone()));
                let error = checked.map(|document| roots.push(document)).err().map(|error| error.to_string());
                outcomes.push(ItemOutcome { document_id: id.clone(), error });
            }
            let (receipt, touched) = removed(tx, &of, &roots, cascade)?;
            tell(tx, "documents.deleted.batch", &of, &within, roots.iter().map(|d| d.document_id.as_str()))?;
            Ok((BulkDeleted { receipt, outcomes }, touched))
        })
        .await
    }

    /// Removes the documents of a collection that satisfy `filter`, among those that the scope's reader may change.
    pub async fn delete_documents_where(
        &self,
        scope: &Scope,
        collection: &str,
        filter: Filter,
        cascade: bool,
        wait: bool,
    ) -> Result<BulkDeleted> {
        let (of, collection) = (scope.clone(), collection.to_owned());
        self.delete_many(wait, move |tx| {
            let within = resources::get(tx, Kind::Collection, &of, &collection)?.id;
            let seqs = browse::seqs(tx, &of, Selection::of(Some(&within), &filter))?;
            let mut roots = documents::fetch(tx, &of, &seqs)?;
            roots.retain(|document| access::check_change(&of, document).is_ok());
            let outcome = |d: &Document| ItemOutcome { document_id: d.document_id.clone(), error: None };
            let outcomes = roots.iter().map(outcome).collect();
            let (receipt, touched) = removed(tx, &of, &roots, cascade)?;
            tell(tx, "documents.deleted.batch", &of, &within, roots.iter().map(|d| d.document_id.as_str()))?;
            Ok((BulkDeleted { receipt, outcomes }, touched))
        })
        .await
    }

    async fn delete_many<F>(&self, wait: bool, work: F) -> Result<BulkDeleted>
    where
        F: FnOnce(&Transaction<'_>) -> Result<(BulkDeleted, Vec<(String, i64)>)> + Send + 'static,
    {
        let (deleted, touched) = self.catalog.write(work).await?;
        self.indexed(touched, wait).await;
        Ok(deleted)
    }

    /// Sets in each document of a collection its own fields; names with dots reach inside objects. One that cannot be done
    /// is an outcome; the others are.
    pub async fn update_documents(
        &self,
        scope: &Scope,
        collection: &str,
        updates: Vec<(String, Fields)>,
        wait: bool,
    ) -> Result<Vec<ItemOutcome>> {
        let (of, collection, now) = (scope.clone(), collection.to_owned(), self.catalog.now());
        let (outcomes, touched) = self
            .catalog
            .write(move |tx| {
                let collection = load_collection(tx, &of, &collection)?;
                let (mut outcomes, mut touched) = (Vec::new(), Vec::new());
                for (document_id, request) in updates {
                    let done = Change::parse(request, How::Assign).and_then(|change| {
                        let document = documents::get(tx, &of, Some(&collection.id), &document_id)?;
                        changed(tx, &of, &document, &collection, &change, &now)
                    });
                    let error = match done {
                        Ok((document, change)) => {
                            touched.push((document.collection_id, change));
                            None
                        }
                        Err(error @ (Error::Invalid(_) | Error::Missing { .. } | Error::Forbidden(_))) => {
                            Some(error.to_string())
                        }
                        Err(ours) => return Err(ours),
                    };
                    outcomes.push(ItemOutcome { document_id, error });
                }
                let done = outcomes.iter().filter(|outcome| outcome.error.is_none());
                let ids = done.map(|outcome| outcome.document_id.as_str());
                tell(tx, "documents.updated.batch", &of, &collection.id, ids)?;
                Ok((outcomes, last_of_each(touched)))
            })
            .await?;
        self.indexed(touched, wait).await;
        Ok(outcomes)
    }

    /// Sets the fields of `request` in every document of a collection that satisfies `filter` and that the scope's reader may
    /// change; answers how many changed. The documents are changed in parts, each of them whole.
    pub async fn update_documents_where(
        &self,
        scope: &Scope,
        collection: &str,
        filter: Filter,
        request: Fields,
        wait: bool,
    ) -> Result<usize> {
        let change = std::sync::Arc::new(Change::parse(request, How::Assign)?);
        let (of, named, wanted) = (scope.clone(), collection.to_owned(), filter.clone());
        let (collection, seqs) = self
            .catalog
            .read(move |connection| {
                let collection = load_collection(connection, &of, &named)?;
                let seqs = browse::seqs(connection, &of, Selection::of(Some(&collection.id), &wanted))?;
                Ok((std::sync::Arc::new(collection), seqs))
            })
            .await?;
        let (mut count, mut last) = (0, Vec::new());
        for part in seqs.chunks(CHUNK) {
            let (of, part, filter) = (scope.clone(), part.to_vec(), filter.clone());
            let (collection, change, now) = (collection.clone(), change.clone(), self.catalog.now());
            let touched = self
                .catalog
                .write(move |tx| {
                    let (mut touched, mut ids) = (Vec::new(), Vec::new());
                    for document in documents::fetch(tx, &of, &part)? {
                        // It may have changed since the list was read.
                        if filter.matches(&document.view()) && access::check_change(&of, &document).is_ok() {
                            let (document, number) = changed(tx, &of, &document, &collection, &change, &now)?;
                            touched.push((document.collection_id, number));
                            ids.push(document.document_id);
                        }
                    }
                    tell(tx, "documents.updated.batch", &of, &collection.id, ids.iter().map(String::as_str))?;
                    Ok(touched)
                })
                .await?;
            count += touched.len();
            last = last_of_each(last.into_iter().chain(touched));
        }
        self.indexed(last, wait).await;
        Ok(count)
    }
}
