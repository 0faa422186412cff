//! Making a backup, beside whatever serves the directory. See the module above for why it is consistent.

use super::{
    FAN_OUT, MAX_FILE_BYTES, WHOLE_BYTES, chunks,
    incoming::Incoming,
    manifest::{self, BlobSet, FileEntry, Manifest},
    mark::{Mark, Work},
    repository::{Repository, blob_path, manifest_path},
};
use crate::{Blobs, blobs::io_failure, catalog::copy, seams::Seams};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use strata_model::{Error, Result, id};
use tokio::io::AsyncWriteExt;

/// Folder of the data directory that holds the copy of the catalog while a backup is made.
const WORKSHOP: &str = "backup.tmp";

/// What to make a backup of.
#[derive(Debug, Clone)]
pub struct Order {
    /// Holds `catalog.db` and `blobs/`.
    pub data_dir: PathBuf,
    /// What else goes in, under its name.
    pub files: Vec<ExtraFile>,
    /// The version that the manifest names.
    pub version: String,
}

/// A small file that goes into a backup.
#[derive(Clone, PartialEq, Eq)]
pub struct ExtraFile {
    /// A name without folders; the same in the restored directory.
    pub name: String,
    pub bytes: Vec<u8>,
    /// Only its owner may read it there.
    pub private: bool,
}

impl std::fmt::Debug for ExtraFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.name, self.bytes.len())
    }
}

/// A backup that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    pub backup_id: String,
    pub created_at: String,
    /// Which server it is of; see [`Manifest::source`].
    pub source: String,
    pub catalog_bytes: u64,
    /// The contents that it names, and their bytes.
    pub blobs: u64,
    pub blob_bytes: u64,
    /// Those of them that the repository did not have.
    pub new_blobs: u64,
    /// What was written in all.
    pub written_bytes: u64,
    /// Hashes of contents that the catalog names and that could not be read as what they should be.
    pub lost: Vec<String>,
}

/// Makes a backup; it exists when this returns. [`Error::Conflict`] where the catalog is of another version,
/// [`Error::Busy`] while another backup of the directory is made.
pub async fn make(order: &Order, repository: &Repository, seams: &dyn Seams) -> Result<Made> {
    let catalog = order.data_dir.join("catalog.db");
    if !catalog.is_file() {
        return Err(Error::missing("catalog", catalog.display().to_string()));
    }
    let looked_at = catalog.clone();
    tokio::task::spawn_blocking(move || copy::check(&looked_at)).await.map_err(Error::internal)??;
    let blobs = Blobs::local(order.data_dir.join("blobs"))?;
    let mark = Mark::place(repository, Work::Backup, seams).await?;
    let made = under(&mark, order, &catalog, &blobs, repository, seams).await;
    mark.remove().await;
    made
}

async fn under(
    mark: &Mark,
    order: &Order,
    catalog: &Path,
    blobs: &Blobs,
    repository: &Repository,
    seams: &dyn Seams,
) -> Result<Made> {
    mark.wait_for_sweeps().await?;
    let kept = blobs.keep_all().await?;
    // Nobody else makes a backup of this directory now, so what is there was left by one that died.
    let workshop = Workshop::make(order.data_dir.join(WORKSHOP))?;
    let (backup_id, created_at) = manifest::new_id(seams);
    let snapshot = workshop.0.join("catalog.db");
    copy_catalog(catalog, &snapshot).await?;
    let found = snapshot.clone();
    let facts = tokio::task::spawn_blocking(move || copy::facts(&found)).await.map_err(Error::internal)??;
    let list = workshop.0.join("blobs.txt");
    let copied = copy_blobs(blobs, &snapshot, repository, &list).await?;
    drop(kept);

    let known = repository.known_chunks().await?;
    let (catalog, catalog_written) = chunks::store_file(repository, &known, &snapshot).await?;
    let (list, list_written) = chunks::store_file(repository, &known, &list).await?;
    let (files, files_written) = store_extra(repository, &known, &order.files).await?;
    let manifest = Manifest {
        format: Manifest::FORMAT,
        backup_id,
        created_at,
        strata: order.version.clone(),
        schema: facts.schema,
        source: facts.source,
        counts: facts.census,
        blobs: BlobSet { count: copied.count, size_bytes: copied.size_bytes, list },
        catalog,
        files,
        lost: copied.lost,
    };
    let (bytes, name) = manifest.write()?;
    let written_bytes = copied.new_bytes + catalog_written + list_written + files_written + bytes.len() as u64;
    if !mark.stands().await? {
        return Err(Error::Conflict(
            "the backup stood still for so long that its parts may have been swept; make it again".into(),
        ));
    }
    repository.put(&manifest_path(&name), Bytes::from(bytes)).await?;
    Ok(Made {
        backup_id: manifest.backup_id,
        created_at: manifest.created_at,
        source: manifest.source,
        catalog_bytes: manifest.catalog.size_bytes,
        blobs: manifest.blobs.count,
        blob_bytes: manifest.blobs.size_bytes,
        new_blobs: copied.new,
        written_bytes,
        lost: manifest.lost,
    })
}

/// A folder that goes when this does.
struct Workshop(PathBuf);

