//! `web_scraper`: a site is read page by page, each page or chunk a document.

use super::{
    Configured, Definition, Input, Output, Shape, embed_texts, parameters as p,
    response_shape::{self, ResponseShape},
};
use crate::{
    Engine,
    split::{self, SplitBy, SplitConfig},
    web::{self, Patterns, Reader, page},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};
use strata_infer::Registry;
use strata_model::{Error, Fields, Result, id, limits, schema::FieldType};

const INDEX: &str = "web_scraper_v1_text_embedding";
/// Longest that one page may take.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pages that wait to be read, at most.
const MAX_WAITING: usize = 20_000;
const MAX_PATTERNS: usize = 100;
/// Characters of a page that a language model reads.
const MAX_SHAPED_CHARS: usize = 48_000;

const PARAMETERS: &[p::Parameter] = &[
    p::integer("max_depth", Some(2), (0, 10), "How many links away from the first page others are read."),
    p::integer("max_pages", Some(50), (1, 500), "Pages that are asked for at most."),
    p::integer("crawl_timeout", Some(300), (10, 3600), "Seconds; what was read until then is kept."),
    p::one_of(
        "crawl_mode",
        "deterministic",
        &["deterministic", "semantic"],
        "In order of depth, or first what is nearest to `crawl_goal`.",
    ),
    p::text("crawl_goal", None, "What is looked for, in `semantic` mode."),
    p::one_of(
        "render_strategy",
        "auto",
        &["auto", "static"],
        "Pages are read as they are sent; no script of theirs runs.",
    ),
    p::ignored("include_patterns", p::nothing, "Parts of URLs that are followed; `*` stands for anything."),
    p::ignored("exclude_patterns", p::nothing, "Parts of URLs that are not followed."),
    p::one_of(
        "chunk_strategy",
        "none",
        &["none", "sentences", "paragraphs", "words", "characters"],
        "How the text of a page is split.",
    ),
    p::integer("chunk_size", Some(500), (1, 10_000), "In the unit of `chunk_strategy`."),
    p::integer("chunk_overlap", Some(50), (0, 5_000), "In the unit of `chunk_strategy`."),
    p::one_of(
        "document_id_strategy",
        "url",
        &["url", "position", "content"],
        "What a document keeps its id by when a site is read again.",
    ),
    p::boolean("generate_text_embeddings", true, "Make a vector of each page's or chunk's text."),
    p::integer("max_retries", Some(3), (0, 10), "How often a page is asked for again when its server is in trouble."),
    p::number("retry_base_delay", Some(1.0), (0.1, 30.0), "Seconds before the first time; doubled each time."),
    p::number("retry_max_delay", Some(30.0), (1.0, 300.0), "Seconds, at most."),
    p::boolean("respect_retry_after", true, "Wait as long as the server says."),
    p::number("delay_between_requests", Some(0.0), (0.0, 60.0), "Seconds between two pages."),
    p::ignored("custom_headers", p::nothing, "Go with every request to the host of the first page."),
    p::ignored("generate_code_embeddings", || json!(true), "Without effect: code is in the text, and found with it."),
    p::ignored("generate_image_embeddings", || json!(true), "Without effect: images are listed, not read."),
    p::ignored("generate_structure_embeddings", || json!(true), "Without effect."),
    p::unavailable("proxies", p::nothing, "requests go straight from this server, which judges every address"),
    p::ignored("detect_captcha", || json!(true), "Without effect."),
    p::ignored("persist_cookies", || json!(true), "Without effect: no cookie is kept."),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "web_scraper",
    version: "v1",
    code_version: 1,
    description: "Reads a site from a URL on, as its robots.txt allows, and makes documents of its pages' readable text.",
    icon: "globe",
    category: "web",
    input_types: &[FieldType::String, FieldType::Text],
    files: &[],
    input_schema: || json!({ "type": "object", "required": ["url"], "properties": { "url": { "type": "string" } } }),
    output_schema: || {
        json!({ "type": "object", "properties": {
            "content": { "type": "string" }, "title": { "type": "string" }, "page_url": { "type": "string" },
            "code_blocks": { "type": "array" }, "images": { "type": "array" }, "asset_links": { "type": "array" },
            "chunk_index": { "type": "integer" }, "total_chunks": { "type": "integer" },
            "crawl_depth": { "type": "integer" }, "parent_url": { "type": "string" },
        } })
    },
    parameter_schema: || {
        let mut schema = p::schema(PARAMETERS);
        response_shape::describe(&mut schema);
        schema
    },
    default_parameters: || p::defaults(PARAMETERS),
    position_fields: &["page_url", "chunk_index", "start_char", "end_char"],
    wordless: &["page_url", "parent_url", "asset_links", "images", "code_blocks"],
    reads_source: false,
    check,
    run,
};

