//! Executing a plan: the working set goes through the stages, each timed, counted and bounded, and every hit remembers
//! where it was.

use super::backend::Backend;
use super::conditions::Relaxation;
use super::pagination::PageRequest;
use super::plan::{OnError, Plan, PlannedStage};
use super::snapshot::{self, Places, Snapshot};
use super::stages::{Notes, Run, WorkingSet};
use super::template::Variables;
use super::{Hit, Movement, view};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use strata_model::filter::Filter;
use strata_model::{Error, Fields, Result};
use tokio::time::{Instant, timeout_at};

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

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Completed,
    /// Something was left out; `degraded` says what.
    Degraded,
}

/// Something that was left out of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Degraded {
    pub resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub reason: String,
    pub next_step: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// A bound that cut a request short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitEntry {
    pub name: String,
    pub requested: usize,
    pub applied: usize,
    pub ceiling: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// How the inputs were understood.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Interpretation {
    pub provided_input_keys: Vec<String>,
    /// Inputs that were used in a way the retriever does not state.
    pub inferred_inputs: Fields,
    /// Inputs that nothing reads.
    pub ignored_input_keys: Vec<String>,
    pub relaxations: Vec<Relaxation>,
}

/// What a stage did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub stage_id: &'static str,
    pub input_count: usize,
    pub output_count: usize,
    pub duration_ms: f64,
    /// Output per input; 1 for a stage that brought documents in.
    pub efficiency: f64,
    /// Whether its result was kept from an earlier execution.
    pub cache_hit: bool,
    /// Why the stage was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub metadata: Fields,
}

/// A group of the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Group<'e> {
    pub key: Value,
    pub hits: Vec<&'e Hit>,
}

/// What an execution gives.
#[derive(Debug)]
pub struct Execution {
    pub status: Status,
    /// The page, best first.
    pub hits: Vec<Hit>,
    /// The answer's `pagination`.
    pub pagination: Fields,
    /// Hits before the page was cut.
    pub total: usize,
    /// In the order of the stages; fewer where the time ran out.
    pub stages: Vec<StageReport>,
    pub facets: Vec<Value>,
    /// What learned fusion did, where a stage has it: that of the first such stage.
    pub learned_fusion: Option<Value>,
    pub warnings: Vec<String>,
    pub degraded: Vec<Degraded>,
    pub limits: Vec<LimitEntry>,
    pub interpretation: Interpretation,
    /// The inputs with their defaults.
    pub inputs: Fields,
    pub total_ms: f64,
    /// When the result was made, in Unix seconds, where all of it was kept from an earlier execution.
    pub cached_at: Option<f64>,
}

impl Execution {
    /// The page by group, or `None` where no stage has grouped it.
    pub fn groups(&self) -> Option<Vec<Group<'_>>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for hit in &self.hits {
            let key = hit.group.as_ref()?;
            match groups.iter_mut().find(|g| g.key == *key) {
                Some(group) => group.hits.push(hit),
                None => groups.push(Group { key: key.clone(), hits: vec![hit] }),
            }
        }
        (!groups.is_empty()).then_some(groups)
    }

    /// The answer's `stage_statistics`.
    pub fn statistics(&self) -> Value {
        let stages: Fields = self.stages.iter().map(|s| (s.name.clone(), json!(s))).collect();
        json!({"stages": stages, "total_time_ms": self.total_ms, "credits_used": 0.0})
    }
}

/// Progress, for streams.
#[derive(Debug)]
pub enum StageEvent<'e> {
    Started { index: usize, total: usize, name: &'e str },
    Completed { index: usize, total: usize, report: &'e StageReport, hits: &'e [Hit] },
    Failed { index: usize, total: usize, name: &'e str, error: &'e Error },
}

/// Milliseconds with their fraction.
pub(super) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Plan {
    /// Executes the plan. What the caller sent wrong is an [`Error::Invalid`]; what ran out of time or was not there is
    /// left out and reported in `degraded`. A filter is never left out: documents that it has not seen are not given.
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
        if let Some(inner) = sent.get("filters").filter(|f| !used("filters") && (f.is_object() || f.is_array())) {
            // Some clients can send nothing but inputs and put the filter of an execution there.
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

    fn deadline(&self, started: Instant, asked: Option<Duration>) -> Option<Instant> {
        let own = self.max_time_ms.filter(|ms| *ms > 0).map(Duration::from_millis);
        let shortest = match (own, asked) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        started.checked_add(shortest?)
    }
}

fn once(relaxations: Vec<Relaxation>) -> Vec<Relaxation> {
    let mut seen = BTreeSet::new();
    relaxations.into_iter().filter(|r| seen.insert(r.condition.clone())).collect()
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

impl<'j> Journey<'j> {
    /// What an earlier execution has left of this one, and the last of its stages.
    async fn recall(&self) -> Option<(usize, Arc<Snapshot>)> {
        let keys = self.places.keys();
        if keys.is_empty() {
            return None;
        }
        let (key, snapshot) = self.backend.recall(&keys).await?;
        Some((self.places.stage(&key)?, snapshot))
    }

    /// Takes over what a snapshot says about its stages.
    fn report_all(&mut self, snapshot: &Snapshot) {
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

    fn go_on_from(&mut self, snapshot: &Snapshot) {
        self.report_all(snapshot);
        self.context.clone_from(&snapshot.context);
        self.results.clone_from(&snapshot.results);
        if self.plan.reads_results() {
            self.variables = self.variables.with_results(&self.context, &self.results);
        }
        self.set = WorkingSet::Read(snapshot.hits.clone());
    }

    /// Leaves the result of a stage to later executions, if it is complete and worth it.
    fn keep(&self, index: usize, hits: Vec<Hit>) {
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

    /// Executes the stages from `first` on.
    async fn travel(&mut self, first: usize) -> Result<()> {
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

/// A stage between its `pre_filters` and its `post_filters`, unless it applies them itself.
async fn filtered(run: &mut Run<'_>, planned: &PlannedStage, set: WorkingSet) -> Result<WorkingSet> {
    let pre = if planned.stage.searches() { None } else { run.pre_filters.take() };
    let set = narrowed(run, pre, set).await?;
    let set = planned.stage.run(run, set).await?;
    let post = run.post_filters.take();
    narrowed(run, post, set).await
}

async fn narrowed(run: &mut Run<'_>, template: Option<&super::FilterTemplate>, set: WorkingSet) -> Result<WorkingSet> {
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
