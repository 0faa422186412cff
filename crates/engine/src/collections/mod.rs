//! Collections: what documents are made from, by which extractor, and which vectors they carry.
//!
//! A collection is a row whose body holds what the API shows, and beside it, under keys that begin with `_`, what only
//! the engine reads. The schema and the vectors of its documents are known before any document exists.

mod answers;
mod settings;
mod sync;
mod vectors;

pub use answers::{DeletedCollection, Reconciled};
pub use strata_store::catalog::lineage::{MissingObject, Reconciliation, Removed};
pub use sync::{SyncOutcome, Synced};
pub(crate) use vectors::{MAX_INDEXES as MAX_VECTOR_INDEXES, parse as parse_vectors};

use crate::extract::{Configured, Custom, Description};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::{Error, Fields, Result, Scope, feature::VectorIndex, filter::Filter, schema::Schema};
use strata_store::catalog::{
    lineage,
    resources::{self, Kind, Resource},
    rusqlite::Connection,
};

/// Private key of a collection's body: its [`VectorIndex`]es.
pub(crate) const VECTORS: &str = "_vectors";
/// Private key: the vector indexes that the caller brought, beside the extractor's.
const BROUGHT: &str = "_brought";
/// Private key: the input schema as the caller sent it; absent where it follows from the sources.
const SENT_INPUT: &str = "_input_schema";
/// Private key: fields that were found in documents and that no schema foresaw.
const SYNCED: &str = "_synced";
/// Private key: what a custom extractor said of itself.
const CUSTOM: &str = "_extractor";

/// What a collection reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    Bucket,
    Collection,
    /// Documents are created directly.
    None,
}

/// The source of a collection.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub kind: SourceKind,
    /// The type as the caller wrote it: `bucket`, `collection`, `none`, `direct_upsert` or `signals`.
    pub written: String,
    /// Buckets or collections.
    pub ids: Vec<String>,
    /// The filter that inputs must satisfy, as JSON that [`Filter::parse`] reads; null where there is none.
    pub source_filters: Value,
    /// What else the caller sent.
    pub rest: Fields,
}

impl Source {
    /// The filter that inputs must satisfy.
    pub fn filter(&self) -> Result<Filter> {
        Filter::parse(&self.source_filters, "source.source_filters")
    }

    /// The source as answers show it.
    pub fn to_json(&self) -> Value {
        let mut json = self.rest.clone();
        json.insert("type".into(), self.written.clone().into());
        match self.kind {
            SourceKind::Bucket => {
                json.insert("bucket_ids".into(), json!(self.ids));
            }
            SourceKind::Collection => {
                let only = if self.ids.len() == 1 { json!(self.ids[0]) } else { Value::Null };
                json.insert("collection_id".into(), only);
                json.insert("collection_ids".into(), json!(self.ids));
            }
            SourceKind::None => {}
        }
        if !self.source_filters.is_null() {
            json.insert("source_filters".into(), json!({ "filters": self.source_filters }));
        }
        Value::Object(json)
    }
}

/// A collection, understood.
#[derive(Clone)]
pub struct Collection {
    pub id: String,
    pub namespace_id: String,
    pub name: String,
    pub description: Option<String>,
    pub source: Source,
    /// `None` where documents are only created directly.
    pub extractor: Option<Configured>,
    pub input_schema: Value,
    pub output_schema: Value,
    /// Every vector its documents may carry: the extractor's, then those the caller brings.
    pub vector_indexes: Vec<VectorIndex>,
    pub enabled: bool,
    pub disabled_reason: Value,
    pub schema_version: i64,
    pub last_schema_sync: Option<String>,
    /// Settings kept as sent: `metadata`, `taxonomy_applications` and the like.
    pub kept: Fields,
    pub created_at: String,
    pub updated_at: String,
    brought: Vec<VectorIndex>,
    sent_input: Value,
    synced: Fields,
    /// What the index learned of the fields, carried through rewrites.
    private: Fields,
}

/// A custom extractor as a collection has it: later registrations of the same name and version make the same.
#[derive(Serialize, Deserialize)]
struct Registered {
    extractor_id: String,
    description: Description,
}

/// Reads a private key of a body; its default where it is absent.
pub(crate) fn private<T: serde::de::DeserializeOwned + Default>(body: &Fields, key: &str) -> Result<T> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|e| Error::internal(format!("a collection's `{key}` cannot be read: {e}"))),
    }
}

