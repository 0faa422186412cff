use super::*;

fn run(request: Value) -> Vec<Value> {
    let rows = json!([
        { "kind": "a", "n": 1, "tags": ["x", "y"], "at": "2024-02-29T13:45:10Z" },
        { "kind": "b", "n": 2.5, "tags": ["x"], "at": "2024-03-04" },
        { "kind": "a", "n": 4, "tags": [], "at": "2024-03-03T23:59:59Z" },
        { "kind": "a", "n": null },
    ]);
    let aggregation = Aggregation::parse(&request).unwrap();
    let mut groups = Groups::new(&aggregation);
    for row in rows.as_array().unwrap() {
        groups.add(row.as_object().unwrap()).unwrap();
    }
    let (groups, _) = groups.finish().unwrap();
    groups.into_iter().map(|g| json!([g.group, g.metrics])).collect()
}

#[test]
fn every_function_over_groups() {
    let operations: Vec<Value> =
        Function::ALL.iter().map(|(name, _)| json!({ "function": name, "field": "n", "alias": name })).collect();
    let operations: Vec<Value> = operations
        .into_iter()
        .map(|mut operation| {
            if operation["function"] == "percentile" {
                operation["percentile"] = json!(90);
            }
            operation
        })
        .collect();
    let answer = run(json!({ "group_by": [{ "field": "kind" }], "aggregations": operations }));
    assert_eq!(
        answer[0],
        json!([{ "kind": "a" }, {
            "count": 2, "count_distinct": 2, "sum": 5, "avg": 2.5, "min": 1, "max": 4, "first": 1, "last": 4,
            "push": [1, 4], "add_to_set": [1, 4], "percentile": 3.7, "median": 2.5, "stddev": 1.5, "variance": 2.25,
        }])
    );
    assert_eq!(answer[1][1]["sum"], json!(2.5));
}

#[test]
fn percentiles_lie_between_the_closest_numbers() {
    let of = |numbers: &[f64], percent: f64| percentile(numbers.to_vec(), percent / 100.0);
    assert_eq!(of(&[], 50.0), None);
    assert_eq!((of(&[7.0], 0.0), of(&[7.0], 100.0)), (Some(7.0), Some(7.0)));
    let five = [50.0, 15.0, 40.0, 20.0, 35.0];
    for (percent, want) in
        [(0.0, 15.0), (5.0, 16.0), (30.0, 23.0), (40.0, 29.0), (50.0, 35.0), (95.0, 48.0), (100.0, 50.0)]
    {
        let found = of(&five, percent).unwrap();
        assert!((found - want).abs() < 1e-9, "{percent}: {found}");
    }
    let far = json!([1e9 + 4.0, 1e9 + 7.0, 1e9 + 13.0, 1e9 + 16.0]);
    let request = json!({ "group_by": [{ "field": "k" }], "unwind": "n",
        "aggregations": [{ "function": "variance", "field": "n", "alias": "v" }] });
    let aggregation = Aggregation::parse(&request).unwrap();
    let mut groups = Groups::new(&aggregation);
    groups.add(json!({ "n": far }).as_object().unwrap()).unwrap();
    assert_eq!(groups.finish().unwrap().0[0].metrics["v"], json!(22.5), "large numbers close together");
    for (operation, place) in [
        (json!({ "function": "percentile", "field": "n", "alias": "p" }), "aggregations.0.percentile"),
        (
            json!({ "function": "percentile", "field": "n", "alias": "p", "percentile": 101 }),
            "aggregations.0.percentile",
        ),
        (json!({ "function": "sum", "field": "n", "alias": "p", "percentile": 1 }), "aggregations.0.percentile"),
        (json!({ "function": "median", "alias": "p" }), "aggregations.0.field"),
    ] {
        match Aggregation::parse(&json!({ "group_by": ["k"], "aggregations": [operation] })) {
            Err(Error::Invalid(faults)) => assert_eq!(faults[0].field, place),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn having_sort_and_limit() {
    let request = json!({
        "group_by": [{ "field": "kind", "alias": "k" }],
        "aggregations": [{ "function": "count", "alias": "rows" }],
        "sort_by": "rows", "limit": 1,
    });
    assert_eq!(run(request.clone()), [json!([{ "k": "a" }, { "rows": 3 }])]);
    let mut having = request;
    having["having"] = json!([{ "field": "rows", "operator": "lt", "value": 2 }]);
    assert_eq!(run(having), [json!([{ "k": "b" }, { "rows": 1 }])]);
}

#[test]
fn unwinding_ranges_and_times() {
    let count = json!([{ "function": "count", "alias": "c" }]);
    let tags = run(json!({ "group_by": [{ "field": "tags" }], "unwind": "tags", "aggregations": count }));
    assert_eq!(tags, [json!([{ "tags": "x" }, { "c": 2 }]), json!([{ "tags": "y" }, { "c": 1 }])]);
    let ranges = json!([{ "field": "n", "boundaries": [1, 2.5, 3] }]);
    let ranged = run(json!({ "group_by": [{ "field": "n" }], "range_buckets": ranges, "aggregations": count }));
    assert_eq!(ranged, [json!([{ "n": "1-2.5" }, { "c": 2 }]), json!([{ "n": "other" }, { "c": 2 }])]);
    let weeks = run(json!({ "group_by": [{ "field": "at", "date_trunc": "week" }], "aggregations": count }));
    assert_eq!(weeks[0][0]["at"], "2024-02-26T00:00:00Z");
    assert_eq!(weeks[0][1]["c"], 2);
    assert_eq!(weeks[1][0]["at"], "2024-03-04T00:00:00Z");
    let hours = run(json!({ "group_by": [{ "field": "at", "date_trunc": "hour" }], "aggregations": count }));
    assert_eq!(hours[0][0]["at"], "2024-02-29T13:00:00Z");
    let days = run(json!({ "group_by": [{ "field": "at", "date_part": "dayOfWeek" }], "aggregations": count }));
    assert_eq!(days[2][0]["at"], 1, "3 March 2024 is a Sunday");
}

#[test]
fn counts_need_no_group_and_other_functions_do() {
    let count = json!({ "aggregations": [{ "function": "count", "alias": "all" }] });
    assert_eq!(run(count.clone()), [json!([{}, { "all": 4 }])]);
    let nothing = Aggregation::parse(&count).unwrap();
    assert_eq!(Groups::new(&nothing).finish().unwrap().0[0].metrics["all"], 0);
    for wrong in [
        json!({ "aggregations": [{ "function": "sum", "field": "n", "alias": "s" }] }),
        json!({ "aggregations": [] }),
        json!({ "group_by": [{ "field": "k" }], "aggregations": [{ "function": "median", "alias": "m" }] }),
        json!({ "group_by": [{ "field": "k" }], "aggregations": [{ "function": "sum", "alias": "m" }] }),
        json!({ "group_by": [{ "field": "k", "date_part": "week", "date_trunc": "week" }], "aggregations": [{ "function": "count", "alias": "m" }] }),
        json!({ "range_buckets": [{ "field": "k", "boundaries": [2, 1] }], "aggregations": [{ "function": "count", "alias": "m" }] }),
    ] {
        assert!(Aggregation::parse(&wrong).is_err(), "{wrong}");
    }
}
