//! The filter language: one syntax tree. It is compiled three ways (SQL over the catalog, the index's own filter, and
//! [`Filter::matches`] over a value in memory), which must agree.
//!
//! A missing field satisfies no positive condition. A text is taken for a number or a boolean where it is compared with
//! one and reads as one (`"10"` equals `10.0`, `"true"` equals `true`); otherwise values of different types never compare.

use crate::{
    Error, Fields, Result, document,
    geo::{Area, Point},
    limits, path,
};
use qdrant_rust_stemmers::{Algorithm, Stemmer};
use serde_json::Value;
use std::{borrow::Cow, cmp::Ordering, collections::HashSet};
use unicode_segmentation::UnicodeSegmentation;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    In,
    Nin,
    Contains,
    StartsWith,
    EndsWith,
    Regex,
    Exists,
    IsNull,
    Text,
    Phrase,
    Words,
    GeoRadius,
    GeoBoundingBox,
    GeoPolygon,
}

impl Operator {
    /// All of them, by the names that requests use.
    pub const ALL: [(&'static str, Self); 20] = [
        ("eq", Self::Eq),
        ("ne", Self::Ne),
        ("gt", Self::Gt),
        ("gte", Self::Gte),
        ("lt", Self::Lt),
        ("lte", Self::Lte),
        ("in", Self::In),
        ("nin", Self::Nin),
        ("contains", Self::Contains),
        ("starts_with", Self::StartsWith),
        ("ends_with", Self::EndsWith),
        ("regex", Self::Regex),
        ("exists", Self::Exists),
        ("is_null", Self::IsNull),
        ("text", Self::Text),
        ("phrase", Self::Phrase),
        ("words", Self::Words),
        ("geo_radius", Self::GeoRadius),
        ("geo_bounding_box", Self::GeoBoundingBox),
        ("geo_polygon", Self::GeoPolygon),
    ];
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, op)| *op)
    }
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, op)| *op == self).map_or("eq", |(name, _)| name)
    }
}

/// One field against one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Dot path from the document's root.
    pub field: String,
    pub operator: Operator,
    pub value: Value,
    /// Text comparisons fold case unless this is set. Equality of `eq`/`in` is always exact.
    pub case_sensitive: bool,
}

/// A filter tree. `And` of nothing is true, `Or` of nothing is true (an empty filter filters nothing), `Not` holds
/// when every listed filter is false.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Vec<Filter>),
    Is(Condition),
}

impl Filter {
    /// The filter that lets everything through.
    pub fn all() -> Self {
        Self::And(Vec::new())
    }
    pub fn eq(field: &str, value: impl Into<Value>) -> Self {
        Self::Is(Condition { field: field.into(), operator: Operator::Eq, value: value.into(), case_sensitive: true })
    }
    pub fn is_empty(&self) -> bool {
        match self {
            Self::And(list) | Self::Or(list) | Self::Not(list) => list.is_empty(),
            Self::Is(_) => false,
        }
    }
    /// Both filters hold.
    pub fn and(self, other: Filter) -> Self {
        match (self.is_empty(), other.is_empty()) {
            (true, _) => other,
            (_, true) => self,
            _ => Self::And(vec![self, other]),
        }
    }
    /// Every field the filter names.
    pub fn fields(&self) -> Vec<&str> {
        match self {
            Self::And(list) | Self::Or(list) | Self::Not(list) => list.iter().flat_map(Self::fields).collect(),
            Self::Is(condition) => vec![condition.field.as_str()],
        }
    }

    /// Reads the JSON forms the API accepts: `{AND,OR,NOT}` trees, `{field, operator, value}` conditions,
    /// `{path: value}` equalities, arrays (all of them) and null (everything). `at` names the place for errors.
    pub fn parse(value: &Value, at: &str) -> Result<Self> {
        let mut left = limits::MAX_FILTER_CONDITIONS;
        parse(value, at, 0, false, &mut left)
    }

    /// Whether `fields` satisfy the filter.
    pub fn matches(&self, fields: &Fields) -> bool {
        match self {
            Self::And(list) => list.iter().all(|f| f.matches(fields)),
            Self::Or(list) => list.is_empty() || list.iter().any(|f| f.matches(fields)),
            Self::Not(list) => !list.iter().any(|f| f.matches(fields)),
            Self::Is(condition) => condition.matches(path::get_field(fields, &condition.field)),
        }
    }
}

