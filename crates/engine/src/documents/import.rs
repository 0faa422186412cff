//! Documents that callers bring, in any number: part after part, each part one commit, and each document for itself.

use super::{
    last_of_each,
    upsert::{Brought, Target},
};
use crate::Engine;
use strata_model::{Error, Fields, Result, Scope};

/// Most documents of one part.
pub const MAX_PART: usize = 1000;

/// Some of the documents of an import.
#[derive(Debug, Clone)]
pub struct Part {
    /// By id or name; the namespace's own for brought documents where it is `None`.
    pub collection: Option<String>,
    /// Each as [`super::Upsert`] has it, with the number of its line.
    pub documents: Vec<(u64, Fields)>,
}

/// What became of a part.
#[derive(Debug)]
pub struct Imported {
    pub collection_id: String,
    /// How many documents were written.
    pub written: usize,
    /// How many of them have no vector.
    pub without_vectors: usize,
    /// How many of them lost some fields of their payload, whose names every document uses for something else.
    pub dropped: usize,
    pub refused: Vec<Refused>,
    /// The change that the index must reach before searches see all of them; 0 where none was written.
    pub change: i64,
}

/// A document that was not written.
#[derive(Debug)]
pub struct Refused {
    pub line: u64,
    /// Where it had one that can be read.
    pub document_id: Option<String>,
    pub error: Error,
}

impl Engine {
    /// Writes what can be written of a part in one commit; each document replaces the one of its id. Does not wait for the
    /// index: [`Engine::wait_searchable`] does.
    pub async fn import_documents(&self, scope: &Scope, part: Part) -> Result<Imported> {
        let mut refused = Vec::new();
        let mut brought = Vec::with_capacity(part.documents.len());
        for (line, sent) in part.documents {
            let document_id = sent.get("document_id").and_then(|id| id.as_str()).map(str::to_owned);
            match Brought::parse(sent) {
                Ok(parsed) => brought.push((line, parsed)),
                Err(error) => refused.push(Refused { line, document_id, error }),
            }
        }
        let (of, now, collection) = (scope.clone(), self.catalog.now(), part.collection);
        let quotas = self.config.allowed.quotas;
        let write = self.catalog.write(move |tx| {
            let mut target = Target::load(tx, &of, collection.as_deref(), now)?;
            let meter = quotas.meter(tx, &of)?;
            let (mut written, mut without_vectors, mut dropped, mut change) = (0, 0, 0, 0);
            for (line, brought) in brought {
                let (document_id, has_dropped) = (Some(brought.document_id.clone()), !brought.dropped.is_empty());
                match target.put(tx, &of, brought) {
                    Ok(put) => {
                        written += 1;
                        without_vectors += usize::from(!put.has_vectors);
                        dropped += usize::from(has_dropped);
                        change = put.change;
                    }
                    Err(error) if is_of_the_document(&error) => refused.push(Refused { line, document_id, error }),
                    Err(error) => return Err(error),
                }
            }
            meter.check(tx)?;
            refused.sort_by_key(|refused| refused.line);
            let collection_id = target.collection.id;
            let done = Imported { collection_id, written, without_vectors, dropped, refused, change };
            Ok((done, target.has_grown, target.followed))
        });
        let (done, has_grown, followed) = write.await?;
        if has_grown {
            self.index.respec(&done.collection_id);
        }
        self.indexed(last_of_each(followed), false).await;
        if done.written > 0 {
            self.indexed(vec![(done.collection_id.clone(), done.change)], false).await;
        }
        Ok(done)
    }

    /// Waits until searches see a change of a collection, but not for ever; answers whether they do.
    pub async fn wait_searchable(&self, collection_id: &str, change: i64) -> bool {
        self.indexed(vec![(collection_id.to_owned(), change)], true).await;
        self.index.applied(collection_id) >= change
    }
}

/// Whether another document may fare better.
fn is_of_the_document(error: &Error) -> bool {
    matches!(
        error,
        Error::Invalid(_)
            | Error::Malformed(_)
            | Error::Conflict(_)
            | Error::Missing { .. }
            | Error::Forbidden(_)
            | Error::TooLarge(_)
    )
}
