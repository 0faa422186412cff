//! The document as every answer shows it.

use crate::openapi::{any_object, maybe_object, maybe_time, time};
use serde::Serialize;
use serde_json::{Map, Value, json};
use strata_engine::documents::{ACL, ARTIFACT_HASH, Shown, Urls};
use strata_model::{
    Fields,
    document::{self, Document, SourceType},
    path,
};
use utoipa::ToSchema;

/// A document. Beside the keys below, its own fields, the extractor's and enrichments stand at the root. Where a request
/// selects fields, the others are left out; the ids are always there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DocumentResponse {
    #[schema(example = "doc_f8966ff29c18e20c6b45e053")]
    pub document_id: String,
    pub collection_id: String,
    /// The object from which it descends.
    pub root_object_id: Option<String>,
    /// The bucket of that object.
    pub root_bucket_id: Option<String>,
    /// What it was made from directly: `bucket`, `collection`, `direct_upsert` or `signal`.
    pub source_type: Option<String>,
    /// The collection of the document it was made from.
    pub source_collection_id: Option<String>,
    /// The document it was made from.
    pub source_document_id: Option<String>,
    /// The object it was made from.
    pub source_object_id: Option<String>,
    /// Root bucket, then each collection down to its own.
    #[schema(example = "bkt_marketing/col_frames/col_scenes")]
    pub lineage_path: Option<String>,
    /// The steps from the root object to this document.
    #[schema(required = false)]
    pub lineage_chain: Vec<LineageStep>,
    /// The blobs of the source object that it was made from.
    #[schema(required = false)]
    pub source_blobs: Vec<SourceBlobRef>,
    /// What its extractor made beside it.
    #[schema(required = false)]
    pub document_blobs: Vec<BlobURLRef>,
    /// How it was made: `ingestion_status`, `feature_extractor_config_hash`, `processing_history` and the like.
    #[schema(schema_with = any_object, required = false)]
    pub internal_metadata: Map<String, Value>,
    /// Hash of its content, where one is known.
    pub content_hash: Option<String>,
    #[schema(schema_with = time, required = false)]
    pub created_at: String,
    #[schema(schema_with = time, required = false)]
    pub updated_at: String,
    /// When it became what searches see; null while they do not see its newest change.
    #[schema(schema_with = maybe_time)]
    pub searchable_at: Option<String>,
    /// The names of its vectors, where they were asked for.
    #[serde(rename = "_vectors")]
    pub vector_names: Option<Vec<String>>,
    /// Its vectors by name, where they were asked for.
    #[schema(schema_with = maybe_object)]
    pub vectors: Option<Map<String, Value>>,
    /// The same as the only one of `vectors`, where there is only one.
    pub vector: Option<Vec<f32>>,
    /// Always false where vectors were asked for: all of them are shown.
    pub vector_hydration_incomplete: Option<bool>,
    /// A URL of the first source blob, where URLs were asked for.
    pub presigned_url: Option<String>,
    /// URLs of all blobs, where they were asked for.
    pub presigned_urls: Option<Vec<PresignedBlob>>,
    /// Lineage, times, processing, blobs, metadata and `_acl` once more, as newer clients read them.
    #[schema(schema_with = any_object, required = false)]
    #[serde(rename = "_internal")]
    pub internal: Map<String, Value>,
}

/// One step from the root object to a document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineageStep {
    pub collection_id: String,
    pub feature_extractor_id: String,
    /// The document that the step made, if it is not the last.
    pub document_id: Option<String>,
    #[schema(schema_with = maybe_time)]
    pub timestamp: Option<String>,
}

impl From<document::LineageStep> for LineageStep {
    fn from(step: document::LineageStep) -> Self {
        Self {
            collection_id: step.collection_id,
            feature_extractor_id: step.feature_extractor_id,
            document_id: step.document_id,
            timestamp: step.timestamp,
        }
    }
}

/// A blob of the source object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SourceBlobRef {
    pub blob_id: String,
    pub blob_property: String,
    pub blob_type: String,
}

