//! Images. What is asked of one, and what comes back; `decode` does it inside a worker.

pub(crate) mod animation;
pub(crate) mod decode;
pub(crate) mod still;

use crate::{
    limits::{THUMBNAIL_QUALITY, THUMBNAIL_SIDE},
    picture::{Crop, Encoding, Filter, Picture, Resize},
};
use serde::{Deserialize, Serialize};

/// One picture that is made of an image or a page.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ImageOutput {
    /// The part that is taken; without it all.
    pub crop: Option<Crop>,
    pub size: Resize,
    pub filter: Filter,
    pub encoding: Encoding,
}

impl ImageOutput {
    /// A JPEG of at most 640 pixels a side.
    pub fn thumbnail() -> Self {
        let size = Resize::Fit { width: THUMBNAIL_SIDE, height: THUMBNAIL_SIDE };
        Self { crop: None, size, filter: Filter::Bicubic, encoding: Encoding::Jpeg(THUMBNAIL_QUALITY) }
    }

    /// All pixels as they are.
    pub fn original() -> Self {
        Self { crop: None, size: Resize::Original, filter: Filter::Bicubic, encoding: Encoding::Rgb8 }
    }

    /// Pixels of `size`, for a model.
    pub fn pixels(size: Resize, filter: Filter) -> Self {
        Self { crop: None, size, filter, encoding: Encoding::Rgb8 }
    }
}

/// What is made of one decoding of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRequest {
    /// In this order; at most 64.
    pub outputs: Vec<ImageOutput>,
}

/// An image that was decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedImage {
    /// Pixels of the whole image, after orientation.
    pub width: u32,
    /// Pixels of the whole image, after orientation.
    pub height: u32,
    /// As many as were asked for, in that order.
    pub outputs: Vec<Picture>,
}

/// The same as it goes over the wire: the bytes of the outputs are the body, one after another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImageShape {
    pub width: u32,
    pub height: u32,
    pub outputs: Vec<PictureShape>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PictureShape {
    pub width: u32,
    pub height: u32,
    pub encoding: Encoding,
    pub size_bytes: u64,
}

impl DecodedImage {
    pub(crate) fn into_wire(self) -> (ImageShape, Vec<u8>) {
        let (outputs, body) = pictures_into_wire(self.outputs);
        (ImageShape { width: self.width, height: self.height, outputs }, body)
    }
    pub(crate) fn from_wire(shape: ImageShape, body: Vec<u8>) -> Option<Self> {
        let outputs = pictures_from_wire(shape.outputs, body)?;
        Some(Self { width: shape.width, height: shape.height, outputs })
    }
}

pub(crate) fn pictures_into_wire(pictures: Vec<Picture>) -> (Vec<PictureShape>, Vec<u8>) {
    let shape = |p: &Picture| PictureShape {
        width: p.width,
        height: p.height,
        encoding: p.encoding,
        size_bytes: p.bytes.len() as u64,
    };
    let shapes = pictures.iter().map(shape).collect();
    let body = match <[Picture; 1]>::try_from(pictures) {
        Ok([one]) => one.bytes,
        Err(several) => several.iter().map(|p| p.bytes.as_slice()).collect::<Vec<_>>().concat(),
    };
    (shapes, body)
}

/// `None` when the shapes and the body do not fit each other: the worker is not to be believed.
pub(crate) fn pictures_from_wire(shapes: Vec<PictureShape>, body: Vec<u8>) -> Option<Vec<Picture>> {
    if let [PictureShape { width, height, encoding, size_bytes }] = shapes[..] {
        let fits =
            size_bytes == body.len() as u64 && (encoding != Encoding::Rgb8 || size_bytes == rgb_bytes(width, height));
        return fits.then(|| vec![Picture { width, height, encoding, bytes: body }]);
    }
    let mut rest = body.as_slice();
    let mut pictures = Vec::with_capacity(shapes.len());
    for PictureShape { width, height, encoding, size_bytes } in shapes {
        let (bytes, after) = rest.split_at_checked(usize::try_from(size_bytes).ok()?)?;
        if encoding == Encoding::Rgb8 && size_bytes != rgb_bytes(width, height) {
            return None;
        }
        pictures.push(Picture { width, height, encoding, bytes: bytes.to_vec() });
        rest = after;
    }
    rest.is_empty().then_some(pictures)
}

fn rgb_bytes(width: u32, height: u32) -> u64 {
    u64::from(width) * u64::from(height) * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_does_not_fit_is_refused() {
        let picture = Picture::rgb8(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let image = DecodedImage { width: 2, height: 1, outputs: vec![picture.clone(), picture] };
        let (shape, body) = image.clone().into_wire();
        assert_eq!(DecodedImage::from_wire(shape, body), Some(image.clone()));
        for (change, width) in [(-1i32, 2), (1, 2), (0, 3)] {
            let (mut shape, mut body) = image.clone().into_wire();
            body.resize((body.len() as i32 + change) as usize, 0);
            shape.outputs[1].width = width;
            assert_eq!(DecodedImage::from_wire(shape, body), None);
        }
    }
}
