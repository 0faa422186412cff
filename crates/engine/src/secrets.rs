//! The vault: values that retrievers send elsewhere and that nobody is shown again.
//!
//! A value is sealed with XChaCha20-Poly1305 under one key of this server and a random nonce of its own; organization and
//! name are authenticated with it, so that a row that is moved does not open. The key comes from the configuration, or
//! from `secrets.key` in the data directory, which is made when the first value is sealed. Values are never answered,
//! and never logged.

use crate::{Config, Engine, principals::check_name, private_file};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead, KeyInit, Payload},
};
use std::{path::PathBuf, sync::Arc};
use strata_model::{Error, Principal, Result, id};
use strata_store::{
    Catalog,
    catalog::{
        rusqlite::Connection,
        secrets::{self, Owner},
    },
};
use tokio::sync::OnceCell;

/// File of the data directory that holds the key, in hex.
const KEY_FILE: &str = "secrets.key";
/// First byte of what is sealed: how it is.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;
/// Longest value, in bytes.
const MAX_VALUE_BYTES: usize = 64 << 10;
/// Most secrets of one organization.
const MAX_SECRETS: usize = 1_000;

/// Seals and opens values.
pub(crate) struct Vault {
    file: PathBuf,
    cipher: OnceCell<Arc<XChaCha20Poly1305>>,
}

/// What a sealed value belongs to, and what it is opened for. Another place does not open it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'p> {
    Secret { organization_id: &'p str, name: &'p str },
    Connection { organization_id: &'p str, connection_id: &'p str },
    Webhook { organization_id: &'p str, webhook_id: &'p str },
}

impl Place<'_> {
    fn authenticated(self) -> [u8; 32] {
        let parts = match self {
            Self::Secret { organization_id, name } => ["secret", organization_id, name],
            Self::Connection { organization_id, connection_id } => ["connection", organization_id, connection_id],
            Self::Webhook { organization_id, webhook_id } => ["webhook", organization_id, webhook_id],
        };
        id::sha256_parts(&parts.map(str::as_bytes))
    }
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret { name, .. } => write!(f, "the secret `{name}`"),
            Self::Connection { connection_id, .. } => write!(f, "the credentials of the connection `{connection_id}`"),
            Self::Webhook { webhook_id, .. } => write!(f, "what the webhook `{webhook_id}` keeps secret"),
        }
    }
}

impl Vault {
    /// Takes the key from the configuration, if it is there; else none is needed yet.
    pub fn new(config: &Config) -> Result<Self> {
        let cipher = match &config.secrets_key {
            Some(text) => {
                let key = key(text).ok_or_else(|| {
                    Error::invalid("secrets_key", format!("must be {KEY_BYTES} bytes in hex or base64"))
                })?;
                OnceCell::new_with(Some(Arc::new(XChaCha20Poly1305::new(&key.into()))))
            }
            None => OnceCell::new(),
        };
        Ok(Self { file: config.data_dir.join(KEY_FILE), cipher })
    }

    pub async fn seal(&self, catalog: &Catalog, place: Place<'_>, value: &[u8]) -> Result<Vec<u8>> {
        let cipher = self.cipher(catalog).await?;
        let nonce = catalog.random_bytes::<NONCE_BYTES>();
        let payload = Payload { msg: value, aad: &place.authenticated() };
        let hidden = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| Error::internal(format!("{place} could not be sealed")))?;
        Ok([&[VERSION][..], &nonce, &hidden].concat())
    }

    /// The value. [`Error::Unavailable`] where this server's key did not seal it for this place.
    pub async fn open(&self, catalog: &Catalog, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>> {
        let body = body_of(place, sealed)?;
        let cipher = self.cipher(catalog).await?;
        unseal(&cipher, place, body)
    }

    async fn cipher(&self, catalog: &Catalog) -> Result<Arc<XChaCha20Poly1305>> {
        let made = self.cipher.get_or_try_init(|| async {
            let file = self.file.clone();
            let fresh = catalog.random_bytes::<KEY_BYTES>();
            let read = catalog.read(move |connection| {
                let damaged = || Error::Unavailable(format!("`{}` does not hold a secrets key", file.display()));
                if let Some(text) = private_file::read(&file)? {
                    return key(&text).ok_or_else(damaged);
                }
                if secrets::any(connection)? {
                    let name = file.display();
                    return Err(Error::Unavailable(format!(
                        "`{name}` is gone, and secrets are sealed with it; put it back, or delete what it sealed"
                    )));
                }
                private_file::write(&file, &hex::encode(fresh))?;
                Ok(fresh)
            });
            Ok(Arc::new(XChaCha20Poly1305::new(&read.await?.into())))
        });
        made.await.cloned()
    }
}

