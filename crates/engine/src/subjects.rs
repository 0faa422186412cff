//! Requests of data subjects: a copy of what is known of a person, and its erasure.
//!
//! A request is a row. One task works through the rows, oldest first, in steps that may run again: an erasure removes
//! some rows and counts them in one transaction, an export is stored before the transaction that names it. So what a
//! crash cuts short goes on at the next start, and a request that is made twice does nothing twice.

use crate::{Engine, audit, principals::check_name, times};
use futures::FutureExt;
use serde_json::{Value, json};
use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use strata_model::{Error, Fields, Principal, Result};
use strata_store::{
    catalog::{
        objects,
        rusqlite::Connection,
        subjects::{self as rows, Person},
    },
    seams::rfc3339,
};
use tokio::sync::Notify;

pub use rows::Request;

/// What is looked through for a person.
pub const CATEGORIES: [&str; 6] =
    ["users", "api_keys", "interactions", "session_interactions", "annotations", "audit_events"];
/// What an erasure removes of it.
pub const ERASED: [&str; 4] = ["interactions", "session_interactions", "annotations", "annotation_edits"];
/// How long an export can be fetched.
const EXPORT_DAYS: i64 = 7;

/// Most requests of an organization that wait, and that a list shows.
const MAX_WAITING: i64 = 100;
const MAX_LISTED: usize = 1_000;
/// Rows that one transaction of an erasure removes.
const STEP: usize = 500;
/// Most bytes of an export.
const MAX_EXPORT_BYTES: usize = 256 << 20;
/// How often a request may be begun.
const MAX_ATTEMPTS: i64 = 5;
const MEDIA_TYPE: &str = "application/json";
/// The longest the worker sleeps without looking, and its pause after a failure.
const IDLE: Duration = Duration::from_secs(60);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Export,
    Delete,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Export => "export",
            Self::Delete => "delete",
        }
    }
}

/// When a request is likely to be done, as the catalog spells times.
pub fn estimated_completion(request: &Request) -> String {
    rfc3339(times::micros(&request.created_at) + IDLE.as_micros() as i64)
}

/// Wakes whoever works through requests.
#[derive(Default)]
pub(crate) struct Worker {
    wake: Notify,
}

impl Engine {
    /// Asks for a copy or the erasure of what is known of `subject`: the id or the e-mail address of a user, or the
    /// name that interactions or annotations have for a person; without one, the caller. Asking again before it is done
    /// answers the first request.
    pub async fn request_subject(&self, principal: &Principal, kind: Kind, subject: Option<String>) -> Result<Request> {
        check_name("subject", subject.as_deref(), 1, 254)?;
        let now = self.catalog.now();
        let request = Request {
            request_id: self.catalog.new_id("dsar_", 16),
            organization_id: principal.organization_id.clone(),
            kind: kind.as_str().into(),
            subject: subject.unwrap_or_else(|| principal.user_id.clone()),
            requested_by: principal.user_id.clone(),
            status: "pending".into(),
            attempts: 0,
            blob_hash: None,
            body: Fields::new(),
            created_at: now,
            completed_at: None,
            expires_at: None,
        };
        audit::about(&request.request_id);
        let write = self.catalog.write(move |tx| {
            let (organization, subject) = (&request.organization_id, &request.subject);
            if let Some(waiting) = rows::waiting(tx, organization, &request.kind, subject)? {
                return Ok(waiting);
            }
            if rows::count_waiting(tx, organization)? >= MAX_WAITING {
                return Err(Error::Busy {
                    message: format!("{MAX_WAITING} requests wait already"),
                    retry_after_seconds: 60,
                });
            }
            rows::put(tx, &request)?;
            Ok(request)
        });
        let request = write.await?;
        audit::about(&request.request_id);
        self.subjects.wake.notify_one();
        Ok(request)
    }

    /// The requests of the organization, newest first; at most 1,000 of them.
    pub async fn subject_requests(&self, principal: &Principal) -> Result<Vec<Request>> {
        let organization = principal.organization_id.clone();
        self.catalog.read(move |connection| rows::list(connection, &organization, MAX_LISTED)).await
    }

    /// Where the copy of a request can be fetched, as long as there is one.
    pub fn subject_export_url(&self, request: &Request) -> Result<Option<String>> {
        let Some(hash) = &request.blob_hash else { return Ok(None) };
        let name = format!("{}.json", request.request_id);
        self.presigned_get(hash, Some(&name), MEDIA_TYPE, strata_model::limits::PRESIGN_SECONDS).map(Some)
    }

    /// Removes exports whose time is over.
    pub(crate) async fn sweep_subjects(&self) -> Result<()> {
        let now = self.catalog.now();
        let expired = self.catalog.write(move |tx| rows::expire(tx, &now)).await?;
        self.remove_blobs(expired).await;
        Ok(())
    }

    async fn person(&self, request: &Request) -> Result<Person> {
        let (organization, subject) = (request.organization_id.clone(), request.subject.clone());
        self.catalog.read(move |connection| rows::person(connection, &organization, &subject)).await
    }
}

/// Starts whoever works through requests. It lives until the engine's queue stops.
pub(crate) fn start(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let stop = engine.queue.stopping();
    let tracker = engine.queue.tracker().clone();
    drop(tracker.spawn(async move { stop.run_until_cancelled(work(&engine)).await }));
}

