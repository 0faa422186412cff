//! One embedded shard in one directory. Every call into the engine goes through [`guarded`], because damaged files make
//! it panic. This module knows nothing of threads: its callers hold the locks that [`super::slot::Slot`] names.

use super::edge::EdgeConfig;
use super::manifest::{Manifest, State};
use super::{Change, Hit, LEXICAL, Point, Query, Restriction, ShardSpec, filter, words};
use crate::faults::{self, reach};
use parking_lot::Mutex;
use qdrant_edge as qe;
use qdrant_edge::bm25_embed::EdgeBm25;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strata_model::document::VectorValue;
use strata_model::feature::{Distance, VectorIndex, VectorKind};
use strata_model::filter::Filter;
use strata_model::{Error, Reader, Result};

/// Why a shard can no longer be trusted.
#[derive(Debug)]
pub(super) struct Fault(pub String);

impl<E: std::fmt::Display> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs an engine call; an error and a panic are both faults.
pub(super) fn guarded<T, E: std::fmt::Display>(what: &str, call: impl FnOnce() -> Result<T, E>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Fault(format!("{what}: {error}"))),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Fault(format!("{what} panicked: {}", text.unwrap_or("no message"))))
        }
    }
}

pub(super) struct Shard {
    /// `None` only while it is being dropped.
    engine: Option<qe::EdgeShard>,
    pub dir: PathBuf,
    pub spec: ShardSpec,
    /// What the manifest said when the shard was loaded.
    pub applied_at_load: i64,
    pub unoptimized_at_load: u64,
    odd: Mutex<BTreeSet<String>>,
    /// Cuts and weighs words.
    bm25: Option<Arc<EdgeBm25>>,
}

/// What of a spec decides a shard's layout.
pub(super) fn same_layout(a: &ShardSpec, b: &ShardSpec) -> bool {
    let vectors = |s: &ShardSpec| -> BTreeSet<String> {
        usable(s).map(|v| format!("{} {:?} {:?} {:?}", v.name, v.kind, v.dimensions, v.distance)).collect()
    };
    let payload = |s: &ShardSpec| -> BTreeSet<String> {
        let kept = s.payload.iter().filter(|p| filter::Stored::of(p).is_some());
        kept.map(|p| format!("{} {:?}", p.field, p.kind)).collect()
    };
    vectors(a) == vectors(b) && payload(a) == payload(b) && a.language == b.language
}

/// Vector indexes a shard can hold.
fn usable(spec: &ShardSpec) -> impl Iterator<Item = &VectorIndex> {
    spec.vectors
        .iter()
        .filter(|v| v.name != LEXICAL && (v.kind == VectorKind::Sparse || v.dimensions.is_some_and(|d| d > 0)))
}

fn engine_config(spec: &ShardSpec, config: &EdgeConfig) -> qe::EdgeConfig {
    let hnsw = qe::HnswIndexConfig {
        m: 16,
        ef_construct: 100,
        full_scan_threshold: config.full_scan_kilobytes,
        max_indexing_threads: 0,
        on_disk: None,
        payload_m: None,
        inline_storage: None,
    };
    let mut builder = qe::EdgeConfig::builder()
        .on_disk_payload(true)
        .hnsw_config(hnsw)
        .optimizers(qe::EdgeOptimizersConfig {
            default_segment_number: Some(8),
            indexing_threshold: Some(config.indexing_kilobytes),
            ..Default::default()
        })
        .wal_options(qe::WalOptions { segment_capacity: config.wal_segment_bytes, ..Default::default() })
        .sparse_vector(LEXICAL, qe::EdgeSparseVectorParams::builder().modifier(qe::Modifier::Idf).build());
    for index in usable(spec) {
        builder = match index.kind {
            VectorKind::Sparse => builder.sparse_vector(&index.name, qe::EdgeSparseVectorParams::builder().build()),
            VectorKind::Dense | VectorKind::MultiDense => {
                let distance = match index.distance {
                    Distance::Cosine => qe::Distance::Cosine,
                    Distance::Dot => qe::Distance::Dot,
                    Distance::Euclidean => qe::Distance::Euclid,
                };
                let mut params = qe::EdgeVectorParams::builder(index.dimensions.unwrap_or_default(), distance)
                    .on_disk(config.on_disk);
                if index.kind == VectorKind::MultiDense {
                    params = params
                        .multivector_config(qe::MultiVectorConfig { comparator: qe::MultiVectorComparator::MaxSim });
                }
                builder.vector(&index.name, params.build())
            }
        };
    }
    builder.build()
}

