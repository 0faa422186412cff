//! Documents: making, reading, changing and deleting them; lists and counts over many are in the submodules.

mod aggregate;
mod bulk;
mod expand;
mod inspect;
mod list;
mod wire;

pub(crate) use expand::{MAX_REFERENCES, expand};
pub(crate) use wire::{DocumentResponse, LineageStep, document_json};

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::maybe_object,
};
use axum::{extract::State, http::HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_engine::documents::{CreateOptions, NewDocument, Receipt, Show, ShowVectors, Shown};
use strata_model::{Error, Fields, Permission, Scope};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_document))
        .routes(routes!(get_document, patch_document, update_document, delete_document))
        .routes(routes!(update_document_acl))
        .routes(routes!(get_document_ns, patch_document_ns, update_document_ns))
        .merge(list::routes())
        .merge(bulk::routes())
        .merge(aggregate::routes())
        .merge(inspect::routes())
}

/// One document, or a refusal.
type Answer = Result<Json<Fields>, ApiError>;

/// What an answer shows beside the document.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowParameters {
    /// Whether to add URLs that read the blobs for an hour.
    return_presigned_urls: Option<bool>,
    /// The same as `return_presigned_urls`.
    return_url: Option<bool>,
    /// Whether to add the vectors.
    return_vectors: Option<bool>,
    /// Names with commas between them: these vectors are added, and stand under these names at the root too. `true` adds
    /// `_vectors`, the names of the vectors that there are.
    return_vector_names: Option<String>,
}

impl ShowParameters {
    pub(crate) fn show(&self) -> Show {
        vectors_to_show(self.return_vectors, self.vector_names(), self.urls().unwrap_or(false))
    }

    fn urls(&self) -> Option<bool> {
        self.return_presigned_urls.or(self.return_url)
    }

    fn vector_names(&self) -> Option<VectorNames> {
        self.return_vector_names.as_deref().map(|text| match text {
            "true" => VectorNames::Listed(true),
            "false" => VectorNames::Listed(false),
            names => VectorNames::These(comma_separated(names)),
        })
    }
}

/// The vectors of these names, or whether to list the names that there are.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "must be true, false or an array of names")]
enum VectorNames {
    Listed(bool),
    These(Vec<String>),
}

/// Names say more than the flag, so they win.
fn vectors_to_show(flag: Option<bool>, names: Option<VectorNames>, urls: bool) -> Show {
    let vector_names = matches!(names, Some(VectorNames::Listed(true)));
    let vectors = match (names, flag) {
        (Some(VectorNames::These(names)), _) => ShowVectors::Named(names),
        (_, Some(true)) => ShowVectors::All,
        (_, Some(false) | None) => ShowVectors::None,
    };
    Show { vectors, vector_names, urls }
}

