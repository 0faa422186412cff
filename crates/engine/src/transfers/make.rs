//! Making a namespace of a snapshot: its rows, under other names or under their own, page by page.

use super::{CLEARED, Progress, is_in_place, must_go_on, names, part, report};
use crate::{
    Engine,
    collections::{Collection, load_collection, with_extractor},
    migrations, payload,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use strata_model::{Error, Fields, Result, Scope};
use strata_store::{
    catalog::{
        namespace_rows::{self, Table},
        principals,
        resources::{self, Kind as Resource},
        rusqlite::Transaction,
        snapshots,
        transfers::{self as rows, Kind, Transfer},
    },
    snapshot::Manifest,
};

/// Rows of one transaction: what a write that comes at the same time waits for.
const PAGE: usize = 200;

/// What was made.
#[derive(Debug, Default)]
pub(super) struct Made {
    target_namespace_id: String,
    /// Rows by table.
    rows: BTreeMap<&'static str, u64>,
    vectors: u64,
    /// What of the snapshot could not be taken over, in words.
    skipped: Vec<String>,
}

impl Made {
    /// How what was made compares with what the snapshot has, as the API tells it.
    pub fn report(&self, manifest: &Manifest) -> Value {
        let outcome = |table: &Table| {
            let (expected, restored) = (manifest.rows_of(*table), self.rows.get(table.name()).copied().unwrap_or(0));
            let status = if expected == restored { "restored" } else { "partial" };
            json!({ "collection": table.name(), "expected": expected, "restored": restored, "status": status })
        };
        let outcomes: Vec<Value> =
            Table::ALL.iter().filter(|table| manifest.rows_of(**table) > 0).map(outcome).collect();
        let is_complete = outcomes.iter().all(|outcome| outcome["status"] == "restored");
        json!({
            "snapshot_id": manifest.snapshot_id,
            "target_namespace_id": self.target_namespace_id,
            "complete": is_complete && manifest.include_vectors,
            "collections": outcomes,
            "vector_expected": manifest.vectors,
            "vector_restored": self.vectors,
            "vector_source": if manifest.include_vectors { "snapshot" } else { "none" },
            "vector_status": if manifest.include_vectors { "restored" } else { "none" },
            "skipped_summary": self.skipped,
            "retriever_parity": [],
        })
    }
}

/// Fills the namespace, which nobody can enter, with what the snapshot has. Whatever is there already goes.
pub(super) async fn make(
    engine: &Arc<Engine>,
    transfer: &Transfer,
    scope: &Scope,
    manifest: &Manifest,
) -> Result<Made> {
    let total: u64 = manifest.parts.iter().map(|part| part.rows).sum();
    // Nothing is removed before it is known that what replaces it can be read.
    report(engine, transfer, Progress { phase: "checking", done: 0, total }).await?;
    for number in 0..manifest.parts.len() {
        part(engine, manifest, number).await?;
    }
    if transfer.kind == Kind::Restore {
        contents_are_there(engine, manifest).await?;
    }
    clear(engine, transfer, scope, manifest).await?;
    if !is_in_place(transfer) {
        name(engine, transfer, manifest, total).await?;
    }
    let mut made = Made { target_namespace_id: scope.namespace_id.clone(), ..Made::default() };
    let mut fingerprints = HashMap::new();
    let mut done = 0;
    for (number, entry) in manifest.parts.iter().enumerate() {
        report(engine, transfer, Progress { phase: "writing", done, total }).await?;
        let table = entry.table;
        let kept = part(engine, manifest, number).await?;
        done += kept.len() as u64;
        if table == Table::Derivations && fingerprints.is_empty() && !is_in_place(transfer) {
            fingerprints = custom_fingerprints(engine, transfer, scope).await?;
        }
        let mut pages = kept.into_iter().peekable();
        while pages.peek().is_some() {
            let page: Vec<Fields> = pages.by_ref().take(PAGE).collect();
            let (transfer, scope, known) = (transfer.clone(), scope.clone(), fingerprints.clone());
            let write = engine.catalog.write(move |tx| {
                must_go_on(tx, &transfer)?;
                write_page(tx, &transfer, &scope, table, page, &known)
            });
            let written = write.await?;
            *made.rows.entry(table.name()).or_default() += written.rows;
            made.vectors += written.vectors;
            made.skipped.extend(written.skipped);
        }
    }
    Ok(made)
}

/// No row may name content that is not stored.
async fn contents_are_there(engine: &Arc<Engine>, manifest: &Manifest) -> Result<()> {
    let mut after = String::new();
    loop {
        let (id, from) = (manifest.snapshot_id.clone(), after.clone());
        let page = engine.catalog.read(move |connection| snapshots::contents(connection, &id, &from, PAGE)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.hash);
        for content in &page {
            if engine.blobs.size(&content.hash).await? != Some(content.size_bytes) {
                return Err(Error::Conflict(format!(
                    "the content `{}` of snapshot `{}` is missing or damaged",
                    content.hash, manifest.snapshot_id
                )));
            }
        }
    }
}

/// Removes what an earlier attempt, or the time before the restore, has left in the namespace.
async fn clear(engine: &Arc<Engine>, transfer: &Transfer, scope: &Scope, manifest: &Manifest) -> Result<()> {
    let mut kept = Vec::new();
    if is_in_place(transfer) {
        // Keys and publications of retrievers that stay, stay.
        let parts = manifest.parts.iter().enumerate().filter(|(_, part)| part.table == Table::Retrievers);
        for (number, _) in parts {
            let rows = part(engine, manifest, number).await?;
            kept.extend(rows.iter().filter_map(|row| row.get("retriever_id")?.as_str().map(str::to_owned)));
        }
    }
    let (transfer, scope, source) = (transfer.clone(), scope.clone(), manifest.namespace_id.clone());
    let write = engine.change_keys(move |tx| {
        must_go_on(tx, &transfer)?;
        if let Some(mut begun) = rows::find(tx, &transfer.transfer_id)? {
            begun.body.insert(CLEARED.into(), true.into());
            rows::update(tx, &begun)?;
        }
        let collections = resources::list(tx, Resource::Collection, &scope)?;
        namespace_rows::clear(tx, &scope)?;
        namespace_rows::clear_retrievers(tx, &scope, &kept)?;
        rows::forget_names(tx, &transfer.transfer_id)?;
        rows::name(tx, &transfer.transfer_id, &source, &scope.namespace_id)?;
        Ok(collections.into_iter().map(|collection| collection.id).collect::<Vec<String>>())
    });
    let collections = write.await?;
    engine.drop_indexes(collections).await
}

/// Says what everything is called in the copy, before anything is written.
async fn name(engine: &Arc<Engine>, transfer: &Transfer, manifest: &Manifest, total: u64) -> Result<()> {
    let mut done = 0;
    // Documents whose inputs come after them wait for the next round.
    let mut waiting = 0;
    for (number, entry) in manifest.parts.iter().enumerate() {
        report(engine, transfer, Progress { phase: "naming", done, total }).await?;
        done += entry.rows;
        waiting += name_part(engine, transfer, manifest, number, false).await?;
    }
    while waiting > 0 {
        let before = std::mem::take(&mut waiting);
        for number in documents_of(manifest) {
            waiting += name_part(engine, transfer, manifest, number, false).await?;
        }
        if waiting == before {
            for number in documents_of(manifest) {
                name_part(engine, transfer, manifest, number, true).await?;
            }
            return Ok(());
        }
    }
    Ok(())
}

fn documents_of(manifest: &Manifest) -> impl Iterator<Item = usize> {
    let parts = manifest.parts.iter().enumerate().filter(|(_, part)| part.table == Table::Documents);
    parts.map(|(number, _)| number)
}

/// Answers how many rows of a part have to wait.
async fn name_part(
    engine: &Arc<Engine>,
    transfer: &Transfer,
    manifest: &Manifest,
    number: usize,
    is_last: bool,
) -> Result<usize> {
    let table = manifest.parts[number].table;
    if table.key().is_none() {
        return Ok(0);
    }
    let mut waiting = 0;
    let mut pages = part(engine, manifest, number).await?.into_iter().peekable();
    while pages.peek().is_some() {
        let page: Vec<Fields> = pages.by_ref().take(PAGE).collect();
        let transfer = transfer.clone();
        let write = engine.catalog.write(move |tx| {
            must_go_on(tx, &transfer)?;
            names::name_rows(tx, &transfer.transfer_id, table, &page, is_last)
        });
        waiting += write.await?;
    }
    Ok(waiting)
}

/// What became of a page.
#[derive(Default)]
struct Written {
    rows: u64,
    vectors: u64,
    skipped: Vec<String>,
}

fn write_page(
    tx: &Transaction<'_>,
    transfer: &Transfer,
    scope: &Scope,
    table: Table,
    page: Vec<Fields>,
    fingerprints: &HashMap<String, String>,
) -> Result<Written> {
    let mut written = Written::default();
    let in_place = is_in_place(transfer);
    for mut row in page {
        if table == Table::CollectionSources && !in_place && !is_named(tx, transfer, &row, "source_id")? {
            // A source that is not a part of the copy would be one in another namespace.
            written.skipped.push(format!("a source of `{}` is not there", text(&row, "collection_id")));
            continue;
        }
        let replaced = match table {
            Table::Collections => migrations::extractor_of(transfer, text(&row, "collection_id")),
            _ => None,
        };
        if !in_place {
            names::rename(tx, &transfer.transfer_id, table, &mut row)?;
        }
        if row.contains_key("namespace_id") {
            row.insert("namespace_id".into(), scope.namespace_id.clone().into());
        }
        written.vectors += row.get("vectors").and_then(Value::as_array).map_or(0, |list| list.len() as u64);
        match table {
            Table::Namespaces => declare(tx, scope, &row, in_place)?,
            Table::NamespaceModels => {
                let model = text(&row, "model_id");
                if !namespace_rows::has_model(tx, &scope.organization_id, model)? {
                    written.skipped.push(format!("the model `{model}` is not there any more"));
                    continue;
                }
                namespace_rows::insert(tx, table, &row)?;
            }
            Table::Collections => {
                namespace_rows::insert(tx, table, &row)?;
                let id = text(&row, "collection_id");
                payload::declare(tx, scope, id)?;
                if let Some(extractor) = replaced {
                    let current = load_collection(tx, scope, id)?;
                    let changed = with_extractor(tx, scope, &current, &extractor, &current.updated_at)?;
                    resources::update_unseen(tx, Resource::Collection, &changed.to_row()?)?;
                }
            }
            Table::Retrievers if in_place => namespace_rows::put_retriever(tx, &row)?,
            Table::Derivations => {
                if let Some(fingerprint) = fingerprints.get(text(&row, "extractor_fingerprint")) {
                    row.insert("extractor_fingerprint".into(), fingerprint.clone().into());
                }
                namespace_rows::insert(tx, table, &row)?;
            }
            _ => namespace_rows::insert(tx, table, &row)?,
        }
        written.rows += 1;
    }
    Ok(written)
}

fn text<'r>(row: &'r Fields, column: &str) -> &'r str {
    row.get(column).and_then(Value::as_str).unwrap_or_default()
}

