//! Recorded lessons: a document for each segment with what is said in it and what is written on the screen, and one for each
//! screen that shows something new.

use super::super::{
    InputFile, Output, Span,
    image::{keep_thumbnail, stem},
    multimodal::{Recording, listen, text_in, thumbnail},
    parameters::Read,
    streams,
};
use super::{
    check_count, file_key,
    subtitles::{self, Cue},
};
use crate::Engine;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use strata_media::{
    Filter, FrameRequest, FrameSampling, Resize, SceneCut,
    limits::{MAX_FRAME_TIMES, THUMBNAIL_SIDE},
    segments::{self as cutting, Segment, SplitBy},
};
use strata_model::{Error, Result};

/// Frames that are read beside each other.
const READINGS_AT_ONCE: usize = 4;
/// Longest side of frames in which text is read, in pixels.
const READING_SIDE: u32 = 1280;

/// What is wanted of a recording.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    pub method: &'a str,
    pub min_ms: u64,
    pub target_ms: u64,
    pub scene_threshold: f64,
    /// The model that listens, where there are no subtitles.
    pub speech_model: Option<&'a str>,
    /// Code of the language that is spoken; `None` to have it detected.
    pub language: Option<&'a str>,
    /// Frames of a segment in which text is read.
    pub readings: u64,
    /// A document for each screen, too.
    pub granular: bool,
    pub pictures: bool,
}

impl<'a> Settings<'a> {
    /// By checked parameters. `pictures` says whether frames are kept.
    pub fn new(parameters: &Read<'a>, speech_model: &'a str, pictures: bool) -> Self {
        let reads = parameters.is("extract_screen_text");
        Self {
            method: parameters.text("segmentation_method").unwrap_or("scene"),
            min_ms: parameters.integer("min_segment_duration_ms").unwrap_or(30_000),
            target_ms: parameters.integer("target_segment_duration_ms").unwrap_or(120_000),
            scene_threshold: parameters.number("scene_detection_threshold").unwrap_or(0.3),
            speech_model: parameters.is("use_whisper_asr").then_some(speech_model),
            language: listen::language(parameters.text("transcription_language")),
            readings: if reads { parameters.integer("ocr_frames_per_segment").unwrap_or(3).max(1) } else { 0 },
            granular: parameters.is("expand_to_granular_docs"),
            pictures,
        }
    }
}

/// What is seen at one time.
struct Seen {
    /// Milliseconds of the part of the segment that this frame stands for.
    part: Segment,
    /// Lines of text.
    text: Option<String>,
    jpeg: Option<Vec<u8>>,
    /// Whether it is the frame that stands for all of the segment.
    is_middle: bool,
}

/// The documents of a recording. `cues` are its subtitles, where it has some.
pub async fn documents(
    engine: &Arc<Engine>,
    file: &InputFile,
    span: &Span,
    cues: Option<&[Cue]>,
    settings: Settings<'_>,
) -> Result<Vec<Output>> {
    let stored = engine.blobs.file(&file.hash).await?;
    let recording = Recording::open(engine.media(), stored.path().to_owned().into(), span).await?;
    let planned = plan(engine, &recording, cues, settings).await?;
    let said = said(engine, &recording, &planned, cues, settings).await?;
    let mut seen = match recording.has_pictures() && (settings.readings > 0 || settings.pictures) {
        true => look(engine, &recording, &planned, settings).await?,
        false => BTreeMap::new(),
    };
    let key = file_key(file);
    let mut outputs = Vec::new();
    for (at, (segment, said)) in planned.iter().zip(said).enumerate() {
        let mut output = Output { key: Some(format!("{key}:segment:{}", segment.start_ms)), ..Output::default() };
        describe(&mut output, "video_segment", segment, at, file);
        if !said.is_empty() {
            output.put("text_content", said);
        }
        let (mut known, mut lines, mut screens) = (HashSet::new(), Vec::new(), Vec::new());
        for frame in seen.remove(&at).unwrap_or_default() {
            let fresh = fresh(frame.text.as_deref().unwrap_or_default(), &mut known);
            let thumbnail = match frame.jpeg {
                Some(jpeg) => {
                    let name = format!("-{}", frame.part.start_ms);
                    Some(keep_thumbnail(engine, file, &name, jpeg).await?)
                }
                None => None,
            };
            if settings.granular && !fresh.is_empty() {
                let key = format!("{key}:screen:{}:{}", segment.start_ms, frame.part.start_ms);
                let mut screen = Output { key: Some(key), ..Output::default() };
                describe(&mut screen, "screen_text", &frame.part, at, file);
                screen.put("screen_text", frame.text);
                screen.put("text_content", fresh.join("\n"));
                if let Some(thumbnail) = &thumbnail {
                    screen.attach(thumbnail.clone());
                }
                screens.push(screen);
            }
            lines.extend(fresh);
            if let Some(thumbnail) = thumbnail.filter(|_| frame.is_middle) {
                output.attach(thumbnail);
            }
        }
        if !lines.is_empty() {
            output.put("screen_text", lines.join("\n"));
        }
        outputs.push(output);
        outputs.extend(screens);
        check_count(&outputs)?;
    }
    Ok(outputs)
}

fn describe(output: &mut Output, unit: &str, segment: &Segment, index: usize, file: &InputFile) {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    output.put("unit_type", unit);
    output.put("doc_type", "video");
    output.put("title", stem(file));
    output.put("segment_index", index);
    output.put("start_time", seconds(segment.start_ms));
    output.put("end_time", seconds(segment.end_ms));
}

