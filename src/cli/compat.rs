//! `strata compat`: COMPAT.md, made by comparing the contract's operations with the server's own OpenAPI document.

use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct CompatArguments {
    /// The contract's operations, one a line: method, path, operation id, auth, area
    #[arg(long, default_value = "tests/contract/operations.tsv")]
    operations: PathBuf,
    /// The file to write
    #[arg(long, default_value = "COMPAT.md")]
    output: PathBuf,
    /// Write nothing; fail when the file is not what would be written
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: CompatArguments) -> Result<ExitCode> {
    let list = std::fs::read_to_string(&arguments.operations)
        .with_context(|| format!("cannot read `{}`", arguments.operations.display()))?;
    let openapi = serde_json::to_value(strata_http::openapi())?;
    let text = render(&list, &openapi)?;
    if !arguments.check {
        std::fs::write(&arguments.output, text)
            .with_context(|| format!("cannot write `{}`", arguments.output.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let present = std::fs::read_to_string(&arguments.output).unwrap_or_default();
    if present == text {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("`{}` is not current\n\nhint: run `strata compat`", arguments.output.display());
    Ok(ExitCode::FAILURE)
}

struct Operation<'a> {
    method: &'a str,
    path: &'a str,
    id: &'a str,
    area: &'a str,
}

fn render(list: &str, openapi: &Value) -> Result<String> {
    let operations = parse(list)?;
    let served = served(openapi);
    let mut areas: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &operations {
        areas.entry(operation.area).or_default().push(operation);
    }
    let is_served = |operation: &Operation| served.contains(&(operation.method.to_owned(), shape(operation.path)));
    let done = operations.iter().filter(|operation| is_served(operation)).count();
    let mut text = String::from(
        "# Compatibility\n\nMade by `strata compat` from the contract's list of operations and the server's router; do not edit.\n\n",
    );
    writeln!(text, "{done} of {} operations are implemented.\n", operations.len())?;
    text.push_str("| area | implemented | of |\n|---|---:|---:|\n");
    for (area, members) in &areas {
        let done = members.iter().filter(|operation| is_served(operation)).count();
        writeln!(text, "| {area} | {done} | {} |", members.len())?;
    }
    for (area, members) in &areas {
        writeln!(text, "\n## {area}\n\n| operation | id | state |\n|---|---|---|")?;
        for operation in members {
            let state = if is_served(operation) { "implemented" } else { "not yet" };
            writeln!(text, "| {} `{}` | `{}` | {state} |", operation.method, operation.path, operation.id)?;
        }
    }
    let known: BTreeSet<(String, String)> =
        operations.iter().map(|operation| (operation.method.to_owned(), shape(operation.path))).collect();
    let extra: Vec<&(String, String)> = served.iter().filter(|operation| !known.contains(operation)).collect();
    if !extra.is_empty() {
        text.push_str("\n## beyond the contract\n\n");
        for (method, path) in extra {
            writeln!(text, "- {method} `{path}`")?;
        }
    }
    Ok(text)
}

fn parse(list: &str) -> Result<Vec<Operation<'_>>> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let [method, path, id, _auth, area] = cells[..] else {
                anyhow::bail!("`{line}` has {} cells instead of 5", cells.len());
            };
            Ok(Operation { method, path, id, area })
        })
        .collect()
}

/// What the server answers: method and path, the names of path parameters taken out.
fn served(openapi: &Value) -> BTreeSet<(String, String)> {
    let mut served = BTreeSet::new();
    let Some(paths) = openapi.get("paths").and_then(Value::as_object) else { return served };
    for (path, methods) in paths {
        let Some(methods) = methods.as_object() else { continue };
        for method in ["get", "post", "put", "patch", "delete"] {
            if methods.contains_key(method) {
                served.insert((method.to_uppercase(), shape(path)));
            }
        }
    }
    served
}

/// `/v1/buckets/{bucket_id}/objects` becomes `/v1/buckets/{}/objects`: parameter names are nobody's business. A slash at
/// the end makes no difference to the router.
fn shape(path: &str) -> String {
    let segments: Vec<&str> = path
        .trim_end_matches('/')
        .split('/')
        .map(|segment| if segment.starts_with('{') { "{}" } else { segment })
        .collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_implemented_when_the_router_has_its_method_and_shape() {
        let list = "# comment\nGET\t/v1/a/{a_id}\tget_a\tkey\tfirst\nPOST\t/v1/a\tmake_a\tkey\tfirst\n";
        let openapi =
            serde_json::json!({ "paths": { "/v1/a/{other_name}": { "get": {} }, "/metrics": { "get": {} } } });
        let text = render(list, &openapi).expect("renders");
        assert!(text.contains("1 of 2 operations are implemented."), "{text}");
        assert!(text.contains("| GET `/v1/a/{a_id}` | `get_a` | implemented |"), "{text}");
        assert!(text.contains("| POST `/v1/a` | `make_a` | not yet |"), "{text}");
        assert!(text.contains("- GET `/metrics`"), "{text}");
    }
}
