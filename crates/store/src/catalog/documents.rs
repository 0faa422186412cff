//! Rows of documents, their vectors, and the `changes` that the index follows.

use super::{
    access, artifacts,
    browse::{self, Selection},
    filter::Clause,
    from_sql,
    payload::{self, Place},
    webhooks::{self, Event},
};
use rusqlite::{
    Connection, OptionalExtension, Row, ToSql, Transaction, params, params_from_iter, types::Value as SqlValue,
};
use std::collections::HashMap;
use strata_model::{
    Error, Fields, Result, Scope,
    document::{Document, Lineage, SYSTEM_FIELDS, SourceType, VectorValue, Vectors},
    filter::Filter,
};

pub(super) const COLUMNS: &str = "seq, document_id, collection_id, root_object_id, root_bucket_id, source_type, source_collection_id, \
     source_document_id, source_object_id, lineage_path, lineage_chain, fields, source_blobs, document_blobs, \
     internal_metadata, content_hash, derivation_id, created_at, updated_at";

/// How a list of documents is cut.
#[derive(Debug, Clone)]
pub struct Page {
    pub limit: usize,
    pub offset: usize,
    /// Only documents after this one: what makes lists stable while others write.
    pub after: Option<Mark>,
    /// Field and whether descending; `None` is creation order.
    pub sort: Option<(String, bool)>,
}

/// Where a document stands in a list, whether it is still there or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub seq: i64,
    /// In the order by a field; `None` in creation order.
    pub place: Option<Place>,
}

impl Mark {
    /// Of `document` in a list that is sorted by `sort`.
    pub fn of(document: &Document, sort: Option<&str>) -> Self {
        let place = |field: &str| match SYSTEM_FIELDS.iter().position(|system| *system == field) {
            Some(at) => Place::of_text(document.system_values()[at]),
            None => Place::in_order(&document.fields, field),
        };
        Self { seq: document.seq, place: sort.map(place) }
    }
}

/// Writes a document whole, replacing one of the same id in the same collection. Without an access list it keeps the one
/// that is there, or takes that of the document it was made from. Answers its sequence number, and the number of the change
/// that the index must reach. [`Error::Forbidden`] where the one that is there may not be changed.
pub fn put(
    tx: &Transaction<'_>,
    scope: &Scope,
    document: &Document,
    ordinal: usize,
    vectors: &Vectors,
) -> Result<(i64, i64)> {
    let known: Option<(i64, String, Option<String>)> = tx
        .prepare_cached(
            "SELECT seq, collection_id, internal_metadata -> '$._acl' FROM documents
             WHERE namespace_id = ?1 AND document_id = ?2",
        )
        .and_then(|mut s| {
            let key = [&scope.namespace_id, &document.document_id];
            s.query_row(key, |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()
        })
        .map_err(from_sql)?;
    let Some((seq, collection, list)) = known else { return add_at(tx, scope, document, ordinal, vectors) };
    let list = access::parsed(list)?;
    access::check(scope, list.as_ref(), &document.document_id)?;
    if collection != document.collection_id {
        let message = format!("document id `{}` is taken in collection `{collection}`", document.document_id);
        return Err(Error::Conflict(message));
    }
    let listed = access::with_list(document, list);
    let document = &*listed;
    payload::replace(tx, &document.collection_id, seq, &document.fields)?;
    update(tx, seq, document, ordinal)?;
    artifacts::replace(tx, seq, &document.document_blobs)?;
    put_vectors(tx, seq, vectors)?;
    tell(tx, "document.updated", &scope.namespace_id, document)?;
    Ok((seq, changed(tx, &document.collection_id, seq, false)?))
}

/// [`put`] of a document whose id is not there yet.
pub fn add(tx: &Transaction<'_>, scope: &Scope, document: &Document, vectors: &Vectors) -> Result<(i64, i64)> {
    add_at(tx, scope, document, 0, vectors)
}

/// Tells whoever wants it what became of a document.
fn tell(tx: &Transaction<'_>, event_type: &'static str, namespace_id: &str, document: &Document) -> Result<()> {
    webhooks::queue(tx, &Event::new(event_type, namespace_id), || {
        serde_json::json!({
            "document_id": document.document_id,
            "collection_id": document.collection_id,
            "root_object_id": document.lineage.root_object_id,
        })
    })
}

/// Writes a new row and what comes with it. A sequence number is never used again, so there is nothing of it yet.
fn add_at(
    tx: &Transaction<'_>,
    scope: &Scope,
    document: &Document,
    ordinal: usize,
    vectors: &Vectors,
) -> Result<(i64, i64)> {
    let listed = access::with_list(document, access::inherited(tx, scope, document)?);
    let document = &*listed;
    let seq = insert(tx, scope, document, ordinal)?;
    insert_vectors(tx, seq, vectors)?;
    artifacts::add(tx, seq, &document.document_blobs)?;
    payload::add(tx, &document.collection_id, seq, &document.fields)?;
    counted(tx, &document.collection_id, 1)?;
    tell(tx, "document.created", &scope.namespace_id, document)?;
    Ok((seq, note(tx, &document.collection_id, seq, false)?))
}

/// Notes that a collection has `more` documents.
pub(super) fn counted(tx: &Transaction<'_>, collection_id: &str, more: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO document_counts (collection_id, documents) VALUES (?1, ?2)
         ON CONFLICT (collection_id) DO UPDATE SET documents = documents + excluded.documents",
    )
    .and_then(|mut s| s.execute(params![collection_id, more]))
    .map(drop)
    .map_err(from_sql)
}

