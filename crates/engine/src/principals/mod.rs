//! Who may come in, and where: the first key, authentication, and the way from a principal and a name to a scope.
//!
//! Only the SHA-256 of a key is kept. What a key may do is its own permissions, cut down to its user's role and to the
//! operations of its scopes.

mod bootstrap;
mod keys;
mod retriever_keys;
mod users;

pub(crate) use bootstrap::bootstrap;
pub use keys::{KeyChange, NewKey, Secret};
pub use retriever_keys::NewRetrieverKey;
pub use users::{NewUser, OrganizationChange, Role, UserChange, UserStatus};
pub(crate) use users::{check_name, merge, without_nulls};

use crate::{Engine, audit};
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};
use strata_model::{Error, OnlyRetriever, Permission, Principal, Result, Scope, id, rates::Rates};
pub use strata_store::catalog::principals::{ApiKey, Organization, User};
use strata_store::catalog::{principals, rusqlite::Transaction};
use subtle::ConstantTimeEq;

/// Most keys that are remembered; beyond it all are forgotten and read again.
const MAX_CACHED_KEYS: usize = 4096;
/// `last_used_at` is written at most this often for one key, in microseconds.
const TOUCH_EVERY_MICROS: i64 = 60_000_000;
/// Longest secret that is looked at, in bytes.
const MAX_SECRET_BYTES: usize = 256;
/// Where an organization keeps its own [`Rates`], in its body.
pub const RATE_LIMITS: &str = "rate_limit_overrides";
/// Where a key keeps the requests a minute that it may send, in its body.
pub const RATE_LIMIT: &str = "rate_limit_override";
/// Where a key keeps the name under which access lists of documents know it, in its body.
pub const PRINCIPAL_ID: &str = "principal_id";
/// Most namespaces that a refusal lists.
const MAX_NAMES_SHOWN: usize = 20;

/// Keys that were used lately. Every change of a user or a key forgets them all.
#[derive(Default, Clone)]
pub(crate) struct KeyCache {
    state: Arc<Mutex<CacheState>>,
}

#[derive(Default)]
struct CacheState {
    /// Counts the changes, so that what was read before one is not remembered after it.
    generation: u64,
    by_hash: HashMap<String, Cached>,
}

#[derive(Clone)]
struct Cached {
    principal: Principal,
    /// Microseconds since the Unix epoch.
    expires: Option<i64>,
    touched: i64,
}

impl KeyCache {
    fn forget(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.by_hash.clear();
    }

    fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// The key of this hash, and whether its use should be written down now.
    fn find(&self, hash: &str, now: i64) -> Option<(Cached, bool)> {
        let mut state = self.state.lock();
        let found = state.by_hash.get_mut(hash)?;
        let is_due = now - found.touched >= TOUCH_EVERY_MICROS;
        if is_due {
            found.touched = now;
        }
        Some((found.clone(), is_due))
    }

    fn remember(&self, hash: String, cached: Cached, generation: u64) {
        let mut state = self.state.lock();
        if state.generation != generation {
            return;
        }
        if state.by_hash.len() >= MAX_CACHED_KEYS {
            state.by_hash.clear();
        }
        state.by_hash.insert(hash, cached);
    }
}

/// Who a key belongs to, for the one who holds it.
#[derive(Debug, Clone)]
pub struct Me {
    pub organization: Organization,
    pub user: User,
    pub key: ApiKey,
}

impl Engine {
    /// Requests a minute of the organization's keys, unless a key says otherwise.
    pub fn rates_of(&self, organization: &Organization) -> Rates {
        overrides(organization).or(self.config.allowed.rates)
    }

    /// The principal of a secret. [`Error::Unauthenticated`] says whether the key is unknown, revoked, expired or its
    /// user suspended.
    pub async fn authenticate(&self, secret: &str) -> Result<Principal> {
        let unknown = || Error::Unauthenticated("this API key does not exist".into());
        if secret.is_empty() || secret.len() > MAX_SECRET_BYTES {
            return Err(unknown());
        }
        let hash = id::sha256_hex(secret.as_bytes());
        let now = self.catalog.now_micros();
        let (cached, is_due) = match self.keys.find(&hash, now) {
            Some(found) => found,
            None => {
                let generation = self.keys.generation();
                let cached = self.read_key(hash.clone()).await?.ok_or_else(unknown)?;
                let cached = Cached { touched: now, ..cached };
                self.keys.remember(hash, cached.clone(), generation);
                (cached, true)
            }
        };
        if cached.expires.is_some_and(|expires| expires <= now) {
            return Err(Error::Unauthenticated("this API key has expired".into()));
        }
        if is_due {
            self.note_use(cached.principal.key_id.clone());
        }
        Ok(cached.principal)
    }