fn is_named(tx: &Transaction<'_>, transfer: &Transfer, row: &Fields, column: &str) -> Result<bool> {
    Ok(rows::named(tx, &transfer.transfer_id, text(row, column))?.is_some())
}

/// Gives the namespace what the snapshot's declares, where it has said nothing itself; in its place, in any case.
fn declare(tx: &Transaction<'_>, scope: &Scope, row: &Fields, in_place: bool) -> Result<()> {
    let kept: Fields = serde_json::from_str(text(row, "body")).map_err(Error::internal)?;
    let Some(mut namespace) = principals::find_namespace(tx, &scope.namespace_id)? else { return Ok(()) };
    // When one ends is its own affair, and what begins with `_` is the engine's.
    let own = |key: &str| key.starts_with('_') || key == "expires_at";
    if in_place {
        namespace.body.retain(|key, _| own(key));
    }
    for (key, value) in kept.into_iter().filter(|(key, _)| !own(key)) {
        namespace.body.entry(key).or_insert(value);
    }
    principals::update_namespace(tx, &namespace)
}

/// The fingerprints that custom extractors have in the copy, by those that they have in the original, if that is there:
/// theirs name the registration.
async fn custom_fingerprints(
    engine: &Arc<Engine>,
    transfer: &Transfer,
    scope: &Scope,
) -> Result<HashMap<String, String>> {
    let (id, source) = (transfer.transfer_id.clone(), transfer.source_namespace_id.clone());
    let original = Scope::whole(&*scope.organization_id, source);
    let (of, copy) = (original.clone(), scope.clone());
    let pairs = engine.catalog.read(move |connection| {
        let mut pairs = Vec::new();
        for row in resources::list(connection, Resource::Collection, &of)? {
            let Some(copied) = rows::named(connection, &id, &row.id)? else { continue };
            let Some(copied) = resources::find(connection, Resource::Collection, &copy, &copied)? else { continue };
            pairs.push((Collection::from_row(row)?, Collection::from_row(copied)?));
        }
        Ok(pairs)
    });
    let mut found = HashMap::new();
    for (before, after) in pairs.await? {
        let (Some(before), Some(after)) = (before.extractor, after.extractor) else { continue };
        if before.definition.custom().is_none() {
            continue;
        }
        // Without them the documents are made anew when they are next asked for, and nothing is wrong.
        if let (Ok(old), Ok(new)) =
            (before.fingerprint(engine, &original).await, after.fingerprint(engine, scope).await)
        {
            found.insert(old, new);
        }
    }
    Ok(found)
}
