//! Stills that `ffmpeg` decodes: made by it, small ones of other programs, and those that must be refused or do no harm.

#![allow(clippy::unwrap_used)]

mod support;

use image::{Rgb, RgbImage};
use std::{io::Read, net::TcpListener, path::Path, time::Duration};
use strata_media::{
    Config, Decoder, Encoding, Family, Filter, ImageOutput, ImageRequest, MediaKind, Picture, Resize, Source, Tools,
};
use strata_model::Error;
use support::{bytes, config, decoder, file, made, source};

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255, 255, 255];

fn kept(name: &str) -> Source {
    Source::Path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name))
}

fn svg(text: &str) -> Source {
    bytes(text.as_bytes().to_vec())
}

async fn whole(decoder: &Decoder, source: &Source) -> Result<Picture, Error> {
    let mut image = decoder.image(source, &ImageRequest { outputs: vec![ImageOutput::original()] }).await?;
    let picture = image.outputs.pop().unwrap();
    assert_eq!((image.width, image.height), (picture.width, picture.height));
    Ok(picture)
}

/// Four quarters as the file of `images.rs` has them: red, green, blue, white.
fn quarters(folder: &Path) -> String {
    let path = folder.join("quarters.png");
    RgbImage::from_fn(64, 32, |x, y| match (x < 32, y < 16) {
        (true, true) => Rgb(RED),
        (false, true) => Rgb(GREEN),
        (true, false) => Rgb(BLUE),
        (false, false) => Rgb(WHITE),
    })
    .save(&path)
    .unwrap();
    path.to_str().unwrap().to_owned()
}

fn at(picture: &Picture, x: u32, y: u32) -> [u8; 3] {
    let place = ((y * picture.width + x) * 3) as usize;
    [picture.bytes[place], picture.bytes[place + 1], picture.bytes[place + 2]]
}

/// The corners, from the upper left clockwise.
fn assert_corners(picture: &Picture, corners: [[u8; 3]; 4], what: &str) {
    let (right, bottom) = (picture.width - 3, picture.height - 3);
    for ((x, y), color) in [(2, 2), (right, 2), (right, bottom), (2, bottom)].into_iter().zip(corners) {
        let found = at(picture, x, y);
        let is_near = found.iter().zip(color).all(|(a, b)| a.abs_diff(b) < 40);
        assert!(is_near, "{what}: {found:?} at {x}, {y} is not {color:?}");
    }
}

#[tokio::test]
async fn stills_of_each_kind_are_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let from = quarters(folder.path());
    let make = |name: &str, codec: &[&str]| {
        Source::Path(made(folder.path(), name, &[&["-i", from.as_str(), "-frames:v", "1"], codec].concat()))
    };
    let cases = [
        (make("a.jxl", &["-c:v", "libjxl"]), MediaKind::JpegXl),
        (make("a.avif", &["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1"]), MediaKind::Avif),
        (make("a.jp2", &["-c:v", "libopenjpeg"]), MediaKind::Jp2),
        (make("a.j2k", &["-c:v", "jpeg2000", "-format", "j2k", "-f", "image2"]), MediaKind::Jp2),
        (kept("turned_1.heic"), MediaKind::Heif),
    ];
    for (still, kind) in cases {
        let probe = decoder.probe(&still).await.unwrap();
        assert_eq!((probe.kind, probe.family, probe.frame_count), (kind, Family::Image, Some(1)));
        assert_eq!((probe.width, probe.height), (Some(64), Some(32)), "{kind:?}");
        let picture = whole(&decoder, &still).await.unwrap();
        assert_eq!((picture.width, picture.height), (64, 32), "{kind:?}");
        assert_corners(&picture, [RED, GREEN, WHITE, BLUE], kind.media_type());
        // The same of bytes without a path, and all that is made of pictures.
        let Source::Path(path) = &still else { panic!("a path") };
        let thumbnail = ImageRequest { outputs: vec![ImageOutput::thumbnail(); 2] };
        let image = decoder.image(&bytes(std::fs::read(path).unwrap()), &thumbnail).await.unwrap();
        assert_eq!((image.outputs.len(), image.outputs[0].encoding), (2, Encoding::Jpeg(82)), "{kind:?}");
        let read = image::load_from_memory(&image.outputs[1].bytes).unwrap();
        assert_eq!((read.width(), read.height()), (64, 32), "{kind:?}");
    }
    let document = bytes(support::photoshop(20, 10, [200, 100, 50]));
    assert_eq!(decoder.probe(&document).await.unwrap().kind, MediaKind::Psd);
    let picture = whole(&decoder, &document).await.unwrap();
    assert_eq!((picture.width, picture.height, at(&picture, 19, 9)), (20, 10, [200, 100, 50]));
}

