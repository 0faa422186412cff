//! `text_extractor`: a text split by the chosen unit, each chunk embedded.

use super::{Configured, Definition, Input, Output, Shape};
use crate::{
    Engine,
    split::{self, Chunk, ChunkKind, SplitBy, SplitConfig},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{Registry, Task};
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    limits,
    schema::FieldType,
};

/// The vector that every document of this extractor carries.
const INDEX: &str = "text_extractor_v1_embedding";

pub(super) static DEFINITION: Definition = Definition {
    name: "text_extractor",
    version: "v1",
    code_version: 1,
    description: "Splits text into characters, words, sentences, paragraphs, pages or markdown sections and embeds each chunk.",
    icon: "file-text",
    category: "text",
    input_types: &[FieldType::Text, FieldType::String],
    files: &[],
    input_schema,
    output_schema,
    parameter_schema: || {
        let mut schema = splitting_schema();
        let model = json!({ "type": "string", "default": Registry::default_text_model() });
        schema["properties"]["embedding_model"] = model;
        schema
    },
    default_parameters: || json!({ "source_type": "text", "split_by": "none", "chunk_size": 1000, "chunk_overlap": 0, "language": "en" }),
    position_fields: POSITION_FIELDS,
    wordless: &[],
    reads_source: false,
    check,
    run,
};

/// Fields in which a chunk says where in its text it stands.
pub(super) const POSITION_FIELDS: &[&str] = &["chunk_index", "start_char", "end_char", "page_number"];

pub(super) fn input_schema() -> Value {
    json!({ "type": "object", "required": ["text"], "properties": { "text": { "type": "string" } } })
}

pub(super) fn output_schema() -> Value {
    json!({ "type": "object", "properties": {
        "text": { "type": "string" }, "chunk_index": { "type": "integer" }, "total_chunks": { "type": "integer" },
        "start_char": { "type": "integer" }, "end_char": { "type": "integer" }, "page_number": { "type": "integer" },
        "heading_path": { "type": "array", "items": { "type": "string" } }, "chunk_kind": { "type": "string" },
        "code_language": { "type": "string" },
    } })
}

/// JSON Schema of the parameters that say how a text is split.
pub(super) fn splitting_schema() -> Value {
    json!({ "type": "object", "properties": {
            "split_by": { "type": "string", "default": "none",
                "enum": ["characters", "words", "sentences", "paragraphs", "pages", "time_segments", "markdown", "none"] },
            "chunk_size": { "type": "integer", "default": 1000, "minimum": 1, "maximum": split::MAX_CHUNK_SIZE,
                "description": "In the unit of `split_by`." },
            "chunk_overlap": { "type": "integer", "default": 0, "minimum": 0, "maximum": split::MAX_CHUNK_OVERLAP,
                "description": "In the unit of `split_by`; smaller than `chunk_size`." },
            "language": { "type": "string", "default": "en",
                "description": "Of the words: how a search by words cuts and compares them." },
        } })
}

/// The fields of every chunk.
pub(super) fn fields() -> Vec<(&'static str, FieldType)> {
    vec![
        ("text", FieldType::String),
        ("chunk_index", FieldType::Integer),
        ("total_chunks", FieldType::Integer),
        ("start_char", FieldType::Integer),
        ("end_char", FieldType::Integer),
    ]
}

/// The hosted service's model names stand for the best local model of the same task.
const HOSTED: [&str; 4] = [
    "multilingual_e5_large_instruct_v1",
    "text-embedding-3-small",
    "text-embedding-3-large",
    "multilingual_e5_large_instruct",
];

fn model(parameters: &Fields) -> Result<&'static str> {
    let Some(asked) = parameters.get("embedding_model").and_then(Value::as_str).filter(|m| !HOSTED.contains(m)) else {
        return Ok(Registry::default_text_model());
    };
    Registry::resolve_for(asked, Task::EmbedText).map(|entry| entry.id).map_err(|_| {
        Error::invalid(
            "parameters.embedding_model",
            format!("`{asked}` is not a text model of this server; it has {}", Registry::default_text_model()),
        )
    })
}

