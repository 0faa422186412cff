//! Benchmarks: recorded sessions are replayed on a baseline and on candidates, and the rankings compared with what users
//! did. Sessions are the unit of every comparison, so that a talkative user counts once.

use super::{
    enter, seed,
    sessions::Session,
    statistics::{bootstrap_interval, mean, paired_t_test, quantile},
};
use crate::{
    Engine,
    interactions::check_kind,
    retrieval::metrics::{Metric, measure},
    retrievers::{Prepared, Retriever},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strata_model::{Error, Fields, Result, Scope, id};
use strata_store::catalog::experiments::{self as rows, Experiment, Kind, Selection};

const MAX_NAME_CHARS: usize = 255;
const MAX_CANDIDATES: usize = 10;
/// Most entries of a list of the filter.
const MAX_FILTERED: usize = 100;
/// Hits of each replayed query, at most.
const DEPTH: usize = 100;
/// Cuts at which rankings are measured.
const CUTS: [usize; 4] = [1, 5, 10, 20];
/// The place of 10 among the cuts; differences are tested there.
const AT_10: usize = 2;
/// Probability by chance below which a difference counts; of several that are tested together each has its part of it
/// (Bonferroni).
const SIGNIFICANCE: f64 = 0.05;
/// Most taxonomy nodes that results are told for, those of most sessions.
const MAX_NODES: usize = 100;
/// Differences of nDCG that are none.
const NEUTRAL: f64 = 1e-9;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SampleStrategy {
    #[default]
    Random,
    Recent,
    /// Sessions with purchases, with clicks and so on in the parts that they have of all.
    Stratified,
}

/// Which sessions are replayed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkFilter {
    /// Ids or names; empty means the baseline and the candidates.
    pub retriever_ids: Vec<String>,
    /// Sessions whose interactions name one of these in their metadata.
    pub taxonomy_node_ids: Vec<String>,
    /// Times as the catalog spells them.
    pub since: Option<String>,
    pub until: Option<String>,
    pub min_interactions: usize,
    /// Sessions that have an interaction of one of these types.
    pub interaction_types: Vec<String>,
    pub sample_strategy: SampleStrategy,
    /// How much types of interactions say, where it is not the usual.
    pub weights: BTreeMap<String, f64>,
}

/// A benchmark that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewBenchmark {
    pub name: String,
    /// Ids or names of retrievers.
    pub baseline: String,
    pub candidates: Vec<String>,
    pub filter: BenchmarkFilter,
    /// The filter as it was sent, for answers.
    pub shown_filter: Value,
    pub session_count: usize,
}

/// How well rankings fit what users did.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct AlignmentMetrics {
    ndcg_at_k: BTreeMap<String, f64>,
    /// From 1, of the documents that users did something with; one that is not among the hits counts as the one after the
    /// last of [`DEPTH`].
    mean_rank_clicked: f64,
    mean_rank_purchased: Option<f64>,
    recall_at_k: BTreeMap<String, f64>,
    /// Places that documents moved from where they were shown; negative is towards the first.
    avg_position_delta: f64,
    items_promoted: usize,
    items_demoted: usize,
    /// By nDCG at 10, beside the baseline.
    sessions_improved: usize,
    sessions_degraded: usize,
    sessions_neutral: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct LatencyMetrics {
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    mean_ms: f64,
    stage_latencies: BTreeMap<String, f64>,
}

/// A session as one retriever ranked it.
#[derive(Debug, Clone, Default, PartialEq)]
struct Replayed {
    /// Means over the session's queries, at each cut.
    ndcg: [f64; CUTS.len()],
    recall: [f64; CUTS.len()],
    /// Of each target: place from 0, where it was shown, whether it was purchased.
    places: Vec<(usize, usize, bool)>,
    times_ms: Vec<f64>,
    stages_ms: Vec<(String, f64)>,
}

/// A retriever of the benchmark with what it did; `None` for sessions that failed.
struct Contender {
    retriever: Retriever,
    prepared: Prepared,
    sessions: Vec<Option<Replayed>>,
    errors: BTreeMap<String, usize>,
}

