//! Buckets: where objects live, the schema they must fit, and the key that makes them unique.

use crate::{
    Engine,
    listing::{ListRequest, Page},
};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{
    Error, FieldError, Fields, Result, Scope, id, path,
    schema::{FieldType, Schema},
};
pub use strata_store::catalog::objects::{removal::Receipt, stats::BucketStats};
use strata_store::catalog::{
    objects::{self, removal, stats},
    resources::{self, Kind, Resource},
    rusqlite::{Connection, Transaction},
};

const STORAGE_CLASSES: [&str; 4] = ["standard", "nearline", "coldline", "archive"];
const MAX_NAME_CHARS: usize = 255;
/// Characters of a bucket's id after its prefix.
const ID_CHARS: usize = 12;

/// What to do when an object with the same unique key is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Only new ones: one that is there is a conflict.
    Insert,
    /// Only those that are there.
    Update,
    /// Either.
    Upsert,
}

impl Policy {
    pub fn parse(text: &str, at: &str) -> Result<Self> {
        match text {
            "insert" => Ok(Self::Insert),
            "update" => Ok(Self::Update),
            "upsert" => Ok(Self::Upsert),
            _ => Err(Error::invalid(at, format!("`{text}` is no policy; one of insert, update, upsert"))),
        }
    }
}

/// The fields whose values together name one object of the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueKey {
    pub fields: Vec<String>,
    pub default_policy: Option<Policy>,
}

impl UniqueKey {
    fn parse(json: &Value, schema: &Schema) -> Result<Self> {
        let fields: Vec<String> = json
            .get("fields")
            .and_then(Value::as_array)
            .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        if fields.is_empty() {
            return Err(Error::invalid("unique_key.fields", "must name at least one field"));
        }
        for (i, field) in fields.iter().enumerate() {
            let root = field.split('.').next().unwrap_or(field);
            match schema.get(field).or_else(|| schema.get(root)) {
                Some(found) if !found.kind.is_file() => {}
                Some(_) => {
                    return Err(Error::invalid(
                        format!("unique_key.fields.{i}"),
                        format!("`{field}` is a file; name a field with a plain value"),
                    ));
                }
                None => {
                    return Err(Error::invalid(
                        format!("unique_key.fields.{i}"),
                        format!("`{field}` is not in the schema, which has {}", names(schema)),
                    ));
                }
            }
        }
        let policy = json.get("default_policy").filter(|p| !p.is_null());
        let policy = policy.map(|p| Policy::parse(p.as_str().unwrap_or_default(), "unique_key.default_policy"));
        Ok(Self { fields, default_policy: policy.transpose()? })
    }

    /// The key of an object with these fields, as JSON; `None` when one of the fields is missing.
    pub fn of(&self, fields: &Fields) -> Option<String> {
        let values = self.fields.iter().map(|f| path::get_field(fields, f).filter(|v| !v.is_null()));
        let values: Option<Vec<&Value>> = values.collect();
        values.map(|v| json!(v).to_string())
    }
}

/// The names of a schema's fields, for errors.
pub(crate) fn names(schema: &Schema) -> String {
    schema.fields.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// A bucket, read.
#[derive(Debug, Clone)]
pub struct Bucket {
    pub resource: Resource,
    pub schema: Schema,
    pub unique_key: Option<UniqueKey>,
}

impl Bucket {
    fn of(resource: Resource) -> Result<Self> {
        let schema = resource.body.get("bucket_schema").cloned().unwrap_or_else(|| json!({ "properties": {} }));
        let schema = Schema::parse(&schema, "bucket_schema")?;
        let unique_key = resource.body.get("unique_key").filter(|k| !k.is_null());
        let unique_key = unique_key.map(|k| UniqueKey::parse(k, &schema)).transpose()?;
        Ok(Self { resource, schema, unique_key })
    }
    pub fn id(&self) -> &str {
        &self.resource.id
    }
}

/// By id or name.
pub(crate) fn find(connection: &Connection, scope: &Scope, identifier: &str) -> Result<Bucket> {
    Bucket::of(resources::get(connection, Kind::Bucket, scope, identifier)?)
}

/// A bucket and what it holds.
#[derive(Debug, Clone)]
pub struct BucketView {
    pub bucket: Bucket,
    pub stats: BucketStats,
}

/// What the buckets of all pages hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketSums {
    pub buckets: usize,
    pub objects: u64,
    pub size_bytes: u64,
}

