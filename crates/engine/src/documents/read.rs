//! Reading documents: one, several by id, lists.

use super::{Show, Shown, gather};
use crate::{
    Engine,
    objects::aggregate::{self, Aggregation, Groups},
};
use serde_json::{Value, json};
use strata_model::{
    Error, Result, Scope,
    document::{SYSTEM_FIELDS, viewed},
    filter::{Condition, Filter, Operator},
    limits,
};
use strata_store::catalog::{
    browse::{self, Selection},
    documents::{self, Mark, Page},
    resources::{self, Kind},
    rusqlite::Connection,
};

/// Documents shown of each group of a grouped list.
const GROUP_DOCUMENTS: usize = 100;

/// Which documents, in which order, and how much of them.
#[derive(Debug, Clone)]
pub struct DocumentQuery {
    /// Ids or names; none means every collection of the namespace.
    pub collections: Vec<String>,
    pub filter: Filter,
    /// Text that some string field contains, letter case aside.
    pub search: Option<String>,
    /// Field and whether descending; `None` is creation order.
    pub sort: Option<(String, bool)>,
    pub limit: usize,
    pub offset: usize,
    /// Where the page before ended, in the same order.
    pub after: Option<Mark>,
    pub part: Option<(u32, u32)>,
    /// Groups the page by the values of a field; `limit` and `offset` count groups then.
    pub group_by: Option<String>,
    pub include_total: bool,
    pub show: Show,
}

impl Default for DocumentQuery {
    fn default() -> Self {
        Self {
            collections: Vec::new(),
            filter: Filter::all(),
            search: None,
            sort: None,
            limit: 10,
            offset: 0,
            after: None,
            part: None,
            group_by: None,
            include_total: false,
            show: Show::default(),
        }
    }
}

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// After this document.
    After(Mark),
    /// At this offset, in a list of groups.
    Offset(usize),
}

#[derive(Debug, Clone, Default)]
pub struct DocumentPage {
    pub documents: Vec<Shown>,
    /// Where a field groups the page.
    pub groups: Option<Vec<Group>>,
    /// Of documents, or of groups; counted where it was asked for.
    pub total: Option<i64>,
    pub next: Option<Next>,
    /// Identifiers that name no collection of the namespace.
    pub unknown_collections: Vec<String>,
}

/// The documents that share a value.
#[derive(Debug, Clone)]
pub struct Group {
    pub key: Value,
    /// How many there are; the first hundred are shown.
    pub count: i64,
    pub documents: Vec<Shown>,
}

/// What a read finds before URLs are signed.
pub(super) struct Read {
    pub gathered: super::Gathered,
    /// Key, count, and how many of the gathered rows belong to it.
    groups: Option<Vec<(Value, i64, usize)>>,
    total: Option<i64>,
    next: Option<Next>,
    unknown: Vec<String>,
}

impl Engine {
    /// One document; in one collection, by id or name, where that is given.
    pub async fn document(
        &self,
        scope: &Scope,
        collection: Option<&str>,
        document_id: &str,
        show: Show,
    ) -> Result<Shown> {
        let (of, collection, id) = (scope.clone(), collection.map(str::to_owned), document_id.to_owned());
        let gathered = self
            .catalog
            .read(move |connection| {
                let collection = resolved(connection, &of, collection.as_deref())?;
                let rows = browse::by_ids(connection, &of, collection.as_deref(), std::slice::from_ref(&id))?;
                if rows.is_empty() {
                    return Err(Error::missing("document", id));
                }
                gather(connection, &of, rows, &show)
            })
            .await?;
        let mut shown = self.shown(gathered)?;
        shown.pop().ok_or_else(|| Error::missing("document", document_id))
    }

