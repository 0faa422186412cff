//! What is found: by vectors, by words, after changes; and what is refused.

use crate::support::{C, Dir, Memory, PATIENCE, dense, ids, open, point, spec, words};
use serde_json::json;
use std::time::Duration;
use strata_model::document::VectorValue;
use strata_model::filter::Filter;
use strata_model::{Error, Reader};
use strata_store::index::{Index, Query, Restriction, ShardState};

#[test]
fn applies_finds_replaces_and_deletes() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let index = open(&dir.path(), &feed);
    let write = |document, point| {
        let seq = feed.write(C, document, point);
        index.notify(C);
        assert!(index.wait_applied(C, seq, PATIENCE));
    };
    let full = |x: f32, y: f32, text| {
        let vectors = [
            ("d", VectorValue::Dense(vec![x, y])),
            ("e", VectorValue::Dense(vec![x, y])),
            ("m", VectorValue::Multi(vec![vec![x, y], vec![0.0, 0.0]])),
            ("s", VectorValue::Sparse { indices: vec![9, 3], values: vec![x, y] }),
        ];
        Some(point(json!({"tag": "a"}), &vectors, Some(text)))
    };
    write(1, full(1.0, 0.0, "the quick brown fox"));
    write(2, full(0.0, 1.0, "lazy dogs sleep"));
    assert_eq!(ids(&index, &dense(&[0.1, 1.0]), &Restriction::None, 10), [2, 1]);
    assert_eq!(ids(&index, &words("fox"), &Restriction::None, 10), [1]);
    assert_eq!(ids(&index, &words("a dog"), &Restriction::None, 10), [2]);
    assert_eq!(ids(&index, &words("the"), &Restriction::None, 10), [0; 0]);
    assert_eq!(
        ids(&index, &Query::Multi { index: "m".into(), vectors: vec![vec![1.0, 0.0]] }, &Restriction::None, 1),
        [1]
    );
    assert_eq!(
        ids(
            &index,
            &Query::Sparse { index: "s".into(), indices: vec![3, 1], values: vec![1.0, 1.0] },
            &Restriction::None,
            1
        ),
        [2]
    );
    let near = index
        .search(
            C,
            &Reader::All,
            &Query::Dense { index: "e".into(), vector: vec![0.0, 1.0] },
            &Restriction::None,
            2,
            None,
        )
        .unwrap();
    assert_eq!((near[0].document_seq, near[0].score), (2, 0.0));
    assert!(near[1].score > 1.0);
    let close = index.search(C, &Reader::All, &dense(&[1.0, 0.0]), &Restriction::None, 10, Some(0.9)).unwrap();
    assert_eq!(close.iter().map(|h| h.document_seq).collect::<Vec<_>>(), [1]);

    // Replaced with fewer vectors, also when the point has to move out of an optimised segment: nothing old is found.
    index.optimize(C).unwrap();
    write(1, Some(point(json!({"tag": "b"}), &[("d", VectorValue::Dense(vec![0.0, -1.0]))], None)));
    assert_eq!(ids(&index, &words("fox"), &Restriction::None, 10), [0; 0]);
    assert_eq!(ids(&index, &Query::Dense { index: "e".into(), vector: vec![1.0, 0.0] }, &Restriction::None, 10), [2]);
    assert_eq!(ids(&index, &dense(&[0.0, 1.0]), &Restriction::None, 10), [2, 1]);
    let filter = Restriction::Filter(Filter::eq("tag", "a"));
    assert_eq!(ids(&index, &dense(&[0.0, 1.0]), &filter, 10), [2]);
    write(2, None);
    assert_eq!(ids(&index, &dense(&[0.0, 1.0]), &Restriction::None, 10), [1]);
    assert_eq!(index.applied(C), 4);
    assert_eq!(index.status()[0].points, 1);
    assert!(!index.wait_applied(C, 99, Duration::from_millis(1)));
}

#[test]
fn bad_vectors_are_left_out_and_bad_queries_refused() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let bad = [
        ("d", VectorValue::Dense(vec![1.0, 0.0, 0.0])),
        ("e", VectorValue::Dense(vec![f32::NAN, 0.0])),
        ("m", VectorValue::Multi(vec![])),
        ("s", VectorValue::Sparse { indices: vec![1, 1], values: vec![1.0, 1.0] }),
        ("unknown", VectorValue::Dense(vec![1.0])),
    ];
    feed.write(C, 1, Some(point(json!({}), &bad, Some("kept words"))));
    feed.write(C, 2, Some(point(json!({}), &[("d", VectorValue::Dense(vec![0.0, 0.0]))], None)));
    let index = open(&dir.path(), &feed);
    assert_eq!(ids(&index, &words("words"), &Restriction::None, 10), [1]);
    assert_eq!(ids(&index, &dense(&[1.0, 0.0]), &Restriction::None, 10), [2]);
    for query in [dense(&[1.0]), dense(&[f32::NAN, 1.0]), Query::Dense { index: "s".into(), vector: vec![1.0, 0.0] }] {
        assert!(
            matches!(index.search(C, &Reader::All, &query, &Restriction::None, 1, None), Err(Error::Invalid(_))),
            "{query:?}"
        );
    }
    let unknown = Query::Dense { index: "nope".into(), vector: vec![1.0] };
    assert!(matches!(index.search(C, &Reader::All, &unknown, &Restriction::None, 1, None), Err(Error::Unavailable(_))));
    assert!(matches!(
        index.search("col_gone", &Reader::All, &words("x"), &Restriction::None, 1, None),
        Err(Error::Missing { .. })
    ));
    assert_eq!(index.status().iter().find(|s| s.collection_id == C).unwrap().state, ShardState::Ready);
}
