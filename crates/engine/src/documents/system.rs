//! What requests say of the keys that a document has beside its fields: `internal_metadata`, `source_blobs` and
//! `document_blobs`.

use super::{
    ACL, ARTIFACT_HASH,
    apply::{How, assign, merge},
};
use serde_json::Value;
use strata_model::{
    Error, FieldError, Fields, Result,
    document::{Document, LIFECYCLE_STATE, SourceBlob},
};

/// Keys of `internal_metadata` that the engine keeps: what was done to the document, with what, and who may read it.
const OWN: [&str; 6] = [
    "ingestion_status",
    "feature_extractor_id",
    "feature_extractor_config_hash",
    "processing_history",
    LIFECYCLE_STATE,
    ACL,
];

/// What answers add to an artifact where URLs are asked for.
const SHOWN_OF_ARTIFACTS: [&str; 2] = ["presigned_url", "unavailable_reason"];

/// What a request says of these keys; `None` where it says nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct System {
    pub internal_metadata: Option<Fields>,
    pub source_blobs: Option<Vec<SourceBlob>>,
    pub document_blobs: Option<Vec<Value>>,
}

impl System {
    /// Takes the keys out of a request.
    pub fn take(request: &mut Fields) -> Result<Self> {
        let internal_metadata = match request.remove("internal_metadata") {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(_) => return Err(Error::invalid("internal_metadata", "must be an object")),
        };
        Ok(Self {
            internal_metadata,
            source_blobs: source_blobs(request.remove("source_blobs"))?,
            document_blobs: artifacts(request.remove("document_blobs"))?,
        })
    }

    /// Changes a document. `internal_metadata` is changed key by key, but never a key that the engine keeps; the lists
    /// take the place of those that there are.
    pub fn apply(&self, how: How, document: &mut Document) -> Result<()> {
        if let Some(sent) = &self.internal_metadata {
            let (own, sent): (Fields, Fields) =
                sent.clone().into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
            let is = |name: &String| document.internal_metadata.get(name).unwrap_or(&Value::Null);
            let wrong: Vec<FieldError> = own
                .iter()
                .filter(|(name, said)| *said != is(name))
                .map(|(name, _)| {
                    FieldError::new(format!("internal_metadata.{name}"), "is kept by the server and cannot be changed")
                })
                .collect();
            if !wrong.is_empty() {
                return Err(Error::Invalid(wrong));
            }
            match how {
                How::Merge => merge(&mut document.internal_metadata, &sent),
                How::Assign | How::Update | How::Replace => assign(&mut document.internal_metadata, &sent)?,
            }
        }
        if let Some(blobs) = &self.source_blobs {
            document.source_blobs.clone_from(blobs);
        }
        if let Some(sent) = &self.document_blobs {
            let mut next = sent.clone();
            for artifact in &mut next {
                keep_hash(artifact, &document.document_blobs);
            }
            document.document_blobs = next;
        }
        Ok(())
    }
}

/// The content of an artifact that is there already is still this server's.
fn keep_hash(artifact: &mut Value, before: &[Value]) {
    let same = |one: &&Value| one["field"] == artifact["field"] && one["url"] == artifact["url"];
    let hash = before.iter().find(same).and_then(|one| one.get(ARTIFACT_HASH)).cloned();
    if let (Some(hash), Some(artifact)) = (hash, artifact.as_object_mut()) {
        artifact.insert(ARTIFACT_HASH.into(), hash);
    }
}

fn source_blobs(sent: Option<Value>) -> Result<Option<Vec<SourceBlob>>> {
    match sent {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => {
            let read = |(i, blob)| {
                serde_json::from_value(blob).map_err(|e| Error::invalid(format!("source_blobs.{i}"), e.to_string()))
            };
            list.into_iter().enumerate().map(read).collect::<Result<_>>().map(Some)
        }
        Some(_) => Err(Error::invalid("source_blobs", "must be an array")),
    }
}

