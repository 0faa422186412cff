//! Videos and recordings: a document for each segment.

use super::super::{
    Configured, Input, InputFile, NewArtifact, Output, embed_texts,
    image::{Eyes, embed_in_space, keep_thumbnail, put_labels, stem},
    parameters::Read,
    streams,
};
use super::{
    describe::Describer,
    listen::{self, Heard},
    plan::{self, Recording},
    read_name, read_text, reads, said_name, seen_name, speech_model, text_in,
};
use crate::Engine;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::{collections::BTreeMap, sync::Arc};
use strata_infer::Sight;
use strata_media::{Filter, Frame, FrameRequest, FrameSampling, Resize, limits::THUMBNAIL_SIDE, segments::Segment};
use strata_model::{Error, Result, document::VectorValue};

/// Frames that are looked at beside each other.
const LOOKS_AT_ONCE: usize = 4;
/// Segments of which files are cut and stored beside each other.
const STORED_AT_ONCE: usize = 4;
/// Bounds of the rate at which frames are taken, in frames a second.
const RATES: (f64, f64) = (0.02, 10.0);
/// Frames of one recording, at most.
const MAX_FRAMES: u64 = 100_000;

/// What the frames of one segment come to.
#[derive(Default)]
struct Look {
    vectors: Vec<Vec<f32>>,
    logits: Vec<Vec<f32>>,
    /// A JPEG.
    thumbnail: Option<Vec<u8>>,
    /// What is read in the frame of the thumbnail.
    text: Option<String>,
}

/// Longest side of frames in which text is read, in pixels.
const READING_SIDE: u32 = 1280;

