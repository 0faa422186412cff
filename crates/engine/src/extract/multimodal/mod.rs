//! `multimodal_extractor`: a video or a recording becomes segments, each with what is seen and said in it; an image, an
//! animation or a text becomes one document in the same space.

mod describe;
pub(super) mod listen;
mod plan;
mod still;
mod video;

pub(super) use plan::Recording;
pub(super) use video::{mean, thumbnail};

use super::{
    Configured, Definition, FileInput, Input, Output, Shape, embed_texts, image, parameters as p, response_shape,
};
use crate::Engine;
use describe::{Describer, describes, description};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{Pixels, Registry, Task};
use strata_media::{Family, Picture};
use strata_model::{
    Error, Fields, Result,
    feature::{Distance, VectorIndex, VectorKind},
    schema::FieldType,
};

pub(super) const SPLITTING: [p::Parameter; 6] = [
    p::one_of("split_method", "time", &["time", "scene", "silence"], "Where segments end."),
    p::integer("time_split_interval", Some(10), (1, 3600), "Seconds of a segment, split by time."),
    p::number(
        "scene_detection_threshold",
        None,
        (0.0, 1.0),
        "How much a frame must differ from the one before, split by scene.",
    ),
    p::number(
        "silence_db_threshold",
        Some(-40.0),
        (-120.0, 0.0),
        "Decibels below full scale under which a pause lies, split by silence.",
    ),
    p::number("max_segment_duration", Some(30.0), (1.0, 3600.0), "Seconds; a longer segment is cut into equal parts."),
    p::one_of("sensitivity", "low", &["low", "medium", "high"], "How easily a scene ends, where no threshold is set."),
];

const OTHERS: [p::Parameter; 20] = [
    p::boolean("run_multimodal_embedding", true, "Make a vector of what is seen, in a space that words share."),
    image::SPACE,
    p::boolean("run_transcription", false, "Write down what is said, with the time of each word."),
    p::text("transcription_language", Some("en"), "Code of the language that is spoken; `auto` detects it."),
    p::text("transcription_model", None, "Registry id of the model that listens."),
    p::boolean("run_transcription_embedding", false, "Make a vector of what is said; writes it down, too."),
    p::boolean("enable_thumbnails", true, "Keep a frame of each segment as a JPEG of at most 640 pixels a side."),
    p::boolean("enable_segments", false, "Keep each segment as an MP4 of its own."),
    p::integer(
        "key_frames",
        Some(3),
        (1, 16),
        "Frames of a segment that its vector is the mean of; a language model sees at most 8.",
    ),
    p::boolean("run_ocr", false, "Read the text in the middle frame of each segment, and in images."),
    p::boolean("run_ocr_embedding", false, "Make a vector of the text that is read; reads it, too."),
    p::boolean(
        "run_video_description",
        false,
        "Have a language model describe each segment and image. Needs `llm_provider` and `llm_model`.",
    ),
    p::boolean("run_description_embedding", false, "Make a vector of each description; describes, too."),
    p::ignored("description_prompt", p::nothing, "What a description is asked for with."),
    p::ignored(
        "generation_config",
        p::nothing,
        "How a language model writes: `temperature` (0.2), `top_p` and `max_output_tokens`.",
    ),
    p::ignored("output_dimensionality", p::nothing, "Without effect: vectors have their model's size."),
    p::ignored("task_type", p::nothing, "Without effect: documents and queries are embedded alike."),
    p::ignored("embedding_task", p::nothing, "Without effect: documents and queries are embedded alike."),
    p::ignored("use_cdn", p::no, "Without effect: files are served by this server."),
    p::ignored("extractor_type", p::nothing, "Without effect."),
];

fn parameter_schema() -> Value {
    let mut all = p::schema(&SPLITTING);
    if let (Some(all), Value::Object(others)) =
        (all["properties"].as_object_mut(), p::schema(&OTHERS)["properties"].clone())
    {
        all.extend(others);
    }
    response_shape::describe(&mut all);
    all
}

fn default_parameters() -> Value {
    let mut all = p::defaults(&SPLITTING);
    if let (Some(all), Value::Object(others)) = (all.as_object_mut(), p::defaults(&OTHERS)) {
        all.extend(others);
    }
    all
}

