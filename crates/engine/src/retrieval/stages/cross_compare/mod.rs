//! `cross_compare`: what documents say against what a reference collection says, element by element, through tiers of
//! likeness, the first of which that succeeds decides.

mod elements;
mod likeness;
mod tiers;

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, flag, number, text, value_or};
use crate::retrieval::{Hit, limits, view};
use elements::{Extraction, GENERIC};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::Arc;
use strata_model::document::Document;
use strata_model::filter::{Condition, Filter, Operator};
use strata_model::{Error, Fields, Result};
use tiers::{Match, Reference, Tier, Tiers};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "cross_compare",
    aliases: &[],
    category: Category::Apply,
    description: "Compares what documents say with a reference collection: equal, nearly equal, of like meaning, or of like looks, and gives each element a label.",
    icon: "git-compare",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Most documents that are compared.
const MAX_SOURCES: usize = 50;
/// Most elements of one document.
const MAX_ELEMENTS: usize = 200;

const DEFAULT_FIELD: &str = "content";
const DEFAULT_LOCATION: &str = "start_time";
const DEFAULT_OUTPUT: &str = "comparison_results";
const NO_MATCH: &str = "no_match";
/// Label of a match where no classifications are given.
const MATCH: &str = "match";
/// Where documents say what they are.
const DOC_TYPE: &str = "doc_type";
/// Where a reference may say where it is found.
const URLS: [&str; 4] = ["reference_url", "url", "source_url", "metadata.url"];

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["reference_collection_id"],
        "properties": {
            "reference_collection_id": {"type": "string", "description": "The collection to compare with, by id or name."},
            "source_field": {"type": "string", "default": DEFAULT_FIELD, "description": "Dot path of what a document says."},
            "reference_field": {"type": "string", "default": DEFAULT_FIELD, "description": "Dot path of what a reference says; of a list each element."},
            "extraction_mode": {
                "type": "string", "enum": ["raw", "lines", "labels", "list"], "default": "raw",
                "description": "What an element is: the whole text, each line, each part between commas, semicolons, bars and line breaks, or each item of a list. Of an item that is an object its `label`, `name`, `text`, `content`, `value` or `title` counts.",
            },
            "match_tiers": {
                "type": "array", "items": {"type": "string", "enum": ["exact", "fuzzy", "semantic", "visual"]}, "default": ["exact", "fuzzy"],
                "description": "Tried in this order. `exact`: equal but for case, accents' spelling, punctuation and blanks. `fuzzy`: the larger of the normalised Levenshtein similarity and the Sørensen-Dice coefficient of the words; of texts over 256 characters only the second. `semantic`: the cosine of text embeddings. `visual`: the cosine of stored vectors of the documents.",
            },
            "fuzzy_threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.75},
            "semantic_threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.85},
            "visual_threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.55},
            "semantic_model": {"type": "string", "description": "Text embedding model; the server's default one where left out."},
            "visual_feature_uri": {"type": "string", "description": "Feature of the vectors of `visual`; where left out, the first index that both collections have whose name tells of pictures: image, visual, clip, siglip, video, multimodal or face."},
            "include_visual_comparison": {"type": "boolean", "default": false, "description": "Adds the tier `visual` behind the others."},
            "classifications": {
                "type": "array",
                "items": {"type": "object", "required": ["min_score", "label"], "properties": {"min_score": {"type": "number", "minimum": 0, "maximum": 1}, "label": {"type": "string"}}},
                "description": "Labels by the score of a match: the one with the highest `min_score` that is reached. A match that reaches none has `no_match_label`; without classifications every match is labelled `match`.",
            },
            "no_match_label": {"type": "string", "default": NO_MATCH},
            "output_mode": {
                "type": "string", "enum": ["findings", "enrich"], "default": "findings",
                "description": "`findings` makes a document of each element, `enrich` puts the list of a document's elements into it.",
            },
            "output_field": {"type": "string", "default": DEFAULT_OUTPUT, "description": "Field of the list that `enrich` makes."},
            "reference_limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 200, "description": "Most references that are read."},
            "reference_doc_type": {"type": "string", "description": "Only references with this `doc_type` count."},
            "source_doc_type_filter": {"type": "string", "description": "Only documents with this `doc_type` are compared; others pass in `enrich` and are left out of `findings`."},
            "source_location_field": {"type": "string", "default": DEFAULT_LOCATION, "description": "Dot path of where in its source a document is."},
            "filter_generic_labels": {"type": "boolean", "default": true, "description": format!("Whether labels that say nothing are left out: {}.", GENERIC.join(", "))},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Findings,
    Enrich,
}

