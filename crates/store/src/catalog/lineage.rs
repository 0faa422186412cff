//! What comes from what: which collections read from a bucket or a collection, what descends from a document or an
//! object, and removals that count what went.

use super::{
    access,
    browse::{self, Selection},
    documents::{self, from_json_column},
    filter::Clause,
    from_sql,
    objects::ObjectBlob,
    resources::Resource,
    webhooks::{self, Event},
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter, types::Value as SqlValue};
use std::collections::{BTreeMap, HashSet};
use strata_model::{Error, Fields, Result, Scope, filter::Filter};

const COLLECTION: &str =
    "SELECT c.collection_id, c.namespace_id, c.name, c.body, c.created_at, c.updated_at FROM collections c";

fn collection_row(row: &Row<'_>) -> rusqlite::Result<Resource> {
    Ok(Resource {
        id: row.get(0)?,
        namespace_id: row.get(1)?,
        name: row.get(2)?,
        body: from_json_column(row, 3)?,
        created_at: row.get(4)?,
        updated_at: row.get(5)?,
    })
}

fn many<T>(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql).map_err(from_sql)?;
    let found = statement.query_map(values, read).map_err(from_sql)?;
    found.collect::<rusqlite::Result<_>>().map_err(from_sql)
}

fn run(tx: &Transaction<'_>, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)
}

// Collections and their sources

/// A collection by its id alone, for background work that starts from a row of its own.
pub fn collection(connection: &Connection, collection_id: &str) -> Result<Option<Resource>> {
    let found = many(connection, &format!("{COLLECTION} WHERE c.collection_id = ?1"), [collection_id], collection_row)?;
    Ok(found.into_iter().next())
}

/// The body of a namespace's row.
pub fn namespace_body(connection: &Connection, namespace_id: &str) -> Result<Option<Fields>> {
    connection
        .prepare_cached("SELECT body FROM namespaces WHERE namespace_id = ?1")
        .and_then(|mut s| s.query_row([namespace_id], |r| from_json_column(r, 0)).optional())
        .map_err(from_sql)
}

/// Makes `source_ids` all that a collection reads from; `kind` is `bucket` or `collection`.
pub fn put_sources(tx: &Transaction<'_>, collection_id: &str, kind: &str, source_ids: &[String]) -> Result<()> {
    run(tx, "DELETE FROM collection_sources WHERE collection_id = ?1", [collection_id])?;
    for id in source_ids {
        run(
            tx,
            "INSERT OR IGNORE INTO collection_sources (collection_id, source_kind, source_id) VALUES (?1, ?2, ?3)",
            [collection_id, kind, id],
        )?;
    }
    Ok(())
}

/// Whether derivations run for a collection.
pub fn set_enabled(tx: &Transaction<'_>, collection_id: &str, enabled: bool) -> Result<()> {
    run(tx, "UPDATE collections SET enabled = ?2 WHERE collection_id = ?1", params![collection_id, enabled]).map(drop)
}

/// The enabled collections that read from a bucket or a collection, oldest first. A collection reads from its own
/// namespace only.
pub fn readers(connection: &Connection, source_id: &str) -> Result<Vec<Resource>> {
    let sql = format!(
        "{COLLECTION} JOIN collection_sources s ON s.collection_id = c.collection_id
         WHERE s.source_id = ?1 AND c.enabled ORDER BY c.created_at, c.collection_id"
    );
    many(connection, &sql, [source_id], collection_row)
}

/// `source_ids` and everything above them: the collections and buckets that they read from, through any number of others.
pub fn upstream(connection: &Connection, source_ids: &[String]) -> Result<Vec<String>> {
    let roots = serde_json::to_string(source_ids).map_err(Error::internal)?;
    let sql = "WITH RECURSIVE above(id) AS (
            SELECT value FROM json_each(?1)
            UNION SELECT s.source_id FROM collection_sources s JOIN above a ON s.collection_id = a.id
        ) SELECT id FROM above";
    many(connection, sql, [roots], |r| r.get(0))
}

