//! `web_scrape`: pages of the web as readable text.

use super::outside::{self, OnError, Outcome, Secrets};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::conditions::FilterTemplate;
use crate::retrieval::params::{Params, Setting, choice, count, flag, number, text, texts, value_or};
use crate::retrieval::template::Namespace;
use crate::retrieval::{Hit, view};
use crate::web::{
    Patterns, Reader,
    page::{self, Wanted},
    same_host,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "web_scrape",
    aliases: &[],
    category: Category::Apply,
    description: "Reads web pages that documents or the stage name, as text without what surrounds it.",
    icon: "file-search",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

/// Pages of one crawl where only its depth was said.
const DEFAULT_PAGES: usize = 10;
const MAX_PATTERNS: usize = 50;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": {"type": "string", "description": "A page that becomes a document of its own; with `DOC` in it, the page of each document."},
            "url_field": {"type": "string", "default": "metadata.url", "description": "Where documents name their page, if there is no `url`."},
            "output_field": {"type": "string", "default": "web_content", "description": "Gets text, title, url, final_url, content_length, metadata and strategy_used."},
            "strategy": {"type": "string", "enum": ["auto", "static"], "default": "auto", "description": "Pages are read as they are sent; no script of theirs runs."},
            "timeout": {"type": "integer", "minimum": 1, "maximum": 60, "default": 10, "description": "Seconds that one page may take."},
            "include_html": {"type": "boolean", "default": false},
            "include_markdown": {"type": "boolean", "default": false},
            "include_links": {"type": "boolean", "default": false},
            "include_images": {"type": "boolean", "default": false, "description": "Adds the addresses of its images."},
            "min_content_length": {"type": "integer", "minimum": 100, "default": page::READABLE_CHARS, "description": "Characters; where the readable part has fewer, all text of the page is taken."},
            "when": {"type": "object", "description": "Only documents that satisfy this filter are looked up; others pass."},
            "on_error": {"type": "string", "enum": ["skip", "remove", "raise"], "default": "skip", "description": "What becomes of a document whose page cannot be read."},
            "batch_size": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5, "description": "Documents that are looked up at once."},
            "max_depth": {"type": "integer", "minimum": 0, "maximum": 5, "default": 0, "description": "How many links away from the page others are read too."},
            "max_pages": {"type": "integer", "minimum": 1, "maximum": 100, "description": "Most pages for one start; 10 where only `max_depth` is given."},
            "same_domain_only": {"type": "boolean", "default": true, "description": "Whether links to other hosts are left alone."},
            "url_patterns": {
                "type": "object",
                "description": "Which links are followed: a pattern is a part of the URL, in which `*` stands for anything.",
                "properties": {"include": {"type": "array", "items": {"type": "string"}}, "exclude": {"type": "array", "items": {"type": "string"}}},
            },
            "delay_between_requests": {"type": "number", "minimum": 0, "maximum": 5, "default": 0.5, "description": "Seconds between two pages of one start."},
        },
    })
}

