//! `shipped_weight_set` of a stage's `learning_config`: weights that were approved after an evaluation. Which weights
//! can be, the stage says.

use crate::retrieval::params::{Params, is_absent, number, text};
use crate::times;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use strata_model::{Error, Result};

/// Longest id of a weight set, in bytes; every hit repeats it.
const MAX_ID_BYTES: usize = 256;
const KEYS: [&str; 5] = ["weight_set_id", "weights", "evaluation_id", "baseline_evaluation_id", "shipped_at"];

/// JSON Schema of `shipped_weight_set`; `about` and `about_weights` tell what the stage does with it.
pub(super) fn schema(about: &str, about_weights: &str) -> Value {
    let id = |about: &str| json!({"type": "string", "description": about});
    json!({
        "type": "object",
        "description": about,
        "required": ["weight_set_id", "evaluation_id", "baseline_evaluation_id", "shipped_at"],
        "additionalProperties": false,
        "properties": {
            "weight_set_id": {"type": "string", "maxLength": MAX_ID_BYTES, "description": "Told with every hit that these weights ranked."},
            "weights": {
                "type": "object",
                "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
                "description": about_weights,
            },
            "evaluation_id": id("The evaluation of these weights, of the same namespace."),
            "baseline_evaluation_id": id("The one that it was compared with."),
            "shipped_at": {"type": "string", "format": "date-time"},
        },
    })
}

/// A weight set as it is written.
#[derive(Debug)]
pub(super) struct Shipped {
    pub id: Arc<str>,
    /// By feature; may be empty.
    pub weights: BTreeMap<String, f64>,
    /// The place of the weights.
    pub weights_at: String,
}

impl Shipped {
    /// Takes the set out of a `learning_config`; `None` where there is none.
    pub fn take(params: &mut Params<'_>) -> Result<Option<Self>> {
        let Some((at, value)) = params.take(&["shipped_weight_set"]) else { return Ok(None) };
        let Value::Object(fields) = value else {
            return Err(Error::invalid(at, "must be an object with `weight_set_id` and `weights`"));
        };
        if let Some(name) = fields.keys().find(|name| !KEYS.contains(&name.as_str())) {
            let message = format!("is not a key of a weight set; those are {}", KEYS.join(", "));
            return Err(Error::invalid(format!("{at}.{name}"), message));
        }
        let needed = |name: &str| {
            let at = format!("{at}.{name}");
            match fields.get(name).filter(|value| !is_absent(value)) {
                Some(value) => text(value, &at),
                None => Err(Error::invalid(at, "is required")),
            }
        };
        let id = needed("weight_set_id")?;
        if id.len() > MAX_ID_BYTES {
            return Err(Error::invalid(
                format!("{at}.weight_set_id"),
                format!("must have at most {MAX_ID_BYTES} bytes, not {}", id.len()),
            ));
        }
        for name in ["evaluation_id", "baseline_evaluation_id"] {
            params.names_evaluation(needed(name)?, format!("{at}.{name}"));
        }
        times::moment(&needed("shipped_at")?, &format!("{at}.shipped_at"))?;
        let weights_at = format!("{at}.weights");
        Ok(Some(Self { id: id.into(), weights: weights(fields.get("weights"), &weights_at)?, weights_at }))
    }
}

fn weights(value: Option<&Value>, at: &str) -> Result<BTreeMap<String, f64>> {
    let weight = |(name, value): (&String, &Value)| {
        let weight = number(0.0..=1.0)(value, &format!("{at}.{name}"))?;
        Ok((name.clone(), weight))
    };
    match value.filter(|value| !is_absent(value)) {
        None => Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map.iter().map(weight).collect(),
        Some(_) => Err(Error::invalid(at, "must be an object of features and weights")),
    }
}
