//! Lists of documents as callers browse them: with a text to look for, with each document's newest change, and grouped
//! by the values of a field.

use super::{
    access,
    documents::{COLUMNS, Mark, Page, document, from_json_column, json, rows},
    filter::{Clause, DOCUMENT_COLUMNS, after, compile, json_path, order_by},
    plan::{self, Candidates, Order},
};
use rusqlite::{Connection, Row, types::Value as SqlValue};
use serde_json::Value;
use strata_model::{Result, Scope, document::Document, filter::Filter};

/// A document, and the number of the change that the index must have applied for searches to see it as it is.
pub type Changed = (Document, i64);

/// Which documents of a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// `None`: every collection.
    pub collection_id: Option<&'a str>,
    pub filter: &'a Filter,
    /// Some string field must contain it, letter case aside.
    pub text: Option<&'a str>,
    /// `(index, count)`: one of `count` disjoint parts, for readers that share the work.
    pub part: Option<(u32, u32)>,
    /// Only what searches find: nothing that [`Document::is_disabled`].
    pub is_findable: bool,
}

/// [`Document::is_disabled`] in SQL, the other way around.
const FINDABLE: &str = "(json_type(documents.internal_metadata, '$.lifecycle_state') IS NOT 'text'
     OR documents.internal_metadata ->> '$.lifecycle_state' = 'active')";

impl<'a> Selection<'a> {
    /// The documents of one collection, or of all, that satisfy a filter.
    pub fn of(collection_id: Option<&'a str>, filter: &'a Filter) -> Self {
        Self { collection_id, filter, text: None, part: None, is_findable: false }
    }

    /// Those among them that searches find.
    pub fn findable(self) -> Self {
        Self { is_findable: true, ..self }
    }

    /// What makes a document one of them. Every query below asks it, so none shows what is kept from the scope's reader.
    fn clause(&self, scope: &Scope) -> Clause {
        let mut clause = match self.collection_id {
            // Not by the documents' own `namespace_id`, so that an index on the collection is enough.
            Some(id) => Clause {
                sql: "collection_id = ? AND ? = (SELECT c.namespace_id FROM collections c WHERE c.collection_id = ?)"
                    .into(),
                values: [id, &*scope.namespace_id, id].map(|text| SqlValue::Text(text.to_owned())).to_vec(),
            },
            None => Clause { sql: "namespace_id = ?".into(), values: vec![SqlValue::Text(scope.namespace_id.clone())] },
        };
        clause.and(access::readable(scope, "documents"));
        clause.and(compile(self.filter, DOCUMENT_COLUMNS));
        if let Some((index, count)) = self.part {
            clause.and(Clause { sql: "seq % ? = ?".into(), values: vec![count.into(), index.into()] });
        }
        if let Some(text) = self.text.filter(|t| !t.is_empty()) {
            let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            clause.and(Clause {
                sql: "EXISTS (SELECT 1 FROM json_tree(documents.fields) t
                     WHERE t.type = 'text' AND t.atom LIKE ? ESCAPE '\\')"
                    .into(),
                values: vec![SqlValue::Text(format!("%{escaped}%"))],
            });
        }
        if self.is_findable {
            clause.and(Clause { sql: FINDABLE.into(), values: Vec::new() });
        }
        clause
    }

    /// Whether it is all that the filter lets through.
    fn is_whole(&self) -> bool {
        self.part.is_none() && self.text.is_none_or(str::is_empty) && !self.is_findable
    }

    /// The narrowest lookup for the filter; its entries are counted up to `cap`.
    fn candidates(&self, connection: &Connection, cap: usize) -> Result<Option<Candidates>> {
        match self.collection_id {
            Some(id) => plan::candidates(connection, id, self.filter, cap),
            None => Ok(None),
        }
    }

    /// [`Selection::clause`], narrowed by an index where that is cheaper than looking at every document.
    fn narrowed(&self, connection: &Connection, scope: &Scope) -> Result<Clause> {
        let mut clause = self.clause(scope);
        let Some(id) = self.collection_id.filter(|_| !self.filter.is_empty()) else { return Ok(clause) };
        let cap = usize::try_from(size(connection, scope, Some(id))? / LOOKUP_COST).unwrap_or(0);
        if let Some(found) = self.candidates(connection, cap)?.filter(|found| found.count < cap) {
            among(&mut clause, &found);
        }
        Ok(clause)
    }
}

