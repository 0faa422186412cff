//! What an execution gives, and what it tells on the way.

use crate::retrieval::Hit;
use crate::retrieval::conditions::Relaxation;
use serde::Serialize;
use serde_json::{Value, json};
use strata_model::{Error, Fields};

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

/// Progress, for streams.
#[derive(Debug)]
pub enum StageEvent<'e> {
    Started { index: usize, total: usize, name: &'e str },
    Completed { index: usize, total: usize, report: &'e StageReport, hits: &'e [Hit] },
    Failed { index: usize, total: usize, name: &'e str, error: &'e Error },
}
