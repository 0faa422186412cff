//! Changing and deleting one document.

use super::{
    Receipt, Shown,
    apply::{Change, How},
    last_of_each,
    read::resolved,
};
use crate::{
    Engine,
    collections::{Collection, load_collection},
};
use serde_json::Value;
use strata_model::{
    Error, Fields, Result, Scope,
    acl::{self, ACL},
    document::{Document, Vectors},
};
use strata_store::catalog::{access, documents, lineage, rusqlite::Transaction};

impl Engine {
    /// Merges `request` into a document: objects at every depth, null removes. Vectors are merged by name.
    pub async fn patch_document(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        request: Fields,
        wait: bool,
    ) -> Result<Shown> {
        self.change_document(scope, collection, document_id, Change::parse(request, How::Merge)?, wait).await
    }

    /// Puts each field of `request` in the place of the document's, and each key of `metadata`, where null removes. Its
    /// vectors stay unless the request has some.
    pub async fn update_document(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        request: Fields,
        wait: bool,
    ) -> Result<Shown> {
        self.change_document(scope, collection, document_id, Change::parse(request, How::Update)?, wait).await
    }

    /// Makes `request` all the fields that a document has. Its vectors stay unless the request has some.
    pub async fn replace_document(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        request: Fields,
        wait: bool,
    ) -> Result<Shown> {
        self.change_document(scope, collection, document_id, Change::parse(request, How::Replace)?, wait).await
    }

    async fn change_document(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        change: Change,
        wait: bool,
    ) -> Result<Shown> {
        let (of, collection, id) = (scope.clone(), collection.map(str::to_owned), document_id.to_owned());
        let now = self.catalog.now();
        let written = self
            .catalog
            .write(move |tx| {
                let within = resolved(tx, &of, collection.as_deref())?;
                let document = documents::get(tx, &of, within.as_deref(), &id)?;
                let collection = load_collection(tx, &of, &document.collection_id)?;
                changed(tx, &of, &document, &collection, &change, &now)
            })
            .await?;
        self.answered(scope, written, wait).await
    }

    /// The answer for a document that was just rewritten.
    async fn answered(&self, scope: &Scope, (document, change): (Document, i64), wait: bool) -> Result<Shown> {
        self.indexed(vec![(document.collection_id.clone(), change)], wait).await;
        let seen = self.index.applied(&document.collection_id) >= change;
        let searchable_at = seen.then(|| document.updated_at.clone());
        Ok(Shown::plain(scope, document, searchable_at))
    }

    /// Writes who may read and write a document, and with it all that was made from it; what is left out stays. Answers when
    /// searches go by it.
    pub async fn change_document_acl(
        &self,
        scope: &Scope,
        collection: &str,
        document_id: &str,
        acl: Fields,
        owner: &str,
    ) -> Result<Shown> {
        let acl = acl::check(acl, "")?;
        let says_something = !acl.is_empty();
        let (of, collection, id) = (scope.clone(), collection.to_owned(), document_id.to_owned());
        let (now, owner) = (self.catalog.now(), owner.to_owned());
        let (written, followed) = self
            .catalog
            .write(move |tx| {
                let within = resolved(tx, &of, Some(&collection))?;
                let mut document = documents::get(tx, &of, within.as_deref(), &id)?;
                access::check_change(&of, &document)?;
                let kept = document.internal_metadata.entry(ACL).or_insert_with(|| Value::Object(Fields::new()));
                if let Value::Object(kept) = kept {
                    kept.entry("owner").or_insert_with(|| owner.into());
                    kept.extend(acl);
                }
                document.updated_at = now;
                let change = documents::rewrite(tx, &document, None)?;
                let followed = if says_something { access::spread(tx, &of, &document)? } else { Vec::new() };
                Ok(((document, change), followed))
            })
            .await?;
        self.indexed(followed, true).await;
        self.answered(scope, written, true).await
    }

    /// Removes a document and, where `cascade` says so, all that was made from it.
    pub async fn delete_document(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        cascade: bool,
        wait: bool,
    ) -> Result<Receipt> {
        let (of, collection, id) = (scope.clone(), collection.map(str::to_owned), document_id.to_owned());
        let (receipt, touched) = self
            .catalog
            .write(move |tx| {
                let within = resolved(tx, &of, collection.as_deref())?;
                let document = documents::get(tx, &of, within.as_deref(), &id)?;
                removed(tx, &of, &[document], cascade)
            })
            .await?;
        self.indexed(touched, wait).await;
        Ok(receipt)
    }
}

/// Writes a change of one document. [`Error::Forbidden`] where its access list does not let the scope's reader.
pub(super) fn changed(
    tx: &Transaction<'_>,
    scope: &Scope,
    document: &Document,
    collection: &Collection,
    change: &Change,
    now: &str,
) -> Result<(Document, i64)> {
    access::check_change(scope, document)?;
    let current = || -> Result<Vectors> { documents::vectors(tx, document.seq) };
    let (next, vectors) = change.apply(document, collection, current, now)?;
    let number = documents::rewrite(tx, &next, vectors.as_ref())?;
    Ok((next, number))
}

/// Removes documents and, where `cascade` says so, all that was made from them, whatever the access lists of that say.
/// [`Error::Forbidden`] where the list of one of `roots` does not let the scope's reader.
pub(super) fn removed(
    tx: &Transaction<'_>,
    scope: &Scope,
    roots: &[Document],
    cascade: bool,
) -> Result<(Receipt, Vec<(String, i64)>)> {
    roots.iter().try_for_each(|root| access::check_change(scope, root))?;
    let mut seqs: Vec<i64> = roots.iter().map(|d| d.seq).collect();
    if cascade {
        let ids: Vec<String> = roots.iter().map(|d| d.document_id.clone()).collect();
        seqs.extend(lineage::descendants(tx, scope, &ids)?);
    }
    let (collections, touched) = lineage::remove(tx, scope, &seqs)?;
    if collections.is_empty() && !roots.is_empty() {
        return Err(Error::internal("documents that were just read were not there to remove"));
    }
    Ok((Receipt { collections }, last_of_each(touched)))
}
