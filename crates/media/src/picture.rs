//! Pixels that are ours: RGB, eight bits a channel, and what is made of them. Nothing here parses bytes of others, so the
//! parent may call it for frames that it has been given.

use crate::{
    fault::Failure,
    limits::{MAX_OUTPUT_SIDE, THUMBNAIL_QUALITY, THUMBNAIL_SIDE},
};
use fast_image_resize::{self as resize, PixelType, ResizeAlg, ResizeOptions, Resizer, images::ImageRef};
use serde::{Deserialize, Serialize};
use strata_model::{Error, Result};

/// Pixels, or a file made of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub encoding: Encoding,
    /// For [`Encoding::Rgb8`] `width * height * 3` bytes, row by row from the top.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { width, height, encoding, bytes } = self;
        write!(to, "Picture({width} x {height}, {encoding:?}, {} bytes)", bytes.len())
    }
}

/// What the bytes of a picture are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Rgb8,
    /// A JPEG of a quality from 1 to 100.
    Jpeg(u8),
    Png,
}

/// A part of a picture in its pixels, from the upper left corner, after orientation. Parts beyond the edges are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Crop {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// The size that a picture gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// As it is.
    Original,
    /// Stretched to exactly this.
    Exact { width: u32, height: u32 },
    /// Scaled until this is covered, and what is over cut off on both sides alike.
    Cover { width: u32, height: u32 },
    /// Scaled down to fit into this, its proportions kept; a smaller one stays as it is.
    Fit { width: u32, height: u32 },
}

/// How new pixels are weighed. All of them widen when they scale down, as Pillow's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    Bilinear,
    /// Catmull-Rom, a = -0.5: Pillow's bicubic.
    Bicubic,
    Lanczos3,
    /// As sharp as a bicubic one, at half its cost. Frames of videos get a bicubic one instead.
    Hamming,
}

impl Picture {
    /// Pixels as they are. `bytes` must be `width * height * 3` long.
    pub fn rgb8(width: u32, height: u32, bytes: Vec<u8>) -> Result<Self> {
        if bytes.len() as u64 != u64::from(width) * u64::from(height) * 3 {
            return Err(Error::internal(format!("{} bytes are no picture of {width} x {height}", bytes.len())));
        }
        Ok(Self { width, height, encoding: Encoding::Rgb8, bytes })
    }

    /// The pixels scaled to `resize` with `filter` from the part `crop`, encoded. Takes some milliseconds a megapixel, so
    /// not on a thread that waits for others.
    pub fn converted(&self, crop: Option<Crop>, size: Resize, filter: Filter, encoding: Encoding) -> Result<Self> {
        Ok(convert(self, crop, size, filter, encoding)?)
    }

    /// A JPEG of at most 640 pixels a side.
    pub fn thumbnail(&self) -> Result<Self> {
        let size = Resize::Fit { width: THUMBNAIL_SIDE, height: THUMBNAIL_SIDE };
        self.converted(None, size, Filter::Bicubic, Encoding::Jpeg(THUMBNAIL_QUALITY))
    }
}

/// See [`Picture::converted`].
pub(crate) fn convert(
    picture: &Picture,
    crop: Option<Crop>,
    size: Resize,
    filter: Filter,
    encoding: Encoding,
) -> Result<Picture, Failure> {
    if picture.encoding != Encoding::Rgb8 {
        return Err(Failure::ours("only pixels can be converted"));
    }
    let part = part(picture, crop)?;
    let (part, width, height) = target(part, size)?;
    if width > MAX_OUTPUT_SIDE || height > MAX_OUTPUT_SIDE {
        let message = format!("an output of {width} x {height} pixels is larger than {MAX_OUTPUT_SIDE} a side");
        return Err(Failure::limit(message));
    }
    let whole = part.left == 0.0 && part.top == 0.0;
    let unchanged = whole && width == picture.width && height == picture.height && part.width == f64::from(width);
    let bytes = if unchanged { None } else { Some(resized(picture, part, width, height, filter)?) };
    let pixels = bytes.as_deref().unwrap_or(&picture.bytes);
    let bytes = match encoding {
        Encoding::Rgb8 => bytes.unwrap_or_else(|| picture.bytes.clone()),
        Encoding::Jpeg(quality) => jpeg(pixels, width, height, quality)?,
        Encoding::Png => png(pixels, width, height)?,
    };
    Ok(Picture { width, height, encoding, bytes })
}

/// The part that `crop` names, within the edges.
fn part(picture: &Picture, crop: Option<Crop>) -> Result<Crop, Failure> {
    let (width, height) = (f64::from(picture.width), f64::from(picture.height));
    let Some(crop) = crop else { return Ok(Crop { left: 0.0, top: 0.0, width, height }) };
    if ![crop.left, crop.top, crop.width, crop.height].iter().all(|side| side.is_finite()) {
        return Err(Failure::file("a crop is not a number"));
    }
    let (left, top) = (crop.left.clamp(0.0, width), crop.top.clamp(0.0, height));
    let right = (crop.left + crop.width).min(width);
    let bottom = (crop.top + crop.height).min(height);
    if right - left < 1.0 || bottom - top < 1.0 {
        return Err(Failure::file(format!("a crop lies outside the picture of {width} x {height} pixels")));
    }
    Ok(Crop { left, top, width: right - left, height: bottom - top })
}