/// What follows the form of a sealed value, where that is the one that is known here.
fn body_of<'s>(place: Place<'_>, sealed: &'s [u8]) -> Result<&'s [u8]> {
    match sealed.split_first() {
        Some((&VERSION, body)) => Ok(body),
        Some((version, _)) if *version > VERSION => Err(Error::Unavailable(format!(
            "{place} is sealed in form {version} and this version of strata knows {VERSION}: use the newer one, or set \
             it anew"
        ))),
        Some(_) | None => Err(wrong(place)),
    }
}

/// The value in the body of what was sealed for a place.
fn unseal(cipher: &XChaCha20Poly1305, place: Place<'_>, body: &[u8]) -> Result<Vec<u8>> {
    let (nonce, hidden) = body.split_at_checked(NONCE_BYTES).ok_or_else(|| wrong(place))?;
    let payload = Payload { msg: hidden, aad: &place.authenticated() };
    cipher.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| wrong(place))
}

fn wrong(place: Place<'_>) -> Error {
    Error::Unavailable(format!("{place} does not open with this server's secrets key; set it anew"))
}

/// What the vault of a server has sealed.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Values of all organizations.
    pub count: usize,
    /// What those belong to that do not open, each with its organization.
    pub locked: Vec<String>,
    /// Why there is no key to open anything with.
    pub no_key: Option<String>,
}

/// A key in hex or base64.
fn key(text: &str) -> Option<[u8; KEY_BYTES]> {
    let text = text.trim();
    let bytes = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok())?;
    bytes.try_into().ok()
}

impl Engine {
    /// Keeps a value under a new name.
    pub async fn create_secret(&self, principal: &Principal, name: &str, value: &str) -> Result<()> {
        check_name("secret_name", Some(name), 1, 100)?;
        let (organization, name, sealed) = self.sealed(principal, name, value).await?;
        let now = self.catalog.now();
        let write = self.catalog.write(move |tx| {
            if secrets::count(tx, &organization)? >= MAX_SECRETS {
                return Err(Error::Conflict(format!("an organization has at most {MAX_SECRETS} secrets")));
            }
            secrets::insert(tx, &organization, &name, &sealed, &now)
        });
        write.await
    }

    /// Replaces the value of a name.
    pub async fn update_secret(&self, principal: &Principal, name: &str, value: &str) -> Result<()> {
        let (organization, name, sealed) = self.sealed(principal, name, value).await?;
        let now = self.catalog.now();
        self.catalog.write(move |tx| secrets::update(tx, &organization, &name, &sealed, &now)).await
    }

