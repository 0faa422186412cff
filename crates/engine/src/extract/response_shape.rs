//! `response_shape`: fields that a language model finds in what an input says or shows, by a JSON schema or by what is
//! asked in words.

use super::writer::{self, Generation, Writer};
use crate::{
    Engine,
    inference::{Form, Message, Role},
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use strata_model::{Error, Fields, Result};

/// Texts of one input that are asked about at once.
const AT_ONCE: usize = 4;
/// Longest `response_shape` in words, in characters.
const MAX_WORDS: usize = 10_000;

/// What to find, and by which model.
pub(super) struct ResponseShape {
    pub writer: Writer,
    form: Form,
    instructions: String,
}

impl ResponseShape {
    /// Reads it from an extractor's parameters; `None` where none is asked for.
    pub fn parse(parameters: &Fields) -> Result<Option<Self>> {
        writer::key(parameters)?;
        let Some(shape) = parameters.get("response_shape").filter(|shape| !shape.is_null()) else { return Ok(None) };
        let (form, instructions) = match shape {
            Value::String(words) if (1..=MAX_WORDS).contains(&words.trim().chars().count()) => {
                (Form::Object, format!("Find the following in what the user sends: {}", words.trim()))
            }
            Value::Object(schema) => {
                let schema = object_schema(schema);
                (
                    Form::Schema(schema.clone()),
                    format!("Find in what the user sends what this JSON schema asks for: {schema}"),
                )
            }
            _ => {
                let message = format!("must be a JSON schema, or words with 1 to {MAX_WORDS} characters");
                return Err(Error::invalid("parameters.response_shape", message));
            }
        };
        let instructions = format!(
            "{instructions}\n\nAnswer with one JSON object and nothing else. Leave out what is neither said nor shown."
        );
        let exact = Generation { temperature: Some(0.0), ..Generation::default() };
        let writer = Writer::parse(parameters, "response_shape", exact)?;
        Ok(Some(Self { writer, form, instructions }))
    }

    /// The fields found in each text, in order. Errors as those of [`ResponseShape::of`].
    pub async fn fill(&self, engine: &Engine, organization_id: &str, texts: Vec<String>) -> Result<Vec<Fields>> {
        let ask = |text: String| self.of(engine, organization_id, Message::new(Role::User, text));
        stream::iter(texts.into_iter().map(ask)).buffered(AT_ONCE).try_collect().await
    }

    /// The fields found in a message, its pictures among it.
    ///
    /// Errors: as those of [`Engine::generate`]; `Provider` where the model writes no JSON object.
    pub async fn of(&self, engine: &Engine, organization_id: &str, message: Message) -> Result<Fields> {
        let form = self.form.clone();
        let made = self.writer.write(engine, organization_id, &self.instructions, message, form).await?;
        match made.json()? {
            Value::Object(fields) => Ok(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
            _ => Err(Error::Provider(format!("`{}` wrote JSON that is no object", self.writer.model))),
        }
    }
}

/// A schema, or the bare `properties` of one.
fn object_schema(shape: &Map<String, Value>) -> Value {
    match shape.get("properties") {
        Some(Value::Object(_)) => Value::Object(shape.clone()),
        _ => json!({ "type": "object", "properties": shape }),
    }
}

/// The fields that a `response_shape` adds to documents, with their schemas; none where it is in words.
pub(super) fn properties(parameters: &Fields) -> Map<String, Value> {
    let shape = parameters.get("response_shape").and_then(Value::as_object).map(object_schema);
    shape.and_then(|mut schema| schema["properties"].as_object_mut().map(std::mem::take)).unwrap_or_default()
}

/// Adds the parameters that are read here to an extractor's schema.
pub(super) fn describe(schema: &mut Value) {
    schema["properties"]["response_shape"] = json!({ "description": "A JSON schema, or words, for fields that a language model finds for each document. Needs `llm_provider` and `llm_model`." });
    writer::describe(schema);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: Value) -> Result<Option<ResponseShape>> {
        ResponseShape::parse(&parameters.as_object().cloned().unwrap())
    }

    #[test]
    fn a_shape_is_a_schema_or_words_and_has_a_model() {
        let model = json!({ "llm_provider": "own", "llm_model": "small", "llm_api_key": "{{SECRET.key}}" });
        let with = |shape: Value| {
            let mut parameters = model.clone();
            parameters["response_shape"] = shape;
            parse(parameters)
        };
        let schema = with(json!({ "properties": { "tone": { "type": "string" } } })).unwrap().unwrap();
        assert!(matches!(schema.form, Form::Schema(_)) && schema.writer.model == "own/small");
        assert_eq!(with(json!("the tone")).unwrap().unwrap().form, Form::Object);
        assert!(with(json!(7)).is_err() && with(json!("")).is_err());
        assert!(parse(json!({})).unwrap().is_none());
        assert!(parse(json!({ "response_shape": "the tone" })).is_err(), "no model");
        let refused = parse(json!({ "llm_api_key": "sk-s3cret" })).err().unwrap().to_string();
        assert!(refused.contains("llm_api_key") && !refused.contains("s3cret"), "{refused}");
    }

    #[test]
    fn the_fields_of_a_schema_are_known_before_there_are_any() {
        let of = |shape: Value| properties(&json!({ "response_shape": shape }).as_object().cloned().unwrap());
        assert!(of(json!({ "type": "object", "properties": { "tone": {} } })).contains_key("tone"));
        assert!(of(json!({ "tone": { "type": "string" } })).contains_key("tone"));
        assert!(of(json!("the tone")).is_empty());
    }
}
