//! Where backups are kept: a directory or an object store, behind one set of functions.

use super::{
    FAN_OUT,
    incoming::{self, DRAFTS},
    manifest::{Manifest, parse_name},
    remote::{self, Access, failure},
};
use crate::{blobs::io_failure, disk};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};
use serde::Deserialize;
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};
use strata_model::{Error, Result};

/// The object that says what a repository is.
const HEAD: &str = "strata-backups.json";
const HEAD_TEXT: &str = "{\"format\":1}\n";
/// The layout of repositories that this version writes.
const FORMAT: u32 = 1;
pub(super) const MANIFESTS: &str = "manifests";
pub(super) const BLOBS: &str = "blobs";
pub(super) const CHUNKS: &str = "chunks";

/// A repository of backups; cheap to clone.
#[derive(Clone)]
pub struct Repository {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The local directory, which is written without the object store: that syncs nothing.
    pub(super) directory: Option<PathBuf>,
    name: String,
}

/// A manifest that is there, readable or not.
#[derive(Debug)]
pub struct Listed {
    pub backup_id: String,
    /// The object's name.
    pub name: String,
    pub manifest: Result<Manifest>,
}

impl Repository {
    /// A repository that is there. `place` is a directory or a URL. [`Error::Missing`] where there is none,
    /// [`Error::Conflict`] where a newer version has made it.
    pub async fn open(place: &str) -> Result<Self> {
        Self::open_with(place, &Access::default()).await
    }

    /// [`Repository::open`], with what is said of the object store besides the environment.
    pub async fn open_with(place: &str, access: &Access) -> Result<Self> {
        let repository = Self::connect(place, access, false)?;
        match repository.get(&Path::from(HEAD)).await {
            Ok(head) => check_head(place, &head).map(|()| repository),
            Err(Error::Missing { .. }) => Err(Error::missing("backup repository", place)),
            Err(error) => Err(error),
        }
    }

    /// [`Repository::open`], or a new repository where nothing is. A place that holds something else is
    /// [`Error::Conflict`].
    pub async fn open_or_make(place: &str) -> Result<Self> {
        Self::open_or_make_with(place, &Access::default()).await
    }

    /// [`Repository::open_or_make`], with what is said of the object store besides the environment.
    pub async fn open_or_make_with(place: &str, access: &Access) -> Result<Self> {
        let repository = Self::connect(place, access, true)?;
        if let Some(directory) = &repository.directory {
            incoming::clear_drafts(directory).await?;
        }
        let head = Path::from(HEAD);
        match repository.get(&head).await {
            Err(Error::Missing { .. }) => {}
            Ok(found) => return check_head(place, &found).map(|()| repository),
            Err(error) => return Err(error),
        }
        let drafts = Path::from(DRAFTS);
        let mut there = repository.store.list(None);
        while let Some(other) = there.try_next().await.map_err(failure)? {
            // A draft is of somebody who makes the repository, or died while making it.
            if !other.location.prefix_matches(&drafts) {
                return Err(Error::Conflict(format!(
                    "`{place}` holds something else than backups; name an empty place"
                )));
            }
        }
        drop(there);
        // Where another backup has made the repository meanwhile, this one joins it: both write the same.
        repository.create(&head, Bytes::from_static(HEAD_TEXT.as_bytes())).await?;
        Ok(repository)
    }

