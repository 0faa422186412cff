//! One way to page, in all the spellings that clients use. A cursor is opaque text; it beats an offset, and the body beats
//! the query.

use crate::error::ApiError;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_engine::listing::ListRequest;
use strata_model::{Error, filter::Filter, limits};
use utoipa::{IntoParams, ToSchema};

/// Rows of a page of resources where the caller does not say.
pub const DEFAULT_PAGE: usize = 100;

/// Paging as it is asked for, in a query or copied from a body. `limit` and `page_size`, and `cursor`, `next_cursor` and
/// `after`, mean the same.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct PagingFields {
    /// Rows of the page.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
    /// The same as `limit`.
    #[param(minimum = 1, maximum = 1000)]
    pub page_size: Option<i64>,
    /// Rows to pass over.
    #[param(minimum = 0, maximum = 10_000)]
    pub offset: Option<i64>,
    /// Page number, from 1.
    #[param(minimum = 1)]
    pub page: Option<i64>,
    /// Where to go on: `pagination.next_cursor` of the page before.
    pub cursor: Option<String>,
    /// The same as `cursor`.
    pub next_cursor: Option<String>,
    /// The same as `cursor`.
    pub after: Option<String>,
    /// Whether to count all rows, for `total` and `total_pages`.
    pub include_total: Option<bool>,
}

/// What most lists take in their body.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ListBody {
    /// Rows of the page.
    #[schema(minimum = 1, maximum = 1000)]
    pub limit: Option<i64>,
    /// The same as `limit`.
    #[schema(minimum = 1, maximum = 1000)]
    pub page_size: Option<i64>,
    /// Rows to pass over.
    #[schema(minimum = 0)]
    pub offset: Option<i64>,
    /// Page number, from 1.
    #[schema(minimum = 1)]
    pub page: Option<i64>,
    /// Where to go on: `pagination.next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Whether to count all rows.
    pub include_total: Option<bool>,
    /// A filter: `{"AND": [{"field": …, "operator": …, "value": …}]}` or `{field: value}`.
    pub filters: Option<Value>,
    /// `{"field": …, "direction": "asc" | "desc"}`.
    pub sort: Option<Value>,
    /// More than one `sort`, the most important first.
    pub sorts: Option<Value>,
    /// Text that id, name, description or metadata contain.
    pub search: Option<String>,
    /// Whether `search` and `filters` mind upper and lower case.
    pub case_sensitive: Option<bool>,
}

impl ListBody {
    /// The page and the list that query and body ask for together.
    pub fn resolve(&self, query: &PagingFields) -> Result<(Paging, ListRequest), ApiError> {
        let fields = PagingFields {
            limit: self.limit,
            page_size: self.page_size,
            offset: self.offset,
            page: self.page,
            cursor: self.cursor.clone(),
            include_total: self.include_total,
            ..PagingFields::default()
        };
        let paging = Paging::resolve(query, &fields, DEFAULT_PAGE)?;
        let case_sensitive = self.case_sensitive.unwrap_or(false);
        let filters = match self.filters.clone().unwrap_or_default() {
            Value::Object(mut map) => {
                map.entry("case_sensitive").or_insert(case_sensitive.into());
                Value::Object(map)
            }
            other => other,
        };
        let mut sort = ListRequest::parse_sort(self.sort.as_ref().unwrap_or(&Value::Null), "sort")?;
        sort.extend(ListRequest::parse_sort(self.sorts.as_ref().unwrap_or(&Value::Null), "sorts")?);
        let request = ListRequest {
            search: self.search.clone().filter(|text| !text.is_empty()),
            filters: Filter::parse(&filters, "filters")?,
            sort,
            case_sensitive,
            limit: paging.limit,
            offset: paging.offset,
        };
        Ok((paging, request))
    }
}

/// A page that was asked for, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Paging {
    pub limit: usize,
    pub offset: usize,
    /// What [`PaginationResponse::after`] put into the cursor; `offset` is 0 then.
    pub after: Option<Value>,
    pub include_total: bool,
}

