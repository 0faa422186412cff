//! What a shard's directory says about itself, so that damage is seen before it is served.
//!
//! `state` says how the shard was left: `loading` (a load began and did not end: never try again), `open` (killed, or
//! still running) or `closed`. The manifest holds the spec, the last applied change, and every file's size; a closed shard's
//! also every file's hash. A closed shard must match exactly. An open one may have grown, so only what cannot have
//! happened counts as damage there.
//!
//! Files and directories of a shard are the engine's, which syncs them by rules of its own; this module's are replaced as
//! [`crate::disk`] does it. Whatever a power cut leaves of a shard either agrees with its manifest or is built anew.

use super::ShardSpec;
use crate::disk;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Grows with every change to what shards hold: layout, payload form, tokenizer.
pub(super) const FORMAT: u32 = 2;
/// How the names of this module's own files begin; an unfinished one may lie beside them.
const OWN: &str = "strata.";
const MANIFEST: &str = "strata.manifest";
const STATE: &str = "strata.state";
/// Files are hashed whole up to this size, then sampled.
const HASH_WHOLE_BYTES: u64 = 4 << 20;
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Loading,
    Open,
    Closed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(dir.join(STATE)).ok()?;
        [Self::Loading, Self::Open, Self::Closed].into_iter().find(|s| s.as_str() == text)
    }
    pub(super) fn write(self, dir: &Path) -> io::Result<()> {
        disk::replace(&dir.join(STATE), self.as_str().as_bytes())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileMark {
    size_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub format: u32,
    pub spec: ShardSpec,
    /// Every change up to this one is in the files.
    pub applied: i64,
    pub points: usize,
    /// Changes since the last `optimize`.
    pub unoptimized: u64,
    /// Indexed fields that hold values without a stored form.
    pub odd: BTreeSet<String>,
    files: BTreeMap<String, FileMark>,
}

impl Manifest {
    pub(super) fn new(spec: ShardSpec, applied: i64, points: usize, unoptimized: u64, odd: BTreeSet<String>) -> Self {
        Self { format: FORMAT, spec, applied, points, unoptimized, odd, files: BTreeMap::new() }
    }

    /// Writes the manifest of a shard that stays open: sizes only.
    pub(super) fn write_open(mut self, dir: &Path) -> io::Result<()> {
        for path in files(dir)? {
            // Files come and go (a write-ahead segment, a temporary file) between listing and looking.
            if let Ok(meta) = fs::metadata(dir.join(&path)) {
                self.files.insert(path, FileMark { size_bytes: meta.len(), hash: None });
            }
        }
        self.write(dir)
    }

    /// Writes the manifest of a closed shard: sizes and hashes.
    pub(super) fn write_closed(mut self, dir: &Path) -> io::Result<()> {
        for path in files(dir)? {
            let full = dir.join(&path);
            let mark = FileMark { size_bytes: fs::metadata(&full)?.len(), hash: Some(hash(&full)?) };
            self.files.insert(path, mark);
        }
        self.write(dir)
    }

    fn write(&self, dir: &Path) -> io::Result<()> {
        let body = serde_json::to_vec(self).map_err(io::Error::other)?;
        let mut bytes = hex::encode(Sha256::digest(&body)).into_bytes();
        bytes.push(b'\n');
        bytes.extend(body);
        disk::replace(&dir.join(MANIFEST), &bytes)
    }

    /// The manifest of a shard whose files agree with it. `Err` says what is doubtful.
    pub(super) fn verified(dir: &Path) -> Result<(Self, State), String> {
        let state = match State::read(dir) {
            None => return Err("it has no state file".into()),
            Some(State::Loading) => return Err("an earlier load of it did not end".into()),
            Some(state) => state,
        };
        let bytes = fs::read(dir.join(MANIFEST)).map_err(|e| format!("its manifest cannot be read: {e}"))?;
        let body = bytes.get(65..).filter(|body| bytes[..64] == *hex::encode(Sha256::digest(body)).as_bytes());
        let body = body.ok_or("its manifest is damaged")?;
        let Format { format } = serde_json::from_slice(body).map_err(|e| format!("its manifest is damaged: {e}"))?;
        if format != FORMAT {
            return Err(format!("it has format {format} and this version of strata has {FORMAT}"));
        }
        let manifest: Self = serde_json::from_slice(body).map_err(|e| format!("its manifest is damaged: {e}"))?;
        match state {
            State::Closed => manifest.verify_closed(dir)?,
            State::Open | State::Loading => manifest.verify_open(dir)?,
        }
        Ok((manifest, state))
    }

    fn verify_closed(&self, dir: &Path) -> Result<(), String> {
        let present = files(dir).map_err(|e| format!("it cannot be listed: {e}"))?;
        if let Some(path) = present.iter().find(|p| !self.files.contains_key(*p)) {
            return Err(format!("`{path}` is not in its manifest"));
        }
        for (path, mark) in &self.files {
            let full = dir.join(path);
            let size = fs::metadata(&full).map_err(|e| format!("`{path}`: {e}"))?.len();
            let same = size == mark.size_bytes && Some(hash(&full).map_err(|e| format!("`{path}`: {e}"))?) == mark.hash;
            if !same {
                return Err(format!("`{path}` differs from its manifest"));
            }
        }
        Ok(())
    }

    /// Segments may have gone (optimised away) and files may have grown, but no file of a segment that is there may
    /// be missing or shorter. Small JSON files are rewritten whole and are left to the load.
    fn verify_open(&self, dir: &Path) -> Result<(), String> {
        if fs::read_dir(dir.join("wal")).map_or(0, |entries| entries.count()) == 0 {
            return Err("its write-ahead log is gone".into());
        }
        for (path, mark) in &self.files {
            let mut parts = path.split('/');
            let (Some("segments"), Some(segment)) = (parts.next(), parts.next()) else { continue };
            if path.ends_with(".json") || !dir.join("segments").join(segment).is_dir() {
                continue;
            }
            let size = fs::metadata(dir.join(path)).map_err(|e| format!("`{path}`: {e}"))?.len();
            if size < mark.size_bytes {
                return Err(format!("`{path}` is shorter than at its last checkpoint"));
            }
        }
        Ok(())
    }
}

/// What can be read of a manifest of any format.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Removes a shard that is not to be trusted, or not needed, any more. What is left of it after a crash in between is never
/// loaded: half of a shard would agree with its manifest wherever whole segments are gone.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    disk::remove_file(&dir.join(STATE))?;
    match disk::sync_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    disk::remove_tree(dir)
}

