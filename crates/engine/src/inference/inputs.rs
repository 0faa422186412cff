//! The inputs and parameters of a model that is asked directly, in the spellings that callers use.

use super::generate::{Form, MAX_MESSAGES, Message, Prompt, Role};
use serde::Serialize;
use serde_json::{Value, json};
use strata_model::{Error, Fields, Result};

/// Texts that one request takes.
const MAX_TEXTS: usize = 256;
/// Prompts that one request takes: they are answered one after the other.
const MAX_PROMPTS: usize = 16;
/// Images that one prompt takes.
const MAX_IMAGES: usize = 16;

/// One or more of something, and how they were sent.
pub(super) struct Several<T> {
    pub values: Vec<T>,
    /// Whether they came as a list, so that the answer is one, too.
    pub is_list: bool,
}

/// What was made of each, as they were sent: a list, or the one alone.
pub(super) fn as_asked<T: Serialize>(made: impl IntoIterator<Item = T>, is_list: bool) -> Value {
    let mut made: Vec<Value> = made.into_iter().map(|one| json!(one)).collect();
    if is_list { made.into() } else { made.pop().unwrap_or_default() }
}

/// Refuses parameters that would change nothing. A null is as good as none.
pub(super) fn only(parameters: &Fields, known: &[&str]) -> Result<()> {
    match parameters.iter().find(|(name, value)| !value.is_null() && !known.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            let taken = if known.is_empty() { "no parameters".to_owned() } else { format!("`{}`", known.join("`, `")) };
            Err(Error::invalid(format!("parameters.{name}"), format!("is not taken by this model; it takes {taken}")))
        }
    }
}

/// A required text.
pub(super) fn text(inputs: &Fields, name: &str) -> Result<String> {
    match inputs.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Err(Error::invalid(format!("inputs.{name}"), "is required")),
        Some(_) => Err(Error::invalid(format!("inputs.{name}"), "must be a text")),
    }
}

/// A required list of texts.
pub(super) fn list(inputs: &Fields, name: &str, most: usize) -> Result<Vec<String>> {
    let at = format!("inputs.{name}");
    let list = match inputs.get(name) {
        Some(Value::Array(list)) => list,
        None | Some(Value::Null) => return Err(Error::invalid(at, "is required")),
        Some(_) => return Err(Error::invalid(at, "must be a list of texts")),
    };
    if list.len() > most {
        return Err(Error::invalid(at, format!("are at most {most}")));
    }
    let text = |(i, value): (usize, &Value)| {
        value.as_str().map(str::to_owned).ok_or_else(|| Error::invalid(format!("{at}.{i}"), "must be a text"))
    };
    list.iter().enumerate().map(text).collect()
}

/// The texts to embed: `text`, or a list as `texts`; `input` and `query` mean `text`, too.
pub(super) fn texts(inputs: &Fields) -> Result<Several<String>> {
    if let Some(name) =
        ["texts", "text", "input"].into_iter().find(|name| inputs.get(*name).is_some_and(Value::is_array))
    {
        return Ok(Several { values: list(inputs, name, MAX_TEXTS)?, is_list: true });
    }
    let name = ["text", "input", "query"].into_iter().find(|name| inputs.contains_key(*name)).unwrap_or("text");
    Ok(Several { values: vec![text(inputs, name)?], is_list: false })
}

/// Whether texts are queries, by the one parameter `embedding_task`; they are documents where it is left out.
pub(super) fn are_queries(parameters: &Fields) -> Result<bool> {
    only(parameters, &["embedding_task"])?;
    match parameters.get("embedding_task") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(task)) if task == "retrieval_document" => Ok(false),
        Some(Value::String(task)) if task == "retrieval_query" => Ok(true),
        Some(_) => {
            Err(Error::invalid("parameters.embedding_task", "must be `retrieval_document` or `retrieval_query`"))
        }
    }
}

