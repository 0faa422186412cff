//! Plans and executions as a whole, over a backend in memory.

mod applying;
mod generate;
mod keeping;
mod learned;
mod nested;
mod outside;
mod properties;
mod ranking;
mod shaping;

use super::fake::{self, Fake};
use super::*;
use serde_json::json;
use std::time::Duration;
use strata_model::Error;

fn plan(stages: Value) -> Plan {
    parsed(json!({"stages": stages})).unwrap()
}
fn parsed(body: Value) -> Result<Plan, String> {
    let spec = RetrieverSpec::from_body(body.as_object().unwrap()).map_err(|e| e.to_string())?;
    Plan::parse(&spec).map_err(|e| e.to_string())
}
fn refused(stages: Value) -> String {
    parsed(json!({"stages": stages})).unwrap_err()
}
fn stage(id: &str, parameters: Value) -> Value {
    json!({"stage_name": id, "config": {"stage_id": id, "parameters": parameters}})
}
fn request(inputs: Value) -> ExecuteRequest {
    ExecuteRequest {
        inputs: inputs.as_object().cloned().unwrap(),
        page: PageRequest::Cursor { limit: 500, cursor: None },
        ..ExecuteRequest::default()
    }
}
fn block<T>(future: impl Future<Output = T> + Send) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
fn run(fake: &Fake, plan: &Plan, request: ExecuteRequest) -> Result<Execution, String> {
    block(plan.execute(fake, request)).map_err(|e| e.to_string())
}
fn found(stages: Value, inputs: Value) -> Execution {
    run(&Fake::fruit(), &plan(stages), request(inputs)).unwrap()
}
fn failed(stages: Value, inputs: Value) -> String {
    run(&Fake::fruit(), &plan(stages), request(inputs)).unwrap_err()
}
fn seqs(execution: &Execution) -> Vec<i64> {
    execution.hits.iter().map(|h| h.document.seq).collect()
}
/// A dense search of the index `words` by a text.
fn dense() -> Value {
    json!({"feature_uri": "words", "query": "apple"})
}

#[test]
fn the_registry_describes_every_stage() {
    let ids: Vec<&str> = registry().iter().map(|d| d.stage_id).collect();
    assert_eq!(ids.len(), ids.iter().collect::<std::collections::HashSet<_>>().len(), "{ids:?}");
    for definition in registry() {
        let json = definition.to_json();
        assert_eq!(json["parameter_schema"]["type"], "object");
        assert!(["filter", "sort", "reduce", "apply", "enrich"].contains(&json["category"].as_str().unwrap()));
        assert!(!json["description"].as_str().unwrap().contains("  "), "{json}");
    }
}

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    for (stages, place, word) in [
        (json!([]), "`stages`", "at least one"),
        (json!([stage("feature_serch", json!({}))]), "`stages.0.config.stage_id`", "feature_search, attribute_filter"),
        (
            json!([stage("limit", json!({})), stage("agent_search", json!({}))]),
            "`stages.1.config.stage_id`",
            "not available in this version",
        ),
        (json!([stage("feature_search", json!({}))]), "`stages.0.config.parameters.searches`", "is required"),
        (
            json!([stage("feature_search", json!({"searches": [{"query": "{{INPUT.}}"}]}))]),
            "`stages.0.config.parameters.searches.0.query`",
            "not a template",
        ),
        (
            json!([stage("feature_search", json!({"searches": [{"query": "{{FOO.x}}"}]}))]),
            "`stages.0.config.parameters.searches.0.query`",
            "FOO",
        ),
        (
            json!([stage("feature_search", json!({"searches": [{"query": "x", "feature_uri": "http://x"}]}))]),
            "searches.0.feature_uri",
            "index name",
        ),
        (
            json!([stage("feature_search", json!({"searches": [{"query": {"input_mode": "content", "value": "!"}}]}))]),
            "searches.0.query.value",
            "base64",
        ),
        (
            json!([stage("feature_search", json!({"searches": [{"query": {"values": ["aGk="]}}]}))]),
            "searches.0.query.input_mode",
            "several contents",
        ),
        (
            json!([stage("feature_search", json!({"query": "x", "fusion": "learned"}))]),
            "parameters.learning_config",
            "is required",
        ),
        (json!([stage("feature_search", json!({"query": "x", "fusion": "newest"}))]), "parameters.fusion", "rrf, dbsf"),
        (
            json!([stage("feature_search", json!({"query": "x", "final_top_k": 0}))]),
            "parameters.final_top_k",
            "from 1 to 5000",
        ),
        (
            json!([stage("feature_search", json!({"query": "x", "group_by": {}}))]),
            "parameters.group_by.field",
            "is required",
        ),
        (
            json!([{"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": {"query": "x"}, "pre_filters": {"field": "a", "value": "{{DOC.b}}"}}}]),
            "stages.0.config.pre_filters",
            "DOC",
        ),
        (
            json!([stage(
                "attribute_filter",
                json!({"conditions": {"AND": [{"field": "a", "operator": "x", "value": 1}]}})
            )]),
            "stages.0.config.parameters.conditions.AND.0.operator",
            "not an operator",
        ),
        (
            json!([stage("attribute_filter", json!({"natural_language": "red ones"}))]),
            "parameters.natural_language",
            "not available",
        ),
        (json!([stage("attribute_filter", json!({}))]), "parameters.conditions", "is required"),
        (json!([stage("sort_relevance", json!({"feature_address": "x"}))]), "parameters.feature_address", "refused"),
        (json!([stage("limit", json!({"limit": "many"}))]), "parameters.limit", "integer"),
        (
            json!([{"stage_name": "x", "on_error": "shrug", "config": {"stage_id": "limit"}}]),
            "stages.0.on_error",
            "one of",
        ),
    ] {
        let message = refused(stages.clone());
        assert!(message.contains(place) && message.contains(word), "{stages}: {message}");
    }
    let eleven: Vec<Value> = (0..11).map(|_| dense()).collect();
    assert!(refused(json!([stage("feature_search", json!({"searches": eleven}))])).contains("at most 10 searches"));
}

