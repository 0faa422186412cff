//! The audit log: who changed what, when, and what came of it; never what was sent.
//!
//! A call that changes something is answered within [`during`], with an [`Entry`] that knows who calls what. The first
//! transaction of that task that succeeds writes the entry's row, too ([`super::Catalog::write`]), so that a change and
//! its row are on disk together or not at all, and the row costs no commit of its own. What that transaction could not
//! know is written when the answer is known ([`store`]): a refusal, or the id of what was made.

use super::{documents::rows, filter::Clause, from_sql};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Value as SqlValue};
use std::sync::Arc;
use strata_model::{Error, Principal, Result};

tokio::task_local! {
    static CURRENT: Arc<Entry>;
}

/// What ids of events begin with.
pub const PREFIX: &str = "audit_";

/// An operation of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub operation_id: String,
    pub method: String,
    /// With the names of its parameters.
    pub path: String,
    /// Such as `bucket_created`.
    pub action: String,
    pub resource_type: String,
}

/// One call of an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    pub request_id: String,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
}

/// What the log says of the call that is being answered.
#[derive(Debug)]
pub struct Entry {
    operation: Arc<Operation>,
    call: Call,
    audit_id: String,
    created_at: String,
    /// Whether transactions of the call take the row along; a read has none that do.
    is_change: bool,
    told: Mutex<Told>,
}

/// What becomes known while the call is answered.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Organization, user and key.
    actor: Option<(String, String, String)>,
    namespace_id: Option<String>,
    resource_id: Option<String>,
    /// Whether `resource_id` is the id of what was made or changed, and not merely what the path calls it.
    is_certain: bool,
    is_stored: bool,
    /// Something was learned after the row was stored.
    is_stale: bool,
}

impl Entry {
    /// Of a call that begins at `micros`; `random` makes its id one of a kind. `resource_id` is what the path names.
    pub fn new(
        operation: Arc<Operation>,
        call: Call,
        (micros, random): (i64, u64),
        resource_id: Option<String>,
        is_change: bool,
    ) -> Self {
        Self {
            operation,
            call,
            audit_id: format!("{}{:010x}", moment(micros), random & 0xff_ffff_ffff),
            created_at: crate::seams::rfc3339(micros),
            is_change,
            told: Mutex::new(Told { resource_id, ..Told::default() }),
        }
    }

    /// Whether the id of what was made or changed is known for certain.
    pub fn is_certain(&self) -> bool {
        self.told.lock().is_certain
    }

    /// Says which thing the call made or changed.
    pub fn name(&self, resource_id: &str) {
        let mut told = self.told.lock();
        told.is_certain = true;
        if told.resource_id.as_deref() != Some(resource_id) {
            told.resource_id = Some(resource_id.to_owned());
            told.is_stale = told.is_stored;
        }
    }

    /// The organization whose call it is, once the caller is known.
    pub fn organization_id(&self) -> Option<String> {
        self.told.lock().actor.as_ref().map(|(organization_id, ..)| organization_id.clone())
    }

    /// Whether the row is on disk and says all that is known.
    pub fn is_complete(&self) -> bool {
        let told = self.told.lock();
        told.is_stored && !told.is_stale
    }

    /// A transaction that had the row is on disk.
    pub(super) fn note_stored(&self) {
        self.told.lock().is_stored = true;
    }

    fn is_due(&self) -> bool {
        let told = self.told.lock();
        self.is_change && told.actor.is_some() && !told.is_stored
    }
}

/// Answers a call; what is written meanwhile takes its entry along.
pub async fn during<F: Future>(entry: Arc<Entry>, answer: F) -> F::Output {
    CURRENT.scope(entry, answer).await
}

/// Keeps the entry of the call with `work`, which is to run as a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let entry = CURRENT.try_with(Arc::clone).ok();
    async move {
        match entry {
            Some(entry) => CURRENT.scope(entry, work).await,
            None => work.await,
        }
    }
}

/// Tells the call that is being answered who calls.
pub fn caller(principal: &Principal) {
    tell(|entry| {
        let actor = (principal.organization_id.clone(), principal.user_id.clone(), principal.key_id.clone());
        entry.told.lock().actor = Some(actor);
    });
}

/// Tells the call that is being answered where it works.
pub fn within(namespace_id: &str) {
    tell(|entry| entry.told.lock().namespace_id = Some(namespace_id.to_owned()));
}

/// Tells the call that is being answered which thing it makes or changes; best before it is written.
pub fn about(resource_id: &str) {
    tell(|entry| entry.name(resource_id));
}

fn tell(what: impl FnOnce(&Entry)) {
    // Work that answers no call has no entry.
    let _ = CURRENT.try_with(|entry| what(entry));
}

/// The entry that the next transaction of this task should take along.
pub(super) fn due() -> Option<Arc<Entry>> {
    CURRENT.try_with(|entry| entry.is_due().then(|| entry.clone())).ok().flatten()
}

