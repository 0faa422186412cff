//! Grouping rows and computing over the groups: what `…/aggregate` answers, over any rows of fields.
//!
//! Rows come one at a time, in order of creation; only groups are kept.

use jiff::{
    Unit, Zoned, ZonedRound,
    civil::{Date, DateTime},
    tz::TimeZone,
};
use serde_json::{Map, Value, json};
use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};
use strata_model::{Error, Fields, Result, document::viewed, filter, path};

const MAX_GROUPS: usize = 10_000;
/// Most values that `push` and `add_to_set` collect, and that `count_distinct` tells apart, in one group.
const MAX_COLLECTED: usize = 10_000;
/// Most numbers of which percentiles are taken, in all groups together.
const MAX_NUMBERS: usize = 5_000_000;

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
    Push,
    AddToSet,
    Percentile,
    Median,
    StdDev,
    Variance,
}

impl Function {
    const ALL: [(&'static str, Self); 14] = [
        ("count", Self::Count),
        ("count_distinct", Self::CountDistinct),
        ("sum", Self::Sum),
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("first", Self::First),
        ("last", Self::Last),
        ("push", Self::Push),
        ("add_to_set", Self::AddToSet),
        ("percentile", Self::Percentile),
        ("median", Self::Median),
        ("stddev", Self::StdDev),
        ("variance", Self::Variance),
    ];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    Trunc(&'static str),
    Part(&'static str),
}

const TRUNCS: [&str; 7] = ["year", "month", "week", "day", "hour", "minute", "second"];
const PARTS: [&str; 9] = ["year", "month", "week", "day", "dayOfWeek", "dayOfYear", "hour", "minute", "second"];

#[derive(Debug, Clone)]
struct GroupBy {
    field: String,
    alias: String,
    time: Option<Time>,
}

#[derive(Debug, Clone)]
struct Operation {
    function: Function,
    field: Option<String>,
    alias: String,
    /// Of `percentile` and `median`, from 0 to 1.
    rank: f64,
}

#[derive(Debug, Clone)]
struct Having {
    alias: String,
    test: fn(Ordering) -> bool,
    value: Value,
}

/// Ascending boundaries; a value equal to one belongs to the range below it.
#[derive(Debug, Clone)]
struct Ranges {
    field: String,
    boundaries: Vec<Value>,
    otherwise: String,
}

/// What is grouped, what is computed, and how the answer is ordered.
#[derive(Debug, Clone)]
pub struct Aggregation {
    group_by: Vec<GroupBy>,
    operations: Vec<Operation>,
    having: Vec<Having>,
    unwind: Option<String>,
    ranges: Vec<Ranges>,
    sort_by: Option<String>,
    descending: bool,
    limit: Option<usize>,
}

/// One group of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub group: Fields,
    pub metrics: Fields,
}

impl Aggregation {
    /// Reads the request body of an aggregate call.
    pub fn parse(json: &Value) -> Result<Self> {
        let ranges = items(json, "range_buckets")?.map(|(at, v)| ranges(v, &at)).collect::<Result<Vec<_>>>()?;
        let mut group_by = items(json, "group_by")?.map(|(at, v)| group(v, &at)).collect::<Result<Vec<_>>>()?;
        let again = group_by.iter().enumerate().find(|(i, g)| group_by[..*i].iter().any(|b| b.alias == g.alias));
        if let Some((i, again)) = again {
            let message = format!("`{}` is named twice; give one of them another `alias`", again.alias);
            return Err(Error::invalid(format!("group_by.{i}.alias"), message));
        }
        for range in &ranges {
            if !group_by.iter().any(|g| g.field == range.field) {
                group_by.push(GroupBy { field: range.field.clone(), alias: range.field.clone(), time: None });
            }
        }
        let operations = items(json, "aggregations")?.map(|(at, v)| operation(v, &at)).collect::<Result<Vec<_>>>()?;
        if operations.is_empty() {
            return Err(Error::invalid("aggregations", "must have at least one operation"));
        }
        if group_by.is_empty() && operations.iter().any(|o| o.function != Function::Count) {
            return Err(Error::invalid("group_by", "is required unless every function is `count`"));
        }
        if let Some((i, again)) =
            operations.iter().enumerate().find(|(i, o)| operations[..*i].iter().any(|b| b.alias == o.alias))
        {
            return Err(Error::invalid(format!("aggregations.{i}.alias"), format!("`{}` is named twice", again.alias)));
        }
        let having = items(json, "having")?.map(|(at, v)| having(v, &at)).collect::<Result<Vec<_>>>()?;
        if let Some((i, unknown)) =
            having.iter().enumerate().find(|(_, h)| !operations.iter().any(|o| o.alias == h.alias))
        {
            let message = format!("`{}` is no alias of `aggregations`", unknown.alias);
            return Err(Error::invalid(format!("having.{i}.field"), message));
        }
        let limit = match json.get("limit") {
            None | Some(Value::Null) => None,
            Some(limit) => Some(
                limit
                    .as_f64()
                    .filter(|n| *n >= 1.0)
                    .map(|n| n as usize)
                    .ok_or_else(|| Error::invalid("limit", "must be a number above 0"))?,
            ),
        };
        let descending = match text(json, "sort_direction") {
            None | Some("desc") => true,
            Some("asc") => false,
            Some(other) => return Err(Error::invalid("sort_direction", format!("`{other}` is neither asc nor desc"))),
        };
        let sort_by = text(json, "sort_by").map(str::to_owned);
        if let Some(name) = &sort_by {
            let is_known = operations.iter().any(|o| o.alias == *name)
                || group_by.iter().any(|g| g.alias == *name || g.field == *name);
            if !is_known {
                return Err(Error::invalid("sort_by", format!("`{name}` is no alias of this aggregation")));
            }
        }
        let unwind = text(json, "unwind").map(|u| u.trim_start_matches('$').to_owned());
        Ok(Self { group_by, operations, having, unwind, ranges, sort_by, descending, limit })
    }
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str).filter(|t| !t.is_empty())
}

fn items<'a>(json: &'a Value, key: &str) -> Result<impl Iterator<Item = (String, &'a Value)> + use<'a>> {
    let list = match json.get(key) {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Error::invalid(key, "must be an array")),
    };
    let key = key.to_owned();
    Ok(list.iter().enumerate().map(move |(i, v)| (format!("{key}.{i}"), v)))
}

