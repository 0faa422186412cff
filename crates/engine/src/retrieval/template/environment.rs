//! What templates can call: filters and tests that stay bounded, and the bound on what is rendered.

use super::operators;
use crate::retrieval::limits;
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, ErrorKind, UndefinedBehavior, filters, tests as predicates};
use std::sync::LazyLock;

/// Most blanks of an indentation.
const MAX_INDENT: usize = 16;

pub(super) static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);

pub(super) static URLS: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = environment();
    env.add_filter("safe", filters::safe);
    env.set_formatter(|out, state, value| {
        if value.is_safe() || value.is_none() {
            return minijinja::escape_formatter(out, state, value);
        }
        let text = value.to_string();
        percent_encoded(&text).try_for_each(|piece| out.write_str(&piece).map_err(minijinja::Error::from))
    });
    env
});

/// A text as a part of a URL that keeps its meaning wherever it stands.
pub fn percent_encoded(text: &str) -> impl Iterator<Item = String> + '_ {
    text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    })
}

/// Only filters whose result is no longer than a small multiple of what they read.
pub(super) fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_recursion_limit(limits::MAX_TEMPLATE_DEPTH);
    env.set_keep_trailing_newline(true);
    env.add_filter("default", filters::default);
    env.add_filter("d", filters::default);
    env.add_filter("lower", filters::lower);
    env.add_filter("upper", filters::upper);
    env.add_filter("title", filters::title);
    env.add_filter("capitalize", filters::capitalize);
    env.add_filter("trim", filters::trim);
    env.add_filter("length", filters::length);
    env.add_filter("count", filters::length);
    env.add_filter("first", filters::first);
    env.add_filter("last", filters::last);
    env.add_filter("int", filters::int);
    env.add_filter("float", filters::float);
    env.add_filter("bool", filters::bool);
    env.add_filter("string", |value: &Jinja| value.to_string());
    env.add_filter("abs", filters::abs);
    env.add_filter("round", filters::round);
    env.add_filter("tojson", tojson);
    env.add_filter("join", join);
    env.add_filter(operators::NUMBER, operators::number);
    env.add_filter(operators::SHORT, operators::short);
    env.add_test("defined", predicates::is_defined);
    env.add_test("undefined", predicates::is_undefined);
    env.add_test("none", predicates::is_none);
    env.add_test("string", predicates::is_string);
    env.add_test("number", predicates::is_number);
    env.add_test("boolean", predicates::is_boolean);
    env.add_test("sequence", predicates::is_sequence);
    env.add_test("mapping", predicates::is_mapping);
    env
}

/// JSON, indented by no more than a few blanks.
fn tojson(value: &Jinja, indent: Option<Jinja>, arguments: Kwargs) -> Result<Jinja, minijinja::Error> {
    let asked = match &indent {
        Some(indent) => Some(indent.clone()),
        None => arguments.get::<Option<Jinja>>("indent")?,
    };
    if asked.and_then(|indent| usize::try_from(indent).ok()).is_some_and(|blanks| blanks > MAX_INDENT) {
        let reason = format!("`tojson` indents by at most {MAX_INDENT} blanks");
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, reason));
    }
    filters::tojson(value, indent, arguments)
}

fn join(values: &Jinja, separator: Option<&str>) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        if i > 0 {
            text.push_str(separator.unwrap_or_default());
        }
        text.push_str(&value.to_string());
        // Parts without length are bounded, too.
        if text.len().max(i) > limits::MAX_RENDERED_BYTES {
            return Err(minijinja::Error::new(ErrorKind::InvalidOperation, "the joined text is too long"));
        }
    }
    Ok(text)
}

/// A writer that stops a template from rendering more than it may.
pub(super) struct Bounded(pub Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > limits::MAX_RENDERED_BYTES {
            return Err(std::io::Error::other("the rendered text is too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(super) fn describe(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// Names are looked up when they are used, so a run over nothing finds the unknown ones.
pub(super) fn is_unknown(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction)
}
