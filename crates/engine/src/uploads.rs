//! Uploads: bytes that come by a signed URL, and the object that is made of them once the caller confirms.

mod confirm;
mod request;

pub use confirm::{BatchConfirmed, ConfirmOptions, Confirmed};
pub use request::NewUpload;

use crate::{
    Engine, buckets,
    objects::{Listing, Rows},
};
use bytes::Bytes;
use futures::Stream;
use request::Checked;
use serde_json::{Value, json};
use strata_model::{Error, Fields, Result, Scope, id, limits};
pub use strata_store::catalog::objects::uploads::Upload;
use strata_store::{
    catalog::objects::{self, uploads},
    seams::rfc3339,
};

/// Most uploads that one request makes or confirms.
pub const MAX_BATCH: usize = 100;
const ID_CHARS: usize = 16;

/// An upload, and what this answer adds to it.
#[derive(Debug, Clone)]
pub struct UploadView {
    pub upload: Upload,
    pub presigned_url: Option<String>,
    /// The stored upload stands for the one that was asked for.
    pub is_duplicate: bool,
}

/// Counts over all uploads of a bucket.
#[derive(Debug, Clone, Default)]
pub struct UploadSummary {
    pub uploads: u64,
    pub total_size_bytes: u64,
    pub by_status: Vec<(String, u64)>,
}

impl Engine {
    pub async fn create_upload(&self, scope: &Scope, bucket: &str, new: NewUpload) -> Result<UploadView> {
        let made = self.make_uploads(scope, bucket, vec![new], |_| String::new()).await?;
        Ok(made.into_iter().next().expect("one upload was made of one"))
    }

    /// Makes up to [`MAX_BATCH`] uploads, or none of them when one is refused.
    pub async fn create_uploads(&self, scope: &Scope, bucket: &str, new: Vec<NewUpload>) -> Result<Vec<UploadView>> {
        if new.is_empty() || new.len() > MAX_BATCH {
            return Err(Error::invalid("uploads", format!("must have 1 to {MAX_BATCH} uploads, not {}", new.len())));
        }
        self.make_uploads(scope, bucket, new, |i| format!("uploads.{i}.")).await
    }

    /// `place` precedes the names of an upload's fields in errors.
    async fn make_uploads(
        &self,
        scope: &Scope,
        bucket: &str,
        new: Vec<NewUpload>,
        place: fn(usize) -> String,
    ) -> Result<Vec<UploadView>> {
        let bucket = self.known_bucket(scope, bucket).await?;
        let checked =
            new.into_iter().enumerate().map(|(i, n)| n.check(&bucket, &place(i))).collect::<Result<Vec<_>>>()?;
        let fresh: Vec<(Checked, Upload)> =
            checked.into_iter().map(|c| (c.clone(), self.new_upload(scope, bucket.id(), c))).collect();
        let in_scope = scope.clone();
        let written: Vec<(Upload, bool)> = self
            .catalog
            .write(move |tx| {
                let each = fresh.into_iter().map(|(checked, upload)| {
                    if let (Some(hash), true) = (&checked.file_hash, checked.skip_duplicates)
                        && let Some(stored) = uploads::by_hash(tx, &upload.bucket_id, hash)?
                    {
                        return Ok((stored, true));
                    }
                    uploads::put(tx, &in_scope, &upload)?;
                    Ok((upload, false))
                });
                each.collect()
            })
            .await?;
        let view = |(upload, is_duplicate): (Upload, bool)| {
            let presigned_url = match is_duplicate {
                true => None,
                false => Some(self.presigned_put(&upload.upload_id, seconds_in(&upload))?),
            };
            Ok(UploadView { upload, presigned_url, is_duplicate })
        };
        written.into_iter().map(view).collect()
    }

