//! The gate of a namespace that is being made: its body says so, and nobody enters until it says that it is whole.

use serde_json::{Value, json};
use strata_model::{Error, Fields, Result, Scope};
use strata_store::catalog::{
    from_sql,
    principals::Namespace,
    rusqlite::{OptionalExtension, Transaction},
};

/// Private key of a namespace's body: how it is being made, or was.
const MAKING: &str = "_transfer";

/// How a namespace is being made from another one or from a snapshot, or was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Making {
    /// `cloning`, `restoring`, `migrating`; `completed`; or `failed`.
    pub status: String,
    pub phase: Option<String>,
    pub error: Option<String>,
    pub task_id: String,
    /// RFC 3339.
    pub dispatched_at: String,
    pub source_namespace_id: String,
}

impl Making {
    /// Whether the namespace can be entered.
    pub fn is_over(&self) -> bool {
        self.status == "completed"
    }
}

/// What a namespace's body says of its making; `None` where it was made empty.
pub fn making(body: &Fields) -> Option<Making> {
    let kept = body.get(MAKING)?;
    let text = |key: &str| kept.get(key).and_then(Value::as_str).map(str::to_owned);
    Some(Making {
        status: text("status")?,
        phase: text("phase"),
        error: text("error"),
        task_id: text("task_id").unwrap_or_default(),
        dispatched_at: text("dispatched_at").unwrap_or_default(),
        source_namespace_id: text("source_namespace_id").unwrap_or_default(),
    })
}

/// Writes into a namespace's body that it is being made.
pub(crate) fn close(body: &mut Fields, making: &Making) {
    let kept = json!({
        "status": making.status,
        "phase": "waiting",
        "task_id": making.task_id,
        "dispatched_at": making.dispatched_at,
        "source_namespace_id": making.source_namespace_id,
    });
    body.insert(MAKING.into(), kept);
}

/// Refuses to enter a namespace that is not whole.
pub(crate) fn check(namespace: &Namespace) -> Result<()> {
    match making(&namespace.body) {
        None => Ok(()),
        Some(making) if making.is_over() => Ok(()),
        Some(making) if making.status == "failed" => Err(Error::Conflict(format!(
            "the namespace `{}` could not be restored and is not whole: restore it again, or delete it",
            namespace.name
        ))),
        Some(making) => Err(Error::Conflict(format!(
            "the namespace `{}` is being made and can be used when task `{}` has ended",
            namespace.name, making.task_id
        ))),
    }
}

/// Lets everybody in.
pub(super) fn open(tx: &Transaction<'_>, scope: &Scope, now: &str) -> Result<()> {
    change(tx, &scope.namespace_id, |kept| {
        kept.insert("status".into(), "completed".into());
        kept.remove("phase");
        kept.remove("error");
    })?;
    let sql = "UPDATE namespaces SET updated_at = ?2 WHERE namespace_id = ?1";
    tx.execute(sql, [&scope.namespace_id, now]).map(drop).map_err(from_sql)
}

/// Leaves it closed.
pub(super) fn fail(tx: &Transaction<'_>, scope: &Scope, message: &str, now: &str) -> Result<()> {
    change(tx, &scope.namespace_id, |kept| {
        kept.insert("status".into(), "failed".into());
        kept.insert("error".into(), message.into());
        kept.insert("failed_at".into(), now.into());
    })
}

pub(super) fn enter_phase(tx: &Transaction<'_>, namespace_id: &str, phase: &str) -> Result<()> {
    change(tx, namespace_id, |kept| drop(kept.insert("phase".into(), phase.into())))
}

/// Changes what is kept of the making and nothing else, so that other changes of the namespace stay.
fn change(tx: &Transaction<'_>, namespace_id: &str, apply: impl FnOnce(&mut Fields)) -> Result<()> {
    let sql = "SELECT json_extract(body, '$._transfer') FROM namespaces WHERE namespace_id = ?1";
    let found: Option<Option<String>> = tx.query_row(sql, [namespace_id], |r| r.get(0)).optional().map_err(from_sql)?;
    let Some(text) = found.flatten() else { return Ok(()) };
    let mut kept: Fields = serde_json::from_str(&text).map_err(Error::internal)?;
    apply(&mut kept);
    let text = serde_json::to_string(&kept).map_err(Error::internal)?;
    let sql = "UPDATE namespaces SET body = json_set(body, '$._transfer', json(?2)) WHERE namespace_id = ?1";
    tx.execute(sql, [namespace_id, &text]).map(drop).map_err(from_sql)
}
