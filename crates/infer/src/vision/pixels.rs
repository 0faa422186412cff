//! Images as they cross the API: decoded, three bytes a pixel.

use crate::convnet::Map;
use crate::limits::MAX_PIXELS;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use strata_model::{Error, Result};

/// A decoded image: red, green and blue of each pixel, row by row from the top.
#[derive(Clone, PartialEq, Eq)]
pub struct Pixels {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pixels({} x {})", self.width, self.height)
    }
}

impl Pixels {
    /// Errors: `Malformed` where there is no pixel, there are more than 2^27, or `rgb` has another length than three bytes
    /// a pixel.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let count = u64::from(width) * u64::from(height);
        if count == 0 || count > MAX_PIXELS {
            return Err(Error::Malformed(format!(
                "an image of {width} by {height} pixels; 1 to {MAX_PIXELS} are read"
            )));
        }
        if rgb.len() as u64 != count * 3 {
            let length = rgb.len();
            return Err(Error::Malformed(format!(
                "an image of {width} by {height} pixels has {length} bytes of colours"
            )));
        }
        Ok(Self { width, height, rgb })
    }

    pub fn width(&self) -> u32 {
        self.width
    }
    pub fn height(&self) -> u32 {
        self.height
    }
    /// Three bytes a pixel, row by row from the top.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Scaled to another size, over all pixels where it gets smaller, with the Hamming filter: as sharp as a bicubic one, at
    /// half its cost. `crop` is the part that is
    /// seen: left, top, width and height in pixels.
    pub(crate) fn resized(&self, crop: [f64; 4], width: u32, height: u32) -> Result<Self> {
        if (self.width, self.height) == (width, height) && crop == [0.0, 0.0, f64::from(width), f64::from(height)] {
            return Ok(self.clone());
        }
        let [left, top, crop_width, crop_height] = crop;
        let from = ImageRef::new(self.width, self.height, &self.rgb, PixelType::U8x3).map_err(Error::internal)?;
        let mut to = Image::new(width, height, PixelType::U8x3);
        let how = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Hamming)).crop(
            left,
            top,
            crop_width,
            crop_height,
        );
        Resizer::new().resize(&from, &mut to, &how).map_err(Error::internal)?;
        Self::new(width, height, to.into_vec())
    }

    /// The numbers `(value - mean) / scale` of every pixel.
    pub(crate) fn to_map(&self, mean: f32, scale: f32) -> Map {
        let data = self.rgb.iter().map(|value| (f32::from(*value) - mean) / scale).collect();
        Map { height: self.height as usize, width: self.width as usize, channels: 3, data }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn colours_that_do_not_fit_are_refused() {
        assert!(Pixels::new(2, 2, vec![0; 12]).is_ok());
        for (width, height, bytes) in [(2, 2, 11), (0, 2, 0), (u32::MAX, u32::MAX, 12)] {
            assert!(matches!(Pixels::new(width, height, vec![0; bytes]), Err(Error::Malformed(_))));
        }
    }

    #[test]
    fn an_image_of_one_colour_stays_so_in_any_size() {
        let image = Pixels::new(30, 20, [10, 20, 30].repeat(600)).unwrap();
        for (width, height) in [(7, 9), (64, 64), (1, 1)] {
            let scaled = image.resized([3.0, 2.5, 20.0, 10.0], width, height).unwrap();
            assert!(scaled.rgb().chunks(3).all(|pixel| pixel == [10, 20, 30]));
        }
        assert_eq!(image.to_map(10.0, 10.0).data[..3], [0.0, 1.0, 2.0]);
    }
}
