//! Rows of derivations: the queue of work, the lineage edges, the cache keys and the audit record in one.
//!
//! A row exists once for each input of a collection. Queuing it again keeps the hash and fingerprint of its last
//! completion, so that a worker can see that nothing changed and run no model.

use super::{documents, from_sql};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use strata_model::{Result, Scope, document::Document};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    Object,
    Document,
}

impl InputKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Document => "document",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Running,
    Completed,
    Failed,
    Canceled,
}

impl Status {
    const ALL: [(&'static str, Self); 5] = [
        ("pending", Self::Pending),
        ("running", Self::Running),
        ("completed", Self::Completed),
        ("failed", Self::Failed),
        ("canceled", Self::Canceled),
    ];
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, s)| *s == self).map_or("pending", |(name, _)| name)
    }
}

/// One unit of work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Derivation {
    pub derivation_id: String,
    pub namespace_id: String,
    pub organization_id: String,
    pub collection_id: String,
    pub batch_id: Option<String>,
    pub tier: u32,
    pub input_kind: InputKind,
    pub input_id: String,
    pub root_object_id: Option<String>,
    /// Of the last completion.
    pub input_hash: Option<String>,
    pub extractor_id: String,
    /// Of the last completion.
    pub extractor_fingerprint: Option<String>,
    pub status: Status,
    /// Also the fence: a worker may finish the row only at the attempt that it was leased at.
    pub attempts: u32,
    pub crashes: u32,
    pub error: Option<String>,
    /// `transient`, `permanent` or `resource`.
    pub error_type: Option<String>,
    pub outputs: u64,
    /// Whether the last completion ran no model.
    pub reused: bool,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub duration_ms: Option<f64>,
}

impl Derivation {
    pub fn scope(&self) -> Scope {
        Scope::whole(&*self.organization_id, &*self.namespace_id)
    }
}

/// What is to be derived.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub collection_id: &'a str,
    pub batch_id: Option<&'a str>,
    pub tier: u32,
    pub input_kind: InputKind,
    pub input_id: &'a str,
    pub root_object_id: Option<&'a str>,
    pub extractor_id: &'a str,
    /// Forget the last completion, so that the work is done again even if nothing changed.
    pub force: bool,
}

const COLUMNS: &str = "d.derivation_id, d.namespace_id, n.organization_id, d.collection_id, d.batch_id, d.tier, d.input_kind, \
     d.input_id, d.root_object_id, d.input_hash, d.extractor_id, d.extractor_fingerprint, d.status, d.attempts, d.crashes, \
     d.error, d.error_type, d.outputs, d.reused, d.created_at, d.started_at, d.finished_at, d.duration_ms";
const FROM: &str = "FROM derivations d JOIN namespaces n ON n.namespace_id = d.namespace_id";

fn row(r: &Row<'_>) -> rusqlite::Result<Derivation> {
    let kind: String = r.get(6)?;
    let status: String = r.get(12)?;
    Ok(Derivation {
        derivation_id: r.get(0)?,
        namespace_id: r.get(1)?,
        organization_id: r.get(2)?,
        collection_id: r.get(3)?,
        batch_id: r.get(4)?,
        tier: r.get(5)?,
        input_kind: if kind == "object" { InputKind::Object } else { InputKind::Document },
        input_id: r.get(7)?,
        root_object_id: r.get(8)?,
        input_hash: r.get(9)?,
        extractor_id: r.get(10)?,
        extractor_fingerprint: r.get(11)?,
        status: Status::ALL.iter().find(|(name, _)| *name == status).map_or(Status::Pending, |(_, s)| *s),
        attempts: r.get(13)?,
        crashes: r.get(14)?,
        error: r.get(15)?,
        error_type: r.get(16)?,
        outputs: r.get::<_, i64>(17)?.unsigned_abs(),
        reused: r.get(18)?,
        created_at: r.get(19)?,
        started_at: r.get(20)?,
        finished_at: r.get(21)?,
        duration_ms: r.get(22)?,
    })
}