    fn connect(place: &str, access: &Access, make: bool) -> Result<Self> {
        let wrong = |why: &dyn std::fmt::Display| Error::invalid("place", format!("`{place}` cannot be used: {why}"));
        let name = place.to_owned();
        if !place.contains("://") {
            let directory = PathBuf::from(place);
            if make {
                // Backups hold everything that the catalog does, so what is made here is its owner's alone.
                disk::make_private_dirs(&directory).map_err(|e| wrong(&e))?;
            } else if !directory.is_dir() {
                return Err(Error::missing("backup repository", place));
            }
            let store = LocalFileSystem::new_with_prefix(&directory).map_err(failure)?;
            return Ok(Self { store: Arc::new(store), directory: Some(directory), name });
        }
        let url = remote::parse(place)?;
        if url.scheme() == "file" {
            let directory = url.to_file_path().map_err(|()| wrong(&"it names no directory"))?;
            return Self::connect(&directory.to_string_lossy(), access, make);
        }
        let (store, prefix) = remote::connect(&url, access)?;
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), directory: None, name })
    }

    /// The directory or URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes an object whole. Durable when this returns.
    pub(super) async fn put(&self, path: &Path, bytes: Bytes) -> Result<()> {
        incoming::put(self, path, bytes).await
    }

    /// Writes an object that is not there yet; answers whether it was so. A store that cannot tell writes it anyway, and
    /// so does a directory. Durable when this returns.
    pub(super) async fn create(&self, path: &Path, bytes: Bytes) -> Result<bool> {
        if self.directory.is_some() {
            return self.put(path, bytes).await.map(|()| true);
        }
        match self.store.put_opts(path, PutPayload::from_bytes(bytes.clone()), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) if remote::is_unknown(&error) => self.put(path, bytes).await.map(|()| true),
            Err(error) => Err(failure(error)),
        }
    }

    /// Writes an object again that is there; answers whether it was. In a store that compares before it writes, one that
    /// somebody removes meanwhile does not come back.
    pub(super) async fn renew(&self, path: &Path, bytes: Bytes) -> Result<bool> {
        let e_tag = match self.store.head(path).await {
            Ok(found) => found.e_tag,
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failure(error)),
        };
        if self.directory.is_some() || e_tag.is_none() {
            return self.put(path, bytes).await.map(|()| true);
        }
        let mode = PutMode::Update(UpdateVersion { e_tag, version: None });
        match self.store.put_opts(path, PutPayload::from_bytes(bytes.clone()), mode.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) if remote::is_unknown(&error) => self.put(path, bytes).await.map(|()| true),
            Err(error) => Err(failure(error)),
        }
    }

    /// An object's bytes; [`Error::Missing`] where it is not there.
    pub(super) async fn get(&self, path: &Path) -> Result<Bytes> {
        let found = self.store.get(path).await.map_err(|e| missing(e, path))?;
        found.bytes().await.map_err(failure)
    }

    /// An object's bytes, piece by piece, and how many there are.
    pub(super) async fn stream(&self, path: &Path) -> Result<(BoxStream<'static, Result<Bytes>>, u64)> {
        let found = self.store.get(path).await.map_err(|e| missing(e, path))?;
        let size_bytes = found.meta.size;
        Ok((found.into_stream().map_err(failure).boxed(), size_bytes))
    }

    pub(super) async fn exists(&self, path: &Path) -> Result<bool> {
        match self.store.head(path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    /// Removes an object. Removing what is not there is no error. In a directory the removal is durable after
    /// [`Repository::sync_folder`].
    pub(super) async fn remove(&self, path: &Path) -> Result<()> {
        if let Some(directory) = &self.directory {
            let file = directory.join(path.as_ref());
            return blocking(move || disk::remove_file(&file)).await;
        }
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    /// The last parts of the names below a folder, with sizes in bytes and times of writing.
    pub(super) fn list(&self, folder: &Path) -> BoxStream<'static, Result<(String, u64, SystemTime)>> {
        let entry = |meta: object_store::ObjectMeta| {
            let name = meta.location.filename().unwrap_or_default().to_owned();
            (name, meta.size, SystemTime::from(meta.last_modified))
        };
        self.store.list(Some(folder)).map_ok(entry).map_err(failure).boxed()
    }

    /// The contents that are there and whose hashes begin with these two digits, with their sizes in bytes. They are there
    /// for good when this returns: a backup that died, or one beside this one, may have written them a moment ago.
    pub(super) async fn blobs(&self, prefix: &str) -> Result<HashMap<String, u64>> {
        let folder = Path::from_iter([BLOBS, prefix]);
        let found = self.list(&folder).map_ok(|(hash, size_bytes, _)| (hash, size_bytes));
        let found: HashMap<String, u64> = found.try_collect().await?;
        if !found.is_empty() {
            self.sync_folder(&folder).await?;
        }
        Ok(found)
    }

    /// The manifests, oldest first.
    pub async fn manifests(&self) -> Result<Vec<Listed>> {
        let names: Vec<_> = self.list(&Path::from(MANIFESTS)).map_ok(|(name, ..)| name).try_collect().await?;
        let read = |name: String| async move {
            let manifest = match self.get(&manifest_path(&name)).await {
                Ok(bytes) => Manifest::read(&name, &bytes),
                Err(error) => Err(error),
            };
            let backup_id = parse_name(&name).map_or_else(|| name.clone(), |(backup_id, _)| backup_id.to_owned());
            Listed { backup_id, name, manifest }
        };
        let mut listed: Vec<Listed> = futures::stream::iter(names).map(read).buffer_unordered(FAN_OUT).collect().await;
        listed.sort_unstable_by(|a, b| a.backup_id.cmp(&b.backup_id));
        Ok(listed)
    }

    /// The manifest of a backup, or of the newest one. [`Error::Missing`] where there is none.
    pub async fn manifest(&self, backup_id: Option<&str>) -> Result<Manifest> {
        let mut listed = self.manifests().await?;
        let found = match backup_id {
            Some(wanted) => listed.into_iter().find(|listed| listed.backup_id == wanted),
            None => listed.pop(),
        };
        found.ok_or_else(|| Error::missing("backup", backup_id.unwrap_or("newest")))?.manifest
    }

    /// The chunks that need not be written again: those that are there and that a manifest names. One that is there alone
    /// may be cut off, by a crash of the machine before it was synced.
    pub(super) async fn known_chunks(&self) -> Result<HashSet<String>> {
        let manifests = self.manifests().await?;
        let named: HashSet<&str> =
            manifests.iter().filter_map(|listed| listed.manifest.as_ref().ok()).flat_map(Manifest::chunks).collect();
        let mut known = HashSet::new();
        let mut there = self.list(&Path::from(CHUNKS));
        while let Some((hash, size_bytes, _)) = there.try_next().await? {
            if size_bytes > 0 && named.contains(hash.as_str()) {
                known.insert(hash);
            }
        }
        Ok(known)
    }

    /// Makes names that were given and taken in a folder durable, and the folder's own. The folder is there.
    pub(super) async fn sync_folder(&self, folder: &Path) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let inner = directory.join(folder.as_ref());
        let levels = folder.parts().count();
        let sync = move || {
            disk::sync_dir(&inner)?;
            disk::sync_name(&inner, levels)
        };
        blocking(sync).await
    }
}