#[test]
fn every_spelling_of_a_search_finds_the_same() {
    let wanted = [1, 2, 6, 3, 4, 5];
    for stage in [
        json!({"stage_name": "s", "stage_type": "filter", "config": {"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "query": {"input_mode": "text", "value": "{{INPUT.query}}"}}]}}}),
        json!({"stage_type": "filter", "stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "mixpeek://words@v1/embedding", "query": "{{INPUT.query}}"}]}}),
        json!({"stage_name": "feature_search", "version": "v1", "parameters": {"feature_uris": [{"uri": "words", "input": {"text": "{{INPUT.query}}"}}]}}),
        json!({"type": "feature_search", "features": [{"feature_uri": "words", "query_input": "{{inputs.query}}", "top_k": 10}], "limit": 10}),
        json!({"type": "feature_search", "query": "apple", "lexical": false, "collection_ids": [], "feature_extractor": {"type": "text"}, "limit": 10}),
        json!({"stage_id": "semantic_search", "parameters": {"query": "{{INPUT.query}}", "vector_index": "words", "top_k": 10}}),
        json!({"stage_id": "knn_search", "parameters": {"vector": [1, 0], "vector_index": "words", "top_k": 10}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"vector_name": "words", "vector": [1, 0]}]}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "query": {"input_mode": "vector", "value": "{{INPUT.v}}"}}]}}),
        json!({"stage_id": "feature_search", "parameters": {"query": "{{INPUT.query}}", "feature_uris": ["words"]}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "input_mode": "text", "text": "{{INPUT.query}}", "min_score": null, "collection_identifiers": "null"}]}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "query": {"input_mode": "document", "document_ref": {"collection_id": "fruit", "document_id": "doc_1"}}}]}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "query": {"input_mode": "content", "value": "data:text/plain;base64,YXBwbGU="}}]}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "query": {"input_mode": "content", "content": {"base64": "YXBwbGU"}, "value": null}}]}}),
        json!({"stage_id": "feature_search", "parameters": {"searches": [{"feature_uri": "words", "query": {"input_mode": "content", "value": "data:,{{INPUT.query}}"}}]}}),
    ] {
        let plan = plan(json!([stage]));
        assert_eq!(plan.warnings, [""; 0], "{stage}");
        let execution = run(&Fake::fruit(), &plan, request(json!({"query": "apple", "v": [1, 0]}))).unwrap();
        assert_eq!(seqs(&execution), wanted, "{stage}");
        assert_eq!(execution.hits[0].score, Some(1.0));
        // What answers show can be read again.
        let again = Plan::parse(&RetrieverSpec { stages: plan.stages_json(), ..RetrieverSpec::default() }).unwrap();
        let execution = run(&Fake::fruit(), &again, request(json!({"query": "apple", "v": [1, 0]}))).unwrap();
        assert_eq!(seqs(&execution), wanted, "{stage} again");
    }
}

