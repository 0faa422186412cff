//! What the public may do with published retrievers: find them, execute them, say what it did with what it found. No
//! account is needed. A request counts for its address first; it is checked before it counts for what is published, and
//! counted before it costs anything.

use super::{display::DisplayConfig, view::PublicView};
use crate::{
    App,
    error::ApiError,
    extract::{Address, Caller, Json, Path, Query},
    load::Toll,
    openapi::{any_object, maybe_object, time},
    retrievers::{
        Asked, ExecuteQuery, ExecuteRetrieverRequest, ExecuteRetrieverResponse, StreamedEvent, answered, known,
    },
};
use axum::{
    Router,
    extract::{FromRequestParts, State},
    http::{HeaderMap, request::Parts},
    response::{Redirect, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::convert::Infallible;
use strata_engine::{
    interactions::{KINDS, NewInteraction},
    published::{Credentials, PublicCard, Published, Use},
};
use strata_model::{Error, Fields, Principal};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};

const PUBLIC_KEY: &str = "x-public-api-key";
const SESSION: &str = "x-session-id";
const PASSWORD: &str = "x-retriever-password";
const MAX_INTERACTIONS: usize = 100;
const MAX_SEARCH_CHARS: usize = 200;
const MAX_PAGE_NUMBER: i64 = 500;
const MAX_PAGE_SIZE: i64 = 1_000;
const DEFAULT_PAGE_SIZE: i64 = 20;
/// Longest password that is looked at, in bytes.
const MAX_PASSWORD_BYTES: usize = 64 << 10;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_public_retrievers))
        .routes(routes!(get_public_retriever))
        .routes(routes!(get_retriever_config))
        .routes(routes!(get_public_retriever_template))
        .routes(routes!(verify_password))
        .routes(routes!(execute_by_key))
        .routes(routes!(execute_public_retriever))
        .routes(routes!(track_interaction))
        .routes(routes!(track_interactions))
}

/// Short links to published retrievers.
pub(crate) fn short_links() -> Router<App> {
    Router::new().route("/r/{public_name}", get(follow))
}

/// The short link of a public name. `base` is the server's address.
pub(super) fn short_url(base: &str, public_name: &str) -> String {
    format!("{base}/r/{public_name}")
}

async fn follow(State(app): State<App>, _toll: Toll, Path(name): Path<String>) -> Result<Redirect, ApiError> {
    let published = app.public_retriever(&name).await?;
    Ok(Redirect::temporary(&published.url(&app.config().public_url)))
}

/// What a member of the public sends to be let in.
struct Visitor(Credentials);

impl FromRequestParts<App> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let Address(address) = Address::from_request_parts(parts, app).await?;
        Ok(Self(Credentials {
            key: text(&parts.headers, PUBLIC_KEY),
            password: parts.headers.get(PASSWORD).map(|value| value.as_bytes().to_vec()).filter(|v| !v.is_empty()),
            origin: text(&parts.headers, "origin"),
            address,
        }))
    }
}

/// The value of a header; bytes that are no text stay wrong, and fit nothing.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).trim().to_owned()).filter(|text| !text.is_empty())
}

/// The one who asks, where a key of the server comes along. Nothing depends on it but what an owner sees of its own.
struct MaybeOwner(Option<Principal>);

impl FromRequestParts<App> for MaybeOwner {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(Caller::from_request_parts(parts, app).await.ok().map(|caller| caller.0)))
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct PublicListQuery {
    #[param(minimum = 1, maximum = 500)]
    page: Option<i64>,
    /// Above 100 the retrievers come without their icons.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// Whether those that are deactivated are shown too, to a caller with a key of their owner; nobody else sees them.
    include_inactive: Option<bool>,
    /// Text that name, title or description contains.
    #[param(max_length = 200)]
    search: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListPublicRetrieversResponse {
    results: Vec<PublicRetrieverListItem>,
    total_count: i64,
    page: i64,
    page_size: i64,
    total_pages: i64,
    stats: PublicRetrieverListStats,
}

#[derive(Debug, Serialize, ToSchema)]
struct PublicRetrieverListItem {
    public_name: String,
    public_url: String,
    title: String,
    description: Option<String>,
    logo_url: Option<String>,
    icon_base64: Option<String>,
    og_image_url: Option<String>,
    password_protected: bool,
    is_active: bool,
    /// `{name, url}`.
    #[schema(value_type = Vec<Object>)]
    external_links: Vec<Value>,
    #[schema(schema_with = time)]
    created_at: String,
    #[schema(schema_with = time)]
    updated_at: String,
}

/// Of everything that is active, whatever is searched for.
#[derive(Debug, Serialize, ToSchema)]
struct PublicRetrieverListStats {
    total_active: i64,
    total_password_protected: i64,
    total_open: i64,
}

impl From<PublicCard> for PublicRetrieverListItem {
    fn from(card: PublicCard) -> Self {
        let text = |key: &str| card.shown.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            title: text("title").unwrap_or_else(|| card.public_name.clone()),
            description: text("description"),
            logo_url: text("logo_url"),
            og_image_url: text("og_image_url"),
            external_links: card.shown.get("external_links").and_then(Value::as_array).cloned().unwrap_or_default(),
            icon_base64: card.icon_base64,
            public_name: card.public_name,
            public_url: card.public_url,
            password_protected: card.has_password,
            is_active: card.is_active,
            created_at: card.created_at,
            updated_at: card.updated_at,
        }
    }
}

