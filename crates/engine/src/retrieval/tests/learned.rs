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
        (json!({"shipped_weight_set": "w"}), "learning_config.shipped_weight_set"),
        (json!({"shipped_weight_set": {"weight_set_id": "w"}}), "learning_config.shipped_weight_set.evaluation_id"),
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

const WORDS: &str = "mixpeek://words@v1/embedding";

fn weight_set(weights: &Value) -> Value {
    json!({
        "weight_set_id": "set_1", "weights": weights, "evaluation_id": "eval_2", "baseline_evaluation_id": "eval_1",
        "shipped_at": "2026-01-31T12:00:00Z",
    })
}

/// A stage with these searches and weights.
fn shipped(searches: &Value, weights: &Value) -> Value {
    let config = json!({"shipped_weight_set": weight_set(weights)});
    let parameters = json!({"searches": searches, "fusion": "learned", "learning_config": config});
    json!([stage("feature_search", parameters)])
}

#[test]
fn a_weight_set_that_does_not_fit_its_searches_is_refused_with_its_place() {
    let other = |name: &str, value: Value| {
        let mut set = weight_set(&json!({}));
        set[name] = value;
        learned(json!({"shipped_weight_set": set}))
    };
    let two = json!([dense(), {"query": "stone", "lexical": true}]);
    let same = json!([dense(), {"feature_uri": "words", "query": "pear"}]);
    for (stages, place, word) in [
        (other("weight_set_id", json!("")), ".weight_set_id`", "empty"),
        (other("weight_set_id", json!("w".repeat(257))), ".weight_set_id`", "256 bytes"),
        (other("baseline_evaluation_id", json!(null)), ".baseline_evaluation_id`", "is required"),
        (other("shipped_at", json!("lately")), ".shipped_at`", "a time"),
        (other("approved_by", json!("ada")), ".approved_by`", "weight_set_id, weights"),
        (other("weights", json!([1, 2])), ".weights`", "an object"),
        (shipped(&two, &json!({"words": 0.5, "lexical": 1.5})), ".weights.lexical`", "from 0 to 1"),
        (shipped(&two, &json!({"words": 0.5, "lexical": 0.5, "wrods": 0.5})), ".weights.wrods`", "names no search"),
        (shipped(&two, &json!({"words": 0.5, "lexical": 0.5, "words#1": 0.5})), ".weights.words#1`", "names no search"),
        (shipped(&two, &json!({"words": 0.5, "lexical": 0.5, "words#2": 0.5})), ".weights.words#2`", "names no search"),
        (shipped(&two, &json!({"words": 0.5})), ".weights`", "no weight of `lexical`, where search 1"),
        (shipped(&two, &json!({"lexical": 0.5})), ".weights`", "no weight of `words`, where search 0"),
        (shipped(&same, &json!({"words#0": 0.5})), ".weights`", "no weight of `words`, where search 1"),
        (shipped(&json!([{"query": "stone"}]), &json!({"http://x": 0.5})), ".weights.http://x`", "names no search"),
    ] {
        let error = refused(stages);
        let place = format!("parameters.learning_config.shipped_weight_set{place}");
        assert!(error.contains(&place) && error.contains(word), "{place} {word}: {error}");
    }
    let template = json!({"feature_uri": "{{INPUT.index}}", "query": "stone"});
    for (searches, weights) in [
        (&two, json!({"words": 0.5, "lexical": 0})),
        (&two, json!({(WORDS): 0.5, "lexical#1": 0.5})),
        (&same, json!({"words": 0.5})),
        (&same, json!({(WORDS): 0.5, (format!("{WORDS}#1")): 0.2})),
        (&json!([{"query": "stone"}]), json!({"lexical": 0.2, (WORDS): 0.5, "own": 0.1})),
        (&json!([template]), json!({"words": 0.2})),
    ] {
        assert_eq!(plan(shipped(searches, &weights)).warnings, Vec::<String>::new(), "{weights}");
    }
}