    async fn read_key(&self, hash: String) -> Result<Option<Cached>> {
        let found = self.catalog.read(move |connection| {
            let Some((key, _)) = principals::key_by_hash(connection, &hash)? else { return Ok(None) };
            if !bool::from(key.key_hash.as_bytes().ct_eq(hash.as_bytes())) {
                return Ok(None);
            }
            let user = principals::user(connection, &key.organization_id, &key.user_id)?;
            let namespace = principals::namespace_of_key(connection, &key)?;
            let organization = principals::organization(connection, &key.organization_id)?;
            Ok(Some((key, user, namespace, organization)))
        });
        let Some((key, user, namespace, organization)) = found.await? else { return Ok(None) };
        if key.status != keys::ACTIVE {
            return Err(Error::Unauthenticated("this API key was revoked".into()));
        }
        if user.status != UserStatus::Active.as_str() {
            return Err(Error::Unauthenticated(format!("the user of this API key is {}", user.status)));
        }
        let expires = key.expires_at.as_deref().map(micros).transpose()?;
        let rates = rates(&key, &organization, self.config.allowed.rates);
        let principal = Principal { rates, ..principal(&key, &user, namespace) };
        Ok(Some(Cached { principal, expires, touched: 0 }))
    }

    /// Changes users or keys and forgets what was remembered of them. Runs to its end even where the caller has gone: a
    /// revoked key must not live on in memory because its revoker hung up.
    pub(crate) async fn change_keys<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    {
        let (catalog, cache) = (self.catalog.clone(), self.keys.clone());
        let change = tokio::spawn(audit::carried(async move {
            let outcome = catalog.write(work).await;
            cache.forget();
            outcome
        }));
        change.await.map_err(Error::internal)?
    }

    /// Writes down that a key was used, without making the caller wait.
    fn note_use(&self, key_id: String) {
        let catalog = self.catalog.clone();
        let now = catalog.now();
        tokio::spawn(async move {
            if let Err(error) = catalog.write(move |tx| principals::touch_key(tx, &key_id, &now)).await {
                tracing::warn!(%error, "the last use of an API key was not written down");
            }
        });
    }

    /// The namespace that a principal works in, seen with its eyes: the one named, by id or name, or else the only one it can
    /// enter.
    pub async fn scope(&self, principal: &Principal, named: Option<&str>) -> Result<Scope> {
        let reader = principal.reader();
        // Quoted, so that no name can pass for two.
        let key = format!("scope {} {:?} {named:?}", principal.organization_id, principal.namespaces);
        let (principal, named) = (principal.clone(), named.map(str::to_owned));
        let find = self.catalog.recall(key, move |connection| match named {
            Some(named) => entered(&principals::namespace(connection, &principal, &named)?),
            None => {
                let all = principals::namespaces(connection, &principal)?;
                if let [only] = all.as_slice() {
                    return entered(only);
                }
                let names: Vec<String> = all.iter().take(MAX_NAMES_SHOWN).map(|n| format!("`{}`", n.name)).collect();
                Err(Error::Malformed(match names.is_empty() {
                    true => "there is no namespace that this key can enter; make one with POST /v1/namespaces".into(),
                    false => format!("say which namespace in the header `X-Namespace`: {}", names.join(", ")),
                }))
            }
        });
        Ok((*find.await?).clone().seen_by(reader))
    }

    /// Organization, user and key of a principal.
    pub async fn me(&self, principal: &Principal) -> Result<Me> {
        let principal = principal.clone();
        let find = self.catalog.read(move |connection| {
            let user = principals::user(connection, &principal.organization_id, &principal.user_id)?;
            Ok(Me {
                organization: principals::organization(connection, &principal.organization_id)?,
                key: principals::key(connection, &user.user_id, &principal.key_id)?,
                user,
            })
        });
        find.await
    }
}

/// The capability to the rows of a namespace that is whole.
fn entered(namespace: &principals::Namespace) -> Result<Scope> {
    crate::transfers::check_gate(namespace)?;
    Ok(namespace.scope())
}

/// What a key lets its holder do. `namespace` is that of the retriever that it is for, if it is for one.
fn principal(key: &ApiKey, user: &User, namespace: Option<String>) -> Principal {
    let role = Role::parse(&user.role).unwrap_or(Role::Viewer);
    let operations = keys::allowed_by_scopes(&key.scopes);
    let all = [Permission::Read, Permission::Write, Permission::Delete, Permission::Admin];
    let own = |p: &Permission| key.permissions.contains(p) || key.permissions.contains(&Permission::Admin);
    let permissions = all
        .into_iter()
        .filter(own)
        .filter(|p| role.allows(*p))
        .filter(|p| operations.as_ref().is_none_or(|o| o.contains(p)));
    Principal {
        organization_id: key.organization_id.clone(),
        user_id: key.user_id.clone(),
        key_id: key.key_id.clone(),
        permissions: permissions.collect(),
        principal_id: key.body.get(PRINCIPAL_ID).and_then(Value::as_str).map(str::to_owned),
        namespaces: match &key.retriever_id {
            // Without its retriever there is nothing that it may enter.
            Some(_) => Some(namespace.into_iter().collect()),
            None => keys::namespaces_of_scopes(&key.scopes),
        },
        only: key
            .retriever_id
            .clone()
            .map(|retriever_id| OnlyRetriever { retriever_id, origins: retriever_keys::origins(key) }),
        rates: Rates::default(),
    }
}

