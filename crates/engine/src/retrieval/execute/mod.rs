//! Executing a plan: the working set goes through the stages, each timed, counted and bounded, and every hit remembers
//! where it was.

mod journey;
mod outcome;
mod recall;

pub use outcome::{Degraded, Execution, Group, Interpretation, LimitEntry, StageEvent, StageReport, Status};

use super::Hit;
use super::backend::Backend;
use super::conditions::Relaxation;
use super::pagination::PageRequest;
use super::plan::Plan;
use super::snapshot::{self, Places};
use super::stages::{Notes, WorkingSet};
use super::template::Variables;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use strata_model::filter::Filter;
use strata_model::{Fields, Result};
use tokio::time::Instant;

/// One execution of a plan.
#[derive(Debug, Clone, Default)]
pub struct ExecuteRequest {
    pub inputs: Fields,
    /// A filter that every document must satisfy besides the stages'.
    pub filters: Option<Value>,
    pub page: PageRequest,
    /// How long it may take; the plan's own `max_time_ms` counts too.
    pub time_limit: Option<Duration>,
    /// Whether stages are executed though their results are kept; what they give is kept then.
    pub skip_cache: bool,
    /// Unix time in microseconds, for scroll ids and the age of what is kept.
    pub now_micros: i64,
    /// A random number, for stages that choose by chance and were not given a seed.
    pub chance: u64,
    /// Ids of the retrievers that are being executed, the outermost first, this one included; an empty text for one that is
    /// not stored. None of them is executed once more within this execution.
    pub within: Vec<String>,
}

/// An execution under way.
struct Journey<'j> {
    plan: &'j Plan,
    backend: &'j dyn Backend,
    observer: &'j (dyn Fn(StageEvent<'_>) + Send + Sync),
    places: Places,
    deadline: Option<Instant>,
    chance: u64,
    now_micros: i64,
    within: Vec<String>,
    variables: Variables,
    set: WorkingSet,
    notes: Notes,
    reports: Vec<StageReport>,
    context: Fields,
    results: Fields,
}

impl Plan {
    /// Executes the plan. What the caller sent wrong is an [`Error::Invalid`]; what ran out of time or was not there is
    /// left out and reported in `degraded`. A filter is never left out: documents that it has not seen are not given.
    ///
    /// [`Error::Invalid`]: strata_model::Error::Invalid
    pub async fn execute(&self, backend: &dyn Backend, request: ExecuteRequest) -> Result<Execution> {
        self.execute_observed(backend, request, &|_| {}).await
    }

