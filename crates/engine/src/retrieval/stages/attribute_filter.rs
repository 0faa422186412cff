//! `attribute_filter`: keep the documents that satisfy conditions on their fields.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::conditions::FilterTemplate;
use crate::retrieval::limits;
use crate::retrieval::params::{Params, flag};
use crate::retrieval::template::Variables;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "attribute_filter",
    aliases: &["structured_filter"],
    category: Category::Filter,
    description: "Keeps documents that satisfy one condition or a tree of them. As the first stage it reads the \
                  collections, up to 1,000 documents of each; before a `feature_search` it narrows that search.",
    icon: "filter",
    parameter_schema: schema,
    reads_collections: true,
    parse,
};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "field": {"type": "string", "description": "Dot path of the field that one condition is about."},
            "operator": {"type": "string", "default": "eq", "description": "Operator of the one condition."},
            "value": {"description": "Value of the one condition; may be a template."},
            "conditions": {"type": "object", "description": "Tree of conditions with `AND`, `OR` and `NOT`; wins over the one condition."},
            "case_insensitive": {"type": "boolean", "default": false, "description": "Whether equality ignores case; text operators always do unless a condition sets `case_sensitive`."},
        },
    })
}

#[derive(Debug)]
struct AttributeFilter {
    filter: FilterTemplate,
    case_insensitive: bool,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let case_insensitive = params.fixed(&["case_insensitive"], flag)?.unwrap_or(false);
    let natural_language = params.take(&["natural_language"]);
    params.take(&["field_hints"]);
    let mut one = Fields::new();
    // A null value is a value here, so these are taken as they are.
    for name in ["field", "operator", "value", "case_sensitive"] {
        one.extend(params.take_raw(name).map(|v| (name.to_owned(), v)));
    }
    let mut tree = Fields::new();
    for name in ["AND", "OR", "NOT"] {
        tree.extend(params.take(&[name]).map(|(_, v)| (name.to_owned(), v)));
    }
    let filter = match params.take(&["conditions", "filters", "filter"]) {
        Some((at, conditions)) => params.filter_of(&conditions, &at)?,
        None if !tree.is_empty() => {
            tree.extend(one.remove("case_sensitive").map(|v| ("case_sensitive".to_owned(), v)));
            params.filter_of(&Value::Object(tree), params.at().to_owned().as_str())?
        }
        None if natural_language.is_some() => {
            return Err(Error::invalid(
                params.place("natural_language"),
                "is not available in this version; write `conditions`",
            ));
        }
        None if one.get("field").is_some_and(Value::is_string) => {
            if one.get("operator").is_some_and(|o| o.as_str() == Some("null")) {
                one.remove("operator");
            }
            params.filter_of(&Value::Object(one), params.at().to_owned().as_str())?
        }
        None => {
            return Err(Error::invalid(params.place("conditions"), "is required, or `field`, `operator` and `value`"));
        }
    };
    params.finish();
    Ok(Arc::new(AttributeFilter { filter, case_insensitive }))
}

impl Stage for AttributeFilter {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            if self.filter.reads_documents() {
                let hits = run.read(set).await?;
                return run.keep(hits, &self.filter).map(WorkingSet::Read);
            }
            let filter = self.folded(run.filter(&self.filter)?);
            match set {
                WorkingSet::Read(hits) => Ok(WorkingSet::Read(super::keep(hits, &filter))),
                WorkingSet::Unread(before) if run.search_follows => {
                    run.metadata.insert("pushed_down".into(), true.into());
                    Ok(WorkingSet::Unread(before.and(filter)))
                }
                WorkingSet::Unread(before) => {
                    let hits = run.scan(&before.and(filter), limits::MAX_SCAN_PER_COLLECTION).await?;
                    Ok(WorkingSet::Read(hits))
                }
            }
        })
    }

    fn narrowing(&self) -> Option<&FilterTemplate> {
        (!self.filter.reads_documents()).then_some(&self.filter)
    }

    fn narrowed(&self, variables: &Variables) -> Result<Filter> {
        Ok(self.folded(self.filter.resolve(variables)?.0))
    }
}

impl AttributeFilter {
    fn folded(&self, filter: Filter) -> Filter {
        if self.case_insensitive { fold_case(filter) } else { filter }
    }
}

/// Equality of texts, which is exact in the filter language, as a pattern that ignores case.
fn fold_case(filter: Filter) -> Filter {
    let all = |list: Vec<Filter>| list.into_iter().map(fold_case).collect();
    match filter {
        Filter::And(list) => Filter::And(all(list)),
        Filter::Or(list) => Filter::Or(all(list)),
        Filter::Not(list) => Filter::Not(all(list)),
        Filter::Is(condition) => fold_condition(condition),
    }
}

fn fold_condition(condition: Condition) -> Filter {
    let Condition { field, operator, value, .. } = &condition;
    let exists = || {
        Filter::Is(Condition {
            field: field.clone(),
            operator: Operator::Exists,
            value: true.into(),
            case_sensitive: false,
        })
    };
    match (operator, value) {
        (Operator::Eq, Value::String(text)) => ignoring_case(field, text),
        (Operator::Ne, Value::String(text)) => {
            Filter::And(vec![exists(), Filter::Not(vec![ignoring_case(field, text)])])
        }
        (Operator::In, Value::Array(list)) if !list.is_empty() => {
            Filter::Or(list.iter().map(|v| fold_equal(field, v)).collect())
        }
        (Operator::Nin, Value::Array(list)) => {
            Filter::And(vec![exists(), Filter::Not(list.iter().map(|v| fold_equal(field, v)).collect())])
        }
        _ => Filter::Is(condition),
    }
}

fn fold_equal(field: &str, value: &Value) -> Filter {
    match value {
        Value::String(text) => ignoring_case(field, text),
        other => Filter::eq(field, other.clone()),
    }
}

fn ignoring_case(field: &str, text: &str) -> Filter {
    let pattern = format!("^{}$", regex::escape(text));
    Filter::Is(Condition {
        field: field.to_owned(),
        operator: Operator::Regex,
        value: pattern.into(),
        case_sensitive: false,
    })
}
