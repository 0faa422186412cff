//! What a search looks for: a text, a vector, a document to be like, or content that is a text or has one.

use super::content::Content;
use crate::retrieval::backend::Media;
use crate::retrieval::params::{Params, choice, is_absent};
use crate::retrieval::template::{Node, Rendered, Variables};
use serde_json::Value;
use strata_model::document::VectorValue;
use strata_model::{Error, Fields, Result, limits};

/// Keys of a query, whatever it looks for.
const KEYS: [&str; 15] = [
    "input_mode",
    "value",
    "values",
    "text",
    "query",
    "vector",
    "indices",
    "document_ref",
    "document_id",
    "collection_id",
    "content",
    "url",
    "image",
    "base64",
    "embedding_task",
];

/// What a text may be embedded for. The models of this version make the same vector for all of these.
const TASKS: [(&str, ()); 5] = [
    ("retrieval_query", ()),
    ("retrieval_document", ()),
    ("semantic_similarity", ()),
    ("classification", ()),
    ("none", ()),
];

/// A query as a retriever keeps it.
#[derive(Debug, Clone)]
pub(super) struct QueryTemplate {
    node: Node,
    at: String,
    is_content: bool,
}

/// A query of one execution.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Query {
    Text(String),
    Vector(VectorValue),
    /// The vectors of a stored document.
    Document {
        collection: Option<String>,
        document_id: String,
    },
    /// Not looked at yet.
    Content(Content),
    Media(Media),
    /// Nothing to look for; holds the inputs that would have said what.
    Empty {
        missing: Vec<String>,
    },
}

impl QueryTemplate {
    pub fn parse(value: &Value, at: &str, params: &mut Params<'_>) -> Result<Self> {
        let is_content = mode(value, at)? == Some("content");
        for key in value.as_object().into_iter().flat_map(Fields::keys).filter(|key| !KEYS.contains(&key.as_str())) {
            params.warn(format!("`{at}.{key}` is no part of a query and was ignored"));
        }
        let node = params.note(Node::parse(value, at)?);
        if node.is_literal() {
            read(value, at)?;
        }
        Ok(Self { node, at: at.to_owned(), is_content })
    }

    /// A search that says nothing of what it looks for.
    pub fn nothing(at: String) -> Self {
        Self { node: Node::Literal(Value::Null), at, is_content: false }
    }

    pub fn at(&self) -> &str {
        &self.at
    }

    /// Whether it is content, which may lie at a URL and change there.
    pub fn is_content(&self) -> bool {
        self.is_content
    }

    pub fn resolve(&self, variables: &Variables) -> Result<Query> {
        match self.node.render(variables)? {
            Rendered::Value(value) => match read(&value, &self.at)? {
                Query::Content(_) if !self.is_content => {
                    let message = "is `content` by an input; the retriever itself must say so";
                    Err(Error::invalid(format!("{}.input_mode", self.at), message))
                }
                query => Ok(query),
            },
            Rendered::Missing(missing) => Ok(Query::Empty { missing }),
        }
    }
}

fn get<'v>(map: &'v Fields, names: &[&str]) -> Option<&'v Value> {
    names.iter().find_map(|name| map.get(*name).filter(|v| !is_absent(v)))
}

/// The `input_mode`, stated or plain from the keys; `None` for values that speak for themselves.
fn mode<'v>(value: &'v Value, at: &str) -> Result<Option<&'v str>> {
    let Value::Object(map) = value else { return Ok(None) };
    let several = || {
        let message = "is `multi_content`, and no extractor of this version makes vectors of several contents at once";
        Err(Error::invalid(format!("{at}.input_mode"), message))
    };
    match get(map, &["input_mode"]).map(|m| m.as_str().unwrap_or_default()) {
        Some(mode @ ("text" | "vector" | "document" | "content")) => Ok(Some(mode)),
        Some("multi_content") => several(),
        Some(_) => Err(Error::invalid(
            format!("{at}.input_mode"),
            "must be one of text, vector, document, content, multi_content",
        )),
        None if get(map, &["document_ref", "document_id"]).is_some() => Ok(Some("document")),
        None if get(map, &["vector", "indices"]).is_some() => Ok(Some("vector")),
        None if get(map, &["text", "value", "query"]).is_some() => Ok(None),
        None if get(map, &["content", "url", "image", "base64"]).is_some() => Ok(Some("content")),
        None if get(map, &["values"]).is_some() => several(),
        None => Ok(Some("text")),
    }
}

/// Reads a query without templates.
fn read(value: &Value, at: &str) -> Result<Query> {
    let Value::Object(map) = value else { return plain(value, at) };
    if let Some(task) = get(map, &["embedding_task"]) {
        choice(task, &format!("{at}.embedding_task"), &TASKS)?;
    }
    match mode(value, at)? {
        Some("vector") if map.contains_key("indices") => vector(value, at),
        Some("vector") => get(map, &["value", "vector"]).map_or(Ok(empty()), |v| vector(v, &format!("{at}.value"))),
        Some("document") => document(map, at),
        Some("content") => Ok(Content::read(map, at)?.map_or_else(empty, Query::Content)),
        Some(_) => get(map, &["value", "text", "query"]).map_or(Ok(empty()), |v| text(v, &format!("{at}.value"))),
        None => get(map, &["text", "value", "query"]).map_or(Ok(empty()), |v| plain(v, &format!("{at}.value"))),
    }
}

fn empty() -> Query {
    Query::Empty { missing: Vec::new() }
}

fn plain(value: &Value, at: &str) -> Result<Query> {
    match value {
        Value::Array(_) => vector(value, at),
        Value::Object(_) => read(value, at),
        other => text(other, at),
    }
}

