//! Documents in the catalog: what is put is what is got, changes follow, and SQL agrees with the filter evaluator.

#![allow(clippy::unwrap_used)]

mod common;

use common::{document, open, scope};
use serde_json::{Value, json};
use strata_model::{
    Error, Reader,
    acl::ACL,
    document::{Document, LIFECYCLE_STATE, VectorValue, Vectors},
    filter::Filter,
};
use strata_store::{
    Catalog,
    catalog::{access, documents},
};

fn put(catalog: &Catalog, document: Document, vectors: Vectors) -> (i64, i64) {
    catalog.write_blocking(move |tx| documents::put(tx, &scope("ns_1"), &document, 0, &vectors)).unwrap()
}

#[test]
fn what_is_put_is_what_is_got_by_its_own_namespace_only() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let vectors = Vectors::from([
        ("dense".to_owned(), VectorValue::Dense(vec![0.25, -1.5])),
        ("sparse".to_owned(), VectorValue::Sparse { indices: vec![3, 9], values: vec![0.5, 1.0] }),
    ]);
    let mut want = document("doc_1", json!({"title": "Sea", "n": 1}));
    (want.seq, _) = put(&catalog, want.clone(), vectors.clone());
    catalog
        .read_blocking(|c| {
            assert_eq!(documents::get(c, &scope("ns_1"), Some("col_1"), "doc_1")?, want);
            assert_eq!(documents::vectors(c, want.seq)?, vectors);
            assert!(matches!(documents::get(c, &scope("ns_2"), None, "doc_1"), Err(Error::Missing { .. })));
            assert!(documents::fetch(c, &scope("ns_2"), &[want.seq])?.is_empty());
            Ok(())
        })
        .unwrap();
}

#[test]
fn changes_hold_the_newest_of_each_document() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let (one, first) = put(&catalog, document("doc_1", json!({"v": 1})), Vectors::new());
    let (two, _) = put(&catalog, document("doc_2", json!({"v": 1})), Vectors::new());
    let (again, _) = put(&catalog, document("doc_1", json!({"v": 2})), Vectors::new());
    assert_eq!(one, again, "a document keeps its sequence number");
    catalog.write_blocking(move |tx| documents::remove(tx, &[two])).unwrap();
    let changes = catalog.read_blocking(|c| documents::changes_after(c, "col_1", 0, 10)).unwrap();
    let seen: Vec<_> =
        changes.iter().map(|c| (c.document_seq, c.document.as_ref().map(|d| d.fields["v"].clone()))).collect();
    assert_eq!(seen, [(one, Some(json!(2))), (two, None)]);
    let head = catalog.read_blocking(|c| documents::head(c, "col_1")).unwrap();
    assert!(
        head > first && catalog.read_blocking(|c| documents::changes_after(c, "col_1", head, 10)).unwrap().is_empty()
    );
}

#[test]
fn what_is_soft_deleted_takes_no_place_of_what_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    // Whatever a caller may have written there: only text other than `active` disables.
    let states = [json!("disabled"), json!("archived"), json!(""), json!("active"), json!(null), json!(7), json!({})];
    let mut all = Vec::new();
    for (i, state) in states.iter().map(Some).chain([None]).enumerate() {
        let mut made = document(&format!("doc_{i}"), json!({ "n": i }));
        made.internal_metadata.extend(state.map(|state| (LIFECYCLE_STATE.to_owned(), state.clone())));
        (made.seq, _) = put(&catalog, made.clone(), Vectors::new());
        all.push(made);
    }
    let found = |filter: Value, limit: usize| -> Vec<i64> {
        let filter = Filter::parse(&filter, "filters").unwrap();
        let found = catalog.read_blocking(|c| documents::findable(c, &scope("ns_1"), "col_1", &filter, limit)).unwrap();
        found.iter().map(|document| document.seq).collect()
    };
    let want: Vec<i64> = all.iter().filter(|document| !document.is_disabled()).map(|document| document.seq).collect();
    assert_eq!((all.len(), want.len()), (8, 5));
    assert_eq!(found(json!({}), 100), want);
    assert_eq!(found(json!({}), 2), want[..2], "the first three are disabled");
    assert_eq!(found(json!({ "field": "n", "operator": "gte", "value": 1 }), 1), want[..1]);
}

#[test]
fn vectors_are_read_by_who_may_read_their_documents() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let vectors = |x: f32| Vectors::from([("dense".to_owned(), VectorValue::Dense(vec![x]))]);
    let mut kept = document("doc_2", json!({}));
    kept.internal_metadata.insert(ACL.into(), json!({ "read": ["ann"], "write": [] }));
    let (open, _) = put(&catalog, document("doc_1", json!({})), vectors(1.0));
    let (kept, _) = put(&catalog, kept, vectors(2.0));
    let ann = || Reader::Principal("ann".into());
    for (reader, namespace, seen) in [
        (Reader::All, "ns_1", vec![open, kept]),
        (ann(), "ns_1", vec![open, kept]),
        (Reader::Principal("bob".into()), "ns_1", vec![open]),
        (Reader::Anyone, "ns_1", vec![open]),
        (Reader::All, "ns_2", vec![]),
        (ann(), "ns_2", vec![]),
    ] {
        let of = scope(namespace).seen_by(reader);
        let (found, names) = catalog
            .read_blocking(|c| {
                let seqs = [open, kept, 4711];
                Ok((documents::vectors_of(c, &of, &seqs)?, documents::vector_names_of(c, &of, &seqs)?))
            })
            .unwrap();
        let (mut found, mut names): (Vec<i64>, Vec<i64>) = (found.into_keys().collect(), names.into_keys().collect());
        found.sort_unstable();
        names.sort_unstable();
        assert_eq!((&found, &names), (&seen, &seen), "{of:?}");
    }
    let indexed = catalog.read_blocking(|c| documents::vectors_to_index(c, &[open, kept])).unwrap();
    assert_eq!((&indexed[&open], &indexed[&kept]), (&vectors(1.0), &vectors(2.0)));
}

