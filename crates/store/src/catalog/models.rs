//! Rows of the models that organizations bring, of the namespaces that may use them, and of the uploads they come by.

use super::{documents::from_json_column, from_sql};
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, params};
use strata_model::{Error, Fields, Result, Scope};

/// What the names of models that were brought begin with.
pub const PREFIX: &str = "custom/";

/// A stored model.
#[derive(Debug, Clone, PartialEq)]
pub struct OrgModel {
    pub model_id: String,
    pub organization_id: String,
    pub name: String,
    pub version: String,
    /// SHA-256 of the archive, hex.
    pub archive_hash: String,
    pub fingerprint: String,
    pub dimensions: usize,
    /// What the API shows beside the columns.
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

impl OrgModel {
    /// `custom/{name}@{version}`, unique in its organization.
    pub fn full_name(&self) -> String {
        format!("{PREFIX}{}@{}", self.name, self.version)
    }
}

/// A stored upload of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelUpload {
    pub upload_id: String,
    pub organization_id: String,
    /// `PENDING`, `COMPLETED`, `FAILED` or `CANCELED`.
    pub status: String,
    /// The stored archive, while nothing has come of it.
    pub archive_hash: Option<String>,
    pub model_id: Option<String>,
    pub body: Fields,
    pub expires_at: String,
    pub created_at: String,
    pub updated_at: String,
}

const MODEL: &str =
    "SELECT model_id, organization_id, name, version, archive_hash, fingerprint, dimensions, body, created_at,
    updated_at FROM org_models";
const UPLOAD: &str =
    "SELECT upload_id, organization_id, status, archive_hash, model_id, body, expires_at, created_at, updated_at
    FROM model_uploads";

fn model(row: &Row<'_>) -> rusqlite::Result<OrgModel> {
    Ok(OrgModel {
        model_id: row.get(0)?,
        organization_id: row.get(1)?,
        name: row.get(2)?,
        version: row.get(3)?,
        archive_hash: row.get(4)?,
        fingerprint: row.get(5)?,
        dimensions: usize::try_from(row.get::<_, i64>(6)?).unwrap_or_default(),
        body: from_json_column(row, 7)?,
        created_at: row.get(8)?,
        updated_at: row.get(9)?,
    })
}

