//! The commands. Data goes to stdout, everything else to stderr; `--json` prints answers as JSON.

mod backup;
mod compat;
mod doctor;
mod get;
mod ingest;
mod keys;
mod lane;
mod models;
mod namespaces;
mod restore;
mod search;
mod serve;
mod walk;

use crate::client::{Client, ServerArguments};
use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "strata", version, about, long_about = None, propagate_version = true)]
pub struct Arguments {
    /// Print answers as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Box<crate::settings::ServeArguments>),
    /// Bring files and folders in: texts, images, PDFs, video and audio become searchable documents
    Ingest(ingest::IngestArguments),
    /// Search what was ingested
    Search(search::SearchArguments),
    /// Show a resource by its id (doc_, obj_, bkt_, col_, ret_, btch_, task_, ns_)
    Get(get::GetArguments),
    /// API keys
    Keys(keys::KeysArguments),
    /// Namespaces
    Namespaces(namespaces::NamespacesArguments),
    /// Models on this machine
    Models(models::ModelsArguments),
    /// Check a data directory: catalog, blobs, index, models
    Doctor(doctor::DoctorArguments),
    /// Back up a data directory, while a server runs on it or not
    Backup(backup::BackupArguments),
    /// The backups that are there; `--verify` reads them whole
    Backups(backup::BackupsArguments),
    /// Make a new data directory of a backup
    Restore(restore::RestoreArguments),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Write COMPAT.md: the state of every operation of the contract
    #[command(hide = true)]
    Compat(compat::CompatArguments),
    /// Print the server's OpenAPI document
    #[command(hide = true)]
    Openapi,
    /// Print the places at which `STRATA_FAULT=place:die:N` or `place:fail:N` lets the server die or fail
    #[command(hide = true)]
    FaultPoints,
    /// Decode files under limits: what the server starts itself as
    #[command(hide = true, name = strata_engine::MEDIA_CHILD)]
    MediaChild {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let output = Output { json: arguments.json };
    match arguments.command {
        Command::Serve(arguments) => serve::run(*arguments, output)?,
        Command::Ingest(arguments) => return ingest::run(arguments, output),
        Command::Search(arguments) => search::run(arguments, output)?,
        Command::Get(arguments) => get::run(arguments, output)?,
        Command::Keys(arguments) => keys::run(arguments, output)?,
        Command::Namespaces(arguments) => namespaces::run(arguments, output)?,
        Command::Models(arguments) => return models::run(arguments, output),
        Command::Doctor(arguments) => return doctor::run(arguments, output),
        Command::Backup(arguments) => backup::run(arguments, output)?,
        Command::Backups(arguments) => return backup::list(arguments, output),
        Command::Restore(arguments) => restore::run(arguments, output)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "strata", &mut std::io::stdout());
        }
        Command::Compat(arguments) => return compat::run(arguments),
        Command::MediaChild { arguments } => return Ok(strata_media::child::main(arguments)),
        Command::FaultPoints => {
            strata_engine::FaultPoint::ALL.iter().for_each(|point| println!("{}", point.name()));
        }
        Command::Openapi => Output { json: true }.print(&serde_json::to_value(strata_http::openapi())?, |_| Ok(()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How answers are printed.
#[derive(Debug, Clone, Copy)]
struct Output {
    json: bool,
}

impl Output {
    /// The answer as it came, or as `human` writes it.
    fn print(self, answer: &Value, human: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, answer).map_err(std::io::Error::from)?;
            writeln!(stdout)?;
        } else {
            human(&mut stdout)?;
        }
        stdout.flush()?;
        Ok(())
    }
}

/// Rows under a header, each column as wide as its widest cell.
fn table(out: &mut dyn Write, header: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|title| title.chars().count())).max().unwrap_or(0)
    };
    let header: Vec<String> = header.iter().map(|title| (*title).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column))).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A field of an answer as a table cell.
fn cell(row: &Value, field: &str) -> String {
    match row.get(field) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => {
            let texts: Vec<String> =
                list.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect();
            texts.join(",")
        }
        Some(other) => other.to_string(),
    }
}
