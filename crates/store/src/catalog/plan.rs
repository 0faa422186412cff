//! How the documents of a filter are found: through the payload index that lets the fewest through, where there is one.
//!
//! An index only ever narrows. What it lets through is a superset of what satisfies the filter, and the whole filter is
//! asked of each of these documents again; so a plan changes how long an answer takes and nothing else.

use super::{
    documents::rows,
    filter::Clause,
    payload::{self, Index, MISSING},
};
use rusqlite::{Connection, types::Value as SqlValue};
use serde_json::Value;
use strata_model::{
    Result,
    document::SYSTEM_FIELDS,
    filter::{Condition, Filter, Operator, number_in, truth_in},
};

/// Beyond this, numbers are not exact in the arithmetic of filters, and an index could miss some.
const EXACT: f64 = 9_007_199_254_740_991.0;
/// Longest list of values that is looked up in an index.
const MAX_LIST: usize = 1_000;
/// Most parts that a lookup is of.
const MAX_RANGES: usize = 64;

/// Documents that a filter may let through, by an index.
pub(super) struct Candidates {
    ranges: Vec<Range>,
    /// How many entries they are, or the most that were counted.
    pub count: usize,
    /// They are exactly those that satisfy the filter.
    pub is_exact: bool,
}

impl Candidates {
    /// A query for their sequence numbers.
    pub fn query(&self) -> Clause {
        query(&self.ranges)
    }

    /// Whether looking all of them up costs less than walking through `total` documents in order until `wanted` of them
    /// are found.
    pub fn is_cheaper_than_walking(&self, wanted: usize, total: i64) -> bool {
        let count = self.count.max(1) as f64;
        count * STEPS_A_LOOKUP <= wanted as f64 * total as f64 / count
    }
}

/// What a lookup costs, reading the document and sorting it included, in steps of a walk.
const STEPS_A_LOOKUP: f64 = 4.0;

/// A part of an index: the entries of one rank whose values satisfy comparisons.
#[derive(Debug, Clone)]
pub(super) struct Range {
    index_id: i64,
    rank: u8,
    /// `AND value …` for each.
    compared: String,
    values: Vec<SqlValue>,
}

impl Range {
    pub fn rank(&self) -> u8 {
        self.rank
    }

    /// That an entry belongs to it.
    pub fn clause(&self) -> Clause {
        let place = [SqlValue::from(self.index_id), SqlValue::from(self.rank)];
        Clause {
            sql: format!("index_id = ? AND rank = ?{}", self.compared),
            values: place.into_iter().chain(self.values.iter().cloned()).collect(),
        }
    }
}

fn query(ranges: &[Range]) -> Clause {
    let mut clause = Clause::default();
    for range in ranges {
        let Clause { sql, values } = range.clause();
        let union = if clause.sql.is_empty() { "" } else { " UNION ALL " };
        clause.sql.push_str(&format!("{union}SELECT document_seq FROM payload_entries WHERE {sql}"));
        clause.values.extend(values);
    }
    clause
}

/// The narrowest lookup for `filter` among the complete indexes of a collection; its entries are counted up to `cap`.
pub(super) fn candidates(
    connection: &Connection,
    collection_id: &str,
    filter: &Filter,
    cap: usize,
) -> Result<Option<Candidates>> {
    if filter.is_empty() {
        return Ok(None);
    }
    let indexes = usable(connection, collection_id)?;
    if indexes.is_empty() {
        return Ok(None);
    }
    narrowest(connection, &indexes, filter, cap)
}

