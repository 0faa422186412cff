//! The form of snapshots of a namespace: parts, and a manifest that names them.
//!
//! A part is a zlib stream of lines of JSON, of at most [`PART_BYTES`] and one line more. The first is its [`Head`]: the
//! format, the snapshot, the number of the part and the table; each further line is one row of that table, as
//! [`crate::catalog::namespace_rows`] reads it. Parts are contents of the blob store, so they are named by the SHA-256
//! of what is stored; the manifest is a JSON file that lists them in order, and a content, too. The bytes of objects and
//! artifacts are not copied: they are contents already, and the snapshot holds them.

use crate::catalog::namespace_rows::Table;
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
};
use strata_model::{Error, Fields, Result, id};

/// The form that this version writes.
pub const FORMAT: u32 = 1;
/// Rows gather in a part up to here, in bytes before they are compressed.
pub const PART_BYTES: usize = 4 << 20;
/// More than any part has: its rows, and one that is as large as rows can be.
const MAX_PART_BYTES: u64 = 1 << 30;

/// The first line of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub format: u32,
    pub snapshot_id: String,
    /// From 0.
    pub part: usize,
    pub table: Table,
}

/// A part as the manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEntry {
    pub table: Table,
    pub rows: u64,
    /// SHA-256 in hex of the part as it is stored.
    pub sha256: String,
    pub size_bytes: u64,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub snapshot_id: String,
    pub namespace_id: String,
    pub namespace_name: String,
    /// RFC 3339; a moment before the rows were read.
    pub created_at: String,
    pub include_vectors: bool,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Documents by the id of their collection.
    pub documents: BTreeMap<String, u64>,
    /// Vectors of all documents.
    pub vectors: u64,
    pub parts: Vec<PartEntry>,
}

impl Manifest {
    /// Reads a manifest as it was stored. [`Error::Conflict`] where a newer version of the program has written it.
    pub fn read(stored: &serde_json::Value, snapshot_id: &str) -> Result<Self> {
        let format = stored.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
        check_format(format, snapshot_id)?;
        Self::deserialize(stored)
            .map_err(|e| Error::Conflict(format!("the manifest of snapshot `{snapshot_id}` is damaged: {e}")))
    }

    pub fn rows_of(&self, table: Table) -> u64 {
        self.rows.get(table.name()).copied().unwrap_or(0)
    }
}

/// A part that is being filled.
pub struct PartWriter {
    head: Head,
    packed: ZlibEncoder<Vec<u8>>,
    rows: u64,
    size_bytes: usize,
}

impl PartWriter {
    pub fn new(head: Head) -> Result<Self> {
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
        let size_bytes = line(&mut packed, &head)?;
        Ok(Self { head, packed, rows: 0, size_bytes })
    }

    pub fn table(&self) -> Table {
        self.head.table
    }
    pub fn add(&mut self, row: &Fields) -> Result<()> {
        self.size_bytes += line(&mut self.packed, row)?;
        self.rows += 1;
        Ok(())
    }
    pub fn is_full(&self) -> bool {
        self.size_bytes >= PART_BYTES
    }

    /// The part's bytes and how many rows are in it.
    pub fn finish(self) -> Result<(Vec<u8>, u64)> {
        Ok((self.packed.finish().map_err(Error::internal)?, self.rows))
    }
}

/// Writes a value and the end of the line; answers their bytes.
fn line(packed: &mut ZlibEncoder<Vec<u8>>, value: &impl Serialize) -> Result<usize> {
    let mut text = serde_json::to_vec(value).map_err(Error::internal)?;
    text.push(b'\n');
    packed.write_all(&text).map_err(Error::internal)?;
    Ok(text.len())
}

fn check_format(format: u64, snapshot_id: &str) -> Result<()> {
    if format <= u64::from(FORMAT) {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "snapshot `{snapshot_id}` has format {format}; this version of strata knows 1 to {FORMAT}: use the newer one"
    )))
}

