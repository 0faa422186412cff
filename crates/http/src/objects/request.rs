//! What requests say of objects and blobs.

use crate::openapi::maybe_object;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};
use strata_engine::objects::{BlobSource, NewBlob, NewObject, ObjectChange};
use strata_model::{Error, Result, schema::FieldType};
use utoipa::ToSchema;

const MAX_PROPERTY_CHARS: usize = 100;

/// Keys that only the server sets. A caller who sends back what it was answered sends them too; they are passed over.
pub(super) const SET_BY_THE_SERVER: [&str; 9] = [
    "object_id",
    "bucket_id",
    "source_details",
    "status",
    "error",
    "created_at",
    "updated_at",
    "document_count",
    "consistency",
];

/// A new object. Every other key is a field of the object: those of the bucket's schema, and `metadata`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateObjectRequest {
    /// A path-like name to group objects by.
    key_prefix: Option<String>,
    blobs: Option<Vec<CreateBlobRequest>>,
    /// Answer an object of the same content, where there is one, instead of making another.
    skip_duplicates: Option<bool>,
    /// Taken and ignored: bytes are stored as they came.
    canonicalize_source: Option<bool>,
    /// Taken and ignored: the bytes of URLs are always fetched and kept.
    force_remirror: Option<bool>,
    edges: Option<Vec<EdgeModel>>,
    /// The same key in the same bucket answers the object that was made under it first.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// What of an object changes. Every other key is a field of the object.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UpdateObjectRequest {
    key_prefix: Option<String>,
    blobs: Option<Vec<CreateBlobRequest>>,
    edges: Option<Vec<EdgeModel>>,
    /// Taken and ignored: a change makes no second object.
    skip_duplicates: Option<bool>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// A blob to be. One of `data`, `url` and `upload_id` says where its bytes come from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreateBlobRequest {
    /// The field of the bucket's schema that it belongs to.
    #[schema(min_length = 1, max_length = 100)]
    property: String,
    /// `text`, `image`, `audio`, `video`, `pdf`, `excel`, or a type of plain values such as `string` and `object`.
    #[serde(rename = "type", deserialize_with = "field_type")]
    #[schema(value_type = String)]
    blob_type: FieldType,
    key_prefix: Option<String>,
    /// A URL, a data URI, base64, a text, or any JSON value, by the blob's type.
    data: Option<Value>,
    /// An `http` or `https` address, or a data URI.
    url: Option<String>,
    /// An upload of this bucket whose bytes came.
    upload_id: Option<String>,
    /// SHA-256 in hex that the bytes must have.
    checksum: Option<String>,
    /// The caller's own description; `filename` and `mime_type` in it are heeded.
    #[schema(schema_with = maybe_object)]
    metadata: Option<Map<String, Value>>,
    /// Taken and ignored, as on the object.
    canonicalize_source: Option<bool>,
    /// Taken and ignored, as on the object.
    force_remirror: Option<bool>,
}

/// A named connection to another object. Other keys are kept.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct EdgeModel {
    #[serde(rename = "type")]
    edge_type: String,
    target_object_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_collection_id: Option<String>,
    #[serde(default)]
    direction: Direction,
    #[schema(schema_with = maybe_object)]
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<Map<String, Value>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    In,
    #[default]
    Out,
}

fn field_type<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<FieldType, D::Error> {
    let text = String::deserialize(from)?;
    FieldType::parse(&text.to_lowercase())
        .ok_or_else(|| de::Error::custom(format!("`{text}` is not a type; one of {}", FieldType::names())))
}

impl CreateObjectRequest {
    /// `at` precedes the names of fields in errors.
    pub(super) fn new_object(self, at: &str) -> Result<NewObject> {
        Ok(NewObject {
            key_prefix: self.key_prefix,
            blobs: new_blobs(self.blobs.unwrap_or_default(), at)?,
            fields: own(self.fields),
            edges: edges(self.edges.unwrap_or_default())?,
            idempotency_key: self.idempotency_key,
            skip_duplicates: self.skip_duplicates.unwrap_or(false),
        })
    }
}