impl Collection {
    pub(crate) fn from_row(row: Resource) -> Result<Self> {
        let mut body = row.body;
        let mut take = |key: &str| body.remove(key).unwrap_or(Value::Null);
        let text = |value: Value| value.as_str().map(str::to_owned);
        let (description, extractor, source) = (text(take("description")), take("feature_extractor"), take("source"));
        let (input_schema, output_schema) = (take("input_schema"), take("output_schema"));
        let (enabled, disabled_reason) = (take("enabled").as_bool().unwrap_or(true), take("disabled_reason"));
        let schema_version = take("schema_version").as_i64().unwrap_or(1);
        let last_schema_sync = text(take("last_schema_sync"));
        let private_of = |body: &mut Fields, key: &str| body.remove(key).unwrap_or(Value::Null);
        let vector_indexes = private(&body, VECTORS)?;
        let brought = private(&body, BROUGHT)?;
        let synced = private(&body, SYNCED)?;
        let custom: Vec<Arc<Custom>> = match private::<Option<Registered>>(&body, CUSTOM)? {
            Some(Registered { extractor_id, description }) => {
                vec![Arc::new(Custom::new(&extractor_id, description).map_err(Error::internal)?)]
            }
            None => Vec::new(),
        };
        for key in [VECTORS, BROUGHT, SYNCED, CUSTOM] {
            private_of(&mut body, key);
        }
        let sent_input = private_of(&mut body, SENT_INPUT);
        let (private, kept) = body.into_iter().partition(|(key, _)| key.starts_with('_'));
        Ok(Self {
            extractor: match extractor {
                Value::Null => None,
                json => Some(
                    Configured::parse(&json, &custom, "feature_extractor")
                        .map_err(|e| Error::internal(format!("collection `{}`: {e}", row.id)))?,
                ),
            },
            source: stored_source(source),
            id: row.id,
            namespace_id: row.namespace_id,
            name: row.name,
            description,
            input_schema,
            output_schema,
            vector_indexes,
            enabled,
            disabled_reason,
            schema_version,
            last_schema_sync,
            kept,
            created_at: row.created_at,
            updated_at: row.updated_at,
            brought,
            sent_input,
            synced,
            private,
        })
    }

    pub(crate) fn to_row(&self) -> Result<Resource> {
        let mut body = self.kept.clone();
        body.extend(self.private.clone());
        for (key, value) in [
            ("description", json!(self.description)),
            ("source", self.source.to_json()),
            ("feature_extractor", self.extractor.as_ref().map_or(Value::Null, Configured::to_json)),
            ("input_schema", self.input_schema.clone()),
            ("output_schema", self.output_schema.clone()),
            ("enabled", json!(self.enabled)),
            ("disabled_reason", self.disabled_reason.clone()),
            ("schema_version", json!(self.schema_version)),
            ("last_schema_sync", json!(self.last_schema_sync)),
            (VECTORS, serde_json::to_value(&self.vector_indexes).map_err(Error::internal)?),
            (BROUGHT, serde_json::to_value(&self.brought).map_err(Error::internal)?),
            (SYNCED, Value::Object(self.synced.clone())),
            (SENT_INPUT, self.sent_input.clone()),
        ] {
            body.insert(key.to_owned(), value);
        }
        if let Some(custom) = self.extractor.as_ref().and_then(|extractor| extractor.definition.custom()) {
            let registered =
                Registered { extractor_id: custom.extractor_id.clone(), description: custom.description.clone() };
            body.insert(CUSTOM.into(), serde_json::to_value(registered).map_err(Error::internal)?);
        }
        Ok(Resource {
            id: self.id.clone(),
            namespace_id: self.namespace_id.clone(),
            name: self.name.clone(),
            body,
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        })
    }

    /// Adds vectors that callers bring. Their names are new.
    pub(crate) fn bring(&mut self, more: Vec<VectorIndex>) {
        self.brought.extend(more.iter().cloned());
        self.vector_indexes.extend(more);
    }

    /// Lets a model embed what is searched for in a vector that callers bring.
    pub(crate) fn embed_with(&mut self, vector: &str, model: &str) {
        let all = self.brought.iter_mut().chain(&mut self.vector_indexes);
        all.filter(|index| index.name == vector).for_each(|index| model.clone_into(&mut index.model));
    }

