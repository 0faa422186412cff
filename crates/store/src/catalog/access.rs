//! Access lists in SQL: which documents a scope's reader sees, and how a list is kept with a document and followed by what
//! was made from it.
//!
//! Every query for documents that answers a caller takes its condition from [`readable`]; the column `readers` is written
//! wherever a list is.

use super::{
    documents::{self, json, rows},
    filter::Clause,
    from_sql, lineage,
};
use rusqlite::{Connection, OptionalExtension, Transaction, params, types::Value as SqlValue};
use serde_json::Value;
use std::borrow::Cow;
use strata_model::{
    Error, Fields, Reader, Result, Scope,
    acl::{self, ACL},
    document::Document,
};

const OWN_LIST: &str = "internal_metadata -> '$._acl'";

/// That a row of `table`, which is `documents` or an alias of it, is there for the scope's reader; empty where all are.
pub(super) fn readable(scope: &Scope, table: &str) -> Clause {
    match &scope.reader {
        Reader::All => Clause::default(),
        Reader::Anyone => Clause { sql: format!("{table}.readers IS NULL"), values: Vec::new() },
        Reader::Principal(name) => Clause {
            sql: format!(
                "({table}.readers IS NULL OR EXISTS (SELECT 1 FROM json_each({table}.readers) reader WHERE reader.value = ?))"
            ),
            values: vec![SqlValue::Text(name.clone())],
        },
    }
}

/// [`readable`] as the end of a condition: with an `AND` before it where there is one.
pub(super) fn and_readable(scope: &Scope, table: &str) -> Clause {
    let Clause { sql, values } = readable(scope, table);
    if sql.is_empty() { Clause::default() } else { Clause { sql: format!(" AND {sql}"), values } }
}

/// That the document which `column` names is not one that is kept from the scope's reader; it need not be there.
pub(super) fn unhidden(scope: &Scope, column: &str) -> Clause {
    let Clause { sql, values } = readable(scope, "hidden");
    if sql.is_empty() {
        return Clause::default();
    }
    let namespace = SqlValue::Text(scope.namespace_id.clone());
    Clause {
        sql: format!(
            "NOT EXISTS (SELECT 1 FROM documents hidden WHERE hidden.namespace_id = ? AND hidden.document_id = {column}
             AND NOT {sql})"
        ),
        values: std::iter::once(namespace).chain(values).collect(),
    }
}

/// Whether no document of a collection, or of the whole namespace, is kept from the scope's reader by a list. Answers false
/// where some document has one, whomever it names.
pub fn sees_all(connection: &Connection, scope: &Scope, collection_id: Option<&str>) -> Result<bool> {
    if scope.reader == Reader::All {
        return Ok(true);
    }
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM documents INDEXED BY documents_restricted
         WHERE readers IS NOT NULL AND namespace_id = ?1 AND (?2 IS NULL OR collection_id = ?2))";
    connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row(params![scope.namespace_id, collection_id], |r| r.get(0)))
        .map_err(from_sql)
}

/// [`Error::Forbidden`] where the scope's reader may not change a document that it has read.
pub fn check_change(scope: &Scope, document: &Document) -> Result<()> {
    check(scope, document.acl(), &document.document_id)
}

/// [`Error::Forbidden`] where the scope's reader may not change what has this access list, [`Error::Conflict`] where the
/// document is not there for it.
pub(super) fn check(scope: &Scope, list: Option<&Value>, document_id: &str) -> Result<()> {
    if scope.reader.may_write(list) {
        return Ok(());
    }
    match scope.reader.may_read(list) {
        true => Err(Error::Forbidden(format!(
            "the access list of the document `{document_id}` lets this key read it and not change it"
        ))),
        false => Err(Error::Conflict(format!("document id `{document_id}` is taken"))),
    }
}

/// The value of the column `readers`.
pub(super) fn readers(document: &Document) -> Result<Option<String>> {
    acl::readers(document.acl()).map(|names| json(&names)).transpose()
}

/// Writes the column of a row that was inserted without it.
pub(super) fn restrict(tx: &Transaction<'_>, seq: i64, internal_metadata: &Fields) -> Result<()> {
    let list = internal_metadata.get(ACL);
    let Some(names) = acl::readers(list).map(|names| json(&names)).transpose()? else { return Ok(()) };
    tx.prepare_cached("UPDATE documents SET readers = ?2 WHERE seq = ?1")
        .and_then(|mut s| s.execute(params![seq, names]))
        .map(drop)
        .map_err(from_sql)
}

/// The access list that a document takes over from the one that it was made from, whoever may read that.
pub fn inherited(connection: &Connection, scope: &Scope, document: &Document) -> Result<Option<Value>> {
    let Some(parent) = &document.lineage.source_document_id else { return Ok(None) };
    let sql = format!("SELECT {OWN_LIST} FROM documents WHERE namespace_id = ?1 AND document_id = ?2");
    let found: Option<Option<String>> = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row([&scope.namespace_id, parent], |r| r.get(0)).optional())
        .map_err(from_sql)?;
    parsed(found.flatten())
}

/// A list as SQL has it.
pub(super) fn parsed(list: Option<String>) -> Result<Option<Value>> {
    list.map(|text| serde_json::from_str(&text).map_err(Error::internal)).transpose()
}

/// The document with this access list, unless it has its own.
pub(super) fn with_list(document: &Document, list: Option<Value>) -> Cow<'_, Document> {
    match list {
        Some(list) if document.acl().is_none() => {
            let mut document = document.clone();
            document.internal_metadata.insert(ACL.to_owned(), list);
            Cow::Owned(document)
        }
        _ => Cow::Borrowed(document),
    }
}

/// Gives the access list of a document to everything that was made from it, through any number of steps. Answers the last
/// change of each collection touched.
pub fn spread(tx: &Transaction<'_>, scope: &Scope, document: &Document) -> Result<Vec<(String, i64)>> {
    let below = lineage::descendants(tx, scope, std::slice::from_ref(&document.document_id))?;
    if below.is_empty() {
        return Ok(Vec::new());
    }
    let (list, readers) = (document.acl().map(json).transpose()?, readers(document)?);
    let sql = format!(
        "UPDATE documents SET readers = ?3, updated_at = ?4, internal_metadata = CASE WHEN ?2 IS NULL
           THEN json_remove(internal_metadata, '$._acl') ELSE json_set(internal_metadata, '$._acl', json(?2)) END
         WHERE seq = ?1 AND ({OWN_LIST}) IS NOT json(?2) RETURNING collection_id"
    );
    let mut touched: Vec<(String, i64)> = Vec::new();
    for seq in below {
        let values = [
            SqlValue::from(seq),
            list.clone().map_or(SqlValue::Null, SqlValue::Text),
            readers.clone().map_or(SqlValue::Null, SqlValue::Text),
            SqlValue::Text(document.updated_at.clone()),
        ];
        let Some(collection) = rows(tx, &sql, &values, |r| r.get::<_, String>(0))?.pop() else { continue };
        let change = documents::changed(tx, &collection, seq, false)?;
        touched.retain(|(known, _)| *known != collection);
        touched.push((collection, change));
    }
    Ok(touched)
}
