//! The rows of one namespace as values that can be kept and written again: in another namespace under other ids, or
//! where they were.
//!
//! A row is a JSON object of column and value, as the catalog has it: JSON columns are texts. Vectors go with their
//! document. What a reader does not know of a row it passes over, and what a row lacks is null, so rows outlive changes
//! of the schema that add columns.

use super::{
    access, artifacts, documents, from_sql,
    objects::{self, ObjectBlob},
    payload,
};
use rusqlite::{
    Connection, Row, Transaction, params, params_from_iter,
    types::{Value as SqlValue, ValueRef},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strata_model::{Error, Fields, Result, Scope};

/// Key of a document's row under which its vectors are.
const VECTORS: &str = "vectors";

/// Which rows. What refers to others comes after them in [`Table::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    Namespaces,
    Extractors,
    NamespaceModels,
    Buckets,
    Collections,
    CollectionSources,
    Retrievers,
    Objects,
    Documents,
    Derivations,
    EvaluationDatasets,
    Annotations,
    AnnotationRevisions,
    Interactions,
}

impl Table {
    pub const ALL: [Self; 14] = [
        Self::Namespaces,
        Self::Extractors,
        Self::NamespaceModels,
        Self::Buckets,
        Self::Collections,
        Self::CollectionSources,
        Self::Retrievers,
        Self::Objects,
        Self::Documents,
        Self::Derivations,
        Self::EvaluationDatasets,
        Self::Annotations,
        Self::AnnotationRevisions,
        Self::Interactions,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Extractors => "extractors",
            Self::NamespaceModels => "namespace_models",
            Self::Buckets => "buckets",
            Self::Collections => "collections",
            Self::CollectionSources => "collection_sources",
            Self::Retrievers => "retrievers",
            Self::Objects => "objects",
            Self::Documents => "documents",
            Self::Derivations => "derivations",
            Self::EvaluationDatasets => "evaluation_datasets",
            Self::Annotations => "annotations",
            Self::AnnotationRevisions => "annotation_revisions",
            Self::Interactions => "interactions",
        }
    }

    /// The column that names a row for others.
    pub fn key(self) -> Option<&'static str> {
        match self {
            Self::Namespaces => Some("namespace_id"),
            Self::Extractors => Some("extractor_id"),
            Self::Buckets => Some("bucket_id"),
            Self::Collections => Some("collection_id"),
            Self::Retrievers => Some("retriever_id"),
            Self::Objects => Some("object_id"),
            Self::Documents => Some("document_id"),
            Self::Derivations => Some("derivation_id"),
            Self::EvaluationDatasets => Some("dataset_id"),
            Self::Annotations => Some("annotation_id"),
            Self::Interactions => Some("interaction_id"),
            Self::NamespaceModels | Self::CollectionSources | Self::AnnotationRevisions => None,
        }
    }

    /// The columns that hold ids: alone, in a path, or somewhere in JSON.
    pub fn references(self) -> &'static [&'static str] {
        match self {
            Self::Namespaces => &[],
            Self::AnnotationRevisions => &["annotation_id"],
            Self::Extractors => &["extractor_id", "namespace_id"],
            Self::NamespaceModels => &["namespace_id"],
            Self::Buckets => &["bucket_id", "namespace_id", "body"],
            Self::Collections => &["collection_id", "namespace_id", "body"],
            Self::CollectionSources => &["collection_id", "source_id"],
            Self::Retrievers => &["retriever_id", "namespace_id", "body"],
            Self::Objects => &["object_id", "namespace_id", "bucket_id", "body"],
            Self::Documents => &[
                "document_id",
                "namespace_id",
                "collection_id",
                "root_object_id",
                "root_bucket_id",
                "source_collection_id",
                "source_document_id",
                "source_object_id",
                "lineage_path",
                "lineage_chain",
                "internal_metadata",
                "derivation_id",
            ],
            Self::Derivations => &["derivation_id", "namespace_id", "collection_id", "input_id", "root_object_id"],
            Self::EvaluationDatasets => &["dataset_id", "namespace_id", "body"],
            Self::Annotations => {
                &["annotation_id", "namespace_id", "document_id", "collection_id", "retriever_id", "fields"]
            }
            Self::Interactions => &["interaction_id", "namespace_id", "retriever_id", "feature_id", "fields", "traced"],
        }
    }

    /// The columns that are written.
    fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Namespaces => &[],
            Self::Extractors => &["extractor_id", "namespace_id", "name", "body", "created_at", "updated_at"],
            Self::NamespaceModels => &["namespace_id", "model_id", "enabled_at"],
            Self::Buckets => &["bucket_id", "namespace_id", "name", "body", "created_at", "updated_at"],
            Self::Collections => {
                &["collection_id", "namespace_id", "name", "enabled", "body", "created_at", "updated_at"]
            }
            Self::CollectionSources => &["collection_id", "source_kind", "source_id"],
            Self::Retrievers => &["retriever_id", "namespace_id", "name", "body", "created_at", "updated_at"],
            Self::Objects => &[
                "object_id",
                "namespace_id",
                "bucket_id",
                "key_prefix",
                "status",
                "error",
                "content_hash",
                "unique_key",
                "idempotency_key",
                "fields",
                "blobs",
                "body",
                "created_at",
                "updated_at",
            ],
            Self::Documents => &[
                "document_id",
                "namespace_id",
                "collection_id",
                "root_object_id",
                "root_bucket_id",
                "source_type",
                "source_collection_id",
                "source_document_id",
                "source_object_id",
                "lineage_path",
                "lineage_chain",
                "fields",
                "source_blobs",
                "document_blobs",
                "internal_metadata",
                "content_hash",
                "derivation_id",
                "derived_key",
                "ordinal",
                "created_at",
                "updated_at",
            ],
            Self::Derivations => &[
                "derivation_id",
                "namespace_id",
                "collection_id",
                "tier",
                "input_kind",
                "input_id",
                "root_object_id",
                "input_hash",
                "extractor_id",
                "extractor_fingerprint",
                "status",
                "attempts",
                "crashes",
                "lease_until",
                "error",
                "error_type",
                "outputs",
                "reused",
                "created_at",
                "started_at",
                "finished_at",
                "duration_ms",
            ],
            Self::EvaluationDatasets => &["dataset_id", "namespace_id", "name", "body", "created_at", "updated_at"],
            Self::Annotations => &[
                "annotation_id",
                "namespace_id",
                "document_id",
                "collection_id",
                "label",
                "actor_id",
                "retriever_id",
                "version",
                "fields",
                "created_at",
                "updated_at",
            ],
            Self::AnnotationRevisions => {
                &["annotation_id", "version", "prior", "edited_at", "edited_by", "edited_by_type"]
            }
            Self::Interactions => &[
                "interaction_id",
                "namespace_id",
                "retriever_id",
                "execution_id",
                "session_id",
                "user_id",
                "feature_id",
                "types",
                "occurred_at",
                "timestamp",
                "fields",
                "traced",
            ],
        }
    }

    /// The rows of a namespace, or of one of its buckets or collections, in an order that an index has, so that none are
    /// gathered to be sorted. Work that was under way is as it was before, or ended; what is being processed waits to be
    /// processed.
    fn select(self) -> &'static str {
        match self {
            Self::Namespaces => "SELECT namespace_id, name, body FROM namespaces WHERE namespace_id = ?1",
            Self::Extractors => "SELECT * FROM extractors WHERE namespace_id = ?1 ORDER BY created_at, extractor_id",
            Self::NamespaceModels => "SELECT * FROM namespace_models WHERE namespace_id = ?1 ORDER BY model_id",
            Self::Buckets => "SELECT * FROM buckets WHERE namespace_id = ?1 ORDER BY created_at, bucket_id",
            Self::Collections => "SELECT * FROM collections WHERE namespace_id = ?1 ORDER BY created_at, collection_id",
            Self::CollectionSources => {
                "SELECT s.* FROM collection_sources s JOIN collections c ON c.collection_id = s.collection_id
                 WHERE c.namespace_id = ?1 ORDER BY s.collection_id, s.source_id"
            }
            Self::Retrievers => "SELECT * FROM retrievers WHERE namespace_id = ?1 ORDER BY created_at, retriever_id",
            Self::Objects => {
                "SELECT o.*, CASE WHEN o.status IN ('PENDING', 'QUEUED', 'IN_PROGRESS', 'PROCESSING') THEN 'DRAFT'
                   ELSE o.status END AS status
                 FROM objects o WHERE o.bucket_id = ?1 ORDER BY o.created_at, o.object_id"
            }
            Self::Documents => {
                "SELECT d.*, x.input_id AS derived_from, x.extractor_id AS derived_by
                 FROM documents d LEFT JOIN derivations x ON x.derivation_id = d.derivation_id
                 WHERE d.collection_id = ?1 ORDER BY d.seq"
            }
            Self::Derivations => {
                "SELECT x.*, 0 AS lease_until, CASE WHEN x.status NOT IN ('pending', 'running') THEN x.status
                   WHEN x.input_hash IS NULL THEN 'canceled' ELSE 'completed' END AS status
                 FROM derivations x WHERE x.collection_id = ?1 ORDER BY x.input_id"
            }
            Self::EvaluationDatasets => {
                "SELECT * FROM evaluation_datasets WHERE namespace_id = ?1 ORDER BY created_at, dataset_id"
            }
            Self::Annotations => "SELECT * FROM annotations WHERE namespace_id = ?1 ORDER BY seq",
            Self::AnnotationRevisions => {
                "SELECT r.* FROM annotation_revisions r JOIN annotations a ON a.annotation_id = r.annotation_id
                 WHERE a.namespace_id = ?1 ORDER BY a.seq, r.version"
            }
            Self::Interactions => "SELECT * FROM interactions WHERE namespace_id = ?1 ORDER BY seq",
        }
    }
}