/// Makes `vectors` all that a document has.
fn put_vectors(tx: &Transaction<'_>, seq: i64, vectors: &Vectors) -> Result<()> {
    tx.prepare_cached("DELETE FROM vectors WHERE document_seq = ?1")
        .and_then(|mut s| s.execute([seq]))
        .map_err(from_sql)?;
    insert_vectors(tx, seq, vectors)
}

fn insert_vectors(tx: &Transaction<'_>, seq: i64, vectors: &Vectors) -> Result<()> {
    for (name, vector) in vectors {
        let (kind, data) = encode_vector(vector)?;
        tx.prepare_cached("INSERT INTO vectors (document_seq, name, kind, data) VALUES (?1, ?2, ?3, ?4)")
            .and_then(|mut s| s.execute(params![seq, name, kind, data]))
            .map_err(from_sql)?;
    }
    Ok(())
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(Error::internal)
}

fn insert(tx: &Transaction<'_>, scope: &Scope, d: &Document, ordinal: usize) -> Result<i64> {
    let (l, readers) = (&d.lineage, access::readers(d)?);
    tx.prepare_cached(
        "INSERT INTO documents (document_id, namespace_id, collection_id, root_object_id, root_bucket_id, source_type,
         source_collection_id, source_document_id, source_object_id, lineage_path, lineage_chain, fields, source_blobs,
         document_blobs, internal_metadata, content_hash, derivation_id, ordinal, created_at, updated_at, readers)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
    )
    .and_then(|mut s| {
        s.insert(params![
            d.document_id,
            scope.namespace_id,
            d.collection_id,
            l.root_object_id,
            l.root_bucket_id,
            l.source_type.map(SourceType::as_str),
            l.source_collection_id,
            l.source_document_id,
            l.source_object_id,
            l.path,
            json(&l.chain).unwrap_or_default(),
            json(&d.fields).unwrap_or_default(),
            json(&d.source_blobs).unwrap_or_default(),
            json(&d.document_blobs).unwrap_or_default(),
            json(&d.internal_metadata).unwrap_or_default(),
            d.content_hash,
            d.derivation_id,
            ordinal as i64,
            d.created_at,
            d.updated_at,
            readers,
        ])
    })
    .map_err(from_sql)
}

