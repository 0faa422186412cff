//! A collection from what the caller sent: for a new one, and for a change of one that is there.

use super::{Collection, Source, SourceKind, bare_filters, no_source, vectors};
use crate::{extract::Configured, org_models};
use serde_json::{Value, json};
use strata_model::{
    Error, Fields, Result, Scope,
    feature::VectorIndex,
    filter::Filter,
    schema::{Field, Schema},
};
use strata_store::catalog::{
    lineage,
    resources::{self, Kind},
    rusqlite::Connection,
};

/// Most buckets or collections that one collection reads from.
const MAX_SOURCES: usize = 100;
/// Longest description, in characters.
const MAX_DESCRIPTION: usize = 10_000;

/// Settings that are kept as sent, and what they must be.
const KEPT: [(&str, Shape); 16] = [
    ("metadata", Shape::Object),
    ("schedule", Shape::Object),
    ("taxonomy_applications", Shape::ListWith("taxonomy_id")),
    ("cluster_applications", Shape::ListWith("cluster_id")),
    ("alert_applications", Shape::ListWith("alert_id")),
    ("retriever_enrichments", Shape::ListWith("retriever_id")),
    ("retriever_transform", Shape::Object),
    ("embedding_task", Shape::Text),
    ("features", Shape::List),
    ("document_schema", Shape::Object),
    ("schema_validation", Shape::OneOf(&["strict", "warn", "off"])),
    ("schema_sync_enabled", Shape::Boolean),
    ("tiering", Shape::Object),
    ("tiering_rules", Shape::List),
    ("trigger_id", Shape::Text),
    ("s3_vector_index", Shape::Text),
];

#[derive(Clone, Copy)]
enum Shape {
    Object,
    List,
    /// Objects that name something under this key.
    ListWith(&'static str),
    Text,
    Boolean,
    OneOf(&'static [&'static str]),
}

impl Shape {
    fn check(self, value: &Value, at: &str) -> Result<()> {
        let good = match self {
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
            Self::ListWith(key) => {
                value.as_array().is_some_and(|l| l.iter().all(|v| v.get(key).is_some_and(Value::is_string)))
            }
            Self::Text => value.is_string(),
            Self::Boolean => value.is_boolean(),
            Self::OneOf(words) => value.as_str().is_some_and(|t| words.contains(&t)),
        };
        let message = match self {
            _ if good => return Ok(()),
            Self::Object => "must be an object".to_owned(),
            Self::List => "must be an array".to_owned(),
            Self::ListWith(key) => format!("must be an array of objects with `{key}`"),
            Self::Text => "must be a string".to_owned(),
            Self::Boolean => "must be true or false".to_owned(),
            Self::OneOf(words) => format!("must be one of {}", words.join(", ")),
        };
        Err(Error::invalid(at, message))
    }
}

/// The value under `key`; `None` where it is absent or null.
fn given<'a>(request: &'a Fields, key: &str) -> Option<&'a Value> {
    request.get(key).filter(|v| !v.is_null())
}

