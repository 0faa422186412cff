//! From a retriever's JSON to a plan: typed stages, compiled templates, a checked input schema.

use super::conditions::{FilterTemplate, without_documents};
use super::inputs::InputSchema;
use super::limits;
use super::params::{Findings, Params, choice, count, is_absent, text};
use super::snapshot;
use super::spelling::{self, WrittenStage};
use super::stages::{self, Stage, StageDefinition};
use super::template::Reference;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use strata_model::{Error, Fields, Result};

/// What makes a retriever, or an ad hoc execution: the parts of a request body that a plan is made from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetrieverSpec {
    /// Ids or names; empty means every collection of the namespace.
    pub collection_identifiers: Vec<String>,
    pub stages: Vec<Value>,
    /// Input names to definitions; null takes any input.
    pub input_schema: Value,
    /// Milliseconds an execution may take.
    pub max_time_ms: Option<u64>,
}

impl RetrieverSpec {
    /// Reads `collection_identifiers` (also `collection_ids`, `collections`), `stages`, `input_schema` and
    /// `budget_limits.max_time_ms`.
    pub fn from_body(body: &Fields) -> Result<Self> {
        let get = |name: &str| body.get(name).filter(|v| !is_absent(v));
        let mut collection_identifiers = Vec::new();
        for name in ["collection_identifiers", "collection_ids", "collections"] {
            if let Some(value) = get(name) {
                collection_identifiers = super::params::texts(value, name)?;
                break;
            }
        }
        let stages = match get("stages") {
            Some(Value::Array(stages)) => stages.clone(),
            None => Vec::new(),
            Some(_) => return Err(Error::invalid("stages", "must be an array")),
        };
        let max_time_ms = match get("budget_limits").and_then(|b| b.get("max_time_ms")).filter(|v| !v.is_null()) {
            None => None,
            Some(value) => Some(value.as_u64().ok_or_else(|| {
                Error::invalid("budget_limits.max_time_ms", "must be a whole number of milliseconds")
            })?),
        };
        Ok(Self {
            collection_identifiers,
            stages,
            input_schema: get("input_schema").cloned().unwrap_or_default(),
            max_time_ms,
        })
    }
}

/// What happens when a stage fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The execution fails.
    Error,
    /// The stage's input goes on unchanged.
    Skip,
}

/// What a stage's parameters say about keeping its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheRule {
    pub is_allowed: bool,
    /// How long a result is kept at most; nothing that has changed is ever answered from the cache before that either.
    pub ttl: Option<Duration>,
}

impl CacheRule {
    /// Reads `cache_behavior` and `cache_ttl_seconds` (0: not kept).
    fn parse(parameters: &Fields, at: &str) -> Result<Self> {
        let sent = |name: &str| parameters.get(name).filter(|value| !is_absent(value));
        let behaviors = [("auto", true), ("aggressive", true), ("disabled", false)];
        let is_allowed = match sent("cache_behavior") {
            Some(word) => choice(word, &format!("{at}.cache_behavior"), &behaviors)?,
            None => true,
        };
        let seconds = match sent("cache_ttl_seconds") {
            Some(value) => Some(count(0..=u64::from(u32::MAX))(value, &format!("{at}.cache_ttl_seconds"))? as u64),
            None => None,
        };
        Ok(Self { is_allowed: is_allowed && seconds != Some(0), ttl: seconds.map(Duration::from_secs) })
    }
}

/// A stage of a plan.
#[derive(Debug, Clone)]
pub struct PlannedStage {
    /// `stage_name` as sent, or the stage's id; made unique within the plan by a number.
    pub name: String,
    pub definition: &'static StageDefinition,
    /// The stage as answers show it: `stage_name`, `stage_type`, `config`, `parameters` and what else was sent.
    pub json: Value,
    pub(super) stage: Arc<dyn Stage>,
    pub(super) pre_filters: Option<FilterTemplate>,
    pub(super) post_filters: Option<FilterTemplate>,
    pub(super) on_error: OnError,
    pub(super) output_alias: Option<String>,
    pub(super) cache: CacheRule,
}

