//! The index: named dense, sparse and multi vectors, words, and the payload that filters need.
//!
//! Everything here is derived. The catalog is read through [`Feed`]; the index remembers the last change it applied and
//! replays what came after. It never writes to the catalog, never refuses a document that the catalog holds, and never
//! stops the process from starting: a shard in any doubt is thrown away and rebuilt.
//!
//! [`Index`] is the wall: embedded shards ([`EdgeIndex`]) now, a Qdrant cluster later.

mod edge;
mod filter;
mod manifest;
mod queue;
mod shard;
mod slot;
mod words;

pub use edge::{EdgeConfig, EdgeIndex};

use serde::{Deserialize, Serialize};
use std::time::Duration;
use strata_model::document::Vectors;
use strata_model::feature::VectorIndex;
use strata_model::filter::Filter;
use strata_model::{Fields, Reader, Result};

/// Name of the sparse vector that every shard has for words (BM25).
pub const LEXICAL: &str = "lexical";

/// What a shard needs to know about its collection. One shard per collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardSpec {
    pub collection_id: String,
    pub vectors: Vec<VectorIndex>,
    pub payload: Vec<PayloadIndex>,
    /// Language of the texts, by its code or name, for [`Query::Lexical`]; `None` is English.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// A field that filters may use inside the index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PayloadIndex {
    /// Dot path from the document's root.
    pub field: String,
    pub kind: PayloadKind,
}

/// What a payload-indexed field holds. Text and geo fields are accepted and not kept: no operator that
/// [`Index::can_filter`] allows could use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadKind {
    Keyword,
    Integer,
    Float,
    Bool,
    Datetime,
    Text,
    Uuid,
    Geo,
}

/// A document as the index takes it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// The document's fields, ids, lineage and readers included ([`strata_model::document::Document::indexed`]). Only the
    /// paths of the shard's payload indexes are kept.
    pub payload: Fields,
    pub vectors: Vectors,
    /// The text that [`Query::Lexical`] searches.
    pub lexical: Option<String>,
}

/// The newest change of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Change sequence, growing with every write to the catalog.
    pub seq: i64,
    /// The document's own sequence: the point's id.
    pub document_seq: i64,
    /// `None`: the document is deleted.
    pub point: Option<Point>,
}

/// The catalog, as the index sees it. Calls block.
pub trait Feed: Send + Sync {
    /// `None`: the collection is gone.
    fn spec(&self, collection_id: &str) -> Result<Option<ShardSpec>>;
    /// At most `limit` changes with `seq > after`, ascending by `seq`, only the newest of each document; so
    /// `after = 0` is a full rebuild. A change must never become visible below a `seq` that was already given out.
    fn changes_after(&self, collection_id: &str, after: i64, limit: usize) -> Result<Vec<Change>>;
    /// The newest change's `seq`, 0 if there is none. Never falls: a shard ahead of it is taken for another catalog's.
    fn head(&self, collection_id: &str) -> Result<i64>;
}

/// What to look for. `index` is the name of a vector index.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    Dense {
        index: String,
        vector: Vec<f32>,
    },
    /// Late interaction: the sum over query rows of their best match (MaxSim).
    Multi {
        index: String,
        vectors: Vec<Vec<f32>>,
    },
    Sparse {
        index: String,
        indices: Vec<u32>,
        values: Vec<f32>,
    },
    Lexical {
        text: String,
    },
}

/// Where to look.
#[derive(Debug, Clone, PartialEq)]
pub enum Restriction {
    None,
    /// Only if [`Index::can_filter`] said yes.
    Filter(Filter),
    /// Exact search among these points (`document_seq`), which the catalog found for the same reader.
    Ids(Vec<i64>),
}

/// One found point. `score` is the index's own measure: similarity for cosine, dot, sparse and words (higher is better),
/// distance for euclidean indexes (lower is better).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub document_seq: i64,
    pub score: f32,
}

/// Where a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardState {
    /// Up to date but for the newest writes.
    Ready,
    /// Not open, or being opened.
    Loading,
    /// Being filled from the catalog; searches answer from what is there.
    Rebuilding,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub collection_id: String,
    pub state: ShardState,
    /// Newest change that searches see.
    pub applied: i64,
    pub points: usize,
    /// Vectors in an HNSW or sparse graph, over all named vectors; the others are scanned.
    pub indexed: usize,
    pub last_error: Option<String>,
}

/// Vector and word search over the documents of a collection. Calls block: keep them off the async runtime.
pub trait Index: Send + Sync {
    /// Whether the index can evaluate `filter` itself with the meaning of [`Filter::matches`]: every leaf is `eq`,
    /// `in`, `gt`, `gte`, `lt` or `lte` on a payload-indexed field with a value of the field's type; and whether it knows
    /// which documents `reader` sees.
    fn can_filter(&self, collection_id: &str, reader: &Reader, filter: &Filter) -> Result<bool>;
    /// The best `limit` points that `reader` sees, best first, ties by `document_seq`. [`Error::Unavailable`] where
    /// [`Index::can_filter`] would say no.
    ///
    /// [`Error::Unavailable`]: strata_model::Error::Unavailable
    fn search(
        &self,
        collection_id: &str,
        reader: &Reader,
        query: &Query,
        restriction: &Restriction,
        limit: usize,
        score_threshold: Option<f32>,
    ) -> Result<Vec<Hit>>;
    /// New changes exist: apply them soon.
    fn notify(&self, collection_id: &str);
    /// The collection's vectors or payload indexes changed: rebuild in the background if they really did.
    fn respec(&self, collection_id: &str);
    /// Newest change that searches see; 0 before the shard is first used.
    fn applied(&self, collection_id: &str) -> i64;
    /// Waits until `seq` is applied; false when `timeout` passed first or the index closed.
    fn wait_applied(&self, collection_id: &str, seq: i64, timeout: Duration) -> bool;
    /// Forgets the collection and removes its files.
    fn drop_collection(&self, collection_id: &str) -> Result<()>;
    /// Every shard used since the start.
    fn status(&self) -> Vec<ShardStatus>;
    /// Checkpoints every shard and stops the threads. Later calls answer `Unavailable`.
    fn close(&self);
}
