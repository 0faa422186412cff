//! Retrievers: stored plans of retrieval, and their executions.
//!
//! A retriever is a row whose body holds what the caller sent. What cannot be executed is not stored: the stages are
//! understood and the collections resolved when it is written. A collection that is deleted later leaves the retriever
//! as it is; an execution then names what is missing.

mod backend;
mod cache;
mod explain;
mod feedback;
mod history;
mod rates;
mod run;
mod traces;
mod typeahead;

pub use explain::{Explanation, StageEstimate};
pub use history::{MAX_RECORDS, Outcome, Record};
pub use run::{Execute, Executed, FeatureSearch, Prepared};
pub use traces::{Found, Search, Trace, Traced};
pub use typeahead::{Typeahead, ValueCount};

use crate::{
    Engine,
    listing::{ListRequest, Page},
    retrieval::{self, InputSchema, Plan, RetrieverSpec},
};
use lru::LruCache;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{num::NonZeroUsize, sync::Arc};
use strata_model::{Error, Fields, Result, Scope, id};
use strata_store::catalog::{
    batches, connections, experiments,
    publications::{self, Mark},
    resources::{self, Kind, Resource},
    rusqlite::Connection,
    secrets,
};

/// Private key of a retriever's body: ids of its collections.
const COLLECTIONS: &str = "_collection_ids";
/// Private key: how often it was written.
const VERSION: &str = "_version";
/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 255;
/// Most collections that one retriever names.
const MAX_COLLECTIONS: usize = 1_000;
/// Plans that are kept parsed.
const MAX_PLANS: NonZeroUsize = NonZeroUsize::new(512).unwrap();
/// Vectors of query texts that are kept.
const MAX_QUERY_VECTORS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Longest query text whose vector is kept, in bytes.
const MAX_KEPT_QUERY_BYTES: usize = 4 << 10;

/// A stored retriever.
#[derive(Debug, Clone, PartialEq)]
pub struct Retriever {
    pub id: String,
    pub namespace_id: String,
    pub name: String,
    /// What was sent, without the name.
    pub body: Fields,
    /// The collections it reads; empty means all of the namespace.
    pub collection_ids: Vec<String>,
    /// From 1, one more with every change.
    pub version: i64,
    pub created_at: String,
    pub updated_at: String,
    /// That it is published, if it is. Not a part of what is stored of the retriever.
    pub published: Option<Mark>,
}

impl Retriever {
    fn from_row(row: Resource, published: Option<Mark>) -> Result<Self> {
        let mut body = row.body;
        let collection_ids = match body.remove(COLLECTIONS) {
            Some(ids) => serde_json::from_value(ids).map_err(Error::internal)?,
            None => Vec::new(),
        };
        let version = body.remove(VERSION).and_then(|v| v.as_i64()).unwrap_or(1);
        Ok(Self {
            id: row.id,
            namespace_id: row.namespace_id,
            name: row.name,
            body,
            collection_ids,
            version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            published,
        })
    }

    /// Who may execute it: `public` where it is published and active, else `private`.
    pub fn visibility(&self) -> &'static str {
        match &self.published {
            Some(mark) if mark.active => "public",
            _ => "private",
        }
    }

    fn to_row(&self) -> Resource {
        let mut body = self.body.clone();
        body.insert(COLLECTIONS.into(), json!(self.collection_ids));
        body.insert(VERSION.into(), self.version.into());
        Resource {
            id: self.id.clone(),
            namespace_id: self.namespace_id.clone(),
            name: self.name.clone(),
            body,
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        }
    }

    /// The retriever as filters and sorts of lists see it.
    pub fn view(&self) -> Fields {
        let mut view = self.body.clone();
        for (key, value) in [
            ("retriever_id", json!(self.id)),
            ("retriever_name", json!(self.name)),
            ("collection_ids", json!(self.collection_ids)),
            ("version", json!(self.version)),
            ("is_published", self.published.is_some().into()),
            ("visibility", self.visibility().into()),
            ("created_at", json!(self.created_at)),
            ("updated_at", json!(self.updated_at)),
        ] {
            view.insert(key.to_owned(), value);
        }
        view
    }
}

struct ParsedPlan {
    version: i64,
    updated_at: String,
    plan: Arc<Plan>,
}

/// Vectors of query texts by model.
struct QueryVectors(Mutex<LruCache<String, Arc<[f32]>>>);

