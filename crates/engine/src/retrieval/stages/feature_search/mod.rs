//! `feature_search`: search vector indexes and text, fuse, keep the best.
//!
//! A search becomes one or more legs ([`legs`]), each giving one ranking over all its collections. A text query that
//! names no index searches every text embedding and the words as well, which is why a search works before anyone has
//! chosen an index.

mod collect;
mod content;
mod learned;
mod legs;
mod query;
mod run;
mod shipped;

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::conditions::{FilterTemplate, without_documents};
use crate::retrieval::fusion::{Fusion, RRF_K};
use crate::retrieval::limits;
use crate::retrieval::params::{Params, Setting, choice, count, flag, is_absent, number, text, texts};
use futures::future::BoxFuture;
use learned::Learning;
pub(crate) use learned::context;
use query::QueryTemplate;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::feature::FeatureUri;
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "feature_search",
    aliases: &["semantic_search", "hybrid_search", "knn_search"],
    category: Category::Filter,
    description: "Searches vector indexes and text, up to ten searches at once, fuses their rankings and keeps the \
                  best. Without `searches`, reads the documents that `pre_filters` let through.",
    icon: "search",
    parameter_schema: schema,
    reads_collections: true,
    parse,
};

fn schema() -> Value {
    let search = json!({
        "type": "object",
        "required": ["query"],
        "properties": {
            "feature_uri": {"type": "string", "description": "Feature URI, index name or alias. Without it a text searches every text embedding and the words."},
            "query": {"description": "A text, numbers, or an object with `input_mode` text, vector, document or content (a data URI, a URL or base64 of a text or a page). May be a template."},
            "top_k": {"type": "integer", "minimum": 1, "maximum": strata_model::limits::MAX_TOP_K, "default": 100},
            "min_score": {"type": "number", "description": "Hits with a lower raw score are dropped."},
            "weight": {"type": "number", "minimum": 0, "maximum": 1, "default": 1.0},
            "lexical": {"type": "boolean", "description": "True searches words by BM25 and uses no vector."},
            "optional": {"type": "boolean", "default": false, "description": "Whether the search is skipped where no collection has the index."},
            "on_empty": {"type": "string", "enum": ["error", "skip", "random"], "default": "error"},
            "filters": {"type": "object", "description": "Filter of this search alone."},
            "collection_identifiers": {"type": "array", "items": {"type": "string"}},
        },
    });
    json!({
        "type": "object",
        "properties": {
            "searches": {"type": "array", "maxItems": strata_model::limits::MAX_SEARCHES, "items": search},
            "final_top_k": {"type": "integer", "minimum": 1, "maximum": limits::MAX_FINAL_TOP_K, "default": DEFAULT_FINAL_TOP_K},
            "fusion": {"type": "string", "enum": ["rrf", "dbsf", "weighted", "max", "learned"], "default": "rrf"},
            "learning_config": learned::schema(),
            "collection_identifiers": {"type": "array", "items": {"type": "string"}},
            "filters": {"type": "object", "description": "Filter of all searches; the same as `pre_filters` beside the parameters."},
            "hard_timeout_ms": {"type": "integer", "minimum": 1, "default": limits::SEARCH_TIMEOUT_MS},
            "interactive": {"type": "boolean", "default": false},
            "degrade_retry": {"type": "boolean", "default": false, "description": "Whether searches that ran out of time are tried once more, twice as long."},
            "facets": {"type": "array", "maxItems": limits::MAX_FACETS, "items": {"type": "object", "required": ["key"], "properties": {
                "key": {"type": "string"}, "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10}, "exact": {"type": "boolean", "default": false}}}},
            "group_by": {"type": "object", "required": ["field"], "properties": {
                "field": {"type": "string"},
                "max_per_group": {"type": "integer", "minimum": 1, "maximum": 100, "default": 1},
                "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 25},
                "output_mode": {"type": "string", "enum": ["first", "all", "flatten"], "default": "all"}}},
        },
    })
}

const DEFAULT_FINAL_TOP_K: usize = 25;
const DEFAULT_TOP_K: usize = 100;

#[derive(Debug)]
struct FeatureSearch {
    at: String,
    searches: Vec<Search>,
    final_top_k: Option<Setting<usize>>,
    fusion: Fusion,
    /// Where `rrf` has the weights that were learned or shipped.
    learned: Option<Learning>,
    requested_timeout_ms: u64,
    /// Never above the ceiling.
    timeout_ms: u64,
    retry: bool,
    collections: Option<Setting<Vec<String>>>,
    facets: Vec<Facet>,
    group_by: Option<GroupBy>,
}

#[derive(Debug)]
struct Search {
    at: String,
    feature: Option<Setting<String>>,
    query: QueryTemplate,
    kind: Kind,
    top_k: Option<Setting<usize>>,
    min_score: Option<Setting<f64>>,
    weight: Option<Setting<f64>>,
    optional: bool,
    on_empty: OnEmpty,
    filter: Option<FilterTemplate>,
    collections: Option<Setting<Vec<String>>>,
}

/// What a search may look in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The index it names; for a text that names none, every text embedding and the words.
    Auto,
    /// Vectors only.
    Dense,
    /// Words only.
    Lexical,
    /// Words besides the vectors, even where an index is named.
    Hybrid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnEmpty {
    Error,
    Skip,
    Random,
}

#[derive(Debug)]
struct Facet {
    key: String,
    limit: usize,
}

#[derive(Debug)]
struct GroupBy {
    field: String,
    max_per_group: usize,
    limit: usize,
    mode: GroupMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupMode {
    First,
    All,
    Flatten,
}

fn parse(draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let written = written_searches(&mut params)?;
    if written.len() > strata_model::limits::MAX_SEARCHES {
        return Err(Error::invalid(
            params.place("searches"),
            format!("a stage has at most {} searches", strata_model::limits::MAX_SEARCHES),
        ));
    }
    if written.is_empty() && draft.first && !draft.has_pre_filters {
        return Err(Error::invalid(params.place("searches"), "is required, or `pre_filters` beside `parameters`"));
    }
    let kind = match draft.stage_id {
        "semantic_search" | "knn_search" => Kind::Dense,
        "hybrid_search" => Kind::Hybrid,
        _ => Kind::Auto,
    };
    let searches: Vec<Search> =
        written.into_iter().map(|(at, fields)| search(params.below(fields, at), kind)).collect::<Result<_>>()?;
    let timeout = params.fixed(&["hard_timeout_ms"], |v, at| count(1..=u64::from(u32::MAX))(v, at))?;
    let requested_timeout_ms = timeout.map_or(limits::SEARCH_TIMEOUT_MS, |ms| ms as u64);
    let interactive = params.fixed(&["interactive"], flag)?.unwrap_or(false);
    let degrade_retry = params.fixed(&["degrade_retry"], flag)?.unwrap_or(false);
    let (fusion, learned) = fusion(&mut params, &searches)?;
    let stage = FeatureSearch {
        searches,
        final_top_k: params.setting(&["final_top_k", "limit", "top_k"], count(1..=limits::MAX_FINAL_TOP_K as u64))?,
        fusion,
        learned,
        requested_timeout_ms,
        timeout_ms: requested_timeout_ms.min(limits::MAX_SEARCH_TIMEOUT_MS),
        retry: degrade_retry && !interactive,
        collections: collection_identifiers(&mut params)?,
        facets: facets(&mut params)?,
        group_by: group_by(&mut params)?,
        at: params.at().to_owned(),
    };
    // Content is looked at as a whole, so that there is nothing to switch off.
    params.fixed(&["auto_preprocess"], flag)?;
    params.take(&["feature_extractor"]);
    params.finish();
    Ok(Arc::new(stage))
}

/// Where queries stand when a stage has one search and no list.
const INLINE: [&str; 21] = [
    "query",
    "query_text",
    "text",
    "query_input",
    "input",
    "vector",
    "query_vector",
    "document_ref",
    "input_mode",
    "value",
    "content",
    "url",
    "base64",
    "feature_uri",
    "vector_index",
    "vector_name",
    "min_score",
    "score_threshold",
    "weight",
    "lexical",
    "on_empty",
];

/// The searches in any spelling, each with its place.
fn written_searches(params: &mut Params<'_>) -> Result<Vec<(String, Fields)>> {
    let listed = params.take(&["searches"]).filter(|(_, v)| v.as_array().is_none_or(|l| !l.is_empty()));
    if let Some((at, list)) = listed.or_else(|| params.take(&["feature_uris", "features"])) {
        let Value::Array(list) = list else {
            return Err(Error::invalid(at, "must be an array"));
        };
        let shared = params.take(&["query", "query_text"]).map(|(_, v)| v);
        return list
            .into_iter()
            .enumerate()
            .map(|(i, v)| listed_search(v, shared.as_ref(), format!("{at}.{i}")))
            .collect();
    }
    let wanted = [
        "query",
        "query_text",
        "text",
        "query_input",
        "input",
        "vector",
        "query_vector",
        "document_ref",
        "value",
        "feature_uri",
        "vector_index",
        "vector_name",
    ];
    if !params.has(&wanted) {
        return Ok(Vec::new());
    }
    let inline = INLINE.iter().filter_map(|name| params.take(&[name]).map(|(_, v)| ((*name).to_owned(), v)));
    let fields = inline.collect();
    Ok(vec![(params.at().to_owned(), fields)])
}

/// An entry of a list: an object, or a bare index beside a query that the list shares, or a bare query.
fn listed_search(value: Value, shared: Option<&Value>, at: String) -> Result<(String, Fields)> {
    let mut fields = match value {
        Value::Object(fields) => fields,
        Value::String(text) => {
            let name = if shared.is_some() || text.contains("://") { "feature_uri" } else { "query" };
            [(name.to_owned(), Value::from(text))].into_iter().collect()
        }
        _ => return Err(Error::invalid(at, "must be an object with `feature_uri` and `query`")),
    };
    if let Some(shared) =
        shared.filter(|_| !["query", "query_input", "input", "vector"].iter().any(|k| fields.contains_key(*k)))
    {
        fields.insert("query".into(), shared.clone());
    }
    Ok((at, fields))
}

fn search(mut params: Params<'_>, kind: Kind) -> Result<Search> {
    let at = params.at().to_owned();
    let feature = params
        .setting(&["feature_uri", "uri", "vector_index", "vector_name", "feature_address", "feature"], feature_uri)?;
    let query = query(&mut params)?;
    let kind = match params.fixed(&["lexical"], flag)? {
        Some(true) => Kind::Lexical,
        Some(false) if kind == Kind::Auto => Kind::Dense,
        _ => kind,
    };
    let on_empty = |v: &Value, at: &str| {
        choice(v, at, &[("error", OnEmpty::Error), ("skip", OnEmpty::Skip), ("random", OnEmpty::Random)])
    };
    let search = Search {
        feature,
        query,
        kind,
        top_k: params.setting(&["top_k", "limit"], count(1..=strata_model::limits::MAX_TOP_K as u64))?,
        min_score: params.setting(&["min_score", "score_threshold"], number(f64::MIN..=f64::MAX))?,
        weight: params.setting(&["weight"], number(0.0..=1.0))?,
        optional: params.fixed(&["optional"], flag)?.unwrap_or(false),
        on_empty: params.fixed(&["on_empty"], on_empty)?.unwrap_or(OnEmpty::Error),
        filter: params.filter(&["filters", "filter", "pre_filters"])?.map(without_documents).transpose()?,
        collections: collection_identifiers(&mut params)?,
        at,
    };
    params.finish();
    Ok(search)
}

fn query(params: &mut Params<'_>) -> Result<QueryTemplate> {
    if let Some((at, mode)) = params.take(&["input_mode"]) {
        // The query's own keys stand in the search.
        let mut fields: Fields = [("input_mode".to_owned(), mode)].into_iter().collect();
        for name in ["value", "text", "query", "vector", "document_ref", "content", "url", "base64"] {
            fields.extend(params.take(&[name]).map(|(_, v)| (name.to_owned(), v)));
        }
        let at = at.trim_end_matches(".input_mode").to_owned();
        return QueryTemplate::parse(&Value::Object(fields), &at, params);
    }
    if let Some((at, value)) = params.take(&["query", "query_input", "input", "query_text", "text", "value"]) {
        return QueryTemplate::parse(&value, &at, params);
    }
    if let Some((at, value)) = params.take(&["vector", "query_vector"]) {
        return QueryTemplate::parse(&json!({"input_mode": "vector", "value": value}), &at, params);
    }
    match params.take(&["document_ref"]) {
        Some((at, value)) => {
            QueryTemplate::parse(&json!({"document_ref": value}), at.trim_end_matches(".document_ref"), params)
        }
        None => Ok(QueryTemplate::nothing(params.place("query"))),
    }
}

fn feature_uri(value: &Value, at: &str) -> Result<String> {
    let uri = text(value, at)?;
    match FeatureUri::parse(&uri) {
        Ok(_) => Ok(uri),
        Err(Error::Invalid(list)) => {
            Err(Error::invalid(at, list.into_iter().map(|f| f.message).collect::<Vec<_>>().join("; ")))
        }
        Err(other) => Err(other),
    }
}

fn collection_identifiers(params: &mut Params<'_>) -> Result<Option<Setting<Vec<String>>>> {
    params.setting(&["collection_identifiers", "collection_ids", "collections"], |value, at| match value {
        Value::Array(list) => texts(&Value::Array(list.iter().filter(|v| !is_absent(v)).cloned().collect()), at),
        other => texts(other, at),
    })
}

/// How rankings are fused, and what is learned for that.
fn fusion(params: &mut Params<'_>, searches: &[Search]) -> Result<(Fusion, Option<Learning>)> {
    let learning = match params.take(&["learning_config"]) {
        Some((at, Value::Object(fields))) => Some((learned::read(params.below(fields, at.clone()), searches)?, at)),
        Some((at, _)) => return Err(Error::invalid(at, "must be an object")),
        None => None,
    };
    let Some((at, value)) = params.take(&["fusion", "fusion_method", "fusion_strategy"]) else {
        not_learned(params, learning);
        return Ok((rrf(params)?, None));
    };
    let (name, k) = match &value {
        Value::Object(map) => {
            let name = ["strategy", "method", "type", "fusion"]
                .iter()
                .find_map(|key| map.get(*key))
                .cloned()
                .unwrap_or_else(|| "rrf".into());
            (name, map.get("k").or_else(|| map.get("rrf_k")).cloned())
        }
        other => (other.clone(), None),
    };
    let known = [
        ("rrf", Fusion::default()),
        ("dbsf", Fusion::Dbsf),
        ("weighted", Fusion::Weighted),
        ("linear", Fusion::Weighted),
        ("max", Fusion::Max),
        ("learned", Fusion::default()),
    ];
    let mut fusion = choice(&name, &at, &known)?;
    if let Fusion::Rrf { .. } = fusion {
        fusion = match k {
            Some(k) => Fusion::Rrf { k: number(1.0..=1000.0)(&k, &format!("{at}.k"))? },
            None => rrf(params)?,
        };
    }
    if name.as_str() != Some("learned") {
        not_learned(params, learning);
        return Ok((fusion, None));
    }
    let missing = || Error::invalid(params.place("learning_config"), "is required with `fusion` `learned`");
    Ok((fusion, Some(learning.ok_or_else(missing)?.0)))
}

/// Warns where there is something to learn with and nothing that learns.
fn not_learned(params: &mut Params<'_>, learning: Option<(Learning, String)>) {
    if let Some((_, at)) = learning {
        params.warn(format!("`{at}` changes nothing without `fusion` `learned`"));
    }
}

fn rrf(params: &mut Params<'_>) -> Result<Fusion> {
    let k = params.fixed(&["rrf_k"], |v, at| number(1.0..=1000.0)(v, at))?;
    Ok(Fusion::Rrf { k: k.unwrap_or(RRF_K) })
}

fn facets(params: &mut Params<'_>) -> Result<Vec<Facet>> {
    let Some((at, value)) = params.take(&["facets"]) else { return Ok(Vec::new()) };
    let Value::Array(list) = value else {
        return Err(Error::invalid(at, "must be an array of fields"));
    };
    if list.len() > limits::MAX_FACETS {
        return Err(Error::invalid(at, format!("a search counts at most {} facets", limits::MAX_FACETS)));
    }
    list.into_iter().enumerate().map(|(i, value)| facet(params, value, format!("{at}.{i}"))).collect()
}

/// A field, or an object that names it.
fn facet(params: &mut Params<'_>, value: Value, at: String) -> Result<Facet> {
    let fields = match value {
        Value::Object(fields) => fields,
        plain => [("key".to_owned(), plain)].into_iter().collect(),
    };
    let mut below = params.below(fields, at);
    let key = below.fixed(&["key", "field"], text)?.ok_or_else(|| Error::invalid(below.place("key"), "is required"))?;
    let limit = below.fixed(&["limit"], |v, at| count(1..=1000)(v, at))?.unwrap_or(10);
    // Values are counted one by one; nothing is estimated either way.
    below.fixed(&["exact"], flag)?;
    below.finish();
    Ok(Facet { key, limit })
}

fn group_by(params: &mut Params<'_>) -> Result<Option<GroupBy>> {
    let Some((at, value)) = params.take(&["group_by"]) else { return Ok(None) };
    let fields = match value {
        Value::Object(fields) => fields,
        Value::String(field) => [("field".to_owned(), Value::from(field))].into_iter().collect(),
        _ => return Err(Error::invalid(at, "must be an object with `field`")),
    };
    let mut below = params.below(fields, at);
    let mode = |v: &Value, at: &str| {
        choice(v, at, &[("first", GroupMode::First), ("all", GroupMode::All), ("flatten", GroupMode::Flatten)])
    };
    let group = GroupBy {
        field: below.fixed(&["field"], text)?.ok_or_else(|| Error::invalid(below.place("field"), "is required"))?,
        max_per_group: below.fixed(&["max_per_group", "group_size"], |v, at| count(1..=100)(v, at))?.unwrap_or(1),
        limit: below.fixed(&["limit"], |v, at| count(1..=500)(v, at))?.unwrap_or(25),
        mode: below.fixed(&["output_mode"], mode)?.unwrap_or(GroupMode::All),
    };
    below.finish();
    Ok(Some(group))
}

impl Stage for FeatureSearch {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(self.search(run, set))
    }

    fn feature_uris(&self) -> Vec<String> {
        self.searches.iter().filter_map(|s| s.feature.as_ref()?.literal()).collect()
    }

    fn collections(&self) -> Vec<String> {
        let own = self.collections.iter().chain(self.searches.iter().filter_map(|s| s.collections.as_ref()));
        own.filter_map(Setting::literal).flatten().collect()
    }

    fn searches(&self) -> bool {
        true
    }

    fn is_repeatable(&self) -> bool {
        self.learned.is_none() && !self.searches.iter().any(|search| search.query.is_content())
    }
}
