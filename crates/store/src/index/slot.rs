//! A collection's place in the index: its serving shard, if it is open, and where that stands.
//!
//! Lock order: `maintenance`, then `writer`, then `serving`, then `progress`. An engine update holds `writer`; `optimize`
//! holds `maintenance`; a checkpoint, and everything that replaces or closes the shard, holds both. Searches hold
//! only a read of `serving`, which is written under `maintenance` and `writer` alone, so an `optimize` never blocks them.

use super::ShardState;
use super::shard::{Fault, Shard};
use crate::disk;
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

const CURRENT: &str = "current";

pub(super) struct Slot {
    pub id: String,
    /// Holds one directory per generation of the shard, and the file that names the serving one.
    root: PathBuf,
    pub maintenance: Mutex<()>,
    pub writer: Mutex<Care>,
    pub serving: RwLock<Option<Shard>>,
    pub progress: Mutex<Progress>,
    /// Signals every change of `progress`.
    pub changed: Condvar,
    /// The serving shard is there and was replayed as far as a search must see.
    pub ready: AtomicBool,
    /// The collection was dropped; whoever still holds the slot must not open it again.
    pub gone: AtomicBool,
    /// A search met a fault: the applier replaces the shard.
    pub doubted: Mutex<Option<String>>,
    pub queued: AtomicBool,
    pub rebuild_queued: AtomicBool,
    /// The rebuilder compares the shard with its present spec, or builds it.
    pub rebuilding: AtomicBool,
    /// An attempt to apply failed outside the shard; the maintainer tries again.
    pub lagging: AtomicBool,
    /// Callers who wait for changes to be applied.
    pub awaited: AtomicUsize,
    /// Since when its changes have given way to other work.
    pub giving_way: Mutex<Option<Instant>>,
    /// Tick of the last use.
    pub used: AtomicU64,
    next_generation: AtomicU64,
}

/// How carefully changes are applied after a fault.
#[derive(Default)]
pub(super) struct Care {
    /// One by one up to this change.
    pub until: i64,
    /// Documents whose change alone made the engine fail; skipped.
    pub poison: BTreeSet<i64>,
}

pub(super) struct Progress {
    pub applied: i64,
    pub state: ShardState,
    pub last_error: Option<String>,
    /// Changes applied since the last checkpoint.
    pub uncheckpointed: u64,
    /// Changes applied since the last `optimize`.
    pub unoptimized: u64,
    pub last_write: Option<Instant>,
    pub last_heal: Option<Instant>,
    pub points: usize,
}

impl Slot {
    /// Reads the slot's directory: leftovers of killed rebuilds go.
    pub(super) fn new(id: &str, root: PathBuf) -> Self {
        let slot = Self {
            id: id.to_owned(),
            root,
            maintenance: Mutex::default(),
            writer: Mutex::default(),
            serving: RwLock::default(),
            progress: Mutex::new(Progress {
                applied: 0,
                state: ShardState::Loading,
                last_error: None,
                uncheckpointed: 0,
                unoptimized: 0,
                last_write: None,
                last_heal: None,
                points: 0,
            }),
            changed: Condvar::new(),
            ready: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            doubted: Mutex::default(),
            queued: AtomicBool::new(false),
            rebuild_queued: AtomicBool::new(false),
            rebuilding: AtomicBool::new(false),
            lagging: AtomicBool::new(false),
            awaited: AtomicUsize::new(0),
            giving_way: Mutex::default(),
            used: AtomicU64::new(0),
            next_generation: AtomicU64::new(1),
        };
        let current = slot.current();
        let entries = fs::read_dir(&slot.root).map(|e| e.flatten().collect::<Vec<_>>()).unwrap_or_default();
        for entry in entries {
            let number = entry.file_name().to_str().and_then(|n| n.parse::<u64>().ok());
            if let Some(number) = number {
                slot.next_generation.fetch_max(number + 1, Ordering::Relaxed);
                if current != Some(number) {
                    let _ = fs::remove_dir_all(entry.path());
                }
            }
        }
        slot
    }

    /// Whether a directory is one that slots have, by what lies in it.
    pub(super) fn is_one(dir: &Path) -> bool {
        let is_own = |name: &str| name.parse::<u64>().is_ok() || name.starts_with(CURRENT);
        fs::read_dir(dir).is_ok_and(|mut entries| {
            entries.all(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(is_own)))
        })
    }

    fn current(&self) -> Option<u64> {
        fs::read_to_string(self.root.join(CURRENT)).ok()?.parse().ok()
    }
    /// The directory of the shard to serve, if there is one.
    pub(super) fn current_dir(&self) -> Option<PathBuf> {
        self.current().map(|n| self.root.join(n.to_string())).filter(|dir| dir.is_dir())
    }
    /// A directory that no shard has had.
    pub(super) fn new_dir(&self) -> std::io::Result<PathBuf> {
        fs::create_dir_all(&self.root)?;
        Ok(self.root.join(self.next_generation.fetch_add(1, Ordering::Relaxed).to_string()))
    }
    /// Names `shard` as the one to serve from now on, also after a restart.
    pub(super) fn make_current(&self, shard: &Shard) -> Result<(), Fault> {
        let name = shard.dir.file_name().and_then(|n| n.to_str()).ok_or("a shard's directory has no name")?;
        Ok(disk::replace(&self.root.join(CURRENT), name.as_bytes())?)
    }
    pub(super) fn remove_files(&self) -> std::io::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn applied(&self) -> i64 {
        self.progress.lock().applied
    }
    pub(super) fn set(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.progress.lock());
        self.changed.notify_all();
    }
    pub(super) fn fail(&self, error: impl std::fmt::Display) {
        let error = error.to_string();
        self.set(|p| p.last_error = Some(error));
    }
}
