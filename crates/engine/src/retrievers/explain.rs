//! What an execution would do, without executing it: sizes and times as past executions had them, or else the bounds
//! that the stages' parameters set.

use super::{
    Retriever,
    backend::ScopedBackend,
    history::{Outcome, Record},
};
use crate::{
    Engine,
    listing::ListRequest,
    retrieval::{Backend, Plan, PlannedStage, StageReport},
};
use serde_json::Value;
use std::sync::Arc;
use strata_model::{Fields, Result, Scope, filter::Filter};
use strata_store::catalog::browse::{self, Selection};

/// Past executions that estimates are made from.
const MAX_SAMPLE: usize = 50;
/// Documents that a search keeps where its parameters do not say.
const DEFAULT_KEPT: usize = 25;

/// A retriever's plan with estimates.
#[derive(Debug, Clone)]
pub struct Explanation {
    pub retriever: Retriever,
    pub plan: Arc<Plan>,
    /// Documents in the collections that it reads.
    pub documents: usize,
    pub stages: Vec<StageEstimate>,
    /// Past executions that the estimates come from; without any, they are bounds.
    pub sample: usize,
}

/// What a stage is expected to do.
#[derive(Debug, Clone, PartialEq)]
pub struct StageEstimate {
    pub name: String,
    pub stage_id: &'static str,
    /// The stage's category.
    pub stage_type: &'static str,
    pub input: usize,
    pub output: usize,
    /// 0 where no execution is remembered.
    pub duration_ms: f64,
}

impl StageEstimate {
    /// Output per input.
    pub fn efficiency(&self) -> f64 {
        if self.input == 0 { 0.0 } else { self.output as f64 / self.input as f64 }
    }
}

impl Engine {
    /// Explains a stored retriever. Inputs, where there are some, are checked as an execution would.
    pub async fn explain_retriever(
        self: &Arc<Self>,
        scope: &Scope,
        identifier: &str,
        inputs: Fields,
    ) -> Result<Explanation> {
        let retriever = self.retriever(scope, identifier).await?;
        let plan = self.retriever_plan(&retriever)?;
        if !inputs.is_empty() {
            plan.input_schema.check(inputs)?;
        }
        let documents = self.documents_read(scope, &plan).await?;
        let request = ListRequest { limit: MAX_SAMPLE, ..ListRequest::default() };
        let same = |record: &Record| {
            record.retriever_id.as_deref() == Some(retriever.id.as_str())
                && record.outcome == Outcome::Completed
                && record.created_at >= retriever.updated_at
        };
        let sample = self.memory.history.page(scope, &request, same).items;
        let stages = estimates(&plan, documents, &sample);
        Ok(Explanation { documents, stages, sample: sample.len(), retriever, plan })
    }

    async fn documents_read(self: &Arc<Self>, scope: &Scope, plan: &Plan) -> Result<usize> {
        let backend = ScopedBackend::new(self.clone(), scope.clone());
        let collections = backend.collections(&plan.collection_identifiers).await?;
        let of = scope.clone();
        let count = self.catalog.read(move |connection| {
            let all = Filter::all();
            let counts =
                collections.iter().map(|c| browse::count(connection, &of, Selection::of(Some(&c.collection_id), &all)));
            counts.sum::<Result<i64>>()
        });
        Ok(usize::try_from(count.await?).unwrap_or(0))
    }
}

fn estimates(plan: &Plan, documents: usize, sample: &[Record]) -> Vec<StageEstimate> {
    let mut input = documents;
    let mut estimates = Vec::with_capacity(plan.stages.len());
    for planned in &plan.stages {
        let past: Vec<&StageReport> =
            sample.iter().flat_map(|r| &r.stages).filter(|s| s.name == planned.name).collect();
        let mean = |value: fn(&StageReport) -> f64| {
            let sum: f64 = past.iter().map(|report| value(report)).sum();
            (!past.is_empty()).then(|| sum / past.len() as f64)
        };
        let output =
            mean(|report| report.output_count as f64).map_or_else(|| bound(planned, input), |n| n.round() as usize);
        let estimate = StageEstimate {
            name: planned.name.clone(),
            stage_id: planned.definition.stage_id,
            stage_type: planned.definition.category.as_str(),
            input,
            output: output.min(input),
            duration_ms: mean(|report| report.duration_ms).unwrap_or(0.0),
        };
        input = estimate.output;
        estimates.push(estimate);
    }
    estimates
}

/// The most that a stage can give.
fn bound(planned: &PlannedStage, input: usize) -> usize {
    let parameter = |name: &str| planned.json.get("parameters").and_then(|p| p.get(name)).and_then(Value::as_u64);
    let stated =
        ["final_top_k", "limit", "top_k"].into_iter().find_map(parameter).and_then(|n| usize::try_from(n).ok());
    match stated {
        Some(stated) => stated,
        None if planned.definition.stage_id == "feature_search" => DEFAULT_KEPT,
        None => input,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::RetrieverSpec;
    use serde_json::json;

    fn plan() -> Plan {
        let body = json!({"stages": [
            {"stage_name": "find", "config": {"stage_id": "feature_search", "parameters": {"searches": [{"query": "x"}], "final_top_k": 40}}},
            {"stage_name": "cut", "config": {"stage_id": "limit", "parameters": {"limit": 5}}},
        ]});
        Plan::parse(&RetrieverSpec::from_body(body.as_object().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn without_executions_parameters_bound_the_stages() {
        let sizes = |documents: usize| {
            let all = estimates(&plan(), documents, &[]);
            all.iter().map(|e| (e.input, e.output)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(1_000), [(1_000, 40), (40, 5)]);
        assert_eq!(sizes(3), [(3, 3), (3, 3)]);
        assert_eq!(sizes(0), [(0, 0), (0, 0)]);
    }
}
