//! The OpenAPI document: what every operation shares is added here, once, and the pages that show it are served.

use crate::{error::ErrorResponse, metrics};
use axum::{Router, http::header, response::IntoResponse, routing::get};
use std::collections::BTreeSet;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Required, ResponseBuilder,
    path::{Operation, ParameterBuilder, ParameterIn, PathItem},
    schema::{KnownFormat, SchemaFormat, SchemaType, Type},
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Longest name that programs which make tools of operations take.
const MAX_OPERATION_ID: usize = 64;

/// What a refusal with each status means.
const FAULTS: [(&str, &str, &str); 15] = [
    ("400", "BadRequest", "The request cannot be read."),
    ("401", "Unauthorized", "The API key is missing, wrong, expired or revoked."),
    ("403", "Forbidden", "The API key may not do this."),
    ("404", "NotFound", "Something that was named does not exist."),
    ("408", "Slow", "The body came too slowly; send it again."),
    ("409", "Conflict", "The present state forbids it: a name is taken, or something still needs the thing."),
    ("413", "TooLarge", "The body or a file is too large."),
    ("415", "MediaType", "The body is of a media type that is not taken here."),
    ("422", "Invalid", "A field is not what it must be; `error.details.validation_errors` says which."),
    ("429", "Busy", "Too much at once; `Retry-After` says when to try again."),
    ("500", "Internal", "A fault of the server; the log names it under the request id."),
    ("502", "Provider", "A provider of models failed; the message says what it said."),
    ("503", "Unavailable", "Something the server needs is missing; the message says how to get it."),
    ("504", "Timeout", "The answer took too long; ask for less at once."),
    ("507", "Full", "The disk is full; nothing was written."),
];

/// Who may call a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Public,
    Key,
    /// With a key, inside one namespace.
    Namespace,
}

fn access(path: &str) -> Access {
    let path = path.strip_prefix("/v1/").unwrap_or(path);
    let first = path.split('/').next().unwrap_or_default();
    match first {
        "health" if path == "health/deep" => Access::Key,
        "discovery" | "health" | "public" | "blobs" => Access::Public,
        _ if path.starts_with("collections/features") || path == "retrievers/stages" => Access::Public,
        "me" | "models" | "organizations" | "namespaces" => Access::Key,
        _ => Access::Namespace,
    }
}

/// The document's frame, without paths.
pub(crate) fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Strata")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("A self-hosted multimodal document engine. Objects go into buckets, collections make documents of them, retrievers answer from documents."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key.")).build();
    let mut components = ComponentsBuilder::new().schema_from::<ErrorResponse>();
    components = components.schema_from::<crate::error::ErrorDetail>();
    for (_, name, meaning) in FAULTS {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorResponse"))).build();
        components =
            components.response(name, ResponseBuilder::new().description(meaning).content("application/json", content));
    }
    let mut components = components.build();
    components.security_schemes.insert("bearer".into(), SecurityScheme::Http(bearer));
    OpenApiBuilder::new().info(info).components(Some(components)).build()
}

/// Adds to every operation what all of them share: a unique `operationId`, the refusals, the key, the namespace header.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    let mut names = BTreeSet::new();
    for (path, item) in &mut document.paths.paths {
        let access = access(path);
        for (method, operation) in operations(item) {
            let function = operation.operation_id.take().unwrap_or_default();
            let id = operation_id(&function, path, method, &names);
            names.insert(id.clone());
            operation.operation_id = Some(id);
            for (status, name, _) in FAULTS {
                let reference = RefOr::Ref(Ref::from_response_name(name));
                operation.responses.responses.entry(status.into()).or_insert(reference);
            }
            if access == Access::Public {
                operation.security = Some(Vec::new());
            } else {
                operation.security.get_or_insert_with(|| vec![SecurityRequirement::new::<_, _, String>("bearer", [])]);
            }
            if access == Access::Namespace {
                name_namespace(operation);
            }
        }
    }
    document
}

