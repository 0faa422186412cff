//! `colbert_extractor`: a text split by the chosen unit, each chunk with a vector for each of its tokens. A search
//! compares them with those of the query's tokens, one by one.

use super::{
    Configured, Definition, Input, Output, Shape,
    text::{self, POSITION_FIELDS},
};
use crate::Engine;
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::Arc;
use strata_infer::Registry;
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    limits,
    schema::FieldType,
};

/// The vectors that every document of this extractor carries.
const INDEX: &str = "colbert_extractor_v1_colbertv2_v1";
/// By the name that the hosted service has for the model, which is the same one here.
const FEATURE_URI: &str = "mixpeek://colbert_extractor@v1/colbertv2_v1";
/// Units of a chunk, where nothing is said.
const CHUNK_SIZE: usize = 300;
/// Chunks whose vectors are made before they are counted.
const AT_ONCE: usize = 64;

pub(super) static DEFINITION: Definition = Definition {
    name: "colbert_extractor",
    version: "v1",
    code_version: 1,
    description: "Splits text as `text_extractor` does and gives each token of a chunk a vector, for searches that compare a query with a text token by token (late interaction). Of a chunk the first 512 tokens are read.",
    icon: "grid-3x3",
    category: "text",
    input_types: &[FieldType::Text, FieldType::String],
    files: &[],
    input_schema: text::input_schema,
    output_schema: text::output_schema,
    parameter_schema: || {
        let mut schema = text::splitting_schema();
        schema["properties"]["chunk_size"]["default"] = json!(CHUNK_SIZE);
        schema
    },
    default_parameters: || json!({ "split_by": "none", "chunk_size": CHUNK_SIZE, "chunk_overlap": 0, "language": "en" }),
    position_fields: POSITION_FIELDS,
    wordless: &[],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    text::config(parameters)?;
    let entry = Registry::resolve(Registry::default_token_model())?;
    let aliases = ["embedding", "multi_embedding", INDEX].into_iter().chain(entry.aliases.iter().copied());
    let index = VectorIndex {
        name: INDEX.into(),
        feature_uri: FEATURE_URI.into(),
        kind: VectorKind::MultiDense,
        dimensions: Some(entry.dimensions),
        distance: Distance::Cosine,
        model: entry.id.into(),
        aliases: aliases.map(str::to_owned).collect(),
    };
    Ok(Shape { vectors: vec![index], fields: text::fields(), models: vec![entry.id.into()] })
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let chunks = text::chunks(&extractor.parameters, &input).await?;
        let embedder = engine.token_embedder(Registry::default_token_model()).await?;
        let mut vectors = Vec::with_capacity(chunks.len());
        let mut rows = 0;
        for part in chunks.chunks(AT_ONCE) {
            let made = embedder.embed(part.iter().map(|chunk| chunk.text.clone()).collect()).await?;
            rows += made.iter().map(Vec::len).sum::<usize>();
            if rows > limits::MAX_DERIVED_ROWS {
                let most = limits::MAX_DERIVED_ROWS;
                return Err(Error::TooLarge(format!("the text makes more than {most} vectors of tokens; divide it")));
            }
            vectors.extend(made.into_iter().map(VectorValue::Multi));
        }
        Ok(text::outputs(chunks, INDEX, vectors))
    })
}