#[test]
fn a_shipped_weight_set_ranks_instead_of_what_was_learned() {
    let of = |feedback: Arc<Feedback>, config: Value| {
        let fake = Fake { feedback, ..Fake::fruit() };
        run(&fake, &plan(learned(config)), ExecuteRequest { chance: 7, ..request(json!({})) }).unwrap()
    };
    let told = |execution: &Execution| execution.learned_fusion.clone().unwrap();
    let share = |execution: &Execution, feature: &str| {
        let places = execution.hits.iter().flat_map(|hit| &hit.searches);
        places.filter(|place| place.feature == feature).map(|place| place.share).fold(0.0, f64::max)
    };
    let sets = |execution: &Execution| -> Vec<Option<String>> {
        let places = execution.hits.iter().flat_map(|hit| &hit.searches);
        places.map(|place| place.weight_set_id.as_deref().map(str::to_owned)).collect()
    };
    // All clicks are on what the vectors found. The set has the words decide, and leaves the vectors less than
    // `min_weight`.
    let set = weight_set(&json!({"words": 0.01, "lexical": 0.8}));
    for more in [json!({}), json!({"shadow_mode": true}), json!({"rollout_pct": 0}), json!({"min_interactions": 100})] {
        let mut config = more.clone();
        config["shipped_weight_set"] = set.clone();
        let execution = of(clicks(0, WORDS, 50), config);
        assert_eq!(execution.hits[0].document.document_id, "doc_5", "{more}: what has the word leads");
        assert_eq!((share(&execution, "lexical"), share(&execution, WORDS)), (0.8 / 61.0, 0.01 / 61.0), "{more}");
        assert!(sets(&execution).iter().all(|id| id.as_deref() == Some("set_1")), "{more}: {:?}", sets(&execution));
        let told = told(&execution);
        assert_eq!((&told["applied"], &told["weight_set_id"]), (&json!(true), &json!("set_1")), "{told}");
        assert_eq!(told["sampled_weights"], json!({(WORDS): 0.01, "lexical": 0.8}), "{told}");
        assert_eq!(execution.stages[0].metadata["fusion"], "learned");
    }
    let hit = of(Arc::default(), json!({"shipped_weight_set": set})).hits.remove(0);
    assert_eq!(provenance::of(&hit)["searches"][0]["weight_set_id"], "set_1");

    // Without weights the set is nothing.
    for weights in [json!({}), json!(null)] {
        let execution = of(clicks(0, WORDS, 300), json!({"shipped_weight_set": weight_set(&weights)}));
        let told = told(&execution);
        assert_eq!((&told["interactions"], &told["weight_set_id"]), (&json!(300), &json!(null)), "{told}");
        assert!(sets(&execution).iter().all(Option::is_none));
        assert!(provenance::of(&execution.hits[0])["searches"][0].get("weight_set_id").is_none());
    }
}

#[test]
fn a_weight_set_names_searches_by_number_and_fits_or_is_told_not_to() {
    let share = |execution: &Execution, search: usize| {
        let places = execution.hits.iter().flat_map(|hit| &hit.searches);
        places.filter(|place| place.search == search).map(|place| place.share).fold(0.0, f64::max)
    };
    let same = json!([dense(), {"feature_uri": "words", "query": "pear"}]);
    for weights in [json!({"words": 0.3, "words#1": 0.6}), json!({(WORDS): 0.3, (format!("{WORDS}#1")): 0.6})] {
        let execution = found(shipped(&same, &weights), json!({}));
        assert_eq!((share(&execution, 0), share(&execution, 1)), (0.3 / 61.0, 0.6 / 61.0), "{weights}");
    }

    // What a search without an index looks in is known only now, and the set has a part of it.
    let execution = found(shipped(&json!([{"query": "apple"}]), &json!({"lexical": 0.5})), json!({}));
    let told = execution.learned_fusion.as_ref().unwrap();
    assert_eq!((&told["applied"], &told["weight_set_id"]), (&json!(false), &json!(null)), "{told}");
    assert!(execution.warnings.iter().any(|warning| warning.contains("`set_1`") && warning.contains(WORDS)));

    let alone = json!([{"query": "stone", "lexical": true}]);
    let execution = found(shipped(&alone, &json!({"lexical": 0.5})), json!({}));
    let told = execution.learned_fusion.as_ref().unwrap();
    assert_eq!((&told["applied"], &told["reason"]), (&json!(false), &json!("there is one search only")), "{told}");
    assert_eq!(execution.hits[0].searches[0].weight_set_id, None);
}
