//! What a custom extractor says of itself, checked.

use crate::inference::is_local;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{borrow::Cow, collections::BTreeMap};
use strata_infer::{Registry, Task};
use strata_media::Family;
use strata_model::{
    Error, Fields, Result,
    feature::{Distance, VectorIndex, VectorKind},
    limits,
    schema::{FieldType, Schema},
};

use crate::extract::{Definition, FileInput, Shape};

/// The version of the protocol that is spoken.
pub const PROTOCOL: u32 = 1;
/// Most inputs, fields, parameters and vectors of one extractor.
const MAX_NAMES: usize = 64;
const MAX_VECTORS: usize = 8;
/// Most inputs of one request, and longest time for it, in seconds.
const MAX_BATCH: usize = 256;
const MAX_SECONDS: u64 = 3600;
const MAX_TEXT: usize = 1000;

/// An extractor as its process describes it at `GET /describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub protocol: u32,
    /// Lower-case letters, digits and `_`.
    pub name: String,
    /// `v1`, `v2` and so on: rises when inputs, parameters, fields or vectors change.
    pub version: String,
    /// Changes whenever the same inputs would give other outputs: a hash of code and weights, or a release.
    pub fingerprint: String,
    #[serde(default)]
    pub description: String,
    #[serde(default = "usual_category")]
    pub category: String,
    /// By name.
    pub inputs: BTreeMap<String, InputDescription>,
    /// By name: `type`, and perhaps `default`, `enum`, `required` and `description`, as in a bucket's schema.
    #[serde(default)]
    pub parameters: Fields,
    /// The fields of its documents.
    #[serde(default)]
    pub fields: BTreeMap<String, FieldType>,
    #[serde(default)]
    pub vectors: Vec<VectorDescription>,
    /// Whether it reads the whole source, so that any of its fields decides the outputs.
    #[serde(default)]
    pub reads_source: bool,
    /// Inputs of one request, at most.
    #[serde(default = "one")]
    pub max_batch: usize,
    /// For one request.
    #[serde(default = "a_minute")]
    pub timeout_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputDescription {
    /// `image`, `audio`, `video` and `pdf` are files, everything else a value; of a `text` its characters.
    #[serde(rename = "type")]
    pub kind: FieldType,
    #[serde(default)]
    pub required: bool,
}

/// A vector of its documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorDescription {
    pub name: String,
    #[serde(default = "dense")]
    pub kind: VectorKind,
    /// Absent for sparse vectors.
    #[serde(default)]
    pub dimensions: Option<usize>,
    #[serde(default)]
    pub distance: Distance,
    /// The text model, here or of a provider, whose space it is: queries are embedded by it. Without one, callers bring
    /// the vectors of their queries.
    #[serde(default)]
    pub model: String,
    /// The field whose text the model embeds, so that the extractor makes no vector itself.
    #[serde(default)]
    pub of: Option<String>,
}

fn usual_category() -> String {
    "custom".into()
}
fn one() -> usize {
    1
}
fn a_minute() -> u64 {
    60
}
fn dense() -> VectorKind {
    VectorKind::Dense
}

/// An extractor that runs in another process, as one registration has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Custom {
    /// Of the registration.
    pub extractor_id: String,
    pub description: Description,
    pub(crate) files: Vec<FileInput>,
    pub(crate) input_types: Vec<FieldType>,
    vectors: Vec<VectorIndex>,
    parameters: Schema,
}

