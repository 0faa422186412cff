//! A filter means the same to SQL, to the index and to the evaluator in memory, whatever the documents and the filter are;
//! and a payload index of the catalog changes neither what is found nor its order.

#![allow(clippy::unwrap_used)]

mod common;

use common::{document, open, scope};
use proptest::{
    collection::vec,
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde_json::{Value, json};
use std::{cell::Cell, sync::Arc, time::Duration};
use strata_model::{
    Fields, Reader, Result,
    acl::{ACL, READERS},
    document::{Document, VectorValue, Vectors},
    feature::{Distance, VectorIndex, VectorKind},
    filter::{Filter, Operator},
};
use strata_store::{
    Catalog,
    catalog::{
        browse::{self, Selection},
        documents::{self, Mark, Page},
        from_sql, payload,
    },
    index::{
        Change, EdgeConfig, EdgeIndex, Feed, Index, PayloadIndex, PayloadKind, Point, Query, Restriction, ShardSpec,
    },
};

const COLLECTION: &str = "col_1";
/// The same documents in a collection of another namespace, with payload indexes, declared when half of them were there.
const DECLARED: &str = "col_2";
fn namespace(collection: &str) -> &'static str {
    if collection == DECLARED { "ns_2" } else { "ns_1" }
}

/// How much later their sequence numbers are.
const LATER: i64 = 1_000_000;
const CASES: u32 = 25;
const PATIENCE: Duration = Duration::from_secs(20);
/// The fields that the index holds.
const INDEXED: [(&str, PayloadKind); 6] = [
    ("tag", PayloadKind::Keyword),
    ("n", PayloadKind::Integer),
    ("m.price", PayloadKind::Float),
    ("metadata.n", PayloadKind::Float),
    ("ok", PayloadKind::Bool),
    ("at", PayloadKind::Datetime),
];

/// Any scalar, of few enough different ones that filters meet them.
fn scalar() -> impl Strategy<Value = Value> + Clone {
    let texts = ["a", "A", "b", "", "red sea", "The Red Sea", "2", "1.5", "é", "a%_b"];
    let dates = ["2024-05-01T10:20:30Z", "2024-05-01T10:20:30.5Z", "2024-05-01"];
    let numbers =
        [json!(1), json!(1.0), json!(1.5), json!(-3), json!(0), json!(9_007_199_254_740_993_i64), json!(1e300)];
    prop_oneof![
        select(texts.to_vec()).prop_map(Value::from),
        select(dates.to_vec()).prop_map(Value::from),
        select(numbers.to_vec()),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ]
}

fn value() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        6 => scalar(),
        1 => vec(scalar(), 0..4).prop_map(Value::Array),
        1 => scalar().prop_map(|v| json!({ "n": v })),
    ]
}

/// What a field mostly holds: the type that it is indexed as.
fn usual(field: &str) -> BoxedStrategy<Value> {
    match field {
        "tag" => select(vec![json!("a"), json!("A"), json!("b"), json!(["a", "b"])]).boxed(),
        "ok" => any::<bool>().prop_map(Value::from).boxed(),
        "at" => select(vec![json!("2024-05-01T10:20:30Z"), json!("2024-05-01T10:20:30.5Z")]).boxed(),
        _ => select(vec![json!(1), json!(1.5), json!(-3), json!([1, 9])]).boxed(),
    }
}

fn point() -> impl Strategy<Value = Value> + Clone {
    let degrees = |most: i32| select(vec![-most, -1, 0, 1, 10, most]);
    (degrees(90), degrees(180)).prop_map(|(lat, lon)| json!({ "lat": lat, "lon": lon }))
}

/// What a geo operator takes.
fn area(operator: &str) -> BoxedStrategy<Value> {
    match operator {
        "geo_radius" => (point(), select(vec![1, 200_000, 2_000_000, 12_000_000]))
            .prop_map(|(center, radius)| json!({ "center": center, "radius": radius }))
            .boxed(),
        "geo_bounding_box" => (point(), point())
            .prop_map(|(mut a, mut b)| {
                if a["lat"].as_i64() < b["lat"].as_i64() {
                    std::mem::swap(&mut a["lat"], &mut b["lat"]);
                }
                json!({ "top_left": a, "bottom_right": b })
            })
            .boxed(),
        _ => (vec(point(), 4..6), proptest::option::of(vec(point(), 4..5)))
            .prop_map(|(exterior, hole)| {
                let holes: Vec<Value> = hole.into_iter().map(|points| json!({ "points": points })).collect();
                json!({ "exterior": { "points": exterior }, "interiors": holes })
            })
            .boxed(),
    }
}

