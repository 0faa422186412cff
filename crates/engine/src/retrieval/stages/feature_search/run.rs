//! Running legs: embed each text once, search all collections at once, give up on what takes too long.

use super::FeatureSearch;
use super::learned::{self, Weighed};
use super::legs::{Ask, Leg, Legs, Sought};
use crate::retrieval::backend::{Backend, Scored, SearchQuery};
use crate::retrieval::execute::{Degraded, LimitEntry, millis};
use crate::retrieval::fusion::{self, Ranking};
use crate::retrieval::params::value_or;
use crate::retrieval::stages::{Run, WorkingSet};
use crate::retrieval::{Hit, limits};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use strata_model::document::VectorValue;
use strata_model::feature::{VectorIndex, VectorKind};
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Result};
use tokio::time::{Instant, timeout_at};

/// One request to the backend.
struct Request {
    leg: usize,
    collection: String,
    query: SearchQuery,
    filter: Arc<Filter>,
    limit: usize,
    min_score: Option<f32>,
}

/// Vectors by model and key of what is sought. A missing one was not made in time.
type Embedded = HashMap<(String, String), Result<VectorValue>>;

impl FeatureSearch {
    pub(super) async fn search(&self, run: &mut Run<'_>, set: WorkingSet) -> Result<WorkingSet> {
        self.note_limits(run);
        let final_top_k = value_or(self.final_top_k.as_ref(), run.variables, super::DEFAULT_FINAL_TOP_K)?;
        let pre = match run.pre_filters.take() {
            Some(filter) => run.filter(filter)?,
            None => Filter::all(),
        };
        let (filter, before) = match set {
            WorkingSet::Unread(filter) => (filter.and(pre), None),
            WorkingSet::Read(hits) if hits.is_empty() => return Ok(WorkingSet::Read(hits)),
            WorkingSet::Read(hits) => {
                let hits = crate::retrieval::stages::keep(hits, &pre);
                (among(&hits), Some(hits))
            }
        };
        self.facets_in_time(run, &filter, before.as_deref()).await?;
        if self.searches.is_empty() {
            let hits = self.filter_only(run, &filter, before, final_top_k).await?;
            return Ok(WorkingSet::Read(hits));
        }
        let legs = self.legs(run, &filter, final_top_k).await?;
        if legs.legs.is_empty() {
            let hits = self.without_legs(run, &legs, &filter, before, final_top_k).await?;
            return Ok(WorkingSet::Read(hits));
        }
        let (legs, mut rankings) = self.rankings(run, legs.legs).await?;
        let weighed = match &self.learned {
            Some(learning) => learned::weigh(learning, run, &legs, &mut rankings).await,
            None => Weighed { fusion: self.fusion.as_str(), weight_set_id: None },
        };
        let fused = fusion::fuse(self.fusion, &rankings);
        run.metadata.insert("fusion".into(), if rankings.len() > 1 { weighed.fusion.into() } else { Value::Null });
        run.metadata.insert("searches".into(), legs.iter().zip(&rankings).map(described).collect());
        let hits = self.collect(run, &legs, fused, before, final_top_k, weighed.weight_set_id).await?;
        Ok(WorkingSet::Read(hits))
    }

    fn note_limits(&self, run: &mut Run<'_>) {
        let (requested, applied) = (self.requested_timeout_ms as usize, self.timeout_ms as usize);
        if requested > applied {
            let stage = Some(run.stage_name.to_owned());
            run.notes.limits.push(LimitEntry {
                name: "hard_timeout_ms".into(),
                requested,
                applied,
                ceiling: limits::MAX_SEARCH_TIMEOUT_MS as usize,
                stage,
            });
        }
    }

    /// Counts facets for as long as a search may take.
    async fn facets_in_time(&self, run: &mut Run<'_>, filter: &Filter, before: Option<&[Hit]>) -> Result<()> {
        let limit = self.limit(run, 1);
        match timeout_at(limit, self.count_facets(run, filter, before)).await {
            Ok(done) => done,
            Err(_) => {
                run.notes.degraded.push(timed_out(run.stage_name, "facets", "facets", self.timeout_ms));
                Ok(())
            }
        }
    }

    /// What a stage gives when none of its searches can be made.
    async fn without_legs(
        &self,
        run: &mut Run<'_>,
        legs: &Legs,
        filter: &Filter,
        before: Option<Vec<Hit>>,
        final_top_k: usize,
    ) -> Result<Vec<Hit>> {
        if legs.empty_queries == 0 && legs.collections == 0 {
            run.notes.warnings.push(format!("stage `{}` found no collection to search", run.stage_name));
            return Ok(Vec::new());
        }
        if legs.absent_indexes > 0 || filter.is_empty() {
            return Err(Error::invalid(
                format!("{}.searches", self.at),
                "every search was skipped: send a query, or name an index that the collections have",
            ));
        }
        run.notes.warnings.push(format!("stage `{}` had no query and used its filters alone", run.stage_name));
        self.filter_only(run, filter, before, final_top_k).await
    }

