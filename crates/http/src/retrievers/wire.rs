//! Retrievers as requests and answers write them.

use super::object;
use crate::openapi::{any_object, maybe_object, time};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use strata_engine::{
    retrieval::{self, Plan},
    retrievers::Retriever,
};
use strata_model::{Error, Fields, Result, feature::FeatureUri};
use utoipa::ToSchema;

/// A field that may be left out, or be null, which is not the same.
type Sent<T> = Option<Option<T>>;

fn sent<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Sent<T>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Private,
    Public,
    Marketplace,
}

/// Bounds of an execution.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct BudgetLimits {
    /// Kept; executions on this server cost no credits.
    #[schema(minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_credits: Option<f64>,
    /// Milliseconds an execution may take; 0 is no bound.
    #[schema(minimum = 0)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_time_ms: Option<u64>,
}

/// What makes a retriever. `retriever_name` and `stages` are needed to make one, `retriever_name` to clone one.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct RetrieverFields {
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    retriever_name: Sent<String>,
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    description: Sent<String>,
    /// Taken and of no effect: publishing a retriever makes it public, and unpublishing it private.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Visibility>)]
    visibility: Sent<Visibility>,
    /// Kept.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    marketplace_listing_id: Sent<String>,
    /// Kept.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bool>)]
    requires_subscription: Sent<bool>,
    /// Ids or names of the collections it reads; empty means every one of the namespace.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    collection_identifiers: Sent<Vec<String>>,
    /// `{stage_name, stage_type, config: {stage_id, parameters}}`; `/v1/retrievers/stages` lists what there is.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    stages: Sent<Vec<Map<String, Value>>>,
    /// Names of inputs to `{type, required, default, description, enum}`.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = any_object)]
    input_schema: Sent<Map<String, Value>>,
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BudgetLimits>)]
    budget_limits: Sent<BudgetLimits>,
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    tags: Sent<Vec<String>>,
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = any_object)]
    metadata: Sent<Map<String, Value>>,
    /// How a search page shows it. Kept as sent.
    #[serde(deserialize_with = "sent", skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = any_object)]
    display_config: Sent<Map<String, Value>>,
    /// Other names of `collection_identifiers`, and what else should be kept.
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Fields,
}

impl RetrieverFields {
    /// The fields that were sent, as the engine takes them.
    pub(super) fn into_fields(self) -> Result<Fields> {
        match serde_json::to_value(self).map_err(Error::internal)? {
            Value::Object(fields) => Ok(fields),
            _ => unreachable!("a structure is written as an object"),
        }
    }
}

