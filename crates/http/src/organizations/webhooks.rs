//! Webhooks of the organization: made, listed, changed and deleted. Their secrets are shown to nobody.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    openapi::{any_object, time},
    paging::{DEFAULT_PAGE, PaginationResponse, Paging, PagingFields},
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use strata_engine::webhooks::{Channel, EVENT_TYPES, NewWebhook, Shown};
use strata_model::{Error, Fields, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Seconds that a receiver has for an answer where the caller does not say.
const DEFAULT_SECONDS: f64 = 10.0;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_webhook))
        .routes(routes!(list_webhooks))
        .routes(routes!(get_webhook, update_webhook, delete_webhook))
}

/// Where a webhook sends events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotificationChannel {
    Email,
    Slack,
    Webhook,
}

/// Of a channel of the kind `webhook`.
#[derive(Deserialize, ToSchema)]
pub struct Configs {
    /// Where events are posted: HTTP or HTTPS, at a public address unless the server was started otherwise. Redirects are
    /// not followed.
    #[schema(max_length = 2048)]
    url: Option<String>,
    /// Headers to send along. Their values are sealed; a value of `********` keeps what is there at the same URL.
    headers: Option<BTreeMap<String, String>>,
    /// Not supported: the body has one form.
    #[schema(value_type = Option<Object>)]
    payload_template: Option<Fields>,
    /// Seconds for an answer.
    #[schema(minimum = 1, maximum = 30)]
    timeout: Option<f64>,
    /// Signs every request: the header `X-Strata-Signature` is `v1=` and the HMAC-SHA256 in hex, under this secret, of the
    /// header `X-Strata-Timestamp`, a dot and the body. It is sealed; `********` keeps what is there at the same URL.
    #[schema(min_length = 1, max_length = 1024)]
    signing_secret: Option<String>,
}

#[derive(Deserialize, ToSchema)]
pub struct WebhookChannelInput {
    /// `webhook`; this server sends neither e-mail nor messages to Slack.
    channel: NotificationChannel,
    configs: Configs,
}

