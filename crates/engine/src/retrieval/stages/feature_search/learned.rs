//! `fusion: learned`: its settings, and the weights of an execution.

use super::Search;
use super::legs::Leg;
use super::shipped::{self, WeightSet};
use crate::retrieval::execute::Degraded;
use crate::retrieval::fusion::Ranking;
use crate::retrieval::learning::{Algorithm, Arm, Feedback, Learned, LearnedFusion, names};
use crate::retrieval::params::{Params, choice, count, flag, number, text, texts};
use crate::retrieval::stages::Run;
use crate::retrieval::stages::weight_set::Shipped;
use crate::retrieval::template::Node;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strata_model::{Error, Fields, Result, id};
use tokio::time::timeout;

/// Why weights change nothing: a lone ranking keeps its scores.
const ONE_SEARCH: &str = "there is one search only";

/// JSON Schema of `learning_config`.
pub(super) fn schema() -> Value {
    let number = |least: f64, most: f64, default: f64, about: &str| json!({"type": "number", "minimum": least, "maximum": most, "default": default, "description": about});
    let names = |about: &str| json!({"type": "array", "items": {"type": "string"}, "description": about});
    json!({
        "type": "object",
        "description": "Settings of `fusion: learned`.",
        "properties": {
            "algorithm": {"type": "string", "enum": ["thompson_sampling", "epsilon_greedy", "ucb"], "default": "thompson_sampling"},
            "context_features": names("Inputs whose values say whose interactions count first, such as `INPUT.user_id`, the default; an empty list learns for everybody at once."),
            "demographic_features": names("Inputs that count for those who have too few interactions of their own."),
            "fallback_strategy": {"type": "string", "enum": ["hierarchical", "global"], "default": "hierarchical"},
            "min_interactions": {"type": "integer", "minimum": 1, "maximum": 100, "default": 5, "description": "Below so many the fusion is `rrf`."},
            "reward_signal": {"type": "string", "default": "click", "description": "The type of interaction that is a reward of 1, where there is no `reward_map`."},
            "reward_map": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Rewards by type of interaction; negative ones are penalties."},
            "exploration_bonus": number(0.1, 10.0, 1.0, "How much is tried besides what was good."),
            "exploration_decay": number(0.9, 1.0, 0.99, "What the bonus is multiplied with for each interaction."),
            "exploration_floor": number(0.0, 5.0, 0.1, "What the bonus does not fall below."),
            "prior_alpha": {"type": "number", "minimum": 0.1, "default": 1.0},
            "prior_beta": {"type": "number", "minimum": 0.1, "default": 1.0},
            "decay_factor": number(0.9, 1.0, 0.995, "What an interaction counts less for each day of its age."),
            "decay_window_days": {"type": "integer", "minimum": 1, "maximum": 3650, "default": 365},
            "min_weight": number(0.0, 0.5, 0.05, "Least weight of a search."),
            "max_weight": number(0.5, 1.0, 0.95, "Largest weight of a search."),
            "max_reward_per_interaction": number(0.1, 100.0, 5.0, "Largest reward or penalty of one interaction."),
            "rollout_pct": number(0.0, 100.0, 100.0, "Percent of the users whose executions use what was learned."),
            "shadow_mode": {"type": "boolean", "default": false, "description": "Tells the weights and ranks by `rrf`."},
            "circuit_breaker_timeout_ms": {"type": "integer", "minimum": 1, "maximum": 30000, "default": 1000},
            "evaluation_dataset_id": {"type": "string", "description": "Kept; weights are learned from interactions as they come."},
            "shipped_weight_set": shipped::schema(),
        },
    })
}

/// `learning_config`.
#[derive(Debug)]
pub(super) struct Learning {
    settings: LearnedFusion,
    /// Weights that are used instead of learned ones.
    shipped: Option<WeightSet>,
}

/// How rankings came by their weights.
pub(super) struct Weighed {
    /// Name of the fusion.
    pub fusion: &'static str,
    /// The set that the weights are of.
    pub weight_set_id: Option<Arc<str>>,
}

