//! The index against a catalog in memory: what it finds, what it survives, and that it is exact where it says so.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strata_model::acl::READERS;
use strata_model::document::VectorValue;
use strata_model::feature::{Distance, VectorIndex, VectorKind};
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Fields, Reader, Result};
use strata_store::index::{
    Change, EdgeConfig, EdgeIndex, Feed, Index, PayloadIndex, PayloadKind, Point, Query, Restriction, ShardSpec,
    ShardState,
};

const C: &str = "col_test";
const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!(
            "strata-index-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
    fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Default)]
struct Memory {
    specs: Mutex<BTreeMap<String, ShardSpec>>,
    /// Newest change by document, per collection.
    documents: Mutex<BTreeMap<String, BTreeMap<i64, Change>>>,
}

impl Memory {
    fn new(spec: ShardSpec) -> Arc<Self> {
        let memory = Self::default();
        memory.specs.lock().unwrap().insert(spec.collection_id.clone(), spec);
        Arc::new(memory)
    }
    fn write(&self, collection: &str, document_seq: i64, point: Option<Point>) -> i64 {
        let mut documents = self.documents.lock().unwrap();
        let seq = documents.values().flat_map(|d| d.values()).map(|c| c.seq).max().unwrap_or(0) + 1;
        documents.entry(collection.into()).or_default().insert(document_seq, Change { seq, document_seq, point });
        seq
    }
    fn fill(&self, collection: &str, points: impl IntoIterator<Item = Point>) -> i64 {
        let mut documents = self.documents.lock().unwrap();
        let all = documents.entry(collection.into()).or_default();
        for (i, point) in points.into_iter().enumerate() {
            let seq = i as i64 + 1;
            all.insert(seq, Change { seq, document_seq: seq, point: Some(point) });
        }
        all.len() as i64
    }
    fn live(&self) -> Vec<(i64, Point)> {
        let documents = self.documents.lock().unwrap();
        documents[C].values().filter_map(|c| Some((c.document_seq, c.point.clone()?))).collect()
    }
}

impl Feed for Memory {
    fn spec(&self, collection_id: &str) -> Result<Option<ShardSpec>> {
        Ok(self.specs.lock().unwrap().get(collection_id).cloned())
    }
    fn changes_after(&self, collection_id: &str, after: i64, limit: usize) -> Result<Vec<Change>> {
        let documents = self.documents.lock().unwrap();
        let mut changes: Vec<&Change> =
            documents.get(collection_id).into_iter().flat_map(|d| d.values()).filter(|c| c.seq > after).collect();
        changes.sort_by_key(|c| c.seq);
        Ok(changes.into_iter().take(limit).cloned().collect())
    }
    fn head(&self, collection_id: &str) -> Result<i64> {
        let documents = self.documents.lock().unwrap();
        Ok(documents.get(collection_id).into_iter().flat_map(|d| d.values()).map(|c| c.seq).max().unwrap_or(0))
    }
}

fn vector(name: &str, kind: VectorKind, dimensions: Option<usize>, distance: Distance) -> VectorIndex {
    VectorIndex {
        name: name.into(),
        feature_uri: String::new(),
        kind,
        dimensions,
        distance,
        model: String::new(),
        aliases: Vec::new(),
    }
}

fn spec(dimensions: usize) -> ShardSpec {
    let payload = [
        ("tag", PayloadKind::Keyword),
        ("n", PayloadKind::Integer),
        ("meta.price", PayloadKind::Float),
        ("ok", PayloadKind::Bool),
        ("at", PayloadKind::Datetime),
    ];
    ShardSpec {
        collection_id: C.into(),
        vectors: vec![
            vector("d", VectorKind::Dense, Some(dimensions), Distance::Cosine),
            vector("m", VectorKind::MultiDense, Some(2), Distance::Dot),
            vector("s", VectorKind::Sparse, None, Distance::Dot),
            vector("e", VectorKind::Dense, Some(2), Distance::Euclidean),
        ],
        payload: payload.map(|(field, kind)| PayloadIndex { field: field.into(), kind }).to_vec(),
        language: None,
    }
}

