//! Content-addressed bytes: `ab/cd/<sha256>` in an object store. Bytes are written and synced before the catalog row
//! that names them; the same content is stored once.
//!
//! Content may be removed only while nobody [`Held`]s it: a writer holds it from before the bytes are looked for until
//! the row that refers to them is committed, so that a removal never takes bytes that a new row is about to name.
//! [`Blobs::keep_all`] keeps everything, for every process that uses the directory: a backup copies what a snapshot of
//! the catalog names, and none of it may go meanwhile.

use crate::{
    disk::{self, NewFile},
    faults::{Point, reach},
    room::Room,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem, path::Path};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{File, TryLockError},
    io::ErrorKind,
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use strata_model::{Error, Result, id};
use tokio::sync::Notify;

/// Where unfinished uploads are written, below the local directory.
const INCOMING: &str = "incoming";
/// Locked below the local directory: shared by every removal, alone by who keeps all content.
const REMOVALS: &str = "removals.lock";
/// The longest that [`Blobs::keep_all`] waits for removals under way.
const KEEP_WAIT: Duration = Duration::from_secs(30);
/// Age at which a file in [`INCOMING`] belongs to an upload that died with its process.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// Content up to this size is hashed on the caller's own thread.
const HASH_INLINE_BYTES: usize = 256 << 10;

/// The blob store of one server.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    /// The local directory, where durability needs a sync that the object store does not do by itself.
    directory: Option<PathBuf>,
    claims: Arc<Claims>,
    room: Arc<Room>,
}

/// Who uses or removes which content right now.
#[derive(Default)]
struct Claims {
    table: Mutex<HashMap<String, Claim>>,
    removed: Notify,
}

enum Claim {
    Held(usize),
    Removing,
}

/// Stored content that cannot be removed while this lives.
pub struct Held {
    hash: String,
    size_bytes: u64,
    claims: Arc<Claims>,
}

impl Held {
    /// SHA-256 in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.claims.table.lock();
        match table.get_mut(&self.hash) {
            Some(Claim::Held(count)) if *count > 1 => *count -= 1,
            _ => drop(table.remove(&self.hash)),
        }
    }
}

/// Stored content as a file, which stays as long as this lives. Only to be read.
pub struct BlobFile {
    path: PathBuf,
    _held: Held,
}

impl BlobFile {
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// The right to remove one content. Writers of the same content wait until it is dropped.
pub struct Removal {
    hash: String,
    claims: Arc<Claims>,
    _permit: Option<File>,
}

/// While this lives, no process removes content. The lock goes with the process, however that ends.
pub struct KeptAll {
    _lock: Option<File>,
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.claims.table.lock().remove(&self.hash);
        self.claims.removed.notify_waiters();
    }
}

impl Blobs {
    /// A local directory, made if it is missing.
    pub fn local(directory: PathBuf) -> Result<Self> {
        disk::make_dirs(&directory).map_err(|e| io_failure(&e))?;
        // Young files may belong to a server that runs.
        disk::clear_abandoned(&directory.join(INCOMING), ABANDONED).map_err(|e| io_failure(&e))?;
        // Made now: on a full disk a removal must not need a new file.
        open_lock(&directory).map_err(|e| io_failure(&e))?;
        let store = LocalFileSystem::new_with_prefix(&directory).map_err(failure)?;
        // Nothing is kept free.
        let room = Arc::new(Room::new(directory.clone(), 0));
        Ok(Self { store: Arc::new(store), directory: Some(directory), claims: Arc::default(), room })
    }

    /// The same store, which writes only while `room` says that there is some: [`Error::Full`] otherwise.
    pub fn within(self, room: Arc<Room>) -> Self {
        Self { room, ..self }
    }

    /// Stores `bytes`; answers their SHA-256 in hex. Durable when this returns.
    pub async fn put(&self, bytes: Bytes) -> Result<String> {
        Ok(self.put_held(bytes).await?.hash.clone())
    }