impl Workshop {
    fn make(folder: PathBuf) -> Result<Self> {
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_failure(&error)),
            _ => {}
        }
        std::fs::create_dir(&folder).map_err(|e| io_failure(&e))?;
        Ok(Self(folder))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Tells the thread that copies to end, when nobody waits for it any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn copy_catalog(from: &Path, to: &Path) -> Result<()> {
    let is_unwanted = Arc::new(AtomicBool::new(false));
    let _give_up = GiveUp(is_unwanted.clone());
    let (from, to) = (from.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || copy::copy(&from, &to, &is_unwanted)).await.map_err(Error::internal)?
}

#[derive(Default)]
struct Copied {
    count: u64,
    size_bytes: u64,
    new: u64,
    new_bytes: u64,
    lost: Vec<String>,
}

/// Copies what the snapshot refers to and the repository does not have, and writes down what there is then. Goes by the
/// first two digits of the hashes, so that a 256th of them is in memory.
async fn copy_blobs(blobs: &Blobs, snapshot: &Path, repository: &Repository, list: &Path) -> Result<Copied> {
    let mut copied = Copied::default();
    let mut lines = tokio::fs::File::create_new(list).await.map_err(|e| io_failure(&e))?;
    for first in 0..=u8::MAX {
        let prefix = hex::encode([first]);
        let (path, wanted) = (snapshot.to_owned(), prefix.clone());
        let reading = tokio::task::spawn_blocking(move || copy::references(&path, &wanted));
        let wanted = reading.await.map_err(Error::internal)??;
        if wanted.is_empty() {
            continue;
        }
        let there = repository.blobs(&prefix).await?;
        let one = |(hash, size_bytes): (String, Option<u64>)| {
            let stored = there.get(&hash).copied();
            async move {
                // No row tells the size of an artifact.
                let size_bytes = match (stored, size_bytes) {
                    (Some(_), None) => blobs.size(&hash).await?,
                    _ => size_bytes,
                };
                match (stored, size_bytes) {
                    // One of another size was cut off by a crash.
                    (Some(stored), Some(size_bytes)) if stored == size_bytes => Ok((hash, One::There(stored))),
                    _ => copy_blob(blobs, repository, &hash).await.map(|one| (hash, one)),
                }
            }
        };
        let mut all = futures::stream::iter(wanted).map(one).buffered(FAN_OUT);
        let mut text = String::new();
        while let Some((hash, one)) = all.try_next().await? {
            let size_bytes = match one {
                One::Lost => {
                    copied.lost.push(hash);
                    continue;
                }
                One::There(size_bytes) => size_bytes,
                One::Written(size_bytes) => {
                    copied.new += 1;
                    copied.new_bytes += size_bytes;
                    size_bytes
                }
            };
            copied.count += 1;
            copied.size_bytes += size_bytes;
            text.push_str(&chunks::to_line(&hash, size_bytes));
        }
        lines.write_all(text.as_bytes()).await.map_err(|e| io_failure(&e))?;
    }
    lines.flush().await.map_err(|e| io_failure(&e))?;
    Ok(copied)
}

/// What came of one content; sizes in bytes.
enum One {
    There(u64),
    Written(u64),
    Lost,
}

async fn copy_blob(blobs: &Blobs, repository: &Repository, hash: &str) -> Result<One> {
    match blobs.size(hash).await? {
        None => Ok(One::Lost),
        Some(size_bytes) if size_bytes > WHOLE_BYTES => copy_parts(blobs, repository, hash).await,
        Some(_) => {
            let bytes = blobs.get(hash).await?;
            let checked = bytes.clone();
            let found = tokio::task::spawn_blocking(move || id::sha256_hex(&checked)).await.map_err(Error::internal)?;
            if found != hash {
                return Ok(One::Lost);
            }
            let size_bytes = bytes.len() as u64;
            repository.put(&blob_path(hash), bytes).await?;
            Ok(One::Written(size_bytes))
        }
    }
}

async fn copy_parts(blobs: &Blobs, repository: &Repository, hash: &str) -> Result<One> {
    let path = blob_path(hash);
    let mut incoming = Incoming::begin(repository, &path).await?;
    let sent = send(blobs, hash, &mut incoming).await;
    if !matches!(&sent, Ok((found, _)) if found == hash) {
        incoming.abort().await?;
        return sent.map(|_| One::Lost);
    }
    incoming.finish(repository, &path).await?;
    sent.map(|(_, size_bytes)| One::Written(size_bytes))
}

/// Sends a content; answers the SHA-256 of what was sent, and its bytes.
async fn send(blobs: &Blobs, hash: &str, incoming: &mut Incoming) -> Result<(String, u64)> {
    let mut pieces = blobs.stream(hash, None).await?;
    let (mut hasher, mut size_bytes) = (Sha256::new(), 0);
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
        size_bytes += piece.len() as u64;
        incoming.write(piece).await?;
    }
    Ok((hex::encode(hasher.finalize()), size_bytes))
}

async fn store_extra(
    repository: &Repository,
    known: &HashSet<String>,
    files: &[ExtraFile],
) -> Result<(Vec<FileEntry>, u64)> {
    let (mut entries, mut written) = (Vec::new(), 0);
    for file in files {
        if !manifest::is_plain_name(&file.name) {
            return Err(Error::invalid("files", format!("`{}` is not a plain name", file.name)));
        }
        if file.bytes.len() > MAX_FILE_BYTES {
            return Err(Error::TooLarge(format!("`{}` has more than {MAX_FILE_BYTES} bytes", file.name)));
        }
        let (content, bytes) = chunks::store_bytes(repository, known, &file.bytes).await?;
        entries.push(FileEntry { name: file.name.clone(), private: file.private, content });
        written += bytes;
    }
    Ok((entries, written))
}
