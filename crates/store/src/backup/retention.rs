//! Which backups stay, and removing what no other needs.

use super::{
    FAN_OUT,
    chunks::{self, Lines},
    manifest::Manifest,
    mark::{Mark, Work},
    repository::{BLOBS, CHUNKS, Listed, MANIFESTS, Repository, manifest_path},
};
use crate::seams::Seams;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use serde::Serialize;
use std::{collections::HashSet, time::SystemTime};
use strata_model::{Error, Result};

/// What a thinning removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    pub backups: Vec<String>,
    /// Contents and chunks that no backup names any more.
    pub objects: u64,
    pub size_bytes: u64,
    /// Another backup is under way, so objects wait for the next time.
    pub put_off: bool,
}

/// Removes all but the newest `keep` backups of the server `source`, then what no backup of any server names.
pub async fn prune(repository: &Repository, source: &str, keep: usize, seams: &dyn Seams) -> Result<Pruned> {
    let listed = repository.manifests().await?;
    let old: Vec<&Listed> = beyond(&listed, source, keep);
    let mut pruned = Pruned::default();
    for listed in &old {
        repository.remove(&manifest_path(&listed.name)).await?;
        pruned.backups.push(listed.backup_id.clone());
    }
    if old.is_empty() {
        return Ok(pruned);
    }
    // Else a power cut might bring back a backup whose contents are gone.
    repository.sync_folder(&Path::from(MANIFESTS)).await?;
    let mark = Mark::place(repository, Work::Sweep, seams).await?;
    let swept = sweep(repository, &mark, &mut pruned).await;
    mark.remove().await;
    swept.map(|()| pruned)
}

/// The backups of `source` that are not among its newest `keep`. Those that cannot be read are nobody's and stay.
fn beyond<'l>(listed: &'l [Listed], source: &str, keep: usize) -> Vec<&'l Listed> {
    let is_of_source = |listed: &&Listed| listed.manifest.as_ref().is_ok_and(|manifest| manifest.source == source);
    let mut own: Vec<&Listed> = listed.iter().filter(is_of_source).collect();
    own.sort_unstable_by(|a, b| b.backup_id.cmp(&a.backup_id));
    own.split_off(keep.max(1).min(own.len()))
}

/// Removes what no manifest names.
async fn sweep(repository: &Repository, mark: &Mark, pruned: &mut Pruned) -> Result<()> {
    if mark.is_beside_a_backup().await? {
        pruned.put_off = true;
        return Ok(());
    }
    let mut live = HashSet::new();
    for listed in repository.manifests().await? {
        // What an unreadable manifest names is unknown, so nothing can be removed beside it.
        name(repository, &listed.manifest?, &mut live).await?;
    }
    for folder in [BLOBS, CHUNKS] {
        let found: Vec<(String, u64, SystemTime)> = repository.list(&Path::from(folder)).try_collect().await?;
        let dead = found.into_iter().filter(|(hash, ..)| binary(hash).is_some_and(|binary| !live.contains(&binary)));
        let remove = |(hash, size_bytes, _): (String, u64, SystemTime)| async move {
            let parts = [folder, hash.get(..2).unwrap_or("00"), hash.as_str()];
            repository.remove(&Path::from_iter(parts)).await.map(|()| size_bytes)
        };
        let mut removed = futures::stream::iter(dead).map(remove).buffer_unordered(FAN_OUT);
        while let Some(size_bytes) = removed.try_next().await? {
            pruned.objects += 1;
            pruned.size_bytes += size_bytes;
        }
    }
    Ok(())
}

/// Notes the contents and chunks of a backup. A list that cannot be read is an error: what it names is unknown.
async fn name(repository: &Repository, manifest: &Manifest, live: &mut HashSet<[u8; 32]>) -> Result<()> {
    live.extend(manifest.chunks().filter_map(binary));
    let mut pieces = chunks::pieces(repository, &manifest.blobs.list);
    let mut lines = Lines::new();
    while let Some(piece) = pieces.try_next().await? {
        live.extend(lines.take(&piece)?.iter().filter_map(|(hash, _)| binary(hash)));
    }
    lines.end().map_err(|error| Error::Conflict(format!("`{}`: {error}", manifest.backup_id)))
}