    fn new_upload(&self, scope: &Scope, bucket_id: &str, new: Checked) -> Upload {
        let upload_id = self.catalog.new_id(id::UPLOAD, ID_CHARS);
        let micros = self.catalog.now_micros();
        let now = rfc3339(micros);
        let body = json!({
            "s3_key": format!("{}/{bucket_id}/{upload_id}/{}", scope.namespace_id, new.filename),
            "filename": new.filename,
            "content_type": new.content_type,
            "file_size_bytes": new.file_size_bytes,
            "presigned_url_expiration": new.expiration_seconds,
            "expires_at": rfc3339(micros + new.expiration_seconds * 1_000_000),
            "metadata": new.metadata,
            "create_object_on_confirm": new.create_object_on_confirm,
            "object_metadata": new.object_metadata,
            "blob_property": new.blob_property,
            "blob_type": new.blob_type.map(|t| t.as_str()),
            "skip_duplicates": new.skip_duplicates,
        });
        Upload {
            upload_id,
            bucket_id: bucket_id.to_owned(),
            status: "PENDING".into(),
            file_hash: new.file_hash,
            blob_hash: None,
            object_id: None,
            body: body.as_object().cloned().unwrap_or_default(),
            created_at: now.clone(),
            updated_at: now,
        }
    }

