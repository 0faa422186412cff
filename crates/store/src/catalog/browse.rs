//! Lists of documents as callers browse them: with a text to look for, with each document's newest change, and grouped
//! by the values of a field.

use super::{
    documents::{COLUMNS, Page, document, from_json_column, json, rows, within},
    filter::{Clause, DOCUMENT_COLUMNS, json_path, order_by},
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
}

impl<'a> Selection<'a> {
    /// The documents of one collection, or of all, that satisfy a filter.
    pub fn of(collection_id: Option<&'a str>, filter: &'a Filter) -> Self {
        Self { collection_id, filter, text: None, part: None }
    }

    fn clause(&self, scope: &Scope) -> Clause {
        let mut clause = within(scope, self.collection_id, self.filter);
        if let Some((index, count)) = self.part {
            clause.sql.push_str(" AND seq % ? = ?");
            clause.values.extend([SqlValue::from(count), SqlValue::from(index)]);
        }
        if let Some(text) = self.text.filter(|t| !t.is_empty()) {
            clause.sql.push_str(
                " AND EXISTS (SELECT 1 FROM json_tree(documents.fields) t
                 WHERE t.type = 'text' AND t.atom LIKE ? ESCAPE '\\')",
            );
            let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            clause.values.push(SqlValue::Text(format!("%{escaped}%")));
        }
        clause
    }
}

const CHANGE: &str = "(SELECT max(c.seq) FROM changes c WHERE c.document_seq = documents.seq)";

fn changed(row: &Row<'_>) -> rusqlite::Result<Changed> {
    Ok((document(row)?, row.get::<_, Option<i64>>(19)?.unwrap_or(0)))
}

/// One page of the selected documents.
pub fn list(connection: &Connection, scope: &Scope, selection: Selection<'_>, page: &Page) -> Result<Vec<Changed>> {
    let mut clause = selection.clause(scope);
    if let Some(after) = page.after {
        clause.sql.push_str(" AND seq > ?");
        clause.values.push(after.into());
    }
    let order = match &page.sort {
        None => Clause { sql: "seq".into(), values: Vec::new() },
        Some((field, descending)) => order_by(field, *descending, DOCUMENT_COLUMNS, "seq"),
    };
    let sql = format!(
        "SELECT {COLUMNS}, {CHANGE} FROM documents WHERE {} ORDER BY {} LIMIT ? OFFSET ?",
        clause.sql, order.sql
    );
    clause.values.extend(order.values);
    clause.values.extend([SqlValue::from(page.limit as i64), SqlValue::from(page.offset as i64)]);
    rows(connection, &sql, &clause.values, changed)
}

/// How many documents are selected.
pub fn count(connection: &Connection, scope: &Scope, selection: Selection<'_>) -> Result<i64> {
    let clause = selection.clause(scope);
    first(connection, &format!("SELECT count(*) FROM documents WHERE {}", clause.sql), &clause.values)
}

/// The sequence numbers of the selected documents, ascending.
pub fn seqs(connection: &Connection, scope: &Scope, selection: Selection<'_>) -> Result<Vec<i64>> {
    let clause = selection.clause(scope);
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
    let sql = format!(
        "SELECT {COLUMNS}, {CHANGE} FROM documents WHERE document_id IN (SELECT value FROM json_each(?))
         AND namespace_id = ? AND (? IS NULL OR collection_id = ?)"
    );
    let collection = collection_id.map_or(SqlValue::Null, |id| SqlValue::Text(id.to_owned()));
    let values =
        [SqlValue::Text(json(&ids)?), SqlValue::Text(scope.namespace_id.clone()), collection.clone(), collection];
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
    let (value, clause) = (value_of(field), selection.clause(scope));
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
    let (value, clause) = (value_of(field), selection.clause(scope));
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
    let (expression, clause) = (value_of(field), selection.clause(scope));
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
