//! Taking the files of a model out of an archive that nobody vouches for. Nothing is written to disk; names are compared
//! with those that are known, and everything has a bound.

use crate::limits::{
    FREE_BROUGHT_BYTES, MAX_BROUGHT_BYTES, MAX_BROUGHT_ENTRIES, MAX_BROUGHT_FILE_BYTES, MAX_BROUGHT_GROWTH,
    MAX_BROUGHT_MODEL_BYTES,
};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;
use strata_model::{Error, Result};

/// Longest name of an entry, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The files that were asked for, as far as they are there.
pub(super) struct Files {
    found: BTreeMap<&'static str, Vec<u8>>,
    /// Folders beside them.
    folders: BTreeSet<String>,
    container: &'static str,
}

impl Files {
    pub fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.found.remove(name)
    }
    pub fn has_folder(&self, name: &str) -> bool {
        self.folders.contains(name)
    }
    /// `tar.gz` or `zip`.
    pub fn container(&self) -> &'static str {
        self.container
    }
}

/// Takes the files of these names from the root of an archive, or from the one folder that is there.
pub(super) fn read(path: &Path, names: &'static [&'static str]) -> Result<Files> {
    let mut file = File::open(path).map_err(Error::internal)?;
    let size_bytes = file.metadata().map_err(Error::internal)?.len();
    let mut head = [0; 2];
    let is_short = file.read_exact(&mut head).is_err();
    file.rewind().map_err(Error::internal)?;
    let room = size_bytes.saturating_mul(MAX_BROUGHT_GROWTH).saturating_add(FREE_BROUGHT_BYTES).min(MAX_BROUGHT_BYTES);
    let mut reading = Reading { names, left: Cell::new(room), seen: BTreeSet::new(), found: BTreeMap::new() };
    let container = match head {
        _ if is_short => return Err(no_archive()),
        [0x1f, 0x8b] => {
            untar(file, &mut reading)?;
            "tar.gz"
        }
        [b'P', b'K'] => {
            unzip(file, &mut reading)?;
            "zip"
        }
        _ => return Err(no_archive()),
    };
    reading.settled(container)
}

/// Whether a folder is that of a part of a model, such as `2_Dense`, and not of a whole one.
fn is_module(folder: &str) -> bool {
    folder.split_once('_').is_some_and(|(place, _)| !place.is_empty() && place.bytes().all(|b| b.is_ascii_digit()))
}

fn no_archive() -> Error {
    Error::invalid("archive", "is neither a gzipped tar archive nor a zip archive")
}

/// What is known while the entries go by.
struct Reading {
    names: &'static [&'static str],
    /// Bytes that may still come out.
    left: Cell<u64>,
    /// Every name so far.
    seen: BTreeSet<String>,
    /// By the folder they lie in, which is empty at the root, and their name in it.
    found: BTreeMap<(String, &'static str), Vec<u8>>,
}

impl Reading {
    /// Notes an entry's name. Answers where its content goes, if it is wanted.
    fn note(&mut self, name: &[u8], is_folder: bool) -> Result<Option<(String, &'static str)>> {
        let Some(name) = checked(name)? else { return Ok(None) };
        if self.seen.len() >= MAX_BROUGHT_ENTRIES {
            return Err(Error::invalid("archive", format!("has more than {MAX_BROUGHT_ENTRIES} entries")));
        }
        if !self.seen.insert(name.clone()) && !is_folder {
            return Err(Error::invalid(name, "is there twice"));
        }
        if is_folder {
            return Ok(None);
        }
        let known = |name: &str| self.names.iter().find(|known| **known == name).copied();
        Ok(match (known(&name), name.split_once('/')) {
            (Some(known), _) => Some((String::new(), known)),
            (None, Some((folder, below))) if !is_module(folder) => known(below).map(|known| (folder.to_owned(), known)),
            (None, _) => None,
        })
    }

