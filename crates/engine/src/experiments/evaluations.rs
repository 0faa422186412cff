//! Evaluations: a retriever is executed for each query of a data set, and its rankings are measured.

use super::{GroundTruth, enter, seed};
use crate::{
    Engine,
    batches::Task,
    retrieval::metrics::{self, Metric, measure},
    retrievers::Prepared,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strata_model::{Error, Fields, Result, Scope, id};
use strata_store::catalog::{
    batches as tasks,
    experiments::{self as rows, Experiment, Kind, Selection},
};

const DEFAULT_K: [usize; 4] = [1, 5, 10, 20];
/// Most and deepest cuts that rankings are measured at.
const MAX_CUTS: usize = 20;
const MAX_K: usize = 1_000;
/// The largest drop of a metric, as a part of the baseline's value, that is no regression.
const REGRESSION_THRESHOLD: f64 = 0.02;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationConfig {
    /// Ascending, each once.
    pub k_values: Vec<usize>,
    pub metrics: Vec<Metric>,
}

impl EvaluationConfig {
    /// What a caller asked for; absent or empty means the defaults.
    pub fn new(k_values: Option<Vec<i64>>, metrics: Option<Vec<String>>) -> Result<Self> {
        let mut cuts = BTreeSet::new();
        for (i, k) in k_values.unwrap_or_default().into_iter().enumerate() {
            let cut = usize::try_from(k).ok().filter(|k| (1..=MAX_K).contains(k));
            let at = format!("evaluation_config.k_values.{i}");
            cuts.insert(cut.ok_or_else(|| Error::invalid(at, format!("must be from 1 to {MAX_K}, not {k}")))?);
        }
        if cuts.len() > MAX_CUTS {
            return Err(Error::invalid("evaluation_config.k_values", format!("must hold at most {MAX_CUTS} values")));
        }
        let mut chosen = Vec::new();
        for (i, name) in metrics.unwrap_or_default().iter().enumerate() {
            let metric = Metric::parse(name, &Metric::ALL, &format!("evaluation_config.metrics.{i}"))?;
            if !chosen.contains(&metric) {
                chosen.push(metric);
            }
        }
        Ok(Self {
            k_values: if cuts.is_empty() { DEFAULT_K.to_vec() } else { cuts.into_iter().collect() },
            metrics: if chosen.is_empty() { metrics::DEFAULT.to_vec() } else { chosen },
        })
    }

    fn to_json(&self) -> Value {
        let names: Vec<&str> = self.metrics.iter().map(|metric| metric.as_str()).collect();
        json!({ "k_values": self.k_values, "metrics": names })
    }

    fn from_json(json: &Value) -> Result<Self> {
        let cuts = json["k_values"].as_array().map(|list| list.iter().filter_map(Value::as_i64).collect());
        let texts = |list: &Vec<Value>| list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
        Self::new(cuts, json["metrics"].as_array().map(texts))
    }

    fn depth(&self) -> usize {
        self.k_values.last().copied().unwrap_or(1)
    }
}

/// An evaluation that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvaluation {
    /// Name or id.
    pub dataset: String,
    pub config: EvaluationConfig,
    /// A completed evaluation on the same data set that this one is compared with.
    pub baseline_evaluation_id: Option<String>,
}

