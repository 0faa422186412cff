//! `aggregate`: numbers about the working set.

use super::sort_attribute::descending;
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::objects::aggregate::percentile;
use crate::retrieval::params::{Params, Setting, choice, count, flag, number, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::{Error, Fields, Result, filter::sort_order};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "aggregate",
    aliases: &[],
    category: Category::Reduce,
    description: "Counts, sums and other numbers over the working set, as a whole or for each value of some fields; they stand in the stage's metadata.",
    icon: "sigma",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const MAX_OPERATIONS: usize = 50;
const MAX_GROUP_FIELDS: usize = 10;
/// Most values that one operation lists.
const MAX_VALUES: usize = 1_000;
const FUNCTIONS: [(&str, Function); 18] = [
    ("count", Function::Count),
    ("count_distinct", Function::CountDistinct),
    ("cardinality", Function::CountDistinct),
    ("sum", Function::Sum),
    ("avg", Function::Avg),
    ("min", Function::Min),
    ("max", Function::Max),
    ("first", Function::First),
    ("last", Function::Last),
    ("collect", Function::Collect),
    ("collect_distinct", Function::CollectDistinct),
    ("percentile", Function::Percentile),
    ("stddev", Function::Stddev),
    ("variance", Function::Variance),
    ("frequency", Function::Frequency),
    ("co_occurrence", Function::CoOccurrence),
    ("correlation", Function::Correlation),
    ("histogram", Function::Histogram),
];

fn schema() -> Value {
    let functions: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
    json!({
        "type": "object",
        "required": ["aggregations"],
        "properties": {
            "aggregations": {
                "type": "array", "minItems": 1, "maxItems": MAX_OPERATIONS,
                "items": {"type": "object", "required": ["function", "alias"], "properties": {
                    "function": {"type": "string", "enum": functions},
                    "field": {"type": "string", "description": "Dot path of the value; of a list each element counts. Every function but `count` needs it."},
                    "field_b": {"type": "string", "description": "The other field of `correlation` and `co_occurrence`."},
                    "percentile_value": {"type": "number", "minimum": 0, "maximum": 100, "default": 50},
                    "percentiles": {"type": "array", "items": {"type": "number"}, "description": "Several percentiles at once."},
                    "interval": {"type": "number", "description": "Width of a bar of `histogram`."},
                    "top_k": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10, "description": "Values that `frequency` and `co_occurrence` list."},
                    "alias": {"type": "string", "description": "Name of the result."},
                }},
            },
            "group_by": {"type": "array", "maxItems": MAX_GROUP_FIELDS, "items": {"type": "object", "required": ["field"], "properties": {
                "field": {"type": "string"}, "alias": {"type": "string"},
            }}},
            "sort_by": {"type": "string", "description": "Alias that orders the groups; without it they come as their first documents do."},
            "sort_order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Most groups."},
            "include_documents": {"type": "boolean", "default": false, "description": "Whether the documents go on; otherwise the working set is empty after this stage."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    Collect,
    CollectDistinct,
    Percentile,
    Stddev,
    Variance,
    Frequency,
    CoOccurrence,
    Correlation,
    Histogram,
}

impl Function {
    fn is_of_two(self) -> bool {
        matches!(self, Self::CoOccurrence | Self::Correlation)
    }
}

#[derive(Debug)]
struct Operation {
    function: Function,
    field: Option<String>,
    field_b: Option<String>,
    percentiles: Vec<f64>,
    /// `percentiles` was a list, and so is the answer.
    several: bool,
    interval: f64,
    top_k: usize,
    alias: String,
}

#[derive(Debug)]
struct Aggregate {
    operations: Vec<Operation>,
    /// Dot path and name.
    group_by: Vec<(String, String)>,
    sort_by: Option<String>,
    descending: Option<Setting<bool>>,
    limit: Option<Setting<usize>>,
    include_documents: Option<Setting<bool>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let operations = operations(&mut params)?;
    let group_by = group_fields(&mut params)?;
    let sort_by = params.fixed(&["sort_by"], text)?;
    if let Some(by) = &sort_by {
        let is_named = operations.iter().any(|o| o.alias == *by) || group_by.iter().any(|(_, name)| name == by);
        if !is_named {
            return Err(Error::invalid(params.place("sort_by"), format!("`{by}` is not an alias of this stage")));
        }
    }
    let stage = Aggregate {
        operations,
        group_by,
        sort_by,
        descending: params.setting(&["sort_order", "sort_direction"], descending)?,
        limit: params.setting(&["limit"], count(1..=1_000))?,
        include_documents: params.setting(&["include_documents"], flag)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn operations(params: &mut Params<'_>) -> Result<Vec<Operation>> {
    let Some((at, value)) = params.take(&["aggregations"]) else {
        return Err(Error::invalid(params.place("aggregations"), "is required"));
    };
    let list = match value {
        Value::Array(list) if (1..=MAX_OPERATIONS).contains(&list.len()) => list,
        _ => return Err(Error::invalid(at, format!("must be an array of 1 to {MAX_OPERATIONS} operations"))),
    };
    let mut operations: Vec<Operation> = Vec::with_capacity(list.len());
    for (i, one) in list.into_iter().enumerate() {
        let at = format!("{at}.{i}");
        let Value::Object(fields) = one else { return Err(Error::invalid(at, "must be an object")) };
        let mut below = params.below(fields, at);
        let operation = operation(&mut below)?;
        if operations.iter().any(|other| other.alias == operation.alias) {
            return Err(Error::invalid(below.place("alias"), format!("`{}` is named twice", operation.alias)));
        }
        below.finish();
        operations.push(operation);
    }
    Ok(operations)
}

fn operation(below: &mut Params<'_>) -> Result<Operation> {
    let required = |name: &str, below: &Params<'_>| Error::invalid(below.place(name), "is required");
    let function = below.fixed(&["function", "type"], |v, at| choice(v, at, &FUNCTIONS))?;
    let function = function.ok_or_else(|| required("function", below))?;
    let field = below.fixed(&["field"], text)?;
    let field_b = below.fixed(&["field_b"], text)?;
    if field.is_none() && function != Function::Count {
        return Err(required("field", below));
    }
    if field_b.is_none() && function.is_of_two() {
        return Err(required("field_b", below));
    }
    let percentile = |v: &Value, at: &str| number(0.0..=100.0)(v, at);
    let several = match below.take(&["percentiles"]) {
        Some((at, Value::Array(list))) => {
            let each = list.iter().enumerate().map(|(i, v)| percentile(v, &format!("{at}.{i}")));
            Some(each.collect::<Result<Vec<f64>>>()?)
        }
        Some((at, _)) => return Err(Error::invalid(at, "must be an array of numbers")),
        None => None,
    };
    let one = below.fixed(&["percentile_value"], percentile)?.unwrap_or(50.0);
    let interval = below.fixed(&["interval"], |v, at| number(f64::MIN_POSITIVE..=f64::MAX)(v, at))?;
    if interval.is_none() && function == Function::Histogram {
        return Err(required("interval", below));
    }
    let alias = below.fixed(&["alias", "name"], text)?;
    Ok(Operation {
        function,
        field,
        field_b,
        several: several.is_some(),
        percentiles: several.unwrap_or_else(|| vec![one]),
        interval: interval.unwrap_or(1.0),
        top_k: below.fixed(&["top_k"], |v, at| count(1..=100)(v, at))?.unwrap_or(10),
        alias: alias.ok_or_else(|| required("alias", below))?,
    })
}

fn group_fields(params: &mut Params<'_>) -> Result<Vec<(String, String)>> {
    let Some((at, value)) = params.take(&["group_by"]) else { return Ok(Vec::new()) };
    let list = match value {
        Value::Array(list) if list.len() <= MAX_GROUP_FIELDS => list,
        Value::Array(_) => return Err(Error::invalid(at, format!("has at most {MAX_GROUP_FIELDS} fields"))),
        one => vec![one],
    };
    let mut fields = Vec::with_capacity(list.len());
    for (i, one) in list.into_iter().enumerate() {
        let at = format!("{at}.{i}");
        match one {
            Value::Object(inner) => {
                let mut below = params.below(inner, at);
                let field = below
                    .fixed(&["field"], text)?
                    .ok_or_else(|| Error::invalid(below.place("field"), "is required"))?;
                let alias = below.fixed(&["alias"], text)?.unwrap_or_else(|| field.clone());
                below.finish();
                fields.push((field, alias));
            }
            other => {
                let field = text(&other, &at)?;
                fields.push((field.clone(), field));
            }
        }
    }
    Ok(fields)
}

impl Stage for Aggregate {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let descending = value_or(self.descending.as_ref(), run.variables, true)?;
            let limit = value_or(self.limit.as_ref(), run.variables, usize::MAX)?;
            let include = value_or(self.include_documents.as_ref(), run.variables, false)?;
            let hits = run.read(set).await?;
            if self.group_by.is_empty() {
                let all: Vec<&Hit> = hits.iter().collect();
                run.metadata.insert("aggregations".into(), Value::Object(self.numbers(&all)));
            } else {
                let mut groups = self.groups(&hits);
                run.metadata.insert("total_groups".into(), groups.len().into());
                if let Some(by) = &self.sort_by {
                    let key = |row: &Fields| row.get(by).or_else(|| row["group"].get(by)).cloned();
                    groups.sort_by(|a, b| sort_order(key(a).as_ref(), key(b).as_ref(), descending));
                }
                groups.truncate(limit);
                run.metadata.insert("aggregations".into(), groups.into_iter().map(Value::Object).collect());
            }
            run.metadata.insert("total_documents".into(), hits.len().into());
            Ok(WorkingSet::Read(if include { hits } else { Vec::new() }))
        })
    }
}

impl Aggregate {
    fn numbers(&self, hits: &[&Hit]) -> Fields {
        self.operations.iter().map(|operation| (operation.alias.clone(), operation.over(hits))).collect()
    }

    /// `{group: {name: value}, alias: number}` for each combination of values, in the order of their first documents.
    fn groups(&self, hits: &[Hit]) -> Vec<Fields> {
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<(Fields, Vec<&Hit>)> = Vec::new();
        for hit in hits {
            let value = |field: &str| view::field(hit, field).map_or(Value::Null, |value| value.into_owned());
            let key: Fields = self.group_by.iter().map(|(field, name)| (name.clone(), value(field))).collect();
            let place = *known.entry(json!(key).to_string()).or_insert_with(|| {
                groups.push((key, Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(hit);
        }
        let row = |(key, hits): (Fields, Vec<&Hit>)| {
            let mut row = Map::from_iter([("group".to_owned(), Value::Object(key))]);
            row.extend(self.numbers(&hits));
            row
        };
        groups.into_iter().map(row).collect()
    }
}

impl Operation {
    fn over(&self, hits: &[&Hit]) -> Value {
        let Some(field) = &self.field else { return hits.len().into() };
        if let Some(other) = self.field_b.as_ref().filter(|_| self.function.is_of_two()) {
            return match self.function {
                Function::Correlation => correlation(hits, field, other),
                _ => self.pairs(hits, field, other),
            };
        }
        let all: Vec<Value> = hits.iter().flat_map(|hit| view::values(hit, field)).collect();
        let numbers: Vec<f64> = all.iter().filter_map(Value::as_f64).collect();
        let by_order = |a: &&Value, b: &&Value| sort_order(Some(a), Some(b), false);
        let some = |value: Option<f64>| value.map_or(Value::Null, number_json);
        match self.function {
            Function::Count => all.len().into(),
            Function::CountDistinct => distinct(&all).len().into(),
            Function::Sum => number_json(numbers.iter().sum()),
            Function::Avg => some(mean(&numbers)),
            Function::Min => all.iter().min_by(by_order).cloned().unwrap_or_default(),
            Function::Max => all.iter().max_by(by_order).cloned().unwrap_or_default(),
            Function::First => all.first().cloned().unwrap_or_default(),
            Function::Last => all.last().cloned().unwrap_or_default(),
            Function::Collect => all.into_iter().take(MAX_VALUES).collect(),
            Function::CollectDistinct => distinct(&all).into_iter().map(|(value, _)| value).take(MAX_VALUES).collect(),
            Function::Percentile => {
                let of = |percent: &f64| (percent.to_string(), some(percentile(numbers.clone(), *percent / 100.0)));
                match self.several {
                    true => Value::Object(self.percentiles.iter().map(of).collect()),
                    false => self.percentiles.first().map_or(Value::Null, |percent| of(percent).1),
                }
            }
            Function::Variance => some(variance(&numbers)),
            Function::Stddev => some(variance(&numbers).map(f64::sqrt)),
            Function::Frequency => {
                top(distinct(&all), self.top_k).map(|(value, count)| json!({"value": value, "count": count})).collect()
            }
            Function::Histogram => histogram(&numbers, self.interval),
            Function::CoOccurrence | Function::Correlation => Value::Null,
        }
    }

    /// The pairs of values that documents have in both fields, the most frequent first.
    fn pairs(&self, hits: &[&Hit], a: &str, b: &str) -> Value {
        let of = |hit: &&Hit| {
            let others = view::values(hit, b);
            let both = |x: Value| others.iter().map(move |y| json!([x, y])).collect::<Vec<_>>();
            view::values(hit, a).into_iter().flat_map(both).collect::<Vec<_>>()
        };
        let all: Vec<Value> = hits.iter().flat_map(of).collect();
        let pair = |(pair, count): (Value, usize)| json!({"value": pair[0], "value_b": pair[1], "count": count});
        top(distinct(&all), self.top_k).map(pair).collect()
    }
}

/// Whole numbers stay whole.
fn number_json(number: f64) -> Value {
    match number.fract() == 0.0 && number.abs() < 9e15 {
        true => (number as i64).into(),
        false => number.into(),
    }
}

/// Each value once, in the order of first appearance, and how often it is there.
fn distinct(values: &[Value]) -> Vec<(Value, usize)> {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut counts: Vec<(Value, usize)> = Vec::new();
    for value in values {
        let place = *known.entry(value.to_string()).or_insert_with(|| {
            counts.push((value.clone(), 0));
            counts.len() - 1
        });
        counts[place].1 += 1;
    }
    counts
}

fn top(mut counts: Vec<(Value, usize)>, most: usize) -> impl Iterator<Item = (Value, usize)> {
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(most)
}

fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

/// Of the whole population.
fn variance(numbers: &[f64]) -> Option<f64> {
    let mean = mean(numbers)?;
    Some(numbers.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / numbers.len() as f64)
}

fn histogram(numbers: &[f64], interval: f64) -> Value {
    let mut bars: std::collections::BTreeMap<i64, usize> = std::collections::BTreeMap::new();
    for number in numbers {
        *bars.entry((number / interval).floor() as i64).or_default() += 1;
    }
    let bar = |(at, count): (i64, usize)| json!({"key": number_json(at as f64 * interval), "count": count});
    bars.into_iter().take(MAX_VALUES).map(bar).collect()
}

/// Pearson's coefficient over the documents that have a number in both fields; null where one of them never changes.
fn correlation(hits: &[&Hit], a: &str, b: &str) -> Value {
    let pairs = hits.iter().filter_map(|hit| Some((view::number(hit, a)?, view::number(hit, b)?)));
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.unzip();
    let (Some(mean_x), Some(mean_y)) = (mean(&x), mean(&y)) else { return Value::Null };
    let (mut both, mut of_x, mut of_y) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(&y) {
        both += (x - mean_x) * (y - mean_y);
        of_x += (x - mean_x).powi(2);
        of_y += (y - mean_y).powi(2);
    }
    let spread = (of_x * of_y).sqrt();
    if spread > 0.0 { (both / spread).into() } else { Value::Null }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_textbook() {
        let numbers = [1.0, 2.0, 3.0, 4.0];
        assert_eq!((percentile(numbers.to_vec(), 0.5), percentile(numbers.to_vec(), 1.0)), (Some(2.5), Some(4.0)));
        assert_eq!((percentile(vec![7.0], 0.99), percentile(Vec::new(), 0.5)), (Some(7.0), None));
        assert_eq!((variance(&numbers), variance(&[])), (Some(1.25), None));
        assert_eq!(
            histogram(&[0.5, 1.0, 1.9, -0.1], 1.0),
            json!([
                {"key": -1, "count": 1}, {"key": 0, "count": 1}, {"key": 1, "count": 2},
            ])
        );
    }
}
