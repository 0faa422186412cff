//! The stages: one file each, and the registry that lists them.
//!
//! To add a stage, write its file with a `DEFINITION` and a [`Stage`], name it in [`REGISTRY`], and take its id out of
//! [`LATER`]. Spelling, templates in filters, statistics, deadlines and provenance are done around it.

mod aggregate;
mod api_call;
mod attribute_filter;
mod cluster;
mod code_execution;
mod cross_compare;
mod deduplicate;
mod document_enrich;
mod feature_search;
mod group_by;
mod json_transform;
mod limit;
mod maxsim_rerank;
mod mmr;
mod moment_group;
mod nested;
mod outside;
mod rag_prepare;
mod rerank;
mod sample;
mod score_normalize;
mod sort_attribute;
mod sort_relevance;
mod sql_lookup;
mod unwind;
mod web_scrape;
mod weight_set;

pub use outside::missing as missing_secret;

pub(crate) use feature_search::context;

use super::backend::{Backend, CollectionInfo};
use super::conditions::{FilterTemplate, Relaxation};
use super::execute::{Degraded, LimitEntry};
use super::params::Params;
use super::snapshot::weight_of_fields;
use super::template::Variables;
use super::{Hit, limits, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use strata_model::filter::Filter;
use strata_model::{Error, FieldError, Fields, Result};
use tokio::time::Instant;

/// What a stage does to the working set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Filter,
    Sort,
    Reduce,
    Apply,
    Enrich,
}

impl Category {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Sort => "sort",
            Self::Reduce => "reduce",
            Self::Apply => "apply",
            Self::Enrich => "enrich",
        }
    }
}

/// A kind of stage.
#[derive(Debug)]
pub struct StageDefinition {
    pub stage_id: &'static str,
    /// Older ids that mean this stage.
    pub aliases: &'static [&'static str],
    pub category: Category,
    pub description: &'static str,
    /// Name of a Lucide icon.
    pub icon: &'static str,
    /// JSON Schema of `parameters`.
    pub parameter_schema: fn() -> Value,
    /// Whether, as the first stage, it brings documents in; its filters then work on the index.
    pub(super) reads_collections: bool,
    pub(super) parse: fn(Draft<'_>, Params<'_>) -> Result<Arc<dyn Stage>>,
}

impl StageDefinition {
    /// The entry of `GET /v1/retrievers/stages`.
    pub fn to_json(&self) -> Value {
        json!({
            "stage_id": self.stage_id,
            "description": self.description,
            "category": self.category.as_str(),
            "icon": self.icon,
            "parameter_schema": (self.parameter_schema)(),
        })
    }
}

/// What a stage may know about its surroundings while it is parsed.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The id as sent; an alias may mean other defaults.
    pub stage_id: &'a str,
    pub first: bool,
    pub has_pre_filters: bool,
}

static REGISTRY: [StageDefinition; 24] = [
    feature_search::DEFINITION,
    attribute_filter::DEFINITION,
    sort_relevance::DEFINITION,
    sort_attribute::DEFINITION,
    rerank::DEFINITION,
    maxsim_rerank::DEFINITION,
    mmr::DEFINITION,
    score_normalize::DEFINITION,
    aggregate::DEFINITION,
    sample::DEFINITION,
    limit::DEFINITION,
    deduplicate::DEFINITION,
    group_by::DEFINITION,
    cluster::DEFINITION,
    moment_group::DEFINITION,
    json_transform::DEFINITION,
    rag_prepare::DEFINITION,
    unwind::DEFINITION,
    cross_compare::DEFINITION,
    document_enrich::DEFINITION,
    api_call::DEFINITION,
    sql_lookup::DEFINITION,
    web_scrape::DEFINITION,
    code_execution::DEFINITION,
];

/// Stages of the API that this version does not have.
const LATER: [&str; 9] = [
    "llm_filter",
    "query_expand",
    "agent_search",
    "summarize",
    "external_web_search",
    "external_reverse_image",
    "llm_enrich",
    "taxonomy_enrich",
    "agentic_enrich",
];

/// Every stage of this version.
pub fn registry() -> &'static [StageDefinition] {
    &REGISTRY
}

fn find(stage_id: &str) -> Option<&'static StageDefinition> {
    REGISTRY.iter().find(|d| d.stage_id == stage_id || d.aliases.contains(&stage_id))
}

/// Whether a text names a stage of the API, available or not.
pub(super) fn is_known(stage_id: &str) -> bool {
    find(stage_id).is_some() || LATER.contains(&stage_id)
}

/// The stage that an id names; `at` is the id's place.
pub(super) fn resolve(stage_id: &str, at: &str) -> Result<&'static StageDefinition> {
    let known = || REGISTRY.iter().map(|d| d.stage_id).collect::<Vec<_>>().join(", ");
    match find(stage_id) {
        Some(definition) => Ok(definition),
        None if LATER.contains(&stage_id) => {
            Err(Error::invalid(at, format!("`{stage_id}` is not available in this version; one of {}", known())))
        }
        None => Err(Error::invalid(at, format!("`{stage_id}` is not a stage; one of {}", known()))),
    }
}

