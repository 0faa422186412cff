//! `deduplicate`: one of each.

use super::mmr::{cosine, found_by};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, flag, number, text, texts, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use strata_model::{Error, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "deduplicate",
    aliases: &["dedupe"],
    category: Category::Reduce,
    description: "Removes documents that repeat another: in the values of fields, nearly in a text, or nearly in a vector.",
    icon: "copy-x",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Most documents that are compared with each other; the rest passes.
const MAX_COMPARED: usize = 2_000;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "strategy": {
                "type": "string", "enum": ["field", "content", "vector"], "default": "field",
                "description": "`field`: all of `fields` are equal; `content`: the text is nearly the same; `vector`: the vector is.",
            },
            "fields": {"type": "array", "items": {"type": "string"}, "description": "Dot paths that `field` compares; `document_id` where left out. What is missing is a value like others."},
            "content_field": {"type": "string", "default": "content", "description": "Dot path of the text; documents without it pass."},
            "feature_uri": {"type": "string", "description": "Feature of the vector; that of the search that found the documents where left out."},
            "similarity_threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.95, "description": "From this on two documents are the same: of texts the Sørensen-Dice coefficient of their letter triples, of vectors the cosine."},
            "keep": {"type": "string", "enum": ["first", "last"], "default": "first", "description": "Which one stays."},
            "case_sensitive": {"type": "boolean", "default": true, "description": "Whether letters' case tells texts apart."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Field,
    Content,
    Vector,
}

#[derive(Debug)]
struct Deduplicate {
    /// Place of `feature_uri`.
    feature_at: String,
    strategy: Option<Setting<Strategy>>,
    fields: Option<Setting<Vec<String>>>,
    content_field: Option<Setting<String>>,
    feature_uri: Option<Setting<String>>,
    threshold: Option<Setting<f64>>,
    keep_last: Option<Setting<bool>>,
    case_sensitive: Option<Setting<bool>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let strategy = |value: &Value, at: &str| {
        let known = [
            ("field", Strategy::Field),
            ("content", Strategy::Content),
            ("vector", Strategy::Vector),
            ("embedding", Strategy::Vector),
        ];
        choice(value, at, &known)
    };
    let keep = |value: &Value, at: &str| choice(value, at, &[("first", false), ("last", true)]);
    let stage = Deduplicate {
        feature_at: params.place("feature_uri"),
        strategy: params.setting(&["strategy"], strategy)?,
        fields: params.setting(&["fields", "field"], texts)?,
        content_field: params.setting(&["content_field"], text)?,
        feature_uri: params.setting(&["feature_uri"], text)?,
        threshold: params.setting(&["similarity_threshold", "threshold"], number(0.0..=1.0))?,
        keep_last: params.setting(&["keep"], keep)?,
        case_sensitive: params.setting(&["case_sensitive"], flag)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for Deduplicate {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let strategy = value_or(self.strategy.as_ref(), run.variables, Strategy::Field)?;
            let keep_last = value_or(self.keep_last.as_ref(), run.variables, false)?;
            let threshold = value_or(self.threshold.as_ref(), run.variables, 0.95)?;
            let case = value_or(self.case_sensitive.as_ref(), run.variables, true)?;
            let mut hits = run.read(set).await?;
            if keep_last {
                hits.reverse();
            }
            let before = hits.len();
            let mut left = match strategy {
                Strategy::Field => {
                    let mut fields = value_or(self.fields.as_ref(), run.variables, Vec::new())?;
                    if fields.is_empty() {
                        // In nothing all documents are equal.
                        fields.push("document_id".to_owned());
                    }
                    by_fields(hits, &fields, case)
                }
                Strategy::Content => {
                    let field = value_or(self.content_field.as_ref(), run.variables, "content".to_owned())?;
                    let texts = hits.iter().map(|hit| triples(hit, &field, case)).collect();
                    self.compared(run, hits, texts, move |a: &Vec<u64>, b| dice(a, b) >= threshold).await?
                }
                Strategy::Vector => {
                    let named = match &self.feature_uri {
                        Some(uri) => uri.value(run.variables)?,
                        None => None,
                    };
                    let Some(feature) = named.or_else(|| found_by(&hits)) else {
                        return Err(Error::invalid(
                            &self.feature_at,
                            format!("stage `{}` has no search before it, so the feature must be named", run.stage_name),
                        ));
                    };
                    let vectors = run.vectors_of(&hits, &feature).await?;
                    self.compared(run, hits, vectors, move |a: &Vec<f32>, b| cosine(a, b) >= threshold).await?
                }
            };
            if keep_last {
                left.reverse();
            }
            run.metadata.insert("removed".into(), (before - left.len()).into());
            Ok(WorkingSet::Read(left))
        })
    }
}

