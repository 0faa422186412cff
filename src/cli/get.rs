//! `strata get`: any resource by its id. The prefix says what it is.

use super::{Client, Output, ServerArguments};
use crate::client::{Go, expect_text, is_missing, percent_encode};
use anyhow::{Result, bail};
use serde_json::Value;

#[derive(Debug, clap::Args)]
pub struct GetArguments {
    /// An id such as `doc_…`
    id: String,
    /// Where to look: the collection of a document, the bucket of an object [default: everywhere]
    #[arg(long = "in", value_name = "PARENT")]
    parent: Option<String>,
    #[command(flatten)]
    server: ServerArguments,
}

pub fn run(arguments: GetArguments, output: Output) -> Result<()> {
    let client = Client::open(&arguments.server)?;
    let id = percent_encode(&arguments.id);
    let parent = arguments.parent.as_deref();
    let prefix = arguments.id.split_once('_').map_or("", |(prefix, _)| prefix);
    let answer = match prefix {
        "doc" => within(&client, "collection", "documents", &id, parent)?,
        "obj" => within(&client, "bucket", "objects", &id, parent)?,
        "bkt" => client.get(&format!("/buckets/{id}"))?,
        "col" => client.get(&format!("/collections/{id}"))?,
        "ret" => client.get(&format!("/retrievers/{id}"))?,
        "btch" => client.get(&format!("/batches/{id}"))?,
        "task" => client.get(&format!("/tasks/{id}"))?,
        "ns" => client.get(&format!("/namespaces/{id}"))?,
        _ => bail!(
            "`{}` does not start like an id: one of doc_, obj_, bkt_, col_, ret_, btch_, task_, ns_",
            arguments.id
        ),
    };
    output.print(&answer, |out| {
        let shown = serde_json::to_string_pretty(&answer).map_err(std::io::Error::from)?;
        writeln!(out, "{shown}")
    })
}

/// Documents and objects live in a collection or bucket, which the id alone does not tell.
fn within(client: &Client, parent_kind: &str, kind: &str, id: &str, parent: Option<&str>) -> Result<Value> {
    let path = |parent: &str| format!("/{parent_kind}s/{}/{kind}/{id}", percent_encode(parent));
    if let Some(parent) = parent {
        return client.get(&path(parent));
    }
    let mut found = None;
    client.list(&format!("/{parent_kind}s/list"), |row| {
        match client.get(&path(expect_text(&row, &format!("{parent_kind}_id"))?)) {
            Ok(answer) => {
                found = Some(answer);
                Ok(Go::Stop)
            }
            Err(error) if is_missing(&error) => Ok(Go::On),
            Err(error) => Err(error),
        }
    })?;
    let Some(found) = found else { bail!("`{id}` does not exist in any {parent_kind} of this namespace") };
    Ok(found)
}
