//! The schema of a collection brought up to what its documents really hold.

use super::{Collection, downstream, load_collection, settings};
use crate::Engine;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use strata_model::{Fields, Result, Scope, filter::Filter};
use strata_store::catalog::{
    documents::{self, Page},
    resources::{self, Kind},
    rusqlite::Transaction,
};

/// How a look at the documents changed the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub collection_id: String,
    pub schema_version: i64,
    pub previous_version: i64,
    pub fields_added: Vec<String>,
    pub fields_total: usize,
    pub documents_sampled: usize,
    pub downstream_updated: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncOutcome {
    Done(Synced),
    /// The collection's `schema_sync_enabled` is off, and the caller did not insist.
    Skipped {
        collection_id: String,
        schema_version: i64,
        last_sync: Option<String>,
    },
}

impl Engine {
    /// Adds fields that the first `sample` documents hold and the output schema lacks; the collections that read from
    /// this one follow where `cascade` says so. `force` overrides `schema_sync_enabled: false`.
    pub async fn sync_schema(
        &self,
        scope: &Scope,
        identifier: &str,
        sample: usize,
        force: bool,
        cascade: bool,
    ) -> Result<SyncOutcome> {
        // The schema is that of all documents, whoever has it looked at.
        let (scope, identifier, now) = (scope.for_server(), identifier.to_owned(), self.catalog.now());
        self.catalog
            .write(move |tx| {
                let current = load_collection(tx, &scope, &identifier)?;
                if !force && current.kept.get("schema_sync_enabled") == Some(&Value::Bool(false)) {
                    return Ok(SyncOutcome::Skipped {
                        collection_id: current.id,
                        schema_version: current.schema_version,
                        last_sync: current.last_schema_sync,
                    });
                }
                let page = Page { limit: sample, offset: 0, after: None, sort: None };
                let found = documents::list(tx, &scope, Some(&current.id), &Filter::all(), &page)?;
                let seen = fields_of(found.iter().map(|d| &d.fields));
                let known = current.output_schema["properties"].as_object().cloned().unwrap_or_default();
                let added: Vec<String> = seen.keys().filter(|name| !known.contains_key(*name)).cloned().collect();
                let mut next = current.clone();
                for name in &added {
                    next.synced.insert(name.clone(), json!({ "type": seen[name] }));
                }
                next.last_schema_sync = Some(now.clone());
                let next = rewritten(tx, &scope, &next, &now)?;
                let mut updated = Vec::new();
                if cascade && !added.is_empty() {
                    follow(tx, &scope, &next.id, &now, &mut updated)?;
                }
                Ok(SyncOutcome::Done(Synced {
                    fields_total: next.output_schema["properties"].as_object().map_or(0, Fields::len),
                    collection_id: next.id,
                    schema_version: next.schema_version,
                    previous_version: current.schema_version,
                    fields_added: added,
                    documents_sampled: found.len(),
                    downstream_updated: updated,
                }))
            })
            .await
    }
}

/// Derives a collection's schemas anew and writes it.
fn rewritten(tx: &Transaction<'_>, scope: &Scope, collection: &Collection, now: &str) -> Result<Collection> {
    let next = settings::assemble(tx, scope, Some(collection), &Fields::new(), &collection.id, now)?;
    resources::update(tx, Kind::Collection, &next.to_row()?)?;
    Ok(next)
}

/// Brings everything below a collection up to its schema. Collections form no cycle, so this ends.
fn follow(
    tx: &Transaction<'_>,
    scope: &Scope,
    collection_id: &str,
    now: &str,
    updated: &mut Vec<String>,
) -> Result<()> {
    for reader in downstream(tx, collection_id)? {
        let next = rewritten(tx, scope, &reader, now)?;
        if next.schema_version != reader.schema_version && !updated.contains(&next.id) {
            updated.push(next.id.clone());
            follow(tx, scope, &next.id, now, updated)?;
        }
    }
    Ok(())
}

/// The fields that documents hold and the type of each; a field of several types is a string, or a number where all are
/// numbers. Null tells nothing.
fn fields_of<'a>(documents: impl Iterator<Item = &'a Fields>) -> BTreeMap<String, &'static str> {
    let mut seen: BTreeMap<String, &'static str> = BTreeMap::new();
    for fields in documents {
        for (name, value) in fields {
            let kind = match value {
                Value::Null => continue,
                Value::Bool(_) => "boolean",
                Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
            };
            let merged = match (seen.get(name).copied(), kind) {
                (None, kind) => kind,
                (Some(before), kind) if before == kind => kind,
                (Some("integer" | "number"), "integer" | "number") => "number",
                _ => "string",
            };
            seen.insert(name.clone(), merged);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fields_type_is_what_all_its_values_share() {
        let documents = json!([{ "a": 1, "b": "x", "c": null, "d": [1] }, { "a": 2.5, "b": 3, "d": [] }]);
        let documents: Vec<Fields> =
            documents.as_array().unwrap().iter().map(|d| d.as_object().unwrap().clone()).collect();
        let seen = fields_of(documents.iter());
        assert_eq!(seen, BTreeMap::from([("a".into(), "number"), ("b".into(), "string"), ("d".into(), "array")]));
    }
}
