//! The size of a JPEG XL picture: the first bits of its codestream (ISO/IEC 18181-1, size and metadata headers).

use super::boxes::boxes;

/// Bytes of a codestream that hold all that is asked for.
const HEADER_BYTES: usize = 64;

/// Width and height as it is shown; `None` for what is no JPEG XL.
pub(super) fn size(file: &[u8]) -> Option<(u32, u32)> {
    let header = codestream(file);
    let mut bits = Bits { bytes: header.strip_prefix(b"\xff\x0a")?, at: 0 };
    let is_small = bits.take(1)? == 1;
    let height = side(&mut bits, is_small)?;
    let width = match bits.take(3)? {
        0 => side(&mut bits, is_small)?,
        ratio => {
            let (above, below) = [(1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)][ratio as usize - 1];
            u32::try_from(u64::from(height) * above / below).ok()?
        }
    };
    // Metadata that are all as usual turn nothing; else the orientation, as EXIF numbers it, is among the further fields.
    let is_usual = bits.take(1)? == 1;
    let turned = !is_usual && bits.take(1)? == 1 && bits.take(3)? >= 4;
    Some(if turned { (height, width) } else { (width, height) })
}

/// The beginning of the codestream: the file itself, or what its boxes hold.
fn codestream(file: &[u8]) -> Vec<u8> {
    if file.starts_with(b"\xff\x0a") {
        return file[..file.len().min(HEADER_BYTES)].to_vec();
    }
    let mut header = Vec::new();
    for (kind, content) in boxes(file) {
        match &kind {
            b"jxlc" => header.extend(content.iter().take(HEADER_BYTES)),
            // Its number comes first.
            b"jxlp" => header.extend(content.iter().skip(4).take(HEADER_BYTES)),
            _ => {}
        }
        if header.len() >= HEADER_BYTES {
            break;
        }
    }
    header
}

fn side(bits: &mut Bits, is_small: bool) -> Option<u32> {
    if is_small {
        return Some((bits.take(5)? + 1) * 8);
    }
    let length = [9, 13, 18, 30][bits.take(2)? as usize];
    Some(bits.take(length)? + 1)
}

/// Bits from the lowest of each byte on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// At most 30 of them.
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for place in 0..count {
            let bit = (*self.bytes.get(self.at / 8)? >> (self.at % 8)) & 1;
            value |= u32::from(bit) << place;
            self.at += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_first_bits() {
        // As a ratio, in full, and in boxes.
        assert_eq!(size(b"\xff\x0a\x47\x40\x24\xd8\x63\x20"), Some((32, 32)));
        assert_eq!(size(b"\xff\x0a\xf8\x81\x7e\x88\x80\x1f\xa0\xe8"), Some((1088, 64)));
        let boxed =
            b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a\0\0\0\x10jxlp\0\0\0\0\xff\x0a\xc7\x41\0\0\0\x0djxlp\x80\0\0\x01\x24";
        assert_eq!(size(boxed), Some((64, 32)));
        assert_eq!(size(b"\xff\x0a"), None);
        assert_eq!(size(b""), None);
    }

    #[test]
    fn a_picture_that_lies_on_its_side_is_set_up() {
        // 64 x 32 as it is stored: not all as usual, further fields, the orientation less one.
        let bits = |values: &[(u32, usize)]| {
            let all: Vec<u32> = values.iter().flat_map(|(v, n)| (0..*n).map(move |at| (v >> at) & 1)).collect();
            let bytes =
                all.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| (*bit as u8) << at).sum::<u8>());
            [0xff, 0x0a].into_iter().chain(bytes).collect::<Vec<u8>>()
        };
        let header = |orientation| bits(&[(1, 1), (3, 5), (7, 3), (0, 1), (1, 1), (orientation, 3), (0, 8)]);
        assert_eq!(size(&header(0)), Some((64, 32)));
        assert_eq!(size(&header(2)), Some((64, 32)));
        assert_eq!(size(&header(5)), Some((32, 64)));
    }
}
