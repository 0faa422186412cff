//! Rows of published retrievers. Whoever knows a public name may read what is published under it, so finding one by its
//! name or id takes no scope: it answers one.

use super::{documents::from_json_column, from_sql};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::HashMap;
use strata_model::{Error, Fields, Reader, Result, Scope};

/// A retriever as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    pub public_id: String,
    pub public_name: String,
    pub retriever_id: String,
    /// Where the retriever lies.
    pub scope: Scope,
    /// Whether the public may use it now.
    pub active: bool,
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

/// What a list of all published retrievers shows of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Card {
    pub public_id: String,
    pub public_name: String,
    pub scope: Scope,
    pub active: bool,
    pub has_password: bool,
    /// Parts of the body: `title`, `description`, `logo_url`, `og_image_url`, `external_links`.
    pub shown: Fields,
    pub created_at: String,
    pub updated_at: String,
}

/// That a retriever is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub public_name: String,
    pub active: bool,
}

const COLUMNS: &str =
    "public_id, public_name, retriever_id, organization_id, namespace_id, active, body, created_at, updated_at";

/// A namespace as the public sees it: with the documents that everybody reads.
fn public(organization_id: String, namespace_id: String) -> Scope {
    Scope::whole(organization_id, namespace_id).seen_by(Reader::Anyone)
}

fn row(r: &Row<'_>) -> rusqlite::Result<Publication> {
    Ok(Publication {
        public_id: r.get(0)?,
        public_name: r.get(1)?,
        retriever_id: r.get(2)?,
        scope: public(r.get(3)?, r.get(4)?),
        active: r.get(5)?,
        body: from_json_column(r, 6)?,
        created_at: r.get(7)?,
        updated_at: r.get(8)?,
    })
}

/// Adds one. A name that is taken, and a retriever that is published already, are [`Error::Conflict`].
pub fn insert(tx: &Transaction<'_>, p: &Publication) -> Result<()> {
    let sql = format!("INSERT INTO published_retrievers ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    let body = serde_json::to_string(&p.body).map_err(Error::internal)?;
    let values = params![
        p.public_id,
        p.public_name,
        p.retriever_id,
        p.scope.organization_id,
        p.scope.namespace_id,
        p.active,
        body,
        p.created_at,
        p.updated_at
    ];
    tx.prepare_cached(&sql).and_then(|mut s| s.execute(values)).map_err(from_sql).map(drop)
}

/// Writes state, body and `updated_at`.
pub fn update(tx: &Transaction<'_>, p: &Publication) -> Result<()> {
    let sql = "UPDATE published_retrievers SET active = ?2, body = ?3, updated_at = ?4 WHERE public_id = ?1";
    let body = serde_json::to_string(&p.body).map_err(Error::internal)?;
    let values = params![p.public_id, p.active, body, p.updated_at];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql).map(drop)
}

/// Takes it back; answers whether there was one.
pub fn delete(tx: &Transaction<'_>, scope: &Scope, retriever_id: &str) -> Result<bool> {
    let sql = "DELETE FROM published_retrievers WHERE retriever_id = ?1 AND namespace_id = ?2";
    let gone = tx.prepare_cached(sql).and_then(|mut s| s.execute([retriever_id, &scope.namespace_id]));
    Ok(gone.map_err(from_sql)? > 0)
}

/// As what a retriever of the scope is published.
pub fn of_retriever(connection: &Connection, scope: &Scope, retriever_id: &str) -> Result<Option<Publication>> {
    let sql = format!("SELECT {COLUMNS} FROM published_retrievers WHERE retriever_id = ?1 AND namespace_id = ?2");
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    statement.query_row([retriever_id, &scope.namespace_id], row).optional().map_err(from_sql)
}

/// What is published under a name or a public id, in whichever namespace.
pub fn find(connection: &Connection, name: &str) -> Result<Option<Publication>> {
    let sql = format!("SELECT {COLUMNS} FROM published_retrievers WHERE public_name = ?1 OR public_id = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    statement.query_row([name], row).optional().map_err(from_sql)
}

/// What the scope has published, oldest first.
pub fn list(connection: &Connection, scope: &Scope, limit: usize, offset: usize) -> Result<Vec<Publication>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM published_retrievers WHERE namespace_id = ?1 ORDER BY created_at, public_id LIMIT ?2 OFFSET ?3"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement.query_map(params![scope.namespace_id, limit as i64, offset as i64], row).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// How many the scope has published.
pub fn count(connection: &Connection, scope: &Scope) -> Result<usize> {
    let sql = "SELECT count(*) FROM published_retrievers WHERE namespace_id = ?1";
    let count: i64 = connection.query_row(sql, [&scope.namespace_id], |r| r.get(0)).map_err(from_sql)?;
    Ok(count as usize)
}

/// Which retrievers of the scope are published.
pub fn marks(connection: &Connection, scope: &Scope) -> Result<HashMap<String, Mark>> {
    let sql = "SELECT retriever_id, public_name, active FROM published_retrievers WHERE namespace_id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let mark = |r: &Row<'_>| Ok((r.get(0)?, Mark { public_name: r.get(1)?, active: r.get(2)? }));
    let found = statement.query_map([&scope.namespace_id], mark).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// Whether this retriever is published.
pub fn mark(connection: &Connection, scope: &Scope, retriever_id: &str) -> Result<Option<Mark>> {
    let sql = "SELECT public_name, active FROM published_retrievers WHERE retriever_id = ?1 AND namespace_id = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let read = |r: &Row<'_>| Ok(Mark { public_name: r.get(0)?, active: r.get(1)? });
    statement.query_row([retriever_id, &scope.namespace_id], read).optional().map_err(from_sql)
}

/// Everything that is published on this server, oldest first, without its icons.
pub fn cards(connection: &Connection) -> Result<Vec<Card>> {
    let sql = "SELECT public_id, public_name, organization_id, namespace_id, active,
            json_extract(body, '$.password_secret_name') IS NOT NULL, json_object(
                'title', json_extract(body, '$.display_config.title'),
                'description', coalesce(json_extract(body, '$.description'), json_extract(body, '$.display_config.description')),
                'logo_url', json_extract(body, '$.display_config.logo_url'),
                'og_image_url', json_extract(body, '$.display_config.seo.og_image_url'),
                'external_links', json_extract(body, '$.display_config.external_links')),
            created_at, updated_at
         FROM published_retrievers ORDER BY created_at, public_id";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let card = |r: &Row<'_>| {
        Ok(Card {
            public_id: r.get(0)?,
            public_name: r.get(1)?,
            scope: public(r.get(2)?, r.get(3)?),
            active: r.get(4)?,
            has_password: r.get(5)?,
            shown: from_json_column(r, 6)?,
            created_at: r.get(7)?,
            updated_at: r.get(8)?,
        })
    };
    let found = statement.query_map([], card).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// The icon that a published retriever is listed with.
pub fn icon(connection: &Connection, public_id: &str) -> Result<Option<String>> {
    let sql = "SELECT coalesce(json_extract(body, '$.icon_base64'), json_extract(body, '$.display_config.icon_base64'))
         FROM published_retrievers WHERE public_id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    Ok(statement.query_row([public_id], |r| r.get(0)).optional().map_err(from_sql)?.flatten())
}