fn narrowest(connection: &Connection, indexes: &[Index], filter: &Filter, cap: usize) -> Result<Option<Candidates>> {
    let counted = |ranges: Option<Vec<Range>>, is_exact: bool| -> Result<Option<Candidates>> {
        let Some(ranges) = ranges.filter(|ranges| ranges.len() <= MAX_RANGES) else { return Ok(None) };
        let mut clause = query(&ranges);
        clause.values.push(SqlValue::from(cap as i64));
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM ({}) LIMIT ?)", clause.sql);
        let count = rows(connection, &sql, &clause.values, |r| r.get::<_, i64>(0))?.pop().unwrap_or(0);
        Ok(Some(Candidates { ranges, count: usize::try_from(count).unwrap_or(cap), is_exact }))
    };
    match filter {
        Filter::Is(condition) => {
            let Some(index) = indexes.iter().find(|index| index.field == condition.field) else { return Ok(None) };
            let ranges = lookup(index, condition).map(|ranges| occupied(connection, ranges)).transpose()?;
            let is_exact = is_exact(index, condition) && ranges.as_ref().is_some_and(|ranges| ranges.len() == 1);
            counted(ranges, is_exact)
        }
        Filter::And(list) => {
            let mut best: Option<Candidates> = None;
            let merged = between(indexes, list).into_iter().map(|ranges| counted(Some(ranges), false));
            let alone = list.iter().map(|part| narrowest(connection, indexes, part, cap));
            for found in merged.chain(alone) {
                if let Some(found) = found?
                    && best.as_ref().is_none_or(|best| found.count < best.count)
                {
                    best = Some(Candidates { is_exact: found.is_exact && list.len() == 1, ..found });
                }
            }
            Ok(best)
        }
        Filter::Or(list) if !list.is_empty() => {
            let mut all = Candidates { ranges: Vec::new(), count: 0, is_exact: false };
            for part in list {
                let Some(found) = narrowest(connection, indexes, part, cap)? else { return Ok(None) };
                all.count += found.count;
                all.ranges.extend(found.ranges);
            }
            Ok((all.ranges.len() <= MAX_RANGES).then_some(all))
        }
        Filter::Or(_) | Filter::Not(_) => Ok(None),
    }
}

/// Whether the first range of a lookup has each document that satisfies the condition once, and no other, where the
/// further ones are empty.
fn is_exact(index: &Index, condition: &Condition) -> bool {
    condition.operator == Operator::Eq && !index.field.contains('.')
}

/// The first of some ranges, and those of the others that have entries: what is there for values of other types than the
/// condition's is mostly empty.
fn occupied(connection: &Connection, ranges: Vec<Range>) -> Result<Vec<Range>> {
    let mut kept = Vec::with_capacity(ranges.len());
    for range in ranges {
        let Clause { sql, values } = range.clause();
        let sql = format!("SELECT EXISTS (SELECT 1 FROM payload_entries WHERE {sql})");
        if kept.is_empty() || rows(connection, &sql, &values, |r| r.get(0))?.pop() == Some(true) {
            kept.push(range);
        }
    }
    Ok(kept)
}

/// The entries of an index among which all documents are that satisfy the condition; `None` where it cannot tell. The
/// first range is of the condition's own type.
fn lookup(index: &Index, condition: &Condition) -> Option<Vec<Range>> {
    let one = |rank, compared, value| one(index, rank, compared, value);
    let wanted = &condition.value;
    match condition.operator {
        Operator::Contains if wanted.is_string() => None,
        Operator::Eq | Operator::Contains => equal(index, wanted),
        Operator::In => {
            let list = wanted.as_array().filter(|list| list.len() <= MAX_LIST)?;
            let ranges: Vec<Range> = list.iter().map(|v| equal(index, v)).collect::<Option<Vec<_>>>()?.concat();
            let own = scalar(list.first()?)?.0;
            let ranks = std::iter::once(own).chain((0..=2).filter(|rank| *rank != own));
            Some(ranks.filter_map(|rank| joined(&ranges, rank)).collect())
        }
        Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
            let sign = sign(condition.operator)?;
            let (rank, value) = scalar(wanted)?;
            let mut ranges = vec![one(rank, sign, value)];
            match wanted {
                // Text that reads as a number compares as one.
                Value::Number(_) => ranges.push(any(index, 1)),
                Value::String(text) => {
                    if let Some(number) = number_in(text) {
                        ranges.push(one(0, sign, exact(number)?));
                    }
                }
                _ => {}
            }
            Some(ranges)
        }
        _ => None,
    }
}