/// Reads `learning_config` of a stage with these searches.
pub(super) fn read(mut params: Params<'_>, searches: &[Search]) -> Result<Learning> {
    let shipped = match Shipped::take(&mut params)? {
        Some(set) => WeightSet::of(set, searches)?,
        None => None,
    };
    Ok(Learning { settings: settings(params)?, shipped })
}

fn settings(mut params: Params<'_>) -> Result<LearnedFusion> {
    params.take(&["evaluation_dataset_id"]);
    let features = |params: &mut Params<'_>, name: &str| match params.take(&[name]) {
        Some((at, value)) => {
            texts(&value, &at)?.iter().map(|feature| input(feature, &at)).collect::<Result<_>>().map(Some)
        }
        None => Ok(None),
    };
    let context_features: Option<Vec<String>> = features(&mut params, "context_features")?;
    let demographic_features: Option<Vec<String>> = features(&mut params, "demographic_features")?;
    let rewards = rewards(&mut params)?;
    let mut real = |name: &str, least: f64, most: f64, default: f64| {
        let found = params.take(&[name]);
        found.map_or(Ok(default), |(at, value)| number(least..=most)(&value, &at))
    };
    let settings = LearnedFusion {
        algorithm: Algorithm::ThompsonSampling,
        context_features: context_features.unwrap_or_else(|| vec!["user_id".into()]),
        demographic_features: demographic_features.unwrap_or_default(),
        is_hierarchical: true,
        min_interactions: 5,
        rewards,
        exploration_bonus: real("exploration_bonus", 0.1, 10.0, 1.0)?,
        exploration_decay: real("exploration_decay", 0.9, 1.0, 0.99)?,
        exploration_floor: real("exploration_floor", 0.0, 5.0, 0.1)?,
        prior_alpha: real("prior_alpha", 0.1, 1e6, 1.0)?,
        prior_beta: real("prior_beta", 0.1, 1e6, 1.0)?,
        decay_factor: real("decay_factor", 0.9, 1.0, 0.995)?,
        decay_window_days: 365.0,
        min_weight: real("min_weight", 0.0, 0.5, 0.05)?,
        max_weight: real("max_weight", 0.5, 1.0, 0.95)?,
        max_reward: real("max_reward_per_interaction", 0.1, 100.0, 5.0)?,
        rollout_pct: real("rollout_pct", 0.0, 100.0, 100.0)?,
        is_shadow: false,
        timeout_ms: 1_000,
    };
    let whole = |params: &mut Params<'_>, name: &str, most: u64, default: usize| {
        let found = params.take(&[name]);
        found.map_or(Ok(default), |(at, value)| count(1..=most)(&value, &at))
    };
    let settings = LearnedFusion {
        algorithm: params.fixed(&["algorithm"], algorithm)?.unwrap_or(settings.algorithm),
        is_hierarchical: params.fixed(&["fallback_strategy"], is_hierarchical)?.unwrap_or(true),
        min_interactions: whole(&mut params, "min_interactions", 100, 5)?,
        decay_window_days: whole(&mut params, "decay_window_days", 3_650, 365)? as f64,
        timeout_ms: whole(&mut params, "circuit_breaker_timeout_ms", 30_000, 1_000)? as u64,
        is_shadow: params.fixed(&["shadow_mode"], flag)?.unwrap_or(false),
        ..settings
    };
    for name in settings.context_features.iter().chain(&settings.demographic_features) {
        // So that the input does not count as one that nothing reads.
        let read = Node::parse(&format!("{{{{INPUT.{name}}}}}").into(), params.at());
        drop(read.map(|node| params.note(node)));
    }
    params.finish();
    Ok(settings)
}

fn algorithm(value: &Value, at: &str) -> Result<Algorithm> {
    let known = [
        ("thompson_sampling", Algorithm::ThompsonSampling),
        ("epsilon_greedy", Algorithm::EpsilonGreedy),
        ("ucb", Algorithm::Ucb),
    ];
    choice(value, at, &known)
}

