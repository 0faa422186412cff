//! Whether the server works.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json},
    openapi::any_object,
};
use axum::{extract::State, http::StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};
use strata_engine::doctor::Health;
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(beat)).routes(routes!(liveness)).routes(routes!(deep_health))
}

#[derive(Debug, Serialize, ToSchema)]
pub enum HealthStatusOutput {
    #[serde(rename = "OK")]
    Ok,
    #[serde(rename = "DEGRADED")]
    Degraded,
}

/// Which parts work. There is one process: what a hosted service would keep apart is part of it here.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthServiceStatus {
    pub cache: bool,
    pub metadata: bool,
    pub vector_store: bool,
    pub object_storage: bool,
    pub task_queue: bool,
    pub inference: bool,
    pub analytics: Option<bool>,
}

/// What is wrong with the parts that do not work.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct HealthServiceErrors {
    pub metadata: Option<String>,
    pub vector_store: Option<String>,
    pub object_storage: Option<String>,
    pub inference: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct HealthCheckResponse {
    pub status: HealthStatusOutput,
    pub data: HealthServiceStatus,
    pub errors: Option<HealthServiceErrors>,
    /// `version`, and how many collections are `rebuilding` their index.
    #[schema(schema_with = any_object)]
    pub meta: Map<String, Value>,
}

impl From<Health> for HealthCheckResponse {
    fn from(health: Health) -> Self {
        let data = HealthServiceStatus {
            cache: true,
            metadata: health.catalog.is_none(),
            vector_store: health.index.is_none(),
            object_storage: health.blobs.is_none(),
            task_queue: health.catalog.is_none(),
            inference: health.models.is_none(),
            analytics: None,
        };
        let is_well = data.metadata && data.vector_store && data.object_storage && data.inference && health.rebuilding == 0;
        let errors = HealthServiceErrors {
            metadata: health.catalog,
            vector_store: health.index,
            object_storage: health.blobs,
            inference: health.models,
        };
        let mut meta = Map::new();
        meta.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        meta.insert("rebuilding".into(), health.rebuilding.into());
        Self {
            status: if is_well { HealthStatusOutput::Ok } else { HealthStatusOutput::Degraded },
            data,
            errors: (!is_well).then_some(errors),
            meta,
        }
    }
}

/// Health
///
/// Says which parts of the server work. 200 while the server can answer at all, also when it is `DEGRADED`: a model that
/// is not installed or an index that is being rebuilt stops some requests only. 503 when the catalog cannot be read.
#[utoipa::path(get, path = "/v1/health", tag = "Health", responses((status = 200, body = HealthCheckResponse)))]
pub async fn health(State(app): State<App>) -> (StatusCode, Json<HealthCheckResponse>) {
    let health = HealthCheckResponse::from(app.health().await);
    let status = if health.data.metadata { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health))
}

/// Worker heartbeat
///
/// Work runs inside the server: where this answers, workers run.
#[utoipa::path(get, path = "/v1/health/beat", tag = "Health", responses((status = 200, body = Object)))]
pub async fn beat() -> Json<Value> {
    Json(json!({ "status": "OK", "healthy": true }))
}

/// Liveness
///
/// Answers while the process runs; asks nothing of it.
#[utoipa::path(get, path = "/v1/health/liveness", tag = "Health", responses((status = 200, body = Object)))]
pub async fn liveness() -> Json<Value> {
    Json(json!({ "status": "OK", "alive": true }))
}

/// Health, for a key holder
///
/// The same as the public health check.
#[utoipa::path(get, path = "/v1/health/deep", tag = "Health", responses((status = 200, body = HealthCheckResponse)))]
pub async fn deep_health(State(app): State<App>, caller: Caller) -> Result<Json<HealthCheckResponse>, ApiError> {
    caller.may(Permission::Read)?;
    Ok(Json(app.health().await.into()))
}
