//! From searches to legs: which index of which collections, with which vector or text.

use super::query::Query;
use super::{DEFAULT_TOP_K, FeatureSearch, Kind, OnEmpty, Search};
use crate::retrieval::backend::{CollectionInfo, Media, unread};
use crate::retrieval::params::value_or;
use crate::retrieval::stages::Run;
use std::collections::HashMap;
use std::sync::Arc;
use strata_media::Family;
use strata_model::document::{VectorValue, Vectors};
use strata_model::feature::{VectorIndex, VectorKind};
use strata_model::filter::Filter;
use strata_model::{Error, Result, id};

/// What the words of documents are called beside the features with vectors.
pub(super) const LEXICAL: &str = "lexical";

/// What the legs of one search share.
#[derive(Debug, Clone)]
pub(super) struct Basis {
    /// Index of the search.
    pub search: usize,
    pub weight: f64,
    pub top_k: usize,
    pub min_score: Option<f32>,
    pub filter: Arc<Filter>,
}

/// One ranking to make.
#[derive(Debug)]
pub(super) struct Leg {
    pub basis: Basis,
    /// The feature URI, or `lexical`.
    pub feature: String,
    pub ask: Ask,
    /// Whether the caller did not ask for it by name; it may then fail alone.
    pub implied: bool,
    /// Ids of the collections it runs over.
    pub collections: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Ask {
    Lexical(String),
    /// What the index's model turns into a vector.
    Embed {
        index: VectorIndex,
        sought: Sought,
    },
    Vector {
        index: VectorIndex,
        vector: VectorValue,
    },
}

/// What a model makes the vector of a query of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sought {
    Text(String),
    Media(Media),
}

impl Sought {
    /// Tells it from everything else that one stage looks for.
    pub fn key(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Media(media) => &media.hash,
        }
    }
}

/// The legs of a stage, and why searches have none.
#[derive(Debug, Default)]
pub(super) struct Legs {
    pub legs: Vec<Leg>,
    pub empty_queries: usize,
    pub absent_indexes: usize,
    /// Collections that any search looked at.
    pub collections: usize,
}

/// Indexes of one name and model, with the collections that have them; such scores can be compared.
type Candidates = Vec<(VectorIndex, Vec<String>)>;

impl FeatureSearch {
    pub(super) async fn legs(&self, run: &mut Run<'_>, base: &Filter, final_top_k: usize) -> Result<Legs> {
        let mut all = Legs::default();
        for (number, search) in self.searches.iter().enumerate() {
            let query = match search.query.resolve(run.variables)? {
                Query::Empty { missing } if search.on_empty == OnEmpty::Error => {
                    return Err(empty_query(search, &missing, run.stage_name));
                }
                Query::Empty { .. } if search.on_empty == OnEmpty::Skip || search.kind == Kind::Lexical => {
                    all.empty_queries += 1;
                    continue;
                }
                Query::Content(content) => content.look(run).await?,
                query => query,
            };
            let collections = self.collections(run, search).await?;
            all.collections += collections.len();
            let own = match &search.filter {
                Some(filter) => run.filter(filter)?,
                None => Filter::all(),
            };
            let basis = Basis {
                search: number,
                weight: value_or(search.weight.as_ref(), run.variables, 1.0)?,
                top_k: value_or(search.top_k.as_ref(), run.variables, DEFAULT_TOP_K.max(final_top_k))?,
                min_score: match &search.min_score {
                    Some(setting) => setting.value(run.variables)?.map(|s| s as f32),
                    None => None,
                },
                filter: Arc::new(base.clone().and(own)),
            };
            let legs = expand(search, &query, &collections, &basis, run).await?;
            all.absent_indexes += usize::from(legs.is_empty() && !collections.is_empty());
            all.legs.extend(legs);
        }
        Ok(all)
    }

    /// The collections of a search: its own, else the stage's, else the retriever's.
    async fn collections(&self, run: &Run<'_>, search: &Search) -> Result<Vec<CollectionInfo>> {
        for setting in [&search.collections, &self.collections].into_iter().flatten() {
            if let Some(ids) = setting.value(run.variables)?.filter(|ids| !ids.is_empty()) {
                return run.named_collections(&ids, setting.at()).await;
            }
        }
        run.backend.collections(run.collections).await
    }

    /// The collections of the stage as a whole.
    pub(super) async fn stage_collections(&self, run: &Run<'_>) -> Result<Vec<CollectionInfo>> {
        if let Some(setting) = &self.collections
            && let Some(ids) = setting.value(run.variables)?.filter(|ids| !ids.is_empty())
        {
            return run.named_collections(&ids, setting.at()).await;
        }
        run.backend.collections(run.collections).await
    }
}

