//! Sound is told from other sound after it was encoded anew, made quieter and cut.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use strata_infer::acoustic::{DIMENSIONS, Fingerprint, SAMPLE_RATE, embed};

/// The recordings of one reader, one after the other: some twenty seconds.
fn reading() -> Vec<f32> {
    let parts = ["0870", "0880", "0890", "0920", "0930"];
    let name = |part: &str| format!("pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-{part}.wav");
    parts.iter().flat_map(|part| samples(&std::fs::read(support::file(&name(part))).unwrap()[44..])).collect()
}

fn samples(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect()
}

/// Samples as they come back from an MP3 of 48 kilobits a second.
fn encoded_anew(samples: &[f32]) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let (raw, mp3) = (folder.path().join("a.raw"), folder.path().join("a.mp3"));
    let bytes: Vec<u8> = samples.iter().flat_map(|s| ((s * 32_767.0) as i16).to_le_bytes()).collect();
    std::fs::write(&raw, bytes).unwrap();
    let models = std::path::PathBuf::from(std::env::var_os("STRATA_MODELS").unwrap());
    let installed = models.join("ffmpeg/ffmpeg");
    let ffmpeg = if installed.is_file() { installed } else { "ffmpeg".into() };
    let format = ["-f", "s16le", "-ar", "16000", "-ac", "1"];
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(Command::new(&ffmpeg).arg("-y").args(format).arg("-i").arg(&raw).args(["-b:a", "48k"]).arg(&mp3));
    self::samples(&run(Command::new(&ffmpeg).arg("-i").arg(&mp3).args(format).arg("-")))
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn a_clip_is_found_in_its_recording_with_its_offset() {
    let reading = reading();
    let second = SAMPLE_RATE as usize;
    let clip: Vec<f32> = encoded_anew(&reading[4 * second..14 * second]).iter().map(|s| s * 0.3).collect();
    let (whole, part) = (Fingerprint::of(&reading).unwrap(), Fingerprint::of(&clip).unwrap());
    let best = whole.matches(&part).into_iter().next().unwrap();
    println!("{best:?}");
    assert!((best.start_a - best.start_b - 4.0).abs() < 0.5 && best.duration > 4.0, "{best:?}");
    assert!(best.similarity > 0.5, "{best:?}");
    let other: Vec<f32> = reading.iter().rev().copied().collect();
    let chance = Fingerprint::of(&other).unwrap().matches(&part);
    assert!(chance.iter().all(|m| m.duration < best.duration / 2.0), "{chance:?}");
}

#[test]
fn windows_of_one_recording_are_nearer_than_those_of_others() {
    let reading = reading();
    let anew = encoded_anew(&reading);
    let size = 5 * SAMPLE_RATE as usize;
    let starts: Vec<usize> = (0..).map(|n| n * size).take_while(|start| start + size <= reading.len()).collect();
    let vectors: Vec<Vec<f32>> = starts.iter().map(|start| embed(&reading[*start..start + size]).unwrap()).collect();
    assert!(vectors.len() >= 3 && vectors.iter().all(|vector| vector.len() == DIMENSIONS));
    for (at, start) in starts.iter().enumerate() {
        // Encoded anew, quieter, and half a second later.
        let later = (start + SAMPLE_RATE as usize / 2).min(anew.len() - size);
        let heard: Vec<f32> = anew[later..later + size].iter().map(|s| s * 0.25).collect();
        let heard = embed(&heard).unwrap();
        let near = cosine(&heard, &vectors[at]);
        let others: Vec<f32> =
            vectors.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, v)| cosine(&heard, v)).collect();
        println!("{near:.3} beside {others:.3?}");
        assert!(others.iter().all(|other| near > other + 0.1), "{near} {others:?}");
    }
}