fn required(json: &Value, key: &str, at: &str) -> Result<String> {
    text(json, key).map(str::to_owned).ok_or_else(|| Error::invalid(format!("{at}.{key}"), "is required"))
}

fn group(json: &Value, at: &str) -> Result<GroupBy> {
    let field = match json {
        Value::String(field) => field.clone(),
        _ => required(json, "field", at)?,
    };
    let unit =
        |key: &str, all: &[&'static str]| match text(json, key) {
            None => Ok(None),
            Some(unit) => all.iter().find(|u| **u == unit).copied().map(Some).ok_or_else(|| {
                Error::invalid(format!("{at}.{key}"), format!("`{unit}` is none of {}", all.join(", ")))
            }),
        };
    let time = match (unit("date_trunc", &TRUNCS)?, unit("date_part", &PARTS)?) {
        (Some(_), Some(_)) => return Err(Error::invalid(at, "has both `date_trunc` and `date_part`; send one")),
        (Some(unit), None) => Some(Time::Trunc(unit)),
        (None, Some(unit)) => Some(Time::Part(unit)),
        (None, None) => None,
    };
    Ok(GroupBy { alias: text(json, "alias").unwrap_or(&field).to_owned(), field: viewed(&field).to_owned(), time })
}

fn operation(json: &Value, at: &str) -> Result<Operation> {
    let name = required(json, "function", at)?;
    let known = || Function::ALL.map(|(name, _)| name).join(", ");
    let function = Function::ALL.iter().find(|(n, _)| *n == name).map(|(_, f)| *f);
    let function =
        function.ok_or_else(|| Error::invalid(format!("{at}.function"), format!("`{name}` is none of {}", known())))?;
    let field = match function {
        Function::CountDistinct => text(json, "distinct_field").or(text(json, "field")),
        _ => text(json, "field"),
    };
    if field.is_none() && function != Function::Count {
        return Err(Error::invalid(format!("{at}.field"), format!("is required for `{name}`")));
    }
    let percentile = json.get("percentile").filter(|p| !p.is_null());
    let rank = match (function, percentile) {
        (Function::Percentile, Some(percentile)) => {
            let within = percentile.as_f64().filter(|p| (0.0..=100.0).contains(p));
            within.ok_or_else(|| Error::invalid(format!("{at}.percentile"), "must be a number from 0 to 100"))? / 100.0
        }
        (Function::Percentile, None) => {
            return Err(Error::invalid(format!("{at}.percentile"), "is required for `percentile`"));
        }
        (_, Some(_)) => return Err(Error::invalid(format!("{at}.percentile"), "is for `percentile` alone")),
        (_, None) => 0.5,
    };
    let field = field.map(|field| viewed(field).to_owned());
    Ok(Operation { function, field, alias: required(json, "alias", at)?, rank })
}

