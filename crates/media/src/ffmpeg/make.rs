//! Making files of videos: cutting a part out, and encoding anew.

use super::{Input, Plan};
use crate::{
    decoder::{Decoder, Source},
    limits::MAX_OUTPUT_SIDE,
};
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, path::Path, time::Duration};
use strata_model::{Error, Result};

/// The encoding of a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VideoCodec {
    H264,
    H265,
}

/// How a video is encoded anew, into MP4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcode {
    pub codec: VideoCodec,
    /// Constant rate factor, 0 (lossless) to 51; 23 is usual.
    pub crf: u8,
    /// `ultrafast` to `veryslow`.
    pub preset: String,
    /// Longest width and height in pixels; a larger video is scaled down. `None` keeps its size.
    pub max_resolution: Option<(u32, u32)>,
    /// Kilobits a second of AAC sound; `None` leaves sound out.
    pub audio_kilobits: Option<u32>,
}

impl Default for Transcode {
    fn default() -> Self {
        Self {
            codec: VideoCodec::H264,
            crf: 23,
            preset: "veryfast".to_owned(),
            max_resolution: None,
            audio_kilobits: Some(128),
        }
    }
}

const PRESETS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];
/// Encoding may look ahead for long without writing.
const TIMEOUT: Duration = Duration::from_secs(3600);

impl Decoder {
    /// Writes the part from `start_ms` on, `duration_ms` long, as MP4 to `to`. Streams that MP4 takes are copied, so the
    /// part begins at the key frame before; others are encoded anew.
    pub async fn cut(&self, source: &Source, start_ms: u64, duration_ms: u64, to: &Path) -> Result<()> {
        let kind = source.kind().await?;
        let input = Input::of_kind(source, kind).await?;
        let probe = self.ffmpeg().streams(&input, kind).await?.probe;
        let video_fits =
            probe.video_codec.as_deref().is_none_or(|c| matches!(c, "h264" | "hevc" | "av1" | "mpeg4" | "vp9"));
        let audio_fits = probe.audio_codec.as_deref().is_none_or(|c| matches!(c, "aac" | "mp3" | "ac3" | "opus"));
        if !(video_fits && audio_fits) {
            return self.encode(source, Some((start_ms, duration_ms)), &Transcode::default(), to).await;
        }
        let plan = Plan { timeout: Some(TIMEOUT), ..Plan::default() }.span(start_ms, Some(duration_ms)).after([
            "-map",
            "0:V:0?",
            "-map",
            "0:a:0?",
            "-c",
            "copy",
            "-avoid_negative_ts",
            "make_zero",
        ]);
        self.write(&input, plan, to).await
    }

    /// Encodes a whole video anew, as MP4 to `to`.
    pub async fn transcode(&self, source: &Source, how: &Transcode, to: &Path) -> Result<()> {
        self.encode(source, None, how, to).await
    }

    async fn encode(&self, source: &Source, part: Option<(u64, u64)>, how: &Transcode, to: &Path) -> Result<()> {
        if !PRESETS.contains(&how.preset.as_str()) {
            return Err(Error::invalid("preset", format!("must be one of {}", PRESETS.join(", "))));
        }
        if how.crf > 51 {
            return Err(Error::invalid("crf", "must be 0 to 51"));
        }
        let (width, height) = how.max_resolution.unwrap_or((MAX_OUTPUT_SIDE, MAX_OUTPUT_SIDE));
        if width < 2 || height < 2 {
            return Err(Error::invalid("max_resolution", "must be 2 or more a side"));
        }
        let input = Input::of(source).await?;
        let encoder = match how.codec {
            VideoCodec::H264 => "libx264",
            VideoCodec::H265 => "libx265",
        };
        // Encoders want even sides.
        let filter = format!(
            "scale=w='min(iw,{width})':h='min(ih,{height})':force_original_aspect_ratio=decrease:force_divisible_by=2"
        );
        let (start_ms, duration_ms) = part.map_or((0, None), |(start, duration)| (start, Some(duration)));
        let mut plan = Plan { timeout: Some(TIMEOUT), ..Plan::default() }
            .span(start_ms, duration_ms)
            .after(["-map", "0:V:0?", "-c:v", encoder, "-crf", &how.crf.to_string(), "-preset", &how.preset])
            .after(["-vf", &filter, "-pix_fmt", "yuv420p"]);
        plan = match how.audio_kilobits {
            Some(rate) => plan.after(["-map", "0:a:0?", "-c:a", "aac", "-b:a", &format!("{}k", rate.clamp(8, 512))]),
            None => plan.after(["-an"]),
        };
        self.write(&input, plan, to).await
    }

    async fn write(&self, input: &std::sync::Arc<Input>, plan: Plan, to: &Path) -> Result<()> {
        let mut file = OsString::from("file:");
        file.push(std::path::absolute(to).map_err(Error::internal)?);
        let plan = plan.after(["-movflags", "+faststart", "-f", "mp4", "-y"]).after([file]);
        let run = self.ffmpeg().start(input, plan).await?;
        run.finish().await?;
        Ok(())
    }
}
