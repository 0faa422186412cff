//! Data sets of evaluations: queries with the documents that are relevant to them, written by callers or made from
//! interactions.

use super::MAX_INPUT_BYTES;
use crate::{
    Engine,
    interactions::{check_kind, inputs, weight},
    retrieval::metrics::Judgments,
    times::DAY,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use strata_model::{Error, Fields, Result, Scope, id};
use strata_store::{
    catalog::{
        interactions as rows,
        resources::{self, Kind, Resource},
    },
    seams::rfc3339,
};

const MAX_NAME_CHARS: usize = 200;
/// Most queries of a data set.
const MAX_QUERIES: usize = 10_000;
/// Largest grade of a document.
const MAX_GRADE: i64 = 1_000;
/// Most interactions that a data set is made from.
const MAX_INTERACTIONS: usize = 200_000;
/// Types of interactions that say a document is relevant, unless the caller names others.
const POSITIVE: [&str; 5] = ["click", "purchase", "positive_feedback", "bookmark", "share"];

/// A query with what is relevant to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroundTruth {
    pub query_id: String,
    /// The inputs of an execution.
    pub query_input: Fields,
    pub relevant_documents: Vec<String>,
    /// Grades of documents; one that is relevant and has none has grade 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relevance_scores: Option<BTreeMap<String, i64>>,
}

impl GroundTruth {
    /// What is relevant, with its grade.
    pub fn judgments(&self) -> Judgments {
        let scores = self.relevance_scores.iter().flatten();
        let graded = scores.map(|(id, grade)| (id.clone(), *grade as f64));
        let named = self.relevant_documents.iter();
        let plain = named.filter(|id| !self.relevance_scores.as_ref().is_some_and(|scores| scores.contains_key(*id)));
        Judgments::new(graded.chain(plain.map(|id| (id.clone(), 1.0))))
    }
}

/// A data set that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDataset {
    pub name: String,
    pub description: Option<String>,
    pub queries: Vec<GroundTruth>,
    pub metadata: Option<Fields>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    pub dataset_id: String,
    pub namespace_id: String,
    pub name: String,
    pub description: Option<String>,
    pub queries: Vec<GroundTruth>,
    pub metadata: Option<Fields>,
    pub created_at: String,
    pub updated_at: String,
}

/// How a data set is made from interactions.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateDataset {
    pub name: Option<String>,
    /// Positive interactions that a query needs.
    pub min_interactions: usize,
    pub lookback_days: i64,
    /// `None`: click, purchase, positive feedback, bookmark and share.
    pub positive: Option<Vec<String>>,
}

