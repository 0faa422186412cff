//! The change feed.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Query, named_namespace},
    openapi::{any_object, time},
    paging::{Paging, PagingFields, write_cursor},
};
use axum::{extract::State, http::HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strata_engine::events::{Event, EventQuery};
use strata_model::Permission;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Events of a page where the caller does not say.
const DEFAULT_PAGE: usize = 100;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_events))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct EventParameters {
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// The same as `cursor`.
    next_cursor: Option<String>,
    /// The same as `cursor`.
    after: Option<String>,
    /// Only events of this namespace, by id or name.
    namespace_id: Option<String>,
    /// Only events of this type.
    event_type: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// The same as `limit`.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListEventsResponse {
    pub results: Vec<ChangeEventResponse>,
    /// Where to go on, now or when there is more to see.
    pub next_cursor: Option<String>,
    /// Whether more events are there already.
    pub has_more: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ChangeEventResponse {
    /// Grows from event to event.
    pub seq: i64,
    /// Where to go on after this event.
    pub cursor: String,
    pub namespace_id: Option<String>,
    #[schema(example = "object.created")]
    pub event_type: String,
    /// The first part of the event's type.
    #[schema(example = "object")]
    pub resource_type: String,
    /// `insert`, `update`, `delete` or `other`.
    pub operation: String,
    #[schema(schema_with = any_object)]
    pub payload: Map<String, Value>,
    #[schema(schema_with = time)]
    pub created_at: String,
}

impl From<Event> for ChangeEventResponse {
    fn from(event: Event) -> Self {
        let operation = match event.event_type.split('.').nth(1) {
            Some("created") => "insert",
            Some("updated") => "update",
            Some("deleted") => "delete",
            _ => "other",
        };
        Self {
            seq: event.seq,
            cursor: cursor(event.seq),
            namespace_id: event.namespace_id,
            resource_type: event.event_type.split('.').next().unwrap_or_default().to_owned(),
            operation: operation.to_owned(),
            event_type: event.event_type,
            payload: match event.payload {
                Value::Object(map) => map,
                Value::Null => Map::new(),
                other => Map::from_iter([("value".to_owned(), other)]),
            },
            created_at: event.created_at,
        }
    }
}

fn cursor(seq: i64) -> String {
    write_cursor(&json!({ "a": seq }))
}

/// List events
///
/// What changed, in the order in which it was stored. Read on from `next_cursor` to follow along. `X-Namespace` or
/// `namespace_id` narrow the feed to one namespace.
#[utoipa::path(get, path = "/v1/events", tag = "Events", params(EventParameters), responses((status = 200, body = ListEventsResponse)))]
pub async fn list_events(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<EventParameters>,
) -> Result<Json<ListEventsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let named = match query.namespace_id.as_deref() {
        Some(named) => Some(named),
        None => named_namespace(&headers)?,
    };
    let namespace_id = match named {
        Some(named) => Some(app.scope(&caller.0, Some(named)).await?.namespace_id),
        None => None,
    };
    let fields = PagingFields {
        limit: query.limit,
        page_size: query.page_size,
        cursor: query.cursor,
        next_cursor: query.next_cursor,
        after: query.after,
        ..PagingFields::default()
    };
    let paging = Paging::resolve(&fields, &PagingFields::default(), DEFAULT_PAGE)?;
    let after = paging.after.as_ref().and_then(Value::as_i64).unwrap_or(0);
    let asked = EventQuery { namespace_id, event_type: query.event_type, after, limit: paging.limit };
    let (events, has_more) = app.events(&caller.0, asked).await?;
    let last = events.last().map_or(after, |event| event.seq);
    Ok(Json(ListEventsResponse {
        results: events.into_iter().map(ChangeEventResponse::from).collect(),
        next_cursor: (last > 0).then(|| cursor(last)),
        has_more,
    }))
}
