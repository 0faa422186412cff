//! Signed URLs: a path that reads one blob or receives one upload, for whoever holds it, until a moment.
//!
//! A token is a JSON claim and its HMAC-SHA256 under a secret of this server, both in URL-safe base64. It names content
//! by hash and an upload by id; it holds no secret and nothing is stored for it.

use crate::Engine;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::stream::BoxStream;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::ops::Range;
use strata_model::{Error, Result, id};
use strata_store::{
    Catalog,
    catalog::{objects::ObjectBlob, settings},
};

const SECRET: &str = "presign_secret";
/// Longest token looked at.
const MAX_TOKEN_BYTES: usize = 4096;

/// Makes and checks tokens.
pub struct Signer {
    key: Hmac<Sha256>,
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
    /// Reads this server's secret, made at the first start.
    pub async fn open(catalog: &Catalog) -> Result<Self> {
        let fresh = catalog.new_hex_id("", 64);
        let secret = catalog.write(move |tx| settings::get_or_set(tx, SECRET, &fresh)).await?;
        let secret = hex::decode(secret).map_err(|_| Error::internal("the secret for signed URLs is damaged"))?;
        Ok(Self { key: Hmac::new_from_slice(&secret).map_err(Error::internal)? })
    }

    pub fn sign(&self, claim: &Claim) -> Result<String> {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claim).map_err(Error::internal)?);
        let mut mac = self.key.clone();
        mac.update(body.as_bytes());
        Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
    }

    /// A proof that this server made of `parts` for one purpose; of no use as a token or for another purpose.
    pub fn stamp(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.key.clone();
        // Tokens are signed as URL-safe base64, which begins with no space.
        mac.update(b" ");
        mac.update(&id::sha256_parts(&[&[purpose.as_bytes()], parts].concat()));
        mac.finalize().into_bytes().into()
    }

    /// What the token allows at `now_seconds`. A wrong one and an expired one are [`Error::Forbidden`].
    pub fn open_token(&self, token: &str, now_seconds: i64) -> Result<Claim> {
        let wrong = || Error::Forbidden("the signature of this URL is not valid".into());
        if token.len() > MAX_TOKEN_BYTES {
            return Err(wrong());
        }
        let (body, tag) = token.split_once('.').ok_or_else(wrong)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| wrong())?;
        let mut mac = self.key.clone();
        mac.update(body.as_bytes());
        // Compares in constant time.
        mac.verify_slice(&tag).map_err(|_| wrong())?;
        let claim: Claim =
            URL_SAFE_NO_PAD.decode(body).ok().and_then(|json| serde_json::from_slice(&json).ok()).ok_or_else(wrong)?;
        if claim.until() < now_seconds {
            return Err(Error::Forbidden("this URL has expired; ask for a new one".into()));
        }
        Ok(claim)
    }
}

impl Engine {
    /// A URL that reads `hash` for `seconds`, as `filename` and `media_type`.
    pub fn presigned_get(&self, hash: &str, filename: Option<&str>, media_type: &str, seconds: i64) -> Result<String> {
        let claim = Claim::Get {
            hash: hash.to_owned(),
            filename: filename.map(str::to_owned),
            media_type: media_type.to_owned(),
            until: self.seconds_from_now(seconds),
        };
        self.presigned(&claim)
    }

    /// [`Engine::presigned_get`] for a blob of an object, for the usual time.
    pub fn presigned_blob(&self, blob: &ObjectBlob) -> Result<String> {
        let filename = blob.filename.as_deref();
        self.presigned_get(&blob.hash, filename, &blob.media_type, strata_model::limits::PRESIGN_SECONDS)
    }

    /// A URL that receives the bytes of an upload for `seconds`.
    pub fn presigned_put(&self, upload_id: &str, seconds: i64) -> Result<String> {
        self.presigned(&Claim::Put { upload_id: upload_id.to_owned(), until: self.seconds_from_now(seconds) })
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
mod tests {
    use super::*;

    fn signer(secret: &[u8]) -> Signer {
        Signer { key: Hmac::new_from_slice(secret).unwrap() }
    }
    fn get(until: i64) -> Claim {
        Claim::Get { hash: "ab".repeat(32), filename: Some("é.png".into()), media_type: "image/png".into(), until }
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let signer = signer(b"one");
        for claim in [get(100), Claim::Put { upload_id: "upl_1".into(), until: 100 }] {
            let token = signer.sign(&claim).unwrap();
            assert_eq!(signer.open_token(&token, 100).unwrap(), claim);
            assert!(matches!(signer.open_token(&token, 101), Err(Error::Forbidden(_))));
        }
    }

    #[test]
    fn a_changed_token_and_one_of_another_server_are_refused() {
        let ours = signer(b"one");
        let token = ours.sign(&get(100)).unwrap();
        let (body, tag) = token.split_once('.').unwrap();
        let later = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&get(9_999_999_999)).unwrap());
        let forged = [
            format!("{later}.{tag}"),
            format!("{body}."),
            body.to_owned(),
            format!("{body}.{}", &tag[..20]),
            String::new(),
            ".".into(),
            "x".repeat(MAX_TOKEN_BYTES + 1),
        ];
        for forged in forged {
            assert!(matches!(ours.open_token(&forged, 0), Err(Error::Forbidden(_))), "{forged}");
        }
        assert!(signer(b"two").open_token(&token, 0).is_err());
    }
}
