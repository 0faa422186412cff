//! What is called how in a copy. Ids are made from the transfer's id and the old one, so that a transfer that is begun
//! again makes the same; ids of derived documents are those that their derivations would give them in the copy.

use serde_json::Value;
use std::borrow::Cow;
use strata_model::{Fields, Result, document::LineageStep, id};
use strata_store::catalog::{
    namespace_rows::Table,
    rusqlite::Transaction,
    transfers::{name, named},
};

/// How ids begin that are looked for in texts.
const PREFIXES: [&str; 11] = [
    id::NAMESPACE,
    id::BUCKET,
    id::OBJECT,
    id::COLLECTION,
    id::DOCUMENT,
    id::DERIVATION,
    id::RETRIEVER,
    id::EXTRACTOR,
    id::INTERACTION,
    id::ANNOTATION,
    id::DATASET,
];
/// Characters of a document's id that this server makes.
const DOCUMENT_ID_CHARS: usize = 28;

/// Names rows of a table in a copy. Answers how many have to wait for what they were made from; with `is_last` none do.
pub(super) fn name_rows(
    tx: &Transaction<'_>,
    transfer_id: &str,
    table: Table,
    rows: &[Fields],
    is_last: bool,
) -> Result<usize> {
    let Some(key) = table.key() else { return Ok(0) };
    let mut waiting = 0;
    for row in rows {
        let Some(old) = row.get(key).and_then(Value::as_str) else { continue };
        match table {
            // The namespace that is made has been named before.
            Table::Namespaces => {}
            Table::Documents if named(tx, transfer_id, old)?.is_some() => {}
            Table::Documents => match document_name(tx, transfer_id, old, row, is_last)? {
                Naming::As(new) => name(tx, transfer_id, old, &new)?,
                Naming::Kept => {}
                Naming::Later => waiting += 1,
            },
            _ => name(tx, transfer_id, old, &id::copied_id(transfer_id, old))?,
        }
    }
    Ok(waiting)
}

enum Naming {
    As(String),
    /// Its id is the caller's own and unique in its namespace only.
    Kept,
    /// What it was made from has no name yet.
    Later,
}

fn document_name(tx: &Transaction<'_>, transfer_id: &str, old: &str, row: &Fields, is_last: bool) -> Result<Naming> {
    let text = |column: &str| row.get(column).and_then(Value::as_str);
    if let (Some(from), Some(collection)) = (text("derived_from"), text("collection_id")) {
        let ordinal = row.get("ordinal").and_then(Value::as_u64).unwrap_or(0) as usize;
        let key = text("derived_key");
        for extractor in extractors(row) {
            for by_key in [key, None] {
                let id_of = |collection: &str, from: &str| match by_key {
                    Some(key) => id::keyed_document_id(collection, from, &extractor, key),
                    None => id::derived_document_id(collection, from, &extractor, ordinal),
                };
                if id_of(collection, from) != old {
                    continue;
                }
                let new_collection = named(tx, transfer_id, collection)?;
                match (named(tx, transfer_id, from)?, is_last) {
                    (Some(from), _) => {
                        return Ok(Naming::As(id_of(new_collection.as_deref().unwrap_or(collection), &from)));
                    }
                    (None, false) => return Ok(Naming::Later),
                    // It was made from what is not there any more.
                    (None, true) => {}
                }
            }
        }
    }
    let is_made_here = old.len() == DOCUMENT_ID_CHARS
        && old.strip_prefix(id::DOCUMENT).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    Ok(if is_made_here { Naming::As(id::copied_id(transfer_id, old)) } else { Naming::Kept })
}

/// The extractors that may have made a document: its derivation's, and the one that its lineage names.
fn extractors(row: &Fields) -> Vec<String> {
    let text = |column: &str| row.get(column).and_then(Value::as_str);
    let chain: Vec<LineageStep> =
        text("lineage_chain").and_then(|chain| serde_json::from_str(chain).ok()).unwrap_or_default();
    let mut found: Vec<String> = text("derived_by").map(str::to_owned).into_iter().collect();
    found.extend(chain.into_iter().next_back().map(|step| step.feature_extractor_id));
    found.dedup();
    found
}

/// Puts the copies' names into a row.
pub(super) fn rename(tx: &Transaction<'_>, transfer_id: &str, table: Table, row: &mut Fields) -> Result<()> {
    for column in table.references() {
        let Some(text) = row.get(*column).and_then(Value::as_str) else { continue };
        let renamed = match replaced(text, |id| named(tx, transfer_id, id))? {
            Cow::Owned(renamed) => renamed,
            Cow::Borrowed(_) => continue,
        };
        row.insert((*column).to_owned(), renamed.into());
    }
    Ok(())
}

/// A text with every id in it replaced for which `find` has another: alone, in a path, or in JSON.
fn replaced(text: &str, mut find: impl FnMut(&str) -> Result<Option<String>>) -> Result<Cow<'_, str>> {
    let mut made = String::new();
    // What lies before it is in `made`.
    let mut copied = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    let is_of_id = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    while at < bytes.len() {
        if !is_of_id(bytes[at]) {
            at += 1;
            continue;
        }
        let length = bytes[at..].iter().take_while(|byte| is_of_id(**byte)).count();
        let word = &text[at..at + length];
        if PREFIXES.iter().any(|prefix| word.starts_with(prefix))
            && let Some(new) = find(word)?
        {
            made.push_str(&text[copied..at]);
            made.push_str(&new);
            copied = at + length;
        }
        at += length;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(text));
    }
    made.push_str(&text[copied..]);
    Ok(Cow::Owned(made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_replaced_wherever_they_stand_and_nothing_else_is() {
        let find = |id: &str| Ok(matches!(id, "bkt_1" | "col_2").then(|| format!("{id}x")));
        let made = |text| replaced(text, find).unwrap().into_owned();
        assert_eq!(made("bkt_1"), "bkt_1x");
        assert_eq!(made("bkt_1/col_2/col_3"), "bkt_1x/col_2x/col_3");
        assert_eq!(made(r#"{"é":["col_2","{{INPUT.col_2}}"],"n":1}"#), r#"{"é":["col_2x","{{INPUT.col_2x}}"],"n":1}"#);
        assert_eq!(made("a_bkt_1 bkt_12 bkt-1"), "a_bkt_1 bkt_12 bkt-1");
        assert!(matches!(replaced("nothing", find).unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn an_id_of_a_copy_is_the_same_each_time_and_another_in_each_copy() {
        let one = id::copied_id("trf_1", "col_abcdefghij");
        assert_eq!(one, id::copied_id("trf_1", "col_abcdefghij"));
        assert_ne!(one, id::copied_id("trf_2", "col_abcdefghij"));
        assert!(one.starts_with("col_") && one.len() == 20, "{one}");
        assert_eq!(id::copied_id("trf_1", &format!("doc_{}", "0".repeat(24))).len(), DOCUMENT_ID_CHARS);
    }
}