/// The fields of one document. Where `odd` is not set, indexed fields hold what they are indexed as.
fn fields(odd: bool) -> impl Strategy<Value = Value> {
    let of = move |field: &'static str| {
        let held = if odd { value().boxed() } else { usual(field) };
        proptest::option::weighted(0.8, held)
    };
    let metadata =
        prop_oneof![4 => of("metadata.n").prop_map(|n| json!({ "n": n, "tag": "a" })), 1 => Just(Value::Null)];
    let place = prop_oneof![3 => point(), 1 => vec(point(), 0..3).prop_map(Value::Array)];
    let others = (proptest::option::of(value()), proptest::option::of(place));
    (of("tag"), of("n"), of("ok"), of("at"), of("m.price"), metadata, others).prop_map(
        |(tag, n, ok, at, price, metadata, (text, place))| {
            let held = [("tag", tag), ("n", n), ("ok", ok), ("at", at), ("text", text), ("place", place)];
            let mut all: Fields = held.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
            all.extend(price.map(|p| ("m".to_owned(), json!({ "price": p }))));
            if !metadata.is_null() {
                all.insert("metadata".into(), metadata);
            }
            Value::Object(all)
        },
    )
}

fn leaf() -> impl Strategy<Value = Value> {
    let any_field = select(vec![
        "tag",
        "n",
        "ok",
        "at",
        "m.price",
        "m",
        "metadata.n",
        "metadata.tag",
        "metadata.ok",
        "text",
        "text.n",
        "place",
        "absent",
        "document_id",
        "root_object_id",
        READERS,
    ]);
    let wild =
        (any_field, select(Operator::ALL.map(|(name, _)| name).to_vec()), value(), vec(scalar(), 0..4), any::<bool>())
            .prop_map(|(field, operator, value, list, flag)| {
                let value = match operator {
                    "in" | "nin" => Value::Array(list),
                    "exists" | "is_null" => flag.into(),
                    _ => value,
                };
                json!({ "field": field, "operator": operator, "value": value })
            });
    let compiled = select(INDEXED.to_vec()).prop_flat_map(|(field, _)| {
        let operator = select(vec!["eq", "gt", "gte", "lt", "lte", "in"]);
        (Just(field), operator, usual(field)).prop_map(|(field, operator, value)| {
            let value = match (operator, value) {
                ("in", Value::Array(list)) => Value::Array(list),
                ("in", one) => json!([one]),
                (_, Value::Array(list)) => list[0].clone(),
                (_, one) => one,
            };
            json!({ "field": field, "operator": operator, "value": value })
        })
    });
    let near = select(vec!["geo_radius", "geo_bounding_box", "geo_polygon"]).prop_flat_map(|operator| {
        let field = prop_oneof![4 => Just("place"), 1 => Just("text")];
        (field, area(operator))
            .prop_map(move |(field, value)| json!({ "field": field, "operator": operator, "value": value }))
    });
    prop_oneof![2 => wild, 2 => compiled, 1 => near]
}

fn filter() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        (select(vec!["AND", "OR", "NOT"]), vec(inner, 0..4)).prop_map(|(name, list)| json!({ name: list }))
    })
}

/// What the catalog would tell the index.
struct Told(Vec<Change>);

impl Feed for Told {
    fn spec(&self, _: &str) -> Result<Option<ShardSpec>> {
        let vector = VectorIndex {
            name: "d".into(),
            feature_uri: String::new(),
            kind: VectorKind::Dense,
            dimensions: Some(2),
            distance: Distance::Cosine,
            model: String::new(),
            aliases: Vec::new(),
        };
        let fields = INDEXED.into_iter().chain([(READERS, PayloadKind::Keyword)]);
        let payload = fields.map(|(field, kind)| PayloadIndex { field: field.into(), kind }).collect();
        Ok(Some(ShardSpec { collection_id: COLLECTION.into(), vectors: vec![vector], payload, language: None }))
    }
    fn changes_after(&self, _: &str, after: i64, limit: usize) -> Result<Vec<Change>> {
        Ok(self.0.iter().filter(|c| c.seq > after).take(limit).cloned().collect())
    }
    fn head(&self, _: &str) -> Result<i64> {
        Ok(self.0.last().map_or(0, |c| c.seq))
    }
}

/// The access list of a document: by its number none, or one of every kind.
fn access_list(number: usize) -> Option<Value> {
    match number % 6 {
        0 => None,
        1 => Some(json!({ "read": ["ann"], "owner": "bob" })),
        2 => Some(json!({ "read": ["cy", "*"], "write": ["bob", "cy"] })),
        3 => Some(json!({ "public": true, "read": ["bob"] })),
        4 => Some(json!({ "public": false, "write": [] })),
        _ => Some(json!({ "owner": "ann" })),
    }
}

