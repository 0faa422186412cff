//! API keys: made, changed, rotated, revoked. A change counts from the moment the call returns.

use super::users::{check_name, ensure_an_admin_is_left, merge, without_nulls};
use super::{Role, micros};
use crate::{Engine, times};
use serde_json::{Value, json};
use strata_model::{Error, Fields, Permission, Principal, Result, id};
use strata_store::catalog::{
    principals::{self, ApiKey, User},
    rusqlite::Connection,
};

pub(super) const ACTIVE: &str = "active";
const REVOKED: &str = "revoked";
pub(super) const SECRET_PREFIX: &str = "sk_live_";
pub(super) const SECRET_LENGTH: usize = 40;
/// Characters of a secret that are kept and shown.
const SHOWN: usize = 12;
/// Most scopes of one key.
const MAX_SCOPES: usize = 100;

/// A key's secret: known to its holder, and to the server only while it is made.
#[derive(Debug, Clone)]
pub struct Secret(pub String);

#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: String,
    pub permissions: Vec<Permission>,
    /// Scopes as the API shows them.
    pub scopes: Vec<Value>,
    /// RFC 3339.
    pub expires_at: Option<String>,
    /// `description`, `rate_limit_override`, `allowed_origins`, `principal_id`.
    pub body: Fields,
}

/// What is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct KeyChange {
    pub name: Option<String>,
    pub permissions: Option<Vec<Permission>>,
    pub scopes: Option<Vec<Value>>,
    pub expires_at: Option<String>,
    /// Whether the key works: `Some(false)` revokes it for good.
    pub active: Option<bool>,
    /// Keys of the body to set; null removes.
    pub body: Fields,
}

impl Engine {
    /// Keys of a user, oldest first, revoked ones too.
    pub async fn keys(&self, principal: &Principal, user: &str) -> Result<Vec<ApiKey>> {
        let (organization, user) = (principal.organization_id.clone(), user.to_owned());
        let read = self.catalog.read(move |connection| {
            let user = principals::user(connection, &organization, &user)?;
            principals::keys(connection, &user.user_id)
        });
        read.await
    }

    /// A new key of a user, with its secret.
    pub async fn create_key(&self, principal: &Principal, user: &str, new: NewKey) -> Result<(ApiKey, Secret)> {
        check_name("name", Some(&new.name), 1, 100)?;
        let expires_at = new.expires_at.as_deref().map(|time| times::spelled(time, "expires_at")).transpose()?;
        if expires_at.as_deref().map(micros).transpose()?.is_some_and(|at| at <= self.catalog.now_micros()) {
            return Err(Error::invalid("expires_at", "lies in the past"));
        }
        let secret = self.catalog.new_id(SECRET_PREFIX, SECRET_LENGTH);
        let now = self.catalog.now();
        let mut body = without_nulls(new.body);
        body.insert("created_by".into(), principal.user_id.clone().into());
        let key = ApiKey {
            retriever_id: None,
            key_id: self.catalog.new_id(id::KEY, 15),
            organization_id: principal.organization_id.clone(),
            user_id: String::new(),
            name: new.name,
            key_hash: id::sha256_hex(secret.as_bytes()),
            key_prefix: shown_prefix(&secret),
            permissions: new.permissions,
            scopes: new.scopes,
            status: ACTIVE.into(),
            expires_at,
            last_used_at: None,
            body,
            created_at: now.clone(),
            updated_at: now,
        };
        let (principal, user) = (principal.clone(), user.to_owned());
        let write = self.catalog.write(move |tx| {
            let user = principals::user(tx, &principal.organization_id, &user)?;
            let scopes = resolve_scopes(tx, &principal, key.scopes)?;
            let key = ApiKey { user_id: user.user_id.clone(), scopes, ..key };
            check_role(&user, &key.permissions)?;
            principals::insert_key(tx, &key)?;
            Ok(key)
        });
        Ok((write.await?, Secret(secret)))
    }

