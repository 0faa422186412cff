//! What retrieval needs from the rest of the engine: collections, models, indexes and documents of one namespace.
//!
//! A backend is made for one caller's namespace and shows nothing outside it, nor what access lists keep from the caller.

use super::Snapshot;
use super::learning::Feedback;
use super::plan::Plan;
use futures::future::BoxFuture;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use strata_media::Family;
use strata_model::document::{Document, Vectors};
use strata_model::feature::VectorIndex;
use strata_model::filter::Filter;
use strata_model::{Error, Fields, Result};

/// A collection as retrieval sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionInfo {
    pub collection_id: String,
    pub collection_name: String,
    pub vector_indexes: Vec<VectorIndex>,
}

/// One ranking to ask of a collection's index.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchQuery {
    /// `index` is a [`VectorIndex::name`].
    Dense {
        index: String,
        vector: Vec<f32>,
    },
    Multi {
        index: String,
        vectors: Vec<Vec<f32>>,
    },
    Sparse {
        index: String,
        indices: Vec<u32>,
        values: Vec<f32>,
    },
    /// BM25 over the collection's text.
    Lexical {
        text: String,
    },
}

/// A request to a server outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<Vec<u8>>,
    /// Hosts that it may go to, redirects included; `*.` before one means its subdomains. Empty: every public one.
    pub domains: Vec<String>,
    /// Largest answer that is taken.
    pub max_bytes: u64,
    pub timeout: Duration,
    pub rate: Rate,
}

impl Call {
    /// Asks for what lies at a URL, wherever it is public.
    pub fn get(url: &str, max_bytes: u64, timeout: Duration) -> Self {
        Self {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: None,
            domains: Vec::new(),
            max_bytes,
            timeout,
            rate: Rate::default(),
        }
    }
}

/// Most requests to one host from one namespace; `None` is without a bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    pub per_minute: Option<u64>,
    pub per_hour: Option<u64>,
}

/// What a server outside answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Where it was found, after redirects.
    pub url: String,
    /// In lower case, without parameters.
    pub media_type: Option<String>,
    /// The media type's `charset`, in lower case.
    pub charset: Option<String>,
    pub body: Vec<u8>,
    /// Seconds that it asks to wait before another request.
    pub retry_after: Option<u64>,
}

/// A query of a database outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Lookup {
    /// Id or name of a connection of the organization.
    pub connection: String,
    pub sql: Vec<SqlPart>,
    /// By their places.
    pub values: Vec<Value>,
    pub timeout: Duration,
    pub max_rows: usize,
    /// Of all rows together.
    pub max_bytes: usize,
}

impl Lookup {
    /// The query as one text, with `sign` and its number, from 1, in place of each value.
    pub fn text(&self, sign: char) -> String {
        let piece = |part: &SqlPart| match part {
            SqlPart::Text(sql) => sql.clone(),
            SqlPart::Value(place) => format!("{sign}{}", place + 1),
        };
        self.sql.iter().map(piece).collect()
    }
}

/// A piece of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlPart {
    Text(String),
    /// The place of a value, from 0.
    Value(usize),
}

/// What a query found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub rows: Vec<Fields>,
    /// Whether there are more than were wanted.
    pub is_cut: bool,
}

/// A stored retriever as another one executes it.
#[derive(Debug, Clone)]
pub struct StoredPlan {
    pub retriever_id: String,
    pub plan: Arc<Plan>,
}

/// What a search may be like that is no text: a picture or a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    pub family: Family,
    pub bytes: Arc<[u8]>,
    /// SHA-256 of the bytes, in hex.
    pub hash: String,
}

/// A document's sequence number and its raw score. A larger score is a better one, whatever the distance.
pub type Scored = (i64, f32);

/// The refusal of a query that a model cannot read.
pub fn unread(model: &str, family: Family) -> Error {
    let what = match family {
        Family::Image => "images",
        Family::Audio | Family::Video => "recordings",
        Family::Text => "texts",
        Family::Pdf => "PDFs",
        Family::Archive => "archives",
        Family::Unknown => "such content",
    };
    Error::invalid("query", format!("`{model}` makes no vectors of {what}"))
}

/// The reads of one namespace that retrieval is made of.
pub trait Backend: Send + Sync {
    /// Resolves ids or names to collections; an empty list means all of them. An unknown one is an
    /// [`Error::Invalid`](strata_model::Error::Invalid) that names it.
    fn collections<'a>(&'a self, identifiers: &'a [String]) -> BoxFuture<'a, Result<Vec<CollectionInfo>>>;

