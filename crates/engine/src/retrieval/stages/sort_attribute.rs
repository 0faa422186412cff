//! `sort_attribute`: order by a field.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, flag, text, value_or};
use crate::retrieval::view;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::Result;
use strata_model::filter::sort_order;

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "sort_attribute",
    aliases: &[],
    category: Category::Sort,
    description: "Orders documents by a field: numbers, then text, then booleans. Equal values keep their order, so two \
                  of these stages sort by two keys, the last one first.",
    icon: "arrow-up-down",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const DEFAULT_FIELD: &str = "metadata.created_at";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "field": {"type": "string", "default": DEFAULT_FIELD, "description": "Dot path of the field."},
            "direction": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
            "nulls_last": {"type": "boolean", "default": true, "description": "Whether documents without the field come last, in either direction."},
        },
    })
}

#[derive(Debug)]
struct SortAttribute {
    field: Option<Setting<String>>,
    descending: Option<Setting<bool>>,
    nulls_last: Option<Setting<bool>>,
}

/// `asc` or `desc`.
pub(super) fn descending(value: &Value, at: &str) -> Result<bool> {
    choice(value, at, &[("asc", false), ("desc", true), ("ascending", false), ("descending", true)])
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let nulls = |value: &Value, at: &str| match value {
        Value::String(_) => choice(value, at, &[("last", true), ("first", false)]),
        other => flag(other, at),
    };
    let stage = SortAttribute {
        field: params.setting(&["field", "sort_field"], text)?,
        descending: params.setting(&["direction", "order", "sort_order"], descending)?,
        nulls_last: params.setting(&["nulls_last", "null_handling"], nulls)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for SortAttribute {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let field = value_or(self.field.as_ref(), run.variables, DEFAULT_FIELD.to_owned())?;
            let descending = value_or(self.descending.as_ref(), run.variables, true)?;
            let nulls_last = value_or(self.nulls_last.as_ref(), run.variables, true)?;
            let hits = run.read(set).await?;
            let mut keyed: Vec<_> = hits
                .into_iter()
                .map(|hit| {
                    let key = view::field(&hit, &field).map(|v| v.into_owned()).filter(|v| !v.is_null());
                    (key, hit)
                })
                .collect();
            keyed.sort_by(|(a, _), (b, _)| match (a, b) {
                (None, Some(_)) | (Some(_), None) if !nulls_last => a.is_some().cmp(&b.is_some()),
                _ => sort_order(a.as_ref(), b.as_ref(), descending),
            });
            Ok(WorkingSet::Read(keyed.into_iter().map(|(_, hit)| hit).collect()))
        })
    }
}
