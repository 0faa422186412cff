//! Recorded sessions: the queries of a user, and what the user did with their results.

use super::{BenchmarkFilter, MAX_INPUT_BYTES, SampleStrategy};
use crate::{
    Engine,
    interactions::{inputs, weight},
    retrieval::metrics::Judgments,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use strata_model::{Fields, Result, Scope};
use strata_store::catalog::interactions::{self as rows, Interaction};

/// Most interactions that sessions are made from, the newest.
const MAX_INTERACTIONS: usize = 200_000;

/// What one user looked for in one visit.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The session's id, or the execution's where it has none.
    pub id: String,
    pub queries: Vec<Query>,
    /// The type of interaction that says most.
    pub strongest: String,
    /// Nodes of taxonomies that its interactions name in their metadata.
    pub taxonomy_nodes: BTreeSet<String>,
}

/// One query of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub inputs: Fields,
    pub targets: Vec<Target>,
    /// The targets with their weights.
    pub judgments: Judgments,
}

/// A document that the user did something with.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub document_id: String,
    /// Where it was shown, from 0.
    pub position: usize,
    pub is_purchased: bool,
}

/// Sessions as they are gathered.
#[derive(Default)]
struct Gathered {
    seen: usize,
    /// Of the inputs, as JSON.
    bytes: usize,
    /// Sessions by id, and how many are before each in the order of their newest interaction.
    sessions: HashMap<String, Draft>,
}

#[derive(Default)]
struct Draft {
    order: usize,
    interactions: usize,
    kinds: BTreeSet<String>,
    taxonomy_nodes: BTreeSet<String>,
    queries: BTreeMap<String, DraftQuery>,
}

#[derive(Default)]
struct DraftQuery {
    inputs: Fields,
    /// By document: weight, position, whether it was purchased.
    targets: BTreeMap<String, (f64, usize, bool)>,
}

/// How much a type of interaction says, from the caller's weights where there are any.
fn weight_of(kind: &str, own: &BTreeMap<String, f64>) -> f64 {
    own.get(kind).copied().unwrap_or_else(|| weight(kind))
}

impl Gathered {
    /// Takes an interaction in; answers whether there is room for more.
    fn add(&mut self, interaction: Interaction, filter: &BenchmarkFilter) -> bool {
        self.seen += 1;
        let Some(id) = interaction.session_id.clone().or_else(|| interaction.execution_id.clone()) else {
            return self.seen < MAX_INTERACTIONS;
        };
        let order = self.sessions.len();
        let session = self.sessions.entry(id).or_insert_with(|| Draft { order, ..Draft::default() });
        session.interactions += 1;
        session.kinds.extend(interaction.types.iter().cloned());
        session.taxonomy_nodes.extend(taxonomy_nodes(&interaction));
        let weights = interaction.types.iter().map(|kind| weight_of(kind, &filter.weights));
        let weight = weights.fold(0.0, f64::max);
        if let Some(inputs) = inputs(&interaction).filter(|_| weight > 0.0) {
            let text = strata_model::canonical(&json!(inputs));
            let bytes = text.len();
            let query = session.queries.entry(text).or_default();
            if query.targets.is_empty() {
                self.bytes += bytes;
                query.inputs = inputs;
            }
            let position = interaction.fields.get("position").and_then(Value::as_u64).unwrap_or(0);
            let position = usize::try_from(position).unwrap_or(usize::MAX);
            let is_purchased = interaction.types.iter().any(|kind| kind == "purchase");
            let target = query.targets.entry(interaction.feature_id).or_insert((weight, position, is_purchased));
            target.0 = target.0.max(weight);
            target.2 |= is_purchased;
        }
        self.seen < MAX_INTERACTIONS && self.bytes <= MAX_INPUT_BYTES
    }

    /// The sessions that the filter lets through, the newest first.
    fn finish(self, filter: &BenchmarkFilter) -> Vec<Session> {
        let mut drafts: Vec<(String, Draft)> = self.sessions.into_iter().collect();
        drafts.sort_by_key(|(_, draft)| draft.order);
        let kept = drafts.into_iter().filter(|(_, draft)| {
            let has = |wanted: &[String], own: &BTreeSet<String>| {
                wanted.is_empty() || wanted.iter().any(|one| own.contains(one))
            };
            !draft.queries.is_empty()
                && draft.interactions >= filter.min_interactions
                && has(&filter.interaction_types, &draft.kinds)
                && has(&filter.taxonomy_node_ids, &draft.taxonomy_nodes)
        });
        kept.map(|(id, draft)| session(id, draft, filter)).collect()
    }
}

fn session(id: String, draft: Draft, filter: &BenchmarkFilter) -> Session {
    let strength = |kind: &&String| weight_of(kind, &filter.weights);
    let strongest = draft.kinds.iter().max_by(|a, b| strength(a).total_cmp(&strength(b))).cloned().unwrap_or_default();
    let query = |draft: DraftQuery| Query {
        judgments: Judgments::new(draft.targets.iter().map(|(id, (weight, ..))| (id.clone(), *weight))),
        targets: draft
            .targets
            .into_iter()
            .map(|(document_id, (_, position, is_purchased))| Target { document_id, position, is_purchased })
            .collect(),
        inputs: draft.inputs,
    };
    Session {
        id,
        queries: draft.queries.into_values().map(query).collect(),
        strongest,
        taxonomy_nodes: draft.taxonomy_nodes,
    }
}

/// `taxonomy_node_id`, a text, and `taxonomy_node_ids`, a list, of an interaction's metadata.
fn taxonomy_nodes(interaction: &Interaction) -> Vec<String> {
    let Some(metadata) = interaction.fields.get("metadata") else { return Vec::new() };
    let one = metadata.get("taxonomy_node_id").and_then(Value::as_str);
    let many = metadata.get("taxonomy_node_ids").and_then(Value::as_array).into_iter().flatten();
    one.into_iter().chain(many.filter_map(Value::as_str)).map(str::to_owned).collect()
}

