//! `rerank`: order by what a cross-encoder says of query and document together.

use super::weight_set::{self, Shipped};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::execute::Degraded;
use crate::retrieval::params::{Params, Setting, count, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use strata_infer::Registry;
use strata_model::{Error, Result};
use tokio::time::{Instant, timeout_at};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "rerank",
    aliases: &["cross_encoder"],
    category: Category::Sort,
    description: "Orders the first documents by a cross-encoder, which reads the query and each document's text together.",
    icon: "list-ordered",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const DEFAULT_MODEL: &str = "BAAI__bge_reranker_v2_m3";
const DEFAULT_FIELD: &str = "content";
const DEFAULT_SCORE_FIELD: &str = "scores.rerank";
/// Milliseconds a stage may take, and the most that can be asked for.
const TIMEOUT_MS: usize = 10_000;

fn schema() -> Value {
    let models: Vec<&str> = models().collect();
    json!({
        "type": "object",
        "properties": {
            "inference_name": {"type": "string", "default": DEFAULT_MODEL, "description": format!("A cross-encoder: one of {}, under any of its names, or a directory beside the server's models. It must be installed.", models.join(", "))},
            "query": {"type": "string", "default": "{{INPUT.query}}", "description": "The text that documents are judged by."},
            "document_field": {"type": "string", "default": DEFAULT_FIELD, "description": "Dot path of the document's text. Documents without one are not scored."},
            "top_k": {"type": "integer", "minimum": 1, "description": "Documents to keep; all where left out."},
            "max_candidates": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10, "description": "Documents to score, from the first; the others follow in their order."},
            "score_field": {"type": "string", "default": DEFAULT_SCORE_FIELD, "description": "Where the score goes, from 0 to 1."},
            "batch_size": {"type": "integer", "minimum": 1, "maximum": 100, "default": 32, "description": "Pairs that run at once."},
            "max_document_chars": {"type": "integer", "minimum": 100, "maximum": 50000, "default": 2000, "description": "Characters of a document's text that are looked at; the model may see fewer."},
            "max_concurrent_batches": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3, "description": "Changes nothing: a batch runs on all processors."},
            "learning_config": learning_schema(),
            "hard_timeout_ms": {"type": "integer", "minimum": 1, "default": TIMEOUT_MS, "description": "What takes longer keeps the order that came in, as where the model is not there, and the answer says so."},
        },
    })
}

fn learning_schema() -> Value {
    json!({
        "type": "object",
        "description": "Changes nothing: a cross-encoder gives one score, so there is nothing to weigh.",
        "properties": {
            "evaluation_dataset_id": {"type": "string", "description": "Kept."},
            "shipped_weight_set": weight_set::schema(
                "Kept, where it has no weights.",
                "Must be empty; weights of searches belong to the `feature_search` that makes them.",
            ),
        },
    })
}

fn models() -> impl Iterator<Item = &'static str> {
    Registry::entries().iter().filter(|model| model.task == strata_infer::Task::RerankText).map(|model| model.id)
}

#[derive(Debug)]
struct Rerank {
    at: String,
    model: Option<Setting<String>>,
    query_at: String,
    query: Setting<String>,
    field: Option<Setting<String>>,
    top_k: Option<Setting<usize>>,
    max_candidates: Option<Setting<usize>>,
    score_field: Option<Setting<String>>,
    batch_size: Option<Setting<usize>>,
    max_chars: Option<Setting<usize>>,
    timeout_ms: usize,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    for (name, instead) in [
        ("feature_uri", "plugins are not available in this version; name a model in `inference_name`"),
        ("decision_model", "is not available in this version; name a model in `inference_name`"),
        ("relevance_criteria", "needs a decision model, which this version does not have; put them into `query`"),
    ] {
        if params.has(&[name]) {
            return Err(Error::invalid(params.place(name), instead));
        }
    }
    // No batch waits for another one.
    params.fixed(&["max_concurrent_batches"], |value, at| count(1..=10)(value, at))?;
    check_learning(&mut params)?;
    let timeout = params.fixed(&["hard_timeout_ms"], |value, at| count(1..=u64::from(u32::MAX))(value, at))?;
    let query_at = params.place("query");
    let stage = Rerank {
        at: params.place("inference_name"),
        model: params.setting(&["inference_name", "model", "model_name"], text)?,
        query: query(&mut params)?,
        query_at,
        field: params.setting(&["document_field", "content_field"], text)?,
        top_k: params.setting(&["top_k", "top_n"], count(1..=u64::from(u32::MAX)))?,
        max_candidates: params.setting(&["max_candidates"], count(1..=1_000))?,
        score_field: params.setting(&["score_field"], text)?,
        batch_size: params.setting(&["batch_size"], count(1..=100))?,
        max_chars: params.setting(&["max_document_chars"], count(100..=50_000))?,
        timeout_ms: timeout.unwrap_or(TIMEOUT_MS),
    };
    params.finish();
    Ok(Arc::new(stage))
}

/// Checks `learning_config`. Weights tell what one ranking counts beside others, and here there is only one: taken,
/// they would promise an order that nobody gets.
fn check_learning(params: &mut Params<'_>) -> Result<()> {
    let (at, fields) = match params.take(&["learning_config"]) {
        Some((at, Value::Object(fields))) => (at, fields),
        Some((at, _)) => return Err(Error::invalid(at, "must be an object")),
        None => return Ok(()),
    };
    let mut config = params.below(fields, at);
    config.take(&["evaluation_dataset_id"]);
    if let Some(set) = Shipped::take(&mut config)?.filter(|set| !set.weights.is_empty()) {
        return Err(Error::invalid(
            set.weights_at,
            format!(
                "has weights of searches, and a cross-encoder gives one score; ship `{}` in the `learning_config` of \
                 the `feature_search` stage",
                set.id
            ),
        ));
    }
    config.finish();
    Ok(())
}