/// List public retrievers
///
/// Everything that is published on this server, oldest first.
#[utoipa::path(get, path = "/v1/public/retrievers", tag = "PublicRetrieverAPI", params(PublicListQuery),
    responses((status = 200, body = ListPublicRetrieversResponse)))]
async fn list_public_retrievers(
    State(app): State<App>,
    _toll: Toll,
    MaybeOwner(owner): MaybeOwner,
    Query(query): Query<PublicListQuery>,
) -> Result<Json<ListPublicRetrieversResponse>, ApiError> {
    let within = |at: &str, number: i64, most: i64| match (1..=most).contains(&number) {
        true => Ok(number as usize),
        false => Err(Error::invalid(at, format!("must be from 1 to {most}, not {number}"))),
    };
    let page = within("page", query.page.unwrap_or(1), MAX_PAGE_NUMBER)?;
    let size = within("page_size", query.page_size.unwrap_or(DEFAULT_PAGE_SIZE), MAX_PAGE_SIZE)?;
    if query.search.as_ref().is_some_and(|text| text.chars().count() > MAX_SEARCH_CHARS) {
        return Err(Error::invalid("search", format!("must have at most {MAX_SEARCH_CHARS} characters")).into());
    }
    let owner = owner.filter(|_| query.include_inactive.unwrap_or(false));
    let (found, counts) = app.public_retrievers(query.search.as_deref(), owner, size, (page - 1) * size).await?;
    Ok(Json(ListPublicRetrieversResponse {
        total_count: found.total as i64,
        total_pages: found.total.div_ceil(size) as i64,
        page: page as i64,
        page_size: size as i64,
        results: found.items.into_iter().map(PublicRetrieverListItem::from).collect(),
        stats: PublicRetrieverListStats {
            total_active: counts.active as i64,
            total_password_protected: counts.with_password as i64,
            total_open: (counts.active - counts.with_password) as i64,
        },
    }))
}

/// What a search page needs.
#[derive(Debug, Serialize, ToSchema)]
struct PublicRetrieverConfigResponse {
    public_name: String,
    /// Null where there is a password; `verify` gives it then.
    public_api_key: Option<String>,
    #[schema(value_type = DisplayConfig)]
    display_config: Fields,
    password_protected: bool,
    /// `stages`, `collections` and `capabilities`; null where the owner does not show them.
    #[schema(schema_with = maybe_object)]
    retriever_metadata: Option<Map<String, Value>>,
    /// Where it is executed.
    execute_url: String,
}

async fn config(app: &App, toll: &Toll, name: &str) -> Result<Json<PublicRetrieverConfigResponse>, ApiError> {
    let published = app.public_retriever(name).await?;
    toll.of(app, &published).await?;
    let public_api_key = match published.has_password() {
        true => None,
        false => Some(app.public_key(&published).await?),
    };
    Ok(Json(PublicRetrieverConfigResponse {
        public_api_key,
        password_protected: published.has_password(),
        retriever_metadata: app.public_metadata(&published).await?,
        execute_url: format!("{}/execute", published.url(&app.config().public_url)),
        display_config: published.settings.display_config,
        public_name: published.public_name,
    }))
}

/// Get a public retriever
///
/// The same as its `config`.
#[utoipa::path(get, path = "/v1/public/retrievers/{public_name}", tag = "PublicRetrieverAPI",
    params(("public_name" = String, Path)), responses((status = 200, body = PublicRetrieverConfigResponse)))]
async fn get_public_retriever(
    State(app): State<App>,
    toll: Toll,
    Path(name): Path<String>,
) -> Result<Json<PublicRetrieverConfigResponse>, ApiError> {
    config(&app, &toll, &name).await
}

