//! `limit`: a slice of the working set.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, count, value_or};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Result, limits};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "limit",
    aliases: &[],
    category: Category::Reduce,
    description: "Keeps `limit` documents after skipping `offset`.",
    icon: "list-end",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "limit": {"type": "integer", "minimum": 1, "maximum": limits::MAX_TOP_K, "default": 10, "description": "Documents to keep."},
            "offset": {"type": "integer", "minimum": 0, "maximum": limits::MAX_OFFSET, "default": 0, "description": "Documents to skip first."},
        },
    })
}

#[derive(Debug)]
struct Limit {
    limit: Option<Setting<usize>>,
    offset: Option<Setting<usize>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let stage = Limit {
        limit: params.setting(&["limit", "top_k", "count"], count(1..=limits::MAX_TOP_K as u64))?,
        offset: params.setting(&["offset"], count(0..=limits::MAX_OFFSET as u64))?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for Limit {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let limit = value_or(self.limit.as_ref(), run.variables, 10)?;
            let offset = value_or(self.offset.as_ref(), run.variables, 0)?;
            let hits = run.read(set).await?;
            Ok(WorkingSet::Read(hits.into_iter().skip(offset).take(limit).collect()))
        })
    }
}
