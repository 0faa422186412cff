//! The tiers of likeness: each element goes through them until one finds a reference.

use super::likeness::{Normal, fuzzy};
use crate::retrieval::Hit;
use crate::retrieval::execute::Degraded;
use crate::retrieval::params::choice;
use crate::retrieval::stages::{Run, mmr};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use strata_infer::Registry;
use strata_model::{Error, Fields, Result};
use tokio::time::Instant;

/// Most pairs of an element and a text of a reference.
const MAX_PAIRS: usize = 1_000_000;
/// Most texts that are embedded.
const MAX_EMBEDDED: usize = 1_000;
/// Texts that are embedded beside each other.
const CONCURRENT: usize = 16;
/// Parts of names by which vectors of pictures are known.
const PICTURES: [&str; 7] = ["image", "visual", "clip", "siglip", "video", "multimodal", "face"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    Exact,
    Fuzzy,
    Semantic,
    Visual,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Fuzzy => "fuzzy",
            Self::Semantic => "semantic",
            Self::Visual => "visual",
        }
    }
}

/// Reads the tiers in their order, each once.
pub fn read(value: &Value, at: &str) -> Result<Vec<Tier>> {
    let known = [Tier::Exact, Tier::Fuzzy, Tier::Semantic, Tier::Visual].map(|tier| (tier.as_str(), tier));
    let Value::Array(list) = value else { return choice(value, at, &known).map(|tier| vec![tier]) };
    let mut tiers = Vec::new();
    for (i, word) in list.iter().enumerate() {
        let tier = choice(word, &format!("{at}.{i}"), &known)?;
        if !tiers.contains(&tier) {
            tiers.push(tier);
        }
    }
    if tiers.is_empty() {
        return Err(Error::invalid(at, "must hold at least one tier"));
    }
    Ok(tiers)
}

/// A document that is compared with.
#[derive(Debug)]
pub struct Reference {
    pub hit: Hit,
    pub texts: Vec<String>,
    pub url: Option<Value>,
}

/// What was found for an element.
#[derive(Debug, Clone)]
pub struct Match {
    /// `None` for a document as a whole, which only its looks stand for.
    pub element: Option<String>,
    /// `None` where no tier found one.
    pub reference: Option<Arc<Reference>>,
    /// The text of the reference.
    pub text: Option<String>,
    pub tier: Option<Tier>,
    /// Of the match; without one the best of any tier.
    pub score: f64,
    /// The best score of each tier that was tried.
    pub signals: Fields,
}

/// The tiers, their order and from which score each succeeds.
pub struct Tiers {
    pub at: String,
    pub order: Vec<Tier>,
    pub fuzzy: f64,
    pub semantic: f64,
    pub visual: f64,
    pub model: Option<String>,
    pub feature: Option<String>,
}

/// A text of a reference, ready to be compared.
struct Text {
    reference: usize,
    text: String,
    normal: Normal,
}

/// What the comparison of one execution needs.
struct Material {
    references: Vec<Arc<Reference>>,
    texts: Vec<Text>,
    /// By text.
    embedded: HashMap<String, Vec<f32>>,
    /// Of each document.
    pictures: Vec<Option<Vec<f32>>>,
    /// Of each reference.
    reference_pictures: Vec<Option<Vec<f32>>>,
}

impl Tiers {
    /// The matches of each document's elements, in their order.
    pub async fn compare(
        self,
        run: &mut Run<'_>,
        hits: &[Hit],
        elements: &[Vec<String>],
        references: Vec<Reference>,
    ) -> Result<Vec<Vec<Match>>> {
        let references: Vec<Arc<Reference>> = references.into_iter().map(Arc::new).collect();
        let texts: Vec<Text> = references
            .iter()
            .enumerate()
            .flat_map(|(reference, one)| one.texts.iter().map(move |text| (reference, text.clone())))
            .map(|(reference, text)| Text { reference, normal: Normal::of(&text), text })
            .collect();
        let mut elements = elements.to_vec();
        bound(run, &mut elements, texts.len());
        let embedded = self.embedded(run, &elements, &texts).await?;
        let (pictures, reference_pictures) = self.pictures(run, hits, &references).await?;
        let material = Material { references, texts, embedded, pictures, reference_pictures };
        let deadline = run.deadline;
        let work = move || {
            let mut found = Vec::with_capacity(elements.len());
            for (place, own) in elements.into_iter().enumerate() {
                found.push(self.matches(&material, place, own, deadline));
            }
            found
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)
    }

