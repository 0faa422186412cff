//! `strata ingest`: files and folders become objects of one bucket, and batches turn them into documents of a collection
//! for each kind of file. Objects carry an idempotency key made of their content and place, so a second run repeats
//! nothing.

use super::lane::{LANES, Lane};
use super::walk::{self, Content, Record};
use super::{Client, Output, ServerArguments};
use crate::client::{expect_text, percent_encode, text};
use anyhow::{Result, bail};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub const FILES: &str = "files";
/// Largest file that travels inside a request; a larger one is uploaded before.
const MAX_INLINE_BYTES: u64 = 4 << 20;
/// Objects of one request.
const CHUNK: usize = 100;
/// Bytes after which a request goes out though it is not full.
const CHUNK_BYTES: usize = 8 << 20;
/// Objects of one batch: small enough that work starts early.
const BATCH: usize = 1000;
const POLL: Duration = Duration::from_millis(500);
/// Failures that are listed one by one; the rest are counted.
const LISTED_FAILURES: usize = 100;
/// Names that mean something to the server and so cannot be fields of a record.
const RESERVED: [&str; 7] =
    ["blobs", "key_prefix", "skip_duplicates", "canonicalize_source", "force_remirror", "edges", "idempotency_key"];

#[derive(Debug, clap::Args)]
pub struct IngestArguments {
    /// Files and folders: texts, images, audio, video and PDF, told by their content; .json, .jsonl and .csv hold records
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Bucket to fill; made if it does not exist
    #[arg(long, default_value = FILES)]
    bucket: String,
    /// Collection of the texts; made if it does not exist
    #[arg(long, default_value = Lane::Texts.collection())]
    collection: String,
    /// Field of JSON and CSV records that holds the text
    #[arg(long, default_value = "text")]
    text_field: String,
    /// How texts are split
    #[arg(long, default_value = "none", value_parser = ["none", "characters", "words", "sentences", "paragraphs", "pages", "markdown"])]
    split_by: String,
    /// Return when everything is sent, before it is searchable
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    server: ServerArguments,
}

pub fn run(arguments: IngestArguments, output: Output) -> Result<ExitCode> {
    let (files, unknown) = walk::files(&arguments.paths)?;
    if files.is_empty() {
        bail!("nothing to ingest: {unknown} files, none of a known kind");
    }
    let client = Client::open(&arguments.server)?;
    let bucket = bucket(&client, &arguments.bucket)?;
    let mut total = 0;
    for (path, kind) in &files {
        // A file that cannot be read is reported by the walk below; here it only does not count.
        total += walk::count(path, *kind).unwrap_or(0);
    }
    let mut run = Run {
        client: &client,
        arguments: &arguments,
        bar: progress_bar(total),
        pipes: LANES.map(|lane| (lane, Pipe::new())).into(),
        batches: Vec::new(),
        failures: Vec::new(),
        failed: 0,
        sent: 0,
        replayed: 0,
        documents: 0,
        polled: Instant::now(),
        bucket,
    };
    let started = Instant::now();
    for (path, kind) in &files {
        let result = walk::each_record(path, *kind, |origin, content| run.take(origin, content));
        match result {
            Ok(()) => {}
            // The server's word ends the run; a file's trouble is one failure.
            Err(error) if error.is::<crate::client::Refusal>() || error.is::<reqwest::Error>() => return Err(error),
            Err(error) if error.is::<std::io::Error>() => run.fail(path.display().to_string(), format!("{error:#}")),
            Err(error) => return Err(error),
        }
    }
    run.finish()?;
    run.summary(started.elapsed(), unknown, output)
}

/// The bucket by name, made when it is not there.
fn bucket(client: &Client, name: &str) -> Result<String> {
    if let Some(found) = client.find("/buckets/list", "bucket_name", name)? {
        return Ok(expect_text(&found, "bucket_id")?.to_owned());
    }
    let field = |kind: &str| json!({ "type": kind });
    let made = client.post(
        "/buckets",
        &json!({
            "bucket_name": name,
            "description": "Files brought in by `strata ingest`",
            "bucket_schema": { "properties": {
                "text": field("string"), "file_name": field("string"), "source_path": field("string"),
                "image": field("image"), "audio": field("audio"), "video": field("video"), "pdf": field("pdf"), "excel": field("excel"),
            } },
        }),
    )?;
    Ok(expect_text(&made, "bucket_id")?.to_owned())
}

