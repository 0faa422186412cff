//! The loop of a worker: one request after another, each answered. A thread reads them, so that a worker whose parent has
//! gone ends even while it decodes.

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
    io::{self, BufWriter, Stdout, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::mpsc,
    thread,
};

pub(super) fn run(pdfium: Option<PathBuf>) -> io::Result<()> {
    std::panic::set_hook(Box::new(|_| {})); // it is told as the reason
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    answer(&mut out, Reply::Ready, &[], false)?;
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
        let served = catch_unwind(AssertUnwindSafe(|| serve(&request, body, &mut pdfium, &mut out)));
        let (failure, retire) = match served {
            Ok(Ok(())) => continue,
            Ok(Err(Stop::Failed(failure))) => (failure, false),
            Ok(Err(Stop::Parent(error))) => return Err(error),
            Err(panic) => (Failure::file(format!("its decoder gave up: {}", said(panic.as_ref()))), true),
        };
        answer(&mut out, Reply::Failed(failure), &[], retire)?;
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

fn serve(request: &Request, body: Vec<u8>, pdfium: &mut pdf::Library, out: &mut BufWriter<Stdout>) -> Result<(), Stop> {
    let Request { path, kind, max_pixels, task } = request;
    match task {
        Task::Probe if *kind == MediaKind::Pdf => {
            let probe = pdf::document::probe(pdfium.get()?, path.as_deref(), &body)?;
            answer(out, Reply::Probe(probe), &[], false)?;
        }
        Task::Probe => {
            let probe = image::decode::probe(&file(path, &body)?, *kind, *max_pixels)?;
            answer(out, Reply::Probe(probe), &[], false)?;
        }
        Task::Image(image) => {
            let decoded = image::decode::decode(&file(path, &body)?, *kind, image, *max_pixels)?;
            let (shape, body) = decoded.into_wire();
            answer(out, Reply::Image(shape), &body, false)?;
        }
        Task::PdfDocument => {
            let document = pdf::document::describe(pdfium.get()?, path.as_deref(), &body)?;
            answer(out, Reply::PdfDocument(document), &[], false)?;
        }
        Task::PdfPages(pages) => {
            let mut document = pdf::document::open(pdfium.get()?, path.as_deref(), &body)?;
            for number in pages.range(document.page_count())? {
                let (page, body) = pdf::document::page(&mut document, number, pages, *max_pixels)?;
                answer(out, Reply::PdfPage(Box::new(page)), &body, false)?;
            }
            answer(out, Reply::Done, &[], false)?;
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

fn answer(out: &mut impl Write, reply: Reply, body: &[u8], retire: bool) -> io::Result<()> {
    wire::write(out, &Answer { reply, resident_bytes: resident_bytes(), retire }, body)
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
