//! `maxsim_rerank`: late interaction over the rows of a multi-vector feature (Khattab and Zaharia, 2020, "ColBERT"): for
//! each row of the query the best row of the document, summed.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::backend::CollectionInfo;
use crate::retrieval::params::{Params, Setting, choice, count, text, value_or};
use crate::retrieval::{Hit, limits, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_model::document::VectorValue;
use strata_model::feature::{Distance, VectorIndex, VectorKind};
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "maxsim_rerank",
    aliases: &["maxsim", "late_interaction"],
    category: Category::Sort,
    description: "Orders documents by late interaction: for each row of the query's vectors the most similar row of the document's, summed.",
    icon: "grid-3x3",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Most rows of a query.
const MAX_QUERY_ROWS: usize = 1_024;

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["feature_uri"],
        "properties": {
            "feature_uri": {"type": "string", "description": "Feature URI, index name or alias of the vectors; one with a single vector counts as one row."},
            "query": {
                "default": "{{INPUT.query}}",
                "description": format!("Rows of numbers, at most {MAX_QUERY_ROWS}, one row, or a text for features whose model makes vectors of texts. May be a template that gives one of these."),
            },
            "top_n": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Documents to score, from the first; the others follow in their order. All where left out."},
            "match_on": {
                "type": "string", "enum": ["document_id", "root_object_id"], "default": "document_id",
                "description": "`document_id` takes the document's own vectors, `root_object_id` those of documents of any collection that come from the same object; the best of them counts.",
            },
            "missing": {
                "type": "string", "enum": ["bottom", "drop"], "default": "bottom",
                "description": "Where documents without such vectors go: behind those that were scored, or out.",
            },
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MatchOn {
    Document,
    RootObject,
}

#[derive(Debug)]
struct MaxSim {
    at: String,
    query_at: String,
    feature: Setting<String>,
    query: Setting<Query>,
    top_n: Option<Setting<usize>>,
    match_on: Option<Setting<MatchOn>>,
    drop_missing: Option<Setting<bool>>,
}

/// What documents are compared with.
#[derive(Debug, Clone)]
enum Query {
    Text(String),
    Rows(Vec<Vec<f32>>),
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let match_on = |value: &Value, at: &str| {
        choice(value, at, &[("document_id", MatchOn::Document), ("root_object_id", MatchOn::RootObject)])
    };
    let missing = |value: &Value, at: &str| choice(value, at, &[("bottom", false), ("drop", true)]);
    let feature = params.setting(&["feature_uri"], text)?;
    let query_at = params.place("query");
    let query = match params.setting(&["query", "query_vectors"], query)? {
        Some(query) => query,
        None => params.setting_of(&json!("{{INPUT.query}}"), query_at.clone(), query)?,
    };
    let stage = MaxSim {
        at: params.place("feature_uri"),
        query_at,
        feature: feature.ok_or_else(|| Error::invalid(params.place("feature_uri"), "is required"))?,
        query,
        top_n: params.setting(&["top_n", "max_candidates"], count(1..=1_000))?,
        match_on: params.setting(&["match_on"], match_on)?,
        drop_missing: params.setting(&["missing"], missing)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn query(value: &Value, at: &str) -> Result<Query> {
    let wrong = || Error::invalid(at, "must be a text, a list of numbers, or a list of such lists of the same length");
    let row = |value: &Value| {
        let numbers = value.as_array()?.iter().map(|x| x.as_f64().map(|x| x as f32).filter(|x| x.is_finite()));
        numbers.collect::<Option<Vec<f32>>>().filter(|row| !row.is_empty())
    };
    let Value::Array(list) = value else { return text(value, at).map(Query::Text).map_err(|_| wrong()) };
    let rows = match row(value) {
        Some(one) => vec![one],
        None => list.iter().map(row).collect::<Option<Vec<_>>>().filter(|rows| !rows.is_empty()).ok_or_else(wrong)?,
    };
    if rows.iter().any(|row| row.len() != rows[0].len()) {
        return Err(wrong());
    }
    if rows.len() > MAX_QUERY_ROWS {
        return Err(Error::invalid(at, format!("has {} rows, at most {MAX_QUERY_ROWS} are taken", rows.len())));
    }
    Ok(Query::Rows(rows))
}

/// Rows of vectors, each of several candidates of a hit.
type Candidates = Vec<Vec<Vec<f32>>>;

impl Stage for MaxSim {
    fn is_costly(&self) -> bool {
        true
    }

    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let match_on = value_or(self.match_on.as_ref(), run.variables, MatchOn::Document)?;
            let drop_missing = value_or(self.drop_missing.as_ref(), run.variables, false)?;
            let top_n = match &self.top_n {
                Some(top_n) => top_n.value(run.variables)?,
                None => None,
            };
            let missing =
                |at: &str| Error::invalid(at, format!("is needed by stage `{}` and is empty", run.stage_name));
            let feature = self.feature.value(run.variables)?.ok_or_else(|| missing(&self.at))?;
            let query = self.query.value(run.variables)?.ok_or_else(|| missing(&self.query_at))?;
            let mut hits = run.read(set).await?;
            if hits.is_empty() {
                return Ok(WorkingSet::Read(hits));
            }
            let rest = hits.split_off(top_n.unwrap_or(hits.len()).min(hits.len()));
            let (index, stored) = match match_on {
                MatchOn::Document => self.own(run, &hits, &feature).await?,
                MatchOn::RootObject => self.of_objects(run, &hits, &feature).await?,
            };
            let rows = self.rows(run, &index, query).await?;
            let distance = index.distance;
            let work = move || stored.iter().map(|candidates| best(&rows, candidates, distance)).collect::<Vec<_>>();
            let scores = tokio::task::spawn_blocking(work).await.map_err(Error::internal)?;
            run.metadata.insert("scored".into(), scores.iter().flatten().count().into());
            run.metadata.insert("without_vectors".into(), scores.iter().filter(|score| score.is_none()).count().into());
            Ok(WorkingSet::Read(ordered(hits, &scores, drop_missing, rest)))
        })
    }

    fn feature_uris(&self) -> Vec<String> {
        self.feature.literal().into_iter().collect()
    }
}

impl MaxSim {
    /// The index that the feature means in the collections of the hits, and the vectors that each hit has there.
    async fn own(&self, run: &mut Run<'_>, hits: &[Hit], feature: &str) -> Result<(VectorIndex, Vec<Candidates>)> {
        let indexes = indexes(run.collections_of(hits).await?, feature);
        let seqs: Vec<i64> = hits.iter().map(|hit| hit.document.seq).collect();
        let stored = run.backend.vectors_of(&seqs).await?;
        let rows = |hit: &Hit| {
            let index = indexes.get(&hit.document.collection_id)?;
            stored.get(&hit.document.seq)?.get(&index.name).cloned().and_then(rows_of)
        };
        let candidates = hits.iter().map(rows).map(|rows| rows.into_iter().collect()).collect();
        Ok((self.first(&indexes, feature)?, candidates))
    }

    /// The same of the documents, in any collection, that come from the objects of the hits.
    async fn of_objects(
        &self,
        run: &mut Run<'_>,
        hits: &[Hit],
        feature: &str,
    ) -> Result<(VectorIndex, Vec<Candidates>)> {
        let indexes = indexes(run.backend.collections(&[]).await?, feature);
        let mut objects: Vec<&str> =
            hits.iter().filter_map(|hit| hit.document.lineage.root_object_id.as_deref()).collect();
        objects.sort_unstable();
        objects.dedup();
        let filter = Filter::Is(Condition {
            field: "root_object_id".to_owned(),
            operator: Operator::In,
            value: json!(objects),
            case_sensitive: true,
        });
        let mut by_object: HashMap<String, Candidates> = HashMap::new();
        for (collection, index) in &indexes {
            let documents = run.backend.scan(collection, &filter, limits::MAX_WORKING_SET).await?;
            let seqs: Vec<i64> = documents.iter().map(|document| document.seq).collect();
            let mut stored = run.backend.vectors_of(&seqs).await?;
            for document in documents {
                let vector = stored.get_mut(&document.seq).and_then(|vectors| vectors.remove(&index.name));
                if let (Some(object), Some(rows)) = (document.lineage.root_object_id, vector.and_then(rows_of)) {
                    by_object.entry(object).or_default().push(rows);
                }
            }
        }
        let of = |hit: &Hit| {
            let object = hit.document.lineage.root_object_id.as_ref();
            object.and_then(|object| by_object.get(object)).cloned().unwrap_or_default()
        };
        Ok((self.first(&indexes, feature)?, hits.iter().map(of).collect()))
    }

    fn first(&self, indexes: &HashMap<String, VectorIndex>, feature: &str) -> Result<VectorIndex> {
        let first = indexes.iter().min_by_key(|(collection, _)| collection.as_str()).map(|(_, index)| index.clone());
        first.ok_or_else(|| {
            Error::invalid(&self.at, format!("no collection of these documents has vectors for `{feature}`"))
        })
    }

    async fn rows(&self, run: &Run<'_>, index: &VectorIndex, query: Query) -> Result<Vec<Vec<f32>>> {
        let rows = match query {
            Query::Rows(rows) => rows,
            Query::Text(_) if index.model.is_empty() => {
                return Err(Error::invalid(
                    &self.query_at,
                    format!("`{}` holds vectors that callers bring; send rows of numbers", index.name),
                ));
            }
            Query::Text(text) => run.backend.embed_multi_query(&index.model, &text).await?,
        };
        match index.dimensions.filter(|size| rows.iter().any(|row| row.len() != *size)) {
            Some(size) => Err(Error::invalid(
                &self.query_at,
                format!("`{}` takes rows of {size} numbers, not {}", index.name, rows[0].len()),
            )),
            None => Ok(rows),
        }
    }
}

fn rows_of(vector: VectorValue) -> Option<Vec<Vec<f32>>> {
    match vector {
        VectorValue::Multi(rows) => Some(rows).filter(|rows| !rows.is_empty()),
        VectorValue::Dense(row) => Some(vec![row]),
        VectorValue::Sparse { .. } => None,
    }
}

/// The best of a hit's candidates; `None` where it has none.
fn best(query: &[Vec<f32>], candidates: &Candidates, distance: Distance) -> Option<f64> {
    candidates.iter().map(|rows| max_sim(query, rows, distance)).max_by(f64::total_cmp)
}

/// For each row of the query the similarity of the most similar row, summed.
fn max_sim(query: &[Vec<f32>], rows: &[Vec<f32>], distance: Distance) -> f64 {
    let most = |asked: &Vec<f32>| rows.iter().map(|row| similarity(asked, row, distance)).max_by(f64::total_cmp);
    query.iter().filter_map(most).sum()
}

fn similarity(a: &[f32], b: &[f32], distance: Distance) -> f64 {
    match distance {
        Distance::Cosine => super::mmr::cosine(a, b),
        Distance::Dot => a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum(),
        Distance::Euclidean => -a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>().sqrt(),
    }
}

/// Those with a score, best first, then those without, then those that were not looked at.
fn ordered(hits: Vec<Hit>, scores: &[Option<f64>], drop_missing: bool, rest: Vec<Hit>) -> Vec<Hit> {
    let (mut scored, mut missing) = (Vec::new(), Vec::new());
    for (mut hit, score) in hits.into_iter().zip(scores) {
        match score {
            Some(score) => {
                view::set(&mut hit, "score", (*score).into());
                view::set(&mut hit, "scores.maxsim", (*score).into());
                scored.push((*score, hit));
            }
            None => missing.push(hit),
        }
    }
    scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let missing = if drop_missing { Vec::new() } else { missing };
    scored.into_iter().map(|(_, hit)| hit).chain(missing).chain(rest).collect()
}

/// The index that the feature means, by collection.
fn indexes(collections: Vec<CollectionInfo>, feature: &str) -> HashMap<String, VectorIndex> {
    let index = |indexes: Vec<VectorIndex>| {
        let mut meant: Vec<VectorIndex> =
            indexes.into_iter().filter(|index| index.answers_to(feature) && index.kind != VectorKind::Sparse).collect();
        // Where a name means several, the one with rows is the one that this stage is for.
        meant.sort_by_key(|index| index.kind != VectorKind::MultiDense);
        meant.into_iter().next()
    };
    collections.into_iter().filter_map(|c| Some((c.collection_id, index(c.vector_indexes)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_query_finds_its_best_row() {
        let query = [vec![1.0, 0.0], vec![0.0, 2.0]];
        let rows = [vec![3.0, 0.0], vec![1.0, 1.0]];
        assert!((max_sim(&query, &rows, Distance::Cosine) - (1.0 + 0.5_f64.sqrt())).abs() < 1e-6);
        assert_eq!(max_sim(&query, &rows, Distance::Dot), 3.0 + 2.0);
        assert_eq!(max_sim(&query[..1], &rows, Distance::Euclidean), -1.0);
        assert_eq!(best(&query, &vec![rows.to_vec(), vec![vec![9.0, 9.0]]], Distance::Dot), Some(27.0));
        assert_eq!(best(&query, &Vec::new(), Distance::Dot), None);
    }

    #[test]
    fn a_query_is_a_text_a_row_or_rows() {
        let read = |value: Value| query(&value, "q").map_err(|e| e.to_string());
        assert!(matches!(read(json!("words")), Ok(Query::Text(_))));
        assert!(matches!(read(json!([1, 2])), Ok(Query::Rows(rows)) if rows == [[1.0, 2.0]]));
        assert!(matches!(read(json!([[1, 2], [3, 4]])), Ok(Query::Rows(rows)) if rows.len() == 2));
        for wrong in [json!([]), json!([[1], [1, 2]]), json!([[]]), json!(["a"]), json!({}), json!([1e300])] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(read(json!(vec![vec![1]; MAX_QUERY_ROWS + 1])).unwrap_err().contains("at most 1024"));
    }
}