#[test]
fn a_text_without_an_index_searches_embeddings_and_words() {
    let execution = found(
        json!([{"type": "feature_search", "query": "apple", "collection_ids": ["fruit"], "limit": 3}]),
        json!({"query": "apple"}),
    );
    // Dense: 1 2 6 3 4 5. Words: 6 (twice), 1, 2. By rrf: 1 = 1/61 + 1/62, 6 = 1/63 + 1/61, 2 = 1/62 + 1/63.
    assert_eq!(seqs(&execution), [1, 6, 2]);
    let first = &execution.hits[0];
    assert!((first.score.unwrap() - (1.0 / 61.0 + 1.0 / 62.0)).abs() < 1e-9);
    let places: Vec<_> = first.searches.iter().map(|p| (p.feature.as_str(), p.search, p.rank, p.score)).collect();
    assert_eq!(places, [("mixpeek://words@v1/embedding", 0, 1, 1.0), ("lexical", 0, 2, 4.0)]);
    assert_eq!(first.movements, [Movement { stage: "feature_search".into(), from: None, to: 0, score: first.score }]);
    let report = &execution.stages[0];
    assert_eq!(
        (report.input_count, report.output_count, report.efficiency, report.stage_id),
        (0, 3, 1.0, "feature_search")
    );
    assert!(report.metadata.contains_key("embedding_ms") && report.metadata.contains_key("search_ms"));
    assert_eq!(report.metadata["fusion"], "rrf");
}

#[test]
fn words_alone_do_without_a_model() {
    let mut fake = Fake::fruit();
    fake.broken.push("e5".into());
    let words = plan(json!([stage("feature_search", json!({"searches": [{"query": "apple", "lexical": true}]}))]));
    assert_eq!(seqs(&run(&fake, &words, request(json!({}))).unwrap()), [6, 1, 2]);
    assert_eq!(fake.called("embed"), 0);
    // An implied embedding may fail alone; a named one may not.
    let hybrid =
        run(&fake, &plan(json!([stage("feature_search", json!({"query": "apple"}))])), request(json!({}))).unwrap();
    assert_eq!((seqs(&hybrid), hybrid.status), (vec![6, 1, 2], Status::Degraded));
    assert_eq!(hybrid.degraded[0].resource, "model");
    let named = run(&fake, &plan(json!([stage("feature_search", json!({"searches": [dense()]}))])), request(json!({})));
    assert!(named.unwrap_err().contains("not installed"));
}

#[test]
fn a_text_is_embedded_once() {
    let fake = Fake::fruit();
    let plan = plan(json!([stage("feature_search", json!({"searches": [dense(), dense(), {"query": "apple"}]}))]));
    run(&fake, &plan, request(json!({}))).unwrap();
    assert_eq!((fake.called("embed"), fake.called("search")), (1, 4));
}

#[test]
fn searches_have_their_own_filters_scores_and_weights() {
    let two = json!({"searches": [
        {"feature_uri": "words", "query": "apple", "filters": {"kind": "plant"}, "top_k": 1, "weight": 0.5},
        {"feature_uri": "words", "query": "stone", "min_score": 0.9},
    ], "fusion": "weighted", "final_top_k": 2});
    let execution = found(json!([stage("feature_search", two)]), json!({}));
    assert_eq!(seqs(&execution), [5, 4]);
    assert_eq!(execution.hits[0].score, Some(1.0));
    assert_eq!(
        execution.stages[0].metadata["searches"][0],
        json!({"search": 0, "feature": "mixpeek://words@v1/embedding", "weight": 0.5, "hits": 1})
    );
}

