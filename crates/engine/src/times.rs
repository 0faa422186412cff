//! Times as callers write them.

use strata_model::{Error, Result};
use strata_store::seams::rfc3339;

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub(crate) const DAY: i64 = 86_400_000_000;

/// A time that a caller wrote, in microseconds since the Unix epoch: RFC 3339, or without an offset, which is UTC then;
/// a date alone is its midnight.
pub fn moment(text: &str, at: &str) -> Result<i64> {
    let text = text.trim();
    let zoned = || text.parse::<jiff::Timestamp>().ok();
    let civil = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let found = zoned().or_else(civil);
    found
        .map(jiff::Timestamp::as_microsecond)
        .ok_or_else(|| Error::invalid(at, "must be a time such as `2026-01-31T12:00:00Z`"))
}

/// [`moment`], as the catalog spells it.
pub fn spelled(text: &str, at: &str) -> Result<String> {
    moment(text, at).map(rfc3339)
}

/// Microseconds of a time that the catalog holds; 0 for what is none.
pub(crate) fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_microsecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_an_offset_and_without() {
        assert_eq!(spelled("2026-01-31T12:00:00+02:00", "t").unwrap(), "2026-01-31T10:00:00.000000Z");
        assert_eq!(spelled("2026-01-31T12:00:00.5", "t").unwrap(), "2026-01-31T12:00:00.500000Z");
        assert_eq!(spelled("2026-01-31", "t").unwrap(), "2026-01-31T00:00:00.000000Z");
        assert!(moment("yesterday", "t").unwrap_err().to_string().contains("`t`"));
        assert_eq!(micros("1970-01-02T00:00:00Z"), DAY);
    }
}
