//! Objects and blobs as the API shows them.

use super::request::SET_BY_THE_SERVER;
use crate::{
    App,
    error::ApiError,
    openapi::{any_object, time},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use strata_engine::objects::{Created, Object, ObjectBlob, Replay};
use strata_model::{Error, path};
use utoipa::ToSchema;

/// Kept whatever `select` names.
const IDS: [&str; 2] = ["object_id", "bucket_id"];

/// An object. Its fields, `metadata` among them, stand beside these keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct ObjectResponse {
    pub object_id: String,
    pub bucket_id: String,
    pub key_prefix: Option<String>,
    pub blobs: Vec<BlobModel>,
    #[schema(value_type = Vec<Object>)]
    pub edges: Value,
    /// `DRAFT` until something processes it.
    pub status: String,
    pub error: Option<String>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    /// How many documents descend from it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_count: Option<u64>,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BlobModel {
    pub blob_id: String,
    /// The field of the bucket's schema that it belongs to.
    pub property: String,
    pub key_prefix: Option<String>,
    #[serde(rename = "type")]
    pub blob_type: String,
    /// The caller's own description.
    #[schema(schema_with = any_object)]
    pub properties: Map<String, Value>,
    /// Reads the content for an hour, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presigned_url: Option<String>,
    pub details: BlobDetails,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct BlobDetails {
    pub filename: Option<String>,
    pub size_bytes: u64,
    pub mime_type: String,
    /// SHA-256 in hex.
    pub hash: String,
}

impl BlobModel {
    fn of(app: &App, blob: ObjectBlob, with_url: bool) -> Result<Self, Error> {
        Ok(Self {
            presigned_url: with_url.then(|| app.presigned_blob(&blob)).transpose()?,
            blob_id: blob.blob_id,
            property: blob.property,
            key_prefix: blob.key_prefix,
            blob_type: blob.blob_type.as_str().to_owned(),
            properties: blob.metadata,
            details: BlobDetails {
                filename: blob.filename,
                size_bytes: blob.size_bytes,
                mime_type: blob.media_type,
                hash: blob.hash,
            },
        })
    }
}

impl ObjectResponse {
    pub(crate) fn of(app: &App, object: Object, with_urls: bool) -> Result<Self, ApiError> {
        let mut fields = object.fields;
        // A schema may have a field of such a name; one key cannot show both.
        fields.retain(|name, _| !SET_BY_THE_SERVER.contains(&name.as_str()));
        Ok(Self {
            object_id: object.object_id,
            bucket_id: object.bucket_id,
            key_prefix: object.key_prefix,
            blobs: object.blobs.into_iter().map(|b| BlobModel::of(app, b, with_urls)).collect::<Result<_, _>>()?,
            edges: object.body.get("edges").cloned().unwrap_or_else(|| json!([])),
            status: object.status,
            error: object.error,
            created_at: object.created_at,
            updated_at: object.updated_at,
            document_count: None,
            fields,
        })
    }

    /// The object's keys, or of these the ones that are selected.
    pub(crate) fn map(self, select: Option<&[String]>) -> Result<Map<String, Value>, ApiError> {
        let whole: Map<String, Value> =
            serde_json::to_value(self).and_then(serde_json::from_value).map_err(Error::internal)?;
        let Some(select) = select.filter(|names| !names.is_empty()) else { return Ok(whole) };
        let mut part = Map::new();
        for name in IDS.into_iter().chain(select.iter().map(String::as_str)) {
            if let Some(value) = path::get_field(&whole, name) {
                path::set(&mut part, name, value.clone());
            }
        }
        Ok(part)
    }
}

/// The object that a create led to, and how.
pub(super) fn created(app: &App, created: Created) -> Result<Map<String, Value>, ApiError> {
    let mut answer = ObjectResponse::of(app, created.object, false)?.map(None)?;
    if let Some(replay) = created.replay {
        let by = match replay {
            Replay::IdempotencyKey => "idempotency_key",
            Replay::SkipDuplicates => "skip_duplicates",
        };
        answer.insert("replayed".into(), true.into());
        answer.insert("replayed_by".into(), by.into());
    }
    if let Some(batch_id) = created.batch_id {
        answer.insert("batch_id".into(), batch_id.into());
    }
    Ok(answer)
}