#[tokio::test]
async fn a_photo_looks_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let original = file("opencv-doc/fruits.jpg");
    let before = whole(&decoder, &Source::Path(original.clone())).await.unwrap();
    let cases: [(&str, &[&str]); 3] = [
        ("a.jxl", &["-c:v", "libjxl", "-distance", "0.5"]),
        ("a.avif", &["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1", "-crf", "12"]),
        ("a.jp2", &["-c:v", "libopenjpeg"]),
    ];
    for (name, codec) in cases {
        let arguments = [&["-i", original.to_str().unwrap(), "-frames:v", "1"], codec].concat();
        let after = whole(&decoder, &Source::Path(made(folder.path(), name, &arguments))).await.unwrap();
        assert_eq!((after.width, after.height), (before.width, before.height), "{name}");
        let apart: u64 = after.bytes.iter().zip(&before.bytes).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        let apart = apart as f64 / before.bytes.len() as f64;
        println!("{name}: {apart:.2} of 255 apart");
        assert!(apart < 4.0, "{name}: {apart}");
    }
}

#[tokio::test]
async fn orientation_is_followed() {
    let decoder = decoder();
    // As EXIF numbers them; the files say it in their own way.
    let cases = [
        (1, (64, 32), [RED, GREEN, WHITE, BLUE]),
        (2, (64, 32), [GREEN, RED, BLUE, WHITE]),
        (3, (64, 32), [WHITE, BLUE, RED, GREEN]),
        (4, (64, 32), [BLUE, WHITE, GREEN, RED]),
        (5, (32, 64), [RED, BLUE, WHITE, GREEN]),
        (6, (32, 64), [BLUE, RED, GREEN, WHITE]),
        (7, (32, 64), [WHITE, GREEN, RED, BLUE]),
        (8, (32, 64), [GREEN, WHITE, BLUE, RED]),
    ];
    for (orientation, size, corners) in cases {
        let name = format!("turned_{orientation}.heic");
        let picture = whole(&decoder, &kept(&name)).await.unwrap();
        assert_eq!((picture.width, picture.height), size, "{name}");
        assert_corners(&picture, corners, &name);
        let probe = decoder.probe(&kept(&name)).await.unwrap();
        assert_eq!((probe.width, probe.height), (Some(size.0), Some(size.1)), "{name}");
    }
}

#[tokio::test]
async fn tiles_are_put_together_and_the_primary_picture_is_taken() {
    let decoder = decoder();
    let tiles = whole(&decoder, &kept("tiles.heic")).await.unwrap();
    assert_eq!((tiles.width, tiles.height), (160, 96));
    assert_corners(&tiles, [RED, GREEN, WHITE, BLUE], "tiles");
    let primary = whole(&decoder, &kept("second_is_primary.heic")).await.unwrap();
    assert_eq!((primary.width, primary.height), (64, 64));
    assert_corners(&primary, [BLUE; 4], "the primary picture");
}

#[tokio::test]
async fn what_is_transparent_lies_on_white() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let clear = folder.path().join("clear.png");
    let half = image::RgbaImage::from_fn(64, 32, |x, _| image::Rgba([255, 0, 0, if x < 32 { 255 } else { 0 }]));
    half.save(&clear).unwrap();
    let make = |name: &str, codec: &str| {
        let arguments = ["-i", clear.to_str().unwrap(), "-c:v", codec];
        Source::Path(made(folder.path(), name, &arguments))
    };
    let shape = "<svg xmlns='http://www.w3.org/2000/svg' width='64' height='32'><rect width='32' height='32' fill='red'/></svg>";
    let cases = [kept("transparent.heic"), make("a.jxl", "libjxl"), make("a.jp2", "libopenjpeg"), svg(shape)];
    for (number, still) in cases.iter().enumerate() {
        let picture = whole(&decoder, still).await.unwrap();
        assert_corners(&picture, [RED, WHITE, WHITE, RED], &number.to_string());
    }
}

/// Of the encodings that libjxl is tested with, those that are plain pictures.
#[tokio::test]
async fn pictures_of_others_are_decoded() {
    let decoder = decoder();
    let cases = [("splines", (320, 320)), ("spline_on_first_frame", (32, 32)), ("pq_gradient", (1088, 64))];
    for (name, size) in cases {
        let picture = whole(&decoder, &source(&format!("libjxl-testdata/jxl/{name}.jxl"))).await.unwrap();
        assert_eq!((picture.width, picture.height), size, "{name}");
    }
}

