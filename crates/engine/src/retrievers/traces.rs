//! What executions showed, for the interactions that name them: the inputs, the documents of the page and the searches
//! that found each. It lives in memory only, the newest of each namespace within [`MAX_BYTES`]; an interaction takes its
//! part along when it is stored.

use super::history::{MAX_NAMESPACES, MAX_RECORDS};
use crate::retrieval::{Execution, SearchPlace};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc};
use strata_model::{Fields, Scope};

/// Most memory that the traces of one namespace take, in bytes, estimated.
const MAX_BYTES: usize = 2 << 20;
/// Longest inputs that a trace keeps, in bytes of JSON.
const MAX_INPUT_BYTES: usize = 8 << 10;

/// What one execution showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// `None` where the retriever was sent along and is not stored.
    pub retriever_id: Option<String>,
    /// With their defaults; `None` where they were too long to keep.
    pub inputs: Option<Arc<Fields>>,
    /// Whether the execution had a filter besides, so that the inputs alone do not tell it.
    is_filtered: bool,
    /// Searches that found something.
    searches: Vec<Search>,
    hits: Vec<TracedHit>,
    bytes: usize,
}

/// A search of a stage, in one index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Search {
    /// Name of the stage.
    pub stage: String,
    /// Index in the stage's `searches`.
    pub search: usize,
    /// The feature URI that was searched, or `lexical`.
    pub feature: String,
}

#[derive(Debug, Clone, PartialEq)]
struct TracedHit {
    document_id: String,
    /// Indexes into the trace's searches, and ranks from 1.
    places: Vec<(u16, u32)>,
}

/// A document's rank in a search, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    #[serde(flatten)]
    pub search: Search,
    pub rank: u32,
}

/// What an interaction keeps of the execution that it names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Traced {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Arc<Fields>>,
    /// Whether the execution had a filter besides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_filtered: bool,
    /// The document's place in the page, from 0; `None` where it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The searches that found the document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<Found>,
}

impl Trace {
    pub fn of(retriever_id: Option<String>, is_filtered: bool, execution: &Execution) -> Self {
        let mut searches: Vec<Search> = Vec::new();
        let mut number = |place: &SearchPlace| {
            let is_same = |s: &Search| s.search == place.search && s.stage == place.stage && s.feature == place.feature;
            let known = searches.iter().position(is_same).unwrap_or_else(|| {
                let SearchPlace { stage, search, feature, .. } = place.clone();
                searches.push(Search { stage, search, feature });
                searches.len() - 1
            });
            u16::try_from(known).ok()
        };
        let mut hits = Vec::with_capacity(execution.hits.len());
        for hit in &execution.hits {
            let rank = |place: &SearchPlace| u32::try_from(place.rank).unwrap_or(u32::MAX);
            let places = hit.searches.iter().filter_map(|place| Some((number(place)?, rank(place)))).collect();
            hits.push(TracedHit { document_id: hit.document.document_id.clone(), places });
        }
        let length = Value::Object(execution.inputs.clone()).to_string().len();
        let inputs = (length <= MAX_INPUT_BYTES).then(|| Arc::new(execution.inputs.clone()));
        let of_hits: usize = hits.iter().map(|hit| 64 + hit.document_id.len() + hit.places.len() * 8).sum();
        // Values in memory take about three times their JSON.
        let of_inputs = if inputs.is_some() { length * 3 } else { 0 };
        let bytes = 256 + searches.len() * 128 + of_hits + of_inputs;
        Self { retriever_id, inputs, is_filtered, bytes, searches, hits }
    }

    /// What an interaction with the document keeps.
    pub fn of_document(&self, document_id: &str) -> Traced {
        let position = self.hits.iter().position(|hit| hit.document_id == document_id);
        let places = position.map_or(&[][..], |position| self.hits[position].places.as_slice());
        let found = |(search, rank): &(u16, u32)| {
            Some(Found { search: self.searches.get(usize::from(*search))?.clone(), rank: *rank })
        };
        let found = places.iter().filter_map(found).collect();
        Traced { inputs: self.inputs.clone(), is_filtered: self.is_filtered, position, found }
    }
}

/// The traces of one namespace, the newest last.
#[derive(Default)]
struct Shelf {
    traces: VecDeque<(String, Arc<Trace>)>,
    bytes: usize,
}

impl Shelf {
    fn add(&mut self, execution_id: String, trace: Trace) {
        self.bytes += trace.bytes;
        self.traces.push_back((execution_id, Arc::new(trace)));
        while self.bytes > MAX_BYTES || self.traces.len() > MAX_RECORDS {
            let Some((_, oldest)) = self.traces.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
    }
}

/// The traces of all namespaces.
pub(crate) struct Traces(Mutex<LruCache<String, Shelf>>);

impl Default for Traces {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_NAMESPACES)))
    }
}

impl Traces {
    pub fn add(&self, scope: &Scope, execution_id: String, trace: Trace) {
        let mut namespaces = self.0.lock();
        namespaces.get_or_insert_mut(scope.namespace_id.clone(), Shelf::default).add(execution_id, trace);
    }

    pub fn get(&self, scope: &Scope, execution_id: &str) -> Option<Arc<Trace>> {
        let mut namespaces = self.0.lock();
        let shelf = namespaces.get(&scope.namespace_id)?;
        shelf.traces.iter().rev().find(|(id, _)| id == execution_id).map(|(_, trace)| trace.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(namespace: &str) -> Scope {
        Scope::whole("org", namespace)
    }

    fn trace(bytes: usize) -> Trace {
        let search = Search { stage: "s".into(), search: 1, feature: "lexical".into() };
        let hit = TracedHit { document_id: "doc_1".into(), places: vec![(0, 7)] };
        Trace { retriever_id: None, inputs: None, is_filtered: false, searches: vec![search], hits: vec![hit], bytes }
    }

    #[test]
    fn a_document_of_an_execution_knows_its_searches() {
        let traced = trace(1).of_document("doc_1");
        assert_eq!((traced.position, traced.found[0].rank, traced.found[0].search.search), (Some(0), 7, 1));
        assert_eq!(trace(1).of_document("doc_2"), Traced::default());
        let json = serde_json::to_value(&traced).unwrap();
        assert_eq!(json["found"][0]["feature"], "lexical");
        assert_eq!(serde_json::from_value::<Traced>(json).unwrap(), traced);
    }

    #[test]
    fn a_namespace_remembers_its_newest_traces_within_its_memory() {
        let traces = Traces::default();
        for number in 0..5 {
            traces.add(&scope("a"), format!("exec_{number}"), trace(MAX_BYTES / 3));
        }
        assert!(traces.get(&scope("a"), "exec_1").is_none());
        assert!(traces.get(&scope("a"), "exec_2").is_some());
        assert!(traces.get(&scope("b"), "exec_2").is_none(), "another namespace sees nothing");
        traces.add(&scope("a"), "exec_big".into(), trace(MAX_BYTES * 2));
        assert!(traces.get(&scope("a"), "exec_big").is_none() && traces.get(&scope("a"), "exec_4").is_none());
        assert_eq!(traces.0.lock().get("a").unwrap().bytes, 0);
    }
}
