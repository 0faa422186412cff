//! What an execution takes from earlier ones and leaves to later ones.

use super::{Journey, StageEvent, StageReport};
use crate::retrieval::Hit;
use crate::retrieval::snapshot::Snapshot;
use crate::retrieval::stages::WorkingSet;
use std::sync::Arc;

impl Journey<'_> {
    /// What an earlier execution has left of this one, and the last of its stages.
    pub(super) async fn recall(&self) -> Option<(usize, Arc<Snapshot>)> {
        let keys = self.places.keys();
        if keys.is_empty() {
            return None;
        }
        let (key, snapshot) = self.backend.recall(&keys).await?;
        Some((self.places.stage(&key)?, snapshot))
    }

    /// Takes over what a snapshot says about its stages.
    pub(super) fn report_all(&mut self, snapshot: &Snapshot) {
        let total = self.plan.stages.len();
        for (index, report) in snapshot.reports.iter().enumerate() {
            let report = StageReport { duration_ms: 0.0, cache_hit: true, ..report.clone() };
            (self.observer)(StageEvent::Started { index, total, name: &report.name });
            (self.observer)(StageEvent::Completed { index, total, report: &report, hits: &[] });
            self.reports.push(report);
        }
        self.notes.warnings.clone_from(&snapshot.warnings);
        self.notes.limits.clone_from(&snapshot.limits);
        self.notes.relaxations.clone_from(&snapshot.relaxations);
        self.notes.facets.clone_from(&snapshot.facets);
    }

    pub(super) fn go_on_from(&mut self, snapshot: &Snapshot) {
        self.report_all(snapshot);
        self.context.clone_from(&snapshot.context);
        self.results.clone_from(&snapshot.results);
        if self.plan.reads_results() {
            self.variables = self.variables.with_results(&self.context, &self.results);
        }
        self.set = WorkingSet::Read(snapshot.hits.clone());
    }

    /// Leaves the result of a stage to later executions, if it is complete and worth it.
    pub(super) fn keep(&self, index: usize, hits: Vec<Hit>) {
        let is_complete = self.notes.degraded.is_empty() && self.reports.len() > index;
        let Some(key) = self.places.key(index).filter(|_| is_complete) else { return };
        let snapshot = Snapshot {
            hits,
            reports: self.reports.clone(),
            warnings: self.notes.warnings.clone(),
            limits: self.notes.limits.clone(),
            relaxations: self.notes.relaxations.clone(),
            facets: self.notes.facets.clone(),
            context: self.context.clone(),
            results: self.results.clone(),
            made_at: self.now_micros as f64 / 1e6,
        };
        let ttl = self.plan.stages[..=index].iter().filter_map(|planned| planned.cache.ttl).min();
        self.backend.keep(key.to_owned(), Arc::new(snapshot), ttl);
    }
}
