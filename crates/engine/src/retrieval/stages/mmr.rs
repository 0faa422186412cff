//! `mmr`: relevant and different from each other (Carbonell and Goldstein, 1998, "The use of MMR").

use super::score_normalize::spread;
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, number, text, texts, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::document::VectorValue;
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "mmr",
    aliases: &[],
    category: Category::Sort,
    description: "Picks documents one after the other, each by its relevance and by how little it resembles those picked before.",
    icon: "shuffle",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const MAX_TOP_K: u64 = 500;
/// Greatest weight of a field; weights count beside each other only.
const MAX_WEIGHT: f64 = 1e6;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "lambda": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.7, "description": "Weight of relevance, the score scaled from 0 to 1 over the working set; the rest is the weight of difference."},
            "top_k": {"type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": 25, "description": "Documents to pick."},
            "diversity_feature_uri": {"type": "string", "description": "Feature whose vectors tell resemblance; where nothing is named, that of the search that found the documents."},
            "diversity_features": {
                "type": "array", "description": "Several features with weights, instead of one.",
                "items": {"type": "object", "required": ["feature_uri"], "properties": {
                    "feature_uri": {"type": "string"}, "weight": {"type": "number", "minimum": 0, "maximum": 1, "default": 1},
                }},
            },
            "diversity_fields": {"type": "array", "items": {"type": "string"}, "description": "Fields whose equal values tell resemblance, instead of vectors."},
            "diversity_field_weights": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Weights of these fields, 1 where left out."},
            "score_field": {"type": "string", "default": "score", "description": "Dot path of the relevance."},
            "mmr_score_field": {"type": "string", "default": "scores.mmr", "description": "Where the score of the pick goes."},
            "similarity_metric": {"type": "string", "enum": ["cosine", "dot", "euclidean"], "default": "cosine", "description": "How vectors resemble."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Metric {
    Cosine,
    Dot,
    Euclidean,
}

/// What tells resemblance.
#[derive(Debug)]
enum By {
    /// The feature that found the documents.
    Found,
    Features(Vec<(Setting<String>, f64)>),
    Fields(Vec<(String, f64)>),
}

#[derive(Debug)]
struct Mmr {
    lambda: Option<Setting<f64>>,
    top_k: Option<Setting<usize>>,
    by: By,
    score_field: Option<Setting<String>>,
    mmr_score_field: Option<Setting<String>>,
    metric: Option<Setting<Metric>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let metric = |value: &Value, at: &str| {
        choice(value, at, &[("cosine", Metric::Cosine), ("dot", Metric::Dot), ("euclidean", Metric::Euclidean)])
    };
    let by = resemblance(&mut params)?;
    let stage = Mmr {
        lambda: params.setting(&["lambda", "lambda_param"], number(0.0..=1.0))?,
        top_k: params.setting(&["top_k", "top_n"], count(1..=MAX_TOP_K))?,
        by,
        score_field: params.setting(&["score_field"], text)?,
        mmr_score_field: params.setting(&["mmr_score_field"], text)?,
        metric: params.setting(&["similarity_metric"], metric)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn resemblance(params: &mut Params<'_>) -> Result<By> {
    let modes = ["diversity_feature_uri", "diversity_features", "diversity_fields"];
    if modes.iter().filter(|mode| params.has(&[mode])).count() > 1 {
        return Err(Error::invalid(params.at(), format!("takes one of {}", modes.join(", "))));
    }
    if let Some(one) = params.setting(&["diversity_feature_uri", "embedding_field"], text)? {
        return Ok(By::Features(vec![(one, 1.0)]));
    }
    if let Some((at, value)) = params.take(&["diversity_features"]) {
        let Value::Array(list) = value else { return Err(Error::invalid(at, "must be an array")) };
        let mut features = Vec::new();
        for (i, one) in list.into_iter().enumerate() {
            let at = format!("{at}.{i}");
            let Value::Object(fields) = one else { return Err(Error::invalid(at, "must be an object")) };
            let mut below = params.below(fields, at);
            let uri = below.setting(&["feature_uri"], text)?;
            let uri = uri.ok_or_else(|| Error::invalid(below.place("feature_uri"), "is required"))?;
            features.push((uri, below.fixed(&["weight"], |v, at| number(0.0..=1.0)(v, at))?.unwrap_or(1.0)));
            below.finish();
        }
        return Ok(if features.is_empty() { By::Found } else { By::Features(features) });
    }
    let fields = params.fixed(&["diversity_fields"], texts)?.unwrap_or_default();
    let (at, weights) = match params.take(&["diversity_field_weights"]) {
        Some((at, Value::Object(weights))) => (at, weights),
        Some((at, _)) => return Err(Error::invalid(at, "must be an object of numbers")),
        None => (String::new(), Fields::new()),
    };
    if let Some(other) = weights.keys().find(|name| !fields.contains(name)) {
        return Err(Error::invalid(format!("{at}.{other}"), "is not one of `diversity_fields`"));
    }
    if fields.is_empty() {
        return Ok(By::Found);
    }
    let weight = |field: &str| match weights.get(field) {
        Some(weight) => number(0.0..=MAX_WEIGHT)(weight, &format!("{at}.{field}")),
        None => Ok(1.0),
    };
    let weighted = fields.into_iter().map(|field| weight(&field).map(|weight| (field, weight)));
    Ok(By::Fields(weighted.collect::<Result<_>>()?))
}

/// What a document shows of itself: by each feature its vector, or by each field its values.
enum Shape {
    Vectors(Vec<Option<Vec<f32>>>),
    Values(Vec<Vec<Value>>),
}

impl Stage for Mmr {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let lambda = value_or(self.lambda.as_ref(), run.variables, 0.7)?;
            let top_k = value_or(self.top_k.as_ref(), run.variables, 25)?;
            let score_field = value_or(self.score_field.as_ref(), run.variables, "score".to_owned())?;
            let to = value_or(self.mmr_score_field.as_ref(), run.variables, "scores.mmr".to_owned())?;
            let metric = value_or(self.metric.as_ref(), run.variables, Metric::Cosine)?;
            let hits = run.read(set).await?;
            let (shapes, weights) = self.shapes(run, &hits).await?;
            let scores: Vec<f64> = hits.iter().map(|hit| view::number(hit, &score_field).unwrap_or(0.0)).collect();
            let work = move || pick(&scores, &shapes, &weights, metric, lambda, top_k);
            let picked = tokio::task::spawn_blocking(work).await.map_err(Error::internal)?;
            let mut hits: Vec<Option<Hit>> = hits.into_iter().map(Some).collect();
            let chosen = picked.into_iter().filter_map(|(place, score)| {
                let mut hit = hits[place].take()?;
                view::set(&mut hit, &to, score.into());
                Some(hit)
            });
            Ok(WorkingSet::Read(chosen.collect()))
        })
    }

    fn feature_uris(&self) -> Vec<String> {
        match &self.by {
            By::Features(features) => features.iter().filter_map(|(uri, _)| uri.literal()).collect(),
            By::Found | By::Fields(_) => Vec::new(),
        }
    }
}

