//! Who is asking.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json},
    openapi::maybe_time,
    organizations::key_type,
};
use axum::extract::State;
use serde::Serialize;
use std::collections::BTreeMap;
use strata_model::{Permission, rates::Rates};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The one kind of account that a server of one's own has.
pub(crate) const ACCOUNT_TYPE: &str = "enterprise";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(whoami))
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MeResponse {
    pub organization_id: String,
    pub organization_name: String,
    pub account_type: String,
    pub user_email: String,
    pub key: MeKeyInfo,
    /// Requests a minute that the key may send, by group; without those that are not limited.
    pub rate_limits: BTreeMap<String, i64>,
    /// Whether the key is limited to some namespaces.
    pub principal_scoped: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MeKeyInfo {
    pub name: String,
    pub key_type: String,
    /// What the key may do, its user's role and its scopes considered.
    pub permissions: Vec<String>,
    #[schema(schema_with = maybe_time)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

pub(crate) fn permission_name(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "read",
        Permission::Write => "write",
        Permission::Delete => "delete",
        Permission::Admin => "admin",
    }
}

fn rate_limits(rates: Rates) -> BTreeMap<String, i64> {
    let Rates { metadata, data, search, upload, compute } = rates;
    let named =
        [("metadata", metadata), ("data", data), ("search", search), ("upload", upload), ("compute", compute)];
    named.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), i64::from(limit?)))).collect()
}

/// Who am I
///
/// The organization, the user and the key behind this request. Any valid key may ask.
#[utoipa::path(get, path = "/v1/me", tag = "Account", responses((status = 200, body = MeResponse)))]
pub async fn whoami(State(app): State<App>, caller: Caller) -> Result<Json<MeResponse>, ApiError> {
    let me = app.me(&caller.0).await?;
    Ok(Json(MeResponse {
        organization_id: me.organization.organization_id,
        organization_name: me.organization.name,
        account_type: ACCOUNT_TYPE.into(),
        user_email: me.user.email,
        key: MeKeyInfo {
            key_type: key_type(&me.key).into(),
            name: me.key.name,
            permissions: caller.0.permissions.iter().map(|p| permission_name(*p).to_owned()).collect(),
            expires_at: me.key.expires_at,
        },
        rate_limits: rate_limits(caller.0.rates),
        principal_scoped: caller.0.namespaces.is_some(),
    }))
}
