//! Sound, video and the stills that `image` does not decode, by running `ffmpeg`. It is started through a child of ours that has laid limits on itself; it may use
//! the one demuxer that the content was found to need, read files and pipes and nothing else, and take no subtitles,
//! attachments or data. So no file can make it open another one or a connection.
//!
//! Damaged recordings are decoded as far as that goes; one that gives nothing is an error with what `ffmpeg` said. A damaged
//! still is an error.

mod make;
mod probe;
mod sound;
mod still;
mod video;

pub use make::{Transcode, VideoCodec};
pub use sound::{AudioRequest, AudioStream, Silence, SilenceRequest};
pub use video::{Frame, FrameRequest, FrameSampling, FrameStream, SceneCut};

use crate::{
    child::{self, Confinement},
    decoder::{Config, Source, wrong_family},
    detect::MediaKind,
    fault::{Failure, Fault},
    limits::{FFMPEG_CPU_SECONDS, MAX_CHILDREN, MAX_LINE_BYTES, MAX_MADE_FILE_BYTES, STILL_CPU_SECONDS},
    pool::{self, Messages},
};
use std::{ffi::OsString, io::Write, path::PathBuf, process::Stdio, sync::Arc, time::Duration};
use strata_model::{Error, Result};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdout},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Starts `ffmpeg`s and bounds how many run.
pub(crate) struct Ffmpeg {
    config: Arc<Config>,
    permits: Arc<Semaphore>,
    /// Of stills, which are not to wait for the end of a video.
    still_permits: Arc<Semaphore>,
}

/// A file that `ffmpeg` can open. It needs one that has a path and can be read at any place.
pub(crate) struct Input {
    path: PathBuf,
    demuxer: &'static str,
    /// Bytes that had no path; gone with the last user.
    _written: Option<NamedTempFile>,
}

impl Input {
    /// [`Error::Invalid`] for what is neither sound nor video.
    pub async fn of(source: &Source) -> Result<Arc<Self>> {
        let kind = source.kind().await?;
        Self::of_kind(source, kind).await
    }

    pub async fn of_kind(source: &Source, kind: MediaKind) -> Result<Arc<Self>> {
        let demuxer = kind.demuxer().ok_or_else(|| wrong_family(kind, "sound or video"))?;
        Self::read_by(demuxer, source).await
    }

    async fn read_by(demuxer: &'static str, source: &Source) -> Result<Arc<Self>> {
        let (path, written) = match source {
            Source::Path(path) => (std::path::absolute(path).map_err(Error::internal)?, None),
            Source::Bytes(bytes) => {
                let bytes = Arc::clone(bytes);
                let write = move || {
                    let mut file = NamedTempFile::new()?;
                    file.write_all(&bytes)?;
                    Ok::<_, std::io::Error>(file)
                };
                let file = tokio::task::spawn_blocking(write).await.map_err(Error::internal)?;
                let file =
                    file.map_err(|error| Error::internal(format!("a scratch file cannot be written: {error}")))?;
                (file.path().to_owned(), Some(file))
            }
        };
        Ok(Arc::new(Self { path, demuxer, _written: written }))
    }
}

/// The arguments of one run: those for the input, and those for the output.
#[derive(Default)]
struct Plan {
    before_input: Vec<OsString>,
    after_input: Vec<OsString>,
    /// What it says besides errors.
    chatty: bool,
    timeout: Option<Duration>,
    still: Option<StillBounds>,
}

/// What the run for a still may take, instead of what those for sound and video may.
struct StillBounds {
    threads: usize,
    /// Bytes that it writes.
    file_bytes: u64,
}

impl Plan {
    fn before(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.before_input.extend(arguments.into_iter().map(Into::into));
        self
    }
    fn after(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.after_input.extend(arguments.into_iter().map(Into::into));
        self
    }
    /// From `start_ms` on, for `duration_ms`.
    fn span(self, start_ms: u64, duration_ms: Option<u64>) -> Self {
        let plan = if start_ms == 0 { self } else { self.before(["-ss".to_owned(), seconds(start_ms)]) };
        match duration_ms {
            Some(duration_ms) => plan.after(["-t".to_owned(), seconds(duration_ms)]),
            None => plan,
        }
    }
}

