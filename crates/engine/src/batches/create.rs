//! Making, filling and submitting batches; triggering a collection.

use crate::{
    Engine,
    collections::{self, Collection, SourceKind},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
use strata_model::{Error, Fields, Result, Scope, filter::Filter, id};
use strata_store::catalog::{
    batches::{self as rows, Batch, Task},
    derivations::{self, InputKind, Request},
    documents,
    resources::{self, Kind},
    rusqlite::{Connection, Transaction},
};

/// Most objects of one batch.
const MAX_OBJECTS: usize = 50_000;

/// A batch to be made.
#[derive(Debug, Clone, Default)]
pub struct NewBatch {
    pub name: Option<String>,
    /// Either these, or those that satisfy `filters`.
    pub object_ids: Option<Vec<String>>,
    pub filters: Option<Filter>,
    pub limit: Option<usize>,
    pub collection_ids: Vec<String>,
    /// `skip` (the default), `replace` or `force`.
    pub dedup_strategy: Option<String>,
    pub metadata: Fields,
}

/// How a batch is submitted.
#[derive(Debug, Clone, Default)]
pub struct Submit {
    pub collection_ids: Vec<String>,
    pub include_processing_history: bool,
    pub force: bool,
}

/// What a collection is to be run over.
#[derive(Debug, Clone)]
pub struct TriggerRequest {
    pub include_buckets: Vec<String>,
    pub include_collections: Vec<String>,
    pub object_ids: Vec<String>,
    pub source_filters: Filter,
    pub dedup_strategy: Option<String>,
}

#[derive(Debug, Clone)]
pub struct TriggerOutcome {
    pub batch_id: Option<String>,
    pub batch_ids: Vec<String>,
    pub task_id: String,
    pub task_ids: Vec<String>,
    pub object_count: usize,
    pub document_count: usize,
    pub total_tiers: usize,
    pub source_bucket_ids: Vec<String>,
    pub source_collection_ids: Vec<String>,
}

impl Engine {
    /// Makes a draft. Unknown objects are refused by name.
    pub async fn create_batch(&self, scope: &Scope, bucket: &str, new: NewBatch) -> Result<Batch> {
        let (scope, bucket) = (scope.clone(), bucket.to_owned());
        let (batch_id, now) = (self.catalog.new_id(id::BATCH, 12), self.catalog.now());
        check_strategy(new.dedup_strategy.as_deref())?;
        self.catalog
            .write(move |tx| {
                let bucket = resources::get(tx, Kind::Bucket, &scope, &bucket)?.id;
                let objects = chosen(tx, &scope, &bucket, &new)?;
                let mut body = Fields::new();
                body.insert("batch_name".into(), json!(new.name));
                body.insert("collection_ids".into(), json!(resolve(tx, &scope, &new.collection_ids)?));
                body.insert("dedup_strategy".into(), json!(new.dedup_strategy));
                body.insert("metadata".into(), Value::Object(new.metadata));
                let batch = Batch {
                    batch_id,
                    namespace_id: scope.namespace_id.clone(),
                    bucket_id: Some(bucket),
                    status: "DRAFT".into(),
                    task_id: None,
                    body,
                    created_at: now.clone(),
                    updated_at: now,
                };
                rows::put(tx, &batch)?;
                rows::add_objects(tx, &batch.batch_id, &objects)?;
                Ok(batch)
            })
            .await
    }

    /// Adds objects to a draft.
    pub async fn add_to_batch(
        &self,
        scope: &Scope,
        bucket: &str,
        batch_id: &str,
        object_ids: Vec<String>,
    ) -> Result<Batch> {
        let (scope, bucket, batch_id, now) =
            (scope.clone(), bucket.to_owned(), batch_id.to_owned(), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let bucket = resources::get(tx, Kind::Bucket, &scope, &bucket)?.id;
                let mut batch = rows::get(tx, &scope, Some(&bucket), &batch_id)?;
                if batch.status != "DRAFT" {
                    return Err(Error::Conflict(format!(
                        "batch `{batch_id}` is {}; only a draft takes objects",
                        batch.status
                    )));
                }
                let objects = known(tx, &scope, &bucket, &object_ids)?;
                rows::add_objects(tx, &batch_id, &objects)?;
                batch.updated_at = now;
                rows::put(tx, &batch)?;
                Ok(batch)
            })
            .await
    }

    /// Queues every derivation of the first tier. Answers the task to poll.
    pub async fn submit_batch(&self, scope: &Scope, bucket: &str, batch_id: &str, submit: Submit) -> Result<Task> {
        let (at, bucket, batch_id) = (scope.clone(), bucket.to_owned(), batch_id.to_owned());
        let ids = self.ids();
        let task = self
            .catalog
            .write(move |tx| {
                let bucket = resources::get(tx, Kind::Bucket, &at, &bucket)?.id;
                let batch = rows::get(tx, &at, Some(&bucket), &batch_id)?;
                if batch.status == "QUEUED" {
                    return Err(Error::Conflict(format!("batch `{batch_id}` is running already")));
                }
                queue(tx, &at, &ids, batch, &submit)
            })
            .await?;
        self.queue.wake();
        Ok(task)
    }

    /// Makes and submits a batch over `object_ids`, if any collection reads the bucket. Answers its id.
    pub async fn process_objects(
        self: &Arc<Self>,
        scope: &Scope,
        bucket: &str,
        object_ids: Vec<String>,
    ) -> Result<Option<String>> {
        let (at, id) = (scope.clone(), bucket.to_owned());
        let readers = self.catalog.read(move |c| collections::readers_of_bucket(c, &at, &id)).await?;
        if readers.is_empty() || object_ids.is_empty() {
            return Ok(None);
        }
        let new = NewBatch { object_ids: Some(object_ids), ..NewBatch::default() };
        let batch = self.create_batch(scope, bucket, new).await?;
        self.submit_batch(scope, bucket, &batch.batch_id, Submit::default()).await?;
        Ok(Some(batch.batch_id))
    }

    /// Runs one collection over all its sources, or over those that are named.
    pub async fn trigger_collection(
        self: &Arc<Self>,
        scope: &Scope,
        collection: &str,
        request: TriggerRequest,
    ) -> Result<TriggerOutcome> {
        check_strategy(request.dedup_strategy.as_deref())?;
        let (at, identifier, ids) = (scope.clone(), collection.to_owned(), self.ids());
        let outcome = self.catalog.write(move |tx| trigger(tx, &at, &ids, &identifier, &request)).await?;
        self.queue.wake();
        Ok(outcome)
    }

    /// The objects that a batch with this choice would hold.
    pub async fn objects_for_batch(&self, scope: &Scope, bucket: &str, new: &NewBatch) -> Result<Vec<String>> {
        let (scope, bucket, new) = (scope.clone(), bucket.to_owned(), new.clone());
        self.catalog
            .read(move |c| {
                let bucket = resources::get(c, Kind::Bucket, &scope, &bucket)?.id;
                chosen(c, &scope, &bucket, &new)
            })
            .await
    }

    /// A source of ids and one time, for use inside a transaction.
    fn ids(&self) -> Ids {
        Ids { catalog: self.catalog.clone(), now: self.catalog.now() }
    }
}

