//! Suggestions while a query is being typed: values of fields, names of collections, and what was searched lately.

use crate::{Engine, listing::ListRequest};
use serde_json::Value;
use std::collections::HashMap;
use strata_model::{
    Error, Result, Scope,
    filter::{Condition, Filter, Operator},
    limits,
};
use strata_store::catalog::{
    browse::{self, Selection},
    lineage,
    resources::{self, Kind},
    rusqlite::Connection,
};

/// Fields that one request looks at.
const MAX_FIELDS: usize = 5;
/// Different values of one field that are looked at, most frequent first.
const MAX_VALUES: usize = 1_000;
/// Longest value that is suggested, in characters.
const MAX_VALUE_CHARS: usize = 200;

/// A value that begins with what was typed, and how many documents have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueCount {
    pub field: String,
    pub value: String,
    pub count: i64,
}

/// What could follow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Typeahead {
    /// Most frequent first.
    pub values: Vec<ValueCount>,
    /// Ids and names of collections whose name contains it.
    pub collections: Vec<(String, String)>,
    /// Queries that contain it, the newest first.
    pub recent: Vec<String>,
}

impl Engine {
    /// At most `limit` suggestions of each kind. Without `fields`, the keywords that the namespace indexes are looked at.
    pub async fn typeahead(&self, scope: &Scope, typed: &str, fields: Vec<String>, limit: usize) -> Result<Typeahead> {
        if fields.len() > MAX_FIELDS {
            return Err(Error::invalid("fields", format!("names at most {MAX_FIELDS} fields")));
        }
        let recent = self.searched_lately(scope, typed, limit);
        let (scope, typed) = (scope.clone(), typed.to_owned());
        let read = self.catalog.read(move |connection| {
            let fields = if fields.is_empty() { keywords(connection, &scope)? } else { fields };
            let mut values: Vec<ValueCount> = Vec::new();
            for field in fields {
                values.extend(beginning(connection, &scope, field, &typed)?);
            }
            values.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.value.cmp(&b.value)));
            values.truncate(limit);
            let needle = typed.to_lowercase();
            let named =
                resources::list(connection, Kind::Collection, &scope)?.into_iter().map(|row| (row.id, row.name));
            let found = named.filter(|(_, name)| name.to_lowercase().contains(&needle));
            let collections: Vec<(String, String)> = found.take(limit).collect();
            Ok((values, collections))
        });
        let (values, collections) = read.await?;
        Ok(Typeahead { values, collections, recent })
    }

    fn searched_lately(&self, scope: &Scope, typed: &str, limit: usize) -> Vec<String> {
        let needle = typed.to_lowercase();
        let request = ListRequest { limit: limits::MAX_PAGE, ..ListRequest::default() };
        let page = self.memory.history.page(scope, &request, |record| {
            record.query_summary.as_ref().is_some_and(|query| query.to_lowercase().contains(&needle))
        });
        let mut recent: Vec<String> = Vec::new();
        for query in page.items.into_iter().filter_map(|record| record.query_summary) {
            if recent.len() < limit && !recent.contains(&query) {
                recent.push(query);
            }
        }
        recent
    }
}

/// The fields that the namespace declares to be keywords.
fn keywords(connection: &Connection, scope: &Scope) -> Result<Vec<String>> {
    let body = lineage::namespace_body(connection, &scope.namespace_id)?.unwrap_or_default();
    let declared = body.get("payload_indexes").and_then(Value::as_array).into_iter().flatten();
    let keywords = declared.filter(|index| index.get("type").and_then(Value::as_str) == Some("keyword"));
    let names = keywords.filter_map(|index| index.get("field_name")?.as_str()).map(str::to_owned);
    Ok(names.take(MAX_FIELDS).collect())
}

/// The values of a field that begin with what was typed. Each value of a list counts for itself.
fn beginning(connection: &Connection, scope: &Scope, field: String, typed: &str) -> Result<Vec<ValueCount>> {
    let filter = Filter::Is(Condition {
        field: field.clone(),
        operator: Operator::StartsWith,
        value: typed.into(),
        case_sensitive: false,
    });
    let found = browse::values(connection, scope, Selection::of(None, &filter).findable(), &field, MAX_VALUES, 0)?;
    let counted = counted(found, typed);
    Ok(counted.into_iter().map(|(value, count)| ValueCount { field: field.clone(), value, count }).collect())
}

fn counted(found: Vec<(Value, i64)>, typed: &str) -> HashMap<String, i64> {
    let needle = typed.to_lowercase();
    let mut counts: HashMap<String, i64> = HashMap::new();
    for (value, count) in found {
        let each = match value {
            Value::Array(list) => list,
            one => vec![one],
        };
        for value in each {
            let Value::String(text) = value else { continue };
            if text.to_lowercase().starts_with(&needle) && text.chars().count() <= MAX_VALUE_CHARS {
                *counts.entry(text).or_default() += count;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_count_alone_and_in_lists() {
        let found = vec![(json!("Apple"), 2), (json!(["apple", "pear"]), 3), (json!(["Apple"]), 1), (json!(4), 9)];
        let counts = counted(found, "AP");
        assert_eq!((counts.len(), counts.get("Apple"), counts.get("apple")), (2, Some(&3), Some(&3)));
    }
}
