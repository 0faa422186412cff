//! What operations are called in the audit log. It follows from method and path, so that a new operation is logged
//! before anybody thinks of it; what reads is listed, and so are the names that do not follow.

use axum::http::Method;
use std::sync::Arc;
use strata_engine::audit::Operation;
use strata_model::id;

/// What leaves an event, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Always.
    Change,
    /// A read of secrets: always.
    Secret,
    /// Where the organization has reads logged.
    Read,
}

/// An operation as the log knows it.
#[derive(Debug)]
pub(super) struct Known {
    pub operation: Arc<Operation>,
    pub kind: Kind,
    /// The parameters of the path that name the resource and what it lies in, the innermost first.
    pub parameters: Vec<String>,
    /// Whether the first of them is the resource itself, and no other is made from it.
    pub is_named: bool,
    /// The key under which an answer has the id, and what ids begin with.
    pub id_key: &'static str,
    pub id_prefix: &'static str,
}

/// A part of a path that is a kind of resource.
struct Noun {
    segment: &'static str,
    resource_type: &'static str,
    id_key: &'static str,
    id_prefix: &'static str,
}

const fn noun(
    segment: &'static str,
    resource_type: &'static str,
    id_key: &'static str,
    id_prefix: &'static str,
) -> Noun {
    Noun { segment, resource_type, id_key, id_prefix }
}

static NOUNS: [Noun; 34] = [
    noun("organizations", "organization", "organization_id", id::ORGANIZATION),
    noun("users", "user", "user_id", id::USER),
    noun("api-keys", "api_key", "key_id", id::KEY),
    noun("secrets", "secret", "secret_name", ""),
    noun("signing-keys", "signing_key", "key_id", ""),
    noun("connections", "storage_connection", "connection_id", id::CONNECTION),
    noun("dsar", "dsar_request", "request_id", "dsar_"),
    noun("namespaces", "namespace", "namespace_id", id::NAMESPACE),
    noun("buckets", "bucket", "bucket_id", id::BUCKET),
    noun("objects", "object", "object_id", id::OBJECT),
    noun("uploads", "upload", "upload_id", id::UPLOAD),
    noun("batches", "batch", "batch_id", id::BATCH),
    noun("tasks", "task", "task_id", id::TASK),
    noun("collections", "collection", "collection_id", id::COLLECTION),
    noun("documents", "document", "document_id", id::DOCUMENT),
    noun("retrievers", "retriever", "retriever_id", id::RETRIEVER),
    noun("interactions", "interaction", "interaction_id", id::INTERACTION),
    noun("annotations", "annotation", "annotation_id", id::ANNOTATION),
    noun("evaluations", "evaluation", "evaluation_id", id::EVALUATION),
    noun("datasets", "evaluation_dataset", "dataset_id", id::DATASET),
    noun("benchmarks", "benchmark", "benchmark_id", id::BENCHMARK),
    noun("models", "model", "model_id", id::MODEL),
    noun("extractors", "extractor", "extractor_id", id::EXTRACTOR),
    noun("clusters", "cluster", "cluster_id", "clust_"),
    noun("taxonomies", "taxonomy", "taxonomy_id", "tax_"),
    noun("alerts", "alert", "alert_id", "alt_"),
    noun("webhooks", "webhook", "webhook_id", "wh_"),
    noun("triggers", "trigger", "trigger_id", ""),
    noun("syncs", "sync", "sync_config_id", "sync_"),
    noun("snapshots", "snapshot", "snapshot_id", "snap_"),
    noun("migrations", "migration", "migration_id", "mig_"),
    noun("templates", "template", "template_id", "tmpl_"),
    noun("sessions", "session", "session_id", "ses_"),
    noun("notifications", "notification", "notification_id", ""),
];

/// Parts of a path whose `POST` reads.
const READS: [&str; 30] = [
    "aggregate",
    "analyze-tuning",
    "batch-count",
    "batch-get",
    "compare",
    "count",
    "detect",
    "diagnose",
    "diff",
    "distinct",
    "dlq",
    "estimate-cost",
    "explain",
    "facets",
    "group",
    "history",
    "infer",
    "inference",
    "intersect",
    "lint",
    "list",
    "preview",
    "resolve",
    "score",
    "search",
    "stats",
    "tree",
    "typeahead",
    "validate",
    "validate-mapping",
];
/// What is executed to read.
const QUERIED: [&str; 2] = ["/v1/retrievers/", "/v1/taxonomies/"];