/// Something that was made beside a document: a thumbnail, a processed copy.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BlobURLRef {
    pub field: String,
    /// `source`, `processed`, `thumbnail`, `artifact` or `aux`.
    pub role: String,
    /// `video`, `image`, `audio`, `text`, `pdf` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    pub url: String,
    pub filename: Option<String>,
    pub size_bytes: Option<i64>,
    pub content_type: Option<String>,
    pub checksum: Option<String>,
    /// The blob of the object that it was made of.
    pub source_blob_id: Option<String>,
    /// Where URLs were asked for.
    pub presigned_url: Option<String>,
    /// Why there is no URL, where one was asked for.
    pub unavailable_reason: Option<String>,
}

/// A blob and a URL that reads it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PresignedBlob {
    /// Null for what was made beside the document.
    pub blob_id: Option<String>,
    pub property: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub content_type: Option<String>,
    pub filename: Option<String>,
    pub presigned_url: String,
}

/// A document as JSON of the contract ([`DocumentResponse`]): its own fields at the root, the keys of the system over
/// them. Only `created_at` and `updated_at` of its own win; `_internal` has the system's. `vectors` and URLs stand in it
/// where `shown` has them.
pub(crate) fn document_json(shown: Shown) -> Fields {
    let Shown { namespace_id, mut document, searchable_at, vectors, asked, vector_names, urls } = shown;
    let acl = document.internal_metadata.remove(ACL);
    let mut internal = internal_json(&document, &namespace_id);
    let Document { fields: mut json, lineage, mut document_blobs, .. } = document;
    internal["metadata"] = metadata(&json, &document.internal_metadata).into();
    if let Some(acl) = acl {
        internal[ACL] = acl;
    }
    for (name, time) in [("created_at", document.created_at), ("updated_at", document.updated_at)] {
        json.entry(name).or_insert_with(|| time.into());
    }
    let lineage_fields = [
        ("root_object_id", lineage.root_object_id),
        ("root_bucket_id", lineage.root_bucket_id),
        ("source_type", lineage.source_type.map(|kind| kind.as_str().to_owned())),
        ("source_collection_id", lineage.source_collection_id),
        ("source_document_id", lineage.source_document_id),
        ("source_object_id", lineage.source_object_id),
        ("lineage_path", lineage.path),
        ("content_hash", document.content_hash),
    ];
    for (name, value) in lineage_fields {
        match value {
            Some(value) => {
                json.insert(name.into(), value.into());
            }
            // A field of the document's own may be called so; filters find it, and so do readers.
            None => {
                json.entry(name).or_insert(Value::Null);
            }
        }
    }
    if let Some(urls) = urls {
        let presigned = presigned(&mut document_blobs, urls);
        for artifact in &document_blobs {
            open_field(&mut json, artifact);
        }
        json.insert(
            "presigned_url".into(),
            presigned.first().map_or(Value::Null, |blob| blob["presigned_url"].clone()),
        );
        json.insert("presigned_urls".into(), presigned.into());
    }
    for artifact in document_blobs.iter_mut().filter_map(Value::as_object_mut) {
        artifact.remove(ARTIFACT_HASH);
    }
    internal["document_blobs"] = json!(document_blobs);
    if vectors.is_some() || vector_names.is_some() {
        json.insert("vector_hydration_incomplete".into(), false.into());
    }
    if let Some(names) = vector_names {
        json.insert("_vectors".into(), names.into());
    }
    if let Some(vectors) = vectors {
        for (asked, name) in asked {
            json.insert(asked, json!(vectors[&name]));
        }
        if let (1, Some(only)) = (vectors.len(), vectors.values().next()) {
            json.insert("vector".into(), json!(only));
        }
        json.insert("vectors".into(), json!(vectors));
    }
    for (name, value) in [
        ("document_id", document.document_id.into()),
        ("collection_id", document.collection_id.into()),
        ("lineage_chain", json!(lineage.chain)),
        ("source_blobs", json!(document.source_blobs)),
        ("document_blobs", document_blobs.into()),
        ("internal_metadata", document.internal_metadata.into()),
        ("searchable_at", json!(searchable_at)),
        ("_internal", internal),
    ] {
        json.insert(name.into(), value);
    }
    json
}

/// What is known of a document beside its content: the caller's metadata, and the system's over it. Documents that were
/// brought are said to have theirs there.
fn metadata(fields: &Fields, system: &Fields) -> Fields {
    let mut all = fields.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    all.extend(system.clone());
    all
}

