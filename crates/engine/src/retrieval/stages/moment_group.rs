//! `moment_group`: hits of one source that touch in time, as ranges of that source.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::Result;

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "moment_group",
    aliases: &["moments"],
    category: Category::Reduce,
    description: "Merges the hits of one source that touch in time into moments: one document a source, with its ranges.",
    icon: "film",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const DEFAULT_FIELD: &str = "root_object_id";
const DEFAULT_OUTPUT: &str = "moments";
/// Names under which extractors write when a segment begins and ends; those with `_ms` are in milliseconds, the others in
/// seconds.
const TIMES: [(&str, &str); 8] = [
    ("start_ms", "end_ms"),
    ("start_time_ms", "end_time_ms"),
    ("start_time", "end_time"),
    ("start_time_sec", "end_time_sec"),
    ("start_time_s", "end_time_s"),
    ("start_seconds", "end_seconds"),
    ("metadata.start_ms", "metadata.end_ms"),
    ("metadata.start_time", "metadata.end_time"),
];

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "group_by_field": {"type": "string", "default": DEFAULT_FIELD, "description": "Dot path of what tells the source. A document without it is a source of its own."},
            "start_field": {"type": "string", "description": "Dot path of where a hit begins. Where left out, the first that a document has of start_ms, start_time_ms, start_time, start_time_sec, start_time_s, start_seconds, metadata.start_ms and metadata.start_time."},
            "end_field": {"type": "string", "description": "Dot path of where it ends; the name that goes with the start where left out. A hit without an end is a point in time."},
            "time_unit": {
                "type": "string", "enum": ["auto", "seconds", "milliseconds"], "default": "auto",
                "description": "Unit of both; `auto` takes fields whose name ends in `_ms` as milliseconds and others as seconds. Texts such as 01:02:03.5 are hours, minutes and seconds.",
            },
            "max_gap_ms": {"type": "integer", "minimum": 0, "maximum": MAX_GAP_MS, "default": DEFAULT_GAP_MS, "description": "Hits that lie no further apart than this are one moment."},
            "max_moments": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10, "description": "Most moments of a source; the best are kept."},
            "max_groups": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100, "description": "Most sources."},
            "score_mode": {
                "type": "string", "enum": ["max", "mean", "sum"], "default": "max",
                "description": "Score of a moment from the scores of its hits. The document's score is that of its best hit.",
            },
            "sort_moments_by": {
                "type": "string", "enum": ["score", "time"], "default": "score",
                "description": "Order of a source's moments: the best first, or as they come in it.",
            },
            "output_field": {"type": "string", "default": DEFAULT_OUTPUT, "description": "Field that gets the list of `start_ms`, `end_ms`, `duration_ms`, `score`, `match_count` and `document_ids`."},
        },
    })
}

/// Milliseconds between two hits that still touch, unless asked otherwise.
const DEFAULT_GAP_MS: usize = 1_000;
const MAX_GAP_MS: u64 = 3_600_000;
/// Times beyond this are none: more milliseconds than a number holds exactly.
const MAX_MS: f64 = 9e15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Auto,
    Seconds,
    Milliseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScoreMode {
    Max,
    Mean,
    Sum,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Score,
    Time,
}