fn rows(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<Vec<Derivation>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(values, row).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

fn run(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

/// Queues a unit of work. A row of the same collection and input is queued again, under the new batch.
pub fn enqueue(tx: &Transaction<'_>, scope: &Scope, new_id: &str, now: &str, request: &Request<'_>) -> Result<()> {
    let forget = if request.force { "NULL" } else { "derivations.input_hash" };
    let sql = format!(
        "INSERT INTO derivations (derivation_id, namespace_id, collection_id, batch_id, tier, input_kind, input_id,
         root_object_id, extractor_id, status, attempts, crashes, lease_until, outputs, reused, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'pending', 0, 0, 0, 0, 0, ?10)
         ON CONFLICT (collection_id, input_id) DO UPDATE SET batch_id = excluded.batch_id, tier = excluded.tier,
         extractor_id = excluded.extractor_id, status = 'pending', attempts = 0, crashes = 0, lease_until = 0, error = NULL,
         error_type = NULL, input_hash = {forget}"
    );
    let values = params![
        new_id,
        scope.namespace_id,
        request.collection_id,
        request.batch_id,
        request.tier,
        request.input_kind.as_str(),
        request.input_id,
        request.root_object_id,
        request.extractor_id,
        now
    ];
    run(tx, &sql, values).map(drop)
}

/// Leases what is due until `until`, both in microseconds since the epoch, and counts the attempt: at most `limit` rows.
/// Rows that were running when the process died at least `suspect` times are not among them, but for one, where
/// `with_suspect` says so: the one that it died over least.
pub fn lease(
    tx: &Transaction<'_>,
    now_micros: i64,
    until: i64,
    now: &str,
    limit: usize,
    suspect: u32,
    with_suspect: bool,
) -> Result<Vec<Derivation>> {
    const DUE: &str =
        "SELECT derivation_id FROM derivations WHERE status IN ('pending', 'running') AND lease_until <= ?1";
    let mut ids = documents::rows(
        tx,
        &format!("{DUE} AND crashes < ?2 ORDER BY lease_until, tier, created_at LIMIT ?3"),
        &[now_micros, suspect.into(), limit as i64],
        |r| r.get::<_, String>(0),
    )?;
    if with_suspect {
        let sql = format!("{DUE} AND crashes >= ?2 ORDER BY crashes, lease_until, tier LIMIT 1");
        ids.extend(documents::rows(tx, &sql, &[now_micros, suspect.into()], |r| r.get::<_, String>(0))?);
    }
    let mut leased = Vec::with_capacity(ids.len());
    for id in ids {
        let sql = "UPDATE derivations SET status = 'running', attempts = attempts + 1, lease_until = ?2, started_at = ?3 WHERE derivation_id = ?1";
        run(tx, sql, params![id, until, now])?;
        leased.extend(rows(tx, &format!("SELECT {COLUMNS} {FROM} WHERE d.derivation_id = ?1"), [id])?);
    }
    Ok(leased)
}

/// Lengthens the leases of work that is still going on.
pub fn renew(tx: &Transaction<'_>, ids: &[String], until: i64) -> Result<()> {
    for id in ids {
        run(
            tx,
            "UPDATE derivations SET lease_until = ?2 WHERE derivation_id = ?1 AND status = 'running'",
            params![id, until],
        )?;
    }
    Ok(())
}

/// After a start: nothing can be running. What was is due again, unless the process died over it too often.
pub fn recover(tx: &Transaction<'_>, max_crashes: u32, now: &str) -> Result<usize> {
    let given_up = "UPDATE derivations SET status = 'failed', error_type = 'resource', finished_at = ?2,
         error = 'the server died ' || (crashes + 1) || ' times while working on this input'
         WHERE status = 'running' AND crashes + 1 >= ?1";
    run(tx, given_up, params![max_crashes, now])?;
    let sql = "UPDATE derivations SET status = 'pending', crashes = crashes + 1, attempts = max(attempts - 1, 0), lease_until = 0
         WHERE status = 'running'";
    run(tx, sql, [])
}

/// When the next row is due, in microseconds since the epoch; `None` when none waits.
pub fn next_due(connection: &Connection) -> Result<Option<i64>> {
    let sql = "SELECT min(lease_until) FROM derivations WHERE status IN ('pending', 'running')";
    connection.prepare_cached(sql).and_then(|mut s| s.query_row([], |r| r.get(0))).map_err(from_sql)
}

/// Whether `leased` is still this worker's to finish: it was not canceled, deleted, queued again or taken over.
pub fn held(connection: &Connection, leased: &Derivation) -> Result<bool> {
    let sql = "SELECT 1 FROM derivations WHERE derivation_id = ?1 AND status = 'running' AND attempts = ?2";
    let found = connection
        .prepare_cached(sql)
        .and_then(|mut s| s.query_row(params![leased.derivation_id, leased.attempts], |_| Ok(())).optional());
    Ok(found.map_err(from_sql)?.is_some())
}

/// What a finished run leaves in its row.
#[derive(Debug, Clone)]
pub struct Completion<'a> {
    pub input_hash: &'a str,
    pub fingerprint: &'a str,
    pub outputs: usize,
    pub reused: bool,
    pub now: &'a str,
    pub duration_ms: f64,
}