impl Deduplicate {
    /// The hits without those that are the same as one before them. What has nothing to compare passes.
    async fn compared<T: Send + 'static>(
        &self,
        run: &mut Run<'_>,
        hits: Vec<Hit>,
        shapes: Vec<Option<T>>,
        is_same: impl Fn(&T, &T) -> bool + Send + 'static,
    ) -> Result<Vec<Hit>> {
        if hits.len() > MAX_COMPARED {
            run.cut("compared_documents", hits.len(), MAX_COMPARED);
        }
        let work = move || {
            let mut kept: Vec<&T> = Vec::new();
            let mut stays = vec![true; shapes.len()];
            for (stays, shape) in stays.iter_mut().zip(&shapes).take(MAX_COMPARED) {
                let Some(shape) = shape else { continue };
                *stays = !kept.iter().any(|other| is_same(shape, other));
                if *stays {
                    kept.push(shape);
                }
            }
            stays
        };
        let stays = tokio::task::spawn_blocking(work).await.map_err(Error::internal)?;
        Ok(hits.into_iter().zip(stays).filter_map(|(hit, stays)| stays.then_some(hit)).collect())
    }
}

fn by_fields(hits: Vec<Hit>, fields: &[String], case: bool) -> Vec<Hit> {
    let mut seen = HashSet::new();
    let key = |hit: &Hit| {
        let value = |field: &String| match view::field(hit, field).as_deref() {
            Some(Value::String(text)) if !case => Value::from(text.to_lowercase()),
            Some(value) => value.clone(),
            None => Value::Null,
        };
        Value::Array(fields.iter().map(value).collect()).to_string()
    };
    hits.into_iter().filter(|hit| seen.insert(key(hit))).collect()
}

/// Hashes of the letter triples of a text, in order; blanks count as one.
fn triples(hit: &Hit, field: &str, case: bool) -> Option<Vec<u64>> {
    static STATE: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    let found = view::field(hit, field)?;
    let text = found.as_str()?.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = if case { text } else { text.to_lowercase() };
    let letters: Vec<char> = text.chars().collect();
    let mut hashes: Vec<u64> = match letters.len() {
        0..3 => vec![STATE.hash_one(&letters[..])],
        _ => letters.windows(3).map(|triple| STATE.hash_one(triple)).collect(),
    };
    hashes.sort_unstable();
    Some(hashes)
}

/// The Sørensen-Dice coefficient of two sorted multisets.
fn dice(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut common) = (0, 0, 0_usize);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        common += usize::from(x == y);
        i += usize::from(x <= y);
        j += usize::from(y <= x);
    }
    2.0 * common as f64 / (a.len() + b.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::fake;

    #[test]
    fn texts_are_as_alike_as_their_letter_triples() {
        let of = |text: &str, case| triples(&Hit::new(fake::document(1, json!({ "content": text }))), "content", case);
        let alike = |a: &str, b: &str, case| dice(&of(a, case).unwrap(), &of(b, case).unwrap());
        assert_eq!(alike("the  sea", "the sea", true), 1.0);
        assert_eq!(alike("The Sea", "the sea", false), 1.0);
        assert!(alike("The Sea", "the sea", true) < 0.6);
        assert!(alike("the sea is calm today", "the sea is calm today.", true) > 0.95);
        assert_eq!(alike("abc", "xyz", true), 0.0);
        assert_eq!((alike("a", "a", true), alike("a", "b", true)), (1.0, 0.0));
        assert_eq!(of("", true).map(|hashes| hashes.len()), Some(1));
    }
}
