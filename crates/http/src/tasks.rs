//! Tasks: what clients poll while work goes on.

use crate::{
    App,
    error::ApiError,
    extract::{Caller, Json, Path, Query},
    paging::{ListBody, PaginationResponse, PagingFields},
};
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use strata_engine::batches::Task;
use strata_model::Permission;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, kill))
}

/// A task and where it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskResponse {
    task_id: String,
    task_type: String,
    /// `PENDING`, `PROCESSING`, `COMPLETED`, `COMPLETED_WITH_ERRORS`, `FAILED` or `CANCELED`.
    status: String,
    /// Ids of what the task works on.
    inputs: Vec<Value>,
    /// What came of each, where the task tells.
    outputs: Vec<Value>,
    additional_data: Option<Map<String, Value>>,
    error: Option<String>,
}

/// The task as every answer shows it.
pub(crate) fn task_json(task: &Task) -> Value {
    let list = |key: &str| task.body.get(key).and_then(Value::as_array).cloned();
    let inputs = list("inputs").unwrap_or_else(|| task.batch_id.iter().map(|id| json!(id)).collect());
    let mut shown = json!({
        "task_id": task.task_id,
        "task_type": task.task_type,
        "status": task.status,
        "inputs": inputs,
        "outputs": list("outputs").unwrap_or_default(),
        "additional_data": {
            "batch_id": task.batch_id, "namespace_id": task.namespace_id,
            "created_at": task.created_at, "updated_at": task.updated_at,
        },
        "error": task.body.get("error"),
    });
    if let Some(progress) = task.body.get("progress") {
        shown["additional_data"]["progress"] = progress.clone();
    }
    shown
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct ListTasksRequest {
    /// Only tasks in this state.
    status: Option<String>,
    /// Only tasks of this type.
    task_type: Option<String>,
    /// A filter: `{"AND": [{"field": …, "operator": …, "value": …}]}` or `{field: value}`.
    filters: Option<Value>,
    /// `{"field": …, "direction": "asc" | "desc"}`.
    sort: Option<Value>,
    /// Text that some field of the task contains.
    search: Option<String>,
}

/// Lists tasks, newest first.
#[utoipa::path(post, path = "/v1/tasks/list", tag = "Tasks", operation_id = "list_tasks", params(PagingFields), request_body = ListTasksRequest,
    responses((status = 200, body = Object)))]
async fn list(State(app): State<App>, caller: Caller, Query(query): Query<PagingFields>, Json(body): Json<ListTasksRequest>) -> Result<axum::Json<Value>, ApiError> {
    caller.may(Permission::Read)?;
    let list = ListBody { filters: body.filters, sort: body.sort, search: body.search, ..ListBody::default() };
    let (paging, request) = list.resolve(&query)?;
    let mut tasks = app.tasks(&caller.0.organization_id).await?;
    tasks.retain(|t| {
        t.namespace_id.as_ref().is_none_or(|n| caller.0.may_enter(n))
            && body.status.as_ref().is_none_or(|s| *s == t.status)
            && body.task_type.as_ref().is_none_or(|k| *k == t.task_type)
    });
    let views: Vec<Map<String, Value>> = tasks.iter().map(|t| task_json(t).as_object().cloned().unwrap_or_default()).collect();
    let page = request.page(views, Clone::clone);
    Ok(axum::Json(json!({
        "pagination": PaginationResponse::of(&paging, page.items.len(), page.total),
        "results": page.items,
    })))
}

/// A task in its present state.
#[utoipa::path(get, path = "/v1/tasks/{task_id}", tag = "Tasks", operation_id = "get_task", params(("task_id" = String, Path)),
    responses((status = 200, body = TaskResponse)))]
async fn get(State(app): State<App>, caller: Caller, Path(task): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    caller.may(Permission::Read)?;
    Ok(axum::Json(task_json(&app.task_for(&caller.0, &task).await?)))
}

/// Cancels the work behind a task.
#[utoipa::path(delete, path = "/v1/tasks/{task_id}", tag = "Tasks", operation_id = "kill_task", params(("task_id" = String, Path)),
    responses((status = 200, body = Object)))]
async fn kill(State(app): State<App>, caller: Caller, Path(task): Path<String>) -> Result<axum::Json<Value>, ApiError> {
    caller.may(Permission::Delete)?;
    app.cancel_task(&caller.0, &task).await?;
    Ok(axum::Json(json!({ "success": true, "message": format!("task `{task}` is canceled") })))
}
