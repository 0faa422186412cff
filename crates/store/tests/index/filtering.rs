//! Searches with filters: how much of the best they find, and that the index and the evaluator mean the same.

use crate::support::{C, Dir, Memory, PATIENCE, Random, dense, ids, open, point, spec};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use strata_model::document::VectorValue;
use strata_model::filter::Filter;
use strata_model::{Fields, Reader};
use strata_store::index::{Index, Point, Restriction};

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| p * q).sum::<f32>();
    dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
}

fn best(feed: &Memory, query: &[f32], filter: &Filter, limit: usize) -> Vec<i64> {
    let mut scored: Vec<(f32, i64)> = Vec::new();
    for (id, point) in feed.live() {
        if let (true, Some(VectorValue::Dense(v))) = (filter.matches(&point.payload), point.vectors.get("d")) {
            scored.push((cosine(query, v), id));
        }
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(limit).map(|s| s.1).collect()
}

/// 5,000 points of which `tag` splits 10 % off and `n` 1 %.
fn crowd(random: &mut Random) -> Vec<Point> {
    let make = |i: u64| {
        let tag = if i % 10 == 3 { "tenth" } else { "rest" };
        let payload = json!({"tag": tag, "n": i % 100, "meta": {"price": i as f64 / 10.0}, "ok": i.is_multiple_of(2)});
        point(payload, &[("d", VectorValue::Dense(random.vector(64)))], None)
    };
    (0..5_000).map(make).collect()
}

/// Enough that chance in building the graph does not decide.
const QUERIES: u32 = 40;

#[test]
fn filtered_recall_before_and_after_optimize() {
    let mut random = Random(0x5EED_1234_5678);
    let (dir, feed) = (Dir::new(), Memory::new(spec(64)));
    let head = feed.fill(C, crowd(&mut random));
    let index = open(&dir.path(), &feed);
    index.notify(C);
    assert!(index.wait_applied(C, head, PATIENCE));
    let filters =
        [json!({"tag": "tenth"}), json!({"n": 42}), json!({"n": {"gte": 10, "lt": 20}, "ok": true}), Value::Null];
    let filters = filters.map(|f| Filter::parse(&f, "f").unwrap());
    let all = 10.0 * f64::from(QUERIES);
    for optimized in [false, true] {
        if optimized {
            index.optimize(C).unwrap();
            assert!(index.status()[0].indexed >= 5_000, "{:?}", index.status());
        }
        for filter in &filters {
            assert!(index.can_filter(C, &Reader::All, filter).unwrap());
            let matching: Vec<i64> =
                feed.live().iter().filter(|(_, p)| filter.matches(&p.payload)).map(|(id, _)| *id).collect();
            let (mut by_filter, mut by_ids) = (0, 0);
            for _ in 0..QUERIES {
                let query = random.vector(64);
                let truth: BTreeSet<i64> = best(&feed, &query, filter, 10).into_iter().collect();
                let found = ids(&index, &dense(&query), &Restriction::Filter(filter.clone()), 10);
                assert_eq!(found.len(), 10);
                by_filter += found.iter().filter(|id| truth.contains(id)).count();
                by_ids += ids(&index, &dense(&query), &Restriction::Ids(matching.clone()), 10)
                    .iter()
                    .filter(|id| truth.contains(id))
                    .count();
            }
            let (recall, exact) = (by_filter as f64 / all, by_ids as f64 / all);
            assert!(recall >= 0.95, "optimized {optimized}, {filter:?}: recall {recall}");
            assert!(exact >= 0.995, "optimized {optimized}, {filter:?}: exact search by ids gave {exact}");
        }
    }
}

/// Every filter that the index accepts selects exactly what [`Filter::matches`] does.
#[test]
fn filters_mean_what_the_evaluator_says() {
    let mut random = Random(0xF117_E200_0001);
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let pick = |random: &mut Random, list: &[Value]| list[random.below(list.len() as u64) as usize].clone();
    let tags = [json!("a"), json!("b"), json!(["a", "c"]), json!([]), json!({"of": "a"}), json!(null), json!("A")];
    let numbers = [
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(-3),
        json!([1, 9]),
        json!("text"),
        json!(null),
        json!(9007199254740993_i64),
    ];
    let prices = [json!(0.1), json!(10), json!([0.5, 20.25]), json!(true)];
    let dates = [
        json!("2024-05-01T10:20:30Z"),
        json!("2024-05-01T10:20:30.5Z"),
        json!("2024-05-01T10:20:30.123456Z"),
        json!(3),
    ];
    let mut made = Vec::new();
    for _ in 0..300 {
        let mut payload = Fields::new();
        for (field, values) in
            [("tag", &tags[..]), ("n", &numbers), ("at", &dates), ("ok", &[json!(true), json!(false), json!("true")])]
        {
            if random.below(5) > 0 {
                payload.insert(field.into(), pick(&mut random, values));
            }
        }
        payload.insert("meta".into(), json!({"price": pick(&mut random, &prices)}));
        made.push(point(Value::Object(payload), &[("d", VectorValue::Dense(vec![1.0, 0.0]))], None));
    }
    let head = feed.fill(C, made);
    let index = open(&dir.path(), &feed);
    index.notify(C);
    assert!(index.wait_applied(C, head, PATIENCE));
    let leaf = |random: &mut Random| match random.below(7) {
        0 => json!({"field": "tag", "operator": "eq", "value": pick(random, &[json!("a"), json!("c"), json!("z")])}),
        1 => json!({"field": "tag", "operator": "in", "value": ["b", "c"]}),
        2 => {
            json!({"field": "n", "operator": pick(random, &[json!("eq"), json!("gt"), json!("lte")]), "value": pick(random, &[json!(1), json!(1.5), json!(9)])})
        }
        3 => json!({"field": "n", "operator": "in", "value": [1, -3.0]}),
        4 => {
            json!({"field": "meta.price", "operator": pick(random, &[json!("gte"), json!("lt"), json!("eq")]), "value": pick(random, &[json!(0.1), json!(10.0)])})
        }
        5 => {
            json!({"field": "at", "operator": pick(random, &[json!("eq"), json!("gt"), json!("lte")]), "value": "2024-05-01T10:20:30.5Z"})
        }
        _ => json!({"field": "ok", "operator": "eq", "value": true}),
    };
    fn tree(random: &mut Random, depth: u64, leaf: &impl Fn(&mut Random) -> Value) -> Value {
        if depth == 0 || random.below(3) == 0 {
            return leaf(random);
        }
        let list: Vec<Value> = (0..random.below(4)).map(|_| tree(random, depth - 1, leaf)).collect();
        let name = ["AND", "OR", "NOT"][random.below(3) as usize];
        json!({ name: list })
    }
    let mut evaluated = 0;
    for optimized in [false, true] {
        if optimized {
            index.optimize(C).unwrap();
        }
        for _ in 0..200 {
            let filter = tree(&mut random, 3, &leaf);
            let parsed = Filter::parse(&filter, "f").unwrap();
            if !index.can_filter(C, &Reader::All, &parsed).unwrap() {
                continue;
            }
            evaluated += 1;
            let mut found = ids(&index, &dense(&[1.0, 0.0]), &Restriction::Filter(parsed.clone()), 1_000);
            found.sort_unstable();
            let expected: Vec<i64> =
                feed.live().iter().filter(|(_, p)| parsed.matches(&p.payload)).map(|(id, _)| *id).collect();
            assert_eq!(found, expected, "{filter}");
        }
    }
    assert!(evaluated > 250, "only {evaluated} of 400 filters were accepted");
    for refused in [
        json!({"field": "other", "operator": "eq", "value": 1}),
        json!({"field": "tag", "operator": "ne", "value": "a"}),
        json!({"field": "tag", "operator": "gt", "value": "a"}),
        json!({"field": "n", "operator": "gt", "value": "1"}),
        json!({"field": "at", "operator": "gt", "value": "2024-05-01"}),
        json!({"field": "ok", "operator": "eq", "value": null}),
    ] {
        assert!(!index.can_filter(C, &Reader::All, &Filter::parse(&refused, "f").unwrap()).unwrap(), "{refused}");
    }
    // A text that reads as a number or a boolean is one where the field has such values.
    let seq = feed.write(
        C,
        999,
        Some(point(json!({"n": "5", "ok": "False"}), &[("d", VectorValue::Dense(vec![1.0, 0.0]))], None)),
    );
    index.notify(C);
    assert!(index.wait_applied(C, seq, PATIENCE));
    assert_eq!(ids(&index, &dense(&[1.0, 0.0]), &Restriction::Filter(Filter::eq("n", 5)), 1_000), [999]);
    let five = Filter::eq("n", 5).and(Filter::eq("ok", false));
    assert_eq!(ids(&index, &dense(&[1.0, 0.0]), &Restriction::Filter(five), 1_000), [999]);
    // The other way round the index cannot say so, and stops filtering on the field.
    let seq = feed.write(C, 1_000, Some(point(json!({"tag": 7}), &[], None)));
    index.notify(C);
    assert!(index.wait_applied(C, seq, PATIENCE));
    assert!(!index.can_filter(C, &Reader::All, &Filter::eq("tag", "a")).unwrap());
    assert!(index.can_filter(C, &Reader::All, &Filter::eq("n", 1)).unwrap());
}
