//! Signed URLs: a path that reads one blob or receives one upload, for whoever holds it, until a moment.
//!
//! A token is the id of a key of this server, a JSON claim, and the HMAC-SHA256 of both under that key; claim and HMAC in
//! URL-safe base64. It names content by hash and an upload by id; it holds no secret and nothing is stored for it. Keys
//! change (`ring.rs`); tokens from before keys had ids have none, and are checked with the first one.

mod ring;

pub use ring::SigningKey;

use crate::Engine;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream::BoxStream;
use hmac::{Hmac, Mac};
use parking_lot::RwLock;
use ring::Ring;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::{ops::Range, sync::Arc, time::Duration};
use strata_model::{Error, Result, id, limits};
use strata_store::{
    Catalog,
    catalog::{objects::ObjectBlob, settings},
};

/// The secret that stamps. Before keys could change, it signed tokens, too.
const SECRET: &str = "presign_secret";
/// Longest token looked at.
const MAX_TOKEN_BYTES: usize = 4096;

/// Makes and checks tokens.
pub struct Signer {
    ring: RwLock<Arc<Ring>>,
    /// Held while keys change, so that this process learns of changes in their order.
    turn: tokio::sync::Mutex<()>,
    stamp: Hmac<Sha256>,
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Claim {
    /// Reads the content `hash`.
    Get {
        hash: String,
        #[serde(rename = "name", default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
        #[serde(rename = "type")]
        media_type: String,
        /// Unix seconds.
        until: i64,
    },
    /// Receives the bytes of `upload_id`.
    Put { upload_id: String, until: i64 },
}

impl Claim {
    fn until(&self) -> i64 {
        match self {
            Self::Get { until, .. } | Self::Put { until, .. } => *until,
        }
    }
}

impl Signer {
    /// Reads this server's keys, made at the first start.
    pub async fn open(catalog: &Catalog) -> Result<Self> {
        let old = catalog.read(|connection| settings::get(connection, SECRET)).await?;
        let ring = Ring::open(catalog, old).await?;
        let fresh = catalog.new_hex_id("", 64);
        let secret = catalog.write(move |tx| settings::get_or_set(tx, SECRET, &fresh)).await?;
        let secret = hex::decode(secret).map_err(|_| Error::internal("the secret for public keys is damaged"))?;
        Ok(Self {
            ring: RwLock::new(Arc::new(ring)),
            turn: tokio::sync::Mutex::default(),
            stamp: Hmac::new_from_slice(&secret).map_err(Error::internal)?,
        })
    }

    pub fn sign(&self, claim: &Claim) -> Result<String> {
        let (key_id, mut mac) = self.ring.read().signing();
        let claim = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claim).map_err(Error::internal)?);
        let signed = format!("{key_id}.{claim}");
        mac.update(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
    }

    /// A proof that this server made of `parts` for one purpose; of no use as a token or for another purpose. It stays the
    /// same when keys of tokens change.
    pub fn stamp(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.stamp.clone();
        // Tokens are signed as text that begins with no space.
        mac.update(b" ");
        mac.update(&id::sha256_parts(&[&[purpose.as_bytes()], parts].concat()));
        mac.finalize().into_bytes().into()
    }