fn parse(value: &Value, at: &str, depth: usize, case: bool, left: &mut usize) -> Result<Filter> {
    if depth > limits::MAX_FILTER_DEPTH {
        return Err(Error::invalid(at, format!("filters nest at most {} levels", limits::MAX_FILTER_DEPTH)));
    }
    let map = match value {
        Value::Null => return Ok(Filter::all()),
        Value::Array(list) => {
            let parts = list.iter().enumerate().map(|(i, v)| parse(v, &format!("{at}.{i}"), depth + 1, case, left));
            return Ok(Filter::And(parts.collect::<Result<_>>()?));
        }
        Value::Object(map) => map,
        _ => {
            return Err(Error::invalid(
                at,
                "a filter is an object with `AND`, `OR`, `NOT`, or `field`, `operator`, `value`",
            ));
        }
    };
    // Official clients put `false` into every part of a filter, so only `true` says something.
    let case = case || map.get("case_sensitive") == Some(&Value::Bool(true));
    if let Some(Value::String(field)) = map.get("field") {
        return condition(field, map, at, case, left);
    }
    let mut parts = Vec::new();
    for (key, inner) in map {
        let at = format!("{at}.{key}");
        match (key.as_str(), inner) {
            ("case_sensitive", _) | ("AND" | "OR" | "NOT", Value::Null) => {}
            ("AND" | "and", _) => parts.push(Filter::And(branch(inner, &at, depth, case, left)?)),
            ("OR" | "or", _) => parts.push(Filter::Or(branch(inner, &at, depth, case, left)?)),
            ("NOT" | "not", _) => parts.push(Filter::Not(branch(inner, &at, depth, case, left)?)),
            ("must" | "must_not" | "should", Value::Array(_)) => {
                return Err(Error::invalid(at, "filters are written with `AND`, `OR`, `NOT`"));
            }
            (path, value) => {
                spend(&at, left)?;
                if path.is_empty() {
                    return Err(Error::invalid(at, "names no field"));
                }
                parts.push(shorthand(path, value, &at, case)?);
            }
        }
    }
    Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::And(parts) })
}

fn branch(value: &Value, at: &str, depth: usize, case: bool, left: &mut usize) -> Result<Vec<Filter>> {
    match value {
        Value::Array(list) => {
            list.iter().enumerate().map(|(i, v)| parse(v, &format!("{at}.{i}"), depth + 1, case, left)).collect()
        }
        Value::Object(_) => Ok(vec![parse(value, at, depth + 1, case, left)?]),
        _ => Err(Error::invalid(at, "must be an array of filters")),
    }
}

fn spend(at: &str, left: &mut usize) -> Result<()> {
    *left = left.checked_sub(1).ok_or_else(|| {
        Error::invalid(at, format!("a filter has at most {} conditions", limits::MAX_FILTER_CONDITIONS))
    })?;
    Ok(())
}

/// `{"path": value}` is equality; `{"path": {"gte": 3}}` names operators.
fn shorthand(path: &str, value: &Value, at: &str, case_sensitive: bool) -> Result<Filter> {
    if let Value::Object(ops) = value {
        let named: Option<Vec<_>> =
            ops.iter().map(|(k, v)| Operator::parse(k.trim_start_matches('$')).map(|op| (op, v))).collect();
        if let Some(named) = named.filter(|n| !n.is_empty()) {
            let all = named.into_iter().map(|(operator, v)| {
                checked(Condition { field: path.into(), operator, value: v.clone(), case_sensitive }, at)
            });
            return Ok(Filter::And(all.collect::<Result<_>>()?));
        }
    }
    checked(Condition { field: path.into(), operator: Operator::Eq, value: value.clone(), case_sensitive }, at)
}

fn condition(field: &str, map: &Fields, at: &str, case_sensitive: bool, left: &mut usize) -> Result<Filter> {
    spend(at, left)?;
    if field.is_empty() {
        return Err(Error::invalid(format!("{at}.field"), "must not be empty"));
    }
    let operator = match map.get("operator") {
        None | Some(Value::Null) => Operator::Eq,
        Some(Value::String(text)) => Operator::parse(text).ok_or_else(|| {
            Error::invalid(
                format!("{at}.operator"),
                format!("`{text}` is not an operator; one of {}", Operator::ALL.map(|o| o.0).join(", ")),
            )
        })?,
        Some(_) => return Err(Error::invalid(format!("{at}.operator"), "must be a string")),
    };
    let Some(value) = map.get("value") else {
        return Err(Error::invalid(format!("{at}.value"), "is required"));
    };
    checked(Condition { field: field.into(), operator, value: value.clone(), case_sensitive }, at)
}

