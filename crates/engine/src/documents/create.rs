//! Creating a document directly.

use super::{Show, Shown, apply, gather, parents, system::System, text_of, vectors};
use crate::{Engine, audit, collections::Collection, protection::Quotas};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use strata_model::{
    Error, Fields, Result, Scope,
    acl::{self, ACL},
    document::{Document, Lineage, SourceBlob, Vectors},
    id,
};
use strata_store::catalog::{access, documents, lineage, rusqlite::Transaction};

/// Longest key under which a request is repeated.
pub(super) const MAX_KEY: usize = 255;

/// A document to be, as a caller wrote it.
#[derive(Debug, Clone)]
pub struct NewDocument {
    collection_id: Option<String>,
    document_id: Option<String>,
    claim: parents::Claim,
    content_hash: Option<String>,
    /// As sent, by name or by feature.
    vectors: Fields,
    features: Vec<apply::Feature>,
    fields: Fields,
    source_blobs: Vec<SourceBlob>,
    document_blobs: Vec<Value>,
    internal_metadata: Fields,
    /// SHA-256 of the request, to tell a repeat from another request under the same key; where there is one.
    request: Option<String>,
}

/// How a document is created.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Whether to answer only when searches see the document.
    pub wait: bool,
    /// Whether parents may be named that are not there, as imports do.
    pub allow_missing_parents: bool,
    /// Makes a repeat of the request answer what the first one did.
    pub idempotency_key: Option<String>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self { wait: true, allow_missing_parents: false, idempotency_key: None }
    }
}

impl NewDocument {
    /// Reads a request: what it says of lineage, vectors and features, and the caller's own fields, which are the rest.
    /// `has_key` says whether it comes with an [`CreateOptions::idempotency_key`].
    pub fn parse(mut fields: Fields, has_key: bool) -> Result<Self> {
        let request = match has_key {
            true => Some(id::sha256_hex(&serde_json::to_vec(&fields).map_err(Error::internal)?)),
            false => None,
        };
        let claim = parents::claim(&mut fields)?;
        let document_id = text_of(&mut fields, "document_id")?;
        if let Some(id) = document_id.as_ref().filter(|id| !id::has_prefix(id, id::DOCUMENT) || id.len() > 128) {
            return Err(Error::invalid(
                "document_id",
                format!("`{id}` must be `doc_` and at most 124 letters or digits"),
            ));
        }
        let system = System::take(&mut fields)?;
        let mut internal_metadata = system.internal_metadata.unwrap_or_default();
        if let Some(version) = text_of(&mut fields, "document_schema_version")? {
            internal_metadata.insert("document_schema_version".into(), version.into());
        }
        if let Some(sent) = internal_metadata.remove(ACL).filter(|sent| !sent.is_null()) {
            let at = "internal_metadata._acl";
            let Value::Object(sent) = sent else { return Err(Error::invalid(at, "must be an object")) };
            internal_metadata.insert(ACL.to_owned(), Value::Object(acl::check(sent, at)?));
        }
        internal_metadata.entry("ingestion_status").or_insert_with(|| "COMPLETED".into());
        if fields.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) {
            return Err(Error::invalid("metadata", "must be an object"));
        }
        let new = Self {
            collection_id: text_of(&mut fields, "collection_id")?,
            document_id,
            claim,
            content_hash: text_of(&mut fields, "content_hash")?,
            vectors: apply::vectors_of(&mut fields)?,
            features: apply::features_of(&mut fields)?,
            source_blobs: system.source_blobs.unwrap_or_default(),
            document_blobs: system.document_blobs.unwrap_or_default(),
            internal_metadata,
            request,
            fields: apply::own_fields(fields),
        };
        Ok(new)
    }

    /// Its vectors, checked.
    fn checked_vectors(&self, collection: &Collection) -> Result<Vectors> {
        let mut checked = vectors::check(collection, &self.vectors, "vectors")?;
        for (i, feature) in self.features.iter().enumerate() {
            checked.extend(feature.checked_vectors(collection, &format!("features.{i}.vectors"))?);
        }
        Ok(checked)
    }
}

impl Engine {
    /// Creates a document in a collection, named by id or name.
    pub async fn create_document(
        &self,
        scope: &Scope,
        collection: &str,
        new: NewDocument,
        options: CreateOptions,
    ) -> Result<Shown> {
        if let Some(key) = options.idempotency_key.as_ref().filter(|k| k.is_empty() || k.len() > MAX_KEY) {
            return Err(Error::invalid("Idempotency-Key", format!("must be 1 to {MAX_KEY} bytes, not {}", key.len())));
        }
        let collection = self.collection(scope, collection).await?;
        if let Some(said) = new.collection_id.as_ref().filter(|id| **id != collection.id && **id != collection.name) {
            return Err(Error::invalid(
                "collection_id",
                format!("is `{said}`, but the path names `{}`", collection.id),
            ));
        }
        let vectors = new.checked_vectors(&collection)?;
        let mut fields = new.fields;
        for feature in new.features {
            for (name, value) in feature.payload {
                fields.entry(name).or_insert(value);
            }
        }
        apply::check_schema(&collection, &mut fields)?;
        let (wait, is_named, now) = (options.wait, new.document_id.is_some(), self.catalog.now());
        let document = Document {
            seq: 0,
            document_id: new.document_id.unwrap_or_else(|| self.catalog.new_timed_id(id::DOCUMENT)),
            collection_id: collection.id.clone(),
            lineage: Lineage::default(),
            fields,
            source_blobs: new.source_blobs,
            document_blobs: new.document_blobs,
            internal_metadata: new.internal_metadata,
            content_hash: new.content_hash,
            derivation_id: None,
            created_at: now.clone(),
            updated_at: now,
        };
        let making = Making {
            scope: scope.clone(),
            collection,
            claim: new.claim,
            request: new.request,
            options,
            is_named,
            document,
            remembered: None,
            vectors,
            quotas: self.config.allowed.quotas,
        };
        audit::about(&making.document.document_id);
        let (making, change) = self.catalog.write_again(making, Duration::ZERO, |making, tx| making.write(tx)).await?;
        let document = making.remembered.unwrap_or(making.document);
        audit::about(&document.document_id);
        self.indexed(vec![(document.collection_id.clone(), change)], wait).await;
        let seen = self.index.applied(&document.collection_id) >= change;
        let searchable_at = seen.then(|| document.updated_at.clone());
        Ok(Shown::plain(scope, document, searchable_at))
    }