#[test]
fn stage_filters_and_execution_filters_narrow_a_search() {
    let stages = json!([{"stage_name": "s", "config": {"stage_id": "feature_search",
        "parameters": {"searches": [dense()], "final_top_k": 2},
        "pre_filters": {"AND": [{"field": "kind", "value": "{{INPUT.kind}}"}]},
        "post_filters": {"field": "n", "operator": "lt", "value": "{{INPUT.most}}"}}}]);
    let all = found(stages.clone(), json!({}));
    assert_eq!(seqs(&all), [1, 2]);
    let relaxed: Vec<_> =
        all.interpretation.relaxations.iter().map(|r| (r.condition.as_str(), r.missing_inputs.join(","))).collect();
    assert_eq!(
        relaxed,
        [("stages.0.config.pre_filters.AND.0", "kind".to_owned()), ("stages.0.config.post_filters", "most".to_owned())]
    );
    // Filtering after the search does not cost places: there are still two.
    assert_eq!(seqs(&found(stages.clone(), json!({"kind": "cake", "most": 3}))), [6, 4]);
    let mut filtered = request(json!({"kind": "cake"}));
    filtered.filters = Some(json!({"field": "n", "operator": "gte", "value": 2}));
    assert_eq!(seqs(&run(&Fake::fruit(), &plan(stages.clone()), filtered).unwrap()), [1, 4]);
    // Clients that can send inputs only put the filter there.
    let inside = found(stages, json!({"kind": "cake", "filters": {"n": {"gte": 2}}, "extra": 1}));
    assert_eq!(seqs(&inside), [1, 4]);
    assert!(inside.interpretation.inferred_inputs.contains_key("filters"));
    assert_eq!(inside.interpretation.ignored_input_keys, ["extra"]);
}

#[test]
fn filters_before_a_search_go_into_it() {
    let fake = Fake::fruit();
    let legacy = plan(
        json!([{"type": "attribute_filter", "conditions": {"field": "kind", "value": "plant"}}, {"type": "feature_search", "feature_extractor": {"type": "text"}, "query": "apple", "collection_ids": [], "limit": 5}]),
    );
    let execution = run(&fake, &legacy, request(json!({"query": "apple"}))).unwrap();
    assert_eq!(seqs(&execution), [2, 3]);
    assert_eq!(fake.called("scan"), 0);
    assert_eq!(execution.stages[0].metadata["pushed_down"], true);
    assert_eq!(
        execution.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["attribute_filter", "feature_search"]
    );
}

#[test]
fn a_second_search_stays_within_the_first() {
    let execution = found(
        json!([
            stage("feature_search", json!({"searches": [dense()], "final_top_k": 3})),
            stage("feature_search", json!({"searches": [{"feature_uri": "words", "query": "stone"}]}))
        ]),
        json!({}),
    );
    assert_eq!(seqs(&execution), [6, 2, 1]);
    assert_eq!(
        execution.hits[0].movements.iter().map(|m| (m.stage.as_str(), m.from, m.to)).collect::<Vec<_>>(),
        [("feature_search", None, 2), ("feature_search_2", Some(2), 0)]
    );
    assert_eq!(execution.hits[0].searches.len(), 2);
}

#[test]
fn filters_alone_and_filters_first() {
    let only = json!([{"stage_name": "s", "config": {"stage_id": "feature_search", "parameters": {"searches": [], "final_top_k": 2}, "pre_filters": {"kind": "cake"}}}]);
    let execution = found(only, json!({}));
    assert_eq!(seqs(&execution), [1, 4]);
    assert_eq!(execution.hits[0].score, None);
    for parameters in [
        json!({"field": "kind", "operator": "eq", "value": "{{INPUT.kind}}"}),
        json!({"field": "metadata.status", "conditions": {"field": "kind", "value": "cake"}, "natural_language": "null", "batch_size": 100}),
        json!({"AND": [{"field": "kind", "value": "cake"}]}),
        json!({"conditions": {"case_sensitive": false, "field": "kind", "operator": "in", "value": ["cake"]}}),
    ] {
        assert_eq!(
            seqs(&found(json!([stage("attribute_filter", parameters.clone())]), json!({"kind": "cake"}))),
            [1, 4, 6],
            "{parameters}"
        );
        assert_eq!(seqs(&found(json!([stage("structured_filter", parameters)]), json!({"kind": "cake"}))), [1, 4, 6]);
    }
    assert_eq!(
        seqs(&found(
            json!([stage("attribute_filter", json!({"field": "kind", "value": "THING", "case_insensitive": true}))]),
            json!({})
        )),
        [5]
    );
    assert_eq!(
        seqs(&found(
            json!([stage(
                "attribute_filter",
                json!({"field": "kind", "operator": "nin", "value": ["CAKE", "Thing"], "case_insensitive": true})
            )]),
            json!({})
        )),
        [2, 3]
    );
}

