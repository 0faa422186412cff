//! Filters with templates in them.
//!
//! A condition whose template reads an input that was not sent is taken out, so that one retriever serves callers who
//! narrow their search and callers who do not; what was taken out is reported.

use super::limits;
use super::template::{Namespace, Node, Reference, Rendered, Variables};
use serde::Serialize;
use serde_json::{Value, json};
use strata_model::filter::{Filter, Operator};
use strata_model::{Error, Fields, Result};

/// A condition that was taken out of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Relaxation {
    /// Where the condition stands, for example `stages.0.config.pre_filters.AND.1`.
    pub condition: String,
    /// The document's field it was about.
    pub field: String,
    /// Inputs it needs that were not sent.
    pub missing_inputs: Vec<String>,
    pub reason: &'static str,
}

/// A filter as a retriever keeps it.
#[derive(Debug, Clone)]
pub struct FilterTemplate {
    at: String,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    Fixed(Filter),
    Open(Branch),
}

#[derive(Debug, Clone)]
enum Branch {
    All(Vec<Branch>),
    Any(Vec<Branch>),
    None(Vec<Branch>),
    /// JSON of one condition, or of a whole filter where a template stands for one.
    Condition {
        field: String,
        at: String,
        node: Node,
    },
}

impl FilterTemplate {
    /// Reads every form that [`Filter::parse`] does, with templates and `{"type": "dynamic", "field": "inputs.x"}` as
    /// values.
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        let value = without_dynamic(value, 0);
        let node = Node::parse(&value, at)?;
        if node.is_literal() {
            return Ok(Self { at: at.to_owned(), body: Body::Fixed(Filter::parse(&value, at)?) });
        }
        Filter::parse(&stand_in(&value), at)?;
        Ok(Self { at: at.to_owned(), body: Body::Open(branch(&value, at, false)?) })
    }

    pub fn references(&self) -> Vec<Reference> {
        match &self.body {
            Body::Fixed(_) => Vec::new(),
            Body::Open(branch) => branch.references(),
        }
    }

    /// Whether the filter differs from document to document.
    pub fn reads_documents(&self) -> bool {
        self.references().iter().any(|r| r.namespace == Namespace::Doc)
    }

    /// The filter for one execution, and what was taken out of it.
    pub fn resolve(&self, variables: &Variables) -> Result<(Filter, Vec<Relaxation>)> {
        match &self.body {
            Body::Fixed(filter) => Ok((filter.clone(), Vec::new())),
            Body::Open(branch) => {
                let mut relaxed = Vec::new();
                let filter = branch.resolve(variables, &mut relaxed)?;
                Ok((filter.unwrap_or_else(Filter::all), relaxed))
            }
        }
    }

    pub fn at(&self) -> &str {
        &self.at
    }
}

impl Branch {
    fn references(&self) -> Vec<Reference> {
        match self {
            Self::All(list) | Self::Any(list) | Self::None(list) => list.iter().flat_map(Self::references).collect(),
            Self::Condition { node, .. } => node.references(),
        }
    }

    fn resolve(&self, variables: &Variables, relaxed: &mut Vec<Relaxation>) -> Result<Option<Filter>> {
        let (list, join): (_, fn(Vec<Filter>) -> Filter) = match self {
            Self::All(list) => (list, Filter::And),
            Self::Any(list) => (list, Filter::Or),
            Self::None(list) => (list, Filter::Not),
            Self::Condition { field, at, node } => return resolve_condition(field, at, node, variables, relaxed),
        };
        let mut kept = Vec::new();
        for branch in list {
            kept.extend(branch.resolve(variables, relaxed)?);
        }
        Ok(if kept.is_empty() && !list.is_empty() { None } else { Some(join(kept)) })
    }
}

fn resolve_condition(
    field: &str,
    at: &str,
    node: &Node,
    variables: &Variables,
    relaxed: &mut Vec<Relaxation>,
) -> Result<Option<Filter>> {
    match node.render(variables)? {
        Rendered::Value(value) => Filter::parse(&value, at).map(Some),
        // A document without the field that the condition reads does not satisfy it.
        Rendered::Missing(inputs) if inputs.is_empty() => Ok(Some(Filter::Not(vec![Filter::all()]))),
        Rendered::Missing(inputs) => {
            let reason = "the condition reads an input that was not sent";
            relaxed.push(Relaxation {
                condition: at.to_owned(),
                field: field.to_owned(),
                missing_inputs: inputs,
                reason,
            });
            Ok(None)
        }
    }
}