/// Everything but the identity and `created_at`, which stay as they were.
fn update(tx: &Transaction<'_>, seq: i64, d: &Document, ordinal: usize) -> Result<()> {
    let (l, readers) = (&d.lineage, access::readers(d)?);
    tx.prepare_cached(
        "UPDATE documents SET root_object_id = ?2, root_bucket_id = ?3, source_type = ?4, source_collection_id = ?5,
         source_document_id = ?6, source_object_id = ?7, lineage_path = ?8, lineage_chain = ?9, fields = ?10,
         source_blobs = ?11, document_blobs = ?12, internal_metadata = ?13, content_hash = ?14, derivation_id = ?15,
         ordinal = ?16, updated_at = ?17, readers = ?18 WHERE seq = ?1",
    )
    .and_then(|mut s| {
        s.execute(params![
            seq,
            l.root_object_id,
            l.root_bucket_id,
            l.source_type.map(SourceType::as_str),
            l.source_collection_id,
            l.source_document_id,
            l.source_object_id,
            l.path,
            json(&l.chain).unwrap_or_default(),
            json(&d.fields).unwrap_or_default(),
            json(&d.source_blobs).unwrap_or_default(),
            json(&d.document_blobs).unwrap_or_default(),
            json(&d.internal_metadata).unwrap_or_default(),
            d.content_hash,
            d.derivation_id,
            ordinal as i64,
            d.updated_at,
            readers,
        ])
    })
    .map(drop)
    .map_err(from_sql)
}

/// Records the newest change of a document; answers its sequence number.
pub(super) fn changed(tx: &Transaction<'_>, collection_id: &str, document_seq: i64, deleted: bool) -> Result<i64> {
    tx.prepare_cached("DELETE FROM changes WHERE document_seq = ?1")
        .and_then(|mut s| s.execute([document_seq]))
        .map_err(from_sql)?;
    note(tx, collection_id, document_seq, deleted)
}

/// Records the first change of a document.
pub(super) fn note(tx: &Transaction<'_>, collection_id: &str, document_seq: i64, deleted: bool) -> Result<i64> {
    tx.prepare_cached("INSERT INTO changes (collection_id, document_seq, deleted) VALUES (?1, ?2, ?3)")
        .and_then(|mut s| s.insert(params![collection_id, document_seq, deleted]))
        .map_err(from_sql)
}

/// Writes what the extractor of a document knows it by, and its id was made of.
pub fn set_key(tx: &Transaction<'_>, seq: i64, key: &str) -> Result<()> {
    tx.prepare_cached("UPDATE documents SET derived_key = ?2 WHERE seq = ?1 AND derived_key IS NOT ?2")
        .and_then(|mut s| s.execute(params![seq, key]))
        .map(drop)
        .map_err(from_sql)
}

/// What the extractor of a document knows it by, where it has a word for it.
pub fn key(connection: &Connection, seq: i64) -> Result<Option<String>> {
    connection
        .prepare_cached("SELECT derived_key FROM documents WHERE seq = ?1")
        .and_then(|mut s| s.query_row([seq], |r| r.get(0)).optional())
        .map(Option::flatten)
        .map_err(from_sql)
}

/// Removes documents by sequence number; answers the last change of each collection touched.
pub fn remove(tx: &Transaction<'_>, seqs: &[i64]) -> Result<Vec<(String, i64)>> {
    let mut touched: Vec<(String, i64)> = Vec::new();
    for seq in seqs {
        let sql = "DELETE FROM documents WHERE seq = ?1
             RETURNING collection_id, fields, namespace_id, document_id, root_object_id";
        let gone: Option<(String, String, String, String, Option<String>)> = tx
            .prepare_cached(sql)
            .and_then(|mut s| {
                let read = |r: &Row<'_>| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?));
                s.query_row([seq], read).optional()
            })
            .map_err(from_sql)?;
        let Some((collection, fields, namespace_id, document_id, root_object_id)) = gone else { continue };
        webhooks::queue(tx, &Event::new("document.deleted", &namespace_id), || {
            serde_json::json!({
                "document_id": document_id,
                "collection_id": collection,
                "root_object_id": root_object_id,
            })
        })?;
        payload::remove(tx, &collection, *seq, &fields)?;
        counted(tx, &collection, -1)?;
        let change = changed(tx, &collection, *seq, true)?;
        touched.retain(|(id, _)| *id != collection);
        touched.push((collection, change));
    }
    Ok(touched)
}

