//! A backend in memory for tests: documents in vectors, cosine by hand, words by counting.

use super::backend::{Backend, Call, CollectionInfo, Lookup, Reply, Rows, Scored, SearchQuery, StoredPlan};
use super::learning::Feedback;
use super::plan::Plan;
use super::{Hit, Snapshot, view};
use futures::future::{BoxFuture, FutureExt};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strata_model::document::{Document, Lineage, VectorValue, Vectors};
use strata_model::feature::{Distance, VectorIndex, VectorKind};
use strata_model::filter::Filter;
use strata_model::{Error, Result};

pub fn document(seq: i64, fields: Value) -> Document {
    Document {
        seq,
        document_id: format!("doc_{seq}"),
        collection_id: "col_a".into(),
        lineage: Lineage::default(),
        fields: fields.as_object().cloned().unwrap_or_default(),
        source_blobs: Vec::new(),
        document_blobs: Vec::new(),
        internal_metadata: Default::default(),
        content_hash: None,
        derivation_id: None,
        created_at: format!("2026-01-01T00:00:{:02}Z", seq.rem_euclid(60)),
        updated_at: "2026-01-01T00:00:00Z".into(),
    }
}

pub fn index(name: &str, model: &str, dimensions: usize) -> VectorIndex {
    VectorIndex {
        name: name.into(),
        feature_uri: format!("mixpeek://{name}@v1/embedding"),
        kind: VectorKind::Dense,
        dimensions: Some(dimensions),
        distance: Distance::Cosine,
        model: model.into(),
        aliases: vec!["embedding".into()],
    }
}

/// Collections, documents and their vectors. `broken` models fail, `slow` collections never answer.
#[derive(Default)]
pub struct Fake {
    pub collections: Vec<CollectionInfo>,
    pub documents: Vec<(Document, Vectors)>,
    pub broken: Vec<String>,
    pub slow: Vec<String>,
    pub feedback: Arc<Feedback>,
    /// Stored retrievers by id.
    pub plans: BTreeMap<String, Arc<Plan>>,
    pub calls: Mutex<Vec<String>>,
    pub secrets: HashMap<String, String>,
    /// What the world outside answers.
    pub outside: Option<fn(&Call) -> Result<Reply>>,
    /// What databases outside answer.
    pub databases: Option<fn(&Lookup) -> Result<Rows>>,
    pub kept: Mutex<HashMap<String, Arc<Snapshot>>>,
}

impl Fake {
    /// `col_a`: six documents about fruit in three vectors of two numbers.
    pub fn fruit() -> Self {
        let rows = [
            ("apple pie", 3, "cake", [1.0, 0.0]),
            ("apple tree", 9, "plant", [0.9, 0.1]),
            ("pear tree", 7, "plant", [0.5, 0.5]),
            ("plum cake", 2, "cake", [0.2, 0.8]),
            ("stone", 5, "Thing", [0.0, 1.0]),
            ("apple apple", 1, "cake", [0.7, 0.3]),
        ];
        let mut fake = Self::default();
        fake.collections.push(CollectionInfo {
            collection_id: "col_a".into(),
            collection_name: "fruit".into(),
            vector_indexes: vec![index("words", "e5", 2), index("own", "", 2)],
        });
        for (seq, (text, n, kind, vector)) in rows.into_iter().enumerate() {
            let fields = serde_json::json!({"text": text, "n": n, "kind": kind, "metadata": {"n": n}});
            let mut vectors = Vectors::new();
            vectors.insert("words".into(), VectorValue::Dense(vector.to_vec()));
            vectors.insert("own".into(), VectorValue::Dense(vec![vector[1], vector[0]]));
            fake.documents.push((document(seq as i64 + 1, fields), vectors));
        }
        fake
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }
    pub fn called(&self, prefix: &str) -> usize {
        self.calls.lock().unwrap().iter().filter(|c| c.starts_with(prefix)).count()
    }

