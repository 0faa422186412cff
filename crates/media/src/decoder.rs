//! The way in: one [`Decoder`] for a process, which owns the workers and bounds how many children run beside each other.

use crate::{
    detect::{Family, MediaKind, detect},
    ffmpeg::Ffmpeg,
    image::{DecodedImage, ImageRequest},
    limits::{
        FFMPEG_MEMORY_BYTES, FFMPEG_SILENCE_TIMEOUT, HEAD_BYTES, MAX_BODY_BYTES, MAX_PIXELS, WORKER_MEMORY_BYTES,
        WORKER_TIMEOUT,
    },
    pdf::{PdfDocument, PdfPage, PdfRequest, wire::from_wire},
    pool::{Conversation, Pool},
    probe::Probe,
    wire::{Reply, Request, Task},
};
use std::{
    ffi::OsString,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use strata_model::{Error, Result};

/// Programs and libraries that decode and are not part of this program.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    /// The program `ffmpeg`, 5.0 or later, for sound and video; for stills such as HEIC, AVIF, JPEG XL and SVG the one that
    /// `strata models pull media_tools` brings, or another of version 9 that was built with `libjxl` and `librsvg`.
    pub ffmpeg: Option<PathBuf>,
    /// The library `libpdfium`, for PDFs.
    pub pdfium: Option<PathBuf>,
}

impl Tools {
    /// The same, and what is missing looked for: `ffmpeg` and `libpdfium.so` in each of `folders`, then `ffmpeg` on the
    /// search path of this process.
    pub fn completed(self, folders: &[&Path]) -> Self {
        let found = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        let on_path = || {
            let path = std::env::var_os("PATH")?;
            std::env::split_paths(&path).map(|folder| folder.join("ffmpeg")).find(|path| path.is_file())
        };
        Self {
            ffmpeg: self.ffmpeg.or_else(|| found("ffmpeg")).or_else(on_path),
            pdfium: self.pdfium.or_else(|| found("libpdfium.so")),
        }
    }
}

/// How children are started and what they may take.
#[derive(Debug, Clone)]
pub struct Config {
    /// The program that is started as a child; with `arguments` before those of [`crate::child::main`] it must call it.
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub tools: Tools,
    /// Workers beside each other.
    pub workers: usize,
    /// `ffmpeg`s beside each other.
    pub ffmpegs: usize,
    /// Most threads of one `ffmpeg`. Those that run beside each other share the processors: a film is decoded with less work
    /// in fewer threads.
    pub ffmpeg_threads: usize,
    /// Processors that all `ffmpeg`s share.
    pub processors: usize,
    /// Pixels that an image, a rendered page or a frame may have.
    pub max_pixels: u64,
    pub worker_memory_bytes: u64,
    pub ffmpeg_memory_bytes: u64,
    /// Longest that an image, a probe or one page may take.
    pub worker_timeout: Duration,
    /// Longest that `ffmpeg` may be silent.
    pub ffmpeg_timeout: Duration,
}

impl Config {
    /// The usual limits, with as many children of each kind as the machine has cores.
    pub fn new(program: PathBuf, arguments: Vec<OsString>, tools: Tools) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            program,
            arguments,
            tools,
            workers: cores,
            ffmpegs: cores.div_ceil(2).max(2),
            ffmpeg_threads: cores.min(4),
            processors: cores,
            max_pixels: MAX_PIXELS,
            worker_memory_bytes: WORKER_MEMORY_BYTES,
            ffmpeg_memory_bytes: FFMPEG_MEMORY_BYTES,
            worker_timeout: WORKER_TIMEOUT,
            ffmpeg_timeout: FFMPEG_SILENCE_TIMEOUT,
        }
    }
}

/// A file: where it lies, or its bytes.
#[derive(Debug, Clone)]
pub enum Source {
    Path(PathBuf),
    Bytes(Arc<[u8]>),
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl Source {
    /// What it is, by its content. [`Error::Internal`] when it cannot be read, [`Error::Invalid`] when it is empty.
    pub async fn kind(&self) -> Result<MediaKind> {
        let kind = match self {
            Self::Bytes(bytes) => (detect(bytes, bytes.len() as u64), bytes.is_empty()),
            Self::Path(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || {
                    let unreadable = |error| Error::internal(format!("`{}` cannot be read: {error}", path.display()));
                    head(&path).map_err(unreadable)
                })
                .await
                .map_err(Error::internal)??
            }
        };
        match kind {
            (_, true) => Err(Error::invalid("file", "the file is empty")),
            (kind, false) => Ok(kind),
        }
    }
}

/// The kind of a file, and whether it is empty.
fn head(path: &Path) -> std::io::Result<(MediaKind, bool)> {
    let file = std::fs::File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let mut head = Vec::with_capacity(HEAD_BYTES);
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok((detect(&head, size_bytes), head.is_empty()))
}

/// Decodes files in child processes. Cheap to clone; clones share children and limits. Every call can be dropped at any
/// time, which ends its child. Damaged files and files of the wrong kind are [`Error::Invalid`], those that take too much
/// [`Error::TooLarge`], a tool that is not there [`Error::Unavailable`].
#[derive(Clone)]
pub struct Decoder {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    pool: Pool,
    ffmpeg: Ffmpeg,
}