#[derive(Debug)]
struct CrossCompare {
    at: String,
    collection: Setting<String>,
    source_field: Option<Setting<String>>,
    reference_field: Option<Setting<String>>,
    extraction: Option<Setting<Extraction>>,
    tiers: Option<Setting<Vec<Tier>>>,
    include_visual: Option<Setting<bool>>,
    fuzzy: Option<Setting<f64>>,
    semantic: Option<Setting<f64>>,
    visual: Option<Setting<f64>>,
    model: Option<Setting<String>>,
    visual_feature: Option<Setting<String>>,
    classes: Option<Setting<Vec<Class>>>,
    no_match: Option<Setting<String>>,
    mode: Option<Setting<Mode>>,
    output_field: Option<Setting<String>>,
    reference_limit: Option<Setting<usize>>,
    reference_type: Option<Setting<String>>,
    source_type: Option<Setting<String>>,
    location_field: Option<Setting<String>>,
    filter_generic: Option<Setting<bool>>,
}

/// A label and the score from which it is given.
#[derive(Debug, Clone, PartialEq)]
struct Class {
    min_score: f64,
    label: String,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let mode = |value: &Value, at: &str| choice(value, at, &[("findings", Mode::Findings), ("enrich", Mode::Enrich)]);
    let collection = params.setting(&["reference_collection_id"], text)?;
    let stage = CrossCompare {
        at: params.at().to_owned(),
        collection: collection.ok_or_else(|| Error::invalid(params.place("reference_collection_id"), "is required"))?,
        source_field: params.setting(&["source_field"], text)?,
        reference_field: params.setting(&["reference_field"], text)?,
        extraction: params.setting(&["extraction_mode"], Extraction::read)?,
        tiers: params.setting(&["match_tiers"], tiers::read)?,
        include_visual: params.setting(&["include_visual_comparison"], flag)?,
        fuzzy: params.setting(&["fuzzy_threshold"], number(0.0..=1.0))?,
        semantic: params.setting(&["semantic_threshold"], number(0.0..=1.0))?,
        visual: params.setting(&["visual_threshold"], number(0.0..=1.0))?,
        model: params.setting(&["semantic_model"], text)?,
        visual_feature: params.setting(&["visual_feature_uri"], text)?,
        classes: params.setting(&["classifications"], classes)?,
        no_match: params.setting(&["no_match_label"], text)?,
        mode: params.setting(&["output_mode"], mode)?,
        output_field: params.setting(&["output_field"], text)?,
        reference_limit: params.setting(&["reference_limit"], count(1..=limits::MAX_SCAN_PER_COLLECTION as u64))?,
        reference_type: params.setting(&["reference_doc_type"], text)?,
        source_type: params.setting(&["source_doc_type_filter"], text)?,
        location_field: params.setting(&["source_location_field"], text)?,
        filter_generic: params.setting(&["filter_generic_labels"], flag)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn classes(value: &Value, at: &str) -> Result<Vec<Class>> {
    let Value::Array(list) = value else { return Err(Error::invalid(at, "must be an array")) };
    let class = |(i, value): (usize, &Value)| {
        let part = |name: &str| value.get(name).unwrap_or(&Value::Null);
        Ok(Class {
            min_score: number(0.0..=1.0)(part("min_score"), &format!("{at}.{i}.min_score"))?,
            label: text(part("label"), &format!("{at}.{i}.label"))?,
        })
    };
    let mut classes = list.iter().enumerate().map(class).collect::<Result<Vec<_>>>()?;
    classes.sort_by(|a, b| b.min_score.total_cmp(&a.min_score));
    Ok(classes)
}

/// How findings are named and shown.
struct Labels {
    classes: Vec<Class>,
    no_match: String,
    element_type: &'static str,
    location_field: String,
}

impl Stage for CrossCompare {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let mode = value_or(self.mode.as_ref(), run.variables, Mode::Findings)?;
            let output = value_or(self.output_field.as_ref(), run.variables, DEFAULT_OUTPUT.to_owned())?;
            let extraction = value_or(self.extraction.as_ref(), run.variables, Extraction::Raw)?;
            let labels = self.labels(run, extraction)?;
            let tiers = self.tiers(run)?;
            let mut hits = run.read(set).await?;
            if hits.len() > MAX_SOURCES {
                run.cut("compared_documents", hits.len(), MAX_SOURCES);
                hits.truncate(MAX_SOURCES);
            }
            if hits.is_empty() {
                return Ok(WorkingSet::Read(hits));
            }
            let references = self.references(run).await?;
            let elements = self.elements(run, &hits, extraction)?;
            let found = tiers.compare(run, &hits, &elements, references).await?;
            let all = || found.iter().flatten();
            run.metadata.insert("compared".into(), all().count().into());
            run.metadata.insert("matched".into(), all().filter(|found| found.reference.is_some()).count().into());
            let compared = hits.into_iter().zip(&found);
            let made = match mode {
                Mode::Findings => compared.flat_map(|(hit, found)| labels.findings(&hit, found)).collect(),
                Mode::Enrich => compared.map(|(hit, found)| labels.enriched(hit, found, &output)).collect(),
            };
            Ok(WorkingSet::Read(made))
        })
    }

    fn collections(&self) -> Vec<String> {
        self.collection.literal().into_iter().collect()
    }

    fn is_costly(&self) -> bool {
        true
    }

    fn feature_uris(&self) -> Vec<String> {
        self.visual_feature.iter().filter_map(Setting::literal).collect()
    }
}