/// Relative paths of every file below `dir` but this module's own.
fn files(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        for entry in fs::read_dir(dir.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(path);
            } else if let Some(text) = path.to_str().filter(|text| !text.starts_with(OWN)) {
                found.push(text.to_owned());
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut hasher = Sha256::new();
    io::copy(&mut (&mut file).take(HASH_WHOLE_BYTES), &mut hasher)?;
    if size > HASH_WHOLE_BYTES {
        let last = size.saturating_sub(SAMPLE_BYTES);
        for i in 1..=SAMPLES {
            file.seek(SeekFrom::Start(HASH_WHOLE_BYTES + last.saturating_sub(HASH_WHOLE_BYTES) / SAMPLES * i))?;
            io::copy(&mut (&mut file).take(SAMPLE_BYTES), &mut hasher)?;
        }
        file.seek(SeekFrom::Start(last))?;
        io::copy(&mut file, &mut hasher)?;
    }
    Ok(hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::witness::{Cut, Recording};

    const CUTS: [Cut; 6] = [Cut::Strict, Cut::Killed, Cut::Torn(1), Cut::Torn(2), Cut::Torn(3), Cut::Torn(4)];

    /// A shard's directory with three segments and a log, and no manifest.
    fn shard(dir: &Path) {
        for path in ["segments/a/data.bin", "segments/b/data.bin", "segments/c/data.bin", "wal/open-1"] {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "data").unwrap();
        }
    }

    fn manifest(applied: i64) -> Manifest {
        let spec =
            ShardSpec { collection_id: "col_1".into(), vectors: Vec::new(), payload: Vec::new(), language: None };
        Manifest::new(spec, applied, 3, 0, BTreeSet::new())
    }

    fn segments(dir: &Path) -> usize {
        fs::read_dir(dir.join("segments")).map_or(0, Iterator::count)
    }

    #[test]
    fn what_a_power_cut_leaves_of_a_removed_shard_is_not_loaded_unless_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("1");
        shard(&dir);
        manifest(7).write_open(&dir).unwrap();
        State::Open.write(&dir).unwrap();
        let recording = Recording::begin(directory.path());
        remove(&dir).unwrap();
        let cuts: Vec<Cut> = (0..60).map(Cut::Torn).chain([Cut::Strict, Cut::Killed]).collect();
        recording.at_every_step(&cuts, |left, _| {
            let dir = left.join("1");
            if Manifest::verified(&dir).is_ok() {
                assert_eq!(segments(&dir), 3, "half a shard would be served");
            }
            remove(&dir).unwrap();
            assert!(!dir.exists());
        });
    }

    #[test]
    fn a_shard_that_was_closed_or_is_marked_anew_is_readable_or_built_anew() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path().join("1");
        shard(&dir);
        let recording = Recording::begin(directory.path());
        State::Open.write(&dir).unwrap();
        manifest(7).write_open(&dir).unwrap();
        recording.promise("7");
        recording.take_back("7");
        manifest(8).write_closed(&dir).unwrap();
        State::Closed.write(&dir).unwrap();
        recording.promise("8");
        // The next start.
        recording.take_back("8");
        State::Loading.write(&dir).unwrap();
        recording.at_every_step(&CUTS, |left, promised| {
            let dir = left.join("1");
            let found = Manifest::verified(&dir).map(|(manifest, _)| manifest.applied.to_string());
            if let Some(promised) = promised.first() {
                assert_eq!(found.as_ref(), Ok(promised));
            }
            // A closed shard must match exactly, so what is left of a mark under way must not count.
            if let Err(why) = &found {
                assert!(!why.contains("is not in its manifest"), "{why}");
            }
            // The next run marks it again, and leaves no draft behind.
            manifest(9).write_closed(&dir).unwrap();
            State::Closed.write(&dir).unwrap();
            assert_eq!(Manifest::verified(&dir).unwrap().0.applied, 9);
            assert!(fs::read_dir(&dir).unwrap().all(|entry| entry.unwrap().path().extension() != Some("new".as_ref())));
        });
    }

    #[test]
    fn a_shard_of_another_format_is_built_anew_and_both_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let dir = directory.path();
        shard(dir);
        State::Open.write(dir).unwrap();
        for format in [FORMAT + 1, FORMAT - 1] {
            // What else is in it may be unreadable.
            let body = format!("{{\"format\":{format},\"spec\":7}}");
            let text = format!("{}\n{body}", hex::encode(Sha256::digest(body.as_bytes())));
            fs::write(dir.join(MANIFEST), text).unwrap();
            let why = Manifest::verified(dir).err().unwrap();
            assert!(why.contains(&format!("format {format} and")) && why.contains(&FORMAT.to_string()), "{why}");
        }
    }
}
