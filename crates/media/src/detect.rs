//! What a file is, by its first bytes. A name or a declared type is never looked at.

use crate::{image::still::svg, limits::HEAD_BYTES};
use serde::{Deserialize, Serialize};

/// The families of media, by what can be derived from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Image,
    Audio,
    Video,
    Pdf,
    Text,
    /// Files in one: a ZIP, and what is one inside, such as office files.
    Archive,
    Unknown,
}

/// A kind of file that this crate tells from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaKind {
    Jpeg,
    Png,
    Gif,
    Webp,
    Bmp,
    Tiff,
    Ico,
    Pnm,
    Qoi,
    JpegXl,
    Heif,
    Avif,
    Svg,
    /// JPEG 2000, in its own container or bare.
    Jp2,
    /// A Photoshop document.
    Psd,
    Wav,
    Mp3,
    Flac,
    Ogg,
    Aac,
    M4a,
    Aiff,
    Amr,
    Mp4,
    QuickTime,
    Matroska,
    Webm,
    Avi,
    Flv,
    Asf,
    MpegProgram,
    MpegTransport,
    Pdf,
    Text,
    Zip,
    Unknown,
}

use MediaKind::*;

impl MediaKind {
    /// What can be derived from it. An `ogg`, `mp4` or `webm` may hold only sound; [`crate::Probe`] tells.
    pub fn family(self) -> Family {
        match self {
            Jpeg | Png | Gif | Webp | Bmp | Tiff | Ico | Pnm | Qoi | JpegXl | Heif | Avif | Svg | Jp2 | Psd => {
                Family::Image
            }
            Wav | Mp3 | Flac | Ogg | Aac | M4a | Aiff | Amr => Family::Audio,
            Mp4 | QuickTime | Matroska | Webm | Avi | Flv | Asf | MpegProgram | MpegTransport => Family::Video,
            Pdf => Family::Pdf,
            Text => Family::Text,
            Zip => Family::Archive,
            Unknown => Family::Unknown,
        }
    }

    /// The media type, for example `image/png`.
    pub fn media_type(self) -> &'static str {
        match self {
            Jpeg => "image/jpeg",
            Png => "image/png",
            Gif => "image/gif",
            Webp => "image/webp",
            Bmp => "image/bmp",
            Tiff => "image/tiff",
            Ico => "image/vnd.microsoft.icon",
            Pnm => "image/x-portable-anymap",
            Qoi => "image/qoi",
            JpegXl => "image/jxl",
            Heif => "image/heif",
            Avif => "image/avif",
            Svg => "image/svg+xml",
            Jp2 => "image/jp2",
            Psd => "image/vnd.adobe.photoshop",
            Wav => "audio/wav",
            Mp3 => "audio/mpeg",
            Flac => "audio/flac",
            Ogg => "audio/ogg",
            Aac => "audio/aac",
            M4a => "audio/mp4",
            Aiff => "audio/aiff",
            Amr => "audio/amr",
            Mp4 => "video/mp4",
            QuickTime => "video/quicktime",
            Matroska => "video/x-matroska",
            Webm => "video/webm",
            Avi => "video/x-msvideo",
            Flv => "video/x-flv",
            Asf => "video/x-ms-asf",
            MpegProgram => "video/mpeg",
            MpegTransport => "video/mp2t",
            Pdf => "application/pdf",
            Text => "text/plain",
            Zip => "application/zip",
            Unknown => "application/octet-stream",
        }
    }

    /// The name of the one `ffmpeg` demuxer that may read it as sound or video, if there is one. Text never has one, so no playlist, concat
    /// script or subtitle file can make `ffmpeg` open other files.
    pub(crate) fn demuxer(self) -> Option<&'static str> {
        Some(match self {
            Gif => "gif",
            Wav => "wav",
            Mp3 => "mp3",
            Flac => "flac",
            Ogg => "ogg",
            Aac => "aac",
            Aiff => "aiff",
            Amr => "amr",
            M4a | Mp4 | QuickTime => "mov",
            Matroska | Webm => "matroska",
            Avi => "avi",
            Flv => "flv",
            Asf => "asf",
            MpegProgram => "mpeg",
            MpegTransport => "mpegts",
            Jpeg | Png | Webp | Bmp | Tiff | Ico | Pnm | Qoi | JpegXl | Heif | Avif | Svg | Jp2 | Psd | Pdf | Text
            | Zip | Unknown => {
                return None;
            }
        })
    }

    /// The name of the one `ffmpeg` demuxer that reads it as a still image; `None` for what is none, and for images that are
    /// decoded without it. That of SVG draws what is in the file and opens no other.
    pub(crate) fn still_demuxer(self) -> Option<&'static str> {
        match self {
            JpegXl => Some("jpegxl_pipe"),
            Heif | Avif => Some("mov"),
            Svg => Some("svg_pipe"),
            Jp2 => Some("j2k_pipe"),
            Psd => Some("psd_pipe"),
            Jpeg | Png | Gif | Webp | Bmp | Tiff | Ico | Pnm | Qoi | Wav | Mp3 | Flac | Ogg | Aac | M4a | Aiff
            | Amr | Mp4 | QuickTime | Matroska | Webm | Avi | Flv | Asf | MpegProgram | MpegTransport | Pdf | Text
            | Zip | Unknown => None,
        }
    }
}

