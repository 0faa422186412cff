//! How often the public may ask. Counts are kept in memory, of a bounded number of retrievers and addresses; those that
//! asked least lately are forgotten first, and all of them when the server stops.

use crate::protection::{Admission, Standing, network};
use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, hash::Hash, net::IpAddr, num::NonZeroUsize};
use strata_model::{Error, Result};

/// Published retrievers whose requests are counted.
const MAX_COUNTED: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Addresses, each at one retriever, whose requests are counted.
const MAX_ADDRESSES: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");
/// Lengths of windows, in microseconds.
const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Wrong passwords that one address may send to one retriever in a quarter of an hour.
const MAX_GUESSES: u32 = 10;
/// Wrong passwords that all addresses together may send to one retriever in an hour.
const MAX_GUESSES_OF_ALL: u32 = 200;
const GUESSING: i64 = 15 * MINUTE;

/// Limits that go by a name. Each can be set otherwise, one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    #[default]
    Standard,
    Elevated,
    Enterprise,
    Unlimited,
}

impl Tier {
    /// Requests in a minute, an hour and a day.
    fn requests(self) -> [Option<u32>; 3] {
        match self {
            Self::Standard => [Some(60), Some(1_000), Some(10_000)],
            Self::Elevated => [Some(300), Some(10_000), Some(100_000)],
            Self::Enterprise => [Some(1_000), Some(50_000), Some(500_000)],
            Self::Unlimited => [None; 3],
        }
    }

    /// Requests of one address in an hour.
    fn of_an_address(self) -> Option<u32> {
        match self {
            Self::Standard => Some(500),
            Self::Elevated => Some(1_000),
            Self::Enterprise => Some(5_000),
            Self::Unlimited => None,
        }
    }
}

/// The limits of a published retriever. What is `None` is as the tier has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateLimits {
    /// Whether requests are limited at all.
    pub enabled: bool,
    pub tier: Tier,
    pub requests_per_minute: Option<u32>,
    pub requests_per_hour: Option<u32>,
    pub requests_per_day: Option<u32>,
    /// Most hits on a page.
    pub max_results_per_query: usize,
    /// Whether each address is limited too.
    pub enable_ip_limits: bool,
    pub max_requests_per_ip_hour: Option<u32>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            tier: Tier::default(),
            requests_per_minute: None,
            requests_per_hour: None,
            requests_per_day: None,
            max_results_per_query: 100,
            enable_ip_limits: false,
            max_requests_per_ip_hour: None,
        }
    }
}

impl RateLimits {
    /// Requests in a minute, an hour and a day; `None` is no limit.
    fn requests(&self) -> [Option<u32>; 3] {
        let [minute, hour, day] = self.tier.requests();
        [self.requests_per_minute.or(minute), self.requests_per_hour.or(hour), self.requests_per_day.or(day)]
    }

    fn of_an_address(&self) -> Option<u32> {
        let limit = self.max_requests_per_ip_hour.or(self.tier.of_an_address());
        limit.filter(|_| self.enable_ip_limits)
    }
}

/// What the public does. Each kind is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    Execute,
    Interact,
}

/// Requests since a moment. A window begins with its first request.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    /// Microseconds since the Unix epoch.
    began: i64,
    count: u32,
}

impl Window {
    /// Microseconds until the window takes another request; `None` where it takes one now.
    fn wait(&self, limit: u32, length: i64, now: i64) -> Option<i64> {
        let ends = self.began + length;
        (now < ends && self.count >= limit).then_some(ends - now)
    }

    fn standing(&self, limit: u32, length: i64, now: i64) -> Standing {
        let ends = self.began + length;
        let (count, resets) = if now < ends { (self.count, ends) } else { (0, now) };
        Standing {
            limit,
            remaining: limit.saturating_sub(count),
            // In whole seconds, and not before it is true.
            reset_at: resets.div_euclid(1_000_000) + 1,
            window_seconds: length / 1_000_000,
        }
    }