/// The query, which is the input of that name where nothing is said.
fn query(params: &mut Params<'_>) -> Result<Setting<String>> {
    match params.setting(&["query"], text)? {
        Some(query) => Ok(query),
        None => params.setting_of(&json!("{{INPUT.query}}"), params.place("query"), text),
    }
}

impl Stage for Rerank {
    fn is_costly(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let model = value_or(self.model.as_ref(), run.variables, DEFAULT_MODEL.to_owned())?;
            let field = value_or(self.field.as_ref(), run.variables, DEFAULT_FIELD.to_owned())?;
            let score_field = value_or(self.score_field.as_ref(), run.variables, DEFAULT_SCORE_FIELD.to_owned())?;
            let most = value_or(self.max_candidates.as_ref(), run.variables, 10)?;
            let batch = value_or(self.batch_size.as_ref(), run.variables, 32)?;
            let max_chars = value_or(self.max_chars.as_ref(), run.variables, 2_000)?;
            let top_k = match &self.top_k {
                Some(top_k) => top_k.value(run.variables)?,
                None => None,
            };
            let Some(query) = self.query.value(run.variables)? else {
                return Err(Error::invalid(
                    &self.query_at,
                    format!("is needed by stage `{}` and is empty", run.stage_name),
                ));
            };
            let mut hits = run.read(set).await?;
            let candidates: Vec<(usize, String)> = hits
                .iter()
                .take(most)
                .enumerate()
                .filter_map(|(place, hit)| Some((place, words(hit, &field, max_chars)?)))
                .collect();
            note(run, &model, hits.len(), candidates.len());
            if candidates.is_empty() && !hits.is_empty() {
                run.notes.warnings.push(format!(
                    "stage `{}` found no text under `{field}` and kept the order; name `document_field`",
                    run.stage_name
                ));
            }
            let (places, texts): (Vec<usize>, Vec<String>) = candidates.into_iter().unzip();
            if !texts.is_empty()
                && let Some(scores) = self.scores(run, &model, &query, texts, batch).await?
            {
                hits = ordered(hits, &places, &scores, &score_field);
            }
            hits.truncate(top_k.unwrap_or(hits.len()));
            Ok(WorkingSet::Read(hits))
        })
    }
}

impl Rerank {
    /// One score a text, or `None` where that took too long.
    async fn scores(
        &self,
        run: &mut Run<'_>,
        model: &str,
        query: &str,
        texts: Vec<String>,
        batch: usize,
    ) -> Result<Option<Vec<f32>>> {
        let applied = self.timeout_ms.min(TIMEOUT_MS);
        if applied < self.timeout_ms {
            run.cut("hard_timeout_ms", self.timeout_ms, TIMEOUT_MS);
        }
        let limit = Instant::now() + Duration::from_millis(applied as u64);
        match timeout_at(limit, run.backend.score_pairs(model, query, texts, batch)).await {
            Ok(Ok(scores)) => Ok(Some(scores)),
            Ok(Err(Error::Missing { .. })) => {
                let known: Vec<&str> = models().collect();
                let reason = format!(
                    "`{model}` is neither a cross-encoder, one of {}, nor a directory of the models",
                    known.join(", ")
                );
                Err(Error::invalid(&self.at, reason))
            }
            Ok(Err(Error::Unavailable(reason))) => {
                kept(run, model, reason, "make the model available, or name another in `inference_name`");
                Ok(None)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let reason = format!("the documents were not scored within {applied} ms");
                kept(run, model, reason, "lower `max_candidates` or `max_document_chars`, or raise `hard_timeout_ms`");
                Ok(None)
            }
        }
    }
}

/// Tells that the order that came in was kept.
fn kept(run: &mut Run<'_>, model: &str, reason: String, next_step: &str) {
    run.notes.warnings.push(format!("stage `{}` kept the order: {reason}", run.stage_name));
    run.notes.degraded.push(Degraded {
        resource: "model".into(),
        id: Some(model.to_owned()),
        reason,
        next_step: next_step.to_owned(),
        stage: Some(run.stage_name.to_owned()),
    });
}

fn note(run: &mut Run<'_>, model: &str, documents: usize, scored: usize) {
    run.metadata.insert("model".into(), model.into());
    run.metadata.insert("scored".into(), scored.into());
    run.metadata.insert("not_scored".into(), (documents - scored).into());
}

/// The text of a document, at most `most` characters of it.
fn words(hit: &Hit, field: &str, most: usize) -> Option<String> {
    let found = view::field(hit, field)?;
    let text = match found.as_ref() {
        Value::String(text) => text.clone(),
        Value::Null => return None,
        other => other.to_string(),
    };
    let text: String = text.chars().take(most).collect();
    (!text.trim().is_empty()).then_some(text)
}

/// Those that were scored, best first, before the others in their order.
fn ordered(hits: Vec<Hit>, places: &[usize], scores: &[f32], score_field: &str) -> Vec<Hit> {
    let mut scored: Vec<(f32, Hit)> = Vec::with_capacity(places.len());
    let mut others = Vec::new();
    let mut next = places.iter().zip(scores).peekable();
    for (place, mut hit) in hits.into_iter().enumerate() {
        match next.next_if(|(own, _)| **own == place) {
            Some((_, score)) => {
                view::set(&mut hit, score_field, f64::from(*score).into());
                scored.push((*score, hit));
            }
            None => others.push(hit),
        }
    }
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    scored.into_iter().map(|(_, hit)| hit).chain(others).collect()
}
