//! Filters over rows of documents and objects.
//!
//! A condition that a column answers natively becomes SQL; the tree as a whole is evaluated by [`Filter::matches`]
//! itself, registered as the SQL function `strata_matches`, so that the catalog and every other place agree by
//! construction. Sorting by a field follows the order documented at [`strata_model::filter::sort_order`].

use super::{
    from_sql,
    payload::{MISSING, Place},
};
use rusqlite::{Connection, functions::FunctionFlags, types::Value as SqlValue};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::{borrow::Cow, sync::Arc};
use strata_model::{
    Fields, Result,
    document::SYSTEM_FIELDS,
    filter::{Condition, Filter, Operator},
};

/// Longest list whose values are bound one by one; SQLite takes no more than 32,766 values in a statement.
const MAX_MARKS: usize = 1_000;

/// A `WHERE` fragment and the values of its `?` marks.
#[derive(Debug, Clone, Default)]
pub struct Clause {
    pub sql: String,
    pub values: Vec<SqlValue>,
}

impl Clause {
    /// Makes `other` hold as well.
    pub fn and(&mut self, other: Clause) {
        if !self.sql.is_empty() && !other.sql.is_empty() {
            self.sql.push_str(" AND ");
        }
        self.sql.push_str(&other.sql);
        self.values.extend(other.values);
    }
}

/// Compiles `filter` for a table with a JSON column `fields` and the text columns `columns`, each filterable by its
/// own name.
pub fn compile(filter: &Filter, columns: &[&str]) -> Clause {
    if filter.is_empty() {
        return Clause { sql: "1 = 1".into(), values: Vec::new() };
    }
    let mut clause = Clause::default();
    if !native(filter, columns, &mut clause) {
        let roots = roots(filter);
        let named = columns.iter().filter(|c| roots.iter().any(|root| root == *c));
        let names: Vec<String> = named.map(|c| format!(", '{c}', {c}")).collect();
        clause.sql = format!("strata_matches(?, fields{})", names.concat());
        clause.values = vec![SqlValue::Text(encode(filter).to_string())];
        narrow(filter, columns, &mut clause);
    }
    clause
}

/// Whether the whole tree is conditions that columns answer; writes it if so.
fn native(filter: &Filter, columns: &[&str], into: &mut Clause) -> bool {
    match filter {
        Filter::And(list) if !list.is_empty() => list.iter().enumerate().all(|(i, part)| {
            if i > 0 {
                into.sql.push_str(" AND ");
            }
            native(part, columns, into)
        }),
        Filter::Is(condition) => column(condition, columns, into),
        _ => false,
    }
}

/// Adds the conjuncts that columns answer, so that the function runs only on rows that may match.
fn narrow(filter: &Filter, columns: &[&str], into: &mut Clause) {
    let Filter::And(list) = filter else { return };
    for part in list {
        let mut clause = Clause::default();
        if native(part, columns, &mut clause) {
            into.sql = format!("{} AND {}", clause.sql, into.sql);
            clause.values.append(&mut into.values);
            into.values = clause.values;
        } else {
            narrow(part, columns, into);
        }
    }
}

fn column(condition: &Condition, columns: &[&str], into: &mut Clause) -> bool {
    let Some(column) = columns.iter().find(|c| **c == condition.field) else { return false };
    match (condition.operator, &condition.value) {
        (Operator::Eq, Value::String(text)) => {
            into.sql.push_str(&format!("{column} = ?"));
            into.values.push(SqlValue::Text(text.clone()));
            true
        }
        (Operator::In, Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_string) => {
            if list.len() > MAX_MARKS {
                into.sql.push_str(&format!("{column} IN (SELECT value FROM json_each(?))"));
                into.values.push(SqlValue::Text(condition.value.to_string()));
                return true;
            }
            into.sql.push_str(&format!("{column} IN ({})", vec!["?"; list.len()].join(", ")));
            into.values.extend(list.iter().filter_map(Value::as_str).map(|t| SqlValue::Text(t.to_owned())));
            true
        }
        _ => false,
    }
}

/// The tree as [`decode`] reads it. [`Filter::parse`] would hold what several filters were joined to against the bounds of
/// one.
fn encode(filter: &Filter) -> Value {
    let all = |list: &[Filter]| list.iter().map(encode).collect::<Vec<_>>();
    match filter {
        Filter::And(list) => serde_json::json!({ "AND": all(list) }),
        Filter::Or(list) => serde_json::json!({ "OR": all(list) }),
        Filter::Not(list) => serde_json::json!({ "NOT": all(list) }),
        Filter::Is(c) => serde_json::json!({
            "field": c.field, "operator": c.operator.as_str(), "value": c.value, "case_sensitive": c.case_sensitive,
        }),
    }
}

