//! Executing a retriever, stored or sent along, and what an execution answers.

use super::{
    freshness,
    stream::{self, StreamedEvent},
};
use crate::{
    App,
    documents::{MAX_REFERENCES, document_json, expand},
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    openapi::{any_object, maybe_object},
    published::PublicView,
};
use axum::{extract::State, http::HeaderMap, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strata_engine::{
    documents::{Show, ShowVectors, Shown},
    published::Exposure,
    retrieval::{Degraded, Execution, Group, Hit, LimitEntry, PageRequest, Plan, provenance},
    retrievers::{Execute, Executed, Outcome, Prepared},
};
use strata_model::{Error, Fields, Permission, Result, Scope};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(execute_adhoc_retriever)).routes(routes!(execute_retriever))
}

#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExecuteQuery {
    /// Whether hits carry signed URLs of their blobs.
    return_presigned_urls: Option<bool>,
    /// Whether hits carry their vectors.
    return_vectors: Option<bool>,
    /// Whether the answer carries `explain_plan`.
    explain: Option<bool>,
    /// `false` leaves out `results`, the copy of `documents` that older clients read.
    include_legacy_results: Option<bool>,
    /// Executes the stages though what an equal execution has found is kept.
    skip_cache: Option<bool>,
}

impl ExecuteQuery {
    /// Nothing but whether hits carry signed URLs of their blobs.
    pub(crate) fn showing_urls(urls: bool) -> Self {
        Self { return_presigned_urls: Some(urls), ..Self::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ConsistencyMode {
    /// Waits for the index to have every acknowledged write.
    Strong,
    Eventual,
}

/// Which writes an execution must see.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
struct ReadConsistencyOption {
    mode: ConsistencyMode,
    /// Taken and of no effect: `eventual` lags by no more than the writes under way.
    #[serde(default)]
    max_staleness_ms: Option<u64>,
}

/// How to execute a stored retriever.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExecuteRetrieverRequest {
    /// Values of the retriever's inputs by name.
    #[schema(schema_with = maybe_object)]
    inputs: Option<Map<String, Value>>,
    /// A filter that every document must satisfy besides the stages'.
    filters: Option<Value>,
    /// `{method: offset | cursor | keyset | scroll, …}`.
    #[schema(schema_with = maybe_object)]
    pagination: Option<Value>,
    /// Hits of the page, where `pagination` does not say.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 500)]
    limit: Option<Value>,
    /// The same as `limit`.
    #[schema(value_type = Option<i64>)]
    page_size: Option<Value>,
    /// Where to go on: `pagination.cursor` of the page before.
    #[schema(value_type = Option<String>)]
    cursor: Option<Value>,
    /// `{limit}`, as some clients write it.
    #[schema(schema_with = maybe_object)]
    settings: Option<Value>,
    /// Answers Server-Sent Events: one as each stage starts and ends, `execution_complete` with the hits, `[DONE]`.
    stream: Option<bool>,
    /// Paths of fields that name other documents, which then stand in the hit's `_expanded`.
    expand: Option<Vec<String>>,
    /// Executes the stages though what an equal execution has found is kept.
    skip_cache: Option<bool>,
    return_presigned_urls: Option<bool>,
    return_vectors: Option<bool>,
    /// A token of a write that must be seen; has the effect of strong consistency.
    write_token: Option<String>,
    consistency: Option<ReadConsistencyOption>,
    /// Not available yet, and refused.
    target_collection_id: Option<String>,
    explain: Option<bool>,
}

/// How to execute a retriever that is sent along.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct AdhocExecuteRequest {
    /// Ids or names of the collections it reads; empty means every one of the namespace.
    collection_identifiers: Option<Vec<String>>,
    #[schema(value_type = Option<Vec<Object>>)]
    stages: Option<Vec<Value>>,
    /// Names of inputs to `{type, required, default}`; without it any input is taken.
    #[schema(schema_with = maybe_object)]
    input_schema: Option<Map<String, Value>>,
    budget_limits: Option<super::wire::BudgetLimits>,
    /// Values of the inputs by name.
    #[schema(schema_with = maybe_object)]
    inputs: Option<Map<String, Value>>,
    /// A filter that every document must satisfy besides the stages'.
    filters: Option<Value>,
    /// `{method: offset | cursor | keyset | scroll, …}`.
    #[schema(schema_with = maybe_object)]
    pagination: Option<Value>,
    /// Hits of the page, where `pagination` does not say.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 500)]
    limit: Option<Value>,
    /// The same as `limit`.
    #[schema(value_type = Option<i64>)]
    page_size: Option<Value>,
    /// Where to go on: `pagination.cursor` of the page before.
    #[schema(value_type = Option<String>)]
    cursor: Option<Value>,
    /// `{limit}`, as some clients write it.
    #[schema(schema_with = maybe_object)]
    settings: Option<Value>,
    /// Answers Server-Sent Events.
    stream: Option<bool>,
    /// The same as `collection_identifiers`.
    collection_ids: Option<Vec<String>>,
}

/// The page of hits that a request asks for, and warnings about how it was understood.
fn page(fields: [(&str, &Option<Value>); 5]) -> Result<(PageRequest, Vec<String>)> {
    let sent = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
    PageRequest::parse(&sent.collect())
}

/// What an answer shows besides the hits, and how.
#[derive(Debug, Clone, Default)]
pub(super) struct Style {
    pub show: Show,
    pub explain: bool,
    /// Whether `results` repeats `documents`.
    pub results: bool,
    /// Paths of fields that name other documents.
    pub expand: Vec<String>,
    /// Warnings about the request itself.
    pub warnings: Vec<String>,
    pub consistency_mode: Option<&'static str>,
    /// Bounds that cut the request itself short.
    pub limits: Vec<LimitEntry>,
    /// For the public: what it may see.
    pub view: Option<PublicView>,
}

impl Style {
    pub(super) fn showing(urls: bool, vectors: bool) -> Show {
        Show { vectors: if vectors { ShowVectors::All } else { ShowVectors::None }, urls, ..Show::default() }
    }
}

/// An execution that is asked for, and the style of its answer.
pub(crate) struct Asked {
    execute: Execute,
    style: Style,
    /// As Server-Sent Events.
    stream: bool,
}

impl Asked {
    /// Refuses what would show the public more than is exposed.
    pub(crate) fn check_public(&self, exposure: &Exposure) -> Result<()> {
        if let Some(filters) = &self.execute.filters {
            exposure.check_filter(filters)?;
        }
        if let Some(at) = self.style.expand.iter().find(|at| !exposure.shows(at)) {
            return Err(Error::invalid("expand", format!("`{at}` is not a field that is shown here")));
        }
        if self.style.show.vectors != ShowVectors::None && !exposure.shows("vectors") {
            return Err(Error::invalid("return_vectors", "vectors are not shown here"));
        }
        match self.style.explain {
            true => Err(Error::invalid("explain", "is for the owner of the retriever")),
            false => Ok(()),
        }
    }

