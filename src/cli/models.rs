//! `strata models`: what the registry knows, what is on this machine, and fetching it.

use super::{Output, table};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use strata_infer::{FileState, InstallState, Registry, Verify};

#[derive(Debug, clap::Args)]
pub struct ModelsArguments {
    #[command(subcommand)]
    command: ModelsCommand,
    /// Directory of the models [default: the user's data directory]
    #[arg(long, env = "STRATA_MODELS", value_name = "DIR", global = true)]
    models: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum ModelsCommand {
    /// The models the registry knows
    List,
    /// Fetch models, or groups of them such as `media_tools`, and check their files [default: the text model]
    Pull {
        ids: Vec<String>,
        /// Take the archives from this directory instead of the network
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Check files against their hashes [default: of every model that is here]
    Verify { ids: Vec<String> },
}

pub fn run(arguments: ModelsArguments, output: Output) -> Result<ExitCode> {
    let registry = Registry::open(crate::settings::models_dir(arguments.models)?);
    match arguments.command {
        ModelsCommand::List => list(&registry, output),
        ModelsCommand::Pull { ids, from } => pull(&registry, ids, from, output),
        ModelsCommand::Verify { ids } => verify(&registry, ids, output),
    }
}

fn list(registry: &Registry, output: Output) -> Result<ExitCode> {
    let models = registry.list();
    let rows: Vec<Vec<String>> = models
        .iter()
        .map(|model| {
            let state = match model.state {
                InstallState::Missing => "missing",
                InstallState::Installed => "installed",
                InstallState::Damaged => "damaged",
            };
            let entry = model.entry;
            let size = format!("{:.1} MB", entry.size_bytes() as f64 / 1e6);
            vec![
                entry.id.into(),
                if entry.dimensions > 0 { entry.dimensions.to_string() } else { "-".into() },
                size,
                entry.licence.into(),
                state.into(),
                entry.summary.into(),
            ]
        })
        .collect();
    let header = ["ID", "DIMENSIONS", "SIZE", "LICENCE", "STATE", "SUMMARY"];
    output.print(&serde_json::to_value(&models)?, |out| table(out, &header, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn pull(registry: &Registry, mut ids: Vec<String>, from: Option<PathBuf>, output: Output) -> Result<ExitCode> {
    if ids.is_empty() {
        ids.push(Registry::default_text_model().to_owned());
    }
    let mut entries: Vec<&strata_infer::ModelEntry> = Vec::new();
    for name in &ids {
        entries.extend(Registry::resolve_all(name).with_context(|| format!("cannot pull `{name}`"))?);
    }
    let mut reports = Vec::new();
    for entry in entries {
        let id = entry.id;
        eprintln!("pulling {id}");
        let report = match &from {
            Some(dir) => registry.pull_from(id, dir),
            None => registry.pull(id),
        };
        reports.push(report.with_context(|| format!("cannot pull `{id}`"))?);
    }
    output.print(&serde_json::to_value(&reports)?, |out| {
        for report in &reports {
            let how = if report.already_installed { "was already in" } else { "is in" };
            writeln!(out, "{} {how} {}", report.id, report.path.display())?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn verify(registry: &Registry, ids: Vec<String>, output: Output) -> Result<ExitCode> {
    let ids: Vec<String> = if ids.is_empty() {
        let here = registry.list().into_iter().filter(|model| model.state != InstallState::Missing);
        here.map(|model| model.entry.id.to_owned()).collect()
    } else {
        ids
    };
    let found: Vec<Verify> = ids.iter().map(|id| registry.verify(id)).collect::<Result<_, _>>()?;
    let answer: Vec<Value> =
        found.iter().map(|model| json!({ "id": model.id, "ok": model.is_good(), "files": model.files })).collect();
    let mut rows = Vec::new();
    for model in &found {
        for file in &model.files {
            let state = match &file.state {
                FileState::Good => "good".to_owned(),
                FileState::Missing => "missing".to_owned(),
                FileState::WrongSize { expected_bytes, found_bytes } => {
                    format!("has {found_bytes} bytes, not {expected_bytes}")
                }
                FileState::Unpinned => "is there, and nothing says what it should be".to_owned(),
                FileState::WrongHash { found_sha256 } => format!("has the SHA-256 {found_sha256}"),
            };
            rows.push(vec![model.id.to_owned(), file.name.to_owned(), state]);
        }
    }
    output.print(&Value::Array(answer), |out| table(out, &["MODEL", "FILE", "STATE"], &rows))?;
    Ok(if found.iter().all(Verify::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