/// Actions that do not follow from the path.
const ACTIONS: [(&str, &str, &str); 21] = [
    ("DELETE", "/v1/organizations/users/{user_email}/api-keys/{key_name}", "api_key_revoked"),
    ("DELETE", "/v1/retrievers/{retriever_id}/api-keys/{key_id}", "api_key_revoked"),
    ("DELETE", "/v1/retrievers/{retriever_id}/publish", "retriever_unpublished"),
    ("DELETE", "/v1/tasks/{task_id}", "task_canceled"),
    ("PATCH", "/v1/organizations/audit/settings", "audit_settings_updated"),
    ("PATCH", "/v1/organizations/users/{user_email}/api-keys/{key_name}", "api_key_scope_updated"),
    ("PATCH", "/v1/collections/{collection_identifier}/documents/{document_id}/acl", "permission_updated"),
    ("POST", "/v1/annotations/bulk", "annotation_bulk_updated"),
    ("POST", "/v1/buckets/{bucket_identifier}/batches/bulk-submit", "batch_submitted"),
    ("POST", "/v1/buckets/{bucket_identifier}/batches/submit-all", "batch_submitted"),
    ("POST", "/v1/buckets/{bucket_identifier}/batches/{batch_id}/objects", "batch_updated"),
    ("POST", "/v1/buckets/{bucket_identifier}/objects/bulk-soft-delete", "document_bulk_soft_deleted"),
    ("POST", "/v1/buckets/{bucket_identifier}/uploads/confirm/batch", "upload_confirmed"),
    ("POST", "/v1/collections/{collection_identifier}/documents/batch", "document_updated"),
    ("POST", "/v1/collections/{collection_id}/sync-schema", "collection_updated"),
    ("POST", "/v1/namespaces/standalone", "namespace_created"),
    ("POST", "/v1/namespaces/{namespace_identifier}/ensure-indexes", "namespace_updated"),
    ("POST", "/v1/organizations/dsar/delete", "data_deletion_requested"),
    ("POST", "/v1/organizations/dsar/export", "data_export_requested"),
    ("POST", "/v1/retrievers/{retriever_id}/evaluations/generate-from-interactions", "evaluation_dataset_created"),
    ("POST", "/v1/retrievers/{retriever_id}/publish/reconcile", "retriever_updated"),
];
/// Words behind a resource that say how many are meant, and not what is done.
const AMOUNTS: [&str; 2] = ["batch", "bulk"];
/// Words behind a resource for making another one.
const COPIES: [&str; 2] = ["clone", "instantiate"];

/// What the log says of an operation; `None` for one that nobody with a key calls.
pub(super) fn describe(method: &Method, path: &str, operation_id: &str) -> Option<Known> {
    let rest = path.strip_prefix("/v1/")?;
    let is_unheard = ["public/", "blobs/", "health", "discovery"].iter().any(|head| rest.starts_with(head));
    if is_unheard || method == Method::HEAD || method == Method::OPTIONS {
        return None;
    }
    let mut about = &NOUNS[0];
    let mut parameters: Vec<String> = Vec::new();
    let mut is_named = false;
    let mut tail: Vec<&str> = Vec::new();
    for segment in rest.split('/') {
        let parameter = segment.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
        match (parameter, NOUNS.iter().find(|noun| noun.segment == segment)) {
            // Behind another word it is a part of the resource.
            (Some(name), _) if tail.is_empty() => {
                parameters.insert(0, name.to_owned());
                is_named = true;
            }
            (Some(_), _) => {}
            (None, Some(noun)) => {
                (about, is_named) = (noun, false);
                tail.clear();
            }
            (None, None) => tail.push(segment),
        }
    }
    let kind = kind(method, path);
    let last = tail.last().copied().filter(|word| !AMOUNTS.contains(word));
    let operation = Operation {
        operation_id: operation_id.to_owned(),
        method: method.to_string(),
        path: path.to_owned(),
        action: action(method, path, kind, about.resource_type, last),
        resource_type: about.resource_type.to_owned(),
    };
    Some(Known {
        operation: Arc::new(operation),
        kind,
        parameters,
        is_named: is_named && !last.is_some_and(|word| COPIES.contains(&word)),
        id_key: about.id_key,
        id_prefix: about.id_prefix,
    })
}

fn kind(method: &Method, path: &str) -> Kind {
    let words = || path.split('/').filter(|segment| !segment.starts_with('{'));
    let executes = || words().any(|word| word == "execute") && QUERIED.iter().any(|head| path.starts_with(head));
    let is_read = match *method {
        Method::GET => true,
        Method::POST => words().any(|word| READS.contains(&word)) || executes(),
        _ => false,
    };
    match is_read {
        true if path.starts_with("/v1/organizations/secrets") => Kind::Secret,
        true => Kind::Read,
        false => Kind::Change,
    }
}

