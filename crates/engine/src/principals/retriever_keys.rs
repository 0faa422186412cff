//! Keys that are for one retriever: they execute it and do nothing else, so that a program or a web page may hold one.

use super::keys::{self, ACTIVE, Secret};
use super::{micros, without_nulls};
use crate::{Engine, principals::check_name, times};
use serde_json::{Value, json};
use strata_model::{Error, Fields, Permission, Principal, Result, Scope, id};
use strata_store::catalog::{
    principals::{self, ApiKey},
    resources::{self, Kind},
    rusqlite::Transaction,
};

const SECRET_PREFIX: &str = "ret_sk_";
const SECRET_LENGTH: usize = 53;
/// Key of a key's body: the origins that may send it.
const ORIGINS: &str = "allowed_origins";
/// Most origins of one key.
const MAX_ORIGINS: usize = 50;
/// Longest origin, in bytes.
const MAX_ORIGIN_BYTES: usize = 255;
/// Most keys that work at once for one retriever.
const MAX_KEYS: usize = 100;

#[derive(Debug, Clone)]
pub struct NewRetrieverKey {
    pub name: String,
    pub description: Option<String>,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// Empty means that any caller may send it.
    pub allowed_origins: Vec<String>,
}

impl Engine {
    /// The keys of a retriever, oldest first, revoked ones too.
    pub async fn retriever_keys(&self, scope: &Scope, retriever: &str) -> Result<Vec<ApiKey>> {
        let (scope, retriever) = (scope.clone(), retriever.to_owned());
        let read = self.catalog.read(move |connection| {
            let retriever = resources::get(connection, Kind::Retriever, &scope, &retriever)?;
            principals::retriever_keys(connection, &scope.organization_id, &retriever.id)
        });
        read.await
    }

    /// A new key for a retriever, of the caller's user, with its secret.
    pub async fn create_retriever_key(
        &self,
        principal: &Principal,
        scope: &Scope,
        retriever: &str,
        new: NewRetrieverKey,
    ) -> Result<(ApiKey, Secret)> {
        check_name("name", Some(&new.name), 1, 100)?;
        let expires_at = new.expires_at.as_deref().map(|time| times::spelled(time, "expires_at")).transpose()?;
        if expires_at.as_deref().map(micros).transpose()?.is_some_and(|at| at <= self.catalog.now_micros()) {
            return Err(Error::invalid("expires_at", "lies in the past"));
        }
        let origins = checked_origins(&new.allowed_origins)?;
        let secret = self.catalog.new_id(SECRET_PREFIX, SECRET_LENGTH);
        let (now, key_id) = (self.catalog.now(), self.catalog.new_id(id::KEY, 15));
        let (principal, scope, retriever) = (principal.clone(), scope.clone(), retriever.to_owned());
        let hash = id::sha256_hex(secret.as_bytes());
        let prefix = keys::shown_prefix(&secret);
        let write = self.catalog.write(move |tx| {
            let retriever = resources::get(tx, Kind::Retriever, &scope, &retriever)?;
            refuse_too_many(tx, &scope, &retriever.id)?;
            let mut body = without_nulls(Fields::from_iter([
                ("description".to_owned(), json!(new.description)),
                ("created_by".to_owned(), principal.user_id.clone().into()),
            ]));
            if !origins.is_empty() {
                body.insert(ORIGINS.into(), json!(origins));
            }
            let key = ApiKey {
                key_id,
                organization_id: scope.organization_id,
                user_id: principal.user_id,
                name: new.name,
                key_hash: hash,
                key_prefix: prefix,
                permissions: vec![Permission::Read],
                scopes: vec![json!({
                    "resource_type": "retriever",
                    "resource_id": retriever.id,
                    "operations": ["execute_retriever"],
                })],
                status: ACTIVE.into(),
                expires_at,
                last_used_at: None,
                body,
                created_at: now.clone(),
                updated_at: now,
                retriever_id: Some(retriever.id),
            };
            principals::insert_key(tx, &key)?;
            Ok(key)
        });
        Ok((write.await?, Secret(secret)))
    }

