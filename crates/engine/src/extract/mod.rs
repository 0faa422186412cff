//! Feature extractors: what turns one input into documents.
//!
//! A [`Definition`] is a value in one registry: its name, schemas and parameters, the vectors it will make and the code
//! that makes them. A [`Configured`] extractor is a definition with a collection's parameters, checked once.

mod inputs;
mod passthrough;
mod splade;
mod text;

pub use inputs::{InputMapping, Passthrough};

use crate::Engine;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{
    Error, Fields, Result,
    document::Vectors,
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
    /// Schemas in JSON Schema's words.
    pub input_schema: fn() -> Value,
    pub output_schema: fn() -> Value,
    pub parameter_schema: fn() -> Value,
    pub default_parameters: fn() -> Value,
    /// Fields in which an output says where in its input it lies.
    pub position_fields: &'static [&'static str],
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

/// One input, read: the source's fields and the bytes of its blobs as text where they are text.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// Values by the extractor's input names.
    pub values: Fields,
    /// The source's own fields.
    pub source: Fields,
}

/// One document to be.
#[derive(Debug, Clone, Default)]
pub struct Output {
    pub fields: Fields,
    pub vectors: Vectors,
}

static DEFINITIONS: [&Definition; 3] = [&passthrough::DEFINITION, &text::DEFINITION, &splade::DEFINITION];

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
    pub definition: &'static Definition,
    pub parameters: Fields,
    pub mappings: Vec<InputMapping>,
    pub passthrough: Vec<Passthrough>,
    pub include_all_source_fields: bool,
    pub vectors: Vec<VectorIndex>,
    pub models: Vec<String>,
}

impl Configured {
    /// Reads a `feature_extractor` as clients send it (`feature_extractor_name`, `version`, `parameters` or `params`,
    /// `input_mappings`, `field_passthrough`, `include_all_source_fields`). `at` is its place in the request.
    pub fn parse(json: &Value, at: &str) -> Result<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let name = text("feature_extractor_name")
            .or_else(|| json.as_str())
            .ok_or_else(|| Error::invalid(format!("{at}.feature_extractor_name"), "is required"))?;
        let known = || definitions().iter().map(|d| d.name).collect::<Vec<_>>().join(", ");
        let definition = Definition::find(name).ok_or_else(|| {
            Error::invalid(
                format!("{at}.feature_extractor_name"),
                format!("`{name}` is not an extractor here; one of {}", known()),
            )
        })?;
        if let Some(version) = text("version").filter(|v| *v != definition.version) {
            return Err(Error::invalid(
                format!("{at}.version"),
                format!("`{version}` is not a version of {name}; it has {}", definition.version),
            ));
        }
        let sent = [json.get("parameters"), json.get("params")].into_iter().flatten().find(|v| !v.is_null());
        let mut parameters = match sent {
            None => Fields::new(),
            Some(Value::Object(map)) => {
                map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
            }
            Some(_) => return Err(Error::invalid(format!("{at}.parameters"), "must be an object")),
        };
        if let Value::Object(defaults) = (definition.default_parameters)() {
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
            "feature_extractor_name": self.definition.name,
            "version": self.definition.version,
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
        for (name, kind) in self.definition.shape(&self.parameters)?.fields {
            properties.insert(name.to_owned(), json!({ "type": kind.as_str() }));
        }
        Ok(json!({ "properties": properties }))
    }

    /// Reads an input from a source's fields, by the mappings or else by name and type. `schema` is the source's.
    pub fn gather(&self, source: Fields, schema: &Schema) -> Input {
        inputs::gather(self, source, schema)
    }

    /// What the outputs depend on besides the extractor: mapped values, carried fields and blob hashes, as one SHA-256.
    pub fn input_hash(&self, input: &Input, blob_hashes: &[String]) -> Result<String> {
        let carried = inputs::carried(self, &input.source)?;
        let source = self.definition.reads_source.then_some(&input.source);
        let parts = json!([input.values, carried, source, blob_hashes]);
        Ok(id::sha256_hex(strata_model::canonical(&parts).as_bytes()))
    }

    /// SHA-256 over everything that decides the outputs besides the input: extractor, code version, parameters,
    /// mappings, passthrough and the models' own fingerprints.
    pub async fn fingerprint(&self, engine: &Arc<Engine>) -> Result<String> {
        let mut parts = vec![
            self.definition.id().into_bytes(),
            self.definition.code_version.to_le_bytes().to_vec(),
            strata_model::canonical(&self.to_json()).into_bytes(),
        ];
        for model in &self.models {
            parts.push(engine.model_fingerprint(model).await?.into_bytes());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(hex::encode(id::sha256_parts(&parts)))
    }

    /// Runs it over one input and adds the passed-through fields to every output.
    pub async fn run(&self, engine: &Arc<Engine>, input: Input) -> Result<Vec<Output>> {
        let carried = inputs::carried(self, &input.source)?;
        let mut outputs = (self.definition.run)(engine, self, input).await?;
        for output in &mut outputs {
            for (name, value) in &carried {
                output.fields.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        Ok(outputs)
    }
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