/// Hands every row of a table that belongs to the scope to `visit`, one at a time; documents with their vectors if
/// `with_vectors` says so.
pub fn each(
    connection: &Connection,
    scope: &Scope,
    table: Table,
    with_vectors: bool,
    mut visit: impl FnMut(Fields) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare_cached(table.select()).map_err(from_sql)?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    for parent in parents(connection, scope, table)? {
        let mut found = statement.query([&parent]).map_err(from_sql)?;
        while let Some(row) = found.next().map_err(from_sql)? {
            let mut fields = read(row, &names)?;
            let seq = fields.remove("seq").and_then(|seq| seq.as_i64());
            if let Some(seq) = seq.filter(|_| table == Table::Documents && with_vectors) {
                fields.insert(VECTORS.into(), vectors(connection, seq)?.into());
            }
            visit(fields)?;
        }
    }
    Ok(())
}

/// What the rows of a table are asked for by.
fn parents(connection: &Connection, scope: &Scope, table: Table) -> Result<Vec<String>> {
    let sql = match table {
        Table::Objects => "SELECT bucket_id FROM buckets WHERE namespace_id = ?1 ORDER BY created_at, bucket_id",
        Table::Documents | Table::Derivations => {
            "SELECT collection_id FROM collections WHERE namespace_id = ?1 ORDER BY created_at, collection_id"
        }
        _ => return Ok(vec![scope.namespace_id.clone()]),
    };
    documents::rows(connection, sql, &[&scope.namespace_id], |r| r.get(0))
}