    fn add(&mut self, length: i64, now: i64) {
        if self.count == 0 || now >= self.began + length {
            *self = Self { began: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
    }
}

type Counts<K, V> = Mutex<LruCache<K, V>>;

fn counts<K: Hash + Eq, V>(capacity: NonZeroUsize) -> Counts<K, V> {
    Mutex::new(LruCache::new(capacity))
}

pub(crate) struct Limiter {
    requests: Counts<(String, Use), [Window; 3]>,
    addresses: Counts<(String, Use, IpAddr), Window>,
    guesses: Counts<(String, IpAddr), Window>,
    guesses_of_all: Counts<String, Window>,
}

impl Default for Limiter {
    fn default() -> Self {
        Self {
            requests: counts(MAX_COUNTED),
            addresses: counts(MAX_ADDRESSES),
            guesses: counts(MAX_ADDRESSES),
            guesses_of_all: counts(MAX_COUNTED),
        }
    }
}

impl Limiter {
    /// Counts a request, or refuses it and does not count it. Of several limits that one is shown which is nearest.
    pub fn admit(&self, public_id: &str, what: Use, limits: &RateLimits, address: IpAddr, now: i64) -> Admission {
        if !limits.enabled {
            return (None, Ok(()));
        }
        let (lengths, most) = ([MINUTE, HOUR, DAY], limits.requests());
        let mut requests = self.requests.lock();
        let windows = requests.get_or_insert_mut((public_id.to_owned(), what), <[Window; 3]>::default);
        let waits = most.iter().zip(lengths).zip(windows.iter());
        let wait = waits.filter_map(|((most, length), window)| window.wait((*most)?, length, now)).max();
        let mut addresses = self.addresses.lock();
        let mut own = limits.of_an_address().map(|most| {
            let key = (public_id.to_owned(), what, network(address));
            (most, addresses.get_or_insert_mut(key, Window::default))
        });
        let own_wait = own.as_ref().and_then(|(most, window)| window.wait(*most, HOUR, now));
        let refused = wait.max(own_wait);
        if refused.is_none() {
            windows.iter_mut().zip(lengths).for_each(|(window, length)| window.add(length, now));
            if let Some((_, window)) = &mut own {
                window.add(HOUR, now);
            }
        }
        let shared = most.iter().zip(lengths).zip(windows.iter());
        let shared = shared.filter_map(|((most, length), window)| Some(window.standing((*most)?, length, now)));
        let standings = shared.chain(own.iter().map(|(most, window)| window.standing(*most, HOUR, now)));
        let nearest = standings.min_by_key(|standing| (standing.remaining, Reverse(standing.reset_at)));
        let outcome = refused.map_or(Ok(()), |wait| {
            let message = match own_wait {
                Some(_) => "this address has asked too often; try again later",
                None => "this retriever is asked too often at the moment; try again later",
            };
            Err(busy(message, wait))
        });
        (nearest, outcome)
    }

    /// [`Error::Busy`] where too many wrong passwords were sent for another one to be looked at.
    pub fn may_guess(&self, public_id: &str, address: IpAddr, now: i64) -> Result<()> {
        let own = self.guesses.lock().get(&(public_id.to_owned(), network(address))).copied().unwrap_or_default();
        let all = self.guesses_of_all.lock().get(public_id).copied().unwrap_or_default();
        let wait = own.wait(MAX_GUESSES, GUESSING, now).max(all.wait(MAX_GUESSES_OF_ALL, HOUR, now));
        match wait {
            Some(wait) => Err(busy("too many wrong passwords were sent; try again later", wait)),
            None => Ok(()),
        }
    }

    /// Remembers a wrong password.
    pub fn note_wrong_guess(&self, public_id: &str, address: IpAddr, now: i64) {
        let key = (public_id.to_owned(), network(address));
        self.guesses.lock().get_or_insert_mut(key, Window::default).add(GUESSING, now);
        self.guesses_of_all.lock().get_or_insert_mut(public_id.to_owned(), Window::default).add(HOUR, now);
    }
}

fn busy(message: &str, wait_micros: i64) -> Error {
    Error::Busy { message: message.into(), retry_after_seconds: (wait_micros as u64).div_ceil(1_000_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Seconds to wait, or 0.
    fn ask(limiter: &Limiter, limits: &RateLimits, from: &str, now: i64) -> u64 {
        match limiter.admit("pub_1", Use::Execute, limits, address(from), now).1 {
            Ok(()) => 0,
            Err(Error::Busy { retry_after_seconds, .. }) => retry_after_seconds,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn requests_wait_for_the_end_of_the_fullest_window() {
        let (limiter, now) = (Limiter::default(), 1_000 * SECOND);
        let limits = RateLimits {
            requests_per_minute: Some(2),
            requests_per_hour: Some(3),
            requests_per_day: Some(100),
            ..RateLimits::default()
        };
        let asked = |at: i64| ask(&limiter, &limits, "10.0.0.1", now + at * SECOND);
        assert_eq!([asked(0), asked(10), asked(20)], [0, 0, 40], "the minute is full");
        assert_eq!([asked(60), asked(61)], [0, 3_539], "and now the hour, which began with the first request");
        assert_eq!(asked(3_600), 0, "refused requests do not count");
    }

    #[test]
    fn the_nearest_limit_is_shown() {
        let (limiter, now) = (Limiter::default(), 1_000 * SECOND);
        let limits = RateLimits { requests_per_minute: Some(2), requests_per_hour: Some(2), ..RateLimits::default() };
        let shown = |at: i64| {
            let admission = limiter.admit("pub_1", Use::Execute, &limits, address("10.0.0.1"), now + at * SECOND);
            let standing = admission.0.unwrap();
            (
                standing.remaining,
                standing.limit,
                standing.window_seconds,
                standing.reset_at - 1_000,
                admission.1.is_ok(),
            )
        };
        assert_eq!(shown(0), (1, 2, 3_600, 3_601, true), "of two as near the one that lasts longer");
        assert_eq!(shown(30), (0, 2, 3_600, 3_601, true));
        assert_eq!(shown(90), (0, 2, 3_600, 3_601, false), "the minute is over, the hour is not");
        let off = RateLimits { enabled: false, ..RateLimits::default() };
        assert!(limiter.admit("pub_1", Use::Execute, &off, address("10.0.0.1"), now).0.is_none());
    }

    #[test]
    fn tiers_have_limits_that_single_ones_replace() {
        assert_eq!(RateLimits::default().requests(), [Some(60), Some(1_000), Some(10_000)]);
        let mixed = RateLimits { tier: Tier::Unlimited, requests_per_hour: Some(5), ..RateLimits::default() };
        assert_eq!(mixed.requests(), [None, Some(5), None]);
        let off = RateLimits { enabled: false, requests_per_minute: Some(1), ..RateLimits::default() };
        let limiter = Limiter::default();
        assert_eq!([ask(&limiter, &off, "10.0.0.1", 0), ask(&limiter, &off, "10.0.0.1", 0)], [0, 0]);
    }

    #[test]
    fn an_address_has_its_own_limit_where_that_is_enabled() {
        let (limiter, now) = (Limiter::default(), 1_000 * SECOND);
        let limits = RateLimits { enable_ip_limits: true, max_requests_per_ip_hour: Some(1), ..RateLimits::default() };
        assert_eq!(ask(&limiter, &limits, "10.0.0.1", now), 0);
        assert_eq!(ask(&limiter, &limits, "::ffff:10.0.0.1", now), 3_600, "the same address in other words");
        assert_eq!(ask(&limiter, &limits, "10.0.0.2", now), 0);
        assert_eq!(ask(&limiter, &limits, "2001:db8::1", now), 0);
        assert_eq!(ask(&limiter, &limits, "2001:db8::2", now), 3_600, "one network");
        let off = RateLimits { max_requests_per_ip_hour: Some(1), ..RateLimits::default() };
        assert_eq!(ask(&limiter, &off, "10.0.0.1", now), 0);
    }

    #[test]
    fn wrong_passwords_stop_an_address_and_then_everybody() {
        let (limiter, now) = (Limiter::default(), 1_000 * SECOND);
        let may = |from: &str, at: i64| limiter.may_guess("pub_1", address(from), now + at).is_ok();
        for _ in 0..MAX_GUESSES {
            assert!(may("10.0.0.1", 0));
            limiter.note_wrong_guess("pub_1", address("10.0.0.1"), now);
        }
        assert!(!may("10.0.0.1", 0) && may("10.0.0.2", 0) && may("10.0.0.1", GUESSING));
        for n in 0..MAX_GUESSES_OF_ALL {
            limiter.note_wrong_guess("pub_1", address(&format!("10.1.{}.{}", n / 250, n % 250)), now);
        }
        assert!(!may("10.0.0.3", 0) && may("10.0.0.3", HOUR));
        assert!(limiter.may_guess("pub_2", address("10.0.0.3"), now).is_ok());
    }
}
