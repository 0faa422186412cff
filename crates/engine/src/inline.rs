//! Bytes that stand in a request: data URIs, base64, and the URLs that may stand in their place.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use strata_model::{Error, Result};

/// Longest text that is taken for a URL.
const MAX_URL_CHARS: usize = 2083;

/// Whether a text is an HTTP URL and nothing else.
pub fn is_url(text: &str) -> bool {
    let text = text.trim();
    let lower: String = text.chars().take(8).collect::<String>().to_lowercase();
    (lower.starts_with("http://") || lower.starts_with("https://"))
        && text.len() <= MAX_URL_CHARS
        && !text.contains(char::is_whitespace)
}

/// Content and media type of `data:[media type][;base64],content` (RFC 2397).
pub fn data_uri(text: &str, at: &str) -> Result<(Vec<u8>, Option<String>)> {
    let wrong = |what: &str| Error::invalid(at, format!("is no data URI: {what}"));
    let rest = text.trim().strip_prefix("data:").ok_or_else(|| wrong("it does not begin with `data:`"))?;
    let (head, body) = rest.split_once(',').ok_or_else(|| wrong("it has no comma"))?;
    let (media_type, is_base64) = match head.strip_suffix(";base64") {
        Some(media_type) => (media_type, true),
        None => (head, false),
    };
    let bytes = match is_base64 {
        true => base64(body).ok_or_else(|| wrong("its base64 is broken"))?,
        false => percent_decode(body),
    };
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    Ok((bytes, media_type.contains('/').then_some(media_type)))
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let value = match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        decoded.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    decoded
}

/// Base64 in either alphabet, padded or not, line breaks aside.
pub fn base64(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, CONFIG);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, CONFIG);
    let compact: String;
    let text = match text.contains(|c: char| c.is_ascii_whitespace()) {
        true => {
            compact = text.split_ascii_whitespace().collect();
            &compact
        }
        false => text,
    };
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
