//! Lists of documents: of one collection, of the namespace, several at once, and by id.

use super::{
    ShowParameters, VectorNames, document_json,
    expand::{MAX_REFERENCES, expand, unshown},
    vectors_to_show,
    wire::{DocumentResponse, selected},
};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    paging::{PaginationResponse, Paging, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_engine::{
    documents::{DocumentPage, DocumentQuery, Mark, Next, Place, ShowVectors, Shown},
    listing::ListRequest,
};
use strata_model::{Error, Fields, Permission, Scope, document, filter::Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Documents of a page where the caller does not say.
const DEFAULT_PAGE: usize = 10;
/// Most documents that are read by id at once.
const MAX_IDS: usize = 1000;
/// Most lists that one request asks for.
const MAX_QUERIES: usize = 10;
const MAX_KEY_CHARS: usize = 128;
const MAX_PARTS: u32 = 256;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_documents_get))
        .routes(routes!(list_documents))
        .routes(routes!(list_documents_ns))
        .routes(routes!(list_documents_batch))
        .routes(routes!(batch_get))
}

/// What the query of a list takes beside paging. The body wins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ListParameters {
    /// A filter as JSON text.
    filters: Option<String>,
    /// Text that some field contains, upper and lower case aside.
    search: Option<String>,
    /// A field, `-field` or `field:desc`; or `{"field": …, "direction": …}` as JSON text.
    sort: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct ListDocumentsRequest {
    /// Only these collections, by id or name; for lists of the namespace.
    collection_ids: Option<Vec<String>>,
    /// A filter: `{"AND": [{"field": …, "operator": …, "value": …}]}` or `{field: value}`. Fields that hold places as
    /// `{"lat": …, "lon": …}` compare by `geo_radius` with `{"center": {…}, "radius": metres}`, by `geo_bounding_box` with
    /// `{"top_left": {…}, "bottom_right": {…}}`, and by `geo_polygon` with
    /// `{"exterior": {"points": […]}, "interiors": [{"points": […]}]}`.
    filters: Option<Value>,
    /// `{"field": …, "direction": "asc" | "desc"}`; order of creation where this is left out.
    sort: Option<Value>,
    /// Text that some field contains, upper and lower case aside.
    search: Option<String>,
    /// Where to go on: `pagination.next_cursor` of the page before. `next_cursor` and `after` mean the same.
    #[serde(alias = "next_cursor", alias = "after")]
    cursor: Option<String>,
    /// One of several disjoint parts, for readers that share the work. A cursor remembers its part.
    partition: Option<ListPartition>,
    /// Whether to count all rows.
    include_total: Option<bool>,
    /// Whether to add URLs that read the blobs for an hour.
    return_presigned_urls: Option<bool>,
    /// The same as `return_presigned_urls`.
    return_url: Option<bool>,
    /// Whether to add the vectors.
    return_vectors: Option<bool>,
    /// Names: these vectors are added, and stand under these names at the root too. True adds `_vectors`, the names of the
    /// vectors that there are.
    return_vector_names: Option<VectorNames>,
    /// A field whose values group the page; `limit` and `offset` count groups then. Of each group the first hundred
    /// documents are shown.
    group_by: Option<GroupField>,
    /// Fields to show, as dot paths; ids are always shown.
    select: Option<Vec<String>>,
    /// Fields that name other documents, such as `source_document_id`; `_expanded` shows those documents.
    expand: Option<Vec<String>>,
    /// Rows of the page, 10 where this is left out.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// The same as `limit`.
    #[schema(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// Rows to pass over; a cursor reaches far places faster.
    #[schema(minimum = 0)]
    offset: Option<i64>,
    /// Page number, from 1.
    #[schema(minimum = 1)]
    page: Option<i64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ListPartition {
    /// From 0.
    index: u32,
    #[schema(minimum = 1, maximum = 256)]
    count: u32,
}

/// A field by its name, alone or as `{"field": …}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "must be the name of a field, or `{\"field\": …}`")]
enum GroupField {
    Name(String),
    Object { field: String },
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListDocumentsResponse {
    /// Empty where the page is grouped.
    #[schema(value_type = Vec<DocumentResponse>)]
    results: Vec<Fields>,
    /// Where `group_by` groups the page.
    groups: Option<Vec<DocumentGroup>>,
    /// Of `collection_ids`, those that name no collection.
    unknown_collection_ids: Vec<String>,
    pagination: PaginationResponse,
    warnings: Vec<String>,
    /// Counted where `include_total` asks for it.
    total_documents: Option<i64>,
    stats: DocumentListStats,
    group_by_field: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentGroup {
    /// The value that the documents share.
    group_key: Value,
    #[schema(value_type = Vec<DocumentResponse>)]
    documents: Vec<Fields>,
    /// How many documents share it.
    count: i64,
}

/// Counts, where `include_total` asks for them, and means over the page.
#[derive(Debug, Serialize, ToSchema)]
struct DocumentListStats {
    /// Null where the page is grouped, or nothing was counted.
    total_documents: Option<i64>,
    /// How many blobs of their source objects the documents of the page were made from.
    avg_blobs_per_document: f64,
    /// Null where the page is not grouped, or nothing was counted.
    total_groups: Option<i64>,
    /// Null where the page is not grouped.
    avg_documents_per_group: Option<f64>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchListDocumentsRequest {
    #[schema(min_items = 1, max_items = 10)]
    queries: Vec<BatchListQuery>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchListQuery {
    /// Names the answer of this list.
    #[schema(min_length = 1, max_length = 128)]
    key: String,
    request: ListDocumentsRequest,
}

#[derive(Debug, Serialize, ToSchema)]
struct BatchListDocumentsResponse {
    results: Vec<BatchListResult>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BatchListResult {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ListDocumentsResponse>,
    /// Why there is no `response`.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchGetDocumentsRequest {
    #[schema(min_items = 1, max_items = 1000)]
    document_ids: Vec<String>,
    /// Whether to add URLs that read the blobs for an hour, which is the default.
    return_presigned_urls: Option<bool>,
    /// Whether to add the vectors.
    return_vectors: Option<bool>,
    /// As in lists.
    return_vector_names: Option<VectorNames>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BatchGetDocumentsResponse {
    /// In the order asked.
    #[schema(value_type = Vec<DocumentResponse>)]
    documents: Vec<Fields>,
    not_found: Vec<String>,
}

/// A list that was asked for, understood.
struct Listing {
    query: DocumentQuery,
    paging: Paging,
    select: Vec<String>,
    expand: Vec<String>,
}

impl ListDocumentsRequest {
    /// Fills what the body leaves out from the query.
    fn or(self, list: ListParameters, show: &ShowParameters) -> Result<Self, ApiError> {
        let filters = list.filters.map(|text| {
            serde_json::from_str(&text).map_err(|e| Error::invalid("filters", format!("is not JSON: {e}")))
        });
        let sort = list.sort.map(|text| match text.starts_with(['{', '[']) {
            true => serde_json::from_str(&text).map_err(|e| Error::invalid("sort", format!("is not JSON: {e}"))),
            false => Ok(Value::String(text)),
        });
        Ok(Self {
            filters: self.filters.or(filters.transpose()?),
            sort: self.sort.or(sort.transpose()?),
            search: self.search.or(list.search),
            return_presigned_urls: either(self.return_presigned_urls.or(self.return_url), show.urls()),
            return_vectors: either(self.return_vectors, show.return_vectors),
            return_vector_names: self.return_vector_names.or(show.vector_names()),
            ..self
        })
    }

    fn resolve(self, paging: &PagingFields) -> Result<Listing, ApiError> {
        // Official clients put the defaults of `limit` and `offset` into every body; they say nothing against the query.
        let sizes = paging.limit.or(paging.page_size);
        let places = paging.offset.or(paging.page);
        let fields = PagingFields {
            limit: self.limit.filter(|limit| sizes.is_none() || *limit != DEFAULT_PAGE as i64),
            page_size: self.page_size,
            offset: self.offset.filter(|offset| places.is_none() || *offset != 0),
            page: self.page,
            cursor: self.cursor,
            include_total: self.include_total,
            ..PagingFields::default()
        };
        let paging = Paging::resolve(paging, &fields, DEFAULT_PAGE)?;
        let mut sort = ListRequest::parse_sort(self.sort.as_ref().unwrap_or(&Value::Null), "sort")?;
        if sort.len() > 1 {
            return Err(Error::invalid("sort", "must name one field").into());
        }
        let group_by = self.group_by.map(|group| match group {
            GroupField::Name(field) | GroupField::Object { field } => field,
        });
        let mut query = DocumentQuery {
            collections: self.collection_ids.unwrap_or_default(),
            filter: Filter::parse(self.filters.as_ref().unwrap_or(&Value::Null), "filters")?,
            search: self.search.filter(|text| !text.is_empty()),
            sort: sort.pop().map(|(field, is_descending)| (document::viewed(&field).to_owned(), is_descending)),
            limit: paging.limit,
            offset: paging.offset,
            after: None,
            part: self.partition.map(part).transpose()?,
            group_by,
            include_total: paging.include_total,
            show: vectors_to_show(
                self.return_vectors,
                self.return_vector_names,
                self.return_presigned_urls.or(self.return_url).unwrap_or(false),
            ),
        };
        if let Some(mark) = &paging.after {
            go_on(&mut query, mark)?;
        }
        Ok(Listing { query, paging, select: self.select.unwrap_or_default(), expand: self.expand.unwrap_or_default() })
    }
}

/// A flag that body or query sets. Official clients send `false` in every body, so a `false` there says nothing.
fn either(body: Option<bool>, query: Option<bool>) -> Option<bool> {
    body.filter(|is_set| *is_set).or(query).or(body)
}

fn part(partition: ListPartition) -> Result<(u32, u32), Error> {
    let ListPartition { index, count } = partition;
    if !(1..=MAX_PARTS).contains(&count) {
        return Err(Error::invalid("partition.count", format!("must be from 1 to {MAX_PARTS}, not {count}")));
    }
    if index >= count {
        return Err(Error::invalid("partition.index", format!("must be below `count`, which is {count}, not {index}")));
    }
    Ok((index, count))
}

/// Where a page of `query` ends, as its cursor holds it.
fn mark(next: &Next, query: &DocumentQuery) -> Value {
    let DocumentQuery { part, sort, group_by, .. } = query;
    match next {
        Next::After(Mark { seq, place }) => {
            json!({ "after": seq, "place": place.as_ref().map(Place::to_json), "sort": sort, "part": part })
        }
        Next::Offset(offset) => json!({ "offset": offset, "group": group_by, "part": part }),
    }
}

/// Makes the query go on where [`mark`] says.
fn go_on(query: &mut DocumentQuery, mark: &Value) -> Result<(), Error> {
    let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
    let part = mark["part"].as_array().and_then(|part| Some((number(part.first()?)?, number(part.get(1)?)?)));
    if query.part.is_some() && query.part != part {
        return Err(Error::invalid("cursor", "belongs to another part of the list"));
    }
    query.part = part;
    let (place, offset) = (Place::from_json(&mark["place"]), mark["offset"].as_u64());
    let same_order = mark["sort"] == json!(query.sort) && query.sort.is_some() == place.is_some();
    let same_groups = query.group_by.is_some() && mark["group"] == json!(query.group_by);
    match (mark["after"].as_i64(), offset.and_then(|n| usize::try_from(n).ok())) {
        (Some(seq), _) if query.group_by.is_none() && same_order => query.after = Some(Mark { seq, place }),
        (None, Some(offset)) if same_groups => query.offset = offset,
        _ => return Err(Error::invalid("cursor", "belongs to a list of another order; begin again without it")),
    }
    Ok(())
}

/// List documents of a collection
///
/// In order of creation, or by a field. The same as the list by `POST`, for queries that fit a URL.
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents", tag = "CollectionDocuments", operation_id = "list_documents",
    params(PagingFields, ListParameters, ShowParameters), responses((status = 200, body = ListDocumentsResponse)))]
async fn list_documents_get(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(paging): Query<PagingFields>,
    Query(list): Query<ListParameters>,
    Query(show): Query<ShowParameters>,
) -> Result<Json<ListDocumentsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let request = ListDocumentsRequest::default().or(list, &show)?;
    of_collection(&app, &tenant.scope, &collection, request, &paging).await
}

/// List documents of a collection
///
/// In order of creation, or by a field; filtered, searched, grouped, or in parts. A cursor leads through the whole list,
/// however long, and is not disturbed by what is written meanwhile.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/documents/list", tag = "CollectionDocuments",
    params(PagingFields, ListParameters, ShowParameters), responses((status = 200, body = ListDocumentsResponse)))]
async fn list_documents(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(paging): Query<PagingFields>,
    Query(list): Query<ListParameters>,
    Query(show): Query<ShowParameters>,
    Json(request): Json<ListDocumentsRequest>,
) -> Result<Json<ListDocumentsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    of_collection(&app, &tenant.scope, &collection, request.or(list, &show)?, &paging).await
}

async fn of_collection(
    app: &App,
    scope: &Scope,
    collection: &str,
    request: ListDocumentsRequest,
    paging: &PagingFields,
) -> Result<Json<ListDocumentsResponse>, ApiError> {
    if request.collection_ids.is_some() {
        return Err(Error::invalid("collection_ids", "the path names the collection already").into());
    }
    let listing = request.resolve(paging)?;
    let page = app.documents_of(scope, collection, listing.query.clone()).await?;
    Ok(Json(listed(app, scope, listing, page).await?))
}

/// List documents of the namespace
///
/// Of all collections, or of those in `collection_ids`, of which one at least must be there.
#[utoipa::path(post, path = "/v1/documents/list", tag = "Documents",
    params(PagingFields, ListParameters, ShowParameters), responses((status = 200, body = ListDocumentsResponse)))]