fn check(parameters: &Fields) -> Result<Shape> {
    p::check(PARAMETERS, parameters)?;
    patterns(parameters)?;
    headers(parameters)?;
    let read = p::Read(parameters);
    if read.text("crawl_mode") == Some("semantic") && read.text("crawl_goal").is_none_or(|goal| goal.trim().is_empty())
    {
        return Err(Error::invalid("parameters.crawl_goal", "is required by `semantic`"));
    }
    if read.text("youtube_mode") == Some("force") {
        return Err(Error::invalid("parameters.youtube_mode", "videos of others are not downloaded by this version"));
    }
    splitting(parameters)?;
    let embeds = read.is("generate_text_embeddings");
    let aliases = ["embedding", "text_embedding", "intfloat__multilingual_e5_large_instruct"];
    let index = || super::multimodal::text_index(INDEX.into(), "web_scraper@v1", &aliases);
    let asks_local = embeds || read.text("crawl_mode") == Some("semantic");
    let local = asks_local.then(|| Registry::default_text_model().to_owned());
    let writer = ResponseShape::parse(parameters)?.map(|shape| shape.writer.model);
    Ok(Shape {
        vectors: if embeds { vec![index()?] } else { Vec::new() },
        fields: vec![
            ("content", FieldType::String),
            ("title", FieldType::String),
            ("page_url", FieldType::String),
            ("crawl_depth", FieldType::Integer),
            ("parent_url", FieldType::String),
            ("chunk_index", FieldType::Integer),
            ("total_chunks", FieldType::Integer),
        ],
        models: local.into_iter().chain(writer).collect(),
    })
}

fn patterns(parameters: &Fields) -> Result<Patterns> {
    let list = |name: &str| -> Result<Vec<String>> {
        let Some(value) = parameters.get(name).filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
        let list: Option<Vec<String>> = serde_json::from_value(value.clone()).ok();
        let list = list.filter(|list| list.len() <= MAX_PATTERNS);
        list.ok_or_else(|| {
            Error::invalid(format!("parameters.{name}"), format!("must be an array of at most {MAX_PATTERNS} texts"))
        })
    };
    Ok(Patterns { include: list("include_patterns")?, exclude: list("exclude_patterns")? })
}

fn headers(parameters: &Fields) -> Result<Vec<(String, String)>> {
    let at = "parameters.custom_headers";
    let map = match parameters.get("custom_headers") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Error::invalid(at, "must be an object of names and values")),
    };
    let header = |(name, value): (&String, &Value)| {
        let is_name = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok();
        let text = value.as_str().filter(|text| is_name && reqwest::header::HeaderValue::from_str(text).is_ok());
        text.map(|text| (name.clone(), text.to_owned()))
            .ok_or_else(|| Error::invalid(at, format!("`{name}` is no header")))
    };
    map.iter().map(header).collect()
}

fn splitting(parameters: &Fields) -> Result<Option<SplitConfig>> {
    let read = p::Read(parameters);
    let strategy = read.text("chunk_strategy").unwrap_or("none");
    if strategy == "none" {
        return Ok(None);
    }
    let number = |name: &str, default: u64| read.integer(name).unwrap_or(default) as usize;
    let config = SplitConfig {
        split_by: SplitBy::parse(strategy)?,
        chunk_size: number("chunk_size", 500),
        chunk_overlap: number("chunk_overlap", 50),
    };
    config.validate()?;
    Ok(Some(config))
}

/// A page that was read.
struct Read {
    url: String,
    parent: Option<String>,
    depth: u64,
    page: page::Page,
    /// What a language model found in it.
    found: Fields,
}

/// A page that may be read.
struct Waiting {
    url: String,
    parent: Option<String>,
    depth: u64,
    /// How near what links to it is to the goal.
    nearness: f32,
}

