//! Looking into a container without decoding it. The streams' facts come from `framecrc`, the list of packets that `ffmpeg`
//! writes for its own tests, whose form is fixed; what that does not say (duration, frame rate, rotation) is read from the
//! description of the input, of which only lines that metadata cannot forge are looked at.

use super::{Ffmpeg, Input, Plan};
use crate::{
    decoder::Source,
    detect::{Family, MediaKind},
    fault::{Failure, Fault},
    limits::MAX_OUTPUT_LINES,
    probe::Probe,
};
use std::{collections::HashMap, sync::Arc};
use strata_model::{Error, Result};

/// What a look into a file tells.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub probe: Probe,
    /// Pixels of a frame as it is shown: after rotation, with square pixels.
    pub shown: Option<(u32, u32)>,
}

impl Ffmpeg {
    pub async fn probe(&self, source: &Source, kind: MediaKind) -> Result<Probe> {
        let input = Input::of_kind(source, kind).await?;
        Ok(self.streams(&input, kind).await?.probe)
    }

    /// Streams of `input`. The packets are read to the end only where the container does not tell its duration.
    pub(super) async fn streams(&self, input: &Arc<Input>, kind: MediaKind) -> Result<Streams> {
        let (listing, said) = self.list(input, Some("4")).await?;
        let mut streams = describe(kind, &listing, &said);
        if streams.probe.video_codec.is_none() && streams.probe.audio_codec.is_none() {
            return Err(Error::invalid("file", "it holds neither sound nor video that is known"));
        }
        if streams.probe.duration_ms.is_none() {
            let (listing, _) = self.list(input, None).await?;
            streams.probe.duration_ms = Some(listing.end_ms);
        }
        Ok(streams)
    }

    /// The packets of the first video and the first audio stream, at most `packets` of each.
    async fn list(&self, input: &Arc<Input>, packets: Option<&str>) -> Result<(Listing, String)> {
        let mut plan =
            Plan { chatty: true, ..Plan::default() }.after(["-map", "0:V:0?", "-map", "0:a:0?", "-c", "copy"]);
        if let Some(packets) = packets {
            plan = plan.after(["-frames:v", packets, "-frames:a", packets]);
        }
        let mut run = self.start(input, plan.after(["-f", "framecrc", "pipe:1"])).await?;
        let mut listing = Listing::default();
        while let Some(line) = run.line().await? {
            listing.take(&line);
            if packets.is_some() && listing.packets as usize > MAX_OUTPUT_LINES {
                return Err(Error::TooLarge("the file has too many packets".to_owned()));
            }
        }
        let path = input.path.clone();
        match run.finish().await {
            Ok(said) => Ok((listing, said)),
            Err(Failure { fault: Fault::File, reason }) => Err(Error::invalid("file", without_input(&reason, &path))),
            Err(failure) => Err(failure.into()),
        }
    }
}

/// The description of the input that a chatty run leaves before its error.
fn without_input(reason: &str, path: &std::path::Path) -> String {
    reason.replace(&format!("'file:{}'", path.display()), "the file")
}

/// What `framecrc` says: properties of streams by their number, and the packets.
#[derive(Debug, Default)]
struct Listing {
    properties: HashMap<(String, u8), String>,
    packets: u64,
    /// Where the last packet ends.
    end_ms: u64,
}

impl Listing {
    fn take(&mut self, line: &str) {
        if let Some(property) = line.strip_prefix('#') {
            if let Some((name, value)) = property.split_once(": ")
                && let Some((name, stream)) = name.rsplit_once(' ')
                && let Ok(stream @ 0..2) = stream.parse()
            {
                self.properties.entry((name.to_owned(), stream)).or_insert_with(|| value.trim().to_owned());
            }
            return;
        }
        let mut fields = line.split(',').map(str::trim);
        let stream = fields.next().and_then(|f| f.parse::<u8>().ok());
        let (decode, show) = (fields.next().and_then(|f| f.parse::<i64>().ok()), fields.next());
        let show = show.and_then(|f| f.parse::<i64>().ok()).filter(|t| *t > i64::MIN / 2);
        let duration = fields.next().and_then(|f| f.parse::<i64>().ok()).unwrap_or(0);
        let (Some(stream), Some(at)) = (stream, show.or(decode)) else { return };
        self.packets += 1;
        if let Some((above, below)) = self.get("tb", stream).and_then(|tb| ratio(tb, '/')) {
            let end = (at.saturating_add(duration)) as f64 * above / below * 1000.0;
            self.end_ms = self.end_ms.max(end.clamp(0.0, 1e15) as u64);
        }
    }

