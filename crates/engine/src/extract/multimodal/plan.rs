//! Where a recording is cut: what is known of it, and its segments.

use super::super::{Span, parameters::Read};
use strata_media::{
    Decoder, Family, Probe, SilenceRequest, Source,
    segments::{self as cutting, Segment, SplitBy},
};
use strata_model::{Error, Result, limits};

/// Shortest segment in milliseconds, where it can be joined with another.
const SHORTEST_MS: u64 = 500;
/// Shortest pause that a segment may end in, in milliseconds.
const SHORTEST_PAUSE_MS: u64 = 400;

/// A video or a recording, and the part of it that is meant.
pub struct Recording {
    pub source: Source,
    pub probe: Probe,
    pub start_ms: u64,
    pub end_ms: u64,
}

impl Recording {
    /// Looks into a file.
    pub async fn open(media: &Decoder, source: Source, span: &Span) -> Result<Self> {
        let probe = media.probe(&source).await?;
        let Some(duration_ms) = probe.duration_ms.filter(|duration| *duration > 0) else {
            return Err(Error::invalid("file", "says of no length how long it is, or is empty"));
        };
        let (start_ms, end_ms) = span.milliseconds();
        let end_ms = end_ms.map_or(duration_ms, |end| end.min(duration_ms));
        if start_ms >= end_ms {
            let message = format!("has {duration_ms} ms; the part that is meant begins at {start_ms}");
            return Err(Error::invalid("file", message));
        }
        Ok(Self { source, probe, start_ms, end_ms })
    }

    pub fn has_pictures(&self) -> bool {
        self.probe.family == Family::Video
    }
}

/// The segments of a recording by the splitting parameters, in milliseconds from its beginning.
pub async fn segments(media: &Decoder, recording: &Recording, parameters: &Read<'_>) -> Result<Vec<Segment>> {
    let Recording { source, start_ms, end_ms, .. } = recording;
    let within = |time: u64| time > *start_ms && time < *end_ms;
    let max_ms = (parameters.number("max_segment_duration").unwrap_or(30.0) * 1000.0) as u64;
    let duration_ms = end_ms - start_ms;
    let planned = match parameters.text("split_method").unwrap_or("time") {
        // Sound alone has no scenes.
        "scene" if recording.has_pictures() => {
            let usual = match parameters.text("sensitivity") {
                Some("high") => 0.15,
                Some("medium") => 0.25,
                _ => 0.35,
            };
            let threshold = parameters.number("scene_detection_threshold").unwrap_or(usual);
            let mut cuts = media.scene_cuts(source, threshold).await?;
            cuts.retain(|cut| within(cut.time_ms));
            cuts.iter_mut().for_each(|cut| cut.time_ms -= start_ms);
            cutting::plan(duration_ms, &SplitBy::Scenes(&cuts), SHORTEST_MS.min(max_ms), max_ms)?
        }
        "silence" | "scene" if recording.probe.has_audio || recording.probe.family == Family::Audio => {
            let noise_db = parameters.number("silence_db_threshold").unwrap_or(-40.0);
            let request = SilenceRequest { noise_db, min_duration_ms: SHORTEST_PAUSE_MS };
            let mut pauses = media.silences(source, request).await?;
            pauses.retain(|pause| within(pause.start_ms));
            for pause in &mut pauses {
                pause.start_ms -= start_ms;
                pause.end_ms = pause.end_ms.map(|end| end.min(*end_ms) - start_ms);
            }
            cutting::plan(duration_ms, &SplitBy::Silences(&pauses), SHORTEST_MS.min(max_ms), max_ms)?
        }
        _ => {
            // An interval that is asked for goes before the usual bound.
            let interval_ms = parameters.integer("time_split_interval").unwrap_or(10) * 1000;
            let longest = max_ms.max(interval_ms);
            cutting::plan(duration_ms, &SplitBy::Time { interval_ms }, SHORTEST_MS.min(interval_ms), longest)?
        }
    };
    if planned.len() > limits::MAX_DERIVED_DOCUMENTS {
        let message = format!("{} segments; one input makes {}", planned.len(), limits::MAX_DERIVED_DOCUMENTS);
        return Err(Error::TooLarge(message));
    }
    let moved = |segment: Segment| Segment { start_ms: segment.start_ms + start_ms, end_ms: segment.end_ms + start_ms };
    Ok(planned.into_iter().map(moved).collect())
}
