//! Rows of organizations, users, API keys and namespaces: who may come in, and where.

use super::{
    documents::{from_json_column, json},
    from_sql,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use strata_model::{Error, Fields, Permission, Principal, Result, Scope};

#[derive(Debug, Clone, PartialEq)]
pub struct Organization {
    pub organization_id: String,
    pub name: String,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub user_id: String,
    pub organization_id: String,
    pub email: String,
    pub name: String,
    /// `admin`, `member` or `viewer`.
    pub role: String,
    /// `active`, `suspended` or `pending`.
    pub status: String,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

/// An API key without its secret, of which only the SHA-256 is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    pub key_id: String,
    pub organization_id: String,
    pub user_id: String,
    pub name: String,
    pub key_hash: String,
    /// The first characters of the secret, for a person to tell keys apart.
    pub key_prefix: String,
    pub permissions: Vec<Permission>,
    /// Scopes as the API shows them (`resource_type`, `resource_id`, `operations`).
    pub scopes: Vec<serde_json::Value>,
    /// `active` or `revoked`; a key past `expires_at` counts as expired.
    pub status: String,
    pub expires_at: Option<String>,
    pub last_used_at: Option<String>,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
    /// The retriever that the key is for, if it is for one only.
    pub retriever_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Namespace {
    pub namespace_id: String,
    pub organization_id: String,
    pub name: String,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

fn text(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

fn one<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>> {
    connection.prepare_cached(sql).and_then(|mut s| s.query_row(values, read).optional()).map_err(from_sql)
}

fn many<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(values, read).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

fn run(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

// Organizations

/// Whether any organization exists: an empty catalog wants a bootstrap.
pub fn any_organization(connection: &Connection) -> Result<bool> {
    Ok(one(connection, "SELECT 1 FROM organizations LIMIT 1", [], |_| Ok(()))?.is_some())
}

pub fn put_organization(tx: &Transaction<'_>, o: &Organization) -> Result<()> {
    run(
        tx,
        "INSERT INTO organizations (organization_id, name, body, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (organization_id) DO UPDATE SET name = excluded.name, body = excluded.body, updated_at = excluded.updated_at",
        params![o.organization_id, o.name, text(&o.body)?, o.created_at, o.updated_at],
    )
    .map(drop)
}

pub fn organization(connection: &Connection, organization_id: &str) -> Result<Organization> {
    let sql =
        "SELECT organization_id, name, body, created_at, updated_at FROM organizations WHERE organization_id = ?1";
    one(connection, sql, [organization_id], |r| {
        Ok(Organization {
            organization_id: r.get(0)?,
            name: r.get(1)?,
            body: from_json_column(r, 2)?,
            created_at: r.get(3)?,
            updated_at: r.get(4)?,
        })
    })?
    .ok_or_else(|| Error::missing("organization", organization_id))
}

// Users

const USER: &str =
    "SELECT user_id, organization_id, email, name, role, status, body, created_at, updated_at FROM users";

fn user_row(r: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        user_id: r.get(0)?,
        organization_id: r.get(1)?,
        email: r.get(2)?,
        name: r.get(3)?,
        role: r.get(4)?,
        status: r.get(5)?,
        body: from_json_column(r, 6)?,
        created_at: r.get(7)?,
        updated_at: r.get(8)?,
    })
}

pub fn insert_user(tx: &Transaction<'_>, u: &User) -> Result<()> {
    let done = run(
        tx,
        "INSERT INTO users (user_id, organization_id, email, name, role, status, body, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            u.user_id,
            u.organization_id,
            u.email,
            u.name,
            u.role,
            u.status,
            text(&u.body)?,
            u.created_at,
            u.updated_at
        ],
    );
    done.map(drop).map_err(|e| named(e, "user", &u.email))
}

pub fn update_user(tx: &Transaction<'_>, u: &User) -> Result<()> {
    let sql = "UPDATE users SET name = ?2, role = ?3, status = ?4, body = ?5, updated_at = ?6 WHERE user_id = ?1";
    run(tx, sql, params![u.user_id, u.name, u.role, u.status, text(&u.body)?, u.updated_at]).map(drop)
}

pub fn delete_user(tx: &Transaction<'_>, organization_id: &str, email: &str) -> Result<()> {
    match run(tx, "DELETE FROM users WHERE organization_id = ?1 AND email = ?2", [organization_id, email])? {
        0 => Err(Error::missing("user", email)),
        _ => Ok(()),
    }
}

/// A user by e-mail address, or by id.
pub fn user(connection: &Connection, organization_id: &str, identifier: &str) -> Result<User> {
    let sql = format!("{USER} WHERE organization_id = ?1 AND (email = ?2 OR user_id = ?2)");
    one(connection, &sql, [organization_id, identifier], user_row)?.ok_or_else(|| Error::missing("user", identifier))
}

pub fn users(connection: &Connection, organization_id: &str) -> Result<Vec<User>> {
    many(
        connection,
        &format!("{USER} WHERE organization_id = ?1 ORDER BY created_at, user_id"),
        [organization_id],
        user_row,
    )
}

// Keys

const KEY: &str = "SELECT key_id, organization_id, user_id, name, key_hash, key_prefix, permissions, scopes, status, expires_at, \
     last_used_at, body, created_at, updated_at, retriever_id FROM api_keys";

fn key_row(r: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        key_id: r.get(0)?,
        organization_id: r.get(1)?,
        user_id: r.get(2)?,
        name: r.get(3)?,
        key_hash: r.get(4)?,
        key_prefix: r.get(5)?,
        permissions: from_json_column(r, 6)?,
        scopes: from_json_column(r, 7)?,
        status: r.get(8)?,
        expires_at: r.get(9)?,
        last_used_at: r.get(10)?,
        body: from_json_column(r, 11)?,
        created_at: r.get(12)?,
        updated_at: r.get(13)?,
        retriever_id: r.get(14)?,
    })
}