/// Requests a minute: as the key says, else as its organization does, else as the operator does.
fn rates(key: &ApiKey, organization: &Organization, allowed: Rates) -> Rates {
    let own = key.body.get(RATE_LIMIT).and_then(Value::as_u64).and_then(|limit| u32::try_from(limit).ok());
    match own {
        Some(limit) => Rates::each(limit),
        None => overrides(organization).or(allowed),
    }
}

/// What an organization says of its rates.
fn overrides(organization: &Organization) -> Rates {
    match organization.body.get(RATE_LIMITS) {
        Some(said) => serde_json::from_value(said.clone()).unwrap_or_default(),
        None => Rates::default(),
    }
}

/// RFC 3339 to microseconds since the Unix epoch.
fn micros(time: &str) -> Result<i64> {
    let time: jiff::Timestamp = time.parse().map_err(|_| Error::internal(format!("`{time}` is not a time")))?;
    Ok(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cached(key_id: &str) -> Cached {
        let principal = Principal {
            organization_id: "org_1".into(),
            user_id: "usr_1".into(),
            key_id: key_id.into(),
            permissions: vec![Permission::Read],
            principal_id: None,
            namespaces: None,
            only: None,
            rates: Rates::default(),
        };
        Cached { principal, expires: None, touched: 0 }
    }

    #[test]
    fn what_was_read_before_a_change_is_not_remembered_after_it() {
        let cache = KeyCache::default();
        let before = cache.generation();
        cache.forget();
        cache.remember("a".into(), cached("key_1"), before);
        assert!(cache.find("a", 0).is_none(), "a revoked key must not come back");
        cache.remember("a".into(), cached("key_1"), cache.generation());
        assert!(cache.find("a", 0).is_some());
        cache.forget();
        assert!(cache.find("a", 0).is_none());
    }

    #[test]
    fn the_cache_is_bounded_and_notes_a_use_once_a_minute() {
        let cache = KeyCache::default();
        for n in 0..=MAX_CACHED_KEYS {
            cache.remember(n.to_string(), cached("key_1"), 0);
        }
        assert!(cache.state.lock().by_hash.len() <= MAX_CACHED_KEYS);
        let due = |now| cache.find(&MAX_CACHED_KEYS.to_string(), now).map(|(_, due)| due);
        assert_eq!((due(TOUCH_EVERY_MICROS), due(TOUCH_EVERY_MICROS + 1)), (Some(true), Some(false)));
    }

    fn key(permissions: &[Permission], scopes: serde_json::Value) -> ApiKey {
        ApiKey {
            key_id: "key_1".into(),
            organization_id: "org_1".into(),
            user_id: "usr_1".into(),
            name: "k".into(),
            key_hash: String::new(),
            key_prefix: String::new(),
            permissions: permissions.to_vec(),
            scopes: scopes.as_array().cloned().unwrap_or_default(),
            status: keys::ACTIVE.into(),
            expires_at: None,
            last_used_at: None,
            body: Default::default(),
            created_at: String::new(),
            updated_at: String::new(),
            retriever_id: None,
        }
    }

    fn user(role: &str) -> User {
        User {
            user_id: "usr_1".into(),
            organization_id: "org_1".into(),
            email: "a@b".into(),
            name: "a".into(),
            role: role.into(),
            status: "active".into(),
            body: Default::default(),
            created_at: String::new(),
            updated_at: String::new(),
        }
    }

    #[test]
    fn a_key_does_no_more_than_its_user_and_its_scopes_allow() {
        use Permission::{Admin, Delete, Read, Write};
        let may = |permissions: &[Permission], role: &str, scopes| {
            principal(&key(permissions, scopes), &user(role), None).permissions
        };
        assert_eq!(may(&[Admin], "admin", json!([])), [Read, Write, Delete, Admin]);
        assert_eq!(may(&[Admin], "member", json!([])), [Read, Write, Delete]);
        assert_eq!(may(&[Admin, Write], "viewer", json!([])), [Read]);
        let scopes = json!([{ "resource_type": "namespace", "resource_id": "ns_1", "operations": ["read_data", "execute_retriever"] }]);
        assert_eq!(may(&[Admin], "admin", scopes.clone()), [Read]);
        let confined = principal(&key(&[Read], scopes), &user("admin"), None);
        assert!(confined.may_enter("ns_1") && !confined.may_enter("ns_2"));
    }

    #[test]
    fn a_key_for_a_retriever_enters_its_namespace_and_none_without_it() {
        let scopes =
            json!([{ "resource_type": "retriever", "resource_id": "ret_1", "operations": ["execute_retriever"] }]);
        let key = ApiKey { retriever_id: Some("ret_1".into()), ..key(&[Permission::Read], scopes) };
        let found = principal(&key, &user("admin"), Some("ns_1".into()));
        assert_eq!(found.permissions, [Permission::Read]);
        assert!(found.may_enter("ns_1") && !found.may_enter("ns_2") && !found.may_enter("ret_1"));
        assert_eq!(found.only.map(|only| only.retriever_id).as_deref(), Some("ret_1"));
        assert!(!principal(&key, &user("admin"), None).may_enter("ns_1"));
    }
}