/// One document of the scope, by id; in one collection if that is given.
pub fn get(connection: &Connection, scope: &Scope, collection_id: Option<&str>, document_id: &str) -> Result<Document> {
    let Clause { sql, values } = named(scope, collection_id, document_id);
    let found = rows(connection, &format!("SELECT {COLUMNS} FROM documents WHERE {sql}"), &values, document)?;
    found.into_iter().next().ok_or_else(|| Error::missing("document", document_id))
}

/// That a row is the document of this id, in one collection if that is given, and there for the scope's reader.
fn named(scope: &Scope, collection_id: Option<&str>, document_id: &str) -> Clause {
    let collection = collection_id.map_or(SqlValue::Null, |id| SqlValue::Text(id.to_owned()));
    let [id, namespace] = [document_id, &scope.namespace_id].map(|text| SqlValue::Text(text.to_owned()));
    let mut clause = Clause {
        sql: "document_id = ? AND namespace_id = ? AND (? IS NULL OR collection_id = ?)".into(),
        values: vec![id, namespace, collection.clone(), collection],
    };
    clause.and(access::readable(scope, "documents"));
    clause
}

/// Whether the scope has a document, by id; in one collection if that is given.
pub fn exists(connection: &Connection, scope: &Scope, collection_id: Option<&str>, document_id: &str) -> Result<bool> {
    let Clause { sql, values } = named(scope, collection_id, document_id);
    connection
        .prepare_cached(&format!("SELECT 1 FROM documents WHERE {sql}"))
        .and_then(|mut s| s.exists(params_from_iter(values)))
        .map_err(from_sql)
}

/// Documents by sequence number, in the order asked; those that are gone, another namespace's, or kept from the scope's
/// reader are left out.
pub fn fetch(connection: &Connection, scope: &Scope, seqs: &[i64]) -> Result<Vec<Document>> {
    let Clause { sql, values } = access::and_readable(scope, "documents");
    let sql = format!("SELECT {COLUMNS} FROM documents WHERE seq = ? AND namespace_id = ?{sql}");
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let mut found = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let own = [SqlValue::from(*seq), SqlValue::Text(scope.namespace_id.clone())];
        let bound = params_from_iter(own.iter().chain(&values));
        found.extend(statement.query_row(bound, document).optional().map_err(from_sql)?);
    }
    Ok(found)
}

/// Documents that satisfy `filter`, in one collection or, without one, in the namespace.
pub fn list(
    connection: &Connection,
    scope: &Scope,
    collection_id: Option<&str>,
    filter: &Filter,
    page: &Page,
) -> Result<Vec<Document>> {
    browse::select(connection, scope, Selection::of(collection_id, filter), page, COLUMNS, document)
}

/// The first `limit` documents of a collection that satisfy `filter` and that searches find, in creation order:
/// soft-deleted ones take no place among them.
pub fn findable(
    connection: &Connection,
    scope: &Scope,
    collection_id: &str,
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Document>> {
    let page = Page { limit, offset: 0, after: None, sort: None };
    let selection = Selection::of(Some(collection_id), filter).findable();
    browse::select(connection, scope, selection, &page, COLUMNS, document)
}

/// The sequence numbers of all documents that satisfy `filter`: what the index searches among when it cannot answer
/// the filter itself.
pub fn seqs(connection: &Connection, scope: &Scope, collection_id: Option<&str>, filter: &Filter) -> Result<Vec<i64>> {
    browse::seqs(connection, scope, Selection::of(collection_id, filter))
}

pub(super) fn rows<T>(
    connection: &Connection,
    sql: &str,
    values: &[impl ToSql],
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(params_from_iter(values), read).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// The vectors of a document by name.
pub fn vectors(connection: &Connection, seq: i64) -> Result<Vectors> {
    let mut statement =
        connection.prepare_cached("SELECT name, kind, data FROM vectors WHERE document_seq = ?1").map_err(from_sql)?;
    let found = statement
        .query_map([seq], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, Vec<u8>>(2)?)))
        .map_err(from_sql)?;
    let mut vectors = Vectors::new();
    for row in found {
        let (name, kind, data) = row.map_err(from_sql)?;
        vectors.insert(name, decode_vector(&kind, &data)?);
    }
    Ok(vectors)
}

