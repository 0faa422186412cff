//! `fusion: learned` as a stage: its settings, and what it does with interactions.

use super::super::learning::{Credit, Event, Feedback};
use super::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn learned(config: Value) -> Value {
    let searches = json!([dense(), {"query": "stone", "lexical": true}]);
    json!([stage("feature_search", json!({"searches": searches, "fusion": "learned", "learning_config": config}))])
}

/// Clicks on documents that one of the searches found.
fn clicks(search: usize, feature: &str, count: usize) -> Arc<Feedback> {
    let found = vec![Credit { stage: "feature_search".into(), search, feature: feature.into(), rank: 1 }];
    let event = Event { at: 0, kinds: vec!["click".into()], inputs: BTreeMap::new(), found, feature_uri: None };
    Arc::new(Feedback { events: (0..count).map(|_| Arc::new(event.clone())).collect() })
}

#[test]
fn settings_that_cannot_be_are_refused_with_their_place() {
    for (config, field) in [
        (json!({"algorithm": "luck"}), "learning_config.algorithm"),
        (json!({"min_interactions": 0}), "learning_config.min_interactions"),
        (json!({"decay_factor": 0.5}), "learning_config.decay_factor"),
        (json!({"max_weight": 0.4}), "learning_config.max_weight"),
        (json!({"reward_signal": "stare"}), "learning_config.reward_signal"),
        (json!({"reward_map": {"stare": 1}}), "learning_config.reward_map.stare"),
        (json!({"reward_map": {"click": "much"}}), "learning_config.reward_map.click"),
        (json!({"context_features": ["DOC.title"]}), "learning_config.context_features"),
        (json!({"fallback_strategy": "none"}), "learning_config.fallback_strategy"),
        (json!({"shipped_weight_set": {"weight_set_id": "w"}}), "learning_config.shipped_weight_set"),
        (json!(3), "learning_config"),
    ] {
        let error = refused(learned(config.clone()));
        assert!(error.contains(&format!("parameters.{field}`")), "{config}: {error}");
    }
    let all = json!({
        "algorithm": "ucb", "context_features": [], "demographic_features": ["{{INPUT.country}}", "device"],
        "fallback_strategy": "global", "min_interactions": 3, "exploration_bonus": 2, "decay_window_days": 30,
        "shadow_mode": true, "rollout_pct": 50, "shipped_weight_set": null,
    });
    assert_eq!(plan(learned(all)).warnings, Vec::<String>::new());
}

#[test]
fn the_clicked_search_decides_once_there_are_enough_clicks() {
    let of = |feedback: Arc<Feedback>, config: Value| {
        let fake = Fake { feedback, ..Fake::fruit() };
        run(&fake, &plan(learned(config)), ExecuteRequest { chance: 7, ..request(json!({})) }).unwrap()
    };
    let told = |execution: &Execution| execution.learned_fusion.clone().unwrap();
    let few = of(clicks(1, "lexical", 4), json!({}));
    let first = |execution: &Execution| execution.hits[0].document.document_id.clone();
    assert_eq!((told(&few)["applied"].clone(), told(&few)["interactions"].clone()), (json!(false), json!(4)));
    assert_eq!(first(&few), "doc_5", "by rrf, what both found leads");
    let dense = of(clicks(0, "mixpeek://words@v1/embedding", 300), json!({"exploration_floor": 0}));
    assert_eq!(told(&dense)["applied"], json!(true));
    assert_eq!(first(&dense), "doc_1", "{:?}", told(&dense));
    let weights = &told(&dense)["sampled_weights"];
    assert!(weights["mixpeek://words@v1/embedding"].as_f64() > weights["lexical"].as_f64(), "{weights}");
    let again = of(clicks(0, "mixpeek://words@v1/embedding", 300), json!({"exploration_floor": 0}));
    assert_eq!(told(&again), told(&dense), "the same chance gives the same weights");
    let shadow = of(clicks(0, "mixpeek://words@v1/embedding", 300), json!({"shadow_mode": true}));
    assert_eq!((first(&shadow).as_str(), told(&shadow)["reason"].clone()), ("doc_5", json!("shadow mode")));
    let nobody = of(clicks(0, "mixpeek://words@v1/embedding", 300), json!({"rollout_pct": 0}));
    assert_eq!(told(&nobody)["applied"], json!(false));
}