/// The collection by name, made when it is not there.
fn collection(client: &Client, name: &str, bucket: &str, extractor: Value) -> Result<String> {
    if let Some(found) = client.find("/collections/list", "collection_name", name)? {
        return Ok(expect_text(&found, "collection_id")?.to_owned());
    }
    let made = client.post(
        "/collections",
        &json!({
            "collection_name": name,
            "source": { "type": "bucket", "bucket_ids": [bucket] },
            "feature_extractor": extractor,
        }),
    )?;
    Ok(expect_text(&made, "collection_id")?.to_owned())
}

/// Objects on their way into one collection.
struct Pipe {
    /// The collection, once something needs it.
    collection: Option<String>,
    chunk: Vec<(String, Value)>,
    chunk_bytes: usize,
    /// Objects the server has, not yet in a batch.
    waiting: Vec<String>,
}

impl Pipe {
    fn new() -> Self {
        Self { collection: None, chunk: Vec::new(), chunk_bytes: 0, waiting: Vec::new() }
    }
}

struct Batch {
    id: String,
    objects: u64,
    processed: u64,
    ended: bool,
}

struct Run<'a> {
    client: &'a Client,
    arguments: &'a IngestArguments,
    bucket: String,
    bar: ProgressBar,
    pipes: BTreeMap<Lane, Pipe>,
    batches: Vec<Batch>,
    failures: Vec<(String, String)>,
    failed: u64,
    sent: u64,
    replayed: u64,
    documents: u64,
    polled: Instant,
}