/// A retriever that can be executed.
#[derive(Debug, Clone)]
pub struct Plan {
    pub collection_identifiers: Vec<String>,
    pub input_schema: InputSchema,
    pub stages: Vec<PlannedStage>,
    pub max_time_ms: Option<u64>,
    /// What was understood with reservations: parameters that no stage reads.
    pub warnings: Vec<String>,
    /// Evaluations that the stages name, each with the place that names it.
    pub evaluations: Vec<(String, String)>,
    pub(super) references: Vec<Reference>,
    /// What tells the plan up to each stage from every other: [`Places`](super::snapshot::Places) are named by it.
    pub(super) prefixes: Vec<String>,
}

impl Plan {
    /// Understands a retriever, or refuses it naming the field. No data is read.
    pub fn parse(spec: &RetrieverSpec) -> Result<Self> {
        Self::parse_within(spec, 0)
    }

    /// [`Plan::parse`] of a retriever that stands within `depth` others.
    pub(super) fn parse_within(spec: &RetrieverSpec, depth: usize) -> Result<Self> {
        if depth > limits::MAX_NESTED_RETRIEVERS {
            let reason = format!("retrievers nest more than {} deep here", limits::MAX_NESTED_RETRIEVERS);
            return Err(Error::invalid("stages", reason));
        }
        if spec.stages.is_empty() {
            return Err(Error::invalid("stages", "must hold at least one stage"));
        }
        if spec.stages.len() > limits::MAX_STAGES {
            return Err(Error::invalid("stages", format!("a retriever has at most {} stages", limits::MAX_STAGES)));
        }
        let input_schema = InputSchema::parse(&spec.input_schema, "input_schema")?;
        let mut findings = Findings { depth, ..Findings::default() };
        let mut stages: Vec<PlannedStage> = Vec::new();
        for (index, stage) in spec.stages.iter().enumerate() {
            let written = spelling::read(stage, index, stages::is_known)?;
            let mut planned = plan_stage(written, index, &mut findings)?;
            planned.name = unique(&planned.name, &stages);
            stages.push(planned);
        }
        let mut plan = Self {
            collection_identifiers: spec.collection_identifiers.clone(),
            input_schema,
            stages,
            max_time_ms: spec.max_time_ms,
            warnings: findings.warnings,
            evaluations: findings.evaluations,
            references: findings.references,
            prefixes: Vec::new(),
        };
        plan.prefixes = snapshot::prefixes(&plan);
        Ok(plan)
    }

    /// The stages as answers show them.
    pub fn stages_json(&self) -> Vec<Value> {
        self.stages.iter().map(|s| s.json.clone()).collect()
    }

    /// Feature URIs that the stages name literally, each once.
    pub fn feature_uris(&self) -> Vec<String> {
        let all: BTreeSet<String> = self.stages.iter().flat_map(|s| s.stage.feature_uris()).collect();
        all.into_iter().collect()
    }

    /// Collections that stages name besides the retriever's own.
    pub fn stage_collections(&self) -> Vec<String> {
        let all: BTreeSet<String> = self.stages.iter().flat_map(|s| s.stage.collections()).collect();
        all.into_iter().collect()
    }

    /// Names of the secrets that the stages read, each with the place that names it.
    pub fn secrets(&self) -> Vec<(String, String)> {
        self.stages.iter().flat_map(|s| s.stage.secrets()).collect()
    }

    /// Connections of the organization that the stages read, each with the place that names it.
    pub fn connections(&self) -> Vec<(String, String)> {
        self.stages.iter().flat_map(|s| s.stage.connections()).collect()
    }

    /// Whether a stage asks anything outside this server.
    pub fn reaches_outside(&self) -> bool {
        self.stages.iter().any(|s| s.stage.reaches_outside())
    }

    /// Every collection that is named, by the retriever or by a stage.
    pub fn named_collections(&self) -> Vec<String> {
        let mut all = self.collection_identifiers.clone();
        all.extend(self.stage_collections());
        all
    }

    /// Ids or names of stored retrievers that stages name literally, each once.
    pub fn retrievers(&self) -> Vec<String> {
        let all: BTreeSet<String> = self.stages.iter().flat_map(|s| s.stage.retrievers()).collect();
        all.into_iter().collect()
    }

    /// Whether a stage executes another retriever, whose collections may not be known.
    pub fn nests(&self) -> bool {
        self.stages.iter().any(|s| s.stage.nests())
    }

    /// Names of the inputs that templates read.
    pub fn input_names(&self) -> BTreeSet<&str> {
        self.references.iter().filter_map(Reference::input).collect()
    }
}

