//! `passthrough_extractor`: one document an input, the source's fields carried along, no model.

use super::{Configured, Definition, Input, Output, Shape};
use crate::Engine;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{
    Error, Fields, Result,
    document::VectorValue,
    feature::{Distance, VectorIndex, VectorKind},
    limits, path,
    schema::FieldType,
};

pub(super) static DEFINITION: Definition = Definition {
    name: "passthrough_extractor",
    version: "v1",
    code_version: 1,
    description: "Stores one document for each input with the source's fields, without running a model.",
    icon: "arrow-right",
    category: "general",
    input_types: &[
        FieldType::String,
        FieldType::Text,
        FieldType::Image,
        FieldType::Audio,
        FieldType::Video,
        FieldType::Pdf,
        FieldType::Excel,
        FieldType::Object,
        FieldType::Array,
        FieldType::Number,
        FieldType::Integer,
        FieldType::Float,
        FieldType::Boolean,
        FieldType::Date,
        FieldType::Datetime,
    ],
    files: &[],
    input_schema: || json!({ "type": "object", "properties": { "content": { "type": "string" }, "data": { "type": "object" } } }),
    output_schema: || json!({ "type": "object", "properties": {}, "additionalProperties": true }),
    parameter_schema: || {
        json!({ "type": "object", "properties": {
            "preserve_metadata": { "type": "boolean", "default": true, "description": "Carry the source's `metadata` field along." },
            "vector_fields": { "type": "array", "description": "Fields that hold vectors of the caller's own.", "items": {
                "type": "object", "required": ["field", "name", "dimensions"], "properties": {
                    "field": { "type": "string" }, "name": { "type": "string" },
                    "dimensions": { "type": "integer", "minimum": 1, "maximum": limits::MAX_DIMENSIONS },
                    "distance": { "type": "string", "enum": ["cosine", "dot", "euclidean"], "default": "cosine" },
                } } },
        } })
    },
    default_parameters: || json!({ "preserve_metadata": true }),
    position_fields: &[],
    wordless: &[],
    reads_source: true,
    check,
    run,
};

/// A source field that holds a vector, and the index it goes to.
struct VectorField {
    field: String,
    index: VectorIndex,
}

fn vector_fields(parameters: &Fields) -> Result<Vec<VectorField>> {
    let list = match parameters.get("vector_fields") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Error::invalid("parameters.vector_fields", "must be an array")),
    };
    list.iter().enumerate().map(|(i, spec)| vector_field(spec, &format!("parameters.vector_fields.{i}"))).collect()
}

fn vector_field(spec: &Value, at: &str) -> Result<VectorField> {
    let text = |key: &str| {
        let found = spec.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        found.ok_or_else(|| Error::invalid(format!("{at}.{key}"), "is required")).map(str::to_owned)
    };
    let (field, name) = (text("field")?, text("name")?);
    let dimensions = spec.get("dimensions").and_then(Value::as_u64).and_then(|d| usize::try_from(d).ok());
    let dimensions = dimensions.filter(|d| (1..=limits::MAX_DIMENSIONS).contains(d)).ok_or_else(|| {
        Error::invalid(format!("{at}.dimensions"), format!("must be between 1 and {}", limits::MAX_DIMENSIONS))
    })?;
    let distance = match spec.get("distance") {
        None | Some(Value::Null) => Distance::Cosine,
        Some(given) => serde_json::from_value(given.clone())
            .map_err(|_| Error::invalid(format!("{at}.distance"), "must be cosine, dot or euclidean"))?,
    };
    let index = VectorIndex {
        feature_uri: format!("mixpeek://passthrough_extractor@v1/{name}"),
        kind: VectorKind::Dense,
        dimensions: Some(dimensions),
        distance,
        model: String::new(),
        aliases: vec![name.clone()],
        name,
    };
    Ok(VectorField { field, index })
}

fn check(parameters: &Fields) -> Result<Shape> {
    if let Some(format) = parameters.get("row_format").filter(|v| !v.is_null()) {
        return Err(Error::invalid(
            "parameters.row_format",
            format!("{format} rows are not read by this version; send each row as an object"),
        ));
    }
    let vectors = vector_fields(parameters)?.into_iter().map(|v| v.index).collect();
    Ok(Shape { vectors, fields: Vec::new(), models: Vec::new() })
}

fn run<'a>(_: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let mut output = Output::default();
        for (name, value) in &input.values {
            output.fields.insert(name.clone(), value.clone());
        }
        if extractor.parameters.get("preserve_metadata") == Some(&Value::Bool(true))
            && let Some(metadata) = input.source.get("metadata")
        {
            output.fields.insert("metadata".into(), metadata.clone());
        }
        for VectorField { field, index } in vector_fields(&extractor.parameters)? {
            let Some(found) = path::get_field(&input.source, &field) else { continue };
            let numbers: Vec<f32> = serde_json::from_value(found.clone())
                .map_err(|_| Error::invalid(field.clone(), "must be an array of numbers"))?;
            let expected = index.dimensions.unwrap_or_default();
            if numbers.len() != expected || numbers.iter().any(|x| !x.is_finite()) {
                return Err(Error::invalid(
                    field,
                    format!("must hold {expected} finite numbers, it holds {}", numbers.len()),
                ));
            }
            output.vectors.insert(index.name, VectorValue::Dense(numbers));
        }
        Ok(vec![output])
    })
}