pub fn complete(tx: &Transaction<'_>, id: &str, done: &Completion<'_>) -> Result<()> {
    let sql = "UPDATE derivations SET status = 'completed', input_hash = ?2, extractor_fingerprint = ?3, outputs = ?4, reused = ?5,
         finished_at = ?6, duration_ms = ?7, lease_until = 0, error = NULL, error_type = NULL WHERE derivation_id = ?1";
    run(
        tx,
        sql,
        params![id, done.input_hash, done.fingerprint, done.outputs as i64, done.reused, done.now, done.duration_ms],
    )
    .map(drop)
}

/// Puts it back, due at `due` microseconds since the epoch.
pub fn postpone(tx: &Transaction<'_>, id: &str, due: i64, error: &str) -> Result<()> {
    let sql = "UPDATE derivations SET status = 'pending', lease_until = ?2, error = ?3, error_type = 'transient' WHERE derivation_id = ?1";
    run(tx, sql, params![id, due, error]).map(drop)
}

pub fn fail(tx: &Transaction<'_>, id: &str, error: &str, error_type: &str, now: &str) -> Result<()> {
    let sql = "UPDATE derivations SET status = 'failed', error = ?2, error_type = ?3, finished_at = ?4, lease_until = 0 WHERE derivation_id = ?1";
    run(tx, sql, params![id, error, error_type, now]).map(drop)
}

/// The documents that a derivation made, in their order.
pub fn documents_of(connection: &Connection, scope: &Scope, derivation_id: &str) -> Result<Vec<Document>> {
    let sql = "SELECT seq FROM documents WHERE derivation_id = ?1 ORDER BY ordinal";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let seqs: Vec<i64> =
        statement.query_map([derivation_id], |r| r.get(0)).and_then(Iterator::collect).map_err(from_sql)?;
    documents::fetch(connection, scope, &seqs)
}

/// A completed derivation of the organization with the same key, whose outputs can be taken over.
pub fn same_work(
    connection: &Connection,
    organization_id: &str,
    input_hash: &str,
    fingerprint: &str,
) -> Result<Option<Derivation>> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE d.input_hash = ?1 AND d.extractor_fingerprint = ?2 AND d.status = 'completed'
         AND n.organization_id = ?3 LIMIT 1"
    );
    Ok(rows(connection, &sql, [input_hash, fingerprint, organization_id])?.pop())
}

