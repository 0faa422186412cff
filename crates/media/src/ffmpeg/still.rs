//! The pixels of stills. They go into a scratch file, since a worker of ours makes of them what is wanted: a picture is
//! scaled and cut in the same way whoever has decoded it.

use super::{Ffmpeg, Input, Plan, Run, StillBounds, message};
use crate::{
    decoder::{Source, wrong_family},
    detect::MediaKind,
    fault::{Failure, Fault},
    image::still::{Layer, Still},
    limits::MIN_STILL_FILE_BYTES,
    pool,
};
use std::{ffi::OsString, path::Path, process::ExitStatus};
use strata_model::{Error, Result};
use tempfile::NamedTempFile;
use tokio::time::timeout;

impl Ffmpeg {
    /// A file of `width * height * 4` bytes: RGBA, row by row from the top. It is gone with the value. Nothing damaged is made
    /// up for: a still that lacks a part is [`Error::Invalid`].
    pub async fn pixels(&self, source: &Source, kind: MediaKind, still: &Still) -> Result<NamedTempFile> {
        let demuxer = kind.still_demuxer().ok_or_else(|| wrong_family(kind, "image"))?;
        let input = Input::read_by(demuxer, source).await?;
        let file = tokio::task::spawn_blocking(NamedTempFile::new).await.map_err(Error::internal)?;
        let file = file.map_err(|error| Error::internal(format!("a scratch file cannot be written: {error}")))?;
        let mut to = OsString::from("file:");
        to.push(file.path());
        let plan = plan(kind, still, self.config.ffmpeg_threads)
            .after(["-map", "[o]", "-frames:v", "1", "-f", "rawvideo", "-y"])
            .after([to]);
        let plan = Plan { timeout: Some(self.config.worker_timeout), ..plan };
        self.start(&input, plan).await?.end(kind).await?;
        Ok(file)
    }
}

fn plan(kind: MediaKind, still: &Still, threads: usize) -> Plan {
    // Each of many tiles has a decoder of its own, all at once.
    let threads = if matches!(kind, MediaKind::Heif | MediaKind::Avif) { 1 } else { threads };
    let file_bytes = (u64::from(still.width) * u64::from(still.height) * 4).max(MIN_STILL_FILE_BYTES);
    let plan = Plan { still: Some(StillBounds { threads, file_bytes }), ..Plan::default() };
    let plan = plan.before(["-xerror", "-err_detect", "explode"]).after(["-filter_complex".to_owned(), filters(still)]);
    match kind {
        MediaKind::Svg => {
            plan.before(["-width".to_owned(), still.width.to_string(), "-height".to_owned(), still.height.to_string()])
        }
        _ => plan,
    }
}

/// The filters that make RGBA of exactly the size that the file says. It is that already, but for a last odd row or column:
/// those are cut off in pairs where colours are stored for pairs.
fn filters(still: &Still) -> String {
    let sized = |layer: Layer, format: &str| {
        let name = match layer {
            Layer::Only => "0:v:0".to_owned(),
            Layer::Item(id) => format!("0:i:{id}"),
            Layer::Grid(number) => format!("0:g:{number}"),
        };
        format!("[{name}]scale={}:{},format={format}", still.width, still.height)
    };
    let picture = sized(still.picture, "rgba");
    match still.alpha {
        None => format!("{picture}[o]"),
        Some(alpha) => {
            format!("{picture}[c];{}[a];[c][a]alphamerge,format=rgba[o]", sized(alpha, "gray"))
        }
    }
}

impl Run {
    /// Waits for the end of a run that says nothing on the way.
    async fn end(mut self, kind: MediaKind) -> Result<()> {
        let waited = timeout(self.timeout, self.child.wait()).await;
        let Ok(Ok(status)) = waited else {
            return Err(self.hangs());
        };
        let said = self.messages.last().await;
        if status.success() {
            return Ok(());
        }
        Err(failure(kind, status, &said, &self.input.path, self.memory_bytes))
    }
}

/// What a run that ended badly says about the file.
fn failure(kind: MediaKind, status: ExitStatus, said: &str, path: &Path, memory_bytes: u64) -> Error {
    let said = said.replace(&format!("file:{}", path.display()), "the file");
    let media_type = kind.media_type();
    let has = |words: &str| said.contains(words);
    if has("Unknown input format") || has("no decoder found for: jpegxl") || has("no decoder found for: svg") {
        let message = format!("this `ffmpeg` does not decode `{media_type}`: run `strata models pull media_tools`");
        return Error::Unavailable(message);
    }
    if has("No space left on device") {
        return Error::internal("a scratch file cannot be written: the disk is full");
    }
    if has("NoMemory") || has("Resource temporarily unavailable") {
        let mebibytes = memory_bytes >> 20;
        return Failure::limit(format!("decoding takes more memory than the {mebibytes} MiB it may have")).into();
    }
    if status.code().is_none() || has("Cannot allocate memory") {
        let death = pool::death("decoding", status, &said, memory_bytes);
        // One that crashes over a damaged file has mostly said before what is wrong.
        if death.fault == Fault::Limit || said.is_empty() {
            return death.into();
        }
    }
    let reason = first(&said);
    let failed = format!("`{media_type}` cannot be decoded: {reason}");
    // So it says of more pixels than it may decode.
    let is_too_large = reason.contains("Picture size");
    if is_too_large { Failure::limit(failed).into() } else { Failure::file(failed).into() }
}

/// The first thing that was said of the file; the others follow from it.
fn first(said: &str) -> &str {
    let mut lines = said.lines().map(bare);
    lines.find(|line| !line.is_empty() && !line.starts_with("Fontconfig")).unwrap_or("it gave no reason")
}

/// A message without the parts of `ffmpeg` before it.
fn bare(line: &str) -> &str {
    let text = message(line);
    if text.len() == line.len() { text } else { bare(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(picture: Layer, alpha: Option<Layer>) -> Still {
        Still { width: 64, height: 32, picture, alpha }
    }

    #[test]
    fn filters_name_the_pictures() {
        assert_eq!(filters(&still(Layer::Only, None)), "[0:v:0]scale=64:32,format=rgba[o]");
        assert_eq!(filters(&still(Layer::Grid(1), None)), "[0:g:1]scale=64:32,format=rgba[o]");
        assert_eq!(
            filters(&still(Layer::Item(1), Some(Layer::Item(2)))),
            "[0:i:1]scale=64:32,format=rgba[c];[0:i:2]scale=64:32,format=gray[a];[c][a]alphamerge,format=rgba[o]"
        );
    }

    #[test]
    fn the_first_message_is_the_reason() {
        let said = "Fontconfig error: no file\n[libjxl @ 0x5] Unexpected end\n[vist#0:0/jpegxl @ 0x5] Task finished\n";
        assert_eq!(first(said), "Unexpected end");
        assert_eq!(first("[vist#0:0/svg @ 0x5] [dec:librsvg @ 0x6] Not drawn"), "Not drawn");
        assert_eq!(first(""), "it gave no reason");
    }
}
