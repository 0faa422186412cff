//! Reading backups whole: is every part there, and what its name says? Changes nothing.

use super::{
    FAN_OUT, MAX_NAMED,
    chunks::{self, Lines},
    manifest::{Content, Manifest},
    repository::{Repository, blob_path},
};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use strata_model::{Error, Result};

/// What was found of one backup.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    pub backup_id: String,
    pub ok: bool,
    /// What is wrong, and where; the first twenty.
    pub faults: Vec<String>,
    /// How many there are in all.
    pub fault_count: u64,
}

impl Verified {
    fn note(&mut self, fault: String) {
        self.ok = false;
        self.fault_count += 1;
        if self.faults.len() < MAX_NAMED {
            self.faults.push(fault);
        }
    }
}

/// What came of objects that were read before, by their hash: several backups share them. `None` is good.
type Seen = HashMap<String, Option<String>>;

/// Reads one backup, or all. [`Error::Missing`] where the one is not there.
pub async fn verify(repository: &Repository, backup_id: Option<&str>) -> Result<Vec<Verified>> {
    let mut listed = repository.manifests().await?;
    if let Some(wanted) = backup_id {
        listed.retain(|listed| listed.backup_id == wanted);
        if listed.is_empty() {
            return Err(Error::missing("backup", wanted));
        }
    }
    let (mut chunks, mut blobs) = (Seen::new(), Seen::new());
    let mut all = Vec::new();
    for one in listed {
        let mut verified = Verified { backup_id: one.backup_id, ok: true, faults: Vec::new(), fault_count: 0 };
        match one.manifest {
            Ok(manifest) => whole(repository, &manifest, &mut verified, &mut chunks, &mut blobs).await?,
            Err(fault @ Error::Conflict(_)) => verified.note(fault.to_string()),
            Err(error) => return Err(error),
        }
        all.push(verified);
    }
    Ok(all)
}

async fn whole(
    repository: &Repository,
    manifest: &Manifest,
    verified: &mut Verified,
    chunks: &mut Seen,
    blobs: &mut Seen,
) -> Result<()> {
    for hash in &manifest.lost {
        verified.note(format!("the content `{hash}` was lost before the backup was made"));
    }
    for hash in manifest.chunks() {
        if !chunks.contains_key(hash) {
            let fault = fault_of(chunks::piece(repository, hash).await.map(|_| ()))?;
            chunks.insert(hash.to_owned(), fault);
        }
        if let Some(Some(fault)) = chunks.get(hash) {
            verified.note(fault.clone());
        }
    }
    match listed_blobs(repository, &manifest.blobs.list, verified, blobs).await {
        Err(fault @ Error::Conflict(_)) => verified.note(fault.to_string()),
        other => other?,
    }
    Ok(())
}

async fn listed_blobs(
    repository: &Repository,
    list: &Content,
    verified: &mut Verified,
    blobs: &mut Seen,
) -> Result<()> {
    let mut pieces = chunks::pieces(repository, list);
    let mut lines = Lines::new();
    while let Some(piece) = pieces.try_next().await? {
        let entries = lines.take(&piece)?;
        let unseen: Vec<(String, u64)> =
            entries.iter().filter(|(hash, _)| !blobs.contains_key(hash)).cloned().collect();
        let read = |(hash, size_bytes): (String, u64)| async move {
            let fault = fault_of(check_blob(repository, &hash, size_bytes).await)?;
            Ok::<_, Error>((hash, fault))
        };
        let mut results = futures::stream::iter(unseen).map(read).buffer_unordered(FAN_OUT);
        while let Some((hash, fault)) = results.try_next().await? {
            blobs.insert(hash, fault);
        }
        for (hash, _) in entries {
            if let Some(Some(fault)) = blobs.get(&hash) {
                verified.note(fault.clone());
            }
        }
    }
    lines.end()
}

/// Damage as a sentence; anything else that went wrong ends the reading.
fn fault_of(read: Result<()>) -> Result<Option<String>> {
    match read {
        Ok(()) => Ok(None),
        Err(fault @ Error::Conflict(_)) => Ok(Some(fault.to_string())),
        Err(error) => Err(error),
    }
}

async fn check_blob(repository: &Repository, hash: &str, size_bytes: u64) -> Result<()> {
    let path = blob_path(hash);
    let (mut pieces, found_bytes) = match repository.stream(&path).await {
        Err(Error::Missing { .. }) => return Err(Error::Conflict(format!("`{path}` is missing"))),
        other => other?,
    };
    if found_bytes != size_bytes {
        return Err(Error::Conflict(format!("`{path}` has {found_bytes} bytes instead of {size_bytes}")));
    }
    let mut hasher = Sha256::new();
    while let Some(piece) = pieces.try_next().await? {
        hasher.update(&piece);
    }
    if hex::encode(hasher.finalize()) != hash {
        return Err(Error::Conflict(format!("`{path}` is damaged; without it the next backup writes it anew")));
    }
    Ok(())
}
