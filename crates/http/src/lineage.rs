//! Where documents come from, and what an object became.

use crate::{
    App,
    documents::{DocumentResponse, LineageStep, ShowParameters, document_json},
    error::ApiError,
    extract::{Json, Path, Query, Tenant},
    paging::{PaginationResponse, Paging, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strata_engine::documents::{DecompositionTree, Show};
use strata_model::{Fields, Permission, document, limits};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_document_lineage))
        .routes(routes!(get_decomposition_tree))
        .routes(routes!(get_documents_by_object))
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentLineageResponse {
    document_id: String,
    collection_id: String,
    /// Null where the document was created directly and descends from nothing.
    lineage: Option<DocumentLineage>,
    /// How many collections lie between the root object and the document, its own included.
    depth: usize,
    /// How many steps `lineage_chain` has.
    total_steps: usize,
    /// Why `lineage` is null, where it is.
    message: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DocumentLineage {
    root_object_id: Option<String>,
    root_bucket_id: Option<String>,
    /// What the document was made from directly: `bucket`, `collection`, `direct_upsert` or `signal`.
    source_type: Option<String>,
    source_object_id: Option<String>,
    source_document_id: Option<String>,
    source_collection_id: Option<String>,
    /// Root bucket, then each collection down to its own.
    lineage_path: Option<String>,
    lineage_chain: Vec<LineageStep>,
}

impl From<document::Lineage> for DocumentLineage {
    fn from(lineage: document::Lineage) -> Self {
        Self {
            root_object_id: lineage.root_object_id,
            root_bucket_id: lineage.root_bucket_id,
            source_type: lineage.source_type.map(|kind| kind.as_str().to_owned()),
            source_object_id: lineage.source_object_id,
            source_document_id: lineage.source_document_id,
            source_collection_id: lineage.source_collection_id,
            lineage_path: lineage.path,
            lineage_chain: lineage.chain.into_iter().map(LineageStep::from).collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct TreeParameters {
    /// Whether to list the documents of each collection by id; the first ten thousand of the object.
    include_document_ids: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DecompositionTreeResponse {
    object_id: String,
    /// Null where the object is gone and documents of it remain.
    bucket_id: Option<String>,
    total_documents: i64,
    /// Topmost first.
    tiers: Vec<DecompositionTier>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DecompositionTier {
    tier: i64,
    document_count: i64,
    collections: Vec<DecompositionCollection>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DecompositionCollection {
    collection_id: String,
    collection_name: Option<String>,
    document_count: i64,
    /// Derivations by state: `pending`, `running`, `completed`, `failed`, `canceled`.
    derivations: BTreeMap<String, i64>,
    /// Where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<Vec<DecompositionMember>>,
    /// The same, by ids alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    document_ids: Option<Vec<String>>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
struct DecompositionMember {
    document_id: String,
    /// The document it was made from; null where that is the object.
    source_document_id: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct ObjectDocumentsParameters {
    /// Only documents of these collections, by id or name.
    collection_ids: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ObjectDocumentsResponse {
    object_id: String,
    /// Oldest first.
    #[schema(value_type = Vec<DocumentResponse>)]
    documents: Vec<Fields>,
    /// How many there are on all pages.
    total_documents: i64,
    /// The same as `total_documents`.
    total: i64,
    pagination: PaginationResponse,
}

/// Lineage of a document
///
/// The object it descends from, what it was made from directly, and every step between.
#[utoipa::path(get, path = "/v1/collections/{collection_id}/documents/{document_id}/lineage", tag = "DocumentLineage",
    responses((status = 200, body = DocumentLineageResponse)))]
async fn get_document_lineage(
    State(app): State<App>,
    tenant: Tenant,
    Path((collection, document)): Path<(String, String)>,
) -> Result<Json<DocumentLineageResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let document = app.document(&tenant.scope, Some(&collection), &document, Show::default()).await?.document;
    let depth = document.lineage.path.as_deref().map_or(0, |path| path.matches('/').count());
    let lineage = document.lineage;
    let has_parents = lineage.root_object_id.is_some() || lineage.source_document_id.is_some() || depth > 0;
    let has_lineage = has_parents || !lineage.chain.is_empty();
    Ok(Json(DocumentLineageResponse {
        document_id: document.document_id,
        collection_id: document.collection_id,
        depth,
        total_steps: lineage.chain.len(),
        message: (!has_lineage).then(|| "the document was created directly and descends from nothing".to_owned()),
        lineage: has_lineage.then(|| lineage.into()),
    }))
}

/// Decomposition of an object
///
/// What the object became, tier by tier: the collections that made documents of it, how many, and what of the work is
/// done, failed or still to do.
#[utoipa::path(get, path = "/v1/objects/{object_id}/decomposition-tree", tag = "DocumentLineage",
    params(TreeParameters), responses((status = 200, body = DecompositionTreeResponse)))]
async fn get_decomposition_tree(
    State(app): State<App>,
    tenant: Tenant,
    Path(object): Path<String>,
    Query(query): Query<TreeParameters>,
) -> Result<Json<DecompositionTreeResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let with_members = query.include_document_ids.unwrap_or(false);
    let tree = app.decomposition_tree(&tenant.scope, &object, with_members).await?;
    Ok(Json(tree_json(tree, with_members)))
}

fn tree_json(tree: DecompositionTree, with_members: bool) -> DecompositionTreeResponse {
    let mut members: BTreeMap<String, Vec<DecompositionMember>> = BTreeMap::new();
    for (collection, document_id, source_document_id) in tree.members {
        members.entry(collection).or_default().push(DecompositionMember { document_id, source_document_id });
    }
    let mut tiers: Vec<DecompositionTier> = Vec::new();
    for counts in tree.tiers {
        let documents = with_members.then(|| members.remove(&counts.collection_id).unwrap_or_default());
        let states = [
            ("pending", counts.pending),
            ("running", counts.running),
            ("completed", counts.completed),
            ("failed", counts.failed),
            ("canceled", counts.canceled),
        ];
        let collection = DecompositionCollection {
            collection_name: tree.names.get(&counts.collection_id).cloned(),
            collection_id: counts.collection_id,
            document_count: counts.documents,
            derivations: states.map(|(state, count)| (state.to_owned(), count)).into(),
            document_ids: documents.as_ref().map(|all| all.iter().map(|member| member.document_id.clone()).collect()),
            documents,
        };
        match tiers.last_mut().filter(|last| last.tier == counts.tier) {
            Some(last) => {
                last.document_count += collection.document_count;
                last.collections.push(collection);
            }
            None => tiers.push(DecompositionTier {
                tier: counts.tier,
                document_count: collection.document_count,
                collections: vec![collection],
            }),
        }
    }
    DecompositionTreeResponse {
        object_id: tree.object_id,
        bucket_id: tree.bucket_id,
        total_documents: tiers.iter().map(|tier| tier.document_count).sum(),
        tiers,
    }
}

/// Documents of an object
///
/// All that descends from the object, directly or through other documents, in some collections or in all.
#[utoipa::path(get, path = "/v1/objects/{object_id}/documents", tag = "DocumentLineage",
    params(ObjectDocumentsParameters, PagingFields, ShowParameters), responses((status = 200, body = ObjectDocumentsResponse)))]
async fn get_documents_by_object(
    State(app): State<App>,
    tenant: Tenant,
    Path(object): Path<String>,
    Query(query): Query<ObjectDocumentsParameters>,
    Query(fields): Query<PagingFields>,
    Query(show): Query<ShowParameters>,
) -> Result<Json<ObjectDocumentsResponse>, ApiError> {
    tenant.may(Permission::Read)?;
    let paging = Paging::resolve(&fields, &PagingFields::default(), limits::MAX_PAGE)?;
    let (limit, offset) = (paging.limit, paging.offset);
    let page =
        app.documents_of_object(&tenant.scope, &object, query.collection_ids, limit, offset, show.show()).await?;
    let total = usize::try_from(page.total).unwrap_or_default();
    Ok(Json(ObjectDocumentsResponse {
        object_id: page.object_id,
        pagination: PaginationResponse::of(&paging, page.documents.len(), total),
        documents: page.documents.into_iter().map(document_json).collect(),
        total_documents: page.total,
        total: page.total,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use strata_engine::documents::TierCounts;

    #[test]
    fn collections_of_one_tier_stand_together_with_their_documents() {
        let counts = |id: &str, tier, documents| TierCounts {
            collection_id: id.into(),
            tier,
            documents,
            completed: 1,
            ..TierCounts::default()
        };
        let tree = DecompositionTree {
            object_id: "obj_1".into(),
            bucket_id: Some("bkt_1".into()),
            tiers: vec![counts("col_1", 1, 2), counts("col_2", 1, 3), counts("col_3", 2, 1)],
            names: BTreeMap::from([("col_1".to_owned(), "frames".to_owned())]),
            members: vec![("col_3".into(), "doc_2".into(), Some("doc_1".into()))],
        };
        let json = serde_json::to_value(tree_json(tree, true)).unwrap();
        assert_eq!((&json["total_documents"], &json["tiers"][0]["document_count"]), (&json!(6), &json!(5)));
        let (first, last) = (&json["tiers"][0]["collections"][0], &json["tiers"][1]["collections"][0]);
        assert_eq!((&first["collection_name"], &first["derivations"]["completed"]), (&json!("frames"), &json!(1)));
        assert_eq!((&first["document_ids"], &last["document_ids"]), (&json!([]), &json!(["doc_2"])));
        assert_eq!(last["documents"][0]["source_document_id"], "doc_1");
    }
}
