//! Rows of experiments: evaluations and benchmarks of retrievers, which run behind.

use super::{
    documents::{from_json_column, json, rows},
    filter::Clause,
    from_sql,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter, types::Value as SqlValue};
use strata_model::{Error, Fields, Result, Scope};

/// Key of an experiment's body under which stands with whose eyes it reads documents; never shown. Those of before there
/// were access lists have none, and read all.
pub const READER: &str = "_reader";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Evaluation,
    Benchmark,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evaluation => "evaluation",
            Self::Benchmark => "benchmark",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    pub experiment_id: String,
    pub organization_id: String,
    pub namespace_id: String,
    pub kind: Kind,
    /// Of an evaluation; of a benchmark its baseline.
    pub retriever_id: String,
    /// `pending`, a phase of the kind, `completed` or `failed`.
    pub status: String,
    pub task_id: Option<String>,
    /// How often it was begun.
    pub attempts: i64,
    /// What was asked for, and once it is over what came of it.
    pub body: Fields,
    pub created_at: String,
    pub updated_at: String,
}

impl Experiment {
    /// The namespace as whoever asked for the experiment sees it.
    pub fn scope(&self) -> Scope {
        let reader = self.body.get(READER).and_then(|reader| serde_json::from_value(reader.clone()).ok());
        Scope::whole(&*self.organization_id, &*self.namespace_id).seen_by(reader.unwrap_or_default())
    }
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed")
    }
}

const SELECT: &str =
    "SELECT experiment_id, organization_id, namespace_id, kind, retriever_id, status, task_id, attempts,
    body, created_at, updated_at FROM experiments";
const IS_OPEN: &str = "status NOT IN ('completed', 'failed')";

fn experiment(row: &Row<'_>) -> rusqlite::Result<Experiment> {
    let kind: String = row.get(3)?;
    Ok(Experiment {
        experiment_id: row.get(0)?,
        organization_id: row.get(1)?,
        namespace_id: row.get(2)?,
        kind: if kind == Kind::Benchmark.as_str() { Kind::Benchmark } else { Kind::Evaluation },
        retriever_id: row.get(4)?,
        status: row.get(5)?,
        task_id: row.get(6)?,
        attempts: row.get(7)?,
        body: from_json_column(row, 8)?,
        created_at: row.get(9)?,
        updated_at: row.get(10)?,
    })
}

pub fn insert(tx: &Transaction<'_>, e: &Experiment) -> Result<()> {
    let sql =
        "INSERT INTO experiments (experiment_id, organization_id, namespace_id, kind, retriever_id, status, task_id,
         attempts, body, created_at, updated_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let values = params![
        e.experiment_id,
        e.organization_id,
        e.namespace_id,
        e.kind.as_str(),
        e.retriever_id,
        e.status,
        e.task_id,
        e.attempts,
        json(&e.body)?,
        e.created_at,
        e.updated_at
    ];
    tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map(drop).map_err(from_sql)
}

/// An experiment of the scope.
pub fn get(connection: &Connection, scope: &Scope, kind: Kind, experiment_id: &str) -> Result<Experiment> {
    let sql = format!("{SELECT} WHERE experiment_id = ?1 AND namespace_id = ?2 AND kind = ?3");
    let found = connection
        .prepare_cached(&sql)
        .and_then(|mut s| s.query_row([experiment_id, &scope.namespace_id, kind.as_str()], experiment).optional());
    found.map_err(from_sql)?.ok_or_else(|| Error::missing(kind.as_str(), experiment_id))
}

pub fn delete(tx: &Transaction<'_>, scope: &Scope, kind: Kind, experiment_id: &str) -> Result<()> {
    let sql = "DELETE FROM experiments WHERE experiment_id = ?1 AND namespace_id = ?2 AND kind = ?3";
    let values = [experiment_id, &scope.namespace_id, kind.as_str()];
    match tx.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(from_sql)? {
        0 => Err(Error::missing(kind.as_str(), experiment_id)),
        _ => Ok(()),
    }
}

/// Removes the evaluations of a retriever that goes; answers them as they were.
pub fn delete_evaluations(tx: &Transaction<'_>, scope: &Scope, retriever_id: &str) -> Result<Vec<Experiment>> {
    let values = [&scope.namespace_id, Kind::Evaluation.as_str(), retriever_id];
    let sql = format!("{SELECT} WHERE namespace_id = ?1 AND kind = ?2 AND retriever_id = ?3");
    let gone = rows(tx, &sql, &values, experiment)?;
    let sql = "DELETE FROM experiments WHERE namespace_id = ?1 AND kind = ?2 AND retriever_id = ?3";
    tx.execute(sql, values).map_err(from_sql)?;
    Ok(gone)
}