impl Engine {
    /// At most `count` of the recorded sessions with these retrievers that the filter lets through.
    pub(super) async fn sessions(
        &self,
        scope: &Scope,
        retriever_ids: Vec<String>,
        filter: &BenchmarkFilter,
        count: usize,
        seed: u64,
    ) -> Result<Vec<Session>> {
        let (scope, filter) = (scope.clone(), filter.clone());
        self.catalog
            .read(move |connection| {
                let mut gathered = Gathered::default();
                let time = (filter.since.as_deref(), filter.until.as_deref());
                rows::visit(connection, &scope, &retriever_ids, time, |interaction| {
                    gathered.add(interaction, &filter)
                })?;
                Ok(sampled(gathered.finish(&filter), filter.sample_strategy, count, seed))
            })
            .await
    }
}

/// `count` of the sessions, which come newest first.
fn sampled(mut sessions: Vec<Session>, strategy: SampleStrategy, count: usize, seed: u64) -> Vec<Session> {
    if sessions.len() <= count {
        return sessions;
    }
    let mut chance = fastrand::Rng::with_seed(seed);
    match strategy {
        SampleStrategy::Recent => {}
        SampleStrategy::Random => chance.shuffle(&mut sessions),
        SampleStrategy::Stratified => {
            chance.shuffle(&mut sessions);
            sessions = in_proportion(sessions);
        }
    }
    sessions.truncate(count);
    sessions
}

/// The sessions in an order whose every beginning has the kinds of sessions in about the same parts as the whole.
fn in_proportion(sessions: Vec<Session>) -> Vec<Session> {
    let mut strata: BTreeMap<String, Vec<Session>> = BTreeMap::new();
    for session in sessions {
        strata.entry(session.strongest.clone()).or_default().push(session);
    }
    let mut placed: Vec<(f64, Session)> = Vec::new();
    for stratum in strata.into_values() {
        let size = stratum.len() as f64;
        placed.extend(stratum.into_iter().enumerate().map(|(place, session)| ((place as f64 + 0.5) / size, session)));
    }
    placed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    placed.into_iter().map(|(_, session)| session).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn interaction(session: &str, document: &str, kind: &str, position: u64, query: &str) -> Interaction {
        let fields = json!({
            "position": position,
            "query_snapshot": { "query": query },
            "metadata": { "taxonomy_node_id": "node_1" },
        });
        Interaction {
            seq: 0,
            interaction_id: String::new(),
            retriever_id: None,
            execution_id: None,
            session_id: Some(session.to_owned()),
            user_id: None,
            feature_id: document.to_owned(),
            types: vec![kind.to_owned()],
            occurred_at: String::new(),
            timestamp: String::new(),
            fields: fields.as_object().cloned().unwrap(),
            traced: None,
        }
    }

    fn gathered(list: Vec<Interaction>, filter: &BenchmarkFilter) -> Vec<Session> {
        let mut all = Gathered::default();
        for interaction in list {
            all.add(interaction, filter);
        }
        all.finish(filter)
    }

    #[test]
    fn interactions_become_sessions_of_queries() {
        let filter = BenchmarkFilter::default();
        let list = vec![
            interaction("s2", "d9", "impression", 0, "x"),
            interaction("s1", "d1", "click", 3, "a"),
            interaction("s1", "d1", "purchase", 3, "a"),
            interaction("s1", "d2", "click", 0, "b"),
        ];
        let sessions = gathered(list.clone(), &filter);
        assert_eq!(sessions.len(), 1, "a session of impressions says nothing");
        let session = &sessions[0];
        assert_eq!((session.id.as_str(), session.strongest.as_str(), session.queries.len()), ("s1", "purchase", 2));
        assert_eq!(session.queries[0].targets, [Target { document_id: "d1".into(), position: 3, is_purchased: true }]);
        assert_eq!(session.queries[0].judgments.grade("d1"), 5.0);
        assert!(session.taxonomy_nodes.contains("node_1"));
        let few = BenchmarkFilter { min_interactions: 4, ..BenchmarkFilter::default() };
        assert!(gathered(list.clone(), &few).is_empty());
        let kinds = BenchmarkFilter { interaction_types: vec!["share".into()], ..BenchmarkFilter::default() };
        assert!(gathered(list.clone(), &kinds).is_empty());
        let weights = BTreeMap::from([("impression".to_owned(), 0.1)]);
        let own = BenchmarkFilter { weights, ..BenchmarkFilter::default() };
        assert_eq!(gathered(list, &own)[0].id, "s2", "the newest first");
    }

    #[test]
    fn samples_keep_what_they_promise() {
        let of = |kind: &str, count: usize| {
            let list = (0..count).map(|n| interaction(&format!("{kind}{n}"), "d", kind, 0, "q")).collect();
            gathered(list, &BenchmarkFilter::default())
        };
        let all: Vec<Session> = of("click", 80).into_iter().chain(of("purchase", 20)).collect();
        let recent = sampled(all.clone(), SampleStrategy::Recent, 3, 1);
        assert_eq!(recent.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["click0", "click1", "click2"]);
        let random = sampled(all.clone(), SampleStrategy::Random, 10, 1);
        assert_eq!(random, sampled(all.clone(), SampleStrategy::Random, 10, 1), "a seed repeats the choice");
        let even = sampled(all, SampleStrategy::Stratified, 10, 1);
        assert_eq!(even.iter().filter(|s| s.strongest == "purchase").count(), 2);
    }
}