/// Whether the demographic features are tried before everybody.
fn is_hierarchical(value: &Value, at: &str) -> Result<bool> {
    choice(value, at, &[("hierarchical", true), ("global", false)])
}

/// The input that a feature names: `INPUT.user_id`, the same in braces, or the bare name.
fn input(feature: &str, at: &str) -> Result<String> {
    let bare = feature.trim().trim_start_matches("{{").trim_end_matches("}}").trim();
    let name = match bare.split_once('.') {
        Some((space, name)) if space.eq_ignore_ascii_case("input") || space.eq_ignore_ascii_case("inputs") => name,
        Some(_) => return Err(Error::invalid(at, format!("`{feature}` is not an input; write `INPUT.<name>`"))),
        None => bare,
    };
    if name.is_empty() { Err(Error::invalid(at, "must name inputs")) } else { Ok(name.to_owned()) }
}

fn rewards(params: &mut Params<'_>) -> Result<BTreeMap<String, f64>> {
    let signal = params.fixed(&["reward_signal"], kind)?;
    match params.take(&["reward_map"]) {
        None => Ok(BTreeMap::from([(signal.unwrap_or_else(|| "click".into()), 1.0)])),
        Some((at, Value::Object(map))) => map
            .iter()
            .map(|(name, value)| {
                let at = format!("{at}.{name}");
                Ok((kind(&name.as_str().into(), &at)?, number(-1e6..=1e6)(value, &at)?))
            })
            .collect(),
        Some((at, _)) => Err(Error::invalid(at, "must be an object of types of interactions and rewards")),
    }
}

/// A type of interaction.
fn kind(value: &Value, at: &str) -> Result<String> {
    let name = text(value, at)?;
    crate::interactions::check_kind(&name, at)?;
    Ok(name)
}

/// The inputs that can tell one context from another, as texts.
pub(crate) fn context(inputs: &Fields) -> BTreeMap<String, String> {
    /// Longest value that is told apart from others, in bytes.
    const MAX_BYTES: usize = 256;
    let told = |value: &Value| match value {
        Value::String(text) if text.len() <= MAX_BYTES && !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    };
    inputs.iter().filter_map(|(name, value)| Some((name.clone(), told(value)?))).collect()
}

/// Gives the rankings the weights of the weight set that was shipped, else those that were learned, where that is
/// possible. What they come from is noted for the answer.
pub(super) async fn weigh(learning: &Learning, run: &mut Run<'_>, legs: &[Leg], rankings: &mut [Ranking]) -> Weighed {
    let arms: Vec<Arm> =
        legs.iter().map(|leg| Arm { search: leg.basis.search, feature: leg.feature.clone() }).collect();
    if let Some(set) = &learning.shipped {
        match set.weights(&arms) {
            Ok(weights) => return ship(&learning.settings, set, run, &arms, weights, rankings),
            Err(feature) => run.notes.warnings.push(format!(
                "stage `{}` fused without the weight set `{}`, which has no weight of `{feature}`",
                run.stage_name, set.id
            )),
        }
    }
    Weighed { fusion: learn(&learning.settings, run, &arms, rankings).await, weight_set_id: None }
}

/// Gives the rankings the weights of a weight set, as they are: they were measured so, and `min_weight` and `max_weight`
/// bound what is learned. No interaction is read for that; they go on being kept.
fn ship(
    settings: &LearnedFusion,
    set: &WeightSet,
    run: &mut Run<'_>,
    arms: &[Arm],
    weights: Vec<f64>,
    rankings: &mut [Ranking],
) -> Weighed {
    let reason = (arms.len() < 2).then_some(ONE_SEARCH);
    if reason.is_none() {
        for (ranking, weight) in rankings.iter_mut().zip(&weights) {
            ranking.weight = *weight;
        }
    }
    let learned = Learned {
        weights: Some(weights),
        level: None,
        context_key: "global".into(),
        interactions: 0,
        skipped: 0,
        exploration: 0.0,
        is_exploring: false,
    };
    let told = told(settings, run.stage_name, arms, &learned, Some(&set.id), reason);
    note(run, told);
    match reason {
        None => Weighed { fusion: "learned", weight_set_id: Some(set.id.clone()) },
        Some(_) => Weighed { fusion: "rrf", weight_set_id: None },
    }
}