    fn matches(
        &self,
        material: &Material,
        place: usize,
        elements: Vec<String>,
        deadline: Option<Instant>,
    ) -> Vec<Match> {
        let has_picture = self.order.contains(&Tier::Visual) && material.pictures[place].is_some();
        let elements: Vec<Option<String>> = match elements.is_empty() && has_picture {
            true => vec![None],
            false => elements.into_iter().map(Some).collect(),
        };
        // What comes after the deadline is waited for by nobody.
        let in_time = || deadline.is_none_or(|deadline| Instant::now() < deadline);
        elements.into_iter().take_while(|_| in_time()).map(|element| self.matched(material, place, element)).collect()
    }

    fn matched(&self, material: &Material, place: usize, element: Option<String>) -> Match {
        let normal = element.as_deref().map(Normal::of);
        let mut signals = Fields::new();
        let mut best = 0.0_f64;
        for tier in &self.order {
            let Some((score, reference, text)) =
                self.tried(*tier, material, place, element.as_deref(), normal.as_ref())
            else {
                continue;
            };
            signals.insert(tier.as_str().into(), json!(score));
            best = best.max(score);
            if score >= self.threshold(*tier) {
                let reference = Some(material.references[reference].clone());
                let text = text.map(|text| material.texts[text].text.clone());
                return Match { element, reference, text, tier: Some(*tier), score, signals };
            }
        }
        Match { element, reference: None, text: None, tier: None, score: best, signals }
    }

    fn threshold(&self, tier: Tier) -> f64 {
        match tier {
            Tier::Exact => 1.0,
            Tier::Fuzzy => self.fuzzy,
            Tier::Semantic => self.semantic,
            Tier::Visual => self.visual,
        }
    }

    /// The best score of a tier, with its reference and the place of its text; `None` where there is nothing to compare.
    fn tried(
        &self,
        tier: Tier,
        material: &Material,
        place: usize,
        element: Option<&str>,
        normal: Option<&Normal>,
    ) -> Option<(f64, usize, Option<usize>)> {
        let of_texts = |score: &dyn Fn(&Text) -> Option<f64>| {
            let scored = material.texts.iter().enumerate().filter_map(|(i, text)| Some((score(text)?, i)));
            let best = scored.max_by(|(a, i), (b, j)| a.total_cmp(b).then(j.cmp(i)))?;
            Some((best.0, material.texts[best.1].reference, Some(best.1)))
        };
        match tier {
            Tier::Exact => {
                let own = normal?;
                of_texts(&|text| Some(f64::from(u8::from(!own.is_empty() && text.normal.text == own.text))))
            }
            Tier::Fuzzy => {
                let own = normal?;
                of_texts(&|text| Some(fuzzy(own, &text.normal, self.fuzzy)))
            }
            Tier::Semantic => {
                let own = material.embedded.get(element?)?;
                of_texts(&|text| Some(similarity(own, material.embedded.get(&text.text)?)))
            }
            Tier::Visual => {
                let own = material.pictures[place].as_ref()?;
                let scored = material.reference_pictures.iter().enumerate();
                let scored = scored.filter_map(|(i, other)| Some((similarity(own, other.as_ref()?), i)));
                let best = scored.max_by(|(a, i), (b, j)| a.total_cmp(b).then(j.cmp(i)))?;
                Some((best.0, best.1, None))
            }
        }
    }