/// Whether the inputs are those of a model that embeds.
pub(super) fn is_to_embed(inputs: &Fields) -> bool {
    ["text", "texts", "input"].iter().any(|name| inputs.contains_key(*name))
}

/// What a language model is to write: `prompt`, a list as `prompts`, or a conversation as `messages`; with `system` before
/// it and images beside it as `image_url`, `image` or `images`.
pub(super) fn prompts(inputs: &Fields, parameters: &Fields) -> Result<Several<Prompt>> {
    only(parameters, &["temperature", "max_tokens", "response_format", "response_shape", "llm_api_key", "api_key"])?;
    let images = images(inputs)?;
    let system = match inputs.get("system") {
        None | Some(Value::Null) => None,
        Some(_) => Some(Message::new(Role::System, text(inputs, "system")?)),
    };
    let (conversations, is_list) = if inputs.contains_key("messages") {
        (vec![messages(inputs)?], false)
    } else if inputs.contains_key("prompts") {
        let prompts = list(inputs, "prompts", MAX_PROMPTS)?;
        (prompts.into_iter().map(|prompt| vec![Message::new(Role::User, prompt)]).collect(), true)
    } else {
        (vec![vec![Message::new(Role::User, text(inputs, "prompt")?)]], false)
    };
    let (form, temperature, max_tokens) = (form(parameters)?, temperature(parameters)?, max_tokens(parameters)?);
    let made = conversations.into_iter().map(|mut conversation| {
        if let Some(last) = conversation.iter_mut().rfind(|message| message.role == Role::User) {
            last.images.extend(images.iter().cloned());
        }
        let messages = system.iter().cloned().chain(conversation).collect();
        Prompt { messages, form: form.clone(), temperature, top_p: None, max_tokens }
    });
    Ok(Several { values: made.collect(), is_list })
}

fn images(inputs: &Fields) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for name in ["image_url", "image", "images", "image_urls"] {
        match inputs.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Array(_)) => images.extend(list(inputs, name, MAX_IMAGES)?),
            Some(_) => images.push(text(inputs, name)?),
        }
    }
    let is_address = |image: &String| image.starts_with("data:image/") || crate::inline::is_url(image);
    if images.len() > MAX_IMAGES || !images.iter().all(is_address) {
        return Err(Error::invalid(
            "inputs.images",
            format!("must be at most {MAX_IMAGES} data URIs or HTTP URLs of images"),
        ));
    }
    Ok(images)
}

fn messages(inputs: &Fields) -> Result<Vec<Message>> {
    let list = inputs.get("messages").and_then(Value::as_array).filter(|list| (1..=MAX_MESSAGES).contains(&list.len()));
    let list = list
        .ok_or_else(|| Error::invalid("inputs.messages", format!("must be a list of 1 to {MAX_MESSAGES} messages")))?;
    let read = |(i, message): (usize, &Value)| {
        let role = message.get("role").and_then(Value::as_str).and_then(Role::parse);
        let role = role.ok_or_else(|| {
            Error::invalid(format!("inputs.messages.{i}.role"), "must be `system`, `user` or `assistant`")
        })?;
        let text = message.get("content").and_then(Value::as_str);
        let text = text.ok_or_else(|| Error::invalid(format!("inputs.messages.{i}.content"), "must be a text"))?;
        Ok(Message::new(role, text))
    };
    list.iter().enumerate().map(read).collect()
}

/// `response_format` as OpenAI's protocol has it, or `response_shape`: a JSON schema.
fn form(parameters: &Fields) -> Result<Form> {
    let given = |name: &str| parameters.get(name).filter(|value| !value.is_null());
    if let Some(schema) = given("response_shape") {
        let is_object = schema.is_object();
        let wrong = || Error::invalid("parameters.response_shape", "must be a JSON schema");
        return if is_object { Ok(Form::Schema(schema.clone())) } else { Err(wrong()) };
    }
    let Some(format) = given("response_format") else { return Ok(Form::Free) };
    let schema = format.pointer("/json_schema/schema").filter(|schema| schema.is_object());
    match (format.get("type").and_then(Value::as_str), schema) {
        (Some("text"), _) => Ok(Form::Free),
        (Some("json_object"), _) => Ok(Form::Object),
        (Some("json_schema"), Some(schema)) => Ok(Form::Schema(schema.clone())),
        _ => Err(Error::invalid(
            "parameters.response_format",
            "must have the `type` `text`, `json_object`, or `json_schema` with `json_schema.schema`",
        )),
    }
}