#[derive(Debug)]
struct WebScrape {
    url: Option<Setting<String>>,
    /// Whether the URL differs from document to document.
    url_reads_documents: bool,
    url_field: Option<Setting<String>>,
    output_field: Option<Setting<String>>,
    timeout: Option<Setting<f64>>,
    html: Option<Setting<bool>>,
    markdown: Option<Setting<bool>>,
    links: Option<Setting<bool>>,
    images: Option<Setting<bool>>,
    min_chars: Option<Setting<usize>>,
    when: Option<FilterTemplate>,
    on_error: OnError,
    parallel: usize,
    max_depth: Option<Setting<usize>>,
    max_pages: Option<Setting<usize>>,
    same_domain_only: Option<Setting<bool>>,
    patterns: Patterns,
    delay: Option<Setting<f64>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    if let Some((at, word)) = params.take(&["strategy"]) {
        let known = ["auto", "static", "http"].map(|word| (word, ()));
        choice(&word, &at, &known).map_err(|_| {
            Error::invalid(at, "must be `auto` or `static`; a browser is not available in this version")
        })?;
    }
    let url = params.setting(&["url"], text)?;
    let timeout = match params.setting(&["timeout"], number(1.0..=60.0))? {
        None => {
            params.setting(&["timeout_ms"], |value, at| number(1_000.0..=60_000.0)(value, at).map(|ms| ms / 1e3))?
        }
        given => given,
    };
    let stage = WebScrape {
        url_reads_documents: url.as_ref().is_some_and(|url| url.reads(Namespace::Doc)),
        url,
        url_field: params.setting(&["url_field"], text)?,
        output_field: params.setting(&["output_field", "result_field"], outside::field)?,
        timeout,
        html: params.setting(&["include_html"], flag)?,
        markdown: params.setting(&["include_markdown"], flag)?,
        links: params.setting(&["include_links"], flag)?,
        images: params.setting(&["include_images"], flag)?,
        min_chars: params.setting(&["min_content_length"], count(100..=1_000_000))?,
        when: params.filter(&["when"])?,
        on_error: params.fixed(&["on_error"], outside::on_error)?.unwrap_or(OnError::Skip),
        parallel: params.fixed(&["batch_size"], |value, at| count(1..=20)(value, at))?.unwrap_or(5),
        max_depth: params.setting(&["max_depth"], count(0..=5))?,
        max_pages: params.setting(&["max_pages"], count(1..=100))?,
        same_domain_only: params.setting(&["same_domain_only"], flag)?,
        patterns: params.fixed(&["url_patterns"], patterns)?.unwrap_or_default(),
        delay: params.setting(&["delay_between_requests"], number(0.0..=5.0))?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

fn patterns(value: &Value, at: &str) -> Result<Patterns> {
    let Value::Object(fields) = value else { return Err(Error::invalid(at, "must be an object")) };
    let list = |name: &str| match fields.get(name).filter(|v| !v.is_null()) {
        None => Ok(Vec::new()),
        Some(value) => {
            let at = format!("{at}.{name}");
            let list = texts(value, &at)?;
            if list.len() > MAX_PATTERNS {
                return Err(Error::invalid(at, format!("has at most {MAX_PATTERNS} patterns")));
            }
            Ok(list)
        }
    };
    Ok(Patterns { include: list("include")?, exclude: list("exclude")? })
}

impl Stage for WebScrape {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let output = value_or(self.output_field.as_ref(), run.variables, "web_content".to_owned())?;
            let scraper = self.scraper(run)?;
            match &self.url {
                Some(url) if !self.url_reads_documents => {
                    let mut hits = match set {
                        WorkingSet::Unread(_) => Vec::new(),
                        WorkingSet::Read(hits) => hits,
                    };
                    let url = url.needed(run.variables)?;
                    self.add_pages(run, &scraper, &url, &output, &mut hits).await?;
                    Ok(WorkingSet::Read(hits))
                }
                _ => {
                    let hits = run.read(set).await?;
                    self.for_documents(run, &scraper, &output, hits).await.map(WorkingSet::Read)
                }
            }
        })
    }

    fn reaches_outside(&self) -> bool {
        true
    }
}

impl WebScrape {
    fn scraper<'r>(&'r self, run: &Run<'r>) -> Result<Scraper<'r>> {
        let variables = run.variables;
        let max_depth = value_or(self.max_depth.as_ref(), variables, 0)?;
        let default = if max_depth == 0 { 1 } else { DEFAULT_PAGES };
        Ok(Scraper {
            reader: Reader::new(
                Box::new(|call| run.backend.call(call)),
                Duration::from_secs_f64(value_or(self.timeout.as_ref(), variables, 10.0)?),
                Vec::new(),
            ),
            wanted: Wanted {
                html: value_or(self.html.as_ref(), variables, false)?,
                markdown: value_or(self.markdown.as_ref(), variables, false)?,
                links: value_or(self.links.as_ref(), variables, false)?,
                images: value_or(self.images.as_ref(), variables, false)?,
                details: false,
                min_chars: value_or(self.min_chars.as_ref(), variables, page::READABLE_CHARS)?,
            },
            delay: Duration::from_secs_f64(value_or(self.delay.as_ref(), variables, 0.5)?),
            max_depth,
            max_pages: value_or(self.max_pages.as_ref(), variables, default)?,
            same_domain_only: value_or(self.same_domain_only.as_ref(), variables, true)?,
            patterns: &self.patterns,
        })
    }