fn fields(value: Value) -> Fields {
    value.as_object().unwrap().clone()
}

fn point(payload: Value, vectors: &[(&str, VectorValue)], lexical: Option<&str>) -> Point {
    let vectors = vectors.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
    Point { payload: fields(payload), vectors, lexical: lexical.map(str::to_owned) }
}

/// Background work happens only when a test asks for it.
fn quiet() -> EdgeConfig {
    EdgeConfig {
        optimize_tail: u64::MAX,
        checkpoint_every: u64::MAX,
        checkpoint_idle: Duration::from_secs(3600),
        indexing_kilobytes: 100,
        full_scan_kilobytes: 10,
        ..EdgeConfig::default()
    }
}

fn open(dir: &Path, feed: &Arc<Memory>) -> Arc<EdgeIndex> {
    EdgeIndex::open(dir.to_owned(), feed.clone(), quiet()).unwrap()
}

fn until(what: &str, test: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::yield_now();
    }
}

fn ids(index: &EdgeIndex, query: &Query, restriction: &Restriction, limit: usize) -> Vec<i64> {
    index.search(C, &Reader::All, query, restriction, limit, None).unwrap().iter().map(|h| h.document_seq).collect()
}

fn dense(vector: &[f32]) -> Query {
    Query::Dense { index: "d".into(), vector: vector.to_vec() }
}

fn words(text: &str) -> Query {
    Query::Lexical { text: text.into() }
}

/// Same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

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
    let tags = [json!("a"), json!("b"), json!(["a", "c"]), json!([]), json!(7), json!(null), json!("A")];
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
    // A number in text form compares as a number; the index cannot say so and stops filtering on the field.
    let seq = feed.write(C, 999, Some(point(json!({"n": "5"}), &[], None)));
    index.notify(C);
    assert!(index.wait_applied(C, seq, PATIENCE));
    assert!(!index.can_filter(C, &Reader::All, &Filter::eq("n", 1)).unwrap());
    assert!(index.can_filter(C, &Reader::All, &Filter::eq("tag", "a")).unwrap());
}

fn small(feed: &Memory) -> i64 {
    let mut random = Random(0xDA4A_6E00);
    let make = |i: i64| {
        let text = format!("word{} common", i % 7);
        point(
            json!({"tag": if i % 3 == 0 { "x" } else { "y" }, "n": i}),
            &[("d", VectorValue::Dense(random.vector(8)))],
            Some(&text),
        )
    };
    feed.fill(C, (0..400).map(make).collect::<Vec<_>>())
}

