//! Keeps the catalog's payload indexes in line with what namespaces declare: new ones are built behind, a step at a time,
//! so that no write waits for them.

use crate::Engine;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use strata_model::{Fields, Result, Scope, document::SYSTEM_FIELDS, filter::Filter};
use strata_store::catalog::{
    lineage, payload as rows,
    rusqlite::{Connection, Transaction},
};
use tokio::sync::Notify;

/// Documents of one step: what a write that comes at the same time waits for.
const STEP: usize = 500;
/// The pause after a step that failed.
const PAUSE: Duration = Duration::from_secs(10);

/// Wakes the one that builds.
#[derive(Default)]
pub(crate) struct Builder {
    wake: Notify,
}

impl Builder {
    /// An index was declared that is not complete.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Starts the builder. It ends with the engine's queue.
pub(crate) fn start(engine: &Arc<Engine>) {
    let engine = engine.clone();
    let stop = engine.queue.stopping();
    let tracker = engine.queue.tracker().clone();
    let work = async move {
        loop {
            match engine.catalog.write(|tx| rows::build(tx, STEP)).await {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => engine.payload.wake.notified().await,
                Err(error) => {
                    tracing::warn!(%error, "a payload index was not built; lists by its field go without it for now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    drop(tracker.spawn(async move { stop.run_until_cancelled(work).await }));
}

impl Engine {
    /// The fields that a filter names and for which the namespace declares no payload index: for them every document is
    /// looked at.
    pub async fn unindexed(&self, scope: &Scope, filter: &Filter) -> Result<Vec<String>> {
        let mut fields: Vec<String> = filter.fields().into_iter().map(str::to_owned).collect();
        fields.retain(|field| !SYSTEM_FIELDS.contains(&&**field));
        if fields.is_empty() {
            return Ok(fields);
        }
        let namespace_id = scope.namespace_id.clone();
        let read = move |connection: &Connection| {
            let namespace = lineage::namespace_body(connection, &namespace_id)?.unwrap_or_default();
            Ok(named(all(&namespace)).collect::<Vec<_>>())
        };
        let known = self.catalog.recall(format!("payload indexes of {}", scope.namespace_id), read).await?;
        fields.retain(|field| !known.contains(field));
        fields.sort_unstable();
        fields.dedup();
        Ok(fields)
    }
}

/// The payload indexes that a namespace declares.
fn all(namespace: &Fields) -> impl Iterator<Item = &Value> {
    namespace.get("payload_indexes").and_then(Value::as_array).into_iter().flatten()
}

/// The fields that payload indexes are for.
fn named<'a>(indexes: impl Iterator<Item = &'a Value>) -> impl Iterator<Item = String> {
    indexes.filter_map(|index| index["field_name"].as_str().map(str::to_owned))
}

/// Gives a collection the indexes that its namespace declares. Answers whether anything is to be built.
pub(crate) fn declare(tx: &Transaction<'_>, scope: &Scope, collection_id: &str) -> Result<bool> {
    let namespace = lineage::namespace_body(tx, &scope.namespace_id)?.unwrap_or_default();
    rows::declare(tx, collection_id, &declared(&namespace))
}

/// The fields that a namespace declares, but for those whose values have no order, and those that are columns.
fn declared(namespace: &Fields) -> Vec<String> {
    let ordered = all(namespace).filter(|index| !matches!(index["type"].as_str(), Some("text" | "geo")));
    let mut fields: Vec<String> = named(ordered).collect();
    fields.retain(|field| !SYSTEM_FIELDS.contains(&&**field));
    fields
}
