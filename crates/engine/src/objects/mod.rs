//! Objects: the raw things in buckets, with their fields and their blobs.
//!
//! A write prepares first and commits then: bytes are read, fetched and stored outside of any transaction and held
//! against removal; the transaction that names them checks everything that other writes may have changed.

pub mod aggregate;
mod blobs;
mod change;
mod content;
pub(crate) mod create;
mod list;
mod remove;

pub use aggregate::{Aggregation, Group};
pub use change::ObjectChange;
pub(crate) use content::type_of;
pub use create::{CreateOptions, Created, Replay};
pub use list::{Listing, ObjectSummary, Rows};
pub use remove::SoftDeleted;

use crate::{Engine, extract::InputFile};
use serde_json::Value;
use strata_model::{Error, Fields, Result, Scope, schema::FieldType};
use strata_store::catalog::objects::{self, stats};
pub use strata_store::catalog::objects::{Object, ObjectBlob};
use tokio::sync::OwnedSemaphorePermit;

/// Most objects that one request makes.
pub const MAX_BATCH: usize = 100;
/// Most blobs of one object.
pub const MAX_BLOBS: usize = 100;
/// Largest text blob that is read as a field.
pub const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Texts that derivations hold in memory at once, in KiB; one larger text is held alone.
pub(crate) const INPUT_KIBIBYTES: u32 = 256 << 10;

/// A new object, as a caller describes it.
#[derive(Debug, Clone, Default)]
pub struct NewObject {
    pub key_prefix: Option<String>,
    pub blobs: Vec<NewBlob>,
    /// Every other key of the object's root, `metadata` included.
    pub fields: Fields,
    /// Edges to other objects, as the API shows them.
    pub edges: Vec<Value>,
    pub idempotency_key: Option<String>,
    /// Answer an object of the same content instead of making another.
    pub skip_duplicates: bool,
}

/// A blob to be.
#[derive(Debug, Clone)]
pub struct NewBlob {
    pub property: String,
    /// `None` takes the type of the property.
    pub blob_type: Option<FieldType>,
    pub key_prefix: Option<String>,
    pub source: BlobSource,
    /// SHA-256 in hex that the bytes must have.
    pub checksum: Option<String>,
    /// The caller's own description; `filename` and `mime_type` in it are heeded.
    pub metadata: Fields,
}

/// Where a blob's bytes come from.
#[derive(Debug, Clone, PartialEq)]
pub enum BlobSource {
    /// A text, a JSON value, base64, a data URI or a URL, by the blob's type and by what it looks like.
    Data(Value),
    Url(String),
    Upload(String),
}

/// An object as extractors read it.
#[derive(Debug, Clone)]
pub struct ObjectInput {
    pub object_id: String,
    pub bucket_id: String,
    /// The object's fields, and the text of its text blobs under their properties.
    pub fields: Fields,
    pub blobs: Vec<InputBlob>,
    /// SHA-256 over fields and blobs: changes when the object's content does.
    pub content_hash: String,
}

#[derive(Debug, Clone)]
pub struct InputBlob {
    pub blob_id: String,
    pub property: String,
    pub blob_type: FieldType,
    /// SHA-256 of the bytes, in hex.
    pub hash: String,
    pub size_bytes: u64,
    pub media_type: String,
    pub filename: Option<String>,
}

impl From<&InputBlob> for InputFile {
    fn from(blob: &InputBlob) -> Self {
        Self {
            blob_id: Some(blob.blob_id.clone()),
            property: blob.property.clone(),
            hash: blob.hash.clone(),
            size_bytes: blob.size_bytes,
            media_type: blob.media_type.clone(),
            filename: blob.filename.clone(),
        }
    }
}

impl From<&ObjectBlob> for InputBlob {
    fn from(blob: &ObjectBlob) -> Self {
        Self {
            blob_id: blob.blob_id.clone(),
            property: blob.property.clone(),
            blob_type: blob.blob_type,
            hash: blob.hash.clone(),
            size_bytes: blob.size_bytes,
            media_type: blob.media_type.clone(),
            filename: blob.filename.clone(),
        }
    }
}

