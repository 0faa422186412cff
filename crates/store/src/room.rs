//! Room on a disk. What maps files into memory must not run out of it: a page that the disk cannot hold ends the process.
//! So the room is looked at before, and less than a reserve counts as none.

use crate::blobs::io_failure;
use parking_lot::Mutex;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use strata_model::{Error, Result};

/// How long an answer of the system is good for. At a gigabyte a second that is less than a reserve.
const FRESH: Duration = Duration::from_millis(100);

/// The room on the disk of one directory.
#[derive(Debug)]
pub struct Room {
    directory: PathBuf,
    /// Bytes that stay free.
    reserve_bytes: u64,
    /// Bytes that were free, and when.
    seen: Mutex<Option<(Instant, u64)>>,
}

impl Room {
    /// Of the disk that holds `directory`. A reserve of 0 bytes is never missed.
    pub fn new(directory: PathBuf, reserve_bytes: u64) -> Self {
        Self { directory, reserve_bytes, seen: Mutex::new(None) }
    }

    /// [`Error::Full`] while less than the reserve is free.
    pub fn check(&self) -> Result<()> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let free = self.free_bytes()?;
        if free >= self.reserve_bytes {
            return Ok(());
        }
        let mebibytes = |bytes: u64| bytes >> 20;
        Err(Error::Full(format!(
            "the disk is full: {} MiB are free and {} MiB are kept; nothing was written, free some room and try again",
            mebibytes(free),
            mebibytes(self.reserve_bytes)
        )))
    }

    /// Bytes that are free for this process, as of a moment ago.
    pub fn free_bytes(&self) -> Result<u64> {
        let mut seen = self.seen.lock();
        if let Some((at, free)) = *seen
            && at.elapsed() < FRESH
        {
            return Ok(free);
        }
        let free = free_bytes(&self.directory).map_err(|e| io_failure(&e))?;
        *seen = Some((Instant::now(), free));
        Ok(free)
    }
}

fn free_bytes(directory: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_that_no_disk_has_is_missed_and_none_never_is() {
        let directory = tempfile::tempdir().unwrap();
        let room = |reserve| Room::new(directory.path().to_owned(), reserve);
        assert!(room(0).check().is_ok());
        assert!(matches!(room(u64::MAX).check(), Err(Error::Full(message)) if message.contains("MiB are free")));
        assert!(room(1).free_bytes().unwrap() > 0);
    }
}