async fn list_documents_ns(
    State(app): State<App>,
    tenant: Tenant,
    Query(paging): Query<PagingFields>,
    Query(list): Query<ListParameters>,
    Query(show): Query<ShowParameters>,
    Json(request): Json<ListDocumentsRequest>,
) -> Result<Json<ListDocumentsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(of_namespace(&app, &tenant.scope, request.or(list, &show)?, &paging).await?))
}

async fn of_namespace(
    app: &App,
    scope: &Scope,
    request: ListDocumentsRequest,
    paging: &PagingFields,
) -> Result<ListDocumentsResponse, ApiError> {
    let listing = request.resolve(paging)?;
    let page = app.documents(scope, listing.query.clone()).await?;
    // Some that are missing are told beside the rows; where all are, nothing was asked for that is there.
    match page.unknown_collections.first() {
        Some(unknown) if page.unknown_collections.len() == listing.query.collections.len() => {
            Err(Error::missing("collection", unknown).into())
        }
        _ => listed(app, scope, listing, page).await,
    }
}

/// Several lists at once
///
/// Each as a list of the namespace. A list that cannot be made answers its `error`; the others are not disturbed.
#[utoipa::path(post, path = "/v1/documents/list/batch", tag = "Documents", responses((status = 200, body = BatchListDocumentsResponse)))]
async fn list_documents_batch(
    State(app): State<App>,
    tenant: Tenant,
    Json(request): Json<BatchListDocumentsRequest>,
) -> Result<Json<BatchListDocumentsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    if !(1..=MAX_QUERIES).contains(&request.queries.len()) {
        return Err(Error::invalid("queries", format!("must have 1 to {MAX_QUERIES} lists")).into());
    }
    for (i, query) in request.queries.iter().enumerate() {
        if !(1..=MAX_KEY_CHARS).contains(&query.key.chars().count()) {
            return Err(Error::invalid(
                format!("queries.{i}.key"),
                format!("must have 1 to {MAX_KEY_CHARS} characters"),
            )
            .into());
        }
    }
    let mut results = Vec::with_capacity(request.queries.len());
    for BatchListQuery { key, request } in request.queries {
        let result = match of_namespace(&app, &tenant.scope, request, &PagingFields::default()).await {
            Ok(response) => BatchListResult { key, response: Some(response), error: None },
            Err(ApiError(error)) if error.is_transient() => return Err(error.into()),
            Err(ApiError(error)) => BatchListResult { key, response: None, error: Some(error.to_string()) },
        };
        results.push(result);
    }
    Ok(Json(BatchListDocumentsResponse { results }))
}

