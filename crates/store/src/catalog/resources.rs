//! Rows of the resources that share one shape: an id, a name that is unique in its namespace, and a body of JSON.
//! Buckets, collections, retrievers, data sets of evaluations and custom extractors.

use super::{
    documents::from_json_column,
    from_sql,
    webhooks::{self, Event},
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::json;
use strata_model::{Error, Fields, Result, Scope};

/// Which resource. Its table and the name of its id column follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Bucket,
    Collection,
    Retriever,
    /// Queries with the documents that are relevant to them.
    Dataset,
    /// An extractor that runs in another process.
    Extractor,
}

impl Kind {
    /// The word used in errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Collection => "collection",
            Self::Retriever => "retriever",
            Self::Dataset => "dataset",
            Self::Extractor => "extractor",
        }
    }
    fn table(self) -> &'static str {
        match self {
            Self::Bucket => "buckets",
            Self::Collection => "collections",
            Self::Retriever => "retrievers",
            Self::Dataset => "evaluation_datasets",
            Self::Extractor => "extractors",
        }
    }
    fn id_column(self) -> &'static str {
        match self {
            Self::Bucket => "bucket_id",
            Self::Collection => "collection_id",
            Self::Retriever => "retriever_id",
            Self::Dataset => "dataset_id",
            Self::Extractor => "extractor_id",
        }
    }
}

/// A stored resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    pub id: String,
    pub namespace_id: String,
    pub name: String,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

impl Resource {
    /// The resource as filters and sorts see it: its body, with id, name and times under the API's names.
    pub fn view(&self, kind: Kind) -> Fields {
        let mut view = self.body.clone();
        view.insert(kind.id_column().into(), self.id.clone().into());
        view.insert(format!("{}_name", kind.name()), self.name.clone().into());
        view.insert("created_at".into(), self.created_at.clone().into());
        view.insert("updated_at".into(), self.updated_at.clone().into());
        view
    }
}

/// Adds a resource. A name or id that is taken is [`Error::Conflict`].
pub fn insert(tx: &Transaction<'_>, kind: Kind, resource: &Resource) -> Result<()> {
    let enabled = if kind == Kind::Collection { ("enabled, ", "1, ") } else { ("", "") };
    let sql = format!(
        "INSERT INTO {} ({}, namespace_id, name, {}body, created_at, updated_at) VALUES (?1, ?2, ?3, {}?4, ?5, ?6)",
        kind.table(),
        kind.id_column(),
        enabled.0,
        enabled.1
    );
    let body = serde_json::to_string(&resource.body).map_err(Error::internal)?;
    let values =
        params![resource.id, resource.namespace_id, resource.name, body, resource.created_at, resource.updated_at];
    tx.prepare_cached(&sql).and_then(|mut s| s.execute(values)).map_err(|e| taken(e, kind, &resource.name))?;
    tell(tx, kind, "collection.created", resource)
}

/// Tells whoever wants it what became of a collection; of the others there are no events.
fn tell(tx: &Transaction<'_>, kind: Kind, event_type: &'static str, resource: &Resource) -> Result<()> {
    if kind != Kind::Collection {
        return Ok(());
    }
    webhooks::queue(
        tx,
        &Event::new(event_type, &resource.namespace_id),
        || json!({ "collection_id": resource.id, "collection_name": resource.name }),
    )
}

/// Writes name, body and `updated_at`.
pub fn update(tx: &Transaction<'_>, kind: Kind, resource: &Resource) -> Result<()> {
    update_unseen(tx, kind, resource)?;
    tell(tx, kind, "collection.updated", resource)
}