// Documents and their descendants

/// Sequence numbers of the documents that descend from these, themselves left out, ascending; whoever may read them.
pub fn descendants(connection: &Connection, scope: &Scope, document_ids: &[String]) -> Result<Vec<i64>> {
    let roots = serde_json::to_string(document_ids).map_err(Error::internal)?;
    let sql = "WITH RECURSIVE below(seq, id) AS (
            SELECT d.seq, d.document_id FROM json_each(?1) r JOIN documents d ON d.source_document_id = r.value
            WHERE d.namespace_id = ?2
            UNION
            SELECT d.seq, d.document_id FROM below b JOIN documents d ON d.source_document_id = b.id
            WHERE d.namespace_id = ?2
        ) SELECT seq FROM below WHERE id NOT IN (SELECT value FROM json_each(?1)) ORDER BY seq";
    many(connection, sql, [&roots, &scope.namespace_id], |r| r.get(0))
}

/// Sequence numbers of the documents at most `depth` levels below one that the scope's reader sees, and to which what it
/// sees leads, ascending. Of more than `limit` the nearest are kept, and of those that are as near the oldest.
pub fn below(
    connection: &Connection,
    scope: &Scope,
    document_id: &str,
    depth: usize,
    limit: usize,
) -> Result<Vec<i64>> {
    let readable = access::and_readable(scope, "d");
    let sql = format!(
        "SELECT d.seq, d.document_id FROM json_each(?) r JOIN documents d ON d.source_document_id = r.value
         WHERE d.namespace_id = ?{} ORDER BY d.seq LIMIT ?",
        readable.sql
    );
    // Imports may name parents that come later, and so go in circles.
    let mut known = HashSet::from([document_id.to_owned()]);
    let (mut level, mut seqs) = (vec![document_id.to_owned()], Vec::new());
    for _ in 0..depth {
        let parents = serde_json::to_string(&level).map_err(Error::internal)?;
        let most = (limit + known.len()) as i64;
        let mut values = vec![SqlValue::Text(parents), SqlValue::Text(scope.namespace_id.clone())];
        values.extend(readable.values.iter().cloned());
        values.push(most.into());
        let found =
            many(connection, &sql, params_from_iter(values), |r| Ok((r.get::<_, i64>(0)?, r.get::<_, String>(1)?)))?;
        level.clear();
        for (seq, id) in found {
            if known.insert(id.clone()) {
                seqs.push(seq);
                level.push(id);
            }
        }
        if level.is_empty() || seqs.len() >= limit {
            break;
        }
    }
    seqs.truncate(limit);
    seqs.sort_unstable();
    Ok(seqs)
}

/// The bucket of an object of the scope; `None` where there is no such object.
pub fn bucket_of(connection: &Connection, scope: &Scope, object_id: &str) -> Result<Option<String>> {
    connection
        .prepare_cached("SELECT bucket_id FROM objects WHERE object_id = ?1 AND namespace_id = ?2")
        .and_then(|mut s| s.query_row([object_id, &scope.namespace_id], |r| r.get(0)).optional())
        .map_err(from_sql)
}

/// What of an object's decomposition is done, failed and still to do, by collection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TierCounts {
    pub collection_id: String,
    pub tier: i64,
    pub documents: i64,
    pub pending: i64,
    pub running: i64,
    pub completed: i64,
    pub failed: i64,
    pub canceled: i64,
}