/// What a file of `size_bytes` is that begins with `head`; of `head` at most [`HEAD_BYTES`] are looked at.
pub fn detect(head: &[u8], size_bytes: u64) -> MediaKind {
    let head = &head[..head.len().min(HEAD_BYTES)];
    if head.is_empty() || size_bytes == 0 {
        return Unknown;
    }
    // Before a PDF: one may lie in it uncompressed.
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Zip;
    }
    if head[..head.len().min(1024)].windows(5).any(|w| w == b"%PDF-") {
        return Pdf;
    }
    if let Some(kind) = by_box(head).or_else(|| by_magic(head)) {
        return kind;
    }
    if is_text(head) {
        return if svg::root(head).is_some() { Svg } else { Text };
    }
    infer::get(head).and_then(|found| by_media_type(found.mime_type())).unwrap_or(Unknown)
}

/// ISO base media files (`ftyp` and the older QuickTime atoms), by their brand.
fn by_box(head: &[u8]) -> Option<MediaKind> {
    if head.iter().take(4).all(|b| b.is_ascii_graphic() || *b == b' ') {
        return None; // a length is no word
    }
    match head.get(4..8)? {
        b"ftyp" => Some(match head.get(8..12)? {
            b"qt  " => QuickTime,
            b"M4A " | b"M4B " | b"F4A " => M4a,
            b"avif" | b"avis" => Avif,
            b"mif1" | b"msf1" if is_compatible(head, *b"avif") || is_compatible(head, *b"avis") => Avif,
            b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => Heif,
            _ => Mp4,
        }),
        b"moov" | b"mdat" | b"wide" | b"pnot" => Some(QuickTime),
        _ => None,
    }
}

/// Whether an `ftyp` at the beginning names a brand among those that the file fits besides its own.
fn is_compatible(head: &[u8], brand: [u8; 4]) -> bool {
    let size = head.first_chunk::<4>().map_or(0, |size| u32::from_be_bytes(*size) as usize);
    let brands = head.get(16..size.min(head.len())).unwrap_or_default();
    brands.as_chunks::<4>().0.contains(&brand)
}