    /// Keeps a file's content.
    fn keep(&mut self, place: (String, &'static str), content: impl Read) -> Result<()> {
        let name = place.1;
        let is_model = name.ends_with(".onnx") || name.ends_with(".safetensors");
        let most = if is_model { MAX_BROUGHT_MODEL_BYTES } else { MAX_BROUGHT_FILE_BYTES };
        let mut bytes = Vec::new();
        let bounded = Bounded { inner: content, left: &self.left };
        bounded.take(most + 1).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() as u64 > most {
            return Err(Error::invalid(name, format!("has more than {most} bytes")));
        }
        self.found.insert(place, bytes);
        Ok(())
    }

    /// The files of the one folder that has any.
    fn settled(self, container: &'static str) -> Result<Files> {
        let roots: BTreeSet<&String> = self.found.keys().map(|(root, _)| root).collect();
        if roots.len() > 1 {
            let message = "has files of a model in several folders; put them at its root, or into one folder";
            return Err(Error::invalid("archive", message));
        }
        let root = roots.first().map(|root| (*root).clone()).unwrap_or_default();
        let prefix = if root.is_empty() { String::new() } else { format!("{root}/") };
        let below = self.seen.iter().filter_map(|name| name.strip_prefix(&prefix));
        let folders = below.filter_map(|name| name.split('/').next()).map(str::to_owned).collect();
        let found = self.found.into_iter().map(|((_, name), bytes)| (name, bytes)).collect();
        Ok(Files { found, folders, container })
    }
}

/// A name as it is compared; `None` for the root itself.
fn checked(name: &[u8]) -> Result<Option<String>> {
    let shown = || String::from_utf8_lossy(&name[..name.len().min(MAX_NAME_BYTES)]).into_owned();
    let text = std::str::from_utf8(name).map_err(|_| Error::invalid(shown(), "is no name in UTF-8"))?;
    if text.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(shown(), format!("is a name of more than {MAX_NAME_BYTES} bytes")));
    }
    let plain = text.strip_prefix("./").unwrap_or(text);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    if plain.is_empty() || plain == "." {
        return Ok(None);
    }
    let leads_out = plain.contains(['\\', '\0']) || plain.split('/').any(|part| matches!(part, "" | "." | ".."));
    match leads_out {
        true => Err(Error::invalid(shown(), "is a name that leads out of the archive")),
        false => Ok(Some(plain.to_owned())),
    }
}

fn untar(file: File, reading: &mut Reading) -> Result<()> {
    // The gzip stream counts as a whole, so that what is passed over counts, too.
    let left = Cell::new(reading.left.get());
    let bounded = Bounded { inner: flate2::read::GzDecoder::new(BufReader::new(file)), left: &left };
    let mut tar = tar::Archive::new(bounded);
    // Raw: no longer names and other extensions, which would be held in memory.
    for member in tar.entries().map_err(damaged)?.raw(true) {
        let member = member.map_err(damaged)?;
        let kind = member.header().entry_type();
        let is_extension = kind.is_pax_global_extensions()
            || kind.is_pax_local_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        let name = member.path_bytes().into_owned();
        if is_extension {
            continue;
        }
        if !kind.is_file() && !kind.is_dir() {
            let shown = String::from_utf8_lossy(&name).into_owned();
            return Err(Error::invalid(shown, "is a link or another thing that is no file"));
        }
        if let Some(place) = reading.note(&name, kind.is_dir())? {
            reading.keep(place, member)?;
        }
    }
    Ok(())
}

fn unzip(file: File, reading: &mut Reading) -> Result<()> {
    let wrong = |e: zip::result::ZipError| match e {
        zip::result::ZipError::Io(error) => damaged(error),
        other => Error::invalid("archive", format!("is damaged: {other}")),
    };
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(wrong)?;
    if zip.len() > MAX_BROUGHT_ENTRIES {
        return Err(Error::invalid("archive", format!("has more than {MAX_BROUGHT_ENTRIES} entries")));
    }
    for place in 0..zip.len() {
        let member = zip.by_index(place).map_err(wrong)?;
        if member.is_symlink() {
            return Err(Error::invalid(member.name(), "is a link or another thing that is no file"));
        }
        let name = member.name().as_bytes().to_vec();
        if let Some(place) = reading.note(&name, member.is_dir())? {
            reading.keep(place, member)?;
        }
    }
    Ok(())
}

/// Marks the error of [`Bounded`], which goes through readers of others.
const TOO_MUCH: &str = "far more comes out of it than weights of its size can hold";

fn damaged(error: io::Error) -> Error {
    let message = error.to_string();
    match message.contains(TOO_MUCH) {
        true => Error::invalid("archive", TOO_MUCH),
        false => Error::invalid("archive", format!("is damaged: {message}")),
    }
}

/// A reader that fails once more than `left` bytes came out of it and others together.
struct Bounded<'l, R> {
    inner: R,
    left: &'l Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        let left = self.left.get().checked_sub(count as u64).ok_or_else(|| io::Error::other(TOO_MUCH))?;
        self.left.set(left);
        Ok(count)
    }
}