#[test]
fn sql_and_the_evaluator_agree() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let values =
        [json!(1), json!(2.5), json!("2"), json!("Sea"), json!(true), json!(null), json!(["a", 2]), json!({"b": 1})];
    let mut all = Vec::new();
    for (i, a) in values.iter().enumerate() {
        for (j, b) in values.iter().enumerate() {
            let mut d = document(
                &format!("doc_{i}{j}"),
                if j % 2 == 0 { json!({"a": a, "m": {"b": b}}) } else { json!({"m": {"b": b}}) },
            );
            (d.seq, _) = put(&catalog, d.clone(), Vectors::new());
            all.push(d);
        }
    }
    let mut filters: Vec<Value> = vec![
        json!({"document_id": "doc_00"}),
        json!({"AND": [{"field": "root_object_id", "operator": "in", "value": ["obj_doc_00", "obj_doc_22"]}, {"a": 1}]}),
        json!({"OR": [{"document_id": "doc_13"}, {"NOT": [{"field": "a", "operator": "exists", "value": true}]}]}),
    ];
    for field in ["a", "m.b", "absent", "root_object_id"] {
        for operator in ["eq", "ne", "gt", "gte", "lt", "lte"] {
            filters.extend(values.iter().map(|v| json!({"field": field, "operator": operator, "value": v})));
        }
        filters.push(json!({"field": field, "operator": "in", "value": [1, "Sea"]}));
        filters.push(json!({"field": field, "operator": "nin", "value": [1, "Sea"]}));
        filters.push(json!({"field": field, "operator": "contains", "value": "se"}));
        filters.push(json!({"field": field, "operator": "is_null", "value": true}));
    }
    for filter in filters {
        let parsed = Filter::parse(&filter, "filters").unwrap();
        let want: Vec<i64> = all.iter().filter(|d| parsed.matches(&d.view())).map(|d| d.seq).collect();
        let got = catalog.read_blocking(|c| documents::seqs(c, &scope("ns_1"), Some("col_1"), &parsed)).unwrap();
        assert_eq!(got, want, "{filter}");
    }
}

#[test]
fn a_sort_over_mixed_types_follows_the_documented_order() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let values = [json!("b"), json!(10), json!(true), json!(null), json!("a"), json!(9.5)];
    for (i, v) in values.iter().enumerate() {
        put(&catalog, document(&format!("doc_{i}"), json!({"v": v})), Vectors::new());
    }
    put(&catalog, document("doc_9", json!({})), Vectors::new());
    for descending in [false, true] {
        let page = documents::Page { limit: 100, offset: 0, after: None, sort: Some(("v".into(), descending)) };
        let got = catalog
            .read_blocking(|c| documents::list(c, &scope("ns_1"), Some("col_1"), &Filter::all(), &page))
            .unwrap();
        let mut want = got.clone();
        want.sort_by(|a, b| strata_model::filter::sort_order(a.fields.get("v"), b.fields.get("v"), descending));
        assert_eq!(got, want);
        assert_eq!(got.len(), 7);
    }
}

#[test]
fn an_access_list_stays_with_its_document_and_goes_to_what_is_made_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = open(dir.path());
    let with_list = |id: &str, list: Value| {
        let mut made = document(id, json!({}));
        made.internal_metadata.insert(ACL.into(), list);
        made
    };
    let below = |id: &str, parent: &str| {
        let mut made = document(id, json!({}));
        made.lineage.source_document_id = Some(parent.into());
        made
    };
    put(&catalog, with_list("doc_1", json!({ "read": ["ann"], "write": ["bob"] })), Vectors::new());
    put(&catalog, below("doc_2", "doc_1"), Vectors::new());
    put(&catalog, below("doc_3", "doc_2"), Vectors::new());
    // Written anew without a list.
    put(&catalog, document("doc_1", json!({ "v": 2 })), Vectors::new());
    let named = |name: &str| scope("ns_1").seen_by(Reader::Principal(name.into()));
    let sees = |name: &str| {
        let of = named(name);
        let there = |id: &&str| catalog.read_blocking(|c| documents::exists(c, &of, None, id)).unwrap();
        ["doc_1", "doc_2", "doc_3"].iter().filter(|id| there(id)).count()
    };
    assert_eq!((sees("ann"), sees("bob"), sees("cy")), (3, 3, 0));
    let write = |name: &'static str| {
        let of = named(name);
        let made = document("doc_1", json!({ "v": 3 }));
        catalog.write_blocking(move |tx| documents::put(tx, &of, &made, 0, &Vectors::new()))
    };
    assert!(write("bob").is_ok());
    assert!(matches!(write("ann"), Err(Error::Forbidden(_))));
    assert!(matches!(write("cy"), Err(Error::Conflict(_))));

    let touched = catalog.write_blocking(|tx| {
        let mut changed = documents::get(tx, &scope("ns_1"), None, "doc_1")?;
        changed.internal_metadata.insert(ACL.into(), json!({ "read": ["cy"] }));
        documents::rewrite(tx, &changed, None)?;
        access::spread(tx, &scope("ns_1"), &changed)
    });
    let head = catalog.read_blocking(|c| documents::head(c, "col_1")).unwrap();
    assert_eq!(touched.unwrap(), [("col_1".to_owned(), head)], "the index follows");
    assert_eq!((sees("ann"), sees("bob"), sees("cy")), (0, 0, 3));
}