fn encode_vector(vector: &VectorValue) -> Result<(&'static str, Vec<u8>)> {
    Ok(match vector {
        VectorValue::Dense(numbers) => ("dense", numbers.iter().flat_map(|x| x.to_le_bytes()).collect()),
        VectorValue::Multi(_) => ("multi", serde_json::to_vec(vector).map_err(Error::internal)?),
        VectorValue::Sparse { .. } => ("sparse", serde_json::to_vec(vector).map_err(Error::internal)?),
    })
}

fn decode_vector(kind: &str, data: &[u8]) -> Result<VectorValue> {
    match kind {
        "dense" => Ok(VectorValue::Dense(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())),
        _ => serde_json::from_slice(data).map_err(Error::internal),
    }
}

/// A change of the index's feed: sequence number, document, and the document unless it was deleted.
pub struct Change {
    pub seq: i64,
    pub document_seq: i64,
    pub document: Option<Document>,
}

/// The changes of a collection after `after`, oldest first.
pub fn changes_after(connection: &Connection, collection_id: &str, after: i64, limit: usize) -> Result<Vec<Change>> {
    let columns = COLUMNS.replace("seq, document_id, collection_id", "d.seq, d.document_id, d.collection_id");
    let sql = format!(
        "SELECT {columns}, c.seq, c.document_seq FROM changes c LEFT JOIN documents d ON d.seq = c.document_seq
         WHERE c.collection_id = ?1 AND c.seq > ?2 ORDER BY c.seq LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let found = statement
        .query_map(params![collection_id, after, limit as i64], |r| {
            let present: Option<i64> = r.get(0)?;
            let document = present.map(|_| document(r)).transpose()?;
            Ok(Change { seq: r.get(19)?, document_seq: r.get(20)?, document })
        })
        .map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

/// The newest change of a collection; 0 when it has none.
pub fn head(connection: &Connection, collection_id: &str) -> Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM changes WHERE collection_id = ?1")
        .and_then(|mut s| s.query_row([collection_id], |r| r.get(0)))
        .map_err(from_sql)
}

pub(super) fn document(row: &Row<'_>) -> rusqlite::Result<Document> {
    Ok(Document {
        seq: row.get(0)?,
        document_id: row.get(1)?,
        collection_id: row.get(2)?,
        lineage: Lineage {
            root_object_id: row.get(3)?,
            root_bucket_id: row.get(4)?,
            source_type: row.get::<_, Option<String>>(5)?.as_deref().and_then(SourceType::parse),
            source_collection_id: row.get(6)?,
            source_document_id: row.get(7)?,
            source_object_id: row.get(8)?,
            path: row.get(9)?,
            chain: from_json_column(row, 10)?,
        },
        fields: from_json_column::<Fields>(row, 11)?,
        source_blobs: from_json_column(row, 12)?,
        document_blobs: from_json_column(row, 13)?,
        internal_metadata: from_json_column(row, 14)?,
        content_hash: row.get(15)?,
        derivation_id: row.get(16)?,
        created_at: row.get(17)?,
        updated_at: row.get(18)?,
    })
}

/// A JSON column.
pub fn from_json_column<T: serde::de::DeserializeOwned>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(at)?.as_str()?;
    serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(e)))
}

/// The vectors of several documents, by sequence number; none of those that are another namespace's, or kept from the
/// scope's reader.
pub fn vectors_of(connection: &Connection, scope: &Scope, seqs: &[i64]) -> Result<HashMap<i64, Vectors>> {
    read_vectors(connection, &their_vectors(scope, seqs)?)
}

