//! Self-examination: does what is stored hold together? Reads everything, repairs nothing.

use crate::{Engine, collections, secrets::Contents};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use strata_infer::{InstallState, Registry};
use strata_model::{Error, Result, feature::VectorIndex};
use strata_store::{
    catalog::{documents, from_sql, rusqlite::Connection},
    index::ShardState,
};

/// One question and its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// What was found, and what to do where it is not good.
    pub detail: String,
}

impl Check {
    fn new(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok, detail: detail.into() }
    }
}

/// Most blobs, and most secrets, that a report names.
const MAX_NAMED: usize = 5;
/// How long the index may take to catch up, all collections together.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Microseconds that a lease may have been over before its derivation counts as stuck.
const STUCK_MICROS: i64 = 600_000_000;

/// What works right now. Quick to ask; `None` where there is no trouble.
#[derive(Debug, Clone, Default)]
pub struct Health {
    pub catalog: Option<String>,
    pub index: Option<String>,
    pub blobs: Option<String>,
    pub models: Option<String>,
    /// Collections whose index is being built.
    pub rebuilding: usize,
}

impl Engine {
    /// Asks every part whether it answers.
    pub async fn health(&self) -> Health {
        let catalog = self.catalog.read(|connection| texts(connection, "SELECT 'ok'")).await.err();
        let blobs = self.blobs.size(&"0".repeat(64)).await.err();
        let index = self.index.clone();
        let shards = tokio::task::spawn_blocking(move || index.status()).await.unwrap_or_default();
        let failing = shards.iter().filter(|shard| shard.last_error.is_some()).count();
        let model = Registry::default_text_model();
        let registry = self.registry.clone();
        let look = move || Registry::resolve(model).is_ok_and(|entry| registry.state(entry) == InstallState::Installed);
        let has_model = tokio::task::spawn_blocking(look).await.unwrap_or(false);
        Health {
            catalog: catalog.map(|_| "the catalog cannot be read; the log says why".into()),
            blobs: blobs
                .map(|_| "the blob store cannot be read; the log says why".into())
                .or_else(|| self.check_room().err().map(|error| error.to_string())),
            index: (failing > 0)
                .then(|| format!("{failing} collections have trouble with their index; the log says why")),
            models: (!has_model).then(|| format!("model `{model}` is not installed; run `strata models pull {model}`")),
            rebuilding: shards.iter().filter(|shard| shard.state == ShardState::Rebuilding).count(),
        }
    }

    /// Looks at catalog, blobs, secrets, index, models and derivations. An error means that the examination failed.
    pub async fn doctor(&self) -> Result<Vec<Check>> {
        let mut checks = self.check_catalog().await?;
        checks.push(self.check_blobs().await?);
        checks.push(self.check_secrets().await?);
        checks.extend(self.check_index().await?);
        checks.extend(self.check_models().await?);
        checks.push(self.check_derivations().await?);
        Ok(checks)
    }

    async fn check_catalog(&self) -> Result<Vec<Check>> {
        let read = self.catalog.read(|connection| {
            let found = texts(connection, "PRAGMA integrity_check(10)")?;
            let broken = texts(connection, "PRAGMA foreign_key_check")?;
            Ok((found, broken.len()))
        });
        let (found, broken) = read.await?;
        let sound = found.len() == 1 && found[0] == "ok";
        let detail =
            if sound { "SQLite finds no damage".into() } else { format!("{}; restore a backup", found.join("; ")) };
        let references = match broken {
            0 => "every row's references lead somewhere".to_owned(),
            count => format!("{count} rows refer to rows that are gone"),
        };
        Ok(vec![Check::new("catalog", sound, detail), Check::new("references", broken == 0, references)])
    }

