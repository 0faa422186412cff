//! Making objects: one or many, once or under a key, new or over an older one.

use super::{BlobSource, MAX_BATCH, MAX_BLOBS, NewBlob, NewObject, blobs::Prepared, content};
use crate::{
    Engine, audit,
    buckets::{self, Bucket, Policy},
    protection::Quotas,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use strata_model::{Error, FieldError, Fields, Result, Scope, id, schema::FieldType};
use strata_store::{
    blobs::Held,
    catalog::{
        objects::{self, Object, SOFT_DELETED},
        rusqlite::Transaction,
        webhooks::{self, Event},
    },
};

/// Objects of one request, and blobs of one object, that are prepared at once.
const AT_ONCE: usize = 8;
/// Rows of objects of one request that are written at once.
const WRITTEN_AT_ONCE: usize = 128;
/// The event of several objects that one call has made.
const CREATED_TOGETHER: &str = "objects.created.batch";

/// How objects are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct CreateOptions {
    /// What to do by the bucket's unique key; `None` takes the bucket's default.
    pub policy: Option<Policy>,
    /// Derive documents right away.
    pub auto_process: bool,
}

/// Why an object that was there already is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    IdempotencyKey,
    SkipDuplicates,
}

/// The object that a create led to.
#[derive(Debug, Clone)]
pub struct Created {
    pub object: Object,
    pub replay: Option<Replay>,
    /// The batch that processes it, if that was asked for and something reads the bucket.
    pub batch_id: Option<String>,
}

/// An object whose bytes are stored, before its row is. To be dropped when that is committed, and no sooner.
pub(crate) struct Ready {
    pub object: Object,
    pub skip_duplicates: bool,
    pub policy: Option<Policy>,
    /// Keeps the bytes until the row is committed.
    #[expect(dead_code, reason = "is there to be dropped")]
    held: Vec<Held>,
    quotas: Quotas,
}

impl Ready {
    pub fn hashes(&self) -> Vec<String> {
        self.object.blobs.iter().map(|b| b.hash.clone()).collect()
    }
}

/// What came of [`commit`].
pub(crate) struct Committed {
    pub object: Object,
    pub replay: Option<Replay>,
    /// Hashes that an updated object no longer refers to.
    pub freed: Vec<String>,
}

/// How far an object has come before its row is written.
enum Step {
    /// It was made earlier under the same key.
    Replayed(Box<Object>),
    Ready(Box<Ready>),
}

impl Engine {
    pub async fn create_object(
        self: &Arc<Self>,
        scope: &Scope,
        bucket: &str,
        new: NewObject,
        options: CreateOptions,
    ) -> Result<Created> {
        let bucket = self.known_bucket(scope, bucket).await?;
        let step = self.step(scope, &bucket, new, options.policy).await?;
        let mut created = self.finish(scope, step, audit::about).await?;
        audit::about(&created.object.object_id);
        if options.auto_process && created.replay.is_none() {
            let ids = vec![created.object.object_id.clone()];
            created.batch_id = self.process_objects(scope, bucket.id(), ids).await?;
        }
        Ok(created)
    }

    /// Makes up to [`MAX_BATCH`] objects; each succeeds or fails by itself.
    pub async fn create_objects(
        self: &Arc<Self>,
        scope: &Scope,
        bucket: &str,
        new: Vec<NewObject>,
        options: CreateOptions,
    ) -> Result<Vec<Result<Created>>> {
        if new.is_empty() || new.len() > MAX_BATCH {
            return Err(Error::invalid("objects", format!("must have 1 to {MAX_BATCH} objects, not {}", new.len())));
        }
        let bucket = self.known_bucket(scope, bucket).await?;
        let each = new.into_iter().map(|new| self.step(scope, &bucket, new, options.policy));
        let steps: Vec<Result<Step>> = stream::iter(each).buffered(AT_ONCE).collect().await;
        // All at once, so that their rows share a commit or a few.
        let each = steps.into_iter().map(|step| async { self.finish(scope, step?, |_| ()).await });
        let mut created: Vec<Result<Created>> = stream::iter(each).buffered(WRITTEN_AT_ONCE).collect().await;
        // They are there, whatever becomes of this.
        if let Err(error) = self.tell_created(scope, bucket.id(), &created).await {
            tracing::error!(%error, "the event of several objects was not queued; those of each of them were");
        }
        if options.auto_process {
            let fresh = created.iter().flatten().filter(|c| c.replay.is_none());
            let ids: Vec<String> = fresh.map(|c| c.object.object_id.clone()).collect();
            if !ids.is_empty() {
                let batch_id = self.process_objects(scope, bucket.id(), ids).await?;
                for one in created.iter_mut().flatten().filter(|c| c.replay.is_none()) {
                    one.batch_id.clone_from(&batch_id);
                }
            }
        }
        Ok(created)
    }