/// The same of any documents: what the index holds of every namespace, whoever reads it there.
pub fn vectors_to_index(connection: &Connection, seqs: &[i64]) -> Result<HashMap<i64, Vectors>> {
    read_vectors(connection, &any_vectors(seqs)?)
}

fn read_vectors(connection: &Connection, clause: &Clause) -> Result<HashMap<i64, Vectors>> {
    let sql = format!("SELECT document_seq, name, kind, data FROM vectors WHERE {}", clause.sql);
    let read = |r: &Row<'_>| {
        Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?, r.get::<_, String>(2)?, r.get::<_, Vec<u8>>(3)?))
    };
    let mut found: HashMap<i64, Vectors> = HashMap::new();
    for (seq, name, kind, data) in rows(connection, &sql, &clause.values, read)? {
        found.entry(seq).or_default().insert(name, decode_vector(&kind, &data)?);
    }
    Ok(found)
}

/// The names of the vectors of several documents, by sequence number; none of those that are another namespace's, or
/// kept from the scope's reader.
pub fn vector_names_of(connection: &Connection, scope: &Scope, seqs: &[i64]) -> Result<HashMap<i64, Vec<String>>> {
    let clause = their_vectors(scope, seqs)?;
    let sql = format!("SELECT document_seq, name FROM vectors WHERE {} ORDER BY name", clause.sql);
    let mut found: HashMap<i64, Vec<String>> = HashMap::new();
    for (seq, name) in rows(connection, &sql, &clause.values, |r| Ok((r.get(0)?, r.get(1)?)))? {
        found.entry(seq).or_default().push(name);
    }
    Ok(found)
}

/// That a vector is one of these documents'.
fn any_vectors(seqs: &[i64]) -> Result<Clause> {
    Ok(Clause {
        sql: "document_seq IN (SELECT value FROM json_each(?))".into(),
        values: vec![SqlValue::Text(json(&seqs)?)],
    })
}

/// [`any_vectors`], where the document is there for the scope's reader. Asked of each vector's document by its key, so
/// that no list of a namespace's documents is walked.
fn their_vectors(scope: &Scope, seqs: &[i64]) -> Result<Clause> {
    let mut clause = any_vectors(seqs)?;
    let Clause { sql, values } = access::and_readable(scope, "documents");
    clause.and(Clause {
        sql: format!(
            "EXISTS (SELECT 1 FROM documents WHERE documents.seq = vectors.document_seq
             AND documents.namespace_id = ?{sql})"
        ),
        values: std::iter::once(SqlValue::Text(scope.namespace_id.clone())).chain(values).collect(),
    });
    Ok(clause)
}

/// Writes what may change of a document that is there: its fields, artifacts, metadata, content hash and, where
/// `vectors` is given, its vectors. Answers the number of the change that the index must reach.
pub fn rewrite(tx: &Transaction<'_>, document: &Document, vectors: Option<&Vectors>) -> Result<i64> {
    let values = params![
        document.seq,
        json(&document.fields)?,
        json(&document.source_blobs)?,
        json(&document.document_blobs)?,
        json(&document.internal_metadata)?,
        document.content_hash,
        document.updated_at,
        access::readers(document)?,
    ];
    payload::replace(tx, &document.collection_id, document.seq, &document.fields)?;
    let namespace_id: Option<String> = tx
        .prepare_cached(
            "UPDATE documents SET fields = ?2, source_blobs = ?3, document_blobs = ?4, internal_metadata = ?5,
             content_hash = ?6, updated_at = ?7, readers = ?8 WHERE seq = ?1 RETURNING namespace_id",
        )
        .and_then(|mut s| s.query_row(values, |r| r.get(0)).optional())
        .map_err(from_sql)?;
    if let Some(namespace_id) = namespace_id {
        tell(tx, "document.updated", &namespace_id, document)?;
    }
    artifacts::replace(tx, document.seq, &document.document_blobs)?;
    if let Some(vectors) = vectors {
        put_vectors(tx, document.seq, vectors)?;
    }
    changed(tx, &document.collection_id, document.seq, false)
}