fn checked(mut condition: Condition, at: &str) -> Result<Filter> {
    let at = format!("{at}.value");
    condition.field = document::viewed(&condition.field).to_owned();
    let value = &condition.value;
    match condition.operator {
        Operator::In | Operator::Nin if !value.is_array() => Err(Error::invalid(at, "must be an array")),
        Operator::Contains
        | Operator::StartsWith
        | Operator::EndsWith
        | Operator::Text
        | Operator::Phrase
        | Operator::Words
            if !(value.is_string() || condition.operator == Operator::Contains) =>
        {
            Err(Error::invalid(at, "must be a string"))
        }
        Operator::Regex => match value.as_str().map(|p| regex::RegexBuilder::new(p).size_limit(1 << 20).build()) {
            Some(Ok(_)) => Ok(Filter::Is(condition)),
            Some(Err(e)) => Err(Error::invalid(at, format!("is not a regular expression: {e}"))),
            None => Err(Error::invalid(at, "must be a string")),
        },
        Operator::GeoRadius | Operator::GeoBoundingBox | Operator::GeoPolygon => {
            area(condition.operator, value, &at)?;
            Ok(Filter::Is(condition))
        }
        Operator::Exists | Operator::IsNull if !value.is_boolean() => Err(Error::invalid(at, "must be true or false")),
        _ => Ok(Filter::Is(condition)),
    }
}

/// The area that a geo operator compares with; `None` for the other operators.
fn area(operator: Operator, value: &Value, at: &str) -> Result<Option<Area>> {
    match operator {
        Operator::GeoRadius => Area::circle(value, at).map(Some),
        Operator::GeoBoundingBox => Area::rectangle(value, at).map(Some),
        Operator::GeoPolygon => Area::polygon(value, at).map(Some),
        _ => Ok(None),
    }
}

impl Condition {
    /// Whether the field's value, or its absence, satisfies the condition. An array field satisfies a positive
    /// condition when any of its elements does.
    pub fn matches(&self, found: Option<&Value>) -> bool {
        let wanted = &self.value;
        match self.operator {
            Operator::Exists => found.is_some() == (*wanted == Value::Bool(true)),
            Operator::IsNull => found.is_none_or(Value::is_null) == (*wanted == Value::Bool(true)),
            Operator::Ne => found.is_some_and(|f| !any(f, |v| alike(v, wanted))),
            Operator::Nin => found.is_some_and(|f| !any(f, |v| listed(v, wanted))),
            Operator::Eq => found.is_some_and(|f| alike(f, wanted) || any(f, |v| alike(v, wanted))),
            Operator::In => found.is_some_and(|f| any(f, |v| listed(v, wanted))),
            Operator::Gt => self.ordered(found, Ordering::is_gt),
            Operator::Gte => self.ordered(found, Ordering::is_ge),
            Operator::Lt => self.ordered(found, Ordering::is_lt),
            Operator::Lte => self.ordered(found, Ordering::is_le),
            Operator::Contains if !wanted.is_string() => found.is_some_and(|f| any(f, |v| alike(v, wanted))),
            Operator::Contains | Operator::Text | Operator::Phrase => {
                self.texts(found, |have, want| have.contains(want))
            }
            Operator::StartsWith => self.texts(found, |have, want| have.starts_with(want)),
            Operator::EndsWith => self.texts(found, |have, want| have.ends_with(want)),
            Operator::Words => {
                let stemmer = Stemmer::create(Algorithm::English);
                self.texts(found, |have, want| {
                    let have: HashSet<Cow<'_, str>> = have.unicode_words().map(|word| stemmer.stem(word)).collect();
                    want.unicode_words().all(|word| have.contains(&stemmer.stem(word)))
                })
            }
            Operator::Regex => {
                let Some(Ok(regex)) = wanted.as_str().map(|p| {
                    regex::RegexBuilder::new(p).case_insensitive(!self.case_sensitive).size_limit(1 << 20).build()
                }) else {
                    return false;
                };
                found.is_some_and(|f| any(f, |v| v.as_str().is_some_and(|t| regex.is_match(t))))
            }
            Operator::GeoRadius | Operator::GeoBoundingBox | Operator::GeoPolygon => {
                let Ok(Some(area)) = area(self.operator, wanted, "") else { return false };
                found.is_some_and(|f| any(f, |v| Point::of(v).is_some_and(|point| area.holds(point))))
            }
        }
    }

