//! What `ingest` finds in files and folders: a record for every line of a JSONL file, row of a CSV file and element of
//! a JSON array, and one for every other file. Reads; sends nothing.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use strata_media::{Family, limits::HEAD_BYTES};

/// Largest text file that is taken.
pub const MAX_TEXT_BYTES: u64 = 32 << 20;

/// How a file is read. What it holds decides; the end of its name only tells texts from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Json,
    JsonLines,
    Csv,
    /// Kept as it is: the bucket field it goes into, which is also its schema type, and its media type.
    Media {
        field: &'static str,
        media_type: &'static str,
    },
}

impl Kind {
    /// `None` for a file of which nothing is known, and for an empty one.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let size_bytes = file.metadata()?.len();
        let mut head = Vec::with_capacity(HEAD_BYTES);
        file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
        let kind = strata_media::detect(&head, size_bytes);
        let media = |field| Some(Self::Media { field, media_type: kind.media_type() });
        Ok(match (kind.family(), extension.as_str()) {
            _ if head.is_empty() => None,
            (Family::Image, _) => media("image"),
            (Family::Audio, _) => media("audio"),
            (Family::Video, _) => media("video"),
            (Family::Pdf, _) => media("pdf"),
            (Family::Text, "json") => Some(Self::Json),
            (Family::Text, "jsonl" | "ndjson") => Some(Self::JsonLines),
            (Family::Text, "csv") => Some(Self::Csv),
            (Family::Text, _) => Some(Self::Text),
            (Family::Archive, "xlsx") => Some(Self::Media {
                field: "excel",
                media_type: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            }),
            (Family::Unknown, "xls") => Some(Self::Media { field: "excel", media_type: "application/vnd.ms-excel" }),
            (Family::Archive | Family::Unknown, _) => None,
        })
    }
}