fn plan_stage(mut written: WrittenStage, index: usize, findings: &mut Findings) -> Result<PlannedStage> {
    let at = format!("stages.{index}");
    let definition = stages::resolve(&written.stage_id, &format!("{at}.config.stage_id"))?;
    let json = shown(&written, definition);
    let name = written.stage_name.clone().unwrap_or_else(|| definition.stage_id.to_owned());
    let nowhere = |place: &String| format!("`{place}` is no part of a stage and was ignored");
    findings.warnings.extend(written.ignored.iter().map(nowhere));
    let mut beside = Params::new(Fields::new(), format!("{at}.config"), findings);
    let mut filter = |written: Option<(String, Value)>| match written {
        Some((place, value)) => beside.filter_of(&value, &place).map(Some),
        None => Ok(None),
    };
    let named = |name: &str, value: &Option<Value>| Some((format!("{at}.config.{name}"), value.clone()?));
    let inside = if definition.stage_id == "feature_search" { filter_inside(&mut written, &at)? } else { None };
    let mut pre_filters = filter(inside.or_else(|| named("pre_filters", &written.pre_filters)))?;
    let post_filters = filter(named("post_filters", &written.post_filters))?;
    if definition.reads_collections {
        pre_filters = pre_filters.map(without_documents).transpose()?;
    }
    let on_error = match written.rest.get("on_error") {
        None => OnError::Error,
        Some(word) => {
            let known = [
                ("error", OnError::Error),
                ("raise", OnError::Error),
                ("fail", OnError::Error),
                ("skip", OnError::Skip),
                ("continue", OnError::Skip),
            ];
            choice(word, &format!("{at}.on_error"), &known)?
        }
    };
    let cache = CacheRule::parse(&written.parameters, &format!("{at}.config.parameters"))?;
    let params = Params::new(written.parameters, format!("{at}.config.parameters"), findings);
    let stage = (definition.parse)(
        stages::Draft { stage_id: &written.stage_id, first: index == 0, has_pre_filters: pre_filters.is_some() },
        params,
    )?;
    let alias = written.rest.get("output_alias");
    let output_alias = alias.map(|alias| text(alias, &format!("{at}.output_alias"))).transpose()?;
    Ok(PlannedStage { name, definition, json, stage, pre_filters, post_filters, on_error, output_alias, cache })
}

/// The filter that stands among the parameters of a search, with its place: some callers write it there.
fn filter_inside(written: &mut WrittenStage, at: &str) -> Result<Option<(String, Value)>> {
    let mut take = |name: &str| written.parameters.remove(name).filter(|value| !is_absent(value));
    let (name, value) = match (take("filters"), take("filter")) {
        (Some(value), None) => ("filters", value),
        (None, Some(value)) => ("filter", value),
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let place = format!("{at}.config.parameters.filter");
            return Err(Error::invalid(place, "is there beside `filters`; write one of them"));
        }
    };
    let place = format!("{at}.config.parameters.{name}");
    if written.pre_filters.is_some() {
        return Err(Error::invalid(place, "is there beside `pre_filters`; write one of them"));
    }
    Ok(Some((place, value)))
}

fn shown(written: &WrittenStage, definition: &StageDefinition) -> Value {
    let mut config = Fields::new();
    config.insert("stage_id".into(), written.stage_id.as_str().into());
    config.insert("parameters".into(), Value::Object(written.parameters.clone()));
    for (name, filters) in [("pre_filters", &written.pre_filters), ("post_filters", &written.post_filters)] {
        config.extend(filters.clone().map(|f| (name.to_owned(), f)));
    }
    let mut json = written.rest.clone();
    json.remove("version");
    json.insert("stage_name".into(), written.stage_name.as_deref().unwrap_or(definition.stage_id).into());
    json.insert("stage_type".into(), definition.category.as_str().into());
    json.insert("config".into(), Value::Object(config));
    json.insert("parameters".into(), Value::Object(written.parameters.clone()));
    Value::Object(json)
}

/// Statistics are kept by name, so two stages of one name get a number.
fn unique(name: &str, stages: &[PlannedStage]) -> String {
    let taken = |name: &str| stages.iter().any(|s| s.name == name);
    let numbered = (2..).map(|n| format!("{name}_{n}")).find(|n| !taken(n));
    if taken(name) { numbered.unwrap_or_default() } else { name.to_owned() }
}
