//! The outbox: events that webhooks want. An event is written in the transaction of the change that it tells of, and only
//! where somebody wants it; it is there until everybody has it or it was given up.

use super::{Webhook, active};
use crate::{
    catalog::{
        documents::{from_json_column, json, rows},
        from_sql,
    },
    faults::{Point, reach},
    seams::{self, Seams},
};
use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, Transaction, functions::FunctionFlags, params, types::Value as SqlValue,
};
use serde_json::Value;
use std::sync::{Arc, LazyLock};
use strata_model::{Error, Result, id};

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub struct Event<'e> {
    pub event_type: &'static str,
    /// What it happened to, such as `object`.
    pub resource_type: &'static str,
    pub of: Of<'e>,
}

/// Whose an event is.
#[derive(Debug, Clone, Copy)]
pub enum Of<'e> {
    Namespace(&'e str),
    Organization { organization_id: &'e str, namespace_id: Option<&'e str> },
}

impl<'e> Event<'e> {
    /// Of a namespace; the type of the resource is the first part of the event's.
    pub fn new(event_type: &'static str, namespace_id: &'e str) -> Self {
        let first = event_type.split_once('.').map_or(event_type, |(first, _)| first);
        // `objects.created.batch` is about objects, too.
        let resource_type = first.strip_suffix('s').unwrap_or(first);
        Self { event_type, resource_type, of: Of::Namespace(namespace_id) }
    }
}

/// Gives the connection that writes the function `strata_now`, the time as the catalog spells it.
pub fn register(connection: &Connection, seams: Arc<dyn Seams>) -> Result<()> {
    let now = move |_: &rusqlite::functions::Context<'_>| Ok(seams::rfc3339(seams.now_micros()));
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_INNOCUOUS;
    connection.create_scalar_function("strata_now", 0, flags, now).map_err(from_sql)
}

/// The routes that an event of the organization `?1` takes.
const ROUTES: &str = "webhook_routes WHERE organization_id = ?1 AND event_type = ?2
    AND (resource_types IS NULL OR EXISTS (SELECT 1 FROM json_each(resource_types) WHERE value = ?3))";

/// The organization that wants an event, if it does.
fn wanting(connection: &Connection, event: &Event<'_>) -> Result<Option<String>> {
    // Asked for every document that is written, so the text is made once.
    static OF_ORGANIZATION: LazyLock<String> =
        LazyLock::new(|| format!("SELECT organization_id FROM {ROUTES} LIMIT 1"));
    static OF_NAMESPACE: LazyLock<String> = LazyLock::new(|| {
        OF_ORGANIZATION.replacen("?1", "(SELECT organization_id FROM namespaces WHERE namespace_id = ?1)", 1)
    });
    let (sql, id) = match event.of {
        Of::Namespace(namespace_id) => (&*OF_NAMESPACE, namespace_id),
        Of::Organization { organization_id, .. } => (&*OF_ORGANIZATION, organization_id),
    };
    connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([id, event.event_type, event.resource_type], |r| r.get(0)).optional())
        .map_err(from_sql)
}

/// Whether somebody wants an event.
pub fn is_wanted(connection: &Connection, event: &Event<'_>) -> Result<bool> {
    wanting(connection, event).map(|found| found.is_some())
}

/// Writes an event where somebody wants it. Part of the transaction that makes it true.
pub fn queue(tx: &Transaction<'_>, event: &Event<'_>, payload: impl FnOnce() -> Value) -> Result<()> {
    let Some(organization_id) = wanting(tx, event)? else { return Ok(()) };
    let namespace_id = match event.of {
        Of::Namespace(namespace_id) => Some(namespace_id),
        Of::Organization { namespace_id, .. } => namespace_id,
    };
    let sql =
        "INSERT INTO webhook_events (organization_id, namespace_id, event_type, resource_type, payload, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, strata_now())";
    let values = params![organization_id, namespace_id, event.event_type, event.resource_type, json(&payload())?];
    let seq = tx.prepare_cached(sql).and_then(|mut s| s.insert(values)).map_err(from_sql)?;
    let sql = format!(
        "INSERT INTO webhook_deliveries (webhook_id, channel, event_seq) SELECT webhook_id, channel, ?4 FROM {ROUTES}"
    );
    let values = params![organization_id, event.event_type, event.resource_type, seq];
    tx.prepare_cached(&sql).and_then(|mut s| s.execute(values)).map_err(from_sql)?;
    reach(Point::EventQueued).map_err(Error::internal)
}

/// A channel of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub webhook_id: String,
    /// Its place among the webhook's channels, from 0.
    pub channel: i64,
}

