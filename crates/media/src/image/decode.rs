//! Decoding images, in a worker. Sizes are checked before anything is decoded; the decoders are told the memory that they
//! may take, and the process has a limit besides.

use crate::{
    detect::MediaKind,
    fault::Failure,
    image::{DecodedImage, ImageRequest, animation, still},
    limits::{MAX_IMAGE_ALLOCATION_BYTES, MAX_OUTPUTS, MAX_SIDE},
    picture::{self, Encoding, Picture},
    probe::Probe,
};
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, error::LimitErrorKind,
    metadata::Orientation,
};
use std::io::Cursor;

/// Decodes the first frame of `file`, turns it as its EXIF says, lays what is transparent on white, and makes the outputs.
pub(crate) fn decode(
    file: &[u8],
    kind: MediaKind,
    request: &ImageRequest,
    max_pixels: u64,
) -> Result<DecodedImage, Failure> {
    check_request(request)?;
    let mut decoder = open(file, kind, max_pixels)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| failure(kind, error))?;
    image.apply_orientation(orientation);
    make(&on_white(image), request)
}

/// The same of pixels that `ffmpeg` made of a still: RGBA of eight bits, row by row from the top.
pub(crate) fn of_pixels(
    rgba: Vec<u8>,
    width: u32,
    height: u32,
    request: &ImageRequest,
) -> Result<DecodedImage, Failure> {
    check_request(request)?;
    let expected = u64::from(width) * u64::from(height) * 4;
    if rgba.len() as u64 != expected {
        let message = format!("its decoder gave {} bytes of pixels and not {expected}", rgba.len());
        return Err(Failure::file(message));
    }
    let pixels = Picture { width, height, encoding: Encoding::Rgb8, bytes: laid_on_white(rgba) };
    make(&pixels, request)
}

fn check_request(request: &ImageRequest) -> Result<(), Failure> {
    if request.outputs.is_empty() || request.outputs.len() > MAX_OUTPUTS {
        return Err(Failure::ours(format!("one to {MAX_OUTPUTS} outputs can be made of an image")));
    }
    Ok(())
}

fn make(pixels: &Picture, request: &ImageRequest) -> Result<DecodedImage, Failure> {
    let outputs = request
        .outputs
        .iter()
        .map(|output| picture::convert(pixels, output.crop, output.size, output.filter, output.encoding))
        .collect::<Result<_, _>>()?;
    Ok(DecodedImage { width: pixels.width, height: pixels.height, outputs })
}

/// What an image says of itself, without its pixels.
pub(crate) fn probe(file: &[u8], kind: MediaKind, max_pixels: u64) -> Result<Probe, Failure> {
    if kind.still_demuxer().is_some() {
        let still = still::look(file, kind, max_pixels)?;
        let (width, height) = (Some(still.width), Some(still.height));
        // Of the few that move the first picture is taken.
        return Ok(Probe { width, height, frame_count: Some(1), ..Probe::of(kind) });
    }
    let mut decoder = open(file, kind, max_pixels)?;
    let (width, height) = decoder.dimensions();
    let turned = matches!(
        decoder.orientation().unwrap_or(Orientation::NoTransforms),
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    let (width, height) = if turned { (height, width) } else { (width, height) };
    let animation = animation::look(file, kind);
    let mut probe = Probe::of(kind);
    probe.width = Some(width);
    probe.height = Some(height);
    probe.frame_count = Some(animation.frames);
    if animation.frames > 1 && animation.duration_ms > 0 {
        probe.duration_ms = Some(animation.duration_ms);
        probe.frames_per_second = Some(f64::from(animation.frames) * 1000.0 / animation.duration_ms as f64);
    }
    Ok(probe)
}

fn open(file: &[u8], kind: MediaKind, max_pixels: u64) -> Result<impl ImageDecoder, Failure> {
    let format = format(kind)?;
    if kind == MediaKind::Jpeg && !jpeg_has_end(file) {
        return Err(Failure::file("the JPEG is cut off: its end is missing"));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_IMAGE_ALLOCATION_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| failure(kind, error))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, max_pixels)?;
    Ok(decoder)
}

