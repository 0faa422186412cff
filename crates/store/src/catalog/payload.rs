//! Payload indexes of the catalog: for each field that a namespace declares, the values that a collection's documents
//! have there, in the documented order of sorting.
//!
//! The writer keeps the entries with every document that it writes. Those of documents that were there before the
//! field was declared are made in steps, behind; until the last of them nothing is read from the index.

use super::{documents::rows, from_sql};
use rusqlite::{Connection, Transaction, params, types::Value as SqlValue};
use serde_json::Value;
use strata_model::{Fields, Result, path};

/// The rank of what is null or missing.
pub const MISSING: u8 = 4;

/// Where a value stands in the documented order: by its kind, then by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    pub rank: u8,
    pub value: SqlValue,
}

impl Place {
    /// The place of a document in the order by `field`, or of a document without it.
    pub fn in_order(fields: &Fields, field: &str) -> Self {
        Self::of(sorted_by(fields, field).unwrap_or(&Value::Null))
    }

    /// Of a column.
    pub fn of_text(text: Option<&str>) -> Self {
        Self::of(&text.map_or(Value::Null, Value::from))
    }

    /// As a cursor keeps it: the rank and the value.
    pub fn to_json(&self) -> Value {
        let value = match &self.value {
            SqlValue::Integer(whole) => (*whole).into(),
            SqlValue::Real(real) => (*real).into(),
            SqlValue::Text(text) => text.clone().into(),
            SqlValue::Null | SqlValue::Blob(_) => Value::Null,
        };
        Value::Array(vec![self.rank.into(), value])
    }

    /// What [`Place::to_json`] made; `None` for anything else.
    pub fn from_json(json: &Value) -> Option<Self> {
        let [rank, value] = json.as_array()?.as_slice() else { return None };
        let rank = u8::try_from(rank.as_u64()?).ok().filter(|rank| *rank <= MISSING)?;
        let value = match value {
            Value::Number(number) => number_value(number),
            Value::String(text) => SqlValue::Text(text.clone()),
            _ => return None,
        };
        Some(Self { rank, value })
    }

    fn of(value: &Value) -> Self {
        let (rank, value) = match value {
            Value::Number(number) => (0, number_value(number)),
            Value::String(text) => (1, SqlValue::Text(text.clone())),
            Value::Bool(truth) => (2, SqlValue::Integer((*truth).into())),
            Value::Array(_) | Value::Object(_) => (3, SqlValue::Text(value.to_string())),
            Value::Null => (MISSING, SqlValue::Integer(0)),
        };
        Self { rank, value }
    }
}

/// A number as SQLite reads it from JSON.
fn number_value(number: &serde_json::Number) -> SqlValue {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => SqlValue::Integer(whole),
        (None, Some(real)) => SqlValue::Real(real),
        (None, None) => SqlValue::Null,
    }
}

/// What the JSON path of [`super::filter::order_by`] leads to.
fn sorted_by<'a>(fields: &'a Fields, field: &str) -> Option<&'a Value> {
    let mut parts = field.split('.');
    let head = parts.next()?;
    // A number at the root is an index into an array, and the root is none.
    if head.parse::<usize>().is_ok() {
        return None;
    }
    let plain = |part: &str| part.replace(['"', '\0'], "");
    parts.try_fold(fields.get(&plain(head))?, |at, part| match part.parse::<usize>() {
        Ok(index) => at.as_array()?.get(index),
        Err(_) => at.as_object()?.get(&plain(part)),
    })
}

/// Everything that a document has in an index: its place in the order, and the values that conditions see where they
/// are others.
fn places(fields: &Fields, field: &str) -> (Place, Vec<Place>) {
    let sorts = Place::in_order(fields, field);
    let mut others: Vec<Place> = match path::get_field(fields, field) {
        Some(Value::Array(list)) => list.iter().map(Place::of).collect(),
        Some(value) => vec![Place::of(value)],
        None => Vec::new(),
    };
    others.retain(|place| place.rank != MISSING && *place != sorts);
    (sorts, others)
}

/// An index of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub index_id: i64,
    pub field: String,
    pub is_complete: bool,
    /// Some document has several values.
    pub has_arrays: bool,
}

/// The indexes of a collection, complete or not.
pub fn indexes(connection: &Connection, collection_id: &str) -> Result<Vec<Index>> {
    let sql = "SELECT index_id, field, complete, arrays FROM payload_indexes WHERE collection_id = ?1";
    rows(connection, sql, &[collection_id], |r| {
        Ok(Index { index_id: r.get(0)?, field: r.get(1)?, is_complete: r.get(2)?, has_arrays: r.get(3)? })
    })
}

