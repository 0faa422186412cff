//! Damaged files. Small real ones of each kind are cut, flipped, spliced, mislabelled and blown up, and all of what comes
//! of it goes through a look and a decoding. Each must end in time, with a result or a reason that is the file's fault,
//! and this process must not grow with them.
//!
//! 2,000 files, a minute or two on two cores; `STRATA_DAMAGED_FILES` is another number.
//! `STRATA_SEED` repeats a run.

#![allow(clippy::unwrap_used)]

mod support;

use fastrand::Rng;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use strata_media::{
    AudioRequest, Config, Decoder, Family, Filter, FrameRequest, FrameSampling, ImageOutput, ImageRequest, PdfRequest,
    Rendering, Resize, Source,
};
use strata_model::Error;
use support::{config, file, made};

/// Longest that one file may take, in a look and a decoding together.
const DEADLINE: Duration = Duration::from_secs(30);
/// What this process may grow by.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// Small real files of each kind.
fn originals(folder: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let photo = image::open(file("opencv-doc/apple.jpg")).unwrap().thumbnail(160, 160);
    let encoded = |format| {
        let mut file = std::io::Cursor::new(Vec::new());
        image::DynamicImage::from(photo.to_rgb8()).write_to(&mut file, format).unwrap();
        file.into_inner()
    };
    let text = |name: &str| file(name).to_str().unwrap().to_owned();
    let (video, speech) = (text("opencv-doc/Megamind.avi"), text("pocketsphinx-testdata/cards/001.wav"));
    let clip = |name: &'static str, codecs: &[&str]| {
        let arguments = [&["-t", "1", "-i", video.as_str(), "-vf", "scale=160:120"], codecs].concat();
        (name, read(made(folder, name, &arguments)))
    };
    let apple = text("opencv-doc/apple.jpg");
    let still = |name: &'static str, codec: &[&str]| {
        let arguments = [&["-i", apple.as_str(), "-vf", "scale=160:120", "-frames:v", "1"], codec].concat();
        (name, read(made(folder, name, &arguments)))
    };
    let sound = |name: &'static str| (name, read(made(folder, name, &["-i", speech.as_str()])));
    vec![
        ("photo.jpg", encoded(image::ImageFormat::Jpeg)),
        ("progressive.jpg", read(file("libjxl-testdata/jxl/flower/flower_small.q85_420_non_interleaved.jpg"))),
        ("photo.png", encoded(image::ImageFormat::Png)),
        ("photo.gif", encoded(image::ImageFormat::Gif)),
        ("animation.gif", read(file("scikit-image/no_time_for_that_tiny.gif"))),
        ("photo.webp", encoded(image::ImageFormat::WebP)),
        ("photo.bmp", encoded(image::ImageFormat::Bmp)),
        ("photo.tiff", encoded(image::ImageFormat::Tiff)),
        ("pages.tiff", read(file("scikit-image/multipage_rgb.tif"))),
        ("photo.qoi", encoded(image::ImageFormat::Qoi)),
        ("photo.pnm", encoded(image::ImageFormat::Pnm)),
        ("picture.jxl", read(file("libjxl-testdata/jxl/splines.jxl"))),
        still("photo.jxl", &["-c:v", "libjxl"]),
        still("photo.avif", &["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1"]),
        still("photo.jp2", &["-c:v", "libopenjpeg"]),
        ("turned.heic", include_bytes!("files/turned_6.heic").to_vec()),
        ("tiles.heic", include_bytes!("files/tiles.heic").to_vec()),
        ("transparent.heic", include_bytes!("files/transparent.heic").to_vec()),
        ("drawing.svg", drawing()),
        ("document.psd", support::photoshop(64, 32, [200, 100, 50])),
        clip("clip.mp4", &["-c:v", "libx264", "-c:a", "aac"]),
        clip("clip.mov", &["-c:v", "libx264", "-c:a", "aac"]),
        clip("clip.mkv", &["-c:v", "libx265", "-c:a", "flac"]),
        clip("clip.webm", &["-c:v", "libvpx-vp9", "-deadline", "realtime", "-c:a", "libopus"]),
        clip("clip.avi", &["-c:v", "mpeg4", "-c:a", "mp3"]),
        clip("clip.flv", &["-c:v", "flv", "-c:a", "mp3", "-ar", "44100"]),
        clip("clip.ts", &["-c:v", "mpeg2video", "-c:a", "mp2"]),
        sound("speech.wav"),
        sound("speech.mp3"),
        sound("speech.flac"),
        sound("speech.ogg"),
        sound("speech.m4a"),
        ("manual.pdf", read(file("pdf/R-lang.pdf"))),
        ("encrypted.pdf", include_bytes!("files/encrypted.pdf").to_vec()),
        ("small.pdf", small_pdf()),
    ]
}