fn action(method: &Method, path: &str, kind: Kind, resource_type: &str, last: Option<&str>) -> String {
    if kind != Kind::Change {
        let is_query = path.starts_with("/v1/retrievers/") && path.contains("/execute");
        return format!("{resource_type}_{}", if is_query { "queried" } else { "accessed" });
    }
    let known = ACTIONS.iter().find(|(of, at, _)| *of == method.as_str() && *at == path);
    if let Some((_, _, action)) = known {
        return (*action).to_owned();
    }
    let verb = match *method {
        Method::POST => last.map_or_else(|| "created".to_owned(), past),
        Method::DELETE => "deleted".to_owned(),
        _ => "updated".to_owned(),
    };
    format!("{resource_type}_{verb}")
}

/// What was done by a word for doing it.
fn past(word: &str) -> String {
    let word = word.replace('-', "_");
    match word.as_str() {
        "submit" | "resubmit" => format!("{word}ted"),
        _ if word.ends_with('e') => format!("{word}d"),
        _ => match word.strip_suffix("ry") {
            Some(stem) => format!("{stem}ried"),
            None => format!("{word}ed"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(method: Method, path: &str) -> Known {
        describe(&method, path, "op").unwrap()
    }

    #[test]
    fn actions_have_the_names_of_the_contract() {
        for (method, path, action) in [
            (Method::POST, "/v1/buckets", "bucket_created"),
            (Method::PATCH, "/v1/collections/{collection_identifier}", "collection_updated"),
            (Method::DELETE, "/v1/collections/{collection_identifier}/documents/{document_id}", "document_deleted"),
            (Method::DELETE, "/v1/collections/{collection_identifier}/documents/batch", "document_deleted"),
            (Method::POST, "/v1/organizations/connections/{connection_identifier}/test", "storage_connection_tested"),
            (Method::POST, "/v1/organizations/users/{user_email}/api-keys/{key_name}/rotate", "api_key_rotated"),
            (Method::POST, "/v1/organizations/signing-keys/rotate", "signing_key_rotated"),
            (Method::POST, "/v1/clusters/{cluster_id}/execute", "cluster_executed"),
            (Method::POST, "/v1/retrievers/{retriever_id}/execute", "retriever_queried"),
            (Method::GET, "/v1/organizations/secrets", "secret_accessed"),
            (Method::POST, "/v1/buckets/{bucket_identifier}/batches/{batch_id}/submit", "batch_submitted"),
            (Method::POST, "/v1/buckets/{bucket_identifier}/batches/{batch_id}/retry", "batch_retried"),
            (Method::POST, "/v1/buckets/{bucket_identifier}/objects/batch", "object_created"),
        ] {
            assert_eq!(known(method, path).operation.action, action, "{path}");
        }
    }

    #[test]
    fn reads_are_told_from_changes() {
        for path in [
            "/v1/buckets/list",
            "/v1/retrievers/execute",
            "/v1/documents/list/batch",
            "/v1/collections/{collection_identifier}/documents/aggregate",
        ] {
            assert_eq!(known(Method::POST, path).kind, Kind::Read, "{path}");
        }
        for path in ["/v1/buckets", "/v1/triggers/{trigger_id}/execute", "/v1/retrievers/{retriever_id}/evaluations"] {
            assert_eq!(known(Method::POST, path).kind, Kind::Change, "{path}");
        }
        assert_eq!(known(Method::GET, "/v1/organizations/secrets").kind, Kind::Secret);
        assert!(describe(&Method::PUT, "/v1/blobs/{token}", "op").is_none(), "its parameter is a credential");
    }

    #[test]
    fn the_innermost_parameter_names_the_resource() {
        let path = "/v1/buckets/{bucket_identifier}/batches/{batch_id}/tiers/{tier_num}/cancel";
        let tier = known(Method::POST, path);
        assert_eq!((tier.parameters[0].as_str(), tier.is_named), ("batch_id", true));
        let made = known(Method::POST, "/v1/collections/{collection_identifier}/documents");
        assert_eq!((made.parameters[0].as_str(), made.is_named), ("collection_identifier", false));
        assert_eq!(made.id_key, "document_id");
        assert!(!known(Method::POST, "/v1/retrievers/{retriever_id}/clone").is_named);
    }
}