/// Reads the tree as [`Filter::parse`] does, keeping each condition as JSON.
fn branch(value: &Value, at: &str, case_sensitive: bool) -> Result<Branch> {
    let map = match value {
        Value::Array(list) => return Ok(Branch::All(branches(list, at, case_sensitive)?)),
        Value::Object(map) => map,
        other => return condition("", other, at),
    };
    // As in filters: official clients put `false` into every part, so only `true` says something.
    let case_sensitive = case_sensitive || map.get("case_sensitive") == Some(&Value::Bool(true));
    if let Some(field) = map.get("field").and_then(Value::as_str) {
        return condition(field, &with_case(map, case_sensitive), at);
    }
    let mut parts = Vec::new();
    for (key, inner) in map {
        let below = format!("{at}.{key}");
        let join: fn(Vec<Branch>) -> Branch = match key.as_str() {
            "case_sensitive" => continue,
            "AND" | "and" => Branch::All,
            "OR" | "or" => Branch::Any,
            "NOT" | "not" => Branch::None,
            path => {
                parts.push(condition(path, &with_case(&shorthand(path, inner), case_sensitive), &below)?);
                continue;
            }
        };
        match inner {
            Value::Null => {}
            Value::Array(list) => parts.push(join(branches(list, &below, case_sensitive)?)),
            one => parts.push(join(vec![branch(one, &below, case_sensitive)?])),
        }
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Branch::All(parts) })
}

/// A template's value stays a value: an input that looks like `{"gte": 0}` must not become an operator.
fn shorthand(path: &str, value: &Value) -> Fields {
    let mut map = Fields::new();
    if value.is_string() {
        map.insert("field".into(), path.into());
        map.insert("value".into(), value.clone());
    } else {
        map.insert(path.to_owned(), value.clone());
    }
    map
}

fn branches(list: &[Value], at: &str, case_sensitive: bool) -> Result<Vec<Branch>> {
    list.iter().enumerate().map(|(i, v)| branch(v, &format!("{at}.{i}"), case_sensitive)).collect()
}

fn condition(field: &str, value: &Value, at: &str) -> Result<Branch> {
    Ok(Branch::Condition { field: field.to_owned(), at: at.to_owned(), node: Node::parse(value, at)? })
}

fn with_case(map: &Fields, case_sensitive: bool) -> Value {
    let mut map = map.clone();
    if case_sensitive {
        map.insert("case_sensitive".into(), true.into());
    }
    Value::Object(map)
}

/// Writes `{"type": "dynamic", "field": "inputs.x"}` as the template it means.
fn without_dynamic(value: &Value, depth: usize) -> Value {
    match value {
        // Deeper than any filter may be: left for the parser to refuse.
        _ if depth > limits::MAX_PARAMETER_DEPTH => value.clone(),
        Value::Object(map) => match (map.get("type").and_then(Value::as_str), map.get("field").and_then(Value::as_str))
        {
            (Some("dynamic"), Some(path)) if !map.contains_key("value") => {
                let rooted = path.split_once('.').is_some_and(|(root, _)| {
                    matches!(root.to_ascii_lowercase().as_str(), "input" | "inputs" | "doc" | "context" | "stage")
                });
                let path = path.trim();
                Value::from(if rooted { format!("{{{{{path}}}}}") } else { format!("{{{{INPUT.{path}}}}}") })
            }
            _ => Value::Object(map.iter().map(|(k, v)| (k.clone(), without_dynamic(v, depth + 1))).collect()),
        },
        Value::Array(list) => Value::Array(list.iter().map(|v| without_dynamic(v, depth + 1)).collect()),
        other => other.clone(),
    }
}

