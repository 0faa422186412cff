//! Changing and deleting many documents with one request. The work is done when the answer comes; there is no task.

use super::{DeleteParameters, DeletionReceipt, WriteParameters};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_engine::documents::ItemOutcome;
use strata_model::{Error, Fields, Permission, filter::Filter};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Most documents that one request names, and most whose outcome an answer shows one by one.
const MAX_ITEMS: usize = 1000;
const MAX_REASON_CHARS: usize = 500;
const COMPLETED: &str = "COMPLETED";

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(batch_update, batch_delete)).routes(routes!(bulk_update))
}

/// Either `document_ids` or `filters`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct BatchDeleteDocumentsRequest {
    #[schema(min_items = 1, max_items = 1000)]
    document_ids: Option<Vec<String>>,
    /// Deletes what satisfies it; must have a condition.
    filters: Option<Value>,
    /// Written to the server's log.
    #[schema(max_length = 500)]
    reason: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BatchDeleteDocumentsResponse {
    status: &'static str,
    /// Of the documents that were named or matched; what was made from them counts in `receipt` only.
    deleted_count: usize,
    failed_count: usize,
    /// The first thousand.
    results: Vec<BatchItemResult>,
    limits: BTreeMap<String, usize>,
    message: String,
    receipt: DeletionReceipt,
}

/// What became of one document.
#[derive(Debug, Serialize, ToSchema)]
struct BatchItemResult {
    document_id: String,
    success: bool,
    error: Option<String>,
}

impl From<ItemOutcome> for BatchItemResult {
    fn from(outcome: ItemOutcome) -> Self {
        Self { document_id: outcome.document_id, success: outcome.error.is_none(), error: outcome.error }
    }
}

/// Either `updates`, or `filters` with `update_data`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct BatchUpdateDocumentsRequest {
    #[schema(min_items = 1, max_items = 1000)]
    updates: Option<Vec<BatchDocumentUpdate>>,
    /// Changes what satisfies it.
    filters: Option<Value>,
    /// Set in every document that satisfies `filters`, as in `updates`.
    #[schema(value_type = Option<Object>)]
    update_data: Option<Fields>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BatchDocumentUpdate {
    document_id: String,
    /// Each field takes the place of the document's; a name with dots reaches inside objects (`metadata.state`); null removes.
    #[schema(value_type = Object)]
    update_data: Fields,
}

#[derive(Debug, Serialize, ToSchema)]
struct BatchUpdateDocumentsResponse {
    updated_count: usize,
    failed_count: usize,
    /// One for each of `updates`.
    results: Vec<BatchItemResult>,
    message: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkUpdateDocumentsRequest {
    /// Changes what satisfies it; every document of the collection where it is left out.
    filters: Option<Value>,
    /// Each field takes the place of the documents'; a name with dots reaches inside objects (`metadata.state`); null removes.
    #[schema(value_type = Object)]
    update_data: Fields,
}

#[derive(Debug, Serialize, ToSchema)]
struct BulkUpdateDocumentsResponse {
    status: &'static str,
    updated_count: usize,
    message: String,
}

/// Delete many documents
///
/// By id, or what satisfies a filter; in one transaction. Unless `cascade` is false, all that was made from them goes
/// too. An id that names no document fails alone.
#[utoipa::path(delete, path = "/v1/collections/{collection_identifier}/documents/batch", tag = "CollectionDocuments",
    params(DeleteParameters), responses((status = 200, body = BatchDeleteDocumentsResponse)))]
