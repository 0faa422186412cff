//! `json_transform`: each document as a template makes it.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, flag, value_or};
use crate::retrieval::template::{Program, Variables};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "json_transform",
    aliases: &[],
    category: Category::Apply,
    description: "Renders a Jinja template for each document to a JSON object, which takes the place of its fields.",
    icon: "braces",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Failures that are told one by one.
const MAX_TOLD: usize = 5;

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["template"],
        "properties": {
            "template": {"type": "string", "minLength": 1, "description": "Reads DOC, INPUT, CONTEXT and STAGE; has `if` and `for`, and the filters `tojson`, `default`, `join`, `length`, `first`, `last` and others."},
            "fail_on_error": {"type": "boolean", "default": false, "description": "Whether a document that cannot be rendered fails the stage; otherwise it is left out."},
        },
    })
}

#[derive(Debug)]
struct JsonTransform {
    at: String,
    template: Program,
    fail: Option<Setting<bool>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let at = params.place("template");
    let template = params.program(&["template"])?.ok_or_else(|| Error::invalid(at.as_str(), "is required"))?;
    let stage = JsonTransform { at, template, fail: params.setting(&["fail_on_error"], flag)? };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for JsonTransform {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let fail = value_or(self.fail.as_ref(), run.variables, false)?;
            let (mut made, mut failed) = (Vec::new(), 0);
            for mut hit in run.read(set).await? {
                match self.render(&hit, run.variables) {
                    Ok(fields) => {
                        hit.document.fields = fields;
                        made.push(hit);
                    }
                    Err(error) if fail => return Err(error),
                    Err(error) => {
                        failed += 1;
                        if failed <= MAX_TOLD {
                            let id = &hit.document.document_id;
                            run.notes.warnings.push(format!("stage `{}` left `{id}` out: {error}", run.stage_name));
                        }
                    }
                }
            }
            run.metadata.insert("failed".into(), failed.into());
            Ok(WorkingSet::Read(made))
        })
    }
}

impl JsonTransform {
    fn render(&self, hit: &Hit, variables: &Variables) -> Result<Fields> {
        let text = self.template.render(&variables.with_doc(&view::field_view(hit)))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Ok(fields),
            Ok(_) => Err(Error::invalid(&self.at, "must render to a JSON object")),
            Err(e) => Err(Error::invalid(&self.at, format!("rendered to what is no JSON: {e}"))),
        }
    }
}