/// The decomposition of an object, topmost tier first. Collections that hold documents of it by direct creation have no
/// derivations and count as the tier that their lineage path says.
pub fn decomposition(connection: &Connection, scope: &Scope, object_id: &str) -> Result<Vec<TierCounts>> {
    let mut found: BTreeMap<String, TierCounts> = BTreeMap::new();
    let counts = many(
        connection,
        "SELECT collection_id, min(tier), sum(status = 'pending'), sum(status = 'running'), sum(status = 'completed'),
         sum(status = 'failed'), sum(status = 'canceled')
         FROM derivations WHERE (root_object_id = ?1 OR input_id = ?1) AND namespace_id = ?2 GROUP BY collection_id",
        [object_id, &scope.namespace_id],
        |r| {
            Ok(TierCounts {
                collection_id: r.get(0)?,
                tier: r.get(1)?,
                documents: 0,
                pending: r.get(2)?,
                running: r.get(3)?,
                completed: r.get(4)?,
                failed: r.get(5)?,
                canceled: r.get(6)?,
            })
        },
    )?;
    for count in counts {
        found.insert(count.collection_id.clone(), count);
    }
    let Clause { sql, values } = of_object(scope, object_id);
    let sql = format!(
        "SELECT collection_id, count(*), min(length(lineage_path) - length(replace(lineage_path, '/', '')))
         FROM documents WHERE {sql} GROUP BY collection_id"
    );
    let documents = many(connection, &sql, params_from_iter(values), |r| {
        Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?, r.get::<_, Option<i64>>(2)?))
    })?;
    for (collection, documents, depth) in documents {
        let tier = depth.unwrap_or(1).max(1);
        let entry = found.entry(collection.clone()).or_insert_with(|| TierCounts {
            collection_id: collection,
            tier,
            ..TierCounts::default()
        });
        entry.documents = documents;
    }
    let mut tiers: Vec<_> = found.into_values().collect();
    tiers.sort_by(|a, b| (a.tier, &a.collection_id).cmp(&(b.tier, &b.collection_id)));
    Ok(tiers)
}

/// That a document comes from an object, and is there for the scope's reader.
pub(super) fn of_object(scope: &Scope, object_id: &str) -> Clause {
    let own = [object_id, &scope.namespace_id].map(|text| SqlValue::Text(text.to_owned()));
    let mut clause = Clause { sql: "root_object_id = ? AND namespace_id = ?".into(), values: own.to_vec() };
    clause.and(access::readable(scope, "documents"));
    clause
}

/// The blobs of several objects of the scope, by object.
pub fn blobs_of(
    connection: &Connection,
    scope: &Scope,
    object_ids: &[String],
) -> Result<BTreeMap<String, Vec<ObjectBlob>>> {
    let ids = serde_json::to_string(object_ids).map_err(Error::internal)?;
    let sql = "SELECT object_id, blobs FROM objects
        WHERE object_id IN (SELECT value FROM json_each(?1)) AND namespace_id = ?2";
    let found = many(connection, sql, [&ids, &scope.namespace_id], |r| Ok((r.get(0)?, from_json_column(r, 1)?)))?;
    Ok(found.into_iter().collect())
}

/// A document of an object, by ids alone: its collection, its own id, and the document it was made from.
pub type Member = (String, String, Option<String>);

/// The documents that come from an object and are there for the scope's reader, oldest first.
pub fn members(connection: &Connection, scope: &Scope, object_id: &str, limit: usize) -> Result<Vec<Member>> {
    let Clause { sql, mut values } = of_object(scope, object_id);
    values.push((limit as i64).into());
    let sql = format!(
        "SELECT collection_id, document_id, source_document_id FROM documents WHERE {sql} ORDER BY seq LIMIT ?"
    );
    many(connection, &sql, params_from_iter(values), |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
}

// Removal

/// What a removal took away from one collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    pub documents: i64,
    pub vectors: i64,
    /// Artifacts that documents carried.
    pub blobs: i64,
    /// Of fields and vectors, as they were stored.
    pub bytes: i64,
}

