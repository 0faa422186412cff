//! Floor 3: the HTTP API. One module per resource holds its handlers, its wire types and the mapping between these and
//! the engine's values; the rest of the crate is what they share: who asks, how bodies are read, how lists are paged, how
//! errors are answered.
//!
//! This crate decides nothing about documents, and the engine below it knows no HTTP.

mod error;
mod extract;
mod metrics;
mod middleware;
mod openapi;
mod paging;

use axum::{Router, extract::Request, http::Uri};
use std::{collections::HashSet, net::SocketAddr, sync::Arc, time::Duration};
use strata_engine::Engine;
use tokio::net::TcpListener;
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
    models,
    namespaces,
    objects,
    organizations,
    published,
    retrievers,
    search,
    standalone,
    tasks,
    uploads,
];

/// How long open requests may take to finish after the server was asked to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// The OpenAPI document of everything that is served.
pub fn openapi() -> utoipa::openapi::OpenApi {
    openapi::complete(resources().split_for_parts().1)
}

/// Everything that is served: the API under `/v1` and without that prefix, the OpenAPI document, its page, the metrics.
pub fn router(engine: Arc<Engine>) -> Router {
    metrics::handle();
    let (routes, document) = resources().split_for_parts();
    let document = openapi::complete(document);
    let heads: HashSet<String> = document
        .paths
        .paths
        .keys()
        .filter_map(|path| path.strip_prefix("/v1/")?.split('/').next().map(str::to_owned))
        .collect();
    let app =
        routes.merge(openapi::pages(&document)).merge(published::short_links()).fallback(not_found).with_state(engine);
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

/// Serves until `shutdown` ends, then lets open requests finish.
pub async fn serve(
    engine: Arc<Engine>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let upkeep = tokio::spawn(metrics::upkeep());
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let signal = async move {
        shutdown.await;
        // Nobody listens any more where the server has failed already.
        let _ = stopping.send(());
    };
    let serving = axum::serve(listener, router(engine).into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(signal)
        .into_future();
    let too_long = async move {
        match stopped.await {
            Ok(()) => tokio::time::sleep(DRAIN).await,
            Err(_) => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = too_long => {
            tracing::warn!("requests were still open {} seconds after the stop; they are cut off", DRAIN.as_secs());
            Ok(())
        }
    };
    upkeep.abort();
    outcome
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
