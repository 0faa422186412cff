//! Removing objects along their lineage, and the bytes that nothing refers to any more.

use crate::{Engine, buckets};
use futures::StreamExt;
use std::{sync::Arc, time::Duration};
use strata_model::{Error, Result, Scope};
use strata_store::{
    catalog::{
        models,
        objects::{
            self,
            removal::{self, Receipt, Removed, SoftDelete},
            uploads,
        },
    },
    seams::rfc3339,
};

/// Most objects of one soft delete.
const MAX_SOFT_DELETE: usize = 5000;
/// Age at which content without references is a leftover, and not on its way to a row.
const STRAY_AFTER: Duration = Duration::from_secs(3600);
/// Leftovers that one sweep removes.
const SWEEP: usize = 1000;

/// What a soft delete reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftDeleted {
    pub soft_deleted: u64,
    pub requested: u64,
    pub collections: u64,
}

impl Engine {
    /// Removes an object, every document that descends from it, and the bytes that nothing else refers to.
    pub async fn delete_object(self: &Arc<Self>, scope: &Scope, bucket: &str, object_id: &str) -> Result<Receipt> {
        let (scope, bucket, id) = (scope.clone(), bucket.to_owned(), object_id.to_owned());
        let removed = self
            .catalog
            .write(move |tx| {
                let bucket = buckets::find(tx, &scope, &bucket)?;
                objects::get(tx, &scope, Some(bucket.id()), &id)?;
                removal::cascade(tx, &scope, &[id])
            })
            .await?;
        Ok(self.after_removal(removed).await)
    }

    /// Marks objects and their documents as `state`: searches find the documents no more, unless that is `active`. Unknown
    /// ids are passed over.
    pub async fn soft_delete_objects(
        &self,
        scope: &Scope,
        bucket: &str,
        object_ids: Vec<String>,
        state: String,
        reason: String,
        source: String,
    ) -> Result<SoftDeleted> {
        if object_ids.is_empty() || object_ids.len() > MAX_SOFT_DELETE {
            return Err(Error::invalid("object_ids", format!("must have 1 to {MAX_SOFT_DELETE} ids")));
        }
        if reason.chars().count() > 500 {
            return Err(Error::invalid("reason", "must have at most 500 characters"));
        }
        let (scope, bucket, now) = (scope.clone(), bucket.to_owned(), self.catalog.now());
        let requested = object_ids.len() as u64;
        let (soft_deleted, touched) = self
            .catalog
            .write(move |tx| {
                let bucket = buckets::find(tx, &scope, &bucket)?;
                let mark = SoftDelete { state: &state, reason: &reason, source: &source, now: &now };
                removal::soft_delete(tx, &scope, bucket.id(), &object_ids, &mark)
            })
            .await?;
        let collections = touched.len() as u64;
        self.indexed(touched, true).await;
        Ok(SoftDeleted { soft_deleted, requested, collections })
    }

    /// What follows the commit of a removal: the index forgets the documents, the blob store the bytes.
    pub(crate) async fn after_removal(self: &Arc<Self>, removed: Removed) -> Receipt {
        self.indexed(removed.touched, true).await;
        self.remove_blobs(removed.hashes).await;
        removed.receipt
    }

    /// Removes content that nothing refers to. What cannot be removed now is left for [`Engine::sweep`].
    pub(crate) async fn remove_blobs(&self, hashes: Vec<String>) {
        for hash in hashes {
            if let Err(error) = self.remove_blob(&hash).await {
                tracing::warn!(%error, hash, "content without references was not removed; the next sweep tries again");
            }
        }
    }

    async fn remove_blob(&self, hash: &str) -> Result<()> {
        // Somebody who holds the content is about to refer to it.
        let Some(removal) = self.blobs.begin_removal(hash) else { return Ok(()) };
        let only = vec![hash.to_owned()];
        if self.catalog.read(move |c| removal::unreferenced(c, &only)).await?.is_empty() {
            return Ok(());
        }
        // Bytes first: a row without bytes and references is found by the next sweep, bytes without a row at the next start.
        self.blobs.delete(hash).await?;
        let only = vec![hash.to_owned()];
        self.catalog.write(move |tx| removal::forget_blobs(tx, &only)).await?;
        drop(removal);
        Ok(())
    }

    /// Ends uploads and exports whose time is over and removes content that nothing refers to.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let now = self.catalog.now();
        let expire = self.catalog.write(move |tx| {
            let mut held = uploads::expire(tx, &now)?;
            held.extend(models::expire(tx, &now)?);
            Ok(held)
        });
        let expired = expire.await?;
        self.remove_blobs(expired).await;
        self.sweep_subjects().await?;
        let before = rfc3339(self.catalog.now_micros() - STRAY_AFTER.as_micros() as i64);
        let strays = self.catalog.read(move |c| removal::stray_blobs(c, &before, SWEEP)).await?;
        self.remove_blobs(strays).await;
        Ok(())
    }

    /// Removes content that no row names: its writer died between the bytes and the row. Reads the whole store.
    pub(crate) async fn sweep_unnamed(&self) -> Result<()> {
        let mut found = self.blobs.older_than(STRAY_AFTER).chunks(SWEEP);
        while let Some(hashes) = found.next().await {
            let hashes = hashes.into_iter().collect::<Result<Vec<_>>>()?;
            let unnamed = self.catalog.read(move |c| removal::unnamed(c, &hashes)).await?;
            self.remove_blobs(unnamed).await;
        }
        Ok(())
    }
}
