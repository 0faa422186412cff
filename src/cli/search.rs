//! `strata search`: one ad hoc retriever over what was ingested, its hits shown with where they came from.

use super::{Client, Output, ServerArguments};
use crate::client::text;
use anyhow::Result;
use serde_json::{Value, json};
use std::io::Write;
use std::time::Instant;

/// Characters of a hit's text that are shown.
const SHOWN: usize = 300;

/// Cosine under which nothing is alike, in a search through all collections.
const LEAST_SCORE: f64 = 0.2;

#[derive(Debug, clap::Args)]
pub struct SearchArguments {
    /// What to look for
    #[arg(required = true)]
    text: Vec<String>,
    /// Collection, by name or id; several times for several [default: all]
    #[arg(long, short)]
    collection: Vec<String>,
    /// How many hits
    #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Match words (BM25) instead of meaning
    #[arg(long)]
    lexical: bool,
    #[command(flatten)]
    server: ServerArguments,
}

pub fn run(arguments: SearchArguments, output: Output) -> Result<()> {
    let client = Client::open(&arguments.server)?;
    let query = arguments.text.join(" ");
    // Without a feature, each collection is searched by every vector that text finds, and by its words.
    let mut search = json!({
        "query": { "input_mode": "text", "value": "{{INPUT.query}}" },
        "top_k": arguments.limit,
    });
    if arguments.lexical {
        search["lexical"] = json!(true);
    } else if arguments.collection.is_empty() {
        // Else the nearest of each kind of file would be among the first, however far it is.
        search["min_score"] = json!(LEAST_SCORE);
    }
    let started = Instant::now();
    let answer = client.post(
        "/retrievers/execute?return_presigned_urls=true",
        &json!({
            "collection_identifiers": arguments.collection,
            "inputs": { "query": query },
            "stages": [{
                "stage_name": "search",
                "stage_type": "filter",
                "config": {
                    "stage_id": "feature_search",
                    "parameters": { "searches": [search], "final_top_k": arguments.limit },
                },
            }],
        }),
    )?;
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    output.print(&answer, |out| {
        let hits = answer.get("results").or_else(|| answer.get("documents")).and_then(Value::as_array);
        let hits = hits.map_or(&[][..], Vec::as_slice);
        for (rank, hit) in hits.iter().enumerate() {
            print_hit(out, rank + 1, hit)?;
        }
        writeln!(out, "{} hits in {elapsed_ms:.1} ms", hits.len())
    })
}

fn print_hit(out: &mut dyn Write, rank: usize, hit: &Value) -> std::io::Result<()> {
    let score = hit.get("score").and_then(Value::as_f64).unwrap_or(0.0);
    let mut name =
        ["lemma", "title", "file_name"].iter().find_map(|field| text(hit, field)).unwrap_or_default().to_owned();
    if let Some(place) = place(hit) {
        name = [name, place].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    }
    let body: String = body(hit).chars().take(SHOWN).collect();
    match name.is_empty() {
        false => writeln!(out, "{rank:>2}. {score:.4}  [{name}] {body}")?,
        true => writeln!(out, "{rank:>2}. {score:.4}  {body}")?,
    }
    writeln!(out, "      {}", lineage(hit))?;
    match text(hit, "thumbnail_url") {
        Some(url) => writeln!(out, "      {url}"),
        None => Ok(()),
    }
}

/// What a hit says: its text, what is said in it, or what is to be seen.
fn body(hit: &Value) -> String {
    let said = ["text", "transcription"].iter().find_map(|field| text(hit, field).filter(|text| !text.is_empty()));
    if let Some(said) = said {
        return said.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    let labels = hit.get("labels").and_then(Value::as_array);
    let labels = labels.into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
    if labels.is_empty() { labels } else { format!("({labels})") }
}

/// Where in its file a hit lies.
fn place(hit: &Value) -> Option<String> {
    if let Some(page) = hit.get("page_number").and_then(Value::as_u64) {
        return Some(format!("page {page}"));
    }
    let clock = |field: &str| {
        let seconds = hit.get(field)?.as_f64()?;
        Some(format!("{}:{:04.1}", (seconds / 60.0) as u64, seconds % 60.0))
    };
    Some(format!("{} to {}", clock("start_time")?, clock("end_time")?))
}

/// `doc_… from obj_…, along bkt_…/col_…`, as far as the hit tells.
fn lineage(hit: &Value) -> String {
    let mut line = text(hit, "document_id").unwrap_or("?").to_owned();
    if let Some(source) = text(hit, "source_document_id").or_else(|| text(hit, "root_object_id")) {
        line.push_str(&format!(" from {source}"));
    }
    if let Some(path) = text(hit, "lineage_path").or_else(|| hit.pointer("/lineage/path").and_then(Value::as_str)) {
        line.push_str(&format!(", along {path}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_says_where_it_lies_and_what_it_holds() {
        assert_eq!(place(&json!({ "page_number": 7 })).as_deref(), Some("page 7"));
        let segment = json!({ "start_time": 65.25, "end_time": 70.0, "labels": ["street", "bus"] });
        assert_eq!(place(&segment).as_deref(), Some("1:05.2 to 1:10.0"));
        assert_eq!((place(&json!({})), body(&segment)), (None, "(street, bus)".to_owned()));
        assert_eq!(body(&json!({ "text": "", "transcription": "said\n so" })), "said so");
    }
}