fn upload_row(row: &Row<'_>) -> rusqlite::Result<ModelUpload> {
    Ok(ModelUpload {
        upload_id: row.get(0)?,
        organization_id: row.get(1)?,
        status: row.get(2)?,
        archive_hash: row.get(3)?,
        model_id: row.get(4)?,
        body: from_json_column(row, 5)?,
        expires_at: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

/// Adds a model; a name and version that are taken are [`Error::Conflict`].
pub fn insert(tx: &Transaction<'_>, m: &OrgModel) -> Result<()> {
    let sql =
        "INSERT INTO org_models (model_id, organization_id, name, version, archive_hash, fingerprint, dimensions, body,
        created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let values = params![
        m.model_id,
        m.organization_id,
        m.name,
        m.version,
        m.archive_hash,
        m.fingerprint,
        i64::try_from(m.dimensions).map_err(Error::internal)?,
        text(&m.body)?,
        m.created_at,
        m.updated_at
    ];
    tx.execute(sql, values).map(drop).map_err(|error| match from_sql(error) {
        Error::Conflict(message) if message.contains("UNIQUE") => taken(&m.name, &m.version),
        other => other,
    })
}

/// The refusal of a name and version that are there already.
pub fn taken(name: &str, version: &str) -> Error {
    Error::Conflict(format!("the model `{name}` has a version {version} already; upload it as another version"))
}

/// A model of the organization by its id, or as `custom/{name}@{version}`.
pub fn find(connection: &Connection, organization_id: &str, identifier: &str) -> Result<Option<OrgModel>> {
    let (name, version) = identifier.strip_prefix(PREFIX).and_then(|name| name.split_once('@')).unwrap_or_default();
    let sql = format!("{MODEL} WHERE organization_id = ?1 AND (model_id = ?2 OR (name = ?3 AND version = ?4))");
    let values = params![organization_id, identifier, name, version];
    connection.prepare_cached(&sql).and_then(|mut s| s.query_row(values, model).optional()).map_err(from_sql)
}

/// [`find`], where absence is an error.
pub fn get(connection: &Connection, organization_id: &str, identifier: &str) -> Result<OrgModel> {
    find(connection, organization_id, identifier)?.ok_or_else(|| Error::missing("model", identifier))
}

/// Whether the organization has a model of this name and version.
pub fn is_taken(connection: &Connection, organization_id: &str, name: &str, version: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM org_models WHERE organization_id = ?1 AND name = ?2 AND version = ?3";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    statement.exists([organization_id, name, version]).map_err(from_sql)
}

/// Every model of the organization, oldest first.
pub fn list(connection: &Connection, organization_id: &str) -> Result<Vec<OrgModel>> {
    rows(
        connection,
        &format!("{MODEL} WHERE organization_id = ?1 ORDER BY created_at, model_id"),
        [organization_id],
        model,
    )
}

/// Removes a model, and with it what says where it is enabled.
pub fn delete(tx: &Transaction<'_>, organization_id: &str, model_id: &str) -> Result<()> {
    let sql = "DELETE FROM org_models WHERE organization_id = ?1 AND model_id = ?2";
    match tx.execute(sql, [organization_id, model_id]).map_err(from_sql)? {
        0 => Err(Error::missing("model", model_id)),
        _ => Ok(()),
    }
}

/// Lets a namespace use a model of its organization. Once is as good as twice.
pub fn enable(tx: &Transaction<'_>, scope: &Scope, model_id: &str, now: &str) -> Result<()> {
    let sql =
        "INSERT INTO namespace_models (namespace_id, model_id, enabled_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    tx.execute(sql, [&scope.namespace_id, model_id, now]).map(drop).map_err(from_sql)
}

/// Takes a model from a namespace; answers whether it had it.
pub fn disable(tx: &Transaction<'_>, scope: &Scope, model_id: &str) -> Result<bool> {
    let sql = "DELETE FROM namespace_models WHERE namespace_id = ?1 AND model_id = ?2";
    Ok(tx.execute(sql, [&scope.namespace_id, model_id]).map_err(from_sql)? > 0)
}

/// Whether a namespace may use a model.
pub fn is_enabled(connection: &Connection, scope: &Scope, model_id: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM namespace_models WHERE namespace_id = ?1 AND model_id = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    statement.exists([&scope.namespace_id, model_id]).map_err(from_sql)
}

/// The namespaces that may use a model of the organization.
pub fn namespaces_of(connection: &Connection, organization_id: &str, model_id: &str) -> Result<Vec<Scope>> {
    let sql = "SELECT n.namespace_id FROM namespace_models m JOIN namespaces n ON n.namespace_id = m.namespace_id
         WHERE m.model_id = ?1 AND n.organization_id = ?2 ORDER BY n.namespace_id";
    let scope = |row: &Row<'_>| Ok(Scope::whole(organization_id, row.get::<_, String>(0)?));
    rows(connection, sql, [model_id, organization_id], scope)
}

/// Writes an upload whole.
pub fn put_upload(tx: &Transaction<'_>, u: &ModelUpload) -> Result<()> {
    let sql = "INSERT INTO model_uploads (upload_id, organization_id, status, archive_hash, model_id, body, expires_at,
        created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (upload_id) DO UPDATE SET
        status = excluded.status, archive_hash = excluded.archive_hash, model_id = excluded.model_id,
        body = excluded.body, updated_at = excluded.updated_at";
    let values = params![
        u.upload_id,
        u.organization_id,
        u.status,
        u.archive_hash,
        u.model_id,
        text(&u.body)?,
        u.expires_at,
        u.created_at,
        u.updated_at
    ];
    tx.execute(sql, values).map(drop).map_err(from_sql)
}

/// An upload of the organization.
pub fn upload(connection: &Connection, organization_id: &str, upload_id: &str) -> Result<ModelUpload> {
    let sql = format!("{UPLOAD} WHERE upload_id = ?1 AND organization_id = ?2");
    one_upload(connection, &sql, [upload_id, organization_id], upload_id)
}

/// The upload that a signed URL names.
pub fn upload_by_signature(connection: &Connection, upload_id: &str) -> Result<ModelUpload> {
    one_upload(connection, &format!("{UPLOAD} WHERE upload_id = ?1"), [upload_id], upload_id)
}

fn one_upload(connection: &Connection, sql: &str, values: impl Params, upload_id: &str) -> Result<ModelUpload> {
    let found = connection.query_row(sql, values, upload_row).optional().map_err(from_sql)?;
    found.ok_or_else(|| Error::missing("upload", upload_id))
}

/// How many uploads of the organization are awaited.
pub fn waiting(connection: &Connection, organization_id: &str) -> Result<i64> {
    let sql = "SELECT count(*) FROM model_uploads WHERE organization_id = ?1 AND status = 'PENDING'";
    connection.query_row(sql, [organization_id], |row| row.get(0)).map_err(from_sql)
}

/// Ends uploads that were never confirmed and whose time is over; answers the hashes of archives they held.
pub fn expire(tx: &Transaction<'_>, now: &str) -> Result<Vec<String>> {
    let condition = "status = 'PENDING' AND expires_at < ?1";
    let held = format!("SELECT archive_hash FROM model_uploads WHERE {condition} AND archive_hash IS NOT NULL");
    let held = rows(tx, &held, [now], |row| row.get(0))?;
    let sql =
        format!("UPDATE model_uploads SET status = 'CANCELED', archive_hash = NULL, updated_at = ?1 WHERE {condition}");
    tx.execute(&sql, [now]).map_err(from_sql)?;
    Ok(held)
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(values, read).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

fn text(body: &Fields) -> Result<String> {
    serde_json::to_string(body).map_err(Error::internal)
}