/// What [`encode`] wrote; `None` of anything else.
fn decode(tree: &mut Value) -> Option<Filter> {
    let tree = tree.as_object_mut()?;
    if let Some(Value::String(field)) = tree.remove("field") {
        return Some(Filter::Is(Condition {
            field,
            operator: Operator::parse(tree.get("operator")?.as_str()?)?,
            case_sensitive: tree.get("case_sensitive")?.as_bool()?,
            value: tree.remove("value")?,
        }));
    }
    let (joint, parts) = tree.iter_mut().next()?;
    let parts = parts.as_array_mut()?.iter_mut().map(decode).collect::<Option<_>>()?;
    match joint.as_str() {
        "AND" => Some(Filter::And(parts)),
        "OR" => Some(Filter::Or(parts)),
        "NOT" => Some(Filter::Not(parts)),
        _ => None,
    }
}

/// `ORDER BY` terms that put `field` in the documented order, then ties by `tie`.
pub fn order_by(field: &str, descending: bool, columns: &[&str], tie: &str) -> Clause {
    let direction = if descending { "DESC" } else { "ASC" };
    let Order { missing, key } = Order::by(field, columns);
    let mut clause = missing;
    for term in key {
        clause.sql.push_str(&format!(", {} {direction}", term.sql));
        clause.values.extend(term.values);
    }
    clause.sql.push_str(&format!(", {tie} {direction}"));
    clause
}

/// The condition that a row comes after the one at `place`, whose `tie` is `seq`, in the order of [`order_by`].
pub(super) fn after(field: &str, descending: bool, columns: &[&str], tie: &str, place: &Place, seq: i64) -> Clause {
    let sign = if descending { "<" } else { ">" };
    let Order { mut missing, key } = Order::by(field, columns);
    if place.rank == MISSING {
        missing.sql.push_str(&format!(" AND {tie} {sign} ?"));
        missing.values.push(seq.into());
        return missing;
    }
    let ranked = [SqlValue::from(place.rank), place.value.clone()];
    let bound = ranked.into_iter().skip(2 - key.len()).chain([seq.into()]);
    let terms: Vec<String> = key.iter().map(|term| term.sql.clone()).collect();
    let marks = vec!["?"; key.len() + 1].join(", ");
    Clause {
        sql: format!("({} OR ({}, {tie}) {sign} ({marks}))", missing.sql, terms.join(", ")),
        values: missing.values.into_iter().chain(key.into_iter().flat_map(|term| term.values)).chain(bound).collect(),
    }
}

/// The parts of an order by one field.
struct Order {
    /// Whether the row has no value. Such rows come last in both directions.
    missing: Clause,
    /// What the others are compared by: the value, for a JSON field preceded by the rank of its kind.
    key: Vec<Clause>,
}

impl Order {
    fn by(field: &str, columns: &[&str]) -> Self {
        if let Some(column) = columns.iter().find(|c| **c == field) {
            let clause = |sql: String| Clause { sql, values: Vec::new() };
            return Self { missing: clause(format!("{column} IS NULL")), key: vec![clause((*column).to_owned())] };
        }
        let path = SqlValue::Text(json_path(field));
        let clause = |sql: &str| Clause { sql: sql.to_owned(), values: vec![path.clone()] };
        let rank =
            "CASE json_type(fields, ?) WHEN 'integer' THEN 0 WHEN 'real' THEN 0 WHEN 'text' THEN 1 WHEN 'true' THEN 2
             WHEN 'false' THEN 2 ELSE 3 END";
        Self {
            missing: clause("coalesce(json_type(fields, ?), 'null') = 'null'"),
            key: vec![clause(rank), clause("json_extract(fields, ?)")],
        }
    }
}

/// A dot path as SQLite's JSON path.
pub(super) fn json_path(field: &str) -> String {
    let part = |p: &str| match p.parse::<usize>() {
        Ok(index) => format!("[{index}]"),
        // SQLite's paths have no way to spell these.
        Err(_) => format!(".\"{}\"", p.replace(['"', '\0'], "")),
    };
    format!("${}", field.split('.').map(part).collect::<String>())
}

