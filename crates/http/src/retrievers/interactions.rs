//! Interactions: what users did with the results of retrievers.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{maybe_object, maybe_time, time},
    paging::{ListBody, PaginationResponse, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strata_engine::{
    documents::Place,
    interactions::{self, Interaction, InteractionQuery, KINDS, Mark, NewInteraction, Recorded},
};
use strata_model::{Error, Fields, Permission, Result};
use utoipa::{
    ToSchema,
    openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, SchemaType, Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Most interactions of one request.
const MAX_INTERACTIONS: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_interaction))
        .routes(routes!(create_interactions_bulk))
        .routes(routes!(list_interactions))
        .routes(routes!(get_interaction, delete_interaction))
}

/// The schema of one type of interaction.
fn kind() -> Object {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(KINDS)).build()
}

fn kinds() -> Array {
    ArrayBuilder::new().items(kind()).min_items(Some(1)).build()
}

/// What a user did with a document that a retriever found.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct SearchInteraction {
    /// The id of the document; `document_id` means the same.
    #[schema(value_type = String, required)]
    feature_id: Option<String>,
    #[schema(ignore)]
    document_id: Option<String>,
    /// Everything that the user did with it.
    #[schema(schema_with = kinds, required)]
    interaction_type: Option<Vec<String>>,
    /// The document's place among the results, from 0.
    #[schema(value_type = i64, minimum = 0, required)]
    position: Option<i64>,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    user_id: Option<String>,
    /// What belongs together: benchmarks replay the queries of a session.
    session_id: Option<String>,
    /// The execution that showed the document. Needed with `retriever_id`.
    execution_id: Option<String>,
    /// Id or name of a stored retriever; the execution knows it, too.
    retriever_id: Option<String>,
    /// The inputs of the execution. Without it those that the server remembers are kept.
    #[schema(schema_with = maybe_object)]
    query_snapshot: Option<Map<String, Value>>,
    /// The score with which the document was shown.
    document_score: Option<f64>,
    /// How many results were shown; 0 only for `zero_results`.
    #[schema(minimum = 0)]
    result_set_size: Option<i64>,
    /// The feature that found the document. Learned fusion needs it where the execution is not remembered.
    feature_uri: Option<String>,
    /// When it happened, if not now: RFC 3339.
    #[schema(schema_with = maybe_time)]
    occurred_at: Option<String>,
}

impl SearchInteraction {
    fn read(self) -> Result<NewInteraction> {
        let required = |field: &'static str| move || Error::invalid(field, "is required");
        if self.retriever_id.is_some() && self.execution_id.is_none() {
            return Err(Error::invalid("execution_id", "is required with `retriever_id`; every execution answers one"));
        }
        Ok(NewInteraction {
            feature_id: self.feature_id.or(self.document_id).ok_or_else(required("feature_id"))?,
            interaction_types: self.interaction_type.ok_or_else(required("interaction_type"))?,
            position: self.position.ok_or_else(required("position"))?,
            metadata: self.metadata,
            user_id: self.user_id,
            session_id: self.session_id,
            execution_id: self.execution_id,
            retriever_id: self.retriever_id,
            query_snapshot: self.query_snapshot,
            document_score: self.document_score,
            result_set_size: self.result_set_size,
            feature_uri: self.feature_uri,
            occurred_at: self.occurred_at,
        })
    }
}

/// An interaction as it is stored.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct InteractionResponse {
    /// Null where it was a repetition and was not stored.
    interaction_id: Option<String>,
    feature_id: String,
    #[schema(schema_with = kinds)]
    interaction_type: Vec<String>,
    position: i64,
    #[schema(schema_with = maybe_object)]
    metadata: Option<Value>,
    user_id: Option<String>,
    session_id: Option<String>,
    execution_id: Option<String>,
    retriever_id: Option<String>,
    #[schema(schema_with = maybe_object)]
    query_snapshot: Option<Value>,
    document_score: Option<f64>,
    result_set_size: Option<i64>,
    feature_uri: Option<String>,
    #[schema(schema_with = time)]
    occurred_at: String,
    /// When it was reported.
    #[schema(schema_with = time)]
    timestamp: String,
    /// Whether the same types of the same document and execution had been reported in the five minutes before.
    deduplicated: bool,
    /// What may be wrong though the interaction was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