/// What `infer` does not know, or takes for something else.
fn by_magic(head: &[u8]) -> Option<MediaKind> {
    match head {
        [b'R', b'I', b'F', b'F', _, _, _, _, kind @ ..] => match kind {
            [b'W', b'E', b'B', b'P', ..] => Some(Webp),
            [b'W', b'A', b'V', b'E', ..] => Some(Wav),
            [b'A', b'V', b'I', b' ', ..] => Some(Avi),
            _ => None,
        },
        [b'R', b'F', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Wav),
        [b'F', b'O', b'R', b'M', _, _, _, _, b'A', b'I', b'F', b'F' | b'C', ..] => Some(Aiff),
        [b'q', b'o', b'i', b'f', ..] => Some(Qoi),
        [b'O', b'g', b'g', b'S', ..] => Some(Ogg),
        [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => Some(JpegXl),
        [0xff, 0x4f, 0xff, 0x51, ..] => Some(Jp2),
        // Its relatives, such as films, begin alike and have other brands.
        [0, 0, 0, 0x0c, b'j', b'P', b' ', b' ', ..] => {
            matches!(head.get(20..24), Some(b"jp2 " | b"jpx ")).then_some(Jp2)
        }
        [b'8', b'B', b'P', b'S', 0, 1, ..] => Some(Psd),
        [b'P', b'1'..=b'7', space, rest @ ..] if space.is_ascii_whitespace() && begins_pnm(head[1], rest) => Some(Pnm),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some(if head.windows(4).any(|w| w == b"webm") { Webm } else { Matroska }),
        [0, 0, 1, 0xba, ..] => Some(MpegProgram),
        [0x47, ..] if packets_of(head, 188) => Some(MpegTransport),
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Some(Aac),
        [0xff, second, third, ..] if second & 0xe0 == 0xe0 && is_mpeg_audio(*second, *third) => Some(Mp3),
        [b'I', b'D', b'3', ..] => Some(Mp3),
        _ => None,
    }
}

fn begins_pnm(digit: u8, rest: &[u8]) -> bool {
    let first = rest.iter().find(|b| !b.is_ascii_whitespace());
    matches!(first, Some(b'0'..=b'9' | b'#')) || (digit == b'7' && rest.starts_with(b"WIDTH"))
}

/// Whether a packet begins with `0x47` every `size` bytes, for as long as the head goes.
fn packets_of(head: &[u8], size: usize) -> bool {
    head.len() > 2 * size && head.iter().step_by(size).all(|b| *b == 0x47)
}

/// Whether two bytes after the sync of an MPEG audio frame are possible: version, layer, bit rate, sample rate.
fn is_mpeg_audio(second: u8, third: u8) -> bool {
    (second >> 3) & 3 != 1 && (second >> 1) & 3 != 0 && third >> 4 != 15 && third >> 4 != 0 && (third >> 2) & 3 != 3
}

fn by_media_type(media_type: &str) -> Option<MediaKind> {
    Some(match media_type {
        "image/jpeg" => Jpeg,
        "image/png" => Png,
        "image/gif" => Gif,
        "image/webp" => Webp,
        "image/bmp" => Bmp,
        "image/tiff" => Tiff,
        "image/vnd.microsoft.icon" => Ico,
        "image/heif" => Heif,
        "image/avif" => Avif,
        "image/jxl" => JpegXl,
        "audio/mpeg" => Mp3,
        "audio/m4a" => M4a,
        "audio/ogg" | "audio/opus" => Ogg,
        "audio/x-flac" => Flac,
        "audio/x-wav" => Wav,
        "audio/amr" => Amr,
        "audio/aac" => Aac,
        "audio/x-aiff" => Aiff,
        "video/mp4" | "video/x-m4v" => Mp4,
        "video/x-matroska" => Matroska,
        "video/webm" => Webm,
        "video/quicktime" => QuickTime,
        "video/x-msvideo" => Avi,
        "video/x-ms-wmv" => Asf,
        "video/x-flv" => Flv,
        "application/pdf" => Pdf,
        _ => return None,
    })
}

/// Whether this is the beginning of a text: UTF-8 without control characters but white space, or UTF-16 with its mark. A
/// character that the end of the head cuts is no fault.
fn is_text(head: &[u8]) -> bool {
    if matches!(head, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return head.len().is_multiple_of(2) || head.len() == HEAD_BYTES;
    }
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => match std::str::from_utf8(&head[..error.valid_up_to()]) {
            Ok(text) => text,
            Err(_) => return false,
        },
        Err(_) => return false,
    };
    !valid.is_empty() && !valid.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}' | '\u{1b}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_content() {
        let mut transport = vec![0u8; 188 * 4];
        transport.iter_mut().step_by(188).for_each(|b| *b = 0x47);
        let cases: &[(&[u8], MediaKind)] = &[
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Png),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0", Jpeg),
            (b"GIF89a\x01\0\x01\0", Gif),
            (b"RIFF\0\0\0\0WEBPVP8 ", Webp),
            (b"RIFF\0\0\0\0WAVEfmt ", Wav),
            (b"RIFF\0\0\0\0AVI LIST", Avi),
            (b"\0\0\0\x18ftypisom\0\0\0\0", Mp4),
            (b"\0\0\0\x18ftypM4A \0\0\0\0", M4a),
            (b"\0\0\0\x18ftypqt  \0\0\0\0", QuickTime),
            (b"\0\0\0\x18ftypavif\0\0\0\0", Avif),
            (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", Webm),
            (b"OggS\0\x02", Ogg),
            (b"fLaC\0\0\0\x22", Flac),
            (b"ID3\x03\0\0\0\0\0\0", Mp3),
            (b"\xff\xfb\x90\x64", Mp3),
            (b"\xff\xf1\x50\x80", Aac),
            (b"%PDF-1.7\n", Pdf),
            (b"\n\n%PDF-1.7\n", Pdf),
            (b"PK\x03\x04\x14\0\0\0\0\0a.pdf%PDF-1.7\n", Zip),
            (b"PK is short for", Text),
            (b"\xff\x0a\xfa\x1f", JpegXl),
            (b"P6\n2 2\n255\n", Pnm),
            (b"P6 is not an image", Text),
            (b"BM is an abbreviation", Text),
            (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", Text),
            (b"ffconcat version 1.0\nfile /etc/passwd\n", Text),
            (b"<?xml version='1.0'?><svg xmlns='x'/>", Svg),
            (b"<!DOCTYPE html><html><body><svg xmlns='x'/>", Text),
            (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", Heif),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", Heif),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", Avif),
            (b"\0\0\0\x0cJXL \x0d\x0a\x87\x0a", JpegXl),
            (b"\xff\x4f\xff\x51\0\x2f", Jp2),
            (b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a\0\0\0\x14ftypjp2 \0\0\0\0jp2 ", Jp2),
            (b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a\0\0\0\x14ftypmjp2\0\0\0\0mjp2", Unknown),
            (b"8BPS\0\x01\0\0\0\0\0\0\0\x03", Psd),
            ("Grüße".as_bytes(), Text),
            (b"", Unknown),
            (b"\x01\x02\x03\x04", Unknown),
            (&transport, MpegTransport),
        ];
        for (head, kind) in cases {
            assert_eq!(detect(head, head.len() as u64), *kind, "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn text_has_no_demuxer() {
        assert_eq!(Text.demuxer(), None);
        assert_eq!(Unknown.demuxer(), None);
        assert_eq!(Svg.demuxer(), None);
        assert_eq!(Zip.demuxer(), None);
    }
}
