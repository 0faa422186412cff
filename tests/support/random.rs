//! Reproducible randomness: the seed is printed, and `STRATA_TEST_SEED` sets it.

use std::time::{SystemTime, UNIX_EPOCH};

pub struct Random(u64);

impl Random {
    /// A seed of the clock, or the one in the environment; printed so that a failure can be repeated.
    pub fn seeded() -> Self {
        let seed = match std::env::var("STRATA_TEST_SEED") {
            Ok(text) => text.parse().expect("STRATA_TEST_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos() as u64,
        };
        println!("STRATA_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// The next number below `bound` (xorshift64*).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }
}