impl From<Object> for ObjectInput {
    /// Without the texts of its blobs.
    fn from(object: Object) -> Self {
        Self {
            blobs: object.blobs.iter().map(InputBlob::from).collect(),
            object_id: object.object_id,
            bucket_id: object.bucket_id,
            content_hash: object.content_hash,
            fields: object.fields,
        }
    }
}

impl ObjectInput {
    /// Its blobs as extractors read them.
    pub(crate) fn files(&self) -> Vec<InputFile> {
        self.blobs.iter().map(InputFile::from).collect()
    }

    /// The blobs whose text stands among the fields, or will.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &InputBlob> {
        self.blobs.iter().filter(|blob| blob.blob_type == FieldType::Text)
    }
}

impl Engine {
    pub async fn object(&self, scope: &Scope, bucket: &str, object_id: &str) -> Result<Object> {
        let (scope, bucket, id) = (scope.clone(), bucket.to_owned(), object_id.to_owned());
        self.catalog
            .read(move |c| {
                let bucket = crate::buckets::find(c, &scope, &bucket)?;
                objects::get(c, &scope, Some(bucket.id()), &id)
            })
            .await
    }

    /// An object of whichever bucket; `None` where there is none.
    pub async fn object_anywhere(&self, scope: &Scope, object_id: &str) -> Result<Option<Object>> {
        let (scope, id) = (scope.clone(), object_id.to_owned());
        let found = self.catalog.read(move |c| objects::get(c, &scope, None, &id)).await;
        match found {
            Ok(object) => Ok(Some(object)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// How many documents descend from an object.
    pub async fn object_document_count(&self, scope: &Scope, object_id: &str) -> Result<u64> {
        let (scope, id) = (scope.clone(), object_id.to_owned());
        self.catalog.read(move |c| stats::documents_of(c, &scope, &id)).await
    }

    /// The object as extractors read it, and its share of the memory for such inputs, to be kept as long as they are.
    /// A text blob beyond [`MAX_TEXT_BYTES`] is [`Error::TooLarge`].
    pub(crate) async fn object_input(
        &self,
        scope: &Scope,
        object_id: &str,
    ) -> Result<(ObjectInput, OwnedSemaphorePermit)> {
        let (in_scope, id) = (scope.clone(), object_id.to_owned());
        let object = self.catalog.read(move |c| objects::get(c, &in_scope, None, &id)).await?;
        let mut input = ObjectInput::from(object);
        let room = self.read_texts(&mut input).await?;
        Ok((input, room))
    }

    /// Adds the texts of an input's text blobs to its fields.
    pub(crate) async fn read_texts(&self, input: &mut ObjectInput) -> Result<OwnedSemaphorePermit> {
        let kibibytes = input.texts().map(|b| b.size_bytes / 1024).sum::<u64>().min(u64::from(INPUT_KIBIBYTES));
        let room = self.input_room.clone().acquire_many_owned(kibibytes as u32).await.map_err(Error::internal)?;
        let mut fields = std::mem::take(&mut input.fields);
        for blob in input.texts() {
            let text = self.text_of(blob).await?;
            match fields.get_mut(&blob.property) {
                // Several texts of one property are read as one, in their order.
                Some(Value::String(before)) => {
                    before.push_str("\n\n");
                    before.push_str(&text);
                }
                _ => drop(fields.insert(blob.property.clone(), text.into())),
            }
        }
        input.fields = fields;
        Ok(room)
    }

    async fn text_of(&self, blob: &InputBlob) -> Result<String> {
        if blob.size_bytes > MAX_TEXT_BYTES {
            return Err(Error::TooLarge(format!(
                "the text in `{}` has {} bytes; {MAX_TEXT_BYTES} at most are read",
                blob.property, blob.size_bytes
            )));
        }
        let bytes = self.blobs.get(&blob.hash).await?;
        Ok(content::text(&bytes))
    }
}