    /// [`Plan::execute`], telling `observer` about each stage as it starts and ends.
    pub async fn execute_observed(
        &self,
        backend: &dyn Backend,
        request: ExecuteRequest,
        observer: &(dyn Fn(StageEvent<'_>) + Send + Sync),
    ) -> Result<Execution> {
        let started = Instant::now();
        let (inputs, filter, interpretation) = self.understand(request.inputs, request.filters.as_ref())?;
        let asked = snapshot::asked(&inputs, request.filters.as_ref());
        // Cursors carry it, and need not be as long.
        let mut query = snapshot::key(self.prefixes.last().map_or("", String::as_str), &asked);
        query.truncate(24);
        let now = request.now_micros / 1_000_000;
        request.page.check(&query, now)?;
        let mut journey = Journey {
            plan: self,
            backend,
            observer,
            places: Places::of(self, &asked),
            deadline: self.deadline(started, request.time_limit),
            chance: request.chance,
            now_micros: request.now_micros,
            within: request.within,
            variables: Variables::new(inputs.clone(), &Fields::new(), &Fields::new()),
            set: WorkingSet::Unread(filter),
            notes: Notes { warnings: self.warnings.clone(), ..Notes::default() },
            reports: Vec::new(),
            context: Fields::new(),
            results: Fields::new(),
        };
        let recalled = if request.skip_cache { None } else { journey.recall().await };
        let first = recalled.as_ref().map_or(0, |(stage, _)| stage + 1);
        let cached_at = recalled.as_ref().filter(|_| first == self.stages.len()).map(|(_, snapshot)| snapshot.made_at);
        let cut = |hits: &[Hit]| -> Result<_> { Ok((hits.len(), request.page.cut(hits, &query, now)?)) };
        let (total, page) = match recalled {
            Some((_, snapshot)) if cached_at.is_some() => {
                journey.report_all(&snapshot);
                cut(&snapshot.hits)?
            }
            recalled => {
                if let Some((_, snapshot)) = recalled {
                    journey.go_on_from(&snapshot);
                }
                journey.travel(first).await?;
                match std::mem::replace(&mut journey.set, WorkingSet::Read(Vec::new())) {
                    WorkingSet::Read(hits) => {
                        let page = cut(&hits)?;
                        journey.keep(self.stages.len() - 1, hits);
                        page
                    }
                    // Only a skipped stage leaves the collections unread to the end, and then nothing was found.
                    WorkingSet::Unread(_) => cut(&[])?,
                }
            }
        };
        let Journey { notes, reports, .. } = journey;
        Ok(Execution {
            status: if notes.degraded.is_empty() { Status::Completed } else { Status::Degraded },
            hits: page.hits,
            pagination: page.answer,
            total,
            stages: reports,
            facets: notes.facets,
            learned_fusion: notes.learned.into_iter().next(),
            warnings: notes.warnings,
            degraded: notes.degraded,
            limits: notes.limits,
            interpretation: Interpretation { relaxations: once(notes.relaxations), ..interpretation },
            inputs,
            total_ms: millis(started.elapsed()),
            cached_at,
        })
    }

    /// Checks inputs and filters, and says how they are understood.
    fn understand(&self, sent: Fields, filters: Option<&Value>) -> Result<(Fields, Filter, Interpretation)> {
        let mut filter = Filter::parse(filters.unwrap_or(&Value::Null), "filters")?;
        let read = self.input_names();
        let used = |name: &str| self.input_schema.declares(name) || read.contains(name);
        let provided_input_keys: Vec<String> = sent.keys().cloned().collect();
        let mut inferred_inputs = Fields::new();
        if let Some(inner) = self.filter_in_inputs(&sent) {
            filter = filter.and(Filter::parse(inner, "inputs.filters")?);
            inferred_inputs.insert("filters".into(), "used as the filter of the execution".into());
        }
        let ignored = |name: &&String| !used(name) && !inferred_inputs.contains_key(*name);
        let ignored_input_keys = provided_input_keys.iter().filter(ignored).cloned().collect();
        let inputs = self.input_schema.check(sent)?;
        Ok((
            inputs,
            filter,
            Interpretation { provided_input_keys, inferred_inputs, ignored_input_keys, relaxations: Vec::new() },
        ))
    }

    /// The filter of an execution that stands among its inputs: some clients can send nothing else. Where the retriever has
    /// an input of that name it is none.
    pub fn filter_in_inputs<'i>(&self, inputs: &'i Fields) -> Option<&'i Value> {
        let is_input = self.input_schema.declares("filters") || self.input_names().contains("filters");
        inputs.get("filters").filter(|sent| !is_input && (sent.is_object() || sent.is_array()))
    }

    fn deadline(&self, started: Instant, asked: Option<Duration>) -> Option<Instant> {
        let own = self.max_time_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
        let shortest = match (own, asked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        started.checked_add(shortest?)
    }
}

impl Plan {
    /// Whether the stages after `index` come to a search before anything needs documents.
    pub(super) fn search_follows(&self, index: usize) -> bool {
        let mut after =
            self.stages.iter().skip(index + 1).skip_while(|s| s.stage.narrows() && s.output_alias.is_none());
        let own = self
            .stages
            .get(index)
            .is_some_and(|s| s.output_alias.is_none() && s.post_filters.as_ref().is_none_or(|f| !f.reads_documents()));
        own && after.next().is_some_and(|s| s.stage.searches())
    }

    fn reads_results(&self) -> bool {
        use super::template::Namespace;
        self.references.iter().any(|r| matches!(r.namespace, Namespace::Context | Namespace::Stage))
    }
}

fn once(relaxations: Vec<Relaxation>) -> Vec<Relaxation> {
    let mut seen = BTreeSet::new();
    relaxations.into_iter().filter(|r| seen.insert(r.condition.clone())).collect()
}

/// Milliseconds with their fraction.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
