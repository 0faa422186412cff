//! Who works on a repository: a sweep must not take what a backup under way has found there and names only at its end.
//!
//! A backup places a mark, then waits until there is no sweep; a sweep places one, then gives up where there is a backup.
//! Whoever looks after placing cannot miss one that was placed before. Marks are written again while their owner lives;
//! one that is older than [`STALE`] beside a fresh one belongs to a process that died or stands still, and a sweep takes
//! it away. A backup whose mark is gone at its end must not be named.

use super::repository::Repository;
use crate::seams::{self, Seams};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use std::time::{Duration, SystemTime};
use strata_model::{Error, Result};

const MARKS: &str = "marks";
const TEXT: &[u8] = b"{}\n";
/// How often a mark is written again.
const BEAT: Duration = Duration::from_secs(60);
/// Age beside a fresh mark at which one counts no more. Both ages are the store's, so clocks need not agree.
const STALE: Duration = Duration::from_secs(300);
/// The longest that a backup waits for a sweep; longer than one that died counts.
const SWEEP_WAIT: Duration = Duration::from_secs(420);
const POLL: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Backup,
    Sweep,
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Sweep => "sweep",
        }
    }
}

/// A mark that is kept fresh while this lives.
pub(super) struct Mark {
    repository: Repository,
    path: Path,
    name: String,
    beat: tokio::task::JoinHandle<()>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl Mark {
    pub(super) async fn place(repository: &Repository, work: Work, seams: &dyn Seams) -> Result<Self> {
        let name = seams::random_hex(seams, &format!("{}-", work.as_str()), 16);
        let path = Path::from_iter([MARKS, name.as_str()]);
        if !repository.create(&path, Bytes::from_static(TEXT)).await? {
            return Err(Error::Conflict(format!("the mark `{name}` is somebody else's; try again")));
        }
        let (kept, at) = (repository.clone(), path.clone());
        let beat = tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                match kept.renew(&at, Bytes::from_static(TEXT)).await {
                    Ok(true) => {}
                    // One that a sweep took away stays away: its owner must learn of it.
                    Ok(false) => return,
                    Err(error) => tracing::warn!(%error, "the mark of work on the backups could not be renewed"),
                }
            }
        });
        Ok(Self { repository: repository.clone(), path, name, beat })
    }

    /// Waits until no sweep is under way.
    pub(super) async fn wait_for_sweeps(&self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + SWEEP_WAIT;
        while !self.others(Work::Sweep).await?.0.is_empty() {
            if tokio::time::Instant::now() > deadline {
                return Err(Error::Busy { message: "backups are being thinned out".into(), retry_after_seconds: 300 });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether a backup is under way. Marks of those that stand still are taken away, and of sweeps that do.
    pub(super) async fn is_beside_a_backup(&self) -> Result<bool> {
        let (_, dead_sweeps) = self.others(Work::Sweep).await?;
        let (fresh, stale) = self.others(Work::Backup).await?;
        for name in stale.into_iter().chain(dead_sweeps) {
            self.repository.remove(&Path::from_iter([MARKS, name.as_str()])).await?;
        }
        Ok(!fresh.is_empty())
    }

    /// Whether the mark is still there.
    pub(super) async fn stands(&self) -> Result<bool> {
        self.repository.exists(&self.path).await
    }

    /// Takes the mark away. One that cannot be is stale soon.
    pub(super) async fn remove(self) {
        if let Err(error) = self.repository.remove(&self.path).await {
            tracing::warn!(%error, "the mark of work on the backups could not be removed");
        }
    }

    /// The names of other marks of this work: those that are fresh and those that are stale.
    async fn others(&self, work: Work) -> Result<(Vec<String>, Vec<String>)> {
        write(&self.repository, &self.path).await?;
        let marks: Vec<(String, u64, SystemTime)> = self.repository.list(&Path::from(MARKS)).try_collect().await?;
        let now = marks.iter().find(|(name, ..)| *name == self.name).map(|(.., at)| *at);
        let others = marks.into_iter().filter(|(name, ..)| *name != self.name && name.starts_with(work.as_str()));
        let (fresh, stale): (Vec<_>, Vec<_>) = others.partition(|(.., at)| {
            now.is_none_or(|now| now.duration_since(*at).is_ok_and(|age| age < STALE) || *at >= now)
        });
        let names = |marks: Vec<(String, u64, SystemTime)>| marks.into_iter().map(|(name, ..)| name).collect();
        Ok((names(fresh), names(stale)))
    }
}

async fn write(repository: &Repository, path: &Path) -> Result<()> {
    repository.put(path, Bytes::from_static(TEXT)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::System;

    #[tokio::test]
    async fn a_sweep_sees_a_backup_and_takes_away_the_mark_of_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_make(directory.path().to_str().unwrap()).await.unwrap();
        let seams = System::default();
        let backup = Mark::place(&repository, Work::Backup, &seams).await.unwrap();
        let sweep = Mark::place(&repository, Work::Sweep, &seams).await.unwrap();
        assert!(sweep.is_beside_a_backup().await.unwrap());
        assert!(backup.stands().await.unwrap());

        let file = directory.path().join(backup.path.as_ref());
        let long_ago = SystemTime::now() - STALE * 2;
        std::fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
        assert!(!sweep.is_beside_a_backup().await.unwrap());
        assert!(!backup.stands().await.unwrap(), "the dead backup would learn of it");

        sweep.remove().await;
        let next = Mark::place(&repository, Work::Backup, &seams).await.unwrap();
        next.wait_for_sweeps().await.unwrap();
    }
}