impl Custom {
    /// Checks a description.
    pub fn new(extractor_id: &str, description: Description) -> Result<Self> {
        let Description { name, version, .. } = &description;
        if description.protocol != PROTOCOL {
            return Err(Error::invalid("protocol", format!("must be {PROTOCOL}, not {}", description.protocol)));
        }
        checked_name("name", name)?;
        let number = version.strip_prefix('v').unwrap_or_default();
        if number.is_empty() || number.len() > 6 || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Error::invalid("version", format!("must be `v` and a number, not `{version}`")));
        }
        if Definition::find(name).is_some() {
            return Err(Error::invalid("name", format!("`{name}` is an extractor that is built in")));
        }
        let length = description.fingerprint.chars().count();
        if !(1..=MAX_TEXT).contains(&length) {
            return Err(Error::invalid("fingerprint", format!("must have 1 to {MAX_TEXT} characters")));
        }
        for (at, text) in [("description", &description.description), ("category", &description.category)] {
            if text.chars().count() > MAX_TEXT {
                return Err(Error::invalid(at, format!("must have at most {MAX_TEXT} characters")));
            }
        }
        if !(1..=MAX_BATCH).contains(&description.max_batch) {
            return Err(Error::invalid("max_batch", format!("must be from 1 to {MAX_BATCH}")));
        }
        if !(1..=MAX_SECONDS).contains(&description.timeout_seconds) {
            return Err(Error::invalid("timeout_seconds", format!("must be from 1 to {MAX_SECONDS}")));
        }
        let files = files(&description.inputs)?;
        if description.parameters.len() > MAX_NAMES {
            return Err(Error::invalid("parameters", format!("are at most {MAX_NAMES}")));
        }
        let parameters = Schema::parse(&json!({ "properties": description.parameters }), "parameters")
            .map_err(|error| named_anew(error, "parameters.properties", "parameters"))?;
        fields(&description.fields)?;
        let vectors = vectors(&description)?;
        let input_types = description.inputs.values().map(|input| input.kind).collect();
        Ok(Self { extractor_id: extractor_id.to_owned(), files, input_types, vectors, parameters, description })
    }

    /// The same under the id of another registration.
    pub(crate) fn registered_as(&self, extractor_id: &str) -> Self {
        Self { extractor_id: extractor_id.to_owned(), ..self.clone() }
    }

    /// `{name}_{version}`.
    pub fn id(&self) -> String {
        format!("{}_{}", self.description.name, self.description.version)
    }

    pub fn input_schema(&self) -> Value {
        let of = |(name, input): (&String, &InputDescription)| (name.clone(), json!({ "type": input.kind }));
        let inputs = &self.description.inputs;
        let required: Vec<&String> = inputs.iter().filter(|(_, input)| input.required).map(|(name, _)| name).collect();
        let properties: Fields = inputs.iter().map(of).collect();
        json!({ "type": "object", "required": required, "properties": properties })
    }

    pub fn output_schema(&self) -> Value {
        let of = |(name, kind): (&String, &FieldType)| (name.clone(), json!({ "type": kind }));
        json!({ "type": "object", "properties": self.description.fields.iter().map(of).collect::<Fields>() })
    }

    pub fn parameter_schema(&self) -> Value {
        json!({ "type": "object", "properties": self.description.parameters })
    }

    pub fn default_parameters(&self) -> Value {
        let of = |(name, kind): (&String, &Value)| Some((name.clone(), kind.get("default")?.clone()));
        self.description.parameters.iter().filter_map(of).collect::<Fields>().into()
    }

    /// What it makes with `parameters`.
    pub fn shape(&self, parameters: &Fields) -> Result<Shape> {
        if let Some(unknown) = parameters.keys().find(|name| self.parameters.get(name).is_none()) {
            let known: Vec<&String> = self.description.parameters.keys().collect();
            let message = format!("is not a parameter of `{}`; it has {known:?}", self.id());
            return Err(Error::invalid(format!("parameters.{unknown}"), message));
        }
        let check = self.parameters.check(&mut parameters.clone(), |_| false);
        check.map_err(|error| named_below(error, "parameters"))?;
        let models = self.vectors.iter().map(|vector| vector.model.clone());
        let models = models.zip(&self.description.vectors).filter(|(_, told)| told.of.is_some());
        Ok(Shape {
            vectors: self.vectors.clone(),
            fields: Vec::new(),
            models: models.map(|(model, _)| model).collect(),
        })
    }

    /// The index of a vector that it names, with what it says of it.
    pub(super) fn vector(&self, name: &str) -> Option<(&VectorIndex, &VectorDescription)> {
        let mut all = self.vectors.iter().zip(&self.description.vectors);
        all.find(|(index, told)| told.name == name || index.name == name)
    }

    /// The vectors that are made of a field's text here: index, model and field.
    pub(super) fn embedded(&self) -> impl Iterator<Item = (&VectorIndex, &str, &str)> {
        let all = self.vectors.iter().zip(&self.description.vectors);
        all.filter_map(|(index, told)| Some((index, index.model.as_str(), told.of.as_deref()?)))
    }

    /// Whether documents made by the other are of the same form: everything but who makes them and how well.
    pub(crate) fn makes_the_same(&self, other: &Self) -> bool {
        let form = |custom: &Self| Description {
            fingerprint: String::new(),
            description: String::new(),
            category: String::new(),
            max_batch: 1,
            timeout_seconds: 1,
            ..custom.description.clone()
        };
        form(self) == form(other)
    }
}