/// `work`, and the row of `entry` when it has succeeded.
pub(super) fn along<T, F>(
    work: F,
    entry: Option<Arc<Entry>>,
) -> impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static
where
    T: 'static,
    F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
{
    move |tx: &Transaction<'_>| {
        let done = work(tx)?;
        if let Some(entry) = &entry {
            store(tx, entry, None)?;
        }
        Ok(done)
    }
}

/// [`along`] for work that may run again.
pub(super) fn along_again<S, T, F>(
    work: F,
    entry: Option<Arc<Entry>>,
) -> impl Fn(&mut S, &Transaction<'_>) -> Result<T> + Send + 'static
where
    S: 'static,
    T: 'static,
    F: Fn(&mut S, &Transaction<'_>) -> Result<T> + Send + 'static,
{
    move |state: &mut S, tx: &Transaction<'_>| {
        let done = work(state, tx)?;
        if let Some(entry) = &entry {
            store(tx, entry, None)?;
        }
        Ok(done)
    }
}

/// Writes the row of a call, or what became known since it was written. `status_code` is that of the answer; `None`
/// while it is being made, which counts as a success. Nothing is written of a caller that nobody knows.
pub fn store(tx: &Transaction<'_>, entry: &Entry, status_code: Option<u16>) -> Result<()> {
    let sql =
        "INSERT INTO audit_events (organization_id, audit_id, namespace_id, user_id, key_id, action, resource_type,
         resource_id, operation_id, method, path, status, status_code, request_id, ip_address, user_agent, reason,
         created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
         ON CONFLICT (organization_id, audit_id) DO UPDATE SET resource_id = excluded.resource_id,
         namespace_id = excluded.namespace_id, status = excluded.status, status_code = excluded.status_code";
    let told = entry.told.lock().clone();
    let Some((organization_id, user_id, key_id)) = told.actor else { return Ok(()) };
    let is_success = status_code.is_none_or(|code| code < 400);
    let (operation, call) = (&*entry.operation, &entry.call);
    let values = params![
        organization_id,
        entry.audit_id,
        told.namespace_id,
        user_id,
        key_id,
        operation.action,
        operation.resource_type,
        // What is named by nothing smaller is the namespace's or the organization's.
        told.resource_id.as_ref().or(told.namespace_id.as_ref()).unwrap_or(&organization_id),
        operation.operation_id,
        operation.method,
        operation.path,
        if is_success { "success" } else { "failure" },
        status_code,
        call.request_id,
        call.ip_address,
        call.user_agent,
        call.reason,
        entry.created_at,
    ];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}

/// A row of the log, and what its user and key are called now.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub audit_id: String,
    pub namespace_id: Option<String>,
    pub user_id: String,
    pub key_id: String,
    pub action: String,
    pub resource_type: String,
    pub resource_id: String,
    pub operation_id: String,
    pub method: String,
    pub path: String,
    /// `success` or `failure`.
    pub status: String,
    pub status_code: Option<u16>,
    pub request_id: String,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub reason: Option<String>,
    pub created_at: String,
    pub user_name: Option<String>,
    pub email: Option<String>,
    pub key_name: Option<String>,
}

const SELECT: &str = "SELECT a.audit_id, a.namespace_id, a.user_id, a.key_id, a.action, a.resource_type, a.resource_id,
    a.operation_id, a.method, a.path, a.status, a.status_code, a.request_id, a.ip_address, a.user_agent, a.reason,
    a.created_at, u.name, u.email, k.name FROM audit_events a LEFT JOIN users u ON u.user_id = a.user_id
    LEFT JOIN api_keys k ON k.key_id = a.key_id";

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        audit_id: row.get(0)?,
        namespace_id: row.get(1)?,
        user_id: row.get(2)?,
        key_id: row.get(3)?,
        action: row.get(4)?,
        resource_type: row.get(5)?,
        resource_id: row.get(6)?,
        operation_id: row.get(7)?,
        method: row.get(8)?,
        path: row.get(9)?,
        status: row.get(10)?,
        status_code: row.get(11)?,
        request_id: row.get(12)?,
        ip_address: row.get(13)?,
        user_agent: row.get(14)?,
        reason: row.get(15)?,
        created_at: row.get(16)?,
        user_name: row.get(17)?,
        email: row.get(18)?,
        key_name: row.get(19)?,
    })
}

/// Which events of an organization. What is `None` narrows nothing.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub resource_type: Option<String>,
    pub resource_id: Option<String>,
    /// A user or a key.
    pub actor_id: Option<String>,
    pub action: Option<String>,
    /// Microseconds since the Unix epoch, both inclusive.
    pub start: Option<i64>,
    pub end: Option<i64>,
    /// Only events before this one.
    pub before: Option<String>,
}