    fn ordered(&self, found: Option<&Value>, test: fn(Ordering) -> bool) -> bool {
        found.is_some_and(|f| any(f, |v| compare(v, &self.value).is_some_and(test)))
    }

    fn texts(&self, found: Option<&Value>, test: impl Fn(&str, &str) -> bool) -> bool {
        let Some(wanted) = self.value.as_str() else { return false };
        let exact = self.case_sensitive;
        let want = if exact { wanted.to_owned() } else { wanted.to_lowercase() };
        found.is_some_and(|f| {
            any(f, |v| v.as_str().is_some_and(|t| if exact { test(t, &want) } else { test(&t.to_lowercase(), &want) }))
        })
    }
}

fn any(value: &Value, test: impl Fn(&Value) -> bool) -> bool {
    match value {
        Value::Array(list) => list.iter().any(test),
        one => test(one),
    }
}

fn listed(value: &Value, list: &Value) -> bool {
    list.as_array().is_some_and(|l| l.iter().any(|w| alike(value, w)))
}

/// The number that a text reads as.
pub fn number_in(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// The boolean that a text reads as.
pub fn truth_in(text: &str) -> Option<bool> {
    [true, false].into_iter().find(|truth| text.eq_ignore_ascii_case(if *truth { "true" } else { "false" }))
}

/// [`equal`], where a text also equals the number or the boolean that it reads as.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(text), Value::Number(number)) | (Value::Number(number), Value::String(text)) => {
            number_in(text).is_some_and(|read| number.as_f64() == Some(read))
        }
        (Value::String(text), Value::Bool(truth)) | (Value::Bool(truth), Value::String(text)) => {
            truth_in(text) == Some(*truth)
        }
        _ => equal(a, b),
    }
}

/// Equality with numbers compared by value: `1` equals `1.0`.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x.as_f64() == y.as_f64(),
        _ => a == b,
    }
}

/// Order of two values of one type; text that both sides can read as numbers compares as such, RFC 3339 dates compare
/// as text. `None` where the types differ.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x.as_f64()?.partial_cmp(&y.as_f64()?),
        (Value::String(x), Value::String(y)) => Some(x.as_str().cmp(y.as_str())),
        (Value::Bool(x), Value::Bool(y)) => Some(x.cmp(y)),
        (Value::String(x), Value::Number(y)) => number_in(x)?.partial_cmp(&y.as_f64()?),
        (Value::Number(x), Value::String(y)) => x.as_f64()?.partial_cmp(&number_in(y)?),
        _ => None,
    }
}

