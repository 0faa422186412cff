//! `text_extractor`: a text split by the chosen unit, each chunk embedded.

use super::{
    Configured, Definition, Input, Output, Shape,
    remote::DIMENSIONS,
    response_shape::{self, ResponseShape},
};
use crate::{
    Engine,
    inference::is_local,
    split::{self, Chunk, ChunkKind, SplitBy, SplitConfig},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{ModelEntry, Registry, Task};
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
        let model = json!({ "type": "string", "default": Registry::default_text_model(),
            "description": "A text model of the server, `provider/model`, or `custom/name@version` for one that the organization brought." });
        schema["properties"]["embedding_model"] = model;
        schema["properties"][DIMENSIONS] = json!({ "type": "integer", "minimum": 1, "maximum": limits::MAX_DIMENSIONS,
            "description": "Length of the vectors of a provider's model, where the server's settings do not say it." });
        response_shape::describe(&mut schema);
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

/// The model that embeds.
enum Model {
    Local(&'static ModelEntry),
    /// A provider's, `provider/model`, or one that the organization brought, and the length of its vectors.
    Remote {
        id: String,
        dimensions: usize,
    },
}

impl Model {
    fn chosen(parameters: &Fields) -> Result<Self> {
        let asked = parameters.get("embedding_model").and_then(Value::as_str).filter(|m| !HOSTED.contains(m));
        let asked = asked.unwrap_or(Registry::default_text_model());
        if let Ok(entry) = Registry::resolve_for(asked, Task::EmbedText) {
            return Ok(Self::Local(entry));
        }
        if is_local(asked) || !asked.contains('/') {
            return Err(Error::invalid(
                "parameters.embedding_model",
                format!(
                    "`{asked}` is not a text model of this server; it has {}, and those of providers as `provider/model`",
                    Registry::default_text_model()
                ),
            ));
        }
        let dimensions = parameters.get(DIMENSIONS).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let dimensions = dimensions.filter(|n| (1..=limits::MAX_DIMENSIONS).contains(n)).ok_or_else(|| {
            Error::invalid(
                format!("parameters.{DIMENSIONS}"),
                format!("must say how long the vectors of `{asked}` are, since the server's settings do not"),
            )
        })?;
        Ok(Self::Remote { id: asked.to_owned(), dimensions })
    }

    fn id(&self) -> &str {
        match self {
            Self::Local(entry) => entry.id,
            Self::Remote { id, .. } => id,
        }
    }

    fn dimensions(&self) -> usize {
        match self {
            Self::Local(entry) => entry.dimensions,
            Self::Remote { dimensions, .. } => *dimensions,
        }
    }

    /// What feature URIs end with.
    fn output(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        match self {
            Self::Local(entry) => entry.id.to_owned(),
            Self::Remote { id, .. } => id.replace('/', "__").chars().map(plain).collect(),
        }
    }

    /// Other names of the vector.
    fn aliases(&self) -> Vec<&str> {
        match self {
            Self::Local(entry) => HOSTED.iter().chain(entry.aliases).copied().collect(),
            Self::Remote { id, .. } => {
                id.split_once('/').map(|(_, name)| name).into_iter().chain([id.as_str()]).collect()
            }
        }
    }
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
    config(parameters)?;
    let model = Model::chosen(parameters)?;
    let index = VectorIndex {
        name: INDEX.into(),
        feature_uri: format!("mixpeek://text_extractor@v1/{}", model.output()),
        kind: VectorKind::Dense,
        dimensions: Some(model.dimensions()),
        distance: Distance::Cosine,
        model: model.id().to_owned(),
        aliases: ["embedding", "text_embedding", INDEX].into_iter().chain(model.aliases()).map(str::to_owned).collect(),
    };
    let writer = ResponseShape::parse(parameters)?.map(|shape| shape.writer.model);
    Ok(Shape {
        vectors: vec![index],
        fields: fields(),
        models: [model.id().to_owned()].into_iter().chain(writer).collect(),
    })
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
        let model = Model::chosen(&extractor.parameters)?;
        let embedder = engine.text_embedder(&input.scope, model.id(), None).await?;
        let texts: Vec<String> = chunks.iter().map(|chunk| chunk.text.clone()).collect();
        let vectors = embedder.embed(texts.clone()).await?;
        if let Some(wrong) = vectors.iter().find(|vector| vector.len() != model.dimensions()) {
            let (id, made, expected) = (model.id(), wrong.len(), model.dimensions());
            return Err(Error::Provider(format!(
                "`{id}` made a vector of {made} numbers; the collection has {expected}"
            )));
        }
        let mut outputs = outputs(chunks, INDEX, vectors.into_iter().map(VectorValue::Dense));
        if let Some(shape) = ResponseShape::parse(&extractor.parameters)? {
            let written = shape.fill(engine, &input.scope.organization_id, texts).await?;
            for (output, fields) in outputs.iter_mut().zip(written) {
                output.complete(fields);
            }
        }
        Ok(outputs)
    })
}

/// An output for each chunk, with its vector of the index.
pub(super) fn outputs(chunks: Vec<Chunk>, index: &str, vectors: impl IntoIterator<Item = VectorValue>) -> Vec<Output> {
    let total = chunks.len();
    let output = |(chunk, vector)| {
        let mut output = output(chunk, total);
        output.vectors.insert(index.to_owned(), vector);
        output
    };
    chunks.into_iter().zip(vectors).map(output).collect()
}

/// A chunk's fields, without its vector.
fn output(chunk: Chunk, total: usize) -> Output {
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
