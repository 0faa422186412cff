//! An execution as Server-Sent Events: `data: {"event_type": …}` as each stage starts and ends, then the answer, then
//! `data: [DONE]`.

use super::execute::{Style, budget, response};
use crate::{App, error::ApiError, middleware::request_id};
use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures::{
    StreamExt,
    channel::mpsc::{self, UnboundedSender},
    stream,
};
use serde::Serialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use strata_engine::{
    retrieval::StageEvent,
    retrievers::{Execute, Prepared},
};
use strata_model::{Error, Scope};
use utoipa::ToSchema;

/// A Server-Sent Event of an execution that is streamed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamedEvent {
    /// A JSON object with `event_type`, and `[DONE]` at the end.
    data: String,
}

/// Executes while the caller reads; a caller that goes away ends the execution.
pub(super) fn events(app: App, scope: Scope, prepared: Prepared, execute: Execute, style: Style) -> Response {
    // A plan has few stages and each sends two events, so the channel stays small without a bound of its own.
    let (sender, received) = mpsc::unbounded();
    let run = run(app, scope, prepared, execute, style, request_id::current(), sender);
    // The run sends nothing here itself: what it puts into the channel keeps its order.
    let running = stream::once(run).filter_map(|()| std::future::ready(None::<Value>));
    let events = stream::select(received, running).map(|event| Event::default().data(event.to_string()));
    let done = stream::once(std::future::ready(Event::default().data("[DONE]")));
    let all = events.chain(done).map(Ok::<_, Infallible>);
    Sse::new(all).keep_alive(KeepAlive::default()).into_response()
}

async fn run(
    app: App,
    scope: Scope,
    prepared: Prepared,
    execute: Execute,
    style: Style,
    request_id: String,
    events: UnboundedSender<Value>,
) {
    // Where nobody reads any more this future is dropped, so a failed send needs no care.
    let send = |event: Value| drop(events.unbounded_send(event));
    let view = style.view.clone();
    let execution_id = execute.execution_id.clone();
    let total = prepared.plan.stages.len();
    let observer = |event: StageEvent<'_>| {
        let event = stage_event(&execution_id, &request_id, &event);
        send(match &view {
            Some(view) => view.event(event),
            None => event,
        });
    };
    let outcome = match app.execute_observed(&scope, &prepared, execute, &observer).await {
        Ok(executed) => {
            let budget_used = match &view {
                Some(_) => Value::Null,
                None => budget(&prepared.plan, &executed.execution),
            };
            response(&app, &scope, &prepared.plan, executed, style).await.map(|answer| (answer, budget_used))
        }
        Err(error) => Err(ApiError(match &view {
            Some(view) => view.fault(error),
            None => error,
        })),
    };
    send(match outcome {
        Ok((answer, budget_used)) => {
            let mut event = json!(answer);
            event["event_type"] = "execution_complete".into();
            event["total_stages"] = total.into();
            event["budget_used"] = budget_used;
            event
        }
        Err(ApiError(error)) => json!({
            "event_type": "execution_error",
            "execution_id": execution_id,
            "total_stages": total,
            "error": told(&error, &request_id),
        }),
    });
}

fn stage_event(execution_id: &str, request_id: &str, event: &StageEvent<'_>) -> Value {
    let (kind, name, index, total) = match event {
        StageEvent::Started { index, total, name } => ("stage_start", *name, index, total),
        StageEvent::Completed { index, total, report, .. } => ("stage_complete", report.name.as_str(), index, total),
        StageEvent::Failed { index, total, name, .. } => ("stage_error", *name, index, total),
    };
    let mut json = json!({
        "event_type": kind,
        "execution_id": execution_id,
        "stage_name": name,
        "stage_index": index,
        "total_stages": total,
    });
    match event {
        StageEvent::Started { .. } => {}
        StageEvent::Completed { report, .. } => json["statistics"] = json!(report),
        StageEvent::Failed { error, .. } => json["error"] = words(error, request_id).into(),
    }
    json
}

/// An error in words for the caller, after ours are in the log.
pub(super) fn told(error: &Error, request_id: &str) -> String {
    if let Error::Internal(what) = error {
        tracing::error!(%request_id, "{what}");
    }
    words(error, request_id)
}

/// An error in words for the caller; ours are named by the request alone.
fn words(error: &Error, request_id: &str) -> String {
    match error {
        Error::Internal(_) => {
            format!("something went wrong on our side; the server's log names it under request `{request_id}`")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_their_stage_and_hide_our_faults() {
        let started = stage_event("exec_1", "r1", &StageEvent::Started { index: 0, total: 2, name: "find" });
        assert_eq!((&started["event_type"], &started["stage_index"]), (&json!("stage_start"), &json!(0)));
        let error = Error::internal("the password is 1234");
        let failed =
            stage_event("exec_1", "r1", &StageEvent::Failed { index: 1, total: 2, name: "cut", error: &error });
        assert_eq!((&failed["event_type"], &failed["stage_name"]), (&json!("stage_error"), &json!("cut")));
        assert!(failed["error"].as_str().unwrap().contains("`r1`") && !failed.to_string().contains("1234"));
    }
}