fn comma_separated(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ExpandParameters {
    /// Fields that name other documents, with commas between them; `_expanded` shows those documents. `parent`,
    /// `ancestors`, `children` (at most a hundred) and `root_object` show these relatives of the document.
    expand: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct WriteParameters {
    /// Whether to answer only when searches see the change, which is the default. It is on disk either way.
    wait: Option<bool>,
}

impl WriteParameters {
    fn wait(&self) -> bool {
        self.wait.unwrap_or(true)
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct CreateParameters {
    /// Whether to answer only when searches see the document, which is the default. It is on disk either way.
    wait: Option<bool>,
    /// Whether parents may be named that are not there, as imports do.
    allow_missing_parents: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct DeleteParameters {
    /// Whether all that was made from it goes too, which is the default.
    cascade: Option<bool>,
    /// Whether to answer only when searches see the change, which is the default.
    wait: Option<bool>,
}

/// A document to create. Any other key is a field of its own.
#[derive(Debug, Serialize, ToSchema)]
struct DocumentCreateRequest {
    /// The collection, once more.
    collection_id: Option<String>,
    /// Its id; a new one where this is left out.
    document_id: Option<String>,
    /// The object from which it descends.
    root_object_id: Option<String>,
    /// The bucket of that object.
    root_bucket_id: Option<String>,
    /// What it was made from directly: `bucket`, `collection`, `direct_upsert` or `signal`.
    source_type: Option<String>,
    /// The collection of the document it was made from.
    source_collection_id: Option<String>,
    /// The document it was made from.
    source_document_id: Option<String>,
    /// The object it was made from.
    source_object_id: Option<String>,
    /// Root bucket, then each collection down to its own. Follows from the parent where there is one.
    lineage_path: Option<String>,
    /// The steps from the root object to the document. Follow from the parent where there is one.
    #[schema(value_type = Option<Vec<Object>>)]
    lineage_chain: Option<Vec<Fields>>,
    content_hash: Option<String>,
    document_schema_version: Option<String>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Fields>,
    /// Features: each has `feature_extractor_id`, a `payload` of fields and `vectors`.
    #[schema(value_type = Option<Vec<Object>>)]
    features: Option<Vec<Fields>>,
    /// Vectors by the names of the collection's vector indexes.
    #[schema(schema_with = maybe_object)]
    vectors: Option<Fields>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct UpdateDocumentACLRequest {
    #[schema(max_items = 256)]
    read: Option<Vec<String>>,
    #[schema(max_items = 256)]
    write: Option<Vec<String>>,
    public: Option<bool>,
}

/// What a deletion took.
#[derive(Debug, Serialize, ToSchema)]
struct DeletionReceipt {
    documents: i64,
    vectors: i64,
    /// What was made beside the documents: thumbnails and the like.
    blobs: i64,
    /// Size of fields and vectors as they were stored.
    bytes: i64,
    /// Documents by collection.
    collections: BTreeMap<String, i64>,
}

impl From<Receipt> for DeletionReceipt {
    fn from(receipt: Receipt) -> Self {
        let total = receipt.total();
        Self {
            documents: total.documents,
            vectors: total.vectors,
            blobs: total.blobs,
            bytes: total.bytes,
            collections: receipt.collections.into_iter().map(|(id, removed)| (id, removed.documents)).collect(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentDeleteResponse {
    message: String,
    success: bool,
    receipt: DeletionReceipt,
}

/// Create a document
///
/// Makes a document directly, without an extractor. A parent that is named decides its lineage, and what the request says
/// otherwise is refused. Vectors must fit the collection's vector indexes.
#[utoipa::path(post, path = "/v1/collections/{collection_identifier}/documents", tag = "CollectionDocuments",
    params(CreateParameters, ShowParameters, ("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat of the request answer what the first one did.")),
    request_body = DocumentCreateRequest, responses((status = 200, body = DocumentResponse)))]
async fn create_document(
    State(app): State<App>,
    tenant: Tenant,
    Path(collection): Path<String>,
    Query(create): Query<CreateParameters>,
    Query(parameters): Query<ShowParameters>,
    headers: HeaderMap,
    Json(fields): Json<Fields>,
) -> Answer {
    tenant.may(Permission::Write)?;
    let options = CreateOptions {
        wait: create.wait.unwrap_or(true),
        allow_missing_parents: create.allow_missing_parents.unwrap_or(false),
        idempotency_key: idempotency_key(&headers)?,
    };
    let made = app.create_document(&tenant.scope, &collection, NewDocument::parse(fields, options.idempotency_key.is_some())?, options).await?;
    answer(&app, &tenant.scope, made, &parameters).await
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::invalid(IDEMPOTENCY_KEY, "must be ASCII text"))?;
    Ok(Some(text.to_owned()))
}

/// A document that was just written, with what else is asked for.
async fn answer(app: &App, scope: &Scope, written: Shown, parameters: &ShowParameters) -> Answer {
    Ok(Json(document_json(app.show_more(scope, written, &parameters.show()).await?)))
}

/// Get a document
#[utoipa::path(get, path = "/v1/collections/{collection_identifier}/documents/{document_id}", tag = "CollectionDocuments",
    params(ShowParameters, ExpandParameters), responses((status = 200, body = DocumentResponse)))]
async fn get_document(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
    Query(parameters): Query<ShowParameters>,
    Query(references): Query<ExpandParameters>,
) -> Answer {
    read(&app, &tenant, Some(&collection), &document, &parameters, &references).await
}

/// Get a document of the namespace
///
/// The same as in its collection, for those who know the document's id alone.
#[utoipa::path(get, path = "/v1/documents/{document_id}", tag = "Documents",
    params(ShowParameters, ExpandParameters), responses((status = 200, body = DocumentResponse)))]
async fn get_document_ns(
    State(app): State<App>,
    tenant: Tenant,
    Path(document): Path<String>,
    Query(parameters): Query<ShowParameters>,
    Query(references): Query<ExpandParameters>,
) -> Answer {
    read(&app, &tenant, None, &document, &parameters, &references).await
}

async fn read(
    app: &App,
    tenant: &Tenant,
    collection: Option<&str>,
    document: &str,
    parameters: &ShowParameters,
    references: &ExpandParameters,
) -> Answer {
    tenant.may(Permission::Read)?;
    let shown = app.document(&tenant.scope, collection, document, parameters.show()).await?;
    let mut json = document_json(shown);
    let wanted = references.expand.as_deref().map(comma_separated).unwrap_or_default();
    expand::expand_one(app, &tenant.scope, &mut json, wanted).await?;
    Ok(Json(json))
}

/// Change a document
///
/// Merges the body into the document's fields: objects at every depth; null removes a field. `vectors` are merged by name,
/// `internal_metadata` as an object. Identity, lineage, and what the server keeps of `internal_metadata` never change. Keys
/// that only answers have are passed over.
#[utoipa::path(patch, path = "/v1/collections/{collection_identifier}/documents/{document_id}", tag = "CollectionDocuments",
    params(WriteParameters, ShowParameters), request_body = Object, responses((status = 200, body = DocumentResponse)))]
async fn patch_document(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
    Query(write): Query<WriteParameters>,
    Query(parameters): Query<ShowParameters>,
    Json(fields): Json<Fields>,
) -> Answer {
    tenant.may(Permission::Write)?;
    let written = app.patch_document(&tenant.scope, Some(&collection), &document, fields, write.wait()).await?;
    answer(&app, &tenant.scope, written, &parameters).await
}

/// Change a document of the namespace
///
/// The same as in its collection, for those who know the document's id alone.
#[utoipa::path(patch, path = "/v1/documents/{document_id}", tag = "Documents",
    params(WriteParameters, ShowParameters), request_body = Object, responses((status = 200, body = DocumentResponse)))]