async fn work(engine: &Arc<Engine>) {
    loop {
        match AssertUnwindSafe(turn(engine)).catch_unwind().await {
            Ok(Ok(true)) => continue,
            Ok(Ok(false)) => {}
            Ok(Err(error)) => tracing::error!(%error, "a request of a data subject is not done; it is tried again"),
            Err(_) => tracing::error!("a request of a data subject panicked; it is tried again"),
        }
        // Woken or not: who looks in vain loses nothing.
        drop(tokio::time::timeout(IDLE, engine.subjects.wake.notified()).await);
    }
}

/// Works through the oldest request that waits; answers whether there was one.
async fn turn(engine: &Arc<Engine>) -> Result<bool> {
    let Some(mut request) = engine.catalog.write(rows::begin).await? else { return Ok(false) };
    let outcome = match request.kind.as_str() {
        "export" => export(engine, &mut request).await,
        _ => erase(engine, &mut request).await,
    };
    let (error, outcome) = match outcome {
        Ok(()) => (None, "completed"),
        Err(error @ Error::TooLarge(_)) => (Some(error.to_string()), "failed"),
        Err(error) if request.attempts >= MAX_ATTEMPTS => {
            tracing::error!(%error, request_id = request.request_id, "a request of a data subject failed for good");
            (Some("it failed again and again; the server's log says why".to_owned()), "failed")
        }
        Err(error) => return Err(error),
    };
    metrics::counter!("strata_subject_requests_total", "outcome" => outcome).increment(1);
    if let Some(error) = error {
        fail(engine, request, error).await?;
    }
    Ok(true)
}

async fn fail(engine: &Engine, mut request: Request, error: String) -> Result<()> {
    request.status = "failed".into();
    request.completed_at = Some(engine.catalog.now());
    request.body.insert("error".into(), error.into());
    engine.catalog.write(move |tx| rows::put(tx, &request)).await
}

/// Removes what is known of a person, step by step, and counts it.
async fn erase(engine: &Engine, request: &mut Request) -> Result<()> {
    let person = engine.person(request).await?;
    loop {
        let (of, now, mut written) = (person.clone(), engine.catalog.now(), request.clone());
        let write = engine.catalog.write(move |tx| {
            let step = rows::erase(tx, &of, STEP)?;
            add(&mut written.body, "erased", &step.erased);
            if step.is_over() {
                written.body.remove("kept");
                add(&mut written.body, "kept", &rows::kept(tx, &of)?);
                written.status = "completed".into();
                written.completed_at = Some(now);
            }
            rows::put(tx, &written)?;
            Ok((step, written))
        });
        let (step, written) = write.await?;
        for retriever in &step.retriever_ids {
            engine.memory.feedback.forget(retriever);
        }
        *request = written;
        if step.is_over() {
            return Ok(());
        }
    }
}

/// Adds counts to those that `body` has under `key`.
fn add(body: &mut Fields, key: &str, counts: &BTreeMap<&'static str, u64>) {
    let all = body.entry(key).or_insert_with(|| json!({}));
    for (category, count) in counts {
        all[*category] = (all[*category].as_u64().unwrap_or(0) + count).into();
    }
}

/// Stores a copy of what is known of a person.
async fn export(engine: &Engine, request: &mut Request) -> Result<()> {
    let (person, heading) = (engine.person(request).await?, heading(request, &engine.catalog.now()));
    let (bytes, counts) = engine.catalog.read(move |connection| gather(connection, &person, &heading)).await?;
    let held = engine.blobs.put_held(bytes.into()).await?;
    let (hash, size_bytes) = (held.hash().to_owned(), held.size_bytes());
    let expires = engine.catalog.now_micros() + EXPORT_DAYS * times::DAY;
    request.status = "completed".into();
    request.blob_hash = Some(hash.clone());
    request.completed_at = Some(engine.catalog.now());
    request.expires_at = Some(rfc3339(expires));
    request.body.remove("exported");
    add(&mut request.body, "exported", &counts);
    let (written, stored, now) = (request.clone(), hash.clone(), engine.catalog.now());
    let write = engine.catalog.write(move |tx| {
        objects::put_blob(tx, &stored, size_bytes, MEDIA_TYPE, &now)?;
        rows::put(tx, &written)
    });
    let outcome = write.await;
    drop(held);
    engine.or_discard(outcome, vec![hash]).await
}

fn heading(request: &Request, now: &str) -> Value {
    json!({
        "request_id": request.request_id,
        "subject": request.subject,
        "requested_at": request.created_at,
        "exported_at": now,
    })
}

/// The copy as JSON: the heading's keys, and of every category a list.
fn gather(connection: &Connection, person: &Person, heading: &Value) -> Result<(Vec<u8>, BTreeMap<&'static str, u64>)> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut lists: BTreeMap<&'static str, Vec<u8>> = CATEGORIES.iter().map(|name| (*name, Vec::new())).collect();
    let mut size_bytes = 0;
    rows::visit(connection, person, |category, row| {
        let list = lists.entry(category).or_default();
        if !list.is_empty() {
            list.push(b',');
        }
        let before = list.len();
        serde_json::to_writer(&mut *list, &row).map_err(Error::internal)?;
        size_bytes += list.len() - before;
        *counts.entry(category).or_default() += 1;
        match size_bytes > MAX_EXPORT_BYTES {
            true => Err(Error::TooLarge(format!("more than {MAX_EXPORT_BYTES} bytes are known of this person"))),
            false => Ok(()),
        }
    })?;
    let mut bytes = serde_json::to_vec(heading).map_err(Error::internal)?;
    bytes.pop();
    for (category, list) in lists {
        bytes.extend(format!(",\"{category}\":[").bytes());
        bytes.extend(list);
        bytes.push(b']');
    }
    bytes.push(b'}');
    Ok((bytes, counts))
}
