//! Stills that `ffmpeg` decodes, since `image` does not: what they say of themselves. That is read here, in a worker, so
//! that sizes are known and bounded before anything is decoded, and a look needs no other program.

mod boxes;
mod heif;
mod jxl;
pub(crate) mod svg;

use crate::{detect::MediaKind, fault::Failure, image::decode::check_size};
use boxes::{Reader, find};
use serde::{Deserialize, Serialize};

/// What a still says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Still {
    /// Pixels as it is shown: after cropping and orientation.
    pub width: u32,
    /// Pixels as it is shown: after cropping and orientation.
    pub height: u32,
    pub picture: Layer,
    /// A picture of how opaque each pixel is, where that is one of its own.
    pub alpha: Option<Layer>,
}

/// A picture of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layer {
    /// The only one.
    Only,
    /// The item of this id.
    Item(u32),
    /// Of those that are put together of tiles, the one with this number; the first has 0.
    Grid(u32),
}

/// What `file` says, within the limits on pixels.
pub(crate) fn look(file: &[u8], kind: MediaKind, max_pixels: u64) -> Result<Still, Failure> {
    let size = match kind {
        MediaKind::Heif | MediaKind::Avif => {
            let still = heif::look(file, max_pixels)?;
            check_size(still.width, still.height, max_pixels)?;
            return Ok(still);
        }
        MediaKind::JpegXl => jxl::size(file),
        MediaKind::Svg => svg::size(file),
        MediaKind::Jp2 => jpeg_2000(file),
        MediaKind::Psd => photoshop(file),
        other => return Err(Failure::ours(format!("`{}` is not looked into here", other.media_type()))),
    };
    let unreadable = || Failure::file(format!("`{}` cannot be decoded: it does not say its size", kind.media_type()));
    let (width, height) = size.ok_or_else(unreadable)?;
    check_size(width, height, max_pixels)?;
    Ok(Still { width, height, picture: Layer::Only, alpha: None })
}

/// The header box of a JP2, or the first segment of a bare codestream (ISO/IEC 15444-1).
fn jpeg_2000(file: &[u8]) -> Option<(u32, u32)> {
    if let Some(segment) = file.strip_prefix(b"\xff\x4f\xff\x51") {
        let mut segment = Reader(segment.get(4..)?);
        let (right, bottom, left, top) = (segment.u32()?, segment.u32()?, segment.u32()?, segment.u32()?);
        return Some((right.checked_sub(left)?, bottom.checked_sub(top)?));
    }
    let mut header = Reader(find(find(file, b"jp2h")?, b"ihdr")?);
    let (height, width) = (header.u32()?, header.u32()?);
    Some((width, height))
}

/// The header of a Photoshop document.
fn photoshop(file: &[u8]) -> Option<(u32, u32)> {
    let mut header = Reader(file.get(14..)?);
    let (height, width) = (header.u32()?, header.u32()?);
    Some((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_sizes() {
        let stream = b"\xff\x4f\xff\x51\0\x2f\0\0\0\0\x02\x0a\0\0\x01\xe0\0\0\0\x0a\0\0\0\0";
        assert_eq!(jpeg_2000(stream), Some((512, 480)));
        let boxed =
            b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a\0\0\0\x2djp2h\0\0\0\x16ihdr\0\0\x01\xe0\0\0\x02\0\0\x03\x07\x07\0\0";
        assert_eq!(jpeg_2000(boxed), Some((512, 480)));
        assert_eq!(jpeg_2000(b"\xff\x4f\xff\x51\0\x2f\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0"), None);
        assert_eq!(photoshop(b"8BPS\0\x01\0\0\0\0\0\0\0\x03\0\0\0\x20\0\0\0\x40\0\x08\0\x03"), Some((64, 32)));
        assert_eq!(photoshop(b"8BPS"), None);
    }

    #[test]
    fn too_many_pixels_are_refused_before_they_are_decoded() {
        let header = b"8BPS\0\x01\0\0\0\0\0\0\0\x03\0\0\xea\x60\0\0\xea\x60\0\x08\0\x03";
        let failure = look(header, MediaKind::Psd, 100_000_000).unwrap_err();
        assert!(failure.reason.contains("60000 x 60000"), "{failure:?}");
        let failure = look(b"\xff\x0a", MediaKind::JpegXl, 100_000_000).unwrap_err();
        assert!(failure.reason.contains("image/jxl"), "{failure:?}");
    }
}