/// Everybody who may ask.
fn readers() -> [Reader; 5] {
    let named = |name: &str| Reader::Principal(name.to_owned());
    [Reader::All, Reader::Anyone, named("ann"), named("bob"), named("*")]
}

/// The same documents in a catalog, in an index and in memory.
struct World {
    catalog: Catalog,
    index: Arc<EdgeIndex>,
    documents: Vec<Document>,
    turn: Cell<usize>,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(all: Vec<Value>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = open(dir.path());
        let documents = catalog.write_blocking(move |tx| {
            let put = |(i, fields): (usize, Value)| {
                let mut made = document(&format!("doc_{i}"), fields);
                made.lineage.root_object_id = i.is_multiple_of(2).then(|| "a".into());
                made.internal_metadata.extend(access_list(i).map(|list| (ACL.to_owned(), list)));
                (made.seq, _) = documents::put(tx, &scope("ns_1"), &made, 0, &Vectors::new())?;
                Ok(made)
            };
            all.into_iter().enumerate().map(put).collect::<Result<Vec<_>>>()
        });
        let documents = documents.unwrap();
        declare(&catalog, &documents);
        let changes = documents.iter().enumerate().map(|(i, made)| {
            let vectors = Vectors::from([("d".to_owned(), VectorValue::Dense(vec![1.0, 0.0]))]);
            let payload = made.indexed();
            Change { seq: i as i64 + 1, document_seq: made.seq, point: Some(Point { payload, vectors, lexical: None }) }
        });
        let told = Arc::new(Told(changes.collect()));
        let index = EdgeIndex::open(dir.path().join("index"), told.clone(), EdgeConfig::default()).unwrap();
        index.notify(COLLECTION);
        assert!(index.wait_applied(COLLECTION, told.head(COLLECTION).unwrap(), PATIENCE));
        Self { catalog, index, documents, turn: Cell::new(0), _dir: dir }
    }

    /// Asserts that all find the same; answers whether the index was asked.
    fn agree(&self, sent: &Value) -> std::result::Result<bool, TestCaseError> {
        // Some operators refuse some values.
        let Ok(parsed) = Filter::parse(sent, "filters") else { return Ok(false) };
        let want: Vec<i64> = self.documents.iter().filter(|d| parsed.matches(&d.view())).map(|d| d.seq).collect();
        let (scope, of) = (scope("ns_1"), parsed.clone());
        let by_sql = self.catalog.read_blocking(|c| documents::seqs(c, &scope, Some(COLLECTION), &of)).unwrap();
        prop_assert_eq!(&by_sql, &want, "SQL: {}", sent);
        let (planned, count) = self
            .catalog
            .read_blocking(|c| {
                let selection = Selection::of(Some(DECLARED), &parsed);
                let scope = common::scope(namespace(DECLARED));
                Ok((browse::seqs(c, &scope, selection)?, browse::count(c, &scope, selection)?))
            })
            .unwrap();
        let planned: Vec<i64> = planned.iter().map(|seq| seq - LATER).collect();
        prop_assert_eq!(&planned, &want, "SQL with payload indexes: {}", sent);
        prop_assert_eq!(count, want.len() as i64, "count with payload indexes: {}", sent);
        // One field for each filter, and in time all of them.
        let fields = INDEXED.map(|(field, _)| field).into_iter().chain(["absent", "created_at"]);
        let turn = self.turn.replace(self.turn.get() + 1);
        let field = fields.cycle().nth(turn % (INDEXED.len() + 2)).unwrap();
        for descending in [false, true] {
            let plain = self.sorted(COLLECTION, &parsed, field, descending, 1_000);
            prop_assert_eq!(plain.len(), want.len(), "sorted by {}: {}", field, sent);
            for (collection, size) in [(COLLECTION, 3), (DECLARED, 1_000), (DECLARED, 3)] {
                let found = self.sorted(collection, &parsed, field, descending, size);
                prop_assert_eq!(&found, &plain, "{} by {}, pages of {}: {}", collection, field, size, sent);
            }
        }
        for reader in readers() {
            self.agree_for(&reader, &parsed, sent)?;
        }
        Ok(self.index.can_filter(COLLECTION, &Reader::All, &parsed).unwrap())
    }

