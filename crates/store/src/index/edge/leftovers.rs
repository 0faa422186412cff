//! Directories of collections that are gone: a process may die while it removes one, or build a shard just then.

use super::Inner;
use super::open::is_id;
use crate::index::slot::Slot;
use std::fs;
use strata_model::Error;

impl Inner {
    /// Removes the directories of collections that the catalog does not have. Whatever else lies there stays.
    pub(super) fn remove_leftovers(&self) {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "`{}` cannot be looked through for what is left in it", self.dir.display());
                return;
            }
        };
        // All of them before the catalog is asked of one: a directory is made after its collection's row, and no id is
        // given twice, so what has no row then has lost it.
        let names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for id in names.iter().filter(|id| is_id(id) && Slot::is_one(&self.dir.join(id))) {
            if self.stopping() {
                return;
            }
            let removed = match self.feed.spec(id) {
                Ok(Some(_)) => continue,
                Ok(None) => self.slot(id).and_then(|slot| self.forget(&slot).map_err(Error::internal)),
                Err(error) => Err(error),
            };
            match removed {
                Ok(()) => tracing::info!(collection_id = id, "removed what was left of the index of `{id}`"),
                Err(error) => tracing::warn!(
                    collection_id = id,
                    "what is left of the index of `{id}` stays until the next start: {error}"
                ),
            }
        }
    }
}
