//! Resources by name.

use crate::{
    App,
    error::ApiError,
    extract::{Json, Tenant},
    openapi::time,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use strata_model::{Error, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

const MAX_PAGE: i64 = 100;
const DEFAULT_PAGE: i64 = 20;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search_resources))
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct SearchRequest {
    /// Part of a name, an id or a description.
    #[schema(min_length = 1)]
    pub query: String,
    /// Which kinds to look at; all of them where this is left out.
    #[serde(default)]
    pub resource_types: Option<Vec<ResourceKind>>,
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    #[serde(default)]
    #[schema(minimum = 0)]
    pub offset: Option<i64>,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    Bucket,
    Collection,
    Retriever,
    Taxonomy,
    Cluster,
    PublishedRetriever,
    Namespace,
}

impl ResourceKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bucket => "bucket",
            Self::Collection => "collection",
            Self::Retriever => "retriever",
            Self::Taxonomy => "taxonomy",
            Self::Cluster => "cluster",
            Self::PublishedRetriever => "published_retriever",
            Self::Namespace => "namespace",
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResponse {
    pub results: Vec<SearchResultItem>,
    pub total: i64,
    pub limit: i64,
    pub offset: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SearchResultItem {
    pub resource_type: String,
    pub resource_id: String,
    pub resource_name: String,
    pub description: Option<String>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
}

/// Search resources
///
/// Finds buckets, collections, retrievers and namespaces by name, id or description. Names that are or begin with the
/// query come first.
#[utoipa::path(post, path = "/v1/resources/search", tag = "ResourceSearch", responses((status = 200, body = SearchResponse)))]
pub async fn search_resources(
    State(app): State<App>,
    tenant: Tenant,
    Json(body): Json<SearchRequest>,
) -> Result<Json<SearchResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    if body.query.is_empty() {
        return Err(Error::invalid("query", "must not be empty").into());
    }
    let (limit, offset) = (body.limit.unwrap_or(DEFAULT_PAGE), body.offset.unwrap_or(0));
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}, not {limit}")).into());
    }
    let start = usize::try_from(offset).map_err(|_| Error::invalid("offset", "must be 0 or more"))?;
    let kinds = body.resource_types.unwrap_or_default().into_iter().map(|kind| kind.as_str().to_owned()).collect();
    let page = app.search_resources(&tenant.principal, &tenant.scope, &body.query, kinds, (limit as usize, start)).await?;
    let item = |found: strata_engine::listing::Found| SearchResultItem {
        resource_type: found.kind.to_owned(),
        resource_id: found.id,
        resource_name: found.name,
        description: found.description,
        created_at: found.created_at,
        updated_at: found.updated_at,
    };
    let total = page.total as i64;
    Ok(Json(SearchResponse { results: page.items.into_iter().map(item).collect(), total, limit, offset }))
}
