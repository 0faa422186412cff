//! Rows of webhooks, and what becomes of their events. The outbox is in [`outbox`].

pub mod outbox;

pub(super) use outbox::register;
pub use outbox::{Event, is_wanted, queue};

use super::{
    documents::{from_json_column, json, rows},
    from_sql,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use strata_model::{Error, Fields, Result};

/// A stored webhook.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    pub webhook_id: String,
    pub organization_id: String,
    pub name: String,
    /// What may be shown.
    pub body: Fields,
    /// Headers and signing secrets; `None` where there are none.
    pub sealed: Option<Vec<u8>>,
    pub is_active: bool,
    pub created_by: String,
    pub created_at: String,
    pub updated_at: String,
    pub health: Health,
}

/// What became of a webhook's events, all channels together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    pub delivered: i64,
    /// Tries that failed, and those since the last one that did not.
    pub failures: i64,
    pub consecutive_failures: i64,
    /// Events that were given up, or fell out of a queue that was too long.
    pub dropped: i64,
    pub last_delivered_at: Option<String>,
    pub last_failed_at: Option<String>,
    pub last_error: Option<String>,
}

const COLUMNS: &str = "webhook_id, organization_id, name, body, sealed, is_active, created_by, created_at, updated_at,
    delivered, failures, consecutive_failures, dropped, last_delivered_at, last_failed_at, last_error";

fn webhook(row: &Row<'_>) -> rusqlite::Result<Webhook> {
    Ok(Webhook {
        webhook_id: row.get(0)?,
        organization_id: row.get(1)?,
        name: row.get(2)?,
        body: from_json_column(row, 3)?,
        sealed: row.get(4)?,
        is_active: row.get(5)?,
        created_by: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
        health: Health {
            delivered: row.get(9)?,
            failures: row.get(10)?,
            consecutive_failures: row.get(11)?,
            dropped: row.get(12)?,
            last_delivered_at: row.get(13)?,
            last_failed_at: row.get(14)?,
            last_error: row.get(15)?,
        },
    })
}

/// What a webhook wants, besides its row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    pub event_types: Vec<String>,
    /// Only events of these types of resources; of all where it is empty.
    pub resource_types: Vec<String>,
    /// How many channels each event goes to.
    pub channels: usize,
}

/// Adds a webhook; an id or a name that is taken is [`Error::Conflict`].
pub fn insert(tx: &Transaction<'_>, w: &Webhook, wanted: &Wanted) -> Result<()> {
    let sql =
        "INSERT INTO webhooks (webhook_id, organization_id, name, body, sealed, is_active, created_by, created_at,
         updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let values = params![
        w.webhook_id,
        w.organization_id,
        w.name,
        json(&w.body)?,
        w.sealed,
        w.is_active,
        w.created_by,
        w.created_at,
        w.updated_at
    ];
    tx.execute(sql, values).map_err(|e| taken(e, w))?;
    route(tx, w, wanted)
}

/// Writes name, body, secrets, whether it is active and `updated_at`. What waits is due at once, in as many channels as
/// there are now.
pub fn update(tx: &Transaction<'_>, w: &Webhook, wanted: &Wanted) -> Result<()> {
    let sql = "UPDATE webhooks SET name = ?3, body = ?4, sealed = ?5, is_active = ?6, updated_at = ?7
         WHERE webhook_id = ?1 AND organization_id = ?2";
    let values = params![w.webhook_id, w.organization_id, w.name, json(&w.body)?, w.sealed, w.is_active, w.updated_at];
    if tx.execute(sql, values).map_err(|e| taken(e, w))? == 0 {
        return Err(Error::missing("webhook", &w.webhook_id));
    }
    route(tx, w, wanted)?;
    let channels = i64::try_from(wanted.channels).unwrap_or(i64::MAX);
    outbox::forget_channels(tx, &w.webhook_id, channels)?;
    let sql = "UPDATE webhook_deliveries SET due_at = 0, attempts = 0 WHERE webhook_id = ?1 AND is_dead = 0";
    tx.execute(sql, [&w.webhook_id]).map(drop).map_err(from_sql)
}

/// Says where events go: nowhere, where the webhook is not active.
fn route(tx: &Transaction<'_>, w: &Webhook, wanted: &Wanted) -> Result<()> {
    tx.execute("DELETE FROM webhook_routes WHERE webhook_id = ?1", [&w.webhook_id]).map_err(from_sql)?;
    if !w.is_active {
        return Ok(());
    }
    let only = if wanted.resource_types.is_empty() { None } else { Some(json(&wanted.resource_types)?) };
    let sql = "INSERT INTO webhook_routes (organization_id, event_type, webhook_id, channel, resource_types)
         VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = tx.prepare_cached(sql).map_err(from_sql)?;
    for event_type in &wanted.event_types {
        for channel in 0..wanted.channels {
            let values = params![w.organization_id, event_type, w.webhook_id, channel as i64, only];
            statement.execute(values).map_err(from_sql)?;
        }
    }
    Ok(())
}

/// Removes a webhook of the organization with all that waits for it.
pub fn delete(tx: &Transaction<'_>, organization_id: &str, webhook_id: &str) -> Result<()> {
    outbox::forget_channels(tx, webhook_id, 0)?;
    let sql = "DELETE FROM webhooks WHERE organization_id = ?1 AND webhook_id = ?2";
    match tx.execute(sql, [organization_id, webhook_id]).map_err(from_sql)? {
        0 => Err(Error::missing("webhook", webhook_id)),
        _ => Ok(()),
    }
}

/// A webhook of the organization, by id or else by name.
pub fn get(connection: &Connection, organization_id: &str, identifier: &str) -> Result<Webhook> {
    let sql = format!(
        "SELECT {COLUMNS} FROM webhooks WHERE organization_id = ?1 AND (webhook_id = ?2 OR name = ?2)
         ORDER BY webhook_id = ?2 DESC LIMIT 1"
    );
    let found = connection.query_row(&sql, [organization_id, identifier], webhook).optional().map_err(from_sql)?;
    found.ok_or_else(|| Error::missing("webhook", identifier))
}

/// Every webhook of the organization, oldest first.
pub fn list(connection: &Connection, organization_id: &str) -> Result<Vec<Webhook>> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE organization_id = ? ORDER BY created_at, webhook_id");
    rows(connection, &sql, &[organization_id], webhook)
}

/// A webhook that is active, of whatever organization: for whoever delivers.
pub(super) fn active(connection: &Connection, webhook_id: &str) -> Result<Option<Webhook>> {
    let sql = format!("SELECT {COLUMNS} FROM webhooks WHERE webhook_id = ?1 AND is_active = 1");
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    statement.query_row([webhook_id], webhook).optional().map_err(from_sql)
}

fn taken(error: rusqlite::Error, w: &Webhook) -> Error {
    match from_sql(error) {
        Error::Conflict(message) if message.contains("webhooks.webhook_id") => {
            Error::Conflict(format!("the id `{}` is taken", w.webhook_id))
        }
        Error::Conflict(message) if message.contains("UNIQUE") => {
            Error::Conflict(format!("a webhook named `{}` exists already", w.name))
        }
        other => other,
    }
}