impl From<Interaction> for InteractionResponse {
    fn from(mut interaction: Interaction) -> Self {
        let fields: &mut Fields = &mut interaction.fields;
        let number = |value: Option<Value>| value.and_then(|value| value.as_i64());
        let feature_uri = fields.remove("feature_uri").and_then(|uri| uri.as_str().map(str::to_owned));
        Self {
            position: number(fields.remove("position")).unwrap_or_default(),
            metadata: fields.remove("metadata"),
            query_snapshot: fields.remove("query_snapshot"),
            document_score: fields.remove("document_score").and_then(|score| score.as_f64()),
            result_set_size: number(fields.remove("result_set_size")),
            feature_uri,
            interaction_id: Some(interaction.interaction_id),
            feature_id: interaction.feature_id,
            interaction_type: interaction.types,
            user_id: interaction.user_id,
            session_id: interaction.session_id,
            execution_id: interaction.execution_id,
            retriever_id: interaction.retriever_id,
            occurred_at: interaction.occurred_at,
            timestamp: interaction.timestamp,
            deduplicated: false,
            warning: None,
        }
    }
}

impl From<Recorded> for InteractionResponse {
    fn from(recorded: Recorded) -> Self {
        let Recorded { interaction, is_repeated, warnings } = recorded;
        let shown = Self::from(interaction);
        Self {
            interaction_id: shown.interaction_id.filter(|_| !is_repeated),
            deduplicated: is_repeated,
            warning: (!warnings.is_empty()).then(|| warnings.join("; ")),
            ..shown
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
struct BulkInteractionsRequest {
    /// 1 to 1,000 of them.
    interactions: Vec<SearchInteraction>,
}

#[derive(Debug, Serialize, ToSchema)]
struct BulkInteractionItemResult {
    /// Place in the request, from 0.
    index: i64,
    /// Empty where it failed.
    interaction_id: String,
    /// `created` or `failed`.
    status: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct BulkInteractionsResponse {
    created: i64,
    failed: i64,
    /// Why the failed ones failed, each with its place.
    errors: Vec<String>,
    results: Vec<BulkInteractionItemResult>,
}

/// Which interactions, in which order. The paging keys mean what they mean in the query.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct ListInteractionsRequest {
    execution_id: Option<String>,
    /// Id or name.
    retriever_id: Option<String>,
    session_id: Option<String>,
    user_id: Option<String>,
    /// The id of a document.
    feature_id: Option<String>,
    #[schema(schema_with = kind)]
    interaction_type: Option<String>,
    /// A filter over everything that an interaction holds.
    filters: Option<Value>,
    /// `{"field": …, "direction": "asc" | "desc"}`; without it the newest come first.
    sort: Option<Value>,
    /// Text that the metadata contain.
    search: Option<String>,
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    #[schema(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    #[schema(minimum = 0)]
    offset: Option<i64>,
    #[schema(minimum = 1)]
    page: Option<i64>,
    cursor: Option<String>,
    include_total: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ListInteractionsResponse {
    results: Vec<InteractionResponse>,
    pagination: PaginationResponse,
    /// The same as `results`.
    items: Vec<InteractionResponse>,
}

/// Record an interaction
///
/// Keeps what a user did with a result. The same types of the same document and execution are kept once in five minutes.
/// What may be wrong, such as a document that is not there, is said in `warning`.
#[utoipa::path(post, path = "/v1/retrievers/interactions", tag = "RetrieverInteractions",
    responses((status = 200, body = InteractionResponse)))]
async fn create_interaction(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<SearchInteraction>,
) -> Result<Json<InteractionResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    Ok(Json(app.record_interaction(&tenant.scope, None, body.read()?).await?.into()))
}

/// Record many interactions
///
/// For logs of the past: each interaction may say when it happened. Repetitions are kept; one that is wrong is counted
/// as failed and the others are stored.
#[utoipa::path(post, path = "/v1/retrievers/interactions/batch", tag = "RetrieverInteractions",
    responses((status = 200, body = BulkInteractionsResponse)))]
async fn create_interactions_bulk(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<BulkInteractionsRequest>,
) -> Result<Json<BulkInteractionsResponse>, ApiError> {
    tenant.may(Permission::Write)?;
    let count = body.interactions.len();
    if !(1..=MAX_INTERACTIONS).contains(&count) {
        let message = format!("must hold 1 to {MAX_INTERACTIONS} interactions, not {count}");
        return Err(Error::invalid("interactions", message).into());
    }
    let mut outcomes: Vec<Option<Result<Recorded>>> = Vec::with_capacity(count);
    let mut good = Vec::with_capacity(count);
    for interaction in body.interactions {
        match interaction.read() {
            Ok(new) => {
                good.push(new);
                outcomes.push(None);
            }
            Err(error) => outcomes.push(Some(Err(error))),
        }
    }
    let mut stored = app.record_interactions(&tenant.scope, None, good).await?.into_iter();
    let mut answer = BulkInteractionsResponse { created: 0, failed: 0, errors: Vec::new(), results: Vec::new() };
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let Some(outcome) = outcome.or_else(|| stored.next()) else { break };
        let (interaction_id, status) = match outcome {
            Ok(recorded) => {
                answer.created += 1;
                (recorded.interaction.interaction_id, "created")
            }
            Err(error) => {
                answer.failed += 1;
                answer.errors.push(error.under(&format!("interactions.{index}")).to_string());
                (String::new(), "failed")
            }
        };
        let status = status.to_owned();
        answer.results.push(BulkInteractionItemResult { index: index as i64, interaction_id, status });
    }
    Ok(Json(answer))
}