struct Ids {
    catalog: strata_store::Catalog,
    now: String,
}

impl Ids {
    fn make(&self, prefix: &str) -> String {
        self.catalog.new_id(prefix, 16)
    }
}

fn check_strategy(strategy: Option<&str>) -> Result<()> {
    match strategy {
        None | Some("skip" | "replace" | "force") => Ok(()),
        Some(other) => Err(Error::invalid("dedup_strategy", format!("`{other}` is not one of skip, replace, force"))),
    }
}

/// The objects that a new batch names, or that its filter finds.
fn chosen(connection: &Connection, scope: &Scope, bucket: &str, new: &NewBatch) -> Result<Vec<String>> {
    match (&new.object_ids, &new.filters) {
        (Some(ids), _) => known(connection, scope, bucket, ids),
        (None, filter) => {
            let filter = filter.clone().unwrap_or_else(Filter::all);
            let limit = new.limit.unwrap_or(MAX_OBJECTS).min(MAX_OBJECTS);
            rows::choose_objects(connection, scope, bucket, &filter, limit)
        }
    }
}

fn known(connection: &Connection, scope: &Scope, bucket: &str, ids: &[String]) -> Result<Vec<String>> {
    if ids.is_empty() {
        return Err(Error::invalid("object_ids", "must name at least one object"));
    }
    if ids.len() > MAX_OBJECTS {
        return Err(Error::invalid("object_ids", format!("a batch holds at most {MAX_OBJECTS} objects")));
    }
    let known = rows::known_objects(connection, scope, bucket, ids)?;
    if known.len() == ids.len() {
        return Ok(known);
    }
    let found: BTreeSet<&String> = known.iter().collect();
    let missing: Vec<&str> = ids.iter().filter(|i| !found.contains(i)).map(String::as_str).take(10).collect();
    Err(Error::missing("object", missing.join("`, `")))
}

