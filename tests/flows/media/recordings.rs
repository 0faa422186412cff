//! Speech is written down and found by what is said; videos become segments, and segments become faces.

use super::{Shelf, file, jpeg_size, opened};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

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

#[test]
fn recorded_speech_is_written_down_and_found_with_its_seconds() {
    let shelf = Shelf::open();
    let said = json!({
        "run_transcription": true, "run_transcription_embedding": true, "transcription_model": "whisper_tiny_en",
        "split_method": "silence", "max_segment_duration": 60,
    });
    let talks = shelf.collection("talks", "multimodal_extractor", said);
    let objects: Vec<String> = SPOKEN
        .iter()
        .map(|(name, _)| {
            let bytes = std::fs::read(file(&format!("pocketsphinx-testdata/{name}"))).expect("readable");
            shelf.put("audio", name, &wav(&bytes, name))
        })
        .collect();
    assert_eq!(shelf.derive(&objects, &[&talks]), "COMPLETED");
    shelf.settle(&talks);
    let documents = shelf.documents(&talks);

    let (mut wrong, mut all) = (0, 0);
    for (object, (name, text)) in objects.iter().zip(SPOKEN) {
        let mut parts: Vec<&Value> = documents.iter().filter(|d| d["root_object_id"] == json!(object)).collect();
        parts.sort_by(|a, b| a["start_time"].as_f64().partial_cmp(&b["start_time"].as_f64()).expect("times"));
        let heard: Vec<&str> = parts.iter().filter_map(|part| part["transcription"].as_str()).collect();
        let heard = heard.join(" ");
        println!("{name}: {heard}");
        let (said, heard) = (normalised(text), normalised(&heard));
        wrong += mistakes(&said, &heard);
        all += said.len();
        for part in parts {
            let (start, end) = (part["start_time"].as_f64().expect("start"), part["end_time"].as_f64().expect("end"));
            assert!(start < end, "{part}");
            for word in part["words"].as_array().expect("words") {
                let middle = (word["start"].as_f64().expect("start") + word["end"].as_f64().expect("end")) / 2.0;
                assert!(middle >= start - 0.01 && middle <= end + 0.01, "{word} in {start} to {end}");
            }
        }
    }
    println!("{wrong} of {all} words are wrong");
    assert!(wrong as f64 / all as f64 <= 0.06, "{wrong} of {all}");

    let query = json!({ "input_mode": "text", "value": "walk straight ahead for some distance" });
    let hits = shelf.search(&talks, query, 1);
    assert_eq!(hits[0]["root_object_id"], json!(objects[5]), "{hits:?}");
}

/// Raw samples with a header before them.
pub(super) fn wav(bytes: &[u8], name: &str) -> Vec<u8> {
    if name.ends_with(".wav") {
        return bytes.to_vec();
    }
    let length = u32::try_from(bytes.len()).expect("short");
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + length).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(16_000u32.to_le_bytes());
    wav.extend(32_000u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(length.to_le_bytes());
    wav.extend(bytes);
    wav
}

#[test]
fn a_video_becomes_segments_with_frames_files_and_a_second_tier() {
    let shelf = Shelf::open();
    let segments = shelf.collection("segments", "multimodal_extractor", json!({ "enable_segments": true }));
    let people = shelf.collection_of(
        "people",
        json!({ "type": "collection", "collection_ids": [segments] }),
        json!({
            "feature_extractor_name": "image_extractor", "version": "v1", "parameters": {},
            "field_passthrough": ["start_time", "end_time"],
        }),
    );
    let street = shelf.put_file("video", "opencv-doc/vtest.avi");
    assert_eq!(shelf.derive(std::slice::from_ref(&street), &[&segments]), "COMPLETED");
    shelf.settle(&segments);
    let mut made = shelf.documents(&segments);
    made.sort_by_key(|d| d["segment_index"].as_u64());
    assert!(made.len() >= 7, "80 seconds in tens: {}", made.len());
    let mut end = 0.0;
    for part in &made {
        assert_eq!(part["start_time"].as_f64(), Some(end), "no gap: {part}");
        end = part["end_time"].as_f64().expect("an end");
        assert!(part["end_frame"].as_u64() > part["start_frame"].as_u64() && part["source_fps"].as_f64() == Some(10.0));
        let (width, height) = jpeg_size(&opened(&part["thumbnail_url"]));
        assert!((width, height) == (640, 480), "{width} x {height}");
        let film = opened(&part["video_segment_url"]);
        assert_eq!(&film[4..8], b"ftyp", "an MP4");
    }

    // The second tier reads the frame that each segment keeps.
    let frames = shelf.documents(&people);
    assert_eq!(frames.len(), made.len());
    for frame in &frames {
        let parent = made.iter().find(|part| part["document_id"] == frame["source_document_id"]).expect("its parent");
        assert_eq!(frame["start_time"], parent["start_time"], "the time is carried down");
        assert_eq!(frame["root_object_id"], json!(street));
        assert_eq!(frame["lineage_path"], format!("{}/{segments}/{people}", shelf.bucket));
        assert_eq!(frame["lineage_chain"].as_array().map(Vec::len), Some(2));
    }

    let hits = shelf.search(&segments, json!({ "input_mode": "text", "value": "people walking on a street" }), 2);
    assert!(!hits.is_empty());

    // A film that others can play, with sound that was there before.
    let films =
        shelf.collection("films", "transcoding_extractor", json!({ "preset": "ultrafast", "max_resolution": 144 }));
    let film = shelf.put_file("video", "opencv-doc/Megamind.avi");
    assert_eq!(shelf.derive(&[film], &[&films]), "COMPLETED");
    let made = shelf.documents(&films);
    assert_eq!(&opened(&made[0]["converted_url"])[4..8], b"ftyp");
    assert!(made[0]["height"].as_u64().is_some_and(|height| height <= 144), "{}", made[0]);
}

