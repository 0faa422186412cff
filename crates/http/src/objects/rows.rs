//! How rows of a bucket, objects or uploads, are listed.

use crate::{
    error::ApiError,
    paging::{PaginationResponse, Paging, PagingFields},
};
use serde::Deserialize;
use serde_json::Value;
use strata_engine::{listing::ListRequest, objects::Listing};
use strata_model::{Error, filter::Filter};
use utoipa::ToSchema;

/// Which rows, in which order, and how many.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct ListRowsRequest {
    /// Rows of the page.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// The same as `limit`.
    #[schema(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// Rows to pass over.
    #[schema(minimum = 0, maximum = 10_000)]
    offset: Option<i64>,
    /// Page number, from 1.
    #[schema(minimum = 1)]
    page: Option<i64>,
    /// Where to go on: `pagination.next_cursor` of the page before.
    cursor: Option<String>,
    /// Whether to count all rows.
    include_total: Option<bool>,
    /// A filter: `{"AND": [{"field": …, "operator": …, "value": …}]}` or `{field: value}`.
    filters: Option<Value>,
    /// `{"field": …, "direction": "asc" | "desc"}`; the order of creation where it is left out.
    sort: Option<Value>,
    /// Text that the row contains.
    search: Option<String>,
    /// Of objects, only these keys; dots lead into them. The ids are always there.
    pub select: Option<Vec<String>>,
    /// Give a URL to the content of every blob.
    pub return_presigned_urls: Option<bool>,
}

impl ListRowsRequest {
    /// The page and the list that query and body ask for together.
    pub(crate) fn resolve(&self, query: &PagingFields, default_limit: usize) -> Result<(Paging, Listing), ApiError> {
        let fields = PagingFields {
            limit: self.limit,
            page_size: self.page_size,
            offset: self.offset,
            page: self.page,
            cursor: self.cursor.clone(),
            include_total: self.include_total,
            ..PagingFields::default()
        };
        let paging = Paging::resolve(query, &fields, default_limit)?;
        let cursor = match &paging.after {
            None => None,
            Some(Value::String(cursor)) => Some(cursor.clone()),
            Some(_) => return Err(Error::invalid("cursor", "is not one that a page of this list gave out").into()),
        };
        let mut sorts = ListRequest::parse_sort(self.sort.as_ref().unwrap_or(&Value::Null), "sort")?;
        if sorts.len() > 1 {
            return Err(Error::invalid("sort", "must name one field").into());
        }
        let listing = Listing {
            filter: Filter::parse(self.filters.as_ref().unwrap_or(&Value::Null), "filters")?,
            search: self.search.clone().filter(|text| !text.is_empty()),
            sort: sorts.pop(),
            limit: paging.limit,
            offset: paging.offset,
            cursor,
            include_total: paging.include_total,
        };
        Ok((paging, listing))
    }
}

/// Where a page of rows stands.
pub(crate) fn pagination(paging: &Paging, next_cursor: Option<String>, total: Option<u64>) -> PaginationResponse {
    PaginationResponse::after(paging, next_cursor.map(Value::String), total.map(|total| total as i64))
}

/// The mean of `count` numbers with this sum; 0 of none.
pub(crate) fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resolve(body: Value, query: &PagingFields) -> Result<(Paging, Listing), ApiError> {
        serde_json::from_value::<ListRowsRequest>(body).unwrap().resolve(query, 20)
    }

    #[test]
    fn a_cursor_of_the_list_survives_the_answer() {
        let (paging, _) = resolve(json!({}), &PagingFields::default()).unwrap();
        let next = pagination(&paging, Some("mark".into()), None).next_cursor;
        let (_, listing) = resolve(json!({ "cursor": next }), &PagingFields::default()).unwrap();
        assert_eq!(listing.cursor.as_deref(), Some("mark"));
        let query = PagingFields { after: next, ..PagingFields::default() };
        assert_eq!(resolve(json!({}), &query).unwrap().1.cursor.as_deref(), Some("mark"));
    }

    #[test]
    fn rows_are_sorted_by_one_field() {
        let sort = json!({ "sort": { "field": "year", "direction": "desc" } });
        let (_, listing) = resolve(sort, &PagingFields::default()).unwrap();
        assert_eq!(listing.sort, Some(("year".into(), true)));
        assert!(resolve(json!({ "sort": ["a", "b"] }), &PagingFields::default()).is_err());
    }
}
