//! Standalone namespaces: documents that come with their vectors, without buckets and extractors.

use crate::{
    App,
    documents::LineageStep,
    error::ApiError,
    extract::{Caller, Json, JsonLines, Path, Query, is_json_lines},
    namespaces::VectorConfig,
    openapi::{any_object, maybe_object, maybe_time, time},
};
use axum::{
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashSet};
use strata_engine::{
    documents::{ACL, MAX_PART, Part, Refused, Show, ShowVectors, Shown, Upsert, Upserted},
    standalone::{self, NewStandalone, Promoted, Promotion},
};
use strata_model::{Error, Fields, Permission, Scope};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_standalone_namespace))
        .routes(routes!(upsert_documents))
        .routes(routes!(get_brought_document))
        .routes(routes!(promote_namespace))
        .routes(routes!(validate_promotion))
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateStandaloneNamespaceRequest {
    /// An id of your own choice: letters, digits, `_` and `-`.
    #[schema(example = "products")]
    namespace_id: Option<String>,
    /// The id where it is left out.
    namespace_name: Option<String>,
    description: Option<String>,
    /// The vectors that documents carry. Where none are declared, each gets its index when it first comes.
    vector_configs: Option<Vec<VectorConfig>>,
    /// Whether vectors that are not declared get an index when they first come.
    auto_create_indexes: Option<bool>,
    /// Kept as sent; everything is stored here.
    #[schema(value_type = Option<Object>)]
    storage: Option<Fields>,
    /// Kept as sent.
    #[schema(value_type = Option<Object>)]
    config: Option<Fields>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StandaloneNamespaceResponse {
    namespace_id: String,
    namespace_name: String,
    /// `standalone`
    mode: String,
    /// `active`
    status: String,
    #[schema(value_type = Vec<Object>)]
    vector_configs: Vec<Value>,
    auto_create_indexes: bool,
    /// `auto`
    tiering: String,
    document_count: i64,
}

/// Documents to write; each replaces the one of its id.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpsertRequest {
    /// By id or name; left out, the collection that a standalone namespace has.
    collection_id: Option<String>,
    #[schema(value_type = Vec<BroughtDocument>, min_items = 1, max_items = 1000)]
    documents: Vec<Fields>,
    options: Option<UpsertOptions>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpsertOptions {
    /// Whether to answer a token that names this write.
    write_token: Option<bool>,
    /// Makes a repeat of the request answer what the first one did.
    idempotency_key: Option<String>,
}

/// A document and its vectors.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BroughtDocument {
    #[schema(min_length = 1, max_length = 255)]
    document_id: String,
    /// Names to numbers, to rows of numbers, or to `{indices, values}`.
    #[schema(schema_with = any_object)]
    vectors: Map<String, Value>,
    /// The document's own fields.
    #[schema(schema_with = any_object)]
    payload: Map<String, Value>,
    #[schema(schema_with = any_object)]
    metadata: Map<String, Value>,
    /// Who may read and write the document: `read` and `write` hold names of principals, `public` lets every key read.
    /// Where it is left out, the list that the document has stays.
    #[schema(schema_with = any_object)]
    acl: Map<String, Value>,
    /// `bucket`, `collection`, `direct_upsert` or `signal`; `direct_upsert` where it is left out.
    source_type: Option<String>,
    /// The object from which it descends; neither it nor its parents need be there.
    root_object_id: Option<String>,
    root_bucket_id: Option<String>,
    source_object_id: Option<String>,
    source_document_id: Option<String>,
    source_collection_id: Option<String>,
    lineage_path: Option<String>,
    #[schema(value_type = Option<Vec<Object>>)]
    lineage_chain: Option<Vec<Fields>>,
    content_hash: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct UpsertResponse {
    /// How many documents were written.
    inserted: usize,
    /// In the order of the request; empty for JSON lines.
    document_ids: Vec<String>,
    collection_id: String,
    write_token: Option<String>,
    /// Payload names that every document uses for something else and that were left out, by document; of JSON lines,
    /// `warnings` says of how many.
    dropped_payload_fields: BTreeMap<String, Vec<String>>,
    /// Documents without a vector; word search finds them.
    unsearchable_document_ids: Vec<String>,
    consistency: WriteConsistency,
    warnings: Vec<String>,
    /// Of JSON lines, how many were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    /// The first 100 of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<RefusedLine>,
}

/// A line that was not written, and why.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusedLine {
    /// Counted from 1.
    line: u64,
    document_id: Option<String>,
    error: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct ImportParameters {
    /// For JSON lines, where there is no body to name it: the collection, by id or name.
    collection_id: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WriteConsistency {
    /// `immediate` where searches see the documents now, else `eventual`.
    retriever_visible: String,
    /// Whether `write_token` is there, since it was asked for.
    write_token_available: bool,
    expected_visible_within_ms: u64,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct BroughtParameters {
    /// Whether to add the vectors.
    return_vectors: Option<bool>,
}

/// A document as it was brought.
#[derive(Debug, Serialize, ToSchema)]
pub struct BroughtDocumentResponse {
    document_id: String,
    namespace_id: String,
    collection_id: String,
    #[schema(schema_with = any_object)]
    payload: Map<String, Value>,
    #[schema(schema_with = any_object)]
    metadata: Map<String, Value>,
    #[schema(schema_with = any_object)]
    acl: Map<String, Value>,
    #[schema(schema_with = maybe_object)]
    vectors: Option<Map<String, Value>>,
    source_type: Option<String>,
    root_object_id: Option<String>,
    root_bucket_id: Option<String>,
    source_object_id: Option<String>,
    source_document_id: Option<String>,
    source_collection_id: Option<String>,
    lineage_path: Option<String>,
    lineage_chain: Vec<LineageStep>,
    content_hash: Option<String>,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    updated_at: String,
    #[schema(schema_with = maybe_time)]
    searchable_at: Option<String>,
}

/// A vector that is there, and what embeds queries for it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VectorMapping {
    existing_index: String,
    /// A model's id, or the feature URI of an extractor's output.
    #[schema(example = "all_minilm_l6_v2_int8")]
    inference_service: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVectorConfig {
    name: String,
    #[schema(minimum = 1)]
    dimension: i64,
    /// `cosine`, `dot` or `euclidean`.
    metric: Option<String>,
    inference_service: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromoteNamespaceRequest {
    vector_mappings: Option<Vec<VectorMapping>>,
    add_vectors: Option<Vec<NewVectorConfig>>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PromoteNamespaceResponse {
    namespace_id: String,
    previous_mode: String,
    mode: String,
    status: String,
    #[schema(value_type = Vec<Object>)]
    vector_configs: Vec<Value>,
    /// What embeds queries, by vector.
    vector_inference_map: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct PromoteValidateResponse {
    namespace_id: String,
    current_mode: String,
    valid: bool,
    #[schema(value_type = Vec<Object>)]
    vector_configs: Vec<Value>,
    /// Vectors that a model here could embed queries for.
    #[schema(value_type = Vec<Object>)]
    suggestions: Vec<Value>,
    /// Empty: what cannot be is refused.
    #[schema(value_type = Vec<Object>)]
    errors: Vec<Value>,
    required_user_action: String,
}

/// Create a standalone namespace
///
/// For documents that come with their vectors. Needs a key of the whole organization.
#[utoipa::path(post, path = "/v1/namespaces/standalone", tag = "BYODocuments", responses((status = 200, body = StandaloneNamespaceResponse)))]
pub async fn create_standalone_namespace(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<CreateStandaloneNamespaceRequest>,
) -> Result<Json<StandaloneNamespaceResponse>, ApiError> {
    caller.may_in_organization(Permission::Write)?;
    let kept = [
        ("description", request.description.map(Value::from)),
        ("storage", request.storage.map(Value::Object)),
        ("config", request.config.map(Value::Object)),
    ];
    let new = NewStandalone {
        namespace_id: request.namespace_id,
        name: request.namespace_name,
        vector_configs: request.vector_configs.map(|configs| json!(configs)),
        auto_create_indexes: request.auto_create_indexes,
        body: kept.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect(),
    };
    let made = app.create_standalone_namespace(&caller.0, new).await?;
    let body = &made.namespace.body;
    Ok(Json(StandaloneNamespaceResponse {
        mode: "standalone".into(),
        status: "active".into(),
        vector_configs: body.get("vector_configs").and_then(Value::as_array).cloned().unwrap_or_default(),
        auto_create_indexes: body.get("auto_create_indexes").and_then(Value::as_bool).unwrap_or(false),
        tiering: "auto".into(),
        document_count: made.counts.documents,
        namespace_id: made.namespace.namespace_id,
        namespace_name: made.namespace.name,
    }))
}

async fn scope(app: &App, caller: &Caller, namespace: &str) -> Result<Scope, ApiError> {
    Ok(app.scope(&caller.0, Some(namespace)).await?)
}

/// Write documents with their vectors
///
/// Each replaces the one of its id. Answered when searches see them. As JSON all of them or none, at most 1,000; as JSON
/// lines (`application/x-ndjson`), a document on each line, any number of them: 1,000 lines a commit, each document for
/// itself, so that an import which broke off is simply sent again.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/documents/upsert", tag = "BYODocuments",
    params(("namespace_id" = String, Path, description = "Id or name."), ImportParameters),
    request_body(content((UpsertRequest = "application/json"), (BroughtDocument = "application/x-ndjson"))),
    responses((status = 200, body = UpsertResponse)))]
pub async fn upsert_documents(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
    Query(parameters): Query<ImportParameters>,
    request: Request,
) -> Result<Json<UpsertResponse>, Response> {
    let checked = async {
        caller.may(Permission::Write)?;
        scope(&app, &caller, &namespace_id).await
    };
    let scope = checked.await.map_err(IntoResponse::into_response)?;
    if is_json_lines(request.headers()) {
        let lines = JsonLines::new(request.into_body());
        return import(&app, &scope, parameters.collection_id, lines).await.map(Json).map_err(IntoResponse::into_response);
    }
    let Json(request) = Json::from_request(request, &()).await?;
    upsert(&app, &scope, request).await.map(Json).map_err(IntoResponse::into_response)
}

async fn upsert(app: &App, scope: &Scope, request: UpsertRequest) -> Result<UpsertResponse, ApiError> {
    let options = request.options.unwrap_or_default();
    let upsert = Upsert {
        collection: request.collection_id,
        documents: request.documents,
        idempotency_key: options.idempotency_key,
    };
    let done = app.upsert_documents(scope, upsert).await?;
    Ok(upserted(done, options.write_token.unwrap_or(false)))
}

/// Refused lines that an answer shows.
const MAX_SHOWN: usize = 100;

async fn import(
    app: &App,
    scope: &Scope,
    collection: Option<String>,
    mut lines: JsonLines,
) -> Result<UpsertResponse, ApiError> {
    let (mut written, mut without_vectors, mut dropped, mut failed, mut shown) = (0, 0, 0, 0, Vec::new());
    let mut last = (String::new(), 0);
    let mut refuse = |refused: Refused| {
        failed += 1;
        if shown.len() < MAX_SHOWN {
            shown.push(refused);
        }
    };
    loop {
        let so_far = |error: Error| match (error, written) {
            (Error::Malformed(m), 1..) => Error::Malformed(format!("{m}; {written} documents before it are written")),
            (Error::TooLarge(m), 1..) => Error::TooLarge(format!("{m}; {written} documents before it are written")),
            (error, _) => error,
        };
        let part = lines.part(MAX_PART).await.map_err(so_far)?;
        let is_last = part.is_empty();
        let (mut documents, mut refused) = (Vec::with_capacity(part.len()), Vec::new());
        for (line, read) in part {
            match read {
                Ok(document) => documents.push((line, document)),
                Err(error) => refused.push(Refused { line, document_id: None, error }),
            }
        }
        // An empty body must learn as well whether there is such a collection.
        if !documents.is_empty() || (is_last && last.0.is_empty()) {
            let done = app.import_documents(scope, Part { collection: collection.clone(), documents }).await?;
            written += done.written;
            without_vectors += done.without_vectors;
            dropped += done.dropped;
            last = (done.collection_id, last.1.max(done.change));
            refused.extend(done.refused);
        }
        // By their lines, whichever step refused them.
        refused.sort_by_key(|refused| refused.line);
        refused.into_iter().for_each(&mut refuse);
        if is_last {
            break;
        }
    }
    match shown.first() {
        Some(Refused { line, error, .. }) if written == 0 => {
            return Err(Error::invalid(format!("line {line}"), format!("nothing was written: {error}")).into());
        }
        _ => {}
    }
    let (collection_id, change) = last;
    let is_visible = app.wait_searchable(&collection_id, change).await;
    let mut warnings = Vec::new();
    if without_vectors > 0 {
        warnings.push(format!("{without_vectors} documents have no vector; word search finds them"));
    }
    if dropped > 0 {
        warnings.push(format!("some payload fields of {dropped} documents were left out"));
    }
    let line = |Refused { line, document_id, error }| RefusedLine { line, document_id, error: error.to_string() };
    Ok(UpsertResponse {
        inserted: written,
        document_ids: Vec::new(),
        collection_id,
        write_token: None,
        dropped_payload_fields: BTreeMap::new(),
        unsearchable_document_ids: Vec::new(),
        consistency: WriteConsistency::of(is_visible, false),
        warnings,
        failed: Some(failed),
        errors: shown.into_iter().map(line).collect(),
    })
}

impl WriteConsistency {
    fn of(is_visible: bool, has_token: bool) -> Self {
        Self {
            retriever_visible: if is_visible { "immediate" } else { "eventual" }.into(),
            write_token_available: has_token,
            expected_visible_within_ms: if is_visible { 0 } else { 1000 },
        }
    }
}

fn upserted(done: Upserted, wants_token: bool) -> UpsertResponse {
    let warnings = done.dropped.keys().take(10).map(|id| format!("some payload fields of `{id}` were left out"));
    // One that is sent twice replaces itself.
    let ids: HashSet<&String> = done.document_ids.iter().collect();
    UpsertResponse {
        inserted: ids.len(),
        write_token: wants_token.then(|| format!("{}.{}", done.collection_id, done.change)),
        consistency: WriteConsistency::of(done.is_visible, wants_token),
        warnings: warnings.collect(),
        document_ids: done.document_ids,
        collection_id: done.collection_id,
        dropped_payload_fields: done.dropped,
        unsearchable_document_ids: done.without_vectors,
        failed: None,
        errors: Vec::new(),
    }
}

/// Get a document as it was brought
#[utoipa::path(get, path = "/v1/namespaces/{namespace_id}/documents/{document_id}", tag = "BYODocuments",
    params(
        ("namespace_id" = String, Path, description = "Id or name."),
        ("document_id" = String, Path, description = "The caller's own id."),
        BroughtParameters,
    ),
    responses((status = 200, body = BroughtDocumentResponse)))]
pub async fn get_brought_document(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_id, document_id)): Path<(String, String)>,
    Query(parameters): Query<BroughtParameters>,
) -> Result<Json<BroughtDocumentResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let scope = scope(&app, &caller, &namespace_id).await?;
    let vectors = match parameters.return_vectors {
        Some(true) => ShowVectors::All,
        _ => ShowVectors::None,
    };
    let shown = app.document(&scope, None, &document_id, Show { vectors, ..Show::default() }).await?;
    Ok(Json(brought(scope, shown)))
}