#[test]
fn conditions_may_compare_a_document_with_itself() {
    let same = stage("attribute_filter", json!({"field": "n", "value": "{{DOC.metadata.n}}"}));
    assert_eq!(found(json!([same]), json!({})).total, 6);
    let other = stage("attribute_filter", json!({"field": "n", "value": "{{DOC.metadata.absent}}"}));
    assert_eq!(found(json!([other]), json!({})).total, 0);
}

#[test]
fn the_read_ceiling_is_said() {
    let mut fake = Fake::fruit();
    fake.documents = (0..1001).map(|n| (fake::document(n, json!({"n": n})), Default::default())).collect();
    let execution = run(
        &fake,
        &plan(json!([stage("attribute_filter", json!({"field": "n", "operator": "gte", "value": 0}))])),
        request(json!({})),
    )
    .unwrap();
    assert_eq!(execution.total, 1000);
    assert!(execution.warnings[0].contains("at most 1000") && execution.warnings[0].contains("fruit"));
}

#[test]
fn empty_queries_follow_on_empty() {
    let search = |on_empty: &str| {
        json!([stage(
            "feature_search",
            json!({"searches": [{"feature_uri": "words", "query": "{{INPUT.query}}", "on_empty": on_empty}, {"feature_uri": "words", "query": "{{INPUT.other}}", "on_empty": "skip"}]})
        )])
    };
    assert!(failed(search("error"), json!({})).contains("`inputs.query`: is needed by stage `feature_search`"));
    assert!(failed(search("error"), json!({"query": " "})).contains("searches.0.query`: is empty"));
    assert!(failed(search("skip"), json!({})).contains("every search was skipped"));
    assert_eq!(seqs(&found(search("skip"), json!({"other": "apple"})))[0], 1);
    assert_eq!(found(search("random"), json!({})).total, 6);
    let mut browse = search("skip");
    browse[0]["config"]["pre_filters"] = json!({"kind": "cake"});
    let execution = found(browse, json!({}));
    assert_eq!((seqs(&execution), execution.warnings.len()), (vec![1, 4, 6], 1));
    assert!(failed(json!([{"type": "feature_search", "query": ""}]), json!({})).contains("is empty"));
}

#[test]
fn indexes_that_are_not_there() {
    let search = |more: Value| {
        let mut entry = json!({"feature_uri": "mixpeek://absent@v1/embedding", "query": "apple"});
        entry.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!([stage("feature_search", json!({"searches": [entry]}))])
    };
    let message = failed(search(json!({})), json!({}));
    assert!(
        message.contains("searches.0.feature_uri") && message.contains("mixpeek://words@v1/embedding"),
        "{message}"
    );
    assert!(failed(search(json!({"optional": true})), json!({})).contains("every search was skipped"));
    let with_other = json!([stage(
        "feature_search",
        json!({"searches": [{"feature_uri": "absent", "query": "apple", "optional": true}, dense()]})
    )]);
    assert_eq!(seqs(&found(with_other, json!({}))), [1, 2, 6, 3, 4, 5]);
    assert!(
        failed(
            json!([stage("feature_search", json!({"searches": [{"feature_uri": "words", "query": [1, 2, 3]}]}))]),
            json!({})
        )
        .contains("takes 2 numbers, not 3 numbers")
    );
    assert!(
        failed(
            json!([stage("feature_search", json!({"searches": [{"feature_uri": "own", "query": "apple"}]}))]),
            json!({})
        )
        .contains("vectors that callers bring")
    );
    assert!(
        failed(
            json!([stage("feature_search", json!({"searches": [{"query": {"document_id": "doc_99"}}]}))]),
            json!({})
        )
        .contains("`doc_99` does not exist")
    );
    let mut nowhere =
        parsed(json!({"collection_identifiers": ["nowhere"], "stages": [stage("limit", json!({}))]})).unwrap();
    assert!(run(&Fake::fruit(), &nowhere, request(json!({}))).unwrap_err().contains("`nowhere` does not exist"));
    nowhere.collection_identifiers.clear();
    assert_eq!(run(&Fake::fruit(), &nowhere, request(json!({}))).unwrap().total, 6);
}