impl QueryVectors {
    fn key(fingerprint: &str, text: &str) -> String {
        format!("{fingerprint}\0{text}")
    }
    fn get(&self, fingerprint: &str, text: &str) -> Option<Vec<f32>> {
        self.0.lock().get(&Self::key(fingerprint, text)).map(|vector| vector.to_vec())
    }
    fn insert(&self, fingerprint: &str, text: &str, vector: &[f32]) {
        if text.len() <= MAX_KEPT_QUERY_BYTES {
            self.0.lock().put(Self::key(fingerprint, text), vector.into());
        }
    }
}

/// What an engine's retrieval remembers between executions.
pub(crate) struct Memory {
    history: history::History,
    pub(crate) traces: traces::Traces,
    pub(crate) feedback: feedback::Remembered,
    plans: Mutex<LruCache<String, ParsedPlan>>,
    query_vectors: QueryVectors,
    rates: rates::Rates,
    cache: cache::Cache,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            history: history::History::default(),
            traces: traces::Traces::default(),
            feedback: feedback::Remembered::default(),
            plans: Mutex::new(LruCache::new(MAX_PLANS)),
            query_vectors: QueryVectors(Mutex::new(LruCache::new(MAX_QUERY_VECTORS))),
            rates: rates::Rates::default(),
            cache: cache::Cache::default(),
        }
    }
}

impl Engine {
    /// Makes a retriever of `retriever_name`, `stages`, `collection_identifiers`, `input_schema`, `budget_limits` and
    /// whatever else should be kept with it.
    pub async fn create_retriever(&self, scope: &Scope, request: Fields) -> Result<Retriever> {
        let (scope, id, now) = (scope.clone(), self.catalog.new_id(id::RETRIEVER, 10), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let blank = blank(&scope, id, &now);
                let made = assemble(tx, &scope, blank, request, now)?;
                resources::insert(tx, Kind::Retriever, &made.to_row())?;
                Ok(made)
            })
            .await
    }

    /// A retriever by id or name.
    pub async fn retriever(&self, scope: &Scope, identifier: &str) -> Result<Retriever> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog.read(move |connection| load(connection, &scope, &identifier)).await
    }

    /// A retriever as it is executed. Parsed plans are kept until the retriever changes.
    pub fn retriever_plan(&self, retriever: &Retriever) -> Result<Arc<Plan>> {
        let mut plans = self.memory.plans.lock();
        let (version, updated_at) = (retriever.version, &retriever.updated_at);
        if let Some(known) = plans.get(&retriever.id).filter(|p| p.version == version && p.updated_at == *updated_at) {
            return Ok(known.plan.clone());
        }
        let mut spec = RetrieverSpec::from_body(&retriever.body)?;
        spec.collection_identifiers = retriever.collection_ids.clone();
        let plan = Arc::new(Plan::parse(&spec)?);
        let parsed = ParsedPlan { version, updated_at: updated_at.clone(), plan: plan.clone() };
        plans.put(retriever.id.clone(), parsed);
        Ok(plan)
    }

    /// A page of the scope's retrievers.
    pub async fn retrievers(&self, scope: &Scope, request: ListRequest) -> Result<Page<Retriever>> {
        let scope = scope.clone();
        let read = self.catalog.read(move |connection| {
            let mut marks = publications::marks(connection, &scope)?;
            let rows = resources::list(connection, Kind::Retriever, &scope)?.into_iter();
            rows.map(|row| {
                let mark = marks.remove(&row.id);
                Retriever::from_row(row, mark)
            })
            .collect::<Result<Vec<_>>>()
        });
        let all = read.await?;
        Ok(request.page(all, Retriever::view))
    }

    /// Changes what `request` names; null takes a setting away.
    pub async fn update_retriever(&self, scope: &Scope, identifier: &str, request: Fields) -> Result<Retriever> {
        let (scope, identifier, now) = (scope.clone(), identifier.to_owned(), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let current = load(tx, &scope, &identifier)?;
                refuse_to_hide(&current, &request)?;
                let changed = assemble(tx, &scope, current, request, now)?;
                resources::update(tx, Kind::Retriever, &changed.to_row())?;
                Ok(changed)
            })
            .await
    }

    /// Removes a retriever, as what it is published, and its keys; answers its id.
    pub async fn delete_retriever(&self, scope: &Scope, identifier: &str) -> Result<String> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let now = self.catalog.now();
        // Its keys go with it, by the schema's cascades.
        let (gone, evaluations) = self
            .change_keys(move |tx| {
                let gone = resources::get(tx, Kind::Retriever, &scope, &identifier)?;
                resources::delete(tx, Kind::Retriever, &scope, &gone.id)?;
                let evaluations = experiments::delete_evaluations(tx, &scope, &gone.id)?;
                for task in evaluations.iter().filter(|e| !e.is_over()).filter_map(|e| e.task_id.as_deref()) {
                    batches::set_task_status(tx, task, "CANCELED", &now)?;
                }
                Ok((gone.id, evaluations))
            })
            .await?;
        evaluations.iter().for_each(|evaluation| self.experiments.cancel(&evaluation.experiment_id));
        Ok(gone)
    }

    /// Makes a retriever like another one, but for what `request` names; it must have a `retriever_name`. Answers the new
    /// one and the id of its source.
    pub async fn clone_retriever(
        &self,
        scope: &Scope,
        identifier: &str,
        mut request: Fields,
    ) -> Result<(Retriever, String)> {
        request.retain(|_, value| !value.is_null());
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        let (id, now) = (self.catalog.new_id(id::RETRIEVER, 10), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let source = load(tx, &scope, &identifier)?;
                let blank = blank(&scope, id, &now);
                let start = Retriever { body: source.body, collection_ids: source.collection_ids, ..blank };
                let made = assemble(tx, &scope, start, request, now)?;
                resources::insert(tx, Kind::Retriever, &made.to_row())?;
                Ok((made, source.id))
            })
            .await
    }
}

