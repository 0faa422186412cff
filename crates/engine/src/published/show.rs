//! What the public is shown of how a retriever works: its stages, collections and inputs, without the ids of anything and
//! without credentials.

use super::Published;
use crate::{
    Engine,
    retrieval::{InputSchema, Plan},
    retrievers::Retriever,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use strata_model::{Fields, Result, Scope};
use strata_store::catalog::resources::{self, Kind, Resource};

/// Parts of the names of parameters whose values are credentials, in lower case with underscores.
const CREDENTIALS: [&str; 10] = [
    "password",
    "secret",
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "private_key",
    "access_key",
    "connection_string",
    "auth_token",
];

/// A published retriever as one may be made like it.
#[derive(Debug, Clone)]
pub struct Template {
    pub retriever_name: String,
    pub description: Option<String>,
    /// Names of its collections.
    pub collections: Vec<String>,
    pub stages: Vec<Value>,
    pub input_schema: Fields,
    pub budget_limits: Fields,
    pub tags: Vec<String>,
    pub feature_extractors: Vec<Value>,
}

impl Engine {
    /// How a published retriever works, in short: `stages`, `collections`, `capabilities`. `None` where its owner does not
    /// show that.
    pub async fn public_metadata(&self, published: &Published) -> Result<Option<Fields>> {
        if !published.settings.include_metadata {
            return Ok(None);
        }
        let retriever = self.retriever(&published.scope, &published.retriever_id).await?;
        let plan = self.retriever_plan(&retriever).ok();
        let collections = self.collections_of(&published.scope, &retriever).await?;
        let stages: Vec<Value> = plan
            .iter()
            .flat_map(|plan| &plan.stages)
            .map(|stage| {
                json!({
                    "stage_name": stage.name,
                    "stage_id": stage.definition.stage_id,
                    "stage_type": stage.definition.category.as_str(),
                    "description": stage.definition.description,
                })
            })
            .collect();
        let collections: Vec<Value> = collections
            .iter()
            .map(|collection| {
                let extractor = collection.body.get("feature_extractor").and_then(|e| e.get("feature_extractor_name"));
                json!({ "collection_name": collection.name, "feature_extractor": extractor })
            })
            .collect();
        let mut metadata = Fields::new();
        metadata.insert("stages".into(), stages.into());
        metadata.insert("collections".into(), collections.into());
        metadata.insert("capabilities".into(), capabilities(&retriever, plan.as_deref()));
        Ok(Some(metadata))
    }

    /// A published retriever as a template for others. `None` where its owner does not show how it works.
    pub async fn public_template(&self, published: &Published) -> Result<Option<Template>> {
        if !published.settings.include_metadata {
            return Ok(None);
        }
        let retriever = self.retriever(&published.scope, &published.retriever_id).await?;
        let list = |key: &str| retriever.body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let object = |key: &str| retriever.body.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
        let mut stages = match self.retriever_plan(&retriever) {
            Ok(plan) => plan.stages_json(),
            Err(_) => list("stages"),
        };
        let names = self.names_of_collections(&published.scope).await?;
        stages.iter_mut().for_each(|stage| make_public(stage, &names));
        let collections = self.collections_of(&published.scope, &retriever).await?;
        let extractors = collections.iter().filter_map(|collection| extractor(collection, &names));
        Ok(Some(Template {
            feature_extractors: extractors.collect(),
            collections: collections.into_iter().map(|collection| collection.name).collect(),
            description: retriever.body.get("description").and_then(Value::as_str).map(str::to_owned),
            stages,
            input_schema: object("input_schema"),
            budget_limits: object("budget_limits"),
            tags: list("tags").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            retriever_name: retriever.name,
        }))
    }

    /// The collections that a retriever names and that are there.
    async fn collections_of(&self, scope: &Scope, retriever: &Retriever) -> Result<Vec<Resource>> {
        let (scope, ids) = (scope.clone(), retriever.collection_ids.clone());
        let read = self.catalog.read(move |connection| {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.extend(resources::find(connection, Kind::Collection, &scope, &id)?);
            }
            Ok(found)
        });
        read.await
    }

    async fn names_of_collections(&self, scope: &Scope) -> Result<HashMap<String, String>> {
        let scope = scope.clone();
        let rows = self.catalog.read(move |connection| resources::list(connection, Kind::Collection, &scope)).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.name)).collect())
    }
}

fn extractor(collection: &Resource, names: &HashMap<String, String>) -> Option<Value> {
    let mut extractor = collection.body.get("feature_extractor")?.as_object()?.clone();
    extractor.insert("collection_name".into(), collection.name.clone().into());
    let mut extractor = Value::Object(extractor);
    make_public(&mut extractor, names);
    Some(extractor)
}

fn capabilities(retriever: &Retriever, plan: Option<&Plan>) -> Value {
    let inputs: Vec<&String> =
        retriever.body.get("input_schema").and_then(Value::as_object).map(|m| m.keys().collect()).unwrap_or_default();
    let has = |stage_id: &str| plan.is_some_and(|plan| plan.stages.iter().any(|s| s.definition.stage_id == stage_id));
    json!({
        "inputs": inputs,
        "search": has("feature_search"),
        "filters": true,
        "pagination": ["offset", "cursor", "keyset", "scroll"],
        "streaming": true,
    })
}

