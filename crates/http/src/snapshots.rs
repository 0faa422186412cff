//! Snapshots of namespaces.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    openapi::time,
    organizations::refuse,
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_engine::snapshots::{Destination, Snapshot, SnapshotFile, Verified, manifest_of};
use strata_model::{Error, Fields, Permission, limits::PRESIGN_SECONDS};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Snapshots of a page unless asked otherwise, and most of one.
const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;
/// The form of snapshots, as answers show it.
const SCHEMA_VERSION: i64 = 1;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_snapshot_namespaces))
        .routes(routes!(list_snapshots_namespaces))
        .routes(routes!(get_snapshot_namespaces, delete_snapshot_namespaces))
        .routes(routes!(restore_snapshot_namespaces))
        .routes(routes!(verify_snapshot_namespaces))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateSnapshotRequest {
    /// Contents are always held as long as the snapshot exists; there is no second copy of them here.
    copy_s3_objects: Option<bool>,
    /// Without them documents are restored that no search by meaning finds until they are processed again.
    include_vectors: Option<bool>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    import_from: Option<Fields>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CreateSnapshotResponse {
    pub task_id: String,
    pub snapshot_id: String,
    pub message: String,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ListSnapshotsRequest {
    #[schema(minimum = 0)]
    skip: Option<i64>,
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListSnapshotsResponse {
    pub results: Vec<SnapshotModel>,
    pub total_count: usize,
}

/// What is in a snapshot.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotManifest {
    pub snapshot_id: String,
    pub namespace_id: String,
    pub namespace_name: String,
    pub schema_version: i64,
    #[schema(schema_with = time)]
    pub created_at: String,
    pub snapshot_type: String,
    /// Rows by kind: `buckets`, `objects`, `documents` …
    pub mongo_collections: BTreeMap<String, u64>,
    pub vector_point_count: u64,
    /// Contents of objects and artifacts that the snapshot holds.
    pub s3_object_count: u64,
    pub s3_total_bytes: u64,
    pub s3_objects_copied: bool,
    pub include_vectors: bool,
}

/// What came of one kind of rows in a restore.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RestoreCollectionOutcome {
    pub collection: String,
    pub expected: u64,
    pub restored: u64,
    /// `restored` or `partial`.
    pub status: String,
}

/// What came of the last restore of a snapshot.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RestoreReport {
    pub snapshot_id: String,
    pub target_namespace_id: String,
    pub complete: bool,
    pub collections: Vec<RestoreCollectionOutcome>,
    pub vector_expected: u64,
    pub vector_restored: u64,
    pub vector_source: String,
    pub vector_status: String,
    pub skipped_summary: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotModel {
    pub snapshot_id: String,
    pub namespace_id: String,
    pub namespace_name: String,
    /// The organization.
    pub internal_id: String,
    /// Always `manual`.
    pub snapshot_type: String,
    /// `pending`, `in_progress`, `completed` or `failed`.
    pub status: String,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub dispatch_at: String,
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    /// Always null: a snapshot stays until it is deleted.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    pub schema_version: i64,
    pub s3_prefix: String,
    pub s3_objects_copied: bool,
    pub manifest: Option<SnapshotManifest>,
    pub error: Option<String>,
    pub task_id: Option<String>,
    pub include_vectors: bool,
    pub last_restore: Option<RestoreReport>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotDownloadArtifact {
    pub path: String,
    pub url: String,
    pub sha256: String,
    pub size: u64,
}

/// The files of a snapshot: its manifest, its rows in parts, and the contents of objects and artifacts.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotDownload {
    #[schema(schema_with = time)]
    pub expires_at: String,
    pub artifacts: Vec<SnapshotDownloadArtifact>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotDetailResponse {
    #[serde(flatten)]
    pub snapshot: SnapshotModel,
    /// Where it was asked for with `download=true`.
    pub download: Option<SnapshotDownload>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct GetParameters {
    /// Add URLs of the snapshot's files, which need no key and work for an hour.
    download: Option<bool>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct VerifyParameters {
    /// Read everything and compare it with its hashes, instead of looking for it only.
    deep: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct RestoreSnapshotRequest {
    /// Makes a new namespace of this name, under new ids.
    #[schema(min_length = 1, max_length = 64)]
    target_namespace_name: Option<String>,
    /// Must be true where no name is given: everything in the namespace is replaced by what was in it, under its ids.
    confirm_in_place: Option<bool>,
    /// Not supported.
    #[schema(value_type = Option<String>)]
    restore_point: Option<Value>,
    /// Not supported.
    isolated: Option<bool>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct RestoreSnapshotResponse {
    pub task_id: String,
    pub snapshot_id: String,
    pub target_namespace_id: String,
    pub message: String,
    pub isolated: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotVerifyIssue {
    /// `not_complete`, `content_missing`, `content_damaged` or `part_damaged`.
    pub code: String,
    /// Always `error`.
    pub severity: String,
    pub detail: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotVerifyResponse {
    pub snapshot_id: String,
    /// `ok` or `damaged`.
    pub status: String,
    pub restorable: bool,
    pub issues: Vec<SnapshotVerifyIssue>,
    /// Kinds of rows whose parts were all good.
    pub collections_verified: u64,
    pub vector_source: String,
    pub vector_capture: String,
    /// Contents whose hash was computed and is right.
    pub digests_verified: u64,
    pub last_restore: Option<RestoreReport>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotDeletedResponse {
    pub success: bool,
    pub snapshot_id: String,
    pub message: String,
}

fn text(snapshot: &Snapshot, key: &str) -> Option<String> {
    snapshot.body.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn last_restore(snapshot: &Snapshot) -> Result<Option<RestoreReport>, Error> {
    let kept = snapshot.body.get("last_restore").cloned();
    kept.map(|kept| serde_json::from_value(kept).map_err(Error::internal)).transpose()
}

/// A snapshot as answers show it; `held` are the contents that it holds and their bytes.
fn shown(snapshot: Snapshot, held: (u64, u64)) -> Result<SnapshotModel, Error> {
    let manifest = manifest_of(&snapshot)?;
    let choice = snapshot.body.get("choice");
    let include_vectors = choice.and_then(|choice| choice.get("include_vectors")?.as_bool()).unwrap_or(true);
    Ok(SnapshotModel {
        manifest: manifest.map(|manifest| SnapshotManifest {
            snapshot_id: manifest.snapshot_id,
            namespace_id: manifest.namespace_id,
            namespace_name: manifest.namespace_name,
            schema_version: SCHEMA_VERSION,
            created_at: manifest.created_at,
            snapshot_type: "manual".into(),
            mongo_collections: manifest.rows,
            vector_point_count: manifest.documents.values().sum(),
            s3_object_count: held.0,
            s3_total_bytes: held.1,
            s3_objects_copied: false,
            include_vectors: manifest.include_vectors,
        }),
        snapshot_type: "manual".into(),
        completed_at: text(&snapshot, "completed_at"),
        expires_at: None,
        schema_version: SCHEMA_VERSION,
        s3_prefix: String::new(),
        s3_objects_copied: false,
        error: text(&snapshot, "error"),
        task_id: text(&snapshot, "task_id"),
        include_vectors,
        last_restore: last_restore(&snapshot)?,
        snapshot_id: snapshot.snapshot_id,
        namespace_id: snapshot.namespace_id,
        namespace_name: snapshot.namespace_name,
        internal_id: snapshot.organization_id,
        status: snapshot.status,
        dispatch_at: snapshot.created_at.clone(),
        created_at: snapshot.created_at,
    })
}

fn verification(verified: Verified) -> Result<SnapshotVerifyResponse, Error> {
    let Verified { snapshot, issues, tables, digests } = verified;
    let is_good = issues.is_empty();
    let with_vectors = manifest_of(&snapshot)?.is_some_and(|manifest| manifest.include_vectors);
    let issue = |issue: strata_engine::snapshots::Issue| SnapshotVerifyIssue {
        code: issue.code.into(),
        severity: "error".into(),
        detail: issue.detail,
    };
    Ok(SnapshotVerifyResponse {
        status: if is_good { "ok" } else { "damaged" }.into(),
        restorable: is_good,
        issues: issues.into_iter().map(issue).collect(),
        collections_verified: tables,
        vector_source: if with_vectors { "snapshot" } else { "none" }.into(),
        vector_capture: if with_vectors { "complete" } else { "none" }.into(),
        digests_verified: digests,
        last_restore: last_restore(&snapshot)?,
        snapshot_id: snapshot.snapshot_id,
    })
}

/// Take a snapshot
///
/// Keeps everything that is in the namespace as it stands at one moment; writes go on meanwhile. Keys of retrievers,
/// publications, uploads, batches and measurements are not in it. A snapshot stays when its namespace is deleted, and is
/// found under the namespace's id or name then, too. What it refers to is held until it is deleted.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_identifier}/snapshots", tag = "NamespaceSnapshots", responses((status = 200, body = CreateSnapshotResponse)))]
pub async fn create_snapshot_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Json(request): Json<CreateSnapshotRequest>,
) -> Result<Json<CreateSnapshotResponse>, ApiError> {
    caller.may(Permission::Write)?;
    refuse(&[("import_from", request.import_from.is_some())])?;
    let include_vectors = request.include_vectors.unwrap_or(true);
    let snapshot = app.create_snapshot(&caller.0, &namespace_identifier, include_vectors).await?;
    let held = if request.copy_s3_objects == Some(true) { "; contents are held, not copied" } else { "" };
    Ok(Json(CreateSnapshotResponse {
        task_id: text(&snapshot, "task_id").unwrap_or_default(),
        message: format!("namespace `{}` is being kept{held}", snapshot.namespace_name),
        snapshot_id: snapshot.snapshot_id,
    }))
}

/// List snapshots
///
/// Those of a namespace, newest first, whether it is still there or not.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_identifier}/snapshots/list", tag = "NamespaceSnapshots", responses((status = 200, body = ListSnapshotsResponse)))]
pub async fn list_snapshots_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path(namespace_identifier): Path<String>,
    Json(request): Json<ListSnapshotsRequest>,
) -> Result<Json<ListSnapshotsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_LIMIT}")).into());
    }
    let skip = usize::try_from(request.skip.unwrap_or(0)).map_err(|_| Error::invalid("skip", "must not be negative"))?;
    let page = app.snapshots(&caller.0, &namespace_identifier, (skip, limit as usize)).await?;
    let (snapshots, total_count) = page;
    let mut results = Vec::with_capacity(snapshots.len());
    for snapshot in snapshots {
        let held = app.snapshot_holds(&snapshot).await?;
        results.push(shown(snapshot, held)?);
    }
    Ok(Json(ListSnapshotsResponse { results, total_count }))
}

/// Get a snapshot
#[utoipa::path(get, path = "/v1/namespaces/{namespace_identifier}/snapshots/{snapshot_id}", tag = "NamespaceSnapshots",
    params(("namespace_identifier" = String, Path), ("snapshot_id" = String, Path), GetParameters),
    responses((status = 200, body = SnapshotDetailResponse)))]
pub async fn get_snapshot_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_identifier, snapshot_id)): Path<(String, String)>,
    Query(query): Query<GetParameters>,
) -> Result<Json<SnapshotDetailResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let snapshot = app.snapshot(&caller.0, &namespace_identifier, &snapshot_id).await?;
    let held = app.snapshot_holds(&snapshot).await?;
    let download = match query.download {
        Some(true) => Some(download(&app, app.snapshot_files(&snapshot).await?)?),
        _ => None,
    };
    Ok(Json(SnapshotDetailResponse { snapshot: shown(snapshot, held)?, download }))
}

