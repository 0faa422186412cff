//! Payload and filters in the index's terms, such that the index agrees with [`Filter::matches`] exactly.
//!
//! Values are normalised when they are stored: one flat key per indexed path, holding a keyword, a 64-bit float or a
//! boolean. A value that the normal form cannot hold makes its field *odd*: the shard then refuses to filter on it and
//! the caller falls back to ids. Equality of numbers is a closed range, because that is what `1 == 1.0` means.

use super::{PayloadIndex, PayloadKind};
use qdrant_edge as qe;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use strata_model::acl::READERS;
use strata_model::filter::{Condition, Filter, Operator, number_in, truth_in};
use strata_model::{Fields, Reader, path};

/// Most values of one `in` condition that the index evaluates.
const MAX_IN_VALUES: usize = 1_000;

/// How a field is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Keyword,
    Number,
    Datetime,
    Bool,
}

impl Stored {
    /// `None`: nothing is kept for this field.
    pub(super) fn of(index: &PayloadIndex) -> Option<Self> {
        if index.field.is_empty() || index.field.contains(['"', '\\']) {
            return None;
        }
        match index.kind {
            PayloadKind::Keyword | PayloadKind::Uuid => Some(Self::Keyword),
            PayloadKind::Integer | PayloadKind::Float => Some(Self::Number),
            PayloadKind::Datetime => Some(Self::Datetime),
            PayloadKind::Bool => Some(Self::Bool),
            PayloadKind::Text | PayloadKind::Geo => None,
        }
    }

    pub(super) fn schema(self) -> qe::PayloadSchemaType {
        match self {
            Self::Keyword => qe::PayloadSchemaType::Keyword,
            Self::Number | Self::Datetime => qe::PayloadSchemaType::Float,
            Self::Bool => qe::PayloadSchemaType::Bool,
        }
    }

    /// The stored form of one scalar; `Ok(None)` where it can satisfy no condition the index evaluates, `Err` where it
    /// could but has no stored form.
    fn normal(self, value: &Value) -> Result<Option<Value>, ()> {
        match (self, value) {
            (Self::Keyword, Value::String(_)) | (Self::Bool, Value::Bool(_)) => Ok(Some(value.clone())),
            // A text that reads as one of these equals it.
            (Self::Keyword, Value::Number(_) | Value::Bool(_)) => Err(()),
            (Self::Bool, Value::String(text)) => Ok(truth_in(text).map(Value::Bool)),
            (Self::Number, Value::Number(number)) => match number.as_f64() {
                Some(x) if x.is_finite() => Ok(Some(json!(x))),
                _ => Err(()),
            },
            (Self::Number, Value::String(text)) => Ok(number_in(text).map(|x| json!(x))),
            (Self::Datetime, Value::String(text)) => datetime_rank(text).map(|rank| Some(json!(rank))).ok_or(()),
            _ => Ok(None),
        }
    }
}

/// The quoted JSON path of a flat key.
pub(super) fn key(field: &str) -> String {
    format!("\"{field}\"")
}

