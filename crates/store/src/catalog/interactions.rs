//! Rows of interactions: what users did with what retrievers found.

use super::{
    access,
    documents::{from_json_column, json, rows},
    filter::{Clause, after, compile, order_by},
    from_sql,
    payload::Place,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, types::Value as SqlValue};
use serde_json::Value;
use strata_model::{Error, Fields, Result, Scope, filter::Filter};

/// Columns that filters and sorts reach by their own names.
const COLUMNS: &[&str] = &[
    "interaction_id",
    "retriever_id",
    "execution_id",
    "session_id",
    "user_id",
    "feature_id",
    "occurred_at",
    "timestamp",
];

/// The field whose order is that of `seq`.
const ARRIVAL: &str = "timestamp";

/// A stored interaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Interaction {
    /// Grows with every interaction of the server; 0 before it is stored.
    pub seq: i64,
    pub interaction_id: String,
    pub retriever_id: Option<String>,
    pub execution_id: Option<String>,
    pub session_id: Option<String>,
    pub user_id: Option<String>,
    /// The document.
    pub feature_id: String,
    /// Sorted, each once.
    pub types: Vec<String>,
    /// RFC 3339, as all times of the catalog.
    pub occurred_at: String,
    pub timestamp: String,
    /// The interaction as answers show it.
    pub fields: Fields,
    /// What was remembered of the execution.
    pub traced: Option<Value>,
}

const SELECT: &str = "SELECT seq, interaction_id, retriever_id, execution_id, session_id, user_id, feature_id, types,
    occurred_at, timestamp, fields, traced FROM interactions";

fn interaction(row: &Row<'_>) -> rusqlite::Result<Interaction> {
    let types: String = row.get(7)?;
    let has_trace = row.get_ref(11)? != rusqlite::types::ValueRef::Null;
    Ok(Interaction {
        seq: row.get(0)?,
        interaction_id: row.get(1)?,
        retriever_id: row.get(2)?,
        execution_id: row.get(3)?,
        session_id: row.get(4)?,
        user_id: row.get(5)?,
        feature_id: row.get(6)?,
        types: types.split(',').map(str::to_owned).collect(),
        occurred_at: row.get(8)?,
        timestamp: row.get(9)?,
        fields: from_json_column(row, 10)?,
        traced: if has_trace { Some(from_json_column(row, 11)?) } else { None },
    })
}

pub fn insert(tx: &Transaction<'_>, scope: &Scope, i: &Interaction) -> Result<()> {
    let sql = "INSERT INTO interactions (interaction_id, namespace_id, retriever_id, execution_id, session_id, user_id,
         feature_id, types, occurred_at, timestamp, fields, traced)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let values = params![
        i.interaction_id,
        scope.namespace_id,
        i.retriever_id,
        i.execution_id,
        i.session_id,
        i.user_id,
        i.feature_id,
        i.types.join(","),
        i.occurred_at,
        i.timestamp,
        json(&i.fields)?,
        i.traced.as_ref().map(json).transpose()?,
    ];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}

/// Whether the same types were reported of the same document and execution since `since`.
pub fn is_repeated(connection: &Connection, scope: &Scope, i: &Interaction, since: &str) -> Result<bool> {
    let Some(execution) = &i.execution_id else { return Ok(false) };
    let sql = "SELECT 1 FROM interactions WHERE namespace_id = ?1 AND execution_id = ?2 AND feature_id = ?3
         AND types = ?4 AND timestamp >= ?5";
    let values = params![scope.namespace_id, execution, i.feature_id, i.types.join(","), since];
    connection.prepare_cached(sql).and_then(|mut s| s.exists(values)).map_err(from_sql)
}