impl NewBenchmark {
    fn check(&self) -> Result<()> {
        if self.name.trim().is_empty() || self.name.chars().count() > MAX_NAME_CHARS {
            return Err(Error::invalid("benchmark_name", format!("must have 1 to {MAX_NAME_CHARS} characters")));
        }
        if !(1..=MAX_CANDIDATES).contains(&self.candidates.len()) {
            let message = format!("must hold 1 to {MAX_CANDIDATES} retrievers");
            return Err(Error::invalid("candidate_retriever_ids", message));
        }
        for (name, list) in [
            ("retriever_ids", &self.filter.retriever_ids),
            ("taxonomy_node_ids", &self.filter.taxonomy_node_ids),
            ("interaction_types", &self.filter.interaction_types),
        ] {
            if list.len() > MAX_FILTERED {
                let at = format!("session_filter.{name}");
                return Err(Error::invalid(at, format!("must hold at most {MAX_FILTERED} values")));
            }
        }
        for (i, kind) in self.filter.interaction_types.iter().enumerate() {
            check_kind(kind, &format!("session_filter.interaction_types.{i}"))?;
        }
        for (kind, weight) in &self.filter.weights {
            let at = format!("session_filter.interaction_weights.weights.{kind}");
            check_kind(kind, &at)?;
            if !(0.0..=1e6).contains(weight) {
                return Err(Error::invalid(at, "must be from 0 to 1000000"));
            }
        }
        Ok(())
    }
}