/// Get the configuration of a public retriever
///
/// How a search page shows it, and its inputs. `public_name` may be a public id.
#[utoipa::path(get, path = "/v1/public/retrievers/{public_name}/config", tag = "PublicRetrieverAPI",
    params(("public_name" = String, Path)), responses((status = 200, body = PublicRetrieverConfigResponse)))]
async fn get_retriever_config(
    State(app): State<App>,
    toll: Toll,
    Path(name): Path<String>,
) -> Result<Json<PublicRetrieverConfigResponse>, ApiError> {
    config(&app, &toll, &name).await
}

/// A retriever as `POST /v1/retrievers` takes one.
#[derive(Debug, Serialize, ToSchema)]
struct PublicRetrieverTemplateResponse {
    retriever_name: String,
    description: Option<String>,
    /// Names of the collections that it reads; put yours in their place.
    collection_identifiers: Vec<String>,
    /// Without credentials.
    #[schema(value_type = Vec<Object>)]
    stages: Vec<Value>,
    #[schema(schema_with = any_object)]
    input_schema: Map<String, Value>,
    #[schema(schema_with = any_object)]
    budget_limits: Map<String, Value>,
    tags: Vec<String>,
    #[schema(value_type = Option<DisplayConfig>)]
    display_config: Option<Fields>,
    source_public_name: String,
    source_public_url: String,
    /// Those of its collections, with `collection_name`.
    #[schema(value_type = Vec<Object>)]
    feature_extractors: Vec<Value>,
}

/// Get a public retriever as a template
///
/// How it works, to make one like it. 403 where its owner does not show that.
#[utoipa::path(get, path = "/v1/public/retrievers/{public_name}/template", tag = "PublicRetrieverAPI",
    params(("public_name" = String, Path)), responses((status = 200, body = PublicRetrieverTemplateResponse)))]
async fn get_public_retriever_template(
    State(app): State<App>,
    toll: Toll,
    Path(name): Path<String>,
) -> Result<Json<PublicRetrieverTemplateResponse>, ApiError> {
    let published = app.public_retriever(&name).await?;
    toll.of(&app, &published).await?;
    let template = app.public_template(&published).await?.ok_or_else(|| {
        Error::Forbidden(format!("the owner of `{}` does not show how it works", published.public_name))
    })?;
    Ok(Json(PublicRetrieverTemplateResponse {
        source_public_url: published.url(&app.config().public_url),
        retriever_name: template.retriever_name,
        description: template.description,
        collection_identifiers: template.collections,
        stages: template.stages,
        input_schema: template.input_schema,
        budget_limits: template.budget_limits,
        tags: template.tags,
        feature_extractors: template.feature_extractors,
        display_config: Some(published.settings.display_config),
        source_public_name: published.public_name,
    }))
}

#[derive(Deserialize, ToSchema)]
struct VerifyPasswordRequest {
    #[schema(min_length = 1)]
    password: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct VerifyPasswordResponse {
    valid: bool,
    /// Send it in `X-Public-API-Key` instead of the password.
    public_api_key: Option<String>,
}

/// Verify the password of a public retriever
///
/// A right one is answered with the public key. After 10 wrong ones in a quarter of an hour an address is refused with
/// 429, after 200 in an hour everybody is. Where there is no password any is right.
#[utoipa::path(post, path = "/v1/public/retrievers/{public_name}/verify", tag = "PublicRetrieverAPI",
    params(("public_name" = String, Path)), responses((status = 200, body = VerifyPasswordResponse)))]