    /// The id of the extractor that makes its documents; of direct creation where it has none.
    pub fn extractor_id(&self) -> String {
        self.extractor.as_ref().map_or_else(|| "direct_upsert".to_owned(), |e| e.definition.id())
    }

    /// The vector index that a caller means by `name`: a name, a feature URI, a model or an alias.
    pub fn vector_index(&self, name: &str) -> Option<&VectorIndex> {
        let exact = self.vector_indexes.iter().find(|v| v.name == name);
        exact.or_else(|| self.vector_indexes.iter().find(|v| v.answers_to(name)))
    }

    /// The schema of its inputs.
    pub fn input(&self) -> Result<Schema> {
        Schema::parse(&self.input_schema, "input_schema")
    }

    /// The collection as filters and sorts of lists see it.
    pub fn view(&self) -> Fields {
        let mut view = self.kept.clone();
        for (key, value) in [
            ("collection_id", json!(self.id)),
            ("collection_name", json!(self.name)),
            ("description", json!(self.description)),
            ("source", self.source.to_json()),
            ("feature_extractor", self.extractor.as_ref().map_or(Value::Null, Configured::to_json)),
            ("enabled", json!(self.enabled)),
            ("schema_version", json!(self.schema_version)),
            ("created_at", json!(self.created_at)),
            ("updated_at", json!(self.updated_at)),
        ] {
            view.insert(key.to_owned(), value);
        }
        view
    }
}

/// A source as [`Source::to_json`] wrote it.
fn stored_source(json: Value) -> Source {
    let Value::Object(mut rest) = json else { return no_source() };
    let written = rest.remove("type").and_then(|t| t.as_str().map(str::to_owned)).unwrap_or_else(|| "none".to_owned());
    let ids = |value: Option<Value>| -> Vec<String> {
        let list = value.and_then(|v| v.as_array().cloned()).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (buckets, collections) = (ids(rest.remove("bucket_ids")), ids(rest.remove("collection_ids")));
    rest.remove("collection_id");
    let source_filters = bare_filters(rest.remove("source_filters"));
    let (kind, ids) = match written.as_str() {
        "bucket" => (SourceKind::Bucket, buckets),
        "collection" => (SourceKind::Collection, collections),
        _ => (SourceKind::None, Vec::new()),
    };
    Source { kind, written, ids, source_filters, rest }
}

/// What `source_filters` holds, without the `filters` around it.
fn bare_filters(sent: Option<Value>) -> Value {
    match sent {
        Some(Value::Object(mut map)) if map.contains_key("filters") => map.remove("filters").unwrap_or_default(),
        other => other.unwrap_or_default(),
    }
}

/// The source of a collection whose documents are created directly.
fn no_source() -> Source {
    Source {
        kind: SourceKind::None,
        written: "none".into(),
        ids: Vec::new(),
        source_filters: Value::Null,
        rest: Fields::new(),
    }
}

/// A new collection from what a caller sent.
pub(crate) fn assemble_collection(
    connection: &Connection,
    scope: &Scope,
    request: &Fields,
    id: &str,
    now: &str,
) -> Result<Collection> {
    settings::assemble(connection, scope, None, request, id, now)
}

/// A collection with another extractor, as `feature_extractor` has it; what follows from that is worked out again.
pub(crate) fn with_extractor(
    connection: &Connection,
    scope: &Scope,
    current: &Collection,
    extractor: &Value,
    now: &str,
) -> Result<Collection> {
    let request = Fields::from_iter([("feature_extractor".to_owned(), extractor.clone())]);
    settings::assemble(connection, scope, Some(current), &request, &current.id, now)
}

/// A collection of the scope by id or name.
pub(crate) fn load_collection(connection: &Connection, scope: &Scope, identifier: &str) -> Result<Collection> {
    Collection::from_row(resources::get(connection, Kind::Collection, scope, identifier)?)
}

/// The enabled collections that read from a collection.
pub(crate) fn downstream(connection: &Connection, collection_id: &str) -> Result<Vec<Collection>> {
    lineage::readers(connection, collection_id)?.into_iter().map(Collection::from_row).collect()
}

/// The enabled collections that read from a bucket.
pub(crate) fn readers_of_bucket(connection: &Connection, scope: &Scope, bucket_id: &str) -> Result<Vec<Collection>> {
    let readers = lineage::readers(connection, bucket_id)?;
    readers.into_iter().filter(|r| r.namespace_id == scope.namespace_id).map(Collection::from_row).collect()
}