/// Where segments end.
async fn plan(
    engine: &Arc<Engine>,
    recording: &Recording,
    cues: Option<&[Cue]>,
    settings: Settings<'_>,
) -> Result<Vec<Segment>> {
    let (start_ms, end_ms) = (recording.start_ms, recording.end_ms);
    let Settings { min_ms, target_ms, .. } = settings;
    let duration_ms = end_ms - start_ms;
    let cuts = match settings.method {
        "srt" => {
            let cues = cues.ok_or_else(|| {
                Error::invalid(
                    "srt",
                    "segments are asked for by subtitles, and the input has none: map one with `input_mappings`",
                )
            })?;
            let ends = subtitles::ends(cues, (start_ms, end_ms), min_ms, target_ms);
            Some(ends.into_iter().map(|time_ms| SceneCut { time_ms, score: 1.0 }).collect())
        }
        // Sound alone has no scenes.
        "scene" if recording.has_pictures() => {
            Some(engine.media().scene_cuts(&recording.source, settings.scene_threshold).await?)
        }
        _ => None,
    };
    let planned = match cuts {
        Some(mut cuts) => {
            cuts.retain(|cut| cut.time_ms > start_ms && cut.time_ms < end_ms);
            cuts.iter_mut().for_each(|cut| cut.time_ms -= start_ms);
            cutting::plan(duration_ms, &SplitBy::Scenes(&cuts), min_ms, target_ms)?
        }
        None => cutting::plan(duration_ms, &SplitBy::Time { interval_ms: target_ms }, min_ms, target_ms)?,
    };
    let moved = |segment: Segment| Segment { start_ms: segment.start_ms + start_ms, end_ms: segment.end_ms + start_ms };
    Ok(planned.into_iter().map(moved).collect())
}

/// What is said in each segment; empty texts where nobody listens.
async fn said(
    engine: &Arc<Engine>,
    recording: &Recording,
    planned: &[Segment],
    cues: Option<&[Cue]>,
    settings: Settings<'_>,
) -> Result<Vec<String>> {
    if let Some(cues) = cues {
        return Ok(planned.iter().map(|segment| subtitles::within(cues, segment)).collect());
    }
    let has_sound = recording.probe.has_audio || !recording.has_pictures();
    let Some(model) = settings.speech_model.filter(|_| has_sound) else {
        return Ok(vec![String::new(); planned.len()]);
    };
    let transcriber = engine.transcriber(model).await?;
    let heard = listen::hear(engine, &transcriber, recording, settings.language).await?;
    Ok(planned.iter().map(|segment| listen::text_of(heard.within(segment))).collect())
}

/// Frames of the segments, by their numbers, in the order of their times.
async fn look(
    engine: &Arc<Engine>,
    recording: &Recording,
    planned: &[Segment],
    settings: Settings<'_>,
) -> Result<BTreeMap<usize, Vec<Seen>>> {
    let count = settings.readings.max(1);
    let mut wanted: BTreeMap<u64, (usize, Segment, bool)> = BTreeMap::new();
    for (at, segment) in planned.iter().enumerate() {
        let length_ms = segment.end_ms - segment.start_ms;
        let time = |halves: u64| segment.start_ms + length_ms * halves / (2 * count);
        for n in 0..count {
            let part = Segment { start_ms: time(2 * n), end_ms: time(2 * n + 2) };
            wanted.insert(time(2 * n + 1), (at, part, n == count / 2));
        }
    }
    let side = if settings.readings > 0 { READING_SIDE } else { THUMBNAIL_SIDE };
    let size = Resize::Fit { width: side, height: side };
    let times: Vec<u64> = wanted.keys().copied().collect();
    let mut found: BTreeMap<usize, Vec<Seen>> = BTreeMap::new();
    for times in times.chunks(MAX_FRAME_TIMES) {
        let request = FrameRequest { sampling: FrameSampling::Times(times.to_vec()), size, filter: Filter::Bicubic };
        let frames = streams::frames(engine.media().frames(&recording.source, &request).await?);
        let seen = frames
            .map_ok(|frame| {
                let place = wanted.get(&frame.time_ms).copied();
                let seen = async move {
                    let Some((at, part, is_middle)) = place else { return Ok(None) };
                    let text = match settings.readings > 0 {
                        true => text_in(engine, &frame.picture).await?,
                        false => None,
                    };
                    let is_kept = settings.pictures && (is_middle || (settings.granular && text.is_some()));
                    let jpeg = match is_kept {
                        true => Some(thumbnail(frame).await?),
                        false => None,
                    };
                    Ok::<_, Error>(Some((at, Seen { part, text, jpeg, is_middle })))
                };
                seen.boxed()
            })
            .try_buffered(READINGS_AT_ONCE);
        futures::pin_mut!(seen);
        while let Some(next) = seen.next().await {
            match next {
                Ok(Some((at, seen))) => found.entry(at).or_default().push(seen),
                Ok(None) => {}
                // A damaged end does not undo what came before it.
                Err(Error::Invalid(reason)) if !found.is_empty() => {
                    tracing::debug!(?reason, "frames of a recording end early");
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// The lines that have not been read yet, whatever their case and their signs.
fn fresh(text: &str, known: &mut HashSet<String>) -> Vec<String> {
    let plain =
        |line: &str| line.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let is_new = |line: &&str| {
        let plain = plain(line);
        !plain.is_empty() && known.insert(plain)
    };
    text.lines().map(str::trim).filter(is_new).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_come_again_are_not_new() {
        let mut known = HashSet::new();
        assert_eq!(fresh("Lesson 1\nA, B\n--\n", &mut known), ["Lesson 1", "A, B"]);
        assert_eq!(fresh("lesson 1.\nC\na b", &mut known), ["C"]);
        assert!(fresh("", &mut known).is_empty());
    }
}