    /// One ranking per leg, without the legs that failed and may.
    async fn rankings(&self, run: &mut Run<'_>, legs: Vec<Leg>) -> Result<(Vec<Leg>, Vec<Ranking>)> {
        let started = Instant::now();
        let limit = self.limit(run, 1);
        let embedded = embed(run.backend, &legs, limit).await;
        run.metadata.insert("embedding_ms".into(), millis(started.elapsed()).into());
        let legs = surviving(run, legs, &embedded, self.timeout_ms)?;
        let searching = Instant::now();
        let mut requests = Vec::new();
        for (number, leg) in legs.iter().enumerate() {
            for collection in &leg.collections {
                let query = search_query(&leg.ask, &embedded)?;
                requests.push(Request {
                    leg: number,
                    collection: collection.clone(),
                    query,
                    filter: leg.basis.filter.clone(),
                    limit: leg.basis.top_k,
                    min_score: leg.basis.min_score,
                });
            }
        }
        let found = self.ask(run, &legs, requests, limit).await?;
        run.metadata.insert("search_ms".into(), millis(searching.elapsed()).into());
        let rankings = legs
            .iter()
            .zip(found)
            .map(|(leg, hits)| Ranking { weight: leg.basis.weight, hits: merged(hits, leg) })
            .collect();
        Ok((legs, rankings))
    }

    fn limit(&self, run: &Run<'_>, times: u32) -> Instant {
        let limit = Instant::now() + Duration::from_millis(self.timeout_ms) * times;
        run.deadline.map_or(limit, |deadline| deadline.min(limit))
    }

    /// Sends all requests at once, and those that ran out of time once more where the stage says so. Gives the hits by
    /// leg.
    async fn ask(
        &self,
        run: &mut Run<'_>,
        legs: &[Leg],
        requests: Vec<Request>,
        limit: Instant,
    ) -> Result<Vec<Vec<Scored>>> {
        let mut found = vec![Vec::new(); legs.len()];
        let mut late = send(run.backend, requests, limit, &mut found).await?;
        if self.retry && !late.is_empty() {
            let limit = self.limit(run, 2);
            late = send(run.backend, late, limit, &mut found).await?;
        }
        for request in late {
            let feature = &legs[request.leg].feature;
            run.notes.degraded.push(timed_out(run.stage_name, &request.collection, feature, self.timeout_ms));
            run.notes.warnings.push(format!(
                "stage `{}`: the search of `{feature}` in `{}` ran out of time and was left out",
                run.stage_name, request.collection
            ));
        }
        Ok(found)
    }
}

/// Sends requests and gives back those that ran out of time.
async fn send(
    backend: &dyn Backend,
    requests: Vec<Request>,
    limit: Instant,
    found: &mut [Vec<Scored>],
) -> Result<Vec<Request>> {
    let answers = requests
        .iter()
        .map(|r| timeout_at(limit, backend.search(&r.collection, r.query.clone(), &r.filter, r.limit, r.min_score)));
    let answers = join_all(answers).await;
    let mut late = Vec::new();
    for (request, answer) in requests.into_iter().zip(answers) {
        match answer {
            Ok(hits) => found[request.leg].extend(hits?),
            Err(_) => late.push(request),
        }
    }
    Ok(late)
}

async fn embed(backend: &dyn Backend, legs: &[Leg], limit: Instant) -> Embedded {
    let mut wanted: BTreeMap<(&str, &str), (&Sought, VectorKind)> = BTreeMap::new();
    for leg in legs {
        if let Ask::Embed { index, sought } = &leg.ask {
            wanted.insert((&index.model, sought.key()), (sought, index.kind));
        }
    }
    let made = join_all(wanted.iter().map(|((model, _), (sought, kind))| {
        timeout_at(limit, async move {
            match (sought, kind) {
                (Sought::Text(text), VectorKind::Sparse) => {
                    let (indices, values) = backend.embed_sparse_query(model, text).await?;
                    Ok(VectorValue::Sparse { indices, values })
                }
                (Sought::Text(text), VectorKind::MultiDense) => {
                    backend.embed_multi_query(model, text).await.map(VectorValue::Multi)
                }
                (Sought::Text(text), VectorKind::Dense) => {
                    backend.embed_query(model, text).await.map(VectorValue::Dense)
                }
                (Sought::Media(media), _) => backend.embed_media(model, media).await.map(VectorValue::Dense),
            }
        })
    }));
    let made = made.await;
    let key = |(model, key): (&str, &str)| (model.to_owned(), key.to_owned());
    wanted.into_keys().zip(made).filter_map(|(of, made)| Some((key(of), made.ok()?))).collect()
}

