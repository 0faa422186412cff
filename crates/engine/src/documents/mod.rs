//! Documents as callers make, read, change and delete them.
//!
//! What derivations write does not pass here; what is read is the same for both.

mod apply;
mod bulk;
mod create;
mod diagnosis;
mod import;
mod lineage;
mod parents;
#[cfg(test)]
mod queries;
mod read;
mod system;
mod upsert;
mod vectors;
mod write;

pub use bulk::{BulkDeleted, ItemOutcome};
pub use create::{CreateOptions, NewDocument};
pub use diagnosis::Diagnosis;
pub use import::{Imported, MAX_PART, Part, Refused};
pub use lineage::{Below, DecompositionTree, ObjectDocuments};
pub(crate) use parents::{below_document, own_step};
pub use read::{DocumentPage, DocumentQuery, Group, Next};
pub use strata_model::acl::ACL;
pub use strata_store::catalog::lineage::{Removed, TierCounts, Touch};
pub use strata_store::catalog::{documents::Mark, payload::Place};
pub(crate) use upsert::is_reserved;
pub use upsert::{Upsert, Upserted};
pub(crate) use vectors::read as read_vector;

use crate::{Engine, collections::load_collection};
use std::collections::{BTreeMap, HashMap, hash_map::Entry};
use strata_model::{
    Fields, Result, Scope,
    document::{Document, Vectors},
    limits,
};
use strata_store::catalog::{browse::Changed, documents, lineage as rows, objects::ObjectBlob, rusqlite::Connection};

/// What an answer shows beside the document itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Show {
    pub vectors: ShowVectors,
    /// The names of the vectors that there are.
    pub vector_names: bool,
    /// Signed URLs of its blobs.
    pub urls: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ShowVectors {
    #[default]
    None,
    All,
    /// Those of these names, which are repeated under the name that they were asked by.
    Named(Vec<String>),
}

/// A document as an answer shows it.
#[derive(Debug, Clone)]
pub struct Shown {
    pub namespace_id: String,
    pub document: Document,
    /// When the document became what searches see; `None` while they do not see its newest change.
    pub searchable_at: Option<String>,
    pub vectors: Option<Vectors>,
    /// Names that vectors were asked by, each with that under which it stands in `vectors`.
    pub asked: Vec<(String, String)>,
    /// The names of the vectors that there are, where they were asked for.
    pub vector_names: Option<Vec<String>>,
    pub urls: Option<Urls>,
}

impl Shown {
    /// A document and nothing beside it.
    pub fn plain(scope: &Scope, document: Document, searchable_at: Option<String>) -> Self {
        Self {
            namespace_id: scope.namespace_id.clone(),
            document,
            searchable_at,
            vectors: None,
            asked: Vec::new(),
            vector_names: None,
            urls: None,
        }
    }
}

/// Signed URLs of a document's blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Urls {
    /// Of the blobs of the source object; those that the document was made from come first.
    pub source: Vec<BlobUrl>,
    /// Of the document's artifacts, in their order; `None` for one that is not stored here.
    pub artifacts: Vec<Option<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobUrl {
    pub blob_id: String,
    pub property: String,
    pub blob_type: String,
    pub media_type: String,
    pub filename: Option<String>,
    pub url: String,
}

/// What a deletion took, by collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    pub collections: BTreeMap<String, Removed>,
}

