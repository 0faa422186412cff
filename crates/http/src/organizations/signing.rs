//! The keys of the server that sign the URLs of files.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json},
    openapi::time,
};
use axum::extract::State;
use serde::Serialize;
use strata_engine::presign::SigningKey;
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(rotate_signing_key))
}

/// A key that signs URLs or still verifies them. What it is made of is shown to nobody.
#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKeyModel {
    /// Signed URLs begin with it.
    pub key_id: u64,
    #[schema(schema_with = time)]
    pub created_at: String,
    /// When the last URL that it can have signed has expired; null for the one that signs.
    #[schema(format = DateTime)]
    pub verifies_until: Option<String>,
}

impl From<SigningKey> for SigningKeyModel {
    fn from(key: SigningKey) -> Self {
        Self { key_id: key.id, created_at: key.made_at(), verifies_until: key.verifies_until() }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SigningKeysResponse {
    /// The key that signs now.
    pub key_id: u64,
    /// All that verify, oldest first.
    pub keys: Vec<SigningKeyModel>,
}

/// Rotate the key that signs URLs
///
/// From now on a new key signs the URLs of files, of the whole server. URLs that are out work until they expire. Of several
/// rotations at once one makes a key. 409 where too many keys still verify. Needs `admin`.
#[utoipa::path(post, path = "/v1/organizations/signing-keys/rotate", tag = "OrganizationAPIKeys",
    responses((status = 200, body = SigningKeysResponse)))]
async fn rotate_signing_key(State(app): State<App>, caller: Caller) -> Result<Json<SigningKeysResponse>, ApiError> {
    caller.may_in_organization(Permission::Admin)?;
    let keys: Vec<SigningKeyModel> = app.rotate_signing_key().await?.into_iter().map(SigningKeyModel::from).collect();
    let signing = keys.last().map_or(0, |key| key.key_id);
    Ok(Json(SigningKeysResponse { key_id: signing, keys }))
}
