//! Documents that callers bring with their vectors, many at a time: each replaces the one of its id.

use super::{apply, create::MAX_KEY, last_of_each, parents, text_of, vectors};
use crate::{
    Engine,
    collections::{Collection, MAX_VECTOR_INDEXES, load_collection},
    protection::Quotas,
    standalone,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_model::{
    Error, Fields, Result, Scope,
    acl::{self, ACL},
    document::{Document, SourceType},
    feature::{VectorIndex, VectorKind},
    id, limits,
};
use strata_store::catalog::{
    access, documents, lineage,
    resources::{self, Kind},
    rusqlite::Transaction,
};

/// Most documents of one request.
pub const MAX_UPSERT: usize = 1000;
/// Longest id of a caller's own, in bytes.
const MAX_ID: usize = 255;
/// Names that a payload cannot have beside those of identity and lineage: every document shows something of its own there.
const RESERVED: [&str; 7] =
    ["lineage_chain", "vectors", "features", "acl", "content_hash", "document_schema_version", "metadata"];

pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || apply::FIXED.contains(&name)
}

/// Documents to be.
#[derive(Debug, Clone)]
pub struct Upsert {
    /// By id or name; the namespace's own for brought documents where it is `None`.
    pub collection: Option<String>,
    /// Each `document_id`, `vectors`, `payload`, `metadata`, `acl`, `content_hash` and lineage.
    pub documents: Vec<Fields>,
    /// Makes a repeat of the request answer what the first one did.
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upserted {
    pub collection_id: String,
    /// In the order of the request.
    pub document_ids: Vec<String>,
    /// Payload names that were left out, by document.
    pub dropped: BTreeMap<String, Vec<String>>,
    /// Documents without a vector.
    pub without_vectors: Vec<String>,
    /// The change that the index must reach before searches see all of them.
    pub change: i64,
    /// Whether searches see them now.
    pub is_visible: bool,
}

impl Engine {
    /// Writes documents, all of them or none. Vectors that the collection does not have are added where the namespace
    /// makes its indexes itself.
    pub async fn upsert_documents(&self, scope: &Scope, request: Upsert) -> Result<Upserted> {
        if request.documents.is_empty() || request.documents.len() > MAX_UPSERT {
            return Err(Error::invalid("documents", format!("must be 1 to {MAX_UPSERT} documents")));
        }
        if request.idempotency_key.as_ref().is_some_and(|k| k.is_empty() || k.len() > MAX_KEY) {
            return Err(Error::invalid("options.idempotency_key", format!("must be 1 to {MAX_KEY} bytes")));
        }
        let hash = id::sha256_hex(&serde_json::to_vec(&request.documents).map_err(Error::internal)?);
        let brought = request.documents.into_iter().enumerate();
        let brought = brought
            .map(|(i, sent)| Brought::parse(sent).map_err(|e| e.under(&format!("documents.{i}"))))
            .collect::<Result<_>>()?;
        let (of, now) = (scope.clone(), self.catalog.now());
        let (collection, key, quotas) = (request.collection, request.idempotency_key, self.config.allowed.quotas);
        let write = Write { collection, brought, key, hash, now, quotas };
        let (mut done, grown, followed) = self.catalog.write(move |tx| write.run(tx, &of)).await?;
        if grown {
            self.index.respec(&done.collection_id);
        }
        self.indexed(last_of_each(followed), true).await;
        self.indexed(vec![(done.collection_id.clone(), done.change)], true).await;
        done.is_visible = self.index.applied(&done.collection_id) >= done.change;
        Ok(done)
    }
}

/// A document as it was sent, read.
pub(super) struct Brought {
    pub document_id: String,
    claim: parents::Claim,
    content_hash: Option<String>,
    vectors: Fields,
    fields: Fields,
    /// Payload names that are left out.
    pub dropped: Vec<String>,
    acl: Option<Fields>,
}

impl Brought {
    pub fn parse(mut sent: Fields) -> Result<Self> {
        let document_id = sent.remove("document_id").and_then(|id| id.as_str().map(str::to_owned));
        let fits = |id: &String| (1..=MAX_ID).contains(&id.len()) && !id.chars().any(char::is_control);
        let document_id = document_id.filter(fits).ok_or_else(|| {
            Error::invalid("document_id", format!("is required: 1 to {MAX_ID} bytes without control characters"))
        })?;
        let mut object = |key: &str| match sent.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(Error::invalid(key, "must be an object")),
        };
        let (vectors, payload, metadata, acl) =
            (object("vectors")?, object("payload")?, object("metadata")?, object("acl")?);
        let acl = acl.map(|sent| acl::check(sent, "acl")).transpose()?.filter(|acl| !acl.is_empty());
        let (reserved, mut fields): (Fields, Fields) = payload
            .unwrap_or_default()
            .into_iter()
            .partition(|(name, _)| is_reserved(name) && (name != "metadata" || metadata.is_some()));
        let mut dropped: Vec<String> = reserved.into_iter().map(|(name, _)| name).collect();
        if fields.get("metadata").is_some_and(|own| !own.is_object()) {
            fields.remove("metadata");
            dropped.push("metadata".into());
        }
        let before: Vec<String> = fields.keys().cloned().collect();
        let mut fields = apply::own_fields(fields);
        dropped.extend(before.into_iter().filter(|name| !fields.contains_key(name)));
        if let Some(metadata) = metadata {
            fields.insert("metadata".into(), Value::Object(metadata));
        }
        let content_hash = text_of(&mut sent, "content_hash")?;
        let mut claim = parents::claim(&mut sent)?;
        claim.source_type.get_or_insert(SourceType::DirectUpsert);
        if let Some(unknown) = sent.keys().next() {
            return Err(Error::invalid(
                unknown.as_str(),
                "is not a field of a document; the document's own fields go into `payload`",
            ));
        }
        Ok(Self { document_id, claim, content_hash, vectors: vectors.unwrap_or_default(), fields, dropped, acl })
    }
}