/// Which experiments of a kind.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Of a benchmark the baseline or one of the candidates.
    pub retriever_id: Option<String>,
    pub status: Option<String>,
    /// Name or id of the data set.
    pub dataset: Option<String>,
}

/// A page of the selected experiments, newest first, without what came of single queries, and how many are selected.
pub fn list(
    connection: &Connection,
    scope: &Scope,
    kind: Kind,
    selection: Selection,
    (limit, offset): (usize, usize),
) -> Result<(Vec<Experiment>, i64)> {
    let text = |text: &str| SqlValue::Text(text.to_owned());
    let values = vec![text(&scope.namespace_id), text(kind.as_str())];
    let mut clause = Clause { sql: "namespace_id = ? AND kind = ?".into(), values };
    if let Some(id) = &selection.retriever_id {
        let sql = "(retriever_id = ? OR EXISTS
             (SELECT 1 FROM json_each(body, '$.candidate_retriever_ids') c WHERE c.value = ?))";
        clause.and(Clause { sql: sql.into(), values: vec![text(id), text(id)] });
    }
    if let Some(status) = &selection.status {
        clause.and(Clause { sql: "status = ?".into(), values: vec![text(status)] });
    }
    if let Some(dataset) = &selection.dataset {
        let sql = "? IN (json_extract(body, '$.dataset_name'), json_extract(body, '$.dataset_id'))";
        clause.and(Clause { sql: sql.into(), values: vec![text(dataset)] });
    }
    let sql = format!("SELECT count(*) FROM experiments WHERE {}", clause.sql);
    let mut statement = connection.prepare_cached(&sql).map_err(from_sql)?;
    let total = statement.query_row(params_from_iter(&clause.values), |row| row.get(0)).map_err(from_sql)?;
    let select = SELECT.replace("    body,", "    json_remove(body, '$.query_results'),");
    let sql = format!("{select} WHERE {} ORDER BY created_at DESC, experiment_id LIMIT ? OFFSET ?", clause.sql);
    let number = |n: usize| SqlValue::from(i64::try_from(n).unwrap_or(i64::MAX));
    clause.values.extend([number(limit), number(offset)]);
    Ok((rows(connection, &sql, &clause.values, experiment)?, total))
}

/// Id and namespace of the oldest experiment of each namespace that is not over, oldest first.
pub fn due(connection: &Connection, limit: usize) -> Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT experiment_id, namespace_id, min(created_at) FROM experiments WHERE {IS_OPEN} GROUP BY namespace_id ORDER BY 3 LIMIT ?"
    );
    rows(connection, &sql, &[i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Counts one more attempt and answers the experiment; `None` where it is over or gone.
pub fn begin(tx: &Transaction<'_>, experiment_id: &str) -> Result<Option<Experiment>> {
    let sql = format!("UPDATE experiments SET attempts = attempts + 1 WHERE experiment_id = ?1 AND {IS_OPEN}");
    tx.execute(&sql, [experiment_id]).map_err(from_sql)?;
    let sql = format!("{SELECT} WHERE experiment_id = ?1 AND {IS_OPEN}");
    tx.query_row(&sql, [experiment_id], experiment).optional().map_err(from_sql)
}

/// Undoes [`begin`], for an attempt that the server ended in good order.
pub fn put_back(tx: &Transaction<'_>, experiment_id: &str) -> Result<()> {
    let sql = format!(
        "UPDATE experiments SET attempts = max(attempts - 1, 0), status = 'pending' WHERE experiment_id = ?1 AND {IS_OPEN}"
    );
    tx.execute(&sql, [experiment_id]).map(drop).map_err(from_sql)
}

/// Writes status and body of an experiment that is not over; answers whether there was one.
pub fn advance(tx: &Transaction<'_>, experiment_id: &str, status: &str, body: &Fields, now: &str) -> Result<bool> {
    let sql = format!(
        "UPDATE experiments SET status = ?2, body = ?3, updated_at = ?4 WHERE experiment_id = ?1 AND {IS_OPEN}"
    );
    let done = tx.execute(&sql, params![experiment_id, status, json(body)?, now]).map_err(from_sql)?;
    Ok(done > 0)
}