/// A stored retriever.
#[derive(Debug, Serialize, ToSchema)]
pub struct RetrieverResponse {
    #[schema(example = "ret_a1b2c3d4e5")]
    pub retriever_id: String,
    pub retriever_name: String,
    pub description: Option<String>,
    /// `public` while it is published and active, else `private`.
    pub visibility: String,
    /// Ids of the collections it reads; empty means every one of the namespace.
    pub collection_ids: Vec<String>,
    /// The same as `collection_ids`.
    pub collection_identifiers: Vec<String>,
    #[schema(value_type = Vec<Object>)]
    pub stages: Vec<Value>,
    #[schema(schema_with = any_object)]
    pub input_schema: Map<String, Value>,
    #[schema(schema_with = any_object)]
    pub budget_limits: Map<String, Value>,
    /// The feature URIs that its stages name.
    pub feature_dependencies: Vec<FeatureAddress>,
    pub tags: Vec<String>,
    #[schema(schema_with = any_object)]
    pub metadata: Map<String, Value>,
    #[schema(schema_with = maybe_object)]
    pub display_config: Option<Map<String, Value>>,
    /// From 1, one more with every change.
    pub version: i64,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
    pub created_by: Option<String>,
    pub updated_by: Option<String>,
    pub is_published: bool,
    pub marketplace_listing_id: Option<String>,
    pub requires_subscription: bool,
    /// How its first search fuses rankings; null where it has none.
    pub fusion: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct FeatureAddress {
    #[schema(example = "mixpeek")]
    pub scheme: String,
    #[schema(example = "text_extractor")]
    pub extractor: String,
    #[schema(example = "v1")]
    pub version: String,
    pub output: Option<String>,
}

impl RetrieverResponse {
    /// `plan` is `None` for a retriever that this version cannot execute; its stages are shown as they were sent.
    pub fn new(retriever: &Retriever, plan: Option<&Plan>) -> Self {
        let body = &retriever.body;
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let list = |key: &str| body.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        Self {
            retriever_id: retriever.id.clone(),
            retriever_name: retriever.name.clone(),
            description: text("description"),
            visibility: retriever.visibility().into(),
            collection_ids: retriever.collection_ids.clone(),
            collection_identifiers: retriever.collection_ids.clone(),
            stages: plan.map_or_else(|| list("stages"), Plan::stages_json),
            input_schema: object(body, "input_schema"),
            budget_limits: object(body, "budget_limits"),
            feature_dependencies: plan
                .map(Plan::feature_uris)
                .unwrap_or_default()
                .iter()
                .filter_map(|uri| address(uri))
                .collect(),
            tags: list("tags").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            metadata: object(body, "metadata"),
            display_config: body.get("display_config").and_then(Value::as_object).cloned(),
            version: retriever.version,
            created_at: retriever.created_at.clone(),
            updated_at: retriever.updated_at.clone(),
            created_by: None,
            updated_by: None,
            is_published: retriever.published.is_some(),
            marketplace_listing_id: text("marketplace_listing_id"),
            requires_subscription: body.get("requires_subscription").and_then(Value::as_bool).unwrap_or(false),
            fusion: plan.and_then(fusion),
        }
    }
}

/// A feature URI in its parts; `None` for the bare name of an index.
fn address(uri: &str) -> Option<FeatureAddress> {
    match FeatureUri::parse(uri).ok()? {
        FeatureUri::Extractor { extractor, version, output } => {
            Some(FeatureAddress { scheme: "mixpeek".into(), extractor, version, output })
        }
        FeatureUri::Bare(_) => None,
    }
}

fn fusion(plan: &Plan) -> Option<String> {
    let search = plan.stages.iter().find(|stage| stage.definition.stage_id == "feature_search")?;
    let parameters = search.json.get("parameters");
    let written = ["fusion", "fusion_method", "fusion_strategy"].iter().find_map(|key| parameters?.get(*key));
    let name = match written {
        Some(Value::Object(map)) => ["strategy", "method", "type"].iter().find_map(|key| map.get(*key)),
        other => other,
    };
    Some(name.and_then(Value::as_str).filter(|name| *name != "null").unwrap_or("rrf").to_owned())
}

/// A kind of stage.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageDefinition {
    #[schema(example = "feature_search")]
    pub stage_id: String,
    pub description: String,
    /// `filter`, `sort`, `reduce`, `apply` or `enrich`.
    pub category: String,
    /// Name of a Lucide icon.
    pub icon: String,
    /// JSON Schema of `parameters`.
    #[schema(schema_with = any_object)]
    pub parameter_schema: Value,
}

impl From<&'static retrieval::StageDefinition> for StageDefinition {
    fn from(stage: &'static retrieval::StageDefinition) -> Self {
        Self {
            stage_id: stage.stage_id.to_owned(),
            description: stage.description.to_owned(),
            category: stage.category.as_str().to_owned(),
            icon: stage.icon.to_owned(),
            parameter_schema: (stage.parameter_schema)(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(body: Value) -> Value {
        let read: RetrieverFields = serde_json::from_value(body).unwrap();
        read.into_fields().unwrap().into()
    }

    #[test]
    fn what_is_left_out_stays_out_and_null_stays_null() {
        for body in [
            json!({}),
            json!({ "description": null, "tags": [] }),
            json!({ "retriever_name": "a", "stages": [{ "type": "limit" }], "collection_ids": ["x"], "own": 1 }),
            json!({ "budget_limits": { "max_time_ms": 5 }, "visibility": "public" }),
        ] {
            assert_eq!(fields(body.clone()), body);
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        for body in [
            json!({ "tags": "a" }),
            json!({ "stages": [1] }),
            json!({ "visibility": "secret" }),
            json!({ "metadata": [] }),
        ] {
            assert!(serde_json::from_value::<RetrieverFields>(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn a_feature_uri_is_shown_in_its_parts() {
        let address = address("mixpeek://text_extractor@v1/embedding").unwrap();
        assert_eq!((address.extractor.as_str(), address.output.as_deref()), ("text_extractor", Some("embedding")));
        assert!(super::address("own").is_none());
    }
}