impl Shard {
    /// An empty shard with its payload indexes, in a directory that must not hold one.
    pub(super) fn create(dir: PathBuf, spec: ShardSpec, config: &EdgeConfig) -> Result<Self, Fault> {
        fs::create_dir_all(&dir)?;
        State::Open.write(&dir)?;
        let engine = guarded("create", || qe::EdgeShard::new(&dir, engine_config(&spec, config)))?;
        let shard = Self::wrap(engine, dir, spec);
        for index in &shard.spec.payload {
            let Some(stored) = filter::Stored::of(index) else { continue };
            let field_name =
                filter::key(&index.field).parse().map_err(|()| format!("`{}` is not a payload path", index.field))?;
            let create =
                qe::CreateIndex { field_name, field_schema: Some(qe::PayloadFieldSchema::FieldType(stored.schema())) };
            shard.update(qe::UpdateOperation::FieldIndexOperation(qe::FieldIndexOperations::CreateIndex(create)))?;
        }
        Ok(shard)
    }

    /// The shard in `dir`, if nothing about it is doubtful. It serves the spec it was built for.
    pub(super) fn load(dir: PathBuf, config: &EdgeConfig) -> Result<Self, Fault> {
        let (manifest, state) = Manifest::verified(&dir)?;
        State::Loading.write(&dir)?;
        clean(&dir)?;
        let engine = guarded("load", || qe::EdgeShard::load(&dir, Some(engine_config(&manifest.spec, config))))?;
        let mut shard = Self::wrap(engine, dir, manifest.spec);
        shard.applied_at_load = manifest.applied;
        shard.unoptimized_at_load = manifest.unoptimized;
        shard.odd = Mutex::new(manifest.odd);
        let points = shard.info()?.points_count;
        if state == State::Closed && points != manifest.points {
            return Err(Fault(format!("it holds {points} points and its manifest says {}", manifest.points)));
        }
        State::Open.write(&shard.dir)?;
        Ok(shard)
    }

    fn wrap(engine: qe::EdgeShard, dir: PathBuf, spec: ShardSpec) -> Self {
        let bm25 = words::model(spec.language.as_deref());
        Self {
            engine: Some(engine),
            dir,
            spec,
            applied_at_load: 0,
            unoptimized_at_load: 0,
            odd: Mutex::default(),
            bm25,
        }
    }

    fn engine(&self) -> &qe::EdgeShard {
        self.engine.as_ref().expect("the engine is taken only by drop and close")
    }

    fn update(&self, operation: qe::UpdateOperation) -> Result<(), Fault> {
        guarded("update", || self.engine().update(operation))
    }

    pub(super) fn info(&self) -> Result<qe::ShardInfo, Fault> {
        guarded("info", || Ok::<_, Error>(self.engine().info()))
    }

