//! How often namespaces ask servers outside.

use crate::retrieval::Rate;
use lru::LruCache;
use parking_lot::Mutex;
use std::{
    num::NonZeroUsize,
    time::{Duration, Instant},
};
use strata_model::{Error, Result};

/// Pairs of namespace and host that are remembered.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// Requests since a moment.
#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    count: u64,
}

impl Window {
    /// Counts one more at `now`, unless `most` are there; answers how long the window lasts otherwise.
    fn take(&mut self, length: Duration, most: Option<u64>, now: Instant) -> Result<(), Duration> {
        let age = now.saturating_duration_since(self.since);
        if age >= length {
            *self = Self { since: now, count: 0 };
        }
        if most.is_some_and(|most| self.count >= most) {
            return Err(length.saturating_sub(now.saturating_duration_since(self.since)));
        }
        self.count += 1;
        Ok(())
    }
}

/// Counts by namespace and host.
pub(super) struct Rates(Mutex<LruCache<String, (Window, Window)>>);

impl Default for Rates {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_KEYS)))
    }
}

impl Rates {
    /// Counts a request, or says with [`Error::Busy`] that there were as many as may be.
    pub fn take(&self, key: &str, rate: Rate) -> Result<()> {
        self.take_at(key, rate, Instant::now())
    }

    fn take_at(&self, key: &str, rate: Rate, now: Instant) -> Result<()> {
        if rate == Rate::default() {
            return Ok(());
        }
        let mut windows = self.0.lock();
        let fresh = || (Window { since: now, count: 0 }, Window { since: now, count: 0 });
        let (minute, hour) = windows.get_or_insert_mut(key.to_owned(), fresh);
        let busy = |rest: Duration, most: Option<u64>, word: &str| Error::Busy {
            message: format!("the `rate_limit` of {} requests a {word} is reached", most.unwrap_or_default()),
            retry_after_seconds: rest.as_secs() + 1,
        };
        minute.take(MINUTE, rate.per_minute, now).map_err(|rest| busy(rest, rate.per_minute, "minute"))?;
        hour.take(HOUR, rate.per_hour, now).map_err(|rest| busy(rest, rate.per_hour, "hour"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_so_many_and_starts_again() {
        let (rates, start) = (Rates::default(), Instant::now());
        let rate = Rate { per_minute: Some(2), per_hour: Some(3) };
        let take = |seconds: u64| rates.take_at("ns host", rate, start + Duration::from_secs(seconds));
        assert!(take(0).is_ok() && take(1).is_ok());
        assert!(matches!(take(59), Err(Error::Busy { retry_after_seconds: 2, .. })));
        assert!(take(60).is_ok());
        assert!(take(61).unwrap_err().to_string().contains("3 requests a hour"));
        assert!(rates.take_at("ns other", rate, start).is_ok());
        assert!(take(3_600).is_ok());
        assert!((0..100).all(|_| rates.take("free", Rate::default()).is_ok()));
    }
}