/// Makes `fields` all that a collection is indexed by. Answers whether anything is to be built.
pub fn declare(tx: &Transaction<'_>, collection_id: &str, fields: &[String]) -> Result<bool> {
    let known = indexes(tx, collection_id)?;
    for gone in known.iter().filter(|index| !fields.contains(&index.field)) {
        run(tx, "DELETE FROM payload_indexes WHERE index_id = ?1", [gone.index_id])?;
    }
    let sql = "INSERT INTO payload_indexes (collection_id, field, built_to, complete, arrays)
         VALUES (?1, ?2, 0, NOT EXISTS (SELECT 1 FROM documents WHERE collection_id = ?1), 0)";
    for new in fields.iter().filter(|field| known.iter().all(|index| index.field != **field)) {
        run(tx, sql, [collection_id, new])?;
    }
    let unbuilt = "SELECT count(*) FROM payload_indexes WHERE collection_id = ?1 AND complete = 0";
    Ok(rows(tx, unbuilt, &[collection_id], |r| r.get::<_, i64>(0))?.first().is_some_and(|count| *count > 0))
}

/// Makes the entries of up to `limit` documents that were there before one of the indexes. Answers whether there is
/// more to do, in whichever collection.
pub fn build(tx: &Transaction<'_>, limit: usize) -> Result<bool> {
    let sql = "SELECT index_id, collection_id, field, built_to FROM payload_indexes WHERE complete = 0 LIMIT 1";
    let read = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?));
    let Some((index_id, collection, field, built_to)): Option<(i64, String, String, i64)> =
        rows(tx, sql, &[] as &[i64], read)?.pop()
    else {
        return Ok(false);
    };
    let sql = "SELECT seq, fields FROM documents WHERE collection_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let values = [SqlValue::Text(collection), built_to.into(), SqlValue::from(limit as i64)];
    let part = rows(tx, sql, &values, |r| Ok((r.get(0)?, super::documents::from_json_column::<Fields>(r, 1)?)))?;
    for (seq, fields) in &part {
        enter(tx, index_id, *seq, &places(fields, &field))?;
    }
    let (last, complete) = (part.last().map_or(built_to, |(seq, _): &(i64, _)| *seq), part.len() < limit);
    let sql = "UPDATE payload_indexes SET built_to = ?2, complete = ?3 WHERE index_id = ?1";
    run(tx, sql, params![index_id, last, complete])?;
    Ok(true)
}

/// Makes the entries of a document that is new.
pub(super) fn add(tx: &Transaction<'_>, collection_id: &str, seq: i64, fields: &Fields) -> Result<()> {
    for index in indexes(tx, collection_id)? {
        enter(tx, index.index_id, seq, &places(fields, &index.field))?;
    }
    Ok(())
}

/// Turns the entries of a document from those of the fields that the catalog has into those of `fields`; called before
/// the row is written.
pub(super) fn replace(tx: &Transaction<'_>, collection_id: &str, seq: i64, fields: &Fields) -> Result<()> {
    let indexes = indexes(tx, collection_id)?;
    if indexes.is_empty() {
        return Ok(());
    }
    let read = |r: &rusqlite::Row<'_>| super::documents::from_json_column::<Fields>(r, 0);
    let before = rows(tx, "SELECT fields FROM documents WHERE seq = ?1", &[seq], read)?.pop();
    for index in indexes {
        let new = places(fields, &index.field);
        let old = before.as_ref().map(|before| places(before, &index.field));
        if old.as_ref() != Some(&new) {
            old.map_or(Ok(()), |old| leave(tx, index.index_id, seq, &old))?;
            enter(tx, index.index_id, seq, &new)?;
        }
    }
    Ok(())
}

/// Removes the entries of a document that had `fields`.
pub(super) fn remove(tx: &Transaction<'_>, collection_id: &str, seq: i64, fields: &str) -> Result<()> {
    let indexes = indexes(tx, collection_id)?;
    if indexes.is_empty() {
        return Ok(());
    }
    let fields: Fields = serde_json::from_str(fields).map_err(strata_model::Error::internal)?;
    indexes.iter().try_for_each(|index| leave(tx, index.index_id, seq, &places(&fields, &index.field)))
}

fn enter(tx: &Transaction<'_>, index_id: i64, seq: i64, (sorts, others): &(Place, Vec<Place>)) -> Result<()> {
    let sql = "INSERT OR IGNORE INTO payload_entries (index_id, rank, value, document_seq, sorts) VALUES (?1, ?2, ?3, ?4, ?5)";
    run(tx, sql, params![index_id, sorts.rank, sorts.value, seq, true])?;
    for other in others {
        run(tx, sql, params![index_id, other.rank, other.value, seq, false])?;
    }
    if !others.is_empty() {
        run(tx, "UPDATE payload_indexes SET arrays = 1 WHERE index_id = ?1 AND arrays = 0", [index_id])?;
    }
    Ok(())
}

fn leave(tx: &Transaction<'_>, index_id: i64, seq: i64, (sorts, others): &(Place, Vec<Place>)) -> Result<()> {
    let sql = "DELETE FROM payload_entries WHERE index_id = ?1 AND rank = ?2 AND value = ?3 AND document_seq = ?4";
    std::iter::once(sorts)
        .chain(others)
        .try_for_each(|place| run(tx, sql, params![index_id, place.rank, place.value, seq]))
}

fn run(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<()> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}
