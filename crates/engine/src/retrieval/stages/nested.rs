//! Another retriever inside a stage: executed for each document, with inputs that templates make of it.

use super::{Room, Run};
use crate::retrieval::execute::{Degraded, ExecuteRequest};
use crate::retrieval::params::{Params, Setting, text};
use crate::retrieval::plan::{Plan, RetrieverSpec};
use crate::retrieval::template::{Namespace, Node, Rendered, Variables};
use crate::retrieval::{Hit, PageRequest, limits, view};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::{Error, Fields, Result};
use tokio::time::Instant;

/// Executions of one stage that run beside each other.
const CONCURRENT: usize = 4;

/// Another retriever, and its inputs.
#[derive(Debug)]
pub(super) struct Nested {
    /// Place of the retriever.
    at: String,
    which: Which,
    inputs: Vec<(String, Node)>,
}

#[derive(Debug)]
enum Which {
    /// By id or name.
    Stored(Setting<String>),
    WrittenOut(Arc<Plan>),
}

/// A retriever that can be executed, and what it is within.
struct Ready {
    plan: Arc<Plan>,
    within: Vec<String>,
}

impl Nested {
    /// Reads `retriever_id` or `retriever_config`, and `retriever_inputs`; `None` where neither is there.
    pub fn parse(params: &mut Params<'_>) -> Result<Option<Self>> {
        let inputs = match params.take(&["retriever_inputs"]) {
            None => Vec::new(),
            Some((at, Value::Object(inputs))) => inputs
                .iter()
                .map(|(name, value)| Ok((name.clone(), params.note(Node::parse(value, &format!("{at}.{name}"))?))))
                .collect::<Result<_>>()?,
            Some((at, _)) => return Err(Error::invalid(at, "must be an object of input names to values")),
        };
        let written = params.take(&["retriever_config"]).filter(|(_, config)| *config != Value::Object(Fields::new()));
        let stored_at = params.place("retriever_id");
        let stored = params.setting(&["retriever_id"], text)?;
        match (stored, written) {
            (Some(_), Some((at, _))) => Err(Error::invalid(at, "is there beside `retriever_id`; name one of them")),
            (Some(id), None) => Ok(Some(Self { at: stored_at, which: Which::Stored(id), inputs })),
            (None, Some((at, config))) => {
                let Value::Object(body) = config else {
                    return Err(Error::invalid(at, "must be an object with `stages`"));
                };
                let spec = RetrieverSpec::from_body(&body).map_err(|error| error.under(&at))?;
                let plan = Plan::parse_within(&spec, params.depth() + 1).map_err(|error| error.under(&at))?;
                for warning in &plan.warnings {
                    params.warn(format!("in `{at}`: {warning}"));
                }
                for (evaluation_id, place) in &plan.evaluations {
                    params.names_evaluation(evaluation_id.clone(), format!("{at}.{place}"));
                }
                Ok(Some(Self { at, which: Which::WrittenOut(Arc::new(plan)), inputs }))
            }
            (None, None) => Ok(None),
        }
    }

    /// The plan, where it is written out.
    pub fn written_out(&self) -> Option<&Plan> {
        match &self.which {
            Which::WrittenOut(plan) => Some(plan),
            Which::Stored(_) => None,
        }
    }

    /// Secrets that a written out one reads, with their places from the outside.
    pub fn secrets(&self) -> Vec<(String, String)> {
        let own = self.written_out().map(Plan::secrets).unwrap_or_default();
        own.into_iter().map(|(name, place)| (name, format!("{}.{place}", self.at))).collect()
    }

    /// Connections that a written out one reads, with their places from the outside.
    pub fn connections(&self) -> Vec<(String, String)> {
        let own = self.written_out().map(Plan::connections).unwrap_or_default();
        own.into_iter().map(|(name, place)| (name, format!("{}.{place}", self.at))).collect()
    }

    /// Ids or names of stored retrievers that are named literally, here or further in.
    pub fn retrievers(&self) -> Vec<String> {
        match &self.which {
            Which::WrittenOut(plan) => plan.retrievers(),
            Which::Stored(id) => id.literal().into_iter().collect(),
        }
    }