impl Receipt {
    pub fn total(&self) -> Removed {
        self.collections.values().fold(Removed::default(), |sum, one| Removed {
            documents: sum.documents + one.documents,
            vectors: sum.vectors + one.vectors,
            blobs: sum.blobs + one.blobs,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// Key of an artifact's entry that holds the hash of its content; never shown.
pub use strata_store::catalog::artifacts::HASH as ARTIFACT_HASH;

/// Documents with what their answers need of the catalog.
struct Gathered {
    scope: Scope,
    rows: Vec<Changed>,
    vectors: Option<HashMap<i64, Vectors>>,
    /// By collection: names that vectors were asked by, each with the stored one.
    asked: HashMap<String, Vec<(String, String)>>,
    vector_names: Option<HashMap<i64, Vec<String>>>,
    blobs: Option<BTreeMap<String, Vec<ObjectBlob>>>,
}

/// Reads what `show` asks for, one query for each kind of thing.
fn gather(connection: &Connection, scope: &Scope, rows: Vec<Changed>, show: &Show) -> Result<Gathered> {
    let seqs = || -> Vec<i64> { rows.iter().map(|(d, _)| d.seq).collect() };
    let stored = || documents::vectors_of(connection, scope, &seqs());
    let mut asked = HashMap::new();
    let vectors = match &show.vectors {
        ShowVectors::None => None,
        ShowVectors::All => Some(stored()?),
        ShowVectors::Named(names) => {
            let mut vectors = stored()?;
            asked = keep_named(connection, scope, &rows, &mut vectors, names)?;
            Some(vectors)
        }
    };
    let vector_names = match show.vector_names {
        true => Some(documents::vector_names_of(connection, scope, &seqs())?),
        false => None,
    };
    let blobs = if show.urls {
        let mut objects: Vec<String> = rows.iter().filter_map(|(d, _)| source_object(d).map(str::to_owned)).collect();
        objects.sort_unstable();
        objects.dedup();
        Some(rows::blobs_of(connection, scope, &objects)?)
    } else {
        None
    };
    Ok(Gathered { scope: scope.clone(), rows, vectors, asked, vector_names, blobs })
}

/// Keeps of each document's vectors those that `names` name, in any spelling that its collection knows; answers by
/// collection which name means which.
fn keep_named(
    connection: &Connection,
    scope: &Scope,
    rows: &[Changed],
    vectors: &mut HashMap<i64, Vectors>,
    names: &[String],
) -> Result<HashMap<String, Vec<(String, String)>>> {
    let mut known: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for (document, _) in rows {
        let id = &document.collection_id;
        let own = match known.entry(id.clone()) {
            Entry::Occupied(own) => own.into_mut(),
            Entry::Vacant(place) => {
                let collection = load_collection(connection, scope, id)?;
                let stored = |asked: &String| Some((asked.clone(), collection.vector_index(asked)?.name.clone()));
                place.insert(names.iter().filter_map(stored).collect())
            }
        };
        if let Some(all) = vectors.get_mut(&document.seq) {
            all.retain(|name, _| own.iter().any(|(_, stored)| stored == name));
        }
    }
    Ok(known)
}

/// The object whose blobs a document was made from.
fn source_object(document: &Document) -> Option<&str> {
    document.lineage.root_object_id.as_deref().or(document.lineage.source_object_id.as_deref())
}

impl Engine {
    fn shown(&self, gathered: Gathered) -> Result<Vec<Shown>> {
        let Gathered { scope, rows, mut vectors, asked, mut vector_names, blobs } = gathered;
        let mut applied: BTreeMap<String, i64> = BTreeMap::new();
        let mut shown = Vec::with_capacity(rows.len());
        for (document, change) in rows {
            let seen = match applied.get(&document.collection_id) {
                Some(seen) => *seen,
                None => *applied
                    .entry(document.collection_id.clone())
                    .or_insert(self.index.applied(&document.collection_id)),
            };
            let vectors = vectors.as_mut().map(|all| all.remove(&document.seq).unwrap_or_default());
            let urls = match &blobs {
                Some(blobs) => Some(self.urls_of(&document, blobs)?),
                None => None,
            };
            let has = |(_, stored): &&(String, String)| vectors.as_ref().is_some_and(|all| all.contains_key(stored));
            let asked = asked.get(&document.collection_id).into_iter().flatten().filter(has).cloned().collect();
            let vector_names = vector_names.as_mut().map(|all| all.remove(&document.seq).unwrap_or_default());
            let searchable_at = (seen >= change).then(|| document.updated_at.clone());
            shown.push(Shown { asked, vectors, vector_names, urls, ..Shown::plain(&scope, document, searchable_at) });
        }
        Ok(shown)
    }

    /// Reads what `show` asks for of documents that were found already: a search's hits, for example.
    pub async fn show_documents(&self, scope: &Scope, found: Vec<Document>, show: Show) -> Result<Vec<Shown>> {
        let scope = scope.clone();
        let gathered = self
            .catalog
            .read(move |connection| {
                let rows = found.into_iter().map(|d| (d, 0)).collect();
                gather(connection, &scope, rows, &show)
            })
            .await?;
        self.shown(gathered)
    }

    fn urls_of(&self, document: &Document, blobs: &BTreeMap<String, Vec<ObjectBlob>>) -> Result<Urls> {
        let mut stored: Vec<&ObjectBlob> =
            source_object(document).and_then(|o| blobs.get(o)).into_iter().flatten().collect();
        let rank = |blob: &ObjectBlob| {
            let at = document.source_blobs.iter().position(|s| s.blob_id == blob.blob_id);
            at.unwrap_or(usize::MAX)
        };
        stored.sort_by_key(|blob| rank(blob));
        let url = |blob: &&ObjectBlob| -> Result<BlobUrl> {
            Ok(BlobUrl {
                blob_id: blob.blob_id.clone(),
                property: blob.property.clone(),
                blob_type: blob.blob_type.as_str().to_owned(),
                media_type: blob.media_type.clone(),
                filename: blob.filename.clone(),
                url: self.presigned_blob(blob)?,
            })
        };
        let artifact = |entry: &serde_json::Value| -> Result<Option<String>> {
            let text = |key: &str| entry.get(key).and_then(serde_json::Value::as_str);
            let Some(hash) = text(ARTIFACT_HASH) else { return Ok(None) };
            let media_type = text("content_type").unwrap_or("application/octet-stream");
            self.presigned_get(hash, text("filename"), media_type, limits::PRESIGN_SECONDS).map(Some)
        };
        Ok(Urls {
            source: stored.iter().map(url).collect::<Result<_>>()?,
            artifacts: document.document_blobs.iter().map(artifact).collect::<Result<_>>()?,
        })
    }
}

/// Joins changes so that each collection has its last one only.
fn last_of_each(changes: impl IntoIterator<Item = (String, i64)>) -> Vec<(String, i64)> {
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    for (collection, change) in changes {
        let known = last.entry(collection).or_insert(change);
        *known = (*known).max(change);
    }
    last.into_iter().collect()
}

/// The value under `key` as text; null reads as absent.
fn text_of(fields: &mut Fields, key: &str) -> Result<Option<String>> {
    use serde_json::Value;
    match fields.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= MAX_TEXT => Ok(Some(text)),
        Some(_) => Err(strata_model::Error::invalid(key, format!("must be a string of 1 to {MAX_TEXT} bytes"))),
    }
}

/// Longest id, path or hash that a caller sends.
const MAX_TEXT: usize = 4096;