    /// Asserts that all find the same for a reader.
    fn agree_for(&self, reader: &Reader, parsed: &Filter, sent: &Value) -> std::result::Result<(), TestCaseError> {
        let readable = self.documents.iter().filter(|d| reader.may_read(d.acl()));
        let all: Vec<i64> = readable.clone().map(|d| d.seq).collect();
        let want: Vec<i64> = readable.filter(|d| parsed.matches(&d.view())).map(|d| d.seq).collect();
        for (collection, later) in [(COLLECTION, 0), (DECLARED, LATER)] {
            let scope = scope(namespace(collection)).seen_by(reader.clone());
            let page = Page { limit: 1_000, offset: 0, after: None, sort: Some(("n".into(), true)) };
            let (seqs, count, list) = self
                .catalog
                .read_blocking(|c| {
                    let selection = Selection::of(Some(collection), parsed);
                    let list = documents::list(c, &scope, Some(collection), parsed, &page)?;
                    Ok((browse::seqs(c, &scope, selection)?, browse::count(c, &scope, selection)?, list))
                })
                .unwrap();
            let seqs: Vec<i64> = seqs.iter().map(|seq| seq - later).collect();
            let mut listed: Vec<i64> = list.iter().map(|document| document.seq - later).collect();
            listed.sort_unstable();
            prop_assert_eq!(&seqs, &want, "SQL over {} for {:?}: {}", collection, reader, sent);
            prop_assert_eq!(&listed, &want, "a list of {} for {:?}: {}", collection, reader, sent);
            prop_assert_eq!(count, want.len() as i64, "the count of {} for {:?}: {}", collection, reader, sent);
        }
        let can = self.index.can_filter(COLLECTION, reader, parsed).unwrap();
        let filtered = can.then(|| (Restriction::Filter(parsed.clone()), &want));
        for (restriction, want) in filtered.into_iter().chain([(Restriction::None, &all)]) {
            let query = Query::Dense { index: "d".into(), vector: vec![1.0, 0.0] };
            let hits = self.index.search(COLLECTION, reader, &query, &restriction, 1_000, None).unwrap();
            let mut found: Vec<i64> = hits.iter().map(|hit| hit.document_seq).collect();
            found.sort_unstable();
            prop_assert_eq!(&found, want, "the index by {:?} for {:?}: {}", restriction, reader, sent);
        }
        Ok(())
    }
}

impl World {
    /// The names of what satisfies a filter, by a field, page after page: by turns after the last one and by offset.
    fn sorted(&self, collection: &str, filter: &Filter, field: &str, descending: bool, size: usize) -> Vec<String> {
        let sort = Some((field.to_owned(), descending));
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let offset = if after.is_some() { 0 } else { found.len() };
            let page = Page { limit: size, offset, after: after.take(), sort: sort.clone() };
            let part = self
                .catalog
                .read_blocking(|c| documents::list(c, &scope(namespace(collection)), Some(collection), filter, &page))
                .unwrap();
            let is_last = part.len() < size;
            if (found.len() / size).is_multiple_of(2) {
                after = part.last().map(|last| Mark::of(last, Some(field)));
            }
            found.extend(part.into_iter().map(|d| d.document_id));
            if is_last {
                return found;
            }
        }
    }
}

/// Puts the documents into [`DECLARED`] by way of other values, and one that goes again.
fn declare(catalog: &Catalog, documents: &[Document]) {
    let fields = INDEXED.map(|(field, _)| field.to_owned());
    let setup = "INSERT INTO collections VALUES ('col_2', 'ns_2', 'd', 1, '{}', 't', 't');";
    let copy = |of: &Document| Document { collection_id: DECLARED.into(), ..of.clone() };
    let copies: Vec<Document> = documents.iter().map(copy).collect();
    let write = catalog.write_blocking(move |tx| {
        let put = |made: &Document| documents::put(tx, &scope("ns_2"), made, 0, &Vectors::new());
        tx.execute_batch(setup).map_err(from_sql)?;
        let first = documents::add(
            tx,
            &scope("ns_2"),
            &Document { document_id: "first".into(), ..copies[0].clone() },
            &Vectors::new(),
        )?;
        tx.execute("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'documents'", [LATER]).map_err(from_sql)?;
        for (i, made) in copies.iter().enumerate() {
            if i == copies.len() / 2 {
                payload::declare(tx, DECLARED, &fields)?;
                payload::build(tx, 2)?;
            }
            put(&Document { fields: copies[copies.len() - 1 - i].fields.clone(), ..made.clone() })?;
        }
        documents::remove(tx, &[first.0])?;
        copies.iter().try_for_each(|made| put(made).map(drop))?;
        while payload::build(tx, 2)? {}
        assert!(payload::indexes(tx, DECLARED)?.iter().all(|index| index.is_complete));
        Ok(())
    });
    write.unwrap();
}

#[test]
fn three_compilers_agree() {
    let case = any::<bool>().prop_flat_map(|odd| (vec(fields(odd), 1..30), vec(filter(), 25)));
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let by_index = Cell::new(0);
    let outcome = runner.run(&case, |(documents, filters)| {
        let world = World::new(documents);
        for filter in &filters {
            by_index.set(by_index.get() + u32::from(world.agree(filter)?));
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(by_index.get() > CASES, "the index was asked only {} times", by_index.get());
}
