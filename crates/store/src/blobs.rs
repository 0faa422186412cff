//! Content-addressed bytes: `ab/cd/<sha256>` in an object store. Bytes are written and synced before the catalog row
//! that names them; the same content is stored once.

use object_store::{ObjectStore, PutPayload, local::LocalFileSystem, path::Path};
use std::{path::PathBuf, sync::Arc};
use strata_model::{Error, Result, id};

/// The blob store of one server.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The local directory, where durability needs a sync that the object store does not do by itself.
    directory: Option<PathBuf>,
}

impl Blobs {
    /// A local directory, made if it is missing.
    pub fn local(directory: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&directory).map_err(|e| disk(&e))?;
        let store = LocalFileSystem::new_with_prefix(&directory).map_err(failure)?.with_automatic_cleanup(true);
        Ok(Self { store: Arc::new(store), directory: Some(directory) })
    }

    /// Stores `bytes`; answers their SHA-256 in hex. Durable when this returns.
    pub async fn put(&self, bytes: bytes::Bytes) -> Result<String> {
        let hash = id::sha256_hex(&bytes);
        let path = path_of(&hash);
        if self.store.head(&path).await.is_err() {
            self.store.put(&path, PutPayload::from_bytes(bytes)).await.map_err(failure)?;
            self.sync(&hash).await?;
        }
        Ok(hash)
    }

    /// The whole content; [`Error::Missing`] when no such blob is stored.
    pub async fn get(&self, hash: &str) -> Result<bytes::Bytes> {
        let found = self.store.get(&path_of(hash)).await.map_err(|e| missing(e, hash))?;
        found.bytes().await.map_err(|e| missing(e, hash))
    }

    /// Bytes `start..end` of the content.
    pub async fn get_range(&self, hash: &str, start: u64, end: u64) -> Result<bytes::Bytes> {
        self.store.get_range(&path_of(hash), start..end).await.map_err(|e| missing(e, hash))
    }

    /// Size in bytes, or `None` when it is not stored.
    pub async fn size(&self, hash: &str) -> Result<Option<u64>> {
        match self.store.head(&path_of(hash)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failure(e)),
        }
    }

    /// Removes the content. Removing what is not there is no error.
    pub async fn delete(&self, hash: &str) -> Result<()> {
        match self.store.delete(&path_of(hash)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failure(e)),
        }
    }

    async fn sync(&self, hash: &str) -> Result<()> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let file = directory.join(path_of(hash).as_ref());
        let synced = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&file)?.sync_all()?;
            // The new names must be durable too: the file's folder, and the two above that may be new.
            for parent in file.ancestors().skip(1).take(3) {
                std::fs::File::open(parent)?.sync_all()?;
            }
            Ok::<_, std::io::Error>(())
        });
        synced.await.map_err(Error::internal)?.map_err(|e| disk(&e))
    }
}

fn path_of(hash: &str) -> Path {
    let (a, b) = (hash.get(..2).unwrap_or("00"), hash.get(2..4).unwrap_or("00"));
    Path::from_iter([a, b, hash])
}

fn missing(error: object_store::Error, hash: &str) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::missing("blob", hash),
        other => failure(other),
    }
}

fn failure(error: object_store::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = source {
        if let Some(io) = at.downcast_ref::<std::io::Error>() {
            return disk(io);
        }
        source = at.source();
    }
    Error::internal(error)
}

fn disk(error: &std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::Full(format!("the disk is full: {error}"))
        }
        _ => Error::internal(format!("blob store: {error}")),
    }
}