/// An interaction of the scope. One of a document that is kept from the scope's reader is missing.
pub fn get(connection: &Connection, scope: &Scope, interaction_id: &str) -> Result<Interaction> {
    let own = [interaction_id, &scope.namespace_id].map(|text| SqlValue::Text(text.to_owned()));
    let mut clause = Clause { sql: "interaction_id = ? AND namespace_id = ?".into(), values: own.to_vec() };
    clause.and(access::unhidden(scope, "interactions.feature_id"));
    let found = rows(connection, &format!("{SELECT} WHERE {}", clause.sql), &clause.values, interaction)?;
    found.into_iter().next().ok_or_else(|| Error::missing("interaction", interaction_id))
}

/// Removes an interaction of the scope; answers the retriever that it names, or `None` where there was no such interaction.
pub fn delete(tx: &Transaction<'_>, scope: &Scope, interaction_id: &str) -> Result<Option<Option<String>>> {
    match get(tx, scope, interaction_id) {
        Ok(_) => {}
        Err(Error::Missing { .. }) => return Ok(None),
        Err(other) => return Err(other),
    }
    let sql = "DELETE FROM interactions WHERE interaction_id = ?1 AND namespace_id = ?2 RETURNING retriever_id";
    let mut statement = tx.prepare_cached(sql).map_err(from_sql)?;
    statement.query_row([interaction_id, &scope.namespace_id], |row| row.get(0)).optional().map_err(from_sql)
}

/// Which interactions of a namespace, in which order.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Columns and the texts that they must hold.
    pub equal: Vec<(&'static str, String)>,
    pub interaction_type: Option<String>,
    pub filter: Filter,
    /// Text that some text below `metadata` contains.
    pub text: Option<String>,
    /// Field and whether descending.
    pub sort: (String, bool),
}

impl Selection {
    fn clause(&self, scope: &Scope) -> Clause {
        let text = |value: &str| SqlValue::Text(value.to_owned());
        let mut clause = Clause { sql: "namespace_id = ?".into(), values: vec![text(&scope.namespace_id)] };
        clause.and(access::unhidden(scope, "interactions.feature_id"));
        for (column, value) in &self.equal {
            clause.and(Clause { sql: format!("{column} = ?"), values: vec![text(value)] });
        }
        if let Some(kind) = &self.interaction_type {
            let sql = "instr(',' || types || ',', ',' || ? || ',') > 0";
            clause.and(Clause { sql: sql.into(), values: vec![text(kind)] });
        }
        clause.and(compile(&self.filter, COLUMNS));
        if let Some(wanted) = self.text.as_ref().filter(|wanted| !wanted.is_empty()) {
            let escaped = wanted.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
            clause.and(Clause {
                sql: "EXISTS (SELECT 1 FROM json_tree(interactions.fields, '$.metadata') t
                     WHERE t.type = 'text' AND t.atom LIKE ? ESCAPE '\\')"
                    .into(),
                values: vec![text(&format!("%{escaped}%"))],
            });
        }
        clause
    }
}

/// Where an interaction stands in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    pub place: Place,
    pub seq: i64,
}

impl Mark {
    /// Of an interaction in a list that is sorted by `field`.
    pub fn of(i: &Interaction, field: &str) -> Self {
        let column = match field {
            "interaction_id" => Some(Some(i.interaction_id.as_str())),
            "retriever_id" => Some(i.retriever_id.as_deref()),
            "execution_id" => Some(i.execution_id.as_deref()),
            "session_id" => Some(i.session_id.as_deref()),
            "user_id" => Some(i.user_id.as_deref()),
            "feature_id" => Some(Some(i.feature_id.as_str())),
            "occurred_at" => Some(Some(i.occurred_at.as_str())),
            "timestamp" => Some(Some(i.timestamp.as_str())),
            _ => None,
        };
        let place = column.map_or_else(|| Place::in_order(&i.fields, field), Place::of_text);
        Self { place, seq: i.seq }
    }
}

