//! What Whisper's encoder sees of a window: the logarithm of the mel spectrogram, the loudest band of the window being the
//! measure.

use crate::mel::{MelBank, MelConfig};
use crate::speech::SAMPLE_RATE;

/// Frames of a window of 30 seconds.
const FRAMES: usize = 3_000;
const HOP: usize = 160;
/// Powers below are as good as this.
const LEAST_POWER: f32 = 1e-10;
/// What is quieter than the loudest by this many powers of ten is as loud as that.
const RANGE: f32 = 8.0;

pub struct Features {
    bank: MelBank,
    bands: usize,
}

impl Features {
    pub fn new(bands: usize) -> Self {
        let range = (0.0, SAMPLE_RATE as f64 / 2.0);
        let config = MelConfig { sample_rate: SAMPLE_RATE as u32, window: 400, hop: HOP, bands, range };
        Self { bank: MelBank::new(config), bands }
    }

    /// `[3000, bands]`, of at most 30 seconds; silence follows where there are less.
    pub fn of(&self, samples: &[f32]) -> Vec<f32> {
        let mut features = vec![LEAST_POWER.log10(); self.bands * FRAMES];
        let mut scratch = self.bank.scratch();
        // A frame reaches 200 samples back; all behind are silent.
        let sounding = ((samples.len() + 200) / HOP + 1).min(FRAMES);
        for (frame, features) in features.chunks_exact_mut(self.bands).take(sounding).enumerate() {
            for (feature, power) in features.iter_mut().zip(self.bank.bands(samples, frame * HOP, &mut scratch)) {
                *feature = power.max(LEAST_POWER).log10();
            }
        }
        let least = features.iter().copied().fold(f32::NEG_INFINITY, f32::max) - RANGE;
        for feature in &mut features {
            *feature = (feature.max(least) + 4.0) / 4.0;
        }
        features
    }
}