const SIZES: &str = "SELECT d.collection_id, count(*), coalesce(sum(v.vectors), 0),
    coalesce(sum(json_array_length(d.document_blobs)), 0),
    coalesce(sum(length(CAST(d.fields AS BLOB)) + coalesce(v.bytes, 0)), 0)
    FROM documents d LEFT JOIN (SELECT document_seq, count(*) AS vectors, sum(length(data)) AS bytes FROM vectors";

fn removed_row(row: &Row<'_>) -> rusqlite::Result<(String, Removed)> {
    let removed = Removed { documents: row.get(1)?, vectors: row.get(2)?, blobs: row.get(3)?, bytes: row.get(4)? };
    Ok((row.get(0)?, removed))
}

/// What a removal took, by collection, and the last change of each collection, which the index must reach.
pub type Removal = (BTreeMap<String, Removed>, Vec<(String, i64)>);

/// Removes documents of the scope by sequence number, and the derivations that had them as input.
pub fn remove(tx: &Transaction<'_>, scope: &Scope, seqs: &[i64]) -> Result<Removal> {
    let list = serde_json::to_string(seqs).map_err(Error::internal)?;
    let sql = format!(
        "{SIZES} WHERE document_seq IN (SELECT value FROM json_each(?1)) GROUP BY document_seq) v ON v.document_seq = d.seq
         WHERE d.seq IN (SELECT value FROM json_each(?1)) AND d.namespace_id = ?2 GROUP BY d.collection_id"
    );
    let counts = many(tx, &sql, [&list, &scope.namespace_id], removed_row)?;
    run(
        tx,
        "DELETE FROM derivations WHERE input_kind = 'document' AND input_id IN (SELECT document_id FROM documents
         WHERE seq IN (SELECT value FROM json_each(?1)) AND namespace_id = ?2)",
        [&list, &scope.namespace_id],
    )?;
    let own = many(
        tx,
        "SELECT seq FROM documents WHERE seq IN (SELECT value FROM json_each(?1)) AND namespace_id = ?2",
        [&list, &scope.namespace_id],
        |r| r.get(0),
    )?;
    Ok((counts.into_iter().collect(), documents::remove(tx, &own)?))
}

/// Removes a collection with its documents, changes and derivations; answers what its documents were, and how many
/// derivations went.
pub fn remove_collection(tx: &Transaction<'_>, scope: &Scope, collection_id: &str) -> Result<(Removed, i64)> {
    let sql = format!(
        "{SIZES} WHERE document_seq IN (SELECT seq FROM documents WHERE collection_id = ?1) GROUP BY document_seq) v
         ON v.document_seq = d.seq WHERE d.collection_id = ?1 AND d.namespace_id = ?2 GROUP BY d.collection_id"
    );
    let counts = many(tx, &sql, [collection_id, &scope.namespace_id], removed_row)?;
    webhooks::queue(
        tx,
        &Event::new("collection.deleted", &scope.namespace_id),
        || serde_json::json!({ "collection_id": collection_id }),
    )?;
    let derivations = run(tx, "DELETE FROM derivations WHERE collection_id = ?1", [collection_id])?;
    run(tx, "DELETE FROM changes WHERE collection_id = ?1", [collection_id])?;
    run(
        tx,
        "DELETE FROM collections WHERE collection_id = ?1 AND namespace_id = ?2",
        [collection_id, &scope.namespace_id],
    )?;
    Ok((counts.into_iter().next().map(|(_, r)| r).unwrap_or_default(), derivations as i64))
}

// Reconciliation and diagnosis

/// Objects of a collection's source buckets, and which of them it has documents of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciliation {
    pub source_objects: i64,
    pub produced_objects: i64,
    pub documents: i64,
    pub missing: Vec<MissingObject>,
}

/// An object without documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingObject {
    pub object_id: String,
    pub bucket_id: String,
    /// Of its derivation, where there is one.
    pub status: Option<String>,
    pub error: Option<String>,
    pub created_at: String,
}