/// The sequence numbers of `roots` and of every document that descends from them through collections.
pub fn descendants(connection: &Connection, roots: &[i64]) -> Result<Vec<i64>> {
    let mut all = roots.to_vec();
    let mut seen: std::collections::HashSet<i64> = roots.iter().copied().collect();
    let mut at = 0;
    let sql =
        "SELECT child.seq FROM documents parent JOIN documents child ON child.source_document_id = parent.document_id
         AND child.namespace_id = parent.namespace_id WHERE parent.seq = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    // A document created by hand may name any parent, so a cycle is possible: each is visited once.
    while at < all.len() {
        let children: Vec<i64> =
            statement.query_map([all[at]], |r| r.get(0)).and_then(Iterator::collect).map_err(from_sql)?;
        all.extend(children.into_iter().filter(|c| seen.insert(*c)));
        at += 1;
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Removes documents with all that descends from them, and the derivations that read them. Answers the last change of
/// each collection touched and how many documents went.
pub fn remove_documents(tx: &Transaction<'_>, roots: &[i64]) -> Result<(Vec<(String, i64)>, usize)> {
    let all = descendants(tx, roots)?;
    for seq in &all {
        run(
            tx,
            "DELETE FROM derivations WHERE input_kind = 'document' AND input_id = (SELECT document_id FROM documents WHERE seq = ?1)",
            [seq],
        )?;
    }
    Ok((documents::remove(tx, &all)?, all.len()))
}

/// Counts of a batch's derivations, in one of its tiers or in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub pending: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
    pub canceled: u64,
    pub reused: u64,
    pub outputs: u64,
}

impl Counts {
    pub fn total(&self) -> u64 {
        self.pending + self.running + self.completed + self.failed + self.canceled
    }
    /// Work that is over, whatever its end.
    pub fn finished(&self) -> u64 {
        self.completed + self.failed + self.canceled
    }
    pub fn is_over(&self) -> bool {
        self.pending + self.running == 0
    }
}

/// Counts by tier and collection.
pub fn counts_by_tier(connection: &Connection, batch_id: &str) -> Result<Vec<(u32, String, Counts)>> {
    let sql =
        "SELECT tier, collection_id, status, count(*), sum(reused), sum(outputs) FROM derivations WHERE batch_id = ?1
         GROUP BY tier, collection_id, status ORDER BY tier, collection_id";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let mut found = statement.query([batch_id]).map_err(from_sql)?;
    let mut tiers: Vec<(u32, String, Counts)> = Vec::new();
    while let Some(r) = found.next().map_err(from_sql)? {
        let read = || -> rusqlite::Result<_> {
            Ok((
                r.get::<_, u32>(0)?,
                r.get::<_, String>(1)?,
                r.get::<_, String>(2)?,
                r.get::<_, i64>(3)?,
                r.get::<_, i64>(4)?,
                r.get::<_, i64>(5)?,
            ))
        };
        let (tier, collection, status, count, reused, outputs) = read().map_err(from_sql)?;
        if tiers.last().is_none_or(|(t, c, _)| *t != tier || *c != collection) {
            tiers.push((tier, collection, Counts::default()));
        }
        let Some((_, _, counts)) = tiers.last_mut() else { continue };
        let count = count.unsigned_abs();
        match status.as_str() {
            "pending" => counts.pending = count,
            "running" => counts.running = count,
            "completed" => {
                counts.completed = count;
                counts.reused = reused.unsigned_abs();
                counts.outputs = outputs.unsigned_abs();
            }
            "failed" => counts.failed = count,
            _ => counts.canceled = count,
        }
    }
    Ok(tiers)
}

/// Counts over the whole batch.
pub fn counts(connection: &Connection, batch_id: &str) -> Result<Counts> {
    Ok(counts_by_tier(connection, batch_id)?.into_iter().fold(Counts::default(), |mut all, (_, _, c)| {
        all.pending += c.pending;
        all.running += c.running;
        all.completed += c.completed;
        all.failed += c.failed;
        all.canceled += c.canceled;
        all.reused += c.reused;
        all.outputs += c.outputs;
        all
    }))
}

/// Whether a batch still has work to do.
pub fn is_busy(connection: &Connection, batch_id: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM derivations WHERE batch_id = ?1 AND status IN ('pending', 'running') LIMIT 1";
    let found = connection.prepare_cached(sql).and_then(|mut s| s.query_row([batch_id], |_| Ok(())).optional());
    Ok(found.map_err(from_sql)?.is_some())
}

/// The failed derivations of a batch, oldest first.
pub fn failed(connection: &Connection, batch_id: &str, limit: usize, offset: usize) -> Result<Vec<Derivation>> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE d.batch_id = ?1 AND d.status = 'failed' ORDER BY d.finished_at, d.derivation_id LIMIT ?2 OFFSET ?3"
    );
    rows(connection, &sql, params![batch_id, limit as i64, offset as i64])
}

