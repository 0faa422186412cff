//! What retrieval reads, of one namespace: collections and documents from the catalog, rankings from the index, vectors
//! of query texts from the models.

use super::cache::{self, Kept, Resolved};
use crate::{
    Engine,
    collections::{VECTORS, private},
    models::{reads, tells_tokens_apart},
    retrieval::{
        Backend, Call, CollectionInfo, Lookup, Media, Reply, Rows, Scored, SearchQuery, Snapshot, StoredPlan,
        learning::Feedback, unread,
    },
};
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use strata_media::Family;
use strata_model::{
    Error, Reader, Result, Scope,
    document::{Document, Vectors},
    feature::{Distance, VectorIndex, VectorKind},
    filter::Filter,
};
use strata_store::{
    catalog::{access, documents, resources::Resource, rusqlite::Connection},
    index::{Query, Restriction},
};

/// The engine as one execution in one namespace sees it.
pub(super) struct ScopedBackend {
    engine: Arc<Engine>,
    scope: Scope,
    /// Whether results of stages and vectors of queries are kept, and used where they were.
    keeps: bool,
    /// The collections that were resolved so far. One execution sees them as they were at first.
    known: Mutex<Vec<Resolved>>,
}

impl ScopedBackend {
    pub fn new(engine: Arc<Engine>, scope: Scope) -> Self {
        Self { engine, scope, keeps: true, known: Mutex::default() }
    }

    /// For an execution that is measured: it uses nothing that others have left, and leaves nothing.
    pub fn measuring(engine: Arc<Engine>, scope: Scope) -> Self {
        Self { keeps: false, ..Self::new(engine, scope) }
    }

    async fn resolve(&self, identifiers: &[String]) -> Result<Vec<CollectionInfo>> {
        if let Some(known) = self.known.lock().iter().find(|known| known.identifiers == identifiers) {
            return Ok(known.infos());
        }
        let (engine, scope, wanted) = (self.engine.clone(), self.scope.clone(), identifiers.to_vec());
        let resolved = self
            .engine
            .catalog
            .read(move |connection| {
                let found = cache::resolve(connection, &scope, &wanted, |id| engine.index.applied(id))?;
                Ok(Resolved { identifiers: wanted, found })
            })
            .await?;
        let infos = resolved.infos();
        self.known.lock().push(resolved);
        Ok(infos)
    }

    /// Whether the index named in a query measures how far things are, so that less is better.
    async fn measures_distance(&self, collection_id: &str, query: &SearchQuery) -> Result<bool> {
        let name = match query {
            SearchQuery::Dense { index, .. } | SearchQuery::Multi { index, .. } => index,
            SearchQuery::Sparse { .. } | SearchQuery::Lexical { .. } => return Ok(false),
        };
        let far = |indexes: &[VectorIndex]| {
            let mut named = indexes.iter().filter(|i| i.name == *name);
            named.any(|i| i.distance == Distance::Euclidean && i.kind != VectorKind::Sparse)
        };
        let known = self
            .known
            .lock()
            .iter()
            .flat_map(|one| &one.found)
            .find_map(|seen| (seen.info.collection_id == collection_id).then(|| far(&seen.info.vector_indexes)));
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.resolve(&[collection_id.to_owned()]).await?;
        Ok(found.first().is_some_and(|c| far(&c.vector_indexes)))
    }