/// What a new bucket is made of, or what of an old one is to change.
#[derive(Debug, Clone, Default)]
pub struct BucketSpec {
    pub name: Option<String>,
    pub description: Option<String>,
    pub schema: Option<Value>,
    pub unique_key: Option<Value>,
    pub metadata: Option<Fields>,
    pub storage_class: Option<String>,
    /// Parts of the contract that this server cannot do; any of them set is refused.
    pub unsupported: Vec<&'static str>,
}

impl BucketSpec {
    fn check(&self) -> Result<()> {
        if let Some(name) = self.unsupported.first() {
            return Err(Error::invalid(*name, "is not supported by this server; leave it out"));
        }
        if let Some(name) = &self.name
            && (name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control))
        {
            return Err(Error::invalid("bucket_name", format!("must have 1 to {MAX_NAME_CHARS} printable characters")));
        }
        match &self.storage_class {
            Some(class) if !STORAGE_CLASSES.contains(&class.as_str()) => Err(Error::invalid(
                "storage_class",
                format!("`{class}` is no storage class; one of {}", STORAGE_CLASSES.join(", ")),
            )),
            _ => Ok(()),
        }
    }

    /// Writes what is set into a bucket's body.
    fn apply(&self, body: &mut Fields) -> Result<()> {
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(key.into(), value);
            }
        };
        set("description", self.description.clone().map(Value::String));
        set("bucket_schema", self.schema.as_ref().map(|s| normal_schema(s, "bucket_schema")).transpose()?);
        set("unique_key", self.unique_key.clone());
        set("metadata", self.metadata.clone().map(Value::Object));
        set("storage_class", self.storage_class.clone().map(Value::String));
        Ok(())
    }
}

/// The schema with each field as an object whose `type` is spelled as the contract spells it.
fn normal_schema(schema: &Value, at: &str) -> Result<Value> {
    Schema::parse(schema, at)?;
    let mut schema = schema.clone();
    normal_properties(&mut schema, at)?;
    Ok(schema)
}

fn normal_properties(holder: &mut Value, at: &str) -> Result<()> {
    let Some(properties) = holder.get_mut("properties").and_then(Value::as_object_mut) else { return Ok(()) };
    for (name, field) in properties.iter_mut() {
        normal_field(field, &format!("{at}.properties.{name}"))?;
    }
    Ok(())
}

fn normal_field(field: &mut Value, at: &str) -> Result<()> {
    if let Value::String(kind) = field {
        *field = json!({ "type": kind });
    }
    let kind = field.get("type").and_then(Value::as_str).and_then(|t| FieldType::parse(&t.to_lowercase()));
    let Some(map) = field.as_object_mut() else {
        return Err(Error::invalid(at, "must be an object with `type`"));
    };
    if let Some(kind) = kind {
        map.insert("type".into(), kind.as_str().into());
    }
    type Is = fn(&Value) -> bool;
    let typed: [(&str, Is, &str); 5] = [
        ("required", Value::is_boolean, "true or false"),
        ("description", Value::is_string, "a text"),
        ("enum", Value::is_array, "an array"),
        ("examples", Value::is_array, "an array"),
        ("properties", Value::is_object, "an object"),
    ];
    for (key, is_right, what) in typed {
        if map.get(key).is_some_and(|v| !v.is_null() && !is_right(v)) {
            return Err(Error::invalid(format!("{at}.{key}"), format!("must be {what}")));
        }
    }
    if let Some(items) = map.get_mut("items").filter(|i| !i.is_null()) {
        normal_field(items, &format!("{at}.items"))?;
    }
    normal_properties(field, at)
}