fn load(connection: &Connection, scope: &Scope, identifier: &str) -> Result<Retriever> {
    let row = resources::get(connection, Kind::Retriever, scope, identifier)?;
    let mark = publications::mark(connection, scope, &row.id)?;
    Retriever::from_row(row, mark)
}

/// A published retriever is public until it is taken back; saying that it is private must not pass for that.
fn refuse_to_hide(current: &Retriever, request: &Fields) -> Result<()> {
    match (current.visibility(), request.get("visibility").and_then(Value::as_str)) {
        ("public", Some("private")) => Err(Error::Conflict(format!(
            "retriever `{}` is published; take it back with DELETE /v1/retrievers/{}/publish",
            current.name, current.id
        ))),
        _ => Ok(()),
    }
}

/// A retriever before anything is said about it; without a name, and so not to be stored.
fn blank(scope: &Scope, id: String, now: &str) -> Retriever {
    Retriever {
        id,
        namespace_id: scope.namespace_id.clone(),
        name: String::new(),
        body: Fields::new(),
        collection_ids: Vec::new(),
        version: 0,
        created_at: now.to_owned(),
        updated_at: now.to_owned(),
        published: None,
    }
}

/// `start` with what `request` says, checked. Collections are resolved again only where the request names some, so that
/// a deleted one does not stand in the way of other changes.
fn assemble(
    connection: &Connection,
    scope: &Scope,
    start: Retriever,
    mut request: Fields,
    now: String,
) -> Result<Retriever> {
    let name = match request.remove("retriever_name") {
        Some(Value::Null) | None if start.name.is_empty() => {
            return Err(Error::invalid("retriever_name", "is required"));
        }
        Some(Value::Null) | None => start.name,
        Some(name) => checked_name(&name)?,
    };
    let mut made = Retriever { name, version: start.version + 1, updated_at: now, ..start };
    one_spelling(&mut request);
    let names_collections = request.contains_key("collection_identifiers");
    let has_stages = request.get("stages").is_some_and(|stages| !stages.is_null());
    for (key, value) in request.into_iter().filter(|(key, _)| !key.starts_with('_')) {
        match value {
            Value::Null if key == "stages" => {}
            Value::Null => drop(made.body.remove(&key)),
            value => drop(made.body.insert(key, value)),
        }
    }
    let spec = RetrieverSpec::from_body(&made.body)?;
    let plan = Plan::parse(&spec)?;
    if let Some(Value::Object(schema)) = made.body.get_mut("input_schema") {
        *schema = InputSchema::declared(schema);
    }
    if names_collections {
        made.collection_ids = resolved(connection, scope, &spec.collection_identifiers, "collection_identifiers")?;
    }
    if has_stages {
        resolved(connection, scope, &plan.stage_collections(), "stages")?;
        for (name, at) in plan.secrets() {
            if secrets::find(connection, &scope.organization_id, &name)?.is_none() {
                return Err(retrieval::missing_secret(&name, &at));
            }
        }
        for (name, at) in plan.connections() {
            if connections::find(connection, &scope.organization_id, &name)?.is_none() {
                return Err(crate::connections::missing(&name, &at));
            }
        }
        evaluations_are_there(connection, scope, &plan)?;
        without_cycle(connection, scope, &made, &plan)?;
    }
    Ok(made)
}