    /// Tells whoever wants it which objects one call has made; each has told of itself already.
    async fn tell_created(&self, scope: &Scope, bucket_id: &str, created: &[Result<Created>]) -> Result<()> {
        let fresh = created.iter().flatten().filter(|c| c.replay.is_none());
        let ids: Vec<String> = fresh.map(|c| c.object.object_id.clone()).collect();
        let (namespace_id, bucket_id) = (scope.namespace_id.clone(), bucket_id.to_owned());
        let of = namespace_id.clone();
        let is_wanted = self.catalog.read(move |c| webhooks::is_wanted(c, &Event::new(CREATED_TOGETHER, &of)));
        if ids.is_empty() || !is_wanted.await? {
            return Ok(());
        }
        let write = self.catalog.write(move |tx| {
            webhooks::queue(
                tx,
                &Event::new(CREATED_TOGETHER, &namespace_id),
                || json!({ "bucket_id": bucket_id, "count": ids.len(), "object_ids": ids }),
            )
        });
        write.await
    }

    /// Looks for an earlier object of the same key, or stores the bytes of a new one.
    async fn step(&self, scope: &Scope, bucket: &Bucket, new: NewObject, policy: Option<Policy>) -> Result<Step> {
        match self.replayed(bucket, &new).await? {
            Some(object) => Ok(Step::Replayed(Box::new(object))),
            None => Ok(Step::Ready(Box::new(self.ready(scope, bucket, new, policy).await?))),
        }
    }

    /// Writes the row. `tell` hears the object's id before.
    async fn finish(&self, scope: &Scope, step: Step, tell: fn(&str)) -> Result<Created> {
        let ready = match step {
            Step::Replayed(object) => {
                return Ok(Created { object: *object, replay: Some(Replay::IdempotencyKey), batch_id: None });
            }
            Step::Ready(ready) => ready,
        };
        let hashes = ready.hashes();
        let in_scope = scope.clone();
        tell(&ready.object.object_id);
        let write = move |ready: &mut Box<Ready>, tx: &Transaction<'_>| commit(tx, &in_scope, ready);
        let committed = self.catalog.write_again(ready, Duration::ZERO, write).await;
        let (ready, committed) = self.or_discard(committed, hashes.clone()).await?;
        drop(ready);
        // An earlier object stands for this one, whose bytes nothing may name.
        self.remove_blobs(if committed.replay.is_some() { hashes } else { committed.freed }).await;
        Ok(Created { object: committed.object, replay: committed.replay, batch_id: None })
    }

    /// The object made earlier under the same key: looked for before anything is fetched.
    async fn replayed(&self, bucket: &Bucket, new: &NewObject) -> Result<Option<Object>> {
        let Some(key) = new.idempotency_key.clone() else { return Ok(None) };
        let bucket_id = bucket.id().to_owned();
        self.catalog.read(move |c| objects::by_idempotency_key(c, &bucket_id, &key)).await
    }

    /// Stores the bytes and checks the object against its bucket.
    pub(crate) async fn ready(
        &self,
        scope: &Scope,
        bucket: &Bucket,
        mut new: NewObject,
        policy: Option<Policy>,
    ) -> Result<Ready> {
        check_shape(&new)?;
        // Refused before bytes are fetched for nothing.
        let policy = policy_of(bucket, policy)?;
        lift(bucket, &mut new.fields, &mut new.blobs)?;
        let is_sent = |name: &str| new.blobs.iter().any(|b| b.property == name);
        bucket.schema.check(&mut new.fields, is_sent)?;
        let prepared = self.prepare_blobs(scope, bucket, new.blobs).await?;
        let now = self.catalog.now();
        let mut object = Object {
            object_id: self.catalog.new_timed_id(id::OBJECT),
            bucket_id: bucket.id().to_owned(),
            key_prefix: new.key_prefix,
            status: "DRAFT".into(),
            error: None,
            content_hash: String::new(),
            unique_key: None,
            idempotency_key: new.idempotency_key,
            fields: new.fields,
            blobs: Vec::new(),
            body: Fields::new(),
            created_at: now.clone(),
            updated_at: now,
        };
        if !new.edges.is_empty() {
            object.body.insert("edges".into(), Value::Array(new.edges));
        }
        let held = take(prepared, &mut object);
        Ok(Ready { object, skip_duplicates: new.skip_duplicates, policy, held, quotas: self.config.allowed.quotas })
    }

