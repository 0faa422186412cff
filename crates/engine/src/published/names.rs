//! Public names: what stands in the URL of a published retriever, unique in the server.

use strata_model::{Error, Result};

const MIN_CHARS: usize = 3;
const MAX_CHARS: usize = 50;
/// Names that paths of the API have in the place of one.
const RESERVED: [&str; 1] = ["execute"];
/// Random characters behind a name that was taken.
pub(super) const SUFFIX_CHARS: usize = 8;
/// What a name is made of where there is nothing better.
const FALLBACK: &str = "retriever";

/// Refuses what cannot be a public name. `at` is the place of it.
pub(super) fn check(name: &str, at: &str) -> Result<()> {
    if RESERVED.contains(&name) {
        return Err(Error::invalid(at, format!("`{name}` is reserved; choose another name")));
    }
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let fits = (MIN_CHARS..=MAX_CHARS).contains(&name.len())
        && name.as_bytes().iter().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    match fits {
        true => Ok(()),
        false => Err(Error::invalid(
            at,
            format!(
                "must have {MIN_CHARS} to {MAX_CHARS} lower-case letters, digits and hyphens, and begin and end with a letter or digit"
            ),
        )),
    }
}

/// A public name made of any text; `None` where too little of it can stand in one.
pub(super) fn slug(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c),
            // Marks that are part of a word are left out, so that `don't` stays one.
            '\'' | '’' => {}
            _ if name.is_empty() || name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    name.truncate(MAX_CHARS);
    let name = name.trim_end_matches('-');
    check(name, "public_name").is_ok().then(|| name.to_owned())
}

/// A name that nobody else has.
pub(super) fn with_suffix(name: Option<&str>, suffix: &str) -> String {
    let mut base = name.unwrap_or(FALLBACK).to_owned();
    base.truncate(MAX_CHARS - suffix.len() - 1);
    format!("{}-{suffix}", base.trim_end_matches('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_of_what_people_write() {
        for (text, name) in [
            ("Peptide Evidence Search", Some("peptide-evidence-search")),
            ("  What's new?! (2026) ", Some("whats-new-2026")),
            ("a_b", Some("a-b")),
            ("日本", None),
            ("ab", None),
            ("execute", None),
        ] {
            assert_eq!(slug(text).as_deref(), name, "{text}");
        }
        let long = slug(&"word ".repeat(30)).unwrap();
        assert!(long.len() <= MAX_CHARS && check(&long, "x").is_ok(), "{long}");
    }

    #[test]
    fn names_that_are_taken_get_a_suffix_and_stay_names() {
        for name in [
            None,
            Some("finder"),
            Some("x".repeat(50).as_str()),
            Some("a-very-long-name-that-ends-in-a-hyphen-h-i-j-k-lmn"),
        ] {
            let made = with_suffix(name, "1a2b3c4d");
            assert!(check(&made, "x").is_ok() && made.ends_with("-1a2b3c4d"), "{made}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["ab", "Abc", "a_b", "-abc", "abc-", "a b", "execute", "ä-b-c", &"x".repeat(51)] {
            assert!(check(wrong, "public_name").is_err(), "{wrong}");
        }
    }
}