fn text(value: &Value, at: &str) -> Result<Query> {
    match value {
        Value::Null => Ok(empty()),
        Value::String(text) if text.trim().is_empty() => Ok(empty()),
        Value::String(text) => Ok(Query::Text(text.clone())),
        Value::Number(_) | Value::Bool(_) => Ok(Query::Text(value.to_string())),
        _ => Err(Error::invalid(at, "must be a text")),
    }
}

fn document(map: &Fields, at: &str) -> Result<Query> {
    let (place, reference) = match map.get("document_ref") {
        Some(Value::Object(reference)) => (format!("{at}.document_ref"), reference),
        None | Some(Value::Null) => (at.to_owned(), map),
        Some(_) => {
            return Err(Error::invalid(
                format!("{at}.document_ref"),
                "must be an object with `collection_id` and `document_id`",
            ));
        }
    };
    let name = |key: &str| match get(reference, &[key]) {
        None => Ok(None),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid(format!("{place}.{key}"), "must be a string")),
    };
    let collection = name("collection_id")?;
    Ok(name("document_id")?.map_or_else(empty, |document_id| Query::Document { collection, document_id }))
}

/// Numbers, rows of numbers, or `{indices, values}`.
fn vector(value: &Value, at: &str) -> Result<Query> {
    let wrong = || Error::invalid(at, "must be numbers, lists of numbers, or `indices` and `values`");
    let vector = match value {
        Value::Array(list) if list.is_empty() => return Ok(empty()),
        Value::Array(list) if list.iter().all(Value::is_number) => VectorValue::Dense(numbers(list).ok_or_else(wrong)?),
        Value::Array(list) => {
            let rows: Option<Vec<_>> = list.iter().map(|row| row.as_array().and_then(|r| numbers(r))).collect();
            VectorValue::Multi(rows.ok_or_else(wrong)?)
        }
        Value::Object(map) => {
            let list = |name: &str| map.get(name).and_then(Value::as_array);
            let index = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
            let indices: Option<Vec<u32>> = list("indices").and_then(|l| l.iter().map(index).collect());
            let (indices, values) = indices
                .zip(list("values").and_then(|l| numbers(l)))
                .filter(|(i, v)| i.len() == v.len())
                .ok_or_else(wrong)?;
            VectorValue::Sparse { indices, values }
        }
        Value::Null => return Ok(empty()),
        Value::String(text) if text.trim().is_empty() => return Ok(empty()),
        _ => return Err(wrong()),
    };
    let size = match &vector {
        VectorValue::Dense(v) => v.len(),
        VectorValue::Multi(rows) => rows.iter().map(Vec::len).sum(),
        VectorValue::Sparse { values, .. } => values.len(),
    };
    if size > limits::MAX_DIMENSIONS || !vector.is_finite() {
        return Err(Error::invalid(at, format!("must hold at most {} finite numbers", limits::MAX_DIMENSIONS)));
    }
    Ok(Query::Vector(vector))
}

fn numbers(list: &[Value]) -> Option<Vec<f32>> {
    list.iter().map(|v| v.as_f64().map(|f| f as f32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_of_a_query() {
        let text = || Query::Text("q".into());
        let dense = || Query::Vector(VectorValue::Dense(vec![1.0, 0.5]));
        let like = |collection: Option<&str>| Query::Document {
            collection: collection.map(Into::into),
            document_id: "doc_1".into(),
        };
        for (value, query) in [
            (json!("q"), text()),
            (json!({"text": "q"}), text()),
            (json!({"query": "q"}), text()),
            (json!({"input_mode": "text", "value": "q", "embedding_task": "none"}), text()),
            (json!({"input_mode": "text", "text": "q", "value": null}), text()),
            (json!(3), Query::Text("3".into())),
            (json!([1, 0.5]), dense()),
            (json!({"value": [1, 0.5]}), dense()),
            (json!({"vector": [1, 0.5]}), dense()),
            (json!({"input_mode": "vector", "value": [1, 0.5]}), dense()),
            (json!([[1, 0.5], [0, 1]]), Query::Vector(VectorValue::Multi(vec![vec![1.0, 0.5], vec![0.0, 1.0]]))),
            (
                json!({"indices": [3], "values": [0.5]}),
                Query::Vector(VectorValue::Sparse { indices: vec![3], values: vec![0.5] }),
            ),
            (
                json!({"input_mode": "document", "document_ref": {"collection_id": "c", "document_id": "doc_1"}}),
                like(Some("c")),
            ),
            (json!({"document_id": "doc_1"}), like(None)),
            (json!(" "), empty()),
            (json!({"input_mode": "vector", "value": []}), empty()),
            (json!({"input_mode": "document", "document_ref": {}}), empty()),
            (json!({}), empty()),
        ] {
            assert_eq!(read(&value, "q").unwrap(), query, "{value}");
        }
    }

    #[test]
    fn refusals_name_the_place() {
        for (value, place) in [
            (json!({"input_mode": "content", "value": "no base64!"}), "q.value"),
            (json!({"url": "ftp://x"}), "q.url"),
            (json!({"input_mode": "content", "value": [1, 2]}), "q.value"),
            (json!({"values": ["a"]}), "q.input_mode"),
            (json!({"input_mode": "smell"}), "q.input_mode"),
            (json!({"text": "a", "embedding_task": "smell"}), "q.embedding_task"),
            (json!([1, "a"]), "`q`"),
            (json!({"input_mode": "vector", "value": "text"}), "q.value"),
            (json!({"indices": [1], "values": []}), "`q`"),
        ] {
            assert!(read(&value, "q").unwrap_err().to_string().contains(place), "{value}");
        }
    }
}