    async fn check_blobs(&self) -> Result<Check> {
        let read = self.catalog.read(|connection| {
            let sql = "SELECT hash, size_bytes, EXISTS (SELECT 1 FROM object_blobs o WHERE o.hash = b.hash)
                 OR EXISTS (SELECT 1 FROM snapshot_contents s WHERE s.hash = b.hash) FROM blobs b";
            let mut statement = connection.prepare(sql).map_err(from_sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(from_sql)?;
            rows.collect::<std::result::Result<Vec<(String, i64, bool)>, _>>().map_err(from_sql)
        });
        let rows = read.await?;
        let (mut wrong, mut idle) = (Vec::new(), 0);
        for (hash, size_bytes, is_used) in &rows {
            match self.blobs.size(hash).await? {
                Some(found) if i64::try_from(found) == Ok(*size_bytes) => idle += usize::from(!is_used),
                Some(found) => wrong.push(format!("`{hash}` has {found} bytes instead of {size_bytes}")),
                None if *is_used => wrong.push(format!("`{hash}` is missing")),
                None => idle += 1,
            }
        }
        if wrong.is_empty() {
            return Ok(Check::new(
                "blobs",
                true,
                format!("{} are there with their sizes, {idle} of them unused", rows.len()),
            ));
        }
        let named = wrong[..wrong.len().min(MAX_NAMED)].join(", ");
        Ok(Check::new(
            "blobs",
            false,
            format!("{} of {} are wrong: {named}; upload them again", wrong.len(), rows.len()),
        ))
    }

    async fn check_secrets(&self) -> Result<Check> {
        let Contents { count, locked, no_key } = self.try_vault().await?;
        if locked.is_empty() {
            return Ok(Check::new("secrets", true, format!("all {count} sealed values open with the server's key")));
        }
        let named = locked[..locked.len().min(MAX_NAMED)].join(", ");
        let more = match locked.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let repair = no_key.unwrap_or_else(|| "use the key that sealed them, or set them anew".to_owned());
        let detail = format!("{} of {count} do not open: {named}{more}; {repair}", locked.len());
        Ok(Check::new("secrets", false, detail))
    }

    async fn check_index(&self) -> Result<Vec<Check>> {
        let read = self.catalog.read(|connection| {
            let collections = texts(connection, "SELECT collection_id FROM collections ORDER BY collection_id")?;
            let heads = collections.into_iter().map(|id| documents::head(connection, &id).map(|head| (id, head)));
            heads.collect::<Result<Vec<(String, i64)>>>()
        });
        let heads = read.await?;
        if heads.is_empty() {
            return Ok(vec![Check::new("index", true, "there is no collection yet")]);
        }
        let index = self.index.clone();
        let look = move || {
            let deadline = Instant::now() + CATCH_UP;
            heads.iter().for_each(|(collection, _)| index.notify(collection));
            let check = |(collection, head): &(String, i64)| {
                let left = deadline.saturating_duration_since(Instant::now());
                let is_current = *head == 0 || index.wait_applied(collection, *head, left);
                let applied = index.applied(collection);
                let state = index.status().into_iter().find(|s| s.collection_id == *collection);
                let trouble = state.and_then(|s| s.last_error).map_or(String::new(), |e| format!("; last error: {e}"));
                let detail = match is_current {
                    true => format!("has all {head} changes"),
                    false => format!("has change {applied} of {head} and is still being built{trouble}"),
                };
                Check::new(format!("index of {collection}"), is_current, detail)
            };
            heads.iter().map(check).collect()
        };
        tokio::task::spawn_blocking(look).await.map_err(Error::internal)
    }

    async fn check_models(&self) -> Result<Vec<Check>> {
        let read = self.catalog.read(|connection| {
            let mut needed = BTreeSet::new();
            for body in texts(connection, "SELECT body FROM collections")? {
                let body = serde_json::from_str(&body).map_err(Error::internal)?;
                let vectors: Vec<VectorIndex> = collections::private(&body, collections::VECTORS)?;
                needed.extend(vectors.into_iter().map(|vector| vector.model));
            }
            Ok(needed)
        });
        let needed = read.await?;
        let registry = self.registry.clone();
        let look = move || {
            let mut checks = Vec::new();
            for status in registry.list() {
                let id = status.entry.id;
                let is_needed = needed.contains(id);
                let repair = format!("run `strata models pull {id}`");
                let (ok, detail) = match status.state {
                    InstallState::Installed => match registry.verify(id)?.is_good() {
                        true => (true, "installed, every file has its checksum".to_owned()),
                        false => (false, format!("a file is not what it should be; {repair}")),
                    },
                    InstallState::Damaged => (false, format!("incomplete; {repair}")),
                    InstallState::Missing if is_needed => {
                        (false, format!("a collection needs it and it is not installed; {repair}"))
                    }
                    InstallState::Missing => (true, "not installed, and no collection needs it".to_owned()),
                };
                checks.push(Check::new(format!("model {id}"), ok, detail));
            }
            Ok(checks)
        };
        tokio::task::spawn_blocking(look).await.map_err(Error::internal)?
    }

    async fn check_derivations(&self) -> Result<Check> {
        let long_ago = self.catalog.now_micros() - STUCK_MICROS;
        let read = self.catalog.read(move |connection| {
            let sql = "SELECT count(*) FILTER (WHERE status = 'failed'),
                              count(*) FILTER (WHERE status IN ('pending', 'running')),
                              count(*) FILTER (WHERE status IN ('pending', 'running') AND lease_until BETWEEN 1 AND ?1)
                       FROM derivations";
            let count = |row: &strata_store::catalog::rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            connection.query_row(sql, [long_ago], count).map_err(from_sql)
        });
        let (failed, open, stuck): (i64, i64, i64) = read.await?;
        let detail = match stuck {
            0 => format!("{open} are open, {failed} have failed"),
            _ => {
                format!("{stuck} of {open} open ones were leased and not finished for 10 minutes; {failed} have failed")
            }
        };
        Ok(Check::new("derivations", stuck == 0, detail))
    }
}

/// The first column of every row.
fn texts(connection: &Connection, sql: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare(sql).map_err(from_sql)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(from_sql)?;
    rows.collect::<std::result::Result<_, _>>().map_err(from_sql)
}
