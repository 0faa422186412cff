//! Rows of annotations and of the versions that edits replaced.

use super::{
    access,
    documents::{from_json_column, json, rows},
    filter::Clause,
    from_sql,
    webhooks::{self, Event},
};
use rusqlite::{Connection, Row, Transaction, params, params_from_iter, types::Value as SqlValue};
use std::collections::BTreeMap;
use strata_model::{Error, Fields, Result, Scope};

/// A judgment of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    pub annotation_id: String,
    pub document_id: String,
    pub collection_id: Option<String>,
    pub label: String,
    pub actor_id: String,
    pub retriever_id: Option<String>,
    /// From 1, one more with every edit.
    pub version: i64,
    /// Everything that is said, `label` included.
    pub fields: Fields,
    pub created_at: String,
    pub updated_at: String,
}

/// A version that an edit replaced.
#[derive(Debug, Clone, PartialEq)]
pub struct Revision {
    /// The version that it keeps.
    pub version: i64,
    /// What the changed fields held; null where they held nothing.
    pub prior: Fields,
    /// When the edit happened, and who made it.
    pub edited_at: String,
    pub edited_by: String,
    pub edited_by_type: String,
}

const SELECT: &str = "SELECT annotation_id, document_id, collection_id, label, actor_id, retriever_id, version, fields,
    created_at, updated_at FROM annotations a";

fn annotation(row: &Row<'_>) -> rusqlite::Result<Annotation> {
    Ok(Annotation {
        annotation_id: row.get(0)?,
        document_id: row.get(1)?,
        collection_id: row.get(2)?,
        label: row.get(3)?,
        actor_id: row.get(4)?,
        retriever_id: row.get(5)?,
        version: row.get(6)?,
        fields: from_json_column(row, 7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
    })
}

fn revision(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(Revision {
        version: row.get(0)?,
        prior: from_json_column(row, 1)?,
        edited_at: row.get(2)?,
        edited_by: row.get(3)?,
        edited_by_type: row.get(4)?,
    })
}

pub fn insert(tx: &Transaction<'_>, scope: &Scope, a: &Annotation) -> Result<()> {
    let sql = "INSERT INTO annotations (annotation_id, namespace_id, document_id, collection_id, label, actor_id,
         retriever_id, version, fields, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let values = params![
        a.annotation_id,
        scope.namespace_id,
        a.document_id,
        a.collection_id,
        a.label,
        a.actor_id,
        a.retriever_id,
        a.version,
        json(&a.fields)?,
        a.created_at,
        a.updated_at
    ];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)?;
    tell(tx, "annotation.created", scope, a)
}

/// Tells whoever wants it what became of an annotation.
fn tell(tx: &Transaction<'_>, event_type: &'static str, scope: &Scope, a: &Annotation) -> Result<()> {
    webhooks::queue(tx, &Event::new(event_type, &scope.namespace_id), || {
        serde_json::json!({
            "annotation_id": a.annotation_id,
            "document_id": a.document_id,
            "collection_id": a.collection_id,
            "label": a.label,
            "version": a.version,
        })
    })
}

/// Writes the edited annotation, and keeps what the edit replaced.
pub fn edit(tx: &Transaction<'_>, scope: &Scope, a: &Annotation, replaced: &Revision) -> Result<()> {
    let sql = "UPDATE annotations SET label = ?3, version = ?4, fields = ?5, updated_at = ?6
         WHERE annotation_id = ?1 AND namespace_id = ?2";
    let values = params![a.annotation_id, scope.namespace_id, a.label, a.version, json(&a.fields)?, a.updated_at];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)?;
    let sql = "INSERT INTO annotation_revisions (annotation_id, version, prior, edited_at, edited_by, edited_by_type)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let r = replaced;
    let values = params![a.annotation_id, r.version, json(&r.prior)?, r.edited_at, r.edited_by, r.edited_by_type];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)?;
    tell(tx, "annotation.updated", scope, a)
}

/// An annotation of the scope. One of a document that is kept from the scope's reader is missing.
pub fn get(connection: &Connection, scope: &Scope, annotation_id: &str) -> Result<Annotation> {
    let own = [annotation_id, &scope.namespace_id].map(|text| SqlValue::Text(text.to_owned()));
    let mut clause = Clause { sql: "annotation_id = ? AND namespace_id = ?".into(), values: own.to_vec() };
    clause.and(access::unhidden(scope, "a.document_id"));
    let found = rows(connection, &format!("{SELECT} WHERE {}", clause.sql), &clause.values, annotation)?;
    found.into_iter().next().ok_or_else(|| Error::missing("annotation", annotation_id))
}