/// Drops legs without a vector: those out of time, and those that failed and were not asked for by name.
fn surviving(run: &mut Run<'_>, legs: Vec<Leg>, embedded: &Embedded, timeout_ms: u64) -> Result<Vec<Leg>> {
    let mut kept = Vec::new();
    let mut failure = None;
    for leg in legs {
        let Ask::Embed { index, sought } = &leg.ask else {
            kept.push(leg);
            continue;
        };
        match embedded.get(&(index.model.clone(), sought.key().to_owned())) {
            Some(Ok(_)) => kept.push(leg),
            Some(Err(e)) if !leg.implied => return Err(copied(e)),
            Some(Err(e)) => {
                run.notes.warnings.push(format!("stage `{}` did not search `{}`: {e}", run.stage_name, leg.feature));
                run.notes.degraded.push(Degraded {
                    resource: "model".into(),
                    id: Some(index.model.clone()),
                    reason: e.to_string(),
                    next_step: "make the model available, or name an index in `feature_uri`".into(),
                    stage: Some(run.stage_name.to_owned()),
                });
                failure.get_or_insert_with(|| copied(e));
            }
            None => run.notes.degraded.push(timed_out(run.stage_name, &index.model, &leg.feature, timeout_ms)),
        }
    }
    match failure {
        Some(failure) if kept.is_empty() => Err(failure),
        _ => Ok(kept),
    }
}

/// An error for a second place; errors are not `Clone`.
fn copied(error: &Error) -> Error {
    match error {
        Error::Malformed(m) => Error::Malformed(m.clone()),
        Error::Invalid(list) => Error::Invalid(list.clone()),
        Error::Unauthenticated(m) => Error::Unauthenticated(m.clone()),
        Error::Forbidden(m) => Error::Forbidden(m.clone()),
        Error::Missing { resource, id } => Error::Missing { resource, id: id.clone() },
        Error::Conflict(m) => Error::Conflict(m.clone()),
        Error::TooLarge(m) => Error::TooLarge(m.clone()),
        Error::Quota { resource, current, limit } => Error::Quota { resource, current: *current, limit: *limit },
        Error::Busy { message, retry_after_seconds } => {
            Error::Busy { message: message.clone(), retry_after_seconds: *retry_after_seconds }
        }
        Error::Unavailable(m) => Error::Unavailable(m.clone()),
        Error::Upstream(m) => Error::Upstream(m.clone()),
        Error::Provider(m) => Error::Provider(m.clone()),
        Error::Full(m) => Error::Full(m.clone()),
        Error::Internal(m) => Error::Internal(m.clone()),
    }
}

fn timed_out(stage: &str, id: &str, feature: &str, timeout_ms: u64) -> Degraded {
    Degraded {
        resource: "search".into(),
        id: Some(id.to_owned()),
        reason: format!("`{feature}` did not answer within {timeout_ms} ms"),
        next_step: "raise `hard_timeout_ms`, set `degrade_retry`, or search fewer collections".into(),
        stage: Some(stage.to_owned()),
    }
}

fn search_query(ask: &Ask, embedded: &Embedded) -> Result<SearchQuery> {
    match ask {
        Ask::Lexical(text) => Ok(SearchQuery::Lexical { text: text.clone() }),
        Ask::Vector { index, vector } => Ok(vector_query(index, vector.clone())),
        Ask::Embed { index, sought } => match embedded.get(&(index.model.clone(), sought.key().to_owned())) {
            Some(Ok(vector)) => Ok(vector_query(index, vector.clone())),
            _ => Err(Error::internal("a leg without a vector was kept")),
        },
    }
}

fn vector_query(index: &VectorIndex, vector: VectorValue) -> SearchQuery {
    let name = index.name.clone();
    match (index.kind, vector) {
        (VectorKind::MultiDense, VectorValue::Dense(vector)) => {
            SearchQuery::Multi { index: name, vectors: vec![vector] }
        }
        (VectorKind::Dense, VectorValue::Multi(mut rows)) if rows.len() == 1 => {
            SearchQuery::Dense { index: name, vector: rows.remove(0) }
        }
        (_, VectorValue::Dense(vector)) => SearchQuery::Dense { index: name, vector },
        (_, VectorValue::Multi(vectors)) => SearchQuery::Multi { index: name, vectors },
        (_, VectorValue::Sparse { indices, values }) => SearchQuery::Sparse { index: name, indices, values },
    }
}

/// The rankings of several collections as one.
fn merged(mut hits: Vec<Scored>, leg: &Leg) -> Vec<Scored> {
    hits.retain(|(_, score)| !score.is_nan() && leg.basis.min_score.is_none_or(|least| *score >= least));
    hits.sort_by(|(a_seq, a), (b_seq, b)| b.total_cmp(a).then_with(|| a_seq.cmp(b_seq)));
    hits.truncate(leg.basis.top_k);
    hits
}

/// The filter for documents that are hits already.
fn among(hits: &[Hit]) -> Filter {
    let ids: Vec<Value> = hits.iter().map(|h| h.document.document_id.as_str().into()).collect();
    Filter::Is(Condition {
        field: "document_id".into(),
        operator: Operator::In,
        value: Value::Array(ids),
        case_sensitive: true,
    })
}

fn described((leg, ranking): (&Leg, &Ranking)) -> Value {
    json!({"search": leg.basis.search, "feature": leg.feature, "weight": ranking.weight, "hits": ranking.hits.len()})
}