fn resolve(connection: &Connection, scope: &Scope, identifiers: &[String]) -> Result<Vec<String>> {
    identifiers.iter().map(|i| Ok(resources::get(connection, Kind::Collection, scope, i)?.id)).collect()
}

/// The collections of the first tier, and how many tiers stand below and including them.
fn tiers(connection: &Connection, first: Vec<Collection>) -> Result<(Vec<Collection>, Vec<Vec<String>>)> {
    let mut seen = BTreeSet::new();
    let mut layers: Vec<Vec<String>> = Vec::new();
    let mut layer: Vec<String> = first.iter().map(|c| c.id.clone()).collect();
    while !layer.is_empty() {
        seen.extend(layer.iter().cloned());
        let mut next = Vec::new();
        for collection in &layer {
            next.extend(collections::downstream(connection, collection)?.into_iter().map(|c| c.id));
        }
        next.sort();
        next.dedup();
        next.retain(|c| !seen.contains(c));
        layers.push(std::mem::replace(&mut layer, next));
    }
    Ok((first, layers))
}

fn queue(tx: &Transaction<'_>, scope: &Scope, ids: &Ids, mut batch: Batch, submit: &Submit) -> Result<Task> {
    let bucket = batch.bucket_id.clone().unwrap_or_default();
    let mut asked = resolve(tx, scope, &submit.collection_ids)?;
    if asked.is_empty() {
        asked =
            batch.body.get("collection_ids").and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default();
    }
    let readers = collections::readers_of_bucket(tx, scope, &bucket)?;
    let first: Vec<Collection> = readers.into_iter().filter(|c| asked.is_empty() || asked.contains(&c.id)).collect();
    if first.is_empty() {
        return Err(Error::invalid(
            "collection_ids",
            "no enabled collection reads this bucket: create one whose source names it",
        ));
    }
    let force = submit.force || batch.body.get("dedup_strategy").and_then(Value::as_str) == Some("force");
    let (first, layers) = tiers(tx, first)?;
    for collection in &first {
        let Some(extractor) = &collection.extractor else { continue };
        let extractor_id = extractor.definition.id();
        let filter = collection.source.filter()?;
        let wanted = rows::matching_objects(tx, scope, &batch.batch_id, &filter)?;
        for object in &wanted {
            let request = Request {
                collection_id: &collection.id,
                batch_id: Some(&batch.batch_id),
                tier: 0,
                input_kind: InputKind::Object,
                input_id: object,
                root_object_id: Some(object),
                extractor_id: &extractor_id,
                force,
            };
            derivations::enqueue(tx, scope, &ids.catalog.new_timed_id(id::DERIVATION), &ids.now, &request)?;
        }
    }
    let task = new_task(scope, ids, "api_buckets_batches_process", Some(&batch.batch_id));
    batch.status = "QUEUED".into();
    batch.task_id = Some(task.task_id.clone());
    batch.updated_at = ids.now.clone();
    batch.body.remove("counts");
    batch.body.insert("collection_ids".into(), json!(first.iter().map(|c| &c.id).collect::<Vec<_>>()));
    batch.body.insert("dag_tiers".into(), json!(layers));
    batch.body.insert("submitted_at".into(), json!(ids.now));
    rows::put(tx, &batch)?;
    rows::put_task(tx, &task)?;
    Ok(task)
}