/// Get documents by id
///
/// Of any collection of the namespace, in the order asked. Ids that name none are answered as `not_found`.
#[utoipa::path(post, path = "/v1/documents/batch-get", tag = "Documents", responses((status = 200, body = BatchGetDocumentsResponse)))]
async fn batch_get(
    State(app): State<App>,
    tenant: Tenant,
    Json(request): Json<BatchGetDocumentsRequest>,
) -> Result<Json<BatchGetDocumentsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    if !(1..=MAX_IDS).contains(&request.document_ids.len()) {
        return Err(Error::invalid("document_ids", format!("must have 1 to {MAX_IDS} ids")).into());
    }
    let urls = request.return_presigned_urls.unwrap_or(true);
    let show = vectors_to_show(request.return_vectors, request.return_vector_names, urls);
    let (found, not_found) = app.documents_by_id(&tenant.scope, request.document_ids, show).await?;
    Ok(Json(BatchGetDocumentsResponse { documents: found.into_iter().map(document_json).collect(), not_found }))
}

async fn listed(
    app: &App,
    scope: &Scope,
    listing: Listing,
    page: DocumentPage,
) -> Result<ListDocumentsResponse, ApiError> {
    let Listing { query, paging, mut select, expand } = listing;
    let is_grouped = page.groups.is_some();
    let sizes: Vec<usize> = page.groups.iter().flatten().map(|group| group.documents.len()).collect();
    let (keys, shown): (Vec<(Value, i64)>, Vec<Shown>) = match page.groups {
        None => (Vec::new(), page.documents),
        Some(groups) => {
            let mut shown = Vec::new();
            let keys = groups.into_iter().map(|group| {
                shown.extend(group.documents);
                (group.key, group.count)
            });
            (keys.collect(), shown)
        }
    };
    let avg_blobs_per_document = mean(shown.iter().map(|one| one.document.source_blobs.len() as f64)).unwrap_or(0.0);
    let avg_documents_per_group = mean(keys.iter().map(|(_, count)| *count as f64));
    let mut results: Vec<Fields> = shown.into_iter().map(document_json).collect();
    let unindexed = app.unindexed(scope, &query.filter).await?;
    let slow = |field: &String| format!("`{field}` has no payload index, so every document is looked at");
    let mut warnings: Vec<String> = unindexed.iter().map(slow).collect();
    if self::expand(app, scope, &mut results, &expand).await? {
        warnings.push(format!("only the first {MAX_REFERENCES} references are resolved in `_expanded`"));
    }
    let said = |name: &str| format!("`{name}` is shown in `_expanded` where one document is read alone");
    warnings.extend(unshown(&results, &expand).into_iter().map(said));
    if !select.is_empty() {
        // Vectors that were asked for are shown whatever is selected.
        if let ShowVectors::Named(names) = &query.show.vectors {
            select.extend(names.iter().cloned());
        }
        results = results.into_iter().map(|document| selected(document, &select)).collect();
    }
    let rows = if is_grouped { keys.len() } else { results.len() };
    let groups = is_grouped.then(|| {
        let mut rest = std::mem::take(&mut results).into_iter();
        let group = |((group_key, count), size): ((Value, i64), usize)| DocumentGroup {
            group_key,
            count,
            documents: rest.by_ref().take(size).collect(),
        };
        keys.into_iter().zip(sizes).map(group).collect()
    });
    let stats = DocumentListStats {
        total_documents: page.total.filter(|_| !is_grouped),
        avg_blobs_per_document,
        total_groups: page.total.filter(|_| is_grouped),
        avg_documents_per_group,
    };
    Ok(ListDocumentsResponse {
        results,
        groups,
        unknown_collection_ids: page.unknown_collections,
        pagination: PaginationResponse::marked(&paging, rows, page.next.map(|next| mark(&next, &query)), page.total),
        warnings,
        total_documents: page.total.filter(|_| !is_grouped),
        stats,
        group_by_field: query.group_by,
    })
}