fn asked<T>(setting: Option<&Setting<T>>, run: &Run<'_>) -> Result<Option<T>> {
    match setting {
        Some(setting) => setting.value(run.variables),
        None => Ok(None),
    }
}

impl CrossCompare {
    fn labels(&self, run: &Run<'_>, extraction: Extraction) -> Result<Labels> {
        Ok(Labels {
            classes: value_or(self.classes.as_ref(), run.variables, Vec::new())?,
            no_match: value_or(self.no_match.as_ref(), run.variables, NO_MATCH.to_owned())?,
            element_type: extraction.element_type(),
            location_field: value_or(self.location_field.as_ref(), run.variables, DEFAULT_LOCATION.to_owned())?,
        })
    }

    fn tiers(&self, run: &Run<'_>) -> Result<Tiers> {
        let mut order = value_or(self.tiers.as_ref(), run.variables, vec![Tier::Exact, Tier::Fuzzy])?;
        if value_or(self.include_visual.as_ref(), run.variables, false)? && !order.contains(&Tier::Visual) {
            order.push(Tier::Visual);
        }
        Ok(Tiers {
            at: self.at.clone(),
            order,
            fuzzy: value_or(self.fuzzy.as_ref(), run.variables, 0.75)?,
            semantic: value_or(self.semantic.as_ref(), run.variables, 0.85)?,
            visual: value_or(self.visual.as_ref(), run.variables, 0.55)?,
            model: asked(self.model.as_ref(), run)?,
            feature: asked(self.visual_feature.as_ref(), run)?,
        })
    }