fn internal_json(document: &Document, namespace_id: &str) -> Value {
    let lineage = &document.lineage;
    json!({
        "namespace_id": namespace_id,
        "document_id": document.document_id,
        "collection_id": document.collection_id,
        "created_at": document.created_at,
        "updated_at": document.updated_at,
        "content_hash": document.content_hash,
        "lineage": {
            "root_object_id": lineage.root_object_id,
            "root_bucket_id": lineage.root_bucket_id,
            "source_type": lineage.source_type.map(SourceType::as_str),
            "source_object_id": lineage.source_object_id,
            "source_document_id": lineage.source_document_id,
            "source_collection_id": lineage.source_collection_id,
            "path": lineage.path,
            "chain": lineage.chain,
        },
        "processing": { "history": document.internal_metadata.get("processing_history") },
        "source_blobs": document.source_blobs,
    })
}

/// Puts its URL into every artifact; answers the URLs of the source blobs, then those of the artifacts.
fn presigned(artifacts: &mut [Value], urls: Urls) -> Vec<Value> {
    let source = urls.source.into_iter().map(|blob| {
        json!({
            "blob_id": blob.blob_id,
            "property": blob.property,
            "type": blob.blob_type,
            "content_type": blob.media_type,
            "filename": blob.filename,
            "presigned_url": blob.url,
        })
    });
    let mut all: Vec<Value> = source.collect();
    for (artifact, url) in artifacts.iter_mut().zip(urls.artifacts) {
        let Some(artifact) = artifact.as_object_mut() else { continue };
        let Some(url) = url else {
            artifact
                .insert("unavailable_reason".into(), "its content is not stored on this server; read its `url`".into());
            continue;
        };
        all.push(json!({
            "blob_id": null,
            "property": artifact.get("field"),
            "type": artifact.get("type").and_then(Value::as_str).unwrap_or("other"),
            "content_type": artifact.get("content_type"),
            "filename": artifact.get("filename"),
            "presigned_url": url,
        }));
        artifact.insert("presigned_url".into(), url.into());
    }
    all
}

/// The field that names an artifact shows the URL that opens it.
fn open_field(fields: &mut Fields, artifact: &Value) {
    let Some(name) = artifact["field"].as_str().map(|field| format!("{field}_url")) else { return };
    if let (Some(url), Some(value)) = (artifact.get("presigned_url"), fields.get_mut(&name))
        && *value == artifact["url"]
    {
        value.clone_from(url);
    }
}

/// Shown whatever is selected: what names the document, and what was asked for beside it.
const ALWAYS: [&str; 9] = [
    "document_id",
    "collection_id",
    "vectors",
    "_vectors",
    "vector",
    "vector_hydration_incomplete",
    "presigned_url",
    "presigned_urls",
    "_expanded",
];

