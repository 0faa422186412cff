//! One embedded shard in one directory. Every call into the engine goes through [`guarded`], because damaged files make
//! it panic. This module knows nothing of threads: its callers hold the locks that [`super::slot::Slot`] names.

mod fault;
mod layout;
mod points;
mod search;
mod vectors;

pub(super) use fault::Fault;
pub(super) use layout::same_layout;

use super::edge::EdgeConfig;
use super::manifest::{Manifest, State};
use super::{ShardSpec, filter, words};
use crate::faults::{self, reach};
use fault::guarded;
use layout::engine_config;
use parking_lot::Mutex;
use qdrant_edge as qe;
use qdrant_edge::bm25_embed::EdgeBm25;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strata_model::Error;

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