    async fn ask(&self, call: Call) -> Result<Reply> {
        let host = reqwest::Url::parse(&call.url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let key = format!("{} {}", self.scope.namespace_id, host.unwrap_or_default());
        self.engine.memory.rates.take(&key, call.rate)?;
        self.engine.ask(call).await
    }

    async fn rank(
        &self,
        collection_id: &str,
        query: SearchQuery,
        filter: &Filter,
        limit: usize,
        min_score: Option<f32>,
    ) -> Result<Vec<Scored>> {
        let is_distance = self.measures_distance(collection_id, &query).await?;
        let threshold = match min_score {
            // Nothing is nearer than 0.
            Some(least) if is_distance && least > 1.0 => return Ok(Vec::new()),
            Some(least) if is_distance => farthest(least),
            other => other,
        };
        let (engine, scope) = (self.engine.clone(), self.scope.clone());
        let (collection, filter) = (collection_id.to_owned(), filter.clone());
        let runtime = tokio::runtime::Handle::current();
        let search = move || -> Result<(Vec<Scored>, _)> {
            let mut learning = None;
            // Where no document has an access list, the index need not look for any.
            let sees_all = engine.catalog.read_blocking(|c| access::sees_all(c, &scope, Some(&collection)))?;
            let reader = if sees_all { Reader::All } else { scope.reader.clone() };
            let restriction = if filter.is_empty() && sees_all {
                Restriction::None
            } else if engine.index.can_filter(&collection, &reader, &filter)? {
                Restriction::Filter(filter)
            } else {
                let seqs = engine.catalog.read_blocking(|c| documents::seqs(c, &scope, Some(&collection), &filter))?;
                learning = Some(runtime.spawn(learn(engine.clone(), scope, collection.clone(), filter)));
                if seqs.is_empty() {
                    return Ok((Vec::new(), learning));
                }
                Restriction::Ids(seqs)
            };
            let hits = engine.index.search(&collection, &reader, &asked(query), &restriction, limit, threshold)?;
            let scored = hits.into_iter().map(|hit| (hit.document_seq, hit.score)).collect();
            Ok((scored, learning))
        };
        let (mut scored, learning) = tokio::task::spawn_blocking(search).await.map_err(Error::internal)??;
        if let Some(learning) = learning {
            learning.await.map_err(Error::internal)?;
        }
        if is_distance {
            scored.iter_mut().for_each(|(_, score)| *score = nearness(*score));
        }
        Ok(scored)
    }
}

/// Has the index answer such a filter itself from the next time on.
async fn learn(engine: Arc<Engine>, scope: Scope, collection_id: String, filter: Filter) {
    if let Err(error) = engine.learn_filter_fields(&scope, &collection_id, &filter).await {
        tracing::warn!(%error, collection_id, "the index did not learn the fields of a filter; such searches stay slow");
    }
}

/// Whether collections that were resolved are as they were.
async fn is_unchanged(engine: Arc<Engine>, scope: Scope, resolved: Arc<[Resolved]>) -> Result<bool> {
    let reader = engine.clone();
    let check = move |connection: &Connection| {
        cache::is_unchanged(connection, &scope, &resolved, |id| reader.index.applied(id))
    };
    engine.catalog.read(check).await
}

/// A distance as a score from 1, for what is the same, towards 0.
fn nearness(distance: f32) -> f32 {
    1.0 / (1.0 + distance.max(0.0))
}

/// The largest distance whose [`nearness`] reaches `least`; `None` where every distance does.
fn farthest(least: f32) -> Option<f32> {
    // A little further, so that rounding loses no hit; the caller compares the scores once more.
    (least > 0.0).then(|| (1.0 / least - 1.0) * (1.0 + f32::EPSILON * 4.0))
}

pub(super) fn info(row: Resource) -> Result<CollectionInfo> {
    Ok(CollectionInfo {
        vector_indexes: private(&row.body, VECTORS)?,
        collection_id: row.id,
        collection_name: row.name,
    })
}

/// The refusal of a collection that is not there.
pub(super) fn unknown(at: &str, identifier: &str) -> Error {
    Error::invalid(at, format!("the collection `{identifier}` does not exist"))
}

fn asked(query: SearchQuery) -> Query {
    match query {
        SearchQuery::Dense { index, vector } => Query::Dense { index, vector },
        SearchQuery::Multi { index, vectors } => Query::Multi { index, vectors },
        SearchQuery::Sparse { index, indices, values } => Query::Sparse { index, indices, values },
        SearchQuery::Lexical { text } => Query::Lexical { text },
    }
}

impl Backend for ScopedBackend {
    fn collections<'a>(&'a self, identifiers: &'a [String]) -> BoxFuture<'a, Result<Vec<CollectionInfo>>> {
        self.resolve(identifiers).boxed()
    }