    /// Several documents in the order asked, and the ids that name none.
    pub async fn documents_by_id(
        &self,
        scope: &Scope,
        ids: Vec<String>,
        show: Show,
    ) -> Result<(Vec<Shown>, Vec<String>)> {
        let (of, wanted) = (scope.clone(), ids.clone());
        let gathered = self
            .catalog
            .read(move |connection| {
                let rows = browse::by_ids(connection, &of, None, &wanted)?;
                gather(connection, &of, rows, &show)
            })
            .await?;
        let shown = self.shown(gathered)?;
        let mut by_id: std::collections::HashMap<String, Shown> =
            shown.into_iter().map(|s| (s.document.document_id.clone(), s)).collect();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for id in ids {
            match by_id.remove(&id) {
                Some(shown) => found.push(shown),
                None if found.iter().any(|s| s.document.document_id == id) => {}
                None => missing.push(id),
            }
        }
        Ok((found, missing))
    }

    /// A page of the documents of one collection, which must exist.
    pub async fn documents_of(&self, scope: &Scope, collection: &str, query: DocumentQuery) -> Result<DocumentPage> {
        let page = self.documents(scope, DocumentQuery { collections: vec![collection.to_owned()], ..query }).await?;
        match page.unknown_collections.first() {
            Some(unknown) => Err(Error::missing("collection", unknown)),
            None => Ok(page),
        }
    }

    /// A page of the namespace's documents.
    pub async fn documents(&self, scope: &Scope, query: DocumentQuery) -> Result<DocumentPage> {
        let of = scope.clone();
        let read = self.catalog.read(move |connection| page_of(connection, &of, &query)).await?;
        let mut shown = self.shown(read.gathered)?;
        let groups = read.groups.map(|groups| {
            let mut rest = shown.drain(..);
            let group = |(key, count, rows)| Group { key, count, documents: rest.by_ref().take(rows).collect() };
            groups.into_iter().map(group).collect()
        });
        Ok(DocumentPage {
            documents: shown,
            groups,
            total: read.total,
            next: read.next,
            unknown_collections: read.unknown,
        })
    }

    /// How many documents of a collection satisfy `filter`, and the collection's id.
    pub async fn count_documents(&self, scope: &Scope, collection: &str, filter: Filter) -> Result<(String, i64)> {
        let (of, collection) = (scope.clone(), collection.to_owned());
        self.catalog
            .read(move |connection| {
                let id = resources::get(connection, Kind::Collection, &of, &collection)?.id;
                let count = browse::count(connection, &of, Selection::of(Some(&id), &filter))?;
                Ok((id, count))
            })
            .await
    }

    /// Groups the documents of a collection; answers the groups and how many there were before the limit.
    pub async fn aggregate_documents(
        &self,
        scope: &Scope,
        collection: &str,
        filter: Filter,
        aggregation: Aggregation,
    ) -> Result<(Vec<aggregate::Group>, usize)> {
        let (of, collection) = (scope.clone(), collection.to_owned());
        self.catalog
            .read(move |connection| {
                let id = resources::get(connection, Kind::Collection, &of, &collection)?.id;
                let mut groups = Groups::new(&aggregation);
                let mut page = Page { limit: limits::MAX_PAGE, offset: 0, after: None, sort: None };
                loop {
                    let part = documents::list(connection, &of, Some(&id), &filter, &page)?;
                    for document in &part {
                        groups.add(&document.view())?;
                    }
                    match part.last() {
                        Some(last) if part.len() == page.limit => page.after = Some(Mark::of(last, None)),
                        _ => return groups.finish(),
                    }
                }
            })
            .await
    }

    /// The values of a field among a collection's documents, most frequent first, and how many different ones there are.
    pub async fn distinct_values(
        &self,
        scope: &Scope,
        collection: &str,
        field: String,
        filter: Filter,
        limit: usize,
    ) -> Result<(Vec<(Value, i64)>, i64)> {
        let (of, collection, field) = (scope.clone(), collection.to_owned(), viewed(&field).to_owned());
        self.catalog
            .read(move |connection| {
                let id = resources::get(connection, Kind::Collection, &of, &collection)?.id;
                let selection = Selection::of(Some(&id), &filter);
                let values = browse::values(connection, &of, selection, &field, limit, 0)?;
                Ok((values, browse::values_count(connection, &of, selection, &field)?))
            })
            .await
    }
}