    /// Stores the bytes of blobs, several at once.
    pub(super) async fn prepare_blobs(
        &self,
        scope: &Scope,
        bucket: &Bucket,
        blobs: Vec<NewBlob>,
    ) -> Result<Vec<Prepared>> {
        let each = blobs.into_iter().enumerate().map(|(i, blob)| async move {
            self.prepare_blob(scope, bucket.id(), &bucket.schema, blob, &format!("blobs.{i}")).await
        });
        let all: Vec<Result<Prepared>> = stream::iter(each).buffered(AT_ONCE).collect().await;
        let stored = all.iter().flatten().map(|p| p.blob.hash.clone()).collect();
        let all: Result<Vec<Prepared>> = all.into_iter().collect();
        self.or_discard(all, stored).await
    }

    /// Passes a result on; after a failure, removes what was stored for it and nothing names.
    pub(crate) async fn or_discard<T>(&self, result: Result<T>, hashes: Vec<String>) -> Result<T> {
        if result.is_err() {
            self.remove_blobs(hashes).await;
        }
        result
    }
}

fn check_shape(new: &NewObject) -> Result<()> {
    if new.blobs.len() > MAX_BLOBS {
        return Err(Error::invalid(
            "blobs",
            format!("an object has at most {MAX_BLOBS} blobs, not {}", new.blobs.len()),
        ));
    }
    if new.idempotency_key.as_ref().is_some_and(|k| k.is_empty() || k.chars().count() > 255) {
        return Err(Error::invalid("idempotency_key", "must have 1 to 255 characters"));
    }
    for (i, edge) in new.edges.iter().enumerate() {
        for key in ["type", "target_object_id"] {
            if !edge.get(key).is_some_and(Value::is_string) {
                return Err(Error::invalid(format!("edges.{i}.{key}"), "is required, a string"));
            }
        }
        if edge.get("direction").is_some_and(|d| !matches!(d.as_str(), Some("in" | "out"))) {
            return Err(Error::invalid(format!("edges.{i}.direction"), "must be `in` or `out`"));
        }
    }
    Ok(())
}

fn policy_of(bucket: &Bucket, asked: Option<Policy>) -> Result<Option<Policy>> {
    let Some(key) = &bucket.unique_key else { return Ok(None) };
    asked.or(key.default_policy).map(Some).ok_or_else(|| {
        Error::Malformed(format!(
            "bucket `{}` has a unique key and no default policy: pass `policy=insert`, `update` or `upsert`",
            bucket.resource.name
        ))
    })
}

/// Brings schema fields that were sent inside `metadata` to the root, and turns files that were sent as fields into
/// blobs.
pub(super) fn lift(bucket: &Bucket, fields: &mut Fields, blobs: &mut Vec<NewBlob>) -> Result<()> {
    let metadata = match fields.get("metadata") {
        None | Some(Value::Null) => Fields::new(),
        Some(Value::Object(metadata)) => metadata.clone(),
        // A schema may have a field of this name and another type.
        Some(_) if bucket.schema.get("metadata").is_some() => Fields::new(),
        Some(_) => return Err(Error::invalid("metadata", "must be an object")),
    };
    for (name, value) in metadata {
        if bucket.schema.get(&name).is_some() && !fields.contains_key(&name) && !value.is_null() {
            fields.insert(name, value);
        }
    }
    let files: Vec<String> = fields
        .keys()
        .filter(|name| bucket.schema.get(name).is_some_and(|f| f.kind.is_file() && f.kind != FieldType::Text))
        .cloned()
        .collect();
    for property in files {
        match fields.remove(&property) {
            None | Some(Value::Null) => {}
            Some(value) => blobs.push(file_field(property, value)?),
        }
    }
    Ok(())
}