#[tokio::test]
async fn what_is_cut_off_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let photo = file("opencv-doc/fruits.jpg");
    let make = |name: &str, codec: &[&str]| {
        let arguments = [&["-i", photo.to_str().unwrap(), "-frames:v", "1"], codec].concat();
        std::fs::read(made(folder.path(), name, &arguments)).unwrap()
    };
    let files = [
        make("a.jxl", &["-c:v", "libjxl"]),
        make("a.avif", &["-c:v", "libaom-av1", "-cpu-used", "8", "-still-picture", "1"]),
        make("a.jp2", &["-c:v", "libopenjpeg"]),
        include_bytes!("files/tiles.heic").to_vec(),
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>".to_vec(),
        support::photoshop(64, 32, [1, 2, 3]),
    ];
    for whole_file in files {
        for share in [30, 60, 95] {
            let cut = bytes(whole_file[..whole_file.len() * share / 100].to_vec());
            let Ok(kind) = cut.kind().await else { panic!("it has a beginning") };
            let error = whole(&decoder, &cut).await.unwrap_err();
            println!("{share} % of {}: {error}", kind.media_type());
            assert!(matches!(error, Error::Invalid(_)), "{share} % of {}: {error:?}", kind.media_type());
        }
    }
    whole(&decoder, &kept("turned_1.heic")).await.unwrap();
}

#[tokio::test]
async fn too_many_pixels_are_refused_before_they_are_decoded() {
    let decoder = Decoder::new(Config { max_pixels: 64 * 32 - 1, ..config() });
    for name in ["turned_1.heic", "transparent.heic", "tiles.heic"] {
        let error = whole(&decoder, &kept(name)).await.unwrap_err();
        assert!(matches!(&error, Error::TooLarge(reason) if reason.contains("pixels")), "{name}: {error}");
        let error = decoder.probe(&kept(name)).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{name}: {error}");
    }
    let error = whole(&decoder, &source("libjxl-testdata/jxl/splines.jxl")).await.unwrap_err();
    assert!(matches!(&error, Error::TooLarge(reason) if reason.contains("320 x 320")), "{error}");
}

/// A HEIC that says it is small and holds a larger picture is decoded within the limit on pixels, or not at all.
#[tokio::test]
async fn a_size_that_is_a_lie_does_not_get_around_the_limit() {
    let mut lie = include_bytes!("files/second_is_primary.heic").to_vec();
    let place = lie.windows(4).rposition(|window| window == b"ispe").unwrap() + 8;
    lie[place..place + 8].copy_from_slice(b"\0\0\0\x08\0\0\0\x08");
    let decoder = Decoder::new(Config { max_pixels: 4000, ..config() });
    let error = whole(&decoder, &bytes(lie)).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(_) | Error::Invalid(_)), "{error}");
}

#[tokio::test]
async fn drawings_have_the_size_that_they_say() {
    let decoder = decoder();
    let drawn = |attributes: &str| {
        let shapes = "<rect width='32' height='32' fill='red'/><rect x='32' width='32' height='32' fill='lime'/>";
        svg(&format!(
            "<?xml version='1.0'?>\n<!-- made by hand -->\n<svg xmlns='http://www.w3.org/2000/svg' {attributes}>{shapes}</svg>"
        ))
    };
    let cases = [
        ("width='64' height='32'", (64, 32)),
        ("viewBox='0 0 64 32'", (64, 32)),
        ("viewBox='0 0 64 32' width='100%'", (64, 32)),
        ("viewBox='0 0 64 32' width='640'", (640, 320)),
    ];
    for (attributes, size) in cases {
        let picture = whole(&decoder, &drawn(attributes)).await.unwrap();
        assert_eq!((picture.width, picture.height), size, "{attributes}");
        assert_corners(&picture, [RED, GREEN, GREEN, RED], attributes);
    }
    let huge = decoder.probe(&drawn("viewBox='0 0 1e9 5e8'")).await.unwrap();
    assert_eq!((huge.kind, huge.width, huge.height), (MediaKind::Svg, Some(4096), Some(2048)));
    let pixels = ImageOutput::pixels(Resize::Cover { width: 224, height: 224 }, Filter::Hamming);
    let image = decoder.image(&drawn("viewBox='0 0 1e9 5e8'"), &ImageRequest { outputs: vec![pixels] }).await.unwrap();
    assert_eq!(image.outputs[0].bytes.len(), 224 * 224 * 3);
}