    fn score(&self, document: &Document, vectors: &Vectors, query: &SearchQuery) -> Option<f32> {
        match query {
            SearchQuery::Lexical { text } => {
                let have = document.fields.get("text")?.as_str()?.to_lowercase();
                let count = have.split(' ').filter(|word| text.to_lowercase().split(' ').any(|w| w == *word)).count();
                (count > 0).then_some(count as f32 * 4.0)
            }
            SearchQuery::Dense { index, vector } => match vectors.get(index)? {
                VectorValue::Dense(own) => {
                    let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
                    Some(own.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>() / (length(own) * length(vector)))
                }
                _ => None,
            },
            SearchQuery::Sparse { index, indices, values } => match vectors.get(index)? {
                VectorValue::Sparse { indices: own, values: weights } => {
                    let weight = |at: &u32| own.iter().position(|i| i == at).map_or(0.0, |place| weights[place]);
                    Some(indices.iter().zip(values).map(|(at, value)| weight(at) * value).sum())
                }
                _ => None,
            },
            SearchQuery::Multi { index, vectors: asked } => match vectors.get(index)? {
                VectorValue::Multi(rows) => {
                    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
                    let most = |one: &Vec<f32>| rows.iter().map(|row| dot(one, row)).max_by(f32::total_cmp);
                    Some(asked.iter().filter_map(most).sum())
                }
                _ => None,
            },
        }
    }

    fn passing<'f>(&'f self, collection: &'f str, filter: &'f Filter) -> impl Iterator<Item = &'f (Document, Vectors)> {
        let passes = move |d: &Document| filter.matches(&view::field_view(&Hit::new(d.clone())));
        self.documents.iter().filter(move |(d, _)| d.collection_id == collection && passes(d))
    }
}

impl Backend for Fake {
    fn collections<'a>(&'a self, identifiers: &'a [String]) -> BoxFuture<'a, Result<Vec<CollectionInfo>>> {
        async move {
            if identifiers.is_empty() {
                return Ok(self.collections.clone());
            }
            let find = |name: &String| {
                self.collections.iter().find(|c| c.collection_id == *name || c.collection_name == *name).cloned()
            };
            identifiers
                .iter()
                .map(|name| {
                    find(name)
                        .ok_or_else(|| Error::invalid("collection_identifiers", format!("`{name}` does not exist")))
                })
                .collect()
        }
        .boxed()
    }

    fn embed_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>>> {
        self.note(format!("embed {model} {text}"));
        async move {
            if self.broken.iter().any(|m| m == model) {
                return Err(Error::Unavailable(format!("model `{model}` is not installed")));
            }
            Ok(if text.contains("stone") { vec![0.0, 1.0] } else { vec![1.0, 0.0] })
        }
        .boxed()
    }

    fn embed_sparse_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<(Vec<u32>, Vec<f32>)>> {
        self.note(format!("embed {model} {text}"));
        async move { Ok((vec![text.len() as u32], vec![1.0])) }.boxed()
    }

    /// A row for each word.
    fn embed_multi_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<Vec<Vec<f32>>>> {
        async move {
            let mut rows = Vec::new();
            for word in text.split_whitespace() {
                rows.push(self.embed_query(model, word).await?);
            }
            Ok(rows)
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
        self.note(format!("search {collection_id} {query:?} {limit}"));
        async move {
            if self.slow.iter().any(|c| c == collection_id) {
                return futures::future::pending().await;
            }
            let scored =
                self.passing(collection_id, filter).filter_map(|(d, v)| Some((d.seq, self.score(d, v, &query)?)));
            let mut hits: Vec<Scored> = scored.filter(|(_, s)| min_score.is_none_or(|m| *s >= m)).collect();
            hits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            hits.truncate(limit);
            Ok(hits)
        }
        .boxed()
    }

    fn scan<'a>(
        &'a self,
        collection_id: &'a str,
        filter: &'a Filter,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Document>>> {
        self.note(format!("scan {collection_id} {limit}"));
        async move {
            if self.slow.iter().any(|c| c == collection_id) {
                return futures::future::pending().await;
            }
            Ok(self.passing(collection_id, filter).take(limit).map(|(d, _)| d.clone()).collect())
        }
        .boxed()
    }