/// The collection that `request` asks for. What it leaves out stays as in `current`, which a new one lacks; `id` and
/// `now` are the new one's.
pub(super) fn assemble(
    connection: &Connection,
    scope: &Scope,
    current: Option<&Collection>,
    request: &Fields,
    id: &str,
    now: &str,
) -> Result<Collection> {
    let name = match (given(request, "collection_name").or_else(|| given(request, "name")), current) {
        (Some(name), _) => checked_name(name)?,
        (None, Some(current)) => current.name.clone(),
        (None, None) => return Err(Error::invalid("collection_name", "is required")),
    };
    let source = match (given(request, "source"), current) {
        (Some(json), _) => source(connection, scope, json)?,
        (None, Some(current)) => current.source.clone(),
        (None, None) => no_source(),
    };
    if source.kind == SourceKind::Collection
        && lineage::upstream(connection, &source.ids)?.iter().any(|above| above == id)
    {
        let ids = source.ids.join("`, `");
        return Err(Error::Conflict(format!(
            "`{name}` cannot read from `{ids}`: that reads from it, directly or through others"
        )));
    }
    let extractor =
        match (given(request, "feature_extractor").or_else(|| first_of(request, "feature_extractors")), current) {
            (Some(json), _) => {
                let json = org_models::settled(connection, scope, json, "feature_extractor")?;
                let custom = crate::extractors::of_namespace(connection, scope)?;
                let extractor = Configured::parse(&json, &custom, "feature_extractor")?;
                org_models::must_be_usable(connection, scope, &extractor.models, "feature_extractor")?;
                Some(extractor)
            }
            (None, Some(current)) => current.extractor.clone(),
            (None, None) if source.kind == SourceKind::None => None,
            (None, None) => Some(Configured::parse(&json!("passthrough_extractor"), &[], "feature_extractor")?),
        };
    let extracted = extractor.as_ref().map(|e| e.vectors.clone()).unwrap_or_default();
    let brought = match (brought(request)?, current) {
        (Some(sent), _) => sent,
        (None, Some(current)) => current.brought.clone(),
        (None, None) if extracted.is_empty() => of_namespace(connection, scope)?,
        (None, None) => Vec::new(),
    };
    let sent_input = match (given(request, "input_schema"), current) {
        (Some(json), _) => spelled(&Schema::parse(json, "input_schema")?),
        (None, Some(current)) => current.sent_input.clone(),
        (None, None) => Value::Null,
    };
    let input_schema =
        if sent_input.is_null() { derived_input(connection, scope, &source)? } else { sent_input.clone() };
    let synced = current.map(|c| c.synced.clone()).unwrap_or_default();
    let output_schema = output(extractor.as_ref(), &input_schema, &synced)?;
    let enabled = match given(request, "enabled") {
        None => current.is_none_or(|c| c.enabled),
        Some(Value::Bool(enabled)) => *enabled,
        Some(_) => return Err(Error::invalid("enabled", "must be true or false")),
    };
    if enabled && current.is_some_and(|c| !c.enabled) {
        sources_exist(connection, scope, &source)?;
    }
    let mut kept = current.map(|c| c.kept.clone()).unwrap_or_default();
    for (key, shape) in KEPT {
        match request.get(key) {
            None => {}
            Some(Value::Null) => drop(kept.remove(key)),
            Some(value) => {
                shape.check(value, key)?;
                kept.insert(key.to_owned(), value.clone());
            }
        }
    }
    let changed = current.is_some_and(|c| c.output_schema != output_schema || c.input_schema != input_schema);
    Ok(Collection {
        id: id.to_owned(),
        namespace_id: scope.namespace_id.clone(),
        name,
        description: description(request, current)?,
        vector_indexes: joined(&extracted, &brought)?,
        source,
        extractor,
        input_schema,
        output_schema,
        enabled,
        disabled_reason: current.filter(|_| !enabled).map_or(Value::Null, |c| c.disabled_reason.clone()),
        schema_version: current.map_or(1, |c| c.schema_version) + i64::from(changed),
        last_schema_sync: current.and_then(|c| c.last_schema_sync.clone()),
        kept,
        created_at: current.map_or(now, |c| c.created_at.as_str()).to_owned(),
        updated_at: now.to_owned(),
        brought,
        sent_input,
        synced,
        private: current.map(|c| c.private.clone()).unwrap_or_default(),
    })
}

fn checked_name(name: &Value) -> Result<String> {
    let name = name.as_str().ok_or_else(|| Error::invalid("collection_name", "must be a string"))?;
    if !(3..=100).contains(&name.chars().count()) || name.trim() != name || name.chars().any(char::is_control) {
        return Err(Error::invalid("collection_name", "must be 3 to 100 characters, without white space at its ends"));
    }
    Ok(name.to_owned())
}

fn description(request: &Fields, current: Option<&Collection>) -> Result<Option<String>> {
    match request.get("description") {
        None => Ok(current.and_then(|c| c.description.clone())),
        Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= MAX_DESCRIPTION => Ok(Some(text.clone())),
        Some(_) => {
            Err(Error::invalid("description", format!("must be a string of at most {MAX_DESCRIPTION} characters")))
        }
    }
}

/// The only entry of an older plural spelling.
fn first_of<'a>(request: &'a Fields, key: &str) -> Option<&'a Value> {
    match given(request, key)?.as_array()?.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