/// One page of the selected interactions: `limit` of them after `offset` others, behind `mark` where there is one.
pub fn list(
    connection: &Connection,
    scope: &Scope,
    selection: &Selection,
    mark: Option<&Mark>,
    (limit, offset): (usize, usize),
) -> Result<Vec<Interaction>> {
    let mut clause = selection.clause(scope);
    let (field, descending) = &selection.sort;
    let order = if field == ARRIVAL {
        let (direction, sign) = if *descending { ("DESC", "<") } else { ("ASC", ">") };
        if let Some(Mark { seq, .. }) = mark {
            clause.and(Clause { sql: format!("seq {sign} ?"), values: vec![(*seq).into()] });
        }
        Clause { sql: format!("seq {direction}"), values: Vec::new() }
    } else {
        if let Some(Mark { place, seq }) = mark {
            clause.and(after(field, *descending, COLUMNS, "seq", place, *seq));
        }
        order_by(field, *descending, COLUMNS, "seq")
    };
    let sql = format!("{SELECT} WHERE {} ORDER BY {} LIMIT ? OFFSET ?", clause.sql, order.sql);
    clause.values.extend(order.values);
    clause.values.extend([SqlValue::from(limit as i64), SqlValue::from(offset as i64)]);
    rows(connection, &sql, &clause.values, interaction)
}

/// How many interactions are selected.
pub fn count(connection: &Connection, scope: &Scope, selection: &Selection) -> Result<i64> {
    let clause = selection.clause(scope);
    let sql = format!("SELECT count(*) FROM interactions WHERE {}", clause.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    statement.query_row(rusqlite::params_from_iter(clause.values), |row| row.get(0)).map_err(from_sql)
}

/// The newest interactions of a retriever with a `seq` above `above`, at most `limit`, oldest first. Of their fields
/// `feature_uri` alone is read.
pub fn of_retriever(
    connection: &Connection,
    scope: &Scope,
    retriever_id: &str,
    above: i64,
    limit: usize,
) -> Result<Vec<Interaction>> {
    let select = SELECT.replace(" fields,", " json_object('feature_uri', json_extract(fields, '$.feature_uri')),");
    let sql = format!("{select} WHERE namespace_id = ? AND retriever_id = ? AND seq > ? ORDER BY seq DESC LIMIT ?");
    let values: [SqlValue; 4] = [
        scope.namespace_id.clone().into(),
        retriever_id.to_owned().into(),
        above.into(),
        i64::try_from(limit).unwrap_or(i64::MAX).into(),
    ];
    let mut found = rows(connection, &sql, &values, interaction)?;
    found.reverse();
    Ok(found)
}

/// Interactions of a time, newest first, until `visit` has seen enough and answers false. `retriever_ids` empty means all.
pub fn visit(
    connection: &Connection,
    scope: &Scope,
    retriever_ids: &[String],
    (since, until): (Option<&str>, Option<&str>),
    mut visit: impl FnMut(Interaction) -> bool,
) -> Result<()> {
    let mut clause = Clause { sql: "namespace_id = ?".into(), values: vec![scope.namespace_id.clone().into()] };
    clause.and(access::unhidden(scope, "interactions.feature_id"));
    if !retriever_ids.is_empty() {
        let sql = format!("retriever_id IN ({})", vec!["?"; retriever_ids.len()].join(", "));
        clause.and(Clause { sql, values: retriever_ids.iter().cloned().map(SqlValue::from).collect() });
    }
    for (sign, time) in [(">=", since), ("<=", until)] {
        if let Some(time) = time {
            clause.and(Clause { sql: format!("occurred_at {sign} ?"), values: vec![time.to_owned().into()] });
        }
    }
    let sql = format!("{SELECT} WHERE {} ORDER BY seq DESC", clause.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let mut rows = statement.query(rusqlite::params_from_iter(clause.values)).map_err(from_sql)?;
    while let Some(row) = rows.next().map_err(from_sql)? {
        if !visit(interaction(row).map_err(from_sql)?) {
            break;
        }
    }
    Ok(())
}