fn mean(numbers: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = numbers.len();
    (count > 0).then(|| numbers.sum::<f64>() / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(body: Value) -> Result<DocumentQuery, ApiError> {
        let request: ListDocumentsRequest = serde_json::from_value(body).unwrap();
        request.resolve(&PagingFields::default()).map(|listing| listing.query)
    }

    fn refused(body: Value) -> String {
        match resolved(body) {
            Err(ApiError(Error::Invalid(faults))) => faults[0].field.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_body_becomes_a_query() {
        let query = resolved(json!({
            "filters": { "year": 1999 }, "sort": { "field": "year", "direction": "desc" }, "group_by": { "field": "title" },
            "partition": { "index": 1, "count": 4 }, "limit": 5, "offset": 10, "return_url": true, "return_vector_names": ["a"],
        }))
        .unwrap();
        assert_eq!((query.limit, query.offset, query.sort), (5, 10, Some(("year".into(), true))));
        assert_eq!((query.group_by.as_deref(), query.part), (Some("title"), Some((1, 4))));
        assert_eq!((query.show.vectors, query.show.urls), (ShowVectors::Named(vec!["a".into()]), true));
        assert_eq!(resolved(json!({})).unwrap().limit, DEFAULT_PAGE);
    }

    #[test]
    fn what_cannot_be_listed_is_named() {
        assert_eq!(refused(json!({ "partition": { "index": 0, "count": 257 } })), "partition.count");
        assert_eq!(refused(json!({ "partition": { "index": 2, "count": 2 } })), "partition.index");
        assert_eq!(refused(json!({ "sort": [{ "field": "a" }, { "field": "b" }] })), "sort");
        assert_eq!(refused(json!({ "filters": 7 })), "filters");
        assert_eq!(refused(json!({ "limit": 1001 })), "limit");
    }

    #[test]
    fn a_cursor_remembers_its_part_and_its_order() {
        let of = |part, sort: Option<(String, bool)>, group: Option<&str>| {
            let group_by = group.map(str::to_owned);
            DocumentQuery { part, sort, group_by, ..DocumentQuery::default() }
        };
        let cursor = |next, query: DocumentQuery| {
            let paging = Paging { limit: 10, offset: 0, after: None, include_total: false };
            PaginationResponse::marked(&paging, 10, Some(mark(&next, &query)), None).next_cursor.unwrap()
        };
        let plain = Mark { seq: 7, place: None };
        let by_a = Mark { place: Some(Place::in_order(&Fields::new(), "a")), ..plain.clone() };
        let in_part = cursor(Next::After(plain.clone()), of(Some((1, 4)), None, None));
        let query = resolved(json!({ "cursor": in_part })).unwrap();
        assert_eq!((query.after, query.part), (Some(plain.clone()), Some((1, 4))));
        let of_groups = cursor(Next::Offset(20_000), of(None, None, Some("a")));
        let grouped = json!({ "group_by": { "field": "a" }, "cursor": of_groups });
        assert_eq!(resolved(grouped).unwrap().offset, 20_000, "cursors reach further than offsets");
        assert_eq!(refused(json!({ "group_by": "b", "cursor": of_groups })), "cursor", "of other groups");
        let sorted = cursor(Next::After(by_a.clone()), of(None, Some(("a".into(), false)), None));
        let query = resolved(json!({ "sort": { "field": "a" }, "cursor": sorted })).unwrap();
        assert_eq!(query.after, Some(by_a));
        assert_eq!(refused(json!({ "sort": "-a", "cursor": sorted })), "cursor");
        let of_plain = cursor(Next::After(plain), of(None, None, None));
        assert_eq!(refused(json!({ "sort": { "field": "a" }, "cursor": of_plain })), "cursor");
        let elsewhere = json!({ "partition": { "index": 0, "count": 4 }, "cursor": in_part });
        assert_eq!(refused(elsewhere), "cursor");
    }

    #[test]
    fn the_body_wins_over_the_query_unless_it_has_defaults() {
        let list = || ListParameters {
            filters: Some(r#"{"a": 1}"#.into()),
            sort: Some("-b".into()),
            search: Some("x".into()),
        };
        let show = ShowParameters { return_vectors: Some(true), ..ShowParameters::default() };
        let all =
            ListDocumentsRequest::default().or(list(), &show).unwrap().resolve(&PagingFields::default()).unwrap().query;
        assert_eq!(
            (all.filter, all.sort, all.search.as_deref()),
            (Filter::parse(&json!({ "a": 1 }), "f").unwrap(), Some(("b".into(), true)), Some("x"))
        );
        let body = ListDocumentsRequest {
            search: Some("y".into()),
            return_vectors: Some(false),
            limit: Some(10),
            offset: Some(0),
            ..ListDocumentsRequest::default()
        };
        let page = PagingFields { limit: Some(3), page: Some(2), ..PagingFields::default() };
        let both = body.or(list(), &show).unwrap().resolve(&page).unwrap().query;
        assert_eq!((both.search.as_deref(), both.show.vectors), (Some("y"), ShowVectors::All));
        assert_eq!((both.limit, both.offset), (3, 3));
    }
}