pub(super) fn config(parameters: &Fields) -> Result<SplitConfig> {
    let number = |key: &str, default: usize| match parameters.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(v) => v
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| Error::invalid(format!("parameters.{key}"), "must be a whole number, zero or more")),
    };
    let split_by = match parameters.get("split_by") {
        None | Some(Value::Null) => SplitBy::None,
        Some(Value::String(text)) => SplitBy::parse(text)?,
        Some(_) => return Err(Error::invalid("parameters.split_by", "must be a string")),
    };
    let config =
        SplitConfig { split_by, chunk_size: number("chunk_size", 1000)?, chunk_overlap: number("chunk_overlap", 0)? };
    config.validate()?;
    Ok(config)
}

fn check(parameters: &Fields) -> Result<Shape> {
    if parameters.get("source_type").is_some_and(|s| !s.is_null() && s != "text") {
        return Err(Error::invalid("parameters.source_type", "only `text` is read by this version"));
    }
    if parameters.get("response_shape").is_some_and(|s| !s.is_null()) {
        return Err(Error::invalid(
            "parameters.response_shape",
            "needs a language model, which this version does not run",
        ));
    }
    config(parameters)?;
    let entry = Registry::resolve_for(model(parameters)?, Task::EmbedText)?;
    let index = VectorIndex {
        name: INDEX.into(),
        feature_uri: format!("mixpeek://text_extractor@v1/{}", entry.id),
        kind: VectorKind::Dense,
        dimensions: Some(entry.dimensions),
        distance: Distance::Cosine,
        model: entry.id.into(),
        aliases: ["embedding", "text_embedding", INDEX]
            .into_iter()
            .chain(HOSTED)
            .chain(entry.aliases.iter().copied())
            .map(str::to_owned)
            .collect(),
    };
    Ok(Shape { vectors: vec![index], fields: fields(), models: vec![entry.id.into()] })
}

/// The chunks of an input's text.
pub(super) async fn chunks(parameters: &Fields, input: &Input) -> Result<Vec<Chunk>> {
    let text = match input.values.get("text") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n\n"),
        Some(Value::Null) | None => {
            return Err(Error::invalid("text", "the input has no text: map one with `input_mappings`"));
        }
        Some(other) => other.to_string(),
    };
    let config = config(parameters)?;
    tokio::task::spawn_blocking(move || split::split_bounded(&text, &config, limits::MAX_DERIVED_DOCUMENTS))
        .await
        .map_err(Error::internal)?
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let chunks = chunks(&extractor.parameters, &input).await?;
        let embedder = engine.embedder(model(&extractor.parameters)?).await?;
        let vectors = embedder.embed(chunks.iter().map(|c| c.text.clone()).collect()).await?;
        let total = chunks.len();
        let output = |(chunk, vector)| {
            let mut output = output(chunk, total);
            output.vectors.insert(INDEX.into(), VectorValue::Dense(vector));
            output
        };
        Ok(chunks.into_iter().zip(vectors).map(output).collect())
    })
}

/// A chunk's fields, without its vector.
pub(super) fn output(chunk: Chunk, total: usize) -> Output {
    let mut output = Output::default();
    let mut put = |name: &str, value: Value| output.fields.insert(name.to_owned(), value);
    put("chunk_index", chunk.index.into());
    put("total_chunks", total.into());
    put("start_char", chunk.start_char.into());
    put("end_char", chunk.end_char.into());
    if let Some(path) = chunk.heading_path {
        put("heading_path", path.into());
    }
    if let Some(kind) = chunk.chunk_kind {
        put("chunk_kind", if kind == ChunkKind::Code { "code" } else { "section" }.into());
    }
    if let Some(language) = chunk.code_language {
        put("code_language", language.into());
    }
    if let Some(page) = chunk.page_number {
        put("page_number", page.into());
    }
    put("text", chunk.text.into());
    output
}