    /// The vector of a query text.
    fn embed_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<Vec<f32>>>;

    /// What a model can read, by its registry id. Models that are not in the registry read text.
    fn reads(&self, model: &str, family: Family) -> bool {
        let _ = model;
        family == Family::Text
    }

    /// The vector of a picture or a recording. One that cannot be read is an
    /// [`Error::Invalid`](strata_model::Error::Invalid).
    fn embed_media<'a>(&'a self, model: &'a str, media: &'a Media) -> BoxFuture<'a, Result<Vec<f32>>> {
        let family = media.family;
        Box::pin(async move { Err(unread(model, family)) })
    }

    /// The sparse vector of a query text: indices and values.
    fn embed_sparse_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<(Vec<u32>, Vec<f32>)>>;

    /// The vectors of a query text for an index of lists of vectors: one for each token by a model of late interaction, one
    /// in all by another.
    fn embed_multi_query<'a>(&'a self, model: &'a str, text: &'a str) -> BoxFuture<'a, Result<Vec<Vec<f32>>>>;

    /// The best `limit` documents that satisfy `filter` and reach `min_score`, best first.
    fn search<'a>(
        &'a self,
        collection_id: &'a str,
        query: SearchQuery,
        filter: &'a Filter,
        limit: usize,
        min_score: Option<f32>,
    ) -> BoxFuture<'a, Result<Vec<Scored>>>;

    /// Up to `limit` documents that satisfy `filter`, in a stable order. Soft-deleted ones take no place among them.
    fn scan<'a>(
        &'a self,
        collection_id: &'a str,
        filter: &'a Filter,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Document>>>;

    /// The documents with these sequence numbers, in any order; missing ones are left out.
    fn fetch<'a>(&'a self, seqs: &'a [i64]) -> BoxFuture<'a, Result<Vec<Document>>>;

    /// The vectors of the documents with these sequence numbers, by index name; missing ones are left out.
    fn vectors_of<'a>(&'a self, seqs: &'a [i64]) -> BoxFuture<'a, Result<HashMap<i64, Vectors>>>;

    /// What users did with the results of a stored retriever, by its id.
    fn feedback<'a>(&'a self, retriever_id: &'a str) -> BoxFuture<'a, Result<Arc<Feedback>>>;

    /// A document's vectors by index name, or `None` where the document does not exist.
    fn vectors<'a>(&'a self, collection_id: &'a str, document_id: &'a str) -> BoxFuture<'a, Result<Option<Vectors>>>;

    /// The value of a secret of the organization, or `None` where there is none of this name.
    fn secret<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>>;

    /// Asks a server outside. A refusal of the address is an [`Error::Invalid`](strata_model::Error::Invalid); an answer
    /// of any status is a [`Reply`].
    fn call<'a>(&'a self, call: Call) -> BoxFuture<'a, Result<Reply>>;

    /// What was kept under the first of these keys for which something is, if every collection it was made of is as
    /// it was then. A backend need not keep anything.
    fn recall<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Option<(String, Arc<Snapshot>)>> {
        let _ = keys;
        Box::pin(std::future::ready(None))
    }

    /// Keeps what was made of the collections that this backend has resolved so far, unless one has changed since;
    /// for `ttl` at most.
    fn keep(&self, key: String, snapshot: Arc<Snapshot>, ttl: Option<Duration>) {
        let _ = (key, snapshot, ttl);
    }

    /// A stored retriever by id or name; an unknown one is an [`Error::Missing`](strata_model::Error::Missing).
    fn retriever_plan<'a>(&'a self, identifier: &'a str) -> BoxFuture<'a, Result<StoredPlan>>;

    /// How relevant each document is to the query, by a cross-encoder: one number from 0 to 1 a document, in order. `batch`
    /// pairs run at once.
    fn score_pairs<'a>(
        &'a self,
        model: &'a str,
        query: &'a str,
        documents: Vec<String>,
        batch: usize,
    ) -> BoxFuture<'a, Result<Vec<f32>>>;

    /// Asks a database outside. What is wrong with the query or the connection is an
    /// [`Error::Invalid`](strata_model::Error::Invalid).
    fn look_up<'a>(&'a self, lookup: Lookup) -> BoxFuture<'a, Result<Rows>>;
}
