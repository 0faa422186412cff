//! What is compared: the elements of a value.

use crate::retrieval::params::choice;
use serde_json::Value;
use strata_model::Result;

/// Labels that say nothing.
pub const GENERIC: [&str; 13] = [
    "unknown",
    "other",
    "others",
    "none",
    "n/a",
    "object",
    "item",
    "thing",
    "label",
    "text",
    "image",
    "misc",
    "background",
];
/// Keys of an object under which its text stands.
const TEXTS: [&str; 6] = ["label", "name", "text", "content", "value", "title"];

/// How a value is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extraction {
    Raw,
    Lines,
    Labels,
    List,
}

impl Extraction {
    pub fn read(value: &Value, at: &str) -> Result<Self> {
        let known = [("raw", Self::Raw), ("lines", Self::Lines), ("labels", Self::Labels), ("list", Self::List)];
        choice(value, at, &known)
    }

    pub fn element_type(self) -> &'static str {
        match self {
            Self::Raw => "text",
            Self::Lines => "line",
            Self::Labels => "label",
            Self::List => "item",
        }
    }

    /// The elements in their order, without blank ones; labels each once.
    pub fn elements(self, value: &Value, filter_generic: bool) -> Vec<String> {
        let texts: Vec<String> = match value {
            Value::Array(list) => list.iter().filter_map(text_of).collect(),
            one => text_of(one).into_iter().collect(),
        };
        let parted: Vec<String> = match self {
            Self::Raw if texts.is_empty() => Vec::new(),
            Self::Raw => vec![texts.join("\n")],
            Self::List => texts,
            Self::Lines => texts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect(),
            Self::Labels => {
                texts.iter().flat_map(|text| text.split([',', ';', '|', '\n', '\r'])).map(str::to_owned).collect()
            }
        };
        let mut elements: Vec<String> = Vec::new();
        for part in parted {
            let part = part.trim();
            let is_generic = self == Self::Labels && filter_generic && GENERIC.contains(&part.to_lowercase().as_str());
            let is_again = self == Self::Labels && elements.iter().any(|other| other.eq_ignore_ascii_case(part));
            if !part.is_empty() && !is_generic && !is_again {
                elements.push(part.to_owned());
            }
        }
        elements
    }
}

/// The text of an item: itself, or what an object has under one of the usual keys.
pub fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Object(fields) => TEXTS.iter().find_map(|key| fields.get(*key)?.as_str()).map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_taken_apart_in_four_ways() {
        let of = |extraction: Extraction, value: Value| extraction.elements(&value, true);
        let text = json!("Red car, road;  Other\nred CAR | tree\n\n");
        assert_eq!(of(Extraction::Raw, text.clone()).len(), 1);
        assert_eq!(of(Extraction::Lines, text.clone()), ["Red car, road;  Other", "red CAR | tree"]);
        assert_eq!(of(Extraction::Labels, text.clone()), ["Red car", "road", "tree"]);
        assert_eq!(Extraction::Labels.elements(&text, false), ["Red car", "road", "Other", "tree"]);
        let list = json!(["a", {"label": "b"}, {"name": "c", "score": 1}, 5, null, {"x": "d"}, " "]);
        assert_eq!(of(Extraction::List, list.clone()), ["a", "b", "c", "5"]);
        assert_eq!(of(Extraction::Raw, list), ["a\nb\nc\n5"]);
        for nothing in [json!(null), json!([]), json!({}), json!(" "), json!(true)] {
            assert!(of(Extraction::Raw, nothing.clone()).is_empty(), "{nothing}");
        }
    }
}
