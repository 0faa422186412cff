//! The audit log's side of a request: who calls what is gathered here, the engine writes it with what the call
//! changes, and what only the answer tells is added before that goes out. Bodies are not looked at, but for the id that
//! an answer names.

mod operations;

use crate::{App, error::ApiError, extract::Address, middleware::request_id};
use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use operations::{Kind, Known, describe};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};
use strata_engine::audit::{self, Call, Entry};
use strata_model::Error;
use utoipa::openapi::OpenApi;

/// Longest texts of a caller that are kept, in characters.
const MAX_TEXT: usize = 255;
/// Longest answer that is looked through for an id, in bytes.
const MAX_ANSWER: u64 = 256 << 10;
const REASON: &str = "x-change-reason";

/// Knows every operation, and has calls logged.
pub(crate) struct Recorder {
    app: App,
    operations: HashMap<Method, HashMap<String, Known>>,
}

impl Recorder {
    /// For the operations of `document`.
    pub(crate) fn new(app: App, document: &OpenApi) -> Arc<Self> {
        let mut operations: HashMap<Method, HashMap<String, Known>> = HashMap::new();
        for (path, item) in &document.paths.paths {
            let all = [
                (Method::GET, &item.get),
                (Method::POST, &item.post),
                (Method::PUT, &item.put),
                (Method::PATCH, &item.patch),
                (Method::DELETE, &item.delete),
            ];
            for (method, operation) in all {
                let Some(operation) = operation else { continue };
                let name = operation.operation_id.as_deref().unwrap_or_default();
                if let Some(known) = describe(&method, path, name) {
                    operations.entry(method).or_default().insert(path.clone(), known);
                }
            }
        }
        Arc::new(Self { app, operations })
    }

    /// The operation that is called, if its call may leave an event.
    fn known(&self, request: &Request) -> Option<&Known> {
        let path = request.extensions().get::<MatchedPath>()?;
        let known = self.operations.get(request.method())?.get(path.as_str())?;
        (known.kind != Kind::Read || self.app.audits_reads()).then_some(known)
    }

    async fn entry(&self, known: &Known, parts: &mut Parts) -> Arc<Entry> {
        let address = Address::from_request_parts(parts, &self.app).await.ok();
        let named = RawPathParams::from_request_parts(parts, &()).await.ok();
        let named = named.as_ref().and_then(|named| {
            let value = |wanted: &String| named.iter().find(|(name, _)| *name == wanted.as_str());
            known.parameters.iter().find_map(value).map(|(_, value)| short(value))
        });
        let call = Call {
            request_id: request_id::current(),
            ip_address: address.map(|Address(ip)| ip.to_string()),
            user_agent: text(&parts.headers, header::USER_AGENT.as_str()),
            reason: text(&parts.headers, REASON),
        };
        let is_id = known.is_named && !known.id_prefix.is_empty();
        let id = named.clone().filter(|value| is_id && value.starts_with(known.id_prefix));
        let entry = self.app.audit_entry(known.operation.clone(), call, named, known.kind == Kind::Change);
        if let Some(id) = id {
            entry.name(&id);
        }
        entry
    }

    /// Has an answered call logged as far as that has not happened with its change. A change that cannot be logged is
    /// not said to have succeeded.
    async fn settle(&self, known: &Known, entry: Arc<Entry>, response: Response) -> Response {
        let Some(organization_id) = entry.organization_id() else { return response };
        if known.kind == Kind::Read && !self.app.audits_reads_of(organization_id).await.unwrap_or(false) {
            return response;
        }
        let is_good = response.status().as_u16() < 400;
        let response = if is_good && known.kind == Kind::Change && !entry.is_certain() {
            named(known, &entry, response).await
        } else {
            response
        };
        if is_good && entry.is_complete() {
            return response;
        }
        match self.app.audit_answer(entry, response.status().as_u16()).await {
            Ok(()) => response,
            Err(error) if is_good && known.kind == Kind::Change => ApiError(error).into_response(),
            Err(error) => {
                tracing::warn!(%error, request_id = %request_id::current(), "a call was not written to the audit log");
                response
            }
        }
    }
}

/// Answers a request, and has it logged where it is one that is.
pub(crate) async fn record(State(recorder): State<Arc<Recorder>>, request: Request, next: Next) -> Response {
    let Some(known) = recorder.known(&request) else { return next.run(request).await };
    let (mut parts, body) = request.into_parts();
    let entry = recorder.entry(known, &mut parts).await;
    let answer = next.run(Request::from_parts(parts, body));
    let response = audit::during(entry.clone(), answer).await;
    recorder.settle(known, entry, response).await
}

/// Tells the entry which thing the answer names.
async fn named(known: &Known, entry: &Entry, response: Response) -> Response {
    if HttpBody::size_hint(response.body()).exact().is_none_or(|size| size > MAX_ANSWER) {
        return response;
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, MAX_ANSWER as usize).await {
        Ok(bytes) => {
            if let Some(id) = serde_json::from_slice(&bytes).ok().and_then(|answer| id_in(&answer, known.id_key)) {
                entry.name(&id);
            }
            Response::from_parts(parts, Body::from(bytes))
        }
        Err(error) => ApiError(Error::internal(error)).into_response(),
    }
}

/// The id in an answer: at its root, or in an object at its root.
fn id_in(answer: &Value, key: &str) -> Option<String> {
    let root = answer.as_object()?;
    let below = || root.values().find_map(|value| value.as_object()?.get(key)?.as_str());
    root.get(key).and_then(Value::as_str).or_else(below).map(short)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| short(value))
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