/// Only these documents.
fn among(clause: &mut Clause, candidates: &Candidates) {
    let Clause { sql, values } = candidates.query();
    clause.and(Clause { sql: format!("seq IN ({sql})"), values });
}

/// How much more it costs to look a document up than to come by it.
const LOOKUP_COST: i64 = 4;
/// Most documents that are looked up for a page of a list; where an index lets more through, walking the list finds
/// enough of them soon.
const MAX_LOOKUPS: usize = 5_000;

const CHANGE: &str = "(SELECT max(c.seq) FROM changes c WHERE c.document_seq = documents.seq)";

fn changed(row: &Row<'_>) -> rusqlite::Result<Changed> {
    Ok((document(row)?, row.get::<_, Option<i64>>(19)?.unwrap_or(0)))
}

/// One page of the selected documents.
pub fn list(connection: &Connection, scope: &Scope, selection: Selection<'_>, page: &Page) -> Result<Vec<Changed>> {
    select(connection, scope, selection, page, &format!("{COLUMNS}, {CHANGE}"), changed)
}

/// One page of the selected documents, as `read` makes them of `columns`.
pub(super) fn select<T>(
    connection: &Connection,
    scope: &Scope,
    selection: Selection<'_>,
    page: &Page,
    columns: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut clause = selection.clause(scope);
    let order = match (&page.sort, selection.collection_id) {
        (Some((field, descending)), Some(id)) => plan::order(connection, id, field, *descending, selection.filter)?,
        _ => None,
    };
    if page.sort.is_some() && order.is_none() {
        // Every document that satisfies the filter must be seen before the first one is known.
        clause = selection.narrowed(connection, scope)?;
    } else {
        let found = selection.candidates(connection, MAX_LOOKUPS)?.filter(|found| found.count < MAX_LOOKUPS);
        let total = selection.collection_id.map_or(Ok(0), |id| size(connection, scope, Some(id)))?;
        let is_cheaper = |found: &Candidates| match &order {
            Some(order) => !order.bounds(found) && found.is_cheaper_than_walking(page.offset + page.limit, total),
            None => true,
        };
        match (found.filter(is_cheaper), order) {
            (Some(found), _) => among(&mut clause, &found),
            (None, Some(order)) => return walk(connection, &order, clause, page, columns, read),
            (None, None) => {}
        }
    }
    let order = match &page.sort {
        None => Clause { sql: "seq".into(), values: Vec::new() },
        Some((field, descending)) => order_by(field, *descending, DOCUMENT_COLUMNS, "seq"),
    };
    if let Some(Mark { seq, place }) = &page.after {
        clause.and(match (&page.sort, place) {
            (Some((field, descending)), Some(place)) => after(field, *descending, DOCUMENT_COLUMNS, "seq", place, *seq),
            _ => Clause { sql: "seq > ?".into(), values: vec![(*seq).into()] },
        });
    }
    let sql = format!("SELECT {columns} FROM documents WHERE {} ORDER BY {} LIMIT ? OFFSET ?", clause.sql, order.sql);
    clause.values.extend(order.values);
    clause.values.extend([SqlValue::from(page.limit as i64), SqlValue::from(page.offset as i64)]);
    rows(connection, &sql, &clause.values, read)
}