/// Gives the rankings the weights that were learned; answers the name of the fusion.
async fn learn(settings: &LearnedFusion, run: &mut Run<'_>, arms: &[Arm], rankings: &mut [Ranking]) -> &'static str {
    let retriever_id = run.within.last().map_or("", String::as_str);
    let feedback = match timeout(Duration::from_millis(settings.timeout_ms), run.backend.feedback(retriever_id)).await {
        Ok(Ok(feedback)) => feedback,
        Ok(Err(error)) => missing(run, error.to_string()),
        Err(_) => missing(run, format!("interactions could not be read within {} ms", settings.timeout_ms)),
    };
    let inputs = context(run.variables.inputs());
    // Two stages of one execution choose apart from each other.
    let digest = id::sha256_parts(&[run.stage_name.as_bytes(), &run.chance.to_le_bytes()]);
    let chance = u64::from_le_bytes(digest[..8].try_into().expect("a digest has more than 8 bytes"));
    let learned = settings.learn(run.stage_name, arms, &feedback, &inputs, run.now_micros, chance);
    let reason = match &learned.weights {
        _ if arms.len() < 2 => Some(ONE_SEARCH),
        None => Some("there are fewer interactions than `min_interactions`"),
        _ if settings.is_shadow => Some("shadow mode"),
        _ if !settings.is_rolled_out(&inputs, run.chance) => Some("outside the rollout"),
        Some(weights) => {
            for (ranking, weight) in rankings.iter_mut().zip(weights) {
                ranking.weight = *weight;
            }
            None
        }
    };
    let told = told(settings, run.stage_name, arms, &learned, None, reason);
    note(run, told);
    if reason.is_none() { "learned" } else { "rrf" }
}

fn note(run: &mut Run<'_>, told: Value) {
    run.metadata.insert("learned_fusion".into(), told.clone());
    run.notes.learned.push(told);
}

fn missing(run: &mut Run<'_>, reason: String) -> Arc<Feedback> {
    run.notes.warnings.push(format!("stage `{}` fused without what was learned: {reason}", run.stage_name));
    run.notes.degraded.push(Degraded {
        resource: "learned_fusion".into(),
        id: None,
        reason,
        next_step: "raise `circuit_breaker_timeout_ms`, or try again".into(),
        stage: Some(run.stage_name.to_owned()),
    });
    Arc::default()
}

/// The answer's `learned_fusion_context`.
fn told(
    settings: &LearnedFusion,
    stage: &str,
    arms: &[Arm],
    learned: &Learned,
    weight_set_id: Option<&str>,
    reason: Option<&str>,
) -> Value {
    let names = names(arms);
    let weights: Option<Fields> = learned
        .weights
        .as_ref()
        .map(|weights| names.iter().cloned().zip(weights.iter().map(|weight| json!(weight))).collect());
    let mut features: Vec<&str> = Vec::new();
    for arm in arms {
        if !features.contains(&arm.feature.as_str()) {
            features.push(&arm.feature);
        }
    }
    json!({
        "stage": stage,
        "algorithm": settings.algorithm.as_str(),
        "applied": reason.is_none(),
        "reason": reason,
        "weight_set_id": weight_set_id,
        "context_level": learned.level.map(|level| level.as_str()),
        "context_key": learned.context_key,
        "sampled_weights": weights.unwrap_or_default(),
        "feature_uris": features,
        "effective_exploration": learned.exploration,
        "exploring": learned.is_exploring,
        "interactions": learned.interactions,
        "skipped_interactions": learned.skipped,
        "min_interactions": settings.min_interactions,
    })
}