fn drawing() -> Vec<u8> {
    let shapes = (0..40).map(|n| format!("<circle cx='{n}' cy='{n}' r='{}' fill='url(#g)' filter='url(#f)'/>", n / 2));
    let defined = "<defs><linearGradient id='g'><stop offset='0' stop-color='red'/></linearGradient><filter id='f'>\
                   <feGaussianBlur stdDeviation='2'/></filter></defs>";
    let shapes: String = shapes.collect();
    format!("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 64 32'>{defined}{shapes}<text y='9'>a</text></svg>")
        .into_bytes()
}

fn small_pdf() -> Vec<u8> {
    // Without a table of objects, so that the reader has to look for them.
    b"%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n\
      3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R/Resources<</Font<</F<</Type/Font\
      /Subtype/Type1/BaseFont/Helvetica>>>>>>>>\nendobj\n4 0 obj\n<</Length 34>>stream\nBT /F 20 Tf 10 10 Td (Text) Tj ET\n\
      endstream\nendobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
        .to_vec()
}

/// Files that are small and would be large.
fn bombs() -> Vec<(&'static str, Vec<u8>)> {
    let header = |width: u32, height: u32| {
        let mut chunk = b"IHDR".to_vec();
        chunk.extend(width.to_be_bytes());
        chunk.extend(height.to_be_bytes());
        chunk.extend([8, 2, 0, 0, 0]);
        chunk
    };
    let png = |width, height, data: &[u8]| {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for chunk in [header(width, height), [b"IDAT", data].concat(), b"IEND".to_vec()] {
            file.extend((chunk.len() as u32 - 4).to_be_bytes());
            file.extend(&chunk);
            file.extend(crc(&chunk).to_be_bytes());
        }
        file
    };
    // A stored block of zlib without an end, and the same claimed as 9,000 x 9,000 pixels.
    let stream = [0x78, 0x9c, 0xed, 0xc1, 0x01, 0x01, 0, 0, 0, 0x80, 0x90];
    let gif =
        [b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;".as_slice()]
            .concat();
    let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 24, 0]);
    bmp.resize(54, 0);
    let jpeg = b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xda\0\x0c\x03\x01\0\x02\x11\x03\x11\0\x3f\0\0\xff\xd9";
    let mut wav = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(0xffff_ffffu32.to_le_bytes());
    wav.extend(b"\xff\xff\xff\xff\x02\0\x10\0data\xff\xff\xff\xff\0\0\0\0");
    let repeated = |text: &str, times: usize| text.repeat(times);
    let deep = format!("%PDF-1.4\n1 0 obj\n{}", repeated("[", 200_000)).into_bytes();
    let kids = format!(
        "%PDF-1.4\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n2 0 obj\n<</Type/Pages/Kids[{}]/Count 99999999>>\n\
         endobj\ntrailer<</Root 1 0 R>>\n",
        repeated("2 0 R ", 5_000)
    );
    vec![
        ("huge.png", png(60_000, 60_000, &stream)),
        ("large.png", png(9_000, 9_000, &stream)),
        ("huge.gif", gif),
        ("huge.bmp", bmp),
        ("huge.jpg", jpeg.to_vec()),
        ("huge.wav", wav),
        ("huge.pnm", b"P6\n65535 65535\n65535\n\0".to_vec()),
        ("huge.qoi", b"qoif\0\0\xff\xff\0\0\xff\xff\x03\0\0\0\0\0\0\0\0\x01".to_vec()),
        ("huge.jxl", b"\xff\x0a\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec()),
        ("huge.psd", [&support::photoshop(1, 1, [0; 3])[..14], b"\0\0\x75\x30\0\0\x75\x30\0\x08\0\x03"].concat()),
        (
            "huge.svg",
            b"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1e30 1e30'><path d='M0 0L9 9'/></svg>".to_vec(),
        ),
        ("uses.svg", many_uses().into_bytes()),
        ("entities.svg", many_entities().into_bytes()),
        ("deep.svg", format!("<svg xmlns='http://www.w3.org/2000/svg'>{}", repeated("<g>", 200_000)).into_bytes()),
        ("deep.pdf", deep),
        ("round.pdf", kids.into_bytes()),
        ("zero", Vec::new()),
        ("zeros", vec![0; 5000]),
    ]
}