impl Engine {
    /// Queues a benchmark.
    pub async fn create_benchmark(&self, scope: &Scope, new: NewBenchmark) -> Result<Experiment> {
        new.check()?;
        let baseline = self.contender(scope, &new.baseline, "baseline_retriever_id").await?;
        let mut candidates: Vec<String> = Vec::new();
        for (i, name) in new.candidates.iter().enumerate() {
            let candidate = self.contender(scope, name, &format!("candidate_retriever_ids.{i}")).await?;
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
        let mut filter = new.filter;
        let mut recorded = Vec::with_capacity(filter.retriever_ids.len());
        for (i, name) in filter.retriever_ids.iter().enumerate() {
            recorded.push(self.contender(scope, name, &format!("session_filter.retriever_ids.{i}")).await?);
        }
        filter.retriever_ids = recorded;
        let now = self.catalog.now();
        let mut body = Fields::new();
        for (key, value) in [
            ("benchmark_name", json!(new.name)),
            ("baseline_retriever_id", json!(baseline)),
            ("candidate_retriever_ids", json!(candidates)),
            ("session_filter", new.shown_filter),
            ("_filter", json!(filter)),
            ("session_count", json!(new.session_count)),
            ("_session_count", json!(new.session_count)),
            (rows::READER, json!(scope.reader)),
        ] {
            body.insert(key.to_owned(), value);
        }
        let experiment = Experiment {
            experiment_id: self.catalog.new_id(id::BENCHMARK, 16),
            organization_id: scope.organization_id.clone(),
            namespace_id: scope.namespace_id.clone(),
            kind: Kind::Benchmark,
            retriever_id: baseline,
            status: "pending".into(),
            task_id: None,
            attempts: 0,
            body,
            created_at: now.clone(),
            updated_at: now,
        };
        let made = experiment.clone();
        self.catalog.write(move |tx| rows::insert(tx, &experiment)).await?;
        self.experiments.wake();
        Ok(made)
    }

    /// The id of a retriever that a benchmark names at `at`.
    async fn contender(&self, scope: &Scope, name: &str, at: &str) -> Result<String> {
        match self.retriever(scope, name).await {
            Ok(retriever) => self.retriever_plan(&retriever).map(|_| retriever.id),
            Err(Error::Missing { .. }) => Err(Error::invalid(at, format!("the retriever `{name}` does not exist"))),
            Err(other) => Err(other),
        }
    }

    pub async fn benchmark(&self, scope: &Scope, benchmark_id: &str) -> Result<Experiment> {
        let (scope, id) = (scope.clone(), benchmark_id.to_owned());
        self.catalog.read(move |c| rows::get(c, &scope, Kind::Benchmark, &id)).await
    }

    /// A page of the benchmarks, newest first, and how many there are.
    pub async fn benchmarks(
        &self,
        scope: &Scope,
        selection: Selection,
        part: (usize, usize),
    ) -> Result<(Vec<Experiment>, i64)> {
        let selection = match &selection.retriever_id {
            Some(name) => {
                let id = match self.retriever(scope, name).await {
                    Ok(found) => found.id,
                    Err(Error::Missing { .. }) => name.clone(),
                    Err(other) => return Err(other),
                };
                Selection { retriever_id: Some(id), ..selection }
            }
            None => selection,
        };
        let scope = scope.clone();
        self.catalog.read(move |c| rows::list(c, &scope, Kind::Benchmark, selection, part)).await
    }

    /// Removes a benchmark, running or not.
    pub async fn delete_benchmark(&self, scope: &Scope, benchmark_id: &str) -> Result<()> {
        let (scope, id) = (scope.clone(), benchmark_id.to_owned());
        self.catalog.write(move |tx| rows::delete(tx, &scope, Kind::Benchmark, &id)).await?;
        self.experiments.cancel(benchmark_id);
        Ok(())
    }
}

/// Replays, and writes the results into the experiment's body.
pub(super) async fn run(engine: &Arc<Engine>, experiment: &mut Experiment) -> Result<()> {
    experiment.body.insert("started_at".into(), engine.catalog.now().into());
    if !enter(engine, experiment, "building_sessions").await? {
        return Ok(());
    }
    let scope = experiment.scope();
    let mut contenders = contenders(engine, &scope, &experiment.body).await?;
    let filter = experiment.body.remove("_filter").unwrap_or_default();
    let mut filter: BenchmarkFilter = serde_json::from_value(filter).map_err(Error::internal)?;
    // Kept until the end: an attempt that is cut short must find it again.
    experiment.body.insert("_filter".into(), json!(filter));
    filter.min_interactions = filter.min_interactions.max(1);
    let recorded = match filter.retriever_ids.is_empty() {
        true => contenders.iter().map(|contender| contender.retriever.id.clone()).collect(),
        false => filter.retriever_ids.clone(),
    };
    let wanted = experiment.body.get("_session_count").and_then(Value::as_u64).unwrap_or(0);
    let chance = seed(&[&experiment.experiment_id]);
    let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
    let sessions = engine.sessions(&scope, recorded, &filter, wanted, chance).await?;
    if sessions.is_empty() {
        let message = "no recorded session fits: interactions need a session or an execution, and known inputs";
        return Err(Error::Conflict(message.into()));
    }
    experiment.body.insert("session_count".into(), sessions.len().into());
    if !enter(engine, experiment, "replaying").await? {
        return Ok(());
    }
    for contender in &contenders {
        engine.wait_for_index(&scope, &contender.prepared.plan).await?;
    }
    replay_all(engine, &scope, &mut contenders, &sessions).await;
    if !enter(engine, experiment, "computing_metrics").await? {
        return Ok(());
    }
    let compared = move || results(&contenders, &sessions, chance);
    let (results, comparison) = tokio::task::spawn_blocking(compared).await.map_err(Error::internal)?;
    experiment.body.insert("results".into(), results);
    experiment.body.insert("comparison".into(), comparison);
    Ok(())
}

/// The baseline, then the candidates.
async fn contenders(engine: &Arc<Engine>, scope: &Scope, body: &Fields) -> Result<Vec<Contender>> {
    let candidates = body.get("candidate_retriever_ids").and_then(Value::as_array).into_iter().flatten();
    let named = body.get("baseline_retriever_id").into_iter().chain(candidates).filter_map(Value::as_str);
    let mut contenders = Vec::new();
    for name in named {
        let retriever = engine.retriever(scope, name).await?;
        let plan = engine.retriever_plan(&retriever)?;
        let prepared = Prepared { retriever: Some(retriever.clone()), plan };
        contenders.push(Contender { retriever, prepared, sessions: Vec::new(), errors: BTreeMap::new() });
    }
    Ok(contenders)
}

/// Replays session after session on one retriever after the other, so that whatever slows the machine slows all alike.
async fn replay_all(engine: &Arc<Engine>, scope: &Scope, contenders: &mut [Contender], sessions: &[Session]) {
    for contender in contenders.iter() {
        // What is loaded at the first use does not count.
        if let Some(query) = sessions.first().and_then(|session| session.queries.first()) {
            drop(engine.replay(scope, &contender.prepared, query.inputs.clone(), DEPTH, 0).await);
        }
    }
    let count = contenders.len();
    for (number, session) in sessions.iter().enumerate() {
        // Each is first as often as the others: what the first loads is there for the next.
        for turn in 0..count {
            let contender = &mut contenders[(number + turn) % count];
            let outcome = replay(engine, scope, &contender.prepared, session).await;
            if let Err(error) = &outcome {
                *contender.errors.entry(kind_of(error).to_owned()).or_default() += 1;
            }
            contender.sessions.push(outcome.ok());
        }
    }
}

fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::Malformed(_) | Error::Invalid(_) => "invalid_inputs",
        Error::Missing { .. } => "not_found",
        Error::Busy { .. } => "busy",
        Error::Unavailable(_) => "unavailable",
        Error::Upstream(_) => "upstream",
        _ => "internal",
    }
}

