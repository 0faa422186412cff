//! Writing an object of a repository. In a directory it is written and synced under another name first, so that a name
//! never leads to half of one, whatever the power does; an object store has no half objects.

use super::{
    PART_BYTES, PARTS,
    remote::failure,
    repository::{Repository, blocking},
};
use crate::{
    blobs::io_failure,
    disk::{self, NewFile},
};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart, path::Path};
use std::{path::PathBuf, time::Duration};
use strata_model::{Error, Result};

/// Folder of a local repository for what has no name yet.
pub(super) const DRAFTS: &str = "drafts";
/// Age at which a draft belongs to a process that died.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Removes the drafts that processes left behind which died.
pub(super) async fn clear_drafts(directory: &std::path::Path) -> Result<()> {
    let drafts = directory.join(DRAFTS);
    blocking(move || disk::clear_abandoned(&drafts, ABANDONED)).await
}

/// Writes an object whole. Durable when this returns.
pub(super) async fn put(repository: &Repository, path: &Path, bytes: Bytes) -> Result<()> {
    let Some(directory) = &repository.directory else {
        return repository.store.put(path, PutPayload::from_bytes(bytes)).await.map(drop).map_err(failure);
    };
    let draft = Draft::new(directory).await?;
    let file = draft.0.clone();
    blocking(move || disk::write_new(&file, &bytes)).await?;
    draft.name(directory, path).await
}

/// A file that goes when this does, unless it was renamed.
pub(super) struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        drop(disk::remove_file(&self.0));
    }
}

impl Draft {
    /// One that is not there yet.
    async fn new(directory: &std::path::Path) -> Result<Self> {
        let drafts = directory.join(DRAFTS);
        let mut name = [0u8; 16];
        getrandom::fill(&mut name).map_err(Error::internal)?;
        let draft = drafts.join(hex::encode(name));
        blocking(move || disk::make_dirs_unsynced(&drafts)).await?;
        Ok(Self(draft))
    }

    /// Gives the file, which is synced, its name; durable when this returns.
    async fn name(self, directory: &std::path::Path, path: &Path) -> Result<()> {
        let (from, to) = (self.0.clone(), directory.join(path.as_ref()));
        // Up to the repository's own folder.
        let levels = path.parts().count();
        let name = move || {
            disk::give_name(&from, &to)?;
            disk::sync_name(&to, levels)
        };
        blocking(name).await
    }
}

/// An object that is written piece by piece, and is not there before its end.
pub(super) enum Incoming {
    File { draft: Draft, file: NewFile },
    Parts(WriteMultipart),
}

impl Incoming {
    pub(super) async fn begin(repository: &Repository, path: &Path) -> Result<Self> {
        match &repository.directory {
            Some(directory) => {
                let draft = Draft::new(directory).await?;
                let file = NewFile::create(&draft.0).await.map_err(|e| io_failure(&e))?;
                Ok(Self::File { draft, file })
            }
            None => {
                let upload = repository.store.put_multipart(path).await.map_err(failure)?;
                Ok(Self::Parts(WriteMultipart::new_with_chunk_size(upload, PART_BYTES)))
            }
        }
    }

    pub(super) async fn write(&mut self, piece: Bytes) -> Result<()> {
        match self {
            Self::File { file, .. } => file.write(&piece).await.map_err(|e| io_failure(&e)),
            Self::Parts(upload) => {
                upload.wait_for_capacity(PARTS).await.map_err(failure)?;
                upload.put(piece);
                Ok(())
            }
        }
    }

    /// Gives the object its name. Durable when this returns.
    pub(super) async fn finish(self, repository: &Repository, path: &Path) -> Result<()> {
        match (self, &repository.directory) {
            (Self::File { draft, file }, Some(directory)) => {
                file.finish().await.map_err(|e| io_failure(&e))?;
                draft.name(directory, path).await
            }
            (Self::File { .. }, None) => Err(Error::internal("a repository without files")),
            (Self::Parts(upload), _) => upload.finish().await.map(drop).map_err(failure),
        }
    }

    /// Leaves nothing behind.
    pub(super) async fn abort(self) -> Result<()> {
        match self {
            Self::File { .. } => Ok(()),
            Self::Parts(upload) => upload.abort().await.map_err(failure),
        }
    }
}
