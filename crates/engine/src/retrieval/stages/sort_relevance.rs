//! `sort_relevance`: order by a score.

use super::sort_attribute::descending;
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, flag, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "sort_relevance",
    aliases: &[],
    category: Category::Sort,
    description: "Orders documents by a score, by default the one that searches give, best first.",
    icon: "arrow-down-wide-narrow",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "score_field": {"type": "string", "default": "score", "description": "Dot path of the score."},
            "direction": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
            "missing_score": {
                "type": "string", "enum": ["bottom", "top", "preserve"], "default": "bottom",
                "description": "Where documents without the score go; `preserve` leaves each at its place.",
            },
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Bottom,
    Top,
    Preserve,
}

#[derive(Debug)]
struct SortRelevance {
    score_field: Option<Setting<String>>,
    descending: Option<Setting<bool>>,
    missing: Option<Setting<Missing>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    if let Some((at, _)) = params.take(&["feature_address"]) {
        return Err(Error::invalid(at, "has no effect and is refused; name the score in `score_field`"));
    }
    if params.fixed(&["normalize"], flag)? == Some(true) {
        params.warn(format!("`{}` is not supported: scores stay as they are", params.place("normalize")));
    }
    let missing = |value: &Value, at: &str| {
        choice(value, at, &[("bottom", Missing::Bottom), ("top", Missing::Top), ("preserve", Missing::Preserve)])
    };
    let stage = SortRelevance {
        score_field: params.setting(&["score_field"], text)?,
        descending: params.setting(&["direction", "order"], descending)?,
        missing: params.setting(&["missing_score"], missing)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for SortRelevance {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let field = value_or(self.score_field.as_ref(), run.variables, "score".to_owned())?;
            let descending = value_or(self.descending.as_ref(), run.variables, true)?;
            let missing = value_or(self.missing.as_ref(), run.variables, Missing::Bottom)?;
            let hits = run.read(set).await?;
            Ok(WorkingSet::Read(sort(hits, &field, descending, missing)))
        })
    }
}

fn sort(hits: Vec<Hit>, field: &str, descending: bool, missing: Missing) -> Vec<Hit> {
    let (mut scored, mut unscored) = (Vec::new(), Vec::new());
    for (position, hit) in hits.into_iter().enumerate() {
        match view::field(&hit, field).and_then(|v| v.as_f64()) {
            Some(score) => scored.push((score, hit)),
            None => unscored.push((position, hit)),
        }
    }
    scored.sort_by(|(a, _), (b, _)| if descending { b.total_cmp(a) } else { a.total_cmp(b) });
    let mut sorted: Vec<Hit> = scored.into_iter().map(|(_, hit)| hit).collect();
    match missing {
        Missing::Bottom => sorted.extend(unscored.into_iter().map(|(_, hit)| hit)),
        Missing::Top => drop(sorted.splice(0..0, unscored.into_iter().map(|(_, hit)| hit))),
        Missing::Preserve => unscored.into_iter().for_each(|(position, hit)| sorted.insert(position, hit)),
    }
    sorted
}
