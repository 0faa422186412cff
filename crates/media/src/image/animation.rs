//! How many frames an image has and how long a round of them takes, read from the blocks of its container. Nothing is
//! unpacked, and damaged containers are counted as far as they go.

use crate::detect::MediaKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Animation {
    pub frames: u32,
    /// Milliseconds of one round.
    pub duration_ms: u64,
}

/// Frames of `file`; one for what is no animation.
pub(crate) fn look(file: &[u8], kind: MediaKind) -> Animation {
    let found = match kind {
        MediaKind::Gif => gif(file),
        MediaKind::Webp => webp(file),
        MediaKind::Png => png(file),
        _ => None,
    };
    match found {
        Some(animation) if animation.frames > 0 => animation,
        _ => Animation { frames: 1, duration_ms: 0 },
    }
}

/// GIF89a: image descriptors, and the delays of graphic control extensions in hundredths of a second. A delay under two
/// hundredths is shown as ten, which is what browsers and `ffmpeg` do.
fn gif(file: &[u8]) -> Option<Animation> {
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3usize << ((flags & 7) + 1) };
    let skip_blocks = |mut at: usize| loop {
        match file.get(at) {
            None => return None,
            Some(0) => return Some(at + 1),
            Some(size) => at += 1 + usize::from(*size),
        }
    };
    let mut at = 13 + table(*file.get(10)?);
    let mut animation = Animation { frames: 0, duration_ms: 0 };
    loop {
        let next = match file.get(at) {
            Some(0x21) => {
                if let Some([0x21, 0xf9, 4, _, low, high, ..]) = file.get(at..) {
                    let delay = u64::from(u16::from_le_bytes([*low, *high]));
                    animation.duration_ms += if delay < 2 { 100 } else { delay * 10 };
                }
                skip_blocks(at + 2)
            }
            Some(0x2c) => {
                animation.frames = animation.frames.saturating_add(1);
                file.get(at + 9).and_then(|flags| skip_blocks(at + 11 + table(*flags)))
            }
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => return Some(animation),
        }
    }
}

/// WebP: chunks `ANMF`, each with a duration in milliseconds.
fn webp(file: &[u8]) -> Option<Animation> {
    let mut at = 12;
    let mut animation = Animation { frames: 0, duration_ms: 0 };
    while let Some(chunk) = file.get(at..at + 8) {
        let size = u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]) as usize;
        if &chunk[..4] == b"ANMF" {
            animation.frames = animation.frames.saturating_add(1);
            if let Some(&[a, b, c]) = file.get(at + 20..at + 23).and_then(|d| <&[u8; 3]>::try_from(d).ok()) {
                animation.duration_ms += u64::from(u32::from_le_bytes([a, b, c, 0]));
            }
        }
        at = at.checked_add(8 + size + size % 2)?;
    }
    Some(animation)
}

/// APNG: chunks `fcTL`, each with a delay as a fraction of seconds.
fn png(file: &[u8]) -> Option<Animation> {
    let mut at = 8;
    let mut animation = Animation { frames: 0, duration_ms: 0 };
    while let Some(chunk) = file.get(at..at + 8) {
        let size = u32::from_be_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]) as usize;
        if &chunk[4..8] == b"fcTL" {
            animation.frames = animation.frames.saturating_add(1);
            if let Some(&[a, b, c, d]) = file.get(at + 28..at + 32).and_then(|d| <&[u8; 4]>::try_from(d).ok()) {
                let (above, below) = (u64::from(u16::from_be_bytes([a, b])), u64::from(u16::from_be_bytes([c, d])));
                animation.duration_ms += above * 1000 / if below == 0 { 100 } else { below };
            }
        }
        at = at.checked_add(12 + size)?;
    }
    Some(animation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Delay, Frame, RgbaImage, codecs::gif::GifEncoder};

    #[test]
    fn frames_and_delays_of_a_gif() {
        let mut file = Vec::new();
        let mut encoder = GifEncoder::new(&mut file);
        for shade in [0u8, 100, 200] {
            let image = RgbaImage::from_pixel(4, 4, [shade, shade, shade, 255].into());
            let frame = Frame::from_parts(image, 0, 0, Delay::from_numer_denom_ms(120, 1));
            encoder.encode_frame(frame).unwrap();
        }
        drop(encoder);
        assert_eq!(look(&file, MediaKind::Gif), Animation { frames: 3, duration_ms: 360 });
        for cut in 0..file.len() {
            look(&file[..cut], MediaKind::Gif);
        }
    }

    #[test]
    fn what_is_no_animation_has_one_frame() {
        assert_eq!(look(b"", MediaKind::Png).frames, 1);
        assert_eq!(look(b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff", MediaKind::Webp).frames, 1);
    }
}
