//! What data subjects asked for, and what the catalog holds of them: a person is a user of the organization, or whoever
//! interactions and annotations name.

use super::{
    documents::{from_json_column, json, rows},
    from_sql,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Value as SqlValue};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use strata_model::{Fields, Result};

/// What stands where the name of a person stood who was erased.
const ERASED: &str = "erased";

/// What was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub request_id: String,
    pub organization_id: String,
    /// `export` or `delete`.
    pub kind: String,
    pub subject: String,
    /// The user whose key asked.
    pub requested_by: String,
    /// `pending`, `completed`, `failed` or `expired`.
    pub status: String,
    /// How often the work was begun.
    pub attempts: i64,
    /// The content of an export, until it expires.
    pub blob_hash: Option<String>,
    /// `erased` and `kept`: how many by category; `error`.
    pub body: Fields,
    pub created_at: String,
    pub completed_at: Option<String>,
    pub expires_at: Option<String>,
}

const SELECT: &str = "SELECT request_id, organization_id, kind, subject, requested_by, status, attempts, blob_hash,
    body, created_at, completed_at, expires_at FROM subject_requests";

fn request(row: &Row<'_>) -> rusqlite::Result<Request> {
    Ok(Request {
        request_id: row.get(0)?,
        organization_id: row.get(1)?,
        kind: row.get(2)?,
        subject: row.get(3)?,
        requested_by: row.get(4)?,
        status: row.get(5)?,
        attempts: row.get(6)?,
        blob_hash: row.get(7)?,
        body: from_json_column(row, 8)?,
        created_at: row.get(9)?,
        completed_at: row.get(10)?,
        expires_at: row.get(11)?,
    })
}

/// Writes a request, new or known.
pub fn put(tx: &Transaction<'_>, r: &Request) -> Result<()> {
    let sql =
        "INSERT INTO subject_requests (request_id, organization_id, kind, subject, requested_by, status, attempts,
         blob_hash, body, created_at, completed_at, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (request_id) DO UPDATE SET status = excluded.status, attempts = excluded.attempts,
         blob_hash = excluded.blob_hash, body = excluded.body, completed_at = excluded.completed_at,
         expires_at = excluded.expires_at";
    let values = params![
        r.request_id,
        r.organization_id,
        r.kind,
        r.subject,
        r.requested_by,
        r.status,
        r.attempts,
        r.blob_hash,
        json(&r.body)?,
        r.created_at,
        r.completed_at,
        r.expires_at
    ];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}

/// The requests of an organization, newest first, at most `limit`.
pub fn list(connection: &Connection, organization_id: &str, limit: usize) -> Result<Vec<Request>> {
    let sql = format!("{SELECT} WHERE organization_id = ? ORDER BY created_at DESC, request_id LIMIT {limit}");
    rows(connection, &sql, &[organization_id], request)
}

/// A request of the same kind and subject that is not done yet.
pub fn waiting(connection: &Connection, organization_id: &str, kind: &str, subject: &str) -> Result<Option<Request>> {
    let sql =
        format!("{SELECT} WHERE organization_id = ?1 AND kind = ?2 AND subject = ?3 AND status = 'pending' LIMIT 1");
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    statement.query_row([organization_id, kind, subject], request).optional().map_err(from_sql)
}

/// How many requests of an organization wait.
pub fn count_waiting(connection: &Connection, organization_id: &str) -> Result<i64> {
    let sql = "SELECT count(*) FROM subject_requests WHERE organization_id = ?1 AND status = 'pending'";
    connection.query_row(sql, [organization_id], |row| row.get(0)).map_err(from_sql)
}

/// The oldest request that waits, begun once more.
pub fn begin(tx: &Transaction<'_>) -> Result<Option<Request>> {
    let sql = format!("{SELECT} WHERE status = 'pending' ORDER BY created_at, request_id LIMIT 1");
    let found = tx.query_row(&sql, [], request).optional().map_err(from_sql)?;
    let Some(mut found) = found else { return Ok(None) };
    found.attempts += 1;
    put(tx, &found)?;
    Ok(Some(found))
}

