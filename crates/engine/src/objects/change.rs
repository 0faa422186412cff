//! Changing objects: a part (PATCH) or the whole (PUT).

use super::{
    MAX_BLOBS, NewBlob,
    blobs::Prepared,
    create::{lift, settle, take},
};
use crate::{Engine, buckets};
use serde_json::Value;
use strata_model::{Error, Fields, Result, Scope};
use strata_store::{
    blobs::Held,
    catalog::objects::{self, Object, SOFT_DELETED},
};

/// What of an object changes.
#[derive(Debug, Clone, Default)]
pub struct ObjectChange {
    pub key_prefix: Option<String>,
    /// Keys of the object's root, `metadata` included. In a patch, null removes.
    pub fields: Fields,
    pub blobs: Option<Vec<NewBlob>>,
    pub edges: Option<Vec<Value>>,
}

/// How the change meets what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Deep merge; blobs replace those of their properties.
    Patch,
    /// Fields become those sent; blobs too, if any were sent.
    Replace,
}

impl Engine {
    pub async fn patch_object(
        &self,
        scope: &Scope,
        bucket: &str,
        object_id: &str,
        change: ObjectChange,
    ) -> Result<Object> {
        self.change_object(scope, bucket, object_id, change, How::Patch).await
    }

    pub async fn replace_object(
        &self,
        scope: &Scope,
        bucket: &str,
        object_id: &str,
        change: ObjectChange,
    ) -> Result<Object> {
        self.change_object(scope, bucket, object_id, change, How::Replace).await
    }

    async fn change_object(
        &self,
        scope: &Scope,
        bucket: &str,
        object_id: &str,
        mut change: ObjectChange,
        how: How,
    ) -> Result<Object> {
        let bucket = self.known_bucket(scope, bucket).await?;
        // Not there is said before bytes are fetched for nothing.
        self.object(scope, bucket.id(), object_id).await?;
        let mut blobs = change.blobs.take();
        let mut from_fields = Vec::new();
        let removed: Vec<String> = change.fields.iter().filter(|(_, v)| v.is_null()).map(|(k, _)| k.clone()).collect();
        lift(&bucket, &mut change.fields, &mut from_fields)?;
        if !from_fields.is_empty() {
            blobs.get_or_insert_default().append(&mut from_fields);
        }
        let prepared = match blobs {
            None => None,
            Some(blobs) => Some(self.prepare_blobs(scope, &bucket, blobs).await?),
        };
        let stored = prepared.iter().flatten().map(|p| p.blob.hash.clone()).collect();
        let (scope, id, now) = (scope.clone(), object_id.to_owned(), self.catalog.now());
        let quotas = self.config.allowed.quotas;
        let changed = self
            .catalog
            .write(move |tx| {
                // Read again: only what this transaction sees is what it changes.
                let bucket = buckets::find(tx, &scope, bucket.id())?;
                let mut object = objects::get(tx, &scope, Some(bucket.id()), &id)?;
                let before = object.content_hash.clone();
                let held = apply(&mut object, change, prepared, &removed, how)?;
                settle(&bucket, &mut object)?;
                if let Some(key) = &object.unique_key {
                    let there = objects::by_unique_key(tx, bucket.id(), key)?;
                    if let Some(other) = there.filter(|o| o.object_id != object.object_id) {
                        return Err(Error::Conflict(format!(
                            "object `{}` has the unique key {key} already",
                            other.object_id
                        )));
                    }
                }
                if object.content_hash != before {
                    object.status = "DRAFT".into();
                    object.error = None;
                }
                object.updated_at = now;
                let meter = quotas.meter(tx, &scope)?;
                let freed = objects::update(tx, &scope, &object)?;
                meter.check(tx)?;
                // Held until the commit is done.
                Ok((object, freed, held))
            })
            .await;
        let (object, freed, held) = self.or_discard(changed, stored).await?;
        drop(held);
        self.remove_blobs(freed).await;
        Ok(object)
    }
}

fn apply(
    object: &mut Object,
    change: ObjectChange,
    prepared: Option<Vec<Prepared>>,
    removed: &[String],
    how: How,
) -> Result<Vec<Held>> {
    if let Some(key_prefix) = change.key_prefix {
        object.key_prefix = Some(key_prefix);
    }
    if let Some(edges) = change.edges {
        object.body.insert("edges".into(), edges.into());
    }
    match how {
        How::Patch => {
            merge(&mut object.fields, change.fields);
            object.blobs.retain(|b| !removed.contains(&b.property));
        }
        How::Replace => {
            // Values that blobs spell stay with the blobs that stay.
            let spelled = object.blobs.iter().filter(|_| prepared.is_none()).map(|b| b.property.clone());
            let spelled: Vec<String> = spelled.collect();
            let before = std::mem::replace(&mut object.fields, change.fields);
            for (name, value) in before {
                if spelled.contains(&name) {
                    object.fields.entry(name).or_insert(value);
                }
            }
            object.fields.retain(|_, value| !value.is_null());
        }
    }
    if object.fields.get("lifecycle_state").is_none_or(|s| s == "active") {
        object.body.remove(SOFT_DELETED);
    }
    let Some(prepared) = prepared else { return Ok(Vec::new()) };
    match how {
        How::Patch => object.blobs.retain(|b| prepared.iter().all(|p| p.blob.property != b.property)),
        How::Replace => object.blobs.clear(),
    }
    if object.blobs.len() + prepared.len() > MAX_BLOBS {
        return Err(Error::invalid("blobs", format!("an object has at most {MAX_BLOBS} blobs")));
    }
    Ok(take(prepared, object))
}

/// RFC 7396: objects merge, null removes, everything else replaces.
fn merge(into: &mut Fields, patch: Fields) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(into.shift_remove(&name)),
            Value::Object(inner) => {
                let slot = into.entry(name).or_insert_with(|| Value::Object(Fields::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Fields::new());
                }
                if let Value::Object(there) = slot {
                    merge(there, inner);
                }
            }
            other => drop(into.insert(name, other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_merges_deep_and_null_removes() {
        let fields = |v: Value| v.as_object().cloned().unwrap();
        let mut there = fields(json!({ "a": 1, "m": { "x": 1, "y": 2 }, "gone": 1, "plain": 3 }));
        merge(&mut there, fields(json!({ "m": { "y": null, "z": 3 }, "gone": null, "plain": { "q": null, "r": 1 } })));
        assert_eq!(Value::Object(there), json!({ "a": 1, "m": { "x": 1, "z": 3 }, "plain": { "r": 1 } }));
    }
}