const fn definition(version: &'static str, check: fn(&Fields) -> Result<Shape>) -> Definition {
    Definition {
        name: "multimodal_extractor",
        version,
        code_version: 1,
        description: "Splits video and audio by time, scene or silence into documents with what is seen and said; takes images, animations and texts into the same space.",
        icon: "film",
        category: "multimodal",
        input_types: &[FieldType::Video, FieldType::Image, FieldType::Audio, FieldType::Text, FieldType::String],
        files: FILES,
        input_schema: || {
            let input = || json!({ "type": "string" });
            json!({ "type": "object", "properties": {
                "video": input(), "audio": input(), "image": input(), "gif": input(), "text": input(),
            } })
        },
        output_schema: || {
            json!({ "type": "object", "properties": {
                "start_time": { "type": "number" }, "end_time": { "type": "number" }, "duration": { "type": "number" },
                "start_frame": { "type": "integer" }, "end_frame": { "type": "integer" },
                "fps": { "type": "number" }, "source_fps": { "type": "number" },
                "transcription": { "type": "string" }, "transcription_language": { "type": "string" },
                "words": { "type": "array" }, "labels": { "type": "array" }, "text": { "type": "string" },
                "ocr_text": { "type": "string" },
                "description": { "type": "string" }, "json_output": { "type": "object" },
                "thumbnail_url": { "type": "string" }, "video_segment_url": { "type": "string" },
                "segment_index": { "type": "integer" }, "total_segments": { "type": "integer" },
            } })
        },
        parameter_schema,
        default_parameters,
        position_fields: &["start_time", "end_time", "segment_index"],
        // What is in `json_output` stands in fields of its own.
        wordless: &["labels", "words", "transcription_language", "thumbnail_url", "video_segment_url", "json_output"],
        reads_source: false,
        check,
        run,
    }
}

const FILES: &[FileInput] = &[
    FileInput::new("video", &[Family::Video, Family::Audio]),
    FileInput::new("audio", &[Family::Audio, Family::Video]),
    FileInput::new("image", &[Family::Image]),
    FileInput::new("gif", &[Family::Image]),
];

pub(super) static V1: Definition = definition("v1", |parameters| check(parameters, "v1"));
pub(super) static V2: Definition = definition("v2", |parameters| check(parameters, "v2"));

/// The model that listens.
pub(super) fn speech_model(parameters: &Fields, name: &str) -> Result<&'static str> {
    let Some(asked) = p::Read(parameters).text(name) else { return Ok(Registry::default_speech_model()) };
    Registry::resolve_for(asked, Task::Transcribe).map(|entry| entry.id).map_err(|_| {
        let known: Vec<&str> =
            Registry::entries().iter().filter(|e| e.task == Task::Transcribe).map(|e| e.id).collect();
        Error::invalid(format!("parameters.{name}"), format!("`{asked}` is not one of {}", known.join(", ")))
    })
}

/// Whether text in pictures is read.
fn reads(parameters: &p::Read<'_>) -> bool {
    parameters.is("run_ocr") || parameters.is("run_ocr_embedding")
}

/// Text in a picture, line by line; `None` where there is none.
pub(super) async fn text_in(engine: &Arc<Engine>, picture: &Picture) -> Result<Option<String>> {
    let reader = engine.text_reader(Registry::default_text_reader()).await?;
    let lines = reader.read(Pixels::new(picture.width, picture.height, picture.bytes.clone())?).await?;
    let text = lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n");
    Ok((!text.is_empty()).then_some(text))
}

/// The text that was read in an output's picture.
fn read_text(output: &Output) -> Option<String> {
    Some(output.fields.get("ocr_text")?.as_str()?.to_owned())
}

/// A vector of text that is said, read or written.
pub(super) fn text_index(name: String, extractor: &str, aliases: &[&str]) -> Result<VectorIndex> {
    let entry = Registry::resolve(Registry::default_text_model())?;
    let hosted = ["multilingual_e5_large_instruct_v1", "multilingual_e5_large_instruct"];
    Ok(VectorIndex {
        name,
        feature_uri: format!("mixpeek://{extractor}/{}", entry.id),
        kind: VectorKind::Dense,
        dimensions: Some(entry.dimensions),
        distance: Distance::Cosine,
        model: entry.id.into(),
        aliases: aliases.iter().chain(&hosted).chain(entry.aliases).map(|alias| (*alias).to_owned()).collect(),
    })
}