/// Whether an image of this size may be decoded.
pub(crate) fn check_size(width: u32, height: u32, max_pixels: u64) -> Result<(), Failure> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > max_pixels {
        let message = format!("the image has {width} x {height} pixels; at most {max_pixels} are decoded");
        return Err(Failure::limit(message));
    }
    if pixels == 0 {
        return Err(Failure::file("the image has no pixels"));
    }
    if width.max(height) > MAX_SIDE {
        return Err(Failure::limit(format!("the image has more than {MAX_SIDE} pixels a side")));
    }
    Ok(())
}

fn format(kind: MediaKind) -> Result<ImageFormat, Failure> {
    Ok(match kind {
        MediaKind::Jpeg => ImageFormat::Jpeg,
        MediaKind::Png => ImageFormat::Png,
        MediaKind::Gif => ImageFormat::Gif,
        MediaKind::Webp => ImageFormat::WebP,
        MediaKind::Bmp => ImageFormat::Bmp,
        MediaKind::Tiff => ImageFormat::Tiff,
        MediaKind::Ico => ImageFormat::Ico,
        MediaKind::Pnm => ImageFormat::Pnm,
        MediaKind::Qoi => ImageFormat::Qoi,
        other => return Err(Failure::file(format!("`{}` is no image that is decoded", other.media_type()))),
    })
}

fn failure(kind: MediaKind, error: ImageError) -> Failure {
    match error {
        ImageError::Limits(limit) => Failure::limit(match limit.kind() {
            LimitErrorKind::DimensionError => format!("the image has more than {MAX_SIDE} pixels a side"),
            _ => "the image takes more memory than a decoder may have".to_owned(),
        }),
        other => Failure::file(format!("`{}` cannot be decoded: {other}", kind.media_type())),
    }
}

/// Whether the scans of a JPEG end with its end marker. What is cut off would otherwise become a picture whose lower part
/// is grey. Inside a scan `ff` is followed by `00` or a restart marker, so the end marker cannot be a part of it.
fn jpeg_has_end(file: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker]) = file.get(at..at + 2).and_then(|m| <&[u8; 2]>::try_from(m).ok()) {
        if marker == 0xff {
            at += 1;
            continue;
        }
        if marker == 0xda {
            return file[at..].windows(2).any(|w| w == [0xff, 0xd9]);
        }
        let Some(&[high, low]) = file.get(at + 2..at + 4).and_then(|l| <&[u8; 2]>::try_from(l).ok()) else {
            return false;
        };
        at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
    // Odd segments: what they are is the decoder's to say.
    at < file.len()
}

/// RGB of eight bits; what is transparent is laid on white.
fn on_white(image: DynamicImage) -> Picture {
    let (width, height) = (image.width(), image.height());
    let opaque = !matches!(
        image.color(),
        ColorType::La8 | ColorType::La16 | ColorType::Rgba8 | ColorType::Rgba16 | ColorType::Rgba32F
    );
    let bytes = if opaque { image.into_rgb8().into_raw() } else { laid_on_white(image.into_rgba8().into_raw()) };
    Picture { width, height, encoding: Encoding::Rgb8, bytes }
}

/// RGB of RGBA, in the same memory.
fn laid_on_white(mut bytes: Vec<u8>) -> Vec<u8> {
    let over = |value: u8, alpha: u32| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
    let pixels = bytes.len() / 4;
    for i in 0..pixels {
        let [r, g, b, a] = [bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]];
        let alpha = u32::from(a);
        bytes[3 * i] = over(r, alpha);
        bytes[3 * i + 1] = over(g, alpha);
        bytes[3 * i + 2] = over(b, alpha);
    }
    bytes.truncate(3 * pixels);
    bytes
}
