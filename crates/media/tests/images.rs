//! Images: real ones, turned ones, and those that must be refused.

#![allow(clippy::unwrap_used)]

mod support;

use image::{ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage};
use std::{io::Cursor, time::Duration};
use strata_media::{
    Config, Crop, Decoder, Encoding, Family, Filter, ImageOutput, ImageRequest, MediaKind, Resize, Source,
};
use strata_model::Error;
use support::{bytes, config, decoder, file, source};

fn request(outputs: &[ImageOutput]) -> ImageRequest {
    ImageRequest { outputs: outputs.to_vec() }
}

fn encoded(image: &RgbImage, format: image::ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// Four quarters: red, green, blue, white.
fn quarters() -> RgbImage {
    RgbImage::from_fn(64, 32, |x, y| match (x < 32, y < 16) {
        (true, true) => Rgb([255, 0, 0]),
        (false, true) => Rgb([0, 255, 0]),
        (true, false) => Rgb([0, 0, 255]),
        (false, false) => Rgb([255, 255, 255]),
    })
}

/// A JPEG with an EXIF orientation.
fn turned(orientation: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 95);
    let exif = [b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(), &[orientation, 0, 0, 0, 0, 0, 0, 0]];
    encoder.set_exif_metadata(exif.concat()).unwrap();
    encoder.write_image(&quarters(), 64, 32, image::ExtendedColorType::Rgb8).unwrap();
    file
}

#[tokio::test]
async fn one_decoding_makes_all_outputs() {
    let pixels = ImageOutput::pixels(Resize::Cover { width: 224, height: 224 }, Filter::Bicubic);
    let crop = ImageOutput {
        crop: Some(Crop { left: 10.0, top: 20.0, width: 100.0, height: 50.0 }),
        ..ImageOutput::original()
    };
    let photo = source("opencv-doc/fruits.jpg");
    let image = decoder().image(&photo, &request(&[ImageOutput::thumbnail(), pixels, crop])).await.unwrap();
    assert_eq!((image.width, image.height), (512, 480));
    let [thumbnail, pixels, crop] = &image.outputs[..] else { panic!("three outputs") };
    assert_eq!((thumbnail.width, thumbnail.height, thumbnail.encoding), (512, 480, Encoding::Jpeg(82)));
    let read = image::load_from_memory(&thumbnail.bytes).unwrap();
    assert_eq!((read.width(), read.height()), (512, 480));
    assert_eq!((pixels.width, pixels.height, pixels.bytes.len()), (224, 224, 224 * 224 * 3));
    assert_eq!((crop.width, crop.height, crop.bytes.len()), (100, 50, 15_000));
}

#[tokio::test]
async fn thumbnails_have_at_most_640_pixels_a_side() {
    let photo = source("libjxl-testdata/jxl/flower/flower.png.im_q85_420.jpg");
    let image = decoder().image(&photo, &request(&[ImageOutput::thumbnail()])).await.unwrap();
    assert_eq!((image.width, image.height), (2268, 1512));
    assert_eq!((image.outputs[0].width, image.outputs[0].height), (640, 427));
}

#[tokio::test]
async fn orientation_is_followed() {
    let decoder = decoder();
    let (red, green, blue, white) = ([255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]);
    // The corners as they are shown, from the upper left clockwise.
    let cases = [
        (1, (64, 32), [red, green, white, blue]),
        (2, (64, 32), [green, red, blue, white]),
        (3, (64, 32), [white, blue, red, green]),
        (4, (64, 32), [blue, white, green, red]),
        (5, (32, 64), [red, blue, white, green]),
        (6, (32, 64), [blue, red, green, white]),
        (7, (32, 64), [white, green, red, blue]),
        (8, (32, 64), [green, white, blue, red]),
    ];
    for (orientation, (width, height), corners) in cases {
        let file = bytes(turned(orientation));
        let image = decoder.image(&file, &request(&[ImageOutput::original()])).await.unwrap();
        assert_eq!((image.width, image.height), (width, height), "orientation {orientation}");
        let pixels = &image.outputs[0].bytes;
        let at = |x: u32, y: u32| ((y * width + x) * 3) as usize;
        let places = [at(2, 2), at(width - 3, 2), at(width - 3, height - 3), at(2, height - 3)];
        for (place, color) in places.into_iter().zip(corners) {
            let near = pixels[place..place + 3].iter().zip(color).all(|(a, b)| a.abs_diff(b) < 40);
            assert!(near, "orientation {orientation}: {:?} is not {color:?}", &pixels[place..place + 3]);
        }
        let probe = decoder.probe(&file).await.unwrap();
        assert_eq!((probe.width, probe.height), (Some(width), Some(height)), "orientation {orientation}");
    }
}