pub fn insert_key(tx: &Transaction<'_>, k: &ApiKey) -> Result<()> {
    let done = run(
        tx,
        "INSERT INTO api_keys (key_id, organization_id, user_id, name, key_hash, key_prefix, permissions, scopes, status,
         expires_at, last_used_at, body, created_at, updated_at, retriever_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            k.key_id,
            k.organization_id,
            k.user_id,
            k.name,
            k.key_hash,
            k.key_prefix,
            text(&k.permissions)?,
            text(&k.scopes)?,
            k.status,
            k.expires_at,
            k.last_used_at,
            text(&k.body)?,
            k.created_at,
            k.updated_at,
            k.retriever_id
        ],
    );
    done.map(drop).map_err(|e| named(e, "API key", &k.name))
}

pub fn update_key(tx: &Transaction<'_>, k: &ApiKey) -> Result<()> {
    let done = run(
        tx,
        "UPDATE api_keys SET name = ?2, key_hash = ?3, key_prefix = ?4, permissions = ?5, scopes = ?6, status = ?7,
         expires_at = ?8, body = ?9, updated_at = ?10 WHERE key_id = ?1",
        params![
            k.key_id,
            k.name,
            k.key_hash,
            k.key_prefix,
            text(&k.permissions)?,
            text(&k.scopes)?,
            k.status,
            k.expires_at,
            text(&k.body)?,
            k.updated_at
        ],
    );
    done.map(drop).map_err(|e| named(e, "API key", &k.name))
}

/// Keys of a user, oldest first.
pub fn keys(connection: &Connection, user_id: &str) -> Result<Vec<ApiKey>> {
    many(connection, &format!("{KEY} WHERE user_id = ?1 ORDER BY created_at, key_id"), [user_id], key_row)
}

/// Keys of a retriever, oldest first.
pub fn retriever_keys(connection: &Connection, organization_id: &str, retriever_id: &str) -> Result<Vec<ApiKey>> {
    let sql = format!("{KEY} WHERE organization_id = ?1 AND retriever_id = ?2 ORDER BY created_at, key_id");
    many(connection, &sql, [organization_id, retriever_id], key_row)
}

/// A retriever's key by id.
pub fn retriever_key(
    connection: &Connection,
    organization_id: &str,
    retriever_id: &str,
    key_id: &str,
) -> Result<ApiKey> {
    let sql = format!("{KEY} WHERE organization_id = ?1 AND retriever_id = ?2 AND key_id = ?3");
    let found = one(connection, &sql, [organization_id, retriever_id, key_id], key_row)?;
    found.ok_or_else(|| Error::missing("API key", key_id))
}

