//! Making a data directory of a backup. Every byte is compared with the hash that names it, and the directory appears
//! whole or not at all.

use super::{
    FAN_OUT,
    chunks::{self, Lines},
    manifest::{Content, FileEntry, Manifest},
    repository::{Repository, blob_path},
};
use crate::{Blobs, blobs::io_failure, catalog::copy, disk};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use std::{
    fs::File,
    path::{Path, PathBuf},
};
use strata_model::{Error, Result};

/// What to restore, and where.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The newest one if `None`.
    pub backup_id: Option<String>,
    /// A directory that is empty or does not exist.
    pub data_dir: PathBuf,
    /// Leave out contents that are missing or damaged in the repository, instead of refusing to restore.
    pub skip_damaged: bool,
}

/// What was restored.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    pub backup_id: String,
    pub created_at: String,
    pub catalog_bytes: u64,
    pub blobs: u64,
    pub blob_bytes: u64,
    /// Names of the files beside the catalog.
    pub files: Vec<String>,
    /// Hashes of contents that the catalog names and that are not there.
    pub lost: Vec<String>,
}

/// Restores a backup. [`Error::Conflict`] where the directory is not empty, or says what of the backup is damaged;
/// [`Error::Missing`] where there is no such backup. On an error nothing is left.
pub async fn restore(repository: &Repository, wanted: &Wanted) -> Result<Restored> {
    let target = std::path::absolute(&wanted.data_dir).map_err(|e| io_failure(&e))?;
    check_empty(&target)?;
    let manifest = repository.manifest(wanted.backup_id.as_deref()).await?;
    copy::check_known(manifest.schema)?;
    let draft = Draft::make(&target, &manifest.backup_id)?;
    let catalog = draft.folder.join("catalog.db");
    chunks::restore_file(repository, &manifest.catalog, &catalog).await.map_err(|e| of("the catalog", e))?;
    let examined = tokio::task::spawn_blocking(move || copy::examine(&catalog));
    examined.await.map_err(Error::internal)??;
    let mut restored = Restored {
        backup_id: manifest.backup_id.clone(),
        created_at: manifest.created_at.clone(),
        catalog_bytes: manifest.catalog.size_bytes,
        blobs: 0,
        blob_bytes: 0,
        files: Vec::new(),
        lost: manifest.lost.clone(),
    };
    let blobs = Blobs::local(draft.folder.join("blobs"))?;
    restore_blobs(repository, &manifest.blobs.list, &blobs, wanted.skip_damaged, &mut restored).await?;
    check_count(&manifest, &restored)?;
    for file in &manifest.files {
        restore_extra(repository, file, &draft.folder).await?;
        restored.files.push(file.name.clone());
    }
    tokio::task::spawn_blocking(move || draft.publish(&target)).await.map_err(Error::internal)??;
    Ok(restored)
}

fn check_empty(target: &Path) -> Result<()> {
    match std::fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::Conflict(format!(
                "`{}` is not empty; restore into a new directory, and move it when it is good",
                target.display()
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_failure(&error)),
    }
}

/// The directory while it is made, beside the one that it becomes. It goes when this does, unless it was published.
struct Draft {
    folder: PathBuf,
    /// Goes with the process, so that the next one knows what was left behind.
    _lock: Option<File>,
}

impl Draft {
    /// Drafts that restores into the same place left behind go.
    fn make(target: &Path, backup_id: &str) -> Result<Self> {
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(Error::invalid("data", format!("`{}` cannot be a data directory", target.display())));
        };
        let prefix = format!(".{}.restore-", name.to_string_lossy());
        let make = || {
            disk::make_dirs(parent)?;
            remove_dead(parent, &prefix)?;
            let folder = parent.join(format!("{prefix}{backup_id}-{}", std::process::id()));
            disk::make_new_dir_unsynced(&folder)?;
            let lock = lock(&folder);
            Ok::<_, std::io::Error>(Self { folder, _lock: lock })
        };
        make().map_err(|e| io_failure(&e))
    }

    /// Gives the directory its name. Durable when this returns.
    fn publish(self, target: &Path) -> Result<()> {
        let publish = || {
            disk::sync_dir(&self.folder)?;
            match disk::remove_empty_dir(target) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            disk::rename(&self.folder, target)?;
            target.parent().map_or(Ok(()), disk::sync_dir)
        };
        publish().map_err(|e| io_failure(&e))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        drop(disk::remove_tree(&self.folder));
    }
}

