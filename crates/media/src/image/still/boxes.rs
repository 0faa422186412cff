//! Boxes of ISO base media files, and numbers in them. Nothing here trusts a length: what is cut off ends early.

/// A box: its type and what it holds.
pub(super) type Part<'a> = ([u8; 4], &'a [u8]);

/// The boxes that follow each other in `bytes`. The last may be cut off.
pub(super) fn boxes(bytes: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = Reader(bytes);
    std::iter::from_fn(move || next(&mut rest))
}

/// What the first box of this type holds.
pub(super) fn find<'a>(bytes: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(bytes).find(|(found, _)| found == kind).map(|(_, content)| content)
}

fn next<'a>(rest: &mut Reader<'a>) -> Option<Part<'a>> {
    let size = rest.u32()?;
    let kind = *rest.take(4)?.first_chunk::<4>()?;
    let content_bytes = match size {
        0 => u64::MAX,
        1 => ((u64::from(rest.u32()?) << 32) | u64::from(rest.u32()?)).checked_sub(16)?,
        size => u64::from(size).checked_sub(8)?,
    };
    let content_bytes = usize::try_from(content_bytes).unwrap_or(usize::MAX).min(rest.0.len());
    Some((kind, rest.take(content_bytes)?))
}

/// Bytes that are read from their beginning; numbers are big endian.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take(2)?.first_chunk::<2>()?))
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(*self.take(4)?.first_chunk::<4>()?))
    }

    /// A number of 32 bits, or of 16.
    pub fn number(&mut self, is_wide: bool) -> Option<u32> {
        if is_wide { self.u32() } else { self.u16().map(u32::from) }
    }

    /// Version and flags, with which some boxes begin.
    pub fn version(&mut self) -> Option<(u8, u32)> {
        let both = self.u32()?;
        Some(((both >> 24) as u8, both & 0xff_ffff))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_of_all_lengths_are_read() {
        let file = b"\0\0\0\x09one!c\0\0\0\x01two!\0\0\0\0\0\0\0\x12ab\0\0\0\0lastrest";
        let found: Vec<Part> = boxes(file).collect();
        assert_eq!(found, [(*b"one!", &b"c"[..]), (*b"two!", &b"ab"[..]), (*b"last", &b"rest"[..])]);
        assert_eq!(find(file, b"two!"), Some(&b"ab"[..]));
        assert_eq!(find(file, b"none"), None);
    }

    #[test]
    fn lengths_that_cannot_be_end_it() {
        assert_eq!(boxes(b"\0\0\0\x07abcd").count(), 0);
        assert_eq!(boxes(b"\0\0\0\x01abcd\0\0\0\0\0\0\0\x02").count(), 0);
        assert_eq!(boxes(b"\xff\xff\xff\xffabcdef").collect::<Vec<_>>(), [(*b"abcd", &b"ef"[..])]);
        assert_eq!(boxes(b"\0\0\0\x09ab").count(), 0);
    }
}
