//! `sql_lookup`: rows of a database outside, for each document or as documents.

mod query;

use super::outside::{self, OnError, Outcome, Secrets};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::backend::{Lookup, Rows};
use crate::retrieval::conditions::FilterTemplate;
use crate::retrieval::params::{Params, Setting, choice, count, flag, is_absent, text, value_or};
use crate::retrieval::template::{Namespace, Node, Rendered, Variables};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use query::{Query, Source};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "sql_lookup",
    aliases: &[],
    category: Category::Apply,
    description: "Adds rows of a database that a connection of the organization names; without documents, the rows become documents.",
    icon: "database",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Queries under way at once.
const PARALLEL: usize = 4;
/// Rows and bytes of one query that are taken.
const MAX_ROWS: usize = 1_000;
const MAX_BYTES: usize = 4 << 20;

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["connection_id", "query"],
        "properties": {
            "connection_id": {"type": "string", "description": "A connection of the organization, by id or name."},
            "query": {"type": "string", "description": "One SELECT. Its values are written `:name` or `$name`, or as a template, and are bound, never written into the text."},
            "parameters": {"type": "object", "description": "The values by name; they take templates."},
            "output_field": {"type": "string", "default": "sql_result"},
            "result_handling": {
                "type": "string", "enum": ["first", "all", "error_if_empty", "error_if_multiple"], "default": "first",
                "description": "The first row, a list of all, or the first row unless there is none or are several.",
            },
            "on_no_results": {"type": "string", "enum": ["skip", "null", "error"], "default": "skip", "description": "What a document gets for which there is no row: nothing, a null, or a failure."},
            "timeout": {"type": "integer", "minimum": 1, "maximum": 300, "default": 30, "description": "Seconds that one query may take; `timeout_ms` means the same in milliseconds."},
            "when": {"type": "object", "description": "Only documents that satisfy this filter are looked up; others pass."},
            "on_error": {"type": "string", "enum": ["skip", "remove", "raise"], "default": "skip", "description": "What becomes of a document whose query failed."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    First,
    All,
    ErrorIfEmpty,
    ErrorIfMultiple,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnNone {
    Skip,
    Null,
    Error,
}

#[derive(Debug)]
struct SqlLookup {
    at: String,
    /// The connection, and where it is named.
    connection: (String, String),
    query: Query,
    parameters: HashMap<String, Node>,
    output_field: Option<Setting<String>>,
    handling: Handling,
    on_none: OnNone,
    timeout: Option<Setting<u64>>,
    when: Option<FilterTemplate>,
    on_error: OnError,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let place = params.place("connection_id");
    let connection = params.fixed(&["connection_id"], text)?;
    let connection = connection.ok_or_else(|| Error::invalid(place.as_str(), "is required"))?;
    let at = params.place("query");
    let sql = params.fixed(&["query"], text)?.ok_or_else(|| Error::invalid(at.as_str(), "is required"))?;
    let mut query = Query::parse(&sql, &at)?;
    for source in &mut query.values {
        if let Source::Template(node) = source {
            params.note(node.clone());
        }
    }
    let parameters = parameters(&mut params, &query, &at)?;
    let milliseconds = |value: &Value, at: &str| count(1..=300_000)(value, at).map(|ms| ms as u64);
    let seconds = |value: &Value, at: &str| count(1..=300)(value, at).map(|seconds| seconds as u64 * 1_000);
    let timeout = match params.setting(&["timeout"], seconds)? {
        None => params.setting(&["timeout_ms"], milliseconds)?,
        given => given,
    };
    let several = params.fixed(&["multiple_rows"], flag)?.unwrap_or(false);
    let stage = SqlLookup {
        at,
        connection: (connection, place),
        query,
        parameters,
        output_field: params.setting(&["output_field", "result_field"], outside::field)?,
        handling: params.fixed(&["result_handling"], handling)?.unwrap_or(if several {
            Handling::All
        } else {
            Handling::First
        }),
        // Here the text `null` is a word of its own.
        on_none: match params.take_raw("on_no_results").filter(|value| !value.is_null()) {
            Some(word) => on_none(&word, &params.place("on_no_results"))?,
            None => OnNone::Skip,
        },
        timeout,
        when: params.filter(&["when"])?,
        on_error: params.fixed(&["on_error"], outside::on_error)?.unwrap_or(OnError::Skip),
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn handling(value: &Value, at: &str) -> Result<Handling> {
    let known = [
        ("first", Handling::First),
        ("all", Handling::All),
        ("error_if_empty", Handling::ErrorIfEmpty),
        ("error_if_multiple", Handling::ErrorIfMultiple),
    ];
    choice(value, at, &known)
}

fn on_none(value: &Value, at: &str) -> Result<OnNone> {
    choice(value, at, &[("skip", OnNone::Skip), ("null", OnNone::Null), ("error", OnNone::Error)])
}

/// The values by name. Each that the query reads must be there.
fn parameters(params: &mut Params<'_>, query: &Query, at: &str) -> Result<HashMap<String, Node>> {
    let place = params.place("parameters");
    let mut given = match params.take(&["parameters"]) {
        None => Fields::new(),
        Some((_, Value::Object(fields))) => fields,
        Some((at, _)) => return Err(Error::invalid(at, "must be an object of names to values")),
    };
    let mut parameters = HashMap::new();
    for source in &query.values {
        let Source::Named(name) = source else { continue };
        let value = given.remove(name).ok_or_else(|| {
            Error::invalid(format!("{place}.{name}"), format!("is required: the query at `{at}` reads it"))
        })?;
        let value = if is_absent(&value) { Value::Null } else { value };
        let node = params.note(Node::parse(&value, &format!("{place}.{name}"))?);
        parameters.insert(name.clone(), node);
    }
    for unused in given.keys() {
        params.warn(format!("`{place}.{unused}` is not read by the query"));
    }
    Ok(parameters)
}

impl Stage for SqlLookup {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let output = value_or(self.output_field.as_ref(), run.variables, "sql_result".to_owned())?;
            let ms = value_or(self.timeout.as_ref(), run.variables, 30_000)?;
            let timeout = Duration::from_millis(ms);
            let hits = match set {
                WorkingSet::Unread(_) if !self.reads_documents() => Vec::new(),
                set => run.read(set).await?,
            };
            match hits.is_empty() && !self.reads_documents() {
                true => self.documents(run, timeout).await.map(WorkingSet::Read),
                false => self.for_documents(run, timeout, &output, hits).await.map(WorkingSet::Read),
            }
        })
    }

    fn connections(&self) -> Vec<(String, String)> {
        vec![self.connection.clone()]
    }

    fn reaches_outside(&self) -> bool {
        true
    }
}

impl SqlLookup {
    fn reads_documents(&self) -> bool {
        let nodes = self.query.values.iter().filter_map(|source| match source {
            Source::Template(node) => Some(node),
            Source::Named(name) => self.parameters.get(name),
        });
        nodes.flat_map(Node::references).any(|reference| reference.namespace == Namespace::Doc)
    }

    /// A document for each row.
    async fn documents(&self, run: &mut Run<'_>, timeout: Duration) -> Result<Vec<Hit>> {
        let found = match self.values(run.variables) {
            Ok(values) => run.backend.look_up(self.lookup(values, timeout)).await,
            Err(error) => Err(error),
        };
        let found = match found.map_err(|error| self.placed(error)) {
            Ok(found) => found,
            Err(error) if self.on_error == OnError::Raise => return Err(error),
            Err(error) => {
                run.notes.warnings.push(format!("stage `{}` found nothing: {error}", run.stage_name));
                Rows::default()
            }
        };
        if found.is_cut {
            run.cut("rows", MAX_ROWS + 1, MAX_ROWS);
        }
        run.metadata.insert("made".into(), found.rows.len().into());
        let rows = found.rows.into_iter().enumerate();
        let made =
            rows.map(|(place, row)| Hit::new(outside::answer_document(run, format!("sql_{}", place + 1), place, row)));
        Ok(made.collect())
    }

    async fn for_documents(
        &self,
        run: &mut Run<'_>,
        timeout: Duration,
        output: &str,
        hits: Vec<Hit>,
    ) -> Result<Vec<Hit>> {
        let meant = outside::meant(run, &hits, self.when.as_ref())?;
        // Documents with the same values share a query.
        let mut asked: Vec<Option<Result<Vec<Value>>>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut places = Vec::with_capacity(hits.len());
        for (hit, is_meant) in hits.iter().zip(meant) {
            places.push(is_meant.then(|| {
                let values = self.values(&run.variables.with_doc(&view::field_view(hit)));
                let key = match &values {
                    Ok(values) => Value::from(values.clone()).to_string(),
                    Err(error) => format!("{error}"),
                };
                *known.entry(key).or_insert_with(|| {
                    asked.push(Some(values));
                    asked.len() - 1
                })
            }));
        }
        run.metadata.insert("queries".into(), asked.len().into());
        let backend = run.backend;
        let ask = |values: Result<Vec<Value>>| async move {
            match values {
                Ok(values) => self.outcome(backend.look_up(self.lookup(values, timeout)).await),
                Err(error) => Outcome::Failed(error),
            }
        };
        let found = outside::ask_each(asked, PARALLEL, self.on_error, ask).await;
        if let (OnError::Raise, Some(Outcome::Failed(_))) = (self.on_error, found.last()) {
            let outcome = found.into_iter().last();
            return outside::settle(run, hits, outcome, output, self.on_error, &Secrets::default());
        }
        let outcomes = places.into_iter().map(|place| match place.and_then(|place| found.get(place)) {
            Some(outcome) => outcome.again(),
            None => Outcome::Untouched,
        });
        outside::settle(run, hits, outcomes, output, self.on_error, &Secrets::default())
    }

    /// The values in the order of their places.
    fn values(&self, variables: &Variables) -> Result<Vec<Value>> {
        let value = |source: &Source| {
            let node = match source {
                Source::Template(node) => node,
                Source::Named(name) => match self.parameters.get(name) {
                    Some(node) => node,
                    None => return Ok(Value::Null),
                },
            };
            match node.render(variables)? {
                Rendered::Value(value) => Ok(value),
                Rendered::Missing(_) => {
                    let read: Vec<String> = node.references().iter().map(ToString::to_string).collect();
                    Err(Error::invalid(&self.at, format!("has no value: nothing is there of {}", read.join(", "))))
                }
            }
        };
        self.query.values.iter().map(value).collect()
    }

    fn lookup(&self, values: Vec<Value>, timeout: Duration) -> Lookup {
        Lookup {
            connection: self.connection.0.clone(),
            sql: self.query.parts.clone(),
            values,
            timeout,
            max_rows: MAX_ROWS,
            max_bytes: MAX_BYTES,
        }
    }

    /// What a document gets of the rows.
    fn outcome(&self, found: Result<Rows>) -> Outcome {
        let mut rows = match found {
            Ok(found) => found.rows,
            Err(error) => return Outcome::Failed(self.placed(error)),
        };
        let wrong = |message: &str| Outcome::Failed(Error::invalid(&self.at, message.to_owned()));
        match (self.handling, rows.len(), self.on_none) {
            (Handling::ErrorIfEmpty, 0, _) | (_, 0, OnNone::Error) => wrong("found no row"),
            (_, 0, OnNone::Skip) => Outcome::Untouched,
            (_, 0, OnNone::Null) => Outcome::Made(Value::Null),
            (Handling::ErrorIfMultiple, 2.., _) => wrong("found more than one row"),
            (Handling::All, _, _) => Outcome::Made(rows.into_iter().map(Value::Object).collect()),
            _ => Outcome::Made(Value::Object(rows.swap_remove(0))),
        }
    }

    /// The error, at the place in this stage that it is about.
    fn placed(&self, error: Error) -> Error {
        match error {
            Error::Invalid(list) => {
                let message = list.into_iter().map(|e| e.message).collect::<Vec<_>>().join("; ");
                Error::invalid(&self.at, message)
            }
            other => other,
        }
    }
}
