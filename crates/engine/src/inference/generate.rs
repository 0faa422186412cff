//! Texts that a language model writes. Every part of the engine that needs one goes through [`Engine::generate`].

use super::{
    client::Patience,
    embed::{Usage, add_usage, is_local},
    providers::{ProviderTask, Target},
};
use crate::Engine;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use strata_model::{Error, Result};

/// Most messages of one request.
pub(crate) const MAX_MESSAGES: usize = 100;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::System, Self::User, Self::Assistant].into_iter().find(|role| role.as_str() == text)
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub role: Role,
    pub text: String,
    /// Data URIs, or URLs that the provider can reach, of images that belong to it.
    pub images: Vec<String>,
}

impl Message {
    pub fn new(role: Role, text: impl Into<String>) -> Self {
        Self { role, text: text.into(), images: Vec::new() }
    }

    /// Puts a JPEG beside the text.
    pub fn show_jpeg(&mut self, bytes: &[u8]) {
        self.images.push(format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)));
    }

    fn to_json(&self) -> Value {
        if self.images.is_empty() {
            return json!({ "role": self.role.as_str(), "content": self.text });
        }
        let text = json!({ "type": "text", "text": self.text });
        let images = self.images.iter().map(|url| json!({ "type": "image_url", "image_url": { "url": url } }));
        let parts: Vec<Value> = std::iter::once(text).chain(images).collect();
        json!({ "role": self.role.as_str(), "content": parts })
    }
}

/// What a text must be.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Form {
    #[default]
    Free,
    /// A JSON object.
    Object,
    /// JSON that fits this schema, as far as the provider holds to it.
    Schema(Value),
}

impl Form {
    fn to_json(&self) -> Option<Value> {
        match self {
            Self::Free => None,
            Self::Object => Some(json!({ "type": "json_object" })),
            Self::Schema(schema) => {
                Some(json!({ "type": "json_schema", "json_schema": { "name": "answer", "schema": schema } }))
            }
        }
    }
}

/// What to write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    pub messages: Vec<Message>,
    pub form: Form,
    /// 0 to 2; what the provider does where it is left out is the provider's.
    pub temperature: Option<f64>,
    /// The share of the likeliest words that are chosen from, 0 to 1; likewise.
    pub top_p: Option<f64>,
    /// Most tokens of the text.
    pub max_tokens: Option<u64>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    pub text: String,
    pub usage: Usage,
    /// Whether the text ends where it was cut, at `max_tokens` or the model's own limit.
    pub is_cut: bool,
}

impl Generated {
    /// The text as JSON, also where it stands in a fence of Markdown.
    ///
    /// Errors: `Provider` where it is none.
    pub fn json(&self) -> Result<Value> {
        let text = self.text.trim();
        let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
        let text = inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner));
        serde_json::from_str(text.trim()).map_err(|_| {
            let why = if self.is_cut { "it was cut off" } else { "it is none" };
            Error::Provider(format!("a language model should have written JSON; {why}"))
        })
    }
}

impl Engine {
    /// The language model of a name, `provider/model`. None runs here.
    ///
    /// Errors: `Invalid` for a model that does not write; `Unavailable` where there is no such provider; `Missing` where
    /// the name is no model's.
    pub(crate) fn generator(&self, name: &str) -> Result<Target> {
        if is_local(name) {
            return Err(Error::invalid("model", format!("`{name}` writes no texts")));
        }
        let Some((provider, _)) = name.split_once('/') else { return Err(Error::missing("model", name)) };
        let target = self.providers.target(name).ok_or_else(|| self.unknown_provider(provider))?;
        target.must(ProviderTask::Generate, "model")?;
        Ok(target)
    }

    /// Has a language model write a text. `key` is the caller's own, see [`Engine::provider_key`].
    ///
    /// Errors: as those of [`Provider::post`](super::providers::Provider::post); `Provider` where there is no text in the
    /// answer.
    pub(crate) async fn generate(
        &self,
        organization_id: &str,
        target: &Target,
        key: Option<&str>,
        prompt: &Prompt,
        patience: Patience,
    ) -> Result<Generated> {
        let key = self.provider_key(organization_id, &target.provider, key).await?;
        let messages: Vec<Value> = prompt.messages.iter().map(Message::to_json).collect();
        let mut body = json!({ "model": target.model, "messages": messages });
        let options = [
            ("temperature", prompt.temperature.map(Value::from)),
            ("top_p", prompt.top_p.map(Value::from)),
            ("max_tokens", prompt.max_tokens.map(Value::from)),
            ("response_format", prompt.form.to_json()),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let answer = target.provider.post("/chat/completions", key.as_deref(), &body, patience).await?;
        written(&answer).ok_or_else(|| Error::Provider(format!("`{}` answered without a text", target.id())))
    }
}

/// The text of an answer; `None` where it has none.
fn written(answer: &Value) -> Option<Generated> {
    let choice = answer.get("choices")?.get(0)?;
    let text = match choice.pointer("/message/content")? {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part.get("text")?.as_str()).collect(),
        _ => return None,
    };
    let mut usage = Usage::new();
    add_usage(&mut usage, answer);
    Some(Generated { text, usage, is_cut: choice.get("finish_reason").is_some_and(|reason| reason == "length") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_from_an_answer_or_is_not_there() {
        let answer = json!({
            "choices": [{ "message": { "content": "hello" }, "finish_reason": "length" }],
            "usage": { "total_tokens": 3, "details": { "cached": 1 } },
        });
        let found = written(&answer).unwrap();
        assert_eq!((found.text.as_str(), found.is_cut, found.usage.len()), ("hello", true, 1));
        let parts = json!({ "choices": [{ "message": { "content": [{ "text": "a" }, { "text": "b" }] } }] });
        assert_eq!(written(&parts).unwrap().text, "ab");
        for wrong in [json!({}), json!({ "choices": [] }), json!({ "choices": [{ "message": { "content": null } }] })] {
            assert_eq!(written(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn json_is_read_with_and_without_a_fence() {
        let of = |text: &str| Generated { text: text.into(), usage: Usage::new(), is_cut: false }.json();
        for text in ["{\"a\": 1}", "```json\n{\"a\": 1}\n```", " ```{\"a\":1}``` "] {
            assert_eq!(of(text).unwrap(), json!({ "a": 1 }), "{text}");
        }
        assert!(matches!(of("Sure! Here is"), Err(Error::Provider(_))));
    }

    #[test]
    fn images_go_beside_the_text_of_their_message() {
        let mut message = Message::new(Role::User, "what is this?");
        assert_eq!(message.to_json()["content"], "what is this?");
        message.images.push("data:image/png;base64,AA==".into());
        message.show_jpeg(&[0]);
        let content = message.to_json()["content"].clone();
        assert_eq!(content[1]["image_url"]["url"], "data:image/png;base64,AA==");
        assert_eq!(content[2]["image_url"]["url"], "data:image/jpeg;base64,AA==");
    }
}