fn name_namespace(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
    let parameter = ParameterBuilder::new()
        .name("X-Namespace")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Id or name of the namespace. May be left out by a key that can enter only one."))
        .schema(Some(text))
        .build();
    operation.parameters.get_or_insert_default().push(parameter);
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let all = [
        ("get", &mut item.get),
        ("post", &mut item.post),
        ("put", &mut item.put),
        ("patch", &mut item.patch),
        ("delete", &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

/// `create_bucket_v1_buckets_post`: function, path without parameters, method; shortened to fit, numbered if taken.
fn operation_id(function: &str, path: &str, method: &str, taken: &BTreeSet<String>) -> String {
    let mut segments: Vec<String> = path
        .split('/')
        .filter(|segment| !segment.is_empty() && !segment.starts_with('{'))
        .map(|segment| segment.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
        .collect();
    let join = |segments: &[String]| format!("{function}_{}_{method}", segments.join("_"));
    // Room for a number at the end; the first segments say the least.
    while segments.len() > 1 && join(&segments).len() > MAX_OPERATION_ID - 3 {
        segments.remove(0);
    }
    let mut base = join(&segments);
    base.truncate(MAX_OPERATION_ID - 3);
    let numbered = (2..).map(|n| format!("{base}_{n}"));
    let mut candidates = std::iter::once(base.clone()).chain(numbered);
    candidates.find(|id| !taken.contains(id)).expect("numbers do not run out")
}

/// The document, the page that shows it, and the metrics.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>(document: &OpenApi) -> Router<S> {
    let text = document.to_json().expect("an OpenAPI document is representable as JSON");
    let text = bytes::Bytes::from(text);
    let show = move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text).into_response() }
    };
    let numbers = || async { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render().await) };
    Router::new()
        .route("/openapi.json", get(show.clone()))
        .route("/docs/openapi.json", get(show))
        .route("/metrics", get(numbers))
        .merge(SwaggerUi::new("/docs").config(Config::new(["/openapi.json"])))
}

/// The schema of a free JSON object.
pub fn any_object() -> utoipa::openapi::schema::Object {
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::Object)).build()
}

/// The schema of a free JSON object or null.
pub fn maybe_object() -> utoipa::openapi::schema::Object {
    ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::Object, Type::Null])).build()
}

/// The schema of a time: RFC 3339 text.
pub fn time() -> utoipa::openapi::schema::Object {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).format(Some(format)).build()
}

/// The schema of a time or null.
pub fn maybe_time() -> utoipa::openapi::schema::Object {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Null])).format(Some(format)).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_ids_fit_tools_and_differ() {
        let mut taken = BTreeSet::new();
        assert_eq!(operation_id("create_bucket", "/v1/buckets", "post", &taken), "create_bucket_v1_buckets_post");
        let long = "/v1/organizations/users/{user_email}/api-keys/{key_name}/rotate/again-and-again";
        for _ in 0..3 {
            let id = operation_id("rotate_key_of_a_user", long, "post", &taken);
            assert!(id.len() <= MAX_OPERATION_ID, "{id}");
            assert!(taken.insert(id));
        }
    }

    #[test]
    fn the_document_says_what_every_operation_shares() {
        let document = serde_json::to_value(crate::openapi()).unwrap();
        assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        let me = &document["paths"]["/v1/me"]["get"];
        assert_eq!(me["security"][0]["bearer"], serde_json::json!([]));
        assert_eq!(me["responses"]["507"]["$ref"], "#/components/responses/Full");
        let events = &document["paths"]["/v1/events"]["get"]["parameters"];
        assert!(events.as_array().unwrap().iter().any(|p| p["name"] == "X-Namespace"), "{events}");
        assert_eq!(document["paths"]["/v1/health"]["get"]["security"], serde_json::json!([]));
    }
}