    /// Refuses a filter among the inputs of `plan` over what is not exposed.
    pub(crate) fn check_public_inputs(&self, plan: &Plan, exposure: &Exposure) -> Result<()> {
        match plan.filter_in_inputs(&self.execute.inputs) {
            Some(filter) => exposure.check_filter(filter).map_err(|error| error.under("inputs")),
            None => Ok(()),
        }
    }

    /// Cuts the page down to `most` hits.
    pub(crate) fn limit_page(&mut self, most: usize) {
        if let Some(requested) = self.execute.page.cap(most) {
            let name = "max_results_per_query".to_owned();
            self.style.limits.push(LimitEntry { name, requested, applied: most, ceiling: most, stage: None });
        }
    }

    /// Shows what `view` lets through, and nothing else.
    pub(crate) fn show_to_public(&mut self, view: PublicView) {
        self.style.view = Some(view);
    }
}

/// Whether body or query asks for it.
pub(super) fn either(a: Option<bool>, b: Option<bool>) -> bool {
    a.unwrap_or(false) || b.unwrap_or(false)
}

impl ExecuteRetrieverRequest {
    pub(crate) fn read(self, query: ExecuteQuery, execution_id: String) -> Result<Asked> {
        let (page, warnings) = page([
            ("pagination", &self.pagination),
            ("limit", &self.limit),
            ("page_size", &self.page_size),
            ("cursor", &self.cursor),
            ("settings", &self.settings),
        ])?;
        if self.target_collection_id.is_some() {
            return Err(Error::invalid(
                "target_collection_id",
                "is not available in this version: hits cannot be written to a collection",
            ));
        }
        let mode = self.consistency.map(|consistency| consistency.mode);
        let sees_all_writes = mode == Some(ConsistencyMode::Strong) || self.write_token.is_some();
        let execute = Execute {
            execution_id,
            inputs: self.inputs.unwrap_or_default(),
            filters: self.filters,
            page,
            skip_cache: either(self.skip_cache, query.skip_cache),
            sees_all_writes,
        };
        let style = Style {
            show: Style::showing(
                either(self.return_presigned_urls, query.return_presigned_urls),
                either(self.return_vectors, query.return_vectors),
            ),
            explain: either(self.explain, query.explain),
            results: query.include_legacy_results.unwrap_or(true),
            expand: self.expand.unwrap_or_default(),
            warnings,
            limits: Vec::new(),
            view: None,
            consistency_mode: Some(if sees_all_writes { "strong" } else { "eventual" }),
        };
        Ok(Asked { execute, style, stream: self.stream.unwrap_or(false) })
    }
}

impl AdhocExecuteRequest {
    /// The retriever that was sent along, and the rest of the request.
    fn split(self) -> (Fields, ExecuteRetrieverRequest) {
        let mut retriever = Fields::new();
        let collections = self.collection_identifiers.filter(|list| !list.is_empty()).or(self.collection_ids);
        retriever.extend(collections.map(|list| ("collection_identifiers".to_owned(), json!(list))));
        retriever.extend(self.stages.map(|list| ("stages".to_owned(), json!(list))));
        retriever.extend(self.input_schema.map(|schema| ("input_schema".to_owned(), Value::Object(schema))));
        retriever.extend(self.budget_limits.map(|limits| ("budget_limits".to_owned(), json!(limits))));
        let rest = ExecuteRetrieverRequest {
            inputs: self.inputs,
            filters: self.filters,
            pagination: self.pagination,
            limit: self.limit,
            page_size: self.page_size,
            cursor: self.cursor,
            settings: self.settings,
            stream: self.stream,
            ..ExecuteRetrieverRequest::default()
        };
        (retriever, rest)
    }
}

/// Execute stages without storing them
///
/// Runs `stages` once. The answer is that of a stored retriever, without `retriever_id`. Stages that call something outside
/// need `write`.
#[utoipa::path(post, path = "/v1/retrievers/execute", tag = "AdhocRetrievers", params(ExecuteQuery),
    responses((status = 200, content((ExecuteRetrieverResponse = "application/json"), (StreamedEvent = "text/event-stream"))), (status = 304, description = "Nothing has changed since the answer whose `ETag` was sent in `If-None-Match`")))]
