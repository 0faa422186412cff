//! Searches: a reader and a filter as the engine's conditions, a query as its vector.

use super::Shard;
use super::fault::{Fault, guarded};
use super::layout::usable;
use super::vectors::{sparse, vector};
use crate::index::{Hit, LEXICAL, Query, Restriction, filter};
use qdrant_edge as qe;
use strata_model::document::VectorValue;
use strata_model::feature::{Distance, VectorKind};
use strata_model::filter::Filter;
use strata_model::{Error, Reader, Result};

impl Shard {
    /// The one place where a search learns which documents its reader sees.
    fn compile(&self, reader: &Reader, filter: &Filter) -> Result<Option<qe::Filter>, filter::Unfit> {
        let readable = filter::readable(reader, &self.spec.payload)?;
        let wanted = filter::compile(filter, &self.spec.payload, &self.odd.lock())?;
        let compiled = match (readable, wanted) {
            (None, None) => return Ok(None),
            (None, Some(tree)) if tree.get("key").is_none() => tree,
            // A lone condition is a `must` of one.
            (Some(one), None) | (None, Some(one)) => serde_json::json!({ "must": [one] }),
            (Some(readable), Some(wanted)) => serde_json::json!({ "must": [readable, wanted] }),
        };
        serde_json::from_value(compiled).map(Some).map_err(|_| filter::Unfit)
    }

    pub(in crate::index) fn can_filter(&self, reader: &Reader, filter: &Filter) -> bool {
        self.compile(reader, filter).is_ok()
    }

    fn allowed(&self, reader: &Reader, filter: &Filter) -> Result<Option<qe::Filter>> {
        let unfit = |_| Error::Unavailable("the index cannot evaluate this filter now; filter by ids".into());
        self.compile(reader, filter).map_err(unfit)
    }

    /// The outer error is the caller's fault, the inner the shard's.
    pub(in crate::index) fn search(
        &self,
        reader: &Reader,
        query: &Query,
        restriction: &Restriction,
        limit: usize,
        threshold: Option<f32>,
        ef: usize,
    ) -> Result<Result<Vec<Hit>, Fault>> {
        let Some((using, vector, ascending)) = self.query(query)? else { return Ok(Ok(Vec::new())) };
        let (filter, exact) = match restriction {
            Restriction::None => (self.allowed(reader, &Filter::all())?, false),
            Restriction::Filter(filter) => (self.allowed(reader, filter)?, false),
            Restriction::Ids(ids) => {
                let ids = ids.iter().filter_map(|id| u64::try_from(*id).ok()).map(qe::PointId::NumId);
                let has_id: qe::HasIdCondition = ids.collect();
                (Some(qe::Filter::new_must(qe::Condition::HasId(has_id))), true)
            }
        };
        let request = qe::SearchRequest {
            query: qe::QueryEnum::Nearest(qe::NamedQuery::new(vector, using)),
            filter,
            params: Some(qe::SearchParams { hnsw_ef: Some(ef.max(limit)), exact, ..Default::default() }),
            limit,
            offset: 0,
            with_payload: Some(qe::WithPayloadInterface::Bool(false)),
            with_vector: Some(qe::WithVector::Bool(false)),
            score_threshold: threshold,
        };
        let found = match guarded("search", || self.engine().search(request)) {
            Ok(found) => found,
            Err(fault) => return Ok(Err(fault)),
        };
        let words = matches!(query, Query::Lexical { .. });
        let mut hits: Vec<Hit> = Vec::with_capacity(found.len());
        for point in found {
            if let qe::PointId::NumId(id) = point.id
                && let Ok(document_seq) = i64::try_from(id)
                && !(words && point.score <= 0.0)
            {
                hits.push(Hit { document_seq, score: point.score });
            }
        }
        hits.sort_by(|a, b| {
            let order = a.score.total_cmp(&b.score);
            (if ascending { order } else { order.reverse() }).then(a.document_seq.cmp(&b.document_seq))
        });
        Ok(Ok(hits))
    }

    /// The named vector to search, the query in the engine's terms, and whether lower scores are better. `None` where
    /// nothing can be found (a query of stop words).
    fn query(&self, query: &Query) -> Result<Option<(String, qe::VectorInternal, bool)>> {
        let (name, value) = match query {
            Query::Lexical { text } => {
                let Some(bm25) = &self.bm25 else { return Ok(None) };
                let words = bm25.embed_query(text);
                if words.indices.is_empty() {
                    return Ok(None);
                }
                let vector = sparse(&words.indices, &words.values).map_err(|reason| Error::invalid("query", reason))?;
                return Ok(Some((LEXICAL.to_owned(), vector, false)));
            }
            Query::Dense { index, vector } => (index, VectorValue::Dense(vector.clone())),
            Query::Multi { index, vectors } => (index, VectorValue::Multi(vectors.clone())),
            Query::Sparse { index, indices, .. } if indices.is_empty() => (index, VectorValue::Dense(Vec::new())),
            Query::Sparse { index, indices, values } => {
                (index, VectorValue::Sparse { indices: indices.clone(), values: values.clone() })
            }
        };
        let Some(index) = usable(&self.spec).find(|v| v.name == *name) else {
            return Err(Error::Unavailable(format!(
                "vector index `{name}` of collection `{}` is not built (yet)",
                self.spec.collection_id
            )));
        };
        if let (VectorKind::Sparse, Query::Sparse { indices, .. }) = (index.kind, query)
            && indices.is_empty()
        {
            return Ok(None);
        }
        let vector = vector(index, &value)
            .map_err(|reason| Error::invalid("query", format!("vector index `{name}`: {reason}")))?;
        let ascending = index.kind != VectorKind::Sparse && index.distance == Distance::Euclidean;
        Ok(Some((name.clone(), vector, ascending)))
    }
}