impl Engine {
    /// Queues an evaluation of a retriever.
    pub async fn start_evaluation(&self, scope: &Scope, retriever: &str, new: NewEvaluation) -> Result<Experiment> {
        let retriever = self.retriever(scope, retriever).await?;
        self.retriever_plan(&retriever)?;
        let dataset = match self.dataset(scope, &new.dataset).await {
            Err(Error::Missing { .. }) => {
                let message = format!("the data set `{}` does not exist", new.dataset);
                return Err(Error::invalid("dataset_name", message));
            }
            other => other?,
        };
        let (now, task_id) = (self.catalog.now(), self.catalog.new_id(id::TASK, 16));
        let experiment_id = self.catalog.new_id(id::EVALUATION, 16);
        let mut body = Fields::new();
        for (key, value) in [
            ("dataset_id", json!(dataset.dataset_id)),
            ("dataset_name", json!(dataset.name)),
            ("config", new.config.to_json()),
            ("query_count", json!(dataset.queries.len())),
            ("baseline_evaluation_id", json!(new.baseline_evaluation_id)),
            (rows::READER, json!(scope.reader)),
        ] {
            body.insert(key.to_owned(), value);
        }
        let mut task_body = Fields::new();
        task_body.insert("inputs".into(), json!([retriever.id, dataset.dataset_id]));
        task_body.insert("outputs".into(), json!([experiment_id]));
        task_body.insert("evaluation_id".into(), json!(experiment_id));
        let task = Task {
            task_id: task_id.clone(),
            organization_id: scope.organization_id.clone(),
            namespace_id: Some(scope.namespace_id.clone()),
            task_type: "api_evaluations_run".into(),
            status: "PENDING".into(),
            batch_id: None,
            body: task_body,
            created_at: now.clone(),
            updated_at: now.clone(),
        };
        let experiment = Experiment {
            experiment_id,
            organization_id: scope.organization_id.clone(),
            namespace_id: scope.namespace_id.clone(),
            kind: Kind::Evaluation,
            retriever_id: retriever.id,
            status: "pending".into(),
            task_id: Some(task_id),
            attempts: 0,
            body,
            created_at: now.clone(),
            updated_at: now,
        };
        let (scope, made) = (scope.clone(), experiment.clone());
        self.catalog
            .write(move |tx| {
                if let Some(id) = &new.baseline_evaluation_id {
                    let unknown = |error| match error {
                        Error::Missing { .. } => {
                            Error::invalid("baseline_evaluation_id", format!("`{id}` does not exist"))
                        }
                        other => other,
                    };
                    let baseline = rows::get(tx, &scope, Kind::Evaluation, id).map_err(unknown)?;
                    check_baseline(&baseline, &dataset.dataset_id)?;
                }
                tasks::put_task(tx, &task)?;
                rows::insert(tx, &experiment)
            })
            .await?;
        self.experiments.wake();
        Ok(made)
    }

    /// An evaluation of a retriever.
    pub async fn evaluation(&self, scope: &Scope, retriever: &str, evaluation_id: &str) -> Result<Experiment> {
        let retriever = self.retriever(scope, retriever).await?;
        let (scope, id) = (scope.clone(), evaluation_id.to_owned());
        let found = self.catalog.read(move |c| rows::get(c, &scope, Kind::Evaluation, &id)).await?;
        if found.retriever_id == retriever.id { Ok(found) } else { Err(Error::missing("evaluation", evaluation_id)) }
    }

    /// A page of a retriever's evaluations, newest first, and how many there are.
    pub async fn evaluations(
        &self,
        scope: &Scope,
        retriever: &str,
        selection: Selection,
        part: (usize, usize),
    ) -> Result<(Vec<Experiment>, i64)> {
        let retriever = self.retriever(scope, retriever).await?;
        let selection = Selection { retriever_id: Some(retriever.id), ..selection };
        let scope = scope.clone();
        self.catalog.read(move |c| rows::list(c, &scope, Kind::Evaluation, selection, part)).await
    }

    /// Ends an evaluation that is not over; it counts as failed.
    pub(crate) async fn cancel_evaluation(&self, scope: &Scope, evaluation_id: &str) -> Result<()> {
        let (scope, id, now) = (scope.clone(), evaluation_id.to_owned(), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let mut evaluation = rows::get(tx, &scope, Kind::Evaluation, &id)?;
                if evaluation.is_over() {
                    return Err(Error::Conflict(format!("evaluation `{id}` is over")));
                }
                evaluation.status = "failed".into();
                evaluation.body.insert("error_message".into(), "it was canceled".into());
                evaluation.body.insert("completed_at".into(), now.as_str().into());
                super::write(tx, &evaluation, &now)?;
                match &evaluation.task_id {
                    Some(task) => tasks::set_task_status(tx, task, "CANCELED", &now),
                    None => Ok(()),
                }
            })
            .await?;
        self.experiments.cancel(evaluation_id);
        Ok(())
    }
}

fn check_baseline(baseline: &Experiment, dataset_id: &str) -> Result<()> {
    let wrong = |message: &str| Err(Error::invalid("baseline_evaluation_id", message));
    if baseline.status != "completed" {
        return wrong("must be an evaluation that is completed");
    }
    if baseline.body.get("dataset_id").and_then(Value::as_str) != Some(dataset_id) {
        return wrong("must be an evaluation on the same data set");
    }
    Ok(())
}

/// What came of one query.
struct Measured {
    outcome: Value,
    /// By k and metric; `None` where the query was skipped.
    values: Option<Vec<BTreeMap<String, f64>>>,
}