impl Dataset {
    fn from_row(row: Resource) -> Result<Self> {
        let mut body = row.body;
        let queries = body.remove("queries").unwrap_or_default();
        let metadata = match body.remove("metadata") {
            Some(Value::Object(metadata)) => Some(metadata),
            _ => None,
        };
        Ok(Self {
            dataset_id: row.id,
            namespace_id: row.namespace_id,
            name: row.name,
            description: body.remove("description").and_then(|text| text.as_str().map(str::to_owned)),
            queries: serde_json::from_value(queries).map_err(Error::internal)?,
            metadata,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }

    fn to_row(&self) -> Resource {
        let mut body = Fields::new();
        body.insert("queries".into(), json!(self.queries));
        body.extend(self.description.clone().map(|text| ("description".to_owned(), text.into())));
        body.extend(self.metadata.clone().map(|metadata| ("metadata".to_owned(), metadata.into())));
        Resource {
            id: self.dataset_id.clone(),
            namespace_id: self.namespace_id.clone(),
            name: self.name.clone(),
            body,
            created_at: self.created_at.clone(),
            updated_at: self.updated_at.clone(),
        }
    }
}

fn check(new: &NewDataset) -> Result<()> {
    let name = new.name.trim();
    if name.is_empty() || new.name.chars().count() > MAX_NAME_CHARS || new.name.chars().any(char::is_control) {
        return Err(Error::invalid("dataset_name", format!("must have 1 to {MAX_NAME_CHARS} printable characters")));
    }
    let count = new.queries.len();
    if !(1..=MAX_QUERIES).contains(&count) {
        return Err(Error::invalid("queries", format!("must hold 1 to {MAX_QUERIES} queries, not {count}")));
    }
    let mut seen = HashSet::new();
    for (i, query) in new.queries.iter().enumerate() {
        if query.query_id.trim().is_empty() || !seen.insert(query.query_id.as_str()) {
            let at = format!("queries.{i}.query_id");
            return Err(Error::invalid(at, "must be a text that no other query of the data set has"));
        }
        for (document, grade) in query.relevance_scores.iter().flatten() {
            if !(0..=MAX_GRADE).contains(grade) {
                let at = format!("queries.{i}.relevance_scores.{document}");
                return Err(Error::invalid(at, format!("must be from 0 to {MAX_GRADE}, not {grade}")));
            }
        }
    }
    Ok(())
}

impl Engine {
    pub async fn create_dataset(&self, scope: &Scope, new: NewDataset) -> Result<Dataset> {
        check(&new)?;
        let now = self.catalog.now();
        let dataset = Dataset {
            dataset_id: self.catalog.new_id(id::DATASET, 12),
            namespace_id: scope.namespace_id.clone(),
            name: new.name,
            description: new.description,
            queries: new.queries,
            metadata: new.metadata,
            created_at: now.clone(),
            updated_at: now,
        };
        self.catalog
            .write(move |tx| {
                resources::insert(tx, Kind::Dataset, &dataset.to_row())?;
                Ok(dataset)
            })
            .await
    }

    /// A data set by id or name.
    pub async fn dataset(&self, scope: &Scope, identifier: &str) -> Result<Dataset> {
        let (scope, identifier) = (scope.clone(), identifier.to_owned());
        self.catalog.read(move |c| Dataset::from_row(resources::get(c, Kind::Dataset, &scope, &identifier)?)).await
    }

    /// A page of the data sets, newest first, and how many there are.
    pub async fn datasets(&self, scope: &Scope, part: (usize, usize)) -> Result<(Vec<Dataset>, usize)> {
        let scope = scope.clone();
        let read = self.catalog.read(move |c| {
            let rows = resources::newest(c, Kind::Dataset, &scope, part)?;
            let total = resources::count(c, Kind::Dataset, &scope)?;
            Ok((rows.into_iter().map(Dataset::from_row).collect::<Result<_>>()?, usize::try_from(total).unwrap_or(0)))
        });
        read.await
    }

    /// Makes a data set of a retriever's interactions: of each query that has enough positive ones, the documents that they
    /// were about, graded by the strongest type.
    pub async fn generate_dataset(&self, scope: &Scope, retriever: &str, asked: GenerateDataset) -> Result<Dataset> {
        let positive = match asked.positive.filter(|kinds| !kinds.is_empty()) {
            Some(kinds) => kinds,
            None => POSITIVE.iter().map(|kind| (*kind).to_owned()).collect(),
        };
        for (i, kind) in positive.iter().enumerate() {
            check_kind(kind, &format!("positive_interaction_types.{i}"))?;
        }
        let retriever = self.retriever(scope, retriever).await?;
        let now = self.catalog.now_micros();
        let since = rfc3339(now - asked.lookback_days * DAY);
        let (at, kinds, ids) = (scope.clone(), positive.clone(), vec![retriever.id.clone()]);
        let mined = self.catalog.read(move |c| {
            let mut mined = Mined::default();
            rows::visit(c, &at, &ids, (Some(&since), None), |interaction| mined.add(&interaction, &kinds))?;
            Ok(mined)
        });
        let mined = mined.await?;
        let least = asked.min_interactions;
        let (skipped, queries) = (mined.without_inputs, mined.queries(least));
        if queries.is_empty() {
            let days = asked.lookback_days;
            let message =
                format!("no query of the last {days} days has {least} positive interactions whose inputs are known");
            return Err(Error::invalid("min_interactions", message));
        }
        let date: String = rfc3339(now).chars().filter(char::is_ascii_digit).take(14).collect();
        let metadata = json!({
            "generated_from": "interactions",
            "retriever_id": retriever.id,
            "min_interactions": least,
            "lookback_days": asked.lookback_days,
            "positive_interaction_types": positive,
            "interactions_without_inputs": skipped,
        });
        let name = asked.name.unwrap_or_else(|| format!("auto_{}_{date}", retriever.id));
        let description = Some(format!("made from interactions with `{}`", retriever.name));
        let metadata = metadata.as_object().cloned();
        self.create_dataset(scope, NewDataset { name, description, queries, metadata }).await
    }
}

/// Queries with their positive interactions.
#[derive(Default)]
struct Mined {
    seen: usize,
    without_inputs: usize,
    /// Of the inputs, as JSON.
    bytes: usize,
    queries: BTreeMap<String, MinedQuery>,
}

#[derive(Default)]
struct MinedQuery {
    inputs: Fields,
    interactions: usize,
    grades: BTreeMap<String, i64>,
}

impl Mined {
    /// Takes an interaction in; answers whether there is room for more.
    fn add(&mut self, interaction: &rows::Interaction, positive: &[String]) -> bool {
        self.seen += 1;
        let strongest = interaction.types.iter().filter(|kind| positive.contains(kind)).map(|kind| weight(kind));
        let Some(strongest) = strongest.reduce(f64::max) else { return self.seen < MAX_INTERACTIONS };
        match inputs(interaction) {
            Some(inputs) => {
                let text = strata_model::canonical(&json!(inputs));
                let bytes = text.len();
                let query = self.queries.entry(text).or_default();
                if query.interactions == 0 {
                    self.bytes += bytes;
                    query.inputs = inputs;
                }
                query.interactions += 1;
                let grade = query.grades.entry(interaction.feature_id.clone()).or_default();
                // What the caller calls positive counts, whatever we think of it.
                *grade = (*grade).max((strongest.round() as i64).max(1));
            }
            None => self.without_inputs += 1,
        }
        self.seen < MAX_INTERACTIONS && self.queries.len() <= MAX_QUERIES && self.bytes <= MAX_INPUT_BYTES
    }

    fn queries(self, least: usize) -> Vec<GroundTruth> {
        let enough = self.queries.into_iter().filter(|(_, query)| query.interactions >= least).take(MAX_QUERIES);
        let truth = |(text, query): (String, MinedQuery)| GroundTruth {
            query_id: format!("q_{}", &id::sha256_hex(text.as_bytes())[..16]),
            query_input: query.inputs,
            relevant_documents: query.grades.keys().cloned().collect(),
            relevance_scores: Some(query.grades),
        };
        enough.map(truth).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(id: &str, relevant: &[&str], scores: Option<&[(&str, i64)]>) -> GroundTruth {
        GroundTruth {
            query_id: id.into(),
            query_input: Fields::new(),
            relevant_documents: relevant.iter().map(|id| (*id).to_owned()).collect(),
            relevance_scores: scores.map(|list| list.iter().map(|(id, grade)| ((*id).to_owned(), *grade)).collect()),
        }
    }

    #[test]
    fn grades_win_over_mere_relevance() {
        let judgments = truth("q", &["a", "b"], Some(&[("b", 3), ("c", 2), ("d", 0)])).judgments();
        let grades: Vec<f64> = ["a", "b", "c", "d", "e"].iter().map(|id| judgments.grade(id)).collect();
        assert_eq!(grades, [1.0, 3.0, 2.0, 0.0, 0.0]);
        assert!(truth("q", &[], None).judgments().is_empty());
    }

    #[test]
    fn what_cannot_be_a_data_set_is_named() {
        let new = |name: &str, queries: Vec<GroundTruth>| {
            check(&NewDataset { name: name.into(), description: None, queries, metadata: None })
        };
        let wrong = |done: Result<()>| done.unwrap_err().to_string();
        assert!(new("a", vec![truth("q", &["d"], None)]).is_ok());
        assert!(wrong(new(" ", vec![truth("q", &[], None)])).contains("`dataset_name`"));
        assert!(wrong(new("a", Vec::new())).contains("`queries`"));
        assert!(wrong(new("a", vec![truth("q", &[], None); 2])).contains("`queries.1.query_id`"));
        let graded = truth("q", &[], Some(&[("d", -1)]));
        assert!(wrong(new("a", vec![graded])).contains("`queries.0.relevance_scores.d`"));
    }
}
