//! Acoustic fingerprints: sound to what tells it from other sound, whatever its loudness and encoding. Two of them: hashes
//! in time by Chromaprint, which are matched exactly, with the offset; and one vector for a window of some seconds, by which
//! windows are found among many.

mod alignment;

use crate::mel::{MelBank, MelConfig};
use alignment::{Alignment, alignments};
use realfft::RealFftPlanner;
use rusty_chromaprint::{Configuration, Fingerprinter};
use std::sync::OnceLock;
use strata_model::{Error, Result};

/// Samples a second in everything here.
pub const SAMPLE_RATE: u32 = 16_000;
/// Length of a window's vector.
pub const DIMENSIONS: usize = BANDS * PER_BAND;
/// Shortest window, in seconds; of a shorter one nothing can be said.
pub const MIN_SECONDS: f64 = 0.5;
/// Stands for everything that vectors depend on.
pub const VERSION: &str = "strata acoustic 1: 32 mel bands, level and 15 modulations";

const BANDS: usize = 32;
/// The level of a band, and how much it moves at each of some speeds.
const PER_BAND: usize = 1 + SPEEDS;
const SPEEDS: usize = 15;
/// Slowest and fastest movement, in hertz.
const MOVEMENT: (f64, f64) = (0.4, 16.0);
/// Samples from one frame to the next: 50 frames a second.
const HOP: usize = SAMPLE_RATE as usize / 50;
/// Power that counts as silence, beside the loudest band of the window.
const FLOOR: f32 = 1e-6;

/// Hashes of a recording, some eight a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub items: Vec<u32>,
}

/// A part that two recordings have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// Seconds from the beginning of the first.
    pub start_a: f64,
    /// Seconds from the beginning of the second.
    pub start_b: f64,
    /// Seconds.
    pub duration: f64,
    /// 1 where all bits are equal, 0 where they are as good as random.
    pub similarity: f64,
}

fn configuration() -> Configuration {
    Configuration::preset_test2()
}

impl Fingerprint {
    /// Of samples from -1 to 1, one channel, [`SAMPLE_RATE`] a second. Less than three seconds have no hash.
    pub fn of(samples: &[f32]) -> Result<Self> {
        let mut printer = Fingerprinter::new(&configuration());
        printer.start(SAMPLE_RATE, 1).map_err(|_| Error::internal("the fingerprinter takes no such rate"))?;
        for piece in samples.chunks(SAMPLE_RATE as usize) {
            let piece: Vec<i16> = piece.iter().map(|s| (s.clamp(-1.0, 1.0) * 32_767.0) as i16).collect();
            printer.consume(&piece);
        }
        printer.finish();
        Ok(Self { items: printer.fingerprint().to_vec() })
    }

    /// Four bytes each, little end first.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.items.iter().flat_map(|item| item.to_le_bytes()).collect()
    }

    /// `None` for bytes that [`Fingerprint::to_bytes`] does not make.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (items, rest) = bytes.as_chunks::<4>();
        rest.is_empty().then(|| Self { items: items.iter().map(|item| u32::from_le_bytes(*item)).collect() })
    }

    /// Seconds from one hash to the next; each is made of some two and a half.
    pub fn item_seconds() -> f64 {
        f64::from(configuration().item_duration_in_seconds())
    }

    /// The parts that both have in common, 16 at most, the longest first: those of a second and a half of hashes or more, which
    /// takes four seconds of sound. Silence and steady tones are in common with nothing.
    pub fn matches(&self, other: &Self) -> Vec<Match> {
        let seconds = |items: usize| items as f64 * Self::item_seconds();
        let one = |part: Alignment| Match {
            start_a: seconds(part.start_a),
            start_b: seconds(part.start_b),
            duration: seconds(part.length),
            // Half of the bits differ by chance.
            similarity: (1.0 - part.different / 16.0).clamp(0.0, 1.0),
        };
        alignments(&self.items, &other.items).into_iter().map(one).collect()
    }
}

