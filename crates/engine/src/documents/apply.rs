//! What a request does to a document's fields and vectors.

use super::vectors;
use crate::collections::Collection;
use serde_json::Value;
use strata_model::{
    Error, FieldError, Fields, Result,
    document::{Document, Vectors},
    feature::VectorKind,
    schema::Schema,
};

/// Names that answers show beside a document's own fields. A request that carries them, as one that sends back what it
/// read does, says nothing by it.
const SHOWN: [&str; 10] = [
    "_internal",
    "_expanded",
    "searchable_at",
    "presigned_url",
    "presigned_urls",
    "vector",
    "vector_hydration_incomplete",
    "internal_metadata",
    "source_blobs",
    "document_blobs",
];

/// Names that answers show unless the document has fields of its own called so; then those are shown.
const TIMES: [&str; 2] = ["created_at", "updated_at"];

/// Names of a document's identity and lineage, which never change.
pub(super) const FIXED: [&str; 9] = [
    "document_id",
    "collection_id",
    "root_object_id",
    "root_bucket_id",
    "source_type",
    "source_collection_id",
    "source_document_id",
    "source_object_id",
    "lineage_path",
];

/// The caller's own fields of a request whose other parts were taken out.
pub(super) fn own_fields(mut fields: Fields) -> Fields {
    fields.retain(|name, value| !SHOWN.contains(&name.as_str()) && (name != "metadata" || !value.is_null()));
    fields
}

/// Takes `vectors` out of a request: names to vectors.
pub(super) fn vectors_of(fields: &mut Fields) -> Result<Fields> {
    match fields.remove("vectors") {
        None | Some(Value::Null) => Ok(Fields::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => Err(Error::invalid("vectors", "must be an object of names to vectors")),
    }
}

/// A feature that a request attaches.
#[derive(Debug, Clone)]
pub(super) struct Feature {
    pub extractor_id: String,
    pub payload: Fields,
    vectors: Value,
}

/// Takes `features` out of a request.
pub(super) fn features_of(fields: &mut Fields) -> Result<Vec<Feature>> {
    let list = match fields.remove("features") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(Error::invalid("features", "must be an array")),
    };
    let read = |(i, feature): (usize, Value)| {
        let at = format!("features.{i}");
        let id = feature.get("feature_extractor_id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Error::invalid(format!("{at}.feature_extractor_id"), "is required"))?;
        let payload = match feature.get("payload") {
            None | Some(Value::Null) => Fields::new(),
            Some(Value::Object(map)) => own_fields(map.clone()),
            Some(_) => return Err(Error::invalid(format!("{at}.payload"), "must be an object")),
        };
        let vectors = feature.get("vectors").cloned().unwrap_or_default();
        Ok(Feature { extractor_id: id.to_owned(), payload, vectors })
    };
    list.into_iter().enumerate().map(read).collect()
}

impl Feature {
    /// Its vectors: by name, or one alone, which is the only one of its kind that the extractor makes.
    pub fn checked_vectors(&self, collection: &Collection, at: &str) -> Result<Vectors> {
        let alone = match &self.vectors {
            Value::Null => return Ok(Vectors::new()),
            Value::Object(map) if map.contains_key("indices") && map.contains_key("values") => VectorKind::Sparse,
            Value::Object(map) => return vectors::check(collection, map, at),
            Value::Array(list) if list.first().is_some_and(Value::is_array) => VectorKind::MultiDense,
            Value::Array(_) => VectorKind::Dense,
            _ => return Err(Error::invalid(at, "must be an object of names to vectors")),
        };
        let of_kind = || collection.vector_indexes.iter().filter(|index| index.kind == alone);
        let own = of_kind().find(|index| index.name.starts_with(&self.extractor_id));
        let index = own.or_else(|| of_kind().next().filter(|_| of_kind().count() == 1));
        let name = index.map_or_else(|| self.extractor_id.clone(), |index| index.name.clone());
        vectors::check(collection, &Fields::from_iter([(name, self.vectors.clone())]), at)
    }
}

/// Checks the fields against the collection's `document_schema` where that is strict; fills its defaults.
pub(super) fn check_schema(collection: &Collection, fields: &mut Fields) -> Result<()> {
    if collection.kept.get("schema_validation").and_then(Value::as_str) != Some("strict") {
        return Ok(());
    }
    match collection.kept.get("document_schema").filter(|s| s.get("properties").is_some()) {
        Some(schema) => Schema::parse(schema, "document_schema")?.check(fields, |_| false),
        None => Ok(()),
    }
}

/// How a request's fields meet the document's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Objects are merged at every depth, null removes, the rest replaces.
    Merge,
    /// The request's fields are all there are.
    Replace,
}

/// A change of a document, read from a request.
#[derive(Debug, Clone)]
pub(super) struct Change {
    how: How,
    fields: Fields,
    /// Names to vectors; null removes one. `None` leaves the vectors as they are.
    vectors: Option<Fields>,
    features: Vec<Feature>,
    content_hash: Option<Option<String>>,
    fixed: Fields,
}

