//! `strata namespaces`.

use super::{Client, Output, ServerArguments, cell, table};
use crate::client::{Go, percent_encode};
use anyhow::Result;
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub struct NamespacesArguments {
    #[command(subcommand)]
    command: NamespacesCommand,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, clap::Subcommand)]
enum NamespacesCommand {
    /// The namespaces there are
    List,
    /// Make a namespace
    Create {
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Extractors to allow, as `name@version`
        #[arg(long, value_delimiter = ',', default_value = "text_extractor@v1,passthrough_extractor@v1")]
        extractors: Vec<String>,
    },
    /// Delete a namespace and everything in it
    Delete {
        /// Id or name
        namespace: String,
        /// Do not ask; delete though it holds something
        #[arg(long)]
        force: bool,
    },
}

pub fn run(arguments: NamespacesArguments, output: Output) -> Result<()> {
    let client = Client::open(&arguments.server)?;
    match arguments.command {
        NamespacesCommand::List => {
            let mut all = Vec::new();
            client.list("/namespaces/list", |row| {
                all.push(row);
                Ok(Go::On)
            })?;
            let fields = ["namespace_id", "namespace_name", "description", "created_at"];
            let rows: Vec<Vec<String>> =
                all.iter().map(|row| fields.iter().map(|field| cell(row, field)).collect()).collect();
            output.print(&Value::Array(all), |out| table(out, &["ID", "NAME", "DESCRIPTION", "CREATED"], &rows))
        }
        NamespacesCommand::Create { name, description, extractors } => {
            let extractors: Vec<Value> = extractors
                .iter()
                .map(|extractor| {
                    let (name, version) = extractor.split_once('@').unwrap_or((extractor, "v1"));
                    json!({ "feature_extractor_name": name, "version": version })
                })
                .collect();
            let body = json!({ "namespace_name": name, "description": description, "feature_extractors": extractors });
            let answer = client.post("/namespaces", &body)?;
            output.print(&answer, |out| writeln!(out, "{}", cell(&answer, "namespace_id")))
        }
        NamespacesCommand::Delete { namespace, force } => {
            let answer = client.delete(&format!("/namespaces/{}?force={force}", percent_encode(&namespace)))?;
            output.print(&answer, |out| writeln!(out, "deleted {namespace}"))
        }
    }
}
