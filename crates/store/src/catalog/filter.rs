//! Filters over rows of documents and objects.
//!
//! A condition that a column answers natively becomes SQL; the tree as a whole is evaluated by [`Filter::matches`]
//! itself, registered as the SQL function `strata_matches`, so that the catalog and every other place agree by
//! construction. Sorting by a field follows the order documented at [`strata_model::filter::sort_order`].

use super::from_sql;
use rusqlite::{Connection, functions::FunctionFlags, types::Value as SqlValue};
use serde_json::Value;
use std::sync::Arc;
use strata_model::{
    Fields, Result,
    document::SYSTEM_FIELDS,
    filter::{Condition, Filter, Operator},
};

/// Longest list whose values are bound one by one; SQLite takes no more than 32,766 values in a statement.
const MAX_MARKS: usize = 1_000;

/// A `WHERE` fragment and the values of its `?` marks.
#[derive(Debug, Default)]
pub struct Clause {
    pub sql: String,
    pub values: Vec<SqlValue>,
}

/// Compiles `filter` for a table with a JSON column `fields` and the text columns `columns`, each filterable by its
/// own name.
pub fn compile(filter: &Filter, columns: &[&str]) -> Clause {
    if filter.is_empty() {
        return Clause { sql: "1 = 1".into(), values: Vec::new() };
    }
    let mut clause = Clause::default();
    if !native(filter, columns, &mut clause) {
        let names: Vec<String> = columns.iter().map(|c| format!(", '{c}', {c}")).collect();
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

/// The tree in the form that [`Filter::parse`] reads.
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

/// `ORDER BY` terms that put `field` in the documented order, then ties by `tie`.
pub fn order_by(field: &str, descending: bool, columns: &[&str], tie: &str) -> Clause {
    let direction = if descending { "DESC" } else { "ASC" };
    if let Some(column) = columns.iter().find(|c| **c == field) {
        return Clause {
            sql: format!("{column} IS NULL, {column} {direction}, {tie} {direction}"),
            values: Vec::new(),
        };
    }
    let path = SqlValue::Text(json_path(field));
    let kind = "json_type(fields, ?)";
    let rank = format!(
        "CASE {kind} WHEN 'integer' THEN 0 WHEN 'real' THEN 0 WHEN 'text' THEN 1 WHEN 'true' THEN 2 WHEN 'false' THEN 2 ELSE 3 END"
    );
    Clause {
        sql: format!(
            "coalesce({kind}, 'null') = 'null', {rank} {direction}, json_extract(fields, ?) {direction}, {tie} {direction}"
        ),
        values: vec![path.clone(), path.clone(), path],
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
        let filter: Arc<Filter> = context.get_or_create_aux(0, |value| -> Result<Filter, Failure> {
            Ok(Filter::parse(&serde_json::from_str(value.as_str()?)?, "filters")?)
        })?;
        let user = |error| rusqlite::Error::UserFunctionError(Box::new(error));
        let mut fields: Fields = serde_json::from_str(context.get_raw(1).as_str()?).map_err(user)?;
        for at in (2..context.len()).step_by(2) {
            if let Some(value) = context.get_raw(at + 1).as_str_or_null()? {
                fields.insert(context.get_raw(at).as_str()?.to_owned(), value.into());
            }
        }
        Ok(filter.matches(&fields))
    };
    connection.create_scalar_function("strata_matches", -1, flags, matches).map_err(from_sql)
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
}
