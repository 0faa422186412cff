//! Bucket and collection schemas: named, typed fields, and the check of an object's fields against them.

use crate::{Error, FieldError, Fields, Result, limits};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    String,
    Number,
    Integer,
    Float,
    Boolean,
    Object,
    Array,
    Date,
    Datetime,
    Text,
    Image,
    Audio,
    Video,
    Pdf,
    Excel,
}

impl FieldType {
    const ALL: [(&'static str, Self); 15] = [
        ("string", Self::String),
        ("number", Self::Number),
        ("integer", Self::Integer),
        ("float", Self::Float),
        ("boolean", Self::Boolean),
        ("object", Self::Object),
        ("array", Self::Array),
        ("date", Self::Date),
        ("datetime", Self::Datetime),
        ("text", Self::Text),
        ("image", Self::Image),
        ("audio", Self::Audio),
        ("video", Self::Video),
        ("pdf", Self::Pdf),
        ("excel", Self::Excel),
    ];
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, t)| *t)
    }
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, t)| *t == self).map_or("string", |(name, _)| name)
    }
    pub fn names() -> String {
        Self::ALL.map(|(name, _)| name).join(", ")
    }
    /// Whether values of this type live in a blob rather than in the row.
    pub fn is_file(self) -> bool {
        matches!(self, Self::Text | Self::Image | Self::Audio | Self::Video | Self::Pdf | Self::Excel)
    }

    fn accepts(self, value: &Value) -> bool {
        match self {
            Self::String | Self::Text => value.is_string(),
            Self::Number | Self::Float => value.is_number(),
            Self::Integer => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::Date => value.as_str().is_some_and(|t| t.get(..10).unwrap_or(t).parse::<jiff::civil::Date>().is_ok()),
            Self::Datetime => value
                .as_str()
                .is_some_and(|t| t.parse::<jiff::Timestamp>().is_ok() || t.parse::<jiff::civil::DateTime>().is_ok()),
            Self::Image | Self::Audio | Self::Video | Self::Pdf | Self::Excel => value.is_string() || value.is_object(),
        }
    }
}

/// One field of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub kind: FieldType,
    pub required: bool,
    pub default: Option<Value>,
    pub one_of: Option<Vec<Value>>,
    pub items: Option<Box<Field>>,
    pub properties: Option<Vec<(String, Field)>>,
}

/// A schema as sent, and as understood. The JSON is what answers show, unknown keys included.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    pub json: Value,
    pub fields: Vec<(String, Field)>,
}

impl Schema {
    /// Reads `{"properties": {name: {type, required, default, enum, items, properties}}}`.
    pub fn parse(json: &Value, at: &str) -> Result<Self> {
        let Some(properties) = json.get("properties").and_then(Value::as_object) else {
            return Err(Error::invalid(
                format!("{at}.properties"),
                "is required: an object of field names to definitions",
            ));
        };
        let fields = properties_of(properties, &format!("{at}.properties"), 0)?;
        Ok(Self { json: json.clone(), fields })
    }
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, f)| f)
    }
    /// Checks `values` and fills defaults. `present` says which file fields a blob provides.
    pub fn check(&self, values: &mut Fields, present: impl Fn(&str) -> bool) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, field) in &self.fields {
            match values.get(name) {
                None | Some(Value::Null) => {
                    if let Some(default) = &field.default {
                        values.insert(name.clone(), default.clone());
                    } else if field.required && !present(name) {
                        wrong.push(FieldError::new(name, format!("is required ({})", field.kind.as_str())));
                    }
                }
                Some(value) => field.check(value, name, &mut wrong),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
    }
}

fn properties_of(map: &Fields, at: &str, depth: usize) -> Result<Vec<(String, Field)>> {
    if depth > limits::MAX_FILTER_DEPTH {
        return Err(Error::invalid(at, "schemas nest at most 16 levels"));
    }
    map.iter().map(|(name, json)| Ok((name.clone(), field_of(json, &format!("{at}.{name}"), depth)?))).collect()
}

fn field_of(json: &Value, at: &str, depth: usize) -> Result<Field> {
    let text = match json {
        Value::String(text) => text.as_str(),
        _ => json
            .get("type")
            .and_then(Value::as_str)
            .ok_or_else(|| Error::invalid(format!("{at}.type"), "is required"))?,
    };
    let kind = FieldType::parse(&text.to_lowercase()).ok_or_else(|| {
        Error::invalid(format!("{at}.type"), format!("`{text}` is not a type; one of {}", FieldType::names()))
    })?;
    let items = match json.get("items").filter(|v| !v.is_null()) {
        Some(items) if depth < limits::MAX_FILTER_DEPTH => {
            Some(Box::new(field_of(items, &format!("{at}.items"), depth + 1)?))
        }
        Some(_) => return Err(Error::invalid(at, "schemas nest at most 16 levels")),
        None => None,
    };
    let properties = match json.get("properties").and_then(Value::as_object) {
        Some(map) => Some(properties_of(map, &format!("{at}.properties"), depth + 1)?),
        None => None,
    };
    Ok(Field {
        kind,
        required: json.get("required").and_then(Value::as_bool).unwrap_or(false),
        default: json.get("default").filter(|v| !v.is_null()).cloned(),
        one_of: json.get("enum").and_then(Value::as_array).cloned(),
        items,
        properties,
    })
}

impl Field {
    fn check(&self, value: &Value, at: &str, wrong: &mut Vec<FieldError>) {
        if !self.kind.accepts(value) {
            wrong.push(FieldError::new(at, format!("must be of type {}", self.kind.as_str())));
            return;
        }
        if let Some(allowed) = &self.one_of
            && !allowed.iter().any(|a| crate::filter::equal(a, value))
        {
            wrong.push(FieldError::new(at, format!("must be one of {}", Value::Array(allowed.clone()))));
        }
        if let (Some(items), Value::Array(list)) = (&self.items, value) {
            for (i, item) in list.iter().enumerate() {
                items.check(item, &format!("{at}.{i}"), wrong);
            }
        }
        if let (Some(properties), Value::Object(map)) = (&self.properties, value) {
            for (name, field) in properties {
                match map.get(name) {
                    None | Some(Value::Null) if field.required => {
                        wrong.push(FieldError::new(format!("{at}.{name}"), "is required"))
                    }
                    None | Some(Value::Null) => {}
                    Some(inner) => field.check(inner, &format!("{at}.{name}"), wrong),
                }
            }
        }
    }
}