fn brought(request: &Fields) -> Result<Option<Vec<VectorIndex>>> {
    for key in ["vector_indexes", "vector_configs"] {
        if let Some(json) = given(request, key) {
            return vectors::parse(json, key).map(Some);
        }
    }
    Ok(None)
}

/// The vectors that the namespace declares for documents whose vectors the caller brings.
fn of_namespace(connection: &Connection, scope: &Scope) -> Result<Vec<VectorIndex>> {
    let body = lineage::namespace_body(connection, &scope.namespace_id)?.unwrap_or_default();
    body.get("vector_configs").map_or(Ok(Vec::new()), |json| vectors::parse(json, "vector_configs"))
}

fn joined(extracted: &[VectorIndex], brought: &[VectorIndex]) -> Result<Vec<VectorIndex>> {
    if let Some(twice) = brought.iter().find(|b| extracted.iter().any(|e| e.name == b.name)) {
        let message = format!("`{}` is a vector of the extractor already; choose another name", twice.name);
        return Err(Error::invalid("vector_indexes", message));
    }
    Ok(extracted.iter().chain(brought).cloned().collect())
}

/// Reads a source and resolves what it names, by id or by name.
fn source(connection: &Connection, scope: &Scope, json: &Value) -> Result<Source> {
    let Value::Object(sent) = json else { return Err(Error::invalid("source", "must be an object with `type`")) };
    let names = |keys: [&str; 2]| keys.iter().any(|key| given(sent, key).is_some());
    let written = match given(sent, "type") {
        Some(Value::String(text)) => text.clone(),
        None if names(["bucket_ids", "bucket_id"]) => "bucket".to_owned(),
        None if names(["collection_ids", "collection_id"]) => "collection".to_owned(),
        None => return Err(Error::invalid("source.type", "is required: bucket, collection, direct_upsert or none")),
        Some(_) => return Err(Error::invalid("source.type", "must be a string")),
    };
    let (kind, keys, of) = match written.as_str() {
        "bucket" => (SourceKind::Bucket, ["bucket_ids", "bucket_id"], Kind::Bucket),
        "collection" => (SourceKind::Collection, ["collection_ids", "collection_id"], Kind::Collection),
        "none" | "direct_upsert" | "signals" => (SourceKind::None, ["", ""], Kind::Bucket),
        "taxonomy" | "cluster" => {
            return Err(Error::invalid(
                "source.type",
                format!("this server does not make collections from a {written}"),
            ));
        }
        other => {
            let message = format!("`{other}` is not one of bucket, collection, direct_upsert, signals, none");
            return Err(Error::invalid("source.type", message));
        }
    };
    let mut ids: Vec<String> = Vec::new();
    for (identifier, at) in identifiers(sent, keys)? {
        let id = resources::find(connection, of, scope, &identifier)?.map(|found| found.id);
        let id = id.ok_or_else(|| Error::invalid(at, format!("the {} `{identifier}` does not exist", of.name())))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    if kind != SourceKind::None && ids.is_empty() {
        return Err(Error::invalid(format!("source.{}", keys[0]), "must name at least one"));
    }
    let source_filters = bare_filters(given(sent, "source_filters").cloned());
    Filter::parse(&source_filters, "source.source_filters")?;
    let rest = sent.iter().filter(|(key, value)| {
        matches!(key.as_str(), "source_namespace_id" | "field_map" | "inherited_bucket_ids") && !value.is_null()
    });
    let rest = rest.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Source { kind, written, ids, source_filters, rest })
}

/// The identifiers under the plural or the singular key, each with its place.
fn identifiers(sent: &Fields, [many, one]: [&str; 2]) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    match given(sent, many) {
        None => {}
        Some(Value::Array(list)) if list.len() > MAX_SOURCES => {
            return Err(Error::invalid(format!("source.{many}"), format!("at most {MAX_SOURCES} are allowed")));
        }
        Some(Value::Array(list)) => {
            for (i, entry) in list.iter().enumerate() {
                let at = format!("source.{many}.{i}");
                let text = entry.as_str().ok_or_else(|| Error::invalid(at.clone(), "must be an id or a name"))?;
                found.push((text.to_owned(), at));
            }
        }
        Some(_) => return Err(Error::invalid(format!("source.{many}"), "must be an array of ids or names")),
    }
    match given(sent, one) {
        None => {}
        Some(Value::String(text)) => found.push((text.clone(), format!("source.{one}"))),
        Some(_) => return Err(Error::invalid(format!("source.{one}"), "must be an id or a name")),
    }
    Ok(found)
}