/// Runs `work` where it may block.
pub(super) async fn blocking(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?.map_err(|e| io_failure(&e))
}

/// What can be read of the head of a repository of any layout.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

fn check_head(place: &str, bytes: &[u8]) -> Result<()> {
    let head: Head = serde_json::from_slice(bytes).map_err(|_| {
        Error::Conflict(format!(
            "`{HEAD}` of the backups in `{place}` is damaged; delete it where there is no backup yet, else let it hold \
             `{}`",
            HEAD_TEXT.trim_end()
        ))
    })?;
    if head.format > FORMAT {
        return Err(Error::Conflict(format!(
            "the backups in `{place}` have format {}; this version of strata knows 1 to {FORMAT}: use the newer one",
            head.format
        )));
    }
    Ok(())
}

pub(super) fn manifest_path(name: &str) -> Path {
    Path::from_iter([MANIFESTS, name])
}

pub(super) fn blob_path(hash: &str) -> Path {
    Path::from_iter([BLOBS, hash.get(..2).unwrap_or("00"), hash])
}

pub(super) fn chunk_path(hash: &str) -> Path {
    Path::from_iter([CHUNKS, hash.get(..2).unwrap_or("00"), hash])
}

fn missing(error: object_store::Error, path: &Path) -> Error {
    match error {
        error @ object_store::Error::NotFound { .. } if !remote::lacks_bucket(&error) => {
            Error::missing("backup part", path.to_string())
        }
        other => failure(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repository_of_a_newer_layout_is_refused_with_both_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        Repository::open_or_make(place).await.unwrap();
        Repository::open(place).await.unwrap();
        std::fs::write(directory.path().join(HEAD), "{\"format\":2,\"more\":[]}").unwrap();
        for refused in [Repository::open(place).await, Repository::open_or_make(place).await] {
            let error = refused.err().unwrap().to_string();
            assert!(error.contains("format 2") && error.contains("knows 1 to 1"), "{error}");
        }
        assert_eq!(std::fs::read(directory.path().join(HEAD)).unwrap(), b"{\"format\":2,\"more\":[]}");
    }
}
