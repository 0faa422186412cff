//! Retrieval: a retriever's JSON becomes a [`Plan`], a plan executed over a [`Backend`] becomes an [`Execution`].
//!
//! A plan carries a working set of documents through its stages. Everything that is wrong with a retriever and can be
//! known without data is refused when the plan is made, with the stage and the place; what depends on inputs is refused
//! with the input's name. Stages are values in one [`registry`](stages::registry), and adding one is a file there and a
//! line in it.
//!
//! This module knows no SQL, no index and no HTTP: all it reads comes through the backend, which shows one caller's
//! namespace and nothing else.

pub mod backend;
mod conditions;
mod execute;
#[cfg(test)]
mod fake;
pub mod fusion;
mod inputs;
pub mod learning;
pub mod limits;
pub mod metrics;
pub mod pagination;
mod params;
mod plan;
pub mod provenance;
mod pushdown;
mod snapshot;
mod spelling;
pub mod stages;
pub mod template;
#[cfg(test)]
mod tests;
pub mod view;

pub use backend::{
    Backend, Call, CollectionInfo, Lookup, Media, Rate, Reply, Rows, Scored, SearchQuery, SqlPart, StoredPlan, unread,
};
pub use conditions::{FilterTemplate, Relaxation};
pub use execute::{
    Degraded, ExecuteRequest, Execution, Group, Interpretation, LimitEntry, StageEvent, StageReport, Status,
};
pub use inputs::InputSchema;
pub use pagination::{PageRequest, unknown_keys};
pub use plan::{Plan, PlannedStage, RetrieverSpec};
pub use pushdown::Pushdown;
pub use snapshot::Snapshot;
pub(crate) use stages::context;
pub use stages::{Category, StageDefinition, missing_secret, registry};

use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use strata_model::Fields;
use strata_model::document::Document;

/// A document in the working set.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    pub document: Document,
    /// `None` until a stage has scored it.
    pub score: Option<f64>,
    /// Further scores by name, such as `rerank`, seen by later stages as `scores.<name>`.
    pub scores: Fields,
    /// The value it was grouped by.
    pub group: Option<Value>,
    /// Where each search that found it had placed it.
    pub searches: Vec<SearchPlace>,
    /// Where each stage has put it.
    pub movements: Vec<Movement>,
}

impl Hit {
    pub fn new(document: Document) -> Self {
        Self { document, score: None, scores: Fields::new(), group: None, searches: Vec::new(), movements: Vec::new() }
    }
}

/// A document's place in the ranking of one search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchPlace {
    /// Name of the stage.
    pub stage: String,
    /// Index in the stage's `searches`.
    pub search: usize,
    /// The feature URI that was searched, or `lexical`.
    pub feature: String,
    /// From 1.
    pub rank: usize,
    /// Raw score of that search.
    pub score: f32,
    /// What it adds to the fused score; of `max`, what it would be alone.
    pub share: f64,
    /// The approved weight set that the weight of the search is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_set_id: Option<Arc<str>>,
}

/// A document's places, from 0, before and after a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Movement {
    /// Name of the stage.
    pub stage: String,
    /// `None` where the stage brought it in.
    pub from: Option<usize>,
    pub to: usize,
    /// Its score after the stage.
    pub score: Option<f64>,
}
