//! `transcoding_extractor`: a video becomes an MP4 that browsers play.

use super::{Configured, Definition, FileInput, Input, NewArtifact, Output, Shape, image::stem, parameters as p};
use crate::Engine;
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use strata_media::{Family, Source, Transcode, VideoCodec};
use strata_model::{Error, Fields, Result, schema::FieldType};

/// Kilobits a second of sound.
const AUDIO_KILOBITS: u32 = 128;

const PARAMETERS: &[p::Parameter] = &[
    p::one_of("output_codec", "libx264", &["libx264", "libx265"], "The codec of the pictures."),
    p::integer("crf", Some(23), (0, 51), "Constant rate factor: 0 loses nothing, 51 most."),
    p::one_of(
        "preset",
        "medium",
        &["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"],
        "How long the encoder looks for what makes the file smaller.",
    ),
    p::integer(
        "max_resolution",
        Some(1080),
        (144, 4320),
        "Pixels of the height at most; wider than 16:9 is scaled by its width.",
    ),
    p::one_of("audio_codec", "aac", &["aac", "mp3", "copy"], "Sound becomes AAC whichever is asked for."),
    p::ignored("require_native_sdks", p::no, "Without effect."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "transcoding_extractor",
    version: "v1",
    code_version: 1,
    description: "Encodes a video as an MP4 of H.264 or H.265.",
    icon: "refresh-cw",
    category: "video",
    input_types: &[FieldType::Video],
    files: &[FileInput::new("video", &[Family::Video])],
    input_schema: || json!({ "type": "object", "required": ["video"], "properties": { "video": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "converted_url": { "type": "string" }, "width": { "type": "integer" }, "height": { "type": "integer" },
            "duration": { "type": "number" }, "size_bytes": { "type": "integer" },
        } })
    },
    parameter_schema: || p::schema(PARAMETERS),
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &[],
    wordless: &["converted_url"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    Ok(Shape {
        vectors: Vec::new(),
        fields: vec![
            ("converted_url", FieldType::String),
            ("width", FieldType::Integer),
            ("height", FieldType::Integer),
            ("duration", FieldType::Number),
            ("size_bytes", FieldType::Integer),
        ],
        models: Vec::new(),
    })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let _room = engine.heavy().await?;
        let parameters = p::Read(&extractor.parameters);
        let height = parameters.integer("max_resolution").unwrap_or(1080) as u32;
        let how = Transcode {
            codec: match parameters.text("output_codec") {
                Some("libx265") => VideoCodec::H265,
                _ => VideoCodec::H264,
            },
            crf: parameters.integer("crf").unwrap_or(23) as u8,
            preset: parameters.text("preset").unwrap_or("medium").to_owned(),
            max_resolution: Some((height * 16 / 9, height)),
            audio_kilobits: Some(AUDIO_KILOBITS),
        };
        let mut outputs = Vec::new();
        for file in input.files_of(&[Family::Video], "video")? {
            let stored = engine.blobs.file(&file.hash).await?;
            let folder = tempfile::tempdir().map_err(Error::internal)?;
            let path = folder.path().join("converted.mp4");
            engine.media().transcode(&stored.path().to_owned().into(), &how, &path).await?;
            let probe = engine.media().probe(&Source::Path(path.clone())).await?;
            let new = NewArtifact {
                field: "converted",
                role: "processed",
                media_type: "video/mp4",
                filename: format!("{}.mp4", stem(file)),
                of: Some(file),
            };
            let mut output = Output::default();
            let artifact = engine.keep_file(new, &path).await?;
            output.put("size_bytes", artifact.size_bytes());
            output.attach(artifact);
            output.put("width", probe.width);
            output.put("height", probe.height);
            output.put("duration", probe.duration_ms.map(|ms| ms as f64 / 1000.0));
            outputs.push(output);
        }
        Ok(outputs)
    })
}
