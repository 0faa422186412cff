//! Migrations of namespaces.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path},
    openapi::time,
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use strata_engine::migrations::{CONFIG, Config, ExtractorChange, Finding, Migration, MigrationKind, Plan};
use strata_model::{Error, Fields, Permission};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Migrations of a page unless asked otherwise, and most of one.
const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 1000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_migration_namespaces))
        .routes(routes!(list_migrations_namespaces))
        .routes(routes!(validate_migration_namespaces))
        .routes(routes!(get_migration_namespaces, delete_migration_namespaces))
        .routes(routes!(start_migration_namespaces))
        .routes(routes!(cancel_migration_namespaces))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationType {
    ReExtract,
    Copy,
    Extend,
}

/// An extractor that collections get in the new namespace.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MigrationExtractor {
    /// Of the collections that get it.
    feature_extractor_name: String,
    version: Option<String>,
    /// Put over the parameters that the collection has.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Fields>,
}

/// What comes along.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResourceFilter {
    /// Ids or names; all, if it is left out.
    collection_ids: Option<Vec<String>>,
    /// Ids or names; all whose collections come along, if it is left out.
    retriever_ids: Option<Vec<String>>,
    /// Not supported.
    taxonomy_ids: Option<Vec<String>>,
    /// Not supported.
    cluster_ids: Option<Vec<String>>,
    /// Not supported.
    #[schema(value_type = Option<Object>)]
    date_range: Option<Fields>,
    /// Whether what those read from comes along. True unless said otherwise.
    auto_include_dependencies: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MigrationConfig {
    /// `copy` or `re_extract`; `extend` is not done here.
    migration_type: MigrationType,
    /// Id or name.
    source_namespace_id: String,
    /// Not supported: a migration makes a new namespace.
    target_namespace_id: Option<String>,
    /// The name of the new namespace.
    #[schema(min_length = 1, max_length = 64)]
    target_namespace_name: Option<String>,
    feature_extractors: Option<Vec<MigrationExtractor>>,
    filters: Option<ResourceFilter>,
    /// Kept as sent: the server chooses its own pace.
    #[schema(value_type = Option<Object>)]
    batch_options: Option<Fields>,
    /// Kept as sent: there are no taxonomies to migrate.
    #[schema(value_type = Option<Object>)]
    taxonomy_options: Option<Fields>,
    /// Kept as sent: there are no clusters to migrate.
    #[schema(value_type = Option<Object>)]
    cluster_options: Option<Fields>,
    /// Ids cannot be kept, and interactions and executions stay with the original.
    #[schema(value_type = Option<Object>)]
    retriever_options: Option<Fields>,
    /// Not supported: ids are unique in the server.
    preserve_resource_ids: Option<bool>,
    /// Only to be planned.
    dry_run: Option<bool>,
    /// Not supported.
    webhook_url: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateMigrationRequest {
    config: MigrationConfig,
    start_immediately: Option<bool>,
}

#[derive(Debug, Deserialize, ToSchema)]
pub struct ValidateMigrationRequest {
    config: MigrationConfig,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct StartMigrationRequest {
    /// Changes nothing: warnings never stand in the way, and errors always do.
    force: Option<bool>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct CancelMigrationRequest {
    reason: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct ListMigrationsRequest {
    /// Only those in this state.
    status: Option<String>,
    migration_type: Option<MigrationType>,
    source_namespace_id: Option<String>,
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    #[schema(minimum = 0)]
    offset: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MigrationFinding {
    pub error_code: String,
    pub message: String,
    pub resource_id: Option<String>,
    /// `error` or `warning`.
    pub severity: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ValidationResult {
    pub valid: bool,
    pub errors: Vec<MigrationFinding>,
    pub warnings: Vec<MigrationFinding>,
    /// How much comes along, by kind.
    pub estimated_resources: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DependencyNode {
    pub resource_id: String,
    /// `bucket`, `collection` or `retriever`.
    pub resource_type: String,
    pub dependencies: Vec<String>,
    /// How many steps it is above what needs nothing.
    pub tier: usize,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct DependencyGraph {
    pub nodes: Vec<DependencyNode>,
    pub execution_order: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CreateMigrationResponse {
    pub migration_id: String,
    pub status: String,
    pub validation_result: ValidationResult,
    #[schema(schema_with = time)]
    pub created_at: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ValidateMigrationResponse {
    pub validation_result: ValidationResult,
    pub dependency_graph: DependencyGraph,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct StartMigrationResponse {
    pub migration_id: String,
    pub status: String,
    pub task_id: String,
    #[schema(schema_with = time)]
    pub started_at: String,
    pub message: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct CancelMigrationResponse {
    pub migration_id: String,
    pub status: String,
    #[schema(schema_with = time)]
    pub cancelled_at: String,
    pub message: String,
}

/// One part of the work.
#[derive(Debug, Serialize, ToSchema)]
pub struct StageProgress {
    /// `namespace_setup`, `batch_processing` or `finalization`.
    pub stage: String,
    pub status: String,
    pub progress_percent: f64,
    pub items_total: u64,
    pub items_completed: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MigrationProgress {
    pub overall_status: String,
    pub overall_progress_percent: f64,
    pub current_stage: Option<String>,
    pub stages: Vec<StageProgress>,
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct GetMigrationResponse {
    pub migration_id: String,
    /// The organization.
    pub internal_id: String,
    /// The namespace that is migrated.
    pub namespace_id: String,
    /// As it was sent.
    #[schema(value_type = Object)]
    pub config: Value,
    /// `draft`, `pending`, `in_progress`, `completed`, `failed` or `cancelled`.
    pub status: String,
    pub progress: MigrationProgress,
    pub task_id: Option<String>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    #[schema(format = DateTime)]
    pub completed_at: Option<String>,
    pub error_message: Option<String>,
    /// `target_namespace_id`, and what came of the rows.
    #[schema(value_type = Object)]
    pub additional_data: Value,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ListMigrationsResponse {
    pub results: Vec<GetMigrationResponse>,
    pub total: usize,
    pub limit: i64,
    pub offset: i64,
}

/// The state as the API calls it.
fn status(migration: &Migration) -> &'static str {
    match migration.transfer.status.as_str() {
        "draft" => "draft",
        "pending" => "pending",
        "running" => "in_progress",
        "completed" => "completed",
        "canceled" => "cancelled",
        _ => "failed",
    }
}

fn text(migration: &Migration, key: &str) -> Option<String> {
    migration.transfer.body.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// Which stage a phase of the work belongs to.
fn stage_of(phase: &str) -> &'static str {
    match phase {
        "processing" => "batch_processing",
        _ => "namespace_setup",
    }
}

fn progress(migration: &Migration) -> MigrationProgress {
    let overall = status(migration);
    let number = |key: &str| migration.progress.as_ref().and_then(|p| p.get(key)?.as_u64()).unwrap_or(0);
    let phase = migration.progress.as_ref().and_then(|p| p.get("phase")?.as_str());
    let (done, total) = (number("done"), number("total"));
    let percent = match (overall, total) {
        ("completed", _) => 100.0,
        (_, 0) => 0.0,
        _ => (done as f64 / total as f64 * 100.0).min(100.0),
    };
    let stage = phase.map(stage_of);
    let stages = stage.map(|stage| StageProgress {
        stage: stage.into(),
        status: overall.into(),
        progress_percent: percent,
        items_total: total,
        items_completed: done,
    });
    MigrationProgress {
        overall_status: overall.into(),
        overall_progress_percent: percent,
        current_stage: stage.filter(|_| overall == "in_progress").map(str::to_owned),
        stages: stages.into_iter().collect(),
        started_at: text(migration, "started_at"),
    }
}

impl From<Migration> for GetMigrationResponse {
    fn from(migration: Migration) -> Self {
        let is_over = matches!(status(&migration), "completed" | "failed" | "cancelled");
        let body = &migration.transfer.body;
        let additional_data = serde_json::json!({
            "target_namespace_id": migration.transfer.target_namespace_id,
            "report": body.get("report"),
        });
        Self {
            config: body.get(CONFIG).cloned().unwrap_or_default(),
            status: status(&migration).into(),
            progress: progress(&migration),
            started_at: text(&migration, "started_at"),
            error_message: text(&migration, "error"),
            additional_data,
            completed_at: is_over.then(|| migration.transfer.updated_at.clone()),
            task_id: Some(migration.transfer.task_id).filter(|id| !id.is_empty()),
            migration_id: migration.transfer.transfer_id,
            internal_id: migration.transfer.organization_id,
            namespace_id: migration.transfer.source_namespace_id,
            created_at: migration.transfer.created_at,
        }
    }
}

fn finding(finding: &Finding, severity: &str) -> MigrationFinding {
    MigrationFinding {
        error_code: finding.code.into(),
        message: finding.message.clone(),
        resource_id: finding.resource_id.clone(),
        severity: severity.into(),
    }
}

fn validation(plan: &Plan) -> ValidationResult {
    ValidationResult {
        valid: plan.errors.is_empty(),
        errors: plan.errors.iter().map(|error| finding(error, "error")).collect(),
        warnings: plan.warnings.iter().map(|warning| finding(warning, "warning")).collect(),
        estimated_resources: plan.estimated.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
    }
}

fn graph(plan: &Plan) -> DependencyGraph {
    let mut tiers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nodes = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let below = node.dependencies.iter().filter_map(|id| tiers.get(id.as_str())).max();
        let tier = below.map_or(0, |below| below + 1);
        tiers.insert(&node.id, tier);
        nodes.push(DependencyNode {
            resource_id: node.id.clone(),
            resource_type: node.kind.into(),
            dependencies: node.dependencies.clone(),
            tier,
        });
    }
    nodes.sort_by_key(|node| node.tier);
    let execution_order = nodes.iter().map(|node| node.resource_id.clone()).collect();
    DependencyGraph { nodes, execution_order }
}

/// What was asked for, as the engine takes it.
fn config(sent: MigrationConfig) -> Result<Config, Error> {
    let kept = serde_json::to_value(&sent).map_err(Error::internal)?;
    let mut kept = kept.as_object().cloned().unwrap_or_default();
    kept.retain(|_, value| !value.is_null());
    let filters = sent.filters.unwrap_or_default();
    let wants = |key: &str| {
        let options = sent.retriever_options.as_ref();
        options.and_then(|options| options.get(key)?.as_bool()).unwrap_or(false)
    };
    let cannot = "cannot be followed here; leave it out";
    let refused = [
        ("target_namespace_id", sent.target_namespace_id.is_some()),
        ("preserve_resource_ids", sent.preserve_resource_ids == Some(true)),
        ("webhook_url", sent.webhook_url.is_some()),
        ("filters.taxonomy_ids", filters.taxonomy_ids.is_some_and(|ids| !ids.is_empty())),
        ("filters.cluster_ids", filters.cluster_ids.is_some_and(|ids| !ids.is_empty())),
        ("filters.date_range", filters.date_range.is_some()),
        ("retriever_options.preserve_retriever_ids", wants("preserve_retriever_ids")),
        ("retriever_options.migrate_interactions", wants("migrate_interactions")),
        ("retriever_options.migrate_execution_history", wants("migrate_execution_history")),
    ];
    let change = |extractor: MigrationExtractor| ExtractorChange {
        name: extractor.feature_extractor_name,
        version: extractor.version,
        parameters: extractor.parameters.unwrap_or_default(),
    };
    Ok(Config {
        kind: match sent.migration_type {
            MigrationType::Copy => MigrationKind::Copy,
            MigrationType::ReExtract => MigrationKind::ReExtract,
            MigrationType::Extend => MigrationKind::Extend,
        },
        refused: refused.into_iter().filter(|(_, is_sent)| *is_sent).map(|(field, _)| (field, cannot)).collect(),
        source: sent.source_namespace_id,
        target_name: sent.target_namespace_name,
        extractors: sent.feature_extractors.unwrap_or_default().into_iter().map(change).collect(),
        collections: filters.collection_ids,
        retrievers: filters.retriever_ids,
        with_dependencies: filters.auto_include_dependencies.unwrap_or(true),
        dry_run: sent.dry_run.unwrap_or(false),
        sent: kept,
    })
}

/// Create a migration
///
/// Plans a new namespace like another one: `copy` takes everything along, `re_extract` takes buckets and objects along and
/// makes the documents anew, by the extractors that are named where collections have those, and as before elsewhere. The
/// original stays as it is. Nothing happens before the migration is started. Needs a key of the whole organization.
#[utoipa::path(post, path = "/v1/namespaces/migrations", tag = "NamespaceMigrations", responses((status = 200, body = CreateMigrationResponse)))]
pub async fn create_migration_namespaces(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<CreateMigrationRequest>,
) -> Result<Json<CreateMigrationResponse>, ApiError> {
    caller.may_in_organization(Permission::Write)?;
    let (mut migration, plan) = app.create_migration(&caller.0, config(request.config)?).await?;
    let validation_result = validation(&plan);
    if request.start_immediately == Some(true) && validation_result.valid {
        migration = app.start_migration(&caller.0, &migration.transfer.transfer_id).await?;
    }
    let state = status(&migration);
    Ok(Json(CreateMigrationResponse {
        status: state.into(),
        message: match validation_result.valid {
            true => format!("the migration is {state}"),
            false => "the migration has errors and cannot be started".into(),
        },
        validation_result,
        created_at: migration.transfer.created_at,
        migration_id: migration.transfer.transfer_id,
    }))
}

/// List migrations
///
/// Those of namespaces that the key may enter, newest first.
#[utoipa::path(post, path = "/v1/namespaces/migrations/list", tag = "NamespaceMigrations", responses((status = 200, body = ListMigrationsResponse)))]
pub async fn list_migrations_namespaces(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<ListMigrationsRequest>,
) -> Result<Json<ListMigrationsResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let (limit, offset) = (request.limit.unwrap_or(DEFAULT_LIMIT), request.offset.unwrap_or(0));
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Error::invalid("limit", format!("must be from 1 to {MAX_LIMIT}")).into());
    }
    let skip = usize::try_from(offset).map_err(|_| Error::invalid("offset", "must not be negative"))?;
    let kind = request.migration_type.map(|kind| serde_json::to_value(kind).unwrap_or_default());
    let mut all = app.migrations(&caller.0).await?;
    all.retain(|migration| {
        let of = migration.transfer.body.get(CONFIG).and_then(|config| config.get("migration_type"));
        request.status.as_deref().is_none_or(|wanted| wanted == status(migration))
            && kind.as_ref().is_none_or(|kind| Some(kind) == of)
            && request.source_namespace_id.as_ref().is_none_or(|id| *id == migration.transfer.source_namespace_id)
    });
    let total = all.len();
    let page = all.into_iter().skip(skip).take(limit as usize);
    Ok(Json(ListMigrationsResponse { results: page.map(GetMigrationResponse::from).collect(), total, limit, offset }))
}

/// Validate a migration
///
/// What it would take along, in which order, and what stands against it. Nothing is written.
#[utoipa::path(post, path = "/v1/namespaces/migrations/validate", tag = "NamespaceMigrations", responses((status = 200, body = ValidateMigrationResponse)))]
pub async fn validate_migration_namespaces(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<ValidateMigrationRequest>,
) -> Result<Json<ValidateMigrationResponse>, ApiError> {
    caller.may(Permission::Read)?;
    let plan = app.plan_migration(&caller.0, config(request.config)?).await?;
    let message = match plan.errors.len() {
        0 => "the migration can be started".to_owned(),
        count => format!("{count} errors stand against the migration"),
    };
    let (validation_result, dependency_graph) = (validation(&plan), graph(&plan));
    Ok(Json(ValidateMigrationResponse { validation_result, dependency_graph, message }))
}

/// Get a migration
#[utoipa::path(get, path = "/v1/namespaces/migrations/{migration_id}", tag = "NamespaceMigrations", params(("migration_id" = String, Path)),
    responses((status = 200, body = GetMigrationResponse)))]
pub async fn get_migration_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path(migration_id): Path<String>,
) -> Result<Json<GetMigrationResponse>, ApiError> {
    caller.may(Permission::Read)?;
    Ok(Json(app.migration(&caller.0, &migration_id).await?.into()))
}

/// Delete a migration
///
/// Forgets it; the namespace that it has made stays. Not while it runs.
#[utoipa::path(delete, path = "/v1/namespaces/migrations/{migration_id}", tag = "NamespaceMigrations", params(("migration_id" = String, Path)),
    responses((status = 204, description = "It is forgotten.")))]
pub async fn delete_migration_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path(migration_id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.may(Permission::Delete)?;
    app.delete_migration(&caller.0, &migration_id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a migration
///
/// The new namespace can be seen at once, and entered when the task has ended. Inputs that cannot be processed stay
/// failed and can be tried again there.
#[utoipa::path(post, path = "/v1/namespaces/migrations/{migration_id}/start", tag = "NamespaceMigrations", params(("migration_id" = String, Path)),
    responses((status = 200, body = StartMigrationResponse)))]
pub async fn start_migration_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path(migration_id): Path<String>,
    Json(request): Json<StartMigrationRequest>,
) -> Result<Json<StartMigrationResponse>, ApiError> {
    caller.may(Permission::Write)?;
    app.migration(&caller.0, &migration_id).await?;
    caller.may_in_organization(Permission::Write)?;
    let started = app.start_migration(&caller.0, &migration_id).await?;
    Ok(Json(StartMigrationResponse {
        migration_id,
        status: status(&started).into(),
        message: match request.force {
            Some(true) => "the migration has been started; there was nothing to force".into(),
            _ => "the migration has been started".into(),
        },
        started_at: text(&started, "started_at").unwrap_or_default(),
        task_id: started.transfer.task_id,
    }))
}

/// Cancel a migration
///
/// What it has made so far is removed. A conflict where it is over.
#[utoipa::path(post, path = "/v1/namespaces/migrations/{migration_id}/cancel", tag = "NamespaceMigrations", params(("migration_id" = String, Path)),
    responses((status = 200, body = CancelMigrationResponse)))]
pub async fn cancel_migration_namespaces(
    State(app): State<App>,
    caller: Caller,
    Path(migration_id): Path<String>,
    Json(request): Json<CancelMigrationRequest>,
) -> Result<Json<CancelMigrationResponse>, ApiError> {
    caller.may(Permission::Write)?;
    let canceled = app.cancel_migration(&caller.0, &migration_id).await?;
    let why = request.reason.map_or(String::new(), |reason| format!(": {reason}"));
    Ok(Json(CancelMigrationResponse {
        migration_id,
        status: "cancelled".into(),
        cancelled_at: canceled.transfer.updated_at,
        message: format!("the migration is canceled{why}"),
    }))
}