/// Compares the objects of `bucket_ids` with the documents of a collection; lists at most `limit` missing ones.
pub fn reconcile(
    connection: &Connection,
    scope: &Scope,
    collection_id: &str,
    bucket_ids: &[String],
    limit: usize,
) -> Result<Reconciliation> {
    let buckets = serde_json::to_string(bucket_ids).map_err(Error::internal)?;
    let one = |sql: &str, values: &[&str]| -> Result<i64> {
        let found = many(connection, sql, rusqlite::params_from_iter(values), |r| r.get(0))?;
        Ok(found.first().copied().unwrap_or(0))
    };
    let objects = "FROM objects o WHERE o.bucket_id IN (SELECT value FROM json_each(?1)) AND o.namespace_id = ?2";
    let has = "EXISTS (SELECT 1 FROM documents d WHERE d.root_object_id = o.object_id AND d.collection_id = ?3)";
    let missing = format!(
        "SELECT o.object_id, o.bucket_id, x.status, x.error, o.created_at FROM objects o
         LEFT JOIN derivations x ON x.collection_id = ?3 AND x.input_id = o.object_id
         WHERE o.bucket_id IN (SELECT value FROM json_each(?1)) AND o.namespace_id = ?2 AND NOT {has}
         ORDER BY o.created_at, o.object_id LIMIT ?4"
    );
    Ok(Reconciliation {
        source_objects: one(&format!("SELECT count(*) {objects}"), &[&buckets, &scope.namespace_id])?,
        produced_objects: one(
            &format!("SELECT count(*) {objects} AND {has}"),
            &[&buckets, &scope.namespace_id, collection_id],
        )?,
        documents: browse::count(connection, scope, Selection::of(Some(collection_id), &Filter::all()))?,
        missing: many(connection, &missing, params![buckets, scope.namespace_id, collection_id, limit as i64], |r| {
            Ok(MissingObject {
                object_id: r.get(0)?,
                bucket_id: r.get(1)?,
                status: r.get(2)?,
                error: r.get(3)?,
                created_at: r.get(4)?,
            })
        })?,
    })
}

/// A derivation that touched an input: collection, status, error, when it finished or was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    pub derivation_id: String,
    pub collection_id: String,
    pub input_id: String,
    pub status: String,
    pub error: Option<String>,
    pub at: String,
}

/// The derivations that had one of `inputs` as input, newest first.
pub fn touches(connection: &Connection, scope: &Scope, inputs: &[String]) -> Result<Vec<Touch>> {
    let inputs = serde_json::to_string(inputs).map_err(Error::internal)?;
    let sql = "SELECT derivation_id, collection_id, input_id, status, error, coalesce(finished_at, created_at)
        FROM derivations WHERE input_id IN (SELECT value FROM json_each(?1)) AND namespace_id = ?2
        ORDER BY coalesce(finished_at, created_at) DESC LIMIT 100";
    many(connection, sql, [&inputs, &scope.namespace_id], |r| {
        Ok(Touch {
            derivation_id: r.get(0)?,
            collection_id: r.get(1)?,
            input_id: r.get(2)?,
            status: r.get(3)?,
            error: r.get(4)?,
            at: r.get(5)?,
        })
    })
}

// Requests that are sent twice

/// What an earlier request of the same key was (a hash) and what it answered.
pub fn earlier_request(connection: &Connection, scope: &str, key: &str) -> Result<Option<(String, String)>> {
    connection
        .prepare_cached("SELECT request, response FROM idempotency WHERE scope = ?1 AND key = ?2")
        .and_then(|mut s| s.query_row([scope, key], |r| Ok((r.get(0)?, r.get(1)?))).optional())
        .map_err(from_sql)
}

/// Keeps an answer for the request's repeats.
pub fn keep_request(
    tx: &Transaction<'_>,
    scope: &str,
    key: &str,
    request: &str,
    response: &str,
    now: &str,
) -> Result<()> {
    run(
        tx,
        "INSERT INTO idempotency (scope, key, request, response, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        [scope, key, request, response, now],
    )
    .map(drop)
}
