//! Floor 3: the HTTP API. One module per resource holds its handlers, its wire types and the mapping between these and
//! the engine's values; the rest of the crate is what they share: who asks, how bodies are read, how lists are paged, how
//! errors are answered.
//!
//! This crate decides nothing about documents, and the engine below it knows no HTTP.

mod audit;
mod error;
mod extract;
mod load;
mod metrics;
mod middleware;
mod openapi;
mod paging;
mod serve;

pub use load::Bounds;
pub use serve::{Serving, Tls, serve};

use axum::{Router, extract::Request, http::Uri, middleware::from_fn_with_state};
use std::{collections::HashSet, sync::Arc};
use strata_engine::Engine;
use tower::util::MapRequest;
use utoipa_axum::router::OpenApiRouter;

/// What every handler can take as its `State`.
pub(crate) type App = Arc<Engine>;

/// Declares the modules of the resources; each has `pub fn routes() -> OpenApiRouter<App>`.
macro_rules! resources {
    ($($module:ident),* $(,)?) => {
        $(mod $module;)*

        fn resources() -> OpenApiRouter<App> {
            OpenApiRouter::with_openapi(openapi::frame())$(.merge($module::routes()))*
        }
    };
}

resources![
    annotations,
    batches,
    blobs,
    buckets,
    clones,
    collections,
    discovery,
    documents,
    evaluations,
    events,
    features,
    health,
    inference,
    lineage,
    me,
    migrations,
    models,
    namespaces,
    objects,
    organizations,
    published,
    retrievers,
    search,
    snapshots,
    standalone,
    tasks,
    uploads,
];

/// The OpenAPI document of everything that is served.
pub fn openapi() -> utoipa::openapi::OpenApi {
    openapi::complete(resources().split_for_parts().1)
}

/// Everything that is served: the API under `/v1` and without that prefix, the OpenAPI document, its page, the metrics.
pub fn router(engine: Arc<Engine>, bounds: Bounds) -> Router {
    metrics::handle();
    let (routes, document) = resources().split_for_parts();
    let document = openapi::complete(document);
    let heads: HashSet<String> = document
        .paths
        .paths
        .keys()
        .filter_map(|path| path.strip_prefix("/v1/")?.split('/').next().map(str::to_owned))
        .collect();
    let recorder = audit::Recorder::new(engine.clone(), &document);
    let gate = Arc::new(load::Gate::new(engine.clone(), bounds));
    let app =
        routes.merge(openapi::pages(&document)).merge(published::short_links()).fallback(not_found).with_state(engine);
    // What the gate does not let in changes nothing.
    let app = app.layer(from_fn_with_state(recorder, audit::record)).layer(from_fn_with_state(gate, load::pass));
    let app = middleware::around(app);
    Router::new().fallback_service(MapRequest::new(app, move |request| canonical(request, &heads)))
}

async fn not_found(method: axum::http::Method, uri: Uri) -> axum::response::Response {
    let message = format!("there is no `{method} {}`; `/openapi.json` lists what there is", uri.path());
    error::bare(axum::http::StatusCode::NOT_FOUND, message)
}

/// The request under the path its route has: with `/v1` before the API's own paths, and without a slash at their end.
fn canonical(mut request: Request, heads: &HashSet<String>) -> Request {
    let path = request.uri().path();
    let (has_prefix, rest) = match path.strip_prefix("/v1/") {
        Some(rest) => (true, rest),
        None => (false, path.trim_start_matches('/')),
    };
    let head = rest.split('/').next().unwrap_or_default();
    if !heads.contains(head) || (has_prefix && !path.ends_with('/')) {
        return request;
    }
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    if let Ok(uri) = format!("/v1/{}{query}", rest.trim_end_matches('/')).parse::<Uri>() {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn paths_of_the_api_are_served_without_their_prefix_and_with_a_slash() {
        let heads = HashSet::from(["buckets".to_owned()]);
        for (sent, meant) in [
            ("/v1/buckets", "/v1/buckets"),
            ("/v1/buckets/", "/v1/buckets"),
            ("/buckets/a?x=1", "/v1/buckets/a?x=1"),
            ("/buckets/?x=1", "/v1/buckets?x=1"),
            ("/docs/", "/docs/"),
            ("/studio/a", "/studio/a"),
            ("/", "/"),
        ] {
            let request = Request::get(sent).body(Body::empty()).unwrap();
            assert_eq!(canonical(request, &heads).uri().to_string(), meant);
        }
    }
}
