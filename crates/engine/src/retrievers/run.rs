//! Executing retrievers, stored ones and those that are sent along, and reading what was executed.

use super::{
    Retriever,
    backend::ScopedBackend,
    history::{self, Outcome, Record},
    traces::Trace,
};
use crate::{
    Engine, INDEX_WAIT,
    listing::{ListRequest, Page},
    retrieval::{Backend, ExecuteRequest, Execution, PageRequest, Plan, RetrieverSpec, StageEvent, StageReport},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use strata_model::{Error, FieldError, Fields, Reader, Result, Scope, id, limits};
use strata_store::catalog::documents;

/// The longest an execution takes, whatever its budget says.
const MAX_TIME: Duration = Duration::from_secs(50);
/// Where an ad hoc plan of one search has that search.
const ONLY_SEARCH: &str = "stages.0.config.parameters.searches.0.";

/// A retriever with its plan, ready to be executed.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// `None` where it was sent along and is not stored.
    pub retriever: Option<Retriever>,
    pub plan: Arc<Plan>,
}

impl Prepared {
    fn retriever_id(&self) -> Option<String> {
        self.retriever.as_ref().map(|r| r.id.clone())
    }
}

/// One execution.
#[derive(Debug, Clone, Default)]
pub struct Execute {
    /// [`Engine::new_execution_id`].
    pub execution_id: String,
    pub inputs: Fields,
    /// A filter that every document must satisfy besides the stages'.
    pub filters: Option<Value>,
    pub page: PageRequest,
    /// Whether it is executed though an equal execution's result is kept.
    pub skip_cache: bool,
    /// Whether it must see every write that was acknowledged before; it waits for the index then.
    pub sees_all_writes: bool,
}

/// What an execution gave.
#[derive(Debug)]
pub struct Executed {
    pub execution_id: String,
    /// `None` where the retriever is not stored.
    pub retriever_id: Option<String>,
    pub execution: Execution,
}

/// One search without a retriever.
#[derive(Debug, Clone)]
pub struct FeatureSearch {
    /// Ids or names; empty means every collection of the namespace.
    pub collections: Vec<String>,
    pub query: Value,
    /// Feature URI, index name or alias; without one, every index that the query fits.
    pub feature_uri: Option<String>,
    pub top_k: usize,
}

impl FeatureSearch {
    /// Puts the places of errors where this search's fields are.
    pub fn placed(error: Error) -> Error {
        let Error::Invalid(list) = error else { return error };
        let own = |field: FieldError| match field.field.strip_prefix(ONLY_SEARCH) {
            Some(below) => FieldError::new(below, field.message),
            None => field,
        };
        Error::Invalid(list.into_iter().map(own).collect())
    }
}

impl Engine {
    pub fn new_execution_id(&self) -> String {
        self.catalog.new_id(id::EXECUTION, 16)
    }

    /// A stored retriever, by id or name, and its plan.
    pub async fn prepare_retriever(&self, scope: &Scope, identifier: &str) -> Result<Prepared> {
        let retriever = self.retriever(scope, identifier).await?;
        Ok(Prepared { plan: self.retriever_plan(&retriever)?, retriever: Some(retriever) })
    }

    /// The plan of a retriever that is sent along: `stages`, `collection_identifiers`, `input_schema`, `budget_limits`.
    pub fn prepare_adhoc(&self, body: &Fields) -> Result<Prepared> {
        let plan = Plan::parse(&RetrieverSpec::from_body(body)?)?;
        Ok(Prepared { retriever: None, plan: Arc::new(plan) })
    }

    /// The plan of a search without a retriever.
    pub fn prepare_search(&self, search: FeatureSearch) -> Result<Prepared> {
        if !(1..=limits::MAX_PAGE).contains(&search.top_k) {
            return Err(Error::invalid("top_k", format!("must be from 1 to {}", limits::MAX_PAGE)));
        }
        let mut leg = Fields::new();
        leg.insert("query".into(), search.query);
        leg.insert("top_k".into(), search.top_k.into());
        leg.extend(search.feature_uri.map(|uri| ("feature_uri".to_owned(), Value::from(uri))));
        let parameters = json!({ "searches": [leg], "final_top_k": search.top_k });
        let spec = RetrieverSpec {
            collection_identifiers: search.collections,
            stages: vec![
                json!({ "stage_name": "search", "config": { "stage_id": "feature_search", "parameters": parameters } }),
            ],
            ..RetrieverSpec::default()
        };
        let plan = Plan::parse(&spec).map_err(FeatureSearch::placed)?;
        Ok(Prepared { retriever: None, plan: Arc::new(plan) })
    }