fn answers(index: &EdgeIndex) -> Vec<Vec<i64>> {
    let mut random = Random(0xA115);
    let mut all = Vec::new();
    for _ in 0..5 {
        let query = dense(&random.vector(8));
        all.push(ids(index, &query, &Restriction::None, 10));
        all.push(ids(index, &query, &Restriction::Filter(Filter::eq("tag", "x")), 10));
    }
    let mut found = ids(index, &words("word3"), &Restriction::None, 400);
    found.sort_unstable();
    all.push(found);
    all
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Which generation of the shard is served.
fn generation_of(dir: &Path) -> String {
    fs::read_to_string(dir.join(C).join("current")).unwrap_or_default()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Each file of a closed shard in turn is removed, cut or overwritten. The rebuilt shard is closed again and is the next
/// round's victim, so the files are known by their place and not by their name.
fn damage_is_seen_and_rebuilt(optimized: bool) {
    let mut plain = spec(8);
    plain.vectors.truncate(1);
    plain.payload.truncate(1);
    let (dir, feed) = (Dir::new(), Memory::new(plain));
    small(&feed);
    let config = EdgeConfig { indexing_kilobytes: 1, ..quiet() };
    let expected = std::cell::OnceCell::new();
    let round = |what: &str, rebuilt: bool, harm: &dyn Fn()| {
        harm();
        let before = fs::read_dir(dir.path()).map_or(String::new(), |_| generation_of(&dir.path()));
        let index = EdgeIndex::open(dir.path(), feed.clone(), config.clone()).unwrap();
        let found = answers(&index);
        assert_eq!(&found, expected.get_or_init(|| found.clone()), "{what}");
        assert_eq!(index.status()[0].points, 400, "{what}");
        // Damage is never served: the shard there now is another one.
        assert_eq!(generation_of(&dir.path()) != before, rebuilt, "{what}");
        if optimized {
            index.optimize(C).unwrap();
        }
    };
    round("the directory is not there", true, &|| {});
    round("nothing is wrong", false, &|| {});
    round("the directory is gone", true, &|| fs::remove_dir_all(dir.path()).unwrap());
    let shorten = |path: &Path| {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    };
    let shard = || dir.path().join(C).join(generation_of(&dir.path()));
    round("all files are cut", true, &|| files(&shard()).iter().for_each(|path| shorten(path)));
    round("a load did not end", true, &|| fs::write(shard().join("strata.state"), "loading").unwrap());
    round("`current` names nothing", true, &|| fs::write(dir.path().join(C).join("current"), "x").unwrap());
    let filled = || files(&shard()).into_iter().filter(|p| fs::metadata(p).unwrap().len() > 0).collect::<Vec<_>>();
    let count = filled().len();
    assert!(count > 20, "{count} files");
    // Every second file of an optimised shard, to save time: half of them are its plain segment's.
    let step = if optimized { 2 } else { 1 };
    for i in 0..count / step {
        let all = filled();
        let Some(path) = all.get(i * step) else { break };
        let what = format!("`{}` ({})", path.display(), ["gone", "cut", "garbage"][i % 3]);
        round(&what, true, &|| match i % 3 {
            0 => fs::remove_file(path).unwrap(),
            1 => shorten(path),
            _ => {
                let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
                let length = fs::metadata(path).unwrap().len().min(512) as usize;
                file.write_all(&vec![0xA5; length]).unwrap();
            }
        });
    }
}

#[test]
fn damage_to_plain_segments_is_seen_and_rebuilt() {
    damage_is_seen_and_rebuilt(false);
}

#[test]
fn damage_to_optimized_segments_is_seen_and_rebuilt() {
    damage_is_seen_and_rebuilt(true);
}

/// The files of a running index, copied away, are what a kill leaves.
#[test]
fn a_kill_is_replayed() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    small(&feed);
    let index = open(&dir.path(), &feed);
    ids(&index, &words("common"), &Restriction::None, 1);
    index.optimize(C).unwrap();
    let mut head = 0;
    for document in 1..=50 {
        let changed = point(
            json!({"tag": "x", "n": 0}),
            &[("d", VectorValue::Dense(vec![document as f32; 8]))],
            Some("replaced word3"),
        );
        head = feed.write(C, document, (document % 2 == 0).then_some(changed));
    }
    index.notify(C);
    assert!(index.wait_applied(C, head, PATIENCE));
    let expected = answers(&index);
    let killed = Dir::new();
    copy(&dir.path(), &killed.path());
    // More is written while the process is down.
    let reopened = open(&killed.path(), &feed);
    assert_eq!(answers(&reopened), expected);
    assert_eq!(reopened.applied(C), head);
    assert_eq!(reopened.status()[0].points, 375);
    assert_eq!(generation_of(&killed.path()), "1", "replayed, not rebuilt");
    drop(reopened);
    let later = feed.write(C, 1_000, Some(point(json!({}), &[], Some("zebra"))));
    let reopened = open(&killed.path(), &feed);
    assert_eq!(ids(&reopened, &words("zebra"), &Restriction::None, 10), [1_000]);
    assert_eq!(reopened.applied(C), later);
    assert_eq!(generation_of(&killed.path()), "1");
}

#[test]
fn a_new_spec_is_built_beside_the_old() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    small(&feed);
    let index = open(&dir.path(), &feed);
    let before = answers(&index);
    let filter = Filter::eq("extra", "yes");
    assert!(!index.can_filter(C, &Reader::All, &filter).unwrap());
    let seq =
        feed.write(C, 500, Some(point(json!({"extra": "yes"}), &[("d", VectorValue::Dense(vec![1.0; 8]))], None)));
    feed.specs
        .lock()
        .unwrap()
        .get_mut(C)
        .unwrap()
        .payload
        .push(PayloadIndex { field: "extra".into(), kind: PayloadKind::Keyword });
    index.respec(C);
    until("the field is indexed", || index.can_filter(C, &Reader::All, &filter).unwrap());
    assert_eq!(ids(&index, &dense(&[1.0; 8]), &Restriction::Filter(filter.clone()), 10), [500]);
    assert!(index.wait_applied(C, seq, PATIENCE));
    until("ready", || index.status()[0].state == ShardState::Ready);
    drop(index);
    feed.write(C, 500, None);
    let index = open(&dir.path(), &feed);
    assert!(index.can_filter(C, &Reader::All, &filter).unwrap());
    assert_eq!(answers(&index), before);
}

