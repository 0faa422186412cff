//! Prints texts/s and tokens/s of the default text model by batch size and thread count, and the latency of one query
//! alone and behind ingest; or, given a file with a text on each line, how fast the model as the server runs it embeds
//! those. Run on an idle machine: `cargo run --release -p strata-infer --example embed_rate [FILE]`.

use std::path::Path;
use std::time::{Duration, Instant};
use strata_infer::{EmbedConfig, Registry, TextEmbedder};
use strata_model::{Error, Result};

const SENTENCE: &str = "The harbour was closed on Tuesday because of heavy snow and strong wind, and three ferries with \
                        passengers had to wait outside until the evening before they could enter.";
const QUERY: &str = "why was the harbour closed";

fn main() -> Result<()> {
    let registry = Registry::open(Registry::default_dir()?);
    registry.pull(Registry::default_text_model())?;
    match std::env::args_os().nth(1) {
        Some(file) => lines_of(&registry, Path::new(&file)),
        None => sweep(&registry),
    }
}

fn lines_of(registry: &Registry, file: &Path) -> Result<()> {
    let content = std::fs::read_to_string(file).map_err(|e| Error::Malformed(format!("`{}`: {e}", file.display())))?;
    let texts: Vec<String> = content.lines().map(str::to_owned).collect();
    let embedder = TextEmbedder::load(registry, Registry::default_text_model(), EmbedConfig::default())?;
    let mut tokens = 0;
    for text in &texts {
        tokens += embedder.count_tokens(text)?.min(embedder.max_tokens());
    }
    let count = texts.len();
    let start = Instant::now();
    embedder.embed_blocking(texts)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{count} texts of {tokens} tokens: {:.1} texts/s, {:.1} tokens/s",
        count as f64 / seconds,
        tokens as f64 / seconds
    );
    Ok(())
}

fn sweep(registry: &Registry) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for threads in [1, cores] {
        for max_batch in [1, 8, 32] {
            let start = Instant::now();
            let config = EmbedConfig { max_batch, threads, ..EmbedConfig::default() };
            let embedder = TextEmbedder::load(registry, Registry::default_text_model(), config)?;
            let load_ms = start.elapsed().as_millis();
            rate(&embedder, threads, max_batch, load_ms)?;
            if max_batch == 32 {
                latency(&embedder, threads)?;
            }
        }
    }
    Ok(())
}

fn rate(embedder: &TextEmbedder, threads: usize, max_batch: usize, load_ms: u128) -> Result<()> {
    let tokens = embedder.count_tokens(SENTENCE)?;
    for (what, tokens, text) in [("short", tokens, SENTENCE.to_owned()), ("long", 256, SENTENCE.repeat(12))] {
        let count = if what == "short" { 96 } else { 16 };
        let start = Instant::now();
        embedder.embed_blocking(vec![text; count])?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "threads {threads}, batch {max_batch}, {what} ({tokens} tokens): {:.0} texts/s, {:.0} tokens/s (load {load_ms} ms)",
            count as f64 / seconds,
            (count * tokens) as f64 / seconds,
        );
    }
    Ok(())
}

fn latency(embedder: &TextEmbedder, threads: usize) -> Result<()> {
    let tokens = embedder.count_tokens(QUERY)?;
    println!("threads {threads}, one query ({tokens} tokens) alone: {}", quantiles(embedder, 200)?);
    std::thread::scope(|scope| {
        let ingest = scope.spawn(|| embedder.embed_blocking(vec![SENTENCE.to_owned(); 256]));
        println!("threads {threads}, one query ({tokens} tokens) behind ingest: {}", quantiles(embedder, 20)?);
        ingest.join().map_err(|_| Error::internal("the ingest thread panicked"))?.map(drop)
    })
}

fn quantiles(embedder: &TextEmbedder, count: usize) -> Result<String> {
    let mut times: Vec<Duration> = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        embedder.embed_query_blocking(QUERY)?;
        times.push(start.elapsed());
    }
    times.sort();
    let at = |part: f64| times[((count - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    Ok(format!("p50 {:.2} ms, p95 {:.2} ms, max {:.2} ms", at(0.5), at(0.95), at(1.0)))
}