/// What a new schema would break: fields that objects use and that go, change their type or become required.
fn breaks(connection: &Connection, bucket_id: &str, old: &Schema, new: &Schema) -> Result<Vec<String>> {
    let mut breaks = Vec::new();
    for (name, field) in &old.fields {
        let change = match new.get(name) {
            None => "is removed".to_owned(),
            Some(now) if now.kind != field.kind => {
                format!("changes from {} to {}", field.kind.as_str(), now.kind.as_str())
            }
            Some(_) => continue,
        };
        if stats::uses_property(connection, bucket_id, name)? {
            breaks.push(format!("`{name}`, which objects use, {change}"));
        }
    }
    for (name, field) in &new.fields {
        let was_required = old.get(name).is_some_and(|f| f.required);
        if field.required
            && !was_required
            && field.default.is_none()
            && stats::lacks_property(connection, bucket_id, name)?
        {
            breaks.push(format!("`{name}`, which some objects lack, becomes required"));
        }
    }
    Ok(breaks)
}

impl Engine {
    pub async fn create_bucket(&self, scope: &Scope, spec: BucketSpec) -> Result<BucketView> {
        spec.check()?;
        let mut missing = Vec::new();
        if spec.name.is_none() {
            missing.push(FieldError::new("bucket_name", "is required"));
        }
        if spec.schema.is_none() {
            missing.push(FieldError::new("bucket_schema", "is required: an object with `properties`"));
        }
        let (Some(name), true) = (spec.name.clone(), missing.is_empty()) else { return Err(Error::Invalid(missing)) };
        let mut body = Fields::new();
        spec.apply(&mut body)?;
        let now = self.catalog.now();
        let resource = Resource {
            id: self.catalog.new_id(id::BUCKET, ID_CHARS),
            namespace_id: scope.namespace_id.clone(),
            name,
            body,
            created_at: now.clone(),
            updated_at: now,
        };
        let bucket = Bucket::of(resource.clone())?;
        self.catalog.write(move |tx| resources::insert(tx, Kind::Bucket, &resource)).await?;
        Ok(BucketView { bucket, stats: BucketStats::default() })
    }

    /// A bucket by id or name, without what it holds, which takes a look at every object.
    pub(crate) async fn known_bucket(&self, scope: &Scope, identifier: &str) -> Result<Arc<Bucket>> {
        let key = format!("bucket {} {identifier}", scope.namespace_id);
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog.recall(key, move |connection| find(connection, &scope, &identifier)).await
    }

    /// By id or name.
    pub async fn bucket(&self, scope: &Scope, identifier: &str) -> Result<BucketView> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog.read(move |c| view(c, find(c, &scope, &identifier)?)).await
    }

    /// A page of the scope's buckets, and sums over all pages.
    pub async fn list_buckets(&self, scope: &Scope, request: ListRequest) -> Result<(Page<BucketView>, BucketSums)> {
        let scope = scope.clone();
        self.catalog
            .read(move |c| {
                let kept = request.kept(resources::list(c, Kind::Bucket, &scope)?, |r| r.view(Kind::Bucket));
                let ids: Vec<String> = kept.iter().map(|r| r.id.clone()).collect();
                let (objects, size_bytes) = stats::of_buckets(c, &ids)?;
                let page = request.cut(kept);
                let items = page.items.into_iter().map(|r| view(c, Bucket::of(r)?)).collect::<Result<_>>()?;
                let sums = BucketSums { buckets: page.total, objects, size_bytes };
                Ok((Page { items, total: page.total }, sums))
            })
            .await
    }

    /// Changes what `spec` sets. A schema that breaks objects is a conflict unless `force_schema_break`.
    pub async fn change_bucket(
        &self,
        scope: &Scope,
        identifier: &str,
        spec: BucketSpec,
        force_schema_break: bool,
    ) -> Result<BucketView> {
        spec.check()?;
        let (scope, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        self.catalog.write(move |tx| change(tx, &scope, &identifier, &spec, force_schema_break, now)).await
    }

    /// Removes a bucket, its objects and all that descends from them. While they are processed that is a conflict
    /// unless `force`.
    pub async fn delete_bucket(
        self: &Arc<Self>,
        scope: &Scope,
        identifier: &str,
        force: bool,
    ) -> Result<(String, Receipt)> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let (bucket_id, removed) = self
            .catalog
            .write(move |tx| {
                let bucket = resources::get(tx, Kind::Bucket, &scope, &identifier)?;
                if !force && stats::is_processing(tx, &bucket.id)? {
                    return Err(Error::Conflict(format!(
                        "bucket `{}` is being processed; wait, cancel its batches, or pass `force_foreclose=true`",
                        bucket.name
                    )));
                }
                let removed = removal::bucket(tx, &scope, &bucket.id)?;
                Ok((bucket.id, removed))
            })
            .await?;
        Ok((bucket_id, self.after_removal(removed).await))
    }
}

