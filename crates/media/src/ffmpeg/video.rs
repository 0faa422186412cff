//! Frames of a video, and where its scenes change.

use super::{Ffmpeg, Input, Plan, Run, probe::Streams, seconds};
use crate::{
    decoder::{Decoder, Source, wrong_family},
    limits::{MAX_FRAME_TIMES, MAX_FRAMES, MAX_OUTPUT_SIDE},
    picture::{Encoding, Filter, Picture, Resize},
};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use strata_model::{Error, Result};

/// Most frames a second for which it does not matter which of two neighbours is taken.
const SPARSE: f64 = 1.0;

/// What frames are wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameRequest {
    pub sampling: FrameSampling,
    /// The size of each frame; of a video with oblong pixels they are made square first.
    pub size: Resize,
    pub filter: Filter,
}

/// Which frames are taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameSampling {
    /// So many a second from `start_ms` on, until `end_ms` or the end, at most `max_frames`. At one a second or fewer those
    /// are passed over that no other frame is made from: much of a film need not be decoded then, and what is taken lies
    /// some hundredths of a second beside the time.
    Rate { frames_per_second: f64, start_ms: u64, end_ms: Option<u64>, max_frames: u64 },
    /// The frame at each of these times in milliseconds, in this order. Each is looked for on its own, so for times close
    /// to each other a rate is faster.
    Times(Vec<u64>),
}

/// A frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Milliseconds from the beginning: the time that was asked for.
    pub time_ms: u64,
    /// RGB of eight bits.
    pub picture: Picture,
}

/// Frames as they are decoded. Dropping it ends the decoding.
pub struct FrameStream {
    decoder: Decoder,
    input: Arc<Input>,
    scale: Scale,
    source: FrameSource,
}

enum FrameSource {
    Rate { run: Option<Box<Run>>, start_ms: u64, frames_per_second: f64, made: u64, max_frames: u64 },
    Times { left: VecDeque<u64>, came: bool, failed: Option<Error> },
}

/// A change of scene.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SceneCut {
    /// Milliseconds from the beginning, of the first frame of the new scene.
    pub time_ms: u64,
    /// How much it differs from the frame before, 0 to 1.
    pub score: f64,
}

/// Frames of one size, and the filters that make them.
struct Scale {
    width: u32,
    height: u32,
    filters: String,
}

impl Decoder {
    /// Frames of the first video stream, or of an animated GIF.
    pub async fn frames(&self, source: &Source, request: &FrameRequest) -> Result<FrameStream> {
        check(&request.sampling)?;
        let kind = source.kind().await?;
        let input = Input::of_kind(source, kind).await?;
        let streams = self.ffmpeg().streams(&input, kind).await?;
        let scale = Scale::of(&streams, request.size, request.filter)?;
        let source = match &request.sampling {
            FrameSampling::Rate { frames_per_second, start_ms, end_ms, max_frames } => {
                let duration_ms = end_ms.map(|end_ms| end_ms.saturating_sub(*start_ms));
                let filters = format!("fps={frames_per_second},{}", scale.filters);
                let frames = max_frames.to_string();
                let plan = frame_plan(&filters).span(*start_ms, duration_ms).after(["-frames:v", &frames]);
                let plan = if *frames_per_second > SPARSE { plan } else { plan.before(["-skip_frame", "noref"]) };
                let run = Some(Box::new(self.ffmpeg().start(&input, rgb_to_pipe(plan)).await?));
                let (start_ms, frames_per_second, max_frames) = (*start_ms, *frames_per_second, *max_frames);
                FrameSource::Rate { run, start_ms, frames_per_second, made: 0, max_frames }
            }
            FrameSampling::Times(times) => {
                FrameSource::Times { left: times.iter().copied().collect(), came: false, failed: None }
            }
        };
        Ok(FrameStream { decoder: self.clone(), input, scale, source })
    }

    /// Where scenes change: frames that differ from the one before by more than `threshold`, 0 to 1 (0.3 to 0.4 finds
    /// cuts), by the measure of `ffmpeg`'s `scene`.
    pub async fn scene_cuts(&self, source: &Source, threshold: f64) -> Result<Vec<SceneCut>> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::invalid("threshold", "must be 0 to 1"));
        }
        let kind = source.kind().await?;
        let input = Input::of_kind(source, kind).await?;
        // Every frame is told, so that a run that is silent hangs.
        let filters = "select='gte(scene,0)',metadata=mode=print:file=-";
        let plan = frame_plan(filters).after(["-f", "null", "-"]);
        let mut run = self.ffmpeg().start(&input, plan).await?;
        let (mut cuts, mut time_ms, mut came) = (Vec::new(), None, false);
        while let Some(line) = run.line().await? {
            if let Some((_, time)) = line.split_once("pts_time:") {
                time_ms = time.trim().parse::<f64>().ok().map(|t| (t.clamp(0.0, 1e12) * 1000.0).round() as u64);
                came = true;
            } else if let (Some(score), Some(time_ms)) = (line.strip_prefix("lavfi.scene_score="), time_ms)
                && let Ok(score) = score.parse::<f64>()
                && score > threshold
                && cuts.len() < MAX_FRAMES as usize
            {
                cuts.push(SceneCut { time_ms, score });
            }
        }
        if let Err(error) = run.finish_after(came).await {
            let has_none = error.to_string().contains("matches no streams");
            return Err(if has_none { wrong_family(kind, "video") } else { error });
        }
        Ok(cuts)
    }
}