    fn get(&self, name: &str, stream: u8) -> Option<&str> {
        self.properties.get(&(name.to_owned(), stream)).map(String::as_str)
    }
}

fn ratio(text: &str, by: char) -> Option<(f64, f64)> {
    let (above, below) = text.split_once(by)?;
    let (above, below) = (above.trim().parse::<f64>().ok()?, below.trim().parse::<f64>().ok()?);
    (above > 0.0 && below > 0.0).then_some((above, below))
}

fn describe(kind: MediaKind, listing: &Listing, said: &str) -> Streams {
    let mut probe = Probe::of(kind);
    let described = Description::of(said);
    let mut shown = None;
    for stream in 0..2 {
        let codec = listing.get("codec_id", stream).map(str::to_owned);
        match listing.get("media_type", stream) {
            Some("video") => {
                probe.video_codec = codec;
                let size = listing.get("dimensions", stream).and_then(|d| ratio(d, 'x'));
                let Some((width, height)) = size.map(|(w, h)| (w as u32, h as u32)) else { continue };
                let pixel = listing.get("sar", stream).and_then(|s| ratio(s, '/')).map_or(1.0, |(a, b)| a / b);
                let wide = (f64::from(width) * pixel).round().clamp(1.0, 1e6) as u32;
                let turned = described.turned;
                (probe.width, probe.height) =
                    if turned { (Some(height), Some(width)) } else { (Some(width), Some(height)) };
                shown = Some(if turned { (height, wide) } else { (wide, height) });
                probe.frames_per_second = described.frames_per_second;
            }
            Some("audio") => {
                probe.audio_codec = codec;
                probe.has_audio = true;
                probe.sample_rate = listing.get("sample_rate", stream).and_then(|rate| rate.parse().ok());
                probe.channels = listing.get("channel_layout_name", stream).and_then(channels).or(described.channels);
            }
            _ => {}
        }
    }
    probe.duration_ms = described.duration_ms;
    if kind != MediaKind::Gif {
        probe.family = if probe.video_codec.is_some() { Family::Video } else { Family::Audio };
    }
    Streams { probe, shown }
}

/// Channels of a layout: `mono`, `stereo`, `5.1(side)`, `3 channels`.
fn channels(layout: &str) -> Option<u32> {
    match layout {
        "mono" => return Some(1),
        "stereo" | "downmix" => return Some(2),
        "quad" | "quad(side)" => return Some(4),
        "hexagonal" => return Some(6),
        "octagonal" | "cube" => return Some(8),
        _ => {}
    }
    if let Some(count) = layout.split(" channels").next().and_then(|count| count.parse().ok()) {
        return Some(count);
    }
    let digits = layout.split('(').next()?;
    let counts: Option<Vec<u32>> = digits.split('.').map(|digit| digit.parse().ok()).collect();
    counts.map(|counts| counts.iter().sum())
}

/// What the description of the input says. Its lines begin with a fixed indent; values of metadata, which come from the
/// file, stand behind a longer one, and their own line ends are written as a new indented line.
#[derive(Debug, Default, PartialEq)]
struct Description {
    duration_ms: Option<u64>,
    frames_per_second: Option<f64>,
    turned: bool,
    channels: Option<u32>,
}

impl Description {
    fn of(said: &str) -> Self {
        let mut made = Self::default();
        let mut in_video = false;
        let input = said.lines().skip_while(|l| !l.starts_with("Input #0")).skip(1);
        for line in input.take_while(|l| l.starts_with(' ')) {
            if let Some(duration) = line.strip_prefix("  Duration: ") {
                made.duration_ms = duration.split(',').next().and_then(clock_ms);
            } else if line.starts_with("  Stream #0:") {
                in_video =
                    line.contains(": Video: ") && made.frames_per_second.is_none() && !line.contains("(attached pic)");
                let part = |ends: &str| line.split(", ").find_map(|p| p.trim().strip_suffix(ends)?.parse::<f64>().ok());
                if in_video {
                    made.frames_per_second = part(" fps").or_else(|| part(" tbr")).map(exact_rate);
                } else if line.contains(": Audio: ") && made.channels.is_none() {
                    made.channels = line.split(", ").find_map(|p| p.trim().strip_suffix(" channels")?.parse().ok());
                }
            } else if in_video
                && let Some(turn) = line.strip_prefix("      Display Matrix: rotation of ").or_else(|| {
                    line.trim_start().strip_prefix("displaymatrix: rotation of ").filter(|_| line.starts_with("      "))
                })
            {
                let degrees = turn.split(' ').next().and_then(|d| d.parse::<f64>().ok()).unwrap_or(0.0);
                made.turned = (degrees.abs() - 90.0).abs() < 1.0 || (degrees.abs() - 270.0).abs() < 1.0;
            }
        }
        made
    }
}