#[test]
fn nothing_to_search_is_an_empty_answer() {
    let empty = Fake::default();
    for stages in [
        json!([stage("feature_search", json!({"query": "apple", "facets": ["kind"], "group_by": {"field": "kind"}}))]),
        json!([
            stage("attribute_filter", json!({"field": "a", "value": 1})),
            stage("sort_attribute", json!({})),
            stage("limit", json!({}))
        ]),
        json!([stage("sort_relevance", json!({}))]),
    ] {
        let execution = run(&empty, &plan(stages), request(json!({}))).unwrap();
        assert_eq!((execution.total, execution.status), (0, Status::Completed));
        assert_eq!(execution.pagination["has_next"], false);
        assert!(execution.groups().is_none());
    }
    let none = found(
        json!([
            stage(
                "feature_search",
                json!({"searches": [{"feature_uri": "words", "query": "apple", "filters": {"kind": "no such"}}]})
            ),
            stage("feature_search", json!({"searches": [dense()]}))
        ]),
        json!({}),
    );
    assert_eq!((none.total, none.stages[1].efficiency), (0, 0.0));
}

#[test]
fn groups_and_facets() {
    let execution = found(
        json!([stage(
            "feature_search",
            json!({"searches": [dense()], "group_by": {"field": "kind", "max_per_group": 2, "limit": 2}, "facets": ["kind", {"key": "n", "limit": 1}]})
        )]),
        json!({}),
    );
    let groups: Vec<_> = execution
        .groups()
        .unwrap()
        .iter()
        .map(|g| (g.key.clone(), g.hits.iter().map(|h| h.document.seq).collect::<Vec<_>>()))
        .collect();
    assert_eq!(groups, [(json!("cake"), vec![1, 6]), (json!("plant"), vec![2, 3])]);
    assert_eq!(
        execution.facets[0],
        json!({"key": "kind", "values": [{"value": "cake", "count": 3}, {"value": "plant", "count": 2}, {"value": "Thing", "count": 1}]})
    );
    assert_eq!(execution.facets[1]["values"].as_array().unwrap().len(), 1);
    let first = found(
        json!([stage(
            "feature_search",
            json!({"searches": [dense()], "group_by": {"field": "kind", "group_size": 2, "output_mode": "first"}})
        )]),
        json!({}),
    );
    assert_eq!((seqs(&first), first.groups().is_none()), (vec![1, 2, 5], true));
}

#[test]
fn sorts_and_limits() {
    let sorted =
        |parameters: Value| seqs(&found(json!([stage("sort_attribute", parameters)]), json!({"by": "metadata.n"})));
    assert_eq!(sorted(json!({"field": "{{INPUT.by}}", "direction": "asc"})), [6, 4, 1, 5, 3, 2]);
    assert_eq!(sorted(json!({"sort_field": "n", "order": "desc"})), [2, 3, 5, 1, 4, 6]);
    assert_eq!(sorted(json!({"field": "kind", "direction": "asc"})), [5, 1, 4, 6, 2, 3]);
    assert_eq!(sorted(json!({"field": "absent"})), [1, 2, 3, 4, 5, 6]);
    let mut fake = Fake::fruit();
    fake.documents[2].0.fields.remove("n");
    let nulls = |parameters: Value| {
        seqs(&run(&fake, &plan(json!([stage("sort_attribute", parameters)])), request(json!({}))).unwrap())
    };
    assert_eq!(nulls(json!({"field": "n", "direction": "asc", "nulls_last": false})), [3, 6, 4, 1, 5, 2]);
    assert_eq!(nulls(json!({"field": "n", "direction": "desc", "null_handling": "last"})), [2, 5, 1, 4, 6, 3]);
    let relevance = |parameters: Value| {
        seqs(&run(&fake, &plan(json!([stage("sort_relevance", parameters)])), request(json!({}))).unwrap())
    };
    assert_eq!(relevance(json!({"score_field": "n"})), [2, 5, 1, 4, 6, 3]);
    assert_eq!(relevance(json!({"score_field": "n", "direction": "asc", "missing_score": "top"})), [3, 6, 4, 1, 5, 2]);
    assert_eq!(relevance(json!({"score_field": "n", "missing_score": "preserve"})), [2, 5, 3, 1, 4, 6]);
    let cut = found(
        json!([
            stage("feature_search", json!({"searches": [dense()]})),
            stage("limit", json!({"limit": "{{INPUT.n}}", "offset": 1}))
        ]),
        json!({"n": "2"}),
    );
    assert_eq!((seqs(&cut), cut.stages[1].input_count, cut.stages[1].efficiency), (vec![2, 6], 6, 2.0 / 6.0));
    let moved = Movement { stage: "limit".into(), from: Some(1), to: 0, score: cut.hits[0].score };
    assert_eq!(cut.hits[0].movements[1], moved);
    assert_eq!(found(json!([stage("limit", json!({"offset": 9}))]), json!({})).total, 0);
}

