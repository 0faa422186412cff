//! Prints how many seconds of sound a second are fingerprinted, compared and made vectors of, on one thread. Run on an idle
//! machine: `cargo run --release -p strata-infer --example acoustic_rate`.

use std::time::Instant;
use strata_infer::acoustic::{Fingerprint, SAMPLE_RATE, embed};
use strata_model::Result;

const MINUTES: usize = 20;

fn main() -> Result<()> {
    let seconds = (MINUTES * 60) as f64;
    let sound = sound(MINUTES * 60 * SAMPLE_RATE as usize);
    let start = Instant::now();
    let whole = Fingerprint::of(&sound)?;
    println!("fingerprint: {:.0} s/s, {} hashes", seconds / start.elapsed().as_secs_f64(), whole.items.len());
    let start = Instant::now();
    let found = whole.matches(&whole);
    println!("{MINUTES} minutes compared with themselves: {:?}, {} parts", start.elapsed(), found.len());
    let (start, window) = (Instant::now(), 5 * SAMPLE_RATE as usize);
    let vectors = sound.chunks_exact(window).filter_map(embed).count();
    println!("vectors of 5 s: {:.0} s/s", (vectors * 5) as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

/// Tones that change five times a second, with noise.
fn sound(count: usize) -> Vec<f32> {
    let mut random = 1_u32;
    let mut next = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as f32 / (1 << 24) as f32
    };
    let mut step = 0.0;
    (0..count)
        .map(|at| {
            if at % (SAMPLE_RATE as usize / 5) == 0 {
                step = 0.05 + next() * 0.5;
            }
            (at as f32 * step).sin() * 0.4 + (next() - 0.5) * 0.1
        })
        .collect()
}
