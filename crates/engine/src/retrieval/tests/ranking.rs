//! Stages that order by models and vectors, and moments.

use super::*;
use strata_model::document::VectorValue;
use strata_model::feature::{Distance, VectorKind};

fn after(id: &str, parameters: Value) -> Value {
    let all = json!({"field": "n", "operator": "gt", "value": 0});
    json!([stage("attribute_filter", all), stage(id, parameters)])
}
fn none(id: &str, parameters: Value) -> Value {
    json!([stage("attribute_filter", json!({"field": "n", "value": 4711})), stage(id, parameters)])
}

#[test]
fn a_cross_encoder_orders_the_first_candidates() {
    // The stand-in's score is the part of a text's words that the query has.
    let query = json!({"query": "plum cake"});
    let made = found(after("rerank", json!({"document_field": "text"})), query.clone());
    assert_eq!(seqs(&made), [4, 1, 2, 3, 5, 6]);
    assert_eq!(made.hits[0].scores["rerank"], 1.0);
    let first =
        json!({"document_field": "text", "max_candidates": 3, "top_k": 5, "query": "tree", "score_field": "score"});
    let made = found(after("rerank", first), json!({}));
    assert_eq!((seqs(&made), made.hits[0].score), (vec![2, 3, 1, 4, 5], Some(0.5)));
    assert_eq!((&made.stages[1].metadata["scored"], &made.stages[1].metadata["not_scored"]), (&json!(3), &json!(3)));
    let cut = json!({"document_field": "text", "max_document_chars": 100, "batch_size": 2});
    let fake = Fake::fruit();
    run(&fake, &plan(after("rerank", cut)), request(query)).unwrap();
    assert_eq!(fake.called("pairs BAAI__bge_reranker_v2_m3 plum cake 6 2"), 1, "{:?}", fake.calls);
}

#[test]
fn documents_without_a_text_follow_in_their_order() {
    let mut fake = Fake::fruit();
    fake.documents[0].0.fields.remove("text");
    fake.documents[1].0.fields.insert("text".into(), "  ".into());
    let made =
        run(&fake, &plan(after("rerank", json!({"document_field": "text", "query": "stone"}))), request(json!({})));
    assert_eq!(seqs(&made.unwrap()), [5, 3, 4, 6, 1, 2]);
    let unnamed = found(after("rerank", json!({"query": "stone"})), json!({}));
    assert_eq!(seqs(&unnamed), [1, 2, 3, 4, 5, 6]);
    assert!(unnamed.warnings.iter().any(|w| w.contains("document_field")), "{:?}", unnamed.warnings);
    assert!(found(none("rerank", json!({"query": "x"})), json!({})).hits.is_empty());
}

#[test]
fn a_model_that_is_not_there_or_slow_keeps_the_order() {
    let of = |prepare: fn(&mut Fake), parameters: Value| {
        let mut fake = Fake::fruit();
        prepare(&mut fake);
        run(&fake, &plan(after("rerank", parameters)), request(json!({}))).unwrap()
    };
    let named = json!({"inference_name": "m", "query": "stone", "document_field": "text", "hard_timeout_ms": 20});
    for (made, word) in [
        (of(|f| f.broken.push("m".into()), named.clone()), "not installed"),
        (of(|f| f.slow.push("m".into()), named), "20 ms"),
    ] {
        assert_eq!((made.status, seqs(&made)), (Status::Degraded, vec![1, 2, 3, 4, 5, 6]));
        assert!(made.degraded[0].reason.contains(word), "{:?}", made.degraded);
    }
    let long = of(|_| (), json!({"query": "x", "document_field": "text", "hard_timeout_ms": 60_000}));
    assert_eq!((long.limits[0].name.as_str(), long.limits[0].applied), ("hard_timeout_ms", 10_000));
    for (parameters, place) in [
        (json!({"feature_uri": "mixpeek://a@v1/b"}), "parameters.feature_uri"),
        (json!({"decision_model": "m"}), "parameters.decision_model"),
        (json!({"max_candidates": 0}), "parameters.max_candidates"),
        (json!({"batch_size": 101}), "parameters.batch_size"),
        (json!({"max_document_chars": 99}), "parameters.max_document_chars"),
    ] {
        assert!(refused(after("rerank", parameters)).contains(place));
    }
    assert!(failed(after("rerank", json!({})), json!({})).contains("parameters.query"));
}