/// Registers `strata_matches(filter, fields, name, value, name, value, …)`.
pub(super) fn register(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    let matches = |context: &rusqlite::functions::Context<'_>| {
        type Failure = Box<dyn std::error::Error + Send + Sync>;
        let asked: Arc<Asked> = context.get_or_create_aux(0, |value| -> Result<Asked, Failure> {
            let filter = decode(&mut serde_json::from_str(value.as_str()?)?);
            Ok(Asked::of(filter.ok_or("not a filter")?))
        })?;
        let user = |error| rusqlite::Error::UserFunctionError(Box::new(error));
        let mut fields = asked.read(context.get_raw(1).as_str()?).map_err(user)?;
        for at in (2..context.len()).step_by(2) {
            if let Some(value) = context.get_raw(at + 1).as_str_or_null()? {
                fields.insert(context.get_raw(at).as_str()?.to_owned(), value.into());
            }
        }
        Ok(asked.filter.matches(&fields))
    };
    connection.create_scalar_function("strata_matches", -1, flags, matches).map_err(from_sql)
}

/// The root fields that a filter looks at.
fn roots(filter: &Filter) -> Vec<String> {
    let named = filter.fields();
    let heads = named.iter().filter_map(|path| path.split_once('.')).map(|(head, _)| head);
    let mut roots: Vec<String> = named.iter().copied().chain(heads).map(str::to_owned).collect();
    roots.sort_unstable();
    roots.dedup();
    roots
}

/// A filter, and the root fields that it looks at: of a row nothing else is read.
struct Asked {
    filter: Filter,
    roots: Vec<String>,
}

impl Asked {
    fn of(filter: Filter) -> Self {
        Self { roots: roots(&filter), filter }
    }

    fn names(&self, root: &str) -> bool {
        self.roots.iter().any(|known| known == root)
    }

    /// Of the JSON object `text` the root fields that matter.
    fn read(&self, text: &str) -> serde_json::Result<Fields> {
        let mut json = serde_json::Deserializer::from_str(text);
        self.deserialize(&mut json)
    }
}

impl<'de> DeserializeSeed<'de> for &Asked {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Asked {
    type Value = Fields;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if self.names(&name) {
                fields.insert(name.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(fields)
    }
}

/// The columns of `documents` that filters may name.
pub const DOCUMENT_COLUMNS: &[&str] = &SYSTEM_FIELDS;
/// The columns of `objects` that filters may name.
pub const OBJECT_COLUMNS: &[&str] =
    &["object_id", "bucket_id", "key_prefix", "status", "content_hash", "created_at", "updated_at"];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_list_is_one_value_and_finds_the_same() {
        let found = |length: usize| {
            let list: Vec<String> = (0..length).map(|n| format!("doc_{n}")).collect();
            let filter = Filter::Is(Condition {
                field: "document_id".into(),
                operator: Operator::In,
                value: json!(list),
                case_sensitive: true,
            });
            let clause = compile(&filter, &["document_id"]);
            let connection = Connection::open_in_memory().unwrap();
            connection
                .execute_batch("CREATE TABLE t (document_id TEXT); INSERT INTO t VALUES ('doc_0'), ('doc_999'), ('x')")
                .unwrap();
            let sql = format!("SELECT count(*) FROM t WHERE {}", clause.sql);
            let count: i64 =
                connection.query_row(&sql, rusqlite::params_from_iter(&clause.values), |r| r.get(0)).unwrap();
            (clause.values.len(), count)
        };
        assert_eq!(found(MAX_MARKS), (1_000, 2));
        assert_eq!(found(40_000), (1, 2));
    }

    #[test]
    fn joined_filters_may_be_larger_than_one_that_is_sent() {
        let most = strata_model::limits::MAX_FILTER_CONDITIONS;
        let conditions: Vec<Value> = (1..most).map(|n| json!({ "a": { "gte": 1, "ne": n } })).collect();
        let one = Filter::parse(&json!({ "AND": conditions, "NOT": { "a": [null] } }), "f").unwrap();
        let filter = one.clone().and(one);
        let clause = compile(&filter, &[]);
        let connection = Connection::open_in_memory().unwrap();
        register(&connection).unwrap();
        connection
            .execute_batch("CREATE TABLE t (fields TEXT); INSERT INTO t VALUES ('{\"a\":0}'), ('{\"a\":999}'), ('{}')")
            .unwrap();
        let sql = format!("SELECT fields FROM t WHERE {}", clause.sql);
        let found: String =
            connection.query_row(&sql, rusqlite::params_from_iter(&clause.values), |r| r.get(0)).unwrap();
        assert_eq!(found, "{\"a\":999}");
    }
}