impl Mmr {
    async fn shapes(&self, run: &mut Run<'_>, hits: &[Hit]) -> Result<(Vec<Shape>, Vec<f64>)> {
        let features: Vec<(String, f64)> = match &self.by {
            By::Fields(fields) => {
                let shape =
                    |hit: &Hit| Shape::Values(fields.iter().map(|(field, _)| view::values(hit, field)).collect());
                return Ok((hits.iter().map(shape).collect(), fields.iter().map(|(_, weight)| *weight).collect()));
            }
            By::Features(features) => {
                let named =
                    |(uri, weight): &(Setting<String>, f64)| Ok(uri.value(run.variables)?.map(|uri| (uri, *weight)));
                features.iter().filter_map(|feature| named(feature).transpose()).collect::<Result<_>>()?
            }
            By::Found => found_by(hits).map(|feature| (feature, 1.0)).into_iter().collect(),
        };
        let mut vectors = Vec::with_capacity(features.len());
        for (feature, _) in &features {
            vectors.push(run.vectors_of(hits, feature).await?);
        }
        if vectors.iter().flatten().all(Option::is_none) {
            run.notes.warnings.push(format!(
                "stage `{}` found no vectors to compare and ordered by score; name `diversity_feature_uri` or `diversity_fields`",
                run.stage_name
            ));
        }
        let shape = |place: usize| Shape::Vectors(vectors.iter_mut().map(|of| of[place].take()).collect());
        Ok(((0..hits.len()).map(shape).collect(), features.iter().map(|(_, weight)| *weight).collect()))
    }
}

/// The vector feature of the search that found most of the documents.
pub(super) fn found_by(hits: &[Hit]) -> Option<String> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for place in hits.iter().flat_map(|hit| &hit.searches).filter(|place| place.feature != "lexical") {
        match counts.iter_mut().find(|(feature, _)| *feature == place.feature) {
            Some((_, count)) => *count += 1,
            None => counts.push((&place.feature, 1)),
        }
    }
    counts.iter().max_by_key(|(_, count)| *count).map(|(feature, _)| (*feature).to_owned())
}