fn new_task(scope: &Scope, ids: &Ids, kind: &str, batch: Option<&str>) -> Task {
    Task {
        task_id: ids.make(id::TASK),
        organization_id: scope.organization_id.clone(),
        namespace_id: Some(scope.namespace_id.clone()),
        task_type: kind.to_owned(),
        status: "PENDING".into(),
        batch_id: batch.map(str::to_owned),
        body: Fields::new(),
        created_at: ids.now.clone(),
        updated_at: ids.now.clone(),
    }
}

fn trigger(
    tx: &Transaction<'_>,
    scope: &Scope,
    ids: &Ids,
    identifier: &str,
    request: &TriggerRequest,
) -> Result<TriggerOutcome> {
    let found = resources::get(tx, Kind::Collection, scope, identifier)?;
    let collection = collections::load_collection(tx, scope, &found.id)?;
    if collection.extractor.is_none() {
        return Err(Error::invalid("collection", "it has no feature extractor, so there is nothing to run"));
    }
    let (_, layers) = tiers(tx, vec![collection.clone()])?;
    let mut outcome = TriggerOutcome {
        batch_id: None,
        batch_ids: Vec::new(),
        task_id: String::new(),
        task_ids: Vec::new(),
        object_count: 0,
        document_count: 0,
        total_tiers: layers.len(),
        source_bucket_ids: Vec::new(),
        source_collection_ids: Vec::new(),
    };
    match collection.source.kind {
        SourceKind::Bucket => {
            for bucket in named(tx, Kind::Bucket, scope, &collection.source.ids, &request.include_buckets)? {
                trigger_bucket(tx, scope, ids, &collection, &bucket, request, &mut outcome)?;
            }
        }
        SourceKind::Collection => trigger_documents(tx, scope, ids, &collection, request, &layers, &mut outcome)?,
        SourceKind::None => {
            return Err(Error::invalid("collection", "it has no source, so there is nothing to run over"));
        }
    }
    outcome.batch_id = outcome.batch_ids.first().cloned();
    outcome.task_id = outcome.task_ids.first().cloned().unwrap_or_default();
    Ok(outcome)
}

/// The sources to run over: all, or those that the request names, which must be among them.
fn named(connection: &Connection, kind: Kind, scope: &Scope, all: &[String], asked: &[String]) -> Result<Vec<String>> {
    if asked.is_empty() {
        return Ok(all.to_vec());
    }
    asked
        .iter()
        .map(|identifier| {
            let id = resources::get(connection, kind, scope, identifier)?.id;
            if all.contains(&id) {
                Ok(id)
            } else {
                Err(Error::invalid("include", format!("`{identifier}` is not a source of the collection")))
            }
        })
        .collect()
}

