//! Taking a snapshot: one read transaction over the rows of a namespace, part after part, while no content is removed.

use super::{Progress, must_go_on, report};
use crate::Engine;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use strata_model::{Error, Fields, Result, Scope};
use strata_store::{
    catalog::{
        lineage,
        namespace_rows::{self, Table},
        principals::Namespace,
        rusqlite::Connection,
        snapshots::{self as rows, Snapshot},
        transfers::Transfer,
    },
    snapshot::{FORMAT, Head, Manifest, PartEntry, PartWriter},
};
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Parts that wait to be stored.
const WAITING_PARTS: usize = 2;
/// Key of a snapshot's body: its [`Choice`].
const CHOICE: &str = "choice";
/// Key of a snapshot's body: its manifest.
const MANIFEST: &str = "manifest";

/// What goes into a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub tables: Vec<Table>,
    pub include_vectors: bool,
    /// Ids of the collections that go in; without it, all.
    #[serde(default)]
    pub collections: Option<Vec<String>>,
    /// Ids of the collections whose documents and finished work go in; without it, all.
    #[serde(default)]
    pub documents: Option<Vec<String>>,
    /// Ids of the retrievers that go in; without it, all.
    #[serde(default)]
    pub retrievers: Option<Vec<String>>,
}

impl Choice {
    pub fn everything(include_vectors: bool) -> Self {
        Self { include_vectors, ..Self::of_tables(Table::ALL.to_vec()) }
    }

    pub fn of_tables(tables: Vec<Table>) -> Self {
        Self { tables, include_vectors: true, collections: None, documents: None, retrievers: None }
    }

    fn takes(&self, table: Table, row: &Fields) -> bool {
        let (ids, column) = match table {
            Table::Collections | Table::CollectionSources => (&self.collections, "collection_id"),
            Table::Documents | Table::Derivations => (&self.documents, "collection_id"),
            Table::Retrievers => (&self.retrievers, "retriever_id"),
            _ => return true,
        };
        let id = row.get(column).and_then(Value::as_str).unwrap_or_default();
        ids.as_ref().is_none_or(|ids| ids.iter().any(|known| known == id))
    }

    /// As the body of a snapshot begins.
    pub fn to_body(&self) -> Result<Fields> {
        let mut body = Fields::new();
        body.insert(CHOICE.into(), serde_json::to_value(self).map_err(Error::internal)?);
        Ok(body)
    }

    /// A snapshot of it that goes with the work that it is for.
    pub fn passing(&self, source: &Namespace, snapshot_id: &str, now: &str) -> Result<Snapshot> {
        Ok(Snapshot {
            snapshot_id: snapshot_id.to_owned(),
            organization_id: source.organization_id.clone(),
            namespace_id: source.namespace_id.clone(),
            namespace_name: source.name.clone(),
            is_passing: true,
            status: "pending".into(),
            body: self.to_body()?,
            created_at: now.to_owned(),
            updated_at: now.to_owned(),
        })
    }

    fn of(snapshot: &Snapshot) -> Result<Self> {
        let kept = snapshot.body.get(CHOICE).cloned().unwrap_or_default();
        serde_json::from_value(kept).map_err(Error::internal)
    }
}

/// The manifest of a snapshot that is complete.
pub(crate) fn manifest(snapshot: &Snapshot) -> Result<Option<Manifest>> {
    match snapshot.body.get(MANIFEST) {
        Some(kept) if snapshot.status == "completed" => Manifest::read(kept, &snapshot.snapshot_id).map(Some),
        _ => Ok(None),
    }
}

/// A part that is read and not stored.
struct Piece {
    table: Table,
    rows: u64,
    bytes: Vec<u8>,
    /// The contents that its rows refer to.
    hashes: Vec<String>,
}

/// Takes the snapshot of a transfer.
pub(super) async fn take(engine: &Arc<Engine>, transfer: &Transfer, snapshot: Snapshot) -> Result<Manifest> {
    let choice = Choice::of(&snapshot)?;
    let (begun, now) = (snapshot.clone(), engine.catalog.now());
    let write = engine.catalog.write(move |tx| {
        rows::update(tx, &begun.snapshot_id, "in_progress", &begun.body, &now)?;
        // What an attempt that was cut short has left.
        rows::release(tx, &begun.snapshot_id)
    });
    let left = write.await?;
    engine.remove_blobs(left).await;
    report(engine, transfer, Progress { phase: "reading", done: 0, total: 0 }).await?;
    // What a row refers to must not go before the snapshot holds it.
    let kept = engine.blobs.keep_all().await?;
    let created_at = engine.catalog.now();
    let scope = Scope::whole(&*snapshot.organization_id, &*snapshot.namespace_id);
    let (sender, receiver) = mpsc::channel(WAITING_PARTS);
    let (snapshot_id, with_vectors) = (snapshot.snapshot_id.clone(), choice.include_vectors);
    let reading = engine.catalog.read(move |connection| read(connection, &scope, &choice, &snapshot_id, sender));
    let (read, stored) = tokio::join!(reading, store(engine, transfer, &snapshot.snapshot_id, receiver));
    let parts = stored?;
    let counts = read?;
    let manifest = Manifest {
        format: FORMAT,
        snapshot_id: snapshot.snapshot_id.clone(),
        namespace_id: snapshot.namespace_id.clone(),
        namespace_name: snapshot.namespace_name.clone(),
        created_at,
        include_vectors: with_vectors,
        rows: counts.rows,
        documents: counts.documents,
        vectors: counts.vectors,
        parts,
    };
    seal(engine, transfer, snapshot, &manifest).await?;
    drop(kept);
    Ok(manifest)
}