async fn batch_delete(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(query): Query<DeleteParameters>,
    Json(request): Json<BatchDeleteDocumentsRequest>,
) -> Result<Json<BatchDeleteDocumentsResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    if request.reason.as_ref().is_some_and(|reason| reason.chars().count() > MAX_REASON_CHARS) {
        return Err(Error::invalid("reason", format!("must have at most {MAX_REASON_CHARS} characters")).into());
    }
    let (cascade, wait) = (query.cascade.unwrap_or(true), query.wait.unwrap_or(true));
    let deleted = match (request.document_ids, request.filters) {
        (Some(ids), None) => {
            check_count("document_ids", ids.len())?;
            app.delete_documents(&tenant.scope, &collection, ids, cascade, wait).await?
        }
        (None, Some(filters)) => {
            let filter = Filter::parse(&filters, "filters")?;
            if filter.fields().is_empty() {
                return Err(
                    Error::invalid("filters", "must have a condition; without one every document would go").into()
                );
            }
            app.delete_documents_where(&tenant.scope, &collection, filter, cascade, wait).await?
        }
        _ => return Err(Error::invalid("document_ids", "send either `document_ids` or `filters`").into()),
    };
    let failed_count = failures(&deleted.outcomes);
    let deleted_count = deleted.outcomes.len() - failed_count;
    if let Some(reason) = &request.reason {
        tracing::info!(%collection, deleted_count, %reason, "documents were deleted");
    }
    Ok(Json(BatchDeleteDocumentsResponse {
        status: COMPLETED,
        deleted_count,
        failed_count,
        results: deleted.outcomes.into_iter().take(MAX_ITEMS).map(BatchItemResult::from).collect(),
        limits: BTreeMap::from(["max_document_ids", "max_results"].map(|name| (name.to_owned(), MAX_ITEMS))),
        message: message(deleted_count, failed_count, "deleted"),
        receipt: deleted.receipt.into(),
    }))
}

/// Change many documents
///
/// Sets in each document the fields of its own `update_data`, or of one in all that satisfy a filter. A name with dots
/// reaches inside objects; a name without takes the place of the whole field. An update that cannot be done fails alone.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/documents/batch", tag = "CollectionDocuments",
    params(WriteParameters), responses((status = 200, body = BatchUpdateDocumentsResponse)))]
async fn batch_update(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(query): Query<WriteParameters>,
    Json(request): Json<BatchUpdateDocumentsRequest>,
) -> Result<Json<BatchUpdateDocumentsResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let (updated_count, outcomes) = match (request.updates, request.filters, request.update_data) {
        (Some(updates), None, None) => {
            check_count("updates", updates.len())?;
            let updates = updates.into_iter().map(|update| (update.document_id, update.update_data)).collect();
            let outcomes = app.update_documents(&tenant.scope, &collection, updates, query.wait()).await?;
            (outcomes.len() - failures(&outcomes), outcomes)
        }
        (None, Some(filters), Some(data)) => {
            let filter = Filter::parse(&filters, "filters")?;
            let count = app.update_documents_where(&tenant.scope, &collection, filter, data, query.wait()).await?;
            (count, Vec::new())
        }
        _ => return Err(Error::invalid("updates", "send either `updates`, or `filters` with `update_data`").into()),
    };
    let failed_count = failures(&outcomes);
    Ok(Json(BatchUpdateDocumentsResponse {
        updated_count,
        failed_count,
        results: outcomes.into_iter().map(BatchItemResult::from).collect(),
        message: message(updated_count, failed_count, "updated"),
    }))
}

/// Change all documents that satisfy a filter
///
/// Sets the fields of `update_data` in each of them. They are changed in parts of some hundreds, each of which is whole.
#[utoipa::path(patch, path = "/v1/collections/{collection_identifier}/documents/bulk", tag = "CollectionDocuments",
    params(WriteParameters), responses((status = 200, body = BulkUpdateDocumentsResponse)))]
async fn bulk_update(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(query): Query<WriteParameters>,
    Json(request): Json<BulkUpdateDocumentsRequest>,
) -> Result<Json<BulkUpdateDocumentsResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let filter = Filter::parse(&request.filters.unwrap_or_default(), "filters")?;
    let data = request.update_data;
    let updated_count = app.update_documents_where(&tenant.scope, &collection, filter, data, query.wait()).await?;
    Ok(Json(BulkUpdateDocumentsResponse {
        status: COMPLETED,
        updated_count,
        message: message(updated_count, 0, "updated"),
    }))
}

fn check_count(field: &str, count: usize) -> Result<(), Error> {
    match count {
        1..=MAX_ITEMS => Ok(()),
        _ => Err(Error::invalid(field, format!("must have 1 to {MAX_ITEMS} entries, not {count}"))),
    }
}

fn failures(outcomes: &[ItemOutcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.error.is_some()).count()
}

fn message(done: usize, failed: usize, what: &str) -> String {
    let documents = if done == 1 { "document was" } else { "documents were" };
    match failed {
        0 => format!("{done} {documents} {what}"),
        failed => format!("{done} {documents} {what}; {failed} failed, `results` says why"),
    }
}