fn download(app: &App, files: Vec<SnapshotFile>) -> Result<SnapshotDownload, Error> {
    let artifact = |file: SnapshotFile| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        Ok(SnapshotDownloadArtifact {
            url: app.presigned_get(&file.sha256, Some(name), file.media_type, PRESIGN_SECONDS)?,
            size: file.size_bytes,
            path: file.path.clone(),
            sha256: file.sha256,
        })
    };
    let artifacts = files.into_iter().map(artifact).collect::<Result<Vec<_>, Error>>()?;
    Ok(SnapshotDownload { expires_at: app.time_from_now(PRESIGN_SECONDS), artifacts })
}

/// Delete a snapshot
///
/// And the contents that nothing else refers to. Not while it is being taken or restored.
#[utoipa::path(delete, path = "/v1/namespaces/{namespace_identifier}/snapshots/{snapshot_id}", tag = "NamespaceSnapshots",
    params(("namespace_identifier" = String, Path), ("snapshot_id" = String, Path)),
    responses((status = 200, body = SnapshotDeletedResponse)))]
pub async fn delete_snapshot_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_identifier, snapshot_id)): Path<(String, String)>,
) -> Result<Json<SnapshotDeletedResponse>, ApiError> {
    caller.may(Permission::Delete)?;
    let gone = app.delete_snapshot(&caller.0, &namespace_identifier, &snapshot_id).await?;
    let message = format!("snapshot `{}` is deleted", gone.snapshot_id);
    Ok(Json(SnapshotDeletedResponse { success: true, snapshot_id: gone.snapshot_id, message }))
}

