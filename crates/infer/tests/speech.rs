//! Recorded speech to text with the real models, which are pulled where they are missing. The recordings are those of
//! Debian's `pocketsphinx-testdata`, in the folder that `STRATA_TEST_FILES` names.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::OnceLock;
use strata_infer::{Registry, TranscribeOptions, Transcriber, Transcript};
use strata_model::Error;

const SAMPLE_RATE: usize = 16_000;

fn transcriber(id: &str) -> Transcriber {
    let registry = Registry::open(Registry::default_dir().unwrap());
    registry.pull(id).unwrap();
    registry.pull(Registry::voice_model()).unwrap();
    Transcriber::load(&registry, id, 2).unwrap()
}

fn tiny() -> &'static Transcriber {
    static MODEL: OnceLock<Transcriber> = OnceLock::new();
    MODEL.get_or_init(|| transcriber("whisper_tiny_en"))
}

/// The samples of a `.raw` or `.wav` file of 16-bit samples, one channel, 16 kHz.
fn recording(name: &str) -> Vec<f32> {
    let folder = std::env::var_os("STRATA_TEST_FILES").expect(
        "`STRATA_TEST_FILES` must name the folder with the test files; `scripts/fetch-test-files.sh` fetches them",
    );
    let path = PathBuf::from(folder).join("pocketsphinx-testdata").join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()));
    let data = if name.ends_with(".wav") { &bytes[44..] } else { &bytes[..] };
    data.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0).collect()
}

/// Recordings with what is said in them.
const SPOKEN: [(&str, &str); 8] = [
    (
        "librivox/sense_and_sensibility_01_austen_64kb-0870.wav",
        "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do for them",
    ),
    ("librivox/sense_and_sensibility_01_austen_64kb-0880.wav", "he was not an ill disposed young man"),
    (
        "librivox/sense_and_sensibility_01_austen_64kb-0890.wav",
        "unless to be rather cold hearted and rather selfish is to be ill disposed",
    ),
    (
        "librivox/sense_and_sensibility_01_austen_64kb-0920.wav",
        "had he married a more amiable woman he might have been made still more respectable than he was",
    ),
    ("librivox/sense_and_sensibility_01_austen_64kb-0930.wav", "he might even have been made amiable himself"),
    ("goforward.raw", "go forward ten meters"),
    ("something.raw", "go somewhere and do something"),
    ("cards/001.wav", "ten of clubs"),
];

/// Lower case, no signs, the few numbers and short forms that occur as words.
fn normalised(text: &str) -> Vec<String> {
    let plain = text.to_lowercase().replace(|c: char| !c.is_alphanumeric(), " ");
    let word = |word: &str| match word {
        "10" => "ten".to_owned(),
        "mr" => "mister".to_owned(),
        "metres" => "meters".to_owned(),
        other => other.to_owned(),
    };
    plain.split_whitespace().map(word).collect()
}