    fn fetch<'a>(&'a self, seqs: &'a [i64]) -> BoxFuture<'a, Result<Vec<Document>>> {
        let by_seq: BTreeMap<i64, &Document> = self.documents.iter().map(|(d, _)| (d.seq, d)).collect();
        let found = by_seq.values().filter(|d| seqs.contains(&d.seq)).map(|d| (*d).clone()).collect();
        async move { Ok(found) }.boxed()
    }

    fn vectors_of<'a>(&'a self, seqs: &'a [i64]) -> BoxFuture<'a, Result<HashMap<i64, Vectors>>> {
        let found = self.documents.iter().filter(|(d, _)| seqs.contains(&d.seq)).map(|(d, v)| (d.seq, v.clone()));
        let found = found.collect();
        async move { Ok(found) }.boxed()
    }

    fn feedback<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Arc<Feedback>>> {
        let feedback = self.feedback.clone();
        async move { Ok(feedback) }.boxed()
    }

    fn vectors<'a>(&'a self, collection_id: &'a str, document_id: &'a str) -> BoxFuture<'a, Result<Option<Vectors>>> {
        let found =
            self.documents.iter().find(|(d, _)| d.collection_id == collection_id && d.document_id == document_id);
        let vectors = found.map(|(_, v)| v.clone());
        async move { Ok(vectors) }.boxed()
    }

    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>> {
        async move { Ok(self.secrets.get(name).cloned()) }.boxed()
    }

    fn call<'a>(&'a self, call: Call) -> BoxFuture<'a, Result<Reply>> {
        self.note(format!("call {} {}", call.method, call.url));
        async move { self.outside.ok_or_else(|| Error::Upstream("nobody answers".into()))?(&call) }.boxed()
    }

    fn recall<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Option<(String, Arc<Snapshot>)>> {
        let kept = self.kept.lock().unwrap();
        let found = keys.iter().find_map(|key| Some((key.clone(), kept.get(key)?.clone())));
        async move { found }.boxed()
    }

    fn keep(&self, key: String, snapshot: Arc<Snapshot>, ttl: Option<Duration>) {
        if ttl.is_none_or(|ttl| ttl > Duration::ZERO) {
            self.kept.lock().unwrap().insert(key, snapshot);
        }
    }

    fn retriever_plan<'a>(&'a self, identifier: &'a str) -> BoxFuture<'a, Result<StoredPlan>> {
        self.note(format!("plan {identifier}"));
        let found = self.plans.get(identifier).cloned();
        let found = found.map(|plan| StoredPlan { retriever_id: identifier.to_owned(), plan });
        async move { found.ok_or_else(|| Error::missing("retriever", identifier)) }.boxed()
    }

    /// The part of a document's words that the query has.
    fn score_pairs<'a>(
        &'a self,
        model: &'a str,
        query: &'a str,
        documents: Vec<String>,
        batch: usize,
    ) -> BoxFuture<'a, Result<Vec<f32>>> {
        self.note(format!("pairs {model} {query} {} {batch}", documents.len()));
        async move {
            if self.broken.iter().any(|m| m == model) {
                return Err(Error::Unavailable(format!("model `{model}` is not installed")));
            }
            if self.slow.iter().any(|m| m == model) {
                return futures::future::pending().await;
            }
            let share = |text: &String| {
                let words: Vec<&str> = text.split_whitespace().collect();
                let common = words.iter().filter(|word| query.split_whitespace().any(|q| q == **word)).count();
                common as f32 / words.len().max(1) as f32
            };
            Ok(documents.iter().map(share).collect())
        }
        .boxed()
    }

    fn look_up<'a>(&'a self, lookup: Lookup) -> BoxFuture<'a, Result<Rows>> {
        self.note(format!("look_up {} {:?}", lookup.connection, lookup.values));
        async move { self.databases.ok_or_else(|| Error::Upstream("nobody answers".into()))?(&lookup) }.boxed()
    }
}
