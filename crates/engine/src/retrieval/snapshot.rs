//! What an execution had after one of its stages, kept so that an equal execution can go on from there.
//!
//! A snapshot's key names everything that led to it but the documents: the namespace, the collections as they are named, the
//! stages up to its own, the inputs and the filter. That the documents are still the same is for the backend to see.

use super::execute::{LimitEntry, StageReport};
use super::plan::Plan;
use super::{Hit, Relaxation};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use strata_model::{Fields, id};

/// The state of an execution between two stages. Only what is complete is kept: nothing was left out or has failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub(super) hits: Vec<Hit>,
    pub(super) reports: Vec<StageReport>,
    pub(super) warnings: Vec<String>,
    pub(super) limits: Vec<LimitEntry>,
    pub(super) relaxations: Vec<Relaxation>,
    pub(super) facets: Vec<Value>,
    pub(super) context: Fields,
    pub(super) results: Fields,
    /// Unix time in seconds.
    pub(super) made_at: f64,
}

impl Snapshot {
    /// About how many bytes it takes in memory.
    pub fn weight(&self) -> usize {
        let hits: usize = self.hits.iter().map(weight_of_hit).sum();
        let reports = self.reports.iter().map(|r| r.name.len() + weight_of_fields(&r.metadata) + 128).sum::<usize>();
        let notes = self.warnings.iter().map(|w| w.len() + 24).sum::<usize>();
        let facets: usize = self.facets.iter().map(weight_of).sum();
        256 + hits + reports + notes + facets + weight_of_fields(&self.context) + weight_of_fields(&self.results)
    }
}

fn weight_of_hit(hit: &Hit) -> usize {
    let document = &hit.document;
    let blobs = document.source_blobs.len() + document.document_blobs.len();
    let steps = hit.searches.len() + hit.movements.len() + document.lineage.chain.len();
    let metadata = weight_of_fields(&document.internal_metadata);
    640 + weight_of_fields(&document.fields) + weight_of_fields(&hit.scores) + metadata + 256 * blobs + 96 * steps
}

/// About how many bytes fields take in memory.
pub(super) fn weight_of_fields(fields: &Fields) -> usize {
    fields.iter().map(|(name, value)| name.len() + 24 + weight_of(value)).sum()
}

/// About how many bytes a value takes in memory.
pub(super) fn weight_of(value: &Value) -> usize {
    32 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight_of).sum(),
        Value::Object(fields) => weight_of_fields(fields),
        _ => 0,
    }
}

/// Where a plan may begin and end: the stages after which a snapshot is worth keeping, with their keys.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Index of the stage, and its key, in the order of the stages.
    pub kept: Vec<(usize, String)>,
}

/// Of each stage of a plan a hash of the collections, as they are named, and of the stages up to it.
pub(super) fn prefixes(plan: &Plan) -> Vec<String> {
    let mut hash = Sha256::new();
    hash.update(json!(plan.collection_identifiers).to_string());
    let stages = plan.stages.iter().enumerate().map(|(index, planned)| {
        // The name is in the reports, and what a stage leaves unread depends on what follows it.
        let stage = json!([planned.name, planned.json, plan.search_follows(index)]);
        hash.update(strata_model::canonical(&stage));
        hex::encode(hash.clone().finalize())
    });
    stages.collect()
}

/// What an execution is asked, as one text; with a plan's last prefix it names the query.
pub(super) fn asked(inputs: &Fields, filters: Option<&Value>) -> String {
    strata_model::canonical(&json!([inputs, filters]))
}

/// A hash of a prefix of a plan and of what is asked of it.
pub(super) fn key(prefix: &str, asked: &str) -> String {
    hex::encode(id::sha256_parts(&[prefix.as_bytes(), asked.as_bytes()]))
}

impl Places {
    /// The places of a plan that is asked this. A stage that need not give the same twice ends them.
    pub fn of(plan: &Plan, asked: &str) -> Self {
        let mut kept = Vec::new();
        let last = plan.stages.len().saturating_sub(1);
        for (index, (planned, prefix)) in plan.stages.iter().zip(&plan.prefixes).enumerate() {
            // Another retriever may change without a document changing.
            if !planned.cache.is_allowed || !planned.stage.is_repeatable() || planned.stage.nests() {
                break;
            }
            if index == last || planned.stage.is_costly() {
                kept.push((index, key(prefix, asked)));
            }
        }
        Self { kept }
    }

    pub fn key(&self, index: usize) -> Option<&str> {
        self.kept.iter().find(|(at, _)| *at == index).map(|(_, key)| key.as_str())
    }

    /// The keys, the one that saves most first.
    pub fn keys(&self) -> Vec<String> {
        self.kept.iter().rev().map(|(_, key)| key.clone()).collect()
    }

    /// The stage after which the snapshot of `key` was made.
    pub fn stage(&self, key: &str) -> Option<usize> {
        self.kept.iter().find(|(_, own)| own == key).map(|(index, _)| *index)
    }
}