/// A hash in a third of the room.
fn binary(hash: &str) -> Option<[u8; 32]> {
    hex::decode(hash).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backup::{
            manifest::{BlobSet, Content},
            repository::{blob_path, chunk_path},
        },
        catalog::copy::Census,
        seams::System,
    };
    use bytes::Bytes;
    use strata_model::id;

    fn manifest(backup_id: &str, source: &str) -> Manifest {
        Manifest {
            format: Manifest::FORMAT,
            backup_id: backup_id.into(),
            created_at: "2026-01-02T03:04:05.000006Z".into(),
            strata: "0.1.0".into(),
            schema: 1,
            source: source.into(),
            counts: Census::default(),
            catalog: Content::default(),
            blobs: BlobSet::default(),
            files: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn listed(backup_id: &str, source: &str) -> Listed {
        Listed { backup_id: backup_id.into(), name: String::new(), manifest: Ok(manifest(backup_id, source)) }
    }

    #[test]
    fn the_newest_of_one_server_stay() {
        let mut all = vec![listed("3", "a"), listed("1", "a"), listed("2", "b"), listed("4", "a")];
        let unreadable = Err(Error::Conflict("damaged".into()));
        all.push(Listed { backup_id: "0".into(), name: String::new(), manifest: unreadable });
        let old = |keep| beyond(&all, "a", keep).iter().map(|l| l.backup_id.as_str()).collect::<Vec<_>>();
        assert_eq!(old(2), ["1"]);
        assert_eq!(old(1), ["3", "1"]);
        assert_eq!(old(9), [""; 0]);
        assert_eq!(old(0), ["3", "1"], "the newest one always stays");
    }

    /// A backup with one content of its own and one that is in every backup.
    async fn store(repository: &Repository, backup_id: &str, own: &'static str) {
        let mut text = String::new();
        for bytes in ["shared", own] {
            let hash = id::sha256_hex(bytes.as_bytes());
            repository.put(&blob_path(&hash), Bytes::from_static(bytes.as_bytes())).await.unwrap();
            text.push_str(&chunks::to_line(&hash, bytes.len() as u64));
        }
        let (list, _) = chunks::store_bytes(repository, &HashSet::new(), text.as_bytes()).await.unwrap();
        let blobs = BlobSet { count: 2, size_bytes: 0, list };
        let (bytes, name) = Manifest { blobs, ..manifest(backup_id, "a") }.write().unwrap();
        repository.put(&manifest_path(&name), Bytes::from(bytes)).await.unwrap();
    }

    #[tokio::test]
    async fn what_only_an_old_backup_names_goes_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_make(directory.path().to_str().unwrap()).await.unwrap();
        store(&repository, "1", "first").await;
        store(&repository, "2", "second").await;
        let seams = System::default();

        let under_way = Mark::place(&repository, Work::Backup, &seams).await.unwrap();
        store(&repository, "0", "oldest").await;
        let pruned = prune(&repository, "a", 2, &seams).await.unwrap();
        assert_eq!((pruned.backups, pruned.put_off), (vec!["0".to_owned()], true));
        assert!(repository.exists(&blob_path(&id::sha256_hex(b"oldest"))).await.unwrap());
        under_way.remove().await;

        let pruned = prune(&repository, "a", 1, &seams).await.unwrap();
        assert_eq!((pruned.backups, pruned.objects), (vec!["1".to_owned()], 4), "two contents and two lists");
        for (bytes, stays) in [("shared", true), ("second", true), ("first", false), ("oldest", false)] {
            let path = blob_path(&id::sha256_hex(bytes.as_bytes()));
            assert_eq!(repository.exists(&path).await.unwrap(), stays, "{bytes}");
        }
        let kept = repository.manifest(None).await.unwrap();
        assert!(repository.exists(&chunk_path(&kept.blobs.list.chunks[0])).await.unwrap());
    }
}