/// [`update`] of what the server keeps there for itself: nobody is told.
pub fn update_unseen(tx: &Transaction<'_>, kind: Kind, resource: &Resource) -> Result<()> {
    let sql = format!(
        "UPDATE {} SET name = ?3, body = ?4, updated_at = ?5 WHERE {} = ?1 AND namespace_id = ?2",
        kind.table(),
        kind.id_column()
    );
    let body = serde_json::to_string(&resource.body).map_err(Error::internal)?;
    let values = params![resource.id, resource.namespace_id, resource.name, body, resource.updated_at];
    match tx.prepare_cached(&sql).and_then(|mut s| s.execute(values)).map_err(|e| taken(e, kind, &resource.name))? {
        0 => Err(Error::missing(kind.name(), &resource.id)),
        _ => Ok(()),
    }
}

fn taken(error: rusqlite::Error, kind: Kind, name: &str) -> Error {
    match from_sql(error) {
        Error::Conflict(message) if message.contains("UNIQUE") => {
            Error::Conflict(format!("a {} named `{name}` exists already", kind.name()))
        }
        other => other,
    }
}

/// Finds a resource of the scope by id, or else by name.
pub fn get(connection: &Connection, kind: Kind, scope: &Scope, identifier: &str) -> Result<Resource> {
    find(connection, kind, scope, identifier)?.ok_or_else(|| Error::missing(kind.name(), identifier))
}

/// [`get`], where absence is no error.
pub fn find(connection: &Connection, kind: Kind, scope: &Scope, identifier: &str) -> Result<Option<Resource>> {
    let id = kind.id_column();
    let sql = format!(
        "SELECT {id}, namespace_id, name, body, created_at, updated_at FROM {}
         WHERE namespace_id = ?1 AND ({id} = ?2 OR name = ?2) ORDER BY {id} = ?2 DESC LIMIT 1",
        kind.table()
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row([&scope.namespace_id, identifier], row).optional())
        .map_err(from_sql)
}

/// Every resource of the scope, oldest first.
pub fn list(connection: &Connection, kind: Kind, scope: &Scope) -> Result<Vec<Resource>> {
    let id = kind.id_column();
    let sql = format!(
        "SELECT {id}, namespace_id, name, body, created_at, updated_at FROM {} WHERE namespace_id = ?1 ORDER BY created_at, {id}",
        kind.table()
    );
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement.query_map([&scope.namespace_id], row).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// A part of the scope's resources, newest first; for kinds whose bodies are large.
pub fn newest(
    connection: &Connection,
    kind: Kind,
    scope: &Scope,
    (limit, offset): (usize, usize),
) -> Result<Vec<Resource>> {
    let id = kind.id_column();
    let sql = format!(
        "SELECT {id}, namespace_id, name, body, created_at, updated_at FROM {} WHERE namespace_id = ?1
         ORDER BY created_at DESC, {id} DESC LIMIT ?2 OFFSET ?3",
        kind.table()
    );
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement.query_map(rusqlite::params![scope.namespace_id, number(limit), number(offset)], row);
    found.map_err(from_sql)?.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// Removes a resource and, by the schema's cascades, what belongs to it alone.
pub fn delete(tx: &Transaction<'_>, kind: Kind, scope: &Scope, id: &str) -> Result<()> {
    let sql = format!("DELETE FROM {} WHERE {} = ?1 AND namespace_id = ?2", kind.table(), kind.id_column());
    match tx.prepare_cached(&sql).and_then(|mut s| s.execute([id, &scope.namespace_id])).map_err(from_sql)? {
        0 => Err(Error::missing(kind.name(), id)),
        _ => Ok(()),
    }
}

/// How many of a kind the scope has.
pub fn count(connection: &Connection, kind: Kind, scope: &Scope) -> Result<i64> {
    let sql = format!("SELECT count(*) FROM {} WHERE namespace_id = ?1", kind.table());
    connection.query_row(&sql, [&scope.namespace_id], |r| r.get(0)).map_err(from_sql)
}

fn row(row: &Row<'_>) -> rusqlite::Result<Resource> {
    Ok(Resource {
        id: row.get(0)?,
        namespace_id: row.get(1)?,
        name: row.get(2)?,
        body: from_json_column(row, 3)?,
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
    })
}
