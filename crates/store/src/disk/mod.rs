//! How this project itself changes files: every writing, syncing, naming and removing of a file that matters goes through
//! these functions. Only changes are here; whoever reads, reads as always.
//!
//! The rules that they are made for, since a power cut keeps nothing but what was synced, and of the rest whatever part
//! it likes:
//!
//! - A file is synced before it gets the name by which it is found, so that no such name leads to half a file.
//! - A name is there when its directory is synced, and the directory's own name when the one above is.
//! - What a removal must not outlive is synced away first.
//!
//! In this crate's own tests a witness is told of each change, in order, and makes of them what a power cut could leave at
//! any of them (`disk/image.rs`, `disk/cuts/`). There is no trait and no second disk: the program has one, and a test
//! needs the order of what is done to it, not another.
//!
//! What does not go through here: SQLite's and the index engine's own files, which follow rules of their own; files that
//! are thrown away (the copy of a catalog while a backup is made, lock files); and installed models, whose crate knows
//! nothing of this one (`crates/infer/src/install.rs` syncs files and directory before it gives the name, and checks hashes
//! when it reads). Snapshots and exports are contents and rows, so they have nothing of their own to write.

#[cfg(test)]
mod cuts;
#[cfg(test)]
mod image;
#[cfg(test)]
pub(crate) mod witness;

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::io::AsyncWriteExt;
#[cfg(test)]
use witness::{Change, note};

/// Makes a directory, and those above it that are missing. Durable when this returns.
pub fn make_dirs(directory: &Path) -> io::Result<()> {
    make_with(directory, &DirBuilder::new())
}

/// [`make_dirs`] of directories that only their owner may enter. Those that are there stay as they are.
pub(crate) fn make_private_dirs(directory: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    make_with(directory, &builder)
}

fn make_with(directory: &Path, builder: &DirBuilder) -> io::Result<()> {
    make_missing(directory, builder)?.iter().filter_map(|made| parent_of(made)).try_for_each(sync_dir)
}

/// [`make_dirs`] for somebody who syncs the directories later, or does not mind their loss.
pub(crate) fn make_dirs_unsynced(directory: &Path) -> io::Result<()> {
    make_missing(directory, &DirBuilder::new()).map(drop)
}

/// Makes what is missing of a path; answers what it made.
fn make_missing(directory: &Path, builder: &DirBuilder) -> io::Result<Vec<PathBuf>> {
    if directory.is_dir() {
        return Ok(Vec::new());
    }
    let mut made = match parent_of(directory) {
        Some(parent) => make_missing(parent, builder)?,
        None => Vec::new(),
    };
    match make_one(directory, builder) {
        // Somebody else makes it at the same time, and its name is not durable yet.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
        other => other?,
    }
    made.push(directory.to_owned());
    Ok(made)
}

fn make_one(directory: &Path, builder: &DirBuilder) -> io::Result<()> {
    builder.create(directory)?;
    #[cfg(test)]
    note(Change::MakeDir(directory.to_owned()));
    Ok(())
}

/// Makes a directory that is not there yet, in one that is. Not durable.
pub(crate) fn make_new_dir_unsynced(directory: &Path) -> io::Result<()> {
    make_one(directory, &DirBuilder::new())
}

/// The directory that holds a path; `None` for the root.
fn parent_of(path: &Path) -> Option<&Path> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// Writes and syncs a file that is not there yet. Its name is not durable.
pub(crate) fn write_new(file: &Path, bytes: &[u8]) -> io::Result<()> {
    write_with(file, bytes, OpenOptions::new().write(true).create_new(true))
}

fn write_with(file: &Path, bytes: &[u8], options: &OpenOptions) -> io::Result<()> {
    let mut open = options.open(file)?;
    #[cfg(test)]
    note(Change::Create(file.to_owned()));
    open.write_all(bytes)?;
    #[cfg(test)]
    note(Change::Write(file.to_owned(), bytes.to_vec()));
    open.sync_all()?;
    #[cfg(test)]
    note(Change::SyncFile(file.to_owned()));
    Ok(())
}

/// [`write_new`] of a file that only its owner may read.
pub(crate) fn write_new_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    write_with(file, bytes, &options)
}

