//! `code_execution`: JavaScript of the retriever's author over the working set.

mod sandbox;

use super::outside::{self, OnError, Outcome, Secrets};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::retrieval::params::{Params, Setting, choice, count, is_absent, text, value_or};
use crate::retrieval::template::{Namespace, Reference};
use crate::retrieval::{Hit, limits, view};
use futures::future::BoxFuture;
use sandbox::{Convention, Done, Job, Returned, has_word};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use strata_model::document::SYSTEM_FIELDS;
use strata_model::{Error, Fields, Result};

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "code_execution",
    aliases: &[],
    category: Category::Apply,
    description: "Runs JavaScript over the documents, without access to anything else.",
    icon: "code",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const JAVASCRIPT: &str =
    "must be JavaScript: set `language` to `javascript`; no other language is available in this version";
/// The longest that one stage may take, whatever its documents.
const MAX_TOTAL: Duration = Duration::from_secs(30);
const MAX_ENV: usize = 50;

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["code", "language"],
        "properties": {
            "code": {"type": "string", "description": "Code that reads `docs` runs once and leaves in `result`, or returns, a list with a value for each document. Code that reads `doc` runs for each document: the object that it returns takes the document's place, any other value goes into `output_field`, `null` leaves the document out; code without `return` changes `doc`. Both have `INPUT`, `CONTEXT`, `env` and `console.log`, and keep to the rules of strict code, though variables need no declaration."},
            "language": {"type": "string", "enum": ["javascript"], "description": "`runtime` means the same."},
            "output_field": {"type": "string", "default": "computed", "description": "Gets the value of each document."},
            "result_variable": {"type": "string", "default": "result"},
            "timeout_ms": {"type": "integer", "minimum": 100, "maximum": 30000, "default": 5000, "description": "For one call; all calls together take at most 30 seconds."},
            "memory": {"type": "integer", "minimum": 8, "maximum": 256, "default": 64, "description": "MiB."},
            "max_output_size": {"type": "integer", "minimum": 1024, "maximum": 1_000_000, "default": 100_000, "description": "Bytes of all values as JSON."},
            "env": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Texts for the code to read; they take templates, but no secrets: whatever code knows it can put into the answer."},
            "on_error": {"type": "string", "enum": ["skip", "remove", "raise"], "default": "skip", "description": "What becomes of a document whose call failed: it passes as it is, it is left out, or the stage fails."},
        },
    })
}

#[derive(Debug)]
struct CodeExecution {
    at: String,
    code: String,
    convention: Convention,
    output_field: Option<Setting<String>>,
    result_variable: String,
    timeout: Option<Setting<usize>>,
    memory: Option<Setting<usize>>,
    max_output: Option<Setting<usize>>,
    env: Vec<(String, Setting<String>)>,
    on_error: OnError,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let is_runtime = language(&mut params)?;
    let at = params.place("code");
    let code = params.fixed(&["code"], text)?.ok_or_else(|| Error::invalid(at.as_str(), "is required"))?;
    if code.len() > limits::MAX_TEMPLATE_BYTES {
        return Err(Error::invalid(at, format!("is at most {} bytes long", limits::MAX_TEMPLATE_BYTES)));
    }
    if let Some(name) = ["INPUT", "CONTEXT", "SECRET", "DOC"].iter().find(|name| is_template_of(&code, name)) {
        let message =
            format!("holds no templates; it reads `{name}` as a variable, where that is one of INPUT, CONTEXT and env");
        return Err(Error::invalid(at, message));
    }
    let result_variable = params.fixed(&["result_variable"], identifier)?.unwrap_or_else(|| "result".into());
    let reads_each = is_runtime || (has_word(&code, "doc") && !has_word(&code, "docs"));
    let convention = if reads_each { Convention::Each } else { Convention::Once };
    sandbox::check(&code, convention, &result_variable).map_err(|message| Error::invalid(at.as_str(), message))?;
    let timeout = match params.setting(&["timeout_ms"], count(100..=30_000))? {
        None => params.setting(&["timeout"], |value, at| count(1..=30)(value, at).map(|seconds| seconds * 1_000))?,
        given => given,
    };
    if params.has(&["packages"]) {
        params.warn(format!("`{}` is ignored: code runs without packages", params.place("packages")));
        params.take(&["packages"]);
    }
    for (name, namespace) in [("INPUT", Namespace::Input), ("CONTEXT", Namespace::Context)] {
        if has_word(&code, name) {
            params.reads(Reference { namespace, path: None });
        }
    }
    let stage = CodeExecution {
        at,
        convention,
        code,
        output_field: params.setting(&["output_field", "result_field"], outside::field)?,
        result_variable,
        timeout,
        memory: params.setting(&["memory"], count(8..=256))?,
        max_output: params.setting(&["max_output_size"], count(1_024..=1_000_000))?,
        env: env(&mut params)?,
        on_error: params.fixed(&["on_error"], outside::on_error)?.unwrap_or(OnError::Skip),
    };
    params.finish();
    Ok(Arc::new(stage))
}

/// Reads `language` and `runtime`; whether it was the latter, whose code runs for each document.
fn language(params: &mut Params<'_>) -> Result<bool> {
    let place = params.place("language");
    let known = ["javascript", "js", "node", "nodejs", "nodejs18", "nodejs20", "nodejs22"].map(|word| (word, ()));
    let language = params.take(&["language"]);
    let runtime = params.take(&["runtime"]);
    let is_runtime = runtime.is_some();
    // A client that sends every default says Python in `language` beside what its caller chose in `runtime`.
    let (at, word) = runtime.or(language).ok_or_else(|| Error::invalid(place, JAVASCRIPT))?;
    choice(&word, &at, &known).map_err(|_| Error::invalid(at, JAVASCRIPT))?;
    Ok(is_runtime)
}

