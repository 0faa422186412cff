//! Sound as samples, and the pauses in it.

use super::{Input, Plan, Run};
use crate::{
    decoder::{Decoder, Source},
    limits::AUDIO_CHUNK_SAMPLES,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use strata_model::{Error, Result};

/// What is wanted of the sound of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioRequest {
    /// Samples a second, 1,000 to 192,000.
    pub sample_rate: u32,
    /// Milliseconds from the beginning.
    pub start_ms: u64,
    /// Milliseconds that are decoded at most.
    pub max_duration_ms: u64,
}

/// Samples as they are decoded: one channel, -1 to 1. Dropping it ends the decoding.
pub struct AudioStream {
    run: Option<Run>,
    samples_left: u64,
    came: bool,
}

/// How quiet a pause is, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SilenceRequest {
    /// Decibels below full scale, for example -30.
    pub noise_db: f64,
    /// Shortest pause in milliseconds.
    pub min_duration_ms: u64,
}

/// A pause, in milliseconds from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    pub start_ms: u64,
    /// `None` for one that lasts until the end.
    pub end_ms: Option<u64>,
}

impl Decoder {
    /// The first audio stream of a file as one channel of the wanted rate.
    pub async fn audio(&self, source: &Source, request: AudioRequest) -> Result<AudioStream> {
        if !(1_000..=192_000).contains(&request.sample_rate) {
            return Err(Error::invalid("sample_rate", "must be 1,000 to 192,000"));
        }
        let input = Input::of(source).await?;
        let rate = request.sample_rate.to_string();
        let plan = Plan::default()
            .before(["-vn"])
            .span(request.start_ms, Some(request.max_duration_ms))
            .after(["-map", "0:a:0", "-ac", "1", "-ar", &rate, "-f", "f32le", "pipe:1"]);
        let run = self.ffmpeg().start(&input, plan).await?;
        let samples_left = u64::from(request.sample_rate).saturating_mul(request.max_duration_ms) / 1000 + 1;
        Ok(AudioStream { run: Some(run), samples_left, came: false })
    }

    /// The pauses of the first audio stream, in order.
    pub async fn silences(&self, source: &Source, request: SilenceRequest) -> Result<Vec<Silence>> {
        if !(-120.0..=0.0).contains(&request.noise_db) || request.min_duration_ms == 0 {
            return Err(Error::invalid("silence", "wants -120 to 0 decibels and a duration above 0"));
        }
        let input = Input::of(source).await?;
        let filter = format!(
            "silencedetect=noise={}dB:d={},ametadata=mode=print:file=-",
            request.noise_db,
            super::seconds(request.min_duration_ms)
        );
        // Long silence has nothing to tell, so it must be waited for.
        let plan = Plan { timeout: Some(Duration::from_secs(600)), ..Plan::default() }
            .before(["-vn"])
            .after(["-map", "0:a:0", "-af", &filter, "-f", "null", "-"]);
        let mut run = self.ffmpeg().start(&input, plan).await?;
        let mut silences: Vec<Silence> = Vec::new();
        while let Some(line) = run.line().await? {
            if let Some(start_ms) = value_ms(&line, "lavfi.silence_start=") {
                silences.push(Silence { start_ms, end_ms: None });
            } else if let (Some(end_ms), Some(last)) = (value_ms(&line, "lavfi.silence_end="), silences.last_mut()) {
                last.end_ms = Some(end_ms);
            }
        }
        run.finish_after(true).await?;
        Ok(silences)
    }
}

fn value_ms(line: &str, name: &str) -> Option<u64> {
    let seconds = line.strip_prefix(name)?.parse::<f64>().ok()?;
    Some((seconds.clamp(0.0, 1e12) * 1000.0).round() as u64)
}

impl AudioStream {
    /// The next samples, at most 16,384; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Vec<f32>>> {
        let Some(mut run) = self.run.take() else { return Ok(None) };
        let mut buffer = vec![0; AUDIO_CHUNK_SAMPLES * 4];
        let filled = run.fill(&mut buffer).await?;
        let samples = buffer[..filled].as_chunks::<4>().0.iter().map(|sample| f32::from_le_bytes(*sample));
        // What decoders make of damaged bytes may be no number.
        let mut samples: Vec<f32> = samples.map(|s| if s.is_finite() { s.clamp(-1.0, 1.0) } else { 0.0 }).collect();
        samples.truncate(usize::try_from(self.samples_left).unwrap_or(usize::MAX));
        self.samples_left -= samples.len() as u64;
        self.came |= !samples.is_empty();
        if filled < buffer.len() || self.samples_left == 0 {
            run.finish_after(self.came).await?;
        } else {
            self.run = Some(run);
        }
        Ok((!samples.is_empty()).then_some(samples))
    }

    /// All that is left, in one piece.
    pub async fn collect(mut self) -> Result<Vec<f32>> {
        let mut all = Vec::new();
        while let Some(samples) = self.next().await? {
            all.extend(samples);
        }
        Ok(all)
    }
}
