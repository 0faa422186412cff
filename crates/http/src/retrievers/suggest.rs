//! Searches and suggestions that need no retriever.

use super::execute::{ExecuteRetrieverResponse, Style, response};
use crate::{
    App,
    error::ApiError,
    extract::{Json, Query, Tenant},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strata_engine::{
    retrieval::PageRequest,
    retrievers::{Execute, FeatureSearch, ValueCount},
};
use strata_model::{Error, Fields, Permission, filter::Filter};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// What a text is searched in where the request does not say.
const DEFAULT_FEATURE: &str = "mixpeek://text_extractor@v1/embedding";
const DEFAULT_TOP_K: usize = 25;
const DEFAULT_SUGGESTIONS: i64 = 10;
const MAX_SUGGESTIONS: i64 = 50;
const MAX_TYPED_CHARS: usize = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(feature_search)).routes(routes!(typeahead_retrievers))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FeatureSearchRequest {
    /// Ids or names; empty means every collection of the namespace.
    #[serde(default)]
    collection_identifiers: Option<Vec<String>>,
    query: FeatureSearchQuery,
    /// Feature URI, index name or alias. Without it a text is searched in the text extractor's embedding, and a vector in
    /// the indexes of its size.
    #[serde(default)]
    feature_uri: Option<String>,
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000, default = 25)]
    top_k: Option<usize>,
    /// A filter that every document must satisfy.
    #[serde(default)]
    filters: Option<Value>,
}

/// What is looked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct FeatureSearchQuery {
    /// `text`, `vector`, `document` or `content`.
    input_mode: Option<String>,
    text: Option<String>,
    /// The URL of a picture, a recording, a text or a page, for an index whose model reads it.
    url: Option<String>,
    /// The same as a data URI, base64 or a URL.
    image: Option<String>,
    /// Numbers, or rows of numbers.
    #[schema(value_type = Option<Vec<f32>>)]
    vector: Option<Value>,
    #[serde(flatten)]
    #[schema(ignore)]
    rest: Fields,
}

impl FeatureSearchQuery {
    /// The query as a stage takes it. What was sent without a mode speaks for itself.
    fn into_json(self) -> Value {
        let mut json = self.rest;
        let is_text = self.text.is_some();
        let plain = |mode: &String| mode != "text" || is_text;
        json.extend(self.input_mode.filter(plain).map(|mode| ("input_mode".to_owned(), mode.into())));
        for (name, value) in [("text", self.text), ("url", self.url), ("image", self.image)] {
            json.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        json.extend(self.vector.filter(|vector| !vector.is_null()).map(|vector| ("vector".to_owned(), vector)));
        Value::Object(json)
    }
}

/// Search a feature
///
/// One search without a retriever: the `top_k` documents nearest to a text or a vector. The answer is that of an
/// execution.
#[utoipa::path(post, path = "/v1/features/search", tag = "FeatureSearch", responses((status = 200, body = ExecuteRetrieverResponse)))]
async fn feature_search(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<FeatureSearchRequest>,
) -> Result<Json<ExecuteRetrieverResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let top_k = body.top_k.unwrap_or(DEFAULT_TOP_K);
    let is_text = body.query.text.is_some();
    let search = FeatureSearch {
        collections: body.collection_identifiers.unwrap_or_default(),
        query: body.query.into_json(),
        feature_uri: body.feature_uri.or_else(|| is_text.then(|| DEFAULT_FEATURE.to_owned())),
        top_k,
    };
    Filter::parse(body.filters.as_ref().unwrap_or(&Value::Null), "filters")?;
    let prepared = app.prepare_search(search)?;
    let execute = Execute {
        execution_id: app.new_execution_id(),
        filters: body.filters,
        page: PageRequest::Offset { page_size: top_k, page_number: 1 },
        ..Execute::default()
    };
    let executed = app.execute(&tenant.scope, &prepared, execute).await.map_err(FeatureSearch::placed)?;
    let style = Style { results: true, ..Style::default() };
    Ok(Json(response(&app, &tenant.scope, &prepared.plan, executed, style).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TypeaheadQuery {
    /// What was typed so far.
    #[serde(default)]
    #[param(min_length = 1, max_length = 200, required = true)]
    q: String,
    /// Fields whose values are suggested, with commas between; else the keywords that the namespace indexes.
    #[serde(default)]
    fields: Option<String>,
    /// Most suggestions of each kind.
    #[serde(default)]
    #[param(minimum = 1, maximum = 50)]
    limit: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TypeaheadResponse {
    query: String,
    /// Texts to offer: values, recent searches, names of collections.
    suggestions: Vec<String>,
    values: Vec<TypeaheadValueSuggestion>,
    collections: Vec<TypeaheadCollectionSuggestion>,
    recent_searches: Vec<String>,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct TypeaheadValueSuggestion {
    field: String,
    value: String,
    /// Documents that have it.
    count: i64,
}

#[derive(Debug, Serialize, ToSchema)]
struct TypeaheadCollectionSuggestion {
    collection_id: String,
    collection_name: String,
}

/// Suggest while typing
///
/// Values of fields that begin with `q`, and collections and recent searches that contain it.
#[utoipa::path(get, path = "/v1/retrievers/typeahead", tag = "Retrievers", params(TypeaheadQuery),
    responses((status = 200, body = TypeaheadResponse)))]
async fn typeahead_retrievers(
    State(app): State<App>,
    tenant: Tenant,
    Query(query): Query<TypeaheadQuery>,
) -> Result<Json<TypeaheadResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    if !(1..=MAX_TYPED_CHARS).contains(&query.q.chars().count()) {
        return Err(Error::invalid("q", format!("must have 1 to {MAX_TYPED_CHARS} characters")).into());
    }
    let limit = query.limit.unwrap_or(DEFAULT_SUGGESTIONS);
    if !(1..=MAX_SUGGESTIONS).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_SUGGESTIONS}, not {limit}")).into());
    }
    let limit = limit as usize;
    let fields = query.fields.unwrap_or_default();
    let fields: Vec<String> =
        fields.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let found = app.typeahead(&tenant.scope, &query.q, fields, limit).await?;
    let mut suggestions: Vec<String> = Vec::new();
    let values = found.values.iter().map(|value| &value.value);
    for text in values.chain(&found.recent).chain(found.collections.iter().map(|(_, name)| name)) {
        if suggestions.len() < limit && !suggestions.contains(text) {
            suggestions.push(text.clone());
        }
    }
    let value =
        |found: ValueCount| TypeaheadValueSuggestion { field: found.field, value: found.value, count: found.count };
    let collection =
        |(collection_id, collection_name)| TypeaheadCollectionSuggestion { collection_id, collection_name };
    Ok(Json(TypeaheadResponse {
        query: query.q,
        suggestions,
        values: found.values.into_iter().map(value).collect(),
        collections: found.collections.into_iter().map(collection).collect(),
        recent_searches: found.recent,
        warnings: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_query_speaks_for_itself_unless_its_mode_fits() {
        let read = |body: Value| serde_json::from_value::<FeatureSearchQuery>(body).unwrap().into_json();
        assert_eq!(read(json!({ "input_mode": "text", "text": "a" })), json!({ "input_mode": "text", "text": "a" }));
        assert_eq!(read(json!({ "input_mode": "text", "vector": [1.0] })), json!({ "vector": [1.0] }));
        assert_eq!(
            read(json!({ "input_mode": "document", "document_id": "d" })),
            json!({ "input_mode": "document", "document_id": "d" })
        );
    }
}