/// Ends exports that have expired; answers the contents that nothing may need any more.
pub fn expire(tx: &Transaction<'_>, now: &str) -> Result<Vec<String>> {
    let sql = "SELECT blob_hash FROM subject_requests WHERE blob_hash IS NOT NULL AND expires_at <= ?";
    let hashes = rows(tx, sql, &[now], |row| row.get(0))?;
    let sql = "UPDATE subject_requests SET blob_hash = NULL, status = 'expired'
         WHERE blob_hash IS NOT NULL AND expires_at <= ?1";
    tx.execute(sql, [now]).map_err(from_sql)?;
    Ok(hashes)
}

/// What one person is called in one organization, and where to look.
#[derive(Debug, Clone)]
pub struct Person {
    organization_id: String,
    /// What was asked for; of a user the id and the e-mail address, too.
    names: Vec<String>,
    namespaces: Vec<String>,
}

/// Finds out what `subject` is called: an id or an e-mail address of a user, or what interactions name.
pub fn person(connection: &Connection, organization_id: &str, subject: &str) -> Result<Person> {
    let sql = "SELECT user_id FROM users WHERE organization_id = ?1 AND (user_id = ?2 OR email = ?2)
         UNION SELECT email FROM users WHERE organization_id = ?1 AND (user_id = ?2 OR email = ?2) UNION SELECT ?2";
    let names = rows(connection, sql, &[organization_id, subject], |row| row.get(0))?;
    let namespaces =
        rows(connection, "SELECT namespace_id FROM namespaces WHERE organization_id = ?", &[organization_id], |row| {
            row.get(0)
        })?;
    Ok(Person { organization_id: organization_id.to_owned(), names, namespaces })
}

/// What one step of an erasure removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// How many rows by category.
    pub erased: BTreeMap<&'static str, u64>,
    /// Retrievers that lost interactions.
    pub retriever_ids: BTreeSet<String>,
}

/// Interactions of a person in a namespace, and those of nobody in sessions of theirs: `?1` the namespace, `?2` the
/// person. The sessions come first, since they are known by what the person did in them.
const INTERACTIONS: [(&str, &str); 2] = [
    (
        "session_interactions",
        "namespace_id = ?1 AND user_id IS NULL AND session_id IN (SELECT session_id FROM interactions
         WHERE namespace_id = ?1 AND user_id = ?2 AND session_id IS NOT NULL)",
    ),
    ("interactions", "namespace_id = ?1 AND user_id = ?2"),
];

/// Removes at most about `limit` rows of a person. It is over when a step removes nothing.
pub fn erase(tx: &Transaction<'_>, person: &Person, limit: usize) -> Result<Step> {
    let mut step = Step::default();
    let mut left = limit;
    for (category, condition) in INTERACTIONS {
        let sql = format!(
            "DELETE FROM interactions WHERE seq IN (SELECT seq FROM interactions WHERE {condition} LIMIT ?3)
             RETURNING retriever_id"
        );
        for (namespace, name) in person.places() {
            let retrievers: Vec<Option<String>> = rows(tx, &sql, &marks(namespace, name, left), |row| row.get(0))?;
            left = left.saturating_sub(retrievers.len());
            step.count(category, retrievers.len());
            step.retriever_ids.extend(retrievers.into_iter().flatten());
        }
        // Only when no session is left may the person's own interactions go, by which sessions are found.
        if left == 0 {
            return Ok(step);
        }
    }
    let annotations = "DELETE FROM annotations WHERE seq IN (SELECT seq FROM annotations
         WHERE namespace_id = ?1 AND actor_id = ?2 LIMIT ?3)";
    let edits = "UPDATE annotation_revisions SET edited_by = ?3 WHERE edited_by = ?2 AND annotation_id IN
         (SELECT annotation_id FROM annotations WHERE namespace_id = ?1)";
    for (namespace, name) in person.places() {
        let removed = run(tx, annotations, params![namespace, name, i64::try_from(left).unwrap_or(i64::MAX)])?;
        left = left.saturating_sub(removed);
        step.count("annotations", removed);
        step.count("annotation_edits", run(tx, edits, [namespace, name, ERASED])?);
    }
    Ok(step)
}