async fn replay(engine: &Arc<Engine>, scope: &Scope, prepared: &Prepared, session: &Session) -> Result<Replayed> {
    let mut replayed = Replayed::default();
    for query in &session.queries {
        let chance = seed(&[&session.id]);
        let execution = engine.replay(scope, prepared, query.inputs.clone(), DEPTH, chance).await?;
        let ranking: Vec<String> = execution.hits.iter().map(|hit| hit.document.document_id.clone()).collect();
        for (at, k) in CUTS.into_iter().enumerate() {
            let part = session.queries.len() as f64;
            replayed.ndcg[at] += measure(Metric::Ndcg, &ranking, &query.judgments, k) / part;
            replayed.recall[at] += measure(Metric::Recall, &ranking, &query.judgments, k) / part;
        }
        for target in &query.targets {
            // What is not among the hits has not come nearer, wherever it was shown.
            let found = ranking.iter().position(|id| *id == target.document_id);
            let place = found.unwrap_or(DEPTH.max(target.position));
            replayed.places.push((place, target.position, target.is_purchased));
        }
        replayed.times_ms.push(execution.total_ms);
        replayed.stages_ms.extend(execution.stages.into_iter().map(|stage| (stage.name, stage.duration_ms)));
    }
    Ok(replayed)
}

/// `results` and `comparison` of the answer.
fn results(contenders: &[Contender], sessions: &[Session], seed: u64) -> (Value, Value) {
    let Some((baseline, candidates)) = contenders.split_first() else { return (Value::Null, Value::Null) };
    let nodes = nodes(sessions);
    let results: Vec<Value> = contenders
        .iter()
        .map(|contender| {
            let of_nodes: BTreeMap<&String, AlignmentMetrics> =
                nodes.iter().map(|(node, members)| (node, alignment(contender, baseline, members))).collect();
            json!({
                "retriever_id": contender.retriever.id,
                "retriever_name": contender.retriever.name,
                "pipeline_hash": pipeline_hash(contender),
                "metrics": alignment(contender, baseline, &(0..sessions.len()).collect::<Vec<_>>()),
                "taxonomy_deltas": (!of_nodes.is_empty()).then_some(of_nodes),
                "latency": latency(contender),
                "failed_sessions": contender.sessions.iter().filter(|session| session.is_none()).count(),
                "error_summary": contender.errors,
            })
        })
        .collect();
    let comparisons: Vec<Comparison> =
        candidates.iter().map(|candidate| compared(baseline, candidate, &nodes, seed)).collect();
    let comparison = json!({
        "baseline_retriever_id": baseline.retriever.id,
        "recommendation": recommendation(baseline, candidates, &comparisons),
        "comparisons": comparisons,
    });
    (json!(results), comparison)
}

