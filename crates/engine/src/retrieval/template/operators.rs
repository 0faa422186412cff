//! Operators of templates that could make much of little: `*` repeats texts and lists, `~` and `+` join texts. Their
//! operands are checked while a template is evaluated: those of `*` are numbers, and texts that are joined are no longer
//! than a rendered text may be.

use crate::retrieval::limits;
use minijinja::{Error, ErrorKind, Value};

/// Name of the filter that lets numbers through.
pub const NUMBER: &str = "__number";
/// Name of the filter that refuses long texts.
pub const SHORT: &str = "__short";

/// The value, which must be a number or a truth value.
pub fn number(value: Value) -> Result<Value, Error> {
    use minijinja::value::ValueKind;
    match value.kind() {
        ValueKind::Number | ValueKind::Bool => Ok(value),
        ValueKind::Undefined => Err(Error::new(ErrorKind::UndefinedError, "a factor is not there")),
        kind => Err(Error::new(ErrorKind::InvalidOperation, format!("`*` multiplies numbers, not a {kind}"))),
    }
}

/// The value, which must not be a long text.
pub fn short(value: Value) -> Result<Value, Error> {
    match value.as_str().is_some_and(|text| text.len() > limits::MAX_RENDERED_BYTES) {
        true => Err(Error::new(ErrorKind::InvalidOperation, "a text that is joined is too long")),
        false => Ok(value),
    }
}

/// The template with checks at the operands, or `None` where it has more than [`limits::MAX_TEMPLATE_OPERATORS`].
pub fn checked(template: &str) -> Option<String> {
    let bytes = template.as_bytes();
    let mut checks: Vec<(usize, &str)> = Vec::new();
    let mut operators = 0;
    let mut at = 0;
    while let Some(open) = next_block(template, at) {
        let close = block_end(template, open + 2);
        let mut i = open + 2;
        while i < close {
            let filter = match bytes[i] {
                b'"' | b'\'' => {
                    i = text_end(bytes, i);
                    continue;
                }
                b'*' if bytes.get(i + 1) == Some(&b'*') => {
                    i += 2;
                    continue;
                }
                b'*' => NUMBER,
                b'~' => SHORT,
                b'+' if is_binary(bytes, open + 2, i, close) => SHORT,
                _ => {
                    i += 1;
                    continue;
                }
            };
            operators += 1;
            checks.push((i, filter));
            checks.push((operand_end(bytes, i + 1, close), filter));
            i += 1;
        }
        at = close;
    }
    if operators > limits::MAX_TEMPLATE_OPERATORS {
        return None;
    }
    checks.sort_by_key(|(place, _)| *place);
    let mut made = String::with_capacity(template.len() + checks.len() * 12);
    let mut copied = 0;
    for (place, filter) in checks {
        made.push_str(&template[copied..place]);
        made.push_str(&format!("|{filter} "));
        copied = place;
    }
    made.push_str(&template[copied..]);
    Some(made)
}

/// The next `{{` or `{%`, past comments.
fn next_block(template: &str, from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let open = from + template[from..].find('{')?;
        match template.as_bytes().get(open + 1) {
            Some(b'{' | b'%') => return Some(open),
            Some(b'#') => from = open + 2 + template[open + 2..].find("#}")?,
            _ => from = open + 1,
        }
    }
}