fn trigger_bucket(
    tx: &Transaction<'_>,
    scope: &Scope,
    ids: &Ids,
    collection: &Collection,
    bucket: &str,
    request: &TriggerRequest,
    outcome: &mut TriggerOutcome,
) -> Result<()> {
    let objects = if request.object_ids.is_empty() {
        rows::choose_objects(tx, scope, bucket, &request.source_filters, usize::MAX >> 1)?
    } else {
        rows::known_objects(tx, scope, bucket, &request.object_ids)?
    };
    let mut body = Fields::new();
    body.insert("collection_ids".into(), json!([collection.id]));
    body.insert("dedup_strategy".into(), json!(request.dedup_strategy));
    let batch = Batch {
        batch_id: ids.make(id::BATCH),
        namespace_id: scope.namespace_id.clone(),
        bucket_id: Some(bucket.to_owned()),
        status: "DRAFT".into(),
        task_id: None,
        body,
        created_at: ids.now.clone(),
        updated_at: ids.now.clone(),
    };
    rows::put(tx, &batch)?;
    rows::add_objects(tx, &batch.batch_id, &objects)?;
    outcome.batch_ids.push(batch.batch_id.clone());
    let submit = Submit { collection_ids: vec![collection.id.clone()], ..Submit::default() };
    outcome.task_ids.push(queue(tx, scope, ids, batch, &submit)?.task_id);
    outcome.object_count += objects.len();
    outcome.source_bucket_ids.push(bucket.to_owned());
    Ok(())
}

fn trigger_documents(
    tx: &Transaction<'_>,
    scope: &Scope,
    ids: &Ids,
    collection: &Collection,
    request: &TriggerRequest,
    layers: &[Vec<String>],
    outcome: &mut TriggerOutcome,
) -> Result<()> {
    let Some(extractor) = &collection.extractor else { return Ok(()) };
    let extractor_id = extractor.definition.id();
    let own = collection.source.filter()?;
    let filter = own.and(request.source_filters.clone());
    let batch_id = ids.make(id::BATCH);
    let mut root_bucket = None;
    // What is made does not depend on who has it made.
    let everything = scope.for_server();
    for source in named(tx, Kind::Collection, scope, &collection.source.ids, &request.include_collections)? {
        for seq in documents::seqs(tx, &everything, Some(&source), &filter)? {
            let Some(document) = documents::fetch(tx, &everything, &[seq])?.pop() else { continue };
            if !request.object_ids.is_empty()
                && !document.lineage.root_object_id.as_ref().is_some_and(|r| request.object_ids.contains(r))
            {
                continue;
            }
            root_bucket = root_bucket.or_else(|| document.lineage.root_bucket_id.clone());
            let queued = Request {
                collection_id: &collection.id,
                batch_id: Some(&batch_id),
                tier: 0,
                input_kind: InputKind::Document,
                input_id: &document.document_id,
                root_object_id: document.lineage.root_object_id.as_deref(),
                extractor_id: &extractor_id,
                force: request.dedup_strategy.as_deref() == Some("force"),
            };
            derivations::enqueue(tx, scope, &ids.catalog.new_timed_id(id::DERIVATION), &ids.now, &queued)?;
            outcome.document_count += 1;
        }
        outcome.source_collection_ids.push(source);
    }
    let root_bucket = root_bucket.filter(|b| resources::get(tx, Kind::Bucket, scope, b).is_ok());
    let task = new_task(scope, ids, "api_buckets_batches_process", Some(&batch_id));
    let mut body = Fields::new();
    body.insert("collection_ids".into(), json!([collection.id]));
    body.insert("dag_tiers".into(), json!(layers));
    body.insert("type".into(), json!("COLLECTION"));
    let batch = Batch {
        batch_id: batch_id.clone(),
        namespace_id: scope.namespace_id.clone(),
        bucket_id: root_bucket,
        status: "QUEUED".into(),
        task_id: Some(task.task_id.clone()),
        body,
        created_at: ids.now.clone(),
        updated_at: ids.now.clone(),
    };
    rows::put(tx, &batch)?;
    rows::put_task(tx, &task)?;
    outcome.batch_ids.push(batch_id);
    outcome.task_ids.push(task.task_id);
    Ok(())
}
