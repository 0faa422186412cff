//! The way of the working set through the stages.

use super::{Degraded, Journey, StageEvent, StageReport, millis};
use crate::retrieval::plan::{OnError, PlannedStage};
use crate::retrieval::stages::{Run, WorkingSet};
use crate::retrieval::{FilterTemplate, Movement, view};
use serde_json::{Value, json};
use std::collections::HashMap;
use strata_model::{Error, Fields, Result};
use tokio::time::{Instant, timeout_at};

impl Journey<'_> {
    /// Executes the stages from `first` on.
    pub(super) async fn travel(&mut self, first: usize) -> Result<()> {
        let plan = self.plan;
        let total = plan.stages.len();
        for (index, planned) in plan.stages.iter().enumerate().skip(first) {
            (self.observer)(StageEvent::Started { index, total, name: &planned.name });
            let started = Instant::now();
            let places = places(&self.set);
            let input_count = self.set.len();
            let fallback = (planned.on_error == OnError::Skip).then(|| self.set.clone());
            let mut metadata = Fields::new();
            let outcome = self.stage(index, planned, &mut metadata).await;
            let (set, error) = match (outcome, fallback) {
                (Ok(Some(set)), _) => (set, None),
                (Ok(None), _) => {
                    self.out_of_time(planned);
                    return Ok(());
                }
                (Err(error), Some(set)) => (self.skipped(planned, set, &error), Some(error.to_string())),
                (Err(error), None) => {
                    (self.observer)(StageEvent::Failed { index, total, name: &planned.name, error: &error });
                    return Err(error);
                }
            };
            self.set = set;
            self.moved(&planned.name, &places);
            let report = report(planned, input_count, self.set.len(), millis(started.elapsed()), error, metadata);
            self.remember(planned, &report);
            let hits = match &self.set {
                WorkingSet::Read(hits) => hits.as_slice(),
                WorkingSet::Unread(_) => &[],
            };
            (self.observer)(StageEvent::Completed { index, total, report: &report, hits });
            self.reports.push(report);
            if let WorkingSet::Read(hits) = &self.set
                && index + 1 < total
                && self.places.key(index).is_some()
            {
                self.keep(index, hits.clone());
            }
        }
        Ok(())
    }

    /// Runs one stage with its filters; `None` where the time ran out.
    async fn stage(
        &mut self,
        index: usize,
        planned: &PlannedStage,
        metadata: &mut Fields,
    ) -> Result<Option<WorkingSet>> {
        let set = std::mem::replace(&mut self.set, WorkingSet::Read(Vec::new()));
        let deadline = self.deadline;
        let mut run = Run {
            backend: self.backend,
            collections: &self.plan.collection_identifiers,
            variables: &self.variables,
            stage_name: &planned.name,
            deadline,
            search_follows: self.plan.search_follows(index),
            pre_filters: planned.pre_filters.as_ref(),
            post_filters: planned.post_filters.as_ref(),
            chance: self.chance,
            now_micros: self.now_micros,
            within: &self.within,
            metadata: Fields::new(),
            notes: &mut self.notes,
        };
        let work = filtered(&mut run, planned, set);
        let outcome = match deadline {
            Some(deadline) => timeout_at(deadline, work).await.map_or(Ok(None), |done| done.map(Some)),
            None => work.await.map(Some),
        };
        *metadata = std::mem::take(&mut run.metadata);
        outcome
    }

    /// The working set after a stage that failed and may. A search that should have brought documents in has found none.
    fn skipped(&mut self, planned: &PlannedStage, set: WorkingSet, error: &Error) -> WorkingSet {
        self.notes.warnings.push(format!("stage `{}` failed and was skipped: {error}", planned.name));
        self.notes.degraded.push(Degraded {
            resource: "stage".into(),
            id: Some(planned.name.clone()),
            reason: error.to_string(),
            next_step: "mend the stage, or set its `on_error` to `error` to have the execution fail".into(),
            stage: Some(planned.name.clone()),
        });
        match set {
            WorkingSet::Unread(_) if planned.stage.searches() => WorkingSet::Read(Vec::new()),
            set => set,
        }
    }

    /// Ends the execution with nothing: what is there has not passed the stage that was cut short.
    fn out_of_time(&mut self, planned: &PlannedStage) {
        self.set = WorkingSet::Read(Vec::new());
        self.notes.warnings.push(format!(
            "the time ran out in stage `{}`; its results and those of later stages are missing",
            planned.name
        ));
        self.notes.degraded.push(Degraded {
            resource: "stage".into(),
            id: Some(planned.name.clone()),
            reason: "the execution ran out of time".into(),
            next_step: "raise `budget_limits.max_time_ms`, or narrow the search".into(),
            stage: Some(planned.name.clone()),
        });
    }

    /// Notes where each hit was before the stage and is after it.
    fn moved(&mut self, stage: &str, before: &HashMap<i64, usize>) {
        let WorkingSet::Read(hits) = &mut self.set else { return };
        for (to, hit) in hits.iter_mut().enumerate() {
            let from = before.get(&hit.document.seq).copied();
            hit.movements.push(Movement { stage: stage.to_owned(), from, to, score: hit.score });
        }
    }

    /// Keeps a stage's result for the templates of later ones that read it.
    fn remember(&mut self, planned: &PlannedStage, report: &StageReport) {
        self.results.insert(planned.name.clone(), json!({"input_count": report.input_count, "output_count": report.output_count, "metadata": report.metadata}));
        if let (Some(alias), WorkingSet::Read(hits)) = (&planned.output_alias, &self.set) {
            let documents: Vec<Value> = hits.iter().map(|hit| Value::Object(view::field_view(hit))).collect();
            self.context.insert(alias.clone(), Value::Array(documents));
        }
        if self.plan.reads_results() {
            self.variables = self.variables.with_results(&self.context, &self.results);
        }
    }
}