#[test]
fn an_index_that_knows_no_readers_answers_none_of_them_until_it_is_built_anew() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let read_by = |words: &[&str]| point(json!({ READERS: words }), &[("d", VectorValue::Dense(vec![1.0, 0.0]))], None);
    feed.fill(C, [read_by(&["*"]), read_by(&["=ann", "=bob"]), read_by(&[])]);
    let index = open(&dir.path(), &feed);
    let (ann, everything) = (Reader::Principal("ann".into()), Filter::all());
    let asked = |reader: &Reader| index.search(C, reader, &dense(&[1.0, 0.0]), &Restriction::None, 10, None);
    assert_eq!(asked(&Reader::All).unwrap().len(), 3);
    for reader in [&ann, &Reader::Anyone] {
        assert!(!index.can_filter(C, reader, &everything).unwrap());
        assert!(matches!(asked(reader), Err(Error::Unavailable(_))));
    }
    feed.specs
        .lock()
        .unwrap()
        .get_mut(C)
        .unwrap()
        .payload
        .push(PayloadIndex { field: READERS.into(), kind: PayloadKind::Keyword });
    index.respec(C);
    until("readers are known", || index.can_filter(C, &ann, &everything).unwrap());
    let found = |reader: &Reader| asked(reader).unwrap().iter().map(|hit| hit.document_seq).collect::<Vec<_>>();
    assert_eq!((found(&Reader::All), found(&ann), found(&Reader::Anyone)), (vec![1, 2, 3], vec![1, 2], vec![1]));
    let by_name = Filter::Is(Condition {
        field: READERS.into(),
        operator: Operator::Eq,
        value: "=bob".into(),
        case_sensitive: true,
    });
    assert!(!index.can_filter(C, &ann, &by_name).unwrap(), "who else reads a document is not told");
}

#[test]
fn few_shards_stay_open_and_dropped_ones_go() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(2)));
    let index = EdgeIndex::open(dir.path(), feed.clone(), EdgeConfig { max_open: 2, ..quiet() }).unwrap();
    let names: Vec<String> = (0..5).map(|i| format!("col_{i}")).collect();
    for name in &names {
        feed.specs.lock().unwrap().insert(name.clone(), ShardSpec { collection_id: name.clone(), ..spec(2) });
        feed.write(name, 1, Some(point(json!({}), &[], Some(name))));
    }
    for name in names.iter().chain(&names) {
        let hits = index.search(name, &Reader::All, &words(name), &Restriction::None, 1, None).unwrap();
        assert_eq!(hits.len(), 1);
        let open = index.status().iter().filter(|s| s.state == ShardState::Ready).count();
        assert!(open <= 2, "{:?}", index.status());
    }
    assert!(dir.path().join("col_0").exists());
    feed.specs.lock().unwrap().remove("col_0");
    index.drop_collection("col_0").unwrap();
    assert!(!dir.path().join("col_0").exists());
    assert!(matches!(
        index.search("col_0", &Reader::All, &words("x"), &Restriction::None, 1, None),
        Err(Error::Missing { .. })
    ));
    index.close();
    assert!(matches!(
        index.search("col_1", &Reader::All, &words("x"), &Restriction::None, 1, None),
        Err(Error::Unavailable(_))
    ));
}