/// The last change of each collection that was touched.
type Touched = Vec<(String, i64)>;

struct Write {
    collection: Option<String>,
    brought: Vec<Brought>,
    key: Option<String>,
    hash: String,
    now: String,
    quotas: Quotas,
}

impl Write {
    /// Answers what was written, whether the collection has new vectors, and the changes of what follows access lists.
    fn run(self, tx: &Transaction<'_>, scope: &Scope) -> Result<(Upserted, bool, Touched)> {
        let mut target = Target::load(tx, scope, self.collection.as_deref(), self.now)?;
        let place = format!("{}/upsert/{}", scope.namespace_id, target.collection.id);
        if let Some(key) = &self.key
            && let Some((request, response)) = lineage::earlier_request(tx, &place, key)?
        {
            if request != self.hash {
                return Err(Error::Conflict(format!("the idempotency key `{key}` was used for another request")));
            }
            return Ok((remembered(&response)?, false, Vec::new()));
        }
        let mut done = Upserted {
            collection_id: target.collection.id.clone(),
            document_ids: Vec::with_capacity(self.brought.len()),
            dropped: BTreeMap::new(),
            without_vectors: Vec::new(),
            change: 0,
            is_visible: false,
        };
        let meter = self.quotas.meter(tx, scope)?;
        for (i, mut brought) in self.brought.into_iter().enumerate() {
            let id = brought.document_id.clone();
            let dropped = std::mem::take(&mut brought.dropped);
            let written = target.put(tx, scope, brought).map_err(|e| e.under(&format!("documents.{i}")))?;
            done.change = written.change;
            if !written.has_vectors {
                done.without_vectors.push(id.clone());
            }
            if !dropped.is_empty() {
                done.dropped.insert(id.clone(), dropped);
            }
            done.document_ids.push(id);
        }
        meter.check(tx)?;
        if let Some(key) = &self.key {
            lineage::keep_request(tx, &place, key, &self.hash, &kept(&done), &target.now)?;
        }
        Ok((done, target.has_grown, target.followed))
    }
}

/// The collection that documents are written target.
pub(super) struct Target {
    pub collection: Collection,
    /// Vectors that it does not have are added.
    grows: bool,
    /// Some were.
    pub has_grown: bool,
    /// Changes of documents that took over an access list.
    pub followed: Vec<(String, i64)>,
    now: String,
}

/// What one document became.
pub(super) struct Put {
    /// The change that the index must reach.
    pub change: i64,
    pub has_vectors: bool,
}

impl Target {
    /// `named` is an id or a name; where it is `None`, the collection of a standalone namespace is meant.
    pub fn load(tx: &Transaction<'_>, scope: &Scope, named: Option<&str>, now: String) -> Result<Self> {
        let found = load_collection(tx, scope, named.unwrap_or(standalone::COLLECTION));
        let collection = found.map_err(|error| match (error, named) {
            (Error::Missing { .. }, None) => Error::invalid(
                "collection_id",
                "is required, since this namespace was not made for documents that come with their vectors",
            ),
            (error, _) => error,
        })?;
        let namespace = lineage::namespace_body(tx, &scope.namespace_id)?.unwrap_or_default();
        let grows = standalone::is_standalone(&namespace)
            && namespace.get("auto_create_indexes").and_then(Value::as_bool).unwrap_or(false);
        Ok(Self { collection, grows, has_grown: false, followed: Vec::new(), now })
    }

