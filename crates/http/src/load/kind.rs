//! What a request is, by method and route: which places it takes, and as what it is counted.

use axum::http::Method;
use strata_model::rates::Group;

/// Requests that share places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Reads,
    Writes,
    /// Whatever asks models or the index.
    Searches,
    /// Whatever takes as long as its bytes, or as the server that they are fetched from.
    Uploads,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Searches => "searches",
            Self::Uploads => "uploads",
        }
    }
}

/// Last segments of paths that are posted to and change nothing.
const READ_BY_POST: [&str; 8] =
    ["list", "aggregate", "distinct", "batch-get", "validate", "estimate-cost", "verify", "score"];
/// Last segments of paths that begin work.
const BEGIN_WORK: [&str; 9] = [
    "submit",
    "submit-all",
    "bulk-submit",
    "resubmit",
    "retry",
    "heal",
    "trigger",
    "deploy",
    "generate-from-interactions",
];
/// Last segments of paths that look for something, besides executions of retrievers.
const LOOK: [&str; 3] = ["search", "explain", "typeahead"];

fn segments(route: &str) -> impl Iterator<Item = &str> {
    route.strip_prefix("/v1/").unwrap_or(route).split('/')
}

fn last(route: &str) -> &str {
    route.rsplit('/').next().unwrap_or_default()
}

/// As what a request is counted.
pub(crate) fn group(method: &Method, route: &str) -> Group {
    let has = |name: &str| segments(route).any(|segment| segment == name);
    let (first, last, posts) = (segments(route).next().unwrap_or_default(), last(route), method == Method::POST);
    if has("execute") || LOOK.contains(&last) {
        return Group::Search;
    }
    if first == "inference" || (posts && (has("evaluations") || has("benchmarks") || BEGIN_WORK.contains(&last))) {
        return Group::Compute;
    }
    if first == "blobs" || has("uploads") || (posts && (last == "objects" || route.ends_with("/objects/batch"))) {
        return Group::Upload;
    }
    let data = ["documents", "objects", "batches", "tasks", "annotations", "interactions", "events", "executions"];
    if data.into_iter().any(has) { Group::Data } else { Group::Metadata }
}

/// Which places a request takes; none where it must always be answered, or is answered from memory.
pub(crate) fn class(method: &Method, route: &str) -> Option<Class> {
    if !route.starts_with("/v1/") || route.starts_with("/v1/health") {
        return None;
    }
    let is_read = *method == Method::GET
        || *method == Method::HEAD
        || READ_BY_POST.contains(&last(route))
        || route.ends_with("/list/batch");
    Some(match group(method, route) {
        Group::Search => Class::Searches,
        Group::Compute if route.starts_with("/v1/inference") => Class::Searches,
        Group::Upload if !is_read || route.starts_with("/v1/blobs") => Class::Uploads,
        _ if route.ends_with("/documents/upsert") => Class::Uploads,
        _ if is_read => Class::Reads,
        _ => Class::Writes,
    })
}

/// Whether a request adds to what is stored. What deletes or stops something goes on while the disk is full.
pub(crate) fn adds(method: &Method, route: &str, class: Class) -> bool {
    matches!(class, Class::Writes | Class::Uploads)
        && [Method::POST, Method::PUT, Method::PATCH].contains(method)
        && !["cancel", "bulk-soft-delete"].contains(&last(route))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_as_what_they_do() {
        for (method, route, counted, placed) in [
            (Method::GET, "/v1/buckets", Group::Metadata, Class::Reads),
            (Method::POST, "/v1/collections/list", Group::Metadata, Class::Reads),
            (Method::POST, "/v1/collections", Group::Metadata, Class::Writes),
            (Method::POST, "/v1/collections/{c}/documents", Group::Data, Class::Writes),
            (Method::POST, "/v1/documents/list/batch", Group::Data, Class::Reads),
            (Method::POST, "/v1/retrievers/{retriever_id}/execute/batch", Group::Search, Class::Searches),
            (Method::GET, "/v1/retrievers/{retriever_id}/executions", Group::Data, Class::Reads),
            (Method::POST, "/v1/public/retrievers/{public_name}/execute", Group::Search, Class::Searches),
            (Method::POST, "/v1/buckets/{b}/objects", Group::Upload, Class::Uploads),
            (Method::POST, "/v1/buckets/{b}/objects/list", Group::Data, Class::Reads),
            (Method::PUT, "/v1/blobs/{token}", Group::Upload, Class::Uploads),
            (Method::GET, "/v1/blobs/{token}", Group::Upload, Class::Uploads),
            (Method::POST, "/v1/buckets/{b}/uploads/list", Group::Upload, Class::Reads),
            (Method::POST, "/v1/buckets/{b}/batches/{batch_id}/submit", Group::Compute, Class::Writes),
            (Method::POST, "/v1/inference", Group::Compute, Class::Searches),
        ] {
            assert_eq!((group(&method, route), class(&method, route)), (counted, Some(placed)), "{method} {route}");
        }
        for route in ["/v1/health", "/v1/health/liveness", "/metrics", "/docs", "/openapi.json", "unmatched"] {
            assert_eq!(class(&Method::GET, route), None, "{route}");
        }
    }

    #[test]
    fn a_full_disk_stops_what_adds_and_nothing_else() {
        let adds = |method: Method, route: &str| adds(&method, route, class(&method, route).unwrap());
        assert!(adds(Method::POST, "/v1/buckets/{b}/objects") && adds(Method::PUT, "/v1/blobs/{token}"));
        assert!(!adds(Method::DELETE, "/v1/buckets/{b}/objects/{o}") && !adds(Method::GET, "/v1/buckets"));
        assert!(!adds(Method::POST, "/v1/batches/{batch_id}/cancel") && !adds(Method::POST, "/v1/buckets/list"));
    }
}