/// Where the block ends: its `}}` or `%}` outside of texts, or the template's end.
fn block_end(template: &str, from: usize) -> usize {
    let bytes = template.as_bytes();
    let (mut i, mut depth) = (from, 0_usize);
    while i < bytes.len() {
        match bytes[i] {
            b'"' | b'\'' => {
                i = text_end(bytes, i);
                continue;
            }
            b'%' if bytes.get(i + 1) == Some(&b'}') => return i,
            b'}' if depth == 0 && bytes.get(i + 1) == Some(&b'}') => return i,
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        i += 1;
    }
    bytes.len()
}

/// The place after the text that begins here.
fn text_end(bytes: &[u8], from: usize) -> usize {
    let mut i = from + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            quote if quote == bytes[from] => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

/// Whether a plus stands between two operands: not in a number, at a block's edge, or before a value.
fn is_binary(bytes: &[u8], start: usize, at: usize, close: usize) -> bool {
    let before = bytes[start..at].iter().rev().find(|b| !b.is_ascii_whitespace());
    let is_exponent = at >= start + 2 && matches!(bytes[at - 1], b'e' | b'E') && bytes[at - 2].is_ascii_digit();
    let is_last = bytes[at + 1..close].iter().all(u8::is_ascii_whitespace);
    before.is_some_and(|b| !b"([{,:=<>!+-*/%~|".contains(b)) && !is_exponent && !is_last
}

/// The place after the operand that begins here: a value with what is asked of it.
fn operand_end(bytes: &[u8], from: usize, close: usize) -> usize {
    let blank = |mut i: usize| {
        while i < close && bytes[i].is_ascii_whitespace() {
            i += 1;
        }
        i
    };
    let word = |mut i: usize| {
        while i < close && (bytes[i].is_ascii_alphanumeric() || bytes[i] == b'_' || !bytes[i].is_ascii()) {
            i += 1;
        }
        i
    };
    let mut i = blank(from);
    while i < close && matches!(bytes[i], b'-' | b'+') {
        i = blank(i + 1);
    }
    i = match bytes.get(i).filter(|_| i < close) {
        Some(b'"' | b'\'') => text_end(bytes, i).min(close),
        Some(b'(' | b'[' | b'{') => bracket_end(bytes, i, close),
        _ => word(i),
    };
    loop {
        let next = blank(i);
        i = match bytes.get(next).filter(|_| next < close) {
            Some(b'.') => word(blank(next + 1)),
            Some(b'[' | b'(') => bracket_end(bytes, next, close),
            Some(b'|') => word(blank(next + 1)),
            _ => return i,
        };
    }
}

/// The place after the bracket that closes the one here.
fn bracket_end(bytes: &[u8], from: usize, close: usize) -> usize {
    let (mut i, mut depth) = (from, 0_usize);
    while i < close {
        match bytes[i] {
            b'"' | b'\'' => {
                i = text_end(bytes, i);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
        i += 1;
    }
    close
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_are_checked_wherever_they_end() {
        for (template, expected) in [
            ("{{ a * b }} * c", "{{ a |N * b|N  }} * c"),
            ("{{ a.b[0] * -f(x * 2)|abs ** 3 }}", "{{ a.b[0] |N * -f(x |N * 2|N )|abs|N  ** 3 }}"),
            ("{{ 'a*b' ~ \"c\\\"~\" }}", "{{ 'a*b' |S ~ \"c\\\"~\"|S  }}"),
            ("{{ 1e+5 }}{%+ if a %}{{ a +}}", "{{ 1e+5 }}{%+ if a %}{{ a +}}"),
            ("{{ a + b }}{# a * b #}{ * }", "{{ a |S + b|S  }}{# a * b #}{ * }"),
            ("{{ {'a': 1 * 2}.a }}", "{{ {'a': 1 |N * 2|N }.a }}"),
            ("{{ a *", "{{ a |N *|N "),
            ("no template", "no template"),
        ] {
            let expected = expected.replace("|N", "|__number").replace("|S", "|__short");
            assert_eq!(checked(template).unwrap(), expected, "{template}");
        }
        assert!(checked(&format!("{{{{ a {} }}}}", "~ a ".repeat(limits::MAX_TEMPLATE_OPERATORS + 1))).is_none());
    }

    #[test]
    fn any_text_has_its_checks_between_characters() {
        for text in ["{{ ü * ü }}", "{{'", "{{ \"\\", "{{(*", "{{ * ", "{%*%}", "{{ a|", "{{ü~ü"] {
            assert!(checked(text).is_some(), "{text}");
        }
    }
}
