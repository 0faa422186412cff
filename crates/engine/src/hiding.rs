//! What must not be shown: values of secrets are taken out of texts, answers and errors, however a server spells them.

use crate::retrieval::template::percent_encoded;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use strata_model::{Error, FieldError};

/// Values that are taken out of everything that is shown.
#[derive(Default)]
pub(crate) struct Hidden {
    /// Every spelling in which a server may send one back, the longest first.
    spellings: Vec<String>,
}

impl Hidden {
    pub fn of(values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut hidden = Self::default();
        for value in values {
            hidden.hide(value.as_ref());
        }
        hidden
    }

    /// Takes one more value out.
    pub fn hide(&mut self, value: &str) {
        let form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let quoted = Value::from(value).to_string();
        self.spellings.extend([
            form.replace('+', "%20"),
            form,
            percent_encoded(value).collect(),
            STANDARD.encode(value),
            quoted[1..quoted.len() - 1].to_owned(),
            value.to_owned(),
        ]);
        // As a URL spells what it was made of without encoding.
        if let Ok(mut url) = url::Url::parse("http://host/") {
            url.set_query(Some(value));
            self.spellings.extend(url.query().map(str::to_owned));
            url.set_path(value);
            self.spellings.push(url.path().trim_start_matches('/').to_owned());
        }
        self.spellings.retain(|spelling| !spelling.is_empty());
        self.spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        self.spellings.dedup();
    }

    pub fn in_text(&self, text: String) -> String {
        self.spellings.iter().fold(text, |text, spelling| match text.contains(spelling) {
            true => text.replace(spelling, "[secret]"),
            false => text,
        })
    }

    pub fn in_value(&self, value: Value) -> Value {
        if self.spellings.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.in_text(text)),
            Value::Array(list) => list.into_iter().map(|value| self.in_value(value)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (self.in_text(key), self.in_value(value))).collect()
            }
            Value::Number(number) if self.spellings.contains(&number.to_string()) => "[secret]".into(),
            other => other,
        }
    }

    pub fn in_error(&self, error: Error) -> Error {
        match error {
            Error::Invalid(fields) => {
                Error::Invalid(fields.into_iter().map(|e| FieldError::new(e.field, self.in_text(e.message))).collect())
            }
            Error::Malformed(text) => Error::Malformed(self.in_text(text)),
            Error::Forbidden(text) => Error::Forbidden(self.in_text(text)),
            Error::Conflict(text) => Error::Conflict(self.in_text(text)),
            Error::TooLarge(text) => Error::TooLarge(self.in_text(text)),
            Error::Unavailable(text) => Error::Unavailable(self.in_text(text)),
            Error::Upstream(text) => Error::Upstream(self.in_text(text)),
            Error::Provider(text) => Error::Provider(self.in_text(text)),
            Error::Internal(text) => Error::Internal(self.in_text(text)),
            Error::Busy { message, retry_after_seconds } => {
                Error::Busy { message: self.in_text(message), retry_after_seconds }
            }
            other @ (Error::Unauthenticated(_) | Error::Missing { .. } | Error::Quota { .. } | Error::Full(_)) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_spelling_of_a_secret_is_shown() {
        let hidden = Hidden::of(["p&s \"w\"", "4711"]);
        let shown = hidden.in_value(json!({
            "plain": "it is p&s \"w\"", "url": "/?q=p%26s%20%22w%22&r=p%26s+%22w%22", "basic": format!("Basic {}", STANDARD.encode("p&s \"w\"")),
            "echo": r#"{"key": "p&s \"w\""}"#, "list": [4711, 4712, "x4711"], "p&s \"w\"": 1,
        }));
        assert_eq!(
            shown,
            json!({
                "plain": "it is [secret]", "url": "/?q=[secret]&r=[secret]", "basic": "Basic [secret]",
                "echo": r#"{"key": "[secret]"}"#, "list": ["[secret]", 4712, "x[secret]"], "[secret]": 1,
            })
        );
        let odd = Hidden::of(["a*~ <b>"]);
        let urls = json!(["/a%2A~%20%3Cb%3E", "/a*~%20%3Cb%3E", "?a*~%20%3Cb%3E", "?a*%7E+%3Cb%3E"]);
        assert_eq!(odd.in_value(urls), json!(["/[secret]", "/[secret]", "?[secret]", "?[secret]"]));
        let error = hidden.in_error(Error::Upstream("`http://h/?key=4711` cannot be reached".into()));
        assert_eq!(error.to_string(), "`http://h/?key=[secret]` cannot be reached");
    }
}