impl UpdateObjectRequest {
    pub(super) fn change(self) -> Result<ObjectChange> {
        Ok(ObjectChange {
            key_prefix: self.key_prefix,
            fields: own(self.fields),
            blobs: self.blobs.map(|blobs| new_blobs(blobs, "")).transpose()?,
            edges: self.edges.map(edges).transpose()?,
        })
    }
}

fn own(mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.retain(|name, _| !SET_BY_THE_SERVER.contains(&name.as_str()));
    fields
}

fn edges(edges: Vec<EdgeModel>) -> Result<Vec<Value>> {
    edges.into_iter().map(|edge| serde_json::to_value(edge).map_err(Error::internal)).collect()
}

fn new_blobs(blobs: Vec<CreateBlobRequest>, at: &str) -> Result<Vec<NewBlob>> {
    blobs.into_iter().enumerate().map(|(i, blob)| blob.new_blob(&format!("{at}blobs.{i}"))).collect()
}

impl CreateBlobRequest {
    fn new_blob(self, at: &str) -> Result<NewBlob> {
        if !(1..=MAX_PROPERTY_CHARS).contains(&self.property.chars().count()) {
            let message = format!("must have 1 to {MAX_PROPERTY_CHARS} characters");
            return Err(Error::invalid(format!("{at}.property"), message));
        }
        let source = match (self.data, self.url, self.upload_id) {
            (Some(data), None, None) => BlobSource::Data(data),
            (None, Some(url), None) => BlobSource::Url(url),
            (None, None, Some(upload_id)) => BlobSource::Upload(upload_id),
            (None, None, None) => {
                return Err(Error::invalid(format!("{at}.data"), "is required, or `url`, or `upload_id`"));
            }
            _ => return Err(Error::invalid(at, "must have only one of `data`, `url` and `upload_id`")),
        };
        Ok(NewBlob {
            property: self.property,
            blob_type: Some(self.blob_type),
            key_prefix: self.key_prefix,
            source,
            checksum: self.checksum,
            metadata: self.metadata.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn new_object(body: Value) -> Result<NewObject> {
        serde_json::from_value::<CreateObjectRequest>(body).unwrap().new_object("")
    }

    #[test]
    fn other_keys_are_fields_except_those_that_the_server_sets() {
        let sent = json!({ "title": "A", "metadata": { "x": 1 }, "status": "COMPLETED", "object_id": "obj_1" });
        let new = new_object(sent).unwrap();
        assert_eq!(Value::Object(new.fields), json!({ "title": "A", "metadata": { "x": 1 } }));
    }

    #[test]
    fn a_blob_has_one_source() {
        let blob = |more: Value| {
            let mut blob = json!({ "property": "p", "type": "TEXT" });
            blob.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            new_object(json!({ "blobs": [blob] })).map(|new| new.blobs[0].source.clone())
        };
        assert_eq!(blob(json!({ "data": "a" })).unwrap(), BlobSource::Data("a".into()));
        assert_eq!(blob(json!({ "data": null, "url": "http://a" })).unwrap(), BlobSource::Url("http://a".into()));
        assert_eq!(blob(json!({ "upload_id": "upl_1" })).unwrap(), BlobSource::Upload("upl_1".into()));
        match blob(json!({})) {
            Err(Error::Invalid(fields)) => assert_eq!(fields[0].field, "blobs.0.data"),
            other => panic!("{other:?}"),
        }
        assert!(blob(json!({ "data": "a", "url": "http://a" })).is_err());
    }

    #[test]
    fn an_edge_keeps_its_other_keys() {
        let edge = json!({ "type": "cites", "target_object_id": "obj_2", "page": 3 });
        let new = new_object(json!({ "edges": [edge] })).unwrap();
        let kept = json!({ "type": "cites", "target_object_id": "obj_2", "direction": "out", "page": 3 });
        assert_eq!(new.edges, [kept]);
    }
}