pub(super) fn checked_name(at: &str, name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    match starts && name.len() <= 63 && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(Error::invalid(
            at,
            format!("`{name}` must be 1 to 63 lower-case letters, digits and `_`, and begin with a letter"),
        )),
    }
}

fn files(inputs: &BTreeMap<String, InputDescription>) -> Result<Vec<FileInput>> {
    if !(1..=MAX_NAMES).contains(&inputs.len()) {
        return Err(Error::invalid("inputs", format!("must name 1 to {MAX_NAMES} inputs")));
    }
    let mut files = Vec::new();
    for (name, input) in inputs {
        checked_name(&format!("inputs.{name}"), name)?;
        let family = match input.kind {
            FieldType::Image => Family::Image,
            FieldType::Audio => Family::Audio,
            FieldType::Video => Family::Video,
            FieldType::Pdf => Family::Pdf,
            FieldType::Excel => return Err(Error::invalid(format!("inputs.{name}.type"), "`excel` is read by none")),
            _ => continue,
        };
        files.push(FileInput { name: Cow::Owned(name.clone()), families: Cow::Owned(vec![family]) });
    }
    Ok(files)
}

fn fields(fields: &BTreeMap<String, FieldType>) -> Result<()> {
    if fields.len() > MAX_NAMES {
        return Err(Error::invalid("fields", format!("are at most {MAX_NAMES}")));
    }
    for name in fields.keys() {
        checked_name(&format!("fields.{name}"), name)?;
        if crate::documents::is_reserved(name) {
            return Err(Error::invalid(format!("fields.{name}"), "is a name that every document has for itself"));
        }
    }
    Ok(())
}

fn vectors(description: &Description) -> Result<Vec<VectorIndex>> {
    if description.vectors.len() > MAX_VECTORS {
        return Err(Error::invalid("vectors", format!("are at most {MAX_VECTORS}")));
    }
    let mut indexes: Vec<VectorIndex> = Vec::new();
    for (i, vector) in description.vectors.iter().enumerate() {
        let at = format!("vectors.{i}");
        checked_name(&format!("{at}.name"), &vector.name)?;
        let Description { name, version, .. } = description;
        let index = VectorIndex {
            name: format!("{name}_{version}_{}", vector.name),
            feature_uri: format!("mixpeek://{name}@{version}/{}", vector.name),
            kind: vector.kind,
            dimensions: vector.dimensions,
            distance: vector.distance,
            model: model(vector, &at)?,
            aliases: Vec::new(),
        };
        match (vector.kind, vector.dimensions) {
            (VectorKind::Sparse, None) => {}
            (VectorKind::Dense | VectorKind::MultiDense, Some(1..=limits::MAX_DIMENSIONS)) => {}
            (VectorKind::Sparse, Some(_)) => {
                return Err(Error::invalid(format!("{at}.dimensions"), "is for dense vectors"));
            }
            _ => {
                let message = format!("must be from 1 to {}", limits::MAX_DIMENSIONS);
                return Err(Error::invalid(format!("{at}.dimensions"), message));
            }
        }
        if vector.of.as_ref().is_some_and(|field| !description.fields.contains_key(field)) {
            return Err(Error::invalid(format!("{at}.of"), "must be one of `fields`"));
        }
        if indexes.iter().any(|before| before.name == index.name) {
            return Err(Error::invalid(format!("{at}.name"), format!("`{}` is there twice", vector.name)));
        }
        indexes.push(index);
    }
    Ok(indexes)
}