    /// A document of its own for the page, and for each that it leads to.
    async fn add_pages(
        &self,
        run: &mut Run<'_>,
        scraper: &Scraper<'_>,
        url: &str,
        output: &str,
        hits: &mut Vec<Hit>,
    ) -> Result<()> {
        let pages = match scraper.crawl(url).await {
            Ok(pages) => pages,
            Err(error) if self.on_error == OnError::Raise => return Err(error),
            Err(error) => {
                run.notes.warnings.push(format!("stage `{}` read nothing: {error}", run.stage_name));
                Vec::new()
            }
        };
        run.metadata.insert("made".into(), pages.len().into());
        for (place, page) in pages.into_iter().enumerate() {
            let id = format!("web_{}", place + 1);
            let mut hit = Hit::new(outside::answer_document(run, id, hits.len(), Fields::new()));
            view::set(&mut hit, output, Value::Object(page));
            hits.push(hit);
        }
        Ok(())
    }

    async fn for_documents(
        &self,
        run: &mut Run<'_>,
        scraper: &Scraper<'_>,
        output: &str,
        hits: Vec<Hit>,
    ) -> Result<Vec<Hit>> {
        let field = value_or(self.url_field.as_ref(), run.variables, "metadata.url".to_owned())?;
        let meant = outside::meant(run, &hits, self.when.as_ref())?;
        let asked = hits.iter().zip(meant).map(|(hit, is_meant)| {
            is_meant.then(|| match &self.url {
                Some(url) => url.needed(&run.variables.with_doc(&view::field_view(hit))),
                None => view::field(hit, &field)
                    .and_then(|value| value.as_str().map(str::to_owned))
                    .ok_or_else(|| Error::invalid("url_field", format!("the document has no URL at `{field}`"))),
            })
        });
        let asked: Vec<Option<Result<String>>> = asked.collect();
        let ask = |url: Result<String>| async move {
            match url {
                Ok(url) => Outcome::from(scraper.crawl(&url).await.map(one)),
                Err(error) => Outcome::Failed(error),
            }
        };
        let outcomes = outside::ask_each(asked, self.parallel, self.on_error, ask).await;
        outside::settle(run, hits, outcomes, output, self.on_error, &Secrets::default())
    }
}

/// The first page, with the others below `pages`.
fn one(mut pages: Vec<Fields>) -> Value {
    let others = pages.split_off(pages.len().min(1));
    let mut first = pages.pop().unwrap_or_default();
    if !others.is_empty() {
        first.insert("pages".into(), others.into_iter().map(Value::Object).collect());
    }
    Value::Object(first)
}

/// Reads pages for one execution of a stage.
struct Scraper<'s> {
    reader: Reader<'s>,
    wanted: Wanted,
    delay: Duration,
    max_depth: usize,
    max_pages: usize,
    same_domain_only: bool,
    patterns: &'s Patterns,
}

impl Scraper<'_> {
    /// The page, and breadth first those that it leads to. Only the first one's failure is one.
    async fn crawl(&self, start: &str) -> Result<Vec<Fields>> {
        let first = self.reader.page(start, self.wanted).await?;
        let mut seen = HashSet::from([start.to_owned()]);
        let mut next: VecDeque<(String, usize)> = VecDeque::new();
        let mut pages = Vec::new();
        let mut found = Some((first, 0));
        let mut tried = 1;
        loop {
            if let Some((page, depth)) = found.take() {
                if depth < self.max_depth {
                    for link in page.links {
                        let is_meant =
                            (!self.same_domain_only || same_host(&link, start)) && self.patterns.allow(&link);
                        if is_meant && seen.insert(link.clone()) {
                            next.push_back((link, depth + 1));
                        }
                    }
                }
                pages.push(page.content);
            }
            // Those that could not be read count, too: a crawl asks no server for more than was said.
            if tried >= self.max_pages {
                return Ok(pages);
            }
            let Some((url, depth)) = next.pop_front() else { return Ok(pages) };
            tried += 1;
            tokio::time::sleep(self.delay).await;
            found = self.reader.page(&url, self.wanted).await.ok().map(|page| (page, depth));
        }
    }
}