#[derive(Debug)]
struct MomentGroup {
    field: Option<Setting<String>>,
    start_field: Option<Setting<String>>,
    end_field: Option<Setting<String>>,
    unit: Option<Setting<Unit>>,
    max_gap_ms: Option<Setting<usize>>,
    max_moments: Option<Setting<usize>>,
    max_groups: Option<Setting<usize>>,
    score_mode: Option<Setting<ScoreMode>>,
    by: Option<Setting<By>>,
    output_field: Option<Setting<String>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let unit = |value: &Value, at: &str| {
        let known = [
            ("auto", Unit::Auto),
            ("seconds", Unit::Seconds),
            ("s", Unit::Seconds),
            ("milliseconds", Unit::Milliseconds),
            ("ms", Unit::Milliseconds),
        ];
        choice(value, at, &known)
    };
    let score_mode = |value: &Value, at: &str| {
        let known =
            [("max", ScoreMode::Max), ("mean", ScoreMode::Mean), ("avg", ScoreMode::Mean), ("sum", ScoreMode::Sum)];
        choice(value, at, &known)
    };
    let by = |value: &Value, at: &str| choice(value, at, &[("score", By::Score), ("time", By::Time)]);
    let stage = MomentGroup {
        field: params.setting(&["group_by_field", "group_field", "source_field"], text)?,
        start_field: params.setting(&["start_field", "start_time_field"], text)?,
        end_field: params.setting(&["end_field", "end_time_field"], text)?,
        unit: params.setting(&["time_unit", "unit"], unit)?,
        max_gap_ms: params.setting(&["max_gap_ms", "gap_ms"], count(0..=MAX_GAP_MS))?,
        max_moments: params.setting(&["max_moments"], count(1..=1_000))?,
        max_groups: params.setting(&["max_groups", "limit"], count(1..=1_000))?,
        score_mode: params.setting(&["score_mode"], score_mode)?,
        by: params.setting(&["sort_moments_by"], by)?,
        output_field: params.setting(&["output_field"], text)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

/// How hits become moments.
struct How {
    start: Option<String>,
    end: Option<String>,
    unit: Unit,
    max_gap_ms: f64,
    max_moments: usize,
    score_mode: ScoreMode,
    by: By,
}

/// The hits of one source, in their order.
struct Source {
    hits: Vec<Hit>,
}

impl Stage for MomentGroup {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let field = value_or(self.field.as_ref(), run.variables, DEFAULT_FIELD.to_owned())?;
            let output = value_or(self.output_field.as_ref(), run.variables, DEFAULT_OUTPUT.to_owned())?;
            let max_groups = value_or(self.max_groups.as_ref(), run.variables, 100)?;
            let how = self.how(run)?;
            let hits = run.read(set).await?;
            let mut sources = sources(hits, &field);
            run.metadata.insert("total_groups".into(), sources.len().into());
            sources.truncate(max_groups);
            let (mut made, mut moments, mut untimed) = (Vec::with_capacity(sources.len()), 0, 0);
            for source in sources {
                let (found, without) = how.moments(&source.hits);
                moments += found.len();
                untimed += without;
                let Some(mut first) = source.hits.into_iter().next() else { continue };
                view::set(&mut first, &output, Value::Array(found));
                made.push(first);
            }
            run.metadata.insert("moments".into(), moments.into());
            run.metadata.insert("without_time".into(), untimed.into());
            Ok(WorkingSet::Read(made))
        })
    }
}

impl MomentGroup {
    fn how(&self, run: &Run<'_>) -> Result<How> {
        let named = |setting: &Option<Setting<String>>| match setting {
            Some(setting) => setting.value(run.variables),
            None => Ok(None),
        };
        Ok(How {
            start: named(&self.start_field)?,
            end: named(&self.end_field)?,
            unit: value_or(self.unit.as_ref(), run.variables, Unit::Auto)?,
            max_gap_ms: value_or(self.max_gap_ms.as_ref(), run.variables, DEFAULT_GAP_MS)? as f64,
            max_moments: value_or(self.max_moments.as_ref(), run.variables, 10)?,
            score_mode: value_or(self.score_mode.as_ref(), run.variables, ScoreMode::Max)?,
            by: value_or(self.by.as_ref(), run.variables, By::Score)?,
        })
    }
}

/// The hits by source, in the order in which the sources first appear.
fn sources(hits: Vec<Hit>, field: &str) -> Vec<Source> {
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut sources: Vec<Source> = Vec::new();
    for hit in hits {
        let key = view::field(&hit, field).filter(|value| !value.is_null()).map(|value| value.to_string());
        let place = match key {
            None => sources.len(),
            Some(key) => *known.entry(key).or_insert(sources.len()),
        };
        match sources.get_mut(place) {
            Some(source) => source.hits.push(hit),
            None => sources.push(Source { hits: vec![hit] }),
        }
    }
    sources
}

/// A range of a source while it grows.
struct Moment<'h> {
    start_ms: f64,
    end_ms: f64,
    hits: Vec<&'h Hit>,
}