    /// Executes a retriever and remembers that it did.
    pub async fn execute(self: &Arc<Self>, scope: &Scope, prepared: &Prepared, request: Execute) -> Result<Executed> {
        self.execute_observed(scope, prepared, request, &|_| {}).await
    }

    /// [`Engine::execute`], telling `observer` about each stage as it starts and ends.
    pub async fn execute_observed(
        self: &Arc<Self>,
        scope: &Scope,
        prepared: &Prepared,
        request: Execute,
        observer: &(dyn Fn(StageEvent<'_>) + Send + Sync),
    ) -> Result<Executed> {
        let (started, created_at) = (Instant::now(), self.catalog.now());
        let backend = ScopedBackend::new(self.clone(), scope.clone());
        let begun = Begun {
            execution_id: request.execution_id,
            created_at,
            query_summary: history::summary(&request.inputs),
            inputs_hash: history::inputs_hash(&request.inputs),
        };
        // Where it is stored, that was looked at when it was written.
        if prepared.retriever.is_none() && !prepared.plan.evaluations.is_empty() {
            let (scope, plan) = (scope.clone(), prepared.plan.clone());
            self.catalog.read(move |connection| super::evaluations_are_there(connection, &scope, &plan)).await?;
        }
        if request.sees_all_writes {
            self.catch_up(&backend, &prepared.plan).await?;
        }
        // A plan that fails gives no reports; those of its earlier stages are worth remembering.
        let reports: Mutex<Vec<StageReport>> = Mutex::default();
        let watch = |event: StageEvent<'_>| {
            if let StageEvent::Completed { report, .. } = &event {
                reports.lock().push((*report).clone());
            }
            observer(event);
        };
        let is_filtered = request.filters.as_ref().is_some_and(|filters| !filters.is_null());
        let asked = ExecuteRequest {
            inputs: request.inputs,
            filters: request.filters,
            page: request.page,
            time_limit: Some(MAX_TIME),
            skip_cache: request.skip_cache,
            now_micros: self.catalog.now_micros(),
            chance: self.catalog.random(),
            within: vec![prepared.retriever_id().unwrap_or_default()],
        };
        let outcome = prepared.plan.execute_observed(&backend, asked, &watch).await;
        let reader = scope.reader.clone();
        let record =
            begun.record(reader, prepared, &outcome, reports.into_inner(), self.catalog.now(), started.elapsed());
        let execution_id = record.execution_id.clone();
        self.memory.history.add(scope, record);
        if let Ok(execution) = &outcome {
            self.memory.traces.add(
                scope,
                execution_id.clone(),
                Trace::of(prepared.retriever_id(), is_filtered, execution),
            );
        }
        Ok(Executed { execution_id, retriever_id: prepared.retriever_id(), execution: outcome? })
    }

    /// Executes a retriever for a measurement: nothing remembers it. The first `depth` hits; `chance` stands for chance.
    /// [`Error::Unavailable`] where something was left out, since that would be measured as if nothing had been found.
    pub(crate) async fn replay(
        self: &Arc<Self>,
        scope: &Scope,
        prepared: &Prepared,
        inputs: Fields,
        depth: usize,
        chance: u64,
    ) -> Result<Execution> {
        let backend = ScopedBackend::measuring(self.clone(), scope.clone());
        let asked = ExecuteRequest {
            inputs,
            filters: None,
            page: PageRequest::Cursor { limit: depth, cursor: None },
            time_limit: Some(MAX_TIME),
            skip_cache: true,
            now_micros: self.catalog.now_micros(),
            chance,
            within: vec![prepared.retriever_id().unwrap_or_default()],
        };
        let execution = prepared.plan.execute(&backend, asked).await?;
        match execution.degraded.first() {
            None => Ok(execution),
            Some(left_out) => Err(Error::Unavailable(format!("something was left out: {}", left_out.reason))),
        }
    }

    /// Waits until searches of the plan see every write that was acknowledged before.
    pub(crate) async fn wait_for_index(self: &Arc<Self>, scope: &Scope, plan: &Plan) -> Result<()> {
        self.catch_up(&ScopedBackend::new(self.clone(), scope.clone()), plan).await
    }

    /// Waits until the index has every change of the plan's collections.
    async fn catch_up(&self, backend: &ScopedBackend, plan: &Plan) -> Result<()> {
        // Without names it is every collection; another retriever may read any of them.
        let reads_all = plan.collection_identifiers.is_empty() || plan.nests();
        let named = if reads_all { Vec::new() } else { plan.named_collections() };
        let collections = backend.collections(&named).await?;
        let index = self.index.clone();
        let catalog = self.catalog.clone();
        let waited = move || -> Result<bool> {
            let deadline = Instant::now() + INDEX_WAIT;
            for collection in collections {
                let id = collection.collection_id;
                let head = catalog.read_blocking(|connection| documents::head(connection, &id))?;
                if !index.wait_applied(&id, head, deadline.saturating_duration_since(Instant::now())) {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        match tokio::task::spawn_blocking(waited).await.map_err(Error::internal)?? {
            true => Ok(()),
            false => Err(Error::Busy {
                message: "the index is still taking in writes; try again, or ask for eventual consistency".into(),
                retry_after_seconds: INDEX_WAIT.as_secs(),
            }),
        }
    }

    /// The remembered executions of a stored retriever that `keep`, the newest first unless the request sorts them.
    pub async fn executions(
        &self,
        scope: &Scope,
        identifier: &str,
        request: &ListRequest,
        keep: impl Fn(&Record) -> bool,
    ) -> Result<Page<Record>> {
        let retriever = self.retriever(scope, identifier).await?;
        let own = |record: &Record| record.retriever_id.as_deref() == Some(retriever.id.as_str()) && keep(record);
        Ok(self.memory.history.page(scope, request, own))
    }

    /// The same of retrievers that were sent along.
    pub fn adhoc_executions(
        &self,
        scope: &Scope,
        request: &ListRequest,
        keep: impl Fn(&Record) -> bool,
    ) -> Page<Record> {
        self.memory.history.page(scope, request, |record| record.retriever_id.is_none() && keep(record))
    }

    /// A remembered execution of a stored retriever.
    pub async fn execution(&self, scope: &Scope, identifier: &str, execution_id: &str) -> Result<Record> {
        let retriever = self.retriever(scope, identifier).await?;
        let found = self.memory.history.get(scope, execution_id);
        let own = found.filter(|record| record.retriever_id.as_deref() == Some(retriever.id.as_str()));
        own.ok_or_else(|| Error::missing("execution", execution_id))
    }

    /// A remembered execution of a retriever that was sent along.
    pub fn adhoc_execution(&self, scope: &Scope, execution_id: &str) -> Result<Record> {
        let found = self.memory.history.get(scope, execution_id).filter(|record| record.retriever_id.is_none());
        found.ok_or_else(|| Error::missing("execution", execution_id))
    }
}

/// An execution that has begun, as its record will describe it.
struct Begun {
    execution_id: String,
    created_at: String,
    query_summary: Option<String>,
    inputs_hash: String,
}

impl Begun {
    fn record(
        self,
        reader: Reader,
        prepared: &Prepared,
        outcome: &Result<Execution>,
        stages: Vec<StageReport>,
        completed_at: String,
        took: Duration,
    ) -> Record {
        let processed = stages.iter().map(|s| s.input_count.max(s.output_count)).max().unwrap_or(0);
        let record = Record {
            execution_id: self.execution_id,
            reader,
            retriever_id: prepared.retriever_id(),
            outcome: Outcome::Failed,
            error: None,
            created_at: self.created_at,
            completed_at,
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            stages,
            total_stages: prepared.plan.stages.len(),
            processed,
            found: 0,
            returned: 0,
            collections: prepared.plan.collection_identifiers.clone(),
            query_summary: self.query_summary,
            inputs_hash: self.inputs_hash,
            warnings: Vec::new(),
            degraded: Vec::new(),
            limits: Vec::new(),
            learned_fusion: None,
        };
        match outcome {
            Ok(execution) => Record {
                outcome: execution.status.into(),
                found: execution.total,
                returned: execution.hits.len(),
                warnings: execution.warnings.clone(),
                degraded: execution.degraded.clone(),
                limits: execution.limits.clone(),
                learned_fusion: execution.learned_fusion.clone(),
                ..record
            },
            Err(Error::Internal(_)) => {
                Record { error: Some("something went wrong on the server's side".into()), ..record }
            }
            Err(error) => Record { error: Some(error.to_string()), ..record },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_search_name_its_own_fields() {
        let error = FeatureSearch::placed(Error::invalid(format!("{ONLY_SEARCH}query.input_mode"), "x"));
        assert!(matches!(&error, Error::Invalid(list) if list[0].field == "query.input_mode"), "{error:?}");
        let other = FeatureSearch::placed(Error::invalid("filters", "x"));
        assert!(matches!(&other, Error::Invalid(list) if list[0].field == "filters"));
    }
}