/// Of columns with the same name the last one counts.
fn read(row: &Row<'_>, names: &[String]) -> Result<Fields> {
    let mut fields = Fields::new();
    for (at, name) in names.iter().enumerate() {
        let value = match row.get_ref(at).map_err(from_sql)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(whole) => whole.into(),
            ValueRef::Real(real) => real.into(),
            ValueRef::Text(text) => std::str::from_utf8(text).map_err(Error::internal)?.into(),
            ValueRef::Blob(bytes) => hex::encode(bytes).into(),
        };
        fields.insert(name.clone(), value);
    }
    Ok(fields)
}

fn vectors(connection: &Connection, seq: i64) -> Result<Vec<Value>> {
    let sql = "SELECT name, kind, data FROM vectors WHERE document_seq = ?1 ORDER BY name";
    documents::rows(connection, sql, &[seq], |r| {
        let data: Vec<u8> = r.get(2)?;
        Ok(json!([r.get::<_, String>(0)?, r.get::<_, String>(1)?, hex::encode(data)]))
    })
}

/// The contents that a row refers to.
pub fn contents(table: Table, row: &Fields) -> Result<Vec<String>> {
    match table {
        Table::Objects => Ok(blobs(row)?.into_iter().map(|blob| blob.hash).collect()),
        Table::Documents => {
            let list: Vec<Value> = parsed(row, "document_blobs")?;
            Ok(artifacts::hashes(&list).map(str::to_owned).collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn blobs(row: &Fields) -> Result<Vec<ObjectBlob>> {
    parsed(row, "blobs")
}

/// A column that holds JSON.
fn parsed<T: serde::de::DeserializeOwned>(row: &Fields, column: &str) -> Result<T> {
    let text = row.get(column).and_then(Value::as_str).unwrap_or_default();
    serde_json::from_str(text).map_err(|e| Error::Conflict(format!("`{column}` of a kept row cannot be read: {e}")))
}

/// Writes a row as it is, and what the catalog keeps beside it.
///
/// Errors: `Conflict` where the row is not what rows of the table are, or names what is not there.
pub fn insert(tx: &Transaction<'_>, table: Table, row: &Fields) -> Result<()> {
    let columns = table.columns();
    if columns.is_empty() {
        return Ok(());
    }
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("?{n}")).collect();
    let sql = format!("INSERT INTO {} ({}) VALUES ({})", table.name(), columns.join(", "), places.join(", "));
    let values = columns.iter().map(|column| to_sql(row.get(*column))).collect::<Result<Vec<SqlValue>>>()?;
    let number = tx.prepare_cached(&sql).and_then(|mut s| s.insert(params_from_iter(values))).map_err(from_sql)?;
    match table {
        Table::Objects => refer(tx, row),
        Table::Documents => complete_document(tx, number, row),
        _ => Ok(()),
    }
}

fn to_sql(value: Option<&Value>) -> Result<SqlValue> {
    match value {
        None | Some(Value::Null) => Ok(SqlValue::Null),
        Some(Value::Bool(truth)) => Ok(SqlValue::Integer((*truth).into())),
        Some(Value::String(text)) => Ok(SqlValue::Text(text.clone())),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Ok(SqlValue::Integer(whole)),
            (None, Some(real)) => Ok(SqlValue::Real(real)),
            (None, None) => Err(Error::Conflict("a number of a kept row cannot be read".into())),
        },
        Some(Value::Array(_) | Value::Object(_)) => Err(Error::Conflict("a kept row has a value of no column".into())),
    }
}

/// The references of an object to its contents.
fn refer(tx: &Transaction<'_>, row: &Fields) -> Result<()> {
    let text = |column: &str| row.get(column).and_then(Value::as_str).unwrap_or_default();
    for blob in blobs(row)? {
        objects::put_blob(tx, &blob.hash, blob.size_bytes, &blob.media_type, text("updated_at"))?;
        tx.prepare_cached("INSERT INTO object_blobs (object_id, blob_id, hash) VALUES (?1, ?2, ?3)")
            .and_then(|mut s| s.execute(params![text("object_id"), blob.blob_id, blob.hash]))
            .map_err(from_sql)?;
    }
    Ok(())
}

/// Vectors, who reads it, artifacts, entries of payload indexes, the count and the change that the index follows.
fn complete_document(tx: &Transaction<'_>, seq: i64, row: &Fields) -> Result<()> {
    let wrong = || Error::Conflict("a kept vector cannot be read".into());
    for vector in row.get(VECTORS).and_then(Value::as_array).into_iter().flatten() {
        let text = |at: usize| vector.get(at).and_then(Value::as_str).ok_or_else(wrong);
        let data = hex::decode(text(2)?).map_err(|_| wrong())?;
        tx.prepare_cached("INSERT INTO vectors (document_seq, name, kind, data) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut s| s.execute(params![seq, text(0).ok(), text(1).ok(), data]))
            .map_err(from_sql)?;
    }
    let collection = row.get("collection_id").and_then(Value::as_str).unwrap_or_default();
    access::restrict(tx, seq, &parsed::<Fields>(row, "internal_metadata")?)?;
    artifacts::add(tx, seq, &parsed::<Vec<Value>>(row, "document_blobs")?)?;
    payload::add(tx, collection, seq, &parsed::<Fields>(row, "fields")?)?;
    documents::counted(tx, collection, 1)?;
    documents::note(tx, collection, seq, false).map(drop)
}

/// Removes what is in a namespace, but for its retrievers, whose keys and publications go with them.
pub fn clear(tx: &Transaction<'_>, scope: &Scope) -> Result<()> {
    let run = |sql: &str| tx.execute(sql, [&scope.namespace_id]).map(drop).map_err(from_sql);
    run("UPDATE tasks SET status = 'CANCELED' WHERE batch_id IN
         (SELECT batch_id FROM batches WHERE namespace_id = ?1 AND status = 'QUEUED')")?;
    run("DELETE FROM changes WHERE collection_id IN (SELECT collection_id FROM collections WHERE namespace_id = ?1)")?;
    for table in
        ["collections", "batches", "buckets", "extractors", "namespace_models", "experiments", "evaluation_datasets"]
    {
        run(&format!("DELETE FROM {table} WHERE namespace_id = ?1"))?;
    }
    run("DELETE FROM annotations WHERE namespace_id = ?1")?;
    run("DELETE FROM interactions WHERE namespace_id = ?1")
}

/// Removes the retrievers of a namespace that are not among `kept`, and frees the names of those that are.
pub fn clear_retrievers(tx: &Transaction<'_>, scope: &Scope, kept: &[String]) -> Result<()> {
    let kept = serde_json::to_string(kept).map_err(Error::internal)?;
    let sql =
        "DELETE FROM retrievers WHERE namespace_id = ?1 AND retriever_id NOT IN (SELECT value FROM json_each(?2))";
    tx.execute(sql, [&scope.namespace_id, &kept]).map_err(from_sql)?;
    let sql = "UPDATE retrievers SET name = retriever_id WHERE namespace_id = ?1";
    tx.execute(sql, [&scope.namespace_id]).map(drop).map_err(from_sql)
}

/// [`insert`] of a retriever that may be there.
pub fn put_retriever(tx: &Transaction<'_>, row: &Fields) -> Result<()> {
    let text = |column: &str| row.get(column).and_then(Value::as_str).unwrap_or_default();
    let sql = "UPDATE retrievers SET name = ?3, body = ?4, created_at = ?5, updated_at = ?6
         WHERE retriever_id = ?1 AND namespace_id = ?2";
    let values = ["retriever_id", "namespace_id", "name", "body", "created_at", "updated_at"].map(text);
    match tx.execute(sql, values).map_err(from_sql)? {
        0 => insert(tx, Table::Retrievers, row),
        _ => Ok(()),
    }
}

/// Whether the organization still has a model that a kept row enables.
pub fn has_model(connection: &Connection, organization_id: &str, model_id: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM org_models WHERE model_id = ?1 AND organization_id = ?2";
    connection.prepare_cached(sql).and_then(|mut s| s.exists([model_id, organization_id])).map_err(from_sql)
}