/// The files under `paths`, in a fixed order, and how many were passed over because nothing is known about their kind.
/// Hidden files, and links inside folders, are left alone.
pub fn files(paths: &[PathBuf]) -> Result<(Vec<(PathBuf, Kind)>, usize)> {
    let mut found = Vec::new();
    let mut unknown = 0;
    let mut waiting: Vec<PathBuf> = paths.iter().rev().cloned().collect();
    while let Some(path) = waiting.pop() {
        let facts = std::fs::metadata(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        if !facts.is_dir() {
            match Kind::of(&path)? {
                Some(kind) => found.push((path, kind)),
                None => unknown += 1,
            }
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(&path).with_context(|| format!("cannot list `{}`", path.display()))? {
            let entry = entry?;
            let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
            if !is_hidden && !entry.file_type()?.is_symlink() {
                inside.push(entry.path());
            }
        }
        inside.sort();
        waiting.extend(inside.into_iter().rev());
    }
    Ok((found, unknown))
}

/// One thing to ingest.
pub struct Record {
    /// Where it stands: the path, and the line, row or element if there are several.
    pub origin: String,
    pub content: Content,
}

pub enum Content {
    Fields(Map<String, Value>),
    Media { field: &'static str, media_type: &'static str, path: PathBuf },
}

/// How many records `each_record` will give for this file.
pub fn count(path: &Path, kind: Kind) -> Result<u64> {
    let mut count = 0;
    each_record(path, kind, |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// Reads one file and hands over its records. A record that cannot be read comes as an error and the next one follows;
/// only a file that cannot be read at all ends the walk through it.
pub fn each_record(path: &Path, kind: Kind, mut each: impl FnMut(&str, Result<Content>) -> Result<()>) -> Result<()> {
    let name = path.display().to_string();
    match kind {
        Kind::Media { field, media_type } => {
            each(&name, Ok(Content::Media { field, media_type, path: path.to_owned() }))
        }
        Kind::Text => each(&name, whole_text(path)),
        Kind::Json => match serde_json::from_slice::<Value>(&std::fs::read(path)?) {
            Ok(Value::Array(elements)) => {
                for (index, element) in elements.into_iter().enumerate() {
                    each(&format!("{name}[{index}]"), fields_of(element))?;
                }
                Ok(())
            }
            Ok(other) => each(&name, fields_of(other)),
            Err(error) => each(&name, Err(error.into())),
        },
        Kind::JsonLines => {
            for (index, line) in BufReader::new(File::open(path)?).split(b'\n').enumerate() {
                let line = line?;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let content = serde_json::from_slice(&line).map_err(anyhow::Error::from).and_then(fields_of);
                each(&format!("{name}:{}", index + 1), content)?;
            }
            Ok(())
        }
        Kind::Csv => {
            let text = String::from_utf8(std::fs::read(path)?).context("is not UTF-8")?;
            let mut rows = csv_rows(text.trim_start_matches('\u{feff}')).into_iter();
            let Some(header) = rows.next() else { return Ok(()) };
            for (index, row) in rows.enumerate() {
                let content = if row.len() == header.len() {
                    let cells = header.iter().cloned().zip(row.into_iter().map(Value::String));
                    Ok(Content::Fields(cells.collect()))
                } else {
                    Err(anyhow::anyhow!("has {} cells where the header has {}", row.len(), header.len()))
                };
                each(&format!("{name} row {}", index + 2), content)?;
            }
            Ok(())
        }
    }
}

fn whole_text(path: &Path) -> Result<Content> {
    let size_bytes = std::fs::metadata(path)?.len();
    if size_bytes > MAX_TEXT_BYTES {
        bail!("has {size_bytes} bytes; at most {MAX_TEXT_BYTES} are ingested from one text file");
    }
    let text = String::from_utf8(std::fs::read(path)?).context("is not UTF-8")?;
    let mut fields = Map::new();
    fields.insert("text".to_owned(), Value::String(text));
    if let Some(name) = path.file_name() {
        fields.insert("file_name".to_owned(), Value::String(name.to_string_lossy().into_owned()));
    }
    Ok(Content::Fields(fields))
}

fn fields_of(value: Value) -> Result<Content> {
    match value {
        Value::Object(fields) => Ok(Content::Fields(fields)),
        Value::String(text) => Ok(Content::Fields(Map::from_iter([("text".to_owned(), Value::String(text))]))),
        _ => bail!("is neither an object nor a text"),
    }
}

/// Rows of comma-separated values: quotes, doubled quotes and line ends inside quotes as in RFC 4180.
fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut row = Vec::new();
    let mut cell = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                cell.push('"');
            }
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted && characters.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                push_row(&mut rows, std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    row.push(cell);
    push_row(&mut rows, row);
    rows
}

/// A line without anything on it is no row.
fn push_row(rows: &mut Vec<Vec<String>>, row: Vec<String>) {
    if row.len() > 1 || row.iter().any(|cell| !cell.is_empty()) {
        rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_keeps_commas_quotes_and_line_ends_inside_quotes() {
        let rows = csv_rows("text,n\r\n\"a, \"\"b\"\"\nc\",1\n\nlast,2");
        assert_eq!(rows, [vec!["text", "n"], vec!["a, \"b\"\nc", "1"], vec!["last", "2"]]);
    }

    #[test]
    fn a_line_that_is_not_json_does_not_end_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("x.jsonl");
        std::fs::write(&path, "{\"text\":\"one\"}\n{oops\n\n\"two\"\n").expect("written");
        let mut seen = Vec::new();
        each_record(&path, Kind::JsonLines, |origin, content| {
            seen.push((origin.rsplit(':').next().map(str::to_owned), content.is_ok()));
            Ok(())
        })
        .expect("walked");
        let expected = [("1", true), ("2", false), ("4", true)];
        assert_eq!(seen, expected.map(|(line, ok)| (Some(line.to_owned()), ok)));
    }

    #[test]
    fn a_file_is_what_it_holds() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let kind = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).expect("written");
            Kind::of(&path).expect("read")
        };
        let png = Some(Kind::Media { field: "image", media_type: "image/png" });
        assert_eq!(kind("photo.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), png);
        let pictures: [(&[u8], &'static str); 4] = [
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "image/heif"),
            (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "image/avif"),
            (b"\xff\x0a\xfa\x1f", "image/jxl"),
            (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        ];
        for (start, media_type) in pictures {
            assert_eq!(kind("picture", start), Some(Kind::Media { field: "image", media_type }));
        }
        assert_eq!(kind("page.html", b"<!DOCTYPE html><html><svg/></html>"), Some(Kind::Text));
        assert_eq!(kind("notes", b"plain words"), Some(Kind::Text));
        assert_eq!(kind("rows.csv", b"a,b\n1,2\n"), Some(Kind::Csv));
        assert_eq!(kind("empty.txt", b""), None);
    }

    #[test]
    fn folders_are_walked_in_order_without_hidden_files() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["b.txt", "a/z.md", ".hidden.txt", "what.bin"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("made");
            let content: &[u8] = if name.ends_with("bin") { &[0, 159, 146, 150, 0, 1] } else { b"x" };
            std::fs::write(path, content).expect("written");
        }
        let (found, unknown) = files(&[dir.path().to_owned()]).expect("walked");
        let names: Vec<_> =
            found.iter().map(|(path, _)| path.strip_prefix(dir.path()).expect("inside").to_owned()).collect();
        assert_eq!(names, [PathBuf::from("a/z.md"), PathBuf::from("b.txt")]);
        assert_eq!(unknown, 1);
    }
}
