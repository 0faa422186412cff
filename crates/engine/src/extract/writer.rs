//! The language model that an extractor asks: which one, with whose key, and how it writes.

use crate::{
    Engine,
    inference::{Form, Generated, Message, Patience, Prompt, Role, secret_name},
};
use serde_json::{Value, json};
use strata_model::{Error, Fields, Result};

/// Most tokens of one answer that can be asked for.
const MAX_TOKENS: u64 = 1_000_000;

/// A model of a provider.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    /// `provider/model`.
    pub model: String,
    pub generation: Generation,
    /// The secret whose key is used, as `{{SECRET.name}}`.
    key: Option<String>,
}

/// How a model writes. What is left out is the provider's to choose.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Generation {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub max_tokens: Option<u64>,
}

impl Writer {
    /// Reads it from an extractor's parameters. `asked_by` is the parameter that needs it.
    ///
    /// Errors: `Invalid` where no model is named.
    pub fn parse(parameters: &Fields, asked_by: &str, generation: Generation) -> Result<Self> {
        let key = key(parameters)?;
        let named = text(parameters, "llm_provider")?.zip(text(parameters, "llm_model")?);
        let (provider, model) = named.ok_or_else(|| {
            let message = format!("`{asked_by}` needs a language model: name `llm_provider` and `llm_model`");
            Error::invalid("parameters.llm_model", message)
        })?;
        Ok(Self { model: format!("{provider}/{model}"), generation, key })
    }

    /// Has the model answer a message as the instructions say.
    ///
    /// Errors: as those of [`Engine::generate`].
    pub async fn write(
        &self,
        engine: &Engine,
        organization_id: &str,
        instructions: &str,
        message: Message,
        form: Form,
    ) -> Result<Generated> {
        let target = engine.generator(&self.model)?;
        let Generation { temperature, top_p, max_tokens } = self.generation;
        let messages = vec![Message::new(Role::System, instructions), message];
        let prompt = Prompt { messages, form, temperature, top_p, max_tokens };
        engine.generate(organization_id, &target, self.key.as_deref(), &prompt, Patience::Background).await
    }
}

/// The secret that `llm_api_key` names. A key itself is refused, also where nobody would use it: the parameters are
/// stored and answered as they are.
pub(super) fn key(parameters: &Fields) -> Result<Option<String>> {
    let key = text(parameters, "llm_api_key")?;
    if key.is_some_and(|key| secret_name(key).is_none()) {
        return Err(Error::invalid(
            "parameters.llm_api_key",
            "must name a secret, as `{{SECRET.name}}`; make it with POST /v1/organizations/secrets",
        ));
    }
    Ok(key.map(str::to_owned))
}

/// A text among the parameters; a blank one is as good as none.
fn text<'a>(parameters: &'a Fields, name: &str) -> Result<Option<&'a str>> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
        Some(_) => Err(Error::invalid(format!("parameters.{name}"), "must be a text")),
    }
}

impl Generation {
    /// Reads `generation_config`. What shapes an answer is asked for elsewhere.
    pub fn parse(parameters: &Fields) -> Result<Self> {
        let at = |name: &str| format!("parameters.generation_config.{name}");
        let given = match parameters.get("generation_config") {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Object(given)) => given,
            Some(_) => return Err(Error::invalid("parameters.generation_config", "must be an object")),
        };
        let given = |name: &str| given.get(name).filter(|value| !value.is_null());
        let number = |name: &str, most: f64| match given(name) {
            None => Ok(None),
            Some(value) => {
                let number = value.as_f64().filter(|number| (0.0..=most).contains(number));
                let wrong = || Error::invalid(at(name), format!("must be a number from 0 to {most}"));
                number.map(Some).ok_or_else(wrong)
            }
        };
        if given("candidate_count").is_some_and(|count| count.as_f64() != Some(1.0)) {
            return Err(Error::invalid(at("candidate_count"), "must be 1: a document takes one answer"));
        }
        if given("response_schema").is_some() {
            return Err(Error::invalid(at("response_schema"), "is not taken; ask for fields with `response_shape`"));
        }
        let max_tokens = match given("max_output_tokens") {
            None => None,
            Some(value) => Some(value.as_u64().filter(|count| (1..=MAX_TOKENS).contains(count)).ok_or_else(|| {
                Error::invalid(at("max_output_tokens"), format!("must be a whole number from 1 to {MAX_TOKENS}"))
            })?),
        };
        Ok(Self { temperature: number("temperature", 2.0)?, top_p: number("top_p", 1.0)?, max_tokens })
    }
}

/// Adds the parameters that name a model to an extractor's schema.
pub(super) fn describe(schema: &mut Value) {
    let parameters = [
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

    fn fields(value: Value) -> Fields {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn who_needs_a_model_is_told_which_parameter_names_it() {
        let parse = |value: Value| Writer::parse(&fields(value), "run_video_description", Generation::default());
        let named = parse(json!({ "llm_provider": " own ", "llm_model": "small" })).unwrap();
        assert_eq!(named.model, "own/small");
        let blank = json!({ "llm_provider": "own", "llm_model": " " });
        for missing in [json!({}), json!({ "llm_provider": "own" }), blank] {
            let refused = parse(missing.clone()).err().unwrap().to_string();
            assert!(refused.contains("llm_model") && refused.contains("run_video_description"), "{missing}: {refused}");
        }
        assert!(parse(json!({ "llm_provider": 7, "llm_model": "small" })).is_err());
    }

    #[test]
    fn how_a_model_writes_is_passed_on_or_refused_by_name() {
        let parse = |config: Value| Generation::parse(&fields(json!({ "generation_config": config })));
        let all = json!({ "temperature": 0.2, "top_p": 0.8, "max_output_tokens": 1024, "candidate_count": 1,
            "response_mime_type": null, "response_schema": null });
        let expected = Generation { temperature: Some(0.2), top_p: Some(0.8), max_tokens: Some(1024) };
        assert_eq!(parse(all).unwrap(), expected);
        assert_eq!(parse(json!(null)).unwrap(), Generation::default());
        for (name, value) in [
            ("temperature", json!(3)),
            ("top_p", json!(1.5)),
            ("max_output_tokens", json!(0)),
            ("candidate_count", json!(2)),
            ("response_schema", json!({})),
        ] {
            let refused = parse(json!({ name: value })).err().unwrap().to_string();
            assert!(refused.contains(&format!("generation_config.{name}")), "{refused}");
        }
        assert!(parse(json!([])).is_err());
    }
}
