//! Prints how many seconds of sound a second are transcribed, and what is said: `cargo run --release -p strata-infer
//! --example speech_rate MODEL FILE...`, each file being 16-bit samples of one channel at 16 kHz, `.wav` or `.raw`.

use std::time::Instant;
use strata_infer::{Registry, TranscribeOptions, Transcriber};
use strata_model::{Error, Result};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = || Error::Malformed("usage: speech_rate MODEL FILE...".to_owned());
    let id = arguments.next().ok_or_else(usage)?;
    let registry = Registry::open(Registry::default_dir()?);
    registry.pull(&id)?;
    registry.pull(Registry::voice_model())?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = Instant::now();
    let model = Transcriber::load(&registry, &id, threads)?;
    println!("loaded in {:.2} s, {threads} threads", started.elapsed().as_secs_f64());
    for file in arguments {
        let bytes = std::fs::read(&file).map_err(|e| Error::Malformed(format!("`{file}`: {e}")))?;
        let data = if file.ends_with(".wav") { bytes.get(44..).unwrap_or_default() } else { &bytes[..] };
        let samples: Vec<f32> =
            data.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect();
        for word_times in [false, true] {
            let started = Instant::now();
            let options = TranscribeOptions { word_times, ..TranscribeOptions::default() };
            let transcript = model.transcribe_blocking(&samples, &options)?;
            let (took, length) = (started.elapsed().as_secs_f64(), samples.len() as f64 / 16_000.0);
            println!(
                "{file}: {length:.1} s in {took:.2} s, {:.1} times as fast; word times: {word_times}",
                length / took
            );
            if word_times {
                for segment in transcript.segments {
                    println!("  {:>8} {:>8} {}", segment.start_ms, segment.end_ms, segment.text);
                }
            }
        }
    }
    Ok(())
}
