//! Access lists of documents, and whose eyes documents are read with.
//!
//! A document without a list is everybody's who may read its namespace. With one it is read by the principals that the
//! list names under `read` or `write`, by everybody where it says `public`, and written by those under `write`. A list that
//! says none of the three is none.
//! [`Reader`] is the definition; SQL and the index hold the same set in their own terms.

use crate::{Error, FieldError, Fields, Result, document::Document};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Key of `internal_metadata` that holds a document's access list: `read`, `write`, `public`, `owner`.
pub const ACL: &str = "_acl";
/// The payload field of the index that holds who reads a document. No filter of a caller reaches it.
pub const READERS: &str = "_readers";
/// Most names in each of a list's entries.
pub const MAX_NAMES: usize = 256;
/// Longest name of a principal, in characters.
pub const MAX_NAME_CHARS: usize = 256;
/// What [`READERS`] holds of a document that everybody reads.
const EVERYBODY: &str = "*";

/// Whose eyes documents are read with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// The server's own work, and administrators: every document.
    #[default]
    All,
    /// A key that stands for a principal: what everybody reads, and what names the principal.
    Principal(String),
    /// Any other key, and the public: what everybody reads.
    Anyone,
}

impl Reader {
    /// Whether a document with this access list is there for the reader.
    pub fn may_read(&self, acl: Option<&Value>) -> bool {
        match (self, readers(acl)) {
            (Self::All, _) | (_, None) => true,
            (Self::Principal(name), Some(names)) => names.contains(name.as_str()),
            (Self::Anyone, Some(_)) => false,
        }
    }

    /// Whether the reader may change and remove a document with this access list.
    pub fn may_write(&self, acl: Option<&Value>) -> bool {
        match (self, said(acl)) {
            (Self::All, _) | (_, None) => true,
            (Self::Principal(name), Some(acl)) => names(acl, "write").any(|listed| listed == name),
            (Self::Anyone, Some(_)) => false,
        }
    }

    /// Whether the reader sees at least what `other` sees.
    pub fn covers(&self, other: &Self) -> bool {
        *self == Self::All || *other == Self::Anyone || self == other
    }

    /// The values of [`READERS`] of the documents that the reader sees; `None` where it sees all.
    pub fn words(&self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Principal(name) => Some(vec![EVERYBODY.to_owned(), word(name)]),
            Self::Anyone => Some(vec![EVERYBODY.to_owned()]),
        }
    }
}

/// A principal among the values of [`READERS`]; no name can pass for everybody.
fn word(name: &str) -> String {
    format!("={name}")
}

/// The access list, if it says anything.
fn said(acl: Option<&Value>) -> Option<&Value> {
    acl.filter(|acl| ["read", "write", "public"].iter().any(|key| acl.get(key).is_some_and(|said| !said.is_null())))
}

fn names<'a>(acl: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    acl.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The principals that read a document with this access list, in order; `None` where everybody does.
pub fn readers(acl: Option<&Value>) -> Option<BTreeSet<&str>> {
    let acl = said(acl)?;
    let is_public = acl.get("public").and_then(Value::as_bool).unwrap_or(false);
    (!is_public).then(|| names(acl, "read").chain(names(acl, "write")).collect())
}

impl Document {
    /// Its access list; `None` where it has none that says anything.
    pub fn acl(&self) -> Option<&Value> {
        said(self.internal_metadata.get(ACL))
    }

    /// The document as the index keeps it: [`Document::view`], and under [`READERS`] who reads it.
    pub fn indexed(&self) -> Fields {
        let words = match readers(self.acl()) {
            None => vec![EVERYBODY.to_owned()],
            Some(names) => names.into_iter().map(word).collect(),
        };
        let mut view = self.view();
        view.insert(READERS.to_owned(), words.into());
        view
    }
}