/// One page in the order of an index: stretch after stretch, as far as the page goes.
fn walk<T>(
    connection: &Connection,
    order: &Order,
    clause: Clause,
    page: &Page,
    columns: &str,
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut whole = order.members().clone();
    whole.and(clause);
    let (direction, sign) = if order.is_descending() { ("DESC", "<") } else { ("ASC", ">") };
    let mut all = Clause::default();
    for stretch in order.stretches() {
        let mut part = stretch.clause();
        part.sql.push_str(" AND sorts");
        if let Some(Mark { seq, place: Some(place) }) = &page.after {
            let (here, there) = (stretch.rank(), place.rank);
            if here != there && order.comes_before(here, there) {
                continue;
            }
            if here == there {
                let sql = format!("(value, document_seq) {sign} (?, ?)");
                part.and(Clause { sql, values: vec![place.value.clone(), (*seq).into()] });
            }
        }
        part.and(whole.clone());
        // The limit keeps each part in its order; the parts of a union come one after the other, and no more of them
        // than the page needs. `tests/filters.rs` holds both.
        let union = if all.sql.is_empty() { "" } else { " UNION ALL " };
        all.sql.push_str(&format!(
            "{union}SELECT * FROM (SELECT {columns} FROM payload_entries
             CROSS JOIN documents ON documents.seq = payload_entries.document_seq
             WHERE {} ORDER BY value {direction}, document_seq {direction} LIMIT ?)",
            part.sql
        ));
        all.values.extend(part.values);
        all.values.push(SqlValue::from((page.offset + page.limit) as i64));
    }
    if all.sql.is_empty() {
        return Ok(Vec::new());
    }
    all.values.extend([SqlValue::from(page.limit as i64), SqlValue::from(page.offset as i64)]);
    rows(connection, &format!("{} LIMIT ? OFFSET ?", all.sql), &all.values, read)
}

/// How many documents a collection has, or a namespace.
fn size(connection: &Connection, scope: &Scope, collection_id: Option<&str>) -> Result<i64> {
    let sql = "SELECT coalesce(sum(n.documents), 0) FROM collections c JOIN document_counts n ON n.collection_id = c.collection_id
         WHERE c.namespace_id = ?1 AND (?2 IS NULL OR c.collection_id = ?2)";
    let collection = collection_id.map_or(SqlValue::Null, |id| SqlValue::Text(id.to_owned()));
    first(connection, sql, &[SqlValue::Text(scope.namespace_id.clone()), collection])
}

/// How many documents these collections of the scope have together.
pub fn count_together(connection: &Connection, scope: &Scope, collection_ids: &[String]) -> Result<i64> {
    let mut values = vec![SqlValue::Text(scope.namespace_id.clone()), SqlValue::Text(json(&collection_ids)?)];
    let own = "namespace_id = ? AND collection_id IN (SELECT value FROM json_each(?))";
    if access::sees_all(connection, scope, None)? {
        let sql = format!(
            "SELECT coalesce(sum(documents), 0) FROM document_counts
             WHERE collection_id IN (SELECT collection_id FROM collections WHERE {own})"
        );
        return first(connection, &sql, &values);
    }
    let readable = access::and_readable(scope, "documents");
    values.extend(readable.values);
    let sql = format!(
        "SELECT count(*) FROM documents
         WHERE collection_id IN (SELECT collection_id FROM collections WHERE {own}){}",
        readable.sql
    );
    first(connection, &sql, &values)
}

/// How many documents are selected.
pub fn count(connection: &Connection, scope: &Scope, selection: Selection<'_>) -> Result<i64> {
    // Counts that are kept, and entries of indexes, know of no reader.
    let is_whole = selection.is_whole() && access::sees_all(connection, scope, selection.collection_id)?;
    if is_whole && selection.filter.is_empty() {
        return size(connection, scope, selection.collection_id);
    }
    if is_whole && let Some(exact) = selection.candidates(connection, 1)?.filter(|found| found.is_exact) {
        let mut clause = exact.query();
        let own = "? = (SELECT c.namespace_id FROM collections c WHERE c.collection_id = ?)";
        let collection = selection.collection_id.unwrap_or_default();
        clause.values.extend([&*scope.namespace_id, collection].map(|text| SqlValue::Text(text.to_owned())));
        return first(connection, &format!("SELECT count(*) FROM ({}) WHERE {own}", clause.sql), &clause.values);
    }
    let clause = selection.narrowed(connection, scope)?;
    first(connection, &format!("SELECT count(*) FROM documents WHERE {}", clause.sql), &clause.values)
}