impl How {
    /// The moments of a source as they are answered, and how many of its hits have no time.
    fn moments(&self, hits: &[Hit]) -> (Vec<Value>, usize) {
        let mut timed: Vec<(f64, f64, &Hit)> =
            hits.iter().filter_map(|hit| self.range(hit).map(|(start, end)| (start, end, hit))).collect();
        let without = hits.len() - timed.len();
        timed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut moments: Vec<Moment<'_>> = Vec::new();
        for (start_ms, end_ms, hit) in timed {
            match moments.last_mut().filter(|last| start_ms - last.end_ms <= self.max_gap_ms) {
                Some(last) => {
                    last.end_ms = last.end_ms.max(end_ms);
                    last.hits.push(hit);
                }
                None => moments.push(Moment { start_ms, end_ms, hits: vec![hit] }),
            }
        }
        let mut scored: Vec<(Option<f64>, Moment<'_>)> =
            moments.into_iter().map(|moment| (self.score(&moment), moment)).collect();
        // Stable, so that equal ones stay as they come in the source.
        scored.sort_by(|(a, _), (b, _)| b.unwrap_or(f64::NEG_INFINITY).total_cmp(&a.unwrap_or(f64::NEG_INFINITY)));
        scored.truncate(self.max_moments);
        if self.by == By::Time {
            scored.sort_by(|(_, a), (_, b)| a.start_ms.total_cmp(&b.start_ms));
        }
        (scored.iter().map(|(score, moment)| moment.answered(*score)).collect(), without)
    }

    fn score(&self, moment: &Moment<'_>) -> Option<f64> {
        let scores: Vec<f64> = moment.hits.iter().filter_map(|hit| hit.score).collect();
        let sum: f64 = scores.iter().sum();
        match self.score_mode {
            ScoreMode::Max => scores.iter().copied().max_by(f64::total_cmp),
            ScoreMode::Mean => (!scores.is_empty()).then(|| sum / scores.len() as f64),
            ScoreMode::Sum => (!scores.is_empty()).then_some(sum),
        }
    }

    /// Milliseconds at which a hit begins and ends; `None` where it has no beginning.
    fn range(&self, hit: &Hit) -> Option<(f64, f64)> {
        let usual = || TIMES.iter().find(|(start, _)| milliseconds(hit, start, self.unit).is_some()).copied();
        let (start_field, usual_end) = match &self.start {
            Some(field) => (field.as_str(), TIMES.iter().find(|(start, _)| start == field).map(|(_, end)| *end)),
            None => usual().map(|(start, end)| (start, Some(end)))?,
        };
        let start = milliseconds(hit, start_field, self.unit)?;
        let end = self.end.as_deref().or(usual_end).and_then(|field| milliseconds(hit, field, self.unit));
        Some((start, end.unwrap_or(start).max(start)))
    }
}

impl Moment<'_> {
    fn answered(&self, score: Option<f64>) -> Value {
        let (start, end) = (self.start_ms.round() as i64, self.end_ms.round() as i64);
        let ids: Vec<&str> = self.hits.iter().map(|hit| hit.document.document_id.as_str()).collect();
        json!({
            "start_ms": start,
            "end_ms": end,
            "duration_ms": end - start,
            "score": score,
            "match_count": ids.len(),
            "document_ids": ids,
        })
    }
}

/// The time at a dot path, in milliseconds.
fn milliseconds(hit: &Hit, field: &str, unit: Unit) -> Option<f64> {
    let value = view::field(hit, field)?;
    let factor = match unit {
        Unit::Milliseconds => 1.0,
        Unit::Auto if is_in_milliseconds(field) => 1.0,
        Unit::Auto | Unit::Seconds => 1_000.0,
    };
    let found = match value.as_ref() {
        Value::String(text) if text.contains(':') => clock(text)? * 1_000.0,
        Value::String(text) => text.trim().parse::<f64>().ok()? * factor,
        other => other.as_f64()? * factor,
    };
    (found.abs() <= MAX_MS).then_some(found)
}

/// Whether a field's name says that it holds milliseconds: `ms`, or something that ends in `_ms` or `Ms`.
fn is_in_milliseconds(field: &str) -> bool {
    let name = field.rsplit('.').next().unwrap_or(field);
    name == "ms" || name.ends_with("_ms") || name.ends_with("Ms")
}

