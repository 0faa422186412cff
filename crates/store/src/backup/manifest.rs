//! What one backup is: a JSON file whose name holds its own hash.

use crate::{
    catalog::copy::Census,
    seams::{self, Seams},
};
use serde::{Deserialize, Serialize};
use strata_model::{Error, Result, id};

/// The form of manifests, chunks and names that this version writes.
const FORMAT: u32 = 1;

/// A byte sequence in chunks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub size_bytes: u64,
    /// The SHA-256 of each chunk, in hex, in order.
    pub chunks: Vec<String>,
}

/// The contents of a backup, in numbers and as a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobSet {
    pub count: u64,
    pub size_bytes: u64,
    /// Lines of hash, space and size in bytes, sorted.
    pub list: Content,
}

/// A file beside the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// A name without folders.
    pub name: String,
    /// Only its owner may read it.
    pub private: bool,
    pub content: Content,
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub backup_id: String,
    /// RFC 3339; the moment before the snapshot.
    pub created_at: String,
    /// The version of strata that made it.
    pub strata: String,
    /// The number of the catalog's schema.
    pub schema: u64,
    /// The id of the first organization: which server it is of. Backups of one server are thinned out together.
    pub source: String,
    pub counts: Census,
    pub catalog: Content,
    pub blobs: BlobSet,
    pub files: Vec<FileEntry>,
    /// Hashes of contents that the catalog refers to and that were not stored, or not what their names say.
    pub lost: Vec<String>,
}

impl Manifest {
    /// The form of manifests, chunks and names that this version writes.
    pub const FORMAT: u32 = FORMAT;

    /// The file's bytes and its name.
    pub(super) fn write(&self) -> Result<(Vec<u8>, String)> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(Error::internal)?;
        bytes.push(b'\n');
        let name = format!("{}.{}.json", self.backup_id, id::sha256_hex(&bytes));
        Ok((bytes, name))
    }

    /// Reads the file of that name. [`Error::Conflict`] where it is not what its name says.
    pub(super) fn read(name: &str, bytes: &[u8]) -> Result<Self> {
        let damaged = || Error::Conflict(format!("the manifest `{name}` is damaged"));
        let (backup_id, hash) = parse_name(name).ok_or_else(damaged)?;
        if id::sha256_hex(bytes) != hash {
            return Err(damaged());
        }
        let format = serde_json::from_slice::<Format>(bytes).map_err(|_| damaged())?.format;
        if format > FORMAT {
            return Err(Error::Conflict(format!(
                "the manifest `{name}` has format {format}; this version of strata knows 1 to {FORMAT}: use the newer one"
            )));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|_| damaged())?;
        let is_plain = |file: &FileEntry| is_plain_name(&file.name);
        if manifest.backup_id != backup_id || !manifest.files.iter().all(is_plain) {
            return Err(damaged());
        }
        Ok(manifest)
    }

    /// Every chunk that the backup needs, some of them more than once.
    pub fn chunks(&self) -> impl Iterator<Item = &str> {
        let files = self.files.iter().map(|file| &file.content);
        [&self.catalog, &self.blobs.list].into_iter().chain(files).flat_map(|c| c.chunks.iter().map(String::as_str))
    }

    /// Microseconds since the Unix epoch.
    pub fn created_micros(&self) -> i64 {
        self.created_at.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_microsecond)
    }
}

/// What can be read of a manifest of any format.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// A new backup's id, which sorts by time, and its time.
pub(super) fn new_id(seams: &dyn Seams) -> (String, String) {
    let created_at = seams::rfc3339(seams.now_micros());
    let digits = created_at.replace(['-', ':', '.'], "");
    (seams::random_hex(seams, &format!("{digits}-"), 6), created_at)
}

/// Backup id and SHA-256 of a manifest's name.
pub(super) fn parse_name(name: &str) -> Option<(&str, &str)> {
    let (backup_id, hash) = name.strip_suffix(".json")?.rsplit_once('.')?;
    (!backup_id.is_empty() && hash.len() == 64).then_some((backup_id, hash))
}

/// A name that cannot lead anywhere else.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            backup_id: "20260102T030405000006Z-0a0b0c".into(),
            created_at: "2026-01-02T03:04:05.000006Z".into(),
            strata: "0.1.0".into(),
            schema: 7,
            source: "org_1".into(),
            counts: Census { documents: 3, ..Census::default() },
            catalog: Content { size_bytes: 2, chunks: vec!["c1".into(), "c2".into()] },
            blobs: BlobSet { count: 1, size_bytes: 9, list: Content { size_bytes: 67, chunks: vec!["l1".into()] } },
            files: vec![FileEntry { name: "config.toml".into(), private: true, content: Content::default() }],
            lost: Vec::new(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let (bytes, name) = manifest().write().unwrap();
        assert_eq!(Manifest::read(&name, &bytes).unwrap(), manifest());
        assert_eq!(manifest().chunks().collect::<Vec<_>>(), ["c1", "c2", "l1"]);
        assert_eq!(manifest().created_micros() % 1_000_000, 6);
    }

    #[test]
    fn a_manifest_that_was_changed_or_renamed_is_damaged() {
        let (bytes, name) = manifest().write().unwrap();
        let changed = String::from_utf8(bytes.clone()).unwrap().replace("org_1", "org_2");
        assert!(matches!(Manifest::read(&name, changed.as_bytes()), Err(Error::Conflict(_))));
        assert!(Manifest::read(&name.replacen("2026", "2027", 1), &bytes).is_err());
        assert!(Manifest::read("x.json", &bytes).is_err());
    }

    #[test]
    fn a_file_of_a_manifest_cannot_leave_its_directory() {
        for name in ["../x", "/x", "a/b", "a\\b", "", "..", ".hidden"] {
            let mut bad = manifest();
            bad.files[0].name = name.into();
            let (bytes, file) = bad.write().unwrap();
            assert!(Manifest::read(&file, &bytes).is_err(), "{name}");
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let bytes = br#"{"format":9,"something":"else"}"#;
        let name = format!("b.{}.json", id::sha256_hex(bytes));
        let error = Manifest::read(&name, bytes).unwrap_err();
        assert!(error.to_string().contains("format 9"), "{error}");
    }

    #[test]
    fn ids_sort_by_time() {
        struct At(i64);
        impl Seams for At {
            fn now_micros(&self) -> i64 {
                self.0
            }
            fn random(&self, buffer: &mut [u8]) {
                buffer.fill(0xab);
            }
        }
        let (first, created_at) = new_id(&At(1_767_323_045_000_006));
        assert_eq!(first, "20260102T030405000006Z-ababab");
        assert_eq!(created_at, "2026-01-02T03:04:05.000006Z");
        assert!(first < new_id(&At(1_767_323_045_000_007)).0);
    }
}
