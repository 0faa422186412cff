//! Spectrograms on the mel scale: how loud a sound is in bands that a listener hears as equally wide (Stevens, Volkmann and
//! Newman, 1937), by Hann windows and triangular filters of equal area, as the Python library `librosa` computes them.

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// What a spectrogram is computed by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MelConfig {
    /// Samples a second.
    pub sample_rate: u32,
    /// Samples of a frame.
    pub window: usize,
    /// Samples from the start of a frame to that of the next.
    pub hop: usize,
    pub bands: usize,
    /// Lowest and highest frequency of the bands, in hertz.
    pub range: (f64, f64),
}

/// A filter bank that is ready to be used.
pub struct MelBank {
    config: MelConfig,
    transform: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    filters: Vec<Filter>,
}

/// The weights of neighbouring frequencies from `first` on; all others are zero.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

/// Room for one frame at a time.
pub struct Scratch {
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl MelBank {
    pub fn new(config: MelConfig) -> Self {
        let transform = RealFftPlanner::new().plan_fft_forward(config.window);
        let angle = |i: usize| std::f64::consts::TAU * i as f64 / config.window as f64;
        let hann = (0..config.window).map(|i| (0.5 - 0.5 * angle(i).cos()) as f32).collect();
        Self { transform, hann, filters: filters(&config), config }
    }

    pub fn scratch(&self) -> Scratch {
        Scratch {
            frame: self.transform.make_input_vec(),
            spectrum: self.transform.make_output_vec(),
            power: vec![0.0; self.config.window / 2 + 1],
        }
    }

    /// The power in each band of the frame of `samples` around sample `center`. What lies before the first sample is its
    /// mirror image, what lies behind the last is silence.
    pub fn bands<'s>(
        &'s self,
        samples: &'s [f32],
        center: usize,
        scratch: &'s mut Scratch,
    ) -> impl Iterator<Item = f32> + 's {
        let Scratch { frame, spectrum, power } = scratch;
        let half = self.config.window / 2;
        for (i, (to, weight)) in frame.iter_mut().zip(&self.hann).enumerate() {
            let place = (center + i).checked_sub(half).unwrap_or_else(|| half - center - i);
            *to = samples.get(place).map_or(0.0, |sample| sample * weight);
        }
        self.transform.process(frame, spectrum).expect("the room was made by the transform");
        for (to, from) in power.iter_mut().zip(spectrum.iter()) {
            *to = from.norm_sqr();
        }
        let power = &*power;
        self.filters.iter().map(move |filter| {
            filter.weights.iter().zip(&power[filter.first..]).map(|(weight, power)| weight * power).sum()
        })
    }
}

/// A weight below is what is left of zero by rounding.
const LEAST_WEIGHT: f32 = 1e-12;

/// Slaney's mel scale (1998, "Auditory Toolbox"): linear below 1,000 Hz, logarithmic above.
fn to_mel(hertz: f64) -> f64 {
    if hertz < 1000.0 { hertz * 3.0 / 200.0 } else { 15.0 + (hertz / 1000.0).ln() * 27.0 / 6.4_f64.ln() }
}

fn to_hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp() }
}

fn filters(config: &MelConfig) -> Vec<Filter> {
    let (low, high) = (to_mel(config.range.0), to_mel(config.range.1));
    let step = (high - low) / (config.bands + 1) as f64;
    let edge = |i: usize| to_hertz(low + step * i as f64);
    let hertz = |bin: usize| bin as f64 * f64::from(config.sample_rate) / config.window as f64;
    let filter = |band: usize| {
        let (left, middle, right) = (edge(band), edge(band + 1), edge(band + 2));
        let weight = |bin: usize| {
            let slope = ((hertz(bin) - left) / (middle - left)).min((right - hertz(bin)) / (right - middle));
            let weight = (slope * 2.0 / (right - left)) as f32;
            if weight > LEAST_WEIGHT { weight } else { 0.0 }
        };
        let all: Vec<f32> = (0..=config.window / 2).map(weight).collect();
        let first = all.iter().position(|weight| *weight > 0.0).unwrap_or(0);
        let end = all.iter().rposition(|weight| *weight > 0.0).map_or(0, |last| last + 1);
        Filter { first, weights: all[first..end.max(first)].to_vec() }
    };
    (0..config.bands).map(filter).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn whisper() -> MelConfig {
        MelConfig { sample_rate: 16_000, window: 400, hop: 160, bands: 80, range: (0.0, 8_000.0) }
    }

    /// `librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)`.
    #[test]
    fn filters_are_those_of_librosa() {
        let filters = filters(&whisper());
        assert_eq!((filters[0].first, filters[0].weights.len()), (1, 1));
        assert!((filters[0].weights[0] - 0.024_862_594).abs() < 1e-7);
        let last = &filters[79];
        assert_eq!((last.first, last.first + last.weights.len()), (186, 200));
        let sum: f32 = filters.iter().flat_map(|filter| &filter.weights).sum();
        assert!((sum - 1.999_024).abs() < 1e-5, "{sum}");
    }

    #[test]
    fn a_tone_is_loudest_in_its_band() {
        let bank = MelBank::new(whisper());
        let tone: Vec<f32> =
            (0..4_000).map(|i| (std::f32::consts::TAU * 1_000.0 * i as f32 / 16_000.0).sin()).collect();
        let mut scratch = bank.scratch();
        let bands: Vec<f32> = bank.bands(&tone, 2_000, &mut scratch).collect();
        let loudest = bands.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let step = to_mel(8_000.0) / 81.0;
        assert!((to_mel(1_000.0) - step * (loudest + 1) as f64).abs() < step);
        assert!(bank.bands(&[], 0, &mut bank.scratch()).all(|power| power == 0.0));
    }
}