impl Paging {
    /// Reads query and body; the body wins, field by field.
    pub fn resolve(query: &PagingFields, body: &PagingFields, default_limit: usize) -> Result<Self, ApiError> {
        let number = |at: &'static str, value: Option<i64>, least: i64, most: i64| match value {
            Some(n) if n < least || n > most => {
                Err(ApiError(Error::invalid(at, format!("must be from {least} to {most}, not {n}"))))
            }
            other => Ok(other.and_then(|n| usize::try_from(n).ok())),
        };
        let most = limits::MAX_PAGE as i64;
        let furthest = limits::MAX_OFFSET as i64;
        let mut limit = None;
        for fields in [body, query] {
            limit =
                limit.or(number("limit", fields.limit, 1, most)?).or(number("page_size", fields.page_size, 1, most)?);
        }
        let limit = limit.unwrap_or(default_limit);
        let include_total = body.include_total.or(query.include_total).unwrap_or(false);
        let cursors = |f: &PagingFields| {
            [&f.cursor, &f.next_cursor, &f.after].into_iter().flatten().find(|c| !c.is_empty()).cloned()
        };
        if let Some(cursor) = cursors(body).or_else(|| cursors(query)) {
            let (offset, after) = read_cursor(&cursor)?;
            return Ok(Self { limit, offset, after, include_total });
        }
        let page = number("page", body.page.or(query.page), 1, i64::MAX)?;
        let offset = number("offset", body.offset, 0, i64::MAX)?.or(number("offset", query.offset, 0, furthest)?);
        let offset = match page.map(|page| (page - 1).saturating_mul(limit)) {
            Some(offset) if offset > limits::MAX_OFFSET => {
                let message = format!("reaches past row {furthest}; go on with `cursor` instead");
                return Err(ApiError(Error::invalid("page", message)));
            }
            Some(offset) => offset,
            None => offset.unwrap_or(0),
        };
        Ok(Self { limit, offset, after: None, include_total })
    }

    fn page(&self) -> usize {
        self.offset / self.limit + 1
    }
}

/// Where a page stands. `total` and `total_pages` are counted only where `include_total` asked for them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub struct PaginationResponse {
    pub total: Option<i64>,
    pub page: Option<i64>,
    pub page_size: Option<i64>,
    pub total_pages: Option<i64>,
    /// Query of the next page, where there is one.
    pub next_page: Option<String>,
    /// Query of the page before, where there is one.
    pub previous_page: Option<String>,
    /// Send it as `cursor` to go on; null at the end.
    pub next_cursor: Option<String>,
}

impl PaginationResponse {
    /// A page cut by offset out of `total` rows, of which it shows `returned`.
    pub fn of(paging: &Paging, returned: usize, total: usize) -> Self {
        let next = paging.offset + returned;
        let more = returned > 0 && next < total;
        let link = |page: usize| format!("?page={page}&page_size={}", paging.limit);
        Self {
            page: Some(paging.page() as i64),
            next_page: more.then(|| link(paging.page() + 1)),
            previous_page: (paging.offset > 0).then(|| link(paging.page().saturating_sub(1).max(1))),
            next_cursor: more.then(|| write_cursor(&json!({ "o": next }))),
            ..Self::bare(paging, Some(total as i64))
        }
    }

    /// A page that goes on after `next`, or ends where that is `None`. `total` is shown only if it was asked for.
    pub fn after(paging: &Paging, next: Option<Value>, total: Option<i64>) -> Self {
        Self { next_cursor: next.map(|next| write_cursor(&json!({ "a": next }))), ..Self::bare(paging, total) }
    }

    /// [`PaginationResponse::after`] for a page of `rows`; one that was reached by number says also which one it is and
    /// which are beside it.
    pub fn marked(paging: &Paging, rows: usize, next: Option<Value>, total: Option<i64>) -> Self {
        let (has_more, page) = (next.is_some() && rows > 0, paging.page());
        let shown = Self::after(paging, next, total);
        if paging.after.is_some() {
            return shown;
        }
        let link = |page: usize| format!("?page={page}&page_size={}", paging.limit);
        Self {
            page: i64::try_from(page).ok(),
            next_page: has_more.then(|| link(page + 1)),
            previous_page: (paging.offset > 0).then(|| link(page.saturating_sub(1).max(1))),
            ..shown
        }
    }

