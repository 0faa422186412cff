//! Looks at a template's text before it is compiled: what it is, and what it must not hold.

use super::operators;
use crate::retrieval::limits;
use regex::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;
use strata_model::{Error, Result};

/// The expression of a text that is exactly one `{{ … }}`.
pub(super) fn whole(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    let alone = !inner.contains("{{") && !inner.contains("}}") && !inner.contains("{%");
    alone.then_some(inner)
}

/// Other statements could repeat work without end, reach other templates, or hide a block from the check of operands.
pub(super) fn refuse_statements(text: &str, at: &str, known: &[&str]) -> Result<()> {
    for block in text.split("{%").skip(1) {
        let word = block.trim_start_matches(['-', '+']).trim_start();
        let word: String = word.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
        if !known.contains(&word.as_str()) {
            let known = known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(at, format!("templates have {known} here, not `{word}`")));
        }
    }
    Ok(())
}

/// The template with checks at the operands of what could make much of little.
pub(super) fn checked(text: &str, at: &str) -> Result<String> {
    operators::checked(text).ok_or_else(|| {
        Error::invalid(at, format!("has more than {} products and joins", limits::MAX_TEMPLATE_OPERATORS))
    })
}

/// `{DOC.x}` as `{{DOC.x}}`. Other braces stay as they are: a text may hold JSON.
pub(super) fn doubled(text: &str) -> Cow<'_, str> {
    static SINGLE: LazyLock<Regex> = LazyLock::new(|| {
        let path = r"(?:\.[A-Za-z0-9_]+|\[(?:\d+|'[^'{}]*'|\u{22}[^\u{22}{}]*\u{22})\])+";
        let names = "(?i:inputs?|doc|document|context|stages?|secrets?)";
        Regex::new(&format!(r"\{{\s*({names}{path})\s*\}}")).expect("the expression is valid")
    });
    if !text.contains('{') {
        return Cow::Borrowed(text);
    }
    SINGLE.replace_all(text, |found: &regex::Captures<'_>| {
        let all = found.get(0).expect("a match has a whole");
        let is_doubled = text[..all.start()].ends_with('{') || text[all.end()..].starts_with('}');
        if is_doubled { all.as_str().to_owned() } else { format!("{{{{{}}}}}", &found[1]) }
    })
}
