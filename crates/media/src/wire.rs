//! Messages between the parent and a worker. A message is two lengths, a header in JSON and a body of bytes:
//! `u32 header length | u64 body length | header | body`, little endian. Each side checks the lengths before it reads.

use crate::{
    detect::MediaKind,
    fault::Failure,
    image::{ImageRequest, ImageShape, still::Still},
    limits::{MAX_BODY_BYTES, MAX_HEADER_BYTES},
    pdf::{PdfDocument, PdfRequest, wire::PageReply},
    probe::Probe,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, Read},
    path::PathBuf,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a worker is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The file; without it the body is the file.
    pub path: Option<PathBuf>,
    pub kind: MediaKind,
    pub max_pixels: u64,
    pub task: Task,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    Probe,
    Image(ImageRequest),
    /// What a still says that `ffmpeg` is to decode.
    Still,
    /// Pictures of the pixels that it made: RGBA, row by row from the top.
    Pixels {
        width: u32,
        height: u32,
        image: ImageRequest,
    },
    PdfDocument,
    PdfPages(PdfRequest),
}

/// What a worker answers: any number of pages, then one of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The first message of a worker: it runs under its limits.
    Ready,
    Probe(Probe),
    Image(ImageShape),
    Still(Still),
    PdfDocument(PdfDocument),
    /// One page; more follow, or `Done`.
    PdfPage(Box<PageReply>),
    Done,
    Failed(Failure),
}

/// A reply and the state of its worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub reply: Reply,
    /// Resident memory of the worker, in bytes.
    pub resident_bytes: u64,
    /// The worker should not be used again.
    pub retire: bool,
}

const PREFIX_BYTES: usize = 12;

fn prefix(header: &[u8], body: &[u8]) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix[..4].copy_from_slice(&(header.len() as u32).to_le_bytes());
    prefix[4..].copy_from_slice(&(body.len() as u64).to_le_bytes());
    prefix
}

fn lengths(prefix: [u8; PREFIX_BYTES]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, rest @ ..] = prefix;
    let (header, body) = (u32::from_le_bytes([a, b, c, d]) as usize, u64::from_le_bytes(rest));
    if header > MAX_HEADER_BYTES || body > MAX_BODY_BYTES {
        return Err(io::Error::other(format!("a message of {header} and {body} bytes is too large")));
    }
    Ok((header, body as usize))
}

/// A message as it is sent: lengths and header, then the body.
pub(crate) fn encode(header: &impl Serialize, body: &[u8]) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(header).map_err(io::Error::other)?;
    let mut message = prefix(&header, body).to_vec();
    message.extend(header);
    Ok(message)
}

/// The next message; `None` at the end of the stream.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<(T, Vec<u8>)>> {
    let mut prefix = [0; PREFIX_BYTES];
    match from.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (header_bytes, body_bytes) = lengths(prefix)?;
    let mut header = vec![0; header_bytes];
    from.read_exact(&mut header)?;
    let mut body = vec![0; body_bytes];
    from.read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&header).map_err(io::Error::other)?, body)))
}

pub(crate) async fn send(to: &mut (impl AsyncWrite + Unpin), header: &impl Serialize, body: &[u8]) -> io::Result<()> {
    to.write_all(&encode(header, body)?).await?;
    to.write_all(body).await?;
    to.flush().await
}

pub(crate) async fn receive<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(T, Vec<u8>)> {
    let mut prefix = [0; PREFIX_BYTES];
    from.read_exact(&mut prefix).await?;
    let (header_bytes, body_bytes) = lengths(prefix)?;
    let header = exactly(from, header_bytes).await?;
    let body = exactly(from, body_bytes).await?;
    Ok((serde_json::from_slice(&header).map_err(io::Error::other)?, body))
}

/// As many bytes, taking memory only as they come.
async fn exactly(from: &mut (impl AsyncRead + Unpin), bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::with_capacity(bytes.min(16 << 20));
    from.take(bytes as u64).read_to_end(&mut read).await?;
    if read.len() < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(read)
}