/// Artifacts, each of which says at least what it is called and where it is.
fn artifacts(sent: Option<Value>) -> Result<Option<Vec<Value>>> {
    const TEXTS: [&str; 2] = ["field", "url"];
    const WORDS: [(&str, &[&str]); 2] = [
        ("role", &["source", "processed", "thumbnail", "artifact", "aux"]),
        ("type", &["video", "image", "audio", "text", "pdf", "other"]),
    ];
    let mut list = match sent {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Error::invalid("document_blobs", "must be an array")),
    };
    for (i, entry) in list.iter_mut().enumerate() {
        for key in TEXTS {
            if entry.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(Error::invalid(format!("document_blobs.{i}.{key}"), "is required"));
            }
        }
        for (key, words) in WORDS {
            let said = entry.get(key).filter(|said| !said.is_null());
            if said.is_some_and(|said| !said.as_str().is_some_and(|said| words.contains(&said))) {
                let message = format!("must be one of {}", words.join(", "));
                return Err(Error::invalid(format!("document_blobs.{i}.{key}"), message));
            }
        }
        // A hash would make the server sign URLs of content that the caller only names.
        if entry.get(ARTIFACT_HASH).is_some() {
            let message = "is not the caller's to set";
            return Err(Error::invalid(format!("document_blobs.{i}.{ARTIFACT_HASH}"), message));
        }
        if let Some(entry) = entry.as_object_mut() {
            entry.retain(|key, _| !SHOWN_OF_ARTIFACTS.contains(&key.as_str()));
        }
    }
    Ok(Some(list))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use strata_model::document::Lineage;

    fn object(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    fn document() -> Document {
        Document {
            seq: 1,
            document_id: "doc_1".into(),
            collection_id: "col_1".into(),
            lineage: Lineage::default(),
            fields: Fields::new(),
            source_blobs: Vec::new(),
            document_blobs: vec![json!({ "field": "thumbnail", "url": "blobs/1", "hash": "abc" })],
            internal_metadata: object(json!({ "ingestion_status": "COMPLETED", "reviewed": { "by": "ann" } })),
            content_hash: None,
            derivation_id: None,
            created_at: "2026-01-01T00:00:00Z".into(),
            updated_at: "2026-01-01T00:00:00Z".into(),
        }
    }

    fn changed(how: How, sent: Value) -> Result<Document> {
        let (mut sent, mut document) = (object(sent), document());
        let system = System::take(&mut sent)?;
        assert!(sent.is_empty(), "{sent:?}");
        system.apply(how, &mut document).map(|()| document)
    }

    #[test]
    fn the_callers_keys_change_and_the_engines_do_not() {
        let sent = json!({ "internal_metadata": { "ingestion_status": "COMPLETED", "reviewed": { "at": 1 } } });
        let merged = changed(How::Merge, sent.clone()).unwrap().internal_metadata;
        assert_eq!(merged["reviewed"], json!({ "by": "ann", "at": 1 }));
        let replaced = changed(How::Update, sent).unwrap().internal_metadata;
        assert_eq!((&replaced["reviewed"], &replaced["ingestion_status"]), (&json!({ "at": 1 }), &json!("COMPLETED")));
        for (key, value) in [("ingestion_status", json!("FAILED")), ("processing_history", json!([])), (ACL, json!({}))]
        {
            match changed(How::Merge, json!({ "internal_metadata": { key: value } })) {
                Err(Error::Invalid(faults)) => assert_eq!(faults[0].field, format!("internal_metadata.{key}")),
                other => panic!("{key}: {other:?}"),
            }
        }
        let gone = changed(How::Assign, json!({ "internal_metadata": { "reviewed": null } })).unwrap();
        assert!(!gone.internal_metadata.contains_key("reviewed"));
    }

    #[test]
    fn an_artifact_that_is_sent_back_as_it_was_shown_keeps_its_content() {
        let shown = json!({ "field": "thumbnail", "url": "blobs/1", "presigned_url": "http://…" });
        let other = json!({ "field": "film", "url": "blobs/1" });
        let next = changed(How::Merge, json!({ "document_blobs": [other, shown] })).unwrap();
        let whole = json!({ "field": "thumbnail", "url": "blobs/1", "hash": "abc" });
        assert_eq!(next.document_blobs, [json!({ "field": "film", "url": "blobs/1" }), whole]);
        assert!(changed(How::Merge, json!({ "document_blobs": [{ "field": "x", "url": "y", "hash": "z" }] })).is_err());
    }

    #[test]
    fn blobs_of_the_source_are_checked_one_by_one() {
        let blob = json!({ "blob_id": "b", "blob_property": "p", "blob_type": "text" });
        let next = changed(How::Merge, json!({ "source_blobs": [blob] })).unwrap();
        assert_eq!(next.source_blobs[0].blob_id, "b");
        match changed(How::Merge, json!({ "source_blobs": [blob, {}] })) {
            Err(Error::Invalid(faults)) => assert_eq!(faults[0].field, "source_blobs.1"),
            other => panic!("{other:?}"),
        }
    }
}