    fn bare(paging: &Paging, total: Option<i64>) -> Self {
        let total = total.filter(|_| paging.include_total);
        Self {
            total,
            page_size: Some(paging.limit as i64),
            total_pages: total.map(|total| (total as usize).div_ceil(paging.limit) as i64),
            ..Self::default()
        }
    }
}

/// Any value as opaque text.
pub fn write_cursor(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn read_cursor(text: &str) -> Result<(usize, Option<Value>), ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let value = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let offset = value.as_ref().and_then(|v| v.get("o")?.as_u64()).and_then(|n| usize::try_from(n).ok());
    let after = value.as_ref().and_then(|v| v.get("a").cloned());
    match (offset, after) {
        (Some(offset), _) => Ok((offset, None)),
        (None, Some(after)) => Ok((0, Some(after))),
        (None, None) => Err(ApiError(Error::invalid("cursor", "is not one that a page of this list gave out"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(limit: Option<i64>, page: Option<i64>) -> PagingFields {
        PagingFields { limit, page, ..PagingFields::default() }
    }

    #[test]
    fn spellings_mean_one_thing_and_the_body_wins() {
        let none = PagingFields::default();
        let resolve = |query: &PagingFields, body: &PagingFields| Paging::resolve(query, body, 20).unwrap();
        assert_eq!(resolve(&none, &none), Paging { limit: 20, offset: 0, after: None, include_total: false });
        assert_eq!(resolve(&fields(Some(5), Some(3)), &none).offset, 10);
        assert_eq!(resolve(&PagingFields { page_size: Some(7), ..none.clone() }, &none).limit, 7);
        assert_eq!(resolve(&fields(Some(5), None), &fields(Some(6), None)).limit, 6);
        let total = PagingFields { include_total: Some(true), ..none.clone() };
        assert!(resolve(&none, &total).include_total);
        let far = PagingFields { offset: Some(10_001), ..none.clone() };
        assert_eq!(resolve(&none, &far).offset, 10_001, "the body's offset has no bound of its own");
    }

    #[test]
    fn bounds_are_named() {
        let none = PagingFields::default();
        for (query, field) in [
            (fields(Some(0), None), "limit"),
            (fields(Some(1001), None), "limit"),
            (PagingFields { page_size: Some(-1), ..none.clone() }, "page_size"),
            (fields(None, Some(0)), "page"),
            (fields(None, Some(i64::MAX)), "page"),
            (PagingFields { offset: Some(10_001), ..none.clone() }, "offset"),
            (PagingFields { cursor: Some("nonsense".into()), ..none.clone() }, "cursor"),
        ] {
            match Paging::resolve(&query, &none, 20) {
                Err(ApiError(Error::Invalid(list))) => assert_eq!(list[0].field, field),
                other => panic!("{query:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn cursors_lead_from_page_to_page_to_the_end() {
        let (mut query, mut seen) = (fields(Some(4), None), Vec::new());
        loop {
            let paging = Paging::resolve(&query, &PagingFields::default(), 20).unwrap();
            let rows: Vec<usize> = (0..10).skip(paging.offset).take(paging.limit).collect();
            let shown = PaginationResponse::of(&paging, rows.len(), 10);
            seen.extend(rows);
            match shown.next_cursor {
                Some(cursor) => query = PagingFields { after: Some(cursor), ..query },
                None => break,
            }
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_value_survives_in_a_cursor() {
        let paging = Paging { limit: 1, offset: 0, after: None, include_total: false };
        let cursor = PaginationResponse::after(&paging, Some(json!(["a", 3])), Some(9));
        assert_eq!(cursor.total, None, "not asked for");
        let query = PagingFields { next_cursor: cursor.next_cursor, ..PagingFields::default() };
        assert_eq!(Paging::resolve(&query, &PagingFields::default(), 20).unwrap().after, Some(json!(["a", 3])));
    }
}
