//! Feature extractors: what turns one input into documents.
//!
//! A [`Definition`] is a value in one registry: its name, schemas and parameters, the vectors it will make and the code
//! that makes them. A [`Configured`] extractor is a definition with a collection's parameters, checked once.

mod artifact;
pub(crate) mod audio_fingerprint;
mod colbert;
mod course;
pub(crate) mod custom;
mod document_graph;
mod extractor;
mod face;
mod files;
pub(crate) mod image;
mod inputs;
mod multimodal;
mod parameters;
mod passthrough;
mod remote;
mod response_shape;
mod scrolling;
mod splade;
mod streams;
mod text;
mod transcoding;
mod universal;
mod web_scraper;
mod writer;

pub use artifact::{Artifact, NewArtifact};
pub use custom::{Custom, Description, InputDescription, VectorDescription};
pub use extractor::Extractor;
pub use files::{Attached, FileInput, InputFile, Span};
pub use inputs::{InputMapping, Passthrough};
pub(crate) use remote::{DIMENSIONS, settle_dimensions};

use crate::Engine;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_infer::Registry;
use strata_model::{
    Error, Fields, Result, Scope,
    document::{VectorValue, Vectors},
    feature::VectorIndex,
    id,
    schema::{FieldType, Schema},
};

/// One built-in extractor.
pub struct Definition {
    pub name: &'static str,
    pub version: &'static str,
    /// Rises with every change of the code that changes outputs; part of the fingerprint.
    pub code_version: u32,
    pub description: &'static str,
    pub icon: &'static str,
    pub category: &'static str,
    pub input_types: &'static [FieldType],
    /// The files that it reads, by content.
    pub files: &'static [FileInput],
    /// Schemas in JSON Schema's words.
    pub input_schema: fn() -> Value,
    pub output_schema: fn() -> Value,
    pub parameter_schema: fn() -> Value,
    pub default_parameters: fn() -> Value,
    /// Fields in which an output says where in its input it lies.
    pub position_fields: &'static [&'static str],
    /// Fields of its outputs in which search by words does not look: names of files and models, and guesses that a vector
    /// holds already.
    pub wordless: &'static [&'static str],
    /// Whether it reads source fields that no mapping names, so that all of them decide its outputs.
    pub reads_source: bool,
    /// Checks the parameters; answers the vectors that they make and the fields that they add.
    check: fn(&Fields) -> Result<Shape>,
    run: Run,
}

type Run = for<'a> fn(&'a Arc<Engine>, &'a Configured, Input) -> BoxFuture<'a, Result<Vec<Output>>>;

/// What a configured extractor makes.
pub struct Shape {
    pub vectors: Vec<VectorIndex>,
    /// Field names and their types.
    pub fields: Vec<(&'static str, FieldType)>,
    /// Registry ids of the models it runs.
    pub models: Vec<String>,
}

/// One input: the source's fields, its text blobs as text among them, and its files.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// Values by the extractor's input names.
    pub values: Fields,
    /// The source's own fields.
    pub source: Fields,
    pub files: Vec<InputFile>,
    /// The part of the files that is meant.
    pub span: Span,
    /// Whose it is, and so with whose keys providers are asked.
    pub scope: Scope,
}

/// One document to be.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub fields: Fields,
    pub vectors: Vectors,
    pub artifacts: Vec<Artifact>,
    /// What the document keeps its id by; without one, its place among the outputs.
    pub key: Option<String>,
}

impl Output {
    /// Sets a field, unless there is nothing to be said.
    pub(crate) fn put(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        if !value.is_null() {
            self.fields.insert(name.to_owned(), value);
        }
    }

    /// Adds fields that a model found. What is there already is not written over.
    fn complete(&mut self, found: Fields) {
        for (name, value) in found {
            self.fields.entry(name).or_insert(value);
        }
    }

    /// Adds an artifact, and the field `{its field}_url` that names it.
    pub(crate) fn attach(&mut self, artifact: Artifact) {
        if let Some(field) = artifact.entry.get("field").and_then(Value::as_str) {
            self.put(&format!("{field}_url"), artifact.url());
        }
        self.artifacts.push(artifact);
    }
}

