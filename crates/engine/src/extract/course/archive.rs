//! Source files out of a ZIP. Everything of it is bounded before it is believed, and its names never touch a file system:
//! they only say what a file is called.

use super::grammars::Grammar;
use std::{
    fs::File,
    io::{BufReader, Read},
    path::Path,
};
use strata_model::{Error, Result};
use zip::ZipArchive;

/// Bytes of an archive.
pub const MAX_ARCHIVE_BYTES: u64 = 64 << 20;
/// Entries of an archive, files that are passed over among them.
const MAX_ENTRIES: usize = 20_000;
/// Bytes of one source file; a larger one is made by a machine, and is passed over.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Bytes of all source files together.
const MAX_TOTAL_BYTES: u64 = 64 << 20;
/// Bytes that one compressed byte may become, in an entry of more than [`SMALL_BYTES`]. Source code shrinks to a tenth.
const MAX_RATIO: u64 = 100;
const SMALL_BYTES: u64 = 64 << 10;
/// Folders in which nothing was written by the author of a course.
const PASSED_OVER: [&str; 3] = ["node_modules", "__MACOSX", "__pycache__"];

/// A file whose language is known.
pub struct SourceFile {
    pub path: String,
    pub grammar: &'static Grammar,
    pub text: String,
}

/// The source files of an archive, in its order, in the languages that are `wanted`. Blocking.
///
/// Errors: `Invalid` for a damaged or encrypted archive, `TooLarge` for one that holds too much, or that becomes far more than
/// it is.
pub fn read(path: &Path, wanted: &[String]) -> Result<Vec<SourceFile>> {
    let file = File::open(path).map_err(Error::internal)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    if archive.len() > MAX_ENTRIES {
        let message = format!("the archive has {} entries; at most {MAX_ENTRIES} are read", archive.len());
        return Err(Error::TooLarge(message));
    }
    let (mut files, mut total_bytes) = (Vec::new(), 0);
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().replace('\\', "/");
        let (size_bytes, compressed_bytes) = (entry.size(), entry.compressed_size());
        let (is_file, is_encrypted) = (entry.is_file(), entry.encrypted());
        drop(entry);
        let Some(grammar) = Grammar::of_file(&name, wanted).filter(|_| is_file && !is_passed_over(&name)) else {
            continue;
        };
        if is_encrypted {
            return Err(Error::invalid("code_archive", format!("`{name}` is encrypted")));
        }
        if size_bytes > SMALL_BYTES && size_bytes / MAX_RATIO > compressed_bytes {
            return Err(Error::TooLarge(format!(
                "`{name}` in the archive would become {size_bytes} bytes out of {compressed_bytes}, more than {MAX_RATIO} times as many, as no source file does"
            )));
        }
        if size_bytes > MAX_FILE_BYTES {
            tracing::debug!(%name, size_bytes, "a large file of an archive is passed over");
            continue;
        }
        let mut bytes = Vec::new();
        let entry = archive.by_index(index).map_err(damaged)?;
        entry.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(damaged)?;
        let read_bytes = bytes.len() as u64;
        if read_bytes > size_bytes {
            let message = format!("`{name}` in the archive says it has {size_bytes} bytes, and has more");
            return Err(Error::TooLarge(message));
        }
        total_bytes += read_bytes;
        if total_bytes > MAX_TOTAL_BYTES {
            let message = format!("the source files of the archive have more than {MAX_TOTAL_BYTES} bytes together");
            return Err(Error::TooLarge(message));
        }
        if let Some(text) = text(&bytes) {
            files.push(SourceFile { path: name, grammar, text });
        }
    }
    Ok(files)
}

/// Hidden files, and folders of what others made.
fn is_passed_over(name: &str) -> bool {
    let is_hidden = |part: &str| part.starts_with('.') && !matches!(part, "." | "..");
    name.split('/').any(|part| is_hidden(part) || PASSED_OVER.contains(&part))
}

/// Bytes as text; `None` where they are none.
pub fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    (!bytes.is_empty() && !bytes.contains(&0)).then(|| String::from_utf8_lossy(bytes).replace("\r\n", "\n"))
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::invalid("code_archive", format!("cannot be read as a ZIP: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::grammars::LANGUAGES;
    use super::*;
    use std::io::{Cursor, Write};
    use zip::{ZipWriter, write::SimpleFileOptions};

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn opened(bytes: &[u8]) -> Result<Vec<SourceFile>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        std::fs::write(&path, bytes).unwrap();
        let wanted: Vec<String> = LANGUAGES.iter().map(|name| (*name).to_owned()).collect();
        read(&path, &wanted)
    }

    #[test]
    fn source_files_are_taken_and_others_are_not() {
        let files: [(&str, &[u8]); 7] = [
            ("src/a.py", b"\xef\xbb\xbfx = 1\r\n"),
            ("../../b.rs", b"fn b() {}"),
            ("notes.txt", b"words"),
            (".git/c.py", b"x"),
            ("node_modules/d/e.js", b"x"),
            ("binary.c", b"a\0b"),
            ("empty.c", b""),
        ];
        let found = opened(&zipped(&files)).unwrap();
        let found: Vec<(&str, &str, &str)> =
            found.iter().map(|f| (f.path.as_str(), f.grammar.name, f.text.as_str())).collect();
        assert_eq!(found, [("src/a.py", "python", "x = 1\n"), ("../../b.rs", "rust", "fn b() {}")]);
    }

    #[test]
    fn what_becomes_far_more_than_it_is_is_refused() {
        let bomb = vec![b' '; 900 << 10];
        let refused = opened(&zipped(&[("bomb.py", &bomb)])).map(|files| files.len()).unwrap_err();
        assert!(matches!(&refused, Error::TooLarge(why) if why.contains("`bomb.py`")), "{refused}");
    }

    #[test]
    fn damaged_archives_are_refused_and_nothing_panics() {
        let whole = zipped(&[("a.py", b"def f():\n    return 1\n"), ("b.c", b"int main(void) { return 0; }\n")]);
        for cut in 0..whole.len() {
            assert!(opened(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] ^= 0xff;
            let _ = opened(&other);
        }
    }
}
