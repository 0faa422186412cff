//! Clones of namespaces.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
    namespaces::NamespaceModel,
    organizations::refuse,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use strata_engine::{
    clones::{Cloning, NewClone},
    namespaces::{Described, NamespaceCounts},
};
use strata_model::{Error, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(clone_namespace))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloneMode {
    Copy,
    Branch,
}

/// What comes along besides buckets and their objects.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CloneNamespaceResourcesConfig {
    /// Collections with their documents. True unless said otherwise.
    collections: Option<bool>,
    /// Retrievers, if the collections come along. True unless said otherwise.
    retrievers: Option<bool>,
    /// Not supported.
    taxonomies: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct CloneNamespaceRequest {
    #[schema(min_length = 1, max_length = 64)]
    namespace_name: String,
    include_resources: Option<CloneNamespaceResourcesConfig>,
    /// The source's, if it is left out.
    description: Option<String>,
    /// The organization of the source, which can only be your own.
    source_organization_id: Option<String>,
    /// Both copy rows and share contents; a branch is meant to end, so give it `ttl_seconds`.
    mode: Option<CloneMode>,
    /// Seconds until `expires_at`, which is kept and shown: nothing is deleted when it comes.
    #[schema(minimum = 60)]
    ttl_seconds: Option<i64>,
}

/// What comes along, as it was counted when the clone was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClonedResourceSummary {
    pub collections: i64,
    pub retrievers: i64,
    pub taxonomies: i64,
    pub buckets: i64,
    pub objects: i64,
    /// Documents.
    pub points: i64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CloneNamespaceResponse {
    pub namespace: NamespaceModel,
    pub source_namespace_id: String,
    /// `cloning`: the namespace can be used when the task has ended.
    pub status: String,
    pub task_id: String,
    pub cloned_resources: ClonedResourceSummary,
    /// What the oldest retriever is called in the clone.
    pub primary_retriever_id: Option<String>,
}

impl From<Cloning> for CloneNamespaceResponse {
    fn from(cloning: Cloning) -> Self {
        let Cloning { namespace, source_namespace_id, task_id, counts, retrievers, primary_retriever_id } = cloning;
        Self {
            namespace: Described { namespace, counts: NamespaceCounts::default() }.into(),
            source_namespace_id,
            status: "cloning".into(),
            task_id,
            cloned_resources: ClonedResourceSummary {
                collections: counts.collections,
                retrievers,
                taxonomies: 0,
                buckets: counts.buckets,
                objects: counts.objects,
                points: counts.documents,
            },
            primary_retriever_id,
        }
    }
}

/// Clone a namespace
///
/// Makes a namespace like this one: buckets and objects, collections with their documents, vectors and artifacts, and
/// retrievers, all under ids of their own. Nothing is computed again, and what is processed again in the clone is known.
/// The clone is of one moment; it can be used when the task has ended, and until then there is nothing to be seen of what is
/// in it. Publications, keys of retrievers, interactions and evaluations stay behind. Needs a key of the whole
/// organization.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_identifier}/clone", tag = "NamespaceClone", responses((status = 200, body = CloneNamespaceResponse)))]
pub async fn clone_namespace(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Json(request): Json<CloneNamespaceRequest>,
) -> Result<Json<CloneNamespaceResponse>, ApiError> {
    caller.may(Permission::Write)?;
    // A key of another namespace is not told that this one is there.
    app.namespace(&caller.0, &namespace_identifier).await?;
    caller.may_in_organization(Permission::Write)?;
    if request.source_organization_id.is_some_and(|id| id != caller.0.organization_id) {
        let message = "only namespaces of your own organization can be cloned; leave out `source_organization_id`";
        return Err(Error::Forbidden(message.into()).into());
    }
    let wanted = request.include_resources.unwrap_or_default();
    refuse(&[("include_resources.taxonomies", wanted.taxonomies == Some(true))])?;
    let new = NewClone {
        name: request.namespace_name,
        description: request.description,
        ttl_seconds: request.ttl_seconds,
        is_branch: request.mode == Some(CloneMode::Branch),
        with_collections: wanted.collections.unwrap_or(true),
        with_retrievers: wanted.retrievers.unwrap_or(true),
    };
    Ok(Json(app.clone_namespace(&caller.0, &namespace_identifier, new).await?.into()))
}
