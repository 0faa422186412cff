//! Lists of resources that are few enough to be read whole: search, filter, sort and page over their views.

use crate::{Engine, published::MAX_PUBLISHED};
use serde_json::Value;
use std::cmp::Ordering;
use strata_model::{Error, Fields, Principal, Result, Scope, filter, filter::Filter, limits, path};
use strata_store::catalog::{
    principals, publications,
    resources::{self, Kind},
};

/// How a list of resources is narrowed, ordered and cut.
#[derive(Debug, Clone)]
pub struct ListRequest {
    /// Text that the id, the name, the description or the metadata contains.
    pub search: Option<String>,
    pub filters: Filter,
    /// Fields and whether descending, the most important first. Empty keeps the order of creation.
    pub sort: Vec<(String, bool)>,
    /// Whether `search` minds upper and lower case.
    pub case_sensitive: bool,
    pub limit: usize,
    pub offset: usize,
}

impl Default for ListRequest {
    /// Everything, in order of creation.
    fn default() -> Self {
        Self {
            search: None,
            filters: Filter::all(),
            sort: Vec::new(),
            case_sensitive: false,
            limit: limits::MAX_PAGE,
            offset: 0,
        }
    }
}

/// A part of a list, and how long the list is before the cut.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub total: usize,
}

impl<T> Page<T> {
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), total: self.total }
    }
}

impl ListRequest {
    /// Reads `sort` and `sorts` as clients write them: `{"field": "created_at", "direction": "desc"}`, a map from field to
    /// direction, a text such as `-created_at` or `created_at:desc`, or an array of these.
    pub fn parse_sort(value: &Value, at: &str) -> Result<Vec<(String, bool)>> {
        let wrong = || Error::invalid(at, "must be `{\"field\": …, \"direction\": \"asc\" | \"desc\"}`");
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => {
                let each = list.iter().enumerate().map(|(i, v)| Self::parse_sort(v, &format!("{at}.{i}")));
                Ok(each.collect::<Result<Vec<_>>>()?.concat())
            }
            Value::String(text) => {
                let fields = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                fields
                    .map(|part| match part.strip_prefix('-') {
                        Some(field) => Ok((field.to_owned(), true)),
                        None => match part.rsplit_once(':') {
                            Some((field, way)) => Ok((field.to_owned(), descending(way, at)?)),
                            None => Ok((part.trim_start_matches('+').to_owned(), false)),
                        },
                    })
                    .collect()
            }
            Value::Object(map) if map.get("field").is_some_and(Value::is_string) => {
                let field = map.get("field").and_then(Value::as_str).unwrap_or_default().to_owned();
                let way = ["direction", "order"].iter().find_map(|key| map.get(*key)).filter(|v| !v.is_null());
                let way = way.map_or(Ok("asc"), |v| v.as_str().ok_or_else(wrong))?;
                Ok(vec![(field, descending(way, at)?)])
            }
            Value::Object(map) => {
                let each = map.iter().map(|(field, way)| match way {
                    Value::String(way) => Ok((field.clone(), descending(way, &format!("{at}.{field}"))?)),
                    Value::Number(n) => Ok((field.clone(), n.as_f64().is_some_and(|n| n < 0.0))),
                    _ => Err(wrong()),
                });
                each.collect()
            }
            _ => Err(wrong()),
        }
    }

    /// The page of `rows`, each seen through `view`. Rows come in order of creation.
    pub fn page<T>(&self, rows: Vec<T>, view: impl Fn(&T) -> Fields) -> Page<T> {
        self.cut(self.kept(rows, view))
    }

    /// The rows of all pages, in the order that is asked for.
    pub fn kept<T>(&self, rows: Vec<T>, view: impl Fn(&T) -> Fields) -> Vec<T> {
        let needle =
            self.search.as_ref().map(|text| if self.case_sensitive { text.clone() } else { text.to_lowercase() });
        let seen = rows.into_iter().map(|row| (view(&row), row));
        let mut kept: Vec<(Fields, T)> = seen
            .filter(|(view, _)| needle.as_deref().is_none_or(|needle| contains(view, needle, self.case_sensitive)))
            .filter(|(view, _)| self.filters.matches(view))
            .collect();
        if !self.sort.is_empty() {
            kept.sort_by(|(a, _), (b, _)| {
                let each = self.sort.iter().map(|(field, descending)| {
                    filter::sort_order(path::get_field(a, field), path::get_field(b, field), *descending)
                });
                each.fold(Ordering::Equal, Ordering::then)
            });
        }
        kept.into_iter().map(|(_, row)| row).collect()
    }

    /// The page of what [`kept`](Self::kept) answered.
    pub fn cut<T>(&self, kept: Vec<T>) -> Page<T> {
        let total = kept.len();
        Page { items: kept.into_iter().skip(self.offset).take(self.limit).collect(), total }
    }
}

fn descending(way: &str, at: &str) -> Result<bool> {
    match way.to_ascii_lowercase().as_str() {
        "asc" | "ascending" => Ok(false),
        "desc" | "descending" => Ok(true),
        _ => Err(Error::invalid(at, format!("`{way}` is no direction; use `asc` or `desc`"))),
    }
}

/// Whether a text that people know the resource by contains `needle`.
fn contains(view: &Fields, needle: &str, case_sensitive: bool) -> bool {
    view.iter().any(|(key, value)| {
        let is_known_by = matches!(key.as_str(), "name" | "description" | "metadata" | "email")
            || key.ends_with("_name")
            || key.ends_with("_id");
        is_known_by && has_text(value, needle, case_sensitive)
    })
}

