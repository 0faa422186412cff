//! `scrolling_text_extractor`: what is written on screen in a video, where it runs through and where it stands.

mod motion;

use super::{
    Configured, Definition, FileInput, Input, InputFile, Output, Shape, Span, multimodal::Recording, parameters as p,
    streams,
};
use crate::Engine;
use futures::{StreamExt, future::BoxFuture};
use motion::{Axis, Band, Settings, Watcher};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{Pixels, Registry, TextLine, TextReader};
use strata_media::{Crop, Encoding, Family, Filter, Frame, FrameRequest, FrameSampling, Picture, Resize};
use strata_model::{Error, Fields, Result, schema::FieldType};

/// Longest side of a frame, in pixels.
const SIDE: u32 = 1280;
/// Longest that a video is looked at, in milliseconds.
const MAX_MS: u64 = 600_000;
/// How much of a band's length may have run through until it is read again, so that nothing is missed.
const STEP: f32 = 0.5;
/// Readings of one band.
const MAX_READINGS: usize = 200;

const PARAMETERS: &[p::Parameter] = &[
    p::number("fps", Some(5.0), (1.0, 30.0), "Frames a second that are looked at."),
    p::integer("strip_height", Some(40), (10, 200), "Pixels of the strips that are watched."),
    p::number("min_shift_px", Some(2.0), (0.5, 20.0), "Pixels that a strip must move between two frames."),
    p::number("consistency_ratio", Some(0.6), (0.3, 1.0), "Share of the frames in which it must move the same way."),
    p::integer("pad", Some(8), (0, 50), "Pixels around a band that are read with it."),
    p::boolean("static_ocr", true, "Read what stands still, too."),
    p::integer("max_static_frames", Some(4), (1, 12), "Frames in which it is read."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "scrolling_text_extractor",
    version: "v1",
    code_version: 1,
    description: "Finds bands of a video in which text runs through, such as tickers and credits, and reads them and what stands still.",
    icon: "scroll-text",
    category: "video",
    input_types: &[FieldType::Video],
    files: &[FileInput::new("video", &[Family::Video])],
    input_schema: || json!({ "type": "object", "required": ["video"], "properties": { "video": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "scrolling_text": { "type": "string" }, "static_text": { "type": "string" },
            "scroll_bands": { "type": "array" }, "bands_detected": { "type": "integer" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &[],
    wordless: &["scroll_bands"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    Ok(Shape {
        vectors: Vec::new(),
        fields: vec![
            ("scrolling_text", FieldType::String),
            ("static_text", FieldType::String),
            ("scroll_bands", FieldType::Array),
            ("bands_detected", FieldType::Integer),
        ],
        models: vec![Registry::default_text_reader().into()],
    })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let _room = engine.heavy().await?;
        let parameters = p::Read(&extractor.parameters);
        let mut outputs = Vec::new();
        for file in input.files_of(&[Family::Video], "video")? {
            outputs.push(read(engine, &parameters, file, &input.span).await?);
        }
        Ok(outputs)
    })
}

async fn read(engine: &Arc<Engine>, parameters: &p::Read<'_>, file: &InputFile, span: &Span) -> Result<Output> {
    let stored = engine.blobs.file(&file.hash).await?;
    let recording = Recording::open(engine.media(), stored.path().to_owned().into(), span).await?;
    let fps = parameters.number("fps").unwrap_or(5.0);
    let settings = Settings {
        strip_height: parameters.integer("strip_height").unwrap_or(40) as u32,
        min_shift: parameters.number("min_shift_px").unwrap_or(2.0) as f32,
        consistency: parameters.number("consistency_ratio").unwrap_or(0.6) as f32,
    };
    let end_ms = recording.end_ms.min(recording.start_ms + MAX_MS);
    let sampling = FrameSampling::Rate {
        frames_per_second: fps,
        start_ms: recording.start_ms,
        end_ms: Some(end_ms),
        max_frames: 100_000,
    };
    let (mut watcher, mut times, mut size) = (Watcher::new(settings), Vec::new(), (0, 0));
    let request =
        |sampling| FrameRequest { sampling, size: Resize::Fit { width: SIDE, height: SIDE }, filter: Filter::Bicubic };
    {
        let mut frames = streams::frames(engine.media().frames(&recording.source, &request(sampling)).await?);
        while let Some(frame) = frames.next().await {
            let Frame { time_ms, picture } = frame?;
            times.push(time_ms);
            size = (picture.width, picture.height);
            let see = move || {
                watcher.see(&picture);
                watcher
            };
            watcher = tokio::task::spawn_blocking(see).await.map_err(Error::internal)?;
        }
    }
    let bands = watcher.bands(size.0, size.1);
    let reader = engine.text_reader(Registry::default_text_reader()).await?;
    let at = |times: Vec<u64>| request(FrameSampling::Times(times));
    let mut output = Output::default();
    let (mut told, mut texts) = (Vec::new(), Vec::new());
    for band in &bands {
        let chosen = readings(band, &times, size);
        let mut frames = engine.media().frames(&recording.source, &at(chosen)).await?;
        let mut text: Vec<String> = Vec::new();
        while let Some(frame) = frames.next().await? {
            let pad = parameters.integer("pad").unwrap_or(8) as u32;
            let lines = lines(&reader, frame.picture, Some(part(band, size, pad))).await?;
            let seen: Vec<String> = match band.axis {
                Axis::Vertical => lines.into_iter().map(|line| line.text).collect(),
                Axis::Horizontal => {
                    lines.iter().flat_map(|line| line.text.split_whitespace()).map(str::to_owned).collect()
                }
            };
            append(&mut text, seen);
        }
        let joined = text.join(if band.axis == Axis::Vertical { "\n" } else { " " });
        told.push(shown(band, fps, &joined));
        texts.push(joined);
    }
    output.put("bands_detected", bands.len());
    output.put("scroll_bands", told);
    output.put("scrolling_text", texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n"));
    if parameters.is("static_ocr") && !times.is_empty() {
        let count = parameters.integer("max_static_frames").unwrap_or(4).max(1) as usize;
        let chosen = (0..count).map(|n| times[(times.len() - 1) * (2 * n + 1) / (2 * count)]).collect::<Vec<_>>();
        let mut frames = engine.media().frames(&recording.source, &at(chosen)).await?;
        let mut known: Vec<String> = Vec::new();
        while let Some(frame) = frames.next().await? {
            for line in lines(&reader, frame.picture, None).await? {
                if !bands.iter().any(|band| lies_in(band, &line)) && !known.contains(&line.text) {
                    known.push(line.text);
                }
            }
        }
        output.put("static_text", known.join("\n"));
    }
    Ok(output)
}

/// The lines in a part of a picture.
async fn lines(reader: &TextReader, picture: Picture, crop: Option<Crop>) -> Result<Vec<TextLine>> {
    let cut = move || picture.converted(crop, Resize::Original, Filter::Bicubic, Encoding::Rgb8);
    let cut = tokio::task::spawn_blocking(cut).await.map_err(Error::internal)??;
    reader.read(Pixels::new(cut.width, cut.height, cut.bytes)?).await
}

/// The times at which a band is read: at first, and whenever half of it has been replaced.
fn readings(band: &Band, times: &[u64], size: (u32, u32)) -> Vec<u64> {
    let length = if band.axis == Axis::Horizontal { size.0 } else { size.1 } as f32;
    let mut chosen: Vec<u64> = Vec::new();
    let mut last: Option<f32> = None;
    for (time, travelled) in times.iter().zip(&band.travelled) {
        if last.is_none_or(|last| (travelled - last).abs() >= length * STEP) && chosen.len() < MAX_READINGS {
            chosen.push(*time);
            last = Some(*travelled);
        }
    }
    // What is there in the end.
    if let Some(end) = times.last().filter(|end| chosen.last() != Some(end)) {
        chosen.push(*end);
    }
    chosen
}

fn part(band: &Band, (width, height): (u32, u32), pad: u32) -> Crop {
    let start = f64::from(band.start.saturating_sub(pad));
    let extent = |side: u32| f64::from((band.end + pad).min(side)) - start;
    match band.axis {
        Axis::Horizontal => Crop { left: 0.0, top: start, width: f64::from(width), height: extent(height) },
        Axis::Vertical => Crop { left: start, top: 0.0, width: extent(width), height: f64::from(height) },
    }
}

fn lies_in(band: &Band, line: &TextLine) -> bool {
    let axis = if band.axis == Axis::Horizontal { 1 } else { 0 };
    let middle = line.quad.iter().map(|corner| corner[axis]).sum::<f32>() / 4.0;
    (band.start as f32..band.end as f32).contains(&middle)
}

fn shown(band: &Band, fps: f64, text: &str) -> Value {
    let (axis, direction) = match (band.axis, band.shift > 0.0) {
        (Axis::Horizontal, true) => ("horizontal", "right"),
        (Axis::Horizontal, false) => ("horizontal", "left"),
        (Axis::Vertical, true) => ("vertical", "down"),
        (Axis::Vertical, false) => ("vertical", "up"),
    };
    json!({
        "axis": axis, "direction": direction, "start_px": band.start, "end_px": band.end,
        "speed_px_per_second": f64::from(band.shift.abs()) * fps,
        "consistency": (f64::from(band.consistency) * 1000.0).round() / 1000.0, "text": text,
    })
}

/// Adds what was read to what was read before it: the longest end of the one that is the beginning of the other counts once.
/// Pieces at the edge of a band may be cut, so one piece at either side may differ.
fn append(text: &mut Vec<String>, seen: Vec<String>) {
    if text.is_empty() {
        *text = seen;
        return;
    }
    let same = |a: &str, b: &str| {
        let plain =
            |t: &str| t.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
        plain(a) == plain(b)
    };
    for lost in 0..=1.min(text.len().saturating_sub(1)) {
        for skipped in 0..=1.min(seen.len()) {
            let (kept, rest) = (&text[..text.len() - lost], &seen[skipped..]);
            let most = kept.len().min(rest.len());
            let shared =
                (1..=most).rev().find(|n| kept[kept.len() - n..].iter().zip(&rest[..*n]).all(|(a, b)| same(a, b)));
            if let Some(shared) = shared {
                text.truncate(text.len() - lost);
                text.extend(rest[shared..].iter().cloned());
                return;
            }
        }
    }
    text.extend(seen);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_readings_share_counts_once() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (first, second, together) in [
            ("the quick brown fox", "brown fox jumps over", "the quick brown fox jumps over"),
            ("the quick brown fo", "rown fox jumps over", "the quick brown fo rown fox jumps over"),
            ("the quick brown f", "uick brown fox jumps", "the quick brown fox jumps"),
            ("one", "two", "one two"),
        ] {
            let mut text = words(first);
            append(&mut text, words(second));
            assert_eq!(text.join(" "), together);
        }
    }
}