    /// Stops a retriever's key for good, before this returns. Revoking one that is revoked changes nothing.
    pub async fn revoke_retriever_key(
        &self,
        principal: &Principal,
        scope: &Scope,
        retriever: &str,
        key_id: &str,
    ) -> Result<ApiKey> {
        let (principal, scope, now) = (principal.clone(), scope.clone(), self.catalog.now());
        let (retriever, key_id) = (retriever.to_owned(), key_id.to_owned());
        let change = self.change_keys(move |tx| {
            let retriever = resources::get(tx, Kind::Retriever, &scope, &retriever)?;
            let mut key = principals::retriever_key(tx, &scope.organization_id, &retriever.id, &key_id)?;
            if key.status == ACTIVE {
                keys::revoke(&mut key, &principal, &now);
                key.updated_at = now;
                principals::update_key(tx, &key)?;
            }
            Ok(key)
        });
        change.await
    }
}

fn refuse_too_many(tx: &Transaction<'_>, scope: &Scope, retriever_id: &str) -> Result<()> {
    let all = principals::retriever_keys(tx, &scope.organization_id, retriever_id)?;
    if all.iter().filter(|key| key.status == ACTIVE).count() >= MAX_KEYS {
        return Err(Error::Conflict(format!("a retriever has at most {MAX_KEYS} keys that work; revoke one first")));
    }
    Ok(())
}

/// The origins that may send a key.
pub(super) fn origins(key: &ApiKey) -> Vec<String> {
    let list = key.body.get(ORIGINS).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Origins in the one spelling that browsers send them in: lower case, without a slash at the end.
fn checked_origins(origins: &[String]) -> Result<Vec<String>> {
    if origins.len() > MAX_ORIGINS {
        return Err(Error::invalid(ORIGINS, format!("are at most {MAX_ORIGINS}")));
    }
    let mut checked: Vec<String> = Vec::with_capacity(origins.len());
    for (i, origin) in origins.iter().enumerate() {
        let plain = origin.trim().trim_end_matches('/').to_ascii_lowercase();
        if !is_origin(&plain) {
            return Err(Error::invalid(
                format!("{ORIGINS}.{i}"),
                "must be an origin such as `https://shop.example` or `https://*.shop.example`",
            ));
        }
        if !checked.contains(&plain) {
            checked.push(plain);
        }
    }
    Ok(checked)
}

fn is_origin(text: &str) -> bool {
    if text.len() > MAX_ORIGIN_BYTES {
        return false;
    }
    let below = text.replacen("://*.", "://", 1);
    let is_web = below.starts_with("http://") || below.starts_with("https://");
    let parsed = url::Url::parse(&below).ok().filter(|_| is_web && !below.contains('*'));
    // An origin is a URL without anything after its host and port.
    parsed.is_some_and(|url| url.host_str().is_some() && url.origin().ascii_serialization() == below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(origin: &str) -> Option<String> {
        checked_origins(&[origin.to_owned()]).ok()?.pop()
    }

    #[test]
    fn origins_are_spelled_as_browsers_send_them() {
        assert_eq!(checked("https://Shop.example/").as_deref(), Some("https://shop.example"));
        assert_eq!(checked("http://localhost:3000").as_deref(), Some("http://localhost:3000"));
        assert_eq!(checked("https://*.shop.example").as_deref(), Some("https://*.shop.example"));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_its_place() {
        for wrong in [
            "",
            "*",
            "shop.example",
            "ftp://shop.example",
            "https://a.example/path",
            "https://*",
            "https://a.*.example",
        ] {
            let error = checked_origins(&["https://good.example".into(), wrong.into()]).unwrap_err();
            assert!(matches!(&error, Error::Invalid(list) if list[0].field == "allowed_origins.1"), "{wrong}: {error}");
        }
    }
}
