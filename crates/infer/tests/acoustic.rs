//! Sound is told from other sound after it was encoded anew, made quieter and cut.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use strata_infer::acoustic::{DIMENSIONS, Fingerprint, SAMPLE_RATE, embed};

/// Recordings of one reader.
const RECORDED: [&str; 5] = ["0870", "0880", "0890", "0920", "0930"];

fn recorded(part: &str) -> Vec<f32> {
    let name = format!("pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-{part}.wav");
    samples(&std::fs::read(support::file(&name)).unwrap()[44..])
}

/// One after the other: some twenty seconds.
fn reading() -> Vec<f32> {
    RECORDED.iter().flat_map(|part| recorded(part)).collect()
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

/// Samples with noise beside which they are `decibels` louder.
fn noisy(samples: &[f32], decibels: f32) -> Vec<f32> {
    let power = samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32;
    // What is spread evenly from -1 to 1 has a power of a third.
    let level = (power * 3.0 / 10_f32.powf(decibels / 10.0)).sqrt();
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    samples.iter().map(|s| s + level * next()).collect()
}

#[test]
fn a_clip_is_found_in_its_recording_with_its_offset() {
    let reading = reading();
    let whole = Fingerprint::of(&reading).unwrap();
    let second = SAMPLE_RATE as usize;
    let clip = &reading[4 * second..14 * second];
    let quiet: Vec<f32> = encoded_anew(clip).iter().map(|s| s * 0.3).collect();
    for (what, heard) in [("quieter", quiet.clone()), ("noisy", noisy(&quiet, 15.0)), ("as it is", clip.to_vec())] {
        let matches = whole.matches(&Fingerprint::of(&heard).unwrap());
        println!("{what}: {matches:?}");
        let best = matches.first().unwrap();
        assert!((best.start_a - best.start_b - 4.0).abs() < 0.3 && best.duration > 5.0, "{what}: {best:?}");
        assert!(best.similarity > 0.4 && matches.len() == 1, "{what}: {matches:?}");
    }
    let best = whole.matches(&whole)[0];
    assert_eq!((best.start_a, best.start_b, best.similarity), (0.0, 0.0, 1.0));
}

#[test]
fn a_clip_that_is_there_twice_is_found_twice() {
    let reading = reading();
    let second = SAMPLE_RATE as usize;
    let clip = &reading[..6 * second];
    let recording = [&reading[8 * second..13 * second], clip, &reading[14 * second..18 * second], clip].concat();
    let matches = Fingerprint::of(clip).unwrap().matches(&Fingerprint::of(&recording).unwrap());
    let mut offsets: Vec<f64> = matches.iter().map(|m| m.start_b - m.start_a).collect();
    offsets.sort_by(f64::total_cmp);
    assert!(offsets.len() == 2 && (offsets[0] - 5.0).abs() < 0.3 && (offsets[1] - 15.0).abs() < 0.3, "{matches:?}");
}

#[test]
fn other_recordings_have_nothing_in_common_and_neither_has_silence() {
    let reading = reading();
    let backwards: Vec<f32> = reading.iter().rev().copied().collect();
    let raw = |name: &str| samples(&std::fs::read(support::file(&format!("pocketsphinx-testdata/{name}"))).unwrap());
    let others = [backwards, [raw("goforward.raw"), raw("numbers.raw"), raw("something.raw")].concat()];
    let mut prints: Vec<Fingerprint> = others.iter().map(|sound| Fingerprint::of(sound).unwrap()).collect();
    prints.extend(RECORDED.map(|part| Fingerprint::of(&recorded(part)).unwrap()));
    for (at, print) in prints.iter().enumerate() {
        for other in &prints[..at] {
            assert_eq!(print.matches(other), [], "{at}");
        }
    }
    let tone: Vec<f32> = (0..30 * SAMPLE_RATE).map(|n| (n as f32 * 0.17).sin() * 0.5).collect();
    for still in [vec![0.0; 30 * SAMPLE_RATE as usize], tone] {
        let print = Fingerprint::of(&still).unwrap();
        assert_eq!(print.matches(&print), []);
    }
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
