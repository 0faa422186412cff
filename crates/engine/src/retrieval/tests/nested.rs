//! Retrievers within retrievers.

use super::*;
use std::sync::Arc;

/// Stages that read all fruit and join what another retriever finds.
fn enriched(parameters: Value) -> Value {
    let all = json!({"field": "n", "operator": "gt", "value": 0});
    json!([stage("attribute_filter", all), stage("document_enrich", parameters)])
}

/// The fruit, and a stored retriever that finds documents of a kind, the largest `n` first.
fn fruit() -> Fake {
    let mut fake = Fake::fruit();
    fake.plans.insert("ret_kind".into(), Arc::new(by_kind()));
    fake
}

fn by_kind() -> Plan {
    let stages = json!([
        stage("attribute_filter", json!({"field": "kind", "operator": "eq", "value": "{{INPUT.kind}}"})),
        stage("sort_attribute", json!({"field": "n", "direction": "desc"})),
    ]);
    parsed(json!({"stages": stages, "input_schema": {"kind": {"type": "string", "required": true}}})).unwrap()
}

fn fields(made: &Execution, seq: i64) -> serde_json::Map<String, Value> {
    made.hits.iter().find(|hit| hit.document.seq == seq).unwrap().document.fields.clone()
}

#[test]
fn another_retriever_is_executed_for_each_document_and_once_for_equal_inputs() {
    let fake = fruit();
    let parameters = json!({
        "retriever_id": "ret_kind", "retriever_inputs": {"kind": "{{DOC.kind}}"},
        "output_field": "most", "fields_to_merge": ["text", "n"],
    });
    let made = run(&fake, &plan(enriched(parameters)), request(json!({}))).unwrap();
    assert_eq!(made.stages[1].metadata["executions"], 3, "cake, plant and Thing");
    assert_eq!((fake.called("scan"), fake.called("plan")), (4, 1));
    assert_eq!(fields(&made, 6)["most"], json!({"text": "apple pie", "n": 3}));
    assert_eq!(fields(&made, 3)["most"], json!({"text": "apple tree", "n": 9}));
    let many = json!({
        "retriever_id": "ret_kind", "retriever_inputs": {"kind": "{{DOC.kind}}"}, "limit": 2,
        "output_field": "all", "multiple": true, "fields_to_merge": ["n"],
    });
    let made = run(&fake, &plan(enriched(many)), request(json!({}))).unwrap();
    assert_eq!(fields(&made, 1)["all"], json!([{"n": 3}, {"n": 2}]));
}

#[test]
fn a_retriever_that_is_written_out_has_inputs_of_its_own() {
    let inline = json!({
        "retriever_config": {"stages": [stage("feature_search", json!({"searches": [{"feature_uri": "words", "query": "{{INPUT.words}}"}], "final_top_k": 1}))]},
        "retriever_inputs": {"words": "{{DOC.text}} {{INPUT.more}}"},
        "output_field": "near", "fields_to_merge": ["document_id", "score"],
    });
    let made = run(&fruit(), &plan(enriched(inline)), request(json!({"more": "please"}))).unwrap();
    assert_eq!(fields(&made, 5)["near"]["document_id"], "doc_5");
    assert!(fields(&made, 1)["near"]["score"].is_number());
    // A document that lacks what is read is not looked up; an input that was not sent is left out.
    let lacking = json!({
        "retriever_id": "ret_kind", "retriever_inputs": {"kind": "{{DOC.absent}}"}, "allow_missing": false,
    });
    assert!(run(&fruit(), &plan(enriched(lacking)), request(json!({}))).unwrap().hits.is_empty());
    let unsent = json!({"retriever_id": "ret_kind", "retriever_inputs": {"kind": "{{INPUT.kind}}"}});
    let error = run(&fruit(), &plan(enriched(unsent)), request(json!({}))).unwrap_err();
    assert!(error.contains("retriever_id") && error.contains("inputs.kind"), "{error}");
}

#[test]
fn a_cycle_and_a_deep_nest_are_refused() {
    let mut fake = fruit();
    let nest = |id: &str| plan(enriched(json!({"retriever_id": id, "output_field": "x"})));
    fake.plans.insert("ret_a".into(), Arc::new(nest("ret_b")));
    fake.plans.insert("ret_b".into(), Arc::new(nest("ret_a")));
    fake.plans.insert("ret_1".into(), Arc::new(nest("ret_2")));
    fake.plans.insert("ret_2".into(), Arc::new(nest("ret_3")));
    fake.plans.insert("ret_3".into(), Arc::new(nest("ret_4")));
    fake.plans.insert("ret_4".into(), Arc::new(nest("ret_kind")));
    let error = |id: &str| {
        let own = ExecuteRequest { within: vec![String::new()], ..request(json!({})) };
        run(&fake, &nest(id), own).unwrap_err()
    };
    assert!(error("ret_a").contains("within itself"), "{}", error("ret_a"));
    assert!(error("ret_1").contains("more than 3 deep"), "{}", error("ret_1"));
    assert!(error("nobody").contains("`nobody` does not exist"), "{}", error("nobody"));
    let mut inline = json!({"stages": [stage("limit", json!({}))]});
    for _ in 0..4 {
        inline =
            json!({"stages": [stage("document_enrich", json!({"retriever_config": inline, "output_field": "x"}))]});
    }
    let deep = parsed(inline).unwrap_err();
    assert!(deep.contains("more than 3 deep"), "{deep}");
}

#[test]
fn what_is_wrong_with_the_other_retriever_is_told_with_its_place() {
    for (parameters, place) in [
        (json!({"retriever_config": {"stages": []}}), "`stages.1.config.parameters.retriever_config.stages`"),
        (json!({"retriever_config": 5}), "parameters.retriever_config`"),
        (
            json!({"retriever_config": {"stages": [stage("nothing", json!({}))]}}),
            "retriever_config.stages.0.config.stage_id",
        ),
        (json!({"retriever_id": "ret_kind", "retriever_inputs": [1]}), "parameters.retriever_inputs`"),
        (json!({"retriever_id": "ret_kind", "retriever_config": {"stages": [1]}}), "name one of them"),
        (json!({"target_collection_id": "{{COLLECTION_ID}}"}), "parameters.target_collection_id`"),
        (json!({"retriever_id": "a", "target_collection_id": "b"}), "name one of them"),
    ] {
        let error = refused(enriched(parameters.clone()));
        assert!(error.contains(place), "{parameters}: {error}");
    }
    let placeholder =
        json!({"retriever_id": "ret_kind", "target_collection_id": "{{COLLECTION_ID}}", "retriever_config": {}});
    assert!(parsed(json!({"stages": enriched(placeholder)})).is_ok(), "what the SDK sends where nothing was said");
}

#[test]
fn what_was_left_out_further_in_is_told() {
    let mut fake = fruit();
    let search = stage("feature_search", json!({"query": "apple"}));
    fake.plans.insert("ret_words".into(), Arc::new(plan(json!([search]))));
    fake.broken.push("e5".into());
    let parameters = json!({"retriever_id": "ret_words", "output_field": "x"});
    let made = run(&fake, &plan(enriched(parameters)), request(json!({}))).unwrap();
    assert_eq!((made.status, made.degraded.len()), (Status::Degraded, 1));
    assert_eq!(made.degraded[0].stage.as_deref(), Some("document_enrich"));
}
