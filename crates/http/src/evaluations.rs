//! Scores without a retriever, and where the evaluations of retrievers are.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_engine::retrieval::metrics::{self, Metric, measure_sets};
use strata_model::{Error, Permission, Result};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Most items of one request.
const MAX_ITEMS: usize = 10_000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(discover_evaluations)).routes(routes!(score_predictions))
}

/// A prediction and what it should have been, both as sets.
#[derive(Debug, Clone, Deserialize, ToSchema)]
struct ScoreItem {
    #[serde(default)]
    predicted: Vec<String>,
    #[serde(default)]
    ground_truth: Vec<String>,
}

/// One prediction, or `items`.
#[derive(Debug, Deserialize, ToSchema)]
struct ScorePredictionsRequest {
    #[serde(default)]
    predicted: Option<Vec<String>>,
    #[serde(default)]
    ground_truth: Option<Vec<String>>,
    #[serde(default)]
    items: Option<Vec<ScoreItem>>,
    /// Of `precision`, `recall`, `f1` and `f2`; all of them where it is left out.
    #[serde(default)]
    metrics: Option<Vec<String>>,
    /// Score only so many of the first predictions.
    #[serde(default)]
    #[schema(minimum = 1)]
    k: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ScorePredictionsResponse {
    metrics: Vec<String>,
    k: Option<i64>,
    /// Items that were scored.
    count: i64,
    /// In the order of the items.
    per_item: Vec<BTreeMap<String, f64>>,
    /// The mean of each metric over the items.
    aggregate: BTreeMap<String, f64>,
}

/// Where evaluations are
///
/// The paths under which data sets and evaluations lie, and the metrics there are.
#[utoipa::path(get, path = "/v1/evaluations", tag = "RetrieverEvaluations", responses((status = 200, body = Object)))]
async fn discover_evaluations(caller: Caller) -> Result<Json<Value>, ApiError> {
    caller.may(Permission::Read)?;
    let names = |list: &[Metric]| list.iter().map(|metric| metric.as_str()).collect::<Vec<_>>();
    Ok(Json(json!({
        "endpoints": {
            "create_dataset": "POST /v1/retrievers/evaluations/datasets",
            "list_datasets": "GET /v1/retrievers/evaluations/datasets",
            "get_dataset": "GET /v1/retrievers/evaluations/datasets/{dataset_identifier}",
            "generate_dataset": "POST /v1/retrievers/{retriever_id}/evaluations/generate-from-interactions",
            "start_evaluation": "POST /v1/retrievers/{retriever_id}/evaluations",
            "list_evaluations": "GET /v1/retrievers/{retriever_id}/evaluations",
            "get_evaluation": "GET /v1/retrievers/{retriever_id}/evaluations/{evaluation_id}",
            "score_predictions": "POST /v1/evaluations/score",
        },
        "metrics": names(&Metric::ALL),
        "default_metrics": names(&metrics::DEFAULT),
        "score_metrics": names(&Metric::OF_SETS),
    })))
}

/// Score predictions
///
/// Compares what was predicted with what was expected, as sets, and keeps nothing. Where neither has anything, the score
/// is 1.
#[utoipa::path(post, path = "/v1/evaluations/score", tag = "RetrieverEvaluations",
    responses((status = 200, body = ScorePredictionsResponse)))]
async fn score_predictions(
    caller: Caller,
    Json(body): Json<ScorePredictionsRequest>,
) -> Result<Json<ScorePredictionsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let k = match body.k {
        Some(k) if k < 1 => return Err(Error::invalid("k", format!("must be 1 or more, not {k}")).into()),
        other => other,
    };
    let metrics = chosen(body.metrics.as_deref())?;
    let items = items(body.predicted, body.ground_truth, body.items)?;
    let cut = k.and_then(|k| usize::try_from(k).ok());
    let score = |item: &ScoreItem| {
        let each = metrics.iter();
        each.map(|m| (m.as_str().to_owned(), measure_sets(*m, &item.predicted, &item.ground_truth, cut))).collect()
    };
    let per_item: Vec<BTreeMap<String, f64>> = items.iter().map(score).collect();
    Ok(Json(ScorePredictionsResponse {
        metrics: metrics.iter().map(|metric| metric.as_str().to_owned()).collect(),
        k,
        count: per_item.len() as i64,
        aggregate: metrics::means(&per_item),
        per_item,
    }))
}

fn chosen(names: Option<&[String]>) -> Result<Vec<Metric>> {
    let Some(names) = names.filter(|names| !names.is_empty()) else { return Ok(Metric::OF_SETS.to_vec()) };
    let mut chosen = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let metric = Metric::parse(name, &Metric::OF_SETS, &format!("metrics.{i}"))?;
        if !chosen.contains(&metric) {
            chosen.push(metric);
        }
    }
    Ok(chosen)
}

fn items(
    predicted: Option<Vec<String>>,
    ground_truth: Option<Vec<String>>,
    items: Option<Vec<ScoreItem>>,
) -> Result<Vec<ScoreItem>> {
    match (predicted, ground_truth, items) {
        (Some(predicted), Some(ground_truth), None) => Ok(vec![ScoreItem { predicted, ground_truth }]),
        (None, None, Some(items)) if (1..=MAX_ITEMS).contains(&items.len()) => Ok(items),
        (None, None, Some(items)) => {
            Err(Error::invalid("items", format!("must hold 1 to {MAX_ITEMS}, not {}", items.len())))
        }
        (None, None, None) => Err(Error::invalid("items", "is required, or `predicted` with `ground_truth`")),
        (_, _, Some(_)) => Err(Error::invalid("items", "cannot stand beside `predicted` and `ground_truth`")),
        (None, Some(_), None) => Err(Error::invalid("predicted", "is required with `ground_truth`")),
        (Some(_), None, None) => Err(Error::invalid("ground_truth", "is required with `predicted`")),
    }
}
