//! What was executed lately. It lives in memory only: a restart forgets it, and so does a namespace that has run more
//! than [`MAX_RECORDS`] executions since, or that was not used for longest when more than [`MAX_NAMESPACES`] were.

use crate::{
    listing::{ListRequest, Page},
    retrieval::{Degraded, LimitEntry, StageReport, Status},
};
use lru::LruCache;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::VecDeque, num::NonZeroUsize};
use strata_model::{Fields, Reader, Scope, id};

/// Most executions that one namespace remembers.
pub const MAX_RECORDS: usize = 1_000;
/// Most namespaces whose executions are remembered.
pub const MAX_NAMESPACES: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Characters of a query that its record keeps.
const MAX_SUMMARY_CHARS: usize = 200;

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    /// Something was left out.
    Degraded,
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
        }
    }
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        match status {
            Status::Completed => Self::Completed,
            Status::Degraded => Self::Degraded,
        }
    }
}

/// One execution, without its documents.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub execution_id: String,
    /// Whose eyes it found documents with; it is shown to those who see as much.
    pub reader: Reader,
    /// `None` where the retriever was sent along and is not stored.
    pub retriever_id: Option<String>,
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<String>,
    /// RFC 3339.
    pub created_at: String,
    pub completed_at: String,
    pub duration_ms: f64,
    /// Stages that came to their end.
    pub stages: Vec<StageReport>,
    pub total_stages: usize,
    /// Documents in the largest working set.
    pub processed: usize,
    /// Hits before the page was cut.
    pub found: usize,
    /// Hits of the page.
    pub returned: usize,
    /// Collections as the plan names them; empty means all.
    pub collections: Vec<String>,
    /// The beginning of the input that looks like a query.
    pub query_summary: Option<String>,
    pub inputs_hash: String,
    pub warnings: Vec<String>,
    pub degraded: Vec<Degraded>,
    pub limits: Vec<LimitEntry>,
    /// What learned fusion did, where a stage has it.
    pub learned_fusion: Option<Value>,
}

impl Record {
    /// The share of the stages, from 0 to 1, whose results were kept from an earlier execution; `None` where no stage came to
    /// its end.
    pub fn cache_hit_rate(&self) -> Option<f64> {
        let kept = self.stages.iter().filter(|stage| stage.cache_hit).count();
        (!self.stages.is_empty()).then(|| kept as f64 / self.stages.len() as f64)
    }

    /// The record as filters and sorts of lists see it.
    pub fn view(&self) -> Fields {
        let view = json!({
            "execution_id": self.execution_id,
            "retriever_id": self.retriever_id,
            "status": self.outcome.as_str(),
            "created_at": self.created_at,
            "timestamp": self.created_at,
            "completed_at": self.completed_at,
            "duration_ms": self.duration_ms,
            "total_processed": self.processed,
            "total_returned": self.returned,
            "cache_hit_rate": self.cache_hit_rate(),
            "query_summary": self.query_summary,
            "inputs_hash": self.inputs_hash,
        });
        match view {
            Value::Object(view) => view,
            _ => unreachable!("the value was written as an object"),
        }
    }
}

/// The input that says what was looked for, cut short.
pub(super) fn summary(inputs: &Fields) -> Option<String> {
    let named = ["query", "q", "text", "search"].iter().find_map(|name| inputs.get(*name)?.as_str());
    let text = named.or_else(|| inputs.values().find_map(Value::as_str))?;
    Some(text.chars().take(MAX_SUMMARY_CHARS).collect())
}

/// The same for the same inputs.
pub(super) fn inputs_hash(inputs: &Fields) -> String {
    let mut hash = id::sha256_hex(Value::Object(inputs.clone()).to_string().as_bytes());
    hash.truncate(32);
    hash
}

/// The executions of all namespaces, the newest last.
pub(super) struct History {
    namespaces: Mutex<LruCache<String, VecDeque<Record>>>,
}

impl Default for History {
    fn default() -> Self {
        Self { namespaces: Mutex::new(LruCache::new(MAX_NAMESPACES)) }
    }
}