fn brought(scope: Scope, shown: Shown) -> BroughtDocumentResponse {
    let Shown { document, searchable_at, vectors, .. } = shown;
    let object = |value: Option<Value>| match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut payload, mut internal, lineage) = (document.fields, document.internal_metadata, document.lineage);
    BroughtDocumentResponse {
        document_id: document.document_id,
        namespace_id: scope.namespace_id,
        collection_id: document.collection_id,
        metadata: object(payload.remove("metadata")),
        payload,
        acl: object(internal.remove(ACL)),
        vectors: vectors.map(|all| all.into_iter().map(|(name, vector)| (name, json!(vector))).collect()),
        source_type: lineage.source_type.map(|kind| kind.as_str().to_owned()),
        root_object_id: lineage.root_object_id,
        root_bucket_id: lineage.root_bucket_id,
        source_object_id: lineage.source_object_id,
        source_document_id: lineage.source_document_id,
        source_collection_id: lineage.source_collection_id,
        lineage_path: lineage.path,
        lineage_chain: lineage.chain.into_iter().map(LineageStep::from).collect(),
        content_hash: document.content_hash,
        created_at: document.created_at,
        updated_at: document.updated_at,
        searchable_at,
    }
}

fn promotion(request: PromoteNamespaceRequest) -> Promotion {
    let mappings = request.vector_mappings.unwrap_or_default();
    let add = request.add_vectors.unwrap_or_default();
    Promotion {
        mappings: mappings.into_iter().map(|m| (m.existing_index, m.inference_service)).collect(),
        add: add.into_iter().filter_map(|spec| json!(spec).as_object().cloned()).collect(),
    }
}

