//! Who may use a published retriever: everybody, or those who know its password or hold a key for it.
//!
//! The public key is not stored. It is made of the publication's id, this server's secret and the password, so it stops
//! with any of them: a password that is changed in the vault takes the keys with it that the old one gave.

use super::Published;
use crate::Engine;
use std::net::IpAddr;
use strata_model::{Error, Principal, Result, id};
use strata_store::catalog::publications;
use subtle::ConstantTimeEq;

/// Characters of a public id behind its prefix.
pub(super) const PUBLIC_ID_CHARS: usize = 16;
const PUBLIC_KEY: &str = "prk_";
/// Hex digits of a public key that prove it.
const PROOF_CHARS: usize = 32;
/// What the secret of this server signs here, apart from everything else that it signs.
const PURPOSE: &str = "public key of a published retriever";

/// What a member of the public sends to be let in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// A public key, or one that is for the retriever.
    pub key: Option<String>,
    pub password: Option<Vec<u8>>,
    /// The origin of the page that sends it.
    pub origin: Option<String>,
    pub address: IpAddr,
}

impl Engine {
    /// The public key of a published retriever.
    pub async fn public_key(&self, published: &Published) -> Result<String> {
        let password = self.password(published).await?;
        Ok(self.signed_key(published, password.as_deref()))
    }

    /// The password; `None` where there is none. [`Error::Unavailable`] where the vault does not have it any more.
    async fn password(&self, published: &Published) -> Result<Option<String>> {
        let Some(name) = &published.settings.password_secret_name else { return Ok(None) };
        match self.open_secret(&published.scope.organization_id, name).await? {
            Some(password) => Ok(Some(password)),
            None => Err(Error::Unavailable(
                "this retriever is locked and its password is not there any more; its owner must set one anew".into(),
            )),
        }
    }

    fn signed_key(&self, published: &Published, password: Option<&str>) -> String {
        let own = published.public_id.strip_prefix(id::PUBLICATION).unwrap_or(&published.public_id);
        let lock = password.map_or("", |_| "password");
        let parts = [own.as_bytes(), lock.as_bytes(), password.unwrap_or_default().as_bytes()];
        let proof = hex::encode(self.signer.stamp(PURPOSE, &parts));
        format!("{PUBLIC_KEY}{own}{}", &proof[..PROOF_CHARS])
    }

    /// The key for one retriever that a visitor sends, if it is one; a public key is none.
    pub async fn retriever_key(&self, credentials: &Credentials) -> Result<Option<Principal>> {
        match credentials.key.as_deref().filter(|key| !key.starts_with(PUBLIC_KEY)) {
            Some(key) => self.authenticate(key).await.map(Some),
            None => Ok(None),
        }
    }

    /// Lets somebody use a published retriever, or says with [`Error::Unauthenticated`] what is missing. A key that is
    /// wrong is refused even where none is needed.
    pub async fn let_in(&self, published: &Published, credentials: &Credentials) -> Result<()> {
        if credentials.key.is_some() {
            return self.check_key(published, credentials).await;
        }
        if !published.has_password() {
            return Ok(());
        }
        let Some(password) = &credentials.password else {
            return Err(Error::Unauthenticated(
                "this retriever is locked; send its password in the header `X-Retriever-Password`".into(),
            ));
        };
        match self.is_password(published, password, credentials.address).await? {
            true => Ok(()),
            false => Err(Error::Unauthenticated("the password in `X-Retriever-Password` is wrong".into())),
        }
    }

    /// Refuses a key that is wrong; none is right.
    pub async fn check_key(&self, published: &Published, credentials: &Credentials) -> Result<()> {
        match &credentials.key {
            Some(key) => self.check_public_key(published, key, credentials.origin.as_deref()).await,
            None => Ok(()),
        }
    }

    /// Whether this is the password; anything is where none is set. Too many wrong ones are [`Error::Busy`].
    pub async fn is_password(&self, published: &Published, sent: &[u8], address: IpAddr) -> Result<bool> {
        let Some(password) = self.password(published).await? else { return Ok(true) };
        self.limiter.may_guess(&published.public_id, address, self.catalog.now_micros())?;
        // Of equal length whatever was sent, so that the time says nothing.
        let (sent, right) = (id::sha256_parts(&[sent]), id::sha256_parts(&[password.as_bytes()]));
        let fits = bool::from(sent.ct_eq(&right));
        if !fits {
            self.limiter.note_wrong_guess(&published.public_id, address, self.catalog.now_micros());
        }
        Ok(fits)
    }

    async fn check_public_key(&self, published: &Published, key: &str, origin: Option<&str>) -> Result<()> {
        let wrong = || Error::Unauthenticated("the key in `X-Public-API-Key` is not one of this retriever".into());
        if key.starts_with(PUBLIC_KEY) {
            let right = self.public_key(published).await?;
            return if bool::from(right.as_bytes().ct_eq(key.as_bytes())) { Ok(()) } else { Err(wrong()) };
        }
        let principal = self.authenticate(key).await?;
        let only = principal.only.filter(|only| only.retriever_id == published.retriever_id).ok_or_else(wrong)?;
        match only.takes_origin(origin) {
            true => Ok(()),
            false => Err(Error::Forbidden("this key may not be sent from this origin".into())),
        }
    }

    /// The published retriever that a key is for, where the request does not name it.
    pub async fn published_by_key(&self, key: &str) -> Result<Published> {
        let unknown =
            || Error::Unauthenticated("the key in `X-Public-API-Key` is not one of a published retriever".into());
        if let Some(own) = key.strip_prefix(PUBLIC_KEY).and_then(|rest| rest.get(..PUBLIC_ID_CHARS)) {
            let found = self.public_retriever(&format!("{}{own}", id::PUBLICATION)).await;
            return found.map_err(|error| match error {
                Error::Missing { .. } => unknown(),
                other => other,
            });
        }
        let principal = self.authenticate(key).await?;
        let retriever_id = principal.only.as_ref().map(|only| only.retriever_id.clone()).ok_or_else(unknown)?;
        let scope = self.scope(&principal, None).await?;
        let found = self.catalog.read(move |connection| publications::of_retriever(connection, &scope, &retriever_id));
        let row = found.await?.filter(|row| row.active).ok_or_else(unknown)?;
        Published::from_row(row)
    }
}