/// The channels for which events wait, the one that has waited longest first, each with the time in microseconds from
/// which its first event is due.
pub fn waiting(connection: &Connection) -> Result<Vec<(Address, i64)>> {
    let sql = "SELECT h.webhook_id, h.channel, d.due_at FROM (
            SELECT r.webhook_id, r.channel, (SELECT min(event_seq) FROM webhook_deliveries
                WHERE webhook_id = r.webhook_id AND is_dead = 0 AND channel = r.channel) AS head
            FROM (SELECT DISTINCT webhook_id, channel FROM webhook_routes) r
        ) h JOIN webhook_deliveries d ON d.webhook_id = h.webhook_id AND d.is_dead = 0 AND d.channel = h.channel
            AND d.event_seq = h.head
        ORDER BY d.event_seq";
    let none: [SqlValue; 0] = [];
    rows(connection, sql, &none, |r| Ok((Address { webhook_id: r.get(0)?, channel: r.get(1)? }, r.get(2)?)))
}

/// An event on its way to one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub webhook: Webhook,
    pub channel: i64,
    pub seq: i64,
    pub namespace_id: Option<String>,
    pub event_type: String,
    pub resource_type: String,
    pub payload: Value,
    pub created_at: String,
    /// How often it was tried before.
    pub attempts: i64,
    /// Microseconds since the Unix epoch.
    pub due_at: i64,
}

impl Delivery {
    /// The event's id: the same in every try and for every channel.
    pub fn event_id(&self) -> String {
        event_id(self.seq, &self.created_at)
    }
}

/// A number may come again after a backup was restored, but not at the same time.
fn event_id(seq: i64, created_at: &str) -> String {
    let digest = id::sha256_parts(&[created_at.as_bytes(), &seq.to_be_bytes()]);
    format!("{}{}", id::EVENT, hex::encode(&digest[..12]))
}

/// The first event that waits for a channel of an active webhook.
pub fn head(connection: &Connection, address: &Address) -> Result<Option<Delivery>> {
    let sql =
        "SELECT e.seq, e.namespace_id, e.event_type, e.resource_type, e.payload, e.created_at, d.attempts, d.due_at
         FROM webhook_deliveries d JOIN webhook_events e ON e.seq = d.event_seq
         WHERE d.webhook_id = ?1 AND d.is_dead = 0 AND d.channel = ?2 ORDER BY d.event_seq LIMIT 1";
    let Some(webhook) = active(connection, &address.webhook_id)? else { return Ok(None) };
    let channel = address.channel;
    let read = |r: &Row<'_>| -> rusqlite::Result<Delivery> {
        Ok(Delivery {
            webhook,
            channel,
            seq: r.get(0)?,
            namespace_id: r.get(1)?,
            event_type: r.get(2)?,
            resource_type: r.get(3)?,
            payload: from_json_column(r, 4)?,
            created_at: r.get(5)?,
            attempts: r.get(6)?,
            due_at: r.get(7)?,
        })
    };
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    statement.query_row(params![address.webhook_id, channel], read).optional().map_err(from_sql)
}

fn run(tx: &Transaction<'_>, sql: &str, values: &[&dyn ToSql]) -> Result<usize> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

/// Takes an event off the queue of a channel that has it.
pub fn delivered(tx: &Transaction<'_>, delivery: &Delivery, now: &str) -> Result<()> {
    let (webhook_id, channel, seq) = (&delivery.webhook.webhook_id, delivery.channel, delivery.seq);
    let sql =
        "DELETE FROM webhook_deliveries WHERE webhook_id = ?1 AND is_dead = 0 AND channel = ?2 AND event_seq = ?3";
    run(tx, sql, &[webhook_id, &channel, &seq])?;
    forget_event(tx, seq)?;
    let sql = "UPDATE webhooks SET delivered = delivered + 1, consecutive_failures = 0, last_error = NULL,
         last_delivered_at = ?2 WHERE webhook_id = ?1";
    run(tx, sql, &[webhook_id, &now]).map(drop)
}

/// Notes a try that failed. The next one is due at `due_at`, in microseconds; without it the event is given up, and kept as
/// long as it is among the newest `kept` of the webhook that were.
pub fn failed(
    tx: &Transaction<'_>,
    delivery: &Delivery,
    error: &str,
    due_at: Option<i64>,
    kept: usize,
    now: &str,
) -> Result<()> {
    let (webhook_id, channel, seq) = (&delivery.webhook.webhook_id, delivery.channel, delivery.seq);
    let is_dead = due_at.is_none();
    let sql = "UPDATE webhook_deliveries SET attempts = attempts + 1, due_at = ?4, is_dead = ?5, error = ?6
         WHERE webhook_id = ?1 AND is_dead = 0 AND channel = ?2 AND event_seq = ?3";
    run(tx, sql, &[webhook_id, &channel, &seq, &due_at.unwrap_or(0), &is_dead, &error])?;
    let sql = "UPDATE webhooks SET failures = failures + 1, consecutive_failures = consecutive_failures + 1,
         dropped = dropped + ?2, last_failed_at = ?3, last_error = ?4 WHERE webhook_id = ?1";
    run(tx, sql, &[webhook_id, &is_dead, &now, &error])?;
    match is_dead {
        true => forget_dead(tx, webhook_id, kept),
        false => Ok(()),
    }
}

fn forget_dead(tx: &Transaction<'_>, webhook_id: &str, kept: usize) -> Result<()> {
    let sql = "SELECT rowid, event_seq FROM webhook_deliveries WHERE webhook_id = ? AND is_dead = 1
         ORDER BY event_seq DESC, channel LIMIT -1 OFFSET ?";
    let kept = i64::try_from(kept).unwrap_or(i64::MAX);
    let values = [SqlValue::from(webhook_id.to_owned()), SqlValue::from(kept)];
    let old: Vec<(i64, i64)> = rows(tx, sql, &values, |r| Ok((r.get(0)?, r.get(1)?)))?;
    forget(tx, &old)
}

/// Removes deliveries, by their row and event, and the events that nobody else waits for.
fn forget(tx: &Transaction<'_>, deliveries: &[(i64, i64)]) -> Result<()> {
    for (row, seq) in deliveries {
        run(tx, "DELETE FROM webhook_deliveries WHERE rowid = ?1", &[row])?;
        forget_event(tx, *seq)?;
    }
    Ok(())
}

fn forget_event(tx: &Transaction<'_>, seq: i64) -> Result<()> {
    let sql = "DELETE FROM webhook_events WHERE seq = ?1
         AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE event_seq = ?1)";
    run(tx, sql, &[&seq]).map(drop)
}