/// Promote a standalone namespace
///
/// Makes it a managed one. A mapped vector can be searched by text from then on, embedded by the model that it names.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/promote", tag = "BYODocuments",
    params(("namespace_id" = String, Path, description = "Id or name.")),
    responses((status = 200, body = PromoteNamespaceResponse)))]
pub async fn promote_namespace(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
    Json(request): Json<PromoteNamespaceRequest>,
) -> Result<Json<PromoteNamespaceResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let Promoted { namespace_id, previous_mode, vectors, inference, .. } =
        app.promote_namespace(&caller.0, &namespace_id, promotion(request)).await?;
    Ok(Json(PromoteNamespaceResponse {
        namespace_id,
        previous_mode,
        mode: "managed".into(),
        status: "active".into(),
        vector_configs: standalone::configs(&vectors),
        vector_inference_map: inference,
    }))
}

/// Check a promotion
///
/// What promoting the namespace would come to. Changes nothing. Mappings and vectors that cannot be are refused as promoting
/// would refuse them; `valid` is false where the namespace is a managed one already.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_id}/promote/validate", tag = "BYODocuments",
    params(("namespace_id" = String, Path, description = "Id or name.")),
    responses((status = 200, body = PromoteValidateResponse)))]
pub async fn validate_promotion(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_id): Path<String>,
    Json(request): Json<PromoteNamespaceRequest>,
) -> Result<Json<PromoteValidateResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let checked = app.check_promotion(&caller.0, &namespace_id, promotion(request)).await?;
    if !checked.errors.is_empty() {
        return Err(Error::Invalid(checked.errors).into());
    }
    let is_standalone = checked.previous_mode == "standalone";
    let action = match is_standalone {
        false => "none: the namespace is a managed one already",
        true => "none: send the same request to `promote`",
    };
    let suggestion = |(vector, model)| json!({ "existing_index": vector, "inference_service": model });
    Ok(Json(PromoteValidateResponse {
        valid: is_standalone,
        vector_configs: standalone::configs(&checked.vectors),
        suggestions: checked.suggestions.into_iter().map(suggestion).collect(),
        errors: Vec::new(),
        required_user_action: action.into(),
        namespace_id: checked.namespace_id,
        current_mode: checked.previous_mode,
    }))
}