/// The rows of a part. [`Error::Conflict`] where it is damaged, or another than the one that is meant.
pub fn read_part(bytes: &[u8], snapshot_id: &str, part: usize, entry: &PartEntry) -> Result<Vec<Fields>> {
    let damaged = |why: &str| Error::Conflict(format!("part {part} of snapshot `{snapshot_id}` is damaged: {why}"));
    if id::sha256_hex(bytes) != entry.sha256 {
        return Err(damaged("its hash is another one"));
    }
    let mut text = String::new();
    let read = ZlibDecoder::new(bytes).take(MAX_PART_BYTES).read_to_string(&mut text);
    read.map_err(|e| damaged(&e.to_string()))?;
    let mut lines = text.lines();
    let head = lines.next().and_then(|first| serde_json::from_str::<Head>(first).ok());
    let head = head.ok_or_else(|| damaged("it has no head"))?;
    check_format(u64::from(head.format), snapshot_id)?;
    if head.snapshot_id != snapshot_id || head.part != part || head.table != entry.table {
        return Err(damaged("it is another one"));
    }
    let rows = lines.map(|row| serde_json::from_str(row).map_err(|e| damaged(&e.to_string())));
    let rows = rows.collect::<Result<Vec<Fields>>>()?;
    if rows.len() as u64 != entry.rows {
        return Err(damaged("it has more or fewer rows than the manifest says"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(n: u32) -> Fields {
        json!({ "bucket_id": format!("bkt_{n}"), "enabled": 1, "text": "a\nb", "score": 0.5, "none": null })
            .as_object()
            .cloned()
            .unwrap()
    }

    fn part() -> (Vec<u8>, PartEntry) {
        let head = Head { format: FORMAT, snapshot_id: "snap_1".into(), part: 2, table: Table::Buckets };
        let mut writer = PartWriter::new(head).unwrap();
        (0..3).for_each(|n| writer.add(&row(n)).unwrap());
        let (bytes, rows) = writer.finish().unwrap();
        let (sha256, size_bytes) = (id::sha256_hex(&bytes), bytes.len() as u64);
        let entry = PartEntry { table: Table::Buckets, rows, sha256, size_bytes };
        (bytes, entry)
    }

    #[test]
    fn rows_come_back_as_they_were() {
        let (bytes, entry) = part();
        assert_eq!(read_part(&bytes, "snap_1", 2, &entry).unwrap(), [row(0), row(1), row(2)]);
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let head = Head { format: FORMAT + 1, snapshot_id: "snap_1".into(), part: 2, table: Table::Buckets };
        let (bytes, rows) = PartWriter::new(head).unwrap().finish().unwrap();
        let (sha256, size_bytes) = (id::sha256_hex(&bytes), bytes.len() as u64);
        let entry = PartEntry { table: Table::Buckets, rows, sha256, size_bytes };
        let of_part = read_part(&bytes, "snap_1", 2, &entry).unwrap_err();
        let of_manifest = Manifest::read(&json!({ "format": FORMAT + 1, "other": [] }), "snap_1").unwrap_err();
        for error in [of_part, of_manifest] {
            let text = error.to_string();
            assert!(text.contains(&format!("format {}", FORMAT + 1)) && text.contains("knows 1 to"), "{text}");
        }
        let damaged = Manifest::read(&json!({ "format": FORMAT }), "snap_1").unwrap_err();
        assert!(damaged.to_string().contains("damaged"), "{damaged}");
    }

    #[test]
    fn a_part_that_was_changed_or_is_another_one_is_noticed() {
        let (bytes, entry) = part();
        assert!(read_part(&bytes[..bytes.len() - 3], "snap_1", 2, &entry).is_err());
        assert!(read_part(&bytes, "snap_2", 2, &entry).is_err());
        assert!(read_part(&bytes, "snap_1", 1, &entry).is_err());
        assert!(read_part(&bytes, "snap_1", 2, &PartEntry { rows: 4, ..entry.clone() }).is_err());
        assert!(read_part(&bytes, "snap_1", 2, &PartEntry { table: Table::Objects, ..entry }).is_err());
    }
}