    /// What the retriever finds for each hit that is meant, at most `limit`; nothing for the others.
    pub async fn found_for(
        &self,
        run: &mut Run<'_>,
        hits: &[Hit],
        meant: &[bool],
        limit: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let Some(ready) = self.ready(run).await? else { return Ok(vec![Vec::new(); hits.len()]) };
        let mut asked: Vec<Fields> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut places = Vec::with_capacity(hits.len());
        for (hit, is_meant) in hits.iter().zip(meant) {
            let inputs = if *is_meant { self.inputs_of(hit, run.variables)? } else { None };
            places.push(inputs.map(|inputs| {
                *known.entry(Value::Object(inputs.clone()).to_string()).or_insert_with(|| {
                    asked.push(inputs);
                    asked.len() - 1
                })
            }));
        }
        if asked.len() > limits::MAX_NESTED_EXECUTIONS {
            run.cut("nested_executions", asked.len(), limits::MAX_NESTED_EXECUTIONS);
            asked.truncate(limits::MAX_NESTED_EXECUTIONS);
        }
        run.metadata.insert("executions".into(), asked.len().into());
        let found = self.execute(run, &ready, asked, limit).await?;
        let mut room = Room::default();
        let mut of = |place: Option<usize>| {
            let hits = place.and_then(|place| found.get(place)).into_iter().flatten();
            hits.map(|hit| room.copy(hit)).collect()
        };
        places.into_iter().map(&mut of).collect()
    }

    /// The plan, unless it is within itself or too deep; `None` where the input that names it was not sent.
    async fn ready(&self, run: &Run<'_>) -> Result<Option<Ready>> {
        let (id, plan) = match &self.which {
            // A written out one has no id; its depth was checked with the plan around it.
            Which::WrittenOut(plan) => (String::new(), plan.clone()),
            Which::Stored(id) => {
                let Some(identifier) = id.value(run.variables)? else { return Ok(None) };
                let stored = run.backend.retriever_plan(&identifier).await.map_err(|error| match error {
                    Error::Missing { .. } => {
                        Error::invalid(&self.at, format!("the retriever `{identifier}` does not exist"))
                    }
                    other => other,
                })?;
                if run.within.contains(&stored.retriever_id) {
                    return Err(Error::invalid(
                        &self.at,
                        format!("the retriever `{identifier}` would be executed within itself"),
                    ));
                }
                (stored.retriever_id, stored.plan)
            }
        };
        if run.within.len() > limits::MAX_NESTED_RETRIEVERS {
            return Err(Error::invalid(
                &self.at,
                format!("retrievers nest more than {} deep here", limits::MAX_NESTED_RETRIEVERS),
            ));
        }
        let mut within = run.within.to_vec();
        within.push(id);
        Ok(Some(Ready { plan, within }))
    }

    /// The inputs for a document; `None` where it lacks something that they read. An input of the execution around it
    /// that was not sent is left out.
    fn inputs_of(&self, hit: &Hit, variables: &Variables) -> Result<Option<Fields>> {
        let reads = |node: &Node| node.references().iter().any(|reference| reference.namespace == Namespace::Doc);
        let reads_document = self.inputs.iter().any(|(_, node)| reads(node));
        let own = reads_document.then(|| variables.with_doc(&view::field_view(hit)));
        let variables = own.as_ref().unwrap_or(variables);
        let mut inputs = Fields::new();
        for (name, node) in &self.inputs {
            match node.render(variables)? {
                Rendered::Value(value) => drop(inputs.insert(name.clone(), value)),
                Rendered::Missing(names) if names.is_empty() => return Ok(None),
                Rendered::Missing(_) => {}
            }
        }
        Ok(Some(inputs))
    }

    async fn execute(
        &self,
        run: &mut Run<'_>,
        ready: &Ready,
        asked: Vec<Fields>,
        limit: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let (backend, now_micros, chance, deadline) = (run.backend, run.now_micros, run.chance, run.deadline);
        let request = |inputs: Fields| ExecuteRequest {
            inputs,
            filters: None,
            page: PageRequest::Cursor { limit, cursor: None },
            time_limit: deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
            skip_cache: false,
            now_micros,
            chance,
            within: ready.within.clone(),
        };
        let executions = asked.into_iter().map(|inputs| ready.plan.execute(backend, request(inputs)));
        let done: Vec<_> = stream::iter(executions)
            .buffered(CONCURRENT)
            .map_err(|error| match error {
                Error::Invalid(_) => error.under(&self.at),
                other => other,
            })
            .try_collect()
            .await?;
        let mut found = Vec::with_capacity(done.len());
        for execution in done {
            found.push(execution.hits);
            let stage = Some(run.stage_name.to_owned());
            for degraded in execution.degraded {
                let degraded = Degraded { stage: stage.clone(), ..degraded };
                if !run.notes.degraded.contains(&degraded) {
                    run.notes.degraded.push(degraded);
                }
            }
            for warning in execution.warnings {
                let warning = format!("in stage `{}`: {warning}", run.stage_name);
                if !run.notes.warnings.contains(&warning) {
                    run.notes.warnings.push(warning);
                }
            }
        }
        Ok(found)
    }
}
