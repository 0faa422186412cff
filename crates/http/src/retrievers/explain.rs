//! What an execution would do.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Path, Tenant},
    openapi::maybe_object,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use strata_engine::retrievers::{Explanation, StageEstimate};
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(explain_retriever)).routes(routes!(explain_retriever_shortly))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct ExplainRetrieverRequest {
    /// Inputs to check, as an execution would.
    #[schema(schema_with = maybe_object)]
    inputs: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ExplainRetrieverResponse {
    retriever_id: String,
    retriever_name: String,
    /// `credits`, which are 0 on this server, and `duration_ms`.
    estimated_cost: BTreeMap<String, f64>,
    execution_plan: Vec<ExplainStagePlan>,
    #[schema(value_type = Vec<Object>)]
    optimization_suggestions: Vec<Value>,
    total_estimated_stages: i64,
    /// The stage that took most of the time so far.
    bottleneck_stages: Vec<String>,
    optimization_level: String,
    optimization_applied: bool,
    #[schema(schema_with = maybe_object)]
    optimization_details: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ExplainStagePlan {
    stage_index: i64,
    stage_name: String,
    /// The stage's category.
    stage_type: String,
    stage_id: String,
    estimated_input: i64,
    estimated_output: i64,
    /// Output per input.
    estimated_efficiency: f64,
    estimated_cost_credits: f64,
    estimated_duration_ms: f64,
    cache_likely: bool,
    optimization_notes: Vec<String>,
    warnings: Vec<String>,
}

/// Explain a retriever
///
/// Says what an execution would do, stage by stage, without executing it: which stages are answered together with the
/// search after them, and how many documents satisfy their conditions, which is counted. Other sizes, and times, are the
/// means of recent executions; before there are any, sizes are the bounds that the parameters set and times are 0.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/execute/explain", tag = "Retrievers",
    params(("retriever_id" = String, Path)), responses((status = 200, body = ExplainRetrieverResponse)))]
async fn explain_retriever(
    State(app): State<App>,
    tenant: Tenant,
    Path(identifier): Path<String>,
    Json(body): Json<ExplainRetrieverRequest>,
) -> Result<Json<ExplainRetrieverResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let explanation = app.explain_retriever(&tenant.scope, &identifier, body.inputs.unwrap_or_default()).await?;
    Ok(Json(explanation.into()))
}

/// Explain a retriever, by a shorter path
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/explain", tag = "Retrievers",
    params(("retriever_id" = String, Path)), responses((status = 200, body = ExplainRetrieverResponse)))]
async fn explain_retriever_shortly(
    state: State<App>,
    tenant: Tenant,
    path: Path<String>,
    body: Json<ExplainRetrieverRequest>,
) -> Result<Json<ExplainRetrieverResponse>, ApiError> {
    explain_retriever(state, tenant, path, body).await
}

impl From<Explanation> for ExplainRetrieverResponse {
    fn from(explanation: Explanation) -> Self {
        let Explanation { retriever, plan, documents, matching, stages, sample } = explanation;
        let duration_ms: f64 = stages.iter().map(|stage| stage.duration_ms).sum();
        let slowest = stages.iter().max_by(|a, b| a.duration_ms.total_cmp(&b.duration_ms));
        let bottleneck_stages = slowest.filter(|stage| stage.duration_ms > 0.0).map(|stage| stage.name.clone());
        let suggestions = plan.warnings.iter().map(|warning| json!({ "type": "warning", "message": warning }));
        let mut details = Map::new();
        details.insert("documents".into(), documents.into());
        details.insert("matching_documents".into(), matching.into());
        details.insert("sampled_executions".into(), sample.into());
        Self {
            retriever_id: retriever.id,
            retriever_name: retriever.name,
            estimated_cost: BTreeMap::from([("credits".into(), 0.0), ("duration_ms".into(), duration_ms)]),
            optimization_suggestions: suggestions.collect(),
            total_estimated_stages: stages.len() as i64,
            bottleneck_stages: bottleneck_stages.into_iter().collect(),
            execution_plan: stages.into_iter().enumerate().map(|(index, stage)| planned(index, stage)).collect(),
            optimization_level: "none".into(),
            optimization_applied: false,
            optimization_details: Some(details),
        }
    }
}

fn planned(index: usize, stage: StageEstimate) -> ExplainStagePlan {
    ExplainStagePlan {
        stage_index: index as i64,
        estimated_efficiency: stage.efficiency(),
        stage_name: stage.name,
        stage_type: stage.stage_type.to_owned(),
        stage_id: stage.stage_id.to_owned(),
        estimated_input: stage.input as i64,
        estimated_output: stage.output as i64,
        estimated_cost_credits: 0.0,
        estimated_duration_ms: stage.duration_ms,
        cache_likely: false,
        optimization_notes: stage.notes,
        warnings: Vec::new(),
    }
}