/// Restore a snapshot
///
/// With `target_namespace_name` into a new namespace, which can be used when the task has ended. Without it, and with
/// `confirm_in_place`, in the place of the namespace itself: what is in it goes, nobody can enter it meanwhile, and
/// everything has the ids that it had. A namespace that was deleted comes back like that. Nothing is removed before all
/// of the snapshot was read and found good.
#[utoipa::path(post, path = "/v1/namespaces/{namespace_identifier}/snapshots/{snapshot_id}/restore", tag = "NamespaceSnapshots",
    params(("namespace_identifier" = String, Path), ("snapshot_id" = String, Path)),
    responses((status = 200, body = RestoreSnapshotResponse)))]
pub async fn restore_snapshot_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_identifier, snapshot_id)): Path<(String, String)>,
    Json(request): Json<RestoreSnapshotRequest>,
) -> Result<Json<RestoreSnapshotResponse>, ApiError> {
    caller.may(Permission::Write)?;
    app.snapshot(&caller.0, &namespace_identifier, &snapshot_id).await?;
    refuse(&[
        ("restore_point", request.restore_point.is_some_and(|point| !point.is_null())),
        ("isolated", request.isolated == Some(true)),
    ])?;
    let destination = match (request.target_namespace_name, request.confirm_in_place) {
        (Some(name), _) => {
            caller.may_in_organization(Permission::Write)?;
            Destination::New(name)
        }
        (None, Some(true)) => {
            caller.may(Permission::Delete)?;
            Destination::InPlace
        }
        (None, _) => {
            let message = "must be true where no `target_namespace_name` is given: everything in the namespace is replaced";
            return Err(Error::invalid("confirm_in_place", message).into());
        }
    };
    let restoring = app.restore_snapshot(&caller.0, &namespace_identifier, &snapshot_id, destination).await?;
    Ok(Json(RestoreSnapshotResponse {
        message: format!("snapshot `{}` is being restored", restoring.snapshot_id),
        task_id: restoring.task_id,
        snapshot_id: restoring.snapshot_id,
        target_namespace_id: restoring.target_namespace_id,
        isolated: false,
    }))
}

/// Verify a snapshot
///
/// Looks whether everything that the snapshot holds is there in its size; with `deep`, whether every byte is what it was.
#[utoipa::path(get, path = "/v1/namespaces/{namespace_identifier}/snapshots/{snapshot_id}/verify", tag = "NamespaceSnapshots",
    params(("namespace_identifier" = String, Path), ("snapshot_id" = String, Path), VerifyParameters),
    responses((status = 200, body = SnapshotVerifyResponse)))]
pub async fn verify_snapshot_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path((namespace_identifier, snapshot_id)): Path<(String, String)>,
    Query(query): Query<VerifyParameters>,
) -> Result<Json<SnapshotVerifyResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let deep = query.deep.unwrap_or(false);
    let verified = app.verify_snapshot(&caller.0, &namespace_identifier, &snapshot_id, deep).await?;
    Ok(Json(verification(verified)?))
}
