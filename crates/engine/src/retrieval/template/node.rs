//! Parameters as JSON with templates in it.

use super::{Dialect, Reference, Rendered, Template, Variables};
use crate::retrieval::limits;
use serde_json::Value;
use std::sync::Arc;
use strata_model::{Error, Result};

/// JSON with templates in its texts.
#[derive(Debug, Clone)]
pub enum Node {
    Literal(Value),
    Template(Arc<Template>),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        Self::parse_in(value, at, Dialect::Plain)
    }

    pub fn parse_in(value: &Value, at: &str, dialect: Dialect) -> Result<Self> {
        Self::parse_below(value, at, dialect, 0)
    }

    fn parse_below(value: &Value, at: &str, dialect: Dialect, depth: usize) -> Result<Self> {
        if depth > limits::MAX_PARAMETER_DEPTH {
            return Err(Error::invalid(at, format!("nests more than {} levels", limits::MAX_PARAMETER_DEPTH)));
        }
        match value {
            Value::String(text) => Ok(match Template::parse(text, at, dialect)? {
                Some(template) => Self::Template(Arc::new(template)),
                None => Self::Literal(value.clone()),
            }),
            Value::Array(list) if list.iter().any(|v| !v.is_number()) => {
                let nodes = list
                    .iter()
                    .enumerate()
                    .map(|(i, v)| Self::parse_below(v, &format!("{at}.{i}"), dialect, depth + 1));
                Ok(Self::Array(nodes.collect::<Result<_>>()?).folded(value))
            }
            Value::Object(map) => {
                let nodes = map
                    .iter()
                    .map(|(k, v)| Ok((k.clone(), Self::parse_below(v, &format!("{at}.{k}"), dialect, depth + 1)?)));
                Ok(Self::Object(nodes.collect::<Result<_>>()?).folded(value))
            }
            _ => Ok(Self::Literal(value.clone())),
        }
    }

    /// A branch without templates is one literal.
    fn folded(self, value: &Value) -> Self {
        let plain = match &self {
            Self::Array(nodes) => nodes.iter().all(Self::is_literal),
            Self::Object(nodes) => nodes.iter().all(|(_, node)| node.is_literal()),
            _ => false,
        };
        if plain { Self::Literal(value.clone()) } else { self }
    }

    pub fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }

    /// Everything that the templates read.
    pub fn references(&self) -> Vec<Reference> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Template(template) => template.references().to_vec(),
            Self::Array(nodes) => nodes.iter().flat_map(Self::references).collect(),
            Self::Object(nodes) => nodes.iter().flat_map(|(_, node)| node.references()).collect(),
        }
    }

    /// The JSON with its templates evaluated; missing if any of them is.
    pub fn render(&self, variables: &Variables) -> Result<Rendered> {
        let mut missing = None;
        let value = self.fill(variables, &mut missing)?;
        Ok(missing.map_or(Rendered::Value(value), Rendered::Missing))
    }

    fn fill(&self, variables: &Variables, missing: &mut Option<Vec<String>>) -> Result<Value> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Template(template) => match template.render(variables)? {
                Rendered::Value(value) => value,
                Rendered::Missing(names) => {
                    missing.get_or_insert_default().extend(names);
                    Value::Null
                }
            },
            Self::Array(nodes) => {
                Value::Array(nodes.iter().map(|n| n.fill(variables, missing)).collect::<Result<_>>()?)
            }
            Self::Object(nodes) => {
                let filled = nodes.iter().map(|(k, n)| Ok((k.clone(), n.fill(variables, missing)?)));
                Value::Object(filled.collect::<Result<_>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use strata_model::Fields;

    #[test]
    fn json_is_filled_below_the_surface() {
        let node = Node::parse(&json!({"a": ["{{INPUT.x}}", 1], "b": "c"}), "at").unwrap();
        let inputs = json!({"x": [1]}).as_object().cloned().unwrap();
        let variables = Variables::new(inputs, &Fields::new(), &Fields::new());
        assert_eq!(node.render(&variables).unwrap(), Rendered::Value(json!({"a": [[1], 1], "b": "c"})));
        assert!(Node::parse(&json!({"a": [1, {"b": 2}]}), "at").unwrap().is_literal());
    }
}