    async fn sealed(&self, principal: &Principal, name: &str, value: &str) -> Result<(String, String, Vec<u8>)> {
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return Err(Error::invalid("secret_value", format!("must have 1 to {MAX_VALUE_BYTES} bytes")));
        }
        let place = Place::Secret { organization_id: &principal.organization_id, name };
        let sealed = self.vault.seal(&self.catalog, place, value.as_bytes()).await?;
        Ok((principal.organization_id.clone(), name.to_owned(), sealed))
    }

    pub async fn delete_secret(&self, principal: &Principal, name: &str) -> Result<()> {
        let (organization, name) = (principal.organization_id.clone(), name.to_owned());
        self.catalog.write(move |tx| secrets::delete(tx, &organization, &name)).await
    }

    /// The names of an organization's secrets, in their order.
    pub async fn secret_names(&self, principal: &Principal) -> Result<Vec<String>> {
        let organization = principal.organization_id.clone();
        self.catalog.read(move |connection| secrets::names(connection, &organization)).await
    }

    /// The value of a secret, or `None` where the organization has none of this name. Not to be shown to anybody.
    pub(crate) async fn open_secret(&self, organization_id: &str, name: &str) -> Result<Option<String>> {
        let (organization, wanted) = (organization_id.to_owned(), name.to_owned());
        let found = self.catalog.read(move |connection| secrets::find(connection, &organization, &wanted)).await?;
        let Some(sealed) = found else { return Ok(None) };
        let opened = self.vault.open(&self.catalog, Place::Secret { organization_id, name }, &sealed).await?;
        let text = String::from_utf8(opened).map_err(|_| Error::internal("a secret is not UTF-8"))?;
        Ok(Some(text))
    }

    /// Tries every sealed value of every organization, and forgets what it held. Makes no key.
    pub(crate) async fn try_vault(&self) -> Result<Contents> {
        // The first use of a vault makes its key where nothing is sealed yet.
        if !self.catalog.read(secrets::any).await? {
            return Ok(Contents::default());
        }
        let (cipher, no_key) = match self.vault.cipher(&self.catalog).await {
            Ok(cipher) => (Some(cipher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let look = move |connection: &Connection| -> Result<Contents> {
            let mut contents = Contents { no_key, ..Contents::default() };
            secrets::each(connection, |owner, organization_id, name, sealed| {
                let place = match owner {
                    Owner::Secret => Place::Secret { organization_id, name },
                    Owner::Connection => Place::Connection { organization_id, connection_id: name },
                    Owner::Webhook => Place::Webhook { organization_id, webhook_id: name },
                };
                let opens = |cipher: &XChaCha20Poly1305| {
                    body_of(place, sealed).and_then(|body| unseal(cipher, place, body)).is_ok()
                };
                contents.count += 1;
                if !cipher.as_deref().is_some_and(opens) {
                    contents.locked.push(format!("{place} of `{organization_id}`"));
                }
            })?;
            Ok(contents)
        };
        self.catalog.read(look).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strata_store::seams::System;

    struct Opened(Vault, Catalog, tempfile::TempDir);

    fn opened(secrets_key: Option<&str>, directory: tempfile::TempDir) -> Opened {
        let config = Config {
            data_dir: directory.path().to_owned(),
            secrets_key: secrets_key.map(str::to_owned),
            ..Config::default()
        };
        let catalog = Catalog::open(&directory.path().join("catalog.db"), Arc::new(System::default())).unwrap();
        Opened(Vault::new(&config).unwrap(), catalog, directory)
    }

    fn secret<'p>(organization_id: &'p str, name: &'p str) -> Place<'p> {
        Place::Secret { organization_id, name }
    }

    #[tokio::test]
    async fn a_value_opens_only_where_it_was_sealed() {
        let Opened(vault, catalog, directory) = opened(None, tempfile::tempdir().unwrap());
        assert!(!directory.path().join(KEY_FILE).exists(), "no key before it is needed");
        let sealed = vault.seal(&catalog, secret("org_1", "key"), b"hunter2").await.unwrap();
        assert_eq!(vault.open(&catalog, secret("org_1", "key"), &sealed).await.unwrap(), b"hunter2");
        let again = vault.seal(&catalog, secret("org_1", "key"), b"hunter2").await.unwrap();
        assert_ne!(sealed, again, "a nonce is used once");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        let connection = Place::Connection { organization_id: "org_1", connection_id: "key" };
        for other in [secret("org_2", "key"), secret("org_1", "kex"), secret("org_1k", "ey"), connection] {
            assert!(matches!(vault.open(&catalog, other, &sealed).await, Err(Error::Unavailable(_))), "{other}");
        }
        let newer = [&[VERSION + 1][..], &sealed[1..]].concat();
        let refused = vault.open(&catalog, secret("org_1", "key"), &newer).await.unwrap_err().to_string();
        assert!(refused.contains("form 2") && refused.contains("knows 1"), "{refused}");
        for at in [0, 1, 30, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open(&catalog, secret("org_1", "key"), &changed).await.is_err(), "byte {at}");
        }
        assert!(vault.open(&catalog, secret("org_1", "key"), &sealed[..20]).await.is_err());
        assert!(vault.open(&catalog, secret("org_1", "key"), b"").await.is_err());
        // The same file opens it after a restart.
        let Opened(vault, catalog, _directory) = opened(None, directory);
        assert_eq!(vault.open(&catalog, secret("org_1", "key"), &sealed).await.unwrap(), b"hunter2");
    }

    #[tokio::test]
    async fn a_key_that_went_missing_is_not_replaced() {
        let Opened(vault, catalog, directory) = opened(None, tempfile::tempdir().unwrap());
        let sealed = vault.seal(&catalog, secret("org_1", "key"), b"value").await.unwrap();
        let row = sealed.clone();
        let insert = catalog.write(move |tx| {
            tx.execute("INSERT INTO organizations VALUES ('org_1', 'o', '{}', '', '')", []).map_err(Error::internal)?;
            secrets::insert(tx, "org_1", "key", &row, "2026-01-01T00:00:00Z")
        });
        insert.await.unwrap();
        std::fs::remove_file(directory.path().join(KEY_FILE)).unwrap();
        let Opened(vault, catalog, directory) = opened(None, directory);
        let refused = vault.seal(&catalog, secret("org_1", "other"), b"value").await.unwrap_err();
        assert!(refused.to_string().contains("is gone"), "{refused}");
        assert!(!directory.path().join(KEY_FILE).exists());
        let Opened(vault, catalog, _directory) = opened(Some(&"ab".repeat(32)), directory);
        let refused = vault.open(&catalog, secret("org_1", "key"), &sealed).await.unwrap_err();
        assert!(refused.to_string().contains("does not open"), "{refused}");
    }

    #[test]
    fn a_key_is_32_bytes_in_hex_or_base64() {
        let bytes = [7u8; KEY_BYTES];
        assert_eq!(key(&format!("{}\n", hex::encode(bytes))), Some(bytes));
        assert_eq!(key(&STANDARD.encode(bytes)), Some(bytes));
        for wrong in ["", "abcd", &"zz".repeat(32), &"ab".repeat(31), &"ab".repeat(33)] {
            assert_eq!(key(wrong), None, "{wrong}");
        }
    }
}
