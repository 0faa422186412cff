//! What an execution would do, without executing it: what is read from where, how many documents satisfy the filters that
//! come first, and for the rest sizes and times as past executions had them, or else the bounds that the stages' parameters
//! set.

use super::{
    Retriever,
    backend::ScopedBackend,
    history::{Outcome, Record},
};
use crate::{
    Engine,
    listing::ListRequest,
    retrieval::{Backend, CollectionInfo, Plan, PlannedStage, Pushdown, StageReport},
};
use serde_json::Value;
use std::sync::Arc;
use strata_model::{Error, Fields, Reader, Result, Scope, filter::Filter};
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
    /// Documents in the collections that it reads, but for soft-deleted ones, which no execution finds.
    pub documents: usize,
    /// Of those, what satisfies the filters before the first stage that reads documents; counted, not estimated. `None`
    /// where inputs are missing that they read.
    pub matching: Option<usize>,
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
    /// How it is answered: where from, and together with what.
    pub notes: Vec<String>,
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
        let inputs = match inputs.is_empty() {
            true => plan.input_schema.check(inputs).unwrap_or_default(),
            false => plan.input_schema.check(inputs)?,
        };
        let backend = ScopedBackend::new(self.clone(), scope.clone());
        let collections = backend.collections(&plan.collection_identifiers).await?;
        let pushdown = plan.pushdown(&inputs)?;
        let documents = self.counted(scope, &collections, Filter::all()).await?;
        let matching = match pushdown.as_ref().and_then(|pushed| pushed.filter.as_ref()) {
            Some(filter) if filter.is_empty() => Some(documents),
            Some(filter) => Some(self.counted(scope, &collections, filter.clone()).await?),
            None => None,
        };
        let request = ListRequest { limit: MAX_SAMPLE, ..ListRequest::default() };
        let same = |record: &Record| {
            record.retriever_id.as_deref() == Some(retriever.id.as_str())
                && record.outcome == Outcome::Completed
                && record.created_at >= retriever.updated_at
        };
        let sample = self.memory.history.page(scope, &request, same).items;
        let mut stages = estimates(&plan, documents, matching, pushdown.as_ref(), &sample);
        if let Some(pushed) = &pushdown {
            note_pushdown(&mut stages, pushed, documents, matching);
            if let Some(filter) = pushed.filter.as_ref().filter(|filter| pushed.searches && !filter.is_empty()) {
                stages[pushed.stage].notes.extend(self.filtering(&scope.reader, &collections, filter).await?);
            }
        }
        Ok(Explanation { documents, matching, stages, sample: sample.len(), retriever, plan })
    }

    async fn counted(&self, scope: &Scope, collections: &[CollectionInfo], filter: Filter) -> Result<usize> {
        let (of, ids) = (scope.clone(), collections.iter().map(|c| c.collection_id.clone()).collect::<Vec<_>>());
        let count = self.catalog.read(move |connection| {
            let counts =
                ids.iter().map(|id| browse::count(connection, &of, Selection::of(Some(id), &filter).findable()));
            counts.sum::<Result<i64>>()
        });
        Ok(usize::try_from(count.await?).unwrap_or(0))
    }

    /// Who finds the documents that satisfy a search's filter, in each collection.
    async fn filtering(
        self: &Arc<Self>,
        reader: &Reader,
        collections: &[CollectionInfo],
        filter: &Filter,
    ) -> Result<Vec<String>> {
        let (engine, reader) = (self.clone(), reader.clone());
        let (collections, filter) = (collections.to_vec(), filter.clone());
        let work = move || {
            let note = |collection: &CollectionInfo| {
                let name = &collection.collection_name;
                Ok(match engine.index.can_filter(&collection.collection_id, &reader, &filter)? {
                    true => format!("in `{name}` the index filters while it searches"),
                    false => format!("in `{name}` the catalog finds the documents first, then the index ranks them"),
                })
            };
            collections.iter().map(note).collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// Says of the stages which of them are answered together, and how many documents that leaves.
fn note_pushdown(stages: &mut [StageEstimate], pushed: &Pushdown, documents: usize, matching: Option<usize>) {
    let (before, rest) = stages.split_at_mut(pushed.stage);
    let Some(reader) = rest.first_mut() else { return };
    for stage in before.iter_mut() {
        stage.notes.push(format!("answered with stage `{}`, which reads only what satisfies it", reader.name));
    }
    if !before.is_empty() {
        let names: Vec<String> = before.iter().map(|stage| format!("`{}`", stage.name)).collect();
        reader.notes.push(format!("takes over the conditions of {}", names.join(", ")));
    }
    match (&pushed.filter, matching) {
        (Some(filter), Some(matching)) if !filter.is_empty() => {
            reader.notes.push(format!("{matching} of {documents} documents satisfy its conditions (counted)"));
        }
        (None, _) => reader.notes.push("its conditions read inputs that were not sent, so nothing was counted".into()),
        _ => {}
    }
}

fn estimates(
    plan: &Plan,
    documents: usize,
    matching: Option<usize>,
    pushdown: Option<&Pushdown>,
    sample: &[Record],
) -> Vec<StageEstimate> {
    let mut input = documents;
    let mut estimates = Vec::with_capacity(plan.stages.len());
    for (place, planned) in plan.stages.iter().enumerate() {
        let past: Vec<&StageReport> =
            sample.iter().flat_map(|r| &r.stages).filter(|s| s.name == planned.name).collect();
        let mean = |value: fn(&StageReport) -> f64| {
            let sum: f64 = past.iter().map(|report| value(report)).sum();
            (!past.is_empty()).then(|| sum / past.len() as f64)
        };
        let past_output = mean(|report| report.output_count as f64).map(|n| n.round() as usize);
        let reader = pushdown.filter(|pushed| place <= pushed.stage);
        let output = match (reader, matching) {
            // It hands on no documents, only a condition.
            (Some(pushed), _) if place < pushed.stage => matching.unwrap_or(input),
            (Some(_), Some(matching)) => past_output.unwrap_or_else(|| bound(planned, matching)).min(matching),
            _ => past_output.unwrap_or_else(|| bound(planned, input)),
        };
        let estimate = StageEstimate {
            name: planned.name.clone(),
            stage_id: planned.definition.stage_id,
            stage_type: planned.definition.category.as_str(),
            input,
            output: output.min(input),
            duration_ms: mean(|report| report.duration_ms).unwrap_or(0.0),
            notes: vec![match past.len() {
                0 => "no execution is remembered: sizes are bounds and times are not estimated".to_owned(),
                count => format!("means of {count} executions"),
            }],
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
            let all = estimates(&plan(), documents, None, None, &[]);
            all.iter().map(|e| (e.input, e.output)).collect::<Vec<_>>()
        };
        assert_eq!(sizes(1_000), [(1_000, 40), (40, 5)]);
        assert_eq!(sizes(3), [(3, 3), (3, 3)]);
        assert_eq!(sizes(0), [(0, 0), (0, 0)]);
        let pushed = Pushdown { stage: 0, searches: true, filter: Some(Filter::all()) };
        let counted = estimates(&plan(), 1_000, Some(7), Some(&pushed), &[]);
        assert_eq!((counted[0].output, counted[1].input), (7, 7), "what satisfies the filter is counted");
    }
}
