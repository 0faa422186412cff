//! SQLite files of the operator's directory, opened to read. What a statement may do is asked of an authorizer while it
//! is prepared, and how long it takes of a progress handler while it runs.
//!
//! Columns come as JSON: integers, reals and texts as such, `BOOLEAN` columns as booleans, `JSON` columns as what they
//! hold, blobs as base64.

use super::config::Sqlite;
use crate::retrieval::{Lookup, Rows};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Number, Value};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use strata_model::{Error, Fields, Result};
use strata_store::catalog::rusqlite::{
    self, Connection, OpenFlags,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::{ToSqlOutput, ValueRef},
};

/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;
const MAX_COLUMNS: usize = 500;
/// How long a file that somebody writes to is waited for.
const BUSY: Duration = Duration::from_secs(2);
/// How long beyond its time a query is waited for.
const GRACE: Duration = Duration::from_secs(2);
/// Values, statements and patterns that SQLite works on without looking at the clock, in bytes, and how deep it nests.
const LIMITS: [(Limit, i32); 5] = [
    (Limit::SQLITE_LIMIT_LENGTH, 16 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 256 << 10),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 500),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
];
/// Functions that reach out of the database, or that make large values of nothing.
const FORBIDDEN: [&str; 8] =
    ["load_extension", "fts3_tokenizer", "zeroblob", "randomblob", "printf", "format", "readfile", "writefile"];

/// Rows of a query. `turn` is held until SQLite has ended, which looks at the clock between its steps only; nobody waits
/// for it longer than the query's time and a moment.
pub async fn look_up(file: &Sqlite, lookup: &Lookup, turn: impl Send + 'static) -> Result<Rows> {
    let limit = lookup.timeout;
    let (file, lookup) = (file.clone(), lookup.clone());
    let work = move || {
        let _turn = turn;
        let path = file.file()?;
        rows(&open(&path, Instant::now() + lookup.timeout)?, &lookup)
    };
    let done = tokio::time::timeout(limit + GRACE, tokio::task::spawn_blocking(work)).await;
    done.map_err(|_| late(limit))?.map_err(Error::internal)?
}

fn late(limit: Duration) -> Error {
    Error::Upstream(format!("the query did not end within {} s", limit.as_secs_f64()))
}

/// Opens the file and reads its schema.
pub async fn test(file: &Sqlite) -> Result<Fields> {
    let file = file.clone();
    let work = move || {
        let connection = open(&file.file()?, Instant::now() + Duration::from_secs(5))?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_master WHERE type = 'table'", [], |row| row.get(0))
            .map_err(|error| broken(&error))?;
        Ok(Fields::from_iter([
            ("server_version".to_owned(), Value::from(rusqlite::version())),
            ("tables".to_owned(), tables.into()),
        ]))
    };
    tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
}

fn open(path: &Path, deadline: Instant) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| broken(&error))?;
    for (limit, most) in LIMITS {
        connection.set_limit(limit, most).map_err(|error| broken(&error))?;
    }
    connection.busy_timeout(BUSY).map_err(|error| broken(&error))?;
    for (name, value) in [("query_only", "ON"), ("trusted_schema", "OFF"), ("cell_size_check", "ON")] {
        connection.pragma_update(None, name, value).map_err(|error| broken(&error))?;
    }
    connection.authorizer(Some(|context: AuthContext<'_>| match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Function { function_name } if !FORBIDDEN.contains(&function_name.to_lowercase().as_str()) => {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }));
    connection.progress_handler(STEPS, Some(move || Instant::now() > deadline));
    Ok(connection)
}

fn broken(error: &rusqlite::Error) -> Error {
    Error::Upstream(format!("the file cannot be read as a database: {error}"))
}

fn rows(connection: &Connection, lookup: &Lookup) -> Result<Rows> {
    let mut statement = connection.prepare(&lookup.text('?')).map_err(|error| refusal(&error, lookup))?;
    if !statement.readonly() {
        return Err(Error::invalid("query", "must be a SELECT"));
    }
    let columns: Vec<(String, Shape)> =
        statement.columns().iter().map(|column| (column.name().to_owned(), Shape::of(column.decl_type()))).collect();
    if columns.is_empty() || columns.len() > MAX_COLUMNS {
        return Err(Error::invalid("query", format!("must give 1 to {MAX_COLUMNS} columns")));
    }
    for (place, value) in lookup.values.iter().enumerate() {
        statement.raw_bind_parameter(place + 1, Bound(value)).map_err(|error| refusal(&error, lookup))?;
    }
    let (mut found, mut bytes) = (Rows::default(), 0);
    let mut cursor = statement.raw_query();
    while let Some(row) = cursor.next().map_err(|error| refusal(&error, lookup))? {
        if found.rows.len() == lookup.max_rows {
            found.is_cut = true;
            break;
        }
        let mut fields = Fields::new();
        for (place, (name, shape)) in columns.iter().enumerate() {
            let cell = row.get_ref(place).map_err(|error| refusal(&error, lookup))?;
            bytes += name.len() + size(cell);
            if bytes > lookup.max_bytes {
                return Err(Error::TooLarge(format!("the rows have more than {} bytes", lookup.max_bytes)));
            }
            fields.insert(name.clone(), shape.value(cell));
        }
        found.rows.push(fields);
    }
    Ok(found)
}

fn size(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

/// A JSON value as a parameter: what SQLite has no type for is JSON text.
struct Bound<'v>(&'v Value);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::from(rusqlite::types::Null),
            Value::Bool(flag) => ToSqlOutput::from(*flag),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => ToSqlOutput::from(integer),
                None => ToSqlOutput::from(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => ToSqlOutput::from(text.as_str()),
            other => ToSqlOutput::from(other.to_string()),
        })
    }
}