/// Checks an access list that a caller sends; null is as if it were not there. `at` names the place for errors.
pub fn check(sent: Fields, at: &str) -> Result<Fields> {
    let (mut kept, mut wrong) = (Fields::new(), Vec::new());
    for (key, value) in sent.into_iter().filter(|(_, value)| !value.is_null()) {
        let place = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let fault = match key.as_str() {
            "read" | "write" => fault_of_names(&value),
            "public" => (!value.is_boolean()).then(|| "must be true or false".to_owned()),
            "owner" => (!value.is_string()).then(|| "must be a string".to_owned()),
            _ => Some("is not a field of an access list; it has `read`, `write` and `public`".to_owned()),
        };
        wrong.extend(fault.map(|message| FieldError::new(place, message)));
        kept.insert(key, value);
    }
    if wrong.is_empty() { Ok(kept) } else { Err(Error::Invalid(wrong)) }
}

fn fault_of_names(value: &Value) -> Option<String> {
    let Some(list) = value.as_array() else { return Some("must be an array of strings".to_owned()) };
    if list.len() > MAX_NAMES {
        return Some(format!("must have at most {MAX_NAMES} names"));
    }
    let fits = |name: &Value| name.as_str().is_some_and(is_name);
    (!list.iter().all(fits)).then(|| format!("must hold strings of 1 to {MAX_NAME_CHARS} characters"))
}

/// Whether a text can name a principal.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&text.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_names_who_reads_and_who_writes() {
        let (ann, bob, other) = (Reader::Principal("ann".into()), Reader::Principal("bob".into()), Reader::Anyone);
        let may = |reader: &Reader, acl: &Value| (reader.may_read(Some(acl)), reader.may_write(Some(acl)));
        let acl = json!({ "owner": "bob", "read": ["ann"], "write": ["cy"] });
        assert_eq!(may(&ann, &acl), (true, false));
        assert_eq!(may(&Reader::Principal("cy".into()), &acl), (true, true), "who writes reads, too");
        assert_eq!((may(&bob, &acl), may(&other, &acl)), ((false, false), (false, false)), "an owner is not listed");
        assert_eq!(may(&Reader::All, &acl), (true, true));
        let public = json!({ "public": true, "write": ["ann"] });
        assert_eq!((may(&ann, &public), may(&other, &public)), ((true, true), (true, false)));
        assert_eq!(may(&other, &json!({ "read": [] })), (false, false), "an empty list lets nobody in");
        assert_eq!(
            may(&other, &json!({ "owner": "bob", "read": null })),
            (true, true),
            "one that says nothing is none"
        );
        assert!(other.may_read(None) && other.may_write(None));
    }

    #[test]
    fn no_principal_passes_for_everybody() {
        let star = Reader::Principal(EVERYBODY.into());
        assert!(star.words().unwrap().iter().any(|w| w == "=*"));
        assert!(!Reader::Anyone.words().unwrap().contains(&"=*".to_owned()));
        assert!(Reader::All.words().is_none());
    }

    #[test]
    fn who_sees_more_covers_who_sees_less() {
        let (ann, bob) = (Reader::Principal("ann".into()), Reader::Principal("bob".into()));
        assert!(Reader::All.covers(&ann) && ann.covers(&ann) && ann.covers(&Reader::Anyone));
        assert!(!ann.covers(&bob) && !ann.covers(&Reader::All) && !Reader::Anyone.covers(&ann));
    }

    #[test]
    fn a_list_is_checked_entry_by_entry() {
        let of = |sent: Value| check(sent.as_object().unwrap().clone(), "acl");
        assert_eq!(Value::Object(of(json!({ "read": ["a"], "write": null })).unwrap()), json!({ "read": ["a"] }));
        let many: Vec<String> = (0..=MAX_NAMES).map(|n| n.to_string()).collect();
        for (sent, field) in [
            (json!({ "read": "a" }), "acl.read"),
            (json!({ "read": [1] }), "acl.read"),
            (json!({ "write": [""] }), "acl.write"),
            (json!({ "write": ["x".repeat(MAX_NAME_CHARS + 1)] }), "acl.write"),
            (json!({ "read": many }), "acl.read"),
            (json!({ "public": "yes" }), "acl.public"),
            (json!({ "readers": [] }), "acl.readers"),
        ] {
            match of(sent) {
                Err(Error::Invalid(wrong)) => assert_eq!(wrong[0].field, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