fn empty_query(search: &Search, missing: &[String], stage: &str) -> Error {
    match missing.first() {
        Some(input) => Error::invalid(format!("inputs.{input}"), format!("is needed by stage `{stage}`")),
        None => Error::invalid(search.query.at(), "is empty; set `on_empty` to `skip` to allow that"),
    }
}

async fn expand(
    search: &Search,
    query: &Query,
    collections: &[CollectionInfo],
    basis: &Basis,
    run: &Run<'_>,
) -> Result<Vec<Leg>> {
    if collections.is_empty() {
        return Ok(Vec::new());
    }
    if search.kind == Kind::Lexical {
        return match query {
            Query::Text(text) => Ok(vec![lexical(text, collections, basis.clone(), false)]),
            _ => Err(Error::invalid(search.query.at(), "a lexical search needs a text")),
        };
    }
    let feature = search.feature.as_ref().map(|s| s.value(run.variables)).transpose()?.flatten();
    let words = match query {
        Query::Text(text) if search.kind == Kind::Hybrid || (search.kind == Kind::Auto && feature.is_none()) => {
            Some(text)
        }
        _ => None,
    };
    let reference = match query {
        Query::Document { collection, document_id } => {
            Some(reference(collection.as_deref(), document_id, collections, run, search.query.at()).await?)
        }
        _ => None,
    };
    let candidates = candidates(feature.as_deref(), query, reference.as_ref(), collections, run);
    if candidates.is_empty() && words.is_none() {
        return if search.optional {
            Ok(Vec::new())
        } else {
            Err(no_index(search, feature.as_deref(), query, collections))
        };
    }
    let mut legs = Vec::new();
    for (index, collections) in candidates {
        let ask = ask(&index, query, reference.as_ref(), search, run)?;
        let feature = if index.feature_uri.is_empty() { index.name.clone() } else { index.feature_uri.clone() };
        let mut basis = basis.clone();
        if words.is_some() && index.kind == VectorKind::Sparse {
            // As below.
            basis.min_score = None;
        }
        legs.push(Leg { basis, feature, ask, implied: words.is_some(), collections });
    }
    legs.extend(words.map(|text| {
        // The bound of an implied search is meant for similarities, which end at 1; BM25 does not.
        lexical(text, collections, Basis { min_score: None, ..basis.clone() }, true)
    }));
    Ok(legs)
}

fn lexical(text: &str, collections: &[CollectionInfo], basis: Basis, implied: bool) -> Leg {
    let collections = collections.iter().map(|c| c.collection_id.clone()).collect();
    Leg { basis, feature: LEXICAL.into(), ask: Ask::Lexical(text.to_owned()), implied, collections }
}

/// A document to be like: the vectors it has, and the indexes of its collection.
struct Reference {
    vectors: Vectors,
    indexes: Vec<VectorIndex>,
}

async fn reference(
    collection: Option<&str>,
    document_id: &str,
    searched: &[CollectionInfo],
    run: &Run<'_>,
    at: &str,
) -> Result<Reference> {
    let named = match collection {
        Some(identifier) => {
            let place = format!("{at}.document_ref.collection_id");
            run.named_collections(&[identifier.to_owned()], &place).await?
        }
        None => searched.to_vec(),
    };
    for candidate in named {
        if let Some(vectors) = run.backend.vectors(&candidate.collection_id, document_id).await? {
            return Ok(Reference { vectors, indexes: candidate.vector_indexes });
        }
    }
    Err(Error::invalid(
        format!("{at}.document_ref.document_id"),
        format!("`{document_id}` does not exist in the collections that are searched"),
    ))
}

impl Reference {
    fn vector(&self, index: &VectorIndex) -> Option<&VectorValue> {
        self.vectors.get(&index.name).or_else(|| {
            let same = self.indexes.iter().find(|own| {
                !index.feature_uri.is_empty() && own.feature_uri == index.feature_uri && own.model == index.model
            });
            same.and_then(|own| self.vectors.get(&own.name))
        })
    }
}

fn candidates(
    feature: Option<&str>,
    query: &Query,
    reference: Option<&Reference>,
    collections: &[CollectionInfo],
    run: &Run<'_>,
) -> Candidates {
    let reads = |index: &VectorIndex, family| !index.model.is_empty() && run.backend.reads(&index.model, family);
    let fits = |index: &VectorIndex| match (feature, query) {
        (Some(uri), _) => index.answers_to(uri),
        (None, Query::Document { .. }) => reference.is_some_and(|r| r.vector(index).is_some()),
        (None, Query::Vector(vector)) => takes(index, vector),
        (None, Query::Text(_) | Query::Content(_)) => reads(index, Family::Text),
        (None, Query::Media(media)) => reads(index, media.family),
        (None, Query::Empty { .. }) => reads(index, Family::Text) && index.kind != VectorKind::Sparse,
    };
    let mut found: Candidates = Vec::new();
    let mut known: HashMap<(String, String), usize> = HashMap::new();
    for collection in collections {
        for index in collection.vector_indexes.iter().filter(|i| fits(i)) {
            let place = *known.entry((index.name.clone(), index.model.clone())).or_insert_with(|| {
                found.push((index.clone(), Vec::new()));
                found.len() - 1
            });
            found[place].1.push(collection.collection_id.clone());
        }
    }
    found
}