/// The places of the picked in their order, each with the score that it was picked by.
fn pick(
    scores: &[f64],
    shapes: &[Shape],
    weights: &[f64],
    metric: Metric,
    lambda: f64,
    top_k: usize,
) -> Vec<(usize, f64)> {
    let spread = spread(scores);
    let mut open: Vec<usize> = (0..scores.len()).collect();
    // The greatest resemblance of each to any of those picked.
    let mut nearest = vec![0.0_f64; scores.len()];
    let mut picked = Vec::new();
    while picked.len() < top_k {
        let score = |place: usize| lambda * spread(scores[place]) - (1.0 - lambda) * nearest[place];
        let best = open.iter().enumerate().max_by(|(_, a), (_, b)| score(**a).total_cmp(&score(**b)).then(b.cmp(a)));
        let Some((at, &place)) = best else { break };
        picked.push((place, score(place)));
        open.remove(at);
        for other in &open {
            nearest[*other] = nearest[*other].max(alike(&shapes[place], &shapes[*other], weights, metric));
        }
    }
    picked
}

/// How much two documents resemble, from 0 or less to 1: the weighted mean over what both show.
fn alike(a: &Shape, b: &Shape, weights: &[f64], metric: Metric) -> f64 {
    let parts: Vec<Option<f64>> = match (a, b) {
        (Shape::Vectors(a), Shape::Vectors(b)) => {
            a.iter().zip(b).map(|(a, b)| Some(near(a.as_ref()?, b.as_ref()?, metric))).collect()
        }
        (Shape::Values(a), Shape::Values(b)) => a.iter().zip(b).map(|(a, b)| Some(shared(a, b))).collect(),
        _ => Vec::new(),
    };
    let (mut sum, mut total) = (0.0, 0.0);
    for (part, weight) in parts.into_iter().zip(weights) {
        if let Some(part) = part {
            sum += part * weight;
            total += weight;
        }
    }
    if total > 0.0 { sum / total } else { 0.0 }
}

fn near(a: &[f32], b: &[f32], metric: Metric) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    match metric {
        Metric::Dot => dot(a, b),
        Metric::Cosine => cosine(a, b),
        Metric::Euclidean => 1.0 / (1.0 + a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt()),
    }
}

pub(super) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut dot, mut of_a, mut of_b) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (x, y) in a.iter().zip(b) {
        dot += x * y;
        of_a += x * x;
        of_b += y * y;
    }
    let lengths = f64::from(of_a).sqrt() * f64::from(of_b).sqrt();
    if lengths > 0.0 { f64::from(dot) / lengths } else { 0.0 }
}

/// The part of the values of both that both have; two documents without values share nothing.
fn shared(a: &[Value], b: &[Value]) -> f64 {
    let common = a.iter().filter(|value| b.contains(value)).count();
    let all = a.len() + b.len() - common;
    if all > 0 { common as f64 / all as f64 } else { 0.0 }
}

/// One vector for a document: of several rows their mean, of a sparse one none.
pub(super) fn as_one(vector: VectorValue) -> Option<Vec<f32>> {
    match vector {
        VectorValue::Dense(vector) => Some(vector),
        VectorValue::Multi(rows) => {
            let mut sum = rows.first()?.clone();
            for row in rows.iter().skip(1) {
                sum.iter_mut().zip(row).for_each(|(to, from)| *to += from);
            }
            Some(sum.into_iter().map(|x| x / rows.len() as f32).collect())
        }
        VectorValue::Sparse { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_pick_is_the_best_of_what_is_different() {
        let shape = |x: f32, y: f32| Shape::Vectors(vec![Some(vec![x, y])]);
        let shapes = [shape(1.0, 0.0), shape(1.0, 0.01), shape(0.0, 1.0)];
        let order = |lambda: f64, top_k: usize| {
            let picked = pick(&[1.0, 0.9, 0.5], &shapes, &[1.0], Metric::Cosine, lambda, top_k);
            picked.into_iter().map(|(place, _)| place).collect::<Vec<_>>()
        };
        assert_eq!(order(1.0, 3), [0, 1, 2]);
        assert_eq!(order(0.5, 3), [0, 2, 1]);
        assert_eq!(order(0.5, 1), [0]);
        assert!(pick(&[], &[], &[], Metric::Cosine, 0.5, 3).is_empty());
    }

    #[test]
    fn fields_resemble_by_the_values_that_both_have() {
        assert_eq!(shared(&[json!("a"), json!("b")], &[json!("b"), json!("c")]), 1.0 / 3.0);
        assert_eq!(shared(&[], &[]), 0.0);
        let values = |list: &[&str]| Shape::Values(vec![list.iter().map(|v| json!(v)).collect(), vec![json!(1)]]);
        assert_eq!(alike(&values(&["a"]), &values(&["b"]), &[3.0, 1.0], Metric::Cosine), 0.25);
    }
}