async fn execute_adhoc_retriever(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Query(query): Query<ExecuteQuery>,
    Json(body): Json<AdhocExecuteRequest>,
) -> Result<Response, ApiError> {
    tenant.may(Permission::Read)?;
    let known = freshness::known(&headers);
    let (retriever, body) = body.split();
    let asked = body.read(query, app.new_execution_id())?;
    let prepared = app.prepare_adhoc(&retriever)?;
    if prepared.plan.reaches_outside() {
        // A stored retriever was written by somebody who may write; one that is sent along must be, too.
        tenant.may(Permission::Write)?;
    }
    answered(app, tenant.scope, prepared, asked, known).await
}

/// Execute a retriever
///
/// Runs the stages over the documents and answers the hits, best first, under `documents` and once more under `results`.
/// What had to be left out is in `degraded`, with `status` `degraded`.
#[utoipa::path(post, path = "/v1/retrievers/{retriever_id}/execute", tag = "Retrievers",
    params(("retriever_id" = String, Path), ExecuteQuery),
    responses((status = 200, content((ExecuteRetrieverResponse = "application/json"), (StreamedEvent = "text/event-stream"))), (status = 304, description = "Nothing has changed since the answer whose `ETag` was sent in `If-None-Match`")))]
async fn execute_retriever(
    State(app): State<App>,
    tenant: Tenant,
    headers: HeaderMap,
    Path(identifier): Path<String>,
    Query(query): Query<ExecuteQuery>,
    Json(body): Json<ExecuteRetrieverRequest>,
) -> Result<Response, ApiError> {
    tenant.may(Permission::Read)?;
    let prepared = app.prepare_retriever(&tenant.scope, &identifier).await?;
    let asked = body.read(query, app.new_execution_id())?;
    answered(app, tenant.scope, prepared, asked, freshness::known(&headers)).await
}

/// `known` are the tags of answers that the caller has.
pub(crate) async fn answered(
    app: App,
    scope: Scope,
    prepared: Prepared,
    asked: Asked,
    known: Vec<String>,
) -> Result<Response, ApiError> {
    let Asked { execute, style, stream } = asked;
    if stream {
        return Ok(stream::events(app, scope, prepared, execute, style));
    }
    let skipped = execute.skip_cache;
    let executed = app.execute(&scope, &prepared, execute).await;
    let executed = executed.map_err(|error| match &style.view {
        Some(view) => view.fault(error),
        None => error,
    })?;
    let answer = response(&app, &scope, &prepared.plan, executed, style).await?;
    Ok(freshness::respond(answer, skipped, &known))
}

