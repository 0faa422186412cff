//! How a source's fields reach an extractor's inputs, and which of them its outputs carry along.

use super::{Configured, Input};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_media::Family;
use strata_model::{
    Error, FieldError, Fields, Result, path,
    schema::{FieldType, Schema},
};

/// One input of an extractor and where its value comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct InputMapping {
    /// The extractor's name for it.
    pub input: String,
    pub from: From,
}

#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// The first of these fields or blob properties that the source has.
    Paths(Vec<String>),
    Literal(Value),
}

/// A source field that every output carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passthrough {
    pub source_path: String,
    #[serde(default)]
    pub target_path: Option<String>,
    #[serde(default)]
    pub default: Option<Value>,
    #[serde(default)]
    pub required: bool,
}

impl Passthrough {
    pub fn target(&self) -> &str {
        self.target_path.as_deref().unwrap_or(&self.source_path)
    }
}

/// Reads both spellings: `{input: path or [paths]}` and `[{input_key, source_type, path, override}]`.
pub(super) fn mappings(json: Option<&Value>, at: &str) -> Result<Vec<InputMapping>> {
    match json {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => map.iter().map(|(input, from)| simple(input, from, at)).collect(),
        Some(Value::Array(list)) => list.iter().enumerate().map(|(i, m)| full(m, &format!("{at}.{i}"))).collect(),
        Some(_) => Err(Error::invalid(at, "must be an object of input names to fields, or an array of mappings")),
    }
}

fn simple(input: &str, from: &Value, at: &str) -> Result<InputMapping> {
    let paths = match from {
        Value::String(path) => vec![path.clone()],
        Value::Array(list) if list.iter().all(Value::is_string) && !list.is_empty() => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => return Err(Error::invalid(format!("{at}.{input}"), "must be a field's path or an array of them")),
    };
    Ok(InputMapping { input: input.to_owned(), from: From::Paths(paths) })
}

fn full(mapping: &Value, at: &str) -> Result<InputMapping> {
    let text = |key: &str| mapping.get(key).and_then(Value::as_str);
    let input = text("input_key").ok_or_else(|| Error::invalid(format!("{at}.input_key"), "is required"))?;
    let given = mapping.get("override").filter(|v| !v.is_null());
    let from = match (text("source_type"), given, text("path")) {
        (Some("literal"), Some(value), _) | (_, Some(value), None) => From::Literal(value.clone()),
        (Some("literal"), None, _) => {
            return Err(Error::invalid(format!("{at}.override"), "is required for a literal"));
        }
        (Some("vector"), ..) => {
            return Err(Error::invalid(format!("{at}.source_type"), "this extractor takes no vectors"));
        }
        (_, _, Some(path)) => From::Paths(vec![path.to_owned()]),
        _ => return Err(Error::invalid(format!("{at}.path"), "is required")),
    };
    Ok(InputMapping { input: input.to_owned(), from })
}

pub(super) fn mappings_json(mappings: &[InputMapping]) -> Value {
    let one = |m: &InputMapping| match &m.from {
        From::Paths(paths) if paths.len() == 1 => json!(paths[0]),
        From::Paths(paths) => json!(paths),
        From::Literal(value) => value.clone(),
    };
    if mappings.iter().all(|m| matches!(m.from, From::Paths(_))) {
        return Value::Object(mappings.iter().map(|m| (m.input.clone(), one(m))).collect());
    }
    let full = |m: &InputMapping| match &m.from {
        From::Paths(paths) => json!({ "input_key": m.input, "source_type": "payload", "path": paths[0] }),
        From::Literal(value) => json!({ "input_key": m.input, "source_type": "literal", "override": value }),
    };
    Value::Array(mappings.iter().map(full).collect())
}

/// Reads objects, and plain strings, which scripts send.
pub(super) fn passthrough(json: Option<&Value>, at: &str) -> Result<Vec<Passthrough>> {
    let list = match json {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Error::invalid(at, "must be an array")),
    };
    let read = |(i, entry): (usize, &Value)| match entry {
        Value::String(path) => {
            Ok(Passthrough { source_path: path.clone(), target_path: None, default: None, required: false })
        }
        other => serde_json::from_value(other.clone()).map_err(|e| {
            Error::invalid(format!("{at}.{i}"), format!("must be a field's name or an object with `source_path`: {e}"))
        }),
    };
    list.iter().enumerate().map(read).collect()
}

