//! A catalog in memory, an index over it, and what tests ask of them.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use strata_model::document::VectorValue;
use strata_model::feature::{Distance, VectorIndex, VectorKind};
use strata_model::filter::Filter;
use strata_model::{Fields, Reader, Result};
use strata_store::index::{
    Change, EdgeConfig, EdgeIndex, Feed, Index, PayloadIndex, PayloadKind, Point, Query, Restriction, ShardSpec,
};

pub const C: &str = "col_test";
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that goes with the test.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = std::env::temp_dir().join(format!(
            "strata-index-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Default)]
pub struct Memory {
    pub specs: Mutex<BTreeMap<String, ShardSpec>>,
    /// Newest change by document, per collection.
    documents: Mutex<BTreeMap<String, BTreeMap<i64, Change>>>,
}

impl Memory {
    pub fn new(spec: ShardSpec) -> Arc<Self> {
        let memory = Self::default();
        memory.specs.lock().unwrap().insert(spec.collection_id.clone(), spec);
        Arc::new(memory)
    }
    pub fn write(&self, collection: &str, document_seq: i64, point: Option<Point>) -> i64 {
        let mut documents = self.documents.lock().unwrap();
        let seq = documents.values().flat_map(|d| d.values()).map(|c| c.seq).max().unwrap_or(0) + 1;
        documents.entry(collection.into()).or_default().insert(document_seq, Change { seq, document_seq, point });
        seq
    }
    pub fn fill(&self, collection: &str, points: impl IntoIterator<Item = Point>) -> i64 {
        let mut documents = self.documents.lock().unwrap();
        let all = documents.entry(collection.into()).or_default();
        for (i, point) in points.into_iter().enumerate() {
            let seq = i as i64 + 1;
            all.insert(seq, Change { seq, document_seq: seq, point: Some(point) });
        }
        all.len() as i64
    }
    pub fn live(&self) -> Vec<(i64, Point)> {
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

pub fn spec(dimensions: usize) -> ShardSpec {
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

pub fn point(payload: Value, vectors: &[(&str, VectorValue)], lexical: Option<&str>) -> Point {
    let vectors = vectors.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
    Point { payload: fields(payload), vectors, lexical: lexical.map(str::to_owned) }
}

/// Background work happens only when a test asks for it.
pub fn quiet() -> EdgeConfig {
    EdgeConfig {
        optimize_tail: u64::MAX,
        checkpoint_every: u64::MAX,
        checkpoint_idle: Duration::from_secs(3600),
        indexing_kilobytes: 100,
        full_scan_kilobytes: 10,
        ..EdgeConfig::default()
    }
}

pub fn open(dir: &Path, feed: &Arc<Memory>) -> Arc<EdgeIndex> {
    EdgeIndex::open(dir.to_owned(), feed.clone(), quiet()).unwrap()
}

pub fn until(what: &str, test: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "timed out: {what}");
        std::thread::yield_now();
    }
}

pub fn ids(index: &EdgeIndex, query: &Query, restriction: &Restriction, limit: usize) -> Vec<i64> {
    index.search(C, &Reader::All, query, restriction, limit, None).unwrap().iter().map(|h| h.document_seq).collect()
}

pub fn dense(vector: &[f32]) -> Query {
    Query::Dense { index: "d".into(), vector: vector.to_vec() }
}

pub fn words(text: &str) -> Query {
    Query::Lexical { text: text.into() }
}

/// Same numbers on every run.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
    pub fn vector(&mut self, dimensions: usize) -> Vec<f32> {
        (0..dimensions).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }
}

pub fn small(feed: &Memory) -> i64 {
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

pub fn answers(index: &EdgeIndex) -> Vec<Vec<i64>> {
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

/// Which generation of the shard is served.
pub fn generation_of(dir: &Path) -> String {
    fs::read_to_string(dir.join(C).join("current")).unwrap_or_default()
}