/// The id of a collection that must exist, where one is named.
pub(super) fn resolved(connection: &Connection, scope: &Scope, collection: Option<&str>) -> Result<Option<String>> {
    collection.map(|named| Ok(resources::get(connection, Kind::Collection, scope, named)?.id)).transpose()
}

pub(super) fn page_of(connection: &Connection, scope: &Scope, query: &DocumentQuery) -> Result<Read> {
    let (mut ids, mut unknown) = (Vec::new(), Vec::new());
    for named in &query.collections {
        match resources::find(connection, Kind::Collection, scope, named)? {
            Some(found) => ids.push(found.id),
            None => unknown.push(named.clone()),
        }
    }
    let within = |ids: &[String]| {
        Filter::Is(Condition {
            field: "collection_id".into(),
            operator: Operator::In,
            value: json!(ids),
            case_sensitive: true,
        })
    };
    let none_known = !query.collections.is_empty() && ids.is_empty();
    let (collection, filter) = match ids.as_slice() {
        [] => (None, query.filter.clone()),
        [only] => (Some(only.as_str()), query.filter.clone()),
        several => (None, within(several).and(query.filter.clone())),
    };
    let selection = Selection { text: query.search.as_deref(), part: query.part, ..Selection::of(collection, &filter) };
    if none_known {
        let gathered = gather(connection, scope, Vec::new(), &query.show)?;
        let total = query.include_total.then_some(0);
        return Ok(Read { gathered, groups: query.group_by.as_ref().map(|_| Vec::new()), total, next: None, unknown });
    }
    match &query.group_by {
        Some(field) => grouped(connection, scope, query, selection, field, unknown),
        None => plain(connection, scope, query, selection, unknown),
    }
}

fn plain(
    connection: &Connection,
    scope: &Scope,
    query: &DocumentQuery,
    selection: Selection<'_>,
    unknown: Vec<String>,
) -> Result<Read> {
    let page =
        Page { limit: query.limit + 1, offset: query.offset, after: query.after.clone(), sort: query.sort.clone() };
    let mut rows = browse::list(connection, scope, selection, &page)?;
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let sort = query.sort.as_ref().map(|(field, _)| &**field);
    let next = rows.last().filter(|_| more).map(|(document, _)| Next::After(Mark::of(document, sort)));
    let total = if query.include_total { Some(browse::count(connection, scope, selection)?) } else { None };
    Ok(Read { gathered: gather(connection, scope, rows, &query.show)?, groups: None, total, next, unknown })
}

fn grouped(
    connection: &Connection,
    scope: &Scope,
    query: &DocumentQuery,
    selection: Selection<'_>,
    field: &str,
    unknown: Vec<String>,
) -> Result<Read> {
    if field.is_empty() || field.len() > 255 {
        return Err(Error::invalid("group_by", format!("must be the name of a field, such as `{}`", SYSTEM_FIELDS[1])));
    }
    let field = viewed(field);
    let mut values = browse::values(connection, scope, selection, field, query.limit + 1, query.offset)?;
    let more = values.len() > query.limit;
    values.truncate(query.limit);
    let (mut rows, mut groups) = (Vec::new(), Vec::new());
    for (key, count) in values {
        let own = browse::with_value(connection, scope, selection, field, &key, GROUP_DOCUMENTS)?;
        groups.push((key, count, own.len()));
        rows.extend(own);
    }
    let total =
        if query.include_total { Some(browse::values_count(connection, scope, selection, field)?) } else { None };
    let next = more.then_some(Next::Offset(query.offset + query.limit));
    Ok(Read { gathered: gather(connection, scope, rows, &query.show)?, groups: Some(groups), total, next, unknown })
}