/// Every derivation below an object, its own first.
pub fn of_object(connection: &Connection, scope: &Scope, object_id: &str) -> Result<Vec<Derivation>> {
    let sql = format!(
        "SELECT {COLUMNS} {FROM} WHERE d.namespace_id = ?2 AND (d.root_object_id = ?1 OR d.input_id = ?1) ORDER BY d.tier, d.created_at"
    );
    rows(connection, &sql, [object_id, &scope.namespace_id])
}

/// The derivation of a collection over an input.
pub fn of_input(connection: &Connection, collection_id: &str, input_id: &str) -> Result<Option<Derivation>> {
    let sql = format!("SELECT {COLUMNS} {FROM} WHERE d.collection_id = ?1 AND d.input_id = ?2");
    Ok(rows(connection, &sql, [collection_id, input_id])?.pop())
}

/// Queues the failed ones again, in one tier or in all; only those that may succeed unless `all`.
pub fn retry(tx: &Transaction<'_>, batch_id: &str, tier: Option<u32>, all: bool) -> Result<usize> {
    let sql = "UPDATE derivations SET status = 'pending', attempts = 0, crashes = 0, lease_until = 0, error = NULL, error_type = NULL
         WHERE batch_id = ?1 AND status = 'failed' AND (?2 IS NULL OR tier = ?2) AND (?3 OR error_type <> 'permanent')";
    run(tx, sql, params![batch_id, tier, all])
}

/// Cancels what is not over, in one tier or in all. A running worker's result is then dropped.
pub fn cancel(tx: &Transaction<'_>, batch_id: &str, tier: Option<u32>, now: &str) -> Result<usize> {
    let sql = "UPDATE derivations SET status = 'canceled', lease_until = 0, finished_at = ?3
         WHERE batch_id = ?1 AND status IN ('pending', 'running') AND (?2 IS NULL OR tier = ?2)";
    run(tx, sql, params![batch_id, tier, now])
}

/// Sets an object's status from the derivations that read it directly.
pub fn settle_object(tx: &Transaction<'_>, object_id: &str, now: &str) -> Result<()> {
    let sql = "UPDATE objects SET updated_at = ?2, status = CASE
           WHEN EXISTS (SELECT 1 FROM derivations WHERE input_id = ?1 AND status IN ('pending', 'running')) THEN 'PROCESSING'
           WHEN EXISTS (SELECT 1 FROM derivations WHERE input_id = ?1 AND status = 'failed') THEN 'FAILED'
           ELSE 'COMPLETED' END,
         error = (SELECT error FROM derivations WHERE input_id = ?1 AND status = 'failed' LIMIT 1)
         WHERE object_id = ?1";
    run(tx, sql, [object_id, now]).map(drop)
}

/// Forgets what a batch's derivations came to, so that the next time they are asked for, they are worked through anew,
/// and so that nobody takes their outputs over.
pub fn forget_batch(tx: &Transaction<'_>, batch_id: &str) -> Result<()> {
    run(tx, "UPDATE derivations SET input_hash = NULL WHERE batch_id = ?1", [batch_id]).map(drop)
}

/// The sequence numbers of the documents that a batch's derivations made.
pub fn document_seqs_of_batch(connection: &Connection, batch_id: &str) -> Result<Vec<i64>> {
    let sql =
        "SELECT s.seq FROM documents s JOIN derivations d ON d.derivation_id = s.derivation_id WHERE d.batch_id = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map([batch_id], |r| r.get(0)).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}