    /// What the token allows at `now_seconds`. A wrong one and an expired one are [`Error::Forbidden`]; so is one whose key
    /// is not there any more, which says what an expired one says.
    pub fn open_token(&self, token: &str, now_seconds: i64) -> Result<Claim> {
        let wrong = || Error::Forbidden("the signature of this URL is not valid".into());
        let expired = || Error::Forbidden("this URL has expired; ask for a new one".into());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(wrong());
        }
        let (signed, tag) = token.rsplit_once('.').ok_or_else(wrong)?;
        let (key_id, claim) = match signed.split_once('.') {
            Some((key_id, claim)) => (key_id.parse::<u64>().map_err(|_| wrong())?, claim),
            None => (ring::FIRST, signed),
        };
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| wrong())?;
        let mut mac = self.ring.read().verifying(key_id, now_seconds).ok_or_else(expired)?;
        mac.update(signed.as_bytes());
        // Compares in constant time.
        mac.verify_slice(&tag).map_err(|_| wrong())?;
        let claim: Claim =
            URL_SAFE_NO_PAD.decode(claim).ok().and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(wrong)?;
        if claim.until() < now_seconds {
            return Err(expired());
        }
        Ok(claim)
    }

    /// The keys there are, oldest first; the last one signs.
    pub fn keys(&self) -> Vec<SigningKey> {
        self.ring.read().shown()
    }

    /// Has a new key sign, unless another one already does than when this was called.
    pub async fn rotate(&self, catalog: &Catalog) -> Result<()> {
        let (signing, _) = self.ring.read().signing();
        self.change(catalog, move |newest| newest.id == signing).await
    }

    /// Has a new key sign where the one that signs is `every` old, and lets go what no URL needs any more.
    pub async fn tend(&self, catalog: &Catalog, every: Option<Duration>) -> Result<()> {
        let now = catalog.now_micros() / 1_000_000;
        let every = every.map_or(i64::MAX, |every| i64::try_from(every.as_secs()).unwrap_or(i64::MAX));
        self.change(catalog, move |newest| now.saturating_sub(newest.made_at) >= every).await
    }

    async fn change(&self, catalog: &Catalog, is_due: impl Fn(&SigningKey) -> bool + Send + 'static) -> Result<()> {
        let _turn = self.turn.lock().await;
        let ring = Ring::turn(catalog, is_due).await?;
        *self.ring.write() = Arc::new(ring);
        Ok(())
    }
}

impl Engine {
    /// A URL that reads `hash` for `seconds`, as `filename` and `media_type`. No URL works longer than
    /// [`limits::MAX_PRESIGN_SECONDS`]: keys go by that.
    pub fn presigned_get(&self, hash: &str, filename: Option<&str>, media_type: &str, seconds: i64) -> Result<String> {
        let claim = Claim::Get {
            hash: hash.to_owned(),
            filename: filename.map(str::to_owned),
            media_type: media_type.to_owned(),
            until: self.seconds_from_now(seconds.min(limits::MAX_PRESIGN_SECONDS)),
        };
        self.presigned(&claim)
    }

    /// [`Engine::presigned_get`] for a blob of an object, for the usual time.
    pub fn presigned_blob(&self, blob: &ObjectBlob) -> Result<String> {
        let filename = blob.filename.as_deref();
        self.presigned_get(&blob.hash, filename, &blob.media_type, limits::PRESIGN_SECONDS)
    }

    /// A URL that receives the bytes of an upload for `seconds`.
    pub fn presigned_put(&self, upload_id: &str, seconds: i64) -> Result<String> {
        let until = self.seconds_from_now(seconds.min(limits::MAX_PRESIGN_SECONDS));
        self.presigned(&Claim::Put { upload_id: upload_id.to_owned(), until })
    }

    fn presigned(&self, claim: &Claim) -> Result<String> {
        Ok(format!("{}/v1/blobs/{}", self.config.public_url, self.signer.sign(claim)?))
    }

    fn seconds_from_now(&self, seconds: i64) -> i64 {
        self.catalog.now_micros() / 1_000_000 + seconds
    }

    /// RFC 3339: when a URL that is signed now for `seconds` ends to work.
    pub fn time_from_now(&self, seconds: i64) -> String {
        strata_store::seams::rfc3339(self.seconds_from_now(seconds) * 1_000_000)
    }

    /// What a token in a signed URL allows now.
    pub fn open_presigned(&self, token: &str) -> Result<Claim> {
        self.signer.open_token(token, self.catalog.now_micros() / 1_000_000)
    }

    /// Has a new key sign URLs from now on. Of several at once one makes a key and all answer the same. Those before it
    /// verify until no URL of theirs works any more. [`Error::Conflict`] where there are too many of them.
    pub async fn rotate_signing_key(&self) -> Result<Vec<SigningKey>> {
        self.signer.rotate(&self.catalog).await?;
        Ok(self.signer.keys())
    }

    /// Has a new key sign URLs where it is time, and lets those go that no URL needs.
    pub(crate) async fn tend_signing_keys(&self) -> Result<()> {
        self.signer.tend(&self.catalog, self.config.rotate_signing_every).await
    }

    /// Size in bytes of the content that a token names; [`Error::Missing`] when it was deleted.
    pub async fn content_size(&self, hash: &str) -> Result<u64> {
        self.blobs.size(hash).await?.ok_or_else(|| Error::missing("blob", hash))
    }

    /// A part of that content, piece by piece.
    pub async fn content(&self, hash: &str, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.blobs.stream(hash, Some(range)).await
    }
}

#[cfg(test)]
mod tests;
