//! Parameters of extractors as a table: their schema, their defaults and their check come from the same lines.

use serde_json::{Map, Value, json};
use strata_model::{Error, FieldError, Fields, Result};

/// One parameter.
pub struct Parameter {
    pub name: &'static str,
    pub kind: Kind,
    pub description: &'static str,
}

/// What values a parameter takes, and which one it has where none is sent.
pub enum Kind {
    Boolean(bool),
    Integer {
        default: Option<u64>,
        min: u64,
        max: u64,
    },
    Number {
        default: Option<f64>,
        min: f64,
        max: f64,
    },
    OneOf {
        default: &'static str,
        values: &'static [&'static str],
    },
    /// Some of these words; all of them where none are sent.
    SomeOf(&'static [&'static str]),
    Text(Option<&'static str>),
    /// Taken, since clients send it, and without effect.
    Ignored(fn() -> Value),
    /// Taken as long as it asks for nothing; else refused, with the reason.
    Unavailable {
        default: fn() -> Value,
        why: &'static str,
    },
}

/// `name: true or false`.
pub const fn boolean(name: &'static str, default: bool, description: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Boolean(default), description }
}
/// A whole number.
pub const fn integer(
    name: &'static str,
    default: Option<u64>,
    (min, max): (u64, u64),
    description: &'static str,
) -> Parameter {
    Parameter { name, kind: Kind::Integer { default, min, max }, description }
}
/// A number.
pub const fn number(
    name: &'static str,
    default: Option<f64>,
    (min, max): (f64, f64),
    description: &'static str,
) -> Parameter {
    Parameter { name, kind: Kind::Number { default, min, max }, description }
}
/// One of some words.
pub const fn one_of(
    name: &'static str,
    default: &'static str,
    values: &'static [&'static str],
    description: &'static str,
) -> Parameter {
    Parameter { name, kind: Kind::OneOf { default, values }, description }
}
/// A list of some words.
pub const fn some_of(name: &'static str, values: &'static [&'static str], description: &'static str) -> Parameter {
    Parameter { name, kind: Kind::SomeOf(values), description }
}
/// Words.
pub const fn text(name: &'static str, default: Option<&'static str>, description: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Text(default), description }
}
/// Without effect here.
pub const fn ignored(name: &'static str, default: fn() -> Value, description: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Ignored(default), description }
}
/// Nothing but its default can be had here.
pub const fn unavailable(name: &'static str, default: fn() -> Value, why: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Unavailable { default, why }, description: why }
}

pub fn no() -> Value {
    Value::Bool(false)
}
pub fn nothing() -> Value {
    Value::Null
}

impl Kind {
    fn default(&self) -> Value {
        match self {
            Self::Boolean(default) => json!(default),
            Self::Integer { default, .. } => json!(default),
            Self::Number { default, .. } => json!(default),
            Self::OneOf { default, .. } => json!(default),
            Self::SomeOf(values) => json!(values),
            Self::Text(default) => json!(default),
            Self::Ignored(default) | Self::Unavailable { default, .. } => default(),
        }
    }

    fn schema(&self) -> Map<String, Value> {
        let schema = match self {
            Self::Boolean(_) => json!({ "type": "boolean" }),
            Self::Integer { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
            Self::Number { min, max, .. } => json!({ "type": "number", "minimum": min, "maximum": max }),
            Self::OneOf { values, .. } => json!({ "type": "string", "enum": values }),
            Self::SomeOf(values) => json!({ "type": "array", "items": { "type": "string", "enum": values } }),
            Self::Text(_) => json!({ "type": "string" }),
            Self::Ignored(_) | Self::Unavailable { .. } => json!({}),
        };
        schema.as_object().cloned().unwrap_or_default()
    }

    /// What is wrong with a value.
    fn wrong(&self, value: &Value) -> Option<String> {
        let within = |n: Option<f64>, min: f64, max: f64| n.is_some_and(|n| (min..=max).contains(&n));
        match self {
            Self::Boolean(_) => (!value.is_boolean()).then(|| "must be true or false".to_owned()),
            Self::Integer { min, max, .. } => {
                let whole = value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as u64));
                let fits = whole.is_some_and(|n| (*min..=*max).contains(&n));
                (!fits).then(|| format!("must be a whole number from {min} to {max}"))
            }
            Self::Number { min, max, .. } => {
                (!within(value.as_f64(), *min, *max)).then(|| format!("must be a number from {min} to {max}"))
            }
            Self::OneOf { values, .. } => {
                let known = value.as_str().is_some_and(|text| values.contains(&text));
                (!known).then(|| format!("must be one of {}", values.join(", ")))
            }
            Self::SomeOf(values) => {
                let is_known = |word: &Value| word.as_str().is_some_and(|word| values.contains(&word));
                let known = value.as_array().is_some_and(|words| !words.is_empty() && words.iter().all(is_known));
                (!known).then(|| format!("must be a list of some of {}", values.join(", ")))
            }
            Self::Text(_) => (!value.is_string()).then(|| "must be a text".to_owned()),
            Self::Ignored(_) => None,
            Self::Unavailable { default, why } => (*value != default()).then(|| (*why).to_owned()),
        }
    }
}