/// Children that may run beside each other, where so many are wanted.
fn places(wanted: usize) -> usize {
    wanted.clamp(1, MAX_CHILDREN)
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

impl Ffmpeg {
    pub fn new(config: Arc<Config>) -> Self {
        let permits = |count: usize| Arc::new(Semaphore::new(places(count)));
        let (still_permits, permits) = (permits(config.workers), permits(config.ffmpegs));
        Self { config, permits, still_permits }
    }

    /// The threads of a run that begins.
    fn share(&self) -> usize {
        let running = places(self.config.ffmpegs).saturating_sub(self.permits.available_permits()).max(1);
        (self.config.processors / running).min(self.config.ffmpeg_threads)
    }

    /// Starts a run as soon as there is room for it.
    async fn start(&self, input: &Arc<Input>, plan: Plan) -> Result<Run> {
        let config = &self.config;
        let Some(program) = &config.tools.ffmpeg else {
            let message =
                "files of this kind are decoded by `ffmpeg`, which is not there: run `strata models pull media_tools`";
            return Err(Error::Unavailable(message.to_owned()));
        };
        let (permits, processor_seconds, file_bytes) = match &plan.still {
            Some(bounds) => (&self.still_permits, STILL_CPU_SECONDS, bounds.file_bytes),
            None => (&self.permits, FFMPEG_CPU_SECONDS, MAX_MADE_FILE_BYTES),
        };
        let permit = Arc::clone(permits).acquire_owned().await.map_err(Error::internal)?;
        let threads = plan.still.as_ref().map_or_else(|| self.share(), |bounds| bounds.threads);
        let confinement = Confinement { memory_bytes: config.ffmpeg_memory_bytes, processor_seconds, file_bytes };
        let mut from = OsString::from("file:");
        from.push(&input.path);
        let threads = threads.clamp(1, 64).to_string();
        let mut command = pool::command(config);
        command
            .args(child::exec_arguments(confinement, program))
            .args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", if plan.chatty { "info" } else { "error" }])
            .args(["-filter_threads", "1", "-protocol_whitelist", "file,pipe"])
            .args(["-format_whitelist", input.demuxer, "-f", input.demuxer])
            .args(["-threads", &threads, "-max_pixels", &config.max_pixels.to_string()])
            .args(plan.before_input)
            .arg("-i")
            .arg(from)
            .args(["-sn", "-dn", "-map_metadata", "-1", "-map_chapters", "-1"])
            .args(plan.after_input)
            .stdin(Stdio::null());
        let mut child = command.spawn().map_err(|error| pool::cannot_start(config, error))?;
        let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::internal("`ffmpeg` has pipes"));
        };
        Ok(Run {
            child,
            output: BufReader::with_capacity(1 << 16, output),
            messages: Messages::of(errors),
            timeout: plan.timeout.unwrap_or(config.ffmpeg_timeout),
            memory_bytes: config.ffmpeg_memory_bytes,
            input: Arc::clone(input),
            _permit: permit,
        })
    }
}

/// One `ffmpeg` that runs. Dropping it ends it.
struct Run {
    child: Child,
    output: BufReader<ChildStdout>,
    messages: Messages,
    timeout: Duration,
    memory_bytes: u64,
    input: Arc<Input>,
    _permit: OwnedSemaphorePermit,
}

impl Run {
    /// Fills `buffer` from the output as far as there is some; less than its length only at the end.
    async fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match timeout(self.timeout, self.output.read(&mut buffer[filled..])).await {
                Ok(Ok(0)) => break,
                Ok(Ok(read)) => filled += read,
                Ok(Err(error)) => return Err(Error::internal(error)),
                Err(_) => return Err(self.hangs()),
            }
        }
        Ok(filled)
    }

    /// The next line of the output, without its end; `None` after the last.
    async fn line(&mut self) -> Result<Option<String>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.output).take(MAX_LINE_BYTES);
        match timeout(self.timeout, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) => Ok(None),
            Ok(Ok(_)) => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
            Ok(Err(error)) => Err(Error::internal(error)),
            Err(_) => Err(self.hangs()),
        }
    }

    fn hangs(&mut self) -> Error {
        let _ = self.child.start_kill();
        Error::TooLarge(format!("decoding was stopped after {} s without a result", self.timeout.as_secs_f32()))
    }

    /// Waits for the end. The error says why a run ended badly; the text is what it said.
    async fn finish(mut self) -> Result<String, Failure> {
        let waited = timeout(self.timeout, self.child.wait()).await;
        let Ok(Ok(status)) = waited else {
            return Err(Failure::limit("decoding does not end"));
        };
        let said = self.messages.last().await;
        if status.success() {
            return Ok(said);
        }
        let reason = reason(&said, &self.input.path);
        let out_of_memory = said.contains("Cannot allocate memory");
        if status.code().is_some() && !out_of_memory {
            return Err(Failure::file(format!("it cannot be decoded: {reason}")));
        }
        Err(pool::death("decoding", status, &said, self.memory_bytes))
    }

    /// The same, where an output that came is good enough: a file that is damaged towards its end.
    async fn finish_after(self, came: bool) -> Result<()> {
        match self.finish().await {
            Ok(_) if came => Ok(()),
            Ok(said) if said.is_empty() => Err(Error::invalid("file", "nothing in it could be decoded")),
            Ok(said) => Err(Error::invalid("file", format!("nothing in it could be decoded: {}", last_line(&said)))),
            Err(Failure { fault: Fault::File, .. }) if came => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// The last thing that `ffmpeg` said, without places in memory and on disk.
fn reason(said: &str, path: &std::path::Path) -> String {
    let without_path = said.replace(&format!("file:{}", path.display()), "the file");
    let lines: Vec<&str> = without_path.lines().map(message).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(3);
    if lines.is_empty() { "it gave no reason".to_owned() } else { lines[from..].join("; ") }
}

fn last_line(said: &str) -> &str {
    said.lines().map(message).rfind(|line| !line.is_empty()).unwrap_or("it gave no reason")
}

/// A message without the `[demuxer @ 0x55…]` before it, cut to a readable length.
fn message(line: &str) -> &str {
    let line = line.trim();
    let text = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((before, text)) if before.contains(" @ 0x") => text,
        _ => line,
    };
    match text.char_indices().nth(200) {
        Some((at, _)) => &text[..at],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_no_places() {
        let said = "[mov,mp4 @ 0x55d] moov atom not found\n[in#0 @ 0x5] Error opening input file file:/a/b.mp4.\n";
        let path = std::path::Path::new("/a/b.mp4");
        assert_eq!(reason(said, path), "moov atom not found; Error opening input file the file.");
        assert_eq!(reason("", path), "it gave no reason");
    }
}