#[test]
fn inputs_are_checked_and_pages_bound_to_them() {
    let body = json!({"input_schema": {"query": {"type": "text", "required": true}, "n": {"type": "integer", "default": 4}}, "stages": [stage("feature_search", json!({"searches": [{"feature_uri": "words", "query": "{{INPUT.query}}"}], "final_top_k": "{{INPUT.n}}"}))]});
    let plan = parsed(body).unwrap();
    let fake = Fake::fruit();
    assert!(run(&fake, &plan, request(json!({}))).unwrap_err().contains("`inputs.query`: is required"));
    let page = |inputs: Value, cursor: Option<String>| {
        run(&fake, &plan, ExecuteRequest { page: PageRequest::Cursor { limit: 3, cursor }, ..request(inputs) })
    };
    let first = page(json!({"query": "apple"}), None).unwrap();
    assert_eq!((seqs(&first), first.total), (vec![1, 2, 6], 4));
    let cursor = first.pagination["cursor"].as_str().map(str::to_owned);
    let second = page(json!({"n": 4, "query": "apple"}), cursor.clone()).unwrap();
    assert_eq!((seqs(&second), &second.pagination["has_next"]), (vec![3], &json!(false)));
    assert!(page(json!({"query": "stone"}), cursor).unwrap_err().contains("another query"));
}

#[test]
fn slow_searches_are_left_out_and_said() {
    let mut fake = Fake::fruit();
    let mut other = fake.collections[0].clone();
    other.collection_id = "col_slow".into();
    fake.collections.push(other);
    fake.slow.push("col_slow".into());
    let search = |more: Value| {
        let mut parameters = json!({"searches": [dense()], "hard_timeout_ms": 20});
        parameters.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        plan(json!([stage("feature_search", parameters)]))
    };
    let execution = run(&fake, &search(json!({})), request(json!({}))).unwrap();
    assert_eq!((execution.total, execution.status), (6, Status::Degraded));
    assert_eq!(execution.degraded[0].id.as_deref(), Some("col_slow"));
    let tries = |fake: &Fake| fake.called("search col_slow");
    assert_eq!(tries(&fake), 1);
    run(&fake, &search(json!({"degrade_retry": true})), request(json!({}))).unwrap();
    assert_eq!(tries(&fake), 3);
    run(&fake, &search(json!({"degrade_retry": true, "interactive": true})), request(json!({}))).unwrap();
    assert_eq!(tries(&fake), 4);
    // A read that is cut short gives nothing, because what follows would be unfiltered.
    let limit = ExecuteRequest { time_limit: Some(Duration::from_millis(20)), ..request(json!({})) };
    let scan = run(
        &fake,
        &plan(json!([stage("attribute_filter", json!({"field": "kind", "value": "cake"})), stage("limit", json!({}))])),
        limit,
    )
    .unwrap();
    assert_eq!((scan.total, scan.status, scan.stages.len()), (0, Status::Degraded, 0));
    let long = plan(json!([stage(
        "feature_search",
        json!({"searches": [{"query": "apple", "lexical": true, "collection_identifiers": ["col_a"]}], "hard_timeout_ms": 900_000})
    )]));
    let entry = run(&fake, &long, request(json!({}))).unwrap().limits.remove(0);
    assert_eq!((entry.requested, entry.applied), (900_000, 60_000));
}