/// The documented total order of mixed values, used by every sort: numbers, then text, then booleans, then anything
/// else; missing and null come last whatever the direction.
pub fn sort_order(a: Option<&Value>, b: Option<&Value>, descending: bool) -> Ordering {
    let (a, b) = (a.filter(|v| !v.is_null()), b.filter(|v| !v.is_null()));
    let (a, b) = match (a, b) {
        (None, None) => return Ordering::Equal,
        (None, _) => return Ordering::Greater,
        (_, None) => return Ordering::Less,
        (Some(a), Some(b)) => (a, b),
    };
    let kind = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        _ => 3,
    };
    let order = match kind(a).cmp(&kind(b)) {
        Ordering::Equal => compare(a, b).unwrap_or(Ordering::Equal),
        other => other,
    };
    if descending { order.reverse() } else { order }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields() -> Fields {
        json!({"title": "The Sea", "n": 3, "tags": ["a", "b"], "meta": {"ok": true}, "none": null})
            .as_object()
            .cloned()
            .unwrap()
    }
    fn holds(filter: Value) -> bool {
        Filter::parse(&filter, "filters").unwrap().matches(&fields())
    }

    #[test]
    fn conditions_over_values() {
        assert!(holds(json!({"title": "The Sea"})));
        assert!(holds(json!({"field": "title", "operator": "contains", "value": "sea"})));
        assert!(!holds(json!({"field": "title", "operator": "contains", "value": "sea", "case_sensitive": true})));
        let part = json!({"field": "title", "operator": "contains", "value": "sea", "case_sensitive": false});
        assert!(!holds(json!({"AND": [part], "case_sensitive": true})), "a default in a part says nothing");
        assert!(holds(json!({"title": {"words": "seas the"}})) && !holds(json!({"title": {"words": "sea th"}})));
        assert!(holds(json!({"n": {"gte": 3}, "meta.ok": true})));
        assert!(holds(json!({"field": "tags", "operator": "in", "value": ["b"]})));
        assert!(!holds(json!({"field": "absent", "operator": "ne", "value": 1})));
        assert!(holds(json!({"field": "absent", "operator": "exists", "value": false})));
        assert!(holds(json!({"field": "none", "operator": "is_null", "value": true})));
        assert!(holds(json!({"NOT": {"field": "n", "operator": "lt", "value": 3}})));
        assert!(holds(json!({"AND": [{"n": 3.0}, {"OR": [{"n": 9}, {"title": "The Sea"}]}]})));
        assert!(holds(json!({"AND": [], "OR": null})));
    }

    #[test]
    fn a_text_is_taken_for_the_number_or_the_boolean_that_it_reads_as() {
        assert!(holds(json!({"n": "3"})) && holds(json!({"n": " 3.0 "})) && holds(json!({"n": {"in": ["x", "3"]}})));
        assert!(!holds(json!({"n": "three"})) && !holds(json!({"n": "4"})) && !holds(json!({"n": {"ne": "3"}})));
        assert!(
            holds(json!({"meta.ok": "True"})) && !holds(json!({"meta.ok": "yes"})) && !holds(json!({"meta.ok": 1}))
        );
        let fields = json!({"zip": "010", "big": "1e999", "flag": "false"});
        let holds = |filter: Value| Filter::parse(&filter, "f").unwrap().matches(fields.as_object().unwrap());
        assert!(holds(json!({"zip": 10})) && !holds(json!({"zip": "10"})), "two texts are compared as texts");
        assert!(holds(json!({"flag": false})) && !holds(json!({"flag": true})));
        assert!(!holds(json!({"big": {"gt": 1}})), "not a finite number");
    }

    #[test]
    fn a_field_holds_a_place_or_several() {
        let fields = json!({
            "at": { "lat": 52.5, "lon": 13.4 },
            "stops": [{ "lat": 0, "lon": 0 }, { "lat": 52.5, "lon": 13.4 }, "elsewhere"],
            "text": "52.5,13.4",
        });
        let holds = |field: &str, operator: &str, value: Value| {
            let filter = Filter::parse(&json!({ "field": field, "operator": operator, "value": value }), "f").unwrap();
            filter.matches(fields.as_object().unwrap())
        };
        let circle = json!({ "center": { "lat": 52.5, "lon": 13.4 }, "radius": 10 });
        assert!(holds("at", "geo_radius", circle.clone()) && holds("stops", "geo_radius", circle.clone()));
        assert!(!holds("text", "geo_radius", circle.clone()) && !holds("absent", "geo_radius", circle.clone()));
        let north = json!({ "top_left": { "lat": 90, "lon": -180 }, "bottom_right": { "lat": 1, "lon": 180 } });
        assert!(holds("at", "geo_bounding_box", north));
        let points = json!([{ "lat": -1, "lon": -1 }, { "lat": -1, "lon": 2 }, { "lat": 2, "lon": -1 }]);
        let triangle = json!({ "exterior": { "points": points } });
        assert!(holds("stops", "geo_polygon", triangle.clone()) && !holds("at", "geo_polygon", triangle));
        let shorthand = Filter::parse(&json!({ "at": { "geo_radius": circle } }), "f").unwrap();
        assert!(shorthand.matches(fields.as_object().unwrap()));
    }

    #[test]
    fn refusals_name_the_place() {
        for (filter, place) in [
            (json!({"field": "n", "operator": "near", "value": 3}), "f.operator"),
            (json!({"AND": [{"field": "n", "operator": "in", "value": 3}]}), "f.AND.0.value"),
            (json!({"field": "n", "operator": "regex", "value": "("}), "f.value"),
            (json!({"field": "n", "operator": "geo_radius", "value": {"radius": 3}}), "f.value.center"),
            (json!({"": 3}), "f."),
            (json!(3), "f"),
        ] {
            match Filter::parse(&filter, "f") {
                Err(Error::Invalid(list)) => assert_eq!(list[0].field, place),
                other => panic!("{other:?}"),
            }
        }
        let mut deep = json!({"n": 1});
        for _ in 0..40 {
            deep = json!({"AND": [deep]});
        }
        assert!(Filter::parse(&deep, "f").is_err());
    }
}