fn sources_exist(connection: &Connection, scope: &Scope, source: &Source) -> Result<()> {
    let of = if source.kind == SourceKind::Bucket { Kind::Bucket } else { Kind::Collection };
    for id in &source.ids {
        if resources::find(connection, of, scope, id)?.is_none() {
            return Err(Error::Conflict(format!(
                "the {} `{id}` that it reads from does not exist any more: change `source` first",
                of.name()
            )));
        }
    }
    Ok(())
}

/// The fields of the sources: the buckets' schemas, or what the upstream collections make. Where two define a field, the
/// first does.
fn derived_input(connection: &Connection, scope: &Scope, source: &Source) -> Result<Value> {
    let mut properties = Fields::new();
    let (of, key) = match source.kind {
        SourceKind::Bucket => (Kind::Bucket, "bucket_schema"),
        SourceKind::Collection => (Kind::Collection, "output_schema"),
        SourceKind::None => return Ok(json!({ "properties": {} })),
    };
    for id in &source.ids {
        let Some(row) = resources::find(connection, of, scope, id)? else { continue };
        let Some(schema) = row.body.get(key).filter(|s| s.get("properties").is_some()) else { continue };
        let schema = spelled(&Schema::parse(schema, key)?);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            properties.entry(name.clone()).or_insert_with(|| field.clone());
        }
    }
    Ok(json!({ "properties": properties }))
}

/// A schema with every field an object and every type in the contract's spelling, as answers must show it.
fn spelled(schema: &Schema) -> Value {
    fn field(json: &Value, known: &Field) -> Value {
        let mut spelled = json.as_object().cloned().unwrap_or_default();
        spelled.insert("type".into(), known.kind.as_str().into());
        if let (Some(inner), Some(items)) = (json.get("items"), &known.items) {
            spelled.insert("items".into(), field(inner, items));
        }
        if let (Some(inner), Some(properties)) = (json.get("properties"), &known.properties) {
            spelled.insert("properties".into(), fields(inner, properties));
        }
        Value::Object(spelled)
    }
    fn fields(json: &Value, known: &[(String, Field)]) -> Value {
        let each = known.iter().map(|(name, known)| (name.clone(), field(&json[name], known)));
        Value::Object(each.collect())
    }
    let mut json = schema.json.as_object().cloned().unwrap_or_default();
    json.insert("properties".into(), fields(&schema.json["properties"], &schema.fields));
    Value::Object(json)
}

/// What the extractor makes of the input, and the fields that only documents told of.
fn output(extractor: Option<&Configured>, input_schema: &Value, synced: &Fields) -> Result<Value> {
    let input = Schema::parse(input_schema, "input_schema")?;
    let mut schema = match extractor {
        Some(extractor) => extractor.output_schema(&input)?,
        None => json!({ "properties": input.json["properties"] }),
    };
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, field) in synced {
            properties.entry(name.clone()).or_insert_with(|| field.clone());
        }
    }
    Ok(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_shown_in_one_spelling() {
        let sent = json!({ "properties": { "title": "String", "tags": { "type": "ARRAY", "items": "text", "description": "d" } } });
        let shown = spelled(&Schema::parse(&sent, "s").unwrap());
        let tags = json!({ "type": "array", "items": { "type": "text" }, "description": "d" });
        assert_eq!(shown, json!({ "properties": { "title": { "type": "string" }, "tags": tags } }));
    }

    #[test]
    fn names_have_bounds() {
        for good in ["abc", "Two words", &"x".repeat(100)] {
            assert!(checked_name(&json!(good)).is_ok(), "{good}");
        }
        for wrong in [json!("ab"), json!("x".repeat(101)), json!(" abc"), json!("a\nb"), json!(7)] {
            assert!(checked_name(&wrong).is_err(), "{wrong}");
        }
    }
}