/// A file sent as a field: its URL, data URI or base64, or an object that says which.
fn file_field(property: String, value: Value) -> Result<NewBlob> {
    let source = match &value {
        Value::Object(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
            match (text("url"), text("upload_id"), map.get("data")) {
                (Some(url), ..) => BlobSource::Url(url),
                (_, Some(id), _) => BlobSource::Upload(id),
                (.., Some(data)) => BlobSource::Data(data.clone()),
                _ => return Err(Error::invalid(property, "must have `url`, `upload_id` or `data`")),
            }
        }
        _ => BlobSource::Data(value),
    };
    Ok(NewBlob { property, blob_type: None, key_prefix: None, source, checksum: None, metadata: Fields::new() })
}

/// Gives the object its prepared blobs and the values they spell; answers what keeps the bytes.
pub(super) fn take(prepared: Vec<Prepared>, object: &mut Object) -> Vec<Held> {
    let mut held = Vec::with_capacity(prepared.len());
    for one in prepared {
        if let Some(value) = one.value {
            object.fields.insert(one.blob.property.clone(), value);
        }
        object.blobs.push(one.blob);
        held.push(one.held);
    }
    held
}

/// Checks an object against its bucket's schema, and computes what follows from its content.
pub(super) fn settle(bucket: &Bucket, object: &mut Object) -> Result<()> {
    let blobs = &object.blobs;
    bucket.schema.check(&mut object.fields, |name| blobs.iter().any(|b| b.property == name))?;
    object.unique_key = match &bucket.unique_key {
        None => None,
        Some(key) => Some(key.of(&object.fields).ok_or_else(|| {
            let missing =
                key.fields.iter().map(|f| FieldError::new(f, "is part of the bucket's unique key and required"));
            Error::Invalid(
                missing
                    .filter(|e| strata_model::path::get_field(&object.fields, &e.field).is_none_or(Value::is_null))
                    .collect(),
            )
        })?),
    };
    let blobs = object.blobs.iter().map(|b| (b.property.as_str(), b.blob_type, b.hash.as_str()));
    object.content_hash = content::hash(&object.fields, blobs);
    Ok(())
}

/// Writes a prepared object, or finds the one that stands for it.
pub(crate) fn commit(tx: &Transaction<'_>, scope: &Scope, ready: &Ready) -> Result<Committed> {
    let mut object = ready.object.clone();
    // The bucket may have gone, or changed its schema or key, since the object was prepared.
    let bucket = buckets::find(tx, scope, &object.bucket_id)?;
    settle(&bucket, &mut object)?;
    if let Some(key) = &object.idempotency_key
        && let Some(object) = objects::by_idempotency_key(tx, &object.bucket_id, key)?
    {
        return Ok(Committed { object, replay: Some(Replay::IdempotencyKey), freed: Vec::new() });
    }
    if ready.skip_duplicates
        && let Some(object) = objects::by_content(tx, &object.bucket_id, &object.content_hash)?
    {
        return Ok(Committed { object, replay: Some(Replay::SkipDuplicates), freed: Vec::new() });
    }
    let there = match (ready.policy, &object.unique_key) {
        (Some(policy), Some(key)) => by_policy(policy, key, objects::by_unique_key(tx, &object.bucket_id, key)?)?,
        _ => None,
    };
    let meter = ready.quotas.meter(tx, scope)?;
    let Some(there) = there else {
        objects::insert(tx, scope, &object)?;
        meter.check(tx)?;
        return Ok(Committed { object, replay: None, freed: Vec::new() });
    };
    let object = over(object, there);
    let freed = objects::update(tx, scope, &object)?;
    meter.check(tx)?;
    Ok(Committed { object, replay: None, freed })
}

/// The object to write over, if any.
fn by_policy(policy: Policy, key: &str, there: Option<Object>) -> Result<Option<Object>> {
    match (policy, there) {
        (Policy::Insert, Some(there)) => Err(Error::Conflict(format!(
            "object `{}` has the unique key {key} already; pass `policy=upsert` to replace it",
            there.object_id
        ))),
        (Policy::Update, None) => Err(Error::missing("object", key)),
        (Policy::Update | Policy::Upsert, Some(there)) => Ok(Some(there)),
        (Policy::Insert | Policy::Upsert, None) => Ok(None),
    }
}

/// New content in the place of an object that is there.
fn over(new: Object, there: Object) -> Object {
    let mut body = there.body;
    body.remove(SOFT_DELETED);
    body.extend(new.body);
    let is_same = new.content_hash == there.content_hash;
    Object {
        object_id: there.object_id,
        idempotency_key: there.idempotency_key,
        created_at: there.created_at,
        status: if is_same { there.status } else { new.status },
        error: if is_same { there.error } else { None },
        body,
        ..new
    }
}
