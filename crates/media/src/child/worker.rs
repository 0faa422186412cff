//! The loop of a worker: one request after another, each answered. A thread reads them, so that a worker whose parent has
//! gone ends even while it decodes; another writes the answers, so that the next page is made while one is sent.

use crate::{
    detect::MediaKind,
    fault::Failure,
    image,
    limits::MAX_IMAGE_FILE_BYTES,
    pdf,
    wire::{self, Answer, Reply, Request, Task},
};
use std::{
    borrow::Cow,
    fs,
    io::{self, Write},
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::mpsc,
    thread,
};

pub(super) fn run(pdfium: Option<PathBuf>) -> io::Result<()> {
    std::panic::set_hook(Box::new(|_| {})); // it is told as the reason
    let out = Out::start()?;
    out.answer(Reply::Ready, Vec::new(), false)?;
    let (send, requests) = mpsc::sync_channel(0);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Ok(Some(request)) = wire::read::<Request>(&mut input) {
            if send.send(request).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    let mut pdfium = pdf::Library::new(pdfium);
    for (request, body) in requests {
        let served = catch_unwind(AssertUnwindSafe(|| serve(&request, body, &mut pdfium, &out)));
        let (failure, retire) = match served {
            Ok(Ok(())) => continue,
            Ok(Err(Stop::Failed(failure))) => (failure, false),
            Ok(Err(Stop::Parent(error))) => return Err(error),
            Err(panic) => (Failure::file(format!("its decoder gave up: {}", said(panic.as_ref()))), true),
        };
        out.answer(Reply::Failed(failure), Vec::new(), retire)?;
    }
    Ok(())
}

/// Why a request was not answered.
enum Stop {
    Failed(Failure),
    /// The parent does not listen any more.
    Parent(io::Error),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Parent(error)
    }
}

fn serve(request: &Request, body: Vec<u8>, pdfium: &mut pdf::Library, out: &Out) -> Result<(), Stop> {
    let Request { path, kind, max_pixels, task } = request;
    match task {
        Task::Probe if *kind == MediaKind::Pdf => {
            let probe = pdf::document::probe(pdfium.get()?, path.as_deref(), &body)?;
            out.answer(Reply::Probe(probe), Vec::new(), false)?;
        }
        Task::Probe => {
            let probe = image::decode::probe(&file(path, &body)?, *kind, *max_pixels)?;
            out.answer(Reply::Probe(probe), Vec::new(), false)?;
        }
        Task::Image(image) => {
            let decoded = image::decode::decode(&file(path, &body)?, *kind, image, *max_pixels)?;
            let (shape, body) = decoded.into_wire();
            out.answer(Reply::Image(shape), body, false)?;
        }
        Task::Still => {
            let still = image::still::look(&file(path, &body)?, *kind, *max_pixels)?;
            out.answer(Reply::Still(still), Vec::new(), false)?;
        }
        Task::Pixels { width, height, image } => {
            let decoded = image::decode::of_pixels(pixels(path, body)?, *width, *height, image)?;
            let (shape, body) = decoded.into_wire();
            out.answer(Reply::Image(shape), body, false)?;
        }
        Task::PdfDocument => {
            let document = pdf::document::describe(pdfium.get()?, path.as_deref(), &body)?;
            out.answer(Reply::PdfDocument(document), Vec::new(), false)?;
        }
        Task::PdfPages(pages) => {
            let mut document = pdf::document::open(pdfium.get()?, path.as_deref(), &body)?;
            for number in pages.range(document.page_count())? {
                let (page, body) = pdf::document::page(&mut document, number, pages, *max_pixels)?;
                out.answer(Reply::PdfPage(Box::new(page)), body, false)?;
            }
            out.answer(Reply::Done, Vec::new(), false)?;
        }
    }
    Ok(())
}

/// The bytes of an image.
fn file<'a>(path: &Option<PathBuf>, body: &'a [u8]) -> Result<Cow<'a, [u8]>, Failure> {
    let Some(path) = path else { return Ok(Cow::Borrowed(body)) };
    let unreadable = |error: io::Error| Failure::ours(format!("`{}` cannot be read: {error}", path.display()));
    let size_bytes = fs::metadata(path).map_err(unreadable)?.len();
    if size_bytes > MAX_IMAGE_FILE_BYTES {
        let message = format!("the image file has {size_bytes} bytes; at most {MAX_IMAGE_FILE_BYTES} are read");
        return Err(Failure::limit(message));
    }
    fs::read(path).map(Cow::Owned).map_err(unreadable)
}

/// Pixels that another child of ours made, of a number that the parent has bounded.
fn pixels(path: &Option<PathBuf>, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
    let Some(path) = path else { return Ok(body) };
    fs::read(path).map_err(|error| Failure::ours(format!("`{}` cannot be read: {error}", path.display())))
}

/// The way back to the parent.
struct Out(mpsc::SyncSender<(Vec<u8>, Vec<u8>)>);

impl Out {
    /// One answer may wait while another is written.
    fn start() -> io::Result<Self> {
        // Not through the buffer of `Stdout`, which looks for the ends of lines.
        let mut out = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (send, answers) = mpsc::sync_channel::<(Vec<u8>, Vec<u8>)>(1);
        thread::spawn(move || {
            for (header, body) in answers {
                if out.write_all(&header).and_then(|()| out.write_all(&body)).is_err() {
                    return;
                }
            }
        });
        Ok(Self(send))
    }

    fn answer(&self, reply: Reply, body: Vec<u8>, retire: bool) -> io::Result<()> {
        let header = wire::encode(&Answer { reply, resident_bytes: resident_bytes(), retire }, &body)?;
        self.0.send((header, body)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Resident memory of this process; 0 where the kernel does not tell.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "it panicked".to_owned())
}
