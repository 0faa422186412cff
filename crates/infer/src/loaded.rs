//! The frame of a loaded model: what it is called, what tells its outputs from those of others, and what runs it. What a
//! model does is in its own file.

use crate::entry::{ModelEntry, Runtime, Task};
use crate::registry::Registry;
use std::fmt;
use std::sync::Arc;
use strata_model::{Error, Result, id::sha256_parts};

/// A loaded model, run by `M`. Clones share it; the last one dropped ends its threads.
pub struct Loaded<M> {
    facts: Arc<Facts>,
    pub(crate) model: Arc<M>,
}

/// What a loaded model tells of itself.
pub(crate) struct Facts {
    pub id: String,
    pub fingerprint: String,
    pub dimensions: usize,
}

impl Facts {
    /// Of a model of the registry whose outputs depend on `files`, in an order that stays.
    pub fn of(entry: &ModelEntry, files: &[&[u8]]) -> Self {
        let fingerprint = hex::encode(sha256_parts(files));
        Self { id: entry.id.to_owned(), fingerprint, dimensions: entry.dimensions }
    }
}

impl<M> Loaded<M> {
    pub(crate) fn new(facts: Facts, model: M) -> Self {
        Self { facts: Arc::new(facts), model: Arc::new(model) }
    }

    /// SHA-256, hex, over all that the outputs depend on, which are the model's files, those of the models that it needs,
    /// and how it is run where that differs: vectors with different fingerprints do not compare.
    pub fn fingerprint(&self) -> &str {
        &self.facts.fingerprint
    }
    /// Length of every vector, of sparse ones that of the vocabulary; 0 where the model makes none.
    pub fn dimensions(&self) -> usize {
        self.facts.dimensions
    }
    /// The registry's id, also where it was loaded by an alias; of a model that was brought the name that it was given.
    pub fn model_id(&self) -> &str {
        &self.facts.id
    }
}

impl<M> Clone for Loaded<M> {
    fn clone(&self) -> Self {
        Self { facts: self.facts.clone(), model: self.model.clone() }
    }
}

impl<M> fmt::Debug for Loaded<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("model_id", &self.facts.id).finish_non_exhaustive()
    }
}

/// The model of this id or alias, for this task. `Missing` where there is none; `Unavailable` where this build does not
/// run it by `runtime`.
pub(crate) fn runnable(id: &str, task: Task, runtime: Runtime) -> Result<&'static ModelEntry> {
    let entry = Registry::resolve_for(id, task)?;
    if entry.runtime != runtime || !entry.loadable {
        return Err(Error::Unavailable(format!("model `{}` cannot be run by this build", entry.id)));
    }
    Ok(entry)
}

/// The files of a model are what they should be, and are not its network's.
pub(crate) fn broken(id: &str, why: impl fmt::Display) -> Error {
    Error::Internal(format!("model `{id}` cannot be loaded: {why}"))
}
