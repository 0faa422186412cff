//! How often keys and the public may ask. A key has a bucket of tokens for each group of requests: as many as its limit,
//! filled up again evenly within a minute; a published retriever has the same, and so has an address that asks one or
//! reads files by signed URLs. Buckets are kept in memory, a bounded number of them; those that were asked of least lately
//! are forgotten first, which fills them, and all of them when the server stops.

use crate::{Engine, published::Published};
use lru::LruCache;
use parking_lot::Mutex;
use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroUsize,
};
use strata_model::{
    Error, Principal, Result,
    rates::{Group, Rates},
};
use strata_store::catalog::principals;

/// Buckets that are kept.
const MAX_BUCKETS: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");
/// Lengths of windows, in microseconds.
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Where a key stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests in a window.
    pub limit: u32,
    /// Requests that could be sent now.
    pub remaining: u32,
    /// Unix seconds at which all of them can be sent again.
    pub reset_at: i64,
    pub window_seconds: i64,
}

/// Where somebody stands after a request, if its requests are limited, and [`Error::Busy`] where there were too many.
pub type Admission = (Option<Standing>, Result<()>);

/// When each bucket is full again, in microseconds since the Unix epoch: that says how full it is at any time.
pub(crate) struct Counts {
    /// By the id of a key or of what is published.
    keys: Mutex<LruCache<(String, Group), i64>>,
    /// Apart from the others, since anybody may have many.
    addresses: Mutex<LruCache<(IpAddr, Group), i64>>,
    organizations: Mutex<LruCache<String, i64>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            keys: Mutex::new(LruCache::new(MAX_BUCKETS)),
            addresses: Mutex::new(LruCache::new(MAX_BUCKETS)),
            organizations: Mutex::new(LruCache::new(MAX_BUCKETS)),
        }
    }
}

impl Engine {
    /// Counts a request of a key. A refused request is not counted.
    pub fn admit_key(&self, principal: &Principal, group: Group) -> Admission {
        self.admit_for(&principal.organization_id, &principal.key_id, principal.rates, group, "this key")
    }

    /// Counts a request to what is published as one of a key of its organization: of the key for the retriever that the
    /// request came with, which was checked, or else of the publication itself.
    pub async fn admit_public(
        &self,
        published: &Published,
        key: Option<&Principal>,
        group: Group,
    ) -> Result<Admission> {
        if let Some(principal) = key {
            return Ok(self.admit_key(principal, group));
        }
        let organization_id = published.scope.organization_id.clone();
        let read = self.catalog.read(move |connection| principals::organization(connection, &organization_id));
        let rates = self.rates_of(&read.await?);
        let organization_id = &published.scope.organization_id;
        Ok(self.admit_for(organization_id, &published.public_id, rates, group, "this retriever"))
    }

    /// Counts a request of an address that needs no key. It may send as many as a key by default.
    pub fn admit_address(&self, address: IpAddr, group: Group) -> Admission {
        let Some(limit) = self.config.allowed.rates.of(group) else { return (None, Ok(())) };
        let now = self.catalog.now_micros();
        let mut addresses = self.counts.addresses.lock();
        let full_at = addresses.get_or_insert_mut((network(address), group), || now);
        let (standing, wait) = take(full_at, limit, MINUTE, now);
        (Some(standing), within_a_minute(wait, limit, "this address"))
    }

    fn admit_for(&self, organization_id: &str, id: &str, rates: Rates, group: Group, who: &str) -> Admission {
        let now = self.catalog.now_micros();
        if let Some(limit) = self.config.allowed.quotas.requests_per_day {
            let mut days = self.counts.organizations.lock();
            let full_at = days.get_or_insert_mut(organization_id.to_owned(), || now);
            let (standing, wait) = take(full_at, limit, DAY, now);
            if let Some(wait) = wait {
                let message = format!("this organization may send {limit} requests a day; try again later");
                return (Some(standing), Err(busy(message, wait)));
            }
        }
        let Some(limit) = rates.of(group) else { return (None, Ok(())) };
        let mut keys = self.counts.keys.lock();
        let full_at = keys.get_or_insert_mut((id.to_owned(), group), || now);
        let (standing, wait) = take(full_at, limit, MINUTE, now);
        (Some(standing), within_a_minute(wait, limit, who))
    }
}

fn within_a_minute(wait: Option<i64>, limit: u32, who: &str) -> Result<()> {
    match wait {
        None => Ok(()),
        Some(wait) => Err(busy(format!("{who} may send {limit} such requests a minute; try again later"), wait)),
    }
}

/// The address, or the /64 network of an IPv6 address: one host has as many of these as it likes.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

fn busy(message: String, wait_micros: i64) -> Error {
    Error::Busy { message, retry_after_seconds: wait_micros.unsigned_abs().div_ceil(1_000_000) }
}

/// Takes a token; answers where that leaves the bucket, and microseconds until there is a token where there is none.
fn take(full_at: &mut i64, limit: u32, window: i64, now: i64) -> (Standing, Option<i64>) {
    let one = (window / i64::from(limit.max(1))).max(1);
    let after = now.max(*full_at) + one;
    let wait = after - window - now;
    let is_taken = wait <= 0;
    if is_taken {
        *full_at = after;
    }
    let left = (now + window - now.max(*full_at)) / one;
    let standing = Standing {
        limit,
        remaining: u32::try_from(left).unwrap_or(0).min(limit),
        // In whole seconds, and not before it is true.
        reset_at: now.max(*full_at).div_euclid(1_000_000) + 1,
        window_seconds: window / 1_000_000,
    };
    (standing, (!is_taken).then_some(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let (mut full_at, now) = (0, 1_000 * SECOND);
        let mut ask = |at: i64| {
            let (standing, wait) = take(&mut full_at, 3, MINUTE, now + at * SECOND);
            (standing.remaining, wait.map(|wait| wait / SECOND))
        };
        assert_eq!([ask(0), ask(0), ask(0)], [(2, None), (1, None), (0, None)]);
        assert_eq!(ask(5), (0, Some(15)), "a token comes every 20 seconds");
        assert_eq!(ask(5), (0, Some(15)), "refused requests do not count");
        assert_eq!([ask(20), ask(21)], [(0, None), (0, Some(19))]);
        assert_eq!(ask(500), (2, None));
    }

    #[test]
    fn limits_that_do_not_divide_a_minute_are_kept() {
        for limit in [1, 7, 59, 1_000, 999_983] {
            let mut full_at = 0;
            let taken = (0..).take_while(|_| take(&mut full_at, limit, MINUTE, MINUTE).1.is_none()).count();
            let most = usize::try_from(limit).unwrap();
            assert!((most..=most + most / 10_000).contains(&taken), "{limit}: {taken}");
        }
    }

    #[test]
    fn the_reset_is_when_everything_can_be_sent_again() {
        let mut full_at = 0;
        let (standing, _) = take(&mut full_at, 60, MINUTE, 100 * SECOND);
        assert_eq!((standing.limit, standing.remaining, standing.window_seconds), (60, 59, 60));
        assert_eq!(standing.reset_at, 102);
    }
}