#[test]
fn scenes_end_where_pictures_change() {
    let shelf = Shelf::open();
    let scenes = shelf.collection(
        "scenes",
        "multimodal_extractor",
        json!({ "split_method": "scene", "sensitivity": "medium", "max_segment_duration": 600 }),
    );
    let film = shelf.put_file("video", "opencv-doc/Megamind.avi");
    assert_eq!(shelf.derive(&[film], &[&scenes]), "COMPLETED");
    let made = shelf.documents(&scenes);
    assert!(made.len() >= 3, "{} scenes", made.len());
    assert!(made.iter().all(|scene| scene["thumbnail_url"].is_string()), "every scene has its frame");
}

#[test]
fn a_recording_is_found_again_by_its_sound_though_it_is_quieter_and_cut() {
    let shelf = Shelf::open();
    let sounds = shelf.collection("sounds", "audio_fingerprint_extractor", json!({}));
    let objects: Vec<String> = SPOKEN
        .iter()
        .map(|(name, _)| {
            let bytes = std::fs::read(file(&format!("pocketsphinx-testdata/{name}"))).expect("readable");
            shelf.put("audio", name, &wav(&bytes, name))
        })
        .collect();
    assert_eq!(shelf.derive(&objects, &[&sounds]), "COMPLETED");
    shelf.settle(&sounds);
    let windows = shelf.documents(&sounds);
    assert!(windows.len() > objects.len(), "{} windows", windows.len());
    for window in &windows {
        let (start, end) =
            (window["start_time_sec"].as_f64().expect("start"), window["end_time_sec"].as_f64().expect("end"));
        assert!(start < end && end <= window["total_duration_sec"].as_f64().expect("total") + 0.01, "{window}");
        assert!(!opened(&window["fingerprint_url"]).is_empty() || end < 3.0, "{window}");
    }
    // A second is cut off, and what is left is half as loud.
    for place in [0, 3] {
        let bytes = std::fs::read(file(&format!("pocketsphinx-testdata/{}", SPOKEN[place].0))).expect("readable");
        let quieter: Vec<u8> = bytes[44 + 32_000..]
            .chunks_exact(2)
            .flat_map(|pair| (i16::from_le_bytes([pair[0], pair[1]]) / 2).to_le_bytes())
            .collect();
        let uri = format!("data:audio/wav;base64,{}", STANDARD.encode(wav(&quieter, "quieter.raw")));
        let hits = shelf.search(&sounds, json!({ "input_mode": "content", "value": uri }), 3);
        assert_eq!(hits[0]["root_object_id"], json!(objects[place]), "{}", SPOKEN[place].0);
    }
}

#[test]
fn text_that_runs_through_a_film_is_read() {
    let shelf = Shelf::open();
    // The photo of a page, seen through a slot that moves down.
    let moving = "scale=1152:-2,crop=1152:300:0:'min(t*60,270)'";
    let film = made_film("scikit-image/page.png", moving, "6");
    let scrolls = shelf.collection("scrolls", "scrolling_text_extractor", json!({ "max_static_frames": 1 }));
    let object = shelf.put("video", "credits.mp4", &film);
    assert_eq!(shelf.derive(std::slice::from_ref(&object), &[&scrolls]), "COMPLETED");
    let made = shelf.documents(&scrolls).remove(0);
    println!("{made}");
    assert!(made["bands_detected"].as_u64().is_some_and(|bands| bands >= 1), "{made}");
    let band = &made["scroll_bands"][0];
    assert_eq!((&band["axis"], &band["direction"]), (&json!("vertical"), &json!("up")), "{band}");
    let text = made["scrolling_text"].as_str().expect("text").to_lowercase();
    for word in ["segmentation", "markers", "histogram"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

/// A film of a still picture through a filter of `ffmpeg`, so many seconds long.
pub(super) fn made_film(picture: &str, filter: &str, seconds: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let to = folder.path().join("film.mp4");
    let filter = format!("{filter},format=yuv420p");
    let run = std::process::Command::new(super::ffmpeg())
        .args(["-loop", "1", "-framerate", "25", "-i"])
        .arg(file(picture))
        .args(["-vf", &filter, "-t", seconds, "-c:v", "libx264", "-preset", "ultrafast"])
        .arg(&to)
        .output()
        .expect("ffmpeg runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    std::fs::read(&to).expect("made")
}