    /// Changes a key, found by its name or id.
    pub async fn update_key(&self, principal: &Principal, user: &str, key: &str, change: KeyChange) -> Result<ApiKey> {
        check_name("name", change.name.as_deref(), 1, 100)?;
        let expires_at = change.expires_at.as_deref().map(|time| times::spelled(time, "expires_at")).transpose()?;
        let (principal, user, key, now) = (principal.clone(), user.to_owned(), key.to_owned(), self.catalog.now());
        let change = self.change_keys(move |tx| {
            let user = principals::user(tx, &principal.organization_id, &user)?;
            let mut key = principals::key(tx, &user.user_id, &key)?;
            if !change.only_revokes() {
                refuse_of_retriever(&key)?;
            }
            match (key.status.as_str(), change.active) {
                (ACTIVE, Some(false)) => revoke(&mut key, &principal, &now),
                (ACTIVE, _) | (_, None | Some(false)) => {}
                (_, Some(true)) => return Err(Error::Conflict("a revoked key stays revoked; make a new one".into())),
            }
            key.name = change.name.unwrap_or(key.name);
            if let Some(permissions) = change.permissions {
                check_role(&user, &permissions)?;
                key.permissions = permissions;
            }
            if let Some(scopes) = change.scopes {
                key.scopes = resolve_scopes(tx, &principal, scopes)?;
            }
            key.expires_at = expires_at.or(key.expires_at);
            merge(&mut key.body, change.body);
            key.updated_at = now;
            principals::update_key(tx, &key)?;
            ensure_an_admin_is_left(tx, &principal.organization_id)?;
            Ok(key)
        });
        change.await
    }

    /// Replaces a key's secret; the old one stops at once.
    pub async fn rotate_key(&self, principal: &Principal, user: &str, key: &str) -> Result<(ApiKey, Secret)> {
        let secret = self.catalog.new_id(SECRET_PREFIX, SECRET_LENGTH);
        let (hash, prefix) = (id::sha256_hex(secret.as_bytes()), shown_prefix(&secret));
        let (principal, user, key, now) = (principal.clone(), user.to_owned(), key.to_owned(), self.catalog.now());
        let change = self.change_keys(move |tx| {
            let user = principals::user(tx, &principal.organization_id, &user)?;
            let key = principals::key(tx, &user.user_id, &key)?;
            if key.status != ACTIVE {
                return Err(Error::Conflict(format!("the key `{}` is revoked; make a new one", key.name)));
            }
            refuse_of_retriever(&key)?;
            let key = ApiKey { key_hash: hash, key_prefix: prefix, updated_at: now, ..key };
            principals::update_key(tx, &key)?;
            Ok(key)
        });
        Ok((change.await?, Secret(secret)))
    }

    /// Stops a key for good. Revoking one that is revoked changes nothing.
    pub async fn revoke_key(&self, principal: &Principal, user: &str, key: &str) -> Result<ApiKey> {
        let change = KeyChange { active: Some(false), ..KeyChange::default() };
        self.update_key(principal, user, key, change).await
    }
}

impl KeyChange {
    fn only_revokes(&self) -> bool {
        let Self { name, permissions, scopes, expires_at, active, body } = self;
        let changes = name.is_some() || permissions.is_some() || scopes.is_some() || expires_at.is_some();
        *active == Some(false) && !changes && body.is_empty()
    }
}

/// A key that is for one retriever is revoked and made anew, and never changed into something else.
fn refuse_of_retriever(key: &ApiKey) -> Result<()> {
    match &key.retriever_id {
        None => Ok(()),
        Some(retriever_id) => Err(Error::Conflict(format!(
            "the key `{}` is for the retriever `{retriever_id}` and cannot be changed; revoke it and make another",
            key.name
        ))),
    }
}