    /// Writes one document. An error leaves nothing of it.
    pub fn put(&mut self, tx: &Transaction<'_>, scope: &Scope, brought: Brought) -> Result<Put> {
        let mut fields = brought.fields;
        apply::check_schema(&self.collection, &mut fields).map_err(|e| e.under("payload"))?;
        let lineage = parents::complete(tx, scope, &self.collection, brought.claim, true, &self.now)?;
        self.grow(tx, &brought.vectors)?;
        let vectors = vectors::check(&self.collection, &brought.vectors, "vectors")?;
        let mut internal = Fields::from_iter([("ingestion_status".to_owned(), Value::from("COMPLETED"))]);
        let has_list = brought.acl.is_some();
        if let Some(acl) = brought.acl {
            internal.insert(ACL.to_owned(), Value::Object(acl));
        }
        let document = Document {
            seq: 0,
            lineage,
            document_id: brought.document_id,
            collection_id: self.collection.id.clone(),
            fields,
            source_blobs: Vec::new(),
            document_blobs: Vec::new(),
            internal_metadata: internal,
            content_hash: brought.content_hash,
            derivation_id: None,
            created_at: self.now.clone(),
            updated_at: self.now.clone(),
        };
        let (_, change) = documents::put(tx, scope, &document, 0, &vectors)?;
        if has_list {
            self.followed.extend(access::spread(tx, scope, &document)?);
        }
        Ok(Put { change, has_vectors: !vectors.is_empty() })
    }

    /// Adds those of the vectors that the collection does not have, where the namespace wants that.
    fn grow(&mut self, tx: &Transaction<'_>, vectors: &Fields) -> Result<()> {
        let has = |name: &String| self.collection.vector_index(name).is_some();
        let unknown = vectors.iter().filter(|(name, value)| self.grows && !value.is_null() && !has(name));
        let new = unknown.map(|(name, value)| inferred(name, value, &format!("vectors.{name}")));
        let new: Vec<VectorIndex> = new.collect::<Result<_>>()?;
        if new.is_empty() {
            return Ok(());
        }
        if self.collection.vector_indexes.len() + new.len() > MAX_VECTOR_INDEXES {
            return Err(Error::invalid("vectors", format!("are at most {MAX_VECTOR_INDEXES} in a collection")));
        }
        self.collection.bring(new);
        self.now.clone_into(&mut self.collection.updated_at);
        self.has_grown = true;
        resources::update(tx, Kind::Collection, &self.collection.to_row()?)
    }
}

/// The index of a vector that was never seen before.
fn inferred(name: &str, value: &Value, at: &str) -> Result<VectorIndex> {
    let row = value.as_array().and_then(|list| list.first()).and_then(Value::as_array);
    let (kind, length) = match (value, row) {
        (Value::Object(_), _) => (VectorKind::Sparse, None),
        (Value::Array(_), Some(row)) => (VectorKind::MultiDense, Some(row.len())),
        (Value::Array(list), None) => (VectorKind::Dense, Some(list.len())),
        _ => return Err(Error::invalid(at, "must be an array of numbers, of rows, or `{indices, values}`")),
    };
    if length.is_some_and(|length| !(1..=limits::MAX_DIMENSIONS).contains(&length)) {
        return Err(Error::invalid(at, format!("must have 1 to {} numbers", limits::MAX_DIMENSIONS)));
    }
    let mut spec = json!({ "name": name, "type": match kind {
        VectorKind::Sparse => "sparse",
        VectorKind::MultiDense => "multi_dense",
        VectorKind::Dense => "dense",
    } });
    if let Some(length) = length {
        spec["dimension"] = length.into();
    }
    let parsed = crate::collections::parse_vectors(&json!([spec]), at)?;
    parsed.into_iter().next().ok_or_else(|| Error::internal("one vector in, one index out"))
}

/// What a repeat of the request answers.
fn kept(done: &Upserted) -> String {
    json!({
        "collection_id": done.collection_id,
        "document_ids": done.document_ids,
        "dropped": done.dropped,
        "without_vectors": done.without_vectors,
        "change": done.change,
    })
    .to_string()
}

fn remembered(kept: &str) -> Result<Upserted> {
    let mut json: Fields = serde_json::from_str(kept).map_err(Error::internal)?;
    fn take<T: serde::de::DeserializeOwned>(json: &mut Fields, key: &str) -> Result<T> {
        serde_json::from_value(json.remove(key).unwrap_or_default())
            .map_err(|e| Error::internal(format!("a kept answer's `{key}`: {e}")))
    }
    Ok(Upserted {
        collection_id: take(&mut json, "collection_id")?,
        document_ids: take(&mut json, "document_ids")?,
        dropped: take(&mut json, "dropped")?,
        without_vectors: take(&mut json, "without_vectors")?,
        change: take(&mut json, "change")?,
        is_visible: false,
    })
}
