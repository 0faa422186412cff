//! What Whisper's encoder sees of a window: the logarithm of the mel spectrogram, the loudest band of the window being the
//! measure.

use crate::mel::{MelBank, MelConfig};
use crate::speech::SAMPLE_RATE;

/// Frames of a window of 30 seconds.
const FRAMES: usize = 3_000;
const HOP: usize = 160;
/// Silence that is heard behind what is shorter, 8 seconds in samples. Of all 30 seconds no word is heard better, while behind
/// 2 seconds the model tells some sentences twice.
const SILENCE: usize = 8 * SAMPLE_RATE;
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

    /// `[frames, bands]`, of at most 30 seconds; silence follows where there are less. The number of frames is even.
    pub fn of(&self, samples: &[f32]) -> Vec<f32> {
        let frames = ((samples.len() + SILENCE) / (2 * HOP) * 2).min(FRAMES);
        let mut features = vec![LEAST_POWER.log10(); self.bands * frames];
        let mut scratch = self.bank.scratch();
        // A frame reaches 200 samples back; all behind are silent.
        let sounding = (samples.len() + 200) / HOP + 1;
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