/// Seconds of `mm:ss` or `hh:mm:ss`, with a fraction or without.
fn clock(text: &str) -> Option<f64> {
    let parts: Vec<f64> = text
        .trim()
        .split(':')
        .map(|part| part.replace(',', ".").parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite()))
        .collect::<Option<_>>()?;
    (2..=3).contains(&parts.len()).then(|| parts.iter().fold(0.0, |seconds, part| seconds * 60.0 + part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::fake;

    fn hit(seq: i64, fields: Value, score: f64) -> Hit {
        let mut hit = Hit::new(fake::document(seq, fields));
        hit.score = Some(score);
        hit
    }

    fn how() -> How {
        How {
            start: None,
            end: None,
            unit: Unit::Auto,
            max_gap_ms: 1_000.0,
            max_moments: 10,
            score_mode: ScoreMode::Max,
            by: By::Score,
        }
    }

    #[test]
    fn hits_that_touch_are_one_moment_and_the_best_moment_is_first() {
        let hits = [
            hit(1, json!({"start_time": 10, "end_time": 12.5}), 0.5),
            hit(2, json!({"start_time": 0, "end_time": 4}), 0.3),
            hit(3, json!({"start_time": 13.4, "end_time": 14}), 0.9),
            hit(4, json!({"start_time": 2, "end_time": 3}), 0.4),
            hit(5, json!({"title": "no time"}), 0.8),
        ];
        let (moments, without) = how().moments(&hits);
        assert_eq!(without, 1);
        assert_eq!(
            moments,
            [
                json!({"start_ms": 10_000, "end_ms": 14_000, "duration_ms": 4_000, "score": 0.9, "match_count": 2, "document_ids": ["doc_1", "doc_3"]}),
                json!({"start_ms": 0, "end_ms": 4_000, "duration_ms": 4_000, "score": 0.4, "match_count": 2, "document_ids": ["doc_2", "doc_4"]}),
            ]
        );
        let timeline = How { by: By::Time, max_gap_ms: 0.0, score_mode: ScoreMode::Sum, ..how() }.moments(&hits).0;
        assert_eq!(timeline.iter().map(|m| m["start_ms"].as_i64().unwrap()).collect::<Vec<_>>(), [0, 10_000, 13_400]);
        assert_eq!(timeline[0]["score"], 0.7);
        assert_eq!(How { max_moments: 1, ..how() }.moments(&hits).0.len(), 1);
    }

    #[test]
    fn times_have_many_names_and_units() {
        let range = |how: &How, fields: Value| how.range(&hit(1, fields, 0.0));
        assert_eq!(range(&how(), json!({"start_ms": 5, "end_ms": 7})), Some((5.0, 7.0)));
        assert_eq!(range(&how(), json!({"start_time_sec": "1.5"})), Some((1_500.0, 1_500.0)));
        assert_eq!(
            range(&how(), json!({"start_time": "01:02:03.5", "end_time": "62:05"})),
            Some((3_723_500.0, 3_725_000.0))
        );
        assert_eq!(range(&how(), json!({"start_time": 9, "end_time": 3})), Some((9_000.0, 9_000.0)), "an end before");
        for none in
            [json!({"start_time": "soon"}), json!({"start_time": "1:2:3:4"}), json!({"start_time": 1e300}), json!({})]
        {
            assert_eq!(range(&how(), none.clone()), None, "{none}");
        }
        let own = How { start: Some("at".into()), end: Some("to".into()), unit: Unit::Milliseconds, ..how() };
        assert_eq!(range(&own, json!({"at": 3, "to": 4})), Some((3.0, 4.0)));
    }

    #[test]
    fn a_document_without_a_source_stands_alone() {
        let hits = vec![
            hit(1, json!({"v": "a"}), 1.0),
            hit(2, json!({}), 1.0),
            hit(3, json!({"v": "a"}), 1.0),
            hit(4, json!({"v": null}), 1.0),
        ];
        let sizes: Vec<usize> = sources(hits, "v").iter().map(|source| source.hits.len()).collect();
        assert_eq!(sizes, [2, 1, 1]);
    }
}