#[test]
fn weights_that_were_shipped_to_a_cross_encoder_are_refused_and_not_ignored() {
    let config = |weights: Value| {
        json!({"evaluation_dataset_id": "eds_1", "shipped_weight_set": {
            "weight_set_id": "set_1", "weights": weights, "evaluation_id": "eval_2", "baseline_evaluation_id": "eval_1",
            "shipped_at": "2026-01-31T12:00:00Z",
        }})
    };
    let of = |config: Value| {
        let query = json!({"query": "plum cake", "document_field": "text", "learning_config": config});
        after("rerank", query)
    };
    for (config, place, word) in [
        (json!("set_1"), "`", "an object"),
        (json!({"shipped_weight_set": "set_1"}), ".shipped_weight_set`", "an object"),
        (
            json!({"shipped_weight_set": {"weight_set_id": "set_1"}}),
            ".shipped_weight_set.evaluation_id`",
            "is required",
        ),
        (config(json!({"rerank": 2})), ".shipped_weight_set.weights.rerank`", "from 0 to 1"),
        (config(json!({"lexical": 0.2})), ".shipped_weight_set.weights`", "ship `set_1` in"),
    ] {
        let error = refused(of(config));
        assert!(error.contains(&format!("parameters.learning_config{place}")) && error.contains(word), "{error}");
    }
    for weights in [json!({}), json!(null)] {
        let plan = plan(of(config(weights)));
        assert_eq!(plan.warnings, Vec::<String>::new());
        assert_eq!(run(&Fake::fruit(), &plan, request(json!({}))).unwrap().hits[0].scores["rerank"], 1.0);
    }
    let unknown = plan(of(json!({"algorithm": "ucb"})));
    assert!(unknown.warnings[0].contains("learning_config.algorithm"), "{:?}", unknown.warnings);
}

/// The fruit with rows of two numbers each; stone has none, and its sibling in another collection has.
fn rows() -> Fake {
    let mut fake = Fake::fruit();
    let mut multi = fake::index("rows", "", 2);
    (multi.kind, multi.distance) = (VectorKind::MultiDense, Distance::Dot);
    fake.collections[0].vector_indexes.push(multi.clone());
    for (document, vectors) in &mut fake.documents {
        document.lineage.root_object_id = Some(format!("obj_{}", document.seq));
        if document.seq != 5 {
            let n = document.seq as f32;
            vectors.insert("rows".into(), VectorValue::Multi(vec![vec![n, 0.0], vec![0.0, 7.0 - n]]));
        }
    }
    let mut other = fake.collections[0].clone();
    (other.collection_id, other.collection_name) = ("col_b".into(), "siblings".into());
    other.vector_indexes = vec![multi];
    fake.collections.push(other);
    let mut sibling = fake::document(50, json!({"n": -1}));
    sibling.collection_id = "col_b".into();
    sibling.lineage.root_object_id = Some("obj_5".into());
    let vector = VectorValue::Multi(vec![vec![100.0, 0.0]]);
    fake.documents.push((sibling, [("rows".to_owned(), vector)].into_iter().collect()));
    fake
}

