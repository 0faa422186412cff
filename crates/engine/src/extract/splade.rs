//! `splade_extractor`: a text split by the chosen unit, each chunk with a sparse vector of the words that it has and of
//! those that it could as well have.

use super::{
    Configured, Definition, Input, Output, Shape,
    text::{self, POSITION_FIELDS, config},
};
use crate::Engine;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::{Registry, SparseVector, Task};
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    schema::FieldType,
};

/// The vector that every document of this extractor carries.
const INDEX: &str = "splade_extractor_v1_embedding";

pub(super) static DEFINITION: Definition = Definition {
    name: "splade_extractor",
    version: "v1",
    code_version: 1,
    description: "Splits text as `text_extractor` does and gives each chunk a sparse vector of weighted words, for searches that must find exact terms and near ones.",
    icon: "text-search",
    category: "text",
    input_types: &[FieldType::Text, FieldType::String],
    files: &[],
    input_schema: text::input_schema,
    output_schema: text::output_schema,
    parameter_schema: || {
        let mut schema = text::splitting_schema();
        let model = json!({ "type": "string", "default": Registry::default_sparse_model() });
        schema["properties"]["embedding_model"] = model;
        schema
    },
    default_parameters: || json!({ "split_by": "none", "chunk_size": 1000, "chunk_overlap": 0, "language": "en" }),
    position_fields: POSITION_FIELDS,
    wordless: &[],
    reads_source: false,
    check,
    run,
};

fn model(parameters: &Fields) -> Result<&'static str> {
    let Some(asked) = parameters.get("embedding_model").and_then(Value::as_str) else {
        return Ok(Registry::default_sparse_model());
    };
    Registry::resolve_for(asked, Task::EmbedSparse).map(|entry| entry.id).map_err(|_| {
        Error::invalid(
            "parameters.embedding_model",
            format!(
                "`{asked}` is not a model for sparse vectors of this server; it has {}",
                Registry::default_sparse_model()
            ),
        )
    })
}

fn check(parameters: &Fields) -> Result<Shape> {
    config(parameters)?;
    let entry = Registry::resolve_for(model(parameters)?, Task::EmbedSparse)?;
    let aliases = ["embedding", "sparse_embedding", "splade", INDEX].into_iter().chain(entry.aliases.iter().copied());
    let index = VectorIndex {
        name: INDEX.into(),
        feature_uri: format!("mixpeek://splade_extractor@v1/{}", entry.id),
        kind: VectorKind::Sparse,
        dimensions: None,
        distance: Distance::Dot,
        model: entry.id.into(),
        aliases: aliases.map(str::to_owned).collect(),
    };
    Ok(Shape { vectors: vec![index], fields: text::fields(), models: vec![entry.id.into()] })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let chunks = text::chunks(&extractor.parameters, &input).await?;
        let embedder = engine.sparse_embedder(model(&extractor.parameters)?).await?;
        let vectors = embedder.embed(chunks.iter().map(|chunk| chunk.text.clone()).collect()).await?;
        let value = |vector: SparseVector| VectorValue::Sparse { indices: vector.indices, values: vector.values };
        Ok(text::outputs(chunks, INDEX, vectors.into_iter().map(value)))
    })
}