/// The filter with something of the right type in the place of each template, to check all but the values.
fn stand_in(value: &Value) -> Value {
    match value {
        Value::String(text) if text.contains("{{") || text.contains("{%") => Value::Null,
        Value::Array(list) => Value::Array(list.iter().map(stand_in).collect()),
        Value::Object(map) if map.get("field").is_some_and(Value::is_string) => {
            let operator =
                map.get("operator").and_then(Value::as_str).and_then(Operator::parse).unwrap_or(Operator::Eq);
            let mut map = map.clone();
            if let Some(value) = map.get_mut("value") {
                *value = stand_in_value(value, operator);
            }
            Value::Object(map)
        }
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, inner)| (key.clone(), stand_in_branch(key, inner))).collect())
        }
        other => other.clone(),
    }
}

fn stand_in_branch(key: &str, inner: &Value) -> Value {
    match (key.to_ascii_uppercase().as_str(), inner) {
        ("AND" | "OR" | "NOT", Value::String(_)) => inner.clone(),
        ("AND" | "OR" | "NOT", _) => stand_in(inner),
        (_, Value::Object(operators)) => {
            let filled = operators.iter().map(|(name, v)| {
                let operator = Operator::parse(name.trim_start_matches('$')).unwrap_or(Operator::Eq);
                (name.clone(), stand_in_value(v, operator))
            });
            Value::Object(filled.collect())
        }
        _ => stand_in_value(inner, Operator::Eq),
    }
}

fn stand_in_value(value: &Value, operator: Operator) -> Value {
    match (value, operator) {
        (Value::String(text), _) if !text.contains("{{") && !text.contains("{%") => value.clone(),
        (Value::String(_), Operator::In | Operator::Nin) => json!([]),
        (Value::String(_), Operator::Exists | Operator::IsNull) => json!(true),
        (_, Operator::GeoRadius | Operator::GeoBoundingBox | Operator::GeoPolygon) => some_area(value, operator),
        (Value::String(_), _) => json!("x"),
        (other, _) => other.clone(),
    }
}

/// Some area for an operator, where the value is a template or has some.
fn some_area(value: &Value, operator: Operator) -> Value {
    if !value.to_string().contains("{{") && !value.to_string().contains("{%") {
        return value.clone();
    }
    let point = |lat: i8, lon: i8| json!({ "lat": lat, "lon": lon });
    match operator {
        Operator::GeoBoundingBox => json!({ "top_left": point(1, 0), "bottom_right": point(0, 1) }),
        Operator::GeoPolygon => json!({ "exterior": { "points": [point(0, 0), point(0, 1), point(1, 1)] } }),
        _ => json!({ "center": point(0, 0), "radius": 1 }),
    }
}

