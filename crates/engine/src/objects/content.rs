//! What bytes are: their media type by content, and whether that suits the property they are meant for.

use serde_json::Value;
use sha2::{Digest, Sha256};
use strata_media::Family;
use strata_model::{Error, Fields, Result, schema::FieldType};

/// How much of a content is looked at.
pub(super) const SNIFF_BYTES: u64 = 8192;

/// What the caller or the other side says about the bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    pub media_type: Option<String>,
    pub filename: Option<String>,
}

/// Bytes as text: UTF-8, or UTF-16 with its mark; what is not readable becomes a replacement character.
pub(super) fn text(bytes: &[u8]) -> String {
    let utf16 = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|pair| read(*pair)).collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The media type of a content that begins with `head`. [`Error::Invalid`] when it is certainly not what a blob of
/// this type holds.
pub(super) fn media_type(kind: FieldType, head: &[u8], declared: &Declared, at: &str) -> Result<String> {
    let claimed = declared.media_type.clone().filter(|t| t != "application/octet-stream").or_else(|| by_name(declared));
    if kind == FieldType::Text && is_text(head) {
        // Plain words can look like a format's first bytes (`BM` is a bitmap's), so a text is believed to be one.
        let claimed = claimed.filter(|t| t.starts_with("text/") || t.ends_with("json") || t.ends_with("xml"));
        return Ok(claimed.unwrap_or_else(|| "text/plain".into()));
    }
    if !kind.is_file() {
        return Ok(claimed.unwrap_or_else(|| "application/octet-stream".into()));
    }
    if kind == FieldType::Image {
        // Drawings are texts, and not every picture has the brand by which `infer` knows it.
        let seen = strata_media::detect(head, head.len() as u64);
        if seen.family() == Family::Image {
            return Ok(seen.media_type().to_owned());
        }
    }
    let found = infer::get(head).map(|t| t.mime_type());
    match found {
        Some(found) if !suits(kind, found) => {
            Err(Error::invalid(at, format!("the content is `{found}`, which is no {}", kind.as_str())))
        }
        Some(found) => Ok(found.to_owned()),
        None => Ok(claimed.unwrap_or_else(|| usual(kind).into())),
    }
}

fn by_name(declared: &Declared) -> Option<String> {
    let extension = declared.filename.as_deref()?.rsplit_once('.')?.1.to_lowercase();
    let media_type = match extension.as_str() {
        "txt" | "log" => "text/plain",
        "md" | "markdown" => "text/markdown",
        "csv" => "text/csv",
        "tsv" => "text/tab-separated-values",
        "html" | "htm" => "text/html",
        "json" => "application/json",
        "jsonl" | "ndjson" => "application/x-ndjson",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" | "heif" => "image/heif",
        "avif" => "image/avif",
        "jxl" => "image/jxl",
        "jp2" => "image/jp2",
        "psd" => "image/vnd.adobe.photoshop",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "flac" => "audio/flac",
        "m4a" => "audio/mp4",
        "ogg" => "audio/ogg",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "xls" => "application/vnd.ms-excel",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        _ => return None,
    };
    Some(media_type.into())
}

fn usual(kind: FieldType) -> &'static str {
    match kind {
        FieldType::Text => "text/plain",
        FieldType::Pdf => "application/pdf",
        _ => "application/octet-stream",
    }
}

fn suits(kind: FieldType, found: &str) -> bool {
    match kind {
        FieldType::Image => found.starts_with("image/"),
        // One container holds either.
        FieldType::Audio | FieldType::Video => found.starts_with("audio/") || found.starts_with("video/"),
        FieldType::Pdf => found == "application/pdf",
        FieldType::Text => found.starts_with("text/"),
        FieldType::Excel => {
            found.starts_with("text/")
                || found.contains("excel")
                || found.contains("spreadsheet")
                || found.contains("zip")
                || found.contains("msword")
                || found.contains("ole")
        }
        _ => true,
    }
}

/// Whether the first bytes read as UTF-8, a character cut at the end aside, without control characters of binaries.
fn is_text(head: &[u8]) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !head.contains(&0)
}

/// The extension-like type that a file's name or media type suggests, for uploads that do not say.
pub(crate) fn type_of(media_type: &str, filename: &str) -> FieldType {
    let declared = Declared { media_type: None, filename: Some(filename.to_owned()) };
    let known = Some(media_type.to_lowercase()).filter(|t| t.contains('/') && t != "application/octet-stream");
    let media_type = known.or_else(|| by_name(&declared)).unwrap_or_default();
    match media_type.as_str() {
        "application/pdf" => FieldType::Pdf,
        "text/csv" => FieldType::Text,
        // Where office files go, which are ZIPs, too.
        "application/zip" | "application/x-zip-compressed" => FieldType::Excel,
        t if t.starts_with("image/") => FieldType::Image,
        t if t.starts_with("audio/") => FieldType::Audio,
        t if t.starts_with("video/") => FieldType::Video,
        t if t.contains("excel") || t.contains("spreadsheet") => FieldType::Excel,
        _ => FieldType::Text,
    }
}