/// Evaluates, and writes the results into the experiment's body.
pub(super) async fn run(engine: &Arc<Engine>, experiment: &mut Experiment) -> Result<()> {
    if !enter(engine, experiment, "in_progress").await? {
        return Ok(());
    }
    let scope = experiment.scope();
    let prepared = engine.prepare_retriever(&scope, &experiment.retriever_id).await?;
    let dataset = engine.dataset(&scope, text(&experiment.body, "dataset_id")).await?;
    engine.wait_for_index(&scope, &prepared.plan).await?;
    let config = EvaluationConfig::from_json(experiment.body.get("config").unwrap_or(&Value::Null))?;
    let mut measured = Vec::with_capacity(dataset.queries.len());
    for query in &dataset.queries {
        measured.push(one(engine, &scope, &prepared, &config, query).await);
    }
    let body = &mut experiment.body;
    let evaluated: Vec<&Vec<BTreeMap<String, f64>>> = measured.iter().filter_map(|m| m.values.as_ref()).collect();
    let (total, count) = (measured.len(), evaluated.len());
    body.insert("total_queries".into(), total.into());
    body.insert("evaluated_queries".into(), count.into());
    body.insert("skipped_queries".into(), (total - count).into());
    body.insert("query_results".into(), measured.iter().map(|m| m.outcome.clone()).collect());
    if count == 0 {
        let first = measured.iter().find_map(|m| m.outcome["error"].as_str()).unwrap_or("there was no query");
        return Err(Error::Conflict(format!("every query was skipped; the first because: {first}")));
    }
    let at_cut = |cut: usize| metrics::means(&evaluated.iter().map(|values| values[cut].clone()).collect::<Vec<_>>());
    let by_k: BTreeMap<String, BTreeMap<String, f64>> =
        config.k_values.iter().enumerate().map(|(cut, k)| (k.to_string(), at_cut(cut))).collect();
    body.insert("overall_metrics".into(), json!(at_cut(config.k_values.len() - 1)));
    body.insert("metrics_by_k".into(), json!(by_k));
    if let Some(id) = body.get("baseline_evaluation_id").and_then(Value::as_str).map(str::to_owned) {
        let found = engine.catalog.read(move |c| rows::get(c, &scope, Kind::Evaluation, &id)).await;
        let verdict = match found {
            Ok(baseline) => verdict(&values_by_k(&baseline.body), &by_k, &config),
            Err(Error::Missing { .. }) => json!({ "passed": false, "reason": "the baseline is gone" }),
            Err(other) => return Err(other),
        };
        experiment.body.insert("verdict".into(), verdict);
    }
    Ok(())
}

fn text<'f>(fields: &'f Fields, key: &str) -> &'f str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

async fn one(
    engine: &Arc<Engine>,
    scope: &Scope,
    prepared: &Prepared,
    config: &EvaluationConfig,
    query: &GroundTruth,
) -> Measured {
    let skipped = |error: String| Measured {
        outcome: json!({ "query_id": query.query_id, "status": "skipped", "error": error, "retrieved_count": null }),
        values: None,
    };
    let judgments = query.judgments();
    if query.query_input.is_empty() {
        return skipped("`query_input` is empty".into());
    }
    if judgments.is_empty() {
        return skipped("no document is relevant".into());
    }
    // The same query has the same chance in every evaluation, so two can be compared.
    let chance = seed(&[&query.query_id]);
    match engine.replay(scope, prepared, query.query_input.clone(), config.depth(), chance).await {
        Ok(execution) => {
            let ranking: Vec<String> = execution.hits.iter().map(|hit| hit.document.document_id.clone()).collect();
            let at = |k: &usize| {
                let each = config.metrics.iter();
                each.map(|m| (m.as_str().to_owned(), measure(*m, &ranking, &judgments, *k))).collect()
            };
            let outcome = json!({
                "query_id": query.query_id, "status": "evaluated", "error": null, "retrieved_count": ranking.len(),
            });
            Measured { outcome, values: Some(config.k_values.iter().map(at).collect()) }
        }
        Err(Error::Internal(what)) => {
            tracing::error!(query_id = query.query_id, "{what}");
            skipped("something went wrong on the server's side".into())
        }
        Err(error) => skipped(error.to_string()),
    }
}

type ByK = BTreeMap<String, BTreeMap<String, f64>>;

fn values_by_k(body: &Fields) -> ByK {
    body.get("metrics_by_k").and_then(|json| serde_json::from_value(json.clone()).ok()).unwrap_or_default()
}