    /// Applies changes of different documents. The caller excludes other updates and checkpoints.
    pub(super) fn apply(&self, changes: &[&Change]) -> Result<(), Fault> {
        let mut deleted = Vec::new();
        let mut points = Vec::new();
        // An upsert that moves a point between segments keeps the vectors it does not name.
        let mut missing: BTreeMap<Vec<String>, Vec<qe::PointId>> = BTreeMap::new();
        for change in changes {
            let Ok(id) = u64::try_from(change.document_seq).map(qe::PointId::NumId) else { continue };
            let Some(point) = &change.point else {
                deleted.push(id);
                continue;
            };
            let vectors = self.vectors(change.document_seq, point);
            let names = usable(&self.spec).map(|v| v.name.as_str()).chain([LEXICAL]);
            let absent: Vec<String> = names.filter(|n| !vectors.contains_key(*n)).map(str::to_owned).collect();
            if !absent.is_empty() {
                missing.entry(absent).or_default().push(id);
            }
            let payload = filter::payload(&self.spec.payload, &point.payload, &mut self.odd.lock());
            let vectors = qe::Vectors(qe::VectorStructInternal::Named(vectors));
            points.push(qe::PointStruct::new(id, vectors, serde_json::Value::Object(payload)).0);
        }
        if !deleted.is_empty() {
            self.update(qe::UpdateOperation::PointOperation(qe::PointOperations::DeletePoints { ids: deleted }))?;
        }
        if !points.is_empty() {
            let points = qe::PointInsertOperations::PointsList(points);
            self.update(qe::UpdateOperation::PointOperation(qe::PointOperations::UpsertPoints(points)))?;
        }
        for (names, ids) in missing {
            self.update(qe::UpdateOperation::VectorOperation(qe::VectorOperations::DeleteVectors(ids.into(), names)))?;
        }
        Ok(())
    }

    /// The vectors of a document that this shard can hold; others are logged and left out, because the catalog has
    /// already accepted the document.
    fn vectors(&self, document_seq: i64, point: &Point) -> HashMap<String, qe::VectorInternal> {
        let mut kept = HashMap::new();
        for (name, value) in &point.vectors {
            let vector = match usable(&self.spec).find(|v| v.name == *name) {
                None => Err("the shard has no such vector".to_owned()),
                Some(index) => vector(index, value),
            };
            match vector {
                Ok(vector) => {
                    kept.insert(name.clone(), vector);
                }
                Err(reason) => {
                    tracing::warn!(
                        collection_id = self.spec.collection_id,
                        document_seq,
                        "vector `{name}` is not indexed: {reason}"
                    );
                }
            }
        }
        if let (Some(text), Some(bm25)) = (&point.lexical, &self.bm25) {
            let words = bm25.embed_document(text);
            if !words.indices.is_empty() {
                match sparse(&words.indices, &words.values) {
                    Ok(vector) => {
                        kept.insert(LEXICAL.to_owned(), vector);
                    }
                    Err(reason) => {
                        tracing::warn!(
                            collection_id = self.spec.collection_id,
                            document_seq,
                            "words are not indexed: {reason}"
                        );
                    }
                }
            }
        }
        kept
    }

    /// The one place where a search learns which documents its reader sees.
    fn compile(&self, reader: &Reader, filter: &Filter) -> Result<Option<qe::Filter>, filter::Unfit> {
        let readable = filter::readable(reader, &self.spec.payload)?;
        let wanted = filter::compile(filter, &self.spec.payload, &self.odd.lock())?;
        let compiled = match (readable, wanted) {
            (None, None) => return Ok(None),
            (None, Some(tree)) if tree.get("key").is_none() => tree,
            // A lone condition is a `must` of one.
            (Some(one), None) | (None, Some(one)) => serde_json::json!({ "must": [one] }),
            (Some(readable), Some(wanted)) => serde_json::json!({ "must": [readable, wanted] }),
        };
        serde_json::from_value(compiled).map(Some).map_err(|_| filter::Unfit)
    }

    pub(super) fn can_filter(&self, reader: &Reader, filter: &Filter) -> bool {
        self.compile(reader, filter).is_ok()
    }

    fn allowed(&self, reader: &Reader, filter: &Filter) -> Result<Option<qe::Filter>> {
        let unfit = |_| Error::Unavailable("the index cannot evaluate this filter now; filter by ids".into());
        self.compile(reader, filter).map_err(unfit)
    }