/// The part of a document that `names`, dot paths, select.
pub(super) fn selected(mut document: Fields, names: &[String]) -> Fields {
    let mut kept = Fields::new();
    for name in names {
        match (document.get(name), path::get_field(&document, name)) {
            (Some(value), _) => drop(kept.insert(name.clone(), value.clone())),
            (None, Some(value)) => path::set(&mut kept, name, value.clone()),
            (None, None) => {}
        }
    }
    kept.extend(ALWAYS.iter().filter_map(|name| document.remove_entry(*name)));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_engine::documents::BlobUrl;
    use strata_model::{
        Scope,
        document::{Lineage, VectorValue, Vectors},
    };

    fn object(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    fn document(fields: Value) -> Document {
        Document {
            seq: 7,
            document_id: "doc_1".into(),
            collection_id: "col_1".into(),
            lineage: Lineage {
                root_object_id: Some("obj_1".into()),
                path: Some("bkt_1/col_1".into()),
                ..Lineage::default()
            },
            fields: object(fields),
            source_blobs: Vec::new(),
            document_blobs: vec![
                json!({ "field": "thumbnail", "url": "blobs/1", "hash": "abc" }),
                json!({ "field": "far", "url": "https://example.com/1" }),
            ],
            internal_metadata: object(json!({ "ingestion_status": "COMPLETED", "_acl": { "public": true } })),
            content_hash: None,
            derivation_id: None,
            created_at: "2026-01-01T00:00:00Z".into(),
            updated_at: "2026-01-02T00:00:00Z".into(),
        }
    }

    fn shown(fields: Value) -> Shown {
        let scope = Scope::whole("org_1", "ns_1");
        Shown::plain(&scope, document(fields), None)
    }

    #[test]
    fn own_fields_stand_at_the_root_and_the_systems_keys_over_them() {
        let json = document_json(shown(json!({
            "title": "x", "document_id": "mine", "created_at": "1999", "source_object_id": "own", "_internal": 1,
        })));
        assert_eq!(
            (&json["title"], &json["document_id"], &json["root_object_id"]),
            (&json!("x"), &json!("doc_1"), &json!("obj_1"))
        );
        assert_eq!((&json["created_at"], &json["updated_at"]), (&json!("1999"), &json!("2026-01-02T00:00:00Z")));
        assert_eq!((&json["source_object_id"], &json["source_document_id"]), (&json!("own"), &Value::Null));
        assert_eq!(json["internal_metadata"], json!({ "ingestion_status": "COMPLETED" }));
        assert_eq!(json["_internal"]["_acl"]["public"], true);
        let internal = &json["_internal"];
        assert_eq!((&internal["namespace_id"], &internal["source_blobs"]), (&json!("ns_1"), &json!([])));
        assert_eq!(internal["document_blobs"], json["document_blobs"]);
        assert_eq!(internal["metadata"], json!({ "ingestion_status": "COMPLETED" }));
        assert!(!json.contains_key("vectors") && !json.contains_key("presigned_url"), "not asked for");
    }

    #[test]
    fn urls_are_shown_and_hashes_are_not() {
        let source = BlobUrl {
            blob_id: "blob_1".into(),
            property: "video".into(),
            blob_type: "video".into(),
            media_type: "video/mp4".into(),
            filename: None,
            url: "u1".into(),
        };
        let urls = Urls { source: vec![source], artifacts: vec![Some("u2".into()), None] };
        let fields = json!({ "thumbnail_url": "blobs/1", "far_url": "https://example.com/1" });
        let json = document_json(Shown { urls: Some(urls), ..shown(fields) });
        assert_eq!((&json["thumbnail_url"], &json["far_url"]), (&json!("u2"), &json!("https://example.com/1")));
        let urls: Vec<&Value> =
            json["presigned_urls"].as_array().unwrap().iter().map(|blob| &blob["presigned_url"]).collect();
        assert_eq!((&json["presigned_url"], urls), (&json!("u1"), vec![&json!("u1"), &json!("u2")]));
        assert_eq!(json["document_blobs"][0], json!({ "field": "thumbnail", "url": "blobs/1", "presigned_url": "u2" }));
        assert!(json["document_blobs"][1]["unavailable_reason"].is_string());
    }

    #[test]
    fn vectors_are_shown_by_name_and_an_only_one_alone() {
        let vectors = Vectors::from([("a".to_owned(), VectorValue::Dense(vec![0.5, 1.0]))]);
        let json = document_json(Shown { vectors: Some(vectors), ..shown(json!({})) });
        assert_eq!((&json["vectors"]["a"], &json["vector"]), (&json!([0.5, 1.0]), &json!([0.5, 1.0])));
        let asked = vec![("b".to_owned(), "a".to_owned())];
        let vectors = Vectors::from([("a".to_owned(), VectorValue::Dense(vec![0.5]))]);
        let json = document_json(Shown { vectors: Some(vectors), asked, ..shown(json!({ "b": 1 })) });
        assert_eq!((&json["vectors"]["a"], &json["b"], json.get("a")), (&json!([0.5]), &json!([0.5]), None));
        let json = document_json(Shown { vector_names: Some(vec!["a".into()]), ..shown(json!({})) });
        assert_eq!((&json["_vectors"], json.get("vectors")), (&json!(["a"]), None));
    }

    #[test]
    fn a_selection_keeps_what_names_the_document() {
        let json = document_json(shown(json!({ "a": { "b": 1, "c": 2 }, "x.y": 3, "z": 4 })));
        let names = ["a.b", "x.y", "nothing"].map(str::to_owned);
        let kept = json!({ "a": { "b": 1 }, "x.y": 3, "document_id": "doc_1", "collection_id": "col_1" });
        assert_eq!(Value::Object(selected(json, &names)), kept);
    }
}