fn run<'a>(engine: &'a Arc<Engine>, extractor: &'a Configured, input: Input) -> BoxFuture<'a, Result<Vec<Output>>> {
    Box::pin(async move {
        let url = input.values.get("url").and_then(Value::as_str).map(str::trim).filter(|url| !url.is_empty());
        let url = url.ok_or_else(|| Error::invalid("url", "the input has no URL: map one with `input_mappings`"))?;
        let mut pages = crawl(engine, &extractor.parameters, url).await?;
        if let Some(shape) = ResponseShape::parse(&extractor.parameters)? {
            let (places, texts): (Vec<usize>, Vec<String>) =
                pages.iter().enumerate().filter_map(|(at, read)| Some((at, shaped(read)?))).unzip();
            let found = shape.fill(engine, &input.scope.organization_id, texts).await?;
            for (place, found) in places.into_iter().zip(found) {
                pages[place].found = found;
            }
        }
        let mut outputs = documents(&extractor.parameters, pages).await?;
        if p::Read(&extractor.parameters).is("generate_text_embeddings") {
            embed_texts(engine, &mut outputs, INDEX, searched).await?;
        }
        Ok(outputs)
    })
}

/// The first page, and those that it leads to. Only the first one's failure is one.
async fn crawl(engine: &Arc<Engine>, parameters: &Fields, start: &str) -> Result<Vec<Read>> {
    let read = p::Read(parameters);
    let (max_depth, max_pages) = (read.integer("max_depth").unwrap_or(2), read.integer("max_pages").unwrap_or(50));
    let until = Instant::now() + Duration::from_secs(read.integer("crawl_timeout").unwrap_or(300));
    let delay = Duration::from_secs_f64(read.number("delay_between_requests").unwrap_or(0.0));
    let patterns = patterns(parameters)?;
    let own_headers = headers(parameters)?;
    let goal = match read.text("crawl_goal").filter(|_| read.text("crawl_mode") == Some("semantic")) {
        Some(goal) => {
            let embedder = engine.embedder(Registry::default_text_model()).await?;
            let vectors = embedder.embed(vec![goal.to_owned()]).await?;
            vectors.into_iter().next().map(|vector| (embedder, vector))
        }
        None => None,
    };
    let reader = Reader::new(Box::new(|call| Box::pin(engine.ask(call))), PAGE_TIMEOUT, own_headers);
    let mut seen = HashSet::from([start.to_owned()]);
    let mut waiting = vec![Waiting { url: start.to_owned(), parent: None, depth: 0, nearness: 1.0 }];
    let mut pages: Vec<Read> = Vec::new();
    let mut tried = 0;
    while let Some(next) = take_next(&mut waiting, goal.is_some()) {
        if tried >= max_pages || Instant::now() >= until {
            break;
        }
        tried += 1;
        let page = match tokio::time::timeout_at(until.into(), one(&reader, &read, &next.url)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) if next.depth == 0 => return Err(error),
            Ok(Err(error)) => {
                tracing::debug!(url = next.url, %error, "a page was not read");
                continue;
            }
            Err(_) if next.depth == 0 => return Err(Error::Upstream(format!("`{start}` did not answer in time"))),
            Err(_) => break,
        };
        if next.depth < max_depth {
            let meant = |link: &&page::Link| web::same_host(&link.url, start) && patterns.allow(&link.url);
            let fresh: Vec<&page::Link> = page.details.links.iter().filter(meant).collect();
            let fresh: Vec<&page::Link> = fresh.into_iter().filter(|link| seen.insert(link.url.clone())).collect();
            let nearness = match &goal {
                Some((embedder, goal)) if !fresh.is_empty() => {
                    let texts = fresh.iter().map(|link| link.words()).collect();
                    let near = |vector: Vec<f32>| vector.iter().zip(goal).map(|(a, b)| a * b).sum();
                    embedder.embed(texts).await?.into_iter().map(near).collect()
                }
                _ => vec![0.0; fresh.len()],
            };
            let depth = next.depth + 1;
            let parent = Some(next.url.clone());
            let more = fresh.into_iter().zip(nearness);
            waiting.extend(more.map(|(link, nearness)| Waiting {
                url: link.url.clone(),
                parent: parent.clone(),
                depth,
                nearness,
            }));
            waiting.truncate(MAX_WAITING);
        }
        pages.push(Read { url: next.url, parent: next.parent, depth: next.depth, page, found: Fields::new() });
        tokio::time::sleep(delay).await;
    }
    Ok(pages)
}

/// The first in order of finding, which is that of depth; or the nearest one.
fn take_next(waiting: &mut Vec<Waiting>, by_nearness: bool) -> Option<Waiting> {
    if waiting.is_empty() {
        return None;
    }
    let nearest = || waiting.iter().enumerate().max_by(|a, b| a.1.nearness.total_cmp(&b.1.nearness)).map(|(at, _)| at);
    let at = if by_nearness { nearest().unwrap_or(0) } else { 0 };
    Some(waiting.remove(at))
}

