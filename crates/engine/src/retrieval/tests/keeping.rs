//! What executions leave for equal ones.

use super::*;

/// A search and what follows it.
fn pipeline(then: Value) -> Plan {
    plan(json!([stage("feature_search", json!({"searches": [dense()]})), then]))
}

fn limited(limit: i64) -> Plan {
    pipeline(stage("limit", json!({ "limit": limit })))
}

#[test]
fn an_equal_execution_is_answered_from_what_was_kept() {
    let (fake, plan) = (Fake::fruit(), limited(3));
    let first = run(&fake, &plan, request(json!({}))).unwrap();
    let second = run(&fake, &plan, request(json!({}))).unwrap();
    assert_eq!((first.cached_at, second.cached_at.is_some()), (None, true));
    assert_eq!((&first.hits, &first.pagination, fake.called("search")), (&second.hits, &second.pagination, 1));
    assert!(second.stages.iter().all(|stage| stage.cache_hit && stage.duration_ms == 0.0));
    let counts = |execution: &Execution| execution.stages.iter().map(|s| s.output_count).collect::<Vec<_>>();
    assert_eq!((counts(&first), counts(&second)), (vec![6, 3], vec![6, 3]));
    let skipping = ExecuteRequest { skip_cache: true, ..request(json!({})) };
    assert_eq!((run(&fake, &plan, skipping).unwrap().cached_at, fake.called("search")), (None, 2));
}

#[test]
fn every_page_is_cut_from_what_was_kept() {
    let (fake, plan) = (Fake::fruit(), limited(5));
    let page = |cursor: Option<String>| {
        let request = ExecuteRequest { page: PageRequest::Cursor { limit: 2, cursor }, ..request(json!({})) };
        let execution = run(&fake, &plan, request).unwrap();
        let next = execution.pagination.get("cursor").and_then(Value::as_str).map(str::to_owned);
        (seqs(&execution), next)
    };
    let (first, next) = page(None);
    let (second, next) = page(next);
    let (third, next) = page(next);
    assert_eq!(([first, second, third].concat(), next, fake.called("search")), (vec![1, 2, 6, 3, 4], None, 1));
}

#[test]
fn other_stages_go_on_from_the_search_that_was_kept() {
    let fake = Fake::fruit();
    run(&fake, &limited(3), request(json!({}))).unwrap();
    let other = pipeline(stage("sort_attribute", json!({"field": "n"})));
    let execution = run(&fake, &other, request(json!({}))).unwrap();
    assert_eq!((execution.cached_at, fake.called("search")), (None, 1));
    assert_eq!(execution.stages.iter().map(|s| s.cache_hit).collect::<Vec<_>>(), [true, false]);
    let fresh = run(&Fake::fruit(), &other, request(json!({}))).unwrap();
    assert_eq!(seqs(&execution), seqs(&fresh));
    assert_eq!(execution.hits[0].movements, fresh.hits[0].movements);
}

#[test]
fn inputs_filters_names_and_collections_tell_executions_apart() {
    let fake = Fake::fruit();
    let searching = |name: &str, collection: &str| {
        let mut stage =
            stage("feature_search", json!({"searches": [{"feature_uri": "words", "query": "{{INPUT.q}}"}]}));
        stage["stage_name"] = name.into();
        parsed(json!({"stages": [stage], "collection_identifiers": [collection]})).unwrap()
    };
    let filtered = |filters: Value| ExecuteRequest { filters: Some(filters), ..request(json!({"q": "apple"})) };
    run(&fake, &searching("find", "col_a"), request(json!({"q": "apple"}))).unwrap();
    for (name, collection, request) in [
        ("find", "col_a", request(json!({"q": "stone"}))),
        ("find", "col_a", filtered(json!({"field": "kind", "operator": "eq", "value": "cake"}))),
        ("seek", "col_a", request(json!({"q": "apple"}))),
        ("find", "fruit", request(json!({"q": "apple"}))),
    ] {
        assert_eq!(run(&fake, &searching(name, collection), request).unwrap().cached_at, None);
    }
}

#[test]
fn what_need_not_come_out_the_same_is_not_kept() {
    let kept = |plan: &Plan| {
        let fake = Fake::fruit();
        run(&fake, plan, request(json!({}))).unwrap();
        fake.kept.lock().unwrap().len()
    };
    assert_eq!(kept(&limited(3)), 2);
    // The search is kept, the choice by chance is not, unless a seed repeats it.
    assert_eq!(kept(&pipeline(stage("sample", json!({"count": 2})))), 1);
    assert_eq!(kept(&pipeline(stage("sample", json!({"count": 2, "seed": 5})))), 2);
    let told = |behavior: Value| {
        let mut parameters = json!({"searches": [dense()]});
        parameters.as_object_mut().unwrap().extend(behavior.as_object().unwrap().clone());
        kept(&plan(json!([stage("feature_search", parameters)])))
    };
    assert_eq!(told(json!({"cache_behavior": "auto", "cache_ttl_seconds": 60})), 1);
    assert_eq!(told(json!({"cache_behavior": "disabled"})), 0);
    assert_eq!(told(json!({"cache_ttl_seconds": 0})), 0);
    let refused = refused(json!([stage("feature_search", json!({"searches": [dense()], "cache_behavior": "maybe"}))]));
    assert!(refused.contains("cache_behavior"), "{refused}");
}

#[test]
fn what_is_incomplete_is_not_kept() {
    let failing = Fake { broken: vec!["e5".into()], ..Fake::fruit() };
    let search = plan(json!([stage("feature_search", json!({"searches": [{"query": "apple"}]}))]));
    let execution = run(&failing, &search, request(json!({}))).unwrap();
    assert_eq!((execution.status, failing.kept.lock().unwrap().len()), (Status::Degraded, 0));
}
