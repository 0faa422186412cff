//! The inputs of a retriever: their schema, their defaults and their check.

use serde_json::Value;
use strata_model::schema::Schema;
use strata_model::{Error, FieldError, Fields, Result};

/// What a retriever takes. Without declared fields it takes anything.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSchema {
    schema: Schema,
    /// Names of the fields that hold `{collection_id, document_id}`.
    document_references: Vec<String>,
}

impl InputSchema {
    /// Reads `{name: {type, required, default, enum, items, properties}}`, or the same below `properties` with the
    /// names of required fields in a list.
    pub fn parse(json: &Value, at: &str) -> Result<Self> {
        let fields = match json {
            Value::Null => Fields::new(),
            Value::Object(map) => Self::declared(map),
            _ => return Err(Error::invalid(at, "must be an object of input names to definitions")),
        };
        let mut document_references = Vec::new();
        let mut properties = Fields::new();
        for (name, mut definition) in fields {
            if definition.get("type").and_then(Value::as_str) == Some("document_reference") {
                document_references.push(name.clone());
                definition["type"] = "object".into();
            }
            properties.insert(name, definition);
        }
        let mut wrapped = Fields::new();
        wrapped.insert("properties".into(), Value::Object(properties));
        let schema = Schema::parse(&Value::Object(wrapped), at).map_err(|e| without_wrapper(e, at))?;
        Ok(Self { schema, document_references })
    }

    /// The definitions, whether they stand at the top or below `properties`.
    pub fn declared(map: &Fields) -> Fields {
        let below = map.get("properties").and_then(Value::as_object);
        // An input may itself be called `properties`; then its definition has a type.
        let Some(properties) = below.filter(|p| !p.get("type").is_some_and(Value::is_string)) else {
            return map.clone();
        };
        let mut fields = properties.clone();
        for name in map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if let Some(Value::Object(definition)) = fields.get_mut(name) {
                definition.insert("required".into(), true.into());
            }
        }
        fields
    }

    pub fn is_empty(&self) -> bool {
        self.schema.fields.is_empty()
    }
    pub fn declares(&self, name: &str) -> bool {
        self.schema.get(name).is_some()
    }

    /// Checks the inputs of one execution and fills defaults. Errors name `inputs.<name>`.
    pub fn check(&self, mut inputs: Fields) -> Result<Fields> {
        self.schema.check(&mut inputs, |_| false).map_err(|e| match e {
            Error::Invalid(list) => {
                let below = list.into_iter().map(|f| FieldError::new(format!("inputs.{}", f.field), f.message));
                Error::Invalid(below.collect())
            }
            other => other,
        })?;
        for name in &self.document_references {
            let given = inputs.get(name).filter(|v| !v.is_null());
            if given.is_some_and(|v| !v.get("document_id").is_some_and(Value::is_string)) {
                return Err(Error::invalid(format!("inputs.{name}.document_id"), "is required: the id of a document"));
            }
        }
        Ok(inputs)
    }
}

fn without_wrapper(error: Error, at: &str) -> Error {
    let Error::Invalid(list) = error else { return error };
    let wrapped = format!("{at}.properties.");
    let named = list.into_iter().map(|f| match f.field.strip_prefix(&wrapped) {
        Some(below) => FieldError::new(format!("{at}.{below}"), f.message),
        None => f,
    });
    Error::Invalid(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, inputs: Value) -> Result<Value, String> {
        let schema = InputSchema::parse(&schema, "input_schema").map_err(|e| e.to_string())?;
        let inputs = inputs.as_object().cloned().unwrap();
        schema.check(inputs).map(Value::Object).map_err(|e| e.to_string())
    }

    #[test]
    fn types_required_defaults_and_choices() {
        let schema = json!({"query": {"type": "text", "required": true}, "n": {"type": "integer", "default": 5}, "kind": {"type": "string", "enum": ["a", "b"]}});
        assert_eq!(check(schema.clone(), json!({"query": "x"})), Ok(json!({"query": "x", "n": 5})));
        assert!(check(schema.clone(), json!({})).unwrap_err().contains("`inputs.query`: is required"));
        assert!(
            check(schema.clone(), json!({"query": "x", "n": "y"}))
                .unwrap_err()
                .contains("`inputs.n`: must be of type integer")
        );
        assert!(
            check(schema, json!({"query": "x", "kind": "c"})).unwrap_err().contains("`inputs.kind`: must be one of")
        );
    }

    #[test]
    fn references_json_schema_form_and_no_schema() {
        let reference = json!({"like": {"type": "document_reference"}});
        assert!(check(reference.clone(), json!({"like": {"document_id": "doc_1"}})).is_ok());
        assert!(
            check(reference, json!({"like": {"collection_id": "col_1"}}))
                .unwrap_err()
                .contains("inputs.like.document_id")
        );
        let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]});
        assert!(check(schema, json!({})).unwrap_err().contains("inputs.q"));
        assert_eq!(check(Value::Null, json!({"any": 1})), Ok(json!({"any": 1})));
        assert!(check(json!({"q": {"type": "colour"}}), json!({})).unwrap_err().contains("`input_schema.q.type`"));
        assert!(check(json!([1]), json!({})).unwrap_err().contains("input_schema"));
    }
}