    /// Vectors of all texts, where the tier is asked for; a model that is not there leaves the tier out.
    async fn embedded(
        &self,
        run: &mut Run<'_>,
        elements: &[Vec<String>],
        texts: &[Text],
    ) -> Result<HashMap<String, Vec<f32>>> {
        if !self.order.contains(&Tier::Semantic) || texts.is_empty() {
            return Ok(HashMap::new());
        }
        let mut wanted: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        wanted.extend(elements.iter().flatten().map(String::as_str));
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|text| !text.trim().is_empty() && seen.insert(*text));
        if wanted.len() > MAX_EMBEDDED {
            run.cut("embedded_texts", wanted.len(), MAX_EMBEDDED);
            wanted.truncate(MAX_EMBEDDED);
        }
        let model = self.model.as_deref().unwrap_or(Registry::default_text_model());
        let embeddings: Vec<_> = wanted.iter().map(|text| run.backend.embed_query(model, text)).collect();
        let made: Result<Vec<Vec<f32>>> = stream::iter(embeddings).buffered(CONCURRENT).try_collect().await;
        match made {
            Ok(vectors) => Ok(wanted.into_iter().map(str::to_owned).zip(vectors).collect()),
            Err(Error::Missing { .. }) => {
                let at = format!("{}.semantic_model", self.at);
                Err(Error::invalid(at, format!("`{model}` is not a text embedding model here")))
            }
            Err(Error::Unavailable(reason)) => {
                run.notes.warnings.push(format!("stage `{}` left out `semantic`: {reason}", run.stage_name));
                run.notes.degraded.push(Degraded {
                    resource: "model".into(),
                    id: Some(model.to_owned()),
                    reason,
                    next_step: "make the model available, or leave `semantic` out of `match_tiers`".into(),
                    stage: Some(run.stage_name.to_owned()),
                });
                Ok(HashMap::new())
            }
            Err(other) => Err(other),
        }
    }

    /// Vectors of looks: of each document, and of each reference.
    async fn pictures(
        &self,
        run: &mut Run<'_>,
        hits: &[Hit],
        references: &[Arc<Reference>],
    ) -> Result<(Vec<Option<Vec<f32>>>, Vec<Option<Vec<f32>>>)> {
        let others: Vec<Hit> = references.iter().map(|reference| reference.hit.clone()).collect();
        let nothing = (vec![None; hits.len()], vec![None; others.len()]);
        if !self.order.contains(&Tier::Visual) || others.is_empty() {
            return Ok(nothing);
        }
        let feature = match &self.feature {
            Some(feature) => Some(feature.clone()),
            None => shared_pictures(run, hits, &others).await?,
        };
        let Some(feature) = feature else {
            run.notes.warnings.push(format!(
                "stage `{}` found no vectors of pictures that both collections have; name `visual_feature_uri`",
                run.stage_name
            ));
            return Ok(nothing);
        };
        Ok((run.vectors_of(hits, &feature).await?, run.vectors_of(&others, &feature).await?))
    }
}

/// The cosine, with what points away from each other as not alike at all.
fn similarity(a: &[f32], b: &[f32]) -> f64 {
    if a.len() == b.len() { mmr::cosine(a, b).clamp(0.0, 1.0) } else { 0.0 }
}

/// Leaves out the last elements where there would be too many pairs.
fn bound(run: &mut Run<'_>, elements: &mut [Vec<String>], texts: usize) {
    let total: usize = elements.iter().map(Vec::len).sum();
    let most = MAX_PAIRS / texts.max(1);
    if total > most {
        run.cut("compared_elements", total, most);
        let mut left = most;
        for own in elements {
            own.truncate(left);
            left -= own.len();
        }
    }
}

/// The first feature of pictures that a collection of the documents and one of the references have.
async fn shared_pictures(run: &Run<'_>, hits: &[Hit], others: &[Hit]) -> Result<Option<String>> {
    let names = async |hits: &[Hit]| -> Result<Vec<String>> {
        let collections = run.collections_of(hits).await?;
        let indexes = collections.into_iter().flat_map(|collection| collection.vector_indexes);
        let shows = |text: &str| PICTURES.iter().any(|word| text.to_lowercase().contains(word));
        Ok(indexes.filter(|index| shows(&index.name) || shows(&index.feature_uri)).map(|index| index.name).collect())
    };
    let theirs = names(others).await?;
    Ok(names(hits).await?.into_iter().find(|name| theirs.contains(name)))
}