/// A stage with its parameters.
pub(super) trait Stage: fmt::Debug + Send + Sync {
    /// Turns the working set into the next one.
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>>;

    /// Feature URIs it names literally.
    fn feature_uris(&self) -> Vec<String> {
        Vec::new()
    }
    /// Collections it names literally.
    fn collections(&self) -> Vec<String> {
        Vec::new()
    }
    /// Names of the secrets that it reads, each with the place that names it.
    fn secrets(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Connections of the organization that it reads, each with the place that names it.
    fn connections(&self) -> Vec<(String, String)> {
        Vec::new()
    }
    /// Whether it asks anything outside this server.
    fn reaches_outside(&self) -> bool {
        false
    }
    /// Ids or names of stored retrievers it names literally.
    fn retrievers(&self) -> Vec<String> {
        Vec::new()
    }
    /// Whether it executes another retriever.
    fn nests(&self) -> bool {
        false
    }
    /// Whether it searches an index, so that filters before it are better left to that search.
    fn searches(&self) -> bool {
        false
    }
    /// Whether the same input gives the same result for as long as no document changes.
    fn is_repeatable(&self) -> bool {
        !self.reaches_outside()
    }
    /// Whether its result is worth keeping for executions that differ only in what follows.
    fn is_costly(&self) -> bool {
        self.searches()
    }
    /// Its filter, if it only narrows what the collections hold, which a later search can do in one go.
    fn narrowing(&self) -> Option<&FilterTemplate> {
        None
    }
    /// Whether it only narrows.
    fn narrows(&self) -> bool {
        self.narrowing().is_some()
    }
    /// The filter of [`narrowing`](Self::narrowing), with the inputs put in.
    fn narrowed(&self, _variables: &Variables) -> Result<Filter> {
        Ok(Filter::all())
    }
}

/// The documents between two stages.
#[derive(Debug, Clone)]
pub(super) enum WorkingSet {
    /// Nothing is read yet: every document of the collections that satisfies the filter.
    Unread(Filter),
    Read(Vec<Hit>),
}

impl WorkingSet {
    pub fn len(&self) -> usize {
        match self {
            Self::Unread(_) => 0,
            Self::Read(hits) => hits.len(),
        }
    }
}

/// What an execution reports besides documents.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub warnings: Vec<String>,
    pub degraded: Vec<Degraded>,
    pub limits: Vec<LimitEntry>,
    pub relaxations: Vec<Relaxation>,
    pub facets: Vec<Value>,
    /// What each stage with learned fusion has learned.
    pub learned: Vec<Value>,
}

/// What a stage may still take from elsewhere, in bytes.
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(limits::MAX_STAGE_BYTES)
    }
}

impl Room {
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            let most = limits::MAX_STAGE_BYTES >> 20;
            Error::TooLarge(format!(
                "a stage takes at most {most} MiB from elsewhere; ask for less, or of fewer documents"
            ))
        })?;
        Ok(())
    }

    /// A copy, if there is room for it.
    pub fn copy(&mut self, hit: &Hit) -> Result<Hit> {
        self.take(weight_of_fields(&hit.document.fields))?;
        Ok(hit.clone())
    }
}

/// The surroundings of one stage while it runs.
pub(super) struct Run<'a> {
    pub backend: &'a dyn Backend,
    /// The retriever's collections; empty means all.
    pub collections: &'a [String],
    pub variables: &'a Variables,
    pub stage_name: &'a str,
    pub deadline: Option<Instant>,
    /// Whether a search follows, with nothing between that needs documents.
    pub search_follows: bool,
    /// Filters of the stage, resolved; a stage that applies one itself takes it.
    pub pre_filters: Option<&'a FilterTemplate>,
    pub post_filters: Option<&'a FilterTemplate>,
    /// A number that no caller chose, for stages that choose by chance.
    pub chance: u64,
    /// Unix time in microseconds.
    pub now_micros: i64,
    /// Ids of the retrievers that are being executed around this stage, the outermost first.
    pub within: &'a [String],
    /// For the stage's statistics.
    pub metadata: Fields,
    pub notes: &'a mut Notes,
}