fn change(
    tx: &Transaction<'_>,
    scope: &Scope,
    identifier: &str,
    spec: &BucketSpec,
    force_schema_break: bool,
    now: String,
) -> Result<BucketView> {
    let old = find(tx, scope, identifier)?;
    let mut resource = old.resource.clone();
    if let Some(name) = &spec.name {
        resource.name.clone_from(name);
    }
    spec.apply(&mut resource.body)?;
    resource.updated_at = now;
    let new = Bucket::of(resource)?;
    if !force_schema_break {
        let breaks = breaks(tx, old.id(), &old.schema, &new.schema)?;
        if !breaks.is_empty() {
            return Err(Error::Conflict(format!(
                "the new schema does not fit the objects that are there: {}; pass `force_schema_break=true` to change it all the same",
                breaks.join("; ")
            )));
        }
    }
    if old.unique_key.as_ref().map(|k| &k.fields) != new.unique_key.as_ref().map(|k| &k.fields) {
        objects::rekey(tx, old.id(), |fields| new.unique_key.as_ref().and_then(|k| k.of(fields)))?;
    }
    resources::update(tx, Kind::Bucket, &new.resource)?;
    view(tx, new)
}

fn view(connection: &Connection, bucket: Bucket) -> Result<BucketView> {
    let stats = stats::of_bucket(connection, bucket.id())?;
    Ok(BucketView { bucket, stats })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_answered_as_the_contract_spells_them() {
        let sent = json!({ "properties": { "a": "String", "b": { "type": "ARRAY", "items": { "type": "Integer" }, "x": 1 } } });
        let normal = normal_schema(&sent, "s").unwrap();
        let wanted = json!({ "properties": { "a": { "type": "string" }, "b": { "type": "array", "items": { "type": "integer" }, "x": 1 } } });
        assert_eq!(normal, wanted);
        let odd = json!({ "properties": { "a": { "type": "string", "required": "yes" } } });
        match normal_schema(&odd, "s") {
            Err(Error::Invalid(fields)) => assert_eq!(fields[0].field, "s.properties.a.required"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unique_keys_name_fields_of_the_schema() {
        let schema = Schema::parse(&json!({ "properties": { "sku": "string", "photo": "image" } }), "s").unwrap();
        let key = UniqueKey::parse(&json!({ "fields": ["sku"], "default_policy": "upsert" }), &schema).unwrap();
        assert_eq!(key.default_policy, Some(Policy::Upsert));
        let fields = |v: Value| v.as_object().cloned().unwrap();
        assert_eq!(key.of(&fields(json!({ "sku": "a" }))).as_deref(), Some(r#"["a"]"#));
        assert_eq!(key.of(&fields(json!({ "sku": null }))), None);
        for wrong in [
            json!({ "fields": [] }),
            json!({ "fields": ["photo"] }),
            json!({ "fields": ["x"] }),
            json!({ "fields": ["sku"], "default_policy": "replace" }),
        ] {
            assert!(UniqueKey::parse(&wrong, &schema).is_err(), "{wrong}");
        }
    }
}