/// A drawing can name files and addresses in many ways. What lies there is in no picture, and nobody is asked for it.
#[tokio::test]
async fn drawings_open_no_files_and_no_connections() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = decoder();
    let secret = folder.path().join("secret.png");
    RgbImage::from_pixel(64, 32, Rgb(RED)).save(&secret).unwrap();
    let secret_drawing = folder.path().join("secret.svg");
    std::fs::write(
        &secret_drawing,
        "<svg xmlns='http://www.w3.org/2000/svg' width='64' height='32'><rect id='a' width='64' height='32' fill='red'/></svg>",
    )
    .unwrap();
    std::fs::write(folder.path().join("secret.css"), "rect { fill: red }").unwrap();
    std::fs::write(folder.path().join("secret.txt"), "<rect width='64' height='32' fill='red'/>").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let path = folder.path().to_str().unwrap();
    let open = "xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' width='64' height='32'";
    let inner = format!("<svg {open}><image href='file://{path}/secret.png' width='64' height='32'/></svg>");
    let inner: String = inner.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let blue = "<rect width='64' height='32' fill='blue'/>";
    let mut drawings = vec![
        format!("<?xml-stylesheet href='file://{path}/secret.css' type='text/css'?><svg {open}>{blue}</svg>"),
        format!("<svg {open}><style>@import url('file://{path}/secret.css');</style>{blue}</svg>"),
        format!("<!DOCTYPE svg [<!ENTITY x SYSTEM 'file://{path}/secret.txt'>]><svg {open}>{blue}&x;</svg>"),
        format!("<!DOCTYPE svg SYSTEM '{address}/x.dtd'><svg {open}>{blue}</svg>"),
        format!("<!DOCTYPE svg [<!ENTITY % x SYSTEM '{address}/x.dtd'>%x;]><svg {open}>{blue}</svg>"),
        format!(
            "<svg {open} xmlns:xi='http://www.w3.org/2001/XInclude'>{blue}<xi:include href='file://{path}/secret.txt'/></svg>"
        ),
        format!("<svg {open}>{blue}<image href='data:image/svg+xml,{inner}' width='64' height='32'/></svg>"),
        format!("<svg {open}>{blue}<script href='{address}/x.js'/><script>while (true) {{}}</script></svg>"),
    ];
    for place in [format!("file://{path}"), path.to_owned(), address.clone(), ".".to_owned()] {
        drawings.push(format!("<svg {open}>{blue}<image href='{place}/secret.png' width='64' height='32'/></svg>"));
        drawings
            .push(format!("<svg {open}>{blue}<image xlink:href='{place}/secret.svg' width='64' height='32'/></svg>"));
        drawings.push(format!("<svg {open}>{blue}<use href='{place}/secret.svg#a'/></svg>"));
        drawings
            .push(format!("<svg {open}>{blue}<rect width='64' height='32' fill='url({place}/secret.svg#a)'/></svg>"));
    }
    for text in drawings {
        // Beside what it names, and as bytes.
        let beside = folder.path().join("drawing.svg");
        std::fs::write(&beside, &text).unwrap();
        for still in [Source::Path(beside), svg(&text)] {
            match whole(&decoder, &still).await {
                Ok(picture) => {
                    let is_red = picture.bytes.chunks(3).any(|pixel| pixel[0] > 200 && pixel[2] < 50);
                    assert!(!is_red, "what another file holds is seen: {text}");
                }
                Err(error) => assert!(matches!(error, Error::Invalid(_)), "{text}: {error}"),
            }
        }
    }
    let asked = listener.accept().map(|(mut stream, _)| {
        let mut said = [0; 200];
        let read = stream.read(&mut said).unwrap_or(0);
        String::from_utf8_lossy(&said[..read]).into_owned()
    });
    assert!(asked.is_err(), "a drawing made a connection: {asked:?}");
    // What is in the file itself is drawn.
    let own = format!("<!DOCTYPE svg [<!ENTITY own \"{blue}\">]><svg {open}>&own;</svg>");
    assert_corners(&whole(&decoder, &svg(&own)).await.unwrap(), [BLUE; 4], "an entity of its own");
}

#[tokio::test]
async fn drawings_that_take_too_much_are_stopped() {
    let decoder = Decoder::new(Config { worker_timeout: Duration::from_secs(3), ..config() });
    let filter = "<filter id='f'><feTurbulence numOctaves='100000' baseFrequency='1'/></filter>";
    let slow = svg(&format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='4000' height='4000'>{filter}<rect width='4000' height='4000' filter='url(#f)'/></svg>"
    ));
    let error = whole(&decoder, &slow).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge(_) | Error::Invalid(_)), "{error}");
    let drawing =
        svg("<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'><rect width='8' height='8'/></svg>");
    assert_eq!(at(&whole(&decoder, &drawing).await.unwrap(), 4, 4), [0, 0, 0]);
}

#[tokio::test]
async fn without_ffmpeg_sizes_are_known_and_pictures_are_not() {
    let decoder = Decoder::new(Config { tools: Tools { ffmpeg: None, ..support::tools() }, ..config() });
    let probe = decoder.probe(&kept("turned_6.heic")).await.unwrap();
    assert_eq!((probe.width, probe.height), (Some(32), Some(64)));
    let error = whole(&decoder, &kept("turned_6.heic")).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(m) if m.contains("strata models pull media_tools")), "{error}");
}