fn having(json: &Value, at: &str) -> Result<Having> {
    let test: fn(Ordering) -> bool = match required(json, "operator", at)?.as_str() {
        "gt" => Ordering::is_gt,
        "gte" => Ordering::is_ge,
        "lt" => Ordering::is_lt,
        "lte" => Ordering::is_le,
        "eq" => Ordering::is_eq,
        "ne" => Ordering::is_ne,
        other => {
            return Err(Error::invalid(
                format!("{at}.operator"),
                format!("`{other}` is none of gt, gte, lt, lte, eq, ne"),
            ));
        }
    };
    let value = json.get("value").cloned().ok_or_else(|| Error::invalid(format!("{at}.value"), "is required"))?;
    Ok(Having { alias: required(json, "field", at)?, test, value })
}

fn ranges(json: &Value, at: &str) -> Result<Ranges> {
    let boundaries = json.get("boundaries").and_then(Value::as_array).cloned().unwrap_or_default();
    let numbers: Option<Vec<f64>> = boundaries.iter().map(Value::as_f64).collect();
    match numbers {
        Some(numbers) if !numbers.is_empty() && numbers.is_sorted_by(|a, b| a < b) => {}
        _ => return Err(Error::invalid(format!("{at}.boundaries"), "must be ascending numbers")),
    }
    let otherwise = text(json, "default_bucket").unwrap_or("other").to_owned();
    Ok(Ranges { field: required(json, "field", at)?, boundaries, otherwise })
}

impl Ranges {
    /// `low-high` of the range that holds the value.
    fn of(&self, value: Option<&Value>) -> Value {
        let within = value.and_then(Value::as_f64).and_then(|n| {
            self.boundaries.windows(2).enumerate().find(|(i, pair)| {
                let (low, high) = (pair[0].as_f64().unwrap_or(f64::NAN), pair[1].as_f64().unwrap_or(f64::NAN));
                // The lowest boundary has no range below it and belongs to the first.
                (n > low || (*i == 0 && n == low)) && n <= high
            })
        });
        within.map_or_else(|| self.otherwise.clone().into(), |(_, pair)| format!("{}-{}", pair[0], pair[1]).into())
    }
}

/// What one operation has seen of one group.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    sum: f64,
    /// Exact as long as every number was whole.
    whole: Option<i64>,
    value: Option<Value>,
    values: Vec<Value>,
    seen: HashSet<String>,
    numbers: Vec<f64>,
    /// Of the numbers so far.
    mean: f64,
    /// Sum of the squares of their distances from the mean.
    spread: f64,
}

impl Tally {
    fn add(&mut self, operation: &Operation, row: &Fields) -> Result<()> {
        let found = operation.field.as_deref().map(|f| path::get_field(row, f).filter(|v| !v.is_null()));
        let value = match found {
            // Without a field, `count` counts rows.
            None => return self.counted(),
            Some(None) => return Ok(()),
            Some(Some(value)) => value,
        };
        let better = |wanted: Ordering| match &self.value {
            None => true,
            Some(best) => filter::compare(value, best) == Some(wanted),
        };
        match operation.function {
            Function::Count => return self.counted(),
            Function::Sum | Function::Avg => {
                let Some(number) = value.as_f64() else { return Ok(()) };
                self.whole = match (self.count, self.whole, value.as_i64()) {
                    (0, _, first) => first,
                    (_, Some(sum), Some(n)) => sum.checked_add(n),
                    _ => None,
                };
                self.sum += number;
                self.count += 1;
            }
            Function::Min if better(Ordering::Less) => self.value = Some(value.clone()),
            Function::Max if better(Ordering::Greater) => self.value = Some(value.clone()),
            Function::First if self.value.is_none() => self.value = Some(value.clone()),
            Function::Last => self.value = Some(value.clone()),
            Function::Percentile | Function::Median => self.numbers.extend(value.as_f64()),
            Function::StdDev | Function::Variance => {
                // Welford's method: no large squares that cancel.
                let Some(number) = value.as_f64() else { return Ok(()) };
                self.count += 1;
                let off = number - self.mean;
                self.mean += off / self.count as f64;
                self.spread += off * (number - self.mean);
            }
            Function::Push => self.collect(operation, value)?,
            Function::AddToSet | Function::CountDistinct => {
                if self.seen.insert(value.to_string()) {
                    self.collect(operation, value)?;
                }
            }
            Function::Min | Function::Max | Function::First => {}
        }
        Ok(())
    }

