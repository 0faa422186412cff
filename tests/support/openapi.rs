//! The server's own OpenAPI document as a list of operations, and values that fit its schemas.

use super::Api;
use serde_json::{Map, Value, json};

#[derive(Debug, Clone)]
pub struct Operation {
    /// In capitals.
    pub method: String,
    pub path: String,
    pub path_parameters: Vec<String>,
    /// Query parameters that are declared as integers.
    pub integer_queries: Vec<String>,
    /// Resolved schema of the JSON body, if the operation takes one.
    pub body: Option<Value>,
    document: std::sync::Arc<Value>,
}

impl Operation {
    /// Every operation under `/v1` that the server says it has.
    pub fn all(api: &Api) -> Vec<Self> {
        let document = std::sync::Arc::new(api.get("/openapi.json").ok());
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            if !path.starts_with("/v1/") {
                continue;
            }
            for (method, operation) in methods.as_object().expect("methods of a path") {
                let shared = methods.get("parameters").and_then(Value::as_array).into_iter().flatten();
                let parameters: Vec<&Value> =
                    operation.get("parameters").and_then(Value::as_array).into_iter().flatten().chain(shared).collect();
                let is_integer = |p: &&&Value| {
                    let kind = &resolve(&document, &p["schema"])["type"];
                    *kind == json!("integer") || kind.as_array().is_some_and(|kinds| kinds.contains(&json!("integer")))
                };
                let integer_queries = parameters
                    .iter()
                    .filter(|p| p["in"] == "query")
                    .filter(is_integer)
                    .filter_map(|p| p["name"].as_str().map(str::to_owned))
                    .collect();
                let content = operation.pointer("/requestBody/content/application~1json/schema");
                operations.push(Self {
                    method: method.to_uppercase(),
                    path: path.clone(),
                    path_parameters: names_in(path),
                    integer_queries,
                    body: content.map(|schema| resolve(&document, schema)),
                    document: document.clone(),
                });
            }
        }
        assert!(operations.len() > 50, "the OpenAPI document names only {} operations", operations.len());
        operations
    }

    /// The path with every parameter replaced.
    pub fn path_with(&self, value_of: impl Fn(&str) -> String) -> String {
        let segments: Vec<String> = self
            .path
            .split('/')
            .map(|segment| match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
                Some(name) => value_of(name),
                None => segment.to_owned(),
            })
            .collect();
        segments.join("/")
    }

    /// A small body that fits the schema.
    pub fn sample_body(&self) -> Option<Value> {
        self.body.as_ref().map(|schema| sample(&self.document, schema, 0))
    }

    /// Properties of the body and the JSON types they take; only those that name a type.
    pub fn body_properties(&self) -> Vec<(String, Vec<String>)> {
        let properties = self.body.as_ref().and_then(|schema| schema.get("properties")).and_then(Value::as_object);
        let typed = properties.into_iter().flatten().filter_map(|(name, schema)| {
            let kinds = match &resolve(&self.document, schema)["type"] {
                Value::String(kind) => vec![kind.clone()],
                Value::Array(kinds) => kinds.iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect(),
                _ => return None,
            };
            Some((name.clone(), kinds))
        });
        typed.collect()
    }
}

fn names_in(path: &str) -> Vec<String> {
    let segments = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    segments.map(str::to_owned).collect()
}

/// Follows `$ref`, and takes the first branch that is not `null` of a choice.
fn resolve(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').expect("references stay inside the document");
        return resolve(document, document.pointer(pointer).expect("references lead somewhere"));
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(branches) = schema.get(choice).and_then(Value::as_array) {
            let branch = branches.iter().find(|branch| branch["type"] != "null");
            return branch.map_or(Value::Null, |branch| resolve(document, branch));
        }
    }
    schema.clone()
}

/// A value that fits `schema`, with required properties only.
fn sample(document: &Value, schema: &Value, depth: usize) -> Value {
    let schema = resolve(document, schema);
    if depth > 8 {
        return Value::Null;
    }
    if let Some(value) = schema.get("default").or_else(|| schema.get("example")).filter(|v| !v.is_null()) {
        return value.clone();
    }
    if let Some(first) = schema.get("enum").and_then(Value::as_array).and_then(|values| values.first()) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("object"),
        other => other.as_str().unwrap_or("object"),
    };
    match kind {
        "string" => json!("sample"),
        "integer" => schema.get("minimum").filter(|v| v.is_i64()).cloned().unwrap_or(json!(1)),
        "number" => json!(1.0),
        "boolean" => json!(false),
        "array" => json!([sample(document, &schema["items"], depth + 1)]),
        _ => {
            let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut object = Map::new();
            for name in required.iter().filter_map(Value::as_str) {
                object.insert(name.to_owned(), sample(document, &schema["properties"][name], depth + 1));
            }
            Value::Object(object)
        }
    }
}