fn temperature(parameters: &Fields) -> Result<Option<f64>> {
    let Some(value) = parameters.get("temperature").filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_f64().filter(|number| (0.0..=2.0).contains(number));
    number.map(Some).ok_or_else(|| Error::invalid("parameters.temperature", "must be a number from 0 to 2"))
}

fn max_tokens(parameters: &Fields) -> Result<Option<u64>> {
    let Some(value) = parameters.get("max_tokens").filter(|value| !value.is_null()) else { return Ok(None) };
    let number = value.as_u64().filter(|number| (1..=1_000_000).contains(number));
    number.map(Some).ok_or_else(|| Error::invalid("parameters.max_tokens", "must be a whole number from 1 to 1000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(value: Value) -> Fields {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn texts_are_answered_as_they_were_sent() {
        let one = texts(&fields(json!({ "text": "a" }))).unwrap();
        assert_eq!((one.values.len(), as_asked([[1.0]], one.is_list)), (1, json!([1.0])));
        let list = texts(&fields(json!({ "texts": ["a"] }))).unwrap();
        assert_eq!(as_asked([[1.0]], list.is_list), json!([[1.0]]));
        for wrong in [json!({}), json!({ "text": 1 }), json!({ "texts": [1] }), json!({ "texts": vec!["a"; 257] })] {
            assert!(texts(&fields(wrong.clone())).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_parameter_tells_queries_from_documents() {
        let read = |parameters: Value| are_queries(&fields(parameters));
        assert!(!read(json!({ "embedding_task": null })).unwrap());
        assert!(!read(json!({ "embedding_task": "retrieval_document" })).unwrap());
        assert!(read(json!({ "embedding_task": "retrieval_query" })).unwrap());
        for wrong in [json!({ "embedding_task": "clustering" }), json!({ "embedding_task": 1 }), json!({ "task": "x" })]
        {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn prompts_carry_what_belongs_to_them() {
        let inputs = json!({ "system": "be brief", "prompts": ["a", "b"], "image_url": "https://example.com/a.png" });
        let made = prompts(&fields(inputs), &fields(json!({ "temperature": 0, "max_tokens": 5 }))).unwrap();
        assert!(made.is_list && made.values.len() == 2);
        let prompt = &made.values[1];
        assert_eq!((prompt.messages[0].role, prompt.messages[1].text.as_str()), (Role::System, "b"));
        assert_eq!((prompt.messages[1].images.len(), prompt.temperature, prompt.max_tokens), (1, Some(0.0), Some(5)));
        let chat = json!({ "messages": [{ "role": "user", "content": "hello" }] });
        assert!(!prompts(&fields(chat.clone()), &Fields::new()).unwrap().is_list);
        for wrong in [
            json!({ "messages": [] }),
            json!({ "messages": [{ "role": "me", "content": "x" }] }),
            json!({}),
            json!({ "prompt": "x", "image": "file:///etc/passwd" }),
        ] {
            assert!(prompts(&fields(wrong.clone()), &Fields::new()).is_err(), "{wrong}");
        }
        for wrong in [
            json!({ "temperature": 3 }),
            json!({ "max_tokens": 0 }),
            json!({ "top_p": 1 }),
            json!({ "response_format": { "type": "xml" } }),
        ] {
            assert!(prompts(&fields(chat.clone()), &fields(wrong.clone())).is_err(), "{wrong}");
        }
    }
}