/// A stage between its `pre_filters` and its `post_filters`, unless it applies them itself.
async fn filtered(run: &mut Run<'_>, planned: &PlannedStage, set: WorkingSet) -> Result<WorkingSet> {
    let pre = if planned.stage.searches() { None } else { run.pre_filters.take() };
    let set = narrowed(run, pre, set).await?;
    let set = planned.stage.run(run, set).await?;
    let post = run.post_filters.take();
    narrowed(run, post, set).await
}

async fn narrowed(run: &mut Run<'_>, template: Option<&FilterTemplate>, set: WorkingSet) -> Result<WorkingSet> {
    let Some(template) = template else { return Ok(set) };
    match set {
        WorkingSet::Unread(filter) if !template.reads_documents() => {
            Ok(WorkingSet::Unread(filter.and(run.filter(template)?)))
        }
        set => {
            let hits = run.read(set).await?;
            run.keep(hits, template).map(WorkingSet::Read)
        }
    }
}

fn places(set: &WorkingSet) -> HashMap<i64, usize> {
    match set {
        WorkingSet::Read(hits) => hits.iter().enumerate().map(|(place, hit)| (hit.document.seq, place)).collect(),
        WorkingSet::Unread(_) => HashMap::new(),
    }
}

fn report(
    planned: &PlannedStage,
    input_count: usize,
    output_count: usize,
    duration_ms: f64,
    error: Option<String>,
    metadata: Fields,
) -> StageReport {
    let efficiency = match (input_count, output_count) {
        (0, 0) => 0.0,
        (0, _) => 1.0,
        (input, output) => output as f64 / input as f64,
    };
    StageReport {
        name: planned.name.clone(),
        stage_id: planned.definition.stage_id,
        input_count,
        output_count,
        duration_ms,
        efficiency,
        cache_hit: false,
        error,
        metadata,
    }
}