/// Where an index has what equals a value.
fn equal(index: &Index, wanted: &Value) -> Option<Vec<Range>> {
    let (rank, value) = scalar(wanted)?;
    let mut ranges = vec![one(index, rank, "= ?", value)];
    match wanted {
        // Any text may read as the number.
        Value::Number(_) => ranges.push(any(index, 1)),
        Value::Bool(truth) => ranges.push(one(index, 1, "= ? COLLATE NOCASE", truth.to_string().into())),
        Value::String(text) => {
            if let Some(number) = number_in(text) {
                ranges.push(exact(number).map_or_else(|| any(index, 0), |number| one(index, 0, "= ?", number)));
            }
            ranges.extend(truth_in(text).map(|truth| one(index, 2, "= ?", i64::from(truth).into())));
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {}
    }
    Some(ranges)
}

/// All of one rank that some ranges hold.
fn joined(ranges: &[Range], rank: u8) -> Option<Range> {
    let own: Vec<&Range> = ranges.iter().filter(|range| range.rank == rank).collect();
    let first = (*own.first()?).clone();
    if own.iter().any(|range| range.compared.is_empty()) {
        return Some(Range { compared: String::new(), values: Vec::new(), ..first });
    }
    let nocase = if own.iter().any(|range| range.compared.ends_with("NOCASE")) { " COLLATE NOCASE" } else { "" };
    let values: Vec<SqlValue> = own.iter().flat_map(|range| range.values.clone()).collect();
    Some(Range { compared: format!(" AND value{nocase} IN ({})", vec!["?"; values.len()].join(", ")), values, ..first })
}

fn one(index: &Index, rank: u8, compared: &str, value: SqlValue) -> Range {
    Range { index_id: index.index_id, rank, compared: format!(" AND value {compared}"), values: vec![value] }
}

fn any(index: &Index, rank: u8) -> Range {
    Range { index_id: index.index_id, rank, compared: String::new(), values: Vec::new() }
}

fn sign(operator: Operator) -> Option<&'static str> {
    match operator {
        Operator::Gt => Some("> ?"),
        Operator::Gte => Some(">= ?"),
        Operator::Lt => Some("< ?"),
        Operator::Lte => Some("<= ?"),
        _ => None,
    }
}

/// Conditions on one field that bound its number from both sides. A document with several values may satisfy each side
/// by another of them, so indexes with such documents are left out.
fn between(indexes: &[Index], list: &[Filter]) -> Vec<Vec<Range>> {
    let bounds = |index: &Index| {
        let mut range = Range { compared: String::new(), ..any(index, 0) };
        for part in list {
            if let Filter::Is(condition) = part
                && condition.field == index.field
                && let (Some(sign), Value::Number(number)) = (sign(condition.operator), &condition.value)
                && let Some(value) = number.as_f64().and_then(exact)
            {
                range.compared.push_str(&format!(" AND value {sign}"));
                range.values.push(value);
            }
        }
        (range.values.len() > 1).then(|| vec![range, any(index, 1)])
    };
    indexes.iter().filter(|index| !index.has_arrays).filter_map(bounds).collect()
}