#[test]
fn late_interaction_orders_by_the_best_rows() {
    let of = |parameters: Value, inputs: Value| {
        let mut all = json!({"feature_uri": "rows"});
        all.as_object_mut().unwrap().extend(parameters.as_object().cloned().unwrap());
        let mut body = json!({"stages": after("maxsim_rerank", all)});
        body["collection_identifiers"] = json!(["fruit"]);
        run(&rows(), &parsed(body).unwrap(), request(inputs))
    };
    let made = of(json!({"query": [[1, 0]]}), json!({})).unwrap();
    assert_eq!((seqs(&made), made.hits[0].score), (vec![6, 4, 3, 2, 1, 5], Some(6.0)));
    assert_eq!(made.stages[1].metadata["without_vectors"], 1);
    let both = of(json!({"query": "{{INPUT.rows}}"}), json!({"rows": [[1, 0], [0, 2]]})).unwrap();
    assert_eq!((seqs(&both)[0], both.hits[0].scores["maxsim"].as_f64()), (1, Some(13.0)));
    let some = of(json!({"query": [1, 0], "missing": "drop", "top_n": 5}), json!({})).unwrap();
    assert_eq!(seqs(&some), [4, 3, 2, 1, 6], "the sixth was not looked at");
    let lent = of(json!({"query": [1, 0], "match_on": "root_object_id"}), json!({})).unwrap();
    assert_eq!((seqs(&lent)[0], lent.hits[0].score), (5, Some(100.0)));
    for (parameters, word) in [
        (json!({"query": "apple"}), "vectors that callers bring"),
        (json!({"query": [[1, 2, 3]]}), "rows of 2 numbers, not 3"),
        (json!({"query": [1, 0], "feature_uri": "nothing"}), "no collection"),
        (json!({}), "is empty"),
    ] {
        let error = of(parameters.clone(), json!({})).unwrap_err();
        assert!(error.contains(word), "{parameters}: {error}");
    }
    assert!(refused(after("maxsim_rerank", json!({"query": [1]}))).contains("parameters.feature_uri"));
    assert!(found(none("maxsim_rerank", json!({"feature_uri": "words", "query": [1, 0]})), json!({})).hits.is_empty());
    let text = found(after("maxsim_rerank", json!({"feature_uri": "words"})), json!({"query": "stone"}));
    assert_eq!(seqs(&text)[0], 5, "a single vector is one row, and its model makes one of a text");
}

#[test]
fn a_text_is_as_many_rows_as_its_model_makes_of_it() {
    let mut fake = rows();
    for index in fake.collections.iter_mut().flat_map(|collection| &mut collection.vector_indexes) {
        if index.name == "rows" {
            index.model = "late".into();
        }
    }
    let asked = |stages: Value, query: &str| {
        let body = json!({"collection_identifiers": ["fruit"], "stages": stages});
        run(&fake, &parsed(body).unwrap(), request(json!({"query": query}))).unwrap()
    };
    let searches = json!([{"feature_uri": "rows", "query": "{{INPUT.query}}"}]);
    let search = json!([stage("feature_search", json!({"searches": searches}))]);
    // Of document n the rows answer `apple` with n and `stone` with 7 - n.
    let made = asked(search.clone(), "apple stone stone");
    assert_eq!((seqs(&made), made.hits[0].score), (vec![1, 2, 3, 4, 6], Some(13.0)));
    assert_eq!(seqs(&asked(search, "apple apple stone")), [6, 4, 3, 2, 1]);
    let reranked = asked(after("maxsim_rerank", json!({"feature_uri": "rows"})), "apple stone stone");
    assert_eq!((seqs(&reranked), reranked.hits[0].score), (vec![1, 2, 3, 4, 6, 5], Some(13.0)));
}

#[test]
fn moments_are_made_by_source() {
    let mut fake = Fake::fruit();
    for (document, _) in &mut fake.documents {
        let n = document.seq;
        document.lineage.root_object_id = Some(format!("obj_{}", n % 2));
        document.fields.insert("start_time".into(), json!(n * 10));
        document.fields.insert("end_time".into(), json!(n * 10 + 10));
    }
    let of = |parameters: Value| run(&fake, &plan(after("moment_group", parameters)), request(json!({}))).unwrap();
    let made = of(json!({}));
    assert_eq!(seqs(&made), [1, 2]);
    assert_eq!(made.hits[0].document.fields["moments"].as_array().unwrap().len(), 3);
    let wide = of(json!({"max_gap_ms": 10_000}));
    assert_eq!(
        wide.hits[1].document.fields["moments"],
        json!([{"start_ms": 20_000, "end_ms": 70_000, "duration_ms": 50_000, "score": null, "match_count": 3, "document_ids": ["doc_2", "doc_4", "doc_6"]}])
    );
    assert_eq!(wide.stages[1].metadata["moments"], 2);
    assert!(found(none("moment_group", json!({})), json!({})).hits.is_empty());
    let untimed = found(after("moment_group", json!({"output_field": "ranges"})), json!({}));
    assert_eq!((untimed.hits.len(), &untimed.hits[0].document.fields["ranges"]), (6, &json!([])));
    assert!(refused(after("moment_group", json!({"max_gap_ms": -1}))).contains("max_gap_ms"));
}
