//! Where documents come from and what was made from them.

use super::{Show, Shown, gather, read::resolved};
use crate::Engine;
use std::collections::BTreeMap;
use strata_model::{
    Error, Result, Scope,
    filter::{Condition, Filter, Operator},
    limits,
};
use strata_store::catalog::{
    browse::{self, Selection},
    documents::{self, Page},
    lineage::{self, Member, TierCounts},
    resources::{self, Kind},
};

/// Longest way up that is followed.
const MAX_DEPTH: usize = 256;
/// Most document ids that a decomposition tree lists.
const MAX_MEMBERS: usize = 10_000;

/// Most documents that are shown of those that were made from one directly.
const MAX_CHILDREN: usize = 100;

/// How far down descendants are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// What was made from the document directly, at most a hundred.
    Children,
    /// Through so many levels, at most a thousand.
    Levels(usize),
    /// To the last, at most a thousand.
    All,
}

/// The documents that come from an object.
#[derive(Debug, Clone)]
pub struct ObjectDocuments {
    pub object_id: String,
    pub documents: Vec<Shown>,
    pub total: i64,
}

/// What an object was decomposed into.
#[derive(Debug, Clone)]
pub struct DecompositionTree {
    pub object_id: String,
    /// `None` where the object is gone and documents of it remain.
    pub bucket_id: Option<String>,
    pub tiers: Vec<TierCounts>,
    /// Names of the collections by id.
    pub names: BTreeMap<String, String>,
    /// At most the first ten thousand, where they were asked for.
    pub members: Vec<Member>,
}

impl Engine {
    /// The documents from which this one was made, the first of them first.
    pub async fn ancestors(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        show: Show,
    ) -> Result<Vec<Shown>> {
        let (of, collection, id) = (scope.clone(), collection.map(str::to_owned), document_id.to_owned());
        let gathered = self
            .catalog
            .read(move |connection| {
                let within = resolved(connection, &of, collection.as_deref())?;
                let document = documents::get(connection, &of, within.as_deref(), &id)?;
                let (mut rows, mut above) = (Vec::new(), document.lineage.source_document_id);
                while let Some(id) = above.take().filter(|_| rows.len() < MAX_DEPTH) {
                    let Some(row) = browse::by_ids(connection, &of, None, &[id])?.pop() else { break };
                    above = row.0.lineage.source_document_id.clone();
                    rows.push(row);
                }
                rows.reverse();
                gather(connection, &of, rows, &show)
            })
            .await?;
        self.shown(gathered)
    }

    /// The documents that were made from this one, oldest first.
    pub async fn descendants(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        below: Below,
        show: Show,
    ) -> Result<Vec<Shown>> {
        let (of, collection, id) = (scope.clone(), collection.map(str::to_owned), document_id.to_owned());
        let gathered = self
            .catalog
            .read(move |connection| {
                let within = resolved(connection, &of, collection.as_deref())?;
                documents::get(connection, &of, within.as_deref(), &id)?;
                let (depth, limit) = match below {
                    Below::Children => (1, MAX_CHILDREN),
                    Below::Levels(depth) => (depth, limits::MAX_PAGE),
                    Below::All => (usize::MAX, limits::MAX_PAGE),
                };
                let seqs = lineage::below(connection, &of, &id, depth, limit)?;
                let below = documents::fetch(connection, &of, &seqs)?;
                let ids: Vec<String> = below.into_iter().map(|d| d.document_id).collect();
                let mut rows = browse::by_ids(connection, &of, None, &ids)?;
                rows.sort_by_key(|(document, _)| document.seq);
                gather(connection, &of, rows, &show)
            })
            .await?;
        self.shown(gathered)
    }

    /// A page of the documents that come from an object, in some collections (ids or names) or in all.
    pub async fn documents_of_object(
        &self,
        scope: &Scope,
        object_id: &str,
        collections: Vec<String>,
        limit: usize,
        offset: usize,
        show: Show,
    ) -> Result<ObjectDocuments> {
        let (of, id) = (scope.clone(), object_id.to_owned());
        let (gathered, total) = self
            .catalog
            .read(move |connection| {
                let mut filter = Filter::eq("root_object_id", id.clone());
                if !collections.is_empty() {
                    let ids: Vec<String> = collections
                        .iter()
                        .map(|named| Ok(resources::get(connection, Kind::Collection, &of, named)?.id))
                        .collect::<Result<_>>()?;
                    let within = Condition {
                        field: "collection_id".into(),
                        operator: Operator::In,
                        value: serde_json::json!(ids),
                        case_sensitive: true,
                    };
                    filter = filter.and(Filter::Is(within));
                }
                let selection = Selection::of(None, &filter);
                let total = browse::count(connection, &of, selection)?;
                if total == 0 && lineage::bucket_of(connection, &of, &id)?.is_none() {
                    return Err(Error::missing("object", id));
                }
                let page = Page { limit, offset, after: None, sort: None };
                let rows = browse::list(connection, &of, selection, &page)?;
                Ok((gather(connection, &of, rows, &show)?, total))
            })
            .await?;
        Ok(ObjectDocuments { object_id: object_id.to_owned(), documents: self.shown(gathered)?, total })
    }

    /// What an object was decomposed into, tier by tier, with what failed and what is still to do.
    pub async fn decomposition_tree(
        &self,
        scope: &Scope,
        object_id: &str,
        with_members: bool,
    ) -> Result<DecompositionTree> {
        let (of, id) = (scope.clone(), object_id.to_owned());
        self.catalog
            .read(move |connection| {
                let bucket_id = lineage::bucket_of(connection, &of, &id)?;
                let tiers = lineage::decomposition(connection, &of, &id)?;
                if bucket_id.is_none() && tiers.is_empty() {
                    return Err(Error::missing("object", id));
                }
                let mut names = BTreeMap::new();
                for tier in &tiers {
                    let found = resources::find(connection, Kind::Collection, &of, &tier.collection_id)?;
                    names.extend(found.map(|f| (f.id, f.name)));
                }
                let members =
                    if with_members { lineage::members(connection, &of, &id, MAX_MEMBERS)? } else { Vec::new() };
                Ok(DecompositionTree { object_id: id, bucket_id, tiers, names, members })
            })
            .await
    }
}
