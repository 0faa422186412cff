//! `strata keys`: the API keys of the user whose key is in use, and the key of the server that signs URLs.

use super::{Client, Output, ServerArguments, cell, table};
use crate::client::{expect_text, percent_encode};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::Write;

#[derive(Debug, clap::Args)]
pub struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// The keys there are
    List {
        /// Revoked ones too
        #[arg(long)]
        all: bool,
    },
    /// Make a key; its secret is shown this once
    Create {
        name: String,
        /// What it may do
        #[arg(long, short, value_delimiter = ',', default_value = "read", value_parser = ["read", "write", "delete", "admin"])]
        permissions: Vec<String>,
        /// Limit it to namespaces, by id
        #[arg(long = "only", value_name = "NAMESPACE_ID")]
        namespaces: Vec<String>,
        /// When it stops working (RFC 3339)
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Stop a key from working, at once
    Revoke { name: String },
    /// Replace a key's secret; the new one is shown this once
    Rotate { name: String },
    /// Sign the URLs of files with a new key from now on; URLs that are out work until they expire
    RotateSigning,
}

pub fn run(arguments: KeysArguments, output: Output) -> Result<()> {
    let client = Client::open(&arguments.server)?;
    let me = client.get("/me")?;
    let email = expect_text(&me, "user_email").context("this key belongs to no user")?;
    let keys = format!("/organizations/users/{}/api-keys", percent_encode(email));
    match arguments.command {
        KeysCommand::List { all } => {
            let answer = client.get(&format!("{keys}?include_revoked={all}"))?;
            let rows = rows_of(&answer);
            output.print(&answer, |out| {
                table(out, &["NAME", "PREFIX", "PERMISSIONS", "STATUS", "EXPIRES", "LAST USED"], &rows)
            })
        }
        KeysCommand::Create { name, permissions, namespaces, expires_at } => {
            let mut body = json!({ "name": name, "permissions": permissions });
            if !namespaces.is_empty() {
                let scopes = namespaces.iter().map(|id| json!({ "resource_type": "namespace", "resource_id": id }));
                body["scopes"] = scopes.collect();
            }
            if let Some(time) = expires_at {
                body["expires_at"] = json!(time);
            }
            let answer = client.post(&keys, &body)?;
            output.print(&answer, |out| print_secret(out, &answer))
        }
        KeysCommand::Revoke { name } => {
            let answer = client.delete(&format!("{keys}/{}", percent_encode(&name)))?;
            output.print(&answer, |out| writeln!(out, "revoked {name}"))
        }
        KeysCommand::Rotate { name } => {
            let answer = client.post(&format!("{keys}/{}/rotate", percent_encode(&name)), &json!({}))?;
            output.print(&answer, |out| print_secret(out, &answer))
        }
        KeysCommand::RotateSigning => rotate_signing(&client, output),
    }
}

fn rotate_signing(client: &Client, output: Output) -> Result<()> {
    let answer = client.post("/organizations/signing-keys/rotate", &json!({}))?;
    let rows: Vec<Vec<String>> = answer["keys"]
        .as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|key| ["key_id", "created_at", "verifies_until"].iter().map(|field| cell(key, field)).collect())
        .collect();
    output.print(&answer, |out| table(out, &["KEY", "CREATED", "VERIFIES UNTIL"], &rows))
}

/// The secret alone on stdout, so that a script can take it.
fn print_secret(out: &mut dyn Write, answer: &Value) -> std::io::Result<()> {
    let secret = ["api_key", "key"].iter().find_map(|field| crate::client::text(answer, field));
    writeln!(out, "{}", secret.unwrap_or("the answer holds no key"))
}

fn rows_of(answer: &Value) -> Vec<Vec<String>> {
    let list = answer
        .as_array()
        .or_else(|| ["results", "api_keys", "keys"].iter().find_map(|field| answer.get(field)?.as_array()));
    let fields = ["name", "key_prefix", "permissions", "status", "expires_at", "last_used_at"];
    list.map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|row| fields.iter().map(|field| cell(row, field)).collect())
        .collect()
}
