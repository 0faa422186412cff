//! Everything that this crate writes, with the power cut at every step: what was promised is there, what has its name is
//! whole, and the next run works and leaves nothing behind. Marks of the index are looked at beside them, in
//! `index/manifest.rs`.

mod backups;
mod contents;
mod files;
mod restores;

use super::witness::Cut;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// Everything is lost, nothing is, or some of it.
const CUTS: [Cut; 5] = [Cut::Strict, Cut::Killed, Cut::Torn(1), Cut::Torn(2), Cut::Torn(3)];
/// Fewer, for what takes long to look at.
const FEW_CUTS: [Cut; 2] = [Cut::Strict, Cut::Torn(1)];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Every file below a directory, by its path from there.
fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(inner) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&inner) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.push(path.strip_prefix(directory).unwrap().to_owned());
            }
        }
    }
    files.sort_unstable();
    files
}