/// Where an index has a value that equality and order can look up.
fn scalar(value: &Value) -> Option<(u8, SqlValue)> {
    match value {
        Value::Number(number) => Some((0, exact(number.as_f64()?)?)),
        Value::String(text) => Some((1, SqlValue::Text(text.clone()))),
        Value::Bool(truth) => Some((2, SqlValue::Integer((*truth).into()))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn exact(number: f64) -> Option<SqlValue> {
    (number.abs() < EXACT).then_some(SqlValue::Real(number))
}

/// The documents of a collection in the order of an index: stretch after stretch, each of one kind of value.
pub(super) struct Order {
    index_id: i64,
    is_descending: bool,
    stretches: Vec<Range>,
    members: Clause,
}

impl Order {
    pub fn is_descending(&self) -> bool {
        self.is_descending
    }

    pub fn stretches(&self) -> &[Range] {
        &self.stretches
    }

    /// That the document of an entry satisfies the equalities of the filter that other indexes answer: conditions that
    /// save reading documents which the filter would refuse.
    pub fn members(&self) -> &Clause {
        &self.members
    }

    /// Whether the values of `rank` come before those of `other`. What is missing comes last either way.
    pub fn comes_before(&self, rank: u8, other: u8) -> bool {
        match self.is_descending && rank != MISSING && other != MISSING {
            true => rank > other,
            false => rank < other,
        }
    }

    /// Whether the stretches hold no more than these candidates.
    pub fn bounds(&self, candidates: &Candidates) -> bool {
        candidates.ranges.iter().all(|range| range.index_id == self.index_id)
    }
}

/// The order of a collection's documents by `field`, where a complete index knows it: of all of them, or of those
/// between the bounds that `filter` sets to the field.
pub(super) fn order(
    connection: &Connection,
    collection_id: &str,
    field: &str,
    is_descending: bool,
    filter: &Filter,
) -> Result<Option<Order>> {
    let mut indexes = usable(connection, collection_id)?;
    let Some(at) = indexes.iter().position(|index| index.field == field) else { return Ok(None) };
    let index = indexes.swap_remove(at);
    let parts = match filter {
        Filter::And(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    // Where no document has several values, each stands at the one that conditions see.
    let bounded = (!index.has_arrays).then(|| bounded(&index, parts)).flatten();
    let mut stretches = bounded.unwrap_or_else(|| (0..=MISSING).map(|rank| any(&index, rank)).collect());
    stretches.sort_by_key(|stretch| match (stretch.rank, is_descending) {
        (MISSING, _) => MISSING,
        (rank, true) => MISSING - 1 - rank,
        (rank, false) => rank,
    });
    let mut members = Clause::default();
    for condition in parts.iter().filter_map(equality) {
        if let Some(index) = indexes.iter().find(|index| index.field == condition.field)
            && let Some(ranges) = equal(index, &condition.value)
            && let [only] = occupied(connection, ranges)?.as_slice()
        {
            let Clause { sql, values } = only.clause();
            members.and(Clause {
                sql: format!(
                    "EXISTS (SELECT 1 FROM payload_entries m WHERE {sql} AND m.document_seq = payload_entries.document_seq)"
                ),
                values,
            });
        }
    }
    Ok(Some(Order { index_id: index.index_id, is_descending, stretches, members }))
}

/// The part of an index to which conditions on its field bound what satisfies all of `parts`.
fn bounded(index: &Index, parts: &[Filter]) -> Option<Vec<Range>> {
    if let Some(ranges) = between(std::slice::from_ref(index), parts).pop() {
        return Some(ranges);
    }
    let own = parts.iter().filter_map(|part| match part {
        Filter::Is(condition) if condition.field == index.field => Some(condition),
        _ => None,
    });
    own.filter_map(|condition| lookup(index, condition)).next()
}

fn equality(part: &Filter) -> Option<&Condition> {
    match part {
        Filter::Is(condition) if condition.operator == Operator::Eq => Some(condition),
        _ => None,
    }
}

/// The complete indexes of a collection whose fields are no columns.
fn usable(connection: &Connection, collection_id: &str) -> Result<Vec<Index>> {
    let mut indexes = payload::indexes(connection, collection_id)?;
    indexes.retain(|index| index.is_complete && !SYSTEM_FIELDS.contains(&&*index.field));
    Ok(indexes)
}