fn has_text(value: &Value, needle: &str, case_sensitive: bool) -> bool {
    match value {
        Value::String(text) if case_sensitive => text.contains(needle),
        Value::String(text) => text.to_lowercase().contains(needle),
        Value::Array(list) => list.iter().any(|v| has_text(v, needle, case_sensitive)),
        Value::Object(map) => map.values().any(|v| has_text(v, needle, case_sensitive)),
        _ => false,
    }
}

/// A resource that was found by its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// `namespace`, `published_retriever`, or [`Kind::name`].
    pub kind: &'static str,
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

impl Engine {
    /// Resources of the scope, and namespaces of the principal, that `query` is part of; those whose name is or begins
    /// with it come first. `kinds` empty means every kind.
    pub async fn search_resources(
        &self,
        principal: &Principal,
        scope: &Scope,
        query: &str,
        kinds: Vec<String>,
        (limit, offset): (usize, usize),
    ) -> Result<Page<Found>> {
        let wants = move |kind: &str| kinds.is_empty() || kinds.iter().any(|k| k == kind);
        let (principal, scope, needle) = (principal.clone(), scope.clone(), query.to_lowercase());
        let read = self.catalog.read(move |connection| {
            let mut all = Vec::new();
            for kind in [Kind::Bucket, Kind::Collection, Kind::Retriever].into_iter().filter(|kind| wants(kind.name()))
            {
                let rows = resources::list(connection, kind, &scope)?.into_iter();
                all.extend(rows.map(|r| found(kind.name(), r.id, r.name, &r.body, r.created_at, r.updated_at)));
            }
            if wants("published_retriever") {
                let rows = publications::list(connection, &scope, MAX_PUBLISHED, 0)?.into_iter();
                all.extend(rows.map(|p| {
                    found("published_retriever", p.public_id, p.public_name, &p.body, p.created_at, p.updated_at)
                }));
            }
            if wants("namespace") {
                let rows = principals::namespaces(connection, &principal)?.into_iter();
                all.extend(
                    rows.map(|n| found("namespace", n.namespace_id, n.name, &n.body, n.created_at, n.updated_at)),
                );
            }
            Ok(all)
        });
        let mut ranked: Vec<(usize, Found)> =
            read.await?.into_iter().filter_map(|found| Some((rank(&found, &needle)?, found))).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let total = ranked.len();
        let items = ranked.into_iter().skip(offset).take(limit).map(|(_, found)| found).collect();
        Ok(Page { items, total })
    }
}

fn found(kind: &'static str, id: String, name: String, body: &Fields, created_at: String, updated_at: String) -> Found {
    let description = body.get("description").and_then(Value::as_str).map(str::to_owned);
    Found { kind, id, name, description, created_at, updated_at }
}

/// How well a resource fits, 0 the best; `None` where it does not.
fn rank(found: &Found, needle: &str) -> Option<usize> {
    let (name, id) = (found.name.to_lowercase(), found.id.to_lowercase());
    if name == needle || id == needle {
        return Some(0);
    }
    if name.starts_with(needle) {
        return Some(1);
    }
    if name.contains(needle) || id.contains(needle) {
        return Some(2);
    }
    found.description.as_ref().filter(|text| text.to_lowercase().contains(needle)).map(|_| 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Vec<Fields> {
        let rows = json!([
            { "bucket_id": "bkt_1", "bucket_name": "Rivers", "size": 3, "metadata": { "team": "Blue" } },
            { "bucket_id": "bkt_2", "bucket_name": "Lakes", "size": 1 },
            { "bucket_id": "bkt_3", "bucket_name": "Seas", "size": 2, "description": "all rivers end here" },
        ]);
        rows.as_array().unwrap().iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    fn names(request: &ListRequest) -> (Vec<String>, usize) {
        let page = request.page(rows(), Fields::clone);
        (page.items.iter().map(|row| row["bucket_name"].as_str().unwrap().to_owned()).collect(), page.total)
    }

    #[test]
    fn search_filter_sort_and_cut_come_in_this_order() {
        let search = ListRequest { search: Some("RIVERS".into()), ..ListRequest::default() };
        assert_eq!(names(&search), (vec!["Rivers".into(), "Seas".into()], 2));
        let exact = ListRequest { case_sensitive: true, ..search };
        assert_eq!(names(&exact), (vec![], 0));
        let team = ListRequest { search: Some("blue".into()), ..ListRequest::default() };
        assert_eq!(names(&team).1, 1);
        let filters = Filter::parse(&json!({ "size": { "gte": 2 } }), "filters").unwrap();
        let sort = ListRequest::parse_sort(&json!({ "field": "size" }), "sort").unwrap();
        let cut = ListRequest { filters, sort, limit: 1, offset: 1, ..ListRequest::default() };
        assert_eq!(names(&cut), (vec!["Rivers".into()], 2));
    }

    #[test]
    fn sorts_are_read_in_every_spelling() {
        let wanted = vec![("created_at".to_owned(), true)];
        for spelling in [
            json!("-created_at"),
            json!("created_at:desc"),
            json!({ "field": "created_at", "direction": "desc" }),
            json!({ "created_at": "desc" }),
            json!({ "created_at": -1 }),
            json!([{ "field": "created_at", "direction": "DESC" }]),
        ] {
            assert_eq!(ListRequest::parse_sort(&spelling, "sort").unwrap(), wanted, "{spelling}");
        }
        assert!(ListRequest::parse_sort(&json!({ "field": "a", "direction": "up" }), "sort").is_err());
        assert!(ListRequest::parse_sort(&json!(7), "sort").is_err());
    }
}