static DEFINITIONS: [&Definition; 15] = [
    &passthrough::DEFINITION,
    &text::DEFINITION,
    &splade::DEFINITION,
    &colbert::DEFINITION,
    &image::DEFINITION,
    &multimodal::V1,
    &multimodal::V2,
    &document_graph::DEFINITION,
    &face::DEFINITION,
    &transcoding::DEFINITION,
    &scrolling::DEFINITION,
    &web_scraper::DEFINITION,
    &audio_fingerprint::DEFINITION,
    &course::DEFINITION,
    &universal::DEFINITION,
];

/// Every built-in extractor.
pub fn definitions() -> &'static [&'static Definition] {
    &DEFINITIONS
}

impl Definition {
    /// `{name}_{version}`.
    pub fn id(&self) -> String {
        format!("{}_{}", self.name, self.version)
    }
    /// By id, or by name alone.
    pub fn find(identifier: &str) -> Option<&'static Self> {
        DEFINITIONS.iter().find(|d| d.id() == identifier || d.name == identifier).copied()
    }
    /// What it makes with `parameters`.
    pub fn shape(&self, parameters: &Fields) -> Result<Shape> {
        (self.check)(parameters)
    }
}

/// An extractor with a collection's settings.
#[derive(Clone)]
pub struct Configured {
    pub definition: Extractor,
    pub parameters: Fields,
    pub mappings: Vec<InputMapping>,
    pub passthrough: Vec<Passthrough>,
    pub include_all_source_fields: bool,
    pub vectors: Vec<VectorIndex>,
    pub models: Vec<String>,
}

impl Configured {
    /// Reads a `feature_extractor` as clients send it (`feature_extractor_name`, `version`, `parameters` or `params`,
    /// `input_mappings`, `field_passthrough`, `include_all_source_fields`). `at` is its place in the request; `custom` are
    /// the extractors there are beside those built in.
    pub fn parse(json: &Value, custom: &[Arc<Custom>], at: &str) -> Result<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let name = text("feature_extractor_name")
            .or_else(|| json.as_str())
            .ok_or_else(|| Error::invalid(format!("{at}.feature_extractor_name"), "is required"))?;
        let definition = Extractor::find(name, text("version"), custom, at)?;
        let sent = [json.get("parameters"), json.get("params")].into_iter().flatten().find(|v| !v.is_null());
        let mut parameters = match sent {
            None => Fields::new(),
            Some(Value::Object(map)) => {
                map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
            Some(_) => return Err(Error::invalid(format!("{at}.parameters"), "must be an object")),
        };
        if let Value::Object(defaults) = definition.default_parameters() {
            for (key, value) in defaults {
                parameters.entry(key).or_insert(value);
            }
        }
        let shape = definition.shape(&parameters).map_err(|e| under(e, at))?;
        Ok(Self {
            definition,
            mappings: inputs::mappings(json.get("input_mappings"), &format!("{at}.input_mappings"))?,
            passthrough: inputs::passthrough(json.get("field_passthrough"), &format!("{at}.field_passthrough"))?,
            include_all_source_fields: json.get("include_all_source_fields").and_then(Value::as_bool).unwrap_or(false),
            vectors: shape.vectors,
            models: shape.models,
            parameters,
        })
    }

    /// The extractor as answers show it; [`Configured::parse`] reads it back.
    pub fn to_json(&self) -> Value {
        json!({
            "feature_extractor_name": self.definition.name(),
            "version": self.definition.version(),
            "feature_extractor_id": self.definition.id(),
            "params": null,
            "parameters": self.parameters,
            "input_mappings": inputs::mappings_json(&self.mappings),
            "field_passthrough": self.passthrough,
            "include_all_source_fields": self.include_all_source_fields,
        })
    }