impl Run<'_> {
    /// Resolves a filter, reporting what was taken out of it.
    pub fn filter(&mut self, template: &FilterTemplate) -> Result<Filter> {
        let (filter, relaxed) = template.resolve(self.variables)?;
        self.notes.relaxations.extend(relaxed);
        Ok(filter)
    }

    /// Keeps the hits that satisfy a filter, which may read the document at hand.
    pub fn keep(&mut self, hits: Vec<Hit>, template: &FilterTemplate) -> Result<Vec<Hit>> {
        if !template.reads_documents() {
            let filter = self.filter(template)?;
            return Ok(keep(hits, &filter));
        }
        let mut kept = Vec::new();
        for hit in hits {
            if self.meets(&hit, template)? {
                kept.push(hit);
            }
        }
        Ok(kept)
    }

    /// Reads documents of the retriever's collections, at most `limit` of each.
    pub async fn scan(&mut self, filter: &Filter, limit: usize) -> Result<Vec<Hit>> {
        let collections = self.backend.collections(self.collections).await?;
        self.scan_of(&collections, filter, limit).await
    }

    pub async fn scan_of(&mut self, collections: &[CollectionInfo], filter: &Filter, limit: usize) -> Result<Vec<Hit>> {
        let reads = collections.iter().map(|c| self.backend.scan(&c.collection_id, filter, limit));
        let read = futures::future::try_join_all(reads).await?;
        let full: Vec<&str> = collections
            .iter()
            .zip(&read)
            .filter(|(_, d)| d.len() >= limit)
            .map(|(c, _)| c.collection_name.as_str())
            .collect();
        if !full.is_empty() && limit >= limits::MAX_SCAN_PER_COLLECTION {
            let warning = format!(
                "stage `{}` reads at most {limit} documents of a collection and reached that in: {}",
                self.stage_name,
                full.join(", ")
            );
            self.notes.warnings.push(warning);
        }
        Ok(read.into_iter().flatten().map(Hit::new).collect())
    }

    /// The collections that a parameter at `at` names.
    pub async fn named_collections(&self, names: &[String], at: &str) -> Result<Vec<CollectionInfo>> {
        self.backend.collections(names).await.map_err(|error| match error {
            Error::Invalid(wrong) => {
                Error::Invalid(wrong.into_iter().map(|fault| FieldError::new(at, fault.message)).collect())
            }
            other => other,
        })
    }

    /// The collections that hits are in. Documents that only the answer has are in none.
    pub async fn collections_of(&self, hits: &[Hit]) -> Result<Vec<CollectionInfo>> {
        let mut ids: Vec<String> = hits.iter().map(|hit| hit.document.collection_id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !id.is_empty());
        match ids.is_empty() {
            true => Ok(Vec::new()),
            false => self.backend.collections(&ids).await,
        }
    }

    /// The vector that each hit has of a feature; `None` where it has none. `feature` is a name, a URI or an alias.
    pub async fn vectors_of(&mut self, hits: &[Hit], feature: &str) -> Result<Vec<Option<Vec<f32>>>> {
        let collections = self.collections_of(hits).await?;
        let seqs: Vec<i64> = hits.iter().map(|hit| hit.document.seq).collect();
        let mut stored = self.backend.vectors_of(&seqs).await?;
        let index_of = |hit: &Hit| {
            let collection = collections.iter().find(|c| c.collection_id == hit.document.collection_id)?;
            collection.vector_indexes.iter().find(|index| index.answers_to(feature)).map(|index| index.name.clone())
        };
        let vector = |hit: &Hit| stored.get_mut(&hit.document.seq)?.get(&index_of(hit)?).cloned().and_then(mmr::as_one);
        Ok(hits.iter().map(vector).collect())
    }

    /// Notes that a bound cut the stage short.
    pub fn cut(&mut self, name: &str, requested: usize, ceiling: usize) {
        let stage = Some(self.stage_name.to_owned());
        self.notes.limits.push(LimitEntry { name: name.into(), requested, applied: ceiling, ceiling, stage });
    }

    /// Whether a hit satisfies a filter, which may read it.
    pub fn meets(&mut self, hit: &Hit, template: &FilterTemplate) -> Result<bool> {
        let (filter, relaxed) = template.resolve(&self.variables.with_doc(&view::field_view(hit)))?;
        for relaxation in relaxed {
            if !self.notes.relaxations.contains(&relaxation) {
                self.notes.relaxations.push(relaxation);
            }
        }
        Ok(satisfies(hit, &filter))
    }

    /// The documents of a working set, read if they were not yet.
    pub async fn read(&mut self, set: WorkingSet) -> Result<Vec<Hit>> {
        match set {
            WorkingSet::Read(hits) => Ok(hits),
            WorkingSet::Unread(filter) => self.scan(&filter, limits::MAX_SCAN_PER_COLLECTION).await,
        }
    }
}

fn satisfies(hit: &Hit, filter: &Filter) -> bool {
    filter.is_empty() || filter.matches(&view::projection(hit, &filter.fields()))
}

/// The hits that satisfy a filter, in their order.
pub(super) fn keep(mut hits: Vec<Hit>, filter: &Filter) -> Vec<Hit> {
    hits.retain(|hit| satisfies(hit, filter));
    hits
}