    fn counted(&mut self) -> Result<()> {
        self.count += 1;
        Ok(())
    }

    fn collect(&mut self, operation: &Operation, value: &Value) -> Result<()> {
        if self.values.len() >= MAX_COLLECTED {
            return Err(Error::TooLarge(format!(
                "`{}` collects more than {MAX_COLLECTED} values in one group; narrow the filter",
                operation.alias
            )));
        }
        self.values.push(value.clone());
        Ok(())
    }

    fn result(self, operation: &Operation) -> Value {
        match operation.function {
            Function::Count => json!(self.count),
            Function::CountDistinct => json!(self.values.len()),
            Function::Sum if self.count == 0 => json!(0),
            Function::Sum => self.whole.map_or_else(|| json!(self.sum), |whole| json!(whole)),
            Function::Avg if self.count == 0 => Value::Null,
            Function::Avg => json!(self.sum / self.count as f64),
            Function::Min | Function::Max | Function::First | Function::Last => self.value.unwrap_or(Value::Null),
            Function::Push | Function::AddToSet => Value::Array(self.values),
            Function::Percentile | Function::Median => json!(percentile(self.numbers, operation.rank)),
            Function::StdDev | Function::Variance if self.count == 0 => Value::Null,
            Function::StdDev => json!((self.spread / self.count as f64).sqrt()),
            Function::Variance => json!(self.spread / self.count as f64),
        }
    }
}

/// The value at a rank from 0 to 1, between the closest of the sorted numbers in proportion; `None` of no numbers.
pub(crate) fn percentile(mut numbers: Vec<f64>, rank: f64) -> Option<f64> {
    numbers.sort_unstable_by(f64::total_cmp);
    let place = rank * numbers.len().checked_sub(1)? as f64;
    let (low, high) = (numbers[place.floor() as usize], numbers[place.ceil() as usize]);
    Some(if low == high { low } else { low + (high - low) * place.fract() })
}

/// The groups so far.
pub struct Groups<'a> {
    aggregation: &'a Aggregation,
    places: HashMap<String, usize>,
    groups: Vec<(Vec<Value>, Vec<Tally>)>,
    /// How many all groups keep.
    numbers: usize,
}

impl<'a> Groups<'a> {
    pub fn new(aggregation: &'a Aggregation) -> Self {
        let mut groups = Self { aggregation, places: HashMap::new(), groups: Vec::new(), numbers: 0 };
        if aggregation.group_by.is_empty() {
            // Counts over nothing are one row of zeros.
            groups.groups.push((Vec::new(), groups.tallies()));
            groups.places.insert(Value::Array(Vec::new()).to_string(), 0);
        }
        groups
    }

    fn tallies(&self) -> Vec<Tally> {
        self.aggregation.operations.iter().map(|_| Tally::default()).collect()
    }

    /// Counts one row in; with `unwind`, once for each element of that field.
    pub fn add(&mut self, row: &Fields) -> Result<()> {
        let Some(field) = &self.aggregation.unwind else { return self.add_one(row) };
        match path::get_field(row, field) {
            Some(Value::Array(elements)) => {
                for element in elements {
                    let mut one = row.clone();
                    path::set(&mut one, field, element.clone());
                    self.add_one(&one)?;
                }
                Ok(())
            }
            None | Some(Value::Null) => Ok(()),
            Some(_) => self.add_one(row),
        }
    }

