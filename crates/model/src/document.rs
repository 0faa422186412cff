//! The document: what a collection holds, with its fields, its vectors and its way back to the object it came from.

use crate::Fields;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What kind of thing a document was made from directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceType {
    Bucket,
    Collection,
    DirectUpsert,
    Signal,
}

impl SourceType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Collection => "collection",
            Self::DirectUpsert => "direct_upsert",
            Self::Signal => "signal",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Bucket, Self::Collection, Self::DirectUpsert, Self::Signal].into_iter().find(|s| s.as_str() == text)
    }
}

/// One step from the root object to a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageStep {
    pub collection_id: String,
    pub feature_extractor_id: String,
    /// The document this step made; `None` on the step that made the document itself before it had an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_id: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// Where a document comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    pub root_object_id: Option<String>,
    pub root_bucket_id: Option<String>,
    pub source_type: Option<SourceType>,
    pub source_collection_id: Option<String>,
    pub source_document_id: Option<String>,
    pub source_object_id: Option<String>,
    /// `bkt_…/col_…/col_…`: root bucket, then each collection down to this document's own.
    pub path: Option<String>,
    #[serde(default)]
    pub chain: Vec<LineageStep>,
}

/// A light reference to a blob of the source object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceBlob {
    pub blob_id: String,
    pub blob_property: String,
    pub blob_type: String,
}

/// A vector a document carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum VectorValue {
    Dense(Vec<f32>),
    Multi(Vec<Vec<f32>>),
    Sparse { indices: Vec<u32>, values: Vec<f32> },
}

impl VectorValue {
    /// Whether every number is finite.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Dense(v) => v.iter().all(|x| x.is_finite()),
            Self::Multi(rows) => rows.iter().flatten().all(|x| x.is_finite()),
            Self::Sparse { values, .. } => values.iter().all(|x| x.is_finite()),
        }
    }
}

/// Vectors by index name.
pub type Vectors = BTreeMap<String, VectorValue>;

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Catalog sequence number: the point id in the index.
    pub seq: i64,
    pub document_id: String,
    pub collection_id: String,
    pub lineage: Lineage,
    /// The user's and the extractor's own fields, at the root of the answer.
    pub fields: Fields,
    pub source_blobs: Vec<SourceBlob>,
    /// Artifacts as the API shows them (`field`, `role`, `type`, `url`, …).
    pub document_blobs: Vec<serde_json::Value>,
    /// `ingestion_status`, `feature_extractor_config_hash`, `processing_history` …
    pub internal_metadata: Fields,
    pub content_hash: Option<String>,
    /// The derivation that wrote it; `None` when it was created directly.
    pub derivation_id: Option<String>,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub updated_at: String,
}

/// Key of `internal_metadata` that a soft delete sets.
pub const LIFECYCLE_STATE: &str = "lifecycle_state";

/// The names under which a document's own columns can be filtered and sorted, beside its fields.
pub const SYSTEM_FIELDS: [&str; 12] = [
    "document_id",
    "collection_id",
    "root_object_id",
    "root_bucket_id",
    "source_type",
    "source_collection_id",
    "source_document_id",
    "source_object_id",
    "lineage_path",
    "content_hash",
    "created_at",
    "updated_at",
];

/// A path as [`Document::view`] has it: what answers show below `_internal` too stands at the root.
pub fn viewed(path: &str) -> &str {
    match path.strip_prefix("_internal.") {
        None => path,
        Some("lineage.path") => "lineage_path",
        Some(inner) => inner.strip_prefix("lineage.").unwrap_or(inner),
    }
}

impl Document {
    /// The document as filters, sorts and templates see it: its fields, and its system fields over them.
    pub fn view(&self) -> Fields {
        let mut view = self.fields.clone();
        for (name, value) in SYSTEM_FIELDS.iter().zip(self.system_values()) {
            if let Some(value) = value {
                view.insert((*name).to_owned(), value.into());
            }
        }
        view
    }

    /// Whether its object was soft-deleted: it can be read, and no search finds it.
    pub fn is_disabled(&self) -> bool {
        let state = self.internal_metadata.get(LIFECYCLE_STATE).and_then(Value::as_str);
        state.is_some_and(|state| state != "active")
    }

    /// The values of [`SYSTEM_FIELDS`], in their order.
    pub fn system_values(&self) -> [Option<&str>; 12] {
        let l = &self.lineage;
        [
            Some(&self.document_id),
            Some(&self.collection_id),
            l.root_object_id.as_deref(),
            l.root_bucket_id.as_deref(),
            l.source_type.map(SourceType::as_str),
            l.source_collection_id.as_deref(),
            l.source_document_id.as_deref(),
            l.source_object_id.as_deref(),
            l.path.as_deref(),
            self.content_hash.as_deref(),
            Some(&self.created_at),
            Some(&self.updated_at),
        ]
    }
}