impl Selection {
    fn clause(&self, organization_id: &str) -> Clause {
        let text = |value: &str| SqlValue::Text(value.to_owned());
        let mut clause = Clause { sql: "a.organization_id = ?".into(), values: vec![text(organization_id)] };
        for (column, value) in
            [("resource_type", &self.resource_type), ("resource_id", &self.resource_id), ("action", &self.action)]
        {
            if let Some(value) = value {
                clause.and(Clause { sql: format!("a.{column} = ?"), values: vec![text(value)] });
            }
        }
        if let Some(actor) = &self.actor_id {
            let sql = "(a.user_id = ? OR a.key_id = ?)".to_owned();
            clause.and(Clause { sql, values: vec![text(actor), text(actor)] });
        }
        if let Some(start) = self.start {
            clause.and(Clause { sql: "a.audit_id >= ?".into(), values: vec![text(&moment(start))] });
        }
        if let Some(end) = self.end {
            clause.and(Clause { sql: "a.audit_id < ?".into(), values: vec![text(&moment(end.saturating_add(1)))] });
        }
        if let Some(before) = &self.before {
            clause.and(Clause { sql: "a.audit_id < ?".into(), values: vec![text(before)] });
        }
        clause
    }
}

/// What ids of events of this moment begin with; it sorts as time does.
fn moment(micros: i64) -> String {
    format!("{PREFIX}{:014x}", micros.max(0))
}

/// The selected events, newest first.
pub fn list(
    connection: &Connection,
    organization_id: &str,
    selection: &Selection,
    (limit, offset): (usize, usize),
) -> Result<Vec<Event>> {
    let mut clause = selection.clause(organization_id);
    let sql = format!("{SELECT} WHERE {} ORDER BY a.audit_id DESC LIMIT ? OFFSET ?", clause.sql);
    let number = |n: usize| SqlValue::from(i64::try_from(n).unwrap_or(i64::MAX));
    clause.values.extend([number(limit), number(offset)]);
    rows(connection, &sql, &clause.values, event)
}

/// How many events are selected.
pub fn count(connection: &Connection, organization_id: &str, selection: &Selection) -> Result<i64> {
    let clause = selection.clause(organization_id);
    let sql = format!("SELECT count(*) FROM audit_events a WHERE {}", clause.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    statement.query_row(rusqlite::params_from_iter(clause.values), |row| row.get(0)).map_err(from_sql)
}

/// An event of the organization.
pub fn get(connection: &Connection, organization_id: &str, audit_id: &str) -> Result<Event> {
    let sql = format!("{SELECT} WHERE a.organization_id = ?1 AND a.audit_id = ?2");
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row([organization_id, audit_id], event).optional())
        .map_err(from_sql)?;
    found.ok_or_else(|| Error::missing("audit event", audit_id))
}

/// Removes at most `limit` events from before `micros`, the oldest first; answers how many went.
pub fn expire(tx: &Transaction<'_>, organization_id: &str, micros: i64, limit: usize) -> Result<usize> {
    let sql = "DELETE FROM audit_events WHERE organization_id = ?1 AND audit_id IN (SELECT audit_id FROM audit_events
         WHERE organization_id = ?1 AND audit_id < ?2 ORDER BY audit_id LIMIT ?3)";
    let values = params![organization_id, moment(micros), i64::try_from(limit).unwrap_or(i64::MAX)];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

/// What an organization has logged, and for how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Whether reads leave events, too.
    pub reads: bool,
    /// `None`: for ever.
    pub retention_days: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { reads: false, retention_days: Some(365) }
    }
}

/// The settings of an organization, which are the usual ones where it has made none.
pub fn settings(connection: &Connection, organization_id: &str) -> Result<Settings> {
    let sql = "SELECT reads, retention_days FROM audit_settings WHERE organization_id = ?1";
    let read = |row: &Row<'_>| Ok(Settings { reads: row.get(0)?, retention_days: row.get(1)? });
    let found = connection.prepare_cached(sql).and_then(|mut s| s.query_row([organization_id], read).optional());
    Ok(found.map_err(from_sql)?.unwrap_or_default())
}

pub fn put_settings(tx: &Transaction<'_>, organization_id: &str, settings: Settings) -> Result<()> {
    let sql = "INSERT INTO audit_settings (organization_id, reads, retention_days) VALUES (?1, ?2, ?3)
         ON CONFLICT (organization_id) DO UPDATE SET reads = excluded.reads, retention_days = excluded.retention_days";
    let values = params![organization_id, settings.reads, settings.retention_days];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}

/// Whether any organization has reads logged.
pub fn any_reads(connection: &Connection) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM audit_settings WHERE reads)";
    connection.query_row(sql, [], |row| row.get(0)).map_err(from_sql)
}

/// Every organization with its settings.
pub fn all_settings(connection: &Connection) -> Result<Vec<(String, Settings)>> {
    let organizations: Vec<String> =
        rows(connection, "SELECT organization_id FROM organizations", &[] as &[SqlValue], |row| row.get(0))?;
    organizations.into_iter().map(|id| Ok((id.clone(), settings(connection, &id)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_times_do() {
        let times = [0, 1, 1_700_000_000_000_000, 1_700_000_000_000_001, i64::from(u32::MAX) * 1_000_000];
        assert!(times.windows(2).all(|pair| moment(pair[0]) < moment(pair[1])));
        assert_eq!(moment(-5), moment(0));
    }
}