/// Whether the candidate is better: its primary metric must be higher, and none may have dropped by more than
/// [`REGRESSION_THRESHOLD`]. Compared is at the largest k that both have.
fn verdict(baseline: &ByK, candidate: &ByK, config: &EvaluationConfig) -> Value {
    let common = config.k_values.iter().rev().map(usize::to_string).find(|k| baseline.contains_key(k));
    let Some(k) = common else {
        return json!({ "passed": false, "reason": "the evaluations have no k in common", "compared_metrics": 0 });
    };
    let (before, after) = (&baseline[&k], &candidate[&k]);
    let primary = if after.contains_key("ndcg") { "ndcg" } else { config.metrics[0].as_str() };
    let mut per_metric = Fields::new();
    let (mut regressed, mut skipped) = (Vec::new(), Vec::new());
    for (name, old) in before {
        let Some(new) = after.get(name) else {
            skipped.push(name.clone());
            continue;
        };
        let change = (*old > 0.0).then(|| (new - old) / old);
        let is_worse = change.is_some_and(|change| change < -REGRESSION_THRESHOLD);
        if is_worse {
            regressed.push(name.clone());
        }
        let compared = json!({
            "baseline": old, "candidate": new, "delta": new - old, "threshold": REGRESSION_THRESHOLD,
            "pct_change": change, "regressed": is_worse, "comparable": change.is_some(),
        });
        per_metric.insert(name.clone(), compared);
    }
    let is_better = before.get(primary).zip(after.get(primary)).is_some_and(|(old, new)| new > old);
    let reason = match (regressed.is_empty(), is_better) {
        (false, _) => format!("worse at k = {k}: {}", regressed.join(", ")),
        (true, false) => format!("{primary} at k = {k} is not higher than the baseline's"),
        (true, true) => format!("{primary} at k = {k} is higher, and no metric is worse"),
    };
    json!({
        "passed": regressed.is_empty() && is_better,
        "reason": reason,
        "primary_metric": primary,
        "compared_metrics": per_metric.len(),
        "regressed_metrics": regressed,
        "skipped_metrics": skipped,
        "per_metric": per_metric,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_checked_and_completed() {
        let config = EvaluationConfig::new(Some(vec![10, 5, 10]), Some(vec!["MRR".into(), "mrr".into()])).unwrap();
        assert_eq!((config.k_values.clone(), config.metrics.clone()), (vec![5, 10], vec![Metric::ReciprocalRank]));
        assert_eq!(EvaluationConfig::from_json(&config.to_json()).unwrap(), config);
        let plain = EvaluationConfig::new(None, Some(Vec::new())).unwrap();
        assert_eq!((plain.k_values, plain.metrics.len()), (DEFAULT_K.to_vec(), 6));
        let wrong =
            |k: Vec<i64>, m: &str| EvaluationConfig::new(Some(k), Some(vec![m.into()])).unwrap_err().to_string();
        assert!(wrong(vec![1, 0], "map").contains("`evaluation_config.k_values.1`"));
        assert!(wrong(vec![1], "speed").contains("`evaluation_config.metrics.0`"));
    }

    #[test]
    fn a_verdict_needs_a_gain_and_no_loss() {
        let by_k = |k: &str, ndcg: f64, mrr: f64| -> ByK {
            let values = BTreeMap::from([("ndcg".to_owned(), ndcg), ("mrr".to_owned(), mrr)]);
            BTreeMap::from([(k.to_owned(), values)])
        };
        let config = EvaluationConfig::new(Some(vec![5]), Some(vec!["ndcg".into(), "mrr".into()])).unwrap();
        let of = |before: ByK, after: ByK| verdict(&before, &after, &config);
        let better = of(by_k("5", 0.5, 0.5), by_k("5", 0.6, 0.495));
        assert_eq!((better["passed"].clone(), better["compared_metrics"].clone()), (json!(true), json!(2)));
        let worse = of(by_k("5", 0.5, 0.5), by_k("5", 0.6, 0.4));
        assert_eq!((worse["passed"].clone(), worse["regressed_metrics"].clone()), (json!(false), json!(["mrr"])));
        let same = of(by_k("5", 0.5, 0.5), by_k("5", 0.5, 0.5));
        assert_eq!(same["passed"], json!(false));
        let from_nothing = of(by_k("5", 0.0, 0.5), by_k("5", 0.1, 0.5));
        assert_eq!(from_nothing["passed"], json!(true));
        assert_eq!(from_nothing["per_metric"]["ndcg"]["comparable"], json!(false));
        assert_eq!(of(by_k("3", 0.5, 0.5), by_k("5", 0.6, 0.6))["passed"], json!(false));
    }
}