impl History {
    pub fn add(&self, scope: &Scope, record: Record) {
        let mut namespaces = self.namespaces.lock();
        match namespaces.get_mut(&scope.namespace_id) {
            Some(records) => {
                if records.len() == MAX_RECORDS {
                    records.pop_front();
                }
                records.push_back(record);
            }
            None => drop(namespaces.put(scope.namespace_id.clone(), VecDeque::from([record]))),
        }
    }

    pub fn get(&self, scope: &Scope, execution_id: &str) -> Option<Record> {
        let mut namespaces = self.namespaces.lock();
        let records = namespaces.get(&scope.namespace_id)?;
        let is_it = |record: &&Record| record.execution_id == execution_id && scope.reader.covers(&record.reader);
        records.iter().rev().find(is_it).cloned()
    }

    /// A page of the records that `keep`, the newest first unless the request sorts them.
    pub fn page(&self, scope: &Scope, request: &ListRequest, keep: impl Fn(&Record) -> bool) -> Page<Record> {
        let kept: Vec<Record> = {
            let mut namespaces = self.namespaces.lock();
            let records = namespaces.get(&scope.namespace_id);
            records
                .into_iter()
                .flat_map(|records| records.iter().rev())
                .filter(|record| scope.reader.covers(&record.reader) && keep(record))
                .cloned()
                .collect()
        };
        request.page(kept, Record::view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(namespace: &str) -> Scope {
        Scope::whole("org", namespace)
    }

    fn record(number: usize) -> Record {
        Record {
            execution_id: format!("exec_{number}"),
            reader: Reader::Anyone,
            retriever_id: None,
            outcome: Outcome::Completed,
            error: None,
            created_at: String::new(),
            completed_at: String::new(),
            duration_ms: 1.0,
            stages: Vec::new(),
            total_stages: 1,
            processed: 0,
            found: 0,
            returned: 0,
            collections: Vec::new(),
            query_summary: None,
            inputs_hash: String::new(),
            warnings: Vec::new(),
            degraded: Vec::new(),
            limits: Vec::new(),
            learned_fusion: None,
        }
    }

    #[test]
    fn a_namespace_remembers_its_own_newest_thousand() {
        let history = History::default();
        (0..MAX_RECORDS + 2).for_each(|n| history.add(&scope("a"), record(n)));
        assert_eq!(history.get(&scope("a"), "exec_1"), None);
        assert!(history.get(&scope("a"), "exec_2").is_some());
        assert_eq!(history.get(&scope("b"), "exec_2"), None, "another namespace sees nothing");
        let ann = scope("a").seen_by(Reader::Principal("ann".into()));
        let own = Record { execution_id: "exec_own".into(), reader: ann.reader.clone(), ..record(0) };
        history.add(&ann, own);
        let bob = scope("a").seen_by(Reader::Principal("bob".into()));
        let sees = |scope: &Scope, id: &str| history.get(scope, id).is_some();
        assert!(sees(&ann, "exec_own") && sees(&scope("a"), "exec_own") && !sees(&bob, "exec_own"));
        assert!(
            sees(&ann, "exec_1001") && history.page(&bob, &ListRequest::default(), |_| true).total == MAX_RECORDS - 1
        );
        history.add(&scope("a"), record(MAX_RECORDS + 2));
        let page = history.page(&bob, &ListRequest { limit: 2, ..ListRequest::default() }, |_| true);
        let ids: Vec<&str> = page.items.iter().map(|r| r.execution_id.as_str()).collect();
        assert_eq!((ids, page.total), (vec!["exec_1002", "exec_1001"], MAX_RECORDS - 1));
    }

    #[test]
    fn the_query_among_the_inputs_is_summed_up() {
        let of = |inputs: Value| summary(inputs.as_object().unwrap());
        assert_eq!(of(json!({"a": "first", "query": "second"})), Some("second".into()));
        assert_eq!(of(json!({"n": 1, "topic": "é".repeat(300)})), Some("é".repeat(200)));
        assert_eq!(of(json!({"n": 1})), None);
        let hash = |inputs: Value| inputs_hash(inputs.as_object().unwrap());
        assert_ne!(hash(json!({"a": 1})), hash(json!({"a": 2})));
    }
}
