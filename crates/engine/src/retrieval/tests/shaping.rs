//! Stages that reorder, thin out, group or unfold the working set.

use super::*;

/// The six documents of [`Fake::fruit`], best first by their resemblance to `apple`.
fn with(stages: &[Value]) -> Execution {
    found(after_search(stages), json!({}))
}
fn after_search(stages: &[Value]) -> Value {
    let mut all = vec![stage("feature_search", json!({"searches": [dense()], "final_top_k": 10}))];
    all.extend_from_slice(stages);
    for (i, one) in all.iter_mut().enumerate() {
        one["stage_name"] = format!("s{i}").into();
    }
    Value::Array(all)
}
fn metadata<'e>(execution: &'e Execution, name: &str) -> &'e Value {
    &execution.stages.last().unwrap().metadata[name]
}
fn nothing(id: &str, parameters: Value) -> Execution {
    with(&[stage("attribute_filter", json!({"field": "n", "value": 4711})), stage(id, parameters)])
}

#[test]
fn a_search_finds_the_fruit_in_this_order() {
    assert_eq!(seqs(&with(&[])), [1, 2, 6, 3, 4, 5]);
}

#[test]
fn normalized_scores_keep_the_order_and_have_their_scale() {
    let found = with(&[stage("score_normalize", json!({}))]);
    assert_eq!(seqs(&found), [1, 2, 6, 3, 4, 5]);
    assert_eq!((found.hits[0].score, found.hits[5].score), (Some(1.0), Some(0.0)));
    let kept = with(&[stage("score_normalize", json!({"method": "softmax", "output_field": "scores.share"}))]);
    let shares: f64 = kept.hits.iter().map(|hit| hit.scores["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9 && kept.hits[0].score > Some(0.9), "{shares}");
    // What is no number counts as 0, and another field can hold the result.
    let other =
        with(&[stage("score_normalize", json!({"score_field": "n", "output_field": "share", "max_value": 10}))]);
    assert_eq!(other.hits[1].document.fields["share"], json!(10.0));
    assert!(nothing("score_normalize", json!({"method": "z_score"})).hits.is_empty());
    let wrong = stage("score_normalize", json!({"min_value": 2, "max_value": 1}));
    assert!(failed(after_search(&[wrong]), json!({})).contains("min_value"));
    assert!(refused(json!([stage("score_normalize", json!({"method": "best"}))])).contains("min_max, z_score"));
}

#[test]
fn samples_repeat_with_their_seed_and_keep_the_order() {
    let of = |parameters: Value| seqs(&with(&[stage("sample", parameters)]));
    let one = of(json!({"count": 3, "seed": 11}));
    assert_eq!(one, of(json!({"count": 3, "seed": 11})));
    assert_eq!(one.len(), 3);
    let place = |seq: &i64| [1, 2, 6, 3, 4, 5].iter().position(|s| s == seq).unwrap();
    assert!(one.windows(2).all(|pair| place(&pair[0]) < place(&pair[1])), "{one:?}");
    assert!((1..30).any(|seed| of(json!({"count": 3, "seed": seed})) != one));
    assert_eq!(of(json!({"count": 100})).len(), 6);
    assert_eq!(of(json!({"size": 2, "preserve_top_k": 2})), [1, 2]);
    let by_kind = with(&[stage("sample", json!({"method": "stratified", "count": 3, "stratify_by": "kind"}))]);
    let kinds: std::collections::HashSet<&str> =
        by_kind.hits.iter().map(|hit| hit.document.fields["kind"].as_str().unwrap()).collect();
    assert_eq!((by_kind.hits.len(), kinds.len()), (3, 3), "every kind has one");
    assert_eq!(metadata(&by_kind, "strata"), 3);
    assert_eq!(of(json!({"strategy": "systematic", "count": 2, "seed": 1})).len(), 2);
    assert!(nothing("sample", json!({})).hits.is_empty());
    assert!(refused(json!([stage("sample", json!({"strategy": "stratified"}))])).contains("stratify_by"));
    assert!(refused(json!([stage("sample", json!({"count": 0}))])).contains("from 1 to 1000"));
}

#[test]
fn repeats_are_removed_by_fields_texts_or_vectors() {
    let of = |parameters: Value| seqs(&with(&[stage("deduplicate", parameters)]));
    assert_eq!(of(json!({})), [1, 2, 6, 3, 4, 5], "by their ids all are different");
    assert_eq!(of(json!({"fields": ["kind"]})), [1, 2, 5]);
    assert_eq!(of(json!({"fields": ["kind"], "keep": "last"})), [3, 4, 5]);
    assert_eq!(of(json!({"fields": ["absent"]})), [1], "what is missing is a value like others");
    let texts = json!({"strategy": "content", "content_field": "text", "similarity_threshold": 0.5});
    assert_eq!(of(texts), [1, 3, 4, 5], "apple tree and apple apple resemble apple pie");
    let strict = json!({"strategy": "content", "content_field": "text"});
    assert_eq!(of(strict).len(), 6);
    assert_eq!(of(json!({"strategy": "content", "content_field": "absent"})).len(), 6, "nothing to compare passes");
    assert_eq!(of(json!({"strategy": "vector", "similarity_threshold": 0.9})), [1, 3, 4]);
    assert_eq!(of(json!({"strategy": "vector", "feature_uri": "words", "similarity_threshold": 1.0})).len(), 6);
    let removed = with(&[stage("deduplicate", json!({"fields": ["kind"]}))]);
    assert_eq!(metadata(&removed, "removed"), 3);
    assert!(nothing("deduplicate", json!({"strategy": "content"})).hits.is_empty());
    let unsearched = json!([
        stage("attribute_filter", json!({"field": "n", "operator": "gt", "value": 0})),
        stage("deduplicate", json!({"strategy": "vector"}))
    ]);
    assert!(failed(unsearched, json!({})).contains("feature_uri"));
}

#[test]
fn groups_come_as_their_first_documents_do() {
    let grouped = with(&[stage("group_by", json!({"group_by_field": "kind", "max_per_group": 2}))]);
    let groups = grouped.groups().unwrap();
    let shown: Vec<(&Value, Vec<i64>)> =
        groups.iter().map(|g| (&g.key, g.hits.iter().map(|hit| hit.document.seq).collect())).collect();
    assert_eq!(shown, [(&json!("cake"), vec![1, 6]), (&json!("plant"), vec![2, 3]), (&json!("Thing"), vec![5])]);
    assert_eq!(metadata(&grouped, "total_groups"), 3);
    assert_eq!(metadata(&grouped, "groups")[0], json!({"key": "cake", "count": 3}));
    let of = |parameters: Value| {
        let found = with(&[stage("group_by", parameters)]);
        assert!(found.groups().is_none());
        seqs(&found)
    };
    assert_eq!(of(json!({"field": "kind", "output_mode": "first"})), [1, 2, 5]);
    assert_eq!(of(json!({"field": "kind", "output_mode": "flatten"})), [1, 6, 4, 2, 3, 5]);
    let by_count = json!({"field": "kind", "output_mode": "first", "sort_groups_by": "count", "sort_order": "asc"});
    assert_eq!(of(by_count), [5, 2, 1]);
    let by_key = json!({"field": "kind", "output_mode": "first", "sort_groups_by": "field", "max_groups": 2});
    assert_eq!(of(by_key), [2, 1], "text orders by its bytes, descending here");
    assert_eq!(of(json!({"field": "absent", "output_mode": "first"})), [1]);
    assert!(of(json!({"field": "absent", "output_mode": "first", "exclude_null": true})).is_empty());
    assert!(nothing("group_by", json!({})).hits.is_empty());
}

#[test]
fn a_list_unfolds_into_documents() {
    let mut fake = Fake::fruit();
    fake.documents[0].0.fields.insert("tags".into(), json!(["a", "b"]));
    fake.documents[1].0.fields.insert("tags".into(), json!([]));
    fake.documents[2].0.fields.insert("tags".into(), json!("one"));
    let of = |parameters: Value| {
        run(&fake, &plan(after_search(&[stage("unwind", parameters)])), request(json!({}))).unwrap()
    };
    let unwound = of(json!({"field": "tags", "include_array_index": "at"}));
    assert_eq!(seqs(&unwound), [1, 1, 3]);
    let fields = |place: usize| &unwound.hits[place].document.fields;
    assert_eq!((&fields(1)["tags"], &fields(1)["at"], &fields(2)["tags"]), (&json!("b"), &json!(1), &json!("one")));
    let kept = of(json!({"field": "tags", "preserve_null_and_empty": true, "output_field": "tag"}));
    assert_eq!(seqs(&kept), [1, 1, 2, 6, 3, 4, 5]);
    assert_eq!(
        (&kept.hits[0].document.fields["tag"], &kept.hits[0].document.fields["tags"]),
        (&json!("a"), &json!(["a", "b"]))
    );
    assert!(refused(json!([stage("unwind", json!({}))])).contains("`stages.0.config.parameters.field`"));
    assert!(nothing("unwind", json!({"field": "tags"})).hits.is_empty());
}

#[test]
fn relevance_is_weighed_against_resemblance() {
    let of = |parameters: Value| with(&[stage("mmr", parameters)]);
    assert_eq!(seqs(&of(json!({"lambda": 1.0, "top_k": 3}))), [1, 2, 6]);
    let diverse = of(json!({"lambda": 0.3, "top_k": 2}));
    assert_eq!(seqs(&diverse), [1, 5], "the opposite of the first");
    assert!(diverse.hits[0].scores["mmr"].is_number());
    assert_eq!(seqs(&of(json!({"lambda": 0.3, "top_n": 2, "diversity_feature_uri": "words"}))), [1, 5]);
    let both = json!([{"feature_uri": "words", "weight": 0.5}, {"feature_uri": "own"}]);
    assert_eq!(seqs(&of(json!({"lambda": 0.3, "top_k": 2, "diversity_features": both}))), [1, 5]);
    let by_kind = of(json!({"lambda": 0.5, "top_k": 3, "diversity_fields": ["kind"]}));
    let kinds: Vec<&Value> = by_kind.hits.iter().map(|hit| &hit.document.fields["kind"]).collect();
    assert_eq!(kinds, ["cake", "plant", "Thing"]);
    assert!(nothing("mmr", json!({})).hits.is_empty());
    // Without vectors the order of the scores stays, and the answer says so.
    let scan = json!([
        stage("attribute_filter", json!({"field": "n", "operator": "gt", "value": 0})),
        stage("mmr", json!({}))
    ]);
    let unsearched = found(scan, json!({}));
    assert_eq!(seqs(&unsearched), [1, 2, 3, 4, 5, 6]);
    assert!(unsearched.warnings.iter().any(|w| w.contains("no vectors")), "{:?}", unsearched.warnings);
    let two = json!({"diversity_fields": ["kind"], "diversity_feature_uri": "words"});
    assert!(refused(json!([stage("mmr", two)])).contains("takes one of"));
}

#[test]
fn numbers_over_the_working_set_stand_in_the_metadata() {
    let operations = json!([
        {"function": "count", "alias": "all"},
        {"function": "sum", "field": "n", "alias": "sum"},
        {"function": "avg", "field": "n", "alias": "mean"},
        {"function": "max", "field": "text", "alias": "last_text"},
        {"type": "cardinality", "field": "kind", "name": "kinds"},
        {"function": "percentile", "field": "n", "percentile_value": 50, "alias": "median"},
        {"function": "percentile", "field": "n", "percentiles": [0, 100], "alias": "ends"},
        {"function": "frequency", "field": "kind", "top_k": 1, "alias": "most"},
        {"function": "co_occurrence", "field": "kind", "field_b": "n", "top_k": 1, "alias": "pairs"},
        {"function": "correlation", "field": "n", "field_b": "metadata.n", "alias": "same"},
        {"function": "collect_distinct", "field": "kind", "alias": "values"},
        {"function": "sum", "field": "absent", "alias": "none"},
        {"function": "avg", "field": "absent", "alias": "no_mean"},
    ]);
    let answer = with(&[stage("aggregate", json!({"aggregations": operations}))]);
    assert!(answer.hits.is_empty(), "documents do not go on");
    let numbers = metadata(&answer, "aggregations");
    let expected = json!({
        "all": 6, "sum": 27, "mean": 4.5, "last_text": "stone", "kinds": 3, "median": 4, "ends": {"0": 1, "100": 9},
        "most": [{"value": "cake", "count": 3}], "pairs": [{"value": "cake", "value_b": 3, "count": 1}],
        "values": ["cake", "plant", "Thing"], "none": 0, "no_mean": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(numbers[name], *value, "{name}");
    }
    assert!((numbers["same"].as_f64().unwrap() - 1.0).abs() < 1e-9);

    let by_kind = json!({
        "aggregations": [{"function": "count", "alias": "count"}, {"function": "stddev", "field": "n", "alias": "spread"}],
        "group_by": [{"field": "kind", "alias": "sort"}], "sort_by": "count", "sort_order": "asc", "limit": 2,
        "include_documents": true,
    });
    let answer = with(&[stage("aggregate", by_kind)]);
    assert_eq!(answer.hits.len(), 6);
    let groups = metadata(&answer, "aggregations");
    assert_eq!(groups[0], json!({"group": {"sort": "Thing"}, "count": 1, "spread": 0}));
    assert_eq!((&groups[1]["group"]["sort"], metadata(&answer, "total_groups")), (&json!("plant"), &json!(3)));
    let empty = nothing("aggregate", json!({"aggregations": [{"function": "count", "alias": "all"}]}));
    assert_eq!(metadata(&empty, "aggregations"), &json!({"all": 0}));
}

#[test]
fn an_aggregation_that_cannot_be_is_refused_with_its_place() {
    for (parameters, place) in [
        (json!({}), "parameters.aggregations"),
        (json!({"aggregations": []}), "parameters.aggregations"),
        (json!({"aggregations": [{"function": "sum", "alias": "a"}]}), "aggregations.0.field"),
        (json!({"aggregations": [{"function": "mode", "field": "n", "alias": "a"}]}), "aggregations.0.function"),
        (json!({"aggregations": [{"function": "correlation", "field": "n", "alias": "a"}]}), "aggregations.0.field_b"),
        (json!({"aggregations": [{"function": "count"}]}), "aggregations.0.alias"),
        (
            json!({"aggregations": [{"function": "count", "alias": "a"}, {"function": "count", "alias": "a"}]}),
            "aggregations.1.alias",
        ),
        (json!({"aggregations": [{"function": "count", "alias": "a"}], "sort_by": "b"}), "parameters.sort_by"),
        (json!({"aggregations": [{"function": "histogram", "field": "n", "alias": "a"}]}), "aggregations.0.interval"),
    ] {
        let message = refused(json!([stage("aggregate", parameters.clone())]));
        assert!(message.contains(place), "{parameters}: {message}");
    }
}

#[test]
fn what_resembles_each_other_stands_together() {
    let of = |parameters: Value| with(&[stage("cluster", parameters)]);
    let two = json!({"algorithm": "kmeans", "n_clusters": 2});
    let made = of(two);
    let groups = made.groups().unwrap();
    let shown: Vec<Vec<i64>> = groups.iter().map(|g| g.hits.iter().map(|hit| hit.document.seq).collect()).collect();
    assert_eq!(shown, [vec![1, 2, 6, 3], vec![4, 5]], "the third is as near to either");
    let told = metadata(&made, "clusters");
    assert_eq!((&told[0]["member_count"], &told[1]["members"][0]), (&json!(4), &json!("doc_4")));
    assert_eq!(told[0]["centroid"].as_array().map(Vec::len), Some(2));
    let labeled = of(
        json!({"algorithm": "agglomerative", "n_clusters": 2, "output_mode": "labeled", "include_centroids": false}),
    );
    assert_eq!(seqs(&labeled), [1, 2, 6, 3, 4, 5]);
    assert_eq!(labeled.hits[0].document.fields["cluster_id"], 0);
    assert!(labeled.hits[0].document.fields["cluster_score"].as_f64().unwrap() > 0.9);
    assert!(metadata(&labeled, "clusters")[0].get("centroid").is_none());
    let some =
        of(json!({"algorithm": "kmeans", "n_clusters": 2, "output_mode": "representatives", "feature_uri": "words"}));
    assert_eq!(some.hits.len(), 2);
    assert_eq!(of(json!({"min_cluster_size": 2})).status, Status::Completed, "hdbscan takes what it is given");
    assert!(nothing("cluster", json!({})).hits.is_empty());
    let unsearched = json!([
        stage("attribute_filter", json!({"field": "n", "operator": "gt", "value": 0})),
        stage("cluster", json!({}))
    ]);
    assert!(failed(unsearched, json!({})).contains("feature_uri"));
    let spectral = of(json!({"algorithm": "spectral", "n_clusters": 2, "output_mode": "labeled"}));
    assert!(spectral.hits.iter().all(|hit| hit.document.fields["cluster_id"].is_number()), "{:?}", spectral.hits);
    assert!(refused(json!([stage("cluster", json!({"algorithm": "best"}))])).contains("must be one of kmeans"));
}
