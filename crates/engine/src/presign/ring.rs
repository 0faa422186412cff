//! The keys that sign URLs. The newest one signs; those before it verify until every URL that they can have signed has
//! expired, and go then. All are one row of the catalog: a key is on disk before it signs, and of two rotations at once
//! the second one sees what the first has done.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use strata_model::{Error, Result, limits};
use strata_store::{
    Catalog,
    catalog::{rusqlite::Connection, settings},
    seams::rfc3339,
};

/// Name of the row.
const ROW: &str = "signing_keys";
/// Form of what is in it.
const VERSION: u32 = 1;
/// The key of a server whose keys were never changed.
pub(super) const FIRST: u64 = 1;
/// Most keys at once. With a new one every hour there are 26.
const MAX_KEYS: usize = 100;
/// How much longer than its last URL a key stays: for URLs that are signed while it is replaced.
const SLACK_SECONDS: i64 = 3600;
/// Hex digits of a key.
const SECRET_CHARS: usize = 64;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// Oldest first; at least one.
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    id: u64,
    /// In hex.
    secret: String,
    /// Unix seconds.
    made_at: i64,
    /// Unix seconds at which it stops to verify; the key that signs has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<i64>,
}

/// A key, ready for use.
struct Key {
    id: u64,
    made_at: i64,
    until: Option<i64>,
    mac: Hmac<Sha256>,
}

/// The keys there are.
pub(super) struct Ring {
    /// Oldest first; at least one.
    keys: Vec<Key>,
}

/// A key that signs URLs or still verifies them. What it is made of is told to nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SigningKey {
    pub id: u64,
    /// Unix seconds.
    pub made_at: i64,
    /// Unix seconds at which it goes; `None` for the one that signs.
    pub until: Option<i64>,
}

impl SigningKey {
    /// RFC 3339.
    pub fn made_at(&self) -> String {
        rfc3339(self.made_at.saturating_mul(1_000_000))
    }

    /// RFC 3339; `None` for the key that signs.
    pub fn verifies_until(&self) -> Option<String> {
        self.until.map(|until| rfc3339(until.saturating_mul(1_000_000)))
    }
}

impl Ring {
    /// Reads the keys. Where there are none, `old` becomes the first one: the secret that a server had before its keys
    /// could be changed, in hex; without it one is made.
    pub async fn open(catalog: &Catalog, old: Option<String>) -> Result<Self> {
        let (now, fresh) = (seconds(catalog), catalog.new_hex_id("", SECRET_CHARS));
        let write = catalog.write(move |tx| {
            if let Some(stored) = read(tx)? {
                return Ok(stored);
            }
            let first = StoredKey { id: FIRST, secret: old.unwrap_or(fresh), made_at: now, until: None };
            let stored = Stored { version: VERSION, keys: vec![first] };
            settings::set(tx, ROW, &text(&stored)?)?;
            Ok(stored)
        });
        Self::from_stored(&write.await?)
    }

    /// Lets go what no URL needs any more, and has a new key sign where the one that signs is `is_due`. That is asked of
    /// the key as it is stored, at the end of all rotations before. [`Error::Conflict`] where there are too many keys.
    pub async fn turn(catalog: &Catalog, is_due: impl Fn(&SigningKey) -> bool + Send + 'static) -> Result<Self> {
        let (now, fresh) = (seconds(catalog), catalog.new_hex_id("", SECRET_CHARS));
        let stored = catalog.read(there).await?;
        if stored.keys.iter().all(|key| key.verifies(now)) && !is_due(&stored.newest()?.shown()) {
            return Self::from_stored(&stored);
        }
        let write = catalog.write(move |tx| {
            let mut stored = there(tx)?;
            stored.keys.retain(|key| key.verifies(now));
            let newest = stored.newest()?;
            if is_due(&newest.shown()) {
                let id = newest.id + 1;
                if stored.keys.len() >= MAX_KEYS {
                    return Err(Error::Conflict(format!(
                        "{MAX_KEYS} keys verify URLs already; wait until the oldest ones have ended"
                    )));
                }
                for key in &mut stored.keys {
                    key.until.get_or_insert(now + limits::MAX_PRESIGN_SECONDS + SLACK_SECONDS);
                }
                stored.keys.push(StoredKey { id, secret: fresh, made_at: now, until: None });
            }
            settings::set(tx, ROW, &text(&stored)?)?;
            Ok(stored)
        });
        Self::from_stored(&write.await?)
    }

    fn from_stored(stored: &Stored) -> Result<Self> {
        stored.newest()?;
        Ok(Self { keys: stored.keys.iter().map(StoredKey::opened).collect::<Result<_>>()? })
    }

    /// The id of the key that signs, and what it signs with.
    pub fn signing(&self) -> (u64, Hmac<Sha256>) {
        let key = self.keys.last().expect("a ring that was read has a key");
        (key.id, key.mac.clone())
    }

    /// What verifies what the key `id` signed; `None` where there is no such key any more.
    pub fn verifying(&self, id: u64, now_seconds: i64) -> Option<Hmac<Sha256>> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        key.until.is_none_or(|until| until >= now_seconds).then(|| key.mac.clone())
    }

    /// Oldest first; the last one signs.
    pub fn shown(&self) -> Vec<SigningKey> {
        self.keys.iter().map(|key| SigningKey { id: key.id, made_at: key.made_at, until: key.until }).collect()
    }
}

impl Stored {
    /// The key that signs.
    fn newest(&self) -> Result<&StoredKey> {
        self.keys.last().ok_or_else(|| Error::internal("no key signs URLs"))
    }
}

impl StoredKey {
    fn verifies(&self, now: i64) -> bool {
        self.until.is_none_or(|until| until >= now)
    }

    fn shown(&self) -> SigningKey {
        SigningKey { id: self.id, made_at: self.made_at, until: self.until }
    }

    fn opened(&self) -> Result<Key> {
        let secret = hex::decode(&self.secret).map_err(|_| Error::internal("a key that signs URLs is damaged"))?;
        let mac = Hmac::new_from_slice(&secret).map_err(Error::internal)?;
        Ok(Key { id: self.id, made_at: self.made_at, until: self.until, mac })
    }
}

fn seconds(catalog: &Catalog) -> i64 {
    catalog.now_micros() / 1_000_000
}

fn read(connection: &Connection) -> Result<Option<Stored>> {
    let Some(text) = settings::get(connection, ROW)? else { return Ok(None) };
    // What is wrong with the text is not said: it holds keys.
    let stored: Stored =
        serde_json::from_str(&text).map_err(|_| Error::internal("the keys that sign URLs cannot be read"))?;
    match stored.version {
        VERSION => Ok(Some(stored)),
        other => Err(Error::internal(format!("the keys that sign URLs have the unknown form {other}"))),
    }
}

/// [`read`] where [`Ring::open`] has been.
fn there(connection: &Connection) -> Result<Stored> {
    read(connection)?.ok_or_else(|| Error::internal("no key signs URLs"))
}

fn text(stored: &Stored) -> Result<String> {
    serde_json::to_string(stored).map_err(Error::internal)
}
