//! The transaction that ends a derivation: its documents, vectors and lineage, their changes, and the derivations of
//! every collection that reads them. All of it or nothing.

use super::run::{Done, Work};
use crate::{Engine, batches, collections::Collection, extract::Output};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use strata_model::{
    Error, Fields, Result, Scope,
    document::{Document, Lineage, SourceBlob},
    id, limits,
};
use strata_store::catalog::{
    derivations::{self as rows, Derivation, InputKind, Request},
    documents, objects,
    rusqlite::Transaction,
    webhooks::{self, Event},
};
use strata_store::faults;

/// While more derivations than `MANY` are in flight, a result waits for as long as `PATIENCE` for others to share its
/// commit.
const MANY: usize = 64;
/// Most ids that one event names.
const MAX_TOLD: usize = 1_000;
const PATIENCE: Duration = Duration::from_millis(100);

/// Writes the result; answers whether other collections now have work on it. A result that came too late (canceled,
/// deleted, taken over) is dropped.
pub(super) async fn complete(
    engine: &Arc<Engine>,
    leased: &Arc<Derivation>,
    work: Arc<Work>,
    done: Done,
    started: Instant,
) -> Result<bool> {
    if done.outputs.as_ref().is_some_and(|o| o.len() > limits::MAX_DERIVED_DOCUMENTS) {
        return Err(Error::TooLarge(format!("one input makes at most {} documents", limits::MAX_DERIVED_DOCUMENTS)));
    }
    faults::reach(faults::Point::DerivationMade).map_err(Error::internal)?;
    let now = engine.catalog.now();
    let made = done.outputs.as_ref().map(|outputs| documents_from(leased, &work.collection, &done, outputs, &now));
    let (engine_too, leased) = (engine.clone(), leased.clone());
    let patience = if engine.queue.in_flight() > MANY { PATIENCE } else { Duration::ZERO };
    let result = Completing { leased, work, done, made, now, started };
    let (_, (touched, followed)) =
        engine.catalog.write_again(result, patience, move |result, tx| result.write(tx, &engine_too)).await?;
    faults::reach(faults::Point::DerivationCompleted).map_err(Error::internal)?;
    engine.indexed(touched, false).await;
    Ok(followed)
}

/// Everything that the transaction needs.
struct Completing {
    leased: Arc<Derivation>,
    work: Arc<Work>,
    done: Done,
    /// The documents of `done`'s outputs, in their order.
    made: Option<Vec<Document>>,
    now: String,
    started: Instant,
}

impl Completing {
    /// Answers the changes that the index must reach, and whether other collections have work now.
    fn write(&self, tx: &Transaction<'_>, engine: &Engine) -> Result<(Vec<(String, i64)>, bool)> {
        let Self { leased, work, done, made, now, started } = self;
        if !rows::held(tx, leased)? {
            return Ok((Vec::new(), false));
        }
        let scope = leased.scope();
        let meter = engine.config.allowed.quotas.meter(tx, &scope)?;
        let before = rows::documents_of(tx, &scope, &leased.derivation_id)?;
        let mut touched = Vec::new();
        // What the extractor made, though somebody may have deleted some of it since: others take over only all of it.
        let outputs = made.as_ref().map_or(leased.outputs as usize, Vec::len);
        let made: &[Document] = match (made, &done.outputs) {
            (Some(made), Some(outputs)) => {
                for (ordinal, (document, output)) in made.iter().zip(outputs).enumerate() {
                    for artifact in &output.artifacts {
                        let (hash, media_type) = (artifact.hash(), artifact.media_type());
                        objects::put_blob(tx, hash, artifact.size_bytes(), media_type, now)?;
                    }
                    let (seq, change) = documents::put(tx, &scope, document, ordinal, &output.vectors)?;
                    if let Some(key) = &output.key {
                        documents::set_key(tx, seq, key)?;
                    }
                    touched = vec![(document.collection_id.clone(), change)];
                }
                let kept: std::collections::HashSet<&str> = made.iter().map(|d| d.document_id.as_str()).collect();
                let left: Vec<i64> = before.iter().filter(|d| !kept.contains(&*d.document_id)).map(|d| d.seq).collect();
                let (gone, _) = rows::remove_documents(tx, &left)?;
                touched.extend(gone);
                if !made.is_empty() {
                    self.tell(tx, &scope, made)?;
                }
                made
            }
            _ => &before,
        };
        meter.check(tx)?;
        let completion = rows::Completion {
            input_hash: &done.input_hash,
            fingerprint: &done.fingerprint,
            outputs,
            reused: done.reused,
            now,
            duration_ms: started.elapsed().as_secs_f64() * 1000.0,
        };
        rows::complete(tx, &leased.derivation_id, &completion)?;
        let followed = follow(engine, tx, &scope, leased, &work.collection, made, now)?;
        after(tx, leased, now)?;
        Ok((touched, followed))
    }
}