#[test]
fn what_a_kill_left_of_a_dropped_collection_goes_at_the_next_start() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    small(&feed);
    feed.specs.lock().unwrap().insert("col_gone".into(), ShardSpec { collection_id: "col_gone".into(), ..spec(8) });
    feed.write("col_gone", 1, Some(point(json!({}), &[], Some("gone"))));
    let index = open(&dir.path(), &feed);
    let found = index.search("col_gone", &Reader::All, &words("gone"), &Restriction::None, 1, None).unwrap();
    assert_eq!(found.len(), 1);
    let expected = answers(&index);
    index.close();
    drop(index);
    // The catalog forgot it, and the process ended before its files went; of another one only the directory is left.
    feed.specs.lock().unwrap().remove("col_gone");
    fs::create_dir(dir.path().join("col_empty")).unwrap();
    // What is no collection's is nobody's business.
    fs::create_dir(dir.path().join("notes")).unwrap();
    fs::write(dir.path().join("notes/readme"), "mine").unwrap();
    let left = |name: &str| dir.path().join(name).exists();
    assert!(left("col_gone") && left(C));

    let index = open(&dir.path(), &feed);
    until("leftovers to go", || !left("col_gone") && !left("col_empty"));
    assert_eq!(answers(&index), expected);
    assert!(left("notes/readme") && left(C));
    until("their slots to go", || index.status().iter().all(|shard| shard.collection_id == C));
}

/// Writers, searches, `optimize` and checkpoints at once: nothing is lost and nothing fails.
#[test]
fn background_care_beside_writes_and_searches() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    let busy = EdgeConfig {
        optimize_tail: 300,
        checkpoint_every: 200,
        tick: Duration::from_millis(1),
        indexing_kilobytes: 1,
        ..quiet()
    };
    let index = EdgeIndex::open(dir.path(), feed.clone(), busy.clone()).unwrap();
    std::thread::scope(|scope| {
        for start in [1, 2] {
            let (index, feed) = (&index, &feed);
            scope.spawn(move || {
                let mut random = Random(0xBEEF + start as u64);
                for i in 0..600 {
                    let document = start + 2 * (i % 500);
                    let written = (i % 11 != 0).then(|| {
                        point(json!({"n": i}), &[("d", VectorValue::Dense(random.vector(8)))], Some("common"))
                    });
                    let deleted = written.is_none();
                    let seq = feed.write(C, document, written);
                    index.notify(C);
                    assert!(index.wait_applied(C, seq, PATIENCE));
                    let found = ids(index, &words("common"), &Restriction::Ids(vec![document]), 1);
                    assert_eq!(found.is_empty(), deleted, "document {document} in round {i}");
                }
            });
        }
    });
    assert_eq!(index.status()[0].last_error, None);
    let live = feed.live().len();
    assert_eq!(ids(&index, &words("common"), &Restriction::None, 2_000).len(), live);
    drop(index);
    let index = EdgeIndex::open(dir.path(), feed.clone(), busy).unwrap();
    assert_eq!(ids(&index, &words("common"), &Restriction::None, 2_000).len(), live);
}

#[test]
fn a_fault_while_running_is_healed() {
    let (dir, feed) = (Dir::new(), Memory::new(spec(8)));
    let head = small(&feed);
    let index = EdgeIndex::open(dir.path(), feed.clone(), EdgeConfig { indexing_kilobytes: 1, ..quiet() }).unwrap();
    let expected = answers(&index);
    fs::remove_dir_all(dir.path().join(C).join(generation_of(&dir.path()))).unwrap();
    assert!(matches!(index.optimize(C), Err(Error::Unavailable(_))));
    assert!(index.wait_applied(C, head, PATIENCE));
    until("ready", || index.status()[0].state == ShardState::Ready);
    assert_eq!(answers(&index), expected);
    assert!(index.status()[0].last_error.is_some());
    index.close();
    drop(index);
    assert_eq!(answers(&open(&dir.path(), &feed)), expected);
    assert_eq!(generation_of(&dir.path()), "2");
}
