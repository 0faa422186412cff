//! `strata search`: one ad hoc retriever over the ingested texts, its hits shown with where they came from.

use super::{Client, Output, ServerArguments};
use crate::client::text;
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Instant;

/// Characters of a hit's text that are shown.
const SHOWN: usize = 300;

#[derive(Debug, clap::Args)]
pub struct SearchArguments {
    /// What to look for
    #[arg(required = true)]
    text: Vec<String>,
    /// Collection, by name or id
    #[arg(long, short, default_value = super::ingest::TEXTS)]
    collection: String,
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
    let collection = client.get(&format!("/collections/{}", crate::client::percent_encode(&arguments.collection)))?;
    let feature = collection
        .get("vector_indexes")
        .and_then(Value::as_array)
        .and_then(|indexes| indexes.iter().find_map(|index| text(index, "feature_uri")));
    let Some(feature) = feature else {
        bail!("collection `{}` has no vector index to search", arguments.collection);
    };
    let mut search = json!({
        "feature_uri": feature,
        "query": { "input_mode": "text", "value": "{{INPUT.query}}" },
        "top_k": arguments.limit,
    });
    if arguments.lexical {
        search["lexical"] = json!(true);
    }
    let started = Instant::now();
    let answer = client.post(
        "/retrievers/execute",
        &json!({
            "collection_identifiers": [arguments.collection],
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
    let name = ["lemma", "title", "file_name"].iter().find_map(|field| text(hit, field));
    let body: String = text(hit, "text").unwrap_or("").chars().take(SHOWN).collect();
    match name {
        Some(name) => writeln!(out, "{rank:>2}. {score:.4}  [{name}] {body}")?,
        None => writeln!(out, "{rank:>2}. {score:.4}  {body}")?,
    }
    writeln!(out, "      {}", lineage(hit))
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