pub(super) fn revoke(key: &mut ApiKey, principal: &Principal, now: &str) {
    key.status = REVOKED.into();
    key.body.insert("revoked_at".into(), now.into());
    key.body.insert("revoked_by".into(), principal.user_id.clone().into());
}

pub(super) fn shown_prefix(secret: &str) -> String {
    secret.chars().take(SHOWN).collect()
}

fn check_role(user: &User, permissions: &[Permission]) -> Result<()> {
    let role = Role::parse(&user.role).unwrap_or(Role::Viewer);
    if permissions.is_empty() {
        return Err(Error::invalid("permissions", "must hold at least one of `read`, `write`, `delete`, `admin`"));
    }
    if permissions.iter().all(|permission| role.allows(*permission)) {
        return Ok(());
    }
    Err(Error::invalid("permissions", format!("are more than the role `{}` of `{}` allows", user.role, user.email)))
}

/// Checks scopes and puts the ids of namespaces in the place of their names.
fn resolve_scopes(connection: &Connection, principal: &Principal, scopes: Vec<Value>) -> Result<Vec<Value>> {
    if scopes.len() > MAX_SCOPES {
        return Err(Error::invalid("scopes", format!("are at most {MAX_SCOPES}")));
    }
    let mut resolved: Vec<Value> = Vec::with_capacity(scopes.len());
    for (i, scope) in scopes.iter().enumerate() {
        let text = |key: &str| scope.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("resource_type") {
            "organization" if text("resource_id") == principal.organization_id && scopes.len() == 1 => {
                return Ok(Vec::new());
            }
            "namespace" => {}
            other => {
                let message = format!("`{other}` does not limit a key here; only `namespace` does");
                return Err(Error::invalid(format!("scopes.{i}.resource_type"), message));
            }
        }
        let namespace = principals::namespace(connection, principal, text("resource_id")).map_err(|_| {
            Error::invalid(
                format!("scopes.{i}.resource_id"),
                format!("namespace `{}` does not exist", text("resource_id")),
            )
        })?;
        let operations = scope.get("operations").cloned().unwrap_or(Value::Null);
        resolved.push(
            json!({ "resource_type": "namespace", "resource_id": namespace.namespace_id, "operations": operations }),
        );
    }
    let differ = resolved.windows(2).any(|pair| operations_of(&pair[0]) != operations_of(&pair[1]));
    if differ {
        return Err(Error::invalid("scopes", "must all allow the same `operations`; make one key for each set"));
    }
    Ok(resolved)
}

/// The namespaces that scopes limit a key to.
pub(super) fn namespaces_of_scopes(scopes: &[Value]) -> Option<Vec<String>> {
    let ids =
        scopes.iter().map(|scope| scope.get("resource_id").and_then(Value::as_str).unwrap_or_default().to_owned());
    (!scopes.is_empty()).then(|| ids.collect())
}

/// The permissions that the operations of scopes amount to; `None` where they do not limit.
pub(super) fn allowed_by_scopes(scopes: &[Value]) -> Option<Vec<Permission>> {
    scopes.first().and_then(operations_of)
}

fn operations_of(scope: &Value) -> Option<Vec<Permission>> {
    let operations = scope.get("operations")?.as_array()?;
    let mut allowed: Vec<Permission> = operations.iter().filter_map(|name| permission_of(name.as_str()?)).collect();
    allowed.sort_by_key(|permission| *permission as u8);
    allowed.dedup();
    Some(allowed)
}

fn permission_of(operation: &str) -> Option<Permission> {
    match operation {
        "read_data" | "execute_retriever" => Some(Permission::Read),
        "write_data" | "create_retriever" | "create_cluster" | "modify_cluster" | "execute_job" => {
            Some(Permission::Write)
        }
        "delete_data" | "delete_retriever" | "delete_cluster" | "cancel_job" => Some(Permission::Delete),
        "manage_permissions" | "modify_infrastructure" => Some(Permission::Admin),
        _ => None,
    }
}