/// The model that embeds what is searched for: its id where the registry has it.
fn model(vector: &VectorDescription, at: &str) -> Result<String> {
    let at = format!("{at}.model");
    if vector.model.is_empty() {
        return match vector.of {
            None => Ok(String::new()),
            Some(_) => Err(Error::invalid(at, "is required with `of`")),
        };
    }
    if vector.kind != VectorKind::Dense {
        return Err(Error::invalid(at, "is for dense vectors"));
    }
    if !is_local(&vector.model) {
        return Ok(vector.model.clone());
    }
    let entry = Registry::resolve_for(&vector.model, Task::EmbedText)
        .map_err(|_| Error::invalid(&at, format!("`{}` does not embed texts", vector.model)))?;
    match Some(entry.dimensions) == vector.dimensions {
        true => Ok(entry.id.to_owned()),
        false => Err(Error::invalid(at, format!("`{}` makes vectors of {} numbers", entry.id, entry.dimensions))),
    }
}

/// An error's fields, with `to` where they begin with `from`.
fn named_anew(error: Error, from: &str, to: &str) -> Error {
    let Error::Invalid(mut fields) = error else { return error };
    for field in &mut fields {
        if let Some(rest) = field.field.strip_prefix(from) {
            field.field = format!("{to}{rest}");
        }
    }
    Error::Invalid(fields)
}

fn named_below(error: Error, above: &str) -> Error {
    named_anew(error, "", &format!("{above}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(change: impl FnOnce(&mut Value)) -> Result<Custom> {
        let mut json = json!({
            "protocol": 1, "name": "tone", "version": "v1", "fingerprint": "a",
            "inputs": { "text": { "type": "string", "required": true }, "photo": { "type": "image" } },
            "parameters": { "language": { "type": "string", "default": "en", "enum": ["en", "de"] } },
            "fields": { "tone": "string" },
            "vectors": [
                { "name": "tones", "dimensions": 3 },
                { "name": "words", "dimensions": 384, "model": "all_minilm_l6_v2_v1", "of": "tone" },
            ],
        });
        change(&mut json);
        let description = serde_json::from_value(json).map_err(|e| Error::Malformed(e.to_string()))?;
        Custom::new("ext_1", description)
    }

    #[test]
    fn a_description_becomes_schemas_vectors_and_files() {
        let custom = described(|_| {}).unwrap();
        assert_eq!(custom.input_schema()["required"], json!(["text"]));
        assert_eq!(custom.default_parameters(), json!({ "language": "en" }));
        let shape = custom.shape(&Fields::new()).unwrap();
        assert_eq!((shape.vectors[0].name.as_str(), shape.vectors[0].model.as_str()), ("tone_v1_tones", ""));
        assert_eq!(shape.models, [shape.vectors[1].model.clone()]);
        assert_eq!(custom.files.iter().map(|file| file.name.as_ref()).collect::<Vec<_>>(), ["photo"]);
        for wrong in [json!({ "language": "fr" }), json!({ "language": 1 }), json!({ "tongue": "en" })] {
            assert!(custom.shape(wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_description_is_named() {
        for (at, value) in [
            ("/protocol", json!(2)),
            ("/name", json!("text_extractor")),
            ("/name", json!("Tone")),
            ("/version", json!("1")),
            ("/fingerprint", json!("")),
            ("/inputs", json!({})),
            ("/inputs", json!({ "sheet": { "type": "excel" } })),
            ("/parameters", json!({ "a": { "type": "odd" } })),
            ("/fields", json!({ "document_id": "string" })),
            ("/vectors/0/dimensions", json!(0)),
            ("/vectors/1/of", json!("mood")),
            ("/vectors/1/dimensions", json!(5)),
            ("/vectors/0/name", json!("words")),
            ("/max_batch", json!(0)),
        ] {
            let refused = described(|json| match json.pointer_mut(at) {
                Some(place) => *place = value.clone(),
                None => json[&at[1..]] = value.clone(),
            });
            assert!(matches!(refused, Err(Error::Invalid(_))), "{at} {value}");
        }
    }

    #[test]
    fn another_fingerprint_makes_the_same_and_another_field_does_not() {
        let first = described(|_| {}).unwrap();
        assert!(first.makes_the_same(&described(|json| json["fingerprint"] = json!("b")).unwrap()));
        assert!(!first.makes_the_same(&described(|json| json["vectors"] = json!([])).unwrap()));
    }
}
