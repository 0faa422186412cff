//! The first key of a fresh data directory.

use super::{Role, UserStatus, keys};
use crate::{Config, private_file};
use strata_model::{Error, Fields, Permission, Result, id};
use strata_store::{
    Catalog,
    catalog::principals::{self, ApiKey, Namespace, Organization, User},
};

/// File of the data directory that holds the first key.
const KEY_FILE: &str = "admin.key";
/// Shortest secret that a configuration may set.
const MIN_SECRET: usize = 24;

/// In an empty catalog, makes an organization, its admin `admin@localhost`, the namespace `default` and a key that may do
/// everything; answers the key. The key's file is written first: a crash in between leaves a catalog that is still empty,
/// and the next start writes the file anew.
pub(crate) async fn bootstrap(catalog: &Catalog, config: &Config) -> Result<Option<String>> {
    if catalog.read(principals::any_organization).await? {
        return Ok(None);
    }
    let secret = match &config.bootstrap_key {
        Some(secret) => checked(secret)?,
        None => catalog.new_id(keys::SECRET_PREFIX, keys::SECRET_LENGTH),
    };
    let file = config.data_dir.join(KEY_FILE);
    private_file::write(&file, &secret)?;
    let rows = Rows::new(catalog, &secret);
    catalog.write(move |tx| rows.insert(tx)).await?;
    Ok(Some(secret))
}

fn checked(secret: &str) -> Result<String> {
    if secret.len() < MIN_SECRET || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::invalid("bootstrap_key", format!("must be {MIN_SECRET} visible ASCII characters or more")));
    }
    Ok(secret.to_owned())
}

struct Rows {
    organization: Organization,
    user: User,
    key: ApiKey,
    namespace: Namespace,
}

impl Rows {
    fn new(catalog: &Catalog, secret: &str) -> Self {
        let now = catalog.now();
        let organization_id = catalog.new_id(id::ORGANIZATION, 15);
        let user_id = catalog.new_id(id::USER, 15);
        Self {
            organization: Organization {
                organization_id: organization_id.clone(),
                name: "default".into(),
                body: Fields::new(),
                created_at: now.clone(),
                updated_at: now.clone(),
            },
            user: User {
                user_id: user_id.clone(),
                organization_id: organization_id.clone(),
                email: "admin@localhost".into(),
                name: "Admin".into(),
                role: Role::Admin.as_str().into(),
                status: UserStatus::Active.as_str().into(),
                body: Fields::new(),
                created_at: now.clone(),
                updated_at: now.clone(),
            },
            key: ApiKey {
                retriever_id: None,
                key_id: catalog.new_id(id::KEY, 15),
                organization_id: organization_id.clone(),
                user_id,
                name: "admin".into(),
                key_hash: id::sha256_hex(secret.as_bytes()),
                key_prefix: keys::shown_prefix(secret),
                permissions: vec![Permission::Read, Permission::Write, Permission::Delete, Permission::Admin],
                scopes: Vec::new(),
                status: keys::ACTIVE.into(),
                expires_at: None,
                last_used_at: None,
                body: Fields::new(),
                created_at: now.clone(),
                updated_at: now.clone(),
            },
            namespace: Namespace {
                namespace_id: catalog.new_id(id::NAMESPACE, 10),
                organization_id,
                name: "default".into(),
                body: Fields::new(),
                created_at: now.clone(),
                updated_at: now,
            },
        }
    }

    fn insert(&self, tx: &strata_store::catalog::rusqlite::Transaction<'_>) -> Result<()> {
        principals::put_organization(tx, &self.organization)?;
        principals::insert_user(tx, &self.user)?;
        principals::insert_key(tx, &self.key)?;
        principals::insert_namespace(tx, &self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guessable_first_key_is_refused() {
        assert!(checked("short").is_err());
        assert!(checked("with space 0123456789abcdef").is_err());
        assert!(checked("sk_test_0123456789abcdef").is_ok());
    }
}
