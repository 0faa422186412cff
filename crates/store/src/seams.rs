//! Clock and ids come in through here, so that a test can own them.

use std::sync::atomic::{AtomicI64, Ordering};

/// Where time and randomness come from.
pub trait Seams: Send + Sync {
    /// Microseconds since the Unix epoch.
    fn now_micros(&self) -> i64;
    /// Fills `buffer` with random bytes fit for secrets.
    fn random(&self, buffer: &mut [u8]);
}

/// The machine's own clock and random source.
#[derive(Debug, Default)]
pub struct System {
    last: AtomicI64,
}

impl Seams for System {
    /// Never goes back within a process, so that creation order and time order agree.
    fn now_micros(&self) -> i64 {
        let now = jiff::Timestamp::now().as_microsecond();
        self.last.fetch_max(now, Ordering::Relaxed).max(now)
    }
    fn random(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system has a random source");
    }
}

/// RFC 3339 in UTC with microseconds, the one spelling of time in the catalog: it sorts as text.
pub fn rfc3339(micros: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}

/// `prefix` and `length` random characters of `0-9a-z`.
pub fn random_id(seams: &dyn Seams, prefix: &str, length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut id = String::with_capacity(prefix.len() + length);
    id.push_str(prefix);
    let mut byte = [0u8; 32];
    while id.len() < prefix.len() + length {
        seams.random(&mut byte);
        // 252 is the largest multiple of 36 below 256: refusing the rest keeps every character equally likely.
        for b in byte.iter().filter(|b| **b < 252).take(prefix.len() + length - id.len()) {
            id.push(ALPHABET[usize::from(b % 36)] as char);
        }
    }
    id
}

/// `prefix` and `length` random hex digits.
pub fn random_hex(seams: &dyn Seams, prefix: &str, length: usize) -> String {
    let mut bytes = vec![0u8; length.div_ceil(2)];
    seams.random(&mut bytes);
    let mut id = format!("{prefix}{}", hex::encode(bytes));
    id.truncate(prefix.len() + length);
    id
}

/// An id of 24 hex digits that sorts by when it was made: 40 bits of time in steps of 1/64 s, and 56 random ones.
pub fn timed_hex(seams: &dyn Seams, prefix: &str) -> String {
    let mut bytes = [0u8; 12];
    seams.random(&mut bytes);
    let steps = seams.now_micros().max(0) / 15_625;
    bytes[..5].copy_from_slice(&steps.to_be_bytes()[3..]);
    format!("{prefix}{}", hex::encode(bytes))
}
