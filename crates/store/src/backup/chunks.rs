//! Byte sequences in pieces that are named by their hash: what two of them have in common is stored once.

use super::{
    CHUNK_BYTES, FAN_OUT,
    manifest::Content,
    repository::{Repository, chunk_path},
};
use crate::{blobs::io_failure, disk::NewFile};
use bytes::Bytes;
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use futures::{StreamExt, TryStreamExt};
use std::{
    collections::HashSet,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};
use strata_model::{Error, Result, id};

/// Stores a file that nobody changes meanwhile, but for the chunks that are `known`. Answers the bytes written, too.
pub(super) async fn store_file(
    repository: &Repository,
    known: &HashSet<String>,
    file: &Path,
) -> Result<(Content, u64)> {
    let size_bytes = tokio::fs::metadata(file).await.map_err(|e| io_failure(&e))?.len();
    let count = size_bytes.div_ceil(CHUNK_BYTES as u64);
    let store = |number: u64| async move {
        let file = file.to_owned();
        let read = tokio::task::spawn_blocking(move || read_piece(&file, number));
        store_piece(repository, known, read.await.map_err(Error::internal)?.map_err(|e| io_failure(&e))?).await
    };
    let mut stored = futures::stream::iter(0..count).map(store).buffered(FAN_OUT);
    let mut content = Content { size_bytes, chunks: Vec::new() };
    let mut written = 0;
    while let Some((hash, bytes)) = stored.try_next().await? {
        content.chunks.push(hash);
        written += bytes;
    }
    Ok((content, written))
}

/// [`store_file`] of bytes in memory.
pub(super) async fn store_bytes(
    repository: &Repository,
    known: &HashSet<String>,
    bytes: &[u8],
) -> Result<(Content, u64)> {
    let mut content = Content { size_bytes: bytes.len() as u64, chunks: Vec::new() };
    let mut written = 0;
    for piece in bytes.chunks(CHUNK_BYTES) {
        let (hash, bytes) = store_piece(repository, known, piece.to_vec()).await?;
        content.chunks.push(hash);
        written += bytes;
    }
    Ok((content, written))
}

/// Answers the piece's hash and the bytes written.
async fn store_piece(repository: &Repository, known: &HashSet<String>, piece: Vec<u8>) -> Result<(String, u64)> {
    let hashing = tokio::task::spawn_blocking(move || (id::sha256_hex(&piece), piece));
    let (hash, piece) = hashing.await.map_err(Error::internal)?;
    if known.contains(&hash) {
        return Ok((hash, 0));
    }
    let packing = tokio::task::spawn_blocking(move || {
        let mut packed = ZlibEncoder::new(Vec::with_capacity(piece.len() / 2), Compression::fast());
        packed.write_all(&piece)?;
        packed.finish()
    });
    let packed = packing.await.map_err(Error::internal)?.map_err(|e| io_failure(&e))?;
    let written = packed.len() as u64;
    repository.put(&chunk_path(&hash), Bytes::from(packed)).await?;
    Ok((hash, written))
}

fn read_piece(file: &Path, number: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(number * CHUNK_BYTES as u64))?;
    let mut piece = Vec::with_capacity(CHUNK_BYTES);
    file.take(CHUNK_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// Writes and syncs a new file. [`Error::Conflict`] names a chunk that is missing or damaged.
pub(super) async fn restore_file(repository: &Repository, content: &Content, file: &Path) -> Result<()> {
    let mut pieces = pieces(repository, content);
    let mut out = NewFile::create(file).await.map_err(|e| io_failure(&e))?;
    let mut size_bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        size_bytes += piece.len() as u64;
        out.write(&piece).await.map_err(|e| io_failure(&e))?;
    }
    if size_bytes != content.size_bytes {
        let expected = content.size_bytes;
        return Err(Error::Conflict(format!("the chunks hold {size_bytes} bytes instead of {expected}")));
    }
    out.finish().await.map_err(|e| io_failure(&e))
}

/// The pieces of a content, in order.
pub(super) fn pieces<'r>(
    repository: &'r Repository,
    content: &'r Content,
) -> futures::stream::BoxStream<'r, Result<Vec<u8>>> {
    let hashes: Vec<String> = content.chunks.clone();
    let read = move |hash: String| async move { piece(repository, &hash).await };
    futures::stream::iter(hashes).map(read).buffered(FAN_OUT).boxed()
}