    /// The outer error is the caller's fault, the inner the shard's.
    pub(super) fn search(
        &self,
        reader: &Reader,
        query: &Query,
        restriction: &Restriction,
        limit: usize,
        threshold: Option<f32>,
        ef: usize,
    ) -> Result<Result<Vec<Hit>, Fault>> {
        let Some((using, vector, ascending)) = self.query(query)? else { return Ok(Ok(Vec::new())) };
        let (filter, exact) = match restriction {
            Restriction::None => (self.allowed(reader, &Filter::all())?, false),
            Restriction::Filter(filter) => (self.allowed(reader, filter)?, false),
            Restriction::Ids(ids) => {
                let ids = ids.iter().filter_map(|id| u64::try_from(*id).ok()).map(qe::PointId::NumId);
                let has_id: qe::HasIdCondition = ids.collect();
                (Some(qe::Filter::new_must(qe::Condition::HasId(has_id))), true)
            }
        };
        let request = qe::SearchRequest {
            query: qe::QueryEnum::Nearest(qe::NamedQuery::new(vector, using)),
            filter,
            params: Some(qe::SearchParams { hnsw_ef: Some(ef.max(limit)), exact, ..Default::default() }),
            limit,
            offset: 0,
            with_payload: Some(qe::WithPayloadInterface::Bool(false)),
            with_vector: Some(qe::WithVector::Bool(false)),
            score_threshold: threshold,
        };
        let found = match guarded("search", || self.engine().search(request)) {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        };
        let words = matches!(query, Query::Lexical { .. });
        let mut hits: Vec<Hit> = Vec::with_capacity(found.len());
        for point in found {
            if let qe::PointId::NumId(id) = point.id
                && let Ok(document_seq) = i64::try_from(id)
                && !(words && point.score <= 0.0)
            {
                hits.push(Hit { document_seq, score: point.score });
            }
        }
        hits.sort_by(|a, b| {
            let order = a.score.total_cmp(&b.score);
            (if ascending { order } else { order.reverse() }).then(a.document_seq.cmp(&b.document_seq))
        });
        Ok(Ok(hits))
    }

    /// The named vector to search, the query in the engine's terms, and whether lower scores are better. `None` where
    /// nothing can be found (a query of stop words).
    fn query(&self, query: &Query) -> Result<Option<(String, qe::VectorInternal, bool)>> {
        let (name, value) = match query {
            Query::Lexical { text } => {
                let Some(bm25) = &self.bm25 else { return Ok(None) };
                let words = bm25.embed_query(text);
                if words.indices.is_empty() {
                    return Ok(None);
                }
                let vector = sparse(&words.indices, &words.values).map_err(|reason| Error::invalid("query", reason))?;
                return Ok(Some((LEXICAL.to_owned(), vector, false)));
            }
            Query::Dense { index, vector } => (index, VectorValue::Dense(vector.clone())),
            Query::Multi { index, vectors } => (index, VectorValue::Multi(vectors.clone())),
            Query::Sparse { index, indices, .. } if indices.is_empty() => (index, VectorValue::Dense(Vec::new())),
            Query::Sparse { index, indices, values } => {
                (index, VectorValue::Sparse { indices: indices.clone(), values: values.clone() })
            }
        };
        let Some(index) = usable(&self.spec).find(|v| v.name == *name) else {
            return Err(Error::Unavailable(format!(
                "vector index `{name}` of collection `{}` is not built (yet)",
                self.spec.collection_id
            )));
        };
        if let (VectorKind::Sparse, Query::Sparse { indices, .. }) = (index.kind, query)
            && indices.is_empty()
        {
            return Ok(None);
        }
        let vector = vector(index, &value)
            .map_err(|reason| Error::invalid("query", format!("vector index `{name}`: {reason}")))?;
        let ascending = index.kind != VectorKind::Sparse && index.distance == Distance::Euclidean;
        Ok(Some((name.clone(), vector, ascending)))
    }

    /// Builds graphs for what is not in one and merges segments. Updates and searches may go on, checkpoints not.
    pub(super) fn optimize(&self) -> Result<bool, Fault> {
        guarded("optimize", || self.engine().optimize())
    }

    /// Makes everything applied so far durable. The caller excludes updates and `optimize`.
    pub(super) fn checkpoint(&self, applied: i64, unoptimized: u64) -> Result<(), Fault> {
        guarded("flush", || {
            self.engine().flush();
            Ok::<_, Error>(())
        })?;
        reach(faults::Point::IndexFlushed)?;
        self.manifest(applied, unoptimized)?.write_open(&self.dir)?;
        Ok(reach(faults::Point::IndexMarked)?)
    }