/// What a column's declared type says beyond what its values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Flag,
    Json,
}

impl Shape {
    fn of(declared: Option<&str>) -> Self {
        match declared.unwrap_or_default().to_uppercase().as_str() {
            "BOOLEAN" | "BOOL" => Self::Flag,
            "JSON" | "JSONB" => Self::Json,
            _ => Self::Plain,
        }
    }

    fn value(self, cell: ValueRef<'_>) -> Value {
        match (cell, self) {
            (ValueRef::Null, _) => Value::Null,
            (ValueRef::Integer(0 | 1), Self::Flag) => (cell == ValueRef::Integer(1)).into(),
            (ValueRef::Integer(integer), _) => integer.into(),
            (ValueRef::Real(real), _) => Number::from_f64(real).map_or(Value::Null, Value::Number),
            (ValueRef::Text(bytes), shape) => {
                let text = String::from_utf8_lossy(bytes);
                let json = (shape == Self::Json).then(|| serde_json::from_str(&text).ok()).flatten();
                json.unwrap_or_else(|| text.into_owned().into())
            }
            (ValueRef::Blob(bytes), _) => STANDARD.encode(bytes).into(),
        }
    }
}

fn refusal(error: &rusqlite::Error, lookup: &Lookup) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => late(lookup.timeout),
        Some(ErrorCode::AuthorizationForStatementDenied) => {
            Error::invalid("query", format!("may only read what the file holds: {error}"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::Upstream("the file is being written to; try again".into())
        }
        Some(
            ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen,
        ) => broken(error),
        _ => Error::invalid("query", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::SqlPart;
    use serde_json::json;
    use std::path::PathBuf;

    fn file(directory: &Path) -> Sqlite {
        let connection = Connection::open(directory.join("shop.db")).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE items (id INTEGER, name TEXT, price REAL, sold BOOLEAN, facts JSON, raw BLOB);
                 INSERT INTO items VALUES (1, 'pie', 2.5, 1, '{\"a\": [1]}', x'0102'), (2, 'cake', 4, 0, 'odd', NULL), (3, NULL, NULL, NULL, NULL, NULL);",
            )
            .unwrap();
        Sqlite { path: "shop.db".into(), directory: directory.to_owned(), data_dir: PathBuf::from("/nowhere") }
    }
    fn lookup(sql: &str, values: Vec<Value>) -> Lookup {
        let mut parts = Vec::new();
        for (place, piece) in sql.split('?').enumerate() {
            if place > 0 {
                parts.push(SqlPart::Value(place - 1));
            }
            parts.push(SqlPart::Text(piece.to_owned()));
        }
        Lookup {
            connection: "c".into(),
            sql: parts,
            values,
            timeout: Duration::from_millis(500),
            max_rows: 100,
            max_bytes: 100_000,
        }
    }
    async fn asked(sql: &str, values: Vec<Value>) -> Result<Rows, String> {
        let directory = tempfile::tempdir().unwrap();
        look_up(&file(directory.path()), &lookup(sql, values), ()).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn rows_become_json_and_values_are_bound() {
        let found = asked("SELECT * FROM items WHERE id <= ? ORDER BY id", vec![json!(2)]).await.unwrap();
        assert_eq!(
            Value::from_iter(found.rows.into_iter().map(Value::Object)),
            json!([
                {"id": 1, "name": "pie", "price": 2.5, "sold": true, "facts": {"a": [1]}, "raw": "AQI="},
                {"id": 2, "name": "cake", "price": 4.0, "sold": false, "facts": "odd", "raw": null},
            ])
        );
        for hostile in ["pie' OR '1'='1", "'; DROP TABLE items; --"] {
            assert!(asked("SELECT id FROM items WHERE name = ?", vec![json!(hostile)]).await.unwrap().rows.is_empty());
        }
        let list =
            asked("SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?))", vec![json!([1, 3])]).await;
        assert_eq!(list.unwrap().rows.len(), 2);
        let typed =
            asked("SELECT ? AS a, ? AS b, ? AS c, ? AS d", vec![json!(null), json!(true), json!(0.5), json!({"x": 1})])
                .await;
        assert_eq!(
            Value::Object(typed.unwrap().rows.remove(0)),
            json!({"a": null, "b": 1, "c": 0.5, "d": "{\"x\":1}"})
        );
    }

    #[tokio::test]
    async fn nothing_but_reading_is_possible() {
        for sql in [
            "DELETE FROM items",
            "INSERT INTO items (id) VALUES (9) RETURNING id",
            "UPDATE items SET id = 1",
            "DROP TABLE items",
            "CREATE TEMP TABLE t (a)",
            "ATTACH '/etc/passwd' AS p",
            "PRAGMA query_only = OFF",
            "PRAGMA table_info(items)",
            "SELECT * FROM pragma_table_info('items')",
            "VACUUM INTO 'copy.db'",
            "BEGIN",
            "SELECT load_extension('x')",
            "SELECT zeroblob(1000000000)",
            "SELECT printf('%.*c', 1000000000, 'x')",
            "WITH x AS (SELECT 1) DELETE FROM items",
            "EXPLAIN DELETE FROM items",
            "SELECT 1; DELETE FROM items",
        ] {
            assert!(asked(sql, vec![]).await.is_err(), "{sql}");
        }
        assert_eq!(asked("SELECT count(*) AS n FROM items", vec![]).await.unwrap().rows[0]["n"], 3);
    }

    #[tokio::test]
    async fn time_rows_and_bytes_are_bounded() {
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let started = Instant::now();
        assert!(asked(endless, vec![]).await.unwrap_err().contains("within 0.5 s"));
        assert!(started.elapsed() < Duration::from_secs(3));
        let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) SELECT i FROM n";
        let cut = asked(many, vec![]).await.unwrap();
        assert_eq!((cut.rows.len(), cut.is_cut), (100, true));
        let long =
            "WITH RECURSIVE n(i, t) AS (SELECT 1, 'x' UNION ALL SELECT i + 1, t || t FROM n LIMIT 18) SELECT t FROM n";
        assert!(asked(long, vec![]).await.unwrap_err().contains("more than 100000 bytes"));
        let huge =
            "WITH RECURSIVE n(i, t) AS (SELECT 1, 'x' UNION ALL SELECT i + 1, t || t FROM n LIMIT 40) SELECT t FROM n";
        assert!(asked(huge, vec![]).await.is_err());
        let pattern = format!("SELECT count(*) FROM items WHERE 'a' LIKE '{}'", "%a".repeat(400));
        assert!(asked(&pattern, vec![]).await.unwrap_err().contains("too complex"));
        assert!(asked("SELECT nobody FROM items", vec![]).await.unwrap_err().contains("no such column"));
    }

    #[tokio::test]
    async fn what_is_no_database_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = file(directory.path());
        std::fs::write(directory.path().join("shop.db"), "x".repeat(5_000)).unwrap();
        let told = look_up(&file, &lookup("SELECT 1 FROM items", vec![]), ()).await.unwrap_err();
        assert!(matches!(&told, Error::Upstream(message) if message.contains("not a database")), "{told:?}");
        assert!(test(&file).await.is_err());
    }
}
