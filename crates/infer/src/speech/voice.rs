//! Voice activity: where in a recording somebody speaks, by the model Silero VAD (one probability for each 32 ms), and the
//! windows of at most 30 seconds that a recording is cut into at its pauses (Bain et al., 2023, "WhisperX").

use crate::onnx::{on, read};
use crate::speech::SAMPLE_RATE;
use rten::{Model, NodeId, RunOptions};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use std::ops::Range;
use strata_model::{Error, Result};

/// Samples that a probability is for.
const STEP: usize = 512;
/// Samples before them that the model sees, too.
const CONTEXT: usize = 64;
/// Steps of one run of the model: 32 seconds.
const RUN_STEPS: usize = 1_000;
/// Numbers of the model's memory.
const MEMORY: usize = 128;
/// Speech begins at a probability of this at least, and ends below the other.
const SPEECH: f32 = 0.5;
const SILENCE: f32 = 0.35;
/// Speech goes on over pauses of less than 0.3 s; what lasts less than 0.2 s is none.
const MIN_PAUSE_STEPS: usize = 10;
const MIN_SPEECH_STEPS: usize = 6;
/// Samples before and behind speech that belong to it: 0.2 s.
const MARGIN: usize = SAMPLE_RATE / 5;
/// Most samples of a window.
pub const WINDOW: usize = 30 * SAMPLE_RATE;

/// A loaded model.
pub struct VoiceDetector {
    model: Model,
    inputs: [NodeId; 3],
    outputs: [NodeId; 3],
    options: RunOptions,
}

impl VoiceDetector {
    /// Takes the content of `silero_vad_16k_sequence.onnx`: `input` `[n, 576]`, `h` and `c` `[1, 1, 128]`.
    ///
    /// Errors: `Malformed` where it is not such a model.
    pub fn load(file: Vec<u8>, threads: usize) -> Result<Self> {
        let wrong = |e: &dyn std::fmt::Display| Error::Malformed(format!("the model of voices cannot be read: {e}"));
        let model = read(file).map_err(|e| wrong(&e))?;
        let id = |name: &str| model.node_id(name).map_err(|e| wrong(&e));
        let inputs = [id("input")?, id("h")?, id("c")?];
        let outputs = [id("speech_probs")?, id("hn")?, id("cn")?];
        Ok(Self { model, inputs, outputs, options: on(threads) })
    }

    /// How likely somebody speaks in each 512 samples.
    pub fn probabilities(&self, samples: &[f32]) -> Result<Vec<f32>> {
        let steps = samples.len().div_ceil(STEP);
        let mut memory = [(); 2].map(|()| NdTensor::<f32, 3>::zeros([1, 1, MEMORY]));
        let mut all = Vec::with_capacity(steps);
        while all.len() < steps {
            let count = RUN_STEPS.min(steps - all.len());
            let frames = frames(samples, all.len()..all.len() + count);
            let [h, c] = memory;
            let inputs = vec![(self.inputs[0], frames.into()), (self.inputs[1], h.into()), (self.inputs[2], c.into())];
            let made = self.model.run_n(inputs, self.outputs, Some(self.options.clone()));
            let [found, h, c] = made.map_err(Error::internal)?;
            let found: NdTensor<f32, 1> = found.try_into().map_err(Error::internal)?;
            memory = [h.try_into().map_err(Error::internal)?, c.try_into().map_err(Error::internal)?];
            if found.len() != count {
                return Err(Error::internal("the model of voices gave another number of probabilities than asked for"));
            }
            all.extend(found.into_data());
        }
        Ok(all)
    }
}

fn frames(samples: &[f32], steps: Range<usize>) -> NdTensor<f32, 2> {
    let shape = [steps.len(), CONTEXT + STEP];
    let mut data = vec![0.0; shape[0] * shape[1]];
    for (frame, step) in data.chunks_exact_mut(shape[1]).zip(steps) {
        let (start, end) = (step * STEP, ((step + 1) * STEP).min(samples.len()));
        let context = start.min(CONTEXT);
        frame[CONTEXT - context..CONTEXT].copy_from_slice(&samples[start - context..start]);
        frame[CONTEXT..CONTEXT + end - start].copy_from_slice(&samples[start..end]);
    }
    NdTensor::from_data(shape, data)
}

