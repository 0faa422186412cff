//! The organization; its users, their API keys, its secrets, connections and webhooks are in the submodules.

mod audit;
mod connections;
mod keys;
mod secrets;
mod signing;
mod subjects;
mod users;
mod webhooks;

pub(crate) use keys::{APIKeyCreateResponse, APIKeyListResponse, APIKeyModel, key_type, with_secret};
pub(crate) use users::GenericSuccessResponse;

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json},
    me::ACCOUNT_TYPE,
    openapi::{any_object, time},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::{
    inference::CREDENTIALS,
    principals::{OrganizationChange, RATE_LIMITS},
};
use strata_model::{Error, Fields, Permission};
use strata_engine::principals::Organization;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Shown where the contract wants a number and there is no limit.
const NO_LIMIT: i64 = 1_000_000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_organization, update_organization)).merge(users::routes()).merge(keys::routes()).merge(secrets::routes()).merge(connections::routes()).merge(audit::routes()).merge(subjects::routes()).merge(webhooks::routes()).merge(signing::routes())
}

/// Requests a minute of each key, by what they do; 1000000 where they are not limited.
#[derive(Debug, Serialize, ToSchema)]
pub struct BaseRateLimits {
    pub metadata: i64,
    pub data: i64,
    pub search: i64,
    pub upload: i64,
    pub compute: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct OrganizationModelResponse {
    pub organization_id: String,
    pub organization_name: String,
    pub logo_url: Option<String>,
    pub account_type: String,
    /// Always 0: nothing is billed.
    pub credit_count: i64,
    #[schema(schema_with = any_object)]
    pub metadata: Map<String, Value>,
    pub billing_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notifications_email: Option<String>,
    pub rate_limits: BaseRateLimits,
    pub auto_billing_enabled: bool,
    pub billing_cycle_start: i64,
    pub current_month_usage: i64,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    /// Providers of models and the secrets with their keys, as `{{SECRET.name}}`.
    #[schema(schema_with = any_object)]
    pub default_llm_credentials: Map<String, Value>,
    /// Where this server is reached.
    pub api_url: String,
    pub requires_plan: bool,
    pub is_internal: bool,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct OrganizationUpdateRequest {
    #[schema(min_length = 1, max_length = 200)]
    organization_name: Option<String>,
    logo_url: Option<String>,
    billing_email: Option<String>,
    notifications_email: Option<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Fields>,
    /// Requests a minute of each key that has no limit of its own: `metadata`, `data`, `search`, `upload`, `compute`, each 1
    /// at least. What is sent replaces what was there; what it leaves out is as the server has it.
    #[schema(value_type = Option<Object>)]
    rate_limit_overrides: Option<Fields>,
    /// Keys of providers of models, by the provider's name: a secret as `{{SECRET.name}}`, or a key, which is put into the
    /// vault as `llm_{provider}`. What is sent replaces what was there.
    #[schema(value_type = Option<Object>)]
    default_llm_credentials: Option<Fields>,
    /// Not supported: nothing is billed.
    #[schema(value_type = Option<Object>)]
    spend_limits: Option<Fields>,
    /// Not supported.
    nsfw_check_enabled: Option<bool>,
    /// Not supported.
    nsfw_fail_closed: Option<bool>,
}

/// Refuses settings that would promise what is not done: each is a field's name and whether it was sent.
pub(crate) fn refuse(fields: &[(&str, bool)]) -> Result<(), ApiError> {
    match fields.iter().find(|(_, is_sent)| *is_sent) {
        None => Ok(()),
        Some((field, _)) => Err(Error::invalid(*field, "is not enforced by this server; leave it out").into()),
    }
}

/// A limit of requests a minute, as keys and organizations have them.
pub(crate) fn checked_limit(field: &str, limit: &Value) -> Result<u32, ApiError> {
    let limit = limit.as_u64().and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0);
    limit.ok_or_else(|| Error::invalid(field, "must be a whole number from 1").into())
}

fn checked_limits(limits: Fields) -> Result<Fields, ApiError> {
    const GROUPS: [&str; 5] = ["metadata", "data", "search", "upload", "compute"];
    let mut checked = Fields::new();
    for (group, limit) in limits.into_iter().filter(|(_, limit)| !limit.is_null()) {
        let field = format!("rate_limit_overrides.{group}");
        if !GROUPS.contains(&group.as_str()) {
            return Err(Error::invalid(field, format!("is none of `{}`", GROUPS.join("`, `"))).into());
        }
        let limit = checked_limit(&field, &limit)?;
        checked.insert(group, limit.into());
    }
    Ok(checked)
}

fn shown(app: &App, organization: Organization) -> OrganizationModelResponse {
    let text = |key: &str| organization.body.get(key).and_then(Value::as_str).map(str::to_owned);
    let object = |key: &str| organization.body.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
    let rates = app.rates_of(&organization);
    let limit = |rate: Option<u32>| rate.map_or(NO_LIMIT, i64::from);
    OrganizationModelResponse {
        logo_url: text("logo_url"),
        account_type: ACCOUNT_TYPE.into(),
        credit_count: 0,
        metadata: object("metadata"),
        default_llm_credentials: object(CREDENTIALS),
        billing_email: text("billing_email"),
        notifications_email: text("notifications_email"),
        rate_limits: BaseRateLimits {
            metadata: limit(rates.metadata),
            data: limit(rates.data),
            search: limit(rates.search),
            upload: limit(rates.upload),
            compute: limit(rates.compute),
        },
        auto_billing_enabled: false,
        billing_cycle_start: 1,
        current_month_usage: 0,
        organization_id: organization.organization_id,
        organization_name: organization.name,
        created_at: organization.created_at,
        updated_at: organization.updated_at,
        api_url: app.config().public_url.clone(),
        requires_plan: false,
        is_internal: false,
    }
}

/// Get the organization
///
/// The organization that the key belongs to.
#[utoipa::path(get, path = "/v1/organizations", tag = "Organizations", responses((status = 200, body = OrganizationModelResponse)))]
pub async fn get_organization(State(app): State<App>, caller: Caller) -> Result<Json<OrganizationModelResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let organization = app.organization(&caller.0).await?;
    Ok(Json(shown(&app, organization)))
}

/// Change the organization
///
/// Fields that are left out stay. Needs `admin`.
#[utoipa::path(patch, path = "/v1/organizations", tag = "Organizations", responses((status = 200, body = OrganizationModelResponse)))]
pub async fn update_organization(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<OrganizationUpdateRequest>,
) -> Result<Json<OrganizationModelResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    refuse(&[
        ("spend_limits", body.spend_limits.is_some()),
        ("nsfw_check_enabled", body.nsfw_check_enabled == Some(true)),
        ("nsfw_fail_closed", body.nsfw_fail_closed == Some(true)),
    ])?;
    let texts = [("logo_url", body.logo_url), ("billing_email", body.billing_email), ("notifications_email", body.notifications_email)];
    let mut fields: Fields = texts.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value?)))).collect();
    if let Some(metadata) = body.metadata {
        fields.insert("metadata".into(), metadata.into());
    }
    if let Some(limits) = body.rate_limit_overrides {
        fields.insert(RATE_LIMITS.into(), checked_limits(limits)?.into());
    }
    if let Some(credentials) = body.default_llm_credentials {
        fields.insert(CREDENTIALS.into(), app.keep_credentials(&caller.0, credentials).await?.into());
    }
    let change = OrganizationChange { name: body.organization_name, body: fields };
    let organization = app.update_organization(&caller.0, change).await?;
    Ok(Json(shown(&app, organization)))
}