#[test]
fn a_stage_that_may_fail_is_skipped() {
    let mut stages = json!([
        stage("feature_search", json!({"searches": [dense()]})),
        stage("limit", json!({"limit": "{{INPUT.n}}"}))
    ]);
    assert!(failed(stages.clone(), json!({"n": "x"})).contains("stages.1.config.parameters.limit"));
    stages[1]["on_error"] = "skip".into();
    let execution = found(stages, json!({"n": "x"}));
    assert_eq!((execution.total, execution.status), (6, Status::Degraded));
    assert!(execution.stages[1].error.as_deref().unwrap().contains("integer"));
    let mut search = json!([stage("feature_search", json!({"searches": [{"feature_uri": "absent", "query": "x"}]}))]);
    search[0]["on_error"] = "skip".into();
    assert_eq!(found(search, json!({})).total, 0);
}

#[test]
fn later_stages_read_earlier_results() {
    let mut search = stage("feature_search", json!({"searches": [dense()]}));
    search["output_alias"] = "hits".into();
    let by_stage = stage("limit", json!({"limit": "{{STAGE.feature_search.output_count - 4}}"}));
    assert_eq!(found(json!([search, by_stage]), json!({})).total, 2);
    let by_alias = stage("attribute_filter", json!({"field": "kind", "value": "{{CONTEXT.hits[0].kind}}"}));
    let mut search = stage("feature_search", json!({"searches": [dense()]}));
    search["output_alias"] = "hits".into();
    assert_eq!(seqs(&found(json!([search, by_alias]), json!({}))), [1, 6, 4]);
}

#[test]
fn observers_hear_each_stage() {
    let plan = plan(json!([
        stage("feature_search", json!({"searches": [dense()]})),
        stage("limit", json!({"limit": "{{INPUT.n}}"}))
    ]));
    let heard = std::sync::Mutex::new(Vec::new());
    let observer = |event: StageEvent<'_>| {
        heard.lock().unwrap().push(match event {
            StageEvent::Started { index, total, name } => format!("start {index}/{total} {name}"),
            StageEvent::Completed { report, hits, .. } => format!("done {} {}", report.name, hits.len()),
            StageEvent::Failed { name, error, .. } => format!("failed {name} {}", matches!(error, Error::Invalid(_))),
        });
    };
    assert!(block(plan.execute_observed(&Fake::fruit(), request(json!({"n": -1})), &observer)).is_err());
    assert_eq!(
        *heard.lock().unwrap(),
        ["start 0/2 feature_search", "done feature_search 6", "start 1/2 limit", "failed limit true"]
    );
}

#[test]
fn plans_say_what_they_depend_on() {
    let plan = parsed(json!({"collection_ids": ["a"], "budget_limits": {"max_time_ms": 9}, "stages": [
        stage("feature_search", json!({"searches": [{"feature_uri": "mixpeek://words@v1/embedding", "query": "{{INPUT.q}}", "collection_ids": ["b"]}, {"feature_uri": "{{INPUT.uri}}", "query": "x"}], "typo": 1})),
        stage("feature_search", json!({"query": "y"})),
    ]})).unwrap();
    assert_eq!(plan.feature_uris(), ["mixpeek://words@v1/embedding"]);
    assert_eq!(
        (plan.stage_collections(), plan.collection_identifiers.clone(), plan.max_time_ms),
        (vec!["b".to_owned()], vec!["a".to_owned()], Some(9))
    );
    assert_eq!(plan.input_names().into_iter().collect::<Vec<_>>(), ["q", "uri"]);
    assert_eq!(plan.stages.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["feature_search", "feature_search_2"]);
    assert!(plan.warnings[0].contains("`stages.0.config.parameters.typo`"));
    let json = &plan.stages_json()[1];
    assert_eq!(json["parameters"], json["config"]["parameters"]);
    assert_eq!((&json["stage_name"], &json["stage_type"]), (&json!("feature_search"), &json!("filter")));
}