pub(super) async fn segments(
    engine: &Arc<Engine>,
    extractor: &Configured,
    file: &InputFile,
    input: &Input,
    describer: Option<&Describer>,
) -> Result<Vec<Output>> {
    let room = engine.heavy().await?;
    let parameters = Read(&extractor.parameters);
    let stored = engine.blobs.file(&file.hash).await?;
    let recording = Recording::open(engine.media(), stored.path().to_owned().into(), &input.span).await?;
    let planned = plan::segments(engine.media(), &recording, &parameters).await?;
    let embeds_speech = parameters.is("run_transcription_embedding");
    let has_sound = recording.probe.has_audio || !recording.has_pictures();
    let writes_down = (parameters.is("run_transcription") || embeds_speech) && has_sound;
    let model = speech_model(&extractor.parameters, "transcription_model")?;
    let heard = match listen::listener(engine, model, writes_down).await? {
        Some(transcriber) => {
            let language = listen::language(parameters.text("transcription_language"));
            Some(listen::hear(engine, &transcriber, &recording, language).await?)
        }
        None => None,
    };
    let embeds = parameters.is("run_multimodal_embedding");
    let shows = embeds || parameters.is("enable_thumbnails") || reads(&parameters);
    let looks = match recording.has_pictures() && shows {
        true => look(engine, &recording, &planned, &parameters).await?,
        false => BTreeMap::new(),
    };
    let mut outputs = described(&recording, &planned, heard.as_ref());
    if embeds_speech {
        embed_texts(engine, &mut outputs, &said_name(extractor.definition.version()), said).await?;
    }
    if embeds && !embeds_speech && !recording.has_pictures() {
        // What is heard stands for what would be seen: words find both.
        let index = seen_name(extractor.definition.version());
        embed_in_space(engine, &extractor.parameters, &mut outputs, &index, said).await?;
    }
    for (at, look) in looks {
        let Some(output) = outputs.get_mut(at) else { continue };
        if let (true, Some(vector)) = (embeds, mean(&look.vectors)) {
            output.vectors.insert(seen_name(extractor.definition.version()), VectorValue::Dense(vector));
            put_labels(output, &Sight { embedding: Vec::new(), logits: mean_of(&look.logits) });
        }
        output.put("ocr_text", look.text);
        if let Some(jpeg) = look.thumbnail.filter(|_| parameters.is("enable_thumbnails")) {
            output.attach(keep_thumbnail(engine, file, &format!("-{at}"), jpeg).await?);
        }
    }
    if parameters.is("run_ocr_embedding") {
        embed_texts(engine, &mut outputs, &read_name(extractor.definition.version()), read_text).await?;
    }
    if parameters.is("enable_segments") && recording.has_pictures() {
        cut(engine, file, &recording, &planned, &mut outputs).await?;
    }
    // Others decode while a model writes.
    drop(room);
    if let Some(describer) = describer {
        let frames = parameters.integer("key_frames").unwrap_or(3);
        describer.segments(engine, &input.scope, &recording, &planned, frames, &mut outputs).await?;
    }
    Ok(outputs)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Where each segment lies, and what is said in it.
fn described(recording: &Recording, planned: &[Segment], heard: Option<&Heard>) -> Vec<Output> {
    let rate = recording.probe.frames_per_second.filter(|_| recording.has_pictures());
    let one = |(at, segment): (usize, &Segment)| {
        let mut output = Output::default();
        output.put("segment_index", at);
        output.put("total_segments", planned.len());
        output.put("start_time", seconds(segment.start_ms));
        output.put("end_time", seconds(segment.end_ms));
        output.put("duration", seconds(segment.end_ms - segment.start_ms));
        if let Some(rate) = rate {
            let frame = |ms: u64| (seconds(ms) * rate).round() as u64;
            output.put("start_frame", frame(segment.start_ms));
            output.put("end_frame", frame(segment.end_ms));
            output.put("fps", rate);
            output.put("source_fps", rate);
        }
        if let Some(heard) = heard {
            let words = heard.within(segment);
            output.put("transcription", listen::text_of(words));
            output.put("transcription_language", heard.language.clone());
            output.put("words", listen::words_json(words));
        }
        output
    };
    planned.iter().enumerate().map(one).collect()
}

/// What is said in a segment, if something is.
fn said(output: &Output) -> Option<String> {
    let text = output.fields.get("transcription")?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// Frames of the segments, by their numbers: all are taken in one run through the recording, and those of segments that
/// lie between two of them are looked for.
async fn look(
    engine: &Arc<Engine>,
    recording: &Recording,
    planned: &[Segment],
    parameters: &Read<'_>,
) -> Result<BTreeMap<usize, Look>> {
    let eyes = match parameters.is("run_multimodal_embedding") {
        true => Some(Eyes::open(engine, parameters.0).await?),
        false => None,
    };
    let reads = reads(parameters);
    let wants_middle = parameters.is("enable_thumbnails") || reads;
    let wanted = parameters.integer("key_frames").unwrap_or(3).max(1);
    let total_s = seconds(recording.end_ms - recording.start_ms);
    let rate = (wanted as f64 * planned.len() as f64 / total_s).clamp(RATES.0, RATES.1);
    let step_ms = 1000.0 / rate;
    let first_ms = recording.start_ms + (step_ms / 2.0) as u64;
    let sampling = FrameSampling::Rate {
        frames_per_second: rate,
        start_ms: first_ms.min(recording.end_ms - 1),
        end_ms: Some(recording.end_ms),
        max_frames: MAX_FRAMES,
    };
    let mut looks: BTreeMap<usize, Look> = BTreeMap::new();
    let nearest = |frame: &Frame, segment: &Segment| {
        let middle = segment.start_ms.midpoint(segment.end_ms) as f64;
        (frame.time_ms as f64 - middle).abs() <= step_ms / 2.0 + 1.0
    };
    let mut missing: Vec<u64> = Vec::new();
    for sampling in [Some(sampling), None] {
        let sampling = match sampling {
            Some(sampling) => sampling,
            None => {
                let unseen =
                    (0..planned.len()).filter(|at| looks.get(at).is_none_or(|look| look.is_blank(wants_middle)));
                missing.extend(unseen.map(|at| planned[at].start_ms.midpoint(planned[at].end_ms)));
                if missing.is_empty() {
                    break;
                }
                FrameSampling::Times(std::mem::take(&mut missing))
            }
        };
        let side = if reads { READING_SIDE } else { THUMBNAIL_SIDE };
        let size = Resize::Fit { width: side, height: side };
        let request = FrameRequest { sampling, size, filter: Filter::Bicubic };
        let frames = streams::frames(engine.media().frames(&recording.source, &request).await?);
        let seen = frames
            .map_ok(|frame| {
                let (eyes, engine, at) = (eyes.clone(), engine.clone(), place(planned, frame.time_ms));
                let is_middle = wants_middle && at.is_some_and(|at| nearest(&frame, &planned[at]));
                let look = async move {
                    let seen = match &eyes {
                        Some(eyes) => Some(eyes.look(&frame.picture).await?),
                        None => None,
                    };
                    let text = match is_middle && reads {
                        true => text_in(&engine, &frame.picture).await?,
                        false => None,
                    };
                    let jpeg = match is_middle {
                        true => Some(thumbnail(frame).await?),
                        false => None,
                    };
                    Ok::<_, Error>((at, seen, jpeg, text))
                };
                look.boxed()
            })
            .try_buffered(LOOKS_AT_ONCE);
        futures::pin_mut!(seen);
        while let Some(next) = seen.next().await {
            let (at, seen, jpeg, text) = match next {
                Ok(found) => found,
                // A damaged end does not undo what came before it.
                Err(Error::Invalid(reason)) if !looks.is_empty() => {
                    tracing::debug!(?reason, "frames of a recording end early");
                    break;
                }
                Err(error) => return Err(error),
            };
            let Some(at) = at else { continue };
            let look = looks.entry(at).or_default();
            if let Some(seen) = seen {
                look.vectors.push(seen.in_words);
                look.logits.push(seen.sight.logits);
            }
            look.thumbnail = look.thumbnail.take().or(jpeg);
            look.text = look.text.take().or(text);
        }
    }
    Ok(looks)
}

impl Look {
    /// Whether something of it is missing.
    fn is_blank(&self, wants_thumbnail: bool) -> bool {
        wants_thumbnail && self.thumbnail.is_none()
    }
}

/// The segment in which a time lies.
fn place(planned: &[Segment], time_ms: u64) -> Option<usize> {
    let at = planned.partition_point(|segment| segment.end_ms <= time_ms);
    planned.get(at).is_some_and(|segment| segment.start_ms <= time_ms).then_some(at)
}

/// A JPEG of a frame.
pub(in super::super) async fn thumbnail(frame: Frame) -> Result<Vec<u8>> {
    let made = tokio::task::spawn_blocking(move || frame.picture.thumbnail());
    Ok(made.await.map_err(Error::internal)??.bytes)
}

/// Numbers one by one, their mean.
fn mean_of(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        sum.iter_mut().zip(row).for_each(|(to, from)| *to += from / rows.len() as f32);
    }
    sum
}

/// The direction between vectors; `None` where they have none.
pub(in super::super) fn mean(vectors: &[Vec<f32>]) -> Option<Vec<f32>> {
    let sum = mean_of(vectors);
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    (length > 1e-6).then(|| sum.into_iter().map(|x| x / length).collect())
}

/// Keeps each segment as a file of its own.
async fn cut(
    engine: &Arc<Engine>,
    file: &InputFile,
    recording: &Recording,
    planned: &[Segment],
    outputs: &mut [Output],
) -> Result<()> {
    let jobs = planned.iter().copied().enumerate().map(|(at, segment)| {
        let job = async move {
            let folder = tempfile::tempdir().map_err(Error::internal)?;
            let path = folder.path().join("segment.mp4");
            let length_ms = segment.end_ms - segment.start_ms;
            engine.media().cut(&recording.source, segment.start_ms, length_ms, &path).await?;
            let new = NewArtifact {
                field: "video_segment",
                role: "processed",
                media_type: "video/mp4",
                filename: format!("{}-{at}.mp4", stem(file)),
                of: Some(file),
            };
            engine.keep_file(new, &path).await
        };
        job.boxed()
    });
    let made: Vec<_> = futures::stream::iter(jobs).buffered(STORED_AT_ONCE).try_collect().await?;
    for (output, artifact) in outputs.iter_mut().zip(made) {
        output.attach(artifact);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_segment_that_begins_with_it() {
        let planned = [Segment { start_ms: 100, end_ms: 200 }, Segment { start_ms: 200, end_ms: 300 }];
        let places = [99, 100, 199, 200, 299, 300].map(|time| place(&planned, time));
        assert_eq!(places, [None, Some(0), Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn a_mean_has_length_one_or_is_none() {
        assert_eq!(mean(&[vec![2.0, 0.0], vec![4.0, 0.0]]), Some(vec![1.0, 0.0]));
        assert_eq!(mean(&[vec![1.0], vec![-1.0]]), None);
        assert_eq!(mean(&[]), None);
    }
}