async fn patch_document_ns(
    State(app): State<App>,
    tenant: Tenant,
    Path(document): Path<String>,
    Query(write): Query<WriteParameters>,
    Query(parameters): Query<ShowParameters>,
    Json(fields): Json<Fields>,
) -> Answer {
    tenant.may(Permission::Write)?;
    let written = app.patch_document(&tenant.scope, None, &document, fields, write.wait()).await?;
    answer(&app, &tenant.scope, written, &parameters).await
}

/// Update a document
///
/// Each field of the body takes the place of the document's; fields that are left out stay. In `metadata` and
/// `internal_metadata` each key that is sent is set, and null removes one. Vectors stay unless the body has `vectors`.
/// Identity, lineage, and what the server keeps of `internal_metadata` never change. Keys that only answers have are passed
/// over.
#[utoipa::path(put, path = "/v1/collections/{collection_identifier}/documents/{document_id}", tag = "CollectionDocuments",
    params(WriteParameters, ShowParameters), request_body = Object, responses((status = 200, body = DocumentResponse)))]
async fn update_document(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
    Query(write): Query<WriteParameters>,
    Query(parameters): Query<ShowParameters>,
    Json(fields): Json<Fields>,
) -> Answer {
    tenant.may(Permission::Write)?;
    let written = app.update_document(&tenant.scope, Some(&collection), &document, fields, write.wait()).await?;
    answer(&app, &tenant.scope, written, &parameters).await
}

/// What a document is replaced by. Nothing at all is a forgotten body: it must not take every field away.
fn replacement(fields: Fields) -> Result<Fields, ApiError> {
    match fields.is_empty() {
        true => Err(Error::invalid("body", "must have a field; to remove fields, send them as null to `PATCH`").into()),
        false => Ok(fields),
    }
}