#[tokio::test]
async fn every_format_is_decoded() {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Qoi, Tiff, WebP};
    let decoder = decoder();
    for format in [Bmp, Gif, Jpeg, Png, Pnm, Qoi, Tiff, WebP] {
        let file = bytes(encoded(&quarters(), format));
        let image = decoder.image(&file, &request(&[ImageOutput::original()])).await.unwrap();
        assert_eq!((image.width, image.height), (64, 32), "{format:?}");
        assert!(image.outputs[0].bytes[0] > 240 && image.outputs[0].bytes[1] < 20, "{format:?}");
        let probe = decoder.probe(&file).await.unwrap();
        assert_eq!((probe.family, probe.width, probe.frame_count), (Family::Image, Some(64), Some(1)), "{format:?}");
    }
}

#[tokio::test]
async fn what_is_transparent_lies_on_white() {
    let clear = RgbaImage::from_pixel(2, 1, Rgba([0, 0, 0, 0]));
    let mut file = Cursor::new(Vec::new());
    clear.write_to(&mut file, image::ImageFormat::Png).unwrap();
    let image = decoder().image(&bytes(file.into_inner()), &request(&[ImageOutput::original()])).await.unwrap();
    assert_eq!(image.outputs[0].bytes, [255; 6]);
}

#[tokio::test]
async fn animations_are_counted() {
    let probe = decoder().probe(&source("scikit-image/no_time_for_that_tiny.gif")).await.unwrap();
    assert_eq!((probe.kind, probe.frame_count), (MediaKind::Gif, Some(24)));
    assert!(probe.duration_ms.unwrap() > 500, "{probe:?}");
}

async fn refused(decoder: &Decoder, file: &Source) -> Error {
    let image = decoder.image(file, &request(&[ImageOutput::thumbnail()])).await;
    image.expect_err("it is refused")
}

#[tokio::test]
async fn what_is_no_image_is_refused_with_a_reason() {
    let decoder = decoder();
    let whole = encoded(&quarters(), image::ImageFormat::Png);
    let jpeg = std::fs::read(file("opencv-doc/fruits.jpg")).unwrap();
    let cases = [
        (bytes(vec![]), "empty"),
        (bytes(b"hello".to_vec()), "text/plain"),
        (bytes(whole[..whole.len() / 2].to_vec()), "cannot be decoded"),
        (bytes(jpeg[..jpeg.len() / 2].to_vec()), "cut off"),
        (source("pdf/R-intro.pdf"), "application/pdf"),
        (source("opencv-doc/vtest.avi"), "video/x-msvideo"),
    ];
    for (file, reason) in cases {
        let error = refused(&decoder, &file).await;
        assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(reason), "{error} is not {reason}");
    }
    // The worker is as good as before.
    decoder.image(&source("opencv-doc/fruits.jpg"), &request(&[ImageOutput::thumbnail()])).await.unwrap();
}

#[tokio::test]
async fn too_many_pixels_are_refused_before_they_are_decoded() {
    // A PNG header that claims 60,000 x 60,000 pixels, with a right check sum.
    let mut file = encoded(&quarters(), image::ImageFormat::Png);
    file[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    file[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let check = crc(&file[12..29]);
    file[29..33].copy_from_slice(&check.to_be_bytes());
    let error = refused(&decoder(), &bytes(file)).await;
    assert!(matches!(&error, Error::TooLarge(reason) if reason.contains("60000 x 60000")), "{error}");
}

fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)));
    !bytes.iter().fold(!0, step)
}

#[tokio::test]
async fn a_worker_without_memory_or_time_is_the_files_fault_and_replaced() {
    let photo = source("libjxl-testdata/jxl/flower/flower.png");
    let large = [ImageOutput::pixels(Resize::Exact { width: 8000, height: 8000 }, Filter::Lanczos3); 4];
    let decoder = Decoder::new(Config { worker_memory_bytes: 128 << 20, ..config() });
    let small = source("opencv-doc/LinuxLogo.jpg");
    for _ in 0..2 {
        let error = decoder.image(&photo, &request(&large)).await.unwrap_err();
        assert!(matches!(&error, Error::TooLarge(reason) if reason.contains("memory")), "{error}");
        decoder.image(&small, &request(&[ImageOutput::thumbnail()])).await.unwrap();
    }
    let decoder = Decoder::new(Config { worker_timeout: Duration::from_millis(40), workers: 1, ..config() });
    decoder.image(&small, &request(&[ImageOutput::thumbnail()])).await.unwrap();
    let error = decoder.image(&photo, &request(&large)).await.unwrap_err();
    assert!(matches!(&error, Error::TooLarge(reason) if reason.contains("stopped after")), "{error}");
    decoder.image(&small, &request(&[ImageOutput::thumbnail()])).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_ours() {
    let decoder = Decoder::new(Config { program: "/bin/false".into(), ..config() });
    let error = refused(&decoder, &source("opencv-doc/fruits.jpg")).await;
    assert!(matches!(&error, Error::Internal(reason) if reason.contains("does not start")), "{error}");
}