/// One chunk as it was. [`Error::Conflict`] where it is missing or damaged.
pub(super) async fn piece(repository: &Repository, hash: &str) -> Result<Vec<u8>> {
    let path = chunk_path(hash);
    let packed = match repository.get(&path).await {
        Err(Error::Missing { .. }) => return Err(Error::Conflict(format!("`{path}` is missing"))),
        other => other?,
    };
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::with_capacity(CHUNK_BYTES);
        // One more than a chunk has, so that a longer one is not taken for it.
        ZlibDecoder::new(&packed[..]).take(CHUNK_BYTES as u64 + 1).read_to_end(&mut piece)?;
        let hash = id::sha256_hex(&piece);
        Ok::<_, std::io::Error>((piece, hash))
    });
    match unpacking.await.map_err(Error::internal)? {
        Ok((piece, found)) if found == hash => Ok(piece),
        _ => Err(Error::Conflict(format!("`{path}` is damaged"))),
    }
}

/// Hash and size in bytes of each line of a list of contents. [`Error::Conflict`] at a line that is none.
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { rest: Vec::new() }
    }

    /// The lines that are whole after `piece`.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Vec<(String, u64)>> {
        self.rest.extend_from_slice(piece);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Ok(Vec::new()) };
        let left = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, left);
        let text = std::str::from_utf8(&whole).map_err(|_| not_a_list())?;
        text.lines().map(line).collect()
    }

    /// Fails where the list was cut off in a line.
    pub(super) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(not_a_list()) }
    }
}

/// One line of a list of contents, with its end.
pub(super) fn to_line(hash: &str, size_bytes: u64) -> String {
    format!("{hash} {size_bytes}\n")
}

fn line(text: &str) -> Result<(String, u64)> {
    let (hash, size_bytes) = text.split_once(' ').ok_or_else(not_a_list)?;
    let size_bytes = size_bytes.parse().map_err(|_| not_a_list())?;
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(not_a_list());
    }
    Ok((hash.to_owned(), size_bytes))
}

fn not_a_list() -> Error {
    Error::Conflict("the list of contents is damaged".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn repository(directory: &Path) -> Repository {
        Repository::open_or_make(directory.to_str().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_file_comes_back_as_it_was_and_is_stored_once() {
        let directory = tempfile::tempdir().unwrap();
        let repository = repository(&directory.path().join("to")).await;
        let file = directory.path().join("file");
        let mut bytes: Vec<u8> = (0..CHUNK_BYTES * 3 + 5).map(|n| (n / 3 % 251) as u8).collect();
        std::fs::write(&file, &bytes).unwrap();
        let (content, written) = store_file(&repository, &HashSet::new(), &file).await.unwrap();
        assert_eq!((content.chunks.len(), content.size_bytes), (4, bytes.len() as u64));
        assert!(written > 0);

        bytes[CHUNK_BYTES + 7] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let known = content.chunks.iter().cloned().collect();
        let (changed, _) = store_file(&repository, &known, &file).await.unwrap();
        let same = content.chunks.iter().zip(&changed.chunks).filter(|(a, b)| a == b).count();
        assert_eq!(same, 3, "one chunk has changed");

        let back = directory.path().join("back");
        restore_file(&repository, &changed, &back).await.unwrap();
        assert!(std::fs::read(&back).unwrap() == bytes);
    }

    #[tokio::test]
    async fn a_chunk_that_was_changed_or_is_gone_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("to");
        let repository = repository(&to).await;
        let (content, _) = store_bytes(&repository, &HashSet::new(), b"some text").await.unwrap();
        let hash = &content.chunks[0];
        let file = to.join(chunk_path(hash).as_ref());
        std::fs::write(&file, b"nonsense").unwrap();
        let error = piece(&repository, hash).await.unwrap_err().to_string();
        assert!(error.contains(hash) && error.contains("damaged"), "{error}");
        std::fs::remove_file(&file).unwrap();
        let error = piece(&repository, hash).await.unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
    }

    #[test]
    fn lines_are_read_across_pieces() {
        let (a, b) = (id::sha256_hex(b"a"), id::sha256_hex(b"b"));
        let text = to_line(&a, 1) + &to_line(&b, 22);
        let mut lines = Lines::new();
        let (first, second) = text.split_at(70);
        assert_eq!(lines.take(first.as_bytes()).unwrap(), [(a, 1)]);
        assert_eq!(lines.take(second.as_bytes()).unwrap(), [(b, 22)]);
        lines.end().unwrap();
        assert!(Lines::new().take(b"x y\n").is_err());
        let mut cut = Lines::new();
        cut.take(b"abc").unwrap();
        assert!(cut.end().is_err());
    }
}