/// A unit vector of [`DIMENSIONS`] numbers for a window of samples from -1 to 1, one channel, [`SAMPLE_RATE`] a second: how
/// loud each of 32 mel bands is beside the others, and how much it moves at each of 15 speeds from 0.4 to 16 Hz, wherever in
/// the window. `None` for silence and for less than [`MIN_SECONDS`].
pub fn embed(samples: &[f32]) -> Option<Vec<f32>> {
    if (samples.len() as f64) < MIN_SECONDS * f64::from(SAMPLE_RATE) {
        return None;
    }
    let levels = levels(samples)?;
    let frames = levels.len() / BANDS;
    let length = (frames.max(2)).next_power_of_two();
    let transform = RealFftPlanner::new().plan_fft_forward(length);
    let (mut input, mut output) = (transform.make_input_vec(), transform.make_output_vec());
    let mut vector = vec![0.0_f32; DIMENSIONS];
    let hertz_of_bin = 50.0 / length as f64;
    for band in 0..BANDS {
        let row = |frame: usize| levels[frame * BANDS + band];
        let mean = (0..frames).map(row).sum::<f32>() / frames as f32;
        vector[band * PER_BAND] = mean;
        input.fill(0.0);
        for (frame, to) in input.iter_mut().enumerate().take(frames) {
            let angle = std::f32::consts::TAU * (frame as f32 + 0.5) / frames as f32;
            *to = (row(frame) - mean) * (0.5 - 0.5 * angle.cos());
        }
        transform.process(&mut input, &mut output).ok()?;
        for (bin, value) in output.iter().enumerate() {
            if let Some(speed) = speed(bin as f64 * hertz_of_bin) {
                vector[band * PER_BAND + 1 + speed] += value.norm_sqr();
            }
        }
        for power in &mut vector[band * PER_BAND + 1..(band + 1) * PER_BAND] {
            *power = (*power / frames as f32).sqrt();
        }
    }
    unit(centred(vector))
}

/// Which of the speeds a movement has.
fn speed(hertz: f64) -> Option<usize> {
    let (slow, fast) = MOVEMENT;
    if !(slow..fast).contains(&hertz) {
        return None;
    }
    let share = (hertz / slow).ln() / (fast / slow).ln();
    Some(((share * SPEEDS as f64) as usize).min(SPEEDS - 1))
}

/// The logarithm of the power of each band in each frame, frame by frame; `None` where all is silence.
fn levels(samples: &[f32]) -> Option<Vec<f32>> {
    static BANK: OnceLock<MelBank> = OnceLock::new();
    let config = MelConfig { sample_rate: SAMPLE_RATE, window: 1024, hop: HOP, bands: BANDS, range: (80.0, 7_600.0) };
    let bank = BANK.get_or_init(|| MelBank::new(config));
    let mut scratch = bank.scratch();
    let mut powers = Vec::with_capacity(samples.len() / HOP * BANDS);
    for center in (0..samples.len()).step_by(HOP) {
        powers.extend(bank.bands(samples, center, &mut scratch));
    }
    let loudest = powers.iter().copied().fold(0.0, f32::max);
    if !loudest.is_finite() || loudest < 1e-9 {
        return None;
    }
    Some(powers.into_iter().map(|power| (power / loudest + FLOOR).ln()).collect())
}

/// Each kind of number without its mean over the bands, so that what all sound has in common does not count.
fn centred(mut vector: Vec<f32>) -> Vec<f32> {
    for kind in 0..PER_BAND {
        let mean = (0..BANDS).map(|band| vector[band * PER_BAND + kind]).sum::<f32>() / BANDS as f32;
        let mut spread = 0.0;
        for band in 0..BANDS {
            vector[band * PER_BAND + kind] -= mean;
            spread += vector[band * PER_BAND + kind].powi(2);
        }
        // The level counts as much as a third of all movements, each movement as much as the others.
        let weight = if kind == 0 { (SPEEDS as f32 / 3.0).sqrt() } else { 1.0 };
        let scale = weight / spread.sqrt().max(1e-6);
        (0..BANDS).for_each(|band| vector[band * PER_BAND + kind] *= scale);
    }
    vector
}

fn unit(vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    (length.is_finite() && length > 1e-6).then(|| vector.into_iter().map(|x| x / length).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn silence_and_what_is_too_short_have_no_vector() {
        assert_eq!(embed(&[0.0; 80_000]), None);
        assert_eq!(embed(&[0.5; 100]), None);
    }

    #[test]
    fn bytes_are_read_again() {
        let print = Fingerprint { items: vec![1, u32::MAX, 7] };
        assert_eq!(Fingerprint::from_bytes(&print.to_bytes()).unwrap(), print);
        assert_eq!(Fingerprint::from_bytes(&[1, 2, 3]), None);
    }

    #[test]
    fn speeds_cover_their_range() {
        assert_eq!([0.3, 0.41, 15.9, 16.0].map(speed), [None, Some(0), Some(SPEEDS - 1), None]);
    }
}
