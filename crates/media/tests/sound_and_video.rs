//! Sound and video: real recordings, and files that `ffmpeg` makes of them.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use strata_media::{
    AudioRequest, Config, Decoder, Encoding, Family, Filter, FrameRequest, FrameSampling, MediaKind, Resize,
    SilenceRequest, Source, Tools, Transcode, VideoCodec,
};
use strata_model::Error;
use support::{bytes, config, decoder, file, made, source};

const SPEECH: &str = "pocketsphinx-testdata/librivox/sense_and_sensibility_01_austen_64kb-0870.wav";

fn sixteen_kilohertz() -> AudioRequest {
    AudioRequest { sample_rate: 16_000, start_ms: 0, max_duration_ms: 3_600_000 }
}

fn rate(frames_per_second: f64, end_ms: Option<u64>) -> FrameRequest {
    let sampling = FrameSampling::Rate { frames_per_second, start_ms: 0, end_ms, max_frames: 1000 };
    FrameRequest { sampling, size: Resize::Fit { width: 224, height: 224 }, filter: Filter::Bicubic }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Two colours, two seconds each, with a tone, silence, and a tone.
fn two_scenes(folder: &Path, name: &str, more: &[&str]) -> std::path::PathBuf {
    let video = "color=red:s=320x240:r=25:d=2[a];color=blue:s=320x240:r=25:d=2[b];[a][b]concat[v];\
                 sine=440:d=1[s];anullsrc=r=44100:cl=mono,atrim=duration=2[q];sine=440:d=1[t];[s][q][t]concat=n=3:v=0:a=1[w]";
    let arguments = [&["-filter_complex", video, "-map", "[v]", "-map", "[w]"], more].concat();
    made(folder, name, &arguments)
}

#[tokio::test]
async fn a_look_tells_what_is_inside() {
    let decoder = decoder();
    let probe = decoder.probe(&source("opencv-doc/vtest.avi")).await.unwrap();
    assert_eq!((probe.kind, probe.family), (MediaKind::Avi, Family::Video));
    assert_eq!((probe.width, probe.height, probe.frames_per_second), (Some(768), Some(576), Some(10.0)));
    assert_eq!((probe.duration_ms, probe.has_audio), (Some(79_500), false));
    let probe = decoder.probe(&source("opencv-doc/Megamind.avi")).await.unwrap();
    assert_eq!((probe.video_codec.as_deref(), probe.audio_codec.as_deref()), (Some("mpeg4"), Some("ac3")));
    assert_eq!((probe.sample_rate, probe.channels, probe.has_audio), (Some(48_000), Some(2), true));
    let probe = decoder.probe(&source(SPEECH)).await.unwrap();
    assert_eq!((probe.kind, probe.family, probe.sample_rate), (MediaKind::Wav, Family::Audio, Some(16_000)));
    assert_eq!((probe.duration_ms, probe.channels), (Some(7_100), Some(1)));
}

#[tokio::test]
async fn every_container_is_told_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let cases: [(&str, &[&str], MediaKind, Family); 11] = [
        ("a.mp4", &["-c:v", "libx264", "-c:a", "aac"], MediaKind::Mp4, Family::Video),
        ("a.mov", &["-c:v", "libx264", "-c:a", "aac"], MediaKind::QuickTime, Family::Video),
        ("a.mkv", &["-c:v", "libx265", "-c:a", "flac"], MediaKind::Matroska, Family::Video),
        ("a.webm", &["-c:v", "libvpx-vp9", "-c:a", "libopus"], MediaKind::Webm, Family::Video),
        ("a.flv", &["-c:v", "flv", "-c:a", "mp3"], MediaKind::Flv, Family::Video),
        ("a.wmv", &["-c:v", "wmv2", "-c:a", "wmav2"], MediaKind::Asf, Family::Video),
        ("a.mpg", &["-c:v", "mpeg2video", "-c:a", "mp2"], MediaKind::MpegProgram, Family::Video),
        ("a.ts", &["-c:v", "libx264", "-c:a", "aac"], MediaKind::MpegTransport, Family::Video),
        ("a.ogv", &["-c:v", "libtheora", "-c:a", "libvorbis"], MediaKind::Ogg, Family::Video),
        ("a.m4a", &["-vn", "-c:a", "aac"], MediaKind::M4a, Family::Audio),
        ("a.mp3", &["-vn"], MediaKind::Mp3, Family::Audio),
    ];
    for (name, arguments, kind, family) in cases {
        let arguments = if family == Family::Audio {
            vec!["-i", text(&file(SPEECH)).to_owned().leak(), "-t", "4", "-c:a", *arguments.last().unwrap()]
        } else {
            vec![]
        };
        let path = match (family, name) {
            (Family::Audio, "a.m4a") => made(folder.path(), name, &arguments),
            (Family::Audio, _) => made(folder.path(), name, &arguments[..4]),
            _ => two_scenes(folder.path(), name, cases.iter().find(|c| c.0 == name).unwrap().1),
        };
        let file = Source::Path(path);
        let probe = decoder.probe(&file).await.unwrap();
        assert_eq!((probe.kind, probe.family), (kind, family), "{name}");
        let duration_ms = probe.duration_ms.unwrap();
        assert!(duration_ms.abs_diff(4_000) < 200, "{name}: {duration_ms}");
        let samples = decoder.audio(&file, sixteen_kilohertz()).await.unwrap().collect().await.unwrap();
        assert!(samples.len().abs_diff(64_000) < 3_200, "{name}: {}", samples.len());
        if family == Family::Video {
            assert_eq!((probe.width, probe.height), (Some(320), Some(240)), "{name}");
            let mut frames = decoder.frames(&file, &rate(2.0, None)).await.unwrap();
            let mut seen = Vec::new();
            while let Some(frame) = frames.next().await.unwrap() {
                assert_eq!((frame.picture.width, frame.picture.height), (224, 168), "{name}");
                seen.push((frame.time_ms, frame.picture.bytes[0] > 128));
            }
            let expected = (0..8).map(|n| (n * 500, n < 4)).collect::<Vec<_>>();
            assert!(seen.starts_with(&expected), "{name}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn scenes_and_pauses_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = Source::Path(two_scenes(folder.path(), "a.mp4", &["-c:v", "libx264", "-c:a", "aac"]));
    let decoder = decoder();
    let cuts = decoder.scene_cuts(&path, 0.3).await.unwrap();
    assert_eq!(cuts.iter().map(|cut| cut.time_ms).collect::<Vec<_>>(), [2_000], "{cuts:?}");
    let request = SilenceRequest { noise_db: -40.0, min_duration_ms: 500 };
    let silences = decoder.silences(&path, request).await.unwrap();
    assert_eq!(silences.len(), 1, "{silences:?}");
    assert!(silences[0].start_ms.abs_diff(1_000) < 100 && silences[0].end_ms.unwrap().abs_diff(3_000) < 100);
}

#[tokio::test]
async fn frames_at_times_and_of_a_turned_video() {
    let folder = tempfile::tempdir().unwrap();
    let plain = two_scenes(folder.path(), "a.mp4", &["-c:v", "libx264", "-c:a", "aac"]);
    let turned = made(folder.path(), "b.mp4", &["-display_rotation", "90", "-i", text(&plain), "-c", "copy"]);
    let decoder = decoder();
    let request = FrameRequest {
        sampling: FrameSampling::Times(vec![3_000, 500, 99_000]),
        size: Resize::Cover { width: 64, height: 64 },
        filter: Filter::Bilinear,
    };
    let mut frames = decoder.frames(&Source::Path(plain), &request).await.unwrap();
    let mut seen = Vec::new();
    while let Some(frame) = frames.next().await.unwrap() {
        assert_eq!((frame.picture.width, frame.picture.height), (64, 64));
        seen.push((frame.time_ms, frame.picture.bytes[0] > 128));
    }
    assert_eq!(seen, [(3_000, false), (500, true)]);
    let probe = decoder.probe(&Source::Path(turned.clone())).await.unwrap();
    assert_eq!((probe.width, probe.height), (Some(240), Some(320)));
    let mut frames = decoder.frames(&Source::Path(turned), &rate(1.0, None)).await.unwrap();
    let frame = frames.next().await.unwrap().unwrap();
    assert_eq!((frame.picture.width, frame.picture.height), (168, 224));
    assert!(matches!(frame.picture.thumbnail().unwrap().encoding, Encoding::Jpeg(_)));
}

#[tokio::test]
async fn an_animated_gif_has_frames() {
    let gif = source("scikit-image/no_time_for_that_tiny.gif");
    let mut frames = decoder().frames(&gif, &rate(10.0, None)).await.unwrap();
    let mut count = 0;
    while frames.next().await.unwrap().is_some() {
        count += 1;
    }
    assert!(count > 5, "{count}");
}

#[tokio::test]
async fn sound_comes_in_chunks_and_is_bounded() {
    let decoder = decoder();
    let request = AudioRequest { sample_rate: 8_000, start_ms: 1_000, max_duration_ms: 3_000 };
    let mut stream = decoder.audio(&source(SPEECH), request).await.unwrap();
    let mut lengths = Vec::new();
    while let Some(samples) = stream.next().await.unwrap() {
        lengths.push(samples.len());
    }
    assert_eq!((lengths.len(), lengths.iter().sum::<usize>()), (2, 24_000), "{lengths:?}");
    // The samples of a file that is 16 kHz already are those of the file.
    let whole = decoder.audio(&source(SPEECH), sixteen_kilohertz()).await.unwrap().collect().await.unwrap();
    let raw = std::fs::read(file(SPEECH)).unwrap();
    let at = raw.windows(4).position(|w| w == b"data").unwrap() + 8;
    let wanted: Vec<f32> =
        raw[at..].as_chunks::<2>().0.iter().map(|s| f32::from(i16::from_le_bytes(*s)) / 32768.0).collect();
    assert_eq!(whole.len(), wanted.len());
    assert!(whole.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-4));
}

#[tokio::test]
async fn parts_are_cut_and_videos_encoded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let cut = folder.path().join("cut.mp4");
    decoder.cut(&source("opencv-doc/Megamind.avi"), 2_000, 3_000, &cut).await.unwrap();
    let probe = decoder.probe(&Source::Path(cut)).await.unwrap();
    assert_eq!((probe.kind, probe.width, probe.has_audio), (MediaKind::Mp4, Some(720), true));
    // From the key frame before, which this video has every few seconds.
    assert!((2_900..6_000).contains(&probe.duration_ms.unwrap()), "{probe:?}");
    let small = folder.path().join("small.mp4");
    let how = Transcode {
        codec: VideoCodec::H265,
        preset: "ultrafast".into(),
        max_resolution: Some((320, 320)),
        audio_kilobits: None,
        ..Transcode::default()
    };
    decoder.transcode(&source("opencv-doc/Megamind.avi"), &how, &small).await.unwrap();
    let probe = decoder.probe(&Source::Path(small)).await.unwrap();
    assert_eq!((probe.width, probe.height, probe.has_audio), (Some(320), Some(234), false));
    assert_eq!(probe.video_codec.as_deref(), Some("hevc"));
}

#[tokio::test]
async fn bytes_are_as_good_as_a_path() {
    let file = bytes(std::fs::read(file(SPEECH)).unwrap());
    let samples = decoder().audio(&file, sixteen_kilohertz()).await.unwrap().collect().await.unwrap();
    assert_eq!(samples.len(), 113_600);
}

#[tokio::test]
async fn no_file_makes_another_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret.wav");
    std::fs::copy(file(SPEECH), &secret).unwrap();
    let path = text(&secret);
    let playlist = format!("#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{path}\n#EXT-X-ENDLIST\n");
    let script = format!("ffconcat version 1.0\nfile '{path}'\n");
    // A playlist that begins as something else does.
    let disguised = format!("GIF89a{playlist}");
    let decoder = decoder();
    for text in [playlist, script, disguised] {
        let source = bytes(text.clone().into_bytes());
        let sound = async { decoder.audio(&source, sixteen_kilohertz()).await?.collect().await };
        let error = sound.await.expect_err(&text);
        assert!(matches!(error, Error::Invalid(_)), "{error}");
        let frames = async { decoder.frames(&source, &rate(1.0, None)).await?.next().await };
        assert!(matches!(frames.await.expect_err(&text), Error::Invalid(_)));
    }
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let decoder = Decoder::new(Config { tools: Tools::default(), ..config() });
    for source in [source(SPEECH), source("pdf/R-intro.pdf")] {
        let error = decoder.probe(&source).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(m) if m.contains("strata models pull media_tools")), "{error}");
    }
}

#[tokio::test]
async fn sound_of_a_silent_video_and_frames_of_sound_are_refused() {
    let decoder = decoder();
    let sound = async { decoder.audio(&source("opencv-doc/vtest.avi"), sixteen_kilohertz()).await?.next().await };
    assert!(matches!(sound.await.unwrap_err(), Error::Invalid(_)));
    let frames = decoder.frames(&source(SPEECH), &rate(1.0, None)).await;
    assert!(matches!(frames.err().unwrap(), Error::Invalid(_)));
    assert!(matches!(decoder.scene_cuts(&source(SPEECH), 0.3).await.unwrap_err(), Error::Invalid(_)));
}

#[tokio::test]
async fn what_is_dropped_ends_its_child() {
    let decoder = Decoder::new(Config { ffmpegs: 1, ..config() });
    for _ in 0..3 {
        let mut frames = decoder.frames(&source("opencv-doc/vtest.avi"), &rate(10.0, None)).await.unwrap();
        frames.next().await.unwrap().unwrap();
    }
    // With one place, a child that went on would let nobody in.
    decoder.probe(&source(SPEECH)).await.unwrap();
}
