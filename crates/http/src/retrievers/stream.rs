//! Executions as Server-Sent Events: `data: {"event_type": …}` as each stage starts and ends, then the answer; at the
//! end of all `data: [DONE]`.

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

/// A Server-Sent Event of an execution that is streamed, or of several.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamedEvent {
    /// A JSON object with `event_type`: `stage_start`, `stage_complete` and `stage_error` with the stage's name and
    /// place, then `execution_complete` with the answer, or `execution_error`. In a batch each has the query's `index`,
    /// from 0, and at last `batch_complete` has the counts. `[DONE]` at the end.
    data: String,
}

/// An execution that tells of each stage as it starts and ends.
pub(super) struct Streamed {
    pub app: App,
    pub scope: Scope,
    pub prepared: Prepared,
    pub execute: Execute,
    pub style: Style,
    /// Place of the query in its batch, from 0, for every event to say; `None` outside of one.
    pub index: Option<usize>,
    /// Id of the request, for the words about our faults.
    pub request_id: String,
}

/// Executes while the caller reads; a caller that goes away ends the execution.
pub(super) fn events(app: App, scope: Scope, prepared: Prepared, execute: Execute, style: Style) -> Response {
    let streamed = Streamed { app, scope, prepared, execute, style, index: None, request_id: request_id::current() };
    events_of(move |events| async move {
        streamed.run(events).await;
    })
}

/// Answers each event that `run` puts into its channel, in this order, then `[DONE]`. It runs while the caller reads; a
/// caller that goes away ends it.
pub(super) fn events_of<R>(run: impl FnOnce(UnboundedSender<Value>) -> R) -> Response
where
    R: Future<Output = ()> + Send + 'static,
{
    // A batch has few queries and a plan few stages, and each sends two events, so the channel stays small without a
    // bound of its own.
    let (sender, received) = mpsc::unbounded();
    // The run sends nothing here itself: what it puts into the channel keeps its order.
    let running = stream::once(run(sender)).filter_map(|()| std::future::ready(None::<Value>));
    let events = stream::select(received, running).map(|event| Event::default().data(event.to_string()));
    let done = stream::once(std::future::ready(Event::default().data("[DONE]")));
    let all = events.chain(done).map(Ok::<_, Infallible>);
    Sse::new(all).keep_alive(KeepAlive::default()).into_response()
}

impl Streamed {
    /// Executes and sends the events; answers whether there is an answer among them.
    pub(super) async fn run(self, events: UnboundedSender<Value>) -> bool {
        let Self { app, scope, prepared, execute, style, index, request_id } = self;
        // Where nobody reads any more this future is dropped, so a failed send needs no care.
        let send = |mut event: Value| {
            if let Some(index) = index {
                event["index"] = index.into();
            }
            drop(events.unbounded_send(event));
        };
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
        let is_answered = outcome.is_ok();
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
        is_answered
    }
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
    use std::sync::Arc;

    #[tokio::test]
    async fn events_keep_their_order_and_end_with_done() {
        let response = events_of(|events| async move {
            for number in 0..3 {
                drop(events.unbounded_send(json!({ "number": number })));
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let each = [r#"{"number":0}"#, r#"{"number":1}"#, r#"{"number":2}"#, "[DONE]"];
        assert_eq!(text, each.map(|data| format!("data: {data}\n\n")).concat());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_the_run() {
        let ours = Arc::new(());
        let held = ours.clone();
        let response = events_of(|events| async move {
            drop(events.unbounded_send(json!({ "number": 0 })));
            std::future::pending::<()>().await;
            drop(held);
        });
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "data: {\"number\":0}\n\n");
        assert_eq!(Arc::strong_count(&ours), 2, "it runs");
        drop(body);
        assert_eq!(Arc::strong_count(&ours), 1, "and is gone");
    }

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