/// Whether the code holds `{{INPUT…}}` or the like, which is no JavaScript that anybody means.
fn is_template_of(code: &str, name: &str) -> bool {
    code.split("{{").skip(1).any(|after| {
        let after = after.trim_start();
        after.get(..name.len()).is_some_and(|word| word.eq_ignore_ascii_case(name))
            && after.split("}}").next().is_some_and(|inside| inside.len() < after.len() && !inside.contains(';'))
    })
}

fn identifier(value: &Value, at: &str) -> Result<String> {
    let name = text(value, at)?;
    let is_name =
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if is_name && name.len() <= 100 { Ok(name) } else { Err(Error::invalid(at, "must be the name of a variable")) }
}

fn env(params: &mut Params<'_>) -> Result<Vec<(String, Setting<String>)>> {
    let Some((at, value)) = params.take(&["env"]) else { return Ok(Vec::new()) };
    let Value::Object(fields) = value else { return Err(Error::invalid(at, "must be an object of names to texts")) };
    if fields.len() > MAX_ENV {
        return Err(Error::invalid(at, format!("has at most {MAX_ENV} names")));
    }
    let names: Vec<String> = fields.iter().filter(|(_, v)| !is_absent(v)).map(|(name, _)| name.clone()).collect();
    let mut below = params.below(fields, at);
    let mut env = Vec::with_capacity(names.len());
    for name in names {
        let word = |value: &Value, at: &str| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            _ => Err(Error::invalid(at, "must be a string")),
        };
        env.extend(below.setting(&[&name], word)?.map(|setting| (name, setting)));
    }
    Ok(env)
}

impl Stage for CodeExecution {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let output = value_or(self.output_field.as_ref(), run.variables, "computed".to_owned())?;
            let hits = run.read(set).await?;
            let job = self.job(run, &hits)?;
            if hits.is_empty() {
                return Ok(WorkingSet::Read(hits));
            }
            let Done { calls, log } = match sandbox::run(job).await {
                Ok(done) => done,
                Err(Error::Invalid(list)) => {
                    let message = list.into_iter().map(|error| error.message).collect::<Vec<_>>().join("; ");
                    Done { calls: vec![Err(message); hits.len()], log: Vec::new() }
                }
                Err(other) => return Err(other),
            };
            if !log.is_empty() {
                run.metadata.insert("console".into(), log.into());
            }
            let calls = match self.convention {
                Convention::Once => spread(calls, hits.len()),
                Convention::Each => calls,
            };
            let failed = |message: String| Outcome::Failed(Error::invalid(&self.at, message));
            let mut kept = Vec::with_capacity(hits.len());
            let mut outcomes = Vec::with_capacity(hits.len());
            for (mut hit, call) in hits.into_iter().zip(calls) {
                outcomes.push(match call {
                    Err(message) => failed(message),
                    Ok(Returned::Nothing) if self.convention == Convention::Each => continue,
                    Ok(Returned::Nothing) => Outcome::Made(Value::Null),
                    Ok(Returned::Value(Value::Object(fields))) if self.convention == Convention::Each => {
                        become_of(&mut hit, fields);
                        Outcome::Untouched
                    }
                    Ok(Returned::Value(value)) => Outcome::Made(value),
                });
                kept.push(hit);
            }
            let hits = outside::settle(run, kept, outcomes, &output, self.on_error, &Secrets::default())?;
            Ok(WorkingSet::Read(hits))
        })
    }

    /// Code may read the clock.
    fn is_repeatable(&self) -> bool {
        false
    }
}

impl CodeExecution {
    fn job(&self, run: &Run<'_>, hits: &[Hit]) -> Result<Job> {
        let mut env = Fields::new();
        for (name, setting) in &self.env {
            env.insert(name.clone(), setting.value(run.variables)?.into());
        }
        let timeout = Duration::from_millis(value_or(self.timeout.as_ref(), run.variables, 5_000)? as u64);
        Ok(Job {
            code: self.code.clone(),
            convention: self.convention,
            result_variable: self.result_variable.clone(),
            documents: hits.iter().map(|hit| Value::Object(view::field_view(hit))).collect(),
            input: Value::Object(run.variables.inputs().clone()),
            context: run.variables.context(),
            env: Value::Object(env),
            timeout,
            total: match self.convention {
                Convention::Once => timeout,
                Convention::Each => MAX_TOTAL,
            },
            memory_bytes: value_or(self.memory.as_ref(), run.variables, 64)? << 20,
            max_output_bytes: value_or(self.max_output.as_ref(), run.variables, 100_000)?,
        })
    }
}

/// The one result over all documents as one for each.
fn spread(mut calls: Vec<Result<Returned, String>>, count: usize) -> Vec<Result<Returned, String>> {
    let message = match calls.pop() {
        Some(Ok(Returned::Value(Value::Array(list)))) if list.len() == count => {
            return list.into_iter().map(|value| Ok(Returned::Value(value))).collect();
        }
        Some(Ok(Returned::Value(Value::Array(list)))) => {
            format!("made a list of {} for {count} documents; there must be one for each", list.len())
        }
        Some(Ok(_)) => "must leave a list in the result variable, with one value for each document".into(),
        Some(Err(message)) => message,
        None => "did not run".into(),
    };
    vec![Err(message); count]
}

/// The document as the code returned it. What it has from the system stays.
fn become_of(hit: &mut Hit, mut fields: Fields) {
    for name in SYSTEM_FIELDS {
        fields.remove(name);
    }
    if let Some(score) = fields.remove("score") {
        hit.score = score.as_f64().or(hit.score);
    }
    if let Some(Value::Object(scores)) = fields.remove("scores") {
        hit.scores = scores;
    }
    hit.document.fields = fields;
}