/// Words that are wrong, missing or too many (Levenshtein).
fn mistakes(said: &[String], heard: &[String]) -> usize {
    let mut above: Vec<usize> = (0..=heard.len()).collect();
    for (row, said) in said.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, heard) in heard.iter().enumerate() {
            let replaced = above[column] + usize::from(said != heard);
            current.push(replaced.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[heard.len()]
}

/// Mistakes by words, printed, over all recordings.
fn word_error_rate(model: &Transcriber) -> f64 {
    let (mut wrong, mut all) = (0, 0);
    for (name, said) in SPOKEN {
        let transcript = model.transcribe_blocking(&recording(name), &TranscribeOptions::default()).unwrap();
        let (said, heard) = (normalised(said), normalised(&transcript.text()));
        println!("{name}: {}", transcript.text());
        wrong += mistakes(&said, &heard);
        all += said.len();
        check(&transcript, recording(name).len());
    }
    println!("{}: {wrong} of {all} words wrong", model.model_id());
    wrong as f64 / all as f64
}

/// Times are in order and in the recording; the words are the text.
fn check(transcript: &Transcript, samples: usize) {
    let length = (samples * 1_000).div_ceil(SAMPLE_RATE) as u64;
    let mut now = 0;
    for segment in &transcript.segments {
        assert!(
            segment.start_ms >= now && segment.start_ms < segment.end_ms && segment.end_ms <= length,
            "{segment:?}"
        );
        now = segment.start_ms;
        let joined: String = segment.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(joined.trim(), segment.text);
        for word in &segment.words {
            assert!(word.start_ms >= now && word.start_ms <= word.end_ms && word.end_ms <= length, "{word:?}");
            assert!((0.0..=1.0).contains(&word.probability), "{word:?}");
            now = word.start_ms;
        }
        assert!(segment.average_log_probability < 0.0 && (0.0..=1.0).contains(&segment.no_speech_probability));
    }
}

#[test]
fn recorded_speech_is_understood_by_the_english_model() {
    let rate = word_error_rate(tiny());
    assert!(rate <= 0.06, "{rate}");
}

/// One after the other the same recordings give windows that end in the middle of a sentence, and texts that the decoder
/// ends too early.
#[test]
fn of_a_long_recording_nothing_is_lost_and_nothing_is_told_twice() {
    let read = &SPOKEN[..5];
    let (mut wrong, mut all) = (0, 0);
    for order in [[2, 4, 1, 0, 3], [1, 0, 4, 2, 3], [3, 2, 0, 4, 1]] {
        let order = [order, order, order].concat();
        let samples: Vec<f32> = order.iter().flat_map(|at| recording(read[*at].0)).collect();
        let said: Vec<String> = order.iter().flat_map(|at| normalised(read[*at].1)).collect();
        let transcript = tiny().transcribe_blocking(&samples, &TranscribeOptions::default()).unwrap();
        let heard = normalised(&transcript.text());
        let mistakes = mistakes(&said, &heard);
        println!("{} words said, {} heard, {mistakes} wrong: {}", said.len(), heard.len(), transcript.text());
        check(&transcript, samples.len());
        (wrong, all) = (wrong + mistakes, all + said.len());
    }
    println!("{wrong} of {all} words wrong");
    assert!(wrong as f64 / all as f64 <= 0.06, "{wrong} of {all}");
}

#[test]
fn recorded_speech_is_understood_by_the_multilingual_model_which_finds_the_language() {
    let base = transcriber("whisper_base");
    let rate = word_error_rate(&base);
    assert!(rate <= 0.06, "{rate}");
    assert!(base.languages().contains(&"de") && base.languages().len() >= 99);
    let samples = recording(SPOKEN[0].0);
    let found = base.transcribe_blocking(&samples, &TranscribeOptions::default()).unwrap();
    assert_eq!(found.language.as_deref(), Some("en"));
    let german = TranscribeOptions { language: Some("de".to_owned()), ..TranscribeOptions::default() };
    assert_eq!(base.transcribe_blocking(&samples, &german).unwrap().language.as_deref(), Some("de"));
}

/// Times that `faster-whisper` 1.2.1 gives these words with the same weights.
#[test]
fn words_have_the_times_that_another_implementation_finds() {
    let transcript = tiny().transcribe_blocking(&recording(SPOKEN[0].0), &TranscribeOptions::default()).unwrap();
    let words: Vec<_> = transcript.segments.iter().flat_map(|segment| &segment.words).collect();
    for (text, start_ms, end_ms) in [
        (" Dashwood", 1_100, 1_680),
        (" consider", 3_200, 3_480),
        (" prudently", 5_120, 5_520),
        (" them.", 6_720, 6_960),
    ] {
        let word = words.iter().find(|word| word.text == text).unwrap_or_else(|| panic!("no `{text}`: {words:?}"));
        let near = |a: u64, b: u64| a.abs_diff(b) <= 150;
        assert!(near(word.start_ms, start_ms) && near(word.end_ms, end_ms), "{word:?}");
    }
}

/// Several speakers with pauses between, some of them long: more than one window, and times that are those of the whole.
#[test]
fn a_long_recording_with_pauses_is_cut_and_its_times_go_on() {
    let mut samples = Vec::new();
    let mut starts = Vec::new();
    let mut said = Vec::new();
    for (i, (name, text)) in SPOKEN.iter().cycle().take(15).enumerate() {
        samples.resize(samples.len() + if i % 4 == 3 { 6 * SAMPLE_RATE } else { SAMPLE_RATE }, 0.0);
        starts.push(samples.len() * 1_000 / SAMPLE_RATE);
        samples.extend(recording(name));
        said.extend(normalised(text));
    }
    samples.resize(samples.len() + 10 * SAMPLE_RATE, 0.0);
    let transcript = tiny().transcribe_blocking(&samples, &TranscribeOptions::default()).unwrap();
    transcript.segments.iter().for_each(|s| println!("{:>6} {:>6} {}", s.start_ms, s.end_ms, s.text));
    check(&transcript, samples.len());
    let wrong = mistakes(&said, &normalised(&transcript.text()));
    println!("{wrong} of {} words wrong in {} s", said.len(), samples.len() / SAMPLE_RATE);
    assert!(wrong as f64 / said.len() as f64 <= 0.08);
    let last = transcript.segments.iter().flat_map(|s| &s.words).rfind(|word| word.text == " Dashwood").unwrap();
    assert!(last.start_ms.abs_diff(starts[8] as u64 + 1_100) <= 300, "{last:?}");
}

#[test]
fn silence_and_noise_have_no_text() {
    let options = TranscribeOptions::default();
    let mut random = 1_u32;
    let noise: Vec<f32> = (0..4 * SAMPLE_RATE)
        .map(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((random >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.2
        })
        .collect();
    for samples in [&[][..], &[0.5; 7][..], &vec![0.0; 3 * SAMPLE_RATE][..], &noise[..]] {
        assert_eq!(tiny().transcribe_blocking(samples, &options).unwrap(), Transcript::default());
    }
    let all = TranscribeOptions { skip_silence: false, ..options };
    assert_eq!(tiny().transcribe_blocking(&[], &all).unwrap().segments, []);
    check(&tiny().transcribe_blocking(&[0.0; 7_000], &all).unwrap(), 7_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_transcribed_is_refused_with_the_reason() {
    let model = tiny().clone();
    let mut samples = recording("goforward.raw");
    samples[77] = f32::NAN;
    let refused = model.transcribe(samples, TranscribeOptions::default()).await;
    assert!(matches!(refused, Err(Error::Malformed(m)) if m.contains("sample 77")));
    let french = TranscribeOptions { language: Some("fr".to_owned()), ..TranscribeOptions::default() };
    let refused = model.transcribe(vec![0.0; SAMPLE_RATE], french).await;
    assert!(matches!(refused, Err(Error::Invalid(e)) if e[0].field == "language"));
    let fine = model.transcribe(recording("goforward.raw"), TranscribeOptions::default()).await.unwrap();
    assert_eq!(normalised(&fine.text()), ["go", "forward", "ten", "meters"]);
}