    fn manifest(&self, applied: i64, unoptimized: u64) -> Result<Manifest, Fault> {
        Ok(Manifest::new(self.spec.clone(), applied, self.info()?.points_count, unoptimized, self.odd.lock().clone()))
    }

    /// A last checkpoint, after which the directory is complete and hashed.
    pub(super) fn close(mut self, applied: i64, unoptimized: u64) -> Result<(), Fault> {
        self.checkpoint(applied, unoptimized)?;
        let manifest = self.manifest(applied, unoptimized)?;
        let engine = self.engine.take();
        guarded("close", || {
            drop(engine);
            Ok::<_, Error>(())
        })?;
        clean(&self.dir)?;
        manifest.write_closed(&self.dir)?;
        Ok(State::Closed.write(&self.dir)?)
    }
}

impl Drop for Shard {
    /// The engine flushes when it is dropped and panics when that fails.
    fn drop(&mut self) {
        let engine = self.engine.take();
        let _ = guarded("drop", || {
            drop(engine);
            Ok::<_, Error>(())
        });
    }
}

/// Removes what a killed process leaves: half-built segments, and closed log files but the newest (whose number must
/// survive, or later writes are ignored).
fn clean(dir: &Path) -> std::io::Result<()> {
    let temporary = dir.join("temp_segments");
    if temporary.exists() {
        fs::remove_dir_all(temporary)?;
    }
    let mut closed = Vec::new();
    for entry in fs::read_dir(dir.join("wal"))? {
        let entry = entry?;
        let number =
            entry.file_name().to_str().and_then(|n| n.strip_prefix("closed-")).and_then(|n| n.parse::<u64>().ok());
        closed.extend(number.map(|n| (n, entry.path())));
    }
    closed.sort_unstable();
    closed.pop();
    for (_, path) in closed {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// A value as the index `index` holds it, or why it cannot. Zero vectors are allowed: cosine gives them score 0.
fn vector(index: &VectorIndex, value: &VectorValue) -> Result<qe::VectorInternal, String> {
    if !value.is_finite() {
        return Err("it holds a number that is not finite".into());
    }
    let wanted = index.dimensions.unwrap_or_default();
    let length = |v: &[f32]| match v.len() == wanted {
        true => Ok(()),
        false => Err(format!("it has {} dimensions, not {wanted}", v.len())),
    };
    match (index.kind, value) {
        (VectorKind::Dense, VectorValue::Dense(numbers)) => {
            length(numbers)?;
            Ok(qe::Vector::new_dense(numbers.clone()).0)
        }
        (VectorKind::MultiDense, VectorValue::Multi(rows)) if rows.is_empty() => Err("it has no rows".into()),
        (VectorKind::MultiDense, VectorValue::Multi(rows)) => {
            rows.iter().try_for_each(|row| length(row))?;
            qe::Vector::new_multi(rows.clone()).map(|v| v.0).map_err(|e| e.to_string())
        }
        (VectorKind::MultiDense, VectorValue::Dense(row)) => {
            length(row)?;
            qe::Vector::new_multi(vec![row.clone()]).map(|v| v.0).map_err(|e| e.to_string())
        }
        (VectorKind::Sparse, VectorValue::Sparse { indices, values }) => sparse(indices, values),
        (kind, _) => Err(format!("it is not of kind {kind:?}")),
    }
}

/// A sparse vector with its indices sorted.
fn sparse(indices: &[u32], values: &[f32]) -> Result<qe::VectorInternal, String> {
    if indices.len() != values.len() {
        return Err(format!("it has {} indices and {} values", indices.len(), values.len()));
    }
    let mut pairs: Vec<(u32, f32)> = indices.iter().copied().zip(values.iter().copied()).collect();
    pairs.sort_unstable_by_key(|pair| pair.0);
    if pairs.windows(2).any(|w| w[0].0 == w[1].0) {
        return Err("an index occurs twice".into());
    }
    let (indices, values): (Vec<u32>, Vec<f32>) = pairs.into_iter().unzip();
    qe::Vector::new_sparse(indices, values).map(|v| v.0).map_err(|e| e.to_string())
}