/// Ten times as many rectangles at each of twelve levels.
fn many_uses() -> String {
    let level = |n: u32| format!("<g id='a{}'>{}</g>", n + 1, format!("<use href='#a{n}'/>").repeat(10));
    let levels: String = (0..12).map(level).collect();
    let first = "<rect id='a0' width='1' height='1'/>";
    format!("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'>{first}{levels}<use href='#a12'/></svg>")
}

/// The same by entities.
fn many_entities() -> String {
    let level = |n: u32| format!("<!ENTITY e{} '{}'>", n + 1, format!("&e{n};").repeat(10));
    let levels: String = (0..9).map(level).collect();
    format!("<!DOCTYPE svg [<!ENTITY e0 '<g/>'>{levels}]><svg xmlns='http://www.w3.org/2000/svg'>&e9;</svg>")
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)));
    !bytes.iter().fold(!0, step)
}

/// One damaged file of `from`, and how it was damaged.
fn damaged(random: &mut Rng, from: &[(&'static str, Vec<u8>)]) -> (String, Vec<u8>) {
    let (name, original) = &from[random.usize(..from.len())];
    let mut bytes = original.clone();
    let how = match random.u8(..8) {
        0 => {
            bytes.truncate(random.usize(..bytes.len()));
            "cut"
        }
        1 | 2 => {
            for _ in 0..random.usize(1..20) {
                let at = random.usize(..bytes.len());
                bytes[at] ^= 1 << random.u8(..8);
            }
            "flipped"
        }
        3 => {
            // The beginning is where sizes and counts are.
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..bytes.len().min(200));
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)];
            }
            "head"
        }
        4 => {
            let (_, other) = &from[random.usize(..from.len())];
            let (start, end) = (random.usize(..other.len()), random.usize(..other.len()));
            let at = random.usize(..bytes.len());
            bytes.splice(at..at, other[start.min(end)..start.max(end)].iter().copied().take(20_000));
            "spliced"
        }
        5 => {
            let (start, end) = (random.usize(..bytes.len()), random.usize(..bytes.len()));
            bytes.drain(start.min(end)..start.max(end));
            "hole"
        }
        6 => {
            // The first bytes of one kind on the rest of another.
            let (_, other) = &from[random.usize(..from.len())];
            let head = random.usize(4..64).min(other.len()).min(bytes.len());
            bytes[..head].copy_from_slice(&other[..head]);
            "mislabelled"
        }
        _ => {
            let head = random.usize(4..64).min(bytes.len());
            let noise = random.usize(..4000);
            bytes.truncate(head);
            bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(noise));
            "noise"
        }
    };
    (format!("{name}, {how}"), bytes)
}

/// A look and a decoding. The error is the file's.
async fn decode(decoder: &Decoder, source: &Source) -> Result<Family, Error> {
    let family = decoder.probe(source).await?.family;
    let kind = source.kind().await?;
    match family {
        Family::Image => {
            let pixels = ImageOutput::pixels(Resize::Cover { width: 224, height: 224 }, Filter::Bicubic);
            let outputs = vec![ImageOutput::thumbnail(), pixels];
            decoder.image(source, &ImageRequest { outputs }).await?;
        }
        Family::Pdf => {
            let rendering = Rendering { dpi: 40.0, outputs: vec![ImageOutput::thumbnail()] };
            let request = PdfRequest { rendering: Some(rendering), last_page: 3, ..PdfRequest::text() };
            decoder.pdf(source).await?;
            let mut pages = decoder.pdf_pages(source, &request).await?;
            while pages.next().await?.is_some() {}
        }
        Family::Audio => {
            let request = AudioRequest { sample_rate: 16_000, start_ms: 0, max_duration_ms: 10_000 };
            let mut sound = decoder.audio(source, request).await?;
            while sound.next().await?.is_some() {}
        }
        Family::Video => {
            let sampling =
                FrameSampling::Rate { frames_per_second: 5.0, start_ms: 0, end_ms: Some(10_000), max_frames: 50 };
            let size = Resize::Fit { width: 224, height: 224 };
            let mut frames = decoder.frames(source, &FrameRequest { sampling, size, filter: Filter::Bilinear }).await?;
            while frames.next().await?.is_some() {}
        }
        Family::Text | Family::Archive | Family::Unknown => {
            return Err(Error::invalid("file", format!("{} is not decoded", kind.media_type())));
        }
    }
    Ok(family)
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |value| value.parse().unwrap())
}