/// Refuses a filter that would need a document where there is none yet.
pub fn without_documents(filter: FilterTemplate) -> Result<FilterTemplate> {
    if filter.reads_documents() {
        return Err(Error::invalid(
            filter.at(),
            "`DOC` is not known before documents are found; use `post_filters` or `attribute_filter`",
        ));
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(filter: Value, inputs: Value) -> (Filter, Vec<String>) {
        let variables = Variables::new(inputs.as_object().cloned().unwrap(), &Fields::new(), &Fields::new());
        let (filter, relaxed) = FilterTemplate::parse(&filter, "f").unwrap().resolve(&variables).unwrap();
        (
            filter,
            relaxed
                .into_iter()
                .map(|r| format!("{} {} {}", r.condition, r.field, r.missing_inputs.join(",")))
                .collect(),
        )
    }
    fn plain(filter: Value) -> Filter {
        Filter::parse(&filter, "f").unwrap()
    }

    #[test]
    fn sent_inputs_fill_conditions_with_their_types() {
        let filter = json!({"AND": [{"field": "tag", "operator": "in", "value": "{{INPUT.tags}}"}, {"n": {"gte": "{{INPUT.n}}"}}, {"kind": "{{input.kind}}"}]});
        let (filled, relaxed) = resolve(filter, json!({"tags": ["a"], "n": 3, "kind": "x"}));
        assert!(relaxed.is_empty());
        for (fields, holds) in [
            (json!({"tag": "a", "n": 3, "kind": "x"}), true),
            (json!({"tag": "a", "n": 2, "kind": "x"}), false),
            (json!({"tag": "b", "n": 3, "kind": "x"}), false),
        ] {
            assert_eq!(filled.matches(fields.as_object().unwrap()), holds);
        }
        let (injected, _) = resolve(json!({"kind": "{{INPUT.kind}}"}), json!({"kind": {"exists": true}}));
        assert!(!injected.matches(json!({"kind": "x"}).as_object().unwrap()));
        let (dynamic, _) =
            resolve(json!({"field": "a", "value": {"type": "dynamic", "field": "inputs.x"}}), json!({"x": 1}));
        assert_eq!(dynamic, plain(json!({"field": "a", "value": 1})));
        let (short, _) = resolve(json!({"field": "a", "value": {"type": "dynamic", "field": "x"}}), json!({"x": 1}));
        assert_eq!(short, dynamic);
    }

    #[test]
    fn letters_case_is_said_for_a_whole_filter_whatever_defaults_its_parts_have() {
        let part = json!({"field": "a", "operator": "contains", "value": "{{INPUT.x}}", "case_sensitive": false});
        let (filter, _) = resolve(json!({"AND": [part], "case_sensitive": true}), json!({"x": "sea"}));
        assert!(!filter.matches(json!({"a": "The Sea"}).as_object().unwrap()));
        assert!(filter.matches(json!({"a": "the sea"}).as_object().unwrap()));
    }

    #[test]
    fn conditions_without_their_input_are_taken_out_and_reported() {
        let filter = json!({"AND": [{"field": "a", "value": "{{INPUT.x}}"}, {"field": "b", "operator": "eq", "value": 1}, {"OR": [{"field": "c", "value": "{{INPUT.y}}"}]}]});
        let (filled, relaxed) = resolve(filter, json!({}));
        assert_eq!(filled, plain(json!({"AND": [{"field": "b", "value": 1}]})));
        assert_eq!(relaxed, ["f.AND.0 a x", "f.AND.2.OR.0 c y"]);
        let (all, relaxed) = resolve(json!("{{INPUT.filters}}"), json!({}));
        assert!(all.is_empty() && relaxed == ["f  filters"]);
        let (whole, _) = resolve(json!("{{INPUT.filters}}"), json!({"filters": {"a": 1}}));
        assert_eq!(whole, plain(json!({"a": 1})));
    }

    #[test]
    fn a_negation_that_loses_its_conditions_is_taken_out_too() {
        let (filled, _) = resolve(json!({"NOT": [{"field": "a", "value": "{{INPUT.x}}"}]}), json!({}));
        assert!(filled.matches(&Fields::new()));
    }

    #[test]
    fn a_document_without_the_field_does_not_pass() {
        let filter = FilterTemplate::parse(&json!({"field": "a", "value": "{{DOC.b}}"}), "f").unwrap();
        assert!(filter.reads_documents() && without_documents(filter.clone()).is_err());
        let variables = Variables::new(Fields::new(), &Fields::new(), &Fields::new());
        let fields = json!({"a": 1, "b": 1}).as_object().cloned().unwrap();
        let (same, _) = filter.resolve(&variables.with_doc(&fields)).unwrap();
        assert!(same.matches(&fields));
        let (none, _) = filter.resolve(&variables.with_doc(&Fields::new())).unwrap();
        assert!(!none.matches(&fields));
    }

    #[test]
    fn what_is_wrong_is_refused_when_parsed() {
        for filter in [
            json!({"field": "a", "operator": "near", "value": "{{INPUT.x}}"}),
            json!({"field": "a", "value": "{{INPUT."}),
            json!({"AND": [{"field": "a"}]}),
        ] {
            assert!(
                FilterTemplate::parse(&filter, "stages.1.config.pre_filters")
                    .unwrap_err()
                    .to_string()
                    .contains("stages.1.config.pre_filters")
            );
        }
        let wrong_type =
            FilterTemplate::parse(&json!({"field": "a", "operator": "in", "value": "{{INPUT.x}}"}), "f").unwrap();
        let variables = Variables::new(json!({"x": 3}).as_object().cloned().unwrap(), &Fields::new(), &Fields::new());
        assert!(wrong_type.resolve(&variables).unwrap_err().to_string().contains("f.value"));
    }
}
