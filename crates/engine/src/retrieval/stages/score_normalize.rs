//! `score_normalize`: scores on one scale.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, number, text, value_or};
use crate::retrieval::view;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "score_normalize",
    aliases: &[],
    category: Category::Sort,
    description: "Rescales scores over the working set, so that those of different searches compare. The order stays.",
    icon: "scale",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "method": {
                "type": "string", "enum": ["min_max", "z_score", "softmax", "l2"], "default": "min_max",
                "description": "`min_max` gives the best `max_value` and the worst `min_value`; `z_score` distances from the mean in standard deviations; `softmax` shares of 1; `l2` parts of the vector of all scores scaled to length 1.",
            },
            "score_field": {"type": "string", "default": "score", "description": "Dot path of the score; what is no number counts as 0."},
            "output_field": {"type": "string", "description": "Where the result goes; `score_field` where this is left out."},
            "min_value": {"type": "number", "default": 0, "description": "Of `min_max`: the least."},
            "max_value": {"type": "number", "default": 1, "description": "Of `min_max`: the greatest; also what equal scores get."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    MinMax,
    ZScore,
    Softmax,
    L2,
}

#[derive(Debug)]
struct ScoreNormalize {
    at: String,
    method: Option<Setting<Method>>,
    score_field: Option<Setting<String>>,
    output_field: Option<Setting<String>>,
    min_value: Option<Setting<f64>>,
    max_value: Option<Setting<f64>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let method = |value: &Value, at: &str| {
        let known = [
            ("min_max", Method::MinMax),
            ("z_score", Method::ZScore),
            ("softmax", Method::Softmax),
            ("l2", Method::L2),
        ];
        choice(value, at, &known)
    };
    let any = f64::MIN..=f64::MAX;
    let stage = ScoreNormalize {
        at: params.at().to_owned(),
        method: params.setting(&["method"], method)?,
        score_field: params.setting(&["score_field"], text)?,
        output_field: params.setting(&["output_field"], text)?,
        min_value: params.setting(&["min_value"], number(any.clone()))?,
        max_value: params.setting(&["max_value"], number(any))?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for ScoreNormalize {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let method = value_or(self.method.as_ref(), run.variables, Method::MinMax)?;
            let from = value_or(self.score_field.as_ref(), run.variables, "score".to_owned())?;
            let to = value_or(self.output_field.as_ref(), run.variables, from.clone())?;
            let least = value_or(self.min_value.as_ref(), run.variables, 0.0)?;
            let greatest = value_or(self.max_value.as_ref(), run.variables, 1.0)?;
            if least > greatest {
                return Err(Error::invalid(format!("{}.min_value", self.at), "must not be greater than `max_value`"));
            }
            let mut hits = run.read(set).await?;
            let scores: Vec<f64> = hits.iter().map(|hit| view::number(hit, &from).unwrap_or(0.0)).collect();
            for (hit, scaled) in hits.iter_mut().zip(scaled(&scores, method, (least, greatest))) {
                view::set(hit, &to, scaled.into());
            }
            Ok(WorkingSet::Read(hits))
        })
    }
}

/// The scores on a scale of `method`.
fn scaled(scores: &[f64], method: Method, (least, greatest): (f64, f64)) -> Vec<f64> {
    let count = scores.len() as f64;
    match method {
        Method::MinMax => {
            let spread = spread(scores);
            scores.iter().map(|score| least + spread(*score) * (greatest - least)).collect()
        }
        Method::ZScore => {
            let mean = scores.iter().sum::<f64>() / count;
            let deviation = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count).sqrt();
            scores.iter().map(|s| if deviation > 0.0 { (s - mean) / deviation } else { 0.0 }).collect()
        }
        Method::Softmax => {
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - best).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter().map(|w| w / sum).collect()
        }
        Method::L2 => {
            let length = scores.iter().map(|s| s * s).sum::<f64>().sqrt();
            scores.iter().map(|s| if length > 0.0 { s / length } else { 0.0 }).collect()
        }
    }
}

/// A score's place from 0, the worst, to 1, the best; 1 where all are equal.
pub(super) fn spread(scores: &[f64]) -> impl Fn(f64) -> f64 + use<> {
    let worst = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    move |score| if best > worst { (score - worst) / (best - worst) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_its_scale() {
        let of = |scores: &[f64], method| scaled(scores, method, (0.0, 1.0));
        assert_eq!(of(&[3.0, 2.0, 1.0], Method::MinMax), [1.0, 0.5, 0.0]);
        assert_eq!(scaled(&[3.0, 1.0], Method::MinMax, (-1.0, 1.0)), [1.0, -1.0]);
        assert_eq!(of(&[2.0, 2.0], Method::MinMax), [1.0, 1.0]);
        assert_eq!(of(&[3.0, 1.0], Method::ZScore), [1.0, -1.0]);
        assert_eq!(of(&[7.0], Method::ZScore), [0.0]);
        assert_eq!(of(&[3.0, 4.0], Method::L2), [0.6, 0.8]);
        assert_eq!(of(&[0.0], Method::L2), [0.0]);
        let shares = of(&[1000.0, 1000.0, 0.0], Method::Softmax);
        assert!((shares[0] - 0.5).abs() < 1e-9 && shares[2] < 1e-9, "{shares:?}");
        assert!(of(&[], Method::ZScore).is_empty());
    }
}