/// Runs all of `files` through a decoder, a few beside each other, and gives how many ended how.
async fn all(decoder: &Decoder, files: Vec<(String, Source)>, seed: u64) -> BTreeMap<String, u32> {
    let files = Arc::new(parking_lot::Mutex::new(files));
    let told = Arc::new(parking_lot::Mutex::new(BTreeMap::new()));
    let tasks: Vec<_> = (0..3)
        .map(|_| {
            let (decoder, files, told) = (decoder.clone(), Arc::clone(&files), Arc::clone(&told));
            tokio::spawn(async move {
                loop {
                    let Some((name, source)) = files.lock().pop() else { return };
                    let started = Instant::now();
                    let result = tokio::time::timeout(DEADLINE, decode(&decoder, &source)).await;
                    let result = result.unwrap_or_else(|_| panic!("seed {seed}: {name} does not end"));
                    let outcome = match result {
                        Ok(family) => format!("decoded as {family:?}"),
                        Err(Error::Invalid(wrong)) => {
                            assert!(wrong[0].message.len() > 8, "seed {seed}: {name}: no reason: {wrong:?}");
                            "refused".to_owned()
                        }
                        Err(Error::TooLarge(reason)) => format!("too large: {reason}"),
                        Err(other) => panic!("seed {seed}: {name}: not the file's fault: {other:?}"),
                    };
                    let long = started.elapsed() > Duration::from_secs(5);
                    let outcome =
                        if long { format!("{outcome} ({name}, after {:?})", started.elapsed()) } else { outcome };
                    *told.lock().entry(outcome).or_default() += 1;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    Arc::try_unwrap(told).unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_fail_alone_with_a_reason() {
    let seed = number("STRATA_SEED", fastrand::u64(..));
    let count = number("STRATA_DAMAGED_FILES", 2000);
    println!("seed {seed}: repeat with STRATA_SEED={seed} STRATA_DAMAGED_FILES={count}");
    let folder = tempfile::tempdir().unwrap();
    let originals = originals(folder.path());
    let decoder = Decoder::new(Config { worker_timeout: Duration::from_secs(10), ..config() });
    let whole = originals.iter().map(|(name, bytes)| ((*name).to_owned(), support::bytes(bytes.clone()))).collect();
    println!("undamaged: {:#?}", all(&decoder, whole, seed).await);
    let mut random = Rng::with_seed(seed);
    let mut on_disk = Vec::new();
    let mut write = |name: String, bytes: Vec<u8>| {
        let path = folder.path().join(on_disk.len().to_string());
        std::fs::write(&path, bytes).unwrap();
        on_disk.push((format!("file {}: {name}", on_disk.len()), Source::Path(path)));
    };
    bombs().into_iter().for_each(|(name, bytes)| write(name.to_owned(), bytes));
    for _ in 0..count {
        let (name, bytes) = damaged(&mut random, &originals);
        write(name, bytes);
    }
    let before = resident_bytes();
    let started = Instant::now();
    let told = all(&decoder, on_disk, seed).await;
    println!("{count} damaged files in {:?}: {told:#?}", started.elapsed());
    let grown = resident_bytes().saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown < MAX_GROWTH_BYTES, "seed {seed}: this process grew by {grown} bytes");
    assert!(told.get("refused").is_some_and(|refused| *refused > 20), "seed {seed}: damage is noticed: {told:?}");
    // After all of that whole files are decoded as before.
    let photo = support::source("opencv-doc/fruits.jpg");
    assert_eq!(decode(&decoder, &photo).await.unwrap(), Family::Image, "seed {seed}");
}

/// The encodings that libjxl is tested with: whatever they are, they do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_encodings_do_no_harm() {
    let mut files = Vec::new();
    let mut folders = vec![file("libjxl-testdata")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.display().to_string(), Source::Path(path)));
            }
        }
    }
    let count = files.len() as u32;
    assert!(count > 200, "{count}");
    // One of 128 bytes would be decoded for minutes.
    let decoder = Decoder::new(Config { worker_timeout: Duration::from_secs(10), ..config() });
    let told = all(&decoder, files, 0).await;
    println!("{told:#?}");
    assert_eq!(told.values().sum::<u32>(), count);
    assert!(told["decoded as Image"] > 100, "{told:?}");
}