    /// [`Blobs::put`], held against removal: keep the answer until the row that refers to the content is committed.
    pub async fn put_held(&self, bytes: Bytes) -> Result<Held> {
        let size_bytes = bytes.len() as u64;
        let hash = if bytes.len() <= HASH_INLINE_BYTES {
            id::sha256_hex(&bytes)
        } else {
            let bytes = bytes.clone();
            tokio::task::spawn_blocking(move || id::sha256_hex(&bytes)).await.map_err(Error::internal)?
        };
        let held = self.claim(&hash, size_bytes).await;
        let path = path_of(&hash);
        let is_there = self.store.head(&path).await.is_ok_and(|meta| meta.size == size_bytes);
        match &self.directory {
            Some(directory) if !is_there => {
                self.room.check()?;
                let temporary = Temporary::new(directory).await?;
                let file = temporary.0.clone();
                blocking(move || disk::write_new(&file, &bytes)).await?;
                self.name(&temporary, &hash).await?;
            }
            // It may be as young as this call, and its name not on disk yet.
            Some(_) => self.sync(&hash).await?,
            None if !is_there => drop(self.store.put(&path, PutPayload::from_bytes(bytes)).await.map_err(failure)?),
            None => {}
        }
        Ok(held)
    }

    /// Gives a file that is synced its name; durable when this returns.
    async fn name(&self, temporary: &Temporary, hash: &str) -> Result<()> {
        reach(Point::BlobWritten).map_err(|e| io_failure(&e))?;
        let Some(directory) = &self.directory else { return Err(Error::internal("a store without files")) };
        let (from, to) = (temporary.0.clone(), directory.join(path_of(hash).as_ref()));
        blocking(move || disk::give_name(&from, &to)).await?;
        reach(Point::BlobNamed).map_err(|e| io_failure(&e))?;
        self.sync(hash).await?;
        reach(Point::BlobKept).map_err(|e| io_failure(&e))
    }