/// Rates that are printed with two digits, as what they are.
fn exact_rate(printed: f64) -> f64 {
    let ntsc = [(23.98, 24.0), (29.97, 30.0), (47.95, 48.0), (59.94, 60.0), (119.88, 120.0)];
    match ntsc.iter().find(|(as_printed, _)| (printed - as_printed).abs() < 0.001) {
        Some((_, whole)) => whole * 1000.0 / 1001.0,
        None => printed,
    }
}

/// `01:02:03.45` in milliseconds; `None` for `N/A`.
fn clock_ms(text: &str) -> Option<u64> {
    let mut parts = text.trim().split(':');
    let (hours, minutes, seconds) = (parts.next()?, parts.next()?, parts.next()?);
    let (hours, minutes) = (hours.parse::<u64>().ok()?, minutes.parse::<u64>().ok()?);
    let seconds = seconds.parse::<f64>().ok().filter(|s| s.is_finite() && *s >= 0.0)?;
    Some((hours.checked_mul(3600)? + minutes * 60).checked_mul(1000)? + (seconds * 1000.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:/x.mp4':
  Metadata:
    title           : a
                    :   Duration: 99:00:00.00, start
  Duration: 00:01:02.50, start: 0.000000, bitrate: 818 kb/s
  Stream #0:0[0x1](und): Video: h264 (High) (avc1 / 0x31637661), yuv420p, 1280x720, 1205 kb/s, 29.97 fps, 29.97 tbr, 12800 tbn (default)
      Metadata:
        handler_name    : V
      Side data:
        displaymatrix: rotation of -90.00 degrees
  Stream #0:1: Audio: aac (LC), 48000 Hz, 3 channels, fltp
Stream mapping:
";

    #[test]
    fn a_description_is_read_and_metadata_is_not_believed() {
        let description = Description::of(SAID);
        assert_eq!(description.duration_ms, Some(62_500));
        assert!((description.frames_per_second.unwrap() - 29.97003).abs() < 1e-4);
        assert!(description.turned);
        assert_eq!(description.channels, Some(3));
    }

    #[test]
    fn packets_give_streams_and_an_end() {
        let mut listing = Listing::default();
        let text = "#software: x\n#tb 0: 1/10\n#media_type 0: video\n#codec_id 0: h264\n#dimensions 0: 720x576\n\
                    #sar 0: 16/11\n#tb 1: 1/8000\n#media_type 1: audio\n#codec_id 1: aac\n#sample_rate 1: 8000\n\
                    #channel_layout_name 1: 5.1(side)\n0, 0, 0, 1, 10, 0x0\n0, 8, -9223372036854775808, 2, 10, 0x0\n";
        text.lines().for_each(|line| listing.take(line));
        assert_eq!((listing.packets, listing.end_ms), (2, 1000));
        let streams = describe(MediaKind::Mp4, &listing, SAID);
        assert_eq!(streams.shown, Some((576, 1047)));
        assert_eq!((streams.probe.width, streams.probe.height), (Some(576), Some(720)));
        assert_eq!((streams.probe.channels, streams.probe.sample_rate), (Some(6), Some(8000)));
    }

    #[test]
    fn odd_lines_do_no_harm() {
        let mut listing = Listing::default();
        for line in ["", "#", "#tb 0: 0/0", "0, 9223372036854775807, 9223372036854775807, 9223372036854775807, 1", "x"]
        {
            listing.take(line);
        }
        assert_eq!(listing.end_ms, 0);
        assert_eq!(Description::of("Input #0\n  Duration: N/A, x\n  Stream #0:0: Video: "), Description::default());
        assert_eq!(clock_ms("99999999999999999999:00:00"), None);
    }
}
