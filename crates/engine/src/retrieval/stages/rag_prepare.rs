//! `rag_prepare`: documents as a language model reads them, within a budget of tokens and with their citations.

use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, flag, text, value_or};
use crate::retrieval::template::{Program, Variables};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use strata_model::document::{Document, Lineage};
use strata_model::{Error, Fields, Result};
use tiktoken_rs::CoreBPE;

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "rag_prepare",
    aliases: &[],
    category: Category::Apply,
    description: "Formats documents for a language model: within a budget of tokens, each with its citation.",
    icon: "scroll-text",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const MAX_TOKENS: u64 = 128_000;
const DEFAULT_MAX_TOKENS: usize = 8_000;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "max_tokens": {"type": "integer", "minimum": 100, "maximum": MAX_TOKENS, "default": DEFAULT_MAX_TOKENS, "description": "Tokens of all documents together."},
            "tokenizer": {"type": "string", "enum": ["cl100k_base", "o200k_base", "p50k_base", "r50k_base"], "default": "cl100k_base", "description": "What counts as a token."},
            "truncation_strategy": {
                "type": "string", "enum": ["priority_truncate", "proportional", "drop_last"], "default": "priority_truncate",
                "description": "`priority_truncate` takes the best scored first and cuts the last that fits in part; `proportional` gives each document an equal share; `drop_last` takes whole documents in their order.",
            },
            "output_mode": {
                "type": "string", "enum": ["single_context", "formatted_list"], "default": "single_context",
                "description": "One document with the whole text, or each document with its own.",
            },
            "document_template": {"type": "string", "description": "How a document is written; reads DOC, INPUT, `CONTEXT.INDEX` (from 1) and `CONTEXT.CITATION`. Where left out, the index in brackets and the content."},
            "content_field": {"type": "string", "default": "content", "description": "Dot path of the text that the usual template shows; where a document has none there, its `text`."},
            "separator": {"type": "string", "default": "\n", "description": "Between documents."},
            "citation": {"type": "object", "properties": {
                "style": {"type": "string", "enum": ["numbered", "bracketed", "footnote", "none"], "default": "numbered"},
                "include_title": {"type": "boolean", "default": true},
                "include_url": {"type": "boolean", "default": false},
            }},
            "context_field": {"type": "string", "default": "rag_context", "description": "Field of the whole text."},
            "citations_field": {"type": "string", "default": "citations", "description": "Field of the list of citations."},
            "formatted_content_field": {"type": "string", "default": "formatted_content", "description": "Field of each document's text in a list."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vocabulary {
    Cl100k,
    O200k,
    P50k,
    R50k,
}

impl Vocabulary {
    /// The tokenizer, made at its first use: some hundred milliseconds.
    fn load(self) -> Result<&'static CoreBPE> {
        type Made = LazyLock<Option<CoreBPE>>;
        static CL100K: Made = LazyLock::new(|| tiktoken_rs::cl100k_base().ok());
        static O200K: Made = LazyLock::new(|| tiktoken_rs::o200k_base().ok());
        static P50K: Made = LazyLock::new(|| tiktoken_rs::p50k_base().ok());
        static R50K: Made = LazyLock::new(|| tiktoken_rs::r50k_base().ok());
        let made = match self {
            Self::Cl100k => CL100K.as_ref(),
            Self::O200k => O200K.as_ref(),
            Self::P50k => P50K.as_ref(),
            Self::R50k => R50K.as_ref(),
        };
        made.ok_or_else(|| Error::internal(format!("the tokenizer {self:?} cannot be made")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truncation {
    Priority,
    Proportional,
    DropLast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CitationStyle {
    Numbered,
    Bracketed,
    Footnote,
    None,
}

#[derive(Debug)]
struct Citation {
    style: CitationStyle,
    include_title: bool,
    include_url: bool,
}

#[derive(Debug)]
struct RagPrepare {
    max_tokens: Option<Setting<usize>>,
    vocabulary: Option<Setting<Vocabulary>>,
    truncation: Option<Setting<Truncation>>,
    as_list: Option<Setting<bool>>,
    template: Option<Program>,
    content_field: Option<Setting<String>>,
    separator: Option<Setting<String>>,
    citation: Citation,
    context_field: Option<Setting<String>>,
    citations_field: Option<Setting<String>>,
    formatted_field: Option<Setting<String>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let vocabulary = |value: &Value, at: &str| {
        let known = [
            ("cl100k_base", Vocabulary::Cl100k),
            ("o200k_base", Vocabulary::O200k),
            ("p50k_base", Vocabulary::P50k),
            ("r50k_base", Vocabulary::R50k),
            ("gpt2", Vocabulary::R50k),
        ];
        choice(value, at, &known)
    };
    let truncation = |value: &Value, at: &str| {
        let known = [
            ("priority_truncate", Truncation::Priority),
            ("proportional", Truncation::Proportional),
            ("drop_last", Truncation::DropLast),
        ];
        choice(value, at, &known)
    };
    let mode = |value: &Value, at: &str| choice(value, at, &[("single_context", false), ("formatted_list", true)]);
    let separator = |value: &Value, at: &str| match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(Error::invalid(at, "must be a string")),
    };
    let stage = RagPrepare {
        max_tokens: params.setting(&["max_tokens"], count(100..=MAX_TOKENS))?,
        vocabulary: params.setting(&["tokenizer"], vocabulary)?,
        truncation: params.setting(&["truncation_strategy"], truncation)?,
        as_list: params.setting(&["output_mode"], mode)?,
        template: params.program(&["document_template"])?,
        content_field: params.setting(&["content_field"], text)?,
        separator: params.setting(&["separator"], separator)?,
        citation: citation(&mut params)?,
        context_field: params.setting(&["context_field"], text)?,
        citations_field: params.setting(&["citations_field"], text)?,
        formatted_field: params.setting(&["formatted_content_field"], text)?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn citation(params: &mut Params<'_>) -> Result<Citation> {
    let fields = match params.take(&["citation"]) {
        Some((_, Value::Object(fields))) => fields,
        Some((at, _)) => return Err(Error::invalid(at, "must be an object")),
        None => Fields::new(),
    };
    let style = |value: &Value, at: &str| {
        let known = [
            ("numbered", CitationStyle::Numbered),
            ("bracketed", CitationStyle::Bracketed),
            ("footnote", CitationStyle::Footnote),
            ("none", CitationStyle::None),
        ];
        choice(value, at, &known)
    };
    let at = params.place("citation");
    let mut below = params.below(fields, at);
    let citation = Citation {
        style: below.fixed(&["style"], style)?.unwrap_or(CitationStyle::Numbered),
        include_title: below.fixed(&["include_title"], flag)?.unwrap_or(true),
        include_url: below.fixed(&["include_url"], flag)?.unwrap_or(false),
    };
    below.finish();
    Ok(citation)
}

/// A document's text and its tokens.
struct Formatted {
    text: String,
    tokens: usize,
    is_cut: bool,
}

/// What a run uses.
struct Budget {
    tokenizer: &'static CoreBPE,
    max_tokens: usize,
    truncation: Truncation,
    separator: String,
}

impl Stage for RagPrepare {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let vocabulary = value_or(self.vocabulary.as_ref(), run.variables, Vocabulary::Cl100k)?;
            let content_field = value_or(self.content_field.as_ref(), run.variables, "content".to_owned())?;
            let as_list = value_or(self.as_list.as_ref(), run.variables, false)?;
            let mut hits = run.read(set).await?;
            let budget = Budget {
                tokenizer: tokio::task::spawn_blocking(move || vocabulary.load()).await.map_err(Error::internal)??,
                max_tokens: value_or(self.max_tokens.as_ref(), run.variables, DEFAULT_MAX_TOKENS)?,
                truncation: value_or(self.truncation.as_ref(), run.variables, Truncation::Priority)?,
                separator: value_or(self.separator.as_ref(), run.variables, "\n".to_owned())?,
            };
            if budget.truncation == Truncation::Priority {
                let score = |hit: &Hit| hit.score.unwrap_or(f64::NEG_INFINITY);
                hits.sort_by(|a, b| score(b).total_cmp(&score(a)));
            }
            let formatted =
                hits.iter().enumerate().map(|(i, hit)| self.format(hit, i + 1, &content_field, run.variables));
            let texts: Vec<String> = formatted.collect::<Result<_>>()?;
            let all = hits.len();
            let (hits, fitted, used) =
                tokio::task::spawn_blocking(move || fit(hits, texts, &budget)).await.map_err(Error::internal)?;
            run.metadata.insert("documents".into(), hits.len().into());
            run.metadata.insert("left_out".into(), (all - hits.len()).into());
            run.metadata.insert("tokens".into(), used.into());
            let citations = hits.iter().enumerate().map(|(i, hit)| self.cite(hit, i + 1)).collect();
            let separator = value_or(self.separator.as_ref(), run.variables, "\n".to_owned())?;
            if !as_list {
                let context_field = value_or(self.context_field.as_ref(), run.variables, "rag_context".to_owned())?;
                let citations_field = value_or(self.citations_field.as_ref(), run.variables, "citations".to_owned())?;
                let whole: Vec<String> = fitted.into_iter().map(|one| one.text).collect();
                let mut hit = Hit::new(context_document(&hits));
                view::set(&mut hit, &context_field, whole.join(&separator).into());
                view::set(&mut hit, &citations_field, Value::Array(citations));
                view::set(&mut hit, "token_count", used.into());
                return Ok(WorkingSet::Read(vec![hit]));
            }
            let to = value_or(self.formatted_field.as_ref(), run.variables, "formatted_content".to_owned())?;
            let list = hits.into_iter().zip(fitted).map(|(mut hit, one)| {
                view::set(&mut hit, &to, one.text.into());
                view::set(&mut hit, "token_count", one.tokens.into());
                view::set(&mut hit, "truncated", one.is_cut.into());
                hit
            });
            Ok(WorkingSet::Read(list.collect()))
        })
    }
}

impl RagPrepare {
    fn format(&self, hit: &Hit, index: usize, content_field: &str, variables: &Variables) -> Result<String> {
        let Some(template) = &self.template else {
            let content = view::field(hit, content_field).or_else(|| view::field(hit, "text"));
            let content = match content.as_deref() {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            return Ok(format!("{}{content}\n", self.mark(index).map_or_else(String::new, |mark| format!("{mark} "))));
        };
        let context = Fields::from_iter([
            ("INDEX".to_owned(), index.into()),
            ("CITATION".to_owned(), self.mark(index).unwrap_or_default().into()),
        ]);
        template.render(&variables.with_context(&context).with_doc(&view::field_view(hit)))
    }

    /// What stands for a document in the text.
    fn mark(&self, index: usize) -> Option<String> {
        match self.citation.style {
            CitationStyle::Numbered => Some(format!("[{index}]")),
            CitationStyle::Bracketed => Some(format!("({index})")),
            CitationStyle::Footnote => Some(format!("[^{index}]")),
            CitationStyle::None => None,
        }
    }

    fn cite(&self, hit: &Hit, index: usize) -> Value {
        let document = &hit.document;
        let first = |names: &[&str]| {
            let named = names.iter().filter_map(|name| view::field(hit, name));
            named.map(|value| value.into_owned()).find(|value| value.is_string()).unwrap_or_default()
        };
        let mut citation = json!({
            "index": index,
            "document_id": document.document_id,
            "collection_id": document.collection_id,
            "root_object_id": document.lineage.root_object_id,
            "score": hit.score,
        });
        if self.citation.include_title {
            citation["title"] = first(&["title", "metadata.title", "name", "heading"]);
        }
        if self.citation.include_url {
            citation["url"] = first(&["url", "metadata.url", "source_url"]);
        }
        citation
    }
}

/// The hits that fit with their texts, and the tokens of all.
fn fit(hits: Vec<Hit>, texts: Vec<String>, budget: &Budget) -> (Vec<Hit>, Vec<Formatted>, usize) {
    let between = budget.tokenizer.encode_ordinary(&budget.separator).len();
    let share = match texts.len() {
        0 => 0,
        count => (budget.max_tokens / count).saturating_sub(between),
    };
    let (mut kept, mut fitted, mut used) = (Vec::new(), Vec::new(), 0);
    for (hit, text) in hits.into_iter().zip(texts) {
        let tokens = budget.tokenizer.encode_ordinary(&text);
        let joint = if kept.is_empty() { 0 } else { between };
        let room = match budget.truncation {
            Truncation::Proportional => share,
            Truncation::Priority | Truncation::DropLast => budget.max_tokens.saturating_sub(used + joint),
        };
        let is_cut = tokens.len() > room;
        if is_cut && (room == 0 || budget.truncation == Truncation::DropLast) {
            if budget.truncation == Truncation::Proportional {
                continue;
            }
            break;
        }
        let one = match is_cut {
            true => cut(budget.tokenizer, &tokens[..room]),
            false => Formatted { text, tokens: tokens.len(), is_cut },
        };
        used += joint + one.tokens;
        kept.push(hit);
        fitted.push(one);
        if is_cut && budget.truncation == Truncation::Priority {
            break;
        }
    }
    (kept, fitted, used)
}

/// The text of as many of the tokens as are whole characters.
fn cut(tokenizer: &CoreBPE, tokens: &[u32]) -> Formatted {
    for end in (0..=tokens.len()).rev().take(8) {
        if let Ok(text) = tokenizer.decode(tokens[..end].to_vec()) {
            return Formatted { text, tokens: end, is_cut: true };
        }
    }
    Formatted { text: String::new(), tokens: 0, is_cut: true }
}

/// A document that only the answer has.
fn context_document(of: &[Hit]) -> Document {
    let times = of.first().map(|hit| hit.document.created_at.clone()).unwrap_or_default();
    Document {
        seq: 0,
        document_id: "rag_context".into(),
        collection_id: of.first().map(|hit| hit.document.collection_id.clone()).unwrap_or_default(),
        lineage: Lineage::default(),
        fields: Fields::new(),
        source_blobs: Vec::new(),
        document_blobs: Vec::new(),
        internal_metadata: Fields::new(),
        content_hash: None,
        derivation_id: None,
        created_at: times.clone(),
        updated_at: times,
    }
}