impl Change {
    pub fn parse(mut request: Fields, how: How) -> Result<Self> {
        let vectors = if request.contains_key("vectors") { Some(vectors_of(&mut request)?) } else { None };
        let content_hash = match request.contains_key("content_hash") {
            true => Some(super::text_of(&mut request, "content_hash")?),
            false => None,
        };
        let features = features_of(&mut request)?;
        let (fixed, mut fields): (Fields, Fields) =
            request.into_iter().partition(|(name, _)| FIXED.contains(&name.as_str()));
        // The chain is compared with nothing: it holds times, and the path says the same.
        fields.remove("lineage_chain");
        fields.retain(|name, _| !SHOWN.contains(&name.as_str()));
        Ok(Self { how, fields, vectors, features, content_hash, fixed })
    }

    /// Applies it. The vectors are `None` where they stay as they are.
    pub fn apply(
        &self,
        document: &Document,
        collection: &Collection,
        current: impl FnOnce() -> Result<Vectors>,
        now: &str,
    ) -> Result<(Document, Option<Vectors>)> {
        self.check_fixed(document)?;
        let mut next = document.clone();
        let mut fields = self.fields.clone();
        fields.retain(|name, _| !TIMES.contains(&name.as_str()) || document.fields.contains_key(name));
        match self.how {
            How::Merge => merge(&mut next.fields, &fields),
            How::Replace => next.fields = own_fields(fields),
        }
        for feature in &self.features {
            merge(&mut next.fields, &feature.payload);
        }
        check_schema(collection, &mut next.fields)?;
        if let Some(hash) = &self.content_hash {
            next.content_hash = hash.clone();
        }
        next.updated_at = now.to_owned();
        let mut sent = match &self.vectors {
            Some(sent) => vectors::check(collection, sent, "vectors")?,
            None => Vectors::new(),
        };
        for (i, feature) in self.features.iter().enumerate() {
            sent.extend(feature.checked_vectors(collection, &format!("features.{i}.vectors"))?);
        }
        let vectors = match (self.how, &self.vectors) {
            (_, None) if sent.is_empty() => None,
            (How::Replace, Some(_)) => Some(sent),
            (_, named) => {
                let mut all = current()?;
                for (name, _) in named.iter().flat_map(|n| n.iter()).filter(|(_, value)| value.is_null()) {
                    let own = collection.vector_index(name).map_or(name.as_str(), |index| index.name.as_str());
                    all.remove(own);
                }
                all.extend(sent);
                Some(all)
            }
        };
        Ok((next, vectors))
    }

    fn check_fixed(&self, document: &Document) -> Result<()> {
        let mut wrong = Vec::new();
        let view = document.view();
        for (name, said) in &self.fixed {
            let is = view.get(name).unwrap_or(&Value::Null);
            if !said.is_null() && said != is {
                wrong.push(FieldError::new(name, format!("cannot be changed: it is {is}, not {said}")));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
    }
}

/// Merges `patch` into `fields` at every depth; null removes.
fn merge(fields: &mut Fields, patch: &Fields) {
    for (name, value) in patch {
        match (fields.get_mut(name), value) {
            (_, Value::Null) => drop(fields.remove(name)),
            (Some(Value::Object(inner)), Value::Object(patch)) => merge(inner, patch),
            (_, Value::Object(patch)) => {
                let mut fresh = Fields::new();
                merge(&mut fresh, patch);
                fields.insert(name.clone(), Value::Object(fresh));
            }
            (_, value) => drop(fields.insert(name.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Fields {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_patch_merges_objects_and_null_removes() {
        let mut fields = object(json!({ "a": 1, "m": { "x": 1, "y": { "z": 2 } }, "list": [1, 2] }));
        merge(
            &mut fields,
            &object(
                json!({ "a": null, "m": { "y": { "z": null, "w": 3 } }, "list": [9], "new": { "k": null, "v": 1 } }),
            ),
        );
        assert_eq!(Value::Object(fields), json!({ "m": { "x": 1, "y": { "w": 3 } }, "list": [9], "new": { "v": 1 } }));
    }

    #[test]
    fn what_answers_show_is_no_field_of_the_callers() {
        let sent = object(
            json!({ "title": "x", "_internal": {}, "searchable_at": "t", "metadata": null, "source_blobs": [] }),
        );
        assert_eq!(Value::Object(own_fields(sent)), json!({ "title": "x" }));
        let change =
            Change::parse(object(json!({ "title": "y", "document_id": "doc_1", "searchable_at": "t" })), How::Merge)
                .unwrap();
        assert_eq!(Value::Object(change.fields), json!({ "title": "y" }));
        assert_eq!(Value::Object(change.fixed), json!({ "document_id": "doc_1" }));
    }
}