    /// Stores what `stream` yields, at most `max_bytes` of it, holding no more than one piece in memory. Durable and
    /// held against removal when this returns; on an error nothing is kept.
    pub async fn put_stream<S>(&self, stream: S, max_bytes: u64) -> Result<Held>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let Some(directory) = &self.directory else {
            return Err(Error::Unavailable("this blob store takes no streamed uploads".into()));
        };
        let temporary = Temporary::new(directory).await?;
        let (hash, size_bytes) = write_file(&temporary.0, stream, max_bytes, &self.room).await?;
        let held = self.claim(&hash, size_bytes).await;
        self.name(&temporary, &hash).await?;
        Ok(held)
    }

    /// Holds stored content against removal; [`Error::Missing`] when it is not stored.
    pub async fn hold(&self, hash: &str) -> Result<Held> {
        let mut held = self.claim(hash, 0).await;
        held.size_bytes = self.size(hash).await?.ok_or_else(|| Error::missing("blob", hash))?;
        Ok(held)
    }

    async fn claim(&self, hash: &str, size_bytes: u64) -> Held {
        loop {
            let removed = self.claims.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            {
                let mut table = self.claims.table.lock();
                match table.entry(hash.to_owned()).or_insert(Claim::Held(0)) {
                    Claim::Held(count) => {
                        *count += 1;
                        return Held { hash: hash.to_owned(), size_bytes, claims: self.claims.clone() };
                    }
                    Claim::Removing => {}
                }
            }
            removed.await;
        }
    }

    /// Starts a removal, or `None` while somebody holds or removes the content, or keeps all. The caller then makes sure
    /// that no row refers to it, and calls [`Blobs::delete`].
    pub fn begin_removal(&self, hash: &str) -> Option<Removal> {
        let permit = match self.directory.as_deref().map(removal_permit).transpose() {
            Ok(permit) => permit,
            Err(TryLockError::WouldBlock) => return None,
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "`{REMOVALS}` cannot be locked, so no content is removed");
                return None;
            }
        };
        let mut table = self.claims.table.lock();
        if table.contains_key(hash) {
            return None;
        }
        table.insert(hash.to_owned(), Claim::Removing);
        Some(Removal { hash: hash.to_owned(), claims: self.claims.clone(), _permit: permit })
    }

    /// Keeps every content from being removed, by this and any other process that uses the directory, until the answer is
    /// dropped. Removals under way end first. [`Error::Busy`] where another one keeps all, or removals do not end.
    pub async fn keep_all(&self) -> Result<KeptAll> {
        let Some(directory) = &self.directory else { return Ok(KeptAll { _lock: None }) };
        let lock = open_lock(directory).map_err(|e| io_failure(&e))?;
        let deadline = tokio::time::Instant::now() + KEEP_WAIT;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(KeptAll { _lock: Some(lock) }),
                Err(TryLockError::Error(error)) => return Err(io_failure(&error)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy {
                        message: "another backup of this directory is under way".into(),
                        retry_after_seconds: 60,
                    });
                }
            }
        }
    }

    /// The whole content; [`Error::Missing`] when no such blob is stored.
    pub async fn get(&self, hash: &str) -> Result<bytes::Bytes> {
        let found = self.store.get(&path_of(hash)).await.map_err(|e| missing(e, hash))?;
        found.bytes().await.map_err(|e| missing(e, hash))
    }

    /// Bytes `start..end` of the content.
    pub async fn get_range(&self, hash: &str, start: u64, end: u64) -> Result<bytes::Bytes> {
        self.store.get_range(&path_of(hash), start..end).await.map_err(|e| missing(e, hash))
    }

    /// The content, or the bytes `range` of it, piece by piece.
    pub async fn stream(&self, hash: &str, range: Option<Range<u64>>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let found = self.store.get_opts(&path_of(hash), options).await.map_err(|e| missing(e, hash))?;
        Ok(found.into_stream().map(|piece| piece.map_err(failure)).boxed())
    }

    /// The content as a file, for programs that read files; held against removal as long as the answer lives.
    pub async fn file(&self, hash: &str) -> Result<BlobFile> {
        let held = self.hold(hash).await?;
        let Some(directory) = &self.directory else {
            return Err(Error::Unavailable("this blob store has no files".into()));
        };
        Ok(BlobFile { path: directory.join(path_of(hash).as_ref()), _held: held })
    }

    /// Size in bytes, or `None` when it is not stored.
    pub async fn size(&self, hash: &str) -> Result<Option<u64>> {
        match self.store.head(&path_of(hash)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(failure(e)),
        }
    }

    /// The hashes of contents that were written at least `age` ago, in no order.
    pub fn older_than(&self, age: Duration) -> BoxStream<'static, Result<String>> {
        let before = SystemTime::now() - age;
        let old = move |meta: object_store::ObjectMeta| {
            let hash = meta.location.filename().filter(|name| path_of(name) == meta.location)?;
            (SystemTime::from(meta.last_modified) < before).then(|| hash.to_owned())
        };
        let all = self.store.list(None).map_err(failure);
        all.try_filter_map(move |meta| std::future::ready(Ok(old(meta)))).boxed()
    }

    /// Removes the content. Removing what is not there is no error. The removal may be undone by a power cut: the content is
    /// then there again and nobody refers to it, which the sweep at the next start finds.
    pub async fn delete(&self, hash: &str) -> Result<()> {
        let path = path_of(hash);
        match self.directory.clone() {
            Some(directory) => {
                let file = directory.join(path.as_ref());
                blocking(move || disk::remove_and_tidy(&file, &directory)).await?;
            }
            None => match self.store.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(failure(e)),
            },
        }
        reach(Point::BlobRemoved).map_err(|e| io_failure(&e))
    }

    async fn sync(&self, hash: &str) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let file = directory.join(path_of(hash).as_ref());
        let sync = move || {
            disk::sync_file(&file)?;
            // The new names must be durable too: in the file's folder, and in the two above that may be new.
            disk::sync_name(&file, 3)
        };
        blocking(sync).await
    }
}

/// Runs `work` where it may block.
async fn blocking(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<()> {
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?.map_err(|e| io_failure(&e))
}

/// A file that goes when this does, unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// One that is not there yet, below a store's directory.
    async fn new(directory: &std::path::Path) -> Result<Self> {
        let incoming = directory.join(INCOMING);
        let folder = incoming.clone();
        blocking(move || disk::make_dirs_unsynced(&folder)).await?;
        let mut name = [0u8; 16];
        getrandom::fill(&mut name).map_err(Error::internal)?;
        Ok(Self(incoming.join(hex::encode(name))))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(disk::remove_file(&self.0));
    }
}

/// Writes and syncs a new file; answers SHA-256 in hex and size.
async fn write_file<S>(path: &std::path::Path, stream: S, max_bytes: u64, room: &Room) -> Result<(String, u64)>
where
    S: Stream<Item = Result<Bytes>> + Send,
{
    let mut file = NewFile::create(path).await.map_err(|e| io_failure(&e))?;
    let mut hasher = Sha256::new();
    let mut size_bytes = 0u64;
    tokio::pin!(stream);
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        size_bytes += piece.len() as u64;
        if size_bytes > max_bytes {
            return Err(Error::TooLarge(format!(
                "the content has more than {max_bytes} bytes, the most that is taken"
            )));
        }
        room.check()?;
        hasher.update(&piece);
        file.write(&piece).await.map_err(|e| io_failure(&e))?;
    }
    file.finish().await.map_err(|e| io_failure(&e))?;
    Ok((hex::encode(hasher.finalize()), size_bytes))
}

