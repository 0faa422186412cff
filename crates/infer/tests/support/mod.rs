//! Real photos, decoded.

#![allow(clippy::unwrap_used, dead_code)]

use std::path::PathBuf;
use strata_infer::Pixels;

/// A file below the directory of the test files, such as `scikit-image/coffee.png`.
pub fn file(name: &str) -> PathBuf {
    let dir = std::env::var_os("STRATA_TEST_FILES").expect("STRATA_TEST_FILES names the directory of the test files");
    let path = PathBuf::from(dir).join(name);
    assert!(path.is_file(), "`{}` is missing", path.display());
    path
}

pub fn photo(name: &str) -> Pixels {
    pixels(image::open(file(name)).unwrap().to_rgb8())
}

pub fn pixels(image: image::RgbImage) -> Pixels {
    let (width, height) = image.dimensions();
    Pixels::new(width, height, image.into_raw()).unwrap()
}

/// A part of a photo: left, top, width and height.
pub fn cropped(name: &str, [left, top, width, height]: [u32; 4]) -> Pixels {
    let image = image::open(file(name)).unwrap().to_rgb8();
    pixels(image::imageops::crop_imm(&image, left, top, width, height).to_image())
}