    /// Takes the bytes of an upload that a signed URL names; answers their ETag.
    pub async fn receive_upload<S>(&self, upload_id: &str, content_length: Option<u64>, body: S) -> Result<String>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        if id::has_prefix(upload_id, id::MODEL_UPLOAD) {
            return self.receive_model(upload_id, content_length, body).await;
        }
        let id = upload_id.to_owned();
        let (scope, upload) = self.catalog.read(move |c| uploads::by_signature(c, &id)).await?;
        still_pending(&upload)?;
        let promised =
            upload.body.get("file_size_bytes").and_then(Value::as_u64).filter(|_| upload.blob_hash.is_none());
        let wrong_size = |promised: u64, came: u64| {
            Error::invalid("file_size_bytes", format!("{promised} bytes were announced and {came} came"))
        };
        if let (Some(promised), Some(came)) = (promised, content_length)
            && promised != came
        {
            return Err(wrong_size(promised, came));
        }
        let quotas = self.config.allowed.quotas;
        if quotas.bytes.is_some() {
            let of = scope.clone();
            let meter = self.catalog.read(move |c| quotas.meter(c, &of)).await?;
            meter.check_bytes(promised.or(content_length).unwrap_or(0))?;
        }
        let held = self.blobs.put_stream(body, limits::MAX_BLOB_BYTES).await?;
        let (hash, size_bytes) = (held.hash().to_owned(), held.size_bytes());
        let announced_hash = upload.file_hash.filter(|_| upload.blob_hash.is_none());
        let mismatch = match (promised, announced_hash) {
            (Some(promised), _) if promised != size_bytes => Some(wrong_size(promised, size_bytes)),
            (_, Some(wanted)) if wanted != hash => Some(Error::invalid(
                "file_hash",
                format!("the bytes have the SHA-256 `{hash}`, and `{wanted}` was announced"),
            )),
            _ if size_bytes == 0 => Some(Error::invalid("body", "is empty")),
            _ => None,
        };
        let written = match mismatch {
            Some(error) => {
                drop(held);
                Err(error)
            }
            None => {
                let (id, now, hash) = (upload_id.to_owned(), self.catalog.now(), hash.clone());
                let write = self.catalog.write(move |tx| {
                    let mut upload = uploads::get(tx, &scope, None, &id)?;
                    still_pending(&upload)?;
                    quotas.meter(tx, &scope)?.check_bytes(size_bytes)?;
                    let media_type = upload.body.get("content_type").and_then(Value::as_str).unwrap_or_default();
                    objects::put_blob(tx, &hash, size_bytes, media_type, &now)?;
                    let before = upload.blob_hash.replace(hash.clone());
                    upload.file_hash = Some(hash.clone());
                    upload.body.insert("etag".into(), hash.clone().into());
                    upload.body.insert("file_size_bytes".into(), size_bytes.into());
                    upload.updated_at = now;
                    uploads::put(tx, &scope, &upload)?;
                    // Held until the commit is done.
                    Ok((before.filter(|b| *b != hash), held))
                });
                write.await.map(|(before, _held)| before)
            }
        };
        let before = self.or_discard(written, vec![hash.clone()]).await?;
        self.remove_blobs(before.into_iter().collect()).await;
        Ok(hash)
    }

    pub async fn upload(&self, scope: &Scope, bucket: &str, upload_id: &str) -> Result<Upload> {
        let (scope, bucket, id) = (scope.clone(), bucket.to_owned(), upload_id.to_owned());
        self.catalog
            .read(move |c| {
                let bucket = buckets::find(c, &scope, &bucket)?;
                uploads::get(c, &scope, Some(bucket.id()), &id)
            })
            .await
    }

    /// The URL that takes the bytes while they are awaited, or gives them once they are here.
    pub fn upload_url(&self, upload: &Upload) -> Result<Option<String>> {
        match (&upload.blob_hash, upload.status.as_str()) {
            (_, "PENDING") => Ok(Some(self.presigned_put(&upload.upload_id, seconds_in(upload))?)),
            (Some(hash), _) => {
                let text = |key: &str| upload.body.get(key).and_then(Value::as_str);
                let media_type = text("content_type").unwrap_or("application/octet-stream");
                self.presigned_get(hash, text("filename"), media_type, limits::PRESIGN_SECONDS).map(Some)
            }
            (None, _) => Ok(None),
        }
    }

    pub async fn list_uploads(
        &self,
        scope: &Scope,
        bucket: &str,
        listing: Listing,
    ) -> Result<(Rows<Upload>, UploadSummary)> {
        let (scope, bucket) = (scope.clone(), bucket.to_owned());
        self.catalog
            .read(move |c| {
                let bucket = buckets::find(c, &scope, &bucket)?;
                let (page, selection) = (listing.page()?, listing.selection());
                let rows = uploads::list(c, &scope, bucket.id(), &selection, &page)?;
                let total = match listing.include_total {
                    true => Some(uploads::count(c, &scope, bucket.id(), &selection)?),
                    false => None,
                };
                let statuses = uploads::by_status(c, &scope, bucket.id())?;
                let summary = UploadSummary {
                    uploads: statuses.iter().map(|s| s.1).sum(),
                    total_size_bytes: statuses.iter().map(|s| s.2).sum(),
                    by_status: statuses.into_iter().map(|(status, count, _)| (status, count)).collect(),
                };
                Ok((listing.cut(rows, &page, total, |u| (&u.created_at, &u.upload_id))?, summary))
            })
            .await
    }

    /// Removes an upload, and its bytes unless an object has them.
    pub async fn delete_upload(&self, scope: &Scope, bucket: &str, upload_id: &str) -> Result<()> {
        let (scope, bucket, id) = (scope.clone(), bucket.to_owned(), upload_id.to_owned());
        let hash = self
            .catalog
            .write(move |tx| {
                let bucket = buckets::find(tx, &scope, &bucket)?;
                uploads::delete(tx, &scope, bucket.id(), &id)
            })
            .await?;
        self.remove_blobs(hash.into_iter().collect()).await;
        Ok(())
    }
}

fn still_pending(upload: &Upload) -> Result<()> {
    match upload.status.as_str() {
        "PENDING" => Ok(()),
        status => Err(Error::Conflict(format!("upload `{}` is {status} and takes no bytes", upload.upload_id))),
    }
}

fn seconds_in(upload: &Upload) -> i64 {
    upload.body.get("presigned_url_expiration").and_then(Value::as_i64).unwrap_or(limits::PRESIGN_SECONDS)
}

/// A map in an upload's body.
fn map_in(body: &Fields, key: &str) -> Option<Fields> {
    body.get(key).and_then(Value::as_object).cloned()
}