/// What a webhook is to be. What answers show besides may be sent back and says nothing.
#[derive(Deserialize, ToSchema)]
pub struct WebhookInput {
    /// A random one where it is left out.
    #[schema(pattern = "^wh_[a-fA-F0-9]{16}$")]
    #[serde(default)]
    webhook_id: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    webhook_name: String,
    /// Such as `object.created`. Types that this server has no events of are kept, and nothing comes of them.
    #[schema(min_items = 1)]
    event_types: Vec<String>,
    /// Only events about these types of resources, such as `object` or `task`; about all where it is left out.
    #[serde(default)]
    resource_types: Option<Vec<String>>,
    #[schema(min_items = 1, max_items = 10)]
    channels: Vec<WebhookChannelInput>,
    /// Whether events are queued and sent; yes where it is left out.
    #[serde(default)]
    is_active: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookConfig {
    pub url: String,
    /// With `********` in the place of their values.
    pub headers: BTreeMap<String, String>,
    pub timeout: f64,
    /// `********` where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookChannelOutput {
    pub channel: NotificationChannel,
    pub configs: WebhookConfig,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookOutput {
    pub webhook_id: String,
    pub webhook_name: String,
    pub event_types: Vec<String>,
    pub resource_types: Vec<String>,
    pub channels: Vec<WebhookChannelOutput>,
    pub is_active: bool,
    /// `status` is `healthy`, `failing` or `inactive`; then how many events were `delivered`, are `waiting` and were
    /// `given_up`, the last error, and the newest events that were given up.
    #[schema(schema_with = any_object)]
    pub delivery_health: Map<String, Value>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ListWebhooksRequest {
    /// Only webhooks that want events of this type.
    event_type: Option<String>,
    is_active: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListWebhooksResponse {
    pub results: Vec<WebhookOutput>,
    pub pagination: PaginationResponse,
    pub total: i64,
}

impl WebhookInput {
    fn read(self) -> Result<NewWebhook, ApiError> {
        let channels = self.channels.into_iter().enumerate().map(|(i, channel)| channel.read(i));
        Ok(NewWebhook {
            webhook_id: self.webhook_id,
            name: self.webhook_name,
            event_types: self.event_types,
            resource_types: self.resource_types.unwrap_or_default(),
            channels: channels.collect::<Result<_, ApiError>>()?,
            is_active: self.is_active.unwrap_or(true),
        })
    }
}

impl WebhookChannelInput {
    fn read(self, place: usize) -> Result<Channel, ApiError> {
        let at = |field: &str| format!("channels.{place}.{field}");
        if self.channel != NotificationChannel::Webhook {
            let message = "must be `webhook`: this server sends neither e-mail nor messages to Slack";
            return Err(Error::invalid(at("channel"), message).into());
        }
        if self.configs.payload_template.is_some() {
            let message = "is not supported: the body has one form; leave it out";
            return Err(Error::invalid(at("configs.payload_template"), message).into());
        }
        let url = self.configs.url.ok_or_else(|| Error::invalid(at("configs.url"), "is required"))?;
        Ok(Channel {
            url,
            headers: self.configs.headers.unwrap_or_default(),
            timeout_seconds: self.configs.timeout.unwrap_or(DEFAULT_SECONDS),
            signing_secret: self.configs.signing_secret,
        })
    }
}

impl From<Channel> for WebhookChannelOutput {
    fn from(channel: Channel) -> Self {
        Self {
            channel: NotificationChannel::Webhook,
            configs: WebhookConfig {
                url: channel.url,
                headers: channel.headers,
                timeout: channel.timeout_seconds,
                signing_secret: channel.signing_secret,
            },
        }
    }
}

impl From<Shown> for WebhookOutput {
    fn from(shown: Shown) -> Self {
        Self {
            webhook_id: shown.webhook_id,
            webhook_name: shown.name,
            event_types: shown.event_types,
            resource_types: shown.resource_types,
            channels: shown.channels.into_iter().map(WebhookChannelOutput::from).collect(),
            is_active: shown.is_active,
            delivery_health: match shown.health {
                Value::Object(health) => health,
                _ => Map::new(),
            },
            created_at: shown.created_at,
            updated_at: shown.updated_at,
        }
    }
}

/// Create a webhook
///
/// From now on, what happens in the organization is posted to its channels as JSON: `event_id`, `event_type`, `created_at`,
/// `namespace_id`, `resource_type` and a `payload` of ids. An event comes at least once, in order, and again until it is
/// answered 2xx or was tried too often; the `event_id` tells repeats. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/webhooks", tag = "Webhooks", responses((status = 200, body = WebhookOutput)))]
async fn create_webhook(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<WebhookInput>,
) -> Result<Json<WebhookOutput>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    Ok(Json(app.create_webhook(&caller.0, body.read()?).await?.into()))
}

/// List webhooks
///
/// Of the organization, oldest first. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/webhooks/list", tag = "Webhooks", params(PagingFields),
    responses((status = 200, body = ListWebhooksResponse)))]
async fn list_webhooks(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<PagingFields>,
    Json(body): Json<ListWebhooksRequest>,
) -> Result<Json<ListWebhooksResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let paging = Paging::resolve(&query, &PagingFields::default(), DEFAULT_PAGE)?;
    if let Some(unknown) = body.event_type.as_ref().filter(|name| !EVENT_TYPES.contains(&name.as_str())) {
        return Err(Error::invalid("event_type", format!("`{unknown}` is no type of event")).into());
    }
    let mut all = app.webhooks(&caller.0).await?;
    all.retain(|shown| body.event_type.as_ref().is_none_or(|wanted| shown.event_types.contains(wanted)));
    all.retain(|shown| body.is_active.is_none_or(|wanted| wanted == shown.is_active));
    let total = all.len();
    let part = all.into_iter().skip(paging.offset).take(paging.limit);
    let results: Vec<WebhookOutput> = part.map(WebhookOutput::from).collect();
    let pagination = PaginationResponse::of(&paging, results.len(), total);
    Ok(Json(ListWebhooksResponse { results, pagination, total: total as i64 }))
}

/// Get a webhook
///
/// By id or name; `delivery_health` says what became of its events. Needs `admin`.
#[utoipa::path(get, path = "/v1/organizations/webhooks/{identifier}", tag = "Webhooks", params(("identifier" = String, Path)),
    responses((status = 200, body = WebhookOutput)))]
async fn get_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
) -> Result<Json<WebhookOutput>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    Ok(Json(app.webhook(&caller.0, &identifier).await?.into()))
}

/// Replace a webhook
///
/// It becomes what is sent. Where it is not active no events are queued; those that wait stay, and go when it is active
/// again. What waits for another try is tried at once. Needs `admin`.
#[utoipa::path(put, path = "/v1/organizations/webhooks/{identifier}", tag = "Webhooks", params(("identifier" = String, Path)),
    responses((status = 200, body = WebhookOutput)))]
async fn update_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
    Json(body): Json<WebhookInput>,
) -> Result<Json<WebhookOutput>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    Ok(Json(app.replace_webhook(&caller.0, &identifier, body.read()?).await?.into()))
}

/// Delete a webhook
///
/// With everything that waits for it. Needs `admin`.
#[utoipa::path(delete, path = "/v1/organizations/webhooks/{identifier}", tag = "Webhooks", params(("identifier" = String, Path)),
    responses((status = 204)))]
async fn delete_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(identifier): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    app.delete_webhook(&caller.0, &identifier).await?;
    Ok(StatusCode::NO_CONTENT)
}