fn open_lock(directory: &std::path::Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(directory.join(REMOVALS))
}

/// The right of this process to remove one content, unless somebody keeps all.
fn removal_permit(directory: &std::path::Path) -> std::result::Result<File, TryLockError> {
    let file = open_lock(directory).map_err(TryLockError::Error)?;
    file.try_lock_shared()?;
    Ok(file)
}

fn path_of(hash: &str) -> Path {
    let (a, b) = (hash.get(..2).unwrap_or("00"), hash.get(2..4).unwrap_or("00"));
    Path::from_iter([a, b, hash])
}

fn missing(error: object_store::Error, hash: &str) -> Error {
    match error {
        object_store::Error::NotFound { .. } => Error::missing("blob", hash),
        other => failure(other),
    }
}

pub(crate) fn failure(error: object_store::Error) -> Error {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = source {
        if let Some(io) = at.downcast_ref::<std::io::Error>() {
            return io_failure(io);
        }
        source = at.source();
    }
    Error::internal(error)
}

pub(crate) fn io_failure(error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::Full(format!("the disk is full: {error}"))
        }
        _ => Error::internal(format!("files: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pieces: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        futures::stream::iter(pieces.iter().map(|p| Ok(Bytes::from_static(p))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_stream_is_stored_under_the_hash_of_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(directory.path().to_owned()).unwrap();
        let held = blobs.put_stream(pieces(&[b"ab", b"", b"c"]), 3).await.unwrap();
        assert_eq!((held.hash(), held.size_bytes()), (id::sha256_hex(b"abc").as_str(), 3));
        assert_eq!(blobs.get(held.hash()).await.unwrap(), "abc");
        let part: Vec<Bytes> = blobs.stream(held.hash(), Some(1..3)).await.unwrap().map(Result::unwrap).collect().await;
        assert_eq!(part.concat(), b"bc");
        let refused = blobs.put_stream(pieces(&[b"ab", b"cd"]), 3).await;
        assert!(matches!(refused, Err(Error::TooLarge(_))));
        let left = std::fs::read_dir(directory.path().join(INCOMING)).unwrap().count();
        assert_eq!(left, 0, "neither the stored nor the refused stream leaves a temporary file");
    }

    #[tokio::test]
    async fn held_content_is_not_removed_and_a_writer_waits_for_a_removal() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(directory.path().to_owned()).unwrap();
        let held = blobs.put_held(Bytes::from_static(b"abc")).await.unwrap();
        let second = blobs.hold(held.hash()).await.unwrap();
        let hash = held.hash().to_owned();
        drop(held);
        assert!(blobs.begin_removal(&hash).is_none(), "the second holder is still there");
        drop(second);
        let removal = blobs.begin_removal(&hash).unwrap();
        let writer = {
            let blobs = blobs.clone();
            tokio::spawn(async move { blobs.put(Bytes::from_static(b"abc")).await })
        };
        tokio::task::yield_now().await;
        assert!(!writer.is_finished());
        blobs.delete(&hash).await.unwrap();
        drop(removal);
        writer.await.unwrap().unwrap();
        assert_eq!(blobs.get(&hash).await.unwrap(), "abc", "written again after the removal");
    }

    #[tokio::test]
    async fn while_everything_is_kept_no_process_removes_anything() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(directory.path().to_owned()).unwrap();
        let hash = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
        let other_process = Blobs::local(directory.path().to_owned()).unwrap();
        let kept = other_process.keep_all().await.unwrap();
        assert!(blobs.begin_removal(&hash).is_none());
        drop(kept);
        let removal = blobs.begin_removal(&hash).unwrap();
        let second = blobs.begin_removal("another").unwrap();
        let keeper = tokio::spawn(async move { other_process.keep_all().await.is_ok() });
        tokio::task::yield_now().await;
        assert!(!keeper.is_finished(), "removals under way end first");
        drop((removal, second));
        assert!(keeper.await.unwrap());
    }

    #[tokio::test]
    async fn a_file_cut_off_by_a_crash_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::local(directory.path().to_owned()).unwrap();
        let hash = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
        std::fs::write(directory.path().join(path_of(&hash).as_ref()), b"").unwrap();
        blobs.put(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(blobs.get(&hash).await.unwrap(), "abc");
    }
}