/// The payload to store for a document. Names of odd fields go to `odd`.
pub(super) fn payload(indexes: &[PayloadIndex], fields: &Fields, odd: &mut BTreeSet<String>) -> Map<String, Value> {
    let mut kept = Map::new();
    for index in indexes {
        let (Some(stored), Some(found)) = (Stored::of(index), path::get_field(fields, &index.field)) else { continue };
        let scalars = match found {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        let mut values = Vec::with_capacity(scalars.len());
        for scalar in scalars {
            match stored.normal(scalar) {
                Ok(value) => values.extend(value),
                Err(()) => {
                    odd.insert(index.field.clone());
                }
            }
        }
        match values.len() {
            0 => {}
            1 => {
                kept.insert(index.field.clone(), values.remove(0));
            }
            _ => {
                kept.insert(index.field.clone(), Value::Array(values));
            }
        }
    }
    kept
}

/// Filters compare dates as text. This maps `YYYY-MM-DDTHH:MM:SS[.f{1,6}]Z` to a number of the same order, exact in a
/// 64-bit float up to the year 2100: seconds, then six base-11 places in which `Z` ranks above the digits. A time without a
/// fraction ranks last in its second, because `Z` follows `.` in ASCII. `None`: any other text.
pub(super) fn datetime_rank(text: &str) -> Option<f64> {
    let (whole, rest) = text.split_at_checked(19)?;
    let shape = |(i, c): (usize, char)| match i {
        4 | 7 => c == '-',
        10 => c == 'T',
        13 | 16 => c == ':',
        _ => c.is_ascii_digit(),
    };
    if !whole.chars().enumerate().all(shape) || whole.ends_with("60") || !("1900".."2100").contains(&&whole[..4]) {
        return None;
    }
    let second = format!("{whole}Z").parse::<jiff::Timestamp>().ok()?.as_second();
    let places = 11_i64.pow(6);
    let rank = match rest.strip_prefix('.') {
        None if rest == "Z" => places,
        None => return None,
        Some(fraction) => {
            let digits = fraction
                .strip_suffix('Z')
                .filter(|d| (1..=6).contains(&d.len()) && d.bytes().all(|b| b.is_ascii_digit()))?;
            let place = |i: usize| match digits.as_bytes().get(i) {
                Some(digit) => i64::from(digit - b'0'),
                None if i == digits.len() => 10,
                None => 0,
            };
            (0..6).fold(0, |sum, i| sum * 11 + place(i))
        }
    };
    Some((second * (places + 1) + rank) as f64)
}

/// The filter could not be expressed.
#[derive(Debug)]
pub(super) struct Unfit;

/// The index's form of `filter`; `Ok(None)` where everything passes.
pub(super) fn compile(
    filter: &Filter,
    indexes: &[PayloadIndex],
    odd: &BTreeSet<String>,
) -> Result<Option<Value>, Unfit> {
    let branch = |list: &[Filter]| list.iter().map(|f| compile(f, indexes, odd)).collect::<Result<Vec<_>, Unfit>>();
    match filter {
        Filter::And(list) => {
            let parts: Vec<Value> = branch(list)?.into_iter().flatten().collect();
            Ok((!parts.is_empty()).then(|| json!({ "must": parts })))
        }
        Filter::Or(list) => {
            let parts: Option<Vec<Value>> = branch(list)?.into_iter().collect();
            Ok(parts.filter(|p| !p.is_empty()).map(|parts| json!({ "should": parts })))
        }
        Filter::Not(list) => {
            let parts: Vec<Value> = branch(list)?.into_iter().collect::<Option<_>>().ok_or(Unfit)?;
            Ok((!parts.is_empty()).then(|| json!({ "must_not": parts })))
        }
        Filter::Is(condition) => leaf(condition, indexes, odd).map(Some),
    }
}

/// The documents that `reader` sees; `Ok(None)` where it sees all.
pub(super) fn readable(reader: &Reader, indexes: &[PayloadIndex]) -> Result<Option<Value>, Unfit> {
    let Some(words) = reader.words() else { return Ok(None) };
    match indexes.iter().any(|index| index.field == READERS) {
        true => Ok(Some(json!({ "key": key(READERS), "match": { "any": words } }))),
        // Built before there were readers.
        false => Err(Unfit),
    }
}

fn leaf(condition: &Condition, indexes: &[PayloadIndex], odd: &BTreeSet<String>) -> Result<Value, Unfit> {
    // Who reads a document is no field of it: what a caller means by this name is something else.
    let index = indexes.iter().find(|i| i.field == condition.field && i.field != READERS).ok_or(Unfit)?;
    let stored = Stored::of(index).ok_or(Unfit)?;
    if odd.contains(&index.field) {
        return Err(Unfit);
    }
    let key = key(&index.field);
    let bound = |name: &str| -> Result<Value, Unfit> {
        Ok(json!({ "key": key, "range": { name: number(stored, &condition.value)? } }))
    };
    match condition.operator {
        Operator::Eq => equal(stored, &key, &condition.value),
        Operator::In => {
            let list = condition.value.as_array().filter(|l| !l.is_empty() && l.len() <= MAX_IN_VALUES).ok_or(Unfit)?;
            if stored == Stored::Keyword {
                return match list.iter().all(Value::is_string) {
                    true => Ok(json!({ "key": key, "match": { "any": list } })),
                    false => Err(Unfit),
                };
            }
            let parts = list.iter().map(|v| equal(stored, &key, v)).collect::<Result<Vec<_>, _>>()?;
            Ok(json!({ "should": parts }))
        }
        Operator::Gt => bound("gt"),
        Operator::Gte => bound("gte"),
        Operator::Lt => bound("lt"),
        Operator::Lte => bound("lte"),
        Operator::Ne
        | Operator::Nin
        | Operator::Contains
        | Operator::StartsWith
        | Operator::EndsWith
        | Operator::Regex
        | Operator::Exists
        | Operator::IsNull
        | Operator::Text
        | Operator::Phrase
        | Operator::Words
        | Operator::GeoRadius
        | Operator::GeoBoundingBox
        | Operator::GeoPolygon => Err(Unfit),
    }
}

fn equal(stored: Stored, key: &str, wanted: &Value) -> Result<Value, Unfit> {
    match stored {
        Stored::Keyword if wanted.is_string() => Ok(json!({ "key": key, "match": { "value": wanted } })),
        Stored::Bool if wanted.is_boolean() => Ok(json!({ "key": key, "match": { "value": wanted } })),
        Stored::Number | Stored::Datetime => {
            let number = number(stored, wanted)?;
            Ok(json!({ "key": key, "range": { "gte": number, "lte": number } }))
        }
        Stored::Keyword | Stored::Bool => Err(Unfit),
    }
}

fn number(stored: Stored, wanted: &Value) -> Result<Value, Unfit> {
    match (stored, wanted) {
        (Stored::Number, Value::Number(_)) | (Stored::Datetime, Value::String(_)) => {
            stored.normal(wanted).ok().flatten().ok_or(Unfit)
        }
        _ => Err(Unfit),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn dates_rank_as_their_text_does() {
        let mut texts = vec![
            "2024-05-01T10:20:30Z",
            "2024-05-01T10:20:30.5Z",
            "2024-05-01T10:20:30.50Z",
            "2024-05-01T10:20:30.55Z",
            "2024-05-01T10:20:30.000001Z",
            "2024-05-01T10:20:31.1Z",
            "1969-12-31T23:59:59.999999Z",
            "2099-12-31T23:59:59.123456Z",
            "2099-12-31T23:59:59.123457Z",
        ];
        texts.sort_unstable();
        let ranks: Vec<f64> = texts.iter().map(|t| datetime_rank(t).unwrap()).collect();
        assert!(ranks.windows(2).all(|w| w[0] < w[1]), "{ranks:?}");
        for odd in
            ["2024-05-01", "2024-05-01T10:20:30+00:00", "2024-05-01T10:20:30.1234567Z", "2024-13-01T10:20:30Z", "x"]
        {
            assert_eq!(datetime_rank(odd), None, "{odd}");
        }
    }
}