impl Completing {
    /// Tells whoever wants it which documents a collection has from one input.
    fn tell(&self, tx: &Transaction<'_>, scope: &Scope, made: &[Document]) -> Result<()> {
        let event = Event::new("collection.documents.written", &scope.namespace_id);
        webhooks::queue(tx, &event, || {
            let ids: Vec<&str> = made.iter().map(|document| document.document_id.as_str()).collect();
            json!({
                "collection_id": self.leased.collection_id,
                "batch_id": self.leased.batch_id,
                "input_id": self.leased.input_id,
                "count": ids.len(),
                "document_ids": ids.get(..MAX_TOLD).unwrap_or(&ids),
            })
        })
    }
}

fn documents_from(
    leased: &Derivation,
    collection: &Collection,
    done: &Done,
    outputs: &[Output],
    now: &str,
) -> Vec<Document> {
    let mut lineage: Lineage = done.lineage.clone();
    if let Some(last) = lineage.chain.last_mut() {
        last.timestamp = Some(now.to_owned());
    }
    let provenance = provenance(leased, collection, done);
    let one = |(ordinal, output): (usize, &Output)| Document {
        seq: 0,
        document_id: match &output.key {
            Some(key) => id::keyed_document_id(&leased.collection_id, &leased.input_id, &leased.extractor_id, key),
            None => id::derived_document_id(&leased.collection_id, &leased.input_id, &leased.extractor_id, ordinal),
        },
        collection_id: leased.collection_id.clone(),
        lineage: lineage.clone(),
        content_hash: serde_json::to_vec(&output.fields).ok().map(|bytes| id::sha256_hex(&bytes)),
        fields: output.fields.clone(),
        source_blobs: source_blobs(done, output),
        document_blobs: output.artifacts.iter().map(|artifact| artifact.entry.clone()).collect(),
        internal_metadata: provenance.clone(),
        derivation_id: Some(leased.derivation_id.clone()),
        created_at: now.to_owned(),
        updated_at: now.to_owned(),
    };
    outputs.iter().enumerate().map(one).collect()
}

/// The blobs of the source; where an artifact tells of which of them the output was made, that one first.
fn source_blobs(done: &Done, output: &Output) -> Vec<SourceBlob> {
    let mut blobs = done.source_blobs.clone();
    let own = output.artifacts.iter().find_map(|artifact| artifact.entry.get("source_blob_id")?.as_str());
    if let Some(own) = own {
        blobs.sort_by_key(|blob| blob.blob_id != own);
    }
    blobs
}

/// What every derived document names: its input, extractor, models, parameters, and the hashes of both sides.
fn provenance(leased: &Derivation, collection: &Collection, done: &Done) -> Fields {
    let extractor = collection.extractor.as_ref();
    let history = json!([{
        "derivation_id": leased.derivation_id,
        "input_kind": leased.input_kind,
        "input_id": leased.input_id,
        "input_hash": done.input_hash,
        "feature_extractor_id": leased.extractor_id,
        "models": extractor.map(|e| &e.models),
        "parameters": extractor.map(|e| &e.parameters),
        "reused": done.reused,
    }]);
    let pairs = [
        ("ingestion_status", Value::from("COMPLETED")),
        ("feature_extractor_id", leased.extractor_id.clone().into()),
        ("feature_extractor_config_hash", done.fingerprint.clone().into()),
        ("processing_history", history),
    ];
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}

/// Queues the collections that read from this one, over each of its documents that they want. Answers whether there are
/// any.
fn follow(
    engine: &Engine,
    tx: &Transaction<'_>,
    scope: &Scope,
    leased: &Derivation,
    from: &Collection,
    made: &[Document],
    now: &str,
) -> Result<bool> {
    let mut followed = false;
    for reader in crate::collections::downstream(tx, &from.id)? {
        let Some(extractor) = &reader.extractor else { continue };
        let wanted = reader.source.filter()?;
        let extractor_id = extractor.definition.id();
        for document in made.iter().filter(|d| wanted.matches(&d.view())) {
            let request = Request {
                collection_id: &reader.id,
                batch_id: leased.batch_id.as_deref(),
                tier: leased.tier + 1,
                input_kind: InputKind::Document,
                input_id: &document.document_id,
                root_object_id: document.lineage.root_object_id.as_deref(),
                extractor_id: &extractor_id,
                force: false,
            };
            rows::enqueue(tx, scope, &engine.catalog.new_timed_id(id::DERIVATION), now, &request)?;
            followed = true;
        }
    }
    Ok(followed)
}

/// What follows from a derivation's end, whatever the end: its object's status, and its batch's.
pub(super) fn after(tx: &Transaction<'_>, leased: &Derivation, now: &str) -> Result<()> {
    if leased.input_kind == InputKind::Object {
        rows::settle_object(tx, &leased.input_id, now)?;
    }
    match &leased.batch_id {
        Some(batch) => batches::settle_one(tx, &leased.scope(), batch, now),
        None => Ok(()),
    }
}