/// The sequence numbers of the selected documents, ascending.
pub fn seqs(connection: &Connection, scope: &Scope, selection: Selection<'_>) -> Result<Vec<i64>> {
    let clause = selection.narrowed(connection, scope)?;
    let sql = format!("SELECT seq FROM documents WHERE {} ORDER BY seq", clause.sql);
    rows(connection, &sql, &clause.values, |r| r.get(0))
}

/// The documents with these ids, in no particular order; those that are not there are left out.
pub fn by_ids(
    connection: &Connection,
    scope: &Scope,
    collection_id: Option<&str>,
    ids: &[String],
) -> Result<Vec<Changed>> {
    let readable = access::and_readable(scope, "documents");
    let sql = format!(
        "SELECT {COLUMNS}, {CHANGE} FROM documents WHERE document_id IN (SELECT value FROM json_each(?))
         AND namespace_id = ? AND (? IS NULL OR collection_id = ?){}",
        readable.sql
    );
    let collection = collection_id.map_or(SqlValue::Null, |id| SqlValue::Text(id.to_owned()));
    let own = [SqlValue::Text(json(&ids)?), SqlValue::Text(scope.namespace_id.clone()), collection.clone(), collection];
    let values: Vec<SqlValue> = own.into_iter().chain(readable.values).collect();
    rows(connection, &sql, &values, changed)
}

/// What a field's value is in SQL: JSON text, which keeps `1`, `"1"` and `true` apart.
fn value_of(field: &str) -> Clause {
    match DOCUMENT_COLUMNS.iter().find(|c| **c == field) {
        Some(column) => Clause { sql: format!("json_quote({column})"), values: Vec::new() },
        None => Clause { sql: "(fields -> ?)".into(), values: vec![SqlValue::Text(json_path(field))] },
    }
}

/// The values that `field` has among the selected documents, most frequent first, and how many documents have each.
/// Documents without the field are left out.
pub fn values(
    connection: &Connection,
    scope: &Scope,
    selection: Selection<'_>,
    field: &str,
    limit: usize,
    offset: usize,
) -> Result<Vec<(Value, i64)>> {
    let (value, clause) = (value_of(field), selection.narrowed(connection, scope)?);
    let sql = format!(
        "SELECT {} AS value, count(*) AS documents FROM documents WHERE {} GROUP BY 1
         HAVING value IS NOT NULL AND value <> 'null' ORDER BY documents DESC, value LIMIT ? OFFSET ?",
        value.sql, clause.sql
    );
    let cut = [SqlValue::from(limit as i64), SqlValue::from(offset as i64)];
    let bound: Vec<_> = value.values.into_iter().chain(clause.values).chain(cut).collect();
    rows(connection, &sql, &bound, |r| Ok((from_json_column(r, 0)?, r.get(1)?)))
}

/// How many different values [`values`] would list.
pub fn values_count(connection: &Connection, scope: &Scope, selection: Selection<'_>, field: &str) -> Result<i64> {
    let (value, clause) = (value_of(field), selection.narrowed(connection, scope)?);
    let sql = format!("SELECT count(DISTINCT nullif({}, 'null')) FROM documents WHERE {}", value.sql, clause.sql);
    let bound: Vec<_> = value.values.into_iter().chain(clause.values).collect();
    first(connection, &sql, &bound)
}

/// The first `limit` selected documents whose `field` is exactly `value`.
pub fn with_value(
    connection: &Connection,
    scope: &Scope,
    selection: Selection<'_>,
    field: &str,
    value: &Value,
    limit: usize,
) -> Result<Vec<Changed>> {
    let (expression, clause) = (value_of(field), selection.narrowed(connection, scope)?);
    let sql = format!(
        "SELECT {COLUMNS}, {CHANGE} FROM documents WHERE {} AND {} = json(?) ORDER BY seq LIMIT ?",
        clause.sql, expression.sql
    );
    let cut = [SqlValue::Text(json(value)?), SqlValue::from(limit as i64)];
    let bound: Vec<_> = clause.values.into_iter().chain(expression.values).chain(cut).collect();
    rows(connection, &sql, &bound, changed)
}

fn first(connection: &Connection, sql: &str, values: &[SqlValue]) -> Result<i64> {
    Ok(rows(connection, sql, values, |r| r.get(0))?.first().copied().unwrap_or(0))
}