/// List interactions
///
/// The newest first unless `sort` says otherwise. A cursor leads through the whole list.
#[utoipa::path(post, path = "/v1/retrievers/interactions/list", tag = "RetrieverInteractions", params(PagingFields),
    responses((status = 200, body = ListInteractionsResponse)))]
async fn list_interactions(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListInteractionsRequest>,
) -> Result<Json<ListInteractionsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let list = ListBody {
        limit: body.limit,
        page_size: body.page_size,
        offset: body.offset,
        page: body.page,
        cursor: body.cursor,
        include_total: body.include_total,
        filters: body.filters,
        sort: body.sort,
        search: body.search,
        ..ListBody::default()
    };
    let (paging, mut request) = list.resolve(&query)?;
    if request.sort.len() > 1 {
        return Err(Error::invalid("sort", "must name one field").into());
    }
    if let Some(kind) = &body.interaction_type {
        interactions::check_kind(kind, "interaction_type")?;
    }
    let sort = request.sort.pop().unwrap_or_else(|| ("timestamp".to_owned(), true));
    let after = paging.after.as_ref().map(|mark| marked(mark, &sort)).transpose()?;
    let asked = InteractionQuery {
        execution_id: body.execution_id,
        retriever_id: body.retriever_id,
        session_id: body.session_id,
        user_id: body.user_id,
        feature_id: body.feature_id,
        interaction_type: body.interaction_type,
        filter: request.filters,
        search: request.search,
        sort: sort.clone(),
        limit: paging.limit,
        offset: paging.offset,
        after,
        include_total: paging.include_total,
    };
    let page = app.interactions(&tenant.scope, asked).await?;
    let next = page.next.map(|mark| json!({ "after": mark.seq, "place": mark.place.to_json(), "sort": sort }));
    let pagination = PaginationResponse::marked(&paging, page.items.len(), next, page.total);
    let results: Vec<InteractionResponse> = page.items.into_iter().map(InteractionResponse::from).collect();
    Ok(Json(ListInteractionsResponse { items: results.clone(), results, pagination }))
}

/// The mark that a cursor holds.
fn marked(cursor: &Value, sort: &(String, bool)) -> Result<Mark> {
    match (cursor["after"].as_i64(), Place::from_json(&cursor["place"])) {
        (Some(seq), Some(place)) if cursor["sort"] == json!(sort) => Ok(Mark { place, seq }),
        _ => Err(Error::invalid("cursor", "belongs to a list of another order; begin again without it")),
    }
}

/// Get an interaction
#[utoipa::path(get, path = "/v1/retrievers/interactions/{interaction_id}", tag = "RetrieverInteractions",
    params(("interaction_id" = String, Path)), responses((status = 200, body = InteractionResponse)))]
async fn get_interaction(
    State(app): State<App>,
    tenant: Tenant,
    Path(interaction): Path<String>,
) -> Result<Json<InteractionResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    Ok(Json(app.interaction(&tenant.scope, &interaction).await?.into()))
}

/// Delete an interaction
///
/// Succeeds for one that is gone already, too; `deleted` says whether it was there.
#[utoipa::path(delete, path = "/v1/retrievers/interactions/{interaction_id}", tag = "RetrieverInteractions",
    params(("interaction_id" = String, Path)), responses((status = 200, body = Object)))]
async fn delete_interaction(
    State(app): State<App>,
    tenant: Tenant,
    Path(interaction): Path<String>,
) -> Result<Json<Value>, ApiError> {
    tenant.may(Permission::Delete)?;
    let deleted = app.delete_interaction(&tenant.scope, &interaction).await?;
    let message = format!("interaction `{interaction}` is deleted");
    Ok(Json(json!({ "success": true, "message": message, "interaction_id": interaction, "deleted": deleted })))
}