/// Refuses a plan that names an evaluation which the namespace does not have. One that goes later leaves the plan as it
/// is: nothing is read from it, it tells where weights have come from.
fn evaluations_are_there(connection: &Connection, scope: &Scope, plan: &Plan) -> Result<()> {
    for (id, at) in &plan.evaluations {
        experiments::get(connection, scope, experiments::Kind::Evaluation, id).map_err(|error| match error {
            Error::Missing { .. } => Error::invalid(at, format!("the evaluation `{id}` does not exist")),
            other => other,
        })?;
    }
    Ok(())
}

/// Refuses a retriever that executes one that is not there, or, at whatever depth, itself.
fn without_cycle(connection: &Connection, scope: &Scope, made: &Retriever, plan: &Plan) -> Result<()> {
    let mut open: Vec<(String, bool)> = plan.retrievers().into_iter().map(|name| (name, true)).collect();
    let mut seen = std::collections::HashSet::new();
    while let Some((identifier, is_own)) = open.pop() {
        let Some(found) = resources::find(connection, Kind::Retriever, scope, &identifier)? else {
            if is_own {
                return Err(Error::invalid("stages", format!("the retriever `{identifier}` does not exist")));
            }
            continue;
        };
        if found.id == made.id {
            return Err(Error::invalid(
                "stages",
                format!("the retriever `{identifier}` would be executed within itself"),
            ));
        }
        if seen.insert(found.id.clone()) {
            let body = Retriever::from_row(found, None)?.body;
            // One that cannot be understood any more fails when it is executed.
            let further = RetrieverSpec::from_body(&body).and_then(|spec| Plan::parse(&spec));
            open.extend(
                further.map(|plan| plan.retrievers()).unwrap_or_default().into_iter().map(|name| (name, false)),
            );
        }
    }
    Ok(())
}

/// Leaves one of the names under which clients send the collections.
fn one_spelling(request: &mut Fields) {
    for alias in ["collection_ids", "collections"] {
        if let Some(value) = request.remove(alias)
            && request.get("collection_identifiers").is_none_or(Value::is_null)
        {
            request.insert("collection_identifiers".into(), value);
        }
    }
}

fn checked_name(name: &Value) -> Result<String> {
    let text = name.as_str().ok_or_else(|| Error::invalid("retriever_name", "must be a string"))?;
    if text.trim().is_empty() || text.chars().count() > MAX_NAME_CHARS || text.chars().any(char::is_control) {
        return Err(Error::invalid("retriever_name", format!("must have 1 to {MAX_NAME_CHARS} printable characters")));
    }
    Ok(text.to_owned())
}

/// The ids of collections that are named by id or name, each once.
fn resolved(connection: &Connection, scope: &Scope, identifiers: &[String], at: &str) -> Result<Vec<String>> {
    if identifiers.len() > MAX_COLLECTIONS {
        return Err(Error::invalid(at, format!("at most {MAX_COLLECTIONS} collections can be named")));
    }
    let mut ids: Vec<String> = Vec::with_capacity(identifiers.len());
    for identifier in identifiers {
        let found = resources::find(connection, Kind::Collection, scope, identifier)?;
        let id = found.ok_or_else(|| backend::unknown(at, identifier))?.id;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collections_are_kept_under_one_name() {
        let spelled = |request: Value| {
            let mut request = request.as_object().cloned().unwrap();
            one_spelling(&mut request);
            Value::Object(request)
        };
        let wanted = json!({"collection_identifiers": ["a"]});
        assert_eq!(spelled(json!({"collection_ids": ["a"]})), wanted);
        assert_eq!(spelled(json!({"collections": ["a"]})), wanted);
        assert_eq!(spelled(json!({"collection_identifiers": ["a"], "collection_ids": ["b"]})), wanted);
        assert_eq!(spelled(json!({"collection_identifiers": null, "collection_ids": ["a"]})), wanted);
        assert_eq!(spelled(json!({"x": 1})), json!({"x": 1}));
    }

    #[test]
    fn a_vector_is_kept_for_its_model_and_its_text() {
        let vectors = QueryVectors(Mutex::new(LruCache::new(MAX_QUERY_VECTORS)));
        vectors.insert("m1", "text", &[1.0]);
        assert_eq!(vectors.get("m1", "text"), Some(vec![1.0]));
        assert_eq!((vectors.get("m2", "text"), vectors.get("m1", "other")), (None, None));
        let long = "x".repeat(MAX_KEPT_QUERY_BYTES + 1);
        vectors.insert("m1", &long, &[1.0]);
        assert_eq!(vectors.get("m1", &long), None);
    }
}