/// A file that was not there, written piece by piece.
pub(crate) struct NewFile {
    file: tokio::fs::File,
    #[cfg(test)]
    path: PathBuf,
}

impl NewFile {
    pub(crate) async fn create(path: &Path) -> io::Result<Self> {
        let file = tokio::fs::File::create_new(path).await?;
        #[cfg(test)]
        note(Change::Create(path.to_owned()));
        Ok(Self {
            file,
            #[cfg(test)]
            path: path.to_owned(),
        })
    }

    pub(crate) async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece).await?;
        #[cfg(test)]
        note(Change::Write(self.path.clone(), piece.to_vec()));
        Ok(())
    }

    /// Syncs what was written. The file's name is not durable.
    pub(crate) async fn finish(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        #[cfg(test)]
        note(Change::SyncFile(self.path.clone()));
        Ok(())
    }
}

/// Replaces a small file whole: a reader finds the old bytes or the new ones. Durable when this returns.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(file, |draft| write_new(draft, bytes))
}

/// [`replace`] of a file that only its owner may read.
pub fn replace_private(file: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with(file, |draft| write_new_private(draft, bytes))
}

fn replace_with(file: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut draft = file.file_name().map(OsString::from).unwrap_or_default();
    draft.push(".new");
    let draft = file.with_file_name(draft);
    // One that a crash left behind may be half, and have other permissions.
    remove_file(&draft)?;
    write(&draft)?;
    rename(&draft, file)?;
    parent_of(file).map_or(Ok(()), sync_dir)
}

/// Gives a file that is synced the name `to`, and makes the directories of that. Neither is durable before the directory
/// and those above that were made are synced; see [`sync_name`].
pub(crate) fn give_name(from: &Path, to: &Path) -> io::Result<()> {
    /// How often an empty directory may be tidied away while it is about to be used.
    const ATTEMPTS: u32 = 8;
    for _ in 1..ATTEMPTS {
        match make_parent(to).and_then(|()| rename(from, to)) {
            Err(error) if error.kind() == ErrorKind::NotFound && from.exists() => {}
            other => return other,
        }
    }
    make_parent(to).and_then(|()| rename(from, to))
}

fn make_parent(path: &Path) -> io::Result<()> {
    parent_of(path).map_or(Ok(()), make_dirs_unsynced)
}

/// Syncs the directory that holds `path` and those above it, `levels` in all.
pub(crate) fn sync_name(path: &Path, levels: usize) -> io::Result<()> {
    path.ancestors().skip(1).take(levels).try_for_each(sync_dir)
}

pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    #[cfg(test)]
    note(Change::Rename(from.to_owned(), to.to_owned()));
    Ok(())
}

pub(crate) fn sync_file(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    #[cfg(test)]
    note(Change::SyncFile(file.to_owned()));
    Ok(())
}

pub(crate) fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()?;
    #[cfg(test)]
    note(Change::SyncDir(directory.to_owned()));
    Ok(())
}

/// Removes a file. One that is not there is no error.
pub(crate) fn remove_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            #[cfg(test)]
            note(Change::Remove(file.to_owned()));
            Ok(())
        }
    }
}

/// Removes a directory that is empty.
pub(crate) fn remove_empty_dir(directory: &Path) -> io::Result<()> {
    fs::remove_dir(directory)?;
    #[cfg(test)]
    note(Change::Remove(directory.to_owned()));
    Ok(())
}

/// Removes a file, and the directories above it that are empty then, below `root`.
pub(crate) fn remove_and_tidy(file: &Path, root: &Path) -> io::Result<()> {
    remove_file(file)?;
    let above = file.ancestors().skip(1).take_while(|directory| *directory != root);
    for directory in above {
        // It holds something else.
        if remove_empty_dir(directory).is_err() {
            break;
        }
    }
    Ok(())
}

/// Removes a directory with all that is in it. One that is not there is no error.
pub(crate) fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            #[cfg(test)]
            note(Change::RemoveTree(directory.to_owned()));
            Ok(())
        }
    }
}

/// Removes the files of a directory that nobody has written to for `age`: drafts of processes that died.
pub(crate) fn clear_abandoned(directory: &Path, age: Duration) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let modified = entry.metadata().and_then(|facts| facts.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if modified.elapsed().is_ok_and(|found| found > age) {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}