fn seen_name(version: &str) -> String {
    format!("multimodal_extractor_{version}_multimodal_embedding")
}
fn read_name(version: &str) -> String {
    format!("multimodal_extractor_{version}_ocr_embedding")
}
fn said_name(version: &str) -> String {
    format!("multimodal_extractor_{version}_transcription_embedding")
}
fn described_name(version: &str) -> String {
    format!("multimodal_extractor_{version}_description_embedding")
}

fn check(parameters: &Fields, version: &str) -> Result<Shape> {
    p::check(&SPLITTING, parameters)?;
    p::check(&OTHERS, parameters)?;
    let read = p::Read(parameters);
    let extractor = format!("multimodal_extractor@{version}");
    let (mut vectors, mut models) = (Vec::new(), Vec::new());
    if read.is("run_multimodal_embedding") {
        let hosted =
            ["vertex_multimodal_embedding", "multimodalembedding@001", "gemini-embedding-2", "multimodal_embedding"];
        let names = [&*seen_name(version), ""];
        let space = image::space_of(parameters)?;
        vectors.extend(image::indexes(&extractor, space, names, &hosted)?.into_iter().take(1));
        // What it is labelled by, too.
        models.extend([space.to_owned(), Registry::default_image_model().to_owned()]);
    }
    if read.is("run_transcription_embedding") {
        vectors.push(text_index(said_name(version), &extractor, &["transcription_embedding"])?);
    }
    let embedded = ["run_transcription_embedding", "run_ocr_embedding", "run_description_embedding"];
    if embedded.iter().any(|name| read.is(name)) {
        models.push(Registry::default_text_model().to_owned());
    }
    if read.is("run_ocr_embedding") {
        vectors.push(text_index(read_name(version), &extractor, &["ocr_embedding"])?);
    }
    if read.is("run_description_embedding") {
        vectors.push(text_index(described_name(version), &extractor, &["description_embedding"])?);
    }
    if reads(&read) {
        models.push(Registry::default_text_reader().to_owned());
    }
    if read.is("run_transcription") || read.is("run_transcription_embedding") {
        models.push(speech_model(parameters, "transcription_model")?.to_owned());
    }
    let mut fields = vec![
        ("start_time", FieldType::Number),
        ("end_time", FieldType::Number),
        ("transcription", FieldType::String),
        ("ocr_text", FieldType::String),
        ("thumbnail_url", FieldType::String),
        ("labels", FieldType::Array),
    ];
    if let Some(describer) = Describer::parse(parameters)? {
        models.push(describer.model().to_owned());
        fields.extend(describes(&read).then_some(("description", FieldType::String)));
        fields.extend(describer.finds_fields().then_some(("json_output", FieldType::Object)));
    }
    Ok(Shape { vectors, fields, models })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let read = p::Read(&extractor.parameters);
        let describer = Describer::parse(&extractor.parameters)?;
        let mut outputs = Vec::new();
        if input.files.is_empty() {
            let text = input.values.get("text").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
            let text = text.ok_or_else(|| {
                Error::invalid("input", "has no video, audio, image or text: map one with `input_mappings`")
            })?;
            let mut output = still::text(engine, extractor, text).await?;
            if let Some(describer) = &describer {
                describer.text(engine, &input.scope, &mut output).await?;
            }
            outputs.push(output);
        }
        for file in &input.files {
            match file.family() {
                Family::Image => {
                    let mut output = still::image(engine, extractor, file).await?;
                    if let Some(describer) = &describer {
                        let frames = read.integer("key_frames").unwrap_or(3);
                        describer.image(engine, &input.scope, file, frames, &mut output).await?;
                    }
                    outputs.push(output);
                }
                _ => outputs.extend(video::segments(engine, extractor, file, &input, describer.as_ref()).await?),
            }
        }
        if read.is("run_description_embedding") {
            let index = described_name(extractor.definition.version());
            embed_texts(engine, &mut outputs, &index, description).await?;
        }
        Ok(outputs)
    })
}