/// Replace a document of the namespace
///
/// Makes the body all the fields that the document has, unlike the update in its collection. Vectors stay unless the body has
/// `vectors`; `internal_metadata` is changed key by key. Identity and lineage never change.
#[utoipa::path(put, path = "/v1/documents/{document_id}", tag = "Documents",
    params(WriteParameters, ShowParameters), request_body = Object, responses((status = 200, body = DocumentResponse)))]
async fn update_document_ns(
    State(app): State<App>,
    tenant: Tenant,
    Path(document): Path<String>,
    Query(write): Query<WriteParameters>,
    Query(parameters): Query<ShowParameters>,
    Json(fields): Json<Fields>,
) -> Answer {
    tenant.may(Permission::Write)?;
    let fields = replacement(fields)?;
    let written = app.replace_document(&tenant.scope, None, &document, fields, write.wait()).await?;
    answer(&app, &tenant.scope, written, &parameters).await
}

/// Delete a document
///
/// Removes the document and, unless `cascade` is false, all that was made from it. The receipt says what went.
#[utoipa::path(delete, path = "/v1/collections/{collection_identifier}/documents/{document_id}", tag = "CollectionDocuments",
    params(DeleteParameters), responses((status = 200, body = DocumentDeleteResponse)))]
async fn delete_document(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
    Query(query): Query<DeleteParameters>,
) -> Result<Json<DocumentDeleteResponse>, ApiError> {
    tenant.may(Permission::Delete)?;
    let (cascade, wait) = (query.cascade.unwrap_or(true), query.wait.unwrap_or(true));
    let receipt = app.delete_document(&tenant.scope, Some(&collection), &document, cascade, wait).await?;
    Ok(Json(DocumentDeleteResponse {
        message: format!("document `{document}` is deleted"),
        success: true,
        receipt: receipt.into(),
    }))
}

/// Change a document's ACL
///
/// Says who may read and write the document: names of principals, which keys carry as `principal_id`. Everything made from
/// the document gets the same list at once. A document without a list, or whose list says `public`, is read by every key of
/// the namespace; another is missing for keys that its list does not name, in every operation. Only who may write it changes
/// its list. What is left out stays. `_internal._acl` shows it.
#[utoipa::path(patch, path = "/v1/collections/{collection_identifier}/documents/{document_id}/acl", tag = "CollectionDocuments",
    responses((status = 200, body = DocumentResponse)))]
async fn update_document_acl(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
    Json(request): Json<UpdateDocumentACLRequest>,
) -> Answer {
    tenant.may(Permission::Write)?;
    let mut acl = Fields::new();
    for (field, names) in [("read", request.read), ("write", request.write)] {
        acl.extend(names.map(|names| (field.to_owned(), Value::from(names))));
    }
    acl.extend(request.public.map(|public| ("public".to_owned(), Value::from(public))));
    let written =
        app.change_document_acl(&tenant.scope, &collection, &document, acl, &tenant.principal.user_id).await?;
    Ok(Json(document_json(written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_shown_by_flag_and_by_name() {
        let show = |flag: Option<bool>, names: Option<&str>| {
            let parameters = ShowParameters {
                return_vectors: flag,
                return_vector_names: names.map(str::to_owned),
                ..ShowParameters::default()
            };
            parameters.show().vectors
        };
        let these = || ShowVectors::Named(vec!["a".into(), "b".into()]);
        assert_eq!(show(None, None), ShowVectors::None);
        assert_eq!(show(Some(true), None), ShowVectors::All);
        assert_eq!(show(Some(false), Some("true")), ShowVectors::None, "names alone");
        assert_eq!(show(Some(true), Some("true")), ShowVectors::All);
        assert_eq!(show(None, Some("a, b")), these());
        assert_eq!(show(Some(true), Some("a,b")), these());
        assert_eq!(show(None, Some("false")), ShowVectors::None);
    }

    #[test]
    fn urls_are_asked_for_under_the_older_name_too() {
        assert!(ShowParameters { return_url: Some(true), ..ShowParameters::default() }.show().urls);
        assert!(!ShowParameters::default().show().urls);
    }
}
