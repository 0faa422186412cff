//! `unwind`: a document for each element of a list.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, flag, text, value_or};
use crate::retrieval::{Hit, limits, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "unwind",
    aliases: &[],
    category: Category::Apply,
    description: "Gives a document for each element of a list, with the element in the list's place.",
    icon: "unfold-vertical",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["field"],
        "properties": {
            "field": {"type": "string", "description": "Dot path of the list. A document whose value is no list passes as it is."},
            "preserve_null_and_empty": {"type": "boolean", "default": false, "description": "Whether documents without elements are kept."},
            "include_array_index": {"type": "string", "description": "Dot path that gets the element's place, from 0."},
            "output_field": {"type": "string", "description": "Where the element goes; `field` where this is left out."},
        },
    })
}

#[derive(Debug)]
struct Unwind {
    field: Setting<String>,
    preserve: Option<Setting<bool>>,
    index_field: Option<Setting<Option<String>>>,
    output_field: Option<Setting<String>>,
}

/// The name of a field; `true` means the usual one.
fn index_field(value: &Value, at: &str) -> Result<Option<String>> {
    match value {
        Value::Bool(wanted) => Ok(wanted.then(|| "array_index".to_owned())),
        other => text(other, at).map(Some),
    }
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let field = params.setting(&["field"], text)?;
    let stage = Unwind {
        field: field.ok_or_else(|| Error::invalid(params.place("field"), "is required"))?,
        preserve: params.setting(&["preserve_null_and_empty"], flag)?,
        index_field: params.setting(&["include_array_index"], index_field)?,
        output_field: params.setting(&["output_field"], text)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for Unwind {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let Some(field) = self.field.value(run.variables)? else { return Ok(set) };
            let preserve = value_or(self.preserve.as_ref(), run.variables, false)?;
            let index_field = value_or(self.index_field.as_ref(), run.variables, None)?;
            let output = value_or(self.output_field.as_ref(), run.variables, field.clone())?;
            let mut unwound: Vec<Hit> = Vec::new();
            for hit in run.read(set).await? {
                let value = view::field(&hit, &field).map(|value| value.into_owned());
                match value {
                    Some(Value::Array(list)) if !list.is_empty() => {
                        for (place, element) in list.into_iter().enumerate() {
                            let mut one = hit.clone();
                            view::set(&mut one, &output, element);
                            if let Some(index_field) = &index_field {
                                view::set(&mut one, index_field, place.into());
                            }
                            unwound.push(one);
                        }
                    }
                    None | Some(Value::Null | Value::Array(_)) if !preserve => {}
                    _ => unwound.push(hit),
                }
                if unwound.len() > limits::MAX_WORKING_SET {
                    run.cut("documents", unwound.len(), limits::MAX_WORKING_SET);
                    unwound.truncate(limits::MAX_WORKING_SET);
                    break;
                }
            }
            Ok(WorkingSet::Read(unwound))
        })
    }
}