    fn embed_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>>> {
        async move {
            let fingerprint = self.engine.query_fingerprint(&self.scope, model).await?;
            let vectors = Some(&self.engine.memory.query_vectors).filter(|_| self.keeps);
            if let Some(known) = vectors.and_then(|vectors| vectors.get(&fingerprint, text)) {
                return Ok(known);
            }
            let vector = self.engine.embed_text_now(&self.scope, model, text).await?;
            if let Some(vectors) = vectors {
                vectors.insert(&fingerprint, text, &vector);
            }
            Ok(vector)
        }
        .boxed()
    }

    fn reads(&self, model: &str, family: Family) -> bool {
        reads(model, family)
    }

    fn embed_media<'a>(&'a self, model: &'a str, media: &'a Media) -> BoxFuture<'a, Result<Vec<f32>>> {
        async move {
            match media.family {
                Family::Image => self.engine.embed_image_now(model, media.bytes.clone()).await,
                Family::Audio | Family::Video if reads(model, media.family) => {
                    self.engine.embed_recording_now(media.bytes.clone()).await
                }
                family => Err(unread(model, family)),
            }
        }
        .boxed()
    }

    fn embed_sparse_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        async move {
            let vector = self.engine.sparse_embedder(model).await?.embed_query(text).await?;
            Ok((vector.indices, vector.values))
        }
        .boxed()
    }

    fn embed_multi_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<Vec<Vec<f32>>>> {
        async move {
            match tells_tokens_apart(model) {
                true => self.engine.token_embedder(model).await?.embed_query(text).await,
                false => Ok(vec![self.embed_query(model, text).await?]),
            }
        }
        .boxed()
    }

    fn search<'a>(
        &'a self,
        collection_id: &'a str,
        query: SearchQuery,
        filter: &'a Filter,
        limit: usize,
        min_score: Option<f32>,
    ) -> BoxFuture<'a, Result<Vec<Scored>>> {
        self.rank(collection_id, query, filter, limit, min_score).boxed()
    }

    fn scan<'a>(
        &'a self,
        collection_id: &'a str,
        filter: &'a Filter,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Document>>> {
        let (scope, collection, filter) = (self.scope.clone(), collection_id.to_owned(), filter.clone());
        self.engine.catalog.read(move |c| documents::findable(c, &scope, &collection, &filter, limit)).boxed()
    }

    fn fetch<'a>(&'a self, seqs: &'a [i64]) -> BoxFuture<'a, Result<Vec<Document>>> {
        let (scope, seqs) = (self.scope.clone(), seqs.to_vec());
        self.engine.catalog.read(move |c| documents::fetch(c, &scope, &seqs)).boxed()
    }

    fn vectors_of<'a>(&'a self, seqs: &'a [i64]) -> BoxFuture<'a, Result<HashMap<i64, Vectors>>> {
        let (scope, seqs) = (self.scope.clone(), seqs.to_vec());
        self.engine.catalog.read(move |c| documents::vectors_of(c, &scope, &seqs)).boxed()
    }

    fn feedback<'a>(&'a self, retriever_id: &'a str) -> BoxFuture<'a, Result<Arc<Feedback>>> {
        async move {
            // A retriever that was sent along has no id, and nobody can have done anything with its results.
            if retriever_id.is_empty() {
                return Ok(Arc::default());
            }
            self.engine.feedback(&self.scope, retriever_id).await
        }
        .boxed()
    }

    fn vectors<'a>(&'a self, collection_id: &'a str, document_id: &'a str) -> BoxFuture<'a, Result<Option<Vectors>>> {
        let (scope, collection, document) = (self.scope.clone(), collection_id.to_owned(), document_id.to_owned());
        async move {
            // What is kept of this execution depends on that collection, too.
            self.resolve(&[collection_id.to_owned()]).await?;
            let read = move |c: &Connection| match documents::get(c, &scope, Some(&collection), &document) {
                Ok(found) => documents::vectors(c, found.seq).map(Some),
                Err(Error::Missing { .. }) => Ok(None),
                Err(other) => Err(other),
            };
            self.engine.catalog.read(read).await
        }
        .boxed()
    }

    fn recall<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Option<(String, Arc<Snapshot>)>> {
        async move {
            let (engine, scope) = (&self.engine, &self.scope);
            for key in keys.iter().filter(|_| self.keeps) {
                let Some(kept) = engine.memory.cache.get(scope, key) else { continue };
                let state = engine.catalog.state();
                let is_true = if kept.state == state {
                    Ok(kept.is_applied(|id| engine.index.applied(id)))
                } else {
                    is_unchanged(engine.clone(), scope.clone(), kept.resolved.clone()).await
                };
                match is_true {
                    Ok(true) => {
                        metrics::counter!("strata_retrieval_cache_total", "outcome" => "hit").increment(1);
                        engine.memory.cache.confirm(scope, key, state);
                        self.known.lock().extend(kept.resolved.iter().cloned());
                        return Some((key.clone(), kept.snapshot));
                    }
                    Ok(false) => engine.memory.cache.forget(scope, key),
                    Err(error) => tracing::warn!(%error, "what is kept of executions could not be checked"),
                }
            }
            if self.keeps {
                metrics::counter!("strata_retrieval_cache_total", "outcome" => "miss").increment(1);
            }
            None
        }
        .boxed()
    }

    fn keep(&self, key: String, snapshot: Arc<Snapshot>, ttl: Option<Duration>) {
        if !self.keeps {
            return;
        }
        let resolved: Arc<[Resolved]> = self.known.lock().clone().into();
        let (engine, scope) = (self.engine.clone(), self.scope.clone());
        // The answer need not wait for this.
        tokio::spawn(async move {
            let state = engine.catalog.state();
            if is_unchanged(engine.clone(), scope.clone(), resolved.clone()).await.unwrap_or(false) {
                engine.memory.cache.put(&scope, key, Kept::new(snapshot, resolved, state, ttl));
            }
        });
    }

    fn retriever_plan<'a>(&'a self, identifier: &'a str) -> BoxFuture<'a, Result<StoredPlan>> {
        async move {
            let retriever = self.engine.retriever(&self.scope, identifier).await?;
            Ok(StoredPlan { plan: self.engine.retriever_plan(&retriever)?, retriever_id: retriever.id })
        }
        .boxed()
    }

    fn score_pairs<'a>(
        &'a self,
        model: &'a str,
        query: &'a str,
        documents: Vec<String>,
        batch: usize,
    ) -> BoxFuture<'a, Result<Vec<f32>>> {
        async move { self.engine.cross_encoder(model).await?.score(query, documents, batch).await }.boxed()
    }

    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        self.engine.open_secret(&self.scope.organization_id, name).boxed()
    }

    fn call<'a>(&'a self, call: Call) -> BoxFuture<'a, Result<Reply>> {
        self.ask(call).boxed()
    }

    fn look_up<'a>(&'a self, lookup: Lookup) -> BoxFuture<'a, Result<Rows>> {
        self.engine.look_up(&self.scope.organization_id, lookup).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_becomes_a_score_that_grows_as_things_come_near() {
        assert_eq!((nearness(0.0), nearness(1.0), nearness(3.0)), (1.0, 0.5, 0.25));
        for least in [0.001, 0.25, 0.5, 1.0] {
            let limit = farthest(least).unwrap();
            assert!(nearness(limit) <= least && nearness(limit * 0.99) >= least, "{least}");
        }
        assert_eq!(farthest(0.0), None);
    }
}