async fn verify_password(
    State(app): State<App>,
    toll: Toll,
    Visitor(visitor): Visitor,
    Path(name): Path<String>,
    Json(body): Json<VerifyPasswordRequest>,
) -> Result<Json<VerifyPasswordResponse>, ApiError> {
    if body.password.is_empty() || body.password.len() > MAX_PASSWORD_BYTES {
        return Err(Error::invalid("password", format!("must have 1 to {MAX_PASSWORD_BYTES} bytes")).into());
    }
    let published = app.public_retriever(&name).await?;
    toll.of(&app, &published).await?;
    let valid = app.is_password(&published, body.password.as_bytes(), visitor.address).await?;
    let public_api_key = if valid { Some(app.public_key(&published).await?) } else { None };
    Ok(Json(VerifyPasswordResponse { valid, public_api_key }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct PublicExecuteQuery {
    /// Whether hits carry signed URLs of their exposed blobs. True where it is left out.
    return_presigned_urls: Option<bool>,
}

/// Execute a public retriever
///
/// The answer is that of an execution by the owner, cut down to the fields that are exposed. A filter may only name
/// these. A page has at most as many hits as the owner allows. With a password, send it in `X-Retriever-Password` or the
/// key that `verify` gave in `X-Public-API-Key`. Too many requests answer 429 with `Retry-After`.
#[utoipa::path(post, path = "/v1/public/retrievers/{public_name}/execute", tag = "PublicRetrieverAPI",
    params(
        ("public_name" = String, Path),
        PublicExecuteQuery,
        ("X-Public-API-Key" = Option<String>, Header, description = "The public key, or one for this retriever."),
        ("X-Retriever-Password" = Option<String>, Header, description = "The password, where there is one."),
    ),
    responses((status = 200, content((ExecuteRetrieverResponse = "application/json"), (StreamedEvent = "text/event-stream")))))]
async fn execute_public_retriever(
    State(app): State<App>,
    toll: Toll,
    Visitor(visitor): Visitor,
    headers: HeaderMap,
    Path(name): Path<String>,
    Query(query): Query<PublicExecuteQuery>,
    Json(body): Json<ExecuteRetrieverRequest>,
) -> Result<Response, ApiError> {
    let published = app.public_retriever(&name).await?;
    execute(app.clone(), toll, published, visitor, asked(&app, query, body)?, known(&headers)).await
}

/// Execute the public retriever of a key
///
/// As by its name. `X-Public-API-Key` says which it is.
#[utoipa::path(post, path = "/v1/public/retrievers/execute", tag = "PublicRetrieverAPI",
    params(
        PublicExecuteQuery,
        ("X-Public-API-Key" = Option<String>, Header, description = "A public key, or one for a retriever that is published."),
    ),
    responses((status = 200, content((ExecuteRetrieverResponse = "application/json"), (StreamedEvent = "text/event-stream")))))]
async fn execute_by_key(
    State(app): State<App>,
    toll: Toll,
    Visitor(visitor): Visitor,
    headers: HeaderMap,
    Query(query): Query<PublicExecuteQuery>,
    Json(body): Json<ExecuteRetrieverRequest>,
) -> Result<Response, ApiError> {
    let asked = asked(&app, query, body)?;
    let Some(key) = &visitor.key else {
        let message = "say which retriever: by its public name in the path, or by a key in `X-Public-API-Key`";
        return Err(Error::Unauthenticated(message.into()).into());
    };
    let published = app.published_by_key(key).await?;
    execute(app, toll, published, visitor, asked, known(&headers)).await
}

fn asked(app: &App, query: PublicExecuteQuery, body: ExecuteRetrieverRequest) -> Result<Asked, Error> {
    let query = ExecuteQuery::showing_urls(query.return_presigned_urls.unwrap_or(true));
    body.read(query, app.new_execution_id())
}

async fn execute(
    app: App,
    toll: Toll,
    published: Published,
    visitor: Credentials,
    mut asked: Asked,
    known: Vec<String>,
) -> Result<Response, ApiError> {
    app.let_in(&published, &visitor).await?;
    asked.check_public(&published.exposure())?;
    asked.limit_page(published.settings.rate_limit_config.max_results_per_query);
    toll.of_visitor(&app, &published, &visitor, Use::Execute).await?;
    let prepared = app.prepare_retriever(&published.scope, &published.retriever_id).await;
    let collections = prepared.as_ref().map(|prepared| prepared.plan.collection_identifiers.clone());
    let view = PublicView::new(&published, collections.unwrap_or_default());
    let prepared = prepared.map_err(|error| view.fault(error))?;
    asked.check_public_inputs(&prepared.plan, &published.exposure())?;
    asked.show_to_public(view);
    answered(app, published.scope, prepared, asked, known).await
}

fn kinds() -> Array {
    let kind = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(KINDS)).build();
    ArrayBuilder::new().items(kind).min_items(Some(1)).build()
}

/// What somebody did with a hit.
#[derive(Debug, Deserialize, ToSchema)]
struct PublicInteractionRequest {
    document_id: String,
    /// In lower or upper case.
    #[schema(schema_with = kinds)]
    interaction_type: Vec<String>,
    /// The hit's place among the results, from 0.
    #[schema(minimum = 0)]
    position: i64,
    /// The execution that gave the hit. Searches learn only from what names it.
    #[serde(default)]
    execution_id: Option<String>,
    /// The inputs of the execution.
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    query_snapshot: Option<Map<String, Value>>,
    #[serde(default)]
    document_score: Option<f64>,
    #[serde(default)]
    #[schema(minimum = 1)]
    result_set_size: Option<i64>,
    /// Wins over the header `X-Session-ID`.
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
}

