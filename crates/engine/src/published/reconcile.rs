//! Compares what is published with the retriever as it is now.
//!
//! Whether a retriever is published, and its stages and collections, are read where they are and cannot differ. What its
//! owner wrote down beside it can: the inputs of the search page, the name of the password's secret.

use super::{Published, show};
use crate::{Engine, retrievers::Retriever};
use serde_json::{Value, json};
use strata_model::{Result, Scope};
use strata_store::catalog::{
    publications,
    resources::{self, Kind},
};

/// What was found, and done.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconciled {
    pub retriever_id: String,
    /// `not_published`, `consistent`, `drifted` or `broken`.
    pub state: &'static str,
    pub public_name: Option<String>,
    /// `{code, message}` of what differs and can be repaired, and whether it was.
    pub changes: Vec<Value>,
    pub is_repaired: bool,
    /// `{code, message}` of what only the owner can repair.
    pub issues: Vec<Value>,
}

impl Engine {
    /// Looks for differences, and unless `dry_run` repairs those that it can.
    pub async fn reconcile_published(&self, scope: &Scope, identifier: &str, dry_run: bool) -> Result<Reconciled> {
        let retriever = self.retriever(scope, identifier).await?;
        let Some(mut published) = self.published(scope, &retriever.id).await? else {
            return Ok(Reconciled {
                retriever_id: retriever.id,
                state: "not_published",
                public_name: None,
                changes: Vec::new(),
                is_repaired: false,
                issues: Vec::new(),
            });
        };
        let issues = self.issues(&retriever, &published).await?;
        let changes = repair_inputs(&retriever, &mut published);
        let is_repaired = !dry_run && !changes.is_empty();
        if is_repaired {
            self.write_inputs(&published).await?;
        }
        let state = match (issues.is_empty(), changes.is_empty() || is_repaired) {
            (false, _) => "broken",
            (true, true) => "consistent",
            (true, false) => "drifted",
        };
        let public_name = Some(published.public_name);
        Ok(Reconciled { retriever_id: retriever.id, state, public_name, changes, is_repaired, issues })
    }

    /// Writes the inputs of the search page, and nothing else, so that no other change is undone.
    async fn write_inputs(&self, published: &Published) -> Result<()> {
        let (scope, retriever_id) = (published.scope.clone(), published.retriever_id.clone());
        let (inputs, now) = (published.settings.display_config.get("inputs").cloned(), self.catalog.now());
        let write = self.catalog.write(move |tx| {
            let mut current = super::load(tx, &scope, &retriever_id)?;
            current.settings.display_config.insert("inputs".into(), inputs.unwrap_or_default());
            current.updated_at = now;
            publications::update(tx, &current.to_row()?)
        });
        write.await
    }

    async fn issues(&self, retriever: &Retriever, published: &Published) -> Result<Vec<Value>> {
        let mut issues = Vec::new();
        if let Err(error) = self.retriever_plan(retriever) {
            issues.push(json!({ "code": "not_executable", "message": error.to_string() }));
        }
        for missing in self.missing_collections(&published.scope, retriever).await? {
            let message = format!("collection `{missing}` does not exist any more");
            issues.push(json!({ "code": "collection_missing", "message": message }));
        }
        if let Some(name) = &published.settings.password_secret_name
            && self.open_secret(&published.scope.organization_id, name).await?.is_none()
        {
            let message = format!("the organization has no secret `{name}`, so nobody can open this retriever");
            issues.push(json!({ "code": "password_missing", "message": message }));
        }
        Ok(issues)
    }

    async fn missing_collections(&self, scope: &Scope, retriever: &Retriever) -> Result<Vec<String>> {
        let (scope, ids) = (scope.clone(), retriever.collection_ids.clone());
        let read = self.catalog.read(move |connection| {
            let mut missing = Vec::new();
            for id in ids {
                if resources::find(connection, Kind::Collection, &scope, &id)?.is_none() {
                    missing.push(id);
                }
            }
            Ok(missing)
        });
        read.await
    }
}

/// Takes inputs from the search page that the retriever does not have any more, and adds those that it cannot do without.
fn repair_inputs(retriever: &Retriever, published: &mut Published) -> Vec<Value> {
    let schema = show::declared_inputs(retriever);
    // Without declared inputs a retriever takes any.
    if schema.is_empty() {
        return Vec::new();
    }
    let config = &mut published.settings.display_config;
    let mut inputs = config.get("inputs").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut changes = Vec::new();
    let name = |input: &Value| input.get("field_name").and_then(Value::as_str).unwrap_or_default().to_owned();
    inputs.retain(|input| {
        let name = name(input);
        let is_there = schema.contains_key(&name);
        if !is_there {
            let message = format!("the retriever has no input `{name}` any more; it leaves the search page");
            changes.push(json!({ "code": "input_removed", "message": message }));
        }
        is_there
    });
    for (field, definition) in &schema {
        let input = show::rendered(field, definition, inputs.len());
        if input["required"] == true && !inputs.iter().any(|known| name(known) == *field) {
            let message = format!("the retriever needs an input `{field}`; it comes on the search page");
            changes.push(json!({ "code": "input_added", "message": message }));
            inputs.push(input);
        }
    }
    config.insert("inputs".into(), inputs.into());
    changes
}