impl Decoder {
    /// A decoder without children yet. They start when they are needed.
    pub fn new(config: Config) -> Self {
        let config = Arc::new(config);
        let pool = Pool::new(Arc::clone(&config));
        let ffmpeg = Ffmpeg::new(Arc::clone(&config));
        Self { inner: Arc::new(Inner { config, pool, ffmpeg }) }
    }

    pub(crate) fn ffmpeg(&self) -> &Ffmpeg {
        &self.inner.ffmpeg
    }

    /// What a file is and what it says of itself. Text and unknown files have only a kind.
    pub async fn probe(&self, source: &Source) -> Result<Probe> {
        let kind = source.kind().await?;
        match kind.family() {
            Family::Image | Family::Pdf => match self.ask(source, kind, Task::Probe).await?.only().await? {
                (Reply::Probe(probe), _) => Ok(probe),
                _ => Err(unexpected()),
            },
            Family::Audio | Family::Video => self.ffmpeg().probe(source, kind).await,
            Family::Text | Family::Archive | Family::Unknown => Ok(Probe::of(kind)),
        }
    }

    /// Decodes an image once and makes all outputs of it. Its orientation is followed, what is transparent lies on white, and
    /// of an animation the first frame is taken.
    pub async fn image(&self, source: &Source, request: &ImageRequest) -> Result<DecodedImage> {
        let kind = source.kind().await?;
        if kind.family() != Family::Image {
            return Err(wrong_family(kind, "image"));
        }
        if kind.still_demuxer().is_some() {
            return self.still(source, kind, request).await;
        }
        match self.ask(source, kind, Task::Image(request.clone())).await?.only().await? {
            (Reply::Image(shape), body) => DecodedImage::from_wire(shape, body).ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    /// The same of one that `ffmpeg` decodes: a worker says how large it is, `ffmpeg` makes its pixels, and a worker makes the
    /// outputs of them.
    async fn still(&self, source: &Source, kind: MediaKind, request: &ImageRequest) -> Result<DecodedImage> {
        let (Reply::Still(still), _) = self.ask(source, kind, Task::Still).await?.only().await? else {
            return Err(unexpected());
        };
        let pixels = self.ffmpeg().pixels(source, kind, &still).await?;
        let task = Task::Pixels { width: still.width, height: still.height, image: request.clone() };
        match self.ask(&Source::Path(pixels.path().to_owned()), kind, task).await?.only().await? {
            (Reply::Image(shape), body) => DecodedImage::from_wire(shape, body).ok_or_else(unexpected),
            _ => Err(unexpected()),
        }
    }

    /// Pages, metadata and outline of a PDF.
    pub async fn pdf(&self, source: &Source) -> Result<PdfDocument> {
        let kind = pdf_kind(source).await?;
        match self.ask(source, kind, Task::PdfDocument).await?.only().await? {
            (Reply::PdfDocument(document), _) => Ok(document),
            _ => Err(unexpected()),
        }
    }

    /// Pages of a PDF, one after another, from one opening of the file.
    pub async fn pdf_pages(&self, source: &Source, request: &PdfRequest) -> Result<PdfPages> {
        let kind = pdf_kind(source).await?;
        let conversation = self.ask(source, kind, Task::PdfPages(request.clone())).await?;
        Ok(PdfPages { conversation: Some(conversation) })
    }

    async fn ask(&self, source: &Source, kind: MediaKind, task: Task) -> Result<Conversation> {
        let max_pixels = self.inner.config.max_pixels;
        match source {
            Source::Path(path) => {
                let path = std::path::absolute(path).map_err(Error::internal)?;
                self.inner.pool.ask(&Request { path: Some(path), kind, max_pixels, task }, &[]).await
            }
            Source::Bytes(bytes) if bytes.len() as u64 > MAX_BODY_BYTES => {
                Err(Error::TooLarge(format!("a file of {} bytes is larger than {MAX_BODY_BYTES}", bytes.len())))
            }
            Source::Bytes(bytes) => self.inner.pool.ask(&Request { path: None, kind, max_pixels, task }, bytes).await,
        }
    }
}

/// Pages of a PDF as they are read. Dropping it ends the reading.
pub struct PdfPages {
    conversation: Option<Conversation>,
}

impl PdfPages {
    /// The next page; `None` after the last. After an error there is none.
    pub async fn next(&mut self) -> Result<Option<PdfPage>> {
        let Some(mut conversation) = self.conversation.take() else { return Ok(None) };
        match conversation.next().await {
            Ok((Reply::PdfPage(page), body, _)) => {
                self.conversation = Some(conversation);
                from_wire(*page, body).map(Some).ok_or_else(unexpected)
            }
            Ok((Reply::Done, _, state)) => {
                conversation.finish(state);
                Ok(None)
            }
            Ok(_) => Err(unexpected()),
            Err(error) => {
                conversation.give_back();
                Err(error)
            }
        }
    }
}

async fn pdf_kind(source: &Source) -> Result<MediaKind> {
    match source.kind().await? {
        MediaKind::Pdf => Ok(MediaKind::Pdf),
        other => Err(wrong_family(other, "PDF")),
    }
}

pub(crate) fn wrong_family(kind: MediaKind, wanted: &str) -> Error {
    let what = match kind {
        MediaKind::Unknown => "of no kind that is known".to_owned(),
        kind => format!("`{}`", kind.media_type()),
    };
    Error::invalid("file", format!("the content is {what}, which is no {wanted} that is decoded"))
}

fn unexpected() -> Error {
    Error::invalid("file", "its decoder answered something that makes no sense")
}