/// The samples in which somebody speaks, of a recording of `length` samples; in order, without overlaps.
pub fn speech(probabilities: &[f32], length: usize) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = None;
    let mut quiet = 0;
    for (step, probability) in probabilities.iter().copied().chain([0.0; MIN_PAUSE_STEPS]).enumerate() {
        match start {
            None if probability >= SPEECH => start = Some(step),
            None => {}
            Some(_) if probability >= SILENCE => quiet = 0,
            Some(first) => {
                quiet += 1;
                if quiet == MIN_PAUSE_STEPS {
                    let end = step + 1 - MIN_PAUSE_STEPS;
                    if end - first >= MIN_SPEECH_STEPS {
                        found.push(first * STEP..(end * STEP).min(length));
                    }
                    (start, quiet) = (None, 0);
                }
            }
        }
    }
    with_margins(&mut found, length);
    found
}

fn with_margins(found: &mut [Range<usize>], length: usize) {
    let mut earliest = 0;
    for i in 0..found.len() {
        let latest = found.get(i + 1).map_or(length, |next| found[i].end.midpoint(next.start));
        found[i].start = found[i].start.saturating_sub(MARGIN).max(earliest);
        found[i].end = (found[i].end + MARGIN).min(latest);
        earliest = found[i].end;
    }
}

/// Windows of at most 30 seconds that hold all of `speech`, cut in pauses where there are any, and else where speech is least
/// likely.
pub fn windows(speech: &[Range<usize>], probabilities: &[f32]) -> Vec<Range<usize>> {
    let mut windows: Vec<Range<usize>> = Vec::new();
    for part in speech {
        let mut part = part.clone();
        match windows.last_mut() {
            Some(last) if part.end - last.start <= WINDOW => {
                last.end = part.end;
                continue;
            }
            _ => {}
        }
        while part.len() > WINDOW {
            let cut = quietest(probabilities, part.start + WINDOW / 2..part.start + WINDOW);
            windows.push(part.start..cut);
            part.start = cut;
        }
        windows.push(part);
    }
    windows
}

/// The middle of the step of `range` in which speech is least likely, the last of several.
fn quietest(probabilities: &[f32], range: Range<usize>) -> usize {
    let steps = range.start.div_ceil(STEP)..range.end / STEP;
    let likely = |step: &usize| probabilities.get(*step).copied().unwrap_or(1.0);
    let best = steps.rev().min_by(|a, b| likely(a).total_cmp(&likely(b)));
    best.map_or(range.end, |step| step * STEP + STEP / 2).clamp(range.start, range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities of runs of steps.
    fn steps(runs: &[(usize, f32)]) -> Vec<f32> {
        runs.iter().flat_map(|(count, probability)| std::iter::repeat_n(*probability, *count)).collect()
    }

    fn places(ranges: &[Range<usize>]) -> Vec<(usize, usize)> {
        ranges.iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn short_pauses_belong_to_speech_and_short_noises_do_not() {
        let probabilities = steps(&[(20, 0.0), (10, 0.9), (5, 0.1), (10, 0.4), (40, 0.0), (3, 0.9), (40, 0.0)]);
        let found = places(&speech(&probabilities, probabilities.len() * STEP));
        assert_eq!(found, vec![(20 * STEP - MARGIN, 45 * STEP + MARGIN)]);
        assert!(speech(&[], 0).is_empty());
        assert_eq!(
            places(&speech(&steps(&[(10, 0.9)]), 10 * STEP - 7)),
            [(0, 10 * STEP - 7)],
            "it ends with the recording"
        );
    }

    #[test]
    fn margins_share_a_short_pause() {
        let probabilities = steps(&[(20, 0.9), (11, 0.0), (20, 0.9)]);
        let found = speech(&probabilities, probabilities.len() * STEP);
        assert_eq!(found.len(), 2);
        assert!(found[0].end <= found[1].start);
    }

    #[test]
    fn windows_hold_all_speech_and_are_cut_where_it_is_quietest() {
        let second = SAMPLE_RATE;
        assert_eq!(
            windows(&[0..9 * second, 10 * second..20 * second, 25 * second..31 * second], &[]),
            [0..20 * second, 25 * second..31 * second]
        );
        let whole = 0..70 * second;
        let mut probabilities = vec![0.9; 70 * second / STEP];
        probabilities[700] = 0.6;
        let cut = windows(std::slice::from_ref(&whole), &probabilities);
        assert_eq!(cut[0], 0..700 * STEP + STEP / 2);
        assert!(cut.iter().all(|window| window.len() <= WINDOW && !window.is_empty()));
        assert!(cut.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(cut.last().map(|last| last.end), Some(70 * second));
    }
}