/// The namespace of the retriever that a key is for.
pub fn namespace_of_key(connection: &Connection, key: &ApiKey) -> Result<Option<String>> {
    let sql = "SELECT r.namespace_id FROM retrievers r JOIN namespaces n ON n.namespace_id = r.namespace_id
         WHERE r.retriever_id = ?1 AND n.organization_id = ?2";
    match &key.retriever_id {
        Some(retriever_id) => one(connection, sql, [retriever_id, &key.organization_id], |r| r.get(0)),
        None => Ok(None),
    }
}

/// A user's key by name or id: one that is for no retriever before one that is, and the active one where a revoked one
/// has the same name.
pub fn key(connection: &Connection, user_id: &str, identifier: &str) -> Result<ApiKey> {
    let sql = format!(
        "{KEY} WHERE user_id = ?1 AND (name = ?2 OR key_id = ?2) \
         ORDER BY key_id = ?2 DESC, retriever_id IS NULL DESC, status = 'active' DESC, created_at DESC LIMIT 1"
    );
    one(connection, &sql, [user_id, identifier], key_row)?.ok_or_else(|| Error::missing("API key", identifier))
}

/// The key with this SHA-256, and its user's status, whatever their state.
pub fn key_by_hash(connection: &Connection, key_hash: &str) -> Result<Option<(ApiKey, String)>> {
    let sql = format!(
        "{} WHERE k.key_hash = ?1",
        KEY.replace("SELECT ", "SELECT k.")
            .replace(", ", ", k.")
            .replace(" FROM api_keys", ", u.status FROM api_keys k JOIN users u ON u.user_id = k.user_id")
    );
    one(connection, &sql, [key_hash], |r| Ok((key_row(r)?, r.get(15)?)))
}

pub fn touch_key(tx: &Transaction<'_>, key_id: &str, now: &str) -> Result<()> {
    run(tx, "UPDATE api_keys SET last_used_at = ?2 WHERE key_id = ?1", [key_id, now]).map(drop)
}

// Namespaces

const NAMESPACE: &str = "SELECT namespace_id, organization_id, name, body, created_at, updated_at FROM namespaces";

fn namespace_row(r: &Row<'_>) -> rusqlite::Result<Namespace> {
    Ok(Namespace {
        namespace_id: r.get(0)?,
        organization_id: r.get(1)?,
        name: r.get(2)?,
        body: from_json_column(r, 3)?,
        created_at: r.get(4)?,
        updated_at: r.get(5)?,
    })
}

pub fn insert_namespace(tx: &Transaction<'_>, n: &Namespace) -> Result<()> {
    let done = run(
        tx,
        "INSERT INTO namespaces (namespace_id, organization_id, name, body, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![n.namespace_id, n.organization_id, n.name, text(&n.body)?, n.created_at, n.updated_at],
    );
    done.map(drop).map_err(|e| named(e, "namespace", &n.name))
}

pub fn update_namespace(tx: &Transaction<'_>, n: &Namespace) -> Result<()> {
    let sql = "UPDATE namespaces SET name = ?2, body = ?3, updated_at = ?4 WHERE namespace_id = ?1";
    run(tx, sql, params![n.namespace_id, n.name, text(&n.body)?, n.updated_at])
        .map(drop)
        .map_err(|e| named(e, "namespace", &n.name))
}

/// Removes a namespace and everything in it.
pub fn delete_namespace(tx: &Transaction<'_>, scope: &Scope) -> Result<()> {
    let collections =
        "DELETE FROM changes WHERE collection_id IN (SELECT collection_id FROM collections WHERE namespace_id = ?1)";
    run(tx, collections, [&scope.namespace_id])?;
    run(tx, "DELETE FROM tasks WHERE namespace_id = ?1", [&scope.namespace_id])?;
    run(tx, "DELETE FROM namespaces WHERE namespace_id = ?1", [&scope.namespace_id]).map(drop)
}

/// How much a namespace holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceCounts {
    pub documents: i64,
    pub buckets: i64,
    pub collections: i64,
    pub objects: i64,
    /// Interactions, annotations, data sets, evaluations and benchmarks.
    pub feedback: i64,
}