fn run(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

fn marks(namespace: &str, name: &str, limit: usize) -> [SqlValue; 3] {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    [namespace.to_owned().into(), name.to_owned().into(), limit.into()]
}

impl Step {
    fn count(&mut self, category: &'static str, rows: usize) {
        if rows > 0 {
            *self.erased.entry(category).or_default() += rows as u64;
        }
    }

    pub fn is_over(&self) -> bool {
        self.erased.is_empty()
    }
}

impl Person {
    /// Every namespace with every name.
    fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.names.as_slice();
        self.namespaces.iter().flat_map(move |namespace| {
            let namespace = namespace.as_str();
            names.iter().map(move |name| (namespace, name.as_str()))
        })
    }
}

/// What of a person stays when they are erased: the account with its keys, which whoever administers users removes, and
/// what the audit log says of it, which must not be changed.
pub fn kept(connection: &Connection, person: &Person) -> Result<BTreeMap<&'static str, u64>> {
    let tables = [
        ("users", "SELECT count(*) FROM users WHERE organization_id = ?1 AND user_id = ?2"),
        ("api_keys", "SELECT count(*) FROM api_keys WHERE organization_id = ?1 AND user_id = ?2"),
        ("audit_events", "SELECT count(*) FROM audit_events WHERE organization_id = ?1 AND user_id = ?2"),
    ];
    let mut kept: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (category, sql) in tables {
        let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
        for name in &person.names {
            let count: i64 =
                statement.query_row([&person.organization_id, name], |row| row.get(0)).map_err(from_sql)?;
            if count > 0 {
                *kept.entry(category).or_default() += count.unsigned_abs();
            }
        }
    }
    Ok(kept)
}

/// What is known of a person, category by category, each row as JSON: `visit` gets them in turn and may end it with an
/// error. Secrets are not among it, nor hashes of keys.
pub fn visit(
    connection: &Connection,
    person: &Person,
    mut visit: impl FnMut(&'static str, Value) -> Result<()>,
) -> Result<()> {
    let own = [
        (
            "users",
            "SELECT json_object('user_id', user_id, 'email', email, 'user_name', name, 'role', role, 'status', status,
             'body', json(body), 'created_at', created_at, 'updated_at', updated_at)
             FROM users WHERE organization_id = ?1 AND user_id = ?2",
        ),
        (
            "api_keys",
            "SELECT json_object('key_id', key_id, 'name', name, 'status', status, 'expires_at', expires_at,
             'last_used_at', last_used_at, 'created_at', created_at)
             FROM api_keys WHERE organization_id = ?1 AND user_id = ?2",
        ),
        (
            "audit_events",
            "SELECT json_object('audit_id', audit_id, 'action', action, 'resource_type', resource_type,
             'resource_id', resource_id, 'status', status, 'ip_address', ip_address, 'user_agent', user_agent,
             'timestamp', created_at) FROM audit_events WHERE organization_id = ?1 AND user_id = ?2 ORDER BY audit_id",
        ),
    ];
    for (category, sql) in own {
        for name in &person.names {
            each(connection, sql, [&person.organization_id, name], |row| visit(category, row))?;
        }
    }
    let annotations = "SELECT json_object('annotation_id', annotation_id, 'document_id', document_id, 'namespace_id',
         namespace_id, 'annotation', json(fields), 'created_at', created_at, 'updated_at', updated_at)
         FROM annotations WHERE namespace_id = ?1 AND actor_id = ?2 ORDER BY seq";
    for (namespace, name) in person.places() {
        for (category, condition) in INTERACTIONS {
            let sql = format!(
                "SELECT json_object('namespace_id', namespace_id, 'interaction', json(fields)) FROM interactions
                 WHERE {condition} ORDER BY seq"
            );
            each(connection, &sql, [namespace, name], |row| visit(category, row))?;
        }
        each(connection, annotations, [namespace, name], |row| visit("annotations", row))?;
    }
    Ok(())
}

fn each(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    mut visit: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let mut found = statement.query(values).map_err(from_sql)?;
    while let Some(row) = found.next().map_err(from_sql)? {
        visit(from_json_column(row, 0).map_err(from_sql)?)?;
    }
    Ok(())
}