    fn add_one(&mut self, row: &Fields) -> Result<()> {
        let of = |group: &GroupBy| {
            let value = path::get_field(row, &group.field);
            match (self.aggregation.ranges.iter().find(|r| r.field == group.field), group.time) {
                (Some(ranges), _) => ranges.of(value),
                (None, Some(time)) => value.and_then(|v| in_time(v, time)).unwrap_or(Value::Null),
                (None, None) => value.cloned().unwrap_or(Value::Null),
            }
        };
        let key: Vec<Value> = self.aggregation.group_by.iter().map(of).collect();
        let name = Value::Array(key.clone()).to_string();
        let place = match self.places.get(&name) {
            Some(place) => *place,
            None if self.groups.len() >= MAX_GROUPS => {
                return Err(Error::TooLarge(format!(
                    "there are more than {MAX_GROUPS} groups; group by less or narrow the filter"
                )));
            }
            None => {
                self.groups.push((key, self.tallies()));
                self.places.insert(name, self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        for (tally, operation) in self.groups[place].1.iter_mut().zip(&self.aggregation.operations) {
            let before = tally.numbers.len();
            tally.add(operation, row)?;
            self.numbers += tally.numbers.len() - before;
        }
        if self.numbers > MAX_NUMBERS {
            return Err(Error::TooLarge(format!(
                "there are more than {MAX_NUMBERS} numbers to take percentiles of; narrow the filter"
            )));
        }
        Ok(())
    }

    /// The groups that `having` lets through, ordered and cut; and how many there were before the cut.
    pub fn finish(self) -> Result<(Vec<Group>, usize)> {
        let aggregation = self.aggregation;
        let build = |(key, tallies): (Vec<Value>, Vec<Tally>)| {
            let group: Map<_, _> = aggregation.group_by.iter().map(|g| g.alias.clone()).zip(key).collect();
            let operations = aggregation.operations.iter();
            let metrics = operations.zip(tallies).map(|(o, t)| (o.alias.clone(), t.result(o))).collect();
            Group { group, metrics }
        };
        let mut groups: Vec<Group> = self.groups.into_iter().map(build).collect();
        groups.retain(|group| {
            aggregation.having.iter().all(|h| {
                let value = group.metrics.get(&h.alias).or_else(|| group.group.get(&h.alias));
                value.and_then(|v| filter::compare(v, &h.value)).is_some_and(h.test)
            })
        });
        if let Some(name) = &aggregation.sort_by {
            let alias = aggregation.group_by.iter().find(|g| g.field == *name).map_or(name, |g| &g.alias);
            let value = |group: &Group| group.metrics.get(name).or_else(|| group.group.get(alias)).cloned();
            groups.sort_by(|a, b| filter::sort_order(value(a).as_ref(), value(b).as_ref(), aggregation.descending));
        }
        let total = groups.len();
        groups.truncate(aggregation.limit.unwrap_or(total));
        Ok((groups, total))
    }
}

/// The start of the unit that a time lies in (RFC 3339), or a part of it. Weeks begin on Monday (ISO 8601);
/// `dayOfWeek` counts from 1 for Sunday.
fn in_time(value: &Value, time: Time) -> Option<Value> {
    let at = instant(value)?;
    let number = |n: i16| Some(json!(n));
    match time {
        Time::Part("year") => number(at.year()),
        Time::Part("month") => number(at.month().into()),
        Time::Part("week") => number(at.date().iso_week_date().week().into()),
        Time::Part("day") => number(at.day().into()),
        Time::Part("dayOfWeek") => number(i16::from(at.weekday().to_sunday_one_offset())),
        Time::Part("dayOfYear") => number(at.day_of_year()),
        Time::Part("hour") => number(at.hour().into()),
        Time::Part("minute") => number(at.minute().into()),
        Time::Part(_) => number(at.second().into()),
        Time::Trunc(unit) => truncated(&at, unit).map(|z| json!(z.timestamp().to_string())),
    }
}

fn truncated(at: &Zoned, unit: &str) -> Option<Zoned> {
    let start = |date: Date| date.to_zoned(TimeZone::UTC).ok();
    let date = at.date();
    let down = |unit| at.round(ZonedRound::new().smallest(unit).mode(jiff::RoundMode::Trunc)).ok();
    match unit {
        "year" => start(date.first_of_year()),
        "month" => start(date.first_of_month()),
        "week" => {
            let back = i64::from(date.weekday().to_monday_zero_offset());
            start(date.checked_sub(jiff::Span::new().days(back)).ok()?)
        }
        "day" => start(date),
        "hour" => down(Unit::Hour),
        "minute" => down(Unit::Minute),
        _ => down(Unit::Second),
    }
}

/// A time in UTC: RFC 3339, a date, a date and time without zone, or Unix seconds.
fn instant(value: &Value) -> Option<Zoned> {
    let stamp = match value {
        Value::String(text) => text
            .parse::<jiff::Timestamp>()
            .or_else(|_| text.parse::<DateTime>().and_then(|d| d.to_zoned(TimeZone::UTC)).map(|z| z.timestamp()))
            .or_else(|_| text.parse::<Date>().and_then(|d| d.to_zoned(TimeZone::UTC)).map(|z| z.timestamp())),
        number => jiff::Timestamp::from_second(number.as_i64()?),
    };
    Some(stamp.ok()?.to_zoned(TimeZone::UTC))
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