fn check(sampling: &FrameSampling) -> Result<()> {
    match sampling {
        FrameSampling::Rate { frames_per_second, max_frames, .. } => {
            if !(0.001..=1000.0).contains(frames_per_second) {
                return Err(Error::invalid("frames_per_second", "must be 0.001 to 1,000"));
            }
            if !(1..=MAX_FRAMES).contains(max_frames) {
                return Err(Error::invalid("max_frames", format!("must be 1 to {MAX_FRAMES}")));
            }
        }
        FrameSampling::Times(times) if times.len() > MAX_FRAME_TIMES => {
            return Err(Error::invalid("times", format!("must be {MAX_FRAME_TIMES} at most")));
        }
        FrameSampling::Times(_) => {}
    }
    Ok(())
}

fn frame_plan(filters: &str) -> Plan {
    Plan::default().before(["-an"]).after(["-map", "0:V:0", "-vf", filters])
}

fn rgb_to_pipe(plan: Plan) -> Plan {
    plan.after(["-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"])
}

impl Scale {
    /// All frames get this size, also those of a stream that changes its own.
    fn of(streams: &Streams, size: Resize, filter: Filter) -> Result<Self> {
        let Some((shown_width, shown_height)) = streams.shown else {
            return Err(wrong_family(streams.probe.kind, "video"));
        };
        let flags = match filter {
            Filter::Bilinear => "bilinear",
            Filter::Bicubic | Filter::Hamming => "bicubic",
            Filter::Lanczos3 => "lanczos",
        };
        let side = |side: f64| side.round().max(1.0) as u32;
        let (wide, high) = (f64::from(shown_width), f64::from(shown_height));
        let (inner, (width, height)) = match size {
            Resize::Original => ((shown_width, shown_height), (shown_width, shown_height)),
            Resize::Exact { width, height } => ((width, height), (width, height)),
            Resize::Fit { width, height } => {
                let scale = (f64::from(width) / wide).min(f64::from(height) / high).min(1.0);
                let fitted = (side(wide * scale), side(high * scale));
                (fitted, fitted)
            }
            Resize::Cover { width, height } => {
                let scale = (f64::from(width) / wide).max(f64::from(height) / high);
                ((side(wide * scale).max(width), side(high * scale).max(height)), (width, height))
            }
        };
        if !(1..=MAX_OUTPUT_SIDE).contains(&width) || !(1..=MAX_OUTPUT_SIDE).contains(&height) {
            let message =
                format!("frames of {width} x {height} pixels are not made; at most {MAX_OUTPUT_SIDE} a side are");
            return Err(Error::TooLarge(message));
        }
        let mut filters = format!("scale={}:{}:flags={flags}", inner.0, inner.1);
        if inner != (width, height) {
            filters.push_str(&format!(",crop={width}:{height}"));
        }
        Ok(Self { width, height, filters })
    }

    fn bytes(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }

    fn picture(&self, bytes: Vec<u8>) -> Picture {
        Picture { width: self.width, height: self.height, encoding: Encoding::Rgb8, bytes }
    }
}

impl FrameStream {
    /// The next frame; `None` after the last. A time at which the video has no frame is left out.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        let Self { decoder, input, scale, source } = self;
        match source {
            FrameSource::Rate { run, start_ms, frames_per_second, made, max_frames } => {
                let Some(mut running) = run.take() else { return Ok(None) };
                let mut bytes = vec![0; scale.bytes()];
                let filled = running.fill(&mut bytes).await?;
                if filled < bytes.len() || *made >= *max_frames {
                    running.finish_after(*made > 0).await?;
                    return Ok(None);
                }
                let time_ms = *start_ms + (*made as f64 * 1000.0 / *frames_per_second).round() as u64;
                *made += 1;
                *run = Some(running);
                Ok(Some(Frame { time_ms, picture: scale.picture(bytes) }))
            }
            FrameSource::Times { left, came, failed } => {
                while let Some(time_ms) = left.pop_front() {
                    match one(decoder.ffmpeg(), input, scale, time_ms).await {
                        Ok(picture) => {
                            *came = true;
                            return Ok(Some(Frame { time_ms, picture }));
                        }
                        Err(error @ Error::Invalid(_)) => *failed = Some(error),
                        Err(error) => return Err(error),
                    }
                }
                match failed.take() {
                    Some(error) if !*came => Err(error),
                    _ => Ok(None),
                }
            }
        }
    }
}

/// The frame at `time_ms`.
async fn one(ffmpeg: &Ffmpeg, input: &Arc<Input>, scale: &Scale, time_ms: u64) -> Result<Picture> {
    let plan = frame_plan(&scale.filters).span(time_ms, None).after(["-frames:v", "1"]);
    let mut run = ffmpeg.start(input, rgb_to_pipe(plan)).await?;
    let mut bytes = vec![0; scale.bytes()];
    let filled = run.fill(&mut bytes).await?;
    let whole = filled == bytes.len();
    run.finish_after(whole).await.map_err(|error| match error {
        Error::Invalid(_) => Error::invalid("file", format!("there is no frame at {} s", seconds(time_ms))),
        other => other,
    })?;
    Ok(scale.picture(bytes))
}