fn no_index(search: &Search, feature: Option<&str>, query: &Query, collections: &[CollectionInfo]) -> Error {
    let mut names: Vec<&str> = collections
        .iter()
        .flat_map(|c| &c.vector_indexes)
        .map(|i| i.feature_uri.as_str())
        .filter(|u| !u.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    let have = if names.is_empty() {
        "they have no vector index".to_owned()
    } else {
        format!("they have {}", names.join(", "))
    };
    let at = format!("{}.feature_uri", search.at);
    match (feature, query) {
        (Some(uri), _) => Error::invalid(at, format!("no collection that is searched has `{uri}`; {have}")),
        (None, Query::Vector(vector)) => Error::invalid(
            search.query.at(),
            format!("no collection that is searched has an index for {}; {have}", described(vector)),
        ),
        (None, _) => Error::invalid(at, format!("no collection that is searched has an index for this query; {have}")),
    }
}

fn ask(
    index: &VectorIndex,
    query: &Query,
    reference: Option<&Reference>,
    search: &Search,
    run: &Run<'_>,
) -> Result<Ask> {
    let at = search.query.at();
    let embed = |family, sought| match run.backend.reads(&index.model, family) {
        true => Ok(Ask::Embed { index: index.clone(), sought }),
        false => Err(Error::invalid(at, unread(&index.model, family).to_string())),
    };
    let vector = match query {
        Query::Text(_) | Query::Media(_) if index.model.is_empty() => {
            return Err(Error::invalid(
                at,
                format!("`{}` holds vectors that callers bring; send `input_mode` `vector`", index.name),
            ));
        }
        Query::Content(_) => return Err(Error::internal("content was looked at before")),
        Query::Text(text) => return embed(Family::Text, Sought::Text(text.clone())),
        Query::Media(media) => return embed(media.family, Sought::Media(media.clone())),
        Query::Vector(vector) => vector.clone(),
        Query::Document { document_id, .. } => match reference.and_then(|r| r.vector(index)) {
            Some(vector) => vector.clone(),
            None => {
                return Err(Error::invalid(
                    format!("{at}.document_ref"),
                    format!("`{document_id}` has no vector for `{}`", index.name),
                ));
            }
        },
        Query::Empty { .. } => random(index),
    };
    if !takes(index, &vector) {
        let wants = index.dimensions.map_or_else(|| "sparse vectors".to_owned(), |n| format!("{n} numbers"));
        return Err(Error::invalid(at, format!("`{}` takes {wants}, not {}", index.name, described(&vector))));
    }
    Ok(Ask::Vector { index: index.clone(), vector })
}

/// Whether a vector has the index's kind and size.
fn takes(index: &VectorIndex, vector: &VectorValue) -> bool {
    let sized = |n: usize| index.dimensions.is_none_or(|d| d == n);
    match (index.kind, vector) {
        (VectorKind::Sparse, VectorValue::Sparse { .. }) => true,
        (VectorKind::Dense | VectorKind::MultiDense, VectorValue::Dense(v)) => sized(v.len()),
        (VectorKind::Dense, VectorValue::Multi(rows)) => rows.len() == 1 && rows.iter().all(|r| sized(r.len())),
        (VectorKind::MultiDense, VectorValue::Multi(rows)) => rows.iter().all(|r| sized(r.len())),
        _ => false,
    }
}

fn described(vector: &VectorValue) -> String {
    match vector {
        VectorValue::Dense(v) => format!("{} numbers", v.len()),
        VectorValue::Multi(rows) => format!("{} rows of {} numbers", rows.len(), rows.first().map_or(0, Vec::len)),
        VectorValue::Sparse { values, .. } => format!("a sparse vector of {} numbers", values.len()),
    }
}

/// A direction for `on_empty: random`, the same for an index every time, so that pages fit together.
fn random(index: &VectorIndex) -> VectorValue {
    let size = index.dimensions.unwrap_or(0);
    let mut state = u64::from_le_bytes(first_eight(&id::sha256_parts(&[index.name.as_bytes()])));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1_u64 << 24) as f32).mul_add(2.0, -1.0)
    };
    let raw: Vec<f32> = (0..size).map(|_| next()).collect();
    let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::EPSILON);
    VectorValue::Dense(raw.into_iter().map(|x| x / length).collect())
}

fn first_eight(digest: &[u8; 32]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight.copy_from_slice(&digest[..8]);
    eight
}