/// Sessions by taxonomy node.
fn nodes(sessions: &[Session]) -> Vec<(String, Vec<usize>)> {
    let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, session) in sessions.iter().enumerate() {
        for node in &session.taxonomy_nodes {
            members.entry(node.clone()).or_default().push(number);
        }
    }
    let mut nodes: Vec<(String, Vec<usize>)> = members.into_iter().collect();
    nodes.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    nodes.truncate(MAX_NODES);
    nodes
}

fn pipeline_hash(contender: &Contender) -> String {
    let plan = &contender.prepared.plan;
    let pipeline = json!({ "collections": plan.collection_identifiers, "stages": plan.stages_json() });
    id::sha256_hex(pipeline.to_string().as_bytes())[..32].to_owned()
}

/// A retriever's metrics over some of the sessions.
fn alignment(contender: &Contender, baseline: &Contender, members: &[usize]) -> AlignmentMetrics {
    let own: Vec<&Replayed> = members.iter().filter_map(|i| contender.sessions.get(*i)?.as_ref()).collect();
    let at_cuts = |of: fn(&Replayed) -> &[f64; CUTS.len()]| {
        let at = |(at, k): (usize, usize)| (k.to_string(), mean(&own.iter().map(|r| of(r)[at]).collect::<Vec<_>>()));
        CUTS.into_iter().enumerate().map(at).collect()
    };
    let places: Vec<(usize, usize, bool)> = own.iter().flat_map(|replayed| replayed.places.iter().copied()).collect();
    let rank = |(place, ..): &(usize, usize, bool)| *place as f64 + 1.0;
    let purchased: Vec<f64> = places.iter().filter(|(.., is_purchased)| *is_purchased).map(rank).collect();
    let moves: Vec<f64> = places.iter().map(|(place, shown, _)| *place as f64 - *shown as f64).collect();
    let differences: Vec<f64> = differences(baseline, contender, members).map(|(ndcg, _)| ndcg[AT_10]).collect();
    let improved = differences.iter().filter(|difference| **difference > NEUTRAL).count();
    let degraded = differences.iter().filter(|difference| **difference < -NEUTRAL).count();
    AlignmentMetrics {
        ndcg_at_k: at_cuts(|replayed| &replayed.ndcg),
        mean_rank_clicked: mean(&places.iter().map(rank).collect::<Vec<_>>()),
        mean_rank_purchased: (!purchased.is_empty()).then(|| mean(&purchased)),
        recall_at_k: at_cuts(|replayed| &replayed.recall),
        avg_position_delta: mean(&moves),
        items_promoted: moves.iter().filter(|by| **by < 0.0).count(),
        items_demoted: moves.iter().filter(|by| **by > 0.0).count(),
        sessions_improved: improved,
        sessions_degraded: degraded,
        sessions_neutral: differences.len() - improved - degraded,
    }
}

type AtCuts = [f64; CUTS.len()];

/// Candidate minus baseline, of nDCG and recall, for the sessions in which neither failed.
fn differences<'c>(
    baseline: &'c Contender,
    candidate: &'c Contender,
    members: &'c [usize],
) -> impl Iterator<Item = (AtCuts, AtCuts)> + 'c {
    members.iter().filter_map(|i| {
        let (before, after) = (baseline.sessions.get(*i)?.as_ref()?, candidate.sessions.get(*i)?.as_ref()?);
        let minus = |a: &AtCuts, b: &AtCuts| std::array::from_fn(|at| a[at] - b[at]);
        Some((minus(&after.ndcg, &before.ndcg), minus(&after.recall, &before.recall)))
    })
}