    /// Reads vectors and URLs for a document that was just written.
    pub async fn show_more(&self, scope: &Scope, shown: Shown, show: &Show) -> Result<Shown> {
        if *show == Show::default() {
            return Ok(shown);
        }
        let (of, asked, searchable_at) = (scope.clone(), show.clone(), shown.searchable_at);
        let row = (shown.document, 0);
        let gathered = self.catalog.read(move |connection| gather(connection, &of, vec![row], &asked)).await?;
        let more = self.shown(gathered)?.pop().ok_or_else(|| Error::internal("one document in, one out"))?;
        Ok(Shown { searchable_at, ..more })
    }
}

/// Everything a create needs inside its transaction.
struct Making {
    scope: Scope,
    collection: Arc<Collection>,
    claim: parents::Claim,
    request: Option<String>,
    options: CreateOptions,
    /// Whether the caller chose the id.
    is_named: bool,
    /// Complete but for its lineage and number.
    document: Document,
    /// What the first request of the same key made.
    remembered: Option<Document>,
    vectors: Vectors,
    quotas: Quotas,
}

impl Making {
    /// Answers the change that the index must reach.
    fn write(&mut self, tx: &Transaction<'_>) -> Result<i64> {
        let place = format!("{}/documents/{}", self.scope.namespace_id, self.collection.id);
        let repeatable = self.options.idempotency_key.as_ref().zip(self.request.as_ref());
        if let Some((key, own)) = repeatable
            && let Some((request, response)) = lineage::earlier_request(tx, &place, key)?
        {
            if request != *own {
                return Err(Error::Conflict(format!("the Idempotency-Key `{key}` was used for another request")));
            }
            self.remembered = Some(remembered(&response)?);
            return Ok(0);
        }
        let (allow_missing, now) = (self.options.allow_missing_parents, &self.document.created_at);
        self.document.lineage =
            parents::complete(tx, &self.scope, &self.collection, self.claim.clone(), allow_missing, now)?;
        // Also one that the caller does not see.
        let everything = self.scope.for_server();
        if self.is_named && documents::exists(tx, &everything, None, &self.document.document_id)? {
            return Err(Error::Conflict(format!("a document `{}` exists already", self.document.document_id)));
        }
        if self.document.acl().is_none()
            && let Some(inherited) = access::inherited(tx, &self.scope, &self.document)?
        {
            self.document.internal_metadata.insert(ACL.to_owned(), inherited);
        }
        let meter = self.quotas.meter(tx, &self.scope)?;
        let (seq, change) = documents::add(tx, &self.scope, &self.document, &self.vectors)?;
        meter.check(tx)?;
        self.document.seq = seq;
        if let Some((key, own)) = repeatable {
            lineage::keep_request(tx, &place, key, own, &kept(&self.document), &self.document.created_at)?;
        }
        Ok(change)
    }
}

/// A document as the answer to a repeated request keeps it.
fn kept(document: &Document) -> String {
    json!({
        "seq": document.seq,
        "document_id": document.document_id,
        "collection_id": document.collection_id,
        "lineage": document.lineage,
        "fields": document.fields,
        "source_blobs": document.source_blobs,
        "document_blobs": document.document_blobs,
        "internal_metadata": document.internal_metadata,
        "content_hash": document.content_hash,
        "created_at": document.created_at,
    })
    .to_string()
}

fn remembered(kept: &str) -> Result<Document> {
    let json: Value = serde_json::from_str(kept).map_err(Error::internal)?;
    fn read<T: serde::de::DeserializeOwned>(json: &Value, key: &str) -> Result<T> {
        serde_json::from_value(json[key].clone()).map_err(|e| Error::internal(format!("a kept answer's `{key}`: {e}")))
    }
    let created_at: String = read(&json, "created_at")?;
    Ok(Document {
        seq: read(&json, "seq")?,
        document_id: read(&json, "document_id")?,
        collection_id: read(&json, "collection_id")?,
        lineage: read(&json, "lineage")?,
        fields: read(&json, "fields")?,
        source_blobs: read(&json, "source_blobs")?,
        document_blobs: read(&json, "document_blobs")?,
        internal_metadata: read(&json, "internal_metadata")?,
        content_hash: read(&json, "content_hash")?,
        derivation_id: None,
        updated_at: created_at.clone(),
        created_at,
    })
}
