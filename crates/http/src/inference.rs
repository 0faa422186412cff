//! Models asked directly.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Tenant},
    openapi::any_object,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Instant};
use strata_engine::inference::Ask;
use strata_model::{Error, Fields, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(execute_raw_inference))
}

/// A model, named by one of `model`, `inference_name` and `feature_uri`, and what to ask it.
#[derive(Deserialize, ToSchema)]
pub struct RawInferenceRequest {
    /// Whose model `model` is: `strata` or left out for those that run here, or a provider such as `openai`.
    #[serde(default)]
    provider: Option<String>,
    /// As `GET /v1/models` lists it, or as the provider names it.
    #[serde(default)]
    #[schema(example = "all_minilm_l6_v2_int8")]
    model: Option<String>,
    /// A model that runs here, under any of its names; or `provider/model`.
    #[serde(default)]
    inference_name: Option<String>,
    /// A vector that an extractor makes: the model that makes it is asked.
    #[serde(default)]
    feature_uri: Option<String>,
    /// What the model reads: `text` or `texts` to embed; `query` and `documents` to rerank; `image` or `images`, and
    /// `audio`, each a data URI, base64 or a URL; `prompt`, `prompts` or `messages`, with `system`, to write.
    #[schema(schema_with = any_object)]
    inputs: Fields,
    /// What the model takes besides: of an image model `output` (`embedding` or `labels`) and `top_k`; of a model of faces
    /// `min_score` and `max_faces`; of one of late interaction `embedding_task` (`retrieval_document` or `retrieval_query`);
    /// of one of speech `language` and `word_times`; of a language model `temperature`, `max_tokens`, `response_format` and
    /// `response_shape`; of any provider `llm_api_key`, a key or `{{SECRET.name}}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    parameters: Option<Fields>,
    /// Changes nothing: answers are not kept.
    #[serde(default)]
    #[expect(dead_code, reason = "taken from clients that send their default")]
    enable_semantic_cache: Option<bool>,
    /// Changes nothing, see `enable_semantic_cache`.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    cache_delta: Option<f64>,
}

/// What a model said.
#[derive(Debug, Serialize, ToSchema)]
pub struct RawInferenceResponse {
    /// A list where a list was sent (`texts`, `images`, `prompts`). A vector is a list of numbers, those of a text's
    /// tokens are a list of such, a sparse one has `indices` and `values`; labels and faces are lists, a transcript has `text`, `language` and `segments`; a reranking is a list of scores from 0 to 1, in the order of the documents; what a language
    /// model wrote is a text.
    #[schema(value_type = Object)]
    pub data: Value,
    /// `strata`, or the provider that was asked.
    pub provider: String,
    pub model: String,
    /// What a provider counted; null of a model that runs here.
    pub tokens_used: Option<BTreeMap<String, i64>>,
    pub latency_ms: f64,
    /// Always `false`.
    pub cached: bool,
}

/// Ask a model
///
/// One that runs here, or a provider's. What goes to a provider, and inputs that are fetched from a URL, need `write`; the
/// rest needs `read`. 503 says which command installs a model, or where a provider's key is missing; 502 is a fault of the
/// provider.
#[utoipa::path(post, path = "/v1/inference", tag = "Inference", responses((status = 200, body = RawInferenceResponse)))]
pub async fn execute_raw_inference(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<RawInferenceRequest>,
) -> Result<Json<RawInferenceResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    if body.cache_delta.is_some_and(|delta| !(0.0..=1.0).contains(&delta)) {
        return Err(Error::invalid("cache_delta", "must be from 0 to 1").into());
    }
    let started = Instant::now();
    let ask = Ask {
        provider: body.provider,
        model: body.model,
        inference_name: body.inference_name,
        feature_uri: body.feature_uri,
        inputs: body.inputs,
        parameters: body.parameters.unwrap_or_default(),
        may_reach_outside: tenant.may(Permission::Write).is_ok(),
    };
    let told = app.infer(&tenant.scope, ask).await?;
    let latency_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    Ok(Json(RawInferenceResponse {
        data: told.data,
        provider: told.provider,
        model: told.model,
        tokens_used: told.usage,
        latency_ms,
        cached: false,
    }))
}