fn latency(contender: &Contender) -> LatencyMetrics {
    let done = || contender.sessions.iter().flatten();
    let mut times: Vec<f64> = done().flat_map(|replayed| replayed.times_ms.iter().copied()).collect();
    times.sort_by(f64::total_cmp);
    let mut stages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (name, time) in done().flat_map(|replayed| replayed.stages_ms.iter().cloned()) {
        stages.entry(name).or_default().push(time);
    }
    LatencyMetrics {
        p50_ms: quantile(&times, 0.5),
        p90_ms: quantile(&times, 0.9),
        p99_ms: quantile(&times, 0.99),
        mean_ms: mean(&times),
        stage_latencies: stages.into_iter().map(|(name, times)| (name, mean(&times))).collect(),
    }
}

/// A candidate beside the baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Comparison {
    candidate_retriever_id: String,
    ndcg_delta: BTreeMap<String, f64>,
    recall_delta: BTreeMap<String, f64>,
    latency_delta_ms: f64,
    /// Of nDCG at 10, by the paired t-test over sessions.
    p_value: Option<f64>,
    /// Of the difference of nDCG at 10, 95 percent.
    confidence_interval: Option<[f64; 2]>,
    taxonomy_wins: Vec<String>,
    taxonomy_losses: Vec<String>,
}

impl Comparison {
    fn gain(&self) -> f64 {
        self.ndcg_delta.get(&CUTS[AT_10].to_string()).copied().unwrap_or(0.0)
    }
    /// Where it is one of so many.
    fn is_significant(&self, tests: usize) -> bool {
        self.p_value.is_some_and(|p| p < SIGNIFICANCE / tests as f64)
    }
}

fn compared(baseline: &Contender, candidate: &Contender, nodes: &[(String, Vec<usize>)], seed: u64) -> Comparison {
    let all: Vec<usize> = (0..baseline.sessions.len()).collect();
    let pairs: Vec<(AtCuts, AtCuts)> = differences(baseline, candidate, &all).collect();
    let at_cuts = |of: fn(&(AtCuts, AtCuts)) -> &AtCuts| {
        let at = |(at, k): (usize, usize)| (k.to_string(), mean(&pairs.iter().map(|p| of(p)[at]).collect::<Vec<_>>()));
        CUTS.into_iter().enumerate().map(at).collect()
    };
    let at_10: Vec<f64> = pairs.iter().map(|(ndcg, _)| ndcg[AT_10]).collect();
    let (mut wins, mut losses) = (BTreeSet::new(), BTreeSet::new());
    for (node, members) in nodes {
        let own: Vec<f64> = differences(baseline, candidate, members).map(|(ndcg, _)| ndcg[AT_10]).collect();
        if paired_t_test(&own).is_some_and(|p| p < SIGNIFICANCE / nodes.len() as f64) {
            let told = if mean(&own) > 0.0 { &mut wins } else { &mut losses };
            told.insert(node.clone());
        }
    }
    Comparison {
        candidate_retriever_id: candidate.retriever.id.clone(),
        ndcg_delta: at_cuts(|(ndcg, _)| ndcg),
        recall_delta: at_cuts(|(_, recall)| recall),
        latency_delta_ms: latency(candidate).mean_ms - latency(baseline).mean_ms,
        p_value: paired_t_test(&at_10),
        confidence_interval: bootstrap_interval(&at_10, seed).map(|(low, high)| [low, high]),
        taxonomy_wins: wins.into_iter().collect(),
        taxonomy_losses: losses.into_iter().collect(),
    }
}

fn recommendation(baseline: &Contender, candidates: &[Contender], comparisons: &[Comparison]) -> String {
    let better =
        candidates.iter().zip(comparisons).filter(|(_, c)| c.is_significant(comparisons.len()) && c.gain() > 0.0);
    let best = better.max_by(|(_, a), (_, b)| a.gain().total_cmp(&b.gain()));
    match best {
        Some((candidate, comparison)) => format!(
            "Use `{}`: its nDCG@10 is higher by {:.4} (p = {:.4}), and it takes {:+.1} ms.",
            candidate.retriever.name,
            comparison.gain(),
            comparison.p_value.unwrap_or(1.0),
            comparison.latency_delta_ms
        ),
        None => {
            format!(
                "Keep `{}`: no candidate has a higher nDCG@10 beyond what chance explains.",
                baseline.retriever.name
            )
        }
    }
}
