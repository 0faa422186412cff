//! `group_by`: the working set by the values of a field.

use super::sort_attribute::descending;
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, flag, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::{Result, filter::sort_order};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "group_by",
    aliases: &["group"],
    category: Category::Reduce,
    description: "Puts documents with the same value together, the first ones of each group in their order.",
    icon: "group",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const DEFAULT_FIELD: &str = "source_object_id";

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "group_by_field": {"type": "string", "default": DEFAULT_FIELD, "description": "Dot path of the value."},
            "max_per_group": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10, "description": "Most documents of a group."},
            "output_mode": {
                "type": "string", "enum": ["first", "all", "flatten"], "default": "all",
                "description": "`first` keeps one document of each group, `all` answers groups, `flatten` the documents of the groups one after the other.",
            },
            "max_groups": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100, "description": "Most groups."},
            "sort_groups_by": {
                "type": "string", "enum": ["position", "count", "field", "score"], "default": "position",
                "description": "Order of the groups: as their first documents come, by size, by the value, or by the best score.",
            },
            "sort_order": {"type": "string", "enum": ["asc", "desc"], "default": "desc", "description": "Direction of `sort_groups_by`."},
            "exclude_null": {"type": "boolean", "default": false, "description": "Whether documents without the value are left out; otherwise they are a group."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    First,
    All,
    Flatten,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Position,
    Count,
    Field,
    Score,
}

#[derive(Debug)]
struct GroupBy {
    field: Option<Setting<String>>,
    max_per_group: Option<Setting<usize>>,
    max_groups: Option<Setting<usize>>,
    mode: Option<Setting<Mode>>,
    sort_by: Option<Setting<By>>,
    descending: Option<Setting<bool>>,
    exclude_null: Option<Setting<bool>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let mode = |value: &Value, at: &str| {
        choice(value, at, &[("first", Mode::First), ("all", Mode::All), ("flatten", Mode::Flatten)])
    };
    let by = |value: &Value, at: &str| {
        let known = [
            ("position", By::Position),
            ("count", By::Count),
            ("field", By::Field),
            ("key", By::Field),
            ("score", By::Score),
        ];
        choice(value, at, &known)
    };
    let stage = GroupBy {
        field: params.setting(&["group_by_field", "field"], text)?,
        max_per_group: params.setting(&["max_per_group", "docs_per_group"], count(1..=1_000))?,
        max_groups: params.setting(&["max_groups", "limit"], count(1..=1_000))?,
        mode: params.setting(&["output_mode"], mode)?,
        sort_by: params.setting(&["sort_groups_by"], by)?,
        descending: params.setting(&["sort_order"], descending)?,
        exclude_null: params.setting(&["exclude_null"], flag)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

/// Documents with the same value.
struct Group {
    key: Value,
    /// How many there were before the limit.
    count: usize,
    best_score: Option<f64>,
    hits: Vec<Hit>,
}

impl Stage for GroupBy {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let field = value_or(self.field.as_ref(), run.variables, DEFAULT_FIELD.to_owned())?;
            let mode = value_or(self.mode.as_ref(), run.variables, Mode::All)?;
            let most = value_or(self.max_per_group.as_ref(), run.variables, 10)?;
            let most = if mode == Mode::First { 1 } else { most };
            let max_groups = value_or(self.max_groups.as_ref(), run.variables, 100)?;
            let by = value_or(self.sort_by.as_ref(), run.variables, By::Position)?;
            let descending = value_or(self.descending.as_ref(), run.variables, true)?;
            let exclude_null = value_or(self.exclude_null.as_ref(), run.variables, false)?;
            let hits = run.read(set).await?;
            let total = hits.len();
            let mut groups = grouped(hits, &field, most, exclude_null);
            sort(&mut groups, by, descending);
            run.metadata.insert("field".into(), field.into());
            run.metadata.insert("total_groups".into(), groups.len().into());
            run.metadata.insert("total_documents".into(), total.into());
            if groups.len() > max_groups {
                groups.truncate(max_groups);
            }
            let sizes = groups.iter().map(|group| json!({"key": group.key, "count": group.count}));
            run.metadata.insert("groups".into(), sizes.collect());
            let member = |group: Group| {
                let key = (mode == Mode::All).then_some(group.key);
                group.hits.into_iter().map(move |hit| Hit { group: key.clone(), ..hit })
            };
            Ok(WorkingSet::Read(groups.into_iter().flat_map(member).collect()))
        })
    }
}

/// Groups in the order in which their values first appear.
fn grouped(hits: Vec<Hit>, field: &str, most: usize, exclude_null: bool) -> Vec<Group> {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for hit in hits {
        let key = view::field(&hit, field).map_or(Value::Null, |value| value.into_owned());
        if key.is_null() && exclude_null {
            continue;
        }
        let place = *known.entry(key.to_string()).or_insert_with(|| {
            groups.push(Group { key, count: 0, best_score: None, hits: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[place];
        group.count += 1;
        group.best_score = match (group.best_score, hit.score) {
            (Some(best), Some(score)) => Some(best.max(score)),
            (best, score) => best.or(score),
        };
        if group.hits.len() < most {
            group.hits.push(hit);
        }
    }
    groups
}

fn sort(groups: &mut [Group], by: By, descending: bool) {
    let value = |group: &Group| match by {
        By::Position => Value::Null,
        By::Count => group.count.into(),
        By::Field => group.key.clone(),
        By::Score => group.best_score.map_or(Value::Null, Value::from),
    };
    groups.sort_by(|a, b| sort_order(Some(&value(a)), Some(&value(b)), descending));
}