/// Puts the names of collections in the place of their ids, and takes credentials away.
fn make_public(value: &mut Value, names: &HashMap<String, String>) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| !is_credential(key) && !holds_credential(value));
            map.values_mut().for_each(|value| make_public(value, names));
        }
        Value::Array(list) => {
            list.retain(|value| !holds_credential(value));
            list.iter_mut().for_each(|value| make_public(value, names));
        }
        Value::String(text) => {
            if let Some(name) = names.get(text) {
                *text = name.clone();
            }
        }
        _ => {}
    }
}

fn is_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace(['-', ' '], "_");
    key == "token" || key.ends_with("_token") || CREDENTIALS.iter().any(|part| key.contains(part))
}

/// Whether a text names a secret of the vault, or is a URL with a password in it.
fn holds_credential(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let authority = text.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or_default());
    let lower = text.to_ascii_lowercase();
    authority.is_some_and(|authority| authority.contains('@')) || lower.contains("secret.") || lower.contains("secret[")
}

/// The display configuration of a retriever for which nobody wrote one: its inputs, and every field that is a document's
/// own.
pub(super) fn default_display(retriever: &Retriever, title: &str) -> Fields {
    let mut display = Fields::new();
    display.insert("title".into(), title.into());
    if let Some(text) = retriever.body.get("description").filter(|text| text.is_string()) {
        display.insert("description".into(), text.clone());
    }
    let schema = declared_inputs(retriever);
    let inputs: Vec<Value> =
        schema.iter().enumerate().map(|(order, (name, field))| rendered(name, field, order)).collect();
    display.insert("inputs".into(), inputs.into());
    display.insert("exposed_fields".into(), json!(["*"]));
    display
}

pub(super) fn declared_inputs(retriever: &Retriever) -> Fields {
    retriever.body.get("input_schema").and_then(Value::as_object).map(InputSchema::declared).unwrap_or_default()
}

/// An input as a search page shows it where nobody said how.
pub(super) fn rendered(name: &str, field: &Value, order: usize) -> Value {
    let kind = field.get("type").and_then(Value::as_str).unwrap_or("text");
    let input_type = match kind {
        "number" | "integer" | "float" => "number",
        "boolean" => "checkbox",
        "date" | "datetime" => "date",
        "image" | "audio" | "video" | "pdf" | "excel" => "file",
        _ => "text",
    };
    let required = field.get("required").and_then(Value::as_bool).unwrap_or(false);
    json!({
        "field_name": name,
        "field_schema": field,
        "input_type": input_type,
        "label": label(name),
        "placeholder": field.get("description"),
        "required": required && field.get("default").is_none_or(Value::is_null),
        "order": order,
    })
}

/// `max_price` as `Max price`.
fn label(name: &str) -> String {
    let words = name.replace(['_', '-'], " ");
    let mut letters = words.trim().chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_else(|| name.to_owned())
}

impl Engine {
    /// The display configuration that a retriever is published with where the request has none: the one that it has, as it
    /// was stored, or else one that is made of its inputs.
    pub fn display_config_of(&self, retriever: &Retriever, title: Option<&str>) -> Fields {
        match retriever.body.get("display_config").and_then(Value::as_object) {
            Some(own) => own.clone(),
            None => default_display(retriever, title.unwrap_or(&retriever.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_become_names_and_credentials_go() {
        let names = HashMap::from([("col_1".to_owned(), "books".to_owned())]);
        let mut stage = json!({
            "stage_name": "call",
            "collections": ["col_1", "col_2"],
            "parameters": {
                "url": "https://user:pass@host.example/x",
                "plain_url": "https://host.example/a@b",
                "headers": { "Authorization": "Bearer x", "X-Api-Key": "y", "Accept": "a" },
                "api_key": "{{SECRET.openai}}",
                "body": "{{ secret['x'] }}",
                "max_tokens": 5,
                "search_token": "t",
                "nested": [{ "target": "col_1" }, "{{SECRET.a}}"],
            },
        });
        make_public(&mut stage, &names);
        assert_eq!(
            stage,
            json!({
                "stage_name": "call",
                "collections": ["books", "col_2"],
                "parameters": {
                    "plain_url": "https://host.example/a@b",
                    "headers": { "Accept": "a" },
                    "max_tokens": 5,
                    "nested": [{ "target": "books" }],
                },
            })
        );
    }

    #[test]
    fn inputs_are_rendered_by_their_type() {
        let input = rendered("max_price", &json!({ "type": "number", "required": true }), 2);
        assert_eq!((&input["label"], &input["input_type"]), (&json!("Max price"), &json!("number")));
        assert_eq!((&input["required"], &input["order"]), (&json!(true), &json!(2)));
        let with_default = rendered("n", &json!({ "type": "integer", "required": true, "default": 3 }), 0);
        assert_eq!(with_default["required"], json!(false));
    }
}