/// The part that is scaled, and the size that it gets.
fn target(part: Crop, size: Resize) -> Result<(Crop, u32, u32), Failure> {
    let rounded = |side: f64| side.round().max(1.0) as u32;
    match size {
        Resize::Original => Ok((part, rounded(part.width), rounded(part.height))),
        Resize::Exact { width: 0, .. } | Resize::Cover { width: 0, .. } | Resize::Fit { width: 0, .. } => {
            Err(Failure::ours("an output has no width"))
        }
        Resize::Exact { height: 0, .. } | Resize::Cover { height: 0, .. } | Resize::Fit { height: 0, .. } => {
            Err(Failure::ours("an output has no height"))
        }
        Resize::Exact { width, height } => Ok((part, width, height)),
        Resize::Cover { width, height } => {
            let scale = (part.width / f64::from(width)).min(part.height / f64::from(height));
            let (inner_width, inner_height) = (f64::from(width) * scale, f64::from(height) * scale);
            let left = part.left + (part.width - inner_width) / 2.0;
            let top = part.top + (part.height - inner_height) / 2.0;
            let inner = Crop { left, top, width: inner_width, height: inner_height };
            Ok((inner, width, height))
        }
        Resize::Fit { width, height } => {
            let scale = (f64::from(width) / part.width).min(f64::from(height) / part.height).min(1.0);
            Ok((part, rounded(part.width * scale), rounded(part.height * scale)))
        }
    }
}

fn resized(picture: &Picture, part: Crop, width: u32, height: u32, filter: Filter) -> Result<Vec<u8>, Failure> {
    let filter = match filter {
        Filter::Bilinear => resize::FilterType::Bilinear,
        Filter::Bicubic => resize::FilterType::CatmullRom,
        Filter::Lanczos3 => resize::FilterType::Lanczos3,
        Filter::Hamming => resize::FilterType::Hamming,
    };
    let from = ImageRef::new(picture.width, picture.height, &picture.bytes, PixelType::U8x3).map_err(ours)?;
    let mut to = resize::images::Image::new(width, height, PixelType::U8x3);
    // A rounding error must not put the part a hair outside.
    let part_width = part.width.min(f64::from(picture.width) - part.left);
    let part_height = part.height.min(f64::from(picture.height) - part.top);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false).crop(
        part.left,
        part.top,
        part_width,
        part_height,
    );
    Resizer::new().resize(&from, &mut to, &options).map_err(ours)?;
    Ok(to.into_vec())
}

fn jpeg(pixels: &[u8], width: u32, height: u32, quality: u8) -> Result<Vec<u8>, Failure> {
    let side = |side: u32| u16::try_from(side).map_err(|_| Failure::limit("a JPEG has at most 65,535 pixels a side"));
    let mut bytes = Vec::with_capacity(pixels.len() / 8);
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality.clamp(1, 100));
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::R_4_2_0);
    encoder.encode(pixels, side(width)?, side(height)?, jpeg_encoder::ColorType::Rgb).map_err(ours)?;
    Ok(bytes)
}

fn png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, Failure> {
    use ::image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(pixels, width, height, ExtendedColorType::Rgb8).map_err(ours)?;
    Ok(bytes)
}

fn ours(error: impl std::fmt::Display) -> Failure {
    Failure::ours(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: u32, height: u32) -> Picture {
        let bytes = (0..height).flat_map(|y| (0..width).flat_map(move |x| [x as u8, y as u8, 7])).collect();
        Picture::rgb8(width, height, bytes).unwrap()
    }

    #[test]
    fn sizes_are_what_was_asked() {
        let picture = gradient(200, 100);
        let size = |resize| {
            let made = picture.converted(None, resize, Filter::Bilinear, Encoding::Rgb8).unwrap();
            (made.width, made.height, made.bytes.len())
        };
        assert_eq!(size(Resize::Original), (200, 100, 60_000));
        assert_eq!(size(Resize::Exact { width: 50, height: 50 }), (50, 50, 7_500));
        assert_eq!(size(Resize::Cover { width: 50, height: 50 }), (50, 50, 7_500));
        assert_eq!(size(Resize::Fit { width: 50, height: 50 }), (50, 25, 3_750));
        assert_eq!(size(Resize::Fit { width: 500, height: 500 }), (200, 100, 60_000));
    }

    #[test]
    fn cover_takes_the_middle() {
        let made = gradient(200, 100);
        let size = Resize::Cover { width: 100, height: 100 };
        let made = made.converted(None, size, Filter::Bilinear, Encoding::Rgb8).unwrap();
        assert_eq!(&made.bytes[..3], &[50, 0, 7]);
    }

    #[test]
    fn a_crop_is_cut_at_the_edges_and_refused_outside() {
        let picture = gradient(20, 10);
        let crop = |left, top, width, height| {
            let crop = Crop { left, top, width, height };
            picture.converted(Some(crop), Resize::Original, Filter::Bilinear, Encoding::Rgb8)
        };
        let made = crop(15.0, 5.0, 100.0, 100.0).unwrap();
        assert_eq!((made.width, made.height, &made.bytes[..3]), (5, 5, &[15, 5, 7][..]));
        assert!(crop(30.0, 0.0, 5.0, 5.0).is_err());
        assert!(crop(f64::NAN, 0.0, 5.0, 5.0).is_err());
        assert!(crop(0.0, 0.0, -5.0, 5.0).is_err());
    }

    #[test]
    fn an_output_has_a_bound() {
        let size = Resize::Exact { width: 1 << 30, height: 1 << 30 };
        let error = gradient(2, 2).converted(None, size, Filter::Bilinear, Encoding::Rgb8).unwrap_err();
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
    }
}
