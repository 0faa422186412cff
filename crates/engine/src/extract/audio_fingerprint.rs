//! `audio_fingerprint_extractor`: overlapping windows of sound become documents, each with a vector by which the same sound
//! is found again, and the recording's fingerprint, which tells the offset.

use super::{
    Configured, Definition, FileInput, Input, InputFile, NewArtifact, Output, Shape, image::stem,
    multimodal::Recording, parameters as p,
};
use crate::Engine;
use futures::future::BoxFuture;
use serde_json::json;
use std::{sync::Arc, time::Instant};
use strata_infer::{
    Registry,
    acoustic::{self, Fingerprint},
};
use strata_media::{AudioRequest, Family};
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    schema::FieldType,
};

const INDEX: &str = "audio_fingerprint_extractor_v1_embedding";

const PARAMETERS: &[p::Parameter] = &[
    p::number("segment_duration_sec", Some(5.0), (1.0, 30.0), "Seconds of a window."),
    p::number("segment_hop_sec", Some(2.5), (0.5, 15.0), "Seconds from the start of a window to that of the next."),
    p::number("max_audio_length_sec", Some(120.0), (1.0, 600.0), "Seconds that are read; what follows is left out."),
    p::ignored("sample_rate", || json!(48_000), "Without effect: sound is read at 16,000 samples a second."),
    p::ignored("normalize_embeddings", || json!(true), "Without effect: vectors always have length 1."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "audio_fingerprint_extractor",
    version: "v1",
    code_version: 1,
    description: "Makes vectors of overlapping windows of sound by which the same recording is found again, whatever its loudness and encoding.",
    icon: "audio-lines",
    category: "audio",
    input_types: &[FieldType::Audio, FieldType::Video],
    files: &[
        FileInput::new("audio", &[Family::Audio, Family::Video]),
        FileInput::new("video", &[Family::Video, Family::Audio]),
    ],
    input_schema: || json!({ "type": "object", "properties": { "audio": { "type": "string" }, "video": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "segment_index": { "type": "integer" }, "start_time_sec": { "type": "number" },
            "end_time_sec": { "type": "number" }, "duration_sec": { "type": "number" },
            "total_duration_sec": { "type": "number" }, "sample_rate": { "type": "integer" },
            "audio_source_type": { "type": "string" }, "embedding_model": { "type": "string" },
            "fingerprint_url": { "type": "string" }, "processing_time_ms": { "type": "number" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["start_time_sec", "end_time_sec", "segment_index"],
    wordless: &["audio_source_type", "embedding_model", "fingerprint_url"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    let entry = Registry::resolve(Registry::acoustic_model())?;
    let index = VectorIndex {
        name: INDEX.into(),
        feature_uri: format!("mixpeek://audio_fingerprint_extractor@v1/{}", entry.id),
        kind: VectorKind::Dense,
        dimensions: Some(entry.dimensions),
        distance: Distance::Cosine,
        model: entry.id.into(),
        aliases: ["embedding", "audio_embedding"].iter().chain(entry.aliases).map(|a| (*a).to_owned()).collect(),
    };
    Ok(Shape {
        vectors: vec![index],
        fields: vec![
            ("segment_index", FieldType::Integer),
            ("start_time_sec", FieldType::Number),
            ("end_time_sec", FieldType::Number),
            ("duration_sec", FieldType::Number),
            ("total_duration_sec", FieldType::Number),
        ],
        models: vec![entry.id.into()],
    })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let _room = engine.heavy().await?;
        let mut outputs = Vec::new();
        for file in input.files_of(&[Family::Audio, Family::Video], "audio or video")? {
            outputs.extend(windows(engine, &p::Read(&extractor.parameters), file, &input.span).await?);
        }
        Ok(outputs)
    })
}

async fn windows(
    engine: &Arc<Engine>,
    parameters: &p::Read<'_>,
    file: &InputFile,
    span: &super::Span,
) -> Result<Vec<Output>> {
    let started = Instant::now();
    let stored = engine.blobs.file(&file.hash).await?;
    let recording = Recording::open(engine.media(), stored.path().to_owned().into(), span).await?;
    let longest_ms = (parameters.number("max_audio_length_sec").unwrap_or(120.0) * 1000.0) as u64;
    let request = AudioRequest {
        sample_rate: acoustic::SAMPLE_RATE,
        start_ms: recording.start_ms,
        max_duration_ms: longest_ms.min(recording.end_ms - recording.start_ms),
    };
    let samples = engine.media().audio(&recording.source, request).await?.collect().await?;
    let seconds = |name: &str, default: f64| parameters.number(name).unwrap_or(default);
    let (length, hop) = (seconds("segment_duration_sec", 5.0), seconds("segment_hop_sec", 2.5));
    let total = samples.len() as f64 / f64::from(acoustic::SAMPLE_RATE);
    let compute = move || (cut(&samples, length, hop), Fingerprint::of(&samples));
    let (windows, fingerprint) = tokio::task::spawn_blocking(compute).await.map_err(Error::internal)?;
    let new = NewArtifact {
        field: "fingerprint",
        role: "artifact",
        media_type: "application/octet-stream",
        filename: format!("{}.fingerprint", stem(file)),
        of: Some(file),
    };
    let fingerprint = engine.keep_artifact(new, fingerprint?.to_bytes()).await?;
    let milliseconds = started.elapsed().as_millis() as u64;
    let offset = recording.start_ms as f64 / 1000.0;
    let kind = if recording.has_pictures() { "video" } else { "audio" };
    let one = |(at, window): (usize, Window)| {
        let mut output = Output::default();
        output.put("segment_index", at);
        output.put("start_time_sec", offset + window.start);
        output.put("end_time_sec", offset + window.end);
        output.put("duration_sec", window.end - window.start);
        output.put("total_duration_sec", total);
        output.put("sample_rate", acoustic::SAMPLE_RATE);
        output.put("audio_source_type", kind);
        output.put("embedding_model", Registry::acoustic_model());
        output.put("processing_time_ms", milliseconds);
        output.attach(fingerprint.clone());
        if let Some(vector) = window.vector {
            output.vectors.insert(INDEX.into(), VectorValue::Dense(vector));
        }
        output
    };
    Ok(windows.into_iter().enumerate().map(one).collect())
}

/// Seconds from the beginning; no vector where there is only silence.
struct Window {
    start: f64,
    end: f64,
    vector: Option<Vec<f32>>,
}

/// Windows of `length` seconds, `hop` from each other; the last is as long as what is left, if that is half a window.
fn cut(samples: &[f32], length: f64, hop: f64) -> Vec<Window> {
    let rate = f64::from(acoustic::SAMPLE_RATE);
    let total = samples.len() as f64 / rate;
    let mut windows = Vec::new();
    let mut start = 0.0;
    while start == 0.0 || start + length / 2.0 <= total {
        let end = (start + length).min(total);
        let part = &samples[(start * rate) as usize..((end * rate) as usize).min(samples.len())];
        windows.push(Window { start, end, vector: acoustic::embed(part) });
        if end >= total {
            break;
        }
        start += hop;
    }
    windows
}

/// The vector of the loudest window of a recording that is searched with; `None` for silence.
pub(crate) fn loudest(samples: &[f32], length: f64) -> Option<Vec<f32>> {
    let size = (length * f64::from(acoustic::SAMPLE_RATE)) as usize;
    if samples.len() <= size {
        return acoustic::embed(samples);
    }
    let energy = |start: &usize| samples[*start..*start + size].iter().map(|s| s * s).sum::<f32>();
    let starts = (0..=samples.len() - size).step_by(size / 4);
    let start = starts.max_by(|a, b| energy(a).total_cmp(&energy(b)))?;
    acoustic::embed(&samples[start..start + size])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_overlap_and_cover_the_recording() {
        let samples = vec![0.0; 12 * acoustic::SAMPLE_RATE as usize];
        let places: Vec<(f64, f64)> = cut(&samples, 5.0, 2.5).iter().map(|w| (w.start, w.end)).collect();
        assert_eq!(places, [(0.0, 5.0), (2.5, 7.5), (5.0, 10.0), (7.5, 12.0)]);
        assert_eq!(cut(&samples[..16_000], 5.0, 2.5).len(), 1);
        assert_eq!(loudest(&samples, 5.0), None);
    }
}