impl Run<'_> {
    fn lane(&mut self, lane: Lane) -> &mut Pipe {
        self.pipes.entry(lane).or_insert_with(Pipe::new)
    }

    fn fail(&mut self, origin: String, reason: String) {
        self.failed += 1;
        if self.failures.len() < LISTED_FAILURES {
            self.failures.push((origin, reason));
        }
    }

    /// One record of the walk: into the next request, which goes out when it is full.
    fn take(&mut self, origin: &str, content: Result<Content>) -> Result<()> {
        let object = content.and_then(|content| match &content {
            Content::Media { path, field, .. } if std::fs::metadata(path)?.len() > MAX_INLINE_BYTES => {
                self.uploaded(origin, path, field)
            }
            _ => object_of(&Record { origin: origin.to_owned(), content }, &self.arguments.text_field),
        });
        let (lane, object) = match object {
            Ok(object) => object,
            Err(error) => {
                self.fail(origin.to_owned(), format!("{error:#}"));
                self.bar.inc(1);
                return Ok(());
            }
        };
        let size_bytes = object.to_string().len();
        let pipe = self.lane(lane);
        pipe.chunk_bytes += size_bytes;
        pipe.chunk.push((origin.to_owned(), object));
        if pipe.chunk.len() >= CHUNK || pipe.chunk_bytes >= CHUNK_BYTES {
            self.send(lane)?;
        }
        Ok(())
    }

    /// An object whose bytes are brought before it.
    fn uploaded(&self, origin: &str, path: &Path, field: &'static str) -> Result<(Lane, Value)> {
        let facts = std::fs::metadata(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let uploads = format!("/buckets/{}/uploads", percent_encode(&self.bucket));
        let upload = self.client.post(
            &uploads,
            &json!({
                "filename": name, "content_type": "application/octet-stream", "file_size_bytes": facts.len(),
                "blob_property": field, "blob_type": field, "create_object_on_confirm": false,
            }),
        )?;
        let upload_id = expect_text(&upload, "upload_id")?;
        self.client.put_file(expect_text(&upload, "presigned_url")?, path)?;
        let changed = facts.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let identity = format!("{origin}\n{}\n{}", facts.len(), changed.unwrap_or_default().as_nanos());
        let object = json!({
            "blobs": [{ "property": field, "type": field, "upload_id": upload_id, "metadata": { "filename": name } }],
            "file_name": name,
            "source_path": origin,
            "idempotency_key": key_of(&identity),
        });
        Ok((Lane::of(field), object))
    }

    /// Sends the lane's waiting objects; a full batch of what the server now has is submitted.
    fn send(&mut self, lane: Lane) -> Result<()> {
        let pipe = self.lane(lane);
        pipe.chunk_bytes = 0;
        let chunk = std::mem::take(&mut pipe.chunk);
        if chunk.is_empty() {
            return Ok(());
        }
        let (origins, objects): (Vec<String>, Vec<Value>) = chunk.into_iter().unzip();
        let path = format!("/buckets/{}/objects/batch", percent_encode(&self.bucket));
        let answer = self.client.post(&path, &json!({ "objects": objects }))?;
        let rows = |field: &str| answer.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
        for made in rows("succeeded") {
            self.sent += 1;
            if made.get("replayed").and_then(Value::as_bool) == Some(true) {
                self.replayed += 1;
            }
            let id = expect_text(&made, "object_id")?.to_owned();
            self.lane(lane).waiting.push(id);
        }
        for refused in rows("failed") {
            let index = ["object_index", "index"].iter().find_map(|field| refused.get(*field)?.as_u64());
            let origin = index.and_then(|index| origins.get(usize::try_from(index).ok()?)).cloned().unwrap_or_default();
            let reason = ["error", "message", "error_message"].iter().find_map(|field| text(&refused, field));
            self.fail(origin, reason.map_or_else(|| refused.to_string(), str::to_owned));
            self.bar.inc(1);
        }
        if self.lane(lane).waiting.len() >= BATCH {
            self.submit(lane)?;
        }
        self.poll()
    }

    fn submit(&mut self, lane: Lane) -> Result<()> {
        let objects = std::mem::take(&mut self.lane(lane).waiting);
        if objects.is_empty() {
            return Ok(());
        }
        let collection = self.collection(lane)?;
        let path = format!("/buckets/{}/batches", percent_encode(&self.bucket));
        let made = self.client.post(&path, &json!({ "object_ids": objects, "collection_ids": [collection] }))?;
        let id = expect_text(&made, "batch_id")?.to_owned();
        self.client
            .post(&format!("{path}/{}/submit", percent_encode(&id)), &json!({ "collection_ids": [collection] }))?;
        self.batches.push(Batch { id, objects: objects.len() as u64, processed: 0, ended: false });
        Ok(())
    }

    fn collection(&mut self, lane: Lane) -> Result<String> {
        if let Some(id) = &self.lane(lane).collection {
            return Ok(id.clone());
        }
        let name = match lane {
            Lane::Texts => &self.arguments.collection,
            other => other.collection(),
        };
        let id = collection(self.client, name, &self.bucket, lane.extractor(&self.arguments.split_by))?;
        self.lane(lane).collection = Some(id.clone());
        Ok(id)
    }

    /// Asks for the state of the running batches, unless it has just been asked.
    fn poll(&mut self) -> Result<()> {
        if self.polled.elapsed() < POLL {
            return Ok(());
        }
        for index in 0..self.batches.len() {
            if !self.batches[index].ended {
                self.poll_batch(index)?;
            }
        }
        self.polled = Instant::now();
        Ok(())
    }

    fn poll_batch(&mut self, index: usize) -> Result<()> {
        let path =
            format!("/buckets/{}/batches/{}", percent_encode(&self.bucket), percent_encode(&self.batches[index].id));
        let state = self.client.get(&path)?;
        let batch = &mut self.batches[index];
        batch.ended =
            matches!(text(&state, "status"), Some("COMPLETED" | "COMPLETED_WITH_ERRORS" | "FAILED" | "CANCELED"));
        let counted = state.pointer("/progress/processed").and_then(Value::as_u64).unwrap_or(0);
        let processed = if batch.ended { batch.objects } else { counted.min(batch.objects) };
        self.bar.inc(processed.saturating_sub(batch.processed));
        batch.processed = processed.max(batch.processed);
        if !batch.ended {
            return Ok(());
        }
        self.documents += state.get("documents_written").and_then(Value::as_u64).unwrap_or(0);
        let failed = state.get("failed_object_count").and_then(Value::as_u64).unwrap_or(0);
        let listed = state.get("failed_objects").and_then(Value::as_array).cloned().unwrap_or_default();
        let listed_count = listed.len() as u64;
        for failure in listed {
            let reason = ["error", "message", "error_message", "reason"].iter().find_map(|field| text(&failure, field));
            self.fail(super::cell(&failure, "object_id"), reason.unwrap_or("failed").to_owned());
        }
        self.failed += failed.saturating_sub(listed_count);
        if failed == 0 && listed_count == 0 && matches!(text(&state, "status"), Some("FAILED" | "CANCELED")) {
            let id = super::cell(&state, "batch_id");
            self.fail(id, text(&state, "error").unwrap_or("the batch did not complete").to_owned());
        }
        Ok(())
    }

    /// What is still here goes out; unless told otherwise, wait until every batch has ended.
    fn finish(&mut self) -> Result<()> {
        for lane in LANES {
            self.send(lane)?;
            self.submit(lane)?;
        }
        while !self.arguments.no_wait && self.batches.iter().any(|batch| !batch.ended) {
            std::thread::sleep(POLL.saturating_sub(self.polled.elapsed()));
            self.poll()?;
        }
        self.bar.finish_and_clear();
        Ok(())
    }

    fn summary(&self, elapsed: Duration, unknown: usize, output: Output) -> Result<ExitCode> {
        let seconds = elapsed.as_secs_f64();
        let failures: Vec<Value> =
            self.failures.iter().map(|(origin, error)| json!({ "origin": origin, "error": error })).collect();
        let answer = json!({
            "bucket_id": self.bucket,
            "collection_ids": self.pipes.values().filter_map(|pipe| pipe.collection.as_ref()).collect::<Vec<_>>(),
            "batch_ids": self.batches.iter().map(|batch| &batch.id).collect::<Vec<_>>(),
            "objects": self.sent,
            "replayed": self.replayed,
            "documents": self.documents,
            "failed": self.failed,
            "unknown_files": unknown,
            "seconds": seconds,
            "failures": failures,
        });
        output.print(&answer, |out| {
            let rate = self.sent as f64 / seconds.max(0.001);
            writeln!(
                out,
                "{} objects in {} ({rate:.0} a second), {} documents written",
                self.sent,
                HumanDuration(elapsed),
                self.documents
            )?;
            if self.replayed > 0 {
                writeln!(out, "{} were already there", self.replayed)?;
            }
            if unknown > 0 {
                writeln!(out, "{unknown} files of unknown kind passed over")?;
            }
            if self.failed > 0 {
                writeln!(out, "{} failed:", self.failed)?;
            }
            for (origin, reason) in &self.failures {
                writeln!(out, "  {origin}: {reason}")?;
            }
            let unlisted = self.failed - self.failures.len() as u64;
            if unlisted > 0 {
                writeln!(out, "  … and {unlisted} more")?;
            }
            Ok(())
        })?;
        Ok(if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The object as the API takes it. Small media travel inside the request as data URIs.
fn object_of(record: &Record, text_field: &str) -> Result<(Lane, Value)> {
    let (lane, mut object) = match &record.content {
        Content::Fields(fields) => {
            let mut fields: Map<String, Value> = fields.clone();
            if let Some(name) = RESERVED.iter().find(|name| fields.contains_key(**name)) {
                bail!("has a field `{name}`, a name the API keeps for itself");
            }
            let is_text =
                fields.get(text_field).is_some_and(|value| value.as_str().is_some_and(|text| !text.trim().is_empty()));
            if !is_text {
                bail!("has no text in its field `{text_field}`");
            }
            if text_field != "text" {
                let text = fields.get(text_field).cloned().unwrap_or_default();
                fields.insert("text".to_owned(), text);
            }
            (Lane::Texts, Value::Object(fields))
        }
        Content::Media { field, media_type, path } => {
            let data = format!("data:{media_type};base64,{}", base64(&std::fs::read(path)?));
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let object = json!({
                "blobs": [{ "property": field, "type": field, "data": data, "metadata": { "filename": name } }],
                "file_name": name,
                "source_path": record.origin,
            });
            (Lane::of(field), object)
        }
    };
    object["idempotency_key"] = json!(key_of(&format!("{}\n{object}", record.origin)));
    Ok((lane, object))
}

/// An idempotency key for what is told apart by `identity`.
fn key_of(identity: &str) -> String {
    format!("ingest-{}", &strata_model::id::sha256_hex(identity.as_bytes())[..40])
}

/// RFC 4648 base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for position in 0..4 {
            if position > group.len() {
                out.push('=');
            } else {
                out.push(char::from(ALPHABET[(word >> (18 - 6 * position) & 63) as usize]));
            }
        }
    }
    out
}

fn progress_bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {per_sec}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_matches_the_test_vectors_of_rfc_4648() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_record_keeps_its_fields_and_its_key_depends_on_place_and_content() {
        let record = |origin: &str| Record {
            origin: origin.to_owned(),
            content: Content::Fields(json!({ "body": "a text", "n": 1 }).as_object().expect("object").clone()),
        };
        let (_, first) = object_of(&record("x:1"), "body").expect("object");
        let (_, again) = object_of(&record("x:1"), "body").expect("object");
        let (_, other) = object_of(&record("x:2"), "body").expect("object");
        assert_eq!((&first["text"], &first["n"]), (&json!("a text"), &json!(1)));
        assert_eq!(first["idempotency_key"], again["idempotency_key"]);
        assert_ne!(first["idempotency_key"], other["idempotency_key"]);
        assert!(object_of(&record("x:1"), "text").is_err());
    }
}