/// Stores the manifest, after which the snapshot is complete.
async fn seal(engine: &Arc<Engine>, transfer: &Transfer, mut snapshot: Snapshot, manifest: &Manifest) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(manifest).map_err(Error::internal)?;
    bytes.push(b'\n');
    let held = engine.blobs.put_held(bytes.into()).await?;
    let (hash, size_bytes) = (held.hash().to_owned(), held.size_bytes());
    snapshot.body.insert(MANIFEST.into(), serde_json::to_value(manifest).map_err(Error::internal)?);
    snapshot.body.insert("manifest_file".into(), json!({ "sha256": hash, "size_bytes": size_bytes }));
    let now = engine.catalog.now();
    snapshot.body.insert("completed_at".into(), now.clone().into());
    let transfer = transfer.clone();
    let write = engine.catalog.write(move |tx| {
        must_go_on(tx, &transfer)?;
        rows::add_own(tx, &snapshot.snapshot_id, &hash, size_bytes, &now)?;
        rows::update(tx, &snapshot.snapshot_id, "completed", &snapshot.body, &now)
    });
    match write.await? {
        true => Ok(()),
        false => Err(Error::Conflict("the snapshot was deleted".into())),
    }
}

/// Stores parts as they come, and holds what their rows refer to.
async fn store(
    engine: &Arc<Engine>,
    transfer: &Transfer,
    snapshot_id: &str,
    mut receiver: Receiver<Piece>,
) -> Result<Vec<PartEntry>> {
    let mut parts: Vec<PartEntry> = Vec::new();
    while let Some(piece) = receiver.recv().await {
        let held = engine.blobs.put_held(piece.bytes.into()).await?;
        let (sha256, size_bytes) = (held.hash().to_owned(), held.size_bytes());
        let (id, hash, hashes, now) = (snapshot_id.to_owned(), sha256.clone(), piece.hashes, engine.catalog.now());
        let transfer = transfer.clone();
        let write = engine.catalog.write(move |tx| {
            must_go_on(tx, &transfer)?;
            rows::add_own(tx, &id, &hash, size_bytes, &now)?;
            rows::add_referenced(tx, &id, &hashes)
        });
        write.await?;
        parts.push(PartEntry { table: piece.table, rows: piece.rows, sha256, size_bytes });
    }
    Ok(parts)
}

#[derive(Default)]
struct Counts {
    rows: BTreeMap<String, u64>,
    documents: BTreeMap<String, u64>,
    vectors: u64,
}

/// Reads everything that was chosen and sends it in parts. Blocks.
fn read(
    connection: &Connection,
    scope: &Scope,
    choice: &Choice,
    snapshot_id: &str,
    sender: Sender<Piece>,
) -> Result<Counts> {
    if lineage::namespace_body(connection, &scope.namespace_id)?.is_none() {
        return Err(Error::missing("namespace", &scope.namespace_id));
    }
    let (hashes, counts) = (BTreeSet::new(), Counts::default());
    let mut reading = Reading { snapshot_id, sender, part: 0, open: None, hashes, counts };
    for table in &choice.tables {
        namespace_rows::each(connection, scope, *table, choice.include_vectors, |mut row| {
            if !choice.takes(*table, &row) {
                return Ok(());
            }
            if *table == Table::Derivations && !choice.include_vectors {
                // Documents without their vectors are not what the work made, so it is not to be taken as done.
                row.insert("input_hash".into(), Value::Null);
            }
            reading.add(*table, &row)
        })?;
        reading.flush()?;
    }
    Ok(reading.counts)
}

struct Reading<'s> {
    snapshot_id: &'s str,
    sender: Sender<Piece>,
    /// The number of the next part.
    part: usize,
    open: Option<PartWriter>,
    hashes: BTreeSet<String>,
    counts: Counts,
}

impl Reading<'_> {
    fn add(&mut self, table: Table, row: &Fields) -> Result<()> {
        let mut writer = match self.open.take() {
            Some(writer) => writer,
            None => PartWriter::new(Head {
                format: FORMAT,
                snapshot_id: self.snapshot_id.to_owned(),
                part: self.part,
                table,
            })?,
        };
        writer.add(row)?;
        let is_full = writer.is_full();
        self.open = Some(writer);
        self.hashes.extend(namespace_rows::contents(table, row)?);
        *self.counts.rows.entry(table.name().to_owned()).or_default() += 1;
        if table == Table::Documents {
            let collection = row.get("collection_id").and_then(Value::as_str).unwrap_or_default();
            *self.counts.documents.entry(collection.to_owned()).or_default() += 1;
            self.counts.vectors += row.get("vectors").and_then(Value::as_array).map_or(0, |list| list.len() as u64);
        }
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Sends the part that is open.
    fn flush(&mut self) -> Result<()> {
        let Some(writer) = self.open.take() else { return Ok(()) };
        let table = writer.table();
        let (bytes, rows) = writer.finish()?;
        self.part += 1;
        let hashes = std::mem::take(&mut self.hashes).into_iter().collect();
        let piece = Piece { table, rows, bytes, hashes };
        self.sender.blocking_send(piece).map_err(|_| Error::internal("the parts of a snapshot are not stored any more"))
    }
}
