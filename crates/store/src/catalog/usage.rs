//! How much an organization has. Both counts are kept with what they count, so they cost as much as it has collections or
//! buckets.

use super::from_sql;
use rusqlite::Connection;
use strata_model::Result;

/// Documents of an organization.
pub fn documents(connection: &Connection, organization_id: &str) -> Result<u64> {
    let sql = "SELECT coalesce(sum(d.documents), 0)
         FROM namespaces n JOIN collections c ON c.namespace_id = n.namespace_id
         JOIN document_counts d ON d.collection_id = c.collection_id WHERE n.organization_id = ?1";
    count(connection, sql, organization_id)
}

/// Bytes of the blobs of an organization's objects; content that two of them share counts twice.
pub fn bytes(connection: &Connection, organization_id: &str) -> Result<u64> {
    let sql = "SELECT coalesce(sum(s.bytes), 0)
         FROM namespaces n JOIN buckets b ON b.namespace_id = n.namespace_id
         JOIN stored_bytes s ON s.bucket_id = b.bucket_id WHERE n.organization_id = ?1";
    count(connection, sql, organization_id)
}

fn count(connection: &Connection, sql: &str, organization_id: &str) -> Result<u64> {
    let count: i64 = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([organization_id], |row| row.get(0)))
        .map_err(from_sql)?;
    Ok(count.max(0).unsigned_abs())
}