/// The lock of a directory for this process; `None` where directories cannot be locked, or another process has it.
fn lock(directory: &Path) -> Option<File> {
    let open = File::open(directory).ok()?;
    open.try_lock().ok().map(|()| open)
}

/// Removes drafts that no process holds.
fn remove_dead(parent: &Path, prefix: &str) -> std::io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let is_draft = entry.file_name().to_string_lossy().starts_with(prefix);
        if is_draft && let Some(_lock) = lock(&entry.path()) {
            disk::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Says of which part a fault is.
fn of(part: &str, error: Error) -> Error {
    match error {
        Error::Conflict(fault) => Error::Conflict(format!("{part} cannot be restored: {fault}")),
        other => other,
    }
}

async fn restore_blobs(
    repository: &Repository,
    list: &Content,
    blobs: &Blobs,
    skip_damaged: bool,
    restored: &mut Restored,
) -> Result<()> {
    let mut pieces = chunks::pieces(repository, list);
    let mut lines = Lines::new();
    while let Some(piece) = pieces.try_next().await.map_err(|e| of("the list of contents", e))? {
        let one = |(hash, size_bytes): (String, u64)| async move {
            match restore_blob(repository, blobs, &hash, size_bytes).await {
                Ok(()) => Ok((hash, Some(size_bytes))),
                Err(Error::Conflict(_)) if skip_damaged => Ok((hash, None)),
                Err(error) => Err(of("a content", error)),
            }
        };
        let mut all = futures::stream::iter(lines.take(&piece)?).map(one).buffer_unordered(FAN_OUT);
        while let Some((hash, size_bytes)) = all.try_next().await? {
            match size_bytes {
                None => restored.lost.push(hash),
                Some(size_bytes) => {
                    restored.blobs += 1;
                    restored.blob_bytes += size_bytes;
                }
            }
        }
    }
    lines.end()
}

async fn restore_blob(repository: &Repository, blobs: &Blobs, hash: &str, size_bytes: u64) -> Result<()> {
    let path = blob_path(hash);
    let damaged = |found: &str| Error::Conflict(format!("`{path}` {found}"));
    let pieces = match repository.stream(&path).await {
        Ok((pieces, _)) => pieces,
        Err(Error::Missing { .. }) => return Err(damaged("is missing")),
        Err(error) => return Err(error),
    };
    match blobs.put_stream(pieces, size_bytes).await {
        Ok(held) if held.hash() == hash && held.size_bytes() == size_bytes => Ok(()),
        // What it really is may be another content of the list, so it stays; the server sweeps it if no row names it.
        Ok(_) => Err(damaged("is damaged")),
        Err(Error::TooLarge(_)) => Err(damaged("is longer than it was")),
        Err(error) => Err(error),
    }
}

/// A list that lost lines names fewer contents than the manifest counted.
fn check_count(manifest: &Manifest, restored: &Restored) -> Result<()> {
    let left_out = (restored.lost.len() - manifest.lost.len()) as u64;
    if restored.blobs + left_out == manifest.blobs.count {
        return Ok(());
    }
    let (found, expected) = (restored.blobs + left_out, manifest.blobs.count);
    Err(Error::Conflict(format!("the list of contents names {found} instead of {expected}")))
}

async fn restore_extra(repository: &Repository, file: &FileEntry, directory: &Path) -> Result<()> {
    let path = directory.join(&file.name);
    let is_private = file.private;
    let mut bytes = Vec::new();
    let mut pieces = chunks::pieces(repository, &file.content);
    while let Some(piece) = pieces.try_next().await.map_err(|e| of(&file.name, e))? {
        bytes.extend_from_slice(&piece);
    }
    let write = move || match is_private {
        true => disk::write_new_private(&path, &bytes),
        false => disk::write_new(&path, &bytes),
    };
    tokio::task::spawn_blocking(write).await.map_err(Error::internal)?.map_err(|e| io_failure(&e))
}
