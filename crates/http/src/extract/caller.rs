//! Who asks, and for which namespace.

use crate::{App, error::ApiError, load};
use axum::{
    extract::{FromRequestParts, MatchedPath},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    response::{IntoResponse, Response},
};
use strata_engine::audit;
use strata_model::{Error, OnlyRetriever, Permission, Principal, Scope};

pub(crate) const NAMESPACE: HeaderName = HeaderName::from_static("x-namespace");
/// What older documentation calls [`NAMESPACE`].
const NAMESPACE_ID: HeaderName = HeaderName::from_static("x-namespace-id");
/// Set to the name that did not resolve.
pub(crate) const UNRESOLVED: HeaderName = HeaderName::from_static("x-namespace-unresolved");

/// The holder of a valid key.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl Caller {
    /// 403 unless the key may do this.
    pub fn may(&self, permission: Permission) -> Result<(), ApiError> {
        may(&self.0, permission)
    }

    /// 403 unless the key may do this and is not limited to some namespaces: for what belongs to the whole organization.
    pub fn may_in_organization(&self, permission: Permission) -> Result<(), ApiError> {
        self.may(permission)?;
        match &self.0.namespaces {
            None => Ok(()),
            Some(_) => Err(ApiError(Error::Forbidden(
                "this key is limited to its namespaces; use one of the whole organization".into(),
            ))),
        }
    }
}

/// The holder of a valid key, inside one namespace.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub principal: Principal,
    pub scope: Scope,
}

impl Tenant {
    /// 403 unless the key may do this.
    pub fn may(&self, permission: Permission) -> Result<(), ApiError> {
        may(&self.principal, permission)
    }
}

fn may(principal: &Principal, permission: Permission) -> Result<(), ApiError> {
    if principal.may(permission) {
        return Ok(());
    }
    let word = match permission {
        Permission::Read => "read",
        Permission::Write => "write",
        Permission::Delete => "delete",
        Permission::Admin => "admin",
    };
    Err(ApiError(Error::Forbidden(format!("this key may not do this; it needs the permission `{word}`"))))
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let secret = secret(&parts.headers)?;
        let principal = app.authenticate(secret).await?;
        audit::caller(&principal);
        load::count(app, parts, &principal)?;
        if let Some(only) = &principal.only {
            check_only(only, parts)?;
        }
        Ok(Self(principal))
    }
}

impl FromRequestParts<App> for Tenant {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let Caller(principal) = Caller::from_request_parts(parts, app).await.map_err(IntoResponse::into_response)?;
        let named = named_namespace(&parts.headers).map_err(IntoResponse::into_response)?;
        match app.scope(&principal, named).await {
            Ok(scope) => {
                audit::within(&scope.namespace_id);
                Ok(Self { principal, scope })
            }
            Err(error) => {
                let is_missing = matches!(error, Error::Missing { .. });
                let mut response = ApiError(error).into_response();
                if let Some(name) = named.filter(|_| is_missing).and_then(|name| HeaderValue::from_str(name).ok()) {
                    response.headers_mut().insert(UNRESOLVED, name);
                }
                Err(response)
            }
        }
    }
}

/// What a key that is for one retriever may call, of that retriever; and nothing else that needs a key.
const OF_ITS_RETRIEVER: [(Method, &str); 5] = [
    (Method::GET, "/v1/retrievers/{retriever_id}"),
    (Method::POST, "/v1/retrievers/{retriever_id}/execute"),
    (Method::POST, "/v1/retrievers/{retriever_id}/execute/batch"),
    (Method::POST, "/v1/retrievers/{retriever_id}/execute/explain"),
    (Method::POST, "/v1/retrievers/{retriever_id}/explain"),
];
/// What any key may call.
const WHOAMI: &str = "/v1/me";

/// Refuses a key that is for one retriever wherever it is not about that one. Every handler that needs a key gets its
/// caller here, so what is not listed above is refused, new operations too.
fn check_only(only: &OnlyRetriever, parts: &Parts) -> Result<(), ApiError> {
    let origin = parts.headers.get(header::ORIGIN).map(|origin| String::from_utf8_lossy(origin.as_bytes()));
    if !only.takes_origin(origin.as_deref()) {
        return Err(ApiError(Error::Forbidden("this key may not be sent from this origin".into())));
    }
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let is_its = OF_ITS_RETRIEVER.iter().any(|(method, path)| method == parts.method && *path == route)
        && parts.uri.path().split('/').nth(3) == Some(only.retriever_id.as_str());
    if is_its || (parts.method == Method::GET && route == WHOAMI) {
        return Ok(());
    }
    Err(ApiError(Error::Forbidden(format!(
        "this key is for the retriever `{}`: it executes, explains and reads that one, by its id, and nothing else",
        only.retriever_id
    ))))
}

fn secret(headers: &HeaderMap) -> Result<&str, ApiError> {
    let wrong = |message: &str| ApiError(Error::Unauthenticated(message.into()));
    let value = headers.get(header::AUTHORIZATION);
    let value = value.ok_or_else(|| wrong("no API key was sent; send the header `Authorization: Bearer <key>`"))?;
    let text = value.to_str().map_err(|_| wrong("the header `Authorization` is not text"))?.trim();
    let secret = match text.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => secret.trim(),
        Some(_) => return Err(wrong("only `Authorization: Bearer <key>` is understood")),
        None if text.eq_ignore_ascii_case("bearer") => "",
        None => text,
    };
    if secret.is_empty() { Err(wrong("the API key is empty")) } else { Ok(secret) }
}

/// What the request calls its namespace, if it does.
pub(crate) fn named_namespace(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let value = [NAMESPACE, NAMESPACE_ID].iter().find_map(|name| headers.get(name));
    let Some(value) = value else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| ApiError(Error::Malformed("the header `X-Namespace` is not UTF-8".into())))?.trim();
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: &'static str) -> Result<String, ApiError> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))]);
        secret(&headers).map(str::to_owned)
    }

    #[test]
    fn a_key_is_read_from_a_bearer_header() {
        assert_eq!(sent("Bearer sk_1").unwrap(), "sk_1");
        assert_eq!(sent("bearer  sk_1 ").unwrap(), "sk_1");
        for wrong in ["Bearer ", "Bearer", "Basic abc", ""] {
            assert!(matches!(sent(wrong), Err(ApiError(Error::Unauthenticated(_)))), "{wrong:?}");
        }
    }

    #[test]
    fn the_newer_namespace_header_wins() {
        let mut headers = HeaderMap::from_iter([(NAMESPACE_ID, HeaderValue::from_static("old"))]);
        assert_eq!(named_namespace(&headers).unwrap(), Some("old"));
        headers.insert(NAMESPACE, HeaderValue::from_static(" ns_1 "));
        assert_eq!(named_namespace(&headers).unwrap(), Some("ns_1"));
        headers.insert(NAMESPACE, HeaderValue::from_static(""));
        assert_eq!(named_namespace(&headers).unwrap(), None);
    }
}