    async fn references(&self, run: &mut Run<'_>) -> Result<Vec<Reference>> {
        let field = value_or(self.reference_field.as_ref(), run.variables, DEFAULT_FIELD.to_owned())?;
        let limit = value_or(self.reference_limit.as_ref(), run.variables, 200)?;
        let filter = match asked(self.reference_type.as_ref(), run)? {
            Some(wanted) => Filter::Is(Condition {
                field: DOC_TYPE.to_owned(),
                operator: Operator::Eq,
                value: wanted.into(),
                case_sensitive: true,
            }),
            None => Filter::all(),
        };
        let Some(name) = self.collection.value(run.variables)? else { return Ok(Vec::new()) };
        let collections = run.named_collections(&[name], self.collection.at()).await?;
        let mut found: Vec<Document> = Vec::new();
        for collection in &collections {
            found.extend(run.backend.scan(&collection.collection_id, &filter, limit).await?);
        }
        run.metadata.insert("references".into(), found.len().into());
        let reference = |document: Document| {
            let hit = Hit::new(document);
            let texts = view::values(&hit, &field).iter().filter_map(elements::text_of).collect();
            let url = URLS.iter().find_map(|at| view::field(&hit, at).filter(|url| url.is_string()));
            Reference { url: url.map(|url| url.into_owned()), texts, hit }
        };
        Ok(found.into_iter().map(reference).collect())
    }

    /// The elements of each document.
    fn elements(&self, run: &mut Run<'_>, hits: &[Hit], extraction: Extraction) -> Result<Vec<Vec<String>>> {
        let field = value_or(self.source_field.as_ref(), run.variables, DEFAULT_FIELD.to_owned())?;
        let filter_generic = value_or(self.filter_generic.as_ref(), run.variables, true)?;
        let wanted = asked(self.source_type.as_ref(), run)?;
        let mut all = Vec::with_capacity(hits.len());
        let mut most = 0;
        for hit in hits {
            let is_meant = wanted.as_ref().is_none_or(|wanted| {
                view::field(hit, DOC_TYPE).is_some_and(|own| own.as_str() == Some(wanted.as_str()))
            });
            let found = view::field(hit, &field).filter(|_| is_meant);
            let mut elements = found.map(|value| extraction.elements(&value, filter_generic)).unwrap_or_default();
            most = most.max(elements.len());
            elements.truncate(MAX_ELEMENTS);
            all.push(elements);
        }
        if most > MAX_ELEMENTS {
            run.cut("elements_of_a_document", most, MAX_ELEMENTS);
        }
        Ok(all)
    }
}

impl Labels {
    fn label(&self, found: &Match) -> &str {
        let reached =
            || self.classes.iter().find(|class| found.score >= class.min_score).map(|class| class.label.as_str());
        match (&found.reference, self.classes.is_empty()) {
            (None, _) => &self.no_match,
            (Some(_), true) => MATCH,
            (Some(_), false) => reached().unwrap_or(&self.no_match),
        }
    }

    fn finding(&self, hit: &Hit, found: &Match) -> Fields {
        let location = view::field(hit, &self.location_field).map_or(Value::Null, |value| value.into_owned());
        let reference = found.reference.as_deref();
        let finding = json!({
            "element_type": if found.element.is_some() { self.element_type } else { "visual" },
            "source_content": found.element,
            "source_document_id": hit.document.document_id,
            "source_location": location,
            "reference_match": found.text,
            "reference_document_id": reference.map(|reference| reference.hit.document.document_id.as_str()),
            "reference_url": reference.and_then(|reference| reference.url.clone()),
            "match_tier": found.tier.map(Tier::as_str),
            "match_score": found.score,
            "classification": self.label(found),
            "confidence": if found.reference.is_some() { found.score } else { 1.0 - found.score },
            "signals": found.signals,
        });
        match finding {
            Value::Object(fields) => fields,
            _ => Fields::new(),
        }
    }

    fn findings(&self, hit: &Hit, found: &[Match]) -> Vec<Hit> {
        let finding = |found: &Match| {
            let mut made = hit.clone();
            made.document.fields = self.finding(hit, found);
            made
        };
        found.iter().map(finding).collect()
    }

    fn enriched(&self, mut hit: Hit, found: &[Match], output: &str) -> Hit {
        let list: Vec<Value> = found.iter().map(|found| Value::Object(self.finding(&hit, found))).collect();
        view::set(&mut hit, output, list.into());
        hit
    }
}