/// Removes what waits for the channels of a webhook from the one with this number on.
pub(super) fn forget_channels(tx: &Transaction<'_>, webhook_id: &str, from: i64) -> Result<()> {
    let sql = "SELECT rowid, event_seq FROM webhook_deliveries WHERE webhook_id = ? AND channel >= ?";
    let values = [SqlValue::from(webhook_id.to_owned()), SqlValue::from(from)];
    let gone: Vec<(i64, i64)> = rows(tx, sql, &values, |r| Ok((r.get(0)?, r.get(1)?)))?;
    forget(tx, &gone)
}

/// Lets at most `most` events wait for a channel: the oldest of more are dropped, and the webhook says so. Answers how many
/// were; at most `step` are in one call.
pub fn drop_surplus(tx: &Transaction<'_>, most: usize, step: usize, now: &str) -> Result<usize> {
    let sql = "SELECT webhook_id, channel, count(*) FROM webhook_deliveries WHERE is_dead = 0
         GROUP BY webhook_id, channel HAVING count(*) > ?";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let full: Vec<(String, i64, i64)> =
        rows(tx, sql, &[SqlValue::from(most)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let mut left = i64::try_from(step).unwrap_or(i64::MAX);
    let mut count = 0;
    for (webhook_id, channel, waiting) in full {
        let surplus = (waiting - most).min(left);
        let sql = "SELECT rowid, event_seq FROM webhook_deliveries WHERE webhook_id = ? AND is_dead = 0 AND channel = ?
             ORDER BY event_seq LIMIT ?";
        let values = [SqlValue::from(webhook_id.clone()), SqlValue::from(channel), SqlValue::from(surplus)];
        let old: Vec<(i64, i64)> = rows(tx, sql, &values, |r| Ok((r.get(0)?, r.get(1)?)))?;
        forget(tx, &old)?;
        let error = format!("events were dropped: more than {most} waited");
        let sql =
            "UPDATE webhooks SET dropped = dropped + ?2, last_failed_at = ?3, last_error = ?4 WHERE webhook_id = ?1";
        run(tx, sql, &[&webhook_id, &surplus, &now, &error])?;
        left -= surplus;
        count += old.len();
    }
    Ok(count)
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    pub event_id: String,
    pub event_type: String,
    pub created_at: String,
    pub attempts: i64,
    pub error: Option<String>,
}

/// What waits for a webhook.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queued {
    pub waiting: i64,
    /// When the next event is due, in microseconds; only where one waits for another try.
    pub next_try_at: Option<i64>,
    /// The newest of those that were given up.
    pub dead: Vec<Dead>,
}

/// What waits for a webhook, and at most `limit` of the events that were given up.
pub fn queued(connection: &Connection, webhook_id: &str, limit: usize) -> Result<Queued> {
    let sql = "SELECT count(*), min(CASE WHEN due_at > 0 THEN due_at END) FROM webhook_deliveries
         WHERE webhook_id = ?1 AND is_dead = 0";
    let (waiting, next_try_at) = connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row([webhook_id], |r| Ok((r.get(0)?, r.get(1)?))))
        .map_err(from_sql)?;
    let sql = "SELECT e.seq, e.created_at, e.event_type, d.attempts, d.error FROM webhook_deliveries d
         JOIN webhook_events e ON e.seq = d.event_seq WHERE d.webhook_id = ? AND d.is_dead = 1
         ORDER BY d.event_seq DESC LIMIT ?";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let dead = rows(connection, sql, &[SqlValue::from(webhook_id.to_owned()), SqlValue::from(limit)], |r| {
        let (seq, created_at) = (r.get(0)?, r.get::<_, String>(1)?);
        Ok(Dead {
            event_id: event_id(seq, &created_at),
            event_type: r.get(2)?,
            attempts: r.get(3)?,
            error: r.get(4)?,
            created_at,
        })
    })?;
    Ok(Queued { waiting, next_try_at, dead })
}