    /// The schema of the documents it makes from a source with `source` as its schema: known before any exists.
    pub fn output_schema(&self, source: &Schema) -> Result<Value> {
        let mut properties = Fields::new();
        let of = |name: &str| source.json.get("properties").and_then(|p| p.get(name)).cloned();
        if self.include_all_source_fields {
            properties.extend(source.json.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
        }
        for field in &self.passthrough {
            let root = field.source_path.split('.').next().unwrap_or_default();
            properties.insert(field.target().to_owned(), of(root).unwrap_or_else(|| json!({ "type": "string" })));
        }
        for (name, kind) in self.definition.fields(&self.parameters)? {
            properties.insert(name, json!({ "type": kind.as_str() }));
        }
        for (name, schema) in response_shape::properties(&self.parameters) {
            properties.entry(name).or_insert(schema);
        }
        Ok(json!({ "properties": properties }))
    }

    /// Reads an input from a source's fields and files, by the mappings or else by name and type. `schema` is the source's.
    pub fn gather(&self, source: Fields, schema: &Schema, attached: Attached) -> Result<Input> {
        let mut input = inputs::gather(self, source, schema);
        self.attach(&mut input, attached)?;
        if input.files.is_empty() && !self.definition.files().is_empty() {
            inputs::take_text(self, &mut input, schema);
        }
        Ok(input)
    }

    /// What the outputs depend on besides the extractor: mapped values, carried fields and blob hashes, as one SHA-256.
    pub fn input_hash(&self, input: &Input, blob_hashes: &[String]) -> Result<String> {
        let carried = inputs::carried(self, &input.source)?;
        let source = self.definition.reads_source().then_some(&input.source);
        let parts = match self.definition.files().is_empty() {
            true => json!([input.values, carried, source, blob_hashes]),
            false => json!([input.values, carried, source, blob_hashes, input.files_json()]),
        };
        Ok(id::sha256_hex(strata_model::canonical(&parts).as_bytes()))
    }

    /// SHA-256 over everything that decides the outputs besides the input: extractor, code version, parameters,
    /// mappings, passthrough and the models' own fingerprints.
    pub async fn fingerprint(&self, engine: &Arc<Engine>, scope: &Scope) -> Result<String> {
        let code = match &self.definition {
            Extractor::BuiltIn(definition) => definition.code_version.to_le_bytes().to_vec(),
            Extractor::Custom(custom) => engine.custom_fingerprint(scope, custom).await?.into_bytes(),
        };
        let mut parts =
            vec![self.definition.id().into_bytes(), code, strata_model::canonical(&self.to_json()).into_bytes()];
        for model in &self.models {
            parts.push(engine.model_fingerprint(scope, model).await?.into_bytes());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(hex::encode(id::sha256_parts(&parts)))
    }

    /// Runs it over one input and adds the passed-through fields to every output.
    pub async fn run(&self, engine: &Arc<Engine>, input: Input) -> Result<Vec<Output>> {
        let carried = inputs::carried(self, &input.source)?;
        let mut outputs = self.definition.run(engine, self, input).await?;
        for output in &mut outputs {
            for (name, value) in &carried {
                output.fields.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(outputs)
    }
}

/// Puts the vector of its text into each output that has one.
async fn embed_texts(
    engine: &Arc<Engine>,
    outputs: &mut [Output],
    index: &str,
    text: impl Fn(&Output) -> Option<String>,
) -> Result<()> {
    // A model of the registry is the same for everybody.
    embed_texts_by(engine, &Scope::default(), Registry::default_text_model(), outputs, index, text).await
}

/// [`embed_texts`] by another model, of the registry, the organization or a provider.
async fn embed_texts_by(
    engine: &Arc<Engine>,
    scope: &Scope,
    model: &str,
    outputs: &mut [Output],
    index: &str,
    text: impl Fn(&Output) -> Option<String>,
) -> Result<()> {
    let (places, texts): (Vec<usize>, Vec<String>) =
        outputs.iter().enumerate().filter_map(|(at, output)| Some((at, text(output)?))).unzip();
    if texts.is_empty() {
        return Ok(());
    }
    let vectors = engine.text_embedder(scope, model, None).await?.embed(texts).await?;
    for (place, vector) in places.into_iter().zip(vectors) {
        outputs[place].vectors.insert(index.to_owned(), VectorValue::Dense(vector));
    }
    Ok(())
}

/// Puts the place of the extractor before the fields that an error names.
fn under(error: Error, at: &str) -> Error {
    match error {
        Error::Invalid(mut fields) => {
            for field in &mut fields {
                field.field = format!("{at}.{}", field.field);
            }
            Error::Invalid(fields)
        }
        other => other,
    }
}