/// JSON Schema of the parameters.
pub fn schema(table: &[Parameter]) -> Value {
    let property = |parameter: &Parameter| {
        let mut schema = parameter.kind.schema();
        let default = parameter.kind.default();
        if !default.is_null() {
            schema.insert("default".into(), default);
        }
        schema.insert("description".into(), parameter.description.into());
        (parameter.name.to_owned(), Value::Object(schema))
    };
    json!({ "type": "object", "properties": table.iter().map(property).collect::<Map<_, _>>() })
}

/// The parameters that have a value where none is sent.
pub fn defaults(table: &[Parameter]) -> Value {
    let default = |parameter: &Parameter| Some((parameter.name.to_owned(), parameter.kind.default()));
    Value::Object(table.iter().filter_map(default).filter(|(_, value)| !value.is_null()).collect())
}

/// Checks those that are set; unknown ones are passed over.
pub fn check(table: &[Parameter], parameters: &Fields) -> Result<()> {
    let wrong = |parameter: &Parameter| {
        let value = parameters.get(parameter.name).filter(|value| !value.is_null())?;
        let message = parameter.kind.wrong(value)?;
        Some(FieldError::new(format!("parameters.{}", parameter.name), message))
    };
    let wrong: Vec<FieldError> = table.iter().filter_map(wrong).collect();
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// Checked parameters, defaults among them.
pub struct Read<'a>(pub &'a Fields);

impl<'a> Read<'a> {
    pub fn is(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Value::Bool(true))
    }
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }
    pub fn integer(&self, name: &str) -> Option<u64> {
        let value = self.0.get(name)?;
        value.as_u64().or_else(|| value.as_f64().map(|n| n as u64))
    }
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }
    pub fn words(&self, name: &str) -> Vec<&'a str> {
        let words = self.0.get(name).and_then(Value::as_array);
        words.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Parameter] = &[
        boolean("a", true, "A."),
        integer("b", Some(3), (1, 5), "B."),
        number("c", None, (0.0, 1.0), "C."),
        one_of("d", "x", &["x", "y"], "D."),
        unavailable("e", no, "needs a language model"),
        some_of("f", &["x", "y"], "F."),
    ];

    fn checked(parameters: Value) -> Result<()> {
        check(TABLE, parameters.as_object().unwrap())
    }

    #[test]
    fn one_table_makes_schema_defaults_and_check() {
        assert_eq!(defaults(TABLE), json!({ "a": true, "b": 3, "d": "x", "e": false, "f": ["x", "y"] }));
        assert_eq!(schema(TABLE)["properties"]["b"]["maximum"], 5);
        checked(json!({ "a": false, "b": 5.0, "c": 0.5, "d": "y", "e": false, "f": ["y"], "other": 1, "b2": null }))
            .unwrap();
        checked(defaults(TABLE)).unwrap();
        let error =
            checked(json!({ "a": 1, "b": 6, "c": 2, "d": "z", "e": true, "f": ["z"] })).unwrap_err().to_string();
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert!(error.contains(&format!("parameters.{name}")), "{error}");
        }
    }
}
