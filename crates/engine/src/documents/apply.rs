//! What a request does to a document's fields and vectors.

use super::{system::System, vectors};
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
const SHOWN: [&str; 11] = [
    "_internal",
    "_expanded",
    "_vectors",
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
    /// Each takes the place of the one of its name; a name with dots reaches inside objects; null removes.
    Assign,
    /// Each takes the place of the one of its name, but `metadata` is changed key by key, where null removes.
    Update,
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
    system: System,
    fixed: Fields,
}

impl Change {
    pub fn parse(mut request: Fields, how: How) -> Result<Self> {
        if how == How::Assign {
            inside_system_keys(&mut request)?;
        }
        if how == How::Update && request.get("metadata").is_some_and(|m| !m.is_object() && !m.is_null()) {
            return Err(Error::invalid("metadata", "must be an object"));
        }
        let system = System::take(&mut request)?;
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
        Ok(Self { how, fields, vectors, features, content_hash, system, fixed })
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
        // Answers repeat vectors at the root under the names that they were asked by.
        let sent = |name: &str| self.vectors.as_ref()?.get(&collection.vector_index(name)?.name);
        fields.retain(|name, value| sent(name) != Some(&*value));
        match self.how {
            How::Merge => merge(&mut next.fields, &fields),
            How::Assign => assign(&mut next.fields, &fields)?,
            How::Update => update(&mut next.fields, fields),
            How::Replace => next.fields = own_fields(fields),
        }
        self.system.apply(self.how, &mut next)?;
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
            (How::Replace | How::Update, Some(_)) => Some(sent),
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
pub(super) fn merge(fields: &mut Fields, patch: &Fields) {
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

/// Puts each value in the place of the one of its name; a name with dots reaches inside objects, unless there is a field
/// that is called so; null removes.
pub(super) fn assign(fields: &mut Fields, sent: &Fields) -> Result<()> {
    sent.iter().try_for_each(|(name, value)| assign_one(fields, name, value, name))
}

fn assign_one(fields: &mut Fields, name: &str, value: &Value, whole: &str) -> Result<()> {
    let inner = if fields.contains_key(name) { None } else { name.split_once('.') };
    match (inner, value) {
        (None, Value::Null) => drop(fields.remove(name)),
        (None, value) => drop(fields.insert(name.to_owned(), value.clone())),
        (Some((head, rest)), value) => match fields.get_mut(head) {
            Some(Value::Object(inner)) => assign_one(inner, rest, value, whole)?,
            None | Some(Value::Null) if value.is_null() => {}
            None | Some(Value::Null) => {
                let mut inner = Fields::new();
                assign_one(&mut inner, rest, value, whole)?;
                fields.insert(head.to_owned(), Value::Object(inner));
            }
            Some(_) => return Err(Error::invalid(whole, format!("`{head}` is no object; nothing lies inside it"))),
        },
    }
    Ok(())
}

/// Puts each value in the place of the one of its name, inside `metadata` key by key.
fn update(fields: &mut Fields, sent: Fields) {
    for (name, value) in sent {
        match (name.as_str(), value) {
            ("metadata", Value::Null) => {}
            ("metadata", Value::Object(sent)) => {
                let kept = fields.entry(name).or_insert_with(|| Value::Object(Fields::new()));
                if !kept.is_object() {
                    *kept = Value::Object(Fields::new());
                }
                let Value::Object(kept) = kept else { continue };
                for (key, value) in sent {
                    match value {
                        Value::Null => drop(kept.remove(&key)),
                        value => drop(kept.insert(key, value)),
                    }
                }
            }
            (_, value) => drop(fields.insert(name, value)),
        }
    }
}

/// Moves what names with dots say of `internal_metadata` into it. Nothing else that the system shows has parts that could
/// be set.
fn inside_system_keys(request: &mut Fields) -> Result<()> {
    let is_system = |head: &str| {
        SHOWN.contains(&head) || FIXED.contains(&head) || ["lineage_chain", "vectors", "features"].contains(&head)
    };
    let names: Vec<String> = request.keys().filter(|name| name.contains('.')).cloned().collect();
    for name in names {
        match name.split_once('.') {
            Some(("internal_metadata", key)) => {
                let value = request.remove(&name).unwrap_or_default();
                let whole = request.entry("internal_metadata").or_insert_with(|| Value::Object(Fields::new()));
                if whole.is_null() {
                    *whole = Value::Object(Fields::new());
                }
                if let Value::Object(whole) = whole {
                    whole.insert(key.to_owned(), value);
                }
            }
            Some((head, _)) if is_system(head) => {
                return Err(Error::invalid(&name, format!("`{head}` cannot be changed in part")));
            }
            _ => {}
        }
    }
    Ok(())
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
    fn an_assignment_replaces_and_reaches_inside_by_dots() {
        let mut fields = object(json!({ "m": { "x": 1, "y": { "z": 2 } }, "a.b": 1, "list": [1], "gone": 1 }));
        let sent = json!({ "m.y.z": 3, "m.w.v": 4, "a.b": 2, "list": [9], "gone": null, "none.at.all": null });
        assign(&mut fields, &object(sent)).unwrap();
        let want = json!({ "m": { "x": 1, "y": { "z": 3 }, "w": { "v": 4 } }, "a.b": 2, "list": [9] });
        assert_eq!(Value::Object(fields.clone()), want);
        assign(&mut fields, &object(json!({ "m": { "y": 1 } }))).unwrap();
        assert_eq!(fields["m"], json!({ "y": 1 }));
        match assign(&mut fields, &object(json!({ "list.0": 1 }))) {
            Err(Error::Invalid(faults)) => assert_eq!(faults[0].field, "list.0"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_update_replaces_fields_and_sets_keys_of_metadata() {
        let mut fields = object(json!({ "a": { "x": 1 }, "b": 1, "metadata": { "k": { "x": 1 }, "l": 1, "m": 1 } }));
        update(&mut fields, object(json!({ "a": { "y": 1 }, "metadata": { "k": { "y": 1 }, "l": null, "n": 1 } })));
        let want = json!({ "a": { "y": 1 }, "b": 1, "metadata": { "k": { "y": 1 }, "m": 1, "n": 1 } });
        assert_eq!(Value::Object(fields.clone()), want);
        update(&mut fields, object(json!({ "metadata": null })));
        assert_eq!(Value::Object(fields), want);
    }

    #[test]
    fn parts_of_what_the_system_shows_are_not_fields() {
        let change = |sent: Value| Change::parse(object(sent), How::Assign);
        let sent = json!({ "internal_metadata.note": 1, "m.x": 1 });
        let parsed = change(sent).unwrap();
        assert_eq!(parsed.system.internal_metadata, Some(object(json!({ "note": 1 }))));
        for name in ["_internal.lineage.path", "vectors.plane", "lineage_chain.0", "document_blobs.0.url"] {
            match change(json!({ name: 1 })) {
                Err(Error::Invalid(faults)) => assert_eq!(faults[0].field, name),
                other => panic!("{name}: {other:?}"),
            }
        }
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