/// What an execution answers.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ExecuteRetrieverResponse {
    /// Empty where the retriever is not stored, and for the public.
    pub retriever_id: String,
    pub execution_id: String,
    /// `completed`, or `degraded` where something was left out.
    pub status: String,
    /// The hits of the page, best first: documents with their `score` and, in `_provenance`, the searches that found them
    /// (rank, raw score, share of the fused score), their place after each stage and their position in their source.
    #[schema(value_type = Vec<Object>)]
    pub documents: Vec<Value>,
    /// The same as `documents`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub results: Option<Vec<Value>>,
    /// The groups of the page, where a stage has grouped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<HitGroup>>,
    /// `method`, `limit` or `page_size`, `returned`, `total`, `has_next`, and where to go on.
    #[schema(schema_with = any_object)]
    pub pagination: Map<String, Value>,
    /// What each stage did, by its name, and how long all of it took.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(schema_with = any_object)]
    pub stage_statistics: Value,
    #[schema(value_type = Vec<Object>)]
    pub facets: Vec<Value>,
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(schema_with = any_object)]
    pub budget: Value,
    pub warnings: Vec<String>,
    /// What was left out: `resource`, `reason`, `next_step`.
    #[schema(value_type = Vec<Object>)]
    pub degraded: Vec<Degraded>,
    /// Bounds that cut the request short: `name`, `requested`, `applied`, `ceiling`.
    #[schema(value_type = Vec<Object>)]
    pub limits: Vec<LimitEntry>,
    /// How the inputs were understood.
    #[serde(skip_serializing_if = "Value::is_null")]
    #[schema(schema_with = any_object)]
    pub interpretation: Value,
    pub optimization_applied: bool,
    /// Where a stage has learned fusion: `sampled_weights` of the searches, whose `interactions` they come from, and
    /// whether it is `exploring`; or the `weight_set_id` of the approved weights that it used instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = maybe_object)]
    pub learned_fusion_context: Option<Value>,
    /// Whether what an equal execution has found was still true and is answered.
    pub cache_hit: bool,
    /// When that was found, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_at: Option<f64>,
    pub enrichment_skipped: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency_mode: Option<String>,
    /// Where it was asked for: the stages as they were understood, and the way of each hit through them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = maybe_object)]
    pub explain_plan: Option<Value>,
}

/// Hits that share a value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HitGroup {
    #[schema(value_type = Object)]
    pub group_key: Value,
    pub document_ids: Vec<String>,
    pub count: i64,
}

/// An execution as it is answered.
pub(super) async fn response(
    app: &App,
    scope: &Scope,
    plan: &Plan,
    executed: Executed,
    style: Style,
) -> Result<ExecuteRetrieverResponse, ApiError> {
    let Executed { execution_id, retriever_id, execution } = executed;
    let found = execution.hits.iter().map(|hit| hit.document.clone()).collect();
    let shown = app.show_documents(scope, found, style.show).await?;
    let mut documents: Vec<Fields> =
        execution.hits.iter().zip(shown).map(|(hit, shown)| hit_json(hit, shown)).collect();
    let mut warnings = style.warnings;
    // Those of the execution are about the retriever.
    if style.view.is_none() {
        warnings.extend(execution.warnings.iter().cloned());
    }
    if expand(app, scope, &mut documents, &style.expand).await? {
        warnings.push(format!("`expand` resolves at most {MAX_REFERENCES} references; some are left out"));
    }
    if let Some(view) = &style.view {
        documents = view.documents(documents, execution.hits.iter().map(|hit| &hit.document.fields));
    }
    let documents: Vec<Value> = documents.into_iter().map(Value::Object).collect();
    let answer = ExecuteRetrieverResponse {
        retriever_id: retriever_id.unwrap_or_default(),
        execution_id,
        status: Outcome::from(execution.status).as_str().to_owned(),
        results: style.results.then(|| documents.clone()),
        documents,
        groups: groups(&execution),
        stage_statistics: execution.statistics(),
        budget: budget(plan, &execution),
        warnings,
        interpretation: json!(execution.interpretation),
        consistency_mode: style.consistency_mode.map(str::to_owned),
        explain_plan: style.explain.then(|| explained(plan, &execution)),
        pagination: execution.pagination,
        cache_hit: execution.cached_at.is_some(),
        cached_at: execution.cached_at,
        facets: execution.facets,
        learned_fusion_context: execution.learned_fusion,
        degraded: execution.degraded,
        limits: style.limits.into_iter().chain(execution.limits).collect(),
        ..ExecuteRetrieverResponse::default()
    };
    Ok(match style.view {
        Some(view) => view.answer(answer),
        None => answer,
    })
}

