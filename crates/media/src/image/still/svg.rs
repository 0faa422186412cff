//! The size of an SVG: what the start tag of its root says. The rest is for whoever draws it.

use crate::limits::MAX_SVG_SIDE;

/// Width and height of one that says neither, as CSS has it.
const USUAL: (f64, f64) = (300.0, 150.0);
/// CSS pixels of the units of length. Parts of hundred are of nothing here.
const UNITS: [(&str, f64); 9] = [
    ("px", 1.0),
    ("pt", 96.0 / 72.0),
    ("pc", 16.0),
    ("in", 96.0),
    ("cm", 96.0 / 2.54),
    ("mm", 96.0 / 25.4),
    ("rem", 16.0),
    ("em", 16.0),
    ("ex", 8.0),
];

/// The attributes of the root element, if that is `svg`: after a mark of the encoding, an XML declaration, comments and a
/// document type. Where the text is cut off they may be, too.
pub(crate) fn root(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    loop {
        rest = rest.trim_ascii_start();
        rest = if rest.starts_with(b"<?") {
            after(rest, b"?>")?
        } else if rest.starts_with(b"<!--") {
            after(&rest[4..], b"-->")?
        } else if rest.starts_with(b"<!DOCTYPE") {
            after_document_type(rest)?
        } else {
            break;
        };
    }
    let tag = rest.strip_prefix(b"<")?;
    let name_end = tag.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'))?;
    let (name, attributes) = tag.split_at(name_end);
    (name == b"svg" || name.ends_with(b":svg")).then_some(attributes)
}

/// Width and height that it is drawn with, in pixels: its own, or those of its view box; a larger one is scaled down.
/// `None` for what is no SVG.
pub(super) fn size(text: &[u8]) -> Option<(u32, u32)> {
    let attributes = root(text)?;
    let length = |name: &[u8]| attribute(attributes, name).and_then(pixels);
    let view = attribute(attributes, b"viewBox").and_then(view_box);
    let (width, height) = match (length(b"width"), length(b"height"), view) {
        (None, None, Some(view)) => view,
        (Some(width), None, Some((wide, high))) => (width, width * high / wide),
        (None, Some(height), Some((wide, high))) => (height * wide / high, height),
        (width, height, _) => (width.unwrap_or(USUAL.0), height.unwrap_or(USUAL.1)),
    };
    if width <= 0.0 || height <= 0.0 {
        return Some((0, 0));
    }
    let scale = (f64::from(MAX_SVG_SIDE) / width.max(height)).min(1.0);
    let side = |side: f64| (side * scale).round().max(1.0) as u32;
    Some((side(width), side(height)))
}

fn after<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(end.len()).position(|window| window == end)?;
    Some(&text[at + end.len()..])
}

/// Behind the `>` that is in no quotes and no brackets.
fn after_document_type(text: &[u8]) -> Option<&[u8]> {
    let (mut quote, mut depth) = (None, 0u32);
    for (at, byte) in text.iter().enumerate() {
        match (quote, *byte) {
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, open @ (b'"' | b'\'')) => quote = Some(open),
            (None, b'[') => depth += 1,
            (None, b']') => depth = depth.saturating_sub(1),
            (None, b'>') if depth == 0 => return Some(&text[at + 1..]),
            (None, _) => {}
        }
    }
    None
}

/// The value of an attribute.
fn attribute<'a>(attributes: &'a [u8], wanted: &[u8]) -> Option<&'a str> {
    let mut rest = attributes;
    loop {
        rest = rest.trim_ascii_start();
        let name_end = rest.iter().position(|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/'))?;
        let (name, after_name) = rest.split_at(name_end);
        let value = after_name.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
        let (quote, value) = value.split_first()?;
        let value_end = value.iter().position(|byte| byte == quote)?;
        if name == wanted {
            return std::str::from_utf8(&value[..value_end]).ok();
        }
        rest = &value[value_end + 1..];
    }
}

/// A length in CSS pixels.
fn pixels(text: &str) -> Option<f64> {
    let text = text.trim();
    for (unit, scale) in UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return number_of(number).map(|number| number * scale);
        }
    }
    number_of(text)
}

/// Width and height of a view box that has both.
fn view_box(text: &str) -> Option<(f64, f64)> {
    let numbers = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|part| !part.is_empty());
    let numbers: Option<Vec<f64>> = numbers.map(|part| part.parse::<f64>().ok().filter(|n| n.is_finite())).collect();
    match numbers?[..] {
        [_, _, width, height] if width > 0.0 && height > 0.0 => Some((width, height)),
        _ => None,
    }
}

fn number_of(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(attributes: &str) -> Option<(u32, u32)> {
        size(format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {attributes}>").as_bytes())
    }

    #[test]
    fn sizes_are_those_of_the_root() {
        assert_eq!(of("width='64' height = \"32\""), Some((64, 32)));
        assert_eq!(of("width='1in' height='72pt'"), Some((96, 96)));
        assert_eq!(of("width='2rem' height='2em'"), Some((32, 32)));
        assert_eq!(of("viewBox='0 0 64 32'"), Some((64, 32)));
        assert_eq!(of("viewBox='0,0,64,32' width='100%' height='100%'"), Some((64, 32)));
        assert_eq!(of("viewBox='-5 -5 64 32' width='128'"), Some((128, 64)));
        assert_eq!(of("viewBox='0 0 64 32' height='128'"), Some((256, 128)));
        assert_eq!(of(""), Some((300, 150)));
        assert_eq!(of("viewBox='0 0 nan 1'"), Some((300, 150)));
        assert_eq!(of("width='0' height='10'"), Some((0, 0)));
    }

    #[test]
    fn a_huge_one_is_drawn_smaller() {
        assert_eq!(of("viewBox='0 0 1e9 5e8'"), Some((4096, 2048)));
        assert_eq!(of("width='1e300' height='1'"), Some((4096, 1)));
        assert_eq!(of("width='4096' height='4096'"), Some((4096, 4096)));
    }

    #[test]
    fn the_root_is_found_behind_what_may_stand_before_it() {
        let before = "\u{feff}<?xml version='1.0'?>\n<!-- <html> --><!DOCTYPE svg [<!ENTITY a \"]>\"> ]>\n";
        assert_eq!(size(format!("{before}<svg width='5' height='6'/>").as_bytes()), Some((5, 6)));
        assert_eq!(size(b"<s:svg xmlns:s='x' width='5' height='6'/>"), Some((5, 6)));
        for other in ["<html><svg/>", "<!doctype html><svg/>", "<svgs/>", "words <svg/>", "<!-- <svg/>", "", "<svg"] {
            assert_eq!(size(other.as_bytes()), None, "{other}");
        }
    }
}