impl NamespaceCounts {
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

pub fn namespace_counts(connection: &Connection, scope: &Scope) -> Result<NamespaceCounts> {
    counts_of(connection, &[scope.namespace_id.as_str()])
}

/// How much several namespaces hold together.
pub fn namespaces_together<'n>(
    connection: &Connection,
    namespaces: impl IntoIterator<Item = &'n Namespace>,
) -> Result<NamespaceCounts> {
    let ids: Vec<&str> = namespaces.into_iter().map(|namespace| namespace.namespace_id.as_str()).collect();
    counts_of(connection, &ids)
}

fn counts_of(connection: &Connection, namespace_ids: &[&str]) -> Result<NamespaceCounts> {
    let sql = "WITH own AS (SELECT value AS id FROM json_each(?1)) SELECT
        (SELECT coalesce(sum(documents), 0) FROM document_counts
          WHERE collection_id IN (SELECT collection_id FROM collections WHERE namespace_id IN (SELECT id FROM own))),
        (SELECT count(*) FROM buckets WHERE namespace_id IN (SELECT id FROM own)),
        (SELECT count(*) FROM collections WHERE namespace_id IN (SELECT id FROM own)),
        (SELECT count(*) FROM objects
          WHERE bucket_id IN (SELECT bucket_id FROM buckets WHERE namespace_id IN (SELECT id FROM own))),
        (SELECT count(*) FROM interactions WHERE namespace_id IN (SELECT id FROM own))
          + (SELECT count(*) FROM annotations WHERE namespace_id IN (SELECT id FROM own))
          + (SELECT count(*) FROM evaluation_datasets WHERE namespace_id IN (SELECT id FROM own))
          + (SELECT count(*) FROM experiments WHERE namespace_id IN (SELECT id FROM own))";
    let row = |row: &Row<'_>| {
        Ok(NamespaceCounts {
            documents: row.get(0)?,
            buckets: row.get(1)?,
            collections: row.get(2)?,
            objects: row.get(3)?,
            feedback: row.get(4)?,
        })
    };
    Ok(one(connection, sql, [json(&namespace_ids)?], row)?.unwrap_or_default())
}

/// Whether any organization has a namespace of this id: ids are unique over the whole catalog.
pub fn namespace_id_is_taken(connection: &Connection, namespace_id: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM namespaces WHERE namespace_id = ?1";
    Ok(one(connection, sql, [namespace_id], |_| Ok(()))?.is_some())
}

/// A namespace by its id alone, for background work on a row that names it.
pub fn find_namespace(connection: &Connection, namespace_id: &str) -> Result<Option<Namespace>> {
    one(connection, &format!("{NAMESPACE} WHERE namespace_id = ?1"), [namespace_id], namespace_row)
}

/// The namespaces that `principal` may enter, oldest first.
pub fn namespaces(connection: &Connection, principal: &Principal) -> Result<Vec<Namespace>> {
    let sql = format!("{NAMESPACE} WHERE organization_id = ?1 ORDER BY created_at, namespace_id");
    let mut all = many(connection, &sql, [&principal.organization_id], namespace_row)?;
    all.retain(|n| principal.may_enter(&n.namespace_id));
    Ok(all)
}

/// A namespace by id or name. One that exists but is not the principal's is missing, like any other.
pub fn namespace(connection: &Connection, principal: &Principal, identifier: &str) -> Result<Namespace> {
    let sql = format!(
        "{NAMESPACE} WHERE organization_id = ?1 AND (namespace_id = ?2 OR name = ?2) ORDER BY namespace_id = ?2 DESC LIMIT 1"
    );
    one(connection, &sql, [&principal.organization_id, identifier], namespace_row)?
        .filter(|n| principal.may_enter(&n.namespace_id))
        .ok_or_else(|| Error::missing("namespace", identifier))
}

impl Namespace {
    /// The capability to this namespace's rows, for the server's own work.
    pub fn scope(&self) -> Scope {
        Scope::whole(&*self.organization_id, &*self.namespace_id)
    }
}

fn named(error: Error, what: &str, name: &str) -> Error {
    match error {
        Error::Conflict(message) if message.contains("UNIQUE") => {
            Error::Conflict(format!("a {what} named `{name}` exists already"))
        }
        other => other,
    }
}