fn hit_json(hit: &Hit, shown: Shown) -> Fields {
    let mut json = document_json(shown);
    json.extend(hit.score.map(|score| ("score".to_owned(), score.into())));
    if !hit.scores.is_empty() {
        json.insert("scores".into(), Value::Object(hit.scores.clone()));
    }
    json.extend(hit.group.clone().map(|key| ("group_key".to_owned(), key)));
    json.insert("_provenance".into(), provenance::of(hit));
    json
}

fn groups(execution: &Execution) -> Option<Vec<HitGroup>> {
    let group = |group: Group<'_>| HitGroup {
        group_key: group.key,
        count: group.hits.len() as i64,
        document_ids: group.hits.iter().map(|hit| hit.document.document_id.clone()).collect(),
    };
    execution.groups().map(|groups| groups.into_iter().map(group).collect())
}

pub(super) fn budget(plan: &Plan, execution: &Execution) -> Value {
    json!({ "credits_used": 0.0, "time_elapsed_ms": execution.total_ms, "max_time_ms": plan.max_time_ms })
}

/// The stages as they were understood, and the way of each hit through them.
fn explained(plan: &Plan, execution: &Execution) -> Value {
    let hit = |hit: &Hit| {
        json!({
            "document_id": hit.document.document_id,
            "collection_id": hit.document.collection_id,
            "score": hit.score,
            "searches": hit.searches,
            "movements": hit.movements,
        })
    };
    json!({
        "stages": plan.stages_json(),
        "collections": plan.collection_identifiers,
        "inputs": execution.inputs,
        "hits": execution.hits.iter().map(hit).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value, query: ExecuteQuery) -> Result<(Execute, Style)> {
        let body: ExecuteRetrieverRequest = serde_json::from_value(body).unwrap();
        body.read(query, "exec_1".into()).map(|asked| (asked.execute, asked.style))
    }

    #[test]
    fn body_and_query_say_together_what_is_shown() {
        let (_, style) = read(json!({ "return_vectors": false }), ExecuteQuery::default()).unwrap();
        assert_eq!((style.show.vectors, style.show.urls, style.results), (ShowVectors::None, false, true));
        let query =
            ExecuteQuery { return_vectors: Some(true), include_legacy_results: Some(false), ..ExecuteQuery::default() };
        let (_, style) = read(json!({ "return_vectors": false, "explain": true }), query).unwrap();
        assert_eq!((style.show.vectors, style.explain, style.results), (ShowVectors::All, true, false));
    }

    #[test]
    fn pages_are_read_in_every_spelling() {
        for body in [json!({ "limit": 3 }), json!({ "page_size": 3 }), json!({ "settings": { "limit": 3 } })] {
            let (execute, _) = read(body, ExecuteQuery::default()).unwrap();
            assert_eq!(execute.page, PageRequest::Cursor { limit: 3, cursor: None });
        }
        assert!(read(json!({ "limit": 0 }), ExecuteQuery::default()).unwrap_err().to_string().contains("`limit`"));
    }

    #[test]
    fn consistency_is_honoured_and_writing_refused() {
        let mode = |body: Value| read(body, ExecuteQuery::default()).unwrap().0.sees_all_writes;
        assert!(!mode(json!({ "consistency": { "mode": "eventual" } })));
        assert!(mode(json!({ "consistency": { "mode": "strong" } })) && mode(json!({ "write_token": "x" })));
        assert!(read(json!({ "target_collection_id": "col_1" }), ExecuteQuery::default()).is_err());
    }

    #[test]
    fn a_retriever_that_is_sent_along_is_told_from_its_request() {
        let body = json!({ "stages": [{ "type": "limit" }], "collection_ids": ["a"], "inputs": { "q": "x" }, "stream": true, "limit": 4 });
        let (retriever, rest) = serde_json::from_value::<AdhocExecuteRequest>(body).unwrap().split();
        assert_eq!(
            Value::Object(retriever),
            json!({ "stages": [{ "type": "limit" }], "collection_identifiers": ["a"] })
        );
        assert_eq!((rest.stream, rest.limit), (Some(true), Some(json!(4))));
    }
}