/// SHA-256 in hex over an object's fields, whatever the order of their keys, and over its blobs.
pub(super) fn hash<'a>(fields: &Fields, blobs: impl Iterator<Item = (&'a str, FieldType, &'a str)>) -> String {
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    let mut canonical = String::new();
    // The state of a soft delete is no content.
    let content = fields.iter().filter(|(name, _)| *name != "lifecycle_state");
    write_map(content, &mut canonical);
    part(canonical.as_bytes());
    for (property, kind, hash) in blobs {
        part(property.as_bytes());
        part(kind.as_str().as_bytes());
        part(hash.as_bytes());
    }
    hex::encode(hasher.finalize())
}

fn write_map<'a>(map: impl Iterator<Item = (&'a String, &'a Value)>, into: &mut String) {
    let mut sorted: Vec<_> = map.collect();
    sorted.sort_by_key(|(name, _)| *name);
    into.push('{');
    for (name, value) in sorted {
        into.push_str(&Value::String(name.clone()).to_string());
        into.push(':');
        write_value(value, into);
        into.push(',');
    }
    into.push('}');
}

fn write_value(value: &Value, into: &mut String) {
    match value {
        Value::Object(map) => write_map(map.iter(), into),
        Value::Array(list) => {
            into.push('[');
            for item in list {
                write_value(item, into);
                into.push(',');
            }
            into.push(']');
        }
        plain => into.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    #[test]
    fn bytes_are_what_they_are_and_must_suit_their_property() {
        let none = Declared::default();
        let found = |kind, bytes: &[u8], declared: &Declared| media_type(kind, bytes, declared, "x");
        assert_eq!(found(FieldType::Image, PNG, &none).unwrap(), "image/png");
        assert!(found(FieldType::Video, PNG, &none).is_err());
        assert!(found(FieldType::Text, PNG, &none).is_err());
        assert!(found(FieldType::Pdf, b"%PDF-1.7", &none).is_ok());
        assert_eq!(found(FieldType::Text, b"BMW cars", &none).unwrap(), "text/plain");
        let named = Declared { filename: Some("a.md".into()), ..Declared::default() };
        assert_eq!(found(FieldType::Text, b"# A", &named).unwrap(), "text/markdown");
        let svg = Declared { media_type: Some("image/svg+xml".into()), ..Declared::default() };
        assert_eq!(found(FieldType::Image, b"<svg/>", &svg).unwrap(), "image/svg+xml");
        assert_eq!(found(FieldType::Image, b"<?xml version='1.0'?><svg/>", &none).unwrap(), "image/svg+xml");
        assert_eq!(found(FieldType::Text, b"<?xml version='1.0'?><svg/>", &none).unwrap(), "text/plain");
        assert!(found(FieldType::Image, b"<?xml version='1.0'?><html/>", &none).is_err());
        let heif = b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf";
        assert_eq!(found(FieldType::Image, heif, &none).unwrap(), "image/heif");
        assert!(found(FieldType::Pdf, b"\xff\x0a\xfa\x1f", &none).is_err());
    }

    #[test]
    fn texts_of_all_encodings_are_read() {
        assert_eq!(text(b"\xef\xbb\xbfa\xc3\xa9"), "aé");
        assert_eq!(text(b"\xff\xfea\0\xe9\0"), "aé");
        assert_eq!(text(b"\xfe\xff\0a\0\xe9"), "aé");
        assert_eq!(text(b"a\xff"), "a\u{fffd}");
    }

    #[test]
    fn equal_content_has_equal_hashes_whatever_the_order_of_keys() {
        let fields = |v: Value| v.as_object().cloned().unwrap();
        let a = fields(json!({ "x": 1, "y": { "b": [1], "a": 2 } }));
        let b = fields(json!({ "y": { "a": 2, "b": [1] }, "x": 1, "lifecycle_state": "disabled" }));
        let blob = [("p", FieldType::Text, "00")];
        assert_eq!(hash(&a, blob.into_iter()), hash(&b, blob.into_iter()));
        assert_ne!(hash(&a, blob.into_iter()), hash(&a, [("q", FieldType::Text, "00")].into_iter()));
        assert_ne!(hash(&a, blob.into_iter()), hash(&fields(json!({ "x": "1" })), blob.into_iter()));
    }
}