/// The fields that every output carries.
pub(super) fn carried(extractor: &Configured, source: &Fields) -> Result<Fields> {
    let mut carried = if extractor.include_all_source_fields { source.clone() } else { Fields::new() };
    let mut missing = Vec::new();
    for field in &extractor.passthrough {
        match path::get_field(source, &field.source_path).or(field.default.as_ref()) {
            Some(value) => path::set(&mut carried, field.target(), value.clone()),
            None if field.required => {
                missing.push(FieldError::new(&field.source_path, "is required by `field_passthrough`"))
            }
            None => {}
        }
    }
    if missing.is_empty() { Ok(carried) } else { Err(Error::Invalid(missing)) }
}

/// Builds an extractor's input. Without a mapping an input takes the field of its own name, or else the first field of
/// the schema whose type the extractor reads: files before plain strings.
pub(super) fn gather(extractor: &Configured, source: Fields, schema: &Schema) -> Input {
    let mut values = Fields::new();
    for mapping in &extractor.mappings {
        let value = match &mapping.from {
            From::Literal(value) => Some(value.clone()),
            From::Paths(paths) if paths.len() == 1 => path::get_field(&source, &paths[0]).cloned(),
            From::Paths(paths) => {
                let found: Vec<Value> = paths.iter().filter_map(|p| path::get_field(&source, p)).cloned().collect();
                (!found.is_empty()).then_some(Value::Array(found))
            }
        };
        if let Some(value) = value {
            values.insert(mapping.input.clone(), value);
        }
    }
    for name in required(extractor).into_iter().filter(|name| !reads_texts(extractor, name)) {
        if !values.contains_key(&name)
            && let Some(value) = source.get(&name).or_else(|| by_type(extractor, &source, schema))
        {
            values.insert(name, value.clone());
        }
    }
    // A text that is read as a file may stand in the row.
    for file in extractor.definition.files().iter().filter(|file| file.families.contains(&Family::Text)) {
        let is_free = !values.contains_key(&*file.name);
        if let Some(text) = source.get(&*file.name).filter(|text| is_free && text.is_string()) {
            values.insert(file.name.to_string(), text.clone());
        }
    }
    // What another process may read beside that, by name alone.
    for name in extractor.definition.custom().iter().flat_map(|custom| custom.description.inputs.keys()) {
        if let Some(value) = source.get(name).filter(|_| !values.contains_key(name)).cloned() {
            values.insert(name.clone(), value);
        }
    }
    Input { values, source, ..Input::default() }
}

/// Where there is no file, an extractor that takes texts as well takes the first one.
pub(super) fn take_text(extractor: &Configured, input: &mut Input, schema: &Schema) {
    let Some(name) = text_input(extractor).filter(|name| !input.values.contains_key(name)) else { return };
    let texts = schema.fields.iter().filter(|(_, f)| matches!(f.kind, FieldType::Text | FieldType::String));
    let found = texts.into_iter().find_map(|(name, _)| input.source.get(name).filter(|v| v.is_string()));
    if let Some(found) = found.cloned() {
        input.values.insert(name, found);
    }
}

/// The input that a text goes to: the one of that name, or the required one that reads texts as files.
fn text_input(extractor: &Configured) -> Option<String> {
    match extractor.definition.input_schema()["properties"].get("text") {
        Some(_) => Some("text".to_owned()),
        None => required(extractor).into_iter().find(|name| reads_texts(extractor, name)),
    }
}

/// Whether an input takes texts as files: then one of the row's stands for it only where there is no file.
fn reads_texts(extractor: &Configured, name: &str) -> bool {
    extractor.definition.files().iter().any(|file| file.name == name && file.families.contains(&Family::Text))
}

fn required(extractor: &Configured) -> Vec<String> {
    let schema = extractor.definition.input_schema();
    let names = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    names.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn by_type<'a>(extractor: &Configured, source: &'a Fields, schema: &Schema) -> Option<&'a Value> {
    extractor.definition.input_types().iter().find_map(|wanted| {
        let mut fields = schema.fields.iter().filter(|(_, f)| f.kind == *wanted);
        fields.find_map(|(name, _)| source.get(name).filter(|v| !v.is_null()))
    })
}