/// A page, asked for again while its server is in trouble.
async fn one(reader: &Reader<'_>, read: &p::Read<'_>, url: &str) -> Result<page::Page> {
    let most = read.number("retry_max_delay").unwrap_or(30.0);
    let mut pause = read.number("retry_base_delay").unwrap_or(1.0);
    let mut left = read.integer("max_retries").unwrap_or(3);
    loop {
        let reply = reader.fetch(url).await?;
        let is_busy = reply.status == 429 || reply.status >= 500;
        if (200..300).contains(&reply.status) {
            let wanted = page::Wanted { min_chars: page::READABLE_CHARS, details: true, ..page::Wanted::default() };
            return web::read(url, reply, wanted).await;
        }
        if !is_busy || left == 0 {
            return Err(Error::Upstream(format!("`{url}` answered {}", reply.status)));
        }
        let asked = reply.retry_after.filter(|_| read.is("respect_retry_after")).map(|seconds| seconds as f64);
        tokio::time::sleep(Duration::from_secs_f64(asked.unwrap_or(pause).min(most))).await;
        pause *= 2.0;
        left -= 1;
    }
}

async fn documents(parameters: &Fields, pages: Vec<Read>) -> Result<Vec<Output>> {
    let config = splitting(parameters)?;
    let strategy = p::Read(parameters).text("document_id_strategy").unwrap_or("url").to_owned();
    let make = move || -> Result<Vec<Output>> {
        let mut outputs: Vec<Output> = Vec::new();
        for read in pages {
            let left = limits::MAX_DERIVED_DOCUMENTS.saturating_sub(outputs.len());
            outputs.extend(of_page(&read, config.as_ref(), &strategy, left)?);
        }
        // Two pages of one content are one document by content.
        let mut known = HashSet::new();
        outputs.retain(|output| output.key.as_ref().is_none_or(|key| known.insert(key.clone())));
        Ok(outputs)
    };
    tokio::task::spawn_blocking(make).await.map_err(Error::internal)?
}

/// The documents of one page.
fn of_page(read: &Read, config: Option<&SplitConfig>, strategy: &str, most: usize) -> Result<Vec<Output>> {
    let content = &read.page.content;
    let text = content.get("text").and_then(Value::as_str).unwrap_or_default();
    let chunks: Vec<(String, Option<(usize, usize)>)> = match config {
        None => vec![(text.to_owned(), None)],
        Some(config) => {
            let chunks = split::split_bounded(text, config, most)?;
            chunks.into_iter().map(|chunk| (chunk.text, Some((chunk.start_char, chunk.end_char)))).collect()
        }
    };
    let total = chunks.len();
    let one = |(at, (text, place)): (usize, (String, Option<(usize, usize)>))| {
        let key = match strategy {
            "url" => Some(format!("{} {at}", read.url)),
            "content" => Some(id::sha256_hex(text.as_bytes())),
            _ => None,
        };
        let mut output = Output { key, ..Output::default() };
        output.put("content", text);
        output.put("title", content.get("title").cloned().unwrap_or_default());
        output.put("page_url", read.url.as_str());
        output.put("crawl_depth", read.depth);
        output.put("parent_url", read.parent.clone());
        output.put("chunk_index", at);
        output.put("total_chunks", total);
        if let Some((start, end)) = place {
            output.put("start_char", start);
            output.put("end_char", end);
        }
        if at == 0 {
            output.put("code_blocks", read.page.details.code_blocks.clone());
            output.put("images", read.page.details.images.clone());
            output.put("asset_links", read.page.details.asset_links.clone());
        }
        output.complete(read.found.clone());
        output
    };
    Ok(chunks.into_iter().enumerate().map(one).collect())
}

/// What a language model reads of a page: title and text; `None` where it has no text.
fn shaped(read: &Read) -> Option<String> {
    let part = |name: &str| read.page.content.get(name).and_then(Value::as_str).unwrap_or_default().trim();
    let (title, text) = (part("title"), part("text"));
    (!text.is_empty()).then(|| format!("{title}\n{text}").trim().chars().take(MAX_SHAPED_CHARS).collect())
}

/// What stands for a document where it is searched for: title and text.
fn searched(output: &Output) -> Option<String> {
    let text = output.fields.get("content")?.as_str().filter(|text| !text.trim().is_empty())?;
    let title = output.fields.get("title").and_then(Value::as_str).unwrap_or_default();
    Some(format!("{title}\n{text}").trim().to_owned())
}