impl PublicInteractionRequest {
    fn read(self, session: Option<&String>) -> NewInteraction {
        NewInteraction {
            feature_id: self.document_id,
            interaction_types: self.interaction_type,
            position: self.position,
            execution_id: self.execution_id,
            query_snapshot: self.query_snapshot,
            document_score: self.document_score,
            result_set_size: self.result_set_size,
            session_id: self.session_id.or_else(|| session.cloned()),
            metadata: self.metadata,
            ..NewInteraction::default()
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
struct PublicInteractionBatchRequest {
    #[schema(min_items = 1, max_items = 100)]
    interactions: Vec<PublicInteractionRequest>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PublicInteractionResponse {
    success: bool,
    /// Null where it was a repetition and was not stored.
    interaction_id: Option<String>,
    /// Whether the same types of the same document and execution had been reported in the five minutes before.
    deduplicated: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct PublicInteractionBatchResponse {
    /// Whether all were stored.
    success: bool,
    created: i64,
    failed: i64,
    /// Why the failed ones failed, each with its place.
    errors: Vec<String>,
    /// In the order of the request; null for one that failed.
    interaction_ids: Vec<Option<String>>,
}

/// What was done with a hit, checked and counted.
async fn reported(app: &App, toll: &Toll, name: &str, visitor: &Credentials) -> Result<Published, ApiError> {
    let published = app.public_retriever(name).await?;
    app.check_key(&published, visitor).await?;
    toll.of_visitor(app, &published, visitor, Use::Interact).await?;
    Ok(published)
}

/// Report an interaction
///
/// With a hit of this retriever. No password is needed.
#[utoipa::path(post, path = "/v1/public/retrievers/{public_name}/interactions", tag = "PublicRetrieverAPI",
    params(
        ("public_name" = String, Path),
        ("X-Session-ID" = Option<String>, Header, description = "What belongs together."),
        ("X-Public-API-Key" = Option<String>, Header, description = "The public key, or one for this retriever."),
    ),
    responses((status = 200, body = PublicInteractionResponse)))]
async fn track_interaction(
    State(app): State<App>,
    toll: Toll,
    Visitor(visitor): Visitor,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<PublicInteractionRequest>,
) -> Result<Json<PublicInteractionResponse>, ApiError> {
    let published = reported(&app, &toll, &name, &visitor).await?;
    let sent = body.read(text(&headers, SESSION).as_ref());
    let recorded = app.record_public_interaction(&published, sent).await?;
    Ok(Json(PublicInteractionResponse {
        success: true,
        interaction_id: (!recorded.is_repeated).then_some(recorded.interaction.interaction_id),
        deduplicated: recorded.is_repeated,
    }))
}

/// Report interactions
///
/// Up to a hundred at once, which count as one request. One that is wrong does not keep the others out.
#[utoipa::path(post, path = "/v1/public/retrievers/{public_name}/interactions/batch", tag = "PublicRetrieverAPI",
    params(
        ("public_name" = String, Path),
        ("X-Session-ID" = Option<String>, Header, description = "What belongs together."),
        ("X-Public-API-Key" = Option<String>, Header, description = "The public key, or one for this retriever."),
    ),
    responses((status = 200, body = PublicInteractionBatchResponse)))]
async fn track_interactions(
    State(app): State<App>,
    toll: Toll,
    Visitor(visitor): Visitor,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<PublicInteractionBatchRequest>,
) -> Result<Json<PublicInteractionBatchResponse>, ApiError> {
    if !(1..=MAX_INTERACTIONS).contains(&body.interactions.len()) {
        return Err(Error::invalid("interactions", format!("must be 1 to {MAX_INTERACTIONS}")).into());
    }
    let published = reported(&app, &toll, &name, &visitor).await?;
    let session = text(&headers, SESSION);
    let sent = body.interactions.into_iter().map(|one| one.read(session.as_ref())).collect();
    let answers = app.record_public_interactions(&published, sent).await?;
    let mut response = PublicInteractionBatchResponse {
        success: true,
        created: 0,
        failed: 0,
        errors: Vec::new(),
        interaction_ids: Vec::with_capacity(answers.len()),
    };
    for (i, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(recorded) => {
                response.created += 1;
                response.interaction_ids.push(Some(recorded.interaction.interaction_id));
            }
            Err(error) => {
                response.failed += 1;
                response.success = false;
                response.errors.push(error.under(&format!("interactions.{i}")).to_string());
                response.interaction_ids.push(None);
            }
        }
    }
    Ok(Json(response))
}
