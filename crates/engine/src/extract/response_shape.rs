//! `response_shape`: fields that a language model finds in a text, by a JSON schema or by what is asked in words.

use crate::{
    Engine,
    inference::{Form, Message, Patience, Prompt, Role, secret_name},
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use strata_model::{Error, Fields, Result};

/// Texts of one input that are asked about at once.
const AT_ONCE: usize = 4;
/// Longest `response_shape` in words, in characters.
const MAX_WORDS: usize = 10_000;

/// What to find in each text, and by which model.
pub(super) struct ResponseShape {
    /// `provider/model`.
    pub model: String,
    form: Form,
    instructions: String,
    /// The secret whose key is used, as `{{SECRET.name}}`.
    key: Option<String>,
}

impl ResponseShape {
    /// Reads it from an extractor's parameters; `None` where none is asked for.
    pub fn parse(parameters: &Fields) -> Result<Option<Self>> {
        let given = |name: &str| parameters.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match given(name) {
            Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            Some(_) => Err(Error::invalid(format!("parameters.{name}"), "must be a text")),
            None => Ok(None),
        };
        let key = text("llm_api_key")?.map(str::to_owned);
        if key.as_deref().is_some_and(|key| secret_name(key).is_none()) {
            // The parameters are stored and answered as they are.
            return Err(Error::invalid(
                "parameters.llm_api_key",
                "must name a secret, as `{{SECRET.name}}`; make it with POST /v1/organizations/secrets",
            ));
        }
        let Some(shape) = given("response_shape") else { return Ok(None) };
        let (form, instructions) = match shape {
            Value::String(words) if (1..=MAX_WORDS).contains(&words.trim().chars().count()) => {
                (Form::Object, format!("Find the following in the text of the user: {}", words.trim()))
            }
            Value::Object(schema) => {
                let schema = object_schema(schema);
                (
                    Form::Schema(schema.clone()),
                    format!("Find in the text of the user what this JSON schema asks for: {schema}"),
                )
            }
            _ => {
                let message = format!("must be a JSON schema, or words with 1 to {MAX_WORDS} characters");
                return Err(Error::invalid("parameters.response_shape", message));
            }
        };
        let named = text("llm_provider")?.zip(text("llm_model")?);
        let (provider, model) = named.ok_or_else(|| {
            Error::invalid(
                "parameters.llm_model",
                "`response_shape` needs a language model: name `llm_provider` and `llm_model`",
            )
        })?;
        let instructions = format!(
            "{instructions}\n\nAnswer with one JSON object and nothing else. Leave out what the text does not say."
        );
        Ok(Some(Self { model: format!("{provider}/{model}"), form, instructions, key }))
    }

    /// The fields found in each text, in order.
    ///
    /// Errors: as those of [`Engine::generate`]; `Provider` where the model writes no JSON object.
    pub async fn fill(&self, engine: &Engine, organization_id: &str, texts: Vec<String>) -> Result<Vec<Fields>> {
        let target = engine.generator(&self.model)?;
        let target = &target;
        let ask = |text: String| async move {
            let messages = vec![Message::new(Role::System, &self.instructions), Message::new(Role::User, text)];
            let prompt = Prompt { messages, form: self.form.clone(), temperature: Some(0.0), max_tokens: None };
            let patience = Patience::Background;
            let made = engine.generate(organization_id, target, self.key.as_deref(), &prompt, patience).await?;
            match made.json()? {
                Value::Object(fields) => Ok(fields.into_iter().filter(|(_, value)| !value.is_null()).collect()),
                _ => Err(Error::Provider(format!("`{}` wrote JSON that is no object", self.model))),
            }
        };
        stream::iter(texts.into_iter().map(ask)).buffered(AT_ONCE).try_collect().await
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
    let parameters = [
        (
            "response_shape",
            json!({ "description": "A JSON schema, or words, for fields that a language model finds in each chunk. Needs `llm_provider` and `llm_model`." }),
        ),
        (
            "llm_provider",
            json!({ "type": "string", "description": "One of the server's providers, such as `openai`." }),
        ),
        ("llm_model", json!({ "type": "string", "description": "As the provider names it." })),
        (
            "llm_api_key",
            json!({ "type": "string", "description": "A secret with the provider's key, as `{{SECRET.name}}`; else that of the organization or of the server is used." }),
        ),
    ];
    for (name, value) in parameters {
        schema["properties"][name] = value;
    }
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
        assert!(matches!(schema.form, Form::Schema(_)) && schema.model == "own/small");
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