/// The replaced versions of an annotation that [`get`] or [`list`] found, oldest first.
pub fn revisions(connection: &Connection, annotation_id: &str) -> Result<Vec<Revision>> {
    let sql = "SELECT version, prior, edited_at, edited_by, edited_by_type FROM annotation_revisions
         WHERE annotation_id = ? ORDER BY version";
    rows(connection, sql, &[annotation_id], revision)
}

/// Removes an annotation of the scope with its versions.
pub fn delete(tx: &Transaction<'_>, scope: &Scope, annotation_id: &str) -> Result<()> {
    let gone = get(tx, scope, annotation_id)?;
    let sql = "DELETE FROM annotations WHERE annotation_id = ?1 AND namespace_id = ?2";
    tx.prepare_cached(sql).and_then(|mut s| s.execute([annotation_id, &scope.namespace_id])).map_err(from_sql)?;
    tell(tx, "annotation.deleted", scope, &gone)
}

/// Which annotations of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub document_id: Option<String>,
    pub collection_id: Option<String>,
    pub label: Option<String>,
    pub actor_id: Option<String>,
    pub retriever_id: Option<String>,
    /// As they stood at this time: those of before, by the label that they had.
    pub as_of: Option<String>,
}

impl Selection {
    fn clause(&self, scope: &Scope) -> Clause {
        let mut clause = Clause { sql: "a.namespace_id = ?".into(), values: vec![scope.namespace_id.clone().into()] };
        let columns = [
            ("document_id", &self.document_id),
            ("collection_id", &self.collection_id),
            ("actor_id", &self.actor_id),
            ("retriever_id", &self.retriever_id),
        ];
        for (column, value) in columns.into_iter().filter_map(|(column, value)| Some((column, value.clone()?))) {
            clause.and(Clause { sql: format!("a.{column} = ?"), values: vec![value.into()] });
        }
        clause.and(access::unhidden(scope, "a.document_id"));
        let now = || Clause { sql: "a.label".into(), values: Vec::new() };
        // The first edit after that time that changed the label replaced the one of that time.
        let then = |time: &String| Clause {
            sql: "coalesce((SELECT json_extract(r.prior, '$.label') FROM annotation_revisions r
                 WHERE r.annotation_id = a.annotation_id AND r.edited_at > ?
                 AND json_extract(r.prior, '$.label') IS NOT NULL ORDER BY r.version LIMIT 1), a.label)"
                .into(),
            values: vec![SqlValue::Text(time.clone())],
        };
        if let Some(label) = &self.label {
            let mut held = self.as_of.as_ref().map_or_else(now, then);
            held.sql.push_str(" = ?");
            held.values.push(label.clone().into());
            clause.and(held);
        }
        if let Some(time) = &self.as_of {
            clause.and(Clause { sql: "a.created_at <= ?".into(), values: vec![SqlValue::Text(time.clone())] });
        }
        clause
    }
}

/// A page of the selected annotations in their present state, newest first, and how many are selected.
pub fn list(
    connection: &Connection,
    scope: &Scope,
    selection: &Selection,
    (limit, offset): (usize, usize),
) -> Result<(Vec<Annotation>, i64)> {
    let mut clause = selection.clause(scope);
    let sql = format!("SELECT count(*) FROM annotations a WHERE {}", clause.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let total = statement.query_row(params_from_iter(&clause.values), |row| row.get(0)).map_err(from_sql)?;
    let sql = format!("{SELECT} WHERE {} ORDER BY a.seq DESC LIMIT ? OFFSET ?", clause.sql);
    let number = |n: usize| SqlValue::from(i64::try_from(n).unwrap_or(i64::MAX));
    clause.values.extend([number(limit), number(offset)]);
    Ok((rows(connection, &sql, &clause.values, annotation)?, total))
}

/// How many of the selected annotations there are of each label.
pub fn count_by_label(connection: &Connection, scope: &Scope, selection: &Selection) -> Result<BTreeMap<String, i64>> {
    let clause = selection.clause(scope);
    let sql = format!("SELECT a.label, count(*) FROM annotations a WHERE {} GROUP BY a.label", clause.sql);
    let counted = rows(connection, &sql, &clause.values, |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counted.into_iter().collect())
}
