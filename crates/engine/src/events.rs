//! The change feed: what happened, in the order in which it was committed.

use crate::Engine;
use serde_json::Value;
use strata_model::{Error, Principal, Result, Scope};
use strata_store::catalog::{
    from_sql,
    rusqlite::{Row, Transaction, params, params_from_iter, types::Value as SqlValue},
};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Grows with every event of the server.
    pub seq: i64,
    pub namespace_id: Option<String>,
    /// `object.created`, `collection.documents.written` …
    pub event_type: String,
    pub payload: Value,
    /// RFC 3339.
    pub created_at: String,
}

/// Which events, and from where.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// `None`: every namespace that the principal may enter.
    pub namespace_id: Option<String>,
    pub event_type: Option<String>,
    /// Only events after this `seq`.
    pub after: i64,
    pub limit: usize,
}

/// Adds an event to the transaction that makes it true. `now` is the catalog's time.
pub fn append(tx: &Transaction<'_>, scope: &Scope, event_type: &str, payload: &Value, now: &str) -> Result<()> {
    let sql = "INSERT INTO events (organization_id, namespace_id, event_type, payload, created_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let payload = serde_json::to_string(payload).map_err(Error::internal)?;
    let values = params![scope.organization_id, scope.namespace_id, event_type, payload, now];
    tx.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(from_sql).map(drop)
}

impl Engine {
    /// Events in the order of their `seq`, and whether there are more.
    pub async fn events(&self, principal: &Principal, query: EventQuery) -> Result<(Vec<Event>, bool)> {
        let allowed = match query.namespace_id {
            Some(namespace_id) if !principal.may_enter(&namespace_id) => {
                return Err(Error::missing("namespace", namespace_id));
            }
            Some(namespace_id) => Some(vec![namespace_id]),
            None => principal.namespaces.clone(),
        };
        let mut sql = String::from(
            "SELECT seq, namespace_id, event_type, payload, created_at FROM events WHERE organization_id = ? AND seq > ?",
        );
        let mut values: Vec<SqlValue> = vec![principal.organization_id.clone().into(), query.after.into()];
        if let Some(namespaces) = allowed {
            sql.push_str(&format!(" AND namespace_id IN ({})", vec!["?"; namespaces.len()].join(", ")));
            values.extend(namespaces.into_iter().map(SqlValue::from));
        }
        if let Some(event_type) = query.event_type {
            sql.push_str(" AND event_type = ?");
            values.push(event_type.into());
        }
        sql.push_str(" ORDER BY seq LIMIT ?");
        // One more than asked for says whether there are more.
        values.push(i64::try_from(query.limit + 1).unwrap_or(i64::MAX).into());
        let read = self.catalog.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
            let rows = statement.query_map(params_from_iter(values), event).map_err(from_sql)?;
            rows.collect::<Result<Vec<Event>, _>>().map_err(from_sql)
        });
        let mut events = read.await?;
        let has_more = events.len() > query.limit;
        events.truncate(query.limit);
        Ok((events, has_more))
    }
}

fn event(row: &Row<'_>) -> Result<Event, strata_store::catalog::rusqlite::Error> {
    Ok(Event {
        seq: row.get(0)?,
        namespace_id: row.get(1)?,
        event_type: row.get(2)?,
        payload: strata_store::catalog::documents::from_json_column(row, 3)?,
        created_at: row.get(4)?,
    })
}
